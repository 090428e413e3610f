//! What one seed makes of a run: who takes part, and what goes wrong when.

use std::time::Duration;

use codec::Method;
use manager::{ReplayPolicy, SINKS_MAX};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// From here on nothing goes wrong any more, and no collector has anything new.
pub(super) const CALM: Duration = Duration::from_secs(20);
/// When everything must have come, and every agent must know it.
pub(super) const END: Duration = Duration::from_secs(20 + 60);

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) agents: Vec<Kind>,
    pub(super) replay: ReplayPolicy,
    /// Whether the manager agrees to acknowledge delivery.
    pub(super) agrees: bool,
    /// Which sinks the manager has.
    pub(super) sinks: Vec<usize>,
    /// Events that a shard's sinks hold before it pushes back.
    pub(super) sink_soft: usize,
    pub(super) delay_max: Duration,
    pub(super) faults: Vec<(Duration, Fault)>,
    /// What is done wrong on purpose, to see the oracle notice.
    pub(super) mutation: Option<Mutation>,
}

/// What kind of agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) method: Method,
    /// Whether its address in client.keys is `any`, so that it sends its id.
    pub(super) any: bool,
    pub(super) room: Room,
    /// How many events its collectors have.
    pub(super) events: u32,
}

/// How much an agent's spool takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Room {
    Ample,
    /// So little that collectors have to wait.
    PushesBack,
    /// So little that the oldest events are dropped.
    DropsOldest,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    AgentKilled,
    AgentStopped,
    /// For a moment the manager's settings refuse a cipher.
    CipherRefused,
    /// Some connection, and who hears of it.
    Cut(Cut),
    /// client.keys is written anew in another order.
    KeysReordered,
    /// A line is gone from client.keys for a while.
    KeyRemoved,
    /// It is stopped, and nobody starts it again for a long while.
    ManagerAway,
    ManagerKilled,
    ManagerStopped,
    /// A sink takes nothing for a while.
    SinkStalls,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cut {
    /// The agent sees it and comes back, while what it had sent arrives late, and not all of it.
    AgentFirst,
    /// Both see it; what is on the way is lost.
    Both,
    /// The manager sees it, the agent much later.
    ManagerFirst,
    /// Everything is swallowed, and nobody is told.
    Nobody,
}

/// A fault of a sink itself, which the oracle must see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mutation {
    /// It takes events without looking which sinks want them.
    IgnoreWanted,
    /// It throws an event away, and notes it.
    Lose,
    /// After a kill nobody looks for what an archive has and was not noted.
    NoLook,
    /// It notes what an archive writes before it has written it.
    NoteBefore,
    /// It takes an event over and does not note it.
    NoteNot,
    /// It takes two events in the wrong order.
    Swap,
}

impl Plan {
    /// The run that `seed` stands for.
    pub(super) fn of(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let agents = (0..random.random_range(1..=3)).map(|_| Kind::any_of(random)).collect();
        let sinks: Vec<usize> = match random.random_range(0..10) {
            0 => vec![random.random_range(0..SINKS_MAX)],
            1 => vec![0, random.random_range(1..SINKS_MAX)],
            _ => (0..SINKS_MAX).collect(),
        };
        Plan {
            seed,
            agents,
            replay: if random.random_bool(0.5) { ReplayPolicy::Window } else { ReplayPolicy::Strict },
            agrees: true,
            sinks,
            sink_soft: *[5, 20, 1_000].choose(random).expect("there are some"),
            delay_max: Duration::from_millis(*[1, 20, 300].choose(random).expect("there are some")),
            faults: faults(random),
            mutation: None,
        }
    }
}

impl Kind {
    fn any_of(random: &mut StdRng) -> Kind {
        Kind {
            method: if random.random_bool(0.5) { Method::Blowfish } else { Method::AesOssec },
            any: random.random_bool(0.5),
            room: *[Room::Ample, Room::Ample, Room::PushesBack, Room::DropsOldest]
                .choose(random)
                .expect("there are some"),
            events: random.random_range(20..250),
        }
    }
}

/// Some faults, each alone or with another one within a moment.
fn faults(random: &mut StdRng) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..random.random_range(0..10) {
        let at = CALM.mul_f64(random.random::<f64>());
        faults.push((at, Fault::any_of(random)));
        if random.random_bool(0.4) {
            let moment = Duration::from_micros(random.random_range(0..100_000));
            faults.push((at + moment, Fault::any_of(random)));
        }
    }
    faults.retain(|(at, _)| *at < CALM);
    faults
}

impl Fault {
    fn any_of(random: &mut StdRng) -> Fault {
        match random.random_range(0..17) {
            0..=2 => Fault::AgentKilled,
            3 => Fault::AgentStopped,
            4..=8 => {
                let cuts = [Cut::AgentFirst, Cut::AgentFirst, Cut::Both, Cut::ManagerFirst, Cut::Nobody];
                Fault::Cut(*cuts.choose(random).expect("there are some"))
            }
            9 => Fault::KeysReordered,
            10 => Fault::KeyRemoved,
            11 | 12 => Fault::ManagerKilled,
            13 => Fault::ManagerStopped,
            14 => Fault::CipherRefused,
            _ => Fault::SinkStalls,
        }
    }
}
