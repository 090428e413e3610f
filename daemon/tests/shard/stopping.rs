//! A stop hands over everything that is held, or says what it gave up.

use std::io::Write;

use daemon::metrics::SinkFailure;

use crate::bed::{Bed, Ports, TcpAgent, datagram, event, queue};

#[test]
fn a_stop_hands_over_what_is_held() {
    const EVENTS: u32 = 500;
    let bed = Bed::with(1, Ports::Own, |settings| settings.sink.archives.text = true);
    let reader = bed.reader();
    let mut agent = TcpAgent::started(1, bed.address());
    let frames: Vec<u8> =
        (0..EVENTS).flat_map(|sequence| agent.identity.frame(event(1, sequence).as_bytes())).collect();
    agent.stream.write_all(&frames).unwrap();
    bed.until("all are taken", |bed| bed.sum(|metrics| metrics.events.read()) == u64::from(EVENTS));
    bed.until("the kernel does not hold so many", |bed| queue(&bed.metrics[0]).held.read() > 0);
    bed.stop();
    assert!(agent.is_closed(), "agents learn at once that nobody takes their events");
    assert!(queue(&bed.metrics[0]).held.read() > 0);
    for sequence in 0..EVENTS {
        assert_eq!(reader.next(), datagram(1, sequence));
    }
    let archive = bed.settings.archives_text_path();
    let lines = move || std::fs::read_to_string(&archive).unwrap().lines().count();
    bed.until("the archive is written", |_| lines() == EVENTS as usize);
    let metrics = bed.finish();
    assert_eq!(queue(&metrics[0]).delivered.read(), u64::from(EVENTS));
}

#[test]
fn a_stop_in_a_stall_decodes_and_hands_over_what_was_kept() {
    let bed = Bed::with(1, Ports::Own, |settings| {
        settings.sink.soft_bytes = 64 * 1024;
        settings.sink.hard_bytes = 96 * 1024;
    });
    let reader = bed.reader();
    let mut agent = TcpAgent::started(1, bed.address());
    let frames: Vec<u8> =
        (0..6_000).flat_map(|sequence| agent.identity.frame(event(1, sequence).as_bytes())).collect();
    let mut writer = agent.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&frames).is_ok());
    bed.until("it is paused", |bed| bed.sum(|metrics| metrics.connections_paused.read()) == 1);
    bed.stop();
    let ended = std::thread::spawn(move || bed.finish());
    // Without a gap from the first, and as many as the manager says.
    let mut got = 0;
    reader.0.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 4_096];
    loop {
        match reader.0.recv(&mut buffer) {
            Ok(length) => {
                assert_eq!(std::str::from_utf8(&buffer[..length - 1]).unwrap(), datagram(1, got));
                got += 1;
            }
            Err(_) if ended.is_finished() => break,
            Err(_) => {}
        }
    }
    let metrics = ended.join().unwrap();
    assert_eq!(queue(&metrics[0]).delivered.read(), u64::from(got));
    assert_eq!(metrics[0].events.read(), u64::from(got));
    writing.join().unwrap();
}

#[test]
fn what_nobody_takes_is_given_up_and_counted() {
    let bed = Bed::with(1, Ports::Own, |settings| settings.stop.grace_seconds = 0);
    let mut agent = TcpAgent::started(1, bed.address());
    for sequence in 0..10 {
        agent.say(event(1, sequence).as_bytes());
    }
    bed.until("all are taken", |bed| bed.sum(|metrics| metrics.events.read()) == 10);
    let metrics = bed.finish();
    assert_eq!(queue(&metrics[0]).failed[SinkFailure::Stopped as usize].read(), 10);
    assert!(agent.is_closed());
}
