//! What an agent's messages and connections say about the agent itself, for whoever keeps account of agents.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::state::Transport;
use crate::verdict::CloseReason;

/// The longest version that a start-up is believed: longer ones are as good as none.
pub const VERSION_BYTES_MAX: usize = 64;

/// News of one agent, in the order in which its messages came to one shard. Never of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The agent has a way back: a connection that has just authenticated, or, over UDP, a control message from another
    /// address than the one before it.
    Connected {
        /// From where.
        from: SocketAddr,
        /// How.
        transport: Transport,
    },
    /// The agent's connection ended, and it has no newer one. An agent whose key was removed is not told of.
    Disconnected {
        /// Why.
        reason: CloseReason,
    },
    /// A keep-alive that says something else than the agent's last one, or is sealed with another cipher.
    KeepAlive {
        /// The whole control message with its `#!-`, less the filler behind its last newline: `FromAgent::parse` reads
        /// it.
        text: Bytes,
    },
    /// A keep-alive that says what the agent's last one said.
    KeepAliveSame,
    /// The agent's answer to a request, or the word that it came.
    RequestAnswer {
        /// The request's counter, as the manager wrote it.
        id: Bytes,
        /// What the agent's program said, or `ack`.
        text: Bytes,
    },
    /// A start-up.
    Started {
        /// The agent's version, if it says so (Wazuh) in at most [`VERSION_BYTES_MAX`] bytes.
        version: Option<Box<str>>,
    },
    /// The agent said that it goes away.
    Stopped,
}

impl Notice {
    /// How many bytes of an agent's text it holds: what a bound on the memory of many notices adds up.
    pub fn text_bytes(&self) -> usize {
        match self {
            Notice::KeepAlive { text } => text.len(),
            Notice::RequestAnswer { id, text } => id.len() + text.len(),
            Notice::Started { version } => version.as_ref().map_or(0, |version| version.len()),
            Notice::Connected { .. }
            | Notice::Disconnected { .. }
            | Notice::KeepAliveSame
            | Notice::Stopped => 0,
        }
    }
}
