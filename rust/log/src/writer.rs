//! Ordered, durable appending with group commit: whoever waits first writes and syncs for
//! everybody, and the others ride along.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use crate::LogError;
use crate::notary::{Mark, Notary};
use crate::tiles::Tile;

/// What the log needs of a file that it writes; faults are injected here.
pub(crate) trait Disk: Send {
    /// Writes some of the bytes at an offset and says how many.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
    /// Returns when everything written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.write_at(bytes, at)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes all of the bytes in one call. A short write is a failure: what follows it would tear.
pub(crate) fn write_whole(disk: &mut dyn Disk, at: u64, bytes: &[u8]) -> io::Result<()> {
    loop {
        match disk.write(at, bytes) {
            Ok(size) if size == bytes.len() => return Ok(()),
            Ok(size) => {
                let why = format!("{size} of {} bytes were written", bytes.len());
                return Err(io::Error::new(io::ErrorKind::WriteZero, why));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the log may still be used: by this process, and not after a failure.
#[derive(Debug)]
pub(crate) struct Health {
    process: u32,
    failed: OnceLock<String>,
}

impl Health {
    pub(crate) fn new() -> Arc<Self> {
        Self::of_process(std::process::id())
    }

    pub(crate) fn of_process(process: u32) -> Arc<Self> {
        Arc::new(Self { process, failed: OnceLock::new() })
    }

    /// Refuses in another process than the one that opened the log. Before any lock is taken: a
    /// lock that was held during a fork stays held in the child.
    pub(crate) fn check_process(&self) -> Result<(), LogError> {
        if self.process == std::process::id() { Ok(()) } else { Err(LogError::Forked) }
    }

    /// Refuses in another process, and after the first failure.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        self.check_process()?;
        self.check_failed()
    }

    /// Refuses after the first failure, where the process was checked by the same call: asking
    /// the kernel who we are is a good part of what a line costs beside its sync.
    pub(crate) fn check_failed(&self) -> Result<(), LogError> {
        self.failed.get().map_or(Ok(()), |why| Err(LogError::unavailable(why)))
    }

    /// From now on, nothing is accepted. The first reason stays.
    pub(crate) fn fail(&self, why: impl Into<String>) -> LogError {
        let why = why.into();
        LogError::unavailable(self.failed.get_or_init(|| why))
    }

    /// What a lock says that was held during a panic.
    pub(crate) fn panicked<T>(&self, _: T) -> LogError {
        self.fail("a fault happened while it was in use")
    }
}

/// What waits to be written.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Entries in the log once `bytes` are written.
    size: u64,
    /// Entries on the disk.
    synced: u64,
    mark: Option<Mark>,
    tiles: Vec<Tile>,
    /// Is somebody writing just now?
    leading: bool,
    /// Entries in the log once that is done.
    reached: u64,
    /// How often somebody has begun to write: the number of the newest batch.
    syncs: u64,
}

struct Target {
    disk: Box<dyn Disk>,
    end: u64,
}

/// The only writer of a segment.
pub(crate) struct Writer {
    health: Arc<Health>,
    notary: Arc<Notary>,
    queue: Mutex<Queue>,
    /// Where batches with even and odd numbers are waited for, so that nobody is woken for a
    /// sync that was not theirs.
    turns: [Condvar; 2],
    target: Mutex<Target>,
}

impl Writer {
    /// Goes on after the first `size` entries, which end at byte `end` and are synced.
    pub(crate) fn new(
        disk: Box<dyn Disk>,
        (size, end): (u64, u64),
        notary: Arc<Notary>,
        health: Arc<Health>,
    ) -> Self {
        let queue = Mutex::new(Queue { size, synced: size, ..Queue::default() });
        let target = Mutex::new(Target { disk, end });
        Self { health, notary, queue, turns: Default::default(), target }
    }

    /// Adds lines to what the next sync writes; after them the log has `size` entries. The
    /// caller holds the log's lock, so the order is the log's.
    pub(crate) fn enqueue(
        &self,
        lines: &[u8],
        size: u64,
        mark: Option<Mark>,
        tiles: Vec<Tile>,
    ) -> Result<(), LogError> {
        let mut queue = self.queue.lock().map_err(|e| self.health.panicked(e))?;
        queue.bytes.extend_from_slice(lines);
        queue.size = size;
        queue.mark = mark.or(queue.mark.take());
        queue.tiles.extend(tiles);
        Ok(())
    }

    /// Bytes that wait for a sync.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.lock().map_or(0, |queue| queue.bytes.len())
    }

    /// Are the first `size` entries on the disk?
    pub(crate) fn has(&self, size: u64) -> bool {
        self.queue.lock().is_ok_and(|queue| queue.synced >= size)
    }

    /// How often a sync was asked for.
    pub(crate) fn syncs(&self) -> u64 {
        self.queue.lock().map_or(0, |queue| queue.syncs)
    }

    /// Returns when the first `size` entries are on the disk.
    ///
    /// Errors: `Unavailable` when they are not and never will be. Nobody whose entries were in a
    /// failed write or sync gets anything else.
    pub(crate) fn wait(&self, size: u64) -> Result<(), LogError> {
        self.health.check_process()?;
        let mut queue = self.queue.lock().map_err(|e| self.health.panicked(e))?;
        loop {
            if queue.synced >= size {
                return Ok(());
            }
            self.health.check_failed().inspect_err(|_| self.wake_all())?;
            if queue.size < size {
                // It cannot happen while the log counts right; waiting would never end.
                self.wake_all();
                return Err(self.health.fail("an entry was promised and never queued"));
            }
            if queue.leading {
                let batch = queue.syncs + u64::from(size > queue.reached);
                queue = self.turn(batch).wait(queue).map_err(|e| self.health.panicked(e))?;
                continue;
            }
            queue.leading = true;
            let taken = std::mem::take(&mut queue.bytes);
            let (reached, mark) = (queue.size, queue.mark.take());
            let tiles = std::mem::take(&mut queue.tiles);
            queue.reached = reached;
            queue.syncs += 1;
            let batch = queue.syncs;
            drop(queue);
            // A fault in the middle is a failed write: the others must not wait for it for ever.
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&taken)))
                .unwrap_or_else(|_| Err(self.health.fail("a fault happened during a write")));
            queue = self.queue.lock().map_err(|e| self.health.panicked(e))?;
            queue.leading = false;
            written.inspect_err(|_| self.wake_all())?;
            queue.synced = reached;
            self.turn(batch).notify_all();
            // INVARIANT: of those who wait for the next batch, one is woken to write it; whoever
            // does not write, because the log has failed meanwhile, wakes all the others.
            self.turn(batch + 1).notify_one();
            // INVARIANT: nothing reaches a checkpoint or an anchor before it is synced.
            self.notary.submit(mark, tiles);
        }
    }

    /// Writes to another file from now on, from its beginning. The caller holds the log's lock
    /// and has waited for everything that was queued.
    pub(crate) fn switch(&self, disk: Box<dyn Disk>) -> Result<(), LogError> {
        let mut target = self.target.lock().map_err(|e| self.health.panicked(e))?;
        *target = Target { disk, end: 0 };
        Ok(())
    }

    fn turn(&self, batch: u64) -> &Condvar {
        let [even, odd] = &self.turns;
        if batch.is_multiple_of(2) { even } else { odd }
    }

    fn wake_all(&self) {
        self.turns.iter().for_each(Condvar::notify_all);
    }

    fn write(&self, lines: &[u8]) -> Result<(), LogError> {
        let mut target = self.target.lock().map_err(|e| self.health.panicked(e))?;
        let at = target.end;
        let written = write_whole(&mut *target.disk, at, lines).and_then(|()| target.disk.sync());
        target.end += lines.len() as u64;
        written.map_err(|error| self.health.fail(format!("a write failed: {error}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_sync_that_the_system_refuses_is_an_error() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut pipe = File::from(OwnedFd::from(writer));
        assert!(Disk::sync(&mut pipe).is_err(), "a pipe has no disk");
    }
}
