//! Beginning a new segment: everything before it is synced and signed, and its first lines say
//! what that adds up to.

use moat_core::audit::{SNAPSHOT, snapshot_parts};
use moat_core::entry::Record;

use crate::LogError;
use crate::folder::Folder;
use crate::notary::Mark;
use crate::segments::{Span, name};
use crate::store::{BLOCK, Fold, Inner, Store};
use crate::writer::Disk;

/// How many times as long as the newest snapshot the lines after it are, before the next one:
/// a large state would otherwise be written again and again.
const RATIO: u64 = 4;

/// What the log does to the folder of its segments; faults are injected here.
pub(crate) trait Files: Send + Sync {
    /// The folder itself, for reading.
    fn folder(&self) -> &Folder;
    /// Opens a segment for writing; makes it, name synced, where it is missing.
    fn open(&self, name: &str) -> Result<Box<dyn Disk>, LogError>;
    /// Makes a segment that must not be there yet. Its name is not synced.
    fn create(&self, name: &str) -> Result<Box<dyn Disk>, LogError>;
    /// Removes a segment. That it is gone is not synced.
    fn remove(&self, name: &str) -> Result<(), LogError>;
    /// Makes new and removed names durable.
    fn sync(&self) -> Result<(), LogError>;
}

impl Files for Folder {
    fn folder(&self) -> &Folder {
        self
    }

    fn open(&self, name: &str) -> Result<Box<dyn Disk>, LogError> {
        Ok(Box::new(self.write(name)?))
    }

    fn create(&self, name: &str) -> Result<Box<dyn Disk>, LogError> {
        Ok(Box::new(self.create_new(name)?))
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        Self::remove(self, name)
    }

    fn sync(&self) -> Result<(), LogError> {
        Self::sync(self)
    }
}

/// The segment that lines are being added to.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) span: Span,
    /// Where every line starts that is a multiple of `BLOCK` lines after the first.
    pub(crate) offsets: Vec<u64>,
}

impl Current {
    /// A segment of which nothing has been seen.
    pub(crate) const fn new(first: u64) -> Self {
        Self { span: Span { first, end: 0 }, offsets: Vec::new() }
    }

    /// Remembers where a line starts.
    pub(crate) fn note(&mut self, index: u64, offset: u64) {
        if (index - self.span.first).is_multiple_of(BLOCK) {
            self.offsets.push(offset);
        }
    }
}

/// When the next segment is due.
#[derive(Debug)]
pub(crate) struct Due {
    /// Bytes that a segment has at least.
    pub(crate) least: u64,
    /// Bytes of the newest complete snapshot, and of the lines since.
    pub(crate) snapshot: u64,
    pub(crate) since: u64,
}

impl<F: Fold> Inner<F> {
    /// Is the current segment long enough for another?
    pub(crate) const fn is_rotation_due(&self) -> bool {
        let end = self.current.span.end;
        let long = self.due.since >= self.due.snapshot.saturating_mul(RATIO);
        end > 0 && end >= self.due.least && long
    }
}

impl<F: Fold> Store<F> {
    /// Begins a new segment with a snapshot of the state as it is by `now`.
    ///
    /// A fault on the way makes the log unavailable. Whatever of this has reached the disk, the
    /// log opens again: the snapshot counts only when all of it is there.
    pub(crate) fn rotate(&self, inner: &mut Inner<F>, now: u64) -> Result<(), LogError> {
        let failed = |why| self.health.fail(format!("a new segment could not be begun: {why}"));
        let now = inner.fold.advance(now);
        let parts = inner
            .fold
            .snapshot()
            .and_then(|items| snapshot_parts(inner.pruned, &inner.growing.hashes(), &items))
            .map_err(|why| failed(why.to_string()))?;
        let mark = Mark { size: inner.chain.size(), root: inner.chain.root() };
        // INVARIANT: all lines before a new segment are synced and signed before it exists, so
        // only the last segment can be torn, and no claim is older than the newest snapshot.
        self.writer.wait(mark.size)?;
        self.notary.publish(mark)?;
        inner.marked = (mark.size, now);
        let created = self.files.create(&name(mark.size));
        let disk = created.and_then(|disk| self.files.sync().map(|()| disk));
        self.writer.switch(disk.map_err(|why| failed(why.to_string()))?)?;
        let before = std::mem::replace(&mut inner.current, Current::new(mark.size));
        inner.older.push(before.span);
        let entries: Vec<_> = parts.into_iter().map(|body| Record::new(SNAPSHOT, body)).collect();
        let batch = inner.append(&entries, now, &self.key);
        let batch = batch.map_err(|why| failed(why.to_string()))?;
        (inner.due.snapshot, inner.due.since) = (batch.lines.len() as u64, 0);
        self.writer.enqueue(&batch.lines, inner.chain.size(), None, batch.tiles)
    }
}
