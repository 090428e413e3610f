//! What one shard's manager counted. Plain numbers: the daemon copies them into what /metrics reads.

use std::net::SocketAddr;

use codec::AgentId;

use crate::verdict::{CloseReason, ControlKind, Reason, Refusal, Verdict};

/// Who sent a message that was dropped, as far as that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DroppedFrom {
    /// Where it came from.
    pub from: SocketAddr,
    /// Whose it claimed to be, if there is such an agent. Not proven: anybody can write an id.
    pub agent: Option<AgentId>,
}

/// Whose message was dropped last, for each [`Reason::index`].
pub type DroppedLast = [Option<DroppedFrom>; Reason::COUNT];

/// From where a connection came last that was not admitted, for each [`Refusal::index`].
pub type RefusedLast = [Option<SocketAddr>; Refusal::COUNT];

/// Sums since the start, and the two gauges of connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Messages received, those that the kernel dropped included.
    pub received: u64,
    /// Of these: events that the sink took over.
    pub events: u64,
    /// Of these: control messages, by [`ControlKind::index`].
    pub control: [u64; ControlKind::COUNT],
    /// Of these: dropped, by [`Reason::index`].
    pub dropped: [u64; Reason::COUNT],
    /// Connections held now.
    pub connections: u64,
    /// Of these: bound to an agent by a genuine message.
    pub authenticated: u64,
    /// Connections admitted.
    pub admitted: u64,
    /// Connections not admitted, by [`Refusal::index`].
    pub refused: [u64; Refusal::COUNT],
    /// Connections that ended, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::COUNT],
    /// Acknowledgements in answer to a start-up or a keep-alive.
    pub acknowledged: u64,
    /// Acknowledgements that nobody asked for, sent to agents whose connection is paused.
    pub acknowledged_unasked: u64,
    /// Connections that deliver now: their agents number events and get them confirmed.
    pub delivering: u64,
    /// Messages that told an agent what all sinks have.
    pub delivery_taken: u64,
    /// Offers of acknowledged delivery that the ledger had no room for.
    pub delivery_full: u64,
    /// Events of the manager's own that the sink took over. They were not received.
    pub raised: u64,
    /// Events of the manager's own for which the sink had no room.
    pub raised_dropped: u64,
}

impl Counters {
    /// All control messages.
    pub fn control_total(&self) -> u64 {
        self.control.iter().sum()
    }

    /// All dropped messages.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Messages dropped for `reason`.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason.index()]
    }

    /// Connections that ended for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Whether every message has its one verdict, and every connection its end or its place.
    pub fn balanced(&self) -> bool {
        self.received == self.events + self.control_total() + self.dropped_total()
            && self.admitted == self.connections + self.closed.iter().sum::<u64>()
            && self.authenticated <= self.connections
            && self.delivering <= self.authenticated
    }

    pub(crate) fn record(&mut self, verdict: Verdict) {
        self.received += 1;
        match verdict {
            Verdict::Control(kind) => self.control[kind.index()] += 1,
            Verdict::Dropped(reason) => self.dropped[reason.index()] += 1,
            Verdict::Event => self.events += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_verdict_one_counter() {
        let mut counters = Counters::default();
        assert!(counters.balanced());
        counters.record(Verdict::Event);
        counters.record(Verdict::Control(ControlKind::Startup));
        counters.record(Verdict::Dropped(Reason::WrongKey));
        assert!(counters.balanced());
        assert_eq!((counters.received, counters.control_total(), counters.dropped_total()), (3, 1, 1));
        counters.events += 1;
        assert!(!counters.balanced(), "a message counted twice must show");
        counters.received += 1;
        counters.admitted += 1;
        assert!(!counters.balanced(), "a connection neither held nor closed must show");
    }
}
