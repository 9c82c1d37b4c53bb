//! What both benches measure: one identity a number, chains of any length, a message.
#![allow(dead_code, reason = "each bench takes what it needs")]

use moat_core::args;
use moat_core::caveat::{Actions, Args, Caveats, Grant, Limits, Terms};
use moat_core::key::{AgentId, Identity, sha256};
use moat_core::message::{Body, Message};
use moat_core::pattern::{Pattern, Resource};
use moat_core::policy::Policy;
use moat_core::token::{Stamp, Token};

pub(crate) const NOW: u64 = 1_750_000_000;
pub(crate) const RESOURCE: &str = "tool://search/web";

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
    let allow = || vec![grant("tool://search/**")];
    let first = stamp(identity(1).id());
    let mut token = Token::issue(&identity(0), first, caveats(allow(), 15)).unwrap();
    for n in 1..links {
        let stamp = stamp(identity(n + 1).id());
        let caveats = caveats(allow(), 15 - u64::from(n));
        token = token.attenuate(&identity(n), stamp, caveats).unwrap();
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
    let body = Body { number, ..body(gate, token, &[3; 256]) };
    Message::seal(&identity(links), token.as_bytes(), &body).unwrap()
}
