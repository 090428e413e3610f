//! The one counter under which the whole process sends.

use std::sync::atomic::{AtomicU64, Ordering};

use codec::Counter;

/// The process-wide counter of what is sent, as both products keep it (`queue/rids/sender_counter`).
///
/// An agent refuses whatever does not grow, so this must begin above everything that was ever sent: the caller seeds it
/// from the file, with a margin after a crash. Shards take from it without a lock; gaps never matter to an agent.
#[derive(Debug)]
pub struct SenderCounter {
    last: AtomicU64,
}

impl SenderCounter {
    /// A counter that goes on after `last`.
    pub fn new(last: Counter) -> SenderCounter {
        SenderCounter { last: AtomicU64::new(last.as_u64()) }
    }

    /// Takes the next counter: greater than every one taken before, by any thread.
    pub fn take(&self) -> Counter {
        let next = |last| Counter::from_u64(last).next().as_u64();
        let last = self.last.update(Ordering::Relaxed, Ordering::Relaxed, next);
        Counter::from_u64(last).next()
    }

    /// The last counter taken: what is stored on disk.
    pub fn last(&self) -> Counter {
        Counter::from_u64(self.last.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn wraps_and_continues() {
        let senders = SenderCounter::new(Counter { global: 3, local: 9_996 });
        assert_eq!(senders.take(), Counter { global: 3, local: 9_997 });
        assert_eq!(senders.take(), Counter { global: 4, local: 1 });
        assert_eq!(senders.last(), Counter { global: 4, local: 1 });
    }

    #[test]
    fn no_counter_is_taken_twice() {
        let senders = SenderCounter::new(Counter::ZERO);
        let taken: Vec<Vec<Counter>> = std::thread::scope(|scope| {
            let take = || (0..20_000).map(|_| senders.take()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: HashSet<u64> = taken.iter().flatten().map(|counter| counter.as_u64()).collect();
        assert_eq!(distinct.len(), 60_000);
        assert!(taken.iter().all(|of_one| of_one.is_sorted()));
    }
}
