//! The connections of one shard, their limits and their deadlines.
//!
//! Each connection has one entry in `deadlines`, never later than when it is really due. Hearing from a connection moves
//! nothing there; when the entry comes up, the connection is either due or put back for when it will be. So a message
//! costs nothing, and a connection costs O(log n) once in a deadline's length.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::action::ConnectionId;
use crate::deliver::Delivering;
use crate::settings::Settings;
use crate::time::Time;
use crate::verdict::Refusal;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) from: SocketAddr,
    /// Index of the agent whose genuine messages it carries.
    pub(crate) agent: Option<u32>,
    /// Whether the agent got an acknowledgement here, which must be the first thing that it receives.
    pub(crate) greeted: bool,
    /// Whether its agent said that it goes: what that raises goes around back-pressure, so it is raised once.
    pub(crate) said_goodbye: bool,
    /// Whether its agent offered to number its events: then it knows more words than acknowledgements.
    pub(crate) offered: bool,
    /// Whether its agent numbers its events and gets them confirmed.
    pub(crate) delivery: Option<Box<Delivering>>,
    paused: bool,
    opened: Time,
    last_heard: Time,
    /// When an agent that is paused gets the next acknowledgement.
    next_unasked: Time,
    /// The time of its entry in `deadlines`.
    queued: Time,
}

/// What a connection's deadline means when it has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    /// Paused, and its agent should hear that the manager lives. The next one is scheduled already.
    Acknowledge,
    /// Authenticated and silent for too long.
    Silent,
    /// Not authenticated in time.
    Unauthenticated,
}

/// All connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    held: u32,
    /// How many connections of each address are not authenticated. No entry is zero, so this is never larger than the
    /// limit of unauthenticated connections.
    unauthenticated: HashMap<IpAddr, u32>,
    unauthenticated_total: u32,
    /// How many were not authenticated when the settings changed: a limit that was lowered below that closes nobody.
    unauthenticated_before: u32,
    deadlines: BTreeSet<(Time, u32)>,
}

impl Connections {
    /// Takes a new connection in, unless a limit forbids it.
    ///
    /// # Panics
    /// If its slot is still in use: the caller must say that a connection is closed before it uses its slot again.
    pub(crate) fn admit(
        &mut self,
        now: Time,
        id: ConnectionId,
        from: SocketAddr,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        assert!(id.slot < ConnectionId::SLOTS_MAX, "a shard's slots fit into 24 bits");
        let address = from.ip().to_canonical();
        if self.held >= settings.connections_max {
            return Err(Refusal::Connections);
        }
        if self.unauthenticated_total >= settings.unauthenticated_max {
            return Err(Refusal::Unauthenticated);
        }
        if self.unauthenticated.get(&address).copied().unwrap_or(0)
            >= settings.unauthenticated_per_address_max
        {
            return Err(Refusal::UnauthenticatedAddress);
        }
        let slot = id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        assert!(self.slots[slot].is_none(), "a slot is used again only after on_closed");
        let queued = now + settings.unauthenticated_deadline;
        self.slots[slot] = Some(Connection {
            id,
            from,
            agent: None,
            greeted: false,
            said_goodbye: false,
            offered: false,
            delivery: None,
            paused: false,
            opened: now,
            last_heard: now,
            next_unasked: now,
            queued,
        });
        self.deadlines.insert((queued, id.slot));
        self.held += 1;
        self.unauthenticated_total += 1;
        *self.unauthenticated.entry(address).or_insert(0) += 1;
        Ok(())
    }

    /// A connection that is not authenticated comes from somewhere else than it seemed: it counts there from now on.
    ///
    /// # Panics
    /// If there is no such connection, or it is authenticated.
    pub(crate) fn rename(
        &mut self,
        id: ConnectionId,
        from: SocketAddr,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        let address = from.ip().to_canonical();
        let before = self.find(id).expect("the caller has it open");
        assert!(before.agent.is_none(), "an agent's connection has said where it comes from");
        let before = before.from.ip().to_canonical();
        let there = self.unauthenticated.get(&address).copied().unwrap_or(0);
        if address != before && there >= settings.unauthenticated_per_address_max {
            return Err(Refusal::UnauthenticatedAddress);
        }
        self.forget_unauthenticated(before);
        self.unauthenticated_total += 1;
        *self.unauthenticated.entry(address).or_insert(0) += 1;
        self.find_mut(id).expect("it was found a moment ago").from = from;
        Ok(())
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot as usize)?.as_ref().filter(|connection| connection.id == id)
    }

    pub(crate) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|connection| connection.id == id)
    }

    /// The connection that has this slot.
    pub(crate) fn at(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Every connection, in no particular order that a caller may rely on.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().flatten()
    }

    /// Binds a connection to its agent. Its deadline gets later, which needs no new entry.
    ///
    /// # Panics
    /// If there is no such connection or it is bound already.
    pub(crate) fn authenticate(&mut self, id: ConnectionId, agent: u32) {
        let connection = self.find_mut(id).expect("the caller has found this connection before");
        assert!(connection.agent.is_none(), "a connection is bound once");
        connection.agent = Some(agent);
        let address = connection.from.ip().to_canonical();
        self.forget_unauthenticated(address);
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.find(id)?;
        let connection = self.slots[id.slot as usize].take()?;
        self.held -= 1;
        assert!(self.deadlines.remove(&(connection.queued, id.slot)), "each connection has its entry");
        if connection.agent.is_none() {
            self.forget_unauthenticated(connection.from.ip().to_canonical());
        }
        Some(connection)
    }

    /// Back-pressure holds the connection: its silence is ours now.
    pub(crate) fn pause(&mut self, now: Time, id: ConnectionId, settings: &Settings) {
        let Some(connection) = self.find_mut(id) else { return };
        connection.paused = true;
        connection.next_unasked = now + settings.paused_acknowledgement_interval;
        let (queued, due) = (connection.queued, connection.due(settings).0);
        if due < queued {
            connection.queued = due;
            self.deadlines.remove(&(queued, id.slot));
            self.deadlines.insert((due, id.slot));
        }
    }

    /// The connection is read again: only from now on can it be silent.
    pub(crate) fn resume(&mut self, now: Time, id: ConnectionId) {
        let Some(connection) = self.find_mut(id) else { return };
        connection.paused = false;
        connection.last_heard = now;
    }

    /// Limits and deadlines are others from now on. Limits are for who comes, deadlines for everyone.
    pub(crate) fn on_settings(&mut self, settings: &Settings) {
        self.unauthenticated_before = self.unauthenticated_total;
        for connection in self.slots.iter_mut().flatten() {
            let (queued, due) = (connection.queued, connection.due(settings).0);
            if due < queued {
                connection.queued = due;
                self.deadlines.remove(&(queued, connection.id.slot));
                self.deadlines.insert((due, connection.id.slot));
            }
        }
    }

    /// The earliest time at which [`Connections::pop_due`] may have something.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(time, _)| *time)
    }

    /// The next connection whose deadline has come. A silent or unauthenticated one must be removed before the next call.
    pub(crate) fn pop_due(&mut self, now: Time, settings: &Settings) -> Option<(ConnectionId, Due)> {
        loop {
            let (queued, slot) = *self.deadlines.first()?;
            if queued > now {
                return None;
            }
            let connection = self.slots[slot as usize].as_mut().expect("each entry has its connection");
            let (time, due) = connection.due(settings);
            let is_due = time <= now;
            if is_due && due != Due::Acknowledge {
                return Some((connection.id, due));
            }
            if is_due {
                connection.next_unasked = now + settings.paused_acknowledgement_interval;
            }
            connection.queued = connection.due(settings).0;
            let (id, next) = (connection.id, connection.queued);
            self.deadlines.remove(&(queued, slot));
            self.deadlines.insert((next, slot));
            if is_due {
                return Some((id, due));
            }
        }
    }

    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    pub(crate) fn authenticated(&self) -> u32 {
        self.held - self.unauthenticated_total
    }

    /// Asserts what must hold between calls. `settings` must be the ones that every call got.
    pub(crate) fn invariants(&self, settings: &Settings) {
        assert_eq!(self.deadlines.len(), self.held as usize, "one deadline for each connection");
        let unauthenticated_max = settings.unauthenticated_max.max(self.unauthenticated_before);
        assert!(self.unauthenticated_total <= self.held.min(unauthenticated_max), "limits hold");
        // All of them is for simulations; with a fleet connected, asserting would be all that a debug build does.
        if self.held > 64 {
            return;
        }
        let held = self.slots.iter().flatten();
        assert_eq!(held.clone().count(), self.held as usize);
        assert_eq!(
            held.clone().filter(|one| one.agent.is_none()).count(),
            self.unauthenticated_total as usize
        );
        assert_eq!(self.unauthenticated.values().sum::<u32>(), self.unauthenticated_total);
        for connection in held {
            assert!(self.deadlines.contains(&(connection.queued, connection.id.slot)));
            assert!(connection.queued <= connection.due(settings).0, "an entry is never late");
        }
    }

    fn forget_unauthenticated(&mut self, address: IpAddr) {
        let count = self.unauthenticated.get_mut(&address).expect("each unauthenticated one was counted");
        *count -= 1;
        if *count == 0 {
            self.unauthenticated.remove(&address);
        }
        self.unauthenticated_total -= 1;
    }
}

impl Connection {
    pub(crate) fn heard(&mut self, now: Time) {
        self.last_heard = now;
    }

    /// What this connection waits for, and until when.
    fn due(&self, settings: &Settings) -> (Time, Due) {
        if self.agent.is_none() {
            (self.opened + settings.unauthenticated_deadline, Due::Unauthenticated)
        } else if self.paused {
            (self.next_unasked, Due::Acknowledge)
        } else {
            (self.last_heard + settings.silent_deadline, Due::Silent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settings() -> Settings {
        Settings {
            unauthenticated_max: 3,
            unauthenticated_per_address_max: 2,
            connections_max: 4,
            silent_deadline: Duration::from_secs(100),
            ..Settings::default()
        }
    }

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 1 }
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 40_000))
    }

    fn at(seconds: u64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn limits() {
        let (settings, mut all) = (settings(), Connections::default());
        assert_eq!(all.admit(at(0), id(0), from(1), &settings), Ok(()));
        assert_eq!(all.admit(at(0), id(1), from(1), &settings), Ok(()));
        assert_eq!(all.admit(at(0), id(2), from(1), &settings), Err(Refusal::UnauthenticatedAddress));
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:1".parse().unwrap();
        assert_eq!(all.admit(at(0), id(2), mapped, &settings), Err(Refusal::UnauthenticatedAddress));
        assert_eq!(all.admit(at(0), id(2), from(2), &settings), Ok(()));
        assert_eq!(all.admit(at(0), id(3), from(3), &settings), Err(Refusal::Unauthenticated));
        all.authenticate(id(0), 0);
        assert_eq!(all.admit(at(0), id(3), from(1), &settings), Ok(()));
        all.authenticate(id(1), 1);
        assert_eq!(all.admit(at(0), id(4), from(9), &settings), Err(Refusal::Connections));
        all.remove(id(0)).unwrap();
        assert_eq!(all.admit(at(0), id(0), from(9), &settings), Ok(()));
        all.invariants(&settings);
        for slot in 0..4 {
            all.remove(id(slot)).unwrap();
        }
        assert!(all.unauthenticated.is_empty() && all.deadlines.is_empty(), "nothing stays behind");
    }

    #[test]
    fn another_generation_is_another_connection() {
        let (settings, mut all) = (settings(), Connections::default());
        all.admit(at(0), id(0), from(1), &settings).unwrap();
        let stale = ConnectionId { slot: 0, generation: 0 };
        assert!(all.find(stale).is_none() && all.remove(stale).is_none());
        assert!(all.find(id(0)).is_some());
    }

    #[test]
    fn deadlines() {
        let (settings, mut all) = (settings(), Connections::default());
        all.admit(at(0), id(0), from(1), &settings).unwrap();
        all.admit(at(1), id(1), from(2), &settings).unwrap();
        assert_eq!(all.next_timeout(), Some(at(10)));
        assert_eq!(all.pop_due(at(9), &settings), None);
        all.authenticate(id(0), 0);
        all.find_mut(id(0)).unwrap().heard(at(8));
        assert_eq!(all.pop_due(at(11), &settings), Some((id(1), Due::Unauthenticated)));
        all.remove(id(1)).unwrap();
        assert_eq!(all.pop_due(at(11), &settings), None);
        assert_eq!(all.next_timeout(), Some(at(108)), "from when it was last heard");
        assert_eq!(all.pop_due(at(108), &settings), Some((id(0), Due::Silent)));
        all.invariants(&settings);
    }

    #[test]
    fn other_settings_are_for_those_who_come_and_their_deadlines_for_all() {
        let (settings, mut all) = (settings(), Connections::default());
        all.admit(at(0), id(0), from(1), &settings).unwrap();
        all.authenticate(id(0), 0);
        assert_eq!(all.pop_due(at(10), &settings), None);
        assert_eq!(all.next_timeout(), Some(at(100)));
        for slot in 1..3 {
            all.admit(at(20), id(slot), from(2), &settings).unwrap();
        }
        let less = Settings { unauthenticated_max: 1, silent_deadline: Duration::from_secs(25), ..settings };
        all.on_settings(&less);
        all.invariants(&less);
        assert_eq!(all.admit(at(20), id(3), from(3), &less), Err(Refusal::Unauthenticated));
        assert_eq!(all.next_timeout(), Some(at(25)));
        assert_eq!(all.pop_due(at(25), &less), Some((id(0), Due::Silent)));
        let more = Settings { silent_deadline: Duration::from_secs(50), ..less };
        all.on_settings(&more);
        assert_eq!(all.pop_due(at(25), &more), None);
        all.invariants(&more);
    }

    #[test]
    fn a_paused_connection_is_not_silent() {
        let (settings, mut all) = (settings(), Connections::default());
        all.admit(at(0), id(0), from(1), &settings).unwrap();
        all.authenticate(id(0), 0);
        assert_eq!(all.pop_due(at(20), &settings), None);
        all.pause(at(50), id(0), &settings);
        all.invariants(&settings);
        assert_eq!(all.next_timeout(), Some(at(60)));
        assert_eq!(all.pop_due(at(60), &settings), Some((id(0), Due::Acknowledge)));
        assert_eq!(all.pop_due(at(60), &settings), None);
        assert_eq!(all.pop_due(at(500), &settings), Some((id(0), Due::Acknowledge)), "never silent");
        all.resume(at(505), id(0));
        assert_eq!(all.pop_due(at(604), &settings), None);
        assert_eq!(
            all.pop_due(at(605), &settings),
            Some((id(0), Due::Silent)),
            "silent from the resumption on"
        );
        all.invariants(&settings);
    }
}
