//! Multishot receive of datagrams.

use std::net::{IpAddr, UdpSocket};

use uring::sockets::{UdpSettings, kernel_drops, udp_socket};
use uring::{Armed, DATAGRAM_HEADER_BYTES, Errno, Op, RingSettings, Wait};

use crate::{Bed, LONG, RECEIVE, sender, udp};

const ROOM: u32 = DATAGRAM_HEADER_BYTES + 256;

#[test]
fn enobufs_does_not_spin_and_recovers() {
    let mut bed = Bed::new(1).with_buffers(8, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    let peer = sender(address);
    (0..12_u8).for_each(|number| assert_eq!(peer.send(&[number]).unwrap(), 1));

    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    for number in 0..8 {
        let completion = bed.next();
        assert_eq!(completion.armed, Armed::Still);
        let lease = completion.lease.unwrap();
        assert_eq!(bed.ring.datagram(&lease).unwrap().payload, [number]);
        bed.leases.push(lease);
    }
    let last = bed.next();
    assert_eq!((last.result, last.armed, last.lease), (Err(Errno::NOBUFS), Armed::No, None));

    bed.ring.starve(group, tag);
    assert_eq!(bed.ring.next_fed(group), None, "nothing to arm while the ring of buffers is empty");
    let enters = bed.ring.enters();
    assert!(bed.poll().is_none(), "a starved receive makes no completion");
    assert_eq!((bed.ring.enters(), bed.ring.in_flight()), (enters + 1, 0));

    let lease = bed.leases.pop().unwrap();
    bed.ring.give_back(lease);
    assert_eq!(bed.ring.next_fed(group), None, "one of eight is less than a quarter");
    bed.give_back_all();
    assert_eq!(bed.ring.next_fed(group), Some(tag));
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    for number in 8..12 {
        let lease = bed.next().lease.unwrap();
        assert_eq!(bed.ring.datagram(&lease).unwrap().payload, [number], "what waited in the socket comes");
        bed.leases.push(lease);
    }
    assert_eq!(bed.ring.starvations(group), 1);
    bed.finish();
}

#[test]
fn a_last_completion_may_carry_data() {
    let settings = RingSettings { submissions: 8, completions: 16, direct_descriptors: 1 };
    let mut bed = Bed::sized(&settings).with_buffers(256, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    let peer = sender(address);
    (0..100_u8).for_each(|number| assert_eq!(peer.send(&[number]).unwrap(), 1));

    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    let mut last_with_data = 0;
    for number in 0..100 {
        let completion = bed.next();
        let lease = completion.lease.unwrap();
        assert_eq!(bed.ring.datagram(&lease).unwrap().payload, [number], "none lost, none out of order");
        bed.leases.push(lease);
        if completion.armed == Armed::No {
            last_with_data += 1;
            bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
        }
    }
    assert!(last_with_data > 0, "a full completion queue ends the receive with data in its last completion");
    bed.finish();
}

#[test]
fn a_stale_generation_is_counted_and_its_buffer_given_back() {
    let mut bed = Bed::new(1).with_buffers(4, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    sender(address).send(b"late").unwrap();

    bed.slots.release(slot);
    assert_eq!(bed.slots.allocate(), Some(slot), "the slot has a new tenant");
    let late = bed.next();
    assert_eq!((bed.slots.tenant(late.tag), bed.slots.stale()), (None, 1));
    bed.ring.give_back(late.lease.unwrap());
    assert_eq!(bed.ring.available(group), 4);
    bed.finish();
}

#[test]
fn a_truncated_datagram_tells_its_true_size() {
    let mut bed = Bed::new(1).with_buffers(4, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    let peer = sender(address);
    for (bytes, truncated_from) in
        [(255, None), (256, None), (257, Some(257)), (4_000, Some(4_000)), (1, None)]
    {
        peer.send(&vec![b'x'; bytes]).unwrap();
        let completion = bed.next();
        assert_eq!(completion.armed, Armed::Still, "a truncated datagram ends nothing");
        let lease = completion.lease.unwrap();
        let datagram = bed.ring.datagram(&lease).unwrap();
        assert_eq!((datagram.payload.len(), datagram.truncated_from), (bytes.min(256), truncated_from));
        bed.ring.give_back(lease);
    }
    bed.finish();
}

#[test]
fn an_empty_datagram_ends_the_receive_with_a_buffer() {
    let mut bed = Bed::new(1).with_buffers(4, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    let peer = sender(address);
    for payload in [&b""[..], b"full", b"", b""] {
        if bed.ring.in_flight() == 0 {
            bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
        }
        peer.send(payload).unwrap();
        let completion = bed.next();
        assert_eq!(
            completion.armed == Armed::No,
            payload.is_empty(),
            "who does not arm again is deaf from here on"
        );
        let lease = completion.lease.unwrap();
        assert_eq!(bed.ring.datagram(&lease).unwrap().payload, payload);
        bed.ring.give_back(lease);
    }
    bed.finish();
}

#[test]
fn the_last_buffer_starves_the_receive_even_when_the_socket_is_empty() {
    let mut bed = Bed::new(1).with_buffers(2, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    let peer = sender(address);
    for _ in 0..2 {
        peer.send(b"x").unwrap();
        let lease = bed.next().lease.unwrap();
        bed.leases.push(lease);
    }
    let last = bed.next();
    assert_eq!((last.result, last.armed), (Err(Errno::NOBUFS), Armed::No));
    bed.finish();
}

#[test]
fn drops_are_told_by_the_next_datagram_and_by_the_socket() {
    let mut bed = Bed::new(1).with_buffers(512, ROOM);
    let address = "127.0.0.1:0".parse().unwrap();
    let socket = udp_socket(&UdpSettings { address, shared: false, receive_buffer_bytes: 4_096 }).unwrap();
    let other = socket.try_clone().unwrap();
    assert_eq!(kernel_drops(&other), Ok(0));
    let peer = sender(socket.local_addr().unwrap());
    (0..500).for_each(|_| assert_eq!(peer.send(b"flood").unwrap(), 5));
    let drops = kernel_drops(&other).unwrap();
    assert!(drops > 0, "a receive buffer of 4 KiB does not hold 500 datagrams");

    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    for _ in drops..500 {
        let lease = bed.next().lease.unwrap();
        bed.leases.push(lease);
    }
    assert!(bed.poll().is_none(), "received and dropped make up what was sent");
    peer.send(b"after").unwrap();
    let lease = bed.next().lease.unwrap();
    let datagram = bed.ring.datagram(&lease).unwrap();
    assert_eq!((datagram.payload, datagram.kernel_drops), (&b"after"[..], Some(drops)));
    bed.leases.push(lease);
    bed.finish();
}

#[test]
fn source_addresses_are_ipv4_ipv6_and_v4_mapped() {
    for (bound, from, seen) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
        ("127.0.0.1:0", "127.5.6.7:0", "127.5.6.7"),
        ("[::1]:0", "[::1]:0", "::1"),
        ("[::]:0", "[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1:0", "::ffff:127.0.0.1"),
    ] {
        let mut bed = Bed::new(1).with_buffers(2, ROOM);
        let (socket, address) = udp(bound);
        let slot = bed.install(socket);
        let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
        bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);

        let peer = UdpSocket::bind(from).unwrap();
        let host: IpAddr = if from.starts_with('[') { "::1" } else { "127.0.0.1" }.parse().unwrap();
        peer.send_to(b"hello", (host, address.port())).unwrap();
        let lease = bed.next().lease.unwrap();
        let datagram = bed.ring.datagram(&lease).unwrap();
        assert_eq!(datagram.from.ip(), seen.parse::<IpAddr>().unwrap(), "{bound} from {from}");
        assert_eq!(datagram.from.port(), peer.local_addr().unwrap().port());
        bed.leases.push(lease);
        bed.finish();
    }
}

#[test]
fn groups_of_different_sizes_keep_their_buffers_apart() {
    let mut bed = Bed::new(2).with_buffers(4, DATAGRAM_HEADER_BYTES + 8);
    let large = bed.ring.add_buffers(uring::BufferSettings { count: 4, bytes_each: ROOM }).unwrap();
    let (small_socket, small_address) = udp("127.0.0.1:0");
    let (large_socket, large_address) = udp("127.0.0.1:0");
    let [small_slot, large_slot] = [bed.install(small_socket), bed.install(large_socket)];
    let small = bed.group();
    for (slot, group) in [(small_slot, small), (large_slot, large)] {
        let tag = bed.tag(RECEIVE, slot);
        bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    }
    let mut from_large = Vec::new();
    for _ in 0..2 {
        sender(small_address).send(b"small").unwrap();
        let lease = bed.next().lease.unwrap();
        assert_eq!((lease.group(), bed.ring.datagram(&lease).unwrap().payload), (small, &b"small"[..]));
        bed.leases.push(lease);
        sender(large_address).send(&[b'l'; 200]).unwrap();
        let lease = bed.next().lease.unwrap();
        assert_eq!((lease.group(), bed.ring.datagram(&lease).unwrap().payload), (large, &[b'l'; 200][..]));
        from_large.push(lease);
    }
    assert_eq!((bed.ring.available(small), bed.ring.available(large)), (2, 2));
    from_large.into_iter().for_each(|lease| bed.ring.give_back(lease));
    assert_eq!(bed.ring.available(large), 4);
    bed.finish();
}

#[test]
fn a_batch_that_does_not_fill_ends_at_its_min_wait() {
    let mut bed = Bed::new(1).with_buffers(64, ROOM);
    let (socket, address) = udp("127.0.0.1:0");
    let slot = bed.install(socket);
    let (tag, group) = (bed.tag(RECEIVE, slot), bed.group());
    bed.ring.push(Op::ReceiveDatagrams { socket: slot.into(), group }, tag);
    bed.ring.wait(Wait::default()).unwrap();
    let peer = sender(address);
    (0..3).for_each(|_| assert_eq!(peer.send(b"x").unwrap(), 1));

    let enters = bed.ring.enters();
    let min_wait = Some(std::time::Duration::from_millis(1));
    bed.ring.wait(Wait { completions_min: 64, min_wait, timeout: Some(LONG) }).unwrap();
    let batch: Vec<_> = std::iter::from_fn(|| bed.ring.pop()).collect();
    assert_eq!((batch.len(), bed.ring.enters()), (3, enters + 1), "one turn, one enter, the whole batch");
    bed.leases.extend(batch.into_iter().filter_map(|completion| completion.lease));
    bed.finish();
}
