use super::*;

fn counter(global: u32, local: u16) -> Counter {
    Counter { global, local }
}

#[test]
fn which_counter_of_an_agent_counts() {
    let id: AgentId = "001".parse().unwrap();
    let stored = |global, fingerprint| {
        let counter = counter(global, 1);
        Record { id, counter, fingerprint, moved: false, listed: true }
    };
    let check = |state, stored: Option<Record>, rid: Option<u32>, expected: u32| {
        let rid = rid.map(|global| counter(global, 1));
        let found = last_counter(state, stored.as_ref(), rid, 7);
        assert_eq!(found.global, expected, "{state:?} {stored:?} {rid:?}");
    };
    check(State::Absent, None, None, 0);
    check(State::Absent, None, Some(4), 4);
    check(State::Clean, Some(stored(9, 7)), Some(4), 4);
    check(State::Clean, Some(stored(9, 7)), Some(12), 12);
    check(State::Clean, Some(stored(9, 7)), None, 0);
    check(State::Clean, None, Some(4), 4);
    check(State::Running, Some(stored(9, 7)), Some(4), 9);
    check(State::Running, Some(stored(9, 7)), Some(12), 12);
    check(State::Running, Some(stored(9, 7)), None, 9);
    check(State::Running, None, Some(4), 4);
    check(State::Clean, Some(stored(9, 8)), Some(9), 0);
    check(State::Running, Some(stored(9, 8)), Some(9), 0);
}

#[test]
fn the_sender_never_goes_back() {
    let check = |state, stored: Option<u32>, rid: Option<u32>, expected: u32| {
        let (stored, rid) = (stored.map(|global| counter(global, 5)), rid.map(|global| counter(global, 5)));
        let first = first_sender(state, stored, rid, 20_000);
        assert_eq!(first.global, expected, "{state:?} {stored:?} {rid:?}");
    };
    check(State::Absent, None, None, 0);
    check(State::Absent, None, Some(3), 6);
    check(State::Clean, Some(3), Some(2), 3);
    check(State::Clean, Some(3), Some(8), 8);
    check(State::Running, Some(3), Some(2), 6);
    check(State::Running, Some(3), Some(8), 11);
    check(State::Running, None, None, 3);
    assert_eq!(ahead(counter(u32::MAX, 4), 20_000), counter(u32::MAX, 4));
}

fn entries(keys: &str) -> Vec<KeyEntry> {
    codec::KeyFile::parse(keys.as_bytes()).entries
}

/// Opens the store as a start does, moves one agent's counter on, and hands everything back.
fn run(home: &Home, keys: &str) -> (CounterStore, Arc<AgentTable>) {
    let entries = entries(keys);
    let (store, problems) = CounterStore::open(home, &entries, 10_000).unwrap();
    assert_eq!(problems, Vec::<String>::new());
    let seed = store.seed(&entries);
    (store, Arc::new(AgentTable::build(entries, None, &seed)))
}

fn highest(table: &AgentTable, id: &str) -> Counter {
    table.by_id(id.parse().unwrap()).unwrap().state().replay().highest()
}

fn accept(table: &AgentTable, id: &str, counter: Counter) {
    let agent = table.by_id(id.parse().unwrap()).unwrap();
    agent.state().replay().accept(manager::ReplayPolicy::Strict, counter).unwrap();
}

#[test]
fn counters_survive_a_kill_and_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::prepare(folder.path()).unwrap();
    let keys = "001 one any k1\n002 two any k2\n";

    let (mut store, table) = run(&home, keys);
    accept(&table, "001", counter(3, 9));
    store.collect(&table, counter(0, 4));
    let text = store.unwritten().unwrap();
    home::write_whole(store.path(), text.as_bytes()).unwrap();
    store.collect(&table, counter(0, 4));
    assert_eq!(store.unwritten(), None, "nothing moved");

    let (mut store, table) = run(&home, keys);
    assert_eq!(highest(&table, "001"), counter(3, 9), "after a kill");
    assert_eq!(store.sender(), counter(2, 4), "after a kill");
    accept(&table, "001", counter(3, 10));
    store.collect(&table, counter(2, 5));
    store.close().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("queue/rids/001")).unwrap(), "3:10:");
    assert!(!folder.path().join("queue/rids/002").exists(), "it never moved");
    assert_eq!(fs::read_to_string(folder.path().join("queue/rids/sender_counter")).unwrap(), "2:5:");

    let (store, table) = run(&home, keys);
    assert_eq!(highest(&table, "001"), counter(3, 10), "after a clean stop");
    assert_eq!(store.sender(), counter(2, 5), "after a clean stop");

    fs::remove_file(folder.path().join("queue/rids/001")).unwrap();
    let (_, table) = run(&home, keys);
    assert_eq!(highest(&table, "001"), Counter::ZERO, "the operator deleted it after a clean stop");
}

#[test]
fn another_key_starts_from_nothing_and_an_old_key_that_comes_back_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::prepare(folder.path()).unwrap();
    let (mut store, table) = run(&home, "001 one any k1\n");
    accept(&table, "001", counter(3, 9));
    store.collect(&table, Counter::ZERO);
    assert!(store.seed(&entries("001 one any other\n")).is_empty());
    let back = store.seed(&entries("001 one any k1\n"));
    assert_eq!(back.values().copied().collect::<Vec<_>>(), [counter(3, 9)]);
}

#[test]
fn a_key_that_is_replaced_while_running_starts_from_nothing_after_a_stop_too() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::prepare(folder.path()).unwrap();
    let (mut store, table) = run(&home, "001 one any k1\n");
    accept(&table, "001", counter(3, 9));
    store.collect(&table, Counter::ZERO);
    store.close().unwrap();
    let (mut store, table) = run(&home, "001 one any k1\n");
    store.collect(&table, Counter::ZERO);

    let keys = entries("001 one any other\n");
    let seed = store.seed(&keys);
    let table = Arc::new(AgentTable::build(keys, Some(&table), &seed));
    store.collect(&table, Counter::ZERO);
    store.close().unwrap();
    let (_, table) = run(&home, "001 one any other\n");
    assert_eq!(highest(&table, "001"), Counter::ZERO);
}

#[test]
fn a_reset_is_not_undone_by_a_kill_nor_by_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::prepare(folder.path()).unwrap();
    let keys = "001 one any k1\n";
    let (mut store, table) = run(&home, keys);
    accept(&table, "001", counter(3, 9));
    store.collect(&table, Counter::ZERO);
    store.close().unwrap();

    let (mut store, table) = run(&home, keys);
    assert_eq!(highest(&table, "001"), counter(3, 9));
    table.by_id("001".parse().unwrap()).unwrap().state().replay().reset();
    store.forget("001".parse().unwrap()).unwrap();
    store.collect(&table, Counter::ZERO);
    let text = store.unwritten().unwrap();
    home::write_whole(store.path(), text.as_bytes()).unwrap();
    let (mut store, table) = run(&home, keys);
    assert_eq!(highest(&table, "001"), Counter::ZERO, "after a kill");
    accept(&table, "001", counter(0, 4));
    store.collect(&table, Counter::ZERO);
    store.forget("001".parse().unwrap()).unwrap();
    store.close().unwrap();
    let (_, table) = run(&home, keys);
    assert_eq!(highest(&table, "001"), Counter::ZERO, "after a stop");
}

#[test]
fn ossecs_files_go_out_and_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::prepare(folder.path()).unwrap();
    let keys = "001 one any k1\n002 two any k2\n003 three any k3\n";
    let (mut store, table) = run(&home, keys);
    accept(&table, "001", counter(3, 9));
    accept(&table, "002", counter(0, 5));
    store.collect(&table, counter(2, 2));
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    assert_eq!(store.export(&elsewhere).unwrap(), 2);
    let text = |name: &str| fs::read_to_string(elsewhere.join(name)).ok();
    assert_eq!(text("001").as_deref(), Some("3:9:"));
    assert_eq!((text(SENDER).as_deref(), text("003")), (Some("2:2:"), None));

    fs::write(elsewhere.join("001"), "1:1:").unwrap();
    fs::write(elsewhere.join("003"), "8:8:").unwrap();
    fs::remove_file(elsewhere.join("002")).unwrap();
    fs::write(elsewhere.join(SENDER), "1:7:").unwrap();
    assert_eq!(store.import(&elsewhere).unwrap(), 2);
    store.close().unwrap();
    let (store, table) = run(&home, keys);
    let after = ["001", "002", "003"].map(|id| highest(&table, id));
    assert_eq!(after, [counter(1, 1), counter(0, 5), counter(8, 8)]);
    assert_eq!(store.sender(), counter(2, 2), "an agent must never see it go back");
}

#[test]
fn who_was_removed_has_no_file_and_goes_on_counting_if_he_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::prepare(folder.path()).unwrap();
    let keys = "001 one any k1\n002 two any k2\n";
    let (mut store, table) = run(&home, keys);
    accept(&table, "001", counter(3, 9));
    accept(&table, "002", counter(1, 1));
    store.collect(&table, Counter::ZERO);
    let rest = Arc::new(AgentTable::build(entries("001 one any k1\n"), Some(&table), &store.seed(&[])));
    store.collect(&rest, Counter::ZERO);
    assert_eq!(store.seed(&entries(keys)).len(), 2, "it may come back");
    store.close().unwrap();
    let rids = store.rids.present().unwrap();
    assert_eq!(rids, ["001", SENDER].map(str::to_owned).into());
}

#[test]
fn a_damaged_store_is_read_as_far_as_possible_and_never_as_clean() {
    let mut problems = Vec::new();
    let text = "ringmaster counters 1 cle\nsender x 1\n001 1 2 00ff\n002 1\n\n003 1 2 zz\n";
    let stored = Stored::parse(text, |line, _| problems.push(line));
    assert_eq!(stored.state, State::Running);
    assert_eq!(stored.agents.len(), 1);
    assert_eq!(problems, [2, 4, 5, 6]);
}
