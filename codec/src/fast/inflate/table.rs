//! Tables of a canonical Huffman code, from the lengths of its codes.
//!
//! The input is read with the first bit of each byte on top (see `lane`), so that a code is a number whose first bit is its
//! highest. Codes in their canonical order then fill a table from its start to its end, each a run of equal entries:
//! wide stores one behind the other, where each covers what the one before it wrote too much.

/// Longest code that deflate allows.
pub(super) const CODE_BITS_MAX: usize = 15;
/// Entries written by one store; also how far a store may reach behind a table's last entry.
const STORE: usize = 16;
/// Most symbols of a code, the fixed one with its two reserved ones.
const SYMBOLS_MAX: usize = 288;
/// Symbols written by one store of [`Lengths::push`].
pub(super) const PUSHED: usize = 8;

/// The symbols that a code has, in their order, each with its length and its rank among those of the same length.
pub(super) struct Lengths {
    /// Symbol, rank and length: twelve, twelve and eight bits from the lowest.
    used: [u32; 512 + PUSHED],
    used_count: usize,
    /// For each length what the next symbol of that length is noted with: its rank and length, and 0 for the symbol. Length
    /// 0 is that of symbols without a code; they have no rank.
    next: [u32; LENGTHS],
}

const LENGTHS: usize = 32;
const A_RANK: u32 = 1 << 12;
const NO_SYMBOLS: [u32; LENGTHS] = {
    let mut next = [0; LENGTHS];
    let mut length = 0;
    while length < LENGTHS {
        next[length] = (length as u32) << 24;
        length += 1;
    }
    next
};

impl Lengths {
    pub(super) const EMPTY: Lengths = Lengths { used: [0; 512 + PUSHED], used_count: 0, next: NO_SYMBOLS };

    pub(super) fn clear(&mut self) {
        self.used_count = 0;
        self.next = NO_SYMBOLS;
    }

    /// Notes that `symbol` has a code of `length` bits.
    #[inline(always)]
    pub(super) fn push(&mut self, symbol: usize, length: usize) {
        let next = &mut self.next[length % LENGTHS];
        self.used[self.used_count & 511] = *next | symbol as u32;
        *next = next.wrapping_add(A_RANK);
        self.used_count += usize::from(length != 0);
    }

    /// Notes that `count` symbols from `symbol` on have codes of `length` bits; at most eight, if `length` is not 0.
    #[inline(always)]
    pub(super) fn push_run(&mut self, symbol: usize, length: usize, count: usize) {
        let next = &mut self.next[length % LENGTHS];
        let first = *next | symbol as u32;
        *next = next.wrapping_add(count as u32 * A_RANK);
        let at = self.used_count & 511;
        let (low, high) = self.used[at..at + PUSHED].split_at_mut(PUSHED / 2);
        low.copy_from_slice(&[0, 1, 2, 3].map(|index| first.wrapping_add(index * (A_RANK | 1))));
        high.copy_from_slice(&[4, 5, 6, 7].map(|index| first.wrapping_add(index * (A_RANK | 1))));
        self.used_count += if length == 0 { 0 } else { count };
    }

    /// Takes back the last `count` symbols of what was pushed last.
    pub(super) fn pop(&mut self, length: usize, count: usize) {
        let next = &mut self.next[length % LENGTHS];
        *next = next.wrapping_sub(count as u32 * A_RANK);
        self.used_count -= if length == 0 { 0 } else { count };
    }

    /// How many symbols have a code of `length` bits; for length 0 it has no meaning.
    pub(super) fn count(&self, length: usize) -> u32 {
        self.next[length] >> 12 & 0xfff
    }
}

/// A code's table for its first `BITS` bits, with `SLOTS = (1 << BITS) + STORE` entries, and what finds longer codes.
#[derive(Clone)]
pub(super) struct Code<const BITS: usize, const SLOTS: usize> {
    entries: [u16; SLOTS],
    /// The symbols' entries in canonical order.
    sorted: [u16; 512],
    /// Where the codes of each length end, as a fraction of 1 << 16.
    limits: [u32; CODE_BITS_MAX + 1],
    /// Where in `sorted` the symbols of each length begin.
    starts: [u16; 32],
}

impl<const BITS: usize, const SLOTS: usize> Code<BITS, SLOTS> {
    pub(super) const EMPTY: Code<BITS, SLOTS> =
        Code { entries: [0; SLOTS], sorted: [0; 512], limits: [0; CODE_BITS_MAX + 1], starts: [0; 32] };

    /// The entry of the code at the top of `bits`: `long` if it has more than `BITS` bits.
    #[inline(always)]
    pub(super) fn entry(&self, bits: u64) -> u16 {
        self.entries[(bits >> (64 - BITS)) as usize]
    }

    /// The entry of the code at the top of `bits`, which has more than `BITS` bits.
    #[cold]
    pub(super) fn long_entry(&self, bits: u64) -> u16 {
        let code = (bits >> 48) as u32;
        let mut length = BITS + 1;
        while code >= self.limits[length] {
            length += 1;
        }
        let rank = (code - self.limits[length - 1]) >> (16 - length);
        self.sorted[(usize::from(self.starts[length]) + rank as usize) & 511]
    }

    /// Makes the table. A symbol's entry is `of_symbol[symbol]`, and the length of its code from bit `length_at` on; `long`
    /// stands where codes of more than `BITS` bits begin. `None` if the lengths are those of no complete code.
    pub(super) fn build(
        &mut self,
        lengths: &Lengths,
        of_symbol: &[u16; SYMBOLS_MAX],
        length_at: u32,
        long: u16,
    ) -> Option<()> {
        self.find_starts(lengths)?;
        for used in &lengths.used[..lengths.used_count] {
            let (symbol, rank, length) = (used & 0xfff, used >> 12 & 0xfff, used >> 24);
            let at = usize::from(self.starts[length as usize & 31]) + rank as usize;
            let entry = of_symbol[symbol as usize] + ((length as u16) << length_at);
            self.sorted[at & 511] = entry;
        }
        self.fill(length_at, long);
        Some(())
    }

    fn find_starts(&mut self, lengths: &Lengths) -> Option<()> {
        let mut start = 0;
        let mut limit = 0;
        for length in 1..CODE_BITS_MAX + 1 {
            let count = lengths.count(length);
            self.starts[length] = start;
            start += count as u16;
            limit += count << (16 - length);
            self.limits[length] = limit;
        }
        (limit == 1 << 16).then_some(())
    }

    /// Fills the table; `length_at` is where in an entry its code's length stands.
    fn fill(&mut self, length_at: u32, long: u16) {
        let short = usize::from(self.starts[BITS + 1]);
        let mut at = 0;
        for entry in &self.sorted[..short] {
            let end = at + ((1 << BITS) >> (entry >> length_at & 15));
            loop {
                self.entries[at & ((1 << BITS) - 1)..][..STORE].fill(*entry);
                at += STORE;
                if at >= end {
                    break;
                }
            }
            at = end;
        }
        if at < 1 << BITS {
            self.entries[at..1 << BITS].fill(long);
        }
    }
}
