//! Open-loop pacing: what is due now, and whether the generator itself was too late.
//!
//! An event that is due goes out whatever the manager does with the ones before it. How late the generator took each
//! write from the plan is its own account, apart from the manager's latency; see [`Pacer::lateness`].

use hdrhistogram::Histogram;

use crate::plan::{Plan, Write};
use crate::tally::nanoseconds_histogram;

/// A generator whose 99th percentile of lateness is above this did not hold the plan.
pub const LATE_NANOSECONDS: u64 = 20_000_000;

/// loadgen at more than this share of its cores may hold the manager up.
pub const BUSY_SHARE_MAX: f64 = 0.97;

/// One generator's walk through the plan.
#[derive(Debug)]
pub struct Pacer {
    /// The next write of this generator; the plan's number of writes when it is done.
    next: u64,
    generator: u32,
    generators: u32,
    lateness: Histogram<u64>,
}

impl Pacer {
    /// A walk over the agents that this generator, of so many, plays: every `generators`-th of the plan's order.
    ///
    /// # Panics
    /// If there are not so many generators.
    pub fn new(plan: &Plan, generator: u32, generators: u32) -> Pacer {
        assert!(generator < generators, "generator {generator} of {generators}");
        let mut pacer = Pacer { next: 0, generator, generators, lateness: nanoseconds_histogram() };
        pacer.skip_others(plan);
        pacer
    }

    /// Whether the agent at this position of the plan's order is this generator's.
    pub fn plays_position(position: u64, generator: u32, generators: u32) -> bool {
        position % u64::from(generators) == u64::from(generator)
    }

    /// Takes the next write with its number in the plan if it is due, and notes how late it is.
    pub fn take_due(&mut self, plan: &Plan, now_nanoseconds: u64) -> Option<(u64, Write)> {
        if self.next >= plan.writes() {
            return None;
        }
        let (number, write) = (self.next, plan.write(self.next));
        let late = now_nanoseconds.checked_sub(write.intended_nanoseconds)?;
        self.lateness.saturating_record(late.max(1));
        self.next += 1;
        self.skip_others(plan);
        Some((number, write))
    }

    /// Intended time of the next write; `None` when the walk is done. Changes with each [`Pacer::take_due`].
    pub fn next_nanoseconds(&self, plan: &Plan) -> Option<u64> {
        (self.next < plan.writes()).then(|| plan.write(self.next).intended_nanoseconds)
    }

    /// How late each write was taken from the plan, nanoseconds.
    pub fn lateness(&self) -> &Histogram<u64> {
        &self.lateness
    }

    fn skip_others(&mut self, plan: &Plan) {
        while self.next < plan.writes()
            && !Pacer::plays_position(u64::from(plan.position_of(self.next)), self.generator, self.generators)
        {
            self.next += 1;
        }
    }
}

/// Whether the generator, and not the manager, set the pace of a run.
///
/// `busy_share` is the CPU that loadgen's own threads used of the cores they had: at the full share the reader of the
/// queue socket may hold the manager up without any write being late.
pub fn generator_was_the_limit(lateness: &Histogram<u64>, busy_share: f64) -> bool {
    lateness.value_at_quantile(0.99) > LATE_NANOSECONDS || busy_share > BUSY_SHARE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn plan() -> Plan {
        Plan::new(5, 1000.0, Duration::from_secs(1), 2, 11)
    }

    #[test]
    fn nothing_is_early_and_everything_is_taken_once() {
        let plan = plan();
        let mut pacer = Pacer::new(&plan, 0, 1);
        let mut taken = Vec::new();
        while let Some(next) = pacer.next_nanoseconds(&plan) {
            assert!(next == 0 || pacer.take_due(&plan, next - 1).is_none(), "not due yet");
            let (number, write) = pacer.take_due(&plan, next).unwrap();
            assert_eq!(write, plan.write(number));
            taken.push(number);
        }
        assert_eq!(taken, (0..plan.writes()).collect::<Vec<_>>());
        assert!(pacer.take_due(&plan, u64::MAX).is_none());
    }

    #[test]
    fn generators_share_the_plan_by_agent() {
        let plan = plan();
        let mut owner = [None; 5];
        let mut taken = vec![false; plan.writes() as usize];
        for generator in 0..3 {
            let mut pacer = Pacer::new(&plan, generator, 3);
            while let Some((number, write)) = pacer.take_due(&plan, u64::MAX) {
                assert!(!std::mem::replace(&mut taken[number as usize], true), "write {number} taken twice");
                assert_eq!(*owner[write.agent as usize].get_or_insert(generator), generator);
            }
        }
        assert!(taken.iter().all(|taken| *taken));
    }

    #[test]
    fn a_late_or_busy_generator_is_noticed_and_a_prompt_one_is_not() {
        let plan = plan();
        let check = |late_by: u64, busy_share: f64, expected: bool| {
            let mut pacer = Pacer::new(&plan, 0, 1);
            while let Some(next) = pacer.next_nanoseconds(&plan) {
                pacer.take_due(&plan, next + late_by);
            }
            assert_eq!(
                generator_was_the_limit(pacer.lateness(), busy_share),
                expected,
                "{late_by} ns, {busy_share}"
            );
        };
        check(250_000, 0.5, false);
        check(30_000_000, 0.5, true);
        check(250_000, 0.99, true);
    }
}
