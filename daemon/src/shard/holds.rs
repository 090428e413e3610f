//! Connections whose agents send more events than they may: not read for a while, so that they wait and lose nothing.

use std::collections::BTreeSet;

use manager::{ConnectionId, Time};

use super::Shard;

/// Who is held, and until when.
#[derive(Debug, Default)]
pub(super) struct Holds {
    due: BTreeSet<(Time, ConnectionId)>,
    /// Times a connection was held.
    pub(super) count: u64,
}

impl Holds {
    /// The earliest time at which one goes on.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    /// How many are held.
    pub(super) fn held(&self) -> u64 {
        self.due.len() as u64
    }
}

impl Shard {
    /// Does not read a connection until `until`.
    pub(super) fn hold(&mut self, id: ConnectionId, until: Time) {
        if self.stopping.is_some() {
            return;
        }
        let Some(connection) = self.connections.find(id) else { return };
        let before = connection.held_until.replace(until);
        let (receiving, paused) = (connection.receiving, connection.paused);
        self.holds.due.insert((until, id));
        if let Some(before) = before {
            if before != until {
                self.holds.due.remove(&(before, id));
            }
            return;
        }
        self.holds.count += 1;
        if receiving {
            self.cancel_receive(id);
        }
        if !paused {
            self.manager.on_paused(self.now(), id);
        }
    }

    /// Lets those go on whose time has come.
    pub(super) fn release_due(&mut self, now: Time) {
        while let Some((time, id)) = self.holds.due.first().copied()
            && time <= now
        {
            self.release(now, id);
        }
    }

    /// Lets all go on: the shard stops.
    pub(super) fn release_holds(&mut self, now: Time) {
        while let Some((_, id)) = self.holds.due.first().copied() {
            self.release(now, id);
        }
    }

    /// A connection is closed: nobody waits for its time any more.
    pub(super) fn forget_hold(&mut self, id: ConnectionId, until: Option<Time>) {
        if let Some(until) = until {
            self.holds.due.remove(&(until, id));
        }
    }

    fn release(&mut self, now: Time, id: ConnectionId) {
        let connection = self.connections.find(id).expect("a closed connection is not held");
        let until = connection.held_until.take().expect("it is held");
        let paused = connection.paused;
        self.holds.due.remove(&(until, id));
        if paused {
            return;
        }
        self.manager.on_resumed(now, id);
        self.act(None);
        self.queue_backlog(id);
        self.arm_stream(id);
    }
}
