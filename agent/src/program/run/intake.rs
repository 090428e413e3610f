//! From the collectors' socket into the spool, and what happens when it has no room.

use std::time::Duration;

use tokio::net::UnixDatagram;

use super::{Condition, Intake, RETRY, Refusal, Running, Taken};

/// Datagrams that are read before anything else has its turn.
const BATCH_MAX: usize = 64;
/// One byte more than ossec-agentd takes, so that longer ones are known.
const DATAGRAM_BYTES: usize = codec::limits::MESSAGE_BYTES_MAX_OSSEC + 1;

impl Running<'_> {
    /// Whether there is room for what collectors send. If not, their sends wait, and nothing is lost.
    pub(super) fn takes_events(&self) -> bool {
        let Intake { held, is_full, is_stuck, .. } = &self.intake;
        held.is_empty() && !is_full && !is_stuck && self.stop_at.is_none()
    }

    /// Takes what is there, a batch at most, and writes it in one go.
    pub(super) fn read_queue(&mut self, queue: &UnixDatagram) {
        let now = self.now();
        let mut buffer = [0; DATAGRAM_BYTES];
        let taken_from = self.engine.spool().next_sequence();
        for _ in 0..BATCH_MAX {
            // Asked before the event is in our hands, so that a full spool never costs one, however the program ends.
            if !self.engine.has_room() {
                break;
            }
            // Nothing more, or nothing that could be mended here: readiness tells again.
            let Ok(bytes) = queue.try_recv(&mut buffer) else { break };
            match self.engine.take(&buffer[..bytes]) {
                Taken::Kept => {}
                Taken::Refused(refusal) => self.refused(now, refusal),
                Taken::Full => {
                    self.intake.held.push_back(buffer[..bytes].to_vec());
                    self.intake.full_bytes = self.engine.spool().bytes();
                    break;
                }
            }
        }
        self.note_age(now, taken_from);
        self.commit(now);
    }

    /// Tries again with what found no room, once there may be some.
    pub(super) fn refill(&mut self, now: Duration) {
        self.intake.is_full = !self.engine.has_room();
        let is_due = self.intake.retry_at.is_none_or(|at| at <= now);
        if (self.intake.is_stuck && !is_due) || (self.intake.held.is_empty() && !self.intake.is_stuck) {
            return self.unlock();
        }
        let has_shrunk = self.engine.spool().bytes() < self.intake.full_bytes;
        if !has_shrunk && !is_due {
            return;
        }
        let taken_from = self.engine.spool().next_sequence();
        while let Some(datagram) = self.intake.held.pop_front() {
            match self.engine.take(&datagram) {
                Taken::Kept => {}
                Taken::Refused(refusal) => self.refused(now, refusal),
                Taken::Full => {
                    self.intake.held.push_front(datagram);
                    self.intake.full_bytes = self.engine.spool().bytes();
                    break;
                }
            }
        }
        self.note_age(now, taken_from);
        self.commit(now);
        self.unlock();
    }

    fn commit(&mut self, now: Duration) {
        self.intake.is_stuck = !self.engine.commit();
        self.intake.is_full = !self.engine.has_room();
        let retries = self.intake.is_stuck || !self.intake.held.is_empty();
        self.intake.retry_at = retries.then(|| now + RETRY);
        if (retries || self.intake.is_full) && !self.lock.is_set() {
            // Whoever reads the line finds the lock.
            let set = self.lock.set();
            self.log.warn("The spool takes no more. Setting lock: collectors wait.");
            if let Err(error) = set {
                self.log.error(&format!("queue/ossec/.wait: {error}"));
            }
        }
    }

    /// Collectors go on when a quarter of the spool is free, so that they don't stop and go with each event.
    fn unlock(&mut self) {
        let spool = self.engine.spool();
        let has_room = spool.records() == 0 || spool.bytes() <= self.settings.own.spool().bytes_max / 4 * 3;
        if self.lock.is_set() && has_room && self.takes_events() {
            self.lock.release();
            self.log.info("The spool has room again. Releasing lock.");
        }
    }

    fn refused(&mut self, now: Duration, refusal: Refusal) {
        self.log.condition(now, Condition::Event, refusal.text());
    }
}
