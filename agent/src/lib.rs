//! The other end of the protocol, sans-IO: start-up, keep-alives, time-reconnect, lock.
#![forbid(unsafe_code)]
