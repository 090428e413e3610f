//! What is counted of messages to agents; only the control plane's thread writes.

use crate::metrics::Stored;

use super::letters::{Became, Dropped};
use super::pushes::{PushCounters, PushGauges};
use super::requests::RequestCounters;

/// The numbers of everything that the manager says to agents of its own accord.
#[derive(Debug, Default)]
pub struct OutwardMetrics {
    /// Messages for agents: active responses, and what operators sent.
    pub posted: Stored,
    /// Of these: sent.
    pub sent: Stored,
    /// Of these: once kept for an agent that was away.
    pub kept: Stored,
    /// Of these: waited for too long.
    pub expired: Stored,
    /// Of these: dropped, since the agent was away and nothing was to be kept.
    pub dropped_away: Stored,
    /// Of these: dropped, since as many waited as may.
    pub dropped_full: Stored,
    /// Of these: dropped, since the agent can't read so much at once.
    pub dropped_too_long: Stored,
    /// Of these: dropped, since no agent has the id or name.
    pub dropped_unknown: Stored,
    /// Of these: dropped, since connection after connection ended under it.
    pub dropped_lost: Stored,
    /// Lines of `queue/alerts/ar` that say nothing to anybody.
    pub invalid: Stored,
    /// Messages that are not settled.
    pub held: Stored,
    /// Their bytes.
    pub held_bytes: Stored,
    /// Pushes of shared files begun.
    pub pushes: Stored,
    /// Of these: sent to the end.
    pub pushes_sent: Stored,
    /// Of these: given up, since the agent went away.
    pub pushes_failed: Stored,
    /// Times a push began anew, since the file changed under it.
    pub pushes_restarted: Stored,
    /// Agents that said they have the file after it was sent.
    pub pushes_confirmed: Stored,
    /// Keep-alives that were not answered with the file, since it had just been sent.
    pub pushes_put_off: Stored,
    /// Bytes of shared files sent.
    pub push_bytes: Stored,
    /// Pushes under way.
    pub pushes_moving: Stored,
    /// Pushes whose agents do not read.
    pub pushes_stalled: Stored,
    /// Pushes that wait for their turn.
    pub pushes_queued: Stored,
    /// Agents that were sent the file and have not said that they have it.
    pub pushes_unconfirmed: Stored,
    /// merged.mg that there are.
    pub shared_files: Stored,
    /// Their bytes.
    pub shared_bytes: Stored,
    /// Requests to agents.
    pub requests: Stored,
    /// Of these: answered.
    pub requests_answered: Stored,
    /// Of these: not sent, not acknowledged or not answered in time.
    pub requests_failed: Stored,
    /// Answers that nobody waited for.
    pub answers_unexpected: Stored,
}

/// Name, help and place of a number.
pub(crate) type Number = (&'static str, &'static str, fn(&OutwardMetrics) -> &Stored);

/// The numbers that only grow.
pub(crate) const COUNTERS: &[Number] = &[
    ("agent_messages", "Messages for agents: active responses, and what operators sent", |all| &all.posted),
    (
        "agent_messages_sent",
        "Messages for agents that were sent; over TCP: that the agent's host has",
        |all| &all.sent,
    ),
    ("agent_messages_kept", "Messages that were kept for an agent that was away", |all| &all.kept),
    (
        "agent_messages_expired",
        "Messages that waited for their agent longer than active_response.keep_seconds",
        |all| &all.expired,
    ),
    (
        "agent_messages_dropped_away",
        "Messages dropped: the agent was away, and speaks UDP or nothing is kept",
        |all| &all.dropped_away,
    ),
    ("agent_messages_dropped_full", "Messages dropped: as many waited as may", |all| &all.dropped_full),
    ("agent_messages_dropped_too_long", "Messages dropped: longer than the agent reads", |all| {
        &all.dropped_too_long
    }),
    ("agent_messages_dropped_unknown", "Messages dropped: no agent has the id or name", |all| {
        &all.dropped_unknown
    }),
    (
        "agent_messages_dropped_lost",
        "Messages dropped: connection after connection ended under them",
        |all| &all.dropped_lost,
    ),
    ("agent_messages_invalid", "Lines of queue/alerts/ar that say nothing to anybody", |all| &all.invalid),
    ("shared_pushes", "Pushes of merged.mg begun", |all| &all.pushes),
    ("shared_pushes_sent", "Pushes of merged.mg sent to the end", |all| &all.pushes_sent),
    ("shared_pushes_failed", "Pushes of merged.mg given up, since the agent went away", |all| {
        &all.pushes_failed
    }),
    ("shared_pushes_restarted", "Pushes of merged.mg begun anew, since it changed", |all| {
        &all.pushes_restarted
    }),
    ("shared_pushes_confirmed", "Agents that said they have merged.mg after it was sent", |all| {
        &all.pushes_confirmed
    }),
    (
        "shared_pushes_put_off",
        "Keep-alives not answered with merged.mg, since it had just been sent",
        |all| &all.pushes_put_off,
    ),
    ("shared_push_bytes", "Bytes of merged.mg sent", |all| &all.push_bytes),
    ("agent_requests", "Requests to Wazuh agents", |all| &all.requests),
    ("agent_requests_answered", "Requests that were answered", |all| &all.requests_answered),
    ("agent_requests_failed", "Requests not sent, not acknowledged or not answered in time", |all| {
        &all.requests_failed
    }),
    ("agent_answers_unexpected", "Answers that nobody waited for", |all| &all.answers_unexpected),
];

/// The numbers of now.
pub(crate) const GAUGES: &[Number] = &[
    ("agent_messages_held", "Messages for agents that are not settled", |all| &all.held),
    ("agent_messages_held_bytes", "Bytes of messages for agents that are not settled", |all| &all.held_bytes),
    ("shared_pushes_moving", "Pushes of merged.mg under way", |all| &all.pushes_moving),
    ("shared_pushes_stalled", "Pushes of merged.mg whose agents do not read", |all| &all.pushes_stalled),
    ("shared_pushes_queued", "Pushes of merged.mg that wait for their turn", |all| &all.pushes_queued),
    ("shared_pushes_unconfirmed", "Agents sent merged.mg that have not said they have it", |all| {
        &all.pushes_unconfirmed
    }),
    ("shared_files", "Files merged.mg that there are", |all| &all.shared_files),
    ("shared_bytes", "Bytes of all files merged.mg", |all| &all.shared_bytes),
];

impl OutwardMetrics {
    pub(super) fn became(&self, became: Became) {
        match became {
            Became::Sent(_) => self.sent.add(1),
            Became::Kept => self.kept.add(1),
            Became::Expired => self.expired.add(1),
            Became::Dropped(Dropped::Away) => self.dropped_away.add(1),
            Became::Dropped(Dropped::Full) => self.dropped_full.add(1),
            Became::Dropped(Dropped::TooLong) => self.dropped_too_long.add(1),
            Became::Dropped(Dropped::Unknown) => self.dropped_unknown.add(1),
            Became::Dropped(Dropped::Lost) => self.dropped_lost.add(1),
        }
    }

    pub(super) fn pushes(&self, counters: PushCounters, gauges: PushGauges) {
        let PushCounters { begun, sent, failed, restarted, confirmed, put_off, bytes, messages: _ } =
            counters;
        self.pushes.set(begun);
        self.pushes_sent.set(sent);
        self.pushes_failed.set(failed);
        self.pushes_restarted.set(restarted);
        self.pushes_confirmed.set(confirmed);
        self.pushes_put_off.set(put_off);
        self.push_bytes.set(bytes);
        let PushGauges { moving, stalled, queued, unconfirmed } = gauges;
        self.pushes_moving.set(moving);
        self.pushes_stalled.set(stalled);
        self.pushes_queued.set(queued);
        self.pushes_unconfirmed.set(unconfirmed);
    }

    pub(super) fn requests(&self, counters: RequestCounters) {
        let RequestCounters { asked, messages: _, answered, failed, unexpected } = counters;
        self.requests.set(asked);
        self.requests_answered.set(answered);
        self.requests_failed.set(failed);
        self.answers_unexpected.set(unexpected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_of_its_own() {
        let metrics = OutwardMetrics::default();
        let mut names = std::collections::BTreeSet::new();
        let mut places = std::collections::BTreeSet::new();
        for (name, help, place) in COUNTERS.iter().chain(GAUGES) {
            assert!(names.insert(name) && !help.is_empty(), "{name}");
            assert!(places.insert(std::ptr::from_ref(place(&metrics)).addr()), "{name}");
        }
        assert_eq!(places.len() * size_of::<Stored>(), size_of::<OutwardMetrics>(), "none is forgotten");
    }
}
