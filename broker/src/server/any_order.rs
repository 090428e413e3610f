//! Clients that say anything in any order: no rule of the server's is ever broken by it.

use proptest::prelude::*;

use super::*;
use crate::wire::Hello;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Accept(u64),
    Hello { connection: u64, name: usize, incarnation: u64, mode: Mode },
    Open { connection: u64, line: u32, key: usize, identity: u64 },
    Packet { connection: u64, line: u32, sequence: u64, previous: Option<u64>, bytes: usize },
    Shut { connection: u64, line: u32 },
    Bytes { connection: u64, bytes: Vec<u8> },
    Close(u64),
    Look { milliseconds: u64, inode: u64, unread_bytes: u64 },
    Give(u8),
    Reply { line: u64, bytes: usize },
    Refused,
}

fn step() -> impl Strategy<Value = Step> {
    let connection = 0..3u64;
    let mode = prop_oneof![Just(Mode::Relay), Just(Mode::Gate)];
    prop_oneof![
        connection.clone().prop_map(Step::Accept),
        (connection.clone(), 0..2usize, 0..4u64, mode).prop_map(|(connection, name, incarnation, mode)| {
            Step::Hello { connection, name, incarnation, mode }
        }),
        (connection.clone(), 0..3u32, 0..3usize, 0..2u64)
            .prop_map(|(connection, line, key, identity)| Step::Open { connection, line, key, identity }),
        (connection.clone(), 0..3u32, 0..6u64, proptest::option::of(0..3u64), 0..60_000usize).prop_map(
            |(connection, line, sequence, previous, bytes)| {
                let previous =
                    previous.map(|back| sequence.saturating_sub(back + 1)).filter(|one| *one < sequence);
                Step::Packet { connection, line, sequence, previous, bytes }
            }
        ),
        (connection.clone(), 0..3u32).prop_map(|(connection, line)| Step::Shut { connection, line }),
        (connection.clone(), any::<Vec<u8>>())
            .prop_map(|(connection, bytes)| Step::Bytes { connection, bytes }),
        connection.prop_map(Step::Close),
        (0..40u64, 0..3u64, prop_oneof![Just(0u64), 0..100_000u64])
            .prop_map(|(milliseconds, inode, unread_bytes)| Step::Look { milliseconds, inode, unread_bytes }),
        any::<u8>().prop_map(Step::Give),
        (0..6u64, 0..60_000usize).prop_map(|(line, bytes)| Step::Reply { line, bytes }),
        Just(Step::Refused),
    ]
}

fn says(server: &mut Server, now: Duration, connection: u64, message: &Message<'_>) {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    server.received(now, ConnectionId(connection), &bytes);
}

fn apply(server: &mut Server, now: &mut Duration, step: Step) {
    const KEYS: [&str; 3] = ["001", "002", "ip-127.0.0.1"];
    match step {
        Step::Accept(id) if server.connections.contains_key(&ConnectionId(id)) => {}
        Step::Accept(id) => server.accepted(*now, ConnectionId(id), "192.0.2.1:1".parse().unwrap()),
        Step::Hello { connection, name, incarnation, mode } => {
            let name = ["one", "other"][name];
            let hello = Hello { version: crate::wire::VERSION, mode, incarnation, name, secret: b"" };
            says(server, *now, connection, &Message::Hello(hello));
        }
        Step::Open { connection, line, key, identity } => {
            let key = KEYS[key].parse().unwrap();
            says(server, *now, connection, &Message::Open { line: LineNumber(line), identity, key });
        }
        Step::Packet { connection, line, sequence, previous, bytes } => {
            let bytes = vec![0; bytes];
            let (line, sequence) = (LineNumber(line), Sequence(sequence));
            let packet = Packet { line, sequence, previous: previous.map(Sequence), bytes: &bytes };
            says(server, *now, connection, &Message::Packet(packet));
        }
        Step::Shut { connection, line } => {
            says(server, *now, connection, &Message::Shut { line: LineNumber(line) });
        }
        Step::Bytes { connection, bytes } => server.received(*now, ConnectionId(connection), &bytes),
        Step::Close(id) => server.closed(ConnectionId(id)),
        Step::Look { milliseconds, inode, unread_bytes } => {
            *now += Duration::from_millis(milliseconds);
            let socket = SocketReading { inode, unread_bytes, drops: 0 };
            server.look(*now, if inode == 0 { &[] } else { std::slice::from_ref(&socket) }, None);
        }
        Step::Give(outcome) => {
            if let Some(give) = server.poll_give(*now) {
                let outcomes = [
                    GiveOutcome::Sent,
                    GiveOutcome::Sent,
                    GiveOutcome::Refused,
                    GiveOutcome::Later,
                    GiveOutcome::Never,
                ];
                server.gave(*now, give, outcomes[usize::from(outcome) % outcomes.len()]);
            }
        }
        Step::Reply { line, bytes } => server.reply(LineId(line), &vec![0; bytes]),
        Step::Refused => server.refused(*now),
    }
    while let Some(action) = server.poll_action() {
        if let Action::Close(id) = action {
            server.closed(id);
        }
    }
}

proptest! {
    #[test]
    fn clients_that_say_anything(steps in proptest::collection::vec(step(), 1..120)) {
        let mut server =
            Server::new(ServerSettings { secret: Vec::new(), lines_max: 4, answers_within: None });
        let mut now = Duration::from_secs(1);
        for step in steps {
            apply(&mut server, &mut now, step);
            server.check_rules();
        }
    }
}
