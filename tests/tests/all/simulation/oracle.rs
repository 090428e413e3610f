//! What must hold, whatever happens. Knows nothing of how the manager works: only what was sent and what came out.
//!
//! * Nothing is published that was not sent, nor under another agent's name.
//! * Nothing is published twice, with one exception that is stated exactly: a manager that *crashes* forgets the counters
//!   that it took since they were last written (at most one second). What it published in that time may be published once
//!   more by the next manager, if somebody sends the same datagram again. Nothing older, and nothing after a clean stop.
//! * Events of one agent are published in the order in which it sent them (over UDP with [`ReplayPolicy::Window`]: each
//!   once, in any order).
//! * Each message has exactly one verdict, and the sums balance.
//! * All that was sent over a connection that was never broken arrives.

use std::collections::BTreeSet;

use agent::Transport;
use manager::ReplayPolicy;

use super::plan::Plan;

/// Watches one run. The first thing that is wrong is kept.
pub(super) struct Oracle {
    agents: Vec<Watched>,
    /// What was published since the counters were last written.
    unwritten: Vec<(usize, u32)>,
    violation: Option<String>,
    pub(super) events: u64,
}

struct Watched {
    in_order: bool,
    /// Sequence numbers below this one were sent.
    sent: u32,
    /// What a manager must not publish again.
    published: BTreeSet<u32>,
    /// What was ever published.
    arrived: BTreeSet<u32>,
    /// The last one published, and what it was when the counters were last written.
    last: Option<u32>,
    last_written: Option<u32>,
}

impl Oracle {
    pub(super) fn new(plan: &Plan) -> Oracle {
        let watched = |transport: Transport| Watched {
            in_order: transport == Transport::Tcp || plan.replay == ReplayPolicy::Strict,
            sent: 0,
            published: BTreeSet::new(),
            arrived: BTreeSet::new(),
            last: None,
            last_written: None,
        };
        Oracle {
            agents: plan.fleet.iter().map(|kind| watched(kind.transport)).collect(),
            unwritten: Vec::new(),
            violation: None,
            events: 0,
        }
    }

    /// The text of an agent's event: long enough to be worth compressing, and unlike any other.
    pub(super) fn text(agent: usize, sequence: u32) -> String {
        let noise = u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ agent as u64;
        format!("1:/var/log/sim:agent {agent} event {sequence} of {noise:x} said {}", noise % 1_000)
    }

    /// The sequence number of the next event of `agent`, which is sent now.
    pub(super) fn send(&mut self, agent: usize) -> u32 {
        let sequence = self.agents[agent].sent;
        self.agents[agent].sent += 1;
        sequence
    }

    pub(super) fn next_sequence(&self, agent: usize) -> u32 {
        self.agents[agent].sent
    }

    /// `text` was published as an event of the agent called `name`.
    pub(super) fn published(&mut self, name: &str, text: &str) {
        self.events += 1;
        let words: Vec<&str> = text.split(' ').collect();
        let numbers = (
            words.get(1).and_then(|word| word.parse().ok()),
            words.get(3).and_then(|word| word.parse().ok()),
        );
        let (Some(agent), Some(sequence)) = numbers else {
            return self.violated(format!("published what nobody sends: {text:?}"));
        };
        if agent >= self.agents.len()
            || text != Oracle::text(agent, sequence)
            || name != format!("agent{agent}")
        {
            return self.violated(format!("published for {name} what it did not send: {text:?}"));
        }
        let watched = &mut self.agents[agent];
        if sequence >= watched.sent {
            return self.violated(format!("published before it was sent: agent {agent}, event {sequence}"));
        }
        if !watched.published.insert(sequence) {
            return self.violated(format!("published twice: agent {agent}, event {sequence}"));
        }
        if watched.in_order && watched.last.is_some_and(|last| last >= sequence) {
            let last = watched.last;
            return self.violated(format!("out of order: agent {agent}, event {sequence} after {last:?}"));
        }
        watched.arrived.insert(sequence);
        watched.last = watched.last.max(Some(sequence));
        self.unwritten.push((agent, sequence));
    }

    /// The manager's counters are on disk now.
    pub(super) fn written(&mut self) {
        self.unwritten.clear();
        for watched in &mut self.agents {
            watched.last_written = watched.last;
        }
    }

    /// The manager is gone without writing its counters: what it took since the last time may come again.
    pub(super) fn crashed(&mut self) {
        for (agent, sequence) in self.unwritten.drain(..) {
            self.agents[agent].published.remove(&sequence);
        }
        for watched in &mut self.agents {
            watched.last = watched.last_written;
        }
    }

    pub(super) fn arrived(&self, agent: usize, sequence: u32) -> bool {
        self.agents[agent].arrived.contains(&sequence)
    }

    pub(super) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}
