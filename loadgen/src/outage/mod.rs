//! What an outage costs: numbered events before, during and after it, and what became of each.
//!
//! The experiment of "OSSEC event loss troubleshooting", as a command. Simulated agents and a proxy in front of the manager, on one
//! thread; the agents' clock runs `scale` times as fast as the wall's, so that hours of time-reconnect fit into seconds.

pub mod account;
pub mod cli;
mod page;
mod proxy;
mod scene;
mod subject;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::outage::account::Became;
use crate::outage::cli::OutageJob;
use crate::outage::scene::play;

/// What is away during an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// The network: nothing passes, nobody is told.
    Network,
    /// The manager, stopped (SIGTERM) and started again.
    ManagerStopped,
    /// The manager, killed (SIGKILL) and started again.
    ManagerKilled,
    /// The agent, killed and started again with the counters that it had on disk.
    AgentRestarted,
}

/// How events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// An OSSEC agent over UDP.
    Udp,
    /// The same agent over TCP.
    Tcp,
}

impl Cut {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Cut::Network => "network cut",
            Cut::ManagerStopped => "manager stopped",
            Cut::ManagerKilled => "manager killed",
            Cut::AgentRestarted => "agent restarted",
        }
    }
}

impl Path {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Path::Udp => "agent over UDP",
            Path::Tcp => "agent over TCP",
        }
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
    /// How many times as fast as the wall's the agents' clock ran.
    pub scale: f64,
    /// Agents of each scene.
    pub agents: u32,
    /// Events a second of each agent's own time.
    pub rate: f64,
    /// Where the chances of repetitions come from.
    pub seed: u64,
    /// Each path with each cut, in turn.
    pub scenes: Vec<Scene>,
    /// Whether it was ended before all were played.
    pub is_cut_short: bool,
}

/// The times of a scene, in the agents' seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Events before the outage.
    pub before: f64,
    /// How long it lasts.
    pub outage: f64,
    /// Events after it.
    pub after: f64,
    /// Between an agent's keep-alives.
    pub notify_time: f64,
    /// After the last word of its manager an agent takes it for gone.
    pub time_reconnect: f64,
}

/// One path with one cut.
#[derive(Debug, Clone, Serialize)]
pub struct Scene {
    /// How events travelled.
    pub path: Path,
    /// What was away.
    pub cut: Cut,
    /// When the outage began, and when it ended, in the agents' seconds.
    pub outage: [f64; 2],
    /// What became of all events.
    #[serde(flatten)]
    pub became: Became,
}

/// Plays all scenes; `interrupted` ends it early, with what there is by then.
///
/// # Errors
/// What kept a scene from being played.
pub fn outages(asked: &OutageJob, command: String, interrupted: &AtomicBool) -> Result<Outages, String> {
    let date = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string();
    let mut found = Outages {
        command,
        date,
        times: asked.times,
        scale: asked.scale,
        agents: asked.agents,
        rate: asked.rate,
        seed: asked.seed,
        scenes: Vec::new(),
        is_cut_short: false,
    };
    for (path, cut, times) in asked.scenes() {
        match play(asked, path, cut, times, interrupted)? {
            Some(scene) => {
                eprintln!("{}: {}: {}", path.words(), cut.words(), scene.became);
                found.scenes.push(scene);
            }
            None => break,
        }
    }
    found.is_cut_short = interrupted.load(Ordering::Relaxed);
    Ok(found)
}

/// Seconds that JSON and tables show.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}
