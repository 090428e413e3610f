//! How many events a second an agent may send: a bucket in one number, as the generic cell rate algorithm keeps it.
//!
//! The number is the time at which the events that were taken would all have been due, had they come evenly. It may be up to
//! one second ahead of the clock: that is the burst.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Time;

/// How far ahead of its rate an agent may be.
const BURST: Duration = Duration::from_secs(1);

/// An agent that was held goes on when it is only so far ahead: not for one event at a time.
const BURST_AT_RELEASE: Duration = Duration::from_millis(500);

/// The rate of one agent's events. Any thread may ask at any time: each event counts once.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    due_nanoseconds: AtomicU64,
}

impl Rate {
    /// Counts an event, unless the agent is too far ahead of `a_second`; whether it was.
    pub(crate) fn admit(&self, now: Time, a_second: u32) -> bool {
        let (now, step) = (now.as_nanoseconds(), step(a_second));
        let latest = now + BURST.as_nanos() as u64;
        let admit = |due: u64| Some(due.max(now) + step).filter(|due| *due <= latest);
        self.due_nanoseconds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
    }

    /// Counts an event in any case. If the agent is then too far ahead of `a_second`: until when it should be held.
    pub(crate) fn charge(&self, now: Time, a_second: u32) -> Option<Time> {
        let (now, step) = (now.as_nanoseconds(), step(a_second));
        let charge = |due: u64| Some(due.max(now).saturating_add(step));
        let before = self.due_nanoseconds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge);
        let due = charge(before.expect("every event is charged")).expect("every event is charged");
        let is_over = due > now + BURST.as_nanos() as u64;
        is_over.then(|| Time::from_nanoseconds(due - BURST_AT_RELEASE.as_nanos() as u64))
    }
}

/// # Panics
/// If there is no limit.
fn step(a_second: u32) -> u64 {
    assert!(a_second > 0, "who has no limit is not asked");
    1_000_000_000 / u64::from(a_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_seconds(1_000);

    fn after(milliseconds: u64) -> Time {
        START + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let rate = Rate::default();
        let admitted = |now, tries| (0..tries).filter(|_| rate.admit(now, 100)).count();
        assert_eq!(admitted(START, 1_000), 100);
        assert_eq!(admitted(after(10), 1_000), 1);
        assert_eq!(admitted(after(500), 1_000), 49);
        assert_eq!(admitted(after(60_000), 1_000), 100, "an idle agent has one second, not a minute");
    }

    #[test]
    fn what_is_charged_is_held_until_half_of_the_burst_is_free() {
        let rate = Rate::default();
        let mut held = (0..100).filter_map(|_| rate.charge(START, 100));
        assert_eq!(held.next(), None, "a burst is free");
        assert_eq!(rate.charge(START, 100), Some(after(510)));
        assert_eq!(
            rate.charge(START, 100),
            Some(after(520)),
            "each one that comes all the same makes it later"
        );
        let free = (0..100).take_while(|_| rate.charge(after(520), 100).is_none()).count();
        assert_eq!(free, 50);
    }

    #[test]
    fn ten_seconds_of_holding_keep_the_rate() {
        let (rate, mut now, mut taken) = (Rate::default(), START, 0);
        while now < after(10_000) {
            // What a turn brings before its connection can be held.
            let held = (0..37).fold(None, |held, _| rate.charge(now, 1_000).or(held));
            taken += 37;
            now = held.unwrap_or(now + Duration::from_millis(1));
        }
        assert!((10_000..=11_100).contains(&taken), "{taken}");
    }

    #[test]
    fn threads_share_one_bucket() {
        let rate = Rate::default();
        let admitted: usize = std::thread::scope(|scope| {
            let count = || (0..5_000).filter(|_| rate.admit(START, 1_000)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1_000);
    }
}
