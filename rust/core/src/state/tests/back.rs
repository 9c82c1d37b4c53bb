//! What comes back from a snapshot decides as what it was taken from.

use super::*;

#[test]
fn a_message_that_was_used_is_used_in_the_state_that_comes_back() {
    let (mut state, [one, ..]) = delegated();
    for (at, (stream, number)) in (4..).zip([(1, 0), (1, 70), (1, 1000), (1, 1500), (2, 3)]) {
        let made = decision(&one, true, (stream, number), NOW + 60).to_body().unwrap();
        state.apply(at, NOW, Decision::KIND, &made).unwrap();
    }
    let (back, holder) = (again(&state), who(1).id().to_string());
    let fresh = |state: &State, stream, number| {
        let (principal, expires) = (&who(1).id(), NOW + 60);
        let slot = Slot { holder: &holder, principal, stream: [stream; 16], number, expires };
        state.check_fresh(&slot).map_err(|error| error.reason)
    };
    for (stream, number) in (0..3).flat_map(|stream| (0..1600).map(move |n| (stream, n))) {
        let wanted = match (stream, number) {
            (1, 0..=476 | 1000 | 1500) | (2, 3) => Err(Reason::Replayed),
            _ => Ok(()),
        };
        assert_eq!(fresh(&state, stream, number), wanted, "{stream} {number}");
        assert_eq!(fresh(&back, stream, number), wanted, "{stream} {number}");
    }
    assert_eq!(back.pending().collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
}

#[test]
fn what_a_rule_suspended_comes_back_as_a_rules_word() {
    let (mut state, _) = delegated();
    let alert = Alerted {
        rule: "loud".to_owned(),
        agent: who(2).id().to_string(),
        then: Then::Suspend,
        count: 1,
        detail: String::new(),
        message: hex::encode([0; 32]),
    };
    state.apply(4, NOW, Alerted::KIND, &alert.to_body().unwrap()).unwrap();
    let back = again(&state);
    assert!(back.is_suspended(&agent(2)));
    let resume = says(8, Verb::Resume, agent(2), 1);
    assert_eq!(standing(&back, &resume), Some(Scope::Gate), "an operator lifts what a rule said");
}
