//! Patterns: one spelling, an exact order, a true witness. The input is lines, and what they name
//! is compared with each other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_core::pattern::{Index, Pattern, Resource, canonicalize};

fuzz_target!(|text: &str| {
    let lines: Vec<_> = text.split('\n').take(16).collect();
    lines.iter().for_each(|line| one_spelling(line));
    let patterns = lines.iter().filter_map(|line| Pattern::parse(line).ok());
    let patterns: Vec<_> = patterns.take(8).collect();
    let mut resources: Vec<_> =
        lines.iter().filter_map(|line| Resource::parse(line).ok()).collect();
    resources.extend(patterns.iter().filter_map(Pattern::example));
    for parent in &patterns {
        assert!(parent.covers(parent));
        for child in &patterns {
            order(parent, child, &patterns, &resources);
        }
    }
    resources.iter().for_each(|resource| found(&patterns, resource));
});

fn one_spelling(text: &str) {
    if let Ok(pattern) = Pattern::parse(text) {
        assert_eq!(pattern.to_string(), text);
        let example = pattern.example().expect("every pattern matches something");
        assert!(pattern.matches(&example));
        assert_eq!(pattern.tree().is_some(), is_tree(text), "{text}");
    }
    if let Ok(resource) = Resource::parse(text) {
        assert_eq!(resource.to_string(), text);
        assert_eq!(canonicalize(text).as_deref(), Ok(text));
        // A resource is the pattern of itself alone.
        let alone = Pattern::parse(text).expect("a resource is a pattern");
        assert!(alone.matches(&resource));
        assert_eq!(alone.example(), Some(resource));
    }
    if let Ok(canonical) = canonicalize(text) {
        assert!(Resource::parse(&canonical).is_ok(), "{canonical}");
        assert_eq!(canonicalize(&canonical), Ok(canonical));
    }
}

fn is_tree(text: &str) -> bool {
    let stem = text.strip_prefix("file:///").and_then(|rest| rest.strip_suffix("**"));
    stem.is_some_and(|stem| !stem.contains('*'))
}

fn order(parent: &Pattern, child: &Pattern, patterns: &[Pattern], resources: &[Resource]) {
    let witness = parent.witness(child);
    if parent.covers(child) {
        assert_eq!(witness, None);
        for below in patterns.iter().filter(|below| child.covers(below)) {
            assert!(parent.covers(below), "{parent} {child} {below}");
        }
        for resource in resources.iter().filter(|resource| child.matches(resource)) {
            assert!(parent.matches(resource), "{parent} {child} {resource}");
        }
    } else {
        let witness = witness.expect("a refusal has a witness");
        assert!(child.matches(&witness) && !parent.matches(&witness), "{parent} {child} {witness}");
    }
    if parent.covers(child) && child.covers(parent) {
        assert_eq!(parent, child, "equal sets have one spelling");
    }
}

/// `spec/pattern.md` read plainly: as a check on what is fast.
fn takes(pattern: &str, resource: &str) -> bool {
    let (scheme, pattern) = pattern.split_once("://").expect("a pattern has a scheme");
    let Some(resource) = resource.strip_prefix(&format!("{scheme}://")) else { return false };
    let (mut wanted, mut given) = (pattern.split('/'), resource.split('/'));
    let (scope, authority) = (wanted.next().unwrap_or(""), given.next().unwrap_or(""));
    let labels = scope.strip_prefix('*').filter(|rest| rest.starts_with('.'));
    let reached = match labels {
        Some(suffix) => authority.strip_suffix(suffix).is_some_and(|start| !start.is_empty()),
        None => scope == "*" || scope == authority,
    };
    reached
        && loop {
            match (wanted.next(), given.next()) {
                (Some("**"), _) | (None, None) => break true,
                (Some(glob), Some(segment)) if run(&chars(glob), &chars(segment)) => {}
                _ => break false,
            }
        }
}

/// An escape is one character.
fn chars(mut segment: &str) -> Vec<&str> {
    let mut chars = Vec::new();
    while let Some(first) = segment.chars().next() {
        let size = if first == '%' { 3 } else { first.len_utf8() };
        let (char, rest) = segment.split_at(size);
        chars.push(char);
        segment = rest;
    }
    chars
}

/// Row by row: which starts of the segment the pattern's start takes.
fn run(glob: &[&str], segment: &[&str]) -> bool {
    let mut row = vec![false; segment.len() + 1];
    row[0] = true;
    for want in glob {
        let before = row.clone();
        for (at, cell) in row.iter_mut().enumerate() {
            *cell = match *want {
                "*" => before[..=at].contains(&true),
                _ => at > 0 && before[at - 1] && segment[at - 1] == *want,
            };
        }
    }
    row[segment.len()]
}

/// The index finds what a look at every pattern finds.
fn found(patterns: &[Pattern], resource: &Resource) {
    let index = Index::new(patterns.iter());
    for (at, pattern) in patterns.iter().enumerate() {
        let plainly = takes(pattern.as_str(), resource.as_str());
        assert_eq!(pattern.matches(resource), plainly, "{pattern} {resource}");
        let found = index.find(resource, |other| other == at && pattern.matches(resource));
        assert_eq!(found.is_some(), pattern.matches(resource), "{pattern} {resource}");
    }
}
