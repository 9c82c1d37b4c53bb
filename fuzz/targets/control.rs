//! Control statements: what reads has one spelling, what counts was signed by its signer, counts
//! once, and is read again from the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_core::control::Control;
use moat_core::state::State;
use moat_core::wire::{Kind, Signed};
use moat_fuzz::{NOW, take_in, world};

fuzz_target!(|data: &[u8]| {
    read(data);
    for signer in world().named(data) {
        let bytes = Signed::seal(Kind::Control, signer, data).1;
        if let Ok(control) = Control::decode(&bytes) {
            let posing = control.statement().signer != signer.id();
            let verified = control.verify(&world().gate.id(), NOW);
            assert!(!(posing && verified.is_ok()), "signed by another");
            assert_eq!(Control::sign(signer, control.statement()).is_err(), posing);
        }
        read(&bytes);
    }
});

fn read(bytes: &[u8]) {
    let guard = world().guard();
    let genuine = guard.verify_control(bytes, NOW);
    let Ok(control) = Control::decode(bytes) else {
        assert!(genuine.is_err());
        return;
    };
    assert_eq!(control.as_bytes(), bytes);
    let Ok(genuine) = genuine else { return };
    assert_eq!(control.verify(&world().gate.id(), NOW), Ok(()));
    let mut state = State::default();
    if let Ok(line) = guard.rule_control(&genuine, &state, NOW) {
        take_in(&mut state, &[line]);
        assert!(guard.rule_control(&genuine, &state, NOW).is_err(), "a statement counts twice");
    }
}
