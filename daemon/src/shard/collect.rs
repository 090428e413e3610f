//! Completions, copied out of the rings: one flat match over what each is for.

use manager::Time;
use uring::{Armed, Completion, Tag};

use super::op_kind::OpKind;
use super::{Shard, ShardError, TURN_MESSAGES_MAX};

impl Shard {
    /// Takes what the rings have, until the batch is full. If that was all, the next round begins.
    pub(super) fn collect(&mut self, now: Time) -> Result<(), ShardError> {
        let mut all = self.collect_ring(0, now);
        for index in 1..self.rings.len() {
            if std::mem::take(&mut self.rings[index].ready) {
                self.enter_spare(index)?;
            }
            all &= self.collect_ring(index, now);
        }
        self.tally.rounds += u64::from(all);
        Ok(())
    }

    /// Whether that was all that the ring has.
    fn collect_ring(&mut self, ring: usize, now: Time) -> bool {
        while self.turn_messages() < TURN_MESSAGES_MAX {
            let Some(completion) = self.rings[ring].ring.pop() else { return true };
            self.complete(ring, completion, now);
        }
        // What is left in the queue is for the next turn, which must not wait.
        self.due.again = true;
        false
    }

    /// How many messages and lines this turn has so far.
    pub(super) fn turn_messages(&self) -> usize {
        self.batch.messages.len() + self.lines.turn
    }

    /// What one completion means.
    pub(super) fn complete(&mut self, ring: usize, completion: Completion, now: Time) {
        let tag = completion.tag;
        let kind = OpKind::of(tag.kind()).expect("every operation of a shard has a kind of its own");
        match kind {
            OpKind::Accept => self.on_accept(ring, &completion, now),
            OpKind::Cancel => {}
            OpKind::Close => self.on_close(ring, tag),
            OpKind::Mail => self.on_mail_poll(&completion),
            OpKind::ReceiveDatagrams => self.on_datagram(ring, completion),
            OpKind::ReceiveStream => self.on_stream(ring, completion, now),
            OpKind::Reply => self.on_reply(&completion),
            OpKind::Send => self.on_send(ring, &completion),
            OpKind::SinkPoll => self.on_sink_poll(tag),
            OpKind::SinkWrite => self.sinks.on_written(tag.slot() as usize, now, completion.result),
            OpKind::SinkSync => self.sinks.on_synced(tag.slot() as usize, now, completion.result),
            OpKind::SpareRing => self.on_spare_ready(tag.slot() as usize),
            OpKind::Unacknowledged => self.on_unacknowledged(ring, &completion, now),
        }
    }

    /// Polls the mail box from now on.
    pub(super) fn arm_mail(&mut self) {
        self.rings[0].ring.push(self.mail.poll(), Tag::new(OpKind::Mail as u8, 0, 0));
    }

    fn on_mail_poll(&mut self, completion: &Completion) {
        self.due.mail = true;
        if completion.armed == Armed::No && self.stopping.as_ref().is_none_or(|stopping| !stopping.finishing)
        {
            self.arm_mail();
        }
    }
}
