//! `covers` against brute force and against its laws.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::text::decode;
use super::super::{Index, Pattern, Resource, canonicalize};
use super::{covers, pattern};

/// Every `covers` between `patterns` must be containment over `resources`.
fn check_containment(patterns: &[Pattern], resources: &[Resource]) {
    let sets: Vec<Vec<bool>> =
        patterns.iter().map(|p| resources.iter().map(|r| p.matches(r)).collect()).collect();
    for (parent, all) in patterns.iter().zip(&sets) {
        for (child, some) in patterns.iter().zip(&sets) {
            let contained = all.iter().zip(some).all(|(&mine, &its)| mine || !its);
            assert_eq!(covers(parent, child), contained, "{parent} {child}");
        }
    }
}

fn words(alphabet: &[char], most: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..most {
        last = last.iter().flat_map(|w| alphabet.iter().map(move |c| format!("{w}{c}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn parsed<T>(texts: impl Iterator<Item = String>, parse: fn(&str) -> crate::Result<T>) -> Vec<T> {
    texts.filter_map(|text| parse(&text).ok()).collect()
}

#[test]
fn covers_is_containment_for_every_small_segment() {
    // A third letter stands for all that a pattern of two letters cannot name.
    let segments = words(&['a', 'b', '*'], 4).into_iter().filter(|s| !s.contains("**"));
    let patterns = parsed(segments.map(|s| format!("x://h/{s}")), Pattern::parse);
    let segments = words(&['a', 'b', 'c'], 6).into_iter();
    let resources = parsed(segments.map(|s| format!("x://h/{s}")), Resource::parse);
    assert_eq!((patterns.len(), resources.len()), (93, 1092));
    check_containment(&patterns, &resources);
}

#[test]
fn covers_is_containment_for_every_small_path() {
    let paths = |pool: &[&str], most: usize| {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..most {
            last = last.iter().flat_map(|p| pool.iter().map(move |s| format!("{p}/{s}"))).collect();
            all.extend(last.iter().cloned());
        }
        all
    };
    let short = paths(&["a", "b", "*", "a*", "*b"], 3).into_iter();
    let texts = short.flat_map(|p| [format!("x://h{p}"), format!("x://h{p}/**")]);
    let patterns = parsed(texts, Pattern::parse);
    let long = paths(&["a", "b", "c", "ab", "ac", "cb"], 4).into_iter();
    let resources = parsed(long.map(|p| format!("x://h{p}")), Resource::parse);
    assert_eq!((patterns.len(), resources.len()), (312, 1555));
    check_containment(&patterns, &resources);
}

#[test]
fn covers_is_containment_for_every_small_authority() {
    for (scheme, more) in [("x", &[""][..]), ("https", &["1.2.3.4", "[::1]"][..])] {
        let dotted = |most| {
            let words = words(&['a', 'b', 'c'], most).into_iter();
            let joined = words.map(|w| w.chars().map(String::from).collect::<Vec<_>>().join("."));
            let names = joined.chain(more.iter().map(|&name| name.to_owned()));
            names.flat_map(|name| [format!("{scheme}://{name}"), format!("{scheme}://{name}:8")])
        };
        // Resources have more labels, and one letter more, than patterns.
        let names = dotted(4);
        let short: Vec<String> = dotted(2).collect();
        let below = short.iter().map(|name| name.replacen("://", "://*.", 1));
        let mut patterns = parsed(short.iter().cloned().chain(below), Pattern::parse);
        patterns.retain(|p| !p.as_str().contains('c'));
        patterns.push(pattern(&format!("{scheme}://*")));
        assert!(patterns.len() > 24);
        check_containment(&patterns, &parsed(names, Resource::parse));
    }
}

fn segment(star: &'static str) -> impl Strategy<Value = String> {
    let pieces = select(vec!["a", "b", star, ".", "%20", "é", "\u{0301}", "0", "ab", "-"]);
    prop::collection::vec(pieces, 1..5).prop_map(|pieces| pieces.concat())
}

fn text(star: &'static str) -> impl Strategy<Value = String> {
    let scheme = select(vec!["x", "x", "https", "file"]);
    let names = ["", "a", star, "*.a", "b.a", "*.b.a", "c.b.a", "a:8", "*.a:8", "1.2.3.4", "x"];
    let authority = select(names.map(|name| name.replace('*', star)).to_vec());
    let path = prop::collection::vec(segment(star), 0..4);
    let end = if star == "*" { vec!["", "", "/**"] } else { vec![""] };
    (scheme, authority, path, select(end)).prop_map(|(scheme, authority, path, end)| {
        let authority = if scheme == "file" { "" } else { &authority };
        path.iter().fold(format!("{scheme}://{authority}"), |text, s| text + "/" + s) + end
    })
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    text("*").prop_filter_map("canonical", |text| Pattern::parse(&text).ok())
}

fn any_resource() -> impl Strategy<Value = Resource> {
    text("b").prop_filter_map("canonical", |text| Resource::parse(&text).ok())
}

/// A pattern and another that is often wider, made by loosening the first.
fn related() -> impl Strategy<Value = (Pattern, Pattern)> {
    (any_pattern(), any::<[bool; 4]>(), 0usize..6, any_pattern()).prop_map(
        |(child, how, at, other)| {
            let mut text = child.as_str().to_owned();
            if how[0] {
                text = text.trim_end_matches("/**").to_owned() + "/**";
            }
            if how[1] {
                text = text.replacen("b", "*", at).replace("**a", "*a").replace("***", "**");
            }
            if how[2] {
                text = text.replace("c.b.a", "*.a").replace("*.b.a", "*.a");
            }
            if how[3]
                && let Some(cut) = text.match_indices('/').nth(3 + at).map(|(cut, _)| cut)
            {
                text = format!("{}/**", &text[..cut]);
            }
            (Pattern::parse(&text).unwrap_or(other), child)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn covers_is_reflexive(p in any_pattern()) {
        prop_assert!(p.covers(&p));
        prop_assert_eq!(p.witness(&p), None);
    }

    #[test]
    fn covers_is_transitive((b, c) in related(), (a, _) in related(), wild in related()) {
        for a in [&a, &wild.0, &b] {
            prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        }
    }

    #[test]
    fn covers_is_sound((parent, child) in related(), r in any_resource()) {
        if covers(&parent, &child) && child.matches(&r) {
            prop_assert!(parent.matches(&r));
        }
    }

    #[test]
    fn a_witness_proves_every_no(parent in any_pattern(), child in any_pattern()) {
        covers(&parent, &child);
        covers(&child, &parent);
    }

    #[test]
    fn a_resource_is_the_pattern_that_matches_it_alone(p in any_pattern(), r in any_resource()) {
        let alone = pattern(r.as_str());
        prop_assert!(alone.matches(&r));
        prop_assert_eq!(p.covers(&alone), p.matches(&r));
    }

    #[test]
    fn an_index_leaves_out_nothing_that_matches((p, q) in related(), r in any_resource()) {
        let member = q.example().expect("every pattern has a member");
        let index = Index::new([&p, &q].into_iter());
        for r in [&r, &member] {
            let asked = RefCell::new(Vec::new());
            prop_assert_eq!(index.find(r, |at| { asked.borrow_mut().push(at); false }), None);
            let asked = asked.into_inner();
            prop_assert!(asked.len() <= 2, "each is asked about once");
            for (at, pattern) in [&p, &q].into_iter().enumerate() {
                prop_assert!(!pattern.matches(r) || asked.contains(&at), "{} {}", pattern, r);
            }
        }
    }

    #[test]
    fn a_canonical_text_is_its_own_repair(r in any_resource()) {
        let repaired = canonicalize(r.as_str());
        prop_assert_eq!(repaired.as_deref(), Ok(r.as_str()));
    }

    #[test]
    fn a_repair_is_canonical(text in "(https|file|tool)://[a-c.%/2eEfF5:é*\u{301}]{0,24}") {
        if let Ok(repaired) = canonicalize(&text) {
            prop_assert!(Resource::parse(&repaired).is_ok());
            prop_assert_eq!(canonicalize(&repaired), Ok(repaired));
        }
    }

    #[test]
    fn any_text_is_refused_or_kept(text in any::<String>(), tail in "\\PC{0,40}") {
        for text in [text.clone(), format!("x://{tail}"), format!("https://a/{tail}")] {
            if let Ok(r) = Resource::parse(&text) {
                prop_assert_eq!(r.as_str(), &text);
                prop_assert!(pattern(&text).matches(&r));
            }
            if let Ok(p) = Pattern::parse(&text) {
                prop_assert!(covers(&p, &p));
            }
            let _ = canonicalize(&text);
        }
    }

    #[test]
    fn decoding_is_one_to_one(a in any_resource(), b in any_resource()) {
        prop_assert_eq!(decode(a.as_str()) == decode(b.as_str()), a == b);
    }
}
