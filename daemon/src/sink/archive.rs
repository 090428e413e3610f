//! A file of all events, appended to in whole lines: the shards share one file by O_APPEND.
//!
//! A write takes a block as it lies. Under load blocks are full; when little comes, what there is is written every
//! [`WRITE_INTERVAL`], the first event after a quiet time at once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use manager::Time;
use rustix::io::Errno;

use super::outbox::{BLOCK_BYTES, Outbox};
use super::{Next, SinkCounters};
use crate::home::FILE_MODE;
use crate::metrics::SinkState;

/// Blocks that are not full are written this often at the most.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// After a failed write or open (a full disk), the next try.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The appending end of one shard's archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: Option<Arc<OwnedFd>>,
    outbox: Outbox,
    writing: Option<Writing>,
    /// What was written last, all of it; its memory is used again once the ring has let go of it.
    written: Bytes,
    /// When the next write may begin.
    next_write: Time,
    failing: bool,
    /// Nothing was to be written when it was found that nothing could be.
    unwritable: bool,
    counters: SinkCounters,
}

/// The one block on its way into the file.
#[derive(Debug)]
struct Writing {
    /// What is left of it.
    bytes: Bytes,
    messages: u64,
    /// The kernel has it now.
    in_flight: bool,
}

impl Archive {
    /// An archive at `path`, whose folder must be there; the file is made.
    #[must_use]
    pub(super) fn new(path: PathBuf) -> Archive {
        Archive {
            path,
            file: None,
            outbox: Outbox::default(),
            writing: None,
            written: Bytes::new(),
            next_write: Time::ZERO,
            failing: false,
            unwritable: false,
            counters: SinkCounters::default(),
        }
    }

    /// Takes one event, whose line `write` appends; if it appends nothing, the event is counted as refused.
    pub(super) fn take(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.counters.taken += 1;
        if !self.outbox.append(write) {
            self.counters.refused += 1;
        }
    }

    /// What to write now, if anything; at once if `hurry`.
    pub(super) fn pump(&mut self, now: Time, hurry: bool) -> Next {
        if self.writing.as_ref().is_some_and(|writing| writing.in_flight) {
            return Next::Idle;
        }
        if self.writing.is_none() && self.outbox.held_messages() == 0 {
            return Next::Idle;
        }
        let full = self.outbox.held_bytes() >= BLOCK_BYTES && !self.failing;
        if now < self.next_write && !full && (self.failing || !hurry) {
            return Next::At(self.next_write);
        }
        let file = match self.open() {
            Ok(file) => file,
            Err(_) => return self.fail(now),
        };
        self.next_write = now + WRITE_INTERVAL;
        self.counters.calls += 1;
        let outbox = &mut self.outbox;
        // It is empty, so this moves no bytes; if somebody still holds it, it is left to them.
        outbox.put_back(Vec::from(std::mem::take(&mut self.written)));
        let writing = self.writing.get_or_insert_with(|| {
            let batch = outbox.take_block().expect("something is held");
            Writing { bytes: Bytes::from(batch.bytes), messages: batch.messages, in_flight: false }
        });
        writing.in_flight = true;
        Next::Write { file, bytes: writing.bytes.clone() }
    }

    /// The write that [`Next::Write`] asked for has completed.
    ///
    /// # Panics
    ///
    /// If none was in flight.
    pub(super) fn on_written(&mut self, now: Time, result: Result<u32, Errno>) {
        let mut writing = self.writing.take().expect("a write completes that was begun");
        assert!(writing.in_flight, "a write completes once");
        writing.in_flight = false;
        match result {
            Ok(written) if written > 0 => {
                self.failing = false;
                writing.bytes.advance(written as usize);
            }
            Ok(_) | Err(_) => {
                let _ = self.fail(now);
            }
        }
        if writing.bytes.is_empty() {
            self.counters.delivered += writing.messages;
            self.written = writing.bytes;
        } else {
            self.writing = Some(writing);
        }
    }

    /// Notices that the file is not at its path any more; the next write makes it anew.
    pub(super) fn follow_rename(&mut self) {
        let Some(file) = &self.file else { return };
        let same = match (rustix::fs::fstat(file), rustix::fs::stat(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        };
        if !same {
            self.file = None;
        }
    }

    /// Finds out whether the next line could be written, without making or changing anything.
    pub(super) fn probe(&mut self) {
        use rustix::fs::{Access, access};
        if self.file.is_some() {
            // Its last write has told.
            self.unwritable = false;
            return;
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        let can = access(&self.path, Access::WRITE_OK);
        self.unwritable = match can {
            Ok(()) => false,
            Err(Errno::NOENT) => access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err(),
            Err(_) => true,
        };
    }

    /// Gives up what is held.
    ///
    /// # Panics
    ///
    /// If a write is in flight: what becomes of it is not known.
    pub(super) fn abandon(&mut self) {
        let held = self.held();
        assert!(!self.in_flight(), "what is being written can't be given up");
        self.writing = None;
        self.outbox = Outbox::default();
        self.counters.stopped += held;
    }

    /// Whether a write is in flight.
    #[must_use]
    pub(super) fn in_flight(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.in_flight)
    }

    /// Bytes that wait, those being written included.
    #[must_use]
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.held_bytes() + self.writing.as_ref().map_or(0, |writing| writing.bytes.len())
    }

    /// Events that wait, those being written included.
    #[must_use]
    pub(super) fn held(&self) -> u64 {
        self.outbox.held_messages() + self.writing.as_ref().map_or(0, |writing| writing.messages)
    }

    /// What was counted: `taken` is the sum of the others and of what is held.
    #[must_use]
    pub(super) fn counters(&self) -> SinkCounters {
        self.counters
    }

    /// How it does, apart from its bounds.
    #[must_use]
    pub(super) fn state(&self) -> SinkState {
        if self.failing || self.unwritable { SinkState::Failing } else { SinkState::Taking }
    }

    fn fail(&mut self, now: Time) -> Next {
        self.counters.stalls += 1;
        self.failing = true;
        // The file may be on a disk that was full, or gone: open it again.
        self.file = None;
        self.next_write = now + RETRY_INTERVAL;
        Next::At(self.next_write)
    }

    fn open(&mut self) -> io::Result<Arc<OwnedFd>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file: File = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&self.path)?;
        let file = Arc::new(OwnedFd::from(file));
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn archive(folder: &tempfile::TempDir) -> Archive {
        Archive::new(folder.path().join("archives.log"))
    }

    fn take(archive: &mut Archive, line: &[u8]) {
        archive.take(|bytes| bytes.extend_from_slice(line));
    }

    fn balanced(archive: &Archive) {
        let counters = archive.counters();
        assert_eq!(counters.taken, counters.delivered + counters.refused + counters.stopped + archive.held());
    }

    fn bytes_of(next: Next) -> Bytes {
        match next {
            Next::Write { bytes, .. } => bytes,
            other @ (Next::Again | Next::At(_) | Next::Idle | Next::Poll { .. }) => {
                panic!("no write: {other:?}")
            }
        }
    }

    #[test]
    fn the_first_line_goes_at_once_and_the_next_ones_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = archive(&folder);
        let now = Time::from_seconds(5);
        assert!(matches!(archive.pump(now, false), Next::Idle));
        take(&mut archive, b"one\n");
        assert_eq!(bytes_of(archive.pump(now, false)), &b"one\n"[..]);
        take(&mut archive, b"two\n");
        assert!(matches!(archive.pump(now, false), Next::Idle), "one write at a time");
        archive.on_written(now, Ok(4));
        assert!(matches!(archive.pump(now, false), Next::At(_)));
        take(&mut archive, b"three\n");
        assert_eq!(bytes_of(archive.pump(now + WRITE_INTERVAL, false)), &b"two\nthree\n"[..]);
        balanced(&archive);
        archive.on_written(now, Ok(10));
        assert_eq!((archive.held(), archive.held_bytes(), archive.counters().delivered), (0, 0, 3));
        let file = std::fs::metadata(folder.path().join("archives.log")).unwrap();
        assert_eq!(file.permissions().mode() & 0o007, 0, "the world does not read what agents log");
    }

    #[test]
    fn a_full_block_does_not_wait_nor_does_haste() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = archive(&folder);
        let now = Time::from_seconds(5);
        take(&mut archive, b"one\n");
        let _ = archive.pump(now, false);
        archive.on_written(now, Ok(4));
        take(&mut archive, &vec![b'x'; BLOCK_BYTES]);
        assert_eq!(bytes_of(archive.pump(now, false)).len(), BLOCK_BYTES);
        archive.on_written(now, Ok(BLOCK_BYTES as u32));
        take(&mut archive, b"two\n");
        assert!(matches!(archive.pump(now, false), Next::At(_)));
        assert_eq!(bytes_of(archive.pump(now, true)).len(), 4);
        balanced(&archive);
    }

    #[test]
    fn short_and_failed_writes_go_on_where_they_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = archive(&folder);
        let mut now = Time::from_seconds(5);
        take(&mut archive, b"one\ntwo\n");
        let _ = archive.pump(now, false);
        archive.on_written(now, Ok(3));
        assert_eq!(bytes_of(archive.pump(now, true)), &b"\ntwo\n"[..]);
        archive.on_written(now, Err(Errno::NOSPC));
        assert_eq!(archive.state(), SinkState::Failing);
        assert!(matches!(archive.pump(now, true), Next::At(_)), "haste does not hurry a full disk");
        balanced(&archive);
        now = now + RETRY_INTERVAL;
        assert_eq!(bytes_of(archive.pump(now, false)), &b"\ntwo\n"[..]);
        archive.on_written(now, Ok(5));
        assert_eq!((archive.state(), archive.counters().delivered), (SinkState::Taking, 1));
    }

    #[test]
    fn the_memory_of_what_was_written_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = archive(&folder);
        let now = Time::from_seconds(5);
        let mut places = Vec::new();
        for _ in 0..6 {
            take(&mut archive, b"one\n");
            places.push(bytes_of(archive.pump(now, true)).as_ptr().addr());
            // The next block fills while this one is being written.
            take(&mut archive, b"two\n");
            archive.on_written(now, Ok(4));
            places.push(bytes_of(archive.pump(now, true)).as_ptr().addr());
            archive.on_written(now, Ok(4));
        }
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 2, "two blocks take turns");
        balanced(&archive);
    }

    #[test]
    fn a_file_that_was_moved_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("archives.log"), folder.path().join("archives.1"));
        let mut archive = archive(&folder);
        let now = Time::from_seconds(5);
        for (line, rename) in [(&b"one\n"[..], false), (b"two\n", true)] {
            if rename {
                std::fs::rename(&path, &moved).unwrap();
            }
            archive.follow_rename();
            take(&mut archive, line);
            let _ = bytes_of(archive.pump(now, true));
            archive.on_written(now, Ok(4));
            archive.follow_rename();
        }
        assert!(path.exists() && moved.exists());
        balanced(&archive);
    }

    #[test]
    fn an_idle_archive_knows_whether_it_could_write() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::new(folder.path().join("later/archives.log"));
        let mut check = |expected: SinkState| {
            archive.probe();
            assert_eq!(archive.state(), expected);
        };
        check(SinkState::Failing);
        std::fs::create_dir(folder.path().join("later")).unwrap();
        check(SinkState::Taking);
        assert_eq!(std::fs::read_dir(folder.path().join("later")).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn a_folder_that_is_not_there_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::new(folder.path().join("later/archives.log"));
        take(&mut archive, b"one\n");
        let now = Time::from_seconds(5);
        assert!(matches!(archive.pump(now, false), Next::At(_)));
        assert_eq!(archive.state(), SinkState::Failing);
        std::fs::create_dir(folder.path().join("later")).unwrap();
        assert_eq!(bytes_of(archive.pump(now + RETRY_INTERVAL, false)), &b"one\n"[..]);
        archive.on_written(now, Ok(4));
        take(&mut archive, b"two\n");
        take(&mut archive, b"");
        archive.abandon();
        assert_eq!((archive.counters().stopped, archive.counters().refused), (1, 1));
        balanced(&archive);
    }
}
