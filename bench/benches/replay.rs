//! `manager/replay/<policy>-<agents>-agents/64`: the counters of 64 messages, agents in random order, each counter the
//! agent's next.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::sync::Arc;

use bench::{MESSAGES_IN_ROTATION, bench_with, fleet_size};
use codec::Counter;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use manager::{AgentState, ReplayPolicy};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const BATCH: usize = 64;

criterion_group!(name = benches; config = bench::criterion(); targets = replay);
criterion_main!(benches);

fn replay(criterion: &mut Criterion) {
    let policies =
        [("off", ReplayPolicy::Off), ("strict", ReplayPolicy::Strict), ("window", ReplayPolicy::Window)];
    for (name, policy) in policies {
        for agents in [1, 20_000] {
            let mut group = criterion.benchmark_group(format!("manager/replay/{name}-{agents}-agents"));
            group.throughput(Throughput::Elements(BATCH as u64));
            let make = || Fleet::new(fleet_size(agents));
            bench_with(&mut group, BATCH.to_string(), make, |bencher, fleet| {
                bencher.iter(|| {
                    for _ in 0..BATCH {
                        let (state, counter) = fleet.next();
                        state.replay().accept(policy, counter).expect("each counter is new");
                    }
                });
            });
            group.finish();
        }
    }
}

struct Fleet {
    states: Vec<Arc<AgentState>>,
    order: Vec<usize>,
    next: usize,
    counter: Counter,
}

impl Fleet {
    fn new(agents: usize) -> Fleet {
        let mut random = Pcg64Mcg::seed_from_u64(1);
        Fleet {
            states: (0..agents).map(|_| Arc::new(AgentState::new(Counter::ZERO))).collect(),
            order: (0..agents.max(MESSAGES_IN_ROTATION)).map(|_| random.random_range(0..agents)).collect(),
            next: 0,
            counter: Counter { global: 0, local: 1 },
        }
    }

    /// One counter for the whole fleet, ever greater: so is each agent's own.
    fn next(&mut self) -> (&AgentState, Counter) {
        let agent = self.order[self.next];
        self.next = if self.next + 1 == self.order.len() { 0 } else { self.next + 1 };
        self.counter = self.counter.next();
        (&self.states[agent], self.counter)
    }
}
