//! What was given to the manager and is not known to be read.
//!
//! A datagram in the manager's socket is as lost as one on the wire if the manager dies, and a full socket drops in silence. The
//! kernel shows how many bytes a socket has unread; it reads in order. So what it showed at a first look after a give has
//! been read once the bytes that vanished since, as far as they were seen to, are as many.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use spool::Sequence;

use crate::health::SocketReading;
use crate::server::LineId;

/// Datagrams that may be given and unread. ossec-remoted's socket, whose buffer nobody sets, holds 166.
pub const UNREAD_MAX: usize = 32;

/// Bytes of them.
pub const UNREAD_BYTES_MAX: usize = 64 << 10;

/// Nothing is given while so much of anybody's is unread, in bytes of the kernel's memory: a third of a default buffer.
pub const OTHERS_UNREAD_BYTES_MAX: u64 = 64 << 10;

/// A give may take so long to show in the socket, since the kernel can put it off to another thread.
pub const SETTLES_AFTER: Duration = Duration::from_millis(2);

/// Datagrams are given so soon after a reading only. A manager that dies and comes back unseen would take what is given next, and so
/// refuse for ever what it had not read before; none comes back so fast.
pub const FRESH_FOR: Duration = Duration::from_millis(2);

/// A datagram that was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Given {
    /// Whose.
    pub line: LineId,
    /// Which.
    pub sequence: Sequence,
    /// How long it is.
    pub bytes: usize,
}

/// All that was given and not confirmed, in order.
#[derive(Debug, Default)]
pub struct Backlog {
    sockets: BTreeMap<u64, Socket>,
    read_at: Option<Duration>,
    /// Given since the last reading that counted, and when the last of it was.
    fresh: Vec<Given>,
    fresh_at: Duration,
    batches: VecDeque<Batch>,
    is_full: bool,
    count: usize,
    bytes: usize,
}

/// What was given between two readings.
#[derive(Debug)]
struct Batch {
    given: Vec<Given>,
    /// For each socket, how many bytes must have been read of it.
    targets: Vec<(u64, u64)>,
}

/// What is known of one of the manager's sockets.
#[derive(Debug)]
struct Socket {
    unread_bytes: u64,
    /// Bytes that were seen to vanish from it: no more than were read.
    read_bytes: u64,
    drops: u64,
    /// Since when it has had something unread and read nothing.
    unread_since: Option<Duration>,
}

/// What a reading told.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// What the manager has read, in the order in which it was given.
    pub confirmed: Vec<Given>,
    /// Datagrams that its sockets have dropped since the reading before.
    pub drops: u64,
    /// A socket is gone that had perhaps unread what was given: nothing of it can be confirmed any more.
    pub is_lost: bool,
}

impl Backlog {
    /// Whether another datagram may be given, by a reading that is fresh.
    pub fn may_give(&self, now: Duration) -> bool {
        self.read_at.is_some_and(|at| now < at + FRESH_FOR)
            && !self.is_full
            && self.count < UNREAD_MAX
            && self.bytes < UNREAD_BYTES_MAX
            && self.sockets.values().all(|socket| socket.unread_bytes <= OTHERS_UNREAD_BYTES_MAX)
    }

    /// A datagram was given.
    pub fn gave(&mut self, now: Duration, given: Given) {
        self.fresh.push(given);
        self.fresh_at = now;
        self.count += 1;
        self.bytes += given.bytes;
    }

    /// Datagrams that were given and are not confirmed.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Nothing may be given until the next reading: the kernel has just refused a datagram for want of room.
    pub fn is_full_until_read(&mut self) {
        self.is_full = true;
    }

    /// When the sockets were read last.
    pub fn read_at(&self) -> Option<Duration> {
        self.read_at
    }

    /// Since when the manager has had something unread and read nothing.
    pub fn unread_since(&self) -> Option<Duration> {
        self.sockets.values().filter_map(|socket| socket.unread_since).min()
    }

    /// Forgets what was given: it will be given again.
    pub fn clear(&mut self) {
        self.fresh.clear();
        self.batches.clear();
        (self.count, self.bytes) = (0, 0);
    }

    /// Takes a reading of the manager's sockets.
    pub fn read(&mut self, now: Duration, readings: &[SocketReading]) -> Seen {
        self.read_at = Some(now);
        self.is_full = false;
        let mut seen = Seen::default();
        let is_there = |inode: &u64| readings.iter().any(|reading| reading.inode == *inode);
        if !self.sockets.keys().all(is_there) {
            seen.is_lost = self.count > 0;
            self.clear();
            self.sockets.retain(|inode, _| is_there(inode));
        }
        for reading in readings {
            seen.drops += self.read_socket(now, reading);
        }
        if !self.fresh.is_empty() && !self.sockets.is_empty() && now >= self.fresh_at + SETTLES_AFTER {
            let target = |(inode, socket): (&u64, &Socket)| (*inode, socket.read_bytes + socket.unread_bytes);
            let targets = self.sockets.iter().map(target).collect();
            self.batches.push_back(Batch { given: std::mem::take(&mut self.fresh), targets });
        }
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.is_read(&self.sockets)) {
            self.count -= batch.given.len();
            self.bytes -= batch.given.iter().map(|given| given.bytes).sum::<usize>();
            seen.confirmed.extend(batch.given);
        }
        seen
    }

    /// Tells how many datagrams it has dropped since the last reading.
    fn read_socket(&mut self, now: Duration, reading: &SocketReading) -> u64 {
        let unread_since = (reading.unread_bytes > 0).then_some(now);
        let socket = self.sockets.entry(reading.inode).or_insert(Socket {
            unread_bytes: reading.unread_bytes,
            read_bytes: 0,
            drops: reading.drops,
            unread_since,
        });
        let vanished = socket.unread_bytes.saturating_sub(reading.unread_bytes);
        socket.read_bytes += vanished;
        socket.unread_bytes = reading.unread_bytes;
        if vanished > 0 || reading.unread_bytes == 0 || socket.unread_since.is_none() {
            socket.unread_since = unread_since;
        }
        let drops = reading.drops.saturating_sub(socket.drops);
        socket.drops = reading.drops;
        drops
    }
}

impl Batch {
    fn is_read(&self, sockets: &BTreeMap<u64, Socket>) -> bool {
        self.targets.iter().all(|(inode, target)| {
            sockets.get(inode).is_some_and(|socket| socket.unread_bytes == 0 || socket.read_bytes >= *target)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        backlog: Backlog,
        now: Duration,
    }

    impl Bed {
        fn new() -> Bed {
            Bed { backlog: Backlog::default(), now: Duration::from_secs(1) }
        }

        fn give(&mut self, sequence: u64) {
            let given = Given { line: LineId(7), sequence: Sequence(sequence), bytes: 100 };
            self.backlog.gave(self.now, given);
        }

        /// The numbers that a reading after `milliseconds` confirms.
        fn read(&mut self, milliseconds: u64, sockets: &[(u64, u64)]) -> Vec<u64> {
            self.now += Duration::from_millis(milliseconds);
            let reading = |(inode, unread_bytes): &(u64, u64)| SocketReading {
                inode: *inode,
                unread_bytes: *unread_bytes,
                drops: 0,
            };
            let readings: Vec<_> = sockets.iter().map(reading).collect();
            let seen = self.backlog.read(self.now, &readings);
            seen.confirmed.iter().map(|given| given.sequence.0).collect()
        }
    }

    #[test]
    fn what_has_been_read_is_confirmed() {
        let mut bed = Bed::new();
        assert!(!bed.backlog.may_give(bed.now), "nobody has looked yet");
        assert_eq!(bed.read(0, &[(1, 0)]), [0; 0]);
        assert!(bed.backlog.may_give(bed.now));
        bed.give(1);
        bed.give(2);
        assert_eq!(bed.read(1, &[(1, 0)]), [0; 0], "it may not show yet");
        assert_eq!(bed.read(2, &[(1, 0)]), [1, 2]);
        bed.give(3);
        assert_eq!(bed.read(2, &[(1, 700)]), [0; 0]);
        bed.give(4);
        assert_eq!(bed.read(2, &[(1, 1_400)]), [0; 0]);
        assert_eq!(bed.read(2, &[(1, 800)]), [0; 0], "600 bytes have vanished");
        assert_eq!(bed.read(2, &[(1, 900)]), [0; 0], "somebody else has sent");
        assert_eq!(bed.read(2, &[(1, 800)]), [3], "100 more: all that was there when it was given");
        assert_eq!(bed.backlog.count(), 1);
        assert_eq!(bed.read(2, &[(1, 0)]), [4]);
        assert_eq!(bed.backlog.count(), 0);
    }

    #[test]
    fn each_of_several_sockets_must_have_read() {
        let mut bed = Bed::new();
        bed.read(0, &[(1, 0), (2, 0)]);
        bed.give(1);
        assert_eq!(bed.read(2, &[(1, 500), (2, 500)]), [0; 0]);
        assert_eq!(bed.read(2, &[(1, 0), (2, 500)]), [0; 0]);
        assert_eq!(bed.read(2, &[(1, 500), (2, 0)]), [1]);
    }

    #[test]
    fn a_socket_that_is_gone_took_with_it_what_it_had() {
        let mut bed = Bed::new();
        bed.read(0, &[(1, 0)]);
        bed.give(1);
        let readings = [SocketReading { inode: 2, unread_bytes: 0, drops: 0 }];
        let seen = bed.backlog.read(bed.now + SETTLES_AFTER, &readings);
        assert_eq!(seen, Seen { confirmed: Vec::new(), drops: 0, is_lost: true });
        let seen = bed.backlog.read(bed.now + 2 * SETTLES_AFTER, &[]);
        assert!(!seen.is_lost, "nothing had been given");
    }

    #[test]
    fn bounds() {
        let mut bed = Bed::new();
        bed.read(0, &[(1, 0)]);
        for sequence in 0..UNREAD_MAX as u64 {
            assert!(bed.backlog.may_give(bed.now), "{sequence}");
            bed.give(sequence);
        }
        assert!(!bed.backlog.may_give(bed.now));
        bed.read(2, &[(1, 0)]);
        assert!(bed.backlog.may_give(bed.now));
        assert!(!bed.backlog.may_give(bed.now + FRESH_FOR), "the reading is old");
        bed.read(2, &[(1, OTHERS_UNREAD_BYTES_MAX + 1)]);
        assert!(!bed.backlog.may_give(bed.now), "others have filled it");
        bed.read(2, &[(1, 0)]);
        bed.backlog.gave(bed.now, Given { line: LineId(1), sequence: Sequence(99), bytes: UNREAD_BYTES_MAX });
        assert!(!bed.backlog.may_give(bed.now));
    }

    #[test]
    fn drops_and_standstill() {
        let mut backlog = Backlog::default();
        let at = Duration::from_secs;
        let reading = |unread_bytes, drops| [SocketReading { inode: 1, unread_bytes, drops }];
        assert_eq!(backlog.read(at(1), &reading(0, 5)).drops, 0, "what was before is not ours");
        assert_eq!(backlog.unread_since(), None);
        assert_eq!(backlog.read(at(2), &reading(10, 8)).drops, 3);
        assert_eq!(backlog.unread_since(), Some(at(2)));
        backlog.read(at(3), &reading(20, 8));
        assert_eq!(backlog.unread_since(), Some(at(2)));
        backlog.read(at(4), &reading(15, 8));
        assert_eq!(backlog.unread_since(), Some(at(4)), "it has read something");
        backlog.read(at(5), &reading(0, 8));
        assert_eq!(backlog.unread_since(), None);
    }
}
