//! The manager: a batch from its bytes to its verdicts, and whose a message is. Names are `crate/operation/variant/size`.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{MESSAGES_IN_ROTATION, log_line};
use codec::{AgentId, Counter, Envelope, KeyFile, Method, Sealer};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use manager::{
    Admission, Agent, AgentTable, ConnectionId, CounterSeed, Incoming, Manager, ManagerParts, Peer, Publish,
    Published, ReplayPolicy, SenderCounter, Settings, ShardId, SinkFull, Time, Verdict,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const BATCH: usize = 64;
const SEED: u64 = 1;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = receive, look_up, on_keys
}
criterion_main!(benches);

/// `manager/receive/<method>-<agents>-agents/<bytes>`: a batch of 64 datagrams from agents in random order, the next 64 of
/// the rotation each time, into a publisher that does nothing. Counters are not checked, since the rotation repeats them;
/// noting one costs as much.
fn receive(criterion: &mut Criterion) {
    for agents in [1, 1_000, 20_000] {
        for method in [Method::Blowfish, Method::AesOssec] {
            let mut group = criterion.benchmark_group(format!("manager/receive/{method:?}-{agents}-agents"));
            group.throughput(Throughput::Elements(BATCH as u64));
            group.bench_function("200", |bencher| {
                let table = table(agents);
                let messages = rotation(&table, method, 200);
                let mut manager = manager_of(&table);
                let mut batches = Batches::new(&messages);
                // Every agent's tables are made before the clock runs.
                for _ in 0..messages.len() / BATCH {
                    manager.receive(Time::ZERO, batches.next_batch(), &mut Nobody);
                }
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
        group.bench_function(BATCH.to_string(), |bencher| {
            let table = table(agents);
            let mut random = Pcg64Mcg::seed_from_u64(SEED);
            let ids: Vec<AgentId> = (0..agents.max(MESSAGES_IN_ROTATION))
                .map(|_| table.agents()[random.random_range(0..agents)].entry().id)
                .collect();
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
    group.throughput(Throughput::Elements(AGENTS as u64));
    for (variant, step) in [("next", 1), ("one-missed", 2)] {
        group.bench_function(format!("{variant}/{AGENTS}"), |bencher| {
            let (mut manager, mut tables) = connected(AGENTS);
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
            assert_eq!(manager.counters().connections, AGENTS as u64, "every agent stayed");
        });
    }
    group.bench_function(format!("free-a-table/{AGENTS}"), |bencher| {
        let kept = table(AGENTS);
        bencher.iter_batched(|| built_again(&kept), drop, BatchSize::PerIteration);
    });
    group.finish();
}

/// A manager with a connection of each agent, and its table.
fn connected(agents: usize) -> (Manager, Vec<Arc<AgentTable>>) {
    let table = table(agents);
    let mut manager = manager_of(&table);
    let (mut sealer, mut bytes) = (Sealer::new(), Vec::new());
    for agent in table.agents() {
        let connection = ConnectionId { slot: agent.index(), generation: 1 };
        let from = SocketAddr::from((Ipv4Addr::from_bits(agent.index()), 40_000));
        assert_eq!(manager.on_connected(Time::ZERO, connection, from), Admission::Admit);
        bytes.clear();
        seal(&mut sealer, agent, Method::AesOssec, b"1:some:event", &mut bytes);
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

    fn verdict(&mut self, _index: usize, _verdict: Verdict) {}
}

fn table(agents: usize) -> Arc<AgentTable> {
    let lines: String = (1..=agents)
        .map(|number| format!("{number:03} agent-{number:05} any {:064x}\n", number * 0x9e37_79b9))
        .collect();
    Arc::new(AgentTable::build(KeyFile::parse(lines.as_bytes()).entries, None, &CounterSeed::new()))
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

/// Sealed messages of random agents, each with its text and its agent's id in front.
fn rotation(table: &AgentTable, method: Method, text_bytes: usize) -> Vec<Vec<u8>> {
    let mut random = Pcg64Mcg::seed_from_u64(SEED);
    let mut sealer = Sealer::new();
    let agents = table.agents();
    (0..agents.len().max(MESSAGES_IN_ROTATION))
        .map(|sequence| {
            let agent = &agents[random.random_range(0..agents.len())];
            let mut bytes = Vec::new();
            seal(&mut sealer, agent, method, &log_line(&mut random, sequence, text_bytes), &mut bytes);
            bytes
        })
        .collect()
}

fn seal(sealer: &mut Sealer, agent: &Agent, method: Method, text: &[u8], out: &mut Vec<u8>) {
    let envelope = Envelope {
        id_prefix: Some(agent.entry().id),
        method,
        random: 12_345,
        counter: Counter { global: 1, local: 1 },
        initialization_vector: *b"0123456789abcdef",
        text,
    };
    sealer.seal(agent.cipher_key(), &envelope, out).expect("a bench's text fits a message");
}

/// The rotation, handed out in batches without an allocation.
struct Batches<'a> {
    incoming: Vec<Incoming<'a>>,
    next: usize,
}

impl<'a> Batches<'a> {
    fn new(messages: &'a [Vec<u8>]) -> Batches<'a> {
        let from: SocketAddr = ([127, 1, 0, 1], 40_000).into();
        let incoming = messages.iter().map(|bytes| Incoming { peer: Peer::Datagram(from), bytes }).collect();
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
