//! What is known of one agent.

use std::{net::SocketAddr, time::Duration};

use codec::Escaped;
use manager::{Agent, AgentState, Notice, Time, Transport, VERSION_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::{
    Moment,
    agent_info::{self, Content, FoundFile, InfoWrite},
};

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has a connection, or was heard over UDP not long ago.
    Active,
    /// It was there once.
    Disconnected,
    /// Nothing was ever heard of it, as far as this home remembers.
    #[default]
    Never,
}

/// One agent.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) status: Status,
    /// When `status` became what it is, in Unix seconds; 0 for [`Status::Never`].
    pub(super) since: u64,
    /// From where its connection or its last control message over UDP came.
    pub(super) from: Option<SocketAddr>,
    /// As it names itself, escaped.
    pub(super) version: Option<Box<str>>,
    /// System, host and version: the first line of its keep-alive, escaped.
    pub(super) system: Option<Box<str>>,
    /// Unix seconds; 0: never.
    pub(super) last_keep_alive: u64,
    /// Unix seconds, to a second; 0: never.
    pub(super) last_event: u64,
    /// Events since the start.
    pub(super) events: u64,
    /// Messages since the start that said they were its own and were dropped.
    pub(super) dropped: u64,
    /// What its own line said at the last look: it counts modulo 2^32.
    events_seen: u32,
    dropped_seen: u32,
    /// It said that it goes, at this second.
    stopped: Option<u64>,
    file: File,
}

/// The agent's file in queue/agent-info.
#[derive(Debug, Default)]
struct File {
    /// What it should say.
    content: Option<Content>,
    /// A digest of what it says; 0: not known.
    written: u64,
    /// Whether it is behind: its content, or only its time.
    behind: bool,
}

impl Record {
    pub(super) fn on_notice(&mut self, now: Moment, state: &AgentState, notice: &Notice) {
        match notice {
            Notice::Connected { from, transport: _ } => {
                self.from = Some(*from);
                self.stopped = None;
            }
            Notice::Disconnected { reason: _ } | Notice::RequestAnswer { .. } => {}
            Notice::KeepAlive { text } => {
                self.last_keep_alive = now.unix_seconds;
                let line = agent_info::system_line(text);
                self.version = version(&line).or(self.version.take());
                self.system = Some(shown(&line));
                self.file.content = state.method().map(|method| Content::new(line, method.cipher()));
                self.file.behind = self.file.content.is_some();
            }
            Notice::KeepAliveSame => {
                self.last_keep_alive = now.unix_seconds;
                self.file.behind = self.file.content.is_some();
            }
            Notice::Started { version } => {
                self.stopped = None;
                if let Some(version) = version {
                    self.version = Some(shown(version.as_bytes()));
                }
            }
            Notice::Stopped => self.stopped = Some(now.process.as_seconds()),
        }
    }

    /// Adds up what the agent's line counted since the last look.
    pub(super) fn look(&mut self, now: Moment, state: &AgentState) {
        let (events, dropped) = (state.events(), state.dropped());
        if events != self.events_seen {
            self.events += u64::from(events.wrapping_sub(self.events_seen));
            self.events_seen = events;
            self.last_event = state.last_seen().map_or(now.unix_seconds, |seen| now.unix_of(seen));
        }
        if dropped != self.dropped_seen {
            self.dropped += u64::from(dropped.wrapping_sub(self.dropped_seen));
            self.dropped_seen = dropped;
        }
    }

    /// Finds out whether the agent is there, and notes when that changes.
    pub(super) fn refresh(&mut self, now: Moment, state: &AgentState, silent_after: Duration) {
        let status = self.status_now(now, state, silent_after);
        if status == self.status {
            return;
        }
        // Without a word since the start, all that is known of it is its last keep-alive.
        let unheard = state.last_seen().is_none() && state.owner().is_none();
        self.since = if unheard { self.last_keep_alive } else { now.unix_seconds };
        self.status = status;
    }

    fn status_now(&self, now: Moment, state: &AgentState, silent_after: Duration) -> Status {
        let there = |is_there| if is_there { Status::Active } else { Status::Disconnected };
        if state.owner().is_some() {
            return Status::Active;
        }
        match (state.last_seen(), state.transport()) {
            // Its connection is gone, which the kernel tells at once.
            (Some(_), Some(Transport::Tcp)) => Status::Disconnected,
            (Some(seen), Some(Transport::Udp) | None) => {
                let has_gone = self.stopped.is_some_and(|stopped| seen <= Time::from_seconds(stopped));
                there(!has_gone && now.process.since(seen) <= silent_after)
            }
            (None, _) if self.last_keep_alive == 0 => Status::Never,
            (None, _) => {
                there(now.unix_seconds.saturating_sub(self.last_keep_alive) <= silent_after.as_secs())
            }
        }
    }

    /// Takes in what the agent's file says, unless the agent itself has said more.
    pub(super) fn restore(&mut self, found: &FoundFile, state: &AgentState) {
        if self.file.written == 0 {
            self.file.written = found.digest;
        }
        if state.last_seen().is_none() {
            self.last_keep_alive = found.modified_unix_seconds;
            self.version = version(&found.system);
            self.system = Some(shown(&found.system));
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.file.behind
    }

    /// What the file says is not known any more.
    pub(super) fn file_is_another(&mut self) {
        self.file.written = 0;
    }

    /// What is to be done to bring the file up to date. It counts as done.
    pub(super) fn write(&mut self, agent: &Agent) -> Option<InfoWrite> {
        self.file.behind = false;
        let content = self.file.content.as_ref()?;
        let is_new = self.file.written != content.digest();
        self.file.written = content.digest();
        Some(InfoWrite {
            agent: agent.id(),
            name: agent_info::agent_info_name(agent.entry()),
            bytes: content.bytes(),
            is_new,
            unix_seconds: self.last_keep_alive,
        })
    }
}

/// An agent's words, so that they can be shown anywhere.
fn shown(words: &[u8]) -> Box<str> {
    Escaped(words).to_string().into()
}

/// The version at the end of a keep-alive's first line, less the digest: `... - OSSEC HIDS v4.2.0`.
fn version(line: &[u8]) -> Option<Box<str>> {
    let digest = line.windows(3).rposition(|three| three == b" / ");
    let line = &line[..digest.unwrap_or(line.len())];
    let word = line.rsplit(|byte| *byte == b' ').next()?;
    let is_version = matches!(word, [b'v', digit, ..] if digit.is_ascii_digit());
    (is_version && word.len() <= VERSION_BYTES_MAX).then(|| shown(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_products() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(version(line.as_bytes()).as_deref(), expected);
        check("Linux vm 6.18.44 #1 SMP x86_64 - OSSEC HIDS v4.2.0", Some("v4.2.0"));
        check(
            "Linux |vm |6.1 |#1 SMP |x86_64 [Debian GNU/Linux|debian: 12 (bookworm)] - Wazuh v4.14.7 / \
             ab73af41699f13fdd81903b5f23d8d00",
            Some("v4.14.7"),
        );
        check("Linux vm", None);
        check("Linux very", None);
        check("", None);
    }
}
