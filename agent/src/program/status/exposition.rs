//! A status in the form that Prometheus reads, for the text collector of its node exporter.

use std::fmt::Write;

use super::Status;

/// One family with one sample; a counter's name ends in `_total`.
struct Family {
    name: &'static str,
    help: &'static str,
    /// Nothing where it is not known.
    value: Option<f64>,
}

/// All numbers of a status.
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    let line = |text: &mut String, line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("a String takes all");
    };
    for Family { name, help, value } in families(status) {
        let Some(value) = value else { continue };
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        line(&mut text, format_args!("# HELP ringmaster_agent_{name} {help}"));
        line(&mut text, format_args!("# TYPE ringmaster_agent_{name} {kind}"));
        line(&mut text, format_args!("ringmaster_agent_{name} {value}"));
    }
    line(&mut text, format_args!("# HELP ringmaster_agent_build_info 1, with the version."));
    line(&mut text, format_args!("# TYPE ringmaster_agent_build_info gauge"));
    line(&mut text, format_args!("ringmaster_agent_build_info{{version=\"{}\"}} 1", status.version));
    text
}

fn families(status: &Status) -> [Family; 20] {
    let Status { events, spool, ignored, .. } = status;
    // Numbers beyond 2^53 are none that a day brings.
    let count = |name, help, value: u64| Family { name, help, value: Some(value as f64) };
    let holds = |name, help, value: bool| Family { name, help, value: Some(f64::from(u8::from(value))) };
    [
        holds("connected", "Whether a manager answers.", status.is_connected),
        holds(
            "acknowledged",
            "Whether that manager says itself what its sinks have.",
            status.is_acknowledged,
        ),
        count("connections_total", "Times a manager answered the start-up.", status.connections),
        Family {
            name: "last_word_seconds",
            help: "Seconds since the manager's last message.",
            value: status.last_word_seconds,
        },
        holds("collectors_locked", "Whether collectors are made to wait.", status.is_locked),
        count("events_taken_total", "Events taken from collectors.", events.taken),
        count("events_refused_total", "Events of collectors that can't be sent.", events.refused),
        count("events_handed_total", "Events handed to a connection, again included.", events.handed),
        count("events_again_total", "Events handed over before, to a connection that broke.", events.again),
        count("events_confirmed_total", "Events the manager has; over UDP, events sent.", events.confirmed),
        count("spool_records", "Events in the spool.", spool.records),
        count("spool_bytes", "Bytes of the spool's files.", spool.bytes),
        count("spool_max_bytes", "Bytes that the spool may take.", spool.bytes_max),
        Family {
            name: "spool_oldest_seconds",
            help: "Seconds since the oldest event in the spool was taken.",
            value: spool.oldest_seconds,
        },
        count("spool_dropped_total", "Events lost for want of room.", spool.dropped),
        count("spool_damaged_total", "Events that could not be read back.", spool.damaged),
        holds("spool_written", "Whether the disk takes what it is given.", spool.is_written),
        count(
            "manager_messages_unopened_total",
            "Messages that this agent's key does not open.",
            ignored.unopened.into(),
        ),
        count(
            "manager_messages_stale_total",
            "Messages of the manager with an old counter.",
            ignored.stale.into(),
        ),
        Family {
            name: "uptime_seconds",
            help: "Seconds since the start.",
            value: Some(status.uptime_seconds),
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::{Events, SpoolStatus};
    use super::*;

    fn names(text: &str) -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let text = text(&Status {
            version: "1.2.3".to_owned(),
            is_connected: true,
            events: Events { taken: 1_234_567, ..Events::default() },
            spool: SpoolStatus { oldest_seconds: Some(0.5), ..SpoolStatus::default() },
            ..Status::default()
        });
        for line in [
            "# TYPE ringmaster_agent_events_taken_total counter",
            "ringmaster_agent_events_taken_total 1234567",
            "ringmaster_agent_connected 1",
            "ringmaster_agent_spool_oldest_seconds 0.5",
            "ringmaster_agent_build_info{version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "no line {line} in\n{text}");
        }
        assert!(!names(&text).contains("ringmaster_agent_last_word_seconds"));
    }

    #[test]
    fn the_page_for_operators_has_a_row_for_each() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DELIVERY.md");
        let page = std::fs::read_to_string(page).unwrap();
        let rows: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `ringmaster_agent_")?.split_once("` |"))
            .map(|(name, _)| name)
            .collect();
        let mut all: BTreeSet<&str> = families(&Status::default()).iter().map(|family| family.name).collect();
        all.insert("build_info");
        assert_eq!(rows, all);
    }
}
