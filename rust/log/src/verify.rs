//! Verification by anyone: the gate's public key, no lock, constant memory, nothing written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moat_core::audit::{Chain, Line, MacKey};
use moat_core::key::{AgentId, Hash256};

use crate::folder::Folder;
use crate::notary::{Anchor, CHECKPOINT, read_checkpoint};
use crate::open::{Claim, check_segments};
use crate::scan::{Lines, Replay, SEGMENT, unreadable};
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
            Self::Macs => {
                f.write_str("the MACs of the lines were not checked: only the gate has their key")
            }
        }
    }
}

/// What a verification found. That there is one means that nothing was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries in the log.
    pub entries: u64,
    /// Bytes of their lines.
    pub bytes: u64,
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
    /// How many entries there are of each kind, in the order of their first one.
    pub kinds: Vec<(String, u64)>,
    /// What could not be checked.
    pub unchecked: Vec<Unchecked>,
}

/// Checks a log: every line, the chain, the signed checkpoint and the anchor. A gate may be
/// writing it meanwhile. `progress` is called every few thousand entries and at the end.
///
/// Errors: `ChainBroken`, `BadMac` (with a key), `RolledBack`, `Untrusted`, `Io`.
pub fn verify(
    folder: &Path,
    trust: &Trust,
    mut progress: impl FnMut(Progress),
) -> Result<Report, LogError> {
    let source = Source::open(folder)?;
    // Claims are read before the length of the file, which can only have grown since.
    let mut claims = source.claims(trust)?;
    let total = source.file.metadata().map_err(unreadable)?.len();
    let lines = Lines::new(&source.file, 0, total);
    let mut replay = Replay::new(Chain::new(&trust.log), lines, trust.key.as_ref());
    let mut kinds: Vec<(String, u64)> = Vec::new();
    let mut count = |kind: &str| match kinds.iter_mut().find(|(known, _)| known == kind) {
        Some((_, count)) => *count += 1,
        None => kinds.push((kind.to_owned(), 1)),
    };
    while replay.step(
        |_, _| (),
        |_, line| {
            count(line.kind);
            Ok(())
        },
    )? {
        claims.iter_mut().for_each(|claim| claim.compare(&replay.chain));
        let entries = replay.chain.size();
        if entries.is_multiple_of(4096) {
            progress(Progress { entries, bytes: replay.lines.offset(), total });
        }
    }
    let (entries, bytes) = (replay.chain.size(), replay.lines.offset());
    progress(Progress { entries, bytes, total });
    if let Some(claim) = claims.iter().find(|claim| !claim.held) {
        return Err(claim.refusal(entries));
    }
    let covered = |witness| claims.iter().find(|c| c.witness == witness).map(|c| c.size);
    let (signed, anchored) = (covered(Witness::Checkpoint), covered(Witness::Anchor));
    Ok(Report {
        entries,
        bytes,
        root: replay.chain.root(),
        time: replay.chain.time(),
        signed,
        anchored,
        torn: replay.lines.rest().len() as u64,
        kinds,
        unchecked: unchecked(trust, entries, signed, anchored),
    })
}

/// Shows the lines of a log in order, each after it was found to be the one that comes next.
/// Signatures are not looked at: [`verify`] does that.
///
/// Errors: as [`verify`].
pub fn walk(
    folder: &Path,
    log: &AgentId,
    mut show: impl FnMut(&Line<'_>) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let source = Source::open(folder)?;
    let total = source.file.metadata().map_err(unreadable)?.len();
    let mut replay = Replay::new(Chain::new(log), Lines::new(&source.file, 0, total), None);
    let mut flow = ControlFlow::Continue(());
    while flow.is_continue()
        && replay.step(
            |_, _| (),
            |_, line| {
                flow = show(line);
                Ok(())
            },
        )?
    {}
    Ok(())
}

/// The lines of a log from an entry on, as they are: nothing is checked. An unfinished last
/// line is left out.
///
/// Errors: `Untrusted`, `Io`.
pub fn lines(
    folder: &Path,
    start: usize,
) -> Result<impl Iterator<Item = std::io::Result<Vec<u8>>> + Send + use<>, LogError> {
    let mut file = BufReader::new(Source::open(folder)?.file);
    let next = move || {
        let mut line = Vec::new();
        match file.read_until(b'\n', &mut line) {
            Err(error) => Some(Err(error)),
            Ok(_) => (line.pop() == Some(b'\n')).then_some(Ok(line)),
        }
    };
    Ok(std::iter::from_fn(next).skip(start))
}

fn unchecked(
    trust: &Trust,
    entries: u64,
    signed: Option<u64>,
    anchored: Option<u64>,
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
    if trust.key.is_none() {
        out.push(Unchecked::Macs);
    }
    out
}

/// A log's folder, open for reading.
struct Source {
    root: Folder,
    file: File,
}

impl Source {
    fn open(folder: &Path) -> Result<Self, LogError> {
        let missing = || LogError::Untrusted {
            path: folder.to_owned(),
            why: "holds no log; give the folder that has `seg` in it".to_owned(),
        };
        let root = Folder::open(folder)?;
        let segments = root.find("seg")?.ok_or_else(missing)?;
        check_segments(&segments)?;
        let file = segments.read(SEGMENT)?.ok_or_else(missing)?;
        Ok(Self { root, file })
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
