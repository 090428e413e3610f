//! What happens to an event between its collector and the manager: into the spool, and from there, in order, to whatever
//! connection there is. No sockets, and no clock: it is told the time.
//!
//! Every event goes through the spool, also while the manager is there: so there is one way and one order, and what was
//! taken from a collector outlives the program. Its segments are so small that what is delivered soon is deleted before the
//! kernel has written it to the disk.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use codec::Counter;
use spool::{AppendError, AtBound, Cursor, Sequence, Spool};

use crate::{Agent, Output, SharedFiles, State, SubmitError, Tools};

mod confirmation;
mod event;

use confirmation::Confirmation;
pub use event::{Refusal, Taken};

/// Bytes of sealed messages that wait for the connection; what is more stays in the spool.
const OUTBOX_BYTES_MAX: usize = 128 << 10;
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
    /// Over TCP an event is forgotten when it is confirmed, over UDP when it was sent.
    confirmation: Option<Confirmation>,
    confirm_after: Duration,
    /// The last event that this connection was given.
    handed: Option<Sequence>,
    /// How many events it was given and are not forgotten.
    unforgotten: u64,
    outbox: VecDeque<Vec<u8>>,
    outbox_bytes: usize,
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
    /// The manager is there: events go.
    Ready,
    /// A text from the manager, for the agent's other parts.
    Received(Vec<u8>),
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
        let Delivery { spool: spool::Settings { bytes_max, at_bound, .. }, confirm_after } = delivery;
        let cursor = spool.cursor(spool.first_sequence());
        Engine {
            agent,
            tools,
            spool,
            bytes_max,
            at_bound,
            cursor,
            confirmation: confirm_after.map(|_| Confirmation::default()),
            confirm_after: confirm_after.unwrap_or_default(),
            handed: None,
            unforgotten: 0,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
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
        if self.confirmation.as_ref().is_some_and(Confirmation::has_unasked) {
            self.probe(now);
        }
    }

    /// Whether nothing is on its way that the manager has not confirmed.
    pub fn is_settled(&self) -> bool {
        let confirmed = self.confirmation.as_ref().is_none_or(Confirmation::is_settled);
        self.agent.state() != State::Ready || (confirmed && self.outbox.is_empty())
    }

    /// Seals events of the spool while there is room for them on the way.
    pub fn pump(&mut self, now: Duration) {
        if self.agent.state() != State::Ready || self.is_finishing || now < self.paused_until {
            return;
        }
        let mut burst = 0;
        while self.outbox_bytes < OUTBOX_BYTES_MAX {
            if self.confirmation.is_none() && burst >= BURST_MESSAGES_MAX {
                self.paused_until = now + BURST_PAUSE;
                return;
            }
            let Engine { agent, tools, spool, cursor, .. } = self;
            let (sequence, submitted, bytes) = match spool.read(cursor) {
                Ok(None) => return,
                Ok(Some((sequence, text))) => (sequence, agent.submit(tools, text), text.len()),
                Err(error) => {
                    self.trouble = Some(error);
                    return;
                }
            };
            burst += 1;
            match submitted {
                Ok(()) => self.counters.handed += 1,
                // Older programs may have left it.
                Err(SubmitError::Seal(_)) => self.counters.refused += 1,
                Err(SubmitError::Locked) => unreachable!("the agent is ready"),
            }
            self.handed = Some(sequence);
            self.unforgotten += 1;
            if let Some(confirmation) = &mut self.confirmation {
                confirmation.on_handed(now, sequence, bytes);
            }
            self.drain();
        }
    }

    /// Messages to send, in order; over UDP, [`Engine::on_sent`] when they are. A batch, so that many frames make one write.
    pub fn take_outbox(&mut self) -> VecDeque<Vec<u8>> {
        self.outbox_bytes = 0;
        std::mem::take(&mut self.outbox)
    }

    /// Whether [`Engine::take_outbox`] gives anything.
    pub fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What [`Engine::take_outbox`] gave was sent. Over UDP that is all that will ever be known.
    pub fn on_sent(&mut self) {
        if self.confirmation.is_none()
            && self.outbox.is_empty()
            && let Some(last) = self.handed.take()
        {
            self.forget(last);
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
        let confirmation = self.confirmation.as_ref().filter(|_| self.agent.state() == State::Ready)?;
        confirmation.ask_at(self.confirm_after)
    }

    fn probe(&mut self, now: Duration) {
        self.input(now, |agent, tools| agent.probe(tools, now));
    }

    fn input(&mut self, now: Duration, input: impl FnOnce(&mut Agent, &mut Tools)) {
        let asked = self.agent.asked();
        input(&mut self.agent, &mut self.tools);
        let was_ready = self.agent.state() == State::Ready;
        if let Some(confirmation) = &mut self.confirmation {
            (asked..self.agent.asked()).for_each(|_| confirmation.on_asked());
        }
        self.drain();
        if was_ready {
            self.pump(now);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.tools.next_output() {
            match output {
                Output::Transmit(message) => {
                    self.outbox_bytes += message.len();
                    self.outbox.push_back(message);
                }
                Output::Acknowledged => {
                    if let Some(last) = self.confirmation.as_mut().and_then(Confirmation::on_acknowledged) {
                        self.forget(last);
                    }
                }
                Output::Connect => {
                    self.begin_again();
                    self.deeds.push_back(Deed::Connect);
                }
                Output::Disconnect => self.deeds.push_back(Deed::Disconnect),
                Output::Locked => self.deeds.push_back(Deed::Locked),
                Output::Ready => self.deeds.push_back(Deed::Ready),
                Output::Received(text) => self.deeds.push_back(Deed::Received(text)),
            }
        }
    }

    /// For a new connection: what the last one was given and did not confirm comes first.
    fn begin_again(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
        let first = self.spool.first_sequence();
        self.handed = None;
        self.counters.again += std::mem::take(&mut self.unforgotten);
        self.cursor = self.spool.cursor(first);
        self.confirmation = self.confirmation.take().map(|_| Confirmation::default());
    }

    fn forget(&mut self, last: Sequence) {
        let before = self.spool.records();
        let forgotten = self.spool.forget(last).and_then(|()| self.spool.save());
        self.unforgotten = self.unforgotten.saturating_sub(before - self.spool.records());
        self.note(forgotten);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.trouble = Some(error);
        }
    }
}

#[cfg(test)]
mod tests;
