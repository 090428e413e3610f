//! What is known of each agent: whether it is there, since when, from where, and what it said of itself.
//!
//! The data path only counts and tells ([`manager::Notice`]); this puts it together, on the control plane's thread: at each
//! notice for its agent, and for all agents each second. OSSEC's files in queue/agent-info are written from it.

mod agent_info;
mod record;
mod report;

use std::{sync::Arc, time::Duration};

use codec::AgentId;
use manager::{Agent, AgentTable, Notice, Time};
use serde_json::Value;

pub use agent_info::{AgentInfo, FoundInfo, InfoWrite, Written, agent_info_name};
pub use record::Status;
pub use report::{AgentReport, heading, table_line};

use crate::{clock::Clock, command::Answer};
use record::Record;

/// How many agents one answer tells of at once: some milliseconds of the control plane's time.
const AGENTS_AT_ONCE: usize = 1_000;

/// One look at both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The clock that shards count by.
    pub process: Time,
    /// The clock that people read.
    pub unix_seconds: u64,
}

/// All agents.
#[derive(Debug)]
pub struct Registry {
    table: Arc<AgentTable>,
    /// One for each agent of the table, by [`Agent::index`].
    records: Vec<Record>,
    silent_after: Duration,
    info: Info,
}

/// What of queue/agent-info is to be written.
#[derive(Debug)]
enum Info {
    /// Nothing, ever: Wazuh's manager has a database in its place.
    Off,
    On {
        /// Agents whose file is behind, by their place in the table; each once.
        behind: Vec<u32>,
    },
}

/// How many agents there are of each kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatusCounts {
    /// Of [`Status::Active`].
    pub active: u64,
    /// Of [`Status::Disconnected`].
    pub disconnected: u64,
    /// Of [`Status::Never`].
    pub never: u64,
}

impl Registry {
    /// Nothing is known yet. An agent that says nothing for `silent_after` counts as disconnected.
    pub fn new(table: Arc<AgentTable>, silent_after: Duration, with_agent_info: bool) -> Registry {
        let records = table.agents().iter().map(|_| Record::default()).collect();
        let info = if with_agent_info { Info::On { behind: Vec::new() } } else { Info::Off };
        Registry { table, records, silent_after, info }
    }

    /// Another silence makes an agent count as disconnected from now on.
    pub fn expect_silence(&mut self, silent_after: Duration) {
        self.silent_after = silent_after;
    }

    /// client.keys changed. What is known of an agent that stayed the same is kept.
    pub fn adopt(&mut self, table: &Arc<AgentTable>) {
        let mut before = std::mem::take(&mut self.records);
        if let Info::On { behind } = &mut self.info {
            behind.clear();
        }
        for agent in table.agents() {
            let same = self.table.by_id(agent.id()).filter(|old| Arc::ptr_eq(old.state(), agent.state()));
            let mut record =
                same.map(|old| std::mem::take(&mut before[old.index() as usize])).unwrap_or_default();
            if same.is_some_and(|old| agent_info_name(old.entry()) != agent_info_name(agent.entry())) {
                record.file_is_another();
            }
            if let Info::On { behind } = &mut self.info
                && record.is_behind()
            {
                behind.push(agent.index());
            }
            self.records.push(record);
        }
        self.table = Arc::clone(table);
    }

    /// An agent said something, or its connection came or went.
    pub fn on_notice(&mut self, now: Moment, agent: AgentId, notice: &Notice) {
        let Some(agent) = self.table.by_id(agent) else { return };
        let record = &mut self.records[agent.index() as usize];
        let was_behind = record.is_behind();
        record.on_notice(now, agent.state(), notice);
        record.refresh(now, agent.state(), self.silent_after);
        if let Info::On { behind } = &mut self.info
            && record.is_behind()
            && !was_behind
        {
            behind.push(agent.index());
        }
    }

    /// Takes in what agents' own lines count, and what time has made of them. To be called each second.
    pub fn look(&mut self, now: Moment) -> StatusCounts {
        let mut counts = StatusCounts::default();
        for (agent, record) in self.table.agents().iter().zip(&mut self.records) {
            record.look(now, agent.state());
            record.refresh(now, agent.state(), self.silent_after);
            match record.status {
                Status::Active => counts.active += 1,
                Status::Disconnected => counts.disconnected += 1,
                Status::Never => counts.never += 1,
            }
        }
        counts
    }

    /// What the files of queue/agent-info said at the start, for the agents that were not heard of since.
    pub fn restore(&mut self, now: Moment, mut found: FoundInfo) {
        for (agent, record) in self.table.agents().iter().zip(&mut self.records) {
            if let Some(info) = found.take(&agent_info_name(agent.entry())) {
                record.restore(&info, agent.state());
                record.refresh(now, agent.state(), self.silent_after);
            }
        }
    }

    /// The files that are behind what is known. They count as written from now on; what could not be is to be given to
    /// [`Registry::not_written`].
    pub fn take_writes(&mut self) -> Vec<InfoWrite> {
        let Info::On { behind } = &mut self.info else { return Vec::new() };
        let (table, records) = (&self.table, &mut self.records);
        behind.drain(..).filter_map(|place| records[place as usize].write(table.agent(place))).collect()
    }

    /// These files could not be written: the next keep-alive tries again.
    pub fn not_written(&mut self, agents: &[AgentId]) {
        for agent in agents.iter().filter_map(|id| self.table.by_id(*id)) {
            self.records[agent.index() as usize].file_is_another();
        }
    }

    /// What is asked about agents: those with these ids, or all, from the one at `from` on.
    pub fn answer(&self, now: Moment, ids: &[String], from: usize) -> Answer {
        let mut items = Vec::new();
        if ids.is_empty() {
            let agents = self.table.agents();
            items.extend(agents.iter().skip(from).take(AGENTS_AT_ONCE).map(|agent| self.report(now, agent)));
            let next = from + items.len();
            return if next < agents.len() { Answer::more(items, next) } else { Answer::done(items) };
        }
        for id in ids.iter().skip(from).take(AGENTS_AT_ONCE) {
            match find(&self.table, id) {
                Some(agent) => items.push(self.report(now, agent)),
                None => return Answer::refused(format!("no agent in client.keys has the id {id:?}")),
            }
        }
        let next = from + items.len();
        if next < ids.len() { Answer::more(items, next) } else { Answer::done(items) }
    }

    fn report(&self, now: Moment, agent: &Agent) -> Value {
        let report = AgentReport::of(now, agent, &self.records[agent.index() as usize]);
        serde_json::to_value(report).expect("a report is a plain object")
    }
}

/// The agent whose id this is, as written in client.keys or as manage_agents would write the number.
pub fn find<'a>(table: &'a AgentTable, id: &str) -> Option<&'a Agent> {
    let of = |id: &str| table.by_id(id.parse().ok()?);
    of(id).or_else(|| of(&format!("{:03}", id.parse::<u32>().ok()?)))
}

impl Moment {
    /// Now.
    pub fn now(clock: Clock) -> Moment {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Moment {
            process: Time::from_nanoseconds(clock.nanoseconds()),
            // A host whose clock stands before 1970 has other troubles.
            unix_seconds: since.map_or(0, |since| since.as_secs()),
        }
    }

    /// When `then` was, in Unix seconds.
    fn unix_of(self, then: Time) -> u64 {
        self.unix_seconds.saturating_sub(self.process.since(then).as_secs())
    }
}

#[cfg(test)]
mod tests;
