//! `user_data`: what a submission says about itself, and what its completions give back.
//!
//! ```text
//! 63     62       61      56 55             32 31                     0
//! | table | message | kind: 6 | generation: u24 | slot or index: u32   |
//! ```
//!
//! The two top bits are the ring's own: `table` says that the rest names an entry of the ring's in-flight table (the
//! operation keeps memory, and the entry knows the caller's tag); `message` says that another ring sent the
//! completion, so that nothing of ours ended with it. Zero and all ones are never valid: an entry that nobody
//! filled in is found, not obeyed.

use std::fmt;
use std::num::NonZeroU64;

/// Bits of a generation.
pub const GENERATION_BITS: u32 = 24;
/// The greatest generation; the one after it is 0.
pub const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;
/// The greatest kind that a caller may use; the least is 1.
pub const KIND_MAX: u8 = (1 << KIND_BITS) - 1;

const KIND_BITS: u32 = 6;
const GENERATION_SHIFT: u32 = u32::BITS;
const KIND_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;
const MESSAGE: u64 = 1 << 62;
const TABLE: u64 = 1 << 63;
/// The ring's own requests (the cancel of a drain) carry both bits, which no caller's tag can.
const OWN: u64 = TABLE | MESSAGE;

const _: () = assert!(2 + KIND_BITS + GENERATION_BITS + u32::BITS == u64::BITS);

/// What the caller calls an operation: a kind, and a slot with the slot's generation.
///
/// The kinds are the caller's (1 to [`KIND_MAX`]). A slot that gets a new tenant gets a new generation
/// ([`DirectSlots`](crate::DirectSlots) does), so that a late completion can't be taken for the new tenant's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(NonZeroU64);

impl Tag {
    /// A tag of its parts.
    ///
    /// # Panics
    ///
    /// If `kind` is 0 or greater than [`KIND_MAX`], or `generation` greater than [`GENERATION_MAX`].
    #[must_use]
    #[inline]
    pub const fn new(kind: u8, generation: u32, slot: u32) -> Tag {
        assert!(kind >= 1 && kind <= KIND_MAX, "a tag's kind is 1 to 63");
        assert!(generation <= GENERATION_MAX, "a generation has 24 bits");
        Tag(NonZeroU64::new(pack(kind, generation, slot)).expect("the kind is not 0"))
    }

    /// The kind: 1 to [`KIND_MAX`].
    #[must_use]
    #[inline]
    pub const fn kind(self) -> u8 {
        (self.0.get() >> KIND_SHIFT) as u8
    }

    /// The slot's generation: at most [`GENERATION_MAX`].
    #[must_use]
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0.get() >> GENERATION_SHIFT) as u32 & GENERATION_MAX
    }

    /// The slot.
    #[must_use]
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0.get() as u32
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag(kind {}, generation {}, slot {})", self.kind(), self.generation(), self.slot())
    }
}

/// Where a completion comes from, as its `user_data` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An operation of this ring that keeps no memory: its `user_data` is the caller's tag.
    Caller(Tag),
    /// Another ring's message, with the tag that its sender chose.
    Message(Tag),
    /// The ring's own request.
    Own,
    /// An operation of this ring that has an entry in the in-flight table.
    Table { generation: u32, index: u32 },
}

impl Origin {
    /// The `user_data` that says so.
    #[inline]
    pub(crate) const fn encode(self) -> u64 {
        match self {
            Origin::Caller(tag) => tag.0.get(),
            Origin::Message(tag) => tag.0.get() | MESSAGE,
            Origin::Own => OWN,
            Origin::Table { generation, index } => TABLE | pack(0, generation, index),
        }
    }

    /// The origin that `user_data` names; `None` for what [`Origin::encode`] never makes.
    #[inline]
    pub(crate) const fn decode(user_data: u64) -> Option<Origin> {
        let rest = user_data & !OWN;
        let kind = (rest >> KIND_SHIFT) as u8;
        match (user_data & TABLE != 0, user_data & MESSAGE != 0) {
            (false, message) => match NonZeroU64::new(rest) {
                Some(bits) if kind != 0 && message => Some(Origin::Message(Tag(bits))),
                Some(bits) if kind != 0 => Some(Origin::Caller(Tag(bits))),
                Some(_) | None => None,
            },
            (true, false) if kind == 0 => {
                Some(Origin::Table { generation: (rest >> GENERATION_SHIFT) as u32, index: rest as u32 })
            }
            (true, true) if rest == 0 => Some(Origin::Own),
            (true, _) => None,
        }
    }
}

const fn pack(kind: u8, generation: u32, slot: u32) -> u64 {
    (kind as u64) << KIND_SHIFT | (generation as u64) << GENERATION_SHIFT | slot as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORNERS: [(u32, u32); 4] = [(0, 0), (1, u32::MAX), (GENERATION_MAX, 0), (GENERATION_MAX, u32::MAX)];

    #[test]
    fn every_kind_round_trips_at_every_corner() {
        for kind in 1..=KIND_MAX {
            for (generation, slot) in CORNERS {
                let tag = Tag::new(kind, generation, slot);
                assert_eq!((tag.kind(), tag.generation(), tag.slot()), (kind, generation, slot));
                for origin in [Origin::Caller(tag), Origin::Message(tag)] {
                    assert_eq!(Origin::decode(origin.encode()), Some(origin));
                }
            }
        }
    }

    #[test]
    fn every_corner_of_the_table_round_trips() {
        for (generation, index) in CORNERS {
            let origin = Origin::Table { generation, index };
            assert_eq!(Origin::decode(origin.encode()), Some(origin));
        }
        assert_eq!(Origin::decode(Origin::Own.encode()), Some(Origin::Own));
    }

    #[test]
    fn what_nobody_encoded_decodes_to_nothing() {
        let kindless_message = MESSAGE | pack(0, 5, 7);
        let table_with_a_kind = TABLE | pack(1, 5, 7);
        for user_data in
            [0, u64::MAX, 7, u64::from(u32::MAX), MESSAGE, kindless_message, table_with_a_kind, OWN | 1]
        {
            assert_eq!(Origin::decode(user_data), None, "{user_data:#x}");
        }
    }

    #[test]
    #[should_panic(expected = "a tag's kind is 1 to 63")]
    fn kind_zero_is_refused() {
        let _ = Tag::new(0, 1, 1);
    }

    #[test]
    #[should_panic(expected = "a tag's kind is 1 to 63")]
    fn the_rings_own_bits_are_refused() {
        let _ = Tag::new(KIND_MAX + 1, 1, 1);
    }

    #[test]
    #[should_panic(expected = "a generation has 24 bits")]
    fn a_generation_too_great_is_refused() {
        let _ = Tag::new(1, GENERATION_MAX + 1, 1);
    }
}
