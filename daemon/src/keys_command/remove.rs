//! `ringmaster keys remove`: an agent is gone, and its id is not given to another.

use std::{fs, io, path::Path};

use codec::{AgentId, KeyEntry, KeyFile};

use super::{KeysError, file, find, read};
use crate::registry::agent_info_name;

/// What manage_agents writes behind the id. Source: ossec-hids 4.3.0 `addagent/manage_agents.c`, `remove_agent`.
const MARK: &[u8] = b" #*#*#*#*#*#*#*#*#*#*#";

/// Removes agents from the client.keys of this home, as manage_agents does: each line keeps its id and loses its name and
/// address, so that OSSEC and Wazuh read it as removed and its id is not used again. Its counters and its file in
/// queue/agent-info go, too. Returns the agents' ids, as they are written there.
///
/// # Errors
/// When an id is no agent's (nothing is removed then), or a file can't be changed.
pub fn remove(home: &crate::home::Home, ids: &[String]) -> Result<Vec<AgentId>, KeysError> {
    let keys_path = home.keys_path();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| KeysError::Io { path, kind: error.kind() }
    };
    let present = read(&keys_path)?;
    let entries: Vec<&KeyEntry> = ids.iter().map(|id| find(&present, id)).collect::<Result<_, _>>()?;
    for entry in &entries {
        file::overwrite(&keys_path, |content| Ok(removal(content, entry)))?;
        for left in [
            home.path().join("queue/rids").join(entry.id.as_str()),
            home.path().join("queue/agent-info").join(agent_info_name(entry)),
        ] {
            match fs::remove_file(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&left)(error)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(entries.iter().map(|entry| entry.id).collect())
}

/// How the agent's line is overwritten; `None` if there is no such line any more.
fn removal(content: &[u8], entry: &KeyEntry) -> Option<file::Overwrite> {
    let mut at = 0;
    for line in content.split(|byte| *byte == b'\n') {
        if KeyFile::parse(line).entries.first() == Some(entry) {
            let mut with = [entry.id.as_bytes(), MARK].concat();
            // The mark of manage_agents is longer than a line with a short key.
            with.truncate(line.len());
            return Some(file::Overwrite { at, line: line.to_vec(), with });
        }
        at += line.len() as u64 + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    #[test]
    fn a_line_is_overwritten_as_manage_agents_does_and_no_other_one() {
        let key = "k".repeat(64);
        let check = |content: &str, id: &str, expected: &str| {
            let entry = find(&KeyFile::parse(content.as_bytes()), id).unwrap().clone();
            let file::Overwrite { at, line, with } = removal(content.as_bytes(), &entry).unwrap();
            let mut bytes = content.as_bytes().to_vec();
            assert!(bytes[at as usize..].starts_with(&line));
            bytes[at as usize..at as usize + with.len()].copy_from_slice(&with);
            let after = String::from_utf8(bytes).unwrap();
            assert_eq!(after, expected);
            let parsed = KeyFile::parse(after.as_bytes());
            assert!(
                parsed.removed.iter().any(|removed| removed.id == entry.id) && parsed.problems.is_empty()
            );
        };
        // The tail of the key stays, as manage_agents leaves it.
        check(
            &format!("001 web01 any {key}\n002 mail any {key}\n"),
            "001",
            &format!("001 #*#*#*#*#*#*#*#*#*#*#{}\n002 mail any {key}\n", &key[11..]),
        );
        check("# c\n001 w any k\n2 m any k\n", "2", "# c\n001 w any k\n2 #*#*#*#\n");
        check("001 web any secret\n002 db any k", "1", "001 #*#*#*#*#*#*#*\n002 db any k");
    }

    #[test]
    fn an_agent_goes_with_its_counters_and_its_id_is_not_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        fs::write(home.keys_path(), "001 web 10.0.0.0/8 k\n002 db any k\n").unwrap();
        fs::create_dir_all(folder.path().join("queue/agent-info")).unwrap();
        let left = ["queue/rids/002", "queue/agent-info/db-any"].map(|part| folder.path().join(part));
        left.iter().for_each(|path| fs::write(path, "x").unwrap());
        let unknown = remove(&home, &["002".to_owned(), "7".to_owned()]);
        assert_eq!(unknown, Err(KeysError::IdUnknown("7".to_owned())));
        assert!(left.iter().all(|path| path.exists()), "nothing is removed then");
        assert_eq!(remove(&home, &["2".to_owned()]), Ok(vec!["002".parse().unwrap()]));
        assert!(!left.iter().any(|path| path.exists()));
        let agent =
            crate::keys_command::NewAgent { name: "mail".to_owned(), address: "any".to_owned(), id: None };
        let line = crate::keys_command::add(&home.keys_path(), &agent).unwrap();
        assert!(line.starts_with("003 mail any "), "{line}");
    }
}
