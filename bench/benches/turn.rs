//! `daemon/turn/<protocol>-<events>-a-segment-<cipher>-<agents>-agents/<bytes>`: a shard's whole turn but for the kernel:
//! 64 events from filled buffers through look-up, decode, decision and form into the archive's block, which is dropped.
//!
//! A script stands in the kernel's place, so there is no system call in it. The time is processor time, as it is of what the
//! kernel does (`receive`, `sinks`): they are to be added up. Events a segment are frames of one TCP segment,
//! or datagrams of one agent after one another.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

mod bed;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, Sink, bed};
use bench::{bench_with, events_of, fleet_size, fleet_table, thread_time};
use codec::{Method, frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemon::shard::ScriptedShard;
use manager::{AgentTable, ConnectionId};

/// Events of one turn: what a shard waits for under load.
const TURN_EVENTS: usize = 64;
/// What the kernel puts into one of a stream's buffers.
const STREAM_BUFFER_BYTES: usize = 16 * 1024;
const METHODS: [(&str, Method); 2] = [("blowfish", Method::Blowfish), ("aes", Method::AesOssec)];
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);

criterion_group!(name = benches; config = bench::criterion(); targets = turns);
criterion_main!(benches);

fn turns(criterion: &mut Criterion) {
    let tables = Tables::default();
    for (cipher, method) in METHODS {
        for (protocol, agents) in [(Protocol::Udp, 20_000), (Protocol::Tcp, 10_000)] {
            for segment in [1, 4, 16, 64] {
                for text_bytes in [200, 600] {
                    let case = Case { protocol, segment, cipher, method, agents, text_bytes };
                    turn(criterion, &tables, case);
                }
            }
        }
        for agents in [1_000, 100_000] {
            let protocol = Protocol::Udp;
            let case = Case { protocol, segment: 1, cipher, method, agents, text_bytes: 200 };
            turn(criterion, &tables, case);
        }
    }
}

fn turn(criterion: &mut Criterion, tables: &Tables, case: Case) {
    let Case { protocol, segment, cipher, agents, .. } = case;
    let protocol = protocol.name();
    let name = format!("daemon/turn/{protocol}-{segment}-a-segment-{cipher}-{agents}-agents");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(TURN_EVENTS as u64));
    let make = || Turning::new(&tables.table(case), case);
    bench_with(&mut group, case.text_bytes.to_string(), make, |bencher, turning| {
        bencher.iter_custom(|turns| (0..turns).map(|_| turning.timed_turn()).sum());
        turning.check();
    });
    group.finish();
}

#[derive(Clone, Copy)]
struct Case {
    protocol: Protocol,
    segment: usize,
    cipher: &'static str,
    method: Method,
    agents: usize,
    text_bytes: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Over UDP each table is made once: 100,000 Blowfish schedules take 417 MB and 2.6 s. Over TCP an agent's state knows its
/// connection, and belongs to one shard only.
#[derive(Default)]
struct Tables(RefCell<HashMap<(usize, bool), Arc<AgentTable>>>);

impl Tables {
    fn table(&self, case: Case) -> Arc<AgentTable> {
        let make = || fleet_table(fleet_size(case.agents), case.method);
        match case.protocol {
            Protocol::Tcp => make(),
            Protocol::Udp => {
                let mut tables = self.0.borrow_mut();
                let table = tables.entry((case.agents, case.method == Method::Blowfish));
                Arc::clone(table.or_insert_with(make))
            }
        }
    }
}

/// What one turn receives: for each buffer the agent, and its datagram or its part of a segment.
type Received = Vec<(u32, Vec<u8>)>;

/// A shard, and what it hears turn by turn.
struct Turning {
    shard: ScriptedShard,
    bed: Bed,
    /// For each agent its connection, over TCP.
    connections: Vec<ConnectionId>,
    turns: Rc<[Received]>,
    next: usize,
    events: u64,
}

impl Turning {
    fn new(table: &Arc<AgentTable>, case: Case) -> Turning {
        let (bed, spec) = bed(table, Sink::Archive);
        let mut shard = ScriptedShard::start(spec).expect("the host has io_uring");
        let (mut connections, mut events) = (Vec::new(), 0);
        let messages = events_of(table, case.method, case.text_bytes, case.segment);
        let turns: Vec<_> = match case.protocol {
            Protocol::Udp => messages.chunks_exact(TURN_EVENTS).map(<[_]>::to_vec).collect(),
            Protocol::Tcp => {
                connections = connect(&mut shard, table, case.method);
                events += table.agents().len() as u64;
                messages.chunks_exact(TURN_EVENTS).map(|turn| segments(turn, case.segment)).collect()
            }
        };
        Turning { shard, bed, connections, turns: turns.into(), next: 0, events }
    }

    fn timed_turn(&mut self) -> Duration {
        let turns = Rc::clone(&self.turns);
        for (agent, bytes) in &turns[self.next] {
            let loaded = match self.connections.get(*agent as usize) {
                Some(connection) => self.shard.load_segment(*connection, bytes),
                None => self.shard.load_datagram(PEER, bytes),
            };
            assert!(loaded, "the buffers hold a turn");
        }
        self.next = if self.next + 1 == turns.len() { 0 } else { self.next + 1 };
        self.events += TURN_EVENTS as u64;
        let start = thread_time();
        self.shard.turn().expect("a script refuses nothing");
        thread_time() - start
    }

    /// Whatever was loaded became an event.
    fn check(&self) {
        assert_eq!(self.bed.metrics.events.read(), self.events);
    }
}

/// Connects every agent, and has it say something: a shard closes connections that do not authenticate.
fn connect(shard: &mut ScriptedShard, table: &AgentTable, method: Method) -> Vec<ConnectionId> {
    let mut sealer = codec::Sealer::new();
    let connections = table.agents().iter().map(|agent| {
        let connection = match shard.connect(PEER) {
            Some(connection) => connection,
            None => {
                shard.turn().expect("a script refuses nothing");
                shard.connect(PEER).expect("a turn arms accepts")
            }
        };
        let (mut message, mut framed) = (Vec::new(), Vec::new());
        bench::seal_for(&mut sealer, agent, method, b"1:/var/log/syslog:hello", &mut message);
        frame(&message, &mut framed);
        assert!(shard.load_segment(connection, &framed), "a turn gives the buffers back");
        connection
    });
    let connections = connections.collect();
    shard.turn().expect("a script refuses nothing");
    connections
}

/// Segments of `events` frames each, in the pieces that fit into a stream's buffers.
fn segments(turn: &[(u32, Vec<u8>)], events: usize) -> Vec<(u32, Vec<u8>)> {
    let segment = |messages: &[(u32, Vec<u8>)]| {
        let mut bytes = Vec::new();
        messages.iter().for_each(|(_, message)| frame(message, &mut bytes));
        let agent = messages[0].0;
        bytes.chunks(STREAM_BUFFER_BYTES).map(|piece| (agent, piece.to_vec())).collect::<Vec<_>>()
    };
    turn.chunks(events).flat_map(segment).collect()
}
