//! What the manager says to agents.

use std::fmt;

use codec::{AgentId, Envelope, Method, ToAgent, limits};
use rand::Rng;

use crate::action::{Action, ConnectionId, ShardId};
use crate::manager::{Desk, Manager, Peer};
use crate::table::Agent;
use crate::time::Time;

/// Why a message for an agent was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotSent {
    /// No agent has this id.
    AgentUnknown,
    /// The agent has no connection and no return path.
    Away,
    /// This shard holds the agent's connection: ask its manager.
    OtherShard(ShardId),
    /// Longer than the agent reads.
    TooLong,
}

impl fmt::Display for NotSent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSent::AgentUnknown => write!(formatter, "no agent in client.keys has this id"),
            NotSent::Away => write!(formatter, "the agent is away; it was not heard of lately"),
            NotSent::OtherShard(shard) => {
                write!(formatter, "shard {} holds the agent's connection; send it there", shard.0)
            }
            NotSent::TooLong => write!(formatter, "the message is longer than the agent reads; shorten it"),
        }
    }
}

impl std::error::Error for NotSent {}

/// The way that a message for an agent takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Over its connection.
    Connection(ConnectionId),
    /// As a datagram, from the socket of this listener.
    Datagram {
        /// The listener that the agent spoke to, as [`Manager::set_listener`] named it.
        listener: u16,
    },
}

impl Manager {
    /// Sends a message to an agent: over its connection if it has one, else to where its last control message over UDP
    /// came from. Never before the acknowledgement, which must be the first thing that an agent receives.
    ///
    /// # Errors
    /// [`NotSent`]; nothing was sent then.
    pub fn send(&mut self, now: Time, agent: AgentId, message: &ToAgent<'_>) -> Result<(), NotSent> {
        let mut text = Vec::new();
        message.write(&mut text);
        self.send_text(now, agent, &text).map(|_| ())
    }

    /// The same for a text that is written already: a control message, or a piece of a file. Returns the way that it takes:
    /// the action for it is the last one.
    ///
    /// # Errors
    /// [`NotSent`]; nothing was sent then.
    pub fn send_text(&mut self, now: Time, agent: AgentId, text: &[u8]) -> Result<Way, NotSent> {
        let desk = &mut self.desk;
        let table = std::sync::Arc::clone(&desk.table);
        let agent = table.by_id(agent).ok_or(NotSent::AgentUnknown)?;
        let method = agent.state().method().ok_or(NotSent::Away)?;
        let (to, listener) = desk.way_to(now, agent)?;
        let sent = desk.send(agent, to, method, text);
        desk.settle();
        sent.map(|()| match to {
            Peer::Connection(connection) => Way::Connection(connection),
            Peer::Datagram(_) => Way::Datagram { listener },
        })
    }
}

impl Desk {
    /// Answers a start-up or a keep-alive, the way it came and with the method that it was sealed with.
    pub(crate) fn acknowledge(&mut self, agent: &Agent, to: Peer) {
        let method = agent.state().method().expect("it was noted with the message that is answered");
        let mut text = Vec::new();
        ToAgent::Ack.write(&mut text);
        self.send(agent, to, method, &text).expect("an acknowledgement is short");
        self.counters.acknowledged += 1;
        if let Peer::Connection(id) = to {
            self.connections.find_mut(id).expect("it has just carried a message").greeted = true;
        }
    }

    /// Tells an agent whose connection is paused that the manager lives. Not before its first acknowledgement: that one
    /// answers its start-up, and an agent that waits for it would take this one for it. One that has offered acknowledged delivery,
    /// and did not get it, confirms its events by counting acknowledgements: to that one a word that confirms nothing is said.
    pub(crate) fn acknowledge_unasked(&mut self, id: ConnectionId) {
        let connection = self.connections.find(id).expect("its deadline has just come up");
        let agent = connection.agent.expect("only an authenticated connection comes up as paused");
        if !connection.greeted {
            return;
        }
        let counts = connection.offered && connection.delivery.is_none();
        let table = std::sync::Arc::clone(&self.table);
        let agent = table.agent(agent);
        let method = agent.state().method().expect("an authenticated agent has sent a message");
        let word = if counts { ToAgent::DeliveryTaken { before: 0 } } else { ToAgent::Ack };
        let mut text = Vec::new();
        word.write(&mut text);
        self.send(agent, Peer::Connection(id), method, &text).expect("either is short");
        self.counters.acknowledged_unasked += 1;
    }

    /// Where a message for an agent goes, and from which listener's socket if it goes as a datagram.
    fn way_to(&self, now: Time, agent: &Agent) -> Result<(Peer, u16), NotSent> {
        match agent.state().owner() {
            Some(owner) if owner.shard != self.shard => Err(NotSent::OtherShard(owner.shard)),
            Some(owner) => match self.connections.find(owner.connection) {
                Some(connection) if connection.greeted => Ok((Peer::Connection(owner.connection), 0)),
                Some(_) | None => Err(NotSent::Away),
            },
            None => {
                let path = agent.state().return_path_and_listener(now);
                path.map(|(to, listener)| (Peer::Datagram(to), listener)).ok_or(NotSent::Away)
            }
        }
    }

    pub(crate) fn send(
        &mut self,
        agent: &Agent,
        to: Peer,
        method: Method,
        text: &[u8],
    ) -> Result<(), NotSent> {
        let mut initialization_vector = [0; 16];
        self.random.fill_bytes(&mut initialization_vector);
        let envelope = Envelope {
            id_prefix: None,
            method,
            random: self.random.next_u32() & 0xffff,
            counter: self.senders.take(),
            initialization_vector,
            text,
        };
        let mut message = Vec::with_capacity(128 + text.len());
        self.sealer.seal(agent.cipher_key(), &envelope, &mut message).map_err(|_| NotSent::TooLong)?;
        match to {
            Peer::Datagram(_) if message.len() > limits::DATAGRAM_TO_AGENT_BYTES_MAX => {
                return Err(NotSent::TooLong);
            }
            Peer::Datagram(to) => {
                self.actions.push_back(Action::SendDatagram { to, bytes: message.into() });
            }
            Peer::Connection(connection) => {
                let mut bytes = Vec::with_capacity(codec::FRAME_HEADER_BYTES + message.len());
                codec::frame(&message, &mut bytes);
                self.actions.push_back(Action::SendFrame { connection, bytes: bytes.into() });
            }
        }
        Ok(())
    }
}
