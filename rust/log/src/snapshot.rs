//! Where reading can start: at the first line of the log, or at a complete snapshot.

use std::collections::VecDeque;

use moat_core::audit::{Chain, Line, MacKey, PRUNED, SNAPSHOT, SnapshotPart};
use moat_core::key::{AgentId, Hash256};
use moat_core::{Error, Reason};

use crate::LogError;
use crate::scan::Lines;
use crate::segments::{Place, Segments};
use crate::store::Fold;
use crate::tiles::Growing;

/// A segment that reading can start with, and all that the lines before it add up to.
#[derive(Debug)]
pub(crate) struct Start {
    /// The number of the segment.
    pub(crate) at: usize,
    /// The end of the log before the segment.
    pub(crate) chain: Chain,
    pub(crate) growing: Growing,
    /// Entries before this one may be missing.
    pub(crate) pruned: u64,
    /// The items of the state.
    pub(crate) items: Vec<Vec<u8>>,
    /// Bytes of the snapshot's lines.
    pub(crate) bytes: u64,
}

impl Start {
    /// The newest segment to start with. A snapshot that is not complete and right is not
    /// believed: reading starts before it and finds what is wrong, if anything is.
    pub(crate) fn newest(
        segments: &Segments<'_>,
        log: &AgentId,
        key: Option<&MacKey>,
    ) -> Result<Self, LogError> {
        let mut refusal = None;
        for at in (0..segments.spans.len()).rev() {
            match Self::at(segments, at, log, key) {
                Ok(start) => return Ok(start),
                Err(error @ LogError::Io { .. }) => return Err(error),
                Err(error) => refusal = Some(error),
            }
        }
        refusal.map_or_else(|| Ok(Self::first(log)), Err)
    }

    /// The oldest segment to start with. Gives also why an older one cannot be started with:
    /// what is left of segments that were being removed does not count, and `pruned` has to
    /// say so.
    pub(crate) fn oldest(
        segments: &Segments<'_>,
        log: &AgentId,
        key: Option<&MacKey>,
    ) -> Result<(Self, Option<LogError>), LogError> {
        let mut refusal = None;
        for at in 0..segments.spans.len() {
            match Self::at(segments, at, log, key) {
                Ok(start) => return Ok((start, refusal)),
                Err(error @ LogError::Io { .. }) => return Err(error),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        refusal.map_or_else(|| Ok((Self::first(log), None)), Err)
    }

    /// The segment with this number, if it can be started with.
    ///
    /// Errors: `ChainBroken` or `BadMac` where its snapshot ends too early or is not right.
    pub(crate) fn at(
        segments: &Segments<'_>,
        at: usize,
        log: &AgentId,
        key: Option<&MacKey>,
    ) -> Result<Self, LogError> {
        let Some((span, file)) = segments.open(at)? else { return Ok(Self::first(log)) };
        if span.first == 0 {
            return Ok(Self::first(log));
        }
        let mut lines = Lines::new(file, span);
        let mut parts = Parts { first: span.first, ..Parts::default() };
        let mut before = lines.place();
        while !parts.is_complete() {
            let (place, index) = (lines.place(), span.first + parts.count);
            let bytes = lines.next()?.ok_or_else(|| place.broken(index, incomplete()))?;
            let Err(why) = parts.add(bytes, key) else {
                before = place;
                continue;
            };
            let leaf = Line::parse(bytes).ok().map(|line| line.leaf());
            return Err(match why.reason {
                Reason::BadSignature => place.forged(index),
                // As when lines are replayed: if the next line vouches for this one, it is the
                // one before that was changed.
                Reason::BrokenChain
                    if parts.is_cut_off
                        && leaf.is_some_and(|l| lines.next_follows(&l) == Some(true)) =>
                {
                    before.broken(index - 1, why)
                }
                _ => place.broken(index, why),
            });
        }
        let end = lines.place().offset;
        if key.is_none() && !parts.is_vouched_for(&mut lines)? {
            let why = "the next line has another hash of it";
            let why = Error::new(Reason::BrokenChain, why);
            return Err(before.broken(span.first + parts.count - 1, why));
        }
        let start = Place { segment: span.first, offset: 0 };
        parts.start(at, log, end).map_err(|why| start.broken(span.first, why))
    }

    /// The beginning of every log.
    fn first(log: &AgentId) -> Self {
        let (growing, items) = (Growing::default(), Vec::new());
        Self { at: 0, chain: Chain::new(log), growing, pruned: 0, items, bytes: 0 }
    }
}

/// The parts of a snapshot, while they are read.
#[derive(Default)]
struct Parts {
    first: u64,
    /// The first line.
    line: Vec<u8>,
    leaf: Option<Hash256>,
    count: u64,
    of: u64,
    pruned: u64,
    tree: Vec<Vec<Hash256>>,
    items: Vec<Vec<u8>>,
    /// Does the line that was refused not follow the one before it?
    is_cut_off: bool,
}

impl Parts {
    fn is_complete(&self) -> bool {
        self.count > 0 && self.count == self.of
    }

    fn add(&mut self, bytes: &[u8], key: Option<&MacKey>) -> Result<(), Error> {
        let line = Line::parse(bytes)?;
        let leaf = key.map_or_else(|| Ok(line.leaf()), |key| line.leaf_with(key))?;
        let fits = line.index == self.first + self.count;
        self.is_cut_off = fits && key.is_none() && self.leaf.is_some_and(|l| !line.follows(&l));
        if !fits || self.leaf.is_some_and(|l| !line.follows(&l)) {
            let why = "the line and the one before it do not belong together";
            return Err(Error::new(Reason::BrokenChain, why));
        }
        if line.kind != SNAPSHOT {
            return Err(incomplete());
        }
        let part = SnapshotPart::parse(line.body)?;
        if self.count == 0 {
            (self.of, self.pruned, self.line) = (part.of, part.pruned, bytes.to_vec());
        }
        if (part.part, part.of, part.pruned) != (self.count, self.of, self.pruned) {
            return Err(Error::new(Reason::BrokenChain, "a part of another snapshot"));
        }
        self.tree.extend(part.tree);
        self.items.extend(part.items.into_iter().map(<[u8]>::to_vec));
        self.leaf = Some(leaf);
        self.count += 1;
        Ok(())
    }

    /// Without a key: false when the line after the last part follows something else, and is
    /// itself what the line after it follows.
    fn is_vouched_for(&self, lines: &mut Lines) -> Result<bool, LogError> {
        let Some(last) = self.leaf else { return Ok(false) };
        if lines.next_follows(&last) != Some(false) {
            return Ok(true);
        }
        let next = lines.next()?.and_then(|bytes| Line::parse(bytes).ok()).map(|line| line.leaf());
        Ok(next.is_none_or(|next| lines.next_follows(&next) != Some(true)))
    }

    fn start(self, at: usize, log: &AgentId, bytes: u64) -> Result<Start, Error> {
        let wrong = || Error::malformed("the snapshot has the hashes of another size");
        let (growing, tree) = Growing::resume(self.first, self.tree).ok_or_else(wrong)?;
        let chain = Chain::before(log, &Line::parse(&self.line)?, tree)?;
        Ok(Start { at, chain, growing, pruned: self.pruned, items: self.items, bytes })
    }
}

fn incomplete() -> Error {
    Error::new(Reason::BrokenChain, "the snapshot at the beginning of the segment is not complete")
}

/// Takes a line into a state. What is the log's alone does not concern the state, except that
/// time has passed.
pub(crate) fn fold_line<F: Fold>(
    fold: &mut F,
    pruned: &mut u64,
    line: &Line<'_>,
) -> Result<(), LogError> {
    let index = line.index;
    let rejected = |why| LogError::Rejected { index, why };
    match line.kind {
        SNAPSHOT => {
            fold.advance(line.time);
        }
        PRUNED => {
            fold.advance(line.time);
            *pruned = read_pruned(line)?;
        }
        _ => fold.apply(index, line.time, line.kind, line.body).map_err(rejected)?,
    }
    Ok(())
}

/// The body of a `pruned` entry.
pub(crate) fn pruned_body(before: u64) -> Vec<u8> {
    format!("{{\"before\":{before}}}").into_bytes()
}

/// What a `pruned` entry says.
pub(crate) fn read_pruned(line: &Line<'_>) -> Result<u64, LogError> {
    let digits = line.body.strip_prefix(b"{\"before\":").and_then(|rest| rest.strip_suffix(b"}"));
    let before = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let wrong = || Error::malformed("the body is not `{\"before\":N}`");
    before.ok_or_else(|| LogError::Rejected { index: line.index, why: wrong() })
}

/// What the snapshot that is being read has to say, as far as it was not compared yet.
pub(crate) struct Expected {
    part: u64,
    of: u64,
    tree: VecDeque<Vec<Hash256>>,
    items: VecDeque<Vec<u8>>,
}

/// The entries of a log taken into a state that is compared with every snapshot.
pub(crate) struct Refold<F> {
    fold: F,
    /// Entries before this one may be missing.
    pub(crate) pruned: u64,
    expected: Option<Expected>,
}

impl<F: Fold> Refold<F> {
    /// Goes on from a start.
    pub(crate) fn new(mut fold: F, start: &Start) -> Result<Self, LogError> {
        restore(&mut fold, start)?;
        Ok(Self { fold, pruned: start.pruned, expected: None })
    }

    /// Begins with the first line after that of kind `open`, which adds nothing to a state.
    pub(crate) const fn fresh(fold: F) -> Self {
        Self { fold, pruned: 0, expected: None }
    }

    /// What all lines add up to, of which there are `entries`.
    pub(crate) fn end(self, entries: u64) -> Result<F, LogError> {
        let whole = self.fold.check_whole();
        whole.map(|()| self.fold).map_err(|why| LogError::Rejected { index: entries, why })
    }

    /// Takes the next line; `before` has the growing tiles before it if it is the first of a
    /// segment.
    pub(crate) fn take(
        &mut self,
        place: Place,
        line: &Line<'_>,
        before: Option<&Growing>,
    ) -> Result<(), LogError> {
        fold_line(&mut self.fold, &mut self.pruned, line)?;
        if line.kind != SNAPSHOT {
            // A crash may have left the rest of it unwritten.
            self.expected = None;
            return Ok(());
        }
        self.compare(line, before).map_err(|what| LogError::SnapshotDiffers {
            index: line.index,
            segment: place.segment,
            offset: place.offset,
            what,
        })
    }

    fn compare(&mut self, line: &Line<'_>, before: Option<&Growing>) -> Result<(), String> {
        let part = SnapshotPart::parse(line.body).map_err(|why| why.to_string())?;
        if let Some(before) = before {
            let items = self.fold.snapshot().map_err(|why| format!("the state has none: {why}"))?;
            let (tree, items) = (before.hashes().into(), items.into());
            self.expected = Some(Expected { part: 0, of: part.of, tree, items });
        }
        let expected = self.expected.as_mut().ok_or("no part of it belongs here")?;
        if (part.part, part.of) != (expected.part, expected.of) {
            return Err(format!("part {} of {} stands where another belongs", part.part, part.of));
        }
        if part.pruned != self.pruned {
            return Err(format!("it says that entries before {} were removed", part.pruned));
        }
        for level in part.tree {
            if expected.tree.pop_front() != Some(level) {
                return Err("the hashes of the tree".to_owned());
            }
        }
        for (n, item) in part.items.into_iter().enumerate() {
            if expected.items.pop_front().is_none_or(|expected| expected != item) {
                return Err(format!("item {n} of this part"));
            }
        }
        expected.part += 1;
        if expected.part == expected.of {
            if !expected.tree.is_empty() || !expected.items.is_empty() {
                return Err(format!("{} items are missing at its end", expected.items.len()));
            }
            self.expected = None;
        }
        Ok(())
    }
}

/// Brings a new state to where a start is.
pub(crate) fn restore<F: Fold>(fold: &mut F, start: &Start) -> Result<(), LogError> {
    let index = start.chain.size();
    let rejected = |why| LogError::Rejected { index, why };
    start.items.iter().try_for_each(|item| fold.restore(item)).map_err(rejected)
}
