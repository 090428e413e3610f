//! The body of the fuzz target `broker`, with what it asserts: it takes any bytes and must return.

use std::path::Path;
use std::time::Duration;

use codec::limits::FRAME_BYTES_MAX;
use codec::{FrameAt, FrameCutter};

use crate::client::{Client, ClientSettings, Moment, Verdict};
use crate::health::SocketReading;
use crate::line::Source;
use crate::server::{Action, ConnectionId, GiveOutcome, Server, ServerSettings};
use crate::wire::{Message, Mode};

/// What a peer says on the connection between client and server: the first byte tells to whom, the second and third where the
/// stream is split.
///
/// # Panics
/// If a message can be written in two ways, a split changes what is done, or a side breaks its own rules.
pub fn broker(bytes: &[u8]) {
    let Some((head, stream)) = bytes.split_first_chunk::<3>() else { return };
    let (first, rest) = stream.split_at(usize::from(head[1]).min(stream.len()));
    let (second, third) = rest.split_at(usize::from(head[2]).min(rest.len()));
    one_way_to_write(stream);
    match head[0] % 3 {
        0 | 1 => {
            let secret: &[u8] = if head[0] % 3 == 0 { b"" } else { b"secret" };
            let whole = told_to_a_server(secret, &[stream]);
            assert_eq!(whole, told_to_a_server(secret, &[first, second, third]), "a split changes nothing");
        }
        _ => {
            let whole = told_to_a_client(&[stream]);
            assert_eq!(whole, told_to_a_client(&[first, second, third]), "a split changes nothing");
        }
    }
}

/// Each message that is read is written as it was.
fn one_way_to_write(stream: &[u8]) {
    let (mut cutter, mut frames) = (FrameCutter::new(FRAME_BYTES_MAX), Vec::new());
    // Of a stream that ends in something else, what stands before it counts.
    let _ = cutter.cut(stream, &mut frames);
    for frame in frames {
        let FrameAt::Received(range) = frame else { continue };
        let Ok(message) = Message::parse(&stream[range.clone()]) else { continue };
        let mut written = Vec::new();
        message.write(&mut written);
        assert_eq!(&written[codec::FRAME_HEADER_BYTES..], &stream[range], "one way to write each message");
    }
}

/// What a server with one client does: what the manager is given, and the client told.
fn told_to_a_server(secret: &[u8], pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>, Vec<Action>) {
    let mut server =
        Server::new(ServerSettings { secret: secret.to_vec(), lines_max: 4, answers_within: None });
    let id = ConnectionId(1);
    let mut now = Duration::from_secs(1);
    let socket = |unread_bytes| [SocketReading { inode: 1, unread_bytes, drops: 0 }];
    server.look(now, &socket(0), None);
    server.accepted(now, id, ([192, 0, 2, 1], 1).into());
    for piece in pieces {
        server.received(now, id, piece);
        server.check_rules();
    }
    let (mut given, mut told) = (Vec::new(), Vec::new());
    // As long as it goes on: each look lets it give more.
    loop {
        let before = given.len();
        while let Some(give) = server.poll_give(now) {
            given.push(give.bytes.clone());
            server.gave(now, give, GiveOutcome::Sent);
        }
        server.check_rules();
        if given.len() == before {
            break;
        }
        now += Duration::from_millis(40);
        server.look(now, &socket(0), None);
    }
    server.poll_transmit(id, &mut told);
    let actions: Vec<Action> = std::iter::from_fn(|| server.poll_action()).collect();
    server.closed(id);
    server.check_rules();
    (given, told, actions)
}

/// What a client does that has kept datagrams of two agents: what it tells its server, and whether it ends the connection.
fn told_to_a_client(pieces: &[&[u8]]) -> (bool, Vec<u8>, Vec<String>) {
    // In memory where there is such a place: a client waits for the disk when it starts.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(place).expect("it takes files");
    let spool = spool::Settings { bytes_max: 64 << 10, segment_bytes: 8 << 10, ..spool::Settings::default() };
    let settings = ClientSettings {
        folder: folder.path().to_owned(),
        name: "site".to_owned(),
        mode: Mode::Relay,
        secret: Vec::new(),
        lines_max: 2,
        spool,
        replay_per_second: 1_000,
        seed: 1,
    };
    let now = Moment { elapsed: Duration::from_secs(1), unix_milliseconds: 1_000_000 };
    let mut client = Client::open(settings, now).expect("the folder is new");
    for datagram in ["!001!:a", "!002!:b", "!001!:c"] {
        let source = Source { listener: 0, address: ([127, 0, 0, 1], 5_000).into() };
        assert_eq!(client.datagram(now, source, datagram.as_bytes()), Verdict::Kept);
    }
    client.commit(now.elapsed);
    client.connected(now.elapsed);
    let mut told = Vec::new();
    // The server's first word, so that packets are on their way when the rest comes.
    let mut well = Vec::new();
    Message::Health(Ok(())).write(&mut well);
    client.received(now.elapsed, &well).expect("that is what a server says");
    client.poll_transmit(1 << 20, &mut told);
    let is_over =
        pieces.iter().any(|piece| client.received(now.elapsed, piece).is_err() || !client.is_greeted());
    client.poll_transmit(1 << 20, &mut told);
    if is_over {
        client.disconnected();
    }
    let actions = std::iter::from_fn(|| client.poll_action()).map(|action| format!("{action:?}")).collect();
    let kept: u64 = client.status(now).lines.iter().map(|line| line.kept + line.forgotten).sum();
    assert_eq!(kept, 3, "nothing is lost");
    (is_over, told, actions)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::broker;

    /// Every file of the corpus, and of each file some beginnings.
    #[test]
    fn corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/broker");
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for length in (0..=bytes.len()).rev().take(60) {
                broker(&bytes[..length]);
            }
            files += 1;
        }
        assert!(files >= 5, "{} has {files} files", folder.display());
    }

    /// Pieces that mean something to a reader, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let framed = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
        let words: Vec<Vec<u8>> = vec![
            framed(b"\x01\x01\0\x01\0\0\0\0\0\0\0\x04site"),
            framed(b"\x01\x01\x01\x02\0\0\0\0\0\0\0\x04sitesecret"),
            framed(b"\x02\x01\0\0\0\x07\0\0\0\0\0\0\x001"),
            framed(b"\x02\x02\0\0\0\x08\0\0\0\0\0\0\0ip-192.0.2.7"),
            framed(b"\x03\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff!001!:a"),
            framed(b"\x03\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0!001!:b"),
            framed(b"\x04\x01\0\0\0\x01\0\0\0\0\0\0\0"),
            framed(b"\x04\x02\0\0\0\0\0\0\0\0\0\0\0"),
            framed(b"\x05\x01\0\0\0:answer"),
            framed(b"\x06\0"),
            framed(b"\x06\x01"),
            framed(b"\x07\x01\0\0\0\0\0\0\0"),
            framed(b"\x08\x01\0\0\0\0\0\0\0"),
            framed(b"\x09\x02"),
            framed(b"\x0a\x01\0\0\0"),
            vec![0],
            vec![0xff; 4],
        ];
        let head = any::<[u8; 3]>();
        (head, prop::collection::vec(prop::sample::select(words), 0..20))
            .prop_map(|(head, words)| [&head[..], &words.concat()].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_return(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            broker(&bytes);
        }

        #[test]
        fn any_pieces_return(bytes in pieces()) {
            broker(&bytes);
        }
    }
}
