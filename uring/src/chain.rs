//! Datagrams whose hand-over is noted with them: no `kill -9` comes between the two.
//!
//! ```text
//! SEND(socket, datagram) -> link -> READ(pipe, 8 bytes into the word) -> link -> SEND(socket, next) -> ...
//! ```
//!
//! A process that sends and then notes can be killed in between, and under load it is: in a trial, 140 of 300 kills
//! found a datagram that was not noted. Here the kernel notes. The numbers are in a pipe before; one `io_uring_enter` runs
//! the whole chain on this thread without going back to user space, and a signal that kills is seen only after it. A send
//! that finds no room ends the chain, and the numbers that are left in the pipe are read out again.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cells::{WORD_BYTES, Word};
use crate::enter::errno;
use crate::unsupported::{Step, Unsupported};

/// How many datagrams one [`Chain::send`] takes at the most.
pub const CHAIN_DATAGRAMS_MAX: usize = 16;

/// A datagram may be a send and a note.
const SUBMISSIONS_MAX: usize = 2 * CHAIN_DATAGRAMS_MAX;

/// All ones is the kernel's word for a file without a position.
const NO_OFFSET: u64 = u64::MAX;

/// A datagram, and what is to be noted once it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a> {
    /// What is sent.
    pub datagram: &'a [u8],
    /// The word, and the number that it holds as soon as the datagram is sent.
    pub note: Option<(Word<'a>, u64)>,
}

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// So many datagrams were sent, the first ones; each of them is noted, and none of the others.
    pub count: usize,
    /// Why the next one was not; `None` if none was left, or it may be tried again at once.
    pub stopped_by: Option<Errno>,
}

/// A ring of its own, of one thread, in which nothing is in flight between two calls.
pub struct Chain {
    uring: IoUring,
    numbers_in: OwnedFd,
    numbers_out: OwnedFd,
    calls: u64,
    /// Not `Send`: the kernel refuses any thread but the one that made the ring.
    of_one_thread: PhantomData<Rc<()>>,
}

/// What each submission of a chain is for, and how it ended.
#[derive(Clone, Copy)]
struct Stage {
    part: Part,
    result: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Sends this datagram.
    Send(usize),
    /// Notes that it was sent.
    Note(usize),
}

impl Chain {
    /// A ring and a pipe.
    ///
    /// # Errors
    ///
    /// What this host lacks, with its cure.
    pub fn new() -> Result<Chain, Unsupported> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(SUBMISSIONS_MAX as u32)
            .map_err(|error| Unsupported::of(Step::Setup, &error))?;
        let pipe = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
        let (numbers_out, numbers_in) = pipe.map_err(|errno| Unsupported::of_errno(Step::Setup, errno))?;
        let mut chain = Chain { uring, numbers_in, numbers_out, calls: 0, of_one_thread: PhantomData };
        chain.warm_up()?;
        Ok(chain)
    }

    /// Sends datagrams on a connected socket, in order and as far as there is room, and notes each of them.
    ///
    /// Nobody else writes the words meanwhile.
    ///
    /// # Panics
    ///
    /// If there are more than [`CHAIN_DATAGRAMS_MAX`], or the kernel is out of memory for a pipe's page.
    pub fn send(&mut self, socket: BorrowedFd<'_>, datagrams: &[Noted<'_>]) -> Sent {
        assert!(datagrams.len() <= CHAIN_DATAGRAMS_MAX, "{} datagrams in a chain", datagrams.len());
        if datagrams.is_empty() {
            return Sent { count: 0, stopped_by: None };
        }
        self.fill_pipe(datagrams);
        let mut steps = [Stage { part: Part::Send(0), result: 0 }; SUBMISSIONS_MAX];
        let count = self.push(socket, datagrams, &mut steps);
        let steps = &mut steps[..count];
        self.run(steps);
        self.settle(datagrams, steps)
    }

    /// How many times [`Chain::send`] entered the kernel for a chain.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Lets the kernel make as many requests as a chain can have. It keeps them for later ones, so that it never runs out of
    /// memory in the middle of a chain: what is submitted after that would be a chain of its own.
    fn warm_up(&mut self) -> Result<(), Unsupported> {
        let nothing = opcode::Nop::new().build();
        let mut queue = self.uring.submission();
        for _ in 0..SUBMISSIONS_MAX {
            // SAFETY: the operation touches no memory.
            unsafe { queue.push(&nothing) }.expect("the ring is as long as the longest chain, and empty");
        }
        drop(queue);
        let submitted = self.uring.submit_and_wait(SUBMISSIONS_MAX);
        match submitted.map_err(|error| Unsupported::of(Step::Setup, &error))? {
            SUBMISSIONS_MAX => {}
            _ => return Err(Unsupported::Memory),
        }
        assert_eq!(self.uring.completion().count(), SUBMISSIONS_MAX, "what does nothing is done at once");
        Ok(())
    }

    /// Puts the numbers into the pipe, in order.
    fn fill_pipe(&self, datagrams: &[Noted<'_>]) {
        let mut numbers = [0; CHAIN_DATAGRAMS_MAX * WORD_BYTES];
        let mut places = numbers.chunks_exact_mut(WORD_BYTES);
        let mut bytes = 0;
        for (word, number) in datagrams.iter().filter_map(|noted| noted.note) {
            let place = places.next().expect("there is a place for each datagram's number");
            place.copy_from_slice(&number.to_ne_bytes());
            bytes += WORD_BYTES;
            // Its page is there now, so that the kernel does not wait for it within the chain.
            word.touch();
        }
        if bytes > 0 {
            let written = rustix::io::write(&self.numbers_in, &numbers[..bytes]);
            // Less than a page, into an empty pipe: whole or not at all.
            assert_eq!(written, Ok(bytes), "an empty pipe takes some numbers");
        }
    }

    /// Pushes the chain, and says what each submission of it is. Returns how many there are.
    fn push(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: &[Noted<'_>],
        steps: &mut [Stage; SUBMISSIONS_MAX],
    ) -> usize {
        const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let mut queue = self.uring.submission();
        let mut count = 0;
        let mut push = |entry: squeue::Entry, part: Part, last: bool| {
            let entry = entry.user_data(count as u64);
            let entry = if last { entry } else { entry.flags(Flags::IO_LINK) };
            // SAFETY: the datagrams and words outlive the operation, as `run` returns only when all have completed, and
            // `datagrams` is borrowed until then.
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("the ring is as long as the longest chain, and empty");
            steps[count] = Stage { part, result: 0 };
            count += 1;
        };
        for (index, noted) in datagrams.iter().enumerate() {
            let last = index + 1 == datagrams.len();
            let length = u32::try_from(noted.datagram.len()).expect("a datagram is less than 4 GiB");
            let to = types::Fd(socket.as_raw_fd());
            let send = opcode::Send::new(to, noted.datagram.as_ptr(), length).flags(FLAGS).build();
            push(send, Part::Send(index), last && noted.note.is_none());
            if let Some((word, _)) = noted.note {
                let from = types::Fd(self.numbers_out.as_raw_fd());
                let note =
                    opcode::Read::new(from, word.as_ptr(), WORD_BYTES as u32).offset(NO_OFFSET).build();
                push(note, Part::Note(index), last);
            }
        }
        count
    }

    /// Submits, and waits until the last step has completed.
    fn run(&mut self, steps: &mut [Stage]) {
        let mut completed = 0;
        while completed < steps.len() {
            self.calls += 1;
            match self.uring.submit_and_wait(steps.len() - completed) {
                Ok(_) => {}
                Err(error) => match errno(&error) {
                    Errno::INTR | Errno::AGAIN | Errno::BUSY => {}
                    // Unwinding would free what the kernel may still read and write.
                    other => {
                        eprintln!("io_uring_enter on a chain failed: {other}");
                        std::process::abort();
                    }
                },
            }
            for entry in self.uring.completion() {
                steps[entry.user_data() as usize].result = entry.result();
                completed += 1;
            }
        }
    }

    /// What a chain that has ended achieved. What was sent and not noted, since a note failed, is noted here.
    fn settle(&self, datagrams: &[Noted<'_>], steps: &[Stage]) -> Sent {
        let (mut count, mut read, mut numbers) = (0, 0, 0);
        let mut stopped_by = None;
        for step in steps {
            match step.part {
                Part::Send(_) if step.result >= 0 => count += 1,
                Part::Send(_) if step.result == -libc::ECANCELED => {}
                Part::Send(_) => stopped_by = Some(Errno::from_raw_os_error(-step.result)),
                Part::Note(index) => {
                    numbers += 1;
                    let sent = index < count;
                    if step.result == WORD_BYTES as i32 {
                        read += 1;
                    } else if let (true, Some((word, number))) = (sent, datagrams[index].note) {
                        word.store(number);
                    } else if step.result < 0 && step.result != -libc::ECANCELED {
                        // The kernel refused the whole chain for it: it had no memory.
                        stopped_by = Some(Errno::from_raw_os_error(-step.result));
                    }
                }
            }
        }
        if read < numbers {
            let mut left = [0; CHAIN_DATAGRAMS_MAX * WORD_BYTES];
            let bytes = (numbers - read) * WORD_BYTES;
            let emptied = rustix::io::read(&self.numbers_out, &mut left[..bytes]);
            assert_eq!(emptied, Ok(bytes), "the pipe held the numbers that were not noted");
        }
        Sent { count, stopped_by }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Chain").field("calls", &self.calls).finish_non_exhaustive()
    }
}
