//! Envelopes as others may send them: every byte that is signed counts, and none is read before.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_750_000_000;

fn who(n: u8) -> Identity {
    Identity::from_seed("who", &[n; 32]).unwrap()
}

fn statement(predicate_type: &str, predicate: &Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "x", "digest": { "sha256": "ab".repeat(32) } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

fn code() -> Value {
    statement("urn:moat:manifest:v1", &json!({ "kind": "code", "issued": NOW }))
}

/// An envelope over any bytes, honestly signed.
fn sealed(payload_type: &str, payload: &[u8], by: &[u8]) -> Value {
    let tbs = pae(payload_type, payload);
    let sign = |n: &u8| json!({ "sig": STANDARD.encode(who(*n).sign(&tbs)) });
    json!({
        "payload": STANDARD.encode(payload),
        "payloadType": payload_type,
        "signatures": by.iter().map(sign).collect::<Vec<_>>(),
    })
}

fn verified(envelope: &Value, keys: &[u8]) -> Result<Attestation> {
    let keys: Vec<_> = keys.iter().map(|n| who(*n).id()).collect();
    Envelope::decode(envelope.to_string().as_bytes())?.verify(&keys)
}

fn read(statement: &Value) -> Result<Attestation> {
    verified(&sealed(PAYLOAD_TYPE, statement.to_string().as_bytes(), &[1]), &[1])
}

fn reason(of: Result<Attestation>) -> Option<Reason> {
    of.err().map(|error| error.reason)
}

#[test]
fn the_encoding_is_the_one_of_the_specification() {
    let body = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(body, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    assert_eq!(pae("é", b"x"), "DSSEv1 2 é 1 x".as_bytes());
}

proptest! {
    #[test]
    fn no_two_types_and_bodies_have_one_encoding(
        one in ("[ 0-9a-zé]{0,6}", "[ 0-9a-z]{0,6}"), two in ("[ 0-9a-zé]{0,6}", "[ 0-9a-z]{0,6}")
    ) {
        let encoded = |it: &(String, String)| pae(&it.0, it.1.as_bytes());
        prop_assert_eq!(one == two, encoded(&one) == encoded(&two));
    }

    #[test]
    fn any_bytes_are_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Envelope::decode(&bytes).is_err());
        let sealed = sealed(PAYLOAD_TYPE, &bytes, &[1]);
        prop_assert!(verified(&sealed, &[1]).is_err());
    }

    #[test]
    fn a_changed_byte_of_the_payload_is_a_signature_that_fails(
        at in any::<prop::sample::Index>(), bit in 0_u8..8
    ) {
        let mut payload = code().to_string().into_bytes();
        let mut envelope = sealed(PAYLOAD_TYPE, &payload, &[1]);
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        envelope["payload"] = STANDARD.encode(&payload).into();
        prop_assert_eq!(reason(verified(&envelope, &[1])), Some(Reason::BadSignature));
    }
}

#[test]
fn what_is_signed_is_what_is_read() {
    let made = Attestation::sign(code().to_string().as_bytes(), &[&who(1), &who(2)]).unwrap();
    let again = Envelope::decode(made.envelope()).unwrap();
    let again = again.verify(&[who(2).id(), who(1).id(), who(3).id()]).unwrap();
    assert_eq!(again, made);
    assert_eq!(made.subjects(), [[0xab; 32]]);
    assert_eq!((made.kind(), made.predicate()), (Kind::Code, Predicate::Manifest));
    assert_eq!((made.issued(), made.signers().len()), (NOW, 2));
    assert_eq!(made.statement(), sha256(code().to_string().as_bytes()));
    assert_eq!(made.vouched().count(), 2);
    let twice = Attestation::sign(code().to_string().as_bytes(), &[&who(1), &who(1)]);
    assert_eq!(reason(twice), Some(Reason::Malformed));
    let nobody = Attestation::sign(code().to_string().as_bytes(), &[]);
    assert_eq!(reason(nobody), Some(Reason::BadSignature));
}

#[test]
fn only_keys_that_the_caller_names_count_and_each_once() {
    let payload = code().to_string();
    let mut envelope = sealed(PAYLOAD_TYPE, payload.as_bytes(), &[1, 1, 1]);
    assert_eq!(verified(&envelope, &[1, 1]).unwrap().signers(), [who(1).id()]);
    assert_eq!(reason(verified(&envelope, &[2])), Some(Reason::BadSignature));
    assert_eq!(reason(verified(&envelope, &[])), Some(Reason::BadSignature));
    // A hint at a trusted key is no signature by it.
    envelope["signatures"][0]["keyid"] = who(2).id().to_string().into();
    assert_eq!(reason(verified(&envelope, &[2])), Some(Reason::BadSignature));
    envelope["signatures"][0]["sig"] = "AAAA".into();
    assert_eq!(verified(&envelope, &[1]).unwrap().signers().len(), 1);
    envelope["signatures"] = json!([]);
    assert_eq!(reason(verified(&envelope, &[1])), Some(Reason::BadSignature));
}

#[test]
fn a_payload_is_not_read_before_it_is_verified() {
    for garbage in [&b"{\"a\":1,\"a\":2}"[..], b"\xff", b"", b"[", b"{\"_type\":\"other\"}"] {
        let forged = sealed(PAYLOAD_TYPE, garbage, &[9]);
        assert_eq!(reason(verified(&forged, &[1])), Some(Reason::BadSignature));
        let signed = verified(&sealed(PAYLOAD_TYPE, garbage, &[1]), &[1]);
        assert_ne!(reason(signed), Some(Reason::BadSignature));
    }
}

#[test]
fn another_payload_type_is_another_thing() {
    let payload = code().to_string();
    for other in [
        "application/vnd.in-toto+JSON",
        "application/vnd.in-toto+json ",
        "application/vnd.in\u{2010}toto+json",
        "applicаtion/vnd.in-toto+json",
        "application/vnd.in-toto+json\u{200b}",
        "application/json",
        "",
    ] {
        let honest = sealed(other, payload.as_bytes(), &[1]);
        assert_eq!(reason(verified(&honest, &[1])), Some(Reason::WrongType), "{other}");
        let mut renamed = honest;
        renamed["payloadType"] = PAYLOAD_TYPE.into();
        assert_eq!(reason(verified(&renamed, &[1])), Some(Reason::BadSignature), "{other}");
    }
}

#[test]
fn either_alphabet_is_read_and_one_spelling_of_each_value() {
    let payload = json!({ "a": "???>>>" }).to_string();
    let mut envelope = sealed(PAYLOAD_TYPE, payload.as_bytes(), &[1]);
    let refused = || Some(Reason::Malformed);
    for spelling in [URL_SAFE.encode(&payload), STANDARD_NO_PAD.encode(&payload)] {
        envelope["payload"] = spelling.into();
        let error = verified(&envelope, &[1]).unwrap_err();
        assert!(error.detail.contains("_type"), "{error}");
    }
    let text = STANDARD.encode(b"{\"b\":1");
    for bad in [text.replace("MQ", "MR"), text.clone() + "\n", text.clone() + "=", "-_+/".into()] {
        envelope["payload"] = bad.clone().into();
        if bad != STANDARD.encode(b"{\"b\":1") {
            let found = Envelope::decode(envelope.to_string().as_bytes()).err();
            assert_eq!(found.map(|error| error.reason), refused(), "{bad}");
        }
    }
}

#[test]
fn a_name_that_stands_twice_is_refused_wherever_it_stands() {
    let twice = |text: &str| text.replacen('{', "{\"kind\":\"tool\",", 3);
    for (from, to) in [
        ("\"kind\":", "\"kind\":\"tool\",\"kind\":"),
        ("\"kind\":", "\"\\u006bind\":\"tool\",\"kind\":"),
        ("\"sha256\":", "\"sha256\":\"00\",\"sha256\":"),
        ("\"_type\":", "\"_type\":\"x\",\"_type\":"),
        ("\"predicate\":", "\"predicate\":{},\"predicate\":"),
    ] {
        let text = code().to_string().replacen(from, to, 1);
        let error = verified(&sealed(PAYLOAD_TYPE, text.as_bytes(), &[1]), &[1]).unwrap_err();
        assert!(error.detail.contains("stands twice"), "{text}: {error}");
    }
    let outer = sealed(PAYLOAD_TYPE, b"x", &[1]).to_string();
    let outer = outer.replacen("\"payload\":", "\"payload\":\"\",\"payload\":", 1);
    assert!(Envelope::decode(outer.as_bytes()).unwrap_err().detail.contains("stands twice"));
    assert!(Envelope::decode(twice("{}").as_bytes()).is_err());
}

#[test]
fn sizes_and_nesting_are_bounded() {
    let long = vec![b' '; limits::ENVELOPE_BYTES + 1];
    assert_eq!(Envelope::decode(&long).unwrap_err().reason, Reason::TooLarge);
    let mut many = sealed(PAYLOAD_TYPE, b"x", &[1; 17]);
    assert_eq!(reason(verified(&many, &[1])), Some(Reason::TooLarge));
    many["signatures"].as_array_mut().unwrap().pop();
    assert_ne!(reason(verified(&many, &[1])), Some(Reason::TooLarge));
    let keys: Vec<_> = (0..17).collect();
    assert_eq!(reason(verified(&many, &keys)), Some(Reason::TooLarge));
    for (depth, fine) in [(31, true), (32, false), (2000, false)] {
        let mut deep = code();
        deep["more"] = "@".into();
        let nest = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let text = deep.to_string().replace("\"@\"", &nest);
        let found = verified(&sealed(PAYLOAD_TYPE, text.as_bytes(), &[1]), &[1]);
        assert_eq!(found.is_ok(), fine, "{depth}");
    }
    let mut wide = code();
    let subject = wide["subject"][0].clone();
    wide["subject"] = vec![subject; 257].into();
    assert_eq!(statement::read(wide.to_string().as_bytes()).unwrap_err().reason, Reason::TooLarge);
}

#[test]
fn a_digest_counts_under_its_own_name_alone() {
    let ours = "ab".repeat(32);
    for digest in [
        json!({ "sha512": ours }),
        json!({ "SHA256": ours }),
        json!({ "sha-256": ours }),
        json!({ "sha256 ": ours }),
        json!({ "gitCommit": ours, "sha1": ours }),
        json!({ "sha256": ours.to_uppercase() }),
        json!({ "sha256": ours.clone() + "00" }),
        json!({ "sha256": &ours[2..] }),
        json!({ "sha256": [ours] }),
        json!({ "sha256": null }),
        json!({}),
    ] {
        let mut it = code();
        it["subject"][0]["digest"] = digest.clone();
        assert_eq!(reason(read(&it)), Some(Reason::Malformed), "{digest}");
    }
    let mut two = code();
    two["subject"] = json!([
        { "digest": { "sha512": "00" } },
        { "digest": { "sha256": "cd".repeat(32), "sha512": ours } },
    ]);
    assert_eq!(read(&two).unwrap().subjects(), [[0xcd; 32]]);
    two["subject"] = json!([]);
    assert_eq!(reason(read(&two)), Some(Reason::Malformed));
}

fn provenance() -> Value {
    json!({
        "buildDefinition": { "buildType": "https://b.example/t", "externalParameters": {} },
        "runDetails": {
            "builder": { "id": "https://b.example" },
            "metadata": { "finishedOn": "2025-06-15T15:06:40Z" },
        },
    })
}

fn summary() -> Value {
    json!({
        "verifier": { "id": "https://v.example" },
        "timeVerified": "2025-06-15T15:06:40Z",
        "resourceUri": "pkg:x",
        "policy": { "uri": "https://p.example" },
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_3"],
    })
}

#[test]
fn each_predicate_says_when_or_is_refused() {
    const SLSA: &str = "https://slsa.dev/provenance/v1";
    const VSA: &str = "https://slsa.dev/verification_summary/v1";
    for (uri, predicate) in [(SLSA, provenance()), (VSA, summary())] {
        let found = read(&statement(uri, &predicate)).unwrap();
        assert_eq!((found.issued(), found.kind()), (NOW, Kind::Code));
        for member in predicate.as_object().unwrap().keys() {
            let mut less = predicate.clone();
            less.as_object_mut().unwrap().remove(member);
            let refused = reason(read(&statement(uri, &less)));
            assert_eq!(refused, Some(Reason::Malformed), "{uri} {member}");
        }
    }
    let mut undated = provenance();
    undated["runDetails"]["metadata"] = json!({ "startedOn": "2025-06-15T15:06:40Z" });
    assert_eq!(reason(read(&statement(SLSA, &undated))), Some(Reason::Malformed));
    for result in ["FAILED", "passed", "PASSED ", "PА\u{405}SED", ""] {
        let mut failed = summary();
        failed["verificationResult"] = result.into();
        assert_eq!(reason(read(&statement(VSA, &failed))), Some(Reason::Malformed), "{result}");
    }
    for unknown in ["https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1/", ""] {
        let refused = reason(read(&statement(unknown, &provenance())));
        assert_eq!(refused, Some(Reason::UnknownClaim), "{unknown}");
    }
    let mut other = code();
    other["_type"] = "https://in-toto.io/Statement/v0.1".into();
    assert_eq!(reason(read(&other)), Some(Reason::WrongType));
}

#[test]
fn a_manifest_has_no_room_for_what_is_not_known() {
    for bad in [
        json!({ "kind": "code" }),
        json!({ "issued": NOW }),
        json!({ "kind": "code", "issued": "1750000000" }),
        json!({ "kind": "code", "issued": 1.75e9 }),
        json!({ "kind": "code", "issued": -1 }),
        json!({ "kind": "code", "issued": limits::TIME_MAX + 1 }),
        json!({ "kind": "code", "issued": NOW, "files": {} }),
        json!({ "kind": "tool", "issued": NOW, "files": {} }),
        json!({ "kind": "skill", "issued": NOW }),
        json!({ "kind": "skill", "issued": NOW, "files": {} }),
        json!({ "kind": "skill", "issued": NOW, "files": { "a": "ab".repeat(32) } }),
    ] {
        let refused = reason(read(&statement("urn:moat:manifest:v1", &bad)));
        assert_eq!(refused, Some(Reason::Malformed), "{bad}");
    }
    for bad in [json!({ "kind": "Code", "issued": NOW }), json!({ "kind": "code", "more": 1 })] {
        let refused = reason(read(&statement("urn:moat:manifest:v1", &bad)));
        assert_eq!(refused, Some(Reason::UnknownClaim), "{bad}");
    }
}

#[test]
fn a_skill_is_every_file_of_it_and_no_other() {
    let files = |names: &[&str]| -> BTreeMap<String, Hash256> {
        names.iter().map(|name| ((*name).to_owned(), sha256(name.as_bytes()))).collect()
    };
    let two = files(&["SKILL.md", "scripts/run.py"]);
    let draft = Draft { name: "s", subject: Subject::Skill(&two), issued: NOW };
    let made = Attestation::sign(&draft.to_payload().unwrap(), &[&who(1)]).unwrap();
    assert_eq!(made.subjects(), [skill_digest(&two).unwrap()]);
    let listing = String::from_utf8(skill_listing(&two).unwrap()).unwrap();
    assert!(listing.starts_with("{\"SKILL.md\":\""), "{listing}");
    for other in [&["SKILL.md"][..], &["SKILL.md", "scripts/run.py", "x"], &["SKILL.md", "a"]] {
        assert_ne!(skill_digest(&files(other)), skill_digest(&two));
    }
    for odd in [
        "/etc/passwd",
        "../x",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "",
        "a b",
        "a\\b",
        "a%2Fb",
        "a\n",
        "a\u{202e}b",
        "e\u{301}",
        "a*",
        "a?b",
        "a\0b",
        "\u{feff}a",
        "a;b",
    ] {
        assert!(skill_digest(&files(&[odd])).is_err(), "{odd:?}");
    }
    assert!(skill_digest(&files(&["readme", "README"])).is_err());
    assert!(skill_digest(&files(&[])).is_err());
    let many: Vec<_> = (0..257).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(skill_digest(&files(&many)).unwrap_err().reason, Reason::TooLarge);
    assert!(skill_digest(&files(&many[1..])).is_ok());
}

#[test]
fn a_tool_is_its_description_in_any_spelling() {
    let digest = tool_digest(b"{\"name\":\"x\",\"schema\":{\"a\":1.50}}").unwrap();
    let same = tool_digest(b" { \"schema\" : {\"a\":1.5}, \"n\\u0061me\": \"x\" } ").unwrap();
    assert_eq!(digest, same);
    assert_ne!(digest, tool_digest(b"{\"name\":\"x \",\"schema\":{\"a\":1.5}}").unwrap());
    for bad in [&b"[]"[..], b"{\"a\":1,\"a\":1}", b"{} {}", b"{\"a\":9007199254740993}"] {
        assert!(tool_digest(bad).is_err());
    }
}

#[test]
fn a_statement_from_the_future_waits_for_its_time() {
    let made = Attestation::sign(code().to_string().as_bytes(), &[&who(1)]).unwrap();
    assert_eq!(made.check_time(NOW - 60), Ok(()));
    assert_eq!(made.check_time(NOW - 61).unwrap_err().reason, Reason::Stale);
}
