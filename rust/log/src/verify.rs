//! Verification by anyone: the gate's public key, no lock, constant memory, nothing written.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moat_core::audit::{Former, INHERITED, Line, MacKey, PRUNED};
use moat_core::key::{AgentId, Hash256};

use crate::claim::{Claim, settle};
use crate::folder::Folder;
use crate::notary::{Anchor, CHECKPOINT, read_checkpoint};
use crate::scan::{Lines, Replay};
use crate::segments::{Segments, missing, name};
use crate::snapshot::{Refold, Start, read_pruned};
use crate::store::Fold;
use crate::{LogError, Witness};

/// Whom a verifier trusts.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The gate whose log it is said to be.
    pub log: AgentId,
    /// A copy of a checkpoint, kept away from the folder.
    pub anchor: Option<PathBuf>,
    /// The key of the MACs, which only the gate has.
    pub key: Option<MacKey>,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries read.
    pub entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Something that a verification could not see, and what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchecked {
    /// No anchor: a cut tail, a rollback and a rewrite by the gate's owner stay invisible.
    NoAnchor,
    /// An anchor was named and is not there: as if there were none.
    AnchorMissing,
    /// Nothing is signed: whoever can write the folder may have made all of it.
    NoCheckpoint,
    /// This many entries come after the newest checkpoint: whoever can write the folder may have
    /// added, changed or cut them.
    UnsignedTail(u64),
    /// The first entries, this many, are no longer here: their hashes are in the signed root, what
    /// they said is only in the snapshot after them.
    Pruned(u64),
    /// What was taken over from the log before was not compared with that.
    Inherited(u64),
    /// No MAC key: whether the gate wrote each line is known for signed entries alone.
    Macs,
}

impl Unchecked {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoAnchor => "no_anchor",
            Self::AnchorMissing => "anchor_missing",
            Self::NoCheckpoint => "no_checkpoint",
            Self::UnsignedTail(_) => "unsigned_tail",
            Self::Pruned(_) => "pruned",
            Self::Inherited(_) => "inherited",
            Self::Macs => "macs",
        }
    }
}

impl std::fmt::Display for Unchecked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnchor => f.write_str(
                "no anchor was given: a cut tail, a rollback and a rewrite by the owner of the \
                 gate's key stay invisible",
            ),
            Self::AnchorMissing => f.write_str(
                "the anchor is missing: a cut tail, a rollback and a rewrite by the owner of the \
                 gate's key stay invisible",
            ),
            Self::NoCheckpoint => f.write_str(
                "there is no checkpoint: the gate has signed nothing, and whoever can write the \
                 folder may have made all of it",
            ),
            Self::UnsignedTail(entries) => write!(
                f,
                "{entries} entries come after the newest checkpoint: whoever can write the \
                 folder may have added, changed or cut them"
            ),
            Self::Pruned(entries) => write!(
                f,
                "the first {entries} entries were removed: their hashes are covered by the tree, \
                 what they said is known from the snapshot after them alone"
            ),
            Self::Inherited(entries) => write!(
                f,
                "what it took over from the {entries} entries of the log before it was not \
                 compared with them"
            ),
            Self::Macs => {
                f.write_str("the MACs of the lines were not checked: only the gate has their key")
            }
        }
    }
}

/// What a verification found. That there is one means that nothing was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries in the log, removed ones included.
    pub entries: u64,
    /// Bytes of the lines that are here.
    pub bytes: u64,
    /// Segments that are here.
    pub segments: usize,
    /// The root of the Merkle tree over all of them.
    pub root: Hash256,
    /// The time of the last entry, in seconds since 1970, UTC.
    pub time: u64,
    /// The entries that the newest checkpoint covers; its signature is right.
    pub signed: Option<u64>,
    /// The entries that the anchor covers; its signature is right.
    pub anchored: Option<u64>,
    /// Bytes after the last newline: an unfinished write, which the gate cuts when it opens.
    pub torn: u64,
    /// How many of the entries that are here are of each kind, in the order of their first one.
    pub kinds: Vec<(String, u64)>,
    /// The log that this one goes on after, as it says.
    pub former: Option<Former>,
    /// What could not be checked.
    pub unchecked: Vec<Unchecked>,
}

/// Checks a log: every line, the chain, every snapshot, the signed checkpoint and the anchor. A
/// gate may be writing it meanwhile. A log of several segments, or one that inherited, is taken
/// into a state that `fold` makes, and every snapshot is compared with that. `progress` is called
/// every few thousand entries and at the end.
///
/// Errors: `ChainBroken`, `BadMac` (with a key), `SnapshotDiffers`, `Rejected`, `RolledBack`,
/// `Untrusted`, `Io`.
pub fn verify<F: Fold>(
    folder: &Path,
    trust: &Trust,
    fold: impl Fn() -> F,
    progress: impl FnMut(Progress),
) -> Result<Report, LogError> {
    read(folder, trust, fold, false, progress).map(|(report, _)| report)
}

/// The same; gives also what all lines add up to, if it was looked at or is asked for (`all`).
pub(crate) fn read<F: Fold>(
    folder: &Path,
    trust: &Trust,
    fold: impl Fn() -> F,
    all: bool,
    mut progress: impl FnMut(Progress),
) -> Result<(Report, Option<F>), LogError> {
    let source = Source::open(folder)?;
    loop {
        let mut claims = source.claims(trust)?;
        // Claims are read before the lengths of the files, which can only have grown since.
        let segments = source.segments()?;
        let parts = (&source, &segments);
        let found = check(parts, trust, &mut claims, (&fold, all), &mut progress);
        // A segment that is removed while it is being read is no fault of the log: that removes
        // at least one for good, so this comes to an end.
        match found {
            Err(error) if source.segments()?.oldest() == segments.oldest() => return Err(error),
            Err(_) => (),
            done => return done,
        }
    }
}

/// One reading of the segments as they were listed.
fn check<F: Fold>(
    (source, segments): (&Source, &Segments<'_>),
    trust: &Trust,
    claims: &mut [Claim],
    (fold, all): (impl Fn() -> F, bool),
    progress: &mut impl FnMut(Progress),
) -> Result<(Report, Option<F>), LogError> {
    let (log, key) = (&trust.log, trust.key.as_ref());
    let (start, skipped) = Start::oldest(segments, log, key)?;
    settle(claims, (&start, segments), &source.root, (log, key))?;
    let first = start.chain.size();
    let many = segments.spans.len() > 1 || first > 0;
    let mut refold = (many || all).then(|| Refold::new(fold(), &start)).transpose()?;
    let mut growing = start.growing;
    let total = segments.bytes(start.at);
    let mut replay = Replay::new(start.chain, segments, start.at, key)?;
    let mut kinds = Kinds::default();
    loop {
        let before = (many && replay.is_at_start()).then(|| growing.clone());
        let more = replay.step(
            |level, hash| {
                if many {
                    growing.add(level, hash);
                }
            },
            |place, line| {
                kinds.count(line.kind);
                let taken = wanted(&mut refold, line, &fold);
                taken.map_or(Ok(()), |refold| refold.take(place, line, before.as_ref()))
            },
        )?;
        if !more {
            break;
        }
        claims.iter_mut().for_each(|claim| claim.compare(&replay.chain));
        let entries = replay.chain.size();
        if entries.is_multiple_of(4096) {
            progress(Progress { entries, bytes: replay.bytes(), total });
        }
    }
    let pruned = refold.as_ref().map_or(0, |refold| refold.pruned);
    if first > pruned {
        return Err(skipped.unwrap_or_else(|| missing(pruned)));
    }
    let (entries, bytes) = (replay.chain.size(), replay.bytes());
    progress(Progress { entries, bytes, total });
    if let Some(claim) = claims.iter_mut().find(|claim| !claim.held) {
        return Err(claim.refusal(entries));
    }
    let fold = refold.map(|refold| refold.end(entries)).transpose()?;
    let former = fold.as_ref().and_then(Fold::former);
    let covered = |witness| claims.iter().find(|c| c.witness == witness).map(|c| c.size);
    let (signed, anchored) = (covered(Witness::Checkpoint), covered(Witness::Anchor));
    let report = Report {
        entries,
        bytes,
        segments: segments.spans.len() - start.at,
        root: replay.chain.root(),
        time: replay.chain.time(),
        signed,
        anchored,
        torn: replay.rest().len() as u64,
        kinds: kinds.0,
        former,
        unchecked: unchecked(trust, (first, entries), (signed, anchored), former),
    };
    Ok((report, fold))
}

/// The state that lines are taken into, if any: from what was inherited on there has to be one.
fn wanted<'r, F: Fold>(
    refold: &'r mut Option<Refold<F>>,
    line: &Line<'_>,
    fold: impl Fn() -> F,
) -> Option<&'r mut Refold<F>> {
    if line.kind == INHERITED && refold.is_none() {
        *refold = Some(Refold::fresh(fold()));
    }
    refold.as_mut()
}

/// How many lines there are of each kind.
#[derive(Default)]
struct Kinds(Vec<(String, u64)>);

impl Kinds {
    fn count(&mut self, kind: &str) {
        match self.0.iter_mut().find(|(known, _)| known == kind) {
            Some((_, count)) => *count += 1,
            None => self.0.push((kind.to_owned(), 1)),
        }
    }
}

/// Shows the lines of a log that are here in order, each after it was found to be the one that
/// comes next. Signatures are not looked at: [`verify`] does that.
///
/// Errors: as [`verify`].
pub fn walk(
    folder: &Path,
    log: &AgentId,
    mut show: impl FnMut(&Line<'_>) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let source = Source::open(folder)?;
    let segments = source.segments()?;
    let (start, skipped) = Start::oldest(&segments, log, None)?;
    let (first, mut pruned) = (start.chain.size(), start.pruned);
    let mut replay = Replay::new(start.chain, &segments, start.at, None)?;
    let mut flow = ControlFlow::Continue(());
    while flow.is_continue()
        && replay.step(
            |_, _| (),
            |_, line| {
                if line.kind == PRUNED {
                    pruned = read_pruned(line)?;
                }
                flow = show(line);
                Ok(())
            },
        )?
    {}
    if flow.is_continue() && first > pruned {
        return Err(skipped.unwrap_or_else(|| missing(pruned)));
    }
    Ok(())
}

/// The lines of a log from an entry on, or from the oldest that is here, as they are: nothing is
/// checked. An unfinished last line is left out.
///
/// Errors: `Untrusted`, `Io`; while reading, `NotFound` when a segment is removed meanwhile.
pub fn lines(
    folder: &Path,
    start: usize,
) -> Result<impl Iterator<Item = std::io::Result<Vec<u8>>> + Send + use<>, LogError> {
    let source = Source::open(folder)?;
    let segments = source.segments()?;
    let at = segments.holding(start as u64).unwrap_or(0);
    let first = segments.spans.get(at).map_or(0, |span| span.first);
    let skip = start.saturating_sub(usize::try_from(first).unwrap_or(usize::MAX));
    let mut spans = segments.spans.clone().into_iter().skip(at);
    let mut reader: Option<Lines> = None;
    let mut next = move || loop {
        if let Some(lines) = &mut reader
            && let Some(line) = lines.next()?
        {
            return Ok(Some(line.to_vec()));
        }
        let Some(span) = spans.next() else { return Ok(None) };
        let found = source.folder.read(&name(span.first))?;
        let file = found.ok_or_else(|| missing(span.first))?;
        reader = Some(Lines::new(file, span));
    };
    Ok(std::iter::from_fn(move || next().map_err(unread).transpose()).skip(skip))
}

fn unread(error: LogError) -> std::io::Error {
    match error {
        LogError::Io { source, .. } => source,
        other => std::io::Error::new(std::io::ErrorKind::NotFound, other.to_string()),
    }
}

fn unchecked(
    trust: &Trust,
    (first, entries): (u64, u64),
    (signed, anchored): (Option<u64>, Option<u64>),
    former: Option<Former>,
) -> Vec<Unchecked> {
    let mut out = Vec::new();
    match (&trust.anchor, anchored) {
        (None, _) => out.push(Unchecked::NoAnchor),
        (Some(_), None) => out.push(Unchecked::AnchorMissing),
        (Some(_), Some(_)) => (),
    }
    match signed.max(anchored) {
        None => out.push(Unchecked::NoCheckpoint),
        Some(size) if size < entries => out.push(Unchecked::UnsignedTail(entries - size)),
        Some(_) => (),
    }
    if first > 0 {
        out.push(Unchecked::Pruned(first));
    }
    out.extend(former.map(|former| Unchecked::Inherited(former.entries)));
    if trust.key.is_none() {
        out.push(Unchecked::Macs);
    }
    out
}

/// A log's folder, open for reading.
struct Source {
    root: Folder,
    /// The folder of the segments.
    folder: Folder,
}

impl Source {
    fn open(path: &Path) -> Result<Self, LogError> {
        let root = Folder::open(path)?;
        let folder = root.find("seg")?.ok_or_else(|| no_log(path))?;
        Ok(Self { root, folder })
    }

    fn segments(&self) -> Result<Segments<'_>, LogError> {
        let segments = Segments::list(&self.folder)?;
        if segments.spans.is_empty() { Err(no_log(self.root.path())) } else { Ok(segments) }
    }

    fn claims(&self, trust: &Trust) -> Result<Vec<Claim>, LogError> {
        let mut claims = Vec::new();
        if let Some(path) = &trust.anchor
            && let Some(anchor) = Anchor::open(path, false)?
        {
            let kept = anchor.read(&trust.log)?;
            claims.extend(kept.as_ref().map(|kept| Claim::new(Witness::Anchor, kept)));
        }
        let kept = read_checkpoint(&self.root, CHECKPOINT, &trust.log)?;
        claims.extend(kept.as_ref().map(|kept| Claim::new(Witness::Checkpoint, kept)));
        Ok(claims)
    }
}

fn no_log(folder: &Path) -> LogError {
    let why = "holds no log; give the folder that has `seg` in it".to_owned();
    LogError::Untrusted { path: folder.to_owned(), why }
}
