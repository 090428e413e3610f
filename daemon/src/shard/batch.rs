//! The messages of one turn: where each lies, until the manager has decided on all of them.
//!
//! A message is used in the buffer that the kernel filled. Only what a segment broke off in the middle of, and what was held
//! while a sink was full, lies in the batch's own memory.

use std::net::SocketAddr;
use std::ops::Range;

use codec::{FrameAt, FrameError};
use manager::{ConnectionId, Incoming, Peer};
use uring::Lease;

use super::connections::Connection;

/// What came in one turn.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    pub(crate) leases: Vec<(usize, Lease)>,
    pub(crate) endings: Vec<Ending>,
    /// Bytes of all messages.
    pub(crate) bytes: u64,
    arena: Vec<u8>,
    frames: Vec<FrameAt>,
}

/// One message of the batch.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) peer: Peer,
    /// Index of the listener that it, or its connection, came to.
    pub(crate) listener: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Arena(Range<usize>),
    Lease { index: usize, range: Range<usize> },
}

/// What ends a connection, to be told to the manager after the messages that came before it.
#[derive(Debug)]
pub(crate) enum Ending {
    BadFrame(ConnectionId, FrameError),
    Closed(ConnectionId),
}

impl Batch {
    /// Whether there is nothing to decide.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.endings.is_empty()
    }

    /// Adds the datagram that ends a lease.
    pub(crate) fn add_datagram(
        &mut self,
        listener: usize,
        from: SocketAddr,
        ring: usize,
        lease: Lease,
        payload_bytes: usize,
    ) {
        let end = lease.length() as usize;
        let place = Place::Lease { index: self.leases.len(), range: end - payload_bytes..end };
        self.messages.push(Message { peer: Peer::Datagram(from), listener, place });
        self.bytes += payload_bytes as u64;
        self.leases.push((ring, lease));
    }

    /// Cuts what a connection received into messages that stay where they are. The caller adds the lease.
    pub(crate) fn cut_lease(&mut self, connection: &mut Connection, received: &[u8]) {
        let index = self.leases.len();
        let from = (connection.id, connection.listener);
        self.cut(from, &mut connection.cutter, received, |_, range| Place::Lease { index, range })
            .unwrap_or_else(|error| self.end_bad_frame(connection, error));
    }

    /// Cuts up to `bytes_max` of what a connection holds into messages, which are copied.
    pub(crate) fn cut_held(&mut self, connection: &mut Connection, bytes_max: usize) {
        let Connection { id, listener, cutter, held, .. } = connection;
        let received = held.first(bytes_max);
        let count = received.len();
        let cut = self.cut((*id, *listener), cutter, received, |arena, range| {
            let start = arena.len();
            arena.extend_from_slice(&received[range]);
            Place::Arena(start..arena.len())
        });
        held.remove_first(count);
        if let Err(error) = cut {
            held.remove_first(held.len());
            self.end_bad_frame(connection, error);
        }
    }

    /// Throws away what a connection holds, and tells how many messages that was.
    pub(crate) fn drop_held(&mut self, connection: &mut Connection) -> u64 {
        self.frames.clear();
        let bytes = connection.held.len();
        // What follows a bad frame is no message.
        let _ = connection.cutter.cut(connection.held.first(bytes), &mut self.frames);
        connection.held.remove_first(bytes);
        self.frames.drain(..).count() as u64
    }

    /// The messages of one listener, as the manager takes them. `read` gives the bytes of a lease.
    pub(crate) fn incoming<'a>(
        &'a self,
        listener: usize,
        read: impl Fn(usize, &'a Lease) -> &'a [u8],
        out: &mut Vec<Incoming<'a>>,
    ) {
        out.extend(self.messages.iter().filter(|message| message.listener == listener).map(|message| {
            let bytes = match &message.place {
                Place::Arena(range) => &self.arena[range.clone()],
                Place::Lease { index, range } => {
                    let (ring, lease) = &self.leases[*index];
                    &read(*ring, lease)[range.clone()]
                }
            };
            Incoming { peer: message.peer, bytes }
        }));
    }

    /// Forgets the messages; the leases and endings must have been taken.
    pub(crate) fn clear(&mut self) {
        assert!(self.leases.is_empty() && self.endings.is_empty(), "leases go back, and endings are told");
        self.messages.clear();
        self.arena.clear();
        self.bytes = 0;
    }

    fn cut(
        &mut self,
        (id, listener): (ConnectionId, u16),
        cutter: &mut codec::FrameCutter,
        received: &[u8],
        mut place: impl FnMut(&mut Vec<u8>, Range<usize>) -> Place,
    ) -> Result<(), FrameError> {
        self.frames.clear();
        let outcome = cutter.cut(received, &mut self.frames);
        for frame in self.frames.drain(..) {
            let place = match frame {
                FrameAt::Carried => {
                    let start = self.arena.len();
                    self.arena.extend_from_slice(cutter.carried());
                    Place::Arena(start..self.arena.len())
                }
                FrameAt::Received(range) => place(&mut self.arena, range),
            };
            self.bytes += match &place {
                Place::Arena(range) | Place::Lease { range, .. } => range.len() as u64,
            };
            self.messages.push(Message { peer: Peer::Connection(id), listener: listener.into(), place });
        }
        outcome
    }

    fn end_bad_frame(&mut self, connection: &mut Connection, error: FrameError) {
        connection.ended = true;
        self.endings.push(Ending::BadFrame(connection.id, error));
    }
}

/// Forgets what was borrowed and keeps the memory: the standard library collects a mapped Vec of the same layout in place.
pub(crate) fn emptied<'b>(mut incoming: Vec<Incoming<'_>>) -> Vec<Incoming<'b>> {
    incoming.clear();
    incoming.into_iter().map(|_| unreachable!("it was emptied")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::connections::Connections;
    use super::*;

    fn stream(messages: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        messages.iter().for_each(|message| codec::frame(message, &mut stream));
        stream
    }

    fn contents(batch: &Batch) -> Vec<Vec<u8>> {
        let mut incoming = Vec::new();
        batch.incoming(0, |_, _| unreachable!("nothing was leased"), &mut incoming);
        incoming.iter().map(|incoming| incoming.bytes.to_vec()).collect()
    }

    #[test]
    fn held_bytes_become_messages_whatever_the_slices() {
        let bytes = stream(&[b"one", b"", b"three", b"four"]);
        for slice in 1..=bytes.len() {
            let mut connections = Connections::default();
            let connection = connections.accept(ConnectionId { slot: 0, generation: 1 }, 0, 100, 100);
            connection.held.append(&bytes);
            let mut batch = Batch::default();
            while !connection.held.is_empty() {
                batch.cut_held(connection, slice);
            }
            assert_eq!(contents(&batch), [&b"one"[..], b"", b"three", b"four"], "slices of {slice}");
            assert_eq!(batch.bytes, 12);
        }
    }

    #[test]
    fn held_bytes_that_are_thrown_away_are_counted_as_messages() {
        let mut connections = Connections::default();
        let connection = connections.accept(ConnectionId { slot: 0, generation: 1 }, 0, 100, 100);
        let mut batch = Batch::default();
        assert_eq!(batch.drop_held(connection), 0);
        let mut held = stream(&[b"one", b"two", b"three"]);
        held.extend_from_slice(b"\x09\0\0\0part");
        connection.held.append(&held);
        assert_eq!(batch.drop_held(connection), 3, "an unfinished one is none");
        assert!(connection.held.is_empty() && batch.is_empty());
    }

    #[test]
    fn a_bad_frame_ends_the_connection_behind_its_good_ones() {
        let mut connections = Connections::default();
        let connection = connections.accept(ConnectionId { slot: 0, generation: 1 }, 0, 5, 100);
        connection.held.append(&stream(&[b"good", b"too long"]));
        connection.held.append(b"more");
        let mut batch = Batch::default();
        batch.cut_held(connection, usize::MAX);
        assert_eq!(contents(&batch), [b"good"]);
        assert!(connection.ended && connection.held.is_empty());
        assert!(matches!(batch.endings[..], [Ending::BadFrame(..)]));
    }

    #[test]
    fn only_what_crosses_the_edge_of_a_buffer_is_copied() {
        const BUFFER_BYTES: usize = 16 * 1024;
        // Segments as they come: each is received into buffers of its own, of which the last may be partly full.
        let check = |frames: usize, bytes_each: usize, copied_each: usize| {
            let message = vec![b'm'; bytes_each];
            let segment = stream(&vec![&message[..]; frames]);
            let mut connections = Connections::default();
            let connection = connections.accept(ConnectionId { slot: 0, generation: 1 }, 0, 1_000, 100);
            for _ in 0..10 {
                let mut batch = Batch::default();
                segment.chunks(BUFFER_BYTES).for_each(|received| batch.cut_lease(connection, received));
                let copied = |message: &&Message| matches!(message.place, Place::Arena(_));
                assert_eq!(batch.messages.len(), frames);
                assert_eq!(batch.messages.iter().filter(copied).count(), copied_each, "{frames} a segment");
                assert_eq!(batch.arena.len(), copied_each * bytes_each);
            }
        };
        check(1, 240, 0);
        check(16, 240, 0);
        check(64, 240, 0);
        // 64 * 256 bytes fill a buffer to its last byte.
        check(64, 252, 0);
        check(65, 252, 0);
        check(128, 252, 0);
        check(64, 253, 1);
        check(64, 600, 2);
    }

    #[test]
    fn memory_is_kept() {
        let mut incoming = Vec::with_capacity(64);
        incoming.push(Incoming { peer: Peer::Datagram(([127, 0, 0, 1], 1).into()), bytes: b"x" });
        let place = incoming.as_ptr().addr();
        let again: Vec<Incoming<'_>> = emptied(incoming);
        assert_eq!((again.len(), again.capacity(), again.as_ptr().addr()), (0, 64, place));
    }
}
