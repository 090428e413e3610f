//! A ring whose completions come from a script in place of the kernel: what turns on a ring can be measured by itself.
//!
//! The script is loaded with filled buffers and ready-made completions. `wait` enters no kernel, `pop` yields the
//! script, `give_back` recycles buffers in the kernel's order. Of what is pushed, writes and sends succeed in full
//! and closes succeed; accepts, receives and polls complete when the script says so.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::completion::{Armed, Completion};
use crate::datagram;
use crate::lease::{GroupId, Lease};
use crate::memories::bare;
use crate::op::Op;
use crate::ring::Ring;
use crate::tag::Tag;

/// What stands in the kernel's place.
#[derive(Debug, Default)]
pub(crate) struct Script {
    completions: VecDeque<Completion>,
    /// For each group, how many buffers were taken, modulo 2^16.
    taken: Vec<u16>,
}

impl Ring {
    /// From now on a script stands in the kernel's place, for good. Nothing that was pushed before will happen.
    ///
    /// # Panics
    ///
    /// If the kernel was entered already.
    pub fn begin_script(&mut self) {
        assert_eq!(self.enters(), 0, "a script begins before the kernel has anything");
        self.in_flight = 0;
        self.script = Some(Script::default());
    }

    /// Appends a completion, which the next [`Ring::pop`]s yield.
    ///
    /// # Panics
    ///
    /// If the ring has no script.
    pub fn script(&mut self, tag: Tag, armed: Armed, lease: Option<Lease>, peer: Option<SocketAddr>) {
        let result = lease.as_ref().map_or(0, Lease::length).cast_signed();
        let completion = Completion { lease, peer, ..bare(tag, result, armed) };
        self.script.as_mut().expect("the ring has a script").completions.push_back(completion);
    }

    /// Fills a buffer as a receive from a stream does; `None` if the group has none left, or a smaller one.
    ///
    /// # Panics
    ///
    /// If the ring has no script, or no such group.
    #[must_use]
    pub fn fill_stream(&mut self, group: GroupId, bytes: &[u8]) -> Option<Lease> {
        self.fill(group, [&[], bytes])
    }

    /// Fills a buffer as a receive of a datagram does, header included; `None` if the group has none left, or a smaller
    /// one.
    ///
    /// # Panics
    ///
    /// If the ring has no script, or no such group.
    #[must_use]
    pub fn fill_datagram(&mut self, group: GroupId, from: SocketAddr, payload: &[u8]) -> Option<Lease> {
        self.fill(group, [&datagram::header(from, payload.len() as u32), payload])
    }

    fn fill(&mut self, group: GroupId, parts: [&[u8]; 2]) -> Option<Lease> {
        let script = self.script.as_mut().expect("the ring has a script");
        let at = usize::from(group.0);
        script.taken.resize(script.taken.len().max(at + 1), 0);
        self.memory.groups[at].fill(&mut script.taken[at], parts)
    }
}

impl Script {
    /// What becomes of an operation.
    pub(crate) fn push(&mut self, op: Op, tag: Tag) {
        let completion = match op {
            Op::Send { bytes, .. } | Op::SendTo { bytes, .. } | Op::Write { bytes, .. } => {
                let done = bare(tag, bytes.len() as i32, Armed::No);
                Completion { bytes: Some(bytes), ..done }
            }
            Op::Cancel { .. }
            | Op::CancelAll { .. }
            | Op::Close { .. }
            | Op::ShutdownSend { .. }
            | Op::Sync { .. }
            | Op::Unacknowledged { .. } => bare(tag, 0, Armed::No),
            Op::Accept { .. }
            | Op::Connect { .. }
            | Op::Message { .. }
            | Op::Poll { .. }
            | Op::ReadEvent { .. }
            | Op::ReceiveDatagrams { .. }
            | Op::ReceiveStream { .. } => return,
        };
        self.completions.push_back(completion);
    }

    /// The next completion.
    pub(crate) fn pop(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{BufferSettings, RingSettings, SendMode, Target, Wait};

    const RECEIVE: Tag = Tag::new(1, 0, 0);
    const SEND: Tag = Tag::new(2, 0, 0);

    fn ring(count: u16) -> (Ring, GroupId) {
        let settings = RingSettings { submissions: 8, completions: 64, direct_descriptors: 4 };
        let mut ring = Ring::new(&settings).unwrap();
        let group = ring.add_buffers(BufferSettings { count, bytes_each: 128 }).unwrap();
        ring.begin_script();
        (ring, group)
    }

    #[test]
    fn buffers_go_round_and_carry_what_was_filled_in() {
        let (mut ring, group) = ring(4);
        let from: SocketAddr = "10.1.2.3:1514".parse().unwrap();
        for round in 0..10_u8 {
            let payloads = [[round; 3], [round + 1; 3], [round + 2; 3]];
            for payload in &payloads {
                let lease = ring.fill_datagram(group, from, payload);
                ring.script(RECEIVE, Armed::Still, Some(lease.unwrap()), None);
            }
            assert_eq!(ring.available(group), 1);
            ring.wait(Wait { completions_min: 64, min_wait: None, timeout: None }).unwrap();
            for payload in &payloads {
                let completion = ring.pop().unwrap();
                assert_eq!((completion.tag, completion.armed), (RECEIVE, Armed::Still));
                let lease = completion.lease.unwrap();
                let datagram = ring.datagram(&lease).unwrap();
                assert_eq!((datagram.from, datagram.payload), (from, &payload[..]));
                assert_eq!((datagram.truncated_from, datagram.kernel_drops), (None, None));
                ring.give_back(lease);
            }
            assert!(ring.pop().is_none());
        }
        assert_eq!((ring.enters(), ring.available(group)), (0, 4));
    }

    #[test]
    fn what_does_not_fit_is_not_filled_in() {
        let (mut ring, group) = ring(1);
        assert!(ring.fill_stream(group, &[0; 129]).is_none());
        let lease = ring.fill_stream(group, b"bytes").unwrap();
        assert_eq!(ring.bytes(&lease), b"bytes");
        assert!(ring.fill_stream(group, b"more").is_none(), "the only buffer is lent");
        ring.give_back(lease);
    }

    #[test]
    fn sends_succeed_and_receives_wait_for_the_script() {
        let (mut ring, group) = ring(1);
        let socket = || Target::from(crate::DirectSlot::new(0));
        let bytes = Bytes::from_static(b"answer");
        ring.push(Op::ReceiveStream { socket: socket(), group }, RECEIVE);
        ring.push(Op::Send { socket: socket(), bytes, mode: SendMode::Waiting }, SEND);
        let sent = ring.pop().unwrap();
        assert_eq!((sent.tag, sent.result, sent.armed), (SEND, Ok(6), Armed::No));
        assert_eq!(sent.bytes.unwrap(), "answer");
        assert!(ring.pop().is_none());
        assert_eq!(ring.in_flight(), 0);
    }
}
