//! What the benches have in common: fleets of keys, messages as real agents send them, the C routines' equivalents, one
//! configuration; and the capacity planner that reads what the benches found.
//!
//! Two traps are avoided here (docs of each item): a few messages in rotation train the branch predictor and flatter
//! inflate, and one agent's key schedule stays in the cache, which 20,000 agents' do not.
#![forbid(unsafe_code)]

pub mod c_equivalent;
pub mod capacity;
mod fleet;
mod harness;
mod messages;

pub use fleet::{fleet_entries, fleet_keys, fleet_table, shared_keys};
pub use harness::{bench_with, cores_apart, criterion, fleet_size, is_test, label, thread_time};
pub use messages::{
    Batches, MESSAGES_IN_ROTATION, Message, events_of, log_line, rotation, seal_for, seal_one,
};
