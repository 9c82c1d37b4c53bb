//! Parsing: canonical or refused, never repaired. One pass, linear in the text.

use super::host::{Shape, check_authority};
use super::spans::{Kind, Span, Spans};
use super::text::{Fault, check_segment, check_unicode, shown};
use crate::error::{Error, Reason, Result};
use crate::limits::PATTERN_BYTES;

/// A checked text and where its parts lie.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) text: Box<str>,
    /// Where `://` starts.
    pub(super) scheme: usize,
    /// Where the authority ends.
    pub(super) authority: usize,
    pub(super) shape: Shape,
    /// Without a final `**`.
    pub(super) segments: Spans,
    /// Whether `**` is last.
    pub(super) rest: bool,
}

impl Parts {
    pub(super) fn scheme(&self) -> &str {
        self.slice(0, self.scheme)
    }

    pub(super) fn authority(&self) -> &str {
        self.slice(self.scheme + 3, self.authority)
    }

    pub(super) fn segment(&self, span: Span) -> &str {
        self.slice(span.start.into(), span.end.into())
    }

    // INVARIANT: offsets come from the parser, so the slice is never missing.
    pub(super) fn slice(&self, start: usize, end: usize) -> &str {
        self.text.get(start..end).unwrap_or_default()
    }
}

/// Parses a resource, or with `stars` a pattern, of at most 512 bytes.
pub(super) fn parse(text: &str, stars: bool) -> Result<Parts> {
    if text.len() > PATTERN_BYTES {
        let detail = format!("`{}` is over {PATTERN_BYTES} bytes; shorten it", shown(text));
        return Err(Error::new(Reason::TooLarge, detail));
    }
    parse_any_length(text, stars)
}

/// The same without the bound of 512 bytes, for witnesses: at most 65,535.
pub(super) fn parse_any_length(text: &str, stars: bool) -> Result<Parts> {
    split(text, stars).map_err(|fault| {
        let kind = if stars { "pattern" } else { "resource" };
        Error::malformed(format!("`{}` is not a canonical {kind}: {fault}", shown(text)))
    })
}

fn split(text: &str, stars: bool) -> std::result::Result<Parts, Fault> {
    check_unicode(text)?;
    let (scheme, tail) = split_scheme(text)?;
    let (authority, path) = match tail.bytes().position(|byte| byte == b'/') {
        Some(at) => (tail.get(..at).unwrap_or_default(), tail.get(at + 1..)),
        None => (tail, None),
    };
    let shape = check_authority(scheme, authority, stars)?;
    let end = scheme.len() + 3 + authority.len();
    let (segments, rest) = match path {
        Some(path) => split_path(path, end + 1, stars)?,
        None => (Spans::new(), false),
    };
    Ok(Parts { text: text.into(), scheme: scheme.len(), authority: end, shape, segments, rest })
}

/// Takes `[a-z][a-z0-9+.-]*` (RFC 3986 §3.1, in lower case) and `://` off the start.
fn split_scheme(text: &str) -> std::result::Result<(&str, &str), Fault> {
    let fine =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'.' | b'-');
    let end = text.bytes().position(|byte| !fine(byte)).unwrap_or(0);
    let (scheme, rest) = text.split_at_checked(end).unwrap_or_default();
    match rest.strip_prefix("://") {
        Some(tail) if scheme.starts_with(|c: char| c.is_ascii_lowercase()) => Ok((scheme, tail)),
        None if !text.contains("://") => {
            Err("write a scheme and `://` first, as in `tool://search/web`")
        }
        _ => Err("a scheme is lower case: a letter, then `a-z 0-9 + . -`"),
    }
}

fn split_path(path: &str, from: usize, stars: bool) -> std::result::Result<(Spans, bool), Fault> {
    let mut start = from;
    let mut rest = false;
    let mut spans = Spans::new();
    for segment in path.as_bytes().split(|&byte| byte == b'/') {
        if rest {
            return Err("`**` stands only last");
        }
        let end = start + segment.len();
        if stars && segment == b"**" {
            rest = true;
        } else if stars && segment.windows(2).any(|pair| pair == b"**") {
            return Err("`**` stands only as a whole segment; inside one write `*`");
        } else {
            check_segment(segment, stars)?;
            let kind = match segment {
                b"*" => Kind::Any,
                _ if stars && segment.contains(&b'*') => Kind::Glob,
                _ => Kind::Literal,
            };
            let offset = |at: usize| u16::try_from(at).map_err(|_| "too long; shorten it");
            spans.push(Span { start: offset(start)?, end: offset(end)?, kind });
        }
        start = end + 1;
    }
    Ok((spans, rest))
}
