//! The search for the highest rate that still holds. Pure: a trial is a function of the rate.

use serde::Serialize;

/// The search ends when what held and what failed are this close.
pub const CLOSE_ENOUGH: f64 = 1.1;
/// A rate that failed below this share of the bound is not looked below: nothing holds.
const RATE_MIN_SHARE: f64 = 1.0 / 4096.0;

/// What a trial at one rate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was lost, and it came as fast as it was offered.
    Held,
    /// Something was lost or late, and the manager's side was the reason.
    Failed,
    /// loadgen could not offer or read it.
    GeneratorLimit,
    /// It failed while the manager had to wait for its core: something else ran there.
    HostLimit,
    /// There is no time left for a trial.
    NoTime,
}

/// What keeps the highest rate that held from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The manager: a rate at most [`CLOSE_ENOUGH`] times higher failed.
    Manager,
    /// loadgen: the manager may hold more.
    Loadgen,
    /// What else ran on the manager's core: the manager may hold more.
    Host,
    /// The bound of the search: the manager may hold more.
    Bound,
    /// The time: the manager may hold more.
    Time,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The highest rate that held; `None` if none did.
    pub rate: Option<f64>,
    /// The lowest rate above it that did not, if one was tried.
    pub failed: Option<f64>,
    /// Why it is not higher.
    pub limit: Limit,
    /// Trials that it took.
    pub trials: u32,
}

/// Looks for the highest rate that holds, between a first guess and a bound: doubles until one does not hold, halves
/// until one does, then divides what is between.
///
/// # Panics
/// If guess and bound are not positive.
pub fn highest(guess: f64, bound: f64, mut trial: impl FnMut(f64) -> Verdict) -> Found {
    assert!(guess > 0.0 && bound > 0.0, "a search from {guess} to {bound}");
    let (mut held, mut failed): (Option<f64>, Option<f64>) = (None, None);
    let (mut rate, mut trials, mut limit) = (guess.min(bound), 0, Limit::Manager);
    loop {
        let verdict = trial(rate);
        trials += u32::from(verdict != Verdict::NoTime);
        match verdict {
            Verdict::Held => held = Some(rate),
            Verdict::Failed => (failed, limit) = (Some(rate), Limit::Manager),
            Verdict::GeneratorLimit => (failed, limit) = (Some(rate), Limit::Loadgen),
            Verdict::HostLimit => (failed, limit) = (Some(rate), Limit::Host),
            Verdict::NoTime => return Found { rate: held, failed, limit: Limit::Time, trials },
        }
        rate = match (held, failed) {
            (Some(held), Some(failed)) if failed / held <= CLOSE_ENOUGH => break,
            (Some(held), Some(failed)) => (held * failed).sqrt(),
            (Some(held), None) if held >= bound => {
                limit = Limit::Bound;
                break;
            }
            (Some(held), None) => (held * 2.0).min(bound),
            (None, Some(failed)) if failed <= bound * RATE_MIN_SHARE => break,
            (None, Some(failed)) => failed / 2.0,
            (None, None) => unreachable!("a trial that was made held or failed"),
        };
    }
    Found { rate: held, failed, limit, trials }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that loses above one rate, and a generator that is too slow above another.
    fn check(guess: f64, manager: f64, generator: f64, expected: Limit) {
        let bound = 800_000.0;
        let mut tried = Vec::new();
        let found = highest(guess, bound, |rate| {
            assert!(rate <= bound);
            tried.push(rate);
            match (rate <= manager, rate <= generator) {
                (true, true) => Verdict::Held,
                (_, false) => Verdict::GeneratorLimit,
                (false, true) => Verdict::Failed,
            }
        });
        assert_eq!(found.limit, expected, "{found:?}: {tried:?}");
        assert_eq!(found.trials as usize, tried.len());
        assert!(tried.len() <= 20, "{tried:?}");
        let limit = manager.min(generator).min(bound);
        let rate = found.rate.unwrap();
        assert!(rate <= limit && limit <= rate * CLOSE_ENOUGH, "{found:?}");
        assert!(found.failed.is_none_or(|failed| failed > limit), "{found:?}");
    }

    #[test]
    fn the_highest_rate_is_found_from_any_guess_and_says_what_limits_it() {
        for guess in [1_000.0, 50_000.0, 123_456.0, 800_000.0, 9e9] {
            check(guess, 217_000.0, 1e9, Limit::Manager);
            check(guess, 700.0, 1e9, Limit::Manager);
            check(guess, 217_000.0, 190_000.0, Limit::Loadgen);
            check(guess, 1e9, 300_000.0, Limit::Loadgen);
            check(guess, 1e9, 1e9, Limit::Bound);
        }
    }

    #[test]
    fn a_search_without_time_or_hope_ends_and_says_what_it_has() {
        let mut left = 3;
        let found = highest(100.0, 1e6, |_| {
            left -= 1;
            if left < 0 { Verdict::NoTime } else { Verdict::Held }
        });
        let expected = Found { rate: Some(400.0), failed: None, limit: Limit::Time, trials: 3 };
        assert_eq!(found, expected);
        let hopeless = highest(50_000.0, 800_000.0, |_| Verdict::Failed);
        assert_eq!((hopeless.rate, hopeless.limit), (None, Limit::Manager));
        assert!(hopeless.trials < 15, "{hopeless:?}");
    }
}
