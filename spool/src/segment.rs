//! One segment file: what is known of it, and the one that is written.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Sequence;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader, write_record};

const SUFFIX: &str = ".segment";

/// What is known of a segment without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    header: SegmentHeader,
    records: u64,
    bytes: u64,
}

impl Segment {
    pub(crate) fn empty(first: Sequence, previous_end: Sequence) -> Segment {
        Segment {
            header: SegmentHeader { first, previous_end },
            records: 0,
            bytes: SEGMENT_HEADER_BYTES as u64,
        }
    }

    pub(crate) fn found(header: SegmentHeader, records: u64, bytes: u64) -> Segment {
        Segment { header, records, bytes }
    }

    /// The number of its first record.
    pub(crate) fn first(&self) -> Sequence {
        self.header.first
    }

    /// Where the segment before it ended when this one was begun.
    pub(crate) fn previous_end(&self) -> Sequence {
        self.header.previous_end
    }

    /// The number behind its last record.
    pub(crate) fn end(&self) -> Sequence {
        Sequence(self.header.first.0 + self.records)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A record of so many bytes was added.
    pub(crate) fn note(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
    }
}

/// The file of the segment whose first record has this number.
pub(crate) fn path(folder: &Path, first: Sequence) -> PathBuf {
    folder.join(format!("{:020}{SUFFIX}", first.0))
}

/// Whether a file of this name is a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    name.strip_suffix(SUFFIX)
        .is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Deletes a segment; one that is gone is deleted.
pub(crate) fn delete(folder: &Path, first: Sequence) -> io::Result<()> {
    match fs::remove_file(path(folder, first)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The end of the segment that is written.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    /// Bytes of the file that are sound; a write that failed half way is cut off again before the next.
    written: u64,
    waiting: Vec<u8>,
    records_waiting: u64,
    /// Whether the file may have more than `written`.
    is_torn: bool,
    /// Whether the disk may not have all of `written` yet.
    is_unsynced: bool,
}

impl Writer {
    /// Makes the segment's file; one that is there can only be empty.
    pub(crate) fn create(
        folder: &Path,
        first: Sequence,
        previous_end: Sequence,
        sync: bool,
    ) -> io::Result<Writer> {
        let mut file = File::options().create(true).truncate(true).write(true).open(path(folder, first))?;
        file.write_all(&SegmentHeader { first, previous_end }.to_bytes())?;
        if sync {
            File::open(folder)?.sync_all()?;
        }
        Ok(Writer {
            file,
            written: SEGMENT_HEADER_BYTES as u64,
            waiting: Vec::new(),
            records_waiting: 0,
            is_torn: false,
            is_unsynced: true,
        })
    }

    pub(crate) fn push(&mut self, sequence: Sequence, record: &[u8]) {
        write_record(&mut self.waiting, sequence, record);
        self.records_waiting += 1;
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.records_waiting > 0
    }

    pub(crate) fn records_waiting(&self) -> u64 {
        self.records_waiting
    }

    pub(crate) fn flush(&mut self, sync: bool) -> io::Result<()> {
        if self.is_dirty() {
            if self.is_torn {
                self.file.set_len(self.written)?;
            }
            self.file.seek(SeekFrom::Start(self.written))?;
            self.is_torn = true;
            self.file.write_all(&self.waiting)?;
            self.is_torn = false;
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
            self.records_waiting = 0;
            self.is_unsynced = true;
        }
        if sync && self.is_unsynced {
            self.file.sync_data()?;
            self.is_unsynced = false;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Writer {
    /// From now on nothing can be written.
    pub(crate) fn break_file(&mut self) {
        self.file = File::open("/dev/null").expect("every Linux has it");
    }

    pub(crate) fn mend_file(&mut self, folder: &Path, first: Sequence) {
        self.file = File::options().write(true).open(path(folder, first)).expect("it was not deleted");
    }
}
