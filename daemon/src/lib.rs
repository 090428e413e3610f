//! The program ringmaster: shards on cores, sinks, key store, control plane, metrics.
#![forbid(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod command;
pub mod conditions;
pub mod control;
pub mod counters_store;
pub mod delivery;
pub mod exposition;
pub mod home;
pub mod keys_command;
pub mod listen;
pub mod logging;
pub mod mail;
pub mod metrics;
pub mod ossec_conf;
pub mod outward;
pub mod readiness;
pub mod registry;
mod rids;
pub mod run;
pub mod service;
pub mod settings;
pub mod shard;
mod sink;
pub mod totals;
pub mod tune;

pub use run::{run, run_from};
#[cfg(feature = "scripted")]
pub use sink::HandPumpedSinks;
