//! The key store: client.keys parsed, the agent table built, and taken over by a shard.
//!
//! `codec/key-file/parse/<agents>`, `manager/table/<variant>/<agents>`. Throughput is agents a second.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;
use std::sync::Arc;

use bench::{bench_with, fleet_entries, fleet_size, fleet_table, seal_for};
use codec::{Counter, KeyEntry, KeyFile, Method, Sealer};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use manager::{
    Admission, AgentTable, ConnectionId, CounterSeed, Incoming, Manager, ManagerParts, Peer, Publish,
    Published, SenderCounter, Settings, ShardId, SinkFull, Time, Verdict,
};

const FLEETS: [usize; 2] = [1_000, 20_000];

criterion_group!(name = benches; config = bench::criterion(); targets = parse, build, swap);
criterion_main!(benches);

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/key-file/parse");
    for agents in FLEETS {
        group.throughput(Throughput::Elements(agents as u64));
        let make = || {
            let lines = fleet_entries(fleet_size(agents)).iter().map(KeyEntry::to_line).collect::<Vec<_>>();
            lines.join("\n")
        };
        bench_with(&mut group, agents.to_string(), make, |bencher, lines| {
            bencher.iter(|| black_box(KeyFile::parse(black_box(lines.as_bytes()))));
        });
    }
}

/// `build-cold`: no earlier table. `build-unchanged`: all agents keep their state and key. `build-one-new-key`: one does not.
fn build(criterion: &mut Criterion) {
    for agents in FLEETS {
        let mut group = criterion.benchmark_group("manager/table/build-cold");
        build_from(&mut group, agents, None, |_| {});
        drop(group);
        let previous = || fleet_table(fleet_size(agents), Method::AesOssec);
        let mut group = criterion.benchmark_group("manager/table/build-unchanged");
        build_from(&mut group, agents, Some(&previous), |_| {});
        drop(group);
        let mut group = criterion.benchmark_group("manager/table/build-one-new-key");
        build_from(&mut group, agents, Some(&previous), |entries| entries[0].key = "changed".into());
    }
}

/// `swap/<agents>`: a shard with a connection of each agent takes a new table over; somebody else frees the old one.
fn swap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manager/table/swap");
    for agents in FLEETS {
        group.throughput(Throughput::Elements(agents as u64));
        let make = || {
            let old = fleet_table(fleet_size(agents), Method::AesOssec);
            let entries = fleet_entries(fleet_size(agents));
            let new = Arc::new(AgentTable::build(entries, Some(&old), &CounterSeed::new()));
            (connected(&old), [new, old])
        };
        bench_with(&mut group, agents.to_string(), make, |bencher, (manager, tables)| {
            bencher.iter(|| {
                manager.on_keys(Arc::clone(&tables[0]));
                tables.swap(0, 1);
            });
        });
    }
}

/// A manager to which every agent is connected.
fn connected(table: &Arc<AgentTable>) -> Manager {
    let limits = Settings::default();
    let mut manager = Manager::new(ManagerParts {
        settings: Settings { unauthenticated_per_address_max: u32::MAX, connections_max: u32::MAX, ..limits },
        shard: ShardId(0),
        table: Arc::clone(table),
        senders: Arc::new(SenderCounter::new(Counter::ZERO)),
        seed: [1; 32],
    });
    let (mut sealer, mut bytes) = (Sealer::new(), Vec::new());
    for agent in table.agents() {
        let id = ConnectionId { slot: agent.index(), generation: 1 };
        let admission = manager.on_connected(Time::ZERO, id, ([127, 0, 0, 1], 40_000).into());
        assert_eq!(admission, Admission::Admit);
        bytes.clear();
        seal_for(&mut sealer, agent, Method::AesOssec, b"1:/var/log/syslog:hello", &mut bytes);
        let hello = Incoming { peer: Peer::Connection(id), bytes: &bytes };
        manager.receive(Time::ZERO, &[hello], &mut Nobody);
    }
    assert_eq!(manager.counters().authenticated, table.agents().len() as u64);
    manager
}

struct Nobody;

impl Publish for Nobody {
    fn publish(&mut self, _event: &Published<'_>) -> Result<(), SinkFull> {
        Ok(())
    }

    fn verdict(&mut self, _index: usize, _verdict: Verdict) {}
}

fn build_from(
    group: &mut BenchmarkGroup<'_, WallTime>,
    agents: usize,
    previous: Option<&dyn Fn() -> Arc<AgentTable>>,
    change: impl Fn(&mut Vec<KeyEntry>),
) {
    group.throughput(Throughput::Elements(agents as u64));
    let make = || {
        let mut entries = fleet_entries(fleet_size(agents));
        change(&mut entries);
        (entries, previous.map(|make| make()))
    };
    bench_with(group, agents.to_string(), make, |bencher, (entries, previous)| {
        let seed = CounterSeed::new();
        let build = |entries| AgentTable::build(entries, previous.as_deref(), &seed);
        bencher.iter_batched(|| entries.clone(), build, BatchSize::PerIteration);
    });
}
