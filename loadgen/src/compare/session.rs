//! A session: one fresh manager and one fleet connected to it over one protocol, which plays trial after trial.
//!
//! The manager and its fleet stay for as long as the stock of sealed messages lasts; then both begin again, and a fresh
//! embedded manager takes the same messages once more, as it knows no counter yet. Another's manager does know them, so
//! for it everything is sealed again with later counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cli::{Job, ManagerChoice, Protocol};
use crate::compare::cli::CompareJob;
use crate::compare::trial::{Offer, Trial, TrialEvidence};
use crate::conductor::{Conductor, LegTimes};
use crate::cores::Layout;
use crate::crew::Crew;
use crate::leg::{Leg, Messages};
use crate::lines::Lines;
use crate::managed::{Manager, ManagerLosses};
use crate::members::{self, CounterBase, Member};
use crate::meter::Meter;
use crate::plan::{Plan, mix};
use crate::reader::{Reader, ReaderSpec, RunClock, Source};
use crate::run::{fleet_spec, members_of, with_progress};
use crate::seal_ahead::Script;
use crate::stock::Stock;

/// A trial in which nothing arrives for so long is over.
const DRAIN: Duration = Duration::from_millis(300);
/// A trial that is behind gets this many times its duration to catch up, and is ended then.
const OVERTIME: u32 = 1;
/// An agent that is silent in a session for so many keep-alives would run into the counters of its events.
const KEEP_ALIVES_MAX: u32 = 10;

/// What all sessions of a comparison have in common.
#[derive(Debug)]
pub struct Stage<'a> {
    /// What was asked.
    pub asked: &'a CompareJob,
    /// Which cores are whose.
    pub layout: Layout,
    interrupted: &'a AtomicBool,
    members: Arc<Vec<Member>>,
    names: Arc<Vec<Box<str>>>,
    lines: Lines,
    stock: Arc<Stock>,
    counters: CounterBase,
    /// Base of the counters, seconds; grows with each sealing.
    counter_seconds: u64,
    /// Whether the stock was used by a session before.
    stock_is_used: bool,
    /// Another's queue socket, between two sessions.
    target_source: Option<Source>,
    /// Seconds spent on sealing so far.
    pub sealing_seconds: f64,
}

/// A manager and its fleet at work.
#[derive(Debug)]
pub struct Session<'a> {
    conductor: Conductor<'a>,
    source: Option<Source>,
    protocol: Protocol,
    /// Messages of each agent that were used.
    used: Vec<u32>,
    /// Position at which the next leg begins.
    start: u32,
    opened: Instant,
    locked: u64,
    losses: ManagerLosses,
    /// Set when the fleet is not whole and quiet any more.
    spent: bool,
}

impl<'a> Stage<'a> {
    /// Makes the fleet and seals its stock on all cores.
    ///
    /// # Errors
    /// If the host lacks something, the stock does not fit, or the operator stops it.
    pub fn set(asked: &'a CompareJob, interrupted: &'a AtomicBool) -> Result<Stage<'a>, String> {
        let layout = Layout::choose(&asked.job)?;
        let members = Arc::new(members_of(&asked.job)?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let lines = Lines::new(mix(now.as_nanos() as u64) as u32, asked.job.seed, asked.job.bytes);
        let counters = CounterBase::at(now.as_secs());
        let script = script(&asked.job, &lines, &members, counters);
        let events_each = events_each(asked, script)?;
        let begun = Instant::now();
        let stock = seal(script, events_each, interrupted)?;
        Ok(Stage {
            asked,
            layout,
            interrupted,
            names: Arc::new(members::names(&members)),
            members,
            lines,
            stock,
            counters,
            counter_seconds: now.as_secs(),
            stock_is_used: false,
            target_source: None,
            sealing_seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// Mean bytes of a message on the wire, its length included.
    pub fn bytes_per_event(&self) -> f64 {
        let events = u64::from(self.stock.events_each()) * u64::from(self.asked.job.agents);
        self.stock.wire_bytes() as f64 / events as f64
    }

    /// The highest rate that a fresh session has messages for.
    pub fn rate_bound(&self, segment: u32) -> f64 {
        let whole = self.stock.events_each() / segment * segment;
        let events = u64::from(whole) * u64::from(self.asked.job.agents);
        (events as f64 / self.asked.job.duration.as_secs_f64()).min(self.asked.rate_max)
    }

    /// Starts a manager and connects the fleet to it.
    ///
    /// # Errors
    /// What is in the way.
    pub fn open(&mut self, is_tcp: bool) -> Result<Session<'a>, String> {
        let job =
            Job { protocol: if is_tcp { Protocol::Tcp } else { Protocol::Udp }, ..self.asked.job.clone() };
        let (mut manager, source) = self.manager(&job)?;
        let order = Plan::new(job.agents, 1.0, Duration::from_millis(1), 1, job.seed);
        // Until the first leg nothing is planned of what arrives.
        let spec = self.reader_spec(&order, job.protocol, RunClock::default());
        let reader = Reader::start(source, spec).map_err(|error| format!("the reader: {error}"))?;
        // From here on nothing of ours runs on the manager's core.
        crate::cores::pin_this_thread(&self.layout.loadgen).map_err(|error| error.to_string())?;
        manager.start()?;
        let meter = Meter::new(manager.pid(), manager.address());
        let members = Arc::clone(&self.members);
        let spec = fleet_spec(&job, &self.layout, members, order, self.counters, &manager);
        let crew = Crew::start(spec)?;
        let mut conductor = Conductor { interrupted: self.interrupted, crew, manager, meter };
        conductor.connect(&reader, job.agents, job.connect_timeout)?;
        let (_, source) = reader.finish().map_err(|error| format!("the reader: {error}"))?;
        self.stock_is_used = true;
        Ok(Session {
            conductor,
            source: Some(source),
            protocol: job.protocol,
            used: vec![0; job.agents as usize],
            start: 0,
            opened: Instant::now(),
            locked: 0,
            losses: ManagerLosses::default(),
            spent: false,
        })
    }

    /// Ends a session; another's queue socket is kept for the next one.
    pub fn close(&mut self, session: Session<'a>) {
        match self.asked.job.manager {
            ManagerChoice::Embedded { .. } => {}
            ManagerChoice::Target { .. } => self.target_source = session.source,
        }
    }

    fn manager(&mut self, job: &Job) -> Result<(Manager, Source), String> {
        match &job.manager {
            ManagerChoice::Embedded { .. } => Manager::prepare(job, &self.layout, &self.members),
            ManagerChoice::Target { address, pid, .. } => {
                if self.stock_is_used {
                    self.seal_again()?;
                }
                match self.target_source.take() {
                    Some(source) => Ok((Manager::Target { address: *address, pid: *pid }, source)),
                    None => Manager::prepare(job, &self.layout, &self.members),
                }
            }
        }
    }

    /// With counters that no session before has come to.
    fn seal_again(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.counter_seconds = now.max(self.counter_seconds + 1);
        self.counters = CounterBase::at(self.counter_seconds);
        let script = script(&self.asked.job, &self.lines, &self.members, self.counters);
        self.stock = seal(script, self.stock.events_each(), self.interrupted)?;
        self.sealing_seconds += begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn reader_spec(&self, plan: &Plan, protocol: Protocol, clock: RunClock) -> ReaderSpec {
        ReaderSpec {
            lines: self.lines.clone(),
            plan: Arc::new(plan.clone()),
            protocol,
            names: Arc::clone(&self.names),
            clock,
            cores: self.layout.loadgen.clone(),
        }
    }
}

impl<'a> Session<'a> {
    /// Whether it is fit for a trial: whole, young, and with messages left.
    pub fn is_fit(&self, stage: &Stage<'_>, offer: Offer) -> bool {
        let is_young = self.opened.elapsed() < stage.asked.job.notify_time * KEEP_ALIVES_MAX;
        let is_right = self.protocol.is_tcp(0) == offer.is_tcp;
        let plan = self.plan(stage, offer);
        let has_messages = (0..plan.agents()).all(|agent| {
            plan.first_of(agent) + plan.events_of(agent) <= u64::from(stage.stock.events_each())
        });
        is_right && is_young && has_messages && !self.spent
    }

    /// Offers events, and says what became of them.
    ///
    /// # Errors
    /// If something ended that must not.
    ///
    /// # Panics
    /// If the session is not fit for it.
    pub fn play(&mut self, stage: &Stage<'a>, offer: Offer) -> Result<Trial, String> {
        let plan = self.plan(stage, offer);
        let clock = RunClock::default();
        let spec = stage.reader_spec(&plan, self.protocol, clock.clone());
        let source = self.source.take().expect("a session has its source between two trials");
        source.empty().map_err(|error| format!("the archive can't be emptied: {error}"))?;
        let reader = Reader::start(source, spec).map_err(|error| format!("the reader: {error}"))?;
        let leg = Leg { plan: plan.clone(), messages: Messages::Stocked(Arc::clone(&stage.stock)), clock };
        let duration = stage.asked.job.duration;
        let slot = Duration::from_secs_f64(f64::from(offer.segment) / offer.rate);
        let drain = DRAIN.max(duration / 10).max(slot * 2);
        let times = LegTimes { duration, drain, overtime: drain + duration * OVERTIME };
        let due_before = self.conductor.crew.progress().due.load(Ordering::Relaxed);
        let seen = self.conductor.play(&reader, leg, times)?;
        let (tally, source) = reader.finish().map_err(|error| format!("the reader: {error}"))?;
        self.source = Some(source);
        self.advance(&plan);
        let due = self.conductor.crew.progress().due.load(Ordering::Relaxed) - due_before;
        let account = self.conductor.crew.account();
        let is_whole = tally.counts().delivered == due;
        let (kernel_drops, losses) = if is_whole { (0, ManagerLosses::default()) } else { self.losses() };
        self.note_state(account.is_some() && (is_whole || !offer.is_tcp));
        Ok(Trial::of(&TrialEvidence {
            offer,
            seconds_planned: duration.as_secs_f64(),
            due,
            account,
            tally,
            cpu: self.conductor.meter.cpu_time(),
            busy_seconds_per_core: seen.busy.as_secs_f64() / stage.layout.loadgen.len() as f64,
            kernel_drops,
            losses,
        }))
    }

    fn plan(&self, stage: &Stage<'_>, offer: Offer) -> Plan {
        let job = &stage.asked.job;
        Plan::new(job.agents, offer.rate, job.duration, offer.segment, job.seed)
            .going_on(self.start, self.used.as_slice().into())
    }

    fn advance(&mut self, plan: &Plan) {
        for (agent, used) in (0..).zip(&mut self.used) {
            *used += plan.events_of(agent) as u32;
        }
        self.start = plan.position_of(plan.writes());
    }

    /// What was dropped at the sockets and by the manager since the last time.
    fn losses(&mut self) -> (u64, ManagerLosses) {
        if !self.protocol.is_tcp(0) {
            self.conductor.meter.sample_drops();
        }
        let now = self.conductor.manager.losses().unwrap_or_default();
        let before = std::mem::replace(&mut self.losses, now.clone());
        let since = |(reason, count): (&String, &u64)| {
            let count = count - before.dropped.get(reason).unwrap_or(&0);
            (count > 0).then(|| (reason.clone(), count))
        };
        let losses = ManagerLosses {
            dropped: now.dropped.iter().filter_map(since).collect(),
            queue_failed: now.queue_failed.saturating_sub(before.queue_failed),
        };
        (self.conductor.meter.udp_drops(), losses)
    }

    fn note_state(&mut self, is_quiet: bool) {
        let locked = self.conductor.crew.progress().locked.load(Ordering::Relaxed);
        self.spent = !is_quiet || locked != self.locked;
        self.locked = locked;
    }
}

fn script<'s>(job: &Job, lines: &'s Lines, members: &'s [Member], counters: CounterBase) -> Script<'s> {
    Script { lines, members, method: members::method(job.cipher, job.dialect), counters }
}

fn seal(script: Script<'_>, events_each: u32, interrupted: &AtomicBool) -> Result<Arc<Stock>, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let events = script.members.len() as u64 * u64::from(events_each);
    let stock = with_progress(events, |done| Stock::seal(script, events_each, threads, done, interrupted))?;
    Ok(Arc::new(stock))
}

/// Messages of each agent: for one trial at the highest rate, in whole segments, as far as the memory goes.
fn events_each(asked: &CompareJob, script: Script<'_>) -> Result<u32, String> {
    let (job, agents) = (&asked.job, u64::from(asked.job.agents));
    let largest = u64::from(asked.segments.iter().copied().max().unwrap_or(1));
    let wanted = (asked.rate_max * job.duration.as_secs_f64() / agents as f64).ceil() as u64;
    let wanted = wanted.div_ceil(largest).max(1) * largest;
    let event_bytes = Stock::bytes_per_event(script).map_err(|error| error.to_string())?;
    let fit = job.seal_memory_bytes / (event_bytes * agents);
    if fit < largest {
        return Err(format!(
            "{largest} sealed messages of each agent take {} MiB, --seal-memory-mib allows {}: raise it, or lower --agents or --segments",
            (largest * event_bytes * agents).div_ceil(1 << 20),
            job.seal_memory_bytes >> 20
        ));
    }
    Ok(wanted.min(fit / largest * largest) as u32)
}
