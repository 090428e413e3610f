//! What an operation lends to the kernel lives until its last completion.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use uring::{Armed, BufferSettings, Errno, Op, SendMode, SendQueue, Target};

use crate::{Bed, CANCEL, LONG, OTHER, RECEIVE, SEND, sender, udp};

/// Bytes that tell when they are freed.
struct Watched {
    bytes: Vec<u8>,
    freed: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.freed.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_sends_bytes_live_until_its_last_completion() {
    let freed = Arc::new(AtomicBool::new(false));
    let watched = Bytes::from_owner(Watched { bytes: vec![b'x'; 1 << 20], freed: Arc::clone(&freed) });
    let mut bed = Bed::new(1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let slot = bed.install(ours);
    // The first send fills the socket's buffer, so that the second one waits.
    let (tag, cancel) = (bed.tag(SEND, slot), bed.tag(CANCEL, slot));
    let filler = Bytes::from(vec![b'f'; 1 << 20]);
    bed.ring.push(Op::Send { socket: slot.into(), bytes: filler, mode: SendMode::Waiting }, tag);
    assert!(bed.next().result.is_ok_and(|sent| sent < 1 << 20));

    bed.ring.push(Op::Send { socket: slot.into(), bytes: watched, mode: SendMode::Waiting }, tag);
    assert!(bed.poll().is_none());
    assert!(!freed.load(Ordering::Relaxed), "in flight");
    bed.ring.push(Op::Cancel { tag }, cancel);
    let ended = bed.take(2);
    let send = ended.iter().find(|completion| completion.tag == tag).unwrap();
    assert_eq!((send.result, send.bytes.as_ref().map(Bytes::len)), (Err(Errno::CANCELED), Some(1 << 20)));
    assert!(!freed.load(Ordering::Relaxed), "the bytes came back with the completion");
    drop(ended);
    assert!(freed.load(Ordering::Relaxed));
    drop(theirs);
    bed.finish();
}

#[test]
fn a_descriptor_stays_open_until_the_last_completion() {
    let mut bed = Bed::new(0);
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let group = bed.ring.add_buffers(BufferSettings { count: 2, bytes_each: 64 }).unwrap();
    let target = Target::from(Arc::new(std::os::fd::OwnedFd::from(ours)));
    let tag = uring::Tag::new(RECEIVE, 0, 0);
    bed.ring.push(Op::ReceiveStream { socket: target, group }, tag);
    theirs.send(b"hello").unwrap();
    let completion = bed.next();
    assert_eq!((completion.result, completion.armed), (Ok(5), Armed::Still));
    let lease = completion.lease.unwrap();
    assert_eq!((bed.ring.bytes(&lease), lease.length()), (&b"hello"[..], 5));
    bed.ring.give_back(lease);
    bed.ring.drain(LONG).unwrap();
    assert_eq!(
        theirs.send(b"x").unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused,
        "it is closed now"
    );
    bed.finish();
}

#[test]
fn a_partial_send_goes_on_where_it_stopped() {
    use std::io::Read;
    const MESSAGE: usize = 100_000;
    let mut bed = Bed::new(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 16_384).unwrap();
    let slot = bed.install(ours);
    let tag = bed.tag(SEND, slot);
    let mut queue = SendQueue::new(3 * MESSAGE);
    let expected: Vec<u8> = (0..3 * MESSAGE).map(|at| (at % 251) as u8).collect();
    expected.chunks(MESSAGE).for_each(|message| queue.push(Bytes::copy_from_slice(message)).unwrap());
    assert!(queue.push("more".into()).is_err());

    let (mut received, mut partial) = (Vec::new(), 0);
    while let Some(bytes) = queue.next_send() {
        let asked = bytes.len() as u32;
        bed.ring.push(Op::Send { socket: slot.into(), bytes, mode: SendMode::Waiting }, tag);
        let sent = bed.next().result.unwrap();
        partial += u32::from(sent < asked);
        queue.advance(sent);
        let mut chunk = vec![0; sent as usize];
        theirs.read_exact(&mut chunk).unwrap();
        received.extend(chunk);
    }
    assert!(received == expected, "every byte once, in order");
    assert!(partial > 0, "a buffer of 16 KiB does not take 100,000 bytes");
    bed.finish();
}

#[test]
fn a_datagram_is_sent_to_an_address_and_answered() {
    let mut bed = Bed::new(1).with_buffers(2, 256);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, send, group) = (bed.tag(RECEIVE, slot), bed.tag(SEND, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    let peer = sender(address);
    peer.send(b"ping").unwrap();
    let lease = bed.next().lease.unwrap();
    let to = bed.ring.datagram(&lease).unwrap().from;
    bed.ring.give_back(lease);
    let op = Op::SendTo { socket: slot.into(), to, bytes: "pong".into(), mode: SendMode::Nonblocking };
    bed.ring.push(op, send);
    let sent = bed.next();
    assert_eq!((sent.tag, sent.result, sent.bytes), (send, Ok(4), Some("pong".into())));
    let mut answer = [0; 8];
    let bytes = peer.recv(&mut answer).unwrap();
    assert_eq!(&answer[..bytes], b"pong");
    bed.finish();
}

#[test]
#[should_panic(expected = "a lease goes back to where it came from")]
fn a_lease_of_another_ring_is_refused() {
    let mut one = Bed::new(1).with_buffers(2, 256);
    let mut other = Bed::new(1).with_buffers(2, 256);
    let mut leases = [&mut one, &mut other].map(|bed| {
        let (socket, address) = udp("127.0.0.1:0");
        let slot = bed.install(socket);
        let (tag, group) = (bed.tag(OTHER, slot), bed.group());
        bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
        sender(address).send(b"x").unwrap();
        let lease = bed.next().lease.unwrap();
        bed.ring.drain(LONG).unwrap();
        Some(lease)
    });
    other.ring.give_back(leases[0].take().unwrap());
}
