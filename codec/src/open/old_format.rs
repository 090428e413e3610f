//! The format before compression: off by default, and dead in OSSEC 4.3.0, whose digest covers a byte too many.
//!
//! ```text
//! plain  ":" | md5hex of the rest: 32 | time: 10 | optional ":" | count: 4 | ":" | text |   NULs to a whole block
//! ```
//!
//! Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `ReadSecMSG`.

use super::{Numbers, OpenError};
use crate::digest::HexDigest;
use crate::limits::DIGEST_BYTES;
use crate::message::Counter;
use crate::text::decimal;
use std::ops::Range;

/// Whether a plain text, of which at least a block is there, begins with `:` and digits of a digest.
pub(super) fn begins_so(plain: &[u8]) -> bool {
    match plain.split_first_chunk::<8>() {
        Some(([b':', digits @ ..], _)) => digits.iter().all(u8::is_ascii_hexdigit),
        Some(_) | None => false,
    }
}

/// The numbers of a plain text, and where its own text is.
pub(super) fn verify(plain: &[u8]) -> Result<(Numbers, Range<usize>), OpenError> {
    let padding_bytes = plain.iter().rev().take_while(|byte| **byte == 0).count();
    let end = plain.len() - padding_bytes;
    let (digest, rest) = plain[1..].split_at_checked(DIGEST_BYTES).ok_or(OpenError::Malformed)?;
    let unpadded = rest.len().checked_sub(padding_bytes).ok_or(OpenError::Malformed)?;
    let matches = |covered: &[u8]| HexDigest::of(covered).as_bytes() == digest;
    if !matches(&rest[..unpadded]) && !matches(rest) {
        return Err(OpenError::Checksum);
    }
    let (time, after) = rest.split_at_checked(10).ok_or(OpenError::Malformed)?;
    let after = after.strip_prefix(b":").unwrap_or(after);
    let (count, after) = after.split_at_checked(4).ok_or(OpenError::Malformed)?;
    let text = after.strip_prefix(b":").ok_or(OpenError::Malformed)?;
    let number = |digits| decimal(digits).ok_or(OpenError::Malformed);
    let counter = Counter { global: number(time)?, local: number(count)? as u16 };
    let start = plain.len() - text.len();
    Ok((Numbers { random: 0, counter }, start..end.max(start)))
}
