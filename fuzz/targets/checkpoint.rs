//! Checkpoints and proofs: what reads prints back byte for byte, and proves only what is so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_core::audit::{
    Checkpoint, ConsistencyProof, InclusionProof, Tree, leaf_hash, verify_consistency,
    verify_inclusion,
};
use moat_core::key::{Hash256, sha256};
use moat_fuzz::world;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        checkpoint(text);
        proofs(text);
    }
    numbers(data);
    signed(data);
});

fn checkpoint(text: &str) {
    let Ok(read) = Checkpoint::parse(text) else { return };
    assert_eq!(read.text(), text);
    let gate = world().log.id();
    if read.verify(&gate).is_ok() {
        let own = Checkpoint::sign(&world().log, read.size(), *read.root());
        let body = |note: &Checkpoint| note.text().split("\n\n").next().map(str::to_owned);
        assert_eq!(body(&read), body(&own), "the gate signs one spelling");
    }
}

fn proofs(text: &str) {
    let gate = world().log.id();
    if let Ok(proof) = InclusionProof::parse(text) {
        assert_eq!(proof.text(), text);
        let _ = proof.verify(proof.checkpoint(), &gate);
    }
    if let Ok(proof) = ConsistencyProof::parse(text) {
        assert_eq!(proof.text(), text);
        let _ = proof.verify(proof.checkpoint(), proof.checkpoint(), &gate);
    }
}

/// Any sizes with any hashes: two numbers of 8 bytes, two hashes, then the path. No root but the
/// right one is accepted for one path.
fn numbers(data: &[u8]) {
    let Some((small, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((large, rest)) = rest.split_first_chunk::<8>() else { return };
    let (small, large) = (u64::from_be_bytes(*small), u64::from_be_bytes(*large));
    let hashes: Vec<Hash256> = rest.as_chunks::<32>().0.iter().take(70).copied().collect();
    let [one, two, path @ ..] = hashes.as_slice() else { return };
    if verify_inclusion((small, one), (large, two), path).is_ok() {
        assert!(small < large);
        let other = sha256(two);
        assert!(verify_inclusion((small, one), (large, &other), path).is_err());
        assert!(verify_inclusion((small, &other), (large, two), path).is_err());
    }
    if verify_consistency((small, one), (large, two), path).is_ok() {
        assert!(small <= large);
        let other = sha256(two);
        assert!(verify_consistency((small, one), (large, &other), path).is_err());
    }
}

/// A tree of as many leaves as there are bytes: the gate's checkpoint of it reads and verifies,
/// and with one byte of the input in its text it does not, unless the text is the same.
fn signed(data: &[u8]) {
    let mut tree = Tree::default();
    data.iter().take(64).for_each(|byte| tree.append(leaf_hash(&[*byte]), |_, _| ()));
    let made = Checkpoint::sign(&world().log, tree.size(), tree.root());
    let gate = world().log.id();
    assert_eq!(made.verify(&gate), Ok(()));
    let mut text = made.text().as_bytes().to_vec();
    if let [at, to, ..] = data {
        let at = usize::from(*at) % text.len();
        text[at] = *to;
    }
    let Ok(text) = std::str::from_utf8(&text) else { return };
    if let Ok(read) = Checkpoint::parse(text) {
        assert!(read.verify(&gate).is_err() || read == made, "{text}");
    }
}
