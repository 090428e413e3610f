//! Cancel, last completion, close: in this order, and nothing before the ring is drained.

use std::net::UdpSocket;
use std::time::Duration;

use uring::{Armed, DATAGRAM_HEADER_BYTES, DrainTimedOut, Errno, Interest, Op, Shots};

use crate::{Bed, CANCEL, CLOSE, LONG, OTHER, POLL, RECEIVE, sender, udp};

const ROOM: u32 = DATAGRAM_HEADER_BYTES + 64;

#[test]
fn a_cancel_is_not_the_end_its_targets_last_completion_is() {
    let mut bed = Bed::new(1).with_buffers(2, ROOM);
    let slot = bed.install(udp("127.0.0.1:0").0);
    let (tag, cancel, group) = (bed.tag(RECEIVE, slot), bed.tag(CANCEL, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    assert!(bed.poll().is_none());
    bed.ring.push(Op::Cancel { tag }, cancel);
    let mut ended = bed.take(2);
    ended.sort_by_key(|completion| completion.tag.kind());
    assert_eq!((ended[0].tag, ended[0].result, ended[0].armed), (tag, Err(Errno::CANCELED), Armed::No));
    assert_eq!((ended[1].tag, ended[1].result), (cancel, Ok(0)));
    assert_eq!(bed.ring.in_flight(), 0);
    bed.finish();
}

#[test]
fn a_cancel_of_what_is_gone_says_so() {
    let mut bed = Bed::new(1);
    let slot = bed.install(udp("127.0.0.1:0").0);
    let (gone, cancel) = (bed.tag(RECEIVE, slot), bed.tag(CANCEL, slot));
    bed.ring.push(Op::Cancel { tag: gone }, cancel);
    assert_eq!(bed.next().result, Err(Errno::NOENT));
    bed.finish();
}

#[test]
fn an_operation_that_keeps_memory_is_cancelled_by_the_callers_tag() {
    let mut bed = Bed::new(2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = bed.install(listener);
    let into = bed.slots.allocate().unwrap();
    let (tag, cancel) = (bed.tag(OTHER, into), bed.tag(CANCEL, into));
    bed.ring.push(Op::Accept { listener: listening.into(), into }, tag);
    assert!(bed.poll().is_none());
    bed.ring.push(Op::Cancel { tag }, cancel);
    let ended = bed.take(2);
    let accept = ended.iter().find(|completion| completion.tag == tag).unwrap();
    assert_eq!((accept.result, accept.peer), (Err(Errno::CANCELED), None));
    bed.finish();
}

#[test]
fn close_comes_after_cancel_and_last_completion() {
    let mut bed = Bed::new(1).with_buffers(2, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let [receive, poll, cancel, close] = [RECEIVE, POLL, CANCEL, CLOSE].map(|kind| bed.tag(kind, slot));
    let group = bed.group();
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, receive);
    let writable = Op::Poll { target: slot.into(), interest: Interest::Writable, shots: Shots::Many };
    bed.ring.push(writable, poll);
    assert_eq!((bed.next().tag, bed.ring.in_flight()), (poll, 2));

    bed.ring.push(Op::CancelAll { target: slot.into() }, cancel);
    let ended = bed.take(3);
    let result_of = |tag| ended.iter().find(|completion| completion.tag == tag).unwrap().result;
    assert_eq!([receive, poll].map(result_of), [Err(Errno::CANCELED); 2]);
    assert_eq!((result_of(cancel), bed.ring.in_flight()), (Ok(2), 0));
    assert!(UdpSocket::bind(address).is_err(), "the socket is still open");

    bed.ring.push(Op::Close { slot }, close);
    assert_eq!(bed.next().result, Ok(0));
    assert!(UdpSocket::bind(address).is_ok(), "the port is free once the close has completed");
    bed.slots.release(slot);
    bed.finish();
}

#[test]
fn a_close_alone_leaves_the_receive_armed() {
    let mut bed = Bed::new(1).with_buffers(2, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (receive, close, group) = (bed.tag(RECEIVE, slot), bed.tag(CLOSE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, receive);
    bed.ring.push(Op::Close { slot }, close);
    let closed = bed.next();
    assert_eq!((closed.tag, closed.result, bed.ring.in_flight()), (close, Ok(0), 1));
    sender(address).send(b"still").unwrap();
    let received = bed.next();
    assert_eq!((received.tag, received.armed), (receive, Armed::Still), "why the order of closing matters");
    bed.leases.extend(received.lease);
    bed.finish();
}

#[test]
fn a_drain_ends_everything_and_gives_every_buffer_back() {
    let mut bed = Bed::new(8).with_buffers(8, ROOM);
    for _ in 0..8 {
        let (socket, address) = udp("127.0.0.1:0");
        let slot = bed.install(socket);
        let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
        bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
        sender(address).send(b"unread").unwrap();
    }
    assert_eq!(bed.ring.in_flight(), 8);
    bed.finish();
}

#[test]
fn what_a_shutdown_still_receives_can_be_kept() {
    let mut bed = Bed::new(1).with_buffers(8, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    let peer = sender(address);
    (0..3).for_each(|_| assert_eq!(peer.send(b"kept").unwrap(), 4));
    bed.ring.cancel_everything();
    while bed.ring.in_flight() > 0 {
        let completion = bed.next();
        bed.leases.extend(completion.lease);
    }
    assert_eq!(bed.leases.len(), 3);
    bed.finish();
}

#[test]
fn a_drain_without_time_says_what_is_left() {
    let mut bed = Bed::new(1).with_buffers(2, ROOM);
    let slot = bed.install(udp("127.0.0.1:0").0);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    assert_eq!(bed.ring.drain(Duration::ZERO), Err(DrainTimedOut { in_flight: 1 }));
    assert_eq!(bed.ring.drain(LONG), Ok(()));
    bed.finish();
}

#[test]
#[should_panic(expected = "a ring was dropped with 1 operations in flight")]
fn a_ring_with_something_in_flight_is_not_dropped_in_silence() {
    let mut bed = Bed::new(1).with_buffers(2, ROOM);
    let slot = bed.install(udp("127.0.0.1:0").0);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
}
