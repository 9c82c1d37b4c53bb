//! Hash tiles (C2SP tlog-tiles, height 8): derived from the lines, never believed over them.
//! The folder holds the full tiles; the hashes of those still growing are in memory.

use std::collections::HashMap;

use moat_core::audit::{Nodes, Tree};
use moat_core::key::Hash256;

use crate::LogError;
use crate::folder::Folder;

/// Hashes in a full tile.
const WIDTH: u64 = 256;
const BYTES: usize = 256 * 32;
/// Levels of the tree in one level of tiles.
const HEIGHT: u32 = 8;

/// A full tile.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    level: u32,
    index: u64,
    hashes: Vec<Hash256>,
}

/// The tiles that are not full yet, one for each level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growing {
    levels: Vec<(u64, Vec<Hash256>)>,
}

impl Growing {
    /// The tiles that are not full in a log of `size`, from the hashes of each level, and the
    /// log's tree, whose complete subtrees lie in them. Nothing when the hashes are too many or
    /// too few.
    pub(crate) fn resume(size: u64, hashes: Vec<Vec<Hash256>>) -> Option<(Self, Tree)> {
        let nodes = |level: usize| size.checked_shr(HEIGHT * u32::try_from(level).ok()?);
        let mut peaks = Vec::new();
        for (level, hashes) in hashes.iter().enumerate().rev() {
            let nodes = nodes(level).filter(|nodes| *nodes > 0)?;
            if hashes.len() as u64 != nodes % WIDTH {
                return None;
            }
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (subtree, others) = rest.split_at_checked(1 << rest.len().ilog2())?;
                peaks.push(root(subtree));
                rest = others;
            }
        }
        if nodes(hashes.len()).is_some_and(|nodes| nodes > 0) {
            return None;
        }
        let level = |(level, hashes)| Some((nodes(level)? / WIDTH, hashes));
        let levels = hashes.into_iter().enumerate().map(level).collect::<Option<_>>()?;
        Some((Self { levels }, Tree::from_peaks(size, peaks)?))
    }

    /// The hashes of each level.
    pub(crate) fn hashes(&self) -> Vec<Vec<Hash256>> {
        self.levels.iter().map(|(_, hashes)| hashes.clone()).collect()
    }

    /// Takes a node that a leaf completed, and gives the tile that it fills.
    pub(crate) fn add(&mut self, level: u32, hash: &Hash256) -> Option<Tile> {
        if !level.is_multiple_of(HEIGHT) {
            return None;
        }
        let level = level / HEIGHT;
        if self.levels.len() == level as usize {
            self.levels.push((0, Vec::new()));
        }
        let (index, hashes) = self.levels.get_mut(level as usize)?;
        hashes.push(*hash);
        if hashes.len() as u64 != WIDTH {
            return None;
        }
        let tile = Tile { level, index: *index, hashes: std::mem::take(hashes) };
        *index += 1;
        Some(tile)
    }
}

impl Tile {
    /// Is it in the folder as it should be?
    pub(crate) fn is_in(&self, root: &Folder) -> Result<bool, LogError> {
        let found = read(root, self.level, self.index)?;
        Ok(found.is_some_and(|found| found == self.hashes))
    }

    /// Writes it. It is not synced: what a crash takes is made again.
    pub(crate) fn write(&self, root: &Folder) -> Result<(), LogError> {
        let (folder, name) = self.make_place(root)?;
        folder.replace(&name, self.hashes.as_flattened(), false)
    }

    /// Sees to it that it is in the folder and on the disk, for good.
    pub(crate) fn keep(&self, root: &Folder) -> Result<(), LogError> {
        let right = self.is_in(root)?;
        let (folder, name) = self.make_place(root)?;
        if right && folder.sync_file(&name)? {
            return folder.sync();
        }
        folder.replace(&name, self.hashes.as_flattened(), true)
    }

    fn make_place(&self, root: &Folder) -> Result<(Folder, String), LogError> {
        let (folders, name) = place(self.level, self.index);
        let mut folder = root.make("tile")?;
        for step in folders {
            folder = folder.make(&step)?;
        }
        Ok((folder, name))
    }
}

/// The hashes of one log: full tiles from its folder, growing ones from memory.
pub(crate) struct TileNodes<'a> {
    root: &'a Folder,
    growing: Growing,
    seen: HashMap<(u32, u64), Vec<Hash256>>,
}

impl<'a> TileNodes<'a> {
    pub(crate) fn new(root: &'a Folder, growing: Growing) -> Self {
        Self { root, growing, seen: HashMap::new() }
    }

    fn tile(&mut self, level: u32, index: u64) -> Result<&[Hash256], LogError> {
        if let Some((_, hashes)) = self.growing.levels.get(level as usize).filter(|l| l.0 == index)
        {
            return Ok(hashes);
        }
        let missing = || LogError::Untrusted {
            path: self.root.path().join("tile"),
            why: format!("has no tile {index} of level {level}"),
        };
        if !self.seen.contains_key(&(level, index)) {
            let hashes = read(self.root, level, index)?.ok_or_else(missing)?;
            self.seen.insert((level, index), hashes);
        }
        Ok(self.seen.get(&(level, index)).map_or(&[], Vec::as_slice))
    }
}

impl Nodes for TileNodes<'_> {
    type Error = LogError;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash256, LogError> {
        let above = level % HEIGHT;
        let first = index << above;
        let within = usize::try_from(first % WIDTH).unwrap_or(usize::MAX);
        let path = self.root.path().join("tile");
        let hashes = self.tile(level / HEIGHT, first / WIDTH)?;
        let Some(leaves) = hashes.get(within..within + (1 << above)) else {
            return Err(LogError::Untrusted { path, why: "has a tile that is too short".into() });
        };
        Ok(root(leaves))
    }
}

/// The root above some nodes.
fn root(nodes: &[Hash256]) -> Hash256 {
    let mut tree = Tree::default();
    nodes.iter().for_each(|node| tree.append(*node, |_, _| ()));
    tree.root()
}

/// The hashes of a full tile, or nothing when there is no file of the right size.
fn read(root: &Folder, level: u32, index: u64) -> Result<Option<Vec<Hash256>>, LogError> {
    let (folders, name) = place(level, index);
    let Some(mut folder) = root.find("tile")? else { return Ok(None) };
    for step in folders {
        match folder.find(&step)? {
            Some(found) => folder = found,
            None => return Ok(None),
        }
    }
    let Some(bytes) = folder.bytes(&name, 2 * BYTES)? else { return Ok(None) };
    let (hashes, _) = bytes.as_chunks::<32>();
    Ok((bytes.len() == BYTES).then(|| hashes.to_vec()))
}

/// The folders and the name of a tile: `<level>`, then the index in groups of three digits, all
/// but the last with an `x` before.
fn place(level: u32, index: u64) -> (Vec<String>, String) {
    let mut folders = Vec::new();
    let mut rest = index / 1000;
    while rest > 0 {
        folders.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    folders.push(level.to_string());
    folders.reverse();
    (folders, format!("{:03}", index % 1000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use moat_core::audit::{Tree, leaf_hash};

    use super::{BYTES, Growing, Tile, place};
    use crate::folder::Folder;

    #[test]
    fn a_tree_goes_on_from_its_growing_tiles_at_every_size() {
        let (mut growing, mut tree) = (Growing::default(), Tree::default());
        for size in 1..=70_000_u64 {
            tree.append(leaf_hash(&size.to_be_bytes()), |level, hash| {
                growing.add(level, hash);
            });
            if size > 1_100 && size % 997 > 1 && size % 256 > 1 && size % 65_536 > 2 {
                continue;
            }
            let hashes = growing.hashes();
            let (again, same) = Growing::resume(size, hashes.clone()).unwrap();
            assert_eq!((again.levels, &same), (growing.levels.clone(), &tree));
            for other in [size - 1, size + 1] {
                assert!(Growing::resume(other, hashes.clone()).is_none(), "{size} {other}");
            }
            let mut more = hashes.clone();
            more.push(Vec::new());
            assert!(Growing::resume(size, more).is_none());
            assert!(Growing::resume(size, hashes[1..].to_vec()).is_none());
        }
    }

    #[test]
    fn a_file_of_another_size_is_no_tile_and_is_written_over() {
        let place = tempfile::tempdir().unwrap();
        let root = Folder::create(place.path()).unwrap();
        let tile = Tile { level: 0, index: 0, hashes: vec![[7; 32]; 256] };
        let path = place.path().join("tile/0/000");
        tile.write(&root).unwrap();
        for size in [0, BYTES - 1, BYTES + 1, BYTES + 32, 2 * BYTES] {
            std::fs::write(&path, vec![7; size]).unwrap();
            assert!(!tile.is_in(&root).unwrap(), "{size}");
            tile.keep(&root).unwrap();
            assert!(tile.is_in(&root).unwrap(), "{size}");
        }
    }

    #[test]
    fn a_tile_lies_where_tlog_tiles_says() {
        let joined = |level, index| {
            let (folders, name) = place(level, index);
            format!("{}/{name}", folders.join("/"))
        };
        assert_eq!(joined(0, 1_234_067), "0/x001/x234/067");
        assert_eq!(joined(1, 0), "1/000");
        assert_eq!(joined(0, 1000), "0/x001/000");
        assert_eq!(joined(2, 999), "2/999");
    }
}
