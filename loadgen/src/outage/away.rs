//! What is away during an outage, and which outages a seed draws.

use serde::Serialize;

use crate::outage::Path;
use crate::plan::mix;

/// What is away during an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// The network: nothing passes, nobody is told.
    Network,
    /// The network, and everybody is told: connections are reset, and so is each new one.
    NetworkReset,
    /// The manager, stopped (SIGTERM) and started again.
    ManagerStopped,
    /// The manager, killed (SIGKILL) and started again.
    ManagerKilled,
    /// The agent with its collectors, killed and started again with what it had on disk.
    AgentRestarted,
    /// The agent alone, killed (SIGKILL) and started again; its collectors wait.
    AgentKilled,
    /// The broker's client, killed (SIGKILL) and started again.
    BrokerClientKilled,
    /// The broker's server, killed (SIGKILL) and started again.
    BrokerServerKilled,
}

/// An outage of a repetition: what, of whom, and when, in the agents' seconds from the beginning of events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drawn {
    /// What is away.
    pub cut: Cut,
    /// Whose, if it is one agent's.
    pub agent: Option<u32>,
    /// From then.
    pub from: f64,
    /// Until then.
    pub to: f64,
}

impl Cut {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Cut::Network => "network cut",
            Cut::NetworkReset => "network reset",
            Cut::ManagerStopped => "manager stopped",
            Cut::ManagerKilled => "manager killed",
            Cut::AgentRestarted => "agent restarted",
            Cut::AgentKilled => "agent killed",
            Cut::BrokerClientKilled => "broker's client killed",
            Cut::BrokerServerKilled => "broker's server killed",
        }
    }

    /// Whether a path has such a thing.
    pub fn is_of(self, path: Path) -> bool {
        match self {
            Cut::Network | Cut::ManagerStopped | Cut::ManagerKilled => true,
            Cut::NetworkReset => path != Path::Udp && path != Path::OssecUdp,
            Cut::AgentRestarted => !path.has_broker(),
            Cut::AgentKilled => path.is_ringmaster_agent(),
            Cut::BrokerClientKilled | Cut::BrokerServerKilled => path.has_broker(),
        }
    }

    /// Whether somebody gets SIGKILL.
    pub fn is_kill(self) -> bool {
        match self {
            Cut::Network | Cut::NetworkReset | Cut::ManagerStopped => false,
            Cut::ManagerKilled
            | Cut::AgentRestarted
            | Cut::AgentKilled
            | Cut::BrokerClientKilled
            | Cut::BrokerServerKilled => true,
        }
    }
}

/// How many outages a repetition has at most.
const DRAWN_MAX: u64 = 4;
/// The shortest, as a share of the time in which outages begin.
const LENGTH_MIN: f64 = 0.01;
/// The longest of most, and of one in eight.
const LENGTH_MAX: f64 = 0.5;
const LENGTH_MAX_RARE: f64 = 1.5;

/// The outages of the repetition with this seed. They begin within `outage` seconds after `before`; half of those that follow
/// another begin while that one lasts or soon after it.
///
/// # Panics
/// If there are no cuts to choose from.
pub(super) fn draw(seed: u64, cuts: &[Cut], agents: u32, before: f64, outage: f64) -> Vec<Drawn> {
    assert!(!cuts.is_empty(), "a path has at least one cut");
    let mut chances = Chances(mix(seed));
    let mut drawn: Vec<Drawn> = Vec::new();
    for _ in 0..=chances.below(DRAWN_MAX) {
        let cut = cuts[chances.below(cuts.len() as u64) as usize];
        let agent = (cut == Cut::AgentKilled).then(|| chances.below(u64::from(agents)) as u32);
        let from = match drawn.last() {
            // While the last one lasts, or as long again after it.
            Some(last) if chances.below(2) == 0 => last.from + 2.0 * chances.share() * (last.to - last.from),
            Some(_) | None => before + chances.share() * outage,
        };
        let longest = if chances.below(8) == 0 { LENGTH_MAX_RARE } else { LENGTH_MAX };
        // Short ones as often as long ones.
        let length = outage * LENGTH_MIN * (longest / LENGTH_MIN).powf(chances.share());
        drawn.push(Drawn { cut, agent, from, to: from + length });
    }
    drawn
}

/// Numbers from a seed: the same seed plays the same outages.
#[derive(Debug, Clone)]
pub(super) struct Chances(pub(super) u64);

impl Chances {
    /// From 0 to below 1.
    pub(super) fn share(&mut self) -> f64 {
        self.0 = mix(self.0);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        (self.share() * end as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUTS: [Cut; 3] = [Cut::Network, Cut::ManagerKilled, Cut::AgentKilled];

    #[test]
    fn the_same_seed_draws_the_same_outages() {
        let drawn = |seed| draw(seed, &CUTS, 3, 30.0, 180.0);
        for seed in 0..200 {
            let outages = drawn(seed);
            assert_eq!(outages, drawn(seed));
            assert!((1..=4).contains(&outages.len()), "{outages:?}");
            for Drawn { cut, agent, from, to } in outages {
                assert!(from >= 30.0 && (1.79..=270.1).contains(&(to - from)), "seed {seed}: {from} to {to}");
                assert_eq!(agent.is_some(), cut == Cut::AgentKilled);
                assert!(agent.is_none_or(|agent| agent < 3));
            }
        }
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn a_hundred_seeds_have_every_cut_and_outages_that_overlap() {
        let all: Vec<_> = (0..100).map(|seed| draw(seed, &CUTS, 3, 30.0, 180.0)).collect();
        for cut in CUTS {
            let count = all.iter().flatten().filter(|drawn| drawn.cut == cut).count();
            assert!(count > 40, "{cut:?} {count}");
        }
        let overlaps = |outages: &Vec<Drawn>| {
            let overlap = |one: &Drawn, other: &Drawn| one.from < other.to && other.from < one.to;
            outages
                .iter()
                .enumerate()
                .any(|(at, one)| outages[at + 1..].iter().any(|other| overlap(one, other)))
        };
        assert!(all.iter().filter(|outages| overlaps(outages)).count() > 20);
    }
}
