//! What wazuh-remoted says about itself, in its JSON and with our numbers. What it counts and we have nothing of is 0.
//!
//! Source: wazuh v4.14.7 `remoted/state.c`, `rem_create_state_json` and `rem_create_agents_state_json`.

use std::time::{SystemTime, UNIX_EPOCH};

use codec::AgentId;
use manager::ControlKind;
use serde_json::{Value, json};

use super::Outward;
use super::desk::{Counts, Desk};
use super::remote::answer;
use crate::metrics::{ShardMetrics, Stored};

/// As wazuh-remoted calls itself: its API looks for this name.
const NAME: &str = "wazuh-remoted";

/// Agents in one answer. Source: wazuh v4.14.7 `remoted/state.h`, `REM_MAX_NUM_AGENTS_STATS`.
const AGENTS_MAX: usize = 150;

impl Outward {
    /// `getstats`.
    pub(super) fn stats(&self) -> Value {
        let sum = |of: fn(&ShardMetrics) -> &Stored| -> u64 {
            self.metrics.iter().map(|shard| of(shard).read()).sum()
        };
        let control = |kind: ControlKind| -> u64 {
            self.metrics.iter().map(|shard| shard.control_kinds.0[kind.index()].read()).sum()
        };
        let dropped: u64 = self.metrics.iter().map(|shard| shard.dropped.sum()).sum();
        let outward = &self.counted.outward;
        let (requests, pieces) = self.desk.borrow().messages();
        json!({
            "uptime": epoch(self.started),
            "timestamp": epoch(SystemTime::now()),
            "name": NAME,
            "metrics": {
                "bytes": { "received": sum(|shard| &shard.received_bytes), "sent": sum(|shard| &shard.sent_bytes) },
                // The first is no reload.
                "keys_reload_count": self.counted.key_loads.read().saturating_sub(1),
                "messages": {
                    "received_breakdown": {
                        "control": sum(|shard| &shard.control) - control(ControlKind::Ping),
                        "control_breakdown": {
                            "keepalive": control(ControlKind::KeepAlive),
                            "request": control(ControlKind::RequestAnswer),
                            "shutdown": control(ControlKind::Shutdown),
                            "startup": control(ControlKind::Startup),
                        },
                        "dequeued_after": 0,
                        "discarded": dropped,
                        "event": sum(|shard| &shard.events),
                        "ping": control(ControlKind::Ping),
                        "unknown": control(ControlKind::Unknown),
                    },
                    "sent_breakdown": {
                        "ack": sum(|shard| &shard.acknowledged),
                        "ar": outward.sent.read(),
                        "discarded": sum(|shard| &shard.replies_dropped),
                        "request": requests,
                        "sca": 0,
                        "shared": pieces,
                    },
                },
                "queues": { "received": { "size": 0, "usage": 0 } },
                "tcp_sessions": sum(|shard| &shard.connections),
                "control_messages_queue_usage": 0,
                "control_messages_queue_breakdown": { "inserted": 0, "replaced": 0, "processed": 0 },
            },
        })
    }

    /// `getagentsstats`, for some agents, or for all that are there, some at a time.
    pub(super) fn agents_stats(&self, parameters: &Value) -> Value {
        let desk = self.desk.borrow();
        match &parameters["agents"] {
            Value::Array(agents) if agents.len() >= AGENTS_MAX => answer(11, "Too many agents", json!({})),
            Value::Array(agents) => {
                let numbers: Option<Vec<u64>> = agents.iter().map(Value::as_u64).collect();
                match numbers.filter(|numbers| !numbers.is_empty()) {
                    Some(numbers) => answer(0, "ok", self.of_agents(&desk, &numbers)),
                    None => answer(9, "Error getting agents from DB", json!({})),
                }
            }
            Value::String(all) if all == "all" => match parameters["last_id"].as_u64() {
                Some(last) => {
                    let numbers = self.active_after(&desk, last);
                    let (error, message) = if numbers.len() < AGENTS_MAX { (0, "ok") } else { (1, "due") };
                    answer(error, message, self.of_agents(&desk, &numbers))
                }
                None => answer(10, "Empty last id", json!({})),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                answer(8, "Invalid agents parameter", json!({}))
            }
        }
    }

    fn of_agents(&self, desk: &Desk, numbers: &[u64]) -> Value {
        let table = desk.table();
        let agents = numbers.iter().filter_map(|number| {
            let id: AgentId = format!("{number:03}").parse().ok()?;
            let agent = table.by_id(id)?;
            // One that was never heard has no numbers.
            agent.state().last_seen()?;
            let counts = desk.record(id).map(|record| record.counts).unwrap_or_default();
            let events = agent.state().events();
            Some(agent_stats(*number, epoch(self.started), events.into(), counts))
        });
        let agents: Vec<Value> = agents.collect();
        json!({ "timestamp": epoch(SystemTime::now()), "name": NAME, "agents": agents })
    }

    /// The next agents that are there, by number.
    fn active_after(&self, desk: &Desk, last: u64) -> Vec<u64> {
        let (table, now) = (desk.table(), self.now());
        let there = table.agents().iter().filter(|agent| super::desk::is_there(agent, now));
        let numbers = there.filter_map(|agent| agent.id().as_str().parse::<u64>().ok());
        let mut numbers: Vec<u64> = numbers.filter(|number| *number > last).collect();
        numbers.sort_unstable();
        numbers.truncate(AGENTS_MAX);
        numbers
    }
}

fn agent_stats(number: u64, uptime: u64, events: u64, counts: Counts) -> Value {
    let Counts { startups, keep_alives, shutdowns, answers, letters, pieces, requests } = counts;
    json!({
        "uptime": uptime,
        "id": number,
        "metrics": { "messages": {
            "received_breakdown": {
                "control": startups + keep_alives + shutdowns + answers,
                "control_breakdown": {
                    "keepalive": keep_alives,
                    "request": answers,
                    "shutdown": shutdowns,
                    "startup": startups,
                },
                "event": events,
            },
            "sent_breakdown": {
                "ack": startups + keep_alives,
                "ar": letters,
                "discarded": 0,
                "request": requests,
                "sca": 0,
                "shared": pieces,
            },
        } },
    })
}

fn epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
