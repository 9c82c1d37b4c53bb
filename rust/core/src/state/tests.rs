//! A state, its snapshot, and the state that comes back from it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::caveat::{Caveats, Limits, Terms};
use crate::key::Identity;
use crate::token::Claims;

const NOW: u64 = 1_800_000_000;

fn who(n: u8) -> Identity {
    Identity::from_seed("agent", &[n; 32]).unwrap()
}

/// A link from one agent to another that lives `life` seconds.
fn link(from: u8, to: u8, parent: Option<&Link>, life: u64) -> Link {
    let terms = Terms {
        allow: Vec::new(),
        deny: Vec::new(),
        limits: Limits::default(),
        not_before: NOW,
        expires: NOW + life,
        depth: 3,
        audience: None,
    };
    let claims = Claims {
        issuer: who(from).id(),
        holder: who(to).id(),
        issued: NOW,
        nonce: [from; 16],
        parent: parent.map(Link::id),
        index: u64::from(parent.is_some()),
        caveats: Caveats::new(terms).unwrap(),
    };
    Link::sign(&who(from), claims).unwrap()
}

fn seen(link: &Link) -> LinkSeen {
    let (id, bytes) = (hex::encode(link.id()), URL_SAFE_NO_PAD.encode(link.as_bytes()));
    LinkSeen { id, link: bytes }
}

fn decision(link: &Link, allow: bool, (stream, number): (u8, u64), expires: u64) -> Decision {
    let zero = hex::encode([0; 32]);
    Decision {
        allow,
        stage: "capability".to_owned(),
        reason: (!allow).then(|| "not_granted".to_owned()),
        detail: None,
        link: None,
        caveat: None,
        witness: None,
        holder: link.claims().holder.to_string(),
        token: hex::encode(link.id()),
        message: zero.clone(),
        recipient: "gate".to_owned(),
        action: "call".to_owned(),
        resource: "tool://a/x".to_owned(),
        args: zero.clone(),
        payload: zero.clone(),
        code: None,
        policy: zero,
        stream: hex::encode([stream; 16]),
        number,
        expires,
        causes: Vec::new(),
        labels: Vec::new(),
    }
}

fn control(verb: Verb, target: Target, nonce: u8, now: u64) -> ControlSeen {
    let signer = who(0);
    let statement = Statement {
        verb,
        target,
        gate: who(99).id(),
        signer: signer.id(),
        nonce: [nonce; 16],
        issued: now,
        expires: now + 60,
    };
    ControlSeen {
        verb: verb.code().to_owned(),
        target: String::new(),
        id: String::new(),
        signer: signer.id().to_string(),
        scope: if nonce.is_multiple_of(2) { "gate" } else { "given" }.to_owned(),
        nonce: hex::encode(statement.nonce),
        expires: statement.expires,
        statement: URL_SAFE_NO_PAD.encode(Control::sign(&signer, &statement).unwrap()),
    }
}

/// One thing that can happen, as a line.
fn line(step: (u8, u8, u64), now: u64, index: u64) -> (&'static str, Vec<u8>) {
    let (what, which, number) = step;
    let root = link(0, 1 + which % 3, None, 100 * u64::from(which % 3 + 1));
    let child = link(1 + which % 3, 10 + which, Some(&root), 50);
    let body = |made: Result<Vec<u8>>| made.unwrap();
    let expires = now + 1 + number % 60;
    match what {
        0 => (LinkSeen::KIND, body(seen(&root).to_body())),
        1 => (LinkSeen::KIND, body(seen(&child).to_body())),
        2..=5 => {
            let made = decision(&root, which % 2 == 0, (which % 4, number), expires);
            (Decision::KIND, body(made.to_body()))
        }
        6 => {
            let made = decision(&child, true, (which % 4, number), expires);
            (Decision::KIND, body(made.to_body()))
        }
        7 => {
            let target = match which % 2 {
                0 => Target::Agent(who(which).id()),
                _ => Target::Link(root.id()),
            };
            let verb = Verb::ALL[usize::try_from(number).unwrap() % 4];
            let nonce = u8::try_from(number % 256).unwrap();
            (ControlSeen::KIND, body(control(verb, target, nonce, now).to_body()))
        }
        8 => (Unused::KIND, body(Unused { decisions: vec![index.saturating_sub(3)] }.to_body())),
        9 => ("restored", b"{}".to_vec()),
        _ => {
            let outcome = Outcome {
                decision: index.saturating_sub(1),
                status: "ok".to_owned(),
                result: None,
                fuel: Some(number),
                detail: None,
            };
            (Outcome::KIND, body(outcome.to_body()))
        }
    }
}

fn again(state: &State) -> State {
    let mut state_again = State::default();
    for item in state.snapshot().unwrap() {
        state_again.restore(&item).unwrap();
    }
    state_again
}

proptest! {
    /// Whatever happened, the state that comes back from a snapshot has the same snapshot, and
    /// takes and refuses the same lines afterwards, with the same snapshot at the end.
    #[test]
    fn a_restored_state_goes_on_as_the_one_it_was_taken_from(
        steps in prop::collection::vec((0_u8..12, 0_u8..6, 0_u64..4, 0_u64..40), 1..60),
        cut in 0_usize..60,
    ) {
        let (mut state, mut twin, mut now) = (State::default(), None, NOW);
        for (at, (what, which, number, wait)) in steps.into_iter().enumerate() {
            now += wait;
            let index = u64::try_from(at).unwrap();
            let (kind, body) = line((what, which, number), now, index);
            if at == cut {
                twin = Some(again(&state));
            }
            let mut next = state.clone();
            let took = next.apply(index, now, kind, &body);
            if let Some(twin) = &mut twin {
                let mut after = twin.clone();
                prop_assert_eq!(after.apply(index, now, kind, &body).is_ok(), took.is_ok());
                if took.is_ok() {
                    *twin = after;
                }
            }
            if took.is_ok() {
                state = next;
            }
        }
        let items = state.snapshot().unwrap();
        prop_assert_eq!(again(&state).snapshot().unwrap(), items.clone());
        if let Some(twin) = twin {
            prop_assert_eq!(twin.snapshot().unwrap(), items);
        }
    }
}

#[test]
fn an_item_that_is_not_known_is_refused() {
    for item in ["{}", r#"{"is":"else"}"#, r#"{"is":"time","time":1,"more":2}"#, "[]", ""] {
        assert!(State::default().restore(item.as_bytes()).is_err(), "{item}");
    }
}

#[test]
fn what_was_said_about_a_dead_link_is_forgotten() {
    let mut state = State::default();
    let root = link(0, 1, None, 100);
    state.apply(0, NOW, LinkSeen::KIND, &seen(&root).to_body().unwrap()).unwrap();
    let target = Target::Link(root.id());
    let said = control(Verb::Revoke, target, 0, NOW).to_body().unwrap();
    state.apply(1, NOW, ControlSeen::KIND, &said).unwrap();
    assert!(state.is_revoked(&target));
    state.advance(NOW + 99);
    assert!(state.is_revoked(&target));
    state.advance(NOW + 100);
    assert!(!state.is_revoked(&target));
}
