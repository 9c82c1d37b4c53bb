//! The order on requirements, and who meets one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::key::Identity;

const NOW: u64 = 1_750_000_000;

fn key(n: u8) -> AgentId {
    Identity::from_seed("key", &[n; 32]).unwrap().id()
}

fn requirement(keys: &[u8], threshold: u64, max_age: u64) -> Result<Requirement> {
    let keys = keys.iter().map(|n| key(*n)).collect();
    Requirement::new(Kind::Code, Predicate::Manifest, keys, threshold, max_age)
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let predicate = prop::sample::select(Predicate::ALL.to_vec());
    let keys = prop::collection::btree_set(0_u8..4, 1..4);
    (kind, predicate, keys, 1_u64..3, 1_u64..5).prop_filter_map(
        "what the format holds",
        |(kind, predicate, keys, threshold, max_age)| {
            let keys = keys.into_iter().map(key).collect();
            Requirement::new(kind, predicate, keys, threshold, max_age).ok()
        },
    )
}

fn any_set() -> impl Strategy<Value = Vec<Requirement>> {
    prop::collection::vec(any_requirement(), 0..4).prop_map(|all| checked(all).unwrap())
}

fn any_words() -> impl Strategy<Value = Vec<Vouched>> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let predicate = prop::sample::select(Predicate::ALL.to_vec());
    let word = (kind, predicate, 0_u8..4, 0_u64..6).prop_map(|(kind, predicate, signer, age)| {
        let (subject, statement) = ([1; 32], [signer; 32]);
        Vouched { subject, kind, predicate, signer: key(signer), issued: NOW - age, statement }
    });
    prop::collection::vec(word, 0..24)
}

fn met(requirement: &Requirement, words: &[Vouched]) -> bool {
    let newest = |signer: &AgentId| {
        let about = words.iter().filter(|word| {
            word.signer == *signer
                && word.kind == requirement.kind
                && word.predicate == requirement.predicate
        });
        about.max_by_key(|word| word.issued).copied()
    };
    requirement.check(&[1; 32], NOW, newest).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn covering_is_reflexive_and_transitive(one in any_set(), two in any_set(), three in any_set()) {
        prop_assert_eq!(covers(&one, &one), Ok(()));
        if covers(&one, &two).is_ok() && covers(&two, &three).is_ok() {
            prop_assert_eq!(covers(&one, &three), Ok(()));
        }
    }

    /// What covering is for: whoever satisfies the child satisfies the parent.
    #[test]
    fn what_meets_a_child_meets_its_parent(
        parent in any_set(), child in any_set(), words in any_words()
    ) {
        if covers(&parent, &child).is_ok() && child.iter().all(|one| met(one, &words)) {
            prop_assert!(parent.iter().all(|one| met(one, &words)));
        }
    }

    #[test]
    fn to_add_a_requirement_is_always_to_narrow(parent in any_set(), more in any_set()) {
        let both = checked(parent.iter().chain(&more).cloned().collect()).unwrap();
        prop_assert_eq!(covers(&parent, &both), Ok(()));
        if let Err(error) = covers(&both, &parent) {
            prop_assert_eq!(error.axis, Some(Axis::Attestations));
            let lost = error.witness.unwrap();
            prop_assert!(both.iter().any(|one| one.to_string() == lost));
        }
    }

    #[test]
    fn what_is_written_is_read(one in any_requirement()) {
        let mut out = Writer::with_capacity(64);
        one.write(&mut out);
        let bytes = out.finish();
        prop_assert_eq!(Requirement::read(&mut Reader::new(&bytes)), Ok(one));
    }
}

#[test]
fn one_step_more_on_any_field_is_not_covered() {
    let parent = requirement(&[1, 2], 2, 100).unwrap();
    let covered = |child: Result<Requirement>| {
        covers(std::slice::from_ref(&parent), &[child.unwrap()]).is_ok()
    };
    assert!(covered(requirement(&[1, 2], 2, 100)));
    assert!(covered(requirement(&[1, 2], 2, 99)));
    assert!(!covered(requirement(&[1, 2], 2, 101)));
    assert!(!covered(requirement(&[1, 2], 1, 100)));
    assert!(!covered(requirement(&[1, 3], 2, 100)));
    assert!(!covered(requirement(&[1, 2, 3], 2, 100)));
    assert!(!covered(requirement(&[1, 2, 3], 3, 100)));
    let keys = || vec![key(1), key(2)];
    assert!(!covered(Requirement::new(Kind::Tool, Predicate::Manifest, keys(), 2, 100)));
    assert!(!covered(Requirement::new(Kind::Code, Predicate::Provenance, keys(), 2, 100)));
    assert!(covers(std::slice::from_ref(&parent), &[]).is_err());
    let loose = requirement(&[1, 2], 1, 100).unwrap();
    assert!(covers(std::slice::from_ref(&loose), &[parent]).is_ok());
}

#[test]
fn what_nothing_could_meet_is_refused_when_it_is_written() {
    for (keys, threshold, max_age) in [
        (&[1, 2][..], 0, 1),
        (&[1, 2], 3, 1),
        (&[1, 1], 2, 1),
        (&[], 0, 1),
        (&[], 1, 1),
        (&[1], 1, 0),
        (&[1], 1, limits::ATTESTATION_SECONDS + 1),
    ] {
        let refused = requirement(keys, threshold, max_age).unwrap_err();
        assert_eq!(refused.reason, Reason::Malformed, "{keys:?} {threshold} {max_age}");
    }
    assert!(requirement(&[1], 1, limits::ATTESTATION_SECONDS).is_ok());
    let keys: Vec<u8> = (0..17).collect();
    assert_eq!(requirement(&keys, 1, 1).unwrap_err().reason, Reason::TooLarge);
    assert!(requirement(&keys[1..], 16, 1).is_ok());
    for predicate in [Predicate::Provenance, Predicate::Summary] {
        for kind in [Kind::Skill, Kind::Tool] {
            let refused = Requirement::new(kind, predicate, vec![key(1)], 1, 1).unwrap_err();
            assert_eq!(refused.reason, Reason::Malformed);
        }
    }
    let many: Vec<_> = (1..=17).map(|age| requirement(&[1], 1, age).unwrap()).collect();
    assert_eq!(checked(many.clone()).unwrap_err().reason, Reason::TooLarge);
    assert_eq!(checked([many[..16].to_vec(), many[..16].to_vec()].concat()).unwrap().len(), 16);
}

#[test]
fn a_word_counts_from_its_second_until_it_is_too_old() {
    let one = requirement(&[1], 1, 100).unwrap();
    let at = |issued: u64| {
        let word = Vouched {
            subject: [1; 32],
            kind: Kind::Code,
            predicate: Predicate::Manifest,
            signer: key(1),
            issued,
            statement: [9; 32],
        };
        one.check(&[1; 32], NOW, |_| Some(word))
    };
    assert_eq!(at(NOW), Ok(vec![[9; 32]]));
    assert_eq!(at(NOW - 99), Ok(vec![[9; 32]]));
    assert_eq!(at(NOW - 100).unwrap_err().reason, Reason::NotAttested);
    assert!(at(NOW + 60).is_ok());
    assert!(at(NOW + 61).is_err());
    assert!(at(u64::MAX).is_err());
    assert!(at(0).is_err());
}

#[test]
fn nobody_counts_twice() {
    let two = requirement(&[1, 2], 2, 100).unwrap();
    let word = |signer| Vouched {
        subject: [1; 32],
        kind: Kind::Code,
        predicate: Predicate::Manifest,
        signer,
        issued: NOW,
        statement: [9; 32],
    };
    // However the table answers, one key is one signer, and a stranger is none.
    assert!(two.check(&[1; 32], NOW, |_| Some(word(key(1)))).is_err());
    assert!(two.check(&[1; 32], NOW, |_| Some(word(key(3)))).is_err());
    assert!(two.check(&[1; 32], NOW, |signer| Some(word(*signer))).is_ok());
    assert!(two.check(&[2; 32], NOW, |signer| Some(word(*signer))).is_err());
}
