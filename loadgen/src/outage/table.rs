//! What was found, as a table for people.

use std::fmt;

use clap::ValueEnum;

use crate::outage::account::Broken;
use crate::outage::{Outages, ProgramTimes, Scene, Storm};

impl fmt::Display for Outages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.setting() {
            writeln!(out, "{line}")?;
        }
        let scenes: Vec<_> = self.scenes.iter().map(cells).collect();
        let storms: Vec<_> = self.storms.iter().map(storm_cells).collect();
        if !scenes.is_empty() {
            table(out, HEADINGS, &scenes)?;
        }
        if !storms.is_empty() {
            table(out, STORM_HEADINGS, &storms)?;
        }
        for line in self.broken_promises() {
            writeln!(out, "\n{line}")?;
        }
        for why in &self.failed {
            writeln!(out, "\nnot played: {why}")?;
        }
        if self.is_cut_short {
            writeln!(out, "\ninterrupted: not all scenes were played")?;
        }
        Ok(())
    }
}

impl Outages {
    /// What was played, in lines.
    pub(crate) fn setting(&self) -> Vec<String> {
        let times = &self.times;
        let mut lines = vec![
            format!("{}: {}", self.date, self.command),
            format!(
                "{} agents with {:.3} events/s each; notify_time {:.0} s, time-reconnect {:.0} s; {:.0} s before, {:.0} s {}, {:.0} s after",
                self.agents,
                self.rate,
                times.notify_time,
                times.time_reconnect,
                times.before,
                times.outage,
                if self.storms.is_empty() { "of outage" } else { "in which outages begin" },
                times.after
            ),
            format!("the agents' clock ran {} times as fast as the wall's; seed {}", self.scale, self.seed),
        ];
        if let Some(ProgramTimes { notify_time, time_reconnect, lost_after, wait_max, confirm }) =
            self.programs
        {
            lines.push(format!(
                "programs have the wall's clock: notify_time {notify_time} s, time-reconnect {time_reconnect} s; \
                 ringmaster-agent also: lost_after {lost_after} s, tries within {wait_max} s, confirmed within {confirm} s"
            ));
        }
        lines.extend(self.left_out.iter().map(|why| format!("left out: {why}")));
        lines
    }

    /// What was lost or repeated where nothing may be, and how to play it again.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for repetition in self.storms.iter().flat_map(|storm| &storm.broken) {
            let event = |broken: &Broken| match broken.times {
                0 => format!("agent {} lost event {}", broken.agent, broken.event),
                times => format!("agent {} event {} came {times} times", broken.agent, broken.event),
            };
            let events: Vec<_> = repetition.broken.iter().map(event).collect();
            lines.push(format!(
                "{}, seed {}: {}\n  {}\n  again, with the other options as above: --repeat 1 --seed {} --paths {}",
                repetition.path.words(),
                repetition.seed,
                repetition.outages(),
                if events.is_empty() { "events came out of order".into() } else { events.join("; ") },
                repetition.seed,
                repetition.path.to_possible_value().expect("no path is hidden").get_name(),
            ));
        }
        lines
    }
}

pub(crate) const HEADINGS: [&str; 9] = [
    "path",
    "away",
    "for, s",
    "made",
    "lost",
    "late",
    "repeated",
    "out of order",
    "lost were made, s after it began",
];

/// The cells of a scene's row.
pub(crate) fn cells(scene: &Scene) -> [String; 9] {
    let became = &scene.became;
    [
        scene.path.words().into(),
        scene.cut.words().into(),
        format!("{:.0}", scene.outage[1] - scene.outage[0]),
        became.made.to_string(),
        became.lost.to_string(),
        became.late.to_string(),
        became.repeated.to_string(),
        became.out_of_order.to_string(),
        became.hole_seconds.map_or("-".into(), |[first, last]| {
            format!("{} to {}", first.round() as i64, last.round() as i64)
        }),
    ]
}

pub(crate) const STORM_HEADINGS: [&str; 9] =
    ["path", "repetitions", "cuts", "kills", "made", "lost", "repeated", "out of order", "and never taken"];

/// The cells of a path's row, of all its repetitions.
pub(crate) fn storm_cells(storm: &Storm) -> [String; 9] {
    let Storm { path, repetitions, cuts, kills, made, lost, repeated, out_of_order, untaken, broken: _ } =
        storm;
    let numbers = [repetitions, cuts, kills, made, lost, repeated, out_of_order, untaken].map(u64::to_string);
    let [repetitions, cuts, kills, made, lost, repeated, out_of_order, untaken] = numbers;
    [path.words().into(), repetitions, cuts, kills, made, lost, repeated, out_of_order, untaken]
}

/// Columns as wide as they must be, words to the left and numbers to the right.
fn table(out: &mut fmt::Formatter<'_>, headings: [&str; 9], rows: &[[String; 9]]) -> fmt::Result {
    let headings = headings.map(String::from);
    let width =
        |column: usize| rows.iter().chain([&headings]).map(|row| row[column].len()).max().unwrap_or(0);
    let is_words = |column: usize| {
        rows.iter().all(|row| row[column].starts_with(|first: char| first.is_ascii_alphabetic()))
    };
    writeln!(out)?;
    for row in std::iter::once(&headings).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let width = width(column);
            match (column == row.len() - 1, is_words(column)) {
                (true, _) => write!(out, "{gap}{cell}")?,
                (false, true) => write!(out, "{gap}{cell:<width$}")?,
                (false, false) => write!(out, "{gap}{cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
