//! Who withdrew trust from what, or paused it, and which chains that reaches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::Target;
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;
use crate::token::Token;

/// How far a word reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// The signer of a statement.
    Agent(AgentId),
    /// A rule of the monitor, by name.
    Rule(String),
}

impl Author {
    fn is(&self, agent: &AgentId) -> bool {
        matches!(self, Self::Agent(own) if own == agent)
    }
}

/// One standing word about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Withdrawal {
    pub(super) by: Author,
    pub(super) scope: Scope,
}

/// Standing revocations, or suspensions, by target.
#[derive(Clone, Debug)]
pub(super) struct Withdrawals {
    reason: Reason,
    standing: BTreeMap<Target, Vec<Withdrawal>>,
}

impl Withdrawals {
    /// None yet; a chain that one reaches is refused for this reason.
    pub(super) const fn new(reason: Reason) -> Self {
        Self { reason, standing: BTreeMap::new() }
    }

    pub(super) fn names(&self, target: &Target) -> bool {
        self.standing.contains_key(target)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Target, &Withdrawal)> {
        self.standing.iter().flat_map(|(target, all)| all.iter().map(move |one| (target, one)))
    }

    fn of(&self, target: &Target) -> &[Withdrawal] {
        self.standing.get(target).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn add(&mut self, target: Target, by: Author, scope: Scope) {
        let standing = self.standing.entry(target).or_default();
        standing.retain(|one| one.by != by);
        standing.push(Withdrawal { by, scope });
    }

    /// Lifts all of a target's where the scope is the gate's, else the signer's own.
    pub(super) fn lift(&mut self, target: &Target, signer: &AgentId, scope: Scope) {
        let Some(standing) = self.standing.get_mut(target) else { return };
        match scope {
            Scope::Gate => standing.clear(),
            Scope::Given => standing.retain(|one| !one.by.is(signer)),
        }
        if standing.is_empty() {
            self.standing.remove(target);
        }
    }

    /// Drops what was said about a target that cannot act any more.
    pub(super) fn forget(&mut self, target: &Target) {
        self.standing.remove(target);
    }

    /// Whether the agent is barred from every chain.
    pub(super) fn bars(&self, agent: &AgentId) -> bool {
        self.of(&Target::Agent(*agent)).iter().any(|one| one.scope == Scope::Gate)
    }

    /// A root lifts everything, an operator what a rule said; anyone else what is their own,
    /// but not what is about their own key, which whoever stole it could lift.
    pub(super) fn lifter(
        &self,
        target: &Target,
        signer: &AgentId,
        (root, operator): (bool, bool),
    ) -> Result<Scope> {
        let standing = self.of(target);
        let word = self.reason.code();
        if standing.is_empty() {
            let detail = format!("the target is not {word}");
            return Err(Error::new(Reason::NoStanding, detail));
        }
        let by_rules = standing.iter().all(|one| matches!(one.by, Author::Rule(_)));
        if root || (operator && by_rules) {
            return Ok(Scope::Gate);
        }
        let about_itself = *target == Target::Agent(*signer);
        if !about_itself && standing.iter().any(|one| one.by.is(signer)) {
            return Ok(Scope::Given);
        }
        let detail = format!("only who made the target {word} or a root takes that back");
        Err(Error::new(Reason::NoStanding, detail))
    }

    /// Refuses a chain with such a link, or with an agent that is barred from it. `subject` is
    /// the key under which an agent is known here.
    pub(super) fn check(&self, token: &Token, subject: impl Fn(&AgentId) -> AgentId) -> Result<()> {
        if self.standing.is_empty() {
            return Ok(());
        }
        let refused = |what: &str, at| {
            Err(Error::new(self.reason, format!("{what} is {}", self.reason.code())).at(at))
        };
        let mut issuers = Vec::with_capacity(token.links().len());
        for (at, link) in token.links().iter().enumerate() {
            let claims = link.claims();
            issuers.push(claims.issuer);
            if self.names(&Target::Link(link.id())) {
                return refused("this link", at);
            }
            for agent in [&claims.issuer, &claims.holder] {
                if self.reaches(agent, &issuers) || self.reaches(&subject(agent), &issuers) {
                    return refused(&format!("`{agent}`"), at);
                }
            }
        }
        Ok(())
    }

    fn reaches(&self, agent: &AgentId, issuers: &[AgentId]) -> bool {
        self.of(&Target::Agent(*agent)).iter().any(|one| match (&one.by, one.scope) {
            (_, Scope::Gate) | (Author::Rule(_), _) => true,
            (Author::Agent(signer), Scope::Given) => issuers.contains(signer),
        })
    }
}
