//! What one stream still has to send, in order, however little of it the kernel takes at a time. Pure.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, Bytes};

/// A stream's bytes on their way out: one send in flight at a time, the rest behind it.
///
/// Invariant: `bytes` is the sum of what is in `waiting`, the part in flight included, and at most `bytes_max`.
#[derive(Debug)]
pub struct SendQueue {
    /// What is not sent. While a send is in flight, it is of the front.
    waiting: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
    in_flight: bool,
}

/// The queue has no room for this much more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendQueueFull {
    /// Bytes that wait.
    pub waiting_bytes: usize,
    /// Bytes that may.
    pub bytes_max: usize,
}

impl SendQueue {
    /// An empty queue that holds up to `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> SendQueue {
        SendQueue { waiting: VecDeque::new(), bytes: 0, bytes_max, in_flight: false }
    }

    /// Adds bytes behind the others. Nothing at all is queued for empty bytes.
    ///
    /// # Errors
    ///
    /// When the queue would hold more than it may; it holds none of these bytes then.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), SendQueueFull> {
        if bytes.len() > self.bytes_max - self.bytes {
            return Err(SendQueueFull { waiting_bytes: self.bytes, bytes_max: self.bytes_max });
        }
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.waiting.push_back(bytes);
        }
        Ok(())
    }

    /// The next bytes to send; `None` while a send is in flight, or nothing waits. Changes with `push` and `advance`.
    #[must_use]
    pub fn next_send(&mut self) -> Option<Bytes> {
        if self.in_flight {
            return None;
        }
        let bytes = self.waiting.front()?.clone();
        self.in_flight = true;
        Some(bytes)
    }

    /// The send in flight completed: the kernel took `sent` bytes of it. The rest is what `next_send` names next.
    ///
    /// # Panics
    ///
    /// If no send is in flight, or it was shorter than that.
    pub fn advance(&mut self, sent: u32) {
        assert!(self.in_flight, "nothing was in flight");
        self.in_flight = false;
        let front = self.waiting.front_mut().expect("what is in flight waits at the front");
        front.advance(sent as usize);
        self.bytes -= sent as usize;
        if front.is_empty() {
            self.waiting.pop_front();
        }
    }

    /// Bytes that wait, those in flight included.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits, and nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl fmt::Display for SendQueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of at most {} bytes wait to be sent: the peer does not read",
            self.waiting_bytes, self.bytes_max
        )
    }
}

impl std::error::Error for SendQueueFull {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_sends_make_progress_in_order() {
        let mut queue = SendQueue::new(64);
        for bytes in ["first", "", "second"] {
            queue.push(bytes.into()).unwrap();
        }
        let (mut sent, mut taken_at_once) = (Vec::new(), 1);
        while let Some(bytes) = queue.next_send() {
            assert_eq!(queue.next_send(), None, "one send at a time");
            let taken = bytes.len().min(taken_at_once);
            taken_at_once = taken_at_once % 3 + 1;
            sent.extend_from_slice(&bytes[..taken]);
            queue.advance(taken as u32);
            assert_eq!(queue.waiting_bytes(), "firstsecond".len() - sent.len());
        }
        assert_eq!(sent, b"firstsecond");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let mut queue = SendQueue::new(8);
        queue.push("12345".into()).unwrap();
        assert_eq!(queue.push("6789".into()), Err(SendQueueFull { waiting_bytes: 5, bytes_max: 8 }));
        queue.push("678".into()).unwrap();
        assert_eq!(queue.waiting_bytes(), 8);
    }

    #[test]
    fn a_send_that_took_nothing_is_sent_again() {
        let mut queue = SendQueue::new(8);
        queue.push("abc".into()).unwrap();
        let first = queue.next_send();
        queue.advance(0);
        assert_eq!(queue.next_send(), first);
    }
}
