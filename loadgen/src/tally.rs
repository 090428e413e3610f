//! What arrived: each event once, twice, out of its order, harmed, or under another agent's name; and how late.
//!
//! One bit an event and one number an agent. Pure: the reader tells it what it found and when.

use hdrhistogram::Histogram;

use crate::cli::Protocol;
use crate::lines::{Found, Mark};
use crate::plan::Plan;

/// Latencies above this are counted as this.
const LATENCY_NANOSECONDS_MAX: u64 = 600_000_000_000;

/// A histogram of nanoseconds with three significant digits.
///
/// # Panics
/// Never: the bounds are constants that fit.
pub fn nanoseconds_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOSECONDS_MAX, 3)
        .expect("1 ns to 600 s in 3 digits is a legal histogram")
}

/// Sums over all that was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different events that arrived.
    pub delivered: u64,
    /// Of these, those of agents that speak TCP.
    pub delivered_tcp: u64,
    /// Arrivals of an event that had arrived before.
    pub duplicated: u64,
    /// Events that arrived after a later one of their agent.
    pub out_of_order: u64,
    /// Of these, those of agents that speak TCP.
    pub out_of_order_tcp: u64,
    /// Lines of this run whose bytes are not those that were sent.
    pub corrupted: u64,
    /// Events that were handed over under another agent's name.
    pub misattributed: u64,
    /// Lines of this run that the plan does not hold.
    pub unplanned: u64,
    /// Everything else: what agents say by themselves, other runs, and what an earlier plan of the fleet gave up.
    pub foreign: u64,
}

/// What a reader found at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// What the bytes said.
    pub found: Found,
    /// Whether the manager named the agent that sent it.
    pub named_right: bool,
    /// When, in nanoseconds after the start of the run.
    pub nanoseconds: u64,
}

/// The account of one run.
#[derive(Debug)]
pub struct Tally {
    counts: Counts,
    latency: Histogram<u64>,
    agents: Vec<AgentTally>,
    /// One bit for each planned event, agent after agent.
    arrived: Vec<u64>,
    protocol: Protocol,
    last_arrival_nanoseconds: u64,
}

#[derive(Debug)]
struct AgentTally {
    first_bit: u64,
    /// Sequence of its first event in this plan.
    first: u64,
    events: u64,
    /// One more than the highest event that arrived, counted from the first of this plan.
    expected: u64,
}

impl Tally {
    /// Nothing has arrived of this plan.
    pub fn new(plan: &Plan, protocol: Protocol) -> Tally {
        let mut agents = Vec::with_capacity(plan.agents() as usize);
        let mut first_bit = 0;
        for agent in 0..plan.agents() {
            let events = plan.events_of(agent);
            agents.push(AgentTally { first_bit, first: plan.first_of(agent), events, expected: 0 });
            first_bit += events;
        }
        Tally {
            counts: Counts::default(),
            latency: nanoseconds_histogram(),
            agents,
            arrived: vec![0; first_bit.div_ceil(64) as usize],
            protocol,
            last_arrival_nanoseconds: 0,
        }
    }

    /// Counts one arrival.
    pub fn count(&mut self, plan: &Plan, arrival: Arrival) {
        match arrival.found {
            Found::Foreign => self.counts.foreign += 1,
            Found::Corrupt => self.counts.corrupted += 1,
            Found::Ours(mark) => {
                if !arrival.named_right {
                    self.counts.misattributed += 1;
                }
                self.count_event(plan, mark, arrival.nanoseconds);
            }
        }
    }

    /// Sums so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Time from an event's intended time to its first arrival, nanoseconds.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// When the last event arrived for the first time, nanoseconds after the start of the run.
    pub fn last_arrival_nanoseconds(&self) -> u64 {
        self.last_arrival_nanoseconds
    }

    fn count_event(&mut self, plan: &Plan, mark: Mark, now_nanoseconds: u64) {
        let tcp = u64::from(self.protocol.is_tcp(mark.agent));
        let Some(agent) = self.agents.get_mut(mark.agent as usize) else {
            self.counts.unplanned += 1;
            return;
        };
        let Some(event) = mark.sequence.checked_sub(agent.first) else {
            // What an earlier plan of the same fleet sent, and gave up.
            self.counts.foreign += 1;
            return;
        };
        let (true, Some(intended)) =
            (event < agent.events, plan.intended_nanoseconds(mark.agent, mark.sequence))
        else {
            self.counts.unplanned += 1;
            return;
        };
        let bit = agent.first_bit + event;
        let (word, mask) = (&mut self.arrived[(bit / 64) as usize], 1 << (bit % 64));
        if *word & mask != 0 {
            self.counts.duplicated += 1;
            return;
        }
        *word |= mask;
        if event < agent.expected {
            self.counts.out_of_order += 1;
            self.counts.out_of_order_tcp += tcp;
        }
        agent.expected = agent.expected.max(event + 1);
        self.counts.delivered += 1;
        self.counts.delivered_tcp += tcp;
        self.latency.saturating_record(now_nanoseconds.saturating_sub(intended).max(1));
        self.last_arrival_nanoseconds = now_nanoseconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(arrivals: &[(u32, u64)], expected: Counts) {
        let plan = Plan::new(4, 12.0, Duration::from_secs(1), 1, 9);
        let mut tally = Tally::new(&plan, Protocol::Both);
        for (agent, sequence) in arrivals {
            let found = Found::Ours(Mark { run: 1, agent: *agent, sequence: *sequence });
            tally.count(&plan, Arrival { found, named_right: true, nanoseconds: 2_000_000_000 });
        }
        assert_eq!(tally.counts(), expected);
        assert_eq!(tally.latency().len(), expected.delivered);
    }

    #[test]
    fn arrivals_are_counted_for_what_they_are() {
        let none = Counts::default();
        check(&[], none);
        check(&[(0, 0), (0, 1), (0, 2)], Counts { delivered: 3, ..none });
        check(&[(1, 0), (1, 1)], Counts { delivered: 2, delivered_tcp: 2, ..none });
        check(&[(0, 1), (0, 0), (0, 2)], Counts { delivered: 3, out_of_order: 1, ..none });
        check(
            &[(1, 2), (1, 1), (1, 0)],
            Counts { delivered: 3, delivered_tcp: 3, out_of_order: 2, out_of_order_tcp: 2, ..none },
        );
        check(&[(0, 0), (0, 0), (0, 0)], Counts { delivered: 1, duplicated: 2, ..none });
        check(&[(0, 1), (0, 0), (0, 0)], Counts { delivered: 2, duplicated: 1, out_of_order: 1, ..none });
        check(&[(0, 3), (9, 0), (0, u64::MAX)], Counts { unplanned: 3, ..none });
    }

    #[test]
    fn harm_strangers_and_wrong_names_have_their_own_counts() {
        let plan = Plan::new(2, 2.0, Duration::from_secs(1), 1, 9);
        let mut tally = Tally::new(&plan, Protocol::Udp);
        let ours = Found::Ours(Mark { run: 1, agent: 0, sequence: 0 });
        for (found, named_right) in [(Found::Foreign, true), (Found::Corrupt, true), (ours, false)] {
            tally.count(&plan, Arrival { found, named_right, nanoseconds: 5 });
        }
        let expected =
            Counts { foreign: 1, corrupted: 1, misattributed: 1, delivered: 1, ..Counts::default() };
        assert_eq!(tally.counts(), expected);
    }

    #[test]
    fn what_an_earlier_plan_of_the_fleet_sent_is_foreign() {
        let plan = Plan::new(2, 4.0, Duration::from_secs(1), 1, 9).going_on(1, [5, 7].into());
        let mut tally = Tally::new(&plan, Protocol::Tcp);
        for (agent, sequence) in [(0, 5), (0, 4), (1, 8), (1, 7), (1, 9)] {
            let found = Found::Ours(Mark { run: 1, agent, sequence });
            tally.count(&plan, Arrival { found, named_right: true, nanoseconds: 2_000_000_000 });
        }
        let expected = Counts {
            delivered: 3,
            delivered_tcp: 3,
            out_of_order: 1,
            out_of_order_tcp: 1,
            foreign: 1,
            unplanned: 1,
            ..Counts::default()
        };
        assert_eq!(tally.counts(), expected);
    }

    #[test]
    fn latency_is_measured_from_the_intended_time() {
        let plan = Plan::new(1, 10.0, Duration::from_secs(1), 1, 9);
        let mut tally = Tally::new(&plan, Protocol::Tcp);
        let write = plan.write(3);
        let found = Found::Ours(Mark { run: 1, agent: 0, sequence: write.sequence });
        let nanoseconds = write.intended_nanoseconds + 1_000;
        tally.count(&plan, Arrival { found, named_right: true, nanoseconds });
        assert_eq!(tally.latency().max(), 1_000);
        assert_eq!(tally.last_arrival_nanoseconds(), nanoseconds);
    }
}
