//! The program itself with the embedded manager, as its README shows it.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs loadgen; returns its JSON report and everything else that it said.
fn loadgen(words: &str) -> (Value, Output) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args("--agents 50 --rate 1000 --duration 120ms".split_whitespace())
        .args(words.split_whitespace())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = std::fs::read(&json).unwrap_or_else(|error| panic!("{words}: no report: {error}: {said}"));
    (serde_json::from_slice(&report).unwrap(), output)
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {report}"))
}

fn check_lossless(words: &str) {
    let (report, output) = loadgen(words);
    assert!(output.status.success(), "{words}: {report}");
    assert_eq!(number(&report, "agents_connected"), 50);
    assert_eq!(
        (number(&report, "events_sent"), number(&report, "events_delivered")),
        (120, 120),
        "{words}: {report}"
    );
    assert_eq!(number(&report, "messages_foreign"), 0);
    assert!(number(&report, "manager_rss_bytes") > 0);
    let cpu = &report["manager_cpu_ns_per_event"];
    assert!(cpu["user"].is_number() && cpu["system"].is_number(), "{cpu}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("manager: ") && said.contains("events 120"),
        "the manager's last line is shown: {said}"
    );
}

#[test]
fn the_embedded_manager_loses_nothing_whatever_is_spoken() {
    for proto in ["tcp", "udp", "both"] {
        for method in ["--cipher blowfish", "--cipher aes"] {
            for dialect in ["ossec", "wazuh"] {
                check_lossless(&format!("--proto {proto} {method} --dialect {dialect}"));
            }
        }
    }
}

#[test]
fn the_archives_are_read_as_well_as_the_queue() {
    check_lossless("--sink archives");
    check_lossless("--sink json --dialect ossec --burst 10");
}

#[test]
fn a_killed_manager_comes_back_and_the_sums_balance() {
    let (report, output) = loadgen(
        "--proto tcp --rate 2000 --duration 1500ms --kill-manager-after 500ms --reconnect-time 50ms --drain 2s --max-loss 100%",
    );
    assert!(output.status.success(), "{report}");
    let (sent, delivered, lost) =
        (number(&report, "events_sent"), number(&report, "events_delivered"), number(&report, "events_lost"));
    assert_eq!((sent, delivered + lost), (3_000, 3_000), "{report}");
    let loss = report["loss"].as_object().unwrap().values().map(|part| part.as_u64().unwrap()).sum::<u64>();
    assert_eq!(loss + number(&report, "loss_unattributed"), lost);
    assert!(number(&report, "agents_locked") >= 50, "every agent lost the manager: {report}");
    assert!(delivered > 1_000, "more arrived than before the kill: {report}");
}

#[test]
fn a_wrong_command_line_is_status_2_and_a_run_that_does_not_fit_says_so() {
    let status = |words: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_loadgen")).args(words.split_whitespace()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for words in ["--rate 0", "--no-such-option", "--proto sctp", "--target 127.0.0.1:1"] {
        assert_eq!(status(words).0, Some(2), "{words}");
    }
    let (code, said) = status("--agents 10 --rate 1e6 --seal-memory-mib 1");
    assert!(code == Some(1) && said.contains("--seal-memory-mib"), "{said}");
}
