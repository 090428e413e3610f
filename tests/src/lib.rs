//! Simulation, end to end on loopback, interoperability vectors, tidy.
#![forbid(unsafe_code)]
