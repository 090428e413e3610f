//! An agent that connects again replaces its old connection at once, wherever that is.

use crate::bed::{ACK, Bed, Identity, Ports, STARTUP, TcpAgent, connect, datagram, event};

/// A second connection of the same agent, which goes on with its counters.
fn again(agent: &mut TcpAgent, to: std::net::SocketAddr) -> TcpAgent {
    let identity = std::mem::replace(&mut agent.identity, Identity::new(1));
    let mut newer = TcpAgent { identity, stream: connect(to) };
    newer.say(STARTUP);
    assert_eq!(newer.hear(), ACK);
    newer
}

#[test]
fn a_newer_connection_on_the_same_shard_wins() {
    let bed = Bed::new();
    let reader = bed.reader();
    let mut agent = TcpAgent::started(1, bed.address());
    for sequence in 0..10 {
        let mut newer = again(&mut agent, bed.address());
        assert!(agent.is_closed());
        newer.say(event(1, sequence).as_bytes());
        assert_eq!(reader.next(), datagram(1, sequence));
        agent = newer;
    }
    bed.until("one is left", |bed| bed.sum(|metrics| metrics.connections.read()) == 1);
    bed.finish();
}

#[test]
fn a_newer_connection_on_another_shard_wins() {
    let bed = Bed::with(2, Ports::Own, |_| {});
    let reader = bed.reader();
    let mut agent = TcpAgent::started(1, bed.addresses[0]);
    for sequence in 0..10 {
        let mut newer = again(&mut agent, bed.addresses[(sequence as usize + 1) % 2]);
        assert!(agent.is_closed());
        newer.say(event(1, sequence).as_bytes());
        assert_eq!(reader.next(), datagram(1, sequence));
        agent = newer;
    }
    bed.until("one is left", |bed| bed.sum(|metrics| metrics.connections.read()) == 1);
    bed.finish();
}
