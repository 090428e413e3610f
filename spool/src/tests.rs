//! The spool as a whole, against a list in memory, through every kind of end.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const SMALL: Settings = Settings {
    bytes_max: 4 * SEGMENT_BYTES_MIN,
    segment_bytes: SEGMENT_BYTES_MIN,
    at_bound: AtBound::PushBack,
    sync: false,
};

fn open(folder: &TempDir, settings: Settings) -> (Spool, Recovery) {
    Spool::open(folder.path(), settings).unwrap()
}

fn fresh(settings: Settings) -> (TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let (spool, recovery) = open(&folder, settings);
    assert_eq!(recovery, Recovery::default());
    (folder, spool)
}

fn append(spool: &mut Spool, text: &str) -> u64 {
    spool.append(text.as_bytes()).unwrap().0
}

fn all(spool: &mut Spool) -> Vec<(u64, Vec<u8>)> {
    let mut cursor = spool.cursor(Sequence(0));
    let mut records = Vec::new();
    while let Some((sequence, record)) = spool.read(&mut cursor).unwrap() {
        records.push((sequence.0, record.to_vec()));
    }
    records
}

fn texts(spool: &mut Spool) -> Vec<String> {
    all(spool).into_iter().map(|(_, record)| String::from_utf8(record).unwrap()).collect()
}

fn segment_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    files.sort();
    files
}

#[test]
fn records_are_read_in_order_once_committed() {
    let (_folder, mut spool) = fresh(SMALL);
    let mut cursor = spool.cursor(Sequence(0));
    append(&mut spool, "one");
    assert!(spool.read(&mut cursor).unwrap().is_none(), "it is not committed");
    spool.commit().unwrap();
    append(&mut spool, "two");
    assert_eq!(spool.read(&mut cursor).unwrap(), Some((Sequence(0), &b"one"[..])));
    assert!(spool.read(&mut cursor).unwrap().is_none());
    spool.commit().unwrap();
    assert_eq!(spool.read(&mut cursor).unwrap(), Some((Sequence(1), &b"two"[..])));
    assert!(spool.read(&mut cursor).unwrap().is_none());
    assert_eq!(texts(&mut spool), ["one", "two"], "another cursor begins at the front");
}

#[test]
fn a_clean_end_goes_on_with_the_next_number_and_any_other_jumps() {
    let (folder, mut spool) = fresh(SMALL);
    append(&mut spool, "a");
    spool.close().unwrap();
    let (mut spool, recovery) = open(&folder, SMALL);
    assert_eq!(recovery, Recovery { records: 1, ..Recovery::default() });
    assert_eq!(append(&mut spool, "b"), 1);
    spool.commit().unwrap();
    append(&mut spool, "never committed");
    drop(spool);
    let (mut spool, recovery) = open(&folder, SMALL);
    assert_eq!(recovery, Recovery { records: 2, ..Recovery::default() });
    assert_eq!(append(&mut spool, "c"), 2 + JUMP);
    spool.commit().unwrap();
    assert_eq!(all(&mut spool), [(0, b"a".into()), (1, b"b".into()), (2 + JUMP, b"c".into())]);
    assert_eq!(spool.records(), 3);
}

#[test]
fn what_is_forgotten_does_not_come_back_and_its_segments_go() {
    let (folder, mut spool) = fresh(SMALL);
    for index in 0..10 {
        append(&mut spool, &format!("{index}{}", "x".repeat(1_000)));
    }
    spool.commit().unwrap();
    assert_eq!(segment_files(folder.path()).len(), 3);
    spool.forget(Sequence(8)).unwrap();
    spool.forget(Sequence(3)).unwrap();
    assert_eq!(segment_files(folder.path()).len(), 1);
    assert_eq!(all(&mut spool).len(), 1);
    assert_eq!((spool.counters().forgotten, spool.records()), (9, 1));
    spool.save().unwrap();
    drop(spool);
    let (mut spool, recovery) = open(&folder, SMALL);
    assert_eq!((recovery.lost_records, recovery.cut_bytes), (0, 0));
    assert_eq!(all(&mut spool).first().map(|(sequence, _)| *sequence), Some(9));
    spool.forget(Sequence(9)).unwrap();
    assert_eq!(all(&mut spool), []);
    spool.close().unwrap();
    let (spool, _) = open(&folder, SMALL);
    assert_eq!((spool.next_sequence(), spool.first_sequence()), (Sequence(10 + JUMP), Sequence(10 + JUMP)));
}

#[test]
fn a_full_spool_pushes_back_until_something_is_forgotten() {
    let (_folder, mut spool) = fresh(SMALL);
    let record = [7; 1_000];
    let mut taken = 0;
    while spool.append(&record).is_ok() {
        taken += 1;
    }
    assert!(matches!(spool.append(&record), Err(AppendError::Full)));
    assert_eq!((taken, spool.counters().refused), (16, 2));
    assert!(spool.bytes() <= SMALL.bytes_max);
    spool.commit().unwrap();
    spool.forget(Sequence(3)).unwrap();
    spool.append(&record).unwrap();
    assert!(
        matches!(spool.append(&[0; RECORD_BYTES_MAX + 1]), Err(AppendError::TooLong { bytes }) if bytes > RECORD_BYTES_MAX)
    );
}

#[test]
fn a_full_spool_drops_its_oldest_if_told_to_and_counts_them() {
    let (_folder, mut spool) = fresh(Settings { at_bound: AtBound::DropOldest, ..SMALL });
    let mut cursor = spool.cursor(Sequence(0));
    for index in 0..100 {
        append(&mut spool, &format!("{index:0>1000}"));
    }
    spool.commit().unwrap();
    let kept = all(&mut spool);
    assert_eq!(spool.counters().dropped + kept.len() as u64, 100);
    assert_eq!(kept.last().unwrap().0, 99);
    assert!(spool.bytes() <= SMALL.bytes_max && kept.len() >= 12, "{}", kept.len());
    let first = spool.read(&mut cursor).unwrap().map(|(sequence, _)| sequence);
    assert_eq!(first, Some(spool.first_sequence()), "a cursor skips what is gone");
}

#[test]
fn a_session_goes_with_the_state() {
    let (folder, mut spool) = fresh(SMALL);
    assert_eq!(spool.session(), None, "nobody has asked for one");
    let session = NonZeroU64::new(77).unwrap();
    spool.renew_session(session).unwrap();
    append(&mut spool, "a");
    spool.commit().unwrap();
    drop(spool);
    let (spool, _) = open(&folder, SMALL);
    assert_eq!(spool.session(), Some(session), "killed");
    spool.close().unwrap();
    let (spool, _) = open(&folder, SMALL);
    assert_eq!(spool.session(), Some(session), "closed");
    drop(spool);
    let state = folder.path().join("state");
    fs::write(&state, "open 0 0 session ").unwrap();
    let (spool, _) = open(&folder, SMALL);
    assert_eq!(spool.session(), None, "damaged");
    drop(spool);
    fs::remove_file(&state).unwrap();
    let (mut spool, _) = open(&folder, SMALL);
    assert_eq!((spool.session(), texts(&mut spool)), (None, vec!["a".to_owned()]), "missing");
    // A folder in the place of the file to come: nothing can be written.
    fs::create_dir(folder.path().join("state.new")).unwrap();
    spool.renew_session(session).unwrap_err();
    assert_eq!(spool.session(), None);
}

#[test]
fn one_process_at_a_time() {
    let (folder, _spool) = fresh(SMALL);
    assert!(matches!(Spool::open(folder.path(), SMALL), Err(OpenError::Locked { .. })));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for settings in
        [Settings { segment_bytes: 100, ..SMALL }, Settings { bytes_max: 3 * SEGMENT_BYTES_MIN, ..SMALL }]
    {
        assert!(matches!(Spool::open(folder.path(), settings), Err(OpenError::Settings(_))));
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let (_folder, mut spool) = fresh(SMALL);
    append(&mut spool, "before");
    spool.commit().unwrap();
    spool.writer.break_file();
    append(&mut spool, "while");
    spool.commit().unwrap_err();
    assert_eq!(texts(&mut spool), ["before"]);
    spool.writer.mend_file(&spool.folder, spool.segments[0].first());
    append(&mut spool, "after");
    spool.commit().unwrap();
    assert_eq!(texts(&mut spool), ["before", "while", "after"]);
}

#[test]
fn cut_at_every_byte_it_opens_with_what_is_whole() {
    let (folder, mut spool) = fresh(SMALL);
    let records = ["first", "", "a third one"];
    let mut ends = vec![SEGMENT_HEADER_BYTES];
    for record in records {
        append(&mut spool, record);
        ends.push(ends.last().unwrap() + RECORD_HEADER_BYTES + record.len());
    }
    spool.commit().unwrap();
    drop(spool);
    let file = segment_files(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    for cut in 0..=whole.len() {
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(file.file_name().unwrap()), &whole[..cut]).unwrap();
        let (mut spool, recovery) = open(&other, SMALL);
        let expected = ends.iter().skip(1).filter(|end| **end <= cut).count();
        assert_eq!(texts(&mut spool), records[..expected], "cut at {cut}");
        let sound = ends.iter().rfind(|end| **end <= cut).map_or(0, |end| *end);
        assert_eq!(recovery.cut_bytes, (cut - sound) as u64, "cut at {cut}");
        append(&mut spool, "goes on");
        spool.commit().unwrap();
        assert_eq!(texts(&mut spool).last().unwrap(), "goes on");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Commit,
    Forget(prop::sample::Index),
    Kill,
    Close,
    /// The last segment loses its end, as when the host dies.
    Tear(u64),
    /// A byte anywhere in the files changes.
    Flip(prop::sample::Index, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..1_500).prop_map(Step::Append),
        4 => Just(Step::Commit),
        2 => any::<prop::sample::Index>().prop_map(Step::Forget),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => (0_u64..3_000).prop_map(Step::Tear),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(file, byte)| Step::Flip(file, byte)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens: what is read was appended under that number, in order, no number is given out twice; and as long as no
    /// file was harmed, everything committed and not forgotten is there.
    #[test]
    fn a_list_in_memory_agrees(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(&folder, SMALL);
        let mut given: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut committed = 0;
        let mut forgotten = 0;
        let mut is_harmed = false;
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(bytes) => {
                    let record = vec![index as u8; bytes];
                    if let Ok(sequence) = spool.append(&record) {
                        prop_assert!(given.last().is_none_or(|(last, _)| *last < sequence.0));
                        given.push((sequence.0, record));
                    }
                }
                Step::Commit => {
                    spool.commit().unwrap();
                    committed = given.len();
                }
                Step::Forget(at) if committed > 0 => {
                    let (sequence, _) = given[at.index(committed)];
                    spool.commit().unwrap();
                    committed = given.len();
                    spool.forget(Sequence(sequence)).unwrap();
                    spool.save().unwrap();
                    forgotten = forgotten.max(sequence + 1);
                }
                Step::Forget(_) => {}
                Step::Kill | Step::Tear(_) | Step::Flip(..) => {
                    drop(spool);
                    // Appending to a full segment has committed what came before it.
                    is_harmed |= harm(folder.path(), &step);
                    (spool, _) = open(&folder, SMALL);
                    given.truncate(if is_harmed { given.len() } else { last_read(&mut spool, &given).max(committed) });
                    committed = given.len();
                }
                Step::Close => {
                    spool.close().unwrap();
                    (spool, _) = open(&folder, SMALL);
                    committed = given.len();
                }
            }
            let read = all(&mut spool);
            let mut rest = given.iter();
            for record in &read {
                prop_assert!(rest.any(|given| given == record), "step {index}: {} was never given, or not in this order", record.0);
            }
            let expected = given[..committed].iter().filter(|(sequence, _)| *sequence >= forgotten).count();
            prop_assert!(is_harmed || read.len() >= expected, "step {index}: {} of {expected}", read.len());
        }
    }
}

/// Whether it harmed anything.
fn harm(folder: &Path, step: &Step) -> bool {
    let files = segment_files(folder);
    match step {
        Step::Tear(bytes) => {
            let file = fs::File::options().write(true).open(files.last().unwrap()).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length.saturating_sub(*bytes)).unwrap();
            *bytes > 0
        }
        Step::Flip(file, byte) => {
            let path = &files[file.index(files.len())];
            let mut bytes = fs::read(path).unwrap();
            if bytes.is_empty() {
                return false;
            }
            let at = byte.index(bytes.len());
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
            true
        }
        Step::Append(_) | Step::Commit | Step::Forget(_) | Step::Kill | Step::Close => false,
    }
}

/// How many of those that were given are known to be on disk.
fn last_read(spool: &mut Spool, given: &[(u64, Vec<u8>)]) -> usize {
    let last = all(spool).last().map(|(sequence, _)| *sequence);
    given.iter().position(|(sequence, _)| Some(*sequence) == last).map_or(0, |at| at + 1)
}
