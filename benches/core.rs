//! The heart beside its primitives: tokens, messages, permission, one line of the log.
//! `cargo bench -p moat-core` prints one JSON object a line; `benches/table.py` reads them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "a bench stops at the first surprise and prints"
)]

use std::collections::HashMap;
use std::hint::black_box;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use moat_core::audit::{Chain, MacKey};
use moat_core::caveat::{Grant, Request};
use moat_core::guard::{Guard, Setup};
use moat_core::key::{Verifier, sha256};
use moat_core::message::Message;
use moat_core::monitor::{Event, Monitor, Rules, Subject, Verdict};
use moat_core::pattern::Resource;
use moat_core::policy::Policy;
use moat_core::token::{Stamp, Token};

mod harness;
mod world;

use harness::pair;
use world::{
    NOW, RESOURCE, body, caveats, chain, grant, identity, request, seal, signed, stamp,
    twenty_rules,
};

/// Messages that a verification takes in turn.
const TURNS: u8 = 16;

fn main() {
    if std::env::var("ONLY").is_ok() {
        return watched();
    }
    signing();
    verifying();
    permission();
    gate();
    watched();
    line();
}

fn signing() {
    let (root, holder) = (identity(0), identity(1));
    let caveats = caveats(vec![grant("tool://search/**")], 0);
    let issue = || Token::issue(&root, stamp(holder.id()), caveats.clone()).unwrap();
    let token = issue();
    let link = vec![0x5a; signed(token.links()[0].as_bytes().len())];
    pair(issue, || raw_sign(&link)).print("token_sign");

    let gate = identity(9).id();
    let create = || {
        let body = body(&gate, &token, black_box(&[3; 256]));
        Message::seal(&holder, token.as_bytes(), &body).unwrap()
    };
    let text = vec![0x5a; signed(request(&create(), &token))];
    pair(create, || raw_sign(&text)).print("message_create");
    // Part of both ratios above: our keys are made ready once, not for every signature.
    let ready = SigningKey::from_bytes(&[1; 32]);
    pair(|| ready.sign(&text), || raw_sign(&text)).print("sign_ready");
}

fn raw_sign(text: &[u8]) -> ed25519_dalek::Signature {
    SigningKey::from_bytes(black_box(&[1; 32])).sign(text)
}

/// Key from bytes, then `verify_strict`, over texts of a length in turn: a signature's time
/// depends on its bits, so neither side lives on one.
fn raw_verify(length: usize) -> impl FnMut() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let id = key.verifying_key().to_bytes();
    let texts = (0..TURNS).map(|n| vec![n; length]);
    let mut next =
        texts.map(|text| (key.sign(&text), text)).collect::<Vec<_>>().into_iter().cycle();
    move || {
        let (signature, text) = next.next().unwrap();
        let key = VerifyingKey::from_bytes(black_box(&id)).unwrap();
        key.verify_strict(&text, &signature).unwrap();
    }
}

fn verifying() {
    let (gate, roots) = (identity(9).id(), [identity(0).id()]);
    let token = |n| {
        let stamp = Stamp { nonce: [n; 16], ..stamp(identity(1).id()) };
        Token::issue(&identity(0), stamp, caveats(vec![grant("tool://search/**")], 15)).unwrap()
    };
    let tokens: Vec<_> = (0..TURNS).map(token).collect();
    let mut next = tokens.iter().cycle();
    let walk = || {
        let token = Token::decode(black_box(next.next().unwrap().as_bytes())).unwrap();
        token.verify(&roots, Some(&gate), NOW).unwrap();
        token
    };
    let link = tokens[0].links()[0].as_bytes();
    pair(walk, raw_verify(signed(link.len()))).print("token_verify");

    let token = &tokens[0];
    let wires: Vec<_> = (0..TURNS).map(|n| seal(&gate, token, 1, n.into())).collect();
    let (sender, length) = (identity(1).id(), signed(request(&wires[0], token)));
    let open = |wire: &[u8], key: &Verifier| {
        let message = Message::decode(black_box(wire)).unwrap();
        message.check_gate(&gate).unwrap();
        message.check_times(NOW).unwrap();
        message.verify(&sender, key).unwrap();
        message
    };
    // A gate keeps the key of a chain that it has seen; one who only opens does not.
    let (key, mut next) = (sender.verifier().unwrap(), wires.iter().cycle());
    pair(|| open(next.next().unwrap(), &key), raw_verify(length)).print("message_verify");
    let mut next = wires.iter().cycle();
    let fresh = || open(next.next().unwrap(), &black_box(sender).verifier().unwrap());
    pair(fresh, raw_verify(length)).print("message_open");
}

/// `permits` of one link. The named floor is one look-up of (action, resource) in the standard
/// library's hash map: what a system without patterns would do.
fn permission() {
    one("permits_1", vec![grant("tool://search/**")], RESOURCE);
    for count in [8, 256] {
        let all = |pattern: &dyn Fn(usize) -> String| {
            (0..count).map(|n| grant(&pattern(n))).collect::<Vec<_>>()
        };
        let (last, name) = (count - 1, format!("permits_{count}"));
        // Filed apart: by authority, by first segment.
        let apart = all(&|n| format!("tool://service{n:03}/**"));
        one(&format!("{name}_own_authority"), apart, &format!("tool://service{last:03}/run"));
        let beside = all(&|n| format!("tool://search/op{n:03}/**"));
        one(&format!("{name}_shared_authority"), beside, &format!("tool://search/op{last:03}/x"));
        // Filed together, because the first segment is a wildcard: every grant is looked at.
        let under = all(&|n| format!("tool://search/*/op{n:03}"));
        one(&format!("{name}_shared_bucket"), under, &format!("tool://search/web/op{last:03}"));
        let globs = all(&|n| format!("tool://search/op{n:03}*"));
        one(&format!("{name}_globs"), globs, &format!("tool://search/op{last:03}x"));
    }
}

fn one(name: &str, allow: Vec<Grant>, resource: &str) {
    let resource = Resource::parse(resource).unwrap();
    let asked = resource.as_str().to_owned();
    let floor: HashMap<_, _> = allow
        .iter()
        .map(|grant| (grant.resource.as_str().to_owned(), ()))
        .chain([(asked.clone(), ())])
        .collect();
    let caveats = caveats(allow, 0);
    let ours = || {
        let request = Request::new(black_box("call"), black_box(&resource), true);
        caveats.permits(&request).unwrap();
    };
    pair(ours, || floor.contains_key(black_box(asked.as_str()))).print(name);
}

/// Stage 1 of a gate for a chain that it has seen, one link and eight.
fn gate() {
    for links in [1, 8] {
        let (token, gate) = (chain(links), identity(99).id());
        let wires: Vec<_> = (0..TURNS).map(|n| seal(&gate, &token, links, n.into())).collect();
        let roots = vec![identity(0).id()];
        let (operators, monitor) = (Vec::new(), Rules::default());
        let setup = Setup { gate, roots, operators, policy: Policy::CHAIN_ONLY, monitor };
        let guard = Guard::new(setup);
        let mut next = wires.iter().cycle();
        let verify = || guard.verify(black_box(next.next().unwrap()), NOW).unwrap();
        let raw = raw_verify(signed(request(&wires[0], &token)));
        pair(verify, raw).print(&format!("guard_verify_{links}"));
    }
}

/// What twenty rules add to a decision of a chain of three holders: which of them look at it, what
/// would happen, and counting it. The named floor is one look-up of each holder in the standard
/// library's hash map. Every hundredth decision starts another second.
fn watched() {
    for (kind, rules) in twenty_rules() {
        let mut monitor = Monitor::default();
        monitor.set_rules(rules);
        let holder = |n: u8| Subject { agent: identity(n).id(), lasting: n == 1 };
        let subjects = [holder(1), holder(2), holder(3)];
        let resource = Resource::parse(RESOURCE).unwrap();
        let floor: HashMap<_, _> = subjects.iter().map(|one| (one.agent, ())).collect();
        let mut calls = 0;
        let decide = || {
            calls += 1;
            let matched = monitor.matching(black_box("call"), black_box(&resource));
            let event = Event { subjects: &subjects, matched: &matched, time: NOW + calls / 100 };
            let (answer, alerts) = monitor.check(&event, true);
            assert!(answer.is_ok() && alerts.is_empty());
            monitor.count(&event, Verdict::Allowed, calls);
        };
        pair(decide, || subjects.iter().all(|one| floor.contains_key(black_box(&one.agent))))
            .print(&format!("monitor_20_{kind}"));
    }
}

/// One line of the log without its file, beside SHA-256 of the same bytes.
fn line() {
    let gate = identity(9);
    let key = MacKey::derive(&gate).unwrap();
    for size in [300, 900] {
        let mut chain = Chain::new(&gate.id());
        let (mut out, first) = (Vec::new(), chain.open_body());
        chain.append(&mut out, &key, (NOW, "open", first.as_bytes()), |_, _| ()).unwrap();
        let body = entry(size);
        let append = || {
            out.clear();
            chain.append(&mut out, &key, (NOW, "decision", &body), |_, _| ()).unwrap()
        };
        let line = vec![b'x'; body.len() + 160];
        pair(append, || sha256(black_box(&line))).print(&format!("append_{size}"));
    }
}

/// The body of an entry with so many bytes: digests and short fields, as a decision has them.
fn entry(size: usize) -> Vec<u8> {
    let mut fields = String::from(r#"{"allow":true,"stage":"capability""#);
    let mut n = 0;
    while fields.len() + 90 < size {
        fields += &format!(r#","digest{n}":"{}""#, "0123456789abcdef".repeat(4));
        n += 1;
    }
    let rest = size - fields.len() - r#","rest":""}"#.len();
    format!(r#"{fields},"rest":"{}"}}"#, "r".repeat(rest)).into_bytes()
}
