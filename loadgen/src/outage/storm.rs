//! A path with outages that a seed draws: several, also at once and while everybody recovers from the last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::outage::Path;
use crate::outage::account::{Became, Broken};
use crate::outage::away::{Cut, Drawn, draw};
use crate::outage::cli::OutageJob;
use crate::outage::stage::Stage;

/// Nothing comes any more if nothing has come for so long, by the wall's clock: longer than anybody waits between two tries, also on a
/// machine that has too much to do.
const QUIET: Duration = Duration::from_secs(30);
/// Once everything has come, it is for so long that one may come again.
const QUIET_AT_THE_END: Duration = Duration::from_millis(500);
/// A repetition that goes on for so long after its last event, by the wall's clock, is ended.
const SETTLE_MAX: Duration = Duration::from_secs(180);
/// How many repetitions that broke a promise are told of each path.
const BROKEN_MAX: usize = 20;

/// One repetition.
#[derive(Debug, Clone, Serialize)]
pub struct Repetition {
    /// How events travelled.
    pub path: Path,
    /// What it was drawn from: `--repeat 1 --seed` with it plays it again.
    pub seed: u64,
    /// The outages.
    pub drawn: Vec<Drawn>,
    /// The events that were lost or repeated, the first of them.
    pub broken: Vec<Broken>,
    /// What the programs said last, if events were lost.
    pub said: Vec<String>,
    /// What became of all events.
    #[serde(skip)]
    pub became: Became,
}

/// All repetitions of a path together.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// How events travelled.
    pub path: Path,
    /// How often it was played.
    pub repetitions: u64,
    /// Outages in which nobody was killed.
    pub cuts: u64,
    /// Outages that began with SIGKILL.
    pub kills: u64,
    /// Events that were written on their hosts, and taken.
    pub made: u64,
    /// Of these, those that never arrived.
    pub lost: u64,
    /// Further arrivals.
    pub repeated: u64,
    /// Arrivals after a later one of the same agent.
    pub out_of_order: u64,
    /// Written, and handed to a program that was killed before it took them, or was not there.
    pub untaken: u64,
    /// The repetitions in which a path did not keep its promise; empty for a path that promises nothing.
    pub broken: Vec<Repetition>,
}

/// Plays the repetition with this seed. `None` if it was interrupted.
///
/// # Errors
/// What does not run.
pub(super) fn play(
    asked: &OutageJob,
    path: Path,
    seed: u64,
    interrupted: &AtomicBool,
) -> Result<Option<Repetition>, String> {
    let times = asked.times;
    let drawn = draw(seed, &asked.cuts_of(path), asked.agents, times.before, times.outage);
    let mut stage = Stage::set(asked, path, times, seed, true)?;
    if !stage.wait_until_ready(interrupted)? {
        return Ok(None);
    }
    let turns = turns(&drawn);
    let last = turns.last().map_or(0.0, |turn| turn.at);
    let schedule = stage.begin_events(Duration::from_secs_f64(last + times.after), asked.rate);
    for turn in turns {
        if !stage.until(schedule.begun + Duration::from_secs_f64(turn.at), schedule, interrupted)? {
            return Ok(None);
        }
        let Drawn { cut, agent, .. } = drawn[turn.outage];
        if turn.begins {
            stage.begin_outage(cut, agent, schedule)?;
        } else {
            stage.end_outage(cut, agent)?;
        }
    }
    if !stage.until(schedule.end, schedule, interrupted)? {
        return Ok(None);
    }
    // What was due at the end is written now.
    stage.turn(schedule)?;
    let settled = stage.now() + SETTLE_MAX.mul_f64(asked.scale);
    while stage.now() < settled {
        let is_whole = stage.account.is_complete() && stage.manager_is_there();
        if stage.quiet() >= if is_whole { QUIET_AT_THE_END } else { QUIET } {
            break;
        }
        stage.turn(schedule)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    let became = stage.account.became(Duration::from_secs_f64(times.before));
    let said = if became.lost > 0 { stage.said_last() } else { Vec::new() };
    let repetition = Repetition { path, seed, drawn, broken: became.first_broken.clone(), said, became };
    eprintln!("{}: seed {seed}: {}: {}", path.words(), repetition.outages(), repetition.became);
    Ok(Some(repetition))
}

/// The sums of each path.
pub(super) fn storms(paths: &[Path], repetitions: Vec<Repetition>) -> Vec<Storm> {
    let none = |path: &Path| Storm {
        path: *path,
        repetitions: 0,
        cuts: 0,
        kills: 0,
        made: 0,
        lost: 0,
        repeated: 0,
        out_of_order: 0,
        untaken: 0,
        broken: Vec::new(),
    };
    let mut storms: Vec<Storm> = paths.iter().map(none).collect();
    for repetition in repetitions {
        let storm = storms.iter_mut().find(|storm| storm.path == repetition.path);
        let storm = storm.expect("only paths that were asked for are played");
        let Became { made, lost, repeated, out_of_order, untaken, .. } = repetition.became;
        let kills = repetition.drawn.iter().filter(|drawn| drawn.cut.is_kill()).count() as u64;
        storm.repetitions += 1;
        storm.kills += kills;
        storm.cuts += repetition.drawn.len() as u64 - kills;
        storm.made += made;
        storm.lost += lost;
        storm.repeated += repeated;
        storm.out_of_order += out_of_order;
        storm.untaken += untaken;
        let promises = repetition.drawn.iter().all(|drawn| storm.path.promises_over(drawn.cut));
        let is_broken = promises && lost + repeated + out_of_order > 0;
        if is_broken && storm.broken.len() < BROKEN_MAX {
            storm.broken.push(repetition);
        }
    }
    storms
}

/// The beginning or the end of an outage.
#[derive(Debug, Clone, Copy, PartialEq)]
struct TurnOf {
    at: f64,
    outage: usize,
    begins: bool,
}

/// Beginnings and ends, in the order in which they come.
fn turns(drawn: &[Drawn]) -> Vec<TurnOf> {
    let both = |(outage, drawn): (usize, &Drawn)| {
        [(drawn.from, true), (drawn.to, false)].map(|(at, begins)| TurnOf { at, outage, begins })
    };
    let mut turns: Vec<TurnOf> = drawn.iter().enumerate().flat_map(both).collect();
    turns.sort_by(|one, other| one.at.total_cmp(&other.at));
    turns
}

impl Repetition {
    /// Its outages, in words.
    pub(crate) fn outages(&self) -> String {
        let one = |drawn: &Drawn| {
            let whose = match (drawn.agent, drawn.cut) {
                (Some(agent), _) => format!(" ({agent})"),
                (None, Cut::AgentKilled | Cut::AgentRestarted) => " (all)".into(),
                (None, _) => String::new(),
            };
            format!("{}{whose} {:.0} to {:.0} s", drawn.cut.words(), drawn.from, drawn.to)
        };
        self.drawn.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repetition(path: Path, seed: u64, cut: Cut, lost: u64) -> Repetition {
        let drawn = vec![Drawn { cut, agent: None, from: 3.0, to: 9.0 }];
        let became = Became { made: 100, delivered: 100 - lost, lost, untaken: 2, ..Became::default() };
        Repetition {
            path,
            seed,
            drawn,
            broken: vec![Broken { agent: 0, event: 7, times: 0 }],
            said: Vec::new(),
            became,
        }
    }

    #[test]
    fn only_a_path_that_promises_exactness_can_break_its_promise() {
        let found = storms(
            &[Path::Udp, Path::BrokerRelay],
            vec![
                repetition(Path::BrokerRelay, 1, Cut::Network, 0),
                repetition(Path::Udp, 1, Cut::Network, 50),
                repetition(Path::BrokerRelay, 2, Cut::BrokerClientKilled, 1),
                repetition(Path::BrokerRelay, 3, Cut::ManagerKilled, 1),
            ],
        );
        let sums: Vec<_> =
            found.iter().map(|storm| (storm.cuts, storm.kills, storm.made, storm.lost)).collect();
        assert_eq!(sums, [(1, 0, 100, 50), (1, 2, 300, 2)]);
        assert!(found[0].broken.is_empty());
        assert_eq!(found[1].broken.iter().map(|broken| broken.seed).collect::<Vec<_>>(), [2]);
        assert_eq!(found[1].untaken, 6);
        assert_eq!(found[1].broken[0].outages(), "broker's client killed 3 to 9 s");
    }

    #[test]
    fn beginnings_and_ends_come_in_their_order() {
        let outage = |from, to| Drawn { cut: Cut::Network, agent: None, from, to };
        let order: Vec<_> = turns(&[outage(5.0, 20.0), outage(1.0, 6.0)])
            .iter()
            .map(|turn| (turn.outage, turn.begins))
            .collect();
        assert_eq!(order, [(1, true), (0, true), (1, false), (0, false)]);
    }
}
