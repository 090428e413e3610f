//! `ringmaster tune check`: what of the host decides about the path of a message, what it is here, what it should be, and why.
//!
//! ```text
//! knobs      the one table: name, wanted value, why. tuning/sysctl.d, tuning/systemd and tuning/README.md are held to it
//! findings   table + fleet + readings -> findings; pure
//! read       the host -> readings; the only file here that looks at it
//! show       findings -> text, JSON, exit status
//! ```
//!
//! Nothing is changed on the host, and nothing needs root or a home.

mod findings;
mod knobs;
mod read;
mod show;

pub use findings::{Finding, Reading, State, findings};
pub use knobs::{Absence, KNOBS, Knob, Place, Scale, Want};
pub use read::read;
pub use show::{exit_status, json, text};

use crate::settings::Settings;

/// What the knobs have to carry: the settings as far as they ask something of the host, and who is expected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fleet {
    /// Addresses listened on; each has a UDP socket in each shard.
    pub addresses: u64,
    /// Agents of client.keys; `None` where there is none to read.
    pub agents: Option<u64>,
    /// `listen.backlog`, in connections.
    pub backlog: u64,
    /// Receive buffers of one shard, of datagrams and of streams.
    pub buffers: u64,
    /// The cores that carry a shard.
    pub cores: Vec<usize>,
    /// Events a second of the whole fleet; `None`: as many as there are agents.
    pub events_per_second: Option<u64>,
    /// Whether events go to analysisd's queue socket.
    pub queue_sink: bool,
    /// `listen.receive_buffer_bytes`: of each UDP socket, as the kernel counts.
    pub receive_buffer_bytes: u64,
}

impl Fleet {
    /// The fleet of these settings, with a shard on each of `cores`.
    #[must_use]
    pub fn new(settings: &Settings, cores: Vec<usize>) -> Fleet {
        Fleet {
            addresses: settings.listeners().iter().filter(|listener| listener.transports.udp).count() as u64,
            agents: None,
            backlog: settings.listen.backlog.into(),
            buffers: u64::from(settings.shards.datagram_buffers) + u64::from(settings.shards.stream_buffers),
            cores,
            events_per_second: None,
            queue_sink: settings.sink.queue.enabled,
            receive_buffer_bytes: settings.listen.receive_buffer_bytes.into(),
        }
    }

    /// Shards, at least one.
    fn shards(&self) -> u64 {
        self.cores.len().max(1) as u64
    }

    /// Events a second that one shard has to expect, if anything is known of the fleet.
    fn shard_events_per_second(&self) -> Option<u64> {
        self.events_per_second.or(self.agents).map(|events| events.div_ceil(self.shards()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// What the operator's memory or the kernel's own default decides, and no file of ours.
    const LEFT_ALONE: [&str; 3] = ["net.core.busy_read", "net.ipv4.tcp_migrate_req", "net.ipv4.udp_mem"];

    fn shipped(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning").join(file)).unwrap()
    }

    /// `name = number` lines of a file, each of which must follow a comment that says why.
    fn assignments(file: &str) -> BTreeMap<String, u64> {
        let text = shipped(file);
        let mut explained = false;
        let mut found = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('[')) {
            if !line.starts_with('#') {
                assert!(explained, "{file}: {line:?} has no comment before it");
                let (name, value) = line.split_once('=').unwrap();
                // A dash lets a kernel without the knob pass.
                let name = name.trim().trim_start_matches('-').to_owned();
                assert_eq!(found.insert(name, value.trim().parse().unwrap()), None, "{file}: {line}");
            }
            explained = line.starts_with('#');
        }
        found
    }

    fn number(want: Want) -> Option<u64> {
        match want {
            Want::AtLeast(number) | Want::AtMost(number) => Some(number),
            Want::Any | Want::Word(_) => None,
        }
    }

    #[test]
    fn the_shipped_sysctls_are_those_of_the_table() {
        let expected: BTreeMap<String, u64> = KNOBS
            .iter()
            .filter(|knob| matches!(knob.place, Place::Sysctl { .. }) && !LEFT_ALONE.contains(&knob.name))
            .map(|knob| (knob.name.to_owned(), number(knob.want).unwrap()))
            .collect();
        assert_eq!(assignments("sysctl.d/60-ringmaster.conf"), expected);
    }

    #[test]
    fn the_shipped_limits_are_those_of_the_table() {
        let limits = assignments("systemd/ringmaster.service.d/limits.conf");
        let expected: BTreeMap<String, u64> = KNOBS
            .iter()
            .filter_map(|knob| {
                Some((knob.name.strip_prefix("RLIMIT_")?.to_owned(), number(knob.want).unwrap()))
            })
            .map(|(name, number)| (format!("Limit{name}"), number))
            .collect();
        assert_eq!(limits, expected);
    }

    #[test]
    fn the_readme_has_a_row_with_the_value_of_each_knob() {
        let readme = shipped("README.md");
        for knob in &KNOBS {
            let head = format!("| `{}` |", knob.name);
            let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with(&head)).collect();
            assert_eq!(rows.len(), 1, "{}: one row of tuning/README.md begins with {head}", knob.name);
            let ours = rows[0].split('|').nth(3).unwrap().trim();
            let value = match knob.want {
                Want::AtLeast(number) | Want::AtMost(number) => number.to_string(),
                Want::Any => String::new(),
                Want::Word(word) => word.to_owned(),
            };
            let named =
                LEFT_ALONE.contains(&knob.name) || ours.split([' ', ',', ';']).any(|word| word == value);
            assert!(named, "{}: its row says {ours:?}, the table {value:?}", knob.name);
        }
    }
}
