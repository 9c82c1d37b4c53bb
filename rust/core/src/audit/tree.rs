//! The Merkle tree of RFC 6962 §2.1 with SHA-256, kept as its compact range.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use crate::key::{Hash256, sha256};

/// The hash of a leaf: SHA-256(0x00 ‖ bytes).
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Hash256 {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash256, right: &Hash256) -> Hash256 {
    // 65 bytes always fill two blocks: laid out by hand, they need one call and no buffer.
    let mut blocks = [[0; 64]; 2];
    let (bytes, padding) = blocks.as_flattened_mut().split_at_mut(65);
    let (tag, hashes) = bytes.split_at_mut(1);
    tag.copy_from_slice(&[0x01]);
    let (first, second) = hashes.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    let (one, length) = padding.split_at_mut(55);
    if let Some(one) = one.first_mut() {
        *one = 0x80;
    }
    length.copy_from_slice(&(65_u64 * 8).to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &blocks);
    let mut out = [0; 32];
    for (place, word) in out.as_chunks_mut().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    out
}

/// The initial state of SHA-256 (FIPS 180-4 §5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash256 {
    sha256(b"")
}

/// A growing tree: the roots of its complete subtrees, the largest first. Memory is
/// logarithmic in the number of leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    peaks: Vec<Hash256>,
}

impl Tree {
    /// A tree of `size` leaves with these complete subtrees, the largest first: one for every
    /// one in the binary form of `size`, or there is no such tree.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<Hash256>) -> Option<Self> {
        (peaks.len() as u64 == u64::from(size.count_ones())).then_some(Self { size, peaks })
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds the hash of a leaf and reports every node that it completes, the leaf first, as
    /// `(level, hash)`: a node of level `n` covers 2^n leaves.
    pub fn append(&mut self, leaf: Hash256, mut completed: impl FnMut(u32, &Hash256)) {
        let mut node = leaf;
        completed(0, &node);
        for level in 1..=self.size.trailing_ones() {
            // INVARIANT: there is a peak for every one in the binary form of `size`.
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            completed(level, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root (RFC 6962 §2.1): the hash of nothing when there is no leaf.
    #[must_use]
    pub fn root(&self) -> Hash256 {
        self.peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(empty_root)
    }
}

/// Where the hashes of complete subtrees come from: memory, tiles or a service.
pub trait Nodes {
    /// What can go wrong in getting one.
    type Error;

    /// The root of the leaves `index * 2^level .. (index + 1) * 2^level`.
    fn node(&mut self, level: u32, index: u64) -> Result<Hash256, Self::Error>;
}

/// The root of the first `size` leaves.
pub fn root_of<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash256, N::Error> {
    subtree(nodes, 0, size)
}

/// The root of the leaves `start..end`, where `start` is a multiple of the smallest power of
/// two that is not smaller than `end - start` (as in every split of RFC 6962 §2.1).
pub(super) fn subtree<N: Nodes>(nodes: &mut N, start: u64, end: u64) -> Result<Hash256, N::Error> {
    let mut peaks = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2();
        peaks.push(nodes.node(level, at >> level)?);
        at += 1 << level;
    }
    let root = peaks.into_iter().rev().reduce(|right, left| node_hash(&left, &right));
    Ok(root.unwrap_or_else(empty_root))
}
