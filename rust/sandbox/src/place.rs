//! Where a guest's path leads, found before anything is written there (spec/files.md).
//!
//! The way is walked one name at a time, by handles, and through no symbolic link: what is asked
//! of the place that was reached holds for the file that is then written, whatever is renamed
//! meanwhile.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use moat_core::autorun::{makes_run, runs_by_itself};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

/// The trees that may be written, by their paths on the host.
pub(crate) type Trees = Arc<[PathBuf]>;

#[cfg(any(target_os = "linux", target_os = "android"))]
const LOOK: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LOOK: OFlags = OFlags::RDONLY;

/// A directory that is held, and one name in it; `.` is the directory itself.
pub(crate) struct Place {
    pub(crate) dir: File,
    pub(crate) name: String,
    found: Option<Stat>,
}

impl Place {
    /// Walks below a directory to where something is to be written.
    ///
    /// # Errors
    /// `LOOP` or `NOTDIR` at a symbolic link, `PERM` where the way leads out of the directory,
    /// `ACCESS` where the place lies in none of the trees or runs by itself.
    pub(crate) fn find(base: &File, path: &str, trees: &Trees) -> io::Result<Self> {
        let (way, name, folder) = split(path)?;
        let dir = walk(base, &way)?;
        let found = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            found => Some(found?),
        };
        let place = Self { dir, name: name.to_owned(), found };
        if folder && place.kind().is_some_and(|kind| kind != FileType::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        admit(&place.whole()?, trees)?;
        Ok(place)
    }

    /// Refuses to move what changes its meaning with its place: a symbolic link, and a folder
    /// whose name makes what is in it run by itself, before or afterwards.
    pub(crate) fn moves_to(&self, new: &Self) -> io::Result<()> {
        match self.kind() {
            Some(FileType::Symlink) => Err(Errno::LOOP.into()),
            Some(FileType::Directory) if makes_run(&self.name) || makes_run(&new.name) => {
                Err(Errno::ACCESS.into())
            }
            _ => Ok(()),
        }
    }

    /// Refuses to give another name to anything but a regular file.
    pub(crate) fn is_linked(&self) -> io::Result<()> {
        match self.kind() {
            None | Some(FileType::RegularFile) => Ok(()),
            Some(FileType::Symlink) => Err(Errno::LOOP.into()),
            Some(_) => Err(Errno::PERM.into()),
        }
    }

    /// Refuses to change a symbolic link, or a file that has another name.
    pub(crate) fn is_changed(&self) -> io::Result<()> {
        match &self.found {
            Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Symlink => {
                Err(Errno::LOOP.into())
            }
            Some(found) => alone(found),
            None => Ok(()),
        }
    }

    fn kind(&self) -> Option<FileType> {
        self.found.map(|found| FileType::from_raw_mode(found.st_mode))
    }

    fn whole(&self) -> io::Result<PathBuf> {
        let dir = path_of(&self.dir)?;
        Ok(if self.name == "." { dir } else { dir.join(&self.name) })
    }
}

/// Refuses an open file or directory that must not be changed, by where it is now.
pub(crate) fn changes(file: &File, trees: &Trees) -> io::Result<()> {
    alone(&rustix::fs::fstat(file)?)?;
    admit(&path_of(file)?, trees)
}

/// Refuses a file with more than one name: another may be outside, or run by itself.
pub(crate) fn only_name(file: &File) -> io::Result<()> {
    alone(&rustix::fs::fstat(file)?)
}

fn alone(found: &Stat) -> io::Result<()> {
    let regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    if regular && found.st_nlink > 1 { Err(Errno::ACCESS.into()) } else { Ok(()) }
}

/// Allows what some tree holds and, as seen from there, does not run by itself.
fn admit(path: &Path, trees: &Trees) -> io::Result<()> {
    let is_data = |below: &Path| {
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        !runs_by_itself(parts.iter().map(AsRef::as_ref))
    };
    let mut below = trees.iter().filter_map(|tree| path.strip_prefix(tree).ok());
    if below.any(is_data) { Ok(()) } else { Err(Errno::ACCESS.into()) }
}

/// The names on the way, the last name, and whether only a directory may be meant.
fn split(path: &str) -> io::Result<(Vec<&str>, &str, bool)> {
    if path.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if path.starts_with('/') {
        return Err(Errno::PERM.into());
    }
    let mut way: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let last = way.pop_if(|part| *part != "..").unwrap_or(".");
    Ok((way, last, path.ends_with('/') || path.ends_with("/.")))
}

fn walk(base: &File, way: &[&str]) -> io::Result<File> {
    let flags = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut held = vec![File::from(openat(base, ".", flags, Mode::empty())?)];
    for part in way {
        if *part == ".." {
            held.pop();
        }
        let Some(at) = held.last() else {
            return Err(Errno::PERM.into());
        };
        if *part != ".." {
            let next = openat(at, *part, flags, Mode::empty())?;
            held.push(next.into());
        }
    }
    held.pop().ok_or_else(|| Errno::PERM.into())
}

/// Where an open file or directory is now, as the kernel says it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn path_of(file: &File) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;

    plain(std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
}

#[cfg(target_vendor = "apple")]
fn path_of(file: &File) -> io::Result<PathBuf> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    plain(OsStr::from_bytes(rustix::fs::getpath(file)?.as_bytes()).into())
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn path_of(_: &File) -> io::Result<PathBuf> {
    Err(Errno::ACCESS.into())
}

/// What cannot be reached from the root has no path that means anything.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn plain(path: PathBuf) -> io::Result<PathBuf> {
    let mut parts = path.components();
    let rooted = parts.next() == Some(Component::RootDir);
    if rooted && parts.all(|part| matches!(part, Component::Normal(_))) {
        Ok(path)
    } else {
        Err(Errno::ACCESS.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_way_and_its_last_name() {
        let found = |path| split(path).ok();
        assert_eq!(found("a"), Some((vec![], "a", false)));
        assert_eq!(found("./a//b/"), Some((vec!["a"], "b", true)));
        assert_eq!(found("a/.."), Some((vec!["a", ".."], ".", false)));
        assert_eq!(found("a/."), Some((vec![], "a", true)));
        assert_eq!(found("."), Some((vec![], ".", false)));
        for path in ["", "/", "/a"] {
            assert!(split(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_tree_decides_by_what_is_below_it() {
        let trees: Trees = ["/repo", "/deep/.git/hooks", "/etc/.config"].map(Into::into).into();
        for path in ["/repo", "/repo/a", "/deep/.git/hooks/x", "/etc/.config/fish/x"] {
            assert!(admit(Path::new(path), &trees).is_ok(), "{path}");
        }
        for path in ["/", "/repos/a", "/repo/.git", "/repo/.GIT/x", "/deep/.git/x", "/deep/x"] {
            assert!(admit(Path::new(path), &trees).is_err(), "{path}");
        }
    }
}
