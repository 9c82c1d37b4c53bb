//! Compiled code in a folder, each entry authenticated.
//!
//! An entry is `head ‖ artifact`; its name is the SHA-256 of the WebAssembly in hex, and then
//! [`UNMETERED`] where the code counts no fuel. The head:
//!
//! | bytes | what |
//! | --- | --- |
//! | 16 | [`MAGIC`]: the kind and version of this format |
//! | 32 | digest of the compiler: its version, target and settings |
//! | 32 | SHA-256 of the WebAssembly |
//! | 8 | bytes of the artifact, little endian |
//! | 32 | HMAC-SHA-256 over all of the above and the artifact |
//!
//! INVARIANT: an entry is read once, into memory of this process, and it is that memory which is
//! authenticated and then run; what happens to the file meanwhile changes nothing. An entry that is
//! anything else than what was written here under the same key is as good as none.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::process::geteuid;
use sha2::Sha256;

use crate::artifact::{ARTIFACT_BYTES, Artifact};
use crate::{Meter, SandboxError};

/// Most bytes of all entries together; those used longest ago go first.
pub const CACHE_BYTES: u64 = 1 << 30;

const MAGIC: &[u8; 16] = b"moat code cache1";
const TAG: usize = 16 + 32 + 32 + 8;
const HEAD: usize = TAG + 32;
const UNMETERED: &str = "-unmetered";
const DOMAIN: &[u8] = b"moat-code-cache-v1";
const OTHERS: u32 = 0o077;

/// A folder of compiled code. Cheap to clone, and safe across threads and processes.
#[derive(Clone)]
pub struct CodeCache(Arc<Inner>);

struct Inner {
    path: PathBuf,
    folder: OwnedFd,
    mac: Hmac<Sha256>,
    most: u64,
    counted: [AtomicU64; 4],
}

impl fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodeCache").field(&self.0.path).finish()
    }
}

/// What happened at a cache since it was opened here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Loads that found their code.
    pub found: u64,
    /// Loads that found no entry.
    pub missed: u64,
    /// Entries that were not believed: changed, cut, of other code, another key or version.
    pub refused: u64,
    /// Entries that could not be written.
    pub unwritten: u64,
}

#[derive(Clone, Copy)]
enum Count {
    Found,
    Missed,
    Refused,
    Unwritten,
}

/// What a piece of code is asked for by: the compiler's digest, and that of the WebAssembly. The
/// compiler's differs with the meter too, so neither is taken for the other.
pub(crate) struct Name {
    pub(crate) environment: [u8; 32],
    pub(crate) sha256: [u8; 32],
    pub(crate) meter: Meter,
}

impl CodeCache {
    /// Opens a folder, or makes it (0700) in one that exists. The key is secret: who has it can
    /// write code that is run. It serves for nothing else.
    ///
    /// # Errors
    /// [`SandboxError::Cache`] where the folder is a symbolic link, belongs to somebody else, is
    /// open to others, or cannot be made.
    pub fn open(folder: &Path, key: &[u8; 32]) -> Result<Self, SandboxError> {
        Self::with_room(folder, key, CACHE_BYTES)
    }

    fn with_room(folder: &Path, key: &[u8; 32], most: u64) -> Result<Self, SandboxError> {
        let refused = |why: String| SandboxError::Cache { path: folder.to_owned(), why };
        let system = |error: rustix::io::Errno| {
            refused(io::Error::from(error).kind().to_string().to_lowercase())
        };
        match fs::mkdir(folder, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(system(error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let opened = fs::open(folder, flags, Mode::empty()).map_err(system)?;
        let found = fs::fstat(&opened).map_err(system)?;
        if found.st_uid != geteuid().as_raw() {
            return Err(refused("it belongs to another user".into()));
        }
        if found.st_mode & OTHERS != 0 {
            let why = "it is open to other users; look what is in it, then `chmod go-rwx`";
            return Err(refused(why.into()));
        }
        let mac = keyed(&keyed(key)?.chain_update(DOMAIN).finalize().into_bytes().into())?;
        let path = folder.to_owned();
        Ok(Self(Arc::new(Inner { path, folder: opened, mac, most, counted: Default::default() })))
    }

    /// Where it lies, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        let [found, missed, refused, unwritten] =
            self.0.counted.each_ref().map(|count| count.load(Ordering::Relaxed));
        CacheCounts { found, missed, refused, unwritten }
    }

    /// The code of this name, if there is an entry that was written here.
    pub(crate) fn get(&self, name: &Name) -> Option<Artifact> {
        let (counted, found) = match self.read(name) {
            Ok(Some(buffer)) if self.authentic(name, &buffer) => {
                (Count::Found, Some(Artifact::vouched(buffer, HEAD)))
            }
            Err(rustix::io::Errno::NOENT) => (Count::Missed, None),
            _ => (Count::Refused, None),
        };
        self.count(counted);
        found
    }

    /// Writes an entry in the place of whatever is there. A failure is counted, and no more: the
    /// code is compiled again the next time.
    pub(crate) fn put(&self, name: &Name, artifact: &Artifact) {
        if self.write(name, artifact.bytes()).is_err() {
            self.count(Count::Unwritten);
        }
    }

    fn count(&self, what: Count) {
        if let Some(counter) = self.0.counted.get(what as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A whole entry, once; `None` for what is no file of ours.
    fn read(&self, name: &Name) -> rustix::io::Result<Option<Vec<u8>>> {
        // Opening a pipe without somebody at its other end would wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(&self.0.folder, name.file(), flags, Mode::empty())?;
        let found = fs::fstat(&file)?;
        let size = usize::try_from(found.st_size).unwrap_or(usize::MAX);
        let ours = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
            && found.st_uid == geteuid().as_raw()
            && found.st_mode & OTHERS == 0;
        if !ours || !(HEAD..=HEAD + ARTIFACT_BYTES).contains(&size) {
            return Ok(None);
        }
        // Used now: who was used longest ago goes first.
        let now = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
        let _ = fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        let mut buffer = Vec::with_capacity(size);
        let limit = u64::try_from(size).unwrap_or(u64::MAX);
        let read = std::fs::File::from(file).take(limit).read_to_end(&mut buffer);
        Ok((read.is_ok_and(|read| read == size)).then_some(buffer))
    }

    fn authentic(&self, name: &Name, buffer: &[u8]) -> bool {
        let Some((head, artifact)) = buffer.split_at_checked(HEAD) else { return false };
        let (said, tag) = head.split_at(TAG);
        said == name.head(artifact.len())
            && self
                .0
                .mac
                .clone()
                .chain_update(said)
                .chain_update(artifact)
                .verify_slice(tag)
                .is_ok()
    }

    fn write(&self, name: &Name, artifact: &[u8]) -> io::Result<()> {
        let size = u64::try_from(HEAD.saturating_add(artifact.len())).unwrap_or(u64::MAX);
        if size > self.0.most || artifact.len() > ARTIFACT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let head = name.head(artifact.len());
        let tag = self.0.mac.clone().chain_update(head).chain_update(artifact).finalize();
        let folder = &self.0.folder;
        let draft = draft()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = fs::openat(folder, &draft, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(file);
        // Not put on the disk for certain: what a crash leaves of it is not believed.
        let written = (file.write_all(&head))
            .and_then(|()| file.write_all(&tag.into_bytes()))
            .and_then(|()| file.write_all(artifact))
            .and_then(|()| Ok(fs::renameat(folder, &draft, folder, name.file())?));
        if written.is_err() {
            let _ = fs::unlinkat(folder, &draft, AtFlags::empty());
            return written;
        }
        self.make_room()
    }

    /// Removes what was used longest ago, until the rest fits.
    fn make_room(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.0.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !ours(name.to_bytes()) {
                continue;
            }
            // Another process may have removed it.
            if let Ok(found) = fs::statat(&self.0.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                let size = u64::try_from(found.st_size).unwrap_or(0);
                entries.push((found.st_mtime, found.st_mtime_nsec, name.to_owned(), size));
            }
        }
        entries.sort_unstable();
        let mut total: u64 = entries.iter().map(|(.., size)| size).sum();
        for (.., name, size) in entries {
            if total <= self.0.most {
                break;
            }
            let _ = fs::unlinkat(&self.0.folder, name, AtFlags::empty());
            total = total.saturating_sub(size);
        }
        Ok(())
    }
}

impl Name {
    fn file(&self) -> String {
        let sha256 = hex(&self.sha256);
        match self.meter {
            Meter::Fuel => sha256,
            Meter::Time => sha256 + UNMETERED,
        }
    }

    /// The head of an entry without its tag.
    fn head(&self, size: usize) -> [u8; TAG] {
        let mut head = [0; TAG];
        let size = u64::try_from(size).unwrap_or(u64::MAX).to_le_bytes();
        let parts = [&MAGIC[..], &self.environment, &self.sha256, &size].concat();
        head.copy_from_slice(&parts);
        head
    }
}

fn keyed(key: &[u8; 32]) -> Result<Hmac<Sha256>, SandboxError> {
    let wrong = |_| SandboxError::Internal("the key of a MAC has the wrong size".into());
    Hmac::new_from_slice(key).map_err(wrong)
}

/// A name that nobody else uses while it is written.
fn draft() -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    Ok(format!(".{}.tmp", hex(&random)))
}

/// Whether a file's name is one that is given here: anything else in the folder is left alone.
fn ours(name: &[u8]) -> bool {
    let stem = match name.strip_prefix(b".") {
        Some(rest) => rest.strip_suffix(b".tmp").filter(|stem| stem.len() == 16),
        None => {
            let stem = name.strip_suffix(UNMETERED.as_bytes()).unwrap_or(name);
            Some(stem).filter(|stem| stem.len() == 64)
        }
    };
    stem.is_some_and(|stem| stem.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const CODE: &[u8] = b"machine code";

    fn name(number: u8) -> Name {
        Name { environment: [1; 32], sha256: [number; 32], meter: Meter::Fuel }
    }

    fn code(bytes: &[u8]) -> Artifact {
        Artifact::vouched(bytes.to_vec(), 0)
    }

    /// A cache in a new folder, with one entry.
    fn cache(most: u64) -> (tempfile::TempDir, CodeCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::with_room(&folder.path().join("code"), &KEY, most).unwrap();
        cache.put(&name(1), &code(CODE));
        (folder, cache)
    }

    fn found(cache: &CodeCache, name: &Name) -> Option<Vec<u8>> {
        cache.get(name).map(|artifact| artifact.bytes().to_vec())
    }

    #[test]
    fn what_was_written_is_found_and_closed_to_others() {
        let (_folder, cache) = cache(CACHE_BYTES);
        assert_eq!(found(&cache, &name(1)).as_deref(), Some(CODE));
        assert_eq!(found(&cache, &name(2)), None);
        assert_eq!(cache.counts(), CacheCounts { found: 1, missed: 1, ..Default::default() });
        let entry = cache.path().join(name(1).file());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(cache.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_entry_with_any_other_byte_is_none() {
        let (_folder, cache) = cache(CACHE_BYTES);
        let entry = cache.path().join(name(1).file());
        let written = std::fs::read(&entry).unwrap();
        assert_eq!(written.len(), HEAD + CODE.len());
        for at in 0..written.len() {
            for bit in 0..8 {
                let mut changed = written.clone();
                *changed.get_mut(at).unwrap() ^= 1 << bit;
                std::fs::write(&entry, changed).unwrap();
                assert_eq!(found(&cache, &name(1)), None, "byte {at}, bit {bit}");
            }
        }
        for size in 0..written.len() {
            std::fs::write(&entry, written.get(..size).unwrap()).unwrap();
            assert_eq!(found(&cache, &name(1)), None, "{size} bytes");
        }
        std::fs::write(&entry, [&written[..], b"\0"].concat()).unwrap();
        assert_eq!(found(&cache, &name(1)), None, "a byte more");
        std::fs::write(&entry, written).unwrap();
        assert!(found(&cache, &name(1)).is_some());
        assert_eq!(cache.counts().missed, 0);
    }

    #[test]
    fn an_entry_counts_for_its_own_code_compiler_and_key_alone() {
        let (folder, cache) = cache(CACHE_BYTES);
        let place = |name: &Name| cache.path().join(name.file());
        std::fs::copy(place(&name(1)), place(&name(2))).unwrap();
        assert_eq!(found(&cache, &name(2)), None);
        let newer = Name { environment: [2; 32], ..name(1) };
        assert_eq!(found(&cache, &newer), None);
        let unmetered = Name { environment: [3; 32], meter: Meter::Time, ..name(1) };
        assert_eq!(found(&cache, &unmetered), None, "of another name");
        std::fs::copy(place(&name(1)), place(&unmetered)).unwrap();
        assert_eq!(found(&cache, &unmetered), None);
        let other = CodeCache::open(&folder.path().join("code"), &[8; 32]).unwrap();
        assert_eq!(found(&other, &name(1)), None);
        assert_eq!((cache.counts().refused, other.counts().refused), (3, 1));
    }

    #[test]
    fn what_was_authenticated_is_what_is_given_whatever_becomes_of_the_file() {
        let (_folder, cache) = cache(CACHE_BYTES);
        let got = cache.get(&name(1)).unwrap();
        let entry = cache.path().join(name(1).file());
        // In place, which whoever has mapped the file would see.
        std::fs::write(&entry, vec![0; HEAD + CODE.len()]).unwrap();
        assert_eq!(got.bytes(), CODE);
        std::fs::remove_file(entry).unwrap();
        assert_eq!(got.bytes(), CODE);
    }

    #[test]
    fn an_entry_that_is_no_plain_file_of_ours_is_none() {
        let (folder, cache) = cache(CACHE_BYTES);
        let entry = cache.path().join(name(1).file());
        let aside = folder.path().join("aside");
        std::fs::rename(&entry, &aside).unwrap();
        symlink(&aside, &entry).unwrap();
        assert_eq!(found(&cache, &name(1)), None, "a link, even to a good entry");
        std::fs::remove_file(&entry).unwrap();
        fs::mkfifoat(&cache.0.folder, name(1).file(), Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(found(&cache, &name(1)), None, "a pipe, and nobody waits for it");
        std::fs::remove_file(&entry).unwrap();
        std::fs::create_dir(&entry).unwrap();
        assert_eq!(found(&cache, &name(1)), None, "a directory");
        std::fs::remove_dir(&entry).unwrap();
        std::fs::copy(&aside, &entry).unwrap();
        std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o620)).unwrap();
        assert_eq!(found(&cache, &name(1)), None, "open to others");
        assert_eq!(cache.counts().refused, 4);
        // A new entry takes the place, and nothing is written through a link.
        std::fs::remove_file(&entry).unwrap();
        std::fs::write(&aside, "mine").unwrap();
        symlink(&aside, &entry).unwrap();
        cache.put(&name(1), &code(CODE));
        assert_eq!(found(&cache, &name(1)).as_deref(), Some(CODE));
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "mine");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let size = u64::try_from(HEAD + CODE.len()).unwrap();
        let (_folder, cache) = cache(2 * size);
        let age = |name: &Name, seconds| {
            let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let file = std::fs::File::open(cache.path().join(name.file())).unwrap();
            let times = Timestamps { last_access: at, last_modification: at };
            fs::futimens(file, &times).unwrap();
        };
        std::fs::write(cache.path().join("a note of somebody"), "not ours").unwrap();
        cache.put(&name(2), &code(CODE));
        age(&name(1), 1);
        age(&name(2), 2);
        assert!(found(&cache, &name(1)).is_some(), "and so used now");
        cache.put(&name(3), &code(CODE));
        assert!(found(&cache, &name(2)).is_none());
        assert!(found(&cache, &name(1)).is_some() && found(&cache, &name(3)).is_some());
        assert!(cache.path().join("a note of somebody").exists());
        cache.put(&name(4), &code(&vec![0; 1 + 2 * CODE.len() + HEAD]));
        assert_eq!(cache.counts().unwritten, 1, "larger than all there is room for");
    }

    #[test]
    fn a_folder_that_others_reach_is_refused() {
        let (folder, cache) = cache(CACHE_BYTES);
        let refused = |path: &Path| CodeCache::open(path, &KEY).unwrap_err().to_string();
        for mode in [0o777, 0o770, 0o720, 0o702, 0o750] {
            std::fs::set_permissions(cache.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert!(refused(cache.path()).contains("open to other users"), "{mode:o}");
        }
        std::fs::set_permissions(cache.path(), PermissionsExt::from_mode(0o700)).unwrap();
        symlink(cache.path(), folder.path().join("link")).unwrap();
        assert!(refused(&folder.path().join("link")).contains("refused"));
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(refused(&folder.path().join("file")).contains("not a directory"));
        assert!(CodeCache::open(cache.path(), &KEY).is_ok());
    }

    #[test]
    fn a_folder_that_takes_nothing_is_no_failure() {
        let (_folder, cache) = cache(CACHE_BYTES);
        std::fs::remove_dir_all(cache.path()).unwrap();
        cache.put(&name(2), &code(CODE));
        assert_eq!(found(&cache, &name(2)), None);
        let counts = CacheCounts { unwritten: 1, missed: 1, ..Default::default() };
        assert_eq!(cache.counts(), counts);
    }
}
