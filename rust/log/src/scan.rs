//! Reading segments from some line on, in constant memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use moat_core::audit::{Chain, Line, MacKey};
use moat_core::key::Hash256;
use moat_core::limits::LINE_BYTES;
use moat_core::{Error, Reason};

use crate::LogError;
use crate::segments::{Place, Segments, Span, cut, unreadable};

/// Bytes read at a time: more than one line, and little enough to stay in a processor's cache.
const CHUNK: usize = 128 * 1024;

/// The lines of one segment, from some byte of it up to another.
pub(crate) struct Lines {
    file: File,
    segment: u64,
    /// Where in the file the next read starts, and where the last one ends.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    /// What of the buffer is not consumed yet.
    start: usize,
    filled: usize,
}

impl Lines {
    /// All lines of a segment.
    pub(crate) fn new(file: File, span: Span) -> Self {
        Self::from(file, span, 0)
    }

    /// The lines of a segment from a byte on at which one starts.
    pub(crate) fn from(file: File, span: Span, offset: u64) -> Self {
        let Span { first: segment, end } = span;
        let size = usize::try_from(end.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
        let buffer = vec![0; size];
        Self { file, segment, next: offset, end, buffer, start: 0, filled: 0 }
    }

    /// The file that is read.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Where the next line starts.
    pub(crate) fn place(&self) -> Place {
        let offset = self.next - (self.filled - self.start) as u64;
        Place { segment: self.segment, offset }
    }

    /// The next line without its newline, or nothing when no newline is left. Bytes that are
    /// too many for a line come as one, for the reader to refuse.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, LogError> {
        Ok(self.find_next()?.and_then(|range| self.buffer.get(range)))
    }

    /// Where in the buffer the next line is; the line after it is the next one then.
    fn find_next(&mut self) -> Result<Option<Range<usize>>, LogError> {
        let Some(size) = self.find()? else { return Ok(None) };
        let start = self.start;
        self.start = (start + size + 1).min(self.filled);
        Ok(Some(start..start + size))
    }

    /// Does the next line name this leaf as the one before it? Nothing when there is no line.
    pub(crate) fn next_follows(&mut self, leaf: &Hash256) -> Option<bool> {
        let line = self.peek().ok().flatten().and_then(|bytes| Line::parse(bytes).ok());
        line.map(|line| line.follows(leaf))
    }

    /// The next line, without going past it.
    fn peek(&mut self) -> Result<Option<&[u8]>, LogError> {
        let Some(size) = self.find()? else { return Ok(None) };
        Ok(self.buffer.get(self.start..self.start + size))
    }

    /// What is left when there is no newline any more.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..self.filled).unwrap_or_default()
    }

    fn find(&mut self) -> Result<Option<usize>, LogError> {
        loop {
            let found = memchr::memchr(b'\n', self.rest());
            if found.is_some() {
                return Ok(found);
            }
            if self.rest().len() > LINE_BYTES {
                return Ok(Some(self.rest().len()));
            }
            if self.next >= self.end {
                return Ok(None);
            }
            self.fill().map_err(|source| unreadable(self.segment, source))?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.filled, 0);
        (self.start, self.filled) = (0, self.filled - self.start);
        let most = usize::try_from(self.end - self.next).unwrap_or(CHUNK);
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let most = most.min(room.len());
        let read = self.file.read_at(room.get_mut(..most).unwrap_or_default(), self.next)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.next += read as u64;
        self.filled += read;
        Ok(())
    }
}

/// The lines of a log over all its segments, each checked to be the one that comes next.
pub(crate) struct Replay<'s> {
    pub(crate) chain: Chain,
    segments: &'s Segments<'s>,
    /// The number of the segment that is being read.
    at: usize,
    lines: Option<Lines>,
    key: Option<&'s MacKey>,
    /// Where the line before starts.
    before: Place,
    /// Bytes of the segments that were read to their end.
    done: u64,
}

impl<'s> Replay<'s> {
    /// Reads from the beginning of segment number `at`, before whose first line the log's end
    /// is `chain`.
    pub(crate) fn new(
        chain: Chain,
        segments: &'s Segments<'s>,
        at: usize,
        key: Option<&'s MacKey>,
    ) -> Result<Self, LogError> {
        let before = Place { segment: chain.size(), offset: 0 };
        let mut replay = Self { chain, segments, at, lines: None, key, before, done: 0 };
        replay.enter(at)?;
        Ok(replay)
    }

    /// Reads the next line and shows it, with where it starts; false at the end. `completed`
    /// gets what [`Chain::push`] reports.
    pub(crate) fn step(
        &mut self,
        completed: impl FnMut(u32, &Hash256),
        show: impl FnOnce(Place, &Line<'_>) -> Result<(), LogError>,
    ) -> Result<bool, LogError> {
        let Some((place, range)) = self.find_next()? else { return Ok(false) };
        let bytes = self.lines.as_ref().and_then(|lines| lines.buffer.get(range));
        let Some(bytes) = bytes else { return Ok(false) };
        let why = match self.chain.push(bytes, self.key, completed) {
            Ok(line) => {
                self.before = place;
                show(place, &line)?;
                return Ok(true);
            }
            Err(why) => why,
        };
        let line = Line::parse(bytes).ok().map(|line| (line.index, line.leaf()));
        Err(self.blame(why, place, line))
    }

    /// Is the next line the first of a segment?
    pub(crate) fn is_at_start(&self) -> bool {
        let size = self.chain.size();
        let mut near = self.segments.spans.iter().skip(self.at).take(2);
        near.any(|span| span.first == size)
    }

    /// Bytes read since the beginning.
    pub(crate) fn bytes(&self) -> u64 {
        self.done + self.end()
    }

    /// Where the last line of the segment that was read last ends.
    pub(crate) fn end(&self) -> u64 {
        self.lines.as_ref().map_or(0, |lines| lines.place().offset)
    }

    /// What follows the last newline.
    pub(crate) fn rest(&self) -> &[u8] {
        self.lines.as_ref().map_or(&[], Lines::rest)
    }

    /// Where the next line is, in this segment or the next.
    fn find_next(&mut self) -> Result<Option<(Place, Range<usize>)>, LogError> {
        loop {
            let Some(lines) = &mut self.lines else { return Ok(None) };
            let place = lines.place();
            if let Some(range) = lines.find_next()? {
                return Ok(Some((place, range)));
            }
            let Some(next) = self.segments.spans.get(self.at + 1) else { return Ok(None) };
            let size = self.chain.size();
            if !lines.rest().is_empty() {
                return Err(place.broken(size, cut()));
            }
            if next.first != size {
                return Err(place.gap(size, next.first));
            }
            self.done += place.offset;
            self.enter(self.at + 1)?;
        }
    }

    fn enter(&mut self, at: usize) -> Result<(), LogError> {
        let opened = self.segments.open(at)?;
        self.at = at;
        self.lines = opened.map(|(span, file)| Lines::new(file, span));
        Ok(())
    }

    /// Says which line is wrong. Without a key, a `prev` that does not fit means that this line
    /// or the one before was changed; if the next line vouches for this one, it was the other.
    fn blame(&mut self, why: Error, place: Place, line: Option<(u64, Hash256)>) -> LogError {
        let index = self.chain.size();
        if why.reason == Reason::BadSignature {
            return place.forged(index);
        }
        if let (Reason::BrokenChain, None, Some((stands, leaf))) = (why.reason, self.key, line)
            && stands == index
            && index > 0
            && self.is_next_after(&leaf)
        {
            let why = Error::new(Reason::BrokenChain, "the next line has another hash of it");
            return self.before.broken(index - 1, why);
        }
        place.broken(index, why)
    }

    /// Does the line after the one that was just read, in this segment or the next, name this
    /// leaf?
    fn is_next_after(&mut self, leaf: &Hash256) -> bool {
        if let Some(found) = self.lines.as_mut().and_then(|lines| lines.next_follows(leaf)) {
            return found;
        }
        let next = self.segments.open(self.at + 1).ok().flatten();
        let follows = |(span, file)| Lines::new(file, span).next_follows(leaf);
        next.and_then(follows).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_the_segments_wherever_a_read_ends() {
        // The first read ends with the last byte of the third line, before its newline.
        let lines = [65_000, 535, LINE_BYTES].map(|size| vec![b'x'; size]);
        let bytes = lines.join(&b'\n');
        assert_eq!(bytes.len(), CHUNK);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(b"\nlater\n").unwrap();
        let span = Span { first: 0, end: CHUNK as u64 + 1 };
        let mut reader = Lines::new(file, span);
        for line in &lines {
            assert_eq!(reader.next().unwrap(), Some(line.as_slice()));
        }
        assert_eq!(reader.next().unwrap(), None, "what was written later is not the span's");
        assert_eq!((reader.place().offset, reader.rest()), (span.end, &[][..]));
    }
}
