//! What is tested over crate boundaries, in one binary.

mod tidy;
