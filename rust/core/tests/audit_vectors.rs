//! The vectors of `spec/vectors/audit.json`.
//!
//! `MOAT_WRITE_VECTORS=1` writes that file anew from the cases below; without it the file must be
//! what they make, and every case in it must have the answer it names.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod audit_help;

use std::path::PathBuf;

use audit_help::{NOTES, NOW, checkpoint, consistency, gate, inclusion, key, log, other};
use base64::{Engine, engine::general_purpose::STANDARD};
use moat_core::Error;
use moat_core::audit::{
    Chain, Checkpoint, ConsistencyProof, Former, InclusionProof, InheritedPart, Line, OPEN, Tree,
    genesis, inherited_parts, leaf_hash, origin,
};
use moat_core::key::{Hash256, sha256};
use serde_json::{Value, json};

/// A line made by hand, with a good MAC.
fn sealed(head: &str) -> String {
    let seed = gate().derive("moat-audit-mac-v1").unwrap();
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(seed.iter()).for_each(|(b, k)| *b ^= k);
        block.to_vec()
    };
    let digest = sha256(&[&[0][..], head.as_bytes()].concat());
    let inner = sha256(&[pad(0x36), digest.to_vec()].concat());
    let tag = sha256(&[pad(0x5c), inner.to_vec()].concat());
    format!("{head},\"mac\":\"{}\"}}", hex::encode(&tag[..16]))
}

fn case(name: &str, rule: &str, kind: &str, expect: &str, more: Value) -> Value {
    let mut case = json!({ "name": name, "rule": rule, "kind": kind, "expect": expect });
    case.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    case
}

/// Each negative case breaks one rule and nothing else.
fn line_cases() -> Vec<Value> {
    let line = log(&NOTES)[1].clone();
    let mac = line.find(",\"mac\"").unwrap();
    let prev = &line[line.find("prev\":\"").unwrap() + 7..][..64];
    let made = |from: &str, to: &str| sealed(&line[..mac].replacen(from, to, 1));
    let one = |name: &str, expect: &str, text: String| {
        case(name, "a line has one spelling", "line", expect, json!({ "text": text }))
    };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(65_535));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
    vec![
        one("a line", "ok", line.clone()),
        one("a space", "malformed", made("{\"i\":1,", "{\"i\": 1,")),
        one("a leading zero", "malformed", made("{\"i\":1,", "{\"i\":01,")),
        one("a fraction", "malformed", made("{\"i\":1,", "{\"i\":1.0,")),
        one(
            "keys in another order",
            "malformed",
            made("{\"i\":1,\"t\":1700000001", "{\"t\":1700000001,\"i\":1"),
        ),
        one("an unknown key", "malformed", made("\"kind\"", "\"x\":1,\"kind\"")),
        one("a year after 9999", "malformed", made("1700000001", "253402300800")),
        one("an index beyond 2^53", "malformed", made("{\"i\":1,", "{\"i\":9007199254740993,")),
        one("upper-case digits", "malformed", made(prev, &prev.to_uppercase())),
        one("a kind with a capital", "malformed", made("\"note\"", "\"Note\"")),
        one(
            "a kind of 33 characters",
            "malformed",
            made("\"note\"", &format!("\"{}\"", "a".repeat(33))),
        ),
        one("a body that is a list", "malformed", made("{\"n\":1}", "[1]")),
        one("a body with a float", "malformed", made("{\"n\":1}", "{\"n\":1.5}")),
        one("a body with 65 bits", "malformed", made("{\"n\":1}", "{\"n\":18446744073709551616}")),
        one("a body with a long escape", "malformed", made("{\"n\":1}", "{\"n\":\"\\u000a\"}")),
        one("a body with an escaped letter", "malformed", made("{\"n\":1}", "{\"n\":\"\\u0061\"}")),
        one("a body with a raw tab", "malformed", made("{\"n\":1}", "{\"n\":\"\t\"}")),
        one("a body 33 deep", "malformed", made("{\"n\":1}", &deep)),
        one("no MAC", "malformed", format!("{}}}", &line[..mac])),
        one(
            "a MAC in capitals",
            "malformed",
            line[..mac].to_owned() + &line[mac..].to_uppercase().replace("MAC", "mac"),
        ),
        one("too long", "too_large", made("{\"n\":1}", &long)),
    ]
}

fn log_case(name: &str, rule: &str, lines: &[String], expect: (&str, usize), key: bool) -> Value {
    let (expect, at) = expect;
    case(name, rule, "log", expect, json!({ "lines": lines, "mac_key": key, "at": at }))
}

/// Some lines of the log and one more.
fn with(lines: &[String], line: String) -> Vec<String> {
    [lines, &[line]].concat()
}

/// Good lines that were changed, removed or moved.
fn edited_cases() -> Vec<Value> {
    let lines = log(&NOTES);
    let one = |name, rule, lines: &[String], expect| log_case(name, rule, lines, expect, true);
    let edited: Vec<_> = lines.iter().map(|l| l.replace("{\"n\":1}", "{\"n\":2}")).collect();
    let removed = [&lines[..2], &lines[3..]].concat();
    let swapped = [&lines[..2], &lines[3..4], &lines[2..3]].concat();
    let (head, tail) = lines[2].split_at(lines[2].len() - 3);
    let digit = if tail.starts_with('0') { "1\"}" } else { "0\"}" };
    let unkeyed = with(&lines[..2], format!("{head}{digit}"));
    let (mac, chain) = ("the MAC covers the line", "prev is the leaf before");
    vec![
        one("a log", "all of it", &lines, ("ok", 7)),
        one("an edited line, with the key", mac, &edited, ("bad_signature", 1)),
        log_case("an edited line, without it", chain, &edited, ("broken_chain", 2), false),
        one("a wrong MAC", "the MAC is the gate's", &unkeyed, ("bad_signature", 2)),
        one("a removed line", "indices have no gap", &removed, ("broken_chain", 2)),
        one("two lines swapped", "indices are in order", &swapped, ("broken_chain", 2)),
    ]
}

/// Lines with a good MAC that do not come next.
fn misplaced_cases() -> Vec<Value> {
    let lines = log(&NOTES);
    let one = |name: &str, rule: &str, lines: &[String], at: usize| {
        log_case(name, rule, lines, ("broken_chain", at), true)
    };
    let next = |prev: Hash256, i: u64, t: u64, kind: &str, body: &str| {
        let prev = hex::encode(prev);
        let head = format!("{{\"i\":{i},\"t\":{t},\"prev\":\"{prev}\",\"kind\":\"{kind}\"");
        sealed(&format!("{head},\"body\":{body}"))
    };
    let leaf = |n: usize| leaf_hash(lines[n].as_bytes());
    let start = genesis(&origin(&gate().id()));
    let open = Chain::new(&gate().id()).open_body();
    let version = next(start, 0, NOW, OPEN, &open.replace("1}", "2}"));
    let foreign = open.replace(&origin(&gate().id()), &origin(&other().id()));
    let foreign = next(start, 0, NOW, OPEN, &foreign);
    let prev = with(&lines[..2], next(leaf(0), 2, NOW + 2, "note", "{}"));
    let older = with(&lines[..2], next(leaf(1), 2, NOW, "note", "{}"));
    let again = with(&lines[..1], next(leaf(0), 1, NOW, OPEN, &open));
    let unopened = next(start, 0, NOW, "note", "{}");
    vec![
        one("another prev", "prev is the leaf before", &prev, 2),
        one("an older time", "time does not go back", &older, 2),
        one("a first line that does not open", "`open` comes first", &[unopened], 0),
        one("a first line of version 2", "`open` names version 1", &[version], 0),
        one("a first line of another gate", "`open` names the gate", &[foreign], 0),
        one("a second opening", "`open` comes once", &again, 1),
    ]
}

fn note_cases() -> Vec<Value> {
    let signed = checkpoint(&log(&NOTES), 7).text().to_owned();
    let one = |name: &str, rule: &str, expect: &str, text: String| {
        case(name, rule, "checkpoint", expect, json!({ "text": text }))
    };
    // A body of our own, signed as the format says.
    let made = |body: &str, name: &str| {
        let mut id = format!("{name}\n\u{1}").into_bytes();
        id.extend_from_slice(gate().id().as_bytes());
        let raw = [&sha256(&id)[..4], &gate().sign(body.as_bytes())].concat();
        format!("{body}\n\u{2014} {name} {}\n", STANDARD.encode(raw))
    };
    let name = origin(&gate().id());
    let (body, _) = signed.rsplit_once("\n\n").unwrap();
    let body = format!("{body}\n");
    let by_other = Checkpoint::sign(&other(), 7, [0; 32]).text().to_owned();
    let witness = format!("\u{2014} witness.example/w {}\n", STANDARD.encode([1; 76]));
    vec![
        one("a checkpoint", "all of it", "ok", signed.clone()),
        one("made by hand", "the format is the published one", "ok", made(&body, &name)),
        one("with a witness", "unknown keys are ignored", "ok", format!("{signed}{witness}")),
        one("a witness alone", "the gate signs", "bad_signature", format!("{body}\n{witness}")),
        one(
            "another key name",
            "the key's name is the origin",
            "bad_signature",
            made(&body, "moat.log/x"),
        ),
        one(
            "another size",
            "the signature covers the text",
            "bad_signature",
            signed.replacen("\n7\n", "\n8\n", 1),
        ),
        one("of another gate", "the origin names the gate", "wrong_gate", by_other),
        one(
            "an extension line",
            "there are three lines",
            "malformed",
            made(&format!("{body}more\n"), &name),
        ),
        one(
            "a leading zero",
            "the size has one spelling",
            "malformed",
            made(&body.replacen("\n7\n", "\n07\n", 1), &name),
        ),
        one(
            "a short root",
            "a root has 32 bytes",
            "malformed",
            made(&format!("{name}\n7\n{}\n", STANDARD.encode([0; 31])), &name),
        ),
        one("no signature", "a note is signed", "malformed", format!("{body}\n")),
        one("no last newline", "lines end", "malformed", signed.trim_end().to_owned()),
        one(
            "a carriage return",
            "no control characters",
            "malformed",
            made(&body.replacen("\n7\n", "\n7\r\n", 1), &name),
        ),
        one(
            "an origin that is no log",
            "the origin is moat.log/ and a did:key",
            "malformed",
            made(&body.replacen("moat.log", "moat.dog", 1), &name),
        ),
    ]
}

fn inclusion_cases() -> Vec<Value> {
    let lines = log(&NOTES);
    let mut out = Vec::new();
    for (index, size) in [(0, 1), (0, 7), (3, 4), (3, 7), (6, 7), (2, 6)] {
        let text = inclusion(&lines, index, size).text();
        let name = format!("entry {index} of {size}");
        out.push(case(&name, "RFC 6962 §2.1.1", "inclusion", "ok", json!({ "text": text })));
    }
    let good = inclusion(&lines, 3, 7);
    let one = |name: &str, rule: &str, expect: &str, text: String| {
        case(name, rule, "inclusion", expect, json!({ "text": text }))
    };
    let hashes = good.hashes();
    let with = |hashes: &[Hash256], line: &str| {
        let proof = InclusionProof::new(line.as_bytes(), hashes.to_vec(), checkpoint(&lines, 7));
        proof.unwrap().text()
    };
    let swapped = [hashes[1], hashes[0], hashes[2]];
    let longer = [hashes, &hashes[..1]].concat();
    let text = good.text();
    let extra = text.lines().nth(1).unwrap();
    out.extend([
        one(
            "one hash too few",
            "the number follows from the sizes",
            "malformed",
            with(&hashes[1..], &lines[3]),
        ),
        one(
            "one hash too many",
            "the number follows from the sizes",
            "malformed",
            with(&longer, &lines[3]),
        ),
        one(
            "hashes swapped",
            "the hashes lead to the root",
            "broken_chain",
            with(&swapped, &lines[3]),
        ),
        one(
            "another line",
            "the line is the leaf",
            "broken_chain",
            with(hashes, &lines[3].replace("{}", "{\"n\":9}")),
        ),
        one(
            "a line of another place",
            "index is the line's",
            "malformed",
            text.replace("index 3", "index 2"),
        ),
        one(
            "no line",
            "the extra data are the line",
            "malformed",
            text.replace(&format!("{extra}\n"), ""),
        ),
        one("an older version", "the first line", "malformed", text.replace("@v1", "@v0")),
        one(
            "a hash of 31 bytes",
            "a hash has 32 bytes",
            "malformed",
            text.replacen(&STANDARD.encode(hashes[0]), &STANDARD.encode(&hashes[0][1..]), 1),
        ),
    ]);
    out
}

fn consistency_cases() -> Vec<Value> {
    let (lines, mut out) = (log(&NOTES), Vec::new());
    for (old, new) in [(1, 1), (1, 7), (3, 7), (4, 7), (6, 7), (7, 7)] {
        let text = consistency(&lines, old, new).text();
        let more = json!({ "text": text, "old": checkpoint(&lines, old).text() });
        out.push(case(&format!("{old} to {new}"), "RFC 6962 §2.1.2", "consistency", "ok", more));
    }
    let proof = consistency(&lines, 3, 7);
    let fork = Checkpoint::sign(&gate(), 3, [1; 32]);
    let one = |name: &str, rule: &str, expect: &str, text: String, old: &Checkpoint| {
        case(name, rule, "consistency", expect, json!({ "text": text, "old": old.text() }))
    };
    let short = ConsistencyProof::new(3, proof.hashes()[1..].to_vec(), checkpoint(&lines, 7));
    out.extend([
        one("a fork", "the hashes lead to both roots", "broken_chain", proof.text(), &fork),
        one(
            "too few hashes",
            "the number follows from the sizes",
            "malformed",
            short.text(),
            &checkpoint(&lines, 3),
        ),
        one(
            "for another size",
            "the proof is for these sizes",
            "malformed",
            proof.text(),
            &checkpoint(&lines, 4),
        ),
    ]);
    out
}

fn inherited_cases() -> Vec<Value> {
    let former = Former { gate: other().id(), entries: 3, root: [0xab; 32] };
    let items = [br#"{"is":"time","time":1700000000}"#.to_vec(), b"{}".to_vec()];
    let [body] = <[_; 1]>::try_from(inherited_parts(&former, &items).unwrap()).unwrap();
    let body = String::from_utf8(body).unwrap();
    let one = |name: &str, expect: &str, (from, to): (&str, &str)| {
        let text = body.replacen(from, to, 1);
        assert_eq!(text == body, expect == "ok");
        case(name, "a part has one spelling", "inherited", expect, json!({ "text": text }))
    };
    let bad = |name: &str, change| one(name, "malformed", change);
    vec![
        one("a part", "ok", ("", "")),
        bad("a part beyond the last", ("\"part\":0", "\"part\":1")),
        bad("a leading zero", ("\"of\":1", "\"of\":01")),
        bad("another order", ("{\"part\":0,\"of\":1", "{\"of\":1,\"part\":0")),
        bad("no gate", ("did:key:z", "did:web:z")),
        bad("of an empty log", ("\"entries\":3", "\"entries\":0")),
        bad("a root in upper case", ("\"root\":\"abab", "\"root\":\"ABAB")),
        bad("a root that is too short", ("\"root\":\"abab", "\"root\":\"ab")),
        bad("an item that is no object", (",{}]", ",1]")),
        bad("a comma too many", (",{}]", ",{},]")),
        bad("a field too many", ("]}", "],\"more\":1}")),
    ]
}

fn document() -> Value {
    let lines = log(&NOTES);
    let mut tree = Tree::default();
    let mut roots = vec![hex::encode(tree.root())];
    for line in &lines {
        tree.append(leaf_hash(line.as_bytes()), |_, _| ());
        roots.push(hex::encode(tree.root()));
    }
    let id = gate().id();
    let leaves: Vec<_> = lines.iter().map(|l| hex::encode(leaf_hash(l.as_bytes()))).collect();
    let cases = [
        line_cases(),
        edited_cases(),
        misplaced_cases(),
        note_cases(),
        inclusion_cases(),
        consistency_cases(),
        inherited_cases(),
    ]
    .concat();
    let public = hex::encode(id.as_bytes());
    json!({
        "page": "spec/audit.md",
        "gate": { "seed": hex::encode([7; 32]), "public": public, "did": id.to_string() },
        "origin": origin(&id),
        "genesis": hex::encode(genesis(&origin(&id))),
        "mac_key": hex::encode(*gate().derive("moat-audit-mac-v1").unwrap()),
        "log": { "lines": lines, "leaves": leaves, "roots": roots },
        "cases": cases,
    })
}

/// The answer to a case: a reason's code, or `ok`, and for a log the line it came at.
fn answer(case: &Value) -> (String, Option<u64>) {
    let text = case["text"].as_str().unwrap_or_default();
    let log = gate().id();
    let result: Result<(), Error> = match case["kind"].as_str().unwrap() {
        "line" => Line::parse(text.as_bytes()).map(|_| ()),
        "log" => return read_log(case),
        "inherited" => InheritedPart::parse(text.as_bytes()).map(|_| ()),
        "checkpoint" => Checkpoint::parse(text).and_then(|note| note.verify(&log)),
        "inclusion" => InclusionProof::parse(text).and_then(|p| p.verify(p.checkpoint(), &log)),
        "consistency" => ConsistencyProof::parse(text).and_then(|proof| {
            let old = Checkpoint::parse(case["old"].as_str().unwrap())?;
            proof.verify(&old, proof.checkpoint(), &log)
        }),
        kind => panic!("{kind}"),
    };
    (result.map_or_else(|error| error.reason.code().to_owned(), |()| "ok".to_owned()), None)
}

fn read_log(case: &Value) -> (String, Option<u64>) {
    let key = case["mac_key"].as_bool().unwrap().then(key);
    let mut chain = Chain::new(&gate().id());
    for line in case["lines"].as_array().unwrap() {
        let line = line.as_str().unwrap().as_bytes();
        if let Err(error) = chain.push(line, key.as_ref(), |_, _| ()) {
            return (error.reason.code().to_owned(), Some(chain.size()));
        }
    }
    ("ok".to_owned(), Some(chain.size()))
}

#[test]
fn the_vectors_are_what_the_code_makes_and_have_the_answers_they_name() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/audit.json");
    let made = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
    if std::env::var_os("MOAT_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let read = std::fs::read_to_string(&path).unwrap();
    assert_eq!(read, made, "run again with MOAT_WRITE_VECTORS=1 if the change is meant");
    let document: Value = serde_json::from_str(&read).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for case in document["cases"].as_array().unwrap() {
        let (code, at) = answer(case);
        assert_eq!(code, case["expect"].as_str().unwrap(), "{} {}", case["kind"], case["name"]);
        assert_eq!(at, case["at"].as_u64(), "{}", case["name"]);
        assert!(names.insert(format!("{} {}", case["kind"], case["name"])), "named once");
    }
    assert!(names.len() > 60);
}
