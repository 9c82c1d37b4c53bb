//! Who withdrew trust in what, and which chains that reaches.

use std::collections::HashMap;

use crate::control::Target;
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;
use crate::token::Token;

/// How far a signer's word reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every chain at this gate.
    Gate,
    /// Chains in which the signer issued a link at or above the target's.
    Given,
}

impl Scope {
    /// The word in the log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Given => "given",
        }
    }

    pub(super) fn parse(word: &str) -> Result<Self> {
        match word {
            "gate" => Ok(Self::Gate),
            "given" => Ok(Self::Given),
            _ => Err(Error::malformed("a scope in the log is neither `gate` nor `given`")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Revocation {
    signer: AgentId,
    scope: Scope,
}

/// Standing revocations, by target.
#[derive(Clone, Debug, Default)]
pub(super) struct Revocations(HashMap<Target, Vec<Revocation>>);

impl Revocations {
    pub(super) fn names(&self, target: &Target) -> bool {
        self.0.contains_key(target)
    }

    pub(super) fn add(&mut self, target: Target, signer: AgentId, scope: Scope) {
        let standing = self.0.entry(target).or_default();
        standing.retain(|revocation| revocation.signer != signer);
        standing.push(Revocation { signer, scope });
    }

    /// Lifts all of a target's where the scope is the gate's, else the signer's own.
    pub(super) fn lift(&mut self, target: &Target, signer: &AgentId, scope: Scope) {
        let Some(standing) = self.0.get_mut(target) else { return };
        match scope {
            Scope::Gate => standing.clear(),
            Scope::Given => standing.retain(|revocation| revocation.signer != *signer),
        }
        if standing.is_empty() {
            self.0.remove(target);
        }
    }

    /// Whether the agent is revoked for every chain.
    pub(super) fn barred(&self, agent: &AgentId) -> bool {
        let standing = self.0.get(&Target::Agent(*agent)).map(Vec::as_slice).unwrap_or_default();
        standing.iter().any(|revocation| revocation.scope == Scope::Gate)
    }

    /// A root lifts everything; anyone else what is their own, but not the revocation of their
    /// own key, which whoever stole it could lift.
    pub(super) fn restorer(&self, target: &Target, signer: &AgentId, root: bool) -> Result<Scope> {
        let standing = self.0.get(target).map(Vec::as_slice).unwrap_or_default();
        if standing.is_empty() {
            return Err(Error::new(Reason::NoStanding, "the target is not revoked"));
        }
        if root {
            return Ok(Scope::Gate);
        }
        let own = *target == Target::Agent(*signer);
        if !own && standing.iter().any(|revocation| revocation.signer == *signer) {
            return Ok(Scope::Given);
        }
        let detail = "only the signer of the revocation or a root restores";
        Err(Error::new(Reason::NoStanding, detail))
    }

    /// Refuses a chain with a revoked link, or an agent revoked for it.
    pub(super) fn check(&self, token: &Token) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut issuers = Vec::with_capacity(token.links().len());
        for (at, link) in token.links().iter().enumerate() {
            let claims = link.claims();
            issuers.push(claims.issuer);
            if self.names(&Target::Link(link.id())) {
                return Err(revoked("this link is revoked", at));
            }
            for agent in [&claims.issuer, &claims.holder] {
                if self.reaches(agent, &issuers) {
                    return Err(revoked(&format!("`{agent}` is revoked"), at));
                }
            }
        }
        Ok(())
    }

    fn reaches(&self, agent: &AgentId, issuers: &[AgentId]) -> bool {
        let standing = self.0.get(&Target::Agent(*agent)).map(Vec::as_slice).unwrap_or_default();
        standing.iter().any(|revocation| match revocation.scope {
            Scope::Gate => true,
            Scope::Given => issuers.contains(&revocation.signer),
        })
    }
}

fn revoked(detail: &str, at: usize) -> Error {
    Error::new(Reason::Revoked, detail).at(at)
}
