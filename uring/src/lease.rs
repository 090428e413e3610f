//! Who has which buffer: the kernel, or a lease of ours. Pure; the memory is `buf_ring`'s.

use std::collections::VecDeque;

use crate::tag::Tag;

/// A group of buffers of one ring, from which the kernel takes one for each receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub(crate) u16);

/// One filled buffer, lent by the kernel. Goes back through [`Ring::give_back`](crate::Ring::give_back).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not given back is a buffer the kernel never sees again"]
pub struct Lease {
    /// The ring that lent it, so that another ring's buffer of the same number is never meant.
    pub(crate) ring: u32,
    pub(crate) group: GroupId,
    /// The buffer, counted from the group's first.
    pub(crate) index: u16,
    pub(crate) length: u32,
}

impl Lease {
    /// The group that the buffer belongs to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// How many bytes of the buffer are filled.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }
}

/// Which buffers of one group are lent, and who waits for some to come back.
///
/// Invariant: `available + number of lent == count`.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    lent: Vec<bool>,
    available: u16,
    /// Receives that ended for want of buffers, in the order in which they did.
    starved: VecDeque<Tag>,
    starvations: u64,
}

impl LeaseBook {
    /// A book of `count` buffers, all with the kernel.
    pub(crate) fn new(count: u16) -> LeaseBook {
        LeaseBook {
            lent: vec![false; usize::from(count)],
            available: count,
            starved: VecDeque::new(),
            starvations: 0,
        }
    }

    /// The kernel filled buffer `id`: it is lent from now on.
    ///
    /// # Panics
    ///
    /// If it is lent already, or there is no such buffer.
    #[inline]
    pub(crate) fn lend(&mut self, id: u16) {
        let lent = &mut self.lent[usize::from(id)];
        assert!(!*lent, "the kernel filled buffer {id}, which it had lent to us");
        *lent = true;
        self.available -= 1;
    }

    /// Buffer `id` goes back to the kernel.
    ///
    /// # Panics
    ///
    /// If it is not lent.
    #[inline]
    pub(crate) fn take_back(&mut self, id: u16) {
        let lent = &mut self.lent[usize::from(id)];
        assert!(*lent, "buffer {id} was given back twice");
        *lent = false;
        self.available += 1;
    }

    /// Whether buffer `id` is lent.
    #[inline]
    pub(crate) fn is_lent(&self, id: u16) -> bool {
        self.lent.get(usize::from(id)).copied().unwrap_or(false)
    }

    /// How many buffers the kernel has.
    #[inline]
    pub(crate) fn available(&self) -> u16 {
        self.available
    }

    /// How many buffers there are.
    pub(crate) fn count(&self) -> u16 {
        self.lent.len() as u16
    }

    /// The receive that `tag` names ended for want of a buffer. It waits here, and is not re-armed: on an empty ring
    /// it would end again at once, and again, at the whole speed of the core.
    pub(crate) fn starve(&mut self, tag: Tag) {
        self.starvations += 1;
        self.starved.push_back(tag);
    }

    /// A receive to arm again; `None` while less than a quarter of the buffers are with the kernel.
    pub(crate) fn next_fed(&mut self) -> Option<Tag> {
        if self.available < self.count().div_ceil(4) {
            return None;
        }
        self.starved.pop_front()
    }

    /// How many receives ended for want of a buffer, ever.
    pub(crate) fn starvations(&self) -> u64 {
        self.starvations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_and_leases_add_up_to_the_count() {
        let mut book = LeaseBook::new(8);
        for id in [3, 0, 7] {
            book.lend(id);
            let lent = (0..8).filter(|&id| book.is_lent(id)).count() as u16;
            assert_eq!(book.available() + lent, book.count());
        }
        for id in [0, 7, 3] {
            book.take_back(id);
        }
        assert_eq!(book.available(), 8);
        assert!(!book.is_lent(8), "beyond the group");
    }

    #[test]
    fn the_starved_wait_for_a_quarter_and_come_in_order() {
        let mut book = LeaseBook::new(8);
        (0..8).for_each(|id| book.lend(id));
        let tags = [1, 2].map(|slot| Tag::new(1, 0, slot));
        tags.into_iter().for_each(|tag| book.starve(tag));
        assert_eq!(book.next_fed(), None);
        book.take_back(5);
        assert_eq!(book.next_fed(), None, "one of eight is not a quarter");
        book.take_back(2);
        assert_eq!([book.next_fed(), book.next_fed(), book.next_fed()], [Some(tags[0]), Some(tags[1]), None]);
        assert_eq!(book.starvations(), 2);
    }

    #[test]
    fn a_group_of_one_feeds_with_one() {
        let mut book = LeaseBook::new(1);
        book.lend(0);
        book.starve(Tag::new(1, 0, 0));
        assert_eq!(book.next_fed(), None);
        book.take_back(0);
        assert!(book.next_fed().is_some());
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_buffer_goes_back_once() {
        LeaseBook::new(2).take_back(1);
    }

    #[test]
    #[should_panic(expected = "which it had lent to us")]
    fn a_buffer_is_lent_once() {
        let mut book = LeaseBook::new(2);
        book.lend(1);
        book.lend(1);
    }
}
