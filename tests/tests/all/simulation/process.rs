//! The manager's process: its shards, their sinks, and what survives it on disk. Does what the daemon does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use codec::{Counter, KeyEntry};
use manager::{
    Action, Admission, AgentTable, CloseReason, ConnectionId, CounterSeed, Incoming, Manager, ManagerParts,
    Peer, Publish, Published, Reason, SenderCounter, ShardId, SinkFull, Ticket, Time, Transport, Verdict,
};
use rand::RngExt;

use super::oracle::Oracle;
use super::plan::{CALM, Mutation, Plan};
use super::world::{Happening, World};

/// Far more than is ever sent between two writes of the counters.
const SENDER_MARGIN: u32 = 1;

/// What survives a crash.
#[derive(Default)]
pub(super) struct Disk {
    counters: CounterSeed,
    sender: Counter,
}

/// A manager that runs.
pub(super) struct Process {
    pub(super) shards: Vec<Shard>,
    pub(super) table: Arc<AgentTable>,
    senders: Arc<SenderCounter>,
}

/// One shard: a manager, what waits for its next turn, and its sink.
pub(super) struct Shard {
    pub(super) manager: Manager,
    pub(super) inbox: Vec<(Peer, Vec<u8>)>,
    pub(super) wires: BTreeMap<ConnectionId, usize>,
    pub(super) paused: Vec<ConnectionId>,
    turn_is_due: bool,
    free_slots: Vec<u32>,
    generations: Vec<u32>,
    /// Events in the sink that its reader has not taken yet.
    held: usize,
    fed: u64,
    timer: Option<Time>,
}

impl World {
    pub(super) fn start_manager(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.life += 1;
        let table = Arc::new(AgentTable::build(self.keys(), None, &self.disk.counters));
        let sender = Counter { global: self.disk.sender.global + SENDER_MARGIN, local: 1 };
        let senders = Arc::new(SenderCounter::new(sender));
        let shards = (0..self.plan.shards).map(|shard| self.shard(shard, &table, &senders)).collect();
        self.process = Some(Process { shards, table, senders });
        self.write_counters();
        self.after(Duration::from_secs(1), Happening::CountersDue { life: self.life });
    }

    fn shard(&mut self, shard: u8, table: &Arc<AgentTable>, senders: &Arc<SenderCounter>) -> Shard {
        let settings = manager::Settings {
            replay: self.plan.replay,
            silent_deadline: Duration::from_secs(100),
            ..manager::Settings::default()
        };
        let (table, senders) = (Arc::clone(table), Arc::clone(senders));
        let parts =
            ManagerParts { settings, shard: ShardId(shard), table, senders, seed: self.random.random() };
        Shard {
            manager: Manager::new(parts),
            inbox: Vec::new(),
            wires: BTreeMap::new(),
            paused: Vec::new(),
            turn_is_due: false,
            free_slots: Vec::new(),
            generations: Vec::new(),
            held: 0,
            fed: 0,
            timer: None,
        }
    }

    /// Ends the manager. A crash writes no counters; either way its sockets are closed by the kernel.
    pub(super) fn end_manager(&mut self, is_crash: bool) {
        if self.process.is_none() {
            return;
        }
        self.note_what_was_seen();
        if is_crash {
            self.oracle.crashed();
        } else {
            self.write_counters();
        }
        let process = self.process.take().expect("it was there a moment ago");
        for wire in process.shards.iter().flat_map(|shard| shard.wires.values().copied()) {
            self.wires[wire].manager_side = None;
            self.wires[wire].kernel_buffer = VecDeque::new();
            self.break_wire_at_agent(wire);
        }
    }

    /// For what reasons this manager dropped messages and closed connections.
    pub(super) fn note_what_was_seen(&mut self) {
        for shard in self.process.iter().flat_map(|process| &process.shards) {
            let counters = shard.manager.counters();
            let dropped = Reason::ALL.into_iter().filter(|reason| counters.dropped(*reason) > 0);
            let closed = CloseReason::ALL.into_iter().filter(|reason| counters.closed(*reason) > 0);
            self.seen.extend(dropped.map(Reason::name).chain(closed.map(CloseReason::name)));
        }
    }

    pub(super) fn counters_due(&mut self) {
        self.write_counters();
        self.after(Duration::from_secs(1), Happening::CountersDue { life: self.life });
    }

    fn write_counters(&mut self) {
        let process = self.process.as_ref().expect("only a living manager writes");
        for agent in process.table.agents() {
            self.disk.counters.insert(agent.entry().id, agent.state().replay().highest());
        }
        self.disk.sender = process.senders.last();
        self.oracle.written();
    }

    /// client.keys was written anew with the same agents in another order: all keep their state and connection.
    pub(super) fn reload(&mut self) {
        let mut keys = self.keys();
        let middle = self.random.random_range(0..keys.len());
        keys.rotate_left(middle);
        let Some(process) = &mut self.process else { return };
        let table = AgentTable::build(keys, Some(&process.table), &CounterSeed::new());
        process.table = Arc::new(table);
        for shard in 0..self.plan.shards {
            let table = Arc::clone(&self.process.as_ref().expect("it is alive").table);
            let delay = self.some_delay();
            self.after(delay, Happening::Table { life: self.life, shard, table });
        }
    }

    pub(super) fn table_arrives(&mut self, shard: u8, table: Arc<AgentTable>) {
        self.with_manager(shard, |manager, _| manager.on_keys(table));
    }

    /// A message for the next turn of a shard.
    pub(super) fn enqueue(&mut self, shard: u8, peer: Peer, bytes: Vec<u8>) {
        let Some(process) = &mut self.process else { return };
        let shard_now = &mut process.shards[usize::from(shard)];
        shard_now.inbox.push((peer, bytes));
        if !shard_now.turn_is_due {
            shard_now.turn_is_due = true;
            let delay = Duration::from_micros(self.random.random_range(10..20_000));
            self.after(delay, Happening::Turn { life: self.life, shard });
        }
    }

    /// One turn: the whole inbox is one batch.
    pub(super) fn turn(&mut self, shard: u8) {
        let now = self.time();
        let process = self.process.as_mut().expect("the caller checked the life");
        let shard_now = &mut process.shards[usize::from(shard)];
        shard_now.turn_is_due = false;
        let inbox = std::mem::take(&mut shard_now.inbox);
        if inbox.is_empty() {
            return;
        }
        let batch: Vec<_> = inbox.iter().map(|(peer, bytes)| Incoming { peer: *peer, bytes }).collect();
        let mut sink = Sink {
            batch: &batch,
            oracle: &mut self.oracle,
            held: &mut shard_now.held,
            plan: &self.plan,
            mutated: &mut self.mutated,
            held_back: &mut self.held_back,
            to_pause: Vec::new(),
            verdicts: Vec::new(),
            taken: 0,
        };
        shard_now.manager.receive(now, &batch, &mut sink);
        let Sink { to_pause, verdicts, .. } = sink;
        shard_now.fed += batch.len() as u64;
        self.oracle.check(verdicts.len() == batch.len(), || "a message has not exactly one verdict".into());
        let counters = shard_now.manager.counters();
        self.oracle.check(counters.balanced(), || format!("the sums do not balance: {counters:?}"));
        self.oracle.check(counters.received == shard_now.fed, || {
            format!("{} messages were fed and {} counted", shard_now.fed, counters.received)
        });
        for connection in to_pause {
            if !shard_now.paused.contains(&connection) && shard_now.wires.contains_key(&connection) {
                shard_now.paused.push(connection);
                shard_now.manager.on_paused(now, connection);
            }
        }
        self.drain_manager(shard);
        let delay = Duration::from_millis(self.random.random_range(1..50));
        self.after(delay, Happening::ReaderTakes { life: self.life, shard });
    }

    /// The sink's reader takes what is there; below half of the bound all connections are read again.
    pub(super) fn reader_takes(&mut self, shard: u8) {
        if self.reader_is_away && self.now < CALM {
            return self.after(Duration::from_millis(500), Happening::ReaderTakes { life: self.life, shard });
        }
        let now = self.time();
        let process = self.process.as_mut().expect("the caller checked the life");
        let shard_now = &mut process.shards[usize::from(shard)];
        shard_now.held = 0;
        for connection in std::mem::take(&mut shard_now.paused) {
            let shard_now =
                &mut self.process.as_mut().expect("nothing here ends it").shards[usize::from(shard)];
            shard_now.manager.on_resumed(now, connection);
            if let Some(wire) = shard_now.wires.get(&connection).copied() {
                self.read_kernel_buffer(wire);
            }
        }
        self.drain_manager(shard);
    }

    /// One input for a shard's manager, then all that it wants done.
    pub(super) fn with_manager<T>(
        &mut self,
        shard: u8,
        input: impl FnOnce(&mut Manager, Time) -> T,
    ) -> Option<T> {
        let now = self.time();
        let process = self.process.as_mut()?;
        let answer = input(&mut process.shards[usize::from(shard)].manager, now);
        self.drain_manager(shard);
        Some(answer)
    }

    pub(super) fn timer(&mut self, shard: u8, at: Time) {
        let process = self.process.as_mut().expect("the caller checked the life");
        let shard_now = &mut process.shards[usize::from(shard)];
        if shard_now.timer == Some(at) {
            shard_now.timer = None;
        }
        self.with_manager(shard, Manager::on_timeout);
    }

    fn drain_manager(&mut self, shard: u8) {
        loop {
            let process = self.process.as_mut().expect("nothing here ends it");
            let shard_now = &mut process.shards[usize::from(shard)];
            match shard_now.manager.next_action() {
                None => break,
                Some(Action::SendDatagram { to, bytes }) => self.datagram_to_agent(to, &bytes),
                Some(Action::SendFrame { connection, bytes }) => {
                    let wire = shard_now.wires.get(&connection).copied();
                    self.oracle.check(wire.is_some(), || format!("a frame for nobody: {connection:?}"));
                    self.manager_writes(wire.expect("checked"), bytes.to_vec());
                }
                Some(Action::Close { connection, reason }) => {
                    let wire = self.forget_connection(shard, connection);
                    self.oracle.check(wire.is_some(), || format!("closed for {reason}, but is not there"));
                    self.manager_closes(wire.expect("checked"));
                }
                // What is told about agents changes nothing that anybody in the simulation sees.
                Some(Action::Notice { .. }) => {}
                Some(Action::Hold { connection, .. }) => {
                    self.oracle.check(false, || format!("{connection:?} is held, and nothing is limited"));
                }
                Some(Action::Mail { shard: to, connection }) => {
                    self.oracle.check(to.0 != shard, || "mail of a shard to itself".into());
                    let delay = self.some_delay();
                    self.after(delay, Happening::Mail { life: self.life, shard: to.0, connection });
                }
            }
        }
        let shard_now = &mut self.process.as_mut().expect("it is alive").shards[usize::from(shard)];
        let Some(next) = shard_now.manager.next_timeout() else { return };
        if shard_now.timer.is_none_or(|timer| next < timer) {
            shard_now.timer = Some(next);
            let at = Duration::from_nanos(next.as_nanoseconds());
            self.at(at, Happening::ManagerTimer { life: self.life, shard, at: next });
        }
    }

    /// A connection reaches a listener, whichever the kernel picks.
    pub(super) fn accept(&mut self, wire: usize) -> bool {
        let shard = self.random.random_range(0..self.plan.shards);
        let from = self.wires[wire].from;
        let Some(process) = &mut self.process else { return false };
        let shard_now = &mut process.shards[usize::from(shard)];
        let slot = shard_now.free_slots.pop().unwrap_or_else(|| {
            shard_now.generations.push(0);
            shard_now.generations.len() as u32 - 1
        });
        shard_now.generations[slot as usize] += 1;
        let connection = ConnectionId { slot, generation: shard_now.generations[slot as usize] };
        shard_now.wires.insert(connection, wire);
        self.wires[wire].manager_side = Some((shard, connection));
        match self.with_manager(shard, |manager, now| manager.on_connected(now, connection, from)) {
            Some(Admission::Admit) => true,
            Some(Admission::Refuse(_)) | None => {
                self.forget_connection(shard, connection);
                false
            }
        }
    }

    /// Takes a connection out of the tables; its slot may be used again at once.
    pub(super) fn forget_connection(&mut self, shard: u8, connection: ConnectionId) -> Option<usize> {
        let shard_now = &mut self.process.as_mut()?.shards[usize::from(shard)];
        let wire = shard_now.wires.remove(&connection)?;
        shard_now.paused.retain(|paused| *paused != connection);
        shard_now.free_slots.push(connection.slot);
        self.wires[wire].manager_side = None;
        self.wires[wire].is_broken = true;
        self.wires[wire].kernel_buffer = VecDeque::new();
        Some(wire)
    }

    fn keys(&self) -> Vec<KeyEntry> {
        self.fleet.iter().map(|member| member.entry.clone()).collect()
    }

    fn time(&self) -> Time {
        Time::ZERO + self.now
    }
}

/// A shard's sink and whoever counts verdicts, for one batch.
struct Sink<'a> {
    batch: &'a [Incoming<'a>],
    oracle: &'a mut Oracle,
    held: &'a mut usize,
    plan: &'a Plan,
    mutated: &'a mut bool,
    /// An event that a mutation holds back.
    held_back: &'a mut Option<(String, String)>,
    to_pause: Vec<ConnectionId>,
    verdicts: Vec<Verdict>,
    /// Events taken since the last verdict.
    taken: u32,
}

impl Publish for Sink<'_> {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        let is_full = *self.held >= self.plan.sink_soft;
        match (self.batch[self.verdicts.len()].peer, event.transport) {
            (Peer::Connection(connection), Transport::Tcp) if is_full => self.to_pause.push(connection),
            (Peer::Connection(_), Transport::Tcp) => {}
            (Peer::Datagram(_), Transport::Udp) if is_full => return Err(SinkFull),
            (Peer::Datagram(_), Transport::Udp) => {}
            (peer, transport) => self.oracle.check(false, || format!("{peer:?} is not {transport:?}")),
        }
        *self.held += 1;
        self.taken += 1;
        let name = event.agent.entry().name.to_string();
        let text = format!("{}:{}", event.event.queue as char, String::from_utf8_lossy(event.event.rest));
        self.take(name, text);
        Ok(())
    }

    fn pass(&mut self, ticket: Ticket) {
        self.oracle.check(false, || format!("{ticket:?}, but nobody offered to deliver"));
    }

    fn verdict(&mut self, index: usize, verdict: Verdict) {
        let expected = self.verdicts.len();
        self.oracle.check(index == expected, || format!("verdict on {index} in place of {expected}"));
        let is_event = verdict == Verdict::Event;
        let taken = std::mem::take(&mut self.taken);
        self.oracle.check(taken == u32::from(is_event), || format!("{taken} events taken, but {verdict:?}"));
        self.verdicts.push(verdict);
    }
}

impl Sink<'_> {
    /// Hands an event to the oracle: as it is, or mutated.
    fn take(&mut self, name: String, text: String) {
        let is_next = !*self.mutated && self.oracle.events >= 5;
        match self.plan.mutation.filter(|_| is_next) {
            None => self.oracle.published(&name, &text),
            Some(Mutation::Alter) => self.oracle.published(&name, &text.replace("said", "sang")),
            Some(Mutation::Lose) => {}
            Some(Mutation::MiscountVerdict) => {
                self.taken += 1;
                self.oracle.published(&name, &text);
            }
            Some(Mutation::Repeat) => {
                self.oracle.published(&name, &text);
                self.oracle.published(&name, &text);
            }
            Some(Mutation::Swap) => match self.held_back.take() {
                None => {
                    *self.held_back = Some((name, text));
                    return;
                }
                Some((earlier_name, earlier)) => {
                    self.oracle.published(&name, &text);
                    self.oracle.published(&earlier_name, &earlier);
                }
            },
        }
        *self.mutated = *self.mutated || (is_next && self.plan.mutation.is_some());
    }
}
