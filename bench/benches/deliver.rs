//! What acknowledged delivery costs a manager, and that it costs nothing where nobody offered it. Names are
//! `crate/operation/variant/size`.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bench::{bench_with, events_of, fleet_size, fleet_table, seal_for};
use codec::{AgentId, Counter, DeliveryOffer, Method, Sealer, delivery_next, startup_with_delivery};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use manager::{
    Admission, AgentTable, ConnectionId, Deliveries, Incoming, Ledger, LedgerFull, Manager, ManagerParts,
    Peer, Publish, Published, ReplayPolicy, SINKS_MAX, SenderCounter, Settings, ShardId, SinkFull, SinkSet,
    Ticket, Time, Verdict,
};

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
            let incoming: Vec<_> = fleet.messages.iter().map(incoming).collect();
            let mut batches = incoming.chunks_exact(BATCH).cycle();
            bencher.iter(|| {
                let batch = batches.next().expect("a cycle has no end");
                fleet.manager.receive(Time::ZERO, batch, &mut fleet.sinks);
                fleet.manager.on_sinks_moved(Time::ZERO, fleet.sinks.moved.drain(..));
                while let Some(action) = fleet.manager.next_action() {
                    black_box(action);
                }
            });
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
    messages: Vec<(u32, Vec<u8>)>,
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
        connect(&mut manager, &table, &mut sinks, offers);
        Fleet { messages: events_of(&table, METHOD, 200, 1), manager, sinks }
    }
}

/// Connects each agent; `offers`: with acknowledged delivery.
fn connect(manager: &mut Manager, table: &AgentTable, sinks: &mut Sinks, offers: bool) {
    let (mut start, mut next) = (Vec::new(), Vec::new());
    if offers {
        startup_with_delivery(DeliveryOffer { session: 1, first: 0 }, &mut start);
        delivery_next(0, &mut next);
    } else {
        codec::startup(None, &mut start);
        next.extend_from_slice(b"1:some:event");
    }
    let mut sealer = Sealer::new();
    for agent in table.agents() {
        let connection = ConnectionId { slot: agent.index(), generation: 1 };
        let from = SocketAddr::from((Ipv4Addr::from_bits(agent.index()), 40_000));
        assert_eq!(manager.on_connected(Time::ZERO, connection, from), Admission::Admit);
        for text in [&start, &next] {
            let mut bytes = Vec::new();
            seal_for(&mut sealer, agent, METHOD, text, &mut bytes);
            let incoming = Incoming { peer: Peer::Connection(connection), bytes: &bytes };
            manager.receive(Time::ZERO, &[incoming], sinks);
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
