//! One agent's line at the client: what is kept of it, what is on its way, and where it is.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use spool::{AppendError, Cursor, Sequence, Spool};

use crate::key::LineKey;
use crate::wire::{LineNumber, WireError};

/// The time of its arrival that stands in front of a datagram in the spool, in milliseconds of 1970.
const TIME_BYTES: usize = 8;

/// What a line may hold in memory while its disk takes nothing.
pub const UNCOMMITTED_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(TIME_BYTES + crate::wire::DATAGRAM_BYTES_MAX <= spool::RECORD_BYTES_MAX);

/// Where an agent sent from last: answers go there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source {
    /// The listener that it sent to, by its place in the settings.
    pub listener: usize,
    /// Its address and port.
    pub address: SocketAddr,
}

/// One agent's line.
#[derive(Debug)]
pub struct Line {
    /// The agent.
    pub key: LineKey,
    /// The line's number in this run of the client.
    pub number: LineNumber,
    /// What the numbers of its packets belong to.
    pub identity: u64,
    /// Where its agent is, if it has been heard since the start.
    pub source: Option<Source>,
    /// When its agent was heard last.
    pub heard_at: Duration,
    /// Whether the server was told what the number means, on this connection.
    pub is_open: bool,
    /// Whether it waits in the client's queue of lines that have something to send.
    pub is_queued: bool,
    /// Datagrams from the agent, and to it.
    pub datagrams: u64,
    /// Datagrams to the agent.
    pub replies: u64,
    /// Datagrams that went straight to the manager.
    pub passed: u64,
    /// Datagrams that the disk did not take.
    pub not_written: u64,
    spool: Spool,
    cursor: Cursor,
    /// Records below are on disk.
    committed: Sequence,
    uncommitted_bytes: usize,
    /// Sent on this connection and not confirmed.
    flight: VecDeque<(Sequence, usize)>,
    /// The last that was sent in this chain.
    previous: Option<Sequence>,
    must_save: bool,
}

/// Why a datagram was not kept.
#[derive(Debug)]
pub enum NotKept {
    /// The line has as many bytes as it may.
    Full,
    /// The disk takes nothing, and the memory for that is full.
    Disk,
}

/// A kept datagram.
#[derive(Debug)]
pub struct Kept<'l> {
    /// Its number.
    pub sequence: Sequence,
    /// The number of the one before it in this chain.
    pub previous: Option<Sequence>,
    /// The datagram.
    pub bytes: &'l [u8],
}

impl Line {
    /// A line over a spool that was just opened.
    pub fn new(key: LineKey, number: LineNumber, identity: u64, spool: Spool, now: Duration) -> Line {
        Line {
            key,
            number,
            identity,
            source: None,
            heard_at: now,
            is_open: false,
            is_queued: false,
            datagrams: 0,
            replies: 0,
            passed: 0,
            not_written: 0,
            cursor: spool.cursor(Sequence(0)),
            committed: spool.next_sequence(),
            spool,
            uncommitted_bytes: 0,
            flight: VecDeque::new(),
            previous: None,
            must_save: false,
        }
    }

    /// Takes a datagram at the end. It is safe once it is committed.
    ///
    /// # Errors
    /// Why it was not taken; it is counted.
    ///
    /// # Panics
    /// If it is longer than a datagram can be.
    pub fn keep(&mut self, unix_milliseconds: u64, bytes: &[u8]) -> Result<(), NotKept> {
        if self.uncommitted_bytes + bytes.len() > UNCOMMITTED_BYTES_MAX {
            // A last try, since many may have come since the last commit.
            if self.commit().is_err() {
                self.not_written += 1;
                return Err(NotKept::Disk);
            }
        }
        let mut record = Vec::with_capacity(TIME_BYTES + bytes.len());
        record.extend_from_slice(&unix_milliseconds.to_le_bytes());
        record.extend_from_slice(bytes);
        match self.spool.append(&record) {
            Ok(_) => {
                self.uncommitted_bytes += record.len();
                Ok(())
            }
            Err(AppendError::Full) => Err(NotKept::Full),
            Err(AppendError::Io(_)) => {
                self.not_written += 1;
                Err(NotKept::Disk)
            }
            Err(AppendError::TooLong { bytes }) => unreachable!("no datagram has {bytes} bytes"),
        }
    }

    /// Writes what was taken.
    ///
    /// # Errors
    /// What the kernel said; it stays in memory, and the next call tries again.
    pub fn commit(&mut self) -> io::Result<()> {
        self.spool.commit()?;
        self.committed = self.spool.next_sequence();
        self.uncommitted_bytes = 0;
        Ok(())
    }

    /// Whether something was taken that is not written yet.
    pub fn is_dirty(&self) -> bool {
        self.spool.is_dirty()
    }

    /// The next committed datagram, which counts as on its way then.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read_next(&mut self) -> io::Result<Option<Kept<'_>>> {
        let Some((sequence, record)) = self.spool.read(&mut self.cursor)? else { return Ok(None) };
        // A record without its time can't be: the checksum covers it, and only `keep` writes any.
        let bytes = record.get(TIME_BYTES..).unwrap_or_default();
        self.flight.push_back((sequence, bytes.len()));
        let previous = self.previous.replace(sequence);
        Ok(Some(Kept { sequence, previous, bytes }))
    }

    /// The last datagram that counts as on its way.
    pub fn last_sent(&self) -> Option<Sequence> {
        self.previous
    }

    /// Goes back to the oldest datagram that is not confirmed, where a new chain begins.
    pub fn rewind(&mut self) {
        self.cursor = self.spool.cursor(self.spool.first_sequence());
        self.flight.clear();
        self.previous = None;
    }

    /// Forgets all up to and with `last`. Tells how many bytes of them were on their way.
    ///
    /// # Errors
    /// If that was never sent: the other side makes it up.
    pub fn confirmed(&mut self, last: Sequence) -> Result<usize, WireError> {
        if last >= self.committed {
            return Err(WireError);
        }
        let mut bytes = 0;
        while let Some((_, length)) = self.flight.pop_front_if(|(sequence, _)| *sequence <= last) {
            bytes += length;
        }
        self.must_save = true;
        // What could not be deleted is tried again at the next confirmation.
        let _ = self.spool.forget(last);
        Ok(bytes)
    }

    /// Notes on disk what is forgotten, if that has changed. Without it, a crash repeats more.
    pub fn save(&mut self) {
        if std::mem::take(&mut self.must_save) && self.spool.save().is_err() {
            self.must_save = true;
        }
    }

    /// Whether something is forgotten that the disk does not know of.
    pub fn must_save(&self) -> bool {
        self.must_save
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.spool.records() == 0
    }

    /// Whether there may be committed datagrams that are not on their way.
    pub fn has_more(&self) -> bool {
        self.cursor.next_sequence() < self.committed && !self.is_empty()
    }

    /// Ends cleanly.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn close(self) -> io::Result<()> {
        self.spool.close()
    }

    /// Datagrams that are kept.
    pub fn records(&self) -> u64 {
        self.spool.records()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.spool.bytes()
    }

    /// What became of kept datagrams.
    pub fn counters(&self) -> spool::Counters {
        self.spool.counters()
    }

    /// Bytes that were sent on this connection and are not confirmed.
    pub fn flight_bytes(&self) -> usize {
        self.flight.iter().map(|(_, bytes)| bytes).sum()
    }

    /// When the oldest kept datagram came, in milliseconds of 1970. Reads it from the disk.
    pub fn oldest_unix_milliseconds(&mut self) -> Option<u64> {
        let mut cursor = self.spool.cursor(Sequence(0));
        let (_, record) = self.spool.read(&mut cursor).ok()??;
        Some(u64::from_le_bytes(*record.first_chunk()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(folder: &Path) -> Line {
        let settings =
            spool::Settings { bytes_max: 16_384, segment_bytes: 4_096, ..spool::Settings::default() };
        let (spool, _) = Spool::open(folder, settings).unwrap();
        Line::new("001".parse().unwrap(), LineNumber(1), 7, spool, Duration::ZERO)
    }

    fn next(line: &mut Line) -> Option<(u64, Option<u64>, Vec<u8>)> {
        let kept = line.read_next().unwrap()?;
        Some((kept.sequence.0, kept.previous.map(|previous| previous.0), kept.bytes.to_vec()))
    }

    #[test]
    fn kept_sent_and_confirmed() {
        let scratch = tempfile::tempdir().unwrap();
        let mut line = open(scratch.path());
        assert!(line.is_empty() && !line.has_more());
        line.keep(1_000, b"a").unwrap();
        line.keep(2_000, b"bb").unwrap();
        assert_eq!(next(&mut line), None, "not committed");
        assert_eq!(line.confirmed(Sequence(0)), Err(WireError));
        line.commit().unwrap();
        assert_eq!(line.oldest_unix_milliseconds(), Some(1_000));
        assert_eq!(next(&mut line), Some((0, None, b"a".to_vec())));
        assert_eq!(next(&mut line), Some((1, Some(0), b"bb".to_vec())));
        assert_eq!(line.flight_bytes(), 3);
        line.rewind();
        assert!(line.has_more());
        assert_eq!(next(&mut line), Some((0, None, b"a".to_vec())));
        assert_eq!(line.confirmed(Sequence(1)), Ok(1), "sent on an earlier connection");
        assert!(line.is_empty() && !line.has_more() && line.must_save());
        assert_eq!(line.confirmed(Sequence(2)), Err(WireError));
        assert_eq!(next(&mut line), None);
    }

    #[test]
    fn a_crash_keeps_what_was_committed_and_makes_no_number_twice() {
        let scratch = tempfile::tempdir().unwrap();
        let mut line = open(scratch.path());
        line.keep(1_000, b"a").unwrap();
        line.commit().unwrap();
        line.keep(1_000, b"lost").unwrap();
        drop(line);
        let mut line = open(scratch.path());
        line.keep(3_000, b"b").unwrap();
        line.commit().unwrap();
        assert_eq!(next(&mut line), Some((0, None, b"a".to_vec())));
        assert_eq!(next(&mut line), Some((1 + spool::JUMP, Some(0), b"b".to_vec())));
        line.confirmed(Sequence(0)).unwrap();
        assert_eq!(line.oldest_unix_milliseconds(), Some(3_000));
        line.close().unwrap();
    }

    #[test]
    fn a_full_line_refuses() {
        let scratch = tempfile::tempdir().unwrap();
        let mut line = open(scratch.path());
        let taken = (0..100).take_while(|_| line.keep(1, &[0; 1_000]).is_ok()).count();
        assert!((10..17).contains(&taken), "{taken}");
        assert!(matches!(line.keep(1, &[0; 1_000]), Err(NotKept::Full)));
        assert_eq!(line.counters().refused, 2);
    }
}
