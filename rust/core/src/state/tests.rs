//! A state, its snapshot, and the state that comes back from it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod back;
mod told;

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
        attestations: Vec::new(),
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
        attested: Vec::new(),
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

fn answer(decision: Decision) -> Result<Record> {
    let resource = Resource::parse(&decision.resource).unwrap();
    Record::decision(decision, &resource)
}

/// One thing that can happen, as it is written.
fn record(step: (u8, u8, u64), now: u64, index: u64) -> Record {
    let (what, which, number) = step;
    let root = link(0, 1 + which % 3, None, 100 * u64::from(which % 3 + 1));
    let child = link(1 + which % 3, 10 + which, Some(&root), 50);
    let expires = now + 1 + number % 60;
    let made = match what {
        0 => Ok(Record::link(&root)),
        1 => Ok(Record::link(&child)),
        2..=5 => answer(decision(&root, which % 2 == 0, (which % 4, number), expires)),
        6 => answer(decision(&child, true, (which % 4, number), expires)),
        7 => {
            let target = match which % 2 {
                0 => Target::Agent(who(which).id()),
                _ => Target::Link(root.id()),
            };
            let verb = Verb::ALL[usize::try_from(number).unwrap() % 4];
            let nonce = u8::try_from(number % 256).unwrap();
            Record::of(&control(verb, target, nonce, now))
        }
        8 => Record::of(&Unused { decisions: vec![index.saturating_sub(3)] }),
        9 => Ok(Record::new("restored", b"{}".to_vec())),
        _ => Record::of(&Outcome {
            decision: index.saturating_sub(1),
            status: "ok".to_owned(),
            result: None,
            fuel: Some(number),
            detail: None,
            deterministic: false,
        }),
    };
    made.unwrap()
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
            let made = record((what, which, number), now, index);
            let (kind, body) = (made.kind(), made.body());
            if at == cut {
                twin = Some(again(&state));
            }
            let mut next = state.clone();
            let took = next.take(index, now, &made);
            if let Some(twin) = &mut twin {
                let mut after = twin.clone();
                prop_assert_eq!(after.apply(index, now, kind, body).is_ok(), took.is_ok());
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

/// A statement of `signer` about a target.
fn says(signer: u8, verb: Verb, target: Target, nonce: u8) -> Statement {
    let (gate, signer) = (who(99).id(), who(signer).id());
    Statement { verb, target, gate, signer, nonce: [nonce; 16], issued: NOW, expires: NOW + 60 }
}

/// What a gate with the root 0 and the operator 8 says to a statement.
fn standing(state: &State, statement: &Statement) -> Option<Scope> {
    let given = state.standing(statement, &[who(0).id()], &[who(8).id()], NOW);
    given.map_err(|error| assert_eq!(error.reason, Reason::NoStanding)).ok()
}

/// The gate has taken the statement up, in the scope that its signer has.
fn take_up(state: &mut State, index: u64, statement: &Statement) {
    let scope = standing(state, statement).unwrap();
    let signer = (0..=99).map(who).find(|it| it.id() == statement.signer).unwrap();
    let entry = ControlSeen {
        verb: statement.verb.code().to_owned(),
        target: String::new(),
        id: String::new(),
        signer: statement.signer.to_string(),
        scope: scope.code().to_owned(),
        nonce: hex::encode(statement.nonce),
        expires: statement.expires,
        statement: URL_SAFE_NO_PAD.encode(Control::sign(&signer, statement).unwrap()),
    };
    state.apply(index, NOW, ControlSeen::KIND, &entry.to_body().unwrap()).unwrap();
}

fn agent(n: u8) -> Target {
    Target::Agent(who(n).id())
}

/// Root 0 gave to 1, who gave to 2, who gave to 3; and root 0 gave to 4.
fn delegated() -> (State, [Link; 4]) {
    let mut state = State::default();
    let one = link(0, 1, None, 100);
    let two = link(1, 2, Some(&one), 90);
    let three = link(2, 3, Some(&two), 80);
    let four = link(0, 4, None, 100);
    let all = [one, two, three, four];
    for (at, link) in (0..).zip(&all) {
        state.apply(at, NOW, LinkSeen::KIND, &seen(link).to_body().unwrap()).unwrap();
    }
    (state, all)
}

fn token(links: &[&Link]) -> Token {
    Token::from_links(links.iter().copied().cloned().collect()).unwrap()
}

#[test]
fn a_delegator_withdraws_what_is_below_it_and_nothing_else() {
    let (state, [one, two, three, four]) = delegated();
    let (revoke, suspend) = (Verb::Revoke, Verb::Suspend);
    for (signer, verb, target, scope) in [
        (0, revoke, agent(77), Some(Scope::Gate)),
        (8, suspend, agent(77), Some(Scope::Gate)),
        (1, revoke, agent(2), Some(Scope::Given)),
        (1, suspend, agent(3), Some(Scope::Given)),
        (1, revoke, Target::Link(three.id()), Some(Scope::Given)),
        (2, revoke, agent(1), None),
        (2, revoke, Target::Link(one.id()), None),
        (2, suspend, agent(4), None),
        (4, revoke, Target::Link(two.id()), None),
        (4, revoke, Target::Link([9; 32]), None),
        (7, revoke, agent(2), None),
        // Its own key and its own link it gives up, but does not pause.
        (4, revoke, agent(4), Some(Scope::Gate)),
        (4, suspend, agent(4), None),
        (4, revoke, Target::Link(four.id()), Some(Scope::Given)),
        (4, suspend, Target::Link(four.id()), None),
        // A key that the gate never saw spends no line on itself.
        (7, revoke, agent(7), None),
    ] {
        let said = says(signer, verb, target, 1);
        assert_eq!(standing(&state, &said), scope, "{signer} {verb:?} {target:?}");
    }
}

#[test]
fn a_statement_counts_once_and_not_past_its_expiry() {
    let (mut state, _) = delegated();
    let said = says(0, Verb::Revoke, agent(4), 1);
    let at = |state: &State, now| state.standing(&said, &[who(0).id()], &[], now);
    assert_eq!(at(&state, NOW + 59), Ok(Scope::Gate));
    assert_eq!(at(&state, NOW + 60).unwrap_err().reason, Reason::Replayed);
    take_up(&mut state, 4, &said);
    assert_eq!(at(&state, NOW).unwrap_err().reason, Reason::Replayed);
    state.advance(NOW + 59);
    assert_eq!(at(&state, NOW).unwrap_err().reason, Reason::Replayed);
    assert_eq!(standing(&state, &says(0, Verb::Revoke, agent(4), 2)), Some(Scope::Gate));
}

#[test]
fn who_is_withdrawn_from_the_gate_withdraws_nothing_there() {
    for verb in [Verb::Revoke, Verb::Suspend] {
        let (mut state, _) = delegated();
        assert_eq!(standing(&state, &says(1, verb, agent(2), 1)), Some(Scope::Given));
        take_up(&mut state, 4, &says(0, verb, agent(1), 2));
        assert_eq!(standing(&state, &says(1, verb, agent(2), 1)), None);
        let (mut state, _) = delegated();
        take_up(&mut state, 4, &says(1, verb, agent(2), 2));
        assert_eq!(standing(&state, &says(2, verb, agent(3), 1)), Some(Scope::Given));
    }
}

#[test]
fn a_withdrawal_is_lifted_by_who_made_it_or_by_a_root() {
    for (away, back) in [(Verb::Revoke, Verb::Restore), (Verb::Suspend, Verb::Resume)] {
        let (mut state, _) = delegated();
        assert_eq!(standing(&state, &says(0, back, agent(2), 1)), None, "nothing to lift");
        take_up(&mut state, 4, &says(1, away, agent(2), 2));
        for (signer, scope) in
            [(0, Some(Scope::Gate)), (1, Some(Scope::Given)), (2, None), (8, None), (4, None)]
        {
            assert_eq!(standing(&state, &says(signer, back, agent(2), 3)), scope, "{signer}");
        }
        take_up(&mut state, 5, &says(8, away, agent(2), 4));
        take_up(&mut state, 6, &says(1, back, agent(2), 5));
        assert_eq!(standing(&state, &says(1, back, agent(2), 6)), None, "its own is lifted");
        take_up(&mut state, 7, &says(0, back, agent(2), 7));
        assert_eq!(standing(&state, &says(0, back, agent(2), 8)), None, "all are lifted");
        assert!(!state.is_revoked(&agent(2)) && !state.is_suspended(&agent(2)));
    }
    let (mut state, _) = delegated();
    take_up(&mut state, 4, &says(4, Verb::Revoke, agent(4), 1));
    assert_eq!(standing(&state, &says(4, Verb::Restore, agent(4), 2)), None, "who stole it could");
}

#[test]
fn a_withdrawal_reaches_the_chains_below_its_author_and_no_others() {
    for (verb, reason) in [(Verb::Revoke, Reason::Revoked), (Verb::Suspend, Reason::Suspended)] {
        let (mut state, [one, two, three, _]) = delegated();
        let other = link(0, 2, None, 100);
        let long = token(&[&one, &two, &three]);
        let check = |state: &State, token: &Token| {
            state.check_withdrawn(token).map_err(|error| (error.reason, error.link))
        };
        assert_eq!(check(&state, &long), Ok(()));
        take_up(&mut state, 4, &says(1, verb, agent(2), 1));
        assert_eq!(check(&state, &long), Err((reason, Some(1))));
        assert_eq!(check(&state, &token(&[&one])), Ok(()));
        assert_eq!(check(&state, &token(&[&other])), Ok(()), "1 gave nothing there");
        take_up(&mut state, 5, &says(0, verb, agent(2), 2));
        assert_eq!(check(&state, &token(&[&other])), Err((reason, Some(0))));
        let (mut state, _) = delegated();
        take_up(&mut state, 4, &says(0, verb, Target::Link(two.id()), 3));
        assert_eq!(check(&state, &long), Err((reason, Some(1))));
        assert_eq!(check(&state, &token(&[&one])), Ok(()));
    }
}

#[test]
fn what_a_restored_copy_may_have_lost_is_stale() {
    let mut state = State::default();
    assert_eq!(state.check_lost(0), Ok(()));
    state.apply(0, NOW, "restored", b"{}").unwrap();
    assert_eq!(state.check_lost(NOW + 60).unwrap_err().reason, Reason::Stale);
    assert_eq!(state.check_lost(NOW + 61), Ok(()));
}

#[test]
fn an_effect_is_open_until_its_one_outcome() {
    let (mut state, [one, ..]) = delegated();
    let allowed = decision(&one, true, (0, 0), NOW + 60).to_body().unwrap();
    let denied = decision(&one, false, (0, 1), NOW + 60).to_body().unwrap();
    state.apply(4, NOW, Decision::KIND, &allowed).unwrap();
    state.apply(5, NOW, Decision::KIND, &denied).unwrap();
    assert_eq!(state.pending().collect::<Vec<_>>(), [4]);
    let ended = |decision| {
        let (status, result) = ("ok".to_owned(), None);
        Outcome { decision, status, result, fuel: None, detail: None, deterministic: false }
            .to_body()
            .unwrap()
    };
    assert!(state.clone().apply(6, NOW, Outcome::KIND, &ended(5)).is_err());
    state.apply(6, NOW, Outcome::KIND, &ended(4)).unwrap();
    assert_eq!(state.pending().count(), 0);
    assert!(state.apply(7, NOW, Outcome::KIND, &ended(4)).is_err());
    let again = state.apply(8, NOW, Decision::KIND, &allowed);
    assert!(again.is_err(), "one message is decided once");
}

#[test]
fn a_line_that_contradicts_the_log_is_refused() {
    let mut state = State::default();
    let (one, other) = (link(0, 1, None, 100), link(0, 2, None, 100));
    let decided = decision(&one, true, (0, 0), NOW + 60).to_body().unwrap();
    assert!(state.apply(0, NOW, Decision::KIND, &decided).is_err(), "a link not seen");
    let orphan = seen(&link(1, 2, Some(&one), 50)).to_body().unwrap();
    assert!(state.apply(0, NOW, LinkSeen::KIND, &orphan).is_err(), "a parent not seen");
    let wrong = LinkSeen { id: hex::encode(other.id()), ..seen(&one) };
    assert!(state.apply(0, NOW, LinkSeen::KIND, &wrong.to_body().unwrap()).is_err());
    assert!(state.apply(0, NOW, "else", b"{}").is_err());
    assert!(!state.has_seen(&one.id()));
    state.apply(0, NOW, LinkSeen::KIND, &seen(&one).to_body().unwrap()).unwrap();
    assert!(state.has_seen(&one.id()) && !state.has_seen(&other.id()));
}

/// A registration of `who(key)`, in place of `who(previous)`, under one name.
fn registration(key: u8, previous: Option<u8>) -> Registration {
    Registration {
        role: crate::registration::Role::Agent,
        name: "clerk".to_owned(),
        gate: who(99).id(),
        key: who(key).id(),
        previous: previous.map(|key| who(key).id()),
        nonce: [0; 16],
        issued: NOW,
        expires: NOW + 60,
    }
}

#[test]
fn a_registration_hands_on_nothing_that_was_withdrawn() {
    for verb in [Verb::Revoke, Verb::Suspend] {
        let (mut state, _) = delegated();
        assert_eq!(state.check_registration(&registration(4, None)), Ok(()));
        state.registry.apply(&registration(4, None), NOW).unwrap();
        assert_eq!(state.check_registration(&registration(5, Some(4))), Ok(()));
        for withdrawn in [4, 5] {
            let mut state = state.clone();
            take_up(&mut state, 4, &says(0, verb, agent(withdrawn), 1));
            let refused = state.check_registration(&registration(5, Some(4))).unwrap_err();
            assert_eq!(refused.reason, Reason::NoStanding, "{verb:?} {withdrawn}");
        }
    }
}

#[test]
fn a_suspension_of_one_key_is_one_of_the_agent() {
    let (mut state, _) = delegated();
    state.registry.apply(&registration(4, None), NOW).unwrap();
    state.registry.apply(&registration(5, Some(4)), NOW).unwrap();
    let given = link(0, 5, None, 100);
    state.apply(4, NOW, LinkSeen::KIND, &seen(&given).to_body().unwrap()).unwrap();
    for key in [4, 5] {
        let own = says(key, Verb::Revoke, agent(key), 2);
        assert_eq!(standing(&state, &own), Some(Scope::Gate));
    }
    assert!(!state.is_suspended(&agent(4)) && !state.is_suspended(&agent(5)));
    take_up(&mut state, 5, &says(0, Verb::Suspend, agent(5), 1));
    assert!(state.is_suspended(&agent(4)) && state.is_suspended(&agent(5)));
    assert!(!state.is_suspended(&agent(2)));
    for key in [4, 5] {
        let own = says(key, Verb::Revoke, agent(key), 2);
        assert_eq!(standing(&state, &own), None, "nor does another key of it have standing");
    }
    for link in [link(0, 4, None, 100), given] {
        let reached = state.check_withdrawn(&token(&[&link]));
        assert_eq!(reached.unwrap_err().reason, Reason::Suspended);
    }
}

#[test]
fn time_only_goes_forward_and_the_last_rules_are_told() {
    let mut state = State::default();
    assert_eq!((state.advance(NOW), state.time()), (NOW, NOW));
    assert_eq!((state.advance(NOW - 1), state.time()), (NOW, NOW));
    assert!(state.rules().is_none());
    let rules = Rules {
        policy: "chain_only".to_owned(),
        roots: vec![who(0).id().to_string()],
        operators: Vec::new(),
        monitor: Vec::new(),
    };
    state.apply(0, NOW, Rules::KIND, &rules.to_body().unwrap()).unwrap();
    assert_eq!(state.rules(), Some(&rules));
}

#[test]
fn a_decision_counts_once_for_each_agent_of_its_chain() {
    let (mut state, _) = delegated();
    state.registry.apply(&registration(2, None), NOW).unwrap();
    let holders = [1, 2, 3, 2].map(|n| who(n).id());
    let counted = state.subjects(holders.iter());
    let counted: Vec<_> = counted.into_iter().map(|it| (it.agent, it.lasting)).collect();
    let expected = [(1, true), (2, true), (3, false)].map(|(n, lasting)| (who(n).id(), lasting));
    assert_eq!(counted, expected, "the first and the registered are remembered for good");
}

#[test]
fn what_is_withdrawn_is_withdrawn_in_the_state_that_comes_back() {
    let (mut state, [one, two, ..]) = delegated();
    take_up(&mut state, 4, &says(1, Verb::Suspend, agent(2), 1));
    take_up(&mut state, 5, &says(0, Verb::Revoke, Target::Link(one.id()), 2));
    let state = again(&state);
    assert!(state.is_suspended(&agent(2)) && state.is_revoked(&Target::Link(one.id())));
    assert!(state.check_withdrawn(&token(&[&one, &two])).is_err());
    assert_eq!(standing(&state, &says(1, Verb::Resume, agent(2), 3)), Some(Scope::Given));
}
