//! What is asked of the manager.

use clap::ValueEnum;
use codec::{Method, Sealer};
use serde::Serialize;

use crate::{log_line, seal_one, shared_keys};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// Texts sealed to find out how long their messages are.
const SAMPLE: usize = 200;

/// A fleet, what it says, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// Agents.
    pub agents: u64,
    /// Events a second of each.
    pub events_a_second_each: f64,
    /// Bytes of an event's text, location included.
    pub text_bytes: u64,
    /// Bytes of an event's message on the wire, id prefix included, without TCP's length.
    pub message_bytes: u64,
    /// How messages are encrypted.
    pub cipher: Cipher,
    /// The protocol that was asked for; the plan has both.
    pub protocol: Protocol,
    /// Where events go.
    pub sink: Sink,
    /// The share of each core that is to be left free: 0.5 leaves half.
    pub margin: f64,
    /// Cores that there are.
    pub cores: u64,
}

/// A cipher of the channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cipher {
    /// AES-256.
    Aes,
    /// Blowfish.
    Blowfish,
}

/// A protocol of the channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Frames on connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where events go.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sink {
    /// The archive as text.
    Archive,
    /// analysisd's queue socket.
    QueueSocket,
}

impl Demand {
    /// Events a second of the whole fleet.
    pub fn events_a_second(&self) -> f64 {
        self.agents as f64 * self.events_a_second_each
    }

    /// How long the message of a text of `text_bytes` is, as a real agent's: the mean of a sample of log lines, sealed.
    pub fn message_bytes_of(text_bytes: u64, cipher: Cipher) -> u64 {
        const ID_PREFIX_BYTES: usize = "!00000!".len();
        let method = match cipher {
            Cipher::Aes => Method::AesOssec,
            Cipher::Blowfish => Method::Blowfish,
        };
        let keys = shared_keys(1, method);
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let (mut sealer, mut bytes) = (Sealer::new(), Vec::new());
        for sequence in 0..SAMPLE {
            let line = log_line(&mut random, sequence, usize::try_from(text_bytes).unwrap_or(usize::MAX));
            seal_one(&mut sealer, &keys[0], method, &line, &mut bytes);
        }
        (bytes.len() / SAMPLE + ID_PREFIX_BYTES) as u64
    }
}

impl Cipher {
    /// As a bench's name and the table have it.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes => "aes",
            Cipher::Blowfish => "blowfish",
        }
    }
}

impl Protocol {
    /// Both, in the order in which they are shown.
    pub const ALL: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

    /// As a bench's name and the table have it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl Sink {
    /// As a bench's name and the table have it.
    pub fn name(self) -> &'static str {
        match self {
            Sink::Archive => "archive",
            Sink::QueueSocket => "queue-socket",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_about_as_long_as_its_text() {
        let short = Demand::message_bytes_of(200, Cipher::Blowfish);
        let long = Demand::message_bytes_of(600, Cipher::Blowfish);
        assert!((180..300).contains(&short) && short < long && long < 600, "{short} {long}");
        let aes = Demand::message_bytes_of(200, Cipher::Aes);
        assert!(aes > short, "the vector, the longer token and the greater blocks: {aes} {short}");
    }
}
