//! Who the agents are: a line of client.keys each, made up for the embedded manager or read from any other's file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use codec::{CipherKey, Counter, KeyEntry, KeyFile, Method};

use crate::cli::{CipherName, Dialect};
use crate::plan::mix;

/// An agent's messages are this far apart in its counter, so that what it says by itself fits between two events.
const COUNTER_STRIDE: u64 = 16;
/// Numbers before the global part of a counter moves.
const LOCAL_NUMBERS: u64 = codec::limits::LOCAL_COUNTER_MAX as u64;
/// Numbers that a second since [`EPOCH_SECONDS`] is worth: a later run begins above what an earlier one has used, as
/// long as no agent sends more than 6,250 events a second on average.
const NUMBERS_A_SECOND: u64 = 100_000;
/// 2024-01-01. Global counters that begin here last until 2037.
const EPOCH_SECONDS: u64 = 1_704_067_200;

/// One agent of the fleet.
#[derive(Debug)]
pub struct Member {
    /// Its line of client.keys.
    pub entry: KeyEntry,
    /// Its key, with the cipher's schedule once it was used.
    pub cipher_key: Arc<CipherKey>,
}

/// Makes up a fleet: ids from 001, names `load-000001`, any address, secrets from the seed.
///
/// # Panics
/// Never: what is made up here parses.
pub fn made_up(agents: u32, seed: u64) -> Vec<Member> {
    let line = |agent: u32| {
        let word = |part: u64| mix(seed ^ mix((u64::from(agent) << 8) | part));
        let secret = format!("{:016x}{:016x}{:016x}{:016x}", word(0), word(1), word(2), word(3));
        format!("{:03} load-{:06} any {secret}\n", agent + 1, agent + 1)
    };
    let file: String = (0..agents).map(line).collect();
    let members = from_text(file.as_bytes());
    assert_eq!(members.len(), agents as usize, "every made-up line is a legal one");
    members
}

/// Reads the first `agents` agents of a client.keys.
///
/// # Errors
/// If the file can't be read or holds fewer.
pub fn from_file(path: &Path, agents: u32) -> Result<Vec<Member>, String> {
    let text = fs::read(path).map_err(|error| format!("--keys {}: {error}", path.display()))?;
    let mut members = from_text(&text);
    if members.len() < agents as usize {
        return Err(format!(
            "--keys {} has {} usable agents, --agents wants {agents}: add lines, or ask for fewer",
            path.display(),
            members.len()
        ));
    }
    members.truncate(agents as usize);
    Ok(members)
}

/// The fleet as a client.keys file.
pub fn to_file(members: &[Member]) -> String {
    members.iter().map(|member| member.entry.to_line() + "\n").collect()
}

/// The name of each agent, as the manager puts it into the location.
pub fn names(members: &[Member]) -> Vec<Box<str>> {
    members.iter().map(|member| member.entry.name.clone()).collect()
}

/// Cipher and dialect in one.
pub const fn method(cipher: CipherName, dialect: Dialect) -> Method {
    match (cipher, dialect) {
        (CipherName::Blowfish, Dialect::Ossec | Dialect::Wazuh) => Method::Blowfish,
        (CipherName::Aes, Dialect::Ossec) => Method::AesOssec,
        (CipherName::Aes, Dialect::Wazuh) => Method::AesWazuh,
    }
}

/// Where every agent's counter begins in a run that starts at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterBase(u64);

impl CounterBase {
    /// The base of a run at some seconds after 1970.
    pub fn at(unix_seconds: u64) -> CounterBase {
        CounterBase(unix_seconds.saturating_sub(EPOCH_SECONDS) * NUMBERS_A_SECOND)
    }

    /// The counter below everything of the run.
    pub fn first(self) -> Counter {
        counter(self.0)
    }

    /// The counter of an agent's event.
    pub fn of_event(self, sequence: u64) -> Counter {
        counter(self.0 + (sequence + 1) * COUNTER_STRIDE)
    }
}

/// The counter of the n-th message of a sender that began at 0:1.
fn counter(number: u64) -> Counter {
    Counter { global: (number / LOCAL_NUMBERS) as u32, local: (number % LOCAL_NUMBERS) as u16 + 1 }
}

fn from_text(text: &[u8]) -> Vec<Member> {
    let member = |entry: KeyEntry| Member {
        cipher_key: Arc::new(CipherKey::new(&entry.name, entry.id.as_str(), &entry.key)),
        entry,
    };
    KeyFile::parse(text).entries.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_fleet_is_the_same_for_its_seed_and_reads_back_from_its_file() {
        let fleet = made_up(1_200, 4);
        assert_eq!(to_file(&fleet), to_file(&made_up(1_200, 4)));
        assert_ne!(to_file(&fleet), to_file(&made_up(1_200, 5)));
        assert_eq!((fleet[0].entry.id.as_str(), &*fleet[1_199].entry.name), ("001", "load-001200"));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), to_file(&fleet)).unwrap();
        assert_eq!(to_file(&from_file(file.path(), 700).unwrap()), to_file(&fleet[..700]));
        let error = from_file(file.path(), 1_201).unwrap_err();
        assert!(error.contains("1200 usable agents") && error.contains("1201"), "{error}");
        assert!(from_file(Path::new("/nowhere/keys"), 1).unwrap_err().contains("/nowhere/keys"));
    }

    #[test]
    fn counters_grow_by_the_stride_over_every_wrap_and_from_run_to_run() {
        let base = CounterBase::at(1_795_000_000);
        let mut before = base.first();
        for sequence in 0..2_000 {
            let next = base.of_event(sequence);
            let mut between = before;
            for _ in 0..COUNTER_STRIDE {
                between = between.next();
            }
            assert_eq!(next, between, "event {sequence}");
            before = next;
        }
        assert!(CounterBase::at(1_795_000_001).first() > base.of_event(6_000));
    }
}
