//! Back-pressure: connections that bring events are not read while a sink is full; the others never notice.
//!
//! At the soft bound a connection that brings an event is paused: its receive is cancelled, and what came until then is still
//! taken. At the hard bound nothing of a stream is decoded that need not be: what comes is kept as it is. A connection
//! that is not paused is then decoded in small slices, so that its control messages are answered; its first event pauses
//! it. Below half of the soft bound all go on, with what is kept before what comes.
//!
//! The same list has the connections that brought more than their share of a turn: their rest is decoded like what was kept
//! in a stall, a slice each turn, beside what others bring.

use std::collections::VecDeque;

use super::batch::Ending;
use super::connections::Role;
use super::{Shard, TURN_MESSAGES_MAX};
use crate::sink::Level;
use manager::{ConnectionId, Time};

/// What is decoded at once of a connection's kept bytes.
const SLICE_BYTES: usize = 16 * 1024;

/// The same while a sink is at its hard bound: room for a control message, and for few events.
const SLICE_BYTES_HARD: usize = 1_024;

/// What kept bytes may bring in one turn, in messages: the rest of it is for what comes.
const TURN_BACKLOG_MAX: usize = TURN_MESSAGES_MAX / 2;

/// Connections that go on in one turn.
const RESUMES_MAX: usize = 256;

/// Who is paused, and who has bytes that were kept.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Connections that brought an event in this turn while a sink was over its soft bound.
    pub(super) over: Vec<ConnectionId>,
    /// Connections paused now.
    pub(super) paused_now: u64,
    /// Times a connection was paused.
    pub(super) pauses: u64,
    /// Paused connections, the longest paused first; some are closed by now.
    paused: VecDeque<ConnectionId>,
    /// Connections with kept bytes that are not paused; some are by now, or are closed.
    backlog: VecDeque<ConnectionId>,
    /// The sinks had become empty enough, and not all that were paused go on yet.
    resuming: bool,
}

impl Shard {
    /// Pauses the connections that brought an event while a sink was over its soft bound.
    pub(super) fn pause_over(&mut self, now: Time) {
        let mut over = std::mem::take(&mut self.pressure.over);
        for id in over.drain(..) {
            self.pause(now, id);
        }
        self.pressure.over = over;
    }

    fn pause(&mut self, now: Time, id: ConnectionId) {
        if self.stopping.is_some() {
            return;
        }
        let Some(connection) = self.connections.find(id).filter(|connection| !connection.paused) else {
            return;
        };
        connection.paused = true;
        let held = connection.held_until.is_some();
        if connection.receiving && !held {
            self.cancel_receive(id);
        }
        self.forget_closed();
        self.pressure.paused.push_back(id);
        self.pressure.paused_now += 1;
        self.pressure.pauses += 1;
        if !held {
            self.manager.on_paused(now, id);
            self.act(None);
        }
    }

    /// Keeps the list of paused connections short, however many of them are closed in a long stall.
    fn forget_closed(&mut self) {
        if self.pressure.paused.len() as u64 > 2 * self.pressure.paused_now + 64 {
            self.pressure.paused.retain(|id| self.connections.find(*id).is_some());
        }
    }

    /// Lets paused connections go on, if the sinks have become empty enough.
    pub(super) fn relieve(&mut self, now: Time) {
        if self.pressure.paused.is_empty() {
            self.pressure.resuming = false;
            return;
        }
        self.pressure.resuming |= self.sinks.level() == Level::Low;
        for _ in 0..RESUMES_MAX {
            self.pressure.resuming &= self.sinks.level() < Level::Soft;
            if !self.pressure.resuming {
                return;
            }
            match self.pressure.paused.pop_front() {
                Some(id) => self.resume(now, id),
                None => self.pressure.resuming = false,
            }
        }
        self.due.again = true;
    }

    /// Lets every paused connection's kept bytes be decoded, whatever the level: the shard stops.
    pub(super) fn release_all(&mut self, now: Time) {
        while let Some(id) = self.pressure.paused.pop_front() {
            self.resume(now, id);
        }
    }

    fn resume(&mut self, now: Time, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.paused = false;
        self.pressure.paused_now -= 1;
        if connection.held_until.is_some() {
            return;
        }
        self.manager.on_resumed(now, id);
        self.act(None);
        self.queue_backlog(id);
        self.arm_stream(id);
    }

    /// Has a connection's kept bytes decoded in the turns to come, unless it is paused.
    pub(super) fn queue_backlog(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        if connection.held.is_empty() || connection.waits() || connection.in_backlog {
            return;
        }
        connection.in_backlog = true;
        self.pressure.backlog.push_back(id);
        self.due.again = true;
    }

    /// Decodes kept bytes, a slice of each connection a turn.
    pub(super) fn decode_backlog(&mut self) {
        let stopping = self.stopping.is_some();
        let hard = !stopping && self.sinks.level() == Level::Hard;
        let slice = if hard { SLICE_BYTES_HARD } else { SLICE_BYTES };
        for _ in 0..self.pressure.backlog.len() {
            if self.turn_messages() >= TURN_BACKLOG_MAX {
                break;
            }
            let id = self.pressure.backlog.pop_front().expect("it was counted");
            let Some(connection) = self.connections.find(id) else { continue };
            if connection.waits() {
                connection.in_backlog = false;
                continue;
            }
            match connection.role {
                Role::Agent => {
                    let before = self.batch.messages.len();
                    connection.share_left(self.tally.rounds);
                    self.batch.cut_held(connection, slice);
                    connection.taken += (self.batch.messages.len() - before) as u32;
                }
                Role::Lines(_) => self.cut_held_lines(id, slice),
                Role::Proxied { .. } => {
                    unreachable!("what follows its header is kept once it is none any more")
                }
            }
            let Some(connection) = self.connections.find(id) else { continue };
            if !connection.held.is_empty() {
                self.pressure.backlog.push_back(id);
                continue;
            }
            connection.in_backlog = false;
            if connection.ended {
                self.batch.endings.push(Ending::Closed(id));
            }
            self.arm_stream(id);
        }
        self.due.again |= !self.pressure.backlog.is_empty();
    }

    /// Whether kept bytes wait to be decoded.
    pub(super) fn has_backlog(&self) -> bool {
        !self.pressure.backlog.is_empty()
    }
}
