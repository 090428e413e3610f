//! The program ringmaster: shards on cores, sinks, key store, control plane, metrics.
#![forbid(unsafe_code)]
