//! Retention: whole segments go, once all that proofs need of them is kept for good.

use std::sync::PoisonError;

use moat_core::audit::PRUNED;
use moat_core::entry::Record;

use crate::LogError;
use crate::prove::replay_tiles;
use crate::segments::{Place, Segments, cut, name};
use crate::snapshot::{Start, pruned_body};
use crate::store::{Fold, Store};

/// Segments that are, or would be, removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The oldest entry that stays.
    pub before: u64,
    /// How many entries go.
    pub entries: u64,
    /// How many bytes of lines go.
    pub bytes: u64,
    /// The names of the segments' files, oldest first.
    pub segments: Vec<String>,
}

impl<F: Fold> Store<F> {
    /// What [`Store::prune`] would remove. Changes nothing.
    ///
    /// Errors: as [`Store::prune`].
    pub fn prunable(&self, before: u64) -> Result<Pruned, LogError> {
        self.health.check()?;
        let kept = self.keep_from(&self.here()?, before)?;
        self.gone(kept.chain.size())
    }

    /// Removes the segments all of whose entries come before `before`, as far as the newest
    /// complete snapshot does not need them. Their tiles are checked, made where they are
    /// missing, and synced first; then an entry `pruned` and a checkpoint over it are on the
    /// disk; then the files go, oldest first. What a crash leaves goes with the next call.
    ///
    /// Proofs stay possible: of consistency at every size, of inclusion for whoever kept the
    /// line ([`Store::prove_line`]).
    ///
    /// Errors: `ChainBroken` or `BadMac` when what is to go is not in order (nothing goes then),
    /// `Untrusted`, `Io`, `Unavailable`, `Forked`.
    pub fn prune(&self, before: u64, now: u64) -> Result<Pruned, LogError> {
        self.health.check()?;
        let _one_at_a_time = self.pruning.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = self.here()?;
        let kept = self.keep_from(&segments, before)?;
        let before = kept.chain.size();
        if self.lock()?.pruned < before {
            self.keep_tiles(&segments, &kept)?;
            let entry = Record::new(PRUNED, pruned_body(before));
            // From here on readers are told that the entries are gone.
            self.append_own(entry, now, |inner| {
                inner.pruned = before;
                inner.older.retain(|span| span.first >= before);
            })?;
            self.checkpoint()?;
        }
        let gone = self.gone(before)?;
        for name in &gone.segments {
            self.files.remove(name)?;
            self.files.sync()?;
        }
        Ok(gone)
    }

    /// All segments, with every line in them on the disk.
    fn here(&self) -> Result<Segments<'_>, LogError> {
        let spans = self.lock()?.spans();
        self.ticket()?.wait()?;
        Ok(Segments { folder: self.files.folder(), spans })
    }

    /// The newest segment, at or before `before`, that everything can be read from.
    fn keep_from(&self, segments: &Segments<'_>, before: u64) -> Result<Start, LogError> {
        let log = self.notary.gate().id();
        let newest = Start::newest(segments, &log, Some(&self.key))?;
        let most = segments.holding(before).unwrap_or(0).min(newest.at);
        let mut starts = (1..=most).rev().map(|at| Start::at(segments, at, &log, Some(&self.key)));
        match starts.find_map(Result::ok) {
            Some(start) => Ok(start),
            None => Start::at(segments, 0, &log, Some(&self.key)),
        }
    }

    /// Reads all that is to go, and sees to it that its tiles are there for good and that it
    /// leads to the snapshot that stays.
    fn keep_tiles(&self, segments: &Segments<'_>, kept: &Start) -> Result<(), LogError> {
        let start = Start::at(segments, 0, &self.notary.gate().id(), Some(&self.key))?;
        let (size, root) = (kept.chain.size(), self.notary.root());
        let growing = replay_tiles(segments, start, (size, &self.key), |tile| tile.keep(root))?;
        if growing.hashes() == kept.growing.hashes() {
            return Ok(());
        }
        Err(Place { segment: size, offset: 0 }.broken(size, cut()))
    }

    /// The segments in the folder whose entries come before this one, also those that an earlier
    /// call has left there.
    fn gone(&self, before: u64) -> Result<Pruned, LogError> {
        let mut spans = Segments::list(self.files.folder())?.spans;
        spans.retain(|span| span.first < before);
        Ok(Pruned {
            before,
            entries: spans.first().map_or(0, |oldest| before - oldest.first),
            bytes: spans.iter().map(|span| span.end).sum(),
            segments: spans.iter().map(|span| name(span.first)).collect(),
        })
    }
}
