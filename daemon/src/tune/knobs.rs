//! The knobs that decide about the path of a message, as one table. Measured effects and how to undo: tuning/README.md.

use crate::sink::QUEUE_SEND_BUFFER_BYTES;

/// One thing of the host that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// As the kernel, the settings or the manual page calls it.
    pub name: &'static str,
    /// Where it is read.
    pub place: Place,
    /// What it should be for the default settings and any fleet: what tuning/ sets.
    pub want: Want,
    /// How settings and fleet change that.
    pub scale: Scale,
    /// What it means that this kernel has no such thing.
    pub absence: Absence,
    /// What goes wrong otherwise, in one line.
    pub why: &'static str,
}

/// Where a knob is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// The hard limit of open descriptors, to which the program raises its soft one.
    Descriptors,
    /// The frequency governor of the shards' cores.
    Governor,
    /// The hard limit of locked memory.
    LockedMemory,
    /// A socket that asks as the program does, and what the kernel grants it.
    ReceiveBuffer,
    /// A ring that is made as the program makes its own.
    Ring,
    /// `listen.receive_buffer_bytes`.
    Setting,
    /// A file under /proc/sys.
    Sysctl {
        /// Which of its numbers, counted from 0.
        number: usize,
    },
}

/// What a knob should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// It does not matter here.
    Any,
    /// This number or a greater one.
    AtLeast(u64),
    /// This number or a smaller one.
    AtMost(u64),
    /// This word.
    Word(&'static str),
}

/// How settings and fleet change what is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scale {
    /// `listen.backlog`, and no more than there are agents.
    Backlog,
    /// All UDP sockets' buffers together, in pages.
    BufferPages,
    /// One direct descriptor an agent, with room for strangers.
    Descriptors,
    /// Not at all.
    Fixed,
    /// Every shard's rings.
    LockedMemory,
    /// Only if events go to the queue socket.
    QueueSink,
    /// What arrives at a shard while it stalls.
    Rate,
    /// `listen.receive_buffer_bytes`, as the kernel grants it.
    ReceiveBuffer,
    /// `listen.receive_buffer_bytes`, as the kernel is asked for it.
    ReceiveBufferAsked,
}

/// What it means that a kernel has no such knob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Absence {
    /// That it is as wanted.
    Fine,
    /// That it can't be read from here: a container shows only a part of /proc/sys.
    Hidden,
}

/// Memory that one queued message of 250 bytes takes of a receive buffer.
pub(super) const QUEUED_DATAGRAM_BYTES: u64 = 1_290;

/// A shard that is held up for so long must not lose datagrams: other work on its core, a page fault, a slow disk.
pub(super) const STALL_MILLISECONDS: u64 = 100;

/// Each page counts in `net.ipv4.udp_mem`.
pub(super) const PAGE_BYTES: u64 = 4_096;

/// Locked memory of a shard's ring without its buffer rings: 65,536 completions of 16 bytes, 1,024 submissions of 64, and some.
/// Linux 6.18 needed 1.0 to 1.25 MiB for one shard of default settings, 2.0 to 2.25 MiB for two.
pub(super) const RING_LOCKED_BYTES: u64 = 1_200 << 10;

/// One buffer's place in a buffer ring.
pub(super) const BUFFER_LOCKED_BYTES: u64 = 16;

/// `listen.receive_buffer_bytes` by default; the kernel is asked for half of it, which it doubles.
const RECEIVE_BUFFER_BYTES: u64 = 32 << 20;

/// The table, in the order of a message's way through the host.
pub const KNOBS: [Knob; 16] = [
    Knob {
        name: "io_uring",
        place: Place::Ring,
        want: Want::Word("works"),
        scale: Scale::Fixed,
        absence: Absence::Hidden,
        why: "every shard is a ring: without io_uring nothing runs",
    },
    Knob {
        name: "kernel.io_uring_disabled",
        place: Place::Sysctl { number: 0 },
        want: Want::AtMost(0),
        scale: Scale::Fixed,
        // It came with kernel 6.6.
        absence: Absence::Fine,
        why: "2 forbids all rings; 1 leaves them to root and to kernel.io_uring_group",
    },
    Knob {
        name: "cpu governor",
        place: Place::Governor,
        want: Want::Word("performance"),
        scale: Scale::Fixed,
        // A guest has none: its host decides.
        absence: Absence::Fine,
        why: "a shard that sleeps between batches is clocked down, and its next batch is late",
    },
    Knob {
        name: "net.core.netdev_max_backlog",
        place: Place::Sysctl { number: 0 },
        want: Want::AtLeast(16_384),
        scale: Scale::Fixed,
        absence: Absence::Hidden,
        why: "packets that wait for a core's softirq (RPS, veth, loopback); beyond it they are dropped unseen by any socket",
    },
    Knob {
        name: "net.core.busy_read",
        place: Place::Sysctl { number: 0 },
        want: Want::AtMost(0),
        scale: Scale::Fixed,
        absence: Absence::Hidden,
        why: "a ring does not spin for the card by it; it only makes other programs' sockets spin on the shards' cores",
    },
    Knob {
        name: "listen.receive_buffer_bytes",
        place: Place::Setting,
        want: Want::AtLeast(RECEIVE_BUFFER_BYTES),
        scale: Scale::Rate,
        absence: Absence::Hidden,
        why: "holds what UDP agents send while a shard is held up for 100 ms, at 1,290 bytes a message",
    },
    Knob {
        name: "net.core.rmem_max",
        place: Place::Sysctl { number: 0 },
        want: Want::AtLeast(RECEIVE_BUFFER_BYTES / 2),
        scale: Scale::ReceiveBufferAsked,
        absence: Absence::Hidden,
        why: "caps each UDP socket's buffer at twice itself; the default holds 330 messages, 3 ms at 100,000/s",
    },
    Knob {
        name: "SO_RCVBUF",
        place: Place::ReceiveBuffer,
        want: Want::AtLeast(RECEIVE_BUFFER_BYTES),
        scale: Scale::ReceiveBuffer,
        absence: Absence::Hidden,
        why: "what the kernel grants a UDP socket of this user: with CAP_NET_ADMIN all that is asked, else up to rmem_max",
    },
    Knob {
        name: "net.ipv4.udp_mem",
        place: Place::Sysctl { number: 2 },
        want: Want::AtLeast(RECEIVE_BUFFER_BYTES / PAGE_BYTES),
        scale: Scale::BufferPages,
        absence: Absence::Hidden,
        why: "pages (its third number) that all UDP sockets may fill together: the shards' buffers must fit",
    },
    Knob {
        name: "net.core.somaxconn",
        place: Place::Sysctl { number: 0 },
        want: Want::AtLeast(4_096),
        scale: Scale::Backlog,
        absence: Absence::Hidden,
        why: "caps listen.backlog: agents that come back all at once beyond it retry after 1, 3 and 7 s",
    },
    Knob {
        name: "net.ipv4.tcp_max_syn_backlog",
        place: Place::Sysctl { number: 0 },
        want: Want::AtLeast(4_096),
        scale: Scale::Backlog,
        absence: Absence::Hidden,
        why: "half-open connections where SYN cookies are off; with them only whom it keeps options for",
    },
    Knob {
        name: "net.ipv4.tcp_migrate_req",
        place: Place::Sysctl { number: 0 },
        want: Want::AtMost(0),
        scale: Scale::Fixed,
        // It came with kernel 5.14.
        absence: Absence::Fine,
        why: "all shards stop together, so there is nobody to migrate to, and some kernels do not wake the one that gets them",
    },
    Knob {
        name: "RLIMIT_NOFILE",
        place: Place::Descriptors,
        want: Want::AtLeast(65_536),
        scale: Scale::Descriptors,
        absence: Absence::Hidden,
        why: "a ring's table holds as many connections; for more a shard opens spare rings, each one more system call a turn",
    },
    Knob {
        name: "RLIMIT_MEMLOCK",
        place: Place::LockedMemory,
        want: Want::AtLeast(256 << 20),
        scale: Scale::LockedMemory,
        absence: Absence::Hidden,
        why: "rings are locked memory, 1.2 MiB a shard: without CAP_IPC_LOCK newer kernels make none beyond it (6.18 measured)",
    },
    Knob {
        name: "net.unix.max_dgram_qlen",
        place: Place::Sysctl { number: 0 },
        want: Want::AtLeast(512),
        scale: Scale::QueueSink,
        absence: Absence::Hidden,
        why: "datagrams that analysisd's socket holds, if raised before it binds; at 10 every eleventh event waits for the reader",
    },
    Knob {
        name: "net.core.wmem_max",
        place: Place::Sysctl { number: 0 },
        want: Want::AtLeast(QUEUE_SEND_BUFFER_BYTES as u64),
        scale: Scale::QueueSink,
        absence: Absence::Hidden,
        why: "caps the queue socket's send buffer: below it the buffer stalls the writer before max_dgram_qlen does",
    },
];
