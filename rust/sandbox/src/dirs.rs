//! Opening a host directory for a guest without following a symbolic link anywhere.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::{Dir, SandboxError};

/// Preopens `dir` under its own path.
///
/// # Errors
/// [`SandboxError::Directory`] when the path is relative, holds `.` or `..`, is missing, is not a
/// directory, or has a symbolic link in any component; or when it carries no right.
pub(crate) fn preopen(wasi: &mut WasiCtxBuilder, dir: &Dir) -> Result<(), SandboxError> {
    let refuse = |why: &str| SandboxError::Directory { path: dir.path.clone(), why: why.into() };
    let name = dir.path.to_str().ok_or_else(|| refuse("the path is not utf-8"))?;
    if !plain(&dir.path) {
        return Err(refuse("give an absolute path without `.`, `..` or doubled slashes"));
    }
    let perms = match (dir.read, dir.write) {
        (true, false) => FsPerms::ReadOnly,
        (_, true) => FsPerms::ReadWrite,
        (false, false) => return Err(refuse("it is neither readable nor writable; leave it out")),
    };
    open(wasi, &dir.path, name, perms).map_err(|why| refuse(&why))
}

/// Whether neither path is the other or lies in it.
///
/// # Errors
/// [`SandboxError::Directory`] when one of them cannot be looked at.
pub(crate) fn apart(one: &Path, other: &Path) -> Result<bool, SandboxError> {
    let (a, b) = (Place::find(one)?, Place::find(other)?);
    Ok(!a.holds(&b) && !b.holds(&a))
}

/// Where a path leads: its name, and the files that it and all above it are, as far as they exist.
struct Place {
    name: PathBuf,
    file: Option<FileId>,
    above: Vec<FileId>,
}

/// Device and number: what a file is, by whatever name.
type FileId = (u64, u64);

impl Place {
    fn find(path: &Path) -> Result<Self, SandboxError> {
        Self::look(path)
            .map_err(|error| SandboxError::Directory { path: path.into(), why: error.to_string() })
    }

    fn look(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        for part in path.ancestors() {
            let real = match part.canonicalize() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                real => real?,
            };
            let id = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino()));
            let above = real.ancestors().map(id).collect::<io::Result<Vec<_>>>()?;
            let missing = path.strip_prefix(part).map_err(io::Error::other)?;
            let whole = missing.as_os_str().is_empty();
            let file = above.first().copied().filter(|_| whole);
            let name = if whole { real } else { real.join(missing) };
            return Ok(Self { name, file, above });
        }
        Err(io::Error::other("not even its root is there"))
    }

    /// Whether the other is this one or lies in it.
    fn holds(&self, other: &Self) -> bool {
        other.name.starts_with(&self.name)
            || self.file.is_some_and(|file| other.above.contains(&file))
    }
}

/// Whether the text of the path is exactly its components.
fn plain(path: &Path) -> bool {
    let mut parts = path.components();
    let rooted = matches!(parts.next(), Some(Component::RootDir));
    let mut whole = String::new();
    for part in parts {
        let Component::Normal(name) = part else {
            return false;
        };
        whole.push('/');
        whole.push_str(name.to_str().unwrap_or_default());
    }
    rooted && path.to_str() == Some(if whole.is_empty() { "/" } else { &whole })
}

/// Walks to the directory one component at a time, then preopens the very directory it reached.
#[cfg(target_os = "linux")]
fn open(wasi: &mut WasiCtxBuilder, path: &Path, name: &str, perms: FsPerms) -> Result<(), String> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;

    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| e.to_string())?;
    for part in path.components().skip(1) {
        at = rustix::fs::openat(&at, part.as_os_str(), flags, Mode::empty()).map_err(|error| {
            let part = part.as_os_str().display();
            match error {
                Errno::NOTDIR | Errno::LOOP => {
                    format!("`{part}` is a symbolic link or not a directory; name the real one")
                }
                Errno::NOENT => format!("`{part}` does not exist; make it first"),
                error => format!("`{part}`: {error}"),
            }
        })?;
    }
    // This names the descriptor, not the path: nothing is looked up again.
    let held = format!("/proc/self/fd/{}", at.as_raw_fd());
    match wasi.preopened_dir(held, name, perms) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error}; `/proc` must be mounted")),
    }
}

/// Elsewhere the path is compared with its canonical form just before it is opened.
#[cfg(not(target_os = "linux"))]
fn open(wasi: &mut WasiCtxBuilder, path: &Path, name: &str, perms: FsPerms) -> Result<(), String> {
    let real = std::fs::canonicalize(path).map_err(|e| e.to_string())?;
    if real != path {
        return Err(format!("it holds a symbolic link; name `{}`", real.display()));
    }
    match wasi.preopened_dir(path, name, perms) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
