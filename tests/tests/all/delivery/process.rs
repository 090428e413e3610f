//! The manager's process: two shards with one table and one account of deliveries. Does what the daemon does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use codec::{Counter, KeyEntry};
use manager::{
    Action, Admission, AgentTable, CloseReason, ConnectionId, CounterSeed, CryptoAccept, Deliveries,
    Incoming, Manager, ManagerParts, Peer, Publish, Published, Reason, SenderCounter, ShardId, SinkFull,
    SinkSet, Ticket, Time, Verdict,
};
use rand::RngExt;

use super::oracle::Oracle;
use super::plan::Mutation;
use super::sinks::{OnDisk, Waiting};
use super::world::{Happening, World};

pub(super) const SHARDS: u8 = 2;

/// What survives a crash of the manager's counters: at most a second old.
#[derive(Default)]
pub(super) struct Counters {
    agents: CounterSeed,
    sender: Counter,
}

/// A manager that runs.
pub(super) struct Process {
    pub(super) shards: Vec<Shard>,
    table: Arc<AgentTable>,
    senders: Arc<SenderCounter>,
}

/// One shard: a manager, what waits for its next turn, and its sinks.
pub(super) struct Shard {
    manager: Manager,
    pub(super) waiting: Waiting,
    inbox: Vec<(Peer, Vec<u8>)>,
    wires: BTreeMap<ConnectionId, usize>,
    paused: Vec<ConnectionId>,
    turn_is_due: bool,
    generations: u32,
    timer: Option<Time>,
}

impl World {
    pub(super) fn manager_starts(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.life += 1;
        let table = Arc::new(AgentTable::build(self.keys(), None, &self.counters.agents));
        let sender = Counter { global: self.counters.sender.global + 1, local: 1 };
        let senders = Arc::new(SenderCounter::new(sender));
        let deliveries = Arc::new(Deliveries::new(Box::new(OnDisk(Arc::clone(&self.disk)))));
        let shards = (0..SHARDS).map(|shard| self.shard(shard, &table, &senders, &deliveries)).collect();
        self.process = Some(Process { shards, table, senders });
        self.counters_due();
    }

    fn shard(
        &mut self,
        shard: u8,
        table: &Arc<AgentTable>,
        senders: &Arc<SenderCounter>,
        deliveries: &Arc<Deliveries>,
    ) -> Shard {
        let settings = manager::Settings {
            crypto_accept: self.crypto_accept,
            replay: self.plan.replay,
            silent_deadline: Duration::from_secs(30),
            paused_acknowledgement_interval: Duration::from_secs(3),
            ..manager::Settings::default()
        };
        let (table, senders) = (Arc::clone(table), Arc::clone(senders));
        let parts =
            ManagerParts { settings, shard: ShardId(shard), table, senders, seed: self.random.random() };
        let mut manager = Manager::new(parts);
        manager.set_deliveries(self.plan.agrees.then(|| Arc::clone(deliveries)));
        Shard {
            manager,
            waiting: Waiting::default(),
            inbox: Vec::new(),
            wires: BTreeMap::new(),
            paused: Vec::new(),
            turn_is_due: false,
            generations: 0,
            timer: None,
        }
    }

    /// Ends the manager: as it should, or by a kill. Either way its kernel closes its sockets.
    /// The next one starts when this one was `away` for so long.
    pub(super) fn manager_ends(&mut self, is_killed: bool, away: Duration) {
        if self.process.is_none() {
            return;
        }
        if !is_killed {
            (0..SHARDS).for_each(|shard| self.turn(shard));
            self.write_counters();
        }
        self.note_what_was_seen();
        let process = self.process.take().expect("it was there a moment ago");
        let wires: Vec<usize> =
            process.shards.iter().flat_map(|shard| shard.wires.values().copied()).collect();
        let waiting: Vec<Waiting> = process.shards.into_iter().map(|shard| shard.waiting).collect();
        if is_killed {
            self.sinks_killed(&waiting);
        } else {
            self.sinks_drained(waiting);
        }
        for wire in wires {
            self.wires[wire].manager_side = None;
            self.wires[wire].kernel_buffer = VecDeque::new();
            if self.random.random_bool(0.5) {
                self.manager_closes(wire);
            } else {
                self.end_at_agent(wire, Duration::ZERO);
            }
        }
        self.after(away, Happening::ManagerStarts);
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
        let life = self.life;
        self.after(Duration::from_secs(1), Happening::CountersDue { life });
    }

    fn write_counters(&mut self) {
        let process = self.process.as_ref().expect("only a living manager writes");
        for agent in process.table.agents() {
            self.counters.agents.insert(agent.entry().id, agent.state().replay().highest());
        }
        self.counters.sender = process.senders.last();
    }

    /// client.keys was written anew, in another order or without some line, which comes back soon.
    pub(super) fn keys_change(&mut self, is_one_removed: bool) {
        if is_one_removed && self.removed_key.is_none() {
            self.removed_key = Some(self.random.random_range(0..self.hosts.len()));
            let delay = Duration::from_millis(self.random.random_range(1..2_000));
            self.after(delay, Happening::KeyBack);
        }
        let keys = self.keys();
        self.write_counters_if_alive();
        let Some(process) = &mut self.process else { return };
        let table = Arc::new(AgentTable::build(keys, Some(&process.table), &self.counters.agents));
        process.table = Arc::clone(&table);
        for shard in 0..SHARDS {
            let delay = self.some_delay();
            let (life, table) = (self.life, Arc::clone(&table));
            self.after(delay, Happening::Table { life, shard, table });
        }
    }

    pub(super) fn table_arrives(&mut self, shard: u8, table: Arc<AgentTable>) {
        self.with_manager(shard, |manager, _| manager.on_keys(table));
    }

    /// The settings are read anew, and soon after that once more.
    pub(super) fn cipher_refused(&mut self) {
        let is_aes = self.random.random_bool(0.5);
        self.ciphers_change(if is_aes { CryptoAccept::Aes } else { CryptoAccept::Blowfish });
        let delay = Duration::from_micros(self.random.random_range(0..100_000));
        self.after(delay, Happening::CipherBack);
    }

    pub(super) fn ciphers_change(&mut self, crypto_accept: CryptoAccept) {
        self.crypto_accept = crypto_accept;
        let shards = self.process.iter_mut().flat_map(|process| &mut process.shards);
        shards.for_each(|shard| shard.manager.set_crypto_accept(crypto_accept));
    }

    fn write_counters_if_alive(&mut self) {
        if self.process.is_some() {
            self.write_counters();
        }
    }

    fn keys(&mut self) -> Vec<KeyEntry> {
        let hosts = self.hosts.iter().enumerate();
        let there = hosts.filter(|(index, _)| Some(*index) != self.removed_key);
        let mut keys: Vec<KeyEntry> = there.map(|(_, host)| host.entry.clone()).collect();
        let middle = self.random.random_range(0..=keys.len());
        keys.rotate_left(middle);
        keys
    }

    /// A message for the next turn of a shard.
    pub(super) fn enqueue(&mut self, shard: u8, peer: Peer, bytes: Vec<u8>) {
        let Some(process) = &mut self.process else { return };
        let shard_now = &mut process.shards[usize::from(shard)];
        shard_now.inbox.push((peer, bytes));
        if !std::mem::replace(&mut shard_now.turn_is_due, true) {
            let delay = Duration::from_micros(self.random.random_range(10..20_000));
            let life = self.life;
            self.after(delay, Happening::Turn { life, shard });
        }
    }

    /// One turn: the whole inbox is one batch.
    pub(super) fn turn(&mut self, shard: u8) {
        let now = self.time();
        let process = self.process.as_mut().expect("the caller checked that it lives");
        let shard_now = &mut process.shards[usize::from(shard)];
        shard_now.turn_is_due = false;
        let inbox = std::mem::take(&mut shard_now.inbox);
        if inbox.is_empty() {
            return;
        }
        let batch: Vec<_> = inbox.iter().map(|(peer, bytes)| Incoming { peer: *peer, bytes }).collect();
        let mut sink = Batch {
            batch: &batch,
            oracle: &mut self.oracle,
            waiting: &mut shard_now.waiting,
            soft: self.plan.sink_soft,
            agrees: self.plan.agrees,
            sinks: self.disk.sinks(),
            is_for_all: self.plan.mutation == Some(Mutation::IgnoreWanted),
            partial: &mut self.partial,
            to_pause: Vec::new(),
            verdicts: 0,
            taken: 0,
        };
        shard_now.manager.receive(now, &batch, &mut sink);
        let Batch { to_pause, verdicts, .. } = sink;
        self.oracle.check(verdicts == batch.len(), || "a message has not exactly one verdict".into());
        let counters = shard_now.manager.counters();
        self.oracle.check(counters.balanced(), || format!("the sums do not balance: {counters:?}"));
        for connection in to_pause {
            if !shard_now.paused.contains(&connection) && shard_now.wires.contains_key(&connection) {
                shard_now.paused.push(connection);
                shard_now.manager.on_paused(now, connection);
            }
        }
        self.drain_manager(shard);
        self.sinks_wake(shard);
    }

    pub(super) fn is_paused(&self, shard: u8, connection: ConnectionId) -> bool {
        let shard_now = self.process.as_ref().map(|process| &process.shards[usize::from(shard)]);
        shard_now.is_some_and(|shard_now| shard_now.paused.contains(&connection))
    }

    /// Below half of their bound the sinks of a shard take from all connections again.
    pub(super) fn resume_if_room(&mut self, shard: u8) {
        let soft = self.plan.sink_soft;
        let Some(process) = &mut self.process else { return };
        let shard_now = &mut process.shards[usize::from(shard)];
        if shard_now.waiting.longest() > soft / 2 {
            return;
        }
        for connection in std::mem::take(&mut shard_now.paused) {
            self.with_manager(shard, |manager, now| manager.on_resumed(now, connection));
            let process = self.process.as_ref().expect("nothing here ends it");
            if let Some(wire) = process.shards[usize::from(shard)].wires.get(&connection).copied() {
                self.read_kernel_buffer(wire);
            }
        }
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

    pub(super) fn manager_timer(&mut self, shard: u8, at: Time) {
        let process = self.process.as_mut().expect("the caller checked that it lives");
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
                Some(Action::Notice { .. }) => {}
                Some(action @ (Action::Hold { .. } | Action::SendDatagram { .. })) => {
                    self.oracle.check(false, || format!("nobody asked for {action:?}"));
                }
                Some(Action::Mail { shard: to, connection }) => {
                    // The other shard may have a long turn.
                    let most = if self.random.random_bool(0.5) { 1_000 } else { 10 };
                    let delay = Duration::from_millis(self.random.random_range(0..most));
                    let life = self.life;
                    self.after(delay, Happening::Mail { life, shard: to.0, connection });
                }
            }
        }
        let shard_now = &mut self.process.as_mut().expect("it is alive").shards[usize::from(shard)];
        let Some(next) = shard_now.manager.next_timeout() else { return };
        if shard_now.timer.is_none_or(|timer| next < timer) {
            shard_now.timer = Some(next);
            let (at, life) = (Duration::from_nanos(next.as_nanoseconds()), self.life);
            self.at(at, Happening::ManagerTimer { life, shard, at: next });
        }
    }

    /// A connection reaches a listener, whichever the kernel picks.
    pub(super) fn accept(&mut self, wire: usize) -> bool {
        let shard = self.random.random_range(0..SHARDS);
        let from = self.wires[wire].from;
        let Some(process) = &mut self.process else { return false };
        let shard_now = &mut process.shards[usize::from(shard)];
        shard_now.generations += 1;
        let connection = ConnectionId { slot: shard_now.generations % 64, generation: shard_now.generations };
        shard_now.wires.insert(connection, wire);
        self.wires[wire].manager_side = Some((shard, connection));
        let admission = self.with_manager(shard, |manager, now| manager.on_connected(now, connection, from));
        match admission {
            Some(Admission::Admit) => true,
            Some(Admission::Refuse(_)) | None => {
                self.forget_connection(shard, connection);
                false
            }
        }
    }

    /// Takes a connection out of the tables.
    pub(super) fn forget_connection(&mut self, shard: u8, connection: ConnectionId) -> Option<usize> {
        let shard_now = &mut self.process.as_mut()?.shards[usize::from(shard)];
        let wire = shard_now.wires.remove(&connection)?;
        shard_now.paused.retain(|paused| *paused != connection);
        self.wires[wire].manager_side = None;
        self.wires[wire].kernel_buffer = VecDeque::new();
        Some(wire)
    }

    fn time(&self) -> Time {
        Time::ZERO + self.now
    }
}

/// A shard's sinks, and whoever counts verdicts, for one batch.
struct Batch<'a> {
    batch: &'a [Incoming<'a>],
    oracle: &'a mut Oracle,
    waiting: &'a mut Waiting,
    soft: usize,
    agrees: bool,
    sinks: SinkSet,
    /// Whether the mutation gives every event to all of them.
    is_for_all: bool,
    /// Events that some sink had already, and some other had not.
    partial: &'a mut u32,
    to_pause: Vec<ConnectionId>,
    verdicts: usize,
    /// Events and passes since the last verdict.
    taken: u32,
}

impl Publish for Batch<'_> {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        let text = format!("{}:{}", event.event.queue as char, String::from_utf8_lossy(event.event.rest));
        match event.ticket {
            Some(ticket) => {
                self.oracle.check(!ticket.wanted.is_empty(), || format!("nobody wants {text}"));
                *self.partial += u32::from(ticket.wanted != self.sinks);
                self.oracle.numbered(ticket.number, &text);
                let wanted = if self.is_for_all { self.sinks } else { ticket.wanted };
                self.waiting.push(Some(ticket), wanted, Some(&text));
            }
            None => {
                self.oracle.check(!self.agrees, || format!("without a number: {text}"));
                self.waiting.push(None, self.sinks, Some(&text));
            }
        }
        if let Peer::Connection(connection) = self.batch[self.verdicts].peer
            && self.waiting.longest() > self.soft
        {
            self.to_pause.push(connection);
        }
        self.taken += 1;
        Ok(())
    }

    fn pass(&mut self, ticket: Ticket) {
        self.waiting.push(Some(ticket), ticket.wanted, None);
        self.taken += 1;
    }

    fn verdict(&mut self, index: usize, verdict: Verdict) {
        self.oracle.check(index == self.verdicts, || format!("verdict on {index} is not in order"));
        let taken = std::mem::take(&mut self.taken);
        let is_right = match verdict {
            Verdict::Event => taken == 1,
            Verdict::Dropped(Reason::EventMalformed | Reason::EventQueue | Reason::KeepAliveFiller) => {
                taken <= 1
            }
            Verdict::Control(_) | Verdict::Dropped(_) => taken == 0,
        };
        self.oracle.check(is_right, || format!("{taken} events or passes, but {verdict:?}"));
        self.verdicts += 1;
    }
}
