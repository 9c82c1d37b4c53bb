//! The gate end to end, without a disk: chains made by hand, wider ones among them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::caveat::{Actions, Args, Caveats, Denial, Grant, Terms};
use crate::control::{Statement, Verb};
use crate::entry::{ControlSeen, Entry, LinkSeen, Registered};
use crate::key::Identity;
use crate::message::Body;
use crate::pattern::{Pattern, Resource};
use crate::registration::{Registration, Role};
use crate::token::{Claims, Link};

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn who(n: u8) -> Identity {
    Identity::from_seed("agent", &[n; 32]).unwrap()
}

pub(super) fn terms(allow: Vec<Grant>, deny: Vec<Denial>) -> Terms {
    Terms {
        allow,
        deny,
        limits: Limits { fuel: 10, ..Limits::default() },
        not_before: NOW,
        expires: NOW + 1000,
        depth: 15,
        audience: None,
        attestations: Vec::new(),
    }
}

pub(super) fn grant(resource: &str, actions: &[&str], args: Args) -> Grant {
    let actions = Actions::new(actions.iter().map(ToString::to_string)).unwrap();
    Grant { resource: Pattern::parse(resource).unwrap(), actions, args }
}

/// A chain from `who(0)` over `who(1)`, `who(2)` …, correctly signed, whatever it says.
pub(super) fn chain(all: Vec<Terms>) -> Token {
    let mut links: Vec<Link> = Vec::new();
    for (at, terms) in (0_u8..).zip(all) {
        let claims = Claims {
            issuer: who(at).id(),
            holder: who(at + 1).id(),
            issued: NOW,
            nonce: [at; 16],
            parent: links.last().map(Link::id),
            index: u64::from(at),
            caveats: Caveats::new(terms).unwrap(),
        };
        links.push(Link::sign(&who(at), claims).unwrap());
    }
    Token::from_links(links).unwrap()
}

fn seal(token: &Token, action: &str, resource: &str, args: &[u8]) -> Vec<u8> {
    sealed(token, action, resource, args, None)
}

/// The same, with the digest of what is to run.
pub(super) fn sealed(
    token: &Token,
    action: &str,
    resource: &str,
    args: &[u8],
    code: Option<Hash256>,
) -> Vec<u8> {
    let sender = who(u8::try_from(token.links().len()).unwrap());
    let body = Body {
        token: sha256(token.as_bytes()),
        gate: who(99).id(),
        recipient: who(99).id(),
        action: action.to_owned(),
        resource: Resource::parse(resource).unwrap(),
        args: args.to_vec(),
        payload: Vec::new(),
        payload_digest: sha256(b""),
        code,
        policy: Policy::CHAIN_ONLY.hash(),
        stream: [7; 16],
        number: 0,
        issued: NOW,
        expires: NOW + 60,
        causes: Vec::new(),
        labels: Vec::new(),
    };
    Message::seal(&sender, token.as_bytes(), &body).unwrap()
}

pub(super) fn guard() -> Guard {
    let setup = Setup {
        gate: who(99).id(),
        roots: vec![who(0).id()],
        operators: Vec::new(),
        policy: Policy::CHAIN_ONLY,
        monitor: monitor::Rules::default(),
    };
    Guard::new(setup)
}

/// A guard whose comparison of links always says yes.
pub(super) fn blind() -> Guard {
    Guard { narrowing: |_| Ok(()), ..guard() }
}

fn rule(guard: &Guard, wire: &[u8]) -> Result<()> {
    let verified = guard.verify(wire, NOW)?;
    match guard.rule(&verified, &State::default(), NOW) {
        Ruling::Logged(_, verdict, _) => verdict,
        Ruling::Counted(error) => Err(error),
    }
}

const RESOURCES: [&str; 6] =
    ["tool://a/x", "tool://a/y", "tool://a/x/z", "tool://b/x", "tool://a", "tool://b"];
const PATTERNS: [&str; 8] = [
    "tool://a/**",
    "tool://a/*",
    "tool://a/x",
    "tool://b/**",
    "tool://*/**",
    "tool://*/x",
    "tool://a/x/**",
    "tool://b",
];

fn some_grant() -> impl Strategy<Value = Grant> {
    let actions = prop_oneof![Just(vec!["call"]), Just(vec!["read"]), Just(vec!["*"])];
    let args = prop_oneof![Just(Args::Any), Just(Args::Empty)];
    (0..PATTERNS.len(), actions, args)
        .prop_map(|(at, actions, args)| grant(PATTERNS[at], &actions, args))
}

fn some_chain() -> impl Strategy<Value = Vec<Terms>> {
    let denial = some_grant().prop_map(|g| Denial { resource: g.resource, actions: g.actions });
    let link = (prop::collection::vec(some_grant(), 0..4), prop::collection::vec(denial, 0..2));
    prop::collection::vec(link.prop_map(|(allow, deny)| terms(allow, deny)), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The comparison of links is broken on purpose, and still nothing outside any ancestor's
    /// grants is allowed: authority is the conjunction of every link.
    #[test]
    fn a_blind_comparison_widens_nothing(
        all in some_chain(), at in 0..RESOURCES.len(), args in prop_oneof![Just("{}"), Just("{\"q\":1}")],
    ) {
        let token = chain(all.clone());
        let wire = seal(&token, "call", RESOURCES[at], args.as_bytes());
        let resource = Resource::parse(RESOURCES[at]).unwrap();
        let hits = |p: &Pattern, a: &Actions| {
            p.matches(&resource) && a.iter().any(|name| name == "call" || name == "*")
        };
        let expected = all.iter().all(|link| {
            link.allow.iter().any(|g| {
                hits(&g.resource, &g.actions) && (g.args == Args::Any || args == "{}")
            }) && !link.deny.iter().any(|d| hits(&d.resource, &d.actions))
        });
        prop_assert_eq!(rule(&blind(), &wire).is_ok(), expected);
        if rule(&guard(), &wire).is_ok() {
            prop_assert!(expected, "the whole gate allows no more than the blind one");
        }
    }

    /// The meet of limits never exceeds any link's, compared or not.
    #[test]
    fn limits_meet_whatever_the_links_say(fuels in prop::collection::vec(0_u64..100, 1..5)) {
        let all = fuels.iter().map(|fuel| {
            let limits = Limits { fuel: *fuel, ..Limits::default() };
            Terms { limits, ..terms(vec![grant("tool://a", &["call"], Args::Any)], vec![]) }
        });
        let token = chain(all.collect());
        let verified = blind().verify(&seal(&token, "call", "tool://a", b"{}"), NOW).unwrap();
        prop_assert_eq!(verified.chain().limits().fuel, *fuels.iter().min().unwrap());
    }
}

#[test]
fn a_chain_is_walked_once_and_its_times_are_asked_each_time() {
    let token = chain(vec![terms(vec![grant("tool://a", &["call"], Args::Any)], vec![])]);
    let (guard, wire) = (guard(), seal(&token, "call", "tool://a", b"{}"));
    assert_eq!(rule(&guard, &wire), Ok(()));
    assert!(guard.cache.get(&sha256(token.as_bytes())).is_some());
    assert_eq!(guard.verify(&wire, NOW + 60).unwrap_err().reason, Reason::Stale);
    assert_eq!(guard.verify(&wire, NOW - 61).unwrap_err().reason, Reason::Stale);
}

#[test]
fn a_chain_that_fails_is_not_remembered() {
    let token = chain(vec![terms(vec![], vec![])]);
    let mut wire = seal(&token, "call", "tool://a", b"{}");
    let last = wire.len() - 1;
    wire[last] ^= 1;
    let guard = guard();
    assert_eq!(guard.verify(&wire, NOW).unwrap_err().reason, Reason::BadSignature);
    assert!(guard.cache.get(&sha256(token.as_bytes())).is_none());
}

#[test]
fn a_clock_behind_the_log_denies_and_never_revives_what_is_stale() {
    let token = chain(vec![terms(vec![grant("tool://a", &["call"], Args::Any)], vec![])]);
    let (guard, wire) = (guard(), seal(&token, "call", "tool://a", b"{}"));
    let mut state = State::default();
    let summary = crate::entry::Summary { since: NOW, counts: Default::default() };
    state.apply(0, NOW + 60, "summary", &summary.to_body().unwrap()).unwrap();
    let verified = guard.verify(&wire, NOW).unwrap();
    let Ruling::Counted(error) = guard.rule(&verified, &state, NOW) else { unreachable!() };
    assert_eq!(error.reason, Reason::Stale, "the log's time counts within the skew");
    state.apply(1, NOW + 61, "summary", &summary.to_body().unwrap()).unwrap();
    let Ruling::Counted(error) = guard.rule(&verified, &state, NOW) else { unreachable!() };
    assert_eq!(error.reason, Reason::ClockBehind);
}

/// A good message, its guard, and what the guard verified.
fn verified() -> (Guard, Verified) {
    let token = chain(vec![terms(vec![grant("tool://a", &["call"], Args::Any)], vec![])]);
    let guard = guard();
    let verified = guard.verify(&seal(&token, "call", "tool://a", b"{}"), NOW).unwrap();
    (guard, verified)
}

#[test]
fn a_message_that_counts_on_another_policy_is_refused() {
    let token = chain(vec![terms(vec![grant("tool://a", &["call"], Args::Any)], vec![])]);
    let wire = seal(&token, "call", "tool://a", b"{}");
    let other = Guard { policy_hash: [1; 32], ..guard() };
    assert_eq!(rule(&other, &wire).unwrap_err().reason, Reason::PolicyMismatch);
    assert_eq!(rule(&guard(), &wire), Ok(()));
}

#[test]
fn the_log_gets_the_decision_and_the_links_that_it_does_not_have() {
    let (guard, verified) = verified();
    let mut state = State::default();
    let Ruling::Logged(lines, Ok(()), _) = guard.rule(&verified, &state, NOW) else {
        unreachable!()
    };
    let kinds: Vec<_> = lines.iter().map(Record::kind).collect();
    assert_eq!(kinds, [LinkSeen::KIND, Decision::KIND]);
    let made = Decision::from_body(lines[1].body()).unwrap();
    assert!(made.allow);
    assert_eq!(made.recipient, "gate");
    state.take(0, NOW, &lines[0]).unwrap();
    let Ruling::Logged(again, Ok(()), _) = guard.rule(&verified, &state, NOW) else {
        unreachable!()
    };
    assert_eq!(again, lines[1..]);
    state.take(1, NOW, &lines[1]).unwrap();
    let Ruling::Counted(error) = guard.rule(&verified, &state, NOW) else { unreachable!() };
    assert_eq!(error.reason, Reason::Replayed);
}

#[test]
fn the_second_that_counts_is_the_later_one_within_the_skew() {
    let mut state = State::default();
    state.advance(NOW);
    assert_eq!(effective(&state, NOW + 1), Ok(NOW + 1));
    assert_eq!(effective(&state, NOW - 60), Ok(NOW));
    assert_eq!(effective(&state, NOW - 61).unwrap_err().reason, Reason::ClockBehind);
}

#[test]
fn a_full_generation_makes_room_and_what_is_used_stays() {
    let (guard, verified) = verified();
    let chain = verified.chain();
    let key = |n: usize| sha256(&n.to_be_bytes());
    let cache = Cache::default();
    (0..1024).for_each(|n| cache.put(key(n), Arc::clone(chain), 1));
    cache.put(key(1024), Arc::clone(chain), 1);
    assert!(cache.get(&key(0)).is_some(), "of the old generation, and young again");
    (2000..3023).for_each(|n| cache.put(key(n), Arc::clone(chain), 1));
    assert!(cache.get(&key(0)).is_some());
    assert!(cache.get(&key(1)).is_none(), "two generations ago");
    let (half, large) = (4 * 1024 * 1024, Cache::default());
    (0..4).for_each(|n| large.put(key(n), Arc::clone(chain), half));
    large.put(key(4), Arc::clone(chain), 1);
    assert!(large.get(&key(0)).is_none() && large.get(&key(1)).is_none());
    assert!(large.get(&key(2)).is_some() && large.get(&key(4)).is_some());
    drop(guard);
}

#[test]
fn bytes_make_room_too_once_they_are_more_than_a_generation_holds() {
    let (cache, key) = (Cache::default(), |n: usize| sha256(&n.to_be_bytes()));
    let (_, verified) = verified();
    for (n, size) in [4 << 20, 4 << 20, 1, 8 << 20].into_iter().enumerate() {
        cache.put(key(n), Arc::clone(verified.chain()), size);
    }
    assert!(cache.get(&key(0)).is_none() && cache.get(&key(1)).is_none(), "they filled one");
    assert!(cache.get(&key(2)).is_some(), "the next one's, and already old");
}

#[test]
fn a_control_statement_for_this_gate_and_in_its_time_becomes_a_line() {
    let (target, signer) = (Target::Agent(who(5).id()), who(0).id());
    let (gate, verb) = (who(99).id(), Verb::Revoke);
    let said =
        Statement { verb, target, gate, signer, nonce: [1; 16], issued: NOW, expires: NOW + 60 };
    let (guard, mut state) = (guard(), State::default());
    let bytes = Control::sign(&who(0), &said).unwrap();
    let genuine = guard.verify_control(&bytes, NOW).unwrap();
    let line = guard.rule_control(&genuine, &state, NOW).unwrap();
    let entry = ControlSeen::from_body(line.body()).unwrap();
    assert_eq!((line.kind(), entry.scope.as_str()), (ControlSeen::KIND, "gate"));
    assert_eq!(entry.statement, URL_SAFE_NO_PAD.encode(&bytes));

    let refused = |bytes: &[u8], now| guard.verify_control(bytes, now).unwrap_err().reason;
    let elsewhere = Statement { gate: who(98).id(), ..said };
    let elsewhere = Control::sign(&who(0), &elsewhere).unwrap();
    assert_eq!(refused(&elsewhere, NOW), Reason::WrongGate);
    assert_eq!(refused(&bytes, NOW + 60), Reason::Stale);
    let mut forged = bytes;
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&forged, NOW), Reason::BadSignature);
    state.advance(NOW + 60);
    let late = guard.rule_control(&genuine, &state, NOW).unwrap_err();
    assert_eq!(late.reason, Reason::Stale, "the log's time counts");
}

#[test]
fn a_control_statement_is_bounded_before_it_is_read() {
    let reason = |size| Control::decode(&vec![0; size]).unwrap_err().reason;
    assert_eq!((reason(1024), reason(1025)), (Reason::Malformed, Reason::TooLarge));
}

#[test]
fn a_registration_becomes_the_line_that_says_it() {
    let it = Registration {
        role: Role::Agent,
        name: "clerk".to_owned(),
        gate: who(99).id(),
        key: who(5).id(),
        previous: None,
        nonce: [1; 16],
        issued: NOW,
        expires: NOW + 60,
    };
    let bytes = Proof::sign(&it, &who(5), None).unwrap();
    let genuine = guard().verify_registration(&bytes, NOW).unwrap();
    let line = guard().rule_registration(&genuine, &State::default(), NOW).unwrap();
    let entry = Registered::from_body(line.body()).unwrap();
    assert_eq!((line.kind(), entry.registration()), (Registered::KIND, Ok(it)));
    let reason = |size| Proof::decode(&vec![0; size]).unwrap_err().reason;
    assert_eq!((reason(2048), reason(2049)), (Reason::Malformed, Reason::TooLarge));
}
