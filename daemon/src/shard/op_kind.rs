//! What each operation of a shard is for: the kind in its tag.

/// The kinds of a shard's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OpKind {
    /// Takes a connection into a slot.
    Accept = 1,
    /// Ends another operation; its own completion means nothing.
    Cancel = 2,
    /// Closes a slot.
    Close = 3,
    /// Wakes the shard for its mail.
    Mail = 4,
    /// Receives datagrams; the tag's slot is the listener.
    ReceiveDatagrams = 5,
    /// Receives a connection's bytes.
    ReceiveStream = 6,
    /// Sends a datagram to an agent.
    Reply = 7,
    /// Sends on a connection.
    Send = 8,
    /// Waits until a sink's reader has room; the tag's slot is the sink.
    SinkPoll = 9,
    /// Writes a sink's file; the tag's slot is the sink.
    SinkWrite = 10,
    /// Syncs a sink's file; the tag's slot is the sink.
    SinkSync = 11,
    /// Wakes the shard for a spare ring; the tag's slot is the ring.
    SpareRing = 12,
    /// Asks what a connection's peer has not acknowledged.
    Unacknowledged = 13,
}

impl OpKind {
    /// All of them, in the order of their numbers.
    const ALL: [OpKind; 13] = [
        OpKind::Accept,
        OpKind::Cancel,
        OpKind::Close,
        OpKind::Mail,
        OpKind::ReceiveDatagrams,
        OpKind::ReceiveStream,
        OpKind::Reply,
        OpKind::Send,
        OpKind::SinkPoll,
        OpKind::SinkWrite,
        OpKind::SinkSync,
        OpKind::SpareRing,
        OpKind::Unacknowledged,
    ];

    /// The kind of this number, if there is one.
    #[inline]
    pub(crate) fn of(number: u8) -> Option<OpKind> {
        OpKind::ALL.get(usize::from(number.wrapping_sub(1))).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_and_nothing_else_does() {
        for kind in OpKind::ALL {
            assert_eq!(OpKind::of(kind as u8), Some(kind));
        }
        for number in [0, OpKind::ALL.len() as u8 + 1, u8::MAX] {
            assert_eq!(OpKind::of(number), None);
        }
    }
}
