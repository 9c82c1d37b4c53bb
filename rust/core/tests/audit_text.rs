//! Checkpoints and proofs as text: their form, and that no changed byte gets through.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod audit_help;

use audit_help::{NOTES, checkpoint, consistency, gate, inclusion, log, other};
use base64::{Engine, engine::general_purpose::STANDARD};
use moat_core::Reason;
use moat_core::audit::{Checkpoint, ConsistencyProof, InclusionProof, origin};
use moat_core::key::sha256;

#[test]
fn a_checkpoint_is_a_signed_note_with_three_lines() {
    let signed = Checkpoint::sign(&gate(), 5, [9; 32]);
    let name = origin(&gate().id());
    let body = format!("{name}\n5\n{}\n", STANDARD.encode([9; 32]));
    let mut id = format!("{name}\n\u{1}").into_bytes();
    id.extend_from_slice(gate().id().as_bytes());
    let mut signature = sha256(&id)[..4].to_vec();
    signature.extend_from_slice(&gate().sign(body.as_bytes()));
    let text = format!("{body}\n\u{2014} {name} {}\n", STANDARD.encode(signature));
    assert_eq!(signed.text(), text);
    assert_eq!(Checkpoint::parse(&text).unwrap(), signed);
    signed.verify(&gate().id()).unwrap();
    assert_eq!(signed.verify(&other().id()).unwrap_err().reason, Reason::WrongGate);
}

#[test]
fn signatures_of_witnesses_may_follow_and_alone_are_not_enough() {
    let signed = Checkpoint::sign(&gate(), 5, [9; 32]);
    let witness = format!("\u{2014} witness.example/w {}\n", STANDARD.encode([1; 76]));
    let cosigned = Checkpoint::parse(&format!("{}{witness}", signed.text())).unwrap();
    cosigned.verify(&gate().id()).unwrap();
    let (body, _) = signed.text().rsplit_once("\n\n").unwrap();
    let alone = Checkpoint::parse(&format!("{body}\n\n{witness}")).unwrap();
    assert_eq!(alone.verify(&gate().id()).unwrap_err().reason, Reason::BadSignature);
    let many = |count: usize| format!("{}{}", signed.text(), witness.repeat(count));
    Checkpoint::parse(&many(15)).unwrap();
    assert!(Checkpoint::parse(&many(16)).is_err());
    let mut wrong = STANDARD.decode(signed.text().trim_end().rsplit_once(' ').unwrap().1).unwrap();
    wrong[40] ^= 1;
    let line = format!("\u{2014} {} {}\n", signed.origin(), STANDARD.encode(wrong));
    let both = Checkpoint::parse(&format!("{}{line}", signed.text())).unwrap();
    assert!(both.verify(&gate().id()).is_err(), "one bad signature by the gate's key is enough");
}

#[test]
fn every_changed_byte_of_a_checkpoint_or_proof_is_refused() {
    let lines = log(&NOTES);
    let (signed, log) = (checkpoint(&lines, 7), gate().id());
    let old = checkpoint(&lines, 3);
    let (inclusion, consistency) = (inclusion(&lines, 2, 7), consistency(&lines, 3, 7));
    inclusion.verify(&signed, &log).unwrap();
    consistency.verify(&old, &signed, &log).unwrap();
    let damaged = |text: &str, holds: &dyn Fn(&str) -> bool| {
        for at in 0..text.len() {
            for bit in [0, 1, 5] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(!holds(&changed), "byte {at}: {changed}");
            }
        }
    };
    damaged(signed.text(), &|text| Checkpoint::parse(text).is_ok_and(|c| c.verify(&log).is_ok()));
    damaged(&inclusion.text(), &|text| {
        InclusionProof::parse(text).is_ok_and(|p| p.verify(p.checkpoint(), &log).is_ok())
    });
    damaged(&consistency.text(), &|text| {
        ConsistencyProof::parse(text).is_ok_and(|p| p.verify(&old, p.checkpoint(), &log).is_ok())
    });
}

#[test]
fn a_proof_holds_for_a_checkpoint_of_its_size_alone() {
    let lines = log(&NOTES);
    let log = gate().id();
    let proof = inclusion(&lines, 2, 7);
    for size in [3, 4, 6] {
        assert!(proof.verify(&checkpoint(&lines, size), &log).is_err());
    }
    assert!(proof.verify(&Checkpoint::sign(&other(), 7, [0; 32]), &log).is_err());
    assert!(proof.verify(proof.checkpoint(), &other().id()).is_err());
    let between = consistency(&lines, 3, 7);
    assert!(between.verify(&checkpoint(&lines, 4), &checkpoint(&lines, 7), &log).is_err());
    assert!(between.verify(&checkpoint(&lines, 3), &checkpoint(&lines, 6), &log).is_err());
}
