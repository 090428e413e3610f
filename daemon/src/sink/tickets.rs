//! The numbered events in an outbox: which of its messages each is, and what is to be noted once that has left.

use std::collections::VecDeque;

use manager::Ticket;

/// The tickets of one outbox, in the order in which they were taken.
///
/// Invariant: `left` of the entries never falls from front to back, and is at least `gone`.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    entries: VecDeque<Entry>,
    /// Messages that have left the outbox.
    gone: u64,
}

/// What is to be noted, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    /// Once so many messages have left.
    left: u64,
    /// The agent's place in the ledger.
    cell: u32,
    /// Whether it is that of the message which leaves then. If not, it goes with what is before it: an event without a form.
    is_message: bool,
    /// The number before which the sink has everything then.
    before: u64,
}

impl Tickets {
    /// The outbox has taken a message, and holds so many with it.
    pub(super) fn add(&mut self, held: u64, ticket: Ticket) {
        self.push(held, ticket, true);
    }

    /// The sink will never have this event: it counts as handed over once those before it are, of which so many are held.
    /// What is to be noted at once comes back.
    pub(super) fn pass(&mut self, held: u64, ticket: Ticket) -> Option<(u32, u64)> {
        if held == 0 {
            return Some((ticket.cell, before(ticket)));
        }
        let left = self.gone + held;
        match self.entries.back_mut() {
            // Many in a row need no more room than one.
            Some(last) if !last.is_message && (last.left, last.cell) == (left, ticket.cell) => {
                last.before = before(ticket);
            }
            Some(_) | None => self.push(held, ticket, false),
        }
        None
    }

    /// Whether one of the next messages, so many, has a ticket.
    #[inline]
    pub(super) fn is_within(&self, messages: u64) -> bool {
        self.entries.front().is_some_and(|first| first.left <= self.gone + messages)
    }

    /// Those of the next messages, with the place of the message: 0 is the next one. What is to be noted with it.
    pub(super) fn next_messages(&self) -> impl Iterator<Item = (u64, u32, u64)> {
        let messages = self.entries.iter().filter(|entry| entry.is_message);
        messages.map(|entry| (entry.left - self.gone - 1, entry.cell, entry.before))
    }

    /// So many messages have left. `note` gets what is to be noted, in order.
    #[inline]
    pub(super) fn settle(&mut self, messages: u64, mut note: impl FnMut(u32, u64)) {
        self.gone += messages;
        while let Some(first) = self.entries.front().filter(|first| first.left <= self.gone) {
            note(first.cell, first.before);
            self.entries.pop_front();
        }
    }

    /// Memory that they take.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
    }

    fn push(&mut self, held: u64, ticket: Ticket, is_message: bool) {
        let (cell, left) = (ticket.cell, self.gone + held);
        self.entries.push_back(Entry { left, cell, is_message, before: before(ticket) });
    }
}

/// A sink that has this event, and all before it, has everything before the next number.
fn before(ticket: Ticket) -> u64 {
    ticket.number + 1
}

#[cfg(test)]
mod tests {
    use manager::SinkSet;

    use super::*;

    fn ticket(cell: u32, number: u64) -> Ticket {
        Ticket { cell, number, wanted: SinkSet::NONE.with(0) }
    }

    fn settled(tickets: &mut Tickets, messages: u64) -> Vec<(u32, u64)> {
        let mut noted = Vec::new();
        tickets.settle(messages, |cell, before| noted.push((cell, before)));
        noted
    }

    #[test]
    fn each_is_noted_once_its_message_has_left_and_those_without_go_along() {
        let mut tickets = Tickets::default();
        assert!(settled(&mut tickets, 7).is_empty());
        // Messages: without, 5, without, without, 6.
        tickets.add(2, ticket(3, 5));
        tickets.add(5, ticket(4, 6));
        assert_eq!(tickets.next_messages().collect::<Vec<_>>(), [(1, 3, 6), (4, 4, 7)]);
        assert!(!tickets.is_within(1) && tickets.is_within(2));
        assert!(settled(&mut tickets, 1).is_empty());
        assert_eq!(settled(&mut tickets, 1), [(3, 6)]);
        assert_eq!(tickets.next_messages().collect::<Vec<_>>(), [(2, 4, 7)]);
        assert_eq!(settled(&mut tickets, 3), [(4, 7)]);
        assert_eq!(tickets.bytes(), 0);
    }

    #[test]
    fn what_is_passed_waits_for_what_is_before_it() {
        let mut tickets = Tickets::default();
        assert_eq!(tickets.pass(0, ticket(3, 4)), Some((3, 5)), "nothing is before it");
        tickets.add(1, ticket(3, 5));
        for number in 6..100 {
            assert_eq!(tickets.pass(1, ticket(3, number)), None);
        }
        assert_eq!(tickets.pass(1, ticket(8, 1)), None);
        tickets.add(2, ticket(3, 100));
        assert_eq!(tickets.bytes(), 4 * size_of::<Entry>(), "many that are passed are one");
        assert_eq!(tickets.next_messages().collect::<Vec<_>>(), [(0, 3, 6), (1, 3, 101)]);
        assert_eq!(settled(&mut tickets, 1), [(3, 6), (3, 100), (8, 2)]);
        assert_eq!(settled(&mut tickets, 1), [(3, 101)]);
    }
}
