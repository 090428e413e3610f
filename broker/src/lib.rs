//! The broker: reliable delivery for agents that stay as they are.
//!
//! `ringmaster-broker client` stands beside agents, takes their UDP packets, and keeps them on disk while the manager is away;
//! `ringmaster-broker server` stands beside the manager, any manager. One TCP connection is between them. What is sealed
//! stays sealed: neither has any key. docs/DELIVERY.md says what that promises, and what it does not.
//!
//! What decides is without sockets and clocks: [`client`], [`server`], [`mod@line`], [`backlog`], [`health`]; [`run`] is what
//! connects them.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod backoff;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod health;
pub mod key;
pub mod line;
pub mod options;
pub mod run;
pub mod server;
pub mod sockets;
pub mod tls;
pub mod wire;
