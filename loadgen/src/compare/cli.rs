//! The command line of `loadgen compare`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser};

use crate::cli::{AGENTS_MAX, CipherName, Cli, Dialect, Job, Place, SinkName, UsageError};
use crate::values::parse_duration;

/// Most events of one segment.
const SEGMENT_MAX: u32 = 1_024;
/// Offered for the CPU an event when nobody says: what every manager here takes with both ciphers.
const RATE_DEFAULT: f64 = 50_000.0;

/// Sets TCP against UDP: the same manager, agents, events and rates, over the events in one segment.
///
/// Measures the manager's CPU an event at one common rate, the highest rate without loss, and the latency at half of
/// that; prints the curve, and where TCP becomes cheaper. Exit status: 0 all was measured, 1 something was not, 2 the
/// command line is wrong.
#[derive(Debug, Clone, Args)]
pub struct CompareCli {
    /// Agents in the fleet.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(AGENTS_MAX)))]
    pub agents: u32,
    /// Cipher of the agents.
    #[arg(long, value_enum, default_value_t = CipherName::Aes)]
    pub cipher: CipherName,
    /// Whose agents they are.
    #[arg(long, value_enum, default_value_t = Dialect::Wazuh)]
    pub dialect: Dialect,
    /// Text of each event, in bytes.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub bytes: u32,
    /// Events in one TCP segment, or datagrams back to back.
    #[arg(long, default_value = "1,2,4,8,16,32,64", value_name = "LIST")]
    pub segments: Segments,
    /// Events a second at which the CPU an event is measured, the same for all.
    #[arg(long, default_value_t = RATE_DEFAULT, value_name = "EVENTS/S")]
    pub rate: f64,
    /// Bound on the search for the highest rate.
    #[arg(long, default_value_t = 800_000.0, value_name = "EVENTS/S")]
    pub rate_max: f64,
    /// How often CPU and latency of each point are measured, protocols in turn.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub turns: u32,
    /// How long events are made for one measurement or trial: 2, 2s, 500ms.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Duration,
    /// The whole ends by itself after this, and says what it had no time for.
    #[arg(long, default_value = "12m", value_name = "TIME", value_parser = parse_duration)]
    pub budget: Duration,
    /// Where the embedded manager hands events over.
    #[arg(long, value_enum, default_value_t = SinkName::Queue, conflicts_with = "target")]
    pub sink: SinkName,
    /// Seed of the schedules and of the lines.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write everything as JSON to this file (`-`: standard output).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the curves as one HTML page, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// The manager, and the cores.
    #[command(flatten)]
    pub place: Place,
    /// Bound on the memory of the messages that are sealed ahead, in MiB.
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    pub seal_memory_mib: u64,
}

/// Numbers of events in one segment, growing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments(pub Vec<u32>);

impl FromStr for Segments {
    type Err = String;

    fn from_str(text: &str) -> Result<Segments, String> {
        let cure = || format!("`{text}` is no list of events a segment; write 1,4,16 (1 to {SEGMENT_MAX})");
        let number = |word: &str| {
            let number = word.trim().parse::<u32>().map_err(|_| cure())?;
            if (1..=SEGMENT_MAX).contains(&number) { Ok(number) } else { Err(cure()) }
        };
        let segments = text.split(',').map(number).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Segments(segments.into_iter().collect()))
    }
}

/// A comparison, with nothing left to check on the command line.
#[derive(Debug, Clone)]
pub struct CompareJob {
    /// Fleet, manager and bounds as those of a run; protocol, rate and burst are each leg's own.
    pub job: Job,
    /// Events a segment, growing.
    pub segments: Vec<u32>,
    /// Common rate of the CPU an event.
    pub rate: f64,
    /// Bound of the search.
    pub rate_max: f64,
    /// How often CPU and latency are measured.
    pub turns: u32,
    /// Bound on the whole.
    pub budget: Duration,
    /// Where the page goes.
    pub html: Option<PathBuf>,
}

impl CompareJob {
    /// Checks what was typed.
    ///
    /// # Errors
    /// Says which value is impossible, and what would be possible.
    pub fn from_cli(cli: &CompareCli) -> Result<CompareJob, UsageError> {
        let rate_max = cli.rate_max;
        if !(cli.rate.is_finite() && cli.rate > 0.0 && cli.rate <= rate_max && rate_max <= 1e8) {
            return Err(UsageError(format!(
                "--rate {} is not between 0 and --rate-max {rate_max} (at most 100000000)",
                cli.rate
            )));
        }
        if cli.budget < cli.duration {
            return Err(UsageError(format!(
                "--budget {:?} is less than one measurement of --duration {:?}",
                cli.budget, cli.duration
            )));
        }
        let job = Job::from_cli(&Cli {
            agents: cli.agents,
            cipher: cli.cipher,
            dialect: cli.dialect,
            bytes: cli.bytes,
            rate: Some(rate_max),
            duration: cli.duration,
            sink: cli.sink,
            seed: cli.seed,
            json: cli.json.clone(),
            place: cli.place.clone(),
            seal_memory_mib: cli.seal_memory_mib,
            // All that the comparison does not let choose is as a run has it when nobody says.
            ..Cli::parse_from(["loadgen"])
        })?;
        Ok(CompareJob {
            job,
            segments: cli.segments.0.clone(),
            rate: cli.rate,
            rate_max,
            turns: cli.turns,
            budget: cli.budget,
            html: cli.html.clone(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::{Command, ManagerChoice, Program};

    pub(crate) fn job(words: &str) -> Result<CompareJob, String> {
        let words = format!("loadgen compare {words}");
        let program = Program::try_parse_from(words.split_whitespace()).map_err(|error| error.to_string())?;
        let Some(Command::Compare(cli)) = program.command else { panic!("{words}: not a comparison") };
        CompareJob::from_cli(&cli).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_of_the_readme_is_twenty_thousand_agents_over_seven_segments() {
        let found = job("--agents 20000").unwrap();
        assert_eq!((found.job.agents, found.rate, found.turns), (20_000, 50_000.0, 3));
        assert_eq!(found.segments, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!((found.job.duration, found.budget), (Duration::from_secs(2), Duration::from_secs(720)));
        let target = job("--target 127.0.0.1:1 --keys k --queue q --manager-pid 7 --segments 4,1,4").unwrap();
        assert!(matches!(target.job.manager, ManagerChoice::Target { pid: Some(7), .. }));
        assert_eq!(target.segments, [1, 4]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_value_and_the_cure() {
        for (words, expected) in [
            ("--segments 0", "1,4,16"),
            ("--segments 1,x", "1,4,16"),
            ("--segments 2000", "1024"),
            ("--rate 0", "--rate 0"),
            ("--rate 2000 --rate-max 1000", "--rate-max 1000"),
            ("--budget 1s", "--budget"),
            ("--bytes 20", "--bytes 20"),
            ("--duration 0", "1ms"),
            ("--turns 0", "--turns"),
            ("--target 127.0.0.1:1514", "--keys"),
        ] {
            let error = job(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }

    #[test]
    fn the_main_command_has_no_word_in_front_and_is_not_mixed_with_the_other() {
        let parse = |words: &str| Program::try_parse_from(format!("loadgen {words}").split_whitespace());
        let program = parse("--agents 7 --proto udp").unwrap();
        assert!(program.command.is_none());
        assert_eq!(program.run.agents, 7);
        assert!(parse("--agents 7 compare --agents 8").is_err());
    }
}
