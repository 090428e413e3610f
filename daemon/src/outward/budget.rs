//! A budget of bytes a second. Pure.

use std::time::Duration;

use manager::Time;

/// What may be saved up: a tenth of a second's budget, so that a wait is not made up for by a burst.
const SAVED: Duration = Duration::from_millis(100);

/// Bytes a second, spent as they come in.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_per_second: u64,
    /// Spent beyond what has come in, in nanoseconds of the budget, as a time until which nothing is left.
    spent_until: Time,
}

impl Budget {
    /// So many bytes each second; at least one.
    pub(crate) fn new(bytes_per_second: u64) -> Budget {
        Budget { bytes_per_second: bytes_per_second.max(1), spent_until: Time::ZERO }
    }

    /// Takes so many bytes; says no if the budget is used up. It may be overdrawn by one taking, which then has to come in first.
    pub(crate) fn take(&mut self, now: Time, bytes: u64) -> bool {
        if self.spent_until > now {
            return false;
        }
        let saved_from = now.as_nanoseconds().saturating_sub(SAVED.as_nanos() as u64);
        let from = self.spent_until.as_nanoseconds().max(saved_from);
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.spent_until =
            Time::from_nanoseconds(from.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_budget_whenever_it_is_asked() {
        for every_milliseconds in [1u64, 7, 100, 900] {
            let mut budget = Budget::new(100_000);
            let mut taken = 0;
            for millisecond in (1_000..11_000).step_by(every_milliseconds as usize) {
                let now = Time::from_nanoseconds(millisecond * 1_000_000);
                while budget.take(now, 900) {
                    taken += 900;
                }
            }
            assert!(taken <= 1_000_000 + 10_000 + 900, "{taken} every {every_milliseconds} ms");
            if every_milliseconds <= 100 {
                assert!(taken >= 980_000, "{taken} every {every_milliseconds} ms");
            }
        }
    }

    #[test]
    fn one_taking_that_is_larger_than_the_budget_is_paid_off() {
        let mut budget = Budget::new(1_000);
        assert!(budget.take(Time::from_seconds(10), 5_000));
        assert!(!budget.take(Time::from_seconds(14), 1));
        assert!(budget.take(Time::from_seconds(15), 1));
    }
}
