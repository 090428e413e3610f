//! The server's core: which packets it takes, when it gives them to the manager, what it acknowledges.
//!
//! Sockets, time and what is read of the manager are the caller's: inputs come with the time; then [`Server::poll_give`], and
//! [`Server::poll_transmit`] and [`Server::poll_action`] until there is nothing.
//!
//! **A packet is taken** if it follows the last one that was taken on its connection and line, or begins a chain, and the manager is
//! well. **It is given** to the manager once, while little of what was given is unread. **It is acknowledged** once the
//! manager was seen to have read it. What was given to a manager that went away before is given again: that manager's
//! counters, which it has on disk, refuse what it had read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use codec::limits::FRAME_BYTES_MAX;
use codec::{FrameAt, FrameCutter};
use spool::Sequence;

use crate::backlog::{Backlog, Given, SETTLES_AFTER};
use crate::client::WINDOW_BYTES;
use crate::health::{Signs, SocketReading, Unwell, judge};
use crate::key::LineKey;
use crate::wire::{DATAGRAM_BYTES_MAX, LineNumber, Message, Mode, Packet, WireError};

mod clients;
#[cfg(any(test, feature = "fuzzing"))]
mod rules;
mod status;

pub use status::{PeerStatus, ServerCounters, ServerStatus};

/// How long a connection may take to say who it is.
pub const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Connections that have not said who they are.
pub const STRANGERS_MAX: usize = 64;

/// Connections in all.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Bytes for a client that does not read; further replies to it are dropped, as UDP would.
const OUT_BYTES_MAX: usize = 256 << 10;

/// How often the manager is looked at when nothing is given to it.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest pause between two looks while something is given.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(32);

/// A client holds no more on its way: what it exceeds by is the packet that was begun below the bound, on each of its lines' turns.
const HELD_BYTES_MAX: usize = WINDOW_BYTES + DATAGRAM_BYTES_MAX;

/// What a server is told once.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The shared secret; empty if there is none.
    pub secret: Vec<u8>,
    /// Lines of all clients together.
    pub lines_max: usize,
    /// How long the manager may answer nobody, if that is to count.
    pub answers_within: Option<Duration>,
}

/// One of the server's lines; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LineId(pub u64);

/// One of the server's connections; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

/// A datagram to be sent to the manager from its line's own socket; [`Server::gave`] must follow at once.
#[derive(Debug)]
pub struct Give {
    /// Whose.
    pub line: LineId,
    /// Which.
    pub sequence: Sequence,
    /// The datagram.
    pub bytes: Vec<u8>,
    connection: ConnectionId,
}

/// What became of a give.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GiveOutcome {
    /// The kernel has it.
    Sent,
    /// The kernel says that nobody listens there. It means the datagram before, and this one was not sent.
    Refused,
    /// Not now.
    Later,
    /// The kernel will never send that.
    Never,
}

/// What the caller has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// End a connection once everything that is to be transmitted on it is.
    Close(ConnectionId),
    /// Close a line's socket.
    Retire(LineId),
    /// Something that the operator may want to know.
    Say(Notice),
}

/// What an operator may want to know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Notice {
    /// A client is there.
    Joined(String),
    /// A connection was not wanted.
    Turned(String),
    /// The manager is well.
    Well,
    /// It is not.
    Unwell(Unwell),
    /// It had no room for datagrams; perhaps some of ours.
    Drops(u64),
}

/// The server.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    connections: BTreeMap<ConnectionId, Connection>,
    clients: BTreeMap<String, ConnectionId>,
    lines: BTreeMap<LineId, Line>,
    keys: BTreeMap<LineName, LineId>,
    next_line: u64,
    pending: VecDeque<Give>,
    backlog: Backlog,
    health: Result<(), Unwell>,
    refused_at: Option<Duration>,
    unanswered_since: Option<Duration>,
    silent_at: Option<Duration>,
    pause: Duration,
    actions: VecDeque<Action>,
    counters: ServerCounters,
}

/// What a line is, whatever connection it comes by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct LineName {
    client: String,
    key: LineKey,
    identity: u64,
}

#[derive(Debug)]
struct Line {
    name: LineName,
    /// The last that is taken, given, and read by the manager.
    taken: Option<Sequence>,
    given: Option<Sequence>,
    confirmed: Option<Sequence>,
    /// The last of the chain that goes on; `None` if one must begin.
    chain: Option<Sequence>,
    route: Option<(ConnectionId, LineNumber)>,
    used_at: Duration,
}

#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    cutter: FrameCutter,
    client: Option<PeerName>,
    numbers: BTreeMap<LineNumber, LineId>,
    out: Vec<u8>,
    /// Lines with something to acknowledge.
    acks: BTreeSet<LineId>,
    /// Bytes of packets that are taken and not given.
    held_bytes: usize,
    accepted_at: Duration,
    heard_at: Duration,
    is_closing: bool,
}

#[derive(Debug)]
struct PeerName {
    name: String,
    incarnation: u64,
    mode: Mode,
}

impl Server {
    /// A server that knows nothing of the manager yet.
    pub fn new(settings: ServerSettings) -> Server {
        Server {
            settings,
            connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            lines: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_line: 1,
            pending: VecDeque::new(),
            backlog: Backlog::default(),
            health: Err(Unwell::PortClosed),
            refused_at: None,
            unanswered_since: None,
            silent_at: None,
            pause: SETTLES_AFTER,
            actions: VecDeque::new(),
            counters: ServerCounters::default(),
        }
    }

    /// A connection has come.
    pub fn accepted(&mut self, now: Duration, id: ConnectionId, peer: SocketAddr) {
        self.counters.connections += 1;
        let strangers = self.connections.len() - self.clients.len();
        let connection = Connection {
            peer,
            cutter: FrameCutter::new(FRAME_BYTES_MAX),
            client: None,
            numbers: BTreeMap::new(),
            out: Vec::new(),
            acks: BTreeSet::new(),
            held_bytes: 0,
            accepted_at: now,
            heard_at: now,
            is_closing: false,
        };
        self.connections.insert(id, connection);
        if strangers >= STRANGERS_MAX || self.connections.len() > CONNECTIONS_MAX {
            self.turn_away(id, "there are as many connections as there may be");
        }
    }

    /// Takes bytes of a connection. A client that breaks the rules is turned away.
    pub fn received(&mut self, now: Duration, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_closing)
        else {
            return;
        };
        connection.heard_at = now;
        let mut cutter = std::mem::replace(&mut connection.cutter, FrameCutter::new(0));
        let mut frames = Vec::new();
        let cut = cutter.cut(bytes, &mut frames).map_err(|_| WireError);
        let mut outcome = Ok(());
        for frame in frames {
            let frame = match frame {
                FrameAt::Carried => cutter.carried(),
                FrameAt::Received(range) => &bytes[range],
            };
            outcome = Message::parse(frame).and_then(|message| self.message(now, id, message));
            if outcome.is_err() || self.connections.get(&id).is_none_or(|connection| connection.is_closing) {
                break;
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.cutter = cutter;
        }
        if let Err(error) = outcome.and(cut) {
            self.turn_away(id, &error.to_string());
        }
    }

    /// A connection is no more. What it had sent and the manager was not given will come again.
    pub fn closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Some(client) = connection.client
            && self.clients.get(&client.name) == Some(&id)
        {
            self.clients.remove(&client.name);
        }
        self.unroute(id);
    }

    /// Takes what was read of the manager: its sockets, and whether its process lives, if anybody said which it is.
    pub fn look(&mut self, now: Duration, sockets: &[SocketReading], is_alive: Option<bool>) {
        let seen = self.backlog.read(now, sockets);
        let is_moving = !seen.confirmed.is_empty();
        self.pause =
            if is_moving || !self.is_busy() { SETTLES_AFTER } else { (self.pause * 2).min(LOOK_PAUSE_MAX) };
        for given in seen.confirmed {
            self.confirm(given);
        }
        if seen.drops > 0 {
            self.counters.drops += seen.drops;
            self.say(Notice::Drops(seen.drops));
        }
        if seen.is_lost {
            self.down(Unwell::Restarted);
        }
        let signs = Signs {
            is_bound: !sockets.is_empty(),
            is_alive,
            refused_at: self.refused_at,
            unread_since: self.backlog.unread_since(),
            unanswered_since: self.unanswered_since,
            silent_at: self.silent_at,
        };
        match judge(now, &signs, self.settings.answers_within) {
            Ok(()) => self.up(),
            Err(why) => {
                if why == Unwell::Silent && self.health != Err(why) {
                    self.silent_at = Some(now);
                    self.unanswered_since = None;
                }
                self.down(why);
            }
        }
        self.close_the_silent(now);
    }

    /// When [`Server::look`] is to be called next; changes with every input.
    pub fn next_look(&self) -> Duration {
        let pause = if self.is_busy() { self.pause } else { LOOK_EVERY };
        self.backlog.read_at().map_or(Duration::ZERO, |at| at + pause)
    }

    /// The next datagram for the manager, if there is one and it may have it now.
    pub fn poll_give(&mut self, now: Duration) -> Option<Give> {
        if self.health.is_err() || !self.backlog.may_give(now) {
            return None;
        }
        self.pending.pop_front()
    }

    /// What became of the datagram that [`Server::poll_give`] gave last.
    pub fn gave(&mut self, now: Duration, give: Give, outcome: GiveOutcome) {
        match outcome {
            GiveOutcome::Later => {
                self.pending.push_front(give);
                // Until the next look there is no more.
                self.backlog.is_full_until_read();
                return;
            }
            GiveOutcome::Refused => {
                // With all that is pending, it comes again.
                self.refused(now);
                return;
            }
            GiveOutcome::Sent => self.counters.given += 1,
            GiveOutcome::Never => self.counters.never_sent += 1,
        }
        if let Some(connection) = self.connections.get_mut(&give.connection) {
            connection.held_bytes = connection.held_bytes.saturating_sub(give.bytes.len());
        }
        if let Some(line) = self.lines.get_mut(&give.line) {
            line.given = Some(give.sequence);
            line.used_at = now;
        }
        self.unanswered_since.get_or_insert(now);
        let (line, sequence, bytes) = (give.line, give.sequence, give.bytes.len());
        self.backlog.gave(now, Given { line, sequence, bytes });
    }

    /// The kernel says that nobody listens at the manager's address any more.
    pub fn refused(&mut self, now: Duration) {
        self.refused_at = Some(now);
        self.down(Unwell::Refused);
    }

    /// The manager has sent a datagram to a line.
    pub fn reply(&mut self, id: LineId, bytes: &[u8]) {
        (self.unanswered_since, self.silent_at) = (None, None);
        let route = self.lines.get(&id).and_then(|line| line.route);
        let connection =
            route.and_then(|(connection, number)| Some((self.connections.get_mut(&connection)?, number)));
        match connection {
            Some((connection, line)) if connection.out.len() + bytes.len() <= OUT_BYTES_MAX => {
                self.counters.replies += 1;
                Message::Reply { line, bytes }.write(&mut connection.out);
            }
            Some(_) | None => self.counters.replies_dropped += 1,
        }
    }

    /// Appends to `out` what goes to a client.
    pub fn poll_transmit(&mut self, id: ConnectionId, out: &mut Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for line in std::mem::take(&mut connection.acks) {
            let line = self.lines.get(&line);
            if let Some((Some(sequence), Some((_, number)))) = line.map(|line| (line.confirmed, line.route)) {
                Message::Ack { line: number, sequence }.write(out);
            }
        }
        out.append(&mut connection.out);
    }

    /// The connections that have something for their clients.
    pub fn transmitting(&self) -> Vec<ConnectionId> {
        let waits = |connection: &Connection| !connection.out.is_empty() || !connection.acks.is_empty();
        self.connections.iter().filter(|(_, connection)| waits(connection)).map(|(id, _)| *id).collect()
    }

    /// What the caller has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn message(&mut self, now: Duration, id: ConnectionId, message: Message<'_>) -> Result<(), WireError> {
        let connection = self.connections.get_mut(&id).expect("the caller has found it");
        match message {
            Message::Hello(hello) if connection.client.is_none() => self.hello(id, &hello),
            // Before it has said who it is, a client says nothing else.
            _ if connection.client.is_none() => return Err(WireError),
            Message::Open { line, identity, key } => self.open(now, id, line, identity, key),
            Message::Packet(packet) => return self.packet(id, &packet),
            Message::Shut { line } => {
                if let Some(line) = connection.numbers.remove(&line) {
                    connection.acks.remove(&line);
                    self.retire(line);
                }
            }
            Message::Ping(token) => Message::Pong(token).write(&mut connection.out),
            Message::Pong(_) => {}
            Message::Hello(_)
            | Message::Ack { .. }
            | Message::Reply { .. }
            | Message::Health(_)
            | Message::Refused(_) => return Err(WireError),
        }
        Ok(())
    }

    fn packet(&mut self, id: ConnectionId, packet: &Packet<'_>) -> Result<(), WireError> {
        self.counters.packets += 1;
        let connection = self.connections.get_mut(&id).expect("the caller has found it");
        let is_relay = connection.client.as_ref().is_some_and(|client| client.mode == Mode::Relay);
        let line_id = connection.numbers.get(&packet.line).copied().filter(|_| is_relay).ok_or(WireError)?;
        let line = self.lines.get_mut(&line_id).expect("each number has its line");
        let follows = packet.previous.is_none() || packet.previous == line.chain;
        if self.health.is_err() || !follows {
            line.chain = None;
            self.counters.ignored += 1;
            return Ok(());
        }
        line.chain = Some(packet.sequence);
        if Some(packet.sequence) <= line.taken {
            self.counters.repeated += 1;
            if Some(packet.sequence) <= line.confirmed {
                connection.acks.insert(line_id);
            }
            return Ok(());
        }
        if connection.held_bytes + packet.bytes.len() > HELD_BYTES_MAX {
            return Err(WireError);
        }
        connection.held_bytes += packet.bytes.len();
        line.taken = Some(packet.sequence);
        let bytes = packet.bytes.to_vec();
        self.pending.push_back(Give { line: line_id, sequence: packet.sequence, bytes, connection: id });
        Ok(())
    }

    fn confirm(&mut self, given: Given) {
        self.counters.confirmed += 1;
        let Some(line) = self.lines.get_mut(&given.line) else { return };
        line.confirmed = line.confirmed.max(Some(given.sequence));
        if let Some((connection, _)) = line.route
            && let Some(connection) = self.connections.get_mut(&connection)
        {
            connection.acks.insert(given.line);
        }
    }

    fn up(&mut self) {
        if self.health.is_err() {
            self.health = Ok(());
            self.tell_health();
            self.say(Notice::Well);
        }
    }

    /// The manager has perhaps lost what it had not read: all of it will be given again, from where it is confirmed.
    fn down(&mut self, why: Unwell) {
        let was = std::mem::replace(&mut self.health, Err(why));
        if was == Err(why) {
            return;
        }
        self.backlog.clear();
        self.pending.clear();
        for line in self.lines.values_mut() {
            line.given = line.confirmed;
            line.taken = line.confirmed;
            line.chain = None;
        }
        for connection in self.connections.values_mut() {
            connection.held_bytes = 0;
        }
        self.tell_health();
        self.say(Notice::Unwell(why));
    }

    fn tell_health(&mut self) {
        let known = |connection: &&mut Connection| connection.client.is_some();
        for connection in self.connections.values_mut().filter(known) {
            Message::Health(self.health).write(&mut connection.out);
        }
    }

    fn is_busy(&self) -> bool {
        self.backlog.count() > 0 || !self.pending.is_empty()
    }

    fn say(&mut self, notice: Notice) {
        self.actions.push_back(Action::Say(notice));
    }
}

#[cfg(test)]
mod any_order;
#[cfg(test)]
mod tests;
