//! `loadgen compare`: the cost of TCP against UDP, over the events in one segment.
//!
//! ```text
//! seal a stock of messages                                                    // stock
//! turns times: for each protocol: for each segment: CPU at the common rate    // one session a protocol and turn
//! for each segment: for each protocol: search the highest lossless rate       // one session a search, or more
//! turns times: for each protocol: for each segment: latency at half of it
//! ```
//! The pure parts are [`search`], [`crossing`](mod@crossing), [`trial`] (whether one held) and [`comparison`] with its
//! table and page; [`session`] does the work.

pub mod cli;
pub mod comparison;
pub mod crossing;
mod left_out;
pub mod page;
pub(crate) mod plot;
pub mod search;
pub mod session;
mod table;
pub mod trial;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};

use crate::cli::{ManagerChoice, SinkName};
use crate::compare::cli::CompareJob;
use crate::compare::comparison::{Comparison, Highest, LatencyAtHalf, Point, Setting};
use crate::compare::left_out::LeftOut;
use crate::compare::search::{Verdict, highest};
use crate::compare::session::{Session, Stage};
use crate::compare::trial::{Offer, Trial};
use crate::outcome::queue_datagrams_max;

/// A trial takes about this much longer than its duration.
const TRIAL_EXTRA: Duration = Duration::from_millis(500);
/// Each of several searches begins at what the one before found, a little lower.
const GUESS_SHARE: f64 = 0.8;

/// Does the whole comparison; `interrupted` and the budget end it early, with what there is by then.
///
/// # Errors
/// What kept it from being begun, or ended that must not.
pub fn compare(asked: &CompareJob, command: String, interrupted: &AtomicBool) -> Result<Comparison, String> {
    let begun = Instant::now();
    let date = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string();
    let stage = Stage::set(asked, interrupted)?;
    let points = asked
        .segments
        .iter()
        .flat_map(|segment| [true, false].map(|is_tcp| Point::new(is_tcp, *segment)))
        .collect();
    let mut work = Work {
        asked,
        stage,
        session: None,
        points,
        begun,
        interrupted,
        left_out: LeftOut::default(),
        doubts: Vec::new(),
    };
    work.measure_cpu()?;
    work.search()?;
    work.measure_latency()?;
    let mut setting = setting(asked, &work.stage, command, date);
    setting.seconds = begun.elapsed().as_secs_f64();
    Ok(Comparison::of(setting, work.points, work.left_out.lines(), work.doubts))
}

/// A comparison half done.
struct Work<'a> {
    asked: &'a CompareJob,
    stage: Stage<'a>,
    session: Option<Session<'a>>,
    points: Vec<Point>,
    begun: Instant,
    interrupted: &'a AtomicBool,
    left_out: LeftOut,
    doubts: Vec<String>,
}

impl Work<'_> {
    fn measure_cpu(&mut self) -> Result<(), String> {
        let mut trials = vec![Vec::new(); self.points.len()];
        for turn in 0..self.asked.turns {
            for at in self.in_turn(turn) {
                let what = format!("CPU, turn {} of {}", turn + 1, self.asked.turns);
                let trial = self.trial(at, self.asked.rate, &what)?;
                if let Some(trial) = self.noted(at, trial, "CPU") {
                    trials[at].push(trial);
                }
            }
        }
        for (point, trials) in self.points.iter_mut().zip(&trials) {
            point.note_cpu(trials);
        }
        Ok(())
    }

    fn search(&mut self) -> Result<(), String> {
        let mut guesses = [self.asked.rate * 2.0; 2];
        for at in 0..self.points.len() {
            let first_trial = self.points[at].trials.len();
            let bound = self.stage.rate_bound(self.points[at].events_per_segment);
            let mut failure = None;
            let guess = &mut guesses[at % 2];
            let found = highest(*guess, bound, |rate| match self.searched(at, rate) {
                Ok(verdict) => verdict,
                Err(error) => {
                    failure = Some(error);
                    Verdict::NoTime
                }
            });
            if let Some(error) = failure {
                return Err(error);
            }
            *guess = found.rate.map_or(*guess, |rate| rate * GUESS_SHARE);
            if found.trials == 0 {
                self.leave_out(at, "the highest lossless rate");
                continue;
            }
            let point = &mut self.points[at];
            let highest = Highest::of(found, &point.trials[first_trial..]);
            eprintln!("{}: highest lossless rate: {}", point.name(), highest.words());
            point.highest = Some(highest);
        }
        Ok(())
    }

    /// One trial of a search, and a second one if it failed by so little that the host may have been the reason.
    fn searched(&mut self, at: usize, rate: f64) -> Result<Verdict, String> {
        for is_second in [false, true] {
            let Some(trial) = self.trial(at, rate, "search")? else { return Ok(Verdict::NoTime) };
            let (verdict, is_near_miss) = (trial.verdict(), trial.is_near_miss());
            if trial.harmed > 0 {
                self.doubts.extend(trial.doubt().map(|doubt| self.about(at, &doubt)));
            }
            self.points[at].trials.push(trial);
            if is_second || !is_near_miss {
                return Ok(verdict);
            }
        }
        unreachable!("the second trial decides")
    }

    fn measure_latency(&mut self) -> Result<(), String> {
        let mut trials = vec![Vec::new(); self.points.len()];
        for turn in 0..self.asked.turns {
            for at in self.in_turn(turn) {
                let highest = self.points[at].highest.as_ref();
                let Some(rate) = highest.and_then(|highest| highest.rate) else { continue };
                let what = format!("latency at half, turn {} of {}", turn + 1, self.asked.turns);
                let trial = self.trial(at, rate / 2.0, &what)?;
                trials[at].extend(self.noted(at, trial, "latency at half"));
            }
        }
        for (point, trials) in self.points.iter_mut().zip(&trials) {
            point.latency = LatencyAtHalf::of(&trials.iter().collect::<Vec<_>>());
        }
        Ok(())
    }

    /// All points of one protocol and then all of the other, which changes from turn to turn.
    fn in_turn(&self, turn: u32) -> Vec<usize> {
        let of_protocol = |first: usize| (first..self.points.len()).step_by(2);
        let first = (turn % 2) as usize;
        of_protocol(first).chain(of_protocol(1 - first)).collect()
    }

    /// Notes a trial with its point, and what is doubtful about it; `None` if there was none.
    fn noted(&mut self, at: usize, trial: Option<Trial>, what: &str) -> Option<Trial> {
        let Some(trial) = trial else {
            self.leave_out(at, what);
            return None;
        };
        self.doubts.extend(trial.doubt().map(|doubt| self.about(at, &format!("{what}: {doubt}"))));
        self.points[at].trials.push(trial.clone());
        Some(trial)
    }

    fn leave_out(&mut self, at: usize, what: &str) {
        let why = if self.interrupted.load(Ordering::Relaxed) { "interrupted" } else { "no time" };
        self.left_out.note(format!("{what}: {why}"), self.points[at].name());
    }

    fn about(&self, at: usize, words: &str) -> String {
        format!("{}: {words}", self.points[at].name())
    }

    /// Makes a trial in this session, or a fresh one; `None` if there is no time for it.
    fn trial(&mut self, at: usize, rate: f64, what: &str) -> Result<Option<Trial>, String> {
        let needed = self.asked.job.duration + TRIAL_EXTRA;
        if self.begun.elapsed() + needed > self.asked.budget || self.interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let point = &self.points[at];
        let offer = Offer { is_tcp: point.protocol == "tcp", segment: point.events_per_segment, rate };
        let mut session = match self.session.take() {
            Some(session) if session.is_fit(&self.stage, offer) => session,
            other => {
                if let Some(spent) = other {
                    self.stage.close(spent);
                }
                match self.stage.open(offer.is_tcp) {
                    // It says how far the fleet was, which nobody needs to know who stops it.
                    Err(_) if self.interrupted.load(Ordering::Relaxed) => return Ok(None),
                    opened => opened?,
                }
            }
        };
        let trial = session.play(&self.stage, offer)?;
        self.session = Some(session);
        if self.interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        eprintln!("{} ({what}): {rate:.0}/s: {}", point.name(), words(&trial));
        Ok(Some(trial))
    }
}

fn words(trial: &Trial) -> String {
    let cpu = trial.cpu().map_or(String::new(), |cpu| format!("{:.2} us an event, ", cpu / 1e3));
    let doubt = trial.doubt().map_or(String::new(), |doubt| format!("; {doubt}"));
    let latency = trial.latency_ns;
    format!(
        "{cpu}p50 {:.0} us, p99 {:.0} us, loadgen {:.0}% busy{doubt}",
        latency.p50 as f64 / 1e3,
        latency.p99 as f64 / 1e3,
        trial.loadgen_busy_share * 100.0
    )
}

fn setting(asked: &CompareJob, stage: &Stage<'_>, command: String, date: String) -> Setting {
    let job = &asked.job;
    let (manager, sink) = match &job.manager {
        ManagerChoice::Embedded { sink, .. } => ("embedded".into(), *sink),
        ManagerChoice::Target { address, .. } => (address.to_string(), SinkName::Queue),
    };
    Setting {
        command,
        date,
        machine: machine(),
        manager,
        sink: sink.name().into(),
        agents: job.agents,
        cipher: job.cipher.name(),
        dialect: job.dialect.name(),
        event_bytes: job.bytes,
        sealed_bytes_per_event: stage.bytes_per_event(),
        rate: asked.rate,
        rate_max: asked.rate_max,
        turns: asked.turns,
        seconds_each: job.duration.as_secs_f64(),
        seed: job.seed,
        manager_cores: stage.layout.manager.clone(),
        loadgen_cores: stage.layout.loadgen.clone(),
        queue_datagrams_max: queue_datagrams_max(),
        sealing_seconds: stage.sealing_seconds,
        seconds: 0.0,
    }
}

/// Processor, cores and kernel, as far as /proc says.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let name = name.map_or("unknown processor", |(_, name)| name.trim());
    format!("{name}, {processors} cores, Linux {}", kernel.trim())
}
