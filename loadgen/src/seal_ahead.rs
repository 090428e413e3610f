//! Every message of the run, sealed before it begins.
//!
//! Real agents compress at level 9, some 20 µs a message; a generator that did so in its loop would measure itself, and
//! one that compressed more cheaply would flatter the manager. So all cores seal what the plan holds, into memory that
//! is laid out in the order of the plan, with a bound.
//!
//! ```text
//! chunk 0: write 0 | write 1 | ...          a write: its events one after the other, over TCP each behind its length
//! chunk 1: write 1024 | ...                 `ends`: where each event ends in its chunk
//! ```

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use codec::{Envelope, FRAME_HEADER_BYTES, Method, SealError, Sealer};

use crate::cli::Protocol;
use crate::lines::Lines;
use crate::members::{CounterBase, Member};
use crate::plan::{Plan, mix};

/// Writes of one chunk: enough to share one reference count, few enough to share the work out.
const CHUNK_WRITES: u64 = 1_024;
/// Events that are sealed to estimate the memory of all.
const SAMPLE_EVENTS: u64 = 256;

/// What each event says, and how it is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// What it says.
    pub lines: &'a Lines,
    /// With whose key.
    pub members: &'a [Member],
    /// With which cipher.
    pub method: Method,
    /// With which counters.
    pub counters: CounterBase,
}

/// What is to be sealed.
#[derive(Debug, Clone, Copy)]
pub struct SealingJob<'a> {
    /// When, who, which event.
    pub plan: &'a Plan,
    /// What each says.
    pub script: Script<'a>,
    /// Whether it gets a length in front.
    pub protocol: Protocol,
    /// Most memory that all may take.
    pub memory_bytes_max: u64,
    /// Threads that seal.
    pub threads: usize,
}

/// The messages of a run.
#[derive(Debug)]
pub struct SealedAhead {
    chunks: Vec<Chunk>,
    burst: u64,
}

#[derive(Debug)]
struct Chunk {
    messages: Bytes,
    ends: Vec<u32>,
}

/// Why the messages of a run could not be sealed ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealAheadError {
    /// Stopped by the operator.
    Interrupted,
    /// They take more memory than allowed.
    Memory {
        /// What they would take.
        needed_bytes: u64,
        /// What they may take.
        allowed_bytes: u64,
    },
    /// An event does not fit a message.
    Seal(SealError),
}

impl fmt::Display for SealAheadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealAheadError::Interrupted => write!(out, "stopped while the messages were sealed"),
            SealAheadError::Memory { needed_bytes, allowed_bytes } => write!(
                out,
                "the messages of this run take {} MiB sealed ahead, --seal-memory-mib allows {}: raise it, or lower --rate or --duration",
                needed_bytes.div_ceil(1 << 20),
                allowed_bytes >> 20
            ),
            SealAheadError::Seal(error) => write!(out, "an event can't be sealed: {error}; lower --bytes"),
        }
    }
}

impl std::error::Error for SealAheadError {}

/// Seals all messages of a run; `sealed` is told how many events are done, `stop` ends it early.
///
/// # Errors
/// See [`SealAheadError`].
///
/// # Panics
/// If a sealing thread did.
pub fn seal_ahead(
    job: SealingJob<'_>,
    sealed: &AtomicU64,
    stop: &AtomicBool,
) -> Result<SealedAhead, SealAheadError> {
    check_memory(job)?;
    let chunk_count = job.plan.writes().div_ceil(CHUNK_WRITES);
    let chunks = seal_chunks(job.script, chunk_count, job.threads, stop, |sealing, number| {
        let chunk = seal_chunk(job, sealing, number)?;
        sealed.fetch_add(chunk.ends.len() as u64, Ordering::Relaxed);
        Ok(chunk)
    })?;
    Ok(SealedAhead { chunks, burst: u64::from(job.plan.burst()) })
}

/// Shares the chunks of some work out among threads; returns them in their order.
///
/// # Errors
/// If an event can't be sealed, or `stop` was set.
///
/// # Panics
/// If a sealing thread did.
pub fn seal_chunks<C: Send>(
    script: Script<'_>,
    chunk_count: u64,
    threads: usize,
    stop: &AtomicBool,
    seal_chunk: impl Fn(&mut Sealing<'_>, u64) -> Result<C, SealError> + Sync,
) -> Result<Vec<C>, SealAheadError> {
    let next_chunk = AtomicU64::new(0);
    let done = Mutex::new(Vec::with_capacity(chunk_count as usize));
    let seal = || -> Result<(), SealAheadError> {
        let mut sealing = Sealing::new(script);
        loop {
            let number = next_chunk.fetch_add(1, Ordering::Relaxed);
            if number >= chunk_count {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(SealAheadError::Interrupted);
            }
            let chunk = seal_chunk(&mut sealing, number).map_err(SealAheadError::Seal)?;
            done.lock().expect("no thread panics with it").push((number, chunk));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a sealing thread does not panic"))
    })?;
    let mut chunks = done.into_inner().expect("no thread panicked with it");
    chunks.sort_unstable_by_key(|(number, _)| *number);
    Ok(chunks.into_iter().map(|(_, chunk)| chunk).collect())
}

impl SealedAhead {
    /// All events of a write in one piece, as they go over a stream.
    pub fn write(&self, number: u64) -> Bytes {
        let (chunk, first) = self.chunk(number);
        chunk.piece(first, first + self.burst as usize)
    }

    /// One event of a write, as it goes into a datagram.
    pub fn event(&self, number: u64, index: u32) -> Bytes {
        let (chunk, first) = self.chunk(number);
        chunk.piece(first + index as usize, first + index as usize + 1)
    }

    /// What all messages take on the wire, lengths included.
    pub fn wire_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.messages.len() as u64).sum()
    }

    fn chunk(&self, number: u64) -> (&Chunk, usize) {
        let chunk = &self.chunks[(number / CHUNK_WRITES) as usize];
        (chunk, (number % CHUNK_WRITES * self.burst) as usize)
    }
}

impl Chunk {
    fn piece(&self, first: usize, end: usize) -> Bytes {
        let start = if first == 0 { 0 } else { self.ends[first - 1] as usize };
        self.messages.slice(start..self.ends[end - 1] as usize)
    }
}

fn seal_chunk(job: SealingJob<'_>, sealing: &mut Sealing<'_>, number: u64) -> Result<Chunk, SealError> {
    let first = number * CHUNK_WRITES;
    let end = (first + CHUNK_WRITES).min(job.plan.writes());
    let events = ((end - first) * u64::from(job.plan.burst())) as usize;
    let mut ends = Vec::with_capacity(events);
    let mut messages = Vec::with_capacity(events * 256);
    for number in first..end {
        let write = job.plan.write(number);
        for sequence in write.sequence..write.sequence + u64::from(job.plan.burst()) {
            seal_event(job, sealing, write.agent, sequence, &mut messages)?;
            ends.push(u32::try_from(messages.len()).expect("a chunk of messages is below 4 GiB"));
        }
    }
    messages.shrink_to_fit();
    Ok(Chunk { messages: messages.into(), ends })
}

fn seal_event(
    job: SealingJob<'_>,
    sealing: &mut Sealing<'_>,
    agent: u32,
    sequence: u64,
    messages: &mut Vec<u8>,
) -> Result<(), SealError> {
    if job.protocol.is_tcp(agent) {
        sealing.seal_frame(agent, sequence, messages)
    } else {
        sealing.seal_message(agent, sequence, messages)
    }
}

/// One sealing thread's memory.
#[derive(Debug)]
pub struct Sealing<'a> {
    script: Script<'a>,
    sealer: Sealer,
    line: String,
}

impl<'a> Sealing<'a> {
    /// Nothing sealed yet.
    pub fn new(script: Script<'a>) -> Sealing<'a> {
        Sealing { script, sealer: Sealer::new(), line: String::new() }
    }

    /// Appends an event's message behind its length, as it goes over a stream.
    ///
    /// # Errors
    /// If the event does not fit a message.
    pub fn seal_frame(&mut self, agent: u32, sequence: u64, messages: &mut Vec<u8>) -> Result<(), SealError> {
        let start = messages.len();
        messages.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        self.seal_message(agent, sequence, messages)?;
        let length = (messages.len() - start - FRAME_HEADER_BYTES) as u32;
        messages[start..start + FRAME_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Appends an event's message, as it goes into a datagram.
    ///
    /// # Errors
    /// If the event does not fit a message.
    pub fn seal_message(
        &mut self,
        agent: u32,
        sequence: u64,
        messages: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.script.lines.write(agent, sequence, &mut self.line);
        let member = &self.script.members[agent as usize];
        let chance = mix((u64::from(agent) << 32) ^ sequence);
        let mut initialization_vector = [0; 16];
        initialization_vector[..8].copy_from_slice(&chance.to_le_bytes());
        initialization_vector[8..].copy_from_slice(&mix(chance).to_le_bytes());
        let envelope = Envelope {
            id_prefix: member.entry.address.agent_sends_id().then_some(member.entry.id),
            method: self.script.method,
            random: (chance & 0xFFFF) as u32,
            counter: self.script.counters.of_event(sequence),
            initialization_vector,
            text: self.line.as_bytes(),
        };
        self.sealer.seal(&member.cipher_key, &envelope, messages)
    }
}

/// Seals a sample, so that a run that does not fit is refused before the work and not after it.
fn check_memory(job: SealingJob<'_>) -> Result<(), SealAheadError> {
    let events = job.plan.events();
    let mut sealing = Sealing::new(job.script);
    let mut sample = Vec::new();
    let sampled = events.min(SAMPLE_EVENTS);
    for number in 0..sampled {
        let agent = (number % u64::from(job.plan.agents())) as u32;
        seal_event(job, &mut sealing, agent, number, &mut sample).map_err(SealAheadError::Seal)?;
    }
    let event_bytes = sample.len() as u64 / sampled + size_of::<u32>() as u64;
    let needed_bytes = event_bytes * events;
    if needed_bytes > job.memory_bytes_max {
        return Err(SealAheadError::Memory { needed_bytes, allowed_bytes: job.memory_bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{Found, Mark};
    use crate::members::made_up;
    use codec::{FrameAt, FrameCutter, OpenSettings, Opener, Wire, classify};
    use std::time::Duration;

    fn with_job<R>(
        protocol: Protocol,
        method: Method,
        burst: u32,
        run: impl FnOnce(SealingJob<'_>) -> R,
    ) -> R {
        let members = made_up(3, 1);
        let plan = Plan::new(3, 100.0, Duration::from_millis(500), burst, 1);
        let lines = Lines::new(8, 1, 200);
        let counters = CounterBase::at(1_795_000_000);
        let memory_bytes_max = 1 << 20;
        run(SealingJob {
            plan: &plan,
            script: Script { lines: &lines, members: &members, method, counters },
            protocol,
            memory_bytes_max,
            threads: 2,
        })
    }

    fn check_message(job: SealingJob<'_>, message: &[u8], agent: u32, sequence: u64) {
        let Ok(Wire::Id { id, sealed }) = classify(message) else { panic!("no id in front") };
        let member = &job.script.members[agent as usize];
        assert_eq!(id, member.entry.id);
        let mut opener = Opener::new(OpenSettings { message_bytes_max: 65_536, old_format: false });
        let batch = [codec::Sealed { key: &member.cipher_key, bytes: sealed, method_hint: None }];
        let batch = opener.open(&batch);
        let opened = batch.get(0).unwrap();
        assert_eq!(
            (opened.method, opened.counter),
            (job.script.method, job.script.counters.of_event(sequence))
        );
        assert_eq!(job.script.lines.find(opened.text), Found::Ours(Mark { run: 8, agent, sequence }));
    }

    #[test]
    fn every_write_opens_to_its_events_in_every_method() {
        for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
            with_job(Protocol::Both, method, 2, |job| {
                let sealed = seal_ahead(job, &AtomicU64::new(0), &AtomicBool::new(false)).unwrap();
                for number in 0..job.plan.writes() {
                    let write = job.plan.write(number);
                    if !Protocol::Both.is_tcp(write.agent) {
                        for index in 0..2 {
                            let message = sealed.event(number, index);
                            check_message(job, &message, write.agent, write.sequence + u64::from(index));
                        }
                        continue;
                    }
                    let stream = sealed.write(number);
                    let mut frames = Vec::new();
                    FrameCutter::new(65_536).cut(&stream, &mut frames).unwrap();
                    assert_eq!(frames.len(), 2);
                    for (sequence, frame) in (write.sequence..).zip(frames) {
                        let FrameAt::Received(range) = frame else { panic!("a whole frame was carried") };
                        check_message(job, &stream[range], write.agent, sequence);
                    }
                }
            });
        }
    }

    #[test]
    fn what_does_not_fit_or_is_stopped_is_said_before_the_work() {
        with_job(Protocol::Udp, Method::AesWazuh, 1, |job| {
            let error = seal_ahead(
                SealingJob { memory_bytes_max: 5_000, ..job },
                &AtomicU64::new(0),
                &AtomicBool::new(false),
            )
            .unwrap_err();
            assert!(matches!(error, SealAheadError::Memory { allowed_bytes: 5_000, .. }));
            assert!(error.to_string().contains("--seal-memory-mib"), "{error}");
            let sealed = AtomicU64::new(0);
            let stopped = seal_ahead(job, &sealed, &AtomicBool::new(true)).unwrap_err();
            assert_eq!((stopped, sealed.into_inner()), (SealAheadError::Interrupted, 0));
        });
    }

    #[test]
    fn progress_ends_at_the_number_of_events() {
        with_job(Protocol::Tcp, Method::AesWazuh, 3, |job| {
            let sealed = AtomicU64::new(0);
            let messages = seal_ahead(job, &sealed, &AtomicBool::new(false)).unwrap();
            assert_eq!(sealed.into_inner(), job.plan.events());
            assert!(messages.wire_bytes() > 100 * job.plan.events());
        });
    }
}
