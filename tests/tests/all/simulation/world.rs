//! One run: a queue of what happens when, and nothing else that moves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, Tools};
use codec::ToAgent;
use manager::{AgentTable, ConnectionId, Time};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fleet::Member;
use super::network::{Piece, Wire};
use super::oracle::Oracle;
use super::plan::{CALM, END, Plan, RECOVERED};
use super::process::{Disk, Process};

/// Something that happens at its time. What belongs to a manager that has ended since happens to nobody.
pub(super) enum Happening {
    AgentCrashes,
    AgentFlushes { agent: usize },
    AgentStarts { agent: usize },
    AgentTimer { agent: usize },
    AgentWrites { agent: usize },
    AgentWritesLast { agent: usize },
    Connected { wire: usize },
    CountersDue { life: u32 },
    DatagramToAgent { to: SocketAddr, bytes: Vec<u8> },
    DatagramToManager { from: SocketAddr, bytes: Vec<u8> },
    Dialed { wire: usize },
    Mail { life: u32, shard: u8, connection: ConnectionId },
    ManagerEnds { is_crash: bool },
    ManagerSpeaks,
    ManagerStarts,
    ManagerTimer { life: u32, shard: u8, at: Time },
    ReaderBack,
    ReaderLeaves,
    ReaderTakes { life: u32, shard: u8 },
    Recovered,
    Reload,
    Replay,
    SocketOpen { agent: usize },
    Table { life: u32, shard: u8, table: Arc<AgentTable> },
    ToAgent { wire: usize, piece: Piece },
    ToManager { wire: usize, piece: Piece },
    Turn { life: u32, shard: u8 },
    WireBreaks,
}

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Duration,
    pub(super) random: StdRng,
    pub(super) oracle: Oracle,
    pub(super) fleet: Vec<Member>,
    pub(super) tools: Tools,
    pub(super) process: Option<Process>,
    /// Which manager since the start.
    pub(super) life: u32,
    pub(super) disk: Disk,
    pub(super) wires: Vec<Wire>,
    /// Datagrams that somebody listened to.
    pub(super) captured: Vec<(SocketAddr, Vec<u8>)>,
    pub(super) reader_is_away: bool,
    /// What managers sent to agents on their own, by agent.
    pub(super) orders: HashSet<(usize, Vec<u8>)>,
    /// What was sent after everything was well again.
    pub(super) finals: Vec<(usize, u32)>,
    /// Everything that the managers of the run had an eye on, by its name.
    pub(super) seen: BTreeSet<&'static str>,
    /// Whether the plan's mutation has happened.
    pub(super) mutated: bool,
    /// An event that the plan's mutation holds back: whose, and its text.
    pub(super) held_back: Option<(String, String)>,
    queue: BTreeMap<(Duration, u64), Happening>,
    happenings: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Report {
    pub(super) happenings: u64,
    pub(super) sent: u64,
    pub(super) published: u64,
    pub(super) locks: u64,
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
        world.start_manager();
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
        let mut random = StdRng::seed_from_u64(plan.seed ^ 0x5eed);
        World {
            now: Duration::ZERO,
            oracle: Oracle::new(&plan),
            fleet: Member::all(&plan),
            tools: Tools::new(random.random()),
            random,
            plan,
            process: None,
            life: 0,
            disk: Disk::default(),
            wires: Vec::new(),
            captured: Vec::new(),
            reader_is_away: false,
            orders: HashSet::new(),
            finals: Vec::new(),
            seen: BTreeSet::new(),
            mutated: false,
            held_back: None,
            queue: BTreeMap::new(),
            happenings: 0,
        }
    }

    fn schedule_all(&mut self) {
        for agent in 0..self.fleet.len() {
            let delay = Duration::from_millis(self.random.random_range(0..5_000));
            self.at(delay, Happening::AgentTimer { agent });
            self.at(delay, Happening::AgentWrites { agent });
        }
        let faults = self.plan.faults.clone();
        self.schedule_some(faults.replays, || Happening::Replay);
        self.schedule_some(faults.wire_breaks, || Happening::WireBreaks);
        self.schedule_some(faults.manager_crashes, || Happening::ManagerEnds { is_crash: true });
        self.schedule_some(faults.manager_stops, || Happening::ManagerEnds { is_crash: false });
        self.schedule_some(faults.agent_crashes, || Happening::AgentCrashes);
        self.schedule_some(faults.reader_absences, || Happening::ReaderLeaves);
        self.schedule_some(faults.reloads, || Happening::Reload);
        self.schedule_some(10, || Happening::ManagerSpeaks);
        self.at(CALM, Happening::ManagerStarts);
        self.at(RECOVERED, Happening::Recovered);
    }

    fn schedule_some(&mut self, count: u32, happening: impl Fn() -> Happening) {
        for _ in 0..count {
            let at = CALM.mul_f64(self.random.random::<f64>());
            self.at(at, happening());
        }
    }

    fn happens(&mut self, happening: Happening) {
        let alive = self.process.as_ref().map(|_| self.life);
        match happening {
            Happening::AgentCrashes => self.crash_some_agent(),
            Happening::AgentFlushes { agent } => self.agent_flushes(agent),
            Happening::AgentStarts { agent } => self.agent_starts(agent),
            Happening::AgentTimer { agent } => self.agent_timer(agent),
            Happening::AgentWrites { agent } => self.agent_writes(agent),
            Happening::AgentWritesLast { agent } => self.agent_writes_last(agent),
            Happening::Connected { wire } => self.connected(wire),
            Happening::CountersDue { life } if alive == Some(life) => self.counters_due(),
            Happening::DatagramToAgent { to, bytes } => self.datagram_arrives_at_agent(to, &bytes),
            Happening::DatagramToManager { from, bytes } => self.datagram_arrives(from, bytes),
            Happening::Dialed { wire } => self.dialed(wire),
            Happening::Mail { life, shard, connection } if alive == Some(life) => {
                self.with_manager(shard, |manager, _| manager.close_mail(connection));
            }
            Happening::ManagerEnds { is_crash } => {
                self.end_manager(is_crash);
                let delay = Duration::from_millis(self.random.random_range(1..20_000));
                self.after(delay, Happening::ManagerStarts);
            }
            Happening::ManagerSpeaks => self.manager_speaks(),
            Happening::ManagerStarts => self.start_manager(),
            Happening::ManagerTimer { life, shard, at } if alive == Some(life) => self.timer(shard, at),
            Happening::ReaderBack => self.reader_is_away = false,
            Happening::ReaderLeaves => {
                self.reader_is_away = true;
                let delay = Duration::from_millis(self.random.random_range(1..40_000));
                self.after(delay, Happening::ReaderBack);
            }
            Happening::ReaderTakes { life, shard } if alive == Some(life) => self.reader_takes(shard),
            Happening::Recovered => self.check_recovered(),
            Happening::Reload => self.reload(),
            Happening::Replay => self.replay(),
            Happening::SocketOpen { agent } => self.with_agent(agent, Agent::on_connected),
            Happening::Table { life, shard, table } if alive == Some(life) => {
                self.table_arrives(shard, table);
            }
            Happening::ToAgent { wire, piece } => self.arrives_at_agent(wire, piece),
            Happening::ToManager { wire, piece } => self.arrives_at_manager(wire, piece),
            Happening::Turn { life, shard } if alive == Some(life) => self.turn(shard),
            Happening::WireBreaks => self.break_some_wire(),
            Happening::CountersDue { .. }
            | Happening::Mail { .. }
            | Happening::ManagerTimer { .. }
            | Happening::ReaderTakes { .. }
            | Happening::Table { .. }
            | Happening::Turn { .. } => {}
        }
    }

    fn connected(&mut self, wire: usize) {
        let agent = self.wires[wire].agent;
        if self.fleet[agent].wire == Some(wire) {
            self.with_agent(agent, Agent::on_connected);
        }
    }

    /// The manager has something for an agent; most often that agent is somewhere else.
    fn manager_speaks(&mut self) {
        let index = self.random.random_range(0..self.fleet.len());
        let shard = self.random.random_range(0..self.plan.shards);
        let order = format!("restart-{} - null", self.happenings);
        let message = ToAgent::ActiveResponse(order.as_bytes());
        let mut text = Vec::new();
        message.write(&mut text);
        self.orders.insert((index, text));
        let id = self.fleet[index].entry.id;
        let sent = self.with_manager(shard, |manager, now| manager.send(now, id, &message));
        if let Some(Err(manager::NotSent::OtherShard(owner))) = sent {
            self.with_manager(owner.0, |manager, now| manager.send(now, id, &message));
        }
    }

    fn check_end(&mut self) {
        for (agent, sequence) in std::mem::take(&mut self.finals) {
            let arrived = self.oracle.arrived(agent, sequence);
            self.oracle.check(arrived, || format!("agent {agent}, event {sequence}: lost when all was well"));
        }
        for wire in self.wires.iter().filter(|wire| !wire.is_broken) {
            for sequence in &wire.sent {
                let arrived = self.oracle.arrived(wire.agent, *sequence);
                let agent = wire.agent;
                self.oracle.check(arrived, || {
                    format!("agent {agent}, event {sequence}: lost on a connection that never broke")
                });
            }
        }
    }

    fn report(mut self) -> Report {
        self.note_what_was_seen();
        Report {
            seen: std::mem::take(&mut self.seen),
            happenings: self.happenings,
            sent: (0..self.fleet.len()).map(|agent| u64::from(self.oracle.next_sequence(agent))).sum(),
            published: self.oracle.events,
            locks: self.fleet.iter().map(|member| u64::from(member.locks)).sum(),
        }
    }
}
