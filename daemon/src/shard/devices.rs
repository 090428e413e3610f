//! The syslog connections of one shard: how many there may be, from where, and how long each may say nothing. No I/O, no
//! clock: it is told the time.
//!
//! As with agents' connections, hearing from one moves nothing in `deadlines`: an entry that comes up is due, or is put back.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use manager::{ConnectionId, Refusal, Time};

use crate::settings::Settings;

/// All syslog connections of one shard.
#[derive(Debug)]
pub(crate) struct Devices {
    limits: Limits,
    /// By slot.
    open: HashMap<u32, Device>,
    per_address: HashMap<IpAddr, u32>,
    deadlines: BTreeSet<(Time, u32)>,
    idle: u64,
}

/// What the operator chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections.
    pub(crate) connections_max: u32,
    /// Connections of one address.
    pub(crate) per_address_max: u32,
    /// How long a connection may say nothing.
    pub(crate) idle: Duration,
    /// How long a load balancer may take to say where a connection comes from.
    pub(crate) header: Duration,
}

#[derive(Debug)]
struct Device {
    id: ConnectionId,
    from: IpAddr,
    /// What a load balancer has to say has not come yet.
    awaits_header: bool,
    heard: Time,
    /// The time of its entry in `deadlines`.
    queued: Time,
}

impl Limits {
    /// Those of these settings.
    pub(crate) fn of(settings: &Settings) -> Limits {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Limits {
            connections_max: settings.syslog.connections_max,
            per_address_max: settings.syslog.connections_per_address_max,
            idle: seconds(settings.syslog.idle_seconds),
            header: seconds(settings.agents.authentication_deadline_seconds),
        }
    }

    fn patience(&self, awaits_header: bool) -> Duration {
        if awaits_header { self.header } else { self.idle }
    }
}

impl Devices {
    /// None yet.
    pub(crate) fn new(limits: Limits) -> Devices {
        Devices {
            limits,
            open: HashMap::new(),
            per_address: HashMap::new(),
            deadlines: BTreeSet::new(),
            idle: 0,
        }
    }

    /// Other limits hold from now on. Who is over them stays.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a connection in, unless a limit forbids it.
    ///
    /// # Panics
    ///
    /// If its slot is in use.
    pub(crate) fn admit(&mut self, now: Time, id: ConnectionId, from: IpAddr) -> Result<(), Refusal> {
        self.admit_as(now, id, from, false)
    }

    /// The same for one whose load balancer has yet to say where it comes from.
    ///
    /// # Panics
    ///
    /// If its slot is in use.
    pub(crate) fn admit_proxied(&mut self, now: Time, id: ConnectionId, from: IpAddr) -> Result<(), Refusal> {
        self.admit_as(now, id, from, true)
    }

    /// It comes from somewhere else than it seemed. A refused one is forgotten.
    pub(crate) fn rename(&mut self, now: Time, id: ConnectionId, from: IpAddr) -> Result<(), Refusal> {
        self.close(id);
        self.admit(now, id, from)
    }

    /// A connection said something, or could not.
    pub(crate) fn heard(&mut self, now: Time, id: ConnectionId) {
        if let Some(device) = self.open.get_mut(&id.slot).filter(|device| device.id == id) {
            device.heard = now;
        }
    }

    /// A connection is closed. Harmless if it is none of these.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        if self.open.get(&id.slot).is_none_or(|device| device.id != id) {
            return;
        }
        let Some(device) = self.open.remove(&id.slot) else { return };
        self.deadlines.remove(&(device.queued, id.slot));
        let count = self.per_address.get_mut(&device.from).expect("each connection was counted");
        *count -= 1;
        if *count == 0 {
            self.per_address.remove(&device.from);
        }
    }

    /// When [`Devices::pop_idle`] may have something, at the earliest.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(time, _)| *time)
    }

    /// The next connection that said nothing for too long: to be closed, or to be called heard, before the next call.
    pub(crate) fn pop_idle(&mut self, now: Time) -> Option<ConnectionId> {
        loop {
            let (queued, slot) = *self.deadlines.first()?;
            if queued > now {
                return None;
            }
            let device = self.open.get_mut(&slot).expect("each entry has its connection");
            let due = device.heard + self.limits.patience(device.awaits_header);
            // At least later than now, or a shorter patience would bring it up again and again.
            device.queued = due.max(now + Duration::from_millis(1));
            let (id, next) = (device.id, device.queued);
            self.deadlines.remove(&(queued, slot));
            self.deadlines.insert((next, slot));
            if due <= now {
                return Some(id);
            }
        }
    }

    /// A connection is closed because it said nothing.
    pub(crate) fn count_idle(&mut self) {
        self.idle += 1;
    }

    /// How many there are.
    pub(crate) fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// How many were closed because they said nothing.
    pub(crate) fn idle(&self) -> u64 {
        self.idle
    }

    fn admit_as(
        &mut self,
        now: Time,
        id: ConnectionId,
        from: IpAddr,
        awaits_header: bool,
    ) -> Result<(), Refusal> {
        let from = from.to_canonical();
        if self.open.len() >= self.limits.connections_max as usize {
            return Err(Refusal::Syslog);
        }
        let of_address = self.per_address.get(&from).copied().unwrap_or(0);
        if of_address >= self.limits.per_address_max {
            return Err(Refusal::SyslogAddress);
        }
        let queued = now + self.limits.patience(awaits_header);
        let before = self.open.insert(id.slot, Device { id, from, awaits_header, heard: now, queued });
        assert!(before.is_none(), "a slot is used again only after its connection was closed");
        self.deadlines.insert((queued, id.slot));
        *self.per_address.entry(from).or_insert(0) += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 3,
        per_address_max: 2,
        idle: Duration::from_secs(100),
        header: Duration::from_secs(10),
    };

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 1 }
    }

    fn from(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    fn at(seconds: u64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn limits_in_all_and_of_an_address() {
        let mut devices = Devices::new(LIMITS);
        assert_eq!(devices.admit(at(0), id(0), from(1)), Ok(()));
        assert_eq!(devices.admit(at(0), id(1), "::ffff:192.0.2.1".parse().unwrap()), Ok(()));
        assert_eq!(devices.admit(at(0), id(2), from(1)), Err(Refusal::SyslogAddress));
        assert_eq!(devices.admit(at(0), id(2), from(2)), Ok(()));
        assert_eq!(devices.admit(at(0), id(3), from(3)), Err(Refusal::Syslog));
        devices.close(ConnectionId { slot: 0, generation: 9 });
        assert_eq!(devices.open(), 3, "another generation is another connection");
        (0..3).for_each(|slot| devices.close(id(slot)));
        assert!(devices.open.is_empty() && devices.per_address.is_empty() && devices.deadlines.is_empty());
    }

    #[test]
    fn who_says_nothing_is_due() {
        let mut devices = Devices::new(LIMITS);
        devices.admit(at(0), id(0), from(1)).unwrap();
        devices.admit(at(1), id(1), from(2)).unwrap();
        assert_eq!((devices.next_timeout(), devices.pop_idle(at(99))), (Some(at(100)), None));
        devices.heard(at(50), id(0));
        assert_eq!(devices.pop_idle(at(101)), Some(id(1)));
        devices.close(id(1));
        assert_eq!((devices.pop_idle(at(149)), devices.next_timeout()), (None, Some(at(150))));
        assert_eq!(devices.pop_idle(at(150)), Some(id(0)));
        devices.heard(at(150), id(0));
        assert_eq!(devices.pop_idle(at(151)), None, "it could not speak: from now on it can");
        assert_eq!(devices.pop_idle(at(250)), Some(id(0)));
    }

    #[test]
    fn a_load_balancer_is_given_less_time_and_then_counts_no_more() {
        let mut devices = Devices::new(LIMITS);
        devices.admit_proxied(at(0), id(0), from(9)).unwrap();
        devices.admit_proxied(at(0), id(1), from(9)).unwrap();
        assert_eq!(devices.rename(at(1), id(0), from(1)), Ok(()));
        assert_eq!(devices.pop_idle(at(10)), Some(id(1)), "no header came");
        devices.close(id(1));
        devices.admit_proxied(at(11), id(2), from(9)).unwrap();
        devices.admit(at(11), id(3), from(1)).unwrap();
        assert_eq!(devices.rename(at(12), id(2), from(1)), Err(Refusal::SyslogAddress));
        assert_eq!(devices.open(), 2);
        assert_eq!(devices.pop_idle(at(100)), None);
    }
}
