//! How it is known what the other side has: each connection has its own way.

use std::time::Duration;

use spool::Sequence;

use super::confirmation::Confirmation;

/// The way of one connection.
#[derive(Debug)]
pub(super) enum Way {
    /// The manager says what its sinks have.
    Acknowledged(Acknowledged),
    /// The answers to start-ups and keep-alives tell what the manager has read.
    KeepAlives(Confirmation),
    /// Over UDP nothing is ever known: what is sent is forgotten.
    Unknown,
}

impl Way {
    /// Of a connection on which nothing was said yet.
    pub(super) fn new(is_tcp: bool) -> Way {
        if is_tcp { Way::KeepAlives(Confirmation::default()) } else { Way::Unknown }
    }

    /// Whether events may go, once the agent is ready.
    pub(super) fn has_begun(&self) -> bool {
        match self {
            Way::Acknowledged(acknowledged) => acknowledged.before.is_some(),
            Way::KeepAlives(_) | Way::Unknown => true,
        }
    }

    /// The number to be said before the event of this number, if it has to be.
    pub(super) fn number_to_say(&self, sequence: Sequence) -> Option<u64> {
        match self {
            Way::Acknowledged(acknowledged) => (acknowledged.due != Some(sequence)).then_some(sequence.0),
            Way::KeepAlives(_) | Way::Unknown => None,
        }
    }

    /// An event was handed to the connection.
    pub(super) fn on_handed(&mut self, now: Duration, sequence: Sequence, bytes: usize) {
        match self {
            Way::Acknowledged(acknowledged) => acknowledged.due = Some(Sequence(sequence.0 + 1)),
            Way::KeepAlives(confirmation) => confirmation.on_handed(now, sequence, bytes),
            Way::Unknown => {}
        }
    }

    /// An event was not, and never will be.
    pub(super) fn on_passed_over(&mut self, now: Duration, sequence: Sequence) {
        match self {
            // The next one says its number, and is forgotten with it.
            Way::Acknowledged(_) | Way::Unknown => {}
            Way::KeepAlives(confirmation) => confirmation.on_handed(now, sequence, 0),
        }
    }

    /// A start-up or a keep-alive was handed over.
    pub(super) fn on_asked(&mut self) {
        match self {
            Way::KeepAlives(confirmation) => confirmation.on_asked(),
            Way::Acknowledged(_) | Way::Unknown => {}
        }
    }

    /// One of them was acknowledged. Returns the number before which events are confirmed by it, if any are.
    pub(super) fn on_acknowledged(&mut self) -> Option<Sequence> {
        match self {
            Way::KeepAlives(confirmation) => confirmation.on_acknowledged().map(|last| Sequence(last.0 + 1)),
            Way::Acknowledged(_) | Way::Unknown => None,
        }
    }

    /// When to ask the manager; `None` if there is nothing to ask for. May change with every input.
    pub(super) fn ask_at(&self, after: Duration) -> Option<Duration> {
        match self {
            Way::KeepAlives(confirmation) => confirmation.ask_at(after),
            // It says so by itself.
            Way::Acknowledged(_) | Way::Unknown => None,
        }
    }

    /// Whether everything that was handed over is confirmed.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Way::Acknowledged(acknowledged) => acknowledged.is_settled(),
            Way::KeepAlives(confirmation) => confirmation.is_settled(),
            Way::Unknown => true,
        }
    }

    /// Whether a question would bring something.
    pub(super) fn has_unasked(&self) -> bool {
        match self {
            Way::Acknowledged(acknowledged) => !acknowledged.is_settled(),
            Way::KeepAlives(confirmation) => confirmation.has_unasked(),
            Way::Unknown => false,
        }
    }
}

/// Where a manager and its agent stand, on a connection on which the manager agreed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    /// Its sinks have everything before. `None` until it has said where to begin.
    before: Option<Sequence>,
    /// The number that it gives the next event; `None` until the first was handed over.
    due: Option<Sequence>,
}

/// What the manager's word came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Word {
    /// It has events that this spool never gave out.
    Foreign,
    /// It has everything before.
    Before(Sequence),
}

impl Acknowledged {
    /// The manager says that it has everything before `before`; everything that the spool ever gave out is before `given`.
    ///
    /// Only the first word can tell of what other connections gave: of a later one, what this connection did not give is nothing.
    pub(super) fn on_taken(&mut self, before: Sequence, given: Sequence) -> Word {
        let has = match self.before {
            None if before > given => return Word::Foreign,
            None => before,
            Some(begun) => before.min(self.due.unwrap_or(begun)).max(begun),
        };
        self.before = Some(has);
        Word::Before(has)
    }

    fn is_settled(&self) -> bool {
        self.due.is_none_or(|due| self.before.is_some_and(|before| before >= due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_begins_and_later_ones_tell_of_this_connection_only() {
        let mut way = Way::Acknowledged(Acknowledged::default());
        assert!(!way.has_begun());
        let taken = |way: &mut Way, before| match way {
            Way::Acknowledged(acknowledged) => acknowledged.on_taken(Sequence(before), Sequence(100)),
            Way::KeepAlives(_) | Way::Unknown => unreachable!("it is not"),
        };
        assert_eq!(taken(&mut way, 101), Word::Foreign);
        assert!(!way.has_begun());
        assert_eq!(taken(&mut way, 50), Word::Before(Sequence(50)));
        assert!(way.has_begun() && way.is_settled());
        assert_eq!(taken(&mut way, 60), Word::Before(Sequence(50)), "nothing was given yet");
        assert_eq!(way.number_to_say(Sequence(50)), Some(50));
        way.on_handed(Duration::ZERO, Sequence(50), 1);
        assert_eq!(way.number_to_say(Sequence(51)), None);
        way.on_handed(Duration::ZERO, Sequence(51), 1);
        assert_eq!(way.number_to_say(Sequence(53)), Some(53), "a gap");
        assert_eq!(taken(&mut way, 51), Word::Before(Sequence(51)));
        assert!(!way.is_settled() && way.has_unasked());
        assert_eq!(taken(&mut way, 40), Word::Before(Sequence(51)), "it does not go back");
        assert_eq!(taken(&mut way, 1_000), Word::Before(Sequence(52)));
        assert!(way.is_settled() && !way.has_unasked());
    }
}
