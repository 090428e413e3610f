//! Conditions that repeat, said once an interval.

use std::{collections::BTreeMap, time::Duration};

/// Conditions that peers cause: each says at most one line an interval, with the count since its last line.
///
/// The first occurrence speaks at once; what follows is summed up. It is told the time.
#[derive(Debug)]
pub struct Limiter<C> {
    interval: Duration,
    conditions: BTreeMap<C, Silence>,
}

/// What a condition has not said yet.
#[derive(Debug)]
struct Silence {
    /// When the last line was, in nanoseconds of [`crate::clock::Clock`].
    spoke_at_nanoseconds: u64,
    unsaid: u64,
}

/// A line that is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Due {
    /// How often the condition came up since its last line.
    pub count: u64,
    /// How long ago that line was; `None` if this is the first.
    pub since: Option<Duration>,
}

impl<C: Ord> Limiter<C> {
    /// One line for each condition in each `interval`.
    pub fn new(interval: Duration) -> Limiter<C> {
        Limiter { interval, conditions: BTreeMap::new() }
    }

    /// Counts `more` occurrences of a condition. Returns the line that is due, if one is.
    ///
    /// Call it with 0 from time to time, so that what was summed up is said when its interval is over.
    pub fn observe(&mut self, now_nanoseconds: u64, condition: C, more: u64) -> Option<Due> {
        match self.conditions.get_mut(&condition) {
            None if more == 0 => None,
            None => {
                self.conditions
                    .insert(condition, Silence { spoke_at_nanoseconds: now_nanoseconds, unsaid: 0 });
                Some(Due { count: more, since: None })
            }
            Some(silence) => {
                silence.unsaid += more;
                let since =
                    Duration::from_nanos(now_nanoseconds.saturating_sub(silence.spoke_at_nanoseconds));
                if silence.unsaid == 0 || since < self.interval {
                    return None;
                }
                let due = Due { count: silence.unsaid, since: Some(since) };
                *silence = Silence { spoke_at_nanoseconds: now_nanoseconds, unsaid: 0 };
                Some(due)
            }
        }
    }
}

impl Due {
    /// ` in the last 60 s`, or nothing for a first line.
    pub fn period(&self) -> String {
        self.since.map_or_else(String::new, |since| format!(" in the last {} s", since.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_with_the_count_since() {
        let mut limiter = Limiter::new(Duration::from_secs(60));
        let mut check = |second: u64, more: u64, expected: Option<(u64, &str)>| {
            let due = limiter.observe(second * 1_000_000_000, "bad", more);
            let said = due.map(|due| (due.count, due.period()));
            assert_eq!(said, expected.map(|(count, period)| (count, period.to_owned())), "second {second}");
        };
        check(1, 0, None);
        check(2, 3, Some((3, "")));
        check(3, 5, None);
        check(61, 7, None);
        check(62, 0, Some((12, " in the last 60 s")));
        check(63, 0, None);
        check(300, 0, None);
        check(301, 1, Some((1, " in the last 239 s")));
    }

    #[test]
    fn conditions_do_not_silence_each_other() {
        let mut limiter = Limiter::new(Duration::from_secs(60));
        assert!(limiter.observe(1, "one", 1).is_some());
        assert!(limiter.observe(2, "two", 1).is_some());
        assert!(limiter.observe(3, "one", 1).is_none());
    }
}
