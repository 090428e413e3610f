//! The comparison as a table for people.

use std::fmt;

use crate::compare::comparison::{Comparison, Point, Setting};
use crate::compare::crossing::Spread;

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in setting_lines(&self.setting) {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
        writeln!(out, "{}", row(HEADINGS.map(String::from)))?;
        for point in &self.points {
            writeln!(out, "{}", row(cells(point)))?;
        }
        writeln!(out)?;
        writeln!(out, "TCP takes less of the manager's CPU than UDP: {}", self.crossing_words)?;
        for (what, lines) in [("not measured", &self.left_out), ("doubtful", &self.doubts)] {
            for line in lines {
                writeln!(out, "{what}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Headings of the columns of [`cells`].
pub(crate) const HEADINGS: [&str; 6] = [
    "events a segment",
    "protocol",
    "CPU an event, us (min-max)",
    "p50 at half, us (min-max)",
    "p99 at half, us (min-max)",
    "highest lossless rate",
];

/// The cells of a point's row.
pub(crate) fn cells(point: &Point) -> [String; 6] {
    let latency = |part: fn(&crate::compare::comparison::LatencyAtHalf) -> Spread| {
        point.latency.as_ref().map_or_else(none, |latency| microseconds(part(latency), 0))
    };
    [
        point.events_per_segment.to_string(),
        point.protocol.into(),
        point.cpu_ns_per_event.map_or_else(none, |cpu| microseconds(cpu, 2)),
        latency(|latency| latency.p50_ns),
        latency(|latency| latency.p99_ns),
        point.highest.as_ref().map_or_else(none, |highest| highest.words()),
    ]
}

/// What was run, and where, in lines.
pub(crate) fn setting_lines(setting: &Setting) -> Vec<String> {
    let queue = match setting.queue_datagrams_max {
        Some(most) if setting.sink == "queue" => format!(" (net.unix.max_dgram_qlen {most})"),
        Some(_) | None => String::new(),
    };
    vec![
        format!("{}: {}", setting.date, setting.command),
        setting.machine.clone(),
        format!(
            "manager {} on cores {:?}, loadgen on {:?}; read from {}{queue}",
            setting.manager, setting.manager_cores, setting.loadgen_cores, setting.sink
        ),
        format!(
            "{} {} agents, {}, events of {} B ({:.0} B sealed, zlib level 9), seed {}",
            setting.agents,
            setting.dialect,
            setting.cipher,
            setting.event_bytes,
            setting.sealed_bytes_per_event,
            setting.seed
        ),
        format!(
            "CPU an event at {:.0}/s; each measurement {} s, {} turns; {:.0} s in all, {:.0} s of them sealing",
            setting.rate, setting.seconds_each, setting.turns, setting.seconds, setting.sealing_seconds
        ),
    ]
}

fn row(cells: [String; 6]) -> String {
    let [segment, protocol, cpu, p50, p99, rate] = cells;
    format!("{segment:>16}  {protocol:<8}  {cpu:>26}  {p50:>25}  {p99:>25}  {rate}")
}

fn microseconds(spread: Spread, digits: usize) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|nanoseconds| nanoseconds / 1e3);
    format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
}

fn none() -> String {
    "-".into()
}

#[cfg(test)]
mod tests {
    use crate::compare::comparison::Point;
    use crate::compare::comparison::tests::comparison;

    #[test]
    fn the_table_has_a_row_for_each_point_and_all_that_was_left_out() {
        let mut comparison = comparison();
        comparison.points.push(Point::new(false, 64));
        let table = comparison.to_string();
        for expected in [
            "8.00 (7.20-8.80)",
            "3.00 (2.70-3.30)",
            "300 (300-300)",
            "900 (900-900)",
            "200000/s",
            "at least 200000/s: loadgen was the limit",
            "than UDP: at about 2.8 events a segment",
            "not measured: udp, 64 a segment: no time",
            "doubtful: a doubt",
            "CPU an event at 50000/s",
        ] {
            assert!(table.contains(expected), "no {expected} in\n{table}");
        }
        let rows = table.lines().filter(|line| line.contains("  tcp  ") || line.contains("  udp  "));
        assert_eq!(rows.count(), 7, "{table}");
    }
}
