//! Proofs from an open log: built from tiles, believed only when they lead to its own root.

use moat_core::Error;
use moat_core::audit::{
    Checkpoint, ConsistencyProof, InclusionProof, Line, MacKey, consistency_hashes,
    inclusion_hashes, leaf_hash, root_of, verify_consistency, verify_inclusion,
};

use crate::LogError;
use crate::folder::Folder;
use crate::notary::Mark;
use crate::scan::Replay;
use crate::segments::Segments;
use crate::snapshot::Start;
use crate::store::{Fold, Store};
use crate::tiles::{Growing, Tile, TileNodes};

impl<F: Fold> Store<F> {
    /// Proves that an entry is in the log, at its newest size or at an earlier one.
    ///
    /// Errors: `Missing` for an entry outside that size; those of [`Store::read`].
    pub fn prove(&self, index: u64, size: Option<u64>) -> Result<InclusionProof, LogError> {
        let (mark, growing) = self.synced()?;
        let size = within(index, size, &mark)?;
        let line = self.read(index)?;
        self.prove_at(&line, (index, size), (&mark, &growing))
    }

    /// Proves that a line is in the log although its segment was removed: whoever kept the line,
    /// without its newline, brings it along.
    ///
    /// Errors: `Entry` for bytes that are no line or that are not in the log at their index,
    /// `Missing` for an entry outside that size, `Untrusted` when tiles are missing.
    pub fn prove_line(&self, line: &[u8], size: Option<u64>) -> Result<InclusionProof, LogError> {
        let index = Line::parse(line).map_err(LogError::Entry)?.index;
        let (mark, growing) = self.synced()?;
        let size = within(index, size, &mark)?;
        // The path of any leaf holds also for its own hash, so what the tiles say of the line
        // itself is compared first: a made-up line is not the fault of a tile.
        let stands = self.with_tiles(&mark, &growing, |nodes| {
            let own = self.leaf_of(nodes, (index, size), &mark)?;
            Ok(own == leaf_hash(line))
        })?;
        if !stands {
            let why = format!("it is not line {index} of this log; bring the line as it was");
            return Err(LogError::Entry(Error::malformed(why)));
        }
        self.prove_at(line, (index, size), (&mark, &growing))
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
                .map_err(|why| self.wrong_tiles(&why))?;
            Ok((checkpoint, hashes))
        })?;
        Ok(ConsistencyProof::new(old, hashes, checkpoint))
    }

    fn prove_at(
        &self,
        line: &[u8],
        (index, size): (u64, u64),
        (mark, growing): (&Mark, &Growing),
    ) -> Result<InclusionProof, LogError> {
        let leaf = leaf_hash(line);
        let (checkpoint, hashes) = self.with_tiles(mark, growing, |nodes| {
            let checkpoint = self.checkpoint_at(size, mark, nodes)?;
            let hashes = inclusion_hashes(nodes, index, size)?;
            verify_inclusion((index, &leaf), (size, checkpoint.root()), &hashes)
                .map_err(|why| self.wrong_tiles(&why))?;
            Ok((checkpoint, hashes))
        })?;
        InclusionProof::new(line, hashes, checkpoint).map_err(LogError::Entry)
    }

    /// The leaf with this index, once it is shown to be in the log.
    fn leaf_of(
        &self,
        nodes: &mut TileNodes<'_>,
        (index, size): (u64, u64),
        mark: &Mark,
    ) -> Result<[u8; 32], LogError> {
        use moat_core::audit::Nodes as _;
        let checkpoint = self.checkpoint_at(size, mark, nodes)?;
        let leaf = nodes.node(0, index)?;
        let hashes = inclusion_hashes(nodes, index, size)?;
        verify_inclusion((index, &leaf), (size, checkpoint.root()), &hashes)
            .map_err(|why| self.wrong_tiles(&why))?;
        Ok(leaf)
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
            .map_err(|why| self.wrong_tiles(&why))?;
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
        let segments = Segments { folder: self.files.folder(), spans: self.lock()?.spans() };
        let start = Start::at(&segments, 0, &self.notary.gate().id(), Some(&self.key))?;
        let removed = start.chain.size();
        rebuild_tiles(&segments, start, (mark.size, &self.key), root)?;
        ask(&mut TileNodes::new(root, growing.clone())).map_err(|error| match error {
            LogError::Untrusted { path, why } if removed > 0 => {
                let more = format!("the first {removed} entries were removed");
                LogError::Untrusted { path, why: format!("{why}; {more}, put it back from a copy") }
            }
            other => other,
        })
    }

    fn wrong_tiles(&self, why: &Error) -> LogError {
        let path = self.notary.root().path().join("tile");
        LogError::Untrusted { path, why: format!("does not lead to the log's root ({why})") }
    }
}

/// The size to prove at, if it is one of the log and has the entry.
fn within(index: u64, size: Option<u64>, mark: &Mark) -> Result<u64, LogError> {
    let size = size.unwrap_or(mark.size);
    if index >= size || size > mark.size {
        return Err(LogError::Missing { index: index.max(size), size: mark.size });
    }
    Ok(size)
}

/// Writes the tiles from a start up to `size` lines that are missing or wrong.
pub(crate) fn rebuild_tiles(
    segments: &Segments<'_>,
    start: Start,
    (size, key): (u64, &MacKey),
    root: &Folder,
) -> Result<(), LogError> {
    replay_tiles(segments, start, (size, key), |tile| {
        if tile.is_in(root)? { Ok(()) } else { tile.write(root) }
    })
    .map(|_| ())
}

/// Reads lines from a start up to `size` and shows every tile that they fill. Gives the tiles
/// that are not full then.
pub(crate) fn replay_tiles(
    segments: &Segments<'_>,
    start: Start,
    (size, key): (u64, &MacKey),
    mut show: impl FnMut(&Tile) -> Result<(), LogError>,
) -> Result<Growing, LogError> {
    let mut growing = start.growing;
    let mut full: Vec<Tile> = Vec::new();
    let mut replay = Replay::new(start.chain, segments, start.at, Some(key))?;
    while replay.chain.size() < size {
        let completed = |level, hash: &_| full.extend(growing.add(level, hash));
        if !replay.step(completed, |_, _| Ok(()))? {
            break;
        }
        for tile in full.drain(..) {
            show(&tile)?;
        }
    }
    Ok(growing)
}
