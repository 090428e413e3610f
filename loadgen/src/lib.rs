//! A fleet of simulated agents against any manager of OSSEC or Wazuh agents, and the account of every event.
//!
//! Top to bottom: what was asked ([`cli`], [`values`]) and how a run goes ([`run`], [`conductor`]); when who says what ([`plan`],
//! [`lines`], [`members`], [`seal_ahead`], [`stock`], [`leg`]); the fleet that says it ([`crew`], [`fleet`], [`links`],
//! [`pacing`], [`account`], and who plays what); what arrived ([`reader`], [`tally`]); the manager ([`managed`], [`embedded`]) and what the
//! kernel and it say of itself ([`meter`], [`proc`], [`metrics`]); what to make of it all ([`outcome`], [`report`], and
//! its table). Above all that, [`compare`] plays many legs and sets TCP against UDP;
//! [`outage`] plays a few agents through a cut and says what became of each event; [`syslog`] plays a device that has
//! no agent.
#![forbid(unsafe_code)]

pub mod account;
mod casting;
pub mod cli;
pub mod compare;
pub mod conductor;
pub mod cores;
pub mod crew;
pub mod embedded;
pub mod fleet;
pub mod leg;
pub mod lines;
pub mod links;
pub mod managed;
pub mod members;
pub mod meter;
pub mod metrics;
pub mod outage;
pub mod outcome;
pub mod pacing;
pub mod plan;
pub mod proc;
pub mod progress;
pub mod reader;
pub mod report;
pub mod run;
pub mod seal_ahead;
pub mod stock;
pub mod syslog;
mod table;
pub mod tally;
pub mod values;
