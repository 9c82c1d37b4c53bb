//! Envelopes and statements: what reads was signed, by the keys that it says, over the bytes that
//! are read; nothing else is vouched for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_core::attest::{Attestation, Envelope, PAYLOAD_TYPE, pae, tool_digest};
use moat_core::key::sha256;
use moat_fuzz::world;

fuzz_target!(|data: &[u8]| {
    received(data);
    signed(data);
    encoded(data);
    let _ = tool_digest(data);
});

/// An envelope as it arrives, tried with every key that there is.
fn received(bytes: &[u8]) {
    let keys = world().ids();
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    let Ok(read) = envelope.verify(&keys) else { return };
    assert_eq!(read.envelope(), bytes);
    assert!(!read.signers().is_empty() && !read.subjects().is_empty());
    for key in keys {
        let again = Envelope::decode(bytes).and_then(|envelope| envelope.verify(&[key]));
        assert_eq!(again.is_ok(), read.signers().contains(&key), "whose word it is");
    }
}

/// The input as a statement that two keys sign: it reads as it was made, and for no other key.
fn signed(payload: &[u8]) {
    let signers = [&world().gate, &world().log];
    let Ok(made) = Attestation::sign(payload, &signers) else { return };
    let ids = signers.map(|signer| signer.id());
    assert_eq!(made.statement(), sha256(payload));
    let read = Envelope::decode(made.envelope()).and_then(|envelope| envelope.verify(&ids));
    assert_eq!(read.as_ref(), Ok(&made));
    assert!(ids.iter().all(|id| made.signers().contains(id)));
    assert_eq!(made.vouched().count(), made.subjects().len() * 2);
    let others: Vec<_> = world().ids().into_iter().filter(|id| !ids.contains(id)).collect();
    let posing = Envelope::decode(made.envelope()).and_then(|envelope| envelope.verify(&others));
    assert!(posing.is_err(), "somebody who did not sign");
    // One payload with another's signatures is nobody's word.
    let mut other = payload.to_vec();
    other.push(b' ');
    if let Ok(second) = Attestation::sign(&other, &signers) {
        let text = |made: &Attestation| String::from_utf8_lossy(made.envelope()).into_owned();
        let (one, two) = (text(&made), text(&second));
        let cut = |text: &str| text.find("\"signatures\"").expect("an envelope has signatures");
        let mixed = format!("{}{}", &one[..cut(&one)], &two[cut(&two)..]);
        let read = Envelope::decode(mixed.as_bytes()).and_then(|envelope| envelope.verify(&ids));
        assert!(read.is_err(), "a signature of another payload counts");
    }
}

/// What is signed has one type and one body: moving the boundary gives other bytes.
fn encoded(data: &[u8]) {
    let [at, rest @ ..] = data else { return };
    let whole = pae(PAYLOAD_TYPE, rest);
    assert!(whole.ends_with(rest));
    let (kind, body) = rest.split_at(usize::from(*at).min(rest.len()));
    let Ok(kind) = std::str::from_utf8(kind) else { return };
    let moved = pae(kind, body);
    assert_eq!(moved == whole, kind == PAYLOAD_TYPE && body == rest);
}
