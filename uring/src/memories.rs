//! All the memory that a ring shares with the kernel: what operations lend, and the groups of buffers.

use std::mem::MaybeUninit;

use io_uring::squeue;
use rustix::io::Errno;

use crate::address::{self, ADDRESS_BYTES};
use crate::buf_ring::BufferRing;
use crate::completion::{Armed, Completion};
use crate::datagram::CONTROL_BYTES;
use crate::in_flight::{EntryId, InFlight, Kept, Memory};
use crate::lease::Lease;
use crate::op::{self, Op};
use crate::tag::Tag;

/// Freed only when nothing is in flight: `Ring::drop` sees to it.
pub(crate) struct Memories {
    table: InFlight,
    pub(crate) groups: Vec<BufferRing>,
    /// How long the names and control data of received datagrams are; every receive of datagrams points to it.
    header: Box<libc::msghdr>,
}

impl Memories {
    /// No group, and room for the memory of `operations` operations; it grows when there are more.
    pub(crate) fn new(operations: usize) -> Memories {
        Memories { table: InFlight::with_capacity(operations), groups: Vec::new(), header: datagram_header() }
    }

    /// The submission of `op`, whose memory is kept here.
    #[inline]
    pub(crate) fn submission(&mut self, op: Op, tag: Tag) -> squeue::Entry {
        op::submission(op, tag, &mut self.table, &raw const *self.header)
    }

    /// The kernel filled a buffer. Buffers are numbered through all groups, so its number tells its group.
    #[inline]
    pub(crate) fn lend(&mut self, id: u16, result: i32) -> Lease {
        let group =
            self.groups.iter_mut().find(|group| group.has(id)).expect("the kernel fills buffers of ours");
        group.lend(id, u32::try_from(result).unwrap_or(0))
    }

    /// The completion of an operation with an entry in the table; `None` if the entry is gone.
    #[inline]
    pub(crate) fn of_table(&mut self, id: EntryId, result: i32, armed: Armed) -> Option<Completion> {
        if armed == Armed::Still {
            return Some(bare(self.table.tag(id)?, result, armed));
        }
        let (tag, Kept { memory, descriptor: _ }) = self.table.remove(id)?;
        let mut completion = bare(tag, result, armed);
        match memory {
            Memory::Accept(address) => {
                // SAFETY: this is the accept's last completion, so the kernel does not write the address any more,
                // and the entry that shared the cell with it is gone.
                let raw = unsafe { address.get().read() };
                let name = &raw.bytes[..ADDRESS_BYTES.min(raw.length as usize)];
                completion.peer = completion.result.ok().and_then(|_| address::parse(name));
                self.table.return_address(address);
            }
            Memory::Bytes(bytes) => completion.bytes = Some(bytes),
            Memory::Connect(address) | Memory::Event(address) => self.table.return_address(address),
            Memory::Nothing => {}
            Memory::SendTo(bytes, address) => {
                completion.bytes = Some(bytes);
                self.table.return_address(address);
            }
        }
        Some(completion)
    }
}

/// A completion that carries nothing.
#[inline]
pub(crate) fn bare(tag: Tag, result: i32, armed: Armed) -> Completion {
    let result = u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
    Completion { tag, result, lease: None, armed, bytes: None, peer: None }
}

/// A message header that says only how much room a received datagram's name and control data get.
fn datagram_header() -> Box<libc::msghdr> {
    // SAFETY: zeros are a valid header: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_namelen = ADDRESS_BYTES as libc::socklen_t;
    header.msg_controllen = CONTROL_BYTES;
    Box::new(header)
}
