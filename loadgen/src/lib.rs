//! The program loadgen: a fleet of simulated agents against any manager.
#![forbid(unsafe_code)]
