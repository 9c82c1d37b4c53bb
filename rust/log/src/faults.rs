//! Tests with a disk that fails: crashes at every byte, short writes, failed syncs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod rotation;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use moat_core::Error;
use moat_core::key::Identity;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::notary::Notary;
use crate::rotate::Files;
use crate::segments;
use crate::writer::{Disk, Health, Writer};
use crate::{AnchorState, Fold, LogError, Options, Record, SEGMENT_BYTES, Store, Trust, verify};

/// What a disk does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Takes this many bytes more, then the process is gone.
    CrashAfter(usize),
    /// Takes this many bytes of the next write and says so.
    Short(usize),
    /// Refuses the next write.
    Full,
    /// Writes, but the next sync fails.
    Sync,
    /// Does this many operations, on files and on their folder, then the process is gone.
    Stop(usize),
    /// Takes this many bytes more in all, then the process is gone.
    Budget(usize),
}

/// What tests see of a disk.
struct Plan {
    fault: Mutex<Fault>,
    syncs: AtomicU64,
    /// Syncs wait until this many decisions were made.
    crowd: AtomicU64,
    decided: AtomicU64,
}

fn plan() -> Arc<Plan> {
    let zero = || AtomicU64::new(0);
    let fault = Mutex::new(Fault::None);
    Arc::new(Plan { fault, syncs: zero(), crowd: zero(), decided: zero() })
}

struct Faulty {
    file: File,
    plan: Arc<Plan>,
}

fn gone() -> io::Error {
    io::Error::other("the process is gone")
}

impl Faulty {
    /// Counts an operation against `Stop`.
    fn step(fault: &mut Fault) -> io::Result<()> {
        if let Fault::Stop(left) = fault {
            *left = left.checked_sub(1).ok_or_else(gone)?;
        }
        Ok(())
    }
}

impl Disk for Faulty {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut fault = self.plan.fault.lock().unwrap();
        Self::step(&mut fault)?;
        match *fault {
            Fault::CrashAfter(left) if left < bytes.len() => {
                *fault = Fault::CrashAfter(0);
                Disk::write(&mut self.file, at, &bytes[..left])?;
                Err(gone())
            }
            Fault::Budget(left) if left < bytes.len() => {
                *fault = Fault::Stop(0);
                Disk::write(&mut self.file, at, &bytes[..left])?;
                Err(gone())
            }
            Fault::Budget(left) => {
                *fault = Fault::Budget(left - bytes.len());
                Disk::write(&mut self.file, at, bytes)
            }
            Fault::Short(size) if size < bytes.len() => {
                *fault = Fault::None;
                Disk::write(&mut self.file, at, &bytes[..size])
            }
            Fault::Full => {
                *fault = Fault::None;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            _ => Disk::write(&mut self.file, at, bytes),
        }
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        Self::step(&mut self.plan.fault.lock().unwrap())?;
        self.file.truncate(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        while self.plan.decided.load(Ordering::SeqCst) < self.plan.crowd.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.plan.syncs.fetch_add(1, Ordering::SeqCst);
        let mut fault = self.plan.fault.lock().unwrap();
        Self::step(&mut fault)?;
        match *fault {
            Fault::Sync => {
                *fault = Fault::None;
                Err(io::Error::other("input or output error"))
            }
            Fault::CrashAfter(0) => Err(gone()),
            _ => self.file.sync(),
        }
    }
}

/// A folder of segments that are all written through the same plan.
struct FaultyFiles {
    folder: Folder,
    plan: Arc<Plan>,
}

impl FaultyFiles {
    fn step(&self) -> Result<(), LogError> {
        let source = Faulty::step(&mut self.plan.fault.lock().unwrap()).err();
        let path = self.folder.path().to_owned();
        source.map_or(Ok(()), |source| Err(LogError::Io { action: "change", path, source }))
    }

    fn disk(&self, file: File) -> Box<dyn Disk> {
        Box::new(Faulty { file, plan: Arc::clone(&self.plan) })
    }
}

impl Files for FaultyFiles {
    fn folder(&self) -> &Folder {
        &self.folder
    }

    fn open(&self, name: &str) -> Result<Box<dyn Disk>, LogError> {
        Ok(self.disk(self.folder.write(name)?))
    }

    fn create(&self, name: &str) -> Result<Box<dyn Disk>, LogError> {
        self.step()?;
        Ok(self.disk(self.folder.create_new(name)?))
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        self.step()?;
        self.folder.remove(name)
    }

    fn sync(&self) -> Result<(), LogError> {
        self.step()?;
        self.folder.sync()
    }
}

#[derive(Default)]
struct Bodies(Vec<String>);

impl Fold for Bodies {
    fn apply(&mut self, _: u64, _: u64, kind: &str, body: &[u8]) -> Result<(), Error> {
        self.0.push(format!("{kind} {}", std::str::from_utf8(body).unwrap()));
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.0.iter().map(|entry| json!({ "entry": entry }).to_string().into_bytes()).collect())
    }

    fn restore(&mut self, item: &[u8]) -> Result<(), Error> {
        let item: Value = serde_json::from_slice(item).unwrap();
        self.0.push(item["entry"].as_str().unwrap().to_owned());
        Ok(())
    }
}

const NOW: u64 = 1_700_000_000;

/// A folder in memory where there is one: what a sync costs is not the subject here.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn gate() -> Identity {
    Identity::from_seed("gate", &[7; 32]).unwrap()
}

fn options(place: &Path) -> Options {
    let anchor = Some(place.join("anchor"));
    let folder = place.join("log");
    let (now, segment_bytes) = (NOW, SEGMENT_BYTES);
    Options { folder, gate: gate(), anchor, now, accept_restored: false, segment_bytes }
}

fn open(place: &Path, plan: &Arc<Plan>) -> Result<Store<Bodies>, LogError> {
    open_with(options(place), plan, Bodies::default())
}

fn open_with<F: Fold>(options: Options, plan: &Arc<Plan>, fold: F) -> Result<Store<F>, LogError> {
    let plan = Arc::clone(plan);
    Store::open_on(options, fold, |folder| Box::new(FaultyFiles { folder, plan }))
}

fn segment(place: &Path) -> PathBuf {
    place.join("log/seg").join(segments::name(0))
}

fn entry(n: u64) -> Record {
    Record::new("note", format!("{{\"n\":{n}}}").into_bytes())
}

fn note(store: &Store<Bodies>, n: u64) -> Result<u64, LogError> {
    store.commit(NOW, |_, out| out.push(entry(n))).map(|committed| committed.first)
}

/// Opens without faults, and checks that what was acknowledged is there and more can follow.
/// Gives the entries that were there.
fn recover(place: &Path, acknowledged: u64) -> u64 {
    let store = Store::open(options(place), Bodies::default()).unwrap();
    let opened = *store.opened();
    assert!(opened.entries >= acknowledged, "{} of {acknowledged}", opened.entries);
    let torn = store.with(|seen| seen.0.iter().filter(|e| e.starts_with("torn ")).count()).unwrap();
    assert!(torn >= usize::from(opened.torn > 0), "what was cut is recorded");
    let notes = store.with(|seen| {
        let notes: Vec<_> = seen.0.iter().filter(|e| e.starts_with("note ")).cloned().collect();
        notes
    });
    for (n, note) in notes.unwrap().iter().enumerate() {
        assert_eq!(note, &format!("note {{\"n\":{n}}}"), "in order and without a gap");
    }
    store.commit(NOW, |_, out| out.push(Record::new("after", b"{}".to_vec()))).unwrap();
    store.close().unwrap();
    let trust = Trust { log: gate().id(), anchor: options(place).anchor, key: None };
    assert_eq!(verify(&place.join("log"), &trust, Bodies::default, |_| ()).unwrap().torn, 0);
    opened.entries
}

#[test]
fn a_crash_at_any_byte_of_an_append_loses_nothing_acknowledged_and_leaves_an_openable_log() {
    // One write of three lines, of which any prefix may reach the disk.
    let mut size = 1;
    let mut prefixes = std::collections::BTreeSet::new();
    for bytes in 0.. {
        if bytes > size {
            break;
        }
        let place = folder();
        let plan = plan();
        let store = open(place.path(), &plan).unwrap();
        note(&store, 0).unwrap();
        let before = std::fs::metadata(segment(place.path())).unwrap().len();
        *plan.fault.lock().unwrap() = Fault::CrashAfter(bytes);
        let written = store.commit(NOW, |_, out| out.extend([entry(1), entry(2), entry(3)]));
        assert_eq!(written.is_ok(), bytes >= size && bytes > 1);
        if bytes == 0 {
            *plan.fault.lock().unwrap() = Fault::None;
            size = lines_of_three();
        }
        assert!(written.is_ok() || note(&store, 4).is_err(), "the log is unavailable after");
        drop(store);
        let after = std::fs::metadata(segment(place.path())).unwrap().len();
        assert_eq!((after - before) as usize, bytes.min(size));
        prefixes.insert(recover(place.path(), if written.is_ok() { 5 } else { 2 }));
    }
    assert_eq!(prefixes.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5]);
}

/// Bytes of the three lines that the sweep writes.
fn lines_of_three() -> usize {
    let place = folder();
    let store = open(place.path(), &plan()).unwrap();
    note(&store, 0).unwrap();
    let before = std::fs::metadata(segment(place.path())).unwrap().len();
    store.commit(NOW, |_, out| out.extend([entry(1), entry(2), entry(3)])).unwrap();
    usize::try_from(std::fs::metadata(segment(place.path())).unwrap().len() - before).unwrap()
}

#[test]
fn a_crash_at_any_byte_or_step_of_the_first_opening_leaves_an_openable_log() {
    for fault in (0..400).map(Fault::CrashAfter).chain((0..5).map(Fault::Stop)) {
        let place = folder();
        let plan = plan();
        *plan.fault.lock().unwrap() = fault;
        drop(open(place.path(), &plan));
        recover(place.path(), 0);
    }
}

#[test]
fn a_crash_at_any_byte_or_step_of_a_recovery_keeps_the_record_of_what_was_torn() {
    let torn_place = folder();
    let store = Store::open(options(torn_place.path()), Bodies::default()).unwrap();
    note(&store, 0).unwrap();
    store.close().unwrap();
    for torn in [vec![b'x'; 20], vec![b'x'; 2000]] {
        for fault in (0..330).step_by(3).map(Fault::CrashAfter).chain((0..5).map(Fault::Stop)) {
            let place = folder();
            copy(torn_place.path(), place.path());
            let bytes = std::fs::read(segment(place.path())).unwrap();
            std::fs::write(segment(place.path()), [&bytes[..], &torn].concat()).unwrap();
            let plan = plan();
            *plan.fault.lock().unwrap() = fault;
            drop(open(place.path(), &plan));
            let entries = recover(place.path(), 2);
            let store = Store::open(options(place.path()), Bodies::default()).unwrap();
            let records = store.with(|seen| seen.0.iter().filter(|e| e.contains("sha256")).count());
            assert!(records.unwrap() >= 1, "{fault:?}: {entries}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_failed_or_short_write_or_sync_stops_the_log_for_good() {
    for fault in [Fault::Full, Fault::Short(0), Fault::Short(10), Fault::Short(250), Fault::Sync] {
        let place = folder();
        let plan = plan();
        let store = open(place.path(), &plan).unwrap();
        note(&store, 0).unwrap();
        let early = store.ticket().unwrap();
        *plan.fault.lock().unwrap() = fault;
        let waiting: Vec<_> = (1..4)
            .map(|n| store.commit_nowait(NOW, |_, out| out.push(entry(n))).unwrap())
            .collect();
        for pending in waiting {
            let ticket = pending.ticket();
            assert!(matches!(pending.wait(), Err(LogError::Unavailable { .. })), "{fault:?}");
            assert!(!ticket.is_synced());
        }
        early.wait().unwrap();
        // The disk is fine again, and it makes no difference.
        assert_eq!(*plan.fault.lock().unwrap(), Fault::None);
        assert!(matches!(note(&store, 4), Err(LogError::Unavailable { .. })));
        assert!(matches!(store.checkpoint(), Err(LogError::Unavailable { .. })));
        assert!(matches!(store.read(0), Err(LogError::Unavailable { .. })));
        assert!(matches!(store.close(), Err(LogError::Unavailable { .. })));
        drop(store);
        recover(place.path(), 2);
    }
}

/// Sixty-four threads that commit at once; their answers.
fn crowd(store: &Store<Bodies>, plan: &Plan) -> Vec<Result<u64, LogError>> {
    plan.decided.store(0, Ordering::SeqCst);
    plan.crowd.store(64, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    let decided = store.commit(NOW, |seen, out| {
                        plan.decided.fetch_add(1, Ordering::SeqCst);
                        let notes = seen.0.iter().filter(|e| e.starts_with("note ")).count();
                        out.push(entry(notes as u64));
                    });
                    decided.map(|committed| committed.first)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn sixty_four_threads_share_a_few_syncs() {
    let place = folder();
    let plan = plan();
    let store = open(place.path(), &plan).unwrap();
    let before = plan.syncs.load(Ordering::SeqCst);
    let mut indices: Vec<_> = crowd(&store, &plan).into_iter().map(Result::unwrap).collect();
    indices.sort_unstable();
    assert_eq!(indices, (1..=64).collect::<Vec<_>>());
    let syncs = plan.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 4, "the first sync waits until all have decided: {syncs}");
    assert_eq!(store.syncs(), syncs);
    drop(store);
    recover(place.path(), 65);
}

#[test]
fn nobody_who_waits_for_a_failed_sync_gets_an_answer() {
    let place = folder();
    let plan = plan();
    let store = open(place.path(), &plan).unwrap();
    *plan.fault.lock().unwrap() = Fault::Sync;
    let answers = crowd(&store, &plan);
    assert!(answers.iter().all(|a| matches!(a, Err(LogError::Unavailable { .. }))));
    drop(store);
    recover(place.path(), 1);
}

#[test]
fn a_checkpoint_that_cannot_be_written_stops_the_log() {
    let place = folder();
    let store = open(place.path(), &plan()).unwrap();
    note(&store, 0).unwrap();
    // A folder in the place of the anchor: it cannot be replaced by a file.
    let anchor = options(place.path()).anchor.unwrap();
    std::fs::remove_file(&anchor).unwrap();
    std::fs::create_dir(&anchor).unwrap();
    assert!(matches!(store.checkpoint(), Err(LogError::Unavailable { .. })));
    assert!(matches!(note(&store, 1), Err(LogError::Unavailable { .. })));
    drop(store);
    std::fs::remove_dir(&anchor).unwrap();
    let store = Store::open(options(place.path()), Bodies::default()).unwrap();
    assert_eq!((store.opened().entries, store.opened().anchor), (2, AnchorState::Missing));
}

#[test]
fn the_anchor_never_gets_ahead_of_what_is_synced() {
    let place = folder();
    let plan = plan();
    let store = open(place.path(), &plan).unwrap();
    *plan.fault.lock().unwrap() = Fault::Sync;
    // Three hundred entries make a checkpoint due, but their sync fails.
    let batch = store.commit(NOW + 5, |_, out| out.extend((0..300).map(entry)));
    assert!(batch.is_err());
    drop(store);
    let anchor = std::fs::read_to_string(options(place.path()).anchor.unwrap()).unwrap();
    let anchor = moat_core::audit::Checkpoint::parse(&anchor).unwrap();
    assert_eq!(anchor.size(), 1);
}

#[test]
fn another_process_is_refused_before_any_lock_is_taken() {
    let place = folder();
    let health = Health::of_process(0);
    assert!(matches!(health.check(), Err(LogError::Forked)));
    let root = crate::folder::Folder::create(place.path()).unwrap();
    let notary = Notary::new(gate(), root, None, Arc::clone(&health));
    let file = File::create(place.path().join("segment")).unwrap();
    let writer = Writer::new(Box::new(file), (0, 0), notary, health);
    assert!(matches!(writer.wait(1), Err(LogError::Forked)));
}

#[test]
fn waiting_for_an_entry_that_was_never_queued_ends() {
    let place = folder();
    let health = Health::new();
    let root = crate::folder::Folder::create(place.path()).unwrap();
    let notary = Notary::new(gate(), root, None, Arc::clone(&health));
    let file = File::create(place.path().join("segment")).unwrap();
    let writer = Writer::new(Box::new(file), (3, 0), notary, health);
    writer.wait(3).unwrap();
    assert!(matches!(writer.wait(4), Err(LogError::Unavailable { .. })));
}

#[test]
fn an_interrupted_write_is_tried_again() {
    struct Interrupted(u8, Vec<u8>);
    impl Disk for Interrupted {
        fn write(&mut self, _: u64, bytes: &[u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn truncate(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut disk = Interrupted(3, Vec::new());
    crate::writer::write_whole(&mut disk, 0, b"line").unwrap();
    assert_eq!((disk.0, disk.1.as_slice()), (0, &b"line"[..]));
}
