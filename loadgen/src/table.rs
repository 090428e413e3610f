//! The report as a table for people, and what they should know before they believe its figures.

use std::fmt;

use crate::cli::Share;
use crate::report::{CpuPerEvent, Latency, Loss, Report};

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.fleet_rows().into_iter().chain(self.event_rows()).chain(self.figure_rows())
        {
            writeln!(out, "{name:<26} {value}")?;
        }
        for line in self.remarks() {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

/// Below this the reader's turns on its core decide how fast a queue socket is.
const QUEUE_DATAGRAMS_FEW: u64 = 64;

/// Above this the figures say much of the host's other work.
const WAITED_SHARE_MUCH: f64 = 0.1;

type Row = (&'static str, String);

impl Report {
    fn fleet_rows(&self) -> Vec<Row> {
        let details = &self.details;
        let fleet = format!(
            "{} of {} {} agents connected over {} in {:.2} s, {}",
            self.agents_connected,
            self.agents,
            details.dialect,
            self.protocol,
            details.connect_seconds,
            self.cipher
        );
        let messages = format!(
            "{} B of text, {:.0} B sealed ahead (zlib level 9) in {:.1} s",
            details.event_bytes, details.sealed_bytes_per_event, details.sealing_seconds
        );
        let manager = format!("{}, read from {}", details.manager, details.sink);
        vec![("manager", manager), ("fleet", fleet), ("messages", messages)]
    }

    fn event_rows(&self) -> Vec<Row> {
        let details = &self.details;
        let mut rows = vec![
            ("events sent", format!("{} ({:.0}/s planned)", self.events_sent, details.rate_planned)),
            (
                "events delivered",
                format!(
                    "{} ({:.0}/s over {:.2} s)",
                    self.events_delivered, self.events_per_second, self.seconds
                ),
            ),
            ("events lost", format!("{} ({})", self.events_lost, Share(details.loss_share))),
        ];
        if self.events_lost > 0 {
            let Loss { generator, kernel, manager, queue } = self.loss;
            let rest = details.loss_unattributed;
            let places = format!(
                "generator {generator}, kernel {kernel}, manager {manager}, queue {queue}, unattributed {rest}"
            );
            rows.push(("  lost where", places));
        }
        let dropped = details.manager_dropped.iter();
        rows.extend(dropped.map(|(reason, count)| ("  manager dropped", format!("{reason}: {count}"))));
        let order = format!("{}, {}", self.events_duplicated, self.events_out_of_order);
        rows.push(("duplicated, out of order", order));
        let (corrupted, misattributed) = (details.events_corrupted, details.events_misattributed);
        if corrupted + misattributed + details.events_unplanned > 0 {
            let harmed = format!("{corrupted}, {misattributed} (and {} unplanned)", details.events_unplanned);
            rows.push(("corrupted, misattributed", harmed));
        }
        if details.agents_locked > 0 {
            rows.push(("agents lost the manager", format!("{} times", details.agents_locked)));
        }
        rows
    }

    fn figure_rows(&self) -> Vec<Row> {
        let cpu = match &self.manager_cpu_ns_per_event {
            Some(CpuPerEvent { user, system }) => {
                let [sum, user, system] =
                    [user + system, *user, *system].map(|nanoseconds| nanoseconds / 1e3);
                format!("{sum:.2} us = {user:.2} user + {system:.2} system")
            }
            None => "unknown: name the manager's process with --manager-pid".into(),
        };
        let mut rows = vec![("latency", latency_words(&self.latency_ns)), ("manager CPU an event", cpu)];
        if let (Some(now), Some(peak)) = (self.manager_rss_bytes, self.details.manager_rss_peak_bytes) {
            rows.push(("manager memory", format!("{} MiB resident, {} MiB at most", now >> 20, peak >> 20)));
        }
        let late = self.details.generator_lateness_ns.map_or(0, |lateness| lateness.p99);
        let busy = self.details.loadgen_busy_share * 100.0;
        rows.push(("loadgen", format!("{busy:.0}% busy, 99% of writes at most {} late", time_words(late))));
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.generator_was_the_limit {
            lines.push(
                "loadgen itself was the limit: these are not the manager's figures; lower --rate or give it more --cores"
                    .into(),
            );
        }
        let queue_datagrams_max = self.details.queue_datagrams_max.unwrap_or(u64::MAX);
        if self.details.sink == "queue" && self.loss.queue > 0 && queue_datagrams_max < QUEUE_DATAGRAMS_FEW {
            lines.push(format!(
                "the queue socket holds {queue_datagrams_max} datagrams (net.unix.max_dgram_qlen), so the manager waits \
                 for loadgen's reader all the time; raise it, as to 512, to measure the manager alone"
            ));
        }
        let waited = self.details.manager_waited_share.unwrap_or(0.0);
        if waited > WAITED_SHARE_MUCH {
            lines.push(format!(
                "the manager waited for its core for {:.0}% of the run: something else ran there, see that nothing does",
                waited * 100.0
            ));
        }
        if self.details.interrupted {
            lines.push("the run was interrupted".into());
        }
        lines.extend(self.details.broken_promises.iter().map(|promise| format!("did not hold: {promise}")));
        lines
    }
}

fn latency_words(latency: &Latency) -> String {
    let Latency { p50, p90, p99, p999, max } = *latency;
    let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(time_words);
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")
}

fn time_words(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.0} us", nanoseconds as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.2} s", nanoseconds as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_table_says_when_loadgen_was_the_limit() {
        assert!(!report().to_string().contains("was the limit"));
        let limited = Report { generator_was_the_limit: true, ..report() }.to_string();
        assert!(limited.contains("loadgen itself was the limit"), "{limited}");
        let mut full = report();
        (full.loss.queue, full.details.sink, full.details.queue_datagrams_max) = (1, "queue", Some(10));
        assert!(full.to_string().contains("max_dgram_qlen"), "{full}");
        full.details.manager_waited_share = Some(0.5);
        assert!(full.to_string().contains("for its core for 50% of the run"), "{full}");
        assert!(limited.contains("2.00 us = 1.50 user + 0.50 system"), "{limited}");
    }
}
