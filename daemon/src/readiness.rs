//! `/readyz`: whether agents should be sent here: the shards turn, the listeners listen, and what is taken reaches its sinks.

use std::{fmt, sync::Arc, time::Duration};

use crate::metrics::{ShardMetrics, SinkKind, SinkState};

/// A shard turns at least once a second; one that did not for this long is stuck.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(5);

/// What waits in a sink moves within this time, or its reader stands still.
pub const STALL_MAX: Duration = Duration::from_secs(10);

/// Why agents should go elsewhere. Displays as one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotReady {
    /// Nothing is received or accepted at a listener.
    Deaf {
        /// Of which shard.
        shard: usize,
    },
    /// A sink does not take events.
    Sink {
        /// Of which shard.
        shard: usize,
        /// Which.
        kind: SinkKind,
        /// How it does.
        state: SinkState,
    },
    /// What a sink took waits, and nothing of it moves.
    Stalled {
        /// Of which shard.
        shard: usize,
        /// Which.
        kind: SinkKind,
        /// For how long.
        since: Duration,
    },
    /// A shard has not begun yet.
    Starting {
        /// Which.
        shard: usize,
    },
    /// The program ends.
    Stopping,
    /// A shard does not turn.
    Stuck {
        /// Which.
        shard: usize,
        /// How long ago its last turn was.
        since: Duration,
    },
}

/// Whether all shards turn, all listeners hear, and all sinks take and hand over.
///
/// # Errors
/// The first reason why not.
pub fn readiness(now_nanoseconds: u64, shards: &[Arc<ShardMetrics>]) -> Result<(), NotReady> {
    alive(now_nanoseconds, shards)?;
    for (shard, metrics) in shards.iter().enumerate() {
        if metrics.listeners_deaf.read() > 0 {
            return Err(NotReady::Deaf { shard });
        }
        for kind in SinkKind::ALL {
            match metrics.sink(kind).state() {
                SinkState::Off | SinkState::Taking => {}
                state @ (SinkState::Away | SinkState::Failing | SinkState::Full) => {
                    return Err(NotReady::Sink { shard, kind, state });
                }
            }
            let stalled = metrics.sink(kind).stalled_since_nanoseconds.read();
            let since = Duration::from_nanos(now_nanoseconds.saturating_sub(stalled));
            if stalled > 0 && since > STALL_MAX {
                return Err(NotReady::Stalled { shard, kind, since });
            }
        }
    }
    Ok(())
}

/// Whether all shards turn.
///
/// # Errors
/// The first that does not.
pub fn alive(now_nanoseconds: u64, shards: &[Arc<ShardMetrics>]) -> Result<(), NotReady> {
    for (shard, metrics) in shards.iter().enumerate() {
        let turned = metrics.heartbeat_nanoseconds.read();
        if turned == 0 {
            return Err(NotReady::Starting { shard });
        }
        let since = Duration::from_nanos(now_nanoseconds.saturating_sub(turned));
        if since > HEARTBEAT_MAX {
            return Err(NotReady::Stuck { shard, since });
        }
    }
    Ok(())
}

impl fmt::Display for NotReady {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::Deaf { shard } => {
                write!(formatter, "shard {shard} does not receive or accept at one of its listeners")
            }
            NotReady::Stalled { shard, kind, since } => write!(
                formatter,
                "the {} sink of shard {shard}: its reader has taken nothing for {} s",
                kind.name(),
                since.as_secs()
            ),
            NotReady::Sink { shard, kind, state } => {
                write!(formatter, "the {} sink of shard {shard}: {}", kind.name(), state_text(*state))
            }
            NotReady::Starting { shard } => write!(formatter, "shard {shard} has not begun"),
            NotReady::Stopping => write!(formatter, "stopping"),
            NotReady::Stuck { shard, since } => {
                write!(formatter, "shard {shard} has not turned for {} s", since.as_secs())
            }
        }
    }
}

/// How a sink does, in words.
pub fn state_text(state: SinkState) -> &'static str {
    match state {
        SinkState::Away => "its reader is away; what was taken waits",
        SinkState::Failing => "writing fails and is tried again; what was taken waits",
        SinkState::Full => "over its soft bound; TCP agents wait and datagrams are dropped",
        SinkState::Off => "off",
        SinkState::Taking => "takes events",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_turning_and_taking() {
        const SECOND: u64 = 1_000_000_000;
        let check = |turned_seconds: [u64; 2], sink: SinkState, expected: &str| {
            let shards = turned_seconds.map(|second| {
                let metrics = ShardMetrics::default();
                metrics.heartbeat_nanoseconds.set(second * SECOND);
                metrics.sink(SinkKind::ArchiveText).set_state(SinkState::Taking);
                Arc::new(metrics)
            });
            shards[1].sink(SinkKind::Queue).set_state(sink);
            let said = readiness(100 * SECOND, &shards)
                .map_or_else(|error| error.to_string(), |()| "ready".to_owned());
            assert_eq!(said, expected, "{turned_seconds:?} {sink:?}");
        };
        check([100, 95], SinkState::Off, "ready");
        check([100, 101], SinkState::Taking, "ready");
        check([100, 0], SinkState::Taking, "shard 1 has not begun");
        check([94, 100], SinkState::Taking, "shard 0 has not turned for 6 s");
        check([94, 100], SinkState::Away, "shard 0 has not turned for 6 s");
        check(
            [99, 99],
            SinkState::Away,
            "the queue sink of shard 1: its reader is away; what was taken waits",
        );
        check(
            [99, 99],
            SinkState::Failing,
            "the queue sink of shard 1: writing fails and is tried again; what was taken waits",
        );
        check(
            [99, 99],
            SinkState::Full,
            "the queue sink of shard 1: over its soft bound; TCP agents wait and datagrams are dropped",
        );
    }

    #[test]
    fn a_reader_that_stands_still_and_a_deaf_listener_are_not_ready() {
        const SECOND: u64 = 1_000_000_000;
        let metrics = Arc::new(ShardMetrics::default());
        metrics.heartbeat_nanoseconds.set(100 * SECOND);
        let check = |expected: &str| {
            let said = readiness(100 * SECOND, std::slice::from_ref(&metrics));
            assert_eq!(said.map_or_else(|error| error.to_string(), |()| "ready".to_owned()), expected);
        };
        let sink = metrics.sink(SinkKind::Queue);
        sink.set_state(SinkState::Taking);
        sink.stalled_since_nanoseconds.set(90 * SECOND);
        check("ready");
        sink.stalled_since_nanoseconds.set(89 * SECOND);
        check("the queue sink of shard 0: its reader has taken nothing for 11 s");
        metrics.listeners_deaf.set(1);
        check("shard 0 does not receive or accept at one of its listeners");
    }
}
