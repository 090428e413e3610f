//! One shard's manager: its inputs, and how its answers are drained.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use codec::{AgentId, FrameError, OpenSettings, Opener, Sealed, Sealer};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::action::{Action, ConnectionId, ShardId};
use crate::connections::{Connections, Due};
use crate::counters::{Counters, DroppedFrom, DroppedLast, RefusedLast};
use crate::deliver::Deliverers;
use crate::delivery::Ticket;
use crate::notice::Notice;
use crate::receive::Looked;
use crate::senders::SenderCounter;
use crate::settings::{CryptoAccept, Settings};
use crate::state::{Owner, Transport};
use crate::table::{Agent, AgentTable, Kept};
use crate::time::Time;
use crate::verdict::{CloseReason, Reason, Refusal, Verdict};

/// How many deadlines one call serves. Sealing an acknowledgement takes tens of microseconds, and a whole fleet that is
/// paused at once is due at once.
const DUE_AT_ONCE_MAX: usize = 256;

/// What one shard does with messages and connections. It does no I/O and reads no clock: it is told the time and what
/// came, and answers with verdicts and [`Action`]s.
///
/// One input, then drain [`Manager::next_action`], then the next. [`Manager::next_timeout`] may change with each input.
pub struct Manager {
    pub(crate) opener: Opener,
    /// Between batches: empty, its memory kept for the next.
    pub(crate) sealed: Vec<Sealed<'static>>,
    /// Between batches: empty, its memory kept for the next.
    pub(crate) looked: Vec<Looked>,
    pub(crate) desk: Desk,
}

/// All of the manager but what opens a batch, so that a batch can be decided on while it is read.
pub(crate) struct Desk {
    pub(crate) settings: Settings,
    pub(crate) shard: ShardId,
    pub(crate) table: Arc<AgentTable>,
    pub(crate) connections: Connections,
    pub(crate) deliverers: Deliverers,
    pub(crate) counters: Counters,
    pub(crate) dropped_last: DroppedLast,
    refused_last: RefusedLast,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) sealer: Sealer,
    pub(crate) senders: Arc<SenderCounter>,
    pub(crate) random: StdRng,
    /// The listener that datagrams come to.
    pub(crate) listener: u16,
}

/// What a shard is made of.
#[derive(Debug)]
pub struct ManagerParts {
    /// What the operator chose.
    pub settings: Settings,
    /// This shard's number.
    pub shard: ShardId,
    /// The agents; shared by all shards.
    pub table: Arc<AgentTable>,
    /// The process-wide counter of what is sent.
    pub senders: Arc<SenderCounter>,
    /// Where all of this shard's random numbers come from. Initialization vectors are among them, so outside of a
    /// simulation it must come from the operating system.
    pub seed: [u8; 32],
}

/// Whether a new connection may stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a refused connection must be closed by the caller"]
pub enum Admission {
    /// The manager knows it now.
    Admit,
    /// The caller closes it; the manager does not know it.
    Refuse(Refusal),
}

/// From where a message came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Over this connection, which was admitted.
    Connection(ConnectionId),
    /// As a datagram from this address.
    Datagram(SocketAddr),
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// From where.
    pub peer: Peer,
    /// The datagram, or the frame without its length.
    pub bytes: &'a [u8],
}

/// An event that belongs to the sink now.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// Whose event it is.
    pub agent: &'a Agent,
    /// What the agent said.
    pub event: codec::Event<'a>,
    /// From where it came.
    pub from: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// Its number, if the connection that brought it delivers: then only the sinks that are wanted take it, and each notes it
    /// once it has it.
    pub ticket: Option<Ticket>,
}

/// The sink has no room for what came as a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SinkFull;

/// Who takes what a batch turns out to be.
pub trait Publish {
    /// Takes an event over. Called in the order in which an agent sent its events, between the verdicts.
    ///
    /// # Errors
    /// [`SinkFull`], for a datagram only: it is dropped, and its counter stays used up, so that a copy of it cannot
    /// come in later between newer events. What came over a connection must be taken: its sender is paused instead.
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull>;

    /// An event of acknowledged delivery that nobody gets, since it is none: the sinks that want its number note it, in its
    /// place among the agent's events.
    fn pass(&mut self, ticket: Ticket);

    /// Called once for each message of the batch, in the order of the batch.
    fn verdict(&mut self, index: usize, verdict: Verdict);
}

impl Manager {
    /// A manager that has no connection yet.
    ///
    /// # Panics
    /// If the shard's number is above [`ShardId::MAX`].
    pub fn new(parts: ManagerParts) -> Manager {
        let ManagerParts { settings, shard, table, senders, seed } = parts;
        assert!(shard <= ShardId::MAX, "shard 255 would look like nobody in an agent's state");
        let opening =
            OpenSettings { message_bytes_max: settings.message_bytes_max, old_format: settings.old_format };
        Manager {
            opener: Opener::new(opening),
            sealed: Vec::new(),
            looked: Vec::new(),
            desk: Desk {
                settings,
                shard,
                table,
                connections: Connections::default(),
                deliverers: Deliverers::default(),
                counters: Counters::default(),
                dropped_last: [None; Reason::COUNT],
                refused_last: [None; Refusal::COUNT],
                actions: VecDeque::new(),
                sealer: Sealer::new(),
                senders,
                random: StdRng::from_seed(seed),
                listener: 0,
            },
        }
    }

    /// A connection was accepted from `from`.
    ///
    /// # Panics
    /// If its slot is in use: a connection that the caller ended must be reported with [`Manager::on_closed`] first.
    pub fn on_connected(&mut self, now: Time, connection: ConnectionId, from: SocketAddr) -> Admission {
        let desk = &mut self.desk;
        let admission = match desk.connections.admit(now, connection, from, &desk.settings) {
            Ok(()) => {
                desk.counters.admitted += 1;
                Admission::Admit
            }
            Err(refusal) => {
                desk.note_refused(refusal, from);
                Admission::Refuse(refusal)
            }
        };
        desk.settle();
        admission
    }

    /// A load balancer said where `connection`, which is not authenticated, really comes from: that is whose limits and
    /// address rules count. A refused one is closed by the caller, and the manager does not know it any more.
    ///
    /// # Panics
    /// If the connection is not known, or authenticated.
    pub fn on_source(&mut self, connection: ConnectionId, from: SocketAddr) -> Admission {
        let desk = &mut self.desk;
        let admission = match desk.connections.rename(connection, from, &desk.settings) {
            Ok(()) => Admission::Admit,
            Err(refusal) => {
                desk.note_refused(refusal, from);
                desk.forget(connection, CloseReason::Peer);
                Admission::Refuse(refusal)
            }
        };
        desk.settle();
        admission
    }

    /// From now on datagrams come to this listener: what is sent to their agents later must leave from there, see
    /// [`Way`](crate::Way).
    pub fn set_listener(&mut self, listener: u16) {
        self.desk.listener = listener;
    }

    /// A connection sent a frame whose length is over the limit: counted as one dropped message, and closed.
    pub fn on_bad_frame(&mut self, connection: ConnectionId, _error: FrameError) {
        self.desk.counters.record(Verdict::Dropped(Reason::FrameLength));
        self.desk.note_dropped(Reason::FrameLength, Peer::Connection(connection), None);
        self.desk.close(connection, CloseReason::BadFrame);
        self.desk.settle();
    }

    /// A connection is closed: by its peer, by an error, or because an [`Action::Close`] was carried out.
    pub fn on_closed(&mut self, connection: ConnectionId) {
        self.desk.forget(connection, CloseReason::Peer);
        self.desk.settle();
    }

    /// client.keys changed. An agent whose id, name and key stayed keeps its state and its connection, if its address
    /// rule still admits it; the connections of all others are closed. Takes some nanoseconds a connection, if `table` was
    /// built on the table before it.
    ///
    /// Whoever has time should keep that one until no manager has it any more: freeing it takes milliseconds with a large
    /// fleet.
    pub fn on_keys(&mut self, table: Arc<AgentTable>) {
        let desk = &mut self.desk;
        let old = std::mem::replace(&mut desk.table, table);
        let mut gone = Vec::new();
        for connection in desk.connections.iter_mut() {
            let Some(index) = connection.agent else { continue };
            let after = match desk.table.kept(&old, index) {
                Kept::Same(after) => Some(after),
                Kept::Moved(after) => {
                    Some(after).filter(|after| desk.table.agent(*after).admits(connection.from.ip()))
                }
                Kept::No => None,
            };
            match after {
                Some(agent) => connection.agent = Some(agent),
                None => gone.push((connection.id, index)),
            }
        }
        for (connection, index) in gone {
            old.agent(index).state().release(Owner { shard: desk.shard, connection });
            // Its index is of the old table: it must not be looked up in the new one.
            desk.end(connection, CloseReason::KeyRemoved);
        }
        desk.settle();
    }

    /// Another shard got a newer connection of the agent that `connection` belongs to.
    pub fn close_mail(&mut self, connection: ConnectionId) {
        self.desk.close(connection, CloseReason::Overtaken);
        self.desk.settle();
    }

    /// Back-pressure: `connection` is not read for the time being. It will not be taken for silent, and its agent gets an
    /// acknowledgement every now and then, since it takes anything received for a sign of life.
    pub fn on_paused(&mut self, now: Time, connection: ConnectionId) {
        let desk = &mut self.desk;
        desk.connections.pause(now, connection, &desk.settings);
        desk.settle();
    }

    /// `connection` is read again.
    pub fn on_resumed(&mut self, now: Time, connection: ConnectionId) {
        self.desk.connections.resume(now, connection);
        self.desk.settle();
    }

    /// Time has passed: closes what is silent or unauthenticated for too long, and acknowledges to paused agents. Does a
    /// few hundred of them at once; what is left is due at once again, so that messages come in between.
    pub fn on_timeout(&mut self, now: Time) {
        let desk = &mut self.desk;
        for _ in 0..DUE_AT_ONCE_MAX {
            if !desk.serve_due_delivery(now) {
                break;
            }
        }
        for _ in 0..DUE_AT_ONCE_MAX {
            let Some((connection, due)) = desk.connections.pop_due(now, &desk.settings) else { break };
            match due {
                Due::Acknowledge => desk.acknowledge_unasked(connection),
                Due::Silent => desk.close(connection, CloseReason::Silent),
                Due::Unauthenticated => desk.close(connection, CloseReason::Unauthenticated),
            }
        }
        desk.settle();
    }

    /// Messages that the caller lost itself, in the kernel or cut off: each is counted as received and dropped.
    pub fn record_dropped(&mut self, reason: Reason, count: u64) {
        self.desk.counters.received += count;
        self.desk.counters.dropped[reason.index()] += count;
        self.desk.settle();
    }

    /// A message that the caller refused for its source: counted as received and dropped.
    pub fn record_dropped_from(&mut self, reason: Reason, from: SocketAddr) {
        self.desk.note_dropped(reason, Peer::Datagram(from), None);
        self.record_dropped(reason, 1);
    }

    /// Events that came from nobody with a key (syslog lines) and that the sink took over.
    pub fn record_events(&mut self, count: u64) {
        self.desk.counters.received += count;
        self.desk.counters.events += count;
        self.desk.settle();
    }

    /// A connection that the caller did not admit.
    pub fn record_refused(&mut self, refusal: Refusal, from: SocketAddr) {
        self.desk.note_refused(refusal, from);
    }

    /// Which ciphers are accepted from now on: what comes next is of a listener with this rule.
    pub fn set_crypto_accept(&mut self, crypto_accept: CryptoAccept) {
        self.desk.settings.crypto_accept = crypto_accept;
    }

    /// The next thing to do, in order. Drain it after every input.
    pub fn next_action(&mut self) -> Option<Action> {
        self.desk.actions.pop_front()
    }

    /// When [`Manager::on_timeout`] is due at the latest. May change with every input.
    pub fn next_timeout(&self) -> Option<Time> {
        let (silent, delivery) = (self.desk.connections.next_timeout(), self.desk.deliverers.next_timeout());
        silent.into_iter().chain(delivery).min()
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.desk.counters
    }

    /// Whose message was dropped last, for each reason: what a log says beside a count.
    pub fn dropped_last(&self) -> &DroppedLast {
        &self.desk.dropped_last
    }

    /// From where a connection came last that was not admitted, for each refusal.
    pub fn refused_last(&self) -> &RefusedLast {
        &self.desk.refused_last
    }

    /// The agents as this shard knows them.
    pub fn table(&self) -> &Arc<AgentTable> {
        &self.desk.table
    }

    /// The operator changed the settings. Limits are for connections that come from now on, deadlines for all of them;
    /// how messages are opened and how many connections there may be stays as it was.
    pub fn on_settings(&mut self, mut settings: Settings) {
        let running = &mut self.desk.settings;
        settings.message_bytes_max = running.message_bytes_max;
        settings.old_format = running.old_format;
        settings.connections_max = running.connections_max;
        *running = settings;
        self.desk.connections.on_settings(&self.desk.settings);
        self.desk.settle();
    }

    /// What the operator chose.
    pub fn settings(&self) -> &Settings {
        &self.desk.settings
    }
}

impl Desk {
    fn note_refused(&mut self, refusal: Refusal, from: SocketAddr) {
        self.counters.refused[refusal.index()] += 1;
        self.refused_last[refusal.index()] = Some(from);
    }

    /// Remembers whose message was dropped. The address is known for datagrams, and while a connection lives.
    pub(crate) fn note_dropped(&mut self, reason: Reason, peer: Peer, agent: Option<AgentId>) {
        let from = match peer {
            Peer::Datagram(from) => Some(from),
            Peer::Connection(id) => self.connections.find(id).map(|connection| connection.from),
        };
        if let Some(from) = from {
            self.dropped_last[reason.index()] = Some(DroppedFrom { from, agent });
        }
    }

    /// Ends a connection from this side; harmless if it is gone.
    pub(crate) fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        if self.forget(connection, reason) {
            self.actions.push_back(Action::Close { connection, reason });
        }
    }

    /// Forgets a connection and that its agent had it; whether there was one.
    fn forget(&mut self, id: ConnectionId, reason: CloseReason) -> bool {
        let Some(connection) = self.connections.remove(id) else { return false };
        self.deliverers.forget(id, connection.delivery);
        if let Some(index) = connection.agent {
            let agent = self.table.agent(index);
            if agent.state().release(Owner { shard: self.shard, connection: id }) {
                let notice = Notice::Disconnected { reason };
                self.actions.push_back(Action::Notice { agent: agent.id(), notice });
            }
        }
        self.counters.closed[reason.index()] += 1;
        true
    }

    /// Ends a connection whose agent is not in the table any more.
    fn end(&mut self, connection: ConnectionId, reason: CloseReason) {
        let ended = self.connections.remove(connection).expect("the caller has just seen it");
        self.deliverers.forget(connection, ended.delivery);
        self.counters.closed[reason.index()] += 1;
        self.actions.push_back(Action::Close { connection, reason });
    }

    /// After each input: the gauges, and what must hold.
    pub(crate) fn settle(&mut self) {
        self.counters.connections = u64::from(self.connections.held());
        self.counters.authenticated = u64::from(self.connections.authenticated());
        self.counters.delivering = u64::from(self.deliverers.held());
        if cfg!(debug_assertions) {
            self.invariants();
        }
    }

    fn invariants(&self) {
        assert!(self.counters.balanced(), "one message, one verdict, one counter: {:?}", self.counters);
        self.connections.invariants(&self.settings);
        self.deliverers.invariants();
    }
}

#[cfg(test)]
mod tests;
