//! What others vouch for: in-toto statements in DSSE envelopes (spec/attest.md).
//!
//! An [`Envelope`] is shape-checked and shows nothing of its payload. [`Envelope::verify`] checks
//! signatures over the exact bytes of it, with keys that the caller names and no others; only
//! then is the payload read, and there is an [`Attestation`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256, Identity, sha256};
use crate::limits;

mod envelope;
mod json;
mod predicate;
mod skill;
mod statement;
#[cfg(test)]
mod tests;

pub use envelope::Envelope;
pub use predicate::{Kind, Predicate};
pub use skill::{digest as skill_digest, listing as skill_listing};
pub use statement::{Draft, Subject, tool_digest};

/// The one payload type that is known: an in-toto statement as JSON.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What the signatures of an envelope are over: DSSE's pre-authentication encoding. Lengths are
/// in bytes, so no two pairs of type and body have one encoding.
#[must_use]
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// A statement whose signatures were checked, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    envelope: Vec<u8>,
    signers: Vec<AgentId>,
    statement: Hash256,
    said: Said,
}

/// What a statement says, as far as it is looked at here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) subjects: Vec<Hash256>,
    pub(crate) kind: Kind,
    pub(crate) predicate: Predicate,
    pub(crate) issued: u64,
}

impl Attestation {
    /// Signs the bytes of a statement, which must be one that this version reads.
    ///
    /// # Errors
    /// As for reading the statement; `malformed` where nobody or somebody twice signs.
    pub fn sign(payload: &[u8], signers: &[&Identity]) -> Result<Self> {
        statement::read(payload)?;
        let tbs = pae(PAYLOAD_TYPE, payload);
        let signatures: Vec<_> = signers
            .iter()
            .map(|signer| {
                let sig = STANDARD.encode(signer.sign(&tbs));
                serde_json::json!({ "keyid": signer.id().to_string(), "sig": sig })
            })
            .collect();
        let envelope = serde_json::json!({
            "payload": STANDARD.encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": signatures,
        });
        let ids: Vec<_> = signers.iter().map(|signer| signer.id()).collect();
        let made = Envelope::decode(envelope.to_string().as_bytes())?.verify(&ids)?;
        if made.signers.len() == signers.len() {
            return Ok(made);
        }
        Err(Error::malformed("a key signs a statement once; name each signer once"))
    }

    /// Takes what [`Envelope::verify`] has verified and reads it for the first time.
    fn open(envelope: Vec<u8>, payload: &[u8], signers: Vec<AgentId>) -> Result<Self> {
        let said = statement::read(payload)?;
        Ok(Self { envelope, signers, statement: sha256(payload), said })
    }

    /// The envelope's bytes, as received.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Which of the keys that were asked about have signed; sorted, each once.
    #[must_use]
    pub fn signers(&self) -> &[AgentId] {
        &self.signers
    }

    /// SHA-256 of the statement's bytes.
    #[must_use]
    pub const fn statement(&self) -> Hash256 {
        self.statement
    }

    /// The SHA-256 digests that it is about.
    #[must_use]
    pub fn subjects(&self) -> &[Hash256] {
        &self.said.subjects
    }

    /// What its subjects are.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.said.kind
    }

    /// What is said of them.
    #[must_use]
    pub const fn predicate(&self) -> Predicate {
        self.said.predicate
    }

    /// The second at which it was said; signed with it.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.said.issued
    }

    /// Refuses a statement from the future.
    pub fn check_time(&self, now: u64) -> Result<()> {
        let issued = self.said.issued;
        if issued <= now.saturating_add(limits::SKEW_SECONDS) {
            return Ok(());
        }
        let detail = format!("it is dated {issued}, which is in the future; check the clocks");
        Err(Error::new(Reason::Stale, detail))
    }

    /// What each of its signers vouches for.
    pub fn vouched(&self) -> impl Iterator<Item = Vouched> {
        self.said.subjects.iter().flat_map(move |subject| {
            self.signers.iter().map(move |signer| Vouched {
                subject: *subject,
                kind: self.said.kind,
                predicate: self.said.predicate,
                signer: *signer,
                issued: self.said.issued,
                statement: self.statement,
            })
        })
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.said.subjects.first().map(hex::encode).unwrap_or_default();
        write!(f, "{} {subject}, {} signers", self.said.kind.code(), self.signers.len())
    }
}

/// One key's word about one digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The digest.
    pub subject: Hash256,
    /// What it is the digest of.
    pub kind: Kind,
    /// What is said of it.
    pub predicate: Predicate,
    /// Who says so.
    pub signer: AgentId,
    /// When.
    pub issued: u64,
    /// SHA-256 of the statement.
    pub statement: Hash256,
}
