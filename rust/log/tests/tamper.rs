//! What somebody with the folder but without the gate's key can do, and what shows it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::{NOW, Place, Seen, copy, gate, note, notes};
use moat_core::audit::{Chain, Checkpoint, Line, MacKey, OPEN};
use moat_core::key::Identity;
use moat_log::{AnchorState, LogError, Options, Store, Trust, Unchecked, Witness, verify, walk};

fn refused(place: &Place) -> LogError {
    place.open().err().expect("refused")
}

#[test]
fn every_changed_byte_is_found_at_its_line_and_the_log_stays_shut() {
    let place = Place::with_notes(4);
    let good = std::fs::read(place.segment()).unwrap();
    let lines = place.lines();
    let mut start = 0;
    for (n, line) in lines.iter().enumerate() {
        for at in 0..line.len() {
            let mut bytes = good.clone();
            bytes[start + at] ^= 1 << (at % 8);
            std::fs::write(place.segment(), &bytes).unwrap();
            let error = refused(&place);
            assert_eq!(error.index(), Some(n as u64), "byte {at} of line {n}: {error}");
            // Anyone can see it, and where: with the last line alone, `prev` leaves two.
            let error = place.verify_alone().expect_err("found");
            let found = error.index().unwrap() as usize;
            let exact = n + 2 < lines.len();
            assert!(found == n || (!exact && found == n + 1), "line {n} {at}: {error}");
            assert_eq!(std::fs::read(place.segment()).unwrap(), bytes, "nothing was changed");
        }
        start += line.len();
    }
    std::fs::write(place.segment(), good).unwrap();
    place.open().unwrap();
}

#[test]
fn a_line_removed_doubled_moved_or_made_up_is_found() {
    let place = Place::with_notes(6);
    let lines = place.lines();
    let shut = |changed: &[Vec<u8>], index: usize, what: &str| {
        place.set_lines(changed);
        assert_eq!(refused(&place).index(), Some(index as u64), "{what} {index}");
        assert!(place.verify().is_err(), "{what} {index}");
    };
    for n in 0..lines.len() {
        let mut changed = lines.clone();
        changed.remove(n);
        shut(&changed, n, "removed");
        let mut changed = lines.clone();
        changed.insert(n, lines[n].clone());
        shut(&changed, n + 1, "doubled");
        if n + 1 < lines.len() {
            let mut changed = lines.clone();
            changed.swap(n, n + 1);
            shut(&changed, n, "moved");
        }
        let mut changed = lines.clone();
        changed.insert(n, b"{}\n".to_vec());
        shut(&changed, n, "made up");
    }
}

/// The lines of a log as somebody would write them who has everything but the MAC key.
fn forged(lines: &[Vec<u8>], key: &MacKey, more: u64) -> Vec<u8> {
    let mut chain = Chain::new(&gate().id());
    for line in lines {
        chain.push(line.trim_ascii_end(), None, |_, _| ()).unwrap();
    }
    let mut out = lines.concat();
    for n in 0..more {
        let body = format!("{{\"forged\":{n}}}");
        chain.append(&mut out, key, (NOW, "note", body.as_bytes()), |_, _| ()).unwrap();
    }
    out
}

#[test]
fn a_line_added_without_the_key_is_not_folded() {
    let place = Place::with_notes(3);
    let other = MacKey::from_bytes(&[9; 32]).unwrap();
    std::fs::write(place.segment(), forged(&place.lines(), &other, 2)).unwrap();
    assert!(matches!(refused(&place), LogError::BadMac { index: 4, .. }));
    // Without the key it cannot be told from a line that is not signed yet; the report says so.
    let report = place.verify().unwrap();
    assert_eq!((report.entries, report.signed), (6, Some(4)));
    assert!(report.unchecked.contains(&Unchecked::UnsignedTail(2)));
    let key = Some(MacKey::derive(&gate()).unwrap());
    let trust = Trust { log: gate().id(), anchor: None, key };
    let error = verify(&place.log(), &trust, Seen::default, |_| ()).unwrap_err();
    assert!(matches!(error, LogError::BadMac { index: 4, .. }));
}

#[test]
fn a_cut_tail_is_seen_by_anchor_and_checkpoint_and_without_both_it_is_said_to_be_invisible() {
    let place = Place::with_notes(5);
    let lines = place.lines();
    place.set_lines(&lines[..4]);
    let by = |error, witness| {
        assert!(
            matches!(error, LogError::RolledBack { witness: w, entries: 4, size: 6 }
                if w == witness),
            "{error}"
        );
    };
    by(refused(&place), Witness::Anchor);
    by(place.verify().unwrap_err(), Witness::Anchor);
    by(place.open_alone().err().unwrap(), Witness::Checkpoint);
    by(place.verify_alone().unwrap_err(), Witness::Checkpoint);
    std::fs::remove_file(place.checkpoint()).unwrap();
    by(refused(&place), Witness::Anchor);
    by(place.verify().unwrap_err(), Witness::Anchor);
    let report = place.verify_alone().unwrap();
    let expected = [Unchecked::NoAnchor, Unchecked::NoCheckpoint, Unchecked::Macs];
    assert_eq!(report.unchecked, expected);
    let store = place.open_alone().unwrap();
    assert_eq!((store.opened().entries, store.opened().anchor), (4, AnchorState::None));
}

#[test]
fn a_missing_newline_at_the_end_is_a_cut_tail_too() {
    let place = Place::with_notes(5);
    let bytes = std::fs::read(place.segment()).unwrap();
    std::fs::write(place.segment(), &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(refused(&place), LogError::RolledBack { entries: 5, size: 6, .. }));
    assert_eq!(std::fs::read(place.segment()).unwrap().len(), bytes.len() - 1, "not cut");
}

#[test]
fn a_folder_restored_from_a_copy_is_refused_until_it_is_accepted_and_recorded() {
    let place = Place::with_notes(5);
    let kept = place.folder.path().join("kept");
    copy(&place.log(), &kept);
    let store = place.open().unwrap();
    notes(&store, 5..9);
    drop(store);
    std::fs::remove_dir_all(place.log()).unwrap();
    copy(&kept, &place.log());
    let error = refused(&place);
    assert!(matches!(error, LogError::RolledBack { entries: 6, size: 10, .. }), "{error}");
    assert_eq!(place.lines().len(), 6, "a refusal changes nothing");

    let accept = || Options { accept_restored: true, ..place.options() };
    let store = Store::open(accept(), Seen::default()).unwrap();
    assert!(store.opened().restored);
    assert_eq!(store.opened().anchor, AnchorState::Overruled);
    let body = "{\"entries\":6,\"signed\":10,\"witness\":\"anchor\"}";
    store.with(|seen| assert_eq!(seen.bodies("restored"), [body])).unwrap();
    note(&store, 5).unwrap();
    drop(store);
    assert_eq!(place.open().unwrap().opened().anchor, AnchorState::Matched);
    let store = Store::open(accept(), Seen::default()).unwrap();
    assert!(!store.opened().restored, "nothing to accept any more");
    assert_eq!(store.position().unwrap().0, 8);
    drop(store);
    assert_eq!(place.verify().unwrap().anchored, Some(8));
}

#[test]
fn a_whole_log_rewritten_by_the_owner_of_the_key_does_not_fit_the_anchor() {
    let place = Place::with_notes(5);
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let key = MacKey::derive(&gate()).unwrap();
    let open = chain.open_body();
    chain.append(&mut out, &key, (NOW, OPEN, open.as_bytes()), |_, _| ()).unwrap();
    for _ in 0..9 {
        chain.append(&mut out, &key, (NOW, "note", b"{\"n\":0}"), |_, _| ()).unwrap();
    }
    std::fs::write(place.segment(), &out).unwrap();
    let signed = Checkpoint::sign(&gate(), chain.size(), chain.root());
    std::fs::write(place.checkpoint(), signed.text()).unwrap();
    let error = refused(&place);
    assert!(
        matches!(error, LogError::RolledBack { witness: Witness::Anchor, entries: 10, size: 6 }),
        "{error}"
    );
    assert!(matches!(place.verify(), Err(LogError::RolledBack { .. })));
    let report = place.verify_alone().unwrap();
    assert!(report.unchecked.contains(&Unchecked::NoAnchor), "the report says what it missed");
}

#[test]
fn a_missing_anchor_is_made_and_said_to_have_been_missing() {
    let place = Place::with_notes(2);
    std::fs::remove_file(place.anchor()).unwrap();
    let report = place.verify().unwrap();
    assert!(report.unchecked.contains(&Unchecked::AnchorMissing));
    let store = place.open().unwrap();
    assert_eq!(store.opened().anchor, AnchorState::Missing);
    assert!(place.anchor().exists(), "from the opening on");
    drop(store);
    assert_eq!(place.open().unwrap().opened().anchor, AnchorState::Matched);
}

#[test]
fn what_opening_records_has_its_places_its_tile_and_its_signature() {
    // A torn line 255 of a log whose anchor has 256: line 255 says so, line 256 that it counts.
    let place = Place::with_notes(255);
    let mut lines = place.lines();
    let torn = lines[255].len() / 2;
    lines[255].truncate(torn);
    place.set_lines(&lines);
    let tile = place.log().join("tile/0/000");
    std::fs::remove_file(&tile).unwrap();
    let options = Options { accept_restored: true, ..place.options() };
    let store = Store::open(options, Seen::default()).unwrap();
    assert!(tile.exists(), "line 255 fills it");
    let signed = std::fs::read_to_string(place.checkpoint()).unwrap();
    assert_eq!(Checkpoint::parse(&signed).unwrap().size(), 257);
    notes(&store, 0..3);
    for (index, kind) in [(255, "torn"), (256, "restored"), (257, "note"), (259, "note")] {
        let bytes = store.read(index).unwrap();
        let line = Line::parse(&bytes).unwrap();
        assert_eq!((line.index, line.kind), (index, kind));
    }
}

#[test]
fn opening_signs_what_a_crash_left_unsigned() {
    let place = Place::with_notes(2);
    let store = place.open().unwrap();
    note(&store, 2).unwrap();
    let crashed = place.copied();
    let signed = |path| Checkpoint::parse(&std::fs::read_to_string(path).unwrap()).unwrap().size();
    assert_eq!((signed(crashed.checkpoint()), signed(crashed.anchor())), (3, 3));
    let opened = crashed.open().unwrap();
    assert_eq!((signed(crashed.checkpoint()), signed(crashed.anchor())), (4, 4));
    drop(opened);
    std::fs::remove_file(crashed.checkpoint()).unwrap();
    let _opened = crashed.open().unwrap();
    assert_eq!(signed(crashed.checkpoint()), 4);
}

#[test]
fn a_deleted_log_is_a_rollback() {
    let place = Place::with_notes(2);
    std::fs::remove_file(place.segment()).unwrap();
    assert!(matches!(refused(&place), LogError::RolledBack { entries: 0, size: 3, .. }));
    std::fs::remove_dir_all(place.log()).unwrap();
    assert!(matches!(refused(&place), LogError::RolledBack { entries: 0, size: 3, .. }));
}

#[test]
fn checkpoints_that_the_gate_did_not_sign_are_not_believed() {
    let place = Place::with_notes(2);
    let other = Identity::from_seed("other", &[8; 32]).unwrap();
    let good = std::fs::read_to_string(place.checkpoint()).unwrap();
    let bad = [
        Checkpoint::sign(&other, 1, [0; 32]).text().to_owned(),
        good.replacen("\n3\n", "\n2\n", 1),
        good.replacen('A', "B", 1),
        good.trim_end().to_owned(),
        String::new(),
        "x".repeat(200_000),
    ];
    for path in [place.checkpoint(), place.anchor()] {
        for text in bad.iter().filter(|text| **text != good) {
            std::fs::write(&path, text).unwrap();
            let error = refused(&place);
            assert!(matches!(error, LogError::Untrusted { .. }), "{error}");
            assert!(matches!(place.verify(), Err(LogError::Untrusted { .. })));
        }
        std::fs::write(&path, &good).unwrap();
        place.open().unwrap();
    }
}

#[test]
fn a_log_of_another_gate_is_refused() {
    let place = Place::with_notes(2);
    let other = Identity::from_seed("other", &[8; 32]).unwrap();
    std::fs::remove_file(place.checkpoint()).unwrap();
    let options = Options { gate: other.clone(), anchor: None, ..place.options() };
    let error = Store::open(options, Seen::default()).err().unwrap();
    assert!(matches!(error, LogError::BadMac { index: 0, .. }), "{error}");
    let trust = Trust { log: other.id(), anchor: None, key: None };
    let error = verify(&place.log(), &trust, Seen::default, |_| ()).unwrap_err();
    assert!(matches!(error, LogError::ChainBroken { index: 0, .. }), "{error}");
}

#[test]
fn links_pipes_and_unknown_segments_are_refused() {
    let place = Place::with_notes(2);
    let aside = place.folder.path().join("aside");
    let swap = |path: &Path, put: &dyn Fn(&Path)| {
        std::fs::rename(path, &aside).unwrap();
        put(path);
        let error = refused(&place);
        std::fs::remove_file(path).unwrap();
        std::fs::rename(&aside, path).unwrap();
        error
    };
    let link = |path: &Path| symlink(&aside, path).unwrap();
    for path in [place.segment(), place.checkpoint(), place.anchor(), place.log().join("lock")] {
        let error = swap(&path, &link);
        assert!(matches!(error, LogError::Untrusted { .. }), "{}: {error}", path.display());
    }
    for path in [place.log().join("seg"), place.log()] {
        swap(&path, &link);
    }
    let pipe = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    };
    for path in [place.segment(), place.checkpoint()] {
        let error = swap(&path, &pipe);
        assert!(matches!(error, LogError::Untrusted { .. }), "{}: {error}", path.display());
    }
    for name in ["1.jsonl", "00000000003.jsonl", "+00000000003.jsonl", "next.jsonl", ".jsonl"] {
        let next = place.log().join("seg").join(name);
        std::fs::write(&next, b"").unwrap();
        assert!(matches!(refused(&place), LogError::Untrusted { .. }), "{name}");
        assert!(matches!(place.verify(), Err(LogError::Untrusted { .. })), "{name}");
        std::fs::remove_file(next).unwrap();
    }
    place.open().unwrap();
}

#[test]
fn bytes_of_an_unfinished_write_are_cut_and_recorded() {
    let place = Place::with_notes(3);
    let good = std::fs::read(place.segment()).unwrap();
    let torn = &good[good.len() - 50..good.len() - 1];
    std::fs::write(place.segment(), [&good, torn].concat()).unwrap();
    let report = place.verify().unwrap();
    assert_eq!((report.entries, report.torn), (4, 49));
    let store = place.open().unwrap();
    assert_eq!((store.opened().entries, store.opened().torn), (4, 49));
    let digest = moat_core::key::sha256(torn).map(|byte| format!("{byte:02x}")).concat();
    let body = format!("{{\"bytes\":49,\"sha256\":\"{digest}\"}}");
    store.with(|seen| assert_eq!(seen.bodies("torn"), [body.as_str()])).unwrap();
    drop(store);
    assert!(std::fs::read(place.segment()).unwrap().starts_with(&good));
    let report = place.verify().unwrap();
    assert_eq!((report.entries, report.torn), (5, 0));
}

#[test]
fn too_many_bytes_without_a_newline_are_not_an_unfinished_write() {
    let place = Place::with_notes(3);
    let good = std::fs::read(place.segment()).unwrap();
    std::fs::write(place.segment(), [good, vec![b'x'; 65_536]].concat()).unwrap();
    assert!(matches!(refused(&place), LogError::ChainBroken { index: 4, .. }));
    assert!(matches!(place.verify(), Err(LogError::ChainBroken { index: 4, .. })));
}

#[test]
fn verification_reports_its_progress_and_walks_lines_without_a_key() {
    let place = Place::with_notes(5000);
    let trust = Trust { log: gate().id(), anchor: Some(place.anchor()), key: None };
    let mut seen = Vec::new();
    let report =
        verify(&place.log(), &trust, Seen::default, |progress| seen.push(progress)).unwrap();
    assert_eq!((report.entries, report.unchecked), (5001, vec![Unchecked::Macs]));
    let last = seen.last().unwrap();
    assert_eq!((seen.len(), last.entries, last.bytes), (2, 5001, last.total));
    let (mut count, log) = (0, gate().id());
    walk(&place.log(), &log, |line| {
        assert_eq!(line.index, count);
        count += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(count, 5001);
    let empty = verify(place.folder.path(), &trust, Seen::default, |_| ()).unwrap_err();
    assert!(matches!(empty, LogError::Untrusted { .. }));
}

#[test]
fn what_could_not_be_checked_has_a_stable_code() {
    use Unchecked::{AnchorMissing, Inherited, Macs, NoAnchor, NoCheckpoint, Pruned, UnsignedTail};
    let all =
        [NoAnchor, AnchorMissing, NoCheckpoint, UnsignedTail(1), Pruned(1), Inherited(1), Macs];
    let codes = "no_anchor anchor_missing no_checkpoint unsigned_tail pruned inherited macs";
    assert_eq!(all.map(Unchecked::code).join(" "), codes);
}

#[test]
fn a_log_of_one_segment_is_verified_without_a_state() {
    let place = Place::with_notes(3);
    let trust = Trust { log: gate().id(), anchor: None, key: None };
    let no_state = || -> Seen { panic!("there is no snapshot to compare it with") };
    assert_eq!(verify(&place.log(), &trust, no_state, |_| ()).unwrap().entries, 4);
}

#[test]
fn a_rollback_says_whether_lines_are_missing_or_are_others() {
    let told = |entries, size| {
        let error = LogError::RolledBack { witness: Witness::Anchor, entries, size };
        error.to_string()
    };
    assert!(told(2, 3).contains(": it has 2 entries and 3 were signed;"), "{}", told(2, 3));
    for entries in [3, 4] {
        let text = told(entries, 3);
        assert!(
            text.contains(": its first 3 entries have another root than was signed;"),
            "{text}"
        );
    }
}
