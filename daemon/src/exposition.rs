//! `/metrics`: every number as OpenMetrics text, per shard, so that Prometheus sums them.
//!
//! Names keep to Prometheus' conventions, each has its row in docs/OPERATIONS.md, and each is on the dashboard or said not to be:
//! `exposition/conventions.rs` tests all three.

#[cfg(test)]
mod conventions;
mod process;

use std::{fmt, sync::Arc, time::Duration};

use manager::{CloseReason, Reason, Refusal};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    clock::Clock,
    metrics::{ShardMetrics, SinkFailure, SinkKind, SinkMetrics, SinkState, Stored},
    outward::{self, OutwardMetrics},
};

/// The Content-Type that goes with [`Exposition::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the control plane itself counts; only its thread writes.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    /// Agents in the table.
    pub agents: Stored,
    /// Lines of client.keys that are skipped or corrected.
    pub key_problems: Stored,
    /// Agent tables made since the start.
    pub key_loads: Stored,
    /// Times the counters were written.
    pub counter_writes: Stored,
    /// Times they could not be written.
    pub counter_write_failures: Stored,
    /// Agents that are there.
    pub agents_active: Stored,
    /// Agents that were there once.
    pub agents_disconnected: Stored,
    /// Agents that nothing was ever heard of.
    pub agents_never: Stored,
    /// Files of queue/agent-info written or touched.
    pub agent_info_writes: Stored,
    /// Files of queue/agent-info that could not be.
    pub agent_info_write_failures: Stored,
    /// News of agents from the shards that the control plane had no room for.
    pub notices_dropped: Stored,
    /// Times that the settings were read again.
    pub settings_loads: Stored,
    /// Times that they were not taken.
    pub settings_refusals: Stored,
    /// Agents that have a place in the ledger of acknowledged delivery.
    pub delivery_agents: Stored,
    /// Requests over the command socket.
    pub commands: Stored,
    /// What is said to agents.
    pub outward: OutwardMetrics,
}

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// The numbers of these shards and of the control plane.
    pub fn new(clock: Clock, shards: Vec<Arc<ShardMetrics>>, control: Arc<ControlMetrics>) -> Exposition {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::started_now()));
        let ours = registry.sub_registry_with_prefix("ringmaster");
        ours.register_collector(Box::new(Numbers { clock, shards, control }));
        Exposition { registry }
    }

    /// The text, as it is now.
    ///
    /// # Panics
    /// Never: a String takes all.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes all");
        text
    }
}

#[derive(Debug)]
struct Numbers {
    clock: Clock,
    shards: Vec<Arc<ShardMetrics>>,
    control: Arc<ControlMetrics>,
}

/// Name, help and place of a number that each shard has.
type OfShard = (&'static str, &'static str, fn(&ShardMetrics) -> &Stored);
/// The same for a number that each sink of each shard has.
type OfSink = (&'static str, &'static str, fn(&SinkMetrics) -> &Stored);
/// The same for a number of the control plane.
type OfControl = (&'static str, &'static str, fn(&ControlMetrics) -> &Stored);

const SHARD_COUNTERS: &[OfShard] = &[
    ("received", "Messages received, kernel drops included: events + control + dropped", |shard| {
        &shard.received
    }),
    ("received_bytes", "Bytes of all messages received", |shard| &shard.received_bytes),
    ("events", "Messages that were events and were taken over by the sinks", |shard| &shard.events),
    ("control", "Control messages", |shard| &shard.control),
    ("events_raised", "Events of the manager's own that the sinks took over: an agent stopped", |shard| {
        &shard.raised
    }),
    ("events_raised_dropped", "Events of the manager's own that found a sink over its soft bound", |shard| {
        &shard.raised_dropped
    }),
    ("sent", "Messages sent to agents", |shard| &shard.sent),
    ("sent_bytes", "Bytes of all messages sent to agents", |shard| &shard.sent_bytes),
    ("acknowledged", "Start-ups and keep-alives that were acknowledged", |shard| &shard.acknowledged),
    ("connections_accepted", "TCP connections accepted", |shard| &shard.accepted),
    ("replies_dropped", "Datagrams to agents that were not sent", |shard| &shard.replies_dropped),
    ("slow_readers", "TCP connections closed because their agent did not read", |shard| &shard.slow_readers),
    ("pauses", "Times a TCP connection was not read because a sink was over its soft bound", |shard| {
        &shard.pauses
    }),
    ("rate_holds", "Times a TCP connection was not read because its agent sent more than it may", |shard| {
        &shard.rate_holds
    }),
    ("delivery_taken_messages", "Messages that told an agent what every sink has of its events", |shard| {
        &shard.delivery_taken
    }),
    ("delivery_full", "Offers of acknowledged delivery for which the ledger had no room", |shard| {
        &shard.delivery_full
    }),
    ("syslog_lines", "Lines of syslog listeners taken over by the sinks; part of events", |shard| {
        &shard.syslog_lines
    }),
    (
        "syslog_lines_cut",
        "Of these: lines longer than analysisd takes, of which the first part was taken",
        |shard| &shard.syslog_lines_cut,
    ),
    ("syslog_connections_idle", "Syslog connections closed because they said nothing", |shard| {
        &shard.syslog_idle
    }),
    ("receive_buffers_exhausted", "Times the kernel found no receive buffer free", |shard| {
        &shard.buffers_exhausted
    }),
    ("turns", "Turns of the shard's loop", |shard| &shard.turns),
    ("ring_enters", "Calls of io_uring_enter", |shard| &shard.enters),
];

const SHARD_GAUGES: &[OfShard] = &[
    ("connections", "TCP connections open", |shard| &shard.connections),
    ("connections_authenticated", "TCP connections open that are bound to an agent", |shard| {
        &shard.connections_authenticated
    }),
    ("connections_paused", "TCP connections that feel back-pressure", |shard| &shard.connections_paused),
    ("connections_held", "TCP connections not read now because their agent sent more than it may", |shard| {
        &shard.connections_held
    }),
    ("delivery_connections", "TCP connections whose agent gets its events confirmed", |shard| {
        &shard.delivery_connections
    }),
    ("syslog_connections", "Syslog connections open", |shard| &shard.syslog_connections),
    ("listeners_deaf", "Listeners from which nothing is received or accepted now", |shard| {
        &shard.listeners_deaf
    }),
];

const SINK_COUNTERS: &[OfSink] = &[
    ("sink_taken", "Events taken over by a sink: delivered + held + failed", |sink| &sink.taken),
    ("sink_delivered", "Events written or sent by a sink", |sink| &sink.delivered),
    ("sink_calls", "Sends of a sink, each of many events, or its writes", |sink| &sink.calls),
    ("sink_stalls", "Times a sink had to wait for its reader, or failed and tried again", |sink| {
        &sink.stalls
    }),
];

const SINK_GAUGES: &[OfSink] = &[
    ("sink_held", "Events that wait in a sink", |sink| &sink.held),
    ("sink_held_bytes", "Bytes that wait in a sink", |sink| &sink.held_bytes),
];

const CONTROL_COUNTERS: &[OfControl] = &[
    ("key_loads", "Agent tables made from client.keys", |control| &control.key_loads),
    ("settings_loads", "Reloads of the settings that were taken", |control| &control.settings_loads),
    (
        "settings_refusals",
        "Reloads of the settings that were refused, so that everything stayed",
        |control| &control.settings_refusals,
    ),
    ("rids_writes", "Times the message counters were written to disk", |control| &control.counter_writes),
    ("rids_write_failures", "Times the message counters could not be written to disk", |control| {
        &control.counter_write_failures
    }),
    ("agent_info_writes", "Files of queue/agent-info written or touched", |control| {
        &control.agent_info_writes
    }),
    (
        "agent_info_write_failures",
        "Files of queue/agent-info that could not be written or touched",
        |control| &control.agent_info_write_failures,
    ),
    ("notices_dropped", "News of agents that the control plane had no room for", |control| {
        &control.notices_dropped
    }),
    ("commands", "Requests over the command socket", |control| &control.commands),
];

const CONTROL_GAUGES: &[OfControl] = &[
    ("agents", "Agents in client.keys", |control| &control.agents),
    ("agents_active", "Agents with a connection, or heard over UDP not long ago", |control| {
        &control.agents_active
    }),
    ("agents_disconnected", "Agents that were there once and are not now", |control| {
        &control.agents_disconnected
    }),
    ("agents_never", "Agents that nothing was ever heard of", |control| &control.agents_never),
    ("delivery_agents", "Agents in the ledger of acknowledged delivery", |control| &control.delivery_agents),
    ("key_problems", "Lines of client.keys that are skipped or corrected", |control| &control.key_problems),
];

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let build = [([labelled("version", env!("CARGO_PKG_VERSION"))], 1)];
        gauges(&mut encoder, "build_info", "1, with the version of the program", build.into_iter())?;
        for (name, help, stored) in SHARD_COUNTERS {
            let values = self.labelled().map(|(label, shard)| ([label], stored(shard).read()));
            counters(&mut encoder, name, help, values)?;
        }
        let dropped = self.labelled().flat_map(|(label, shard)| {
            let count = move |reason: Reason| shard.dropped.0[reason.index()].read();
            Reason::ALL
                .into_iter()
                .map(move |reason| ([label.clone(), labelled("reason", reason.name())], count(reason)))
        });
        counters(&mut encoder, "dropped", "Messages dropped, by reason", dropped)?;
        let closed = self.labelled().flat_map(|(label, shard)| {
            let count = move |reason: CloseReason| shard.closed.0[reason.index()].read();
            CloseReason::ALL
                .into_iter()
                .map(move |reason| ([label.clone(), labelled("reason", reason.name())], count(reason)))
        });
        counters(&mut encoder, "connections_closed", "TCP connections that ended, by reason", closed)?;
        let refused = self.labelled().flat_map(|(label, shard)| {
            let count = move |reason: Refusal| shard.refused.0[reason.index()].read();
            Refusal::ALL
                .into_iter()
                .map(move |reason| ([label.clone(), labelled("reason", reason.name())], count(reason)))
        });
        let help = "TCP connections closed at once, by the limit that was reached";
        counters(&mut encoder, "connections_refused", help, refused)?;
        for (name, help, stored) in SHARD_GAUGES {
            let values = self.labelled().map(|(label, shard)| ([label], stored(shard).read()));
            gauges(&mut encoder, name, help, values)?;
        }
        self.encode_sinks(&mut encoder)?;
        self.encode_heartbeats(&mut encoder)?;
        for (name, help, stored) in CONTROL_COUNTERS {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(stored(&self.control).read()).encode(family)?;
        }
        for (name, help, stored) in outward::COUNTERS {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(stored(&self.control.outward).read()).encode(family)?;
        }
        for (name, help, stored) in outward::GAUGES {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(stored(&self.control.outward).read()).encode(family)?;
        }
        for (name, help, stored) in CONTROL_GAUGES {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(stored(&self.control).read()).encode(family)?;
        }
        Ok(())
    }
}

impl Numbers {
    fn labelled(&self) -> impl Iterator<Item = (Label, &ShardMetrics)> {
        self.shards.iter().enumerate().map(|(id, shard)| (labelled("shard", &id.to_string()), &**shard))
    }

    /// The sinks in use. One that is off has no numbers.
    fn sinks(&self) -> impl Iterator<Item = ([Label; 2], &SinkMetrics)> {
        self.labelled().flat_map(|(label, shard)| {
            let in_use = SinkKind::ALL.into_iter().filter(|kind| shard.sink(*kind).state() != SinkState::Off);
            in_use.map(move |kind| ([label.clone(), labelled("sink", kind.name())], shard.sink(kind)))
        })
    }

    fn encode_sinks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, stored) in SINK_COUNTERS {
            counters(encoder, name, help, self.sinks().map(|(labels, sink)| (labels, stored(sink).read())))?;
        }
        let failed = self.sinks().flat_map(|([shard, kind], sink)| {
            SinkFailure::ALL.into_iter().map(move |failure| {
                let labels = [shard.clone(), kind.clone(), labelled("reason", failure.name())];
                (labels, sink.failed[failure as usize].read())
            })
        });
        counters(encoder, "sink_failed", "Events that a sink gave up, by reason", failed)?;
        for (name, help, stored) in SINK_GAUGES {
            gauges(encoder, name, help, self.sinks().map(|(labels, sink)| (labels, stored(sink).read())))?;
        }
        let taking =
            self.sinks().map(|(labels, sink)| (labels, u64::from(sink.state() == SinkState::Taking)));
        gauges(
            encoder,
            "sink_taking",
            "1 if a sink takes events, 0 if its reader is away, slow or failing",
            taking,
        )
    }

    fn encode_heartbeats(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.clock.nanoseconds();
        let help = "Time since the shard's last turn; it turns at least once a second";
        let mut family = encoder.encode_descriptor("heartbeat_age_seconds", help, None, MetricType::Gauge)?;
        for (label, shard) in self.labelled() {
            let age = Duration::from_nanos(now.saturating_sub(shard.heartbeat_nanoseconds.read()));
            ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&[label])?)?;
        }
        Ok(())
    }
}

type Label = (&'static str, String);

fn labelled(name: &'static str, value: &str) -> Label {
    (name, value.to_owned())
}

fn counters<Labels: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<Labels: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_line() {
        let shards: Vec<_> = (0..2).map(|_| Arc::new(ShardMetrics::default())).collect();
        shards[1].received.set(5);
        shards[1].dropped.0[Reason::WrongKey.index()].set(2);
        shards[1].sink(SinkKind::Queue).set_state(SinkState::Away);
        shards[1].sink(SinkKind::Queue).failed[SinkFailure::TooLong as usize].set(3);
        let control = Arc::new(ControlMetrics::default());
        control.agents.set(7);
        let text = Exposition::new(Clock::start(), shards, control).text();
        for line in [
            "ringmaster_received_total{shard=\"0\"} 0",
            "ringmaster_received_total{shard=\"1\"} 5",
            "ringmaster_dropped_total{shard=\"1\",reason=\"wrong_key\"} 2",
            "ringmaster_sink_failed_total{shard=\"1\",sink=\"queue\",reason=\"too_long\"} 3",
            "ringmaster_sink_taking{shard=\"1\",sink=\"queue\"} 0",
            "ringmaster_agents 7",
            "# EOF",
        ] {
            assert!(text.lines().any(|present| present == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("shard=\"0\",sink="), "a sink that is off has no numbers\n{text}");
    }
}
