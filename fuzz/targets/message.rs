//! Messages through a whole gate: the cache changes no answer, an allowed message is allowed by
//! every link, and what the gate logs it can read again.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use moat_core::args;
use moat_core::caveat::Request;
use moat_core::guard::{Guard, Ruling, Verified};
use moat_core::message::Message;
use moat_core::state::State;
use moat_core::{Reason, Result};
use moat_fuzz::{NOW, take_in, world};

/// Most messages are still alive then.
const LATER: u64 = NOW + 30;

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Some(signed) = world().sign_message(data) {
        read(&signed);
    }
});

fn read(wire: &[u8]) {
    if let Ok(message) = Message::decode(wire) {
        assert_eq!(args::check(&message.body().args), Ok(()));
        let value = serde_json::from_slice(&message.body().args).expect("arguments are JSON");
        assert_eq!(args::encode(&value).as_deref(), Ok(&*message.body().args));
    }
    let fresh = world().guard();
    let verified = fresh.verify(wire, NOW);
    same_answer(&verified, &warm().verify(wire, NOW));
    same_answer(&verified, &fresh.verify(wire, NOW));
    // A chain may die while it is remembered.
    same_answer(&world().guard().verify(wire, LATER), &fresh.verify(wire, LATER));
    if let Ok(verified) = verified {
        decide(&fresh, &verified);
    }
}

/// A gate that remembers every chain of this run, as far as its cache holds them.
fn warm() -> &'static Guard {
    static GUARD: OnceLock<Guard> = OnceLock::new();
    GUARD.get_or_init(|| world().guard())
}

fn same_answer(one: &Result<Verified>, other: &Result<Verified>) {
    let reason = |of: &Result<Verified>| of.as_ref().map(|_| ()).map_err(|error| error.reason);
    assert_eq!(reason(one), reason(other), "the cache changes an answer");
}

fn decide(guard: &Guard, verified: &Verified) {
    let mut state = State::default();
    let Ruling::Logged(lines, verdict, _) = guard.rule(verified, &state, NOW) else {
        panic!("a verified message is not fresh for an empty state");
    };
    if verdict.is_ok() {
        allowed(verified);
    }
    take_in(&mut state, &lines);
    match guard.rule(verified, &state, NOW) {
        Ruling::Counted(error) => assert_eq!(error.reason, Reason::Replayed),
        Ruling::Logged(..) => panic!("a message counts twice"),
    }
}

fn allowed(verified: &Verified) {
    let (body, token) = (verified.message().body(), verified.chain().token());
    let request = Request::new(&body.action, &body.resource, body.args == args::NONE);
    assert_eq!(token.narrowing(), Ok(()));
    for link in token.links() {
        assert_eq!(link.claims().caveats.permits(&request), Ok(()));
    }
    let all = token.verify(&world().roots(), Some(&world().gate.id()), NOW);
    assert_eq!(all, Ok(()));
}
