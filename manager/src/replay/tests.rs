use std::collections::HashSet;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;

const WINDOW: ReplayPolicy = ReplayPolicy::Window;
const STRICT: ReplayPolicy = ReplayPolicy::Strict;

fn counter(global: u32, local: u16) -> Counter {
    Counter { global, local }
}

#[test]
fn strict() {
    let state = ReplayState::new(Counter::ZERO);
    for (offered, expected) in [
        (counter(0, 0), Err(Replayed::Duplicate)),
        (counter(0, 1), Ok(())),
        (counter(0, 1), Err(Replayed::Duplicate)),
        (counter(5, 7), Ok(())),
        (counter(5, 6), Err(Replayed::Duplicate)),
        (counter(4, 9_997), Err(Replayed::Old)),
        (counter(6, 1), Ok(())),
    ] {
        assert_eq!(state.accept(STRICT, offered), expected, "{offered}");
    }
    assert_eq!(state.highest(), counter(6, 1));
}

#[test]
fn off_accepts_all_and_keeps_the_highest() {
    let state = ReplayState::new(counter(3, 3));
    for offered in [counter(3, 3), counter(0, 1), counter(9, 1), counter(3, 3)] {
        assert_eq!(state.accept(ReplayPolicy::Off, offered), Ok(()));
    }
    assert_eq!(state.highest(), counter(9, 1));
    assert_eq!(state.accept(STRICT, counter(8, 1)), Err(Replayed::Old));
}

#[test]
fn a_reset_takes_everything_again_once() {
    for policy in [STRICT, WINDOW] {
        let state = ReplayState::new(counter(7, 9_000));
        assert_eq!(state.accept(policy, counter(7, 9_001)), Ok(()));
        assert!(state.accept(policy, counter(0, 1)).is_err());
        state.reset();
        assert_eq!(state.highest(), Counter::ZERO);
        assert_eq!(state.accept(policy, counter(0, 1)), Ok(()), "{policy:?}");
        assert_eq!(state.accept(policy, counter(0, 1)), Err(Replayed::Duplicate), "{policy:?}");
        assert_eq!(state.accept(policy, counter(0, 90)), Ok(()), "{policy:?}");
    }
}

#[test]
fn window_takes_late_ones_once() {
    let state = ReplayState::new(Counter::ZERO);
    for (offered, expected) in [
        (counter(0, 0), Err(Replayed::Duplicate)),
        (counter(0, 100), Ok(())),
        (counter(0, 37), Ok(())),
        (counter(0, 37), Err(Replayed::Duplicate)),
        (counter(0, 36), Err(Replayed::Old)),
        (counter(0, 99), Ok(())),
        (counter(1, 1), Ok(())),
        (counter(0, 9_997), Ok(())),
        (counter(0, 9_997), Err(Replayed::Duplicate)),
        (counter(0, 100), Err(Replayed::Old)),
    ] {
        assert_eq!(state.accept(WINDOW, offered), expected, "{offered}");
    }
}

#[test]
fn after_a_restart_everything_at_or_below_is_used_up() {
    for last in [
        counter(0, 1),
        counter(0, 23),
        counter(0, 24),
        counter(0, 95),
        counter(7, 5),
        counter(u32::MAX, 9_997),
    ] {
        for policy in [STRICT, WINDOW] {
            let state = ReplayState::new(last);
            for behind in 0..200 {
                let Some(local) = last.local.checked_sub(behind) else { break };
                assert!(
                    state.accept(policy, counter(last.global, local)).is_err(),
                    "{policy:?} {last} - {behind}"
                );
            }
            if last.local < 9_000 {
                assert_eq!(state.accept(policy, last.next().next()), Ok(()), "{policy:?} {last}");
                assert_eq!(state.accept(policy, last.next()).is_ok(), policy == WINDOW, "{policy:?} {last}");
            }
        }
    }
}

/// Four threads offer the same counters, each in its own order: each counter is accepted by one of them at most.
#[test]
fn no_counter_is_accepted_twice_by_any_threads() {
    const ROUNDS: u16 = 40;
    const COUNTERS: u16 = 5_000;
    for policy in [STRICT, WINDOW] {
        let state = ReplayState::new(Counter::ZERO);
        let accepted: Vec<AtomicU32> = (0..=COUNTERS).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (state, accepted) = (&state, &accepted);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let span = COUNTERS / ROUNDS;
                        for step in 1..=span {
                            // Forwards, backwards, and two strides that visit each counter of the span once.
                            let local = match thread {
                                0 => step,
                                1 => span + 1 - step,
                                2 => (step * 7) % span + 1,
                                _ => (step * 11) % span + 1,
                            };
                            let local = round * span + local;
                            if state.accept(policy, counter(0, local)).is_ok() {
                                accepted[usize::from(local)].fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let counts: Vec<u32> = accepted.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert!(counts.iter().all(|count| *count <= 1), "{policy:?}: a counter was accepted twice");
        assert_eq!(counts[usize::from(COUNTERS)], 1, "{policy:?}: the highest always is");
    }
}

/// The oracle: a set of everything accepted, and the rule of the policy in one line.
#[derive(Default)]
struct Model {
    accepted: HashSet<u64>,
    highest: u64,
}

impl Model {
    fn seeded(last: Counter) -> Model {
        let highest = sequence(last);
        Model { accepted: (highest.saturating_sub(200)..=highest).collect(), highest }
    }

    fn accept(&mut self, policy: ReplayPolicy, counter: Counter) -> bool {
        let sequence = sequence(counter);
        let fresh = match policy {
            ReplayPolicy::Off => true,
            ReplayPolicy::Strict => sequence > self.highest,
            ReplayPolicy::Window => {
                sequence + REPLAY_WINDOW > self.highest && !self.accepted.contains(&sequence)
            }
        };
        if fresh {
            self.accepted.insert(sequence);
            self.highest = self.highest.max(sequence);
        }
        fresh
    }
}

/// Steps that stay near the highest, with a jump now and then: forwards, backwards, and over the wrap.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![8 => -80..40i64, 1 => -3_000..3_000i64, 1 => 9_900..10_100i64];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn agrees_with_a_set(start in 0u64..50_000, steps in steps(), window: bool) {
        let policy = if window { WINDOW } else { STRICT };
        let of = |sequence: u64| counter((sequence / LOCALS) as u32, (sequence % LOCALS) as u16);
        let (state, mut model) = (ReplayState::new(of(start)), Model::seeded(of(start)));
        for step in steps {
            let offered = of(model.highest.saturating_add_signed(step));
            prop_assert_eq!(state.accept(policy, offered).is_ok(), model.accept(policy, offered), "{}", offered);
            prop_assert_eq!(sequence(state.highest()), model.highest);
        }
    }
}
