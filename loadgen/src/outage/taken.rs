//! What the spool of a program that was killed had taken: of all that was handed to the program, its first so many records.
//!
//! An event that lay in the program's socket when it died was never taken by anybody; a kill is asked what it cost beyond that. The spool
//! itself is not touched: a copy is opened, as the program will open it.

use std::fs;
use std::path::{Path, PathBuf};

use spool::{JUMP, Sequence, Settings, Spool};

/// A spool that is looked at whenever its program lies dead.
#[derive(Debug)]
pub(super) struct Taken {
    folder: PathBuf,
    /// The number of the first record that the program appends in this run.
    base: u64,
}

impl Taken {
    /// Of a program that begins with an empty spool in `folder`.
    pub(super) fn new(folder: PathBuf) -> Taken {
        Taken { folder, base: 0 }
    }

    /// How many records the program appended since it was started last. It must be dead, and not have ended cleanly.
    ///
    /// # Errors
    /// If the spool can't be read.
    pub(super) fn since_start(&mut self) -> Result<u64, String> {
        let failed = |error: String| format!("{}: {error}", self.folder.display());
        if !self.folder.exists() {
            return Ok(0);
        }
        let copy = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
        copy_files(&self.folder, copy.path()).map_err(|error| failed(error.to_string()))?;
        let (spool, _) =
            Spool::open(copy.path(), Settings::default()).map_err(|error| failed(error.to_string()))?;
        // The program's own start will begin there, too.
        let Sequence(next) = spool.next_sequence();
        let appended = next.checked_sub(self.base + JUMP);
        if appended.is_some() {
            self.base = next;
        }
        // It died before it had opened its spool: nothing has changed since it was looked at last.
        Ok(appended.unwrap_or(0))
    }
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        // Sockets and folders are not the spool's.
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_for_each_run_whatever_is_forgotten() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("spool");
        let mut taken = Taken::new(folder.clone());
        assert_eq!(taken.since_start(), Ok(0), "it was never opened");
        let open = || Spool::open(&folder, Settings::default()).unwrap().0;
        let append = |spool: &mut Spool, records: u32| {
            (0..records).for_each(|_| assert!(spool.append(b"record").is_ok()));
            spool.commit().unwrap();
        };
        // A process that dies leaves its spool without closing it.
        let mut spool = open();
        append(&mut spool, 7);
        drop(spool);
        assert_eq!(taken.since_start(), Ok(7));
        assert_eq!(taken.since_start(), Ok(0), "it died before it opened its spool");
        let mut spool = open();
        append(&mut spool, 5);
        spool.forget(Sequence(spool.next_sequence().0 - 1)).unwrap();
        spool.save().unwrap();
        drop(spool);
        assert_eq!(taken.since_start(), Ok(5));
        drop(open());
        assert_eq!(taken.since_start(), Ok(0));
        append(&mut open(), 3);
        assert_eq!(taken.since_start(), Ok(3));
    }
}
