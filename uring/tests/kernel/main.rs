//! The ring on this host's kernel: one test for each pitfall of io_uring that the crate encodes away.

#![expect(clippy::unwrap_used, reason = "tests")]

mod chain;
mod closing;
mod connections;
mod datagrams;
mod host;
mod memory;
mod probing;
mod queues;
mod several;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use uring::sockets::{UdpSettings, udp_socket};
use uring::{
    BufferSettings, Completion, DirectSlot, DirectSlots, GroupId, Lease, Ring, RingSettings, Tag, Wait,
};

/// No wait of a test takes this long on a machine that works.
const LONG: Duration = Duration::from_secs(20);

/// Kinds of the tests' operations.
const RECEIVE: u8 = 1;
const SEND: u8 = 2;
const CANCEL: u8 = 3;
const CLOSE: u8 = 4;
const ACCEPT: u8 = 5;
const POLL: u8 = 6;
const OTHER: u8 = 7;

/// A ring, the book of its table, and at most one group of buffers.
struct Bed {
    ring: Ring,
    slots: DirectSlots,
    group: Option<GroupId>,
    count: u16,
    leases: Vec<Lease>,
}

impl Bed {
    /// A ring with a table of `slots`.
    fn new(slots: u32) -> Bed {
        Bed::sized(&RingSettings { submissions: 64, completions: 1024, direct_descriptors: slots })
    }

    fn sized(settings: &RingSettings) -> Bed {
        Bed {
            ring: Ring::new(settings).unwrap(),
            slots: DirectSlots::new(settings.direct_descriptors),
            group: None,
            count: 0,
            leases: Vec::new(),
        }
    }

    fn with_buffers(mut self, count: u16, bytes_each: u32) -> Bed {
        self.group = Some(self.ring.add_buffers(BufferSettings { count, bytes_each }).unwrap());
        self.count = count;
        self
    }

    fn group(&self) -> GroupId {
        self.group.unwrap()
    }

    /// Puts a socket into a slot.
    fn install(&mut self, socket: impl Into<OwnedFd>) -> DirectSlot {
        let slot = self.slots.allocate().unwrap();
        self.ring.install(slot, socket).unwrap();
        slot
    }

    fn tag(&self, kind: u8, slot: DirectSlot) -> Tag {
        self.slots.tag(kind, slot)
    }

    /// The next completion, waiting for it; its lease, if any, stays in it.
    fn next(&mut self) -> Completion {
        if let Some(completion) = self.ring.pop() {
            return completion;
        }
        self.ring.wait(Wait { completions_min: 1, min_wait: None, timeout: Some(LONG) }).unwrap();
        self.ring.pop().expect("a completion comes")
    }

    /// The next `count` completions.
    fn take(&mut self, count: usize) -> Vec<Completion> {
        (0..count).map(|_| self.next()).collect()
    }

    /// What has completed by now, without waiting.
    fn poll(&mut self) -> Option<Completion> {
        self.ring.wait(Wait::default()).unwrap();
        self.ring.pop()
    }

    fn give_back_all(&mut self) {
        for lease in std::mem::take(&mut self.leases) {
            self.ring.give_back(lease);
        }
    }

    /// Drains the ring. Every buffer must be with the kernel, but for those in `leases`.
    fn finish(mut self) {
        self.ring.drain(LONG).unwrap();
        if let Some(group) = self.group {
            assert_eq!(usize::from(self.ring.available(group)) + self.leases.len(), usize::from(self.count));
        }
        assert_eq!((self.ring.in_flight(), self.ring.stale(), self.ring.lost()), (0, 0, 0));
    }
}

/// A UDP socket of ours on `address`, with its port.
fn udp(address: &str) -> (UdpSocket, SocketAddr) {
    let address = address.parse().unwrap();
    let socket = udp_socket(&UdpSettings { address, shared: false, receive_buffer_bytes: 1 << 20 }).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A peer's socket that sends to `to`.
fn sender(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// `Ring` is of one thread: this compiles only as long as it is not `Send`, for else `of` would have two meanings.
const _: fn() = || {
    trait AmbiguousIfSend<Which> {
        fn of() {}
    }
    impl<T: ?Sized> AmbiguousIfSend<()> for T {}
    struct Send_;
    impl<T: ?Sized + Send> AmbiguousIfSend<Send_> for T {}
    let _ = <Ring as AmbiguousIfSend<_>>::of;
};
