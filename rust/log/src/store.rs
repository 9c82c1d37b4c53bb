//! The open log: decide, append and apply under one lock, then wait for the shared sync.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use moat_core::Error;
use moat_core::audit::{Chain, Checkpoint, Former, MacKey, RESERVED};
use moat_core::entry::Record;
use moat_core::limits::{CHECKPOINT_ENTRIES, TIME_MAX};

use crate::LogError;
use crate::notary::{Mark, Notary};
use crate::open::Opened;
use crate::read::Places;
use crate::rotate::{Current, Due, Files};
use crate::segments::Span;
use crate::tiles::{Growing, Tile};
use crate::writer::{Health, Writer};

/// What the entries of a log add up to.
pub trait Fold: Send {
    /// Takes the next entry. Of the log's own kinds `open`, `torn` and `restored` come too;
    /// `snapshot` and `pruned` do not, they only say where lines lie.
    ///
    /// Errors: when the entry does not fit. The log then refuses to open, or becomes unavailable
    /// when it was just being written: a state must accept what it decided itself.
    fn apply(&mut self, index: u64, time: u64, kind: &str, body: &[u8]) -> Result<(), Error>;

    /// Takes the next entry while it is being written: what [`Fold::apply`] does with its line,
    /// perhaps faster, for a record may know what its body says.
    ///
    /// Errors: as there.
    fn take(&mut self, index: u64, time: u64, record: &Record) -> Result<(), Error> {
        self.apply(index, time, record.kind(), record.body())
    }

    /// Something is about to be decided or has been written: the state may drop what is stale
    /// by then. The second that counts: `now`, or a later one that the state knows of. Lines are
    /// dated with it.
    fn advance(&mut self, now: u64) -> u64 {
        now
    }

    /// All of the state as items: canonical JSON objects of at most 48 KiB, in one order that
    /// does not depend on how the state came about.
    fn snapshot(&self) -> Result<Vec<Vec<u8>>, Error>;

    /// Takes back one item of a snapshot. Items come in their order, into a new state, before
    /// any entry. Who verifies without the gate's key may give items that somebody made up.
    ///
    /// Errors: when the item is none of this state's.
    fn restore(&mut self, item: &[u8]) -> Result<(), Error>;

    /// All entries have come. Errors: when there should be more; the log then refuses to open.
    fn check_whole(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the log has had its last entry, so that no segment is begun any more.
    fn is_over(&self) -> bool {
        false
    }

    /// The log that this one goes on after, if its entries say so.
    fn former(&self) -> Option<Former> {
        None
    }
}

/// A promise that the first `size` entries will be on the disk. Can be waited for on any thread.
#[derive(Clone)]
pub struct Ticket {
    writer: Arc<Writer>,
    size: u64,
}

impl Ticket {
    /// Blocks until the entries are on the disk; the first to wait writes for all.
    ///
    /// Errors: `Unavailable` when they never will be, `Forked` in another process.
    pub fn wait(&self) -> Result<(), LogError> {
        self.writer.wait(self.size)
    }

    /// Are they on the disk by now? Does not block and does not write.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.writer.has(self.size)
    }
}

/// What a commit decided, held back until its entries are on the disk.
#[must_use = "what was decided is released by `wait`"]
pub struct Pending<R> {
    committed: Committed<R>,
    ticket: Ticket,
}

impl<R> Pending<R> {
    /// Blocks until the entries are on the disk, then gives what was decided.
    ///
    /// Errors: those of [`Ticket::wait`].
    pub fn wait(self) -> Result<Committed<R>, LogError> {
        self.ticket.wait()?;
        Ok(self.committed)
    }

    /// Something to wait for elsewhere.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }
}

/// What a commit decided, now that its entries are on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<R> {
    /// The index of the commit's first entry; the next index when it has none.
    pub first: u64,
    /// How many entries it has.
    pub entries: u64,
    /// What the closure returned.
    pub value: R,
}

/// Bytes that may wait for a sync before a commit does the waiting itself.
const BACKLOG: usize = 8 << 20;

/// Lines between two whose place in the file is remembered.
pub(crate) const BLOCK: u64 = 256;

/// What changes with every entry.
pub(crate) struct Inner<F> {
    pub(crate) fold: F,
    pub(crate) chain: Chain,
    pub(crate) growing: Growing,
    /// The segments before the current one that are still here.
    pub(crate) older: Vec<Span>,
    pub(crate) current: Current,
    pub(crate) due: Due,
    /// Entries before this one may have been removed.
    pub(crate) pruned: u64,
    /// Size and time of the newest mark.
    pub(crate) marked: (u64, u64),
    pub(crate) closed: bool,
}

/// The log of one gate, open for writing. Shared between threads by reference.
pub struct Store<F: Fold> {
    pub(crate) inner: Mutex<Inner<F>>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) notary: Arc<Notary>,
    pub(crate) health: Arc<Health>,
    pub(crate) key: MacKey,
    pub(crate) files: Box<dyn Files>,
    pub(crate) places: Places,
    /// Held while segments are removed.
    pub(crate) pruning: Mutex<()>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
    /// Closing the file gives the lock back; it is never unlocked by hand, because a forked
    /// child shares it.
    pub(crate) lock: Mutex<Option<File>>,
    pub(crate) opened: Opened,
}

impl<F: Fold> Store<F> {
    /// What was found and done when the log was opened.
    #[must_use]
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Looks at the state, under the lock. It may be ahead of the disk: decide with
    /// [`Store::commit`], whose answer waits for the sync.
    ///
    /// Errors: `Unavailable`, `Forked`.
    pub fn with<R>(&self, read: impl FnOnce(&F) -> R) -> Result<R, LogError> {
        let inner = self.lock()?;
        self.health.check_failed()?;
        Ok(read(&inner.fold))
    }

    /// The number of entries and the time of the last one.
    ///
    /// Errors: `Unavailable`, `Forked`.
    pub fn position(&self) -> Result<(u64, u64), LogError> {
        let inner = self.lock()?;
        Ok((inner.chain.size(), inner.chain.time()))
    }

    /// Decides on the current state, appends the entries of the decision in their order, applies
    /// them to the state, and gives the decision once they are on the disk.
    ///
    /// Errors: `Entry` when an entry cannot be written (nothing has changed), otherwise
    /// `Unavailable` or `Forked`.
    pub fn commit<R>(
        &self,
        now: u64,
        decide: impl FnOnce(&F, &mut Vec<Record>) -> R,
    ) -> Result<Committed<R>, LogError> {
        self.commit_nowait(now, decide)?.wait()
    }

    /// The first half of [`Store::commit`]: the decision is made and queued in its place, and
    /// comes out of [`Pending::wait`] after the sync.
    pub fn commit_nowait<R>(
        &self,
        now: u64,
        decide: impl FnOnce(&F, &mut Vec<Record>) -> R,
    ) -> Result<Pending<R>, LogError> {
        self.health.check()?;
        check_clock(now)?;
        if self.writer.backlog() > BACKLOG {
            let (size, _) = self.position()?;
            self.writer.wait(size)?;
        }
        let mut inner = self.lock_open()?;
        if inner.is_rotation_due() && !inner.fold.is_over() {
            self.rotate(&mut inner, now)?;
        }
        let mut entries = Vec::new();
        let now = inner.fold.advance(now);
        let value = decide(&inner.fold, &mut entries);
        let first = inner.chain.size();
        check_kinds(&entries)?;
        let batch = inner.append(&entries, now, &self.key)?;
        let taken = inner.take(first, &entries, &batch.times);
        taken.map_err(|why| self.health.fail(format!("the state refused its own entry: {why}")))?;
        let mark = inner.mark(now);
        let size = inner.chain.size();
        if !entries.is_empty() {
            self.writer.enqueue(&batch.lines, size, mark, batch.tiles)?;
        }
        drop(inner);
        let committed = Committed { first, entries: entries.len() as u64, value };
        Ok(Pending { committed, ticket: Ticket { writer: Arc::clone(&self.writer), size } })
    }

    /// Something to wait for: everything that was appended so far.
    ///
    /// Errors: `Unavailable`, `Forked`.
    pub fn ticket(&self) -> Result<Ticket, LogError> {
        let (size, _) = self.position()?;
        Ok(Ticket { writer: Arc::clone(&self.writer), size })
    }

    /// Syncs, signs the size and root of the log, and writes the checkpoint and the anchor.
    ///
    /// Errors: `Unavailable`, `Forked`.
    pub fn checkpoint(&self) -> Result<Checkpoint, LogError> {
        let (mark, _) = self.synced()?;
        self.notary.publish(mark)
    }

    /// How often the log was synced since it was opened.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.writer.syncs()
    }

    /// Syncs what is queued, writes a last checkpoint and gives the lock back. Every later call
    /// is refused. Dropping the store does the same and drops the error.
    ///
    /// Errors: `Unavailable` when the last sync or checkpoint failed or the log failed before.
    pub fn close(&self) -> Result<(), LogError> {
        self.health.check_process()?;
        {
            let mut inner = self.lock()?;
            if std::mem::replace(&mut inner.closed, true) {
                return Ok(());
            }
        }
        let last = self.health.check().and_then(|()| self.checkpoint());
        self.health.fail("it was closed");
        self.notary.stop();
        if let Some(thread) = self.thread.lock().ok().and_then(|mut thread| thread.take()) {
            let _ = thread.join();
        }
        drop(self.lock.lock().ok().and_then(|mut lock| lock.take()));
        last.map(|_| ())
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Inner<F>>, LogError> {
        self.health.check_process()?;
        self.inner.lock().map_err(|e| self.health.panicked(e))
    }

    /// Appends an entry of the log's own and returns when it is on the disk. `note` changes what
    /// goes with the entry, under the same lock.
    pub(crate) fn append_own(
        &self,
        entry: Record,
        now: u64,
        note: impl FnOnce(&mut Inner<F>),
    ) -> Result<(), LogError> {
        check_clock(now)?;
        let mut inner = self.lock_open()?;
        let now = inner.fold.advance(now);
        let batch = inner.append(&[entry], now, &self.key)?;
        note(&mut inner);
        let (mark, size) = (inner.mark(now), inner.chain.size());
        self.writer.enqueue(&batch.lines, size, mark, batch.tiles)?;
        drop(inner);
        self.writer.wait(size)
    }

    /// The lock of a log that takes entries.
    fn lock_open(&self) -> Result<MutexGuard<'_, Inner<F>>, LogError> {
        let inner = self.lock()?;
        self.health.check_failed()?;
        if inner.closed {
            return Err(LogError::unavailable("it is being closed"));
        }
        Ok(inner)
    }

    /// The newest size and root, once they are on the disk, and the growing tiles of that size.
    pub(crate) fn synced(&self) -> Result<(Mark, Growing), LogError> {
        self.health.check()?;
        let (mark, growing) = {
            let inner = self.lock()?;
            let mark = Mark { size: inner.chain.size(), root: inner.chain.root() };
            (mark, inner.growing.clone())
        };
        self.writer.wait(mark.size)?;
        Ok((mark, growing))
    }
}

impl<F: Fold> Drop for Store<F> {
    fn drop(&mut self) {
        if self.health.check_process().is_ok() {
            let _ = self.close();
        } else if let Ok(thread) = self.thread.get_mut() {
            // A forked child has no such thread to let go of.
            std::mem::forget(thread.take());
        }
    }
}

/// What a commit adds to the segment.
pub(crate) struct Batch {
    pub(crate) lines: Vec<u8>,
    times: Vec<u64>,
    pub(crate) tiles: Vec<Tile>,
}

/// Refuses a second that no line can have: a state that has seen it never goes back.
fn check_clock(now: u64) -> Result<(), LogError> {
    if now <= TIME_MAX {
        return Ok(());
    }
    Err(LogError::Entry(Error::malformed(format!("the clock says {now}; set the clock"))))
}

/// Refuses entries of the kinds that are the log's own.
fn check_kinds(entries: &[Record]) -> Result<(), LogError> {
    let Some(own) = entries.iter().find(|entry| RESERVED.contains(&entry.kind())) else {
        return Ok(());
    };
    Err(LogError::Entry(Error::malformed(format!("the kind `{}` is the log's", own.kind()))))
}

impl<F: Fold> Inner<F> {
    /// All segments.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let all = self.older.iter().chain([&self.current.span]);
        all.copied().collect()
    }

    /// Writes the entries to a buffer, all or none.
    pub(crate) fn append(
        &mut self,
        entries: &[Record],
        now: u64,
        key: &MacKey,
    ) -> Result<Batch, LogError> {
        let size = entries.iter().map(|entry| entry.body().len() + 256).sum();
        let mut lines = Vec::with_capacity(size);
        let (mut times, mut starts, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        // One entry that is refused leaves the chain as it was; of several, the first may not be.
        let before = (entries.len() > 1).then(|| self.chain.clone());
        for entry in entries {
            starts.push((self.chain.size(), self.current.span.end + lines.len() as u64));
            let parts = (now, entry.kind(), entry.body());
            let note = |level, hash: &_| nodes.push((level, *hash));
            match self.chain.append(&mut lines, key, parts, note) {
                Ok(time) => times.push(time),
                Err(why) => {
                    self.chain = before.unwrap_or_else(|| self.chain.clone());
                    return Err(LogError::Entry(why));
                }
            }
        }
        let tiles = nodes.iter().filter_map(|(level, hash)| self.growing.add(*level, hash));
        let tiles = tiles.collect();
        starts.iter().for_each(|(index, start)| self.current.note(*index, *start));
        self.current.span.end += lines.len() as u64;
        self.due.since += lines.len() as u64;
        Ok(Batch { lines, times, tiles })
    }

    fn take(&mut self, first: u64, entries: &[Record], times: &[u64]) -> Result<(), Error> {
        for ((index, entry), time) in (first..).zip(entries).zip(times) {
            self.fold.take(index, *time, entry)?;
        }
        Ok(())
    }

    /// A mark when a checkpoint is due: 256 entries or a second after the one before.
    fn mark(&mut self, now: u64) -> Option<Mark> {
        let (size, time) = self.marked;
        let grown = self.chain.size() - size;
        if grown == 0 || (grown < CHECKPOINT_ENTRIES && now <= time) {
            return None;
        }
        self.marked = (self.chain.size(), now);
        Some(Mark { size: self.chain.size(), root: self.chain.root() })
    }
}
