//! New connections: accepts that each have a slot before they are armed.

use std::sync::Arc;

use manager::{Admission, ConnectionId, Time};
use uring::{Completion, Op};

use super::connections::Entry;
use super::op_kind::OpKind;
use super::{Shard, ShardError};

/// How many accepts wait for each listener and ring. Each has an address of its own: a multishot accept can't tell whom it
/// accepted.
const ACCEPTS_EACH: u32 = 16;

/// Slots that accepts may occupy beside the connections, for a few listeners.
pub(super) const ACCEPTS_MAX: u32 = 8 * ACCEPTS_EACH;

impl Shard {
    /// Arms what accepts are missing. Opens a spare ring when a listener can have none in the tables there are.
    pub(super) fn arm_accepts(&mut self) -> Result<(), ShardError> {
        if self.stopping.is_some() || !std::mem::take(&mut self.due.accepts) {
            return Ok(());
        }
        for ring in 0..self.rings.len() {
            self.arm_accepts_of(ring);
        }
        let unheard = |listener| self.rings.iter().all(|ring| ring.accepting[listener] == 0);
        let slots = self.table_slots.saturating_mul(self.rings.len() as u32);
        let room = slots < self.settings.shards.connections_max;
        if room && (0..self.listeners.len()).any(unheard) {
            self.open_spare()?;
            self.arm_accepts_of(self.rings.len() - 1);
        }
        Ok(())
    }

    fn arm_accepts_of(&mut self, index: usize) {
        let ring = &mut self.rings[index];
        ring.accepting.resize(self.listeners.len(), 0);
        for (listener, state) in self.listeners.iter().enumerate() {
            while ring.accepting[listener] < ACCEPTS_EACH {
                let Some(into) = ring.slots.allocate() else { return };
                let tag = ring.slots.tag(OpKind::Accept as u8, into);
                ring.ring.push(Op::Accept { listener: Arc::clone(&state.tcp).into(), into }, tag);
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
        self.connections.accept(id, frame, send);
        let admission = completion.peer.map(|from| self.manager.on_connected(now, id, from));
        match admission {
            Some(Admission::Admit) => self.arm_stream(id),
            Some(Admission::Refuse(_)) | None => self.begin_close(id),
        }
    }
}
