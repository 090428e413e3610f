//! Shared files that the manager sends: taken whole or not at all. A name can't leave etc/shared, the digest must be right,
//! and each file is written beside its place and renamed.
//!
//! Source: ossec-hids 4.3.0 `client-agent/receiver.c`, `receive_msg`; `shared/file_op.c`, `UnmergeFiles`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agent::SharedFiles;
use codec::{HexDigest, Merged, SharedName};

/// The folder, below the home.
pub(crate) const FOLDER: &str = "etc/shared";
/// The file that holds all others.
const MERGED: &[u8] = b"merged.mg";
const AGENT_CONF: &str = "agent.conf";
/// The largest file that is taken, and the largest whose digest is told.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Files in one merged.mg.
const FILES_MAX: usize = 1_000;

/// A file on its way from the manager.
#[derive(Debug)]
pub(crate) struct Incoming {
    folder: PathBuf,
    file: Option<Part>,
    /// The manager goes on sending a file that was refused.
    is_refusing: bool,
}

#[derive(Debug)]
struct Part {
    name: Vec<u8>,
    digest: HexDigest,
    bytes: Vec<u8>,
}

/// A file that is in its place now.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Installed {
    pub(crate) name: String,
    /// How many files were in it.
    pub(crate) files: usize,
}

/// Why a file was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    Digest,
    Io(io::Error),
    Merged(codec::MergedError),
    Name,
    TooLarge,
    TooMany,
    /// A piece, or an end, of no file.
    Unannounced,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Digest => formatter.write_str("it is not what its md5 announced: cut off or damaged"),
            Refused::Io(error) => write!(formatter, "it can't be written to {FOLDER}: {error}"),
            Refused::Merged(error) => error.fmt(formatter),
            Refused::Name => {
                formatter.write_str("the name of a file would leave its folder, hide, or replace merged.mg")
            }
            Refused::TooLarge => write!(formatter, "it is larger than {} MiB", FILE_BYTES_MAX >> 20),
            Refused::TooMany => write!(formatter, "merged.mg holds more than {FILES_MAX} files"),
            Refused::Unannounced => formatter.write_str("a piece of a file came that was not announced"),
        }
    }
}

impl Incoming {
    /// Files go to [`FOLDER`] of this home.
    pub(crate) fn new(home: &Path) -> Incoming {
        Incoming { folder: home.join(FOLDER), file: None, is_refusing: false }
    }

    /// A file is announced; one that was not complete is forgotten.
    ///
    /// # Errors
    /// When its name can't be used: its pieces are passed over then.
    pub(crate) fn begin(&mut self, digest: HexDigest, name: SharedName<'_>) -> Result<(), Refused> {
        self.abandon();
        if name.as_bytes().starts_with(b".") {
            self.is_refusing = true;
            return Err(Refused::Name);
        }
        self.file = Some(Part { name: name.as_bytes().to_vec(), digest, bytes: Vec::new() });
        Ok(())
    }

    /// A file was announced that can't be taken.
    pub(crate) fn refuse(&mut self) {
        self.abandon();
        self.is_refusing = true;
    }

    /// A piece of it.
    ///
    /// # Errors
    /// When the file becomes too large, or there is none.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let Some(part) = &mut self.file else {
            return if self.is_refusing { Ok(()) } else { Err(Refused::Unannounced) };
        };
        if part.bytes.len() + bytes.len() > FILE_BYTES_MAX {
            self.refuse();
            return Err(Refused::TooLarge);
        }
        part.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// It is complete: checked, written, and taken apart if it is merged.mg. `None`: it had been refused.
    ///
    /// # Errors
    /// When it is not what was announced. No file was touched then, unless the disk refused one in the middle.
    pub(crate) fn end(&mut self) -> Result<Option<Installed>, Refused> {
        let Some(part) = self.file.take() else {
            return if std::mem::take(&mut self.is_refusing) { Ok(None) } else { Err(Refused::Unannounced) };
        };
        if HexDigest::of(&part.bytes) != part.digest {
            return Err(Refused::Digest);
        }
        let mut files = Vec::new();
        if part.name == MERGED {
            files = Merged::parse(&part.bytes).map_err(Refused::Merged)?.files;
            if files.len() > FILES_MAX {
                return Err(Refused::TooMany);
            }
            let is_bad = |name: &[u8]| name == MERGED || name.starts_with(b".");
            if files.iter().any(|file| is_bad(file.name.as_bytes())) {
                return Err(Refused::Name);
            }
        }
        for file in &files {
            self.write(file.name.as_bytes(), file.content).map_err(Refused::Io)?;
        }
        // Last, since its digest tells the manager that all is there.
        self.write(&part.name, &part.bytes).map_err(Refused::Io)?;
        let name = String::from_utf8_lossy(&part.name).into_owned();
        Ok(Some(Installed { name, files: files.len() }))
    }

    /// Another control message, or the end of the connection: what was not complete never will be.
    pub(crate) fn abandon(&mut self) {
        self.file = None;
        self.is_refusing = false;
    }

    fn write(&self, name: &[u8], content: &[u8]) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        // No file that a manager sends begins with a dot.
        let beside = self.folder.join(".ringmaster-agent.new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o660).open(&beside)?;
        file.write_all(content)?;
        fs::rename(&beside, self.folder.join(std::ffi::OsStr::from_bytes(name)))
    }
}

/// The digests that keep-alives tell; read again when a file has changed.
#[derive(Debug)]
pub(crate) struct Digests {
    agent_conf: Watched,
    merged: Watched,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// Inode, size, and time of the last change, in seconds and nanoseconds.
    seen: Option<(u64, u64, i64, i64)>,
    digest: Option<HexDigest>,
}

impl Digests {
    pub(crate) fn new(home: &Path) -> Digests {
        let watched = |name: &str| Watched { path: home.join(FOLDER).join(name), seen: None, digest: None };
        Digests { agent_conf: watched(AGENT_CONF), merged: watched("merged.mg") }
    }

    /// The files as they are now.
    pub(crate) fn look(&mut self) -> SharedFiles {
        SharedFiles { agent_conf: self.agent_conf.look(), merged: self.merged.look() }
    }
}

impl Watched {
    fn look(&mut self) -> Option<HexDigest> {
        let seen = fs::metadata(&self.path)
            .ok()
            .map(|found| (found.ino(), found.size(), found.mtime(), found.mtime_nsec()));
        if seen != self.seen {
            self.seen = seen;
            self.digest = seen.and_then(|_| self.read().ok());
        }
        self.digest
    }

    fn read(&self) -> io::Result<HexDigest> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(HexDigest::of(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Incoming) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(FOLDER)).unwrap();
        let incoming = Incoming::new(home.path());
        (home, incoming)
    }

    fn send(
        incoming: &mut Incoming,
        name: &[u8],
        content: &[u8],
        digest: HexDigest,
    ) -> Result<Option<Installed>, String> {
        let said = |refused: Refused| refused.to_string();
        incoming.begin(digest, SharedName::new(name).unwrap()).map_err(said)?;
        for chunk in content.chunks(7) {
            incoming.chunk(chunk).map_err(said)?;
        }
        incoming.end().map_err(said)
    }

    fn names(home: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(home.path().join(FOLDER)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn merged_files_are_taken_apart_and_their_digests_told() {
        let (home, mut incoming) = home();
        let mut digests = Digests::new(home.path());
        assert_eq!(digests.look(), SharedFiles::default());
        let merged = b"!3 agent.conf\nabc!2 ar.conf\nxy";
        let installed = send(&mut incoming, b"merged.mg", merged, HexDigest::of(merged)).unwrap();
        assert_eq!(installed, Some(Installed { name: "merged.mg".to_owned(), files: 2 }));
        assert_eq!(names(&home), ["agent.conf", "ar.conf", "merged.mg"]);
        let told = digests.look();
        assert_eq!(told.agent_conf, Some(HexDigest::of(b"abc")));
        assert_eq!(told.merged, Some(HexDigest::of(merged)));
        assert_eq!(fs::read(home.path().join(FOLDER).join("ar.conf")).unwrap(), b"xy");
    }

    #[test]
    fn what_is_evil_or_damaged_touches_nothing() {
        let (home, mut incoming) = home();
        let mut check = |name: &[u8], content: &[u8], digest: HexDigest, expected: &str| {
            let error = send(&mut incoming, name, content, digest).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let whole = |content: &[u8]| HexDigest::of(content);
        check(b"merged.mg", b"!3 a\nabc", whole(b"other"), "md5");
        for evil in [&b"!3 ../evil\nabc"[..], b"!1 ok\nx!3 /etc/evil\nabc", b"!3 a..b\nabc"] {
            check(b"merged.mg", evil, whole(evil), "could leave its folder");
        }
        for evil in [&b"!3 .hidden\nabc"[..], b"!3 merged.mg\nabc"] {
            check(b"merged.mg", evil, whole(evil), "would leave its folder, hide, or replace");
        }
        check(b"merged.mg", b"!9 a\nabc", whole(b"!9 a\nabc"), "ends before");
        check(b".profile", b"x", whole(b"x"), "hide");
        let many = b"!0 a\n".repeat(FILES_MAX + 1);
        check(b"merged.mg", &many, whole(&many), "more than 1000 files");
        assert_eq!(names(&home), [""; 0]);
    }

    #[test]
    fn pieces_of_a_refused_file_are_passed_over_and_others_are_not() {
        let (home, mut incoming) = home();
        assert!(incoming.chunk(b"x").is_err(), "nobody announced it");
        assert!(incoming.end().is_err());
        incoming.refuse();
        incoming.chunk(b"x").unwrap();
        assert_eq!(incoming.end().unwrap(), None);
        let digest = HexDigest::of(b"");
        incoming.begin(digest, SharedName::new(b"large").unwrap()).unwrap();
        let chunk = vec![0; 1 << 20];
        (0..16).for_each(|_| incoming.chunk(&chunk).unwrap());
        assert!(matches!(incoming.chunk(b"x"), Err(Refused::TooLarge)));
        incoming.chunk(b"x").unwrap();
        assert_eq!(incoming.end().unwrap(), None);
        assert_eq!(names(&home), [""; 0]);
    }

    #[test]
    fn a_link_in_the_folder_is_replaced_and_not_followed() {
        let (home, mut incoming) = home();
        let outside = home.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        std::os::unix::fs::symlink(&outside, home.path().join(FOLDER).join("agent.conf")).unwrap();
        let merged = b"!3 agent.conf\nabc";
        send(&mut incoming, b"merged.mg", merged, HexDigest::of(merged)).unwrap();
        assert_eq!(fs::read(outside).unwrap(), b"mine");
    }
}
