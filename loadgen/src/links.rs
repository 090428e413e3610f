//! The agents' sockets: direct descriptors on io_uring rings, opened, read, written and closed in the right order.
//!
//! ```text
//! Closed -> Opening (TCP: connect in flight) -> Open -> Closing (cancel; last completion of each; close) -> Closed
//! ```
//! A link belongs to one agent and to one entry of one ring's table for the whole run. One table holds at most
//! RLIMIT_NOFILE entries, so a larger fleet has several rings. Over TCP a link has one send in flight at a time, so
//! that nothing overtakes; a datagram socket takes each datagram at once.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use codec::FrameCutter;
use uring::{
    Armed, BufferSettings, Completion, DirectSlot, Errno, GroupId, Op, Ring, RingSettings, SendMode, Tag,
    Unsupported, Wait, completions_needed,
};

const CONNECT: u8 = 1;
const RECEIVE: u8 = 2;
const SEND: u8 = 3;
const CANCEL: u8 = 4;
const CLOSE: u8 = 5;
/// A datagram of the agent's own: it carries no event.
const SEND_OWN: u8 = 6;

/// What a manager says to an agent is short; a shared file comes in messages of 900 bytes.
const BUFFER_BYTES: u32 = 4_096;
const BUFFERS: u16 = 1_024;
const SUBMISSIONS: u32 = 4_096;
/// Receives that are cancelled before the completions are looked at.
const CANCELS_OF_A_TURN: u32 = 1_024;
/// How long these are waited for.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(20);
/// How long the sockets may take to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What happened to a link.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is open now.
    Opened,
    /// It is gone, or could not be opened. It has told so once, and stays silent until it is opened again.
    Closed,
    /// Bytes of the stream, or a datagram.
    Received(Vec<u8>),
    /// There is room for the next send.
    Writable,
}

/// What a send carried, in events of the plan; 0 for what the agent says by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendCounts {
    /// Events whose bytes the kernel took, at least in part.
    pub taken: u64,
    /// Events that the kernel refused, with the connection or the datagram.
    pub refused: u64,
}

/// How an agent reaches its manager.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// TCP, or else UDP.
    pub is_tcp: bool,
    /// Where its socket is bound; port 0.
    pub source: SocketAddr,
    /// The manager.
    pub target: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Opening,
    Open,
    /// The cancel was pushed; once it and everything else have completed, the close is.
    Closing,
}

#[derive(Debug)]
struct Link {
    route: Route,
    phase: Phase,
    /// Whether it is to be opened again as soon as it is closed.
    reopen: bool,
    /// Operations that have not had their last completion.
    operations: u32,
    /// Events of the send in flight, and whether the kernel took part of it. TCP only.
    sending: Option<Piece>,
    /// What the agent says by itself, before any event that is not pushed yet.
    own: VecDeque<Bytes>,
    cutter: FrameCutter,
    generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    events: u32,
    taken: bool,
}

/// All links of one generator.
pub struct Links {
    rings: Vec<Table>,
    links: Vec<Link>,
    table_entries: u32,
    events: VecDeque<(u32, LinkEvent)>,
    counts: SendCounts,
}

struct Table {
    ring: Ring,
    group: GroupId,
}

impl Links {
    /// Links of so many agents, all closed, on as many rings as it takes.
    ///
    /// # Errors
    /// What this host lacks, with its cure.
    pub fn new(routes: &[Route]) -> Result<Links, Unsupported> {
        let agents = routes.len() as u32;
        let table_entries = uring::sockets::set_nofile_to_hard().min(agents.max(1));
        let rings = (0..agents.max(1).div_ceil(table_entries))
            .map(|_| {
                let completions = completions_needed(u32::from(BUFFERS), table_entries).next_power_of_two();
                let settings =
                    RingSettings { submissions: SUBMISSIONS, completions, direct_descriptors: table_entries };
                let mut ring = Ring::new(&settings)?;
                let group = ring.add_buffers(BufferSettings { count: BUFFERS, bytes_each: BUFFER_BYTES })?;
                Ok(Table { ring, group })
            })
            .collect::<Result<_, Unsupported>>()?;
        let link = |route: &Route| Link {
            route: *route,
            phase: Phase::Closed,
            reopen: false,
            operations: 0,
            sending: None,
            own: VecDeque::new(),
            cutter: FrameCutter::new(codec::limits::MESSAGE_BYTES_MAX),
            generation: 0,
        };
        Ok(Links {
            rings,
            links: routes.iter().map(link).collect(),
            table_entries,
            events: VecDeque::new(),
            counts: SendCounts::default(),
        })
    }

    /// Opens a link; if it is still closing, as soon as it is closed.
    pub fn open(&mut self, link: u32) {
        match self.links[link as usize].phase {
            Phase::Closed => self.open_now(link),
            Phase::Closing => self.links[link as usize].reopen = true,
            Phase::Opening | Phase::Open => {}
        }
    }

    /// Closes a link without an event.
    pub fn close(&mut self, link: u32) {
        self.links[link as usize].reopen = false;
        self.begin_close(link);
    }

    /// Whether an event can be pushed now.
    pub fn has_room(&self, link: u32) -> bool {
        let link = &self.links[link as usize];
        link.phase == Phase::Open && link.own.is_empty() && link.sending.is_none()
    }

    /// Pushes events of the plan in one piece; only while [`Links::has_room`].
    ///
    /// # Panics
    /// If there is no room.
    pub fn send_events(&mut self, link: u32, bytes: Bytes, events: u32) {
        assert!(self.has_room(link), "a send would overtake another one");
        self.push_send(link, bytes, events);
    }

    /// Sends what the agent says by itself, before any event that is not pushed yet. Lost if the link is not open.
    pub fn send_own(&mut self, link: u32, bytes: Bytes) {
        match self.links[link as usize].phase {
            Phase::Open => {
                self.links[link as usize].own.push_back(bytes);
                self.push_own(link);
            }
            Phase::Closed | Phase::Opening | Phase::Closing => {}
        }
    }

    /// The cutter of a link's stream.
    pub fn cutter(&mut self, link: u32) -> &mut FrameCutter {
        &mut self.links[link as usize].cutter
    }

    /// One turn: submits what was pushed, waits, and notes what happened for [`Links::next_event`].
    ///
    /// # Errors
    /// What the kernel says to the wait.
    pub fn turn(&mut self, completions_min: u32, timeout: Duration) -> Result<(), Errno> {
        for table in 0..self.rings.len() {
            // Only the first ring waits; a turn is short, so the others are looked at soon enough.
            let wait = match table {
                0 if self.events.is_empty() => {
                    Wait { completions_min, min_wait: None, timeout: Some(timeout) }
                }
                _ => Wait::default(),
            };
            self.rings[table].ring.wait(wait)?;
            while let Some(completion) = self.rings[table].ring.pop() {
                self.complete(table, completion);
            }
            let group = self.rings[table].group;
            while let Some(tag) = self.rings[table].ring.next_fed(group) {
                let link = self.link_of(table, tag);
                let fed = &self.links[link as usize];
                if fed.phase == Phase::Open && fed.generation == tag.generation() {
                    self.push_receive(link);
                }
            }
        }
        Ok(())
    }

    /// What happened to which link, in order.
    pub fn next_event(&mut self) -> Option<(u32, LinkEvent)> {
        self.events.pop_front()
    }

    /// Events that the kernel took or refused so far.
    pub fn counts(&self) -> SendCounts {
        self.counts
    }

    /// Ends all operations, so that the rings can go.
    ///
    /// One cancel for everything makes the kernel look at every operation for each that it ends: 4 s with 20,000 agents.
    /// So each receive is cancelled by its tag first, which the kernel finds at once.
    ///
    /// # Errors
    /// If the kernel does not end them.
    pub fn finish(mut self) -> Result<(), uring::DrainTimedOut> {
        let mut cancelled = 0;
        for link in 0..self.links.len() as u32 {
            if self.links[link as usize].phase == Phase::Open {
                let (_, slot) = self.place(link);
                let tag = Tag::new(RECEIVE, self.links[link as usize].generation, slot.index());
                self.push(link, CANCEL, Op::Cancel { tag });
                cancelled += 1;
            }
            if cancelled == CANCELS_OF_A_TURN {
                self.forget_completions(2 * std::mem::take(&mut cancelled));
            }
        }
        self.forget_completions(2 * cancelled);
        self.rings.iter_mut().try_for_each(|table| table.ring.drain(DRAIN_TIMEOUT))
    }

    /// Lets the kernel do what was pushed, and takes so many completions for done: it ends only as many operations in one
    /// call as completions are waited for.
    fn forget_completions(&mut self, completions: u32) {
        for Table { ring, .. } in &mut self.rings {
            let completions_min = completions.min(ring.in_flight());
            // Whatever is wrong with it, the drain that follows says.
            let _ = ring.wait(Wait { completions_min, min_wait: None, timeout: Some(CANCEL_TIMEOUT) });
            while let Some(completion) = ring.pop() {
                completion.lease.into_iter().for_each(|lease| ring.give_back(lease));
            }
        }
    }

    fn open_now(&mut self, link: u32) {
        let route = self.links[link as usize].route;
        let (table, slot) = self.place(link);
        let installed = socket_for(&route)
            .and_then(|socket| self.rings[table].ring.install(slot, socket).map_err(io::Error::from));
        if installed.is_err() {
            self.events.push_back((link, LinkEvent::Closed));
            return;
        }
        let opened = &mut self.links[link as usize];
        opened.phase = Phase::Opening;
        opened.generation = (opened.generation + 1) & uring::GENERATION_MAX;
        opened.cutter = FrameCutter::new(codec::limits::MESSAGE_BYTES_MAX);
        if route.is_tcp {
            self.push(link, CONNECT, Op::Connect { socket: slot.into(), to: route.target });
        } else {
            self.opened(link);
        }
    }

    fn opened(&mut self, link: u32) {
        self.links[link as usize].phase = Phase::Open;
        self.push_receive(link);
        self.events.push_back((link, LinkEvent::Opened));
    }

    /// The other end is gone, or an operation failed.
    fn lost(&mut self, link: u32) {
        if matches!(self.links[link as usize].phase, Phase::Opening | Phase::Open) {
            self.begin_close(link);
            self.events.push_back((link, LinkEvent::Closed));
        }
    }

    fn begin_close(&mut self, link: u32) {
        let closing = &mut self.links[link as usize];
        if !matches!(closing.phase, Phase::Opening | Phase::Open) {
            return;
        }
        closing.phase = Phase::Closing;
        closing.own.clear();
        let (_, slot) = self.place(link);
        self.push(link, CANCEL, Op::CancelAll { target: slot.into() });
    }

    fn push_receive(&mut self, link: u32) {
        let (table, slot) = self.place(link);
        let group = self.rings[table].group;
        self.push(link, RECEIVE, Op::ReceiveStream { socket: slot.into(), group });
    }

    fn push_own(&mut self, link: u32) {
        while self.links[link as usize].sending.is_none() {
            let Some(bytes) = self.links[link as usize].own.pop_front() else { return };
            self.push_send(link, bytes, 0);
        }
    }

    fn push_send(&mut self, link: u32, bytes: Bytes, events: u32) {
        let (_, slot) = self.place(link);
        let sending = &mut self.links[link as usize];
        if sending.route.is_tcp {
            sending.sending = Some(Piece { events, taken: false });
        } else {
            debug_assert!(events <= 1, "a datagram carries one event");
            if events == 0 {
                self.push(link, SEND_OWN, Op::Send { socket: slot.into(), bytes, mode: SendMode::Waiting });
                return;
            }
        }
        self.push(link, SEND, Op::Send { socket: slot.into(), bytes, mode: SendMode::Waiting });
    }

    fn push(&mut self, link: u32, kind: u8, op: Op) {
        let (table, slot) = self.place(link);
        let pushed = &mut self.links[link as usize];
        pushed.operations += 1;
        self.rings[table].ring.push(op, Tag::new(kind, pushed.generation, slot.index()));
    }

    fn complete(&mut self, table: usize, completion: Completion) {
        let link = self.link_of(table, completion.tag);
        debug_assert_eq!(
            completion.tag.generation(),
            self.links[link as usize].generation,
            "a link waits for all"
        );
        let ended = completion.armed == Armed::No;
        if ended {
            self.links[link as usize].operations -= 1;
        }
        match completion.tag.kind() {
            CONNECT => match completion.result {
                Ok(_) if self.links[link as usize].phase == Phase::Opening => self.opened(link),
                Ok(_) => {}
                Err(_) => self.lost(link),
            },
            RECEIVE => self.received(table, link, completion),
            SEND => self.sent(link, completion),
            SEND_OWN | CANCEL => {}
            CLOSE => self.closed(link),
            other => unreachable!("no operation has kind {other}"),
        }
        let link_now = &self.links[link as usize];
        if link_now.phase == Phase::Closing && link_now.operations == 0 {
            let (_, slot) = self.place(link);
            self.push(link, CLOSE, Op::Close { slot });
        }
    }

    fn received(&mut self, table: usize, link: u32, completion: Completion) {
        let group = self.rings[table].group;
        let is_tcp = self.links[link as usize].route.is_tcp;
        let ring = &mut self.rings[table].ring;
        if let Some(lease) = completion.lease {
            if self.links[link as usize].phase == Phase::Open {
                let bytes = ring.bytes(&lease).to_vec();
                self.events.push_back((link, LinkEvent::Received(bytes)));
            }
            ring.give_back(lease);
        }
        let ended = completion.armed == Armed::No;
        match completion.result {
            Err(Errno::NOBUFS) => ring.starve(group, completion.tag),
            Ok(0) if is_tcp => self.lost(link),
            // A datagram socket tells once of each message that nobody was there for, and goes on.
            Err(_) if is_tcp => self.lost(link),
            Ok(_) | Err(_) if ended && self.links[link as usize].phase == Phase::Open => {
                self.push_receive(link);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn sent(&mut self, link: u32, completion: Completion) {
        let sending = &mut self.links[link as usize];
        let Some(mut piece) = sending.sending.take() else {
            match completion.result {
                Ok(_) => self.counts.taken += 1,
                Err(_) => self.counts.refused += 1,
            }
            return;
        };
        let bytes = completion.bytes.unwrap_or_default();
        match completion.result {
            Ok(sent) if (sent as usize) < bytes.len() && sending.phase == Phase::Open => {
                piece.taken |= sent > 0;
                sending.sending = Some(piece);
                let (_, slot) = self.place(link);
                let rest = bytes.slice(sent as usize..);
                self.push(link, SEND, Op::Send { socket: slot.into(), bytes: rest, mode: SendMode::Waiting });
            }
            Ok(_) => {
                self.counts.taken += u64::from(piece.events);
                if sending.phase == Phase::Open {
                    self.push_own(link);
                    self.events.push_back((link, LinkEvent::Writable));
                }
            }
            Err(_) => {
                // Events may have been in the part that went; the rest of the piece goes with the connection.
                if piece.taken {
                    self.counts.taken += u64::from(piece.events);
                } else {
                    self.counts.refused += u64::from(piece.events);
                }
                self.lost(link);
            }
        }
    }

    fn closed(&mut self, link: u32) {
        let closed = &mut self.links[link as usize];
        closed.phase = Phase::Closed;
        closed.sending = None;
        if std::mem::take(&mut closed.reopen) {
            self.open_now(link);
        }
    }

    fn place(&self, link: u32) -> (usize, DirectSlot) {
        ((link / self.table_entries) as usize, DirectSlot::new(link % self.table_entries))
    }

    fn link_of(&self, table: usize, tag: Tag) -> u32 {
        table as u32 * self.table_entries + tag.slot()
    }
}

fn socket_for(route: &Route) -> io::Result<OwnedFd> {
    if route.is_tcp {
        return uring::sockets::tcp_client(route.source);
    }
    let socket = UdpSocket::bind(route.source)?;
    socket.connect(route.target)?;
    Ok(socket.into())
}
