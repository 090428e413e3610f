//! An archive and the ring's part of it, played.

use std::os::unix::fs::PermissionsExt;

use manager::{Ledger, SinkSet};

use super::*;

fn archive(folder: &tempfile::TempDir) -> Archive {
    Archive::new(folder.path().join("archives.log"), None)
}

fn take(archive: &mut Archive, line: &[u8]) {
    archive.take(|bytes| bytes.extend_from_slice(line));
}

/// The write that was begun has completed.
fn written(archive: &mut Archive, now: Time, result: Result<u32, Errno>) {
    archive.on_written(now, result, &mut Moved::default());
}

fn balanced(archive: &Archive) {
    let counters = archive.counters();
    assert_eq!(counters.taken, counters.delivered + counters.refused + counters.stopped + archive.held());
}

fn bytes_of(next: Next) -> Bytes {
    match next {
        Next::Write { bytes, .. } => bytes,
        other @ (Next::Again | Next::At(_) | Next::Idle | Next::Poll { .. } | Next::Sync { .. }) => {
            panic!("no write: {other:?}")
        }
    }
}

#[test]
fn the_first_line_goes_at_once_and_the_next_ones_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive(&folder);
    let now = Time::from_seconds(5);
    assert!(matches!(archive.pump(now, false), Next::Idle));
    take(&mut archive, b"one\n");
    assert_eq!(bytes_of(archive.pump(now, false)), &b"one\n"[..]);
    take(&mut archive, b"two\n");
    assert!(matches!(archive.pump(now, false), Next::Idle), "one write at a time");
    written(&mut archive, now, Ok(4));
    assert!(matches!(archive.pump(now, false), Next::At(_)));
    take(&mut archive, b"three\n");
    assert_eq!(bytes_of(archive.pump(now + WRITE_INTERVAL, false)), &b"two\nthree\n"[..]);
    balanced(&archive);
    written(&mut archive, now, Ok(10));
    assert_eq!((archive.held(), archive.held_bytes(), archive.counters().delivered), (0, 0, 3));
    let file = std::fs::metadata(folder.path().join("archives.log")).unwrap();
    assert_eq!(file.permissions().mode() & 0o007, 0, "the world does not read what agents log");
}

#[test]
fn a_full_block_does_not_wait_nor_does_haste() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive(&folder);
    let now = Time::from_seconds(5);
    take(&mut archive, b"one\n");
    let _ = archive.pump(now, false);
    written(&mut archive, now, Ok(4));
    take(&mut archive, &vec![b'x'; BLOCK_BYTES]);
    assert_eq!(bytes_of(archive.pump(now, false)).len(), BLOCK_BYTES);
    written(&mut archive, now, Ok(BLOCK_BYTES as u32));
    take(&mut archive, b"two\n");
    assert!(matches!(archive.pump(now, false), Next::At(_)));
    assert_eq!(bytes_of(archive.pump(now, true)).len(), 4);
    balanced(&archive);
}

#[test]
fn short_and_failed_writes_go_on_where_they_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive(&folder);
    let mut now = Time::from_seconds(5);
    take(&mut archive, b"one\ntwo\n");
    let _ = archive.pump(now, false);
    written(&mut archive, now, Ok(3));
    assert_eq!(bytes_of(archive.pump(now, true)), &b"\ntwo\n"[..]);
    written(&mut archive, now, Err(Errno::NOSPC));
    assert_eq!(archive.state(), SinkState::Failing);
    assert!(matches!(archive.pump(now, true), Next::At(_)), "haste does not hurry a full disk");
    balanced(&archive);
    now = now + RETRY_INTERVAL;
    assert_eq!(bytes_of(archive.pump(now, false)), &b"\ntwo\n"[..]);
    written(&mut archive, now, Ok(5));
    assert_eq!((archive.state(), archive.counters().delivered), (SinkState::Taking, 1));
}

#[test]
fn the_memory_of_what_was_written_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive(&folder);
    let now = Time::from_seconds(5);
    let mut places = Vec::new();
    for _ in 0..6 {
        take(&mut archive, b"one\n");
        places.push(bytes_of(archive.pump(now, true)).as_ptr().addr());
        // The next block fills while this one is being written.
        take(&mut archive, b"two\n");
        written(&mut archive, now, Ok(4));
        places.push(bytes_of(archive.pump(now, true)).as_ptr().addr());
        written(&mut archive, now, Ok(4));
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 2, "two blocks take turns");
    balanced(&archive);
}

#[test]
fn a_file_that_was_moved_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("archives.log"), folder.path().join("archives.1"));
    let mut archive = archive(&folder);
    let now = Time::from_seconds(5);
    for (line, rename) in [(&b"one\n"[..], false), (b"two\n", true)] {
        if rename {
            std::fs::rename(&path, &moved).unwrap();
        }
        archive.follow_rename();
        take(&mut archive, line);
        let _ = bytes_of(archive.pump(now, true));
        written(&mut archive, now, Ok(4));
        archive.follow_rename();
    }
    assert!(path.exists() && moved.exists());
    balanced(&archive);
}

#[test]
fn an_idle_archive_knows_whether_it_could_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = Archive::new(folder.path().join("later/archives.log"), None);
    let mut check = |expected: SinkState| {
        archive.probe();
        assert_eq!(archive.state(), expected);
    };
    check(SinkState::Failing);
    std::fs::create_dir(folder.path().join("later")).unwrap();
    check(SinkState::Taking);
    assert_eq!(std::fs::read_dir(folder.path().join("later")).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_folder_that_is_not_there_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = Archive::new(folder.path().join("later/archives.log"), None);
    take(&mut archive, b"one\n");
    let now = Time::from_seconds(5);
    assert!(matches!(archive.pump(now, false), Next::At(_)));
    assert_eq!(archive.state(), SinkState::Failing);
    std::fs::create_dir(folder.path().join("later")).unwrap();
    assert_eq!(bytes_of(archive.pump(now + RETRY_INTERVAL, false)), &b"one\n"[..]);
    written(&mut archive, now, Ok(4));
    take(&mut archive, b"two\n");
    take(&mut archive, b"");
    archive.abandon();
    assert_eq!((archive.counters().stopped, archive.counters().refused), (1, 1));
    balanced(&archive);
}

/// An archive that notes, with its ledger and the cell of an agent.
fn noting(folder: &tempfile::TempDir) -> (Archive, Arc<LedgerFile>, u32) {
    let sinks = SinkSet::NONE.with(SinkKind::ArchiveText as usize);
    let mut settings = crate::settings::Settings::with_home(folder.path());
    settings.sink.queue.enabled = false;
    settings.sink.archives.text = true;
    let delivery = crate::delivery::Delivery::open(folder.path(), &settings, |_| true).unwrap().unwrap();
    let of_shard = delivery.of_shard(manager::ShardId(0)).unwrap();
    let (ledger, blocks) = (of_shard.ledger, of_shard.text_blocks.unwrap());
    assert_eq!(ledger.sinks(), sinks);
    let cell = ledger.open(codec::AgentId::from_bytes(b"001").unwrap(), 9, 1).unwrap();
    let notes = ArchiveNotes { kind: SinkKind::ArchiveText, ledger: Arc::clone(&ledger), blocks };
    (Archive::new(settings.archives_text_path(), Some(notes)), ledger, cell)
}

fn take_numbered(archive: &mut Archive, moved: &mut Moved, cell: u32, number: u64) {
    let wanted = SinkSet::NONE.with(SinkKind::ArchiveText as usize);
    let line = format!("event {number}\n");
    let ticket = Ticket { cell, number, wanted };
    archive.take_numbered(ticket, moved, |bytes| bytes.extend_from_slice(line.as_bytes()));
}

fn before(ledger: &LedgerFile, cell: u32) -> u64 {
    ledger.before(cell, SinkKind::ArchiveText as usize)
}

#[test]
fn a_numbered_event_is_noted_once_all_of_its_block_is_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("logs/archives")).unwrap();
    let ((mut archive, ledger, cell), mut moved) = (noting(&folder), Moved::default());
    let now = Time::from_seconds(5);
    take(&mut archive, b"UDP\n");
    take_numbered(&mut archive, &mut moved, cell, 7);
    let length = bytes_of(archive.pump(now, true)).len() as u32;
    take_numbered(&mut archive, &mut moved, cell, 8);
    archive.on_written(now, Ok(5), &mut moved);
    assert!(moved.is_empty() && before(&ledger, cell) == 1);
    let _ = bytes_of(archive.pump(now, true));
    archive.on_written(now, Ok(length - 5), &mut moved);
    assert_eq!((before(&ledger, cell), moved.drain().collect::<Vec<_>>()), (8, vec![cell]));
    let _ = bytes_of(archive.pump(now, true));
    archive.on_written(now, Ok(8), &mut moved);
    assert_eq!(before(&ledger, cell), 9);
    balanced(&archive);
}

#[test]
fn what_is_synced_counts_only_then() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("logs/archives")).unwrap();
    let ((mut archive, ledger, cell), mut moved) = (noting(&folder), Moved::default());
    archive.set_syncs(true);
    let mut now = Time::from_seconds(5);
    take_numbered(&mut archive, &mut moved, cell, 7);
    let _ = bytes_of(archive.pump(now, false));
    archive.on_written(now, Ok(8), &mut moved);
    assert_eq!((before(&ledger, cell), archive.held(), archive.counters().delivered), (1, 1, 0));
    assert!(matches!(archive.pump(now, false), Next::Sync { .. }), "at once");
    assert!(archive.in_flight() && matches!(archive.pump(now, true), Next::Idle));
    archive.on_synced(now, Err(Errno::IO), &mut moved);
    assert_eq!((before(&ledger, cell), archive.state()), (1, SinkState::Failing));
    assert!(matches!(archive.pump(now, true), Next::At(_)));
    now = now + RETRY_INTERVAL;
    assert!(matches!(archive.pump(now, false), Next::Sync { .. }));
    balanced(&archive);
    archive.on_synced(now, Ok(0), &mut moved);
    assert_eq!((before(&ledger, cell), archive.held(), archive.state()), (8, 0, SinkState::Taking));
    balanced(&archive);
}

#[test]
fn a_start_after_a_kill_finds_what_the_block_brought_into_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("logs/archives")).unwrap();
    let ((mut archive, ledger, cell), mut moved) = (noting(&folder), Moved::default());
    let now = Time::from_seconds(5);
    take(&mut archive, b"UDP\n");
    (7..=9).for_each(|number| take_numbered(&mut archive, &mut moved, cell, number));
    let Next::Write { file, bytes } = archive.pump(now, true) else { panic!("nothing is written") };
    // All but the end of the last line, and nobody is left to be told.
    rustix::io::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(before(&ledger, cell), 1);
    drop((archive, ledger));
    let (_, ledger, cell) = noting(&folder);
    assert_eq!(before(&ledger, cell), 9, "events 7 and 8 are there");
    let text = std::fs::read_to_string(folder.path().join("logs/archives/archives.log")).unwrap();
    assert_eq!(text, "UDP\nevent 7\nevent 8\n");
}
