//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;

use moat_core::Error;

use crate::segments::name;

/// Why a log cannot be opened, written or believed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system refused. Before anything was written; a failed write is `Unavailable`.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has the log open for writing.
    #[error("the log `{path}` is open in another process; one process writes a log")]
    Locked {
        /// The log's folder.
        path: PathBuf,
    },
    /// A write or a sync failed, a fault happened under the lock, or the log was closed.
    /// Nothing is accepted any more; open the log anew.
    #[error("the log is unavailable: {why}; open it anew")]
    Unavailable {
        /// What happened first.
        why: String,
    },
    /// The process is not the one that opened the log.
    #[error("the log was opened by another process; open it after the fork, not before")]
    Forked,
    /// A line is not the one that belongs there.
    #[error("the log is broken at entry {index} (byte {offset} of `{}`): {why}", name(*.segment))]
    ChainBroken {
        /// The first entry that is wrong.
        index: u64,
        /// The segment that it is in, by the index of its first line.
        segment: u64,
        /// Where its line starts in the segment, in bytes.
        offset: u64,
        /// What is wrong with it.
        why: Error,
    },
    /// A line was not written by the gate.
    #[error(
        "entry {index} (byte {offset} of `{}`) was not written by the gate: its MAC is wrong",
        name(*.segment)
    )]
    BadMac {
        /// The entry.
        index: u64,
        /// The segment that it is in, by the index of its first line.
        segment: u64,
        /// Where its line starts in the segment, in bytes.
        offset: u64,
    },
    /// A snapshot does not say what the entries before it add up to.
    #[error(
        "the snapshot at entry {index} (byte {offset} of `{}`) is not what the entries before it \
         add up to: {what}",
        name(*.segment)
    )]
    SnapshotDiffers {
        /// The entry with the part that differs.
        index: u64,
        /// The segment that it is in, by the index of its first line.
        segment: u64,
        /// Where its line starts in the segment, in bytes.
        offset: u64,
        /// What differs.
        what: String,
    },
    /// A log did not inherit what the log before it adds up to.
    #[error("what the log inherited (entry {index}) is not that of the log before it: {what}")]
    InheritedDiffers {
        /// The entry with the part that differs.
        index: u64,
        /// What differs.
        what: String,
    },
    /// The log is shorter than, or another one than, what the gate signed earlier.
    #[error(
        "the log is not the one that its {witness} describes: {}; \
         look for the missing lines, or accept the log as restored",
        rolled_back(*.entries, *.size)
    )]
    RolledBack {
        /// What remembers more: the anchor, or the checkpoint in the log's folder.
        witness: Witness,
        /// The entries that the log has.
        entries: u64,
        /// The entries that were signed.
        size: u64,
    },
    /// A file has no business being there, or is not what it should be.
    #[error("`{path}` {why}")]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An entry that the log cannot hold. The log is as it was before.
    #[error("the entry cannot be written: {0}")]
    Entry(Error),
    /// An entry that the state does not accept, while the log was read.
    #[error("entry {index} does not fit the state: {why}")]
    Rejected {
        /// The entry.
        index: u64,
        /// What the state said.
        why: Error,
    },
    /// The entry was there and its segment has been removed.
    #[error(
        "entry {index} is in a segment that was removed (the oldest entry here is {oldest}); \
         whoever kept its line can still have it proved"
    )]
    Removed {
        /// What was asked for.
        index: u64,
        /// The oldest entry that is still here.
        oldest: u64,
    },
    /// There is no such entry, or no such size.
    #[error("there is no entry {index} in a log of {size}")]
    Missing {
        /// What was asked for.
        index: u64,
        /// How many entries there are.
        size: u64,
    },
}

/// What remembers how far a log had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// The copy of the newest checkpoint that lies outside the folder.
    Anchor,
    /// The checkpoint in the folder.
    Checkpoint,
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anchor => "anchor",
            Self::Checkpoint => "checkpoint",
        })
    }
}

impl LogError {
    /// The first entry that is wrong or missing, where that is known.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::ChainBroken { index, .. }
            | Self::BadMac { index, .. }
            | Self::SnapshotDiffers { index, .. }
            | Self::InheritedDiffers { index, .. }
            | Self::Rejected { index, .. } => Some(*index),
            Self::RolledBack { entries, size, .. } => Some((*entries).min(size.saturating_sub(1))),
            _ => None,
        }
    }

    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { why: why.into() }
    }
}

fn rolled_back(entries: u64, size: u64) -> String {
    if entries < size {
        return format!("it has {entries} entries and {size} were signed");
    }
    format!("its first {size} entries have another root than was signed")
}
