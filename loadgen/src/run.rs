//! One run from beginning to end: seal, start the manager and the reader, connect the fleet, send, count, report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cli::{Job, ManagerChoice};
use crate::cores::Layout;
use crate::crew::Crew;
use crate::fleet::{FleetProgress, FleetSpec};
use crate::lines::Lines;
use crate::managed::Manager;
use crate::members::{self, CounterBase, Member};
use crate::meter::Meter;
use crate::outcome::{Outcome, Sealing};
use crate::plan::{Plan, mix};
use crate::progress::ProgressLine;
use crate::reader::{Reader, ReaderSpec, RunClock};
use crate::report::Report;
use crate::seal_ahead::{SealedAhead, SealingJob, seal_ahead};

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(20);
/// Between the decision to start and the first event, so that every thread sees it.
const RUN_UP: Duration = Duration::from_millis(20);
/// A run that is slower than planned may take this many times its duration before it is ended.
const OVERTIME: u32 = 10;

/// Does a whole run; `interrupted` ends it early, with a report if events have been sent.
///
/// # Errors
/// What kept it from being done, with the cure.
pub fn run(job: &Job, interrupted: &AtomicBool) -> Result<Report, String> {
    let layout = Layout::choose(job)?;
    let members = members_of(job)?;
    let plan = Plan::new(job.agents, job.rate, job.duration, job.burst, job.seed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let lines = Lines::new(mix(now.as_nanos() as u64) as u32, job.seed, job.bytes);
    let counters = CounterBase::at(now.as_secs());
    let sealing_job = SealingJob {
        plan: &plan,
        lines: &lines,
        members: &members,
        method: members::method(job.cipher, job.dialect),
        protocol: job.protocol,
        counters,
        memory_bytes_max: job.seal_memory_bytes,
        threads: thread::available_parallelism().map_or(1, usize::from),
    };
    let (sealed, sealing) = seal(sealing_job, interrupted)?;

    let clock = RunClock::default();
    let names = members.iter().map(|member| member.entry.name.clone()).collect();
    let (mut manager, source) = Manager::prepare(job, &layout, &members)?;
    let reader_spec = ReaderSpec {
        lines,
        plan: Arc::new(plan.clone()),
        protocol: job.protocol,
        names: Arc::new(names),
        clock: clock.clone(),
        cores: layout.loadgen.clone(),
    };
    let reader = Reader::start(source, reader_spec).map_err(|error| format!("the reader: {error}"))?;
    // From here on nothing of ours runs on the manager's core.
    crate::cores::pin_this_thread(&layout.loadgen).map_err(|error| error.to_string())?;
    manager.start()?;
    let meter = Meter::new(manager.pid(), manager.address());
    let spec = FleetSpec {
        members,
        plan,
        sealed,
        counters,
        protocol: job.protocol,
        dialect: job.dialect,
        method: members::method(job.cipher, job.dialect),
        notify_time: job.notify_time,
        reconnect_time: job.reconnect_time,
        target: manager.address(),
        sources: job.sources,
        connect_in_flight: (job.connect_in_flight / layout.generators()).max(1),
        connect_rate: job.connect_rate.div_ceil(layout.generators()),
        cores: layout.loadgen.clone(),
        generators: layout.generators(),
        clock: clock.clone(),
    };
    let crew = Crew::start(spec)?;
    let conductor = Conductor { job, interrupted, clock, reader, crew, manager, meter };
    conductor.conduct(&layout, sealing)
}

fn members_of(job: &Job) -> Result<Vec<Member>, String> {
    match &job.manager {
        ManagerChoice::Embedded { .. } => Ok(members::made_up(job.agents, job.seed)),
        ManagerChoice::Target { keys, .. } => members::from_file(keys, job.agents),
    }
}

/// Seals everything, with a line of progress.
fn seal(sealing_job: SealingJob<'_>, interrupted: &AtomicBool) -> Result<(SealedAhead, Sealing), String> {
    let (events, begun) = (sealing_job.plan.events(), Instant::now());
    let done = AtomicU64::new(0);
    let mut line = ProgressLine::start();
    let sealed = thread::scope(|scope| {
        let sealing = scope.spawn(|| seal_ahead(sealing_job, &done, interrupted));
        while !sealing.is_finished() {
            line.say(|| format!("sealing ahead: {} of {events} events", done.load(Ordering::Relaxed)));
            thread::sleep(LOOK);
        }
        sealing.join().expect("a sealing thread that panics has ended the program already: panic = abort")
    });
    line.finish();
    let sealed = sealed.map_err(|error| error.to_string())?;
    let sealing = Sealing {
        seconds: begun.elapsed().as_secs_f64(),
        bytes_per_event: sealed.wire_bytes() as f64 / events as f64,
    };
    Ok((sealed, sealing))
}

/// Everything that works during a run.
struct Conductor<'a> {
    job: &'a Job,
    interrupted: &'a AtomicBool,
    clock: RunClock,
    reader: Reader,
    crew: Crew,
    manager: Manager,
    meter: Meter,
}

/// What is watched while events are sent.
struct Watch {
    started: Instant,
    delivered: u64,
    /// When the last event was seen to arrive.
    moved: Instant,
    /// CPU time of loadgen's threads at the start.
    busy_first: Duration,
    busy_last: Duration,
}

impl Conductor<'_> {
    fn conduct(mut self, layout: &Layout, sealing: Sealing) -> Result<Report, String> {
        let connect_seconds = self.connect()?;
        let connected = self.crew.progress().connected.load(Ordering::Relaxed);
        let mut watch = self.send()?;
        self.settle(&mut watch)?;
        let elapsed = watch.started.elapsed();
        let losses = self.manager.losses();
        let locked = self.crew.progress().locked.load(Ordering::Relaxed);
        // While the fleet is there and quiet: lines that go while the table is read would hide others.
        self.meter.sample_drops();
        let crew = self.crew.finish()?;
        let exit = self.manager.stop();
        let tally = self.reader.finish().map_err(|error| format!("the reader: {error}"))?;
        if let Some(exit) = exit {
            eprintln!("manager: {exit}");
        }
        let outcome = Outcome {
            sealing,
            connected,
            connect_seconds,
            locked,
            crew,
            tally,
            losses,
            meter: self.meter,
            elapsed,
            busy: watch.busy_last.saturating_sub(watch.busy_first),
            loadgen_cores: layout.loadgen.len(),
            manager_address: self.manager.describe(),
            interrupted: self.interrupted.load(Ordering::Relaxed),
        };
        Ok(outcome.report(self.job))
    }

    /// Waits until every agent is acknowledged; returns how long that took.
    fn connect(&mut self) -> Result<f64, String> {
        let (begun, agents) = (Instant::now(), u64::from(self.job.agents));
        let mut line = ProgressLine::start();
        loop {
            let connected = self.crew.progress().connected.load(Ordering::Relaxed);
            if connected == agents {
                break;
            }
            self.check_health()?;
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(format!("interrupted when {connected} of {agents} agents were connected"));
            }
            if begun.elapsed() > self.job.connect_timeout {
                return Err(format!(
                    "only {connected} of {agents} agents were acknowledged by {} within {:?}: is it there, and does it have their keys? (--connect-timeout, --connect-in-flight)",
                    self.manager.address(),
                    self.job.connect_timeout
                ));
            }
            line.say(|| format!("connecting: {connected} of {agents} agents"));
            thread::sleep(Duration::from_millis(2));
        }
        line.finish();
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Starts the clock and watches until the plan is over.
    fn send(&mut self) -> Result<Watch, String> {
        self.meter.start();
        let busy_first = self.busy();
        self.clock.start(Instant::now() + RUN_UP);
        let started = Instant::now();
        let mut watch = Watch { started, delivered: 0, moved: started, busy_first, busy_last: busy_first };
        let mut kill_after = self.manager.kill_after();
        let mut line = ProgressLine::start();
        while watch.started.elapsed() < self.job.duration && !self.interrupted.load(Ordering::Relaxed) {
            self.look(&mut watch, &mut line)?;
            if kill_after.is_some_and(|after| watch.started.elapsed() >= after) {
                kill_after = None;
                self.meter.sample();
                self.meter.sample_drops();
                let pid = self.manager.kill_and_restart()?;
                self.meter.follow(pid);
            }
        }
        line.finish();
        if self.interrupted.load(Ordering::Relaxed) {
            self.crew.progress().hold.store(true, Ordering::Relaxed);
        }
        Ok(watch)
    }

    /// Waits for what is still on its way: until all has arrived, or nothing has for a while.
    fn settle(&mut self, watch: &mut Watch) -> Result<(), String> {
        let ended = Instant::now();
        watch.moved = watch.moved.max(ended);
        let overtime = self.job.duration.saturating_mul(OVERTIME) + self.job.drain;
        let mut line = ProgressLine::start();
        while ended.elapsed() < overtime && watch.moved.elapsed() < self.job.drain {
            let due = self.crew.progress().due.load(Ordering::Relaxed);
            if self.crew.is_finished() && watch.delivered >= due {
                break;
            }
            self.look(watch, &mut line)?;
        }
        line.finish();
        Ok(())
    }

    fn look(&mut self, watch: &mut Watch, line: &mut ProgressLine) -> Result<(), String> {
        thread::sleep(LOOK);
        self.check_health()?;
        let delivered = self.reader.delivered();
        if delivered != watch.delivered {
            watch.delivered = delivered;
            watch.moved = Instant::now();
            self.meter.sample();
            watch.busy_last = self.busy();
        }
        let progress = self.crew.progress();
        line.say(|| line_of(progress, delivered, watch.started.elapsed()));
        Ok(())
    }

    fn busy(&self) -> Duration {
        let generators = self.crew.progress().cpu_nanoseconds.load(Ordering::Relaxed);
        self.reader.cpu_time() + Duration::from_nanos(generators)
    }

    fn check_health(&mut self) -> Result<(), String> {
        if self.reader.has_failed() {
            return Err("the reader ended: the manager's queue can't be read any more".into());
        }
        self.crew.check()?;
        self.manager.check()
    }
}

fn line_of(progress: &FleetProgress, delivered: u64, elapsed: Duration) -> String {
    let (due, ready) = (progress.due.load(Ordering::Relaxed), progress.ready.load(Ordering::Relaxed));
    format!(
        "{:.0} s: {due} events sent, {delivered} delivered, {} on their way, {ready} agents ready",
        elapsed.as_secs_f64(),
        due.saturating_sub(delivered)
    )
}
