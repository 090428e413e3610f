//! Syslog listeners: lines of devices without an agent, over UDP and TCP, to the queue socket and the archives.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use daemon::settings::{ListenerKind, ListenerTable, Settings, Transports};
use manager::{Reason, Refusal};
use socket2::{Domain, Socket, Type};

use crate::bed::{Bed, PATIENCE, TcpAgent, connect, datagram, event, is_closed};

/// A listener of syslog over both transports that takes lines of 127.0.0.1 and 127.0.0.2.
pub(crate) fn table(settings: &mut Settings) -> &mut ListenerTable {
    settings.listener.push(ListenerTable {
        kind: ListenerKind::Syslog,
        address: "127.0.0.1:0".parse().unwrap(),
        protocols: Some(Transports::BOTH),
        allowed: vec!["127.0.0.0/30".parse().unwrap()],
        denied: vec!["127.0.0.3".parse().unwrap()],
        crypto_accept: None,
        proxy_protocol_from: Vec::new(),
    });
    settings.listener.last_mut().unwrap()
}

fn bed(change: impl FnOnce(&mut Settings)) -> (Bed, SocketAddr) {
    let bed = Bed::bound(|settings| {
        table(settings);
        change(settings);
    });
    let syslog = bed.addresses[1];
    (bed, syslog)
}

/// A UDP socket at one of the addresses of the loopback network.
fn udp_at(host: u8, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, 0, host), 0)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// A connection from one of the addresses of the loopback network.
pub(crate) fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn refused(bed: &Bed, refusal: Refusal) -> u64 {
    bed.sum(|metrics| metrics.refused.0[refusal.index()].read())
}

#[test]
fn lines_reach_analysisd_from_allowed_addresses_only() {
    let (bed, to) = bed(|_| {});
    let reader = bed.reader();
    for (host, line) in [(1, &b"<34>Oct 11 22:14:15 host su: x\n"[..]), (2, b"no priority")] {
        udp_at(host, to).send(line).unwrap();
        let text = std::str::from_utf8(line).unwrap().trim_start_matches("<34>").trim_end();
        assert_eq!(reader.next(), format!("2:127.0.0.{host}:{text}"));
    }
    for host in [3, 9] {
        udp_at(host, to).send(b"<34>forged").unwrap();
        assert!(is_closed(&mut connect_from(host, to)));
    }
    udp_at(1, to).send(b"<34>\n").unwrap();
    bed.until("all have their verdict", |bed| bed.sum(|metrics| metrics.received.read()) == 5);
    assert!(reader.is_empty());
    assert_eq!(bed.dropped(Reason::AddressDenied), 2);
    assert_eq!(bed.dropped(Reason::EventMalformed), 1, "nothing is left of it");
    assert_eq!(refused(&bed, Refusal::AddressDenied), 2);
    let last = bed.metrics[0].dropped_last.lock().unwrap()[Reason::AddressDenied.index()].unwrap();
    assert_eq!(last.from.ip().to_string(), "127.0.0.9");
    bed.finish();
}

#[test]
fn streams_are_cut_into_lines_in_either_framing_beside_agents() {
    let (bed, to) = bed(|_| {});
    let reader = bed.reader();
    let mut agent = TcpAgent::started(1, bed.address());
    let mut stream = connect_from(2, to);
    for part in [&b"<34>one\n<35>tw"[..], b"o\r\n9 <36>three<37>four\n7 <38>a", b"\nb<39>the end"] {
        stream.write_all(part).unwrap();
    }
    for line in ["one", "two", "three", "four", "a\nb"] {
        assert_eq!(reader.next(), format!("2:127.0.0.2:{line}"));
    }
    agent.say(event(1, 0).as_bytes());
    assert_eq!(reader.next(), datagram(1, 0));
    drop(stream);
    assert_eq!(reader.next(), "2:127.0.0.2:the end", "a last line without its newline");
    bed.until("it is gone", |bed| bed.sum(|metrics| metrics.syslog_connections.read()) == 0);
    assert_eq!(bed.sum(|metrics| metrics.syslog_lines.read()), 6);
    bed.finish();
}

#[test]
fn a_line_too_long_gives_its_first_part_and_is_counted() {
    let (bed, to) = bed(|_| {});
    let reader = bed.reader();
    let longest = codec::syslog_line_bytes_max(codec::Product::Ossec);
    let line = vec![b'l'; 20_000];
    udp_at(1, to).send(&line).unwrap();
    let expected = format!("2:127.0.0.1:{}", "l".repeat(longest));
    assert_eq!(reader.next(), expected);
    let mut stream = connect(to);
    stream.write_all(&line).unwrap();
    stream.write_all(b"\nshort\n").unwrap();
    assert_eq!(reader.next(), expected);
    assert_eq!(reader.next(), "2:127.0.0.1:short");
    bed.until("they are counted", |bed| bed.sum(|metrics| metrics.syslog_lines_cut.read()) == 2);
    bed.finish();
}

#[test]
fn a_stalled_reader_holds_streams_back_and_loses_no_line_of_them() {
    const LINES: usize = 8_000;
    let (bed, to) = bed(|settings| {
        settings.sink.soft_bytes = 64 * 1024;
        settings.sink.hard_bytes = 128 * 1024;
    });
    let mut stream = connect(to);
    let writing = std::thread::spawn(move || {
        let text: String = (0..LINES).map(|number| format!("<34>line {number:05} {:60}\n", "")).collect();
        stream.write_all(text.as_bytes()).unwrap();
    });
    bed.until("it is paused", |bed| bed.sum(|metrics| metrics.connections_paused.read()) == 1);
    let socket = udp_at(1, to);
    for _ in 0..10 {
        socket.send(b"<34>a datagram can't wait").unwrap();
    }
    bed.until("they are counted", |bed| bed.dropped(Reason::SinkFull) == 10);
    let reader = bed.reader();
    for number in 0..LINES {
        assert_eq!(reader.next().trim_end(), format!("2:127.0.0.1:line {number:05}"));
    }
    writing.join().unwrap();
    assert!(reader.is_empty());
    bed.finish();
}

#[test]
fn syslog_connections_have_limits_of_their_own() {
    let (bed, to) = bed(|settings| {
        settings.syslog.connections_max = 2;
        settings.syslog.connections_per_address_max = 1;
    });
    let reader = bed.reader();
    let mut first = connect_from(1, to);
    let _second = connect_from(2, to);
    bed.until("both are in", |bed| bed.sum(|metrics| metrics.syslog_connections.read()) == 2);
    assert!(is_closed(&mut connect_from(2, to)));
    assert_eq!(refused(&bed, Refusal::Syslog), 1);
    TcpAgent::started(1, bed.address());
    first.write_all(b"<34>still there\n").unwrap();
    assert_eq!(reader.next(), "2:127.0.0.1:still there");
    drop(first);
    bed.until("one is gone", |bed| bed.sum(|metrics| metrics.syslog_connections.read()) == 1);
    assert!(is_closed(&mut connect_from(2, to)));
    assert_eq!(refused(&bed, Refusal::SyslogAddress), 1);
    bed.finish();
}

#[test]
fn a_device_that_says_nothing_is_closed() {
    let (bed, to) = bed(|settings| settings.syslog.idle_seconds = 1);
    let mut silent = connect(to);
    assert!(is_closed(&mut silent));
    assert_eq!(bed.sum(|metrics| metrics.syslog_idle.read()), 1);
    bed.finish();
}

#[test]
fn what_came_before_the_stop_is_handed_over() {
    let (bed, to) = bed(|_| {});
    let reader = bed.reader();
    let mut stream = connect(to);
    stream.write_all(b"<34>whole\n<34>begun").unwrap();
    assert_eq!(reader.next(), "2:127.0.0.1:whole");
    bed.stop();
    assert_eq!(reader.next(), "2:127.0.0.1:begun");
    assert!(is_closed(&mut stream));
    bed.finish();
}

#[test]
fn lines_reach_the_archives_as_analysisd_writes_them() {
    let (bed, to) = bed(|settings| {
        settings.sink.queue.enabled = false;
        settings.sink.archives.text = true;
        settings.sink.archives.json = true;
    });
    udp_at(2, to).send(b"<34>Oct 11 22:14:15 router7 su: x\n").unwrap();
    let settings = std::sync::Arc::clone(&bed.settings);
    bed.until("it is written", |bed| {
        let delivered = |kind| bed.metrics[0].sink(kind).delivered.read();
        use daemon::metrics::SinkKind;
        delivered(SinkKind::ArchiveText) == 1 && delivered(SinkKind::ArchiveJson) == 1
    });
    let text = std::fs::read_to_string(settings.archives_text_path()).unwrap();
    assert!(text.ends_with(" router7->127.0.0.2 Oct 11 22:14:15 router7 su: x\n"), "{text}");
    let json = std::fs::read_to_string(settings.archives_json_path()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["location"], &json["queue"]), (&"127.0.0.2".into(), &"2".into()));
    assert_eq!(json["full_log"], "Oct 11 22:14:15 router7 su: x");
    bed.finish();
}
