//! io_uring for one thread: rings, buffer rings, tags, direct descriptors. Nearly all the unsafe code.
//!
//! ```text
//!            push(Op, Tag)                                  pop() -> Completion
//!                 |                                                 ^
//!   DirectSlots   v                                                 |         LeaseBook
//!   tag, tenant  op  -- memory of the operation -->  InFlight  -- Bytes, peer address, tag
//!                 |                                                 |            ^
//!                 v                                                 |            | lend, give_back
//!   ============ SQ ======== wait: one io_uring_enter a turn ====== CQ ====== BufferRing ====== kernel
//! ```
//!
//! The crate encodes what bites in io_uring, so that its callers can't be bitten:
//!
//! * No operation borrows memory. An [`Op`] owns what it needs; the ring keeps it to the operation's *last* completion.
//! * A received buffer is a [`Lease`]: looked at through the ring, given back by value, known to one ring only.
//! * Data and termination are two fields of a [`Completion`]. A last completion may carry data, and an empty datagram
//!   ends a receive: who does not look at [`Armed`] goes deaf.
//! * A receive that ended for want of buffers is not armed again before a quarter of them is back
//!   ([`Ring::starve`], [`Ring::next_fed`]): on an empty group it would end at once, and spin.
//! * Completions name their tenant: a [`Tag`] with the slot's generation, checked by [`DirectSlots::tenant`].
//! * Accepts are single, each with an address of its own, into a slot that was free before: the peer is known, and a
//!   full table leaves connections in the backlog instead of dropping them.
//! * Close is three steps, each waited for: [`Op::CancelAll`], the last completion of each operation, [`Op::Close`].
//! * A ring is dropped only with nothing in flight ([`Ring::drain`]); else it panics, and its memory is never freed.
//! * One table of direct descriptors holds `RLIMIT_NOFILE` at most. A thread that needs more makes another ring, and
//!   waits for both on one ([`Ring::watch`]).
//! * What must outlive the process is a [`Word`] of a mapped file ([`Cells`]), and a [`Chain`] has the kernel note a
//!   datagram in it with the datagram's hand-over: `kill -9` does not come between the two.
//!
//! `tag`, `slots`, `lease`, `in_flight`, `send_queue`, `address`, `datagram` and `unsupported` are pure, and tested with
//! values made by hand. `enter`, `buf_ring`, `cells`, `chain`, `op`, `memories`, `ring`, `handle`, `probe` and `sockets`
//! touch the kernel, and are tested on it (`tests/kernel`), under AddressSanitizer too.

mod address;
mod buf_ring;
mod cells;
mod chain;
mod completion;
mod datagram;
mod enter;
mod handle;
mod in_flight;
mod lease;
mod memories;
mod op;
mod probe;
mod ring;
#[cfg(feature = "scripted")]
mod scripted;
mod send_queue;
mod slots;
pub mod sockets;
mod tag;
mod unsupported;

pub use buf_ring::{BUFFERS_MAX, BufferSettings};
pub use cells::{CELLS_OFFSET_UNIT_BYTES, Cells, WORD_BYTES, Word};
pub use chain::{CHAIN_DATAGRAMS_MAX, Chain, Noted, Sent};
pub use completion::{Armed, Completion};
pub use datagram::{DATAGRAM_HEADER_BYTES, Datagram, DatagramError};
pub use handle::{RingHandle, RingWatch, Waker, Wakeup};
pub use lease::{GroupId, Lease};
pub use op::{Interest, Op, SendMode, Shots, Target};
pub use probe::probe;
pub use ring::{DrainTimedOut, Ring, RingSettings, Wait, completions_needed};
pub use rustix::io::Errno;
pub use send_queue::{SendQueue, SendQueueFull};
pub use slots::{DirectSlot, DirectSlots};
pub use tag::{GENERATION_BITS, GENERATION_MAX, KIND_MAX, Tag};
pub use unsupported::{Step, Unsupported};
