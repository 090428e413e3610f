//! The connections of one shard, by slot: what each is doing, and what of it is still with the kernel.

use std::net::SocketAddr;

use codec::{FrameCutter, ProxyCutter};
use manager::{ConnectionId, Time};
use uring::SendQueue;

use super::lines::LineStream;
use super::receipts::Receipts;

/// What one connection may bring in one round, in messages: until everything that waits with the kernel has been taken, which
/// is nearly always one turn. The buffer in which it reaches this is still decoded. More is kept, and decoded in the turns to
/// come, so that a turn always comes to everybody's.
pub(crate) const ROUND_SHARE: u32 = 128;

/// Bytes that a connection has received and that are not decoded yet: a sink is at its hard bound, or it has had its share.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes {
    bytes: Vec<u8>,
    start: usize,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Index of the listener that it came to.
    pub(crate) listener: u16,
    pub(crate) role: Role,
    pub(crate) cutter: FrameCutter,
    pub(crate) sends: SendQueue,
    /// Whose messages are among them.
    pub(crate) receipts: Receipts,
    pub(crate) held: HeldBytes,
    /// A receive is with the kernel.
    pub(crate) receiving: bool,
    /// A send is with the kernel.
    pub(crate) sending: bool,
    /// Not read, since it brought an event while a sink was over its soft bound.
    pub(crate) paused: bool,
    /// Not read until then, since its agent sends more events than it may.
    pub(crate) held_until: Option<Time>,
    /// The round in which it brought something last.
    round: u64,
    /// How many messages it brought in that round.
    pub(crate) taken: u32,
    /// Its receive ended for want of buffers, and waits for some.
    pub(crate) starved: bool,
    /// In the shard's list of connections with held bytes to decode.
    pub(crate) in_backlog: bool,
    /// Nothing more will come from it: its peer closed it, or sent what is no frame.
    pub(crate) ended: bool,
}

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// Frames of an agent, or of somebody who may become known as one.
    Agent,
    /// Lines of a device.
    Lines(Box<LineStream>),
    /// A load balancer has yet to say where it comes from.
    Proxied {
        /// What it said so far.
        cutter: Box<ProxyCutter>,
        /// The load balancer.
        from: SocketAddr,
    },
}

/// What is in a slot.
#[derive(Debug, Default)]
pub(crate) enum Entry {
    /// Nothing.
    #[default]
    Free,
    /// An accept that will fill it.
    Accepting {
        /// Index of the listener.
        listener: usize,
    },
    /// A connection.
    Open(Box<Connection>),
    /// What is left of a connection: operations with the kernel, whose last completions it waits for.
    Closing {
        /// How many.
        operations: u32,
        /// Messages whose senders are told once it is known what the peer had acknowledged.
        receipts: Option<Box<Receipts>>,
    },
}

/// All slots of one shard, over all its rings. Grows as slots come into use.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    entries: Vec<Entry>,
    accepted: u64,
}

impl Connections {
    /// The entry of a slot.
    pub(crate) fn entry(&mut self, slot: u32) -> &mut Entry {
        let slot = slot as usize;
        if self.entries.len() <= slot {
            self.entries.resize_with(slot + 1, Entry::default);
        }
        &mut self.entries[slot]
    }

    /// The open connection of this name; `None` if it is closed.
    pub(crate) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.open(id.slot).filter(|connection| connection.id == id)
    }

    /// The open connection in this slot.
    pub(crate) fn open(&mut self, slot: u32) -> Option<&mut Connection> {
        match self.entries.get_mut(slot as usize) {
            Some(Entry::Open(connection)) => Some(connection),
            Some(Entry::Free | Entry::Accepting { .. } | Entry::Closing { .. }) | None => None,
        }
    }

    /// Every open connection.
    pub(crate) fn iter_open(&self) -> impl Iterator<Item = &Connection> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Open(connection) => Some(&**connection),
            Entry::Free | Entry::Accepting { .. } | Entry::Closing { .. } => None,
        })
    }

    /// Every slot that waits for an accept.
    pub(crate) fn iter_accepting(&self) -> impl Iterator<Item = u32> {
        let slots = self.entries.iter().zip(0..);
        slots.filter(|(entry, _)| matches!(entry, Entry::Accepting { .. })).map(|(_, slot)| slot)
    }

    /// The accept of this slot brought a connection to this listener.
    pub(crate) fn accept(
        &mut self,
        id: ConnectionId,
        listener: u16,
        frame_bytes_max: usize,
        send_bytes_max: usize,
    ) -> &mut Connection {
        self.accepted += 1;
        let entry = self.entry(id.slot);
        *entry = Entry::Open(Box::new(Connection {
            id,
            listener,
            role: Role::Agent,
            cutter: FrameCutter::new(frame_bytes_max),
            sends: SendQueue::new(send_bytes_max),
            receipts: Receipts::default(),
            held: HeldBytes::default(),
            receiving: false,
            sending: false,
            paused: false,
            held_until: None,
            round: 0,
            taken: 0,
            starved: false,
            in_backlog: false,
            ended: false,
        }));
        match entry {
            Entry::Open(connection) => connection,
            Entry::Free | Entry::Accepting { .. } | Entry::Closing { .. } => unreachable!("just opened"),
        }
    }

    /// How many connections were accepted, ever.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }
}

impl Connection {
    /// How many of its operations are with the kernel.
    pub(crate) fn operations(&self) -> u32 {
        u32::from(self.receiving) + u32::from(self.sending) + u32::from(self.receipts.looking)
    }

    /// Whether a receive should be with the kernel and is not.
    pub(crate) fn wants_receive(&self) -> bool {
        !self.receiving && !self.waits() && !self.ended && !self.starved && self.held.is_empty()
    }

    /// Whether it is not to be read or decoded for the time being.
    pub(crate) fn waits(&self) -> bool {
        self.paused || self.held_until.is_some()
    }

    /// How many messages it may still bring in this round.
    #[inline]
    pub(crate) fn share_left(&mut self, round: u64) -> u32 {
        if self.round != round {
            self.round = round;
            self.taken = 0;
        }
        ROUND_SHARE.saturating_sub(self.taken)
    }
}

impl HeldBytes {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends what was received.
    pub(crate) fn append(&mut self, received: &[u8]) {
        self.bytes.extend_from_slice(received);
    }

    /// Forgets all of them, and the memory.
    pub(crate) fn clear(&mut self) {
        *self = HeldBytes::default();
    }

    /// The oldest bytes, at most `bytes_max`.
    pub(crate) fn first(&self, bytes_max: usize) -> &[u8] {
        let rest = &self.bytes[self.start..];
        &rest[..rest.len().min(bytes_max)]
    }

    /// Forgets the oldest `count` bytes, and the memory with the last one.
    pub(crate) fn remove_first(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.bytes.len(), "no more bytes are removed than are held");
        if self.start == self.bytes.len() {
            *self = HeldBytes::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { slot, generation }
    }

    #[test]
    fn a_connection_is_found_by_its_whole_name() {
        let mut connections = Connections::default();
        connections.accept(id(5, 2), 0, 100, 100);
        assert!(connections.find(id(5, 2)).is_some());
        assert!(connections.find(id(5, 1)).is_none(), "an earlier tenant");
        assert!(connections.find(id(4, 2)).is_none());
        assert!(connections.find(id(6, 2)).is_none(), "beyond the table");
        *connections.entry(7) = Entry::Accepting { listener: 0 };
        assert_eq!(connections.iter_accepting().collect::<Vec<_>>(), [7]);
        assert_eq!(connections.iter_open().count(), 1);
        *connections.entry(5) = Entry::Closing { operations: 1, receipts: None };
        assert!(connections.find(id(5, 2)).is_none());
    }

    #[test]
    fn held_bytes_come_out_as_they_went_in() {
        let mut held = HeldBytes::default();
        held.append(b"abc");
        held.append(b"defg");
        let mut out = Vec::new();
        while !held.is_empty() {
            let part = held.first(2).to_vec();
            held.remove_first(part.len());
            out.extend(part);
            if out.len() == 4 {
                held.append(b"hi");
            }
        }
        assert_eq!((out, held.len()), (b"abcdefghi".to_vec(), 0));
    }

    #[test]
    fn only_an_undisturbed_connection_wants_a_receive() {
        let mut connections = Connections::default();
        let connection = connections.accept(id(0, 1), 0, 100, 100);
        assert!(connection.wants_receive());
        let set: [fn(&mut Connection, bool); 4] = [
            |connection, value| connection.receiving = value,
            |connection, value| connection.paused = value,
            |connection, value| connection.ended = value,
            |connection, value| connection.starved = value,
        ];
        for set in set {
            set(connection, true);
            assert!(!connection.wants_receive());
            set(connection, false);
        }
        connection.held_until = Some(Time::ZERO);
        assert!(!connection.wants_receive());
        connection.held_until = None;
        connection.held.append(b"x");
        assert!(!connection.wants_receive(), "what is held comes first");
    }

    #[test]
    fn each_round_has_a_share_of_its_own() {
        let mut connections = Connections::default();
        let connection = connections.accept(id(0, 1), 0, 100, 100);
        assert_eq!(connection.share_left(7), ROUND_SHARE);
        connection.taken += ROUND_SHARE - 1;
        assert_eq!(connection.share_left(7), 1);
        connection.taken += 70;
        assert_eq!(connection.share_left(7), 0);
        assert_eq!(connection.share_left(8), ROUND_SHARE);
    }
}
