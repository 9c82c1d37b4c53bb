//! Whether what would run was vouched for as every link requires (spec/attest.md, At the gate).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Guard, Verified, effective};
use crate::attest::{Attestation, Envelope, Kind};
use crate::caveat::Requirement;
use crate::entry::{Attested, Record};
use crate::error::{Axis, Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits;
use crate::state::State;

impl Verified {
    /// The statements by which what the message names meets what every link and the gate's policy
    /// require of it; none where nothing is required.
    pub fn check_attested(&self, state: &State, now: u64) -> Result<Vec<Hash256>> {
        let kind = self.digest_of();
        let body = self.message.body();
        let scheme = body.resource.scheme();
        let must_name = kind != Kind::Code || scheme == Kind::Code.code();
        let mut statements = BTreeSet::new();
        for (at, requirement) in self.required().filter(|(_, one)| one.kind() == kind) {
            let Some(digest) = &body.code else {
                if must_name {
                    return Err(placed(unnamed(kind), at));
                }
                continue;
            };
            let word =
                |signer: &AgentId| state.vouched(digest, kind, requirement.predicate(), signer);
            let met = requirement.check(digest, now, word);
            statements.extend(met.map_err(|error| placed(error, at))?);
        }
        if statements.len() > limits::STATEMENTS {
            let detail = "the decision would rest on more than 128 statements; require fewer";
            return Err(Error::new(Reason::TooLarge, detail).on(Axis::Attestations));
        }
        Ok(statements.into_iter().collect())
    }

    /// Refuses code under a permit where code must be vouched for and the message names none.
    pub fn check_code_named(&self) -> Result<()> {
        let mut code = self.required().filter(|(_, one)| one.kind() == Kind::Code);
        let named = self.digest_of() == Kind::Code && self.message.body().code.is_some();
        match code.next() {
            Some((at, _)) if !named => Err(placed(unnamed(Kind::Code), at)),
            _ => Ok(()),
        }
    }

    /// What the message's `code` is the digest of: of the folder for `skill://`, of the
    /// description for `tool://` and `mcp://`, each where that must be vouched for;
    /// otherwise of code.
    fn digest_of(&self) -> Kind {
        let kind = match self.message.body().resource.scheme() {
            "skill" => Kind::Skill,
            "tool" | "mcp" => Kind::Tool,
            _ => Kind::Code,
        };
        if self.required().any(|(_, one)| one.kind() == kind) { kind } else { Kind::Code }
    }

    /// What each link requires, with the link's place, and what the policy requires, with none.
    fn required(&self) -> impl Iterator<Item = (Option<usize>, &Requirement)> {
        let links = self.chain.token().links().iter().enumerate();
        let of_links = links.flat_map(|(at, link)| {
            let required = link.claims().caveats.attestations().iter();
            required.map(move |requirement| (Some(at), requirement))
        });
        of_links.chain(self.required.iter().map(|requirement| (None, requirement)))
    }
}

/// Says which link it is that is not met, or that it is the policy.
fn placed(error: Error, at: Option<usize>) -> Error {
    match at {
        Some(at) => error.at(at),
        None => Error { detail: format!("by the gate's policy, {}", error.detail), ..error },
    }
}

fn unnamed(kind: Kind) -> Error {
    let kind = kind.code();
    let detail = format!(
        "it is required that the {kind} is vouched for, and the message does not name its \
         digest; seal it with `code`"
    );
    Error::new(Reason::NotAttested, detail).on(Axis::Attestations)
}

impl Guard {
    /// Verifies an envelope with these keys and no others; touches no state.
    pub fn verify_attestation(
        &self,
        envelope: &[u8],
        keys: &[AgentId],
        now: u64,
    ) -> Result<Attestation> {
        let attestation = Envelope::decode(envelope)?.verify(keys)?;
        attestation.check_time(now)?;
        Ok(attestation)
    }

    /// Judges a verified statement; the line to append where it says something new.
    pub fn rule_attestation(
        &self,
        attestation: &Attestation,
        state: &State,
        now: u64,
    ) -> Result<Record> {
        state.check_succeeded()?;
        attestation.check_time(effective(state, now)?)?;
        state.check_attestation(attestation)?;
        Record::of(&Attested::of(attestation))
    }
}

impl Attested {
    /// The line about a statement.
    fn of(attestation: &Attestation) -> Self {
        Self {
            statement: hex::encode(attestation.statement()),
            subject: attestation.kind().code().to_owned(),
            predicate: attestation.predicate().uri().to_owned(),
            issued: attestation.issued(),
            signers: attestation.signers().iter().map(ToString::to_string).collect(),
            envelope: URL_SAFE_NO_PAD.encode(attestation.envelope()),
        }
    }

    /// The attestation that the line is about; refuses a line that says otherwise than the
    /// envelope in it. Signatures were checked before the line was written.
    pub fn attestation(&self) -> Result<Attestation> {
        let wrong = |_| Error::malformed("an envelope in the log is not base64url");
        let envelope = URL_SAFE_NO_PAD.decode(&self.envelope).map_err(wrong)?;
        let signers = self.signers.iter().map(|text| AgentId::parse_text(text));
        let attestation = Envelope::decode(&envelope)?.trusted(signers.collect::<Result<_>>()?)?;
        if Self::of(&attestation) != *self {
            return Err(Error::malformed("a line about a statement differs from its envelope"));
        }
        Ok(attestation)
    }
}

#[cfg(test)]
mod tests;
