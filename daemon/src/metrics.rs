//! What a shard tells the outside: numbers that only the shard writes and that the control plane reads.
//!
//! A shard owns its [`ShardMetrics`] as far as writing goes, so a store is a plain move: no locked instruction, and
//! no line that two shards write. Readers see each number whole; sums are exact at every moment of rest.

use std::sync::{
    Mutex,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use manager::{DroppedLast, RefusedLast};

/// A number with one writer and any readers.
#[derive(Debug, Default)]
pub struct Stored(AtomicU64);

impl Stored {
    /// Overwrites it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it. Only its one writer may: two would lose counts.
    pub fn add(&self, more: u64) {
        self.set(self.read() + more);
    }

    /// What it is now.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The numbers of one shard.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// [`crate::clock::Clock::nanoseconds`] at the shard's last turn; 0 before its first. A shard turns at least
    /// once a second.
    pub heartbeat_nanoseconds: Stored,
    /// Turns of the loop.
    pub turns: Stored,
    /// Calls of `io_uring_enter`.
    pub enters: Stored,
    /// Messages received, kernel drops included: `received = events + control + the sum of dropped`.
    pub received: Stored,
    /// Messages that became an event and were taken over by the sinks.
    pub events: Stored,
    /// Control messages.
    pub control: Stored,
    /// Messages dropped, by the index of `manager::Reason`.
    pub dropped: ByReason,
    /// Bytes of all messages received.
    pub received_bytes: Stored,
    /// Connections closed, by the index of `manager::CloseReason`.
    pub closed: ByReason,
    /// Connections accepted.
    pub accepted: Stored,
    /// Of these: closed at once for a limit, by the index of `manager::Refusal`.
    pub refused: ByReason,
    /// Connections closed because their agent did not read what was sent to it (in `closed` as the peer's doing).
    pub slow_readers: Stored,
    /// Datagrams to agents that were not sent: too many at once, or refused by the kernel.
    pub replies_dropped: Stored,
    /// Connections open now.
    pub connections: Stored,
    /// Connections open now that have authenticated.
    pub connections_authenticated: Stored,
    /// Connections that are not read now because a sink is over its bound.
    pub connections_paused: Stored,
    /// Times a connection was paused.
    pub pauses: Stored,
    /// Events of the manager's own (an agent stopped) that the sinks took over; not in `received` nor `events`.
    pub raised: Stored,
    /// The same, if a sink was over its soft bound.
    pub raised_dropped: Stored,
    /// Times a connection was not read because its agent sent more events than `agents.events_per_second_max`.
    pub rate_holds: Stored,
    /// Connections that are not read now for that.
    pub connections_held: Stored,
    /// Connections open now whose agent gets its events confirmed.
    pub delivery_connections: Stored,
    /// Messages that told an agent what every sink has.
    pub delivery_taken: Stored,
    /// Offers of acknowledged delivery for which the ledger had no room.
    pub delivery_full: Stored,
    /// Lines of syslog listeners that were taken over by the sinks (in `events` too).
    pub syslog_lines: Stored,
    /// Of these: only the first part, since the line was longer than analysisd takes.
    pub syslog_lines_cut: Stored,
    /// Connections of syslog listeners open now.
    pub syslog_connections: Stored,
    /// Connections of syslog listeners that were closed because they said nothing.
    pub syslog_idle: Stored,
    /// Listeners from which nothing is received, or no connection accepted, now.
    pub listeners_deaf: Stored,
    /// Messages sent to agents.
    pub sent: Stored,
    /// Their bytes, with the lengths in front of frames.
    pub sent_bytes: Stored,
    /// Start-ups and keep-alives acknowledged.
    pub acknowledged: Stored,
    /// Control messages, by the index of `manager::ControlKind`.
    pub control_kinds: ByReason,
    /// Times the kernel found no receive buffer free (ENOBUFS).
    pub buffers_exhausted: Stored,
    /// Each sink's numbers, by [`SinkKind`].
    pub sinks: [SinkMetrics; SinkKind::ALL.len()],
    /// From where a connection came last that was not admitted, for each refusal. The shard tries this lock too.
    pub refused_last: Mutex<RefusedLast>,
    /// Whose message was dropped last, for each reason. The shard tries this lock and never waits for it.
    pub dropped_last: Mutex<DroppedLast>,
}

/// One number for each reason.
#[derive(Debug)]
pub struct ByReason(pub [Stored; REASONS_MAX]);

impl Default for ByReason {
    fn default() -> ByReason {
        ByReason(std::array::from_fn(|_| Stored::default()))
    }
}

impl ByReason {
    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(Stored::read).sum()
    }
}

/// Upper bound of the reasons that `manager` can give; checked where its counters are copied.
pub const REASONS_MAX: usize = 48;

/// The sinks that a shard may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum SinkKind {
    /// analysisd's socket.
    Queue = 0,
    /// `archives.log`.
    ArchiveText = 1,
    /// `archives.json`.
    ArchiveJson = 2,
}

impl SinkKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [SinkKind; 3] = [SinkKind::Queue, SinkKind::ArchiveText, SinkKind::ArchiveJson];

    /// The value of the `sink` label.
    pub fn name(self) -> &'static str {
        match self {
            SinkKind::Queue => "queue",
            SinkKind::ArchiveText => "archive_text",
            SinkKind::ArchiveJson => "archive_json",
        }
    }
}

/// The numbers of one sink of one shard: `taken = delivered + held + the sum of failed`.
#[derive(Debug, Default)]
pub struct SinkMetrics {
    /// Events taken over.
    pub taken: Stored,
    /// Events sent or written.
    pub delivered: Stored,
    /// Times something was given to the kernel: system calls of the sink's own, or writes that went with the ring's.
    pub calls: Stored,
    /// Events that wait now.
    pub held: Stored,
    /// Bytes that wait now.
    pub held_bytes: Stored,
    /// Events given up, by [`SinkFailure`].
    pub failed: [Stored; SinkFailure::ALL.len()],
    /// Times a send or write had to wait for the reader or failed and will be tried again.
    pub stalls: Stored,
    /// Since when something waits and nothing of it moves, by the clock of the process; 0: it moves.
    pub stalled_since_nanoseconds: Stored,
    /// How many events had their end when that was looked at last.
    ended_seen: Stored,
    state: AtomicU8,
}

/// Why an event that a sink had taken was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum SinkFailure {
    /// The kernel takes no datagram of this length (EMSGSIZE).
    TooLong = 0,
    /// It was still held when the grace period of the stop ended.
    Stopped = 1,
    /// Any other error that will not go away by itself.
    Refused = 2,
}

impl SinkFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [SinkFailure; 3] = [SinkFailure::TooLong, SinkFailure::Stopped, SinkFailure::Refused];

    /// The value of the `reason` label.
    pub fn name(self) -> &'static str {
        match self {
            SinkFailure::TooLong => "too_long",
            SinkFailure::Stopped => "stopped",
            SinkFailure::Refused => "refused",
        }
    }
}

/// How a sink does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum SinkState {
    /// Not in use.
    #[default]
    Off = 0,
    /// Takes events.
    Taking = 1,
    /// Over its soft bound: the reader is there, but slow.
    Full = 2,
    /// The socket's reader is away.
    Away = 3,
    /// Writing failed, and is tried again.
    Failing = 4,
}

impl SinkMetrics {
    /// Says how the sink does.
    pub fn set_state(&self, state: SinkState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Notes whether what waits moves. To be called by the shard once its numbers are stored.
    pub(crate) fn note_progress(&self, now_nanoseconds: u64) {
        let ended = self.delivered.read() + self.failed.iter().map(Stored::read).sum::<u64>();
        if self.held.read() == 0 || ended != self.ended_seen.read() {
            self.ended_seen.set(ended);
            self.stalled_since_nanoseconds.set(0);
        } else if self.stalled_since_nanoseconds.read() == 0 {
            self.stalled_since_nanoseconds.set(now_nanoseconds);
        }
    }

    /// How the sink does.
    pub fn state(&self) -> SinkState {
        match self.state.load(Ordering::Relaxed) {
            0 => SinkState::Off,
            1 => SinkState::Taking,
            2 => SinkState::Full,
            3 => SinkState::Away,
            4 => SinkState::Failing,
            other => unreachable!("set_state stores no {other}"),
        }
    }
}

impl ShardMetrics {
    /// The numbers of one sink.
    pub fn sink(&self, kind: SinkKind) -> &SinkMetrics {
        &self.sinks[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back() {
        let sink = SinkMetrics::default();
        assert_eq!(sink.state(), SinkState::Off);
        for state in [SinkState::Taking, SinkState::Full, SinkState::Away, SinkState::Failing, SinkState::Off]
        {
            sink.set_state(state);
            assert_eq!(sink.state(), state);
        }
    }

    #[test]
    fn a_stall_begins_when_what_waits_stands_still() {
        let sink = SinkMetrics::default();
        let check = |delivered: u64, held: u64, now: u64, expected: u64| {
            sink.delivered.set(delivered);
            sink.held.set(held);
            sink.note_progress(now);
            assert_eq!(sink.stalled_since_nanoseconds.read(), expected, "at {now}");
        };
        check(0, 0, 1, 0);
        check(0, 5, 2, 2);
        check(0, 9, 3, 2);
        check(1, 8, 4, 0);
        check(1, 8, 5, 5);
        check(1, 0, 6, 0);
    }

    #[test]
    fn the_lists_are_in_the_order_of_their_numbers() {
        for (index, kind) in SinkKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
        for (index, failure) in SinkFailure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, index);
        }
    }
}
