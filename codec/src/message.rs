//! The secure message: what it is made of. [`crate::Opener`] and [`crate::Sealer`] take it apart and put it together.
//!
//! ```text
//! wire   [ "!" id "!" ]  ":" or "#AES:"  [ vector: 16, OSSEC's AES only ]  ciphertext
//! plain  "!" * n  zlib stream                       n = 1..=8, to a multiple of 8; for AES, PKCS#7 to 16 on top
//! inside the stream:
//!        | md5hex of the rest: 32 | random: 5 | global: 10 | ":" | local: 4 | ":" | text |
//! ```

use crate::cipher::Method;
use crate::id::AgentId;
use crate::limits::LOCAL_COUNTER_MAX;
use crate::text::decimal;
use std::fmt;

/// What a sender says with one message.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The id in front, which an agent writes if its address is no single host. A manager writes none.
    pub id_prefix: Option<AgentId>,
    /// Cipher and dialect.
    pub method: Method,
    /// Five digits that C receivers don't read. C senders write 0..=65,535; up to 99,999 can be written.
    pub random: u32,
    /// The sender's number for the message.
    pub counter: Counter,
    /// Sent in front of the ciphertext by [`Method::AesOssec`], unused by others. Must be random.
    pub initialization_vector: [u8; 16],
    /// What is said.
    pub text: &'a [u8],
}

/// The number of a message: it must grow from one to the next.
///
/// The local part counts to 9,997, then the global part moves. Written `global:local:` in the files of queue/rids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// The part that counts most.
    pub global: u32,
    /// The part that moves with each message.
    pub local: u16,
}

impl Counter {
    /// Before the first message.
    pub const ZERO: Counter = Counter { global: 0, local: 0 };

    /// The number of the sender's next message. After the last global number it begins anew, as the C programs do.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `CreateSecMSG`.
    #[must_use]
    pub fn next(self) -> Counter {
        if self.local >= LOCAL_COUNTER_MAX {
            Counter { global: self.global.wrapping_add(1), local: 1 }
        } else {
            Counter { global: self.global, local: self.local + 1 }
        }
    }

    /// Both parts in one number of the same order: global in bits 16..48, local in bits 0..16.
    pub fn as_u64(self) -> u64 {
        (u64::from(self.global) << 16) | u64::from(self.local)
    }

    /// The counter that [`Counter::as_u64`] gave this number for; bits above 48 are ignored.
    pub fn from_u64(packed: u64) -> Counter {
        Counter { global: (packed >> 16) as u32, local: packed as u16 }
    }

    /// The counter of a file in queue/rids: `global:local`; what follows is ignored, since the C programs don't truncate.
    ///
    /// # Errors
    /// If the file doesn't begin so. An empty one is none either.
    pub fn parse(file: &[u8]) -> Result<Counter, CounterError> {
        let mut parts = file.splitn(3, |byte| *byte == b':');
        let global = parts.next().and_then(decimal).ok_or(CounterError)?;
        let local = parts.next().ok_or(CounterError)?;
        let digits = local.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(local.len());
        let local =
            decimal(&local[..digits]).and_then(|local| u16::try_from(local).ok()).ok_or(CounterError)?;
        Ok(Counter { global, local })
    }
}

impl fmt::Display for Counter {
    /// As the files of queue/rids have it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:", self.global, self.local)
    }
}

/// A file of queue/rids that holds no counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterError;

impl fmt::Display for CounterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("no counter of the form 'global:local:'; delete the file to begin anew")
    }
}

impl std::error::Error for CounterError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_local_part_wraps_at_9997() {
        let counter = |global, local| Counter { global, local };
        assert_eq!(Counter::ZERO.next(), counter(0, 1));
        assert_eq!(counter(0, 9_996).next(), counter(0, 9_997));
        assert_eq!(counter(0, 9_997).next(), counter(1, 1));
        assert_eq!(counter(7, 65_535).next(), counter(8, 1));
        assert_eq!(counter(u32::MAX, 9_997).next(), counter(0, 1));
    }

    #[test]
    fn files_of_rids() {
        let check = |file: &[u8], expected| assert_eq!(Counter::parse(file).ok(), expected, "{file:?}");
        check(b"12:345:", Some(Counter { global: 12, local: 345 }));
        check(b"12:345:678:", Some(Counter { global: 12, local: 345 }));
        check(b"12:345", Some(Counter { global: 12, local: 345 }));
        check(b"12:345\n", Some(Counter { global: 12, local: 345 }));
        check(b"4294967295:9997:", Some(Counter { global: u32::MAX, local: 9_997 }));
        check(b"4294967296:1:", None);
        check(b"1:65536:", None);
        check(b"", None);
        check(b"12", None);
        check(b"12:", None);
        check(b"-1:2:", None);
    }

    proptest! {
        #[test]
        fn counters_come_back(global: u32, local: u16, other_global: u32, other_local: u16) {
            let (one, other) = (Counter { global, local }, Counter { global: other_global, local: other_local });
            prop_assert_eq!(Counter::from_u64(one.as_u64()), one);
            prop_assert_eq!(one.as_u64().cmp(&other.as_u64()), one.cmp(&other));
            prop_assert_eq!(Counter::parse(one.to_string().as_bytes()), Ok(one));
        }
    }
}
