//! Where the segments of a text lie; a few of them take no memory of their own.

use std::ops::Deref;

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Plain text.
    Literal,
    /// `*` alone.
    Any,
    /// Text with `*` in it.
    Glob,
}

/// A segment: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u16,
    pub(super) end: u16,
    pub(super) kind: Kind,
}

/// Most resources have no more segments than this.
const FEW: usize = 4;

/// A list of segments.
#[derive(Clone, Debug)]
pub(super) enum Spans {
    Few(usize, [Span; FEW]),
    Many(Vec<Span>),
}

impl Spans {
    pub(super) const fn new() -> Self {
        Self::Few(0, [Span { start: 0, end: 0, kind: Kind::Literal }; FEW])
    }

    pub(super) fn push(&mut self, span: Span) {
        match self {
            Self::Many(all) => all.push(span),
            Self::Few(count, all) => match all.get_mut(*count) {
                Some(place) => (*place, *count) = (span, *count + 1),
                None => *self = Self::Many(all.iter().copied().chain([span]).collect()),
            },
        }
    }
}

impl Deref for Spans {
    type Target = [Span];

    fn deref(&self) -> &[Span] {
        match self {
            Self::Few(count, all) => all.get(..*count).unwrap_or_default(),
            Self::Many(all) => all,
        }
    }
}
