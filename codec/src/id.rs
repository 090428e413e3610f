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
