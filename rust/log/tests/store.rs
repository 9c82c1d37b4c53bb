//! Writing a log: order, sync, lock, checkpoints, proofs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{NOW, Place, Seen, copy, entry, gate, note, notes};
use moat_core::audit::{Checkpoint, ConsistencyProof, InclusionProof, Line};
use moat_log::{AnchorState, LogError, Options, Record, Store};

#[test]
fn a_new_log_starts_with_its_origin_and_reopening_adds_nothing() {
    let place = Place::new();
    let store = place.open().unwrap();
    let opened = *store.opened();
    assert_eq!((opened.entries, opened.torn, opened.restored), (0, 0, false));
    assert_eq!(opened.anchor, AnchorState::Matched);
    store.close().unwrap();
    let lines = place.lines();
    let first = Line::parse(lines[0].trim_ascii_end()).unwrap();
    let body = format!("{{\"origin\":\"moat.log/{}\",\"version\":1}}", gate().id());
    assert_eq!((first.kind, first.body), ("open", body.as_bytes()));
    for _ in 0..3 {
        assert_eq!(place.open().unwrap().opened().entries, 1);
        assert_eq!(place.lines(), lines);
    }
}

#[test]
fn only_the_owner_can_read_or_enter() {
    let place = Place::with_notes(300);
    let mut seen = 0;
    let mut stack = vec![place.log(), place.folder.path().join("away")];
    while let Some(path) = stack.pop() {
        let data = std::fs::symlink_metadata(&path).unwrap();
        let expected = if data.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(data.permissions().mode() & 0o777, expected, "{}", path.display());
        if data.is_dir() {
            stack.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen += 1;
    }
    // log, seg, segment, checkpoint, lock, tile, 0, 000, away, anchor
    assert_eq!(seen, 10);
}

#[test]
fn a_decision_sees_what_came_before_and_its_entries_keep_their_order() {
    let place = Place::new();
    let store = place.open().unwrap();
    for round in 0..5_u64 {
        let committed = store.commit(NOW + round, |seen, out| {
            out.extend([entry(round * 2), entry(round * 2 + 1)]);
            seen.0.len()
        });
        let committed = committed.unwrap();
        assert_eq!(committed.first, round * 2 + 1);
        assert_eq!((committed.entries, committed.value as u64), (2, round * 2 + 1));
    }
    let before = store.with(|seen| seen.0.len()).unwrap();
    assert_eq!((before as u64, NOW + 4), store.position().unwrap());
    drop(store);
    let store = place.open().unwrap();
    let bodies: Vec<_> = (0..10).map(|n| format!("{{\"n\":{n}}}")).collect();
    store.with(|seen| assert_eq!(seen.bodies("note"), bodies)).unwrap();
}

#[test]
fn a_commit_without_entries_waits_for_what_it_looked_at() {
    let place = Place::new();
    let store = place.open().unwrap();
    let pending = store.commit_nowait(NOW, |_, out| out.push(entry(1))).unwrap();
    let looked = store.commit_nowait(NOW, |seen, _| seen.0.len()).unwrap();
    assert!(!looked.ticket().is_synced());
    let looked = looked.wait().unwrap();
    assert_eq!((looked.first, looked.entries, looked.value), (2, 0, 2));
    assert!(pending.ticket().is_synced());
    assert_eq!(store.syncs(), 1);
}

#[test]
fn a_batch_has_one_sync_and_a_ticket_can_be_waited_for_elsewhere() {
    let place = Place::new();
    let store = place.open().unwrap();
    let batch: Vec<_> =
        (0..64).map(|n| store.commit_nowait(NOW, |_, out| out.push(entry(n))).unwrap()).collect();
    assert!(batch.iter().all(|pending| !pending.ticket().is_synced()));
    let ticket = batch.last().unwrap().ticket();
    std::thread::spawn(move || ticket.wait().unwrap()).join().unwrap();
    for (n, pending) in batch.into_iter().enumerate() {
        assert!(pending.ticket().is_synced());
        assert_eq!(pending.wait().unwrap().first, n as u64 + 1);
    }
    assert_eq!(store.syncs(), 1);
}

#[test]
fn sixty_four_threads_lose_nothing_and_agree_on_the_order() {
    let place = Place::new();
    let store = place.open().unwrap();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let index = note(&store, n).unwrap();
                    let line = store.read(index).unwrap();
                    let body = format!("{{\"n\":{n}}}");
                    assert_eq!(Line::parse(&line).unwrap().body, body.as_bytes());
                }
            });
        }
    });
    drop(store);
    let store = place.open().unwrap();
    assert_eq!(store.opened().entries, 1281);
    store
        .with(|seen| {
            let mut numbers: Vec<u64> =
                seen.bodies("note").iter().map(|body| number(body)).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..1280).collect::<Vec<_>>());
        })
        .unwrap();
    assert_eq!(place.verify().unwrap().entries, 1281);
}

fn number(body: &str) -> u64 {
    body.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn a_second_opener_is_refused_until_the_first_closes() {
    let place = Place::new();
    let store = place.open().unwrap();
    assert!(matches!(place.open(), Err(LogError::Locked { .. })));
    note(&store, 1).unwrap();
    store.close().unwrap();
    let second = place.open().unwrap();
    assert!(matches!(note(&store, 2), Err(LogError::Unavailable { .. })));
    assert!(matches!(store.checkpoint(), Err(LogError::Unavailable { .. })));
    store.close().unwrap();
    drop(store);
    assert!(matches!(place.open(), Err(LogError::Locked { .. })), "closing twice keeps the lock");
    drop(second);
    place.open().unwrap();
}

#[test]
fn an_entry_that_cannot_be_written_changes_nothing() {
    let place = Place::new();
    let store = place.open().unwrap();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    for (kind, body) in [
        ("note", "not json"),
        ("Note", "{}"),
        ("note", large.as_str()),
        ("open", "{}"),
        ("torn", "{}"),
        ("restored", "{}"),
    ] {
        let bad = Record::new(kind, body.as_bytes().to_vec());
        let refused = store.commit(NOW, |_, out| out.extend([entry(1), bad, entry(2)]));
        assert!(matches!(refused, Err(LogError::Entry(_))), "{kind}");
    }
    assert_eq!(store.position().unwrap().0, 1);
    assert_eq!(note(&store, 7).unwrap(), 1);
    drop(store);
    assert_eq!(place.verify().unwrap().entries, 2);
}

#[test]
fn a_state_that_refuses_its_own_entry_stops_the_log() {
    let place = Place::new();
    let store = place.open().unwrap();
    let bad = Record::new("bad", b"{}".to_vec());
    let refused = store.commit(NOW, |_, out| out.push(bad));
    assert!(matches!(refused, Err(LogError::Unavailable { .. })));
    assert!(matches!(note(&store, 1), Err(LogError::Unavailable { .. })));
    assert!(matches!(store.with(|_| ()), Err(LogError::Unavailable { .. })));
    drop(store);
    assert_eq!(place.open().unwrap().opened().entries, 1, "it was not written");
}

#[test]
fn a_panic_while_deciding_stops_the_log() {
    let place = Place::new();
    let store = place.open().unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = store.commit(NOW, |_, _| panic!("in a decision"));
    }));
    assert!(caught.is_err());
    assert!(matches!(note(&store, 1), Err(LogError::Unavailable { .. })));
    drop(store);
    assert_eq!(place.open().unwrap().opened().entries, 1);
}

/// The checkpoint in a file, once its size is at least this; a thread writes it meanwhile.
fn checkpoint_of(path: &Path, size: u64) -> Checkpoint {
    for _ in 0..100_000_000_u64 {
        let text = std::fs::read_to_string(path).unwrap();
        let checkpoint = Checkpoint::parse(&text).unwrap();
        if checkpoint.size() >= size {
            return checkpoint;
        }
        std::thread::yield_now();
    }
    panic!("no checkpoint of {size} entries was written");
}

#[test]
fn a_checkpoint_comes_every_256_entries_every_second_and_at_the_end() {
    let place = Place::new();
    let store = place.open().unwrap();
    assert_eq!(checkpoint_of(&place.checkpoint(), 1).size(), 1);
    notes(&store, 1..256);
    assert_eq!(checkpoint_of(&place.checkpoint(), 1).size(), 1, "not due within a second");
    note(&store, 256).unwrap();
    checkpoint_of(&place.anchor(), 257).verify(&gate().id()).unwrap();
    note(&store, 257).unwrap();
    store.commit(NOW + 1, |_, out| out.push(entry(258))).unwrap();
    checkpoint_of(&place.anchor(), 259).verify(&gate().id()).unwrap();
    note(&store, 259).unwrap();
    store.close().unwrap();
    let last = checkpoint_of(&place.checkpoint(), 260);
    assert_eq!(last, checkpoint_of(&place.anchor(), 260));
    let report = place.verify().unwrap();
    assert_eq!((report.signed, report.anchored), (Some(260), Some(260)));
    assert_eq!(&report.root, last.root());
}

#[test]
fn a_proof_of_an_entry_verifies_against_the_checkpoint_and_as_text() {
    let place = Place::new();
    let store = place.open().unwrap();
    let index = note(&store, 41).unwrap();
    note(&store, 42).unwrap();
    let proof = store.prove(index, None).unwrap();
    let log = gate().id();
    proof.verify(&store.checkpoint().unwrap(), &log).unwrap();
    let read = InclusionProof::parse(&proof.text()).unwrap();
    assert_eq!(read, proof);
    read.verify(read.checkpoint(), &log).unwrap();
    assert_eq!(Line::parse(read.line()).unwrap().body, b"{\"n\":41}");
    note(&store, 43).unwrap();
    let error = proof.verify(&store.checkpoint().unwrap(), &log).unwrap_err();
    assert!(error.detail.contains("ask for a proof at 4"), "{error}");
    assert!(matches!(store.prove(4, None), Err(LogError::Missing { .. })));
    assert!(matches!(store.prove(2, Some(2)), Err(LogError::Missing { .. })));
    assert!(matches!(store.prove(2, Some(9)), Err(LogError::Missing { .. })));
}

/// Proofs between these sizes and for these entries, all from one store.
fn check_proofs(store: &Store<Seen>) {
    let log = gate().id();
    let sizes = [1, 2, 255, 256, 257, 511, 512, 513, 700, 801];
    for (n, new) in sizes.iter().enumerate() {
        for old in &sizes[..=n] {
            let proof = store.consistency(*old, *new).unwrap();
            let earlier = store.prove(0, Some(*old)).unwrap();
            proof.verify(earlier.checkpoint(), proof.checkpoint(), &log).unwrap();
            assert_eq!(ConsistencyProof::parse(&proof.text()).unwrap(), proof);
        }
        for index in [0, 1, 254, 255, 256, 300, 511, 512, 799, 800] {
            if index < *new {
                let proof = store.prove(index, Some(*new)).unwrap();
                assert_eq!((proof.index(), proof.checkpoint().size()), (index, *new));
                proof.verify(proof.checkpoint(), &log).unwrap();
            }
        }
    }
    for (old, new) in [(0, 5), (5, 4), (1, 802)] {
        assert!(matches!(store.consistency(old, new), Err(LogError::Missing { .. })));
    }
}

#[test]
fn proofs_hold_at_every_size_also_when_tiles_are_gone_or_lie() {
    let place = Place::with_notes(800);
    let tile = place.log().join("tile/0/001");
    let good = std::fs::read(&tile).unwrap();
    assert_eq!(good.len(), 8192);
    let store = place.open().unwrap();
    assert!(!store.opened().tiles_rebuilt);
    check_proofs(&store);
    std::fs::remove_dir_all(place.log().join("tile")).unwrap();
    check_proofs(&store);
    assert_eq!(std::fs::read(&tile).unwrap(), good, "made again");
    let mut lie = good.clone();
    lie[40] ^= 1;
    std::fs::write(&tile, &lie).unwrap();
    check_proofs(&store);
    assert_eq!(std::fs::read(&tile).unwrap(), good);
    drop(store);
    std::fs::write(&tile, &lie).unwrap();
    let store = place.open().unwrap();
    assert!(store.opened().tiles_rebuilt);
    assert_eq!(std::fs::read(&tile).unwrap(), good);
    check_proofs(&store);
}

#[test]
fn a_full_tile_is_the_leaves_in_order() {
    let place = Place::with_notes(600);
    let lines = place.lines();
    for n in 0..2 {
        let tile = std::fs::read(place.log().join(format!("tile/0/00{n}"))).unwrap();
        let leaves = lines[n * 256..(n + 1) * 256].iter();
        let leaves = leaves.map(|line| Line::parse(line.trim_ascii_end()).unwrap().leaf());
        assert_eq!(tile, leaves.collect::<Vec<_>>().concat());
    }
    assert!(!place.log().join("tile/0/002").exists(), "full tiles only");
}

#[test]
fn lines_are_read_from_any_place_and_checked() {
    let place = Place::with_notes(600);
    let store = place.open().unwrap();
    for index in [0, 1, 255, 256, 300, 512, 600] {
        assert_eq!(Line::parse(&store.read(index).unwrap()).unwrap().index, index);
    }
    assert!(matches!(store.read(601), Err(LogError::Missing { index: 601, size: 601 })));
    let mut seen = Vec::new();
    store
        .walk(250, |line| {
            seen.push(line.index);
            if line.index == 260 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, (250..=260).collect::<Vec<_>>());
    let mut lines = place.lines();
    let at = lines[300].iter().rposition(|b| *b == b':').unwrap() - 10;
    lines[300][at] ^= 1;
    place.set_lines(&lines);
    assert!(store.read(300).is_err(), "changed behind our back");
    assert!(store.prove(300, None).is_err());
    store.read(299).unwrap();
}

#[test]
fn two_copies_of_a_log_can_be_compared() {
    let place = Place::with_notes(10);
    let log = gate().id();
    let old = Checkpoint::parse(&std::fs::read_to_string(place.anchor()).unwrap()).unwrap();
    let elsewhere = Place::new();
    copy(&place.log(), &elsewhere.log());
    let (one, two) = (place.open().unwrap(), elsewhere.open_alone().unwrap());
    note(&one, 10).unwrap();
    note(&two, 99).unwrap();
    let (one, two) = (one.consistency(11, 12).unwrap(), two.consistency(11, 12).unwrap());
    one.verify(&old, one.checkpoint(), &log).unwrap();
    two.verify(&old, two.checkpoint(), &log).unwrap();
    let fork = one.verify(&old, two.checkpoint(), &log).unwrap_err();
    assert_eq!(fork.reason, moat_core::Reason::BrokenChain);
}

#[test]
fn what_waits_for_a_sync_is_bounded() {
    let place = Place::new();
    let store = place.open().unwrap();
    let queue = |count: usize| {
        let body = format!("{{\"text\":\"{}\"}}", "x".repeat(60_000)).into_bytes();
        let entries = (0..count).map(|_| Record::new("note", body.clone()));
        drop(store.commit_nowait(NOW, |_, out| out.extend(entries)).unwrap());
        store.syncs()
    };
    assert_eq!([queue(1), queue(100)], [0, 0], "6 MB wait");
    assert_eq!([queue(50), queue(1)], [0, 1], "9 MB do not");
}

#[test]
fn an_older_clock_does_not_make_older_lines() {
    let place = Place::with_notes(1);
    let options = Options { now: 5, ..place.options() };
    let store = Store::open(options, Seen::default()).unwrap();
    store.commit(6, |_, out| out.push(entry(1))).unwrap();
    assert_eq!(store.position().unwrap(), (3, NOW));
}
