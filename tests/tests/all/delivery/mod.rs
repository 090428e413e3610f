//! Acknowledged delivery from the collector to the sink, on a simulated network and clock, from one seed: the agents' engines
//! with their spools, the managers of two shards, and sinks that outlive them. The oracle says what must hold ([`oracle`]).
//!
//! A failure names its seed; `RINGMASTER_SIMULATION_SEED=<seed>` runs that one alone, and
//! `RINGMASTER_SIMULATION_COUNT=<n>` so many from there on.

mod host;
mod network;
mod oracle;
mod plan;
mod process;
mod sinks;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use manager::ReplayPolicy;

use plan::{Cut, Fault, Kind, Mutation, Plan, Room};
use world::{Report, World};

const SEEDS: u64 = 50;

/// For what reasons the seeds together make managers drop messages and close connections: a simulation in which nothing
/// goes wrong proves nothing.
const EXERCISED: [&str; 5] = ["delivery", "key_removed", "method_not_accepted", "overtaken", "peer"];

#[test]
fn everything_arrives_once_and_in_order() {
    let (seeds, is_default) = seeds(SEEDS);
    let count = seeds.end - seeds.start;
    // Events, times that a spool was full, writes that a kill left behind, events that some sink had and some had not, events
    // that a spool dropped.
    let (mut total, mut seen) = ([0; 5], BTreeSet::new());
    for seed in seeds {
        let report = run(Plan::of(seed));
        let (pushed_back, torn_writes, partial) = (report.pushed_back, report.torn_writes, report.partial);
        let counts = [report.taken, pushed_back.into(), torn_writes.into(), partial.into(), report.dropped];
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        seen.extend(report.seen);
    }
    assert!(total[0] > count, "the runs take something");
    if is_default {
        let missing: Vec<_> = EXERCISED.iter().filter(|name| !seen.contains(*name)).collect();
        assert!(missing.is_empty(), "the runs do not come to: {missing:?}");
        assert!(!total.contains(&0), "nor to one of these: {total:?}");
    }
}

/// The spool drops what it never gave to anybody: the manager's word that it begins behind that is no stranger's.
#[test]
fn a_spool_that_drops_keeps_its_session() {
    for seed in 0..10 {
        let mut plan = Plan::of(seed);
        plan.agents
            .iter_mut()
            .for_each(|kind| *kind = Kind { room: Room::DropsOldest, events: 250, ..*kind });
        plan.faults = vec![(Duration::from_secs(5), Fault::ManagerAway)];
        let report = run(plan);
        assert!(report.dropped > 0, "{report:?}");
    }
}

/// With a manager that does not agree an agent asks by keep-alives what was read: it is never too early with what it forgets,
/// whichever connection breaks and however long the manager does not read. A manager that is killed, or refuses a message,
/// loses what it had read.
#[test]
fn what_keep_alives_confirm_arrives_at_least_once() {
    let costs_nothing = |fault: Fault| match fault {
        Fault::AgentKilled
        | Fault::AgentStopped
        | Fault::Cut(_)
        | Fault::KeysReordered
        | Fault::SinkStalls => true,
        Fault::CipherRefused
        | Fault::KeyRemoved
        | Fault::ManagerAway
        | Fault::ManagerKilled
        | Fault::ManagerStopped => false,
    };
    for seed in seeds(20).0 {
        let mut plan = Plan { agrees: false, ..Plan::of(seed) };
        plan.faults.retain(|(_, fault)| costs_nothing(*fault));
        plan.agents.iter_mut().for_each(|kind| kind.room = Room::PushesBack);
        run(plan);
    }
}

#[test]
fn without_faults_everything_arrives() {
    for seed in 0..5 {
        let report = run(Plan { faults: Vec::new(), ..Plan::of(seed) });
        assert!(report.torn_writes == 0 && report.handed > 0, "{report:?}");
    }
}

/// Again and again what an agent had sent comes to one shard when its next connection has begun on the other, with counters
/// that are still good.
#[test]
fn what_an_earlier_connection_brings_late_does_not_count() {
    let mut seen = BTreeSet::new();
    for seed in 0..10 {
        let cuts = (1..20).map(|second| (Duration::from_secs(second), Fault::Cut(Cut::AgentFirst)));
        let plan = Plan { replay: ReplayPolicy::Window, faults: cuts.collect(), ..Plan::of(seed) };
        seen.extend(run(plan).seen);
    }
    assert!(seen.contains("delivery_lost"), "the runs come to: {seen:?}");
}

#[test]
fn a_seed_is_one_run() {
    for seed in [3, 7] {
        assert_eq!(run(Plan::of(seed)), run(Plan::of(seed)));
    }
}

/// An oracle that cannot fail proves nothing: each fault that it must see is made, and some seed brings it to light.
#[test]
fn the_oracle_sees_mistakes() {
    for (mutation, complaint) in [
        (Mutation::IgnoreWanted, "again"),
        (Mutation::Lose, "out of order"),
        (Mutation::NoLook, "again"),
        (Mutation::NoteBefore, "forgot"),
        (Mutation::NoteNot, "again"),
        (Mutation::Swap, "out of order"),
    ] {
        let runs = (0..40).map(|seed| World::run(Plan { mutation: Some(mutation), ..Plan::of(seed) }));
        let is_seen = runs.filter_map(Result::err).any(|seen| seen.contains(complaint));
        assert!(is_seen, "{mutation:?} is not seen");
    }
}

/// The seeds that a test runs, and whether nobody asked for others.
fn seeds(count: u64) -> (Range<u64>, bool) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, asked) = (number("RINGMASTER_SIMULATION_SEED"), number("RINGMASTER_SIMULATION_COUNT"));
    let count = asked.unwrap_or(if first.is_some() { 1 } else { count });
    let is_default = first.is_none() && asked.is_none();
    let first = first.unwrap_or_default();
    (first..first + count, is_default)
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
                "repeat with: RINGMASTER_SIMULATION_SEED={seed} cargo test -p ringmaster-tests delivery"
            );
        }
    }
}
