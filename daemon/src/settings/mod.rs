//! The settings: what `etc/ringmaster.toml` may say, its defaults, and where an effective value came from.
//!
//! The types here are the only list of settings. The written default file and `ringmaster check` are made from them
//! ([`document`]), so a setting without a comment or a comment without a setting fails a test.

mod document;
mod load;

pub use document::{default_file, effective};
pub use load::{Loaded, Origin, SettingsError, load};

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The port of the agent channel in OSSEC and in Wazuh.
pub const AGENT_PORT: u16 = 1514;

/// Everything that `ringmaster` can be told, past the edge: parsed, in range, defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder that everything relative is relative to. Comes from the command line, never from the file.
    #[serde(skip)]
    pub home: PathBuf,
    /// Where agents connect to.
    pub listen: Listen,
    /// Threads, cores and their buffers.
    pub shards: Shards,
    /// What is asked of agents.
    pub agents: Agents,
    /// Where events go.
    pub sink: Sink,
    /// The HTTP listener for `/metrics` and `/readyz`.
    pub metrics: Metrics,
    /// The message counters (rids) on disk.
    pub counters: Counters,
    /// How the program ends.
    pub stop: Stop,
}

/// `[listen]`: addresses and socket options of the agent channel.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Each gets UDP and TCP on one port, in every shard. Port 0: the kernel chooses one port for both.
    #[serde(deserialize_with = "at_least_one_address")]
    pub addresses: Vec<SocketAddr>,
    /// Connections that the kernel holds ready for accept, for each listener of each shard.
    #[serde(deserialize_with = "within_u32::<_, 1, 65_535>")]
    pub backlog: u32,
    /// SO_RCVBUF of each UDP socket, in bytes.
    #[serde(deserialize_with = "within_u32::<_, 65_536, 1_073_741_824>")]
    pub receive_buffer_bytes: u32,
}

/// `[shards]`: threads, cores, and the memory each of them reserves.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shards {
    /// The cores that carry a shard.
    pub cores: Cores,
    /// TCP connections that one shard holds; a further one is closed at once and counted.
    #[serde(deserialize_with = "within_u32::<_, 1, 1_000_000>")]
    pub connections_max: u32,
    /// Receive buffers for datagrams in each shard (64 KiB of address space each, touched only as far as used).
    #[serde(deserialize_with = "power_of_two::<_, 16, 32_768>")]
    pub datagram_buffers: u16,
    /// Receive buffers for streams in each shard, 16 KiB each.
    #[serde(deserialize_with = "power_of_two::<_, 16, 32_768>")]
    pub stream_buffers: u16,
}

/// Which cores carry a shard. In the file: `"all"`, or a list of core numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cores {
    /// Every core that this process may run on.
    #[default]
    All,
    /// These, in this order, each once.
    List(Vec<usize>),
}

/// `[agents]`: what is asked of agents and of strangers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agents {
    /// What happens to a message whose counter did not grow.
    pub replay: Replay,
    /// The longest message in bytes that is taken, before and after inflating.
    #[serde(deserialize_with = "within_u32::<_, 6_144, 65_536>")]
    pub message_bytes_max: u32,
    /// Whether messages in the format of before OSSEC 1.0 are taken.
    pub old_format: bool,
    /// A TCP connection must bring an authenticated message within this time.
    #[serde(deserialize_with = "within_u32::<_, 1, 3_600>")]
    pub authentication_deadline_seconds: u32,
    /// TCP connections of each shard that have not authenticated yet.
    #[serde(deserialize_with = "within_u32::<_, 1, 1_000_000>")]
    pub unauthenticated_max: u32,
    /// The same, for one source address.
    #[serde(deserialize_with = "within_u32::<_, 1, 1_000_000>")]
    pub unauthenticated_per_address_max: u32,
    /// An authenticated TCP connection that says nothing for this long is closed.
    #[serde(deserialize_with = "within_u32::<_, 10, 604_800>")]
    pub silence_deadline_seconds: u32,
    /// Bytes that wait to be sent to one agent that does not read; beyond that it is closed.
    #[serde(deserialize_with = "within_u32::<_, 65_536, 1_073_741_824>")]
    pub send_queue_bytes_max: u32,
}

/// What happens to a message whose counter did not grow.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// Counters are not looked at, as Wazuh ships (`remoted.verify_msg_id=0`).
    Off,
    /// A message is taken only if its counter is greater than the last one's, as OSSEC ships.
    #[default]
    Strict,
    /// Late messages are taken once, as long as they are within a window behind the newest.
    Window,
}

/// `[sink]`: where events go, and how much may wait on the way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sink {
    /// Bytes waiting in one sink of one shard from which on datagrams are dropped and TCP agents feel back-pressure.
    #[serde(deserialize_with = "within_u64::<_, 65_536, 17_179_869_184>")]
    pub soft_bytes: u64,
    /// Bytes waiting in one sink of one shard from which on received streams are no longer decoded.
    #[serde(deserialize_with = "within_u64::<_, 65_536, 17_179_869_184>")]
    pub hard_bytes: u64,
    /// The socket of analysisd.
    pub queue: Queue,
    /// Files under `logs/archives`.
    pub archives: Archives,
}

/// `[sink.queue]`: the unix datagram socket of analysisd.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Whether events go there.
    pub enabled: bool,
    /// Its path; relative to the home.
    pub path: PathBuf,
    /// Whose analysisd listens: decides the form of the datagram.
    pub product: Product,
}

/// Whose analysisd reads the queue socket.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// OSSEC: `(name) ip`, cut at 6,143 bytes.
    #[default]
    Ossec,
    /// Wazuh: `[id] (name) ip`, escaped.
    Wazuh,
}

/// `[sink.archives]`: files of all events, under `logs/archives`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Archives {
    /// Whether events are appended to `logs/archives/archives.log` in OSSEC's form.
    pub text: bool,
    /// Whether events are appended to `logs/archives/archives.json`, one JSON object a line.
    pub json: bool,
}

/// `[metrics]`: the HTTP listener.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where `/metrics` and `/readyz` answer; in the file `"none"` for nowhere.
    #[serde(serialize_with = "address_or_none_out", deserialize_with = "address_or_none_in")]
    pub address: Option<SocketAddr>,
}

/// `[counters]`: the message counters (rids) on disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counters {
    /// How far the counter of the manager's own messages jumps after a stop that was not clean, in messages:
    /// more than the manager can send in the second that may not have been written.
    #[serde(deserialize_with = "within_u32::<_, 10_000, 1_000_000_000>")]
    pub unclean_margin: u32,
}

/// `[stop]`: how the program ends.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// How long a shard may take to hand over the events that its sinks hold.
    #[serde(deserialize_with = "within_u32::<_, 0, 3_600>")]
    pub grace_seconds: u32,
}

impl Settings {
    /// The defaults, with this home.
    pub fn with_home(home: impl Into<PathBuf>) -> Settings {
        Settings { home: home.into(), ..Settings::default() }
    }

    /// The path of the queue socket: `sink.queue.path` under the home, unless it is absolute.
    pub fn queue_path(&self) -> PathBuf {
        self.home.join(&self.sink.queue.path)
    }

    /// The file of the archives as text.
    pub fn archives_text_path(&self) -> PathBuf {
        self.home.join("logs/archives/archives.log")
    }

    /// The file of the archives as JSON lines.
    pub fn archives_json_path(&self) -> PathBuf {
        self.home.join("logs/archives/archives.json")
    }

    /// How long a shard may take to hand over what its sinks hold.
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.stop.grace_seconds))
    }
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            addresses: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, AGENT_PORT))],
            backlog: 4_096,
            receive_buffer_bytes: 8 << 20,
        }
    }
}

impl Default for Shards {
    fn default() -> Shards {
        Shards { cores: Cores::All, connections_max: 100_000, datagram_buffers: 1_024, stream_buffers: 1_024 }
    }
}

impl Default for Agents {
    fn default() -> Agents {
        Agents {
            replay: Replay::Strict,
            message_bytes_max: 65_536,
            old_format: false,
            authentication_deadline_seconds: 10,
            unauthenticated_max: 16_384,
            unauthenticated_per_address_max: 4_096,
            // Three times the longest default of notify_time, and OSSEC's own margin: what agent_control calls active.
            silence_deadline_seconds: 1_830,
            send_queue_bytes_max: 1 << 20,
        }
    }
}

impl Default for Sink {
    fn default() -> Sink {
        Sink {
            soft_bytes: 8 << 20,
            hard_bytes: 32 << 20,
            queue: Queue::default(),
            archives: Archives::default(),
        }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { enabled: false, path: PathBuf::from("queue/ossec/queue"), product: Product::Ossec }
    }
}

impl Default for Archives {
    fn default() -> Archives {
        Archives { text: true, json: false }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { address: Some(SocketAddr::from(([127, 0, 0, 1], 9_514))) }
    }
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { unclean_margin: 1_000_000 }
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { grace_seconds: 10 }
    }
}

/// The command line's form: `all`, or numbers and ranges, as in `0,2-5`.
impl std::str::FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Cores, CoresError> {
        if text == "all" {
            return Ok(Cores::All);
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |digits: &str| digits.trim().parse::<usize>().ok().filter(|core| *core < CORES_MAX);
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cores.extend(first..=last),
                (Some(_) | None, Some(_) | None) => return Err(CoresError::NotACore(part.to_owned())),
            }
        }
        Cores::list(cores)
    }
}

impl Cores {
    /// A list of cores, each named once.
    ///
    /// # Errors
    /// When it is empty, or names a core twice or one beyond [`CORES_MAX`].
    pub fn list(cores: Vec<usize>) -> Result<Cores, CoresError> {
        if cores.is_empty() {
            return Err(CoresError::Empty);
        }
        for (index, core) in cores.iter().enumerate() {
            if *core >= CORES_MAX {
                return Err(CoresError::NotACore(core.to_string()));
            }
            if cores[..index].contains(core) {
                return Err(CoresError::Twice(*core));
            }
        }
        Ok(Cores::List(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => formatter.write_str("all"),
            Cores::List(cores) => {
                let numbers: Vec<String> = cores.iter().map(usize::to_string).collect();
                formatter.write_str(&numbers.join(","))
            }
        }
    }
}

/// Core numbers are below this: the width of the kernel's own `cpu_set_t`.
pub const CORES_MAX: usize = 1_024;

/// Why a list of cores is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CoresError {
    /// It names no core.
    Empty,
    /// This part is neither a core nor a range of cores.
    NotACore(String),
    /// This core is named more than once.
    Twice(usize),
}

impl std::error::Error for CoresError {}

impl fmt::Display for CoresError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoresError::Empty => write!(formatter, "an empty list of cores: name one, or say \"all\""),
            CoresError::NotACore(part) => {
                write!(formatter, "{part:?} is no core: use numbers below {CORES_MAX}, or \"all\"")
            }
            CoresError::Twice(core) => write!(formatter, "core {core} is named twice: name it once"),
        }
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cores::All => serializer.serialize_str("all"),
            Cores::List(cores) => cores.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cores, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "not cores: use \"all\" or a list as [0, 1]")]
        enum Form {
            Word(String),
            List(Vec<usize>),
        }
        match Form::deserialize(deserializer)? {
            Form::Word(word) => word.parse(),
            Form::List(cores) => Cores::list(cores),
        }
        .map_err(de::Error::custom)
    }
}

fn within_u64<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u64, D::Error> {
    let value = i64::deserialize(deserializer)?;
    match u64::try_from(value) {
        Ok(value) if (MIN..=MAX).contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err(de::Error::custom(format!("{value} is out of range: use {MIN} to {MAX}"))),
    }
}

fn within_u32<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u32, D::Error> {
    const { assert!(MAX <= u32::MAX as u64) };
    within_u64::<D, MIN, MAX>(deserializer).map(|value| u32::try_from(value).expect("MAX fits 32 bits"))
}

fn power_of_two<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u16, D::Error> {
    const { assert!(MAX <= u16::MAX as u64) };
    let value = within_u64::<D, MIN, MAX>(deserializer)?;
    if !value.is_power_of_two() {
        return Err(de::Error::custom(format!(
            "{value} is no power of two: use {} or {}",
            value.next_power_of_two() / 2,
            value.next_power_of_two()
        )));
    }
    Ok(u16::try_from(value).expect("MAX fits 16 bits"))
}

fn at_least_one_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.is_empty() {
        return Err(de::Error::custom("no address to listen on: name one, as \"[::]:1514\""));
    }
    texts.iter().map(|text| listen_address(text).map_err(de::Error::custom)).collect()
}

/// An address to listen on, as the file and `--listen` write it.
///
/// # Errors
/// When the text is no `address:port`; the message says the cure.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address and port: write 192.0.2.1:1514, or [::]:1514 for every address")
    })
}

fn address_or_none_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        de::Error::custom(format!(
            "{text:?} is no address and port: write 127.0.0.1:9514, or \"none\" for no listener"
        ))
    })
}

fn address_or_none_out<S: Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        None => serializer.serialize_str("none"),
        Some(address) => serializer.collect_str(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_of_the_command_line() {
        let check = |text: &str, expected: Result<Cores, CoresError>| {
            assert_eq!(text.parse::<Cores>(), expected, "{text}")
        };
        check("all", Ok(Cores::All));
        check("0", Ok(Cores::List(vec![0])));
        check("3,0-1", Ok(Cores::List(vec![3, 0, 1])));
        check("", Err(CoresError::NotACore(String::new())));
        check("2-1", Err(CoresError::NotACore("2-1".to_owned())));
        check("1,1", Err(CoresError::Twice(1)));
        check("1024", Err(CoresError::NotACore("1024".to_owned())));
        check("0-1023,7", Err(CoresError::Twice(7)));
    }
}
