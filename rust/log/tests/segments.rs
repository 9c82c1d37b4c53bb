//! A log over several segments: written, read, proved, verified, pruned.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{NOW, Place, Tally, entry, gate, note, notes};
use moat_core::audit::{Checkpoint, InclusionProof, Line, SnapshotPart};
use moat_core::limits::TIME_MAX;
use moat_log::{
    AnchorState, LogError, Options, Record, Report, Store, Trust, Unchecked, Witness, lines,
    verify, walk,
};

const SMALL: u64 = 2048;

fn small(place: &Place) -> Options {
    Options { segment_bytes: SMALL, ..place.options() }
}

fn open(place: &Place) -> Result<Store<Tally>, LogError> {
    Store::open(small(place), Tally::default())
}

fn trust(place: &Place) -> Trust {
    Trust { log: gate().id(), anchor: Some(place.anchor()), key: None }
}

fn verified(place: &Place) -> Result<Report, LogError> {
    verify(&place.log(), &trust(place), Tally::default, |_| ())
}

/// A closed log with this many notes and its lines, and what the last opened state was.
fn segmented(count: u64) -> (Place, Vec<Vec<u8>>, Tally) {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    notes(&store, 0..count);
    let state = store.with(Clone::clone).unwrap();
    store.close().unwrap();
    let lines = lines(&place.log(), 0).unwrap().map(Result::unwrap).collect();
    (place, lines, state)
}

#[test]
fn each_segment_is_named_by_its_first_line_and_begins_with_a_snapshot() {
    let (place, lines, state) = segmented(100);
    let firsts = place.firsts();
    assert!(firsts.len() > 2, "{firsts:?}");
    assert_eq!(firsts[0], 0);
    for (n, first) in firsts.iter().enumerate() {
        let bytes = std::fs::read(place.segment_at(*first)).unwrap();
        let line = Line::parse(bytes.split(|b| *b == b'\n').next().unwrap()).unwrap();
        assert_eq!((line.index, line.kind == "snapshot"), (*first, n > 0));
        assert!(bytes.len() as u64 >= SMALL || n + 1 == firsts.len());
        if n > 0 {
            let part = SnapshotPart::parse(line.body).unwrap();
            assert_eq!((part.part, part.of, part.pruned), (0, 1, 0));
            assert!(line.follows(&Line::parse(&lines[*first as usize - 1]).unwrap().leaf()));
        }
    }
    let store = open(&place).unwrap();
    assert_eq!(store.with(Clone::clone).unwrap(), state);
    assert_eq!(state.entries, 101, "snapshots are not the state's");
    let report = verified(&place).unwrap();
    assert_eq!((report.entries, report.segments), (lines.len() as u64, firsts.len()));
    assert_eq!(report.bytes, lines.iter().map(|line| line.len() as u64 + 1).sum::<u64>());
    assert_eq!(report.unchecked, [Unchecked::Macs]);
    let kinds = [("open", 1), ("note", 100), ("snapshot", firsts.len() as u64 - 1)];
    assert_eq!(report.kinds, kinds.map(|(kind, count)| (kind.to_owned(), count)));
}

#[test]
fn a_tile_that_the_newest_segment_fills_is_made_again_when_the_log_opens() {
    let (place, ..) = segmented(100);
    let reopen = || Store::open(place.options(), Tally::default()).unwrap();
    let store = reopen();
    notes(&store, 100..300);
    store.close().unwrap();
    let (tile, oldest) = (place.log().join("tile/0/000"), place.segment_at(0));
    let (good, removed) = (std::fs::read(&tile).unwrap(), std::fs::read(&oldest).unwrap());
    let mend = || {
        std::fs::write(&tile, [&good[1..], &[0]].concat()).unwrap();
        let store = reopen();
        assert!(store.opened().tiles_rebuilt);
        assert_eq!(std::fs::read(&tile).unwrap(), good);
        store
    };
    let newest = *place.firsts().last().unwrap();
    let gone = mend().prune(newest, NOW).unwrap();
    assert_eq!((gone.before, gone.entries), (newest, newest));
    // As a crash leaves it, before its files are gone.
    std::fs::write(&oldest, removed).unwrap();
    drop(mend());
}

#[test]
fn a_second_that_no_line_can_have_is_refused_before_the_state_hears_of_it() {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    let late = store.commit(TIME_MAX + 1, |_, out| out.push(entry(0)));
    assert!(matches!(late, Err(LogError::Entry(_))));
    note(&store, 0).unwrap();
    assert_eq!(store.position().unwrap(), (2, NOW));
}

#[test]
fn a_first_segment_that_nobody_removed_is_missed_by_who_walks_the_lines() {
    let (place, ..) = segmented(100);
    std::fs::remove_file(place.segment_at(0)).unwrap();
    let walked = walk(&place.log(), &gate().id(), |_| ControlFlow::Continue(()));
    assert!(matches!(walked, Err(LogError::ChainBroken { index: 0, .. })), "{walked:?}");
}

#[test]
fn each_removal_tells_what_it_removes() {
    let (place, ..) = segmented(100);
    let (store, firsts) = (open(&place).unwrap(), place.firsts());
    assert_eq!(store.prune(firsts[1], NOW).unwrap().entries, firsts[1]);
    assert_eq!(store.prune(firsts[2], NOW).unwrap().entries, firsts[2] - firsts[1]);
}

#[test]
fn lines_of_one_large_commit_are_found() {
    let place = Place::in_memory();
    let store = Store::open(place.options(), Tally::default()).unwrap();
    store.commit(NOW, |_, out| out.extend((0..600).map(entry))).unwrap();
    for index in [255, 256, 257, 511, 512, 600] {
        assert_eq!(Line::parse(&store.read(index).unwrap()).unwrap().index, index);
    }
}

#[test]
fn opening_reads_no_line_in_the_middle_of_older_segments() {
    let (place, ..) = segmented(100);
    let firsts = place.firsts();
    for first in &firsts[..firsts.len() - 1] {
        let mut bytes = std::fs::read(place.segment_at(*first)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(place.segment_at(*first), bytes).unwrap();
    }
    assert_eq!(open(&place).unwrap().opened().anchor, AnchorState::Matched);
    assert!(verified(&place).is_err(), "verifying reads everything");
}

#[test]
fn every_line_is_read_and_proved_in_whatever_segment_it_is() {
    let (place, lines, _) = segmented(120);
    let size = lines.len() as u64;
    let log = gate().id();
    for _ in 0..2 {
        let store = open(&place).unwrap();
        for (index, line) in (0..).zip(&lines) {
            assert_eq!(&store.read(index).unwrap(), line);
            let proof = store.prove(index, None).unwrap();
            proof.verify(&store.checkpoint().unwrap(), &log).unwrap();
            assert_eq!(proof.line(), line);
        }
        for start in [0, 1, 30, size - 1] {
            let mut seen = Vec::new();
            store
                .walk(start, |line| {
                    seen.push(line.bytes.to_vec());
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(seen, lines[start as usize..]);
        }
        for old in 1..=size {
            let proof = store.consistency(old, size).unwrap();
            let earlier = store.prove(0, Some(old)).unwrap();
            proof.verify(earlier.checkpoint(), proof.checkpoint(), &log).unwrap();
        }
        drop(store);
    }
    for start in [0, 1, 17, 60, lines.len() - 1, lines.len(), lines.len() + 5] {
        let read = moat_log::lines(&place.log(), start).unwrap().map(Result::unwrap);
        assert_eq!(read.collect::<Vec<_>>(), lines[start.min(lines.len())..]);
    }
    let mut walked = Vec::new();
    walk(&place.log(), &log, |line| {
        walked.push(line.bytes.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(walked, lines);
}

#[test]
fn sixty_four_threads_write_over_many_segments() {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    std::thread::scope(|scope| {
        for n in 0..64 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..10 {
                    let index = note(store, n).unwrap();
                    let line = store.read(index).unwrap();
                    let body = format!("{{\"n\":{n}}}");
                    assert_eq!(Line::parse(&line).unwrap().body, body.as_bytes());
                }
            });
        }
    });
    let state = store.with(Clone::clone).unwrap();
    assert_eq!(state.entries, 641);
    store.close().unwrap();
    assert!(place.firsts().len() > 3);
    assert_eq!(open(&place).unwrap().with(Clone::clone).unwrap(), state);
    verified(&place).unwrap();
}

#[test]
fn time_that_passed_without_a_line_is_in_the_snapshot() {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    let mut now = NOW;
    while place.firsts().len() < 3 {
        now += 10;
        // Nothing is written; the state has still seen the second.
        store.commit(now, |_, _| ()).unwrap();
        store.commit(now - 5, |_, out| out.push(entry(now))).unwrap();
    }
    let state = store.with(Clone::clone).unwrap();
    assert_eq!(state.time, now);
    store.close().unwrap();
    verified(&place).unwrap();
    assert_eq!(open(&place).unwrap().with(Clone::clone).unwrap(), state);
}

#[test]
fn a_large_state_is_written_again_only_after_four_times_its_size() {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    let ballast = || Record::new("ballast", b"{}".to_vec());
    store.commit(NOW, |_, out| out.extend((0..4).map(|_| ballast()))).unwrap();
    let large = || {
        let body = format!("{{\"x\":\"{}\"}}", "x".repeat(30_000));
        Record::new("note", body.into_bytes())
    };
    for _ in 0..100 {
        store.commit(NOW, |_, out| out.push(large())).unwrap();
    }
    store.close().unwrap();
    let firsts = place.firsts();
    // The first one is due at once; 3 MB hold at most four times 160 kB, each after 640 kB more.
    assert!((4..=6).contains(&firsts.len()), "{firsts:?}");
    let lines: Vec<_> = lines(&place.log(), 0).unwrap().map(Result::unwrap).collect();
    let parts = lines.iter().filter(|line| Line::parse(line).unwrap().kind == "snapshot").count();
    assert!(parts >= 4 * (firsts.len() - 1), "several parts each: {parts}");
    verified(&place).unwrap();
    open(&place).unwrap();
}

#[test]
fn an_anchor_older_than_the_newest_snapshot_is_compared_by_tiles_or_else_by_lines() {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    notes(&store, 0..300);
    let old = store.prove(0, Some(20)).unwrap().checkpoint().text().to_owned();
    store.close().unwrap();
    assert!(*place.firsts().last().unwrap() > 256);
    let tiles = place.log().join("tile");
    let leads = |place: &Place| {
        assert_eq!(open(place).unwrap().opened().anchor, AnchorState::Matched);
        std::fs::write(place.anchor(), &old).unwrap();
        assert_eq!(verified(place).unwrap().anchored, Some(20));
    };
    std::fs::write(place.anchor(), &old).unwrap();
    leads(&place);
    std::fs::remove_dir_all(&tiles).unwrap();
    leads(&place);
    std::fs::create_dir_all(tiles.join("0")).unwrap();
    std::fs::write(tiles.join("0/000"), vec![7; 8192]).unwrap();
    leads(&place);
    // What the gate signed about another log of its own is no beginning of this one.
    let other = Checkpoint::sign(&gate(), 20, [9; 32]);
    std::fs::write(place.anchor(), other.text()).unwrap();
    for error in [open(&place).err().unwrap(), verified(&place).unwrap_err()] {
        assert!(
            matches!(error, LogError::RolledBack { witness: Witness::Anchor, size: 20, .. }),
            "{error}"
        );
    }
    let accepted = Options { accept_restored: true, ..small(&place) };
    let store = Store::open(accepted, Tally::default()).unwrap();
    assert_eq!(store.opened().anchor, AnchorState::Overruled);
}

#[test]
fn segments_go_and_proofs_stay() {
    let (place, lines, state) = segmented(300);
    let log = gate().id();
    let firsts = place.firsts();
    let store = open(&place).unwrap();
    let size = lines.len() as u64;
    let cut = firsts[firsts.len() / 2];
    let plan = store.prunable(cut + 1).unwrap();
    assert_eq!((plan.before, plan.entries), (cut, cut));
    assert_eq!(plan.segments.len(), firsts.len() / 2);
    assert_eq!(plan.segments[0], "000000000000.jsonl");
    assert_eq!(place.firsts(), firsts, "nothing goes in a rehearsal");
    assert_eq!(store.position().unwrap().0, size);
    assert_eq!(store.prune(cut + 1, NOW).unwrap(), plan);
    assert_eq!(place.firsts(), firsts[firsts.len() / 2..]);
    assert_eq!(store.prune(cut + 1, NOW).unwrap().entries, 0, "once");
    assert_eq!(store.position().unwrap().0, size + 1);
    let body = format!("{{\"before\":{cut}}}");
    assert_eq!(Line::parse(&store.read(size).unwrap()).unwrap().body, body.as_bytes());
    store.close().unwrap();

    for _ in 0..2 {
        let report = verified(&place).unwrap();
        assert!(report.unchecked.contains(&Unchecked::Pruned(cut)), "{:?}", report.unchecked);
        assert_eq!((report.entries, report.segments), (size + 1, place.firsts().len()));
        let store = open(&place).unwrap();
        let time = store.with(|now| (now.entries, now.time)).unwrap();
        assert_eq!(time, (state.entries, state.time));
        for index in [0, 1, cut - 1] {
            let gone = store.read(index).unwrap_err();
            assert!(
                matches!(gone, LogError::Removed { index: i, oldest } if (i, oldest) == (index, cut)),
                "{gone}"
            );
            assert!(matches!(store.prove(index, None), Err(LogError::Removed { .. })));
            for at in [None, Some(index + 1), Some(cut)] {
                let proof = store.prove_line(&lines[index as usize], at).unwrap();
                proof.verify(proof.checkpoint(), &log).unwrap();
                assert_eq!(InclusionProof::parse(&proof.text()).unwrap(), proof);
            }
        }
        for index in [cut, cut + 1, size] {
            store.prove(index, None).unwrap().verify(&store.checkpoint().unwrap(), &log).unwrap();
        }
        for old in [1, 2, 255, 256, 257, cut - 1, cut, size] {
            let earlier = store.prove_line(&lines[0], Some(old)).unwrap();
            let proof = store.consistency(old, size + 1).unwrap();
            proof.verify(earlier.checkpoint(), proof.checkpoint(), &log).unwrap();
        }
        let shown = moat_log::lines(&place.log(), 0).unwrap().next().unwrap().unwrap();
        assert_eq!(shown, lines[cut as usize]);
        store.close().unwrap();
    }
}

#[test]
fn a_line_that_was_not_in_the_log_is_not_proved() {
    let (place, lines, _) = segmented(300);
    let store = open(&place).unwrap();
    store.prune(u64::MAX, NOW).unwrap();
    let mut forged = lines[10].clone();
    let at = forged.windows(5).position(|five| five == b"\"n\":9").unwrap();
    forged[at + 4] = b'8';
    assert!(matches!(store.prove_line(&forged, None), Err(LogError::Entry(_))));
    assert!(matches!(store.prove_line(b"{}", None), Err(LogError::Entry(_))));
    assert!(matches!(store.prove_line(&lines[10], Some(10)), Err(LogError::Missing { .. })));
    store.prove_line(&lines[10], Some(11)).unwrap();
}

#[test]
fn the_newest_snapshot_and_what_comes_after_it_never_go() {
    let (place, ..) = segmented(100);
    let firsts = place.firsts();
    let store = open(&place).unwrap();
    assert_eq!(store.prune(0, NOW).unwrap().segments, Vec::<String>::new());
    assert_eq!(store.prune(firsts[1] - 1, NOW).unwrap().entries, 0, "a whole segment or nothing");
    let gone = store.prune(u64::MAX, NOW).unwrap();
    assert_eq!((gone.before, gone.entries), (*firsts.last().unwrap(), *firsts.last().unwrap()));
    assert_eq!(place.firsts(), firsts[firsts.len() - 1..]);
    drop(store);
    let one = Place::in_memory();
    let store = one.open().unwrap();
    notes(&store, 0..10);
    assert_eq!(store.prune(u64::MAX, NOW).unwrap().entries, 0);
}

#[test]
fn nothing_goes_when_what_is_to_go_is_not_in_order() {
    let (place, ..) = segmented(300);
    let firsts = place.firsts();
    let store = open(&place).unwrap();
    let path = place.segment_at(firsts[1]);
    let good = std::fs::read(&path).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = store.prune(u64::MAX, NOW).unwrap_err();
    assert!(error.to_string().contains(&format!("{:012}.jsonl", firsts[1])), "{error}");
    assert_eq!(place.firsts(), firsts);
    std::fs::write(&path, &good).unwrap();
    // Tiles that lie or are missing are made before anything goes.
    let tile = place.log().join("tile/0/000");
    let right = std::fs::read(&tile).unwrap();
    std::fs::write(&tile, vec![1; right.len()]).unwrap();
    store.prune(u64::MAX, NOW).unwrap();
    assert_eq!(std::fs::read(&tile).unwrap(), right);
}

#[test]
fn tiles_that_nothing_can_make_again_are_named() {
    let (place, lines, _) = segmented(300);
    let store = open(&place).unwrap();
    store.prune(u64::MAX, NOW).unwrap();
    let old = store.prove_line(&lines[0], Some(20)).unwrap().checkpoint().text().to_owned();
    let aside = place.folder.path().join("aside");
    std::fs::rename(place.log().join("tile"), &aside).unwrap();
    let size = store.position().unwrap().0;
    let missing = |error: LogError| {
        let text = error.to_string();
        assert!(matches!(error, LogError::Untrusted { .. }), "{text}");
        assert!(text.contains("/tile`") && text.contains("back from a copy"), "{text}");
    };
    missing(store.consistency(10, size).unwrap_err());
    missing(store.prove_line(&lines[0], None).unwrap_err());
    store.close().unwrap();
    open(&place).unwrap().close().unwrap();
    std::fs::write(place.anchor(), old).unwrap();
    missing(open(&place).err().unwrap());
    missing(verified(&place).unwrap_err());
    let _ = std::fs::remove_dir_all(place.log().join("tile"));
    std::fs::rename(&aside, place.log().join("tile")).unwrap();
    assert_eq!(verified(&place).unwrap().anchored, Some(20));
    let store = open(&place).unwrap();
    store.consistency(10, size).unwrap();
}

#[test]
fn a_gate_that_begins_and_removes_segments_does_not_alarm_those_who_read() {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    let (done, mut rounds) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..3000 {
                note(&store, n).unwrap();
                if n % 400 == 399 {
                    store.prune(u64::MAX, NOW).unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let size = store.position().unwrap().0;
                match store.read(size / 2) {
                    Ok(line) => assert_eq!(Line::parse(&line).unwrap().index, size / 2),
                    Err(error) => assert!(matches!(error, LogError::Removed { .. }), "{error}"),
                }
            }
        });
        while !done.load(Ordering::SeqCst) {
            let report = verified(&place).unwrap();
            assert!(report.entries > 0);
            let mut last = None;
            for line in lines(&place.log(), 0).unwrap() {
                let Ok(line) = line else { break };
                let index = Line::parse(&line).unwrap().index;
                assert!(last.is_none_or(|last| last + 1 == index));
                last = Some(index);
            }
            rounds += 1;
        }
    });
    assert!(rounds > 2, "{rounds}");
    store.close().unwrap();
    verified(&place).unwrap();
}

#[test]
fn progress_counts_the_bytes_of_all_segments() {
    let (place, ..) = segmented(5000);
    let mut seen = Vec::new();
    let report =
        verify(&place.log(), &trust(&place), Tally::default, |progress| seen.push(progress));
    let (report, last) = (report.unwrap(), seen.last().unwrap());
    assert!(seen.len() > 1 && seen.windows(2).all(|two| two[0].bytes < two[1].bytes));
    assert_eq!(
        (last.bytes, last.total, last.entries),
        (report.bytes, report.bytes, report.entries)
    );
}
