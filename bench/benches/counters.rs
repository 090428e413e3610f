//! Message counters on disk: one file for all agents, as ringmaster writes it each second, beside OSSEC's one file an agent.
//!
//! All agents have moved on since the last time. Neither waits for the disk; the one file is replaced by a rename, OSSEC's
//! are written in place. And the look at all agents that goes with it each second.

use std::{hint::black_box, sync::Arc, time::Duration};

use codec::{Counter, KeyFile};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemon::{
    clock::Clock,
    counters_store::CounterStore,
    home::{Home, write_whole},
    registry::{Moment, Registry},
};
use manager::{AgentTable, ReplayPolicy};

const AGENTS: usize = 100_000;

fn benches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let home = Home::prepare(folder.path()).expect("the temporary folder is writable");
    let lines: String = (1..=AGENTS).map(|number| format!("{number:03} agent{number} any key\n")).collect();
    let entries = KeyFile::parse(lines.as_bytes()).entries;
    let (mut store, _) = CounterStore::open(&home, &entries, 10_000).expect("the home is new");
    let seed = store.seed(&entries);
    let table = Arc::new(AgentTable::build(entries, None, &seed));
    let mut counter = Counter::ZERO;
    let mut move_on = move |table: &AgentTable| {
        counter = counter.next();
        for agent in table.agents() {
            agent.state().replay().accept(ReplayPolicy::Strict, counter).expect("it has just grown");
        }
        counter
    };

    let mut group = criterion.benchmark_group("counters");
    group.throughput(Throughput::Elements(AGENTS as u64)).sample_size(10);
    group.bench_function("one-file", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let sender = move_on(&table);
                    let start = std::time::Instant::now();
                    store.collect(&table, sender);
                    let text = store.unwritten().expect("all have moved on");
                    write_whole(store.path(), text.as_bytes()).expect("the disk has room");
                    start.elapsed()
                })
                .sum()
        });
    });
    let rids = folder.path().join("queue/rids");
    group.bench_function("rids-files", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let sender = move_on(&table);
                    let start = std::time::Instant::now();
                    store.collect(&table, sender);
                    black_box(store.export(&rids).expect("the disk has room"));
                    start.elapsed()
                })
                .sum()
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("registry");
    group.throughput(Throughput::Elements(AGENTS as u64)).sample_size(10);
    let mut registry = Registry::new(Arc::clone(&table), Duration::from_secs(1_830), true);
    let clock = Clock::start();
    group.bench_function("look", |bencher| bencher.iter(|| black_box(registry.look(Moment::now(clock)))));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
