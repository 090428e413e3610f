//! What a sink holds: messages in the order in which they were taken, in blocks that are written or sent as they lie.

use std::collections::VecDeque;

/// A block is closed once it holds this many bytes; the last message of a block may reach beyond it.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Room for the message that reaches beyond a block's end, so that a block of ordinary messages never grows.
const OVERHANG_BYTES: usize = 4 * 1024;

/// How many emptied blocks are kept for the next messages.
const SPARE_BLOCKS_MAX: usize = 8;

/// How full an outbox is, in the order of what it asks of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Below half of the soft bound: paused connections may go on.
    Low,
    /// Below the soft bound: everything is taken.
    Middle,
    /// At the soft bound: datagrams are refused, connections that bring events are paused.
    Soft,
    /// At the hard bound: streams are not decoded any more.
    Hard,
}

/// The bounds of one shard's outbox, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Where back-pressure begins.
    pub(super) soft_bytes: usize,
    /// Where decoding ends.
    pub(super) hard_bytes: usize,
}

impl Bounds {
    /// The level of an outbox that holds `held_bytes`.
    #[must_use]
    pub(super) fn level(self, held_bytes: usize) -> Level {
        if held_bytes >= self.hard_bytes {
            Level::Hard
        } else if held_bytes >= self.soft_bytes {
            Level::Soft
        } else if held_bytes >= self.soft_bytes / 2 {
            Level::Middle
        } else {
            Level::Low
        }
    }
}

/// The messages that a sink has taken and not yet handed on.
///
/// Invariant: `held_bytes` and `held_messages` are the sums over the blocks, and no block but the last is empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    blocks: VecDeque<Block>,
    spare: Vec<Block>,
    /// Memory for the ends of blocks that are away; never more than blocks were ever away at once.
    spare_ends: Vec<Vec<u32>>,
    held_bytes: usize,
    held_messages: u64,
}

/// Messages one after the other, and where each ends.
#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// How many messages are gone already.
    gone: usize,
}

/// A block that left its outbox as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The messages, one after the other.
    pub(super) bytes: Vec<u8>,
    /// How many they are.
    pub(super) messages: u64,
}

impl Outbox {
    /// Bytes held.
    #[must_use]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Messages held.
    #[must_use]
    pub(super) fn held_messages(&self) -> u64 {
        self.held_messages
    }

    /// Takes one message, which `write` appends to the bytes it is given. Tells whether there is one: `write` may
    /// append nothing.
    ///
    /// # Panics
    ///
    /// If `write` removes what was there.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let block = self.open_block();
        let before = block.bytes.len();
        write(&mut block.bytes);
        let after = block.bytes.len();
        assert!(after >= before, "messages are appended");
        if after == before {
            return false;
        }
        block.ends.push(u32::try_from(after).expect("a block is far smaller than 4 GiB"));
        self.held_bytes += after - before;
        self.held_messages += 1;
        true
    }

    /// The messages held, the oldest first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().flat_map(Block::messages)
    }

    /// Those of the oldest block: what [`Outbox::take_block`] would take.
    pub(super) fn first_block(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.front().into_iter().flat_map(Block::messages)
    }

    /// The first `count` messages are gone.
    ///
    /// # Panics
    ///
    /// If fewer are held.
    pub(super) fn remove_first(&mut self, count: usize) {
        for _ in 0..count {
            let block = self.blocks.front_mut().expect("no more messages are removed than are held");
            self.held_bytes -= block.first().expect("no block but the last is empty").len();
            self.held_messages -= 1;
            block.gone += 1;
            if block.gone == block.ends.len() {
                self.retire_first();
            }
        }
    }

    /// The oldest block as a whole, full or not; `None` if nothing is held.
    pub(super) fn take_block(&mut self) -> Option<Batch> {
        if self.held_messages == 0 {
            return None;
        }
        let Block { bytes, mut ends, gone } = self.blocks.pop_front()?;
        assert_eq!(gone, 0, "an outbox is emptied by message or by block");
        let messages = ends.len() as u64;
        self.held_bytes -= bytes.len();
        self.held_messages -= messages;
        ends.clear();
        self.spare_ends.push(ends);
        Some(Batch { bytes, messages })
    }

    /// Uses the memory of a block again that left as a whole.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        let ends = self.spare_ends.pop().unwrap_or_default();
        self.keep(Block { bytes, ends, gone: 0 });
    }

    fn open_block(&mut self) -> &mut Block {
        if self.blocks.back().is_none_or(|block| block.bytes.len() >= BLOCK_BYTES) {
            let block = self.spare.pop().unwrap_or_else(Block::with_room);
            self.blocks.push_back(block);
        }
        self.blocks.back_mut().expect("a block was there, or has been made")
    }

    fn retire_first(&mut self) {
        if let Some(block) = self.blocks.pop_front() {
            self.keep(block);
        }
    }

    /// Keeps a block's memory, if it is of the usual size and few are kept.
    fn keep(&mut self, mut block: Block) {
        let usual = (BLOCK_BYTES..=2 * BLOCK_BYTES).contains(&block.bytes.capacity());
        if self.spare.len() < SPARE_BLOCKS_MAX && usual {
            block.bytes.clear();
            block.ends.clear();
            block.gone = 0;
            self.spare.push(block);
        }
    }
}

impl Block {
    fn with_room() -> Block {
        Block { bytes: Vec::with_capacity(BLOCK_BYTES + OVERHANG_BYTES), ends: Vec::new(), gone: 0 }
    }

    fn first(&self) -> Option<&[u8]> {
        self.messages().next()
    }

    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        (self.gone..self.ends.len()).map(|index| {
            let start = if index == 0 { 0 } else { self.ends[index - 1] };
            &self.bytes[start as usize..self.ends[index] as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(lengths: &[usize]) -> Outbox {
        let mut outbox = Outbox::default();
        for (index, &length) in lengths.iter().enumerate() {
            outbox.append(|bytes| bytes.extend(std::iter::repeat_n(index as u8, length)));
        }
        outbox
    }

    fn check(outbox: &Outbox) {
        assert_eq!(outbox.messages().map(<[u8]>::len).sum::<usize>(), outbox.held_bytes());
        assert_eq!(outbox.messages().count() as u64, outbox.held_messages());
    }

    #[test]
    fn messages_come_out_in_order_across_blocks() {
        let lengths = [1, BLOCK_BYTES - 2, 5, 70_000, 3, 1];
        let mut outbox = filled(&lengths);
        for gone in 0..lengths.len() {
            check(&outbox);
            let left: Vec<(u8, usize)> = outbox.messages().map(|m| (m[0], m.len())).collect();
            let expected: Vec<(u8, usize)> = (gone..lengths.len()).map(|i| (i as u8, lengths[i])).collect();
            assert_eq!(left, expected);
            outbox.remove_first(1);
        }
        assert_eq!((outbox.held_bytes(), outbox.held_messages()), (0, 0));
        assert!(outbox.take_block().is_none());
    }

    #[test]
    fn blocks_leave_whole_and_in_order() {
        let mut outbox = filled(&[40_000, 40_000, 7, 8]);
        assert_eq!(outbox.first_block().map(<[u8]>::len).collect::<Vec<_>>(), [40_000, 40_000]);
        let first = outbox.take_block().unwrap();
        assert_eq!((first.bytes.len(), first.messages), (80_000, 2));
        check(&outbox);
        let second = outbox.take_block().unwrap();
        assert_eq!(second, Batch { bytes: [vec![2; 7], vec![3; 8]].concat(), messages: 2 });
        assert_eq!(outbox.take_block(), None);
        assert_eq!((outbox.held_bytes(), outbox.held_messages()), (0, 0));
    }

    #[test]
    fn a_block_is_used_again_and_shows_nothing_of_before() {
        let mut outbox = filled(&[10, 20]);
        outbox.remove_first(2);
        outbox.append(|bytes| bytes.extend(b"new"));
        assert_eq!(outbox.messages().collect::<Vec<_>>(), [b"new"]);
        assert!(outbox.spare.is_empty(), "the emptied block is in use");
    }

    #[test]
    fn a_block_that_was_away_is_used_again() {
        let mut outbox = filled(&[10, 20]);
        let place = outbox.blocks[0].bytes.as_ptr().addr();
        let batch = outbox.take_block().unwrap();
        outbox.put_back(batch.bytes);
        outbox.append(|bytes| bytes.extend(b"new"));
        assert_eq!(outbox.messages().collect::<Vec<_>>(), [b"new"]);
        assert_eq!(outbox.blocks[0].bytes.as_ptr().addr(), place);
        outbox.put_back(Vec::new());
        assert!(outbox.spare.is_empty(), "what has no memory is not kept");
        check(&outbox);
    }

    #[test]
    fn nothing_appended_is_no_message() {
        let mut outbox = Outbox::default();
        assert!(!outbox.append(|_| {}));
        assert_eq!((outbox.held_messages(), outbox.messages().count(), outbox.take_block()), (0, 0, None));
        assert!(outbox.append(|bytes| bytes.push(b'x')));
        check(&outbox);
    }

    #[test]
    fn levels_begin_at_their_bounds() {
        let bounds = Bounds { soft_bytes: 100, hard_bytes: 400 };
        let cases = [
            (0, Level::Low),
            (49, Level::Low),
            (50, Level::Middle),
            (99, Level::Middle),
            (100, Level::Soft),
            (399, Level::Soft),
            (400, Level::Hard),
            (9_999, Level::Hard),
        ];
        for (held, level) in cases {
            assert_eq!(bounds.level(held), level, "{held}");
        }
    }

    #[test]
    #[should_panic(expected = "no more messages are removed than are held")]
    fn what_is_not_held_is_not_removed() {
        filled(&[1]).remove_first(2);
    }
}
