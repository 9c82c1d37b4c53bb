//! One line of the log: exactly one spelling, read without allocation and written in one pass.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{hex, is_hex, json};
use crate::error::{Error, Reason, Result};
use crate::key::{Hash256, Identity};
use crate::limits::{ARGS_INTEGER, KIND_BYTES, LINE_BYTES, TIME_MAX};

/// The key of the line MACs, derived from a gate's secret key.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// The MAC key of a gate: [`Identity::derive`] for the purpose `moat-audit-mac-v1`.
    pub fn derive(gate: &Identity) -> Result<Self> {
        Self::from_bytes(&*gate.derive("moat-audit-mac-v1")?)
    }

    /// The MAC key with these 32 bytes.
    pub fn from_bytes(key: &[u8; 32]) -> Result<Self> {
        let wrong = |_| Error::new(Reason::Internal, "the MAC key has the wrong size");
        Hmac::new_from_slice(key).map(Self).map_err(wrong)
    }

    /// HMAC-SHA256 (RFC 2104), cut to 16 bytes, of the digest of a line up to its MAC.
    fn tag(&self, digest: &Hash256) -> [u8; 16] {
        let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _]: Hash256 =
            self.0.clone().chain_update(digest).finalize().into_bytes().into();
        tag
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

const MAC_BEFORE: &[u8] = b",\"mac\":\"";
const MAC_AFTER: &[u8] = b"\"}";
const MAC_DIGITS: usize = 32;
/// Bytes from the end of the body to the end of the line.
const TAIL: usize = MAC_BEFORE.len() + MAC_DIGITS + MAC_AFTER.len();

/// A line that was read, borrowed from its bytes. Reading checks its spelling and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The whole line, its newline not included.
    pub bytes: &'a [u8],
    /// Its place in the log, from 0.
    pub index: u64,
    /// Seconds since 1970, UTC.
    pub time: u64,
    /// What kind of entry it is: 1 to 32 of `a-z 0-9 _`, a letter first.
    pub kind: &'a str,
    /// One JSON object, in the spelling that `spec/audit.md` gives.
    pub body: &'a [u8],
    /// The previous leaf, in hexadecimal.
    pub(super) prev: &'a [u8],
    mac: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads the canonical bytes of a line and nothing else.
    ///
    /// Errors: `too_large` beyond 65,535 bytes, otherwise `malformed`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        check_size(bytes.len())?;
        if std::str::from_utf8(bytes).is_err() {
            return Err(Error::malformed("the line is not UTF-8"));
        }
        let (head, tail) =
            bytes.split_at_checked(bytes.len().saturating_sub(TAIL)).ok_or_else(short)?;
        let rest = after(head, b"{\"i\":", "i")?;
        let (index, rest) = number(rest, ARGS_INTEGER, "i")?;
        let rest = after(rest, b",\"t\":", "t")?;
        let (time, rest) = number(rest, TIME_MAX, "t")?;
        let rest = after(rest, b",\"prev\":\"", "prev")?;
        let (prev, rest) = rest.split_at_checked(64).ok_or_else(short)?;
        let rest = after(rest, b"\",\"kind\":\"", "kind")?;
        let (kind, rest) = kind_of(rest)?;
        let body = after(rest, b"\",\"body\":", "body")?;
        if json::object(body).map_err(Error::malformed)? != body.len() {
            return Err(Error::malformed("the line has something between its body and its MAC"));
        }
        let mac = after(tail, MAC_BEFORE, "mac")?;
        let (mac, end) = mac.split_at_checked(MAC_DIGITS).ok_or_else(short)?;
        if end != MAC_AFTER || !is_hex(mac) || !is_hex(prev) {
            return Err(Error::malformed(
                "the line has digits that are not lower-case hexadecimal",
            ));
        }
        Ok(Self { bytes, index, time, kind, body, prev, mac })
    }

    /// Does the line name this leaf as the one before it?
    #[must_use]
    pub fn follows(&self, leaf: &Hash256) -> bool {
        self.prev == hex::<64>(leaf)
    }

    /// The leaf hash of the line (RFC 6962 §2.1).
    #[must_use]
    pub fn leaf(&self) -> Hash256 {
        super::leaf_hash(self.bytes)
    }

    /// The leaf hash, once the MAC is found right. One pass over the bytes.
    ///
    /// Errors: `bad_signature` when the line was not written with this key.
    pub fn leaf_with(&self, key: &MacKey) -> Result<Hash256> {
        let (head, tail) = self.bytes.split_at(self.bytes.len().saturating_sub(TAIL));
        let hasher = Sha256::new().chain_update([0]).chain_update(head);
        let tag = key.tag(&hasher.clone().finalize().into());
        if bool::from(hex::<MAC_DIGITS>(&tag).ct_eq(self.mac)) {
            return Ok(hasher.chain_update(tail).finalize().into());
        }
        Err(Error::new(Reason::BadSignature, "the line's MAC was not made with the gate's key"))
    }
}

/// What a line is made of, apart from its MAC.
pub(super) struct Parts<'a> {
    pub(super) index: u64,
    pub(super) time: u64,
    pub(super) prev: &'a [u8; 64],
    pub(super) kind: &'a str,
    pub(super) body: &'a [u8],
}

/// Writes a line (without newline) to the end of `out` and gives its leaf hash. When a part is
/// refused, `out` is left as it was.
pub(super) fn seal(out: &mut Vec<u8>, key: &MacKey, parts: &Parts<'_>) -> Result<Hash256> {
    check_parts(parts)?;
    let start = out.len();
    out.extend_from_slice(b"{\"i\":");
    decimal(out, parts.index);
    out.extend_from_slice(b",\"t\":");
    decimal(out, parts.time);
    out.extend_from_slice(b",\"prev\":\"");
    out.extend_from_slice(parts.prev);
    out.extend_from_slice(b"\",\"kind\":\"");
    out.extend_from_slice(parts.kind.as_bytes());
    out.extend_from_slice(b"\",\"body\":");
    out.extend_from_slice(parts.body);
    if let Err(error) = check_size(out.len() - start + TAIL) {
        out.truncate(start);
        return Err(error);
    }
    let head = out.get(start..).unwrap_or_default();
    let hasher = Sha256::new().chain_update([0]).chain_update(head);
    let tag = key.tag(&hasher.clone().finalize().into());
    let tail = out.len();
    out.extend_from_slice(MAC_BEFORE);
    out.extend_from_slice(&hex::<MAC_DIGITS>(&tag));
    out.extend_from_slice(MAC_AFTER);
    Ok(hasher.chain_update(out.get(tail..).unwrap_or_default()).finalize().into())
}

fn check_parts(parts: &Parts<'_>) -> Result<()> {
    if parts.index > ARGS_INTEGER || parts.time > TIME_MAX {
        return Err(Error::malformed("the index or the time of a line is too large"));
    }
    if parts.kind.len() > KIND_BYTES || !is_kind(parts.kind.as_bytes()) {
        return Err(Error::malformed(format!(
            "the kind `{}` is not 1 to {KIND_BYTES} of a-z, 0-9, `_`, a letter first",
            parts.kind.escape_debug()
        )));
    }
    check_size(parts.body.len())?;
    if std::str::from_utf8(parts.body).is_err() {
        return Err(Error::malformed("the body is not UTF-8"));
    }
    match json::object(parts.body).map_err(Error::malformed)? == parts.body.len() {
        true => Ok(()),
        false => Err(Error::malformed("the body goes on after its object")),
    }
}

fn check_size(size: usize) -> Result<()> {
    if size <= LINE_BYTES {
        return Ok(());
    }
    let detail = format!("the line has {size} bytes; the most is {LINE_BYTES}");
    Err(Error::new(Reason::TooLarge, detail))
}

fn short() -> Error {
    Error::malformed("the line ends too early")
}

fn after<'a>(bytes: &'a [u8], prefix: &[u8], name: &str) -> Result<&'a [u8]> {
    let missing = || Error::malformed(format!("the line has no `{name}` where it belongs"));
    bytes.strip_prefix(prefix).ok_or_else(missing)
}

/// A decimal number without leading zeros, and what follows it.
pub(super) fn number<'a>(bytes: &'a [u8], most: u64, name: &str) -> Result<(u64, &'a [u8])> {
    let wrong = || Error::malformed(format!("the line's `{name}` is not a canonical number"));
    let (mut value, mut rest) = (0_u64, bytes);
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        value = value * 10 + u64::from(digit - b'0');
        if value > most || (value < 10 && rest.len() != bytes.len()) {
            return Err(wrong());
        }
        rest = after;
    }
    if rest.len() == bytes.len() { Err(wrong()) } else { Ok((value, rest)) }
}

fn kind_of(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let wrong = || Error::malformed("the line's `kind` is not a plain name");
    let window = bytes.get(..=KIND_BYTES).unwrap_or(bytes);
    let end = window.iter().position(|b| *b == b'"').ok_or_else(wrong)?;
    let (kind, rest) = bytes.split_at(end);
    if !is_kind(kind) {
        return Err(wrong());
    }
    Ok((std::str::from_utf8(kind).map_err(|_| wrong())?, rest))
}

fn is_kind(bytes: &[u8]) -> bool {
    let fine = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
    bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.iter().all(fine)
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut used) = (value, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}
