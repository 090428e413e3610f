//! How old the oldest event of the spool is, without a time in each record: marks of when which number was reached.

use std::collections::VecDeque;
use std::time::Duration;

use spool::Sequence;

/// Marks that are kept; beyond, every second one goes and the next ones are twice as far apart, so that an age is right to a
/// 32nd of the time they span.
const MARKS_MAX: usize = 64;
/// How far apart the first ones are, so that an age may be that much too great.
const APART_MIN: Duration = Duration::from_secs(1);

/// In order: events from this number on were taken then or later.
#[derive(Debug)]
pub(crate) struct Ages {
    marks: VecDeque<(Sequence, Duration)>,
    apart: Duration,
}

impl Ages {
    /// At the start; what an earlier run left counts as taken now.
    pub(crate) fn new(first: Sequence) -> Ages {
        Ages { marks: VecDeque::from([(first, Duration::ZERO)]), apart: APART_MIN }
    }

    /// Events from `taken` on were taken at `now`, and the oldest in the spool is `first`.
    pub(crate) fn note(&mut self, now: Duration, taken: Sequence, first: Sequence) {
        self.forget(first);
        let is_apart = self.marks.back().is_none_or(|(_, at)| now >= *at + self.apart);
        // An empty spool's last mark is of events that are gone.
        if first >= taken {
            self.marks.clear();
            self.apart = APART_MIN;
        } else if !is_apart {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.apart *= 2;
        }
        self.marks.push_back((taken, now));
    }

    /// How long ago `first`, the oldest in the spool, was taken.
    pub(crate) fn of(&mut self, now: Duration, first: Sequence) -> Option<Duration> {
        self.forget(first);
        self.marks.front().map(|(_, at)| now.saturating_sub(*at))
    }

    /// The mark before `first` still tells of it.
    fn forget(&mut self, first: Sequence) {
        while self.marks.get(1).is_some_and(|(sequence, _)| *sequence <= first) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_oldest_is_as_old_as_its_batch() {
        let mut ages = Ages::new(Sequence(10));
        assert_eq!(ages.of(at(5), Sequence(10)), Some(at(5)), "an earlier run's: at least");
        ages.note(at(6), Sequence(20), Sequence(10));
        ages.note(at(9), Sequence(30), Sequence(10));
        assert_eq!(ages.of(at(10), Sequence(19)), Some(at(10)));
        assert_eq!(ages.of(at(10), Sequence(20)), Some(at(4)));
        assert_eq!(ages.of(at(10), Sequence(35)), Some(at(1)));
        // All are forgotten before the next is taken.
        ages.note(at(60), Sequence(40), Sequence(40));
        assert_eq!(ages.of(at(61), Sequence(40)), Some(at(1)));
    }

    #[test]
    fn a_day_away_needs_few_marks_and_is_known_to_a_32nd() {
        let mut ages = Ages::new(Sequence(0));
        ages.note(at(1), Sequence(0), Sequence(0));
        let day = 86_400;
        for second in 2..=day {
            ages.note(at(second), Sequence(second), Sequence(0));
            assert!(ages.marks.len() <= MARKS_MAX);
        }
        assert_eq!(ages.of(at(day), Sequence(1)), Some(at(day - 1)));
        for second in (1_000..day).step_by(1_000) {
            let age = ages.of(at(day), Sequence(second)).unwrap().as_secs();
            assert!((day - second..=day - second + day / 32 + 1).contains(&age), "{second}: {age}");
        }
    }
}
