//! The clock as the manager sees it: a number that it is told.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since an arbitrary start that all shards of one process share.
///
/// The manager never reads a clock: the caller reads its own once a turn and hands the reading in.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

impl Time {
    /// The arbitrary start.
    pub const ZERO: Time = Time(0);

    /// The time `nanoseconds` after the start.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Time {
        Time(nanoseconds)
    }

    /// The time `seconds` after the start.
    pub const fn from_seconds(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanoseconds(self) -> u64 {
        self.0
    }

    /// Whole seconds since the start.
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long before this `earlier` was; zero if it was not before.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates after 584 years, which is "never" for every deadline here.
    fn add(self, duration: Duration) -> Time {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_and_subtracts() {
        let time = Time::from_seconds(2) + Duration::from_millis(500);
        assert_eq!(time.as_nanoseconds(), 2_500_000_000);
        assert_eq!(time.as_seconds(), 2);
        assert_eq!(time.since(Time::from_seconds(1)), Duration::from_millis(1_500));
        assert_eq!(Time::ZERO.since(time), Duration::ZERO);
        assert_eq!(time + Duration::MAX, Time::from_nanoseconds(u64::MAX));
    }
}
