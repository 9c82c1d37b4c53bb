//! What a gate asks of a message where links require attestations, over a real state.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::super::tests::{NOW, blind, chain, grant, guard, sealed, terms, who};
use super::super::{Ruling, Verified};
use super::*;
use crate::attest::{Draft, Predicate, Subject};
use crate::caveat::{Args, Terms};
use crate::control::Target;
use crate::entry::{Decision, Entry};
use crate::token::Token;

const CODE: Hash256 = [7; 32];

fn required(kind: Kind, keys: &[u8], threshold: u64) -> Requirement {
    let keys = keys.iter().map(|n| who(*n).id()).collect();
    Requirement::new(kind, Predicate::Manifest, keys, threshold, 100).unwrap()
}

fn link(attestations: Vec<Requirement>) -> Terms {
    let allow = ["code", "tool", "mcp", "skill", "db"]
        .map(|scheme| grant(&format!("{scheme}://x"), &["use"], Args::Any));
    Terms { attestations, ..terms(allow.to_vec(), vec![]) }
}

fn attestation(subject: Subject<'_>, by: &[u8], issued: u64) -> Attestation {
    let payload = Draft { name: "x", subject, issued }.to_payload().unwrap();
    let signers: Vec<_> = by.iter().map(|n| who(*n)).collect();
    Attestation::sign(&payload, &signers.iter().collect::<Vec<_>>()).unwrap()
}

fn take(state: &mut State, attestation: &Attestation) -> Result<()> {
    let record = guard().rule_attestation(attestation, state, NOW)?;
    state.apply(0, NOW, record.kind(), record.body())
}

fn holding(subject: Subject<'_>, by: &[u8]) -> State {
    let mut state = State::default();
    take(&mut state, &attestation(subject, by, NOW)).unwrap();
    state
}

fn verified(token: &Token, scheme: &str, code: Option<Hash256>) -> Verified {
    let wire = sealed(token, "use", &format!("{scheme}://x"), b"{}", code);
    blind().verify(&wire, NOW).unwrap()
}

fn ask(token: &Token, scheme: &str, code: Option<Hash256>, state: &State) -> Result<()> {
    match blind().rule(&verified(token, scheme, code), state, NOW) {
        Ruling::Logged(lines, verdict, _) => {
            let said = lines.iter().find(|line| line.kind() == Decision::KIND).unwrap();
            let decision = Decision::from_body(said.body()).unwrap();
            assert!(verdict.is_ok() || decision.attested.is_empty());
            verdict
        }
        Ruling::Counted(error) => Err(error),
    }
}

fn refused(answer: Result<()>) -> (Reason, Option<Axis>, Option<usize>) {
    let error = answer.unwrap_err();
    (error.reason, error.axis, error.link)
}

const fn not_attested(link: usize) -> (Reason, Option<Axis>, Option<usize>) {
    (Reason::NotAttested, Some(Axis::Attestations), Some(link))
}

#[test]
fn code_that_nobody_vouched_for_does_not_start() {
    let token = chain(vec![link(vec![required(Kind::Code, &[50, 51], 1)])]);
    let state = holding(Subject::Code(CODE), &[50]);
    assert_eq!(ask(&token, "code", Some(CODE), &state), Ok(()));
    assert_eq!(refused(ask(&token, "code", Some([8; 32]), &state)), not_attested(0));
    assert_eq!(refused(ask(&token, "code", None, &state)), not_attested(0));
    assert_eq!(refused(ask(&token, "code", Some(CODE), &State::default())), not_attested(0));
    // Elsewhere, no digest is no code; the permit then starts none.
    assert_eq!(ask(&token, "db", None, &state), Ok(()));
    assert!(verified(&token, "db", None).check_code_named().is_err());
    assert_eq!(verified(&token, "db", Some(CODE)).check_code_named(), Ok(()));
    assert_eq!(refused(ask(&token, "db", Some([8; 32]), &state)), not_attested(0));
    let free = chain(vec![link(vec![])]);
    assert_eq!(ask(&free, "code", None, &State::default()), Ok(()));
    assert_eq!(verified(&free, "db", None).check_code_named(), Ok(()));
}

#[test]
fn every_link_is_asked_whether_or_not_links_are_compared() {
    let (one, two) = (required(Kind::Code, &[50], 1), required(Kind::Code, &[51], 1));
    let state = holding(Subject::Code(CODE), &[51]);
    // The comparison of links is off in these gates: a child that drops what its parent requires
    // gains nothing by it.
    for dropped in [vec![], vec![two.clone()]] {
        let token = chain(vec![link(vec![one.clone()]), link(dropped)]);
        assert_eq!(refused(ask(&token, "code", Some(CODE), &state)), not_attested(0));
    }
    let token = chain(vec![link(vec![two]), link(vec![one])]);
    assert_eq!(refused(ask(&token, "code", Some(CODE), &state)), not_attested(1));
    assert_eq!(ask(&token, "code", Some(CODE), &holding(Subject::Code(CODE), &[50, 51])), Ok(()));
}

#[test]
fn a_decision_names_the_statements_it_rests_on() {
    let token = chain(vec![link(vec![required(Kind::Code, &[50, 51], 2)])]);
    let mut state = State::default();
    let all = [50, 51].map(|n| attestation(Subject::Code(CODE), &[n], NOW - u64::from(n)));
    for one in &all {
        assert_eq!(refused(ask(&token, "code", Some(CODE), &state)), not_attested(0));
        take(&mut state, one).unwrap();
    }
    let Ruling::Logged(lines, Ok(()), _) =
        blind().rule(&verified(&token, "code", Some(CODE)), &state, NOW)
    else {
        unreachable!("two keys vouch for it, each in a statement of its own")
    };
    let decision = Decision::from_body(lines.last().unwrap().body()).unwrap();
    let mut statements = all.map(|one| hex::encode(one.statement()));
    statements.sort_unstable();
    assert_eq!(decision.attested, statements);
}

#[test]
fn a_statement_about_one_kind_vouches_for_no_other() {
    let files = std::collections::BTreeMap::from([("a".to_owned(), [1; 32])]);
    let skill = crate::attest::skill_digest(&files).unwrap();
    for (kind, scheme) in [(Kind::Skill, "skill"), (Kind::Tool, "tool"), (Kind::Tool, "mcp")] {
        let token = chain(vec![link(vec![required(kind, &[50], 1)])]);
        let as_code = holding(Subject::Code(CODE), &[50]);
        assert_eq!(refused(ask(&token, scheme, Some(CODE), &as_code)), not_attested(0));
        assert_eq!(refused(ask(&token, scheme, None, &as_code)), not_attested(0));
        let (digest, state) = match kind {
            Kind::Skill => (skill, holding(Subject::Skill(&files), &[50])),
            _ => (CODE, holding(Subject::Tool(CODE), &[50])),
        };
        assert_eq!(ask(&token, scheme, Some(digest), &state), Ok(()));
        // What is required of skills and tools is not required of code.
        assert_eq!(ask(&token, "code", Some([9; 32]), &State::default()), Ok(()));
        let code = chain(vec![link(vec![required(Kind::Code, &[50], 1)])]);
        assert_eq!(refused(ask(&code, "code", Some(digest), &state)), not_attested(0));
    }
    // Where both are required, a digest of a description starts no code.
    let both = vec![required(Kind::Code, &[50], 1), required(Kind::Tool, &[50], 1)];
    let both = chain(vec![link(both)]);
    let state = holding(Subject::Tool(CODE), &[50]);
    assert_eq!(ask(&both, "tool", Some(CODE), &state), Ok(()));
    assert!(verified(&both, "tool", Some(CODE)).check_code_named().is_err());
}

#[test]
fn the_word_of_a_revoked_signer_does_not_count_until_it_is_restored() {
    let token = chain(vec![link(vec![required(Kind::Code, &[50], 1)])]);
    let mut state = holding(Subject::Code(CODE), &[50]);
    let say = |state: &mut State, verb, nonce| {
        let statement = crate::control::Statement {
            verb,
            target: Target::Agent(who(50).id()),
            gate: who(99).id(),
            signer: who(0).id(),
            nonce: [nonce; 16],
            issued: NOW,
            expires: NOW + 60,
        };
        let signed = crate::control::Control::sign(&who(0), &statement).unwrap();
        let genuine = guard().verify_control(&signed, NOW).unwrap();
        let line = guard().rule_control(&genuine, state, NOW).unwrap();
        state.apply(0, NOW, line.kind(), line.body()).unwrap();
    };
    use crate::control::Verb::{Restore, Resume, Revoke, Suspend};
    for (nonce, (away, back)) in (0..).step_by(2).zip([(Revoke, Restore), (Suspend, Resume)]) {
        say(&mut state, away, nonce);
        assert_eq!(refused(ask(&token, "code", Some(CODE), &state)), not_attested(0));
        say(&mut state, back, nonce + 1);
        assert_eq!(ask(&token, "code", Some(CODE), &state), Ok(()));
    }
}

#[test]
fn only_news_is_taken_up_and_the_newest_word_stands() {
    let mut state = State::default();
    let old = attestation(Subject::Code(CODE), &[50], NOW - 50);
    let new = attestation(Subject::Code(CODE), &[50], NOW);
    take(&mut state, &old).unwrap();
    assert_eq!(take(&mut state, &old).unwrap_err().reason, Reason::Replayed);
    take(&mut state, &new).unwrap();
    assert_eq!(take(&mut state, &old).unwrap_err().reason, Reason::Replayed);
    take(&mut state, &attestation(Subject::Code(CODE), &[50, 51], NOW - 50)).unwrap();
    let word = |n| state.vouched(&CODE, Kind::Code, Predicate::Manifest, &who(n).id()).unwrap();
    assert_eq!(word(50).statement, new.statement());
    assert_eq!(word(51).issued, NOW - 50);
    let later = attestation(Subject::Code(CODE), &[50], NOW + 61);
    assert_eq!(take(&mut state, &later).unwrap_err().reason, Reason::Stale);
    let mut again = State::default();
    let items = state.snapshot().unwrap();
    items.iter().for_each(|item| again.restore(item).unwrap());
    assert_eq!(again.snapshot().unwrap(), items);
    assert_eq!(items.iter().filter(|item| item.starts_with(b"{\"is\":\"word\"")).count(), 2);
}

#[test]
fn a_line_that_says_otherwise_than_its_envelope_is_not_folded() {
    let made = attestation(Subject::Code(CODE), &[50], NOW);
    let honest = Attested::of(&made);
    assert_eq!(honest.attestation().unwrap(), made);
    let with = |change: fn(&mut Attested)| {
        let mut line = honest.clone();
        change(&mut line);
        line.attestation().is_err()
    };
    assert!(with(|line| line.issued += 1));
    assert!(with(|line| line.subject = "tool".to_owned()));
    assert!(with(|line| line.predicate = Predicate::Provenance.uri().to_owned()));
    assert!(with(|line| line.statement = hex::encode([0; 32])));
    assert!(with(|line| line.envelope.push('A')));
    assert!(with(|line| line.signers.push("did:key:z".to_owned())));
}

#[test]
fn there_is_room_for_so_many_words_and_the_oldest_make_room() {
    let mut state = State::default();
    let digest = |n: usize| crate::key::sha256(&n.to_le_bytes());
    let many = |from: usize, size: usize, issued: u64| {
        let subjects: Vec<_> = (from..from + size)
            .map(|n| serde_json::json!({ "digest": { "sha256": hex::encode(digest(n)) } }))
            .collect();
        let statement = serde_json::json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": Predicate::Manifest.uri(),
            "predicate": { "kind": "code", "issued": issued },
        });
        Attestation::sign(statement.to_string().as_bytes(), &[&who(50)]).unwrap()
    };
    let known = |state: &State, n: usize| {
        state.vouched(&digest(n), Kind::Code, Predicate::Manifest, &who(50).id()).is_some()
    };
    for step in 0..50 {
        take(&mut state, &many(step * 200, 200, NOW - 50 + step as u64)).unwrap();
    }
    assert!((0..10_000).all(|n| known(&state, n)));
    take(&mut state, &many(10_000, 3, NOW)).unwrap();
    assert_eq!((0..10_003).filter(|n| !known(&state, *n)).count(), 3);
    assert!((200..10_003).all(|n| known(&state, n)));
    assert_eq!(state.snapshot().unwrap().len(), 1 + limits::VOUCHED);
}
