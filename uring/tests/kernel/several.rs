//! Several rings: of one thread, of several, and threads without one.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread;

use uring::sockets::set_nofile_to_hard;
use uring::{
    Armed, DATAGRAM_HEADER_BYTES, DirectSlot, Errno, Op, Ring, RingSettings, Tag, Unsupported, Wait, Wakeup,
};

use crate::{Bed, CLOSE, LONG, OTHER, POLL, RECEIVE, sender, udp};

#[test]
fn a_second_ring_watched_from_the_first_wakes_it() {
    let mut first = Bed::new(1);
    let mut second = Bed::new(1).with_buffers(8, DATAGRAM_HEADER_BYTES + 64);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = second.install(socket);
    let (receive, group) = (second.tag(RECEIVE, slot), second.group());
    second.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, receive);
    assert!(second.poll().is_none());

    let (watch, tag) = (second.ring.watch().unwrap(), Tag::new(POLL, 0, 0));
    first.ring.push(watch.read(), tag);
    let peer = sender(address);
    for round in 0..100_u8 {
        // The datagram comes while the first ring sleeps in its wait, or just before.
        let sending = peer.try_clone().unwrap();
        let sent = thread::spawn(move || sending.send(&[round]).unwrap());
        let lease = loop {
            let woken = first.next();
            assert_eq!((woken.tag, woken.result, woken.armed), (tag, Ok(8), Armed::No));
            first.ring.push(watch.read(), tag);
            if let Some(received) = second.poll() {
                break received.lease.unwrap();
            }
        };
        assert_eq!(second.ring.datagram(&lease).unwrap().payload, [round]);
        second.ring.give_back(lease);
        assert_eq!(sent.join().unwrap(), 1);
    }
    assert_eq!(second.ring.watch().map(drop), Err(Errno::BUSY), "one watch a ring");
    first.finish();
    second.finish();
}

#[test]
fn a_message_reaches_the_ring_of_another_thread() {
    let (to_main, from_other) = mpsc::channel();
    let other = thread::spawn(move || {
        let mut bed = Bed::new(0);
        to_main.send(bed.ring.handle().unwrap()).unwrap();
        let messages = bed.take(3);
        assert_eq!(bed.ring.in_flight(), 0, "a message is no operation of the ring that gets it");
        bed.finish();
        messages.iter().map(|message| (message.tag, message.result.unwrap())).collect::<Vec<_>>()
    });
    let handle = from_other.recv().unwrap();
    let mut bed = Bed::new(0);
    let sent: Vec<_> = [0, 7, u32::MAX].into_iter().map(|value| (Tag::new(OTHER, 5, value), value)).collect();
    for &(tag, value) in &sent {
        bed.ring.push(Op::Message { ring: handle.clone(), tag, value }, Tag::new(OTHER, 0, 0));
        assert_eq!(bed.next().result, Ok(0));
    }
    assert_eq!(other.join().unwrap(), sent);
    drop(handle);
    bed.finish();
}

#[test]
fn a_waker_wakes_the_ring_from_a_thread_without_one() {
    const LETTERS: u32 = 2_000;
    let mut bed = Bed::new(0);
    let wakeup = Wakeup::new().unwrap();
    let (waker, poll) = (wakeup.waker(), Tag::new(POLL, 0, 0));
    bed.ring.push(wakeup.poll(), poll);
    let (post, mail) = mpsc::channel();
    let writer = thread::spawn(move || {
        for letter in 0..LETTERS {
            post.send(letter).unwrap();
            waker.wake();
        }
    });
    let mut read = 0;
    while read < LETTERS {
        let completion = bed.next();
        assert_eq!(completion.tag, poll);
        wakeup.clear();
        for letter in mail.try_iter() {
            assert_eq!(letter, read);
            read += 1;
        }
        if completion.armed == Armed::No {
            bed.ring.push(wakeup.poll(), poll);
        }
    }
    writer.join().unwrap();
    bed.finish();
}

#[test]
fn two_rings_hold_more_direct_descriptors_than_rlimit_nofile() {
    const ALL: u32 = 25_000;
    const OPEN_AT_MOST: usize = 200;
    let limit = set_nofile_to_hard();
    // Where the limit is high, one table would hold them all: two are used all the same.
    let each = ALL.div_ceil(2).min(limit);
    assert!(ALL <= 2 * limit, "a host with RLIMIT_NOFILE {limit} needs more than two rings");
    if let Some(too_many) = limit.checked_add(1).filter(|&count| count <= 1 << 20) {
        let settings = RingSettings { submissions: 4, completions: 8, direct_descriptors: too_many };
        let refused = Ring::new(&settings).map(drop);
        assert_eq!(refused, Err(Unsupported::DescriptorLimit { count: too_many }));
    }
    let settings = RingSettings { submissions: 512, completions: 4_096, direct_descriptors: each };
    let mut rings = [Bed::sized(&settings), Bed::sized(&settings)];
    let mut last = None;
    for number in 0..ALL {
        let bed = &mut rings[(number / each) as usize];
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        last = Some(socket.local_addr().unwrap());
        assert_eq!(bed.install(socket).index(), number % each);
    }
    assert_eq!(rings.iter().map(|bed| bed.slots.in_use()).sum::<u32>(), ALL);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < OPEN_AT_MOST, "{open} ordinary descriptors are open");
    assert!(UdpSocket::bind(last.unwrap()).is_err(), "the last socket is there");

    for bed in &mut rings {
        for index in 0..bed.slots.in_use() {
            let slot = DirectSlot::new(index);
            let tag = bed.tag(CLOSE, slot);
            bed.ring.push(Op::Close { slot }, tag);
            while let Some(completion) = bed.ring.pop() {
                assert_eq!(completion.result, Ok(0));
            }
        }
        while bed.ring.in_flight() > 0 {
            assert_eq!(bed.next().result, Ok(0));
        }
    }
    assert!(UdpSocket::bind(last.unwrap()).is_ok(), "and it is closed");
    rings.into_iter().for_each(Bed::finish);
}

#[test]
fn a_thread_may_have_more_rings_than_it_can_register() {
    // The kernel keeps 16 places a thread for registered rings; a seventeenth ring is entered by its descriptor.
    let mut beds: Vec<_> = (0..20).map(|_| Bed::new(0)).collect();
    for bed in &mut beds {
        bed.ring.wait(Wait { completions_min: 0, min_wait: None, timeout: Some(LONG) }).unwrap();
    }
    beds.into_iter().for_each(Bed::finish);
}
