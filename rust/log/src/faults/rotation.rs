//! Crashes and failures while a segment is begun or removed.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A state of constant size, and what it was made of: only the count and the hash are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    notes: u64,
    digest: String,
    /// Items of 40 KiB, for snapshots of several parts.
    ballast: u64,
}

impl Sum {
    fn add(&mut self, kind: &str, body: &[u8]) {
        if kind == "note" {
            self.notes += 1;
            let digest = moat_core::key::sha256(&[self.digest.as_bytes(), body].concat());
            self.digest = hex::encode(digest);
        }
        self.ballast += u64::from(kind == "ballast");
    }
}

impl Fold for Sum {
    fn apply(&mut self, _: u64, _: u64, kind: &str, body: &[u8]) -> Result<(), Error> {
        self.add(kind, body);
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut items = vec![json!({ "notes": self.notes, "digest": self.digest })];
        items.extend((0..self.ballast).map(|n| json!({ "n": n, "x": "x".repeat(40_000) })));
        Ok(items.iter().map(|item| item.to_string().into_bytes()).collect())
    }

    fn restore(&mut self, item: &[u8]) -> Result<(), Error> {
        let item: Value = serde_json::from_slice(item).unwrap();
        match (item["notes"].as_u64(), item["digest"].as_str()) {
            (Some(notes), Some(digest)) => (self.notes, self.digest) = (notes, digest.to_owned()),
            _ => self.ballast += 1,
        }
        Ok(())
    }
}

const SMALL: u64 = 2048;

fn small(place: &Path) -> Options {
    Options { segment_bytes: SMALL, ..options(place) }
}

fn open_small(place: &Path, plan: &Arc<Plan>) -> Result<Store<Sum>, LogError> {
    open_with(small(place), plan, Sum::default())
}

fn write(store: &Store<Sum>, n: u64) -> Result<u64, LogError> {
    store.commit(NOW, |_, out| out.push(entry(n))).map(|committed| committed.first)
}

fn verified(place: &Path) -> crate::Report {
    let trust = Trust { log: gate().id(), anchor: options(place).anchor, key: None };
    verify(&place.join("log"), &trust, Sum::default, |_| ()).unwrap()
}

fn segments_of(place: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(place.join("log/seg")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A closed log whose next commit begins a segment; how many notes it has. With `ballast`, the
/// snapshot has several parts.
fn due(place: &Path, ballast: u64) -> u64 {
    let store = open_small(place, &plan()).unwrap();
    let more = (0..ballast).map(|_| Record::new("ballast", b"{}".to_vec()));
    store.commit(NOW, |_, out| out.extend(more)).unwrap();
    let mut notes = 0;
    while store.inner.lock().unwrap().current.span.end < SMALL {
        write(&store, notes).unwrap();
        notes += 1;
    }
    assert_eq!(segments_of(place).len(), 1);
    store.close().unwrap();
    notes
}

/// Opens without faults; everything acknowledged is there, the state is that of the lines, the
/// log goes on and a stranger finds nothing wrong. Gives the notes that were there.
fn goes_on(place: &Path, acknowledged: u64) -> u64 {
    let store = open_small(place, &plan()).unwrap();
    let notes = store.with(|sum| sum.notes).unwrap();
    assert!(notes >= acknowledged, "{notes} of {acknowledged}");
    let mut model = Sum::default();
    (0..notes).for_each(|n| model.add("note", entry(n).body()));
    assert_eq!(store.with(|sum| sum.digest.clone()).unwrap(), model.digest);
    write(&store, notes).unwrap();
    let oldest = store.inner.lock().unwrap().pruned;
    let size = store.position().unwrap().0;
    (oldest..size).for_each(|index| drop(store.read(index).unwrap()));
    store.close().unwrap();
    let again = open_small(place, &plan()).unwrap();
    model.add("note", entry(notes).body());
    assert_eq!(again.with(|sum| sum.digest.clone()).unwrap(), model.digest);
    again.close().unwrap();
    assert_eq!(verified(place).torn, 0);
    notes
}

#[test]
fn a_crash_before_or_after_any_step_of_a_rotation_loses_nothing() {
    let source = folder();
    let notes = due(source.path(), 0);
    let mut segments = BTreeSet::new();
    for steps in 0.. {
        let place = folder();
        copy(source.path(), place.path());
        let plan = plan();
        let store = open_small(place.path(), &plan).unwrap();
        *plan.fault.lock().unwrap() = Fault::Stop(steps);
        let written = write(&store, notes);
        let done = written.is_ok();
        if !done {
            assert!(matches!(written, Err(LogError::Unavailable { .. })), "{written:?}");
            assert!(matches!(write(&store, 9), Err(LogError::Unavailable { .. })));
        }
        drop(store);
        segments.insert(segments_of(place.path()).len());
        goes_on(place.path(), notes + u64::from(done));
        if done {
            // create, sync of the folder, write, sync
            assert_eq!(steps, 4);
            break;
        }
    }
    assert_eq!(segments, BTreeSet::from([1, 2]));
}

#[test]
fn a_crash_at_any_byte_of_a_snapshot_is_not_believed_and_loses_nothing() {
    for (ballast, step) in [(0, 7), (4, 4_099)] {
        let source = folder();
        let notes = due(source.path(), ballast);
        let (mut bytes, mut starts) = (0, BTreeSet::new());
        loop {
            let place = folder();
            copy(source.path(), place.path());
            let plan = plan();
            let store = open_small(place.path(), &plan).unwrap();
            *plan.fault.lock().unwrap() = Fault::Budget(bytes);
            let done = write(&store, notes).is_ok();
            drop(store);
            let opened = open_small(place.path(), &self::plan()).unwrap();
            let (snapshot, torn) = (opened.inner.lock().unwrap().due.snapshot, opened.opened.torn);
            starts.insert((snapshot > 0, torn > 0));
            assert!(!done || snapshot > 0);
            drop(opened);
            goes_on(place.path(), notes + u64::from(done));
            if done {
                break;
            }
            bytes += step;
        }
        // In the middle of the snapshot, in the middle of the line after it, after all.
        let mut expected = BTreeSet::from([(false, false), (false, true), (true, false)]);
        expected.extend((ballast == 0).then_some((true, true)));
        assert_eq!(starts, expected);
    }
}

#[test]
fn a_log_goes_on_behind_an_incomplete_snapshot_and_the_next_one_begins_a_segment() {
    let place = folder();
    let mut notes = due(place.path(), 4);
    let plan = plan();
    let store = open_small(place.path(), &plan).unwrap();
    *plan.fault.lock().unwrap() = Fault::Budget(100_000);
    assert!(write(&store, notes).is_err());
    drop(store);
    let snapshot = || {
        let store = open_small(place.path(), &self::plan()).unwrap();
        let inner = store.inner.lock().unwrap();
        (inner.due.snapshot, inner.older.len())
    };
    assert_eq!(snapshot(), (0, 1), "the lines of the old segment are read again");
    notes = goes_on(place.path(), notes) + 1;
    let (bytes, older) = snapshot();
    assert!(bytes > 0 && older == 2, "{bytes} {older}");
    goes_on(place.path(), notes);
}

#[test]
fn a_failure_during_a_rotation_stops_the_log_for_good() {
    for fault in [Fault::Full, Fault::Short(0), Fault::Short(500), Fault::Sync] {
        let place = folder();
        let notes = due(place.path(), 0);
        let plan = plan();
        let store = open_small(place.path(), &plan).unwrap();
        *plan.fault.lock().unwrap() = fault;
        assert!(matches!(write(&store, notes), Err(LogError::Unavailable { .. })), "{fault:?}");
        assert_eq!(*plan.fault.lock().unwrap(), Fault::None, "the disk is fine again");
        assert!(matches!(write(&store, notes), Err(LogError::Unavailable { .. })));
        drop(store);
        goes_on(place.path(), notes);
    }
}

#[test]
fn nobody_is_answered_when_what_a_rotation_has_to_wait_for_fails() {
    let place = folder();
    let notes = due(place.path(), 0);
    std::fs::remove_dir_all(place.path()).unwrap();
    let plan = plan();
    let store = open_small(place.path(), &plan).unwrap();
    let queue = |n| store.commit_nowait(NOW, |_, out| out.push(entry(n)));
    let waiting: Vec<_> = (0..notes).map(|n| queue(n).unwrap()).collect();
    *plan.fault.lock().unwrap() = Fault::Sync;
    assert!(matches!(queue(notes), Err(LogError::Unavailable { .. })));
    assert_eq!(segments_of(place.path()).len(), 1, "no segment before all else is synced");
    for pending in waiting {
        assert!(matches!(pending.wait(), Err(LogError::Unavailable { .. })));
    }
    drop(store);
    goes_on(place.path(), 0);
}

#[test]
fn a_checkpoint_that_cannot_be_written_stops_a_rotation() {
    let place = folder();
    let notes = due(place.path(), 0);
    // A line more, so that the checkpoint of the opening is not the one that is needed.
    let options = Options { segment_bytes: SMALL + 1000, ..small(place.path()) };
    let store = open_with(options, &plan(), Sum::default()).unwrap();
    write(&store, notes).unwrap();
    store.inner.lock().unwrap().due.least = SMALL;
    let anchor = super::options(place.path()).anchor.unwrap();
    std::fs::remove_file(&anchor).unwrap();
    std::fs::create_dir(&anchor).unwrap();
    assert!(matches!(write(&store, notes + 1), Err(LogError::Unavailable { .. })));
    assert_eq!(segments_of(place.path()).len(), 1, "not begun without its checkpoint");
    drop(store);
    std::fs::remove_dir(&anchor).unwrap();
    goes_on(place.path(), notes + 1);
}

#[test]
fn a_state_without_a_snapshot_stops_the_log_before_anything_is_changed() {
    struct None;
    impl Fold for None {
        fn apply(&mut self, _: u64, _: u64, _: &str, _: &[u8]) -> Result<(), Error> {
            Ok(())
        }
        fn snapshot(&self) -> Result<Vec<Vec<u8>>, Error> {
            Ok(vec![b"{},{}".to_vec()])
        }
        fn restore(&mut self, _: &[u8]) -> Result<(), Error> {
            Ok(())
        }
    }
    let place = folder();
    due(place.path(), 0);
    let store = Store::open(small(place.path()), None).unwrap();
    let refused = store.commit(NOW, |_, out| out.push(entry(0)));
    assert!(matches!(refused, Err(LogError::Unavailable { .. })));
    assert_eq!(segments_of(place.path()).len(), 1);
}

/// A closed log of several segments, and its notes.
fn several(place: &Path) -> u64 {
    let store = open_small(place, &plan()).unwrap();
    let mut notes = 0;
    while segments_of(place).len() < 5 {
        write(&store, notes).unwrap();
        notes += 1;
    }
    store.close().unwrap();
    notes
}

#[test]
fn a_crash_before_or_after_any_step_of_a_removal_leaves_a_log_that_is_in_order() {
    let source = folder();
    let notes = several(source.path());
    let mut left = BTreeSet::new();
    for steps in 0.. {
        let place = folder();
        copy(source.path(), place.path());
        let plan = plan();
        let store = open_small(place.path(), &plan).unwrap();
        *plan.fault.lock().unwrap() = Fault::Stop(steps);
        let done = store.prune(u64::MAX, NOW).is_ok();
        *plan.fault.lock().unwrap() = if done { Fault::None } else { Fault::Stop(0) };
        drop(store);
        left.insert(segments_of(place.path()).len());
        verified(place.path());
        goes_on(place.path(), notes);
        // What the crash left goes with the next call.
        let store = open_small(place.path(), &self::plan()).unwrap();
        store.prune(u64::MAX, NOW).unwrap();
        drop(store);
        assert!(segments_of(place.path()).len() <= 2);
        goes_on(place.path(), notes);
        if done {
            break;
        }
    }
    assert_eq!(left, (1..=5).collect());
}

#[derive(Clone, Debug)]
enum Step {
    /// Commits this many notes at once.
    Notes(u64),
    Reopen,
    Prune,
    /// So many bytes later, the process is gone.
    Crash(usize),
    /// So many operations later, the process is gone.
    Stop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_u64).prop_map(Step::Notes),
        1 => Just(Step::Reopen),
        1 => Just(Step::Prune),
        2 => (0..6000_usize).prop_map(Step::Crash),
        2 => (0..10_usize).prop_map(Step::Stop),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_the_log_is_the_list_of_what_was_acknowledged(steps in steps()) {
        let place = folder();
        let mut plan = plan();
        let mut store = open_small(place.path(), &plan).unwrap();
        // Notes that were acknowledged, and that were asked for since the last opening.
        let (mut acknowledged, mut asked) = (0, 0);
        for step in steps {
            match step {
                Step::Notes(count) => {
                    let all = (asked..asked + count).map(entry);
                    let done = store.commit(NOW, |_, out| out.extend(all)).is_ok();
                    asked += count;
                    if done {
                        acknowledged = asked;
                        continue;
                    }
                }
                Step::Prune if store.prune(u64::MAX, NOW).is_ok() => continue,
                Step::Crash(bytes) => {
                    *plan.fault.lock().unwrap() = Fault::Budget(bytes);
                    continue;
                }
                Step::Stop(steps) => {
                    *plan.fault.lock().unwrap() = Fault::Stop(steps);
                    continue;
                }
                Step::Prune | Step::Reopen => (),
            }
            drop(store);
            verified(place.path());
            plan = self::plan();
            store = open_small(place.path(), &plan).unwrap();
            let notes = store.with(|sum| sum.notes).unwrap();
            prop_assert!(acknowledged <= notes && notes <= asked);
            (acknowledged, asked) = (notes, notes);
        }
        *plan.fault.lock().unwrap() = Fault::None;
        drop(store);
        let notes = goes_on(place.path(), acknowledged);
        prop_assert!(notes <= asked);
    }
}
