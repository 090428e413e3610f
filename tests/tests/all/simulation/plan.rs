//! What one seed makes of a run: who takes part, and what goes wrong.

use std::time::Duration;

use agent::Transport;
use codec::{Method, Product};
use manager::ReplayPolicy;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// From here on nothing goes wrong any more.
pub(super) const CALM: Duration = Duration::from_secs(60);
/// How long after that everything must be well again: the longest time-reconnect, and then some resends.
pub(super) const RECOVERED: Duration = Duration::from_secs(60 + 150);
/// When what was sent last must have arrived.
pub(super) const END: Duration = Duration::from_secs(60 + 150 + 15);

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) shards: u8,
    pub(super) replay: ReplayPolicy,
    pub(super) fleet: Vec<Kind>,
    pub(super) faults: Faults,
    /// How long agents wait for a sign of life. A keep-alive goes every third of it.
    pub(super) time_reconnect: Duration,
    /// Events that a shard's sink holds before it pushes back.
    pub(super) sink_soft: usize,
    /// What is done wrong on purpose, to see the oracle notice.
    pub(super) mutation: Option<Mutation>,
}

/// What kind of agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) product: Product,
    pub(super) transport: Transport,
    pub(super) method: Method,
    /// Whether its address in client.keys is `any`, so that it sends its id.
    pub(super) any: bool,
}

/// What goes wrong until [`CALM`]. Chances are for each datagram or segment, counts for the run.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) delay_max: Duration,
    pub(super) loss: f64,
    pub(super) repetition: f64,
    pub(super) truncation: f64,
    pub(super) corruption: f64,
    /// Datagrams of the past that somebody sends again.
    pub(super) replays: u32,
    pub(super) wire_breaks: u32,
    pub(super) manager_crashes: u32,
    pub(super) manager_stops: u32,
    pub(super) agent_crashes: u32,
    pub(super) reader_absences: u32,
    pub(super) reloads: u32,
}

/// A fault of the program itself, at the so-manieth event that is published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mutation {
    Alter,
    Lose,
    MiscountVerdict,
    Repeat,
    Swap,
}

impl Plan {
    /// The run that `seed` stands for.
    pub(super) fn of(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let size = if random.random_bool(0.1) { 40 } else { random.random_range(1..=8) };
        let fleet = (0..size).map(|_| Kind::any_of(random)).collect();
        Plan {
            seed,
            shards: random.random_range(1..=3),
            replay: if random.random_bool(0.3) { ReplayPolicy::Window } else { ReplayPolicy::Strict },
            fleet,
            faults: if random.random_bool(0.1) { Faults::default() } else { Faults::any_of(random) },
            time_reconnect: Duration::from_secs(60),
            sink_soft: random.random_range(1..=40),
            mutation: None,
        }
    }

    /// A run in which nothing goes wrong.
    pub(super) fn without_faults(seed: u64) -> Plan {
        Plan { faults: Faults::default(), ..Plan::of(seed) }
    }
}

impl Kind {
    fn any_of(random: &mut StdRng) -> Kind {
        let product = if random.random_bool(0.5) { Product::Ossec } else { Product::Wazuh };
        let aes = match product {
            Product::Ossec => Method::AesOssec,
            Product::Wazuh => Method::AesWazuh,
        };
        Kind {
            product,
            transport: if random.random_bool(0.5) { Transport::Tcp } else { Transport::Udp },
            method: if random.random_bool(0.5) { Method::Blowfish } else { aes },
            any: random.random_bool(0.5),
        }
    }
}

impl Faults {
    fn any_of(random: &mut StdRng) -> Faults {
        let mut chance = |max: f64| if random.random_bool(0.5) { random.random_range(0.0..max) } else { 0.0 };
        let (loss, repetition, truncation, corruption) = (chance(0.4), chance(0.3), chance(0.1), chance(0.1));
        let mut count = |max: u32| if random.random_bool(0.5) { random.random_range(1..=max) } else { 0 };
        Faults {
            replays: count(60),
            wire_breaks: count(6),
            manager_crashes: count(3),
            manager_stops: count(2),
            agent_crashes: count(6),
            reader_absences: count(2),
            reloads: count(4),
            delay_max: Duration::from_millis(random.random_range(1..=2_000)),
            loss,
            repetition,
            truncation,
            corruption,
        }
    }
}
