//! Which requests code may send over the network: URLs, methods, addresses.

use std::fmt;
use std::net::IpAddr;

use super::range::{Range, ranges};
use super::too_many;
use crate::error::{Axis, Error, Reason, Result};
use crate::limits;
use crate::pattern::{Pattern, Resource};

/// HTTP methods, sorted and without duplicates, or `*` alone: any of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Methods(Vec<String>);

impl Methods {
    /// Takes 1 to 16 names of 1 to 16 of `A-Z`, none of them CONNECT or TRACE; or `*` alone.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Err(Error::malformed("a host rule names no method; name one, or `*`"));
        }
        if names.len() > limits::METHODS {
            return Err(too_many("methods", names.len(), limits::METHODS));
        }
        match names.iter().find(|name| *name != "*" && !is_method(name)) {
            Some(name) => Err(Error::malformed(format!(
                "the method `{}` is not 1 to 16 of A-Z, or is CONNECT or TRACE; write one as `GET`",
                name.escape_debug()
            ))),
            None if names.len() > 1 && names.iter().any(|name| name == "*") => {
                Err(Error::malformed("the method `*` stands alone in its list"))
            }
            None => Ok(Self(names)),
        }
    }

    /// The names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether this set has the method. `*` has every one that a set may name.
    #[must_use]
    pub fn contains(&self, method: &str) -> bool {
        is_method(method) && self.0.iter().any(|name| name == method || name == "*")
    }

    fn covers(&self, child: &Self) -> bool {
        self.0.iter().any(|name| name == "*") || child.iter().all(|name| self.contains(name))
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// CONNECT opens a tunnel that nothing could look into, TRACE echoes secrets: neither is named.
fn is_method(name: &str) -> bool {
    let fine = (1..=limits::METHOD_BYTES).contains(&name.len());
    fine && name.bytes().all(|c| c.is_ascii_uppercase()) && !matches!(name, "CONNECT" | "TRACE")
}

/// One allowance to send requests: methods, on the URLs of a pattern, at some addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostRule {
    pattern: Pattern,
    methods: Methods,
    ranges: Vec<Range>,
}

impl HostRule {
    /// Takes a pattern in `http` or `https` that has a path (`https://name/**` is all of a host),
    /// and at most 8 address ranges, which are sorted; one within another is left out.
    pub fn new(pattern: Pattern, methods: Methods, given: Vec<Range>) -> Result<Self> {
        let web = matches!(pattern.scheme(), "http" | "https");
        if !web || pattern.as_str().split('/').nth(3).is_none() {
            return Err(Error::malformed(format!(
                "`{pattern}` is not a host and a path; write `https://name/**` or narrower"
            )));
        }
        Ok(Self { pattern, methods, ranges: ranges(given)? })
    }

    /// Which URLs.
    #[must_use]
    pub const fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Which methods.
    #[must_use]
    pub const fn methods(&self) -> &Methods {
        &self.methods
    }

    /// At which addresses; empty is at every global unicast address, and at no other.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Whether it names this method of this URL; [`HostRule::admits`] asks about the address.
    #[must_use]
    pub fn permits(&self, method: &str, url: &Resource) -> bool {
        self.methods.contains(method) && self.pattern.matches(url)
    }

    /// Whether a connection may go to the address. `global` says that it is global unicast,
    /// which counts only where the rule has no range of its own. No IPv4-mapped address is
    /// admitted: connect to the IPv4 address.
    #[must_use]
    pub fn admits(&self, address: IpAddr, global: bool) -> bool {
        let mapped = matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some());
        match &*self.ranges {
            [] => global && !mapped,
            some => some.iter().any(|range| range.contains(address)),
        }
    }

    /// Whether this one rule allows all that the other does. A rule without ranges and one with
    /// ranges never cover one another: which addresses are global is not for a token to say.
    #[must_use]
    pub fn covers(&self, child: &Self) -> bool {
        let inside = |its: &Range| self.ranges.iter().any(|mine| mine.covers(its));
        self.ranges.is_empty() == child.ranges.is_empty()
            && self.pattern.covers(&child.pattern)
            && self.methods.covers(&child.methods)
            && child.ranges.iter().all(inside)
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pattern, self.methods)?;
        for (at, range) in self.ranges.iter().enumerate() {
            write!(f, "{}{range}", if at == 0 { ' ' } else { ',' })?;
        }
        Ok(())
    }
}

/// The rules of one link that permit this method of this URL, at least one. A connection may go
/// to an address that one of them [admits](HostRule::admits). Ask every link: authority is the
/// conjunction.
pub fn reach<'a>(rules: &'a [HostRule], method: &str, url: &Resource) -> Result<Vec<&'a HostRule>> {
    let found: Vec<_> = rules.iter().filter(|rule| rule.permits(method, url)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let other = rules.iter().find(|rule| rule.pattern.matches(url));
    let detail = match (other, rules.len()) {
        (Some(rule), _) => format!("`{url}` may be reached with `{}` only", rule.methods),
        (None, 0) => "no host may be reached; name one in the token's limits".to_owned(),
        (None, count) => format!("none of the {count} host rules reaches `{url}`"),
    };
    Err(Error::new(Reason::NotGranted, detail).on(Axis::Hosts))
}

/// A request that `wide` allows and none of the rules does: method and URL, and the address
/// where that makes the difference. `None` where none was found: several rules can allow piece by
/// piece what no single one covers.
pub(super) fn witness(rules: &[HostRule], wide: &HostRule) -> Option<String> {
    let apart = rules.iter().filter_map(|rule| rule.pattern.witness(&wide.pattern));
    let mut urls = wide.pattern.example().into_iter().chain(apart);
    let methods = samples(rules, wide);
    urls.find_map(|url| {
        let near: Vec<_> = rules.iter().filter(|rule| rule.pattern.matches(&url)).collect();
        methods.iter().find_map(|method| {
            let same = near.iter().filter(|rule| rule.methods.contains(method));
            let place = place(&same.copied().collect::<Vec<_>>(), wide)?;
            Some(format!("{method} {url}{place}"))
        })
    })
}

/// Methods that a witness names rather than others.
const USUAL: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Ranges without a global address, for a witness beside a rule that admits global ones.
const INNER: [&str; 8] = [
    "10.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/127",
    "fc00::/6",
];
/// Ranges of global addresses alone, for a witness beside rules that admit only their ranges.
const OUTER: [&str; 2] = ["8.8.0.0/16", "2600::/12"];

/// Methods of a rule; of a `*` the usual ones, and one that no rule names.
fn samples(rules: &[HostRule], wide: &HostRule) -> Vec<String> {
    if wide.methods.iter().any(|name| name != "*") {
        return wide.methods.0.clone();
    }
    let letters = || (b'A'..=b'Z').map(char::from);
    let words =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| (a, b, c))));
    let named =
        |word: &String| rules.iter().flat_map(|rule| rule.methods.iter()).any(|n| n == word);
    let unnamed = words.map(|(a, b, c)| format!("{a}{b}{c}")).find(|word| !named(word));
    USUAL.iter().map(|name| (*name).to_owned()).chain(unnamed).collect()
}

/// Where `wide` may connect and none of the rules may: nothing to say where there is no rule.
fn place(rules: &[&HostRule], wide: &HostRule) -> Option<String> {
    if rules.is_empty() {
        return Some(String::new());
    }
    let taken: Vec<_> = rules.iter().flat_map(|rule| &rule.ranges).collect();
    let global = rules.iter().any(|rule| rule.ranges.is_empty());
    let known = |texts: &[&str]| texts.iter().filter_map(|text| Range::parse(text).ok()).collect();
    let found = match (wide.ranges.is_empty(), global) {
        (true, true) => None,
        (true, false) => {
            let outer: Vec<Range> = known(&OUTER);
            outer.iter().find_map(|range| range.gap(&taken))
        }
        (false, false) => wide.ranges.iter().find_map(|range| range.gap(&taken)),
        (false, true) => {
            let inner: Vec<Range> = known(&INNER);
            let both = |range| inner.iter().filter_map(move |one| one.both(range));
            wide.ranges.iter().flat_map(both).find_map(|range| range.gap(&taken))
        }
    };
    found.map(|address| format!(" at {address}"))
}
