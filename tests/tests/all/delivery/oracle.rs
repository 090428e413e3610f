//! What must hold, whatever happens. Knows nothing of how it is done: only what the spools took and what each sink got.
//!
//! * Each sink gets each event that a spool took exactly once, and those of one agent in the order in which it took them.
//!   Checked at each hand-over: what comes must be the next.
//! * An agent never forgets what some sink does not have.
//! * A number means one event, however often it is sent, and an agent keeps its session.
//! * Where a full spool drops its oldest events, sinks may miss these: as many as it says, and no others.
//! * In the end every sink has everything, and every spool is empty.

use std::collections::{BTreeSet, HashMap};

use manager::SINKS_MAX;

use super::plan::{Plan, Room};

/// Watches one run. The first thing that is wrong is kept.
pub(super) struct Oracle {
    sinks: Vec<usize>,
    agents: Vec<Watched>,
    violation: Option<String>,
}

/// What an event is to the sinks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// Every sink takes it.
    Event,
    /// The manager drops it; its number is used up.
    Malformed,
    /// Archives don't take it for its form.
    NotArchived,
}

/// What an agent is promised.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Promise {
    /// Where the manager does not agree: nothing is lost, some of it comes again.
    AtLeastOnce,
    #[default]
    Once,
    /// But what a full spool drops.
    OnceOrDropped,
}

#[derive(Default)]
struct Watched {
    /// What its spool took, in order.
    taken: Vec<(u32, Class)>,
    /// For each sink, the place in `taken` of what it gets next.
    next: [usize; SINKS_MAX],
    numbers: HashMap<u64, u32>,
    promise: Promise,
    /// What each sink ever got.
    got: [BTreeSet<u32>; SINKS_MAX],
    /// For each sink, events that it did not get.
    missed: [u64; SINKS_MAX],
}

impl Class {
    /// Whether `sink` takes such an event.
    pub(super) fn is_for(self, sink: usize) -> bool {
        match self {
            Class::Event => true,
            Class::Malformed => false,
            Class::NotArchived => sink == 0,
        }
    }
}

impl Oracle {
    pub(super) fn new(plan: &Plan) -> Oracle {
        let promise = |room: Room| match room {
            Room::DropsOldest => Promise::OnceOrDropped,
            Room::Ample | Room::PushesBack if plan.agrees => Promise::Once,
            Room::Ample | Room::PushesBack => Promise::AtLeastOnce,
        };
        let kinds = plan.agents.iter();
        let agents = kinds.map(|kind| Watched { promise: promise(kind.room), ..Watched::default() });
        Oracle { sinks: plan.sinks.clone(), agents: agents.collect(), violation: None }
    }

    /// The text of an event: unlike any other, and of a length of its own.
    pub(super) fn text(agent: usize, event: u32, class: Class) -> String {
        let noise = u64::from(event + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ agent as u64;
        let head = match class {
            Class::Event => "1:/var/log/sim",
            Class::Malformed => ["no event", "4:/var/log/sim", "1:keepalive"][event as usize % 3],
            Class::NotArchived => "1:/var/log/../sim",
        };
        let tail = "x".repeat(noise as usize % 200);
        format!("{head}:agent {agent} event {event} of {noise:x} said {tail}")
    }

    /// Whose event a text is, and which.
    pub(super) fn read(text: &str) -> Option<(usize, u32)> {
        let words: Vec<&str> = text.split(' ').collect();
        let at = words.iter().position(|word| word.ends_with(":agent"))?;
        Some((words.get(at + 1)?.parse().ok()?, words.get(at + 3)?.parse().ok()?))
    }

    /// The spool of `agent` took an event.
    pub(super) fn taken(&mut self, agent: usize, event: u32, class: Class) {
        self.agents[agent].taken.push((event, class));
    }

    pub(super) fn taken_count(&self, agent: usize) -> usize {
        self.agents[agent].taken.len()
    }

    /// `sink` took over `text`.
    pub(super) fn handed_over(&mut self, sink: usize, text: &str) {
        let Some((agent, event)) = Oracle::read(text) else {
            return self.violated(format!("sink {sink} got what nobody sent: {text:?}"));
        };
        let watched = &mut self.agents[agent];
        watched.got[sink].insert(event);
        watched.skip(sink);
        match watched.promise {
            Promise::AtLeastOnce => return,
            Promise::Once => {}
            Promise::OnceOrDropped => watched.miss(sink, event),
        }
        let expected = watched.taken.get(watched.next[sink]).copied();
        if expected.is_some_and(|(next, class)| next == event && Oracle::text(agent, next, class) == text) {
            watched.next[sink] += 1;
            return;
        }
        let had = watched.taken[..watched.next[sink]].iter().any(|(before, _)| *before == event);
        let what = if had { "again" } else { "out of order" };
        self.violated(format!("sink {sink} got agent {agent}'s event {event} {what}; next was {expected:?}"));
    }

    /// `text` was given to the sinks under this number.
    pub(super) fn numbered(&mut self, number: u64, text: &str) {
        let Some((agent, event)) = Oracle::read(text) else { return };
        let before = *self.agents[agent].numbers.entry(number).or_insert(event);
        self.check(before == event, || {
            format!("agent {agent}: number {number} was event {before} and is {event}")
        });
    }

    /// `agent` keeps so many events in its spool.
    pub(super) fn kept(&mut self, agent: usize, records: u64) {
        let watched = &mut self.agents[agent];
        self.sinks.iter().for_each(|sink| watched.skip(*sink));
        let had = self.sinks.iter().map(|sink| watched.next[*sink]).min().expect("there is a sink");
        let forgotten = watched.taken.len() - records as usize;
        let had = if watched.promise == Promise::Once { had } else { watched.taken.len() };
        self.check(forgotten <= had, || {
            format!("agent {agent} forgot {forgotten} events, and a sink has but {had}")
        });
    }

    /// At the end: all is there.
    pub(super) fn check_complete(&mut self, agent: usize, dropped: u64) {
        for sink in self.sinks.clone() {
            let watched = &mut self.agents[agent];
            match watched.promise {
                Promise::AtLeastOnce => watched.advance(sink),
                Promise::Once => watched.skip(sink),
                Promise::OnceOrDropped => watched.miss(sink, u32::MAX),
            }
            let (next, all, missed) = (watched.next[sink], watched.taken.len(), watched.missed[sink]);
            self.check(next == all, || format!("sink {sink} has {next} of agent {agent}'s {all} events"));
            self.check(missed <= dropped, || {
                format!("sink {sink} misses {missed} of agent {agent}'s events, and {dropped} were dropped")
            });
        }
    }

    pub(super) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

impl Watched {
    /// Goes behind what `sink` got, in whatever order.
    fn advance(&mut self, sink: usize) {
        self.skip(sink);
        while self.taken.get(self.next[sink]).is_some_and(|(event, _)| self.got[sink].contains(event)) {
            self.next[sink] += 1;
            self.skip(sink);
        }
    }

    /// Goes behind what `sink` does not get before `event`.
    fn miss(&mut self, sink: usize, event: u32) {
        self.skip(sink);
        while self.taken.get(self.next[sink]).is_some_and(|(next, _)| *next < event) {
            self.missed[sink] += 1;
            self.next[sink] += 1;
            self.skip(sink);
        }
    }

    /// Goes behind what `sink` does not take.
    fn skip(&mut self, sink: usize) {
        while self.taken.get(self.next[sink]).is_some_and(|(_, class)| !class.is_for(sink)) {
            self.next[sink] += 1;
        }
    }
}
