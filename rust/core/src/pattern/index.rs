//! Which of many patterns could match a resource, told without looking at most of them.

use super::host::Shape;
use super::parse::Parts;
use super::spans::Kind;
use super::{Pattern, Resource};

/// Literal segments by which patterns are filed.
const SEGMENTS: usize = 4;

/// Hashes of the starts of a text: its scheme, that and its authority, those and its first
/// segment, and so on. Equal hashes mean nothing, so nothing hangs on collisions.
#[derive(Clone, Debug)]
pub(super) struct Starts {
    hashes: [u64; 2 + SEGMENTS],
    count: usize,
}

impl Starts {
    pub(super) fn new(parts: &Parts) -> Self {
        let mut starts = Self { hashes: [0; 2 + SEGMENTS], count: 0 };
        let (mut hash, mut from) = (0_u64, 0);
        let mut add = |end: usize| {
            // A word that is not full ends each part, so an empty authority counts too.
            while from <= end {
                let bytes = word(&parts.text, from) & mask(end - from);
                hash = (hash.rotate_left(5) ^ bytes).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                from += 8;
            }
            from = end;
            if let Some(place) = starts.hashes.get_mut(starts.count) {
                *place = hash;
                starts.count += 1;
            }
        };
        add(parts.scheme + 3);
        add(parts.authority);
        parts.segments.iter().take(SEGMENTS).for_each(|span| add(span.end.into()));
        starts
    }

    fn iter(&self) -> impl Iterator<Item = &u64> {
        self.hashes.iter().take(self.count)
    }
}

/// Up to eight literal bytes with which one segment begins in all that a pattern matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Hint {
    segment: u16,
    mask: u64,
    bytes: u64,
}

impl Hint {
    /// Of the first segment from `from` on that begins literally.
    fn new(parts: &Parts, from: usize) -> Self {
        let literal = |(at, span): (usize, _)| {
            let start = parts.segment(span).split('*').next().unwrap_or_default();
            let (mask, segment) = (mask(start.len()), u16::try_from(at).ok()?);
            (mask > 0).then(|| Self { segment, mask, bytes: word(start, 0) & mask })
        };
        let segments = parts.segments.iter().copied().enumerate().skip(from);
        segments.filter(|(_, span)| span.kind != Kind::Any).find_map(literal).unwrap_or_default()
    }

    fn fits(&self, parts: &Parts) -> bool {
        // INVARIANT: a pattern matches only what has all its segments, each with its literal
        // bytes; so what is left out here would not have matched.
        let same = |start: u16| word(&parts.text, start.into()) & self.mask == self.bytes;
        let segment = parts.segments.get(usize::from(self.segment));
        self.mask == 0 || segment.is_some_and(|span| same(span.start))
    }
}

/// Eight bytes of a text from a place on, the first one lowest; zeros follow its end.
fn word(text: &str, start: usize) -> u64 {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_le_bytes(*bytes);
    }
    match text.as_bytes().last_chunk() {
        Some(end) if !rest.is_empty() => u64::from_le_bytes(*end) >> (64 - 8 * rest.len()),
        _ => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The lowest bytes of a word, at most all eight.
const fn mask(bytes: usize) -> u64 {
    if bytes < 8 { (1 << (8 * bytes)) - 1 } else { u64::MAX }
}

/// A pattern's place among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Filed {
    start: u64,
    position: u16,
    hint: Hint,
}

impl Filed {
    fn new(pattern: &Pattern, position: u16) -> Self {
        let segments = pattern.literal.min(SEGMENTS);
        let depth = if pattern.parts.shape == Shape::Exact { 1 + segments } else { 0 };
        let start = Starts::new(&pattern.parts).hashes.get(depth).copied().unwrap_or_default();
        Self { start, position, hint: Hint::new(&pattern.parts, segments) }
    }
}

/// Patterns, filed by the start that all they match have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index(Vec<Filed>);

impl Index {
    /// Files at most 65,536 patterns.
    pub fn new<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> Self {
        let filed = patterns.zip(0..).map(|(pattern, position)| Filed::new(pattern, position));
        let mut filed: Vec<_> = filed.collect();
        filed.sort_unstable();
        Self(filed)
    }

    /// The first position that is accepted; all that match are asked about, and few others.
    pub fn find(&self, resource: &Resource, accept: impl Fn(usize) -> bool) -> Option<usize> {
        for start in resource.starts.iter() {
            let first = self.0.partition_point(|filed| filed.start < *start);
            for filed in self.0.get(first..).unwrap_or_default() {
                if filed.start != *start {
                    break;
                }
                let position = filed.position.into();
                if filed.hint.fits(&resource.parts) && accept(position) {
                    return Some(position);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_matches_is_found_however_deep_it_lies() {
        let deep = |depth, end| format!("file://{}{end}", "/a".repeat(depth));
        let ends = ["", "/**", "/*", "/*/**", "/b*c", "/*c", "/bbbbbbbbbbbbc*", "/b/*", "/*/c/d"];
        let patterns = (0..10).flat_map(|depth| ends.map(|end| deep(depth, end)));
        let patterns: Vec<_> = patterns.map(|text| Pattern::parse(&text).unwrap()).collect();
        let index = Index::new(patterns.iter());
        let ends = ["", "/bc", "/bbbbbbbbbbbbcd", "/c", "/b/c", "/é/c/d", "/a/c"];
        let mut found = 0;
        for text in (0..12).flat_map(|depth| ends.map(|end| deep(depth, end))) {
            let resource = Resource::parse(&text).unwrap();
            for (at, pattern) in patterns.iter().enumerate() {
                if pattern.matches(&resource) {
                    let asked = index.find(&resource, |position| position == at);
                    assert_eq!(asked, Some(at), "{pattern} {resource}");
                    found += 1;
                }
            }
        }
        assert!(found > 300, "{found}");
    }

    #[test]
    fn few_others_are_asked_about() {
        let texts = (0..256).flat_map(|n| {
            [
                format!("x://a/b/c/op{n:03}/**"),
                format!("x://a/*/op{n:03}"),
                format!("x://a/op{n:03}*"),
            ]
        });
        let patterns: Vec<_> = texts.map(|text| Pattern::parse(&text).unwrap()).collect();
        let index = Index::new(patterns.iter());
        for text in ["x://a/b/c/op255/x", "x://a/b/op255", "x://a/op255x"] {
            let asked = std::cell::Cell::new(0);
            let resource = Resource::parse(text).unwrap();
            index.find(&resource, |_| {
                asked.set(asked.get() + 1);
                false
            });
            assert_eq!(asked.get(), 1, "{text}");
        }
    }
}
