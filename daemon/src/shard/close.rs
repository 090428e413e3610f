//! The end of a connection, in this order: forgotten, cancelled, last completions, closed, its slot free.
//!
//! close() alone would neither end the requests on a socket nor free it, and a slot that is free too early would give a new
//! connection the completions of the old one.

use manager::{ConnectionId, Reason};
use uring::{Op, Tag};

use super::Shard;
use super::connections::{Entry, Role};
use super::op_kind::OpKind;

impl Shard {
    /// First: the connection is forgotten, and its operations are cancelled. Harmless if it is closed already.
    pub(super) fn begin_close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        let held_until = connection.held_until.take();
        let is_agent = matches!(connection.role, Role::Agent);
        self.forget_hold(id, held_until);
        if !is_agent {
            self.end_lines(id);
        }
        let Some(connection) = self.connections.find(id) else { return };
        // What was kept of it in a stall is lost with it: a newer connection's counters are beyond it.
        let lost = self.batch.drop_held(connection);
        if lost > 0 {
            self.manager.record_dropped(Reason::ConnectionClosed, lost);
        }
        let mut operations = connection.operations();
        let paused = connection.paused;
        let mut receipts = connection.receipts.end(&mut self.outcomes);
        if paused {
            self.pressure.paused_now -= 1;
        }
        let (ring, slot) = self.place(id.slot);
        // Before the end it can still be asked what the peer has of it, unless that is being asked already.
        if let Some(receipts) = &mut receipts
            && !receipts.looking
        {
            operations += 1;
            receipts.looking = true;
            self.ask_unacknowledged(id.slot);
        }
        *self.connections.entry(id.slot) = Entry::Closing { operations, receipts };
        if operations == 0 {
            self.close(id.slot);
            return;
        }
        let tag = Tag::new(OpKind::Cancel as u8, 0, 0);
        self.rings[ring].ring.push(Op::CancelAll { target: slot.into() }, tag);
    }

    /// Second: an operation of a closing connection had its last completion.
    pub(super) fn on_operation_ended(&mut self, slot: u32) {
        let Entry::Closing { operations, receipts: _ } = self.connections.entry(slot) else {
            unreachable!("slot {slot} has an operation and is neither open nor closing")
        };
        *operations -= 1;
        if *operations == 0 {
            self.close(slot);
        }
    }

    /// Third: nothing of it is with the kernel any more.
    fn close(&mut self, slot: u32) {
        let (ring, in_ring) = self.place(slot);
        let ring = &mut self.rings[ring];
        let tag = ring.slots.tag(OpKind::Close as u8, in_ring);
        ring.ring.push(Op::Close { slot: in_ring }, tag);
    }

    /// Last: the slot may be used again.
    pub(super) fn on_close(&mut self, ring: usize, tag: Tag) {
        let in_ring = self.rings[ring].slots.tenant(tag).expect("a slot is kept until it is closed");
        *self.connections.entry(ring as u32 * self.table_slots + in_ring.index()) = Entry::Free;
        self.rings[ring].slots.release(in_ring);
        self.due.accepts = true;
    }
}
