//! What acknowledged delivery costs a manager, and that it costs nothing where nobody offered it. Names are
//! `crate/operation/variant/size`.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::{MESSAGES_IN_ROTATION, bench_with, fleet_size, fleet_table, log_line};
use codec::{
    AgentId, Counter, DeliveryOffer, Envelope, Method, Sealer, delivery_next, startup_with_delivery,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use manager::{
    Admission, AgentTable, ConnectionId, Deliveries, Incoming, Ledger, LedgerFull, Manager, ManagerParts,
    Peer, Publish, Published, ReplayPolicy, SINKS_MAX, SenderCounter, Settings, ShardId, SinkFull, SinkSet,
    Ticket, Time, Verdict,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const AGENTS: usize = 1_000;
const BATCH: usize = 64;
const METHOD: Method = Method::AesOssec;

criterion_group!(name = benches; config = bench::criterion(); targets = deliver);
criterion_main!(benches);

/// `manager/deliver/<variant>/200`: a batch of 64 events over the connections of 1,000 agents in random order. `plain`:
/// nobody offered acknowledged delivery; `numbered`: everybody did, two sinks note each event at once, and the manager hears
/// of it behind each batch.
fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manager/deliver");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (variant, offers) in [("plain", false), ("numbered", true)] {
        let make = || Fleet::new(offers);
        bench_with(&mut group, format!("{variant}/200"), make, |bencher, fleet| {
            bencher.iter_custom(|turns| (0..turns).map(|_| fleet.timed_turn()).sum());
            let counters = fleet.manager.counters();
            let delivering = if offers { fleet_size(AGENTS) as u64 } else { 0 };
            assert_eq!(
                (counters.dropped_total(), counters.delivering),
                (0, delivering),
                "it is what it says"
            );
        });
    }
    group.finish();
}

/// A manager with a connection of each agent.
struct Fleet {
    manager: Manager,
    sinks: Sinks,
    pens: Pens,
    random: Pcg64Mcg,
    lines: Vec<Vec<u8>>,
    turns: usize,
}

impl Fleet {
    fn new(offers: bool) -> Fleet {
        let table = fleet_table(fleet_size(AGENTS), METHOD);
        let words = Arc::new(Words::new(table.agents().len()));
        let mut manager = Manager::new(ManagerParts {
            settings: Settings { replay: ReplayPolicy::Off, ..Settings::default() },
            shard: ShardId(0),
            table: Arc::clone(&table),
            senders: Arc::new(SenderCounter::new(Counter::ZERO)),
            seed: [1; 32],
        });
        manager.set_deliveries(Some(Arc::new(Deliveries::new(Box::new(Arc::clone(&words))))));
        let mut sinks = Sinks { words, moved: Vec::new() };
        let mut pens = Pens { sent: vec![Counter::ZERO; table.agents().len()], sealer: Sealer::new(), table };
        connect(&mut manager, &mut pens, &mut sinks, offers);
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let lines = (0..MESSAGES_IN_ROTATION).map(|number| log_line(&mut random, number, 200)).collect();
        Fleet { manager, sinks, pens, random, lines, turns: 0 }
    }

    /// What the manager takes for a batch. A delivering connection bears no gap in its counters, so each message is sealed for
    /// its turn, before the clock runs.
    fn timed_turn(&mut self) -> Duration {
        let lines = self.lines.iter().cycle().skip(self.turns % MESSAGES_IN_ROTATION).take(BATCH);
        let agents = self.pens.sent.len() as u32;
        let messages: Vec<_> =
            lines.map(|line| self.pens.seal(self.random.random_range(0..agents), line)).collect();
        let batch: Vec<_> = messages.iter().map(incoming).collect();
        self.turns += BATCH;
        let start = Instant::now();
        self.manager.receive(Time::ZERO, &batch, &mut self.sinks);
        self.manager.on_sinks_moved(Time::ZERO, self.sinks.moved.drain(..));
        while let Some(action) = self.manager.next_action() {
            black_box(action);
        }
        start.elapsed()
    }
}

/// What the agents seal with.
struct Pens {
    table: Arc<AgentTable>,
    sealer: Sealer,
    /// The counter of each agent's last message.
    sent: Vec<Counter>,
}

impl Pens {
    fn seal(&mut self, agent: u32, text: &[u8]) -> (u32, Vec<u8>) {
        let sent = &mut self.sent[agent as usize];
        *sent = sent.next();
        let of = self.table.agent(agent);
        let envelope = Envelope {
            id_prefix: Some(of.entry().id),
            method: METHOD,
            random: 12_345,
            counter: *sent,
            initialization_vector: *b"0123456789abcdef",
            text,
        };
        let mut bytes = Vec::new();
        self.sealer.seal(of.cipher_key(), &envelope, &mut bytes).expect("a bench's text fits a message");
        (agent, bytes)
    }
}

/// Connects each agent; `offers`: with acknowledged delivery.
fn connect(manager: &mut Manager, pens: &mut Pens, sinks: &mut Sinks, offers: bool) {
    let (mut start, mut next) = (Vec::new(), Vec::new());
    if offers {
        startup_with_delivery(DeliveryOffer { session: 1, first: 0 }, &mut start);
        delivery_next(0, &mut next);
    } else {
        codec::startup(None, &mut start);
        next.extend_from_slice(b"1:some:event");
    }
    for agent in 0..pens.sent.len() as u32 {
        let connection = ConnectionId { slot: agent, generation: 1 };
        let from = SocketAddr::from((Ipv4Addr::from_bits(agent), 40_000));
        assert_eq!(manager.on_connected(Time::ZERO, connection, from), Admission::Admit);
        for text in [&start, &next] {
            let message = pens.seal(agent, text);
            manager.receive(Time::ZERO, &[incoming(&message)], sinks);
        }
        while manager.next_action().is_some() {}
    }
}

fn incoming((agent, bytes): &(u32, Vec<u8>)) -> Incoming<'_> {
    Incoming { peer: Peer::Connection(ConnectionId { slot: *agent, generation: 1 }), bytes }
}

/// Sinks that have each event at once.
struct Sinks {
    words: Arc<Words>,
    moved: Vec<u32>,
}

impl Publish for Sinks {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        black_box(event.event);
        if let Some(ticket) = event.ticket {
            self.pass(ticket);
        }
        Ok(())
    }

    fn pass(&mut self, ticket: Ticket) {
        for sink in ticket.wanted.iter() {
            self.words.before[ticket.cell as usize][sink].store(ticket.number + 1, Ordering::Release);
        }
        self.moved.push(ticket.cell);
    }

    fn verdict(&mut self, _index: usize, _verdict: Verdict) {}
}

/// A ledger as the daemon's: a word for each agent and sink.
#[derive(Debug)]
struct Words {
    before: Vec<[AtomicU64; SINKS_MAX]>,
    cells: Mutex<HashMap<AgentId, u32>>,
}

impl Words {
    fn new(agents: usize) -> Words {
        let cell = || std::array::from_fn(|_| AtomicU64::new(0));
        Words { before: std::iter::repeat_with(cell).take(agents).collect(), cells: Mutex::default() }
    }
}

impl Ledger for Words {
    fn open(&self, agent: AgentId, _session: u64, _first: u64) -> Result<u32, LedgerFull> {
        let mut cells = self.cells.lock().expect("one thread");
        let next = cells.len() as u32;
        Ok(*cells.entry(agent).or_insert(next))
    }

    fn before(&self, cell: u32, sink: usize) -> u64 {
        self.before[cell as usize][sink].load(Ordering::Acquire)
    }

    fn sinks(&self) -> SinkSet {
        SinkSet::NONE.with(0).with(2)
    }
}
