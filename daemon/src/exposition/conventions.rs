//! What a metric needs beside a number: a name by Prometheus' conventions, a row in docs/OPERATIONS.md, a place on the dashboard.
//!
//! A metric that is missing somewhere fails here, and the failure says where to add it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::*;
use crate::metrics::SinkState;

/// The text with everything on.
fn text() -> String {
    let shard = ShardMetrics::default();
    for kind in SinkKind::ALL {
        shard.sink(kind).set_state(SinkState::Taking);
    }
    Exposition::new(Clock::start(), vec![Arc::new(shard)], Arc::new(ControlMetrics::default())).text()
}

/// Name, as a query has it, and type of each family.
fn families(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let queried = |(name, kind): (&str, &str)| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{suffix}"), kind.to_owned())
    };
    types.map(queried).collect()
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// The rules of `promtool check metrics`. Returns what is wrong with a family.
fn problems(name: &str, kind: &str, help: &str) -> Vec<String> {
    const UNITS_NOT_BASE: [&str; 14] = [
        "milliseconds",
        "microseconds",
        "nanoseconds",
        "minutes",
        "hours",
        "days",
        "weeks",
        "kilobytes",
        "megabytes",
        "gigabytes",
        "bits",
        "percent",
        "celsius",
        "kelvin",
    ];
    const ABBREVIATIONS: [&str; 16] =
        ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d", "msgs", "conns"];
    const TYPES: [&str; 4] = ["counter", "gauge", "histogram", "summary"];
    let words: Vec<&str> = name.split('_').collect();
    let mut found = Vec::new();
    let mut check = |holds: bool, problem: &str| {
        if !holds {
            found.push(format!("{name}: {problem}"));
        }
    };
    let characters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    check(name.bytes().all(characters), "lower case, digits and _ only");
    check(!words.contains(&""), "no double _");
    check(!help.is_empty() && !help.starts_with(char::is_lowercase), "a help text that is a sentence");
    check((kind == "counter") == name.ends_with("_total"), "counters, and no others, end in _total");
    check(["_bucket", "_count", "_sum"].iter().all(|end| !name.ends_with(end)), "no suffix of a histogram");
    check(words.iter().all(|word| !UNITS_NOT_BASE.contains(word)), "base units: seconds, bytes");
    check(words.iter().all(|word| !ABBREVIATIONS.contains(word)), "units in full");
    check(words.iter().all(|word| !TYPES.contains(word)), "no type in the name");
    found
}

#[test]
fn names_keep_to_the_conventions() {
    let text = text();
    let helps: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let mut wrong = Vec::new();
    for (name, kind) in families(&text) {
        let help = helps.get(name.trim_end_matches("_total")).copied().unwrap_or_default();
        wrong.extend(problems(&name, &kind, help));
    }
    assert_eq!(wrong, Vec::<String>::new());
    let count = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(count, families(&text).len(), "no family comes twice\n{text}");
}

#[test]
fn the_conventions_find_what_breaks_them() {
    let check = |name: &str, kind: &str, expected: usize| {
        assert_eq!(
            problems(name, kind, "Help").len(),
            expected,
            "{name}: {:?}",
            problems(name, kind, "Help")
        );
    };
    check("ringmaster_events_total", "counter", 0);
    check("ringmaster_events", "counter", 1);
    check("ringmaster_agents_total", "gauge", 1);
    check("ringmaster_age_milliseconds", "gauge", 1);
    check("ringmaster_queue_count", "gauge", 1);
    check("ringmaster_rate_kb", "gauge", 1);
    check("ringmaster_agentGauge", "gauge", 1);
    assert_eq!(problems("ringmaster_agents", "gauge", "").len(), 1);
}

#[test]
fn every_metric_has_its_row_in_operations_and_every_row_its_metric() {
    let text = text();
    let page = shipped("docs/OPERATIONS.md");
    let mut rows = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, means, moves, _] = cells.as_slice() else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        if name.starts_with("ringmaster_") || name.starts_with("process_") {
            assert!(
                !means.is_empty() && !moves.is_empty(),
                "docs/OPERATIONS.md, {name}: what it means, and what to do"
            );
            assert_eq!(rows.insert(name.to_owned(), ()), None, "docs/OPERATIONS.md has two rows for {name}");
        }
    }
    let (documented, there): (BTreeSet<_>, BTreeSet<_>) =
        (rows.into_keys().collect(), families(&text).into_keys().collect());
    let missing: Vec<_> = there.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "docs/OPERATIONS.md needs a row | `name` | means | when it moves | for {missing:?}"
    );
    let gone: Vec<_> = documented.difference(&there).collect();
    assert!(gone.is_empty(), "docs/OPERATIONS.md has rows for metrics that are no more: {gone:?}");
}

#[test]
fn every_reason_is_in_operations() {
    let page = shipped("docs/OPERATIONS.md");
    let reasons = Reason::ALL.iter().map(|reason| reason.name());
    let others = CloseReason::ALL.iter().map(|reason| reason.name());
    let more = Refusal::ALL.iter().map(|reason| reason.name());
    let missing: Vec<_> =
        reasons.chain(others).chain(more).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/OPERATIONS.md does not say what to do about {missing:?}");
}

#[test]
fn every_metric_is_on_the_dashboard_or_said_not_to_be_and_the_dashboard_asks_for_no_other() {
    let there: BTreeSet<String> = families(&text()).into_keys().collect();
    let dashboard: serde_json::Value =
        serde_json::from_str(&shipped("tuning/grafana/ringmaster.json")).unwrap();
    let mut asked = BTreeSet::new();
    let panels = dashboard["panels"].as_array().unwrap();
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        names(target["expr"].as_str().unwrap(), &mut asked);
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        names(variable["query"].as_str().unwrap_or_default(), &mut asked);
    }
    let unknown: Vec<_> = asked.difference(&there).collect();
    assert!(unknown.is_empty(), "tuning/grafana/ringmaster.json asks for what is not there: {unknown:?}");

    let page = shipped("docs/OPERATIONS.md");
    let left_out = page.lines().find(|line| line.starts_with("Not on the dashboard: ")).unwrap();
    let mut shown = asked;
    names(left_out, &mut shown);
    let missing: Vec<_> = there.difference(&shown).collect();
    assert!(
        missing.is_empty(),
        "add them to a panel of tuning/grafana/ringmaster.json, or to the line \"Not on the dashboard\" of \
         docs/OPERATIONS.md: {missing:?}"
    );
}

/// Every word of a text that is a metric's name.
fn names(text: &str, into: &mut BTreeSet<String>) {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let ours = words.filter(|word| word.starts_with("ringmaster_") || word.starts_with("process_"));
    into.extend(ours.map(str::to_owned));
}
