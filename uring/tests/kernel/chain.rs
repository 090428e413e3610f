//! Words of a file, and chains that note datagrams in them.

use std::fs::{File, OpenOptions};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command};

use uring::{CELLS_OFFSET_UNIT_BYTES, CHAIN_DATAGRAMS_MAX, Cells, Chain, Errno, Noted, Sent};

use crate::LONG;

/// Names the folder of a process that is to be killed while it sends.
const CHILD: &str = "RINGMASTER_TEST_CHAIN";

/// Kills of one test. Of those that a process without chains gets, nearly half come between a datagram and its note.
const KILLS: u32 = 40;

fn file(folder: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(folder.join("cells")).unwrap()
}

/// Datagrams that hold their own numbers, from `first` on.
fn datagrams(first: u64, count: usize) -> Vec<[u8; 8]> {
    (first..).take(count).map(u64::to_le_bytes).collect()
}

fn read_all(reader: &UnixDatagram) -> Vec<u64> {
    reader.set_nonblocking(true).unwrap();
    let mut bytes = [0; 8];
    std::iter::from_fn(|| reader.recv(&mut bytes).ok().map(|_| u64::from_le_bytes(bytes))).collect()
}

#[test]
fn words_outlive_their_mapping_and_grow_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    let (first, second) =
        (Cells::map(&file, 0, 512).unwrap(), Cells::map(&file, 2 * CELLS_OFFSET_UNIT_BYTES, 512).unwrap());
    assert_eq!(file.metadata().unwrap().len(), 3 * CELLS_OFFSET_UNIT_BYTES);
    assert_eq!((first.words(), first.word(511).load(), second.word(0).load()), (512, 0, 0));
    first.word(511).store(7);
    second.word(0).store(u64::MAX);
    drop((first, second));
    let all = Cells::map(&file, 0, 1536).unwrap();
    let stored: Vec<(usize, u64)> =
        (0..1536).map(|at| (at, all.word(at).load())).filter(|(_, n)| *n != 0).collect();
    assert_eq!(stored, [(511, 7), (1024, u64::MAX)]);
}

#[test]
fn a_file_that_is_only_read_is_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    drop(file(folder.path()));
    let file = File::open(folder.path().join("cells")).unwrap();
    assert!(Cells::map(&file, 0, 1).is_err());
}

#[test]
fn each_datagram_is_noted_in_the_word_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let cells = Cells::map(&file(folder.path()), 0, 4).unwrap();
    let (sender, reader) = UnixDatagram::pair().unwrap();
    let mut chain = Chain::new().unwrap();
    let bytes = datagrams(1, 6);
    // The third has no note, and the last one neither.
    let notes = [Some((0, 11)), Some((1, 21)), None, Some((0, 12)), Some((3, u64::MAX)), None];
    let noted: Vec<Noted<'_>> = bytes
        .iter()
        .zip(notes)
        .map(|(datagram, note)| Noted { datagram, note: note.map(|(at, number)| (cells.word(at), number)) })
        .collect();
    assert_eq!(chain.send(sender.as_fd(), &noted), Sent { count: 6, stopped_by: None });
    assert_eq!(read_all(&reader), [1, 2, 3, 4, 5, 6]);
    assert_eq!([0, 1, 2, 3].map(|at| cells.word(at).load()), [12, 21, 0, u64::MAX]);
    assert_eq!(chain.send(sender.as_fd(), &noted[2..3]), Sent { count: 1, stopped_by: None });
    assert_eq!(chain.send(sender.as_fd(), &[]), Sent { count: 0, stopped_by: None });
    assert_eq!((read_all(&reader), chain.calls()), (vec![3], 2), "one call for each chain");
}

#[test]
fn a_reader_without_room_ends_the_chain_and_the_next_goes_on_there() {
    let folder = tempfile::tempdir().unwrap();
    let cells = Cells::map(&file(folder.path()), 0, 1).unwrap();
    let (sender, reader) = UnixDatagram::pair().unwrap();
    let mut chain = Chain::new().unwrap();
    let (mut sent, mut received, mut stops) = (0_u64, Vec::new(), 0);
    while sent < 5_000 {
        let bytes = datagrams(sent, CHAIN_DATAGRAMS_MAX);
        let number = |index: usize| sent + index as u64 + 1;
        let noted: Vec<Noted<'_>> = bytes
            .iter()
            .enumerate()
            .map(|(index, datagram)| Noted { datagram, note: Some((cells.word(0), number(index))) })
            .collect();
        let Sent { count, stopped_by } = chain.send(sender.as_fd(), &noted);
        sent += count as u64;
        assert_eq!(cells.word(0).load(), sent, "what was sent is noted, and nothing else");
        if count < CHAIN_DATAGRAMS_MAX {
            assert_eq!(stopped_by, Some(Errno::AGAIN));
            stops += 1;
            received.extend(read_all(&reader));
        }
    }
    received.extend(read_all(&reader));
    assert!(stops > 0, "5,000 datagrams do not fit at once");
    assert_eq!(received, (0..sent).collect::<Vec<_>>());
}

#[test]
fn what_can_not_be_sent_is_not_noted_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let cells = Cells::map(&file(folder.path()), 0, 1).unwrap();
    let (sender, reader) = UnixDatagram::pair().unwrap();
    let mut chain = Chain::new().unwrap();
    let (small, large) = ([1; 8], vec![2; 16 << 20]);
    let note = |number| Some((cells.word(0), number));
    let noted = [
        Noted { datagram: &small, note: note(1) },
        Noted { datagram: &large, note: note(2) },
        Noted { datagram: &small, note: note(3) },
    ];
    assert_eq!(chain.send(sender.as_fd(), &noted), Sent { count: 1, stopped_by: Some(Errno::MSGSIZE) });
    assert_eq!((cells.word(0).load(), read_all(&reader).len()), (1, 1));
    // Not closed: a process that another test spawns just now may still have it.
    reader.shutdown(Shutdown::Both).unwrap();
    let gone = Sent { count: 0, stopped_by: Some(Errno::PIPE) };
    assert_eq!((chain.send(sender.as_fd(), &noted[2..]), cells.word(0).load()), (gone, 1));
}

#[test]
fn no_kill_comes_between_a_datagram_and_its_note() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return send_until_killed(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let reader = UnixDatagram::bind(folder.path().join("queue")).unwrap();
    reader.set_read_timeout(Some(LONG)).unwrap();
    let cells = Cells::map(&file(folder.path()), 0, 1).unwrap();
    let mut next = 0;
    let mut seed = 0x5eed_u64;
    for kill in 0..KILLS {
        // A few hundred datagrams, and where in a chain is left to the scheduler.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = Victim(spawn(folder.path()));
        let until = next + 1 + (seed >> 55);
        let mut bytes = [0; 8];
        reader.set_nonblocking(false).unwrap();
        while next < until {
            reader.recv(&mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), next, "kill {kill}: each once and in order");
            next += 1;
        }
        child.0.kill().unwrap();
        // What it managed to send until it was dead. It may still be sending, so its end is waited for at the end only.
        loop {
            let dead = child.0.try_wait().unwrap().is_some();
            for number in read_all(&reader) {
                assert_eq!(number, next, "kill {kill}: each once and in order");
                next += 1;
            }
            if dead {
                break;
            }
        }
        assert_eq!(cells.word(0).load(), next, "kill {kill}: what was received is what was noted");
    }
}

/// A child that does not outlive a failed test.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(folder: &Path) -> Child {
    let name = "chain::no_kill_comes_between_a_datagram_and_its_note";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, folder);
    command.stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// Goes on where the word says, for ever.
fn send_until_killed(folder: &Path) {
    let cells = Cells::map(&file(folder), 0, 1).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(folder.join("queue")).unwrap();
    let mut chain = Chain::new().unwrap();
    let mut next = cells.word(0).load();
    loop {
        let bytes = datagrams(next, CHAIN_DATAGRAMS_MAX);
        let numbered = bytes.iter().zip(next + 1..);
        let noted: Vec<Noted<'_>> = numbered
            .map(|(datagram, number)| Noted { datagram, note: Some((cells.word(0), number)) })
            .collect();
        let Sent { count, stopped_by } = chain.send(socket.as_fd(), &noted);
        next += count as u64;
        match stopped_by {
            None => {}
            Some(Errno::AGAIN) => std::thread::yield_now(),
            // The test that reads has failed.
            Some(_) => return,
        }
    }
}
