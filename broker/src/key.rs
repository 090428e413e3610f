//! By what an agent is known: the digits of its `!id!`, else where it comes from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use codec::{AgentId, Wire, WireError, classify};

/// Longest key in its written form.
pub const KEY_BYTES_MAX: usize = 48;

/// An agent, as far as its ciphertext tells. Written, it is the name of its folder.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum LineKey {
    /// It says its id in front of each message.
    Id(AgentId),
    /// It says nothing: the manager knows it by its address. Never by its port, which changes at each of its starts.
    Address(IpAddr),
}

impl LineKey {
    /// Whose this datagram is.
    ///
    /// # Errors
    /// If it is no message of an agent.
    pub fn of(datagram: &[u8], from: SocketAddr) -> Result<LineKey, WireError> {
        Ok(match classify(datagram)? {
            Wire::Id { id, sealed: _ } => LineKey::Id(id),
            Wire::Address { sealed: _ } | Wire::Ping => LineKey::Address(from.ip().to_canonical()),
        })
    }
}

impl fmt::Display for LineKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineKey::Id(id) => formatter.pad(id.as_str()),
            LineKey::Address(address) => formatter.pad(&format!("ip-{address}")),
        }
    }
}

/// A text that is no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LineKeyError;

impl FromStr for LineKey {
    type Err = LineKeyError;

    fn from_str(text: &str) -> Result<LineKey, LineKeyError> {
        let key = match text.strip_prefix("ip-") {
            Some(address) => LineKey::Address(address.parse().map_err(|_| LineKeyError)?),
            None => LineKey::Id(text.parse().map_err(|_| LineKeyError)?),
        };
        // One way to write each, so that none has two folders.
        (key.to_string() == text).then_some(key).ok_or(LineKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_datagrams_are() {
        let check = |datagram: &[u8], from: &str, expected: Option<&str>| {
            let key = LineKey::of(datagram, from.parse().unwrap()).ok();
            assert_eq!(key.map(|key| key.to_string()).as_deref(), expected, "{datagram:?} from {from}");
        };
        check(b"!001!:abc", "127.0.0.1:1000", Some("001"));
        check(b"!1!#AES:abc", "127.0.0.1:1000", Some("1"));
        check(b":abc", "192.0.2.1:1", Some("ip-192.0.2.1"));
        check(b":abc", "192.0.2.1:2", Some("ip-192.0.2.1"));
        check(b":abc", "[::ffff:192.0.2.1]:2", Some("ip-192.0.2.1"));
        check(b"#AES:abc", "[2001:db8::1]:2", Some("ip-2001:db8::1"));
        check(b"!../x!:abc", "192.0.2.1:2", None);
        check(b"abc", "192.0.2.1:2", None);
        check(b"", "192.0.2.1:2", None);
    }

    #[test]
    fn a_folder_has_one_key_and_a_key_one_folder() {
        for text in ["001", "1", "12345678", "ip-127.0.0.1", "ip-::1"] {
            assert_eq!(text.parse::<LineKey>().map(|key| key.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "ip-", "123456789", "a", "..", "ip-..", "ip-0:0:0::1", "ip-127.0.0.01", "001 "] {
            assert_eq!(text.parse::<LineKey>(), Err(LineKeyError), "{text}");
        }
        let longest: LineKey = "ip-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert!(longest.to_string().len() <= KEY_BYTES_MAX);
    }
}
