//! When to try again: soon, then later, and not all of a fleet at once.

use std::time::Duration;

/// The first pause.
pub const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pauses between attempts that double, each with a part of chance.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { pause: PAUSE_MIN }
    }
}

impl Backoff {
    /// The pause before the next attempt: between half of it and the whole, as `chance` says, which is in 0..1.
    pub fn next(&mut self, chance: f64) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// It went well: the next pause is the first one.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.next(0.0), PAUSE_MAX / 2);
        backoff.reset();
        assert_eq!(backoff.next(0.5).as_millis(), 150);
    }
}
