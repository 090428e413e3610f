//! What an outage costs: numbered events before, during and after it, and what became of each.
//!
//! The experiment of "OSSEC event loss troubleshooting", as a command. Agents, simulated or real, a proxy in front of the manager,
//! and a reader in analysisd's place. The simulated agents' clock runs `scale` times as fast as the wall's, so that hours of
//! time-reconnect fit into minutes; programs are told times that are as much shorter.
//!
//! What is played: a `scene` is one path with one cut, a `storm` one path with outages that a seed draws; either has a
//! `stage` of its own. On it stand `hosts` (with a `subject`, or an `installed` agent's program), a `broker`, a `proxy` and
//! a manager (`managers`); `account` says what became of each event.

pub mod account;
mod arrivals;
mod away;
mod broker;
pub mod cli;
mod hosts;
mod installed;
mod managers;
mod ossec;
mod page;
mod program;
mod proxy;
mod scene;
mod stage;
mod storm;
mod subject;
mod table;
mod taken;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

pub use away::{Cut, Drawn};
pub use program::become_if_child;
pub use scene::Scene;
pub use storm::{Repetition, Storm};

use crate::outage::cli::OutageJob;

/// How events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// An OSSEC agent over UDP.
    Udp,
    /// The same agent over TCP.
    Tcp,
    /// An OSSEC agent over UDP, with ringmaster-broker in mode gate before it.
    BrokerGate,
    /// The same in mode relay.
    BrokerRelay,
    /// ringmaster-agent over TCP, as any manager knows it.
    AgentPlain,
    /// ringmaster-agent over TCP, with acknowledged delivery.
    AgentAcknowledged,
    /// OSSEC's own ossec-agentd over UDP, to ossec-remoted.
    OssecUdp,
    /// The same with ringmaster-broker in mode relay between them.
    OssecRelay,
}

impl Path {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Path::Udp => "agent over UDP",
            Path::Tcp => "agent over TCP",
            Path::BrokerGate => "UDP, broker, gate",
            Path::BrokerRelay => "UDP, broker, relay",
            Path::AgentPlain => "ringmaster-agent, plain",
            Path::AgentAcknowledged => "ringmaster-agent, acknowledged",
            Path::OssecUdp => "ossec-agentd, ossec-remoted",
            Path::OssecRelay => "ossec-agentd, relay, ossec-remoted",
        }
    }

    /// Whether ringmaster-broker stands between agent and manager.
    pub fn has_broker(self) -> bool {
        match self {
            Path::BrokerGate | Path::BrokerRelay | Path::OssecRelay => true,
            Path::Udp | Path::Tcp | Path::AgentPlain | Path::AgentAcknowledged | Path::OssecUdp => false,
        }
    }

    /// Whether the agent is ringmaster-agent.
    pub fn is_ringmaster_agent(self) -> bool {
        match self {
            Path::AgentPlain | Path::AgentAcknowledged => true,
            Path::Udp
            | Path::Tcp
            | Path::BrokerGate
            | Path::BrokerRelay
            | Path::OssecUdp
            | Path::OssecRelay => false,
        }
    }

    /// Whether agent and manager are OSSEC's own programs.
    pub fn is_ossec(self) -> bool {
        match self {
            Path::OssecUdp | Path::OssecRelay => true,
            Path::Udp
            | Path::Tcp
            | Path::BrokerGate
            | Path::BrokerRelay
            | Path::AgentPlain
            | Path::AgentAcknowledged => false,
        }
    }

    /// Whether it promises that no event is lost or comes twice.
    pub fn is_exact(self) -> bool {
        match self {
            Path::AgentAcknowledged | Path::BrokerRelay => true,
            Path::Udp
            | Path::Tcp
            | Path::BrokerGate
            | Path::AgentPlain
            | Path::OssecUdp
            | Path::OssecRelay => false,
        }
    }

    /// Whether an exact path promises exactness also over this. A relay's server knows what the manager has read; what a manager
    /// that gets SIGKILL had read and not handed on is lost with it, and what it takes twice is decided by its counters on disk.
    pub fn promises_over(self, cut: Cut) -> bool {
        self.is_exact() && !(self == Path::BrokerRelay && cut == Cut::ManagerKilled)
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Outages {
    /// What was typed, and when.
    pub command: String,
    /// When it was begun.
    pub date: String,
    /// Times of the agents, in their own seconds.
    pub times: Times,
    /// What programs were told, in the wall's seconds; `None` if no path has any.
    pub programs: Option<ProgramTimes>,
    /// How many times as fast as the wall's the agents' clock ran.
    pub scale: f64,
    /// Agents of each scene.
    pub agents: u32,
    /// Events a second of each agent's own time.
    pub rate: f64,
    /// Where the chances of repetitions come from.
    pub seed: u64,
    /// Paths that were not played, and why.
    pub left_out: Vec<String>,
    /// Each path with each cut, in turn.
    pub scenes: Vec<Scene>,
    /// Each path with the outages that were drawn.
    pub storms: Vec<Storm>,
    /// What could not be played, and why.
    pub failed: Vec<String>,
    /// Whether it was ended before all were played.
    pub is_cut_short: bool,
}

/// The times of a scene, in the agents' seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// Events before the outage.
    pub before: f64,
    /// How long it lasts; of a storm: how long outages begin.
    pub outage: f64,
    /// Events after it.
    pub after: f64,
    /// Between an agent's keep-alives.
    pub notify_time: f64,
    /// After the last word of its manager an agent takes it for gone.
    pub time_reconnect: f64,
}

/// What ringmaster-agent and OSSEC's programs are told, in whole seconds of the wall's clock, which is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProgramTimes {
    /// Between keep-alives.
    pub notify_time: u64,
    /// After the manager's last word it is gone.
    pub time_reconnect: u64,
    /// A silent host's connection is lost.
    pub lost_after: u64,
    /// The longest wait between two attempts to connect.
    pub wait_max: u64,
    /// How long after an event the manager is asked to confirm it.
    pub confirm: u64,
}

impl ProgramTimes {
    /// The agents' times, and ringmaster-agent's defaults, as much shorter as the agents' clock is faster; at least what can be said.
    fn of(times: &Times, scale: f64) -> ProgramTimes {
        let whole = |seconds: f64, least: u64| ((seconds / scale).round() as u64).max(least);
        let notify_time = whole(times.notify_time, 1);
        ProgramTimes {
            notify_time,
            time_reconnect: whole(times.time_reconnect, notify_time + 1),
            lost_after: whole(30.0, 3),
            wait_max: whole(60.0, 1),
            confirm: whole(5.0, 1),
        }
    }
}

impl Outages {
    /// Whether all was played, and every path kept what it promises.
    pub fn holds(&self) -> bool {
        !self.is_cut_short
            && self.failed.is_empty()
            && self.storms.iter().all(|storm| storm.broken.is_empty())
    }
}

/// Plays all that was asked for; `interrupted` ends it early, with what there is by then.
///
/// # Errors
/// What kept everything from being played.
pub fn outages(asked: &OutageJob, command: String, interrupted: &AtomicBool) -> Result<Outages, String> {
    let date = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string();
    let mut found = Outages {
        command,
        date,
        times: asked.times,
        programs: asked
            .paths
            .iter()
            .any(|path| path.is_ringmaster_agent() || path.is_ossec())
            .then(|| asked.program_times()),
        scale: asked.scale,
        agents: asked.agents,
        rate: asked.rate,
        seed: asked.seed,
        left_out: asked.left_out.clone(),
        scenes: Vec::new(),
        storms: Vec::new(),
        failed: Vec::new(),
        is_cut_short: false,
    };
    match asked.repeat {
        None => {
            let played = at_once(asked.at_once, &asked.scenes(), |(path, cut)| {
                let scene = scene::play(asked, *path, *cut, interrupted);
                let scene = scene.map_err(|why| format!("{}: {}: {why}", path.words(), cut.words()))?;
                if let Some(scene) = &scene {
                    eprintln!("{}: {}: {}", path.words(), cut.words(), scene.became);
                }
                Ok(scene)
            });
            found.scenes = found.take_played(played)?;
        }
        Some(repeat) => {
            let played = at_once(asked.at_once, &asked.repetitions(repeat), |(path, seed)| {
                let repetition = storm::play(asked, *path, *seed, interrupted);
                repetition.map_err(|why| format!("{}: seed {seed}: {why}", path.words()))
            });
            let repetitions = found.take_played(played)?;
            found.storms = storm::storms(&asked.paths, repetitions);
        }
    }
    found.is_cut_short = interrupted.load(Ordering::Relaxed);
    Ok(found)
}

impl Outages {
    /// What was played; what failed is noted.
    ///
    /// # Errors
    /// If nothing could be played: the first reason.
    fn take_played<F>(&mut self, played: Vec<Result<Option<F>, String>>) -> Result<Vec<F>, String> {
        let count = played.len();
        let mut found = Vec::new();
        for one in played {
            match one {
                Ok(one) => found.extend(one),
                Err(why) => self.failed.push(why),
            }
        }
        if count > 0 && self.failed.len() == count {
            return Err(self.failed.swap_remove(0));
        }
        Ok(found)
    }
}

/// Plays all parts, so many at a time; what was found stands in their order.
fn at_once<P: Sync, F: Send>(count: usize, parts: &[P], play: impl Fn(&P) -> F + Sync) -> Vec<F> {
    let next = AtomicUsize::new(0);
    let found: Vec<Mutex<Option<F>>> = parts.iter().map(|_| Mutex::new(None)).collect();
    let is_locked = "nobody panics with it";
    thread::scope(|scope| {
        for _ in 0..count.min(parts.len()) {
            scope.spawn(|| {
                while let Some((part, found)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    parts.get(at).zip(found.get(at))
                } {
                    *found.lock().expect(is_locked) = Some(play(part));
                }
            });
        }
    });
    found.into_iter().filter_map(|one| one.into_inner().expect(is_locked)).collect()
}

/// Seconds that JSON and tables show.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_played_at_once_and_found_in_order() {
        let parts: Vec<u32> = (0..50).collect();
        assert_eq!(at_once(4, &parts, |part| part * 2), Vec::from_iter((0..100).step_by(2)));
    }

    #[test]
    fn programs_are_told_whole_seconds_and_never_too_few() {
        let times = Times { before: 0.0, outage: 0.0, after: 0.0, notify_time: 80.0, time_reconnect: 240.0 };
        let slow =
            ProgramTimes { notify_time: 20, time_reconnect: 60, lost_after: 8, wait_max: 15, confirm: 1 };
        assert_eq!(ProgramTimes::of(&times, 4.0), slow);
        let fast = ProgramTimes { notify_time: 1, time_reconnect: 2, lost_after: 3, wait_max: 1, confirm: 1 };
        assert_eq!(ProgramTimes::of(&times, 600.0), fast);
    }
}
