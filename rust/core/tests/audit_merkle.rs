//! The Merkle tree and its proofs: external vectors, and laws against a plain definition.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use moat_core::audit::{
    Nodes, Tree, consistency_hashes, empty_root, inclusion_hashes, leaf_hash, node_hash, root_of,
    verify_consistency, verify_inclusion,
};
use moat_core::key::Hash256;
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Option<PathBuf> {
    let shared = "../../../shared/vectors/transparency-dev-merkle";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(shared);
    if folder.exists() {
        return Some(folder);
    }
    eprintln!("skipped: the folder of external vectors is not there");
    None
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A hash of exactly 32 bytes, or nothing: other lengths are refused before any hashing.
fn hash(value: &Value) -> Option<Hash256> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap().try_into().ok()
}

fn proof(value: &Value) -> Option<Vec<Hash256>> {
    value.as_array().map_or(Some(Vec::new()), |hashes| hashes.iter().map(hash).collect())
}

fn inclusion_holds(case: &Value) -> Option<()> {
    let (leaf, root) = (hash(&case["leafHash"])?, hash(&case["root"])?);
    let (index, size) = (case["leafIdx"].as_u64()?, case["treeSize"].as_u64()?);
    verify_inclusion((index, &leaf), (size, &root), &proof(&case["proof"])?).ok()
}

fn consistency_holds(case: &Value) -> Option<()> {
    let (one, two) = (hash(&case["root1"])?, hash(&case["root2"])?);
    let (old, new) = (case["size1"].as_u64()?, case["size2"].as_u64()?);
    verify_consistency((old, &one), (new, &two), &proof(&case["proof"])?).ok()
}

/// Its roots have 12 bytes; hashes here have 32 (listed in the folder's README).
const SHORT_ROOTS: &str = "sizes-are-equal-one-and-proof-is-empty.json";

fn check(kind: &str, holds: impl Fn(&Value) -> Option<()>) {
    let Some(folder) = vectors() else { return };
    let files = files(&folder.join("testdata").join(kind));
    assert_eq!(files.len(), 98);
    let mut accepted = 0;
    for file in files {
        let case: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let short = file.ends_with(SHORT_ROOTS);
        let expected = !case["wantErr"].as_bool().unwrap() && !short;
        assert_eq!(holds(&case).is_some(), expected, "{}", file.display());
        accepted += usize::from(expected);
    }
    assert!(accepted > 4, "{accepted} accepted");
}

#[test]
fn every_external_inclusion_case_has_the_expected_answer() {
    check("inclusion", inclusion_holds);
}

#[test]
fn every_external_consistency_case_has_the_expected_answer() {
    check("consistency", consistency_holds);
}

#[test]
fn external_leaves_have_the_external_roots() {
    let Some(folder) = vectors() else { return };
    let file = std::fs::read(folder.join("LEAVES_rfc6962.json")).unwrap();
    let case: Value = serde_json::from_slice(&file).unwrap();
    let mut tree = Tree::default();
    let leaves = case["leaves_hex"].as_array().unwrap();
    let roots = case["roots_hex"].as_array().unwrap();
    assert_eq!(roots.len(), leaves.len() + 1);
    for (n, root) in roots.iter().enumerate() {
        assert_eq!(hex::encode(tree.root()), root.as_str().unwrap());
        if let Some(leaf) = leaves.get(n) {
            let leaf = hex::decode(leaf.as_str().unwrap()).unwrap();
            tree.append(leaf_hash(&leaf), |_, _| ());
        }
    }
}

/// The definition of RFC 6962 §2.1, word for word.
fn plain_root(leaves: &[Hash256]) -> Hash256 {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            node_hash(&plain_root(&leaves[..split]), &plain_root(&leaves[split..]))
        }
    }
}

fn leaves(count: u64) -> Vec<Hash256> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

struct Memory<'a>(&'a [Hash256]);

impl Nodes for Memory<'_> {
    type Error = Infallible;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash256, Infallible> {
        let (start, end) = ((index << level) as usize, ((index + 1) << level) as usize);
        Ok(plain_root(&self.0[start..end]))
    }
}

#[test]
fn a_node_is_the_hash_of_its_65_bytes() {
    let (left, right) = ([0xaa; 32], [0x55; 32]);
    let bytes = [&[1][..], &left, &right].concat();
    assert_eq!(node_hash(&left, &right), moat_core::key::sha256(&bytes));
}

#[test]
fn a_growing_tree_has_the_defined_root_and_reports_each_complete_node_once() {
    let leaves = leaves(70);
    let (mut tree, mut seen) = (Tree::default(), std::collections::BTreeMap::new());
    for (n, leaf) in leaves.iter().enumerate() {
        assert_eq!(tree.root(), plain_root(&leaves[..n]));
        tree.append(*leaf, |level, hash| {
            seen.entry(level).or_insert_with(Vec::new).push(*hash);
        });
    }
    for (level, hashes) in seen {
        assert_eq!(hashes.len(), 70 >> level);
        for (index, hash) in hashes.iter().enumerate() {
            assert_eq!(Memory(&leaves).node(level, index as u64).unwrap(), *hash);
        }
    }
}

#[test]
fn every_proof_of_every_small_tree_holds_for_its_own_place_alone() {
    let leaves = leaves(20);
    let root = |size: u64| plain_root(&leaves[..size as usize]);
    for size in 1..=20 {
        assert_eq!(root_of(&mut Memory(&leaves), size).unwrap(), root(size));
        for index in 0..size {
            let path = inclusion_hashes(&mut Memory(&leaves), index, size).unwrap();
            let leaf = leaves[index as usize];
            verify_inclusion((index, &leaf), (size, &root(size)), &path).unwrap();
            for other in (0..size).filter(|other| *other != index) {
                assert!(verify_inclusion((other, &leaf), (size, &root(size)), &path).is_err());
            }
            for more in [&path[..path.len().saturating_sub(1)], &[&path[..], &[leaf]].concat()] {
                if more.len() != path.len() {
                    assert!(verify_inclusion((index, &leaf), (size, &root(size)), more).is_err());
                }
            }
        }
        for old in 1..=size {
            let path = consistency_hashes(&mut Memory(&leaves), old, size).unwrap();
            verify_consistency((old, &root(old)), (size, &root(size)), &path).unwrap();
            for other in (1..=size).filter(|other| *other != old) {
                let claim = (other, &root(old));
                assert!(verify_consistency(claim, (size, &root(size)), &path).is_err());
            }
            let more = [&path[..], &[root(old)]].concat();
            assert!(verify_consistency((old, &root(old)), (size, &root(size)), &more).is_err());
        }
    }
}

proptest! {
    #[test]
    fn a_proof_with_any_changed_bit_does_not_hold(
        size in 2_u64..300, place in any::<u64>(), bit in any::<usize>(), hash in any::<usize>()
    ) {
        let leaves = leaves(size);
        let (index, root) = (place % size, plain_root(&leaves));
        let mut path = inclusion_hashes(&mut Memory(&leaves), index, size).unwrap();
        let leaf = leaves[index as usize];
        prop_assert!(verify_inclusion((index, &leaf), (size, &root), &path).is_ok());
        let at = hash % path.len();
        path[at][bit / 8 % 32] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion((index, &leaf), (size, &root), &path).is_err());
    }

    #[test]
    fn verifiers_answer_for_any_sizes(
        a in any::<u64>(), b in any::<u64>(), count in 0_usize..70, seed in any::<[u8; 32]>()
    ) {
        let hashes = vec![seed; count];
        let _ = verify_inclusion((a, &seed), (b, &seed), &hashes);
        let _ = verify_consistency((a, &seed), (b, &seed), &hashes);
    }
}
