//! What is tested over crate boundaries, in one binary.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, which clippy cannot tell in this kind of target"
)]

mod delivery;
mod packages;
mod simulation;
mod tidy;
mod vectors;
