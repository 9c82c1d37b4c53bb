//! What somebody with the folder, or with the gate's key as well, can do to segments and
//! snapshots, and what shows it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::fs;

use common::{NOW, Place, Tally, gate, note, notes};
use moat_core::audit::{Chain, Checkpoint, Line, MacKey, SNAPSHOT, SnapshotPart};
use moat_log::{LogError, Options, Record, Report, Store, Trust, Unchecked, lines, verify};

fn small(place: &Place) -> Options {
    Options { segment_bytes: 2048, ..place.options() }
}

fn open(place: &Place) -> Result<Store<Tally>, LogError> {
    Store::open(small(place), Tally::default())
}

fn verified(place: &Place) -> Result<Report, LogError> {
    let trust = Trust { log: gate().id(), anchor: Some(place.anchor()), key: None };
    verify(&place.log(), &trust, Tally::default, |_| ())
}

fn segmented(count: u64) -> Place {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    notes(&store, 0..count);
    store.close().unwrap();
    place
}

/// A log with snapshots of several parts.
fn with_parts() -> Place {
    let place = Place::in_memory();
    let store = open(&place).unwrap();
    let ballast = || Record::new("ballast", b"{}".to_vec());
    let large = || Record::new("note", format!("{{\"x\":\"{}\"}}", "x".repeat(60_000)).into());
    store.commit(NOW, |_, out| out.extend((0..3).map(|_| ballast()))).unwrap();
    for _ in 0..12 {
        store.commit(NOW, |_, out| out.push(large())).unwrap();
    }
    store.close().unwrap();
    assert_eq!(place.firsts().len(), 3);
    place
}

/// The segment, entry and byte that an error names.
fn named(error: &LogError) -> (u64, u64, u64) {
    match error {
        LogError::ChainBroken { index, segment, offset, .. }
        | LogError::BadMac { index, segment, offset }
        | LogError::SnapshotDiffers { index, segment, offset, .. } => (*segment, *index, *offset),
        other => panic!("{other}"),
    }
}

#[test]
fn every_changed_byte_of_every_segment_is_found_at_its_line_and_segment() {
    let place = segmented(60);
    let firsts = place.firsts();
    assert_eq!(firsts.len(), 3);
    let size = lines(&place.log(), 0).unwrap().count() as u64;
    for first in &firsts {
        let path = place.segment_at(*first);
        let good = fs::read(&path).unwrap();
        let (mut index, mut start) = (*first, 0);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let error = verified(&place).expect_err("found");
            let exact = (*first, index, start as u64);
            if index + 2 < size && good[at] != b'\n' {
                assert_eq!(named(&error), exact, "byte {at}: {error}");
                assert!(error.to_string().contains(&format!("{first:012}.jsonl")), "{error}");
            } else if good[at] != b'\n' {
                // With the last line alone, `prev` leaves two.
                assert!(error.index().is_some_and(|i| i == index || i == index + 1), "{error}");
            }
            if good[at] == b'\n' {
                (index, start) = (index + 1, at + 1);
            }
        }
        fs::write(&path, good).unwrap();
    }
    verified(&place).unwrap();
}

#[test]
fn a_changed_byte_of_a_snapshot_or_after_it_keeps_the_gate_from_opening() {
    let place = segmented(60);
    let first = *place.firsts().last().unwrap();
    let path = place.segment_at(first);
    let good = fs::read(&path).unwrap();
    let snapshot = good.iter().position(|b| *b == b'\n').unwrap();
    for at in (0..good.len()).filter(|at| *at < snapshot || at % 7 == 0) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let error = open(&place).err().expect("refused");
        let index = first + good[..at].iter().filter(|b| **b == b'\n').count() as u64;
        assert_eq!((named(&error).0, named(&error).1), (first, index), "byte {at}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
    }
}

#[test]
fn a_segment_removed_renamed_swapped_doubled_or_emptied_is_found() {
    let place = segmented(150);
    let firsts = place.firsts();
    assert!(firsts.len() >= 4);
    let (a, b) = (firsts[1], firsts[2]);
    let path = |place: &Place, first| place.segment_at(first);
    let found = |what: &str, change: &dyn Fn(&Place), segments: &[u64]| {
        let changed = place.copied();
        change(&changed);
        let before = changed.firsts();
        for error in [open(&changed).err().expect(what), verified(&changed).expect_err(what)] {
            assert!(segments.contains(&named(&error).0), "{what}: {error}");
        }
        assert_eq!(changed.firsts(), before, "{what}");
    };
    for first in [0, a, b] {
        let before = firsts[firsts.iter().position(|f| *f == first).unwrap().saturating_sub(1)];
        found("removed", &|p| fs::remove_file(path(p, first)).unwrap(), &[before, first]);
    }
    let both = |p: &Place| [0, a].iter().for_each(|f| fs::remove_file(path(p, *f)).unwrap());
    found("the first two removed", &both, &[0]);
    found("renamed", &|p| fs::rename(path(p, a), path(p, a + 1)).unwrap(), &[0]);
    found("the first renamed", &|p| fs::rename(path(p, 0), path(p, 1)).unwrap(), &[1, 0]);
    let double = |p: &Place| assert!(fs::copy(path(p, a), path(p, a + 1)).unwrap() > 0);
    found("doubled", &double, &[a]);
    found("emptied", &|p| fs::write(path(p, a), b"").unwrap(), &[a]);
    let swap = |p: &Place| {
        let (one, two) = (fs::read(path(p, a)).unwrap(), fs::read(path(p, b)).unwrap());
        fs::write(path(p, a), two).unwrap();
        fs::write(path(p, b), one).unwrap();
    };
    found("swapped", &swap, &[a]);
    let cut = |bytes: usize| {
        move |p: &Place| {
            let whole = fs::read(path(p, a)).unwrap();
            fs::write(path(p, a), &whole[..whole.len() - bytes]).unwrap();
        }
    };
    found("torn, and not the last", &cut(5), &[a]);
    found("without its newline", &cut(1), &[a]);
    let more = |p: &Place| {
        let whole = fs::read(path(p, a)).unwrap();
        fs::write(path(p, a), [&whole[..], b"more"].concat()).unwrap();
    };
    found("with more at its end", &more, &[a]);
    let line = |p: &Place| {
        let whole = fs::read(path(p, a)).unwrap();
        let end = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap();
        fs::write(path(p, a), &whole[..=end]).unwrap();
    };
    found("without its last line", &line, &[a]);
    let link = |p: &Place| {
        fs::rename(path(p, a), p.folder.path().join("aside")).unwrap();
        std::os::unix::fs::symlink(p.folder.path().join("aside"), path(p, a)).unwrap();
    };
    let linked = place.copied();
    link(&linked);
    assert!(matches!(open(&linked), Err(LogError::Untrusted { .. })));
    assert!(matches!(verified(&linked), Err(LogError::Untrusted { .. })));
}

#[test]
fn the_last_segment_removed_is_a_rollback() {
    let place = segmented(100);
    let last = *place.firsts().last().unwrap();
    fs::remove_file(place.segment_at(last)).unwrap();
    for error in [open(&place).err().unwrap(), verified(&place).unwrap_err()] {
        assert!(
            matches!(error, LogError::RolledBack { entries, .. } if entries == last),
            "{error}"
        );
    }
    // An empty one in its place is no better.
    fs::write(place.segment_at(last), b"").unwrap();
    assert!(matches!(open(&place), Err(LogError::RolledBack { .. })));
    let accepted = Options { accept_restored: true, ..small(&place) };
    let store = Store::open(accepted, Tally::default()).unwrap();
    assert!(store.opened().restored);
    note(&store, 1).unwrap();
    drop(store);
    assert_eq!(verified(&place).unwrap().entries, last + 2);
}

#[test]
fn more_removed_than_an_entry_says_is_found() {
    let place = segmented(150);
    let firsts = place.firsts();
    let store = open(&place).unwrap();
    assert_eq!(store.prune(firsts[2], NOW).unwrap().before, firsts[2]);
    store.close().unwrap();
    verified(&place).unwrap();
    fs::remove_file(place.segment_at(firsts[2])).unwrap();
    for error in [open(&place).err().unwrap(), verified(&place).unwrap_err()] {
        assert_eq!(named(&error).1, firsts[2], "{error}");
        assert!(error.to_string().contains("the segment is missing"), "{error}");
    }
}

#[test]
fn an_altered_first_snapshot_of_a_pruned_log_is_found_at_its_byte() {
    let place = segmented(150);
    let store = open(&place).unwrap();
    store.prune(u64::MAX, NOW).unwrap();
    store.close().unwrap();
    let first = place.firsts()[0];
    let path = place.segment_at(first);
    let good = fs::read(&path).unwrap();
    let snapshot = good.iter().position(|b| *b == b'\n').unwrap();
    for at in 0..snapshot {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let error = open(&place).err().expect("refused");
        assert_eq!(named(&error), (first, first, 0), "byte {at}: {error}");
        let error = verified(&place).expect_err("found");
        assert_eq!(named(&error), (first, first, 0), "byte {at}: {error}");
    }
}

/// What to put in the place of a line's body, if anything.
type Change<'a> = dyn Fn(u64, &[u8]) -> Option<Vec<u8>> + 'a;

/// Writes the whole log anew, as the owner of the key can: `change` may replace the body of any
/// line, and all other snapshots are given the hashes that then fit. The checkpoint is signed
/// again; the anchor is out of reach.
fn rewritten(source: &Place, change: &Change<'_>) -> Place {
    let place = source.copied();
    let (mut chain, key) = (Chain::new(&gate().id()), MacKey::derive(&gate()).unwrap());
    let mut growing: Vec<[u8; 32]> = Vec::new();
    for first in source.firsts() {
        let bytes = fs::read(source.segment_at(first)).unwrap();
        let (mut out, tree) = (Vec::new(), hex::encode(growing.as_flattened()));
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line = Line::parse(line).unwrap();
            let mut body = line.body.to_vec();
            if line.kind == SNAPSHOT && line.index == first {
                let text = String::from_utf8(body).unwrap();
                let (head, rest) = text.split_once("\"tree\":[\"").unwrap();
                let (_, rest) = rest.split_once('"').unwrap();
                body = format!("{head}\"tree\":[\"{tree}\"{rest}").into_bytes();
            }
            let body = change(line.index, &body).unwrap_or(body);
            let note = |level, hash: &[u8; 32]| growing.extend((level == 0).then_some(*hash));
            chain.append(&mut out, &key, (line.time, line.kind, &body), note).unwrap();
        }
        fs::write(place.segment_at(first), out).unwrap();
    }
    assert!(growing.len() < 256, "one level of tiles");
    let signed = Checkpoint::sign(&gate(), chain.size(), chain.root());
    fs::write(place.checkpoint(), signed.text()).unwrap();
    fs::remove_file(place.anchor()).unwrap();
    place
}

#[test]
fn a_snapshot_that_the_owner_of_the_key_altered_differs_from_what_the_entries_add_up_to() {
    let place = segmented(60);
    let first = place.firsts()[1];
    let altered = |from: &str, to: &str| {
        let change = |index: u64, body: &[u8]| {
            let text = std::str::from_utf8(body).unwrap();
            (index == first).then(|| {
                assert!(text.contains(from), "{text}");
                text.replacen(from, to, 1).into_bytes()
            })
        };
        rewritten(&place, &change)
    };
    assert_eq!(verified(&altered("", "")).unwrap().unchecked.len(), 2);
    for (from, to) in [
        ("\"entries\":", "\"entries\":1"),
        ("\"time\":1", "\"time\":2"),
        ("\"items\":[", "\"items\":[{\"ballast\":0},"),
        ("}]}", "},{\"ballast\":0}]}"),
        ("\"pruned\":0", "\"pruned\":1"),
        ("\"part\":0,\"of\":1", "\"part\":1,\"of\":2"),
        ("\"tree\":[\"", "\"tree\":[\"\",\""),
        ("\"part\"", "\"other\""),
    ] {
        let error = verified(&altered(from, to)).expect_err(to);
        assert_eq!(named(&error), (first, first, 0), "{to}: {error}");
        assert!(matches!(error, LogError::SnapshotDiffers { .. }), "{to}: {error}");
    }
    let without_items = rewritten(&place, &|index, body| {
        let text = std::str::from_utf8(body).unwrap();
        let (head, _) = text.split_once("\"items\":[")?;
        (index == first).then(|| format!("{head}\"items\":[]}}").into_bytes())
    });
    assert_eq!(named(&verified(&without_items).unwrap_err()), (first, first, 0));
    let other_tree = rewritten(&place, &|index, body| {
        let text = std::str::from_utf8(body).unwrap();
        let at = text.find("\"tree\":[\"").filter(|_| index == first)? + 9;
        let digit = if &text[at..=at] == "0" { "1" } else { "0" };
        Some([&text[..at], digit, &text[at + 1..]].concat().into_bytes())
    });
    assert_eq!(named(&verified(&other_tree).unwrap_err()), (first, first, 0));
    // One that is not complete is never believed, so there is nothing to find.
    verified(&altered("\"of\":1", "\"of\":2")).unwrap();
}

#[test]
fn an_entry_that_the_owner_of_the_key_altered_does_not_add_up_to_the_next_snapshot() {
    let place = segmented(60);
    let next = place.firsts()[1];
    let changed = rewritten(&place, &|index, _| (index == 3).then(|| b"{\"n\":77}".to_vec()));
    let error = verified(&changed).unwrap_err();
    assert_eq!(named(&error), (next, next, 0), "{error}");
    assert!(matches!(error, LogError::SnapshotDiffers { .. }), "{error}");
}

#[test]
fn parts_of_different_snapshots_and_parts_in_the_middle_are_not_believed() {
    let place = with_parts();
    let firsts = place.firsts();
    let all: Vec<_> = lines(&place.log(), 0).unwrap().map(Result::unwrap).collect();
    let body = |index: u64| Line::parse(&all[index as usize]).unwrap().body.to_vec();
    let last = firsts[2];
    assert_eq!(SnapshotPart::parse(&body(last)).unwrap().of, 3);
    let entries = open(&place).unwrap().with(|state| state.entries).unwrap();
    let text = String::from_utf8(body(last + 1)).unwrap();
    // Its first part is that of the snapshot before; a part comes twice; a part is one of a
    // snapshot with another number of parts.
    let mixed: [(u64, Vec<u8>); 4] = [
        (last, body(firsts[1])),
        (last + 1, body(last)),
        (last + 2, body(last + 1)),
        (last + 1, text.replacen("\"of\":3", "\"of\":4", 1).into_bytes()),
    ];
    for (at, wrong) in mixed {
        let forged = rewritten(&place, &|index, _| (index == at).then(|| wrong.clone()));
        let error = verified(&forged).unwrap_err();
        assert!(matches!(error, LogError::SnapshotDiffers { .. }), "{at}: {error}");
        assert_eq!(named(&error).1, at, "{error}");
        // The gate itself goes by the older snapshot and the entries since.
        let alone = Options { anchor: None, ..small(&forged) };
        let store = Store::open(alone, Tally::default()).unwrap();
        assert_eq!(store.with(|state| state.entries).unwrap(), entries);
    }
    let stray = rewritten(&place, &|_, _| None);
    let (mut chain, key) = (Chain::new(&gate().id()), MacKey::derive(&gate()).unwrap());
    for line in &all {
        chain.push(line, Some(&key), |_, _| ()).unwrap();
    }
    let mut more = fs::read(stray.segment_at(last)).unwrap();
    chain.append(&mut more, &key, (NOW, SNAPSHOT, &body(last)), |_, _| ()).unwrap();
    fs::write(stray.segment_at(last), more).unwrap();
    let error = verified(&stray).unwrap_err();
    assert_eq!((named(&error).0, named(&error).1), (last, all.len() as u64), "{error}");
}

#[test]
fn an_incomplete_snapshot_is_not_believed_whatever_part_is_missing() {
    let place = with_parts();
    let first = place.firsts()[2];
    let bytes = fs::read(place.segment_at(first)).unwrap();
    let all: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').collect();
    let entries = open(&place).unwrap().with(|state| state.entries).unwrap();
    let after = all.len() - 3;
    for parts in 0..3 {
        let cut = place.copied();
        fs::write(cut.segment_at(first), all[..parts].concat()).unwrap();
        fs::remove_file(cut.checkpoint()).unwrap();
        fs::remove_file(cut.anchor()).unwrap();
        let store = open(&cut).unwrap();
        assert_eq!(store.opened().entries, first + parts as u64);
        assert_eq!(store.with(|state| state.entries).unwrap(), entries - after as u64);
        note(&store, 1).unwrap();
        store.close().unwrap();
        let report = verified(&cut).unwrap();
        assert!(report.unchecked == [Unchecked::Macs], "{:?}", report.unchecked);
    }
}

#[test]
fn a_segment_without_the_gates_key_is_not_folded() {
    let place = segmented(60);
    let all: Vec<_> = lines(&place.log(), 0).unwrap().map(Result::unwrap).collect();
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    for line in &all {
        chain.push(line, None, |_, _| ()).unwrap();
    }
    let first = chain.size();
    let other = MacKey::from_bytes(&[9; 32]).unwrap();
    let body = all.iter().rev().map(|line| Line::parse(line).unwrap());
    let body = body.into_iter().find(|line| line.kind == SNAPSHOT).unwrap().body.to_vec();
    chain.append(&mut out, &other, (NOW, SNAPSHOT, &body), |_, _| ()).unwrap();
    fs::write(place.segment_at(first), out).unwrap();
    let error = open(&place).err().unwrap();
    assert!(matches!(error, LogError::BadMac { .. }), "{error}");
    assert_eq!(named(&error), (first, first, 0));
}

#[test]
fn a_first_segment_of_another_history_or_without_its_end_is_found_when_the_log_opens() {
    let history = |from: u64| {
        let place = Place::in_memory();
        let store = open(&place).unwrap();
        let until = (from..).find(|n| note(&store, *n).is_ok() && place.firsts().len() == 2);
        assert!(until.is_some());
        store.close().unwrap();
        place
    };
    let (one, other) = (history(100), history(500));
    let newest = one.firsts()[1];
    assert_eq!(other.firsts(), [0, newest]);
    let opened = |bytes: &[u8]| {
        let place = one.copied();
        fs::write(place.segment_at(0), bytes).unwrap();
        open(&place).map(drop).map_err(|error| named(&error))
    };
    let own = fs::read(one.segment_at(0)).unwrap();
    assert!(opened(&own).is_ok());
    // The gate wrote every line of it, but not in this log.
    let others = fs::read(other.segment_at(0)).unwrap();
    assert_eq!(opened(&others), Err((newest, newest, 0)));
    let end = own.trim_ascii_end().iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let (segment, index, _) = opened(&own[..end]).unwrap_err();
    assert_eq!((segment, index), (0, newest - 1));
}

#[test]
fn what_is_left_of_a_removed_segment_is_not_counted() {
    let place = segmented(150);
    let firsts = place.firsts();
    let store = open(&place).unwrap();
    store.prune(firsts[2], NOW).unwrap();
    store.close().unwrap();
    fs::write(place.segment_at(firsts[1]), b"{").unwrap();
    assert_eq!(verified(&place).unwrap().segments, firsts.len() - 2);
}

#[test]
fn a_segment_that_was_cut_is_not_taken_for_a_removed_one() {
    let place = segmented(100);
    let store = open(&place).unwrap();
    fs::write(place.segment_at(0), b"").unwrap();
    let error = store.read(0).unwrap_err();
    assert!(matches!(error, LogError::Io { .. } | LogError::ChainBroken { .. }), "{error}");
}

#[test]
fn an_anchor_just_before_the_oldest_line_is_compared_with_the_snapshot_there() {
    let place = segmented(300);
    let firsts = place.firsts();
    let store = open(&place).unwrap();
    let right = store.prove(0, Some(firsts[1])).unwrap().checkpoint().text().to_owned();
    store.prune(firsts[1], NOW).unwrap();
    store.close().unwrap();
    fs::remove_dir_all(place.log().join("tile")).unwrap();
    let wrong = Checkpoint::sign(&gate(), firsts[1], [9; 32]).text().to_owned();
    fs::write(place.anchor(), wrong).unwrap();
    for error in [open(&place).err().unwrap(), verified(&place).unwrap_err()] {
        assert!(matches!(error, LogError::RolledBack { .. }), "{error}");
    }
    fs::write(place.anchor(), right).unwrap();
    assert_eq!(verified(&place).unwrap().anchored, Some(firsts[1]));
    open(&place).unwrap();
}
