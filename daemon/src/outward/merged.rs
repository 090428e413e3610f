//! merged.mg: which files go into it, in which order, and how it is cut for agents. Pure.
//!
//! OSSEC: all files of `etc/shared`, in the folder's own order. Wazuh: a line with the group's name, `ar.conf`, then the group's
//! files by name, those of folders within it too; without hidden files and files that have a zero byte in a line.

use std::fmt;
use std::io::Write;

use bytes::Bytes;
use codec::{HexDigest, limits};

/// The file that all shared files of a group are merged into.
pub(crate) const MERGED_NAME: &str = "merged.mg";

/// The largest merged.mg: one that is larger would take minutes to each agent at any budget.
pub(crate) const MERGED_BYTES_MAX: usize = 32 << 20;

/// A merged.mg with its md5. Copies share the content.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct SharedFile {
    digest: HexDigest,
    content: Bytes,
}

/// A file that is to be shared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Part {
    /// Its name, as the agent is to know it: for Wazuh's with the folders that it is in.
    pub(crate) name: Vec<u8>,
    /// All of it.
    pub(crate) content: Vec<u8>,
}

/// Why files can't be shared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum MergeError {
    /// A file's name would leave the agent's folder, or can't stand in a line.
    Name(String),
    /// It would begin as a control message does, so no agent would take it for a file.
    Start,
    /// They are too many bytes.
    TooLarge,
}

impl fmt::Display for MergeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MergeError::Name(name) => write!(formatter, "{name:?} can't be a shared file's name: rename it"),
            MergeError::Start => formatter.write_str("merged.mg would begin with \"#!-\": rename the group"),
            MergeError::TooLarge => {
                write!(formatter, "the shared files are more than {MERGED_BYTES_MAX} bytes together")
            }
        }
    }
}

impl std::error::Error for MergeError {}

impl SharedFile {
    /// The merged.mg of these files, for a Wazuh group with its line in front.
    ///
    /// Source: ossec-hids 4.3.0 `shared/file_op.c`, `MergeAppendFile`; wazuh v4.14.7 `remoted/manager.c`, `c_group`.
    ///
    /// # Errors
    /// What keeps agents from taking it.
    pub(crate) fn merge(group: Option<&str>, parts: &[Part]) -> Result<SharedFile, MergeError> {
        let mut content = Vec::new();
        if let Some(group) = group {
            writeln!(content, "#{group}").expect("a Vec takes all");
        }
        for Part { name, content: part } in parts {
            if !name_is_safe(name) {
                return Err(MergeError::Name(String::from_utf8_lossy(name).into_owned()));
            }
            if content.len() + part.len() + name.len() + 32 > MERGED_BYTES_MAX {
                return Err(MergeError::TooLarge);
            }
            write!(content, "!{} ", part.len()).expect("a Vec takes all");
            content.extend_from_slice(name);
            content.push(b'\n');
            content.extend_from_slice(part);
        }
        if codec::is_control(&content) {
            return Err(MergeError::Start);
        }
        Ok(SharedFile { digest: HexDigest::of(&content), content: content.into() })
    }

    /// Its md5, as agents name it in their keep-alives.
    pub(crate) fn digest(&self) -> HexDigest {
        self.digest
    }

    /// All of it.
    pub(crate) fn content(&self) -> &Bytes {
        &self.content
    }

    /// The chunk that begins at `start`: cut shorter where the next one would look like a control message, at which an agent
    /// would close the file.
    ///
    /// # Panics
    /// If nothing begins there.
    pub(crate) fn chunk(&self, start: usize) -> Bytes {
        let mut end = (start + limits::FILE_CHUNK_BYTES).min(self.content.len());
        assert!(start < end, "the caller asks for what is left");
        if codec::is_control(&self.content[end..]) {
            end -= 1;
        }
        self.content.slice(start..end)
    }
}

impl fmt::Debug for SharedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SharedFile({}, {} bytes)", self.digest, self.content.len())
    }
}

/// Puts the files of several Wazuh groups together: each group's in turn, a later file in place of an earlier one of its name,
/// agent.conf one after the other.
///
/// Source: wazuh v4.14.7 `remoted/manager.c`, `c_multi_group` and `copy_directory`.
pub(crate) fn combine(groups: &[(&str, &[Part])]) -> Vec<Part> {
    let mut combined: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = std::collections::BTreeMap::new();
    for (group, parts) in groups {
        for Part { name, content } in *parts {
            // In a folder too: the C program looks at the last part of the path.
            if name.rsplit(|byte| *byte == b'/').next() == Some(AGENT_CONF) {
                let whole = combined.entry(name.clone()).or_default();
                whole.extend_from_slice(format!("<!-- Source file: {group}/agent.conf -->\n").as_bytes());
                whole.extend_from_slice(content);
            } else {
                combined.insert(name.clone(), content.clone());
            }
        }
    }
    // As the folder is read in which the C program puts them together: by name, level by level.
    let mut parts: Vec<Part> = combined.into_iter().map(|(name, content)| Part { name, content }).collect();
    parts.sort_by(|one, other| {
        one.name.split(|byte| *byte == b'/').cmp(other.name.split(|byte| *byte == b'/'))
    });
    parts
}

const AGENT_CONF: &[u8] = b"agent.conf";

/// Whether a Wazuh agent's group can have this name.
///
/// Source: wazuh v4.14.7 `shared/agent_op.c`, `w_validate_group_name`.
pub(crate) fn group_name_is_valid(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=255).contains(&name.len()) && name.bytes().all(is_usual) && name != "." && name != ".."
}

/// Whether Wazuh shares a file: none of its lines has a zero byte.
///
/// Source: wazuh v4.14.7 `shared/file_op.c`, `checkBinaryFile`.
pub(crate) fn wazuh_shares(content: &[u8]) -> bool {
    let lines = content.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    !content[..lines].contains(&0)
}

fn name_is_safe(name: &[u8]) -> bool {
    let length = (1..=1_024).contains(&name.len());
    length && name.split(|byte| *byte == b'/').all(|part| codec::SharedName::new(part).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::Merged;
    use proptest::prelude::*;

    fn part(name: &str, content: &[u8]) -> Part {
        Part { name: name.as_bytes().to_vec(), content: content.to_vec() }
    }

    #[test]
    fn merged_files_of_both_products() {
        let parts = [part("agent.conf", b"<agent_config>\n"), part("empty", b""), part("nul", b"a\0b")];
        let ossec = SharedFile::merge(None, &parts).unwrap();
        assert_eq!(&ossec.content()[..], b"!15 agent.conf\n<agent_config>\n!0 empty\n!3 nul\na\0b");
        let parts = [part("ar.conf", b"x\n"), part("sub/b.txt", b"y")];
        let wazuh = SharedFile::merge(Some("default"), &parts).unwrap();
        assert_eq!(&wazuh.content()[..], b"#default\n!2 ar.conf\nx\n!1 sub/b.txt\ny");
        assert_eq!(wazuh.digest(), HexDigest::of(wazuh.content()));
        assert_ne!(wazuh.digest(), ossec.digest());
    }

    #[test]
    fn what_can_not_be_shared_is_named() {
        for name in ["..", "../x", "a/../b", "", "a//b", "/a", "a\nb"] {
            let error = SharedFile::merge(None, &[part(name, b"x")]).unwrap_err();
            assert_eq!(error, MergeError::Name(name.to_owned()));
        }
        assert_eq!(SharedFile::merge(Some("!-x"), &[]), Err(MergeError::Start));
        let large = vec![b'x'; MERGED_BYTES_MAX];
        assert_eq!(SharedFile::merge(None, &[part("x", &large)]), Err(MergeError::TooLarge));
    }

    #[test]
    fn files_of_several_groups() {
        let first = [part("agent.conf", b"one\n"), part("a", b"1"), part("d/x", b"1")];
        let second = [part("a", b"2"), part("agent.conf", b"two\n"), part("d-e", b"2")];
        let combined = combine(&[("web", &first), ("db", &second)]);
        let conf = b"<!-- Source file: web/agent.conf -->\none\n<!-- Source file: db/agent.conf -->\ntwo\n";
        let expected = [part("a", b"2"), part("agent.conf", conf), part("d/x", b"1"), part("d-e", b"2")];
        assert_eq!(combined, expected);
    }

    #[test]
    fn names_of_groups_and_files_of_wazuhs() {
        for name in ["default", "web_1.x-y", &"a".repeat(255)] {
            assert!(group_name_is_valid(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "a,b", "!-x", &"a".repeat(256)] {
            assert!(!group_name_is_valid(name), "{name}");
        }
        assert!(wazuh_shares(b"") && wazuh_shares(b"a\nb") && wazuh_shares(b"a\nlast \0 without newline"));
        assert!(!wazuh_shares(b"a\0\n") && !wazuh_shares(b"a\nb\0c\nd"));
    }

    proptest! {
        /// What is merged is what an agent takes apart, zero bytes and all; and no chunk looks like a control message.
        #[test]
        fn what_agents_put_together(
            files in prop::collection::vec(("[a-z]{1,9}", prop::collection::vec(
                prop::sample::select(vec![&b"#!-"[..], b"#!", b"#", b"-", b"\0", b"x\n", &[b'y'; 448]]), 0..40)), 1..5),
            group in prop::option::of("[a-z]{1,8}"),
        ) {
            let parts: Vec<Part> = files.iter().map(|(name, pieces)| part(name, &pieces.concat())).collect();
            let file = SharedFile::merge(group.as_deref(), &parts).unwrap();
            let (mut put_together, mut start) = (Vec::new(), 0);
            while start < file.content().len() {
                let chunk = file.chunk(start);
                prop_assert!(codec::ToAgent::chunk_is_safe(&chunk) && chunk.len() <= limits::FILE_CHUNK_BYTES);
                start += chunk.len();
                put_together.extend_from_slice(&chunk);
            }
            prop_assert_eq!(HexDigest::of(&put_together), file.digest());
            let apart = Merged::parse(&put_together).unwrap();
            prop_assert_eq!(apart.group, group.as_deref().map(str::as_bytes));
            let apart: Vec<Part> = apart.files.iter()
                .map(|file| Part { name: file.name.as_bytes().to_vec(), content: file.content.to_vec() }).collect();
            prop_assert_eq!(apart, parts);
        }
    }
}
