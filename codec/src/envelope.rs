//! From the first bytes of a message: who says it.

use crate::control::PING;
use crate::id::AgentId;
use std::fmt;

/// A message as its first bytes tell it.
///
/// ```text
/// "#ping"                        Ping        a probe, not encrypted
/// "!" digits "!"  ":" ...        Id          the agent says who it is
///                 ":" ...        Address     the agent is known by where it comes from
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// From the agent that the source address belongs to; `sealed` begins with `:` or `#AES:`.
    Address {
        /// Token and ciphertext.
        sealed: &'a [u8],
    },
    /// From the agent that has this id, if its address admits the source; `sealed` begins with `:` or `#AES:`.
    Id {
        /// Who the agent says it is.
        id: AgentId,
        /// Token and ciphertext.
        sealed: &'a [u8],
    },
    /// From anyone: answer with `#pong`.
    Ping,
}

/// Tells what a received message is.
///
/// # Errors
/// If it is empty, if its id is none, or if neither `:` nor `#AES:` follows.
///
/// Source: ossec-hids 4.3.0 `remoted/secure.c`, `HandleSecure`; wazuh v4.14.7 `remoted/secure.c`, `HandleSecureMessage`.
pub fn classify(message: &[u8]) -> Result<Wire<'_>, WireError> {
    match message {
        [] => Err(WireError::Empty),
        [b'!', rest @ ..] => {
            let end = rest.iter().position(|byte| !byte.is_ascii_digit()).ok_or(WireError::Id)?;
            let sealed = rest[end..].strip_prefix(b"!").ok_or(WireError::Id)?;
            let id = AgentId::from_bytes(&rest[..end]).map_err(|_| WireError::Id)?;
            Ok(Wire::Id { id, sealed: with_token(sealed)? })
        }
        _ if message.starts_with(PING) => Ok(Wire::Ping),
        _ => Ok(Wire::Address { sealed: with_token(message)? }),
    }
}

fn with_token(sealed: &[u8]) -> Result<&[u8], WireError> {
    let token = sealed.starts_with(b":") || sealed.starts_with(b"#AES:");
    token.then_some(sealed).ok_or(WireError::Token)
}

/// Why a message is none, by its first bytes. All are OSSEC's log number 1403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Nothing.
    Empty,
    /// It begins with `!`, but no id and `!` follow.
    Id,
    /// Neither `:` nor `#AES:` where the encrypted part should begin.
    Token,
}

impl fmt::Display for WireError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            WireError::Empty => "the message is empty",
            WireError::Id => "the message has no agent id of 1 to 8 digits between its exclamation marks",
            WireError::Token => {
                "the message has neither ':' nor '#AES:' where its encrypted part should begin"
            }
        })
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        let check = |message: &'static [u8], expected: Result<Wire<'static>, WireError>| {
            assert_eq!(classify(message), expected, "{message:?}");
        };
        let id = |digits: &[u8], sealed| Wire::Id { id: AgentId::from_bytes(digits).unwrap(), sealed };
        check(b"!001!:abc", Ok(id(b"001", b":abc")));
        check(b"!12345678!#AES:x", Ok(id(b"12345678", b"#AES:x")));
        check(b":", Ok(Wire::Address { sealed: b":" }));
        check(b"#AES:", Ok(Wire::Address { sealed: b"#AES:" }));
        check(b"#ping", Ok(Wire::Ping));
        check(b"", Err(WireError::Empty));
        check(b"!", Err(WireError::Id));
        check(b"!!:", Err(WireError::Id));
        check(b"!001", Err(WireError::Id));
        check(b"!00a!:", Err(WireError::Id));
        check(b"!123456789!:", Err(WireError::Id));
        check(b"!001!", Err(WireError::Token));
        check(b"!001!#AES", Err(WireError::Token));
        check(b"!001!x", Err(WireError::Token));
        check(b"!001!#ping", Err(WireError::Token));
        check(b"#pong", Err(WireError::Token));
        check(b"#!-agent startup ", Err(WireError::Token));
        check(b"x", Err(WireError::Token));
    }

    #[test]
    fn every_cut_of_a_message_has_an_answer() {
        for length in 0..b"!001!#AES:".len() {
            assert!(classify(&b"!001!#AES:"[..length]).is_err(), "{length}");
        }
    }
}
