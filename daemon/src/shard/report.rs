//! A shard's numbers, stored where the control plane reads them.

use manager::{CloseReason, ControlKind, Reason, Refusal, Time};

use super::Shard;
use crate::metrics::{REASONS_MAX, SinkFailure};

const _: () = assert!(Reason::COUNT <= REASONS_MAX);
const _: () = assert!(CloseReason::COUNT <= REASONS_MAX && Refusal::COUNT <= REASONS_MAX);
const _: () = assert!(ControlKind::COUNT <= REASONS_MAX);

/// What the shard itself counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Turns of the loop.
    turns: u64,
    /// Times that everything which waited with the kernel had been taken.
    pub(super) rounds: u64,
    /// Messages of the last turn.
    pub(super) turn_messages: usize,
    /// Bytes of all messages.
    pub(super) received_bytes: u64,
    /// How many messages were dropped when it was last told whose they were.
    dropped_told: u64,
    /// The same for connections that were not admitted.
    refused_told: u64,
}

impl Shard {
    /// Stores everything, so that a reader at a moment of rest finds sums that balance.
    pub(super) fn report(&mut self, now: Time) {
        self.count_lines();
        self.tally.turns += 1;
        self.tell_dropped();
        let (metrics, counters) = (&self.metrics, self.manager.counters());
        metrics.control.set(counters.control_total());
        for (stored, count) in metrics.dropped.0.iter().zip(counters.dropped) {
            stored.set(count);
        }
        for (stored, count) in metrics.closed.0.iter().zip(counters.closed) {
            stored.set(count);
        }
        metrics.received_bytes.set(self.tally.received_bytes);
        for (stored, count) in metrics.refused.0.iter().zip(counters.refused) {
            stored.set(count);
        }
        metrics.accepted.set(self.connections.accepted());
        metrics.slow_readers.set(self.outgoing.slow_readers);
        metrics.replies_dropped.set(self.outgoing.replies_dropped);
        metrics.connections.set(counters.connections);
        metrics.connections_authenticated.set(counters.authenticated);
        metrics.connections_paused.set(self.pressure.paused_now);
        metrics.pauses.set(self.pressure.pauses);
        metrics.raised.set(counters.raised);
        metrics.raised_dropped.set(counters.raised_dropped);
        metrics.rate_holds.set(self.holds.count);
        metrics.connections_held.set(self.holds.held());
        metrics.delivery_connections.set(counters.delivering);
        metrics.delivery_taken.set(counters.delivery_taken);
        metrics.delivery_full.set(counters.delivery_full);
        metrics.syslog_lines.set(self.lines.taken);
        metrics.syslog_lines_cut.set(self.lines.cut);
        metrics.syslog_connections.set(self.devices.open());
        metrics.syslog_idle.set(self.devices.idle());
        metrics.sent.set(self.outgoing.sent);
        metrics.sent_bytes.set(self.outgoing.sent_bytes);
        metrics.acknowledged.set(counters.acknowledged);
        for (stored, count) in metrics.control_kinds.0.iter().zip(counters.control) {
            stored.set(count);
        }
        metrics.enters.set(self.rings.iter().map(|ring| ring.ring.enters()).sum());
        let starved = |ring: &super::ShardRing| {
            let datagrams = ring.datagrams.map_or(0, |group| ring.ring.starvations(group));
            ring.ring.starvations(ring.streams) + datagrams
        };
        metrics.buffers_exhausted.set(self.rings.iter().map(starved).sum());
        for report in self.sinks.reports() {
            let (stored, counters) = (metrics.sink(report.kind), report.counters);
            stored.taken.set(counters.taken);
            stored.delivered.set(counters.delivered);
            stored.calls.set(counters.calls);
            stored.held.set(report.held);
            stored.held_bytes.set(report.held_bytes as u64);
            stored.stalls.set(counters.stalls);
            stored.failed[SinkFailure::Refused as usize].set(counters.refused);
            stored.failed[SinkFailure::Stopped as usize].set(counters.stopped);
            stored.failed[SinkFailure::TooLong as usize].set(counters.too_long);
            stored.set_state(report.state);
            stored.note_progress(now.as_nanoseconds());
        }
        // Last, so that who waits for one of these finds what became of the messages.
        metrics.events.set(counters.events);
        metrics.received.set(counters.received);
        metrics.turns.set(self.tally.turns);
        metrics.heartbeat_nanoseconds.set(now.as_nanoseconds());
    }
    /// Tells whose messages were dropped, before their number: who sees the number then finds a name. If the reader is just
    /// looking, the next turn tells.
    fn tell_dropped(&mut self) {
        let dropped = self.manager.counters().dropped_total();
        if dropped != self.tally.dropped_told
            && let Ok(mut last) = self.metrics.dropped_last.try_lock()
        {
            *last = *self.manager.dropped_last();
            self.tally.dropped_told = dropped;
        }
        let refused = self.manager.counters().refused.iter().sum();
        if refused == self.tally.refused_told {
            return;
        }
        if let Ok(mut last) = self.metrics.refused_last.try_lock() {
            *last = *self.manager.refused_last();
            self.tally.refused_told = refused;
        }
    }
}
