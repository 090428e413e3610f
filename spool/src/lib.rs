//! A bounded, ordered queue of records on disk.
//!
//! One process writes records at its end and reads them in order from wherever it likes; what the other side has confirmed is
//! forgotten from the front. Records live in segment files, each with a checksum, so that the queue opens after any crash:
//! a torn tail is cut and counted, a damaged segment is cut where it is damaged, and nothing of it is ever a refusal to start.
//!
//! **What is kept.** A record that was [committed](Spool::commit) survives the death of the process, and with
//! [`Settings::sync`] that of the host. **What is never done.** No record is handed out twice under different numbers, and no two
//! records ever under one: after an end that was not clean the numbers jump by [`JUMP`], since what had been sent may not
//! have reached the disk.
//!
//! **A session** is a name for the numbers: whoever remembers, elsewhere, how far it has this spool's records, remembers the
//! session with it. It goes with the file of the spool's state: where that is lost, numbers may begin anew, and so there is none.

mod cursor;
mod format;
mod recover;
mod segment;
mod state;

pub use cursor::Cursor;
pub use format::RECORD_BYTES_MAX;
pub use recover::Recovery;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use segment::{Segment, Writer};
use state::State;

/// A record's number: the first is 0, each next is greater.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sequence(pub u64);

/// How far the numbers jump after an end that was not clean: more records than can be sent between two [commits](Spool::commit).
pub const JUMP: u64 = 1 << 20;

/// Smallest [`Settings::segment_bytes`].
pub const SEGMENT_BYTES_MIN: u64 = 4_096;
/// A bound must have room for so many segments, since whole segments are deleted.
pub const SEGMENTS_MIN: u64 = 4;

/// What a spool may take, and what it does then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Bytes on disk of all segments together; at least [`SEGMENTS_MIN`] segments.
    pub bytes_max: u64,
    /// Bytes from which on a new segment is begun; at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes: u64,
    /// What happens to a record that has no room.
    pub at_bound: AtBound,
    /// Whether a commit waits until the disk has it.
    pub sync: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { bytes_max: 256 << 20, segment_bytes: 4 << 20, at_bound: AtBound::PushBack, sync: false }
    }
}

/// What happens to a record that has no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtBound {
    /// It is refused with [`AppendError::Full`]: whoever brings it waits.
    PushBack,
    /// The oldest segment is deleted, and its records are counted as [dropped](Counters::dropped).
    DropOldest,
}

/// What became of records, since the spool was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Records appended.
    pub appended: u64,
    /// Records forgotten because the other side has them.
    pub forgotten: u64,
    /// Records deleted for want of room, which nobody had confirmed.
    pub dropped: u64,
    /// Appends that were refused for want of room.
    pub refused: u64,
    /// Records that could not be read back: their checksum was wrong.
    pub damaged: u64,
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum AppendError {
    /// There is no room within [`Settings::bytes_max`]: forget something, then try again.
    Full,
    /// It is longer than [`RECORD_BYTES_MAX`].
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A new segment could not be made.
    Io(io::Error),
}

impl fmt::Display for AppendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Full => {
                write!(formatter, "the spool is full; raise its bound, or wait until the other side is back")
            }
            AppendError::TooLong { bytes } => {
                write!(
                    formatter,
                    "a record of {bytes} bytes is longer than the {RECORD_BYTES_MAX} that a spool takes"
                )
            }
            AppendError::Io(error) => {
                write!(formatter, "no new segment could be made: {error}; is the disk full?")
            }
        }
    }
}

impl std::error::Error for AppendError {}

/// Why a spool could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The folder can't be made, read or written.
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another process has it.
    Locked {
        /// Which folder.
        path: PathBuf,
    },
    /// The settings contradict each other.
    Settings(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { path, error } => write!(formatter, "{}: {error}", path.display()),
            OpenError::Locked { path } => {
                write!(
                    formatter,
                    "{}: another process has this spool; end it, or name another folder",
                    path.display()
                )
            }
            OpenError::Settings(why) => formatter.write_str(why),
        }
    }
}

impl std::error::Error for OpenError {}

/// The queue. Not for several threads at once.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    settings: Settings,
    /// In order; the last one is being written. Never empty.
    segments: VecDeque<Segment>,
    writer: Writer,
    /// The first record that is not forgotten.
    first: Sequence,
    /// Where numbers went on when it was opened.
    base: Sequence,
    session: Option<NonZeroU64>,
    counters: Counters,
    /// Holds the lock.
    _lock: File,
}

impl Spool {
    /// Opens the spool in `folder`, which is made if it is missing, after whatever happened to it.
    ///
    /// # Errors
    /// [`OpenError`]; never because of what the files contain.
    pub fn open(folder: &Path, settings: Settings) -> Result<(Spool, Recovery), OpenError> {
        check(&settings)?;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        let lock = lock(folder)?;
        let (state, found) = recover::recover(folder).map_err(at(folder))?;
        let recover::Found { mut segments, recovery } = found;
        let end = segments.back().map_or(state.first, Segment::end);
        let free = end.max(state.first).max(state.base);
        let next = if state.is_clean { free } else { Sequence(free.0 + JUMP) };
        // An empty segment has no more to tell, and the new one may be of its name.
        while let Some(empty) = segments.pop_back_if(|segment| segment.end() == segment.first()) {
            segment::delete(folder, empty.first()).map_err(at(folder))?;
        }
        // What is appended from now on stands in a segment of its own.
        let writer = Writer::create(folder, next, end, settings.sync).map_err(at(folder))?;
        segments.push_back(Segment::empty(next, end));
        let first = state.first.max(segments[0].first());
        let mut spool = Spool {
            folder: folder.to_owned(),
            settings,
            segments,
            writer,
            first,
            base: next,
            session: state.session,
            counters: Counters::default(),
            _lock: lock,
        };
        spool.write_state(false, true).map_err(at(folder))?;
        spool.delete_forgotten().map_err(at(folder))?;
        Ok((spool, recovery))
    }

    /// Takes a record, and says its number. It can be read, and survives, once it is [committed](Spool::commit).
    ///
    /// # Errors
    /// [`AppendError`]; nothing was taken then.
    pub fn append(&mut self, record: &[u8]) -> Result<Sequence, AppendError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(AppendError::TooLong { bytes: record.len() });
        }
        let wanted = (RECORD_HEADER_BYTES + record.len()) as u64;
        if self.active().bytes() > SEGMENT_HEADER_BYTES as u64
            && self.active().bytes() + wanted > self.settings.segment_bytes
        {
            self.begin_segment().map_err(AppendError::Io)?;
        }
        while self.bytes() + wanted > self.settings.bytes_max {
            match self.settings.at_bound {
                AtBound::DropOldest if self.segments.len() > 1 => {
                    self.drop_oldest().map_err(AppendError::Io)?;
                }
                AtBound::DropOldest | AtBound::PushBack => {
                    self.counters.refused += 1;
                    return Err(AppendError::Full);
                }
            }
        }
        let sequence = self.active().end();
        self.writer.push(sequence, record);
        self.active_mut().note(wanted);
        self.counters.appended += 1;
        Ok(sequence)
    }

    /// Writes what was appended, so that it can be read and survives this process.
    ///
    /// # Errors
    /// What the kernel said, as a full disk. Everything is kept in memory then, and the next call tries again.
    pub fn commit(&mut self) -> io::Result<()> {
        self.writer.flush(self.settings.sync)
    }

    /// Whether something was appended that no commit has written yet.
    pub fn is_dirty(&self) -> bool {
        self.writer.is_dirty()
    }

    /// Where reading begins that has to give all records from `from` on that are still here.
    pub fn cursor(&self, from: Sequence) -> Cursor {
        Cursor::new(from.max(self.first))
    }

    /// The next committed record behind `cursor`; `None` if there is none yet.
    ///
    /// # Errors
    /// What the kernel said. A damaged record is no error: it is counted, and what follows it in its segment is gone.
    pub fn read<'c>(&mut self, cursor: &'c mut Cursor) -> io::Result<Option<(Sequence, &'c [u8])>> {
        cursor.advance_to(self.first);
        let committed = Sequence(self.active().end().0 - self.writer.records_waiting());
        cursor.next(&self.folder, &self.segments, committed, &mut self.counters.damaged)
    }

    /// Forgets all records up to and with `last`: the other side has them. What is not there any more is no mistake.
    ///
    /// # Errors
    /// When a segment could not be deleted; it is tried again the next time.
    ///
    /// # Panics
    /// If `last` was never committed: a peer may not confirm what it can't have, so its word must be checked first.
    pub fn forget(&mut self, last: Sequence) -> io::Result<()> {
        let committed = self.active().end().0 - self.writer.records_waiting();
        assert!(
            last.0 < committed,
            "record {} was confirmed, and {committed} is the next to be sent",
            last.0
        );
        let first = Sequence(last.0 + 1);
        if first <= self.first {
            return Ok(());
        }
        self.counters.forgotten += self.records_between(self.first, first);
        self.first = first;
        self.delete_forgotten()
    }

    /// Notes on disk how far records are forgotten. What was forgotten after the last note is there again after a crash.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn save(&self) -> io::Result<()> {
        self.write_state(false, false)
    }

    /// Commits, and notes that the end was clean.
    ///
    /// # Errors
    /// What the kernel said; the next open takes the end for a crash then.
    pub fn close(mut self) -> io::Result<()> {
        self.writer.flush(true)?;
        self.write_state(true, true)
    }

    /// What its numbers are called; `None` until [`Spool::renew_session`], and again when the file of its state was lost.
    pub fn session(&self) -> Option<NonZeroU64> {
        self.session
    }

    /// From now on numbers are those of `session`, which should be random. On disk when this returns.
    ///
    /// # Errors
    /// What the kernel said; the session is what it was then.
    pub fn renew_session(&mut self, session: NonZeroU64) -> io::Result<()> {
        let old = self.session.replace(session);
        let written = self.write_state(false, true);
        if written.is_err() {
            self.session = old;
        }
        written
    }

    /// The number that the next record will have, unless a new segment makes it greater.
    pub fn next_sequence(&self) -> Sequence {
        self.active().end()
    }

    /// The first record that is not forgotten, or would be if there were one.
    pub fn first_sequence(&self) -> Sequence {
        self.first
    }

    /// Records that are kept.
    pub fn records(&self) -> u64 {
        self.records_between(self.first, self.active().end())
    }

    /// Bytes of all segments, what is not committed included.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// What became of records since the spool was opened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn write_state(&self, is_clean: bool, sync: bool) -> io::Result<()> {
        let Spool { first, base, session, .. } = *self;
        state::write(&self.folder, State { first, base, is_clean, session }, sync)
    }

    fn active(&self) -> &Segment {
        self.segments.back().expect("there is always one that is written")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always one that is written")
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.writer.flush(self.settings.sync)?;
        let next = self.active().end();
        self.writer = Writer::create(&self.folder, next, next, self.settings.sync)?;
        self.segments.push_back(Segment::empty(next, next));
        Ok(())
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        let end = self.segments[0].end();
        let lost = self.records_between(self.first, end);
        segment::delete(&self.folder, self.segments[0].first())?;
        self.segments.pop_front();
        self.counters.dropped += lost;
        self.first = self.first.max(end);
        Ok(())
    }

    /// Deletes the segments of which everything is forgotten; the last one is replaced by an empty one if it has grown.
    fn delete_forgotten(&mut self) -> io::Result<()> {
        let all_forgotten = self.first >= self.active().end();
        if all_forgotten && !self.writer.is_dirty() && self.active().bytes() > self.settings.segment_bytes / 2
        {
            self.begin_segment()?;
        }
        while self.segments.len() > 1 && self.segments[0].end() <= self.first {
            segment::delete(&self.folder, self.segments[0].first())?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// How many records there are from `from` to before `to`; numbers that were jumped over are none.
    fn records_between(&self, from: Sequence, to: Sequence) -> u64 {
        let within = |segment: &Segment| segment.end().min(to).0.saturating_sub(segment.first().max(from).0);
        self.segments.iter().map(within).sum()
    }
}

fn check(settings: &Settings) -> Result<(), OpenError> {
    if settings.segment_bytes < SEGMENT_BYTES_MIN {
        return Err(OpenError::Settings("a spool's segments must have 4,096 bytes or more"));
    }
    if settings.bytes_max / SEGMENTS_MIN < settings.segment_bytes {
        return Err(OpenError::Settings("a spool's bound must be four of its segments or more"));
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| OpenError::Io { path: path.clone(), error })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path: folder.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(OpenError::Io { path, error }),
    }
}

#[cfg(test)]
mod tests;
