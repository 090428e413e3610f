//! The queue socket of analysisd: one unix datagram for each event, in order, nothing lost while the reader is slow or
//! away.
//!
//! Datagrams leave by `sendmmsg` that never blocks, as many as the reader has room for. When it has none, the shard's
//! ring polls the socket; when the reader is away, the path is tried again until it is back. Numbered events leave by a
//! chain instead, in which the kernel notes each with its hand-over.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use manager::{Ticket, Time};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, send, sendmmsg};
use uring::{CHAIN_DATAGRAMS_MAX, Chain, Noted, Sent};

use super::moved::Moved;
use super::outbox::Outbox;
use super::tickets::Tickets;
use super::{Next, SinkCounters};
use crate::delivery::LedgerFile;
use crate::metrics::{SinkKind, SinkState};

/// Datagrams handed over by one system call.
const CALL_DATAGRAMS: usize = 16;

/// Datagrams handed over in one turn of the shard, so that receiving goes on beside a large backlog.
const TURN_DATAGRAMS_MAX: usize = 1_024;

/// Asked for as the socket's send buffer: where `net.unix.max_dgram_qlen` was raised, the buffer must not be the limit.
pub(crate) const SEND_BUFFER_BYTES: usize = 4 << 20;

/// The first pause before the path of an absent reader is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The kernel was out of memory for a datagram: pause before the next try.
const MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// A reader that took some and is full is given this long to make room, so that it gets several at once again: being woken
/// for each datagram that it reads costs both sides more than the datagram.
const READER_PAUSE: Duration = Duration::from_micros(50);

/// A wait for room that lasted this long is tried again without its poll, in case a wake-up was lost.
const POLL_PATIENCE: Duration = Duration::from_secs(1);

/// The sending end of one shard's queue socket.
#[derive(Debug)]
pub(super) struct QueueSocket {
    path: PathBuf,
    state: State,
    outbox: Outbox,
    tickets: Tickets,
    notes: Option<QueueNotes>,
    counters: SinkCounters,
}

/// How numbered events leave.
#[derive(Debug)]
pub(super) struct QueueNotes {
    ledger: Arc<LedgerFile>,
    chain: Chain,
}

impl QueueNotes {
    /// Notes into `ledger`, on this thread.
    ///
    /// # Errors
    ///
    /// What the host lacks for one more ring.
    pub(super) fn new(ledger: Arc<LedgerFile>) -> Result<QueueNotes, uring::Unsupported> {
        Ok(QueueNotes { ledger, chain: Chain::new()? })
    }
}

#[derive(Debug)]
enum State {
    /// Nobody listens at the path: tried again at `retry_at`.
    Away { retry_at: Time, pause: Duration },
    /// Connected; room as far as is known.
    Connected { socket: Arc<OwnedFd> },
    /// Connected, and the reader has no room.
    Full { socket: Arc<OwnedFd>, retry_at: Time },
}

/// What one call achieved.
enum Handed {
    /// So many datagrams were taken.
    Taken(usize),
    /// The reader has no room.
    Full,
    /// The kernel had no memory.
    Memory,
    /// The first datagram is longer than the kernel takes.
    TooLong,
    /// The reader is gone.
    Gone,
}

impl QueueSocket {
    /// A sink for the socket at `path`, which need not be there yet.
    #[must_use]
    pub(super) fn new(path: PathBuf, notes: Option<QueueNotes>) -> QueueSocket {
        QueueSocket {
            path,
            state: State::Away { retry_at: Time::ZERO, pause: RETRY_MIN },
            outbox: Outbox::default(),
            tickets: Tickets::default(),
            notes,
            counters: SinkCounters::default(),
        }
    }

    /// Takes one datagram, which `write` appends.
    pub(super) fn take(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.counters.taken += 1;
        if !self.outbox.append(write) {
            self.counters.refused += 1;
        }
    }

    /// The same for a numbered event. One that has no form is passed.
    pub(super) fn take_numbered(
        &mut self,
        ticket: Ticket,
        moved: &mut Moved,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let refused = self.counters.refused;
        self.take(write);
        if self.counters.refused == refused {
            self.tickets.add(self.outbox.held_messages(), ticket);
        } else {
            self.pass(ticket, moved);
        }
    }

    /// This numbered event will never be sent.
    pub(super) fn pass(&mut self, ticket: Ticket, moved: &mut Moved) {
        if let Some((cell, before)) = self.tickets.pass(self.outbox.held_messages(), ticket) {
            note(self.notes.as_ref(), moved, cell, before);
        }
    }

    /// Hands over what can be handed over now.
    pub(super) fn pump(&mut self, now: Time, moved: &mut Moved) -> Next {
        if self.outbox.held_messages() == 0 && self.is_connected() {
            return Next::Idle;
        }
        let socket = match &self.state {
            State::Away { retry_at, .. } if now < *retry_at => return Next::At(*retry_at),
            State::Away { .. } => match self.connect(now) {
                Ok(socket) => socket,
                Err(retry_at) => return Next::At(retry_at),
            },
            State::Full { retry_at, .. } if now < *retry_at => return Next::At(*retry_at),
            State::Full { socket, .. } | State::Connected { socket } => Arc::clone(socket),
        };
        self.hand_over(now, socket, moved)
    }

    /// Finds out, while nothing is to be sent, whether somebody still reads at the path: a datagram's reader goes without a
    /// word.
    pub(super) fn probe(&mut self) {
        if self.outbox.held_messages() == 0
            && self.is_connected()
            && uring::sockets::unix_datagram(&self.path, SEND_BUFFER_BYTES).is_err()
        {
            self.state = State::Away { retry_at: Time::ZERO, pause: RETRY_MIN };
        }
    }

    /// The poll that [`Next::Poll`] asked for has completed.
    pub(super) fn on_writable(&mut self) {
        if let State::Full { socket, .. } = &self.state {
            self.state = State::Connected { socket: Arc::clone(socket) };
        }
    }

    /// Gives up what is held.
    pub(super) fn abandon(&mut self) {
        let held = self.outbox.held_messages();
        self.outbox = Outbox::default();
        self.tickets = Tickets::default();
        self.counters.stopped += held;
    }

    /// Bytes that wait.
    #[must_use]
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.held_bytes() + self.tickets.bytes()
    }

    /// Events that wait.
    #[must_use]
    pub(super) fn held(&self) -> u64 {
        self.outbox.held_messages()
    }

    /// What was counted: `taken` is the sum of the others and of what is held.
    #[must_use]
    pub(super) fn counters(&self) -> SinkCounters {
        self.counters
    }

    /// How it does, apart from its bounds.
    #[must_use]
    pub(super) fn state(&self) -> SinkState {
        match self.state {
            State::Away { .. } => SinkState::Away,
            State::Connected { .. } | State::Full { .. } => SinkState::Taking,
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. } | State::Full { .. })
    }

    fn hand_over(&mut self, now: Time, socket: Arc<OwnedFd>, moved: &mut Moved) -> Next {
        let mut budget = TURN_DATAGRAMS_MAX;
        let held_before = self.outbox.held_messages();
        while self.outbox.held_messages() > 0 {
            if budget == 0 {
                self.state = State::Connected { socket };
                return Next::Again;
            }
            self.counters.calls += 1;
            let handed = match &mut self.notes {
                Some(notes) if self.tickets.is_within(CALL_DATAGRAMS as u64) => {
                    send_noted(&socket, &self.outbox, &self.tickets, notes)
                }
                Some(_) | None => send_some(&socket, &self.outbox),
            };
            match handed {
                Handed::Taken(count) => {
                    self.remove_first(count, moved);
                    self.counters.delivered += count as u64;
                    budget = budget.saturating_sub(count);
                }
                Handed::TooLong => {
                    self.remove_first(1, moved);
                    self.counters.too_long += 1;
                }
                Handed::Full if self.outbox.held_messages() < held_before => {
                    self.counters.stalls += 1;
                    let retry_at = now + READER_PAUSE;
                    self.state = State::Full { socket, retry_at };
                    return Next::At(retry_at);
                }
                Handed::Full => {
                    self.counters.stalls += 1;
                    let retry_at = now + POLL_PATIENCE;
                    self.state = State::Full { socket: Arc::clone(&socket), retry_at };
                    return Next::Poll { descriptor: socket, patience: retry_at };
                }
                Handed::Memory => {
                    self.counters.stalls += 1;
                    self.state = State::Full { socket, retry_at: now + MEMORY_PAUSE };
                    return Next::At(now + MEMORY_PAUSE);
                }
                Handed::Gone => {
                    self.counters.stalls += 1;
                    // The reader may be back already, at the same path: the first try is at once.
                    self.state = State::Away { retry_at: now, pause: RETRY_MIN };
                    return Next::Again;
                }
            }
        }
        self.state = State::Connected { socket };
        Next::Idle
    }

    /// The first messages are gone: what they bring is known now to whoever asks.
    fn remove_first(&mut self, count: usize, moved: &mut Moved) {
        self.outbox.remove_first(count);
        let notes = self.notes.as_ref();
        self.tickets.settle(count as u64, |cell, before| note(notes, moved, cell, before));
    }

    /// Connects to the path, or says when to try again.
    fn connect(&mut self, now: Time) -> Result<Arc<OwnedFd>, Time> {
        match uring::sockets::unix_datagram(&self.path, SEND_BUFFER_BYTES) {
            Ok(socket) => {
                let socket = Arc::new(OwnedFd::from(socket));
                self.state = State::Connected { socket: Arc::clone(&socket) };
                Ok(socket)
            }
            Err(_) => {
                let pause = match self.state {
                    State::Away { pause, .. } => pause,
                    State::Connected { .. } | State::Full { .. } => RETRY_MIN,
                };
                let retry_at = now + pause;
                self.state = State::Away { retry_at, pause: (pause * 2).min(RETRY_MAX) };
                Err(retry_at)
            }
        }
    }
}

/// Notes what the kernel has noted before, or what goes along with it.
fn note(notes: Option<&QueueNotes>, moved: &mut Moved, cell: u32, before: u64) {
    let notes = notes.expect("who gives tickets has a ledger");
    notes.ledger.note(cell, SinkKind::Queue, before);
    moved.add(cell);
}

/// Hands over up to [`CALL_DATAGRAMS`] of the outbox in one system call, which notes those that have tickets.
fn send_noted(socket: &OwnedFd, outbox: &Outbox, tickets: &Tickets, notes: &mut QueueNotes) -> Handed {
    const _: () = assert!(CALL_DATAGRAMS <= CHAIN_DATAGRAMS_MAX);
    let QueueNotes { ledger, chain } = notes;
    let mut datagrams = [Noted { datagram: &[], note: None }; CALL_DATAGRAMS];
    let mut count = 0;
    for (place, datagram) in datagrams.iter_mut().zip(outbox.messages()) {
        place.datagram = datagram;
        count += 1;
    }
    for (at, cell, before) in tickets.next_messages().take_while(|(at, _, _)| *at < count as u64) {
        datagrams[at as usize].note = Some((ledger.queue_word(cell), before));
    }
    match chain.send(socket.as_fd(), &datagrams[..count]) {
        Sent { count: 0, stopped_by: Some(errno) } => refused(errno),
        Sent { count, stopped_by: _ } => Handed::Taken(count),
    }
}

/// Hands over up to [`CALL_DATAGRAMS`] of the outbox in one system call.
fn send_some(socket: &OwnedFd, outbox: &Outbox) -> Handed {
    const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
    let held = usize::try_from(outbox.held_messages()).unwrap_or(usize::MAX);
    let count = held.min(CALL_DATAGRAMS);
    let mut messages = outbox.messages();
    let sent = if count == 1 {
        let only = messages.next().expect("one message is held");
        send(socket, only, FLAGS).map(|_| 1)
    } else {
        let slices: [IoSlice<'_>; CALL_DATAGRAMS] =
            std::array::from_fn(|_| IoSlice::new(messages.next().unwrap_or_default()));
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; CALL_DATAGRAMS] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut pairs = slices.chunks_exact(1).zip(&mut controls);
        let mut headers: [MMsgHdr<'_>; CALL_DATAGRAMS] = std::array::from_fn(|_| {
            let (slice, control) = pairs.next().expect("there is a slice and a control for each header");
            MMsgHdr::new(slice, control)
        });
        sendmmsg(socket, &mut headers[..count], FLAGS)
    };
    sent.map_or_else(refused, Handed::Taken)
}

/// Why the first datagram was not taken.
fn refused(errno: Errno) -> Handed {
    match errno {
        Errno::AGAIN => Handed::Full,
        Errno::INTR => Handed::Taken(0),
        Errno::MSGSIZE => Handed::TooLong,
        Errno::NOBUFS | Errno::NOMEM => Handed::Memory,
        _ => Handed::Gone,
    }
}

#[cfg(test)]
mod tests;
