//! One run from beginning to end: seal, start the manager and the reader, connect the fleet, send, count, report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::cli::{Job, ManagerChoice};
use crate::conductor::{Conductor, LOOK, LegTimes};
use crate::cores::Layout;
use crate::crew::Crew;
use crate::fleet::FleetSpec;
use crate::leg::{Leg, Messages};
use crate::lines::Lines;
use crate::managed::Manager;
use crate::members::{self, CounterBase, Member};
use crate::meter::Meter;
use crate::outcome::{Outcome, Sealed};
use crate::plan::{Plan, mix};
use crate::progress::ProgressLine;
use crate::reader::{Reader, ReaderSpec, RunClock};
use crate::report::Report;
use crate::seal_ahead::{Script, SealAheadError, SealedAhead, SealingJob, seal_ahead};

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
        script: Script {
            lines: &lines,
            members: &members,
            method: members::method(job.cipher, job.dialect),
            counters,
        },
        protocol: job.protocol,
        memory_bytes_max: job.seal_memory_bytes,
        threads: thread::available_parallelism().map_or(1, usize::from),
    };
    let (messages, sealed) = seal(sealing_job, interrupted)?;

    let clock = RunClock::default();
    let (mut manager, source) = Manager::prepare(job, &layout, &members)?;
    let reader_spec = ReaderSpec {
        lines,
        plan: Arc::new(plan.clone()),
        protocol: job.protocol,
        names: Arc::new(members::names(&members)),
        clock: clock.clone(),
        cores: layout.loadgen.clone(),
    };
    let reader = Reader::start(source, reader_spec).map_err(|error| format!("the reader: {error}"))?;
    // From here on nothing of ours runs on the manager's core.
    crate::cores::pin_this_thread(&layout.loadgen).map_err(|error| error.to_string())?;
    manager.start()?;
    let meter = Meter::new(manager.pid(), manager.address());
    let crew = Crew::start(fleet_spec(job, &layout, Arc::new(members), plan.clone(), counters, &manager))?;
    let leg = Leg { plan, messages: Messages::Planned(messages), clock };
    let conductor = Conductor { interrupted, crew, manager, meter };
    conduct(job, &layout, conductor, reader, leg, sealed)
}

/// What every generator of a job has in common, once its manager listens.
pub fn fleet_spec(
    job: &Job,
    layout: &Layout,
    members: Arc<Vec<Member>>,
    order: Plan,
    counters: CounterBase,
    manager: &Manager,
) -> FleetSpec {
    FleetSpec {
        members,
        order,
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
    }
}

fn conduct(
    job: &Job,
    layout: &Layout,
    mut conductor: Conductor<'_>,
    reader: Reader,
    leg: Leg,
    sealed: Sealed,
) -> Result<Report, String> {
    let connect_seconds = conductor.connect(&reader, job.agents, job.connect_timeout)?;
    let connected = conductor.crew.progress().connected.load(Ordering::Relaxed);
    let overtime = job.duration.saturating_mul(OVERTIME) + job.drain;
    let times = LegTimes { duration: job.duration, drain: job.drain, overtime };
    let seen = conductor.play(&reader, leg, times)?;
    let Conductor { crew, mut manager, mut meter, interrupted } = conductor;
    let losses = manager.losses();
    let locked = crew.progress().locked.load(Ordering::Relaxed);
    // While the fleet is there and quiet: lines that go while the table is read would hide others.
    meter.sample_drops();
    let crew = crew.finish()?;
    let exit = manager.stop();
    let (tally, _) = reader.finish().map_err(|error| format!("the reader: {error}"))?;
    if let Some(exit) = exit {
        eprintln!("manager: {exit}");
    }
    let outcome = Outcome {
        sealed,
        connected,
        connect_seconds,
        locked,
        crew,
        tally,
        losses,
        meter,
        elapsed: seen.elapsed,
        busy: seen.busy,
        loadgen_cores: layout.loadgen.len(),
        manager_address: manager.describe(),
        interrupted: interrupted.load(Ordering::Relaxed),
    };
    Ok(outcome.report(job))
}

/// The fleet of a job: made up for the embedded manager, from the keys of any other.
///
/// # Errors
/// If the keys can't be read, or are too few.
pub fn members_of(job: &Job) -> Result<Vec<Member>, String> {
    match &job.manager {
        ManagerChoice::Embedded { .. } => Ok(members::made_up(job.agents, job.seed)),
        ManagerChoice::Target { keys, .. } => members::from_file(keys, job.agents),
    }
}

fn seal(sealing_job: SealingJob<'_>, interrupted: &AtomicBool) -> Result<(SealedAhead, Sealed), String> {
    let (events, begun) = (sealing_job.plan.events(), Instant::now());
    let sealed = with_progress(events, |done| seal_ahead(sealing_job, done, interrupted))?;
    let sealing = Sealed {
        seconds: begun.elapsed().as_secs_f64(),
        bytes_per_event: sealed.wire_bytes() as f64 / events as f64,
    };
    Ok((sealed, sealing))
}

/// Seals so many events, with a line of progress.
///
/// # Errors
/// As the work does.
///
/// # Panics
/// If the work does.
pub fn with_progress<R: Send>(
    events: u64,
    work: impl FnOnce(&AtomicU64) -> Result<R, SealAheadError> + Send,
) -> Result<R, String> {
    let done = AtomicU64::new(0);
    let mut line = ProgressLine::start();
    let sealed = thread::scope(|scope| {
        let sealing = scope.spawn(|| work(&done));
        while !sealing.is_finished() {
            line.say(|| format!("sealing ahead: {} of {events} events", done.load(Ordering::Relaxed)));
            thread::sleep(LOOK);
        }
        sealing.join().expect("a sealing thread that panics has ended the program already: panic = abort")
    });
    line.finish();
    sealed.map_err(|error| error.to_string())
}
