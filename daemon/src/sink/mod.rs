//! Where events go: the queue socket of analysisd, archives as text and as JSON lines; any of them, all of them, or none.
//!
//! A sink does no waiting and knows no ring: [`Sinks::take`] formats an event into each sink's bounded outbox, and
//! [`Sinks::pump`] tells the shard what to do for each of them next ([`Next`]).

mod archive;
#[cfg(feature = "scripted")]
mod hand_pumped;
mod local_time;
mod moved;
mod outbox;
mod queue_socket;
mod tickets;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use codec::{
    Product, archive_json, archive_line, queue_datagram, syslog_archive_json, syslog_archive_line,
    syslog_datagram,
};
use manager::{Published, SinkSet, Ticket, Time};
use rustix::io::Errno;
use uring::Unsupported;

use archive::{Archive, ArchiveNotes};
#[cfg(feature = "scripted")]
pub use hand_pumped::HandPumpedSinks;
use local_time::LocalClock;
pub(crate) use moved::Moved;
use outbox::Bounds;
pub(crate) use outbox::Level;
pub(crate) use queue_socket::SEND_BUFFER_BYTES as QUEUE_SEND_BUFFER_BYTES;
use queue_socket::{QueueNotes, QueueSocket};

use crate::delivery::{BlockLog, LedgerFile, SinkDelivery};
use crate::metrics::{SinkKind, SinkState};
use crate::settings::{self, Settings};

/// What a sink needs next.
#[derive(Debug)]
pub(crate) enum Next {
    /// It has more to hand over: call again, after the next turn's receiving.
    Again,
    /// It is to be called again at this time.
    At(Time),
    /// Nothing, until something is taken or completed.
    Idle,
    /// A poll until there is room to write; at `patience` it is to be called again in any case.
    Poll {
        /// What to poll.
        descriptor: Arc<OwnedFd>,
        /// How long to rely on the poll.
        patience: Time,
    },
    /// What was written to a file is to be on its disk.
    Sync {
        /// The file.
        file: Arc<OwnedFd>,
    },
    /// A write at the end of a file.
    Write {
        /// The file, open for appending.
        file: Arc<OwnedFd>,
        /// What to write.
        bytes: Bytes,
    },
}

/// What a sink counted: `taken = delivered + refused + stopped + too_long +` what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SinkCounters {
    /// Events taken over.
    pub(crate) taken: u64,
    /// Times it gave the kernel something: system calls of its own, or writes that went with the ring's.
    pub(crate) calls: u64,
    /// Events sent or written.
    pub(crate) delivered: u64,
    /// Events that have no form for this sink.
    pub(crate) refused: u64,
    /// Times it had to wait for its reader, or failed and tried again.
    pub(crate) stalls: u64,
    /// Events given up at the end of the program.
    pub(crate) stopped: u64,
    /// Events longer than the kernel takes.
    pub(crate) too_long: u64,
}

/// The sinks of one shard.
#[derive(Debug)]
pub(crate) struct Sinks {
    sinks: Vec<Sink>,
    bounds: Bounds,
    moved: Moved,
    clock: LocalClock,
    /// This host's name without its domain, for lines that name no host.
    host: String,
}

#[derive(Debug)]
enum Sink {
    ArchiveJson(Archive),
    ArchiveText(Archive),
    Queue { socket: QueueSocket, product: Product },
}

impl Sinks {
    /// The sinks that the settings name. What `delivery` has is where numbered events are noted; without, there are none.
    ///
    /// # Errors
    ///
    /// What the host lacks to note what the queue has.
    pub(crate) fn new(settings: &Settings, delivery: Option<SinkDelivery>) -> Result<Sinks, Unsupported> {
        let mut sinks = Vec::new();
        let (ledger, text_blocks, json_blocks) = match delivery {
            Some(SinkDelivery { ledger, text_blocks, json_blocks }) => {
                (Some(ledger), text_blocks, json_blocks)
            }
            None => (None, None, None),
        };
        if settings.sink.queue.enabled {
            let product = match settings.sink.queue.product {
                settings::Product::Ossec => Product::Ossec,
                settings::Product::Wazuh => Product::Wazuh,
            };
            let notes = ledger.as_ref().map(|ledger| QueueNotes::new(Arc::clone(ledger))).transpose()?;
            sinks.push(Sink::Queue { socket: QueueSocket::new(settings.queue_path(), notes), product });
        }
        if settings.sink.archives.text {
            let notes = archive_notes(SinkKind::ArchiveText, ledger.as_ref(), text_blocks);
            sinks.push(Sink::ArchiveText(Archive::new(settings.archives_text_path(), notes)));
        }
        if settings.sink.archives.json {
            let notes = archive_notes(SinkKind::ArchiveJson, ledger.as_ref(), json_blocks);
            sinks.push(Sink::ArchiveJson(Archive::new(settings.archives_json_path(), notes)));
        }
        let mut sinks = Sinks {
            sinks,
            bounds: bounds(settings),
            moved: Moved::default(),
            clock: LocalClock::new(),
            host: host(),
        };
        sinks.take_settings(settings);
        Ok(sinks)
    }

    /// Takes what can change while they run. What is held beyond the bounds stays.
    pub(crate) fn take_settings(&mut self, settings: &Settings) {
        self.bounds = bounds(settings);
        for sink in &mut self.sinks {
            match sink {
                Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => {
                    archive.set_syncs(settings.sink.archives.sync);
                }
                Sink::Queue { .. } => {}
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.sinks.len()
    }

    /// The level of the fullest.
    #[must_use]
    pub(crate) fn level(&self) -> Level {
        self.sinks.iter().map(|sink| self.bounds.level(sink.held_bytes())).max().unwrap_or(Level::Low)
    }

    /// Reads the wall clock for the archives: once a turn in which something came.
    pub(crate) fn read_clock(&mut self) {
        let archives = |sink: &Sink| matches!(sink, Sink::ArchiveJson(_) | Sink::ArchiveText(_));
        if self.sinks.iter().any(archives) {
            self.clock.read();
        }
    }

    /// Once a second: lets archives that were moved away (rotated) go on in a new file, and finds out whether what is idle would
    /// still be taken.
    pub(crate) fn look_after(&mut self) {
        for sink in &mut self.sinks {
            match sink {
                Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => {
                    archive.follow_rename();
                    archive.probe();
                }
                Sink::Queue { socket, .. } => socket.probe(),
            }
        }
    }

    /// Takes a syslog line over, into every sink.
    pub(crate) fn take_line(&mut self, source: IpAddr, line: &[u8]) {
        for sink in &mut self.sinks {
            match sink {
                Sink::ArchiveJson(archive) => {
                    archive.take(|out| syslog_archive_json(self.clock.now(), &self.host, source, line, out));
                }
                Sink::ArchiveText(archive) => {
                    archive.take(|out| syslog_archive_line(self.clock.now(), &self.host, source, line, out));
                }
                Sink::Queue { socket, product } => {
                    socket.take(|out| syslog_datagram(*product, source, line, out));
                }
            }
        }
    }

    /// Takes an event over: into every sink, or into those that want it if it has a ticket.
    pub(crate) fn take(&mut self, published: &Published<'_>) {
        let Published { agent, event, from: _, transport: _, ticket } = published;
        if let Some(ticket) = ticket {
            return self.take_numbered(published, *ticket);
        }
        let origin = agent.origin();
        for sink in &mut self.sinks {
            match sink {
                Sink::ArchiveJson(archive) => archive.take(|out| {
                    // A refusal leaves `out` as it was, which is counted.
                    let _ = archive_json(self.clock.now(), event, &origin, out);
                }),
                Sink::ArchiveText(archive) => archive.take(|out| {
                    let _ = archive_line(self.clock.now(), event, &origin, out);
                }),
                Sink::Queue { socket, product } => {
                    socket.take(|out| queue_datagram(*product, event, &origin, out));
                }
            }
        }
    }

    fn take_numbered(&mut self, published: &Published<'_>, ticket: Ticket) {
        let Published { agent, event, .. } = published;
        let (origin, moved) = (agent.origin(), &mut self.moved);
        for sink in self.sinks.iter_mut().filter(|sink| sink.is_in(ticket.wanted)) {
            match sink {
                Sink::ArchiveJson(archive) => archive.take_numbered(ticket, moved, |out| {
                    let _ = archive_json(self.clock.now(), event, &origin, out);
                }),
                Sink::ArchiveText(archive) => archive.take_numbered(ticket, moved, |out| {
                    let _ = archive_line(self.clock.now(), event, &origin, out);
                }),
                Sink::Queue { socket, product } => {
                    socket.take_numbered(ticket, moved, |out| queue_datagram(*product, event, &origin, out));
                }
            }
        }
    }

    /// Notes, in its place among the others of its agent, a numbered event that no sink will get.
    pub(crate) fn pass(&mut self, ticket: Ticket) {
        for sink in self.sinks.iter_mut().filter(|sink| sink.is_in(ticket.wanted)) {
            match sink {
                Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => {
                    archive.pass(ticket, &mut self.moved);
                }
                Sink::Queue { socket, .. } => socket.pass(ticket, &mut self.moved),
            }
        }
    }

    /// For which agents something was noted since it was drained.
    pub(crate) fn moved(&mut self) -> &mut Moved {
        &mut self.moved
    }

    /// Moves one sink on; `hurry` if nothing more will come.
    pub(crate) fn pump(&mut self, index: usize, now: Time, hurry: bool) -> Next {
        match &mut self.sinks[index] {
            Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => archive.pump(now, hurry),
            Sink::Queue { socket, .. } => socket.pump(now, &mut self.moved),
        }
    }

    /// The poll that a sink asked for has completed.
    ///
    /// # Panics
    ///
    /// If that sink never asks for one.
    pub(crate) fn on_writable(&mut self, index: usize) {
        match &mut self.sinks[index] {
            Sink::ArchiveJson(_) | Sink::ArchiveText(_) => unreachable!("an archive does not poll"),
            Sink::Queue { socket, .. } => socket.on_writable(),
        }
    }

    /// The write that a sink asked for has completed.
    ///
    /// # Panics
    ///
    /// If that sink never asks for one.
    pub(crate) fn on_written(&mut self, index: usize, now: Time, result: Result<u32, Errno>) {
        match &mut self.sinks[index] {
            Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => {
                archive.on_written(now, result, &mut self.moved);
            }
            Sink::Queue { .. } => unreachable!("the queue socket is not written by the ring"),
        }
    }

    /// The sync that a sink asked for has completed.
    ///
    /// # Panics
    ///
    /// If that sink never asks for one.
    pub(crate) fn on_synced(&mut self, index: usize, now: Time, result: Result<u32, Errno>) {
        match &mut self.sinks[index] {
            Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => {
                archive.on_synced(now, result, &mut self.moved);
            }
            Sink::Queue { .. } => unreachable!("the queue socket is not synced"),
        }
    }

    /// Whether every sink has handed over all that it took.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.sinks.iter().all(|sink| sink.held() == 0)
    }

    /// Gives up what is held.
    ///
    /// # Panics
    ///
    /// If a write is in flight.
    pub(crate) fn abandon(&mut self) {
        for sink in &mut self.sinks {
            match sink {
                Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => archive.abandon(),
                Sink::Queue { socket, .. } => socket.abandon(),
            }
        }
    }

    /// For each sink: which it is, how it does, what it counted, and the events and bytes that it holds.
    pub(crate) fn reports(&self) -> impl Iterator<Item = SinkReport> {
        self.sinks.iter().map(|sink| {
            let full = self.bounds.level(sink.held_bytes()) >= Level::Soft;
            let kind = sink.kind();
            let (state, counters) = match sink {
                Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => {
                    (archive.state(), archive.counters())
                }
                Sink::Queue { socket, .. } => (socket.state(), socket.counters()),
            };
            let state = if full && state == SinkState::Taking { SinkState::Full } else { state };
            SinkReport { kind, state, counters, held: sink.held(), held_bytes: sink.held_bytes() }
        })
    }
}

fn archive_notes(
    kind: SinkKind,
    ledger: Option<&Arc<LedgerFile>>,
    blocks: Option<BlockLog>,
) -> Option<ArchiveNotes> {
    Some(ArchiveNotes { kind, ledger: Arc::clone(ledger?), blocks: blocks? })
}

fn bounds(settings: &Settings) -> Bounds {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Bounds { soft_bytes: bytes(settings.sink.soft_bytes), hard_bytes: bytes(settings.sink.hard_bytes) }
}

/// The host's name up to its first dot, as analysisd has it.
///
/// Source: ossec-hids 4.3.0 `analysisd/analysisd.c`, `main_analysisd`: `__shost`.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// What one sink says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SinkReport {
    /// Which it is.
    pub(crate) kind: SinkKind,
    /// How it does.
    pub(crate) state: SinkState,
    /// What it counted.
    pub(crate) counters: SinkCounters,
    /// Events that wait.
    pub(crate) held: u64,
    /// Bytes that wait.
    pub(crate) held_bytes: usize,
}

impl Sink {
    fn kind(&self) -> SinkKind {
        match self {
            Sink::ArchiveJson(_) => SinkKind::ArchiveJson,
            Sink::ArchiveText(_) => SinkKind::ArchiveText,
            Sink::Queue { .. } => SinkKind::Queue,
        }
    }

    fn is_in(&self, set: SinkSet) -> bool {
        set.contains(self.kind() as usize)
    }

    fn held(&self) -> u64 {
        match self {
            Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => archive.held(),
            Sink::Queue { socket, .. } => socket.held(),
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Sink::ArchiveJson(archive) | Sink::ArchiveText(archive) => archive.held_bytes(),
            Sink::Queue { socket, .. } => socket.held_bytes(),
        }
    }
}
