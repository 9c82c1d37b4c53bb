//! Authorities: hosts in the schemes that have them, identifiers in every other.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::text::Fault;

/// The shape of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One authority.
    Exact,
    /// `*.` and a name: one or more further labels.
    Under,
    /// `*`: any authority, with any port.
    Any,
}

/// The default port of a scheme whose authority is a host (WHATWG URL, special schemes);
/// `None` for every other scheme.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

/// Checks the authority of a scheme; `stars` lets `*` and `*.` stand.
///
/// # Errors
/// What to write instead.
pub(super) fn check_authority(scheme: &str, text: &str, stars: bool) -> Result<Shape, Fault> {
    let default = default_port(scheme);
    // The plainest authority first: what follows looks for what an identifier does not hold.
    if default.is_none() && scheme != "file" && check_identifier(text).is_ok() {
        return Ok(Shape::Exact);
    }
    let (shape, rest) = match text.strip_prefix('*') {
        Some(_) if !stars => {
            return Err("a resource has no `*`; name one authority, or parse it as a pattern");
        }
        Some(_) if scheme == "file" => return Err("the authority of `file` is empty"),
        Some("") => return Ok(Shape::Any),
        Some(rest) => match rest.strip_prefix('.') {
            Some(name) => (Shape::Under, name),
            None => return Err("in an authority `*` stands alone or before `.` and a name"),
        },
        None => (Shape::Exact, text),
    };
    if rest.is_empty() && shape == Shape::Exact {
        return match default {
            Some(_) => Err("the host is missing; write it after `://`"),
            None => Ok(shape),
        };
    }
    if scheme == "file" {
        return Err("the authority of `file` is empty; write `file:///` and the path");
    }
    if rest.contains('@') {
        return Err("a user name or password is no part of a resource; leave it out");
    }
    let (name, port) = split_port(rest);
    if let Some(port) = port {
        check_port(port, default)?;
    }
    match default {
        Some(_) => check_host(name, shape)?,
        None => check_identifier(name)?,
    }
    Ok(shape)
}

/// Splits `name:port` or `[address]:port`.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = authority.get(end..).and_then(|tail| tail.find(':')).map(|at| end + at);
    match colon.and_then(|at| Some((authority.get(..at)?, authority.get(at + 1..)?))) {
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    }
}

fn check_port(port: &str, default: Option<u16>) -> Result<(), Fault> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 && !port.starts_with('0') => match default {
            Some(default) if default == number => {
                Err("the port is the default of its scheme; leave it out")
            }
            _ => Ok(()),
        },
        _ => Err("a port is 1 to 65535 in decimal, without leading zeros"),
    }
}

/// Labels of `[A-Za-z0-9_-]` joined by dots.
fn check_identifier(name: &str) -> Result<(), Fault> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut labels = name.as_bytes().split(|&byte| byte == b'.');
    if labels.all(|label| !label.is_empty() && label.iter().copied().all(fine)) {
        Ok(())
    } else {
        Err("an authority is labels of `A-Z a-z 0-9 _ -` joined by single dots")
    }
}

/// A domain name of A-labels, or an address in its one spelling.
fn check_host(name: &str, shape: Shape) -> Result<(), Fault> {
    if let Some(inner) = name.strip_prefix('[') {
        return match shape {
            Shape::Exact => check_v6(inner.strip_suffix(']').unwrap_or_default()),
            _ => Err("a host wildcard stands before a name, not an address"),
        };
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if is_numeric(last) {
        return match shape {
            Shape::Exact => check_v4(name),
            _ => Err("a host wildcard stands before a name, not an address"),
        };
    }
    check_domain(name, shape)
}

/// The one spelling of RFC 5952. An address that embeds IPv4 (`::ffff:0:0/96`) is a second
/// spelling of that address, so it is refused.
fn check_v6(inner: &str) -> Result<(), Fault> {
    match inner.parse::<Ipv6Addr>() {
        Ok(address) if address.to_ipv4_mapped().is_some() => {
            Err("an IPv4-mapped address is a second spelling; write the IPv4 address")
        }
        Ok(address) if address.to_string() == inner => Ok(()),
        _ => Err("an IPv6 address is written as in RFC 5952, in brackets, without a zone"),
    }
}

fn check_v4(name: &str) -> Result<(), Fault> {
    match name.parse::<Ipv4Addr>() {
        Ok(address) if address.to_string() == name => Ok(()),
        _ => Err("a host that ends in a number is an IPv4 address: four decimal numbers"),
    }
}

/// Whether URL parsers take a last label for a number, and so the host for an IPv4 address
/// (WHATWG URL, "ends in a number").
fn is_numeric(label: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let decimal = !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    decimal || label.strip_prefix("0x").is_some_and(hex)
}

/// Labels of 1 to 63 `[a-z0-9-]` that neither start nor end with `-`, 253 bytes in all
/// (RFC 1123 §2.1); below a wildcard 251, so that one more label fits.
fn check_domain(name: &str, shape: Shape) -> Result<(), Fault> {
    let most = if shape == Shape::Under { 251 } else { 253 };
    if name.len() > most {
        return Err("a host is at most 253 bytes");
    }
    if name.ends_with('.') {
        return Err("a host has no trailing dot; leave it out");
    }
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("a label of a host has 1 to 63 bytes");
        }
        if !label.bytes().all(fine) {
            return Err("a host is lower-case `a-z 0-9 -`; write other letters as A-labels");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label of a host neither starts nor ends with `-`");
        }
    }
    if name.split('.').any(|label| label.starts_with("xn--")) {
        check_idna(name)?;
    }
    Ok(())
}

/// A-labels must decode, and encode to themselves again (UTS #46, as URL parsers apply it).
fn check_idna(name: &str) -> Result<(), Fault> {
    match url::Host::parse(name) {
        Ok(url::Host::Domain(same)) if same == name => Ok(()),
        _ => Err("an `xn--` label does not decode; write the A-label of a valid name"),
    }
}
