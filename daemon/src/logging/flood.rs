//! The net below the whole log: a place in the code that says too much is silenced until its minute is over, and then sums up.
//!
//! What is known to repeat goes through a [`super::Limiter`], a line a minute. This one is for what nobody thought of.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Subscriber, callsite::Identifier};
use tracing_subscriber::{Layer, layer::Context};

/// Lines of one place in the code in one minute. The greatest table of conditions, each of which may speak once a minute, has
/// fewer.
pub const LINES_MAX: u32 = 100;

const INTERVAL: Duration = Duration::from_secs(60);

/// Characters of a line that stand for all that was held back.
const EXAMPLE_CHARACTERS_MAX: usize = 160;

/// Who said how much.
#[derive(Debug, Default)]
pub(super) struct Flood {
    places: Mutex<HashMap<Identifier, Place>>,
}

/// One place in the code. There are as many as the program has, so they need no bound.
#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
    held: u64,
    example: String,
}

/// What was held back of one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Held {
    pub(super) count: u64,
    /// The last of them.
    pub(super) example: String,
}

impl Flood {
    /// What was held back, of the places whose minute is over.
    pub(super) fn due(&self) -> Vec<Held> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        places.values_mut().filter_map(|place| place.due(now)).collect()
    }
}

impl Place {
    fn new(now: Instant) -> Place {
        Place { since: now, lines: 0, held: 0, example: String::new() }
    }

    /// Counts a line. `false`: it is one too many.
    fn admit(&mut self, now: Instant, text: impl FnOnce() -> String) -> bool {
        // What is held back is said before a new minute begins, by `due`.
        if self.held == 0 && now.duration_since(self.since) >= INTERVAL {
            *self = Place::new(now);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            return true;
        }
        self.held += 1;
        self.example = text().chars().take(EXAMPLE_CHARACTERS_MAX).collect();
        false
    }

    fn due(&mut self, now: Instant) -> Option<Held> {
        if self.held == 0 || now.duration_since(self.since) < INTERVAL {
            return None;
        }
        let Place { held, example, .. } = std::mem::replace(self, Place::new(now));
        Some(Held { count: held, example })
    }
}

impl<S: Subscriber> Layer<S> for &'static Flood {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(event.metadata().callsite()).or_insert_with(|| Place::new(now));
        place.admit(now, || super::text(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_says_too_much_is_summed_up_when_its_minute_is_over() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut place = Place::new(start);
        for line in 0..LINES_MAX {
            assert!(place.admit(at(1), || unreachable!()), "line {line}");
        }
        assert!(!place.admit(at(2), || "first".to_owned()));
        assert!(!place.admit(at(61), || "x".repeat(1_000)), "nothing is lost between minute and sum");
        assert_eq!(place.due(at(59)), None);
        let held = place.due(at(61)).unwrap();
        assert_eq!((held.count, held.example.len()), (2, EXAMPLE_CHARACTERS_MAX));
        assert_eq!(place.due(at(200)), None);
        assert!(place.admit(at(62), || unreachable!()));
    }

    #[test]
    fn a_quiet_place_begins_anew_each_minute() {
        let start = Instant::now();
        let mut place = Place::new(start);
        for minute in 0..5 {
            let now = start + INTERVAL * minute;
            assert!((0..LINES_MAX).all(|_| place.admit(now, || unreachable!())), "minute {minute}");
        }
    }
}
