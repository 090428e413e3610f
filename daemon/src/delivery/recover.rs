//! After an end that was none: which events of the blocks that were on their way are in the archives.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::blocks::{Block, BlockEntry, BlockLog, FileId, REGION_BYTES, line_hash};
use super::ledger::LedgerFile;
use crate::metrics::SinkKind;

/// Behind where a file ended, so much of it is read at the most: a block lies among those of the other shards.
const READ_BYTES_MAX: u64 = 16 << 20;

/// What was found, for the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Recovered {
    /// Events of blocks on their way when the process ended that are in the file: they are not written again.
    pub(crate) found: u64,
    /// Events of such blocks that are not: their agents send them again.
    pub(crate) missing: u64,
    /// Bytes of lines that were written in part, and are cut off.
    pub(crate) cut_bytes: u64,
    /// Blocks whose file is gone, or can't be read: their events may come twice.
    pub(crate) lost_blocks: u64,
}

/// Notes in the ledger what the blocks of `log` have brought into the archives, and forgets the blocks.
///
/// # Errors
/// When the log can't be mapped.
pub(crate) fn recover(
    ledger: &LedgerFile,
    log: &File,
    archives: &[(SinkKind, PathBuf); 2],
) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let regions = (log.metadata()?.len() / REGION_BYTES) as usize;
    for index in 0..regions {
        let region = BlockLog::map_index(log, index)?;
        let Some(block) = region.read() else { continue };
        let (sink, path) = &archives[index % archives.len()];
        match file_of(path, block.file).and_then(|file| file.find(&block)) {
            Ok(Found { count, cut_bytes }) => {
                let (found, missing) = block.entries.split_at(count);
                for entry in found {
                    ledger.note_if_there(entry.cell, *sink, entry.number.saturating_add(1));
                }
                recovered.found += found.len() as u64;
                recovered.missing += missing.len() as u64;
                recovered.cut_bytes += cut_bytes;
            }
            Err(_) => recovered.lost_blocks += 1,
        }
        region.end();
    }
    Ok(recovered)
}

/// How much of a block is in its file.
struct Found {
    /// So many events, the first ones.
    count: usize,
    cut_bytes: u64,
}

/// A file that an archive was written to.
struct Archived {
    file: File,
    /// It is the one that will be written to: not moved away.
    is_in_use: bool,
}

impl Archived {
    /// Finds a block's lines behind where the file ended before. In the file that is in use, a last one that is not whole is cut
    /// off, since the next line would follow it.
    fn find(&self, block: &Block) -> io::Result<Found> {
        let length = self.file.metadata()?.len();
        let start = block.length_before.min(length);
        let mut tail = vec![0; (length - start).min(READ_BYTES_MAX) as usize];
        self.file.read_exact_at(&mut tail, start)?;
        let mut cut_bytes = 0;
        let is_all = tail.len() as u64 == length - start;
        if self.is_in_use && is_all && tail.last().is_some_and(|last| *last != b'\n') {
            let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            cut_bytes = (tail.len() - whole) as u64;
            // The block is still in the log: a kill now finds the same again.
            self.file.set_len(start + whole as u64)?;
            tail.truncate(whole);
        }
        Ok(Found { count: matched(&tail, &block.entries), cut_bytes })
    }
}

/// How many of a block's events are in `tail`, in order, the first ones. A block is written in one piece, as far as it gets;
/// only where a disk was full meanwhile, its rest may follow behind others.
fn matched(tail: &[u8], entries: &[BlockEntry]) -> usize {
    // Where the block would begin in the tail, by what was found last.
    let mut begin: Option<usize> = None;
    let mut searched = 0;
    for (count, entry) in entries.iter().enumerate() {
        let expected = begin.map(|begin| begin + entry.offset as usize).filter(|at| is_at(tail, *at, entry));
        let found = expected.or_else(|| line_starts(tail, searched).find(|at| is_at(tail, *at, entry)));
        let Some(at) = found else { return count };
        begin = at.checked_sub(entry.offset as usize);
        searched = at + entry.bytes as usize;
    }
    entries.len()
}

fn is_at(tail: &[u8], at: usize, entry: &BlockEntry) -> bool {
    let line = tail.get(at..at.saturating_add(entry.bytes as usize));
    line.is_some_and(|line| line.last() == Some(&b'\n') && line_hash(line) == entry.hash)
}

/// Where lines begin, from one of them on.
fn line_starts(tail: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let behind = tail[from..].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(from).chain(behind.map(move |(at, _)| from + at + 1))
}

/// The file that was written to: at its path, or beside it if it was moved away (rotated).
fn file_of(path: &Path, wanted: FileId) -> io::Result<Archived> {
    let is_it = |stat: Result<rustix::fs::Stat, Errno>| stat.is_ok_and(|stat| FileId::of(&stat) == wanted);
    // By a link too, if the operator put one there: that is where lines go.
    if is_it(rustix::fs::stat(path)) {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        return Ok(Archived { file, is_in_use: true });
    }
    let mut beside = path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let moved = beside.find(|entry| is_it(rustix::fs::lstat(entry.path())));
    let moved = moved.ok_or(io::ErrorKind::NotFound)?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(moved.path())?;
    Ok(Archived { file, is_in_use: false })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use codec::AgentId;
    use manager::{Ledger, ShardId, SinkSet};

    use super::*;
    use crate::delivery::ledger::open_file;

    const TEXT: usize = SinkKind::ArchiveText as usize;

    /// A ledger of two agents, an archive, and the log of two shards.
    struct Bed {
        _folder: tempfile::TempDir,
        ledger: LedgerFile,
        log: File,
        archives: [(SinkKind, PathBuf); 2],
        cells: [u32; 2],
    }

    impl Bed {
        fn new() -> Bed {
            let folder = tempfile::tempdir().unwrap();
            let sinks = SinkSet::NONE.with(TEXT);
            let (ledger, _) = LedgerFile::open(&folder.path().join("delivery"), sinks, |_| true).unwrap();
            let cells =
                [&b"001"[..], b"002"].map(|id| ledger.open(AgentId::from_bytes(id).unwrap(), 7, 1).unwrap());
            let log = open_file(&folder.path().join("blocks")).unwrap();
            let path = |name| folder.path().join(name);
            let archives = [(SinkKind::ArchiveText, path("a.log")), (SinkKind::ArchiveJson, path("a.json"))];
            fs::write(&archives[0].1, "before\n").unwrap();
            Bed { _folder: folder, ledger, log, archives, cells }
        }

        /// Notes that a shard writes these lines, with the place of the agent and the number of those that have one, and
        /// returns them as a block.
        fn begin(&self, shard: u8, lines: &[(&str, Option<(usize, u64)>)]) -> Vec<u8> {
            let (mut block, mut entries) = (Vec::new(), Vec::new());
            for (line, numbered) in lines {
                if let Some((agent, number)) = *numbered {
                    entries.push(BlockEntry {
                        cell: self.cells[agent],
                        number,
                        offset: block.len() as u32,
                        bytes: line.len() as u32,
                        hash: line_hash(line.as_bytes()),
                    });
                }
                block.extend_from_slice(line.as_bytes());
            }
            let log = BlockLog::map(&self.log, ShardId(shard), SinkKind::ArchiveText).unwrap();
            log.begin(File::open(&self.archives[0].1).unwrap(), entries.into_iter());
            block
        }

        fn append(&self, bytes: &[u8]) {
            OpenOptions::new().append(true).open(&self.archives[0].1).unwrap().write_all(bytes).unwrap();
        }

        fn recover(&self) -> Recovered {
            recover(&self.ledger, &self.log, &self.archives).unwrap()
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.archives[0].1).unwrap()
        }

        fn befores(&self) -> [u64; 2] {
            self.cells.map(|cell| self.ledger.before(cell, TEXT))
        }
    }

    const LINES: [(&str, Option<(usize, u64)>); 5] = [
        ("UDP\n", None),
        ("one 5\n", Some((0, 5))),
        ("two 8\n", Some((1, 8))),
        ("TCP of others\n", None),
        ("one 6\n", Some((0, 6))),
    ];

    #[test]
    fn wherever_the_write_was_cut_whole_lines_count_and_the_rest_is_cut_off() {
        let bytes: usize = LINES.iter().map(|(line, _)| line.len()).sum();
        for written in 0..=bytes {
            let bed = Bed::new();
            let block = bed.begin(0, &LINES);
            bed.append(&block[..written]);
            let recovered = bed.recover();
            let whole = block[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = String::from_utf8(block[..whole].to_vec()).unwrap();
            let has = |line: &str| lines.contains(line);
            let one = if has("one 6") {
                7
            } else if has("one 5") {
                6
            } else {
                1
            };
            assert_eq!(bed.befores(), [one, if has("two 8") { 9 } else { 1 }], "{written} bytes");
            assert_eq!(bed.text(), format!("before\n{lines}"));
            let found = ["one 5", "two 8", "one 6"].iter().filter(|line| has(line)).count() as u64;
            let cut_bytes = (written - whole) as u64;
            assert_eq!(recovered, Recovered { found, missing: 3 - found, cut_bytes, lost_blocks: 0 });
            assert_eq!(bed.recover(), Recovered::default(), "blocks are looked for once");
        }
    }

    #[test]
    fn each_shards_block_is_found_behind_the_others() {
        let bed = Bed::new();
        let first = bed.begin(
            0,
            &[("one 1\n", Some((0, 1))), ("one same\n", Some((0, 2))), ("one same\n", Some((0, 3)))],
        );
        let second = bed.begin(1, &[("two same\n", Some((1, 4))), ("two 5\n", Some((1, 5)))]);
        bed.append(&first[..first.len() - 2]);
        bed.append(b"\n");
        bed.append(&second);
        let recovered = bed.recover();
        assert_eq!((recovered.found, recovered.missing), (4, 1), "the first's last line was cut");
        assert_eq!(bed.befores(), [3, 6]);
    }

    #[test]
    fn a_rest_that_was_written_later_is_found_behind_what_came_between() {
        let bed = Bed::new();
        let block = bed.begin(0, &LINES);
        let cut = block.len() - "one 6\n".len();
        bed.append(&block[..cut]);
        bed.append(b"of another shard\n");
        bed.append(&block[cut..]);
        assert_eq!((bed.recover().found, bed.befores()), (3, [7, 9]));
    }

    #[test]
    fn a_file_that_was_moved_is_found_beside_and_one_that_is_gone_is_counted() {
        let bed = Bed::new();
        let block = bed.begin(0, &LINES);
        bed.append(&block);
        bed.append(b"torn");
        fs::rename(&bed.archives[0].1, bed.archives[0].1.with_extension("log.1")).unwrap();
        fs::write(&bed.archives[0].1, "new\n").unwrap();
        assert_eq!(bed.recover(), Recovered { found: 3, ..Recovered::default() }, "nothing of it is cut off");
        assert_eq!(bed.befores(), [7, 9]);
        bed.begin(0, &LINES);
        fs::remove_file(&bed.archives[0].1).unwrap();
        assert_eq!(bed.recover(), Recovered { lost_blocks: 1, ..Recovered::default() });
    }

    #[test]
    fn a_block_that_is_finished_and_noted_takes_nothing_back() {
        let bed = Bed::new();
        let block = bed.begin(0, &LINES);
        bed.append(&block);
        bed.ledger.note(bed.cells[0], SinkKind::ArchiveText, 100);
        bed.recover();
        assert_eq!(bed.befores(), [100, 9]);
    }
}
