//! queue/agent-info: one small file an agent, by which agent_control, list_agents and monitord know who is there.
//!
//! ```text
//! queue/agent-info/<name>-<address>
//!     <first line of the keep-alive>\n
//!     crypto_method:<aes or blowfish>\n
//!     its time of modification: the last keep-alive
//! ```
//!
//! Source: ossec-hids 4.3.0 `remoted/manager.c`, `save_controlmsg`; `shared/read-agents.c`, `get_agent_status`.

use std::{
    collections::HashMap,
    fs::{self, File},
    hash::Hasher,
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, fchown},
    path::{Path, PathBuf},
};

use codec::{AgentId, Cipher, KeyEntry};
use rustix::{
    fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
};

use crate::home::FILE_MODE;

/// The longest line that goes into a file. Agents write some 200 bytes.
const LINE_BYTES_MAX: usize = 1_024;

/// What is read of a file at the start.
const FILE_BYTES_MAX: usize = LINE_BYTES_MAX + 64;

const CRYPTO: &[u8] = b"crypto_method:";

/// The name of an agent's file: no name of client.keys leaves its folder, and neither does an address rule.
pub fn agent_info_name(entry: &KeyEntry) -> String {
    format!("{}-{}", entry.name, entry.address.location_text())
}

/// The first line of a keep-alive. Control characters are taken out: agent_control prints the line on a terminal.
pub(super) fn system_line(keep_alive: &[u8]) -> Box<[u8]> {
    let said = keep_alive.strip_prefix(codec::CONTROL_PREFIX).unwrap_or(keep_alive);
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.iter().copied().filter(|byte| !byte.is_ascii_control()).take(LINE_BYTES_MAX).collect()
}

/// What a file says.
#[derive(Clone, Debug)]
pub(super) struct Content {
    line: Box<[u8]>,
    cipher: Cipher,
}

impl Content {
    pub(super) fn new(line: Box<[u8]>, cipher: Cipher) -> Content {
        Content { line, cipher }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let cipher: &[u8] = match self.cipher {
            Cipher::Aes => b"aes",
            Cipher::Blowfish => b"blowfish",
        };
        [&self.line[..], b"\n", CRYPTO, cipher, b"\n"].concat()
    }

    pub(super) fn digest(&self) -> u64 {
        digest(&self.bytes())
    }
}

/// Tells contents apart; never 0.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish() | 1
}

/// One file that is behind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InfoWrite {
    /// Whose.
    pub agent: AgentId,
    /// The file.
    pub name: String,
    /// What it shall say.
    pub bytes: Vec<u8>,
    /// Whether it says something else now; if not, only its time moves.
    pub is_new: bool,
    /// The time that it shall have.
    pub unix_seconds: u64,
}

/// What became of some writes.
#[derive(Debug, Default)]
pub struct Written {
    /// How many were done.
    pub done: u64,
    /// Whose files could not be written.
    pub failed: Vec<AgentId>,
    /// Why the last of them could not.
    pub error: Option<io::Error>,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct AgentInfo {
    folder: PathBuf,
}

impl AgentInfo {
    /// The folder of a home; made if it is missing.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn prepare(home: &Path) -> io::Result<AgentInfo> {
        let folder = home.join("queue/agent-info");
        match fs::DirBuilder::new().mode(0o750).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(AgentInfo { folder }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Brings files up to date. Waits for the disk: not on the control plane's thread.
    pub fn write(&self, writes: &[InfoWrite]) -> Written {
        let mut written = Written::default();
        let folder = match File::open(&self.folder) {
            Ok(folder) => folder,
            Err(error) => {
                let failed = writes.iter().map(|write| write.agent).collect();
                return Written { failed, error: Some(error), ..written };
            }
        };
        for write in writes {
            match bring_up_to_date(&folder, write) {
                Ok(()) => written.done += 1,
                Err(error) => {
                    written.failed.push(write.agent);
                    written.error = Some(error);
                }
            }
        }
        written
    }

    /// What all files say. Waits for the disk.
    ///
    /// # Errors
    /// When the folder can't be read; a file that can't be is left out.
    pub fn read_all(&self) -> io::Result<FoundInfo> {
        let mut files = HashMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Ok(found) = read(&entry.path()) {
                files.insert(name, found);
            }
        }
        Ok(FoundInfo { files })
    }
}

/// What the files said at the start.
#[derive(Debug, Default)]
pub struct FoundInfo {
    files: HashMap<String, FoundFile>,
}

#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) system: Box<[u8]>,
    pub(super) modified_unix_seconds: u64,
    pub(super) digest: u64,
}

impl FoundInfo {
    pub(super) fn take(&mut self, name: &str) -> Option<FoundFile> {
        self.files.remove(name)
    }
}

fn read(path: &Path) -> io::Result<FoundFile> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(FoundFile {
        system: system_line(&bytes),
        modified_unix_seconds: u64::try_from(metadata.mtime()).unwrap_or(0),
        digest: digest(&bytes),
    })
}

/// Moves the time of one file, or writes it: in place, as OSSEC does, so that owner and mode stay; but without emptying it
/// first, so that nobody ever reads an empty one.
fn bring_up_to_date(folder: &File, write: &InfoWrite) -> io::Result<()> {
    if !write.is_new {
        match touch(folder, write) {
            Err(Errno::NOENT) => {}
            outcome => return Ok(outcome?),
        }
    }
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(FILE_MODE);
    let file = match rustix::fs::openat(folder, &write.name, flags, mode) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => {
            let file = File::from(rustix::fs::openat(folder, &write.name, flags | OFlags::CREATE, mode)?);
            let owner = folder.metadata()?;
            match fchown(&file, Some(owner.uid()), Some(owner.gid())) {
                // Without the right to give files away, whoever runs us owns what we make.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                Ok(()) | Err(_) => file,
            }
        }
        Err(errno) => return Err(errno.into()),
    };
    file.write_all_at(&write.bytes, 0)?;
    file.set_len(write.bytes.len() as u64)?;
    // Writing has moved its time already, to now, which is at most the time of a batch later.
    Ok(())
}

fn touch(folder: &File, write: &InfoWrite) -> Result<(), Errno> {
    let exact = Timespec { tv_sec: write.unix_seconds.cast_signed(), tv_nsec: 0 };
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let set = |time| {
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(folder, &write.name, &times, AtFlags::SYMLINK_NOFOLLOW)
    };
    match set(exact) {
        // Only a file's owner may choose its time; who may write it can say "now".
        Err(Errno::PERM) => set(now),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(keep_alive: &[u8], cipher: Cipher) -> Vec<u8> {
        Content::new(system_line(keep_alive), cipher).bytes()
    }

    #[test]
    fn a_file_says_what_ossec_writes_to_the_byte() {
        assert_eq!(
            content(b"#!-Linux vm 6.18 #1 SMP x86_64 - OSSEC HIDS v4.2.0\nx merged.mg\n\n", Cipher::Blowfish),
            b"Linux vm 6.18 #1 SMP x86_64 - OSSEC HIDS v4.2.0\ncrypto_method:blowfish\n"
        );
        assert_eq!(
            content(b"#!-Linux a / 0123456789abcdef0123456789abcdef\nx merged.mg\n", Cipher::Aes),
            b"Linux a / 0123456789abcdef0123456789abcdef\ncrypto_method:aes\n",
            "the digest of agent.conf belongs to the line"
        );
        assert_eq!(content(b"#!-a\x1b[2Jb\rc\n", Cipher::Aes), b"a[2Jbc\ncrypto_method:aes\n");
        assert_eq!(system_line(&[b'x'; 5_000]).len(), LINE_BYTES_MAX);
    }

    #[test]
    fn names_are_as_ossec_makes_them() {
        let file = codec::KeyFile::parse(b"001 web any k\n002 db 10.0.0.0/8 k\n003 x !192.0.2.1 k\n");
        let names: Vec<String> = file.entries.iter().map(agent_info_name).collect();
        assert_eq!(names, ["web-any", "db-10.0.0.0", "x-!192.0.2.1"]);
    }

    #[test]
    fn files_are_written_in_place_touched_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("queue")).unwrap();
        let info = AgentInfo::prepare(home.path()).unwrap();
        let path = info.path().join("web-any");
        let write = |text: &str, is_new, unix_seconds| InfoWrite {
            agent: "001".parse().unwrap(),
            name: "web-any".to_owned(),
            bytes: text.as_bytes().to_vec(),
            is_new,
            unix_seconds,
        };
        let done = |write: InfoWrite| assert_eq!(info.write(&[write]).done, 1);
        done(write("a longer line\ncrypto_method:aes\n", true, 1));
        let first = fs::metadata(&path).unwrap();
        done(write("a line\ncrypto_method:aes\n", true, 1));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a line\ncrypto_method:aes\n");
        done(write("not looked at", false, 1_700_000_000));
        let touched = fs::metadata(&path).unwrap();
        assert_eq!((touched.ino(), touched.mtime()), (first.ino(), 1_700_000_000));
        assert_eq!(first.mode() & 0o007, 0, "the world does not read it");
        let mut found = info.read_all().unwrap();
        let file = found.take("web-any").unwrap();
        assert_eq!((&file.system[..], file.modified_unix_seconds), (&b"a line"[..], 1_700_000_000));
        assert_eq!(file.digest, digest(b"a line\ncrypto_method:aes\n"));

        fs::remove_file(&path).unwrap();
        done(write("again\ncrypto_method:aes\n", false, 5));
        assert_eq!(fs::read_to_string(&path).unwrap(), "again\ncrypto_method:aes\n", "it had been deleted");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let written = info.write(&[write("x", true, 5)]);
        assert_eq!((written.done, written.failed.len()), (0, 1), "a link is not followed");
    }
}
