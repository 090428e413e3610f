//! OSSEC's files of message counters: `queue/rids/<agent id>` and `queue/rids/sender_counter`, each `<global>:<local>:`.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown},
    path::PathBuf,
};

use codec::Counter;

use crate::home::FILE_MODE;

/// The name of the file of what the manager itself sent.
pub(crate) const SENDER: &str = "sender_counter";

/// The folder of the files.
#[derive(Clone, Debug)]
pub(crate) struct Rids {
    folder: PathBuf,
}

impl Rids {
    /// The files in this folder, which may be missing.
    pub(crate) fn new(folder: PathBuf) -> Rids {
        Rids { folder }
    }

    /// The names of the files that are there: one look at the folder instead of one for each agent.
    ///
    /// # Errors
    /// When the folder is there and can't be read.
    pub(crate) fn present(&self) -> io::Result<HashSet<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
            Err(error) => return Err(error),
        };
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    }

    /// What a file says; `None` for one that is absent, empty or damaged.
    pub(crate) fn read(&self, name: &str) -> Option<Counter> {
        Counter::parse(&fs::read(self.folder.join(name)).ok()?).ok()
    }

    /// Writes a file so that ossec-remoted, which runs as a user of its own, can go on with it: in place, as that does
    /// itself, so that owner and mode stay; a new file belongs to whom the folder belongs.
    ///
    /// Nothing is renamed: file systems bring each file that takes another's place to the disk, and a stop has no time
    /// for that with thousands of agents. While they are written, the store says that it is not clean.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `StoreCounter` and `OS_StartCounter`.
    ///
    /// # Errors
    /// When the kernel refuses any of the steps.
    pub(crate) fn write(&self, name: &str, counter: Counter) -> io::Result<()> {
        let text = counter.to_string();
        let file = self.open(name)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    }

    /// Removes a file, if there is one: the cure for "Duplicated counter" that everybody knows.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `OS_RemoveCounter`.
    ///
    /// # Errors
    /// When there is one and it can't be removed.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        options.write(true).mode(FILE_MODE);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create(true).open(&path)?;
                let folder = fs::metadata(&self.folder)?;
                match fchown(&file, Some(folder.uid()), Some(folder.gid())) {
                    // Without the right to give files away, whoever runs us owns what we make.
                    Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
                    Ok(()) | Err(_) => Ok(file),
                }
            }
            opened => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn files_of_ossec_are_read_as_far_as_they_count() {
        let folder = tempfile::tempdir().unwrap();
        let rids = Rids::new(folder.path().to_owned());
        let check = |text: &str, expected: Option<(u32, u16)>| {
            fs::write(folder.path().join("001"), text).unwrap();
            assert_eq!(rids.read("001").map(|counter| (counter.global, counter.local)), expected, "{text:?}");
        };
        check("4:17:", Some((4, 17)));
        check("4:7:7:", Some((4, 7)));
        check("10:0:", Some((10, 0)));
        check("", None);
        check("4", None);
        check("x:1:", None);
        check("4294967296:1:", None);
        assert_eq!(rids.read("002"), None);
        assert_eq!(rids.present().unwrap(), HashSet::from(["001".to_owned()]));
        assert!(Rids::new(folder.path().join("absent")).present().unwrap().is_empty());
    }

    #[test]
    fn files_are_written_in_place_and_new_ones_belong_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        // Only root can give the folder away; for everybody else the owner is the same anyway.
        let _ = chown(folder.path(), Some(12), Some(34));
        let owner = fs::metadata(folder.path()).unwrap();
        let rids = Rids::new(folder.path().to_owned());
        let path = folder.path().join("001");

        rids.write("001", Counter { global: 4, local: 9_997 }).unwrap();
        let written = fs::metadata(&path).unwrap();
        assert_eq!((written.uid(), written.gid()), (owner.uid(), owner.gid()));
        assert_eq!(written.mode() & 0o007, 0, "the world does not read it");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        rids.write("001", Counter { global: 5, local: 1 }).unwrap();
        let again = fs::metadata(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "5:1:");
        assert_eq!((again.ino(), again.mode() & 0o777), (written.ino(), 0o660));
    }
}
