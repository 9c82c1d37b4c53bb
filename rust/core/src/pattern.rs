//! Resources and patterns over them: `matches`, an exact `covers`, and a witness for every no.
//!
//! A resource names one thing (`tool://search/web`), a pattern a set of things
//! (`tool://search/**`). Both have exactly one spelling, so equal text is equal meaning and every
//! comparison is one of bytes. The rules are in `spec/pattern.md`.

mod canonical;
mod host;
mod index;
mod parse;
mod spans;
#[cfg(test)]
mod tests;
mod text;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

pub use canonical::canonicalize;
pub use index::Index;
pub use text::shown;

use crate::error::Result;
use host::{Shape, default_port, split_port};
use index::Starts;
use parse::{Parts, parse, parse_any_length};
use spans::Kind;
use text::decode;

/// One thing that can be acted on, in its one spelling, such as `tool://search/web`.
#[derive(Clone)]
pub struct Resource {
    parts: Parts,
    starts: Starts,
}

impl Resource {
    /// Parses a resource of at most 512 bytes.
    ///
    /// # Errors
    /// `malformed` when the text is not canonical (nothing is repaired), `too_large` when it is
    /// longer.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text, false).map(Self::from_parts)
    }

    fn from_parts(parts: Parts) -> Self {
        let starts = Starts::new(&parts);
        Self { parts, starts }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.parts.text
    }

    /// The scheme, such as `tool`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.parts.scheme()
    }
}

/// A set of resources, such as `tool://search/**`, in its one spelling.
#[derive(Clone)]
pub struct Pattern {
    parts: Parts,
    /// Where the literal start ends: the scheme, an exact authority, literal segments.
    head: usize,
    /// How many segments lie in the head.
    literal: usize,
    tree: Option<Box<str>>,
}

impl Pattern {
    /// Parses a pattern of at most 512 bytes.
    ///
    /// # Errors
    /// `malformed` when the text is not canonical (nothing is repaired), `too_large` when it is
    /// longer.
    pub fn parse(text: &str) -> Result<Self> {
        let parts = parse(text, true)?;
        let exact = parts.shape == Shape::Exact;
        let plain = parts.segments.iter().take_while(|span| exact && span.kind == Kind::Literal);
        let (mut head, mut literal) = (parts.authority, 0);
        for span in plain {
            head = span.end.into();
            literal += 1;
        }
        if !exact {
            head = parts.scheme + 3;
        }
        let tree = tree_of(&parts, literal);
        Ok(Self { parts, head, literal, tree })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.parts.text
    }

    /// The scheme, such as `tool`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.parts.scheme()
    }

    /// Whether the resource is in the set. Time is at most the product of the two lengths.
    #[must_use]
    pub fn matches(&self, resource: &Resource) -> bool {
        self.admits(&resource.parts)
    }

    /// Whether every resource that `child` matches is in this set: exact, no resource is missed
    /// and none is imagined. Time is at most the product of the two lengths.
    #[must_use]
    pub fn covers(&self, child: &Self) -> bool {
        self.admits(&child.parts)
    }

    /// A resource that `child` matches and `self` does not; `None` where `self` covers `child`.
    /// It may be longer than the 512 bytes of a resource from outside where a run needs a longer
    /// character. Decide with [`Pattern::covers`]; this explains.
    #[must_use]
    pub fn witness(&self, child: &Self) -> Option<Resource> {
        if self.covers(child) {
            return None;
        }
        // A label that is not the first one of the parent's authority.
        let label = if self.parts.authority().starts_with('x') { "y" } else { "x" };
        child.members(label).find(|member| child.matches(member) && !self.matches(member))
    }

    /// A resource that the pattern matches.
    #[must_use]
    pub fn example(&self) -> Option<Resource> {
        self.members("x").find(|member| self.matches(member))
    }

    /// Members of the set, with every run of `*` filled by the same character.
    fn members(&self, label: &str) -> impl Iterator<Item = Resource> {
        // Letters and digits read well; ideographs compose with nothing, and there are more of
        // them here than fit into a pattern, so one is in no other text.
        let runs = ('x'..='z').chain('a'..='w').chain('0'..='9').chain('\u{4E00}'..='\u{4EFF}');
        runs.flat_map(|run| [(run, false), (run, true)])
            .filter_map(move |(run, longer)| self.member(label, run, longer))
    }

    /// `label` for the wildcard of the authority, `run` for every other run of `*`, and one more
    /// segment for `**` if it is to be longer.
    fn member(&self, label: &str, run: char, longer: bool) -> Option<Resource> {
        let mut text = self.parts.slice(0, self.parts.scheme + 3).to_owned();
        text.push_str(&self.parts.authority().replacen('*', label, 1));
        for &span in &*self.parts.segments {
            text.push('/');
            text.extend(self.parts.segment(span).chars().map(|c| if c == '*' { run } else { c }));
        }
        if longer && self.parts.rest {
            text.push('/');
            text.push(run);
        }
        parse_any_length(&text, false).ok().map(Resource::from_parts)
    }

    /// The directory tree of a pattern like `file:///a/b/**` (no other wildcard), as a path with
    /// its escapes decoded: `/a/b`, or `/` for `file:///**`.
    #[must_use]
    pub fn tree(&self) -> Option<&str> {
        self.tree.as_deref()
    }

    /// What the pattern says about hosts, in the schemes whose authority is a host.
    #[must_use]
    pub fn host(&self) -> Option<HostPattern<'_>> {
        let default = default_port(self.scheme())?;
        let (name, port) = split_port(self.parts.authority());
        let port = port.map_or(Some(default), |digits| digits.parse().ok())?;
        let (host, port) = match self.parts.shape {
            Shape::Any => (HostName::Any, None),
            Shape::Under => (HostName::Under(name.strip_prefix("*.")?), Some(port)),
            Shape::Exact => (HostName::Is(name), Some(port)),
        };
        Some(HostPattern { scheme: self.scheme(), host, port })
    }

    /// The one comparison. For a child pattern each run of its `*` is a symbol that no literal
    /// here equals, because here `*` is never a literal: what this pattern then matches, it
    /// matches whatever stands in the run's place.
    fn admits(&self, other: &Parts) -> bool {
        let (own, theirs) = (self.parts.segments.len(), other.segments.len());
        let count = if self.parts.rest { theirs >= own } else { theirs == own && !other.rest };
        let pairs = || self.parts.segments.iter().zip(&*other.segments).skip(self.literal);
        count
            && self.admits_start(other)
            && pairs().all(|(mine, its)| match mine.kind {
                Kind::Any => true,
                Kind::Literal => self.parts.segment(*mine) == other.segment(*its),
                Kind::Glob => glob(self.parts.segment(*mine), other.segment(*its)),
            })
    }

    fn admits_start(&self, other: &Parts) -> bool {
        let text = other.text.as_bytes();
        let head = self.parts.text.as_bytes().get(..self.head);
        head.is_some_and(|head| text.starts_with(head))
            && match self.parts.shape {
                Shape::Exact => matches!(text.get(self.head), None | Some(b'/')),
                Shape::Any => true,
                // INVARIANT: no authority starts with a dot, so at least one label stands before.
                Shape::Under => {
                    let suffix = self.parts.authority().trim_start_matches('*');
                    other.authority().ends_with(suffix)
                }
            }
    }
}

/// The host of a pattern, for those who open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPattern<'a> {
    /// `http`, `https`, `ws`, `wss` or `ftp`.
    pub scheme: &'a str,
    /// Which hosts.
    pub host: HostName<'a>,
    /// The port, the scheme's default written out; `None` is any port.
    pub port: Option<u16>,
}

/// Which hosts a pattern names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostName<'a> {
    /// Every host, addresses included.
    Any,
    /// Every name that has at least one label more than this one; no address.
    Under(&'a str),
    /// This name or address (IPv6 in brackets).
    Is(&'a str),
}

/// Matches one segment; `*` in `text` is a character like any other. An escape is one character,
/// so no run ends inside it.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(want) if want == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = retry else {
                    return false;
                };
                let next = from + if text.get(from) == Some(&b'%') { 3 } else { 1 };
                retry = Some((after, next));
                (p, t) = (after, next);
            }
        }
    }
    pattern.iter().skip(p).all(|&byte| byte == b'*')
}

fn tree_of(parts: &Parts, literal: usize) -> Option<Box<str>> {
    if parts.scheme() != "file" || !parts.rest || literal != parts.segments.len() {
        return None;
    }
    let end = parts.segments.last().map_or(parts.authority, |span| span.end.into());
    Some(match parts.slice(parts.authority, end) {
        "" => "/".into(),
        path => decode(path).into(),
    })
}

macro_rules! by_text {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $name {}
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }
    };
}

by_text!(Resource);
by_text!(Pattern);
