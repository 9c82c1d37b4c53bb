//! The vectors of `spec/vectors/registration.json`, and what they cannot say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use moat_core::entry::{Entry, Registered};
use moat_core::guard::{Guard, Setup};
use moat_core::key::{AgentId, Identity};
use moat_core::monitor::Rules;
use moat_core::policy::Policy;
use moat_core::registration::{Proof, Registration, Role};
use moat_core::state::State;
use moat_core::{Error, Reason};
use proptest::prelude::*;
use serde_json::Value;

const NOW: u64 = 1_800_000_000;

fn document() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors");
    serde_json::from_slice(&fs::read(path.join("registration.json")).unwrap()).unwrap()
}

/// What a gate does with a registration: verify it, then judge it, then write and fold its line.
fn take(state: &mut State, bytes: &[u8], guard: &Guard, now: u64) -> Result<(), Error> {
    let genuine = guard.verify_registration(bytes, now)?;
    let line = guard.rule_registration(&genuine, state, now)?;
    let entry = Registered::from_body(line.body())?;
    assert_eq!(entry.registration().as_ref(), Ok(genuine.registration()));
    state.apply(1, now, line.kind(), line.body())
}

#[test]
fn every_vector_holds() {
    let document = document();
    let key = |name: &Value| {
        let text = document["keys"][name.as_str().unwrap()]["did"].as_str().unwrap();
        AgentId::parse(text).unwrap()
    };
    let roots: Vec<_> = document["roots"].as_array().unwrap().iter().map(key).collect();
    let guard = Guard::new(Setup {
        gate: key(&document["gate"]),
        roots,
        operators: Vec::new(),
        policy: Policy::CHAIN_ONLY,
        monitor: Rules::default(),
    });
    let cases = document["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let mut state = State::default();
        for step in case["steps"].as_array().unwrap() {
            assert_eq!(step["kind"], "registration");
            let bytes = hex::decode(step["hex"].as_str().unwrap()).unwrap();
            let now = step["now"].as_u64().unwrap();
            let before = state.registry().clone();
            let found = take(&mut state, &bytes, &guard, now);
            let code = found.as_ref().map_or_else(|error| error.reason.code(), |()| "ok");
            assert_eq!(code, step["expect"], "{}: {found:?}", case["name"]);
            assert_eq!(found.is_err(), *state.registry() == before, "{}", case["name"]);
        }
    }
}

fn who(n: u8) -> Identity {
    Identity::from_seed("a", &[n; 32]).unwrap()
}

fn registration(key: &Identity, previous: Option<&Identity>) -> Registration {
    Registration {
        role: Role::Agent,
        name: "worker".to_owned(),
        gate: who(9).id(),
        key: key.id(),
        previous: previous.map(Identity::id),
        nonce: [3; 16],
        issued: NOW,
        expires: NOW + 60,
    }
}

#[test]
fn two_parties_sign_a_rotation_apart_and_neither_signs_for_the_other() {
    let (old, new, stranger) = (who(1), who(2), who(3));
    let it = registration(&new, Some(&old));
    let by = |signer| Registration::sign(signer, &it).unwrap();
    assert_eq!(Proof::join(&[by(&new), by(&old)]), Proof::sign(&it, &new, Some(&old)));
    let proof = Proof::decode(&Proof::join(&[by(&new), by(&old)]).unwrap()).unwrap();
    assert_eq!(proof.verify(&who(9).id(), NOW).unwrap().registration(), &it);
    assert_eq!(Registration::sign(&stranger, &it).unwrap_err().reason, Reason::Malformed);
    assert_eq!(Proof::join(&[by(&new)]).unwrap_err().reason, Reason::Malformed);
    assert_eq!(Proof::sign(&it, &new, None).unwrap_err().reason, Reason::Malformed);
}

#[test]
fn the_mint_refuses_what_the_gate_would() {
    let (old, new) = (who(1), who(2));
    for name in ["", "Worker", "a b", &"a".repeat(64)] {
        let it = Registration { name: name.to_owned(), ..registration(&new, None) };
        assert_eq!(Registration::sign(&new, &it).unwrap_err().reason, Reason::Malformed);
    }
    let itself = registration(&old, Some(&old));
    assert_eq!(Registration::sign(&old, &itself).unwrap_err().reason, Reason::Malformed);
}

#[test]
fn a_line_that_says_otherwise_than_its_statements_is_refused() {
    let (old, new) = (who(1), who(2));
    let it = registration(&new, Some(&old));
    let proof = Proof::decode(&Proof::sign(&it, &new, Some(&old)).unwrap()).unwrap();
    let line = proof.verify(&who(9).id(), NOW).unwrap().entry();
    assert_eq!(line.registration(), Ok(it));
    let changes: [&dyn Fn(&mut Registered); 8] = [
        &|line| line.role = "root".to_owned(),
        &|line| line.name = "other".to_owned(),
        &|line| line.key = who(5).id().to_string(),
        &|line| line.previous = None,
        &|line| line.nonce = hex::encode([4; 16]),
        &|line| line.expires += 1,
        &|line| drop(line.statements.pop()),
        &|line| line.statements[0].push('='),
    ];
    for change in changes {
        let mut changed = line.clone();
        change(&mut changed);
        assert!(changed.registration().is_err(), "{changed:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_to_the_same_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 0..40), at in 0_usize..1000, with: u8
    ) {
        prop_assert!(Proof::decode(&bytes).is_err());
        let (old, new) = (who(1), who(2));
        bytes = Proof::sign(&registration(&new, Some(&old)), &new, Some(&old)).unwrap();
        let at = at % bytes.len();
        let changed = bytes[at] != with;
        bytes[at] = with;
        let verdict = Proof::decode(&bytes).and_then(|proof| proof.verify(&who(9).id(), NOW));
        prop_assert_eq!(verdict.is_err(), changed);
    }
}
