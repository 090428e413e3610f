//! The codec's own kernels: what a library does at less than three quarters of their speed, and nothing else.
//!
//! Each has the crate that it stands in for as its oracle: the tests, the fuzz targets and the benches compare the two.

pub mod blowfish;
pub(crate) mod cpu;
pub mod inflate;
pub mod md5;
