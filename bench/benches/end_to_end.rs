//! `daemon/end-to-end/<protocol>-<events>-a-segment-<cipher>-<sink>/<bytes>`: a whole shard with real sockets on loopback,
//! from the socket to the sink, 1,000 agents.
//!
//! The time is the processor time, user's and system's, of the shard's thread. A generator on the other core keeps a fixed
//! number of events on their way, so that the shard is at its limit and loses nothing.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

mod bed;

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bed::{Bed, Sink, bed};
use bench::{bench_with, cores_apart, events_of, fleet_size, fleet_table, thread_time};
use codec::{Method, frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemon::shard::HandTurnedShard;
use uring::sockets::pin_thread;

/// Events of one iteration.
const ROUND_EVENTS: u64 = 1_024;
/// Events on their way at the most: what fits into the receive buffer of a host that grants little, and more on others.
const AHEAD_EVENTS: u64 = 1_024;
/// Events in the shard's sink at the most.
const HELD_EVENTS_MAX: u64 = 8_192;
const AGENTS: usize = 1_000;
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

criterion_group!(name = benches; config = bench::criterion(); targets = end_to_end);
criterion_main!(benches);

fn end_to_end(criterion: &mut Criterion) {
    for (cipher, method) in [("blowfish", Method::Blowfish), ("aes", Method::AesOssec)] {
        for protocol in ["udp", "tcp"] {
            for segment in [1, 16] {
                for sink in [Sink::Queue, Sink::Archive] {
                    let sink_name = sink.name();
                    let name =
                        format!("daemon/end-to-end/{protocol}-{segment}-a-segment-{cipher}-{sink_name}");
                    let mut group = criterion.benchmark_group(name);
                    group.throughput(Throughput::Elements(ROUND_EVENTS));
                    let make = || Run::new(protocol == "tcp", segment, method, sink);
                    bench_with(&mut group, "200", make, |bencher, run| {
                        bencher.iter_custom(|rounds| run.timed(rounds * ROUND_EVENTS));
                    });
                    group.finish();
                }
            }
        }
    }
}

/// A shard of this thread, and who feeds and reads it on the other core.
struct Run {
    shard: Option<HandTurnedShard>,
    bed: Bed,
    generator: Generator,
    reader: Option<Reader>,
}

impl Run {
    fn new(is_tcp: bool, segment: usize, method: Method, sink: Sink) -> Run {
        let table = fleet_table(fleet_size(AGENTS), method);
        let (bed, mut spec) = bed(&table, sink);
        let reader = (sink == Sink::Queue).then(|| Reader::new(&spec.settings.queue_path()));
        spec.core = cores_apart().map(|(measured, _)| measured);
        let to = spec.listeners[0].address;
        let segments: Vec<(u32, Vec<u8>)> = events_of(&table, method, 200, segment)
            .chunks(segment)
            .flat_map(|events| if is_tcp { vec![framed(events)] } else { events.to_vec() })
            .collect();
        let shard = HandTurnedShard::start(spec).expect("the host has io_uring");
        let events_each = if is_tcp { segment as u64 } else { 1 };
        let agents = if is_tcp { table.agents().len() } else { 0 };
        let generator = Generator::new(to, segments, events_each, agents);
        Run { shard: Some(shard), bed, generator, reader }
    }

    /// The processor time of the shard for `events` more events.
    fn timed(&mut self, events: u64) -> Duration {
        let shard = self.shard.as_mut().expect("the shard is not finished");
        let allowed = &self.generator.allowed;
        let (start, begun) = (self.bed.metrics.events.read(), Instant::now());
        let end = start + events;
        let before = thread_time();
        loop {
            let done = self.bed.metrics.events.read();
            if done >= end {
                break;
            }
            // A datagram that finds the sink full would be dropped: the reader sets the pace.
            if self.bed.held() < HELD_EVENTS_MAX {
                allowed.store((done + AHEAD_EVENTS).min(end), Ordering::Release);
            }
            shard.turn().expect("the kernel waits");
            assert!(begun.elapsed() < PATIENCE || done > start, "nothing arrives");
        }
        let time = thread_time() - before;
        assert_eq!(self.bed.metrics.dropped.sum(), 0, "nothing is lost");
        self.bed.empty_archive();
        time
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.generator.end();
        if let Some(shard) = self.shard.take() {
            shard.finish().expect("what is in flight can be ended");
        }
        if let Some(reader) = &mut self.reader {
            reader.end();
        }
    }
}

fn framed(events: &[(u32, Vec<u8>)]) -> (u32, Vec<u8>) {
    let mut bytes = Vec::new();
    events.iter().for_each(|(_, message)| frame(message, &mut bytes));
    (events[0].0, bytes)
}

/// Sends up to as many events as are allowed, in whole segments.
struct Generator {
    allowed: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// Over TCP with one connection for each of `connections` agents; over UDP if there are none.
    fn new(to: SocketAddr, segments: Vec<(u32, Vec<u8>)>, events_each: u64, connections: usize) -> Generator {
        let allowed = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (may, over) = (Arc::clone(&allowed), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            if let Some((_, feeding)) = cores_apart() {
                pin_thread(feeding).expect("the core is allowed");
            }
            let mut send = sender(to, connections);
            let (mut sent, mut segments) = (0, segments.iter().cycle());
            while !over.load(Ordering::Acquire) {
                if sent + events_each > may.load(Ordering::Acquire) {
                    std::thread::yield_now();
                    continue;
                }
                let (agent, bytes) = segments.next().expect("a cycle has no end");
                send(*agent, bytes);
                sent += events_each;
            }
        });
        Generator { allowed, ended, thread: Some(thread) }
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the generator does not panic");
        }
    }
}

/// Sends a segment of an agent.
type SendSegment = dyn FnMut(u32, &[u8]);

fn sender(to: SocketAddr, connections: usize) -> Box<SendSegment> {
    if connections == 0 {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        socket.connect(to).expect("loopback is there");
        return Box::new(move |_, bytes| {
            socket.send(bytes).expect("the shard is there");
        });
    }
    let mut streams: Vec<Option<TcpStream>> = (0..connections).map(|_| None).collect();
    Box::new(move |agent, bytes| {
        // Connected when it first has something to say, since a shard gives a silent connection little time.
        let stream = streams[agent as usize].get_or_insert_with(|| {
            let stream = TcpStream::connect(to).expect("the shard listens");
            stream.set_nodelay(true).expect("it is a TCP socket");
            stream
        });
        stream.write_all(bytes).expect("the shard is there");
    })
}

/// Reads the queue socket as analysisd does, one datagram a call.
struct Reader {
    path: std::path::PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    const END: &[u8] = b"end";

    fn new(path: &std::path::Path) -> Reader {
        let socket = UnixDatagram::bind(path).expect("the folder is there");
        let thread = std::thread::spawn(move || {
            if let Some((_, feeding)) = cores_apart() {
                pin_thread(feeding).expect("the core is allowed");
            }
            let mut buffer = [0; 65_536];
            while let Ok(length) = socket.recv(&mut buffer) {
                if &buffer[..length] == Reader::END {
                    return;
                }
            }
        });
        Reader { path: path.to_owned(), thread: Some(thread) }
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let ending = UnixDatagram::unbound().expect("a socket can be made");
        ending.send_to(Reader::END, &self.path).expect("the reader is there");
        thread.join().expect("the reader does not panic");
    }
}
