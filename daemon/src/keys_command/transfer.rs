//! Keys on their way between managers and agents: base64 of the agent's line, as manage_agents has it.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use codec::{KeyEntry, KeyFile};

use super::{KeysError, file, find, read};

/// What manage_agents -e prints of an agent: what its administrator pastes into manage_agents -i on the agent's host.
///
/// Source: ossec-hids 4.3.0 `addagent/manage_keys.c`, `k_extract`.
///
/// # Errors
/// When the id is no agent's, or the file can't be read.
pub fn extract(keys_path: &Path, id: &str) -> Result<String, KeysError> {
    let present = read(keys_path)?;
    let entry = find(&present, id)?;
    Ok(format!("\nAgent key information for '{}' is: \n{}\n", entry.id, encoded(entry)))
}

/// The keys of these agents, or of all if none is named, one a line: what [`import`] takes on another manager.
///
/// # Errors
/// When an id is no agent's, or the file can't be read.
pub fn export(keys_path: &Path, ids: &[String]) -> Result<String, KeysError> {
    let present = read(keys_path)?;
    let entries: Vec<&KeyEntry> = if ids.is_empty() {
        present.entries.iter().collect()
    } else {
        ids.iter().map(|id| find(&present, id)).collect::<Result<_, _>>()?
    };
    Ok(entries.into_iter().map(|entry| encoded(entry) + "\n").collect())
}

/// Adds agents whose keys were exported elsewhere, all or none. One that is there already, to the letter, is left alone.
/// Returns those that were added.
///
/// # Errors
/// When a key is none, its id, name or address is taken by another agent, or the file can't be changed.
pub fn import<'a>(
    keys_path: &Path,
    keys: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<KeyEntry>, KeysError> {
    let entries: Vec<KeyEntry> = keys
        .into_iter()
        .filter(|key| !key.trim().is_empty())
        .enumerate()
        .map(|(index, key)| decoded(key).map_err(|problem| KeysError::Import { number: index + 1, problem }))
        .collect::<Result<_, _>>()?;
    file::append(keys_path, |present| welcome(present, &entries))
}

/// Those of the entries that are not there yet, if nothing speaks against any.
fn welcome(present: &KeyFile, entries: &[KeyEntry]) -> Result<Vec<KeyEntry>, KeysError> {
    let mut ids: HashSet<_> = present.removed.iter().map(|key| key.id).collect();
    let mut known: Vec<&KeyEntry> = present.entries.iter().collect();
    ids.extend(known.iter().map(|entry| entry.id));
    let mut names: HashMap<&str, _> = known.iter().map(|entry| (&*entry.name, entry.id)).collect();
    let mut hosts: HashMap<_, _> =
        known.iter().filter_map(|entry| Some((entry.address.single_host()?, entry.id))).collect();
    known.sort_unstable_by_key(|entry| entry.id);
    let mut added: Vec<KeyEntry> = Vec::new();
    for entry in entries {
        let is_there = known.binary_search_by_key(&entry.id, |known| known.id);
        if is_there.is_ok_and(|place| known[place] == entry) {
            continue;
        }
        if !ids.insert(entry.id) {
            return Err(KeysError::IdTaken(entry.id));
        }
        if let Some(id) = names.insert(&entry.name, entry.id) {
            return Err(KeysError::NameTaken { name: entry.name.to_string(), id });
        }
        if let Some(host) = entry.address.single_host()
            && let Some(id) = hosts.insert(host, entry.id)
        {
            return Err(KeysError::AddressTaken { address: entry.address.to_string(), id });
        }
        added.push(entry.clone());
    }
    Ok(added)
}

fn encoded(entry: &KeyEntry) -> String {
    ENGINE.encode(entry.to_line())
}

/// Characters that are not base64's are skipped, as manage_agents does: a key is pasted, and may be broken over lines.
///
/// Source: ossec-hids 4.3.0 `addagent/b64.c`, `decode_base64`.
fn decoded(key: &str) -> Result<KeyEntry, String> {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let digits: Vec<u8> = key.bytes().filter(known).collect();
    let line = ENGINE.decode(digits).map_err(|_| "it is not base64".to_owned())?;
    if line.trim_ascii_end().contains(&b'\n') {
        return Err("it has several lines".to_owned());
    }
    let mut parsed = KeyFile::parse(&line);
    match (parsed.problems.pop(), parsed.entries.pop()) {
        (Some(problem), _) => Err(problem.kind.to_string()),
        (None, Some(entry)) => Ok(entry),
        (None, None) => Err("no agent in it".to_owned()),
    }
}

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_looks_as_manage_agents_prints_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        std::fs::write(&path, "001 web any secret\n002 db 10.0.0.1 k\n").unwrap();
        assert_eq!(
            extract(&path, "1").unwrap(),
            "\nAgent key information for '001' is: \nMDAxIHdlYiBhbnkgc2VjcmV0\n"
        );
        assert_eq!(extract(&path, "003"), Err(KeysError::IdUnknown("003".to_owned())));
        assert_eq!(export(&path, &["002".to_owned()]).unwrap(), "MDAyIGRiIDEwLjAuMC4xIGs=\n");
        assert_eq!(export(&path, &[]).unwrap(), "MDAxIHdlYiBhbnkgc2VjcmV0\nMDAyIGRiIDEwLjAuMC4xIGs=\n");
    }

    #[test]
    fn what_was_exported_can_be_imported_once() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, "001 web any secret\n002 db 10.0.0.1 k\n").unwrap();
        std::fs::write(&to, "002 db 10.0.0.1 k\n").unwrap();
        let keys = export(&from, &[]).unwrap();
        let added = import(&to, keys.lines()).unwrap();
        assert_eq!(added.iter().map(KeyEntry::to_line).collect::<Vec<_>>(), ["001 web any secret"]);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "002 db 10.0.0.1 k\n001 web any secret\n");
        assert_eq!(import(&to, keys.lines()), Ok(Vec::new()));
    }

    #[test]
    fn what_can_not_be_imported_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        let present = "001 web any secret\n002 #*#*# old\n003 db 10.0.0.1 k\n";
        std::fs::write(&path, present).unwrap();
        let check = |line: &str, expected: &str| {
            let good = ENGINE.encode("009 good any k");
            let error = import(&path, [good.as_str(), &ENGINE.encode(line)]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{line:?}: {error}");
            assert!(!error.contains("s3cret"), "no key is ever said: {error}");
        };
        check("001 other any s3cret", "the id 001 is taken");
        check("002 other any s3cret", "the id 002 is taken");
        check("004 web any s3cret", "the name web is taken by agent 001");
        check("004 other 10.0.0.1 s3cret", "the address 10.0.0.1 is taken by agent 003");
        check("009 good2 any s3cret", "the id 009 is taken");
        check("004 other any", "key 2 is no agent's key (skipped: too few fields");
        check("# comment", "key 2 is no agent's key (no agent in it)");
        check("004 a any k\n005 b any k", "key 2 is no agent's key (it has several lines)");
        let broken = import(&path, ["A"]).unwrap_err().to_string();
        assert!(broken.starts_with("key 1 is no agent's key (it is not base64)"), "{broken}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), present, "all or none");
    }
}
