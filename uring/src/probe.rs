//! Whether this host can run a ring of ours, asked before anything else is begun.

use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use crate::buf_ring::BufferSettings;
use crate::completion::{Armed, Completion};
use crate::datagram::DATAGRAM_HEADER_BYTES;
use crate::op::{Op, Target};
use crate::ring::{Ring, RingSettings, Wait};
use crate::tag::Tag;
use crate::unsupported::{Host, Step, Unsupported};

/// Every operation that [`Op`] makes, with the release that brought it.
const OPERATIONS: [(u8, &str); 10] = [
    (opcode::Accept::CODE, "accept into direct descriptors (5.15)"),
    (opcode::AsyncCancel2::CODE, "cancel by descriptor (5.19)"),
    (opcode::Close::CODE, "close of direct descriptors (5.15)"),
    (opcode::Connect::CODE, "connect (5.5)"),
    (opcode::MsgRingData::CODE, "messages between rings (5.18)"),
    (opcode::PollAdd::CODE, "poll (5.1)"),
    (opcode::RecvMsgMulti::CODE, "recvmsg (5.3)"),
    (opcode::Send::CODE, "send (5.6)"),
    (opcode::Shutdown::CODE, "shutdown (5.11)"),
    (opcode::Write::CODE, "write (5.6)"),
];

/// Makes a small ring with everything a ring of ours uses, and receives a datagram with it.
///
/// The floor is kernel 6.1: deferred task work. Before 6.12 the end of a [`Wait::min_wait`] is the end of the wait.
///
/// # Errors
///
/// What this host lacks, in one line with its cure.
pub fn probe() -> Result<(), Unsupported> {
    let mut ring = Ring::new(&RingSettings { submissions: 4, completions: 16, direct_descriptors: 4 })?;
    operations()?;
    let group = ring.add_buffers(BufferSettings { count: 2, bytes_each: DATAGRAM_HEADER_BYTES + 64 })?;
    let (ours, theirs) = UnixDatagram::pair().map_err(|error| Unsupported::of(Step::Setup, &error))?;
    let socket = Target::Descriptor(Arc::new(OwnedFd::from(ours)));
    theirs.send(b"probe").map_err(|error| Unsupported::of(Step::Setup, &error))?;
    ring.push(Op::ReceiveDatagrams { socket, group }, Tag::new(1, 0, 0));
    let waited =
        ring.wait(Wait { completions_min: 1, min_wait: None, timeout: Some(Duration::from_secs(1)) });
    let first = ring.pop();
    let received = match &first {
        Some(Completion { result: Ok(_), lease: Some(_), armed: Armed::Still, .. }) => Ok(()),
        Some(_) | None => Err(lacks("multishot recvmsg (6.0)")),
    };
    first.and_then(|completion| completion.lease).into_iter().for_each(|lease| ring.give_back(lease));
    if ring.drain(Duration::from_secs(1)).is_err() {
        // Its memory stays as long as the kernel may write to it.
        mem::forget(ring);
        return Err(lacks("cancel of a multishot receive (6.0)"));
    }
    waited.map_err(|errno| Unsupported::of_errno(Step::Setup, errno))?;
    received
}

fn operations() -> Result<(), Unsupported> {
    let uring = IoUring::new(1).map_err(|error| Unsupported::of(Step::Setup, &error))?;
    let mut known = Probe::new();
    let probed = uring.submitter().register_probe(&mut known);
    probed.map_err(|error| Unsupported::of(Step::Setup, &error))?;
    match OPERATIONS.into_iter().find(|&(code, _)| !known.is_supported(code)) {
        Some((_, operation)) => Err(lacks(operation)),
        None => Ok(()),
    }
}

fn lacks(lacks: &'static str) -> Unsupported {
    Unsupported::Old { lacks, release: Host::here().release }
}
