//! The symbols of a block: literals and matches.

use super::lane::{Lane, OUTPUT_BYTES_MAX};

/// Literals between two refills: each takes at most eight bits.
const STEPS: usize = 7;
/// Bytes of a match copied at once, where all of them are there before.
const COPY_BYTES: usize = 32;
/// Bytes of a long match copied at once, where it does not repeat sooner.
const STRIDE_BYTES: usize = 16;

/// An entry that is no literal. A literal: bits of its code, then from the ninth bit on the byte.
const SPECIAL: u16 = 1 << 7;
/// Bits 4 to 6 of a special entry: so many extra bits, or what these two say.
const END: u16 = 6;
const LONG: u16 = 7;
pub(super) const LITERAL_LONG: u16 = SPECIAL | LONG << 4;
pub(super) const LITERAL_LENGTH_AT: u32 = 0;
/// An entry of a distance: extra bits, bits of its code, symbol; five, four and five bits from the lowest.
pub(super) const DISTANCE_LONG: u16 = u16::MAX;
pub(super) const DISTANCE_LENGTH_AT: u32 = 5;
/// What no output has room for, and what is too far back in every one: for symbols that stand for nothing.
const NOTHING: u16 = u16::MAX;

const LENGTH_EXTRA: [u8; 32] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0, 0, 0, 0];
const LENGTH_BASE: [u16; 32] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258, NOTHING, NOTHING, NOTHING,
];
const DISTANCE_BASE: [u16; 32] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
    4097, 6145, 8193, 12289, 16385, 24577, NOTHING, NOTHING,
];

pub(super) const LITERAL_ENTRIES: [u16; 288] = {
    let mut entries = [0; 288];
    let mut symbol = 0;
    while symbol < 288 {
        entries[symbol] = match symbol {
            0..256 => (symbol as u16) << 8,
            256 => SPECIAL | END << 4,
            _ => (symbol as u16 - 257) << 8 | SPECIAL | (LENGTH_EXTRA[symbol - 257] as u16) << 4,
        };
        symbol += 1;
    }
    entries
};

pub(super) const DISTANCE_ENTRIES: [u16; 288] = {
    let mut entries = [0; 288];
    let mut symbol = 0;
    while symbol < DISTANCE_BASE.len() {
        let extra = match symbol {
            4..30 => symbol as u16 / 2 - 1,
            _ => 0,
        };
        entries[symbol] = (symbol as u16) << 9 | extra;
        symbol += 1;
    }
    entries
};

/// Why decoding stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The block is at its end.
    End,
    /// The lane has no room for the rest, or the stream is broken.
    Declined,
}

/// A lane's place while its symbols are decoded.
#[derive(Clone, Copy)]
struct Cursor {
    /// What was loaded and not used: the next `count` bits on top, below them as much as was loaded too.
    bits: u64,
    count: usize,
    /// Where in the input the bits behind those counted stand.
    next: usize,
    produced: usize,
}

impl Cursor {
    fn new(lane: &Lane) -> Cursor {
        let into = lane.position & 7;
        Cursor {
            bits: lane.input.codes(lane.position),
            count: 56 - into,
            next: (lane.position >> 3) + 7,
            produced: lane.produced,
        }
    }

    #[inline(always)]
    fn refill(&mut self, lane: &Lane) {
        self.bits |= lane.input.codes_at(self.next) >> self.count;
        self.next += (63 - self.count) >> 3;
        self.count |= 56;
    }

    #[inline(always)]
    fn position(&self) -> usize {
        self.next * 8 - self.count
    }

    #[inline(always)]
    fn consume(&mut self, bits: usize) {
        self.bits <<= bits & 63;
        self.count -= bits;
    }
}

/// Decodes the symbols of all lanes at once, until one of them stops: which, and why.
pub(super) fn decode<const N: usize>(lanes: &mut [Lane; N]) -> (usize, Stop) {
    let mut cursors: [Cursor; N] = std::array::from_fn(|index| Cursor::new(&lanes[index]));
    let stopped = 'groups: loop {
        for (index, (lane, cursor)) in lanes.iter().zip(&mut cursors).enumerate() {
            cursor.refill(lane);
            if cursor.produced > OUTPUT_BYTES_MAX {
                break 'groups (index, Stop::Declined);
            }
        }
        let group = decode_literals(lanes, &cursors);
        for (index, cursor) in cursors.iter_mut().enumerate() {
            cursor.bits = group.bits[index];
            cursor.count -= (group.used[index] & 0xff) as usize;
            cursor.produced += group.literals;
        }
        if !group.special {
            continue;
        }
        for (index, (lane, cursor)) in lanes.iter_mut().zip(&mut cursors).enumerate() {
            let entry = group.entries[index];
            if entry & SPECIAL == 0 {
                cursor.produced += 1;
                cursor.consume(usize::from(entry & 63));
            } else if let Some(stop) = decode_special(lane, cursor, entry) {
                break 'groups (index, stop);
            }
        }
    };
    for (lane, cursor) in lanes.iter_mut().zip(&cursors) {
        lane.position = cursor.position();
        lane.produced = cursor.produced;
    }
    stopped
}

/// What the lanes did between two refills.
struct Group<const N: usize> {
    bits: [u64; N],
    /// The bits used, in the lowest eight.
    used: [u32; N],
    /// How many literals each lane has.
    literals: usize,
    /// Whether a lane came to an entry that is no literal; then these are the entries, of which none is used.
    special: bool,
    entries: [u16; N],
}

#[inline(always)]
fn decode_literals<const N: usize>(lanes: &mut [Lane; N], cursors: &[Cursor; N]) -> Group<N> {
    let bits = cursors.map(|cursor| cursor.bits);
    let produced = cursors.map(|cursor| cursor.produced);
    let mut group = Group { bits, used: [0; N], literals: 0, special: true, entries: [0; N] };
    macro_rules! steps {
        ($($step:literal),*) => {
            $(
                if decode_literal::<N, $step>(lanes, produced, &mut group) {
                    group.literals = $step;
                    return group;
                }
            )*
        };
    }
    steps!(0, 1, 2, 3, 4, 5, 6);
    group.literals = STEPS;
    group.special = false;
    group
}

/// Decodes a literal of each lane, its `STEP`-th of the group; whether one has none, and then none is used.
#[inline(always)]
fn decode_literal<const N: usize, const STEP: usize>(
    lanes: &mut [Lane; N],
    produced: [usize; N],
    group: &mut Group<N>,
) -> bool {
    let mut all = 0;
    for index in 0..N {
        let entry = lanes[index].literal.entry(group.bits[index]);
        lanes[index].output[produced[index] + STEP] = (entry >> 8) as u8;
        group.entries[index] = entry;
        all |= entry;
    }
    if all & SPECIAL != 0 {
        return true;
    }
    for index in 0..N {
        group.bits[index] <<= group.entries[index] & 63;
        group.used[index] += u32::from(group.entries[index]);
    }
    false
}

#[inline(always)]
fn decode_special(lane: &mut Lane, cursor: &mut Cursor, entry: u16) -> Option<Stop> {
    cursor.refill(lane);
    let mut entry = entry;
    if entry == LITERAL_LONG {
        entry = lane.literal.long_entry(cursor.bits);
        if entry & SPECIAL == 0 {
            lane.output[cursor.produced] = (entry >> 8) as u8;
            cursor.produced += 1;
            cursor.consume(usize::from(entry & 15));
            return None;
        }
    }
    let position = cursor.position();
    let code_bits = usize::from(entry & 15);
    let extra = usize::from(entry >> 4 & 7);
    if extra == usize::from(END) {
        cursor.consume(code_bits);
        return Some(Stop::End);
    }
    let numbers = lane.input.numbers(position);
    let length = usize::from(LENGTH_BASE[usize::from(entry >> 8) & 31])
        + ((numbers >> code_bits) as usize & ((1 << extra) - 1));
    cursor.consume(code_bits + extra);
    let mut entry = lane.distance.entry(cursor.bits);
    if entry == DISTANCE_LONG {
        entry = lane.distance.long_entry(cursor.bits);
    }
    let numbers = numbers >> (code_bits + extra);
    let extra = usize::from(entry & 31);
    let code_bits = usize::from(entry >> 5 & 15);
    let distance = usize::from(DISTANCE_BASE[usize::from(entry >> 9) & 31])
        + ((numbers >> code_bits) as usize & ((1 << extra) - 1));
    cursor.consume(code_bits + extra);
    copy(lane, &mut cursor.produced, distance, length)
}

#[inline(always)]
fn copy(lane: &mut Lane, produced: &mut usize, distance: usize, length: usize) -> Option<Stop> {
    let to = *produced;
    if distance > to || to + length > OUTPUT_BYTES_MAX {
        return Some(Stop::Declined);
    }
    let from = to - distance;
    *produced = to + length;
    if length <= distance.min(COPY_BYTES) {
        let bytes: [u8; COPY_BYTES] =
            lane.output[from..from + COPY_BYTES].try_into().expect("the slice is as long as the array");
        lane.output[to..to + COPY_BYTES].copy_from_slice(&bytes);
        return None;
    }
    copy_long(&mut lane.output, from, to, length);
    None
}

#[inline(never)]
fn copy_long(output: &mut [u8], from: usize, to: usize, length: usize) {
    if to - from >= STRIDE_BYTES {
        for done in (0..length).step_by(STRIDE_BYTES) {
            output.copy_within(from + done..from + done + STRIDE_BYTES, to + done);
        }
        return;
    }
    for done in 0..length {
        output[to + done] = output[from + done];
    }
}
