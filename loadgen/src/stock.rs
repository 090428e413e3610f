//! Messages in stock: so many of each agent, sealed once, for as many legs as they last.
//!
//! A message depends on its agent and sequence, and not on when it is sent or with which others. So a fleet that goes on
//! where it stopped takes any leg's messages from here, and a fresh manager, which knows no counter yet, takes them again
//! from the first. An agent's messages lie one after the other, each behind its length: a burst over TCP is one piece of
//! the stock, and a datagram is one without its length.
//!
//! ```text
//! chunk 0: agent 0: length message length message ... | agent 1: ...      `ends`: where each event ends in its chunk
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use codec::FRAME_HEADER_BYTES;

use crate::seal_ahead::{Script, SealAheadError, Sealing, seal_chunks};

/// Agents of one chunk: enough to share one reference count, few enough to share the work out.
const CHUNK_AGENTS: u32 = 64;
/// Events that are sealed to estimate the memory of all.
const SAMPLE_EVENTS: u64 = 256;

/// The messages of a fleet.
#[derive(Debug)]
pub struct Stock {
    chunks: Vec<Chunk>,
    events_each: u32,
}

#[derive(Debug)]
struct Chunk {
    messages: Bytes,
    ends: Vec<u32>,
}

impl Stock {
    /// Seals `events_each` messages of each agent; `sealed` is told how many events are done, `stop` ends it early.
    ///
    /// # Errors
    /// See [`SealAheadError`]; memory is not checked here: see [`Stock::bytes_per_event`].
    ///
    /// # Panics
    /// If a sealing thread did.
    pub fn seal(
        script: Script<'_>,
        events_each: u32,
        threads: usize,
        sealed: &AtomicU64,
        stop: &AtomicBool,
    ) -> Result<Stock, SealAheadError> {
        let agents = script.members.len() as u32;
        let seal_chunk = |sealing: &mut Sealing<'_>, number: u64| {
            let first = number as u32 * CHUNK_AGENTS;
            let end = (first + CHUNK_AGENTS).min(agents);
            let events = ((end - first) * events_each) as usize;
            let mut ends = Vec::with_capacity(events);
            let mut messages = Vec::with_capacity(events * 256);
            for agent in first..end {
                for sequence in 0..u64::from(events_each) {
                    sealing.seal_frame(agent, sequence, &mut messages)?;
                    ends.push(u32::try_from(messages.len()).expect("a chunk of messages is below 4 GiB"));
                }
            }
            messages.shrink_to_fit();
            sealed.fetch_add(ends.len() as u64, Ordering::Relaxed);
            Ok(Chunk { messages: messages.into(), ends })
        };
        let chunk_count = u64::from(agents.div_ceil(CHUNK_AGENTS));
        let chunks = seal_chunks(script, chunk_count, threads, stop, seal_chunk)?;
        Ok(Stock { chunks, events_each })
    }

    /// What a message takes in memory, by a sample.
    ///
    /// # Errors
    /// If an event can't be sealed.
    pub fn bytes_per_event(script: Script<'_>) -> Result<u64, SealAheadError> {
        let agents = script.members.len() as u64;
        let mut sealing = Sealing::new(script);
        let mut sample = Vec::new();
        for number in 0..SAMPLE_EVENTS {
            let sealed = sealing.seal_frame((number % agents) as u32, number, &mut sample);
            sealed.map_err(SealAheadError::Seal)?;
        }
        Ok((sample.len() as u64).div_ceil(SAMPLE_EVENTS) + size_of::<u32>() as u64)
    }

    /// Messages of each agent.
    pub fn events_each(&self) -> u32 {
        self.events_each
    }

    /// What all messages take on the wire, lengths included.
    pub fn wire_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.messages.len() as u64).sum()
    }

    /// So many messages of an agent from a sequence on, each behind its length.
    ///
    /// # Panics
    /// If the stock does not hold them.
    pub fn frames(&self, agent: u32, sequence: u64, events: u32) -> Bytes {
        let (chunk, first) = self.place(agent, sequence, events);
        chunk.messages.slice(chunk.start_of(first)..chunk.ends[first + events as usize - 1] as usize)
    }

    /// One message of an agent, without its length.
    ///
    /// # Panics
    /// If the stock does not hold it.
    pub fn message(&self, agent: u32, sequence: u64) -> Bytes {
        let (chunk, first) = self.place(agent, sequence, 1);
        chunk.messages.slice(chunk.start_of(first) + FRAME_HEADER_BYTES..chunk.ends[first] as usize)
    }

    fn place(&self, agent: u32, sequence: u64, events: u32) -> (&Chunk, usize) {
        assert!(
            sequence + u64::from(events) <= u64::from(self.events_each),
            "agent {agent} has {} messages in stock, not {sequence} and {events}",
            self.events_each
        );
        let within = (agent % CHUNK_AGENTS) as usize * self.events_each as usize;
        (&self.chunks[(agent / CHUNK_AGENTS) as usize], within + sequence as usize)
    }
}

impl Chunk {
    fn start_of(&self, event: usize) -> usize {
        if event == 0 { 0 } else { self.ends[event - 1] as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{Found, Lines, Mark};
    use crate::members::{CounterBase, made_up};
    use codec::{FrameAt, FrameCutter, Method, OpenSettings, Opener, Wire, classify};

    #[test]
    fn every_message_opens_to_its_event_alone_and_in_a_burst() {
        let members = made_up(70, 1);
        let lines = Lines::new(8, 1, 200);
        let counters = CounterBase::at(1_795_000_000);
        let script = Script { lines: &lines, members: &members, method: Method::AesWazuh, counters };
        let sealed = AtomicU64::new(0);
        let stock = Stock::seal(script, 4, 2, &sealed, &AtomicBool::new(false)).unwrap();
        assert_eq!((sealed.into_inner(), stock.events_each()), (280, 4));
        assert!(Stock::bytes_per_event(script).unwrap() > stock.wire_bytes() / 280);
        let mut opener = Opener::new(OpenSettings::default());
        for (agent, member) in members.iter().enumerate() {
            let mut check = |message: &[u8], sequence: u64| {
                let Ok(Wire::Id { id, sealed }) = classify(message) else { panic!("no id in front") };
                assert_eq!(id, member.entry.id);
                let batch = [codec::Sealed { key: &member.cipher_key, bytes: sealed, method_hint: None }];
                let batch = opener.open(&batch);
                let opened = batch.get(0).unwrap();
                assert_eq!(opened.counter, counters.of_event(sequence));
                let mark = Mark { run: 8, agent: agent as u32, sequence };
                assert_eq!(lines.find(opened.text), Found::Ours(mark));
            };
            check(&stock.message(agent as u32, 3), 3);
            let stream = stock.frames(agent as u32, 1, 3);
            let mut frames = Vec::new();
            FrameCutter::new(65_536).cut(&stream, &mut frames).unwrap();
            assert_eq!(frames.len(), 3);
            for (sequence, frame) in (1..).zip(frames) {
                let FrameAt::Received(range) = frame else { panic!("a whole frame was carried") };
                check(&stream[range], sequence);
            }
        }
        let stopped = Stock::seal(script, 4, 1, &AtomicU64::new(0), &AtomicBool::new(true)).unwrap_err();
        assert_eq!(stopped, SealAheadError::Interrupted);
    }
}
