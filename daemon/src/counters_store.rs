//! The message counters on disk: what was accepted of each agent last, and what was sent last.
//!
//! `queue/ringmaster/counters` is rewritten each second when something moved, whole or not at all, so a process that
//! is killed loses at most the last second. Its first line says whether the program that wrote it ended cleanly:
//!
//! ```text
//! ringmaster counters 1 running          or: clean
//! sender <global> <local>
//! <agent id> <global> <local> <fingerprint of name and key>
//! ```
//!
//! OSSEC's own files, `queue/rids/<agent id>` and `queue/rids/sender_counter`, are read at the start and written at a
//! clean stop, so that ossec-remoted and ringmaster can take turns on one home. Which one counts at the start:
//!
//! | the store says | an agent's counter                    | the sender's counter               |
//! |----------------|---------------------------------------|------------------------------------|
//! | nothing        | its rids file                         | sender_counter + margin            |
//! | clean          | its rids file; deleted means reset    | the greater of both                |
//! | running        | the greater of both                   | the greater of both + margin       |
//!
//! An agent whose name or key is another one now starts from nothing: the old counters belong to an old key, with
//! which nothing can be opened any more.

use std::{
    collections::HashMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use codec::{AgentId, Counter, KeyEntry, limits::LOCAL_COUNTER_MAX};
use manager::{AgentTable, CounterSeed};

use crate::{
    home::{self, Home},
    rids::{Rids, SENDER},
};

/// The counters of all agents that were ever heard, and where they are kept.
#[derive(Debug)]
pub struct CounterStore {
    path: PathBuf,
    rids: Rids,
    records: Vec<Record>,
    /// Where in `records` an agent is.
    by_id: HashMap<AgentId, usize>,
    /// The table that was collected from last, and for each of its agents the place in `records`: what is done each
    /// second for a whole fleet looks nothing up.
    collected: (Arc<AgentTable>, Vec<usize>),
    sender: Counter,
    unwritten: bool,
}

/// What is known of one agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Record {
    id: AgentId,
    counter: Counter,
    fingerprint: u64,
    /// Whether OSSEC's file says something else: only those are written.
    moved: bool,
}

impl CounterStore {
    /// Reads what the last run left, by the table above. Lines that can't be read are skipped and returned.
    ///
    /// # Errors
    /// When the store or the folder of rids is there and can't be read.
    pub fn open(
        home: &Home,
        entries: &[KeyEntry],
        unclean_margin: u32,
    ) -> io::Result<(CounterStore, Vec<String>)> {
        let path = home.path().join("queue/ringmaster/counters");
        let rids = Rids::new(home.path().join("queue/rids"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut problems = Vec::new();
        let stored = match &text {
            None => Stored::default(),
            Some(text) => Stored::parse(text, |line, problem| {
                problems.push(format!("{}:{line}: {problem}", path.display()));
            }),
        };
        let present = rids.present()?;
        let rid = |name: &str| present.contains(name).then(|| rids.read(name)).flatten();

        let sender = first_sender(stored.state, stored.sender, rid(SENDER), unclean_margin);
        let mut store = CounterStore {
            path,
            rids: rids.clone(),
            records: stored.agents.into_values().collect(),
            by_id: HashMap::new(),
            collected: (Arc::default(), Vec::new()),
            sender,
            unwritten: true,
        };
        store.by_id = store.records.iter().enumerate().map(|(place, record)| (record.id, place)).collect();
        for entry in entries {
            let (id, fingerprint) = (entry.id, fingerprint(entry));
            let before = store.by_id.get(&id).map(|place| &store.records[*place]);
            let rid = rid(id.as_str());
            let counter = last_counter(stored.state, before, rid, fingerprint);
            // What the rids file does not say yet is written there at the stop, whether it moves again or not.
            let moved = counter != rid.unwrap_or(Counter::ZERO);
            store.remember(Record { id, counter, fingerprint, moved });
        }
        Ok((store, problems))
    }

    /// The last counters of these agents, for the table's first and every later build.
    pub fn seed(&self, entries: &[KeyEntry]) -> CounterSeed {
        let known = |entry: &KeyEntry| {
            let known = &self.records[*self.by_id.get(&entry.id)?];
            (known.fingerprint == fingerprint(entry)).then_some((entry.id, known.counter))
        };
        entries.iter().filter_map(known).collect()
    }

    /// What the sender's counter goes on from.
    pub fn sender(&self) -> Counter {
        self.sender
    }

    /// Takes in how far agents and sender have moved.
    pub fn collect(&mut self, table: &Arc<AgentTable>, sender: Counter) {
        if !Arc::ptr_eq(&self.collected.0, table) {
            self.adopt(table);
        }
        for (agent, place) in table.agents().iter().zip(&self.collected.1) {
            let (record, counter) = (&mut self.records[*place], agent.state().replay().highest());
            if record.counter != counter {
                (record.counter, record.moved) = (counter, true);
                self.unwritten = true;
            }
        }
        self.unwritten |= sender != self.sender;
        self.sender = sender;
    }

    /// Finds the place of each agent of another table. One that is new, or has another key, begins anew, and a file
    /// that OSSEC may have of its id no longer counts.
    fn adopt(&mut self, table: &Arc<AgentTable>) {
        let place = |agent: &manager::Agent| {
            let (id, fingerprint) = (agent.entry().id, fingerprint(agent.entry()));
            match self.by_id.get(&id) {
                Some(place) if self.records[*place].fingerprint == fingerprint => *place,
                Some(_) | None => {
                    self.remember(Record { id, counter: Counter::ZERO, fingerprint, moved: true })
                }
            }
        };
        let places = table.agents().iter().map(place).collect();
        self.collected = (Arc::clone(table), places);
    }

    /// Takes the place of what was known of this agent. Returns where it is.
    fn remember(&mut self, record: Record) -> usize {
        let place = *self.by_id.entry(record.id).or_insert(self.records.len());
        if place == self.records.len() {
            self.records.push(record);
        } else {
            self.records[place] = record;
        }
        place
    }

    /// The store's text if it differs from what was written last; the caller writes it to [`CounterStore::path`],
    /// whole or not at all, and calls [`CounterStore::not_written`] if it could not.
    pub fn unwritten(&mut self) -> Option<String> {
        std::mem::take(&mut self.unwritten).then(|| self.text(State::Running))
    }

    /// The text of the last [`CounterStore::unwritten`] did not reach the disk.
    pub fn not_written(&mut self) {
        self.unwritten = true;
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes OSSEC's files of all agents that moved, then the store as clean.
    ///
    /// # Errors
    /// When a file can't be written. The store then still says that it is not clean.
    pub fn close(&self) -> io::Result<()> {
        for record in self.records.iter().filter(|record| record.moved) {
            self.rids.write(record.id.as_str(), record.counter)?;
        }
        self.rids.write(SENDER, self.sender)?;
        home::write_whole(&self.path, self.text(State::Clean).as_bytes())
    }

    fn text(&self, state: State) -> String {
        let mut text = String::with_capacity(LINE_BYTES * (self.records.len() + 2));
        writeln!(text, "{HEAD}{}\nsender {} {}", state.word(), self.sender.global, self.sender.local)
            .expect("a String takes all");
        for Record { id, counter, fingerprint, moved: _ } in &self.records {
            if *counter != Counter::ZERO {
                writeln!(text, "{} {} {} {fingerprint:016x}", id.as_str(), counter.global, counter.local)
                    .expect("a String takes all");
            }
        }
        text
    }
}

/// A line of the longest counter: id, global, local, fingerprint.
const LINE_BYTES: usize = 8 + 1 + 10 + 1 + 4 + 1 + 16 + 1;

/// How the program that wrote the store ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// There is no store.
    #[default]
    Absent,
    /// It wrote everything before it ended.
    Clean,
    /// It did not come to that.
    Running,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Absent | State::Running => "running",
            State::Clean => "clean",
        }
    }
}

const HEAD: &str = "ringmaster counters 1 ";

/// The store's file, read.
#[derive(Debug, Default)]
struct Stored {
    state: State,
    sender: Option<Counter>,
    agents: HashMap<AgentId, Record>,
}

impl Stored {
    fn parse(text: &str, mut problem: impl FnMut(usize, &str)) -> Stored {
        let mut lines = text.lines().enumerate();
        // Whatever else the head may be: it is not the word of a program that ended cleanly.
        let clean =
            lines.next().is_some_and(|(_, head)| head.strip_prefix(HEAD) == Some(State::Clean.word()));
        let mut stored =
            Stored { state: if clean { State::Clean } else { State::Running }, ..Stored::default() };
        for (index, line) in lines {
            let fields: Vec<&str> = line.split(' ').collect();
            let counter = |global: &str, local: &str| {
                Some(Counter { global: global.parse().ok()?, local: local.parse().ok()? })
            };
            match *fields.as_slice() {
                ["sender", global, local] if counter(global, local).is_some() => {
                    stored.sender = counter(global, local);
                }
                [id, global, local, fingerprint] => {
                    let fingerprint = u64::from_str_radix(fingerprint, 16);
                    match (id.parse(), counter(global, local), fingerprint) {
                        (Ok(id), Some(counter), Ok(fingerprint)) => {
                            stored.agents.insert(id, Record { id, counter, fingerprint, moved: false });
                        }
                        (Ok(_) | Err(_), Some(_) | None, Ok(_) | Err(_)) => {
                            problem(index + 1, "no counter; skipped");
                        }
                    }
                }
                _ => problem(index + 1, "no counter; skipped"),
            }
        }
        stored
    }
}

fn last_counter(state: State, stored: Option<&Record>, rid: Option<Counter>, fingerprint: u64) -> Counter {
    let rid = rid.unwrap_or(Counter::ZERO);
    match (state, stored) {
        (State::Clean | State::Running, Some(stored)) if stored.fingerprint != fingerprint => Counter::ZERO,
        (State::Running, Some(stored)) => rid.max(stored.counter),
        (State::Absent | State::Clean, Some(_)) | (State::Absent | State::Clean | State::Running, None) => {
            rid
        }
    }
}

fn first_sender(state: State, stored: Option<Counter>, rid: Option<Counter>, unclean_margin: u32) -> Counter {
    let last = stored.max(rid);
    match (state, last) {
        (State::Clean, last) => last.unwrap_or(Counter::ZERO),
        (State::Absent, None) => Counter::ZERO,
        (State::Absent, Some(last)) => ahead(last, unclean_margin),
        (State::Running, last) => ahead(last.unwrap_or(Counter::ZERO), unclean_margin),
    }
}

/// A counter that is at least `messages` further on.
fn ahead(counter: Counter, messages: u32) -> Counter {
    let globals = messages.div_ceil(u32::from(LOCAL_COUNTER_MAX));
    Counter { global: counter.global.saturating_add(globals), local: counter.local }
}

/// Tells keys apart across restarts (FNV-1a of name and key). It protects nothing and has to hide nothing: it is kept
/// beside client.keys, for the same eyes.
fn fingerprint(entry: &KeyEntry) -> u64 {
    let bytes = entry.name.bytes().chain([0]).chain(entry.key.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(global: u32, local: u16) -> Counter {
        Counter { global, local }
    }

    #[test]
    fn which_counter_of_an_agent_counts() {
        let id: AgentId = "001".parse().unwrap();
        let stored =
            |global, fingerprint| Record { id, counter: counter(global, 1), fingerprint, moved: false };
        let check = |state, stored: Option<Record>, rid: Option<u32>, expected: u32| {
            let rid = rid.map(|global| counter(global, 1));
            let found = last_counter(state, stored.as_ref(), rid, 7);
            assert_eq!(found.global, expected, "{state:?} {stored:?} {rid:?}");
        };
        check(State::Absent, None, None, 0);
        check(State::Absent, None, Some(4), 4);
        check(State::Clean, Some(stored(9, 7)), Some(4), 4);
        check(State::Clean, Some(stored(9, 7)), Some(12), 12);
        check(State::Clean, Some(stored(9, 7)), None, 0);
        check(State::Clean, None, Some(4), 4);
        check(State::Running, Some(stored(9, 7)), Some(4), 9);
        check(State::Running, Some(stored(9, 7)), Some(12), 12);
        check(State::Running, Some(stored(9, 7)), None, 9);
        check(State::Running, None, Some(4), 4);
        check(State::Clean, Some(stored(9, 8)), Some(9), 0);
        check(State::Running, Some(stored(9, 8)), Some(9), 0);
    }

    #[test]
    fn the_sender_never_goes_back() {
        let check = |state, stored: Option<u32>, rid: Option<u32>, expected: u32| {
            let (stored, rid) =
                (stored.map(|global| counter(global, 5)), rid.map(|global| counter(global, 5)));
            let first = first_sender(state, stored, rid, 20_000);
            assert_eq!(first.global, expected, "{state:?} {stored:?} {rid:?}");
        };
        check(State::Absent, None, None, 0);
        check(State::Absent, None, Some(3), 6);
        check(State::Clean, Some(3), Some(2), 3);
        check(State::Clean, Some(3), Some(8), 8);
        check(State::Running, Some(3), Some(2), 6);
        check(State::Running, Some(3), Some(8), 11);
        check(State::Running, None, None, 3);
        assert_eq!(ahead(counter(u32::MAX, 4), 20_000), counter(u32::MAX, 4));
    }

    fn entries(keys: &str) -> Vec<KeyEntry> {
        codec::KeyFile::parse(keys.as_bytes()).entries
    }

    /// Opens the store as a start does, moves one agent's counter on, and hands everything back.
    fn run(home: &Home, keys: &str) -> (CounterStore, Arc<AgentTable>) {
        let entries = entries(keys);
        let (store, problems) = CounterStore::open(home, &entries, 10_000).unwrap();
        assert_eq!(problems, Vec::<String>::new());
        let seed = store.seed(&entries);
        (store, Arc::new(AgentTable::build(entries, None, &seed)))
    }

    fn highest(table: &AgentTable, id: &str) -> Counter {
        table.by_id(id.parse().unwrap()).unwrap().state().replay().highest()
    }

    fn accept(table: &AgentTable, id: &str, counter: Counter) {
        let agent = table.by_id(id.parse().unwrap()).unwrap();
        agent.state().replay().accept(manager::ReplayPolicy::Strict, counter).unwrap();
    }

    #[test]
    fn counters_survive_a_kill_and_a_clean_stop() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        let keys = "001 one any k1\n002 two any k2\n";

        let (mut store, table) = run(&home, keys);
        accept(&table, "001", counter(3, 9));
        store.collect(&table, counter(0, 4));
        let text = store.unwritten().unwrap();
        home::write_whole(store.path(), text.as_bytes()).unwrap();
        store.collect(&table, counter(0, 4));
        assert_eq!(store.unwritten(), None, "nothing moved");

        let (mut store, table) = run(&home, keys);
        assert_eq!(highest(&table, "001"), counter(3, 9), "after a kill");
        assert_eq!(store.sender(), counter(2, 4), "after a kill");
        accept(&table, "001", counter(3, 10));
        store.collect(&table, counter(2, 5));
        store.close().unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("queue/rids/001")).unwrap(), "3:10:");
        assert!(!folder.path().join("queue/rids/002").exists(), "it never moved");
        assert_eq!(fs::read_to_string(folder.path().join("queue/rids/sender_counter")).unwrap(), "2:5:");

        let (store, table) = run(&home, keys);
        assert_eq!(highest(&table, "001"), counter(3, 10), "after a clean stop");
        assert_eq!(store.sender(), counter(2, 5), "after a clean stop");

        fs::remove_file(folder.path().join("queue/rids/001")).unwrap();
        let (_, table) = run(&home, keys);
        assert_eq!(highest(&table, "001"), Counter::ZERO, "the operator deleted it after a clean stop");
    }

    #[test]
    fn another_key_starts_from_nothing_and_an_old_key_that_comes_back_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        let (mut store, table) = run(&home, "001 one any k1\n");
        accept(&table, "001", counter(3, 9));
        store.collect(&table, Counter::ZERO);
        assert!(store.seed(&entries("001 one any other\n")).is_empty());
        let back = store.seed(&entries("001 one any k1\n"));
        assert_eq!(back.values().copied().collect::<Vec<_>>(), [counter(3, 9)]);
    }

    #[test]
    fn a_key_that_is_replaced_while_running_starts_from_nothing_after_a_stop_too() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        let (mut store, table) = run(&home, "001 one any k1\n");
        accept(&table, "001", counter(3, 9));
        store.collect(&table, Counter::ZERO);
        store.close().unwrap();
        let (mut store, table) = run(&home, "001 one any k1\n");
        store.collect(&table, Counter::ZERO);

        let keys = entries("001 one any other\n");
        let seed = store.seed(&keys);
        let table = Arc::new(AgentTable::build(keys, Some(&table), &seed));
        store.collect(&table, Counter::ZERO);
        store.close().unwrap();
        let (_, table) = run(&home, "001 one any other\n");
        assert_eq!(highest(&table, "001"), Counter::ZERO);
    }

    #[test]
    fn a_damaged_store_is_read_as_far_as_possible_and_never_as_clean() {
        let mut problems = Vec::new();
        let text = "ringmaster counters 1 cle\nsender x 1\n001 1 2 00ff\n002 1\n\n003 1 2 zz\n";
        let stored = Stored::parse(text, |line, _| problems.push(line));
        assert_eq!(stored.state, State::Running);
        assert_eq!(stored.agents.len(), 1);
        assert_eq!(problems, [2, 4, 5, 6]);
    }
}
