//! An agent and two shards between which everything may be cut at any moment: each sink gets each event once, in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use codec::{FRAME_HEADER_BYTES, delivery_next};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bed::*;
use crate::action::{Action, ConnectionId};
use crate::delivery::SINKS_MAX;
use crate::manager::Peer;
use crate::settings::Settings;
use crate::time::Time;

const STEPS: u32 = 400;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn each_sink_gets_each_event_once_and_in_order(seed: u64) {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
    }
}

/// A connection, from its begin until both sides have forgotten it.
struct Link {
    shard: usize,
    slot: u32,
    to_manager: VecDeque<Vec<u8>>,
    to_agent: VecDeque<String>,
    /// The manager has it open.
    is_held: bool,
}

/// The agent's side of its connection.
#[derive(Default)]
struct Talk {
    is_agreed: bool,
    /// Behind which number it has given what it has; none before it was told where to begin.
    given_before: Option<u64>,
    /// The number that the manager gives to the next event.
    expected: Option<u64>,
}

struct World {
    random: StdRng,
    now: Time,
    shards: Vec<Shard>,
    mail: Vec<(usize, ConnectionId)>,
    got: [Vec<u64>; SINKS_MAX],
    links: Vec<Link>,
    /// The agent has the last of `links` open.
    talk: Option<Talk>,
    pen: Pen,
    slots: u32,
    made: BTreeSet<u64>,
    spool: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    next_number: u64,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: StdRng::seed_from_u64(seed),
            now: Time::from_seconds(100),
            shards: Shard::all(2, &Settings::default(), &Book::new(10)),
            mail: Vec::new(),
            got: Default::default(),
            links: Vec::new(),
            talk: None,
            pen: Pen::new("001"),
            slots: 0,
            made: BTreeSet::new(),
            spool: BTreeSet::new(),
            dropped: BTreeSet::new(),
            next_number: 3,
        }
    }

    fn step(&mut self) {
        let count = self.random.random_range(1..=8);
        match self.random.random_range(0..100) {
            0..20 => self.make_event(),
            20..35 => self.give(count),
            35..60 => self.manager_takes(count),
            60..75 => self.hand_over(count),
            75..82 => self.agent_reads(count),
            82..86 => self.pass_time(),
            86..88 => self.send(KEEP_ALIVE),
            88..90 => self.cut(),
            90..92 => self.manager_notices(),
            92..95 => self.connect(),
            95..97 => self.read_mail(),
            97..99 => self.drop_oldest(),
            _ => self.kill_manager(),
        }
    }

    /// No more faults: everything comes.
    fn finish(&mut self) {
        for _ in 0..200 {
            if self.talk.is_none() {
                self.connect();
            }
            self.read_mail();
            self.agent_reads(1_000);
            self.give(1_000);
            for _ in 0..200 {
                self.manager_takes(1_000);
            }
            for _ in 0..20 {
                self.hand_over(1_000);
            }
            self.pass_time();
            if self.spool.is_empty() {
                break;
            }
        }
        assert!(self.spool.is_empty(), "confirmed at last: {:?}", self.spool);
        for sink in SINKS.iter() {
            let got = &self.got[sink];
            assert!(got.is_sorted_by(|a, b| a < b), "sink {sink}: once, and in order: {got:?}");
            let missing =
                self.made.iter().find(|number| !self.dropped.contains(number) && !got.contains(number));
            assert_eq!(missing, None, "sink {sink}: {got:?}");
        }
    }

    fn make_event(&mut self) {
        self.made.insert(self.next_number);
        self.spool.insert(self.next_number);
        let gap = if self.random.random_ratio(1, 10) { self.random.random_range(1..2_000) } else { 0 };
        self.next_number += 1 + gap;
    }

    /// The bound of the agent's spool is hit.
    fn drop_oldest(&mut self) {
        self.dropped.extend(self.spool.pop_first());
    }

    fn send(&mut self, text: &[u8]) {
        let message = self.pen.seal(text);
        if self.talk.is_some() {
            self.links.last_mut().unwrap().to_manager.push_back(message);
        }
    }

    fn give(&mut self, count: usize) {
        for _ in 0..count {
            let Some(Talk { given_before: Some(given_before), expected, .. }) = &mut self.talk else {
                return;
            };
            let Some(number) = self.spool.range(*given_before..).next().copied() else { return };
            let jumps = *expected != Some(number);
            (*given_before, *expected) = (number + 1, Some(number + 1));
            if jumps {
                let mut text = Vec::new();
                delivery_next(number, &mut text);
                self.send(&text);
            }
            // What is no event counts, too.
            let queue = if number % 7 == 0 && self.dropped.insert(number) { "" } else { "1:" };
            self.send(format!("{queue}{number}").as_bytes());
        }
    }

    fn connect(&mut self) {
        if self.talk.is_some() {
            self.cut();
        }
        self.slots += 1;
        let (shard, slot) = (self.random.random_range(0..self.shards.len()), self.slots);
        self.shards[shard].connect(self.now, id(slot));
        let (to_manager, to_agent) = Default::default();
        self.links.push(Link { shard, slot, to_manager, to_agent, is_held: true });
        self.talk = Some(Talk::default());
        let first = self.spool.first().copied().unwrap_or(self.next_number);
        self.send(&offer(SESSION, first));
    }

    /// The agent sees its connection break. The manager has what was on its way, or a part of it, and learns later.
    fn cut(&mut self) {
        if self.talk.take().is_some() {
            let link = self.links.last_mut().unwrap();
            let arrives = self.random.random_range(0..=link.to_manager.len());
            link.to_manager.truncate(arrives);
        }
    }

    fn manager_notices(&mut self) {
        let open = usize::from(self.talk.is_some());
        let old = self.links.len() - open;
        for link in self.links.drain(..old).filter(|link| link.is_held) {
            self.shards[link.shard].manager.on_closed(id(link.slot));
        }
    }

    fn manager_takes(&mut self, count: usize) {
        if self.links.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.links.len());
        for _ in 0..count {
            let link = &mut self.links[index];
            let Some(message) = link.to_manager.pop_front().filter(|_| link.is_held) else { return };
            self.shards[link.shard].receive(self.now, Peer::Connection(id(link.slot)), &message);
            self.act();
        }
    }

    fn hand_over(&mut self, count: usize) {
        let (shard, sink) =
            (self.random.random_range(0..self.shards.len()), self.random.random_range(0..SINKS_MAX));
        let got = self.shards[shard].hand_over(self.now, sink, count);
        self.got[sink].extend(got.iter().map(|text| text.parse::<u64>().unwrap()));
        self.act();
    }

    fn pass_time(&mut self) {
        self.now = self.now + Duration::from_millis(self.random.random_range(1..800));
        for shard in &mut self.shards {
            shard.manager.on_timeout(self.now);
        }
        self.act();
    }

    fn read_mail(&mut self) {
        for (shard, connection) in std::mem::take(&mut self.mail) {
            self.shards[shard].manager.close_mail(connection);
        }
        self.act();
    }

    /// What was not handed over is gone; the ledger is not.
    fn kill_manager(&mut self) {
        let book = Arc::clone(&self.shards[0].book);
        self.shards = Shard::all(2, &Settings::default(), &book);
        self.talk = None;
        self.links.clear();
        self.mail.clear();
    }

    /// Carries out what the managers want.
    fn act(&mut self) {
        for shard in 0..self.shards.len() {
            while let Some(action) = self.shards[shard].manager.next_action() {
                let at = |connection: ConnectionId| {
                    move |link: &&mut Link| (link.shard, link.slot) == (shard, connection.slot)
                };
                match action {
                    Action::Close { connection, reason: _ } => {
                        let link = self.links.iter_mut().find(at(connection)).unwrap();
                        link.is_held = false;
                        link.to_manager.clear();
                    }
                    Action::Mail { shard, connection } => self.mail.push((shard.0.into(), connection)),
                    Action::SendFrame { connection, bytes } => {
                        let link = self.links.iter_mut().find(at(connection)).unwrap();
                        link.to_agent.push_back(opened(&bytes[FRAME_HEADER_BYTES..]));
                    }
                    Action::Notice { .. } => {}
                    Action::Hold { .. } | Action::SendDatagram { .. } => panic!("{action:?}"),
                }
            }
        }
    }

    fn agent_reads(&mut self, count: usize) {
        for _ in 0..count {
            let Some(talk) = &mut self.talk else { return };
            let link = self.links.last_mut().unwrap();
            let Some(text) = link.to_agent.pop_front() else {
                if !link.is_held {
                    self.talk = None;
                }
                return;
            };
            if text == agreed(SESSION) {
                talk.is_agreed = true;
            } else if let Some(before) = text.strip_prefix("#!-ringmaster taken ") {
                let before: u64 = before.parse().unwrap();
                let given_before = *talk.given_before.get_or_insert(before);
                assert!(talk.is_agreed && before <= given_before.min(self.next_number), "not what was given");
                self.spool = self.spool.split_off(&before);
            } else {
                assert!(text == ACK && talk.is_agreed, "{text}");
            }
        }
    }
}
