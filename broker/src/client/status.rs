//! What a client tells of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Client, Moment};

/// What a client has counted since its start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientCounters {
    /// Datagrams from agents: `kept + passed + malformed + too_many_lines + no_room + not_written`, and those passed that
    /// were kept after all count twice.
    pub datagrams: u64,
    /// Taken into a spool.
    pub kept: u64,
    /// Sent straight to the manager, by a gate.
    pub passed: u64,
    /// Sent straight to the manager after having been kept, by a gate.
    pub replayed: u64,
    /// Sends to the manager that failed, by a gate.
    pub sends_failed: u64,
    /// Dropped: no message of an agent.
    pub malformed: u64,
    /// Dropped: there are as many lines as there may be.
    pub too_many_lines: u64,
    /// Dropped: the line's spool is full, and its policy is to refuse.
    pub no_room: u64,
    /// Dropped: the disk takes nothing.
    pub not_written: u64,
    /// Writes to the disk that failed and were tried again.
    pub commits_failed: u64,
    /// Packets sent to the server, repeated ones included.
    pub packets: u64,
    /// Acknowledgements from the server.
    pub acks: u64,
    /// Datagrams given to agents.
    pub replies: u64,
    /// Datagrams for agents that have not been heard since the start.
    pub replies_to_nobody: u64,
    /// Connections made to the server.
    pub connections: u64,
    /// Connections that the server did not want.
    pub refused: u64,
    /// Lines that gave way to others.
    pub lines_given_up: u64,
    /// Bytes that were cut when spools were opened: what was being written when the client died.
    pub cut_bytes: u64,
    /// Kept datagrams that were gone when spools were opened.
    pub lost_records: u64,
}

/// A client at a moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClientStatus {
    /// Its name.
    pub name: String,
    /// `relay` or `gate`.
    pub mode: crate::wire::Mode,
    /// Whether there is a connection to the server.
    pub is_connected: bool,
    /// Whether the manager is well, as far as the server has said.
    pub is_well: bool,
    /// Why it is not.
    pub why_not: Option<String>,
    /// What it has counted.
    pub counters: ClientCounters,
    /// Each agent.
    pub lines: Vec<LineStatus>,
}

/// An agent's line at a moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LineStatus {
    /// Its id, or `ip-` and its address.
    pub agent: String,
    /// Where it sent from last.
    pub source: Option<String>,
    /// Seconds since it was heard; since the start, if it was not.
    pub heard_seconds_ago: f64,
    /// Datagrams that are kept.
    pub kept: u64,
    /// Their bytes on disk, files' headers included.
    pub bytes: u64,
    /// Bytes that are sent and not confirmed.
    pub flight_bytes: usize,
    /// How long the oldest kept datagram has been here, in seconds.
    pub oldest_seconds: Option<f64>,
    /// Datagrams from the agent since the start.
    pub datagrams: u64,
    /// Of them, sent straight to the manager.
    pub passed: u64,
    /// Datagrams to the agent.
    pub replies: u64,
    /// Taken into the spool.
    pub appended: u64,
    /// Forgotten since the other side has them.
    pub forgotten: u64,
    /// Dropped for want of room, oldest first.
    pub dropped: u64,
    /// Refused for want of room.
    pub refused: u64,
    /// Dropped since the disk took nothing.
    pub not_written: u64,
    /// Could not be read back.
    pub damaged: u64,
}

impl Client {
    /// The client now. Reads the oldest datagram of each line from the disk.
    pub fn status(&mut self, now: Moment) -> ClientStatus {
        let health = self.link.as_ref().and_then(|link| link.health);
        let why_not = match health {
            _ if self.link.is_none() => Some("no connection to the server".to_owned()),
            None => Some("the server has not said yet".to_owned()),
            Some(Ok(())) => None,
            Some(Err(why)) => Some(why.to_string()),
        };
        ClientStatus {
            name: self.settings.name.clone(),
            mode: self.settings.mode,
            is_connected: self.link.is_some(),
            is_well: health == Some(Ok(())),
            why_not,
            counters: self.counters,
            lines: self.lines.values_mut().map(|line| line_status(line, now)).collect(),
        }
    }

    /// What it has counted since its start.
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }
}

fn line_status(line: &mut crate::line::Line, now: Moment) -> LineStatus {
    let oldest = line.oldest_unix_milliseconds();
    let age = |since: u64| Duration::from_millis(now.unix_milliseconds.saturating_sub(since)).as_secs_f64();
    let counters = line.counters();
    LineStatus {
        agent: line.key.to_string(),
        source: line.source.map(|source| source.address.to_string()),
        heard_seconds_ago: now.elapsed.saturating_sub(line.heard_at).as_secs_f64(),
        kept: line.records(),
        bytes: line.bytes(),
        flight_bytes: line.flight_bytes(),
        oldest_seconds: oldest.map(age),
        datagrams: line.datagrams,
        passed: line.passed,
        replies: line.replies,
        appended: counters.appended,
        forgotten: counters.forgotten,
        dropped: counters.dropped,
        refused: counters.refused,
        not_written: line.not_written,
        damaged: counters.damaged,
    }
}
