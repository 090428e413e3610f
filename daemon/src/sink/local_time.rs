//! The wall clock of the archives: broken down once a second, not once an event.

use codec::LocalTime;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The local time as of its last reading.
#[derive(Debug)]
pub(crate) struct LocalClock {
    zone: TimeZone,
    /// The second that `now` is broken down from.
    second: i64,
    now: LocalTime,
}

impl LocalClock {
    /// A clock of the host's time zone.
    pub(crate) fn new() -> LocalClock {
        LocalClock::of(TimeZone::system(), Timestamp::now())
    }

    fn of(zone: TimeZone, timestamp: Timestamp) -> LocalClock {
        let now = broken_down(&zone, timestamp);
        LocalClock { zone, second: timestamp.as_second(), now }
    }

    /// Reads the host's clock.
    pub(crate) fn read(&mut self) {
        self.set(Timestamp::now());
    }

    /// The time that was read last.
    pub(crate) fn now(&self) -> &LocalTime {
        &self.now
    }

    fn set(&mut self, timestamp: Timestamp) {
        if timestamp.as_second() == self.second {
            self.now.millisecond = millisecond(timestamp);
        } else {
            self.second = timestamp.as_second();
            self.now = broken_down(&self.zone, timestamp);
        }
    }
}

fn broken_down(zone: &TimeZone, timestamp: Timestamp) -> LocalTime {
    let zoned = timestamp.to_zoned(zone.clone());
    // The calendar's fields are non-negative and small, an offset is less than 26 hours.
    LocalTime {
        year: i32::from(zoned.year()),
        month: zoned.month().unsigned_abs(),
        day: zoned.day().unsigned_abs(),
        hour: zoned.hour().unsigned_abs(),
        minute: zoned.minute().unsigned_abs(),
        second: zoned.second().unsigned_abs(),
        millisecond: millisecond(timestamp),
        utc_offset_minutes: (zoned.offset().seconds() / 60) as i16,
    }
}

fn millisecond(timestamp: Timestamp) -> u16 {
    // Before 1970 the fraction counts backwards; a host's clock that is so wrong may show so.
    timestamp.subsec_millisecond().unsigned_abs() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn follows_the_second_and_the_millisecond() {
        let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(-(3 * 3_600 + 1_800)).unwrap());
        let mut clock = LocalClock::of(zone, at(1_795_311_661_007));
        let expected = LocalTime {
            year: 2026,
            month: 11,
            day: 21,
            hour: 22,
            minute: 11,
            second: 1,
            millisecond: 7,
            utc_offset_minutes: -210,
        };
        assert_eq!(*clock.now(), expected);
        clock.set(at(1_795_311_661_999));
        assert_eq!(*clock.now(), LocalTime { millisecond: 999, ..expected });
        clock.set(at(1_795_311_662_000));
        assert_eq!(*clock.now(), LocalTime { second: 2, millisecond: 0, ..expected });
    }
}
