//! Acknowledged delivery: what all shards of a manager share about it, and what goes with an event into the sinks.
//!
//! An agent numbers its events within a session; a [`Ledger`] keeps, for each agent and each sink, before which number the
//! sink has everything, whatever happens to this process. A connection of the agent begins where the ledger says, and what a
//! sink has already is not given to it again: that is "exactly once". The messages are in docs/PROTOCOL.md, "Acknowledged
//! delivery"; what a shard does with them is in `deliver`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::{AgentId, DeliveryOffer};
use rustc_hash::FxHashMap;

use crate::state::Owner;

/// How many sinks there can be.
pub const SINKS_MAX: usize = 3;

/// Some of the sinks, which are known by their indices: below [`SINKS_MAX`], and the same for the ledger and whoever
/// publishes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SinkSet(u8);

impl SinkSet {
    /// No sink.
    pub const NONE: SinkSet = SinkSet(0);

    /// These and `sink`.
    ///
    /// # Panics
    /// If there is no such index.
    #[must_use]
    pub const fn with(self, sink: usize) -> SinkSet {
        assert!(sink < SINKS_MAX, "there are not that many sinks");
        SinkSet(self.0 | 1 << sink)
    }

    /// These without `sink`.
    ///
    /// # Panics
    /// If there is no such index.
    #[must_use]
    pub const fn without(self, sink: usize) -> SinkSet {
        assert!(sink < SINKS_MAX, "there are not that many sinks");
        SinkSet(self.0 & !(1 << sink))
    }

    /// Whether `sink` is one of them.
    pub const fn contains(self, sink: usize) -> bool {
        sink < SINKS_MAX && self.0 & 1 << sink != 0
    }

    /// Whether it is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their indices, from the lowest.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..SINKS_MAX).filter(move |sink| self.contains(*sink))
    }
}

/// Goes with an event of acknowledged delivery into the sinks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// The agent's place in the ledger.
    pub cell: u32,
    /// The event's. Once a sink has the event, the ledger says `number + 1` of that sink.
    pub number: u64,
    /// The sinks that do not have it yet; never none.
    pub wanted: SinkSet,
}

/// What outlives the manager's process: for each agent its session, and for each sink the number before which it has
/// everything of that session.
///
/// Sinks write into it, in the order of an agent's events and only after they have them; the manager reads.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// The cell of `agent`, which keeps it while the process lives. A new agent, or one with another session: every sink
    /// begins at `first`. The same session: each sink's number becomes at least `first`. Called only when nothing of the
    /// agent is on its way in any sink.
    ///
    /// # Errors
    /// [`LedgerFull`], for an agent that has no cell only.
    fn open(&self, agent: AgentId, session: u64, first: u64) -> Result<u32, LedgerFull>;

    /// The number before which `sink` has everything.
    fn before(&self, cell: u32, sink: usize) -> u64;

    /// The sinks that there are: never none, and the same ones as long as the process lives.
    fn sinks(&self) -> SinkSet;
}

impl<Kept: Ledger> Ledger for Arc<Kept> {
    fn open(&self, agent: AgentId, session: u64, first: u64) -> Result<u32, LedgerFull> {
        (**self).open(agent, session, first)
    }

    fn before(&self, cell: u32, sink: usize) -> u64 {
        (**self).before(cell, sink)
    }

    fn sinks(&self) -> SinkSet {
        (**self).sinks()
    }
}

/// The ledger has no room for another agent: its events are confirmed by keep-alives, as with any other manager.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerFull;

impl fmt::Display for LedgerFull {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the ledger of acknowledged delivery has no room for another agent")
    }
}

impl std::error::Error for LedgerFull {}

/// The ledger, and which connection may hand each agent's events to the sinks: shared by all shards of a process, which has
/// only one, for as long as it lives.
#[derive(Debug)]
pub struct Deliveries {
    ledger: Box<dyn Ledger>,
    /// The agents that delivered since the process began; no more than the ledger has cells.
    agents: Mutex<FxHashMap<AgentId, Arc<Taking>>>,
}

impl Deliveries {
    /// Deliveries of a process that has just begun: no sink has anything on its way.
    ///
    /// # Panics
    /// If the ledger has no sink: then there is nothing that could be confirmed.
    pub fn new(ledger: Box<dyn Ledger>) -> Deliveries {
        assert!(!ledger.sinks().is_empty(), "a manager without sinks confirms nothing");
        Deliveries { ledger, agents: Mutex::default() }
    }

    /// What was kept.
    pub fn ledger(&self) -> &dyn Ledger {
        &*self.ledger
    }

    /// Makes `owner` the one connection whose events of `agent` are taken, from whichever had that right before.
    pub(crate) fn claim(
        &self,
        agent: AgentId,
        offer: DeliveryOffer,
        owner: Owner,
    ) -> Result<Arc<Taking>, LedgerFull> {
        let mut agents = locked(&self.agents);
        if let Some(taking) = agents.get(&agent) {
            locked(&taking.state).owner = owner;
            return Ok(Arc::clone(taking));
        }
        let cell = self.ledger.open(agent, offer.session, offer.first)?;
        let before = self.before_all(cell);
        let taking = Arc::new(Taking { agent, cell, state: Mutex::new(TakingState { owner, before }) });
        agents.insert(agent, Arc::clone(&taking));
        Ok(taking)
    }

    /// Begins with the session of `offer`, if `owner` still has the right to and every sink has what an earlier connection
    /// gave it: then the ledger tells where.
    pub(crate) fn begin(&self, taking: &Taking, offer: DeliveryOffer, owner: Owner) -> Begin {
        let mut state = locked(&taking.state);
        if state.owner != owner {
            return Begin::Lost;
        }
        if state.before > self.before_all(taking.cell) {
            return Begin::Wait;
        }
        let cell = self.ledger.open(taking.agent, offer.session, offer.first);
        assert_eq!(cell, Ok(taking.cell), "an agent keeps its cell");
        state.before = self.before_all(taking.cell);
        let had = std::array::from_fn(|sink| self.ledger.before(taking.cell, sink));
        Begin::At { had, before: state.before }
    }

    /// The number before which every sink has everything of the session of `owner`, if it still has the right.
    pub(crate) fn taken(&self, taking: &Taking, owner: Owner) -> Option<u64> {
        // Another owner's session may have other numbers: none begins while the lock is held.
        let state = locked(&taking.state);
        (state.owner == owner).then(|| self.before_all(taking.cell))
    }

    /// The number before which every sink has everything.
    pub(crate) fn before_all(&self, cell: u32) -> u64 {
        let before = self.ledger.sinks().iter().map(|sink| self.ledger.before(cell, sink));
        before.min().expect("a manager without sinks has no deliveries")
    }
}

/// Whether a connection may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begin {
    /// There.
    At {
        /// Before which number each sink has everything.
        had: [u64; SINKS_MAX],
        /// Before which number all of them have.
        before: u64,
    },
    /// Another connection of the agent has the right.
    Lost,
    /// Something that an earlier connection brought is still on its way in some shard's sink.
    Wait,
}

/// Who may give an agent's events to the sinks, and up to where they were given: by any shard of this process.
#[derive(Debug)]
pub(crate) struct Taking {
    agent: AgentId,
    cell: u32,
    state: Mutex<TakingState>,
}

#[derive(Debug)]
struct TakingState {
    owner: Owner,
    /// One more than the number of the last event that went into a sink.
    before: u64,
}

impl Taking {
    pub(crate) fn cell(&self) -> u32 {
        self.cell
    }

    /// Notes that the event `number` goes into the sinks; whether `owner` may give it.
    pub(crate) fn take(&self, owner: Owner, number: u64) -> bool {
        let mut state = locked(&self.state);
        if state.owner != owner {
            return false;
        }
        state.before = state.before.max(number + 1);
        true
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_sinks() {
        let set = SinkSet::NONE.with(0).with(2);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2]);
        assert!(set.contains(2) && !set.contains(1) && !set.contains(SINKS_MAX) && !set.contains(300));
        assert_eq!(set.without(0).without(1), SinkSet::NONE.with(2));
        assert!(set.without(0).without(2).is_empty() && SinkSet::default().is_empty());
    }
}
