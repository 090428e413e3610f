//! From a batch of received messages to one verdict each.
//!
//! Passes over the batch, so that each has its own memory in the cache: who says it (a look-up each; what that agent's
//! messages need is fetched for all at once), what it says (opened together, stage by stage), and what is made of it (one
//! by one, in order).

use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use codec::{Counter, DeliveryOffer, Event, EventError, FromAgent, OpenError, Opened, PONG, Sealed, Wire};
use rustc_hash::FxHasher;

use crate::action::{Action, ConnectionId};
use crate::manager::{Desk, Incoming, Manager, Peer, Publish, Published, SinkFull};
use crate::notice::{Notice, VERSION_BYTES_MAX};
use crate::replay::Replayed;
use crate::state::{Owner, Transport};
use crate::table::{Agent, AgentTable};
use crate::time::Time;
use crate::verdict::{CloseReason, ControlKind, Reason, Verdict};

/// What is found out about a message before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Looked {
    Ping,
    Refused(Reason),
    /// To be opened with the key of this agent (by its index), which may come from this address.
    Sealed {
        agent: u32,
        from: SocketAddr,
        /// Where the sealed part begins: behind the id, if the agent sent one.
        prefix_bytes: u8,
    },
}

impl Manager {
    /// Opens a batch and decides on each of its messages, in order: `publisher` gets the events and one verdict for each
    /// message. Acknowledgements and other consequences wait in [`Manager::next_action`].
    ///
    /// Allocates nothing for an event once it has seen the largest batch. Nothing that a stranger sends makes it grow.
    ///
    /// # Panics
    /// If `publisher` refuses an event that came over a connection.
    pub fn receive(&mut self, now: Time, batch: &[Incoming<'_>], publisher: &mut impl Publish) {
        let table = Arc::clone(&self.desk.table);
        let mut sealed: Vec<Sealed<'_>> = std::mem::take(&mut self.sealed);
        self.looked.clear();
        self.looked.extend(batch.iter().map(|incoming| self.desk.look(&table, incoming)));
        fetch(&table, &self.looked);
        for (incoming, looked) in batch.iter().zip(&mut self.looked) {
            admit(&table, incoming, looked, &mut sealed);
        }
        let opened = self.opener.open(&sealed);
        let mut of_sealed = opened.iter();
        for (index, (incoming, looked)) in batch.iter().zip(&self.looked).enumerate() {
            let (agent, verdict) = match *looked {
                Looked::Ping => (None, self.desk.answer_ping(incoming.peer)),
                Looked::Refused(reason) => (None, Verdict::Dropped(reason)),
                Looked::Sealed { agent, from, prefix_bytes: _ } => {
                    let opened = of_sealed.next().expect("each sealed message was opened");
                    let sender = Sender { agent: table.agent(agent), from, peer: incoming.peer };
                    let decided = self.desk.decide(now, sender, opened, publisher);
                    let verdict = decided.unwrap_or_else(Verdict::Dropped);
                    sender.agent.state().count(verdict);
                    (Some(sender.agent.id()), verdict)
                }
            };
            self.desk.counters.record(verdict);
            if let Verdict::Dropped(reason) = verdict {
                self.desk.note_dropped(reason, incoming.peer, agent);
                self.desk.lose_count(incoming.peer, reason);
            }
            publisher.verdict(index, verdict);
        }
        self.sealed = emptied(sealed);
        self.desk.settle();
    }
}

/// Brings what the batch needs of its agents into the cache. In a large fleet each of these lies somewhere in memory, and
/// a message that waits for four of them, one after the other, waits longer than AES takes; here all wait at once.
fn fetch(table: &AgentTable, looked: &[Looked]) {
    for looked in looked {
        if let Looked::Sealed { agent, .. } = looked {
            table.agent(*agent).touch();
        }
    }
    for looked in looked {
        if let Looked::Sealed { agent, .. } = looked {
            table.agent(*agent).touch_parts();
        }
    }
}

/// Adds a message to those that are opened, if its agent may come from where it came.
fn admit<'a>(
    table: &'a AgentTable,
    incoming: &Incoming<'a>,
    looked: &mut Looked,
    sealed: &mut Vec<Sealed<'a>>,
) {
    let Looked::Sealed { agent, from, prefix_bytes } = *looked else { return };
    let agent = table.agent(agent);
    // Without an id, the address is how it was found.
    if prefix_bytes > 0 && !agent.admits(from.ip()) {
        *looked = Looked::Refused(Reason::IdAddress);
        return;
    }
    let bytes = &incoming.bytes[usize::from(prefix_bytes)..];
    sealed.push(Sealed { key: agent.cipher_key(), bytes, method_hint: agent.state().method() });
}

/// Who sent a message, as far as its envelope tells.
#[derive(Clone, Copy)]
struct Sender<'a> {
    agent: &'a Agent,
    from: SocketAddr,
    peer: Peer,
}

impl Desk {
    /// Who says a message, without a look at the agent, which is fetched for the whole batch at once.
    fn look(&self, table: &AgentTable, incoming: &Incoming<'_>) -> Looked {
        let from = match incoming.peer {
            Peer::Datagram(from) => from,
            Peer::Connection(id) => match self.connections.find(id) {
                Some(connection) => connection.from,
                None => return Looked::Refused(Reason::ConnectionClosed),
            },
        };
        match codec::classify(incoming.bytes) {
            Err(_) => Looked::Refused(Reason::Malformed),
            Ok(Wire::Ping) => Looked::Ping,
            Ok(Wire::Id { id, sealed }) => match table.place_of(id) {
                None => Looked::Refused(Reason::IdUnknown),
                Some(agent) => {
                    let prefix_bytes = u8::try_from(incoming.bytes.len() - sealed.len());
                    Looked::Sealed { agent, from, prefix_bytes: prefix_bytes.expect("an id is short") }
                }
            },
            Ok(Wire::Address { .. }) => match table.place_at(from.ip()) {
                None => Looked::Refused(Reason::AddressUnknown),
                Some(agent) => Looked::Sealed { agent, from, prefix_bytes: 0 },
            },
        }
    }

    fn answer_ping(&mut self, peer: Peer) -> Verdict {
        match peer {
            Peer::Datagram(to) => {
                self.actions.push_back(Action::SendDatagram { to, bytes: PONG.into() });
            }
            Peer::Connection(connection) => {
                // It may have been closed by a message before this one in the same batch.
                if self.connections.find(connection).is_none() {
                    return Verdict::Dropped(Reason::ConnectionClosed);
                }
                let mut bytes = Vec::with_capacity(codec::FRAME_HEADER_BYTES + PONG.len());
                codec::frame(PONG, &mut bytes);
                self.actions.push_back(Action::SendFrame { connection, bytes: bytes.into() });
            }
        }
        Verdict::Control(ControlKind::Ping)
    }

    fn decide(
        &mut self,
        now: Time,
        sender: Sender<'_>,
        opened: Result<Opened<'_>, OpenError>,
        publisher: &mut impl Publish,
    ) -> Result<Verdict, Reason> {
        self.check_connection(sender)?;
        let opened = opened.map_err(reason_of_open_error)?;
        if !self.settings.crypto_accept.accepts(opened.method.cipher()) {
            return Err(Reason::MethodNotAccepted);
        }
        let state = sender.agent.state();
        state.replay().accept(self.settings.replay, opened.counter).map_err(|replayed| match replayed {
            Replayed::Duplicate => Reason::CounterDuplicate,
            Replayed::Old => Reason::CounterOld,
        })?;
        // From here on the message is genuine and used up.
        let (transport, delivers) = match sender.peer {
            Peer::Connection(id) => (Transport::Tcp, self.hear(now, id, sender.agent).then_some(id)),
            Peer::Datagram(_) => (Transport::Udp, None),
        };
        if let Some(id) = delivers {
            self.follow(id, opened.counter)?;
        }
        state.heard(now, opened.method, transport);
        match FromAgent::parse(opened.text) {
            Some(Ok(message)) => {
                let kind = self.control(now, sender, opened.counter, &message);
                self.tell(sender.agent, &message, opened.text);
                if kind == ControlKind::Shutdown && self.settings.announces_stops {
                    self.announce_stop(sender, transport, publisher);
                }
                Ok(Verdict::Control(kind))
            }
            Some(Err(_)) => Err(Reason::ControlMalformed),
            None => {
                if let Some(id) = delivers {
                    return self.decide_delivered(now, sender.agent, sender.from, id, opened.text, publisher);
                }
                let event = Event::parse(opened.text).map_err(reason_of_event_error)?;
                if self.settings.events_per_second_max > 0 {
                    self.limit_rate(now, sender.agent, sender.peer)?;
                }
                let event =
                    Published { agent: sender.agent, event, from: sender.from, transport, ticket: None };
                match (publisher.publish(&event), transport) {
                    (Ok(()), Transport::Tcp | Transport::Udp) => Ok(Verdict::Event),
                    (Err(_), Transport::Udp) => Err(Reason::SinkFull),
                    (Err(_), Transport::Tcp) => panic!("a publisher takes every event of a connection"),
                }
            }
        }
    }

    /// Counts an event against its agent's rate. A datagram beyond it is refused; a connection that brings more is held.
    #[cold]
    pub(crate) fn limit_rate(&mut self, now: Time, agent: &Agent, peer: Peer) -> Result<(), Reason> {
        let (rate, a_second) = (agent.state().rate(), self.settings.events_per_second_max);
        match peer {
            Peer::Datagram(_) if rate.admit(now, a_second) => Ok(()),
            Peer::Datagram(_) => Err(Reason::RateLimited),
            Peer::Connection(connection) => {
                if let Some(until) = rate.charge(now, a_second) {
                    self.hold(connection, until);
                }
                Ok(())
            }
        }
    }

    /// Asks for a connection to be held, once however many events of a batch are beyond its agent's rate.
    fn hold(&mut self, connection: ConnectionId, until: Time) {
        if let Some(Action::Hold { connection: last, until: held }) = self.actions.back_mut()
            && *last == connection
        {
            *held = until;
            return;
        }
        self.actions.push_back(Action::Hold { connection, until });
    }

    /// A connection may have been closed, or bound to its agent, by a message before this one in the same batch.
    fn check_connection(&self, sender: Sender<'_>) -> Result<(), Reason> {
        let Peer::Connection(id) = sender.peer else { return Ok(()) };
        let connection = self.connections.find(id).ok_or(Reason::ConnectionClosed)?;
        match connection.agent {
            Some(bound) if bound != sender.agent.index() => Err(Reason::ConnectionAgent),
            Some(_) | None => Ok(()),
        }
    }

    /// A connection carried a genuine message of `agent`: the first one makes it the agent's only connection. Whether it
    /// delivers.
    fn hear(&mut self, now: Time, id: ConnectionId, agent: &Agent) -> bool {
        let connection = self.connections.find_mut(id).expect("it was checked a moment ago");
        connection.heard(now);
        if connection.agent.is_some() {
            return connection.delivery.is_some();
        }
        let from = connection.from;
        self.connections.authenticate(id, agent.index());
        self.notice(agent, Notice::Connected { from, transport: Transport::Tcp });
        let owner = Owner { shard: self.shard, connection: id };
        match agent.state().take_over(owner) {
            None => {}
            Some(old) if old.shard == self.shard => self.close(old.connection, CloseReason::Overtaken),
            Some(Owner { shard, connection }) => {
                self.actions.push_back(Action::Mail { shard, connection });
            }
        }
        false
    }

    fn control(
        &mut self,
        now: Time,
        sender: Sender<'_>,
        counter: Counter,
        message: &FromAgent<'_>,
    ) -> ControlKind {
        let state = sender.agent.state();
        if let Peer::Datagram(from) = sender.peer
            && state.set_return_path(from, self.listener, now)
        {
            self.notice(sender.agent, Notice::Connected { from, transport: Transport::Udp });
        }
        match message {
            FromAgent::DeliveryNext { number } => {
                if let Peer::Connection(id) = sender.peer {
                    self.on_delivery_next(id, *number);
                }
                ControlKind::DeliveryNext
            }
            FromAgent::Startup { delivery, .. } => {
                self.start(now, sender, delivery.map(|offer| (offer, counter)));
                ControlKind::Startup
            }
            FromAgent::KeepAlive(_) => {
                // An agent that waits for the last confirmation asks by a keep-alive, and knows the answer by the
                // acknowledgement behind it.
                if let Peer::Connection(id) = sender.peer {
                    self.bring_up_to_date(now, id);
                }
                if self.check_connection(sender).is_ok() {
                    self.acknowledge(sender.agent, sender.peer);
                }
                ControlKind::KeepAlive
            }
            FromAgent::Shutdown => {
                state.forget_return_path();
                ControlKind::Shutdown
            }
            FromAgent::RequestAnswer { .. } => ControlKind::RequestAnswer,
            FromAgent::Unknown(_) => ControlKind::Unknown,
        }
    }

    /// Answers a start-up; what its agent offers, and under which counter, is answered first, so that it knows by the
    /// acknowledgement what is agreed.
    fn start(&mut self, now: Time, sender: Sender<'_>, offer: Option<(DeliveryOffer, Counter)>) {
        let Peer::Connection(id) = sender.peer else {
            return self.acknowledge(sender.agent, sender.peer);
        };
        let connection = self.connections.find_mut(id).expect("it has just carried a message");
        connection.offered |= offer.is_some();
        if connection.delivery.is_some() {
            // Its events have numbers already, and nobody could tell which ones come after this.
            return self.close(id, CloseReason::Delivery);
        }
        if let Some((offer, counter)) = offer {
            self.consider(now, sender.agent, id, offer, counter);
        }
        self.acknowledge(sender.agent, sender.peer);
        self.bring_up_to_date(now, id);
    }

    /// Says what a control message says about its agent. A keep-alive comes every few seconds and seldom says anything
    /// new: only what is new is copied.
    fn tell(&mut self, agent: &Agent, message: &FromAgent<'_>, text: &[u8]) {
        let notice = match message {
            FromAgent::KeepAlive(_) => {
                let said = codec::keep_alive_without_filler(text);
                let mut digest = FxHasher::default();
                digest.write(said);
                // agent-info names the cipher, too.
                digest.write_u8(agent.state().method().map_or(0, |method| method as u8));
                if agent.state().says_again(digest.finish()) {
                    Notice::KeepAliveSame
                } else {
                    Notice::KeepAlive { text: Bytes::copy_from_slice(said) }
                }
            }
            FromAgent::RequestAnswer { counter, payload } => Notice::RequestAnswer {
                id: Bytes::copy_from_slice(counter),
                text: Bytes::copy_from_slice(payload),
            },
            FromAgent::Shutdown => Notice::Stopped,
            FromAgent::Startup { version, delivery: _, raw: _ } => {
                let version = version.as_deref().filter(|version| version.len() <= VERSION_BYTES_MAX);
                Notice::Started { version: version.map(Box::from) }
            }
            FromAgent::DeliveryNext { .. } | FromAgent::Unknown(_) => return,
        };
        self.notice(agent, notice);
    }

    fn notice(&mut self, agent: &Agent, notice: Notice) {
        self.actions.push_back(Action::Notice { agent: agent.id(), notice });
    }

    /// Raises the event that an agent is gone, as if the agent had sent it. A connection raises it once.
    ///
    /// Source: wazuh v4.14.7 `remoted/manager.c`, `validate_control_msg`; `remoted/remoted.h`, `AG_STOP_MSG`.
    fn announce_stop(&mut self, sender: Sender<'_>, transport: Transport, publisher: &mut impl Publish) {
        if let Peer::Connection(id) = sender.peer {
            let connection = self.connections.find_mut(id).expect("it has just carried a message");
            if std::mem::replace(&mut connection.said_goodbye, true) {
                return;
            }
        }
        let origin = sender.agent.origin();
        let text = format!("1:wazuh-remoted:ossec: Agent stopped: '{}->{}'.", origin.name, origin.address);
        let event = Event::parse(text.as_bytes()).expect("it is an event of a log");
        let event = Published { agent: sender.agent, event, from: sender.from, transport, ticket: None };
        match publisher.publish(&event) {
            Ok(()) => self.counters.raised += 1,
            Err(SinkFull) => self.counters.raised_dropped += 1,
        }
    }
}

fn reason_of_open_error(error: OpenError) -> Reason {
    match error {
        OpenError::Checksum => Reason::Checksum,
        OpenError::Inflate => Reason::Inflate,
        OpenError::Length | OpenError::Malformed | OpenError::OldFormat | OpenError::Token => {
            Reason::Malformed
        }
        OpenError::NotAKey => Reason::WrongKey,
        OpenError::TooLarge => Reason::TooLarge,
    }
}

pub(crate) fn reason_of_event_error(error: EventError) -> Reason {
    match error {
        EventError::KeepAliveFiller => Reason::KeepAliveFiller,
        EventError::Empty | EventError::NoQueue => Reason::EventMalformed,
        EventError::QueueNotForEvents => Reason::EventQueue,
    }
}

/// Forgets the messages and keeps the memory: the standard library collects a mapped Vec of the same layout in place.
fn emptied(mut sealed: Vec<Sealed<'_>>) -> Vec<Sealed<'static>> {
    sealed.clear();
    sealed.into_iter().map(|_| unreachable!("it was emptied")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_batch_keeps_its_memory() {
        let key = codec::CipherKey::new("name", "001", "key");
        let mut sealed = Vec::with_capacity(100);
        sealed.push(Sealed { key: &key, bytes: b":", method_hint: None });
        let address = sealed.as_ptr().addr();
        let emptied = emptied(sealed);
        assert_eq!((emptied.len(), emptied.capacity(), emptied.as_ptr().addr()), (0, 100, address));
    }
}
