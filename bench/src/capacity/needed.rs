//! Which benches a plan is computed from: the one table of their names.

use std::collections::BTreeSet;
use std::fmt;

use super::demand::{Cipher, Protocol, Sink};
use super::figures::{Figure, Figures};
use super::model::SEGMENTS;

/// Agents of the fleets whose turns are measured at every size of segment.
pub(crate) const UDP_AGENTS: u64 = 20_000;
/// The same over TCP.
pub(crate) const TCP_AGENTS: u64 = 10_000;
/// Agents of the fleets that show what a fleet's size costs.
pub(crate) const FLEETS: [u64; 3] = [1_000, UDP_AGENTS, 100_000];
/// Bytes of the texts that each cost is measured at.
pub(crate) const TEXTS: [u64; 2] = [200, 600];

/// The bench of what it costs to get an event out of the kernel, without its size.
pub(crate) fn receive(protocol: Protocol, segment: u64) -> String {
    match protocol {
        Protocol::Tcp => format!("uring/receive/tcp-{segment}-a-segment"),
        Protocol::Udp => "uring/receive/udp".to_owned(),
    }
}

/// The bench of a shard's turn, without its size.
pub(crate) fn turn(protocol: Protocol, segment: u64, cipher: Cipher, agents: u64) -> String {
    let (protocol, cipher) = (protocol.name(), cipher.name());
    format!("daemon/turn/{protocol}-{segment}-a-segment-{cipher}-{agents}-agents")
}

/// The bench of a sink's hand-over, without its size.
pub(crate) fn hand_over(sink: Sink) -> String {
    format!("daemon/hand-over/{}", sink.name())
}

/// How many agents the turns of a protocol are measured with.
pub(crate) fn agents_of(protocol: Protocol) -> u64 {
    match protocol {
        Protocol::Tcp => TCP_AGENTS,
        Protocol::Udp => UDP_AGENTS,
    }
}

/// The names of all benches that a plan for this cipher and sink is computed from.
pub fn needed(cipher: Cipher, sink: Sink) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for text in TEXTS {
        names.insert(format!("{}/{text}", hand_over(sink)));
        for protocol in Protocol::ALL {
            for segment in SEGMENTS {
                names.insert(format!("{}/{text}", receive(protocol, segment)));
                names.insert(format!("{}/{text}", turn(protocol, segment, cipher, agents_of(protocol))));
            }
        }
    }
    let fleets = FLEETS.map(|agents| turn(Protocol::Udp, 1, cipher, agents));
    names.extend(fleets.iter().map(|name| format!("{name}/200")));
    names
}

/// Benches that were not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing(pub Vec<String>);

impl Missing {
    /// What of the benches that a plan needs the figures lack; `None` if nothing.
    pub fn of(figures: &Figures, cipher: Cipher, sink: Sink) -> Option<Missing> {
        let missing: Vec<_> =
            needed(cipher, sink).into_iter().filter(|name| figures.of(name).is_none()).collect();
        (!missing.is_empty()).then_some(Missing(missing))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} benches that the plan needs have no report:", self.0.len())?;
        for name in &self.0 {
            writeln!(formatter, "  {name}")?;
        }
        formatter.write_str("make them:\n  cargo bench -p ringmaster-bench")?;
        let files: BTreeSet<&str> = self.0.iter().map(|name| file_of(name)).collect();
        files.iter().try_for_each(|file| write!(formatter, " --bench {file}"))
    }
}

/// The file of a bench.
fn file_of(name: &str) -> &'static str {
    if name.starts_with("uring/receive/") {
        "receive"
    } else if name.starts_with("daemon/turn/") {
        "turn"
    } else {
        "sinks"
    }
}

/// The figure of a bench that is known to be there.
///
/// # Panics
/// If it is not: [`Missing::of`] comes first.
pub(crate) fn figure(figures: &Figures, bench: &str) -> Figure {
    figures.of(bench).unwrap_or_else(|| panic!("{bench} is in the table of what is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_makes_it() {
        let figure = Figure { ns: 1.0, low_ns: 1.0, high_ns: 1.0 };
        let all = needed(Cipher::Aes, Sink::Archive);
        let complete: Figures = all.iter().map(|name| (name.clone(), figure)).collect();
        assert_eq!(Missing::of(&complete, Cipher::Aes, Sink::Archive), None);
        let without: Figures =
            all.iter().filter(|name| !name.contains("udp/600")).map(|name| (name.clone(), figure)).collect();
        let missing = Missing::of(&without, Cipher::Aes, Sink::Archive).unwrap();
        assert_eq!(missing.0, ["uring/receive/udp/600"]);
        assert!(missing.to_string().ends_with("cargo bench -p ringmaster-bench --bench receive"));
        let other = Missing::of(&complete, Cipher::Blowfish, Sink::QueueSocket).unwrap().to_string();
        assert!(other.ends_with("--bench sinks --bench turn"), "{other}");
    }
}
