//! The operations, and how each becomes a submission.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use io_uring::types::{self, CancelBuilder, DestinationSlot, FsyncFlags};
use io_uring::{opcode, squeue};

use crate::address::{ADDRESS_BYTES, RawAddress};
use crate::handle::RingHandle;
use crate::in_flight::{EntryId, InFlight, Kept, Memory, SharedAddress};
use crate::lease::GroupId;
use crate::slots::DirectSlot;
use crate::tag::{Origin, Tag};

/// What an operation works on.
#[derive(Clone, Debug)]
pub enum Target {
    /// An ordinary descriptor, kept open until the operation's last completion.
    Descriptor(Arc<OwnedFd>),
    /// An entry of the ring's table of direct descriptors.
    Direct(DirectSlot),
}

impl From<DirectSlot> for Target {
    fn from(slot: DirectSlot) -> Target {
        Target::Direct(slot)
    }
}

impl From<Arc<OwnedFd>> for Target {
    fn from(descriptor: Arc<OwnedFd>) -> Target {
        Target::Descriptor(descriptor)
    }
}

/// Which readiness a poll waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read, or the other end is gone.
    Readable,
    /// There is room to write.
    Writable,
}

/// What a send does when the socket has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// It fails with `EAGAIN` (`MSG_DONTWAIT`).
    Nonblocking,
    /// It completes when there is room.
    Waiting,
}

/// How often a poll completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shots {
    /// Once for each wake-up, until it says [`Armed::No`](crate::Armed::No).
    Many,
    /// Once.
    One,
}

/// One operation. It owns what it needs; nothing is borrowed from the caller.
#[derive(Debug)]
pub enum Op {
    /// Accepts one connection into a free slot. Completes with the peer's address in `Completion::peer`.
    ///
    /// Push several: each has an address of its own, which a multishot accept does not.
    Accept {
        /// The listening socket.
        listener: Target,
        /// Where the connection goes. A slot in use would be replaced: allocate it first.
        into: DirectSlot,
    },
    /// Cancels one operation. The operation's own last completion comes separately, before or after this one's:
    /// wait for that. The result of this one may be ignored (0, `ENOENT`, `EALREADY`).
    Cancel {
        /// The operation's tag.
        tag: Tag,
    },
    /// Cancels every operation on a target; the result is their number. Their last completions come separately.
    CancelAll {
        /// The target.
        target: Target,
    },
    /// Closes a direct descriptor. To come after the last completion of every operation on it: an operation in
    /// flight would keep the socket open.
    Close {
        /// The slot; free to be used again once this has completed.
        slot: DirectSlot,
    },
    /// Connects a socket.
    Connect {
        /// The socket.
        socket: Target,
        /// The peer.
        to: SocketAddr,
    },
    /// Sends a completion to another ring: `tag`, with `value` as its result.
    Message {
        /// The other ring.
        ring: RingHandle,
        /// The tag that the other ring's completion carries.
        tag: Tag,
        /// Its result.
        value: u32,
    },
    /// Waits for readiness. The result holds poll(2)'s events.
    Poll {
        /// The descriptor.
        target: Target,
        /// What to wait for.
        interest: Interest,
        /// How often.
        shots: Shots,
    },
    /// Waits for an eventfd, and sets it back to zero ([`RingWatch::read`](crate::RingWatch::read) makes it).
    ReadEvent {
        /// The eventfd, which must not be nonblocking.
        event: Arc<OwnedFd>,
    },
    /// Receives datagrams, each into a buffer of the group, until it says `Armed::No`. Read a lease of it by
    /// [`Ring::datagram`](crate::Ring::datagram).
    ReceiveDatagrams {
        /// A datagram socket.
        socket: Target,
        /// The buffers.
        group: GroupId,
    },
    /// Receives bytes of a stream into buffers of the group, until it says `Armed::No`. The result 0 is the end.
    ReceiveStream {
        /// A stream socket.
        socket: Target,
        /// The buffers.
        group: GroupId,
    },
    /// Sends on a connected socket. The result may be less than the length on a stream.
    Send {
        /// The socket.
        socket: Target,
        /// What to send.
        bytes: Bytes,
        /// What to do when there is no room.
        mode: SendMode,
    },
    /// Sends a datagram to an address.
    SendTo {
        /// A datagram socket.
        socket: Target,
        /// The peer.
        to: SocketAddr,
        /// The datagram.
        bytes: Bytes,
        /// What to do when there is no room.
        mode: SendMode,
    },
    /// Ends the sending half of a connection: the peer reads to the end.
    ShutdownSend {
        /// The socket.
        socket: Target,
    },
    /// Asks how many bytes were sent on a TCP socket that its peer has not acknowledged: the result. Answered at once.
    /// Needs Linux 6.7; `EOPNOTSUPP` or `EINVAL` before.
    Unacknowledged {
        /// A TCP socket.
        socket: Target,
    },
    /// Waits until what was written to a file is on its disk, with what is needed to read it again (fdatasync).
    Sync {
        /// The file.
        file: Target,
    },
    /// Writes to a file. The result may be less than the length.
    Write {
        /// The file.
        file: Target,
        /// What to write.
        bytes: Bytes,
        /// Where; `None`: at the file's position, which moves on.
        offset: Option<u64>,
    },
}

/// Bytes of an eventfd's counter.
const EVENT_BYTES: u32 = size_of::<u64>() as u32;
const _: () = assert!(EVENT_BYTES as usize <= ADDRESS_BYTES, "an address cell holds a counter, too");

/// `SOCKET_URING_OP_SIOCOUTQ` of linux/io_uring.h.
const SOCKET_SIOCOUTQ: u32 = 1;

/// A target as a submission names it.
#[derive(Clone, Copy)]
enum RawTarget {
    Descriptor(RawFd),
    Direct(u32),
}

/// Builds a submission for either kind of target: the library's two types have no common one.
macro_rules! on {
    ($target:expr, |$fd:ident| $build:expr) => {
        match $target {
            RawTarget::Descriptor(raw) => {
                let $fd = types::Fd(raw);
                $build
            }
            RawTarget::Direct(index) => {
                let $fd = types::Fixed(index);
                $build
            }
        }
    };
}

/// The submission of `op`, with what it needs kept in `table`. The only way to make one, so none lacks its `user_data`.
///
/// `header` says how long names and control data of received datagrams are; it must live as long as the ring.
#[inline]
pub(crate) fn submission(
    op: Op,
    tag: Tag,
    table: &mut InFlight,
    header: *const libc::msghdr,
) -> squeue::Entry {
    match op {
        Op::Accept { listener, into } => accept(listener, into, tag, table),
        Op::Cancel { tag: canceled } => {
            let origin = match table.find(canceled) {
                Some(EntryId { generation, index }) => Origin::Table { generation, index },
                None => Origin::Caller(canceled),
            };
            let cancel = CancelBuilder::user_data(origin.encode());
            plain(opcode::AsyncCancel2::new(cancel).build(), tag)
        }
        Op::CancelAll { target } => {
            let (raw, kept) = kept(target, Memory::Nothing);
            let cancel = on!(raw, |fd| CancelBuilder::fd(fd));
            finish(opcode::AsyncCancel2::new(cancel.all()).build(), tag, kept, table)
        }
        Op::Close { slot } => plain(opcode::Close::new(types::Fixed(slot.index())).build(), tag),
        Op::Connect { socket, to } => connect(socket, to, tag, table),
        Op::Message { ring, tag: theirs, value } => {
            let (raw, user_data) = (types::Fd(ring.raw()), Origin::Message(theirs).encode());
            let entry = opcode::MsgRingData::new(raw, value.cast_signed(), user_data, None).build();
            let kept = Kept { memory: Memory::Nothing, descriptor: Some(ring.into_descriptor()) };
            finish(entry, tag, kept, table)
        }
        Op::Poll { target, interest, shots } => poll(target, interest, shots, tag, table),
        Op::ReadEvent { event } => {
            let counter = table.take_address();
            let (start, _) = parts(&counter);
            let (raw, kept) = kept(Target::Descriptor(event), Memory::Event(counter));
            let entry = on!(raw, |fd| opcode::Read::new(fd, start.cast(), EVENT_BYTES).build());
            finish(entry, tag, kept, table)
        }
        Op::ReceiveDatagrams { socket, group } => {
            let (raw, kept) = kept(socket, Memory::Nothing);
            // MSG_TRUNC: a datagram that does not fit tells its true size.
            let flags = libc::MSG_TRUNC as u32;
            let entry = on!(raw, |fd| opcode::RecvMsgMulti::new(fd, header, group.0).flags(flags).build());
            finish(entry, tag, kept, table)
        }
        Op::ReceiveStream { socket, group } => {
            let (raw, kept) = kept(socket, Memory::Nothing);
            finish(on!(raw, |fd| opcode::RecvMulti::new(fd, group.0).build()), tag, kept, table)
        }
        Op::Send { socket, bytes, mode } => {
            let (raw, kept) = kept(socket, Memory::Bytes(bytes));
            let (start, length) = place(&kept.memory);
            let entry = on!(raw, |fd| opcode::Send::new(fd, start, length).flags(send_flags(mode)).build());
            finish(entry, tag, kept, table)
        }
        Op::SendTo { socket, to, bytes, mode } => send_to(socket, to, bytes, mode, tag, table),
        Op::ShutdownSend { socket } => {
            let (raw, kept) = kept(socket, Memory::Nothing);
            finish(on!(raw, |fd| opcode::Shutdown::new(fd, libc::SHUT_WR).build()), tag, kept, table)
        }
        Op::Sync { file } => {
            let (raw, kept) = kept(file, Memory::Nothing);
            let entry = on!(raw, |fd| opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build());
            finish(entry, tag, kept, table)
        }
        Op::Unacknowledged { socket } => {
            let (raw, kept) = kept(socket, Memory::Nothing);
            finish(on!(raw, |fd| opcode::UringCmd16::new(fd, SOCKET_SIOCOUTQ).build()), tag, kept, table)
        }
        Op::Write { file, bytes, offset } => {
            let (raw, kept) = kept(file, Memory::Bytes(bytes));
            let (start, length) = place(&kept.memory);
            // All ones is the kernel's word for the file's own position.
            let offset = offset.unwrap_or(u64::MAX);
            let entry = on!(raw, |fd| opcode::Write::new(fd, start, length).offset(offset).build());
            finish(entry, tag, kept, table)
        }
    }
}

/// The submission that cancels everything in flight; its completion is the ring's own.
pub(crate) fn cancel_everything() -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(Origin::Own.encode())
}

fn accept(listener: Target, into: DirectSlot, tag: Tag, table: &mut InFlight) -> squeue::Entry {
    let address = filled_address(RawAddress::EMPTY, table);
    let (name, length) = parts(&address);
    let slot = DestinationSlot::try_from_slot_target(into.index()).expect("the table is smaller than that");
    let (raw, kept) = kept(listener, Memory::Accept(address));
    let entry = on!(raw, |fd| opcode::Accept::new(fd, name, length).file_index(Some(slot)).build());
    finish(entry, tag, kept, table)
}

fn connect(socket: Target, to: SocketAddr, tag: Tag, table: &mut InFlight) -> squeue::Entry {
    let to = RawAddress::of(to);
    let address = filled_address(to, table);
    let (name, _) = parts(&address);
    let (raw, kept) = kept(socket, Memory::Connect(address));
    finish(on!(raw, |fd| opcode::Connect::new(fd, name, to.length).build()), tag, kept, table)
}

fn poll(target: Target, interest: Interest, shots: Shots, tag: Tag, table: &mut InFlight) -> squeue::Entry {
    let events = match interest {
        Interest::Readable => libc::POLLIN,
        Interest::Writable => libc::POLLOUT,
    } as u32;
    let (raw, kept) = kept(target, Memory::Nothing);
    let many = matches!(shots, Shots::Many);
    finish(on!(raw, |fd| opcode::PollAdd::new(fd, events).multi(many).build()), tag, kept, table)
}

fn send_to(
    socket: Target,
    to: SocketAddr,
    bytes: Bytes,
    mode: SendMode,
    tag: Tag,
    table: &mut InFlight,
) -> squeue::Entry {
    let to = RawAddress::of(to);
    let address = filled_address(to, table);
    let (name, _) = parts(&address);
    let (raw, kept) = kept(socket, Memory::SendTo(bytes, address));
    let (start, length) = place(&kept.memory);
    let entry = on!(raw, |fd| opcode::Send::new(fd, start, length)
        .flags(send_flags(mode))
        .dest_addr(name)
        .dest_addr_len(to.length)
        .build());
    finish(entry, tag, kept, table)
}

/// The target's name in a submission, and what is kept for it.
#[inline]
fn kept(target: Target, memory: Memory) -> (RawTarget, Kept) {
    match target {
        Target::Descriptor(descriptor) => {
            (RawTarget::Descriptor(descriptor.as_raw_fd()), Kept { memory, descriptor: Some(descriptor) })
        }
        Target::Direct(slot) => (RawTarget::Direct(slot.index()), Kept { memory, descriptor: None }),
    }
}

/// Names the submission: by its entry in the table if it keeps anything, or else by the caller's tag alone.
#[inline]
fn finish(entry: squeue::Entry, tag: Tag, kept: Kept, table: &mut InFlight) -> squeue::Entry {
    if matches!(kept.memory, Memory::Nothing) && kept.descriptor.is_none() {
        return plain(entry, tag);
    }
    let EntryId { generation, index } = table.insert(tag, kept);
    entry.user_data(Origin::Table { generation, index }.encode())
}

#[inline]
fn plain(entry: squeue::Entry, tag: Tag) -> squeue::Entry {
    entry.user_data(Origin::Caller(tag).encode())
}

/// Where the bytes of a send or write are. Moving a `Bytes` does not move them.
#[inline]
fn place(memory: &Memory) -> (*const u8, u32) {
    match memory {
        Memory::Bytes(bytes) | Memory::SendTo(bytes, _) => {
            (bytes.as_ptr(), u32::try_from(bytes.len()).expect("one send is less than 4 GiB"))
        }
        Memory::Accept(_) | Memory::Connect(_) | Memory::Event(_) | Memory::Nothing => (ptr::null(), 0),
    }
}

#[inline]
fn send_flags(mode: SendMode) -> i32 {
    match mode {
        SendMode::Nonblocking => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        SendMode::Waiting => libc::MSG_NOSIGNAL,
    }
}

/// An address cell of the table's, with this content.
fn filled_address(content: RawAddress, table: &mut InFlight) -> SharedAddress {
    let address = table.take_address();
    // SAFETY: the cell came out of the table's pool of cells that no operation uses (`InFlight::take_address`), so
    // neither the kernel nor a reference of ours looks at it.
    unsafe { address.get().write(content) };
    address
}

/// Where the kernel finds an address cell's name and length. The `Rc` keeps the place while the cell is in the table.
fn parts(address: &SharedAddress) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
    let start = address.get().cast::<u8>();
    let length = start.wrapping_add(std::mem::offset_of!(RawAddress, length));
    (start.wrapping_add(std::mem::offset_of!(RawAddress, bytes)).cast(), length.cast())
}
