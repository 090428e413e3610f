//! Which entries of a ring's table of direct descriptors are taken, and by which tenant.

use crate::tag::{GENERATION_MAX, Tag};

/// One entry of a ring's table of direct descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectSlot(u32);

impl DirectSlot {
    /// The entry at `index`, for a caller that keeps the table's book itself.
    #[must_use]
    #[inline]
    pub const fn new(index: u32) -> DirectSlot {
        DirectSlot(index)
    }

    /// The entry's index.
    #[must_use]
    #[inline]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// Hands out the entries of one ring's table, and counts each entry's tenants.
///
/// Invariant: `in_use + free.len() == capacity`, and no slot is in `free` twice.
///
/// A slot is allocated *before* the accept that shall fill it, so a full table never drops a connection that was
/// accepted: nothing more is accepted until a slot is released.
#[derive(Debug)]
pub struct DirectSlots {
    /// Free slots; the last one is the next to go.
    free: Vec<u32>,
    /// For each slot, the generation of its present (or, when free, next) tenant, and whether it has one.
    tenants: Vec<Tenant>,
    stale: u64,
}

#[derive(Clone, Copy, Debug)]
struct Tenant {
    generation: u32,
    present: bool,
}

impl DirectSlots {
    /// A book for `capacity` slots, all free; low slots go first.
    #[must_use]
    pub fn new(capacity: u32) -> DirectSlots {
        DirectSlots {
            free: (0..capacity).rev().collect(),
            tenants: vec![Tenant { generation: 1, present: false }; capacity as usize],
            stale: 0,
        }
    }

    /// A free slot for a new tenant; `None` when the table is full.
    #[must_use = "a slot that is not released stays taken"]
    pub fn allocate(&mut self) -> Option<DirectSlot> {
        let index = self.free.pop()?;
        let tenant = &mut self.tenants[index as usize];
        debug_assert!(!tenant.present, "slot {index} was free and taken at once");
        tenant.present = true;
        Some(DirectSlot(index))
    }

    /// Ends the tenancy: completions that name it are stale from now on.
    ///
    /// To be called once the slot's last operation has completed and its descriptor is closed.
    ///
    /// # Panics
    ///
    /// If the slot is free.
    pub fn release(&mut self, slot: DirectSlot) {
        let tenant = &mut self.tenants[slot.0 as usize];
        assert!(tenant.present, "slot {} was released twice", slot.0);
        tenant.present = false;
        tenant.generation = if tenant.generation == GENERATION_MAX { 0 } else { tenant.generation + 1 };
        self.free.push(slot.0);
    }

    /// The tag of the slot's present tenant for an operation of this kind.
    ///
    /// # Panics
    ///
    /// If the slot is free, or `kind` is no valid kind.
    #[must_use]
    #[inline]
    pub fn tag(&self, kind: u8, slot: DirectSlot) -> Tag {
        let tenant = self.tenants[slot.0 as usize];
        assert!(tenant.present, "slot {} has no tenant to name", slot.0);
        Tag::new(kind, tenant.generation, slot.0)
    }

    /// The slot that `tag` names, if the tenant it was made for is still there. If not, counts a stale tag.
    #[must_use]
    #[inline]
    pub fn tenant(&mut self, tag: Tag) -> Option<DirectSlot> {
        match self.tenants.get(tag.slot() as usize) {
            Some(tenant) if tenant.present && tenant.generation == tag.generation() => {
                Some(DirectSlot(tag.slot()))
            }
            Some(_) | None => {
                self.stale += 1;
                None
            }
        }
    }

    /// How many tags named a tenant that was gone.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// How many slots have a tenant.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.capacity() - self.free.len() as u32
    }

    /// How many slots there are.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.tenants.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_generation_is_counted_and_dropped() {
        let mut slots = DirectSlots::new(2);
        let slot = slots.allocate().unwrap();
        let first = slots.tag(7, slot);
        assert_eq!(slots.tenant(first), Some(slot));

        slots.release(slot);
        assert_eq!((slots.tenant(first), slots.stale()), (None, 1));

        assert_eq!(slots.allocate(), Some(slot), "the slot has a new tenant");
        assert_eq!((slots.tenant(first), slots.stale()), (None, 2));
        let second = slots.tag(7, slot);
        assert_eq!(slots.tenant(second), Some(slot));
        assert_eq!(slots.tenant(Tag::new(7, 1, 99)), None, "a slot beyond the table");
    }

    #[test]
    fn a_full_table_gives_nothing_until_a_slot_comes_back() {
        let mut slots = DirectSlots::new(3);
        let taken: Vec<_> = std::iter::from_fn(|| slots.allocate()).collect();
        assert_eq!(taken, [0, 1, 2].map(DirectSlot));
        assert_eq!((slots.in_use(), slots.capacity()), (3, 3));

        slots.release(taken[1]);
        assert_eq!(slots.in_use(), 2);
        assert_eq!(slots.allocate(), Some(taken[1]));
    }

    #[test]
    fn a_generation_wraps_to_zero_and_goes_on() {
        let mut slots = DirectSlots::new(1);
        slots.tenants[0].generation = GENERATION_MAX;
        let slot = slots.allocate().unwrap();
        let last = slots.tag(1, slot);
        slots.release(slot);
        let slot = slots.allocate().unwrap();
        assert_eq!(slots.tag(1, slot).generation(), 0);
        assert_eq!(slots.tenant(last), None);
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn a_slot_is_released_once() {
        let mut slots = DirectSlots::new(1);
        let slot = slots.allocate().unwrap();
        slots.release(slot);
        slots.release(slot);
    }
}
