//! Datagrams and bytes of streams, as they come out of the ring.

use manager::{ConnectionId, Reason, Time};
use uring::{Armed, Completion, Errno, Lease, Op, Tag, Target, sockets};

use super::Shard;
use super::batch::Ending;
use super::connections::Role;
use super::op_kind::OpKind;
use crate::sink::Level;

/// A connection that has this much kept is not read on, until all of it is decoded.
const HELD_BYTES_MAX: usize = 64 * 1024;

impl Shard {
    /// Receives datagrams of a listener from now on.
    pub(super) fn arm_datagrams(&mut self, listener: usize) {
        let state = &mut self.listeners[listener];
        let Some(udp) = &state.udp else { return };
        let ring = &mut self.rings[0];
        let group = ring.datagrams.expect("the primary ring has buffers for datagrams");
        let socket = Target::from(std::sync::Arc::clone(udp));
        let tag = Tag::new(OpKind::ReceiveDatagrams as u8, 0, listener as u32);
        ring.ring.push(Op::ReceiveDatagrams { socket, group }, tag);
        state.receiving = true;
    }

    pub(super) fn on_datagram(&mut self, ring: usize, completion: Completion) {
        let listener = completion.tag.slot() as usize;
        if let Some(lease) = completion.lease {
            self.take_datagram(listener, ring, lease);
        }
        if completion.armed == Armed::Still {
            return;
        }
        self.listeners[listener].receiving = false;
        if completion.result == Err(Errno::NOBUFS) {
            self.listeners[listener].starved = true;
            let group = self.rings[0].datagrams.expect("datagrams were received into it");
            self.rings[0].ring.starve(group, completion.tag);
        } else if self.stopping.is_none() && completion.result.is_ok() {
            self.arm_datagrams(listener);
        }
    }

    /// Counts listeners from which nothing is received or accepted now.
    pub(super) fn count_deaf(&mut self) {
        let deaf = |(index, state): &(usize, &super::ListenerState)| {
            state.udp.is_some() && !state.receiving && !state.starved || self.is_unheard(*index)
        };
        let count = self.listeners.iter().enumerate().filter(deaf).count();
        self.metrics.listeners_deaf.set(if self.stopping.is_some() { 0 } else { count as u64 });
    }

    /// Receives again where an error of the host's had ended it.
    pub(super) fn revive_datagrams(&mut self) {
        for listener in 0..self.listeners.len() {
            let state = &self.listeners[listener];
            if !state.receiving && !state.starved && self.stopping.is_none() {
                self.arm_datagrams(listener);
            }
        }
    }

    fn take_datagram(&mut self, listener: usize, ring: usize, lease: Lease) {
        let Ok(datagram) = self.rings[ring].ring.datagram(&lease) else {
            // No sender of an internet family: nobody of ours can have sent it.
            self.manager.record_dropped(Reason::Malformed, 1);
            self.rings[ring].ring.give_back(lease);
            return;
        };
        let drops = datagram
            .kernel_drops
            .map_or(0, |drops| newly_dropped(&mut self.listeners[listener].drops_counted, drops));
        let (from, bytes, truncated) =
            (datagram.from, datagram.payload.len(), datagram.truncated_from.is_some());
        if drops > 0 {
            self.manager.record_dropped(Reason::Kernel, drops);
        }
        if truncated {
            self.manager.record_dropped(Reason::Truncated, 1);
            self.rings[ring].ring.give_back(lease);
            return;
        }
        if self.listeners[listener].is_plain {
            self.batch.add_datagram(listener, from, ring, lease, bytes);
        } else {
            self.guard_datagram(listener, from, ring, lease, bytes);
        }
    }

    /// Counts what the kernel dropped since it was counted last, also if no datagram came to tell it.
    pub(super) fn count_kernel_drops(&mut self) {
        for listener in &mut self.listeners {
            let Some(udp) = &listener.udp else { continue };
            let Ok(drops) = sockets::kernel_drops(udp) else { continue };
            let more = newly_dropped(&mut listener.drops_counted, drops);
            if more > 0 {
                self.manager.record_dropped(Reason::Kernel, more);
            }
        }
    }

    /// Receives a connection's bytes from now on, if it should.
    pub(super) fn arm_stream(&mut self, id: ConnectionId) {
        if self.stopping.is_some() {
            return;
        }
        let (ring, slot) = self.place(id.slot);
        let Some(connection) = self.connections.find(id).filter(|connection| connection.wants_receive())
        else {
            return;
        };
        connection.receiving = true;
        let ring = &mut self.rings[ring];
        let tag = ring.slots.tag(OpKind::ReceiveStream as u8, slot);
        ring.ring.push(Op::ReceiveStream { socket: slot.into(), group: ring.streams }, tag);
    }

    pub(super) fn on_stream(&mut self, ring: usize, completion: Completion, now: Time) {
        let Completion { tag, result, lease, armed, .. } = completion;
        let slot = ring as u32 * self.table_slots + tag.slot();
        if armed == Armed::No {
            self.on_receive_ended(slot);
        }
        let current = self.rings[ring].slots.tenant(tag).is_some();
        let Some(connection) = self.connections.open(slot).filter(|connection| current && !connection.ended)
        else {
            lease.into_iter().for_each(|lease| self.rings[ring].ring.give_back(lease));
            return;
        };
        let id = connection.id;
        if let Some(lease) = lease {
            match connection.role {
                Role::Agent => self.take_bytes(id, ring, lease),
                Role::Lines(_) | Role::Proxied { .. } => self.guard_bytes(now, id, ring, lease),
            }
        }
        match (result, armed) {
            (Ok(0), _) => self.end_stream(id),
            (Ok(_) | Err(Errno::CANCELED), Armed::No) if self.stopping.is_some() => self.end_stream(id),
            (Ok(_) | Err(Errno::CANCELED), Armed::No) => self.arm_stream(id),
            (Ok(_), Armed::Still) => {}
            (Err(Errno::NOBUFS), _) => self.starve_stream(id, ring, tag),
            (Err(_), _) => self.end_stream(id),
        }
    }

    /// A connection's receive had its last completion.
    fn on_receive_ended(&mut self, slot: u32) {
        match self.connections.open(slot) {
            Some(connection) => connection.receiving = false,
            None => self.on_operation_ended(slot),
        }
    }

    /// Cuts what came into messages; or keeps it, while a sink is at its hard bound, earlier bytes are kept, or the agent has
    /// had its share of the round.
    fn take_bytes(&mut self, id: ConnectionId, ring: usize, lease: Lease) {
        let hard = self.stopping.is_none() && self.sinks.level() == Level::Hard;
        let connection = self.connections.find(id).expect("the caller has just found it");
        let waits = !connection.held.is_empty() || connection.held_until.is_some();
        if hard || waits || connection.share_left(self.tally.rounds) == 0 {
            self.hold_lease(id, ring, lease);
            return;
        }
        let before = self.batch.messages.len();
        self.batch.cut_lease(connection, self.rings[ring].ring.bytes(&lease));
        connection.taken += (self.batch.messages.len() - before) as u32;
        self.batch.leases.push((ring, lease));
    }

    /// Keeps what came for a later turn.
    pub(super) fn hold_lease(&mut self, id: ConnectionId, ring: usize, lease: Lease) {
        let ring_of_lease = &mut self.rings[ring].ring;
        let connection = self.connections.find(id).expect("the caller has just found it");
        let before = connection.held.len();
        connection.held.append(ring_of_lease.bytes(&lease));
        ring_of_lease.give_back(lease);
        let crossed = before < HELD_BYTES_MAX && connection.held.len() >= HELD_BYTES_MAX;
        if crossed && connection.receiving {
            self.cancel_receive(id);
        }
        self.queue_backlog(id);
    }

    /// Has the kernel end a connection's receive; what it has by then still comes.
    pub(super) fn cancel_receive(&mut self, id: ConnectionId) {
        let (ring, slot) = self.place(id.slot);
        let ring = &mut self.rings[ring];
        let tag = ring.slots.tag(OpKind::ReceiveStream as u8, slot);
        ring.ring.push(Op::Cancel { tag }, Tag::new(OpKind::Cancel as u8, 0, 0));
    }

    /// The peer is done. What it sent before comes first.
    pub(super) fn end_stream(&mut self, id: ConnectionId) {
        let connection = self.connections.find(id).expect("the caller has just found it");
        connection.ended = true;
        if connection.held.is_empty() {
            self.batch.endings.push(Ending::Closed(id));
        }
    }

    fn starve_stream(&mut self, id: ConnectionId, ring: usize, tag: Tag) {
        let connection = self.connections.find(id).expect("the caller has just found it");
        connection.starved = true;
        let ring = &mut self.rings[ring];
        ring.ring.starve(ring.streams, tag);
    }

    /// Gives the turn's buffers back to the kernel, and arms again what had ended for want of them.
    pub(super) fn give_back(&mut self) {
        for (ring, lease) in self.batch.leases.drain(..) {
            self.rings[ring].ring.give_back(lease);
        }
        self.batch.clear();
        for ring in 0..self.rings.len() {
            self.feed_streams(ring);
        }
        let group = self.rings[0].datagrams.expect("the primary ring has buffers for datagrams");
        while let Some(tag) = self.rings[0].ring.next_fed(group) {
            let listener = tag.slot() as usize;
            self.listeners[listener].starved = false;
            if self.stopping.is_none() {
                self.arm_datagrams(listener);
            }
        }
    }

    /// Arms starved receives of streams: no more in a turn than there are buffers, or the rest would only starve again.
    fn feed_streams(&mut self, index: usize) {
        let ring = &self.rings[index];
        let group = ring.streams;
        for _ in 0..ring.ring.available(group) {
            let Some(tag) = self.rings[index].ring.next_fed(group) else { return };
            if self.rings[index].slots.tenant(tag).is_none() {
                continue;
            }
            let slot = index as u32 * self.table_slots + tag.slot();
            let Some(connection) = self.connections.open(slot) else { continue };
            connection.starved = false;
            let id = connection.id;
            self.arm_stream(id);
        }
    }
}

/// How many datagrams a socket dropped since that was asked last, if it says that it dropped `drops` in all.
fn newly_dropped(counted: &mut u32, drops: u32) -> u64 {
    // The number wraps; one that seems older is an earlier datagram's.
    let more = drops.wrapping_sub(*counted).cast_signed();
    if more <= 0 {
        return 0;
    }
    *counted = drops;
    u64::from(more.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::newly_dropped;

    #[test]
    fn drops_are_counted_once_and_across_the_wrap() {
        let mut counted = 0;
        let told = [(0, 0), (5, 5), (5, 0), (3, 0), (9, 4), (u32::MAX / 2, u32::MAX / 2 - 9)];
        for (drops, more) in told {
            assert_eq!(newly_dropped(&mut counted, drops), u64::from(more), "{drops}");
        }
        counted = u32::MAX - 1;
        assert_eq!(newly_dropped(&mut counted, 3), 5);
    }
}
