//! Shards on loopback: everything from an agent's socket to analysisd's.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod bed;
mod delivery;
mod overtaking;
mod pressure;
mod proxy;
mod rates;
mod stopping;
mod strangers;
mod syslog;
