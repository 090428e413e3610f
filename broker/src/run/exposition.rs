//! A status in the form that Prometheus reads, for the text collector of its node exporter.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::status::Status;

/// What grows only; all other numbers are of the moment.
const GROWING: [&str; 9] = [
    "appended",
    "damaged",
    "datagrams",
    "dropped",
    "forgotten",
    "not_written",
    "passed",
    "refused",
    "replies",
];

/// All numbers of a status, one a line.
pub(super) fn text(status: &Status) -> String {
    let value = serde_json::to_value(status).expect("it is numbers and texts");
    let mut text = String::new();
    let (role, core) = match status {
        Status::Client { .. } => ("client", &value["client"]),
        Status::Server { .. } => ("server", &value["server"]),
    };
    let prefix = format!("ringmaster_broker_{role}");
    let empty = Map::new();
    for (name, value) in core.as_object().unwrap_or(&empty) {
        match (name.as_str(), value) {
            ("counters", Value::Object(counters)) => {
                for (name, count) in counters {
                    one(&mut text, &format!("{prefix}_{name}_total"), "counter", &[("", count)]);
                }
            }
            ("lines", Value::Array(lines)) => agents(&mut text, lines),
            ("is_well" | "is_connected", Value::Bool(holds)) => {
                one(&mut text, &format!("{prefix}_{name}"), "gauge", &[("", &Value::from(u8::from(*holds)))]);
            }
            (name, Value::Number(_)) => one(&mut text, &format!("{prefix}_{name}"), "gauge", &[("", value)]),
            _ => {}
        }
    }
    if let Some(drops) = value.get("kernel_drops") {
        one(&mut text, &format!("{prefix}_kernel_drops_total"), "counter", &[("", drops)]);
    }
    text
}

/// The numbers of each agent's line.
fn agents(text: &mut String, lines: &[Value]) {
    let empty = Map::new();
    let names = lines.first().and_then(Value::as_object).unwrap_or(&empty).keys();
    for name in names.filter(|name| *name != "agent" && *name != "source") {
        let (suffix, kind) =
            if GROWING.contains(&name.as_str()) { ("_total", "counter") } else { ("", "gauge") };
        let samples: Vec<_> = lines
            .iter()
            .filter(|line| line[name].is_number())
            .map(|line| (line["agent"].as_str().unwrap_or_default(), &line[name]))
            .collect();
        one(text, &format!("ringmaster_broker_agent_{name}{suffix}"), kind, &samples);
    }
}

/// A family with its samples. An agent's name is digits or an address, so that nothing is to be escaped.
fn one(text: &mut String, name: &str, kind: &str, samples: &[(&str, &Value)]) {
    writeln!(text, "# TYPE {name} {kind}").expect("a String takes all");
    for (agent, value) in samples {
        let label = if agent.is_empty() { String::new() } else { format!("{{agent=\"{agent}\"}}") };
        writeln!(text, "{name}{label} {value}").expect("a String takes all");
    }
}
