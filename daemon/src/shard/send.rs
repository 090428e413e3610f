//! What goes to agents: frames on connections, datagrams, and mail to other shards.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use manager::{ConnectionId, ShardId};
use uring::{Completion, Op, SendMode, Tag, Target};

use super::Shard;
use super::op_kind::OpKind;
use crate::mail::{Mail, MailFull};

/// Datagrams to agents that may be with the kernel at once; more are dropped and counted, as the network may drop them.
pub(super) const REPLIES_MAX: u32 = 4_096;

/// What was sent, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Messages handed to the kernel.
    pub(super) sent: u64,
    /// Their bytes.
    pub(super) sent_bytes: u64,
    /// Datagrams that were not sent, or that the kernel refused.
    pub(super) replies_dropped: u64,
    /// Connections closed because their agent does not read.
    pub(super) slow_readers: u64,
    pub(super) replies: u32,
    /// Connections that could not take a frame, to be closed once all actions are carried out.
    full: Vec<ConnectionId>,
}

impl Shard {
    /// Queues a frame on a connection. If its agent does not read, the connection is closed.
    pub(super) fn send_frame(&mut self, id: ConnectionId, bytes: Bytes) {
        let Some(connection) = self.connections.find(id) else { return };
        let length = bytes.len() as u64;
        match connection.sends.push(bytes) {
            Ok(()) => {
                connection.receipts.queued(length);
                self.outgoing.sent += 1;
                self.outgoing.sent_bytes += length;
                self.continue_sending(id);
            }
            Err(_) => self.outgoing.full.push(id),
        }
    }

    /// Closes the connections whose agents do not read.
    pub(super) fn close_slow_readers(&mut self) {
        while let Some(id) = self.outgoing.full.pop() {
            if self.connections.find(id).is_some() {
                self.outgoing.slow_readers += 1;
                self.manager.on_closed(id);
                self.begin_close(id);
            }
        }
    }

    /// Sends a datagram from the socket of a listener: the one that the agent spoke to, if that is known.
    pub(super) fn send_reply(&mut self, listener: Option<usize>, to: SocketAddr, bytes: Bytes) {
        let speaks = |state: &super::ListenerState| state.udp.is_some() && state.is_secure();
        let of_family = |state: &super::ListenerState| speaks(state) && state.is_ipv4 == to.is_ipv4();
        let state = listener.map(|listener| &self.listeners[listener]).filter(|state| speaks(state));
        let state = state.or_else(|| self.listeners.iter().find(|state| of_family(state)));
        let state = state.or_else(|| self.listeners.iter().find(|state| speaks(state)));
        let Some(udp) = state.and_then(|state| state.udp.as_ref()) else {
            self.outgoing.replies_dropped += 1;
            return;
        };
        if self.outgoing.replies >= REPLIES_MAX {
            self.outgoing.replies_dropped += 1;
            return;
        }
        self.outgoing.replies += 1;
        self.outgoing.sent += 1;
        self.outgoing.sent_bytes += bytes.len() as u64;
        let socket = Target::from(Arc::clone(udp));
        let op = Op::SendTo { socket, to, bytes, mode: SendMode::Nonblocking };
        self.rings[0].ring.push(op, Tag::new(OpKind::Reply as u8, 0, 0));
    }

    pub(super) fn on_reply(&mut self, completion: &Completion) {
        self.outgoing.replies -= 1;
        if completion.result.is_err() {
            self.outgoing.replies_dropped += 1;
        }
    }

    /// Leaves mail for another shard; if its box is full, the next turn tries again.
    pub(super) fn send_mail(&mut self, shard: ShardId, mail: Mail) {
        let mailer = self.mailers.get(usize::from(shard.0)).expect("there is a box for each shard");
        if let Err(MailFull) = mailer.send(mail) {
            // At most one for each agent: a connection is overtaken once.
            self.unsent.push((shard, mail));
            self.due.again = true;
        }
    }

    pub(super) fn on_send(&mut self, ring: usize, completion: &Completion) {
        let slot = ring as u32 * self.table_slots + completion.tag.slot();
        let Some(connection) = self.connections.open(slot) else {
            self.on_operation_ended(slot);
            return;
        };
        connection.sending = false;
        let id = connection.id;
        match completion.result {
            Ok(sent) => {
                connection.sends.advance(sent);
                let look = connection.receipts.sent(u64::from(sent), &mut self.outcomes);
                self.continue_sending(id);
                if look {
                    self.look_soon(id);
                }
            }
            Err(_) if connection.ended => {}
            Err(_) => self.end_stream(id),
        }
    }

    fn continue_sending(&mut self, id: ConnectionId) {
        let (ring, slot) = self.place(id.slot);
        let Some(connection) = self.connections.find(id) else { return };
        let Some(bytes) = connection.sends.next_send() else { return };
        connection.sending = true;
        let ring = &mut self.rings[ring];
        let tag = ring.slots.tag(OpKind::Send as u8, slot);
        ring.ring.push(Op::Send { socket: slot.into(), bytes, mode: SendMode::Waiting }, tag);
    }
}
