//! How client.keys is changed so that neither manage_agents nor another ringmaster loses a line.
//!
//! manage_agents takes no lock. It appends with O_APPEND, and removes by overwriting the beginning of a line where it
//! stands. Ours do the same: an append never touches what others append, no line ever moves, and nobody writes to a file
//! that was renamed away. So no order of the two loses a line; owner and mode stay as they are. Wazuh's authd and
//! manage_agents replace the file: after a change ours look whether the path still names what was changed, and go again
//! if it does not. Between ringmasters there is a lock (flock).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use codec::{KeyEntry, KeyFile};
use rustix::fs::FlockOperation;

use super::KeysError;
use crate::home::FILE_MODE;

/// How often a file that somebody else replaces is tried anew.
const TRIES_MAX: usize = 8;

/// Appends what `decide` makes of the present file, in one write; returns it. `decide` is asked again if the file is
/// replaced in the middle, and not for what is in the new one.
pub(super) fn append(
    path: &Path,
    mut decide: impl FnMut(&KeyFile) -> Result<Vec<KeyEntry>, KeysError>,
) -> Result<Vec<KeyEntry>, KeysError> {
    let failed = |error: io::Error| KeysError::Io { path: path.to_owned(), kind: error.kind() };
    let mut appended: Vec<KeyEntry> = Vec::new();
    for _ in 0..TRIES_MAX {
        let (mut file, content) = lock(path, OpenOptions::new().append(true).create(true)).map_err(failed)?;
        let present = KeyFile::parse(&content);
        let has_all = appended.iter().all(|entry| present.entries.contains(entry));
        if appended.is_empty() || !has_all {
            appended = decide(&present)?;
            let lines: String = appended.iter().map(|entry| entry.to_line() + "\n").collect();
            // A file that somebody left without its last newline must not swallow the first line.
            let separator = if content.last().is_some_and(|last| *last != b'\n') { "\n" } else { "" };
            if !lines.is_empty() {
                file.write_all(format!("{separator}{lines}").as_bytes())
                    .and_then(|()| file.sync_data())
                    .map_err(failed)?;
            }
        }
        if is_at(&file, path) {
            return Ok(appended);
        }
    }
    Err(KeysError::Contended(path.to_owned()))
}

/// Overwrites the beginning of one line, found and made by `decide`: where it starts, the line as it is (to be sure that
/// it still is), and what takes its place. `decide` is asked again if the file changes in the middle.
pub(super) fn overwrite(
    path: &Path,
    mut decide: impl FnMut(&[u8]) -> Result<Option<Overwrite>, KeysError>,
) -> Result<(), KeysError> {
    let failed = |error: io::Error| KeysError::Io { path: path.to_owned(), kind: error.kind() };
    for _ in 0..TRIES_MAX {
        let (file, content) = lock(path, OpenOptions::new().write(true)).map_err(failed)?;
        let Some(Overwrite { at, line, with }) = decide(&content)? else { return Ok(()) };
        assert!(with.len() <= line.len(), "the next line stays as it is");
        let mut there = vec![0; line.len()];
        // Whoever has no lock may have been here since.
        if file.read_exact_at(&mut there, at).is_err() || there != line {
            continue;
        }
        file.write_all_at(&with, at).and_then(|()| file.sync_data()).map_err(failed)?;
        if is_at(&file, path) {
            return Ok(());
        }
    }
    Err(KeysError::Contended(path.to_owned()))
}

/// What one line's beginning becomes.
pub(super) struct Overwrite {
    pub(super) at: u64,
    pub(super) line: Vec<u8>,
    pub(super) with: Vec<u8>,
}

/// Opens the file that is at `path` once it is ours alone, and reads it.
fn lock(path: &Path, options: &mut OpenOptions) -> io::Result<(File, Vec<u8>)> {
    loop {
        let mut file = options.read(true).mode(FILE_MODE).open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        // While we waited, it may have been replaced.
        if is_at(&file, path) {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            return Ok((file, content));
        }
    }
}

/// Whether this is the file that the path names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(line: &str) -> KeyEntry {
        KeyFile::parse(line.as_bytes()).entries.remove(0)
    }

    #[test]
    fn a_file_that_is_replaced_in_the_middle_gets_the_line_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        std::fs::write(&path, "001 web any k\n").unwrap();
        let mut asked = 0;
        append(&path, |_| {
            asked += 1;
            if asked == 1 {
                // As Wazuh's authd, which writes what it knows to another file and renames that over this one.
                let beside = folder.path().join("beside");
                std::fs::write(&beside, "001 web any k\n002 other any k\n").unwrap();
                std::fs::rename(&beside, &path).unwrap();
            }
            Ok(vec![entry("003 mail any k")])
        })
        .unwrap();
        assert_eq!(asked, 2);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "001 web any k\n002 other any k\n003 mail any k\n"
        );
    }

    #[test]
    fn what_manage_agents_appends_meanwhile_is_kept_and_so_are_inode_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        std::fs::write(&path, "001 web any k\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let before = std::fs::metadata(&path).unwrap();
        // It has the file open for as long as its questions take.
        let mut manage_agents = OpenOptions::new().append(true).open(&path).unwrap();
        append(&path, |_| {
            manage_agents.write_all(b"002 theirs any k\n").unwrap();
            Ok(vec![entry("003 ours any k")])
        })
        .unwrap();
        manage_agents.write_all(b"004 theirs2 any k\n").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "001 web any k\n002 theirs any k\n003 ours any k\n004 theirs2 any k\n"
        );
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    }

    #[test]
    fn two_that_add_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..25 {
                        let line = format!("{writer}{number:02} agent{writer}-{number} any k");
                        append(path, |_| Ok(vec![entry(&line)])).unwrap();
                    }
                });
            }
        });
        let parsed = KeyFile::parse(&std::fs::read(&path).unwrap());
        assert_eq!((parsed.entries.len(), parsed.problems.len()), (100, 0));
    }
}
