//! Where a file may be opened: in which tree, and whether it may be written there.

use super::Limits;
use crate::autorun::runs_by_itself;
use crate::error::{Axis, Error, Reason, Result};
use crate::pattern::Pattern;

impl Limits {
    /// The deepest directory that these limits let be opened for this, so that what lies between
    /// it and the path is all that is left to be walked. `path` is absolute and names a file.
    ///
    /// # Errors
    /// `malformed` where the path has another form; `not_granted` where no tree holds it;
    /// `forbidden` where it would be written and runs by itself (spec/files.md), in every tree
    /// that holds it.
    pub fn tree(&self, path: &str, read: bool, write: bool) -> Result<&str> {
        check_path(path)?;
        let mut found = None;
        for (asked, axis, trees) in
            [(read, Axis::Read, &self.read), (write, Axis::Write, &self.write)]
        {
            if !asked {
                continue;
            }
            let holding = || trees.iter().filter_map(|tree| Some((tree, below(tree, path)?)));
            let may = |rest: &str| axis == Axis::Read || !runs_by_itself(rest.split('/'));
            let fit = holding().filter(|(_, rest)| may(rest)).filter_map(|(tree, _)| tree.tree());
            match (fit.max_by_key(|tree| tree.len()), holding().next()) {
                (Some(tree), _) => found = found.max_by_len(tree),
                (None, Some(_)) => return Err(self_running(path).on(axis)),
                (None, None) => return Err(not_granted(path, axis)),
            }
        }
        found.ok_or_else(|| Error::malformed("a file is opened to be read, written or both"))
    }
}

trait Longer<'a> {
    fn max_by_len(self, other: &'a str) -> Option<&'a str>;
}

impl<'a> Longer<'a> for Option<&'a str> {
    fn max_by_len(self, other: &'a str) -> Self {
        self.filter(|one| one.len() >= other.len()).or(Some(other))
    }
}

/// What is left of the path below a tree.
fn below<'a>(tree: &Pattern, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(tree.tree()?.trim_end_matches('/'))?;
    rest.strip_prefix('/')
}

fn check_path(path: &str) -> Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(plain) && !path.contains('\0') => Ok(()),
        _ => Err(Error::malformed(format!(
            "`{}` is not an absolute path without `.`, `..` and doubled or final slashes",
            path.escape_debug()
        ))),
    }
}

fn not_granted(path: &str, axis: Axis) -> Error {
    let detail = format!("no tree under `{}` holds `{}`", axis.code(), path.escape_debug());
    Error::new(Reason::NotGranted, detail).on(axis)
}

fn self_running(path: &str) -> Error {
    let path = path.escape_debug();
    let detail =
        format!("`{path}` runs by itself; only a tree that names its folder lets it be written");
    Error::new(Reason::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn limits(read: &[&str], write: &[&str]) -> Limits {
        let trees = |all: &[&str]| all.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Limits { read: trees(read), write: trees(write), ..Limits::default() }
    }

    #[test]
    fn a_file_is_opened_in_the_deepest_tree_that_holds_it() {
        let some = limits(&["file:///data/**", "file:///data/a/b/**"], &["file:///data/a/**"]);
        assert_eq!(some.tree("/data/x", true, false).unwrap(), "/data");
        assert_eq!(some.tree("/data/a/b/x", true, false).unwrap(), "/data/a/b");
        assert_eq!(some.tree("/data/a/x", true, true).unwrap(), "/data/a");
        assert_eq!(some.tree("/data/a/b/x", true, true).unwrap(), "/data/a/b");
        assert_eq!(limits(&["file:///**"], &[]).tree("/x", true, false).unwrap(), "/");
    }

    #[test]
    fn what_no_tree_holds_is_refused_on_its_axis() {
        let some = limits(&["file:///data/**"], &["file:///out/**"]);
        for (path, read, write, axis) in [
            ("/data", true, false, Axis::Read),
            ("/database/x", true, false, Axis::Read),
            ("/out/x", true, false, Axis::Read),
            ("/data/x", false, true, Axis::Write),
            ("/data/x", true, true, Axis::Write),
        ] {
            let error = some.tree(path, read, write).unwrap_err();
            assert_eq!((error.reason, error.axis), (Reason::NotGranted, Some(axis)), "{path}");
        }
    }

    #[test]
    fn a_path_in_another_form_is_no_path() {
        let all = limits(&["file:///**"], &["file:///**"]);
        for path in ["", "/", "x", "./x", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\0b", "//a"] {
            let error = all.tree(path, true, false).unwrap_err();
            assert_eq!(error.reason, Reason::Malformed, "{path}");
        }
        assert!(all.tree("/x", false, false).is_err());
    }

    #[test]
    fn what_runs_by_itself_is_read_but_written_only_where_a_tree_names_it() {
        let some = limits(&["file:///repo/**"], &["file:///repo/**"]);
        let hook = "/repo/.git/hooks/pre-commit";
        assert!(some.tree(hook, true, false).is_ok());
        assert_eq!(some.tree(hook, false, true).unwrap_err().reason, Reason::Forbidden);
        let named = limits(&[], &["file:///repo/**", "file:///repo/.git/hooks/**"]);
        assert_eq!(named.tree(hook, false, true).unwrap(), "/repo/.git/hooks");
        assert!(named.tree("/repo/.git/config", false, true).is_err());
    }
}
