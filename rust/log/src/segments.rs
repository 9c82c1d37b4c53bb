//! Segments: the files that the lines lie in, each named by the index of its first line.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use moat_core::audit::{Line, MacKey};
use moat_core::limits::LINE_BYTES;
use moat_core::{Error, Reason};

use crate::LogError;
use crate::folder::Folder;
use crate::scan::Lines;

/// How often a listing is repeated while somebody removes segments.
const LISTINGS: usize = 16;

/// The name of a segment in the folder `seg`.
pub(crate) fn name(first: u64) -> String {
    format!("{first:012}.jsonl")
}

/// One segment: the index of its first line, and how many bytes of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// A place in the log: a segment, and a byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl Place {
    /// The line that starts here is not the one that belongs here.
    pub(crate) const fn broken(self, index: u64, why: Error) -> LogError {
        LogError::ChainBroken { index, segment: self.segment, offset: self.offset, why }
    }

    /// A segment ends here after `size` lines in all, and the next one starts with `next`.
    pub(crate) fn gap(self, size: u64, next: u64) -> LogError {
        let why = match size < next {
            true => format!("the lines up to {next}, where the next segment starts, are missing"),
            false => format!("the next segment starts with line {next} again"),
        };
        self.broken(size.min(next), Error::new(Reason::BrokenChain, why))
    }

    /// The gate did not write the line that starts here.
    pub(crate) const fn forged(self, index: u64) -> LogError {
        LogError::BadMac { index, segment: self.segment, offset: self.offset }
    }
}

/// The segments of a log, oldest first, as they were at one moment.
#[derive(Debug)]
pub(crate) struct Segments<'f> {
    pub(crate) folder: &'f Folder,
    pub(crate) spans: Vec<Span>,
}

impl<'f> Segments<'f> {
    /// Lists what is there. A segment that is removed meanwhile is not there.
    ///
    /// Errors: `Untrusted` for a name that no segment has, `Io`.
    pub(crate) fn list(folder: &'f Folder) -> Result<Self, LogError> {
        for _ in 0..LISTINGS {
            let spans = firsts(folder)?.into_iter().map(|first| span(folder, first));
            if let Some(spans) = spans.collect::<Result<Option<Vec<_>>, _>>()? {
                return Ok(Self { folder, spans });
            }
        }
        Err(missing(0))
    }

    /// The file of the segment with this number among those listed.
    pub(crate) fn open(&self, at: usize) -> Result<Option<(Span, File)>, LogError> {
        let Some(span) = self.spans.get(at) else { return Ok(None) };
        let file = self.folder.read(&name(span.first))?.ok_or_else(|| missing(span.first))?;
        Ok(Some((*span, file)))
    }

    /// Leaves out what an entry said may be missing; what of it is still here is about to go.
    ///
    /// Errors: `ChainBroken` when more is missing.
    pub(crate) fn leave_out(&mut self, pruned: u64) -> Result<(), LogError> {
        if self.spans.is_empty() && pruned == 0 {
            return Ok(());
        }
        self.spans.retain(|span| span.first >= pruned);
        if self.spans.first().is_some_and(|span| span.first == pruned) {
            return Ok(());
        }
        Err(missing(pruned))
    }

    /// The number of the segment that holds an entry, if it is here.
    pub(crate) fn holding(&self, index: u64) -> Option<usize> {
        self.spans.partition_point(|span| span.first <= index).checked_sub(1)
    }

    /// The index of the oldest line that is here.
    pub(crate) fn oldest(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.first)
    }

    /// Bytes in the segments from this number on.
    pub(crate) fn bytes(&self, at: usize) -> u64 {
        self.spans.iter().skip(at).map(|span| span.end).sum()
    }

    /// Checks the first and the last line of the segments before the one that starts with
    /// `until`, and that each leads to the first line of the next: what can be known of them
    /// without reading them.
    pub(crate) fn check_edges(&self, until: u64, key: &MacKey) -> Result<(), LogError> {
        let mut leaf = None;
        for number in 0..self.spans.len() {
            let Some((span, file)) = self.open(number)? else { break };
            let start = Place { segment: span.first, offset: 0 };
            if span.first == 0 && span.first == until {
                break;
            }
            let mut lines = Lines::new(file, span);
            let first = lines.next()?.ok_or_else(|| start.broken(span.first, cut()))?;
            let line = own(first, span.first, start, key)?;
            if line.index != span.first {
                let why = format!("line {} stands where {} belongs", line.index, span.first);
                return Err(start.broken(span.first, Error::new(Reason::BrokenChain, why)));
            }
            if leaf.is_some_and(|leaf| !line.follows(&leaf)) {
                let why = "`prev` is not the hash of the last line of the segment before";
                return Err(start.broken(span.first, Error::new(Reason::BrokenChain, why)));
            }
            let next = self.spans.get(number + 1).filter(|_| span.first < until);
            let Some(next) = next else { break };
            let (bytes, offset) = last_line(lines.file(), span)?;
            let (place, last) = (Place { segment: span.first, offset }, next.first - 1);
            let bytes = bytes.ok_or_else(|| place.broken(last, cut()))?;
            let line = own(&bytes, last, place, key)?;
            if line.index != last {
                return Err(place.gap(line.index + 1, next.first));
            }
            leaf = Some(line.leaf());
        }
        Ok(())
    }
}

/// The segment that starts with this line is not there and should be.
pub(crate) fn missing(first: u64) -> LogError {
    let why = "the segment is missing and no entry says that it was removed; put it back";
    Place { segment: first, offset: 0 }.broken(first, Error::new(Reason::BrokenChain, why))
}

/// A segment that is not the last ends in the middle of a line.
pub(crate) fn cut() -> Error {
    Error::new(Reason::BrokenChain, "the segment ends too early, and it is not the last")
}

/// Says that a segment could not be read.
pub(crate) fn unreadable(segment: u64, source: io::Error) -> LogError {
    LogError::Io { action: "read", path: name(segment).into(), source }
}

/// The first indices that the names in the folder tell, in order.
fn firsts(folder: &Folder) -> Result<Vec<u64>, LogError> {
    let mut firsts = Vec::new();
    for found in folder.names()? {
        let found = found.to_string_lossy();
        let Some(digits) = found.strip_suffix(".jsonl") else { continue };
        let first = digits.parse().ok().filter(|first| name(*first) == found);
        firsts.push(first.ok_or_else(|| LogError::Untrusted {
            path: folder.path().join(&*found),
            why: "is not the name of a segment; take it out of the folder".to_owned(),
        })?);
    }
    firsts.sort_unstable();
    Ok(firsts)
}

fn span(folder: &Folder, first: u64) -> Result<Option<Span>, LogError> {
    let Some(file) = folder.read(&name(first))? else { return Ok(None) };
    let end = file.metadata().map_err(|source| unreadable(first, source))?.len();
    Ok(Some(Span { first, end }))
}

/// Reads a line that has to be the gate's own; `index` is the one that belongs here.
fn own<'a>(bytes: &'a [u8], index: u64, place: Place, key: &MacKey) -> Result<Line<'a>, LogError> {
    let line = Line::parse(bytes).map_err(|why| place.broken(index, why))?;
    line.leaf_with(key).map_err(|_| place.forged(index))?;
    Ok(line)
}

/// The last line of a segment and where it starts; nothing when the segment does not end with
/// a newline.
fn last_line(file: &File, span: Span) -> Result<(Option<Vec<u8>>, u64), LogError> {
    let window = span.end.min(LINE_BYTES as u64 + 2);
    let mut bytes = vec![0; usize::try_from(window).unwrap_or_default()];
    let from = span.end - window;
    file.read_exact_at(&mut bytes, from).map_err(|source| unreadable(span.first, source))?;
    let whole = bytes.pop() == Some(b'\n');
    let start = memchr::memrchr(b'\n', &bytes).map_or(0, |newline| newline + 1);
    let line = bytes.split_off(start);
    Ok((whole.then_some(line), from + start as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_line_is_found_at_its_place_however_long_it_is() {
        for size in [1, 100, LINE_BYTES] {
            let mut file = tempfile::tempfile().unwrap();
            let (before, last) = (b"first\n".repeat(20_000), vec![b'x'; size]);
            file.write_all(&[&before, &last, &b"\n"[..]].concat()).unwrap();
            let span = Span { first: 0, end: file.metadata().unwrap().len() };
            assert_eq!(last_line(&file, span).unwrap(), (Some(last), before.len() as u64));
        }
    }
}
