//! The settings: what `etc/ringmaster.toml` may say, its defaults, and where an effective value came from.
//!
//! Each source goes over the ones before it: defaults, internal_options.conf, local_internal_options.conf, ossec.conf (these
//! three only in an installation of OSSEC or Wazuh), ringmaster.toml, the command line.
//!
//! The types here are the only list of settings. The written default file and `ringmaster check` are made from them
//! (`document.rs`), so a setting without a comment or a comment without a setting fails a test.

mod document;
mod installed;
mod listener;
mod load;
mod reload;
mod service;
mod sources;
mod value;

pub use document::{default_file, effective, listeners};
pub use listener::{LISTENERS_MAX, Listener, ListenerError, ListenerKind, ListenerTable, Transports};
pub use load::{Loaded, NotUsed, Origin, SettingsError, load};
pub use reload::{Change, Changes, Reload, reload};
pub use service::{Account, Log, LogFormat, Run};
pub use sources::Sources;
pub use value::{CORES_MAX, Cores, CoresError, listen_address};

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use value::{
    address_or_none_in, address_or_none_out, at_least_one_address, power_of_two, within_u16, within_u32,
    within_u64,
};

/// The port of the agent channel in OSSEC and in Wazuh.
pub const AGENT_PORT: u16 = 1514;

/// What `agents.silence_deadline_seconds` may be.
pub const SILENCE_DEADLINE_SECONDS: Range<u64> = 10..604_801;

/// Everything that `ringmaster` can be told, past the edge: parsed, in range, defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder that everything relative is relative to. Comes from the command line, never from the file.
    #[serde(skip)]
    pub home: PathBuf,
    /// What is bound, if the files named it; else it follows from `listen` and `listener`.
    #[serde(skip)]
    bound: OnceLock<Vec<Listener>>,
    /// Listeners with rules of their own.
    pub listener: Vec<ListenerTable>,
    /// Where agents connect to.
    pub listen: Listen,
    /// Threads, cores and their buffers.
    pub shards: Shards,
    /// What is asked of agents.
    pub agents: Agents,
    /// What is asked of devices that have no agent.
    pub syslog: Syslog,
    /// Where events go.
    pub sink: Sink,
    /// What agents are told on behalf of others.
    pub active_response: ActiveResponse,
    /// Files that agents get from the manager.
    pub shared: Shared,
    /// The HTTP listener for `/metrics` and `/readyz`.
    pub metrics: Metrics,
    /// The message counters (rids) on disk.
    pub counters: Counters,
    /// How the program ends.
    pub stop: Stop,
    /// Whose rights the program has.
    pub run: Run,
    /// Where the program's own lines go.
    pub log: Log,
}

/// `[listen]`: addresses and socket options of the agent channel.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Each gets UDP and TCP on one port, in every shard. Port 0: the kernel chooses one port for both.
    #[serde(deserialize_with = "at_least_one_address")]
    pub addresses: Vec<SocketAddr>,
    /// Connections that the kernel holds ready for accept, for each listener of each shard.
    #[serde(deserialize_with = "within_u16::<_, 1, 65_535>")]
    pub backlog: u16,
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
    /// How long a shard under load gathers messages before it turns; what it can add to a message's way.
    #[serde(deserialize_with = "within_u32::<_, 0, 4_000>")]
    pub gather_microseconds: u32,
}

/// `[agents]`: what is asked of agents and of strangers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agents {
    /// Which ciphers agents may use.
    pub crypto_accept: CryptoAccept,
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
    #[serde(
        deserialize_with = "within_u32::<_, { SILENCE_DEADLINE_SECONDS.start }, { SILENCE_DEADLINE_SECONDS.end - 1 }>"
    )]
    pub silence_deadline_seconds: u32,
    /// How often an agent that feels back-pressure gets an acknowledgement it did not ask for.
    #[serde(deserialize_with = "within_u32::<_, 1, 3_600>")]
    pub paused_acknowledgement_seconds: u32,
    /// Bytes that wait to be sent to one agent that does not read; beyond that it is closed.
    #[serde(deserialize_with = "within_u32::<_, 65_536, 1_073_741_824>")]
    pub send_queue_bytes_max: u32,
    /// Events a second of one agent; 0: any number.
    #[serde(deserialize_with = "within_u32::<_, 0, 1_000_000>")]
    pub events_per_second_max: u32,
    /// Whether agents that offer it number their events and are told which of them the sinks have.
    pub acknowledged_delivery: bool,
}

/// `[syslog]`: what is asked of devices that send lines over TCP.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Syslog {
    /// TCP connections of each shard.
    #[serde(deserialize_with = "within_u32::<_, 1, 1_000_000>")]
    pub connections_max: u32,
    /// The same, for one source address.
    #[serde(deserialize_with = "within_u32::<_, 1, 1_000_000>")]
    pub connections_per_address_max: u32,
    /// A TCP connection that says nothing for this long is closed.
    #[serde(deserialize_with = "within_u32::<_, 1, 604_800>")]
    pub idle_seconds: u32,
}

/// Which ciphers agents may use: OSSEC's `<crypto_accept>`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CryptoAccept {
    /// AES only, either dialect.
    Aes,
    /// Blowfish only.
    Blowfish,
    /// Whatever the agent chose.
    #[default]
    Both,
}

impl fmt::Display for CryptoAccept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            CryptoAccept::Aes => "aes",
            CryptoAccept::Blowfish => "blowfish",
            CryptoAccept::Both => "both",
        })
    }
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
    /// Whether each write waits until its disk has it.
    pub sync: bool,
}

/// `[active_response]`: messages of analysisd and operators to agents.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveResponse {
    /// Whether `queue/alerts/ar` is there for analysisd and the tools.
    pub enabled: bool,
    /// How long a message for an agent that is away waits for it; 0: it is dropped.
    #[serde(deserialize_with = "within_u32::<_, 0, 604_800>")]
    pub keep_seconds: u32,
    /// Messages that wait for one agent; a further one is dropped.
    #[serde(deserialize_with = "within_u32::<_, 1, 65_536>")]
    pub keep_messages_per_agent_max: u32,
}

/// `[shared]`: merged.mg, which agents get from the manager.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shared {
    /// Whether `etc/shared` is read, and sent to agents that have something else.
    pub enabled: bool,
    /// Bytes of shared files that are sent in a second, to all agents together.
    #[serde(deserialize_with = "within_u64::<_, 1_024, 17_179_869_184>")]
    pub bytes_per_second: u64,
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

    /// What is listened on. Settings that no file was read for have what `listen.addresses` and `listener` say when this is
    /// called for the first time.
    pub fn listeners(&self) -> &[Listener] {
        self.bound.get_or_init(|| listener::unread(self))
    }

    /// Listens on these.
    pub(crate) fn listen_on(&mut self, listeners: Vec<Listener>) {
        self.bound = OnceLock::from(listeners);
    }

    /// Listens on these addresses for agents and on nothing else.
    pub(crate) fn listen_only_on(&mut self, addresses: &[SocketAddr], origin: &str) {
        self.listen.addresses = addresses.to_vec();
        self.listener.clear();
        let crypto_accept = self.agents.crypto_accept;
        let listener =
            |address: &SocketAddr| Listener { crypto_accept, ..Listener::secure(*address, origin) };
        self.listen_on(addresses.iter().map(listener).collect());
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

    /// How long an agent may be silent until it counts as gone.
    pub fn silence_deadline(&self) -> Duration {
        Duration::from_secs(u64::from(self.agents.silence_deadline_seconds))
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
            receive_buffer_bytes: 32 << 20,
        }
    }
}

impl Default for Shards {
    fn default() -> Shards {
        Shards {
            cores: Cores::All,
            connections_max: 100_000,
            datagram_buffers: 1_024,
            stream_buffers: 1_024,
            gather_microseconds: 1_000,
        }
    }
}

impl Default for Agents {
    fn default() -> Agents {
        Agents {
            crypto_accept: CryptoAccept::Both,
            replay: Replay::Strict,
            message_bytes_max: 65_536,
            old_format: false,
            authentication_deadline_seconds: 10,
            unauthenticated_max: 16_384,
            unauthenticated_per_address_max: 4_096,
            // Three times the longest default of notify_time, and OSSEC's own margin: what agent_control calls active.
            silence_deadline_seconds: 1_830,
            paused_acknowledgement_seconds: 10,
            send_queue_bytes_max: 1 << 20,
            events_per_second_max: 0,
            acknowledged_delivery: true,
        }
    }
}

impl Default for Syslog {
    fn default() -> Syslog {
        // Long enough for a device that logs once an hour: one that finds its connection closed loses the next line.
        Syslog { connections_max: 4_096, connections_per_address_max: 256, idle_seconds: 7_200 }
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
        Archives { text: true, json: false, sync: false }
    }
}

impl Default for ActiveResponse {
    fn default() -> ActiveResponse {
        ActiveResponse { enabled: true, keep_seconds: 600, keep_messages_per_agent_max: 64 }
    }
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { enabled: true, bytes_per_second: 2 << 20 }
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
