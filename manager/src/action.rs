//! What the caller is asked to do after each input.

use std::net::SocketAddr;

use bytes::Bytes;
use codec::AgentId;

use crate::notice::Notice;
use crate::time::Time;
use crate::verdict::CloseReason;

/// One thread's number, from 0. At most [`ShardId::MAX`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId(pub u8);

impl ShardId {
    /// The greatest shard number: one less than fits, because 0 stands for "no owner" in an agent's state.
    pub const MAX: ShardId = ShardId(u8::MAX - 1);
}

/// A connection's name, made by the caller: the same slot gets another generation each time it is used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    /// Its place in the shard's tables; below [`ConnectionId::SLOTS_MAX`].
    pub slot: u32,
    /// Which use of that place.
    pub generation: u32,
}

impl ConnectionId {
    /// How many connections one shard can name.
    pub const SLOTS_MAX: u32 = 1 << 24;
}

/// What the caller does for the manager, in the order in which it gets them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// End this connection. The manager has forgotten it already: what still comes from it is
    /// [`Reason::ConnectionClosed`](crate::Reason::ConnectionClosed), and telling that it is closed is harmless.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// Tell that shard's manager to [`close_mail`](crate::Manager::close_mail) this connection of its own.
    Mail {
        /// The shard that holds it; never the sender.
        shard: ShardId,
        /// Which, in that shard's names.
        connection: ConnectionId,
    },
    /// Do not read this connection until then: its agent sends more events than it may. Reading less than that makes the agent
    /// wait, and loses nothing.
    Hold {
        /// Which.
        connection: ConnectionId,
        /// Until when.
        until: Time,
    },
    /// Tell whoever keeps account of agents. Nothing waits for it.
    Notice {
        /// Whose.
        agent: AgentId,
        /// What.
        notice: Notice,
    },
    /// Send one datagram.
    SendDatagram {
        /// Where to.
        to: SocketAddr,
        /// The whole message.
        bytes: Bytes,
    },
    /// Send on a connection.
    SendFrame {
        /// Which.
        connection: ConnectionId,
        /// The message with its length in front.
        bytes: Bytes,
    },
}
