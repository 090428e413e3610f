//! The agent's id.

use crate::limits::AGENT_ID_BYTES_MAX;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// An agent's id: a string of one to eight digits. `001`, `1` and `0001` are three agents.
///
/// Nine bytes, `Copy`: the digits and how many they are; unused digits are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AgentId {
    digits: [u8; AGENT_ID_BYTES_MAX],
    length: u8,
}

impl AgentId {
    /// The id that these bytes write.
    ///
    /// # Errors
    /// If they are none, more than eight, or not all digits.
    pub fn from_bytes(bytes: &[u8]) -> Result<AgentId, AgentIdError> {
        if bytes.is_empty() {
            return Err(AgentIdError::Empty);
        }
        if bytes.len() > AGENT_ID_BYTES_MAX {
            return Err(AgentIdError::TooLong);
        }
        if !bytes.iter().all(u8::is_ascii_digit) {
            return Err(AgentIdError::NotDigits);
        }
        let mut digits = [0; AGENT_ID_BYTES_MAX];
        digits[..bytes.len()].copy_from_slice(bytes);
        Ok(AgentId { digits, length: bytes.len() as u8 })
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..usize::from(self.length)]
    }

    /// The digits.
    ///
    /// # Panics
    /// Never: an id holds digits only.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("an id holds ASCII digits only")
    }
}

impl AgentId {
    /// The number that the digits write: below 100,000,000. Ids that differ only in zeros in front have the same one.
    #[inline]
    pub fn number(&self) -> u32 {
        // The digits to the end of the word, zeros in front; then pairs, fours and all eight at once.
        let unused_bits = (AGENT_ID_BYTES_MAX as u32 - u32::from(self.length)) * 8;
        let digits = (u64::from_le_bytes(self.digits) << unused_bits) & 0x0f0f_0f0f_0f0f_0f0f;
        let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
        (fours * 10_000 + (fours >> 32)) as u32
    }

    /// Whether it is written as `manage_agents` writes its number: with three digits, or more and no zero in front.
    #[inline]
    pub fn is_usual(&self) -> bool {
        self.length == 3 || (self.length > 3 && self.digits[0] != b'0')
    }
}

impl FromStr for AgentId {
    type Err = AgentIdError;

    fn from_str(text: &str) -> Result<AgentId, AgentIdError> {
        AgentId::from_bytes(text.as_bytes())
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AgentId({})", self.as_str())
    }
}

impl Hash for AgentId {
    /// One word: two ids of different lengths differ in their digits too, since unused digits are zero.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_le_bytes(self.digits));
    }
}

impl Ord for AgentId {
    fn cmp(&self, other: &AgentId) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for AgentId {
    fn partial_cmp(&self, other: &AgentId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why bytes are no agent id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentIdError {
    /// No byte at all.
    Empty,
    /// A byte that is no digit.
    NotDigits,
    /// More than eight digits.
    TooLong,
}

impl fmt::Display for AgentIdError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            AgentIdError::Empty => "the agent id is empty; write 1 to 8 digits",
            AgentIdError::NotDigits => "the agent id is not all digits; write 1 to 8 digits",
            AgentIdError::TooLong => "the agent id is too long; write 1 to 8 digits",
        })
    }
}

impl std::error::Error for AgentIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, number, usual) in [
            ("0", 0, false),
            ("7", 7, false),
            ("42", 42, false),
            ("000", 0, true),
            ("007", 7, true),
            ("0007", 7, false),
            ("1024", 1_024, true),
            ("19900", 19_900, true),
            ("123456", 123_456, true),
            ("0123456", 123_456, false),
            ("12345678", 12_345_678, true),
            ("00000001", 1, false),
            ("99999999", 99_999_999, true),
        ] {
            let id: AgentId = text.parse().unwrap();
            assert_eq!((id.number(), id.is_usual()), (number, usual), "{text}");
        }
    }

    #[test]
    fn ids_are_strings() {
        let id = |text: &str| text.parse::<AgentId>().unwrap();
        assert_ne!(id("001"), id("1"));
        assert_ne!(id("1"), id("0001"));
        assert_ne!(id("0"), id("00"));
        assert_eq!(id("12345678").to_string(), "12345678");
        assert_eq!(format!("{:>5}", id("007")), "  007");
        assert!(id("001") < id("002") && id("01") < id("1"));
        assert_eq!("".parse::<AgentId>(), Err(AgentIdError::Empty));
        assert_eq!("123456789".parse::<AgentId>(), Err(AgentIdError::TooLong));
        assert_eq!("00a".parse::<AgentId>(), Err(AgentIdError::NotDigits));
        assert_eq!("٣".parse::<AgentId>(), Err(AgentIdError::NotDigits));
    }
}
