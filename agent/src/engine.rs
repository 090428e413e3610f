//! What happens to an event between its collector and the manager: into the spool, and from there, in order, to whatever
//! connection there is. No sockets, and no clock: it is told the time.
//!
//! Every event goes through the spool, also while the manager is there: so there is one way and one order, and what was
//! taken from a collector outlives the program. Its segments are so small that what is delivered soon is deleted before the
//! kernel has written it to the disk.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use codec::{Counter, DeliveryOffer};
use spool::{AppendError, AtBound, Cursor, Sequence, Spool};

use crate::{Agent, Output, SharedFiles, State, SubmitError, Tools};

mod confirmation;
mod event;
mod outbox;
mod way;

pub use event::{Refusal, Taken};
use outbox::Outbox;
use way::{Acknowledged, Way, Word};

/// More than the longest event takes of a spool, a new segment included.
const EVENT_ROOM_BYTES: u64 = 8 << 10;
/// Over UDP nothing pushes back: so many datagrams, then a pause. C managers' sockets hold some 160.
const BURST_MESSAGES_MAX: usize = 50;
const BURST_PAUSE: Duration = Duration::from_millis(10);

/// The agent, its spool, and what is on its way.
#[derive(Debug)]
pub struct Engine {
    agent: Agent,
    tools: Tools,
    spool: Spool,
    bytes_max: u64,
    at_bound: AtBound,
    cursor: Cursor,
    is_tcp: bool,
    /// Whether acknowledged delivery is offered.
    offers: bool,
    /// The manager knows events that this spool never gave out: its next session is to be another.
    is_foreign: bool,
    /// Of the connection that there is, or was.
    way: Way,
    confirm_after: Duration,
    /// The last event that this connection was given.
    handed: Option<Sequence>,
    /// Every event that an earlier life gave to a connection has a number below, and each that this one took has none below.
    given_before: Sequence,
    /// Every event that this life gave to a connection has a number below.
    given: Sequence,
    outbox: Outbox,
    /// What the manager itself remembers need not be noted again before.
    save_at: Duration,
    /// Over UDP: no event before.
    paused_until: Duration,
    is_finishing: bool,
    deeds: VecDeque<Deed>,
    counters: Counters,
    trouble: Option<io::Error>,
}

/// How events get there.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// What the spool was opened with.
    pub spool: spool::Settings,
    /// Over TCP: how long after an event the manager is asked to confirm it. `None` over UDP.
    pub confirm_after: Option<Duration>,
    /// Whether, over TCP, the manager is offered to acknowledge events itself.
    pub acknowledged: bool,
}

/// What the owner of the sockets does next.
#[derive(Debug, Eq, PartialEq)]
pub enum Deed {
    /// Connect, when it likes; [`Engine::on_connected`] or [`Engine::on_closed`] when that is done.
    Connect,
    /// Close the connection.
    Disconnect,
    /// The manager is gone.
    Locked,
    /// The manager is there: events go, or as soon as it says where to begin. [`Engine::is_acknowledged`] tells the way.
    Ready,
    /// A text from the manager, for the agent's other parts.
    Received(Vec<u8>),
    /// The manager knows events of the spool that the spool never gave out: it is a copy of what it was once. It has a new
    /// session now, so that the manager takes what it has for what it is.
    SessionRenewed,
}

/// What became of events.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Taken from collectors.
    pub taken: u64,
    /// Of collectors, and can't be sent.
    pub refused: u64,
    /// Handed to a connection, again included.
    pub handed: u64,
    /// Handed over before, to a connection that broke.
    pub again: u64,
}

impl Engine {
    /// An engine of a new agent, and the spool that an earlier one left. `tools` are its own: nobody else may use them.
    pub fn new(agent: Agent, tools: Tools, spool: Spool, delivery: Delivery) -> Engine {
        let Delivery { spool: spool::Settings { bytes_max, at_bound, .. }, confirm_after, acknowledged } =
            delivery;
        let cursor = spool.cursor(spool.first_sequence());
        let given_before = spool.next_sequence();
        let is_tcp = confirm_after.is_some();
        Engine {
            agent,
            tools,
            spool,
            bytes_max,
            at_bound,
            cursor,
            is_tcp,
            offers: is_tcp && acknowledged,
            is_foreign: false,
            way: Way::new(is_tcp),
            confirm_after: confirm_after.unwrap_or_default(),
            handed: None,
            given_before,
            given: Sequence(0),
            outbox: Outbox::default(),
            save_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            is_finishing: false,
            deeds: VecDeque::new(),
            counters: Counters::default(),
            trouble: None,
        }
    }

    /// Takes a collector's datagram; [`Engine::commit`] after the last of a batch.
    pub fn take(&mut self, datagram: &[u8]) -> Taken {
        let text = match event::text(datagram) {
            Ok(text) => text,
            Err(refusal) => {
                self.counters.refused += 1;
                return Taken::Refused(refusal);
            }
        };
        match self.spool.append(text) {
            Ok(_) => {
                self.counters.taken += 1;
                Taken::Kept
            }
            Err(AppendError::Full) => Taken::Full,
            Err(AppendError::TooLong { .. }) => {
                unreachable!("a record may be longer than any event")
            }
            Err(AppendError::Io(error)) => {
                self.trouble = Some(error);
                Taken::Full
            }
        }
    }

    /// Whether the next event surely finds room.
    pub fn has_room(&self) -> bool {
        match self.at_bound {
            AtBound::DropOldest => true,
            AtBound::PushBack => self.spool.bytes() + EVENT_ROOM_BYTES <= self.bytes_max,
        }
    }

    /// Writes what was taken. `false` if the disk does not take it: it is still in memory, so take no more until it does.
    pub fn commit(&mut self) -> bool {
        if !self.spool.is_dirty() {
            return true;
        }
        let written = self.spool.commit();
        let is_written = written.is_ok();
        self.note(written);
        is_written
    }

    /// The connection that was asked for is there.
    pub fn on_connected(&mut self, now: Duration) {
        let offer = self.offer();
        self.agent.set_delivery(offer);
        self.input(now, |agent, tools| agent.on_connected(tools, now));
    }

    /// It could not be made, or is gone.
    pub fn on_closed(&mut self, now: Duration) {
        self.input(now, |agent, tools| agent.on_closed(tools, now));
    }

    /// A message of the manager.
    pub fn on_message(&mut self, now: Duration, bytes: &[u8]) {
        self.input(now, |agent, tools| agent.on_message(tools, now, bytes));
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, now: Duration) {
        self.input(now, |agent, tools| agent.on_timeout(tools, now));
        let due = self.ask_at().is_some_and(|at| at <= now);
        if due {
            self.probe(now);
        }
    }

    /// The end is near: hands over what fits, nothing after that, and asks the manager to confirm it.
    pub fn finish(&mut self, now: Duration) {
        self.pump(now);
        self.is_finishing = true;
        if self.way.has_unasked() {
            self.probe(now);
        }
    }

    /// Whether nothing is on its way that the manager has not confirmed.
    pub fn is_settled(&self) -> bool {
        self.agent.state() != State::Ready || (self.way.is_settled() && self.outbox.is_empty())
    }

    /// Seals events of the spool while there is room for them on the way.
    pub fn pump(&mut self, now: Duration) {
        let may_go = self.agent.state() == State::Ready && self.way.has_begun() && !self.is_finishing;
        if !may_go || now < self.paused_until {
            return;
        }
        let mut burst = 0;
        while self.outbox.has_room() {
            if !self.is_tcp && burst >= BURST_MESSAGES_MAX {
                self.paused_until = now + BURST_PAUSE;
                return;
            }
            let Engine { agent, tools, spool, cursor, outbox, way, .. } = self;
            let (sequence, submitted, bytes) = match spool.read(cursor) {
                Ok(None) => return,
                Ok(Some((sequence, text))) => {
                    if let Some(number) = way.number_to_say(sequence) {
                        agent.say_next(tools, number);
                        outbox.collect(tools);
                    }
                    (sequence, agent.submit(tools, text), text.len())
                }
                Err(error) => {
                    self.trouble = Some(error);
                    return;
                }
            };
            burst += 1;
            match submitted {
                Ok(()) => {
                    self.outbox.collect(&mut self.tools);
                    self.way.on_handed(now, sequence, bytes);
                    self.counters.handed += 1;
                    self.counters.again += u64::from(sequence < self.given);
                }
                // Older programs may have left it.
                Err(SubmitError::Seal(_)) => {
                    self.way.on_passed_over(now, sequence);
                    self.counters.refused += 1;
                }
                Err(SubmitError::Locked) => unreachable!("the agent is ready"),
            }
            self.handed = Some(sequence);
            self.given = self.given.max(Sequence(sequence.0 + 1));
        }
    }

    /// Messages to send, in order; over UDP, [`Engine::on_sent`] when they are. A batch, so that many frames make one write.
    pub fn take_outbox(&mut self) -> VecDeque<Vec<u8>> {
        self.outbox.take()
    }

    /// Whether [`Engine::take_outbox`] gives anything.
    pub fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What [`Engine::take_outbox`] gave was sent. Over UDP that is all that will ever be known.
    pub fn on_sent(&mut self) {
        if !self.is_tcp
            && self.outbox.is_empty()
            && let Some(last) = self.handed.take()
        {
            self.forget_before(Sequence(last.0 + 1));
            self.save();
        }
    }

    /// The next thing to do with the sockets.
    pub fn next_deed(&mut self) -> Option<Deed> {
        self.deeds.pop_front()
    }

    /// When [`Engine::on_timeout`] or [`Engine::pump`] is due. May change with every input.
    pub fn next_timeout(&self, now: Duration) -> Option<Duration> {
        let pump_at = Some(self.paused_until).filter(|at| *at > now);
        [self.agent.next_timeout(), self.ask_at(), pump_at].into_iter().flatten().min()
    }

    /// What keep-alives say of the shared files.
    pub fn set_files(&mut self, files: SharedFiles) {
        self.agent.set_files(files);
    }

    /// Whether the manager of this connection, or of the last one, has agreed to say itself what its sinks have. Otherwise
    /// keep-alives ask it what it has read, or over UDP nobody knows anything.
    pub fn is_acknowledged(&self) -> bool {
        match self.way {
            Way::Acknowledged(_) => true,
            Way::KeepAlives(_) | Way::Unknown => false,
        }
    }

    /// What the disk refused since this was last asked.
    pub fn take_trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }

    /// The agent within.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The spool within.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// What became of events.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends it: the spool is closed cleanly. Returns the last counters sent and taken.
    ///
    /// # Errors
    /// The kernel's; the next start takes the end for a crash then.
    pub fn close(self) -> (Counter, Counter, io::Result<()>) {
        let (sent, taken) = self.agent.counters();
        (sent, taken, self.spool.close())
    }

    fn ask_at(&self) -> Option<Duration> {
        if self.agent.state() == State::Ready { self.way.ask_at(self.confirm_after) } else { None }
    }

    fn probe(&mut self, now: Duration) {
        self.input(now, |agent, tools| agent.probe(tools, now));
    }

    fn input(&mut self, now: Duration, input: impl FnOnce(&mut Agent, &mut Tools)) {
        let asked = self.agent.asked();
        input(&mut self.agent, &mut self.tools);
        let was_ready = self.agent.state() == State::Ready;
        (asked..self.agent.asked()).for_each(|_| self.way.on_asked());
        self.drain(now);
        if was_ready && self.is_foreign {
            self.leave(now);
        } else if was_ready {
            self.pump(now);
        }
    }

    fn drain(&mut self, now: Duration) {
        while let Some(output) = self.tools.next_output() {
            match output {
                Output::Transmit(message) => self.outbox.push(message),
                Output::Acknowledged => {
                    if let Some(before) = self.way.on_acknowledged() {
                        self.forget_before(before);
                        self.save();
                    }
                }
                Output::Connect => {
                    self.begin_again();
                    self.deeds.push_back(Deed::Connect);
                }
                Output::DeliveryAgreed => self.way = Way::Acknowledged(Acknowledged::default()),
                Output::DeliveryTaken { before } => self.on_taken(now, Sequence(before)),
                Output::Disconnect => self.deeds.push_back(Deed::Disconnect),
                Output::Locked => self.deeds.push_back(Deed::Locked),
                Output::Ready => self.deeds.push_back(Deed::Ready),
                Output::Received(text) => self.deeds.push_back(Deed::Received(text)),
            }
        }
    }

    /// What a new connection is offered. Its session is made with the first offer, and is on the disk before it is told.
    fn offer(&mut self) -> Option<DeliveryOffer> {
        if !self.offers {
            return None;
        }
        if self.spool.session().is_none() || self.is_foreign {
            let session = NonZeroU64::new(self.tools.random_u64()).unwrap_or(NonZeroU64::MIN);
            let renewed = self.spool.renew_session(session);
            // A disk that does not take it gets no offer: keep-alives do.
            renewed.map_err(|error| self.trouble = Some(error)).ok()?;
            if std::mem::take(&mut self.is_foreign) {
                self.deeds.push_back(Deed::SessionRenewed);
            }
        }
        let session = self.spool.session()?.get();
        Some(DeliveryOffer { session, first: self.spool.first_sequence().0 })
    }

    fn on_taken(&mut self, now: Duration, before: Sequence) {
        // What a full spool dropped was perhaps never given, and a manager begins behind it.
        let given = self.given.max(self.given_before).max(self.spool.first_sequence());
        match &mut self.way {
            Way::Acknowledged(acknowledged) => match acknowledged.on_taken(before, given) {
                Word::Before(before) => {
                    self.forget_before(before);
                    if now >= self.save_at {
                        self.save();
                        self.save_at = now + self.confirm_after;
                    }
                }
                Word::Foreign => self.is_foreign = true,
            },
            // Nobody has agreed to anything.
            Way::KeepAlives(_) | Way::Unknown => {}
        }
    }

    /// The next connection offers another session.
    fn leave(&mut self, now: Duration) {
        self.agent.reconnect(&mut self.tools);
        self.drain(now);
    }

    /// For a new connection: what the last one was given and did not confirm comes first.
    fn begin_again(&mut self) {
        self.outbox = Outbox::default();
        self.handed = None;
        self.cursor = self.spool.cursor(self.spool.first_sequence());
        self.way = Way::new(self.is_tcp);
    }

    /// The other side has everything before.
    fn forget_before(&mut self, before: Sequence) {
        if before > self.spool.first_sequence() {
            let forgotten = self.spool.forget(Sequence(before.0 - 1));
            self.note(forgotten);
        }
    }

    fn save(&mut self) {
        let saved = self.spool.save();
        self.note(saved);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.trouble = Some(error);
        }
    }
}

#[cfg(test)]
mod tests;
