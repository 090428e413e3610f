//! How long a shard gathers messages before it turns: not at all when it is idle, up to `shards.gather_microseconds`
//! under load.
//!
//! A turn costs the same for one message as for many: a wake-up, an `io_uring_enter`, cold caches. Under load turns
//! are therefore spaced so that each has a batch; the time that the turn itself took counts, so a busy shard waits less,
//! and one that has no time left does not wait. The load is the rate of the last milliseconds.

use std::time::Duration;

use manager::Time;

/// From this rate on, gathering is worth it: 8,000 messages a second.
const GATHER_MESSAGES_MIN: u64 = 8_000 * MEMORY.as_millis() as u64 / 1_000;

/// A batch that is large enough: more would lengthen the way of its first and save nothing.
const BATCH_MESSAGES: u64 = 256;

/// Less than this is not worth a timer.
const GATHER_MIN: Duration = Duration::from_micros(20);

/// What came so long ago is forgotten.
const MEMORY: Duration = Duration::from_millis(8);

/// The recent rate, and what follows from it.
#[derive(Debug)]
pub(super) struct Patience {
    /// Turns under load begin this far apart at the most: what gathering adds to a message's way, an acknowledgement's too.
    gather_max: Duration,
    /// Messages of the last [`MEMORY`], older ones counted less.
    recent: u64,
    /// When the last turn began.
    begun: Time,
}

impl Patience {
    /// Of a shard that has not turned yet.
    ///
    /// # Panics
    /// If more is to be gathered than is remembered.
    pub(super) fn new(gather_max: Duration) -> Patience {
        assert!(gather_max <= MEMORY, "the settings' bound is below it");
        Patience { gather_max, recent: 0, begun: Time::default() }
    }

    /// A turn that began at `begun` had so many messages.
    pub(super) fn record(&mut self, begun: Time, messages: usize) {
        let memory = MEMORY.as_nanos() as u64;
        let elapsed = (begun.since(self.begun).as_nanos() as u64).min(memory);
        // Rounded down, so that an idle shard comes to zero.
        self.recent = self.recent * (memory - elapsed) / memory + (messages as u64) * SCALE;
        self.begun = begun;
    }

    /// How long to gather, from `now` on, before the next turn; `None`: the first message begins it.
    pub(super) fn gather(&self, now: Time) -> Option<Duration> {
        let spacing = spacing(self.recent)?.min(self.gather_max);
        let left = spacing.saturating_sub(now.since(self.begun));
        (left >= GATHER_MIN).then_some(left)
    }
}

/// Fractions of a message are kept, or rounding would eat a low rate.
const SCALE: u64 = 1_024;

/// How far apart turns should begin, with so many messages (times [`SCALE`]) in the last [`MEMORY`].
fn spacing(recent: u64) -> Option<Duration> {
    if recent < GATHER_MESSAGES_MIN * SCALE {
        return None;
    }
    let batch = MEMORY.as_nanos() as u64 * BATCH_MESSAGES / (recent / SCALE);
    Some(Duration::from_nanos(batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATHER_MAX: Duration = micros(1_000);

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// Turns every `apart` with `messages` each, for a tenth of a second; the time and the state at the end.
    fn steady(apart: Duration, messages: usize) -> (Time, Patience) {
        let (mut now, mut patience) = (Time::from_seconds(1), Patience::new(GATHER_MAX));
        for _ in 0..100_000_000 / apart.as_nanos() as u64 {
            now = now + apart;
            patience.record(now, messages);
        }
        (now, patience)
    }

    #[test]
    fn the_rate_says_how_long_to_gather() {
        let check = |a_second: u64, expected: Option<Duration>| {
            let apart = Duration::from_nanos(1_000_000_000 / a_second);
            let (now, patience) = steady(apart, 1);
            let got = patience.gather(now);
            let near = |wanted: Duration| got.is_some_and(|got| got.abs_diff(wanted) <= wanted / 20);
            assert!(expected.map_or(got.is_none(), near), "{a_second}/s: {got:?} in place of {expected:?}");
        };
        check(1, None);
        check(100, None);
        check(7_000, None);
        check(10_000, Some(micros(1_000)));
        check(60_000, Some(micros(1_000)));
        check(250_000, Some(micros(1_000)));
        check(512_000, Some(micros(500)));
        check(1_000_000, Some(micros(256)));
    }

    #[test]
    fn the_size_of_turns_makes_no_difference_to_the_rate() {
        for (apart, messages) in [(micros(100), 6), (micros(500), 30), (micros(1_000), 60)] {
            let (now, patience) = steady(apart, messages);
            assert_eq!(patience.gather(now), Some(GATHER_MAX), "{messages} every {apart:?}");
        }
    }

    #[test]
    fn what_the_turn_took_is_not_waited_again() {
        let (now, patience) = steady(micros(1_000), 60);
        let check = |took: u64, expected: Option<Duration>| {
            assert_eq!(patience.gather(now + micros(took)), expected, "after {took} us");
        };
        check(0, Some(micros(1_000)));
        check(400, Some(micros(600)));
        check(979, Some(micros(21)));
        check(990, None);
        check(5_000, None);
    }

    #[test]
    fn a_pause_is_as_good_as_idleness() {
        let (now, mut patience) = steady(micros(1_000), 300);
        assert!(patience.gather(now).is_some());
        patience.record(now + MEMORY, 1);
        assert_eq!(patience.gather(now + MEMORY), None, "the first after a pause is not held up");
    }

    #[test]
    fn the_operator_chooses_the_most() {
        for gather_max in [micros(0), micros(500), micros(4_000)] {
            let (now, mut patience) = steady(micros(1_000), 20);
            patience.gather_max = gather_max;
            assert_eq!(patience.gather(now), Some(gather_max).filter(|max| !max.is_zero()));
        }
    }

    #[test]
    fn a_lone_burst_is_soon_forgotten() {
        let mut patience = Patience::new(GATHER_MAX);
        let mut now = Time::from_seconds(1);
        patience.record(now, 100);
        assert!(patience.gather(now).is_some());
        now = now + micros(3_000);
        patience.record(now, 0);
        assert_eq!(patience.gather(now), None);
    }
}
