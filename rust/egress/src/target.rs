//! Where a request goes: a URL that every parser reads alike, or a refusal.

use std::net::{IpAddr, Ipv6Addr};

use moat_core::pattern::{HostName, Pattern, Resource};

use crate::refusal::{Reason, Refusal};

/// Bytes in a URL, its query included.
pub const URL_BYTES: usize = 8 * 1024;

/// A URL in its one spelling, taken apart.
#[derive(Clone, Debug)]
pub struct Target {
    resource: Resource,
    origin: Resource,
    /// Of a path that ends in `/`: everything below it.
    below: Option<Pattern>,
    host: Host,
    port: u16,
    /// Where the authority starts and ends, and where the query starts, in `url`.
    authority: (usize, usize),
    url: Box<str>,
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A domain name in lower-case A-labels.
    Name(Box<str>),
    /// An address that the URL names itself.
    Address(IpAddr),
}

impl Target {
    /// Parses an `http` or `https` URL of at most 8 KiB. Nothing is repaired: scheme, host, port
    /// and path are as `spec/pattern.md` writes them, with characters beyond ASCII
    /// percent-encoded in upper case; the path may end in `/`; the query is RFC 3986's.
    ///
    /// # Errors
    /// `url_refused` with what to write instead.
    pub fn parse(url: &str) -> Result<Self, Refusal> {
        if url.len() > URL_BYTES {
            return Err(refused("a URL is at most 8 KiB; send the rest in the body"));
        }
        if let Some(byte) = url.bytes().find(|byte| !byte.is_ascii_graphic()) {
            let what = if byte.is_ascii() { "a space or control character" } else { "non-ASCII" };
            return Err(refused(format!("a URL holds no {what}; percent-encode it in the path")));
        }
        if url.contains(['\\', '#']) {
            return Err(refused("a URL sent to a server holds no `\\` and no fragment `#`"));
        }
        let (place, query) = match url.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (url, None),
        };
        let (start, end) = split(place)?;
        let path = place.get(end..).unwrap_or_default();
        if let Some(query) = query {
            check_query(path, query)?;
        }
        let (path, open) = match path.strip_suffix('/') {
            Some(path) => (path, !path.is_empty()),
            None => (path, false),
        };
        let origin = place.get(..end).unwrap_or_default();
        let text = format!("{origin}{}", plain(path)?);
        let below = open.then(|| Pattern::parse(&format!("{text}/**"))).transpose();
        let (host, port) = host_of(origin)?;
        Ok(Self {
            resource: Resource::parse(&text).map_err(|error| refused(error.to_string()))?,
            origin: Resource::parse(origin).map_err(|error| refused(error.to_string()))?,
            below: below.map_err(|error| refused(error.to_string()))?,
            host,
            port,
            authority: (start, end),
            url: url.into(),
        })
    }

    /// What rules are asked about: the URL without its query and without a final `/`.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Scheme, host and port, as a resource.
    #[must_use]
    pub fn origin(&self) -> &Resource {
        &self.origin
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's default written out.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the scheme is `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.origin.scheme() == "https"
    }

    /// `host[:port]` as the `Host` header says it.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.url.get(self.authority.0..self.authority.1).unwrap_or_default()
    }

    /// Path and query as the request line says them.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        match self.url.get(self.authority.1..) {
            Some("") | None => "/",
            Some(path) => path,
        }
    }

    /// Whether the pattern holds this URL. One whose path ends in `/` may be read as a folder as
    /// well as a file, so a pattern holds it only together with everything below.
    #[must_use]
    pub fn is_in(&self, pattern: &Pattern) -> bool {
        match &self.below {
            Some(below) => pattern.covers(below),
            None => pattern.matches(&self.resource),
        }
    }
}

/// Where the authority starts and ends.
fn split(place: &str) -> Result<(usize, usize), Refusal> {
    let start = ["https://", "http://"]
        .iter()
        .find_map(|scheme| place.starts_with(scheme).then_some(scheme.len()))
        .ok_or_else(|| refused("a URL starts with `https://` or `http://`, in lower case"))?;
    let slash = place.bytes().skip(start).position(|byte| byte == b'/');
    Ok((start, slash.map_or(place.len(), |at| start + at)))
}

/// The path with what is beyond ASCII written plainly, as patterns write it. Other escapes stay
/// as they are, for the grammar of patterns to judge.
fn plain(path: &str) -> Result<String, Refusal> {
    let fault = || refused("a percent escape in a path is upper case and encodes UTF-8");
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let escape = match byte {
            b'%' => Some((rest.next().ok_or_else(fault)?, rest.next().ok_or_else(fault)?)),
            _ => None,
        };
        match escape {
            None => bytes.push(byte),
            Some((high, low)) => match (digit(high), digit(low)) {
                (Some(h), Some(l)) if h >= 8 => bytes.push(h << 4 | l),
                (Some(_), Some(_)) => bytes.extend([b'%', high, low]),
                _ => return Err(fault()),
            },
        }
    }
    String::from_utf8(bytes).map_err(|_| fault())
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 §3.4, and `[` and `]`, which clients send plainly; not `'`, which some encode.
fn check_query(path: &str, query: &str) -> Result<(), Refusal> {
    if path.is_empty() {
        return Err(refused("a query follows a path; write `/` before the `?`"));
    }
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|byte| byte.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'(' | b')' | b'*' | b'+' => true,
            b',' | b';' | b'=' | b':' | b'@' | b'/' | b'?' | b'[' | b']' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fine {
            return Err(refused("a query holds `A-Z a-z 0-9 -._~!$&()*+,;=:@/?[]` and escapes"));
        }
    }
    Ok(())
}

/// Host and port, once the grammar of patterns has taken the authority.
fn host_of(origin: &str) -> Result<(Host, u16), Refusal> {
    // INVARIANT: the origin is parsed as a resource as well, so it holds no wildcard.
    let pattern = Pattern::parse(origin).map_err(|error| refused(error.to_string()))?;
    let parts = pattern.host().and_then(|parts| Some((parts.host, parts.port?)));
    let Some((HostName::Is(name), port)) = parts else {
        return Err(refused("a URL names one host"));
    };
    let host = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => {
            let address: Ipv6Addr = inner.parse().map_err(|_| refused("not an IPv6 address"))?;
            Host::Address(address.into())
        }
        None => match name.parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(name.into()),
        },
    };
    Ok((host, port))
}

fn refused(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::UrlRefused, detail)
}

#[cfg(test)]
#[path = "tests/target.rs"]
mod tests;
