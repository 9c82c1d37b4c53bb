//! A token's limits become the bounds of a run, and nothing more.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use moat_core::caveat::Limits;
use moat_core::pattern::Pattern;
use moat_sandbox::{Bounds, Dir, SandboxError};

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    let parsed = texts.iter().map(|text| Pattern::parse(text).unwrap());
    parsed.collect()
}

fn dirs(read: &[&str], write: &[&str]) -> Vec<(String, bool, bool)> {
    let (read, write) = (patterns(read), patterns(write));
    let limits = Limits { read, write, ..Limits::default() };
    let bounds = Bounds::from_limits(&limits).unwrap();
    let flat = |dir: Dir| (dir.path.to_str().unwrap().to_owned(), dir.read, dir.write);
    bounds.dirs.into_iter().map(flat).collect()
}

#[test]
fn no_limits_are_no_bounds() {
    assert_eq!(Bounds::from_limits(&Limits::default()).unwrap(), Bounds::default());
}

#[test]
fn numbers_are_taken_over() {
    let limits = Limits { fuel: 1, memory: 2, time_ms: 3, output: 4, ..Limits::default() };
    let bounds = Bounds::from_limits(&limits).unwrap();
    assert_eq!((bounds.fuel, bounds.memory, bounds.output), (1, 2, 4));
    assert_eq!(bounds.time, Duration::from_millis(3));
}

#[test]
fn a_tree_has_the_rights_of_the_trees_above_it() {
    let (a, ab, abc) = ("/a".to_owned(), "/a/b".to_owned(), "/abc".to_owned());
    assert_eq!(dirs(&["file:///a/**"], &[]), [(a.clone(), true, false)]);
    assert_eq!(dirs(&[], &["file:///a/**"]), [(a.clone(), false, true)]);
    assert_eq!(dirs(&["file:///a/**"], &["file:///a/**"]), [(a.clone(), true, true)]);
    assert_eq!(
        dirs(&["file:///a/**"], &["file:///a/b/**", "file:///abc/**"]),
        [(a, true, false), (ab, true, true), (abc, false, true)]
    );
    assert_eq!(dirs(&["file:///**"], &[]), [("/".to_owned(), true, false)]);
}

#[test]
fn what_is_no_tree_is_refused() {
    for text in ["file:///a/b", "file:///a/*", "file:///a/*/**", "https://a/**", "tool://a/**"] {
        let read = Limits { read: patterns(&[text]), ..Limits::default() };
        let write = Limits { write: patterns(&[text]), ..Limits::default() };
        for limits in [read, write] {
            let error = Bounds::from_limits(&limits).unwrap_err();
            assert!(matches!(error, SandboxError::Input(_)), "{text}: {error}");
        }
    }
}
