//! After warm-up a turn allocates nothing: neither for a completion nor for an operation that keeps memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use uring::{BufferSettings, DATAGRAM_HEADER_BYTES, DirectSlots, Op, Ring, RingSettings, SendMode, Wait};

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: each call is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RECEIVE: u8 = 1;
const SEND: u8 = 2;

#[test]
fn a_turn_allocates_nothing() {
    let settings = RingSettings { submissions: 64, completions: 512, direct_descriptors: 1 };
    let mut ring = Ring::new(&settings).unwrap();
    let mut slots = DirectSlots::new(1);
    let buffers = BufferSettings { count: 64, bytes_each: DATAGRAM_HEADER_BYTES + 64 };
    let group = ring.add_buffers(buffers).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(socket.local_addr().unwrap()).unwrap();
    let slot = slots.allocate().unwrap();
    ring.install(slot, socket).unwrap();
    ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, slots.tag(RECEIVE, slot));

    let (mut received, mut answered, mut at_warm_up, mut answer) = (0, 0, 0, [0; 8]);
    while answered < 2_000 {
        if answered == 1_000 {
            at_warm_up = ALLOCATIONS.load(Ordering::Relaxed);
        }
        peer.send(b"ping").unwrap();
        let (expected_received, expected_answered) = (received + 1, answered + 1);
        while (received, answered) != (expected_received, expected_answered) {
            ring.wait(Wait { completions_min: 1, min_wait: None, timeout: Some(Duration::from_secs(20)) })
                .unwrap();
            while let Some(completion) = ring.pop() {
                assert!(completion.result.is_ok());
                if completion.tag.kind() == SEND {
                    answered += 1;
                }
                if let Some(lease) = completion.lease {
                    received += 1;
                    let to = ring.datagram(&lease).unwrap().from;
                    ring.give_back(lease);
                    let bytes = Bytes::from_static(b"pong");
                    let op = Op::SendTo { socket: slot.into(), to, bytes, mode: SendMode::Waiting };
                    ring.push(op, slots.tag(SEND, slot));
                }
            }
        }
        peer.recv(&mut answer).unwrap();
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - at_warm_up, 0, "in 1,000 turns");
    ring.drain(Duration::from_secs(20)).unwrap();
}
