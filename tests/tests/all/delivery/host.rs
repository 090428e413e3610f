//! The agents' hosts: collectors, the engine with its spool, and what is left of them after a kill.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::engine::{Deed, Delivery, Engine, Taken};
use agent::{Agent, AgentSettings, Profile, Tools, Transport};
use codec::{CipherKey, Counter, KeyEntry};
use rand::RngExt;
use spool::{AtBound, Spool};
use tempfile::TempDir;

use super::oracle::{Class, Oracle};
use super::plan::{CALM, Kind, Room};
use super::world::{Happening, World};

/// How long an agent that stops waits to be confirmed.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How often an agent notes what it took from its manager.
const NOTED_EVERY: Duration = Duration::from_secs(10);

/// One agent's host.
pub(super) struct Host {
    pub(super) engine: Option<Engine>,
    pub(super) entry: KeyEntry,
    pub(super) wire: Option<usize>,
    /// Which life of the agent.
    pub(super) life: u32,
    kind: Kind,
    key: Arc<CipherKey>,
    folder: TempDir,
    source: SocketAddr,
    is_connected: bool,
    timer: Option<Duration>,
    stop_at: Option<Duration>,
    /// What the files of counters say: sent at most, taken at least.
    counters: (Counter, Counter),
    noted_at: Duration,
    /// The number of the collectors' next event.
    next_event: u32,
    /// What the spool took when it was killed, and was not told to write.
    unwritten: Vec<(u32, Class)>,
    /// Events that spools of earlier lives dropped.
    dropped_before: u64,
    /// Times that collectors had to wait.
    pub(super) pushed_back: u32,
}

impl Host {
    pub(super) fn new(index: usize, kind: Kind) -> Host {
        let address = IpAddr::from([10, 0, 0, index as u8 + 1]);
        let rule = if kind.any { "any".to_owned() } else { address.to_string() };
        let line = format!("{:03} agent{index} {rule} key-of-agent-{index}", index + 1);
        let entry = codec::KeyFile::parse(line.as_bytes()).entries.remove(0);
        Host {
            engine: None,
            key: Arc::new(CipherKey::new(&entry.name, entry.id.as_str(), &entry.key)),
            entry,
            wire: None,
            life: 0,
            kind,
            folder: folder(),
            source: SocketAddr::from((address, 20_000)),
            is_connected: false,
            timer: None,
            stop_at: None,
            counters: (Counter::ZERO, Counter::ZERO),
            noted_at: Duration::ZERO,
            next_event: 0,
            unwritten: Vec::new(),
            dropped_before: 0,
            pushed_back: 0,
        }
    }

    pub(super) fn next_source(&mut self) -> SocketAddr {
        self.source.set_port(self.source.port() + 1);
        self.source
    }

    /// Events that its spool dropped for want of room.
    pub(super) fn dropped(&self) -> u64 {
        let dropped = self.engine.as_ref().map_or(0, |engine| engine.spool().counters().dropped);
        self.dropped_before + dropped
    }

    fn spool_settings(&self) -> spool::Settings {
        let (bytes_max, at_bound) = match self.kind.room {
            Room::Ample => (1 << 20, AtBound::PushBack),
            Room::PushesBack => (16 << 10, AtBound::PushBack),
            Room::DropsOldest => (16 << 10, AtBound::DropOldest),
        };
        spool::Settings { bytes_max, segment_bytes: 4_096, at_bound, sync: false }
    }

    /// Returns what the last life had not meant to write yet, and wrote all the same.
    fn start(&mut self, now: Duration, seed: [u8; 32]) -> Vec<(u32, Class)> {
        let settings = self.spool_settings();
        let (mut spool, _) = Spool::open(self.folder.path(), settings).expect("a spool opens after anything");
        let found = texts(&mut spool);
        let mut written = std::mem::take(&mut self.unwritten);
        written.retain(|(event, _)| found.iter().any(|(_, found)| found == event));
        let (sent, taken) = self.counters;
        let profile = Profile {
            notify_time: Duration::from_secs(4),
            time_reconnect: Duration::from_secs(10),
            reconnect_interval: Duration::ZERO,
            ..Profile::ossec(Transport::Tcp, self.kind.method)
        };
        let settings_of_agent = AgentSettings {
            profile: Arc::new(profile),
            id: self.entry.id,
            key: Arc::clone(&self.key),
            sends_id: self.entry.address.agent_sends_id(),
            address: self.source.ip(),
            sent,
            taken,
        };
        let delivery =
            Delivery { spool: settings, confirm_after: Some(Duration::from_secs(5)), acknowledged: true };
        let agent = Agent::new(settings_of_agent, now);
        self.engine = Some(Engine::new(agent, Tools::new(seed), spool, delivery));
        (self.timer, self.stop_at, self.is_connected) = (None, None, false);
        self.life += 1;
        written
    }
}

/// The events that a spool has.
fn texts(spool: &mut Spool) -> Vec<(usize, u32)> {
    let mut cursor = spool.cursor(spool.first_sequence());
    let mut texts = Vec::new();
    while let Some((_, text)) = spool.read(&mut cursor).expect("the disk gives it") {
        texts.extend(Oracle::read(&String::from_utf8_lossy(text)));
    }
    texts
}

/// In memory where there is such a file system: the spool waits for the disk when it is opened.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for a spool")
}

impl World {
    pub(super) fn agent_starts(&mut self, agent: usize) {
        if self.hosts[agent].engine.is_none() {
            let seed = self.random.random();
            let written = self.hosts[agent].start(self.now, seed);
            written.into_iter().for_each(|(event, class)| self.oracle.taken(agent, event, class));
            self.with_engine(agent, Engine::on_timeout);
        }
    }

    /// One input for an engine, then what the program's loop does after each.
    pub(super) fn with_engine(&mut self, agent: usize, input: impl FnOnce(&mut Engine, Duration)) {
        let now = self.now;
        let host = &mut self.hosts[agent];
        let Some(engine) = &mut host.engine else { return };
        input(engine, now);
        self.agent_does(agent);
        let host = &mut self.hosts[agent];
        let Some(engine) = &mut host.engine else { return };
        if engine.next_timeout(now).is_some_and(|at| at <= now) {
            engine.on_timeout(now);
        }
        engine.pump(now);
        self.agent_does(agent);
        self.agent_notes(agent);
        self.agent_timer_set(agent);
        self.agent_ends_if_settled(agent);
    }

    pub(super) fn agent_timer(&mut self, agent: usize) {
        self.hosts[agent].timer = None;
        self.with_engine(agent, |_, _| {});
    }

    /// What the engine wants of its sockets.
    fn agent_does(&mut self, agent: usize) {
        while let Some(deed) = self.hosts[agent].engine.as_mut().and_then(Engine::next_deed) {
            match deed {
                Deed::Connect => {
                    self.agent_hangs_up(agent);
                    let most = if self.random.random_bool(0.5) { 1_000_000 } else { 50_000 };
                    let wait = Duration::from_micros(self.random.random_range(0..most));
                    let life = self.hosts[agent].life;
                    self.after(wait, Happening::AgentConnects { agent, life });
                }
                Deed::Disconnect => self.agent_hangs_up(agent),
                Deed::Locked | Deed::Ready => {}
                deed @ (Deed::Received(_) | Deed::SessionRenewed) => {
                    self.oracle.check(false, || format!("agent {agent} has no reason for {deed:?}"));
                }
            }
        }
        self.agent_flushes(agent);
    }

    fn agent_hangs_up(&mut self, agent: usize) {
        let host = &mut self.hosts[agent];
        host.is_connected = false;
        if let Some(wire) = host.wire.take() {
            self.agent_closes(wire);
        }
    }

    fn agent_flushes(&mut self, agent: usize) {
        let host = &self.hosts[agent];
        let (Some(wire), true) = (host.wire, host.is_connected) else { return };
        if !self.has_room(wire) {
            return;
        }
        let Some(engine) = &mut self.hosts[agent].engine else { return };
        let mut bytes = Vec::new();
        engine.take_outbox().iter().for_each(|message| codec::frame(message, &mut bytes));
        engine.on_sent();
        if !bytes.is_empty() {
            self.agent_writes(wire, bytes);
        }
    }

    /// Its kernel may have room again.
    pub(super) fn agent_may_write(&mut self, agent: usize) {
        if self.hosts[agent].engine.as_ref().is_some_and(Engine::has_outbox) {
            self.with_engine(agent, |_, _| {});
        }
    }

    pub(super) fn agent_connects(&mut self, agent: usize) {
        if self.hosts[agent].wire.is_none() {
            self.dial(agent);
        }
    }

    pub(super) fn connected(&mut self, wire: usize) {
        let agent = self.wires[wire].agent;
        if self.hosts[agent].wire == Some(wire) {
            self.hosts[agent].is_connected = true;
            self.late_meets(wire);
            self.with_engine(agent, Engine::on_connected);
        }
    }

    pub(super) fn message_for_agent(&mut self, agent: usize, wire: usize, bytes: &[u8]) {
        // A message may end the connection, and the rest of them with it.
        if self.hosts[agent].wire == Some(wire) {
            self.with_engine(agent, |engine, now| engine.on_message(now, bytes));
        }
    }

    pub(super) fn agent_lost(&mut self, agent: usize) {
        let host = &mut self.hosts[agent];
        (host.wire, host.is_connected) = (None, false);
        self.with_engine(agent, Engine::on_closed);
    }

    /// Collectors have something, until they have given all, and wait where the spool has no room.
    pub(super) fn collectors_write(&mut self, agent: usize) {
        self.collectors_burst(agent);
        let host = &self.hosts[agent];
        if host.next_event < host.kind.events || self.now < CALM {
            let delay = Duration::from_millis(self.random.random_range(10..3_000));
            self.after(delay, Happening::CollectorsWrite { agent });
        }
    }

    pub(super) fn collectors_burst(&mut self, agent: usize) {
        let burst = self.random.random_range(1..=20);
        self.collectors_give(agent, burst, true);
    }

    fn collectors_give(&mut self, agent: usize, count: u32, is_committed: bool) {
        for _ in 0..count {
            let class = match self.random.random_range(0..20) {
                0 => Class::Malformed,
                1 => Class::NotArchived,
                _ => Class::Event,
            };
            let host = &mut self.hosts[agent];
            let Some(engine) = host.engine.as_mut().filter(|_| host.stop_at.is_none()) else { return };
            if host.next_event >= host.kind.events {
                return;
            }
            let text = Oracle::text(agent, host.next_event, class);
            if !engine.has_room() || engine.take(text.as_bytes()) != Taken::Kept {
                host.pushed_back += 1;
                break;
            }
            if is_committed {
                assert!(engine.commit(), "the disk takes it");
                self.oracle.taken(agent, host.next_event, class);
            } else {
                host.unwritten.push((host.next_event, class));
            }
            host.next_event += 1;
        }
        if is_committed {
            self.with_engine(agent, |_, _| {});
        }
    }

    /// Nobody asks an agent that is killed. What it took in that moment, and had not written, is gone with it.
    pub(super) fn agent_killed(&mut self, agent: usize) {
        let unwritten = self.random.random_range(0..4);
        self.collectors_give(agent, unwritten, false);
        let host = &mut self.hosts[agent];
        host.dropped_before = host.dropped();
        let Some(engine) = host.engine.take() else { return };
        let (sent, _) = engine.agent().counters();
        // As the file of counters is written: well ahead.
        host.counters.0 = Counter { global: sent.global + 1, local: 1 };
        drop(engine);
        self.agent_gone(agent);
    }

    pub(super) fn agent_stops(&mut self, agent: usize) {
        let host = &mut self.hosts[agent];
        if host.engine.is_none() || host.stop_at.is_some() {
            return;
        }
        let at = self.now + STOP_WAIT;
        host.stop_at = Some(at);
        let life = host.life;
        self.at(at, Happening::AgentTimer { agent, life });
        self.with_engine(agent, Engine::finish);
    }

    fn agent_ends_if_settled(&mut self, agent: usize) {
        let host = &mut self.hosts[agent];
        let Some(stop_at) = host.stop_at else { return };
        let Some(engine) = host.engine.take_if(|engine| self.now >= stop_at || engine.is_settled()) else {
            return;
        };
        host.dropped_before += engine.spool().counters().dropped;
        let (sent, taken, closed) = engine.close();
        closed.expect("the disk takes it");
        host.counters = (sent, taken);
        self.agent_gone(agent);
    }

    fn agent_gone(&mut self, agent: usize) {
        if let Some(wire) = self.hosts[agent].wire
            && self.random.random_bool(0.3)
        {
            self.makes_late(wire);
        }
        self.agent_hangs_up(agent);
        self.hosts[agent].stop_at = None;
        let delay = Duration::from_micros(self.random.random_range(100..3_000_000));
        self.after(delay, Happening::AgentStarts { agent });
    }

    fn agent_notes(&mut self, agent: usize) {
        let host = &mut self.hosts[agent];
        let Some(engine) = &host.engine else { return };
        if self.now >= host.noted_at + NOTED_EVERY {
            (host.counters.1, host.noted_at) = (engine.agent().counters().1, self.now);
        }
        self.oracle.kept(agent, engine.spool().records());
    }

    fn agent_timer_set(&mut self, agent: usize) {
        let host = &mut self.hosts[agent];
        let Some(next) = host.engine.as_ref().and_then(|engine| engine.next_timeout(self.now)) else {
            return;
        };
        if host.timer.is_none_or(|timer| next < timer) {
            host.timer = Some(next);
            let life = host.life;
            self.at(next, Happening::AgentTimer { agent, life });
        }
    }
}
