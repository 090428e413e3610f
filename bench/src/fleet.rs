//! Fleets: the entries, keys and tables of many agents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use codec::{CipherKey, KeyEntry, KeyFile, Method, Sealer};
use manager::{AgentTable, CounterSeed};

use crate::messages::seal_one;

/// A fleet's keys, ids counted from 1. All schedules are made, so that no bench measures that by accident.
pub fn fleet_keys(agents: usize) -> Vec<CipherKey> {
    let keys = unscheduled_keys(agents);
    make_schedules(keys.iter());
    keys
}

/// The keys of a fleet that is made once for each size and cipher, and shared by all benches of a binary: 100,000 Blowfish
/// schedules take 417 MB and 2.6 s. A fleet on AES has none.
pub fn shared_keys(agents: usize, method: Method) -> Arc<Vec<CipherKey>> {
    type Fleets = HashMap<(usize, bool), Arc<Vec<CipherKey>>>;
    static FLEETS: Mutex<Option<Fleets>> = Mutex::new(None);
    let mut fleets = FLEETS.lock().unwrap_or_else(PoisonError::into_inner);
    let scheduled = method == Method::Blowfish;
    let fleet = fleets.get_or_insert_default().entry((agents, scheduled));
    let make = || if scheduled { fleet_keys(agents) } else { unscheduled_keys(agents) };
    Arc::clone(fleet.or_insert_with(|| Arc::new(make())))
}

/// The entries of a fleet's client.keys: every agent may come from anywhere, and so sends its id.
///
/// # Panics
/// If there are more agents than ids of eight digits.
pub fn fleet_entries(agents: usize) -> Vec<KeyEntry> {
    let lines: String = (1..=agents).map(line).collect();
    let file = KeyFile::parse(lines.as_bytes());
    assert_eq!((file.entries.len(), file.problems.len()), (agents, 0), "every line is an agent");
    file.entries
}

/// A fleet's table; with its schedules, if its agents will use Blowfish.
pub fn fleet_table(agents: usize, method: Method) -> Arc<AgentTable> {
    let table = AgentTable::build(fleet_entries(agents), None, &CounterSeed::new());
    if method == Method::Blowfish {
        make_schedules(table.agents().iter().map(|agent| agent.cipher_key()));
    }
    Arc::new(table)
}

fn line(number: usize) -> String {
    format!("{number:03} web{number:05} any {number:064x}\n")
}

fn unscheduled_keys(agents: usize) -> Vec<CipherKey> {
    let key = |number| {
        CipherKey::new(&format!("web{number:05}"), &format!("{number:03}"), &format!("{number:064x}"))
    };
    (1..=agents).map(key).collect()
}

/// In the order of the agents, so that their places in memory say nothing about when each is used.
fn make_schedules<'a>(keys: impl Iterator<Item = &'a CipherKey>) {
    let (mut sealer, mut out) = (Sealer::new(), Vec::new());
    for key in keys {
        out.clear();
        seal_one(&mut sealer, key, Method::Blowfish, b"1:warm:up", &mut out);
    }
}
