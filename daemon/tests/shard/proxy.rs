//! Listeners behind a load balancer: the PROXY protocol says where a connection comes from, and the rules are for that.

use std::io::Write;
use std::net::TcpStream;

use daemon::settings::{ListenerKind, ListenerTable, Settings};
use manager::{AgentTable, CounterSeed, Reason, Refusal};

use crate::bed::{ACK, Bed, Identity, STARTUP, is_closed, read_frame};
use crate::syslog::{connect_from, refused, table};

const V1: &[u8] = b"PROXY TCP4 198.51.100.7 127.0.0.1 40000 1514\r\n";

/// A listener for agents, and one for syslog, behind a load balancer at 127.0.0.1.
fn bed(change: impl FnOnce(&mut Settings)) -> Bed {
    let bed = Bed::bound(|settings| {
        settings.listener.push(ListenerTable {
            kind: ListenerKind::Secure,
            address: "127.0.0.1:0".parse().unwrap(),
            protocols: None,
            allowed: Vec::new(),
            denied: vec!["198.51.100.66".parse().unwrap()],
            crypto_accept: None,
            proxy_protocol_from: vec!["127.0.0.1".parse().unwrap()],
        });
        let syslog = table(settings);
        syslog.allowed = vec!["198.51.100.0/24".parse().unwrap()];
        syslog.proxy_protocol_from = vec!["127.0.0.1".parse().unwrap()];
        change(settings);
    });
    // Agents that are let in from one address only.
    let keys = b"001 agent1 198.51.100.7 key1\n002 agent2 198.51.100.8 key2\n";
    let entries = codec::KeyFile::parse(keys).entries;
    bed.table.store(AgentTable::build(entries, None, &CounterSeed::new()).into());
    bed.mail(daemon::mail::Mail::Keys);
    crate::bed::ping(bed.address());
    bed
}

fn hear(stream: &mut TcpStream, identity: &mut Identity) -> Vec<u8> {
    identity.open(&read_frame(stream).unwrap())
}

#[test]
fn an_agents_address_is_the_one_behind_the_load_balancer() {
    let bed = bed(|_| {});
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f".as_slice(),
        &[198, 51, 100, 7, 127, 0, 0, 1, 0x9c, 0x40, 0x05, 0xea],
        b"\x04\0\0",
    ]
    .concat();
    for header in [V1, &v2] {
        let mut identity = Identity::new(1);
        let mut stream = connect_from(1, bed.addresses[1]);
        let bytes = [header, &identity.frame(STARTUP)].concat();
        // In pieces, as no load balancer would.
        for piece in bytes.chunks(11) {
            stream.write_all(piece).unwrap();
        }
        assert_eq!(hear(&mut stream, &mut identity), ACK);
        // Its counters go on in the next connection.
        let entries = codec::KeyFile::parse(b"001 agent1 198.51.100.7 key1\n").entries;
        bed.table.store(AgentTable::build(entries, None, &CounterSeed::new()).into());
        bed.mail(daemon::mail::Mail::Keys);
        assert!(is_closed(&mut stream), "another state is another agent");
    }
    let mut stranger = Identity::new(1);
    let mut stream = connect_from(1, bed.addresses[1]);
    stream.write_all(b"PROXY TCP4 198.51.100.9 127.0.0.1 40000 1514\r\n").unwrap();
    stream.write_all(&stranger.frame(STARTUP)).unwrap();
    bed.until("it is refused by its key", |bed| bed.dropped(Reason::IdAddress) == 1);
    bed.finish();
}

#[test]
fn nobody_else_is_served_and_nothing_else_is_read() {
    let bed = bed(|settings| settings.agents.authentication_deadline_seconds = 1);
    let secure = bed.addresses[1];
    assert!(is_closed(&mut connect_from(2, secure)), "no load balancer");
    assert_eq!(refused(&bed, Refusal::ProxyPeer), 1);
    for (count, begin) in
        [(1, &b"\x05\0\0\0#ping"[..]), (2, b"PROXY TCP4 1.2.3.4 1.2.3.4 x 1\r\n"), (3, &[b'P'; 200])]
    {
        let mut stream = connect_from(1, secure);
        stream.write_all(begin).unwrap();
        assert!(is_closed(&mut stream), "{begin:?}");
        assert_eq!(refused(&bed, Refusal::ProxyHeader), count);
    }
    let mut denied = connect_from(1, secure);
    denied.write_all(b"PROXY TCP4 198.51.100.66 127.0.0.1 1 1514\r\n").unwrap();
    assert!(is_closed(&mut denied));
    assert_eq!(refused(&bed, Refusal::AddressDenied), 1);
    let mut late = connect_from(1, secure);
    late.write_all(&V1[..20]).unwrap();
    assert!(is_closed(&mut late), "half a header does not keep a connection");
    let mut late = connect_from(1, bed.addresses[2]);
    late.write_all(&V1[..20]).unwrap();
    assert!(is_closed(&mut late), "nor at a syslog listener");
    let mut health = connect_from(1, secure);
    health.write_all(b"PROXY UNKNOWN\r\n\x05\0\0\0#ping").unwrap();
    assert_eq!(read_frame(&mut health).unwrap(), b"#pong", "a health check");
    drop(health);
    bed.until("all are gone", |bed| bed.sum(|metrics| metrics.connections.read()) == 0);
    bed.finish();
}

#[test]
fn a_lines_source_is_the_one_behind_the_load_balancer() {
    let bed = bed(|_| {});
    let (reader, to) = (bed.reader(), bed.addresses[2]);
    let mut stream = connect_from(1, to);
    stream.write_all(&[V1, b"<34>first\n<34>sec"].concat()).unwrap();
    assert_eq!(reader.next(), "2:198.51.100.7:first");
    stream.write_all(b"ond\n").unwrap();
    assert_eq!(reader.next(), "2:198.51.100.7:second");
    let mut denied = connect_from(1, to);
    denied.write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 514\r\n<34>x\n").unwrap();
    assert!(is_closed(&mut denied));
    assert_eq!(refused(&bed, Refusal::AddressDenied), 1);
    assert!(reader.is_empty());
    bed.finish();
}
