//! One generator: a thread that plays its share of the fleet.
//!
//! Each agent is the sans-IO one of `agent`: start-up, acknowledgement, keep-alives, reconnects are its own decisions.
//! What it does not do here is seal its events, which was done ahead; it is told their counters as they go.
//!
//! ```text
//! loop {
//!     admit agents that have not started yet       // bounded in flight
//!     what is due of the plan -> sends             // open loop
//!     one turn of the rings -> events -> agents    // at most QUANTUM
//!     timers -> agents
//! }
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use agent::{Agent, Output, State, Tools};
use bytes::Bytes;
use codec::{FRAME_HEADER_BYTES, FrameAt, Method};

use crate::account::Account;
use crate::casting::{Player, cast};
use crate::cli::{Dialect, Protocol};
use crate::leg::Leg;
use crate::links::{LinkEvent, Links};
use crate::members::{CounterBase, Member};
use crate::pacing::Pacer;
use crate::plan::{Plan, mix};
use crate::proc::CpuTime;
use crate::tally::nanoseconds_histogram;

/// How long a turn may wait: what is due in between goes out together, this much late at most.
const QUANTUM: Duration = Duration::from_micros(250);
/// A turn ends earlier if so much has happened.
const COMPLETIONS_OF_A_TURN: u32 = 1_024;
/// Writes of one turn; a late generator looks at its agents in between.
const WRITES_OF_A_TURN: u32 = 2_048;

/// What every generator of a run has in common.
#[derive(Debug)]
pub struct FleetSpec {
    /// Who.
    pub members: Arc<Vec<Member>>,
    /// In which order; its legs keep it.
    pub order: Plan,
    /// With which counters events are sealed.
    pub counters: CounterBase,
    /// Transport of each agent.
    pub protocol: Protocol,
    /// Whose agents they are.
    pub dialect: Dialect,
    /// Cipher of what they say by themselves.
    pub method: Method,
    /// Time between keep-alives.
    pub notify_time: Duration,
    /// Time between two tries to connect.
    pub reconnect_time: Duration,
    /// The manager.
    pub target: SocketAddr,
    /// Source addresses on a loopback target.
    pub sources: u32,
    /// Agents of this generator between connect and acknowledgement at a time.
    pub connect_in_flight: u32,
    /// New agents a second of this generator; 0: no limit.
    pub connect_rate: u32,
    /// Cores of the thread.
    pub cores: Vec<usize>,
    /// How many generators there are.
    pub generators: u32,
}

/// What others may know of the generators while they work, and the word to stop. Sums over all generators.
#[derive(Debug, Default)]
pub struct FleetProgress {
    /// Agents that have been acknowledged once.
    pub connected: AtomicU64,
    /// Agents that are acknowledged and not locked, now.
    pub ready: AtomicU64,
    /// Legs that were begun.
    pub legs: AtomicU64,
    /// Generators that have pushed all that the leg gives them.
    pub finished: AtomicU64,
    /// Events that are due, of all legs.
    pub due: AtomicU64,
    /// Events that the kernel took, of all legs.
    pub taken: AtomicU64,
    /// Times an agent was locked: it lost its manager.
    pub locked: AtomicU64,
    /// CPU time of the threads, nanoseconds.
    pub cpu_nanoseconds: AtomicU64,
    /// Set to take nothing more from the plan.
    pub hold: AtomicBool,
    /// Set to end the run.
    pub stop: AtomicBool,
    leg: Mutex<Option<Arc<Leg>>>,
    accounts: Mutex<Vec<Account>>,
}

impl FleetProgress {
    /// The leg that was begun last.
    pub(crate) fn leg(&self) -> MutexGuard<'_, Option<Arc<Leg>>> {
        self.leg.lock().expect("no thread panics with it")
    }

    /// The accounts of the generators that have finished it.
    pub(crate) fn accounts(&self) -> MutexGuard<'_, Vec<Account>> {
        self.accounts.lock().expect("no thread panics with it")
    }
}

/// One generator at work.
struct Generator {
    spec: Arc<FleetSpec>,
    progress: Arc<FleetProgress>,
    players: Vec<Player>,
    links: Links,
    tools: Tools,
    timers: BinaryHeap<Reverse<(Duration, u32)>>,
    number: u32,
    /// The leg, once there is one, and how many there have been.
    leg: Option<LegWalk>,
    legs: u64,
    epoch: Instant,
    now: Duration,
    admitted: u32,
    connected: u32,
    acknowledgements: u64,
    due: u64,
    due_tcp: u64,
    published: Published,
}

/// A generator's walk through one leg.
struct LegWalk {
    leg: Arc<Leg>,
    pacer: Pacer,
    finished: bool,
    /// The sums when it began.
    before: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    due: u64,
    due_tcp: u64,
    taken: u64,
    refused: u64,
}

/// What of the sums was added to the progress already.
#[derive(Default)]
struct Published {
    due: u64,
    taken: u64,
    cpu_nanoseconds: u64,
}

/// Plays one generator's share of the fleet until told to stop.
///
/// # Errors
/// What this host lacks, or what the kernel says to the rings.
pub fn play(spec: &Arc<FleetSpec>, progress: &Arc<FleetProgress>, generator: u32) -> Result<Account, String> {
    crate::cores::pin_this_thread(&spec.cores).map_err(|error| error.to_string())?;
    let mut generator = Generator::new(spec, progress, generator)?;
    while !progress.stop.load(Ordering::Relaxed) {
        generator.take_leg();
        generator.turn().map_err(|error| format!("io_uring: {error}"))?;
        generator.finish_leg();
    }
    generator.finish()
}

impl Generator {
    fn new(spec: &Arc<FleetSpec>, progress: &Arc<FleetProgress>, number: u32) -> Result<Generator, String> {
        let (players, routes) = cast(spec, number);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&mix(u64::from(number)).to_le_bytes());
        Ok(Generator {
            spec: Arc::clone(spec),
            progress: Arc::clone(progress),
            links: Links::new(&routes).map_err(|error| error.to_string())?,
            players,
            tools: Tools::new(seed),
            timers: BinaryHeap::new(),
            number,
            leg: None,
            legs: 0,
            epoch: Instant::now(),
            now: Duration::ZERO,
            admitted: 0,
            connected: 0,
            acknowledgements: 0,
            due: 0,
            due_tcp: 0,
            published: Published::default(),
        })
    }

    fn turn(&mut self) -> Result<(), uring::Errno> {
        self.now = self.epoch.elapsed();
        self.admit();
        self.take_due();
        let starting = self.admitted > self.connected;
        let completions_min = if starting { 16 } else { COMPLETIONS_OF_A_TURN };
        self.links.turn(completions_min, QUANTUM)?;
        self.now = self.epoch.elapsed();
        while let Some((local, event)) = self.links.next_event() {
            self.on_link(local, event);
        }
        self.fire_timers();
        self.publish();
        Ok(())
    }

    /// Takes the next leg, if one was begun.
    fn take_leg(&mut self) {
        let legs = self.progress.legs.load(Ordering::Acquire);
        if legs == self.legs {
            return;
        }
        self.legs = legs;
        let Some(leg) = self.progress.leg().clone() else { return };
        for player in &mut self.players {
            (player.writes_due, player.writes_pushed) = (0, 0);
        }
        let pacer = Pacer::new(&leg.plan, self.number, self.spec.generators);
        self.leg = Some(LegWalk { leg, pacer, finished: false, before: self.sums() });
    }

    /// Hands the account in as soon as everything of the leg is with the kernel.
    fn finish_leg(&mut self) {
        let Some(walk) = &self.leg else { return };
        let hold = self.progress.hold.load(Ordering::Relaxed);
        let plan_is_over = walk.pacer.next_nanoseconds(&walk.leg.plan).is_none();
        let counts = self.links.counts();
        if walk.finished || !(plan_is_over || hold) || counts.taken + counts.refused != self.due {
            return;
        }
        self.publish();
        self.progress.accounts().push(self.account());
        self.progress.finished.fetch_add(1, Ordering::Relaxed);
        if let Some(walk) = &mut self.leg {
            walk.finished = true;
        }
    }

    fn sums(&self) -> Sums {
        let counts = self.links.counts();
        Sums { due: self.due, due_tcp: self.due_tcp, taken: counts.taken, refused: counts.refused }
    }

    /// Of the leg so far.
    fn account(&self) -> Account {
        let (sums, before) = (self.sums(), self.leg.as_ref().map_or_else(Sums::default, |walk| walk.before));
        let lateness = self.leg.as_ref().map(|walk| walk.pacer.lateness().clone());
        Account {
            due: sums.due - before.due,
            due_tcp: sums.due_tcp - before.due_tcp,
            taken: sums.taken - before.taken,
            refused: sums.refused - before.refused,
            lateness: lateness.unwrap_or_else(nanoseconds_histogram),
            acknowledgements: self.acknowledgements,
        }
    }

    fn finish(mut self) -> Result<Account, String> {
        self.publish();
        let account = self.account();
        let ended = self.links.finish();
        ended.map_err(|error| format!("{} operations did not end", error.in_flight))?;
        Ok(account)
    }

    /// Lets agents start: so many at a time, so many a second.
    fn admit(&mut self) {
        let agents = self.players.len() as u32;
        let allowed = match self.spec.connect_rate {
            0 => agents,
            rate => (self.now.as_secs_f64() * f64::from(rate)) as u32 + 1,
        };
        let in_flight_bound = self.connected + self.spec.connect_in_flight;
        while self.admitted < agents.min(allowed).min(in_flight_bound) {
            let local = self.admitted;
            self.admitted += 1;
            let now = self.now;
            self.input(local, |agent, tools| agent.on_timeout(tools, now));
        }
    }

    /// Takes what is due of the leg from its plan.
    fn take_due(&mut self) {
        let Some(walk) = &mut self.leg else { return };
        let leg = Arc::clone(&walk.leg);
        let running_nanoseconds = leg.clock.nanoseconds();
        if running_nanoseconds == 0 || self.progress.hold.load(Ordering::Relaxed) {
            return;
        }
        let events = u64::from(leg.plan.burst());
        for _ in 0..WRITES_OF_A_TURN {
            let walk = self.leg.as_mut().expect("nothing takes the leg away");
            let Some((number, _)) = walk.pacer.take_due(&leg.plan, running_nanoseconds) else { return };
            let local = leg.plan.position_of(number) / self.spec.generators;
            let player = &mut self.players[local as usize];
            player.writes_due += 1;
            self.due += events;
            self.due_tcp += if player.is_tcp { events } else { 0 };
            self.push_writes_of(&leg, local);
        }
    }

    /// Pushes what is due, as far as agent and link take it now.
    fn push_writes(&mut self, local: u32) {
        let player = &self.players[local as usize];
        if player.writes_pushed < player.writes_due {
            let leg = self.leg.as_ref().map(|walk| Arc::clone(&walk.leg));
            self.push_writes_of(&leg.expect("what is due is a leg's"), local);
        }
    }

    fn push_writes_of(&mut self, leg: &Leg, local: u32) {
        let player = &mut self.players[local as usize];
        while player.writes_pushed < player.writes_due
            && self.links.has_room(local)
            && player.agent.state() == State::Ready
        {
            let number = leg.plan.number_of(player.position, player.writes_pushed);
            let burst = leg.plan.burst();
            player.writes_pushed += 1;
            player.agent.sealed_elsewhere(leg.last_counter(self.spec.counters, number));
            if player.is_tcp {
                self.links.send_events(local, leg.write(number), burst);
            } else {
                for index in 0..burst {
                    self.links.send_events(local, leg.event(number, index), 1);
                }
            }
        }
    }

    fn on_link(&mut self, local: u32, event: LinkEvent) {
        let now = self.now;
        match event {
            LinkEvent::Opened => self.input(local, |agent, tools| agent.on_connected(tools, now)),
            LinkEvent::Closed => self.input(local, |agent, tools| agent.on_closed(tools, now)),
            LinkEvent::Writable => self.push_writes(local),
            LinkEvent::Received(bytes) if self.players[local as usize].is_tcp => {
                self.on_stream(local, &bytes);
            }
            LinkEvent::Received(bytes) => {
                self.input(local, |agent, tools| agent.on_message(tools, now, &bytes));
            }
        }
    }

    fn on_stream(&mut self, local: u32, bytes: &[u8]) {
        let now = self.now;
        let mut frames = Vec::new();
        let cutter = self.links.cutter(local);
        let cut = cutter.cut(bytes, &mut frames);
        let carried = cutter.carried().to_vec();
        for frame in frames {
            let message = match frame {
                FrameAt::Carried => &carried[..],
                FrameAt::Received(range) => &bytes[range],
            };
            self.input(local, |agent, tools| agent.on_message(tools, now, message));
        }
        if cut.is_err() {
            self.links.close(local);
            self.input(local, |agent, tools| agent.on_closed(tools, now));
        }
    }

    fn fire_timers(&mut self) {
        let now = self.now;
        while let Some(Reverse((at, local))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            if self.players[local as usize].timer == Some(at) {
                self.players[local as usize].timer = None;
                self.input(local, |agent, tools| agent.on_timeout(tools, now));
            }
        }
    }

    /// Gives an agent one input, and does all that it says.
    fn input(&mut self, local: u32, give: impl FnOnce(&mut Agent, &mut Tools)) {
        give(&mut self.players[local as usize].agent, &mut self.tools);
        while let Some(output) = self.tools.next_output() {
            match output {
                Output::Acknowledged => self.acknowledgements += 1,
                Output::Connect => self.links.open(local),
                Output::Disconnect => self.links.close(local),
                Output::Locked => {
                    self.progress.locked.fetch_add(1, Ordering::Relaxed);
                }
                Output::Ready => self.on_ready(local),
                // Active responses and shared files are for an agent's other parts, which a load generator has not; and without
                // a spool it offers no acknowledged delivery.
                Output::DeliveryAgreed | Output::DeliveryTaken { .. } | Output::Received(_) => {}
                Output::Transmit(message) => self.transmit(local, message),
            }
        }
        self.note_state(local);
        self.schedule(local);
        self.push_writes(local);
    }

    fn on_ready(&mut self, local: u32) {
        if !std::mem::replace(&mut self.players[local as usize].was_ready, true) {
            self.connected += 1;
            self.progress.connected.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn transmit(&mut self, local: u32, message: Vec<u8>) {
        let bytes = if self.players[local as usize].is_tcp {
            let mut framed = Vec::with_capacity(FRAME_HEADER_BYTES + message.len());
            codec::frame(&message, &mut framed);
            Bytes::from(framed)
        } else {
            Bytes::from(message)
        };
        self.links.send_own(local, bytes);
    }

    fn note_state(&mut self, local: u32) {
        let player = &mut self.players[local as usize];
        let is_ready = player.agent.state() == State::Ready;
        match (std::mem::replace(&mut player.is_ready, is_ready), is_ready) {
            (false, true) => drop(self.progress.ready.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.progress.ready.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
    }

    /// Keeps one entry of the heap at or before the agent's next timeout.
    fn schedule(&mut self, local: u32) {
        let player = &mut self.players[local as usize];
        let next = player.agent.next_timeout();
        if player.timer != next {
            player.timer = next;
            self.timers.extend(next.map(|at| Reverse((at, local))));
        }
    }

    fn publish(&mut self) {
        let now = Published {
            due: self.due,
            taken: self.links.counts().taken,
            cpu_nanoseconds: CpuTime::of_this_thread().as_nanos() as u64,
        };
        let add = |sum: &AtomicU64, now: u64, before: u64| sum.fetch_add(now - before, Ordering::Relaxed);
        add(&self.progress.due, now.due, self.published.due);
        add(&self.progress.taken, now.taken, self.published.taken);
        add(&self.progress.cpu_nanoseconds, now.cpu_nanoseconds, self.published.cpu_nanoseconds);
        self.published = now;
    }
}
