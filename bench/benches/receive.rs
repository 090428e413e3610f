//! `uring/receive/<protocol>/<bytes>`: what it costs to get messages out of the kernel, the way a shard does it.
//!
//! The time is the processor time of the receiving thread. A generator on the other core fills the sockets first, so that
//! the receiver is at its limit: there is always something to take. What the kernel does before a message is in the
//! socket's queue is not in it: on loopback the sender pays for that, on a network card the core of its interrupts does.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bench::{bench_with, cores_apart, events_of, fleet_size, fleet_table, thread_time};
use codec::{Method, frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uring::sockets::{UdpSettings, pin_thread, receive_buffer_bytes, udp_socket};
use uring::{
    Armed, BufferSettings, DATAGRAM_HEADER_BYTES, DirectSlot, DirectSlots, Errno, GroupId, Op, Ring,
    RingSettings, Tag, Wait, completions_needed,
};

/// Connections, each of which has one segment waiting in each round.
const CONNECTIONS: usize = 256;
/// Datagrams of a round, if the receive buffer holds so many.
const DATAGRAMS_MAX: usize = 2_048;
/// Of the receive buffer, for each waiting datagram: twice what the kernel takes, to be on the safe side.
const DATAGRAM_MEMORY_BYTES: usize = 2 * 1_290;
const BUFFERS: u16 = 1_024;
const DATAGRAM_BUFFER_BYTES: u32 = 65_536 + 128;
const STREAM_BUFFER_BYTES: u32 = 16 * 1024;
const RECEIVE: u8 = 1;

criterion_group!(name = benches; config = bench::criterion(); targets = udp, tcp);
criterion_main!(benches);

/// `udp/<bytes>`.
fn udp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uring/receive/udp");
    for text_bytes in [200, 600] {
        let settings =
            UdpSettings { address: ([127, 0, 0, 1], 0).into(), shared: false, receive_buffer_bytes: 8 << 20 };
        let socket = udp_socket(&settings).expect("loopback has a free port");
        let room = receive_buffer_bytes(&socket).expect("the socket has a receive buffer");
        let datagrams = (room / DATAGRAM_MEMORY_BYTES).clamp(16, DATAGRAMS_MAX);
        group.throughput(Throughput::Elements(datagrams as u64));
        let make = || Datagrams::new(socket, datagrams, text_bytes);
        bench_with(&mut group, text_bytes.to_string(), make, |bencher, fixture| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| fixture.timed_round()).sum());
        });
    }
}

/// `tcp-<frames>-a-segment/<bytes>`.
fn tcp(criterion: &mut Criterion) {
    for frames in [1, 4, 16, 64] {
        let mut group = criterion.benchmark_group(format!("uring/receive/tcp-{frames}-a-segment"));
        group.throughput(Throughput::Elements((CONNECTIONS * frames) as u64));
        for text_bytes in [200, 600] {
            let make = || Streams::new(frames, text_bytes);
            bench_with(&mut group, text_bytes.to_string(), make, |bencher, fixture| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| fixture.timed_round()).sum());
            });
        }
    }
}

struct Datagrams {
    receiving: Receiving,
    feeder: Feeder,
    datagrams: usize,
}

impl Datagrams {
    fn new(socket: UdpSocket, datagrams: usize, text_bytes: usize) -> Datagrams {
        let to = socket.local_addr().expect("the socket is bound");
        let mut receiving = Receiving::new(1, DATAGRAM_HEADER_BYTES + DATAGRAM_BUFFER_BYTES);
        let slot = receiving.install(socket);
        receiving.arm(Op::ReceiveDatagrams { socket: slot.into(), group: receiving.group }, slot);
        let feeder = Feeder::new(move || {
            let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
            socket.connect(to).expect("loopback is there");
            let mut messages = events(text_bytes, 1).into_iter().map(|(_, message)| message).cycle();
            move || {
                for message in messages.by_ref().take(datagrams) {
                    socket.send(&message).expect("the receiver is there");
                }
            }
        });
        Datagrams { receiving, feeder, datagrams }
    }

    fn timed_round(&mut self) -> Duration {
        self.feeder.feed();
        let start = thread_time();
        let mut left = self.datagrams;
        while left > 0 {
            left -= self.receiving.turn().leases;
        }
        thread_time() - start
    }
}

struct Streams {
    receiving: Receiving,
    feeder: Feeder,
    round_bytes: u64,
}

impl Streams {
    fn new(frames: usize, text_bytes: usize) -> Streams {
        uring::sockets::set_nofile_to_hard();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        let to = listener.local_addr().expect("the listener is bound");
        let mut receiving = Receiving::new(CONNECTIONS as u32, STREAM_BUFFER_BYTES);
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            let sender = TcpStream::connect(to).expect("the listener is there");
            sender.set_nodelay(true).expect("it is a TCP socket");
            senders.push(sender);
            let (stream, _) = listener.accept().expect("somebody has connected");
            let slot = receiving.install(stream);
            receiving.arm(Op::ReceiveStream { socket: slot.into(), group: receiving.group }, slot);
        }
        let mut segment = Vec::new();
        events(text_bytes, frames)[..frames].iter().for_each(|(_, message)| frame(message, &mut segment));
        let round_bytes = (CONNECTIONS * segment.len()) as u64;
        let feeder = Feeder::new(move || {
            move || {
                for sender in &mut senders {
                    sender.write_all(&segment).expect("the receiver is there");
                }
            }
        });
        Streams { receiving, feeder, round_bytes }
    }

    fn timed_round(&mut self) -> Duration {
        self.feeder.feed();
        let start = thread_time();
        let mut left = self.round_bytes;
        while left > 0 {
            left -= self.receiving.turn().bytes;
        }
        thread_time() - start
    }
}

/// Sealed messages, and whose they are. What is in them makes no difference to the kernel.
fn events(text_bytes: usize, burst: usize) -> Vec<(u32, Vec<u8>)> {
    let table = fleet_table(fleet_size(1_000), Method::AesOssec);
    events_of(&table, Method::AesOssec, text_bytes, burst)
}

/// A ring that receives into one group of buffers.
struct Receiving {
    ring: Ring,
    slots: DirectSlots,
    group: GroupId,
    is_datagrams: bool,
}

/// What one turn brought.
#[derive(Default)]
struct Taken {
    leases: usize,
    bytes: u64,
}

impl Receiving {
    fn new(slots: u32, buffer_bytes: u32) -> Receiving {
        if let Some((measured, _)) = cores_apart() {
            pin_thread(measured).expect("the core is allowed");
        }
        let mut ring = Ring::new(&RingSettings {
            submissions: 512,
            completions: completions_needed(u32::from(BUFFERS), slots),
            direct_descriptors: slots,
        })
        .expect("the host has io_uring");
        let group = ring.add_buffers(BufferSettings { count: BUFFERS, bytes_each: buffer_bytes });
        let group = group.expect("the host has memory");
        let is_datagrams = buffer_bytes > STREAM_BUFFER_BYTES;
        Receiving { ring, slots: DirectSlots::new(slots), group, is_datagrams }
    }

    fn install(&mut self, socket: impl Into<std::os::fd::OwnedFd>) -> DirectSlot {
        let slot = self.slots.allocate().expect("there is a slot for each socket");
        self.ring.install(slot, socket).expect("the table has the slot");
        slot
    }

    fn arm(&mut self, op: Op, slot: DirectSlot) {
        self.ring.push(op, self.slots.tag(RECEIVE, slot));
    }

    /// Waits as a busy shard does, looks at each message's first byte, and gives the buffers back.
    fn turn(&mut self) -> Taken {
        let wait = Wait {
            completions_min: 64,
            min_wait: Some(Duration::from_micros(50)),
            timeout: Some(Duration::from_secs(5)),
        };
        self.ring.wait(wait).expect("the kernel waits");
        let mut taken = Taken::default();
        while let Some(completion) = self.ring.pop() {
            if let Some(lease) = completion.lease {
                taken.leases += 1;
                taken.bytes += u64::from(lease.length());
                if self.is_datagrams {
                    let datagram = self.ring.datagram(&lease).expect("it is a datagram");
                    std::hint::black_box(datagram.payload[0]);
                } else {
                    std::hint::black_box(self.ring.bytes(&lease)[0]);
                }
                self.ring.give_back(lease);
            }
            if completion.armed == Armed::No {
                match completion.result {
                    Err(Errno::NOBUFS) => self.ring.starve(self.group, completion.tag),
                    Ok(_) | Err(_) => self.arm_again(completion.tag),
                }
            }
        }
        while let Some(tag) = self.ring.next_fed(self.group) {
            self.arm_again(tag);
        }
        taken
    }

    fn arm_again(&mut self, tag: Tag) {
        let slot = self.slots.tenant(tag).expect("no socket is closed");
        let (socket, group) = (slot.into(), self.group);
        let op = if self.is_datagrams {
            Op::ReceiveDatagrams { socket, group }
        } else {
            Op::ReceiveStream { socket, group }
        };
        self.ring.push(op, tag);
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.ring.drain(Duration::from_secs(5)).expect("receives can be cancelled");
    }
}

/// A thread on the other core that sends a round whenever it is told to.
struct Feeder {
    go: Option<Sender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    /// `make` makes, on the feeder's thread, what sends one round.
    fn new<Round: FnMut()>(make: impl FnOnce() -> Round + Send + 'static) -> Feeder {
        let (go, told) = channel::<()>();
        let (tell, done) = channel();
        let thread = std::thread::spawn(move || {
            if let Some((_, feeding)) = cores_apart() {
                pin_thread(feeding).expect("the core is allowed");
            }
            let mut send = make();
            while told.recv().is_ok() {
                send();
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Feeder { go: Some(go), done, thread: Some(thread) }
    }

    /// Has a round sent, and waits until it is in the sockets.
    fn feed(&mut self) {
        let go = self.go.as_ref().expect("the feeder was not ended");
        go.send(()).expect("the feeder is there");
        self.done.recv().expect("the feeder is there");
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the feeder does not panic");
        }
    }
}
