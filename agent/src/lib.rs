//! The other end of the protocol: an agent as a state machine. Input, time and randomness in; outputs out. No I/O.
//!
//! [`Agent`] is small, so that tens of thousands fit into one thread; what they share is in [`Tools`] and [`Profile`].
//!
//! [`engine::Engine`] is what `ringmaster-agent` makes of one: with a spool on disk between its collectors and its manager.
#![forbid(unsafe_code)]

mod agent;
pub mod engine;
mod profile;
mod tools;

pub use crate::agent::{Agent, AgentSettings, Ignored, SharedFiles, State, SubmitError};
pub use crate::profile::{Profile, Transport};
pub use crate::tools::{Output, Tools};
