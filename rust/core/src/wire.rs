//! Bounded deterministic CBOR (RFC 8949 §4.2.1) and `COSE_Sign1` (RFC 9052 §4.2).
//!
//! Reading is strict in two steps: a typed reader that knows only definite lengths, and, for
//! every signed object, writing the value again and requiring the received bytes. Between the
//! two nothing non-minimal, unsorted, duplicated or trailing gets through.

use minicbor::data::Type;

use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256, Identity, Verifier, sha256};

/// `EdDSA` (RFC 9053): always written.
const ALG_EDDSA: i64 = -8;
/// `Ed25519`, fully specified (RFC 9864): read as well.
const ALG_ED25519: i64 = -19;
/// The tag of a `COSE_Sign1`.
const TAG_SIGN1: u64 = 18;

/// A kind of signed object; a signature made for one never verifies as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A link of a token.
    Link,
    /// A request.
    Message,
    /// A control statement.
    Control,
    /// A registration of a key.
    Registration,
}

impl Kind {
    const fn typ(self) -> &'static str {
        match self {
            Self::Link => "application/moat-cap+cwt",
            Self::Message => "application/moat-msg+cbor",
            Self::Control => "application/moat-ctl+cbor",
            Self::Registration => "application/moat-reg+cbor",
        }
    }
}

/// One signed object as it was received: shape-checked, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    kid: [u8; 8],
    signature: [u8; 64],
    /// The `Sig_structure`: what the signature is over.
    to_be_signed: Vec<u8>,
    payload: std::ops::Range<usize>,
    id: Hash256,
}

impl Signed {
    /// Signs a payload; returns the object and its bytes.
    pub fn seal(kind: Kind, signer: &Identity, payload: &[u8]) -> (Self, Vec<u8>) {
        let kid = signer.id().kid();
        let protected = protected(ALG_EDDSA, kid, kind.typ());
        let (to_be_signed, range) = sig_structure(&protected, payload);
        let signature = signer.sign(&to_be_signed);
        let bytes = envelope(&protected, payload, &signature);
        let id = sha256(&to_be_signed);
        (Self { kid, signature, to_be_signed, payload: range, id }, bytes)
    }

    /// Reads the shape of one signed object and requires its only spelling.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        reader.sign1_tag()?;
        reader.array_of(4, "a COSE_Sign1")?;
        let header = reader.bytes("the protected header")?;
        reader.empty_map("the unprotected header")?;
        let payload = reader.bytes("the payload")?;
        let signature = reader.fixed::<64>("the signature")?;
        reader.end()?;
        let (alg, kid) = read_header(kind, header)?;
        let protected = protected(alg, kid, kind.typ());
        if protected != header || envelope(&protected, payload, &signature) != bytes {
            return Err(Error::malformed("the CBOR is not deterministic (RFC 8949 section 4.2.1)"));
        }
        let (to_be_signed, range) = sig_structure(&protected, payload);
        let id = sha256(&to_be_signed);
        Ok(Self { kid, signature, to_be_signed, payload: range, id })
    }

    /// The payload's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.to_be_signed.get(self.payload.clone()).unwrap_or_default()
    }

    /// SHA-256 of the `Sig_structure`: the object's id.
    #[must_use]
    pub const fn id(&self) -> Hash256 {
        self.id
    }

    /// Whether the header's hint names this key.
    #[must_use]
    pub fn hints_at(&self, key: &AgentId) -> bool {
        self.kid == key.kid()
    }

    /// Checks hint and signature with the key that the claims name.
    pub fn verify(&self, key: &AgentId) -> Result<()> {
        if !self.hints_at(key) {
            return Err(Error::new(Reason::BadSignature, "the header hints at another key"));
        }
        self.verify_with(&key.verifier()?)
    }

    /// Checks the signature with a key that is ready; the caller has looked at the hint.
    pub fn verify_with(&self, key: &Verifier) -> Result<()> {
        key.verify(&self.to_be_signed, &self.signature)
    }
}

fn protected(alg: i64, kid: [u8; 8], typ: &str) -> Vec<u8> {
    let mut out = Writer::with_capacity(48);
    out.map(3).int(1).int(alg).int(4).bytes(&kid).int(16).text(typ);
    out.finish()
}

fn read_header(kind: Kind, header: &[u8]) -> Result<(i64, [u8; 8])> {
    let mut reader = Reader::new(header);
    let size = reader.map(3, "the protected header")?;
    let (mut alg, mut kid, mut typ) = (None, None, None);
    for _ in 0..size {
        match reader.int("a header label")? {
            1 => alg = Some(reader.int("alg")?),
            4 => kid = Some(reader.fixed::<8>("kid")?),
            16 => typ = Some(reader.text("typ")?),
            other => {
                let detail = format!("header {other} is not known to this version");
                return Err(Error::new(Reason::UnknownClaim, detail));
            }
        }
    }
    reader.end()?;
    let (Some(alg), Some(kid), Some(typ)) = (alg, kid, typ) else {
        return Err(Error::malformed("the protected header lacks alg, kid or typ"));
    };
    if typ != kind.typ() {
        let detail = format!("typ is `{}`, not `{}`", typ.escape_debug(), kind.typ());
        return Err(Error::new(Reason::WrongType, detail));
    }
    if alg != ALG_EDDSA && alg != ALG_ED25519 {
        let detail = format!("algorithm {alg} is not Ed25519 (-8 or -19)");
        return Err(Error::new(Reason::UnknownAlgorithm, detail));
    }
    Ok((alg, kid))
}

fn envelope(protected: &[u8], payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let mut out = Writer::with_capacity(payload.len() + protected.len() + 80);
    out.tag(TAG_SIGN1).array(4).bytes(protected).map(0).bytes(payload).bytes(signature);
    out.finish()
}

fn sig_structure(protected: &[u8], payload: &[u8]) -> (Vec<u8>, std::ops::Range<usize>) {
    let mut out = Writer::with_capacity(payload.len() + protected.len() + 24);
    out.array(4).text("Signature1").bytes(protected).bytes(b"").bytes(payload);
    let bytes = out.finish();
    let start = bytes.len() - payload.len();
    let range = start..bytes.len();
    (bytes, range)
}

/// Writes deterministic CBOR; the caller writes map keys in order.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(size: usize) -> Self {
        Self(Vec::with_capacity(size))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        let wide = value.to_be_bytes();
        let (lead, width) = match value {
            0..=0x17 => (None, 0),
            0x18..=0xff => (Some(24), 1),
            0x100..=0xffff => (Some(25), 2),
            0x1_0000..=0xffff_ffff => (Some(26), 4),
            _ => (Some(27), 8),
        };
        self.0.push(major | lead.unwrap_or_else(|| value.to_le_bytes()[0]));
        self.0.extend(wide.iter().skip(8 - width));
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        if value < 0 {
            self.head(1, value.unsigned_abs() - 1)
        } else {
            self.head(0, value.unsigned_abs())
        }
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(2, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.head(3, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn array(&mut self, size: usize) -> &mut Self {
        self.head(4, size as u64)
    }

    pub(crate) fn map(&mut self, size: usize) -> &mut Self {
        self.head(5, size as u64)
    }

    fn tag(&mut self, tag: u64) -> &mut Self {
        self.head(6, tag)
    }
}

/// Reads CBOR of definite length, one typed item at a time: nesting is as deep as the caller.
pub(crate) struct Reader<'a>(minicbor::Decoder<'a>);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(minicbor::Decoder::new(bytes))
    }

    /// Requires that nothing is left.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.position() == self.0.input().len() {
            return Ok(());
        }
        Err(Error::malformed("bytes follow the end of the CBOR"))
    }

    fn sign1_tag(&mut self) -> Result<()> {
        match self.0.tag() {
            Ok(tag) if u64::from(tag) == TAG_SIGN1 => Ok(()),
            _ => Err(Error::malformed("not a tagged COSE_Sign1")),
        }
    }

    pub(crate) fn uint(&mut self, what: &str) -> Result<u64> {
        self.0.u64().map_err(|_| wrong(what, "an unsigned integer"))
    }

    pub(crate) fn int(&mut self, what: &str) -> Result<i64> {
        self.0.i64().map_err(|_| wrong(what, "an integer"))
    }

    pub(crate) fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        self.0.bytes().map_err(|_| wrong(what, "a byte string of definite length"))
    }

    pub(crate) fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.bytes(what)?;
        bytes.try_into().map_err(|_| wrong(what, &format!("{N} bytes")))
    }

    pub(crate) fn text(&mut self, what: &str) -> Result<&'a str> {
        self.0.str().map_err(|_| wrong(what, "a text string of definite length"))
    }

    /// The size of an array, at most `most`.
    pub(crate) fn array(&mut self, most: usize, what: &str) -> Result<usize> {
        match self.0.array() {
            Ok(Some(size)) => bounded(size, most, what),
            _ => Err(wrong(what, "an array of definite length")),
        }
    }

    pub(crate) fn array_of(&mut self, size: usize, what: &str) -> Result<()> {
        match self.0.array() {
            Ok(Some(found)) if found == size as u64 => Ok(()),
            _ => Err(wrong(what, &format!("an array of {size}"))),
        }
    }

    /// The size of a map, at most `most`.
    pub(crate) fn map(&mut self, most: usize, what: &str) -> Result<usize> {
        match self.0.map() {
            // One more than the known keys is let in, so that the unknown one can be named.
            Ok(Some(size)) => bounded(size, most + 1, what),
            _ => Err(wrong(what, "a map of definite length")),
        }
    }

    pub(crate) fn empty_map(&mut self, what: &str) -> Result<()> {
        match self.0.map() {
            Ok(Some(0)) => Ok(()),
            Ok(Some(_)) => Err(Error::new(Reason::UnknownClaim, format!("{what} is not empty"))),
            _ => Err(wrong(what, "an empty map")),
        }
    }

    /// Whether the next item is text.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.0.datatype(), Ok(Type::String))
    }
}

fn wrong(what: &str, expected: &str) -> Error {
    Error::malformed(format!("{what} is not {expected}"))
}

fn bounded(size: u64, most: usize, what: &str) -> Result<usize> {
    match usize::try_from(size) {
        Ok(size) if size <= most => Ok(size),
        _ => {
            Err(Error::new(Reason::TooLarge, format!("{what} has {size} entries, at most {most}")))
        }
    }
}

/// Refuses the second value for one key of a map.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(Error::malformed(format!("{what} stands twice")));
    }
    Ok(())
}

/// Refuses a map that lacks a required key.
pub(crate) fn required<T>(slot: Option<T>, what: &str) -> Result<T> {
    slot.ok_or_else(|| Error::malformed(format!("{what} is missing")))
}

/// What a signed object says about itself must be its only spelling.
pub(crate) fn same_bytes(written: &[u8], received: &[u8]) -> Result<()> {
    if written == received {
        return Ok(());
    }
    Err(Error::malformed("the CBOR is not deterministic (RFC 8949 section 4.2.1)"))
}
