//! Sixteen messages in the lanes of two AVX2 registers, which take turns.

use super::{BLOCK_BYTES, DIGEST_BYTES, LANES, blocks};
use std::arch::x86_64::*;

/// Lanes of a register.
const LANES_EACH: usize = 8;
const GROUPS: usize = LANES / LANES_EACH;
const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The four words that each lane carries from block to block.
type State = [__m256i; 4];
/// The sixteen words of each lane's block.
type Words = [__m256i; 16];

/// The digests of sixteen messages. It takes as long as the longest would alone.
#[target_feature(enable = "avx2")]
pub(crate) fn digest(messages: &[&[u8]; LANES]) -> [[u8; DIGEST_BYTES]; LANES] {
    let tails = messages.map(Tail::new);
    let lengths = messages.map(|message| blocks(message) as i32);
    let shortest = lengths.into_iter().fold(i32::MAX, i32::min);
    let longest = lengths.into_iter().fold(0, i32::max);
    let mut states = [INITIAL.map(|word| _mm256_set1_epi32(word as i32)); GROUPS];
    for at in 0..longest {
        let mut words = [[_mm256_setzero_si256(); 16]; GROUPS];
        for (group, words) in words.iter_mut().enumerate() {
            let mut lanes = [&[0; BLOCK_BYTES]; LANES_EACH];
            for (lane, block) in lanes.iter_mut().enumerate() {
                let lane = group * LANES_EACH + lane;
                *block = tails[lane].block(messages[lane], at as usize);
            }
            *words = transpose(lanes);
        }
        let before = states;
        rounds(&mut states, &words);
        if at >= shortest {
            // A message that has ended keeps what it had.
            for group in 0..GROUPS {
                let ended = ended(&lengths[group * LANES_EACH..], at);
                for (state, before) in states[group].iter_mut().zip(before[group]) {
                    *state = _mm256_blendv_epi8(*state, before, ended);
                }
            }
        }
    }
    let mut digests = [[0; DIGEST_BYTES]; LANES];
    for group in 0..GROUPS {
        digests[group * LANES_EACH..][..LANES_EACH].copy_from_slice(&bytes(&states[group]));
    }
    digests
}

/// The end of a message: what fills no block, and the padding. Where that takes one block only, the second is not used.
struct Tail {
    whole_blocks: usize,
    blocks: [[u8; BLOCK_BYTES]; 2],
}

impl Tail {
    fn new(message: &[u8]) -> Tail {
        let (whole, rest) = message.as_chunks::<BLOCK_BYTES>();
        let mut tail = Tail { whole_blocks: whole.len(), blocks: [[0; BLOCK_BYTES]; 2] };
        let bytes = tail.blocks.as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let end = (blocks(message) - whole.len()) * BLOCK_BYTES;
        let bits = (message.len() as u64).wrapping_mul(8);
        bytes[end - size_of::<u64>()..end].copy_from_slice(&bits.to_le_bytes());
        tail
    }

    /// The block of `message` at this place; behind its last one, any.
    #[inline(always)]
    fn block<'b>(&'b self, message: &'b [u8], at: usize) -> &'b [u8; BLOCK_BYTES] {
        match message.as_chunks().0.get(at) {
            Some(block) => block,
            None => &self.blocks[(at - self.whole_blocks).min(1)],
        }
    }
}

/// All ones in the lanes whose messages have no block at this place any more.
#[inline]
#[target_feature(enable = "avx2")]
fn ended(lengths: &[i32], at: i32) -> __m256i {
    let [a, b, c, d, e, f, g, h] = *lengths.first_chunk().expect("there is a length for each lane");
    _mm256_cmpgt_epi32(_mm256_set1_epi32(at + 1), _mm256_setr_epi32(a, b, c, d, e, f, g, h))
}

/// The words of eight blocks, lane by lane: what was a row becomes a column.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(blocks: [&[u8; BLOCK_BYTES]; LANES_EACH]) -> Words {
    let mut words = [_mm256_setzero_si256(); 16];
    for half in 0..2 {
        let mut rows = [_mm256_setzero_si256(); LANES_EACH];
        for (row, block) in rows.iter_mut().zip(blocks) {
            let quarters = &block.as_chunks::<8>().0[4 * half..4 * half + 4];
            let [a, b, c, d] = [0, 1, 2, 3].map(|quarter: usize| i64::from_le_bytes(quarters[quarter]));
            *row = _mm256_setr_epi64x(a, b, c, d);
        }
        // Pairs of rows are woven word by word, pairs of those two words by two, and halves are swapped at last.
        let mut pairs = rows;
        for pair in 0..4 {
            pairs[2 * pair] = _mm256_unpacklo_epi32(rows[2 * pair], rows[2 * pair + 1]);
            pairs[2 * pair + 1] = _mm256_unpackhi_epi32(rows[2 * pair], rows[2 * pair + 1]);
        }
        let mut fours = pairs;
        for four in 0..2 {
            let [a, b, c, d] =
                [pairs[4 * four], pairs[4 * four + 1], pairs[4 * four + 2], pairs[4 * four + 3]];
            fours[4 * four] = _mm256_unpacklo_epi64(a, c);
            fours[4 * four + 1] = _mm256_unpackhi_epi64(a, c);
            fours[4 * four + 2] = _mm256_unpacklo_epi64(b, d);
            fours[4 * four + 3] = _mm256_unpackhi_epi64(b, d);
        }
        for word in 0..4 {
            words[8 * half + word] = _mm256_permute2x128_si256::<0x20>(fours[word], fours[4 + word]);
            words[8 * half + 4 + word] = _mm256_permute2x128_si256::<0x31>(fours[word], fours[4 + word]);
        }
    }
    words
}

/// The digests that the lanes hold.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(state: &State) -> [[u8; DIGEST_BYTES]; LANES_EACH] {
    let [a, b, c, d] = *state;
    let low = [_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)];
    let high = [_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)];
    let twos = [
        _mm256_unpacklo_epi64(low[0], low[1]),
        _mm256_unpackhi_epi64(low[0], low[1]),
        _mm256_unpacklo_epi64(high[0], high[1]),
        _mm256_unpackhi_epi64(high[0], high[1]),
    ];
    let mut digests = [[0; DIGEST_BYTES]; LANES_EACH];
    for (lane, two) in twos.into_iter().enumerate() {
        let halves = [_mm256_extract_epi64::<0>(two), _mm256_extract_epi64::<1>(two)];
        digests[lane] = joined(halves);
        let halves = [_mm256_extract_epi64::<2>(two), _mm256_extract_epi64::<3>(two)];
        digests[lane + 4] = joined(halves);
    }
    digests
}

fn joined(halves: [i64; 2]) -> [u8; DIGEST_BYTES] {
    (u128::from(halves[0] as u64) | u128::from(halves[1] as u64) << 64).to_le_bytes()
}

/// One step of one group: `a` takes part and is replaced, the others are looked at.
macro_rules! step {
    ($mix:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:expr, $shift:literal, $constant:literal, $words:ident) => {
        for group in 0..GROUPS {
            let added = _mm256_add_epi32($words[group][$word], _mm256_set1_epi32($constant as u32 as i32));
            let sum = $mix(_mm256_add_epi32($a[group], added), $b[group], $c[group], $d[group]);
            let left = _mm256_slli_epi32::<$shift>(sum);
            let turned = _mm256_or_si256(left, _mm256_srli_epi32::<{ 32 - $shift }>(sum));
            $a[group] = _mm256_add_epi32(turned, $b[group]);
        }
    };
}

/// Four steps, after which each of the four words has been replaced once.
macro_rules! steps {
    ($mix:ident, $a:ident $b:ident $c:ident $d:ident, $words:ident, $shifts:tt: $($row:tt)*) => {
        $(steps!(@four $mix, $a $b $c $d, $words, $shifts, $row);)*
    };
    (@four $mix:ident, $a:ident $b:ident $c:ident $d:ident, $words:ident, [$s0:literal $s1:literal $s2:literal $s3:literal],
        [$w0:literal $k0:literal, $w1:literal $k1:literal, $w2:literal $k2:literal, $w3:literal $k3:literal]) => {
        step!($mix, $a, $b, $c, $d, $w0, $s0, $k0, $words);
        step!($mix, $d, $a, $b, $c, $w1, $s1, $k1, $words);
        step!($mix, $c, $d, $a, $b, $w2, $s2, $k2, $words);
        step!($mix, $b, $c, $d, $a, $w3, $s3, $k3, $words);
    };
}

/// RFC 1321's four rounds over one block of each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn rounds(states: &mut [State; GROUPS], words: &[Words; GROUPS]) {
    let [mut a, mut b, mut c, mut d] =
        [0, 1, 2, 3].map(|word: usize| states.each_ref().map(|state| state[word]));
    steps!(choose, a b c d, words, [7 12 17 22]:
        [0 0xd76a_a478, 1 0xe8c7_b756, 2 0x2420_70db, 3 0xc1bd_ceee]
        [4 0xf57c_0faf, 5 0x4787_c62a, 6 0xa830_4613, 7 0xfd46_9501]
        [8 0x6980_98d8, 9 0x8b44_f7af, 10 0xffff_5bb1, 11 0x895c_d7be]
        [12 0x6b90_1122, 13 0xfd98_7193, 14 0xa679_438e, 15 0x49b4_0821]
    );
    steps!(choose_by_last, a b c d, words, [5 9 14 20]:
        [1 0xf61e_2562, 6 0xc040_b340, 11 0x265e_5a51, 0 0xe9b6_c7aa]
        [5 0xd62f_105d, 10 0x0244_1453, 15 0xd8a1_e681, 4 0xe7d3_fbc8]
        [9 0x21e1_cde6, 14 0xc337_07d6, 3 0xf4d5_0d87, 8 0x455a_14ed]
        [13 0xa9e3_e905, 2 0xfcef_a3f8, 7 0x676f_02d9, 12 0x8d2a_4c8a]
    );
    steps!(parity, a b c d, words, [4 11 16 23]:
        [5 0xfffa_3942, 8 0x8771_f681, 11 0x6d9d_6122, 14 0xfde5_380c]
        [1 0xa4be_ea44, 4 0x4bde_cfa9, 7 0xf6bb_4b60, 10 0xbebf_bc70]
        [13 0x289b_7ec6, 0 0xeaa1_27fa, 3 0xd4ef_3085, 6 0x0488_1d05]
        [9 0xd9d4_d039, 12 0xe6db_99e5, 15 0x1fa2_7cf8, 2 0xc4ac_5665]
    );
    steps!(mingle, a b c d, words, [6 10 15 21]:
        [0 0xf429_2244, 7 0x432a_ff97, 14 0xab94_23a7, 5 0xfc93_a039]
        [12 0x655b_59c3, 3 0x8f0c_cc92, 10 0xffef_f47d, 1 0x8584_5dd1]
        [8 0x6fa8_7e4f, 15 0xfe2c_e6e0, 6 0xa301_4314, 13 0x4e08_11a1]
        [4 0xf753_7e82, 11 0xbd3a_f235, 2 0x2ad7_d2bb, 9 0xeb86_d391]
    );
    for (group, state) in states.iter_mut().enumerate() {
        for (word, after) in state.iter_mut().zip([a[group], b[group], c[group], d[group]]) {
            *word = _mm256_add_epi32(*word, after);
        }
    }
}

/// `sum` and, of each bit, that of `c` where `b` is set and that of `d` where not.
#[inline]
#[target_feature(enable = "avx2")]
fn choose(sum: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d))))
}

/// `sum` and, of each bit, that of `b` where `d` is set and that of `c` where not. No bit is in both, so they are added one
/// by one: `b`, which the step before this has just made, comes last.
#[inline]
#[target_feature(enable = "avx2")]
fn choose_by_last(sum: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_andnot_si256(d, c)), _mm256_and_si256(d, b))
}

/// `sum` and the parity of each bit.
#[inline]
#[target_feature(enable = "avx2")]
fn parity(sum: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_xor_si256(b, _mm256_xor_si256(c, d)))
}

/// `sum` and what the last round makes of the three.
#[inline]
#[target_feature(enable = "avx2")]
fn mingle(sum: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    let not_d = _mm256_xor_si256(d, _mm256_set1_epi32(-1));
    _mm256_add_epi32(sum, _mm256_xor_si256(c, _mm256_or_si256(b, not_d)))
}
