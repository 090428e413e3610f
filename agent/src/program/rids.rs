//! The counters' files in queue/rids, so that ossec-agentd can take over at any time and back.
//!
//! What was sent is noted before it is sent, and ahead: a counter that was used is never used again, whatever happens, and
//! gaps never matter. Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `OS_StartCounter` and `StoreCounter`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use codec::{AgentId, Counter};

/// Between two notes of what was taken.
const TAKEN_INTERVAL: Duration = Duration::from_secs(10);

/// The two files.
#[derive(Debug)]
pub(crate) struct Rids {
    sender: PathBuf,
    receiver: PathBuf,
    /// Up to here counters may be used before the file is written again.
    reserved: Counter,
    noted: Counter,
    noted_at: Duration,
}

impl Rids {
    /// Reads them; an absent or empty file is a new agent's.
    pub(crate) fn open(home: &Path, id: AgentId) -> Rids {
        let folder = home.join("queue/rids");
        let (sender, receiver) = (folder.join("sender_counter"), folder.join(id.as_str()));
        let (reserved, noted) = (read(&sender), read(&receiver));
        Rids { sender, receiver, reserved, noted, noted_at: Duration::ZERO }
    }

    /// What an earlier life sent and took at most.
    pub(crate) fn counters(&self) -> (Counter, Counter) {
        (self.reserved, self.noted)
    }

    /// To be called before messages up to `sent` leave the host.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn reserve(&mut self, sent: Counter) -> io::Result<()> {
        if sent < self.reserved {
            return Ok(());
        }
        // Some ten thousand messages ahead.
        self.reserved = Counter { global: sent.global.wrapping_add(1), local: 1 };
        write(&self.sender, self.reserved)
    }

    /// Notes what was taken, now and then: behind the truth means that a manager's old messages can be played back to us,
    /// ahead of it that we refuse its next.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn note_taken(&mut self, now: Duration, taken: Counter) -> io::Result<()> {
        if taken == self.noted || now < self.noted_at + TAKEN_INTERVAL {
            return Ok(());
        }
        (self.noted, self.noted_at) = (taken, now);
        write(&self.receiver, taken)
    }

    /// At the end: both as they are.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn close(&self, sent: Counter, taken: Counter) -> io::Result<()> {
        write(&self.sender, sent)?;
        write(&self.receiver, taken)
    }
}

fn read(path: &Path) -> Counter {
    fs::read(path).ok().and_then(|bytes| Counter::parse(&bytes).ok()).unwrap_or_default()
}

/// In place, as the C programs do.
fn write(path: &Path, counter: Counter) -> io::Result<()> {
    let text = counter.to_string();
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o660).open(path)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_noted_before_it_is_used_and_exactly_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("queue/rids")).unwrap();
        let id: AgentId = "007".parse().unwrap();
        let counter = |global, local| Counter { global, local };
        fs::write(home.path().join("queue/rids/sender_counter"), "3:44:9:").unwrap();
        let mut rids = Rids::open(home.path(), id);
        assert_eq!(rids.counters(), (counter(3, 44), Counter::ZERO));
        rids.reserve(counter(3, 45)).unwrap();
        let file = |name: &str| fs::read_to_string(home.path().join("queue/rids").join(name)).unwrap();
        assert_eq!(file("sender_counter"), "4:1:");
        rids.reserve(counter(3, 9_997)).unwrap();
        assert_eq!(file("sender_counter"), "4:1:");
        assert_eq!(Rids::open(home.path(), id).counters().0, counter(4, 1), "as after a crash");
        rids.reserve(counter(4, 1)).unwrap();
        assert_eq!(file("sender_counter"), "5:1:");
        rids.note_taken(Duration::from_secs(10), counter(1, 2)).unwrap();
        rids.note_taken(Duration::from_secs(11), counter(1, 3)).unwrap();
        assert_eq!(file("007"), "1:2:");
        rids.close(counter(4, 2), counter(1, 3)).unwrap();
        assert_eq!((file("sender_counter"), file("007")), ("4:2:".to_owned(), "1:3:".to_owned()));
    }
}
