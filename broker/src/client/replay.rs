//! What a gate lets through of what it has kept: straight to the manager, in order, and no faster than the manager's small socket
//! takes it.

use std::time::Duration;

use super::Client;
use crate::wire::{LineNumber, Mode};

/// Kept datagrams that may go at once.
const BURST: f64 = 32.0;

/// How often kept datagrams go while there are any.
const EVERY: Duration = Duration::from_millis(10);

/// After a datagram that was refused, a gate waits for so long.
const HOLD: Duration = Duration::from_secs(1);

/// How many kept datagrams may go now.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u32,
    allowed: f64,
    counted_at: Duration,
    next_at: Duration,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Pace {
        Pace { per_second, allowed: 0.0, counted_at: Duration::ZERO, next_at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.counted_at).as_secs_f64();
        self.counted_at = now;
        self.allowed = (self.allowed + passed * f64::from(self.per_second)).min(BURST);
        let may = self.allowed >= 1.0;
        if may {
            self.allowed -= 1.0;
        } else {
            self.next_at = now + EVERY;
        }
        may
    }
}

impl Client {
    /// The next kept datagram that a gate sends straight to the manager; [`Client::replayed`] must follow.
    pub fn poll_replay(&mut self, now: Duration) -> Option<(LineNumber, Vec<u8>)> {
        if self.settings.mode != Mode::Gate || !self.may_send(now) {
            return None;
        }
        while let Some(key) = self.queue.front().copied() {
            if !self.pace.take(now) {
                return None;
            }
            self.queue.pop_front();
            let Some(line) = self.lines.get_mut(&key) else { continue };
            line.is_queued = false;
            let number = line.number;
            match line.read_next() {
                Ok(Some(kept)) => return Some((number, kept.bytes.to_vec())),
                Ok(None) => {}
                Err(error) => {
                    self.say(super::Notice::Disk(format!("the spool of agent {key} can't be read: {error}")));
                }
            }
        }
        None
    }

    /// What became of the datagram that was replayed last: sent, or not.
    ///
    /// # Panics
    /// Never: each number has its line.
    pub fn replayed(&mut self, now: Duration, number: LineNumber, is_sent: bool) {
        let Some(key) = self.numbers.get(&number).copied() else { return };
        let line = self.lines.get_mut(&key).expect("each number has its line");
        if is_sent {
            self.counters.replayed += 1;
            if let Some(last) = line.last_sent() {
                line.confirmed(last).expect("it was read from what is committed");
            }
        } else {
            line.rewind();
            self.hold(now);
        }
        self.enqueue(key);
    }

    /// Keeps everything for a moment: the manager's host has refused a datagram, and the server may not know it yet.
    pub fn hold(&mut self, now: Duration) {
        self.held_until = now + HOLD;
        self.counters.sends_failed += 1;
    }

    /// When a gate has something to send again.
    pub(super) fn next_replay(&self) -> Option<Duration> {
        let is_well = self.link.as_ref().is_some_and(|link| link.health == Some(Ok(())));
        let waits = self.settings.mode == Mode::Gate && is_well && !self.queue.is_empty();
        waits.then(|| self.pace.next_at.max(self.held_until))
    }
}
