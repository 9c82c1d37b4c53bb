//! Checkpoints, their copy in the anchor, and tiles: written behind the back of the commit path
//! by one thread, from what is already synced.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use moat_core::audit::Checkpoint;
use moat_core::key::{AgentId, Hash256, Identity};
use moat_core::limits::CHECKPOINT_BYTES;

use crate::LogError;
use crate::folder::Folder;
use crate::tiles::Tile;
use crate::writer::Health;

/// The name of the newest checkpoint in a log's folder.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// A size of the log and the root at that size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    pub(crate) root: Hash256,
}

/// A file outside the log's folder that remembers the newest checkpoint.
#[derive(Debug)]
pub(crate) struct Anchor {
    folder: Folder,
    name: String,
}

impl Anchor {
    pub(crate) fn open(path: &Path, create: bool) -> Result<Option<Self>, LogError> {
        let why = || "is not a path to a file".to_owned();
        let wrong = || LogError::Untrusted { path: path.to_owned(), why: why() };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(wrong)?.to_owned();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        // The folder may be reached through a link (a home folder often is); the file may not.
        let above = above.map_or_else(|| PathBuf::from("."), Path::to_owned);
        if !create && !above.exists() {
            return Ok(None);
        }
        let real = above.canonicalize().unwrap_or(above);
        let folder = if create { Folder::create(&real)? } else { Folder::open(&real)? };
        Ok(Some(Self { folder, name }))
    }

    pub(crate) fn read(&self, log: &AgentId) -> Result<Option<Checkpoint>, LogError> {
        read_checkpoint(&self.folder, &self.name, log)
    }
}

/// A checkpoint that the gate signed, or nothing where there is no file.
pub(crate) fn read_checkpoint(
    folder: &Folder,
    name: &str,
    log: &AgentId,
) -> Result<Option<Checkpoint>, LogError> {
    let Some(bytes) = folder.bytes(name, CHECKPOINT_BYTES)? else { return Ok(None) };
    let untrusted = |why: String| {
        let why = format!("is not a checkpoint that the gate signed: {why}");
        LogError::Untrusted { path: folder.path().join(name), why }
    };
    let text = String::from_utf8(bytes).map_err(|_| untrusted("it is not UTF-8".to_owned()))?;
    let checkpoint = Checkpoint::parse(&text).map_err(|error| untrusted(error.to_string()))?;
    checkpoint.verify(log).map_err(|error| untrusted(error.to_string()))?;
    Ok(Some(checkpoint))
}

#[derive(Default)]
struct Jobs {
    mark: Option<Mark>,
    tiles: Vec<Tile>,
    stop: bool,
}

/// Signs what is synced.
pub(crate) struct Notary {
    gate: Identity,
    root: Folder,
    anchor: Option<Anchor>,
    health: Arc<Health>,
    jobs: Mutex<Jobs>,
    wake: Condvar,
    /// The newest checkpoint on the disk. Held while anything is being published.
    desk: Mutex<Option<Checkpoint>>,
}

impl Notary {
    pub(crate) fn new(
        gate: Identity,
        root: Folder,
        anchor: Option<Anchor>,
        health: Arc<Health>,
    ) -> Arc<Self> {
        let (jobs, wake, desk) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { gate, root, anchor, health, jobs, wake, desk })
    }

    /// The log's folder.
    pub(crate) const fn root(&self) -> &Folder {
        &self.root
    }

    /// Who signs.
    pub(crate) const fn gate(&self) -> &Identity {
        &self.gate
    }

    /// Leaves work for the thread: the newest mark replaces those before it.
    pub(crate) fn submit(&self, mark: Option<Mark>, tiles: Vec<Tile>) {
        if mark.is_none() && tiles.is_empty() {
            return;
        }
        if let Ok(mut jobs) = self.jobs.lock() {
            jobs.mark = mark.or(jobs.mark);
            jobs.tiles.extend(tiles);
            self.wake.notify_one();
        }
    }

    /// Does what is submitted until told to stop. A checkpoint that cannot be written makes the
    /// log unavailable: without it, a later rollback would go unseen.
    pub(crate) fn run(&self) {
        loop {
            let Ok(mut jobs) = self.jobs.lock() else { return };
            while jobs.mark.is_none() && jobs.tiles.is_empty() {
                if jobs.stop {
                    return;
                }
                let Ok(woken) = self.wake.wait(jobs) else { return };
                jobs = woken;
            }
            drop(jobs);
            let done = self.desk().and_then(|mut desk| match self.take() {
                Some(mark) => self.write(&mut desk, mark).map(|_| ()),
                None => Ok(()),
            });
            if let Err(error) = done {
                self.health.fail(format!("a checkpoint could not be written: {error}"));
                return;
            }
        }
    }

    /// Lets `run` return once it has nothing left to do.
    pub(crate) fn stop(&self) {
        if let Ok(mut jobs) = self.jobs.lock() {
            jobs.stop = true;
            self.wake.notify_all();
        }
    }

    /// Signs a mark and writes it now, unless a newer one lies there already. What was submitted
    /// before is written too.
    pub(crate) fn publish(&self, mark: Mark) -> Result<Checkpoint, LogError> {
        let mut desk = self.desk()?;
        let newer = self.take().filter(|submitted| submitted.size > mark.size);
        let written = match newer.map(|newer| self.write(&mut desk, newer)) {
            Some(Err(error)) => Err(error),
            _ => self.write(&mut desk, mark),
        };
        written.map_err(|error| self.health.fail(format!("a checkpoint was not written: {error}")))
    }

    fn desk(&self) -> Result<MutexGuard<'_, Option<Checkpoint>>, LogError> {
        self.desk.lock().map_err(|e| self.health.panicked(e))
    }

    /// Takes the jobs, writes the tiles and gives the mark. A tile that cannot be written is
    /// missed, and made again, when a proof needs it.
    fn take(&self) -> Option<Mark> {
        let (mark, tiles) = {
            let mut jobs = self.jobs.lock().ok()?;
            (jobs.mark.take(), std::mem::take(&mut jobs.tiles))
        };
        for tile in tiles {
            let _ = tile.write(&self.root);
        }
        mark
    }

    fn write(&self, desk: &mut Option<Checkpoint>, mark: Mark) -> Result<Checkpoint, LogError> {
        if let Some(newest) = desk.as_ref().filter(|newest| newest.size() == mark.size) {
            return Ok(newest.clone());
        }
        let signed = Checkpoint::sign(&self.gate, mark.size, mark.root);
        if desk.as_ref().is_none_or(|newest| newest.size() < mark.size) {
            let text = signed.text().as_bytes();
            self.root.replace(CHECKPOINT, text, true)?;
            if let Some(anchor) = &self.anchor {
                anchor.folder.replace(&anchor.name, text, true)?;
            }
            *desk = Some(signed.clone());
        }
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn publishing_an_older_mark_writes_the_newer_one_that_waits_or_fails() {
        let place = tempfile::tempdir().unwrap();
        let (log, anchor) = (place.path().join("log"), place.path().join("anchor"));
        let gate = Identity::from_seed("gate", &[7; 32]).unwrap();
        let (id, health) = (gate.id(), Health::new());
        let root = || Folder::create(&log).unwrap();
        let kept = Anchor::open(&anchor, true).unwrap();
        let notary = Notary::new(gate, root(), kept, Arc::clone(&health));
        let mark = |size| Mark { size, root: [1; 32] };
        let written = || read_checkpoint(&root(), CHECKPOINT, &id).unwrap().unwrap().size();
        notary.publish(mark(5)).unwrap();
        notary.submit(Some(mark(9)), Vec::new());
        assert_eq!((notary.publish(mark(3)).unwrap().size(), written()), (3, 9));
        // A folder in the place of the anchor: it cannot be replaced by a file.
        std::fs::remove_file(&anchor).unwrap();
        std::fs::create_dir(&anchor).unwrap();
        notary.publish(mark(4)).unwrap();
        notary.submit(Some(mark(12)), Vec::new());
        assert!(matches!(notary.publish(mark(4)), Err(LogError::Unavailable { .. })));
        assert!(matches!(health.check(), Err(LogError::Unavailable { .. })));
    }
}
