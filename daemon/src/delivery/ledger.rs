//! The ledger of acknowledged delivery: for each agent its session, and for each sink the number before which it has
//! everything. A mapped file: what was noted is there after `kill -9`.
//!
//! ```text
//! page 0    "RMDELIV1"
//! cells     8 words each: agent id | session | before: queue, archive text, archive JSON | shown | 0 | 0
//! ```
//!
//! A cell is made id last and changed session 0 first, so that a kill at any store leaves a cell that says too little
//! (nothing is confirmed, the agent sends again) and never too much. `shown` is the queue's `before` once more: the kernel
//! writes that one itself, byte by byte for all it promises, and other threads must not read half of a number.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use codec::{AgentId, DELIVERY_NUMBER_MAX};
use manager::{Ledger, LedgerFull, SINKS_MAX, SinkSet};
use rustix::fs::OFlags;
use uring::{CELLS_OFFSET_UNIT_BYTES, Cells, WORD_BYTES, Word};

use crate::home::FILE_MODE;
use crate::metrics::SinkKind;

/// Agents that the ledger has room for.
pub(crate) const CELLS_MAX: u32 = 131_072;

const MAGIC: [u8; 8] = *b"RMDELIV1";
const HEADER_BYTES: u64 = CELLS_OFFSET_UNIT_BYTES;
const WORDS_PER_CELL: usize = 8;
const CELL_BYTES: u64 = (WORDS_PER_CELL * WORD_BYTES) as u64;

/// The file grows, and is mapped, by so many cells.
const CHUNK_CELLS: u32 = 4_096;
const CHUNK_BYTES: u64 = CHUNK_CELLS as u64 * CELL_BYTES;
const CHUNKS_MAX: usize = (CELLS_MAX / CHUNK_CELLS) as usize;

const _: () =
    assert!(CELLS_MAX.is_multiple_of(CHUNK_CELLS) && CHUNK_BYTES.is_multiple_of(CELLS_OFFSET_UNIT_BYTES));
const _: () = assert!(BEFORE + SINKS_MAX == SHOWN && SHOWN < WORDS_PER_CELL);

/// Words of a cell.
const ID: usize = 0;
const SESSION: usize = 1;
const BEFORE: usize = 2;
const SHOWN: usize = BEFORE + SINKS_MAX;

/// While a cell changes its session, and in no offer that the ledger would go on with.
const NO_SESSION: u64 = 0;

const QUEUE: usize = SinkKind::Queue as usize;

/// The ledger in its file. One process has it, all of whose shards share it.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    file: File,
    sinks: SinkSet,
    chunks: Box<[OnceLock<Cells>]>,
    index: Mutex<Index>,
    used: AtomicU64,
}

/// Which cell is whose, and which are nobody's.
#[derive(Debug, Default)]
struct Index {
    by_agent: HashMap<AgentId, u32>,
    free: Vec<u32>,
    /// Cells from here on were never used.
    next: u32,
}

/// What was found when the ledger was opened.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Opened {
    /// It was no ledger, and is kept here.
    pub(crate) aside: Option<PathBuf>,
    /// Agents whose delivery goes on.
    pub(crate) kept: u32,
    /// Cells of agents that are not in client.keys any more: others may have them.
    pub(crate) freed: u32,
    /// Cells that could not be read, and were given up.
    pub(crate) damaged: u32,
}

impl LedgerFile {
    /// Opens the ledger at `path`, or makes it. Agents that are not `listed` lose their cells.
    ///
    /// # Errors
    /// When the file can't be opened, made or mapped: a full disk, or rights.
    pub(crate) fn open(
        path: &Path,
        sinks: SinkSet,
        listed: impl Fn(AgentId) -> bool,
    ) -> io::Result<(LedgerFile, Opened)> {
        let mut opened = Opened::default();
        let mut file = open_file(path)?;
        let mut length = file.metadata()?.len();
        if length > 0 && !is_ledger(&mut file)? {
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside)?;
            opened.aside = Some(aside);
            file = open_file(path)?;
            length = 0;
        }
        if length == 0 {
            let mut header = [0; HEADER_BYTES as usize];
            header[..MAGIC.len()].copy_from_slice(&MAGIC);
            file.write_all(&header)?;
        }
        let ledger = LedgerFile {
            file,
            sinks,
            chunks: (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect(),
            index: Mutex::default(),
            used: AtomicU64::new(0),
        };
        let cells = length.saturating_sub(HEADER_BYTES) / CELL_BYTES;
        ledger.read(u32::try_from(cells).unwrap_or(CELLS_MAX).min(CELLS_MAX), listed, &mut opened)?;
        Ok((ledger, opened))
    }

    /// Notes that a sink has everything before `before`; what it is known to have stays known.
    ///
    /// Only the shard that holds the agent's events does so.
    pub(crate) fn note(&self, cell: u32, sink: SinkKind, before: u64) {
        let word = BEFORE + sink as usize;
        if self.get(cell, word) < before {
            self.put(cell, word, before);
        }
        if sink == SinkKind::Queue {
            self.put(cell, SHOWN, self.get(cell, word));
        }
    }

    /// The same, of a cell that a file names: nothing if there is none.
    pub(super) fn note_if_there(&self, cell: u32, sink: SinkKind, before: u64) {
        let next = self.index.lock().unwrap_or_else(PoisonError::into_inner).next;
        if cell < next && self.get(cell, ID) != 0 && before <= DELIVERY_NUMBER_MAX + 1 {
            self.note(cell, sink, before);
        }
    }

    /// Where the kernel notes that the queue has everything before a number. [`LedgerFile::note`] must follow.
    pub(crate) fn queue_word(&self, cell: u32) -> Word<'_> {
        self.word(cell, BEFORE + QUEUE)
    }

    /// How many agents have a cell.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Reads the cells that the file has.
    fn read(&self, cells: u32, listed: impl Fn(AgentId) -> bool, opened: &mut Opened) -> io::Result<()> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in 0..cells {
            self.map_chunk(cell)?;
            let id = self.get(cell, ID);
            if id == 0 {
                index.free.push(cell);
                continue;
            }
            let agent =
                agent_id(id).filter(|agent| self.is_sound(cell) && !index.by_agent.contains_key(agent));
            match agent {
                Some(agent) if listed(agent) => {
                    self.put(cell, SHOWN, self.get(cell, BEFORE + QUEUE));
                    index.by_agent.insert(agent, cell);
                    opened.kept += 1;
                    continue;
                }
                Some(_) => opened.freed += 1,
                None => opened.damaged += 1,
            }
            self.put(cell, ID, 0);
            index.free.push(cell);
        }
        // The lowest first.
        index.free.reverse();
        index.next = cells;
        self.used.store(index.by_agent.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a cell says what a ledger can say.
    fn is_sound(&self, cell: u32) -> bool {
        (0..SINKS_MAX).all(|sink| self.get(cell, BEFORE + sink) <= DELIVERY_NUMBER_MAX + 1)
    }

    /// A cell that is nobody's.
    fn allocate(&self, index: &mut Index) -> Option<u32> {
        if let Some(cell) = index.free.pop() {
            return Some(cell);
        }
        let cell = index.next;
        // A disk without room for more cells is a ledger that is full.
        if cell >= CELLS_MAX || self.map_chunk(cell).is_err() {
            return None;
        }
        index.next += 1;
        Some(cell)
    }

    /// Maps the chunk that a cell is in, if it is not mapped yet.
    fn map_chunk(&self, cell: u32) -> io::Result<()> {
        let chunk = (cell / CHUNK_CELLS) as usize;
        if self.chunks[chunk].get().is_none() {
            let offset = HEADER_BYTES + chunk as u64 * CHUNK_BYTES;
            let cells = Cells::map(&self.file, offset, CHUNK_CELLS as usize * WORDS_PER_CELL)?;
            self.chunks[chunk].set(cells).expect("chunks are mapped under the lock of the index");
        }
        Ok(())
    }

    fn get(&self, cell: u32, word: usize) -> u64 {
        self.word(cell, word).load()
    }

    /// Every store of the process goes through here, so that tests can end it between any two.
    fn put(&self, cell: u32, word: usize, value: u64) {
        #[cfg(test)]
        tests::before_a_store();
        self.word(cell, word).store(value);
    }

    fn word(&self, cell: u32, word: usize) -> Word<'_> {
        let chunk = self.chunks[(cell / CHUNK_CELLS) as usize].get();
        let chunk = chunk.expect("a cell that somebody knows is mapped");
        chunk.word((cell % CHUNK_CELLS) as usize * WORDS_PER_CELL + word)
    }
}

impl Ledger for LedgerFile {
    fn open(&self, agent: AgentId, session: u64, first: u64) -> Result<u32, LedgerFull> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let known = index.by_agent.get(&agent).copied();
        let cell = known.or_else(|| self.allocate(&mut index)).ok_or(LedgerFull)?;
        let is_same = known.is_some() && session != NO_SESSION && self.get(cell, SESSION) == session;
        if !is_same {
            self.put(cell, SESSION, NO_SESSION);
        }
        for word in BEFORE..BEFORE + SINKS_MAX {
            self.put(cell, word, if is_same { self.get(cell, word).max(first) } else { first });
        }
        self.put(cell, SHOWN, self.get(cell, BEFORE + QUEUE));
        self.put(cell, SESSION, session);
        self.put(cell, ID, id_word(agent));
        if known.is_none() {
            index.by_agent.insert(agent, cell);
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        Ok(cell)
    }

    fn before(&self, cell: u32, sink: usize) -> u64 {
        let word = if sink == QUEUE { SHOWN } else { BEFORE + sink };
        self.get(cell, word)
    }

    fn sinks(&self) -> SinkSet {
        self.sinks
    }
}

/// An id as a word: its digits, the unused bytes zero.
fn id_word(agent: AgentId) -> u64 {
    let mut bytes = [0; WORD_BYTES];
    let digits = agent.as_str().as_bytes();
    bytes[..digits.len()].copy_from_slice(digits);
    u64::from_le_bytes(bytes)
}

/// The id that a word writes, if it is one.
fn agent_id(word: u64) -> Option<AgentId> {
    let bytes = word.to_le_bytes();
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    AgentId::from_bytes(&bytes[..length]).ok().filter(|agent| id_word(*agent) == word)
}

/// Whether the file begins as one does.
fn is_ledger(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(magic == MAGIC && file.metadata()?.len() >= HEADER_BYTES)
}

/// A file that is mapped: nothing that somebody has put in its place is followed or waited for.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).custom_flags(flags);
    options.open(path)
}

#[cfg(test)]
mod tests;
