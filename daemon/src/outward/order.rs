//! One message on its way to an agent: what goes to a shard, and what the shard says became of it.

use std::fmt;

use bytes::Bytes;
use codec::AgentId;
use manager::{NotSent, ShardId, Transport};

/// A message that a shard is to seal and send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SendOrder {
    /// What its outcome will carry. Each order has one of its own.
    pub ticket: u64,
    /// Whom it is for.
    pub agent: AgentId,
    /// The text, to be sealed as it stands; NUL bytes are bytes like others.
    pub text: Bytes,
    /// When it counts as sent.
    pub receipt: Receipt,
}

/// When a message over TCP counts as sent. Over UDP there is only one answer: when the kernel has the datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Receipt {
    /// When the agent's host has acknowledged its last byte.
    Arrived,
    /// When the kernel has taken its last byte.
    Taken,
}

/// What became of an order. Each order that a shard took has exactly one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SendOutcome {
    /// The order's.
    pub ticket: u64,
    /// How it was sent, or why not.
    pub outcome: Result<SendHow, SendFailure>,
}

/// How a message went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SendHow {
    /// Over what.
    pub over: Transport,
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendFailure {
    /// The connection ended before the message was through: it may or may not have been read.
    ConnectionEnded,
    /// The manager refused it.
    Refused(NotSent),
}

impl fmt::Display for SendFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendFailure::ConnectionEnded => {
                formatter.write_str("the connection ended before the agent's host had all of it")
            }
            SendFailure::Refused(NotSent::OtherShard(ShardId(shard))) => {
                write!(formatter, "its connection moved to shard {shard}")
            }
            SendFailure::Refused(refused) => refused.fmt(formatter),
        }
    }
}

impl std::error::Error for SendFailure {}

/// What the state machines of this folder make of an outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It went, over this.
    Sent(Transport),
    /// The agent is away; it was last heard over this, if it was heard at all.
    Away(Option<Transport>),
    /// The connection ended while it was on its way.
    Lost,
    /// No agent has this id.
    Unknown,
    /// Longer than the agent reads.
    TooLong,
}
