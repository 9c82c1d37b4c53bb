#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::key::Identity;

fn key(n: u16) -> AgentId {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    Identity::from_seed("a", &seed).unwrap().id()
}

fn says(name: &str, key: AgentId, previous: Option<AgentId>) -> Registration {
    let (role, gate, name) = (Role::Agent, self::key(0xffff), name.to_owned());
    Registration { role, name, gate, key, previous, nonce: [0; 16], issued: 1, expires: 2 }
}

fn registry(steps: &[(&str, u16, Option<u16>)]) -> Registry {
    let mut registry = Registry::default();
    for (time, (name, new, previous)) in steps.iter().enumerate() {
        let it = says(name, key(*new), previous.map(key));
        registry.apply(&it, time as u64).unwrap();
    }
    registry
}

fn refusal(registry: &Registry, name: &str, new: u16, previous: Option<u16>) -> Error {
    registry.check(&says(name, key(new), previous.map(key))).unwrap_err()
}

#[test]
fn a_name_is_given_once() {
    let registry = registry(&[("worker", 1, None)]);
    assert_eq!(refusal(&registry, "worker", 2, None).reason, Reason::NameTaken);
    assert_eq!(refusal(&registry, "worker", 1, None).reason, Reason::NameTaken);
}

#[test]
fn a_name_that_looks_like_another_is_refused_and_the_other_is_named() {
    for (taken, alike) in [
        ("worker", "vvorker"),
        ("admin", "adrnin"),
        ("admin", "aclmin"),
        ("cloud", "doud"),
        ("planner", "p1anner"),
        ("root", "r0ot"),
        ("web-search", "web_search"),
        ("web-search", "websearch"),
        ("web.search", "web--search"),
        ("modern", "rnodem"),
        ("agent-1", "agent-l"),
        ("m", "r.n"),
    ] {
        let registry = registry(&[(taken, 1, None)]);
        let error = refusal(&registry, alike, 2, None);
        assert_eq!(error.reason, Reason::NameTaken, "{alike}");
        assert!(error.detail.contains(&format!("`{taken}`")), "{}", error.detail);
    }
}

#[test]
fn names_that_look_different_live_side_by_side() {
    let names = ["agent-0", "agent-1", "agent-2", "agent-10", "mail", "mall", "main", "worker2"];
    let mut registry = Registry::default();
    for (n, name) in (0..).zip(names) {
        registry.apply(&says(name, key(n), None), 0).unwrap();
    }
    assert_eq!(registry.list().len(), names.len());
}

#[test]
fn a_key_is_registered_once_under_any_name_former_keys_too() {
    let registry = registry(&[("one", 1, None), ("one", 2, Some(1)), ("two", 3, None)]);
    for used in [1, 2, 3] {
        assert_eq!(refusal(&registry, "other", used, None).reason, Reason::NameTaken);
        assert_eq!(refusal(&registry, "two", used, Some(3)).reason, Reason::NameTaken);
    }
}

#[test]
fn a_rotation_needs_the_present_key_of_that_very_name() {
    let registry = registry(&[("one", 1, None), ("one", 2, Some(1)), ("two", 3, None)]);
    assert_eq!(refusal(&registry, "one", 4, Some(1)).reason, Reason::NoStanding);
    assert_eq!(refusal(&registry, "one", 4, Some(3)).reason, Reason::NoStanding);
    assert_eq!(refusal(&registry, "one", 4, Some(5)).reason, Reason::NoStanding);
    assert_eq!(refusal(&registry, "three", 4, Some(2)).reason, Reason::NotRegistered);
    assert_eq!(refusal(&registry, "0ne", 4, Some(2)).reason, Reason::NotRegistered);
    let mut as_root = says("one", key(4), Some(key(2)));
    assert!(registry.check(&as_root).is_ok());
    as_root.role = Role::Root;
    assert_eq!(registry.check(&as_root).unwrap_err().reason, Reason::NoStanding);
}

#[test]
fn a_key_stands_for_the_first_key_of_its_agent() {
    let registry = registry(&[("one", 1, None), ("one", 2, Some(1)), ("one", 3, Some(2))]);
    for n in [1, 2, 3] {
        assert_eq!(registry.subject(&key(n)), key(1));
        assert_eq!(registry.agent_of(&key(n)).unwrap().name(), "one");
    }
    assert_eq!(registry.subject(&key(9)), key(9));
    assert!(registry.agent_of(&key(9)).is_none());
    assert_eq!(registry.current("one"), Some(key(3)));
    assert_eq!(registry.current("two"), None);
    assert_eq!(registry.agent("one").unwrap().keys(), [(key(1), 0), (key(2), 1), (key(3), 2)]);
}

#[test]
fn a_trusted_roots_later_keys_are_trusted_and_no_others() {
    let mut registry = registry(&[("agent", 8, None), ("agent", 9, Some(8))]);
    for (new, previous) in [(1, None), (2, Some(1)), (3, Some(2))] {
        let it = Registration { role: Role::Root, ..says("root", key(new), previous.map(key)) };
        registry.apply(&it, 0).unwrap();
    }
    for (trusted, wanted) in [
        (&[][..], &[][..]),
        (&[1], &[1, 2, 3]),
        (&[2, 7], &[2, 3, 7]),
        (&[3, 1, 3], &[1, 2, 3]),
        (&[8], &[8]),
    ] {
        let trusted: Vec<_> = trusted.iter().copied().map(key).collect();
        let mut wanted: Vec<_> = wanted.iter().copied().map(key).collect();
        wanted.sort_unstable();
        assert_eq!(registry.roots(&trusted), wanted, "{trusted:?}");
    }
}

#[test]
fn keys_of_one_second_come_back() {
    let mut registry = Registry::default();
    for (new, previous) in [(1, None), (2, Some(1))] {
        registry.apply(&says("one", key(new), previous.map(key)), 7).unwrap();
    }
    let mut again = Registry::default();
    again.restore(&registry.snapshot()[0]).unwrap();
    assert_eq!(again, registry);
}

#[test]
fn a_refused_registration_changes_nothing() {
    let mut registry = registry(&[("one", 1, None)]);
    let before = registry.clone();
    for (name, new, previous) in [("one", 2, None), ("two", 1, None), ("one", 2, Some(3))] {
        assert!(registry.apply(&says(name, key(new), previous.map(key)), 9).is_err());
    }
    assert_eq!(registry, before);
}

#[test]
fn a_name_has_64_keys_at_most() {
    let mut registry = registry(&[("one", 0, None)]);
    for n in 1..64 {
        registry.apply(&says("one", key(n), Some(key(n - 1))), u64::from(n)).unwrap();
    }
    assert_eq!(refusal(&registry, "one", 64, Some(63)).reason, Reason::TooLarge);
    let mut again = Registry::default();
    again.restore(&registry.snapshot()[0]).unwrap();
    assert_eq!(again, registry);
    assert!(serde_json::to_vec(&registry.snapshot()[0]).unwrap().len() < limits::LINE_BYTES / 2);
}

#[test]
fn a_registry_has_ten_thousand_names_at_most_and_they_still_rotate() {
    let mut registry = Registry::default();
    for n in 0..10_000 {
        registry.apply(&says(&format!("{n:05}x"), key(n), None), 0).unwrap();
    }
    assert_eq!(refusal(&registry, "another", 10_000, None).reason, Reason::TooLarge);
    assert!(registry.check(&says("00000x", key(10_000), Some(key(0)))).is_ok());
}

#[test]
fn an_item_that_no_log_leads_to_is_refused() {
    let good = registry(&[("one", 1, None), ("one", 2, Some(1))]).snapshot().remove(0);
    let other = registry(&[("two", 2, None)]).snapshot().remove(0);
    let alike = Item { name: "0ne".to_owned(), ..registry(&[("x", 5, None)]).snapshot().remove(0) };
    let with = |change: &dyn Fn(&mut Item)| {
        let mut item = good.clone();
        change(&mut item);
        item
    };
    for (why, items) in [
        ("twice", vec![good.clone(), good.clone()]),
        ("one key, two names", vec![good.clone(), other]),
        ("look-alike", vec![good.clone(), alike]),
        ("no key", vec![with(&|item| item.keys.clear())]),
        ("one key twice", vec![with(&|item| item.keys[1].0 = item.keys[0].0.clone())]),
        ("out of order", vec![with(&|item| item.keys.reverse())]),
        ("not a key", vec![with(&|item| item.keys[0].0.push('x'))]),
        ("not a name", vec![with(&|item| item.name = "One".to_owned())]),
        ("not a role", vec![with(&|item| item.role = "boss".to_owned())]),
    ] {
        let mut registry = Registry::default();
        let (last, first) = items.split_last().unwrap();
        assert!(first.iter().all(|item| registry.restore(item).is_ok()), "{why}");
        let before = registry.clone();
        assert!(registry.restore(last).is_err(), "{why}");
        assert_eq!(registry, before, "{why}");
    }
    assert!(Registry::default().restore(&good).is_ok());
}

#[test]
fn an_item_is_written_in_canonical_json() {
    for item in registry(&[("one", 1, None), ("one", 2, Some(1))]).snapshot() {
        let text = serde_json::to_vec(&item).unwrap();
        assert_eq!(text, serde_json_canonicalizer::to_vec(&item).unwrap());
        assert_eq!(serde_json::from_slice::<Item>(&text).unwrap(), item);
    }
}

/// Steps over few names that look alike and few keys, so that most of them clash.
fn steps() -> impl Strategy<Value = Vec<(String, u16, Option<u16>)>> {
    let step = ("[odmw01lcrn][odmw01lcrn._-]{0,2}", 0_u16..24, prop::option::of(0_u16..24));
    prop::collection::vec(step, 1..80)
}

/// The same rules once more, over a list.
fn allowed(taken: &[(String, Vec<u16>)], name: &str, new: u16, previous: Option<u16>) -> bool {
    let fresh = !taken.iter().any(|(_, keys)| keys.contains(&new));
    let present = taken.iter().find(|(other, _)| other == name).and_then(|(_, keys)| keys.last());
    match previous {
        Some(_) => fresh && present == previous.as_ref(),
        None => fresh && !taken.iter().any(|(other, _)| skeleton(other) == skeleton(name)),
    }
}

proptest! {
    #[test]
    fn no_two_names_look_alike_and_no_key_has_two_names(steps in steps()) {
        let mut registry = Registry::default();
        let mut model: Vec<(String, Vec<u16>)> = Vec::new();
        for (time, (name, new, previous)) in (0..).zip(&steps) {
            let it = says(name, key(*new), previous.map(key));
            let expected = allowed(&model, name, *new, *previous);
            prop_assert_eq!(registry.apply(&it, time).is_ok(), expected);
            if expected {
                match model.iter_mut().find(|(other, _)| other == name) {
                    Some((_, keys)) => keys.push(*new),
                    None => model.push((name.clone(), vec![*new])),
                }
            }
        }
        let skeletons: HashSet<_> = registry.list().map(|agent| skeleton(agent.name())).collect();
        prop_assert_eq!(skeletons.len(), registry.list().len());
        let keys: Vec<_> = registry.list().flat_map(|agent| agent.keys().to_vec()).collect();
        prop_assert_eq!(keys.iter().map(|(key, _)| key).collect::<HashSet<_>>().len(), keys.len());
        for (name, keys) in &model {
            let found = registry.agent(name).unwrap();
            let found: Vec<_> = found.keys().iter().map(|(key, _)| *key).collect();
            prop_assert_eq!(found, keys.iter().copied().map(key).collect::<Vec<_>>());
            for old in keys {
                prop_assert_eq!(registry.subject(&key(*old)), key(keys[0]));
            }
        }
    }

    #[test]
    fn a_snapshot_restores_to_the_same(steps in steps(), shuffled in any::<bool>()) {
        let mut registry = Registry::default();
        for (time, (name, new, previous)) in (0..).zip(&steps) {
            drop(registry.apply(&says(name, key(*new), previous.map(key)), time));
        }
        let mut items = registry.snapshot();
        prop_assert!(items.windows(2).all(|pair| pair[0].name < pair[1].name));
        if shuffled {
            items.reverse();
        }
        let mut again = Registry::default();
        for item in &items {
            again.restore(item).unwrap();
        }
        prop_assert_eq!(&again, &registry);
        prop_assert_eq!(again.snapshot(), registry.snapshot());
    }

    #[test]
    fn a_skeleton_is_its_own_skeleton_and_forgets_separators(name in "[a-z0-9][a-z0-9._-]{0,20}") {
        // `d`, `m` and `w` are gone after one pass, so a second changes nothing.
        let once = skeleton(&name);
        prop_assert_eq!(skeleton(&once), once.clone());
        prop_assert_eq!(skeleton(&name.replace(['.', '_', '-'], "")), once);
    }
}
