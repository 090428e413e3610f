//! What the log says about peers and sinks: from differences of counters, each second, at most a line a minute each.
//!
//! The data path logs nothing. OSSEC's numbers stand in front, because operators search for them.

use std::time::Duration;

use manager::{CloseReason, DroppedFrom, Reason, Refusal};
use tracing::{info, warn};

use crate::{
    logging::{Due, Limiter},
    metrics::{SinkKind, SinkState},
    readiness::state_text,
    totals::Totals,
};

/// How often one condition may speak.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// Remembers what was said, and what the counters were.
#[derive(Debug)]
pub struct Conditions {
    limiter: Limiter<Condition>,
    seen: Totals,
}

/// What a line can be about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Condition {
    Closed(CloseReason),
    Dropped(Reason),
    Refused(Refusal),
    Sink(usize, u8),
}

impl Conditions {
    /// Nothing said, nothing seen.
    pub fn new() -> Conditions {
        Conditions { limiter: Limiter::new(INTERVAL), seen: Totals::default() }
    }

    /// The lines that are due, now that the counters are at `totals`. To be called each second.
    pub fn lines(&mut self, now_nanoseconds: u64, totals: &Totals) -> Vec<String> {
        let mut lines = Vec::new();
        for reason in Reason::ALL {
            let more = totals.dropped[reason.index()] - self.seen.dropped[reason.index()];
            if let Some(due) = self.limiter.observe(now_nanoseconds, Condition::Dropped(reason), more) {
                lines.push(dropped_line(reason, due, totals.dropped_last[reason.index()]));
            }
        }
        for reason in CloseReason::ALL {
            let Some(text) = closed_text(reason) else { continue };
            let more = totals.closed[reason.index()] - self.seen.closed[reason.index()];
            if let Some(due) = self.limiter.observe(now_nanoseconds, Condition::Closed(reason), more) {
                let connections = counted(due.count, "connection");
                lines.push(format!("{connections} closed: {text}{}", due.period()));
            }
        }
        for refusal in Refusal::ALL {
            let more = totals.refused[refusal.index()] - self.seen.refused[refusal.index()];
            if let Some(due) = self.limiter.observe(now_nanoseconds, Condition::Refused(refusal), more) {
                let number = refusal.log_number().map_or_else(String::new, |number| format!("{number}: "));
                let who = totals.refused_last[refusal.index()]
                    .map_or_else(String::new, |from| format!("; the last from {from}"));
                let connections = counted(due.count, "connection");
                let text = refused_text(refusal);
                lines.push(format!("{number}{connections} refused: {text}{}{who}", due.period()));
            }
        }
        for (index, kind) in SinkKind::ALL.iter().enumerate() {
            let (before, state) = (self.seen.sinks[index].state, totals.sinks[index].state);
            // The first state of a sink is no news, unless it is a bad one.
            let news = before != state && !(before == SinkState::Off && state == SinkState::Taking);
            let condition = Condition::Sink(index, state as u8);
            if self.limiter.observe(now_nanoseconds, condition, u64::from(news)).is_some() {
                lines.push(format!("sink {}: {}", kind.name(), state_text(state)));
            }
        }
        self.seen = totals.clone();
        lines
    }

    /// Says the lines that are due.
    pub fn say(&mut self, now_nanoseconds: u64, totals: &Totals) {
        for line in self.lines(now_nanoseconds, totals) {
            warn!("{line}");
        }
    }
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions::new()
    }
}

/// Says that client.keys was read, with OSSEC's number.
pub fn say_keys_changed(agents: usize) {
    info!("1409: client.keys changed: {agents} agents");
}

fn dropped_line(reason: Reason, due: Due, last: Option<DroppedFrom>) -> String {
    let number = reason.log_number().map_or_else(String::new, |number| format!("{number}: "));
    let who = match last {
        None => String::new(),
        Some(DroppedFrom { from, agent: None }) => format!("; the last from {from}"),
        Some(DroppedFrom { from, agent: Some(agent) }) => format!("; the last from {from} as agent {agent}"),
    };
    let messages = counted(due.count, "message");
    format!("{number}{messages} dropped: {}{}{who}", dropped_text(reason), due.period())
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn refused_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::AddressDenied => "from an address that the listener does not allow",
        Refusal::Connections => "as many as shards.connections_max are open",
        Refusal::ProxyHeader => "no readable PROXY protocol header from a load balancer",
        Refusal::ProxyPeer => "not from a load balancer that the listener's proxy_protocol_from names",
        Refusal::Syslog => "as many as syslog.connections_max are open",
        Refusal::SyslogAddress => "as many as syslog.connections_per_address_max are open from one address",
        Refusal::Unauthenticated => "as many as agents.unauthenticated_max have not authenticated",
        Refusal::UnauthenticatedAddress => {
            "as many as agents.unauthenticated_per_address_max of one address have not authenticated"
        }
    }
}

fn dropped_text(reason: Reason) -> &'static str {
    match reason {
        Reason::AddressDenied => "message from an address that the listener does not allow",
        Reason::AddressUnknown => {
            "message from an address that is not allowed (no id in it, and no agent has this address)"
        }
        Reason::Checksum => "checksum mismatch",
        Reason::ConnectionAgent => "another agent's message on an agent's connection",
        Reason::ConnectionClosed => "still on the way on a connection that was closed",
        Reason::ControlMalformed => "control message that can't be read",
        Reason::CounterDuplicate => "duplicated counter",
        Reason::CounterOld => {
            "counter too far behind (an agent that was restored? remove its file in queue/rids on the agent)"
        }
        Reason::DeliveredBefore => "event that every sink had before a break of its connection",
        Reason::DeliveryLost => "event of an agent that delivers over a newer connection",
        Reason::DeliveryUnnumbered => "event without a number on a connection that numbers them",
        Reason::EventMalformed => "event without queue or text",
        Reason::EventQueue => "event for a queue that is not for agents' events",
        Reason::FrameLength => "incorrectly formatted message: a frame longer than the limit",
        Reason::IdAddress => "invalid id for the source ip",
        Reason::IdUnknown => "unknown id",
        Reason::Inflate => "error uncompressing",
        Reason::KeepAliveFiller => "keep-alive filler sent as an event",
        Reason::Kernel => {
            "the receive buffer was full (raise listen.receive_buffer_bytes, or give more cores)"
        }
        Reason::Malformed => "incorrectly formatted message",
        Reason::MethodNotAccepted => "sealed with a cipher that agents.crypto_accept does not accept",
        Reason::RateLimited => "more events of an agent than agents.events_per_second_max",
        Reason::SinkFull => "datagram while a sink was over its soft bound",
        Reason::TooLarge => "incorrectly formatted message: longer than agents.message_bytes_max",
        Reason::Truncated => "datagram longer than its buffer",
        Reason::WrongKey => "incorrectly formatted message, or wrong key",
    }
}

/// What is worth a line; a peer that goes by itself is not.
fn closed_text(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::BadFrame => Some("a frame longer than the limit"),
        CloseReason::Delivery => {
            Some("the numbers of its events were lost; it comes back and gives them again")
        }
        CloseReason::KeyRemoved => Some("the agent's key was removed or changed"),
        CloseReason::Overtaken => Some("the agent has a newer connection"),
        CloseReason::Peer => None,
        CloseReason::Silent => Some("nothing was heard within agents.silence_deadline_seconds"),
        CloseReason::Unauthenticated => {
            Some("no genuine message within agents.authentication_deadline_seconds")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn differences_become_lines_at_most_once_a_minute() {
        let mut conditions = Conditions::new();
        let mut totals = Totals::default();
        assert_eq!(conditions.lines(SECOND, &totals), Vec::<String>::new());
        totals.dropped[Reason::IdUnknown.index()] = 3;
        totals.closed[CloseReason::Peer.index()] = 9;
        assert_eq!(conditions.lines(2 * SECOND, &totals), ["1408: 3 messages dropped: unknown id"]);
        totals.dropped[Reason::IdUnknown.index()] = 315;
        totals.closed[CloseReason::Silent.index()] = 1;
        assert_eq!(
            conditions.lines(3 * SECOND, &totals),
            ["1 connection closed: nothing was heard within agents.silence_deadline_seconds"]
        );
        let from = "192.0.2.7:4711".parse().unwrap();
        totals.dropped_last[Reason::IdUnknown.index()] = Some(DroppedFrom { from, agent: None });
        assert_eq!(
            conditions.lines(62 * SECOND, &totals),
            ["1408: 312 messages dropped: unknown id in the last 60 s; the last from 192.0.2.7:4711"]
        );
        totals.dropped[Reason::CounterDuplicate.index()] = 1;
        totals.dropped_last[Reason::CounterDuplicate.index()] =
            Some(DroppedFrom { from, agent: Some("001".parse().unwrap()) });
        assert_eq!(
            conditions.lines(63 * SECOND, &totals),
            ["1407: 1 message dropped: duplicated counter; the last from 192.0.2.7:4711 as agent 001"]
        );
        assert_eq!(conditions.lines(200 * SECOND, &totals), Vec::<String>::new());
    }

    #[test]
    fn connections_that_were_refused() {
        let mut conditions = Conditions::new();
        let mut totals = Totals::default();
        totals.refused[Refusal::AddressDenied.index()] = 2;
        totals.refused_last[Refusal::AddressDenied.index()] = Some("192.0.2.7:4711".parse().unwrap());
        totals.refused[Refusal::ProxyPeer.index()] = 1;
        assert_eq!(
            conditions.lines(SECOND, &totals),
            [
                "1213: 2 connections refused: from an address that the listener does not allow; the last from 192.0.2.7:4711",
                "1 connection refused: not from a load balancer that the listener's proxy_protocol_from names",
            ]
        );
    }

    #[test]
    fn a_sink_that_comes_and_goes() {
        let mut conditions = Conditions::new();
        let mut check = |second: u64, state: SinkState, expected: &[&str]| {
            let mut totals = Totals::default();
            totals.sinks[0].state = state;
            assert_eq!(conditions.lines(second * SECOND, &totals), expected, "second {second}");
        };
        check(1, SinkState::Off, &[]);
        check(2, SinkState::Taking, &[]);
        check(3, SinkState::Away, &["sink queue: its reader is away; what was taken waits"]);
        check(4, SinkState::Away, &[]);
        check(5, SinkState::Taking, &["sink queue: takes events"]);
        check(6, SinkState::Away, &[]);
        check(70, SinkState::Away, &["sink queue: its reader is away; what was taken waits"]);
    }
}
