//! A gate over a log: what its permits and watches leave behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_core::Reason;
use moat_core::audit::Line;
use moat_core::caveat::{Actions, Args, Caveats, Grant, Limits, Terms};
use moat_core::control::{Control, Statement, Target, Verb};
use moat_core::key::{Identity, sha256};
use moat_core::limits::PERMIT_REQUESTS;
use moat_core::message::{Body, Message};
use moat_core::monitor::Rules;
use moat_core::pattern::{Pattern, Resource};
use moat_core::policy::Policy;
use moat_core::token::{Stamp, Token};
use moat_log::{Asked, Decision, End, Gate, LogError, SEGMENT_BYTES, lines};

const NOW: u64 = 1_800_000_000;

fn who(n: u8) -> Identity {
    Identity::from_seed("agent", &[n; 32]).unwrap()
}

/// A gate that trusts `who(0)`, whose key is `who(99)`, and a token of `who(1)` for it.
struct Place {
    folder: tempfile::TempDir,
    gate: Gate,
    token: Token,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gate =
            Gate::open(&folder.path().join("log"), &who(99), None, false, SEGMENT_BYTES, NOW);
        let gate = gate.unwrap();
        let roots = vec![who(0).id()];
        gate.arm(Policy::CHAIN_ONLY, roots, Vec::new(), Rules::default(), NOW).unwrap();
        let actions = Actions::new(["call".to_owned()]).unwrap();
        let resource = Pattern::parse("tool://a/**").unwrap();
        let terms = Terms {
            allow: vec![Grant { resource, actions, args: Args::Any }],
            deny: Vec::new(),
            limits: Limits::default(),
            not_before: NOW,
            expires: NOW + 1000,
            depth: 3,
            audience: None,
            attestations: Vec::new(),
        };
        let stamp = Stamp { holder: who(1).id(), now: NOW, nonce: [1; 16] };
        let token = Token::issue(&who(0), stamp, Caveats::new(terms).unwrap()).unwrap();
        Self { folder, gate, token }
    }

    /// What the gate says to the message with this number.
    fn ask(&self, number: u64) -> Decision {
        self.gate.decide(&self.message(number), NOW)
    }

    fn message(&self, number: u64) -> Vec<u8> {
        let body = Body {
            token: sha256(self.token.as_bytes()),
            gate: who(99).id(),
            recipient: who(99).id(),
            action: "call".to_owned(),
            resource: Resource::parse("tool://a/x").unwrap(),
            args: b"{}".to_vec(),
            payload: Vec::new(),
            payload_digest: sha256(b""),
            code: None,
            policy: Policy::CHAIN_ONLY.hash(),
            stream: [7; 16],
            number,
            issued: NOW,
            expires: NOW + 60,
            causes: Vec::new(),
            labels: Vec::new(),
        };
        Message::seal(&who(1), self.token.as_bytes(), &body).unwrap()
    }

    /// Has the gate do this about more than one message in a minute.
    fn watch_rate(&self, then: &str) {
        let rule = r#"[{"name":"r","rate":{"limit":1,"window":60},"then":"?"}]"#.replace('?', then);
        let rules = Rules::from_json(rule.as_bytes()).unwrap();
        self.gate.arm(Policy::CHAIN_ONLY, vec![who(0).id()], Vec::new(), rules, NOW).unwrap();
    }

    /// The kind and the body of the line with this index.
    fn line(&self, index: u64) -> (String, String) {
        let bytes = self.gate.read(index).unwrap();
        let line = Line::parse(&bytes).unwrap();
        (line.kind.to_owned(), String::from_utf8(line.body.to_vec()).unwrap())
    }

    /// The bodies of the log's lines of a kind.
    fn bodies(&self, kind: &str) -> Vec<String> {
        let all = lines(&self.folder.path().join("log"), 0).unwrap().map(Result::unwrap);
        let body = |bytes: Vec<u8>| {
            let line = Line::parse(&bytes).unwrap();
            (line.kind == kind).then(|| String::from_utf8(line.body.to_vec()).unwrap())
        };
        all.filter_map(body).collect()
    }
}

/// What takes trust away from `who(1)`.
fn revocation() -> Vec<u8> {
    let (signer, target) = (who(0).id(), Target::Agent(who(1).id()));
    let (gate, verb) = (who(99).id(), Verb::Revoke);
    let said =
        Statement { verb, target, gate, signer, nonce: [2; 16], issued: NOW, expires: NOW + 60 };
    Control::sign(&who(0), &said).unwrap()
}

fn end() -> End {
    End { status: "ok".to_owned(), result: None, fuel: None, detail: None, deterministic: false }
}

#[test]
fn a_watch_is_told_of_a_withdrawal_until_it_is_dropped() {
    let place = Place::new();
    let permits: Vec<_> = (0..2).map(|n| place.ask(n).permit.unwrap()).collect();
    let told = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let count = |n: usize| {
        let told = Arc::clone(&told[n]);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (over, _under_way) = (permits[0].watch(count(0)), permits[1].watch(count(1)));
    drop(over);
    place.gate.control(&revocation(), NOW).unwrap().unwrap();
    assert_eq!(told.map(|told| told.load(Ordering::SeqCst)), [0, 1]);
}

/// It is told in the gate's own call: what unwinds there is the gate's fault too.
#[test]
fn an_effect_that_cannot_be_told_to_stop_ends_the_gate_and_the_others_are_told() {
    let place = Place::new();
    let permits: Vec<_> = (0..3).map(|number| place.ask(number).permit.unwrap()).collect();
    let told = Arc::new(AtomicU64::new(0));
    let count = || {
        let told = Arc::clone(&told);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
        }
    };
    let _first = permits[0].watch(count());
    let _broken = permits[1].watch(|| panic!("it cannot stop"));
    let _last = permits[2].watch(count());
    let said = place.gate.control(&revocation(), NOW);
    assert!(matches!(said, Err(LogError::Unavailable { .. })), "{said:?}");
    assert_eq!(told.load(Ordering::SeqCst), 2);
    assert_eq!(place.ask(9).error.unwrap().reason, Reason::LogUnavailable);
    assert!(matches!(place.gate.attest(b"", &[], NOW), Err(LogError::Unavailable { .. })));
}

#[test]
fn each_watch_of_a_permit_is_told() {
    let place = Place::new();
    let permit = place.ask(0).permit.unwrap();
    permit.open(NOW).unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let tell = || {
        let told = Arc::clone(&told);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (first, second) = (permit.watch(tell()), permit.watch(tell()));
    drop(permit.watch(tell()));
    place.gate.control(&revocation(), NOW).unwrap().unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 2);
    drop((first, second));
}

#[test]
fn a_rule_that_suspends_stops_what_runs_and_others_do_not() {
    for (then, stops) in [("alert", 0), ("throttle", 0), ("suspend", 1)] {
        let place = Place::new();
        place.watch_rate(then);
        let permit = place.ask(0).permit.unwrap();
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        let _under_way = permit.watch(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(place.ask(1).alerts.len(), 1);
        assert_eq!(told.load(Ordering::SeqCst), stops, "{then}");
    }
}

#[test]
fn the_index_of_an_answer_is_that_of_its_line() {
    let place = Place::new();
    place.watch_rate("alert");
    // The first comes after the line of its link, the second before that of its alert.
    for (number, alerts) in [(0, 0), (1, 1), (2, 0)] {
        let answer = place.ask(number);
        assert_eq!(answer.alerts.len(), alerts);
        let (kind, body) = place.line(answer.entry.unwrap());
        let wanted = format!("\"number\":{number},");
        assert!(kind == "decision" && body.contains(&wanted), "{number}: {kind} {body}");
        let permit = answer.permit.unwrap();
        permit.open(NOW).unwrap();
        let (kind, body) = place.line(permit.close(end(), NOW).unwrap());
        let wanted = format!("{{\"decision\":{},", permit.entry());
        assert!(kind == "outcome" && body.starts_with(&wanted), "{number}: {kind} {body}");
    }
    let said = place.gate.control(&revocation(), NOW).unwrap().unwrap();
    assert_eq!(place.line(said).0, "control");
}

#[test]
fn refusals_without_a_line_are_one_line_once_a_minute() {
    let place = Place::new();
    let bad = |now| assert_eq!(place.gate.decide(b"bad", now).entry, None);
    assert!(place.ask(0).permit.is_some());
    bad(NOW);
    bad(NOW + 30);
    let again = place.ask(0);
    assert_eq!(again.error.unwrap().reason, Reason::Replayed);
    assert!(again.verified.is_some(), "who sent it is known");
    bad(NOW + 59);
    assert!(place.bodies("summary").is_empty());
    bad(NOW + 60);
    let first = format!("{{\"since\":{NOW},\"counts\":{{\"malformed\":4,\"replayed\":1}}}}");
    assert_eq!(place.bodies("summary"), [first.as_str()]);
    bad(NOW + 70);
    bad(NOW + 129);
    assert_eq!(place.bodies("summary").len(), 1, "a minute begins with its first refusal");
    place.gate.close(NOW + 129).unwrap();
    let rest = format!("{{\"since\":{},\"counts\":{{\"malformed\":2}}}}", NOW + 70);
    assert_eq!(place.bodies("summary"), [first, rest]);
}

#[test]
fn permits_that_were_never_opened_are_written_down_two_thousand_at_a_time() {
    let place = Place::new();
    let forget = |numbers: std::ops::Range<u64>| -> Vec<u64> {
        let messages: Vec<_> = numbers.map(|n| place.message(n)).collect();
        let wires: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        let answers = place.gate.decide_many(&wires, NOW);
        answers.into_iter().map(|answer| answer.permit.unwrap().entry()).collect()
    };
    let entries = [forget(0..1_999), forget(1_999..2_000)].concat();
    assert!(place.bodies("unused").is_empty());
    let last = forget(2_000..2_001);
    let body = |entries| format!("{{\"decisions\":{entries:?}}}").replace(", ", ",");
    assert_eq!(place.bodies("unused"), [body(&entries)]);
    place.gate.close(NOW).unwrap();
    assert_eq!(place.bodies("unused"), [body(&entries), body(&last)]);
}

#[test]
fn permits_that_were_never_opened_are_written_down_and_no_others() {
    let place = Place::new();
    let [closed, open, unopened] = [0, 1, 2].map(|n| place.ask(n));
    let entry = unopened.entry.unwrap();
    let (closed, open) = (closed.permit.unwrap(), open.permit.unwrap());
    closed.open(NOW).unwrap();
    open.open(NOW).unwrap();
    closed.close(end(), NOW).unwrap();
    drop((closed, open, unopened));
    place.gate.close(NOW).unwrap();
    assert_eq!(place.bodies("unused"), [format!("{{\"decisions\":[{entry}]}}")]);
    assert_eq!(place.bodies("outcome").len(), 1);
}

#[test]
fn a_permit_is_for_so_many_requests_and_ends_with_its_decision() {
    let place = Place::new();
    let permit = place.ask(0).permit.unwrap();
    let asked = || Asked {
        refused: None,
        method: "GET".to_owned(),
        url: Some("https://api.test/".to_owned()),
        query: None,
    };
    assert!(permit.note(asked(), NOW).unwrap().is_err(), "not open yet");
    permit.open(NOW).unwrap();
    for _ in 0..PERMIT_REQUESTS {
        permit.note(asked(), NOW).unwrap().unwrap();
    }
    let refused = permit.note(asked(), NOW).unwrap().unwrap_err();
    assert!(refused.detail.contains("10000 requests"), "{refused}");
    permit.close(end(), NOW).unwrap();
    let again = place.ask(1).permit.unwrap();
    again.open(NOW).unwrap();
    again.note(asked(), NOW).unwrap().unwrap();
    assert!(permit.note(asked(), NOW).unwrap().is_err(), "closed");
    assert_eq!(place.bodies("request").len() as u64, PERMIT_REQUESTS + 1);
}

#[test]
fn an_open_permit_notes_no_request_once_trust_is_withdrawn() {
    let place = Place::new();
    let permit = place.ask(0).permit.unwrap();
    let asked = || Asked { refused: None, method: "GET".to_owned(), url: None, query: None };
    permit.open(NOW).unwrap();
    permit.note(asked(), NOW).unwrap().unwrap();
    place.gate.control(&revocation(), NOW).unwrap().unwrap();
    let refused = permit.note(asked(), NOW).unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::Revoked);
    assert_eq!(place.bodies("request").len(), 1);
}

#[test]
fn a_batch_is_answered_in_its_order() {
    let place = Place::new();
    let messages: Vec<_> = [0, 1, 0].into_iter().chain(2..20).map(|n| place.message(n)).collect();
    let wires: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    let answers = place.gate.decide_many(&wires, NOW);
    let refused: Vec<_> = answers.iter().map(|it| it.error.as_ref().map(|e| e.reason)).collect();
    let wanted = (0..21).map(|n| (n == 2).then_some(Reason::Replayed));
    assert_eq!(refused, wanted.collect::<Vec<_>>(), "the third is the first once more");
    let entries: Vec<_> = answers.iter().filter_map(|answer| answer.entry).collect();
    assert!(entries.is_sorted() && entries.len() == 20);
}
