//! A file of all events, appended to in whole lines: the shards share one file by O_APPEND.
//!
//! A write takes a block as it lies. Under load blocks are full; when little comes, what there is is written every
//! [`WRITE_INTERVAL`], the first event after a quiet time at once. If it is to be safe from a crash of the host, each block
//! is synced before it counts. What numbered events a block has is noted before it is written, for a start after `kill -9`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use manager::{Ticket, Time};
use rustix::io::Errno;

use super::moved::Moved;
use super::outbox::{BLOCK_BYTES, Outbox};
use super::tickets::Tickets;
use super::{Next, SinkCounters};
use crate::delivery::{BlockEntry, BlockLog, LedgerFile, line_hash};
use crate::home::FILE_MODE;
use crate::metrics::{SinkKind, SinkState};

/// Blocks that are not full are written this often at the most.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// After a failed write or open (a full disk), the next try.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The appending end of one shard's archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: Option<Arc<OwnedFd>>,
    /// Whether each block is synced.
    syncs: bool,
    outbox: Outbox,
    tickets: Tickets,
    notes: Option<ArchiveNotes>,
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

/// Where numbered events are noted.
#[derive(Debug)]
pub(super) struct ArchiveNotes {
    pub(super) kind: SinkKind,
    pub(super) ledger: Arc<LedgerFile>,
    pub(super) blocks: BlockLog,
}

/// The one block on its way into the file.
#[derive(Debug)]
struct Writing {
    /// The file that the last of it was written to.
    file: Arc<OwnedFd>,
    /// What is left of it; when nothing is, it is to be synced.
    bytes: Bytes,
    messages: u64,
    /// The kernel has it now.
    in_flight: bool,
}

impl Archive {
    /// An archive at `path`, whose folder must be there; the file is made.
    #[must_use]
    pub(super) fn new(path: PathBuf, notes: Option<ArchiveNotes>) -> Archive {
        Archive {
            path,
            file: None,
            syncs: false,
            outbox: Outbox::default(),
            tickets: Tickets::default(),
            notes,
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

    /// The same for a numbered event. One that has no form is passed.
    pub(super) fn take_numbered(
        &mut self,
        ticket: Ticket,
        moved: &mut Moved,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let refused = self.counters.refused;
        self.take(write);
        if self.counters.refused == refused {
            self.tickets.add(self.held(), ticket);
        } else {
            self.pass(ticket, moved);
        }
    }

    /// This numbered event will never be written.
    pub(super) fn pass(&mut self, ticket: Ticket, moved: &mut Moved) {
        if let Some((cell, before)) = self.tickets.pass(self.held(), ticket) {
            note(self.notes.as_ref(), moved, cell, before);
        }
    }

    /// From the next block on, each is synced or none.
    pub(super) fn set_syncs(&mut self, syncs: bool) {
        self.syncs = syncs;
    }

    /// What to write now, if anything; at once if `hurry`.
    pub(super) fn pump(&mut self, now: Time, hurry: bool) -> Next {
        if self.writing.as_ref().is_some_and(|writing| writing.in_flight) {
            return Next::Idle;
        }
        if self.writing.is_none() && self.outbox.held_messages() == 0 {
            return Next::Idle;
        }
        let due = !self.failing || now >= self.next_write;
        if let Some(writing) = self.writing.as_mut().filter(|writing| writing.bytes.is_empty() && due) {
            writing.in_flight = true;
            self.counters.calls += 1;
            return Next::Sync { file: Arc::clone(&writing.file) };
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
        if self.writing.is_none() {
            self.begin_block(&file);
        }
        let writing = self.writing.as_mut().expect("a block was on its way, or has been taken");
        writing.in_flight = true;
        writing.file = Arc::clone(&file);
        Next::Write { file, bytes: writing.bytes.clone() }
    }

    /// Takes the next block, and notes which numbered events it has.
    fn begin_block(&mut self, file: &Arc<OwnedFd>) {
        let outbox = &mut self.outbox;
        // It is empty, so this moves no bytes; if somebody still holds it, it is left to them.
        outbox.put_back(Vec::from(std::mem::take(&mut self.written)));
        if let Some(notes) = &self.notes
            && self.tickets.bytes() > 0
            && self.tickets.is_within(outbox.first_block().count() as u64)
        {
            notes.blocks.begin(file, entries(outbox, &self.tickets));
        }
        let batch = outbox.take_block().expect("something is held");
        let bytes = Bytes::from(batch.bytes);
        let file = Arc::clone(file);
        self.writing = Some(Writing { file, bytes, messages: batch.messages, in_flight: false });
    }

    /// The write that [`Next::Write`] asked for has completed.
    ///
    /// # Panics
    ///
    /// If none was in flight.
    pub(super) fn on_written(&mut self, now: Time, result: Result<u32, Errno>, moved: &mut Moved) {
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
        if writing.bytes.is_empty() && !self.syncs {
            self.end_block(writing, moved);
        } else {
            self.writing = Some(writing);
        }
    }

    /// The sync that [`Next::Sync`] asked for has completed. One that failed is tried again: until then nothing of the block
    /// counts, and nothing more is written.
    ///
    /// # Panics
    ///
    /// If none was in flight.
    pub(super) fn on_synced(&mut self, now: Time, result: Result<u32, Errno>, moved: &mut Moved) {
        let mut writing = self.writing.take().expect("a sync completes that was begun");
        assert!(writing.in_flight && writing.bytes.is_empty(), "a block is synced once it is written");
        writing.in_flight = false;
        if result.is_ok() {
            self.failing = false;
            self.end_block(writing, moved);
        } else {
            let _ = self.fail(now);
            self.writing = Some(writing);
        }
    }

    /// All of a block is where it is to be.
    fn end_block(&mut self, writing: Writing, moved: &mut Moved) {
        self.counters.delivered += writing.messages;
        self.written = writing.bytes;
        let notes = self.notes.as_ref();
        let is_numbered = self.tickets.is_within(writing.messages);
        self.tickets.settle(writing.messages, |cell, before| note(notes, moved, cell, before));
        if let Some(notes) = notes.filter(|_| is_numbered) {
            notes.blocks.end();
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
        self.tickets = Tickets::default();
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
        let writing = self.writing.as_ref().map_or(0, |writing| writing.bytes.len());
        self.outbox.held_bytes() + self.tickets.bytes() + writing
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

/// Notes what is in the file.
fn note(notes: Option<&ArchiveNotes>, moved: &mut Moved, cell: u32, before: u64) {
    let notes = notes.expect("who gives tickets has a ledger");
    notes.ledger.note(cell, notes.kind, before);
    moved.add(cell);
}

/// The numbered events of the outbox's first block.
fn entries<'a>(outbox: &'a Outbox, tickets: &'a Tickets) -> impl Iterator<Item = BlockEntry> + 'a {
    let mut end = 0;
    let mut lines = outbox.first_block().enumerate().map(move |(index, line)| {
        let bytes = u32::try_from(line.len()).expect("a line is far smaller than 4 GiB");
        end += bytes;
        (index as u64, end - bytes, line)
    });
    tickets.next_messages().map_while(move |(at, cell, before)| {
        let (_, offset, line) = lines.find(|(index, ..)| *index == at)?;
        let (number, bytes) = (before - 1, line.len() as u32);
        Some(BlockEntry { cell, number, offset, bytes, hash: line_hash(line) })
    })
}

#[cfg(test)]
mod tests;
