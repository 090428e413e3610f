//! What strangers and broken peers send harms nobody else, and is counted.

use std::io::Write;

use manager::Reason;

use crate::bed::{
    Bed, Ports, TcpAgent, UdpAgent, connect, datagram, event, is_closed, ping, read_frame, udp,
};

#[test]
fn a_frame_too_long_closes_only_its_connection() {
    let bed = Bed::new();
    let reader = bed.reader();
    let mut good = TcpAgent::started(1, bed.address());
    let mut bad = TcpAgent::started(2, bed.address());
    let mut frames = bad.identity.frame(event(2, 0).as_bytes());
    frames.extend(65_537_u32.to_le_bytes());
    frames.extend([b'x'; 5_000]);
    bad.stream.write_all(&frames).unwrap();
    assert_eq!(reader.next(), datagram(2, 0), "what came before is good");
    assert!(bad.is_closed());
    good.say(event(1, 0).as_bytes());
    assert_eq!(reader.next(), datagram(1, 0));
    assert_eq!(bed.dropped(Reason::FrameLength), 1);
    bed.finish();
}

#[test]
fn bytes_of_every_kind_are_counted_and_harm_nobody() {
    let bed = Bed::new();
    let reader = bed.reader();
    let mut good = TcpAgent::started(1, bed.address());
    let mut stranger = UdpAgent::new(500, bed.address());
    let mut impostor = UdpAgent::new(3, bed.address());
    let mut wrong_key = impostor.identity.seal(b"1:a:b");
    wrong_key[1..4].copy_from_slice(b"004");
    let mut damaged = impostor.identity.seal(b"1:a:b");
    *damaged.last_mut().unwrap() ^= 1;
    let again = good.identity.seal(b"1:a:again");
    let mut messages: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"!".to_vec(),
        b"!!".to_vec(),
        b"!001!".to_vec(),
        b"!001!:".to_vec(),
        b"!001!#AES:".to_vec(),
        b"!001!#AES:short".to_vec(),
        b"!99999999!:12345678".to_vec(),
        b":12345678".to_vec(),
        b"#AES:0123456789abcdef".to_vec(),
        b"#pingpong".to_vec(),
        b"#pin".to_vec(),
        vec![0; 1_000],
        vec![0xff; 60_000],
        stranger.identity.seal(b"1:a:b"),
        wrong_key,
        damaged,
    ];
    messages.extend((0..=255_u8).map(|byte| vec![byte; 1 + usize::from(byte)]));
    let socket = udp(bed.address());
    let mut expected = bed.sum(|metrics| metrics.received.read());
    for message in &messages {
        socket.send(message).unwrap();
        expected += 1;
        bed.until("it has its verdict", |bed| bed.sum(|metrics| metrics.received.read()) == expected);
        let mut stream = connect(bed.address());
        let mut frame = Vec::new();
        codec::frame(message, &mut frame);
        stream.write_all(&frame).unwrap();
        expected += 1;
        bed.until("it has its verdict", |bed| bed.sum(|metrics| metrics.received.read()) == expected);
    }
    let before = bed.dropped(Reason::CounterDuplicate);
    let mut frame = Vec::new();
    codec::frame(&again, &mut frame);
    codec::frame(&again, &mut frame);
    good.stream.write_all(&frame).unwrap();
    assert_eq!(reader.next(), "1:(agent1) any->a:again");
    good.say(event(1, 0).as_bytes());
    assert_eq!(reader.next(), datagram(1, 0));
    assert_eq!(bed.dropped(Reason::CounterDuplicate), before + 1);
    let reasons = [Reason::Malformed, Reason::IdUnknown, Reason::AddressUnknown];
    assert!(reasons.iter().all(|reason| bed.dropped(*reason) > 0));
    assert!(reader.is_empty());
    bed.finish();
}

#[test]
fn an_agent_that_never_reads_is_closed_and_nobody_else_is() {
    let bed = Bed::with(1, Ports::Own, |settings| settings.agents.send_queue_bytes_max = 4_096);
    let mut others: Vec<TcpAgent> = (1..=3).map(|number| TcpAgent::started(number, bed.address())).collect();
    let deaf = connect(bed.address());
    // Pings are answered one by one, and nobody reads the answers.
    let pings = b"\x05\0\0\0#ping".repeat(7_000);
    let mut writer = deaf.try_clone().unwrap();
    let writing = std::thread::spawn(move || while writer.write_all(&pings).is_ok() {});
    bed.until("the deaf one is closed", |bed| bed.sum(|metrics| metrics.connections.read()) == 3);
    writing.join().unwrap();
    assert_eq!(bed.sum(|metrics| metrics.slow_readers.read()), 1);
    for agent in &mut others {
        agent.say(crate::bed::STARTUP);
        assert_eq!(agent.hear(), crate::bed::ACK);
    }
    drop(deaf);
    bed.finish();
}

#[test]
fn quick_reconnects_find_their_slots_clean() {
    let bed = Bed::new();
    for round in 0..200_u32 {
        let mut stream = connect(bed.address());
        // Half a frame stays behind, and must not become part of the next tenant's.
        stream.write_all(&b"\x05\0\0\0#ping\x05\0\0\0#p"[..]).unwrap();
        assert_eq!(read_frame(&mut stream).unwrap(), b"#pong", "round {round}");
    }
    bed.until("all are gone", |bed| bed.sum(|metrics| metrics.connections.read()) == 0);
    ping(bed.address());
    bed.finish();
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let bed = Bed::with(1, Ports::Own, |settings| settings.shards.connections_max = 2);
    let mut held: Vec<TcpAgent> = (1..=2).map(|number| TcpAgent::started(number, bed.address())).collect();
    assert!(is_closed(&mut connect(bed.address())));
    assert_eq!(bed.sum(|metrics| metrics.refused.sum()), 1);
    held.pop();
    bed.until("one has gone", |bed| bed.sum(|metrics| metrics.connections.read()) == 1);
    TcpAgent::started(3, bed.address());
    bed.finish();
}
