//! The agents that may speak: an immutable snapshot of client.keys beside which each agent's state lives on.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use codec::{AgentId, CipherKey, Counter, KeyEntry};
use rustc_hash::FxHashMap;

use crate::state::AgentState;

/// The last accepted counters of agents, as they were stored; what is not in it begins at zero.
pub type CounterSeed = HashMap<AgentId, Counter>;

/// All agents of one client.keys. Shards share it as an `Arc`; a reload makes another one.
#[derive(Debug, Default)]
pub struct AgentTable {
    agents: Vec<Agent>,
    /// A stranger can look ids up and never insert one, so a fast hash is safe here.
    by_id: FxHashMap<AgentId, u32>,
    /// Agents whose key names a single host, by that host: they send no id. The others always send theirs, so a message
    /// of an unknown host costs one look-up however many networks client.keys names.
    by_address: FxHashMap<IpAddr, u32>,
}

/// One agent: its line of client.keys, what its messages are opened with, and its state.
pub struct Agent {
    index: u32,
    entry: KeyEntry,
    cipher_key: Arc<CipherKey>,
    state: Arc<AgentState>,
}

impl AgentTable {
    /// The table of `entries`. An agent of `previous` with the same id, name and key keeps its state and its key
    /// schedule; any other begins with its counter of `seed`. Of two with one id, or one address, the first wins.
    ///
    /// Costs about a microsecond an agent (three digests; nothing for those that are kept): not on a shard's thread.
    ///
    /// # Panics
    /// If there are more than 2^32 entries.
    pub fn build(entries: Vec<KeyEntry>, previous: Option<&AgentTable>, seed: &CounterSeed) -> AgentTable {
        let mut table = AgentTable::default();
        table.agents.reserve_exact(entries.len());
        table.by_id.reserve(entries.len());
        for entry in entries {
            let index = u32::try_from(table.agents.len()).expect("client.keys has less than 2^32 lines");
            if table.by_id.contains_key(&entry.id) {
                continue;
            }
            table.by_id.insert(entry.id, index);
            if let Some(host) = entry.address.single_host() {
                table.by_address.entry(host.to_canonical()).or_insert(index);
            }
            table.agents.push(Agent::new(index, entry, previous, seed));
        }
        table.invariants();
        table
    }

    /// All agents, in the order of client.keys.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// The agent with this id.
    pub fn by_id(&self, id: AgentId) -> Option<&Agent> {
        self.by_id.get(&id).map(|index| &self.agents[*index as usize])
    }

    /// The agent whose key names this one host. A v4-mapped address counts as IPv4.
    pub fn by_address(&self, address: IpAddr) -> Option<&Agent> {
        self.by_address.get(&address.to_canonical()).map(|index| &self.agents[*index as usize])
    }

    /// The agent at `index`, as [`Agent::index`] names it.
    ///
    /// # Panics
    /// If it is an index of another table and out of this one's range.
    pub fn agent(&self, index: u32) -> &Agent {
        &self.agents[index as usize]
    }

    fn invariants(&self) {
        assert_eq!(self.agents.len(), self.by_id.len(), "each agent is found by its id, and only by its own");
        assert!(self.by_address.len() <= self.agents.len(), "no address without an agent");
    }
}

impl Agent {
    fn new(index: u32, entry: KeyEntry, previous: Option<&AgentTable>, seed: &CounterSeed) -> Agent {
        let kept = previous
            .and_then(|table| table.by_id(entry.id))
            .filter(|agent| agent.entry.name == entry.name && agent.entry.key == entry.key);
        let (cipher_key, state) = match kept {
            Some(agent) => (Arc::clone(&agent.cipher_key), Arc::clone(&agent.state)),
            None => {
                let last = seed.get(&entry.id).copied().unwrap_or(Counter::ZERO);
                let cipher_key = CipherKey::new(&entry.name, entry.id.as_str(), &entry.key);
                (Arc::new(cipher_key), Arc::new(AgentState::new(last)))
            }
        };
        Agent { index, entry, cipher_key, state }
    }

    /// Its place in the table, from 0; another one after a reload.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its line of client.keys.
    pub fn entry(&self) -> &KeyEntry {
        &self.entry
    }

    /// What its messages are sealed with.
    pub fn cipher_key(&self) -> &CipherKey {
        &self.cipher_key
    }

    /// What is known about it; outlives this table.
    pub fn state(&self) -> &Arc<AgentState> {
        &self.state
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
            Arc::ptr_eq(old.state(), new.state()) && Arc::ptr_eq(&old.cipher_key, &new.cipher_key)
        };
        assert!(kept("001"), "another address is the same agent");
        assert!(!kept("002"), "the name is part of the key");
        assert!(!kept("003"));
        assert_eq!(new.by_id(id("001")).unwrap().state.replay().highest(), Counter::ZERO, "kept, not seeded");
        let seeded = AgentTable::build(entries("001 one any k1\n"), None, &seed);
        assert_eq!(seeded.agents()[0].state.replay().highest(), Counter { global: 7, local: 7 });
    }
}
