//! The log of one gate in one folder: lock, ordered append, group commit, recovery, anchor,
//! tiles and streaming verification. `spec/audit.md` owns the formats.
//!
//! What an entry means is not known here: its body is one canonical JSON object, in bytes.
#![forbid(unsafe_code)]

mod authority;
mod claim;
mod error;
mod folder;
mod gate;
mod notary;
mod open;
mod parallel;
mod permit;
mod prove;
mod prune;
mod read;
mod rotate;
mod scan;
mod segments;
mod snapshot;
mod store;
mod succession;
mod tiles;
mod verify;
mod writer;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod flips;

pub use error::{LogError, Witness};
pub use gate::{Decision, Gate};
pub use moat_core::entry::Record;
pub use open::{AnchorState, Opened, Options, SEGMENT_BYTES};
pub use permit::{Asked, Effect, End, Permit, Watch};
pub use prune::Pruned;
pub use store::{Committed, Fold, Pending, Store, Ticket};
pub use succession::{hand_on, verify_after};
pub use verify::{Progress, Report, Trust, Unchecked, lines, verify, walk};
