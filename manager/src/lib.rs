//! What a manager does with a message: input, time and randomness in; verdict and actions out. No I/O.
//!
//! [`Manager`] is the one thing to know: `receive` a batch, `next_action`, `next_timeout`. Around it:
//! * [`AgentTable`] is who may speak, and [`AgentState`] what is known about each; both are shared by all shards;
//! * [`Verdict`] is what became of a message, [`Counters`] how many there were of each;
//! * [`ReplayState`] decides once across all shards which counter was taken;
//! * [`Deliveries`] is what acknowledged delivery needs across all shards, on a [`Ledger`] that outlives them.
#![forbid(unsafe_code)]

mod action;
mod answer;
mod connections;
mod counters;
mod deliver;
mod delivery;
mod ids;
mod manager;
mod notice;
mod rate;
mod receive;
mod replay;
mod senders;
mod settings;
mod state;
mod table;
mod time;
mod verdict;

pub use action::{Action, ConnectionId, ShardId};
pub use answer::{NotSent, Way};
pub use counters::{Counters, DroppedFrom, DroppedLast, RefusedLast};
pub use delivery::{Deliveries, Ledger, LedgerFull, SINKS_MAX, SinkSet, Ticket};
pub use manager::{Admission, Incoming, Manager, ManagerParts, Peer, Publish, Published, SinkFull};
pub use notice::{Notice, VERSION_BYTES_MAX};
pub use replay::{REPLAY_WINDOW, ReplayPolicy, ReplayState, Replayed};
pub use senders::SenderCounter;
pub use settings::{CryptoAccept, Settings};
pub use state::{AgentState, Owner, RETURN_PATH_LIFETIME, Transport};
pub use table::{Agent, AgentTable, CounterSeed};
pub use time::Time;
pub use verdict::{CloseReason, ControlKind, Reason, Refusal, Verdict};
