//! Reading records in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Sequence;
use crate::format::{Parsed, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, parse_record};
use crate::segment::{self, Segment};

/// Read from the disk at once: the longest record, and many short ones.
const CHUNK_BYTES: usize = RECORD_HEADER_BYTES + RECORD_BYTES_MAX;

/// A place in a [`Spool`](crate::Spool) from which on records are read. Any number of them may be in use.
#[derive(Debug)]
pub struct Cursor {
    /// The next record, or the first after it that exists.
    next: Sequence,
    place: Option<Place>,
}

/// Where the next record is.
#[derive(Debug)]
struct Place {
    /// The number of the first record of its segment.
    segment: Sequence,
    /// The number of the record at `at`.
    sequence: Sequence,
    file: File,
    /// Bytes of the file from `offset` on.
    chunk: Vec<u8>,
    offset: u64,
    /// Where in the chunk the next record begins, and how long it is, if that is known to be sound.
    at: usize,
    loaded: Option<usize>,
}

impl Cursor {
    pub(crate) fn new(next: Sequence) -> Cursor {
        Cursor { next, place: None }
    }

    /// The number that the next record has at least.
    pub fn next_sequence(&self) -> Sequence {
        self.next
    }

    /// Skips what is forgotten.
    pub(crate) fn advance_to(&mut self, first: Sequence) {
        self.next = self.next.max(first);
    }

    /// The next record that is below `committed`.
    pub(crate) fn next(
        &mut self,
        folder: &Path,
        segments: &VecDeque<Segment>,
        committed: Sequence,
        damaged: &mut u64,
    ) -> io::Result<Option<(Sequence, &[u8])>> {
        loop {
            let Some(segment) = segments.iter().find(|segment| segment.end() > self.next) else {
                return Ok(None);
            };
            self.next = self.next.max(segment.first());
            if self.next >= committed {
                return Ok(None);
            }
            let place = match self.place.take() {
                Some(place) if place.segment == segment.first() && place.sequence <= self.next => place,
                Some(_) | None => Place::begin(folder, segment.first())?,
            };
            let place = self.place.insert(place);
            match place.seek(self.next)? {
                // Borrowed again, since the borrow checker takes the loop for a reason not to let it out.
                true => break,
                false => {
                    *damaged += segment.end().0 - place.sequence.0;
                    self.next = segment.end();
                    self.place = None;
                }
            }
        }
        let sequence = self.next;
        self.next = Sequence(sequence.0 + 1);
        let place = self.place.as_mut().expect("the loop has found it");
        Ok(Some((sequence, place.take())))
    }
}

impl Place {
    fn begin(folder: &Path, first: Sequence) -> io::Result<Place> {
        let file = File::open(segment::path(folder, first))?;
        let offset = SEGMENT_HEADER_BYTES as u64;
        Ok(Place { segment: first, sequence: first, file, chunk: Vec::new(), offset, at: 0, loaded: None })
    }

    /// Goes on to the record with this number; `false` if one on the way there is damaged.
    fn seek(&mut self, to: Sequence) -> io::Result<bool> {
        loop {
            if !self.load()? {
                return Ok(false);
            }
            if self.sequence == to {
                return Ok(true);
            }
            self.take();
        }
    }

    /// Makes sure that the next record is in memory; `false` if it is damaged.
    fn load(&mut self) -> io::Result<bool> {
        let mut is_fresh = false;
        while self.loaded.is_none() {
            match parse_record(&self.chunk[self.at..], self.sequence) {
                Parsed::Record(record) => self.loaded = Some(record.len()),
                Parsed::Damaged => return Ok(false),
                Parsed::Short if is_fresh => return Ok(false),
                Parsed::Short => {
                    self.fill()?;
                    is_fresh = true;
                }
            }
        }
        Ok(true)
    }

    /// Reads a chunk that begins with the next record.
    fn fill(&mut self) -> io::Result<()> {
        self.offset += self.at as u64;
        self.at = 0;
        self.chunk.resize(CHUNK_BYTES, 0);
        let mut read = 0;
        while read < CHUNK_BYTES {
            match self.file.read_at(&mut self.chunk[read..], self.offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.chunk.clear();
                    return Err(error);
                }
            }
        }
        self.chunk.truncate(read);
        Ok(())
    }

    /// The next record, which is in memory, and on behind it.
    fn take(&mut self) -> &[u8] {
        let start = self.at + RECORD_HEADER_BYTES;
        let end = start + self.loaded.take().expect("it was loaded before");
        self.at = end;
        self.sequence.0 += 1;
        &self.chunk[start..end]
    }
}
