//! The queue socket of analysisd: one unix datagram for each event, in order, nothing lost while the reader is slow or
//! away.
//!
//! Datagrams leave by `sendmmsg` that never blocks, as many as the reader has room for. When it has none, the shard's
//! ring polls the socket; when the reader is away, the path is tried again until it is back.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use manager::Time;
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, send, sendmmsg};

use super::outbox::Outbox;
use super::{Next, SinkCounters};
use crate::metrics::SinkState;

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
    counters: SinkCounters,
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
    pub(super) fn new(path: PathBuf) -> QueueSocket {
        let state = State::Away { retry_at: Time::ZERO, pause: RETRY_MIN };
        QueueSocket { path, state, outbox: Outbox::default(), counters: SinkCounters::default() }
    }

    /// Takes one datagram, which `write` appends.
    pub(super) fn take(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.counters.taken += 1;
        if !self.outbox.append(write) {
            self.counters.refused += 1;
        }
    }

    /// Hands over what can be handed over now.
    pub(super) fn pump(&mut self, now: Time) -> Next {
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
        self.hand_over(now, socket)
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
        self.counters.stopped += held;
    }

    /// Bytes that wait.
    #[must_use]
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.held_bytes()
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

    fn hand_over(&mut self, now: Time, socket: Arc<OwnedFd>) -> Next {
        let mut budget = TURN_DATAGRAMS_MAX;
        let held_before = self.outbox.held_messages();
        while self.outbox.held_messages() > 0 {
            if budget == 0 {
                self.state = State::Connected { socket };
                return Next::Again;
            }
            self.counters.calls += 1;
            match send_some(&socket, &self.outbox) {
                Handed::Taken(count) => {
                    self.outbox.remove_first(count);
                    self.counters.delivered += count as u64;
                    budget = budget.saturating_sub(count);
                }
                Handed::TooLong => {
                    self.outbox.remove_first(1);
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
    match sent {
        Ok(count) => Handed::Taken(count),
        Err(Errno::AGAIN) => Handed::Full,
        Err(Errno::INTR) => Handed::Taken(0),
        Err(Errno::MSGSIZE) => Handed::TooLong,
        Err(Errno::NOBUFS | Errno::NOMEM) => Handed::Memory,
        Err(_) => Handed::Gone,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reader(path: &std::path::Path) -> UnixDatagram {
        let reader = UnixDatagram::bind(path).unwrap();
        reader.set_nonblocking(true).unwrap();
        reader
    }

    fn read_all(reader: &UnixDatagram) -> Vec<u32> {
        let mut buffer = [0; 64];
        let mut numbers = Vec::new();
        while let Ok(length) = reader.recv(&mut buffer) {
            numbers.push(std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap());
        }
        numbers
    }

    fn take(sink: &mut QueueSocket, number: u32) {
        sink.take(|bytes| bytes.extend(number.to_string().as_bytes()));
    }

    fn balanced(sink: &QueueSocket) {
        let counters = sink.counters();
        assert_eq!(counters.taken, counters.delivered + counters.too_long + counters.stopped + sink.held());
    }

    #[test]
    fn a_slow_reader_gets_everything_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        let reader = reader(&path);
        let mut sink = QueueSocket::new(path);
        (0..5_000).for_each(|number| take(&mut sink, number));
        let mut now = Time::ZERO;
        let mut got = Vec::new();
        while got.len() < 5_000 {
            let next = sink.pump(now);
            balanced(&sink);
            let read = read_all(&reader);
            assert!(!read.is_empty(), "each turn hands something over: {next:?}");
            got.extend(read);
            if matches!(next, Next::Poll { .. }) {
                sink.on_writable();
            }
            now = now + Duration::from_millis(1);
        }
        assert_eq!(got, (0..5_000).collect::<Vec<u32>>());
        assert!(matches!(sink.pump(now), Next::Idle));
        assert!(sink.counters().stalls > 0, "5,000 datagrams do not fit at once");
    }

    #[test]
    fn an_idle_socket_knows_whether_somebody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        let first = reader(&path);
        let mut sink = QueueSocket::new(path.clone());
        assert!(matches!(sink.pump(Time::ZERO), Next::Idle));
        sink.probe();
        assert_eq!(sink.state(), SinkState::Taking);
        drop(first);
        sink.probe();
        assert_eq!(sink.state(), SinkState::Away);
        std::fs::remove_file(&path).unwrap();
        let again = reader(&path);
        assert!(matches!(sink.pump(Time::ZERO), Next::Idle), "found without anything to send");
        assert_eq!(sink.state(), SinkState::Taking);
        assert!(read_all(&again).is_empty(), "and nothing was sent");
    }

    #[test]
    fn a_reader_that_comes_late_or_again_gets_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        let mut sink = QueueSocket::new(path.clone());
        take(&mut sink, 1);
        let mut now = Time::from_seconds(1);
        assert!(matches!(sink.pump(now), Next::At(_)));
        assert_eq!(sink.state(), SinkState::Away);
        let first = reader(&path);
        now = now + SECOND;
        assert!(matches!(sink.pump(now), Next::Idle));
        assert_eq!(read_all(&first), [1]);

        drop(first);
        std::fs::remove_file(&path).unwrap();
        take(&mut sink, 2);
        assert!(matches!(sink.pump(now), Next::Again), "found gone, tried again at once");
        assert!(matches!(sink.pump(now), Next::At(_)));
        balanced(&sink);
        let second = reader(&path);
        take(&mut sink, 3);
        now = now + SECOND;
        assert!(matches!(sink.pump(now), Next::Idle));
        assert_eq!(read_all(&second), [2, 3]);
        balanced(&sink);
    }

    #[test]
    fn a_datagram_too_long_is_counted_and_the_next_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        let reader = reader(&path);
        let mut sink = QueueSocket::new(path);
        sink.take(|bytes| bytes.resize(16 << 20, b'x'));
        take(&mut sink, 7);
        assert!(matches!(sink.pump(Time::ZERO), Next::Idle));
        assert_eq!(read_all(&reader), [7]);
        assert_eq!(sink.counters().too_long, 1);
        balanced(&sink);
    }

    #[test]
    fn what_is_abandoned_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = QueueSocket::new(folder.path().join("queue"));
        (0..3).for_each(|number| take(&mut sink, number));
        sink.abandon();
        assert_eq!((sink.held(), sink.counters().stopped), (0, 3));
        balanced(&sink);
    }
}
