//! Lines and their chain: one spelling, found and located wherever a byte is changed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use moat_core::Reason;
use moat_core::audit::{Chain, Line, MacKey, OPEN, genesis, leaf_hash, origin};
use moat_core::key::{Identity, sha256};
use moat_core::limits::LINE_BYTES;
use proptest::prelude::*;

fn gate() -> Identity {
    Identity::from_seed("gate", &[7; 32]).unwrap()
}

fn key() -> MacKey {
    MacKey::derive(&gate()).unwrap()
}

/// A small log: the opening line and some more.
fn log(bodies: &[&str]) -> Vec<Vec<u8>> {
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let open = chain.open_body();
    let mut write = |kind, body: &str| {
        let parts = (1_700_000_000, kind, body.as_bytes());
        chain.append(&mut out, &key(), parts, |_, _| ()).unwrap();
    };
    write(OPEN, &open);
    bodies.iter().for_each(|body| write("note", body));
    out.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// The first line that is refused, and why.
fn refused(lines: &[Vec<u8>], key: Option<&MacKey>) -> Option<(usize, Reason)> {
    let mut chain = Chain::new(&gate().id());
    lines
        .iter()
        .enumerate()
        .find_map(|(n, line)| chain.push(line, key, |_, _| ()).err().map(|error| (n, error.reason)))
}

const BODIES: [&str; 4] = [r#"{"n":1}"#, r#"{"text":"ä\n"}"#, "{}", r#"{"a":[1,{"b":null}]}"#];

#[test]
fn a_line_can_be_checked_with_sha256_and_hmac_alone() {
    let lines = log(&BODIES);
    let mut prev = genesis(&origin(&gate().id()));
    let seed = gate().derive("moat-audit-mac-v1").unwrap();
    for bytes in &lines {
        let line = Line::parse(bytes).unwrap();
        assert!(line.follows(&prev));
        prev = sha256(&[&[0][..], bytes].concat());
        assert_eq!(prev, line.leaf());
        assert_eq!(prev, leaf_hash(bytes));
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, mac) = text.split_once(",\"mac\":\"").unwrap();
        let digest = sha256(&[&[0][..], head.as_bytes()].concat());
        let tag = hmac_sha256(&seed, &digest);
        assert_eq!(mac, format!("{}\"}}", hex::encode(&tag[..16])));
    }
}

/// RFC 2104, written out.
fn hmac_sha256(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block.to_vec()
    };
    sha256(&[pad(0x5c), sha256(&[pad(0x36), data.to_vec()].concat()).to_vec()].concat())
}

#[test]
fn what_was_written_is_read_back_part_by_part() {
    let lines = log(&BODIES);
    assert_eq!(refused(&lines, Some(&key())), None);
    for (n, body) in BODIES.iter().enumerate() {
        let line = Line::parse(&lines[n + 1]).unwrap();
        assert_eq!((line.index, line.time, line.kind), (n as u64 + 1, 1_700_000_000, "note"));
        assert_eq!(line.body, body.as_bytes());
    }
}

#[test]
fn every_single_bit_flip_is_refused_at_its_line_with_the_key() {
    let lines = log(&BODIES);
    for n in 0..lines.len() {
        for at in 0..lines[n].len() {
            for bit in 0..8 {
                let mut changed = lines.clone();
                changed[n][at] ^= 1 << bit;
                let (found, _) = refused(&changed, Some(&key())).unwrap();
                assert_eq!(found, n, "byte {at} of line {n}");
                // Without the key it shows at this line or, through `prev`, at the next; a
                // change in the last line is for the checkpoint to find.
                let found = refused(&changed, None).map_or(n, |(found, _)| found);
                assert!(found == n || found == n + 1);
                if n + 1 < lines.len() {
                    assert!(refused(&changed, None).is_some());
                }
            }
        }
    }
}

#[test]
fn a_line_removed_inserted_or_moved_breaks_the_chain() {
    let lines = log(&BODIES);
    for n in 0..lines.len() - 1 {
        let mut removed = lines.clone();
        removed.remove(n);
        assert_eq!(refused(&removed, None), Some((n, Reason::BrokenChain)));
        let mut moved = lines.clone();
        moved.swap(n, n + 1);
        assert_eq!(refused(&moved, None), Some((n, Reason::BrokenChain)));
        let mut doubled = lines.clone();
        doubled.insert(n, lines[n].clone());
        assert_eq!(refused(&doubled, None), Some((n + 1, Reason::BrokenChain)));
    }
}

#[test]
fn a_line_by_another_key_is_refused_even_when_it_fits() {
    let mut lines = log(&BODIES);
    let mut chain = Chain::new(&gate().id());
    for line in &lines {
        chain.push(line, None, |_, _| ()).unwrap();
    }
    let (mut out, other) = (Vec::new(), MacKey::from_bytes(&[1; 32]).unwrap());
    chain.append(&mut out, &other, (1_700_000_000, "note", b"{}"), |_, _| ()).unwrap();
    out.pop();
    lines.push(out);
    assert_eq!(refused(&lines, None), None);
    assert_eq!(refused(&lines, Some(&key())), Some((5, Reason::BadSignature)));
}

#[test]
fn a_log_of_another_gate_is_refused_at_its_first_line() {
    let other = Identity::from_seed("gate", &[8; 32]).unwrap();
    let lines = log(&BODIES);
    let mut chain = Chain::new(&other.id());
    let error = chain.push(&lines[0], None, |_, _| ()).unwrap_err();
    assert_eq!(error.reason, Reason::BrokenChain);
}

#[test]
fn the_opening_line_comes_first_and_only_there() {
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let open = chain.open_body();
    let mut write = |chain: &mut Chain, kind, body: &str| {
        let parts = (1_700_000_000, kind, body.as_bytes());
        chain.append(&mut out, &key(), parts, |_, _| ()).map(|_| ()).map_err(|e| e.reason)
    };
    assert_eq!(write(&mut chain, "note", "{}"), Err(Reason::Malformed));
    assert_eq!(write(&mut chain, OPEN, "{}"), Err(Reason::Malformed));
    assert_eq!(write(&mut chain, OPEN, &open), Ok(()));
    assert_eq!(write(&mut chain, OPEN, &open), Err(Reason::Malformed));
    assert_eq!(chain.size(), 1);
}

#[test]
fn time_does_not_go_back() {
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let open = chain.open_body();
    let note = |_: u32, _: &_| ();
    chain.append(&mut out, &key(), (100, OPEN, open.as_bytes()), note).unwrap();
    assert_eq!(chain.append(&mut out, &key(), (90, "note", b"{}"), note), Ok(100));
    assert_eq!(chain.append(&mut out, &key(), (110, "note", b"{}"), note), Ok(110));
    assert_eq!(chain.time(), 110);
}

#[test]
fn the_longest_line_is_65535_bytes() {
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let open = chain.open_body();
    let note = |_: u32, _: &_| ();
    chain.append(&mut out, &key(), (1, OPEN, open.as_bytes()), note).unwrap();
    let body = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size));
    let start = out.len();
    chain.append(&mut out, &key(), (1, "note", body(0).as_bytes()), note).unwrap();
    let rest = LINE_BYTES - (out.len() - start - 1);
    let before = chain.root();
    let error = chain.append(&mut out, &key(), (1, "note", body(rest + 1).as_bytes()), note);
    assert_eq!(error.unwrap_err().reason, Reason::TooLarge);
    assert_eq!(chain.root(), before, "a refused line leaves the chain as it was");
    let start = out.len();
    chain.append(&mut out, &key(), (1, "note", body(rest).as_bytes()), note).unwrap();
    assert_eq!(out.len() - start - 1, LINE_BYTES);
    assert!(Line::parse(&out[start..out.len() - 1]).is_ok());
    out.insert(start + 20, b'1');
    let error = Line::parse(&out[start..out.len() - 1]).unwrap_err();
    assert_eq!(error.reason, Reason::TooLarge);
}

#[test]
fn other_spellings_of_a_good_line_are_refused() {
    let line = String::from_utf8(log(&[r#"{"n":1}"#])[1].clone()).unwrap();
    assert!(Line::parse(line.as_bytes()).is_ok());
    let prev = &line[line.find("prev\":\"").unwrap() + 7..][..64];
    for (from, to) in [
        ("{\"i\":1,", "{\"i\":01,"),
        ("{\"i\":1,", "{ \"i\":1,"),
        ("{\"i\":1,", "{\"i\":1.0,"),
        ("{\"i\":1,", "{\"i\":-1,"),
        ("{\"i\":1,", "{\"i\":,"),
        ("{\"i\":1,", "{\"i\":9007199254740993,"),
        ("{\"i\":1,", "{\"i\":1,\"i\":1,"),
        ("\"t\":1700000000", "\"t\":253402300800"),
        ("\"t\":1700000000", "\"t\":\"1700000000\""),
        ("\"kind\":\"note\"", "\"kind\":\"\""),
        ("\"kind\":\"note\"", "\"kind\":\"Note\""),
        ("\"kind\":\"note\"", "\"kind\":\"n\\u006fte\""),
        ("\"kind\":\"note\"", "\"kind\":\"1note\""),
        ("\"kind\":\"note\"", "\"kind\":\"a23456789012345678901234567890123\""),
        ("\"body\":{\"n\":1}", "\"body\":{\"n\":1} "),
        ("\"body\":{\"n\":1}", "\"body\": {\"n\":1}"),
        ("\"body\":{\"n\":1}", "\"body\":[1]"),
        ("\"body\":{\"n\":1}", "\"body\":{\"n\":1},\"x\":1"),
        ("\"body\":{\"n\":1}", "\"body\":{\"n\":1}}"),
        ("\"mac\":\"", "\"MAC\":\""),
        ("\"}", "\"} "),
        ("\"}", "\"},"),
        (prev, &prev.to_uppercase()),
        (prev, &prev[1..]),
    ] {
        let changed = line.replacen(from, to, 1);
        assert_ne!(changed, line, "{from}");
        assert_eq!(Line::parse(changed.as_bytes()).unwrap_err().reason, Reason::Malformed, "{to}");
    }
    let mut bytes = line.into_bytes();
    bytes[70] = 0xff;
    assert!(Line::parse(&bytes).is_err());
}

#[test]
fn entries_that_a_line_cannot_hold_are_refused_before_anything_changes() {
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let open = chain.open_body();
    chain.append(&mut out, &key(), (1, OPEN, open.as_bytes()), |_, _| ()).unwrap();
    let (length, root) = (out.len(), chain.root());
    for (time, kind, body) in [
        (1, "note", "{\"a\": 1}"),
        (1, "note", "{} "),
        (1, "note", "[]"),
        (1, "note", "{\"a\":\"\n\"}"),
        (1, "Note", "{}"),
        (1, "", "{}"),
        (1, "a-b", "{}"),
        (253_402_300_800, "note", "{}"),
    ] {
        let error = chain.append(&mut out, &key(), (time, kind, body.as_bytes()), |_, _| ());
        assert_eq!(error.unwrap_err().reason, Reason::Malformed, "{kind} {body}");
        assert_eq!((out.len(), chain.root()), (length, root));
    }
    let latin = chain.append(&mut out, &key(), (1, "note", b"{\"a\":\"\xe4\"}"), |_, _| ());
    assert_eq!(latin.unwrap_err().reason, Reason::Malformed);
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Line::parse(&bytes);
    }

    #[test]
    fn a_damaged_line_is_refused_or_reads_as_itself(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut line = log(&BODIES)[4].clone();
        let at = at.index(line.len());
        line[at] = byte;
        line.drain(at..at + usize::from(cut));
        if let Ok(read) = Line::parse(&line) {
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(value["i"].as_u64(), Some(read.index));
            prop_assert_eq!(value["t"].as_u64(), Some(read.time));
            prop_assert_eq!(value["kind"].as_str(), Some(read.kind));
            let body: serde_json::Value = serde_json::from_slice(read.body).unwrap();
            prop_assert_eq!(&value["body"], &body);
        }
    }
}
