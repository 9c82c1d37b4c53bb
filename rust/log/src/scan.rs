//! Reading a segment from its beginning, in constant memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use moat_core::audit::{Chain, Line, MacKey};
use moat_core::key::Hash256;
use moat_core::limits::LINE_BYTES;
use moat_core::{Error, Reason};

use crate::LogError;

/// The name of the one segment there is in this version, in the folder `seg`.
pub(crate) const SEGMENT: &str = "000000000000.jsonl";

/// Bytes read at a time: more than one line, and little enough to stay in a processor's cache.
const CHUNK: usize = 128 * 1024;

/// The lines of a file, from some byte of it up to another.
pub(crate) struct Lines<'f> {
    file: &'f File,
    /// Where in the file the next read starts, and where the last one ends.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    /// What of the buffer is not consumed yet.
    start: usize,
    filled: usize,
}

impl<'f> Lines<'f> {
    pub(crate) fn new(file: &'f File, from: u64, end: u64) -> Self {
        let size = usize::try_from(end.saturating_sub(from)).unwrap_or(CHUNK).min(CHUNK);
        Self { file, next: from, end, buffer: vec![0; size], start: 0, filled: 0 }
    }

    /// Where in the file the next line starts.
    pub(crate) fn offset(&self) -> u64 {
        self.next - (self.filled - self.start) as u64
    }

    /// The next line without its newline, or nothing when no newline is left. Bytes that are
    /// too many for a line come as one, for the reader to refuse.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(size) = self.find()? else { return Ok(None) };
        let start = self.start;
        self.start = (start + size + 1).min(self.filled);
        Ok(self.buffer.get(start..start + size))
    }

    /// The next line, without going past it.
    fn peek(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(size) = self.find()? else { return Ok(None) };
        Ok(self.buffer.get(self.start..self.start + size))
    }

    /// What is left when there is no newline any more.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..self.filled).unwrap_or_default()
    }

    fn find(&mut self) -> io::Result<Option<usize>> {
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
            self.fill()?;
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

/// The lines of a log, each checked to be the one that comes next.
pub(crate) struct Replay<'f> {
    pub(crate) chain: Chain,
    pub(crate) lines: Lines<'f>,
    key: Option<&'f MacKey>,
    /// Where the line before starts.
    before: u64,
}

impl<'f> Replay<'f> {
    pub(crate) fn new(chain: Chain, lines: Lines<'f>, key: Option<&'f MacKey>) -> Self {
        Self { chain, lines, key, before: 0 }
    }

    /// Reads the next line and shows it, with where it starts; false at the end. `completed`
    /// gets what [`Chain::push`] reports.
    pub(crate) fn step(
        &mut self,
        completed: impl FnMut(u32, &Hash256),
        show: impl FnOnce(u64, &Line<'_>) -> Result<(), LogError>,
    ) -> Result<bool, LogError> {
        let offset = self.lines.offset();
        let Some(bytes) = self.lines.next().map_err(unreadable)? else { return Ok(false) };
        let why = match self.chain.push(bytes, self.key, completed) {
            Ok(line) => {
                self.before = offset;
                show(offset, &line)?;
                return Ok(true);
            }
            Err(why) => why,
        };
        let line = Line::parse(bytes).ok().map(|line| (line.index, line.leaf()));
        Err(self.blame(why, offset, line))
    }

    /// Says which line is wrong. Without a key, a `prev` that does not fit means that this line
    /// or the one before was changed; if the next line vouches for this one, it was the other.
    fn blame(&mut self, why: Error, offset: u64, line: Option<(u64, Hash256)>) -> LogError {
        let index = self.chain.size();
        if why.reason == Reason::BadSignature {
            return LogError::BadMac { index, offset };
        }
        let next = self.lines.peek().ok().flatten().and_then(|bytes| Line::parse(bytes).ok());
        if let (Reason::BrokenChain, None, Some((place, leaf))) = (why.reason, self.key, line)
            && place == index
            && index > 0
            && next.is_some_and(|next| next.follows(&leaf))
        {
            let (index, offset) = (index - 1, self.before);
            let why = Error::new(Reason::BrokenChain, "the next line has another hash of it");
            return LogError::ChainBroken { index, offset, why };
        }
        LogError::ChainBroken { index, offset, why }
    }
}

pub(crate) fn unreadable(source: io::Error) -> LogError {
    LogError::Io { action: "read", path: SEGMENT.into(), source }
}
