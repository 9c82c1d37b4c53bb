//! Inclusion and consistency proofs: RFC 6962 §2.1.1 and §2.1.2, verified as RFC 9162 §2.1.3.2
//! and §2.1.4.2 say; as text, C2SP tlog-proof and the request body of C2SP tlog-witness.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::checkpoint::{decimal, hash};
use super::tree::subtree;
use super::{Checkpoint, Line, Nodes, leaf_hash, node_hash};
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits::{CHECKPOINT_BYTES, LINE_BYTES, PROOF_HASHES};

/// The path from leaf `index` to the root of the first `size` leaves, the sibling first.
/// Needs `index < size`.
pub fn inclusion_hashes<N: Nodes>(
    nodes: &mut N,
    index: u64,
    size: u64,
) -> std::result::Result<Vec<Hash256>, N::Error> {
    let (mut start, mut end, mut path) = (0, size, Vec::new());
    while end - start > 1 {
        let middle = split(start, end);
        if index < middle {
            path.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the first `old` leaves are the beginning of the first `new` ones.
/// Needs `0 < old <= new`.
pub fn consistency_hashes<N: Nodes>(
    nodes: &mut N,
    old: u64,
    new: u64,
) -> std::result::Result<Vec<Hash256>, N::Error> {
    let (mut start, mut end, mut path) = (0, new, Vec::new());
    while old < end {
        let middle = split(start, end);
        if old <= middle {
            path.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    // The verifier knows the old root already when it is this very subtree.
    if start > 0 {
        path.push(subtree(nodes, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Where RFC 6962 splits `start..end`: after the largest power of two smaller than its length.
fn split(start: u64, end: u64) -> u64 {
    start + (1 << (end - start - 1).ilog2())
}

/// Checks that `leaf` has place `index` in the tree with `size` leaves and this `root`.
///
/// Errors: `malformed` for a place or a number of hashes that the tree cannot have,
/// `broken_chain` when the hashes lead to another root.
pub fn verify_inclusion(
    (index, leaf): (u64, &Hash256),
    (size, root): (u64, &Hash256),
    hashes: &[Hash256],
) -> Result<()> {
    if index >= size {
        let detail = format!("entry {index} is not among the first {size}");
        return Err(Error::malformed(detail));
    }
    let (mut place, mut last, mut node) = (index, size - 1, *leaf);
    for sibling in hashes {
        if last == 0 {
            return Err(count());
        }
        if place & 1 == 1 || place == last {
            node = node_hash(sibling, &node);
            let up = if place & 1 == 1 { 0 } else { place.trailing_zeros().min(63) };
            (place, last) = (place >> up, last >> up);
        } else {
            node = node_hash(&node, sibling);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    if last != 0 {
        return Err(count());
    }
    same(&node, root)
}

/// Checks that the tree with `old` leaves is the beginning of the tree with `new` leaves.
///
/// Errors: as [`verify_inclusion`]; the empty tree proves nothing and is `malformed`.
pub fn verify_consistency(
    (old, old_root): (u64, &Hash256),
    (new, new_root): (u64, &Hash256),
    hashes: &[Hash256],
) -> Result<()> {
    if old == 0 || old > new {
        let detail = format!("a log of {old} lines is not the beginning of one of {new}");
        return Err(Error::malformed(detail));
    }
    if old == new {
        return if hashes.is_empty() { same(old_root, new_root) } else { Err(count()) };
    }
    let mut hashes = hashes.iter();
    let seed = if old.is_power_of_two() { old_root } else { hashes.next().ok_or_else(count)? };
    let skip = (old - 1).trailing_ones();
    let (mut place, mut last) = ((old - 1) >> skip, (new - 1) >> skip);
    let (mut one, mut two) = (*seed, *seed);
    for sibling in hashes {
        if last == 0 {
            return Err(count());
        }
        if place & 1 == 1 || place == last {
            one = node_hash(sibling, &one);
            two = node_hash(sibling, &two);
            let up = if place & 1 == 1 { 0 } else { place.trailing_zeros().min(63) };
            (place, last) = (place >> up, last >> up);
        } else {
            two = node_hash(&two, sibling);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    if last != 0 {
        return Err(count());
    }
    same(&one, old_root)?;
    same(&two, new_root)
}

fn same(found: &Hash256, wanted: &Hash256) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::new(Reason::BrokenChain, "the proof leads to another root than the checkpoint's"))
}

fn count() -> Error {
    Error::malformed("the proof has too many or too few hashes for these sizes")
}

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

/// The proof that a line stands at its place in a log, with the line itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InclusionProof {
    line: Vec<u8>,
    index: u64,
    hashes: Vec<Hash256>,
    checkpoint: Checkpoint,
}

impl InclusionProof {
    /// Puts a proof together; [`InclusionProof::verify`] says whether it holds.
    ///
    /// Errors: `malformed` or `too_large` for bytes that are no line of a log.
    pub fn new(line: &[u8], hashes: Vec<Hash256>, checkpoint: Checkpoint) -> Result<Self> {
        let index = Line::parse(line)?.index;
        Ok(Self { line: line.to_vec(), index, hashes, checkpoint })
    }

    /// Reads C2SP tlog-proof text whose extra data are the line.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::malformed("not a tlog-proof of a line of a log");
        if text.len() > CHECKPOINT_BYTES + 2 * LINE_BYTES {
            return Err(Error::new(Reason::TooLarge, "the proof is too large"));
        }
        let rest = text.strip_prefix(HEADER).ok_or_else(wrong)?;
        let (extra, rest) = rest.split_once('\n').ok_or_else(wrong)?;
        let line = extra.strip_prefix("extra ").and_then(|line| STANDARD.decode(line).ok());
        let (index, rest) = rest.split_once('\n').ok_or_else(wrong)?;
        let index = index.strip_prefix("index ").and_then(decimal).ok_or_else(wrong)?;
        let (hashes, checkpoint) = parse_hashes(rest)?;
        let proof = Self::new(&line.ok_or_else(wrong)?, hashes, checkpoint)?;
        if proof.index != index {
            return Err(Error::malformed("the line in the proof has another index"));
        }
        Ok(proof)
    }

    /// C2SP tlog-proof text, whose extra data are the line.
    #[must_use]
    pub fn text(&self) -> String {
        let line = STANDARD.encode(&self.line);
        let mut out = format!("{HEADER}extra {line}\nindex {}\n", self.index);
        write_hashes(&mut out, &self.hashes, &self.checkpoint);
        out
    }

    /// Checks that the gate signed the checkpoint and that the line is in the log it describes.
    /// Give the proof's own checkpoint, or one of the same size that came another way.
    ///
    /// Errors: those of [`Checkpoint::verify`] and [`verify_inclusion`].
    pub fn verify(&self, checkpoint: &Checkpoint, log: &AgentId) -> Result<()> {
        checkpoint.verify(log)?;
        check_size(&self.checkpoint, checkpoint)?;
        let leaf = leaf_hash(&self.line);
        verify_inclusion((self.index, &leaf), (checkpoint.size(), checkpoint.root()), &self.hashes)
    }

    /// The place of the line.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The line, without its newline.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The path, the sibling of the leaf first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash256] {
        &self.hashes
    }

    /// The checkpoint that came with the proof.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

/// The proof that a log only grew between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsistencyProof {
    old: u64,
    hashes: Vec<Hash256>,
    checkpoint: Checkpoint,
}

impl ConsistencyProof {
    /// Puts a proof together; [`ConsistencyProof::verify`] says whether it holds.
    #[must_use]
    pub const fn new(old: u64, hashes: Vec<Hash256>, checkpoint: Checkpoint) -> Self {
        Self { old, hashes, checkpoint }
    }

    /// Reads the body of an `add-checkpoint` request of C2SP tlog-witness.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::malformed("not a consistency proof: it starts with `old <size>`");
        if text.len() > 2 * CHECKPOINT_BYTES {
            return Err(Error::new(Reason::TooLarge, "the proof is too large"));
        }
        let (old, rest) = text.split_once('\n').ok_or_else(wrong)?;
        let old = old.strip_prefix("old ").and_then(decimal).ok_or_else(wrong)?;
        let (hashes, checkpoint) = parse_hashes(rest)?;
        Ok(Self { old, hashes, checkpoint })
    }

    /// The body of an `add-checkpoint` request of C2SP tlog-witness.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("old {}\n", self.old);
        write_hashes(&mut out, &self.hashes, &self.checkpoint);
        out
    }

    /// Checks that the gate signed both checkpoints and that the new one only adds lines.
    ///
    /// Errors: those of [`Checkpoint::verify`] and [`verify_consistency`].
    pub fn verify(&self, old: &Checkpoint, new: &Checkpoint, log: &AgentId) -> Result<()> {
        old.verify(log)?;
        new.verify(log)?;
        check_size(&self.checkpoint, new)?;
        if self.old != old.size() {
            return Err(other_size(self.old, old.size()));
        }
        verify_consistency((old.size(), old.root()), (new.size(), new.root()), &self.hashes)
    }

    /// The number of lines of the older log.
    #[must_use]
    pub const fn old_size(&self) -> u64 {
        self.old
    }

    /// The hashes, in the order of RFC 6962 §2.1.2.
    #[must_use]
    pub fn hashes(&self) -> &[Hash256] {
        &self.hashes
    }

    /// The newer checkpoint, which came with the proof.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

fn check_size(proof: &Checkpoint, given: &Checkpoint) -> Result<()> {
    if proof.size() == given.size() {
        return Ok(());
    }
    Err(other_size(proof.size(), given.size()))
}

fn other_size(proof: u64, given: u64) -> Error {
    Error::malformed(format!(
        "the proof is for {proof} lines and the checkpoint has {given}; ask for a proof at {given}"
    ))
}

/// Hashes, an empty line and a checkpoint.
fn parse_hashes(text: &str) -> Result<(Vec<Hash256>, Checkpoint)> {
    let wrong = || Error::malformed("the proof has a hash that is not 32 bytes in base64");
    let (mut hashes, mut rest) = (Vec::new(), text);
    loop {
        let (line, after) = rest.split_once('\n').ok_or_else(wrong)?;
        rest = after;
        if line.is_empty() {
            return Ok((hashes, Checkpoint::parse(rest)?));
        }
        if hashes.len() == PROOF_HASHES {
            return Err(count());
        }
        hashes.push(hash(line).ok_or_else(wrong)?);
    }
}

fn write_hashes(out: &mut String, hashes: &[Hash256], checkpoint: &Checkpoint) {
    for hash in hashes {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}", STANDARD.encode(hash));
    }
    out.push('\n');
    out.push_str(checkpoint.text());
}
