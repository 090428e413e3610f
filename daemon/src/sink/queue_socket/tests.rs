//! A queue socket with a reader that is slow, away, or back.

use std::os::unix::net::UnixDatagram;

use manager::{Ledger, SinkSet};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn reader(path: &std::path::Path) -> UnixDatagram {
    let reader = UnixDatagram::bind(path).unwrap();
    reader.set_nonblocking(true).unwrap();
    reader
}

fn pump(sink: &mut QueueSocket, now: Time) -> Next {
    sink.pump(now, &mut Moved::default())
}

fn read_all(reader: &UnixDatagram) -> Vec<u32> {
    let mut buffer = [0; 64];
    let mut numbers = Vec::new();
    while let Ok(length) = reader.recv(&mut buffer) {
        numbers.push(std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap());
    }
    numbers
}

fn take(sink: &mut QueueSocket, number: u32) {
    sink.take(|bytes| bytes.extend(number.to_string().as_bytes()));
}

fn balanced(sink: &QueueSocket) {
    let counters = sink.counters();
    assert_eq!(counters.taken, counters.delivered + counters.too_long + counters.stopped + sink.held());
}

#[test]
fn a_slow_reader_gets_everything_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let reader = reader(&path);
    let mut sink = QueueSocket::new(path, None);
    (0..5_000).for_each(|number| take(&mut sink, number));
    let mut now = Time::ZERO;
    let mut got = Vec::new();
    while got.len() < 5_000 {
        let next = pump(&mut sink, now);
        balanced(&sink);
        let read = read_all(&reader);
        assert!(!read.is_empty(), "each turn hands something over: {next:?}");
        got.extend(read);
        if matches!(next, Next::Poll { .. }) {
            sink.on_writable();
        }
        now = now + Duration::from_millis(1);
    }
    assert_eq!(got, (0..5_000).collect::<Vec<u32>>());
    assert!(matches!(pump(&mut sink, now), Next::Idle));
    assert!(sink.counters().stalls > 0, "5,000 datagrams do not fit at once");
}

#[test]
fn an_idle_socket_knows_whether_somebody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let first = reader(&path);
    let mut sink = QueueSocket::new(path.clone(), None);
    assert!(matches!(pump(&mut sink, Time::ZERO), Next::Idle));
    sink.probe();
    assert_eq!(sink.state(), SinkState::Taking);
    drop(first);
    sink.probe();
    assert_eq!(sink.state(), SinkState::Away);
    std::fs::remove_file(&path).unwrap();
    let again = reader(&path);
    assert!(matches!(pump(&mut sink, Time::ZERO), Next::Idle), "found without anything to send");
    assert_eq!(sink.state(), SinkState::Taking);
    assert!(read_all(&again).is_empty(), "and nothing was sent");
}

#[test]
fn a_reader_that_comes_late_or_again_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let mut sink = QueueSocket::new(path.clone(), None);
    take(&mut sink, 1);
    let mut now = Time::from_seconds(1);
    assert!(matches!(pump(&mut sink, now), Next::At(_)));
    assert_eq!(sink.state(), SinkState::Away);
    let first = reader(&path);
    now = now + SECOND;
    assert!(matches!(pump(&mut sink, now), Next::Idle));
    assert_eq!(read_all(&first), [1]);

    drop(first);
    std::fs::remove_file(&path).unwrap();
    take(&mut sink, 2);
    assert!(matches!(pump(&mut sink, now), Next::Again), "found gone, tried again at once");
    assert!(matches!(pump(&mut sink, now), Next::At(_)));
    balanced(&sink);
    let second = reader(&path);
    take(&mut sink, 3);
    now = now + SECOND;
    assert!(matches!(pump(&mut sink, now), Next::Idle));
    assert_eq!(read_all(&second), [2, 3]);
    balanced(&sink);
}

#[test]
fn a_datagram_too_long_is_counted_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let reader = reader(&path);
    let mut sink = QueueSocket::new(path, None);
    sink.take(|bytes| bytes.resize(16 << 20, b'x'));
    take(&mut sink, 7);
    assert!(matches!(pump(&mut sink, Time::ZERO), Next::Idle));
    assert_eq!(read_all(&reader), [7]);
    assert_eq!(sink.counters().too_long, 1);
    balanced(&sink);
}

#[test]
fn what_is_abandoned_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = QueueSocket::new(folder.path().join("queue"), None);
    (0..3).for_each(|number| take(&mut sink, number));
    sink.abandon();
    assert_eq!((sink.held(), sink.counters().stopped), (0, 3));
    balanced(&sink);
}

/// A ledger with a cell for each of `agents` agents, in which the queue has nothing yet.
fn ledger(folder: &tempfile::TempDir, agents: u32) -> Arc<LedgerFile> {
    let sinks = SinkSet::NONE.with(SinkKind::Queue as usize);
    let (ledger, _) = LedgerFile::open(&folder.path().join("delivery"), sinks, |_| true).unwrap();
    for agent in 0..agents {
        let id = codec::AgentId::from_bytes(format!("{agent:03}").as_bytes()).unwrap();
        assert_eq!(ledger.open(id, 1, 0), Ok(agent));
    }
    Arc::new(ledger)
}

/// A sink that notes, with its ledger.
fn noting(folder: &tempfile::TempDir, agents: u32) -> (QueueSocket, Arc<LedgerFile>) {
    let ledger = ledger(folder, agents);
    let notes = QueueNotes::new(Arc::clone(&ledger)).unwrap();
    (QueueSocket::new(folder.path().join("queue"), Some(notes)), ledger)
}

fn ticket(cell: u32, number: u64) -> Ticket {
    Ticket { cell, number, wanted: SinkSet::NONE.with(SinkKind::Queue as usize) }
}

fn take_numbered(sink: &mut QueueSocket, moved: &mut Moved, ticket: Ticket) {
    let number = ticket.number;
    sink.take_numbered(ticket, moved, |bytes| bytes.extend_from_slice(number.to_string().as_bytes()));
}

fn before(ledger: &LedgerFile, cell: u32) -> u64 {
    ledger.before(cell, SinkKind::Queue as usize)
}

#[test]
fn numbered_events_are_noted_as_far_as_they_are_sent_among_others() {
    let folder = tempfile::tempdir().unwrap();
    let reader = reader(&folder.path().join("queue"));
    let ((mut sink, ledger), mut moved) = (noting(&folder, 2), Moved::default());
    for number in 0..3_000 {
        match number % 3 {
            0 => take(&mut sink, number),
            agent => take_numbered(&mut sink, &mut moved, ticket(agent - 1, number.into())),
        }
    }
    let (mut received, mut now) = (Vec::new(), Time::ZERO);
    while sink.held() > 0 {
        let _ = sink.pump(now, &mut moved);
        now = now + SECOND;
        received.extend(read_all(&reader));
        let sent = received.len() as u64;
        let of_agent =
            |agent: u64| (0..sent).rev().find(|number| number % 3 == agent + 1).map_or(0, |last| last + 1);
        assert_eq!([before(&ledger, 0), before(&ledger, 1)], [of_agent(0), of_agent(1)], "{sent} sent");
    }
    assert_eq!(received, (0..3_000).collect::<Vec<_>>());
    assert!(sink.counters().stalls > 0, "3,000 datagrams do not fit at once");
    let cells: Vec<u32> = moved.drain().collect();
    assert!(cells.contains(&0) && cells.contains(&1) && moved.is_empty());
    balanced(&sink);
}

#[test]
fn what_is_passed_is_noted_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let ((mut sink, ledger), mut moved) = (noting(&folder, 1), Moved::default());
    sink.pass(ticket(0, 4), &mut moved);
    assert_eq!((before(&ledger, 0), moved.drain().collect::<Vec<_>>()), (5, vec![0]), "nothing is before it");
    take_numbered(&mut sink, &mut moved, ticket(0, 5));
    sink.pass(ticket(0, 6), &mut moved);
    sink.take_numbered(ticket(0, 7), &mut moved, |_| {});
    assert_eq!((before(&ledger, 0), sink.counters().refused), (5, 1));
    take_numbered(&mut sink, &mut moved, ticket(0, 8));
    let reader = reader(&folder.path().join("queue"));
    assert!(matches!(sink.pump(Time::ZERO, &mut moved), Next::Idle));
    assert_eq!((read_all(&reader), before(&ledger, 0)), (vec![5, 8], 9));
    assert_eq!((sink.counters().taken, sink.counters().delivered), (3, 2));
}

#[test]
fn one_too_long_counts_as_handed_over_and_one_abandoned_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let reader = reader(&folder.path().join("queue"));
    let ((mut sink, ledger), mut moved) = (noting(&folder, 1), Moved::default());
    sink.take_numbered(ticket(0, 1), &mut moved, |bytes| bytes.resize(16 << 20, b'x'));
    take_numbered(&mut sink, &mut moved, ticket(0, 2));
    assert!(matches!(sink.pump(Time::ZERO, &mut moved), Next::Idle));
    assert_eq!((read_all(&reader), before(&ledger, 0), sink.counters().too_long), (vec![2], 3, 1));
    take_numbered(&mut sink, &mut moved, ticket(0, 3));
    sink.abandon();
    assert_eq!((before(&ledger, 0), sink.held_bytes()), (3, 0));
    balanced(&sink);
}

#[test]
fn tickets_count_as_held() {
    let folder = tempfile::tempdir().unwrap();
    let ((mut sink, _), mut moved) = (noting(&folder, 2), Moved::default());
    take(&mut sink, 1);
    let without = sink.held_bytes();
    for number in 1..=1_000 {
        sink.pass(ticket(number % 2, number.into()), &mut moved);
    }
    assert!(sink.held_bytes() >= without + 1_000 * 24, "events that no sink gets fill it too");
}
