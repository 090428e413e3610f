//! The manager: a batch from its bytes to its verdicts, and whose a message is. Names are `crate/operation/variant/size`.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{MESSAGES_IN_ROTATION, bench_with, events_of, fleet_size, fleet_table, label, seal_for};
use codec::{AgentId, Counter, Method, Sealer};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use manager::{
    Admission, AgentTable, ConnectionId, CounterSeed, Incoming, Manager, ManagerParts, Peer, Publish,
    Published, ReplayPolicy, SenderCounter, Settings, ShardId, SinkFull, Ticket, Time, Verdict,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const BATCH: usize = 64;
const SEED: u64 = 1;

criterion_group!(name = benches; config = bench::criterion(); targets = receive, look_up, on_keys);
criterion_main!(benches);

/// `manager/receive/<method>-<agents>-agents/<bytes>`: a batch of 64 datagrams from agents in random order, the next 64 of
/// the rotation each time, into a publisher that does nothing. Counters are not checked, since the rotation repeats them;
/// noting one costs as much.
fn receive(criterion: &mut Criterion) {
    for agents in [1, 1_000, 20_000] {
        for method in [Method::Blowfish, Method::AesOssec] {
            let name = format!("manager/receive/{}-{agents}-agents", label(method));
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(BATCH as u64));
            let make = || {
                let table = fleet_table(fleet_size(agents), method);
                let messages = events_of(&table, method, 200, 1);
                (manager_of(&table), messages)
            };
            bench_with(&mut group, "200", make, |bencher, (manager, messages)| {
                let mut batches = Batches::new(messages);
                bencher.iter(|| manager.receive(Time::ZERO, batches.next_batch(), &mut Nobody));
                assert!(manager.counters().dropped_total() == 0, "the rotation's messages are sound");
            });
            group.finish();
        }
    }
}

/// `manager/look-up/<agents>-agents/64`: the agents of 64 ids in random order.
fn look_up(criterion: &mut Criterion) {
    for agents in [1_000, 20_000, 100_000] {
        let mut group = criterion.benchmark_group(format!("manager/look-up/{agents}-agents"));
        group.throughput(Throughput::Elements(BATCH as u64));
        let make = || {
            let table = fleet_table(fleet_size(agents), Method::AesOssec);
            let mut random = Pcg64Mcg::seed_from_u64(SEED);
            let ids: Vec<AgentId> = (0..agents.max(MESSAGES_IN_ROTATION))
                .map(|_| table.agents()[random.random_range(0..table.agents().len())].entry().id)
                .collect();
            (table, ids)
        };
        bench_with(&mut group, BATCH.to_string(), make, |bencher, (table, ids)| {
            let mut batches = ids.chunks_exact(BATCH).cycle();
            bencher.iter(|| {
                for id in batches.next().expect("a cycle has no end") {
                    black_box(table.by_id(*id).expect("it is in the table").index());
                }
            });
        });
        group.finish();
    }
}

/// `manager/on-keys/<variant>/20000`: a manager with 20,000 authenticated connections gets another table: the one built on
/// its own (`next`), or one after that (`one-missed`), where each agent must be looked up again. `free-a-table` is what the
/// last owner of a table pays, which no shard is.
fn on_keys(criterion: &mut Criterion) {
    const AGENTS: usize = 20_000;
    let mut group = criterion.benchmark_group("manager/on-keys");
    // What is timed is a hundredth of what it takes to make the table for it.
    group.sample_size(10).measurement_time(Duration::from_millis(20));
    group.throughput(Throughput::Elements(AGENTS as u64));
    for (variant, step) in [("next", 1), ("one-missed", 2)] {
        let make = || connected(fleet_size(AGENTS));
        let id = format!("{variant}/{AGENTS}");
        bench_with(&mut group, id, make, |bencher, (manager, tables)| {
            bencher.iter_custom(|iterations| {
                let mut taken = Duration::ZERO;
                for _ in 0..iterations {
                    for _ in 0..step {
                        tables.push(Arc::new(built_again(tables.last().expect("there is the first"))));
                    }
                    let table = Arc::clone(tables.last().expect("one was just made"));
                    let start = Instant::now();
                    manager.on_keys(table);
                    taken += start.elapsed();
                    tables.drain(..step);
                }
                taken
            });
            let agents = fleet_size(AGENTS) as u64;
            assert_eq!(manager.counters().connections, agents, "every agent stayed");
        });
    }
    let make = || fleet_table(fleet_size(AGENTS), Method::AesOssec);
    bench_with(&mut group, format!("free-a-table/{AGENTS}"), make, |bencher, kept| {
        bencher.iter_batched(|| built_again(kept), drop, BatchSize::PerIteration);
    });
    group.finish();
}

/// A manager with a connection of each agent, and its table.
fn connected(agents: usize) -> (Manager, Vec<Arc<AgentTable>>) {
    let table = fleet_table(agents, Method::AesOssec);
    let mut manager = manager_of(&table);
    let (mut sealer, mut bytes) = (Sealer::new(), Vec::new());
    for agent in table.agents() {
        let connection = ConnectionId { slot: agent.index(), generation: 1 };
        let from = SocketAddr::from((Ipv4Addr::from_bits(agent.index()), 40_000));
        assert_eq!(manager.on_connected(Time::ZERO, connection, from), Admission::Admit);
        bytes.clear();
        seal_for(&mut sealer, agent, Method::AesOssec, b"1:some:event", &mut bytes);
        let incoming = Incoming { peer: Peer::Connection(connection), bytes: &bytes };
        manager.receive(Time::ZERO, &[incoming], &mut Nobody);
    }
    assert_eq!(manager.counters().authenticated, agents as u64, "every connection has its agent");
    (manager, vec![table])
}

/// The table of the same client.keys, built on `previous`.
fn built_again(previous: &AgentTable) -> AgentTable {
    let entries = previous.agents().iter().map(|agent| agent.entry().clone()).collect();
    AgentTable::build(entries, Some(previous), &CounterSeed::new())
}

/// Takes every event and does nothing with it.
struct Nobody;

impl Publish for Nobody {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        black_box(event);
        Ok(())
    }

    fn pass(&mut self, _ticket: Ticket) {}

    fn verdict(&mut self, _index: usize, _verdict: Verdict) {}
}

fn manager_of(table: &Arc<AgentTable>) -> Manager {
    Manager::new(ManagerParts {
        settings: Settings { replay: ReplayPolicy::Off, ..Settings::default() },
        shard: ShardId(0),
        table: Arc::clone(table),
        senders: Arc::new(SenderCounter::new(Counter::ZERO)),
        seed: [1; 32],
    })
}

/// The rotation, handed out in batches without an allocation.
struct Batches<'a> {
    incoming: Vec<Incoming<'a>>,
    next: usize,
}

impl<'a> Batches<'a> {
    fn new(messages: &'a [(u32, Vec<u8>)]) -> Batches<'a> {
        let from: SocketAddr = ([127, 1, 0, 1], 40_000).into();
        let incoming =
            messages.iter().map(|(_, bytes)| Incoming { peer: Peer::Datagram(from), bytes }).collect();
        Batches { incoming, next: 0 }
    }

    fn next_batch(&mut self) -> &[Incoming<'a>] {
        if self.next + BATCH > self.incoming.len() {
            self.next = 0;
        }
        let batch = &self.incoming[self.next..self.next + BATCH];
        self.next += BATCH;
        batch
    }
}
