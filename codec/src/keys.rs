//! client.keys: one agent a line, `id name address key`.

use crate::address::{AddressError, AddressRule};
use crate::id::{AgentId, AgentIdError};
use crate::limits::{AGENT_NAME_BYTES_MAX, KEY_BYTES_MAX, KEY_LINE_BYTES_MAX};
use crate::text::Escaped;
use std::collections::HashSet;
use std::fmt;

/// A client.keys file: who may speak, who was removed, and what is wrong with it.
///
/// A line that is wrong is skipped and reported; the rest of the file counts. Of two lines with one id the first wins.
#[derive(Clone, Debug, Default)]
pub struct KeyFile {
    /// The agents, in the order of the file.
    pub entries: Vec<KeyEntry>,
    /// Lines of agents that manage_agents removed, in the order of the file.
    pub removed: Vec<RemovedKey>,
    /// What was skipped or corrected, in the order of the file.
    pub problems: Vec<KeyProblem>,
}

/// One agent of client.keys.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The agent's id.
    pub id: AgentId,
    /// The agent's name: no blanks, no control characters.
    pub name: Box<str>,
    /// From where the agent may come.
    pub address: AddressRule,
    /// The secret: the rest of the line.
    pub key: Box<str>,
}

/// A line whose agent was removed: only its id is still known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovedKey {
    /// The id that the line began with.
    pub id: AgentId,
    /// The line, counted from 1.
    pub line: u32,
}

/// What is wrong with one line of client.keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong.
    pub kind: KeyProblemKind,
}

/// What can be wrong with a line of client.keys. All but [`KeyProblemKind::TrailingBlanks`] skip the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblemKind {
    /// The third field is no address.
    Address(AddressError),
    /// An earlier line has the same id.
    DuplicateId(AgentId),
    /// Fewer than four fields.
    Fields,
    /// The first field is no id.
    Id(AgentIdError),
    /// The key is empty, too long, or holds something that is not printable ASCII.
    Key,
    /// The line is longer than the C programs read.
    LineTooLong,
    /// The name is empty, too long, or holds control characters.
    Name,
    /// Blanks or a carriage return after the key: taken off, though the C programs count them as part of the key.
    TrailingBlanks,
}

impl KeyFile {
    /// Reads the file. Never fails: what can't be used is in `problems`.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/keys.c`, `OS_ReadKeys`.
    pub fn parse(file: &[u8]) -> KeyFile {
        let mut parsed = KeyFile::default();
        let mut seen = HashSet::new();
        for (index, line) in file.split(|byte| *byte == b'\n').enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let mut problem = |kind| parsed.problems.push(KeyProblem { line: number, kind });
            match key_line(line) {
                Ok(Line::Nothing) => {}
                Ok(Line::Removed(id)) => parsed.removed.push(RemovedKey { id, line: number }),
                Ok(Line::Entry { entry, trailing_blanks }) => {
                    if trailing_blanks {
                        problem(KeyProblemKind::TrailingBlanks);
                    }
                    if seen.insert(entry.id) {
                        parsed.entries.push(entry);
                    } else {
                        problem(KeyProblemKind::DuplicateId(entry.id));
                    }
                }
                Err(kind) => problem(kind),
            }
        }
        parsed
    }
}

enum Line {
    Entry { entry: KeyEntry, trailing_blanks: bool },
    Nothing,
    Removed(AgentId),
}

fn key_line(line: &[u8]) -> Result<Line, KeyProblemKind> {
    let kept = line.trim_ascii_end();
    if kept.is_empty() || matches!(kept[0], b'#' | b' ') {
        return Ok(Line::Nothing);
    }
    if line.len() > KEY_LINE_BYTES_MAX {
        return Err(KeyProblemKind::LineTooLong);
    }
    let mut fields = kept.splitn(4, |byte| *byte == b' ');
    let mut field = || fields.next().ok_or(KeyProblemKind::Fields);
    let id = AgentId::from_bytes(field()?).map_err(KeyProblemKind::Id)?;
    let name = field()?;
    if matches!(name.first(), Some(b'#' | b'!')) {
        return Ok(Line::Removed(id));
    }
    let (address, key) = (field()?, field()?);
    let address = String::from_utf8_lossy(address).parse().map_err(KeyProblemKind::Address)?;
    let entry = KeyEntry { id, name: agent_name(name)?, address, key: secret(key)? };
    Ok(Line::Entry { entry, trailing_blanks: kept.len() < line.len() })
}

fn agent_name(name: &[u8]) -> Result<Box<str>, KeyProblemKind> {
    let name = std::str::from_utf8(name).map_err(|_| KeyProblemKind::Name)?;
    let fits = (1..=AGENT_NAME_BYTES_MAX).contains(&name.len());
    let shown = !name.contains(char::is_control) && !name.contains('/') && name != "." && name != "..";
    if fits && shown { Ok(name.into()) } else { Err(KeyProblemKind::Name) }
}

fn secret(key: &[u8]) -> Result<Box<str>, KeyProblemKind> {
    let printable = key.iter().all(|byte| (b' '..=b'~').contains(byte));
    let key = std::str::from_utf8(key).map_err(|_| KeyProblemKind::Key)?;
    let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
    if fits && printable { Ok(key.into()) } else { Err(KeyProblemKind::Key) }
}

impl KeyEntry {
    /// The line of client.keys, without its newline.
    pub fn to_line(&self) -> String {
        format!("{} {} {} {}", self.id, self.name, self.address, self.key)
    }
}

impl fmt::Debug for KeyEntry {
    /// Everything but the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyEntry({} {} {})", self.id, Escaped(self.name.as_bytes()), self.address)
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.kind)
    }
}

impl fmt::Display for KeyProblemKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyProblemKind::Address(error) => write!(formatter, "skipped: {error}"),
            KeyProblemKind::DuplicateId(id) => {
                write!(formatter, "skipped: the id {id} is taken by an earlier line; give each agent its own")
            }
            KeyProblemKind::Fields => {
                formatter.write_str("skipped: too few fields; write 'id name address key'")
            }
            KeyProblemKind::Id(error) => write!(formatter, "skipped: {error}"),
            KeyProblemKind::Key => {
                write!(formatter, "skipped: the key must be 1 to {KEY_BYTES_MAX} printable ASCII characters")
            }
            KeyProblemKind::LineTooLong => {
                write!(
                    formatter,
                    "skipped: the line is longer than {KEY_LINE_BYTES_MAX} bytes; it is no client.keys line"
                )
            }
            KeyProblemKind::Name => write!(
                formatter,
                "skipped: the name must be 1 to {AGENT_NAME_BYTES_MAX} bytes without control characters and '/'"
            ),
            KeyProblemKind::TrailingBlanks => formatter
                .write_str("blanks after the key ignored; an OSSEC manager would take them for a part of it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_with_everything() {
        let file = b"# comment\n 000 skipped any k\n001 web01 any secret\n002 #*#*#*#*#* any old\n\n\
            003 !gone 1.2.3.4 old\n004 net 10.0.0.0/8 key with blanks\n001 again any other\n005 crlf any k\r\n\
            x6 bad any k\n007 bad 1.2.3 k\n008 short any\n009  any k\n010 n any \n0123456789 n any k\nlast";
        let parsed = KeyFile::parse(file);
        let lines: Vec<String> = parsed.entries.iter().map(KeyEntry::to_line).collect();
        assert_eq!(lines, ["001 web01 any secret", "004 net 10.0.0.0/8 key with blanks", "005 crlf any k"]);
        let removed: Vec<(u32, &str)> =
            parsed.removed.iter().map(|key| (key.line, key.id.as_str())).collect();
        assert_eq!(removed, [(4, "002"), (6, "003")]);
        let problems: Vec<u32> = parsed.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(problems, [8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(parsed.problems[1].kind, KeyProblemKind::TrailingBlanks);
        assert!(
            parsed.problems[2].to_string().starts_with("line 10: skipped: the agent id is not all digits")
        );
    }

    #[test]
    fn no_secret_is_shown() {
        let parsed = KeyFile::parse(b"001 web01 any very-secret\n");
        assert!(!format!("{parsed:?}").contains("secret"));
    }

    #[test]
    fn names_that_would_leave_their_folder() {
        for name in ["..", ".", "a/b", "a\x07b", "a\u{85}b"] {
            let parsed = KeyFile::parse(format!("001 {name} any k").as_bytes());
            assert_eq!(parsed.problems[0].kind, KeyProblemKind::Name, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn lines_come_back(
            id in "[0-9]{1,8}", name in "[a-zA-Z0-9_.-]{3,32}", address in "any|10\\.1\\.[0-9]\\.0/24|fd00::[1-9]",
            key in "[!-~]([ -~]{0,60}[!-~])?",
        ) {
            let line = format!("{id} {name} {address} {key}");
            let parsed = KeyFile::parse(line.as_bytes());
            prop_assert_eq!(parsed.problems.len(), 0);
            prop_assert_eq!(parsed.entries[0].to_line(), line);
        }
    }
}
