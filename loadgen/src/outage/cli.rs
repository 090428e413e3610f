//! The options of `loadgen outage`, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cli::UsageError;
use crate::outage::{Cut, Path, Times};
use crate::plan::mix;
use crate::values::parse_duration;

/// The options. Times are the agents' own; the wall sees them `scale` times as short.
#[derive(Debug, Clone, Parser)]
pub struct OutageCli {
    /// What is away, each in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Cut::Network, Cut::ManagerStopped, Cut::ManagerKilled, Cut::AgentRestarted])]
    pub cuts: Vec<Cut>,
    /// How events travel, each in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Path::Udp, Path::Tcp])]
    pub paths: Vec<Path>,
    /// Agents of each scene.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30))]
    pub agents: u32,
    /// Events a second of each agent.
    #[arg(long, default_value_t = 1.0, value_name = "EVENTS/S")]
    pub rate: f64,
    /// How long the outage lasts.
    #[arg(long, default_value = "8m", value_name = "TIME", value_parser = parse_duration)]
    pub outage: Duration,
    /// How long events are written before it.
    #[arg(long, default_value = "4m", value_name = "TIME", value_parser = parse_duration)]
    pub before: Duration,
    /// How long events are written after it.
    #[arg(long, default_value = "6m", value_name = "TIME", value_parser = parse_duration)]
    pub after: Duration,
    /// Between an agent's keep-alives.
    #[arg(long, default_value = "80s", value_name = "TIME", value_parser = parse_duration)]
    pub notify_time: Duration,
    /// After the last word of its manager an agent takes it for gone.
    #[arg(long, default_value = "240s", value_name = "TIME", value_parser = parse_duration)]
    pub time_reconnect: Duration,
    /// How many times as fast as the wall's the agents' clock runs.
    #[arg(long, default_value_t = 60.0, value_name = "FACTOR")]
    pub scale: f64,
    /// Play each path with each cut so often, every time with another beginning and length of the outage.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: u32,
    /// Where these chances come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write what was found as JSON to this file (`-`: standard output).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a self-contained page with a timeline of each scene.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What was asked, in range.
#[derive(Debug, Clone)]
pub struct OutageJob {
    pub(crate) cuts: Vec<Cut>,
    pub(crate) paths: Vec<Path>,
    pub(crate) agents: u32,
    pub(crate) rate: f64,
    pub(crate) times: Times,
    pub(crate) scale: f64,
    pub(crate) repeat: u32,
    pub(crate) seed: u64,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Where the page goes.
    pub html: Option<PathBuf>,
}

/// The clock may run so much faster; above it, a turn of a millisecond would be longer than an agent's shortest wait.
const SCALE_MAX: f64 = 600.0;
const RATE_MAX: f64 = 1_000.0;

impl OutageJob {
    /// Checks what was typed.
    ///
    /// # Errors
    /// What is out of range, and the cure.
    pub fn from_cli(cli: &OutageCli) -> Result<OutageJob, UsageError> {
        if !(1.0..=SCALE_MAX).contains(&cli.scale) {
            return Err(UsageError(format!("--scale {}: use 1 to {SCALE_MAX}", cli.scale)));
        }
        if !(cli.rate > 0.0 && cli.rate <= RATE_MAX) {
            return Err(UsageError(format!("--rate {}: use more than 0 and at most {RATE_MAX}", cli.rate)));
        }
        if cli.notify_time.is_zero() || cli.time_reconnect < cli.notify_time {
            let problem = "--notify-time must be above 0, and --time-reconnect no shorter: agents would reconnect for ever";
            return Err(UsageError(problem.into()));
        }
        let times = Times {
            before: cli.before.as_secs_f64(),
            outage: cli.outage.as_secs_f64(),
            after: cli.after.as_secs_f64(),
            notify_time: cli.notify_time.as_secs_f64(),
            time_reconnect: cli.time_reconnect.as_secs_f64(),
        };
        Ok(OutageJob {
            cuts: cli.cuts.clone(),
            paths: cli.paths.clone(),
            agents: cli.agents,
            rate: cli.rate,
            times,
            scale: cli.scale,
            repeat: cli.repeat,
            seed: cli.seed,
            json: cli.json.clone(),
            html: cli.html.clone(),
        })
    }

    /// Every path with every cut, as often as asked. The first time is as typed; each later outage begins up to a
    /// notify-time later and lasts between a tenth of and the whole of its time.
    pub(crate) fn scenes(&self) -> Vec<(Path, Cut, Times)> {
        let mut chances = Chances(self.seed);
        let mut scenes = Vec::new();
        for turn in 0..self.repeat {
            for cut in &self.cuts {
                for path in &self.paths {
                    let mut times = self.times;
                    if turn > 0 {
                        times.before += chances.share() * times.notify_time;
                        times.outage *= 0.1 + 0.9 * chances.share();
                    }
                    scenes.push((*path, *cut, times));
                }
            }
        }
        scenes
    }
}

/// Numbers from a seed: the same seed plays the same outages.
struct Chances(u64);

impl Chances {
    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        self.0 = mix(self.0);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &[&str]) -> Result<OutageJob, UsageError> {
        OutageJob::from_cli(&OutageCli::try_parse_from([&["outage"], words].concat()).unwrap())
    }

    #[test]
    fn the_first_turn_is_as_typed_and_the_others_come_from_the_seed() {
        let asked =
            job(&["--paths", "tcp", "--cuts", "network,manager-killed", "--repeat", "3", "--seed", "7"])
                .unwrap();
        let scenes = asked.scenes();
        assert_eq!(scenes.len(), 6);
        assert_eq!((scenes[0].2.before, scenes[0].2.outage), (240.0, 480.0));
        for (_, _, times) in &scenes[2..] {
            assert!(
                (240.0..320.0).contains(&times.before) && (48.0..480.0).contains(&times.outage),
                "{times:?}"
            );
        }
        let times = |job: &OutageJob| job.scenes().iter().map(|scene| scene.2.outage).collect::<Vec<_>>();
        assert_eq!(times(&asked), times(&asked));
        assert_ne!(times(&asked), times(&OutageJob { seed: 8, ..asked.clone() }));
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_a_cure() {
        for (words, cure) in [
            (["--scale", "0.5"], "use 1 to 600"),
            (["--rate", "0"], "more than 0"),
            (["--time-reconnect", "10s"], "no shorter"),
        ] {
            let error = job(&words).unwrap_err().to_string();
            assert!(error.contains(cure), "{error}");
        }
    }
}
