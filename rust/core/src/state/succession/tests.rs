#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::audit::inherited_parts;
use crate::control::Target;
use crate::entry::{Entry, Outcome, Registered, Rules, Unused};
use crate::key::Identity;
use crate::limits::SKEW_SECONDS;
use crate::registration::Proof;

const NOW: u64 = 1_800_000_000;

fn who(n: u8) -> Identity {
    Identity::from_seed("gate", &[n; 32]).unwrap()
}

fn registered(key: u8, previous: Option<u8>, gate: u8) -> Vec<u8> {
    let registration = Registration {
        role: Role::Gate,
        name: "gate".to_owned(),
        gate: who(gate).id(),
        key: who(key).id(),
        previous: previous.map(|key| who(key).id()),
        nonce: [key; 16],
        issued: NOW,
        expires: NOW + 60,
    };
    let bytes = Proof::sign(&registration, &who(key), previous.map(who).as_ref()).unwrap();
    Proof::decode(&bytes).unwrap().verify(&who(gate).id(), NOW).unwrap().entry().to_body().unwrap()
}

/// A gate that has revoked somebody, lost lines, and handed over.
fn handed() -> State {
    let mut state = State::default();
    state.apply(0, NOW, "open", b"{}").unwrap();
    state.apply(1, NOW, Registered::KIND, &registered(1, None, 1)).unwrap();
    state.apply(2, NOW, "restored", b"{}").unwrap();
    for item in [
        format!(
            r#"{{"is":"withdrawn","verb":"revoke","agent":"{}","signer":"{}","scope":"gate"}}"#,
            who(8).id(),
            who(9).id()
        ),
        format!(r#"{{"is":"nonce","expires":{},"nonce":"00"}}"#, NOW + 60),
        r#"{"is":"pending","decisions":[1]}"#.to_owned(),
    ] {
        state.restore(item.as_bytes()).unwrap();
    }
    state.apply(3, NOW, Registered::KIND, &registered(2, Some(1), 1)).unwrap();
    state
}

fn bodies(state: &State, now: u64) -> Vec<Vec<u8>> {
    let former = Former { gate: who(1).id(), entries: 4, root: [7; 32] };
    inherited_parts(&former, &state.bequest(now).snapshot().unwrap()).unwrap()
}

/// A log that begins with what was inherited at that second.
fn heir(bodies: &[Vec<u8>], now: u64) -> Result<State> {
    let mut state = State::default();
    state.apply(0, now, "open", b"{}")?;
    for (index, body) in (1..).zip(bodies) {
        state.apply(index, now, INHERITED, body)?;
    }
    state.check_whole()?;
    Ok(state)
}

#[test]
fn the_next_gate_knows_what_can_matter_there_and_nothing_else() {
    let (state, later) = (handed(), NOW + 10);
    assert_eq!(state.successor(), Some(who(2).id()));
    assert_eq!(state.check_succeeded().unwrap_err().reason, Reason::WrongGate);
    let next = heir(&bodies(&state, later), later).unwrap();
    assert!(next.is_revoked(&Target::Agent(who(8).id())));
    assert_eq!(next.check_lost(NOW + SKEW_SECONDS).unwrap_err().reason, Reason::Stale);
    assert_eq!(next.registry().current("gate"), Some(who(2).id()));
    assert_eq!((next.time(), next.successor()), (later, None));
    assert_eq!(next.former().unwrap().gate, who(1).id());
    assert_eq!((next.nonces.len(), next.pending().count()), (0, 0));
    // As state and as items it is the same, also when it comes back from a snapshot of its own.
    let mut again = State::default();
    next.snapshot().unwrap().iter().for_each(|item| again.restore(item).unwrap());
    assert_eq!(again.snapshot().unwrap(), next.snapshot().unwrap());
    assert_eq!(again.former(), next.former());
    // And it can hand on in its turn.
    let mut last = next.clone();
    last.apply(2, later, Registered::KIND, &registered(3, Some(2), 2)).unwrap();
    assert_eq!(last.successor(), Some(who(3).id()));
    assert_eq!(last.bequest(later).former(), None);
}

#[test]
fn a_gate_that_has_handed_over_remembers_that_and_takes_no_line() {
    let mut again = State::default();
    handed().snapshot().unwrap().iter().for_each(|item| again.restore(item).unwrap());
    assert_eq!(again.successor(), Some(who(2).id()));
    for mut state in [handed(), again] {
        let outcome = br#"{"decision":1,"status":"ok"}"#;
        for (kind, body) in [
            (Outcome::KIND, outcome.to_vec()),
            (Registered::KIND, registered(3, Some(2), 2)),
            (Unused::KIND, br#"{"decisions":[1]}"#.to_vec()),
            (Rules::KIND, br#"{"policy":"chain-only","roots":[],"operators":[]}"#.to_vec()),
            ("summary", br#"{"since":1,"counts":{}}"#.to_vec()),
            (INHERITED, bodies(&handed(), NOW).concat()),
        ] {
            assert!(state.apply(4, NOW, kind, &body).is_err(), "{kind}");
        }
        state.apply(4, NOW, "torn", b"{}").unwrap();
        state.apply(5, NOW, "restored", b"{}").unwrap();
    }
}

#[test]
fn a_gate_of_another_key_or_role_hands_nothing_over() {
    let mut state = State::default();
    // The rotation of a name that the next gate took over, said again there for the former one.
    state.apply(1, NOW, Registered::KIND, &registered(1, None, 1)).unwrap();
    state.apply(2, NOW, Registered::KIND, &registered(2, Some(1), 5)).unwrap();
    assert_eq!(state.successor(), None);
    state.check_succeeded().unwrap();
}

#[test]
fn what_is_inherited_comes_first_whole_and_in_order() {
    let state = handed();
    let mut many = state.clone();
    for n in 0..600_u64 {
        let link = format!("{n:064x}");
        let item = format!(
            r#"{{"is":"withdrawn","verb":"revoke","link":"{link}","signer":"{}","scope":"gate"}}"#,
            who(9).id()
        );
        many.restore(item.as_bytes()).unwrap();
    }
    let parts = bodies(&many, NOW);
    assert!(parts.len() > 1);
    heir(&parts, NOW).unwrap();
    assert!(heir(&parts[..1], NOW).unwrap_err().detail.contains("ends after 1 of"));
    let mut turned = parts.clone();
    turned.reverse();
    assert!(heir(&turned, NOW).is_err());
    assert!(heir(&[parts[0].clone(), parts[0].clone()], NOW).is_err());
    assert!(heir(&parts, NOW + 1).is_err(), "of another second");
    let mixed = [parts[0].clone(), bodies(&state, NOW).concat()];
    assert!(heir(&mixed, NOW).is_err());

    let mut begun = State::default();
    begun.apply(0, NOW, "open", b"{}").unwrap();
    begun.apply(1, NOW, INHERITED, &parts[0]).unwrap();
    for kind in ["torn", "restored", "summary", "open", Unused::KIND] {
        let mut state = begun.clone();
        assert!(state.apply(2, NOW, kind, br#"{"decisions":[]}"#).is_err(), "{kind}");
    }
    let mut late = State::default();
    late.apply(0, NOW, "open", b"{}").unwrap();
    late.apply(1, NOW, "restored", b"{}").unwrap();
    assert!(late.apply(2, NOW, INHERITED, &parts[0]).is_err());
}

#[test]
fn items_that_mean_nothing_at_another_gate_are_not_taken() {
    let former = Former { gate: who(1).id(), entries: 4, root: [7; 32] };
    let good = handed().bequest(NOW).snapshot().unwrap();
    let with = |item: &str| {
        let items = [good.clone(), vec![item.as_bytes().to_vec()]].concat();
        heir(&inherited_parts(&former, &items).unwrap(), NOW)
    };
    let agent = who(8).id();
    with(&format!(
        r#"{{"is":"withdrawn","verb":"suspend","agent":"{agent}","rule":"r","scope":"gate"}}"#
    ))
    .unwrap();
    for item in [
        format!(r#"{{"is":"time","time":{NOW}}}"#),
        format!(r#"{{"is":"succeeded","by":"{agent}"}}"#),
        format!(
            r#"{{"is":"inherited","gate":"{agent}","entries":1,"root":"{}"}}"#,
            "00".repeat(32)
        ),
        format!(r#"{{"is":"nonce","expires":{},"nonce":"00"}}"#, NOW + 9),
        r#"{"is":"pending","decisions":[1]}"#.to_owned(),
        r#"{"is":"else"}"#.to_owned(),
        format!(
            r#"{{"is":"monitor","of":{{"open":{{"decision":1,"rules":[],"subjects":[["{agent}",true]]}}}}}}"#
        ),
        format!(
            r#"{{"is":"stream","holder":"{agent}","stream":"{}","newest":0,"used":"01","expires":{},"principal":"{agent}"}}"#,
            "00".repeat(16),
            NOW + 9
        ),
    ] {
        assert!(with(&item).is_err(), "{item}");
    }
    let none = inherited_parts(&former, &[]).unwrap();
    assert!(heir(&none, NOW).is_err(), "it names no gate that was rotated");
}
