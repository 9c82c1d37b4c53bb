//! Proofs from an open log: built from tiles, believed only when they lead to its own root.

use moat_core::audit::{
    Chain, Checkpoint, ConsistencyProof, InclusionProof, consistency_hashes, inclusion_hashes,
    leaf_hash, root_of, verify_consistency, verify_inclusion,
};

use crate::LogError;
use crate::folder::Folder;
use crate::notary::Mark;
use crate::scan::{Lines, Replay};
use crate::store::{Fold, Store};
use crate::tiles::{Growing, Tile, TileNodes};

impl<F: Fold> Store<F> {
    /// Proves that an entry is in the log, at its newest size or at an earlier one.
    ///
    /// Errors: `Missing` for an entry outside that size; those of [`Store::read`].
    pub fn prove(&self, index: u64, size: Option<u64>) -> Result<InclusionProof, LogError> {
        let (mark, growing) = self.synced()?;
        let size = size.unwrap_or(mark.size);
        if index >= size || size > mark.size {
            return Err(LogError::Missing { index: index.max(size), size: mark.size });
        }
        let line = self.read(index)?;
        let leaf = leaf_hash(&line);
        let (checkpoint, hashes) = self.with_tiles(&mark, &growing, |nodes| {
            let checkpoint = self.checkpoint_at(size, &mark, nodes)?;
            let hashes = inclusion_hashes(nodes, index, size)?;
            verify_inclusion((index, &leaf), (size, checkpoint.root()), &hashes)
                .map_err(|why| LogError::ChainBroken { index, offset: 0, why })?;
            Ok((checkpoint, hashes))
        })?;
        InclusionProof::new(&line, hashes, checkpoint).map_err(LogError::Entry)
    }

    /// Proves that the log at size `old` is the beginning of the log at size `new`.
    ///
    /// Errors: `Missing` for sizes that are not `0 < old <= new <=` the log's.
    pub fn consistency(&self, old: u64, new: u64) -> Result<ConsistencyProof, LogError> {
        let (mark, growing) = self.synced()?;
        if old == 0 || old > new || new > mark.size {
            return Err(LogError::Missing { index: old.max(new), size: mark.size });
        }
        let (checkpoint, hashes) = self.with_tiles(&mark, &growing, |nodes| {
            let checkpoint = self.checkpoint_at(new, &mark, nodes)?;
            let root = root_of(nodes, old)?;
            let hashes = consistency_hashes(nodes, old, new)?;
            verify_consistency((old, &root), (new, checkpoint.root()), &hashes)
                .map_err(|why| LogError::ChainBroken { index: old, offset: 0, why })?;
            Ok((checkpoint, hashes))
        })?;
        Ok(ConsistencyProof::new(old, hashes, checkpoint))
    }

    /// A checkpoint at an earlier size, signed only after its root is shown to be the beginning
    /// of the log: what a tile says is not believed.
    fn checkpoint_at(
        &self,
        size: u64,
        mark: &Mark,
        nodes: &mut TileNodes<'_>,
    ) -> Result<Checkpoint, LogError> {
        if size == mark.size {
            return self.notary.publish(*mark);
        }
        let root = root_of(nodes, size)?;
        let hashes = consistency_hashes(nodes, size, mark.size)?;
        verify_consistency((size, &root), (mark.size, &mark.root), &hashes)
            .map_err(|why| LogError::ChainBroken { index: size - 1, offset: 0, why })?;
        Ok(Checkpoint::sign(self.notary.gate(), size, root))
    }

    /// Asks the tiles; if they are missing or wrong, makes them again from the lines and asks
    /// once more.
    fn with_tiles<T>(
        &self,
        mark: &Mark,
        growing: &Growing,
        ask: impl Fn(&mut TileNodes<'_>) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        // Tiles that are still on their way are written first.
        self.notary.publish(*mark)?;
        let root = self.notary.root();
        if let Ok(answer) = ask(&mut TileNodes::new(root, growing.clone())) {
            return Ok(answer);
        }
        let end = self.lock()?.end;
        let chain = Chain::new(&self.notary.gate().id());
        let lines = Lines::new(&self.segment, 0, end);
        rebuild_tiles(&mut Replay::new(chain, lines, Some(&self.key)), mark.size, root)?;
        ask(&mut TileNodes::new(root, growing.clone()))
    }
}

/// Writes the tiles of the first `size` lines that are missing or wrong.
pub(crate) fn rebuild_tiles(
    replay: &mut Replay<'_>,
    size: u64,
    root: &Folder,
) -> Result<(), LogError> {
    let mut growing = Growing::default();
    let mut full: Vec<Tile> = Vec::new();
    while replay.chain.size() < size {
        let completed = |level, hash: &_| full.extend(growing.add(level, hash));
        if !replay.step(completed, |_, _| Ok(()))? {
            break;
        }
        for tile in full.drain(..) {
            if !tile.is_in(root)? {
                tile.write(root)?;
            }
        }
    }
    Ok(())
}
