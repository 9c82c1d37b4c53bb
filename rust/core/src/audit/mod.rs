//! The audit log as bytes: lines, their chain, their Merkle tree, checkpoints and proofs.
//!
//! One SHA-256 per line is both the chain link and the RFC 6962 leaf. `spec/audit.md` owns the
//! formats; what the body of a line *means* is not known here, and neither are files.

mod chain;
mod checkpoint;
mod inherited;
mod json;
mod line;
mod proof;
mod snapshot;
mod tree;

pub use chain::{Chain, OPEN, PRUNED, RESERVED, RESTORED, SNAPSHOT, TORN};
pub use checkpoint::Checkpoint;
pub use inherited::{Former, INHERITED, InheritedPart, inherited_parts};
pub use line::{Line, MacKey};
pub use proof::{
    ConsistencyProof, InclusionProof, consistency_hashes, inclusion_hashes, verify_consistency,
    verify_inclusion,
};
pub use snapshot::{SnapshotPart, snapshot_parts};
pub use tree::{Nodes, Tree, empty_root, leaf_hash, node_hash, root_of};

use crate::key::{AgentId, Hash256, sha256};

/// The C2SP origin of a gate's log: `moat.log/<did:key>`.
#[must_use]
pub fn origin(log: &AgentId) -> String {
    format!("moat.log/{log}")
}

/// What the first line has for `prev`: SHA-256("moat-audit-v1\n" ‖ origin ‖ "\n").
#[must_use]
pub fn genesis(origin: &str) -> Hash256 {
    sha256(format!("moat-audit-v1\n{origin}\n").as_bytes())
}

/// Lower-case hexadecimal digits of `N / 2` bytes.
fn hex<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let digit = |nibble: u8| nibble + if nibble > 9 { b'a' - 10 } else { b'0' };
    let mut out = [b'0'; N];
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    out
}

/// The same as text, for any number of bytes; `hex::encode` takes several times as long.
pub(crate) fn hex_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let [high, low] = hex(&[*byte]);
        text.push(char::from(high));
        text.push(char::from(low));
    }
    text
}

/// Are these lower-case hexadecimal digits, all of them?
fn is_hex(bytes: &[u8]) -> bool {
    let other = |b: u8| u8::from(b.wrapping_sub(b'0') > 9) & u8::from(b.wrapping_sub(b'a') > 5);
    // Without a branch, so that the compiler looks at many bytes at once.
    bytes.iter().fold(0, |found, b| found | other(*b)) == 0
}
