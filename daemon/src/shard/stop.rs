//! The end of a shard: nothing more is received, what came is decided on, what the sinks hold is handed over.

use std::time::{Duration, Instant};

use manager::Time;
use uring::{Op, Tag, Wait};

use super::op_kind::OpKind;
use super::{Shard, ShardError};

/// How long the kernel may take to end what was cancelled.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(5);

/// A shard that was told to stop.
#[derive(Debug)]
pub(super) struct Stopping {
    /// When it gives up what its sinks still hold.
    pub(super) deadline: Time,
    /// Nothing is armed any more, whatever completes.
    pub(super) finishing: bool,
}

impl Shard {
    /// Stops accepting and receiving. What has completed by then is still taken, and so is what was kept.
    pub(super) fn begin_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let now = self.now();
        self.stopping = Some(Stopping { deadline: now + self.settings.stop_grace(), finishing: false });
        let cancel = Tag::new(OpKind::Cancel as u8, 0, 0);
        let accepts = self.connections.iter_accepting().map(|slot| (slot, OpKind::Accept));
        let open = self.connections.iter_open().filter(|connection| connection.receiving);
        let streams = open.map(|connection| (connection.id.slot, OpKind::ReceiveStream));
        for (slot, kind) in accepts.chain(streams) {
            let ring = &mut self.rings[(slot / self.table_slots) as usize];
            let tag = ring.slots.tag(kind as u8, uring::DirectSlot::new(slot % self.table_slots));
            ring.ring.push(Op::Cancel { tag }, cancel);
        }
        let receiving = |index: &usize| self.listeners[*index].receiving;
        for index in (0..self.listeners.len()).filter(receiving) {
            let tag = Tag::new(OpKind::ReceiveDatagrams as u8, 0, index as u32);
            self.rings[0].ring.push(Op::Cancel { tag }, cancel);
        }
        self.release_holds(now);
        self.release_all(now);
        self.close_unread();
        self.due.again = true;
    }

    /// Closes the connections from which nothing comes any more and nothing is kept. The others follow as their receives end,
    /// so that agents learn at once that nobody takes their events.
    fn close_unread(&mut self) {
        let open = self.connections.iter_open();
        let unread = open.filter(|connection| !connection.receiving && connection.held.is_empty());
        for id in unread.map(|connection| connection.id).collect::<Vec<_>>() {
            self.manager.on_closed(id);
            self.begin_close(id);
        }
    }

    /// Whether a shard that was told to stop has handed over what it holds, or run out of time.
    pub(super) fn is_done(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        if self.now() >= stopping.deadline {
            return true;
        }
        let receiving = self.listeners.iter().any(|listener| listener.receiving)
            || self.connections.iter_open().any(|connection| connection.receiving);
        !receiving && !self.has_backlog() && self.sinks.is_empty()
    }

    /// Ends everything that is with the kernel, gives up what could not be handed over, and stores the last numbers.
    pub(super) fn finish(mut self) -> Result<(), ShardError> {
        if let Some(stopping) = &mut self.stopping {
            stopping.finishing = true;
        }
        let deadline = Instant::now() + CANCEL_TIME_MAX;
        for index in 0..self.rings.len() {
            self.end_ring(index, deadline)?;
        }
        self.sinks.abandon();
        self.count_kernel_drops();
        let now = self.now();
        self.report(now);
        Ok(())
    }

    fn end_ring(&mut self, index: usize, deadline: Instant) -> Result<(), ShardError> {
        while self.rings[index].ring.in_flight() > 0 && Instant::now() < deadline {
            let ring = &mut self.rings[index].ring;
            ring.cancel_everything();
            let timeout = Some(Duration::from_millis(20));
            ring.wait(Wait { completions_min: ring.in_flight(), min_wait: None, timeout })
                .map_err(ShardError::Wait)?;
            while let Some(completion) = self.rings[index].ring.pop() {
                let (now, sink) = (self.now(), completion.tag.slot() as usize);
                let kind = OpKind::of(completion.tag.kind());
                if kind == Some(OpKind::SinkWrite) {
                    self.sinks.on_written(sink, now, completion.result);
                } else if kind == Some(OpKind::SinkSync) {
                    self.sinks.on_synced(sink, now, completion.result);
                }
                completion.lease.into_iter().for_each(|lease| self.rings[index].ring.give_back(lease));
            }
        }
        Ok(())
    }
}
