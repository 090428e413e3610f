//! What is known about one agent while the process lives: shared by all shards, and kept across reloads of client.keys.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codec::{Counter, Method};

use crate::action::{ConnectionId, ShardId};
use crate::rate::Rate;
use crate::replay::ReplayState;
use crate::time::Time;
use crate::verdict::Verdict;

/// How long after an agent's last control message over UDP something may be sent to where it came from.
///
/// Source: ossec-hids 4.3.0 `remoted/sendmsg.c`, `send_msg`.
pub const RETURN_PATH_LIFETIME: Duration = Duration::from_secs(1_200);

/// How a message came.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Transport {
    /// Frames on a connection.
    Tcp = 1,
    /// Datagrams.
    Udp = 2,
}

impl Transport {
    /// The stable name, as metrics and logs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// Where an agent's connection lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The shard that holds it.
    pub shard: ShardId,
    /// Its name there.
    pub connection: ConnectionId,
}

/// One agent's state. Every method may be called by any thread at any time.
#[derive(Debug)]
pub struct AgentState {
    hot: Hot,
    /// Touched only where events are limited.
    rate: Rate,
    /// Touched by control messages only, hence a lock that nothing else waits for.
    return_path: Mutex<Option<ReturnPath>>,
    /// Digest of what the last keep-alive said, with its lowest bit set; 0: none, or its notice did not get through.
    keep_alive: AtomicU64,
}

/// What every message touches: one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Hot {
    replay: ReplayState,
    /// Shard + 1 in bits 56..64, slot in 32..56, generation in 0..32; 0: nobody.
    owner: AtomicU64,
    /// Second + 1 of the last genuine message; 0: never.
    last_seen: AtomicU32,
    /// [`Method`] as a number; 0: none yet.
    method: AtomicU8,
    /// [`Transport`] as a number; 0: none yet.
    transport: AtomicU8,
    /// Events, and messages dropped that named this agent; both modulo 2^32.
    events: AtomicU32,
    dropped: AtomicU32,
}

const _: () = assert!(size_of::<Hot>() == 64);

#[derive(Clone, Copy, Debug)]
struct ReturnPath {
    to: SocketAddr,
    /// The listener that the agent spoke to: an agent takes answers from there only.
    listener: u16,
    since: Time,
}

impl AgentState {
    /// The state of an agent whose last accepted counter was `last`; [`Counter::ZERO`] if it was never heard.
    pub fn new(last: Counter) -> AgentState {
        AgentState {
            hot: Hot {
                replay: ReplayState::new(last),
                owner: AtomicU64::new(0),
                last_seen: AtomicU32::new(0),
                method: AtomicU8::new(0),
                transport: AtomicU8::new(0),
                events: AtomicU32::new(0),
                dropped: AtomicU32::new(0),
            },
            rate: Rate::default(),
            return_path: Mutex::new(None),
            keep_alive: AtomicU64::new(0),
        }
    }

    /// The counters that were used up.
    pub fn replay(&self) -> &ReplayState {
        &self.hot.replay
    }

    /// When the last genuine message came, in whole seconds.
    pub fn last_seen(&self) -> Option<Time> {
        let seconds = self.hot.last_seen.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Time::from_seconds(u64::from(seconds)))
    }

    /// With which method the agent sealed its last genuine message: that is how it is answered.
    pub fn method(&self) -> Option<Method> {
        Method::from_u8(self.hot.method.load(Ordering::Relaxed))
    }

    /// How the last genuine message came.
    pub fn transport(&self) -> Option<Transport> {
        match self.hot.transport.load(Ordering::Relaxed) {
            1 => Some(Transport::Tcp),
            2 => Some(Transport::Udp),
            _ => None,
        }
    }

    /// How many events of this agent were taken over, modulo 2^32: whoever adds differences up looks often enough.
    pub fn events(&self) -> u32 {
        self.hot.events.load(Ordering::Relaxed)
    }

    /// How many messages were dropped that said they were this agent's, modulo 2^32. Anybody can write an id.
    pub fn dropped(&self) -> u32 {
        self.hot.dropped.load(Ordering::Relaxed)
    }

    /// The next keep-alive is told with its text, whatever it says: the notice of the last one was lost.
    pub fn forget_keep_alive(&self) {
        self.keep_alive.store(0, Ordering::Relaxed);
    }

    /// Which shard and connection this agent has.
    pub fn owner(&self) -> Option<Owner> {
        unpack(self.hot.owner.load(Ordering::Acquire))
    }

    /// Where something for this agent may be sent to as a datagram: from where its last control message over UDP came,
    /// for [`RETURN_PATH_LIFETIME`]. Never taken from an event: those may come from elsewhere.
    pub fn return_path(&self, now: Time) -> Option<SocketAddr> {
        self.return_path_and_listener(now).map(|(to, _)| to)
    }

    /// The same, with the listener that the message came to.
    pub(crate) fn return_path_and_listener(&self, now: Time) -> Option<(SocketAddr, u16)> {
        let path = *self.locked_return_path();
        path.filter(|path| now.since(path.since) < RETURN_PATH_LIFETIME).map(|path| (path.to, path.listener))
    }

    /// Notes where a control message came from; whether that is news.
    pub(crate) fn set_return_path(&self, to: SocketAddr, listener: u16, now: Time) -> bool {
        let before = self.locked_return_path().replace(ReturnPath { to, listener, since: now });
        before.is_none_or(|before| before.to != to)
    }

    /// Notes what a keep-alive says; whether the last one said the same.
    pub(crate) fn says_again(&self, digest: u64) -> bool {
        let digest = digest | 1;
        self.keep_alive.swap(digest, Ordering::Relaxed) == digest
    }

    /// Counts what became of a message of this agent. Its line is at hand: the message's counter has just been there.
    #[inline]
    pub(crate) fn count(&self, verdict: Verdict) {
        match verdict {
            Verdict::Event => self.hot.events.fetch_add(1, Ordering::Relaxed),
            Verdict::Dropped(_) => self.hot.dropped.fetch_add(1, Ordering::Relaxed),
            Verdict::Control(_) => 0,
        };
    }

    pub(crate) fn forget_return_path(&self) {
        *self.locked_return_path() = None;
    }

    fn locked_return_path(&self) -> MutexGuard<'_, Option<ReturnPath>> {
        self.return_path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How fast its events come.
    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Notes a genuine message. Writes only what changed, so that an agent's line is not taken from other cores' caches
    /// more often than its counter does anyway.
    pub(crate) fn heard(&self, now: Time, method: Method, transport: Transport) {
        let seconds = u32::try_from(now.as_seconds()).unwrap_or(u32::MAX - 1) + 1;
        if self.hot.last_seen.load(Ordering::Relaxed) != seconds {
            self.hot.last_seen.store(seconds, Ordering::Relaxed);
        }
        if self.hot.method.load(Ordering::Relaxed) != method as u8 {
            self.hot.method.store(method as u8, Ordering::Relaxed);
        }
        if self.hot.transport.load(Ordering::Relaxed) != transport as u8 {
            self.hot.transport.store(transport as u8, Ordering::Relaxed);
        }
    }

    /// Makes `owner` the agent's connection and returns the one that it had.
    pub(crate) fn take_over(&self, owner: Owner) -> Option<Owner> {
        unpack(self.hot.owner.swap(pack(owner), Ordering::AcqRel))
    }

    /// Forgets `owner`, unless another connection took over in the meantime; whether the agent has none now.
    pub(crate) fn release(&self, owner: Owner) -> bool {
        self.hot.owner.compare_exchange(pack(owner), 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

fn pack(owner: Owner) -> u64 {
    assert!(owner.connection.slot < ConnectionId::SLOTS_MAX, "a shard's slots fit into 24 bits");
    assert!(owner.shard <= ShardId::MAX, "shard 255 would look like nobody");
    (u64::from(owner.shard.0) + 1) << 56
        | u64::from(owner.connection.slot) << 32
        | u64::from(owner.connection.generation)
}

fn unpack(packed: u64) -> Option<Owner> {
    let shard = ShardId(((packed >> 56) as u8).checked_sub(1)?);
    let slot = (packed >> 32) as u32 & (ConnectionId::SLOTS_MAX - 1);
    Some(Owner { shard, connection: ConnectionId { slot, generation: packed as u32 } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(shard: u8, slot: u32, generation: u32) -> Owner {
        Owner { shard: ShardId(shard), connection: ConnectionId { slot, generation } }
    }

    #[test]
    fn owners_come_back() {
        for owner in [owner(0, 0, 0), owner(3, 17, 4), owner(254, ConnectionId::SLOTS_MAX - 1, u32::MAX)] {
            assert_eq!(unpack(pack(owner)), Some(owner));
        }
        assert_eq!(unpack(0), None);
    }

    #[test]
    fn a_late_release_does_not_take_the_successor_away() {
        let state = AgentState::new(Counter::ZERO);
        assert_eq!(state.take_over(owner(0, 1, 1)), None);
        assert_eq!(state.take_over(owner(1, 9, 1)), Some(owner(0, 1, 1)));
        assert!(!state.release(owner(0, 1, 1)));
        assert_eq!(state.owner(), Some(owner(1, 9, 1)));
        assert!(state.release(owner(1, 9, 1)));
        assert_eq!(state.owner(), None);
    }

    #[test]
    fn the_return_path_ends() {
        let state = AgentState::new(Counter::ZERO);
        let to: SocketAddr = "192.0.2.1:40000".parse().unwrap();
        assert_eq!(state.return_path(Time::ZERO), None);
        assert!(state.set_return_path(to, 3, Time::from_seconds(4)));
        assert!(!state.set_return_path(to, 3, Time::from_seconds(5)), "no news");
        assert_eq!(state.return_path(Time::from_seconds(1_204)), Some(to));
        assert_eq!(state.return_path_and_listener(Time::from_seconds(1_204)), Some((to, 3)));
        assert_eq!(state.return_path(Time::from_seconds(1_205)), None);
        state.forget_return_path();
        assert_eq!(state.return_path(Time::from_seconds(6)), None);
    }

    #[test]
    fn what_became_of_messages_is_counted_and_what_was_said_is_known() {
        let state = AgentState::new(Counter::ZERO);
        for verdict in [
            Verdict::Event,
            Verdict::Dropped(crate::Reason::SinkFull),
            Verdict::Event,
            Verdict::Control(crate::ControlKind::Ping),
        ] {
            state.count(verdict);
        }
        assert_eq!((state.events(), state.dropped()), (2, 1));
        assert_eq!([4, 4, 6, 6].map(|digest| state.says_again(digest)), [false, true, false, true]);
        state.forget_keep_alive();
        assert!(!state.says_again(6));
    }

    #[test]
    fn heard() {
        let state = AgentState::new(Counter::ZERO);
        assert_eq!((state.last_seen(), state.method(), state.transport()), (None, None, None));
        state.heard(Time::ZERO, Method::AesOssec, Transport::Udp);
        assert_eq!(state.last_seen(), Some(Time::ZERO));
        assert_eq!((state.method(), state.transport()), (Some(Method::AesOssec), Some(Transport::Udp)));
    }
}
