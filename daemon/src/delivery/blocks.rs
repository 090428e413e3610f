//! What is on its way into an archive: so that after `kill -9` it can be told from the file which events got there.
//!
//! A write of many lines can be killed anywhere, and the note that would follow it does not come. So before a block is written
//! that has numbered events in it, each is noted in a mapped file: where its line lies in the block, and a hash of it. The
//! next start reads the file from where it ended then, and notes what it finds ([`recover`](super::recover)).
//!
//! ```text
//! region of a shard and archive:   entries | device | inode | length before | 0 0 0 0
//! entry:                           cell, offset in the block | bytes of the line | number | hash of the line
//! ```

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use manager::ShardId;
use uring::{Cells, WORD_BYTES};

use crate::metrics::SinkKind;

/// Regions are a whole number of pages.
pub(super) const REGION_BYTES: u64 = 17 * 4096;
const REGION_WORDS: usize = REGION_BYTES as usize / WORD_BYTES;
const HEADER_WORDS: usize = 8;
const ENTRY_WORDS: usize = 4;

/// Events of one block that can be noted. A line has at least its time and its agent, so a block has fewer.
pub(super) const ENTRIES_MAX: usize = (REGION_WORDS - HEADER_WORDS) / ENTRY_WORDS;

/// Words of a region's header.
const COUNT: usize = 0;
const DEVICE: usize = 1;
const INODE: usize = 2;
const LENGTH: usize = 3;

/// The region of one shard's archive.
#[derive(Debug)]
pub(crate) struct BlockLog {
    words: Cells,
}

/// One event of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BlockEntry {
    /// Where its agent is in the ledger.
    pub(crate) cell: u32,
    /// The event's.
    pub(crate) number: u64,
    /// Where in the block its line begins.
    pub(crate) offset: u32,
    /// The line's bytes, its newline included.
    pub(crate) bytes: u32,
    /// [`line_hash`] of the line.
    pub(crate) hash: u64,
}

/// What a region says of a block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Block {
    /// The file that it was to be written to.
    pub(super) file: FileId,
    /// How long the file was before.
    pub(super) length_before: u64,
    pub(super) entries: Vec<BlockEntry>,
}

/// Which file, whatever its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FileId {
    /// Of what `stat` says.
    pub(super) fn of(stat: &rustix::fs::Stat) -> FileId {
        FileId { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl BlockLog {
    /// The region of an archive.
    ///
    /// # Errors
    /// When the file can't be mapped, or the disk is full.
    pub(super) fn map(file: &File, shard: ShardId, archive: SinkKind) -> io::Result<BlockLog> {
        BlockLog::map_index(file, usize::from(shard.0) * 2 + usize::from(archive == SinkKind::ArchiveJson))
    }

    /// The region of a number.
    pub(super) fn map_index(file: &File, index: usize) -> io::Result<BlockLog> {
        Ok(BlockLog { words: Cells::map(file, index as u64 * REGION_BYTES, REGION_WORDS)? })
    }

    /// Notes what is about to be written to `file`, in the order of the block. Beyond what a region holds, nothing is noted.
    pub(crate) fn begin(&self, file: impl AsFd, entries: impl Iterator<Item = BlockEntry>) {
        self.end();
        // A file that can't be asked is one of which nothing will be found.
        let Ok(stat) = rustix::fs::fstat(file) else { return };
        let FileId { device, inode } = FileId::of(&stat);
        self.put(DEVICE, device);
        self.put(INODE, inode);
        self.put(LENGTH, u64::try_from(stat.st_size).unwrap_or(0));
        let mut count = 0;
        for entry in entries.take(ENTRIES_MAX) {
            let at = HEADER_WORDS + count * ENTRY_WORDS;
            self.put(at, u64::from(entry.cell) | u64::from(entry.offset) << 32);
            self.put(at + 1, u64::from(entry.bytes));
            self.put(at + 2, entry.number);
            self.put(at + 3, entry.hash);
            count += 1;
        }
        // Last: what is counted stands.
        self.put(COUNT, count as u64);
    }

    /// The block is noted in the ledger, or was given up.
    pub(crate) fn end(&self) {
        self.put(COUNT, 0);
    }

    /// The block that was on its way, if there was one.
    pub(super) fn read(&self) -> Option<Block> {
        let count = usize::try_from(self.get(COUNT)).unwrap_or(usize::MAX);
        if count == 0 || count > ENTRIES_MAX {
            return None;
        }
        let entry = |index: usize| {
            let at = HEADER_WORDS + index * ENTRY_WORDS;
            let place = self.get(at);
            BlockEntry {
                cell: place as u32,
                number: self.get(at + 2),
                offset: (place >> 32) as u32,
                bytes: self.get(at + 1) as u32,
                hash: self.get(at + 3),
            }
        };
        Some(Block {
            file: FileId { device: self.get(DEVICE), inode: self.get(INODE) },
            length_before: self.get(LENGTH),
            entries: (0..count).map(entry).collect(),
        })
    }

    fn get(&self, word: usize) -> u64 {
        self.words.word(word).load()
    }

    fn put(&self, word: usize, value: u64) {
        self.words.word(word).store(value);
    }
}

/// A hash of a line that is the same in every build: FNV-1a.
///
/// An agent that makes its own lines collide loses its own events only.
pub(crate) fn line_hash(line: &[u8]) -> u64 {
    line.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> BlockEntry {
        BlockEntry { cell: 131_071, number, offset: u32::MAX - 1, bytes: 77, hash: u64::MAX - number }
    }

    #[test]
    fn a_block_is_read_as_it_was_noted_until_it_ends() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(5).unwrap();
        let log = BlockLog::map(&tempfile::tempfile().unwrap(), ShardId(3), SinkKind::ArchiveJson).unwrap();
        assert_eq!(log.read(), None);
        for count in [1, 3, ENTRIES_MAX, ENTRIES_MAX + 1] {
            let entries: Vec<BlockEntry> = (0..count as u64).map(entry).collect();
            log.begin(&file, entries.iter().copied());
            let block = log.read().unwrap();
            assert_eq!(block.file, FileId::of(&rustix::fs::fstat(&file).unwrap()));
            assert_eq!((block.length_before, &block.entries[..]), (5, &entries[..count.min(ENTRIES_MAX)]));
        }
        log.end();
        assert_eq!(log.read(), None);
        log.put(COUNT, u64::MAX);
        assert_eq!(log.read(), None, "not what we wrote");
    }

    #[test]
    fn regions_do_not_meet() {
        let file = tempfile::tempfile().unwrap();
        let regions: Vec<BlockLog> =
            [(0, SinkKind::ArchiveText), (0, SinkKind::ArchiveJson), (1, SinkKind::ArchiveText)]
                .map(|(shard, archive)| BlockLog::map(&file, ShardId(shard), archive).unwrap())
                .into();
        for (number, region) in regions.iter().enumerate() {
            region.begin(&file, std::iter::repeat_n(entry(number as u64), ENTRIES_MAX));
        }
        for (number, region) in regions.iter().enumerate() {
            assert_eq!(region.read().unwrap().entries, vec![entry(number as u64); ENTRIES_MAX]);
        }
        assert_eq!(file.metadata().unwrap().len(), 3 * REGION_BYTES);
    }

    #[test]
    fn the_hash_is_the_same_in_every_build() {
        assert_eq!((line_hash(b""), line_hash(b"foobar")), (0xcbf2_9ce4_8422_2325, 0x8594_4171_f739_67e8));
    }
}
