//! Ed25519 keys (RFC 8032) with strict verification, and SHA-256.
//!
//! An agent *is* its public key, written as a `did:key`. Weak and non-canonical keys are no
//! keys: every [`AgentId`] has been checked, and `verify_strict` is the only verification.

use std::fmt;
use std::hash::{Hash, Hasher};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Reason, Result};

/// A SHA-256 digest.
pub type Hash256 = [u8; 32];

/// SHA-256 of some bytes (FIPS 180-4).
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash256 {
    Sha256::digest(bytes).into()
}

/// The public key of an agent: 32 bytes (RFC 8032 §5.1.2), canonical and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentId([u8; 32]);

/// y-coordinates of the eight points of small order, little endian, sign bit cleared.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// The multicodec prefix of an Ed25519 public key (`0xed` as a varint), as `did:key` uses it.
const MULTICODEC_ED25519: [u8; 2] = [0xed, 0x01];

/// Characters in the `did:key` of an Ed25519 key: its prefix leaves one length.
const DID_KEY_BYTES: usize = 56;

impl AgentId {
    /// Takes 32 bytes and refuses what no honest signer has: a y-coordinate that is not
    /// reduced, or a point of small order. Whether the point is on the curve shows when it is
    /// first used to verify.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self> {
        let mut y = bytes;
        let [first, middle @ .., last] = &mut y;
        *last &= 0x7f;
        let reduced = *last < 0x7f || *first < 0xed || middle.iter().any(|byte| *byte != 0xff);
        if !reduced || SMALL_ORDER_Y.contains(&y) {
            return Err(Error::new(Reason::BadKey, "the public key is weak or not canonical"));
        }
        Ok(Self(bytes))
    }

    /// Reads a `did:key:z6Mk…` and refuses every other spelling, or a point off the curve.
    pub fn parse(text: &str) -> Result<Self> {
        let id = Self::parse_text(text)?;
        id.verifier()?;
        Ok(id)
    }

    /// Reads a `did:key` without asking whether the point is on the curve (see `from_bytes`).
    ///
    /// INVARIANT: a key is read from one text alone, the one that `Display` writes: so many digits
    /// have one value, and no other number of digits is let in.
    pub(crate) fn parse_text(text: &str) -> Result<Self> {
        let wrong = || Error::malformed("not a `did:key` of an Ed25519 key");
        if text.len() != DID_KEY_BYTES {
            return Err(wrong());
        }
        let digits = text.strip_prefix("did:key:z").ok_or_else(wrong)?;
        let mut raw = [0; 34];
        let size = bs58::decode(digits).onto(&mut raw).map_err(|_| wrong())?;
        let [m0, m1, key @ ..] = raw;
        if size != raw.len() || [m0, m1] != MULTICODEC_ED25519 {
            return Err(wrong());
        }
        Self::from_bytes(key)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 bytes of the key's SHA-256: a hint in headers that selects nothing.
    #[must_use]
    pub fn kid(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = sha256(&self.0);
        [a, b, c, d, e, f, g, h]
    }

    /// Checks a signature by the strict rule: canonical `S`, `R` and key, nothing of small
    /// order, the cofactorless equation (what libsodium checks).
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<()> {
        self.verifier()?.verify(message, signature)
    }

    /// The key made ready for several verifications.
    pub fn verifier(&self) -> Result<Verifier> {
        let off = |_| Error::new(Reason::BadKey, "the public key is not a point on the curve");
        Ok(Verifier(VerifyingKey::from_bytes(&self.0).map_err(off)?))
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut raw = [0; 34];
        let (codec, key) = raw.split_at_mut(2);
        codec.copy_from_slice(&MULTICODEC_ED25519);
        key.copy_from_slice(&self.0);
        let mut text = [0; DID_KEY_BYTES];
        let size = bs58::encode(raw).onto(&mut text[..]).map_err(|_| fmt::Error)?;
        let digits = text.get(..size).and_then(|digits| std::str::from_utf8(digits).ok());
        write!(f, "did:key:z{}", digits.ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({self})")
    }
}

impl Hash for AgentId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A public key whose point is decompressed.
#[derive(Clone, Debug)]
pub struct Verifier(VerifyingKey);

impl Verifier {
    /// See [`AgentId::verify`].
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<()> {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| Error::new(Reason::BadSignature, "the signature does not verify"))
    }
}

/// A secret key with a name for people. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct Identity {
    name: String,
    key: SigningKey,
    id: AgentId,
}

impl Identity {
    /// Makes an identity from a 32-byte seed (RFC 8032 §5.1.5) that the caller drew.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self> {
        check_name(name)?;
        let key = SigningKey::from_bytes(seed);
        let id = AgentId::from_bytes(key.verifying_key().to_bytes())?;
        Ok(Self { name: name.to_owned(), key, id })
    }

    /// Reads a PKCS#8 PEM private key (RFC 8410).
    pub fn from_pem(name: &str, pem: &str) -> Result<Self> {
        let key = SigningKey::from_pkcs8_pem(pem)
            .map_err(|_| Error::malformed("not a PKCS#8 PEM file with an Ed25519 private key"))?;
        Self::from_seed(name, &Zeroizing::new(key.to_bytes()))
    }

    /// Writes PKCS#8 PEM, version 1 (RFC 8410 §7), the form that OpenSSL reads.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        KeypairBytes { secret_key: self.key.to_bytes(), public_key: None }
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| Error::new(Reason::Internal, "the key could not be written as PEM"))
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    #[must_use]
    pub const fn id(&self) -> AgentId {
        self.id
    }

    /// Signs (RFC 8032 §5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// A 32-byte secret for one purpose, derived from this key by HKDF-SHA256 (RFC 5869).
    pub fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>> {
        let mut out = Zeroizing::new([0; 32]);
        hkdf::Hkdf::<Sha256>::new(Some(b"moat-derive-v1"), self.key.as_bytes())
            .expand(purpose.as_bytes(), &mut *out)
            .map_err(|_| Error::new(Reason::Internal, "the purpose is too long"))?;
        Ok(out)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, {})", self.name, self.id)
    }
}

/// Names are 1 to 63 of `a-z 0-9 . _ -`, starting with a letter or digit.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let starts = name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() <= 63 && starts && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "the name `{}` is not 1 to 63 of a-z, 0-9, `.`, `_`, `-`, letter or digit first",
        name.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn seeded(n: u8) -> Identity {
        Identity::from_seed("a", &[n; 32]).unwrap()
    }

    #[test]
    fn a_did_key_reads_back_and_has_one_spelling() {
        for n in 0..32 {
            let id = seeded(n).id();
            let text = id.to_string();
            assert!(text.starts_with("did:key:z6Mk"), "{text}");
            assert_eq!(AgentId::parse(&text), Ok(id));
            assert!(AgentId::parse(&text.to_uppercase()).is_err());
            assert!(AgentId::parse(&format!("{text} ")).is_err());
            assert!(AgentId::parse(&text.replace("did:key:z", "did:key:z1")).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_text_that_reads_is_the_text_that_is_written(digits in "6Mk[1-9A-HJ-NP-Za-km-z]{44}") {
            let text = format!("did:key:z{digits}");
            if let Ok(id) = AgentId::parse_text(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn no_changed_character_reads_as_the_same_key(
            seed in any::<[u8; 32]>(), at in 0..DID_KEY_BYTES, other in "[ -~]"
        ) {
            let id = Identity::from_seed("a", &seed).unwrap().id();
            let mut text = id.to_string();
            text.replace_range(at..=at, &other);
            prop_assert_eq!(AgentId::parse_text(&text).ok() == Some(id), text == id.to_string());
        }
    }

    #[test]
    fn every_small_order_point_is_refused_in_both_signs() {
        for y in SMALL_ORDER_Y {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                assert_eq!(AgentId::from_bytes(bytes).unwrap_err().reason, Reason::BadKey);
            }
            let point = VerifyingKey::from_bytes(&y);
            assert!(point.is_ok_and(|key| key.is_weak()), "the table holds only weak points");
        }
    }

    #[test]
    fn a_coordinate_that_is_not_reduced_is_refused() {
        for low in 0xed..=0xff_u8 {
            let mut bytes = [0xff; 32];
            bytes[0] = low;
            for last in [0x7f, 0xff] {
                bytes[31] = last;
                assert_eq!(AgentId::from_bytes(bytes).unwrap_err().reason, Reason::BadKey);
            }
        }
    }

    #[test]
    fn pem_reads_back_and_the_debug_form_shows_no_secret() {
        let one = seeded(7);
        let pem = one.to_pem().unwrap();
        let again = Identity::from_pem("b", &pem).unwrap();
        assert_eq!(again.id(), one.id());
        assert!(!format!("{one:?}").contains("0707"));
    }

    #[test]
    fn names_are_plain() {
        for bad in ["", "A", "-a", "a b", "ä", &"a".repeat(64)] {
            assert!(Identity::from_seed(bad, &[1; 32]).is_err(), "{bad}");
        }
    }
}
