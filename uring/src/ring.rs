//! The ring: push operations, wait once a turn, pop completions.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use io_uring::{IoUring, cqueue, squeue};
use rustix::io::Errno;

use crate::buf_ring::{BufferRing, BufferSettings};
use crate::completion::{Armed, Completion};
use crate::datagram::{self, Datagram, DatagramError};
use crate::enter::{Call, Enter, errno};
use crate::handle::{RingHandle, RingWatch};
use crate::in_flight::EntryId;
use crate::lease::{GroupId, Lease};
use crate::memories::{Memories, bare};
use crate::op::{self, Op};
use crate::slots::DirectSlot;
use crate::tag::{Origin, Tag};
use crate::unsupported::{Step, Unsupported};

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// Operations pushed between two waits before a push submits on its own. The kernel rounds it up to a power of two.
    pub submissions: u32,
    /// Completions that the kernel can post between two waits: see [`completions_needed`].
    pub completions: u32,
    /// Entries of the table of direct descriptors; at most `RLIMIT_NOFILE`.
    pub direct_descriptors: u32,
}

/// How many completions a ring should have room for, so that the kernel never has to keep one back: four for each
/// buffer (a turn may see a buffer filled, given back and filled again), two for each connection.
#[must_use]
pub const fn completions_needed(buffers: u32, connections: u32) -> u32 {
    4 * buffers + 2 * connections
}

/// What a turn waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// How many completions end the wait; with 0 it does not wait.
    pub completions_min: u32,
    /// After this long, one completion is enough. Kernels before 6.12 know no such time: there, the wait ends then with
    /// whatever came, and be it nothing.
    pub min_wait: Option<Duration>,
    /// After this long, none is needed; `None`: wait for ever.
    pub timeout: Option<Duration>,
}

/// One io_uring, of one thread: the one that made it.
///
/// Invariant: whatever the kernel may still read or write is in `memory`, which is freed only with nothing in flight.
pub struct Ring {
    uring: ManuallyDrop<IoUring>,
    enter: Enter,
    pub(crate) memory: ManuallyDrop<Memories>,
    /// The process's number for this ring, by which a lease knows it.
    number: u32,
    pub(crate) in_flight: u32,
    enters: u64,
    stale: u64,
    overflows: u64,
    has_min_wait: bool,
    /// What stands in the kernel's place, if something does.
    #[cfg(feature = "scripted")]
    pub(crate) script: Option<crate::scripted::Script>,
    /// Not `Send`: the kernel refuses any thread but the one that made the ring (`IORING_SETUP_SINGLE_ISSUER`).
    of_one_thread: PhantomData<Rc<()>>,
}

/// What [`Ring::drain`] could not end in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimedOut {
    /// Operations still in flight.
    pub in_flight: u32,
}

impl Ring {
    /// A ring with `IORING_SETUP_SINGLE_ISSUER` and `IORING_SETUP_DEFER_TASKRUN`, an empty table of direct
    /// descriptors, and its descriptor registered with this thread.
    ///
    /// # Errors
    ///
    /// What this host lacks, with its cure.
    pub fn new(settings: &RingSettings) -> Result<Ring, Unsupported> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(settings.completions)
            .build(settings.submissions)
            .map_err(|error| Unsupported::of(Step::Setup, &error))?;
        if settings.direct_descriptors > 0 {
            let step = Step::DirectDescriptors { count: settings.direct_descriptors };
            let registered = uring.submitter().register_files_sparse(settings.direct_descriptors);
            registered.map_err(|error| Unsupported::of(step, &error))?;
        }
        let memory = Memories::new(settings.submissions as usize);
        static RINGS: AtomicU32 = AtomicU32::new(0);
        Ok(Ring {
            enter: Enter::new(descriptor(&uring)),
            has_min_wait: uring.params().is_feature_min_timeout(),
            uring: ManuallyDrop::new(uring),
            memory: ManuallyDrop::new(memory),
            number: RINGS.fetch_add(1, Ordering::Relaxed),
            in_flight: 0,
            enters: 0,
            stale: 0,
            overflows: 0,
            #[cfg(feature = "scripted")]
            script: None,
            of_one_thread: PhantomData,
        })
    }

    /// Adds a group of buffers to receive into.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory for it, or does not know buffer rings.
    ///
    /// # Panics
    ///
    /// If the count is not a power of two up to [`BUFFERS_MAX`](crate::BUFFERS_MAX), the size is 0, or the ring's groups
    /// together have more than 65,536 buffers.
    pub fn add_buffers(&mut self, settings: BufferSettings) -> Result<GroupId, Unsupported> {
        let group = GroupId(u16::try_from(self.memory.groups.len()).expect("a ring has few groups"));
        let first = self.memory.groups.last().map_or(0, BufferRing::end);
        let buffers = BufferRing::register(&self.uring.submitter(), self.number, group, first, settings);
        self.memory.groups.push(buffers.map_err(|errno| Unsupported::of_errno(Step::Buffers, errno))?);
        Ok(group)
    }

    /// Puts a socket into the table, and closes its ordinary descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the table has no such slot, `ENOMEM`.
    pub fn install(&mut self, slot: DirectSlot, socket: impl Into<OwnedFd>) -> Result<(), Errno> {
        let socket = socket.into();
        let installed = self.uring.submitter().register_files_update(slot.index(), &[socket.as_raw_fd()]);
        installed.map(drop).map_err(|error| errno(&error))
    }

    /// Pushes an operation; the next wait submits it. When the queue is full, submits what is in it first.
    ///
    /// # Panics
    ///
    /// If the queue is full after it was submitted, which a kernel out of memory can do.
    #[inline]
    pub fn push(&mut self, op: Op, tag: Tag) {
        #[cfg(feature = "scripted")]
        if let Some(script) = &mut self.script {
            return script.push(op, tag);
        }
        let entry = self.memory.submission(op, tag);
        self.push_entry(&entry);
    }

    /// Pushes operations of which each begins when the one before it has succeeded. After one fails, the rest end
    /// with `ECANCELED`.
    ///
    /// # Panics
    ///
    /// If the ring has not that many submissions.
    pub fn push_chain(&mut self, ops: impl ExactSizeIterator<Item = (Op, Tag)>) {
        let count = ops.len();
        let mut queue = self.uring.submission();
        queue.sync();
        let (capacity, free) = (queue.capacity(), queue.capacity() - queue.len());
        drop(queue);
        assert!(count <= capacity, "a chain of {count} in a ring of {capacity} submissions");
        // A chain ends where a submission does, so it must go in as a whole.
        if free < count {
            self.submit();
        }
        for (at, (op, tag)) in ops.enumerate() {
            let entry = self.memory.submission(op, tag);
            let last = at + 1 == count;
            self.push_entry(&if last { entry } else { entry.flags(squeue::Flags::IO_LINK) });
        }
    }

    /// Submits what was pushed, and waits: the one `io_uring_enter` a turn.
    ///
    /// # Errors
    ///
    /// What the kernel says, but for a timeout, a signal, and completions kept back: those end the wait well.
    #[inline]
    pub fn wait(&mut self, wait: Wait) -> Result<(), Errno> {
        #[cfg(feature = "scripted")]
        if self.script.is_some() {
            return Ok(());
        }
        let mut queue = self.uring.submission();
        queue.sync();
        self.overflows += u64::from(queue.cq_overflow());
        let submit = queue.len() as u32;
        drop(queue);
        self.enters += 1;
        match self.enter.call(call(wait, submit, self.has_min_wait)) {
            Ok(_) | Err(Errno::TIME | Errno::INTR | Errno::BUSY) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The next completion; `None` until the next wait.
    #[inline]
    pub fn pop(&mut self) -> Option<Completion> {
        #[cfg(feature = "scripted")]
        if let Some(script) = &mut self.script {
            return script.pop();
        }
        loop {
            let entry = self.uring.completion().next()?;
            if let Some(completion) = self.completion(&entry) {
                return Some(completion);
            }
        }
    }

    /// The bytes that the kernel filled.
    ///
    /// # Panics
    ///
    /// If the lease is another ring's.
    #[must_use]
    #[inline]
    pub fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        self.memory.groups[usize::from(lease.group.0)].bytes(lease)
    }

    /// The datagram that an [`Op::ReceiveDatagrams`] filled a buffer with.
    ///
    /// # Errors
    ///
    /// When the buffer holds none of an internet socket: it came from another operation, or is too short.
    ///
    /// # Panics
    ///
    /// If the lease is another ring's.
    #[inline]
    pub fn datagram<'a>(&'a self, lease: &'a Lease) -> Result<Datagram<'a>, DatagramError> {
        datagram::parse(self.bytes(lease))
    }

    /// Gives a buffer back to the kernel, at once.
    ///
    /// # Panics
    ///
    /// If the lease is another ring's.
    #[inline]
    pub fn give_back(&mut self, lease: Lease) {
        self.memory.groups[usize::from(lease.group.0)].give_back(lease);
    }

    /// How many of a group's buffers are with the kernel: `available + leases == count`.
    #[must_use]
    pub fn available(&self, group: GroupId) -> u16 {
        self.memory.groups[usize::from(group.0)].book.available()
    }

    /// Notes that the receive which `tag` names ended with `ENOBUFS`. It must not be armed again before
    /// [`Ring::next_fed`] names it: on an empty group it would end at once, and spin.
    pub fn starve(&mut self, group: GroupId, tag: Tag) {
        self.memory.groups[usize::from(group.0)].book.starve(tag);
    }

    /// A starved receive to arm again, in the order in which they starved; `None` while less than a quarter of the
    /// group is with the kernel. To be asked after giving buffers back, until it says `None`. A tag may name a
    /// connection that is gone by now.
    #[must_use]
    pub fn next_fed(&mut self, group: GroupId) -> Option<Tag> {
        self.memory.groups[usize::from(group.0)].book.next_fed()
    }

    /// How many receives ended for want of a buffer, ever.
    #[must_use]
    pub fn starvations(&self, group: GroupId) -> u64 {
        self.memory.groups[usize::from(group.0)].book.starvations()
    }

    /// How many operations have not had their last completion.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many times `io_uring_enter` was called.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// How many completions named an operation that was gone, and were dropped.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// How many turns found completions that the kernel had kept back, since the queue was full. None of them is
    /// lost, but the ring is too small for its load.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// How many completions the kernel lost, since it had no memory to keep them back.
    #[must_use]
    pub fn lost(&mut self) -> u32 {
        self.uring.completion().overflow()
    }

    /// A duplicate of the ring's descriptor, for other rings to send messages to this one.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left.
    pub fn handle(&self) -> Result<RingHandle, Errno> {
        Ok(RingHandle::new(rustix::io::fcntl_dupfd_cloexec(descriptor(&self.uring), 0)?))
    }

    /// Lets another ring of this thread (one table of direct descriptors holds `RLIMIT_NOFILE` at most) wait for this
    /// one, too. To be called once.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left, `EBUSY` when the ring is watched already.
    pub fn watch(&self) -> Result<RingWatch, Errno> {
        let watch = RingWatch::new()?;
        let registered = self.uring.submitter().register_eventfd(watch.raw());
        registered.map_err(|error| errno(&error))?;
        Ok(watch)
    }

    /// Pushes the cancel of everything in flight. Each operation's last completion still comes, some with data.
    pub fn cancel_everything(&mut self) {
        self.push_entry(&op::cancel_everything());
    }

    /// Cancels everything and pops until nothing is in flight, giving buffers back. The completions are dropped: who
    /// wants what they carry calls [`Ring::cancel_everything`] and goes on popping until [`Ring::in_flight`] is 0.
    ///
    /// # Errors
    ///
    /// What is still in flight after `timeout`. The ring must then not be dropped.
    pub fn drain(&mut self, timeout: Duration) -> Result<(), DrainTimedOut> {
        /// How long to wait before cancelling again: a chain's next operation may have begun since.
        const CANCEL_AGAIN: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(completion) = self.pop() {
                completion.lease.into_iter().for_each(|lease| self.give_back(lease));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.in_flight == 0 {
                return Ok(());
            }
            if left.is_zero() {
                return Err(DrainTimedOut { in_flight: self.in_flight });
            }
            self.cancel_everything();
            let timeout = Some(left.min(CANCEL_AGAIN));
            // Of the kernel's errors none can be helped here; the deadline ends them all.
            let _ = self.wait(Wait { completions_min: self.in_flight, min_wait: None, timeout });
        }
    }

    #[inline]
    fn push_entry(&mut self, entry: &squeue::Entry) {
        if self.try_push(entry).is_err() {
            self.submit();
            self.try_push(entry).expect("the kernel took what was submitted");
        }
        self.in_flight += 1;
    }

    #[inline]
    fn try_push(&mut self, entry: &squeue::Entry) -> Result<(), squeue::PushError> {
        let mut queue = self.uring.submission();
        // SAFETY: whatever the submission points to is in `memory` (`op::submission` put it there), which keeps it
        // until the operation's last completion, and for ever if the ring is dropped before.
        unsafe { queue.push(entry) }
    }

    /// Submits outside the turn's wait: only when the queue is full.
    #[cold]
    fn submit(&mut self) {
        let submitted = self.wait(Wait { completions_min: 0, min_wait: None, timeout: None });
        submitted.expect("the kernel takes submissions");
    }

    /// What a completion means; `None` for one that is the ring's own, or stale.
    #[inline]
    fn completion(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let result = entry.result();
        let armed = if cqueue::more(entry.flags()) { Armed::Still } else { Armed::No };
        let lease = cqueue::buffer_select(entry.flags()).map(|id| self.memory.lend(id, result));
        let mut completion = match Origin::decode(entry.user_data()) {
            Some(Origin::Caller(tag)) => bare(tag, result, armed),
            Some(Origin::Message(tag)) => {
                let result = Ok(result.cast_unsigned());
                return Some(Completion { result, ..bare(tag, 0, Armed::No) });
            }
            Some(Origin::Own) => {
                self.in_flight -= 1;
                return None;
            }
            Some(Origin::Table { generation, index }) => {
                match self.memory.of_table(EntryId { generation, index }, result, armed) {
                    Some(completion) => completion,
                    None => return self.drop_stale(lease),
                }
            }
            None => return self.drop_stale(lease),
        };
        self.in_flight -= u32::from(armed == Armed::No);
        completion.lease = lease;
        Some(completion)
    }

    /// A completion that no operation of ours can have made.
    #[cold]
    fn drop_stale(&mut self, lease: Option<Lease>) -> Option<Completion> {
        self.stale += 1;
        lease.into_iter().for_each(|lease| self.give_back(lease));
        None
    }
}

impl Drop for Ring {
    /// # Panics
    ///
    /// If an operation is in flight: [`Ring::drain`] comes first. The memory that the kernel may still use is not
    /// freed then.
    fn drop(&mut self) {
        self.enter.unregister();
        // SAFETY: `drop` runs once, and nothing uses the field after it. It closes the ring's descriptor before any
        // memory below is freed.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if self.in_flight == 0 {
            // SAFETY: as above; and with nothing in flight the kernel reads and writes nothing of it.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
            return;
        }
        // A second panic would hide the first one's cause.
        assert!(
            thread::panicking(),
            "a ring was dropped with {} operations in flight: drain it first",
            self.in_flight
        );
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("number", &self.number)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DrainTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations did not end in time after their cancel", self.in_flight)
    }
}

impl std::error::Error for DrainTimedOut {}

/// The call that a wait becomes.
#[inline]
fn call(wait: Wait, submit: u32, has_min_wait: bool) -> Call {
    let Wait { completions_min, min_wait, timeout } = wait;
    match min_wait {
        Some(end) if !has_min_wait => {
            let timeout = Some(timeout.map_or(end, |timeout| timeout.min(end)));
            Call { submit, completions_min, min_wait: None, timeout }
        }
        min_wait => Call { submit, completions_min, min_wait, timeout },
    }
}

fn descriptor(uring: &IoUring) -> BorrowedFd<'_> {
    // SAFETY: the ring keeps its descriptor open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_min_wait_of_the_kernels_the_wait_ends_when_it_would() {
        let micros = |micros| Some(Duration::from_micros(micros));
        let check = |min_wait, timeout, has_min_wait, expected| {
            let Call { submit, completions_min, min_wait, timeout } =
                call(Wait { completions_min: 64, min_wait, timeout }, 3, has_min_wait);
            assert_eq!((submit, completions_min), (3, 64));
            assert_eq!((min_wait, timeout), expected, "a kernel that has it: {has_min_wait}");
        };
        check(micros(500), micros(9_000), true, (micros(500), micros(9_000)));
        check(micros(500), micros(9_000), false, (None, micros(500)));
        check(micros(500), micros(100), false, (None, micros(100)));
        check(micros(500), None, false, (None, micros(500)));
        check(None, micros(9_000), false, (None, micros(9_000)));
        check(None, None, false, (None, None));
    }
}
