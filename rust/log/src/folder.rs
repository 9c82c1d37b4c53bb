//! One folder, held open: every file in it is reached from the open folder, without following
//! a symbolic link, and belongs to its owner alone.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::LogError;

const FILE: Mode = Mode::from_raw_mode(0o600);
const FOLDER: Mode = Mode::from_raw_mode(0o700);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder that exists.
    pub(crate) fn open(path: &Path) -> Result<Self, LogError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|e| failed("open", path, e))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a folder, after making it and those above it (0700) where they are missing.
    pub(crate) fn create(path: &Path) -> Result<Self, LogError> {
        let io = |source| LogError::Io { action: "create", path: path.to_owned(), source };
        let missing: Vec<_> = path.ancestors().take_while(|above| !above.exists()).collect();
        if !missing.is_empty() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        }
        for made in missing.iter().filter(|made| !made.as_os_str().is_empty()) {
            let above = made.parent().filter(|above| !above.as_os_str().is_empty());
            let above = File::open(above.unwrap_or(Path::new("."))).map_err(io)?;
            above.sync_all().map_err(io)?;
        }
        Self::open(path)
    }

    /// Opens a folder inside this one, or gives nothing when it is missing.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Self>, LogError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("open", &path, error)),
        }
    }

    /// Opens a folder inside this one, after making it (0700) where it is missing.
    pub(crate) fn make(&self, name: &str) -> Result<Self, LogError> {
        if let Some(found) = self.find(name)? {
            return Ok(found);
        }
        let path = self.path.join(name);
        match mkdirat(&self.fd, name, FOLDER) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => (),
            Err(error) => return Err(failed("create", &path, error)),
        }
        self.find(name)?.ok_or_else(|| failed("open", &path, Errno::NOENT))
    }

    /// Opens a file for reading, or gives nothing when it is missing.
    pub(crate) fn read(&self, name: &str) -> Result<Option<File>, LogError> {
        self.file(name, OFlags::RDONLY)
    }

    /// Opens a file for reading and writing, after making it (0600) where it is missing.
    pub(crate) fn write(&self, name: &str) -> Result<File, LogError> {
        if let Some(file) = self.file(name, OFlags::RDWR)? {
            return Ok(file);
        }
        let file = self.create_new(name)?;
        self.sync()?;
        Ok(file)
    }

    /// Makes an empty file (0600) where there is none. Its name is not synced.
    pub(crate) fn create_new(&self, name: &str) -> Result<File, LogError> {
        let file = self.file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        file.ok_or_else(|| failed("create", &self.path.join(name), Errno::NOENT))
    }

    /// Puts the bytes of a file on the disk; false when it is missing.
    pub(crate) fn sync_file(&self, name: &str) -> Result<bool, LogError> {
        let Some(file) = self.read(name)? else { return Ok(false) };
        let path = || self.path.join(name);
        file.sync_all().map_err(|source| LogError::Io { action: "sync", path: path(), source })?;
        Ok(true)
    }

    /// Removes a file; it may be missing. That it is gone is not synced.
    pub(crate) fn remove(&self, name: &str) -> Result<(), LogError> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &self.path.join(name), error)),
        }
    }

    /// The bytes of a small file, or nothing when it is missing.
    pub(crate) fn bytes(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, LogError> {
        let Some(file) = self.read(name)? else { return Ok(None) };
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|source| LogError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        if bytes.len() > most {
            return Err(LogError::Untrusted { path, why: format!("has more than {most} bytes") });
        }
        Ok(Some(bytes))
    }

    /// Puts a file in place in one step: a reader finds the old bytes or the new ones. With
    /// `durable`, they are also on the disk when this returns.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], durable: bool) -> Result<(), LogError> {
        let draft = format!("{name}.new");
        let path = self.path.join(name);
        self.remove(&draft)?;
        let io = |source| LogError::Io { action: "write", path: path.clone(), source };
        let mut file = self.create_new(&draft)?;
        file.write_all(bytes).map_err(io)?;
        if durable {
            file.sync_all().map_err(io)?;
        }
        renameat(&self.fd, &*draft, &self.fd, name).map_err(|e| failed("replace", &path, e))?;
        if durable { self.sync() } else { Ok(()) }
    }

    /// The names in the folder.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, LogError> {
        let wrong = |error| failed("list", &self.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(wrong)? {
            let name = entry.map_err(wrong)?.file_name().to_bytes().to_vec();
            names.push(OsString::from_vec(name));
        }
        Ok(names)
    }

    /// Makes new and changed names durable.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        rustix::fs::fsync(&self.fd).map_err(|error| failed("sync", &self.path, error))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str, flags: OFlags) -> Result<Option<File>, LogError> {
        let path = self.path.join(name);
        // A pipe in the place of a file does not make us wait.
        let safe = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&self.fd, name, flags | safe, FILE) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed("open", &path, error)),
        };
        match file.metadata() {
            Ok(data) if data.is_file() => Ok(Some(file)),
            Ok(_) => Err(LogError::Untrusted { path, why: "is not a regular file".to_owned() }),
            Err(source) => Err(LogError::Io { action: "look at", path, source }),
        }
    }
}

fn failed(action: &'static str, path: &Path, error: Errno) -> LogError {
    let path = path.to_owned();
    if error == Errno::LOOP {
        return LogError::Untrusted { path, why: "is a symbolic link; put the file there".into() };
    }
    LogError::Io { action, path, source: io::Error::from(error) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_refused_and_is_no_folder() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, [7; 10]).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        assert_eq!(folder.bytes("file", 10).unwrap(), Some(vec![7; 10]));
        assert!(matches!(folder.bytes("file", 9), Err(LogError::Untrusted { .. })));
        assert_eq!(folder.bytes("none", 9).unwrap(), None);
        assert!(folder.sync_file("file").unwrap() && !folder.sync_file("none").unwrap());
        assert!(Folder::open(&path).is_err() && folder.find("file").is_err());
    }
}
