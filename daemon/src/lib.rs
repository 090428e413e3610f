//! The program ringmaster: shards on cores, sinks, key store, control plane, metrics.
#![forbid(unsafe_code)]

pub mod clock;
pub mod listen;
pub mod mail;
pub mod metrics;
pub mod settings;
pub mod shard;
mod sink;
