//! The JSON envelope of DSSE: a payload, its type and signatures.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::{Attestation, PAYLOAD_TYPE, json, pae};
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;
use crate::limits;

/// An envelope as received: shape-checked, not verified, its payload not read.
#[derive(Clone, Debug)]
pub struct Envelope {
    bytes: Vec<u8>,
    payload: Vec<u8>,
    signatures: Vec<[u8; 64]>,
}

impl Envelope {
    /// Reads an envelope of at most 32 KiB; nothing is verified yet. Unknown members and every
    /// `keyid` are ignored, as DSSE asks for: a hint selects nothing here.
    ///
    /// # Errors
    /// `malformed`, `too_large`; `wrong_type` for a payload that is no in-toto statement.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::ENVELOPE_BYTES {
            let detail = format!("the envelope has {} bytes, at most 32 KiB", bytes.len());
            return Err(Error::new(Reason::TooLarge, detail));
        }
        let envelope = json::object(bytes, "the envelope")?;
        let payload_type = json::text(&envelope, "payloadType")?;
        if payload_type != PAYLOAD_TYPE {
            let found = payload_type.escape_debug();
            let detail = format!("the payload type is `{found}`, not `{PAYLOAD_TYPE}`");
            return Err(Error::new(Reason::WrongType, detail));
        }
        let payload = base64(json::text(&envelope, "payload")?, "the payload")?;
        let listed = json::array(&envelope, "signatures")?;
        if listed.len() > limits::SIGNATURES {
            let detail = format!("{} signatures, at most {}", listed.len(), limits::SIGNATURES);
            return Err(Error::new(Reason::TooLarge, detail));
        }
        let signatures = listed.iter().map(signature).collect::<Result<Vec<_>>>()?;
        let signatures = signatures.into_iter().flatten().collect();
        Ok(Self { bytes: bytes.to_vec(), payload, signatures })
    }

    /// Checks signatures over the exact bytes of the payload with these keys and no others, then
    /// reads the payload for the first time.
    ///
    /// # Errors
    /// `bad_signature` where none of the keys has signed; after that, what is wrong with the
    /// statement: `malformed`, `too_large`, `wrong_type`, `unknown_claim`.
    pub fn verify(self, keys: &[AgentId]) -> Result<Attestation> {
        if keys.len() > limits::SIGNATURES {
            let detail = format!("{} keys to try, at most {}", keys.len(), limits::SIGNATURES);
            return Err(Error::new(Reason::TooLarge, detail));
        }
        let tbs = pae(PAYLOAD_TYPE, &self.payload);
        let mut signers = Vec::with_capacity(keys.len());
        for key in keys {
            let ready = key.verifier()?;
            if self.signatures.iter().any(|signature| ready.verify(&tbs, signature).is_ok()) {
                signers.push(*key);
            }
        }
        signers.sort_unstable();
        signers.dedup();
        if signers.is_empty() {
            let detail = "none of the keys that count has signed the statement";
            return Err(Error::new(Reason::BadSignature, detail));
        }
        // INVARIANT: the bytes that were verified are the bytes that are read.
        Attestation::open(self.bytes, &self.payload, signers)
    }

    /// What a line of the log says was verified before it was written.
    pub(crate) fn trusted(self, signers: Vec<AgentId>) -> Result<Attestation> {
        Attestation::open(self.bytes, &self.payload, signers)
    }
}

/// The bytes of one signature; none where it has another length than Ed25519's, for it may be
/// meant for somebody else.
fn signature(value: &Value) -> Result<Option<[u8; 64]>> {
    let wrong = || Error::malformed("an entry of `signatures` is not an object with a `sig`");
    let entry: &Map<String, Value> = value.as_object().ok_or_else(wrong)?;
    let bytes = base64(json::text(entry, "sig")?, "a signature")?;
    Ok(bytes.try_into().ok())
}

/// Base64 in either of the alphabets, with or without its padding, each value in one spelling.
fn base64(text: &str, what: &str) -> Result<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    GeneralPurpose::new(&alphabet, CONFIG)
        .decode(text)
        .map_err(|_| Error::malformed(format!("{what} is not base64 (RFC 4648)")))
}
