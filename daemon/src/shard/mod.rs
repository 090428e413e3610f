//! A shard: one thread on one core that owns one ring, its sockets, its connections, its buffers and its counters.
//!
//! `Shard::turn` is the whole of it. Everything else here is one step of a turn:
//! * `collect` copies completions out, by `receive` (datagrams, streams), `accept` and `send`;
//! * `guard` asks the rules of listeners that have some, `lines` takes syslog lines, `devices` limits who sends them;
//! * `decide` hands the batch to the manager, the events to the sinks, and carries out what the manager asks for;
//! * `pressure` pauses and resumes connections when sinks fill up and empty, `holds` where an agent sends more than it may;
//! * `drain_sinks` hands over what the sinks hold; `report` says how it goes; `stop` ends it.

mod accept;
mod batch;
mod close;
mod collect;
mod connections;
mod decide;
mod devices;
mod drain_sinks;
#[cfg(test)]
mod economy;
#[cfg(test)]
mod fairness;
mod guard;
#[cfg(feature = "scripted")]
mod hand_turned;
mod holds;
mod lines;
mod notices;
mod op_kind;
mod orders;
mod patience;
mod pressure;
mod receipts;
mod receive;
mod reload;
mod report;
mod rings;
mod send;
mod start;
mod stop;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use manager::{AgentTable, Incoming, Manager, SenderCounter, ShardId, Time};
use uring::{Errno, Unsupported};

use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::listen::Listener;
use crate::mail::{Mail, MailReceiver, MailSender};
use crate::metrics::ShardMetrics;
use crate::outward::SendOutcome;
use crate::settings::{self, Settings};
use crate::sink::Sinks;
use batch::Batch;
use connections::Connections;
use devices::Devices;
#[cfg(feature = "scripted")]
pub use hand_turned::{HandTurnedShard, ScriptedShard};
use holds::Holds;
use lines::Lines;
pub use notices::{FromShard, NoticeReceiver, NoticeSender, notices};
use patience::Patience;
use pressure::Pressure;
use receipts::Looks;
use rings::ShardRing;
use send::Outgoing;
pub(crate) use start::TABLE_SLOTS_MAX;
use stop::Stopping;

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardSpec {
    /// Its number.
    pub id: ShardId,
    /// The core that it is pinned to; `None`: wherever the kernel puts it.
    pub core: Option<usize>,
    /// Its sockets, bound.
    pub listeners: Vec<Listener>,
    /// What the operator chose.
    pub settings: Arc<Settings>,
    /// The clock of the process.
    pub clock: Clock,
    /// The agents. Look again when [`Mail::Keys`] comes.
    pub table: Arc<ArcSwap<AgentTable>>,
    /// The counter of everything that the process sends.
    pub senders: Arc<SenderCounter>,
    /// Where it is kept what sinks have of numbered events; `None`: nowhere, and no agent is promised anything.
    pub delivery: Option<Delivery>,
    /// Where it stores its numbers.
    pub metrics: Arc<ShardMetrics>,
    /// Its mail box.
    pub mail: MailReceiver,
    /// The boxes of all shards, by number.
    pub mailers: Vec<MailSender>,
    /// Where it tells of agents.
    pub notices: NoticeSender,
}

/// Why a shard ended before it was told to.
#[derive(Debug)]
pub enum ShardError {
    /// Its core is not there, or not allowed.
    Core {
        /// The core.
        core: usize,
        /// What the kernel says.
        errno: Errno,
    },
    /// What its sinks are to note can't be kept on disk.
    Delivery(std::io::Error),
    /// The kernel has no random numbers to seal with.
    Random(Errno),
    /// The host lacks what a ring needs.
    Ring(Unsupported),
    /// A ring failed while it ran.
    Wait(Errno),
}

impl fmt::Display for ShardError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShardError::Core { core, errno } => {
                write!(formatter, "core {core} can't carry a shard ({errno}): name cores that are allowed")
            }
            ShardError::Delivery(error) => {
                write!(formatter, "queue/ringmaster/delivery-blocks: {error}: make room on the disk")
            }
            ShardError::Random(error) => write!(formatter, "the kernel gives no random numbers ({error})"),
            ShardError::Ring(unsupported) => unsupported.fmt(formatter),
            ShardError::Wait(errno) => {
                write!(formatter, "io_uring_enter failed ({errno}): see the kernel's log")
            }
        }
    }
}

impl std::error::Error for ShardError {}

/// Starts a shard on a thread of its own. What it did is in its metrics.
///
/// # Errors
///
/// If the process can't have one more thread. What else keeps a shard from running is what its thread returns.
pub fn spawn(spec: ShardSpec) -> std::io::Result<JoinHandle<Result<(), ShardError>>> {
    let name = format!("shard-{}", spec.id.0);
    std::thread::Builder::new().name(name).spawn(move || Shard::start(spec)?.run())
}

/// How many messages one turn takes at the most: a lease of many small frames may go somewhat beyond. It bounds how long
/// an acknowledgement waits for the batch it is in.
const TURN_MESSAGES_MAX: usize = 384;

/// At least this often a shard turns: to count the kernel's drops, and to show that it lives.
const TICK: Duration = Duration::from_secs(1);

/// A shard at work.
struct Shard {
    clock: Clock,
    settings: Arc<Settings>,
    table: Arc<ArcSwap<AgentTable>>,
    metrics: Arc<ShardMetrics>,
    mail: MailReceiver,
    mailers: Vec<MailSender>,
    notices: NoticeSender,
    /// Closes for other shards whose box was full.
    unsent: Vec<(ShardId, Mail)>,
    /// The first is the one that the shard waits on.
    rings: Vec<ShardRing>,
    /// Slots of each ring; a connection's slot is `ring * table_slots + slot of the ring`.
    table_slots: u32,
    listeners: Vec<ListenerState>,
    connections: Connections,
    devices: Devices,
    lines: Lines,
    holds: Holds,
    manager: Manager,
    delivery: Option<Delivery>,
    sinks: Sinks,
    sink_polls: Vec<drain_sinks::SinkPoll>,
    pressure: Pressure,
    outgoing: Outgoing,
    /// What became of orders, to be told.
    outcomes: Vec<SendOutcome>,
    looks: Looks,
    patience: Patience,
    batch: Batch,
    /// Memory for the batch as the manager takes it; empty between turns.
    incoming: Vec<Incoming<'static>>,
    due: Due,
    tally: report::Tally,
    stopping: Option<Stopping>,
}

/// One address that the shard listens on.
struct ListenerState {
    is_ipv4: bool,
    /// Agents speak there, and everyone may: nothing is to be asked.
    is_plain: bool,
    crypto_accept: manager::CryptoAccept,
    settings: settings::Listener,
    udp: Option<Arc<OwnedFd>>,
    tcp: Option<Arc<OwnedFd>>,
    /// The socket's drops as far as they are counted, modulo 2^32.
    drops_counted: u32,
    /// Its receive is with the kernel.
    receiving: bool,
    /// Its receive ended for want of buffers, and waits for some.
    starved: bool,
}

/// When and why the shard must turn next, if nothing comes.
#[derive(Debug)]
struct Due {
    /// The next tick.
    tick: Time,
    /// The earliest time that a sink asked for.
    sinks: Option<Time>,
    /// Something is left to do: turn without waiting.
    again: bool,
    /// Mail has come.
    mail: bool,
    /// Accepts are to be armed.
    accepts: bool,
}

impl Shard {
    /// Turns until it is told to stop and has handed over what it holds.
    fn run(mut self) -> Result<(), ShardError> {
        while !self.is_done() {
            self.turn()?;
        }
        self.finish()
    }

    /// One turn: wait, take what came, decide on it, hand it over.
    fn turn(&mut self) -> Result<(), ShardError> {
        let now = self.wait()?;
        self.due.again = false;
        self.decode_backlog();
        self.collect(now)?;
        self.decide(now);
        self.patience.record(now, self.tally.turn_messages);
        self.read_mail();
        self.keep_time(now);
        self.act(None);
        self.drain_sinks(now);
        self.relieve(now);
        self.give_back();
        self.arm_accepts()?;
        self.tell_outcomes();
        self.report(now);
        Ok(())
    }

    fn now(&self) -> Time {
        Time::from_nanoseconds(self.clock.nanoseconds())
    }

    /// What is due by the clock.
    fn keep_time(&mut self, now: Time) {
        if self.manager.next_timeout().is_some_and(|due| due <= now) {
            self.manager.on_timeout(now);
        }
        self.release_due(now);
        self.close_idle(now);
        self.look_due(now);
        if self.due.tick <= now {
            self.due.tick = now + TICK;
            self.due.accepts = true;
            self.count_kernel_drops();
            self.count_deaf();
            self.revive_datagrams();
            self.sinks.look_after();
        }
    }

    /// Closes syslog connections that say nothing. One that is not read can say nothing, and is given its time again.
    fn close_idle(&mut self, now: Time) {
        while let Some(id) = self.devices.pop_idle(now) {
            match self.connections.find(id) {
                Some(connection) if connection.waits() => self.devices.heard(now, id),
                Some(_) => {
                    self.devices.count_idle();
                    self.begin_close(id);
                }
                None => self.devices.close(id),
            }
        }
    }

    /// Looks into the mail box, if something came; sends again what another's box had no room for.
    fn read_mail(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        for (shard, mail) in unsent {
            self.send_mail(shard, mail);
        }
        if !std::mem::take(&mut self.due.mail) {
            return;
        }
        self.mail.clear();
        if let Some(settings) = self.mail.settings() {
            self.take_settings(settings);
        }
        while let Some(mail) = self.mail.next() {
            match mail {
                Mail::CloseConnection(connection) => self.manager.close_mail(connection),
                Mail::Keys => self.manager.on_keys(self.table.load_full()),
                Mail::Stop => self.begin_stop(),
            }
        }
        self.take_orders();
    }
}
