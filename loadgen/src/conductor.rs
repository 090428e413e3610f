//! The conductor: connects a fleet to its manager, and sees each leg from its first event to its last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::crew::Crew;
use crate::fleet::FleetProgress;
use crate::leg::Leg;
use crate::managed::Manager;
use crate::meter::Meter;
use crate::proc::cpu_time;
use crate::progress::ProgressLine;
use crate::reader::Reader;

/// How often the conductor looks.
pub const LOOK: Duration = Duration::from_millis(20);
/// Between the decision to start and the first event, so that every thread sees it.
const RUN_UP: Duration = Duration::from_millis(20);
/// A smaller fleet's files are no matter.
const AGENTS_TO_REST_FROM: u64 = 1_000;
/// A manager rests if it spends less than a tenth of the time between two looks; it may begin its work a second late.
const REST_LOOK: Duration = Duration::from_millis(100);
const REST_MIN: Duration = Duration::from_millis(1_500);
const REST_MAX: Duration = Duration::from_secs(10);

/// Everything that works while a fleet is connected, but the reader, which a leg may have of its own.
#[derive(Debug)]
pub struct Conductor<'a> {
    /// Set by the operator to end early.
    pub interrupted: &'a AtomicBool,
    /// Who sends.
    pub crew: Crew,
    /// Who receives.
    pub manager: Manager,
    /// What the kernel says of who receives.
    pub meter: Meter,
}

/// How long a leg may take.
#[derive(Debug, Clone, Copy)]
pub struct LegTimes {
    /// What its plan covers.
    pub duration: Duration,
    /// Longest wait for a missing event after the last one.
    pub drain: Duration,
    /// Longest time after `duration` at all.
    pub overtime: Duration,
}

/// What was seen of a leg.
#[derive(Debug)]
pub struct Seen {
    /// From its start to the end of waiting.
    pub elapsed: Duration,
    /// CPU time of loadgen's threads from the start to the last event.
    pub busy: Duration,
}

/// What is watched while events are sent.
struct Watch {
    started: Instant,
    /// Events of earlier legs.
    due_before: u64,
    delivered: u64,
    /// When the last event was seen to arrive.
    moved: Instant,
    /// CPU time of loadgen's threads at the start.
    busy_first: Duration,
    busy_last: Duration,
}

impl Conductor<'_> {
    /// Waits until every agent is acknowledged; returns how many seconds that took.
    ///
    /// # Errors
    /// If not all are within `timeout`, or something ended.
    pub fn connect(&mut self, reader: &Reader, agents: u32, timeout: Duration) -> Result<f64, String> {
        let (begun, agents) = (Instant::now(), u64::from(agents));
        let mut line = ProgressLine::start();
        loop {
            let connected = self.crew.progress().connected.load(Ordering::Relaxed);
            if connected == agents {
                break;
            }
            self.check_health(reader)?;
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(format!("interrupted when {connected} of {agents} agents were connected"));
            }
            if begun.elapsed() > timeout {
                return Err(format!(
                    "only {connected} of {agents} agents were acknowledged by {} within {timeout:?}: is it there, and does it have their keys? (--connect-timeout, --connect-in-flight)",
                    self.manager.address(),
                ));
            }
            line.say(|| format!("connecting: {connected} of {agents} agents"));
            thread::sleep(Duration::from_millis(2));
        }
        line.finish();
        let seconds = begun.elapsed().as_secs_f64();
        if agents >= AGENTS_TO_REST_FROM {
            self.let_manager_rest(reader)?;
        }
        Ok(seconds)
    }

    /// A manager that has just met a fleet writes a file for each of its agents, if they are OSSEC's. Waits until it has,
    /// so that the events do not pay for it.
    fn let_manager_rest(&mut self, reader: &Reader) -> Result<(), String> {
        let Some(pid) = self.manager.pid() else { return Ok(()) };
        let begun = Instant::now();
        let mut before = cpu_time(pid).unwrap_or_default();
        while begun.elapsed() < REST_MAX && !self.interrupted.load(Ordering::Relaxed) {
            thread::sleep(REST_LOOK);
            self.check_health(reader)?;
            let now = cpu_time(pid).unwrap_or_default();
            let spent = now.since(before);
            let spent = Duration::from_nanos(spent.user_nanoseconds + spent.system_nanoseconds);
            if begun.elapsed() >= REST_MIN && spent <= REST_LOOK / 10 {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Plays a leg: until all has arrived, or nothing has for a while.
    ///
    /// # Errors
    /// If something ended that must not.
    pub fn play(&mut self, reader: &Reader, leg: Leg, times: LegTimes) -> Result<Seen, String> {
        let clock = leg.clock.clone();
        let due_before = self.crew.progress().due.load(Ordering::Relaxed);
        self.crew.begin(leg);
        self.meter.start();
        let busy = self.busy(reader);
        clock.start(Instant::now() + RUN_UP);
        let started = Instant::now();
        let mut watch =
            Watch { started, due_before, delivered: 0, moved: started, busy_first: busy, busy_last: busy };
        self.send(reader, &mut watch, times.duration)?;
        self.settle(reader, &mut watch, times)?;
        Ok(Seen { elapsed: watch.started.elapsed(), busy: watch.busy_last.saturating_sub(watch.busy_first) })
    }

    /// Watches until the plan is over.
    fn send(&mut self, reader: &Reader, watch: &mut Watch, duration: Duration) -> Result<(), String> {
        let mut kill_after = self.manager.kill_after();
        let mut line = ProgressLine::start();
        while watch.started.elapsed() < duration && !self.interrupted.load(Ordering::Relaxed) {
            self.look(reader, watch, &mut line)?;
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
        Ok(())
    }

    /// Waits for what is still on its way.
    fn settle(&mut self, reader: &Reader, watch: &mut Watch, times: LegTimes) -> Result<(), String> {
        let ended = Instant::now();
        watch.moved = watch.moved.max(ended);
        let mut line = ProgressLine::start();
        while ended.elapsed() < times.overtime && watch.moved.elapsed() < times.drain {
            let due = self.crew.progress().due.load(Ordering::Relaxed) - watch.due_before;
            if self.crew.is_finished() && watch.delivered >= due {
                break;
            }
            self.look(reader, watch, &mut line)?;
        }
        line.finish();
        Ok(())
    }

    fn look(&mut self, reader: &Reader, watch: &mut Watch, line: &mut ProgressLine) -> Result<(), String> {
        thread::sleep(LOOK);
        self.check_health(reader)?;
        let delivered = reader.delivered();
        if delivered != watch.delivered {
            watch.delivered = delivered;
            watch.moved = Instant::now();
            self.meter.sample();
            watch.busy_last = self.busy(reader);
        }
        let progress = self.crew.progress();
        line.say(|| line_of(progress, watch));
        Ok(())
    }

    fn busy(&self, reader: &Reader) -> Duration {
        let generators = self.crew.progress().cpu_nanoseconds.load(Ordering::Relaxed);
        reader.cpu_time() + Duration::from_nanos(generators)
    }

    fn check_health(&mut self, reader: &Reader) -> Result<(), String> {
        if reader.has_failed() {
            return Err("the reader ended: the manager's queue can't be read any more".into());
        }
        self.crew.check()?;
        self.manager.check()
    }
}

fn line_of(progress: &FleetProgress, watch: &Watch) -> String {
    let (due, ready) = (progress.due.load(Ordering::Relaxed), progress.ready.load(Ordering::Relaxed));
    let due = due - watch.due_before;
    format!(
        "{:.0} s: {due} events sent, {} delivered, {} on their way, {ready} agents ready",
        watch.started.elapsed().as_secs_f64(),
        watch.delivered,
        due.saturating_sub(watch.delivered)
    )
}
