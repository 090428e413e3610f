//! What was found, as a table for people.

use std::fmt;

use crate::outage::{Outages, Scene};

impl fmt::Display for Outages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.setting() {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "\n{}", row(HEADINGS.map(String::from)))?;
        for scene in &self.scenes {
            writeln!(out, "{}", row(cells(scene)))?;
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
        vec![
            format!("{}: {}", self.date, self.command),
            format!(
                "{} agents with {} events/s each; notify_time {:.0} s, time-reconnect {:.0} s; {:.0} s before, {:.0} s of outage, {:.0} s after",
                self.agents,
                self.rate,
                times.notify_time,
                times.time_reconnect,
                times.before,
                times.outage,
                times.after
            ),
            format!("the agents' clock ran {} times as fast as the wall's; seed {}", self.scale, self.seed),
        ]
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

fn row(cells: [String; 9]) -> String {
    let [path, away, length, made, lost, late, repeated, order, hole] = cells;
    format!(
        "{path:<16} {away:<16} {length:>7} {made:>8} {lost:>7} {late:>7} {repeated:>9} {order:>13}  {hole}"
    )
}
