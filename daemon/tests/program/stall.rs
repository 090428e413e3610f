//! analysisd stands still: TCP waits, UDP is counted, control goes on, and afterwards nothing of TCP is missing.

use std::{collections::HashMap, fs, os::unix::net::UnixDatagram, path::Path};

use codec::Method;

use crate::{
    agent::{Agent, Tcp, Udp, framed},
    program::{PATIENCE, TestHome},
};

const WEB: &str = "001 web any 0123456789abcdef";
const MAIL: &str = "002 mail any 00112233445566778899";
const SETTINGS: &str = "[sink]\nsoft_bytes = 65_536\nhard_bytes = 262_144\n[sink.queue]\nenabled = true\n\
                        [sink.archives]\ntext = false\n";

/// analysisd's end of the queue socket.
fn bind(home: &Path) -> UnixDatagram {
    let path = home.join("queue/ossec/queue");
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The number at the end of an event, and which agent it is of.
fn receive(queue: &UnixDatagram) -> (String, u64) {
    let mut buffer = [0; 65_536];
    let bytes = queue.recv(&mut buffer).expect("an event that the manager holds");
    let (nul, text) = buffer[..bytes].split_last().unwrap();
    assert_eq!(*nul, 0, "a NUL ends the datagram");
    let text = std::str::from_utf8(text).unwrap();
    let (location, number) = text.rsplit_once(' ').unwrap();
    (location.to_owned(), number.parse().unwrap())
}

#[test]
fn the_reader_stands_still_and_goes_on() {
    // One shard: another one's sink would still have room for the datagrams.
    let core = uring::sockets::allowed_cores().unwrap()[0];
    let home = TestHome::new(&format!("{WEB}\n{MAIL}\n"), &format!("{SETTINGS}[shards]\ncores = [{core}]\n"));
    let queue = bind(home.path());
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);

    // Send until the manager does not read this connection any more and the kernel takes nothing either.
    let mut sent = 0_u64;
    let mut rest: Vec<u8> = Vec::new();
    let paused = || program.metric("ringmaster_connections_paused", &[]) == 1;
    loop {
        if rest.is_empty() {
            sent += 1;
            rest = framed(&web.seal(format!("1:/var/log/a:{} {sent}", "x".repeat(200)).as_bytes()));
        }
        let taken = tcp.send_at_once(&rest);
        rest.drain(..taken);
        if taken == 0 && paused() {
            break;
        }
        assert!(sent < 1_000_000, "no back-pressure");
    }
    assert_eq!(program.get("/readyz").0, 503);

    // Control goes on: over UDP, over another TCP connection, and for the agent that waits.
    let mut mail = Agent::new(MAIL, Method::Blowfish);
    let udp = Udp::connect(program.address);
    udp.start(&mut mail);
    let mut control = Tcp::connect(program.address);
    control.start(&mut mail);
    // Events over UDP have nowhere to wait: dropped, with the reason.
    for number in 0..20 {
        udp.send(&mail.seal(format!("1:/var/log/b:lost {number}").as_bytes()));
    }
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"sink_full\""], 20);
    udp.start(&mut mail);

    // The reader comes back: everything of TCP arrives once and in order, the rest that the kernel held included.
    let reader = std::thread::spawn(move || {
        for expected in 1..=sent {
            let (location, number) = receive(&queue);
            assert!(location.starts_with("1:(web) any->/var/log/a:x"), "{location}");
            assert_eq!(number, expected);
        }
        queue
    });
    tcp.send_raw(&rest);
    let queue = reader.join().unwrap();
    program.wait_for_metric("ringmaster_sink_delivered_total", &["sink=\"queue\""], sent);
    program.assert_balanced();
    program.wait_until(|readyz| readyz == 200);
    assert_eq!(program.metric("ringmaster_connections_paused", &[]), 0);
    assert_eq!(program.metric("ringmaster_dropped_total", &[]), 20);

    // And UDP gets through again.
    udp.send(&mail.seal(b"1:/var/log/b:again 1"));
    assert_eq!(receive(&queue), ("1:(mail) any->/var/log/b:again".to_owned(), 1));
    let (status, line) = program.terminate();
    assert_eq!(status.code(), Some(0), "{line}");
}

#[test]
fn the_reader_is_away_at_first_and_restarts_later() {
    let home = TestHome::new(&format!("{WEB}\n"), SETTINGS);
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut agent);
    let mut send = |number: u64| tcp.send(&agent.seal(format!("1:/var/log/a: {number}").as_bytes()));
    (1..=5).for_each(&mut send);
    program.wait_for_metric("ringmaster_sink_held", &[], 5);

    let mut seen: HashMap<u64, u32> = HashMap::new();
    let first = bind(home.path());
    (1..=5).for_each(|_| *seen.entry(receive(&first).1).or_default() += 1);
    drop(first);
    let second = bind(home.path());
    (6..=9).for_each(&mut send);
    (6..=9).for_each(|_| *seen.entry(receive(&second).1).or_default() += 1);
    assert_eq!(seen, (1..=9).map(|number| (number, 1)).collect());
    program.wait_for_metric("ringmaster_sink_delivered_total", &[], 9);
    program.assert_balanced();
}

#[test]
fn what_is_still_held_at_the_end_is_said() {
    let home = TestHome::new(&format!("{WEB}\n"), &format!("{SETTINGS}[stop]\ngrace_seconds = 0\n"));
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut agent);
    tcp.send(&agent.seal(b"1:/var/log/a:never read"));
    program.wait_for_metric("ringmaster_sink_held", &[], 1);
    let (status, line) = program.terminate();
    assert_eq!(status.code(), Some(0), "{line}");
    assert!(line.contains("queue: delivered 0 of 1 (stopped 1)"), "{line}");
}
