//! The memory of operations in flight. Pure: the kernel's side of it is `op`'s and `ring`'s.
//!
//! An operation that lends memory to the kernel, or needs a descriptor kept open, has an entry here from its push to
//! its *last* completion. No operation borrows from its caller, so nothing can be freed under the kernel.

use std::cell::UnsafeCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::RawAddress;
use crate::tag::{GENERATION_MAX, Tag};

/// An address that the kernel reads or writes while an operation is in flight.
///
/// Behind an `Rc`, so that it stays where it is while the table grows; in a cell, since the kernel writes to it.
pub(crate) type SharedAddress = Rc<UnsafeCell<RawAddress>>;

/// What one operation keeps until its last completion.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) memory: Memory,
    pub(crate) descriptor: Option<Arc<OwnedFd>>,
}

/// The memory that one operation lends to the kernel.
#[derive(Debug, Default)]
pub(crate) enum Memory {
    /// An accept: the kernel writes the peer's address.
    Accept(SharedAddress),
    /// A send or a write: the kernel reads the bytes.
    Bytes(Bytes),
    /// A connect: the kernel reads the peer's address.
    Connect(SharedAddress),
    /// A read of an eventfd: the kernel writes its counter, which nobody looks at.
    Event(SharedAddress),
    #[default]
    Nothing,
    /// A send to an address: the kernel reads both.
    SendTo(Bytes, SharedAddress),
}

/// The entries of one ring's operations. Entries and addresses are used again: after warm-up nothing is allocated.
///
/// Invariant: `taken + free.len() == entries.len()`.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    entries: Vec<Entry>,
    free: Vec<u32>,
    addresses: Vec<SharedAddress>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    operation: Option<(Tag, Kept)>,
}

/// Names one entry, for as long as its operation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryId {
    pub(crate) generation: u32,
    pub(crate) index: u32,
}

impl InFlight {
    /// A table with room for `capacity` operations; it grows when there are more.
    pub(crate) fn with_capacity(capacity: usize) -> InFlight {
        InFlight {
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            addresses: Vec::new(),
        }
    }

    /// Keeps what the operation that the caller calls `tag` needs.
    #[inline]
    pub(crate) fn insert(&mut self, tag: Tag, kept: Kept) -> EntryId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, operation: None });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        assert!(entry.operation.is_none(), "entry {index} was free and taken at once");
        entry.operation = Some((tag, kept));
        EntryId { generation: entry.generation, index }
    }

    /// The caller's tag of an operation that goes on; `None` if it is gone.
    #[inline]
    pub(crate) fn tag(&self, id: EntryId) -> Option<Tag> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        entry.operation.as_ref().map(|&(tag, _)| tag)
    }

    /// Ends an operation: its tag, and what was kept for it. `None` if it is gone.
    #[inline]
    pub(crate) fn remove(&mut self, id: EntryId) -> Option<(Tag, Kept)> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let operation = entry.operation.take()?;
        entry.generation = if entry.generation == GENERATION_MAX { 0 } else { entry.generation + 1 };
        self.free.push(id.index);
        Some(operation)
    }

    /// The entry of the operation that the caller calls `tag`. Looks at every entry: for cancels, not for data.
    pub(crate) fn find(&self, tag: Tag) -> Option<EntryId> {
        let index = self
            .entries
            .iter()
            .position(|entry| entry.operation.as_ref().is_some_and(|&(operation, _)| operation == tag))?;
        Some(EntryId { generation: self.entries[index].generation, index: index as u32 })
    }

    /// An address cell that no operation uses, with unspecified content.
    #[inline]
    pub(crate) fn take_address(&mut self) -> SharedAddress {
        self.addresses.pop().unwrap_or_else(|| Rc::new(UnsafeCell::new(RawAddress::EMPTY)))
    }

    /// An address cell for another operation to use.
    #[inline]
    pub(crate) fn return_address(&mut self, address: SharedAddress) {
        self.addresses.push(address);
    }

    /// How many operations have an entry.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: &'static [u8]) -> Kept {
        Kept { memory: Memory::Bytes(Bytes::from_static(bytes)), descriptor: None }
    }

    #[test]
    fn an_entry_lives_until_it_is_removed_and_is_then_used_again() {
        let mut table = InFlight::with_capacity(4);
        let first = table.insert(Tag::new(1, 2, 3), kept(b"first"));
        let second = table.insert(Tag::new(4, 5, 6), kept(b"second"));
        assert_eq!((table.tag(first), table.tag(second)), (Some(Tag::new(1, 2, 3)), Some(Tag::new(4, 5, 6))));

        let (tag, kept_for_first) = table.remove(first).unwrap();
        assert_eq!(tag, Tag::new(1, 2, 3));
        assert!(matches!(kept_for_first.memory, Memory::Bytes(bytes) if bytes == "first"));

        let third = table.insert(Tag::new(7, 8, 9), kept(b"third"));
        assert_eq!(third.index, first.index, "the entry is used again");
        assert_eq!(table.tag(first), None, "but the old name is not the new operation's");
        assert!(table.remove(first).is_none());
        assert_eq!(table.taken(), 2);
    }

    #[test]
    fn an_operation_is_found_by_the_callers_tag() {
        let mut table = InFlight::with_capacity(4);
        let ids: Vec<_> = (0..5).map(|slot| table.insert(Tag::new(1, 0, slot), Kept::default())).collect();
        assert_eq!(table.find(Tag::new(1, 0, 3)), Some(ids[3]));
        table.remove(ids[3]);
        assert_eq!(table.find(Tag::new(1, 0, 3)), None);
    }

    #[test]
    fn a_generation_wraps_within_its_bits() {
        let mut table = InFlight::default();
        let id = table.insert(Tag::new(1, 0, 0), Kept::default());
        table.entries[0].generation = GENERATION_MAX;
        assert!(table.remove(EntryId { generation: GENERATION_MAX, ..id }).is_some());
        assert_eq!(table.insert(Tag::new(1, 0, 0), Kept::default()).generation, 0);
    }

    #[test]
    fn an_address_is_used_again() {
        let mut table = InFlight::default();
        let address = table.take_address();
        let place = address.get();
        table.return_address(address);
        let [again, other] = [table.take_address(), table.take_address()];
        assert_eq!(again.get(), place);
        assert_ne!(other.get(), place);
    }
}
