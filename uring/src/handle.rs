//! What others hold of a ring: its descriptor, a way to wake it, and a way to be woken by it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::op::{Interest, Op, Shots, Target};

/// A ring's descriptor, for messages to it ([`Op::Message`]).
#[derive(Clone, Debug)]
pub struct RingHandle(Arc<OwnedFd>);

impl RingHandle {
    pub(crate) fn new(descriptor: OwnedFd) -> RingHandle {
        RingHandle(Arc::new(descriptor))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn into_descriptor(self) -> Arc<OwnedFd> {
        self.0
    }
}

/// Tells when a ring has something to do, so that a thread with two rings can wait on one for both.
///
/// An eventfd that the kernel signals for the watched ring. (To poll the ring's own descriptor is not enough: a ring
/// with deferred task work does not wake who polls it. Measured on 6.18.)
#[derive(Debug)]
pub struct RingWatch {
    event: Arc<OwnedFd>,
}

impl RingWatch {
    pub(crate) fn new() -> Result<RingWatch, Errno> {
        // Not nonblocking: a read of such a descriptor would fail at once, where this one waits.
        Ok(RingWatch { event: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?) })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The operation, for the waiting ring, that completes once when the watched ring has something to do.
    ///
    /// After its completion: push it again, [wait](crate::Ring::wait) on the watched ring for nothing
    /// (`Wait::default()`), and pop. It may complete once more than there was something to do.
    #[must_use]
    pub fn read(&self) -> Op {
        Op::ReadEvent { event: Arc::clone(&self.event) }
    }
}

/// A ring's end of its wakers: the ring polls it, any thread wakes it.
#[derive(Debug)]
pub struct Wakeup {
    shared: Arc<Shared>,
}

/// Wakes the thread of a ring, from any thread. Wakes between two turns of the ring cost one system call together.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: Arc<OwnedFd>,
    /// Whether somebody woke the ring since it last looked.
    pending: AtomicBool,
}

impl Wakeup {
    /// A new eventfd.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when the process or the host has no descriptor left.
    pub fn new() -> Result<Wakeup, Errno> {
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Wakeup { shared: Arc::new(Shared { event, pending: AtomicBool::new(false) }) })
    }

    /// The poll that completes for each wake-up. It is edge-triggered, so nobody reads the eventfd. Push it again
    /// when it says `Armed::No`.
    #[must_use]
    pub fn poll(&self) -> Op {
        let target = Target::Descriptor(Arc::clone(&self.shared.event));
        Op::Poll { target, interest: Interest::Readable, shots: Shots::Many }
    }

    /// To be called after a completion of the poll and *before* looking at what the wakers left: what comes later
    /// wakes again.
    pub fn clear(&self) {
        self.shared.pending.swap(false, Ordering::AcqRel);
    }

    /// A waker for another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }
}

impl Waker {
    /// Wakes the ring. To be called *after* leaving what it shall look at.
    pub fn wake(&self) {
        if self.shared.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        // The counter has room for 2^64 - 2 wake-ups, so the write can't fail; and there is nothing to do if it did.
        let _ = rustix::io::write(&*self.shared.event, &1_u64.to_ne_bytes());
    }
}
