//! Opening a log: everything is read and checked before anything is changed.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use moat_core::audit::{MacKey, OPEN, RESTORED, TORN};
use moat_core::key::{Identity, sha256};

use crate::claim::{Claim, settle};
use crate::folder::Folder;
use crate::notary::{Anchor, CHECKPOINT, Mark, Notary, read_checkpoint};
use crate::prove::rebuild_tiles;
use crate::read::Places;
use crate::rotate::{Current, Due, Files};
use crate::scan::Replay;
use crate::segments::{Segments, name};
use crate::snapshot::{Start, fold_line, restore};
use crate::store::{Fold, Inner, Store};
use crate::writer::{Disk, Health, Writer, write_whole};
use crate::{LogError, Witness};

/// How to open a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's folder; made (0700) when it is missing.
    pub folder: PathBuf,
    /// The gate whose log it is.
    pub gate: Identity,
    /// A file outside the folder that remembers the newest checkpoint.
    pub anchor: Option<PathBuf>,
    /// Seconds since 1970, UTC.
    pub now: u64,
    /// Accept a log that is behind, or other than, its anchor or checkpoint. An entry says so.
    pub accept_restored: bool,
    /// Bytes after which lines go to a new segment; [`SEGMENT_BYTES`] unless there is a reason.
    pub segment_bytes: u64,
}

/// Bytes after which lines usually go to a new segment: read in a fraction of a second.
pub const SEGMENT_BYTES: u64 = 32 << 20;

/// What the anchor said when the log was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorState {
    /// None was named: a cut tail, a rollback and a rewrite stay invisible.
    None,
    /// The log had entries and the anchor was not there. It is now, but what happened before
    /// this opening was not compared with anything outside the folder.
    Missing,
    /// The log is the one that the anchor describes, or has grown from it, or is new.
    Matched,
    /// The log is not the one that the anchor describes, and was accepted as restored.
    Overruled,
}

/// What was found and done when a log was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Entries that were there.
    pub entries: u64,
    /// Bytes of an unfinished write that were cut; an entry records them.
    pub torn: u64,
    /// What the anchor said.
    pub anchor: AnchorState,
    /// Was a log accepted that its anchor or checkpoint contradicts? An entry records it.
    pub restored: bool,
    /// Were hash tiles missing or wrong, and made again?
    pub tiles_rebuilt: bool,
}

impl<F: Fold> Store<F> {
    /// Opens the log of a gate, or makes it, and applies its entries to `fold`.
    ///
    /// Nothing is changed unless all is well: every line from the newest complete snapshot on is
    /// checked (form, order, hash, MAC), and so are the first and the last line of each segment
    /// before; the checkpoint and the anchor are verified and compared. Bytes after the last
    /// newline are an unfinished write: they are cut and an entry records them.
    ///
    /// Errors: `Locked`, `ChainBroken`, `BadMac`, `Rejected`, `RolledBack`, `Untrusted`, `Io`.
    pub fn open(options: Options, fold: F) -> Result<Self, LogError> {
        Self::open_on(options, fold, |folder| Box::new(folder))
    }

    /// The same, writing the segments through something that may fail.
    pub(crate) fn open_on(
        options: Options,
        fold: F,
        files: impl FnOnce(Folder) -> Box<dyn Files>,
    ) -> Result<Self, LogError> {
        let root = Folder::create(&options.folder)?;
        let lock = lock(&root)?;
        let files = files(root.make("seg")?);
        let anchor = options.anchor.as_deref().map(open_anchor).transpose()?;
        let key = MacKey::derive(&options.gate).map_err(LogError::Entry)?;

        let source = (files.folder(), &key);
        let mut found = Found::read(&options, &root, anchor.as_ref(), source, fold)?;
        let overruled = found.overruled(options.accept_restored)?;
        let mut disk = files.open(&name(found.inner.current.span.first))?;
        let before = found.inner.chain.size();
        let torn = found.torn.len() as u64;
        found.repair(&options, &key, &mut *disk)?;
        let mark = Mark { size: found.inner.chain.size(), root: found.inner.chain.root() };
        let opened = Opened {
            entries: before,
            torn,
            anchor: found.anchor_state(overruled, before, anchor.is_some()),
            restored: overruled.is_some(),
            tiles_rebuilt: found.stale_tiles,
        };
        if opened.tiles_rebuilt {
            let segments = Segments { folder: files.folder(), spans: found.inner.spans() };
            let at = segments.spans.partition_point(|span| span.first < found.start.chain.size());
            let start = Start { at, ..found.start };
            rebuild_tiles(&segments, start, (mark.size, &key), &root)?;
        }
        let health = Health::new();
        let notary = Notary::new(options.gate, root, anchor, Arc::clone(&health));
        if !is_current(&found.claims, mark.size) || opened.anchor == AnchorState::Missing {
            notary.publish(mark)?;
        }
        let position = (mark.size, found.inner.current.span.end);
        let writer = Writer::new(disk, position, Arc::clone(&notary), Arc::clone(&health));
        let working = Arc::clone(&notary);
        let thread = std::thread::Builder::new()
            .name("moat-notary".to_owned())
            .spawn(move || working.run())
            .map_err(|source| LogError::Io { action: "watch", path: options.folder, source })?;
        found.inner.marked = (mark.size, options.now);
        Ok(Self {
            inner: Mutex::new(found.inner),
            writer: Arc::new(writer),
            notary,
            health,
            key,
            files,
            places: Places::default(),
            pruning: Mutex::default(),
            thread: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
            opened,
        })
    }
}

/// Takes the lock, or says that somebody has it. The file stays for ever.
fn lock(root: &Folder) -> Result<File, LogError> {
    let file = root.write("lock")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path: root.path().to_owned() }),
        Err(TryLockError::Error(source)) => {
            Err(LogError::Io { action: "lock", path: root.path().join("lock"), source })
        }
    }
}

fn open_anchor(path: &Path) -> Result<Anchor, LogError> {
    let missing = || LogError::Untrusted { path: path.to_owned(), why: "is missing".to_owned() };
    Anchor::open(path, true)?.ok_or_else(missing)
}

/// What a log's folder holds.
struct Found<F> {
    inner: Inner<F>,
    start: Start,
    claims: Vec<Claim>,
    torn: Vec<u8>,
    stale_tiles: bool,
}

impl<F: Fold> Found<F> {
    fn read(
        options: &Options,
        root: &Folder,
        anchor: Option<&Anchor>,
        (folder, key): (&Folder, &MacKey),
        mut fold: F,
    ) -> Result<Self, LogError> {
        let log = options.gate.id();
        let mut claims = Vec::new();
        if let Some(anchor) = anchor {
            let kept = anchor.read(&log)?;
            claims.extend(kept.as_ref().map(|kept| Claim::new(Witness::Anchor, kept)));
        }
        let kept = read_checkpoint(root, CHECKPOINT, &log)?;
        claims.extend(kept.as_ref().map(|kept| Claim::new(Witness::Checkpoint, kept)));
        let mut segments = Segments::list(folder)?;
        let start = Start::newest(&segments, &log, Some(key))?;
        settle(&mut claims, (&start, &segments), root, (&log, Some(key)))?;
        restore(&mut fold, &start)?;

        let chain = start.chain.clone();
        let mut replay = Replay::new(chain, &segments, start.at, Some(key))?;
        let (mut growing, mut full) = (start.growing.clone(), Vec::new());
        let (mut pruned, mut stale_tiles) = (start.pruned, false);
        let last = segments.spans.last().map_or(0, |span| span.first);
        let mut current = Current::new(last);
        while replay.step(
            |level, hash| full.extend(growing.add(level, hash)),
            |place, line| {
                if place.segment == last {
                    current.note(line.index, place.offset);
                }
                fold_line(&mut fold, &mut pruned, line)
            },
        )? {
            claims.iter_mut().for_each(|claim| claim.compare(&replay.chain));
            for tile in full.drain(..) {
                stale_tiles = stale_tiles || !tile.is_in(root)?;
            }
        }
        let index = replay.chain.size();
        fold.check_whole().map_err(|why| LogError::Rejected { index, why })?;
        let torn = replay.rest().to_vec();
        current.span.end = replay.end();
        let since = replay.bytes().saturating_sub(start.bytes);
        let due = Due { least: options.segment_bytes, snapshot: start.bytes, since };
        let chain = replay.chain;
        segments.leave_out(pruned)?;
        segments.check_edges(start.chain.size(), key)?;
        let mut older = segments.spans;
        older.pop();
        let inner = Inner {
            fold,
            chain,
            growing,
            older,
            current,
            due,
            pruned,
            marked: (0, 0),
            closed: false,
        };
        Ok(Self { inner, start, claims, torn, stale_tiles })
    }

    /// The first claim that does not hold, if it may be overruled.
    fn overruled(&mut self, accept: bool) -> Result<Option<(Witness, u64)>, LogError> {
        match self.claims.iter_mut().find(|claim| !claim.held) {
            None => Ok(None),
            Some(claim) if accept => Ok(Some((claim.witness, claim.size))),
            Some(claim) => Err(claim.refusal(self.inner.chain.size())),
        }
    }

    fn anchor_state(
        &self,
        overruled: Option<(Witness, u64)>,
        before: u64,
        named: bool,
    ) -> AnchorState {
        let known = self.claims.iter().any(|claim| claim.witness == Witness::Anchor);
        match (named, known, overruled) {
            (false, ..) => AnchorState::None,
            (true, true, Some((Witness::Anchor, _))) => AnchorState::Overruled,
            (true, false, _) if before > 0 => AnchorState::Missing,
            (true, ..) => AnchorState::Matched,
        }
    }

    /// Writes the log's own entries: the first line, what was torn, what was overruled. They go
    /// over the torn bytes and the rest of those is cut afterwards, so that no crash in between
    /// loses the record: until the cut, the rest is a torn tail again.
    fn repair(
        &mut self,
        options: &Options,
        key: &MacKey,
        disk: &mut dyn Disk,
    ) -> Result<(), LogError> {
        let mut entries = Vec::new();
        if self.inner.chain.size() == 0 {
            entries.push((OPEN, self.inner.chain.open_body()));
        }
        if !self.torn.is_empty() {
            let digest = sha256(&self.torn).map(|byte| format!("{byte:02x}")).concat();
            let body = format!("{{\"bytes\":{},\"sha256\":\"{digest}\"}}", self.torn.len());
            entries.push((TORN, body));
        }
        if let Some(claim) = self.claims.iter().find(|claim| !claim.held) {
            let (witness, entries_left) = (claim.witness, self.inner.chain.size());
            let body = format!(
                "{{\"entries\":{entries_left},\"signed\":{},\"witness\":\"{witness}\"}}",
                claim.size
            );
            entries.push((RESTORED, body));
        }
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for (kind, body) in entries {
            let index = self.inner.chain.size();
            let start = self.inner.current.span.end + lines.len() as u64;
            self.inner.current.note(index, start);
            let parts = (options.now, kind, body.as_bytes());
            let growing = &mut self.inner.growing;
            let stale = &mut self.stale_tiles;
            let note = |level, hash: &_| *stale |= growing.add(level, hash).is_some();
            let time =
                self.inner.chain.append(&mut lines, key, parts, note).map_err(LogError::Entry)?;
            let applied = self.inner.fold.apply(index, time, kind, body.as_bytes());
            applied.map_err(|why| LogError::Rejected { index, why })?;
        }
        let span = self.inner.current.span;
        let end = span.end + lines.len() as u64;
        let path = || name(span.first).into();
        write_whole(disk, span.end, &lines)
            .and_then(|()| disk.sync())
            .and_then(|()| disk.truncate(end))
            .and_then(|()| disk.sync())
            .map_err(|source| LogError::Io { action: "repair", path: path(), source })?;
        self.inner.current.span.end = end;
        self.inner.due.since += lines.len() as u64;
        Ok(())
    }
}

/// Do the checkpoint and the anchor, if there is one, describe the whole log already?
fn is_current(claims: &[Claim], size: u64) -> bool {
    let checkpoint = claims.iter().any(|claim| claim.witness == Witness::Checkpoint);
    checkpoint && claims.iter().all(|claim| claim.held && claim.size == size)
}
