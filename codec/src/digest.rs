//! md5 as the channel writes it: 32 hexadecimal digits.

use md5::{Digest, Md5};
use std::fmt;

/// An md5 as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HexDigest([u8; 32]);

impl HexDigest {
    /// The md5 of `bytes`.
    pub fn of(bytes: &[u8]) -> HexDigest {
        HexDigest::from_binary(Md5::digest(bytes).into())
    }

    /// The digest that these sixteen bytes are.
    pub fn from_binary(binary: [u8; 16]) -> HexDigest {
        let mut hex = [0; 32];
        let (quarters, _) = binary.as_chunks::<4>();
        for (digits, quarter) in hex.as_chunks_mut::<8>().0.iter_mut().zip(quarters) {
            *digits = digits_of(u32::from_le_bytes(*quarter)).to_le_bytes();
        }
        HexDigest(hex)
    }

    /// The digest that these 32 hexadecimal digits write, in either case; `None` if they don't.
    pub fn parse(digits: &[u8]) -> Option<HexDigest> {
        let digits: &[u8; 32] = digits.try_into().ok()?;
        let hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
        hexadecimal.then(|| HexDigest(digits.map(|digit| digit.to_ascii_lowercase())))
    }

    /// The 32 digits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 digits.
    ///
    /// # Panics
    /// Never: a digest holds hexadecimal digits only.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a digest holds hexadecimal digits only")
    }
}

/// The eight digits of four bytes, all at once: first byte and first digit lowest.
fn digits_of(bytes: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let halves = (u64::from(bytes) | u64::from(bytes) << 16) & 0x0000_ffff_0000_ffff;
    let apart = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let values = (apart >> 4 | apart << 8) & (0x0f * ONES);
    // Six more carry into the upper half of a byte whose value is a letter.
    let letters = (values + 6 * ONES) >> 4 & ONES;
    values + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)
}

impl fmt::Display for HexDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for HexDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HexDigest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(HexDigest::from_binary([byte; 16]).as_str(), format!("{byte:02x}").repeat(16));
        }
    }

    #[test]
    fn known_digests() {
        assert_eq!(HexDigest::of(b"").as_str(), "d41d8cd98f00b204e9800998ecf8427e");
        let digits =
            HexDigest::from_binary(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10");
        assert_eq!(digits.as_str(), "0123456789abcdeffedcba9876543210");
        assert_eq!(HexDigest::parse(b"D41D8CD98F00B204E9800998ECF8427E"), Some(HexDigest::of(b"")));
        assert_eq!(HexDigest::parse(b"x"), None);
        assert_eq!(HexDigest::parse(b"d41d8cd98f00b204e9800998ecf8427g"), None);
    }
}
