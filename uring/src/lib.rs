//! io_uring for one thread: rings, buffer rings, tags, direct descriptors. The only crate with unsafe code.

mod address;
mod buf_ring;
mod completion;
mod datagram;
mod enter;
mod handle;
mod in_flight;
mod lease;
mod op;
mod probe;
mod ring;
mod send_queue;
mod slots;
pub mod sockets;
mod tag;
mod unsupported;

pub use buf_ring::{BUFFERS_MAX, BufferSettings};
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
