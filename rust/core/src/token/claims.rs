//! The CWT claims of one link (RFC 8392) and how they follow those of its parent.

use super::Link;
use crate::caveat::{Caveats, Denial, Grant, Limits, Requirement, Terms};
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits;
use crate::wire::{Reader, Writer, once, required, same_bytes};

const ISS: i64 = 1;
const AUD: i64 = 3;
const EXP: i64 = 4;
const NBF: i64 = 5;
const IAT: i64 = 6;
const CTI: i64 = 7;
const CNF: i64 = 8;
const ALLOW: i64 = -65537;
const DENY: i64 = -65538;
const LIMITS: i64 = -65539;
const PARENT: i64 = -65540;
const DEPTH: i64 = -65541;
const ATTESTATIONS: i64 = -65542;

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who signed it.
    pub issuer: AgentId,
    /// Who may use it.
    pub holder: AgentId,
    /// The second it was made in.
    pub issued: u64,
    /// 16 random bytes that make it unique.
    pub nonce: [u8; 16],
    /// The parent's id; none in a root's link.
    pub parent: Option<Hash256>,
    /// Its place in the chain.
    pub index: u64,
    /// What it allows.
    pub caveats: Caveats,
}

impl Claims {
    /// Writes the claims, keys in the order of their encoded bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let audience = self.caveats.audience.map(|gate| gate.to_string());
        self.encode_as(&self.issuer.to_string(), audience.as_deref())
    }

    /// Writes the claims with these texts for the keys that are texts.
    fn encode_as(&self, issuer: &str, audience: Option<&str>) -> Vec<u8> {
        let caveats = &self.caveats;
        let optional = usize::from(audience.is_some()) + usize::from(self.parent.is_some());
        let mut out = Writer::with_capacity(512);
        out.map(11 + optional).int(ISS).text(issuer);
        if let Some(gate) = audience {
            out.int(AUD).text(gate);
        }
        out.int(EXP).uint(caveats.expires).int(NBF).uint(caveats.not_before);
        out.int(IAT).uint(self.issued).int(CTI).bytes(&self.nonce);
        out.int(CNF).map(1).int(1);
        out.map(3).int(1).int(1).int(-1).int(6).int(-2).bytes(self.holder.as_bytes());
        out.int(ALLOW).array(caveats.allow().len());
        caveats.allow().iter().for_each(|grant| grant.write(&mut out));
        out.int(DENY).array(caveats.deny().len());
        caveats.deny().iter().for_each(|denial| denial.write(&mut out));
        caveats.limits.write(out.int(LIMITS));
        if let Some(parent) = self.parent {
            out.int(PARENT).bytes(&parent);
        }
        out.int(DEPTH).array(2).uint(self.index).uint(caveats.depth);
        out.int(ATTESTATIONS).array(caveats.attestations().len());
        caveats.attestations().iter().for_each(|requirement| requirement.write(&mut out));
        out.finish()
    }

    /// Reads claims and requires their only spelling.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut draft = Draft::default();
        for _ in 0..reader.map(13, "the claims")? {
            draft.read(&mut reader)?;
        }
        reader.end()?;
        // Each key has one text (`AgentId::parse_text`): what was read is what would be written,
        // and to write it anew would cost more than all the rest here.
        let issuer = draft.issuer.map_or("", |(_, text)| text);
        let audience = draft.audience.map(|(_, text)| text);
        let claims = draft.finish()?;
        same_bytes(&claims.encode_as(issuer, audience), bytes)?;
        Ok(claims)
    }

    /// Whether this link may stand at this place: from a root, or from its parent's holder.
    pub(super) fn follows(
        &self,
        before: Option<&Link>,
        at: usize,
        roots: &[AgentId],
    ) -> Result<()> {
        let broken = |detail: &str| Err(Error::new(Reason::BrokenChain, detail));
        match before {
            None if !roots.contains(&self.issuer) => {
                let detail = format!("`{}` is not a trusted root", self.issuer);
                return Err(Error::new(Reason::UnknownRoot, detail));
            }
            None if self.parent.is_some() => return broken("the first link names a parent"),
            Some(parent) if self.issuer != parent.claims.holder => {
                return broken("the signer is not the holder of the link before");
            }
            Some(parent) if self.parent != Some(parent.id()) => {
                return broken("the parent is not the link before");
            }
            _ => {}
        }
        if self.index == at as u64 {
            Ok(())
        } else {
            broken("the depth is not the place in the chain")
        }
    }

    pub(super) fn check_times(&self, now: u64) -> Result<()> {
        let caveats = &self.caveats;
        if now >= caveats.expires {
            let detail = format!("the link expired at {}; ask for a new one", caveats.expires);
            return Err(Error::new(Reason::Expired, detail));
        }
        let latest = now.saturating_add(limits::SKEW_SECONDS);
        if caveats.not_before > latest || self.issued > latest {
            let start = caveats.not_before.max(self.issued);
            return Err(Error::new(Reason::NotYetValid, format!("the link is valid from {start}")));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Draft<'a> {
    issuer: Option<(AgentId, &'a str)>,
    audience: Option<(AgentId, &'a str)>,
    expires: Option<u64>,
    not_before: Option<u64>,
    issued: Option<u64>,
    nonce: Option<[u8; 16]>,
    holder: Option<AgentId>,
    allow: Option<Vec<Grant>>,
    deny: Option<Vec<Denial>>,
    limits: Option<Limits>,
    parent: Option<Hash256>,
    depth: Option<(u64, u64)>,
    attestations: Option<Vec<Requirement>>,
}

impl<'a> Draft<'a> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        match reader.int("a claim's key")? {
            ISS => once(&mut self.issuer, read_did(reader, "iss")?, "iss"),
            AUD => once(&mut self.audience, read_did(reader, "aud")?, "aud"),
            EXP => once(&mut self.expires, reader.uint("exp")?, "exp"),
            NBF => once(&mut self.not_before, reader.uint("nbf")?, "nbf"),
            IAT => once(&mut self.issued, reader.uint("iat")?, "iat"),
            CTI => once(&mut self.nonce, reader.fixed("cti")?, "cti"),
            CNF => once(&mut self.holder, read_cnf(reader)?, "cnf"),
            ALLOW => {
                let size = reader.array(limits::GRANTS, "allow")?;
                let grants = (0..size).map(|_| Grant::read(reader)).collect::<Result<_>>()?;
                once(&mut self.allow, grants, "allow")
            }
            DENY => {
                let size = reader.array(limits::GRANTS, "deny")?;
                let denials = (0..size).map(|_| Denial::read(reader)).collect::<Result<_>>()?;
                once(&mut self.deny, denials, "deny")
            }
            LIMITS => once(&mut self.limits, Limits::read(reader)?, "limits"),
            PARENT => once(&mut self.parent, reader.fixed("parent")?, "parent"),
            DEPTH => {
                reader.array_of(2, "depth")?;
                let depth = (reader.uint("the index")?, reader.uint("the further depth")?);
                once(&mut self.depth, depth, "depth")
            }
            ATTESTATIONS => {
                let size = reader.array(limits::REQUIREMENTS, "attestations")?;
                let all = (0..size).map(|_| Requirement::read(reader)).collect::<Result<_>>()?;
                once(&mut self.attestations, all, "attestations")
            }
            other => {
                let detail = format!("claim {other} is not known to this version");
                Err(Error::new(Reason::UnknownClaim, detail))
            }
        }
    }

    fn finish(self) -> Result<Claims> {
        let (index, depth) = required(self.depth, "depth")?;
        if index >= limits::CHAIN_LINKS as u64 {
            return Err(Error::malformed("the index in depth is more than 15"));
        }
        let issued = required(self.issued, "iat")?;
        let expires = required(self.expires, "exp")?;
        if issued >= expires {
            return Err(Error::malformed("iat is not before exp"));
        }
        Ok(Claims {
            issuer: required(self.issuer, "iss")?.0,
            holder: required(self.holder, "cnf")?,
            issued,
            nonce: required(self.nonce, "cti")?,
            parent: self.parent,
            index,
            caveats: Caveats::new(Terms {
                allow: required(self.allow, "allow")?,
                deny: required(self.deny, "deny")?,
                limits: required(self.limits, "limits")?,
                not_before: required(self.not_before, "nbf")?,
                expires,
                depth,
                audience: self.audience.map(|(gate, _)| gate),
                attestations: required(self.attestations, "attestations")?,
            })?,
        })
    }
}

fn read_did<'a>(reader: &mut Reader<'a>, what: &str) -> Result<(AgentId, &'a str)> {
    let text = reader.text(what)?;
    Ok((AgentId::parse_text(text)?, text))
}

/// `{1: COSE_Key}` with an OKP Ed25519 key and nothing else (RFC 8747 §3.2, RFC 9053 §7.2).
fn read_cnf(reader: &mut Reader<'_>) -> Result<AgentId> {
    let wrong = || Error::malformed("cnf is not {1: {1: 1, -1: 6, -2: key}}");
    if reader.map(1, "cnf")? != 1 || reader.int("cnf")? != 1 || reader.map(3, "cnf")? != 3 {
        return Err(wrong());
    }
    for expected in [1, 1, -1, 6, -2] {
        if reader.int("cnf")? != expected {
            return Err(wrong());
        }
    }
    AgentId::from_bytes(reader.fixed("cnf")?)
}
