//! A group's memory, and the ring of entries by which the kernel learns which buffers it has.
//!
//! ```text
//! entries (shared with the kernel)   | addr, len, id | addr, len, id | ...        count entries of 16 bytes
//!                                      ^ the tail lives in the unused last 2 bytes of entry 0
//! buffers                            | buffer 0 | buffer 1 | ...                  count * bytes_each
//! ```

use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::enter::errno;
use crate::lease::{GroupId, Lease, LeaseBook};

/// The greatest number of buffers of one group: the kernel's limit.
pub const BUFFERS_MAX: u16 = 1 << 15;

/// The size of a group of buffers.
#[derive(Clone, Copy, Debug)]
pub struct BufferSettings {
    /// How many: a power of two, at most [`BUFFERS_MAX`].
    pub count: u16,
    /// Bytes of each. A datagram's buffer also holds [`DATAGRAM_HEADER_BYTES`](crate::DATAGRAM_HEADER_BYTES).
    pub bytes_each: u32,
}

/// One registered group of buffers.
#[derive(Debug)]
pub(crate) struct BufferRing {
    ring: u32,
    group: GroupId,
    /// The number of the group's first buffer. Numbers run through all groups of a ring, since a completion tells a
    /// buffer's number and not its group.
    first: u16,
    bytes_each: u32,
    /// How many entries were ever added, modulo 2^16: what the kernel reads as the tail.
    tail: u16,
    entries: Mapping,
    buffers: Mapping,
    pub(crate) book: LeaseBook,
}

impl BufferRing {
    /// Maps the memory, gives every buffer to the kernel and registers the group.
    pub(crate) fn register(
        submitter: &Submitter<'_>,
        ring: u32,
        group: GroupId,
        first: u32,
        settings: BufferSettings,
    ) -> Result<BufferRing, Errno> {
        let BufferSettings { count, bytes_each } = settings;
        assert!(
            count.is_power_of_two() && count <= BUFFERS_MAX,
            "{count} buffers: not a power of two up to 32768"
        );
        assert!(bytes_each > 0, "a buffer holds something");
        assert!(first + u32::from(count) <= 1 << u16::BITS, "a ring has at most 65536 buffers");
        let mut this = BufferRing {
            ring,
            group,
            first: first as u16,
            bytes_each,
            tail: 0,
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            buffers: Mapping::new(usize::from(count) * bytes_each as usize)?,
            book: LeaseBook::new(count),
        };
        (0..count).for_each(|index| this.add(index));
        this.publish();
        let address = this.entries.start.as_ptr().expose_provenance() as u64;
        // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives the kernel's use of it: `Ring`
        // unmaps nothing before its descriptor is closed with nothing in flight.
        let registered = unsafe { submitter.register_buf_ring_with_flags(address, count, group.0, 0) };
        registered.map_err(|error| errno(&error))?;
        Ok(this)
    }

    /// The number behind the group's last buffer.
    pub(crate) fn end(&self) -> u32 {
        u32::from(self.first) + u32::from(self.book.count())
    }

    /// Whether the group has buffer `id`.
    #[inline]
    pub(crate) fn has(&self, id: u16) -> bool {
        id >= self.first && u32::from(id) < self.end()
    }

    /// The kernel filled `length` bytes of buffer `id`.
    #[inline]
    pub(crate) fn lend(&mut self, id: u16, length: u32) -> Lease {
        let index = id - self.first;
        self.book.lend(index);
        Lease { ring: self.ring, group: self.group, index, length: length.min(self.bytes_each) }
    }

    /// Fills the buffer that the kernel would take next (`taken` counts what it took) with `parts`, and lends it. `None` if
    /// none is left, or `parts` do not fit. Only for a ring that never had a kernel.
    #[cfg(feature = "scripted")]
    pub(crate) fn fill(&mut self, taken: &mut u16, parts: [&[u8]; 2]) -> Option<Lease> {
        let length = parts[0].len() + parts[1].len();
        if self.book.available() == 0 || length > self.bytes_each as usize {
            return None;
        }
        let place = usize::from(*taken & (self.book.count() - 1));
        let entry = self.entries.start.as_ptr().cast::<BufRingEntry>().wrapping_add(place);
        // SAFETY: `place` is less than `count`, so the entry lies in the mapping, and `add` has written it: `taken` is
        // behind the tail by as many as are available.
        let index = unsafe { (*entry).bid() } - self.first;
        *taken = taken.wrapping_add(1);
        let start = self.buffer(index).cast::<u8>();
        // SAFETY: the buffer is `bytes_each` long, within the mapping. No kernel has it, since no operation was ever
        // submitted to a scripted ring, and no lease: it was available.
        let buffer = unsafe { slice::from_raw_parts_mut(start, length) };
        buffer[..parts[0].len()].copy_from_slice(parts[0]);
        buffer[parts[0].len()..].copy_from_slice(parts[1]);
        Some(self.lend(self.first + index, length as u32))
    }

    /// The bytes that the kernel filled.
    #[inline]
    pub(crate) fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        self.check(lease);
        let start = self.buffer(lease.index).cast::<u8>();
        // SAFETY: the buffer lies within the mapping (`check`: it is one of `count`) and is at least `length` long
        // (`lend`). It is lent, so the kernel does not write to it, and giving it back needs the lease by value and
        // the ring exclusively: neither can happen while the slice lives.
        unsafe { slice::from_raw_parts(start, lease.length as usize) }
    }

    /// Gives a buffer back to the kernel.
    #[inline]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a lease is given back by value: it is gone afterwards"
    )]
    pub(crate) fn give_back(&mut self, lease: Lease) {
        self.check(&lease);
        self.book.take_back(lease.index);
        self.add(lease.index);
        self.publish();
    }

    #[inline]
    fn check(&self, lease: &Lease) {
        assert_eq!(
            (lease.ring, lease.group),
            (self.ring, self.group),
            "a lease goes back to where it came from"
        );
        assert!(self.book.is_lent(lease.index), "buffer {} is not lent", lease.index);
    }

    #[inline]
    fn buffer(&self, index: u16) -> *mut libc::c_void {
        self.buffers.start.as_ptr().wrapping_byte_add(usize::from(index) * self.bytes_each as usize)
    }

    /// Writes the entry of a buffer behind the tail. The kernel sees it after the next `publish`.
    #[inline]
    fn add(&mut self, index: u16) {
        let place = usize::from(self.tail & (self.book.count() - 1));
        let entry = self.entries.start.as_ptr().cast::<BufRingEntry>().wrapping_add(place);
        // SAFETY: `place` is less than `count`, so the entry lies in the mapping, zeroed or written before. It is
        // behind the tail: no more than `count` buffers are ever with the kernel (`LeaseBook`), so the kernel has
        // read it and does not look at it now. The tail itself, in entry 0, is no part of what is set here.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.buffer(index).expose_provenance() as u64);
        entry.set_len(self.bytes_each);
        entry.set_bid(self.first + index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel every entry that was added.
    #[inline]
    fn publish(&self) {
        // SAFETY: the mapping begins with entry 0, and was zeroed when it was made.
        let tail = unsafe { BufRingEntry::tail(self.entries.start.as_ptr().cast::<BufRingEntry>()) };
        // SAFETY: the tail is two aligned bytes of the mapping, which lives as long as `self`. It is reached by
        // atomic operations only: by this one, and by the kernel's.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed, page-aligned memory that is there only once it is touched.
#[derive(Debug)]
struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> Result<Mapping, Errno> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping, at a place of the kernel's choice, touches nothing that exists.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags) }?;
        Ok(Mapping { start: NonNull::new(start).expect("a mapping is never at address 0"), bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own (made by `new`), and `Ring::drop` drops it only when the kernel has
        // no operation left that could write to it. A slice of it borrows the ring, which is being dropped.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.bytes) };
        unmapped.expect("the mapping is as it was made");
    }
}
