//! From what the parts of a run counted to its report.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::account::Account;
use crate::cli::{Job, ManagerChoice, SinkName};
use crate::managed::ManagerLosses;
use crate::meter::Meter;
use crate::pacing::generator_was_the_limit;
use crate::report::{CpuPerEvent, Details, Latency, LossEvidence, Report, attribute, broken_promises};
use crate::tally::{Counts, Tally};

/// How the messages were sealed.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// How long it took.
    pub seconds: f64,
    /// Mean bytes of a message on the wire.
    pub bytes_per_event: f64,
}

/// All that was counted.
#[derive(Debug)]
pub struct Outcome {
    /// How the messages were sealed.
    pub sealed: Sealed,
    /// Agents that were acknowledged before the run.
    pub connected: u64,
    /// How long that took.
    pub connect_seconds: f64,
    /// Times an agent lost its manager.
    pub locked: u64,
    /// What the generators counted.
    pub crew: Account,
    /// What the reader counted.
    pub tally: Tally,
    /// What the manager says it lost; `None` for one that is not asked.
    pub losses: Option<ManagerLosses>,
    /// What /proc says of the manager.
    pub meter: Meter,
    /// From the start to the end of waiting.
    pub elapsed: Duration,
    /// CPU time of loadgen's threads from the start to the last event.
    pub busy: Duration,
    /// Cores that these threads had.
    pub loadgen_cores: usize,
    /// `embedded`, or the manager's address.
    pub manager_address: String,
    /// Whether the operator ended it early.
    pub interrupted: bool,
}

impl Outcome {
    /// The report of the run.
    pub fn report(self, job: &Job) -> Report {
        let counts = self.tally.counts();
        let crew = &self.crew;
        let losses = self.losses.clone().unwrap_or_default();
        let seconds = self.seconds();
        let delivered = counts.delivered.max(1) as f64;
        let (loss, loss_unattributed) = attribute(LossEvidence {
            due: crew.due,
            taken: crew.taken,
            refused: crew.refused,
            delivered: counts.delivered,
            kernel_drops: self.meter.udp_drops(),
            connections_broke: self.locked > 0,
            manager_dropped: losses.dropped.values().sum(),
            queue_failed: losses.queue_failed,
        });
        let busy_share = self.busy.as_secs_f64() / (seconds * self.loadgen_cores as f64);
        let per_event = |nanoseconds: u64| nanoseconds as f64 / delivered;
        let memory = self.meter.memory();
        let lost = crew.due.saturating_sub(counts.delivered);
        let mut report = Report {
            protocol: job.protocol.name(),
            cipher: job.cipher.name(),
            agents: job.agents,
            agents_connected: self.connected,
            seconds,
            events_sent: crew.due,
            events_delivered: counts.delivered,
            events_lost: lost,
            events_duplicated: counts.duplicated,
            events_out_of_order: counts.out_of_order,
            events_per_second: counts.delivered as f64 / seconds,
            latency_ns: Latency::of(self.tally.latency()),
            manager_cpu_ns_per_event: self.meter.cpu_time().map(|cpu| CpuPerEvent {
                user: per_event(cpu.user_nanoseconds),
                system: per_event(cpu.system_nanoseconds),
            }),
            manager_rss_bytes: memory.map(|memory| memory.resident_bytes),
            loss,
            generator_was_the_limit: generator_was_the_limit(&crew.lateness, busy_share),
            details: Details {
                loss_unattributed,
                loss_share: lost as f64 / crew.due.max(1) as f64,
                loadgen_busy_share: busy_share,
                manager_waited_share: self
                    .meter
                    .cpu_time()
                    .map(|cpu| cpu.waited_nanoseconds as f64 / 1e9 / seconds),
                manager_rss_peak_bytes: memory.map(|memory| memory.resident_peak_bytes),
                manager_dropped: losses.dropped,
                ..self.details(job, &counts)
            },
        };
        report.details.broken_promises = broken_promises(job, &report, &counts);
        report
    }

    fn details(&self, job: &Job, counts: &Counts) -> Details {
        let due_udp = self.crew.due - self.crew.due_tcp;
        Details {
            dialect: job.dialect.name(),
            manager: self.manager_address.clone(),
            sink: match job.manager {
                ManagerChoice::Embedded { sink, .. } => sink.name(),
                ManagerChoice::Target { .. } => SinkName::Queue.name(),
            },
            event_bytes: job.bytes,
            burst: job.burst,
            rate_planned: job.rate,
            seconds_planned: job.duration.as_secs_f64(),
            seed: job.seed,
            sealing: "ahead",
            sealing_seconds: self.sealed.seconds,
            sealed_bytes_per_event: self.sealed.bytes_per_event,
            connect_seconds: self.connect_seconds,
            events_lost_tcp: self.crew.due_tcp.saturating_sub(counts.delivered_tcp),
            events_lost_udp: due_udp.saturating_sub(counts.delivered - counts.delivered_tcp),
            events_corrupted: counts.corrupted,
            events_misattributed: counts.misattributed,
            events_unplanned: counts.unplanned,
            messages_foreign: counts.foreign,
            agents_locked: self.locked,
            acknowledgements: self.crew.acknowledgements,
            generator_lateness_ns: Some(Latency::of(&self.crew.lateness)),
            manager_dropped: BTreeMap::new(),
            queue_datagrams_max: queue_datagrams_max(),
            interrupted: self.interrupted,
            ..Details::default()
        }
    }

    /// From the start to the last arrival; if nothing arrived, to the end of waiting.
    fn seconds(&self) -> f64 {
        match self.tally.last_arrival_nanoseconds() {
            0 => self.elapsed.as_secs_f64().max(1e-9),
            nanoseconds => nanoseconds as f64 / 1e9,
        }
    }
}

/// `net.unix.max_dgram_qlen` of this host, if it says.
pub(crate) fn queue_datagrams_max() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").ok()?.trim().parse().ok()
}
