//! The program `ringmaster`, end to end: started as an operator starts it, driven over loopback by agents made of codec
//! and the standard library's sockets, and asked over HTTP.
//!
//! Nothing here sleeps or measures time. What is waited for is a line of the log, an answer, or a number of `/metrics`;
//! each wait has a bound, after which the test fails.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test, helpers included")]

mod agent;
mod agents;
mod commands;
mod counters;
mod delivery;
mod edges;
mod in_place;
mod inherited;
mod installation;
mod keys;
mod outward;
mod program;
mod reload;
mod restart;
mod rights;
mod service;
mod stall;
mod traffic;
