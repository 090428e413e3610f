//! What the program tells of itself when it is asked.

use std::time::Duration;

use spool::Sequence;
use tokio::net::UnixStream;
use tokio::sync::mpsc::Receiver;

use super::super::status::{Ages, Events, IgnoredMessages, SpoolStatus, Status};
use super::{Engine, Running, State, Transport};

/// What is noted for nothing but that.
#[derive(Debug)]
pub(super) struct Standing {
    /// Times a manager has answered the start-up.
    pub(super) connections: u64,
    ages: Ages,
}

impl Standing {
    pub(super) fn new(engine: &Engine) -> Standing {
        Standing { connections: 0, ages: Ages::new(engine.spool().first_sequence()) }
    }
}

/// The next asker; none where there is no socket.
pub(super) async fn next(askers: &mut Result<Receiver<UnixStream>, ()>) -> Option<UnixStream> {
    match askers {
        Ok(askers) => askers.recv().await,
        Err(()) => None,
    }
}

impl Running<'_> {
    /// Events from `taken_from` on were taken now, if there are any.
    pub(super) fn note_age(&mut self, now: Duration, taken_from: Sequence) {
        let spool = self.engine.spool();
        if spool.next_sequence() != taken_from {
            self.standing.ages.note(now, taken_from, spool.first_sequence());
        }
    }

    pub(super) fn status(&mut self) -> Status {
        let now = self.now();
        let (spool, counters, ignored) =
            (self.engine.spool(), self.engine.counters(), self.engine.agent().ignored());
        let spooled = spool.counters();
        let oldest = match spool.records() {
            0 => None,
            1.. => self.standing.ages.of(now, spool.first_sequence()),
        };
        let last_heard = self.engine.agent().last_heard();
        let is_connected = self.engine.agent().state() == State::Ready;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.as_secs_f64(),
            id: self.settings.entry.id.to_string(),
            name: self.settings.entry.name.to_string(),
            transport: match self.settings.client.transport {
                Transport::Tcp => "tcp".to_owned(),
                Transport::Udp => "udp".to_owned(),
            },
            is_connected,
            is_acknowledged: is_connected && self.engine.is_acknowledged(),
            server: self.connection.has_tried.then(|| self.way.servers[self.connection.server].to_string()),
            connections: self.standing.connections,
            last_word_seconds: (self.standing.connections > 0)
                .then(|| now.saturating_sub(last_heard).as_secs_f64()),
            is_locked: self.lock.is_set(),
            events: Events {
                taken: counters.taken,
                refused: counters.refused,
                handed: counters.handed,
                again: counters.again,
                confirmed: spooled.forgotten,
            },
            spool: SpoolStatus {
                records: spool.records(),
                bytes: spool.bytes(),
                bytes_max: self.settings.own.spool().bytes_max,
                oldest_seconds: oldest.map(|age| age.as_secs_f64()),
                dropped: spooled.dropped,
                damaged: spooled.damaged,
                is_written: !self.intake.is_stuck,
            },
            ignored: IgnoredMessages { unopened: ignored.unopened, stale: ignored.stale },
        }
    }
}
