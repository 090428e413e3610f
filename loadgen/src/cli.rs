//! The command line: what was typed, and what it means.
//!
//! [`Cli`] is the text as clap reads it; [`Job`] is what the rest of the program works with: every number checked,
//! every default filled in. Past [`Job::from_cli`] there is nothing left that could be a usage error.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::compare::cli::CompareCli;
use crate::lines;
use crate::outage::cli::OutageCli;
use crate::syslog::SyslogCli;
use crate::values::parse_duration;
pub use crate::values::{Cores, Share};

/// Most agents of one run: their index has six digits in each line.
pub const AGENTS_MAX: u32 = 999_999;
/// Most events of one agent in a run: the sequence has eight digits in each line.
pub const SEQUENCE_MAX: u64 = 99_999_999;
/// What `--max-loss` is for UDP when nobody says: one event in a thousand.
pub const LOSS_DEFAULT_UDP: Share = Share(0.001);
/// Longest text of an event: what an agent of either product may still put into one message.
const BYTES_MAX_OSSEC: u32 = 6_016;
const BYTES_MAX_WAZUH: u32 = 60_000;

/// Plays a fleet of OSSEC or Wazuh agents against a manager and says what became of every event.
///
/// Without --target it starts the embedded manager as a child on its own core. Exit status: 0 everything promised
/// held (see --max-loss), 1 it did not, 2 the command line is wrong.
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen", version, args_override_self = true, args_conflicts_with_subcommands = true)]
pub struct Program {
    /// The run, if there is no other command.
    #[command(flatten)]
    pub run: Cli,
    /// Anything else.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What loadgen does besides a run.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Sets TCP against UDP.
    Compare(Box<CompareCli>),
    /// Shows what an outage costs: events before, during and after it, over UDP and TCP.
    Outage(Box<OutageCli>),
    /// Sends numbered syslog lines to a listener.
    Syslog(SyslogCli),
}

/// The options of a run.
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen", version, args_override_self = true)]
pub struct Cli {
    /// Agents in the fleet, each with its own id, key and connection or UDP source.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(AGENTS_MAX)))]
    pub agents: u32,
    /// Transport of the agents; `both`: every second agent speaks UDP, the others TCP.
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    pub proto: Protocol,
    /// Events a second of the whole fleet [default: one a second for each agent].
    #[arg(long, value_name = "EVENTS/S")]
    pub rate: Option<f64>,
    /// How long events are made: 10, 10s, 500ms, 2m.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Duration,
    /// Text of each event, in bytes.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub bytes: u32,
    /// Events in one write of an agent (TCP: one segment where it fits; UDP: datagrams back to back).
    #[arg(long, default_value_t = 1, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub burst: u32,
    /// Cipher of the agents.
    #[arg(long, value_enum, default_value_t = CipherName::Aes)]
    pub cipher: CipherName,
    /// Whose agents they are: start-up, keep-alive, AES dialect and the form in the queue socket.
    #[arg(long, value_enum, default_value_t = Dialect::Wazuh)]
    pub dialect: Dialect,
    /// Seed of the schedule and of the lines: the same seed plans the same run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON to this file (`-`: standard output).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Events that may be lost: a share (0.001) or per cent (0.1%) [default: 0 over TCP, 0.1% over UDP].
    #[arg(long, value_name = "SHARE")]
    pub max_loss: Option<Share>,
    /// The manager, and the cores.
    #[command(flatten)]
    pub place: Place,
    /// Where the embedded manager hands events over.
    #[arg(long, value_enum, default_value_t = SinkName::Queue, conflicts_with = "target")]
    pub sink: SinkName,
    /// Bound on the memory of the messages that are sealed ahead of the run, in MiB.
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    pub seal_memory_mib: u64,
    /// New connections (start-ups over UDP) a second while the fleet connects; 0: as fast as it goes.
    #[arg(long, default_value_t = 0, value_name = "AGENTS/S")]
    pub connect_rate: u32,
    /// Agents between connect and acknowledgement at a time.
    #[arg(long, default_value_t = 256, value_name = "AGENTS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub connect_in_flight: u32,
    /// How long the whole fleet may take to connect before the run is given up.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = parse_duration)]
    pub connect_timeout: Duration,
    /// Source addresses 127.1.0.1, 127.1.0.2, ... the agents are spread over, on a loopback target; 0: the kernel chooses.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=65_000))]
    pub sources: u32,
    /// Time between the keep-alives of an agent.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub notify_time: Option<Duration>,
    /// Time between two tries of an agent that lost its manager; the first one is made at once.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration)]
    pub reconnect_time: Duration,
    /// How long loadgen waits, after the last event, for one that is still missing.
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse_duration)]
    pub drain: Duration,
    /// Kill the embedded manager (SIGKILL) this long after the first event, and start it again at once.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "target")]
    pub kill_manager_after: Option<Duration>,
}

/// Which manager is loaded, and on which cores everything runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Load the manager at this address instead of the embedded one; needs --keys and --queue.
    #[arg(long, value_name = "HOST:PORT", requires = "keys", requires = "queue")]
    pub target: Option<String>,
    /// The manager's client.keys, from which the agents are taken.
    #[arg(long, value_name = "FILE", requires = "target")]
    pub keys: Option<PathBuf>,
    /// The manager's queue socket, which loadgen binds in place of analysisd.
    #[arg(long, value_name = "SOCKET", requires = "target")]
    pub queue: Option<PathBuf>,
    /// Process id of the manager behind --target, for its CPU and memory.
    #[arg(long, value_name = "PID", requires = "target")]
    pub manager_pid: Option<i32>,
    /// Cores of the embedded manager, such as 0 or 0-3,6 [default: the first].
    #[arg(long, value_name = "CORES", conflicts_with = "target")]
    pub manager_cores: Option<Cores>,
    /// Cores of loadgen [default: all that are not the manager's].
    #[arg(long, value_name = "CORES")]
    pub cores: Option<Cores>,
}

/// Transport of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Every agent over TCP.
    Tcp,
    /// Every agent over UDP.
    Udp,
    /// Agents with an even index over UDP, with an odd one over TCP.
    Both,
}

impl Protocol {
    /// Whether the agent of this index speaks TCP.
    pub const fn is_tcp(self, agent: u32) -> bool {
        match self {
            Protocol::Tcp => true,
            Protocol::Udp => false,
            Protocol::Both => agent % 2 == 1,
        }
    }

    /// The word of the command line and of the report.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Both => "both",
        }
    }
}

/// Cipher of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CipherName {
    /// Blowfish CBC, what agents used until 2018.
    Blowfish,
    /// AES-256 CBC, in the dialect of the product.
    Aes,
}

impl CipherName {
    /// The word of the command line and of the report.
    pub const fn name(self) -> &'static str {
        match self {
            CipherName::Blowfish => "blowfish",
            CipherName::Aes => "aes",
        }
    }
}

/// Whose agents the fleet plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// OSSEC 4.3.0.
    Ossec,
    /// Wazuh 4.14.
    Wazuh,
}

impl Dialect {
    /// The word of the command line and of the report.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Ossec => "ossec",
            Dialect::Wazuh => "wazuh",
        }
    }

    /// The time between keep-alives that the product's installer writes, or its default.
    pub const fn notify_time_default(self) -> Duration {
        match self {
            Dialect::Ossec => Duration::from_secs(600),
            Dialect::Wazuh => Duration::from_secs(10),
        }
    }
}

/// Where the embedded manager hands events over, and so where loadgen reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SinkName {
    /// analysisd's queue socket, one datagram an event.
    Queue,
    /// logs/archives/archives.log, batched lines of text.
    Archives,
    /// logs/archives/archives.json, batched lines of JSON.
    Json,
}

impl SinkName {
    /// The word of the command line and of the report.
    pub const fn name(self) -> &'static str {
        match self {
            SinkName::Queue => "queue",
            SinkName::Archives => "archives",
            SinkName::Json => "json",
        }
    }
}

/// A run, with nothing left to check on the command line.
#[derive(Debug, Clone)]
pub struct Job {
    /// Agents in the fleet.
    pub agents: u32,
    /// Their transport.
    pub protocol: Protocol,
    /// Their cipher.
    pub cipher: CipherName,
    /// Whose agents they are.
    pub dialect: Dialect,
    /// Events a second of the whole fleet.
    pub rate: f64,
    /// How long events are made.
    pub duration: Duration,
    /// Text of an event.
    pub bytes: u32,
    /// Events in one write.
    pub burst: u32,
    /// Seed of schedule and lines.
    pub seed: u64,
    /// Share of events that may be lost; `None`: the default of each transport.
    pub loss_max: Option<Share>,
    /// Bound on sealed messages.
    pub seal_memory_bytes: u64,
    /// New agents a second while connecting; 0: no limit.
    pub connect_rate: u32,
    /// Agents between connect and acknowledgement at a time.
    pub connect_in_flight: u32,
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// Source addresses; 0: the kernel chooses.
    pub sources: u32,
    /// Time between keep-alives.
    pub notify_time: Duration,
    /// Time between two tries to connect.
    pub reconnect_time: Duration,
    /// Longest wait for a missing event after the last one.
    pub drain: Duration,
    /// Cores of the embedded manager, if any is named.
    pub manager_cores: Option<Cores>,
    /// Cores of loadgen, if any is named.
    pub cores: Option<Cores>,
    /// Where the report goes.
    pub json: Option<PathBuf>,
    /// The manager.
    pub manager: ManagerChoice,
}

/// Which manager is loaded.
#[derive(Debug, Clone)]
pub enum ManagerChoice {
    /// The embedded one, a child of loadgen.
    Embedded {
        /// Where it hands events over.
        sink: SinkName,
        /// When it is killed and started again.
        kill_after: Option<Duration>,
    },
    /// Any other.
    Target {
        /// Its address.
        address: SocketAddr,
        /// Its client.keys.
        keys: PathBuf,
        /// Its queue socket.
        queue: PathBuf,
        /// Its process id, if known.
        pid: Option<i32>,
    },
}

/// What is wrong with a command line that clap itself had no objection to.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl Job {
    /// Checks what was typed and fills in what was not.
    ///
    /// # Errors
    /// Says which value is impossible, and what would be possible.
    pub fn from_cli(cli: &Cli) -> Result<Job, UsageError> {
        let rate = cli.rate.unwrap_or(f64::from(cli.agents));
        check_load(cli, rate)?;
        Ok(Job {
            agents: cli.agents,
            protocol: cli.proto,
            cipher: cli.cipher,
            dialect: cli.dialect,
            rate,
            duration: cli.duration,
            bytes: cli.bytes,
            burst: cli.burst,
            seed: cli.seed,
            loss_max: cli.max_loss,
            seal_memory_bytes: cli.seal_memory_mib.saturating_mul(1 << 20),
            connect_rate: cli.connect_rate,
            connect_in_flight: cli.connect_in_flight,
            connect_timeout: cli.connect_timeout,
            sources: cli.sources,
            notify_time: cli.notify_time.unwrap_or(cli.dialect.notify_time_default()),
            reconnect_time: cli.reconnect_time,
            drain: cli.drain,
            manager_cores: cli.place.manager_cores.clone(),
            cores: cli.place.cores.clone(),
            json: cli.json.clone(),
            manager: choose_manager(cli)?,
        })
    }
}

fn check_load(cli: &Cli, rate: f64) -> Result<(), UsageError> {
    let refuse = |text: String| Err(UsageError(text));
    if !(rate.is_finite() && rate > 0.0 && rate <= 1e8) {
        return refuse(format!("--rate {rate} is not between 0 and 100000000 events a second"));
    }
    if cli.duration.is_zero() {
        return refuse("--duration 0 makes no event; give it at least 1ms".into());
    }
    if cli.notify_time.is_some_and(|time| time < Duration::from_secs(1)) {
        return refuse("--notify-time is below 1s, which no agent does; give it at least 1s".into());
    }
    let bytes_max = match cli.dialect {
        Dialect::Ossec => BYTES_MAX_OSSEC,
        Dialect::Wazuh => BYTES_MAX_WAZUH,
    };
    if !(lines::BYTES_MIN..=bytes_max).contains(&cli.bytes) {
        return refuse(format!(
            "--bytes {} is not between {} (what the marks of a line take) and {bytes_max} (what an agent of {} may send)",
            cli.bytes,
            lines::BYTES_MIN,
            cli.dialect.name(),
        ));
    }
    let events_each = rate * cli.duration.as_secs_f64() / f64::from(cli.agents);
    if events_each > SEQUENCE_MAX as f64 {
        return refuse(format!(
            "{events_each:.0} events of one agent are more than {SEQUENCE_MAX}; use more --agents"
        ));
    }
    Ok(())
}

fn choose_manager(cli: &Cli) -> Result<ManagerChoice, UsageError> {
    let (Some(target), Some(keys), Some(queue)) = (&cli.place.target, &cli.place.keys, &cli.place.queue)
    else {
        return Ok(ManagerChoice::Embedded { sink: cli.sink, kill_after: cli.kill_manager_after });
    };
    let found = std::net::ToSocketAddrs::to_socket_addrs(target.as_str());
    let unknown = |why: String| UsageError(format!("--target {target}: {why}; write it as 127.0.0.1:1514"));
    let address = found
        .map_err(|error| unknown(error.to_string()))?
        .next()
        .ok_or_else(|| unknown("the name has no address".into()))?;
    Ok(ManagerChoice::Target {
        address,
        keys: keys.clone(),
        queue: queue.clone(),
        pid: cli.place.manager_pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &str) -> Result<Job, String> {
        let cli = Cli::try_parse_from(format!("loadgen {words}").split_whitespace())
            .map_err(|error| error.to_string())?;
        Job::from_cli(&cli).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_of_the_readme_is_one_event_a_second_of_each_agent_for_ten_seconds() {
        let job = job("--agents 20000 --proto tcp").unwrap();
        assert_eq!((job.agents, job.rate, job.duration), (20_000, 20_000.0, Duration::from_secs(10)));
        assert_eq!((job.bytes, job.burst, job.loss_max), (200, 1, None));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_value_and_the_cure() {
        let cases = [
            ("--rate 0", "--rate 0"),
            ("--duration 0", "1ms"),
            ("--bytes 20", "--bytes 20"),
            ("--bytes 7000 --dialect ossec", "6016"),
            ("--target 127.0.0.1:1514", "--keys"),
            ("--target nowhere --keys k --queue q", "127.0.0.1:1514"),
            ("--agents 1 --rate 100000000 --duration 10", "--agents"),
            ("--max-loss 3", "0.1%"),
            ("--agents 0", "--agents"),
            ("--notify-time 1ms", "1s"),
            ("--manager-pid 1", "--target"),
        ];
        for (words, expected) in cases {
            let error = job(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }
}
