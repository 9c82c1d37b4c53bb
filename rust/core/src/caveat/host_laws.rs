//! Laws of host rules, tried on every request over a small alphabet.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use proptest::prelude::*;

use super::host_tests::{address, covers, rule, url};
use super::*;

const PATTERNS: [&str; 9] = [
    "https://*/**",
    "https://*.example/**",
    "https://a.example/**",
    "https://a.example/x/**",
    "https://a.example/x/*",
    "https://a.example/x",
    "https://a.example:8443/**",
    "https://b.example/*",
    "http://a.example/**",
];
const URLS: [&str; 7] = [
    "https://a.example",
    "https://a.example/x",
    "https://a.example/x/y",
    "https://a.example/x/y/z",
    "https://b.example/x",
    "https://a.example:8443/x",
    "http://a.example/x",
];
const RANGES: [&str; 8] = [
    "0.0.0.0/0",
    "8.0.0.0/7",
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.1.0.0/16",
    "127.0.0.1/32",
    "::/0",
    "fd00::/8",
];
const PLACES: [(&str, bool); 7] = [
    ("8.8.8.8", true),
    ("10.0.0.1", false),
    ("10.1.0.1", false),
    ("10.255.0.1", false),
    ("127.0.0.1", false),
    ("fd00::1", false),
    ("2600::1", true),
];

fn rules() -> impl Strategy<Value = Vec<HostRule>> {
    let methods = prop_oneof![
        Just(vec!["*"]),
        prop::sample::subsequence(vec!["DELETE", "GET", "POST"], 1..=3),
    ];
    let ranges = prop_oneof![
        2 => Just(vec![]),
        3 => prop::sample::subsequence(RANGES.to_vec(), 1..=2),
    ];
    let one = (prop::sample::select(PATTERNS.to_vec()), methods, ranges);
    let rule = one.prop_map(|(pattern, methods, ranges)| {
        rule(format!("{pattern} {} {}", methods.join(","), ranges.join(",")).trim_end())
    });
    prop::collection::vec(rule, 0..4)
}

/// Whether some rule allows the request at the address.
fn allows(
    rules: &[HostRule],
    method: &str,
    url: &Resource,
    (place, global): (IpAddr, bool),
) -> bool {
    reach(rules, method, url).is_ok_and(|found| found.iter().any(|rule| rule.admits(place, global)))
}

/// Every request that the laws ask about.
fn requests() -> impl Iterator<Item = (&'static str, Resource, (IpAddr, bool))> {
    let places = || PLACES.into_iter().map(|(place, global)| (address(place), global));
    ["GET", "POST", "BREW"].into_iter().flat_map(move |method| {
        URLS.into_iter().flat_map(move |text| places().map(move |place| (method, url(text), place)))
    })
}

proptest! {
    #[test]
    fn covering_is_reflexive(one in rules()) {
        prop_assert_eq!(covers(&one, &one), Ok(()));
    }

    #[test]
    fn covering_is_transitive(a in rules(), b in rules(), c in rules()) {
        if covers(&a, &b).is_ok() && covers(&b, &c).is_ok() {
            prop_assert_eq!(covers(&a, &c), Ok(()));
        }
        for (x, y, z) in a.iter().flat_map(|x| b.iter().map(move |y| (x, y)))
            .flat_map(|(x, y)| c.iter().map(move |z| (x, y, z))) {
            prop_assert!(!(x.covers(y) && y.covers(z)) || x.covers(z), "{} | {} | {}", x, y, z);
        }
    }

    #[test]
    fn what_a_covered_child_allows_its_parent_allows(parent in rules(), child in rules()) {
        let child: Vec<_> = child.into_iter()
            .filter(|rule| covers(&parent, std::slice::from_ref(rule)).is_ok()).collect();
        for (method, url, place) in requests() {
            prop_assert!(!allows(&child, method, &url, place)
                || allows(&parent, method, &url, place), "{} {} {:?}", method, url, place);
        }
    }

    #[test]
    fn a_refused_child_has_a_witness_that_proves_it(parent in rules(), child in rules()) {
        let Err(refused) = covers(&parent, &child) else { return Ok(()) };
        let witness = refused.witness.unwrap();
        let wide = child.iter().find(|rule| !parent.iter().any(|mine| mine.covers(rule))).unwrap();
        let words: Vec<_> = witness.split(' ').collect();
        if let [method, text, "at", place] = words[..] {
            let place = (address(place), is_public(place));
            prop_assert!(allows(&child, method, &url(text), place), "{}", witness);
            prop_assert!(!allows(&parent, method, &url(text), place), "{}", witness);
        } else if witness == wide.to_string() {
            // None was found: beside a single rule there always is one, unless one of the two
            // has ranges and the other leaves them to whoever knows which addresses are global.
            let apart = |mine: &HostRule| mine.ranges().is_empty() != wide.ranges().is_empty();
            prop_assert!(parent.len() > 1 || parent.iter().any(apart), "{}", witness);
        } else {
            let [method, text] = words[..] else { return Err(TestCaseError::fail(witness)) };
            prop_assert!(reach(&child, method, &url(text)).is_ok(), "{}", witness);
            prop_assert!(reach(&parent, method, &url(text)).is_err(), "{}", witness);
        }
    }

    #[test]
    fn a_meet_allows_no_more_than_every_link(links in prop::collection::vec(rules(), 1..4)) {
        let limits = links.iter().map(|hosts| Limits { hosts: hosts.clone(), ..Limits::default() });
        let meet = limits.clone().reduce(|one, two| one.meet(&two)).unwrap();
        let back = limits.rev().reduce(|one, two| one.meet(&two)).unwrap();
        for (method, url, place) in requests() {
            for met in [&meet.hosts, &back.hosts] {
                prop_assert!(!allows(met, method, &url, place)
                    || links.iter().all(|rules| allows(rules, method, &url, place)));
            }
        }
    }

    #[test]
    fn a_meet_with_what_narrows_is_what_narrows(parent in rules(), child in rules()) {
        let [parent, child] = [parent, child].map(|hosts| {
            Limits { hosts, ..Limits::default() }.checked().unwrap()
        });
        if parent.covers(&child).is_ok() {
            prop_assert_eq!(parent.meet(&child), child);
        }
    }

    #[test]
    fn a_gap_is_in_the_range_and_in_none_of_the_others(
        one in prop::sample::select(RANGES.to_vec()),
        others in prop::sample::subsequence(RANGES.to_vec(), 0..5),
    ) {
        let one = Range::parse(one).unwrap();
        let others: Vec<_> = others.iter().map(|text| Range::parse(text).unwrap()).collect();
        let gap = one.gap(&others.iter().collect::<Vec<_>>());
        let within = |place| others.iter().any(|range| range.contains(place));
        match gap {
            Some(place) => prop_assert!(one.contains(place) && !within(place)),
            None => {
                let places = PLACES.iter().map(|(place, _)| address(place));
                prop_assert!(places.filter(|place| one.contains(*place)).all(within));
            }
        }
    }
}

fn is_public(place: &str) -> bool {
    ["8.8.", "2600:"].iter().any(|start| place.starts_with(start))
}
