//! The schedule of a run, computed from its seed: which agent writes when, and which of its events.
//!
//! Nothing of it is stored but the order of the agents, so that the reader of the queue socket can compute the
//! intended time of any event it meets from the two numbers in its line.
//!
//! ```text
//! round 0: write 0 1 2 .. agents-1      every agent once, in the order of the seed
//! round 1: write agents ..              the same order: an agent's writes are one period apart
//! each write: `burst` events of one agent, in a slot of burst / rate seconds, somewhere in its slot
//! ```

use std::sync::Arc;
use std::time::Duration;

/// One write of one agent: its events go out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// When it is to be handed to the kernel, nanoseconds after the start of the run.
    pub intended_nanoseconds: u64,
    /// Whose it is.
    pub agent: u32,
    /// The sequence of its first event, counted for each agent from 0.
    pub sequence: u64,
}

/// The schedule of a whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    writes: u64,
    burst: u32,
    slot_nanoseconds: f64,
    seed: u64,
    /// Position in a round -> agent.
    order: Arc<[u32]>,
    /// Agent -> position in a round.
    position: Arc<[u32]>,
    /// Position at which the first round begins.
    start: u32,
    /// Agent -> sequence of its first event; empty: 0 for all.
    first: Arc<[u32]>,
}

impl Plan {
    /// Plans `rate` events a second for `duration`, rounded up to whole writes of `burst` events.
    ///
    /// # Panics
    /// If there is no agent, no event in a write, or no rate: the command line refuses these.
    pub fn new(agents: u32, rate: f64, duration: Duration, burst: u32, seed: u64) -> Plan {
        assert!(
            agents > 0 && burst > 0 && rate > 0.0,
            "a plan of nothing: {agents} agents, {burst} events, {rate}/s"
        );
        let events = rate * duration.as_secs_f64();
        let writes = ((events / f64::from(burst)) - 1e-9).ceil().max(1.0) as u64;
        let order = shuffled(agents, seed);
        let mut position = vec![0; order.len()];
        for (place, agent) in order.iter().enumerate() {
            position[*agent as usize] = place as u32;
        }
        Plan {
            writes,
            burst,
            slot_nanoseconds: f64::from(burst) / rate * 1e9,
            seed,
            order: order.into(),
            position: position.into(),
            start: 0,
            first: Arc::new([]),
        }
    }

    /// The same plan for a fleet that has said something already: its rounds begin at this position, and each agent
    /// goes on with this sequence.
    ///
    /// # Panics
    /// If there is no such position, or not one sequence for each agent.
    #[must_use]
    pub fn going_on(self, start: u32, first: Arc<[u32]>) -> Plan {
        assert!(start < self.agents(), "position {start} of {} agents", self.agents());
        assert_eq!(first.len(), self.order.len(), "each agent goes on somewhere");
        Plan { start, first, ..self }
    }

    /// Writes of the whole run.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Events of the whole run.
    pub fn events(&self) -> u64 {
        self.writes * u64::from(self.burst)
    }

    /// Events in one write.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Agents of the fleet.
    pub fn agents(&self) -> u32 {
        self.order.len() as u32
    }

    /// The write of this number, below [`Plan::writes`]; times grow with the number.
    pub fn write(&self, number: u64) -> Write {
        let agents = self.order.len() as u64;
        let agent = self.order[self.position_of(number) as usize];
        Write {
            intended_nanoseconds: self.time_of(number),
            agent,
            sequence: self.first_of(agent) + number / agents * u64::from(self.burst),
        }
    }

    /// The position in the order of the agent whose this write is.
    pub fn position_of(&self, number: u64) -> u32 {
        ((number + u64::from(self.start)) % self.order.len() as u64) as u32
    }

    /// The number of an agent's write, counted for each agent from 0, by the agent's position.
    pub fn number_of(&self, position: u32, write_of_agent: u64) -> u64 {
        write_of_agent * self.order.len() as u64 + self.turn_of(position)
    }

    /// The agent at a position of a round.
    ///
    /// # Panics
    /// If there are not so many agents.
    pub fn agent_at(&self, position: u64) -> u32 {
        self.order[position as usize]
    }

    /// The sequence of an agent's first event.
    pub fn first_of(&self, agent: u32) -> u64 {
        self.first.get(agent as usize).map_or(0, |first| u64::from(*first))
    }

    /// Events that are planned for one agent.
    pub fn events_of(&self, agent: u32) -> u64 {
        let agents = self.order.len() as u64;
        let whole_rounds = self.writes / agents;
        let one_more = u64::from(self.turn_of(self.position[agent as usize]) < self.writes % agents);
        (whole_rounds + one_more) * u64::from(self.burst)
    }

    /// The number of the write that carries an event; `None` if the plan holds no such event.
    pub fn write_of(&self, agent: u32, sequence: u64) -> Option<u64> {
        let position = *self.position.get(agent as usize)?;
        let round = sequence.checked_sub(self.first_of(agent))? / u64::from(self.burst);
        let number = round.checked_mul(self.order.len() as u64)?.checked_add(self.turn_of(position))?;
        (number < self.writes).then_some(number)
    }

    /// Intended time of an event, nanoseconds after the start; `None` if the plan holds no such event.
    pub fn intended_nanoseconds(&self, agent: u32, sequence: u64) -> Option<u64> {
        self.write_of(agent, sequence).map(|number| self.time_of(number))
    }

    /// When in each round the agent at a position has its turn.
    fn turn_of(&self, position: u32) -> u64 {
        let agents = self.order.len() as u64;
        (u64::from(position) + agents - u64::from(self.start)) % agents
    }

    /// A write is somewhere in its slot: evenly spaced ones would meet the manager's timers in step.
    fn time_of(&self, number: u64) -> u64 {
        let share =
            (mix(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 11) as f64 / (1_u64 << 53) as f64;
        ((number as f64 + share) * self.slot_nanoseconds) as u64
    }
}

/// A number from which nobody can tell its argument (SplitMix64's finaliser): all of the run's chance comes from here.
pub fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn shuffled(agents: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..agents).collect();
    for last in (1..order.len()).rev() {
        let chosen = mix(seed.wrapping_add(mix(last as u64))) % (last as u64 + 1);
        order.swap(last, chosen as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(agents: u32, rate: f64, seconds: f64, burst: u32) -> Plan {
        Plan::new(agents, rate, Duration::from_secs_f64(seconds), burst, 7)
    }

    #[test]
    fn times_grow_and_stay_in_their_slots() {
        let plan = plan(7, 100.0, 1.0, 2);
        assert_eq!((plan.writes(), plan.events()), (50, 100));
        let mut before = 0;
        for number in 0..plan.writes() {
            let intended = plan.write(number).intended_nanoseconds;
            assert!(intended >= before);
            assert!(
                (number * 20_000_000..(number + 1) * 20_000_000).contains(&intended),
                "write {number}: {intended}"
            );
            before = intended;
        }
    }

    #[test]
    fn every_event_is_in_exactly_one_write_and_finds_its_time_again() {
        for (agents, rate, seconds, burst) in
            [(1, 10.0, 1.0, 1), (7, 100.0, 1.0, 3), (50, 20.0, 1.0, 1), (3, 9.5, 2.0, 4)]
        {
            let plan = plan(agents, rate, seconds, burst);
            let mut events = vec![0; agents as usize];
            for number in 0..plan.writes() {
                let write = plan.write(number);
                assert_eq!(
                    write.sequence, events[write.agent as usize],
                    "an agent's events follow each other"
                );
                events[write.agent as usize] += u64::from(burst);
                for sequence in write.sequence..write.sequence + u64::from(burst) {
                    assert_eq!(plan.write_of(write.agent, sequence), Some(number));
                    assert_eq!(
                        plan.intended_nanoseconds(write.agent, sequence),
                        Some(write.intended_nanoseconds)
                    );
                }
            }
            for agent in 0..agents {
                assert_eq!(plan.events_of(agent), events[agent as usize]);
                assert_eq!(plan.write_of(agent, events[agent as usize]), None);
            }
            assert_eq!(events.iter().sum::<u64>(), plan.events());
            assert_eq!(plan.write_of(agents, 0), None);
        }
    }

    #[test]
    fn a_fleet_that_goes_on_has_each_event_once_behind_those_before() {
        for start in [0, 1, 6] {
            let first: Arc<[u32]> = (0..7).map(|agent| agent * 10).collect();
            let plan = plan(7, 100.0, 0.32, 2).going_on(start, Arc::clone(&first));
            let mut next: Vec<u64> = first.iter().map(|first| u64::from(*first)).collect();
            assert_eq!(plan.write(0).agent, plan.agent_at(u64::from(start)));
            for number in 0..plan.writes() {
                let write = plan.write(number);
                assert_eq!(write.sequence, next[write.agent as usize]);
                next[write.agent as usize] += 2;
                assert_eq!(plan.write_of(write.agent, write.sequence + 1), Some(number));
                let position = plan.position_of(number);
                assert_eq!(plan.agent_at(u64::from(position)), write.agent);
                assert_eq!(plan.number_of(position, number / 7), number);
            }
            for agent in 0..7 {
                let before = plan.first_of(agent);
                assert_eq!(before + plan.events_of(agent), next[agent as usize]);
                assert!(before == 0 || plan.write_of(agent, before - 1).is_none(), "said before");
            }
        }
    }

    #[test]
    fn the_same_seed_plans_the_same_run_and_another_one_another() {
        let writes = |seed| {
            let plan = Plan::new(100, 1000.0, Duration::from_secs(1), 1, seed);
            (0..plan.writes()).map(|number| plan.write(number)).collect::<Vec<_>>()
        };
        assert_eq!(writes(5), writes(5));
        assert_ne!(writes(5), writes(6));
    }

    #[test]
    fn events_are_rounded_up_to_whole_writes_and_there_is_always_one() {
        for (rate, seconds, burst, writes) in
            [(10.0, 1.0, 4, 3), (0.1, 1.0, 1, 1), (20_000.0, 10.0, 1, 200_000)]
        {
            assert_eq!(plan(2, rate, seconds, burst).writes(), writes);
        }
    }
}
