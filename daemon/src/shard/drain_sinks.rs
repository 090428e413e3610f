//! What the sinks need of the ring.

use manager::Time;
use uring::{GENERATION_MAX, Interest, Op, Shots, Tag, Target};

use super::Shard;
use super::op_kind::OpKind;
use crate::sink::Next;

/// The poll of one sink's socket.
#[derive(Debug, Default)]
pub(super) struct SinkPoll {
    /// It is with the kernel.
    pub(super) armed: bool,
    /// Which it is: an earlier one's completion means nothing.
    number: u32,
}

impl Shard {
    /// Hands over what the sinks hold, as far as it can be handed over now.
    pub(super) fn drain_sinks(&mut self, now: Time) {
        self.due.sinks = None;
        for index in 0..self.sinks.count() {
            match self.sinks.pump(index, now, self.stopping.is_some()) {
                Next::Again => self.due.again = true,
                Next::At(time) => self.call_sinks_at(time),
                Next::Idle => {}
                Next::Poll { descriptor, patience } => {
                    self.arm_sink_poll(index, descriptor.into());
                    self.call_sinks_at(patience);
                }
                Next::Sync { file } => {
                    let tag = Tag::new(OpKind::SinkSync as u8, 0, index as u32);
                    self.rings[0].ring.push(Op::Sync { file: file.into() }, tag);
                }
                Next::Write { file, bytes } => {
                    let tag = Tag::new(OpKind::SinkWrite as u8, 0, index as u32);
                    self.rings[0].ring.push(Op::Write { file: file.into(), bytes, offset: None }, tag);
                }
            }
        }
        self.tell_moved(now);
    }

    /// Lets the manager tell agents what the sinks have of theirs.
    fn tell_moved(&mut self, now: Time) {
        if !self.sinks.moved().is_empty() {
            self.manager.on_sinks_moved(now, self.sinks.moved().drain());
            self.act(None);
        }
    }

    pub(super) fn on_sink_poll(&mut self, tag: Tag) {
        let index = tag.slot() as usize;
        let poll = &mut self.sink_polls[index];
        if poll.armed && poll.number == tag.generation() {
            poll.armed = false;
            self.sinks.on_writable(index);
        }
    }

    fn arm_sink_poll(&mut self, index: usize, target: Target) {
        let poll = &mut self.sink_polls[index];
        let ring = &mut self.rings[0].ring;
        let tag = |number| Tag::new(OpKind::SinkPoll as u8, number, index as u32);
        if poll.armed {
            ring.push(Op::Cancel { tag: tag(poll.number) }, Tag::new(OpKind::Cancel as u8, 0, 0));
        }
        poll.number = if poll.number == GENERATION_MAX { 0 } else { poll.number + 1 };
        poll.armed = true;
        let op = Op::Poll { target, interest: Interest::Writable, shots: Shots::One };
        ring.push(op, tag(poll.number));
    }

    fn call_sinks_at(&mut self, time: Time) {
        self.due.sinks = Some(self.due.sinks.map_or(time, |earlier| earlier.min(time)));
    }
}
