//! What comes back from the kernel.

use std::net::SocketAddr;

use bytes::Bytes;
use rustix::io::Errno;

use crate::lease::Lease;
use crate::tag::Tag;

/// Whether the operation that made a completion will make more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an operation that ended must be armed again or forgotten"]
pub enum Armed {
    /// It ended: this was its last completion, and its memory is ours again.
    No,
    /// It goes on.
    Still,
}

/// One completion. Data and termination are independent: a last completion may carry a buffer.
#[derive(Debug)]
#[must_use = "a completion may carry a lease, and says whether its operation goes on"]
pub struct Completion {
    /// What the caller called the operation (or what another ring's message says).
    pub tag: Tag,
    /// What the system call would have returned: bytes, poll events, a message's value, or 0.
    pub result: Result<u32, Errno>,
    /// The buffer that a receive filled. Look at it, then give it back.
    pub lease: Option<Lease>,
    /// Whether more completions follow.
    pub armed: Armed,
    /// A send's or write's bytes, back with its last completion: what a partial send has not sent is
    /// `bytes.slice(sent..)`.
    pub bytes: Option<Bytes>,
    /// The peer of an accepted connection.
    pub peer: Option<SocketAddr>,
}
