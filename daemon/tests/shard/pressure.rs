//! A reader that is slow or away: TCP waits and loses nothing, UDP is counted, control messages are answered.

use std::io::Write;
use std::thread::JoinHandle;

use daemon::metrics::SinkState;
use manager::Reason;

use crate::bed::{ACK, Bed, Ports, Reader, STARTUP, TcpAgent, UdpAgent, datagram, event, queue};

/// Small bounds, so that a test fills them.
fn narrow() -> Bed {
    Bed::with(1, Ports::Own, |settings| {
        settings.sink.soft_bytes = 64 * 1024;
        settings.sink.hard_bytes = 128 * 1024;
    })
}

/// Has an agent send events on a thread of its own, since it will have to wait.
fn send_events(mut agent: TcpAgent, count: u32) -> JoinHandle<TcpAgent> {
    std::thread::spawn(move || {
        for sequence in 0..count {
            agent.say(event(agent.identity.number, sequence).as_bytes());
        }
        agent
    })
}

/// Reads `count` events of each of the agents, and checks that each agent's come in order.
fn read_events(reader: &Reader, agents: u32, count: u32) {
    let mut next = vec![0; agents as usize + 1];
    for _ in 0..agents * count {
        let got = reader.next();
        let number: u32 = got["1:(agent".len()..].split(')').next().unwrap().parse().unwrap();
        assert_eq!(got, datagram(number, next[number as usize]));
        next[number as usize] += 1;
    }
    assert!(next[1..].iter().all(|&next| next == count));
    assert!(reader.is_empty());
}

fn paused(bed: &Bed) -> u64 {
    bed.sum(|metrics| metrics.connections_paused.read())
}

#[test]
fn a_stalled_reader_pauses_tcp_and_loses_nothing_of_it() {
    const AGENTS: u32 = 5;
    const EVENTS: u32 = 4_000;
    let bed = narrow();
    let reader = bed.reader();
    let mut control_only = TcpAgent::started(50, bed.address());
    let agents = (1..=AGENTS).map(|number| TcpAgent::started(number, bed.address()));
    let sending: Vec<_> = agents.map(|agent| send_events(agent, EVENTS)).collect();
    bed.until("every agent that brings events is paused", |bed| paused(bed) == u64::from(AGENTS));
    // The reader may have come after the shard looked for it: then it is found at the next look.
    bed.until("the sink is full", |bed| queue(&bed.metrics[0]).state() == SinkState::Full);

    // Control messages are answered in all of this, on both transports; a datagram's event is counted as lost.
    control_only.say(STARTUP);
    assert_eq!(control_only.hear(), ACK);
    let mut over_udp = UdpAgent::new(60, bed.address());
    over_udp.say(event(60, 0).as_bytes());
    over_udp.say(STARTUP);
    assert_eq!(over_udp.hear(), ACK);
    assert_eq!(bed.dropped(Reason::SinkFull), 1);
    assert_eq!(paused(&bed), u64::from(AGENTS), "control messages pause nobody");

    read_events(&reader, AGENTS, EVENTS);
    let mut agents: Vec<TcpAgent> = sending.into_iter().map(|sending| sending.join().unwrap()).collect();
    bed.until("all go on", |bed| paused(bed) == 0);
    for agent in &mut agents {
        agent.say(STARTUP);
        assert_eq!(agent.hear(), ACK);
    }
    let metrics = bed.finish();
    assert_eq!(queue(&metrics[0]).delivered.read(), u64::from(AGENTS * EVENTS));
    assert!(metrics[0].pauses.read() >= u64::from(AGENTS));
}

#[test]
fn what_a_closed_connection_had_sent_is_not_lost_in_a_stall() {
    const EVENTS: u32 = 3_000;
    let bed = narrow();
    let reader = bed.reader();
    let mut agent = TcpAgent::connect(1, bed.address());
    let frames: Vec<u8> =
        (0..EVENTS).flat_map(|sequence| agent.identity.frame(event(1, sequence).as_bytes())).collect();
    let writing = std::thread::spawn(move || {
        agent.stream.write_all(&frames).unwrap();
        // Ends the connection behind its last event.
        drop(agent);
    });
    bed.until("it is paused", |bed| paused(bed) == 1);
    read_events(&reader, 1, EVENTS);
    writing.join().unwrap();
    bed.until("its end is seen", |bed| bed.sum(|metrics| metrics.connections.read()) == 0);
    bed.finish();
}

#[test]
fn a_new_connection_at_the_hard_bound_is_answered_and_its_events_wait() {
    let bed = narrow();
    let mut flooder = TcpAgent::started(1, bed.address());
    let flood: Vec<u8> =
        (0..4_000).flat_map(|sequence| flooder.identity.frame(event(1, sequence).as_bytes())).collect();
    let mut writer = flooder.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&flood).unwrap());
    bed.until("it is paused", |bed| paused(bed) == 1);

    let mut late = TcpAgent::started(2, bed.address());
    let frames: Vec<u8> =
        (0..300).flat_map(|sequence| late.identity.frame(event(2, sequence).as_bytes())).collect();
    late.stream.write_all(&frames).unwrap();
    bed.until("it is paused too", |bed| paused(bed) == 2);

    let reader = bed.reader();
    let mut next = [0; 3];
    for _ in 0..4_300 {
        let got = reader.next();
        let number: u32 = got["1:(agent".len()..].split(')').next().unwrap().parse().unwrap();
        assert_eq!(got, datagram(number, next[number as usize]));
        next[number as usize] += 1;
    }
    assert_eq!(next, [0, 4_000, 300]);
    writing.join().unwrap();
    bed.finish();
}

#[test]
fn a_reader_that_went_away_gets_everything_when_it_is_back() {
    let bed = Bed::new();
    let mut agent = TcpAgent::started(1, bed.address());
    agent.say(event(1, 0).as_bytes());
    bed.until("the sink says that nobody reads", |bed| queue(&bed.metrics[0]).state() == SinkState::Away);
    let reader = bed.reader();
    assert_eq!(reader.next(), datagram(1, 0), "what came before the reader");

    drop(reader);
    std::fs::remove_file(bed.queue_path()).unwrap();
    for sequence in 1..100 {
        agent.say(event(1, sequence).as_bytes());
    }
    bed.until("all are taken", |bed| bed.sum(|metrics| metrics.events.read()) == 100);
    bed.until("the sink says so again", |bed| queue(&bed.metrics[0]).state() == SinkState::Away);
    let reader = bed.reader();
    for sequence in 1..100 {
        assert_eq!(reader.next(), datagram(1, sequence));
    }
    bed.finish();
}
