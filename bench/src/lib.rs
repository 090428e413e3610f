//! Criterion benches and, later, the capacity planner.
#![forbid(unsafe_code)]
