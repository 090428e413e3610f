//! Whole runs of loadgen: against a stand-in that errs on purpose, to see that it counts exactly that; and against the
//! embedded manager.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod comparison;
mod embedded;
mod outages;
mod stand_in;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use codec::Product;
use loadgen::cli::{Cli, Job};
use loadgen::members;
use loadgen::report::Report;
use loadgen::run::run;
use stand_in::{Flaw, StandIn};

const AGENTS: u32 = 20;
const EVENTS: u64 = 120;

/// A run against a stand-in with a flaw; returns its report and how often the stand-in erred.
fn run_against(flaw: Flaw, words: &str) -> (Report, u64) {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("client.keys");
    let queue = folder.path().join("queue");
    std::fs::write(&keys, members::to_file(&members::made_up(AGENTS, 3))).unwrap();
    let product = if words.contains("ossec") { Product::Ossec } else { Product::Wazuh };
    let stand_in = StandIn::start(members::made_up(AGENTS, 3), product, flaw, queue.clone());
    let report = run(&job(words, stand_in.address.port(), &keys, &queue), &AtomicBool::new(false)).unwrap();
    (report, stand_in.stop())
}

fn job(words: &str, port: u16, keys: &Path, queue: &Path) -> Job {
    // What is sent over UDP fits into a default receive buffer, so that a slow machine loses none of it.
    let line = format!(
        "loadgen --agents {AGENTS} --rate 2000 --duration 60ms --drain 500ms --reconnect-time 50ms \
         --target 127.0.0.1:{port} --keys {} --queue {} {words}",
        keys.display(),
        queue.display()
    );
    Job::from_cli(&Cli::try_parse_from(line.split_whitespace()).unwrap()).unwrap()
}

/// What holds in every run.
fn check_sums(report: &Report) {
    assert_eq!(report.events_sent, EVENTS);
    assert_eq!(report.events_sent, report.events_delivered + report.events_lost);
    let loss = &report.loss;
    let attributed =
        loss.generator + loss.kernel + loss.manager + loss.queue + report.details.loss_unattributed;
    assert_eq!(attributed, report.events_lost, "{loss:?}");
    assert_eq!(report.agents_connected, u64::from(AGENTS));
}

#[test]
fn a_manager_without_flaw_keeps_every_promise_in_every_way_to_speak() {
    for proto in ["tcp", "udp", "both"] {
        for method in ["--cipher blowfish", "--cipher aes --dialect ossec", "--cipher aes --dialect wazuh"] {
            let (report, erred) = run_against(Flaw::None, &format!("--proto {proto} {method}"));
            check_sums(&report);
            assert_eq!((erred, report.events_lost), (0, 0), "{proto} {method}");
            assert!(report.details.broken_promises.is_empty(), "{:?}", report.details.broken_promises);
            assert_eq!(report.latency_ns.max, report.latency_ns.max.max(report.latency_ns.p50));
            assert!(report.manager_cpu_ns_per_event.is_none(), "nobody named its pid");
            assert!(report.details.messages_foreign == 0, "the fleet says nothing but its lines");
        }
    }
}

#[test]
fn bursts_and_large_events_arrive_whole() {
    for words in [
        "--burst 16",
        "--burst 7 --proto udp",
        "--burst 3 --bytes 6000",
        "--bytes 2000 --proto both --duration 20ms",
    ] {
        let (report, _) = run_against(Flaw::None, words);
        assert_eq!((report.events_lost, report.details.events_corrupted), (0, 0), "{words}");
        assert!(report.details.broken_promises.is_empty(), "{words}: {:?}", report.details.broken_promises);
    }
}

#[test]
fn what_the_manager_loses_is_counted_and_breaks_the_promise() {
    for proto in ["tcp", "udp"] {
        let (report, erred) = run_against(Flaw::Loses(10), &format!("--proto {proto}"));
        check_sums(&report);
        assert_eq!((erred, report.events_lost), (12, 12));
        assert_eq!(report.details.loss_unattributed, 12, "this manager does not say");
        assert_eq!(report.details.broken_promises.len(), 1, "{:?}", report.details.broken_promises);
    }
    let (report, _) = run_against(Flaw::Loses(10), "--max-loss 10%");
    assert!(report.details.broken_promises.is_empty(), "{:?}", report.details.broken_promises);
}

#[test]
fn what_the_manager_repeats_swaps_or_spoils_is_counted_for_what_it_is() {
    type Count = fn(&Report) -> u64;
    let cases: [(Flaw, Count, u64); 4] = [
        (Flaw::Repeats(10), |report| report.events_duplicated, 12),
        (Flaw::Swaps(10), |report| report.events_out_of_order, 2),
        (Flaw::Corrupts(20), |report| report.details.events_corrupted, 6),
        (Flaw::Misattributes(20), |report| report.details.events_misattributed, 6),
    ];
    for (flaw, count, expected) in cases {
        let (report, erred) = run_against(flaw, "");
        check_sums(&report);
        assert_eq!((count(&report), erred), (expected, expected), "{flaw:?}: {report}");
        assert!(!report.details.broken_promises.is_empty(), "{flaw:?}");
    }
}

#[test]
fn agents_that_lose_their_connection_come_back_and_the_sums_balance() {
    let (report, erred) = run_against(Flaw::HangsUp(25), "");
    check_sums(&report);
    assert!(erred >= 1, "the stand-in hung up");
    assert!(report.events_lost >= erred, "each hang-up loses the event that it followed");
    assert!(report.details.agents_locked >= 1);
    assert_eq!(report.events_lost, report.loss.kernel, "what was lost went with its connection");
    assert_eq!((report.events_duplicated, report.events_out_of_order), (0, 0));
}

#[test]
fn a_manager_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("client.keys");
    std::fs::write(&keys, members::to_file(&members::made_up(AGENTS, 3))).unwrap();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let job = job("--connect-timeout 200ms", port, &keys, &folder.path().join("queue"));
    let error = run(&job, &AtomicBool::new(false)).unwrap_err();
    assert!(error.contains("only 0 of 20 agents") && error.contains(&port.to_string()), "{error}");
}

#[test]
fn a_run_that_is_interrupted_says_so_before_it_connects() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("client.keys");
    std::fs::write(&keys, members::to_file(&members::made_up(AGENTS, 3))).unwrap();
    let job = job("", 9, &keys, &folder.path().join("queue"));
    let error = run(&job, &AtomicBool::new(true)).unwrap_err();
    assert!(error.contains("stopped"), "{error}");
}
