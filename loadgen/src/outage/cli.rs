//! The options of `loadgen outage`, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::cli::UsageError;
use crate::outage::ossec::Ossec;
use crate::outage::{Cut, Path, ProgramTimes, Times};
use crate::values::parse_duration;

/// The options. Times are the agents' own; the wall sees them `scale` times as short.
#[derive(Debug, Clone, Parser)]
pub struct OutageCli {
    /// What is away, each in turn; with --repeat, what is drawn from. A path is not played with what it does not have [default: all
    /// but network-reset; with --repeat all but agent-restarted, and of broker-relay but manager-killed, which no broker can mend]
    #[arg(long, value_enum, value_delimiter = ',', hide_default_value = true)]
    pub cuts: Vec<Cut>,
    /// How events travel, each in turn [default: all whose programs are found]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub paths: Vec<Path>,
    /// Agents of each scene [default: 10; with --repeat, 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30))]
    pub agents: Option<u32>,
    /// Events a second of each agent, in its own time [default: 1]
    #[arg(long, value_name = "EVENTS/S", conflicts_with = "wall_rate")]
    pub rate: Option<f64>,
    /// Events a second of each agent, in the wall's time [with --repeat, default: 200]
    #[arg(long, value_name = "EVENTS/S")]
    pub wall_rate: Option<f64>,
    /// How long the outage lasts; with --repeat, how long outages begin [default: 8m; with --repeat, 3m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub outage: Option<Duration>,
    /// How long events are written before it [default: 4m; with --repeat, 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub before: Option<Duration>,
    /// How long events are written after it [default: 6m; with --repeat, 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub after: Option<Duration>,
    /// Between an agent's keep-alives [default: 80s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub notify_time: Option<Duration>,
    /// After the last word of its manager an agent takes it for gone [default: 240s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub time_reconnect: Option<Duration>,
    /// How many times as fast as the wall's the agents' clock runs [default: 4; with --repeat, 60]
    #[arg(long, value_name = "FACTOR")]
    pub scale: Option<f64>,
    /// Play each path so often, with one to four outages each time: what, when and how long is drawn from the seed; also several at
    /// once. Exit status 1 if a path that promises to lose and repeat nothing did not keep that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: Option<u32>,
    /// Where chances come from. The first repetition has this seed, each next one more.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Scenes that are played at the same time [default: all; with --repeat, one for each core]
    #[arg(long, value_name = "N")]
    pub at_once: Option<usize>,
    /// ringmaster-broker [default: beside loadgen]
    #[arg(long, value_name = "PROGRAM")]
    pub broker: Option<PathBuf>,
    /// ringmaster-agent [default: beside loadgen]
    #[arg(long, value_name = "PROGRAM")]
    pub agent_program: Option<PathBuf>,
    /// OSSEC's ossec-agentd, for the paths ossec-udp and ossec-relay, which need root
    #[arg(long, value_name = "PROGRAM", requires_all = ["ossec_remoted", "ossec_home"])]
    pub ossec_agentd: Option<PathBuf>,
    /// OSSEC's ossec-remoted, of the same
    #[arg(long, value_name = "PROGRAM", requires = "ossec_agentd")]
    pub ossec_remoted: Option<PathBuf>,
    /// The home that both were built for; temporary ones are mounted over it, for them alone
    #[arg(long, value_name = "DIR", requires = "ossec_agentd")]
    pub ossec_home: Option<PathBuf>,
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
    /// Whether outages are drawn, and nobody said from which.
    pub(crate) draws_promised: bool,
    pub(crate) paths: Vec<Path>,
    pub(crate) left_out: Vec<String>,
    pub(crate) agents: u32,
    /// Of each agent, in its own time.
    pub(crate) rate: f64,
    pub(crate) times: Times,
    pub(crate) scale: f64,
    pub(crate) repeat: Option<u32>,
    pub(crate) seed: u64,
    pub(crate) at_once: usize,
    pub(crate) broker: PathBuf,
    pub(crate) agent_program: PathBuf,
    ossec: Option<Ossec>,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Where the page goes.
    pub html: Option<PathBuf>,
}

/// The clock may run so much faster; above it, a turn of a millisecond would be longer than an agent's shortest wait.
const SCALE_MAX: f64 = 600.0;
/// Of the wall's events a second of one agent.
const RATE_MAX: f64 = 1_000.0;
/// More scenes at once than any machine plays in time.
const AT_ONCE_MAX: usize = 64;

impl OutageJob {
    /// Checks what was typed.
    ///
    /// # Errors
    /// What is out of range or missing, and the cure.
    pub fn from_cli(cli: &OutageCli) -> Result<OutageJob, UsageError> {
        let repeats = cli.repeat.is_some();
        let scale = cli.scale.unwrap_or(if repeats { 60.0 } else { 4.0 });
        if !(1.0..=SCALE_MAX).contains(&scale) {
            return Err(UsageError(format!("--scale {scale}: use 1 to {SCALE_MAX}")));
        }
        let wall_rate = cli.wall_rate.or(cli.rate.map(|rate| rate * scale));
        let wall_rate = wall_rate.unwrap_or(if repeats { 200.0 } else { scale });
        if !(wall_rate > 0.0 && wall_rate <= RATE_MAX) {
            return Err(UsageError(format!(
                "{wall_rate} events/s of each agent on the wall's clock: use more than 0 and at most {RATE_MAX} (--wall-rate, or \
                 --rate times --scale)"
            )));
        }
        let at_once = cli.at_once.unwrap_or_else(|| if repeats { cores() } else { AT_ONCE_MAX });
        if !(1..=AT_ONCE_MAX).contains(&at_once) {
            return Err(UsageError(format!("--at-once {at_once}: use 1 to {AT_ONCE_MAX}")));
        }
        let broker = Found::program(&cli.broker, "--broker", "ringmaster-broker")?;
        let agent_program = Found::program(&cli.agent_program, "--agent-program", "ringmaster-agent")?;
        let ossec = ossec(cli)?;
        let (paths, left_out) = paths(&cli.paths, &broker, &agent_program, ossec.is_some())?;
        let job = OutageJob {
            cuts: cuts(&cli.cuts, repeats),
            draws_promised: repeats && cli.cuts.is_empty(),
            paths,
            left_out,
            agents: cli.agents.unwrap_or(if repeats { 3 } else { 10 }),
            rate: wall_rate / scale,
            times: times(cli, repeats)?,
            scale,
            repeat: cli.repeat,
            seed: cli.seed,
            at_once,
            broker: broker.path,
            agent_program: agent_program.path,
            ossec,
            json: cli.json.clone(),
            html: cli.html.clone(),
        };
        match job.paths.iter().find(|path| job.cuts_of(**path).is_empty()) {
            Some(path) => {
                Err(UsageError(format!("--paths {0}: none of --cuts is of it; give others", name(*path))))
            }
            None => Ok(job),
        }
    }

    /// What programs are told.
    pub(crate) fn program_times(&self) -> ProgramTimes {
        ProgramTimes::of(&self.times, self.scale)
    }

    /// OSSEC's programs.
    ///
    /// # Panics
    /// If there are none: then none of their paths is played.
    pub(crate) fn ossec(&self) -> &Ossec {
        self.ossec.as_ref().expect("its paths are played only with its programs")
    }

    /// The cuts that a path has.
    pub(crate) fn cuts_of(&self, path: Path) -> Vec<Cut> {
        let is_drawn = |cut: Cut| !self.draws_promised || !path.is_exact() || path.promises_over(cut);
        self.cuts.iter().copied().filter(|cut| cut.is_of(path) && is_drawn(*cut)).collect()
    }

    /// Every cut with every path that has it.
    pub(crate) fn scenes(&self) -> Vec<(Path, Cut)> {
        let with = |cut: &Cut| {
            let cut = *cut;
            self.paths.iter().filter(move |path| cut.is_of(**path)).map(move |path| (*path, cut))
        };
        self.cuts.iter().flat_map(with).collect()
    }

    /// Every path with the seeds of its repetitions.
    pub(crate) fn repetitions(&self, repeat: u32) -> Vec<(Path, u64)> {
        let seeds = (0..u64::from(repeat)).map(|number| self.seed.wrapping_add(number));
        seeds.flat_map(|seed| self.paths.iter().map(move |path| (*path, seed))).collect()
    }
}

fn times(cli: &OutageCli, repeats: bool) -> Result<Times, UsageError> {
    let or = |asked: Option<Duration>, once: u32, repeated: u32| {
        asked.map_or(f64::from(if repeats { repeated } else { once }), |asked| asked.as_secs_f64())
    };
    let times = Times {
        before: or(cli.before, 240, 30),
        outage: or(cli.outage, 480, 180),
        after: or(cli.after, 360, 30),
        notify_time: or(cli.notify_time, 80, 80),
        time_reconnect: or(cli.time_reconnect, 240, 240),
    };
    if times.notify_time == 0.0 || times.time_reconnect < times.notify_time {
        let problem =
            "--notify-time must be above 0, and --time-reconnect no shorter: agents would reconnect for ever";
        return Err(UsageError(problem.into()));
    }
    Ok(times)
}

fn cuts(asked: &[Cut], repeats: bool) -> Vec<Cut> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    // A restart with the collectors loses what these did not read, on any path.
    let is_default = |cut: &Cut| match cut {
        Cut::NetworkReset => repeats,
        Cut::AgentRestarted => !repeats,
        Cut::Network
        | Cut::ManagerStopped
        | Cut::ManagerKilled
        | Cut::AgentKilled
        | Cut::BrokerClientKilled
        | Cut::BrokerServerKilled => true,
    };
    Cut::value_variants().iter().copied().filter(is_default).collect()
}

/// A program, as named or where it should be.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    is_there: bool,
    missing: String,
}

impl Found {
    /// # Errors
    /// If it was named and is not there.
    fn program(named: &Option<PathBuf>, option: &str, name: &str) -> Result<Found, UsageError> {
        let beside = || std::env::current_exe().unwrap_or_default().with_file_name(name);
        let path = absolute(&named.clone().unwrap_or_else(beside));
        let is_there = path.is_file();
        let missing =
            format!("there is no program {}; build {name}, or name it with {option}", path.display());
        if named.is_some() && !is_there {
            return Err(UsageError(format!("{option}: {missing}")));
        }
        Ok(Found { path, is_there, missing })
    }
}

/// A program without a `/` in its name would be looked for elsewhere.
fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// OSSEC's programs, if they were named.
fn ossec(cli: &OutageCli) -> Result<Option<Ossec>, UsageError> {
    let (Some(agentd), Some(remoted), Some(home)) = (&cli.ossec_agentd, &cli.ossec_remoted, &cli.ossec_home)
    else {
        return Ok(None);
    };
    for (option, path, is_there) in [
        ("--ossec-agentd", agentd, agentd.is_file()),
        ("--ossec-remoted", remoted, remoted.is_file()),
        ("--ossec-home", home, home.is_dir()),
    ] {
        if !is_there {
            return Err(UsageError(format!("{option} {}: there is none", path.display())));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err(UsageError("--ossec-agentd: OSSEC's programs and their homes need root".into()));
    }
    Ok(Some(Ossec { agentd: absolute(agentd), remoted: absolute(remoted), home: absolute(home) }))
}

/// Those that are played, and why others are not.
fn paths(
    asked: &[Path],
    broker: &Found,
    agent: &Found,
    has_ossec: bool,
) -> Result<(Vec<Path>, Vec<String>), UsageError> {
    let no_ossec = "name OSSEC's programs with --ossec-agentd, --ossec-remoted and --ossec-home".to_owned();
    let broker = (!broker.is_there).then_some(&broker.missing);
    let agent = (!agent.is_there).then_some(&agent.missing);
    let ossec = (!has_ossec).then_some(&no_ossec);
    let lacks = |path: Path| match path {
        Path::Udp | Path::Tcp => None,
        Path::BrokerGate | Path::BrokerRelay => broker,
        Path::AgentPlain | Path::AgentAcknowledged => agent,
        Path::OssecUdp => ossec,
        Path::OssecRelay => ossec.or(broker),
    };
    let (mut played, mut left_out) = (Vec::new(), Vec::<(String, &String)>::new());
    let all = Path::value_variants();
    for path in if asked.is_empty() { all } else { asked } {
        match (lacks(*path), left_out.last_mut()) {
            (None, _) => played.push(*path),
            (Some(missing), _) if !asked.is_empty() => {
                return Err(UsageError(format!("--paths {}: {missing}", name(*path))));
            }
            (Some(missing), Some((names, why))) if *why == missing => *names += &format!(", {}", name(*path)),
            (Some(missing), _) => left_out.push((name(*path), missing)),
        }
    }
    Ok((played, left_out.into_iter().map(|(names, why)| format!("{names}: {why}")).collect()))
}

fn name(path: Path) -> String {
    path.to_possible_value().expect("no path is hidden").get_name().to_owned()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &[&str]) -> Result<OutageJob, UsageError> {
        OutageJob::from_cli(&OutageCli::try_parse_from([&["outage"], words].concat()).unwrap())
    }

    #[test]
    fn every_cut_is_played_with_the_paths_that_have_it() {
        let asked = job(&["--paths", "udp,tcp", "--cuts", "network,network-reset"]).unwrap();
        assert_eq!(
            asked.scenes(),
            [(Path::Udp, Cut::Network), (Path::Tcp, Cut::Network), (Path::Tcp, Cut::NetworkReset)]
        );
        assert_eq!((asked.times.before, asked.times.outage), (240.0, 480.0));
        assert_eq!((asked.rate, asked.scale, asked.agents), (1.0, 4.0, 10));
        let all = job(&["--paths", "tcp"]).unwrap();
        let cuts = [Cut::Network, Cut::ManagerStopped, Cut::ManagerKilled, Cut::AgentRestarted];
        assert_eq!(all.cuts_of(Path::Tcp), cuts);
    }

    #[test]
    fn repetitions_have_seeds_of_their_own_and_are_fast() {
        let asked = job(&["--paths", "udp,tcp", "--repeat", "2", "--seed", "7"]).unwrap();
        let repetitions = asked.repetitions(2);
        assert_eq!(repetitions, [(Path::Udp, 7), (Path::Tcp, 7), (Path::Udp, 8), (Path::Tcp, 8)]);
        assert!((asked.rate * asked.scale - 200.0).abs() < 1e-9);
        assert_eq!((asked.times.outage, asked.scale), (180.0, 60.0));
        assert_eq!(asked.cuts_of(Path::Udp), [Cut::Network, Cut::ManagerStopped, Cut::ManagerKilled]);
        assert!(!asked.cuts_of(Path::BrokerRelay).contains(&Cut::ManagerKilled));
        let said = job(&["--paths", "udp", "--repeat", "1", "--cuts", "manager-killed"]).unwrap();
        assert_eq!(said.cuts_of(Path::BrokerRelay), [Cut::ManagerKilled]);
        let other = job(&["--paths", "udp", "--repeat", "1", "--wall-rate", "50", "--scale", "10"]).unwrap();
        assert!((other.rate - 5.0).abs() < 1e-9);
    }

    #[test]
    fn paths_without_their_program_are_left_out_unless_they_were_asked_for() {
        let found = |is_there| Found { path: "x".into(), is_there, missing: "no x; build it".into() };
        let (played, left_out) = paths(&[], &found(false), &found(true), false).unwrap();
        assert_eq!(played, [Path::Udp, Path::Tcp, Path::AgentPlain, Path::AgentAcknowledged]);
        assert_eq!(left_out[0], "broker-gate, broker-relay: no x; build it");
        assert!(left_out[1].starts_with("ossec-udp, ossec-relay: name OSSEC's programs"), "{left_out:?}");
        let error = paths(&[Path::AgentPlain], &found(true), &found(false), false).unwrap_err().to_string();
        assert!(error.contains("agent-plain: no x"), "{error}");
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_a_cure() {
        for (words, cure) in [
            (&["--scale", "0.5"][..], "use 1 to 600"),
            (&["--rate", "0"], "more than 0"),
            (&["--rate", "20", "--scale", "60"], "at most 1000"),
            (&["--time-reconnect", "10s"], "no shorter"),
            (&["--at-once", "0"], "use 1 to 64"),
            (&["--broker", "/nowhere/at-all"], "--broker: there is no program /nowhere/at-all"),
            (&["--paths", "udp", "--cuts", "network-reset"], "--paths udp: none of --cuts"),
        ] {
            let error = job(words).unwrap_err().to_string();
            assert!(error.contains(cure), "{error}");
        }
    }
}
