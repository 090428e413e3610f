//! Which counters of an agent were taken already. Lock-free: any shard may be asked, and one counter is accepted once.
//!
//! The window's four words, each one atomic:
//!
//! ```text
//!     63                        24 23            0
//!     |  round of this word (40)  |  seen (24)   |     sequence = global * 10,000 + local
//!                                                      block    = sequence / 24
//!     word = block % 4, round = block / 4
//! ```
//!
//! A word only ever moves to a later round or gains a bit, so whichever thread sets a counter's bit is the only one
//! that ever did: that alone makes "never twice" true, however the threads interleave. `highest` is read first to make
//! the edge of the window sharp, and is what is written to disk.

use std::sync::atomic::{AtomicU64, Ordering};

use codec::Counter;

/// How many counters below the highest one may still come in late under [`ReplayPolicy::Window`].
pub const REPLAY_WINDOW: u64 = 64;

const WORDS: u64 = 4;
const SEEN_BITS: u64 = 24;
const SEEN_MASK: u64 = (1 << SEEN_BITS) - 1;
/// A sender's local part wraps at 9,997; the wire has four digits, so this keeps the order of all that can be written.
const LOCALS: u64 = 10_000;

// The newest block may hold a single counter: the three words behind it must cover the window by themselves.
const _: () = assert!((WORDS - 1) * SEEN_BITS >= REPLAY_WINDOW);
// The highest sequence of all must have a round that fits above the bits.
const _: () = assert!(((u32::MAX as u64) * LOCALS + LOCALS - 1) / SEEN_BITS / WORDS < 1 << (64 - SEEN_BITS));

/// What is done about a counter that is not greater than the last one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReplayPolicy {
    /// Everything is accepted, as Wazuh ships (`remoted.verify_msg_id=0`).
    Off,
    /// Only greater than the last accepted, as OSSEC ships (`remoted.verify_msg_id=1`).
    #[default]
    Strict,
    /// Each once, up to [`REPLAY_WINDOW`] behind the highest: a reordered datagram is not lost.
    Window,
}

/// Why a counter was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replayed {
    /// Strict: not greater, in the same global count. Window: taken before.
    Duplicate,
    /// Strict: of an earlier global count. Window: behind the window.
    Old,
}

/// The counters that one agent used up.
#[derive(Debug)]
pub struct ReplayState {
    highest: AtomicU64,
    words: [AtomicU64; WORDS as usize],
}

impl ReplayState {
    /// A state that has accepted `last` and everything below it; [`Counter::ZERO`] for an agent never heard.
    pub fn new(last: Counter) -> ReplayState {
        let words = words_behind(last).map(AtomicU64::new);
        ReplayState { highest: AtomicU64::new(last.as_u64()), words }
    }

    /// Forgets what was accepted: the operator's cure for an agent that was restored, whose counters are lower now.
    ///
    /// A message that another thread accepts meanwhile may stay remembered; what it does to the window, or its counter to
    /// the strict rule, is what any message does that comes after the reset.
    pub fn reset(&self) {
        for (word, fresh) in self.words.iter().zip(words_behind(Counter::ZERO)) {
            word.store(fresh, Ordering::Release);
        }
        self.highest.store(Counter::ZERO.as_u64(), Ordering::Release);
    }

    /// The greatest counter accepted so far: what is stored on disk.
    pub fn highest(&self) -> Counter {
        Counter::from_u64(self.highest.load(Ordering::Relaxed))
    }

    /// Takes `counter`, or says why not. Never accepts one counter twice (except under [`ReplayPolicy::Off`]).
    ///
    /// # Errors
    /// [`Replayed`] if the policy refuses it; nothing is changed then.
    pub fn accept(&self, policy: ReplayPolicy, counter: Counter) -> Result<(), Replayed> {
        match policy {
            ReplayPolicy::Off => {
                // Kept all the same, so that an operator who turns the check on starts from the right value.
                self.highest.fetch_max(counter.as_u64(), Ordering::Relaxed);
                Ok(())
            }
            ReplayPolicy::Strict => self.accept_greater(counter),
            ReplayPolicy::Window => self.accept_once(counter),
        }
    }

    fn accept_greater(&self, counter: Counter) -> Result<(), Replayed> {
        let offered = counter.as_u64();
        let update = |last: u64| (offered > last).then_some(offered);
        match self.highest.try_update(Ordering::AcqRel, Ordering::Acquire, update) {
            Ok(_) => Ok(()),
            Err(last) if Counter::from_u64(last).global == counter.global => Err(Replayed::Duplicate),
            Err(_) => Err(Replayed::Old),
        }
    }

    fn accept_once(&self, counter: Counter) -> Result<(), Replayed> {
        let sequence = sequence(counter);
        let block = sequence / SEEN_BITS;
        let (round, bit) = (block / WORDS, 1 << (sequence % SEEN_BITS));
        if sequence + REPLAY_WINDOW <= self::sequence(self.highest()) {
            return Err(Replayed::Old);
        }
        let word = &self.words[(block % WORDS) as usize];
        let update = |current: u64| {
            let (current_round, seen) = (current >> SEEN_BITS, current & SEEN_MASK);
            match current_round.cmp(&round) {
                std::cmp::Ordering::Less => Some(pack(round, bit)),
                std::cmp::Ordering::Equal if seen & bit == 0 => Some(current | bit),
                std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => None,
            }
        };
        match word.try_update(Ordering::AcqRel, Ordering::Acquire, update) {
            Ok(_) => {
                self.highest.fetch_max(counter.as_u64(), Ordering::Relaxed);
                Ok(())
            }
            Err(current) if current >> SEEN_BITS == round => Err(Replayed::Duplicate),
            Err(_) => Err(Replayed::Old),
        }
    }
}

/// The window's words when `last` and everything below it was accepted.
fn words_behind(last: Counter) -> [u64; WORDS as usize] {
    let sequence = sequence(last);
    let newest = sequence / SEEN_BITS;
    std::array::from_fn(|index| {
        let index = index as u64;
        // The latest block at or before the newest that this word holds; the ones before it are all used up.
        let behind = (newest + WORDS - index) % WORDS;
        match newest.checked_sub(behind) {
            None => 0,
            Some(block) if behind == 0 => {
                pack(block / WORDS, SEEN_MASK >> (SEEN_BITS - 1 - sequence % SEEN_BITS))
            }
            Some(block) => pack(block / WORDS, SEEN_MASK),
        }
    })
}

fn sequence(counter: Counter) -> u64 {
    // Four digits on the wire; only a damaged file of counters can hold more.
    u64::from(counter.global) * LOCALS + u64::from(counter.local).min(LOCALS - 1)
}

fn pack(round: u64, seen: u64) -> u64 {
    round << SEEN_BITS | seen
}

#[cfg(test)]
mod tests;
