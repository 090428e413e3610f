//! One shard's part of acknowledged delivery: which of its connections deliver, the number of each event, and when an agent
//! is told what the sinks have.
//!
//! A connection that agreed first waits until nothing of an earlier connection of its agent is on its way in any shard's
//! sink; then it is told where to begin. From then on a message that is lost before it was counted would shift the numbers
//! of all that follow: such a connection is closed, and its agent comes back and gives again what was not confirmed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use codec::{Counter, DELIVERY_NUMBER_MAX, DeliveryOffer, Event, ToAgent};
use rustc_hash::FxHashMap;

use crate::action::ConnectionId;
use crate::delivery::{Begin, Deliveries, SINKS_MAX, SinkSet, Taking, Ticket};
use crate::manager::{Desk, Manager, Peer, Publish, Published};
use crate::state::{Owner, Transport};
use crate::table::Agent;
use crate::time::Time;
use crate::verdict::{CloseReason, Reason, Verdict};

/// How often a connection looks whether what an earlier one brought has arrived in another shard's sinks. Its own shard's
/// sinks tell.
const WAIT_STEP: Duration = Duration::from_millis(10);

/// How long news of the sinks may wait for more, so that an agent is told once a second.
const TAKEN_DELAY: Duration = Duration::from_secs(1);

/// With so much news an agent is told at once: it keeps all of it on its disk until then.
const TAKEN_AT_ONCE: u64 = 1_000;

/// What a connection that delivers knows.
#[derive(Debug)]
pub(crate) struct Delivering {
    deliveries: Arc<Deliveries>,
    taking: Arc<Taking>,
    offer: DeliveryOffer,
    /// Under which counter its last message came.
    last: Counter,
    stage: Stage,
    /// The time of its entry in the shard's agenda.
    due: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// For the sinks to get what an earlier connection brought.
    Waiting,
    Begun {
        /// The number of the next event; none before the agent named it.
        next: Option<u64>,
        /// Before which number each sink had everything when this connection began.
        had: [u64; SINKS_MAX],
        /// Up to where the agent was told.
        told: u64,
    },
}

/// The connections of one shard that deliver.
#[derive(Debug, Default)]
pub(crate) struct Deliverers {
    /// What new connections may agree on.
    deliveries: Option<Arc<Deliveries>>,
    /// The newest connection of each cell.
    by_cell: FxHashMap<u32, ConnectionId>,
    /// When to look at which slot again: at most one entry for each connection.
    agenda: BTreeSet<(Time, u32)>,
    held: u32,
}

impl Manager {
    /// From now on an agent that offers acknowledged delivery is taken at its word, or with `None` is answered like any
    /// other. Connections that agreed before go on. Without a call offers are ignored.
    ///
    /// All shards of a process must get the same `Deliveries`, and the same again after a `None`.
    pub fn set_deliveries(&mut self, deliveries: Option<Arc<Deliveries>>) {
        self.desk.deliverers.deliveries = deliveries;
    }

    /// This shard's sinks have more of these cells' events than before, as the ledger says: agents will be told. Once a turn
    /// is often enough.
    pub fn on_sinks_moved(&mut self, now: Time, cells: impl Iterator<Item = u32>) {
        for cell in cells {
            self.desk.on_sinks_moved(now, cell);
        }
        self.desk.settle();
    }
}

impl Desk {
    /// An agent offers acknowledged delivery in the start-up that `id` has just carried under `counter`. Whether it is agreed
    /// is said before the acknowledgement.
    pub(crate) fn consider(
        &mut self,
        now: Time,
        agent: &Agent,
        id: ConnectionId,
        offer: DeliveryOffer,
        counter: Counter,
    ) {
        let Some(deliveries) = self.deliverers.deliveries.clone() else { return };
        let owner = Owner { shard: self.shard, connection: id };
        let Ok(taking) = deliveries.claim(agent.id(), offer, owner) else {
            self.counters.delivery_full += 1;
            return;
        };
        let connection = self.connections.find_mut(id).expect("it has just carried a message");
        self.deliverers.by_cell.insert(taking.cell(), id);
        self.deliverers.held += 1;
        let stage = Stage::Waiting;
        let delivering = Delivering { deliveries, taking, offer, last: counter, stage, due: None };
        let delivering = connection.delivery.insert(Box::new(delivering));
        self.deliverers.schedule(id, delivering, now);
        self.say(agent, id, &ToAgent::DeliveryAgreed { session: offer.session });
    }

    /// Lets a connection begin if it waits and need not any more; one that has begun tells its agent what is new.
    pub(crate) fn bring_up_to_date(&mut self, now: Time, id: ConnectionId) {
        let owner = Owner { shard: self.shard, connection: id };
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Some(delivering) = connection.delivery.as_deref_mut() else { return };
        let index = connection.agent.expect("an agent's message brought the offer");
        let before = match &mut delivering.stage {
            Stage::Waiting => {
                match delivering.deliveries.begin(&delivering.taking, delivering.offer, owner) {
                    Begin::At { had, before } => {
                        delivering.stage = Stage::Begun { next: None, had, told: before };
                        before
                    }
                    Begin::Lost => return self.close(id, CloseReason::Delivery),
                    Begin::Wait => return self.deliverers.schedule(id, delivering, now + WAIT_STEP),
                }
            }
            Stage::Begun { told, .. } => match delivering.deliveries.taken(&delivering.taking, owner) {
                Some(before) if before > *told => {
                    *told = before;
                    before
                }
                Some(_) => return self.deliverers.unschedule(id, delivering),
                None => return self.close(id, CloseReason::Delivery),
            },
        };
        self.deliverers.unschedule(id, delivering);
        let table = Arc::clone(&self.table);
        self.say(table.agent(index), id, &ToAgent::DeliveryTaken { before });
        self.counters.delivery_taken += 1;
    }

    fn on_sinks_moved(&mut self, now: Time, cell: u32) {
        let Some(id) = self.deliverers.by_cell.get(&cell).copied() else { return };
        let connection = self.connections.find_mut(id).expect("the entry goes with its connection");
        let delivering = connection.delivery.as_deref_mut().expect("it has an entry");
        match delivering.stage {
            Stage::Waiting => self.bring_up_to_date(now, id),
            Stage::Begun { told, .. } => {
                let news = delivering.deliveries.before_all(cell).saturating_sub(told);
                if news >= TAKEN_AT_ONCE {
                    self.bring_up_to_date(now, id);
                } else if news > 0 && delivering.due.is_none() {
                    self.deliverers.schedule(id, delivering, now + TAKEN_DELAY);
                }
            }
        }
    }

    /// Looks at a connection whose time has come; whether there was one.
    pub(crate) fn serve_due_delivery(&mut self, now: Time) -> bool {
        let Some(&(due, slot)) = self.deliverers.agenda.first() else { return false };
        if due > now {
            return false;
        }
        let id = self.connections.at(slot).expect("the entry goes with its connection").id;
        self.bring_up_to_date(now, id);
        true
    }

    /// A connection that delivers carried a message under `counter`. An agent counts its messages without a gap, and TCP keeps
    /// them together; but who stands on the way can take a whole frame out, and then the events behind it would get the
    /// numbers of those before them.
    pub(crate) fn follow(&mut self, id: ConnectionId, counter: Counter) -> Result<(), Reason> {
        let connection = self.connections.find_mut(id).expect("it has just carried a message");
        let delivering = connection.delivery.as_deref_mut().expect("the caller has looked");
        let due = delivering.last.next();
        delivering.last = counter;
        if counter == due {
            return Ok(());
        }
        let owner = Owner { shard: self.shard, connection: id };
        match delivering.deliveries.taken(&delivering.taking, owner) {
            Some(_) => Err(Reason::DeliveryUnnumbered),
            None => Err(Reason::DeliveryLost),
        }
    }

    /// The agent says which number its next event has.
    pub(crate) fn on_delivery_next(&mut self, id: ConnectionId, number: u64) {
        let connection = self.connections.find_mut(id).expect("it has just carried a message");
        let Some(delivering) = connection.delivery.as_deref_mut() else { return };
        match &mut delivering.stage {
            Stage::Begun { next, .. } if next.is_none_or(|next| next <= number) => *next = Some(number),
            // Backwards, or before it was told where to begin.
            Stage::Begun { .. } | Stage::Waiting => self.close(id, CloseReason::Delivery),
        }
    }

    /// Decides on an event of a connection that delivers.
    pub(crate) fn decide_delivered(
        &mut self,
        now: Time,
        agent: &Agent,
        from: SocketAddr,
        id: ConnectionId,
        text: &[u8],
        publisher: &mut impl Publish,
    ) -> Result<Verdict, Reason> {
        let ticket = self.count_event(id)?;
        if ticket.wanted.is_empty() {
            return Err(Reason::DeliveredBefore);
        }
        let event = match Event::parse(text) {
            Ok(event) => event,
            Err(error) => {
                publisher.pass(ticket);
                return Err(crate::receive::reason_of_event_error(error));
            }
        };
        if self.settings.events_per_second_max > 0 {
            self.limit_rate(now, agent, Peer::Connection(id))?;
        }
        let event = Published { agent, event, from, transport: Transport::Tcp, ticket: Some(ticket) };
        publisher.publish(&event).expect("a publisher takes every event of a connection");
        Ok(Verdict::Event)
    }

    /// Gives the next event of a connection its number.
    fn count_event(&mut self, id: ConnectionId) -> Result<Ticket, Reason> {
        let owner = Owner { shard: self.shard, connection: id };
        let connection = self.connections.find_mut(id).expect("it has just carried a message");
        let delivering = connection.delivery.as_deref_mut().expect("the caller has looked");
        let (cell, sinks) = (delivering.taking.cell(), delivering.deliveries.ledger().sinks());
        let Stage::Begun { next: Some(next), had, told: _ } = &mut delivering.stage else {
            return Err(Reason::DeliveryUnnumbered);
        };
        let number = *next;
        if number > DELIVERY_NUMBER_MAX {
            return Err(Reason::DeliveryUnnumbered);
        }
        let wanted = sinks.iter().filter(|sink| number >= had[*sink]).fold(SinkSet::NONE, SinkSet::with);
        if !wanted.is_empty() && !delivering.taking.take(owner, number) {
            return Err(Reason::DeliveryLost);
        }
        *next += 1;
        Ok(Ticket { cell, number, wanted })
    }

    /// A message of `peer` was dropped. If that connection delivers and the message had no number yet, nobody knows any more
    /// which number the next one has.
    pub(crate) fn lose_count(&mut self, peer: Peer, reason: Reason) {
        let Peer::Connection(id) = peer else { return };
        if reason.keeps_count() {
            return;
        }
        if self.connections.find(id).is_some_and(|connection| connection.delivery.is_some()) {
            self.close(id, CloseReason::Delivery);
        }
    }

    fn say(&mut self, agent: &Agent, id: ConnectionId, message: &ToAgent<'_>) {
        let method = agent.state().method().expect("an agent that delivers has sent a message");
        let mut text = Vec::new();
        message.write(&mut text);
        self.send(agent, Peer::Connection(id), method, &text).expect("the message is short");
    }
}

impl Deliverers {
    /// When the next connection must be looked at.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// How many connections deliver.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, id: ConnectionId, delivering: Option<Box<Delivering>>) {
        let Some(mut delivering) = delivering else { return };
        self.unschedule(id, &mut delivering);
        let cell = delivering.taking.cell();
        if self.by_cell.get(&cell) == Some(&id) {
            self.by_cell.remove(&cell);
        }
        self.held -= 1;
    }

    fn schedule(&mut self, id: ConnectionId, delivering: &mut Delivering, due: Time) {
        self.unschedule(id, delivering);
        delivering.due = Some(due);
        self.agenda.insert((due, id.slot));
    }

    fn unschedule(&mut self, id: ConnectionId, delivering: &mut Delivering) {
        if let Some(due) = delivering.due.take() {
            assert!(self.agenda.remove(&(due, id.slot)), "each due time has its entry");
        }
    }

    /// Asserts what must hold between calls.
    pub(crate) fn invariants(&self) {
        assert!(self.agenda.len() <= self.held as usize, "at most one entry each");
        assert!(self.by_cell.len() <= self.held as usize, "at most one cell each");
    }
}

#[cfg(test)]
mod tests;
