//! What becomes of a message on its way to an agent over TCP: taken by the kernel, acknowledged by the agent's host, or lost with
//! its connection. Only messages whose sender wants to know are looked at; an event's way passes none of this.
//!
//! TCP acknowledges bytes, and the kernel tells how many are not acknowledged yet. It is asked for a connection that has such
//! messages: soon, then ever more seldom, and once more at the connection's end.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use manager::{ConnectionId, Time, Transport};
use uring::{Completion, Errno, Op};

use super::Shard;
use super::connections::Entry;
use super::op_kind::OpKind;
use crate::outward::{Receipt, SendFailure, SendHow, SendOutcome};

/// How soon the kernel is asked after a message went; each time it has to be asked again, twice that.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_SELDOM: Duration = Duration::from_secs(1);

/// The messages of one connection whose senders are still to be told.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// Bytes ever queued on this connection, and those of them that the kernel has taken.
    queued: u64,
    sent: u64,
    /// In the order of the stream.
    open: VecDeque<Open>,
    /// The kernel is being asked.
    pub(crate) looking: bool,
    /// When it was asked last, how long to wait after that.
    pause: Duration,
    /// It is to be asked at this time.
    due: Option<Time>,
}

#[derive(Debug)]
struct Open {
    ticket: u64,
    /// Where in the stream its last byte is.
    end: u64,
    receipt: Receipt,
}

impl Receipts {
    /// So many bytes were queued.
    pub(super) fn queued(&mut self, bytes: u64) {
        self.queued += bytes;
    }

    /// What was queued last is the message of this ticket.
    pub(super) fn open(&mut self, ticket: u64, receipt: Receipt) {
        self.open.push_back(Open { ticket, end: self.queued, receipt });
    }

    /// The kernel took so many bytes. Whether it should be asked what the peer has acknowledged.
    pub(super) fn sent(&mut self, bytes: u64, outcomes: &mut Vec<SendOutcome>) -> bool {
        self.sent += bytes;
        if self.open.is_empty() {
            return false;
        }
        let sent = self.sent;
        self.open.retain(|open| {
            let through = open.receipt == Receipt::Taken && open.end <= sent;
            if through {
                outcomes.push(delivered(open.ticket));
            }
            !through
        });
        self.waits() && self.due.is_none() && !self.looking
    }

    /// So many of the bytes that were sent are not acknowledged; `None`: this kernel can't tell.
    fn acknowledged(&mut self, missing: Option<u64>, outcomes: &mut Vec<SendOutcome>) {
        let acknowledged = self.sent.saturating_sub(missing.unwrap_or(0));
        while let Some(open) = self.open.pop_front_if(|open| open.end <= acknowledged) {
            outcomes.push(delivered(open.ticket));
        }
    }

    /// The connection ends. What the kernel has not taken whole is lost; what it has, if any, is still to be asked for.
    pub(super) fn end(&mut self, outcomes: &mut Vec<SendOutcome>) -> Option<Box<Receipts>> {
        if self.open.is_empty() && !self.looking {
            return None;
        }
        while let Some(open) = self.open.pop_back_if(|open| open.end > self.sent) {
            outcomes.push(lost(open.ticket));
        }
        (self.looking || !self.open.is_empty()).then(|| Box::new(std::mem::take(self)))
    }

    /// Whether something was sent that is not known to have arrived.
    fn waits(&self) -> bool {
        self.open.front().is_some_and(|open| open.receipt == Receipt::Arrived && open.end <= self.sent)
    }

    /// When to ask next.
    fn next_look(&mut self, now: Time, first: bool) -> Time {
        self.pause = if first { LOOK_FIRST } else { (self.pause * 2).min(LOOK_SELDOM) };
        let due = now + self.pause;
        self.due = Some(due);
        due
    }
}

fn delivered(ticket: u64) -> SendOutcome {
    SendOutcome { ticket, outcome: Ok(SendHow { over: Transport::Tcp }) }
}

fn lost(ticket: u64) -> SendOutcome {
    SendOutcome { ticket, outcome: Err(SendFailure::ConnectionEnded) }
}

/// Which connections the kernel is to be asked about, and when. Some of them are closed by then.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeSet<(Time, ConnectionId)>);

impl Looks {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.0.first().map(|(due, _)| *due)
    }
}

impl Shard {
    /// The kernel has taken a message that is to arrive: asks soon whether it did.
    pub(super) fn look_soon(&mut self, id: ConnectionId) {
        let now = self.now();
        let Some(connection) = self.connections.find(id) else { return };
        let due = connection.receipts.next_look(now, true);
        self.looks.0.insert((due, id));
    }

    /// Asks for those that are due.
    pub(super) fn look_due(&mut self, now: Time) {
        while let Some((due, id)) = self.looks.0.first().copied().filter(|(due, _)| *due <= now) {
            self.looks.0.remove(&(due, id));
            let Some(connection) = self.connections.find(id) else { continue };
            connection.receipts.due = None;
            if connection.receipts.waits() && !connection.receipts.looking {
                connection.receipts.looking = true;
                self.ask_unacknowledged(id.slot);
            }
        }
    }

    /// Asks the kernel what the peer of a slot's connection has not acknowledged.
    pub(super) fn ask_unacknowledged(&mut self, slot: u32) {
        let (ring, slot) = self.place(slot);
        let ring = &mut self.rings[ring];
        let tag = ring.slots.tag(OpKind::Unacknowledged as u8, slot);
        ring.ring.push(Op::Unacknowledged { socket: slot.into() }, tag);
    }

    /// The kernel has answered.
    pub(super) fn on_unacknowledged(&mut self, ring: usize, completion: &Completion, now: Time) {
        let slot = ring as u32 * self.table_slots + completion.tag.slot();
        // An older kernel does not know the question: then what it took has to count as arrived.
        let missing = match completion.result {
            Ok(missing) => Some(u64::from(missing)),
            Err(Errno::CANCELED) => Some(u64::MAX),
            Err(_) => None,
        };
        match self.connections.entry(slot) {
            Entry::Open(connection) => {
                connection.receipts.looking = false;
                connection.receipts.acknowledged(missing, &mut self.outcomes);
                if connection.receipts.waits() {
                    let due = connection.receipts.next_look(now, false);
                    let id = connection.id;
                    self.looks.0.insert((due, id));
                }
            }
            Entry::Closing { receipts, .. } => {
                if let Some(mut receipts) = receipts.take() {
                    receipts.acknowledged(missing, &mut self.outcomes);
                    self.outcomes.extend(receipts.open.iter().map(|open| lost(open.ticket)));
                }
                self.on_operation_ended(slot);
            }
            Entry::Free | Entry::Accepting { .. } => {
                unreachable!("slot {slot} is kept until its last operation ends")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcomes: &mut Vec<SendOutcome>) -> Vec<(u64, bool)> {
        outcomes.drain(..).map(|outcome| (outcome.ticket, outcome.outcome.is_ok())).collect()
    }

    #[test]
    fn each_message_is_told_of_once_and_when_it_should_be() {
        let (mut receipts, mut outcomes) = (Receipts::default(), Vec::new());
        receipts.queued(100);
        for (ticket, receipt) in [(1, Receipt::Taken), (2, Receipt::Arrived), (3, Receipt::Arrived)] {
            receipts.queued(50);
            receipts.open(ticket, receipt);
        }
        assert!(!receipts.sent(140, &mut outcomes), "nothing is through");
        assert!(!receipts.sent(20, &mut outcomes));
        assert_eq!(told(&mut outcomes), [(1, true)]);
        assert!(receipts.sent(60, &mut outcomes), "the second may have arrived");
        receipts.next_look(Time::ZERO, true);
        assert!(!receipts.sent(10, &mut outcomes), "it will be asked for already");
        receipts.acknowledged(Some(31), &mut outcomes);
        assert_eq!(told(&mut outcomes), []);
        receipts.acknowledged(Some(30), &mut outcomes);
        assert_eq!(told(&mut outcomes), [(2, true)]);
        let left = receipts.end(&mut outcomes);
        assert_eq!(
            (told(&mut outcomes), left.is_none()),
            (vec![(3, false)], true),
            "the kernel never had all of it"
        );
    }

    #[test]
    fn at_the_end_what_the_kernel_took_is_asked_for_once_more() {
        let (mut receipts, mut outcomes) = (Receipts::default(), Vec::new());
        for ticket in 1..=3 {
            receipts.queued(50);
            receipts.open(ticket, Receipt::Arrived);
        }
        receipts.sent(120, &mut outcomes);
        let mut left = receipts.end(&mut outcomes).expect("two may have arrived");
        assert_eq!(told(&mut outcomes), [(3, false)]);
        left.acknowledged(Some(30), &mut outcomes);
        assert_eq!(told(&mut outcomes), [(1, true)]);
        left.acknowledged(None, &mut outcomes);
        assert_eq!(told(&mut outcomes), [(2, true)], "a kernel that can't tell");
        assert!(receipts.end(&mut outcomes).is_none());
    }

    #[test]
    fn looks_become_seldom() {
        let mut receipts = Receipts::default();
        let mut now = receipts.next_look(Time::ZERO, true);
        assert_eq!(now, Time::ZERO + LOOK_FIRST);
        for _ in 0..20 {
            let next = receipts.next_look(now, false);
            assert!(next.since(now) <= LOOK_SELDOM);
            now = next;
        }
        assert_eq!(receipts.pause, LOOK_SELDOM);
    }
}
