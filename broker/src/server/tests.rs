#![expect(clippy::wildcard_enum_match_arm, reason = "what is not of interest is shown as it is")]

use super::*;
use crate::wire::{Hello, VERSION};

const SECRET: &[u8] = b"secret";

/// A server, its time, and a manager's socket.
struct Bed {
    server: Server,
    now: Duration,
    unread: u64,
    inode: u64,
}

impl Bed {
    /// With a manager that is well.
    fn new() -> Bed {
        let settings = ServerSettings {
            secret: SECRET.to_vec(),
            lines_max: 3,
            answers_within: Some(Duration::from_secs(60)),
        };
        let mut bed = Bed { server: Server::new(settings), now: Duration::from_secs(1), unread: 0, inode: 1 };
        bed.look();
        bed.actions();
        bed
    }

    fn look(&mut self) {
        self.now += SETTLES_AFTER;
        let socket = SocketReading { inode: self.inode, unread_bytes: self.unread, drops: 0 };
        self.server.look(self.now, &[socket], None);
    }

    fn accept(&mut self, id: u64) -> ConnectionId {
        let id = ConnectionId(id);
        self.server.accepted(self.now, id, "192.0.2.1:1000".parse().unwrap());
        id
    }

    /// A client that has said hello and opened line 1 for agent 001.
    fn client(&mut self, id: u64, incarnation: u64) -> ConnectionId {
        let id = self.accept(id);
        self.says(id, &hello("site", incarnation, SECRET));
        self.says(id, &open(1, "001"));
        id
    }

    fn says(&mut self, id: ConnectionId, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.server.received(self.now, id, &bytes);
    }

    /// A packet on line 1.
    fn packet(&mut self, id: ConnectionId, sequence: u64, previous: Option<u64>) {
        let bytes = sequence.to_string();
        let packet = Packet {
            line: LineNumber(1),
            sequence: Sequence(sequence),
            previous: previous.map(Sequence),
            bytes: bytes.as_bytes(),
        };
        self.says(id, &Message::Packet(packet));
    }

    /// Gives the manager what it may have; the numbers.
    fn give(&mut self) -> Vec<u64> {
        let mut given = Vec::new();
        while let Some(give) = self.server.poll_give(self.now) {
            given.push(give.sequence.0);
            self.unread += 700;
            self.server.gave(self.now, give, GiveOutcome::Sent);
        }
        given
    }

    /// The manager reads all that it has.
    fn manager_reads(&mut self) {
        self.unread = 0;
        self.look();
    }

    /// What is sent to a client, in a few words.
    fn sent(&mut self, id: ConnectionId) -> Vec<String> {
        let mut bytes = Vec::new();
        self.server.poll_transmit(id, &mut bytes);
        let mut frames = Vec::new();
        FrameCutter::new(FRAME_BYTES_MAX).cut(&bytes, &mut frames).unwrap();
        let words = frames.into_iter().map(|frame| {
            let FrameAt::Received(range) = frame else { panic!("it came in one piece") };
            match Message::parse(&bytes[range]).unwrap() {
                Message::Ack { line, sequence } => format!("ack {} {}", line.0, sequence.0),
                Message::Health(Ok(())) => "well".to_owned(),
                Message::Health(Err(why)) => why.to_string(),
                Message::Reply { line, bytes } => {
                    format!("reply {} {}", line.0, String::from_utf8_lossy(bytes))
                }
                other => format!("{other:?}"),
            }
        });
        words.collect()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.server.poll_action()).collect()
    }

    fn closes(&mut self) -> Vec<u64> {
        let closed = |action| match action {
            Action::Close(id) => Some(id.0),
            Action::Retire(_) | Action::Say(_) => None,
        };
        self.actions().into_iter().filter_map(closed).collect()
    }
}

fn hello<'a>(name: &'a str, incarnation: u64, secret: &'a [u8]) -> Message<'a> {
    Message::Hello(Hello { version: VERSION, mode: Mode::Relay, incarnation, name, secret })
}

fn open(line: u32, key: &str) -> Message<'static> {
    Message::Open { line: LineNumber(line), identity: 5, key: key.parse().unwrap() }
}

#[test]
fn taken_given_read_acknowledged() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    assert_eq!(bed.sent(id), ["well"]);
    bed.packet(id, 4, None);
    bed.packet(id, 7, Some(4));
    assert_eq!(bed.give(), [4, 7]);
    bed.look();
    assert_eq!(bed.sent(id), [""; 0], "the manager has not read them");
    bed.manager_reads();
    assert_eq!(bed.sent(id), ["ack 1 7"]);
    assert_eq!(bed.server.transmitting(), []);
}

#[test]
fn a_hole_is_never_given() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.packet(id, 4, Some(3));
    assert_eq!(bed.give(), [0; 0], "nothing has begun");
    bed.packet(id, 3, None);
    bed.packet(id, 5, Some(4));
    bed.packet(id, 6, Some(5));
    assert_eq!(bed.give(), [3]);
    bed.packet(id, 4, None);
    bed.packet(id, 5, Some(4));
    assert_eq!(bed.give(), [4, 5]);
    assert_eq!(bed.server.counters().ignored, 3);
}

#[test]
fn a_manager_that_is_away_is_given_nothing_and_then_all_of_it_again() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.packet(id, 0, None);
    bed.give();
    bed.manager_reads();
    bed.packet(id, 1, Some(0));
    assert_eq!(bed.give(), [1]);
    bed.sent(id);
    bed.server.look(bed.now + SETTLES_AFTER, &[], None);
    bed.packet(id, 2, Some(1));
    bed.packet(id, 1, None);
    assert_eq!(bed.give(), [0; 0]);
    (bed.inode, bed.unread) = (2, 0);
    bed.look();
    assert_eq!(bed.sent(id), ["the manager was started anew", "the manager's port is not bound", "well"]);
    bed.packet(id, 3, Some(2));
    assert_eq!(bed.give(), [0; 0], "the client has still to begin a chain");
    bed.packet(id, 1, None);
    bed.packet(id, 2, Some(1));
    assert_eq!(
        bed.give(),
        [1, 2],
        "the first of them is lost with the manager's socket, or refused by its counter"
    );
    bed.manager_reads();
    assert_eq!(bed.sent(id), ["ack 1 2"]);
}

#[test]
fn a_manager_that_was_restarted_between_two_looks() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.packet(id, 0, None);
    bed.give();
    bed.sent(id);
    (bed.inode, bed.unread) = (2, 0);
    bed.look();
    assert_eq!(bed.sent(id), ["the manager was started anew", "well"]);
    bed.packet(id, 0, None);
    assert_eq!(bed.give(), [0]);
}

#[test]
fn what_was_delivered_is_not_delivered_again_on_another_connection() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.packet(id, 0, None);
    bed.packet(id, 1, Some(0));
    bed.give();
    bed.manager_reads();
    bed.packet(id, 2, Some(1));
    bed.packet(id, 3, Some(2));
    let give = bed.server.poll_give(bed.now).unwrap();
    bed.server.gave(bed.now, give, GiveOutcome::Sent);
    bed.unread = 700;
    bed.server.closed(id);
    assert_eq!(bed.give(), [0; 0], "3 was not given before its connection went: it comes again");
    let id = bed.client(2, 2);
    bed.sent(id);
    bed.packet(id, 0, None);
    assert_eq!(bed.sent(id), ["ack 1 1"], "for all that is confirmed");
    bed.packet(id, 2, Some(0));
    bed.packet(id, 3, Some(2));
    assert_eq!(bed.give(), [3]);
    assert_eq!(bed.sent(id), [""; 0]);
    bed.manager_reads();
    assert_eq!(bed.sent(id), ["ack 1 3"]);
    assert_eq!(bed.server.counters().repeated, 2);
}

#[test]
fn the_newest_connection_of_a_name_is_the_one() {
    let mut bed = Bed::new();
    let older = bed.client(1, 5);
    let newer = bed.client(2, 6);
    assert_eq!(bed.closes(), [1]);
    bed.sent(newer);
    bed.packet(older, 0, None);
    assert_eq!(bed.give(), [0; 0]);
    bed.packet(newer, 0, None);
    assert_eq!(bed.give(), [0]);
    let stale = bed.accept(3);
    bed.says(stale, &hello("site", 6, SECRET));
    assert_eq!((bed.closes(), bed.sent(stale)), (vec![3], vec!["Refused(Stale)".to_owned()]));
    let other = bed.accept(4);
    bed.says(other, &hello("other", 1, SECRET));
    assert_eq!(bed.closes(), [0; 0], "another name is another client");
    bed.server.closed(older);
    bed.manager_reads();
    assert_eq!(bed.sent(newer), ["ack 1 0"], "the end of the older one changes nothing");
}

#[test]
fn who_is_turned_away() {
    let check = |what: &str, said: &dyn Fn(&mut Bed, ConnectionId)| {
        let mut bed = Bed::new();
        let id = bed.accept(9);
        said(&mut bed, id);
        assert_eq!(bed.closes(), [9], "{what}");
        assert_eq!(bed.give(), [0; 0], "{what}");
    };
    check("wrong secret", &|bed, id| bed.says(id, &hello("site", 1, b"Secret")));
    check("no secret", &|bed, id| bed.says(id, &hello("site", 1, b"")));
    check("a longer one", &|bed, id| bed.says(id, &hello("site", 1, b"secret ")));
    check("no hello", &|bed, id| bed.says(id, &open(1, "001")));
    check("another version", &|bed, id| {
        let hello = Hello { version: 9, mode: Mode::Relay, incarnation: 1, name: "a", secret: SECRET };
        bed.says(id, &Message::Hello(hello));
    });
    check("two hellos", &|bed, id| {
        bed.says(id, &hello("a", 1, SECRET));
        bed.says(id, &hello("a", 2, SECRET));
    });
    check("a packet of no line", &|bed, id| {
        bed.says(id, &hello("a", 1, SECRET));
        bed.packet(id, 0, None);
    });
    check("a packet of a gate", &|bed, id| {
        let hello = Hello { version: VERSION, mode: Mode::Gate, incarnation: 1, name: "a", secret: SECRET };
        bed.says(id, &Message::Hello(hello));
        bed.says(id, &open(1, "001"));
        bed.packet(id, 0, None);
    });
    check("another protocol", &|bed, id| bed.server.received(bed.now, id, b"GET / HTTP/1.1\r\n\r\n"));
    check("silence", &|bed, _| {
        bed.now += HELLO_WITHIN;
        bed.look();
    });
    check("more than the window", &|bed, id| {
        bed.says(id, &hello("a", 1, SECRET));
        bed.says(id, &open(1, "001"));
        bed.server.look(bed.now, &[SocketReading { inode: 1, unread_bytes: 1 << 20, drops: 0 }], None);
        let bytes = vec![0; 60_000];
        for sequence in 0..6u64 {
            let previous = sequence.checked_sub(1).map(Sequence);
            let packet =
                Packet { line: LineNumber(1), sequence: Sequence(sequence), previous, bytes: &bytes };
            bed.says(id, &Message::Packet(packet));
        }
    });
}

#[test]
fn connections_and_lines_are_bounded() {
    let mut bed = Bed::new();
    for id in 1..=STRANGERS_MAX as u64 {
        bed.accept(id);
    }
    assert_eq!(bed.closes(), [0; 0]);
    bed.accept(1_000);
    assert_eq!(bed.closes(), [1_000]);

    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.says(id, &open(2, "002"));
    bed.says(id, &open(3, "003"));
    assert_eq!(bed.closes(), [0; 0]);
    bed.says(id, &open(4, "004"));
    assert_eq!(
        (bed.closes(), bed.sent(id)),
        (vec![1], vec!["well".to_owned(), "Refused(TooManyLines)".to_owned()])
    );
    bed.server.closed(id);
    let id = bed.client(2, 2);
    bed.says(id, &open(4, "004"));
    assert_eq!(bed.closes(), [0; 0], "a line that nobody has gives way");
    bed.says(id, &Message::Shut { line: LineNumber(4) });
    bed.says(id, &open(5, "005"));
    assert_eq!(bed.server.status().lines, 3);
}

#[test]
fn a_manager_that_may_not_be_sent_to() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.sent(id);
    bed.packet(id, 0, None);
    let give = bed.server.poll_give(bed.now).unwrap();
    bed.server.gave(bed.now, give, GiveOutcome::Later);
    assert_eq!(bed.give(), [0; 0], "not before the next look");
    bed.look();
    let give = bed.server.poll_give(bed.now).unwrap();
    bed.server.gave(bed.now, give, GiveOutcome::Refused);
    bed.look();
    assert_eq!(bed.sent(id), ["the manager's host refuses datagrams"]);
    bed.now += crate::health::REFUSED_FOR;
    bed.look();
    assert_eq!(bed.sent(id), ["well"]);
    bed.packet(id, 0, None);
    assert_eq!(bed.give(), [0]);
}

#[test]
fn replies_find_their_client() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.sent(id);
    bed.server.reply(LineId(1), b"one");
    assert_eq!(bed.sent(id), ["reply 1 one"]);
    let long = vec![b'x'; 60_000];
    for _ in 0..6 {
        bed.server.reply(LineId(1), &long);
    }
    assert_eq!(bed.sent(id).len(), 4, "a client that does not read loses what UDP would lose");
    bed.server.closed(id);
    bed.server.reply(LineId(1), b"two");
    bed.server.reply(LineId(99), b"three");
    assert_eq!(bed.server.counters().replies_dropped, 4);
}

#[test]
fn a_manager_that_answers_nobody_is_tried_again_later() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    bed.packet(id, 0, None);
    bed.give();
    bed.manager_reads();
    bed.sent(id);
    let mut health = Vec::new();
    for _ in 0..100 {
        bed.now += Duration::from_secs(1);
        bed.says(id, &Message::Ping(1));
        bed.look();
        health.extend(bed.sent(id).into_iter().filter(|words| !words.contains("Pong")));
    }
    assert_eq!(health, ["the manager answers nobody", "well"]);
}

#[test]
fn few_are_unread_at_a_time() {
    let mut bed = Bed::new();
    let id = bed.client(1, 1);
    for sequence in 0..100u64 {
        bed.packet(id, sequence, sequence.checked_sub(1));
    }
    assert_eq!(bed.give().len(), 32);
    let busy = bed.server.next_look();
    assert!(busy < bed.now + Duration::from_millis(10), "it is looked at again soon");
    bed.manager_reads();
    assert_eq!(bed.give().len(), 32);
    bed.look();
    assert_eq!(bed.give().len(), 0);
    bed.manager_reads();
    bed.manager_reads();
    assert_eq!(bed.give().len(), 32);
    bed.manager_reads();
    assert_eq!(bed.give().len(), 4);
    bed.manager_reads();
    assert_eq!(bed.sent(id), ["ack 1 99", "well"]);
    assert_eq!(bed.server.next_look(), bed.now + LOOK_EVERY);
}
