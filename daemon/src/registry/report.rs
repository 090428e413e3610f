//! What is told about an agent: one JSON object, or one line of a table.

use std::{fmt::Write, net::SocketAddr};

use codec::Method;
use manager::Agent;
use serde::{Deserialize, Serialize};

use super::{
    Moment,
    record::{Record, Status},
};

/// One agent as `ringmaster agents --json` and the command socket tell it. Times are RFC 3339 in UTC, to a second; what is
/// not known is null.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AgentReport {
    /// Its id in client.keys.
    pub id: String,
    /// Its name there.
    pub name: String,
    /// Its address rule there.
    pub ip: String,
    /// Whether it is there.
    pub status: Status,
    /// Since when.
    pub since: Option<String>,
    /// From where it comes: its connection, or its last control message over UDP.
    pub address: Option<SocketAddr>,
    /// `tcp` or `udp`: its last genuine message.
    pub protocol: Option<String>,
    /// `blowfish`, `aes` (Wazuh's dialect) or `aes_random_iv` (OSSEC's): its last genuine message.
    pub cipher: Option<String>,
    /// As it names itself.
    pub version: Option<String>,
    /// System and host, as it names them in its keep-alives.
    pub system: Option<String>,
    /// Its last genuine message of any kind.
    pub last_seen: Option<String>,
    /// Its last keep-alive.
    pub last_keep_alive: Option<String>,
    /// Its last event that was taken over, to a second.
    pub last_event: Option<String>,
    /// Its events since the manager started.
    pub events: u64,
    /// Messages since then that said they were its own and were dropped.
    pub dropped: u64,
    /// The counter of its last message, as rids files write it.
    pub counter: String,
}

impl AgentReport {
    pub(super) fn of(now: Moment, agent: &Agent, record: &Record) -> AgentReport {
        let (entry, state) = (agent.entry(), agent.state());
        let highest = state.replay().highest();
        AgentReport {
            id: entry.id.to_string(),
            name: entry.name.to_string(),
            ip: entry.address.to_string(),
            status: record.status,
            since: time(record.since),
            address: record.from,
            protocol: state.transport().map(|transport| transport.name().to_owned()),
            cipher: state.method().map(|method| cipher_name(method).to_owned()),
            version: record.version.as_deref().map(str::to_owned),
            system: record.system.as_deref().map(str::to_owned),
            last_seen: state.last_seen().and_then(|seen| time(now.unix_of(seen))),
            last_keep_alive: time(record.last_keep_alive),
            last_event: time(record.last_event),
            events: record.events,
            dropped: record.dropped,
            counter: format!("{}:{}", highest.global, highest.local),
        }
    }
}

fn cipher_name(method: Method) -> &'static str {
    match method {
        Method::AesOssec => "aes_random_iv",
        Method::AesWazuh => "aes",
        Method::Blowfish => "blowfish",
    }
}

fn time(unix_seconds: u64) -> Option<String> {
    let seconds = i64::try_from(unix_seconds).ok().filter(|seconds| *seconds > 0)?;
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// The first line of the table.
pub fn heading() -> String {
    row(&[
        "ID",
        "NAME",
        "IP",
        "STATUS",
        "SINCE",
        "FROM",
        "PROTO",
        "CIPHER",
        "VERSION",
        "EVENTS",
        "DROPPED",
        "LAST EVENT",
    ])
}

/// An agent's line of the table.
pub fn table_line(report: &AgentReport) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let status = match report.status {
        Status::Active => "active",
        Status::Disconnected => "disconnected",
        Status::Never => "never",
    };
    row(&[
        &report.id,
        &report.name,
        &report.ip,
        status,
        &or_none(&report.since),
        &report.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        &or_none(&report.protocol),
        &or_none(&report.cipher),
        &or_none(&report.version),
        &report.events.to_string(),
        &report.dropped.to_string(),
        &or_none(&report.last_event),
    ])
}

/// Cells under each other as long as they are not unusually long. A fleet is told line by line, so nobody knows the
/// longest.
fn row(cells: &[&str; 12]) -> String {
    const WIDTHS: [usize; 12] = [5, 20, 18, 12, 20, 21, 5, 13, 9, 10, 8, 0];
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        write!(line, "{cell:<width$} ").expect("a String takes all");
    }
    line.truncate(line.trim_end().len());
    line
}
