//! What agents send arrives, whatever the transport and however it is cut.

use std::io::Write;

use codec::{KeyFile, Method};
use daemon::mail::Mail;
use daemon::metrics::SinkKind;
use daemon::settings::Product;
use manager::{AgentTable, CounterSeed, Reason};

use crate::bed::{
    ACK, Bed, Ports, STARTUP, TcpAgent, UdpAgent, connect, datagram, entries, event, ping, read_frame,
};

#[test]
fn events_of_both_transports_and_all_methods_reach_every_sink() {
    let bed = Bed::with(1, Ports::Own, |settings| {
        settings.sink.archives.text = true;
        settings.sink.archives.json = true;
    });
    let reader = bed.reader();
    let mut number = 0;
    for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
        number += 1;
        let mut agent = TcpAgent::connect(number, bed.address());
        agent.identity.method = method;
        agent.say(STARTUP);
        assert_eq!(agent.hear(), ACK);
        agent.say(event(number, 1).as_bytes());
        assert_eq!(reader.next(), datagram(number, 1));
        number += 1;
        let mut agent = UdpAgent::new(number, bed.address());
        agent.identity.method = method;
        agent.say(STARTUP);
        assert_eq!(agent.hear(), ACK);
        agent.say(event(number, 1).as_bytes());
        assert_eq!(reader.next(), datagram(number, 1));
    }
    let (text, json) = (bed.settings.archives_text_path(), bed.settings.archives_json_path());
    let folder = tempfile::TempDir::new().unwrap();
    let kept = [folder.path().join("text"), folder.path().join("json")];
    bed.until("the archives are written", |bed| {
        let delivered = |kind| bed.sum(|metrics| metrics.sink(kind).delivered.read());
        delivered(SinkKind::ArchiveText) == 6 && delivered(SinkKind::ArchiveJson) == 6
    });
    std::fs::copy(text, &kept[0]).unwrap();
    std::fs::copy(json, &kept[1]).unwrap();
    let metrics = bed.finish();
    assert_eq!((metrics[0].events.read(), metrics[0].control.read(), metrics[0].dropped.sum()), (6, 6, 0));
    let [text, json] = kept.map(|path| std::fs::read_to_string(path).unwrap());
    for number in 1..=6 {
        let line =
            format!(" (agent{number}) any->/var/log/messages host{number} program[1]: something happened");
        assert_eq!(text.lines().filter(|text| text.ends_with(&line)).count(), 1, "{text}");
        let field = format!("\"full_log\":\"host{number} program[1]: something happened\"");
        assert_eq!(json.lines().filter(|json| json.contains(&field)).count(), 1, "{json}");
    }
    assert_eq!((text.lines().count(), json.lines().count()), (6, 6));
}

#[test]
fn wazuhs_form_names_id_name_and_address() {
    let bed = Bed::with(1, Ports::Own, |settings| settings.sink.queue.product = Product::Wazuh);
    let reader = bed.reader();
    let mut agent = TcpAgent::started(5, bed.address());
    agent.say(b"1:/var/log/a|b:text");
    assert_eq!(reader.next(), "1:[005] (agent5) any->/var/log/a|b:text");
    bed.finish();
}

#[test]
fn pings_are_answered_on_both_transports() {
    let bed = Bed::new();
    ping(bed.address());
    let mut stream = connect(bed.address());
    stream.write_all(b"\x05\0\0\0#ping").unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), b"#pong");
    assert_eq!(bed.finish()[0].control.read(), 2);
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let bed = Bed::new();
    let reader = bed.reader();
    let mut agent = TcpAgent::started(1, bed.address());
    for byte in agent.identity.frame(event(1, 0).as_bytes()) {
        agent.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(reader.next(), datagram(1, 0));

    let frames: Vec<u8> =
        (1..=64).flat_map(|sequence| agent.identity.frame(event(1, sequence).as_bytes())).collect();
    agent.stream.write_all(&frames).unwrap();
    for sequence in 1..=64 {
        assert_eq!(reader.next(), datagram(1, sequence));
    }

    // Frames longer than a buffer, and many that end in the middle of one.
    let long = "x".repeat(40_000);
    let texts: Vec<String> = (0..200_u32)
        .map(
            |sequence| if sequence % 50 == 3 { format!("1:a:{sequence} {long}") } else { event(1, sequence) },
        )
        .collect();
    let stream: Vec<u8> = texts.iter().flat_map(|text| agent.identity.frame(text.as_bytes())).collect();
    let mut writer = agent.stream.try_clone().unwrap();
    let writing =
        std::thread::spawn(move || stream.chunks(1_013).for_each(|part| writer.write_all(part).unwrap()));
    for text in &texts {
        let got = reader.next();
        let rest = &text[2..];
        // OSSEC's reader takes no more.
        let whole = format!("1:(agent1) any->{rest}");
        assert_eq!(got, whole[..whole.len().min(6_143)]);
    }
    writing.join().unwrap();
    bed.finish();
}

#[test]
fn an_agents_end_comes_after_its_last_words() {
    let bed = Bed::new();
    let reader = bed.reader();
    for round in 0..20 {
        let mut agent = TcpAgent::connect(1 + round, bed.address());
        let frames: Vec<u8> = (0..50)
            .flat_map(|sequence| agent.identity.frame(event(1 + round, sequence).as_bytes()))
            .collect();
        agent.stream.write_all(&frames).unwrap();
        drop(agent);
        for sequence in 0..50 {
            assert_eq!(reader.next(), datagram(1 + round, sequence));
        }
    }
    bed.until("all connections are gone", |bed| bed.sum(|metrics| metrics.connections.read()) == 0);
    assert_eq!(bed.finish()[0].accepted.read(), 20);
}

#[test]
fn shards_share_a_port() {
    const AGENTS: u32 = 60;
    let bed = Bed::with(2, Ports::Shared, |_| {});
    let reader = bed.reader();
    let mut agents: Vec<TcpAgent> =
        (1..=AGENTS).map(|number| TcpAgent::started(number, bed.address())).collect();
    let both = bed.metrics.iter().all(|metrics| metrics.connections_authenticated.read() > 0);
    assert!(both, "the kernel gives connections to both");
    for sequence in 0..10 {
        agents.iter_mut().for_each(|agent| agent.say(event(agent.identity.number, sequence).as_bytes()));
    }
    let mut last = vec![None; AGENTS as usize + 1];
    for _ in 0..AGENTS * 10 {
        let got = reader.next();
        let number: u32 = got["1:(agent".len()..].split(')').next().unwrap().parse().unwrap();
        let sequence = last[number as usize].map_or(0, |last: u32| last + 1);
        assert_eq!(got, datagram(number, sequence));
        last[number as usize] = Some(sequence);
    }
    assert!(reader.is_empty());
    bed.finish();
}

#[test]
fn what_the_kernel_drops_is_counted() {
    const SENT: u64 = 60_000;
    let bed = Bed::new();
    let strangers: Vec<_> = (0..3).map(|_| crate::bed::udp(bed.address())).collect();
    std::thread::scope(|scope| {
        for socket in &strangers {
            scope.spawn(|| (0..SENT / 3).for_each(|_| drop(socket.send(&[b'x'; 1_400]))));
        }
    });
    bed.until("every datagram has its verdict", |bed| {
        bed.dropped(Reason::Malformed) + bed.dropped(Reason::Kernel) == SENT
    });
    assert_eq!(bed.finish()[0].received.read(), SENT);
}

#[test]
fn a_new_table_is_looked_at_without_a_stop() {
    let bed = Bed::new();
    let reader = bed.reader();
    let mut stays = TcpAgent::started(2, bed.address());
    let mut removed = TcpAgent::started(1, bed.address());
    let table = AgentTable::build(entries(2, 120), Some(&bed.table.load()), &CounterSeed::new());
    bed.table.store(std::sync::Arc::new(table));
    bed.mail(Mail::Keys);
    assert!(removed.is_closed());
    let mut added = TcpAgent::started(120, bed.address());
    added.say(event(120, 1).as_bytes());
    assert_eq!(reader.next(), datagram(120, 1));
    stays.say(event(2, 1).as_bytes());
    assert_eq!(reader.next(), datagram(2, 1));
    bed.finish();
}

#[test]
fn a_new_table_says_where_an_agents_events_are_from() {
    let bed = Bed::new();
    let reader = bed.reader();
    let mut moves = TcpAgent::started(2, bed.address());
    let mut removed = TcpAgent::started(1, bed.address());
    moves.say(event(2, 1).as_bytes());
    assert_eq!(reader.next(), datagram(2, 1));
    let keys = b"002 agent2 127.0.0.0/8 key2\n003 agent3 any key3\n";
    let table = AgentTable::build(KeyFile::parse(keys).entries, Some(&bed.table.load()), &CounterSeed::new());
    bed.table.store(std::sync::Arc::new(table));
    bed.mail(Mail::Keys);
    assert!(removed.is_closed());
    moves.say(event(2, 2).as_bytes());
    assert_eq!(reader.next(), datagram(2, 2).replace(" any->", " 127.0.0.0->"));
    let mut third = TcpAgent::started(3, bed.address());
    third.say(event(3, 1).as_bytes());
    assert_eq!(reader.next(), datagram(3, 1));
    bed.finish();
}
