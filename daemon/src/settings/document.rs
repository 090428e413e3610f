//! The settings as text: the file that a new home gets, and what `ringmaster check` prints.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Origin, Settings};

/// The text of `etc/ringmaster.toml` in a new home: every setting with its comment and its default, commented out,
/// so that a later version's better default is not held back by a file that nobody changed.
pub fn default_file() -> String {
    let mut text = String::from(FILE_HEAD);
    let defaults = flatten(&Settings::default());
    let mut section = "";
    for (key, comment) in COMMENTS {
        let (key_section, name) = key.rsplit_once('.').unwrap_or(("", key));
        if key_section != section {
            section = key_section;
            write!(text, "\n[{section}]\n").expect("a String takes all");
        }
        for line in comment.lines() {
            writeln!(text, "# {line}").expect("a String takes all");
        }
        writeln!(text, "#{name} = {}", defaults[*key]).expect("a String takes all");
    }
    text
}

/// One line for each setting: its dotted key, its value, and where that came from.
pub fn effective(settings: &Settings, origins: &BTreeMap<String, Origin>) -> String {
    let mut text = format!("home = {:?}\n", settings.home);
    let values = flatten(settings);
    for (key, _) in COMMENTS {
        let origin = origins.get(*key).map_or_else(|| "default".to_owned(), Origin::to_string);
        writeln!(text, "{key} = {}  # {origin}", values[*key]).expect("a String takes all");
    }
    text
}

/// Who listens where, by which rules, one line each with where that came from.
pub fn listeners(settings: &Settings) -> String {
    let mut text = String::new();
    for listener in settings.listeners() {
        writeln!(text, "# listens: {listener}  # {}", listener.origin).expect("a String takes all");
    }
    text
}

/// Dotted key -> value.
pub(super) fn flatten(settings: &Settings) -> BTreeMap<String, toml::Value> {
    fn descend(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, toml::Value>) {
        for (key, value) in table {
            let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value.as_table() {
                Some(inner) => descend(&dotted, inner, flat),
                None => drop(flat.insert(dotted, value.clone())),
            }
        }
    }
    let table = toml::Table::try_from(settings).expect("settings are plain tables, numbers, words and lists");
    let mut flat = BTreeMap::new();
    descend("", &table, &mut flat);
    flat
}

const FILE_HEAD: &str = "\
# Settings of ringmaster. A line that begins with `#` and a name shows a default; take the `#` away to change it.
# `ringmaster check` prints what is in effect and where it came from. Relative paths start at this home.
";

/// What each setting means, in the order of the file.
const COMMENTS: &[(&str, &str)] = &[
    (
        "listener",
        "Listeners with rules of their own, beside listen.addresses if that is set. Each is a table at the end of this file:\n\
         [[listener]]\n\
         kind = \"syslog\"                # or \"secure\", for agents\n\
         address = \"[::]:514\"\n\
         protocols = [\"udp\", \"tcp\"]    # or one of them; else both for agents, UDP for syslog\n\
         allowed = [\"10.0.0.0/8\"]       # who may speak; must be there for syslog\n\
         denied = [\"10.0.0.1\"]          # and who may not, although allowed says so\n\
         crypto_accept = \"aes\"          # for agents; else agents.crypto_accept\n\
         proxy_protocol_from = []        # load balancers that send a PROXY protocol header\n\
         Listeners named in this file take the place of those of etc/ossec.conf.",
    ),
    (
        "listen.addresses",
        "Where agents are listened to. Each address gets UDP and TCP on one port. [::] takes IPv4 too, and becomes 0.0.0.0 where IPv6 is off.\n\
         Port 0: the kernel chooses one; var/run/ringmaster.json says which.",
    ),
    (
        "listen.backlog",
        "Connections that wait for accept, a listener and shard; the kernel caps it at net.core.somaxconn.",
    ),
    (
        "listen.receive_buffer_bytes",
        "SO_RCVBUF of each UDP socket: a queued message takes about 1,290 bytes, so the default holds 26,000 of them. The kernel \
         caps it at net.core.rmem_max unless ringmaster has CAP_NET_ADMIN.",
    ),
    ("shards.cores", "\"all\", or a list as [0, 2]: one thread with one ring is pinned to each."),
    (
        "shards.connections_max",
        "TCP connections that one shard holds. A further one is closed at once and counted.",
    ),
    (
        "shards.datagram_buffers",
        "Receive buffers for datagrams in each shard, a power of two. Each takes 64 KiB of address space, and memory as\n\
         far as a message ever reached into it.",
    ),
    (
        "shards.gather_microseconds",
        "How long a shard gathers messages before it turns, from 8,000 a second on: larger batches cost less CPU, and come\n\
         so much later. 0 to 4000; see tuning/README.md for what it changes.",
    ),
    ("shards.stream_buffers", "Receive buffers for TCP in each shard, a power of two. Each takes 16 KiB."),
    ("agents.crypto_accept", "Which ciphers agents may use: \"aes\", \"blowfish\" or \"both\"."),
    (
        "agents.replay",
        "\"strict\": a counter must grow, as OSSEC ships. \"window\": late messages are taken once, within 64 of the\n\
         newest. \"off\": counters are not looked at, as Wazuh ships.",
    ),
    (
        "agents.message_bytes_max",
        "The longest message, before and after inflating: 65536 as Wazuh, 6144 as OSSEC.",
    ),
    ("agents.old_format", "Whether messages in the format of before OSSEC 1.0 are taken."),
    (
        "agents.authentication_deadline_seconds",
        "A TCP connection must bring an authenticated message within this time.",
    ),
    (
        "agents.unauthenticated_max",
        "TCP connections of one shard that may be waiting for their first authenticated message.",
    ),
    (
        "agents.unauthenticated_per_address_max",
        "The same from one source address. Raise it where all agents come through one NAT.",
    ),
    (
        "agents.silence_deadline_seconds",
        "A TCP connection that says nothing for this long is closed: 3 x 600 + 30, as agent_control.",
    ),
    (
        "agents.paused_acknowledgement_seconds",
        "How often an agent that feels back-pressure is told that its manager lives: below the time-reconnect of all\n\
         agents, which is 60 s in Wazuh.",
    ),
    (
        "agents.send_queue_bytes_max",
        "What may wait to be sent to one agent that does not read. Beyond it, the agent is closed.",
    ),
    (
        "agents.events_per_second_max",
        "Events a second that one agent may send, with a burst of one second; 0 for any number. Over TCP an agent waits\n\
         for more, over UDP what is more is dropped and counted. Control messages are no events.",
    ),
    (
        "agents.acknowledged_delivery",
        "Whether agents that offer it (ringmaster-agent over TCP) get each event confirmed once every sink has it: then\n\
         each sink gets each event exactly once, whatever is cut or killed. Others are not concerned.",
    ),
    (
        "syslog.connections_max",
        "TCP connections of syslog listeners that one shard holds. A further one is closed at once and counted.",
    ),
    ("syslog.connections_per_address_max", "The same from one source address."),
    (
        "syslog.idle_seconds",
        "A syslog connection that says nothing for this long is closed; a device may lose a line by that.",
    ),
    (
        "sink.soft_bytes",
        "Bytes that wait in one sink of one shard. From here on datagrams are dropped and counted, and TCP agents that\n\
         send events feel back-pressure. At half of it they go on.",
    ),
    ("sink.hard_bytes", "From here on what was received over TCP is kept as it came, and decoded later."),
    ("sink.queue.enabled", "Whether events go to the unix datagram socket of analysisd."),
    ("sink.queue.path", "That socket: queue/ossec/queue of OSSEC, queue/sockets/queue of Wazuh."),
    ("sink.queue.product", "Whose analysisd reads it: \"ossec\" or \"wazuh\"."),
    ("sink.archives.text", "Whether events are appended to logs/archives/archives.log in OSSEC's form."),
    (
        "sink.archives.json",
        "Whether events are appended to logs/archives/archives.json, one JSON object a line.",
    ),
    (
        "sink.archives.sync",
        "Whether each write waits until its disk has it (fdatasync): what was confirmed survives a crash of the host\n\
         too, and archives are slower.",
    ),
    (
        "active_response.enabled",
        "Whether queue/alerts/ar is there, to which analysisd and agent_control write what agents are to do.",
    ),
    (
        "active_response.keep_seconds",
        "How long such a message waits for an agent that is away. 0: it is dropped, as ossec-remoted does. An agent that\n\
         speaks UDP gets it within 1200 s of its last keep-alive or not at all.",
    ),
    (
        "active_response.keep_messages_per_agent_max",
        "Messages that wait for one agent; a further one is dropped.",
    ),
    (
        "shared.enabled",
        "Whether the files of etc/shared are sent, as merged.mg, to agents that have something else.",
    ),
    (
        "shared.bytes_per_second",
        "How fast, to all agents together. Compressing and sealing 2 MiB takes about a tenth of a second of a core, a few\n\
         messages at a time, so events hardly notice; and 10,000 agents have 50 KB each within four minutes.",
    ),
    ("metrics.address", "Where /metrics (Prometheus) and /readyz answer over HTTP; \"none\" for nowhere."),
    (
        "counters.unclean_margin",
        "How far the counter of the manager's own messages jumps after a stop that was not clean: more messages than it\n\
         sends in the second that may not have been written.",
    ),
    ("stop.grace_seconds", "How long SIGTERM waits for the sinks to take what is held."),
    (
        "run.user",
        "The user that root becomes once all addresses are bound: \"auto\" is the owner of queue/rids (ossecr in OSSEC, wazuh\n\
         in Wazuh), \"as-started\" nobody else; or a name or number.",
    ),
    ("run.group", "The group: \"auto\" is that of queue/rids, or the named user's own."),
    (
        "run.landlock",
        "Whether the kernel is asked to hold the program to its home: etc/ is read; queue/, logs/, var/ and etc/shared/ are\n\
         written; no other file is opened, and no further TCP port. Where the kernel can't, the log says so.",
    ),
    ("log.file", "Whether the program's own lines are appended to logs/ossec.log in OSSEC's form."),
    (
        "log.format",
        "Their form on standard error: \"text\", \"json\", \"journal\" (systemd's priorities), or \"auto\": the journal's if\n\
         systemd has connected standard error to it, else text.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_one_comment_and_every_comment_a_setting() {
        let mut commented: Vec<&str> = COMMENTS.iter().map(|(key, _)| *key).collect();
        commented.sort_unstable();
        let settings = flatten(&Settings::default());
        assert_eq!(commented, settings.keys().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn the_written_file_gives_the_defaults_with_and_without_its_comment_signs() {
        let written = default_file();
        assert_eq!(toml::from_str::<Settings>(&written).unwrap(), Settings::default());

        let is_default = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let uncommented: String = written
            .lines()
            .map(|line| if is_default(line) { format!("{}\n", &line[1..]) } else { format!("{line}\n") })
            .collect();
        assert_eq!(
            uncommented.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(),
            COMMENTS.len()
        );
        assert_eq!(toml::from_str::<Settings>(&uncommented).unwrap(), Settings::default());
    }

    #[test]
    fn check_says_where_a_value_came_from() {
        let mut settings = Settings::with_home("/h");
        settings.stop.grace_seconds = 3;
        let origins = BTreeMap::from([("stop.grace_seconds".to_owned(), Origin::CommandLine)]);
        let text = effective(&settings, &origins);
        assert!(text.contains("\nstop.grace_seconds = 3  # command line\n"), "{text}");
        assert!(text.contains("\nlisten.addresses = [\"[::]:1514\"]  # default\n"), "{text}");
        assert_eq!(text.lines().count(), COMMENTS.len() + 1, "{text}");
    }
}
