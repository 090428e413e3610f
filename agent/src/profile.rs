//! What many agents have in common.

use std::time::Duration;

use codec::{Method, Product};

/// How an agent talks to its manager.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Frames on a connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The behaviour of a kind of agents, shared by all of them.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Whose texts it writes, and whose waits it keeps while it starts.
    pub product: Product,
    /// How it talks.
    pub transport: Transport,
    /// Cipher and dialect of what it sends.
    pub method: Method,
    /// How often it sends a keep-alive.
    pub notify_time: Duration,
    /// How long after the last word from the manager it takes it for gone.
    pub time_reconnect: Duration,
    /// Between two attempts to connect; the first one after a loss is made at once.
    pub reconnect_interval: Duration,
    /// Up to so much is added to the interval at random, so that a fleet does not come back all at once.
    pub reconnect_jitter: Duration,
    /// The first line of its keep-alives: system, host, version. No newline in it.
    pub uname: Box<str>,
    /// The version in a Wazuh agent's start-up.
    pub version: Box<str>,
}

impl Profile {
    /// An OSSEC 4.3.0 agent with its default times.
    pub fn ossec(transport: Transport, method: Method) -> Profile {
        Profile {
            product: Product::Ossec,
            transport,
            method,
            notify_time: Duration::from_secs(600),
            time_reconnect: Duration::from_secs(1_800),
            reconnect_interval: Duration::from_secs(10),
            reconnect_jitter: Duration::ZERO,
            uname: "Linux host 6.1.0 #1 SMP x86_64 - OSSEC HIDS v4.3.0".into(),
            version: "v4.3.0".into(),
        }
    }

    /// A Wazuh 4.14.7 agent with the times that its installer writes.
    pub fn wazuh(transport: Transport, method: Method) -> Profile {
        Profile {
            product: Product::Wazuh,
            transport,
            method,
            notify_time: Duration::from_secs(10),
            time_reconnect: Duration::from_secs(60),
            reconnect_interval: Duration::from_secs(10),
            reconnect_jitter: Duration::ZERO,
            uname:
                "Linux |host |6.1.0 |#1 SMP |x86_64 [Debian GNU/Linux|debian: 12 (bookworm)] - Wazuh v4.14.7"
                    .into(),
            version: "v4.14.7".into(),
        }
    }
}
