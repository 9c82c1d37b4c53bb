//! What was signed earlier: does the log still lead there?

use moat_core::audit::{Chain, Checkpoint, MacKey, consistency_hashes, verify_consistency};
use moat_core::key::{AgentId, Hash256};
use moat_core::{Error, Reason};

use crate::folder::Folder;
use crate::scan::Replay;
use crate::segments::{Place, Segments};
use crate::snapshot::Start;
use crate::tiles::TileNodes;
use crate::{LogError, Witness};

/// Somebody who remembers a root, and whether the log has it.
pub(crate) struct Claim {
    pub(crate) witness: Witness,
    pub(crate) size: u64,
    root: Hash256,
    pub(crate) held: bool,
    /// Why it cannot be known whether the log has it.
    unknown: Option<LogError>,
}

impl Claim {
    pub(crate) fn new(witness: Witness, checkpoint: &Checkpoint) -> Self {
        let (size, root) = (checkpoint.size(), *checkpoint.root());
        Self { witness, size, root, held: false, unknown: None }
    }

    /// Compares when the log has just the size that is remembered.
    pub(crate) fn compare(&mut self, chain: &Chain) {
        if chain.size() == self.size {
            self.held = chain.root() == self.root;
        }
    }

    /// Why a log of so many entries is refused.
    pub(crate) fn refusal(&mut self, entries: u64) -> LogError {
        let (witness, size) = (self.witness, self.size);
        self.unknown.take().unwrap_or(LogError::RolledBack { witness, entries, size })
    }

    /// Do the tiles lead from this root to that of the start?
    fn is_in_tiles(&self, start: &Start, root: &Folder) -> bool {
        let size = start.chain.size();
        let mut nodes = TileNodes::new(root, start.growing.clone());
        let known = (self.size, &self.root);
        consistency_hashes(&mut nodes, self.size, size).is_ok_and(|hashes| {
            verify_consistency(known, (size, &start.chain.root()), &hashes).is_ok()
        })
    }
}

/// Compares claims about the lines before a start: by the tiles, and where these are missing or
/// wrong, by the lines of all older segments.
pub(crate) fn settle(
    claims: &mut [Claim],
    (start, segments): (&Start, &Segments<'_>),
    root: &Folder,
    (log, key): (&AgentId, Option<&MacKey>),
) -> Result<(), LogError> {
    let size = start.chain.size();
    for claim in claims.iter_mut().filter(|claim| 0 < claim.size && claim.size <= size) {
        claim.compare(&start.chain);
        claim.held = claim.held || (claim.size < size && claim.is_in_tiles(start, root));
    }
    if claims.iter().all(|claim| claim.held || claim.size >= size) {
        return Ok(());
    }
    let (oldest, _) = Start::oldest(segments, log, key)?;
    let here = oldest.chain.size();
    for claim in claims.iter_mut().filter(|claim| !claim.held && claim.size < here) {
        claim.unknown = Some(LogError::Untrusted {
            path: root.path().join("tile"),
            why: format!(
                "does not lead from the {} entries of the {} to the log, whose first {here} \
                 entries were removed; put the tiles back from a copy",
                claim.size, claim.witness
            ),
        });
    }
    claims.iter_mut().for_each(|claim| claim.compare(&oldest.chain));
    let mut replay = Replay::new(oldest.chain, segments, oldest.at, key)?;
    while replay.chain.size() < size && replay.step(|_, _| (), |_, _| Ok(()))? {
        claims.iter_mut().for_each(|claim| claim.compare(&replay.chain));
    }
    if (replay.chain.size(), replay.chain.root()) == (size, start.chain.root()) {
        return Ok(());
    }
    let why = Error::new(Reason::BrokenChain, "the snapshot is not of the lines before it");
    Err(Place { segment: size, offset: 0 }.broken(size, why))
}
