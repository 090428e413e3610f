//! internal_options.conf and local_internal_options.conf: `remoted.name=number` lines, of which few mean something here.

use super::{ConfError, Remark, Unused, shown};
use crate::settings::Replay;

/// The file that the product ships.
pub const INTERNAL_OPTIONS: &str = "etc/internal_options.conf";
/// The file that is the operator's, and goes before the other.
pub const LOCAL_INTERNAL_OPTIONS: &str = "etc/local_internal_options.conf";

/// What one of the two files says to the manager.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InternalOptions {
    /// `remoted.verify_msg_id`, and its line.
    pub replay: Option<(Replay, usize)>,
    /// Lines that are none, and options that no product knows.
    pub remarks: Vec<Remark>,
    /// What is understood, and means nothing here.
    pub unused: Vec<Unused>,
}

/// What an option of `remoted.` means here.
enum Meaning {
    /// Whether counters are looked at.
    Replay,
    /// Nothing, because.
    Nothing(&'static str),
}

impl InternalOptions {
    /// Reads a file's bytes. As in the C programs the first line of a name counts, and lines that begin with `#` or a
    /// blank do not.
    ///
    /// Source: ossec-hids 4.3.0 `shared/validate_op.c`, `_read_file` and `getDefine_Int`.
    ///
    /// # Errors
    /// When an option that means something here has a value that it can't have.
    pub fn parse(bytes: &[u8]) -> Result<InternalOptions, ConfError> {
        let mut options = InternalOptions::default();
        let mut seen: Vec<&str> = Vec::new();
        let text = String::from_utf8_lossy(bytes);
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.is_empty() || line.starts_with(['#', ' ', '\r']) {
                continue;
            }
            let Some(option) = line.strip_prefix("remoted.") else { continue };
            let Some((name, value)) = option.split_once('=') else {
                let text = format!("'{}' is no option: write name=number", shown(line));
                options.remark(number, text);
                continue;
            };
            let Some((known, meaning)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
                let text = format!("remoted.{} is no option that OSSEC or Wazuh knows: skipped", shown(name));
                options.remark(number, text);
                continue;
            };
            if seen.contains(known) {
                continue;
            }
            seen.push(known);
            match meaning {
                Meaning::Nothing(because) => {
                    options.unused.push(Unused { line: number, name: format!("remoted.{name}"), because });
                }
                Meaning::Replay => options.replay = Some((replay(value, number)?, number)),
            }
        }
        Ok(options)
    }

    fn remark(&mut self, line: usize, text: String) {
        if self.remarks.len() < super::REMARKS_MAX {
            self.remarks.push(Remark { line, text });
        }
    }
}

fn replay(value: &str, line: usize) -> Result<Replay, ConfError> {
    match value {
        "0" => Ok(Replay::Off),
        "1" => Ok(Replay::Strict),
        _ => {
            let problem =
                format!("remoted.verify_msg_id: '{}' can't be used: use 0 (off) or 1 (strict)", shown(value));
            Err(ConfError { line, problem })
        }
    }
}

/// Every `remoted.` option of OSSEC 4.3.0 and Wazuh 4.14.
///
/// Source: `etc/internal_options.conf`, and each `getDefine_Int("remoted", ...)` of ossec-hids 4.3.0 and wazuh v4.14.7.
const OPTIONS: &[(&str, Meaning)] = &[
    ("buffer_relax", Meaning::Nothing(RECEIVING)),
    ("comp_average_printout", Meaning::Nothing("/metrics has the numbers")),
    (
        "control_msg_queue_size",
        Meaning::Nothing("control messages are answered in the turn that brings them"),
    ),
    ("debug", Meaning::Nothing("there are no lines for debugging: /metrics has what they would say")),
    ("disk_storage", Meaning::Nothing("merged.mg is made in memory")),
    ("guess_agent_group", Meaning::Nothing("an agent's group is never guessed")),
    ("keyupdate_interval", Meaning::Nothing("client.keys is watched")),
    ("max_attempts", Meaning::Nothing(REQUESTS)),
    ("merge_shared", Meaning::Nothing("merged.mg is made whenever one of its files changes")),
    ("pass_empty_keyfile", Meaning::Nothing("an empty client.keys ends nothing: it is watched")),
    ("receive_chunk", Meaning::Nothing(RECEIVING)),
    ("recv_counter_flush", Meaning::Nothing("every counter that moved is written each second")),
    (
        "recv_timeout",
        Meaning::Nothing("no thread waits for one agent; agents.authentication_deadline_seconds"),
    ),
    ("request_pool", Meaning::Nothing(REQUESTS)),
    ("request_rto_msec", Meaning::Nothing(REQUESTS)),
    ("request_rto_sec", Meaning::Nothing(REQUESTS)),
    ("request_timeout", Meaning::Nothing(REQUESTS)),
    ("response_timeout", Meaning::Nothing(REQUESTS)),
    (
        "rlimit_nofile",
        Meaning::Nothing("the hard limit of the process is used, and connections do not count against it"),
    ),
    ("router_forwarding_disabled", Meaning::Nothing("there is no router")),
    ("send_buffer_size", Meaning::Nothing("agents.send_queue_bytes_max")),
    ("send_chunk", Meaning::Nothing("what waits for an agent is sent at its speed")),
    ("send_timeout_to_retry", Meaning::Nothing("what waits for an agent is sent at its speed")),
    ("sender_pool", Meaning::Nothing("shards send")),
    ("shared_reload", Meaning::Nothing("etc/shared is watched")),
    ("state_interval", Meaning::Nothing("/metrics has the numbers")),
    ("syslog_tcp_max_tasks", Meaning::Nothing("syslog.connections_max")),
    (
        "syslog_tcp_read_timeout",
        Meaning::Nothing(
            "a silent connection holds no thread, and a closed one costs its device a line: syslog.idle_seconds",
        ),
    ),
    ("syslog_tcp_worker_pool", Meaning::Nothing("shards receive: shards.cores")),
    ("tcp_keepcnt", Meaning::Nothing(SILENCE)),
    ("tcp_keepidle", Meaning::Nothing(SILENCE)),
    ("tcp_keepintvl", Meaning::Nothing(SILENCE)),
    ("verify_msg_id", Meaning::Replay),
    ("worker_pool", Meaning::Nothing("shards receive: shards.cores")),
];

const RECEIVING: &str = "receive buffers are the shards': shards.stream_buffers";
const REQUESTS: &str = "requests have bounds of their own";
const SILENCE: &str = "agents.silence_deadline_seconds ends a dead connection";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_products() {
        let text = b"# remoted.verify_msg_id=7\n remoted.verify_msg_id=7\n\nanalysisd.x=1\nsyscheck\n\
            remoted.recv_counter_flush=128\nremoted.verify_msg_id=0\r\nremoted.verify_msg_id=1\nremoted.worker_pool=4\n\
            remoted.new=1\nremoted.odd\n";
        let options = InternalOptions::parse(text).unwrap();
        assert_eq!(options.replay, Some((Replay::Off, 7)));
        let unused: Vec<(usize, &str)> =
            options.unused.iter().map(|unused| (unused.line, unused.name.as_str())).collect();
        assert_eq!(unused, [(6, "remoted.recv_counter_flush"), (9, "remoted.worker_pool")]);
        let remarks: Vec<String> =
            options.remarks.iter().map(|remark| format!("{}: {}", remark.line, remark.text)).collect();
        assert_eq!(
            remarks,
            [
                "10: remoted.new is no option that OSSEC or Wazuh knows: skipped",
                "11: 'remoted.odd' is no option: write name=number",
            ]
        );
    }

    #[test]
    fn a_value_that_c_refuses_is_refused() {
        for value in ["", "2", " 1", "1 ", "-1", "yes"] {
            let error =
                InternalOptions::parse(format!("\nremoted.verify_msg_id={value}\n").as_bytes()).unwrap_err();
            let expected =
                format!("line 2: remoted.verify_msg_id: '{value}' can't be used: use 0 (off) or 1 (strict)");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn options_are_sorted_and_named_once() {
        assert!(OPTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
