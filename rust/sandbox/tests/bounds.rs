//! A token's limits become the bounds of a run, and nothing more.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
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

/// A state folder with keys, a directory apart from it, and names that lead elsewhere.
fn places() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("state/keys/old")).unwrap();
    std::fs::create_dir_all(root.join("state/desk")).unwrap();
    std::fs::create_dir_all(root.join("keys")).unwrap();
    (folder, root)
}

fn apart(path: PathBuf, folder: &Path) -> Result<(), SandboxError> {
    [(true, false), (false, true)].into_iter().try_for_each(|(read, write)| {
        let dirs = vec![Dir { path: path.clone(), read, write }];
        Bounds { dirs, ..Bounds::default() }.keep_apart(&[folder.to_path_buf()])
    })
}

#[test]
fn a_directory_that_reaches_a_protected_folder_is_refused() {
    let (_folder, root) = places();
    let keys = root.join("state/keys");
    for place in ["state/keys", "state/keys/old", "state/keys/not/there", "state", "", "/"] {
        let error = apart(root.join(place), &keys).unwrap_err();
        assert!(matches!(error, SandboxError::Exposed { .. }), "{place}: {error}");
    }
    for place in ["state/desk", "keys", "state/keys2", "state/key", "not/there"] {
        apart(root.join(place), &keys).unwrap();
    }
    Bounds::default().keep_apart(&[keys]).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_this_process_is_protected_whatever_is_named() {
    for place in ["/proc", "/proc/self", "/proc/1", "/proc/self/task", "/"] {
        let dirs = vec![Dir { path: place.into(), read: true, write: false }];
        let error = Bounds { dirs, ..Bounds::default() }.keep_apart(&[]).unwrap_err();
        assert!(matches!(error, SandboxError::Exposed { .. }), "{place}: {error}");
    }
}

#[test]
fn a_link_in_either_path_hides_nothing() {
    let (_folder, root) = places();
    std::os::unix::fs::symlink(root.join("state"), root.join("alias")).unwrap();
    std::os::unix::fs::symlink(root.join("state/keys"), root.join("desk")).unwrap();
    for (place, folder) in [
        ("alias", "state/keys"),
        ("alias/keys", "state/keys"),
        ("alias/keys/new", "state/keys"),
        ("desk", "state/keys"),
        ("desk/old", "state/keys"),
        ("state", "alias/keys"),
        ("state/keys/old", "desk"),
        ("alias", "desk"),
    ] {
        let error = apart(root.join(place), &root.join(folder)).unwrap_err();
        assert!(matches!(error, SandboxError::Exposed { .. }), "{place} {folder}: {error}");
    }
    apart(root.join("alias/desk"), &root.join("state/keys")).unwrap();
}

#[test]
fn a_protected_folder_that_is_not_there_yet_is_kept_apart_too() {
    let (_folder, root) = places();
    let control = root.join("state/control");
    for place in ["state", "state/control", "state/control/in"] {
        let error = apart(root.join(place), &control).unwrap_err();
        assert!(matches!(error, SandboxError::Exposed { .. }), "{place}: {error}");
    }
    apart(root.join("state/desk"), &control).unwrap();
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let (_folder, root) = places();
    std::fs::write(root.join("file"), "").unwrap();
    std::os::unix::fs::symlink(root.join("round"), root.join("round")).unwrap();
    for place in ["file/below", "round", "round/below"] {
        let error = apart(root.join(place), &root.join("state")).unwrap_err();
        assert!(matches!(error, SandboxError::Directory { .. }), "{place}: {error}");
        assert!(apart(root.join("keys"), &root.join(place)).is_err());
    }
}
