//! Managers and agents on a simulated network and clock, from one seed. The oracle says what must hold ([`oracle`]).
//!
//! A failure names its seed; `RINGMASTER_SIMULATION_SEED=<seed>` runs that one alone, and
//! `RINGMASTER_SIMULATION_COUNT=<n>` so many from there on.

mod fleet;
mod network;
mod oracle;
mod plan;
mod process;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use agent::Transport;

pub(crate) use network::cut_frames;
use plan::{Faults, Mutation, Plan};
use world::{Report, World};

const SEEDS: u64 = 200;

/// For what reasons the seeds together make managers drop messages and close connections: a simulation in which nothing
/// goes wrong proves nothing.
const EXERCISED: [&str; 11] = [
    "address_unknown",
    "counter_duplicate",
    "counter_old",
    "id_address",
    "inflate",
    "malformed",
    "overtaken",
    "peer",
    "sink_full",
    "unauthenticated",
    "wrong_key",
];

#[test]
fn nothing_is_lost_that_must_not_be() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("RINGMASTER_SIMULATION_SEED");
    let count = number("RINGMASTER_SIMULATION_COUNT").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    let (mut published, mut seen) = (0, BTreeSet::new());
    for seed in first..first + count {
        let report = run(Plan::of(seed));
        published += report.published;
        seen.extend(report.seen);
    }
    assert!(published > count, "the runs publish something");
    if (first, count) == (0, SEEDS) {
        let missing: Vec<_> = EXERCISED.iter().filter(|name| !seen.contains(*name)).collect();
        assert!(missing.is_empty(), "the runs do not come to: {missing:?}");
    }
}

#[test]
fn without_faults_everything_arrives() {
    for seed in 0..10 {
        let plan = Plan { sink_soft: 100_000, ..Plan::without_faults(seed) };
        let report = run(plan);
        assert_eq!(report.published, report.sent, "seed {seed}");
        assert_eq!(report.locks, 0, "seed {seed}: nobody loses a manager that is there");
    }
}

/// The reader of the sink is away for longer than an agent waits for a sign of life: the unasked acknowledgements keep the
/// agents from taking back-pressure for a dead manager, and all that waited arrives.
#[test]
fn back_pressure_does_not_become_reconnects() {
    for seed in 0..10 {
        let mut plan = Plan { sink_soft: 1, ..Plan::without_faults(seed) };
        plan.faults = Faults { reader_absences: 3, delay_max: Duration::from_millis(5), ..Faults::default() };
        for kind in &mut plan.fleet {
            kind.transport = Transport::Tcp;
        }
        // Shorter than an absence may be (40 s), longer than two unasked acknowledgements are apart (10 s).
        plan.time_reconnect = Duration::from_secs(15);
        let report = run(plan);
        assert_eq!((report.published, report.locks), (report.sent, 0), "seed {seed}");
    }
}

#[test]
fn a_seed_is_one_run() {
    for seed in [3, 7] {
        assert_eq!(run(Plan::of(seed)), run(Plan::of(seed)));
    }
}

/// An oracle that cannot fail proves nothing: each fault that it must see is made once.
#[test]
fn the_oracle_sees_mistakes() {
    for (mutation, complaint) in [
        (Mutation::Alter, "what it did not send"),
        (Mutation::Lose, "lost on a connection that never broke"),
        (Mutation::MiscountVerdict, "events taken, but"),
        (Mutation::Repeat, "published twice"),
        (Mutation::Swap, "out of order"),
    ] {
        let mut plan = Plan { mutation: Some(mutation), sink_soft: 100_000, ..Plan::without_faults(1) };
        plan.fleet.truncate(1);
        plan.fleet[0].transport = Transport::Tcp;
        let seen = World::run(plan).expect_err("a mistake that nobody sees");
        assert!(seen.contains(complaint), "{mutation:?}: {seen}");
    }
}

fn run(plan: Plan) -> Report {
    let repeat = Repeat(plan.seed);
    let report = World::run(plan).unwrap_or_else(|violation| panic!("{violation}"));
    drop(repeat);
    report
}

/// Says how to repeat a run, also when something below panics.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Repeat(seed) = self;
            eprintln!(
                "repeat with: RINGMASTER_SIMULATION_SEED={seed} cargo test -p ringmaster-tests simulation"
            );
        }
    }
}
