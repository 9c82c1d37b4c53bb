//! What both benches measure: one identity a number, chains of any length, a message.
#![allow(dead_code, reason = "each bench takes what it needs")]

use moat_core::args;
use moat_core::caveat::{Actions, Args, Caveats, Grant, Limits, Terms};
use moat_core::key::{AgentId, Identity, sha256};
use moat_core::message::{Body, Message};
use moat_core::monitor::Rules;
use moat_core::pattern::{Pattern, Resource};
use moat_core::policy::Policy;
use moat_core::token::{Stamp, Token};

pub(crate) const NOW: u64 = 1_750_000_000;
pub(crate) const RESOURCE: &str = "tool://search/web";

/// One rule of each kind that is no rate; none of them is ever met.
const OTHER_RULES: [&str; 3] = [
    r#"{"name":"spent","cost":{"limit":1000000000000},"then":"throttle"}"#,
    r#"{"name":"leak","sequence":{"steps":[{"resource":"file:///**"},
        {"resource":"https://*/**"}],"within":300},"then":"suspend"}"#,
    r#"{"name":"flow","machine":{"initial":"a","transitions":[{"from":"a","to":"b"},
        {"from":"b","to":"a"}]},"then":"suspend"}"#,
];

pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed("bench", &[n; 32]).unwrap()
}

pub(crate) fn grant(pattern: &str) -> Grant {
    let actions = Actions::new(["call".to_owned()]).unwrap();
    Grant { resource: Pattern::parse(pattern).unwrap(), actions, args: Args::Any }
}

pub(crate) fn caveats(allow: Vec<Grant>, depth: u64) -> Caveats {
    let limits = Limits {
        fuel: 1_000_000_000,
        memory: 64 << 20,
        time_ms: 2_000,
        output: 1 << 20,
        read: vec![Pattern::parse("file:///data/**").unwrap()],
        ..Limits::default()
    };
    Caveats::new(Terms {
        allow,
        deny: Vec::new(),
        limits,
        not_before: NOW,
        expires: NOW + 3600,
        depth,
        audience: None,
        attestations: Vec::new(),
    })
    .unwrap()
}

pub(crate) fn stamp(holder: AgentId) -> Stamp {
    Stamp { holder, now: NOW, nonce: [7; 16] }
}

/// A chain of `links`, each allowing the same, from identity 0 to identity `links`.
pub(crate) fn chain(links: u8) -> Token {
    chain_of(&(1..=links).map(identity).collect::<Vec<_>>())
}

/// A chain from identity 0 through all of these, each link allowing the same.
pub(crate) fn chain_of(heirs: &[Identity]) -> Token {
    let allow = || vec![grant("tool://search/**")];
    let first = stamp(heirs[0].id());
    let mut token = Token::issue(&identity(0), first, caveats(allow(), 15)).unwrap();
    for (depth, pair) in (0..15).rev().zip(heirs.windows(2)) {
        token = token.attenuate(&pair[0], stamp(pair[1].id()), caveats(allow(), depth)).unwrap();
    }
    token
}

pub(crate) fn body(gate: &AgentId, token: &Token, payload: &[u8]) -> Body {
    Body {
        token: sha256(token.as_bytes()),
        gate: *gate,
        recipient: *gate,
        action: "call".to_owned(),
        resource: Resource::parse(RESOURCE).unwrap(),
        args: args::NONE.to_vec(),
        payload: payload.to_vec(),
        payload_digest: sha256(payload),
        code: None,
        policy: Policy::CHAIN_ONLY.hash(),
        stream: [1; 16],
        number: 0,
        issued: NOW,
        expires: NOW + 60,
        causes: Vec::new(),
        labels: Vec::new(),
    }
}

/// Length of what a signature in a `COSE_Sign1` is over: its `Sig_structure` is 56 bytes shorter,
/// for it has the context's name and no signature.
pub(crate) fn signed(envelope: usize) -> usize {
    envelope - 56
}

/// The request in a message: what follows the token, after two heads of three bytes and one of one.
pub(crate) fn request(wire: &[u8], token: &Token) -> usize {
    wire.len() - token.as_bytes().len() - 7
}

/// A message of the chain's holder on the wire.
pub(crate) fn seal(gate: &AgentId, token: &Token, links: u8, number: u64) -> Vec<u8> {
    seal_by(&identity(links), gate, token, number)
}

/// A message of this holder on the wire.
pub(crate) fn seal_by(holder: &Identity, gate: &AgentId, token: &Token, number: u64) -> Vec<u8> {
    let body = Body { number, ..body(gate, token, &[3; 256]) };
    Message::seal(holder, token.as_bytes(), &body).unwrap()
}

/// Twenty rules that are never met. At first all of them are rates of what is asked; then, as a
/// rule file has them, most look at other resources.
pub(crate) fn twenty_rules() -> [(&'static str, Rules); 2] {
    let rate = |n: usize, resource: &str| {
        format!(
            r#"{{"name":"r{n}","match":{{"actions":["call"],"resource":"{resource}"}},
                "rate":{{"limit":1000000,"window":{}}},"then":"throttle"}}"#,
            60 * (n + 1)
        )
    };
    let all: Vec<_> = (0..20).map(|n| rate(n, "tool://search/**")).collect();
    let mut mixed: Vec<_> = (0..14).map(|n| rate(n, &format!("tool://other{n}/**"))).collect();
    mixed.extend((14..17).map(|n| rate(n, "tool://search/**")));
    mixed.extend(OTHER_RULES.map(ToOwned::to_owned));
    let read = |rules: Vec<_>| Rules::from_json(format!("[{}]", rules.join(",")).as_bytes());
    [("rates", read(all).unwrap()), ("mixed", read(mixed).unwrap())]
}

/// One of as many identities as are wanted.
pub(crate) fn heir(n: u64) -> Identity {
    let mut seed = [200; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    Identity::from_seed("heir", &seed).unwrap()
}
