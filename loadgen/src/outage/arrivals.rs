//! The reader in analysisd's place, on a thread of its own: a manager must never wait for the scene.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use memchr::memmem;

use crate::reader::QueueSocket;

const DATAGRAM_BYTES_MAX: usize = 65_537;

/// What analysisd would be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// An agent has started.
    Started {
        /// Which, from 0.
        agent: u32,
    },
    /// An event of an agent.
    Event {
        /// Which agent, from 0.
        agent: u32,
        /// Which of its events, from 0.
        sequence: u32,
    },
}

/// The thread; it ends when this goes.
#[derive(Debug)]
pub(super) struct Arrivals {
    receiver: Receiver<io::Result<(Instant, Said)>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Arrivals {
    /// Reads from now on.
    ///
    /// # Errors
    /// If there can be no such thread.
    pub(super) fn read(queue: QueueSocket) -> io::Result<Arrivals> {
        let (sender, receiver) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let read = move || {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            while !over.load(Ordering::Relaxed) {
                let arrived = match queue.receive(&mut buffer) {
                    Ok(bytes) => bytes.and_then(|bytes| said(&buffer[..bytes])),
                    // Nobody listens any more if it can't be sent.
                    Err(error) => return drop(sender.send(Err(error))),
                };
                if arrived.is_some_and(|said| sender.send(Ok((Instant::now(), said))).is_err()) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("arrivals".into()).spawn(read)?;
        Ok(Arrivals { receiver, is_over, thread: Some(thread) })
    }

    /// What has arrived and was not given yet.
    pub(super) fn next(&self) -> Option<io::Result<(Instant, Said)>> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            let _ = thread.join();
        }
    }
}

/// What a datagram of analysisd's queue says; `None` if it is neither.
fn said(datagram: &[u8]) -> Option<Said> {
    let after = |marker: &[u8]| {
        let at = memmem::find(datagram, marker)? + marker.len();
        std::str::from_utf8(&datagram[at..]).ok()
    };
    if let Some(text) = after(b"->outage:event ") {
        let (agent, sequence) = text.trim_end_matches('\0').split_once(' ')?;
        return Some(Said::Event { agent: agent.parse().ok()?, sequence: sequence.parse().ok()? });
    }
    // Its name ends with its number, from 1.
    let name = after(b"->ossec:ossec: Agent started: 'load-")?;
    let number: u32 = name.split_once("->")?.0.parse().ok()?;
    Some(Said::Started { agent: number.checked_sub(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_starts_are_found_in_the_form_of_the_queue() {
        let check = |datagram: &[u8], expected: Option<Said>| assert_eq!(said(datagram), expected);
        check(b"1:(load-000004) any->outage:event 3 17\0", Some(Said::Event { agent: 3, sequence: 17 }));
        check(
            b"1:(load-000004) any->ossec:ossec: Agent started: 'load-000004->any'.\0",
            Some(Said::Started { agent: 3 }),
        );
        check(b"1:(a) any->ossec:ossec: Agent started: 'a->any'.\0", None);
        check(b"1:(a) any->ossec:ossec: Agent started: 'load-000000->any'.\0", None);
        check(b"1:(a) any->outage:event x 1\0", None);
        check(b"", None);
    }
}
