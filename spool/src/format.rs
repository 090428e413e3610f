//! The bytes of a segment file: a header, then records.
//!
//!     header:  "RMSPOOL1", first number (8), end of the segment before it when this one was begun (8), checksum (4), 4 zeros
//!     record:  length (4), checksum of number and bytes (4), bytes
//!
//! Numbers are little-endian. A record's number is not written: the checksum covers it, so that a record in the wrong place is
//! as good as damaged.

use crate::Sequence;

/// Longest record in bytes: the largest message of the channel, and room for an envelope.
pub const RECORD_BYTES_MAX: usize = 66 << 10;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 32;
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
const MAGIC: [u8; 8] = *b"RMSPOOL1";

/// What a segment's header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentHeader {
    /// The number of its first record.
    pub(crate) first: Sequence,
    /// Where the segment before it ended; numbers between the two were jumped over.
    pub(crate) previous_end: Sequence,
}

impl SegmentHeader {
    pub(crate) fn to_bytes(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.previous_end.0.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` if that is no header of ours.
    pub(crate) fn parse(bytes: &[u8]) -> Option<SegmentHeader> {
        let bytes = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?;
        let first = Sequence(u64::from_le_bytes(*bytes[8..].first_chunk()?));
        let previous_end = Sequence(u64::from_le_bytes(*bytes[16..].first_chunk()?));
        let header = SegmentHeader { first, previous_end };
        // Numbers never come near their end, so that no sum of them overflows.
        let is_sound = header.to_bytes() == *bytes && previous_end <= first && first.0 < 1 << 62;
        is_sound.then_some(header)
    }
}

/// Appends a record to `out`.
pub(crate) fn write_record(out: &mut Vec<u8>, sequence: Sequence, record: &[u8]) {
    let length = u32::try_from(record.len()).expect("a record is at most RECORD_BYTES_MAX long");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sum(sequence, record).to_le_bytes());
    out.extend_from_slice(record);
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Parsed<'b> {
    /// A record.
    Record(&'b [u8]),
    /// The beginning of what may become a record, if more bytes follow.
    Short,
    /// No record.
    Damaged,
}

/// The record at the beginning of `bytes`, which has to have the number `sequence`.
pub(crate) fn parse_record(bytes: &[u8], sequence: Sequence) -> Parsed<'_> {
    let (Some(length), Some(expected)) = (number(bytes), bytes.get(4..).and_then(number)) else {
        return Parsed::Short;
    };
    if length as usize > RECORD_BYTES_MAX {
        return Parsed::Damaged;
    }
    match bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length as usize) {
        Some(record) if sum(sequence, record) == expected => Parsed::Record(record),
        Some(_) => Parsed::Damaged,
        None => Parsed::Short,
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_le_bytes)
}

fn sum(sequence: Sequence, record: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&sequence.0.to_le_bytes());
    sum.update(record);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_and_a_changed_one_does_not(
            record in prop::collection::vec(any::<u8>(), 0..300),
            sequence in any::<u64>(),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let mut bytes = Vec::new();
            write_record(&mut bytes, Sequence(sequence), &record);
            prop_assert_eq!(parse_record(&bytes, Sequence(sequence)), Parsed::Record(&record));
            prop_assert_ne!(parse_record(&bytes, Sequence(sequence.wrapping_add(1))), Parsed::Record(&record));
            prop_assert_eq!(parse_record(&bytes[..bytes.len() - 1], Sequence(sequence)), Parsed::Short);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(!matches!(parse_record(&bytes, Sequence(sequence)), Parsed::Record(_)));
        }

        #[test]
        fn anything_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            parse_record(&bytes, Sequence(7));
            SegmentHeader::parse(&bytes);
        }
    }

    #[test]
    fn a_header_comes_back_and_a_changed_one_does_not() {
        let header = SegmentHeader { first: Sequence(1 << 40), previous_end: Sequence(77) };
        let bytes = header.to_bytes();
        assert_eq!(SegmentHeader::parse(&bytes), Some(header));
        for at in 0..SEGMENT_HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(SegmentHeader::parse(&changed), None, "byte {at}");
        }
    }
}
