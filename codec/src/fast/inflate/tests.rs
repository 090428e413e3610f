//! The library is the oracle: what ours takes, it takes too, and says the same; what agents send, ours takes.

use super::*;
use crate::fuzzing::{inflate_is_the_librarys as checked, inflated as inflated_by, zlib_stream};
use flate2::{Compress, Compression, Decompress, FlushCompress};
use proptest::prelude::*;

/// A stream of these deflate blocks, whatever they are.
fn zlib(blocks: &[u8], text: &[u8]) -> Vec<u8> {
    [&[0x78, 0xda], blocks, &adler::adler32(text).to_be_bytes()].concat()
}

fn deflated(text: &[u8], level: u32) -> Vec<u8> {
    let mut stream = Vec::with_capacity(text.len() + text.len() / 8 + 64);
    Compress::new(Compression::new(level), true)
        .compress_vec(text, &mut stream, FlushCompress::Finish)
        .unwrap();
    stream
}

/// What the library makes of a stream; `None` if it refuses it.
fn library(stream: &[u8]) -> Option<Vec<u8>> {
    inflated_by(&mut Decompress::new(true), stream)
}

/// Like a log line: few letters, some words that come again.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof!["[a-z ]{1,8}", "[0-9a-f]{1,32}", "sshd\\[[0-9]{3,5}\\]: ", "Failed password for "];
    prop::collection::vec(word, 1..150).prop_map(|words| words.concat().into_bytes())
}

/// Writes deflate: numbers lowest bit first, codes highest bit first.
#[derive(Default)]
struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    fn number(&mut self, number: usize, bits: usize) {
        self.bits.extend((0..bits).map(|bit| number >> bit & 1 != 0));
    }

    fn code(&mut self, lengths: &[u8], symbol: usize) {
        let length = lengths[symbol];
        assert_ne!(length, 0, "{symbol} has a code");
        let before = |index: usize, other: u8| other < length || other == length && index < symbol;
        let sum: usize = lengths
            .iter()
            .enumerate()
            .filter(|(index, other)| **other != 0 && before(*index, **other))
            .map(|(_, other)| 1 << (15 - other))
            .sum();
        let code = sum >> (15 - length);
        self.bits.extend((0..length).rev().map(|bit| code >> bit & 1 != 0));
    }

    fn bytes(&self) -> Vec<u8> {
        self.bits
            .chunks(8)
            .map(|bits| bits.iter().enumerate().map(|(bit, set)| u8::from(*set) << bit).sum())
            .collect()
    }

    /// The head of a last block with these codes, their lengths written one by one, or in runs where they can be.
    fn dynamic_head(&mut self, literals: &[u8], distances: &[u8], runs: bool) {
        self.number(0b101, 3);
        self.number(literals.len() - 257, 5);
        self.number(distances.len() - 1, 5);
        self.number(19 - 4, 4);
        // Sixteen lengths and three runs: thirteen codes of four bits, six of five.
        let code: Vec<u8> = (0..19).map(|symbol| if symbol < 13 { 4 } else { 5 }).collect();
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] {
            self.number(code[symbol].into(), 3);
        }
        let all = [literals, distances].concat();
        let mut at = 0;
        while at < all.len() {
            let run = all[at..].iter().take_while(|length| **length == all[at]).count();
            let again = at > 0 && all[at - 1] == all[at];
            let (symbol, base, bits, count) = match (all[at], run) {
                (0, 11..) if runs => (18, 11, 7, run.min(138)),
                (0, 3..) if runs => (17, 3, 3, run),
                (_, 3..) if runs && again => (16, 3, 2, run.min(6)),
                (length, _) => (length.into(), 0, 0, 1),
            };
            self.code(&code, symbol);
            self.number(count.wrapping_sub(base) & ((1 << bits) - 1), bits);
            at += count;
        }
    }
}

/// Lengths of a complete code for `symbols` symbols of which each of `used` has one: leaves are split until there are enough.
fn code_lengths(symbols: usize, used: &[usize], splits: &[u16]) -> Vec<u8> {
    let mut leaves = vec![1_u8, 1];
    let mut splits = splits.iter().cycle();
    while leaves.len() < used.len() {
        let at = usize::from(*splits.next().unwrap()) % leaves.len();
        // Most splits go to the leaf that was split last, so that codes get long.
        let at = if at.is_multiple_of(3) { at } else { leaves.len() - 1 };
        let at = if leaves[at] < 15 { at } else { leaves.iter().position(|leaf| *leaf < 15).unwrap() };
        leaves[at] += 1;
        leaves.push(leaves[at]);
    }
    let mut lengths = vec![0; symbols];
    for (symbol, leaf) in used.iter().zip(leaves) {
        lengths[*symbol] = leaf;
    }
    lengths
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Literal(u8),
    Match { length: usize, distance: usize },
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        3 => any::<u8>().prop_map(Token::Literal),
        1 => (3_usize..=258, prop_oneof![1_usize..20, 1_usize..3_000])
            .prop_map(|(length, distance)| Token::Match { length, distance }),
    ]
}

const LENGTH_BASES: [usize; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258,
];

fn length_symbol(length: usize) -> (usize, usize, usize) {
    let index = LENGTH_BASES.iter().rposition(|base| *base <= length).unwrap();
    let extra = if (8..28).contains(&index) { index / 4 - 1 } else { 0 };
    (257 + index, length - LENGTH_BASES[index], extra)
}

fn distance_symbol(distance: usize) -> (usize, usize, usize) {
    let base =
        |symbol: usize| if symbol < 4 { symbol + 1 } else { ((2 + symbol % 2) << (symbol / 2 - 1)) + 1 };
    let symbol = (0..30).rposition(|symbol| base(symbol) <= distance).unwrap();
    (symbol, distance - base(symbol), if symbol < 4 { 0 } else { symbol / 2 - 1 })
}

fn inflated(tokens: &[Token]) -> Vec<u8> {
    let mut text = Vec::new();
    for token in tokens {
        match *token {
            Token::Literal(byte) => text.push(byte),
            Token::Match { length, distance } => {
                for _ in 0..length {
                    text.push(text[text.len() - distance]);
                }
            }
        }
    }
    text
}

fn fixed_codes() -> (Vec<u8>, Vec<u8>) {
    ([[8; 144].as_slice(), &[9; 112], &[7; 24], &[8; 8]].concat(), vec![5; 32])
}

/// One block of these tokens, with codes made by `splits`, or with the fixed ones.
fn block(tokens: &[Token], splits: Option<&[u16]>, runs: bool) -> Vec<u8> {
    let mut literals = vec![256];
    let mut distances = vec![0, 1];
    for token in tokens {
        match *token {
            Token::Literal(byte) => literals.push(byte.into()),
            Token::Match { length, distance } => {
                literals.push(length_symbol(length).0);
                distances.push(distance_symbol(distance).0);
            }
        }
    }
    for used in [&mut literals, &mut distances] {
        used.sort_unstable();
        used.dedup();
    }
    if literals.len() == 1 {
        literals.insert(0, 0);
    }
    let mut writer = Writer::default();
    let (literals, distances) = match splits {
        Some(splits) => (code_lengths(286, &literals, splits), code_lengths(30, &distances, splits)),
        None => fixed_codes(),
    };
    match splits {
        Some(_) => writer.dynamic_head(&literals, &distances, runs),
        None => writer.number(0b011, 3),
    }
    for token in tokens {
        match *token {
            Token::Literal(byte) => writer.code(&literals, byte.into()),
            Token::Match { length, distance } => {
                let (symbol, number, bits) = length_symbol(length);
                writer.code(&literals, symbol);
                writer.number(number, bits);
                let (symbol, number, bits) = distance_symbol(distance);
                writer.code(&distances, symbol);
                writer.number(number, bits);
            }
        }
    }
    writer.code(&literals, 256);
    writer.bytes()
}

/// The tokens whose match reaches not before the text, as many as fit.
fn sound(tokens: Vec<Token>) -> Vec<Token> {
    let mut length_so_far = 0;
    let mut sound = Vec::new();
    for token in tokens {
        let length = match token {
            Token::Literal(_) => 1,
            Token::Match { length, distance } if distance <= length_so_far => length,
            Token::Match { .. } => continue,
        };
        if length_so_far + length > OUTPUT_BYTES_MAX {
            break;
        }
        length_so_far += length;
        sound.push(token);
    }
    sound
}

struct Collected {
    streams: Vec<Vec<u8>>,
    texts: Vec<Option<Option<Vec<u8>>>>,
}

impl Streams for Collected {
    fn count(&self) -> usize {
        self.streams.len()
    }

    fn stream(&self, index: usize) -> Option<&[u8]> {
        Some(&self.streams[index]).filter(|stream| !stream.is_empty()).map(Vec::as_slice)
    }

    fn done(&mut self, index: usize, text: Option<&[u8]>) {
        let before = self.texts[index].replace(text.map(<[u8]>::to_vec));
        assert_eq!(before, None, "a stream is done once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_agents_send_is_taken(text in line(), behind in prop::collection::vec(any::<u8>(), 0..20)) {
        let text = &text[..text.len().min(1_500)];
        let stream = [deflated(text, 9), behind].concat();
        let taken = checked(&mut Inflater::new(), &stream);
        prop_assert_eq!(taken.as_deref(), Some(text));
    }

    #[test]
    fn every_level_and_length_says_what_the_library_says(
        text in prop_oneof![line(), prop::collection::vec(any::<u8>(), 0..3_000)],
        copies in 1_usize..40,
        level in 0_u32..=9,
    ) {
        let text = text.repeat(copies);
        let text = &text[..text.len().min(70_000)];
        let inflated = checked(&mut Inflater::new(), &deflated(text, level));
        prop_assert!(inflated.is_none_or(|inflated| inflated == text));
    }

    #[test]
    fn any_complete_codes_are_taken(
        tokens in prop::collection::vec(token(), 0..400),
        splits in prop::option::weighted(0.9, prop::collection::vec(any::<u16>(), 1..20)),
        runs in any::<bool>(),
    ) {
        let tokens = sound(tokens);
        let text = inflated(&tokens);
        let stream = zlib(&block(&tokens, splits.as_deref(), runs), &text);
        prop_assume!(stream.len() <= STREAM_BYTES_MAX - 8);
        prop_assert_eq!(library(&stream), Some(text.clone()), "the test's own deflate is sound");
        prop_assert_eq!(checked(&mut Inflater::new(), &stream), Some(text));
    }

    #[test]
    fn a_distance_too_far_is_declined(
        tokens in prop::collection::vec(token(), 0..60),
        length in 3_usize..=258,
        beyond in 1_usize..200,
        splits in prop::option::of(prop::collection::vec(any::<u16>(), 1..20)),
    ) {
        let mut tokens = sound(tokens);
        let text = inflated(&tokens);
        tokens.push(Token::Match { length, distance: text.len() + beyond });
        let stream = zlib(&block(&tokens, splits.as_deref(), true), &text);
        prop_assert_eq!(library(&stream), None);
        prop_assert_eq!(checked(&mut Inflater::new(), &stream), None);
    }

    #[test]
    fn what_is_cut_off_or_altered_is_no_other_text(text in line(), flips in prop::collection::vec(any::<u16>(), 1..3)) {
        let stream = deflated(&text[..text.len().min(400)], 9);
        let mut inflater = Inflater::new();
        for length in 0..stream.len() {
            prop_assert_eq!(checked(&mut inflater, &stream[..length]), None);
        }
        for byte in 0..stream.len() {
            let mut altered = stream.clone();
            for flip in &flips {
                let at = (byte + usize::from(*flip >> 3)) % stream.len();
                altered[at] ^= 1 << (flip & 7);
            }
            checked(&mut inflater, &altered);
        }
    }

    #[test]
    fn altered_codes_with_the_right_sum_say_what_the_library_says(
        text in line(),
        flips in prop::collection::vec((0_usize..80, 0_u8..8), 1..3),
    ) {
        let stream = deflated(&text[..text.len().min(400)], 9);
        let mut blocks = stream[2..stream.len() - 4].to_vec();
        for (at, bit) in flips {
            let at = at % blocks.len();
            blocks[at] ^= 1 << bit;
        }
        checked(&mut Inflater::new(), &zlib_stream(&blocks));
    }

    #[test]
    fn any_bytes_return(bytes in prop::collection::vec(any::<u8>(), 0..300), headed in any::<bool>()) {
        let stream = if headed { [&[0x78, 0xda], &bytes[..]].concat() } else { bytes };
        checked(&mut Inflater::new(), &stream);
    }

    #[test]
    fn company_changes_nothing(
        texts in prop::collection::vec((line(), 0_u8..8), 0..12),
    ) {
        let streams: Vec<Vec<u8>> = texts
            .iter()
            .map(|(text, fate)| {
                let mut stream = deflated(&text[..text.len().min(900)], if *fate == 1 { 0 } else { 9 });
                match fate {
                    2 => stream.truncate(stream.len() / 2),
                    3 => {
                        let middle = stream.len() / 2;
                        stream[middle] ^= 4;
                    }
                    4 => stream.clear(),
                    _ => {}
                }
                stream
            })
            .collect();
        let alone: Vec<_> = streams
            .iter()
            .map(|stream| (!stream.is_empty()).then(|| checked(&mut Inflater::new(), stream)))
            .collect();
        let mut collected = Collected { texts: vec![None; streams.len()], streams };
        Inflater::new().inflate_batch(&mut collected);
        prop_assert_eq!(collected.texts, alone);
    }

    #[test]
    fn sums_are_those_of_the_definition(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(255)], 0..5_000)) {
        let (low, high) = bytes.iter().fold((1_u64, 0_u64), |(low, high), byte| {
            ((low + u64::from(*byte)) % 65_521, (high + low + u64::from(*byte)) % 65_521)
        });
        prop_assert_eq!(u64::from(adler::adler32(&bytes)), high << 16 | low);
    }
}

/// A last block's bits as numbers and their widths, with a right sum for no text.
fn check_refused(numbers: &[(usize, usize)]) {
    let mut writer = Writer::default();
    for (number, bits) in numbers {
        writer.number(*number, *bits);
    }
    let stream = zlib(&[writer.bytes(), vec![0; 40]].concat(), b"");
    assert_eq!(library(&stream), None, "{numbers:?}");
    assert_eq!(checked(&mut Inflater::new(), &stream), None, "{numbers:?}");
}

#[test]
fn codes_that_are_not_in_order_are_declined() {
    let dynamic = (0b101, 3);
    // More symbols than there are; no code for the lengths, one that is incomplete, and one with too many.
    check_refused(&[dynamic, (30, 5), (0, 5), (0, 4)]);
    check_refused(&[dynamic, (0, 5), (30, 5), (0, 4)]);
    check_refused(&[dynamic, (0, 5), (0, 5), (0, 4), (0, 12)]);
    check_refused(&[dynamic, (0, 5), (0, 5), (0, 4), (0, 9), (1, 3)]);
    check_refused(&[dynamic, (0, 5), (0, 5), (0, 4), (0o1111, 12)]);
    // Begins with a copy of the length before; zeros past the last symbol.
    check_refused(&[dynamic, (0, 5), (0, 5), (0, 4), (0o1001, 12), (1, 1), (0, 2)]);
    check_refused(&[dynamic, (0, 5), (0, 5), (0, 4), (0o1100, 12), (1, 1), (127, 7), (1, 1), (127, 7)]);
    // Blocks that are stored wrongly, or of no kind.
    check_refused(&[(0b001, 3), (0, 5), (1, 16), (1, 16)]);
    check_refused(&[(0b111, 3)]);
    let mut writer = Writer::default();
    writer.dynamic_head(&code_lengths(286, &[0, 1, 2], &[0]), &code_lengths(30, &[0, 1], &[0]), true);
    let stream = zlib(&[writer.bytes(), vec![0; 40]].concat(), b"");
    assert_eq!(
        (checked(&mut Inflater::new(), &stream), library(&stream)),
        (None, None),
        "no end of the block"
    );
}

/// The fixed codes have symbols that stand for nothing.
#[test]
fn reserved_symbols_are_declined() {
    let (literals, distances) = fixed_codes();
    for (length, distance) in [(285, 29), (286, 0), (287, 0), (257, 30), (257, 31)] {
        let mut writer = Writer::default();
        writer.number(0b011, 3);
        for symbol in [97, 97, length] {
            writer.code(&literals, symbol);
        }
        writer.code(&distances, distance);
        writer.code(&literals, 256);
        // Were they taken for anything, then for a copy of what is there.
        for text in [vec![b'a'; 2], vec![b'a'; 5], vec![b'a'; 2 + 258]] {
            let stream = zlib(&writer.bytes(), &text);
            assert_eq!((checked(&mut Inflater::new(), &stream), library(&stream)), (None, None));
        }
    }
}

#[test]
fn headers_and_sums_that_are_not_in_order_are_declined() {
    let stream = deflated(b"Nov 22 10:00:00 web01 sshd[1]: Failed password", 9);
    for (at, value) in [(0, 0x79), (0, 0x77), (1, 0xdb), (1, 0xfa)] {
        let mut altered = stream.clone();
        altered[at] = value;
        assert_eq!(
            (checked(&mut Inflater::new(), &altered), library(&altered)),
            (None, None),
            "{at} {value:#x}"
        );
    }
    for at in stream.len() - 4..stream.len() {
        let mut altered = stream.clone();
        altered[at] ^= 1;
        assert_eq!((checked(&mut Inflater::new(), &altered), library(&altered)), (None, None));
    }
    assert_eq!(checked(&mut Inflater::new(), b""), None);
}

#[test]
fn what_is_too_long_is_declined() {
    for (text_bytes, taken) in
        [(OUTPUT_BYTES_MAX - 1, true), (OUTPUT_BYTES_MAX, true), (OUTPUT_BYTES_MAX + 1, false)]
    {
        let text = vec![b'a'; text_bytes];
        assert_eq!(checked(&mut Inflater::new(), &deflated(&text, 9)).is_some(), taken, "{text_bytes}");
        let mut behind = deflated(b"short", 9);
        behind.resize(text_bytes - OUTPUT_BYTES_MAX / 2, 0);
        assert_eq!(checked(&mut Inflater::new(), &behind).is_some(), behind.len() <= STREAM_BYTES_MAX);
    }
}
