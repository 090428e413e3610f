//! Which events the manager has read. Over TCP a manager reads in order, and answers each start-up and each keep-alive with
//! one acknowledgement: the n-th acknowledgement says that everything before the n-th of them has been read.
//!
//! The kernel's count of unacknowledged bytes (SIOCOUTQ) would know less: it falls when the manager's kernel has the bytes,
//! and what a manager had not read yet dies with it.

use std::collections::VecDeque;
use std::time::Duration;

use spool::Sequence;

/// Bytes of events after which the manager is asked before its time.
const BYTES_ASKED_AFTER: usize = 1 << 20;
/// Questions that may be open at once.
const MARKS_MAX: usize = 4;

/// For one connection.
#[derive(Debug, Default)]
pub(crate) struct Confirmation {
    asked: u64,
    answered: u64,
    /// The number of a question, and the last event before it.
    marks: VecDeque<(u64, Sequence)>,
    unasked: Option<Unasked>,
}

/// Events behind the last question.
#[derive(Clone, Copy, Debug)]
struct Unasked {
    last: Sequence,
    since: Duration,
    bytes: usize,
}

impl Confirmation {
    /// An event was handed to the connection.
    pub(crate) fn on_handed(&mut self, now: Duration, sequence: Sequence, bytes: usize) {
        let unasked = self.unasked.get_or_insert(Unasked { last: sequence, since: now, bytes: 0 });
        unasked.last = sequence;
        unasked.bytes += bytes;
    }

    /// A start-up or a keep-alive was.
    pub(crate) fn on_asked(&mut self) {
        self.asked += 1;
        if self.marks.len() < MARKS_MAX
            && let Some(unasked) = self.unasked.take()
        {
            self.marks.push_back((self.asked, unasked.last));
        }
    }

    /// An acknowledgement came. Returns the last event that is confirmed by it, if any is.
    pub(crate) fn on_acknowledged(&mut self) -> Option<Sequence> {
        // One that was not asked for confirms nothing that was asked later.
        self.answered = (self.answered + 1).min(self.asked);
        let mut confirmed = None;
        while let Some((question, last)) = self.marks.front()
            && *question <= self.answered
        {
            confirmed = Some(*last);
            self.marks.pop_front();
        }
        confirmed
    }

    /// When to ask; `None` if there is nothing to ask for, or enough has been asked. May change with every input.
    pub(crate) fn ask_at(&self, after: Duration) -> Option<Duration> {
        let unasked = self.unasked.filter(|_| self.marks.len() < MARKS_MAX)?;
        if unasked.bytes >= BYTES_ASKED_AFTER { Some(unasked.since) } else { Some(unasked.since + after) }
    }

    /// Whether everything that was handed over is confirmed.
    pub(crate) fn is_settled(&self) -> bool {
        self.marks.is_empty() && self.unasked.is_none()
    }

    /// Whether there are events behind the last question.
    pub(crate) fn has_unasked(&self) -> bool {
        self.unasked.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_nth_answer_confirms_what_stood_before_the_nth_question() {
        let mut confirmation = Confirmation::default();
        confirmation.on_asked();
        assert_eq!(confirmation.on_acknowledged(), None, "the start-up");
        confirmation.on_handed(at(1), Sequence(5), 10);
        confirmation.on_handed(at(2), Sequence(6), 10);
        assert_eq!(confirmation.ask_at(at(5)), Some(at(6)));
        confirmation.on_asked();
        assert_eq!(confirmation.ask_at(at(5)), None);
        confirmation.on_handed(at(3), Sequence(7), 10);
        confirmation.on_asked();
        assert_eq!(confirmation.on_acknowledged(), Some(Sequence(6)));
        assert!(!confirmation.is_settled());
        assert_eq!(confirmation.on_acknowledged(), Some(Sequence(7)));
        assert!(confirmation.is_settled());
    }

    #[test]
    fn what_nobody_asked_for_confirms_nothing_asked_later() {
        let mut confirmation = Confirmation::default();
        confirmation.on_asked();
        for _ in 0..5 {
            assert_eq!(confirmation.on_acknowledged(), None);
        }
        confirmation.on_handed(at(1), Sequence(1), 10);
        confirmation.on_asked();
        assert_eq!(confirmation.on_acknowledged(), Some(Sequence(1)));
    }

    #[test]
    fn many_bytes_are_asked_for_at_once_and_open_questions_have_a_bound() {
        let mut confirmation = Confirmation::default();
        for number in 0..10 {
            confirmation.on_handed(at(number), Sequence(number), BYTES_ASKED_AFTER);
            let asked = confirmation.ask_at(at(60));
            assert_eq!(asked, (number < 4).then_some(at(number)), "{number}");
            confirmation.on_asked();
        }
        for expected in [0, 1, 2, 3] {
            assert_eq!(confirmation.on_acknowledged(), Some(Sequence(expected)));
        }
        assert_eq!(confirmation.ask_at(at(60)), Some(at(4)), "what found no room is asked for now");
        assert_eq!(confirmation.on_acknowledged(), None);
        assert!(confirmation.has_unasked());
    }
}
