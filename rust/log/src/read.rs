//! Reading an open log: any line, in any segment, with its MAC checked.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use moat_core::Error;
use moat_core::audit::Line;

use crate::LogError;
use crate::scan::Lines;
use crate::segments::{Place, Segments, cut};
use crate::store::{BLOCK, Fold, Store};

/// Segments whose lines' places are remembered.
const REMEMBERED: usize = 64;

/// Where lines start in segments that do not grow any more: for each segment, every line that is
/// a multiple of `BLOCK` lines after the first.
#[derive(Default)]
pub(crate) struct Places(Mutex<HashMap<u64, Arc<[u64]>>>);

impl Places {
    fn of(&self, segments: &Segments<'_>, at: usize) -> Result<Arc<[u64]>, LogError> {
        let Some((span, file)) = segments.open(at)? else { return Ok(Arc::default()) };
        let known = |places: &Self| {
            let places = places.0.lock().unwrap_or_else(PoisonError::into_inner);
            places.get(&span.first).cloned()
        };
        if let Some(known) = known(self) {
            return Ok(known);
        }
        let (mut lines, mut starts) = (Lines::new(file, span), Vec::new());
        for line in 0_u64.. {
            let offset = lines.place().offset;
            if lines.next()?.is_none() {
                break;
            }
            if line.is_multiple_of(BLOCK) {
                starts.push(offset);
            }
        }
        let starts: Arc<[u64]> = starts.into();
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= REMEMBERED {
            places.clear();
        }
        places.insert(span.first, Arc::clone(&starts));
        Ok(starts)
    }
}

impl<F: Fold> Store<F> {
    /// The line of an entry, without its newline, as it is on the disk and with its MAC checked.
    ///
    /// Errors: `Missing`, `Removed`, `BadMac` or `ChainBroken` when it was changed since.
    pub fn read(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let mut found = None;
        self.walk(index, |line| {
            found = Some(line.bytes.to_vec());
            ControlFlow::Break(())
        })?;
        let (size, _) = self.position()?;
        found.ok_or(LogError::Missing { index, size })
    }

    /// Shows the lines from `index` on, each with its MAC checked, until the end or a break.
    ///
    /// Errors: as [`Store::read`].
    pub fn walk(
        &self,
        index: u64,
        mut show: impl FnMut(&Line<'_>) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        self.health.check()?;
        let (spans, size, near) = {
            let inner = self.lock()?;
            let ahead = index.checked_sub(inner.current.span.first).map(|ahead| ahead / BLOCK);
            let block = ahead.and_then(|block| usize::try_from(block).ok());
            let near = block.and_then(|block| inner.current.offsets.get(block).copied());
            (inner.spans(), inner.chain.size(), near)
        };
        if index >= size {
            return Err(LogError::Missing { index, size });
        }
        let segments = Segments { folder: self.files.folder(), spans };
        let oldest = segments.oldest();
        let mut at = segments.holding(index).ok_or(LogError::Removed { index, oldest })?;
        self.writer.wait(size)?;
        let (mut lines, mut next) = self
            .seek(&segments, at, (index, near))
            .map_err(|error| self.removed(index).unwrap_or(error))?;
        while next < size {
            let place = lines.place();
            let Some(bytes) = lines.next()? else {
                at += 1;
                let opened = segments.open(at);
                let opened = opened.map_err(|error| self.removed(next).unwrap_or(error))?;
                let follows = opened.filter(|(span, _)| span.first == next);
                let (span, file) = follows.ok_or_else(|| place.broken(next, cut()))?;
                lines = Lines::new(file, span);
                continue;
            };
            if next >= index && self.checked(bytes, next, place, &mut show)?.is_break() {
                break;
            }
            next += 1;
        }
        Ok(())
    }

    /// The lines of a segment from one at or before `index` on, and the index of that.
    fn seek(
        &self,
        segments: &Segments<'_>,
        at: usize,
        (index, near): (u64, Option<u64>),
    ) -> Result<(Lines, u64), LogError> {
        let (span, file) =
            segments.open(at)?.ok_or(LogError::Removed { index, oldest: segments.oldest() })?;
        let ahead = (index - span.first) / BLOCK;
        let start = match near {
            Some(near) => Some(near),
            None => {
                let block = usize::try_from(ahead).unwrap_or(usize::MAX);
                self.places.of(segments, at)?.get(block).copied()
            }
        };
        let place = Place { segment: span.first, offset: span.end };
        let start = start.ok_or_else(|| place.broken(index, cut()))?;
        Ok((Lines::from(file, span, start), span.first + ahead * BLOCK))
    }

    /// Shows a line once it is known to be the gate's, with this index.
    fn checked(
        &self,
        bytes: &[u8],
        index: u64,
        place: Place,
        show: &mut impl FnMut(&Line<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let line = Line::parse(bytes).map_err(|why| place.broken(index, why))?;
        if line.index != index {
            let why = Error::malformed("another line stands in its place");
            return Err(place.broken(index, why));
        }
        line.leaf_with(&self.key).map_err(|_| place.forged(index))?;
        Ok(show(&line))
    }

    /// Says so if an entry's segment has been removed meanwhile.
    fn removed(&self, index: u64) -> Option<LogError> {
        let oldest = self.lock().ok()?.spans().first()?.first;
        (index < oldest).then_some(LogError::Removed { index, oldest })
    }
}
