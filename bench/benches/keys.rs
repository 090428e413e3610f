//! The key store: client.keys parsed, and the agent table built. What a shard does with it is in `manager`.
//!
//! `codec/key-file/parse/<agents>`, `manager/table/<variant>/<agents>`. Throughput is agents a second.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;
use std::sync::Arc;

use bench::{bench_with, fleet_entries, fleet_size, fleet_table};
use codec::{KeyEntry, KeyFile, Method};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use manager::{AgentTable, CounterSeed};

const FLEETS: [usize; 2] = [1_000, 20_000];

criterion_group!(name = benches; config = bench::criterion(); targets = parse, build);
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
