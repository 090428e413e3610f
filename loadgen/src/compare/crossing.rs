//! Where TCP becomes cheaper than UDP, with the spread of the measurements considered. Pure.

use std::fmt;

use serde::Serialize;

/// What a few measurements of one thing say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many there are.
    pub turns: usize,
}

impl Spread {
    /// Of some measurements; `None` of none.
    pub fn of(measured: &[f64]) -> Option<Spread> {
        let mut sorted = measured.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Spread { median, min, max, turns: sorted.len() })
    }
}

/// CPU an event of both protocols at one number of events a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Events in one segment, or datagrams back to back.
    pub segment: u32,
    /// Over TCP.
    pub tcp: Spread,
    /// Over UDP.
    pub udp: Spread,
}

/// Where TCP's CPU an event falls below UDP's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Crossing {
    /// Between two neighbours whose spreads are apart: the medians' straight lines cross here.
    At {
        /// Events a segment, by the logarithm of the segments.
        events_per_segment: f64,
        /// The neighbour below, where UDP is cheaper.
        above: u32,
        /// The neighbour above, where TCP is cheaper.
        below: u32,
    },
    /// Spreads overlap: somewhere between these, or beyond the range where one is missing.
    Between {
        /// The last number up to which UDP is cheaper, spread and all.
        above: Option<u32>,
        /// The first number from which TCP is cheaper, spread and all.
        below: Option<u32>,
    },
    /// TCP is cheaper throughout: it crosses below the range, if anywhere.
    TcpThroughout,
    /// UDP is cheaper throughout: it crosses above the range, if anywhere.
    UdpThroughout,
    /// Nothing was measured of both.
    Unknown,
}

/// Finds the crossing in pairs of growing segments.
pub fn crossing(pairs: &[Pair]) -> Crossing {
    let udp_cheaper = |pair: &&Pair| pair.tcp.min > pair.udp.max;
    let tcp_cheaper = |pair: &&Pair| pair.tcp.max < pair.udp.min;
    let above = pairs.iter().take_while(udp_cheaper).last();
    let below = pairs.iter().rev().take_while(tcp_cheaper).last();
    match (above, below) {
        _ if pairs.is_empty() => Crossing::Unknown,
        (Some(above), None) if above.segment == pairs[pairs.len() - 1].segment => Crossing::UdpThroughout,
        (None, Some(below)) if below.segment == pairs[0].segment => Crossing::TcpThroughout,
        (Some(above), Some(below)) if are_neighbours(pairs, above.segment, below.segment) => Crossing::At {
            events_per_segment: interpolate(above, below),
            above: above.segment,
            below: below.segment,
        },
        (above, below) => {
            Crossing::Between { above: above.map(|pair| pair.segment), below: below.map(|pair| pair.segment) }
        }
    }
}

impl fmt::Display for Crossing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crossing::At { events_per_segment, above, below } => write!(
                out,
                "at about {events_per_segment:.1} events a segment (UDP is cheaper at {above}, TCP at {below})"
            ),
            Crossing::Between { above: Some(above), below: Some(below) } => {
                write!(out, "between {above} and {below} events a segment: the spreads overlap in between")
            }
            Crossing::Between { above: Some(above), below: None } => {
                write!(out, "above {above} events a segment, where the spreads begin to overlap")
            }
            Crossing::Between { above: None, below: Some(below) } => {
                write!(out, "below {below} events a segment, up to where the spreads overlap")
            }
            Crossing::Between { above: None, below: None } => {
                write!(out, "not to be told: the spreads overlap throughout")
            }
            Crossing::TcpThroughout => write!(out, "none in the range: TCP is cheaper throughout"),
            Crossing::UdpThroughout => write!(out, "none in the range: UDP is cheaper throughout"),
            Crossing::Unknown => write!(out, "unknown: nothing was measured of both protocols"),
        }
    }
}

fn are_neighbours(pairs: &[Pair], above: u32, below: u32) -> bool {
    pairs.windows(2).any(|two| (two[0].segment, two[1].segment) == (above, below))
}

/// Where the difference of the medians is 0, over the logarithm of the segments.
fn interpolate(above: &Pair, below: &Pair) -> f64 {
    let difference = |pair: &Pair| pair.tcp.median - pair.udp.median;
    let (first, last) = (difference(above), difference(below));
    let (from, to) = (f64::from(above.segment).log2(), f64::from(below.segment).log2());
    (from + (to - from) * first / (first - last)).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tcp_and_udp: &[(u32, [f64; 2], [f64; 2])], expected: &str) {
        let spread = |[min, max]: [f64; 2]| Spread { median: f64::midpoint(min, max), min, max, turns: 3 };
        let pairs: Vec<Pair> = tcp_and_udp
            .iter()
            .map(|(segment, tcp, udp)| Pair { segment: *segment, tcp: spread(*tcp), udp: spread(*udp) })
            .collect();
        assert_eq!(crossing(&pairs).to_string().split(" (").next().unwrap(), expected);
    }

    #[test]
    fn the_crossing_is_where_the_spreads_say_and_no_more() {
        let udp = [3.0, 3.0];
        check(&[], "unknown: nothing was measured of both protocols");
        check(&[(1, [6.0, 6.0], udp), (4, [2.0, 2.0], udp)], "at about 2.8 events a segment");
        check(
            &[(1, [6.0, 6.0], udp), (2, [4.0, 4.0], udp), (4, [2.0, 2.0], udp), (8, [1.0, 1.0], udp)],
            "at about 2.8 events a segment",
        );
        check(
            &[(1, [6.0, 6.0], udp), (2, [2.5, 4.0], udp), (4, [2.0, 2.0], udp)],
            "between 1 and 4 events a segment: the spreads overlap in between",
        );
        check(
            &[(1, [6.0, 6.0], udp), (2, [2.5, 4.0], udp)],
            "above 1 events a segment, where the spreads begin to overlap",
        );
        check(
            &[(1, [2.5, 4.0], udp), (2, [2.0, 2.0], udp)],
            "below 2 events a segment, up to where the spreads overlap",
        );
        check(&[(1, [2.5, 4.0], udp)], "not to be told: the spreads overlap throughout");
        check(&[(1, [4.0, 5.0], udp), (2, [4.0, 4.0], udp)], "none in the range: UDP is cheaper throughout");
        check(&[(1, [2.0, 2.5], udp), (2, [1.0, 1.0], udp)], "none in the range: TCP is cheaper throughout");
    }

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        let check = |measured: &[f64], expected: Option<(f64, f64, f64)>| {
            let found = Spread::of(measured).map(|spread| (spread.median, spread.min, spread.max));
            assert_eq!(found, expected);
        };
        check(&[], None);
        check(&[2.0], Some((2.0, 2.0, 2.0)));
        check(&[5.0, 1.0, 2.0], Some((2.0, 1.0, 5.0)));
        check(&[4.0, 1.0], Some((2.5, 1.0, 4.0)));
    }
}
