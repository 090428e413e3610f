//! One agent at full speed delays nobody: turns are counted, not time. Real sockets on loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::economy::{Bed, Sink};

/// As many events as the flood has; far more than one turn decodes.
const FLOOD_EVENTS: usize = 20_000;

/// The turn that decides on a message, and the one that hands its answer to the kernel. Several who flood may each have
/// their share first: less than a turn for each but the first.
const fn turns_max(flooders: usize) -> u32 {
    1 + flooders as u32
}

/// Frames of events of one agent.
fn flood(bed: &mut Bed, number: usize, events: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..events {
        let event = bed.event(number);
        codec::frame(&event, &mut frames);
    }
    frames
}

/// Writes as much of `rest` as the socket takes now.
fn fill(stream: &mut TcpStream, rest: &mut &[u8]) {
    loop {
        match stream.write(rest) {
            Ok(written) if written > 0 => *rest = &rest[written..],
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Says something that is answered, and turns the shard until the answer is there.
fn turns_to_an_answer(bed: &mut Bed, number: usize, stream: &mut TcpStream) -> u32 {
    let message = bed.message(number, b"#!-Linux web01\nx merged.mg\n");
    let mut frame = Vec::new();
    codec::frame(&message, &mut frame);
    stream.write_all(&frame).unwrap();
    let mut turns = 0;
    loop {
        bed.shard.turn().unwrap();
        turns += 1;
        match stream.read(&mut [0; 512]) {
            Ok(bytes) => {
                assert!(bytes > 4, "an answer, not the end");
                return turns;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_flood_over_tcp_delays_no_answer_to_another_agent() {
    for flooders in [1, 5] {
        let mut bed = Bed::new(Sink::Archive);
        let mut floods: Vec<(TcpStream, Vec<u8>)> = Vec::new();
        for number in 0..flooders {
            let frames = flood(&mut bed, number, FLOOD_EVENTS / flooders);
            floods.push((bed.tcp(), frames));
        }
        let mut rests: Vec<&[u8]> = floods.iter().map(|(_, frames)| &frames[..]).collect();
        let mut streams: Vec<TcpStream> =
            floods.iter().map(|(stream, _)| stream.try_clone().unwrap()).collect();
        let mut other = bed.tcp();
        other.set_nonblocking(true).unwrap();
        streams.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
        // The connections are taken in.
        assert!(turns_to_an_answer(&mut bed, 7, &mut other) < 20);
        for round in 0..20 {
            for (stream, rest) in streams.iter_mut().zip(&mut rests) {
                fill(stream, rest);
            }
            let turns = turns_to_an_answer(&mut bed, 7, &mut other);
            assert!(
                turns <= turns_max(flooders),
                "{turns} turns in round {round} beside {flooders} at full speed"
            );
        }
        // And what was kept of the floods is not lost.
        let sent = FLOOD_EVENTS / flooders * flooders;
        while bed.shard.metrics.events.read() < sent as u64 {
            for (stream, rest) in streams.iter_mut().zip(&mut rests) {
                fill(stream, rest);
            }
            bed.shard.turn().unwrap();
        }
        assert_eq!(bed.shard.metrics.dropped.sum(), 0);
        bed.finish();
    }
}
