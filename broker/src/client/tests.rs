#![expect(clippy::wildcard_enum_match_arm, reason = "what is not of interest is shown as it is")]

use super::*;
use codec::frame;
use spool::Sequence;
use tempfile::TempDir;

/// A client, its time, and the server's side of the stream.
struct Bed {
    scratch: TempDir,
    client: Client,
    now: Moment,
    stream: Vec<u8>,
}

fn settings(scratch: &TempDir, mode: Mode) -> ClientSettings {
    ClientSettings {
        folder: scratch.path().join("broker"),
        name: "site".to_owned(),
        mode,
        secret: b"secret".to_vec(),
        lines_max: 2,
        spool: spool::Settings { bytes_max: 64 << 10, segment_bytes: 8 << 10, ..spool::Settings::default() },
        replay_per_second: 1_000,
        seed: 1,
    }
}

impl Bed {
    fn new(mode: Mode) -> Bed {
        let scratch = tempfile::tempdir().unwrap();
        let now = Moment { elapsed: Duration::from_secs(1), unix_milliseconds: 1_000_000 };
        let client = Client::open(settings(&scratch, mode), now).unwrap();
        Bed { scratch, client, now, stream: Vec::new() }
    }

    fn datagram(&mut self, text: &str) -> Verdict {
        let source = Source { listener: 0, address: "127.0.0.1:5000".parse().unwrap() };
        self.client.datagram(self.now, source, text.as_bytes())
    }

    fn keep(&mut self, text: &str) {
        assert_eq!(self.datagram(text), Verdict::Kept, "{text}");
        self.client.commit(self.now.elapsed);
    }

    /// A connection to a server whose manager is well. Gives what the client sends on it.
    fn connect(&mut self) -> Vec<String> {
        self.client.connected(self.now.elapsed);
        let hello = self.sent();
        assert_eq!(hello.len(), 1, "before the server has spoken, nothing else");
        self.server_says(&Message::Health(Ok(())));
        self.sent()
    }

    fn server_says(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.client.received(self.now.elapsed, &bytes).unwrap();
    }

    /// What the client sends now, each message in a few words.
    fn sent(&mut self) -> Vec<String> {
        self.stream.clear();
        self.client.poll_transmit(usize::MAX, &mut self.stream);
        let mut frames = Vec::new();
        FrameCutter::new(FRAME_BYTES_MAX).cut(&self.stream, &mut frames).unwrap();
        let words = frames.into_iter().map(|frame| {
            let FrameAt::Received(range) = frame else { panic!("it came in one piece") };
            match Message::parse(&self.stream[range]).unwrap() {
                Message::Packet(packet) => {
                    let (line, sequence) = (packet.line.0, packet.sequence.0);
                    let previous = packet.previous.map_or("-".to_owned(), |previous| previous.0.to_string());
                    format!("{line}: {sequence} after {previous}: {}", String::from_utf8_lossy(packet.bytes))
                }
                Message::Open { line, key, .. } => format!("{}: open {key}", line.0),
                other => format!("{other:?}"),
            }
        });
        words.collect()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.client.poll_action()).collect()
    }

    fn after(&mut self, time: Duration) {
        self.now.elapsed += time;
        self.now.unix_milliseconds += time.as_millis() as u64;
    }
}

fn ack(line: u32, sequence: u64) -> Message<'static> {
    Message::Ack { line: LineNumber(line), sequence: Sequence(sequence) }
}

#[test]
fn a_relay_keeps_sends_and_forgets() {
    let mut bed = Bed::new(Mode::Relay);
    bed.keep("!001!:a");
    bed.keep("!001!:b");
    bed.keep(":c");
    let sent = bed.connect();
    assert_eq!(
        sent,
        [
            "1: open 001",
            "1: 0 after -: !001!:a",
            "1: 1 after 0: !001!:b",
            "2: open ip-127.0.0.1",
            "2: 0 after -: :c"
        ]
    );
    bed.keep("!001!:d");
    assert_eq!(bed.sent(), ["1: 2 after 1: !001!:d"]);
    bed.server_says(&ack(1, 1));
    bed.server_says(&Message::Health(Err(Unwell::PortClosed)));
    bed.keep("!001!:e");
    assert_eq!(bed.sent(), [""; 0], "the manager is not well");
    bed.server_says(&Message::Health(Ok(())));
    assert_eq!(
        bed.sent(),
        ["1: 2 after -: !001!:d", "1: 3 after 2: !001!:e", "2: 0 after -: :c"],
        "from the oldest that is not confirmed, as a new chain"
    );
    bed.server_says(&ack(1, 3));
    bed.server_says(&ack(2, 0));
    let status = bed.client.status(bed.now);
    assert!(status.is_well && status.lines.iter().all(|line| line.kept == 0 && line.flight_bytes == 0));
    assert_eq!((status.counters.kept, status.counters.datagrams), (5, 5));
}

#[test]
fn what_a_server_can_not_say() {
    let check = |message: &[u8]| {
        let mut bed = Bed::new(Mode::Relay);
        bed.keep("!001!:a");
        bed.connect();
        let mut bytes = Vec::new();
        frame(message, &mut bytes);
        assert_eq!(bed.client.received(bed.now.elapsed, &bytes), Err(WireError), "{message:?}");
    };
    let written = |message: &Message<'_>| {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        bytes.split_off(codec::FRAME_HEADER_BYTES)
    };
    check(b"x");
    check(&written(&ack(1, 1)));
    check(&written(&ack(1, u64::MAX)));
    check(&written(&Message::Shut { line: LineNumber(1) }));
    let mut bed = Bed::new(Mode::Relay);
    bed.connect();
    bed.server_says(&ack(77, 5));
    assert_eq!(bed.client.received(bed.now.elapsed, &u32::MAX.to_le_bytes()), Err(WireError));
}

#[test]
fn the_window_is_the_bound_of_what_is_on_its_way() {
    let mut bed = Bed::new(Mode::Relay);
    bed.client.settings.spool.bytes_max = 8 << 20;
    let long = format!("!001!:{}", "x".repeat(9_994));
    for _ in 0..60 {
        bed.keep(&long);
    }
    let sent = bed.connect();
    assert_eq!(sent.len(), 1 + WINDOW_BYTES.div_ceil(10_000));
    assert_eq!(bed.sent(), [""; 0]);
    bed.server_says(&ack(1, 1));
    assert_eq!(bed.sent().len(), 2);
    let mut some = Vec::new();
    bed.server_says(&ack(1, 20));
    bed.client.poll_transmit(15_000, &mut some);
    assert!((15_000..26_000).contains(&some.len()), "the budget is kept: {}", some.len());
}

#[test]
fn lines_take_turns() {
    let mut bed = Bed::new(Mode::Relay);
    for _ in 0..20 {
        bed.keep("!001!:a");
    }
    bed.keep("!002!:b");
    let sent = bed.connect();
    let place = sent.iter().position(|words| words.ends_with("b")).unwrap();
    assert_eq!(place, 1 + TURN_PACKETS + 1);
    assert_eq!(sent.len(), 23);
}

#[test]
fn replies_go_where_the_agent_sent_from_last() {
    let mut bed = Bed::new(Mode::Relay);
    bed.keep("!001!:a");
    let to = Source { listener: 1, address: "127.0.0.9:7".parse().unwrap() };
    bed.client.datagram(bed.now, to, b"!001!:b");
    bed.connect();
    bed.actions();
    bed.server_says(&Message::Reply { line: LineNumber(1), bytes: b"ack" });
    bed.server_says(&Message::Reply { line: LineNumber(9), bytes: b"ack" });
    assert_eq!(bed.actions(), [Action::Reply { to, bytes: b"ack".to_vec() }]);
    assert_eq!(bed.client.counters().replies_to_nobody, 1);
}

#[test]
fn a_gate_lets_through_keeps_and_replays_in_order() {
    let mut bed = Bed::new(Mode::Gate);
    let (one, other) = (LineNumber(1), LineNumber(2));
    bed.keep("!001!:a");
    assert_eq!(bed.connect(), [""; 0], "packets never go by the connection");
    assert_eq!(bed.datagram("!001!:b"), Verdict::Kept, "behind the one that is kept");
    assert_eq!(bed.datagram("!002!:c"), Verdict::Pass(other), "another agent has nothing kept");
    bed.client.commit(bed.now.elapsed);
    bed.after(Duration::from_millis(100));
    assert_eq!(bed.client.poll_replay(bed.now.elapsed), Some((one, b"!001!:a".to_vec())));
    bed.client.replayed(bed.now.elapsed, one, true);
    assert_eq!(bed.datagram("!001!:d"), Verdict::Kept, "b is before it");
    bed.client.commit(bed.now.elapsed);
    assert_eq!(bed.client.poll_replay(bed.now.elapsed), Some((one, b"!001!:b".to_vec())));
    bed.client.replayed(bed.now.elapsed, one, false);
    assert_eq!(bed.client.poll_replay(bed.now.elapsed), None, "the manager's host has just refused one");
    assert_eq!(bed.datagram("!002!:e"), Verdict::Kept);
    bed.client.commit(bed.now.elapsed);
    bed.client.timeout(bed.now.elapsed).unwrap();
    assert!(bed.client.next_timeout().unwrap() <= bed.now.elapsed + Duration::from_secs(1));
    bed.after(Duration::from_secs(1));
    let mut replayed = Vec::new();
    while let Some((number, bytes)) = bed.client.poll_replay(bed.now.elapsed) {
        bed.client.replayed(bed.now.elapsed, number, true);
        replayed.push(String::from_utf8(bytes).unwrap());
    }
    assert_eq!(replayed, ["!001!:b", "!002!:e", "!001!:d"]);
    assert_eq!(bed.datagram("!001!:f"), Verdict::Pass(one));
    assert_eq!(bed.client.passed_not(bed.now, one, b"!001!:f"), Verdict::Kept);
    assert_eq!(bed.datagram("!001!:g"), Verdict::Kept, "f is before it");
    bed.client.disconnected();
    bed.after(Duration::from_secs(10));
    assert_eq!(bed.datagram("!002!:h"), Verdict::Kept, "nobody says that all is well");
}

#[test]
fn a_gate_replays_no_faster_than_it_is_told() {
    let mut bed = Bed::new(Mode::Gate);
    for _ in 0..300 {
        bed.keep("!001!:a");
    }
    bed.connect();
    let mut in_a_tenth = 0;
    for _ in 0..10 {
        bed.after(Duration::from_millis(10));
        while let Some((number, _)) = bed.client.poll_replay(bed.now.elapsed) {
            bed.client.replayed(bed.now.elapsed, number, true);
            in_a_tenth += 1;
        }
    }
    assert!((100..=133).contains(&in_a_tenth), "{in_a_tenth}");
}

#[test]
fn a_stranger_takes_the_place_of_an_idle_empty_line_only() {
    let mut bed = Bed::new(Mode::Relay);
    bed.keep("!001!:a");
    bed.keep("!002!:b");
    bed.connect();
    bed.server_says(&ack(1, 0));
    assert_eq!(bed.datagram("!003!:c"), Verdict::Dropped, "both were heard just now");
    bed.after(IDLE_AFTER);
    bed.keep("!002!:d");
    bed.actions();
    assert_eq!(bed.datagram("!003!:c"), Verdict::Kept);
    assert_eq!(bed.actions(), [Action::Retire(LineNumber(1))]);
    assert_eq!(bed.datagram("!001!:e"), Verdict::Dropped);
    bed.client.commit(bed.now.elapsed);
    let sent = bed.sent();
    assert_eq!(
        sent,
        ["Shut { line: LineNumber(1) }", "2: 1 after 0: !002!:d", "3: open 003", "3: 0 after -: !003!:c"]
    );
    assert_eq!(bed.client.counters().too_many_lines, 2);
    let names = std::fs::read_dir(bed.scratch.path().join("broker/agents")).unwrap();
    assert_eq!(names.count(), 2, "the folder of the line is gone too");
    assert_eq!(bed.datagram("what is that"), Verdict::Dropped);
    assert_eq!(bed.client.counters().malformed, 1);
}

#[test]
fn after_a_kill_all_is_there_and_after_a_clean_end_nothing_is_repeated() {
    let mut bed = Bed::new(Mode::Relay);
    bed.keep("!001!:a");
    bed.keep("!001!:b");
    bed.connect();
    bed.server_says(&ack(1, 0));
    let Bed { scratch, client, now, .. } = bed;
    drop(client);
    let client = Client::open(settings(&scratch, Mode::Relay), now).unwrap();
    let mut bed = Bed { scratch, client, now, stream: Vec::new() };
    let sent = bed.connect();
    assert_eq!(
        sent[1..],
        ["1: 0 after -: !001!:a", "1: 1 after 0: !001!:b"],
        "a kill forgets what it has forgotten"
    );
    bed.server_says(&ack(1, 0));
    let Bed { scratch, client, now, .. } = bed;
    client.close().unwrap();
    let client = Client::open(settings(&scratch, Mode::Relay), now).unwrap();
    let mut bed = Bed { scratch, client, now, stream: Vec::new() };
    assert_eq!(bed.connect()[1..], ["1: 1 after -: !001!:b"]);
}

#[test]
fn incarnations_grow_over_connections_and_starts() {
    let mut bed = Bed::new(Mode::Relay);
    let incarnation = |bed: &mut Bed| {
        bed.client.connected(bed.now.elapsed);
        bed.stream.clear();
        bed.client.poll_transmit(usize::MAX, &mut bed.stream);
        match Message::parse(&bed.stream[4..]).unwrap() {
            Message::Hello(hello) => hello.incarnation,
            other => panic!("{other:?}"),
        }
    };
    let (first, second) = (incarnation(&mut bed), incarnation(&mut bed));
    assert!(second > first);
    let Bed { scratch, client, now, .. } = bed;
    drop(client);
    let client = Client::open(settings(&scratch, Mode::Relay), now).unwrap();
    assert!(incarnation(&mut Bed { scratch, client, now, stream: Vec::new() }) > second);
}

#[test]
fn a_server_that_says_nothing_is_gone() {
    let mut bed = Bed::new(Mode::Relay);
    bed.connect();
    bed.after(PING_EVERY);
    assert_eq!(bed.client.next_timeout(), Some(bed.now.elapsed));
    assert_eq!(bed.client.timeout(bed.now.elapsed), Ok(()));
    assert_eq!(bed.sent(), [format!("Ping({})", bed.now.elapsed.as_millis())]);
    bed.server_says(&Message::Ping(9));
    assert_eq!(bed.sent(), ["Pong(9)"]);
    bed.after(SILENCE_MAX);
    assert_eq!(bed.client.timeout(bed.now.elapsed), Err(ServerGone));
}
