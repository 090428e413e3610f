//! Full queues: of submissions, and of completions.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use bytes::Bytes;
use uring::{
    Armed, Errno, Interest, Op, RingSettings, SendMode, Shots, Tag, Target, Wait, completions_needed,
};

use crate::{Bed, OTHER, POLL, SEND, udp};

#[test]
fn a_full_submission_queue_is_submitted_by_the_push() {
    let mut bed = Bed::sized(&RingSettings { submissions: 4, completions: 64, direct_descriptors: 1 });
    let slot = bed.install(udp("127.0.0.1:0").0);
    for number in 0..10 {
        let op = Op::Poll { target: slot.into(), interest: Interest::Writable, shots: Shots::One };
        bed.ring.push(op, Tag::new(POLL, 0, number));
    }
    assert_eq!((bed.ring.in_flight(), bed.ring.enters()), (10, 2), "four and four were submitted, two wait");
    for number in 0..10 {
        let completion = bed.next();
        assert_eq!((completion.tag.slot(), completion.armed), (number, Armed::No));
    }
    bed.finish();
}

#[test]
fn what_was_written_is_synced_and_a_socket_can_not_be() {
    let mut bed = Bed::new(0);
    let file = Target::from(Arc::new(OwnedFd::from(tempfile::tempfile().unwrap())));
    let write = Op::Write { file: file.clone(), bytes: Bytes::from_static(b"line\n"), offset: None };
    bed.ring.push(write, Tag::new(OTHER, 0, 1));
    assert_eq!(bed.next().result, Ok(5));
    bed.ring.push(Op::Sync { file }, Tag::new(OTHER, 0, 2));
    let synced = bed.next();
    assert_eq!((synced.tag.slot(), synced.result, synced.armed), (2, Ok(0), Armed::No));
    let socket = Arc::new(OwnedFd::from(UnixDatagram::unbound().unwrap()));
    bed.ring.push(Op::Sync { file: socket.into() }, Tag::new(OTHER, 0, 3));
    assert_eq!(bed.next().result, Err(Errno::INVAL));
    bed.finish();
}

#[test]
fn completions_beyond_the_queue_are_kept_back_and_counted() {
    let mut bed = Bed::sized(&RingSettings { submissions: 8, completions: 8, direct_descriptors: 1 });
    let slot = bed.install(udp("127.0.0.1:0").0);
    for number in 0..32 {
        let op = Op::Poll { target: slot.into(), interest: Interest::Writable, shots: Shots::One };
        bed.ring.push(op, Tag::new(POLL, 0, number));
    }
    let mut numbers: Vec<_> = bed.take(32).iter().map(|completion| completion.tag.slot()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..32).collect::<Vec<_>>());
    assert!(bed.ring.overflows() > 0, "32 completions do not fit a queue of 8");
    assert_eq!(bed.ring.lost(), 0);
    bed.finish();
}

#[test]
fn a_queue_of_the_size_that_is_needed_does_not_overflow() {
    const BUFFERS: u32 = 16;
    const COMPLETIONS: u32 = completions_needed(BUFFERS, 4);
    const _: () = assert!(COMPLETIONS >= 4 * BUFFERS + 2 * 4);
    let mut bed =
        Bed::sized(&RingSettings { submissions: 8, completions: COMPLETIONS, direct_descriptors: 1 });
    let slot = bed.install(udp("127.0.0.1:0").0);
    for number in 0..COMPLETIONS {
        let op = Op::Poll { target: slot.into(), interest: Interest::Writable, shots: Shots::One };
        bed.ring.push(op, Tag::new(POLL, 0, number));
    }
    assert!(bed.take(COMPLETIONS as usize).iter().all(|completion| completion.result.is_ok()));
    assert_eq!(bed.ring.overflows(), 0);
    bed.finish();
}

#[test]
fn a_chain_hands_datagrams_over_in_order_up_to_the_first_that_finds_no_room() {
    const CHAIN: u32 = 64;
    let mut bed = Bed::new(1);
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    least_send_buffer(&ours);
    let slot = bed.install(ours);
    let mut next_to_send = 0_u32;
    let mut next_to_read = 0_u32;
    for _ in 0..3 {
        let first = next_to_send;
        bed.ring.push_chain((first..first + CHAIN).map(|number| {
            let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
            (Op::Send { socket: slot.into(), bytes, mode: SendMode::Nonblocking }, Tag::new(SEND, 0, number))
        }));
        let mut results = vec![Ok(0); CHAIN as usize];
        for completion in bed.take(CHAIN as usize) {
            results[(completion.tag.slot() - first) as usize] = completion.result;
        }
        let sent =
            results.iter().position(Result::is_err).expect("the socket's queue is shorter than the chain");
        assert!(sent > 0 && results[..sent].iter().all(|&result| result == Ok(4)));
        assert_eq!(results[sent], Err(Errno::AGAIN));
        assert!(results[sent + 1..].iter().all(|&result| result == Err(Errno::CANCELED)));
        next_to_send += sent as u32;
        let mut number = [0; 4];
        while theirs.recv(&mut number).is_ok() {
            assert_eq!(u32::from_be_bytes(number), next_to_read);
            next_to_read += 1;
        }
        assert_eq!(next_to_read, next_to_send);
    }
    bed.finish();
}

#[test]
fn a_chain_that_does_not_fit_behind_what_waits_goes_in_whole() {
    let mut bed = Bed::sized(&RingSettings { submissions: 8, completions: 64, direct_descriptors: 1 });
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let slot = bed.install(ours);
    let send = |number: u32| {
        let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
        (Op::Send { socket: slot.into(), bytes, mode: SendMode::Nonblocking }, Tag::new(SEND, 0, number))
    };
    (0..5).map(send).for_each(|(op, tag)| bed.ring.push(op, tag));
    assert_eq!(bed.ring.enters(), 0);
    bed.ring.push_chain((5..10).map(send));
    assert_eq!(bed.ring.enters(), 1, "what waited was submitted to make room for the chain");
    assert!(bed.take(10).iter().all(|completion| completion.result == Ok(4)));
    for number in 0..10_u32 {
        let mut bytes = [0; 4];
        assert_eq!(theirs.recv(&mut bytes).unwrap(), 4);
        assert_eq!(u32::from_be_bytes(bytes), number);
    }
    bed.finish();
}

#[test]
fn a_file_is_written_where_it_ends_or_where_it_is_told() {
    let mut bed = Bed::new(0);
    let file = std::env::temp_dir().join(format!("ringmaster-uring-{}", std::process::id()));
    let open = std::fs::OpenOptions::new().create_new(true).append(true).open(&file).unwrap();
    let target = Target::from(std::sync::Arc::new(std::os::fd::OwnedFd::from(open)));
    for bytes in ["one ", "two ", "three"] {
        let op = Op::Write { file: target.clone(), bytes: bytes.into(), offset: None };
        bed.ring.push(op, Tag::new(OTHER, 0, 0));
        let completion = bed.next();
        assert_eq!((completion.result, completion.bytes), (Ok(bytes.len() as u32), Some(bytes.into())));
    }
    let open = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    let target = Target::from(std::sync::Arc::new(std::os::fd::OwnedFd::from(open)));
    bed.ring.push(Op::Write { file: target, bytes: "TWO".into(), offset: Some(4) }, Tag::new(OTHER, 0, 0));
    assert_eq!(bed.next().result, Ok(3));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one TWO three");
    std::fs::remove_file(&file).unwrap();
    bed.finish();
}

#[test]
fn a_wait_for_nothing_and_a_wait_that_times_out_end_well() {
    let mut bed = Bed::new(0);
    bed.ring.wait(Wait::default()).unwrap();
    let timeout = Some(std::time::Duration::from_millis(1));
    bed.ring.wait(Wait { completions_min: 1, min_wait: None, timeout }).unwrap();
    assert!(bed.ring.pop().is_none());
    assert_eq!(bed.ring.enters(), 2);
    bed.finish();
}

/// The least send buffer, so that a handful of datagrams fills it whatever `net.unix.max_dgram_qlen` is.
fn least_send_buffer(socket: &UnixDatagram) {
    rustix::net::sockopt::set_socket_send_buffer_size(socket, 4_608).unwrap();
}
