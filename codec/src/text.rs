//! Bytes of a peer, shown so that they can forge nothing.

use std::fmt;

/// Shows bytes that a peer chose: what is printable as it is, all else as an escape.
///
/// Control characters, line and paragraph separators, direction marks and bytes that are no UTF-8 become `\n`, `\x1b`,
/// `\u{202e}` or `\xff`; a backslash becomes two, so that the result is unambiguous. One line always stays one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\'' => fmt::Write::write_char(formatter, character)?,
                    _ => write!(formatter, "{}", character.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

/// What `isdigit` says of ASCII, for a whole slice that is not empty.
pub(crate) fn all_digits(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

/// The number that up to ten ASCII digits write, if it fits 32 bits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u32> {
    if !all_digits(digits) || digits.len() > 10 {
        return None;
    }
    let value = digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    u32::try_from(value).ok()
}

/// The number that up to twenty ASCII digits write, if it fits 64 bits.
pub(crate) fn decimal_u64(digits: &[u8]) -> Option<u64> {
    if !all_digits(digits) || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// The bytes before the first NUL: where a C program's string ends.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).map_or(bytes, |nul| &bytes[..nul])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_forges_a_line() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(Escaped(bytes).to_string(), expected);
        check(b"web01", "web01");
        check(b"it's \"quoted\"", "it's \"quoted\"");
        check(
            b"a\n2026/11/21 22:41:01 ringmaster: INFO: all is well",
            "a\\n2026/11/21 22:41:01 ringmaster: INFO: all is well",
        );
        check(b"\x1b[2J", "\\u{1b}[2J");
        check(b"back\\slash", "back\\\\slash");
        check("ä\u{202e}".as_bytes(), "ä\\u{202e}");
        check(b"\xff\x80ok", "\\xff\\x80ok");
        check("\u{2028}".as_bytes(), "\\u{2028}");
        check(b"\0", "\\0");
    }

    #[test]
    fn decimals_of_a_header() {
        assert_eq!(decimal(b"4294967295"), Some(u32::MAX));
        assert_eq!(decimal(b"4294967296"), None);
        assert_eq!(decimal(b"00000000000"), None);
        assert_eq!(decimal(b""), None);
        assert_eq!(decimal(b" 1"), None);
        assert_eq!(decimal(b"+1"), None);
        assert_eq!(decimal_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal_u64(b"18446744073709551616"), None);
        assert_eq!(decimal_u64(b"000000000000000000001"), None);
        assert_eq!(decimal_u64(b""), None);
        assert_eq!(decimal_u64(b"-1"), None);
    }
}
