//! What a message costs beside the work on it: after warm-up no memory, and only a share of a system call.
//!
//! The test turns the shard itself, on its own thread, so that what waits in the sockets before a turn is known, and what
//! is counted is the shard's. Real sockets on loopback; nothing here measures time.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use allocation_counter::measure;
use arc_swap::ArcSwap;
use codec::{AgentId, Counter, Envelope, KeyFile, Method, Sealer};
use manager::{AgentTable, CounterSeed, SenderCounter, ShardId};

use super::{Shard, ShardSpec};
use crate::clock::Clock;
use crate::listen;
use crate::mail::mailboxes;
use crate::metrics::SinkKind;
use crate::settings::Settings;

const AGENTS: usize = 8;

/// Messages that wait before the first turn of a round.
const WAITING: usize = 256;
const WARM_UP_ROUNDS: usize = 4;
const ROUNDS: usize = 12;

/// Memory that has yet to see its largest batch may grow once more, however many messages there are.
const GROWTH_MAX: u64 = 16;

/// What the shard used for the rounds after the warm-up.
#[derive(Debug, Default)]
struct Used {
    events: u64,
    allocations: u64,
    enters: u64,
    sink_calls: u64,
    turns: u64,
}

#[test]
fn datagrams_into_the_queue_socket() {
    let mut bed = Bed::new(Sink::Queue);
    let sockets: Vec<UdpSocket> = (0..AGENTS).map(|_| bed.udp()).collect();
    let used =
        bed.rounds(|number, message| assert_eq!(sockets[number].send(message).unwrap(), message.len()));
    bed.finish();
    assert!(used.allocations <= GROWTH_MAX, "{used:?}");
    // So many datagrams does the kernel keep for a reader that reads between turns only.
    let kept = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let kept = kept.trim().parse::<u64>().unwrap() + 1;
    // A call takes as many as it can carry and the reader has room for; one more may tell that there is none.
    let calls_max = 2 * used.events.div_ceil(kept.min(16)) + used.turns;
    assert!(used.sink_calls <= calls_max, "at most {calls_max}: {used:?}");
    // Turns for what the reader has no room for yet, and some for each round.
    let enters_max = 2 * used.events.div_ceil(kept) + 8 * ROUNDS as u64;
    assert!(used.enters <= enters_max, "at most {enters_max}: {used:?}");
}

#[test]
fn frames_into_the_archive() {
    let mut bed = Bed::new(Sink::Archive);
    let mut streams: Vec<TcpStream> = (0..AGENTS).map(|_| bed.tcp()).collect();
    let used = bed.rounds(|number, message| {
        let mut frame = Vec::new();
        codec::frame(message, &mut frame);
        streams[number].write_all(&frame).unwrap();
    });
    bed.finish();
    // A block of many events leaves as a whole, and a new one takes its place.
    assert!(used.allocations < used.events / 8, "{used:?}");
    assert!(used.sink_calls < used.events / 8, "{used:?}");
    assert!(used.enters < used.events / 8, "{used:?}");
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sink {
    Archive,
    Queue,
}

/// A shard that the test turns, its reader, and its agents.
pub(super) struct Bed {
    _folder: tempfile::TempDir,
    pub(super) shard: Shard,
    address: SocketAddr,
    reader: Option<UnixDatagram>,
    sink: SinkKind,
    table: Arc<AgentTable>,
    sealer: Sealer,
    counter: Counter,
}

impl Bed {
    pub(super) fn new(sink: Sink) -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::with_home(folder.path());
        settings.listen.addresses = vec!["127.0.0.1:0".parse().unwrap()];
        settings.shards.connections_max = 100;
        settings.shards.datagram_buffers = 2 * WAITING as u16;
        settings.sink.queue.enabled = sink == Sink::Queue;
        settings.sink.archives.text = sink == Sink::Archive;
        std::fs::create_dir_all(folder.path().join("queue/ossec")).unwrap();
        std::fs::create_dir_all(folder.path().join("logs/archives")).unwrap();
        let reader = (sink == Sink::Queue).then(|| {
            let reader = UnixDatagram::bind(settings.queue_path()).unwrap();
            reader.set_nonblocking(true).unwrap();
            reader
        });
        let lines: String =
            (1..=AGENTS).map(|number| format!("{number:03} agent{number} any key\n")).collect();
        let entries = KeyFile::parse(lines.as_bytes()).entries;
        let table = Arc::new(AgentTable::build(entries, None, &CounterSeed::new()));
        let mut bound = listen::bind(&settings, 1).unwrap();
        let address = bound.addresses()[0];
        let (mailer, mail) = mailboxes(1).unwrap().remove(0);
        let spec = ShardSpec {
            id: ShardId(0),
            core: None,
            listeners: bound.shards.remove(0),
            settings: Arc::new(settings),
            clock: Clock::start(),
            table: Arc::new(ArcSwap::new(Arc::clone(&table))),
            senders: Arc::new(SenderCounter::new(Counter::ZERO)),
            delivery: None,
            metrics: Arc::default(),
            mail,
            mailers: vec![mailer],
            notices: super::notices().unwrap().0,
        };
        let shard = Shard::start(spec).unwrap();
        let sink = if sink == Sink::Queue { SinkKind::Queue } else { SinkKind::ArchiveText };
        let (sealer, counter) = (Sealer::new(), Counter::ZERO);
        Bed { _folder: folder, shard, address, reader, sink, table, sealer, counter }
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket
    }

    pub(super) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Has agents `send` a round of events, then turns the shard until all are handed over; and again.
    fn rounds(&mut self, mut send: impl FnMut(usize, &[u8])) -> Used {
        let mut warm = Used::default();
        let mut used = Used::default();
        for round in 0..WARM_UP_ROUNDS + ROUNDS {
            for sequence in 0..WAITING {
                let number = sequence % AGENTS;
                let message = self.event(number);
                send(number, &message);
            }
            let warm_up = round < WARM_UP_ROUNDS;
            self.hand_over((round + 1) * WAITING, if warm_up { &mut warm } else { &mut used });
            if warm_up {
                warm = self.counted(warm.allocations);
            }
        }
        let all = self.counted(used.allocations);
        Used {
            events: all.events - warm.events,
            allocations: used.allocations,
            enters: all.enters - warm.enters,
            sink_calls: all.sink_calls - warm.sink_calls,
            turns: all.turns - warm.turns,
        }
    }

    /// Ends what the shard has with the kernel.
    pub(super) fn finish(self) {
        self.shard.finish().unwrap();
    }

    fn hand_over(&mut self, delivered: usize, used: &mut Used) {
        while self.shard.metrics.sink(self.sink).delivered.read() < delivered as u64 {
            let mut turned = Ok(());
            used.allocations += measure(|| turned = self.shard.turn()).count_total;
            turned.unwrap();
            let mut datagram = [0; 1_024];
            while self.reader.as_ref().is_some_and(|reader| reader.recv(&mut datagram).is_ok()) {}
        }
    }

    /// What the shard says of itself.
    fn counted(&self, allocations: u64) -> Used {
        let metrics = &self.shard.metrics;
        Used {
            events: metrics.events.read(),
            allocations,
            enters: metrics.enters.read(),
            sink_calls: metrics.sink(self.sink).calls.read(),
            turns: metrics.turns.read(),
        }
    }

    /// A new event of an agent, sealed.
    pub(super) fn event(&mut self, number: usize) -> Vec<u8> {
        let id = self.table.agents()[number].id();
        let text = format!("1:/var/log/messages:event {} of agent {id}", self.counter.next());
        self.message(number, text.as_bytes())
    }

    /// What an agent says, sealed.
    pub(super) fn message(&mut self, number: usize, text: &[u8]) -> Vec<u8> {
        self.counter = self.counter.next();
        let agent = &self.table.agents()[number];
        let id: AgentId = agent.id();
        let envelope = Envelope {
            id_prefix: Some(id),
            method: [Method::Blowfish, Method::AesOssec, Method::AesWazuh][number % 3],
            random: 7,
            counter: self.counter,
            initialization_vector: [3; 16],
            text,
        };
        let mut message = Vec::new();
        self.sealer.seal(agent.cipher_key(), &envelope, &mut message).unwrap();
        message
    }
}
