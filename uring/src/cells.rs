//! Words in a file that outlive the process: mapped and shared, so that what was stored is there after `kill -9`.
//!
//! Not after a crash of the host: the kernel writes the page back when it sees fit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a word.
pub const WORD_BYTES: usize = size_of::<AtomicU64>();

/// Where a mapping of a file may begin on every host that the crate is for: a multiple of this.
pub const CELLS_OFFSET_UNIT_BYTES: u64 = 4096;

/// A range of a file as words, shared with whoever maps it too, and with the file.
///
/// Other programs may write the file: a word holds any number, at any time. The file must not be made shorter.
#[derive(Debug)]
pub struct Cells {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: what is behind the pointer is the value's own mapping, of no thread, and reached as atomics only.
unsafe impl Send for Cells {}
// SAFETY: as above: a shared `Cells` gives `AtomicU64`s only.
unsafe impl Sync for Cells {}

/// One word of a [`Cells`]: who has it has memory that outlives the process.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a>(&'a AtomicU64);

impl Cells {
    /// Maps `words` words from `offset_bytes` of a file on, which is made longer if need be: what is new is zero.
    ///
    /// The blocks on disk are taken now: a store into a hole of a file on a full disk would kill the process.
    ///
    /// # Errors
    ///
    /// When the disk is full, or the file can't be mapped: it must be open for reading and writing.
    ///
    /// # Panics
    ///
    /// If `words` is 0, or the offset no multiple of [`CELLS_OFFSET_UNIT_BYTES`].
    pub fn map(file: &File, offset_bytes: u64, words: usize) -> io::Result<Cells> {
        assert!(words > 0, "a mapping holds something");
        assert_eq!(offset_bytes % CELLS_OFFSET_UNIT_BYTES, 0, "a mapping begins with a page");
        let bytes = words * WORD_BYTES;
        allocate(file, offset_bytes, bytes as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at a place of the kernel's choice, touches nothing that exists.
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, file, offset_bytes) }?;
        let start = NonNull::new(start.cast::<AtomicU64>()).expect("a mapping is never at address 0");
        Ok(Cells { start, words })
    }

    /// One of the words.
    ///
    /// # Panics
    ///
    /// If there are not that many.
    #[must_use]
    #[inline]
    pub fn word(&self, index: usize) -> Word<'_> {
        // SAFETY: the mapping holds `words` words, page-aligned, and lives as long as `self`. It is reached by atomic
        // operations only: ours, and the kernel's copy of one aligned word (`Chain`).
        let words = unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) };
        Word(&words[index])
    }

    /// How many words there are.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own (made by `map`), and every `Word` borrows the value.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.words * WORD_BYTES) };
        unmapped.expect("the mapping is as it was made");
    }
}

impl Word<'_> {
    /// What it holds. Stores of the same thread, and of threads that this one has heard from since, are seen.
    ///
    /// While a [`Chain`](crate::Chain) of another thread notes into it, this may be half of a number: readers of other
    /// threads need a word that is only ever stored.
    #[must_use]
    #[inline]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Overwrites it. What was stored before, into this word and others, outlives the process if this does.
    #[inline]
    pub fn store(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Writes what it holds, so that its page is there and may be written. Nobody else writes it now.
    #[inline]
    pub(crate) fn touch(self) {
        self.0.swap(self.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Where the kernel finds it.
    #[inline]
    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr().cast()
    }
}

/// Takes the blocks of a range of a file.
fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), offset, bytes) {
        Ok(()) => Ok(()),
        // A file system that can't: what is new is written. Holes of before stay, as nobody else makes the file.
        Err(Errno::OPNOTSUPP) => {
            const ZEROS: [u8; CELLS_OFFSET_UNIT_BYTES as usize] = [0; CELLS_OFFSET_UNIT_BYTES as usize];
            let mut at = file.metadata()?.len();
            while at < offset + bytes {
                let count = (offset + bytes - at).min(ZEROS.len() as u64);
                file.write_all_at(&ZEROS[..count as usize], at)?;
                at += count;
            }
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}
