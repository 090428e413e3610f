//! One run: a queue of what happens when, and nothing else that moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use manager::{AgentTable, ConnectionId, CryptoAccept, SINKS_MAX, Time};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::host::Host;
use super::network::{Piece, Wire};
use super::oracle::Oracle;
use super::plan::{CALM, END, Fault, Plan};
use super::process::{Counters, Process, SHARDS};
use super::sinks::Disk;

/// How long a manager that is not just restarted is away.
const MANAGER_AWAY: Duration = Duration::from_secs(15);

/// Something that happens at its time. What belongs to a life that has ended since happens to nobody.
pub(super) enum Happening {
    AgentConnects { agent: usize, life: u32 },
    AgentStarts { agent: usize },
    AgentTimer { agent: usize, life: u32 },
    CipherBack,
    CollectorsBurst { agent: usize },
    CollectorsWrite { agent: usize },
    Connected { wire: usize },
    CountersDue { life: u32 },
    Dialed { wire: usize },
    Fault(Fault),
    KeyBack,
    LateArrives { wire: usize },
    Mail { life: u32, shard: u8, connection: ConnectionId },
    ManagerStarts,
    ManagerTimer { life: u32, shard: u8, at: Time },
    SinkBack,
    SinkTakes { life: u32, shard: u8, sink: usize },
    SinkWritten { life: u32, shard: u8, sink: usize },
    Table { life: u32, shard: u8, table: Arc<AgentTable> },
    ToAgent { wire: usize, piece: Piece },
    ToManager { wire: usize, piece: Piece },
    Turn { life: u32, shard: u8 },
}

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Duration,
    pub(super) random: StdRng,
    pub(super) oracle: Oracle,
    pub(super) hosts: Vec<Host>,
    pub(super) process: Option<Process>,
    /// Which manager since the start.
    pub(super) life: u32,
    pub(super) counters: Counters,
    pub(super) disk: Arc<Disk>,
    pub(super) stalled_until: [Duration; SINKS_MAX],
    pub(super) crypto_accept: CryptoAccept,
    pub(super) removed_key: Option<usize>,
    pub(super) wires: Vec<Wire>,
    /// Everything that the managers of the run had an eye on, by its name.
    pub(super) seen: BTreeSet<&'static str>,
    /// Events that sinks took over.
    pub(super) handed: u64,
    /// Writes of archives that a kill left in a file.
    pub(super) torn_writes: u32,
    /// Events that some sink had already, and some other had not.
    pub(super) partial: u32,
    queue: BTreeMap<(Duration, u64), Happening>,
    happenings: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Report {
    pub(super) happenings: u64,
    pub(super) taken: u64,
    pub(super) handed: u64,
    pub(super) pushed_back: u32,
    pub(super) torn_writes: u32,
    pub(super) partial: u32,
    pub(super) dropped: u64,
    /// Names of the reasons for which anything was dropped or closed.
    pub(super) seen: BTreeSet<&'static str>,
}

impl World {
    /// Runs the plan to its end.
    ///
    /// # Errors
    /// What the oracle saw first.
    pub(super) fn run(plan: Plan) -> Result<Report, String> {
        let mut world = World::new(plan);
        world.manager_starts();
        world.schedule_all();
        while let Some(((at, _), happening)) = world.queue.pop_first() {
            if at > END {
                break;
            }
            assert!(at >= world.now, "time goes forwards");
            world.now = at;
            world.happens(happening);
            if let Some(violation) = world.oracle.violation() {
                return Err(format!("at {:?}: {violation}", world.now));
            }
        }
        world.check_end();
        match world.oracle.violation() {
            Some(violation) => Err(format!("at the end: {violation}")),
            None => Ok(world.report()),
        }
    }

    pub(super) fn at(&mut self, at: Duration, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((at.max(self.now), self.happenings), happening);
    }

    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn new(plan: Plan) -> World {
        let kinds = plan.agents.iter().enumerate();
        World {
            now: Duration::ZERO,
            random: StdRng::seed_from_u64(plan.seed ^ 0xde11),
            oracle: Oracle::new(&plan),
            hosts: kinds.map(|(index, kind)| Host::new(index, *kind)).collect(),
            process: None,
            life: 0,
            counters: Counters::default(),
            disk: Arc::new(Disk::new(&plan.sinks)),
            stalled_until: [Duration::ZERO; SINKS_MAX],
            crypto_accept: CryptoAccept::Both,
            removed_key: None,
            wires: Vec::new(),
            seen: BTreeSet::new(),
            handed: 0,
            torn_writes: 0,
            partial: 0,
            queue: BTreeMap::new(),
            happenings: 0,
            plan,
        }
    }

    fn schedule_all(&mut self) {
        for agent in 0..self.hosts.len() {
            let delay = Duration::from_millis(self.random.random_range(0..1_000));
            self.at(delay, Happening::AgentStarts { agent });
            self.at(delay, Happening::CollectorsWrite { agent });
        }
        for (at, fault) in self.plan.faults.clone() {
            self.at(at, Happening::Fault(fault));
            // Where nothing is on its way nothing can go wrong.
            for agent in 0..self.hosts.len() {
                let before = Duration::from_micros(self.random.random_range(0..200_000));
                self.at(at.saturating_sub(before), Happening::CollectorsBurst { agent });
            }
        }
        self.at(CALM, Happening::KeyBack);
    }

    fn happens(&mut self, happening: Happening) {
        let alive = self.process.as_ref().map(|_| self.life);
        match happening {
            Happening::AgentConnects { agent, life } if self.hosts[agent].life == life => {
                self.agent_connects(agent);
            }
            Happening::AgentStarts { agent } => self.agent_starts(agent),
            Happening::AgentTimer { agent, life } if self.hosts[agent].life == life => {
                self.agent_timer(agent);
            }
            Happening::CipherBack => self.ciphers_change(CryptoAccept::Both),
            Happening::CollectorsBurst { agent } => self.collectors_burst(agent),
            Happening::CollectorsWrite { agent } => self.collectors_write(agent),
            Happening::Connected { wire } => self.connected(wire),
            Happening::CountersDue { life } if alive == Some(life) => self.counters_due(),
            Happening::Dialed { wire } => self.dialed(wire),
            Happening::Fault(fault) => self.fault(fault),
            Happening::KeyBack => {
                self.removed_key = None;
                self.keys_change(false);
            }
            Happening::LateArrives { wire } => self.late_arrives(wire),
            Happening::Mail { life, shard, connection } if alive == Some(life) => {
                self.with_manager(shard, |manager, _| manager.close_mail(connection));
            }
            Happening::ManagerStarts => self.manager_starts(),
            Happening::ManagerTimer { life, shard, at } if alive == Some(life) => {
                self.manager_timer(shard, at);
            }
            Happening::SinkBack => (0..SHARDS).for_each(|shard| self.sinks_wake(shard)),
            Happening::SinkTakes { life, shard, sink } if alive == Some(life) => {
                self.sink_takes(shard, sink);
            }
            Happening::SinkWritten { life, shard, sink } if alive == Some(life) => {
                self.sink_written(shard, sink);
            }
            Happening::Table { life, shard, table } if alive == Some(life) => {
                self.table_arrives(shard, table);
            }
            Happening::ToAgent { wire, piece } => self.arrives_at_agent(wire, piece),
            Happening::ToManager { wire, piece } => self.arrives_at_manager(wire, piece),
            Happening::Turn { life, shard } if alive == Some(life) => self.turn(shard),
            Happening::AgentConnects { .. }
            | Happening::AgentTimer { .. }
            | Happening::CountersDue { .. }
            | Happening::Mail { .. }
            | Happening::ManagerTimer { .. }
            | Happening::SinkTakes { .. }
            | Happening::SinkWritten { .. }
            | Happening::Table { .. }
            | Happening::Turn { .. } => {}
        }
    }

    fn fault(&mut self, fault: Fault) {
        let agent = self.random.random_range(0..self.hosts.len());
        match fault {
            Fault::AgentKilled => self.agent_killed(agent),
            Fault::AgentStopped => self.agent_stops(agent),
            Fault::CipherRefused => self.cipher_refused(),
            Fault::Cut(how) => self.cut(how),
            Fault::KeysReordered => self.keys_change(false),
            Fault::KeyRemoved => self.keys_change(true),
            Fault::ManagerAway => self.manager_ends(false, MANAGER_AWAY),
            Fault::ManagerKilled => {
                let away = self.a_while();
                self.manager_ends(true, away);
            }
            Fault::ManagerStopped => {
                let away = self.a_while();
                self.manager_ends(false, away);
            }
            Fault::SinkStalls => self.sink_stalls(),
        }
    }

    fn a_while(&mut self) -> Duration {
        Duration::from_micros(self.random.random_range(100..3_000_000))
    }

    fn check_end(&mut self) {
        for agent in 0..self.hosts.len() {
            self.oracle.check_complete(agent, self.hosts[agent].dropped());
            let kept = self.hosts[agent].engine.as_ref().map(|engine| engine.spool().records());
            self.oracle.check(kept == Some(0), || format!("agent {agent} keeps {kept:?} events"));
        }
        for cell in self.disk.cells() {
            self.oracle.check(cell.renewals == 0, || format!("an agent changed its session: {cell:?}"));
        }
    }

    fn report(mut self) -> Report {
        self.note_what_was_seen();
        Report {
            happenings: self.happenings,
            taken: (0..self.hosts.len()).map(|agent| self.oracle.taken_count(agent) as u64).sum(),
            handed: self.handed,
            pushed_back: self.hosts.iter().map(|host| host.pushed_back).sum(),
            torn_writes: self.torn_writes,
            partial: self.partial,
            dropped: self.hosts.iter().map(Host::dropped).sum(),
            seen: std::mem::take(&mut self.seen),
        }
    }
}
