//! One message on its way: its stream, its tables and its output.

use super::adler::adler32;
use super::input::Input;
use super::lengths::{BlockLengths, read_lengths};
use super::symbols::{
    DISTANCE_ENTRIES, DISTANCE_LENGTH_AT, DISTANCE_LONG, LITERAL_ENTRIES, LITERAL_LENGTH_AT, LITERAL_LONG,
    Stop,
};
use super::table::Code;

/// Longest output that a lane has room for.
pub const OUTPUT_BYTES_MAX: usize = 4_096;
/// How far behind that a store may reach.
pub(super) const SLACK_BYTES: usize = 32;
const ZLIB_HEADER_BYTES: usize = 2;
const ADLER_BYTES: usize = 4;
const BLOCK_HEADER_BITS: usize = 3;
/// Headers of a last block, with fixed codes and with its own.
const LAST_FIXED: u64 = 0b011;
const LAST_DYNAMIC: u64 = 0b101;

pub(super) struct Lane {
    pub(super) input: Input,
    /// The place in the input, in bits.
    pub(super) position: usize,
    pub(super) literal: Code<8, 272>,
    pub(super) distance: Code<6, 80>,
    pub(super) output: [u8; OUTPUT_BYTES_MAX + SLACK_BYTES],
    pub(super) produced: usize,
}

impl Lane {
    pub(super) const EMPTY: Lane = Lane {
        input: Input::EMPTY,
        position: 0,
        literal: Code::EMPTY,
        distance: Code::EMPTY,
        output: [0; OUTPUT_BYTES_MAX + SLACK_BYTES],
        produced: 0,
    };

    /// Takes a stream as far as the first symbol of its block. `None` if it is not for a lane.
    pub(super) fn begin(&mut self, stream: &[u8], lengths: &mut BlockLengths) -> Option<()> {
        let [0x78, flags, ..] = stream else { return None };
        let preset = flags & 0x20 != 0;
        if preset || !(0x7800 | u16::from(*flags)).is_multiple_of(31) {
            return None;
        }
        self.input.load(stream)?;
        self.produced = 0;
        self.position = 8 * ZLIB_HEADER_BYTES + BLOCK_HEADER_BITS;
        match self.input.numbers(8 * ZLIB_HEADER_BYTES) & 7 {
            LAST_FIXED => lengths.set_fixed(),
            LAST_DYNAMIC => self.position = read_lengths(&self.input, self.position, lengths)?,
            _ => return None,
        }
        self.literal.build(&lengths.literal, &LITERAL_ENTRIES, LITERAL_LENGTH_AT, LITERAL_LONG)?;
        self.distance.build(&lengths.distance, &DISTANCE_ENTRIES, DISTANCE_LENGTH_AT, DISTANCE_LONG)
    }

    /// The text, if the block came to its end and the rest of the stream is in order.
    pub(super) fn finish(&self, stop: Stop) -> Option<&[u8]> {
        match stop {
            Stop::Declined => return None,
            Stop::End => {}
        }
        let sum = self.input.bytes().get(self.position.div_ceil(8)..)?.first_chunk::<ADLER_BYTES>()?;
        let output = &self.output[..self.produced];
        (adler32(output) == u32::from_be_bytes(*sum)).then_some(output)
    }
}
