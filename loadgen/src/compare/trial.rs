//! One trial: events of one protocol, at one rate, so many in a segment; and whether it held. Pure.

use serde::Serialize;

use crate::account::Account;
use crate::compare::search::Verdict;
use crate::managed::ManagerLosses;
use crate::pacing::generator_was_the_limit;
use crate::proc::CpuTime;
use crate::report::{CpuPerEvent, Latency};
use crate::tally::Tally;

/// A rate holds if events come at least at this share of it.
const RATE_SHARE_MIN: f64 = 0.98;
/// What arrives so soon after the plan's end was on its way, and not late: with 2 s of events no other bound than the one
/// above, with less a bound that a host's hiccup does not break.
const TAIL_SECONDS: f64 = 0.04;
/// A trial that failed by less than this is made again: this may have been the host.
const NEAR_MISS_SHARE: f64 = 0.02;
/// Above this share of waiting for its core the manager's figures are the host's, too.
const WAITED_SHARE_MUCH: f64 = 0.1;
/// Above this one a rate that failed is not the manager's limit.
const WAITED_SHARE_TOO_MUCH: f64 = 0.25;

/// What was offered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Offer {
    /// Whether over TCP, or else over UDP.
    #[serde(skip)]
    pub is_tcp: bool,
    /// Events in one segment, or datagrams back to back.
    pub segment: u32,
    /// Events a second.
    pub rate: f64,
}

/// What the parts of a leg counted.
#[derive(Debug)]
pub struct TrialEvidence {
    /// What was offered.
    pub offer: Offer,
    /// Seconds that it was offered for.
    pub seconds_planned: f64,
    /// Events that were due.
    pub due: u64,
    /// What the generators did; `None` if they could not hand everything to the kernel.
    pub account: Option<Account>,
    /// What arrived.
    pub tally: Tally,
    /// CPU time of the manager; `None` without its pid.
    pub cpu: Option<CpuTime>,
    /// CPU time of loadgen's threads over that of its cores.
    pub busy_seconds_per_core: f64,
    /// Datagrams dropped at the manager's sockets.
    pub kernel_drops: u64,
    /// What the manager says it lost in this leg.
    pub losses: ManagerLosses,
}

/// What became of a trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// What was offered.
    #[serde(flatten)]
    pub offer: Offer,
    /// Events that were due.
    pub due: u64,
    /// Of these, those that did not arrive.
    pub lost: u64,
    /// Events that arrived a second.
    pub delivered_rate: f64,
    /// The manager's CPU an event.
    pub cpu_ns_per_event: Option<CpuPerEvent>,
    /// From the intended time to the arrival.
    pub latency_ns: Latency,
    /// Whether loadgen kept its own plan.
    pub generator_was_the_limit: bool,
    /// Share of loadgen's cores that its threads used.
    pub loadgen_busy_share: f64,
    /// Share of the trial for which the manager had no core.
    pub manager_waited_share: Option<f64>,
    /// Events duplicated, changed, misattributed, unplanned, or out of order over TCP: 0 with any sound manager.
    pub harmed: u64,
    /// Where events were lost, in words; empty if none were.
    pub lost_where: String,
}

impl Trial {
    /// The account of a leg.
    pub fn of(evidence: &TrialEvidence) -> Trial {
        let counts = evidence.tally.counts();
        let planned = evidence.seconds_planned;
        let last_arrival = evidence.tally.last_arrival_nanoseconds() as f64 / 1e9;
        let seconds = if last_arrival > planned + TAIL_SECONDS { last_arrival } else { planned };
        let busy_share = evidence.busy_seconds_per_core / seconds;
        let delivered = counts.delivered.max(1) as f64;
        let lost = evidence.due.saturating_sub(counts.delivered);
        let was_the_limit = match &evidence.account {
            Some(account) => generator_was_the_limit(&account.lateness, busy_share),
            // The connections took no more, so the generator's own lateness says nothing.
            None => busy_share > crate::pacing::BUSY_SHARE_MAX,
        };
        Trial {
            offer: evidence.offer,
            due: evidence.due,
            lost,
            delivered_rate: counts.delivered as f64 / seconds,
            cpu_ns_per_event: evidence.cpu.map(|cpu| CpuPerEvent {
                user: cpu.user_nanoseconds as f64 / delivered,
                system: cpu.system_nanoseconds as f64 / delivered,
            }),
            latency_ns: Latency::of(evidence.tally.latency()),
            generator_was_the_limit: was_the_limit,
            loadgen_busy_share: busy_share,
            manager_waited_share: evidence.cpu.map(|cpu| cpu.waited_nanoseconds as f64 / 1e9 / seconds),
            harmed: counts.duplicated
                + counts.corrupted
                + counts.misattributed
                + counts.unplanned
                + counts.out_of_order_tcp,
            lost_where: if lost == 0 { String::new() } else { lost_where(evidence) },
        }
    }

    /// Whether its rate holds.
    pub fn verdict(&self) -> Verdict {
        let held = self.lost == 0 && self.delivered_rate >= RATE_SHARE_MIN * self.offer.rate;
        let waited = self.manager_waited_share.unwrap_or(0.0);
        match (self.generator_was_the_limit, held) {
            (true, _) => Verdict::GeneratorLimit,
            (false, true) => Verdict::Held,
            (false, false) if waited > WAITED_SHARE_TOO_MUCH => Verdict::HostLimit,
            (false, false) => Verdict::Failed,
        }
    }

    /// Whether it failed by so little that the host may have been the reason.
    pub fn is_near_miss(&self) -> bool {
        let lost_share = self.lost as f64 / self.due.max(1) as f64;
        let late_share = 1.0 - self.delivered_rate / self.offer.rate;
        self.verdict() != Verdict::Held
            && lost_share < NEAR_MISS_SHARE
            && late_share < NEAR_MISS_SHARE + (1.0 - RATE_SHARE_MIN)
    }

    /// CPU of the manager an event, user and system.
    pub fn cpu(&self) -> Option<f64> {
        self.cpu_ns_per_event.map(|cpu| cpu.user + cpu.system)
    }

    /// What makes its figures doubtful, in words; `None` if nothing does.
    pub fn doubt(&self) -> Option<String> {
        let waited = self.manager_waited_share.unwrap_or(0.0);
        let waited_words = || format!("the manager waited for its core for {:.0}% of it", waited * 100.0);
        if self.harmed > 0 {
            Some(format!("{} events harmed, repeated or out of order", self.harmed))
        } else if self.generator_was_the_limit {
            Some(format!("loadgen was the limit ({:.0}% busy)", self.loadgen_busy_share * 100.0))
        } else if self.verdict() == Verdict::HostLimit {
            Some(format!(
                "{}, and it came at {:.0}/s only, {} lost",
                waited_words(),
                self.delivered_rate,
                self.lost
            ))
        } else if self.lost > 0 {
            Some(format!("lost {} of {} events ({})", self.lost, self.due, self.lost_where))
        } else if self.verdict() == Verdict::Failed {
            Some(format!("came at {:.0}/s only", self.delivered_rate))
        } else if waited > WAITED_SHARE_MUCH {
            Some(waited_words())
        } else {
            None
        }
    }
}

fn lost_where(evidence: &TrialEvidence) -> String {
    let never_sent = evidence.account.as_ref().map_or(0, |account| account.due - account.taken);
    let dropped: u64 = evidence.losses.dropped.values().sum();
    let places = [
        ("loadgen or the kernel did not send", never_sent),
        ("the kernel dropped at the socket", evidence.kernel_drops),
        ("the manager dropped", dropped),
        ("its sinks had no room for", evidence.losses.queue_failed),
    ];
    let known: Vec<String> = places
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(place, count)| format!("{place} {count}"))
        .collect();
    match (known.is_empty(), evidence.account.is_none()) {
        (false, _) => known.join(", "),
        (true, true) => "still on their way when the trial was ended".into(),
        (true, false) => "nobody says where".into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::Protocol;
    use crate::lines::{Found as LineFound, Mark};
    use crate::plan::Plan;
    use crate::tally::Arrival;
    use std::time::Duration;

    /// A trial that held.
    pub(crate) fn held(is_tcp: bool, segment: u32, rate: f64, cpu: f64) -> Trial {
        Trial {
            offer: Offer { is_tcp, segment, rate },
            due: 100_000,
            lost: 0,
            delivered_rate: rate,
            cpu_ns_per_event: Some(CpuPerEvent { user: cpu / 2.0, system: cpu / 2.0 }),
            latency_ns: Latency { p50: 300_000, p90: 400_000, p99: 900_000, p999: 1_000_000, max: 2_000_000 },
            generator_was_the_limit: false,
            loadgen_busy_share: 0.5,
            manager_waited_share: Some(0.01),
            harmed: 0,
            lost_where: String::new(),
        }
    }

    #[test]
    fn a_trial_holds_if_nothing_is_lost_or_late_and_loadgen_was_not_the_limit() {
        let good = held(true, 1, 1_000.0, 5.0);
        let check = |trial: Trial, verdict: Verdict, near_miss: bool, doubt: Option<&str>| {
            assert_eq!((trial.verdict(), trial.is_near_miss()), (verdict, near_miss), "{trial:?}");
            match (trial.doubt(), doubt) {
                (None, None) => {}
                (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        };
        check(good.clone(), Verdict::Held, false, None);
        check(Trial { delivered_rate: 985.0, ..good.clone() }, Verdict::Held, false, None);
        check(Trial { lost: 1, ..good.clone() }, Verdict::Failed, true, Some("lost 1 of 100000"));
        check(Trial { lost: 50_000, ..good.clone() }, Verdict::Failed, false, Some("lost 50000"));
        check(Trial { delivered_rate: 970.0, ..good.clone() }, Verdict::Failed, true, Some("970/s"));
        check(Trial { delivered_rate: 500.0, ..good.clone() }, Verdict::Failed, false, Some("500/s"));
        let limited = Trial { generator_was_the_limit: true, ..good.clone() };
        check(limited, Verdict::GeneratorLimit, true, Some("loadgen was the limit"));
        check(Trial { harmed: 1, ..good.clone() }, Verdict::Held, false, Some("1 events harmed"));
        let waited = Trial { manager_waited_share: Some(0.3), ..good };
        check(waited.clone(), Verdict::Held, false, Some("30%"));
        check(Trial { lost: 50_000, ..waited }, Verdict::HostLimit, false, Some("50000 lost"));
    }

    #[test]
    fn what_arrives_just_after_the_end_was_on_its_way_and_what_comes_later_was_late() {
        let check = |last_arrival_seconds: f64, arrivals: u64, verdict: Verdict, rate: f64| {
            let plan = Plan::new(1, 4.0, Duration::from_secs(1), 1, 9);
            let mut tally = Tally::new(&plan, Protocol::Tcp);
            for sequence in 0..arrivals {
                let found = LineFound::Ours(Mark { run: 1, agent: 0, sequence });
                let nanoseconds = (last_arrival_seconds * 1e9) as u64;
                tally.count(&plan, Arrival { found, named_right: true, nanoseconds });
            }
            let trial = Trial::of(&TrialEvidence {
                offer: Offer { is_tcp: true, segment: 1, rate: 4.0 },
                seconds_planned: 1.0,
                due: 4,
                account: Some(Account { due: 4, taken: 4, ..Account::default() }),
                tally,
                cpu: Some(CpuTime { user_nanoseconds: 40, system_nanoseconds: 8, waited_nanoseconds: 0 }),
                busy_seconds_per_core: 0.5,
                kernel_drops: 0,
                losses: ManagerLosses::default(),
            });
            assert_eq!((trial.verdict(), trial.delivered_rate), (verdict, rate), "{trial:?}");
            assert_eq!(trial.lost, 4 - arrivals);
            trial
        };
        let held = check(1.03, 4, Verdict::Held, 4.0);
        assert_eq!((held.cpu(), held.loadgen_busy_share), (Some(12.0), 0.5));
        check(1.25, 4, Verdict::Failed, 3.2);
        let lossy = check(1.0, 3, Verdict::Failed, 3.0);
        assert_eq!(lossy.lost_where, "nobody says where");
    }
}
