//! The ledger on real files, and its process ended between any two stores.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

const QUEUE_ONLY: SinkSet = SinkSet::NONE.with(QUEUE);
const TEXT: usize = SinkKind::ArchiveText as usize;

thread_local! {
    /// After so many more stores the process is killed.
    static STORES_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What stands for the kill.
struct Killed;

pub(super) fn before_a_store() {
    match STORES_LEFT.get() {
        None => {}
        Some(0) => std::panic::resume_unwind(Box::new(Killed)),
        Some(left) => STORES_LEFT.set(Some(left - 1)),
    }
}

/// Runs `work` and kills it before its store number `stores`. Whether it was killed.
fn killed_after(stores: u32, work: impl FnOnce()) -> bool {
    STORES_LEFT.set(Some(stores));
    let ended = catch_unwind(AssertUnwindSafe(work));
    STORES_LEFT.set(None);
    match ended {
        Ok(()) => false,
        Err(payload) => payload.is::<Killed>() || std::panic::resume_unwind(payload),
    }
}

fn agent(number: u32) -> AgentId {
    AgentId::from_bytes(format!("{number:03}").as_bytes()).unwrap()
}

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("delivery")
}

fn open(folder: &tempfile::TempDir) -> (LedgerFile, Opened) {
    LedgerFile::open(&path(folder), QUEUE_ONLY, |_| true).unwrap()
}

fn befores(ledger: &LedgerFile, cell: u32) -> [u64; SINKS_MAX] {
    std::array::from_fn(|sink| ledger.before(cell, sink))
}

#[test]
fn what_was_noted_is_there_when_the_ledger_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, opened) = open(&folder);
    assert_eq!(opened, Opened::default());
    let (one, two) = (ledger.open(agent(1), 77, 5).unwrap(), ledger.open(agent(2), 78, 1).unwrap());
    assert_ne!(one, two);
    ledger.note(one, SinkKind::Queue, 9);
    ledger.note(one, SinkKind::ArchiveJson, 7);
    ledger.note(two, SinkKind::ArchiveText, DELIVERY_NUMBER_MAX + 1);
    drop(ledger);

    let (ledger, opened) = open(&folder);
    assert_eq!((opened, ledger.used()), (Opened { kept: 2, ..Opened::default() }, 2));
    assert_eq!(befores(&ledger, one), [9, 5, 7]);
    assert_eq!(
        (ledger.open(agent(1), 77, 6), befores(&ledger, one)),
        (Ok(one), [9, 6, 7]),
        "at least the first"
    );
    assert_eq!(ledger.open(agent(2), 78, 1), Ok(two));
    assert_eq!(befores(&ledger, two), [1, DELIVERY_NUMBER_MAX + 1, 1]);
    assert_eq!(ledger.used(), 2);
}

#[test]
fn what_the_kernel_noted_is_shown_by_the_note_that_follows_or_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(&folder);
    let cell = ledger.open(agent(1), 77, 1).unwrap();
    ledger.queue_word(cell).store(4);
    assert_eq!(ledger.before(cell, QUEUE), 1);
    ledger.note(cell, SinkKind::Queue, 3);
    assert_eq!(ledger.before(cell, QUEUE), 4, "a note does not take back what is known");
    ledger.queue_word(cell).store(6);
    drop(ledger);
    assert_eq!(open(&folder).0.before(cell, QUEUE), 6);
}

#[test]
fn another_session_begins_anew_in_every_sink() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(&folder);
    let cell = ledger.open(agent(1), 77, 1).unwrap();
    SinkKind::ALL.iter().for_each(|sink| ledger.note(cell, *sink, 1_000));
    assert_eq!((ledger.open(agent(1), 78, 3), befores(&ledger, cell)), (Ok(cell), [3; SINKS_MAX]));
    ledger.note(cell, SinkKind::Queue, 8);
    assert_eq!((ledger.open(agent(1), NO_SESSION, 1), befores(&ledger, cell)), (Ok(cell), [1; SINKS_MAX]));
    ledger.note(cell, SinkKind::Queue, 8);
    assert_eq!((ledger.open(agent(1), NO_SESSION, 2), befores(&ledger, cell)), (Ok(cell), [2; SINKS_MAX]));
}

#[test]
fn a_kill_at_any_store_leaves_a_ledger_that_never_says_too_much() {
    for stores in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = open(&folder);
        let cell = ledger.open(agent(1), 77, 1).unwrap();
        ledger.note(cell, SinkKind::Queue, 1_000);
        ledger.note(cell, SinkKind::ArchiveText, 900);
        let killed = killed_after(stores, || {
            ledger.open(agent(1), 78, 3).unwrap();
            ledger.open(agent(2), 5, 40).unwrap();
            ledger.note(cell, SinkKind::Queue, 4);
            ledger.open(agent(1), 78, 4).unwrap();
        });
        drop(ledger);

        let (ledger, opened) = open(&folder);
        assert_eq!((opened.aside, opened.damaged), (None, 0), "{stores} stores");
        assert_eq!(ledger.open(agent(1), 78, 3), Ok(cell));
        let befores = befores(&ledger, cell);
        assert!(befores[QUEUE] <= 4 && befores[TEXT] <= 4, "{stores} stores: {befores:?} in the new session");
        let two = ledger.open(agent(2), 5, 40).unwrap();
        assert_eq!((ledger.before(two, QUEUE), ledger.used()), (40, 2), "{stores} stores");
        if !killed {
            assert_eq!((befores, stores > 20), ([4; SINKS_MAX], true));
            return;
        }
    }
}

#[test]
fn a_kill_before_the_new_session_stands_keeps_the_old_one_whole_or_gives_it_up() {
    for stores in 0..16 {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = open(&folder);
        let cell = ledger.open(agent(1), 77, 1).unwrap();
        ledger.note(cell, SinkKind::Queue, 1_000);
        killed_after(stores, || {
            let _ = ledger.open(agent(1), 78, 3);
        });
        drop(ledger);
        let (ledger, _) = open(&folder);
        ledger.open(agent(1), 77, 2).unwrap();
        let before = ledger.before(cell, QUEUE);
        assert!(before == 2 || (before == 1_000 && stores == 0), "{stores} stores: {before}");
    }
}

#[test]
fn agents_that_are_not_listed_make_room_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(&folder);
    let cells: Vec<u32> = (1..=3).map(|number| ledger.open(agent(number), 7, 50).unwrap()).collect();
    drop(ledger);
    let (ledger, opened) = LedgerFile::open(&path(&folder), QUEUE_ONLY, |id| id != agent(2)).unwrap();
    assert_eq!((opened, ledger.used()), (Opened { kept: 2, freed: 1, ..Opened::default() }, 2));
    assert_eq!(ledger.open(agent(4), 7, 1), Ok(cells[1]), "the cell is used again");
    assert_eq!(befores(&ledger, cells[1]), [1; SINKS_MAX], "and says nothing of the agent before");
}

#[test]
fn cells_that_make_no_sense_are_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(&folder);
    let cells: Vec<u32> = (1..=4).map(|number| ledger.open(agent(number), 7, 50).unwrap()).collect();
    ledger.word(cells[0], ID).store(u64::from_le_bytes(*b"0\x001\0\0\0\0\0"));
    ledger.word(cells[1], BEFORE + TEXT).store(u64::MAX);
    ledger.word(cells[2], ID).store(id_word(agent(4)));
    drop(ledger);
    let (ledger, opened) = open(&folder);
    assert_eq!((opened, ledger.used()), (Opened { kept: 1, damaged: 3, ..Opened::default() }, 1));
    assert_eq!(ledger.open(agent(1), 7, 2).map(|cell| befores(&ledger, cell)), Ok([2; SINKS_MAX]));
}

#[test]
fn what_is_no_ledger_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(path(&folder), b"something else").unwrap();
    let (ledger, opened) = open(&folder);
    let aside = folder.path().join("delivery.damaged");
    assert_eq!(opened.aside.as_ref(), Some(&aside));
    assert_eq!(fs::read(aside).unwrap(), b"something else");
    ledger.open(agent(1), 7, 2).unwrap();
    drop(ledger);
    assert_eq!(open(&folder).1, Opened { kept: 1, ..Opened::default() });
}

#[test]
fn a_link_in_the_ledgers_place_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("other"), b"").unwrap();
    std::os::unix::fs::symlink(folder.path().join("other"), path(&folder)).unwrap();
    assert!(LedgerFile::open(&path(&folder), QUEUE_ONLY, |_| true).is_err());
}

#[test]
fn a_full_ledger_says_so_and_keeps_those_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(&folder);
    let id = |number: u32| AgentId::from_bytes(format!("{number:07}").as_bytes()).unwrap();
    for number in 0..CELLS_MAX {
        assert_eq!(ledger.open(id(number), 7, 1), Ok(number));
    }
    assert_eq!(ledger.open(id(CELLS_MAX), 7, 1), Err(LedgerFull));
    assert_eq!(ledger.used(), u64::from(CELLS_MAX));
    assert_eq!(ledger.open(id(5), 7, 9), Ok(5));
    let length = fs::metadata(path(&folder)).unwrap().len();
    assert_eq!(length, HEADER_BYTES + u64::from(CELLS_MAX) * CELL_BYTES, "8 MiB and a page");
}
