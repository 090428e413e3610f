//! The client's core: whose datagram it is, whether it is kept or let through, what is sent, what is forgotten.
//!
//! Sockets, time and randomness are the caller's: inputs come with the time; then [`Client::commit`], [`Client::poll_transmit`] or
//! [`Client::poll_replay`], and [`Client::poll_action`] until there is none. Only the spools are files, and the core's own.
//!
//! **Order is never broken**: once a datagram of an agent is kept, all later ones of it queue behind it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use codec::limits::FRAME_BYTES_MAX;
use codec::{FrameAt, FrameCutter};

use crate::folder::Folder;
use crate::health::Unwell;
use crate::key::LineKey;
use crate::line::{Line, NotKept, Source};
use crate::wire::{
    DATAGRAM_BYTES_MAX, Hello, LineNumber, Message, Mode, Packet, Refusal, VERSION, WireError,
};

mod lines;
mod replay;
mod status;

use replay::Pace;
pub use status::{ClientCounters, ClientStatus, LineStatus};

/// Bytes of packets that may be on their way without being confirmed; the server holds no more of a client.
pub const WINDOW_BYTES: usize = 256 << 10;

/// Packets of one line that are sent before the next line has its turn.
const TURN_PACKETS: usize = 8;

/// A line that is empty and was silent for so long gives way to a stranger's when there are as many as may be.
pub const IDLE_AFTER: Duration = Duration::from_secs(60);

/// How often the client asks whether the server is there.
pub const PING_EVERY: Duration = Duration::from_secs(15);

/// A server that says nothing for so long is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(40);

/// How often a disk that took nothing is tried again, and forgotten records are noted.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// What a client is told once.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name, by which the server knows it.
    pub name: String,
    /// How packets go.
    pub mode: Mode,
    /// The shared secret, or nothing.
    pub secret: Vec<u8>,
    /// Lines that it has at most.
    pub lines_max: usize,
    /// The bounds of each line's spool.
    pub spool: spool::Settings,
    /// Kept datagrams that a gate lets through in a second, in all.
    pub replay_per_second: u32,
    /// Where the identities of lines come from.
    pub seed: u64,
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// Of a clock that only goes forward.
    pub elapsed: Duration,
    /// Of the calendar, in milliseconds of 1970.
    pub unix_milliseconds: u64,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is in its line's spool.
    Kept,
    /// The caller sends it straight to the manager, and calls [`Client::passed_not`] if that fails.
    Pass(LineNumber),
    /// It is dropped, and counted.
    Dropped,
}

/// What the caller has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Send this to an agent.
    Reply {
        /// Where the agent is, and by which listener it hears.
        to: Source,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// A line's number means nothing any more: its socket can be closed.
    Retire(LineNumber),
    /// Something that the operator may want to know; agents and the server can cause it as often as they like.
    Say(Notice),
}

/// What an operator may want to know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Notice {
    /// The manager is well: what is kept goes out.
    Well,
    /// The manager is not well: datagrams are kept.
    Unwell(String),
    /// The server wants no connection.
    Refused(String),
    /// A disk takes nothing.
    Disk(String),
    /// There are as many agents as there may be.
    TooManyLines,
    /// A line has no room.
    Full,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    settings: ClientSettings,
    folder: Folder,
    starts: u32,
    connections: u32,
    lines: BTreeMap<LineKey, Line>,
    numbers: BTreeMap<LineNumber, LineKey>,
    next_number: u32,
    identities: u64,
    /// Lines that may have something to send, in turn.
    queue: VecDeque<LineKey>,
    dirty: BTreeSet<LineKey>,
    link: Option<Link>,
    /// A gate whose datagram was refused waits until then.
    held_until: Duration,
    pace: Pace,
    no_room_until: Duration,
    disk_at: Duration,
    actions: VecDeque<Action>,
    counters: ClientCounters,
}

/// The connection to the server.
#[derive(Debug)]
struct Link {
    cutter: FrameCutter,
    out: Vec<u8>,
    /// What the server said last; `None` before that.
    health: Option<Result<(), Unwell>>,
    flight_bytes: usize,
    heard_at: Duration,
    pinged_at: Duration,
}

impl Client {
    /// Opens the folder with all that it has kept.
    ///
    /// # Errors
    /// If the folder or a spool can't be opened; one line for the operator.
    pub fn open(settings: ClientSettings, now: Moment) -> Result<Client, String> {
        let folder = Folder::open(&settings.folder)?;
        let starts = folder.count_start()?;
        let keys = folder.keys().map_err(|error| format!("{}: {error}", settings.folder.display()))?;
        let identities = settings.seed;
        let pace = Pace::new(settings.replay_per_second);
        let mut client = Client {
            settings,
            folder,
            starts,
            connections: 0,
            lines: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 1,
            identities,
            queue: VecDeque::new(),
            dirty: BTreeSet::new(),
            link: None,
            held_until: Duration::ZERO,
            pace,
            no_room_until: Duration::ZERO,
            disk_at: now.elapsed,
            actions: VecDeque::new(),
            counters: ClientCounters::default(),
        };
        for key in keys {
            client.open_line(key, now.elapsed)?;
            client.enqueue(key);
        }
        Ok(client)
    }

    /// Takes a datagram of an agent.
    ///
    /// # Panics
    /// Never: what has no line is given one, or dropped.
    pub fn datagram(&mut self, now: Moment, source: Source, bytes: &[u8]) -> Verdict {
        self.counters.datagrams += 1;
        let key = match LineKey::of(bytes, source.address) {
            Ok(key) if bytes.len() <= DATAGRAM_BYTES_MAX => key,
            Ok(_) | Err(_) => {
                self.counters.malformed += 1;
                return Verdict::Dropped;
            }
        };
        if !self.lines.contains_key(&key) && !self.admit(key, now.elapsed) {
            return Verdict::Dropped;
        }
        let passes = self.settings.mode == Mode::Gate && self.may_send(now.elapsed);
        let line = self.lines.get_mut(&key).expect("it was just admitted");
        line.source = Some(source);
        line.heard_at = now.elapsed;
        line.datagrams += 1;
        if passes && line.is_empty() {
            line.passed += 1;
            self.counters.passed += 1;
            return Verdict::Pass(line.number);
        }
        self.keep(key, now, bytes)
    }

    /// A datagram that was to be passed could not be sent: it is kept, and so is all that follows it.
    pub fn passed_not(&mut self, now: Moment, number: LineNumber, bytes: &[u8]) -> Verdict {
        self.hold(now.elapsed);
        let Some(key) = self.numbers.get(&number).copied() else { return Verdict::Dropped };
        self.keep(key, now, bytes)
    }

    /// Writes what was kept to the disk: until then it is not safe, and is not sent.
    pub fn commit(&mut self, now: Duration) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(line) = self.lines.get_mut(&key) else { continue };
            match line.commit() {
                Ok(()) => self.enqueue(key),
                Err(error) => {
                    self.disk_at = now + DISK_EVERY;
                    self.dirty.insert(key);
                    self.counters.commits_failed += 1;
                    self.say(Notice::Disk(format!("the spool of agent {key} can't be written: {error}")));
                }
            }
        }
    }

    /// A connection to the server is there.
    pub fn connected(&mut self, now: Duration) {
        self.connections = self.connections.wrapping_add(1);
        self.counters.connections += 1;
        let mut out = Vec::new();
        let incarnation = (u64::from(self.starts) << 32) | u64::from(self.connections);
        let ClientSettings { name, mode, secret, .. } = &self.settings;
        Message::Hello(Hello { version: VERSION, mode: *mode, incarnation, name, secret }).write(&mut out);
        self.link = Some(Link {
            cutter: FrameCutter::new(FRAME_BYTES_MAX),
            out,
            health: None,
            flight_bytes: 0,
            heard_at: now,
            pinged_at: now,
        });
        for line in self.lines.values_mut() {
            line.is_open = false;
        }
        self.rewind();
    }

    /// The connection is no more. What was on its way will be sent again.
    pub fn disconnected(&mut self) {
        self.link = None;
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// If they are not what a server says: the caller closes the connection.
    pub fn received(&mut self, now: Duration, bytes: &[u8]) -> Result<(), WireError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.heard_at = now;
        let mut cutter = std::mem::replace(&mut link.cutter, FrameCutter::new(0));
        let mut frames = Vec::new();
        let cut = cutter.cut(bytes, &mut frames).map_err(|_| WireError);
        for frame in frames {
            let frame = match frame {
                FrameAt::Carried => cutter.carried(),
                FrameAt::Received(range) => &bytes[range],
            };
            self.message(Message::parse(frame)?)?;
            // It has refused us: what it says behind that means nothing.
            if self.link.is_none() {
                return Ok(());
            }
        }
        if let Some(link) = &mut self.link {
            link.cutter = cutter;
        }
        cut
    }

    /// Appends to `out` what goes to the server, until it has `budget` bytes or there is nothing more.
    pub fn poll_transmit(&mut self, budget: usize, out: &mut Vec<u8>) {
        let Some(link) = &mut self.link else { return };
        out.append(&mut link.out);
        if self.settings.mode == Mode::Gate || link.health != Some(Ok(())) {
            return;
        }
        while out.len() < budget && self.link.as_ref().is_some_and(|link| link.flight_bytes < WINDOW_BYTES) {
            let Some(key) = self.queue.pop_front() else { return };
            self.send_some(key, budget, out);
        }
    }

    /// Whether the server of this connection has taken the client for one of its own.
    pub fn is_greeted(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.health.is_some())
    }

    /// What the caller has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The time has come that [`Client::next_timeout`] gave.
    ///
    /// # Errors
    /// If the server has said nothing for too long: the caller closes the connection.
    pub fn timeout(&mut self, now: Duration) -> Result<(), ServerGone> {
        if now >= self.disk_at {
            self.disk_at = now + DISK_EVERY;
            self.commit(now);
            for line in self.lines.values_mut() {
                line.save();
            }
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        if now >= link.heard_at + SILENCE_MAX {
            return Err(ServerGone);
        }
        if now >= link.pinged_at + PING_EVERY {
            link.pinged_at = now;
            Message::Ping(now.as_millis() as u64).write(&mut link.out);
        }
        Ok(())
    }

    /// When [`Client::timeout`] is to be called; changes with every input.
    pub fn next_timeout(&self) -> Option<Duration> {
        let disk =
            (!self.dirty.is_empty() || self.lines.values().any(Line::must_save)).then_some(self.disk_at);
        let ping =
            self.link.as_ref().map(|link| (link.pinged_at + PING_EVERY).min(link.heard_at + SILENCE_MAX));
        disk.into_iter().chain(ping).chain(self.next_replay()).min()
    }

    /// Ends: everything is written, and noted as clean.
    ///
    /// # Errors
    /// What could not be; the next start repeats more then, and loses what was in memory.
    pub fn close(self) -> Result<(), String> {
        let mut outcome = Ok(());
        for (key, line) in self.lines {
            if let Err(error) = line.close() {
                outcome = Err(format!("the spool of agent {key} can't be written: {error}"));
            }
        }
        outcome
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), WireError> {
        match message {
            Message::Ack { line, sequence } => {
                // The line may have been given up since.
                let Some(key) = self.numbers.get(&line) else { return Ok(()) };
                let line = self.lines.get_mut(key).expect("each number has its line");
                let bytes = line.confirmed(sequence)?;
                if let Some(link) = &mut self.link {
                    link.flight_bytes = link.flight_bytes.saturating_sub(bytes);
                }
                self.counters.acks += 1;
            }
            Message::Reply { line, bytes } => self.reply(line, bytes),
            Message::Health(health) => self.health(health),
            Message::Ping(token) => {
                if let Some(link) = &mut self.link {
                    Message::Pong(token).write(&mut link.out);
                }
            }
            Message::Pong(_) => {}
            Message::Refused(why) => {
                self.counters.refused += 1;
                self.say(Notice::Refused(why.to_string()));
                if why != Refusal::TooManyLines {
                    self.link = None;
                }
            }
            Message::Hello(_) | Message::Open { .. } | Message::Packet(_) | Message::Shut { .. } => {
                return Err(WireError);
            }
        }
        Ok(())
    }

    /// A datagram of the manager for an agent.
    pub fn reply(&mut self, number: LineNumber, bytes: &[u8]) {
        let key = self.numbers.get(&number);
        let line = key.and_then(|key| self.lines.get_mut(key));
        let Some((line, to)) = line.and_then(|line| line.source.map(|to| (line, to))) else {
            self.counters.replies_to_nobody += 1;
            return;
        };
        line.replies += 1;
        self.counters.replies += 1;
        self.actions.push_back(Action::Reply { to, bytes: bytes.to_vec() });
    }

    fn health(&mut self, health: Result<(), Unwell>) {
        let Some(link) = &mut self.link else { return };
        let before = link.health.replace(health);
        match health {
            Ok(()) => {
                // Whatever was on its way may have come to a server that took nothing.
                self.rewind();
                if before != Some(Ok(())) {
                    self.say(Notice::Well);
                }
            }
            Err(why) => self.say(Notice::Unwell(why.to_string())),
        }
    }

    fn rewind(&mut self) {
        if let Some(link) = &mut self.link {
            link.flight_bytes = 0;
        }
        for line in self.lines.values_mut() {
            line.rewind();
        }
        let keys: Vec<_> = self.lines.keys().copied().collect();
        keys.into_iter().for_each(|key| self.enqueue(key));
    }

    /// Whether the server says that datagrams may go, and none was refused just now.
    fn may_send(&self, now: Duration) -> bool {
        self.link.as_ref().is_some_and(|link| link.health == Some(Ok(()))) && now >= self.held_until
    }

    fn keep(&mut self, key: LineKey, now: Moment, bytes: &[u8]) -> Verdict {
        let line = self.lines.get_mut(&key).expect("the caller has found it");
        let kept = line.keep(now.unix_milliseconds, bytes);
        if line.is_dirty() {
            self.dirty.insert(key);
        }
        match kept {
            Ok(()) => {
                self.counters.kept += 1;
                Verdict::Kept
            }
            Err(NotKept::Full) => {
                self.counters.no_room += 1;
                self.say(Notice::Full);
                Verdict::Dropped
            }
            Err(NotKept::Disk) => {
                self.counters.not_written += 1;
                self.say(Notice::Disk(format!(
                    "the spool of agent {key} can't be written; is the disk full?"
                )));
                Verdict::Dropped
            }
        }
    }

    fn send_some(&mut self, key: LineKey, budget: usize, out: &mut Vec<u8>) {
        let (Some(line), Some(link)) = (self.lines.get_mut(&key), &mut self.link) else { return };
        line.is_queued = false;
        if line.has_more() && !line.is_open {
            line.is_open = true;
            Message::Open { line: line.number, identity: line.identity, key }.write(out);
        }
        let number = line.number;
        let mut is_done = false;
        for _ in 0..TURN_PACKETS {
            if out.len() >= budget || link.flight_bytes >= WINDOW_BYTES {
                break;
            }
            match line.read_next() {
                Ok(Some(kept)) => {
                    link.flight_bytes += kept.bytes.len();
                    self.counters.packets += 1;
                    let (sequence, previous) = (kept.sequence, kept.previous);
                    Message::Packet(Packet { line: number, sequence, previous, bytes: kept.bytes })
                        .write(out);
                }
                Ok(None) => {
                    is_done = true;
                    break;
                }
                Err(error) => {
                    // It is tried again when the agent sends, or the connection is made anew.
                    self.say(Notice::Disk(format!("the spool of agent {key} can't be read: {error}")));
                    return;
                }
            }
        }
        if !is_done {
            self.enqueue(key);
        }
    }

    /// Puts a line into the queue of those that may have something to send.
    fn enqueue(&mut self, key: LineKey) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        if !line.is_queued && line.has_more() {
            line.is_queued = true;
            self.queue.push_back(key);
        }
    }

    fn say(&mut self, notice: Notice) {
        self.actions.push_back(Action::Say(notice));
    }
}

/// The server has said nothing for too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerGone;

#[cfg(test)]
mod tests;
