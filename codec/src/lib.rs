//! Bytes to types and back: the secure message, its ciphers, frames, keys, control messages, events. No I/O, no clock.
#![forbid(unsafe_code)]
