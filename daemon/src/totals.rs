//! What all shards counted together, and the one line that says it at the end.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use manager::{CloseReason, DroppedLast, Reason, Refusal, RefusedLast};

use crate::metrics::{ByReason, REASONS_MAX, ShardMetrics, SinkFailure, SinkKind, SinkState};

const _: () = assert!(
    Reason::COUNT <= REASONS_MAX && CloseReason::COUNT <= REASONS_MAX && Refusal::COUNT <= REASONS_MAX
);

/// Sums over all shards. Displays as one line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Messages received, kernel drops included.
    pub received: u64,
    /// Of these: events that the sinks took over.
    pub events: u64,
    /// Of these: control messages.
    pub control: u64,
    /// Events of the manager's own that sinks took over; not received.
    pub raised: u64,
    /// Of these: dropped, by [`Reason::index`].
    pub dropped: [u64; Reason::COUNT],
    /// Whose message was dropped last, by [`Reason::index`]; of one shard, if several dropped some.
    pub dropped_last: DroppedLast,
    /// Connections that ended, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::COUNT],
    /// Connections that were not admitted, by [`Refusal::index`].
    pub refused: [u64; Refusal::COUNT],
    /// From where the last one came, by [`Refusal::index`]; of one shard, if several refused some.
    pub refused_last: RefusedLast,
    /// Each sink, by [`SinkKind`].
    pub sinks: [SinkTotals; SinkKind::ALL.len()],
}

/// One sink, summed over all shards.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SinkTotals {
    /// Events taken over.
    pub taken: u64,
    /// Events sent or written.
    pub delivered: u64,
    /// Events that wait now.
    pub held: u64,
    /// Events given up, by [`SinkFailure`].
    pub failed: [u64; SinkFailure::ALL.len()],
    /// The state of the shard that does worst.
    pub state: SinkState,
}

impl Totals {
    /// Adds up what the shards say now.
    pub fn of(shards: &[Arc<ShardMetrics>]) -> Totals {
        let mut totals = Totals::default();
        for shard in shards {
            totals.received += shard.received.read();
            totals.events += shard.events.read();
            totals.control += shard.control.read();
            totals.raised += shard.raised.read();
            add_reasons(&mut totals.dropped, &shard.dropped);
            add_reasons(&mut totals.closed, &shard.closed);
            let last = shard.dropped_last.lock().unwrap_or_else(PoisonError::into_inner);
            for (total, last) in totals.dropped_last.iter_mut().zip(*last) {
                *total = last.or(*total);
            }
            add_reasons(&mut totals.refused, &shard.refused);
            let last = shard.refused_last.lock().unwrap_or_else(PoisonError::into_inner);
            for (total, last) in totals.refused_last.iter_mut().zip(*last) {
                *total = last.or(*total);
            }
            for (total, sink) in totals.sinks.iter_mut().zip(&shard.sinks) {
                total.taken += sink.taken.read();
                total.delivered += sink.delivered.read();
                total.held += sink.held.read();
                total.state = worse(total.state, sink.state());
                for (total, failed) in total.failed.iter_mut().zip(&sink.failed) {
                    *total += failed.read();
                }
            }
        }
        totals
    }

    /// All dropped messages.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether every message has its verdict and every event that a sink took its end or its place.
    /// True at every moment of rest; a shard at work may be read between two stores.
    pub fn balanced(&self) -> bool {
        self.received == self.events + self.control + self.dropped_total()
            && self
                .sinks
                .iter()
                .all(|sink| sink.taken == sink.delivered + sink.held + sink.failed.iter().sum::<u64>())
    }
}

fn add_reasons(totals: &mut [u64], stored: &ByReason) {
    for (total, stored) in totals.iter_mut().zip(&stored.0) {
        *total += stored.read();
    }
}

/// The state that an operator has to hear of first.
fn worse(one: SinkState, other: SinkState) -> SinkState {
    if one as u8 > other as u8 { one } else { other }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "received {} = events {} + control {} + dropped {}",
            self.received,
            self.events,
            self.control,
            self.dropped_total()
        )?;
        let dropped = Reason::ALL.iter().map(|reason| (reason.name(), self.dropped[reason.index()]));
        write_named(formatter, dropped)?;
        if self.raised > 0 {
            write!(formatter, "; raised {}", self.raised)?;
        }
        for (kind, sink) in
            SinkKind::ALL.iter().zip(&self.sinks).filter(|(_, sink)| sink.state != SinkState::Off)
        {
            write!(formatter, "; {}: delivered {} of {}", kind.name(), sink.delivered, sink.taken)?;
            let held = std::iter::once(("held", sink.held));
            let failed =
                SinkFailure::ALL.iter().map(|failure| (failure.name(), sink.failed[*failure as usize]));
            write_named(formatter, held.chain(failed))?;
        }
        Ok(())
    }
}

/// ` (name 3, other 1)` for those that are not zero, or nothing.
fn write_named<'a>(
    formatter: &mut fmt::Formatter<'_>,
    named: impl Iterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut before = " (";
    for (name, count) in named.filter(|(_, count)| *count > 0) {
        write!(formatter, "{before}{name} {count}")?;
        before = ", ";
    }
    if before == ", " { formatter.write_str(")") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(events: u64, unknown: u64) -> Arc<ShardMetrics> {
        let metrics = ShardMetrics::default();
        metrics.events.set(events);
        metrics.control.set(1);
        metrics.received.set(events + unknown + 1);
        metrics.dropped.0[Reason::IdUnknown.index()].set(unknown);
        let sink = metrics.sink(SinkKind::Queue);
        sink.set_state(SinkState::Taking);
        sink.taken.set(events);
        sink.delivered.set(events);
        Arc::new(metrics)
    }

    #[test]
    fn the_last_line() {
        let shards = [shard(4, 0), shard(10, 3)];
        let totals = Totals::of(&shards);
        assert!(totals.balanced());
        assert_eq!(
            totals.to_string(),
            "received 19 = events 14 + control 2 + dropped 3 (id_unknown 3); queue: delivered 14 of 14"
        );
        let sink = shards[1].sink(SinkKind::Queue);
        sink.delivered.set(7);
        sink.held.set(1);
        assert!(!Totals::of(&shards).balanced(), "two events are nowhere");
        sink.failed[SinkFailure::Stopped as usize].set(2);
        sink.set_state(SinkState::Away);
        let totals = Totals::of(&shards);
        assert!(totals.balanced());
        assert_eq!(totals.sinks[SinkKind::Queue as usize].state, SinkState::Away);
        assert!(totals.to_string().ends_with("; queue: delivered 11 of 14 (held 1, stopped 2)"), "{totals}");
    }

    #[test]
    fn an_idle_program_has_a_line_too() {
        let totals = Totals::of(&[Arc::new(ShardMetrics::default())]);
        assert_eq!(totals.to_string(), "received 0 = events 0 + control 0 + dropped 0");
    }
}
