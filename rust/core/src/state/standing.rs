//! Who may withdraw trust, pause it or take that back.

use super::{Scope, State, nonce_key};
use crate::control::{Statement, Target, Verb};
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;

impl State {
    /// The scope in which the signer may say this, or why not.
    pub fn standing(
        &self,
        statement: &Statement,
        roots: &[AgentId],
        operators: &[AgentId],
        now: u64,
    ) -> Result<Scope> {
        let nonce = (statement.expires, nonce_key(statement));
        if now >= statement.expires || self.nonces.contains(&nonce) {
            return Err(Error::new(Reason::Replayed, "this statement was taken up before"));
        }
        let signer = &statement.signer;
        if self.revoked.bars(signer) {
            return Err(Error::new(Reason::NoStanding, "the signer is revoked"));
        }
        if self.suspended.bars(signer) || self.suspended.bars(&self.registry.subject(signer)) {
            return Err(Error::new(Reason::NoStanding, "the signer is suspended"));
        }
        let (root, operator) = (roots.contains(signer), operators.contains(signer));
        match statement.verb {
            Verb::Revoke | Verb::Suspend if root || operator => Ok(Scope::Gate),
            Verb::Revoke | Verb::Suspend => self.withdrawer(statement),
            Verb::Restore => self.revoked.lifter(&statement.target, signer, (root, operator)),
            Verb::Resume => {
                let target = self.person(&statement.target);
                self.suspended.lifter(&target, signer, (root, operator))
            }
        }
    }

    fn withdrawer(&self, statement: &Statement) -> Result<Scope> {
        let signer = &statement.signer;
        let gave = match &statement.target {
            // Fresh keys are free: only one that the gate knows may spend a line on itself.
            // None pauses itself: it just stops asking.
            Target::Agent(agent)
                if agent == signer && statement.verb == Verb::Revoke && self.links.knows(agent) =>
            {
                return Ok(Scope::Gate);
            }
            Target::Agent(agent) => {
                self.links.held(agent).any(|link| self.links.issued(signer, link))
            }
            Target::Link(link) => {
                let own = self.links.get(link).is_some_and(|seen| seen.holder == *signer);
                (own && statement.verb == Verb::Revoke) || self.links.issued(signer, link)
            }
        };
        if gave {
            return Ok(Scope::Given);
        }
        let detail = "the signer is no root and no operator, and in no chain that this gate has \
                      seen is it the target or a delegator of it";
        Err(Error::new(Reason::NoStanding, detail))
    }
}
