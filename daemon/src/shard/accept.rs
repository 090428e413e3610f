//! New connections: accepts that each have a slot before they are armed.

use std::sync::Arc;

use manager::{Admission, ConnectionId, Time};
use uring::{Completion, Op};

use super::connections::Entry;
use super::op_kind::OpKind;
use super::{Shard, ShardError};
use crate::settings::{ListenerKind, Settings};

/// How many accepts wait for each listener and ring. Each has an address of its own: a multishot accept can't tell whom it
/// accepted.
const ACCEPTS_EACH: u32 = 16;

/// Slots that accepts may occupy beside the connections.
pub(super) fn accepts_max(listeners: usize) -> u32 {
    u32::try_from(listeners.max(8)).expect("the settings allow few listeners") * ACCEPTS_EACH
}

/// Connections that a shard may have in all: agents', and devices'.
pub(super) fn connections_max(settings: &Settings) -> u32 {
    let syslog = settings
        .listeners()
        .iter()
        .any(|listener| listener.kind == ListenerKind::Syslog && listener.transports.tcp);
    let devices = if syslog { settings.syslog.connections_max } else { 0 };
    settings.shards.connections_max.saturating_add(devices)
}

impl Shard {
    /// Arms what accepts are missing. Opens a spare ring when a listener can have none in the tables there are.
    pub(super) fn arm_accepts(&mut self) -> Result<(), ShardError> {
        if self.stopping.is_some() || !std::mem::take(&mut self.due.accepts) {
            return Ok(());
        }
        for ring in 0..self.rings.len() {
            self.arm_accepts_of(ring);
        }
        let unheard = |listener| self.is_unheard(listener);
        let slots = self.table_slots.saturating_mul(self.rings.len() as u32);
        let room = slots < connections_max(&self.settings);
        if room && (0..self.listeners.len()).any(unheard) {
            self.open_spare()?;
            self.arm_accepts_of(self.rings.len() - 1);
        }
        Ok(())
    }

    /// Whether no ring accepts what comes to a listener, which has connections.
    pub(super) fn is_unheard(&self, listener: usize) -> bool {
        let accepting =
            |ring: &super::ShardRing| ring.accepting.get(listener).is_some_and(|count| *count > 0);
        self.listeners[listener].tcp.is_some() && !self.rings.iter().any(accepting)
    }

    fn arm_accepts_of(&mut self, index: usize) {
        let ring = &mut self.rings[index];
        ring.accepting.resize(self.listeners.len(), 0);
        for (listener, state) in self.listeners.iter().enumerate() {
            let Some(tcp) = &state.tcp else { continue };
            while ring.accepting[listener] < ACCEPTS_EACH {
                let Some(into) = ring.slots.allocate() else { return };
                let tag = ring.slots.tag(OpKind::Accept as u8, into);
                ring.ring.push(Op::Accept { listener: Arc::clone(tcp).into(), into }, tag);
                ring.accepting[listener] += 1;
                let slot = index as u32 * self.table_slots + into.index();
                *self.connections.entry(slot) = Entry::Accepting { listener };
            }
        }
    }

    pub(super) fn on_accept(&mut self, ring: usize, completion: &Completion, now: Time) {
        let tag = completion.tag;
        let in_ring = self.rings[ring].slots.tenant(tag).expect("a slot is kept until its accept completes");
        let slot = ring as u32 * self.table_slots + in_ring.index();
        let Entry::Accepting { listener } = *self.connections.entry(slot) else {
            unreachable!("slot {slot} waits for its accept")
        };
        self.rings[ring].accepting[listener] -= 1;
        if completion.result.is_err() {
            // The peer is gone already, or the host has no room: the next tick tries again.
            *self.connections.entry(slot) = Entry::Free;
            self.rings[ring].slots.release(in_ring);
            return;
        }
        self.due.accepts = true;
        let id = ConnectionId { slot, generation: tag.generation() };
        let agents = &self.settings.agents;
        let (frame, send) = (agents.message_bytes_max as usize, agents.send_queue_bytes_max as usize);
        let place = u16::try_from(listener).expect("the settings allow few listeners");
        self.connections.accept(id, place, frame, send);
        let admitted = completion.peer.is_some_and(|from| {
            if self.listeners[listener].is_plain {
                self.manager.on_connected(now, id, from) == Admission::Admit
            } else {
                self.guard_connection(now, id, listener, from)
            }
        });
        if admitted { self.arm_stream(id) } else { self.begin_close(id) }
    }
}
