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
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(binary) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
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
    fn known_digests() {
        assert_eq!(HexDigest::of(b"").as_str(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(HexDigest::parse(b"D41D8CD98F00B204E9800998ECF8427E"), Some(HexDigest::of(b"")));
        assert_eq!(HexDigest::parse(b"x"), None);
        assert_eq!(HexDigest::parse(b"d41d8cd98f00b204e9800998ecf8427g"), None);
    }
}
