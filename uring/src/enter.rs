//! The two system calls that the `io-uring` crate does not make the way a turn needs them.
//!
//! Its `Submitter` forgets the registered index of the ring's descriptor when it is dropped, and it borrows the ring.
//! Here the index is kept with the ring, so the one `io_uring_enter` a turn looks no descriptor up.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;
use std::{io, ptr};

use io_uring::EnterFlags;
use rustix::io::Errno;

const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// How `io_uring_enter` finds the ring.
#[derive(Debug)]
pub(crate) struct Enter {
    ring: RawFd,
    /// The ring's index among the thread's registered rings; `None` when all of the thread's 16 places are taken.
    registered: Option<u32>,
}

/// What one call does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) submit: u32,
    pub(crate) completions_min: u32,
    pub(crate) min_wait: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct Argument {
    signal_mask: u64,
    signal_mask_bytes: u32,
    min_wait_microseconds: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

const _: () =
    assert!(size_of::<Argument>() == 24 && size_of::<Timespec>() == 16 && size_of::<Update>() == 16);

impl Enter {
    /// Registers the ring with the calling thread, if the thread has a place for it.
    pub(crate) fn new(ring: BorrowedFd<'_>) -> Enter {
        let ring = ring.as_raw_fd();
        let mut update = Update { offset: u32::MAX, reserved: 0, data: u64::from(ring.cast_unsigned()) };
        let registered = register(ring, REGISTER_RING_FDS, &mut update).is_ok();
        Enter { ring, registered: registered.then_some(update.offset) }
    }

    /// Submits and waits: `Ok` with the number of submissions consumed.
    #[inline]
    pub(crate) fn call(&self, call: Call) -> Result<u32, Errno> {
        let timeout = call.timeout.map(|timeout| Timespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        });
        let argument = Argument {
            signal_mask: 0,
            signal_mask_bytes: 0,
            min_wait_microseconds: call
                .min_wait
                .map_or(0, |wait| u32::try_from(wait.as_micros()).unwrap_or(u32::MAX)),
            timeout: timeout.as_ref().map_or(0, |timeout| ptr::from_ref(timeout).expose_provenance() as u64),
        };
        // GETEVENTS always: only then does a ring with deferred task work run it.
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let (ring, flags) = match self.registered {
            Some(index) => (index.cast_signed(), flags | EnterFlags::REGISTERED_RING),
            None => (self.ring, flags),
        };
        // SAFETY: `argument` and the time it points to live until the call returns, and have the kernel's layout
        // (asserted above). What the submissions point to is kept by the ring's in-flight table.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                call.submit,
                call.completions_min,
                flags.bits(),
                ptr::from_ref(&argument),
                size_of::<Argument>(),
            )
        };
        returned(result)
    }

    /// Takes back the registration, which would keep the ring alive until the thread's end.
    pub(crate) fn unregister(&mut self) {
        if let Some(offset) = self.registered.take() {
            let mut update = Update { offset, reserved: 0, data: 0 };
            register(self.ring, UNREGISTER_RING_FDS, &mut update).expect("the index is this thread's own");
        }
    }
}

fn register(ring: RawFd, operation: libc::c_uint, update: &mut Update) -> Result<u32, Errno> {
    // SAFETY: `update` has the kernel's layout (asserted above) and lives until the call returns; one is what it is.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, operation, ptr::from_mut(update), 1 as libc::c_uint)
    };
    returned(result)
}

#[inline]
fn returned(result: libc::c_long) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| errno(&io::Error::last_os_error()))
}

/// The number of an error that came from a system call.
#[cold]
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).expect("a failed system call has an error number")
}
