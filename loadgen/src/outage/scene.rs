//! One path with one cut.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::outage::account::Became;
use crate::outage::cli::OutageJob;
use crate::outage::stage::Stage;
use crate::outage::{Cut, Path, seconds};

/// What an agent may still need after its time-reconnect, in its own time: waits between two tries, and an answer.
const SETTLE: Duration = Duration::from_secs(180);
/// Nothing comes any more if nothing has come for so long, in the agents' time, and for so long on the wall's clock.
const QUIET: Duration = Duration::from_secs(60);
const QUIET_MIN: Duration = Duration::from_secs(5);
/// The broker's client may wait for half a minute of the wall's clock before it tries its server again, whatever the agents' clock does.
const QUIET_WITH_BROKER: Duration = Duration::from_secs(35);

/// What became of one path with one cut.
#[derive(Debug, Clone, Serialize)]
pub struct Scene {
    /// How events travelled.
    pub path: Path,
    /// What was away.
    pub cut: Cut,
    /// When the outage began, and when it ended, in the agents' seconds.
    pub outage: [f64; 2],
    /// What became of all events.
    #[serde(flatten)]
    pub became: Became,
}

/// Plays it. `None` if it was interrupted.
///
/// # Errors
/// What does not run.
pub(super) fn play(
    asked: &OutageJob,
    path: Path,
    cut: Cut,
    interrupted: &AtomicBool,
) -> Result<Option<Scene>, String> {
    let times = asked.times;
    let mut stage = Stage::set(asked, path, times, asked.seed, false)?;
    if !stage.wait_until_ready(interrupted)? {
        return Ok(None);
    }
    let [before, outage, after] = [times.before, times.outage, times.after].map(Duration::from_secs_f64);
    let schedule = stage.begin_events(before + outage + after, asked.rate);
    let begun = schedule.begun;
    if !stage.until(begun + before, schedule, interrupted)? {
        return Ok(None);
    }
    let from = stage.now() - begun;
    stage.begin_outage(cut, None, schedule)?;
    if !stage.until(begun + before + outage, schedule, interrupted)? {
        return Ok(None);
    }
    stage.end_outage(cut, None)?;
    while !stage.manager_is_there() {
        stage.turn(schedule)?;
    }
    let to = stage.now() - begun;
    if !stage.until(schedule.end, schedule, interrupted)? {
        return Ok(None);
    }
    // What was due at the end is written now.
    stage.turn(schedule)?;
    let least = if path.has_broker() { QUIET_WITH_BROKER } else { QUIET_MIN };
    let quiet = QUIET.div_f64(asked.scale).max(least);
    let settle = Duration::from_secs_f64(times.time_reconnect) + SETTLE + least.mul_f64(asked.scale);
    let settled = stage.now() + settle;
    while !stage.account.is_complete() && stage.now() < settled && stage.quiet() < quiet {
        stage.turn(schedule)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    let became = stage.account.became(from);
    Ok(Some(Scene { path, cut, outage: [seconds(from), seconds(to)], became }))
}
