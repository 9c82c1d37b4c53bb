//! Opening a host directory for a guest without following a symbolic link anywhere.

use std::path::{Component, Path};

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
