//! What became of a run, as JSON has it; its Display is a table for people.
//!
//! The sums balance by construction: what was sent is what arrived plus what was lost, and every lost event is
//! attributed once ([`attribute`]).

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::{Job, LOSS_DEFAULT_UDP, Share};
use crate::tally::Counts;

/// The account of a run; its fields are the keys of the JSON, documented in loadgen/README.md.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `tcp`, `udp` or `both`.
    pub protocol: &'static str,
    /// `blowfish` or `aes`.
    pub cipher: &'static str,
    /// Agents of the fleet.
    pub agents: u32,
    /// Agents that were acknowledged before the run.
    pub agents_connected: u64,
    /// From the start of the run to the arrival of the last event.
    pub seconds: f64,
    /// Events whose intended time came.
    pub events_sent: u64,
    /// Of these, those that arrived.
    pub events_delivered: u64,
    /// Of these, those that did not.
    pub events_lost: u64,
    /// Arrivals beyond an event's first.
    pub events_duplicated: u64,
    /// Events that arrived after a later one of their agent.
    pub events_out_of_order: u64,
    /// `events_delivered / seconds`.
    pub events_per_second: f64,
    /// From an event's intended time to its arrival.
    pub latency_ns: Latency,
    /// The manager's CPU time of the run for each delivered event; null if its pid is unknown.
    pub manager_cpu_ns_per_event: Option<CpuPerEvent>,
    /// The manager's resident memory at the last event; null if its pid is unknown.
    pub manager_rss_bytes: Option<u64>,
    /// Where events were lost.
    pub loss: Loss,
    /// Whether loadgen, and not the manager, set the pace.
    pub generator_was_the_limit: bool,
    /// Everything else.
    #[serde(flatten)]
    pub details: Details,
}

/// Percentiles of a latency, nanoseconds; 0 if nothing arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Latency {
    /// The percentiles of a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
    }
}

/// CPU time for each delivered event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CpuPerEvent {
    /// In the manager's own code, nanoseconds.
    pub user: f64,
    /// In the kernel on its behalf, nanoseconds.
    pub system: f64,
}

/// Where events were lost. With `loss_unattributed` it sums to `events_lost`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Never handed to the kernel: the generator was late, or a connection took nothing more.
    pub generator: u64,
    /// Refused by the kernel, dropped at the manager's UDP sockets, or gone with a connection that broke.
    pub kernel: u64,
    /// Received by the manager and dropped for a reason of its own.
    pub manager: u64,
    /// Taken over by the manager and not handed over: what its sinks had no room for or gave up.
    pub queue: u64,
}

/// What the keys do not say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Details {
    /// `ossec` or `wazuh`.
    pub dialect: &'static str,
    /// `embedded`, or the address of the target.
    pub manager: String,
    /// Where loadgen read what the manager handed over: `queue`, `archives` or `json`.
    pub sink: &'static str,
    /// Text of an event, bytes.
    pub event_bytes: u32,
    /// Events of one write.
    pub burst: u32,
    /// Events a second that were planned.
    pub rate_planned: f64,
    /// Seconds that were planned.
    pub seconds_planned: f64,
    /// Seed of the run.
    pub seed: u64,
    /// `ahead`: every message was sealed at zlib level 9 before the run.
    pub sealing: &'static str,
    /// Seconds that sealing took.
    pub sealing_seconds: f64,
    /// Mean bytes of a message on the wire.
    pub sealed_bytes_per_event: f64,
    /// Seconds from the first start-up to the last acknowledgement.
    pub connect_seconds: f64,
    /// Lost events that none of `loss` explains.
    pub loss_unattributed: u64,
    /// Share of events that were lost.
    pub loss_share: f64,
    /// Lost events of agents that speak TCP, and of those that speak UDP.
    pub events_lost_tcp: u64,
    /// See `events_lost_tcp`.
    pub events_lost_udp: u64,
    /// Events whose bytes arrived changed.
    pub events_corrupted: u64,
    /// Events that arrived under another agent's name.
    pub events_misattributed: u64,
    /// Events that arrived and were never planned.
    pub events_unplanned: u64,
    /// Other messages that arrived: what agents say by themselves.
    pub messages_foreign: u64,
    /// Times an agent lost its manager.
    pub agents_locked: u64,
    /// Acknowledgements that agents got.
    pub acknowledgements: u64,
    /// How late the generator took writes from the plan.
    pub generator_lateness_ns: Option<Latency>,
    /// Share of loadgen's cores that its threads used.
    pub loadgen_busy_share: f64,
    /// Share of the run for which the manager's threads could have run and had no core: what else ran there.
    pub manager_waited_share: Option<f64>,
    /// The manager's resident memory at most; null if its pid is unknown.
    pub manager_rss_peak_bytes: Option<u64>,
    /// What the embedded manager says it dropped, by reason.
    pub manager_dropped: BTreeMap<String, u64>,
    /// `net.unix.max_dgram_qlen`: how many datagrams wait in the queue socket before its writer must.
    pub queue_datagrams_max: Option<u64>,
    /// Whether the operator ended the run early.
    pub interrupted: bool,
    /// What was promised and did not hold; empty with exit status 0.
    pub broken_promises: Vec<String>,
}

/// What the parts of a run count, from which losses are attributed.
#[derive(Debug, Clone, Copy, Default)]
pub struct LossEvidence {
    /// Events whose intended time came.
    pub due: u64,
    /// Events whose bytes the kernel took.
    pub taken: u64,
    /// Events that the kernel refused.
    pub refused: u64,
    /// Events that arrived.
    pub delivered: u64,
    /// Datagrams dropped at the manager's UDP sockets.
    pub kernel_drops: u64,
    /// Whether a TCP connection broke in the run.
    pub connections_broke: bool,
    /// Messages that the manager dropped for reasons of its own.
    pub manager_dropped: u64,
    /// Events that its sinks did not hand over.
    pub queue_failed: u64,
}

/// Attributes each lost event once; returns what is left over, too.
///
/// Each cause is believed as far as events are missing: a dropped datagram may have been a keep-alive.
pub fn attribute(evidence: LossEvidence) -> (Loss, u64) {
    let mut missing = evidence.due.saturating_sub(evidence.delivered);
    let mut take = |most: u64| {
        let part = most.min(missing);
        missing -= part;
        part
    };
    let mut loss = Loss {
        generator: take(evidence.due.saturating_sub(evidence.taken + evidence.refused)),
        kernel: take(evidence.refused.saturating_add(evidence.kernel_drops)),
        manager: take(evidence.manager_dropped),
        queue: take(evidence.queue_failed),
    };
    if evidence.connections_broke {
        loss.kernel += std::mem::take(&mut missing);
    }
    (loss, missing)
}

/// What was promised and did not hold, in words.
pub fn broken_promises(job: &Job, report: &Report, counts: &Counts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut promise = |holds: bool, words: String| {
        if !holds {
            broken.push(words);
        }
    };
    let details = &report.details;
    let lost =
        [("TCP", details.events_lost_tcp, Share(0.0)), ("UDP", details.events_lost_udp, LOSS_DEFAULT_UDP)];
    match job.loss_max {
        Some(bound) => promise(
            within(report.events_lost, report.events_sent, bound),
            format!(
                "{} of {} events lost, more than --max-loss {bound}",
                report.events_lost, report.events_sent
            ),
        ),
        None => {
            for (transport, lost, bound) in lost {
                promise(
                    within(lost, report.events_sent, bound),
                    format!(
                        "{lost} events lost over {transport}, more than {bound} (--max-loss sets another bound)"
                    ),
                );
            }
        }
    }
    let agents = u64::from(report.agents);
    promise(
        report.agents_connected >= agents,
        format!("{} of {agents} agents connected", report.agents_connected),
    );
    promise(report.events_delivered > 0, "no event arrived".into());
    promise(
        counts.out_of_order_tcp == 0,
        format!("{} events over TCP out of order", counts.out_of_order_tcp),
    );
    for (count, what) in [
        (counts.duplicated, "duplicated"),
        (counts.corrupted, "corrupted"),
        (counts.misattributed, "under another agent's name"),
        (counts.unplanned, "that nobody planned"),
    ] {
        promise(count == 0, format!("{count} events {what}"));
    }
    broken
}

fn within(lost: u64, sent: u64, bound: Share) -> bool {
    lost as f64 <= bound.0 * sent as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    pub(crate) fn report() -> Report {
        Report {
            protocol: "tcp",
            cipher: "aes",
            agents: 2,
            agents_connected: 2,
            seconds: 1.0,
            events_sent: 1_000,
            events_delivered: 1_000,
            events_lost: 0,
            events_duplicated: 0,
            events_out_of_order: 0,
            events_per_second: 1_000.0,
            latency_ns: Latency { p50: 1, p90: 2, p99: 3, p999: 4, max: 5 },
            manager_cpu_ns_per_event: Some(CpuPerEvent { user: 1_500.0, system: 500.0 }),
            manager_rss_bytes: Some(1 << 20),
            loss: Loss::default(),
            generator_was_the_limit: false,
            details: Details::default(),
        }
    }

    fn job(words: &str) -> Job {
        Job::from_cli(&Cli::parse_from(format!("loadgen {words}").split_whitespace())).unwrap()
    }

    #[test]
    fn the_json_has_the_promised_keys_at_its_top() {
        let json = serde_json::to_value(report()).unwrap();
        let keys = |value: &serde_json::Value, names: &[&str]| {
            for name in names {
                assert!(value.get(name).is_some(), "no key {name} in {value}");
            }
        };
        let top = "protocol cipher agents agents_connected seconds events_sent events_delivered events_lost \
            events_duplicated events_out_of_order events_per_second latency_ns manager_cpu_ns_per_event \
            manager_rss_bytes loss generator_was_the_limit";
        keys(&json, &top.split_whitespace().collect::<Vec<_>>());
        keys(&json["latency_ns"], &["p50", "p90", "p99", "p999", "max"]);
        keys(&json["manager_cpu_ns_per_event"], &["user", "system"]);
        keys(&json["loss"], &["generator", "kernel", "manager", "queue"]);
        assert_eq!(json["loss"].as_object().unwrap().len(), 4);
    }

    #[test]
    fn every_key_of_the_json_is_documented() {
        let readme = include_str!("../README.md");
        let json = serde_json::to_value(report()).unwrap();
        for key in json.as_object().unwrap().keys() {
            assert!(readme.contains(&format!("`{key}`")), "loadgen/README.md does not document `{key}`");
        }
    }

    #[test]
    fn every_lost_event_is_attributed_once() {
        let check = |evidence: LossEvidence, expected: (u64, u64, u64, u64, u64)| {
            let (loss, unattributed) = attribute(evidence);
            let found = (loss.generator, loss.kernel, loss.manager, loss.queue, unattributed);
            assert_eq!(found, expected, "{evidence:?}");
            let sum = found.0 + found.1 + found.2 + found.3 + found.4;
            assert_eq!(sum, evidence.due - evidence.delivered);
        };
        let all = LossEvidence { due: 100, taken: 100, delivered: 100, ..LossEvidence::default() };
        check(all, (0, 0, 0, 0, 0));
        check(LossEvidence { kernel_drops: 5, ..all }, (0, 0, 0, 0, 0));
        check(LossEvidence { taken: 90, refused: 4, delivered: 80, ..all }, (6, 4, 0, 0, 10));
        check(
            LossEvidence { delivered: 80, kernel_drops: 5, manager_dropped: 7, queue_failed: 2, ..all },
            (0, 5, 7, 2, 6),
        );
        check(
            LossEvidence { delivered: 80, connections_broke: true, manager_dropped: 7, ..all },
            (0, 13, 7, 0, 0),
        );
        check(LossEvidence { taken: 50, delivered: 60, ..all }, (40, 0, 0, 0, 0));
    }

    #[test]
    fn a_promise_that_does_not_hold_is_named() {
        let counts = Counts::default();
        let check = |words: &str, report: &Report, counts: &Counts, expected: &[&str]| {
            let broken = broken_promises(&job(words), report, counts);
            assert_eq!(broken.len(), expected.len(), "{broken:?}");
            for (broken, expected) in broken.iter().zip(expected) {
                assert!(broken.contains(expected), "{broken}");
            }
        };
        check("", &report(), &counts, &[]);
        let mut lossy = report();
        (lossy.events_lost, lossy.details.events_lost_udp) = (1, 1);
        check("--proto udp", &lossy, &counts, &[]);
        check("--proto udp --max-loss 0", &lossy, &counts, &["--max-loss 0%"]);
        (lossy.events_lost, lossy.details.events_lost_udp) = (2, 2);
        check("--proto udp", &lossy, &counts, &["lost over UDP"]);
        check("--proto udp --max-loss 1%", &lossy, &counts, &[]);
        let mut tcp = report();
        (tcp.events_lost, tcp.details.events_lost_tcp) = (1, 1);
        check("", &tcp, &counts, &["lost over TCP"]);
        let bad = Counts {
            duplicated: 1,
            corrupted: 1,
            misattributed: 1,
            unplanned: 1,
            out_of_order_tcp: 1,
            ..counts
        };
        let all = ["order", "duplicated", "corrupted", "name", "planned"];
        check("", &report(), &bad, &all);
        check(
            "",
            &Report { agents_connected: 1, events_delivered: 0, ..report() },
            &counts,
            &["1 of 2", "no event"],
        );
    }
}
