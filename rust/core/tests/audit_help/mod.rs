//! One small log of one gate, its checkpoints and its proofs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, reason = "tests")]

use std::convert::Infallible;

use moat_core::audit::{
    Chain, Checkpoint, ConsistencyProof, InclusionProof, MacKey, Nodes, OPEN, Tree,
    consistency_hashes, inclusion_hashes, leaf_hash, root_of,
};
use moat_core::key::{Hash256, Identity};

pub(crate) fn gate() -> Identity {
    Identity::from_seed("gate", &[7; 32]).unwrap()
}

pub(crate) fn other() -> Identity {
    Identity::from_seed("other", &[8; 32]).unwrap()
}

pub(crate) fn key() -> MacKey {
    MacKey::derive(&gate()).unwrap()
}

pub(crate) const NOW: u64 = 1_700_000_000;

/// The log that the vectors are about, as text: an opening line and these notes.
pub(crate) fn log(notes: &[&str]) -> Vec<String> {
    let (mut chain, mut out) = (Chain::new(&gate().id()), Vec::new());
    let open = chain.open_body();
    let mut write = |time, kind, body: &str| {
        let parts = (time, kind, body.as_bytes());
        chain.append(&mut out, &key(), parts, |_, _| ()).unwrap();
    };
    write(NOW, OPEN, &open);
    notes.iter().zip(1..).for_each(|(body, n)| write(NOW + n, "note", body));
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) const NOTES: [&str; 6] = [
    r#"{"n":1}"#,
    r#"{"text":"ä \"quoted\"\n\u001f"}"#,
    "{}",
    r#"{"a":[1,-2,{"b":null}],"c":true}"#,
    r#"{"big":18446744073709551615}"#,
    r#"{"n":6}"#,
];

pub(crate) struct Leaves(pub(crate) Vec<Hash256>);

impl Nodes for Leaves {
    type Error = Infallible;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash256, Infallible> {
        let (start, end) = ((index << level) as usize, ((index + 1) << level) as usize);
        let mut tree = Tree::default();
        self.0[start..end].iter().for_each(|leaf| tree.append(*leaf, |_, _| ()));
        Ok(tree.root())
    }
}

pub(crate) fn leaves(lines: &[String]) -> Leaves {
    Leaves(lines.iter().map(|line| leaf_hash(line.as_bytes())).collect())
}

pub(crate) fn checkpoint(lines: &[String], size: u64) -> Checkpoint {
    Checkpoint::sign(&gate(), size, root_of(&mut leaves(lines), size).unwrap())
}

pub(crate) fn inclusion(lines: &[String], index: u64, size: u64) -> InclusionProof {
    let hashes = inclusion_hashes(&mut leaves(lines), index, size).unwrap();
    let line = lines[index as usize].as_bytes();
    InclusionProof::new(line, hashes, checkpoint(lines, size)).unwrap()
}

pub(crate) fn consistency(lines: &[String], old: u64, new: u64) -> ConsistencyProof {
    let hashes = consistency_hashes(&mut leaves(lines), old, new).unwrap();
    ConsistencyProof::new(old, hashes, checkpoint(lines, new))
}
