//! Accepts into direct descriptors with the peer's address, connects, streams.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use uring::sockets::{TcpSettings, tcp_client, tcp_listener};
use uring::{Armed, DirectSlot, Errno, Op, RingSettings, SendMode};

use crate::{ACCEPT, Bed, CLOSE, OTHER, RECEIVE, SEND};

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let settings = TcpSettings {
        address: address.parse().unwrap(),
        shared: false,
        backlog: 1_024,
        receive_buffer_bytes: None,
    };
    let listener = tcp_listener(&settings).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Bed {
    /// Pushes an accept into a free slot; `None` when the table is full.
    fn accept(&mut self, listener: DirectSlot) -> Option<DirectSlot> {
        let into = self.slots.allocate()?;
        let tag = self.tag(ACCEPT, into);
        self.ring.push(Op::Accept { listener: listener.into(), into }, tag);
        Some(into)
    }
}

#[test]
fn each_of_500_accepted_connections_has_its_own_peers_address() {
    const CONNECTIONS: usize = 500;
    const ACCEPTS: usize = 16;
    let settings = RingSettings { submissions: 64, completions: 2_048, direct_descriptors: 600 };
    let mut bed = Bed::sized(&settings).with_buffers(64, 256);
    let (listener, address) = listener("127.0.0.1:0");
    let listening = bed.install(listener);
    (0..ACCEPTS).for_each(|_| assert!(bed.accept(listening).is_some()));
    assert!(bed.poll().is_none());

    // All at once: every connection is made before the first accept is looked at, each from an address of its own.
    let mut clients: HashMap<SocketAddr, TcpStream> = HashMap::new();
    for number in 0..CONNECTIONS {
        let from = SocketAddr::from(([127, 1, (number / 250) as u8, (number % 250 + 1) as u8], 0));
        let socket = socket2::Socket::from(tcp_client(from).unwrap());
        socket.connect(&address.into()).unwrap();
        let mut client = TcpStream::from(socket);
        write!(client, "{}", client.local_addr().unwrap()).unwrap();
        clients.insert(client.local_addr().unwrap(), client);
    }
    let mut peers = HashMap::new();
    let mut said = 0;
    let group = bed.group();
    while said < CONNECTIONS {
        let completion = bed.next();
        let slot = bed.slots.tenant(completion.tag).unwrap();
        if completion.tag.kind() == ACCEPT {
            assert_eq!((completion.result, completion.armed), (Ok(0), Armed::No));
            assert!(clients.contains_key(&completion.peer.unwrap()));
            peers.insert(slot, completion.peer.unwrap());
            bed.accept(listening);
            let tag = bed.tag(RECEIVE, slot);
            bed.ring.push(Op::ReceiveStream { socket: slot.into(), group }, tag);
        } else if let Some(lease) = completion.lease {
            assert_eq!(
                bed.ring.bytes(&lease),
                peers[&slot].to_string().as_bytes(),
                "the peer says who it is"
            );
            bed.ring.give_back(lease);
            said += 1;
        } else {
            assert_eq!(completion.result, Err(Errno::NOBUFS), "64 buffers may run out");
            bed.ring.starve(group, completion.tag);
        }
        while let Some(tag) = bed.ring.next_fed(group) {
            bed.ring.push(Op::ReceiveStream { socket: DirectSlot::new(tag.slot()).into(), group }, tag);
        }
    }
    assert_eq!(peers.len(), CONNECTIONS);
    bed.finish();
}

#[test]
fn a_full_table_never_drops_an_accepted_connection() {
    let mut bed = Bed::new(4).with_buffers(8, 64);
    let (listener, address) = listener("127.0.0.1:0");
    let listening = bed.install(listener);
    while bed.accept(listening).is_some() {}
    assert_eq!(bed.slots.in_use(), 4);
    let mut clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted: Vec<_> =
        bed.take(3).iter().map(|completion| DirectSlot::new(completion.tag.slot())).collect();
    assert!(bed.poll().is_none(), "two wait in the backlog");

    let group = bed.group();
    for (number, client) in clients.iter_mut().enumerate().skip(3) {
        let slot = accepted.remove(0);
        let close = bed.tag(CLOSE, slot);
        bed.ring.push(Op::Close { slot }, close);
        assert_eq!(bed.next().result, Ok(0));
        bed.slots.release(slot);
        assert_eq!(bed.accept(listening), Some(slot), "the slot that came back");
        let completion = bed.next();
        assert_eq!(completion.peer, Some(client.local_addr().unwrap()), "connection {number} was kept");
        client.write_all(b"here").unwrap();
        let tag = bed.tag(RECEIVE, slot);
        bed.ring.push(Op::ReceiveStream { socket: slot.into(), group }, tag);
        let lease = bed.next().lease.unwrap();
        assert_eq!(bed.ring.bytes(&lease), b"here");
        bed.ring.give_back(lease);
    }
    bed.finish();
}

#[test]
fn accepted_addresses_are_ipv6_and_v4_mapped() {
    let mut bed = Bed::new(2);
    let (listener, address) = listener("[::]:0");
    let listening = bed.install(listener);
    for (host, seen) in [("[::1]", "::1"), ("127.0.0.1", "::ffff:127.0.0.1")] {
        let slot = bed.accept(listening).unwrap();
        let client = TcpStream::connect(format!("{host}:{}", address.port())).unwrap();
        let peer = bed.next().peer.unwrap();
        assert_eq!((peer.ip(), peer.port()), (seen.parse().unwrap(), client.local_addr().unwrap().port()));
        let close = bed.tag(CLOSE, slot);
        bed.ring.push(Op::Close { slot }, close);
        assert_eq!(bed.next().result, Ok(0));
        bed.slots.release(slot);
    }
    bed.finish();
}

#[test]
fn a_connect_on_a_direct_descriptor_sends_receives_and_sees_the_end() {
    let mut bed = Bed::new(1).with_buffers(4, 64);
    let (listener, address) = listener("127.0.0.1:0");
    let slot = bed.install(tcp_client("127.9.8.7:0".parse().unwrap()).unwrap());
    let [connect, send, receive] = [OTHER, SEND, RECEIVE].map(|kind| bed.tag(kind, slot));
    bed.ring.push(Op::Connect { socket: slot.into(), to: address }, connect);
    let connected = bed.next();
    assert_eq!((connected.tag, connected.result), (connect, Ok(0)));
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), "127.9.8.7".parse::<std::net::IpAddr>().unwrap());

    bed.ring.push(Op::Send { socket: slot.into(), bytes: "to you".into(), mode: SendMode::Waiting }, send);
    assert_eq!(bed.next().result, Ok(6));
    let mut bytes = [0; 6];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to you");

    let group = bed.group();
    bed.ring.push(Op::ReceiveStream { socket: slot.into(), group }, receive);
    server.write_all(b"to me").unwrap();
    let lease = bed.next().lease.unwrap();
    assert_eq!(bed.ring.bytes(&lease), b"to me");
    bed.ring.give_back(lease);

    bed.ring.push(Op::ShutdownSend { socket: slot.into() }, send);
    assert_eq!(bed.next().result, Ok(0));
    assert_eq!(server.read(&mut bytes).unwrap(), 0, "the server reads to the end");
    drop(server);
    let end = bed.next();
    assert_eq!((end.tag, end.result, end.armed), (receive, Ok(0), Armed::No));
    bed.leases.extend(end.lease);
    bed.finish();
}

#[test]
fn a_refused_connect_says_so() {
    let mut bed = Bed::new(1);
    let (listener, address) = listener("127.0.0.1:0");
    drop(listener);
    let slot = bed.install(tcp_client("127.0.0.1:0".parse().unwrap()).unwrap());
    let tag = bed.tag(OTHER, slot);
    bed.ring.push(Op::Connect { socket: slot.into(), to: address }, tag);
    assert_eq!(bed.next().result, Err(Errno::CONNREFUSED));
    bed.finish();
}

#[test]
fn what_a_peer_has_not_acknowledged_is_known_even_after_its_end() {
    let mut bed = Bed::new(4);
    let (listener, address) = listener("127.0.0.1:0");
    let ours = TcpStream::connect(address).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    let slot = bed.install(ours);
    let tag = bed.tag(OTHER, slot);
    let unacknowledged = |bed: &mut Bed| {
        bed.ring.push(Op::Unacknowledged { socket: slot.into() }, tag);
        let completion = bed.next();
        assert_eq!(completion.armed, Armed::No);
        completion.result.unwrap()
    };
    let send = |bed: &mut Bed, bytes: usize| {
        let send = bed.tag(SEND, slot);
        let bytes = vec![0; bytes].into();
        bed.ring.push(Op::Send { socket: slot.into(), bytes, mode: SendMode::Nonblocking }, send);
        bed.next().result
    };
    assert_eq!(unacknowledged(&mut bed), 0);
    assert_eq!(send(&mut bed, 10), Ok(10));
    while unacknowledged(&mut bed) > 0 {
        std::thread::yield_now();
    }
    // More than the peer's host takes while nobody reads there.
    while send(&mut bed, 1 << 20).is_ok() {}
    let left = unacknowledged(&mut bed);
    assert!(left > 0);
    // It ends with unread bytes, hence by a reset.
    drop(theirs);
    while send(&mut bed, 1) == Err(Errno::AGAIN) {
        std::thread::yield_now();
    }
    let after = unacknowledged(&mut bed);
    assert!(0 < after && after <= left, "{after} of {left}");
}
