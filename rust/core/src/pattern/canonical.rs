//! Repair of what a person typed. Parsing never repairs; this is asked for by name.

use unicode_normalization::UnicodeNormalization;
use url::Url;

use super::Resource;
use super::host::default_port;
use super::text::{Fault, is_plain, shown};
use crate::error::{Error, Reason, Result};
use crate::limits::PATTERN_BYTES;

/// The canonical spelling of a resource or URL that a person typed.
///
/// `http`, `https`, `ws`, `wss` and `ftp` are read as the WHATWG URL standard reads them. In every
/// scheme the scheme is put in lower case, needless escapes are decoded, needed ones written,
/// dot segments followed and the path put in normal form C; in `file` an authority of `localhost`
/// and empty segments are dropped. The result parses as a [`Resource`], and a canonical text is
/// its own result.
///
/// # Errors
/// `malformed` when the meaning is not plain or cannot be named: a query, a fragment, a user
/// name, `\`, a control character, `..` above the root, an escaped `/`, `%`, `*` or `;`, an empty
/// segment. `too_large` over four times the 512 bytes of a resource.
pub fn canonicalize(text: &str) -> Result<String> {
    if text.len() > 4 * PATTERN_BYTES {
        let detail = format!("`{}` is too long for a resource; shorten it", shown(text));
        return Err(Error::new(Reason::TooLarge, detail));
    }
    let repaired = repair(text.trim()).map_err(|fault| {
        Error::malformed(format!("`{}` has no canonical spelling: {fault}", shown(text)))
    })?;
    Resource::parse(&repaired)?;
    Ok(repaired)
}

fn repair(text: &str) -> std::result::Result<String, Fault> {
    if text.contains(|c: char| c.is_control() || c == '\\') {
        return Err("it holds `\\` or a control character; leave them out");
    }
    let (scheme, tail) =
        text.split_once("://").ok_or("write a scheme and `://` first, as in `file:///data`")?;
    if tail.contains(['?', '#']) {
        return Err("a query or fragment is no part of a resource; pass it as an argument");
    }
    let scheme = scheme.to_ascii_lowercase();
    if tail.starts_with('/') && default_port(&scheme).is_some() {
        return Err("the host is missing; write it after `://`");
    }
    let (authority, path) = if default_port(&scheme).is_some() {
        read_url(text)?
    } else {
        let (authority, path) = tail.split_once('/').unwrap_or((tail, ""));
        (authority.to_owned(), path.to_owned())
    };
    let local = scheme == "file" && authority.eq_ignore_ascii_case("localhost");
    let authority = if local { "" } else { authority.as_str() };
    let path = repair_path(&path, scheme == "file")?;
    Ok(format!("{scheme}://{authority}{path}"))
}

/// The authority and the path, without its first `/`, as a URL parser reads them.
fn read_url(text: &str) -> std::result::Result<(String, String), Fault> {
    let url = Url::parse(text).map_err(|_| "it is not a URL; check its host and port")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user name or password is no part of a resource; leave it out");
    }
    let host = url.host_str().ok_or("the host is missing; write it after `://`")?;
    let path = url.path().strip_prefix('/').unwrap_or_default();
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Ok((format!("{host}{port}"), path.to_owned()))
}

fn repair_path(path: &str, directories: bool) -> std::result::Result<String, Fault> {
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/').filter(|segment| !(directories && segment.is_empty())) {
        let plain = percent_decode(segment)?;
        match plain.as_str() {
            "." => {}
            ".." => {
                segments.pop().ok_or("`..` climbs above the root; leave it out")?;
            }
            _ => segments.push(encode(&plain)),
        }
    }
    if segments.iter().all(String::is_empty) && segments.len() < 2 {
        return Ok(String::new());
    }
    Ok(segments.iter().fold(String::new(), |path, segment| path + "/" + segment))
}

fn percent_decode(segment: &str) -> std::result::Result<String, Fault> {
    let mut plain = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let pair = digit(bytes.next()).zip(digit(bytes.next()));
        let (high, low) = pair.ok_or("a `%` needs two hexadecimal digits after it")?;
        plain.push(u8::try_from(high << 4 | low).unwrap_or_default());
    }
    String::from_utf8(plain).map_err(|_| "its escapes are not UTF-8; name the characters plainly")
}

/// Normal form C, with every ASCII character escaped that does not stand for itself. Those that
/// have no canonical escape are left to the parser to refuse.
fn encode(plain: &str) -> String {
    let mut segment = String::with_capacity(plain.len());
    for character in plain.nfc() {
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() && !is_plain(byte) => {
                segment.push_str(&format!("%{byte:02X}"));
            }
            _ => segment.push(character),
        }
    }
    segment
}
