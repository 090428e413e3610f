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
    /// What the store said of the run before.
    opened: State,
}

/// What is known of one agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Record {
    id: AgentId,
    counter: Counter,
    fingerprint: u64,
    /// Whether OSSEC's file says something else: only those are written.
    moved: bool,
    /// Whether the agent is in client.keys now. Who was removed may come back and go on counting here; OSSEC's file of an
    /// agent that is removed goes with it.
    listed: bool,
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
            opened: stored.state,
        };
        store.by_id = store.records.iter().enumerate().map(|(place, record)| (record.id, place)).collect();
        for entry in entries {
            let (id, fingerprint) = (entry.id, fingerprint(entry));
            let before = store.by_id.get(&id).map(|place| &store.records[*place]);
            let rid = rid(id.as_str());
            let counter = last_counter(stored.state, before, rid, fingerprint);
            // What the rids file does not say yet is written there at the stop, whether it moves again or not.
            let moved = counter != rid.unwrap_or(Counter::ZERO);
            store.remember(Record { id, counter, fingerprint, moved, listed: true });
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
        self.records.iter_mut().for_each(|record| record.listed = false);
        let place = |agent: &manager::Agent| {
            let (id, fingerprint) = (agent.entry().id, fingerprint(agent.entry()));
            match self.by_id.get(&id) {
                Some(place) if self.records[*place].fingerprint == fingerprint => {
                    self.records[*place].listed = true;
                    *place
                }
                Some(_) | None => {
                    let counter = Counter::ZERO;
                    self.remember(Record { id, counter, fingerprint, moved: true, listed: true })
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

    /// Forgets how far an agent has counted, in OSSEC's file too, which would count again after a kill. The caller has
    /// forgotten it in the table, and writes the store.
    ///
    /// # Errors
    /// When OSSEC's file can't be removed.
    pub fn forget(&mut self, id: AgentId) -> io::Result<()> {
        if let Some(place) = self.by_id.get(&id) {
            let record = &mut self.records[*place];
            (record.counter, record.moved) = (Counter::ZERO, true);
        }
        self.unwritten = true;
        self.rids.remove(id.as_str())
    }

    /// Takes what OSSEC's files in `folder` say of the agents that have one there, whatever the store says. The sender's
    /// counter only ever grows. Returns how many agents have one.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn import(&mut self, folder: &Path) -> io::Result<usize> {
        let rids = Rids::new(folder.to_owned());
        let present = rids.present()?;
        let mut taken = 0;
        for record in &mut self.records {
            let name = record.id.as_str();
            let Some(counter) = present.contains(name).then(|| rids.read(name)).flatten() else { continue };
            (record.counter, record.moved) = (counter, true);
            taken += 1;
        }
        self.sender = self.sender.max(rids.read(SENDER).unwrap_or(Counter::ZERO));
        Ok(taken)
    }

    /// Writes OSSEC's files of all agents that were ever heard, and of the sender, into `folder`. Returns how many agents.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn export(&self, folder: &Path) -> io::Result<usize> {
        let rids = Rids::new(folder.to_owned());
        let heard = self.records.iter().filter(|record| record.listed && record.counter != Counter::ZERO);
        let mut written = 0;
        for record in heard {
            rids.write(record.id.as_str(), record.counter)?;
            written += 1;
        }
        rids.write(SENDER, self.sender)?;
        Ok(written)
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes OSSEC's files of all agents of client.keys that moved, then the store as clean.
    ///
    /// # Errors
    /// When a file can't be written. The store then still says that it is not clean.
    pub fn close(&self) -> io::Result<()> {
        for record in self.records.iter().filter(|record| record.moved && record.listed) {
            self.rids.write(record.id.as_str(), record.counter)?;
        }
        self.rids.write(SENDER, self.sender)?;
        home::write_whole(&self.path, self.text(State::Clean).as_bytes())
    }

    /// Writes the store as it is now, and leaves standing whether the run before ended cleanly.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn rewrite(&self) -> io::Result<()> {
        home::write_whole(&self.path, self.text(self.opened).as_bytes())
    }

    fn text(&self, state: State) -> String {
        let mut text = String::with_capacity(LINE_BYTES * (self.records.len() + 2));
        writeln!(text, "{HEAD}{}\nsender {} {}", state.word(), self.sender.global, self.sender.local)
            .expect("a String takes all");
        for Record { id, counter, fingerprint, moved: _, listed: _ } in &self.records {
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
                            stored
                                .agents
                                .insert(id, Record { id, counter, fingerprint, moved: false, listed: false });
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
mod tests;
