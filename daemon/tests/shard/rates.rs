//! `agents.events_per_second_max`: who sends more waits over TCP, and is counted over UDP; control messages are no events.

use manager::Reason;

use crate::bed::{ACK, Bed, Ports, STARTUP, TcpAgent, UdpAgent, datagram, event};

fn limited(a_second: u32) -> Bed {
    Bed::with(1, Ports::Own, |settings| settings.agents.events_per_second_max = a_second)
}

#[test]
fn a_fast_agent_over_udp_is_cut_to_its_rate_and_hears_its_acks() {
    let bed = limited(10);
    let reader = bed.reader();
    let mut fast = UdpAgent::new(1, bed.address());
    for sequence in 0..100 {
        fast.say(event(1, sequence).as_bytes());
        if sequence % 10 == 0 {
            fast.say(STARTUP);
            assert_eq!(fast.hear(), ACK);
        }
    }
    bed.until("each has its verdict", |bed| bed.sum(|metrics| metrics.received.read()) == 110);
    assert_eq!(reader.next(), datagram(1, 0));
    let (events, limited) = (bed.sum(|metrics| metrics.events.read()), bed.dropped(Reason::RateLimited));
    assert_eq!((events + limited, bed.sum(|metrics| metrics.control.read())), (100, 10));
    assert!(events >= 10 && limited > 0, "{events} events, {limited} beyond the rate");
    let mut other = UdpAgent::new(2, bed.address());
    other.say(event(2, 0).as_bytes());
    bed.until("another agent has its own", |bed| bed.sum(|metrics| metrics.events.read()) > events);
    bed.finish();
}

#[test]
fn a_fast_agent_over_tcp_waits_and_loses_nothing() {
    const EVENTS: u32 = 1_800;
    let bed = limited(1_000);
    let reader = bed.reader();
    let mut fast = TcpAgent::started(1, bed.address());
    let frames: Vec<u8> =
        (0..EVENTS).flat_map(|sequence| fast.identity.frame(event(1, sequence).as_bytes())).collect();
    let writing = std::thread::spawn(move || {
        std::io::Write::write_all(&mut fast.stream, &frames).unwrap();
        fast
    });
    let mut other = TcpAgent::started(2, bed.address());
    for sequence in 0..1_000 {
        assert_eq!(reader.next(), datagram(1, sequence));
    }
    bed.until("it is held", |bed| bed.sum(|metrics| metrics.rate_holds.read()) > 0);
    other.say(STARTUP);
    assert_eq!(other.hear(), ACK, "nobody else waits");
    for sequence in 1_000..EVENTS {
        assert_eq!(reader.next(), datagram(1, sequence));
    }
    let mut fast = writing.join().unwrap();
    fast.say(STARTUP);
    assert_eq!(fast.hear(), ACK, "its control messages come behind its events");
    bed.finish();
}

#[test]
fn an_agent_that_is_held_can_close_and_stop() {
    let bed = limited(10);
    let reader = bed.reader();
    let mut gone = TcpAgent::started(1, bed.address());
    for sequence in 0..60 {
        gone.say(event(1, sequence).as_bytes());
    }
    bed.until("it is held", |bed| bed.sum(|metrics| metrics.connections_held.read()) == 1);
    assert_eq!(reader.next(), datagram(1, 0));
    let mut newer = TcpAgent { identity: gone.identity, stream: crate::bed::connect(bed.address()) };
    newer.say(STARTUP);
    assert_eq!(newer.hear(), ACK, "a newer connection takes its place");
    bed.until("nobody is held", |bed| bed.sum(|metrics| metrics.connections_held.read()) == 0);
    for sequence in 60..120 {
        newer.say(event(1, sequence).as_bytes());
    }
    bed.until("it is held too", |bed| bed.sum(|metrics| metrics.connections_held.read()) == 1);
    bed.stop();
    let drained = std::thread::spawn(move || {
        // Whatever the sink still has is read, so that the stop is not kept waiting.
        reader.0.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        while reader.0.recv(&mut [0; 1_024]).is_ok() {}
    });
    drained.join().unwrap();
    bed.finish();
}
