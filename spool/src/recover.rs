//! Finding out what is on disk, whatever happened to it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::Sequence;
use crate::format::{Parsed, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, parse_record};
use crate::segment::{self, Segment};
use crate::state::{self, State};

/// What opening a spool found, and what it had to give up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// Records that are there, forgotten ones of the first segment included.
    pub records: u64,
    /// Bytes behind the last sound record of a segment, cut off: the rest of a record that was being written, or damage.
    pub cut_bytes: u64,
    /// Records that had been written and are gone, as far as the next segment tells.
    pub lost_records: u64,
    /// Files that are no segment or contradict the others; renamed to end in `.damaged`.
    pub set_aside: u64,
}

pub(crate) struct Found {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) recovery: Recovery,
}

/// Reads all segments. Cuts what is torn.
pub(crate) fn recover(folder: &Path) -> io::Result<(State, Found)> {
    let state = state::read(folder)?;
    let mut found = Found { segments: VecDeque::new(), recovery: Recovery::default() };
    for path in segment_paths(folder)? {
        let bytes = fs::read(&path)?;
        let end = found.segments.back().map_or(Sequence(0), Segment::end);
        let header = SegmentHeader::parse(&bytes)
            .filter(|header| header.first >= end && segment::path(folder, header.first) == path);
        let Some(header) = header else {
            set_aside(&path, &bytes, &mut found.recovery)?;
            continue;
        };
        let (records, sound) = sound_part(&bytes, header.first);
        if sound < bytes.len() {
            File::options().write(true).open(&path)?.set_len(sound as u64)?;
            found.recovery.cut_bytes += (bytes.len() - sound) as u64;
        }
        found.recovery.records += records;
        found.segments.push_back(Segment::found(header, records, sound as u64));
    }
    let pairs = found.segments.iter().zip(found.segments.iter().skip(1));
    found.recovery.lost_records =
        pairs.map(|(before, after)| after.previous_end().0.saturating_sub(before.end().0)).sum();
    Ok((state, found))
}

/// The segments' files, oldest first.
fn segment_paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(segment::is_segment) {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// How many records are sound from the first on, and where they end.
fn sound_part(bytes: &[u8], first: Sequence) -> (u64, usize) {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut records = 0;
    loop {
        match parse_record(&bytes[at..], Sequence(first.0 + records)) {
            Parsed::Record(record) => at += RECORD_HEADER_BYTES + record.len(),
            Parsed::Short | Parsed::Damaged => return (records, at),
        }
        records += 1;
    }
}

/// A segment whose header was being written is nothing; anything else is kept for whoever wants to look at it.
fn set_aside(path: &Path, bytes: &[u8], recovery: &mut Recovery) -> io::Result<()> {
    recovery.cut_bytes += bytes.len() as u64;
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return fs::remove_file(path);
    }
    recovery.set_aside += 1;
    fs::rename(path, path.with_extension("damaged"))
}
