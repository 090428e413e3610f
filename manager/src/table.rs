//! The agents that may speak: an immutable snapshot of client.keys beside which each agent's state lives on.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::{AddressRule, AgentId, CipherKey, Counter, KeyEntry, Origin};
use rustc_hash::FxHashMap;

use crate::ids::IdIndex;
use crate::state::AgentState;

/// The last accepted counters of agents, as they were stored; what is not in it begins at zero.
pub type CounterSeed = HashMap<AgentId, Counter>;

/// All agents of one client.keys. Shards share it as an `Arc`; a reload makes another one.
#[derive(Debug, Default)]
pub struct AgentTable {
    agents: Vec<Agent>,
    by_id: IdIndex,
    /// Agents whose key names a single host, by that host: they send no id. The others always send theirs, so a message
    /// of an unknown host costs one look-up however many networks client.keys names. A stranger can look addresses up and
    /// never insert one, so a fast hash is safe here.
    by_address: FxHashMap<IpAddr, u32>,
    number: TableNumber,
    /// What became of each agent of the table before.
    since: Since,
}

/// Which table it is: each that is built in a process has its own number. 0: the empty one, which nothing is built on.
type TableNumber = u64;

/// The table that another was built on, and what became of each of its agents, by their places there.
#[derive(Debug, Default)]
struct Since {
    table: TableNumber,
    kept: Vec<Kept>,
}

/// What became of one agent in the next table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    /// It is another one now, or none.
    No,
    /// It is at this place, and may come from where it might before.
    Same(u32),
    /// It is at this place, and its address is another one.
    Moved(u32),
}

/// One agent: its line of client.keys, what its messages are opened with, and its state.
pub struct Agent {
    hot: Hot,
    entry: KeyEntry,
}

/// What a message of an agent needs of it: one cache line, so that a batch of messages waits for one each.
#[repr(align(64))]
struct Hot {
    cipher_key: Arc<CipherKey>,
    state: Arc<AgentState>,
    /// Its name, and its address as a location names it.
    name_and_address: Box<str>,
    name_bytes: u8,
    /// Its address rule is `any`.
    admits_all: bool,
    id: AgentId,
    index: u32,
}

const _: () = assert!(size_of::<Hot>() == 64);
const _: () = assert!(codec::limits::AGENT_NAME_BYTES_MAX <= u8::MAX as usize);

impl AgentTable {
    /// The table of `entries`. An agent of `previous` with the same id, name and key keeps its state and its key
    /// schedule; any other begins with its counter of `seed`. Of two with one id, or one address, the first wins.
    ///
    /// Costs about a microsecond an agent (three digests; nothing for those that are kept): not on a shard's thread.
    ///
    /// # Panics
    /// If there are 2^32 - 1 entries or more.
    pub fn build(entries: Vec<KeyEntry>, previous: Option<&AgentTable>, seed: &CounterSeed) -> AgentTable {
        static TABLES: AtomicU64 = AtomicU64::new(0);
        let mut table = AgentTable {
            agents: Vec::with_capacity(entries.len()),
            by_id: IdIndex::with_room(entries.len()),
            by_address: FxHashMap::default(),
            number: TABLES.fetch_add(1, Ordering::Relaxed) + 1,
            since: Since::of(previous),
        };
        for entry in entries {
            let index = u32::try_from(table.agents.len()).expect("client.keys has less than 2^32 lines");
            if !table.by_id.insert(entry.id, index) {
                continue;
            }
            if let Some(host) = entry.address.single_host() {
                table.by_address.entry(host.to_canonical()).or_insert(index);
            }
            let kept = previous.and_then(|previous| previous.same(&entry));
            if let Some(before) = kept {
                let same_address = before.entry.address == entry.address;
                table.since.kept[before.hot.index as usize] =
                    if same_address { Kept::Same(index) } else { Kept::Moved(index) };
            }
            table.agents.push(Agent::new(index, entry, kept, seed));
        }
        table.invariants();
        table
    }

    /// All agents, in the order of client.keys.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// The agent with this id.
    #[inline]
    pub fn by_id(&self, id: AgentId) -> Option<&Agent> {
        self.place_of(id).map(|index| self.agent(index))
    }

    /// The agent whose key names this one host. A v4-mapped address counts as IPv4.
    pub fn by_address(&self, address: IpAddr) -> Option<&Agent> {
        self.place_at(address).map(|index| self.agent(index))
    }

    /// The agent at `index`, as [`Agent::index`] names it.
    ///
    /// # Panics
    /// If it is an index of another table and out of this one's range.
    #[inline]
    pub fn agent(&self, index: u32) -> &Agent {
        &self.agents[index as usize]
    }

    /// [`AgentTable::by_id`] without a look at the agent, which may have to come from memory.
    #[inline]
    pub(crate) fn place_of(&self, id: AgentId) -> Option<u32> {
        self.by_id.find(id)
    }

    /// [`AgentTable::by_address`] without a look at the agent.
    pub(crate) fn place_at(&self, address: IpAddr) -> Option<u32> {
        self.by_address.get(&address.to_canonical()).copied()
    }

    /// What became of the agent at `index` of `before` in this table.
    pub(crate) fn kept(&self, before: &AgentTable, index: u32) -> Kept {
        if self.since.table == before.number && self.since.table != 0 {
            return self.since.kept[index as usize];
        }
        // A table in between was never seen: what it knew must be found out.
        let before = before.agent(index);
        match self.by_id(before.id()) {
            Some(after) if !Arc::ptr_eq(before.state(), after.state()) => Kept::No,
            Some(after) if before.entry.address == after.entry.address => Kept::Same(after.index()),
            Some(after) => Kept::Moved(after.index()),
            None => Kept::No,
        }
    }

    /// The agent that `entry` means here, if it is the same: same id, same name, same key.
    fn same(&self, entry: &KeyEntry) -> Option<&Agent> {
        self.by_id(entry.id).filter(|agent| agent.entry.name == entry.name && agent.entry.key == entry.key)
    }

    fn invariants(&self) {
        assert_eq!(self.agents.len(), self.by_id.len(), "each agent is found by its id, and only by its own");
        assert!(self.by_address.len() <= self.agents.len(), "no address without an agent");
    }
}

impl Since {
    fn of(previous: Option<&AgentTable>) -> Since {
        match previous {
            None => Since::default(),
            Some(table) => Since { table: table.number, kept: vec![Kept::No; table.agents.len()] },
        }
    }
}

impl Agent {
    fn new(index: u32, entry: KeyEntry, kept: Option<&Agent>, seed: &CounterSeed) -> Agent {
        let (cipher_key, state) = match kept {
            Some(agent) => (Arc::clone(&agent.hot.cipher_key), Arc::clone(&agent.hot.state)),
            None => {
                let last = seed.get(&entry.id).copied().unwrap_or(Counter::ZERO);
                let cipher_key = CipherKey::new(&entry.name, entry.id.as_str(), &entry.key);
                (Arc::new(cipher_key), Arc::new(AgentState::new(last)))
            }
        };
        let hot = Hot {
            cipher_key,
            state,
            name_and_address: format!("{}{}", entry.name, entry.address.location_text()).into(),
            name_bytes: u8::try_from(entry.name.len()).expect("client.keys has no longer names"),
            admits_all: entry.address == AddressRule::any(),
            id: entry.id,
            index,
        };
        Agent { hot, entry }
    }

    /// Its place in the table, from 0; another one after a reload.
    #[inline]
    pub fn index(&self) -> u32 {
        self.hot.index
    }

    /// Its id.
    #[inline]
    pub fn id(&self) -> AgentId {
        self.hot.id
    }

    /// Its line of client.keys. For what happens seldom: it lies beside what a message needs.
    pub fn entry(&self) -> &KeyEntry {
        &self.entry
    }

    /// Who it is, for whoever takes its events.
    #[inline]
    pub fn origin(&self) -> Origin<'_> {
        let (name, address) = self.hot.name_and_address.split_at(usize::from(self.hot.name_bytes));
        Origin { id: self.hot.id, name, address }
    }

    /// Whether it may come from this address.
    #[inline]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.hot.admits_all || self.entry.address.matches(address)
    }

    /// What its messages are sealed with.
    #[inline]
    pub fn cipher_key(&self) -> &CipherKey {
        &self.hot.cipher_key
    }

    /// What is known about it; outlives this table.
    #[inline]
    pub fn state(&self) -> &Arc<AgentState> {
        &self.hot.state
    }

    /// Has the processor fetch the agent itself. Agents of a batch are fetched in one loop, in which no agent waits for
    /// the one before it; later loops find them in the cache.
    #[inline]
    pub(crate) fn touch(&self) {
        black_box(self.hot.index);
    }

    /// The same for what the agent points to; the agent itself should have come by then.
    #[inline]
    pub(crate) fn touch_parts(&self) {
        self.hot.cipher_key.touch();
        black_box(self.hot.state.method());
        black_box(self.hot.name_and_address.as_bytes().first());
    }
}

impl fmt::Debug for Agent {
    /// Without the key: this may end up in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Agent")
            .field("id", &self.entry.id)
            .field("name", &self.entry.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(file: &str) -> Vec<KeyEntry> {
        codec::KeyFile::parse(file.as_bytes()).entries
    }

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    #[test]
    fn looks_up_by_id_and_by_address() {
        let file = "001 one any k1\n1 other 10.0.0.0/8 k2\n002 two 192.0.2.2 k3\n003 three 192.0.2.2 k4\n\
                    004 four 2001:db8::4 k5\n";
        let table = AgentTable::build(entries(file), None, &CounterSeed::new());
        let name_by_id = |text| table.by_id(id(text)).map(|agent| &*agent.entry.name);
        let name_by_address =
            |text: &str| table.by_address(text.parse().unwrap()).map(|agent| &*agent.entry.name);
        assert_eq!(name_by_id("001"), Some("one"));
        assert_eq!(name_by_id("1"), Some("other"));
        assert_eq!(name_by_id("0001"), None);
        assert_eq!(name_by_address("192.0.2.2"), Some("two"), "the first of one address");
        assert_eq!(name_by_address("::ffff:192.0.2.2"), Some("two"));
        assert_eq!(name_by_address("2001:db8::4"), Some("four"));
        assert_eq!(name_by_address("10.1.2.3"), None, "agents of a network send their id");
    }

    #[test]
    fn a_reload_keeps_what_did_not_change() {
        let seed = CounterSeed::from([(id("001"), Counter { global: 7, local: 7 })]);
        let old = AgentTable::build(
            entries("001 one any k1\n002 two any k2\n003 three any k3\n"),
            None,
            &CounterSeed::new(),
        );
        let file = "004 four any k4\n003 three any other\n002 renamed any k2\n001 one 192.0.2.1 k1\n";
        let new = AgentTable::build(entries(file), Some(&old), &seed);
        let kept = |text| {
            let (old, new) = (old.by_id(id(text)).unwrap(), new.by_id(id(text)).unwrap());
            Arc::ptr_eq(old.state(), new.state()) && Arc::ptr_eq(&old.hot.cipher_key, &new.hot.cipher_key)
        };
        assert!(kept("001"), "another address is the same agent");
        assert!(!kept("002"), "the name is part of the key");
        assert!(!kept("003"));
        assert_eq!(
            new.by_id(id("001")).unwrap().state().replay().highest(),
            Counter::ZERO,
            "kept, not seeded"
        );
        let seeded = AgentTable::build(entries("001 one any k1\n"), None, &seed);
        assert_eq!(seeded.agents()[0].state().replay().highest(), Counter { global: 7, local: 7 });
    }

    #[test]
    fn a_table_knows_what_became_of_the_agents_before_it() {
        let build = |file: &str, previous: Option<&AgentTable>| {
            AgentTable::build(entries(file), previous, &CounterSeed::new())
        };
        let first = build("001 one any k1\n002 two any k2\n003 three any k3\n004 four any k4\n", None);
        // Gone, renamed, at another address, and at another place.
        let file = "004 four any k4\n003 three 10.0.0.0/8 k3\n002 renamed any k2\n005 five any k5\n";
        let second = build(file, Some(&first));
        let third = build(file, Some(&second));
        let (empty, stranger) = (AgentTable::default(), build(file, None));
        let kept = |after: &AgentTable, before: &AgentTable| -> Vec<Kept> {
            before.agents().iter().map(|agent| after.kept(before, agent.index())).collect()
        };
        let expected = [Kept::No, Kept::No, Kept::Moved(1), Kept::Same(0)];
        assert_eq!(kept(&second, &first), expected, "as it was built");
        assert_eq!(kept(&third, &first), expected, "found out, with a table in between");
        assert_eq!(kept(&third, &second), [0, 1, 2, 3].map(Kept::Same));
        assert_eq!(kept(&stranger, &first), [Kept::No; 4], "the same lines, other states");
        assert_eq!(kept(&empty, &first), [Kept::No; 4]);
    }

    #[test]
    fn an_old_table_gives_back_only_what_no_newer_one_has() {
        let old = AgentTable::build(entries("001 one any k1\n002 two any k2\n"), None, &CounterSeed::new());
        let new = AgentTable::build(entries("002 two any k2\n"), Some(&old), &CounterSeed::new());
        let keys = [0, 1].map(|index| Arc::downgrade(&old.agent(index).hot.cipher_key));
        assert!(
            std::ptr::eq(old.agent(1).cipher_key(), new.agent(0).cipher_key()),
            "one key schedule for both"
        );
        drop(old);
        assert_eq!(keys.map(|key| key.strong_count()), [0, 1]);
    }

    #[test]
    fn who_an_agent_is_comes_from_its_line() {
        let file = "001 one any k1\n12345 two 10.0.0.0/8 k2\n0003 three !192.0.2.1 k3\n";
        let table = AgentTable::build(entries(file), None, &CounterSeed::new());
        for agent in table.agents() {
            let (entry, origin) = (agent.entry(), agent.origin());
            assert_eq!((agent.id(), origin.id), (entry.id, entry.id));
            assert_eq!((origin.name, origin.address), (&*entry.name, entry.address.location_text()));
            for address in ["192.0.2.1", "10.1.2.3", "2001:db8::1"] {
                let address: IpAddr = address.parse().unwrap();
                assert_eq!(agent.admits(address), entry.address.matches(address), "{agent:?} {address}");
            }
        }
    }
}
