//! Checkpoints: C2SP tlog-checkpoint in a C2SP signed note with Ed25519 signatures.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::origin;
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256, Identity, sha256};
use crate::limits::{ARGS_INTEGER, CHECKPOINT_BYTES, CHECKPOINT_SIGNATURES};

/// The size and root of a log at some moment, in a note that the gate has signed.
///
/// Reading one checks its form; only [`Checkpoint::verify`] says whose it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    text: String,
    origin: String,
    size: u64,
    root: Hash256,
}

/// What starts a signature line: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";

impl Checkpoint {
    /// Signs the size and root of the gate's own log.
    #[must_use]
    pub fn sign(gate: &Identity, size: u64, root: Hash256) -> Self {
        let origin = origin(&gate.id());
        let body = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root));
        let mut signature = key_id(&origin, &gate.id()).to_vec();
        signature.extend_from_slice(&gate.sign(body.as_bytes()));
        let text = format!("{body}\n{SIGNATURE}{origin} {}\n", STANDARD.encode(signature));
        Self { text, origin, size, root }
    }

    /// Reads a note of three lines (origin, size, root) with 1 to 16 signatures. Extension
    /// lines are refused.
    ///
    /// Errors: `malformed`, or `too_large` beyond 128 KiB.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > CHECKPOINT_BYTES {
            return Err(Error::new(Reason::TooLarge, "the checkpoint is too large"));
        }
        if text.chars().any(|c| c < ' ' && c != '\n') {
            return Err(wrong("has a control character"));
        }
        let (body, signatures) = split(text).ok_or_else(|| wrong("is not a signed note"))?;
        let mut lines = body.split_terminator('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(wrong("does not have three lines"));
        };
        if origin.strip_prefix("moat.log/").is_none_or(|log| AgentId::parse(log).is_err()) {
            return Err(wrong("is not of the log of a gate"));
        }
        let size = decimal(size).ok_or_else(|| wrong("has a size that is not a number"))?;
        let root = hash(root).ok_or_else(|| wrong("has a root that is not 32 bytes"))?;
        let count = signatures.split_terminator('\n').count();
        if count == 0 || count > CHECKPOINT_SIGNATURES {
            return Err(wrong("does not have 1 to 16 signatures"));
        }
        if !signatures.split_terminator('\n').all(|line| parse_signature(line).is_some()) {
            return Err(wrong("has a signature line of the wrong form"));
        }
        Ok(Self { text: text.to_owned(), origin: origin.to_owned(), size, root })
    }

    /// Checks that the gate signed it. Signatures by other keys are ignored, as the note format
    /// asks for.
    ///
    /// Errors: `wrong_gate` when it is of another log, `bad_signature`.
    pub fn verify(&self, log: &AgentId) -> Result<()> {
        if self.origin != origin(log) {
            let detail = format!("the checkpoint is of `{}`, not of `{log}`", self.origin);
            return Err(Error::new(Reason::WrongGate, detail));
        }
        let unsigned = || Error::new(Reason::BadSignature, "the gate did not sign the checkpoint");
        let (body, signatures) = split(&self.text).ok_or_else(unsigned)?;
        let mut known = 0;
        for line in signatures.split_terminator('\n') {
            let (name, raw) = parse_signature(line).ok_or_else(unsigned)?;
            let (id, signature) = raw.split_at_checked(4).ok_or_else(unsigned)?;
            if name == self.origin && id == key_id(&self.origin, log) {
                log.verify(body.as_bytes(), signature.try_into().map_err(|_| unsigned())?)?;
                known += 1;
            }
        }
        if known == 0 { Err(unsigned()) } else { Ok(()) }
    }

    /// The note, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The log's name, `moat.log/<did:key>`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of lines.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root of the Merkle tree.
    #[must_use]
    pub const fn root(&self) -> &Hash256 {
        &self.root
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {}, {})", self.origin, self.size, STANDARD.encode(self.root))
    }
}

/// The 4 bytes that name an Ed25519 key in a note: SHA-256(name ‖ "\n" ‖ 0x01 ‖ key)[:4].
fn key_id(name: &str, key: &AgentId) -> [u8; 4] {
    let mut bytes = format!("{name}\n\u{1}").into_bytes();
    bytes.extend_from_slice(key.as_bytes());
    let [a, b, c, d, ..] = sha256(&bytes);
    [a, b, c, d]
}

/// The text of a note and its signature lines: what the last empty line divides.
fn split(note: &str) -> Option<(&str, &str)> {
    let middle = note.rfind("\n\n")?;
    let (body, signatures) = (note.get(..=middle)?, note.get(middle + 2..)?);
    (body != "\n" && !body.contains("\n\n") && signatures.ends_with('\n'))
        .then_some((body, signatures))
}

/// The key name and the bytes (key id and signature) of a signature line.
fn parse_signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
    let plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    let raw = STANDARD.decode(encoded).ok()?;
    (plain && raw.len() > 4).then_some((name, raw))
}

/// A decimal number of at most 2^53 without leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let value = plain.then(|| text.parse().ok())??;
    (value <= ARGS_INTEGER).then_some(value)
}

/// 32 bytes in standard base64.
pub(super) fn hash(text: &str) -> Option<Hash256> {
    (text.len() == 44).then(|| STANDARD.decode(text).ok()?.try_into().ok())?
}

fn wrong(what: &str) -> Error {
    Error::malformed(format!("the checkpoint {what}"))
}
