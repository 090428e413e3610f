//! What an operator can choose about the manager, with its defaults.

use std::time::Duration;

use codec::Cipher;

use crate::replay::ReplayPolicy;

/// Settings of one shard's manager. Limits are for each shard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Which ciphers agents may use.
    pub crypto_accept: CryptoAccept,
    /// What is done about repeated and reordered counters.
    pub replay: ReplayPolicy,
    /// Largest message, sealed or opened, in bytes.
    pub message_bytes_max: usize,
    /// Whether OSSEC's format before version 2 (plain text that begins with `:`) is accepted.
    pub old_format: bool,
    /// How long a connection may take until its first genuine message.
    pub unauthenticated_deadline: Duration,
    /// How many connections one source address may have that are not authenticated yet.
    pub unauthenticated_per_address_max: u32,
    /// How many connections may be not authenticated yet.
    pub unauthenticated_max: u32,
    /// How many connections there may be.
    pub connections_max: u32,
    /// How long an authenticated connection may be silent. By default 3 x 600 + 30 s: the time after which both
    /// products themselves call an agent disconnected, whose keep-alives come every 600 s at the most.
    pub silent_deadline: Duration,
    /// How often an agent whose connection is paused gets an acknowledgement that it did not ask for, so that it
    /// does not take back-pressure for a dead manager. Below the shortest time-reconnect in use (Wazuh: 60 s).
    pub paused_acknowledgement_interval: Duration,
    /// Whether an agent that says that it goes away raises an event of the manager's own, as Wazuh's does.
    pub announces_stops: bool,
    /// How many events a second one agent may send; 0: any number.
    pub events_per_second_max: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            crypto_accept: CryptoAccept::Both,
            replay: ReplayPolicy::Strict,
            message_bytes_max: codec::limits::MESSAGE_BYTES_MAX,
            old_format: false,
            unauthenticated_deadline: Duration::from_secs(10),
            unauthenticated_per_address_max: 1_024,
            unauthenticated_max: 16_384,
            connections_max: 100_000,
            silent_deadline: Duration::from_secs(3 * 600 + 30),
            paused_acknowledgement_interval: Duration::from_secs(10),
            announces_stops: false,
            events_per_second_max: 0,
        }
    }
}

/// OSSEC's `<crypto_accept>`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CryptoAccept {
    /// AES only, either dialect.
    Aes,
    /// Blowfish only.
    Blowfish,
    /// Whatever the agent chose.
    #[default]
    Both,
}

impl CryptoAccept {
    /// Whether messages sealed with `cipher` are accepted.
    pub const fn accepts(self, cipher: Cipher) -> bool {
        match self {
            CryptoAccept::Aes => matches!(cipher, Cipher::Aes),
            CryptoAccept::Blowfish => matches!(cipher, Cipher::Blowfish),
            CryptoAccept::Both => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_accept() {
        for (setting, aes, blowfish) in [
            (CryptoAccept::Aes, true, false),
            (CryptoAccept::Blowfish, false, true),
            (CryptoAccept::Both, true, true),
        ] {
            assert_eq!(setting.accepts(Cipher::Aes), aes, "{setting:?}");
            assert_eq!(setting.accepts(Cipher::Blowfish), blowfish, "{setting:?}");
        }
    }
}
