//! The head of a dynamic block: the lengths of its codes, which are themselves in a code.

use super::input::Input;
use super::table::{Lengths, PUSHED};

const LITERALS_MIN: usize = 257;
const LITERALS_MAX: usize = 286;
const DISTANCES_MAX: usize = 30;
const SYMBOLS: usize = 19;
const CODE_BITS: usize = 7;
/// Lengths between two refills: each takes at most seven bits.
const STEPS: usize = 8;
/// Entries written by one store.
const STORE: usize = 32;

/// By symbol, how far in the header its three bits are.
const PLACES: [u8; SYMBOLS] = [9, 51, 45, 39, 33, 27, 21, 15, 12, 18, 24, 30, 36, 42, 48, 54, 0, 3, 6];

/// The first entry that is not a length but a run of lengths; its symbols are 16, 17, 18.
const A_RUN: u16 = 16 << 4;
const RUNS: [Run; 4] = [
    Run { of_previous: true, base: 3, extra: 2 },
    Run { of_previous: false, base: 3, extra: 3 },
    Run { of_previous: false, base: 11, extra: 7 },
    Run { of_previous: false, base: 0, extra: 0 },
];

/// So many lengths as `base` and a number of `extra` bits say: like the one before, or zeros.
#[derive(Clone, Copy)]
struct Run {
    of_previous: bool,
    base: usize,
    extra: usize,
}

/// The lengths of both codes of a block.
pub(super) struct BlockLengths {
    pub(super) literal: Lengths,
    pub(super) distance: Lengths,
}

impl BlockLengths {
    pub(super) const EMPTY: BlockLengths = BlockLengths { literal: Lengths::EMPTY, distance: Lengths::EMPTY };

    fn clear(&mut self) {
        self.literal.clear();
        self.distance.clear();
    }

    /// Makes them those of the fixed codes.
    pub(super) fn set_fixed(&mut self) {
        self.clear();
        for (symbols, length) in [(0..144, 8), (144..256, 9), (256..280, 7), (280..288, 8)] {
            for symbol in symbols.step_by(PUSHED) {
                self.literal.push_run(symbol, length, PUSHED);
            }
        }
        for symbol in (0..32).step_by(PUSHED) {
            self.distance.push_run(symbol, 5, PUSHED);
        }
    }
}

/// Reads them from `position` on; the position behind them. `None` if they are not in order.
pub(super) fn read_lengths(input: &Input, position: usize, lengths: &mut BlockLengths) -> Option<usize> {
    let header = input.numbers(position);
    let literals = (header & 31) as usize + LITERALS_MIN;
    let distances = (header >> 5 & 31) as usize + 1;
    let symbols = (header >> 10 & 15) as usize + 4;
    if literals > LITERALS_MAX || distances > DISTANCES_MAX {
        return None;
    }
    let position = position + 14;
    let code = CodeLengthCode::new(input.numbers(position) & ((1 << (3 * symbols)) - 1))?;
    let mut reader = Reader::new(input, position + 3 * symbols);
    lengths.clear();
    let over = reader.read(&code, &mut lengths.literal, 0, literals);
    lengths.literal.pop(reader.length, over);
    lengths.distance.push_run(0, reader.length, over);
    let over = reader.read(&code, &mut lengths.distance, over, distances);
    let no_previous = lengths.literal.count(NONE_BEFORE) != 0;
    (over == 0 && !no_previous).then_some(reader.position)
}

/// Stands for a length before the first.
const NONE_BEFORE: usize = 31;

struct Reader<'i> {
    input: &'i Input,
    position: usize,
    /// The last length read.
    length: usize,
}

impl<'i> Reader<'i> {
    fn new(input: &'i Input, position: usize) -> Reader<'i> {
        Reader { input, position, length: NONE_BEFORE }
    }

    /// Reads lengths for the symbols from `symbol` to before `end`; how many more than these were read.
    #[inline(always)]
    fn read(&mut self, code: &CodeLengthCode, lengths: &mut Lengths, symbol: usize, end: usize) -> usize {
        let mut symbol = symbol;
        while symbol < end {
            let mut codes = self.input.codes(self.position);
            for _ in 0..STEPS {
                let entry = code.entries[(codes >> (64 - CODE_BITS)) as usize];
                if entry >= A_RUN {
                    let count = self.run(entry);
                    lengths.push_run(symbol, self.length, count);
                    symbol += count;
                    break;
                }
                self.length = usize::from(entry >> 4);
                lengths.push(symbol, self.length);
                symbol += 1;
                codes <<= entry & 15;
                self.position += usize::from(entry & 15);
                if symbol >= end {
                    break;
                }
            }
        }
        symbol - end
    }

    /// How many lengths the run of `entry` has; all are those in `length`.
    #[inline(always)]
    fn run(&mut self, entry: u16) -> usize {
        let (code_bits, run) = (entry & 15, RUNS[usize::from(entry >> 4) & 3]);
        let number = (self.input.numbers(self.position) >> code_bits) as usize & ((1 << run.extra) - 1);
        self.position += usize::from(code_bits) + run.extra;
        if !run.of_previous {
            self.length = 0;
        }
        run.base + number
    }
}

/// The code of the lengths. An entry: bits of the code, symbol; four and five bits from the lowest.
struct CodeLengthCode {
    entries: [u16; (1 << CODE_BITS) + STORE],
}

impl CodeLengthCode {
    /// From the symbols' lengths, three bits each in the header's order. `None` if the code is not complete.
    fn new(header: u64) -> Option<CodeLengthCode> {
        let lengths = PLACES.map(|place| (header >> place & 7) as u32);
        // Eight counts of eight bits; nineteen symbols can't overflow one.
        let mut counts = 0_u64;
        for length in lengths {
            counts += 1 << (8 * length);
        }
        counts &= !0xff;
        let mut filled = 0;
        for length in 1..CODE_BITS + 1 {
            filled += (counts >> (8 * length) & 0xff) << (CODE_BITS - length);
        }
        if filled != 1 << CODE_BITS {
            return None;
        }
        // The sums of the counts of all shorter lengths; what has no length comes behind all others.
        let mut places = counts.wrapping_mul(0x0101_0101_0101_0100) | 24;
        let mut sorted = [0_u16; 64];
        for (symbol, length) in lengths.into_iter().enumerate() {
            sorted[(places >> (8 * length) & 63) as usize] = (symbol as u16) << 4 | length as u16;
            places += 1 << (8 * length);
        }
        let count = (counts.wrapping_mul(0x0101_0101_0101_0101) >> 56) as usize;
        let mut code = CodeLengthCode { entries: [0; (1 << CODE_BITS) + STORE] };
        let mut at = 0;
        for entry in &sorted[..count] {
            let run = (1 << CODE_BITS) >> (entry & 15);
            code.entries[at..][..STORE].fill(*entry);
            if run > STORE {
                code.entries[at + STORE..][..STORE].fill(*entry);
            }
            at += run;
        }
        Some(code)
    }
}
