//! What became of each event.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::outage::seconds;

/// The events of one scene, by agent and sequence. Times are the agents' own.
#[derive(Debug, Clone)]
pub struct Account {
    events: Vec<Vec<Event>>,
    /// The sequence that came last, of each agent.
    last: Vec<Option<usize>>,
    out_of_order: u64,
    strangers: u64,
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// When it was written on its host.
    pub made: Duration,
    /// When it arrived first.
    pub arrived: Option<Duration>,
    /// How often it arrived.
    pub times: u32,
    /// Nobody had taken it when whoever it was handed to died: it does not count.
    pub is_untaken: bool,
}

/// What became of all of them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Became {
    /// Written on their hosts.
    pub made: u64,
    /// Arrived, each counted once.
    pub delivered: u64,
    /// Never arrived.
    pub lost: u64,
    /// Arrived a second time or more.
    pub repeated: u64,
    /// Arrived after a later one of its agent.
    pub out_of_order: u64,
    /// Arrived more than ten of the agents' seconds after it was written.
    pub late: u64,
    /// Arrivals that nobody had written.
    pub strangers: u64,
    /// Handed to a program that was killed before it took them, or was not there: none of those above.
    pub untaken: u64,
    /// When the first and the last of the lost ones were written, from the beginning of the outage, in the agents' seconds.
    pub hole_seconds: Option<[f64; 2]>,
    /// For each event of the first agent, when it was written and when it arrived.
    pub timeline: Vec<(f64, Option<f64>)>,
    /// The first of those that were lost, and that were repeated.
    #[serde(skip)]
    pub first_broken: Vec<Broken>,
}

/// An event that was lost or repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Whose, from 0.
    pub agent: u32,
    /// Which of its events, from 0.
    pub event: u32,
    /// How often it arrived: 0 if it was lost.
    pub times: u32,
}

/// How many broken events are named.
const BROKEN_MAX: usize = 20;

/// Later than that is late: longer than any path takes when nothing is away, with a clock that runs 60 times as fast.
const LATE: Duration = Duration::from_secs(10);

impl Account {
    /// Nothing was made yet.
    pub fn new(agents: u32) -> Account {
        Account {
            events: vec![Vec::new(); agents as usize],
            last: vec![None; agents as usize],
            out_of_order: 0,
            strangers: 0,
        }
    }

    /// An agent's host writes an event at `now`; its sequence.
    pub fn make(&mut self, agent: u32, now: Duration) -> u32 {
        let events = &mut self.events[agent as usize];
        events.push(Event { made: now, arrived: None, times: 0, is_untaken: false });
        events.len() as u32 - 1
    }

    /// The sequence that an agent's next event will have.
    pub fn next(&self, agent: u32) -> u32 {
        self.events[agent as usize].len() as u32
    }

    /// Takes an event out of the account: nobody ever took it. If it arrives all the same, it counts again.
    ///
    /// # Panics
    /// If it was never made.
    pub fn untake(&mut self, agent: u32, sequence: u32) {
        self.events[agent as usize][sequence as usize].is_untaken = true;
    }

    /// An event arrived.
    pub fn arrive(&mut self, agent: u32, sequence: u32, now: Duration) {
        let event = self.events.get_mut(agent as usize).and_then(|events| events.get_mut(sequence as usize));
        let Some(event) = event else {
            self.strangers += 1;
            return;
        };
        event.times += 1;
        if event.arrived.is_some() {
            return;
        }
        event.arrived = Some(now);
        let last = &mut self.last[agent as usize];
        if last.is_some_and(|last| last > sequence as usize) {
            self.out_of_order += 1;
        } else {
            *last = Some(sequence as usize);
        }
    }

    /// Whether every event has arrived.
    pub fn is_complete(&self) -> bool {
        self.events.iter().flatten().all(|event| event.arrived.is_some() || event.is_untaken)
    }

    /// The sums, with an outage that began at `outage`.
    ///
    /// # Panics
    /// If they contradict each other.
    pub fn became(&self, outage: Duration) -> Became {
        let mut became =
            Became { out_of_order: self.out_of_order, strangers: self.strangers, ..Became::default() };
        let mut hole: Option<[f64; 2]> = None;
        let numbered = |(agent, events): (usize, &Vec<Event>)| {
            let event = move |(at, event): (usize, Event)| (agent as u32, at as u32, event);
            events.clone().into_iter().enumerate().map(event)
        };
        for (agent, number, event) in self.events.iter().enumerate().flat_map(numbered) {
            if event.is_untaken && event.arrived.is_none() {
                became.untaken += 1;
                continue;
            }
            if event.times != 1 && became.first_broken.len() < BROKEN_MAX {
                became.first_broken.push(Broken { agent, event: number, times: event.times });
            }
            became.made += 1;
            became.repeated += u64::from(event.times.saturating_sub(1));
            match event.arrived {
                Some(arrived) => {
                    became.delivered += 1;
                    became.late += u64::from(arrived.saturating_sub(event.made) > LATE);
                }
                None => {
                    became.lost += 1;
                    let at = event.made.as_secs_f64() - outage.as_secs_f64();
                    let [first, last] = hole.unwrap_or([at, at]);
                    hole = Some([first.min(at), last.max(at)]);
                }
            }
        }
        became.hole_seconds = hole.map(|hole| hole.map(|at| (at * 10.0).round() / 10.0));
        let shown = |event: &Event| (seconds(event.made), event.arrived.map(seconds));
        became.timeline = self.events.first().into_iter().flatten().map(shown).collect();
        assert_eq!(became.made, became.delivered + became.lost, "each event became one of the two");
        became
    }
}

impl fmt::Display for Became {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Became { made, delivered, lost, repeated, out_of_order, late, .. } = self;
        write!(
            out,
            "{made} made = {delivered} delivered + {lost} lost; {late} late, {repeated} repeated, {out_of_order} out of order"
        )?;
        if let Some([first, last]) = self.hole_seconds {
            write!(out, "; lost were those of {first} to {last} s after it began")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_event_is_accounted_for() {
        let mut account = Account::new(2);
        for second in 0..5 {
            assert_eq!(account.make(0, at(second)), second as u32);
        }
        account.make(1, at(3));
        account.arrive(0, 0, at(1));
        account.arrive(0, 0, at(2));
        account.arrive(0, 4, at(5));
        account.arrive(0, 3, at(30));
        account.arrive(1, 0, at(4));
        account.arrive(1, 1, at(4));
        account.arrive(7, 0, at(4));
        assert!(!account.is_complete());
        let became = account.became(at(1));
        assert_eq!((became.made, became.delivered, became.lost), (6, 4, 2));
        assert_eq!((became.repeated, became.out_of_order, became.late, became.strangers), (1, 1, 1, 2));
        assert_eq!(became.hole_seconds, Some([0.0, 1.0]));
        assert_eq!(became.timeline[3], (3.0, Some(30.0)));
        account.arrive(0, 1, at(31));
        account.arrive(0, 2, at(31));
        assert!(account.is_complete());
        assert_eq!(account.became(at(1)).hole_seconds, None);
        assert_eq!(account.became(at(1)).first_broken, [Broken { agent: 0, event: 0, times: 2 }]);
    }

    #[test]
    fn what_nobody_took_is_not_made_unless_it_arrives() {
        let mut account = Account::new(1);
        let [first, second] = [account.make(0, at(0)), account.make(0, at(1))];
        account.untake(0, first);
        account.untake(0, second);
        assert!(account.is_complete());
        account.arrive(0, second, at(2));
        let became = account.became(at(0));
        assert_eq!((became.made, became.delivered, became.untaken, became.lost), (1, 1, 1, 0));
    }
}
