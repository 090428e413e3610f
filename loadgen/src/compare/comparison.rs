//! What a comparison found, as JSON has it; the table and the page are made of it. Pure.

use serde::Serialize;

use crate::compare::crossing::{Crossing, Pair, Spread, crossing};
use crate::compare::search::{Found, Limit};
use crate::compare::trial::Trial;

/// The whole; its fields are the keys of the JSON, documented in loadgen/README.md.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What was run, and where.
    pub setting: Setting,
    /// TCP and UDP in turn, segments growing.
    pub points: Vec<Point>,
    /// Where TCP's CPU an event falls below UDP's.
    pub crossing: Crossing,
    /// The same in words.
    pub crossing_words: String,
    /// What was not measured, and why; empty with exit status 0.
    pub left_out: Vec<String>,
    /// What makes figures doubtful.
    pub doubts: Vec<String>,
}

/// What was run, and where.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Setting {
    /// As it was typed.
    pub command: String,
    /// When it began, UTC.
    pub date: String,
    /// Processor, cores, kernel.
    pub machine: String,
    /// `embedded`, or the address of the target.
    pub manager: String,
    /// Where the manager hands over: `queue`, `archives` or `json`.
    pub sink: String,
    /// Agents of the fleet.
    pub agents: u32,
    /// `blowfish` or `aes`.
    pub cipher: &'static str,
    /// `ossec` or `wazuh`.
    pub dialect: &'static str,
    /// Text of an event, bytes.
    pub event_bytes: u32,
    /// Mean bytes of a message on the wire, with the length that only TCP has.
    pub sealed_bytes_per_event: f64,
    /// Common rate of the CPU an event.
    pub rate: f64,
    /// Bound of the search.
    pub rate_max: f64,
    /// How often CPU and latency were measured.
    pub turns: u32,
    /// Seconds of one measurement.
    pub seconds_each: f64,
    /// Seed.
    pub seed: u64,
    /// Cores of the manager; empty for another's.
    pub manager_cores: Vec<usize>,
    /// Cores of loadgen.
    pub loadgen_cores: Vec<usize>,
    /// `net.unix.max_dgram_qlen`.
    pub queue_datagrams_max: Option<u64>,
    /// Seconds that sealing took.
    pub sealing_seconds: f64,
    /// Seconds that all took.
    pub seconds: f64,
}

/// One protocol at one number of events a segment.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Events in one segment, or datagrams back to back.
    pub events_per_segment: u32,
    /// The manager's CPU an event at the common rate; null without its pid.
    pub cpu_ns_per_event: Option<Spread>,
    /// Of that, in its own code.
    pub cpu_user_ns_per_event: Option<Spread>,
    /// Of that, in the kernel.
    pub cpu_system_ns_per_event: Option<Spread>,
    /// The highest rate without loss; null if it was not looked for.
    pub highest: Option<Highest>,
    /// Latency at half of it; null if it was not measured.
    pub latency: Option<LatencyAtHalf>,
    /// Every trial, in the order they were made.
    pub trials: Vec<Trial>,
}

/// The highest rate without loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Highest {
    /// Events a second; null if no rate held.
    pub rate: Option<f64>,
    /// The lowest rate above it that did not hold.
    pub failed: Option<f64>,
    /// What keeps it from being higher: `manager`, and else the manager may hold more: `loadgen`, `host`, `bound`,
    /// `time`.
    pub limit: Limit,
    /// The manager's CPU an event at this rate.
    pub cpu_ns_per_event: Option<f64>,
    /// Why the next rate did not hold, in words; empty if none was tried.
    pub failed_why: String,
}

/// Latency at half of the highest rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyAtHalf {
    /// Events a second.
    pub rate: f64,
    /// Median, nanoseconds.
    pub p50_ns: Spread,
    /// 99 %, nanoseconds.
    pub p99_ns: Spread,
}

impl Highest {
    /// What a search found, with the trials that it made.
    pub fn of(found: Found, trials: &[Trial]) -> Highest {
        let at = |rate: Option<f64>| trials.iter().rfind(|trial| Some(trial.offer.rate) == rate);
        Highest {
            rate: found.rate,
            failed: found.failed,
            limit: found.limit,
            cpu_ns_per_event: at(found.rate).and_then(Trial::cpu),
            failed_why: at(found.failed).and_then(Trial::doubt).unwrap_or_default(),
        }
    }

    /// The rate as it may be quoted.
    pub fn words(&self) -> String {
        match (self.rate, self.limit) {
            (None, _) => "none held".into(),
            (Some(rate), Limit::Manager) => format!("{rate:.0}/s"),
            (Some(rate), Limit::Loadgen) => format!("at least {rate:.0}/s: loadgen was the limit"),
            (Some(rate), Limit::Host) => {
                format!("at least {rate:.0}/s: the manager had to wait for its core")
            }
            (Some(rate), Limit::Bound) => format!("at least {rate:.0}/s: the bound of the search"),
            (Some(rate), Limit::Time) => format!("at least {rate:.0}/s: no time for more"),
        }
    }
}

impl LatencyAtHalf {
    /// Of the trials at one rate; `None` of none.
    pub fn of(trials: &[&Trial]) -> Option<LatencyAtHalf> {
        let spread = |part: fn(&Trial) -> u64| {
            Spread::of(&trials.iter().map(|trial| part(trial) as f64).collect::<Vec<_>>())
        };
        Some(LatencyAtHalf {
            rate: trials.first()?.offer.rate,
            p50_ns: spread(|trial| trial.latency_ns.p50)?,
            p99_ns: spread(|trial| trial.latency_ns.p99)?,
        })
    }
}

impl Point {
    /// Nothing measured yet.
    pub fn new(is_tcp: bool, segment: u32) -> Point {
        Point {
            protocol: if is_tcp { "tcp" } else { "udp" },
            events_per_segment: segment,
            cpu_ns_per_event: None,
            cpu_user_ns_per_event: None,
            cpu_system_ns_per_event: None,
            highest: None,
            latency: None,
            trials: Vec::new(),
        }
    }

    /// Takes the CPU an event from the trials at the common rate.
    pub fn note_cpu(&mut self, trials: &[Trial]) {
        let spread = |part: fn(f64, f64) -> f64| {
            let measured = trials.iter().filter_map(|trial| trial.cpu_ns_per_event);
            Spread::of(&measured.map(|cpu| part(cpu.user, cpu.system)).collect::<Vec<_>>())
        };
        self.cpu_ns_per_event = spread(|user, system| user + system);
        self.cpu_user_ns_per_event = spread(|user, _| user);
        self.cpu_system_ns_per_event = spread(|_, system| system);
    }

    /// Its name in remarks.
    pub fn name(&self) -> String {
        format!("{}, {} a segment", self.protocol, self.events_per_segment)
    }
}

impl Comparison {
    /// Draws the conclusions from points.
    pub fn of(
        setting: Setting,
        points: Vec<Point>,
        left_out: Vec<String>,
        doubts: Vec<String>,
    ) -> Comparison {
        let crossing = crossing(&pairs(&points));
        Comparison { setting, crossing, crossing_words: crossing.to_string(), points, left_out, doubts }
    }

    /// The points of one protocol, segments growing.
    pub fn of_protocol<'c>(&'c self, protocol: &'c str) -> impl Iterator<Item = &'c Point> {
        self.points.iter().filter(move |point| point.protocol == protocol)
    }
}

fn pairs(points: &[Point]) -> Vec<Pair> {
    let cpu = |protocol: &str, segment: u32| {
        let is_wanted = |point: &&Point| point.protocol == protocol && point.events_per_segment == segment;
        points.iter().find(is_wanted).and_then(|point| point.cpu_ns_per_event)
    };
    let pair = |point: &Point| {
        let segment = point.events_per_segment;
        Some(Pair { segment, tcp: cpu("tcp", segment)?, udp: cpu("udp", segment)? })
    };
    points.iter().filter(|point| point.protocol == "tcp").filter_map(pair).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::compare::trial::tests::held;

    /// A fixed comparison: over TCP 8,000 ns an event and half of it with each doubling, over UDP 3,000 ns.
    pub(crate) fn comparison() -> Comparison {
        let mut points = Vec::new();
        for (segment, tcp) in [(1, 8_000.0), (2, 4_000.0), (4, 2_000.0)] {
            for (is_tcp, cpu) in [(true, tcp), (false, 3_000.0)] {
                let mut point = Point::new(is_tcp, segment);
                let trials: Vec<Trial> =
                    [0.9, 1.0, 1.1].map(|part| held(is_tcp, segment, 50_000.0, cpu * part)).into();
                point.note_cpu(&trials);
                let mut trials = trials;
                trials.push(held(is_tcp, segment, 200_000.0, cpu / 2.0));
                trials.push(Trial { lost: 9, ..held(is_tcp, segment, 220_000.0, cpu / 2.0) });
                let limit = if is_tcp { Limit::Manager } else { Limit::Loadgen };
                let found = Found { rate: Some(200_000.0), failed: Some(220_000.0), limit, trials: 2 };
                point.highest = Some(Highest::of(found, &trials));
                let at_half = held(is_tcp, segment, 100_000.0, cpu);
                point.latency = LatencyAtHalf::of(&[&at_half]);
                trials.push(at_half);
                point.trials = trials;
                points.push(point);
            }
        }
        let setting = Setting {
            command: "loadgen compare --agents 3 & more <b>".into(),
            date: "2026-11-22 04:00 UTC".into(),
            machine: "a processor, 2 cores".into(),
            agents: 3,
            cipher: "aes",
            dialect: "wazuh",
            rate: 50_000.0,
            turns: 3,
            ..Setting::default()
        };
        Comparison::of(setting, points, vec!["udp, 64 a segment: no time".into()], vec!["a doubt".into()])
    }

    #[test]
    fn points_hold_their_spreads_limits_and_the_crossing() {
        let comparison = comparison();
        let point = &comparison.points[0];
        let cpu = point.cpu_ns_per_event.unwrap();
        assert_eq!((cpu.min.round(), cpu.median, cpu.max.round(), cpu.turns), (7_200.0, 8_000.0, 8_800.0, 3));
        let highest = point.highest.as_ref().unwrap();
        assert_eq!((highest.words().as_str(), highest.cpu_ns_per_event), ("200000/s", Some(4_000.0)));
        assert!(highest.failed_why.contains("lost 9"), "{}", highest.failed_why);
        let udp = comparison.points[1].highest.as_ref().unwrap();
        assert_eq!(udp.words(), "at least 200000/s: loadgen was the limit");
        assert_eq!(point.latency.unwrap().p50_ns.median, 300_000.0);
        assert!(comparison.crossing_words.starts_with("at about 2.8"), "{}", comparison.crossing_words);
    }

    #[test]
    fn every_key_of_the_json_is_documented() {
        let readme = include_str!("../../README.md");
        let json = serde_json::to_value(comparison()).unwrap();
        let mut keys = std::collections::BTreeSet::new();
        collect_keys(&json, &mut keys);
        assert!(keys.contains("setting") && keys.contains("cpu_ns_per_event") && keys.contains("lost_where"));
        for key in keys {
            assert!(readme.contains(&format!("`{key}`")), "loadgen/README.md does not document `{key}`");
        }
        assert_eq!(json["points"].as_array().unwrap().len(), 6);
        assert_eq!(json["crossing"]["kind"], "at");
        assert_eq!(json["points"][1]["highest"]["limit"], "loadgen");
        assert_eq!(json["points"][0]["trials"].as_array().unwrap().len(), 6);
    }

    fn collect_keys(json: &serde_json::Value, keys: &mut std::collections::BTreeSet<String>) {
        if let Some(object) = json.as_object() {
            keys.extend(object.keys().cloned());
            object.values().for_each(|value| collect_keys(value, keys));
        }
        json.as_array().into_iter().flatten().for_each(|value| collect_keys(value, keys));
    }
}
