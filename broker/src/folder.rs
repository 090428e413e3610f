//! The client's folder: `lock`, `incarnation`, and for each agent `agents/<key>/{identity,spool/}`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::key::LineKey;

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, which is made if it is missing, readable by its user only.
    ///
    /// # Errors
    /// If it can't be made or locked; the text says what to do.
    pub fn open(path: &Path) -> Result<Folder, String> {
        let say = |error: io::Error| format!("{}: {error}", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path.join("agents")).map_err(say)?;
        let mut options = File::options();
        let lock = options.create(true).append(true).mode(0o600).open(path.join("lock")).map_err(say)?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(format!(
                "{}: another ringmaster-broker client has this folder; end it, or name another one by --dir",
                path.display()
            )),
            Err(fs::TryLockError::Error(error)) => Err(say(error)),
        }
    }

    /// Counts the starts of the client: this one's number.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn count_start(&self) -> Result<u32, String> {
        let path = self.path.join("incarnation");
        let say = |error: io::Error| format!("{}: {error}", path.display());
        let last: u32 = match fs::read_to_string(&path) {
            // What a crash has torn begins anew: it decides only between two connections that live at once.
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(say(error)),
        };
        let this = last.wrapping_add(1);
        write_whole(&path, &this.to_string()).map_err(say)?;
        Ok(this)
    }

    /// The agents that have a folder, in order. What else lies there is left alone.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn keys(&self) -> io::Result<Vec<LineKey>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(self.path.join("agents"))? {
            keys.extend(entry?.file_name().to_str().and_then(|name| name.parse::<LineKey>().ok()));
        }
        keys.sort();
        Ok(keys)
    }

    /// Where an agent's spool is.
    pub fn spool(&self, key: LineKey) -> PathBuf {
        self.agent(key).join("spool")
    }

    /// What an agent's numbers belong to; `fresh` if it has none that can be read.
    ///
    /// # Errors
    /// If the agent's folder can't be made, or a new identity not be written.
    pub fn identity(&self, key: LineKey, fresh: u64) -> io::Result<u64> {
        let folder = self.agent(key);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join("identity");
        match fs::read_to_string(&path).map(|text| u64::from_str_radix(text.trim(), 16)) {
            Ok(Ok(identity)) => return Ok(identity),
            Ok(Err(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        write_whole(&path, &format!("{fresh:016x}"))?;
        Ok(fresh)
    }

    /// Deletes what an agent has: its numbers begin anew, under another identity.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, key: LineKey) -> io::Result<()> {
        // First of all the identity: no other spool may ever bear it.
        fs::remove_file(self.agent(key).join("identity"))?;
        fs::remove_dir_all(self.agent(key))
    }

    fn agent(&self, key: LineKey) -> PathBuf {
        self.path.join("agents").join(key.to_string())
    }
}

/// Replaces a file whole, and waits until the disk has it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    use io::Write;
    let beside = path.with_extension("new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_and_starts() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        assert!(Folder::open(scratch.path()).unwrap_err().contains("another"));
        assert_eq!(folder.count_start(), Ok(1));
        assert_eq!(folder.count_start(), Ok(2));
        let (one, other): (LineKey, LineKey) = ("001".parse().unwrap(), "ip-::1".parse().unwrap());
        assert_eq!(folder.identity(one, 7).unwrap(), 7);
        assert_eq!(folder.identity(one, 8).unwrap(), 7);
        assert_eq!(folder.identity(other, 9).unwrap(), 9);
        fs::create_dir(scratch.path().join("agents/lost+found")).unwrap();
        assert_eq!(folder.keys().unwrap(), [one, other]);
        folder.remove(one).unwrap();
        assert_eq!(folder.keys().unwrap(), [other]);
        assert_eq!(folder.identity(one, 8).unwrap(), 8);
        fs::write(scratch.path().join("agents/001/identity"), "torn").unwrap();
        assert_eq!(folder.identity(one, 10).unwrap(), 10);
        fs::write(scratch.path().join("incarnation"), "").unwrap();
        assert_eq!(folder.count_start(), Ok(1));
    }
}
