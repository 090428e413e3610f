//! `ringmaster keys`: changes client.keys and lists it, as manage_agents does.

mod error;
mod file;
mod remove;
mod transfer;

use std::path::Path;

use codec::{AddressRule, AgentId, KeyEntry, KeyFile};
use rand::TryRng;

pub use error::KeysError;
pub use remove::remove;
pub use transfer::{export, extract, import};

/// An agent that is to be added.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// Its name, unchecked.
    pub name: String,
    /// Its address rule, unchecked: `any`, an address or a network.
    pub address: String,
    /// Its id, unchecked; `None` for the next free one.
    pub id: Option<String>,
}

/// Adds an agent to client.keys, and returns its line.
///
/// Readers see the file with or without the line, never a part of it; what manage_agents adds meanwhile is kept.
/// Source: ossec-hids 4.3.0 `addagent/manage_agents.c`, `add_agent`.
///
/// # Errors
/// When the name, address or id can't be used or is taken, or the file can't be changed.
pub fn add(keys_path: &Path, agent: &NewAgent) -> Result<String, KeysError> {
    let key = secret()?;
    let added = file::append(keys_path, |present| Ok(vec![new_entry(agent, present, key.clone())?]))?;
    Ok(added.iter().map(KeyEntry::to_line).collect())
}

/// The agents of client.keys, one line each without the key, and what is wrong with the file.
///
/// # Errors
/// When the file can't be read.
pub fn list(keys_path: &Path) -> Result<(String, Vec<String>), KeysError> {
    let parsed = read(keys_path)?;
    let agents = parsed
        .entries
        .iter()
        .map(|entry| format!("{} {} {}\n", entry.id, entry.name, entry.address))
        .collect();
    let problems = parsed
        .problems
        .iter()
        .map(|problem| format!("{}:{}: {}", keys_path.display(), problem.line, problem.kind))
        .collect();
    Ok((agents, problems))
}

/// The file, parsed.
///
/// # Errors
/// When it can't be read.
pub fn read(keys_path: &Path) -> Result<KeyFile, KeysError> {
    let failed = |error: std::io::Error| KeysError::Io { path: keys_path.to_owned(), kind: error.kind() };
    Ok(KeyFile::parse(&std::fs::read(keys_path).map_err(failed)?))
}

/// The entry, once nothing speaks against it.
fn new_entry(agent: &NewAgent, present: &KeyFile, key: String) -> Result<KeyEntry, KeysError> {
    let name_fits = NAME_CHARACTERS.contains(&agent.name.len())
        && agent.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !name_fits {
        return Err(KeysError::Name(agent.name.clone()));
    }
    if let Some(holder) = present.entries.iter().find(|entry| *entry.name == *agent.name) {
        return Err(KeysError::NameTaken { name: agent.name.clone(), id: holder.id });
    }
    let address: AddressRule = agent.address.parse().map_err(|error: codec::AddressError| {
        KeysError::Address { text: agent.address.clone(), problem: error.to_string() }
    })?;
    let mut taken =
        present.entries.iter().map(|entry| entry.id).chain(present.removed.iter().map(|key| key.id));
    if let Some(host) = address.single_host()
        && let Some(holder) = present.entries.iter().find(|entry| entry.address.single_host() == Some(host))
    {
        return Err(KeysError::AddressTaken { address: agent.address.clone(), id: holder.id });
    }
    let id = match &agent.id {
        None => next_id(taken)?,
        Some(text) => {
            let id: AgentId = text.parse().map_err(|_| KeysError::Id(text.clone()))?;
            if numeric(id) == 0 {
                return Err(KeysError::Id(text.clone()));
            }
            if taken.any(|other| other == id) {
                return Err(KeysError::IdTaken(id));
            }
            id
        }
    };
    Ok(KeyEntry { id, name: agent.name.as_str().into(), address, key: key.into() })
}

/// The id after the greatest one in use. Ids of removed agents are not used again: their counters may still be about.
fn next_id(taken: impl Iterator<Item = AgentId>) -> Result<AgentId, KeysError> {
    let next = taken.map(numeric).max().unwrap_or(0) + 1;
    format!("{next:03}").parse().map_err(|_| KeysError::NoIdLeft)
}

fn numeric(id: AgentId) -> u64 {
    id.as_str().bytes().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// 64 hexadecimal digits from the operating system's randomness.
fn secret() -> Result<String, KeysError> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| KeysError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The entry whose id this is: as written, or as manage_agents would write the number.
///
/// # Errors
/// When there is none.
///
/// Source: ossec-hids 4.3.0 `addagent/validate.c`, `FormatID`.
pub fn find<'a>(present: &'a KeyFile, id: &str) -> Result<&'a KeyEntry, KeysError> {
    let of = |id: &str| present.entries.iter().find(|entry| entry.id.as_str() == id);
    let found = of(id).or_else(|| of(&format!("{:03}", id.parse::<u32>().ok()?)));
    found.ok_or_else(|| KeysError::IdUnknown(id.to_owned()))
}

/// What manage_agents takes for a name. Source: ossec-hids 4.3.0 `addagent/validate.c`, `OS_IsValidName`.
const NAME_CHARACTERS: std::ops::RangeInclusive<usize> = 2..=codec::limits::AGENT_NAME_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, address: &str, id: Option<&str>) -> NewAgent {
        NewAgent { name: name.to_owned(), address: address.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn what_may_be_added_and_what_not() {
        let present = KeyFile::parse(b"001 web any k\n002 !gone any old\n0017 db 10.0.0.1 k\n");
        let check = |agent: NewAgent, expected: &str| {
            let outcome = match new_entry(&agent, &present, "secret".to_owned()) {
                Ok(entry) => entry.to_line(),
                Err(error) => error.to_string(),
            };
            assert_eq!(outcome, expected, "{agent:?}");
        };
        check(agent("mail", "any", None), "018 mail any secret");
        check(agent("mail", "192.0.2.0/24", Some("5")), "5 mail 192.0.2.0/24 secret");
        check(agent("mail", "any", Some("1")), "1 mail any secret");
        check(agent("web", "any", None), "the name web is taken by agent 001: choose another");
        check(agent("mail", "any", Some("001")), "the id 001 is taken: choose another, or leave --id out");
        check(agent("mail", "any", Some("002")), "the id 002 is taken: choose another, or leave --id out");
        for id in ["", "x", "123456789", "000", "-1"] {
            check(
                agent("mail", "any", Some(id)),
                &format!("--id {id:?} is no id: use 1 to 8 digits that are not all 0, or leave it out"),
            );
        }
        for name in ["", "a", "a b", "#ab", "../x", "ä-umlaut"] {
            check(
                agent(name, "any", None),
                &format!("{name:?} is no agent name: use 2 to 127 letters, digits, '-', '_' or '.'"),
            );
        }
        check(
            agent("mail", "10.0.0.1", None),
            "the address 10.0.0.1 is taken by agent 0017: choose another, or a network",
        );
        let error = new_entry(&agent("mail", "10.0.0.300", None), &present, String::new()).unwrap_err();
        assert!(error.to_string().starts_with("--ip \"10.0.0.300\": "), "{error}");
    }

    #[test]
    fn ids_end_with_eight_digits() {
        let taken = |id: &str| next_id([id.parse().unwrap()].into_iter()).map(|id| id.to_string());
        assert_eq!(taken("9"), Ok("010".to_owned()));
        assert_eq!(taken("999"), Ok("1000".to_owned()));
        assert_eq!(taken("99999999"), Err(KeysError::NoIdLeft));
    }

    #[test]
    fn the_file_grows_by_one_readable_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        std::fs::write(&path, "001 web any k").unwrap();
        let line = add(&path, &agent("mail", "any", None)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("001 web any k\n{line}\n"));
        let parsed = KeyFile::parse(&std::fs::read(&path).unwrap());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let key = &parsed.entries[1].key;
        assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        let other = add(&path, &agent("mail2", "any", None)).unwrap();
        assert_ne!(&other[other.len() - 64..], &line[line.len() - 64..]);
        assert_eq!(
            list(&path).unwrap(),
            ("001 web any\n002 mail any\n003 mail2 any\n".to_owned(), Vec::new())
        );
    }
}
