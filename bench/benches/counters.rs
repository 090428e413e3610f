//! What the control plane does for all agents each second: their counters to disk, and a look at each.
//!
//! `daemon/counters/one-file/<agents>` is ringmaster's store: collected, formatted, written, renamed into place.
//! `daemon/counters/rids-files/<agents>` is OSSEC's way: collected, and a file an agent opened, overwritten in place and
//! closed. All agents have moved on since the last time; neither waits for the disk. Throughput is in agents.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::{
    hint::black_box,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bench::{bench_with, fleet_size, fleet_table};
use codec::{Counter, Method};
use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use daemon::{
    clock::Clock,
    counters_store::CounterStore,
    home::{Home, write_whole},
    registry::{Moment, Registry},
};
use manager::{AgentTable, ReplayPolicy};

const AGENTS: usize = 100_000;

criterion_group!(name = benches; config = bench::criterion().sample_size(10); targets = counters, look);
criterion_main!(benches);

/// A home of its own, and a fleet that counts.
struct Fleet {
    folder: tempfile::TempDir,
    store: CounterStore,
    table: Arc<AgentTable>,
    counter: Counter,
}

fn counters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("daemon/counters/one-file");
    group.throughput(Throughput::Elements(fleet_size(AGENTS) as u64));
    bench_with(&mut group, AGENTS.to_string(), fleet, |bencher, fleet| {
        timed(bencher, fleet, |fleet| {
            let text = fleet.store.unwritten().expect("all have moved on");
            write_whole(fleet.store.path(), text.as_bytes())
        });
    });
    drop(group);
    let mut group = criterion.benchmark_group("daemon/counters/rids-files");
    group.throughput(Throughput::Elements(fleet_size(AGENTS) as u64));
    bench_with(&mut group, AGENTS.to_string(), fleet, |bencher, fleet| {
        timed(bencher, fleet, |fleet| fleet.store.export(&fleet.folder.path().join("queue/rids")));
    });
}

fn look(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("daemon/registry/look");
    group.throughput(Throughput::Elements(fleet_size(AGENTS) as u64));
    let make = || {
        let table = fleet_table(fleet_size(AGENTS), Method::AesOssec);
        (Registry::new(table, Duration::from_secs(1_830), true), Clock::start())
    };
    bench_with(&mut group, AGENTS.to_string(), make, |bencher, (registry, clock)| {
        bencher.iter(|| black_box(registry.look(Moment::now(*clock))));
    });
}

fn fleet() -> Fleet {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let home = Home::prepare(folder.path()).expect("the temporary folder is writable");
    let table = fleet_table(fleet_size(AGENTS), Method::AesOssec);
    let entries: Vec<_> = table.agents().iter().map(|agent| agent.entry().clone()).collect();
    let (store, _) = CounterStore::open(&home, &entries, 10_000).expect("the home is new");
    let highest = table.agents().iter().map(|agent| agent.state().replay().highest());
    let counter = highest.max().unwrap_or(Counter::ZERO);
    Fleet { folder, store, table, counter }
}

/// Times the store's collecting and `write`, each time after every agent has moved on.
fn timed<T>(
    bencher: &mut Bencher<'_>,
    fleet: &mut Fleet,
    mut write: impl FnMut(&mut Fleet) -> io::Result<T>,
) {
    bencher.iter_custom(|rounds| {
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            fleet.counter = fleet.counter.next();
            for agent in fleet.table.agents() {
                let taken = agent.state().replay().accept(ReplayPolicy::Strict, fleet.counter);
                taken.expect("it has just grown");
            }
            let start = Instant::now();
            fleet.store.collect(&fleet.table, fleet.counter);
            black_box(write(fleet).expect("the disk has room"));
            spent += start.elapsed();
        }
        spent
    });
}
