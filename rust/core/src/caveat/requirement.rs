//! Who must have vouched for what runs: requirements that a child keeps and may tighten.

use std::fmt;

use super::{too_many, widened};
use crate::attest::{Kind, Predicate, Vouched};
use crate::error::{Axis, Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits;
use crate::wire::{Reader, Writer};

/// That so many of these keys have said this of what runs, and not too long ago.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    kind: Kind,
    predicate: Predicate,
    signers: Vec<AgentId>,
    threshold: u64,
    max_age: u64,
}

impl Requirement {
    /// Sorts the signers and refuses what the format does not hold, or what nothing could meet.
    pub fn new(
        kind: Kind,
        predicate: Predicate,
        mut signers: Vec<AgentId>,
        threshold: u64,
        max_age: u64,
    ) -> Result<Self> {
        signers.sort_unstable();
        signers.dedup();
        if signers.len() > limits::SIGNATURES {
            return Err(too_many("signers", signers.len(), limits::SIGNATURES));
        }
        if threshold == 0 || threshold > signers.len() as u64 {
            return Err(Error::malformed(format!(
                "a threshold of {threshold} among {} signers; it is 1 or more, and not more than \
                 there are signers",
                signers.len()
            )));
        }
        if max_age == 0 || max_age > limits::ATTESTATION_SECONDS {
            return Err(Error::malformed("the age of an attestation is 1 s to 3650 days"));
        }
        if !predicate.speaks_of(kind) {
            return Err(Error::malformed(format!(
                "`{}` says nothing of kind `{}`; use `{}`",
                predicate.uri(),
                kind.code(),
                Predicate::Manifest.uri()
            )));
        }
        Ok(Self { kind, predicate, signers, threshold, max_age })
    }

    /// What must be vouched for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What must be said of it.
    #[must_use]
    pub const fn predicate(&self) -> Predicate {
        self.predicate
    }

    /// Whose word counts, sorted.
    #[must_use]
    pub fn signers(&self) -> &[AgentId] {
        &self.signers
    }

    /// How many of them, each counted once.
    #[must_use]
    pub const fn threshold(&self) -> u64 {
        self.threshold
    }

    /// For how many seconds their word counts.
    #[must_use]
    pub const fn max_age(&self) -> u64 {
        self.max_age
    }

    /// Whether whatever meets `child` meets this.
    fn covers(&self, child: &Self) -> bool {
        self.kind == child.kind
            && self.predicate == child.predicate
            && child.signers.iter().all(|key| self.signers.contains(key))
            && child.threshold >= self.threshold
            && child.max_age <= self.max_age
    }

    /// Whether this key's word, as far as it is found, counts at `now`.
    fn counts(&self, word: &Vouched, digest: &Hash256, now: u64) -> bool {
        let dated = word.issued <= now.saturating_add(limits::SKEW_SECONDS)
            && now < word.issued.saturating_add(self.max_age);
        let about = word.subject == *digest
            && word.kind == self.kind
            && word.predicate == self.predicate
            && self.signers.contains(&word.signer);
        dated && about
    }

    /// The statements by which a digest meets this, or why it does not. `word` finds the newest
    /// word of a signer about it.
    pub fn check(
        &self,
        digest: &Hash256,
        now: u64,
        word: impl Fn(&AgentId) -> Option<Vouched>,
    ) -> Result<Vec<Hash256>> {
        let words = self.signers.iter().filter_map(word);
        let good: Vec<_> = words.filter(|word| self.counts(word, digest, now)).collect();
        let keys: std::collections::BTreeSet<_> = good.iter().map(|word| word.signer).collect();
        if keys.len() as u64 >= self.threshold {
            return Ok(good.iter().map(|word| word.statement).collect());
        }
        let detail = format!(
            "{} of {} signers vouch for the {} {} as it is required: {self}",
            keys.len(),
            self.threshold,
            self.kind.code(),
            hex::encode(digest)
        );
        Err(Error::new(Reason::NotAttested, detail).on(Axis::Attestations))
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.array(5).text(self.kind.code()).text(self.predicate.uri());
        out.array(self.signers.len());
        for signer in &self.signers {
            out.bytes(signer.as_bytes());
        }
        out.uint(self.threshold).uint(self.max_age);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(5, "a requirement")?;
        let kind = Kind::parse(reader.text("a requirement's kind")?)?;
        let predicate = Predicate::parse(reader.text("a requirement's predicate type")?)?;
        let size = reader.array(limits::SIGNATURES, "signers")?;
        let signer = |_| AgentId::from_bytes(reader.fixed("a signer")?);
        let signers = (0..size).map(signer).collect::<Result<_>>()?;
        let (threshold, max_age) = (reader.uint("a threshold")?, reader.uint("an age")?);
        Self::new(kind, predicate, signers, threshold, max_age)
    }
}

/// `kind predicate threshold signer,signer seconds`: what the command line reads as well.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.kind.code(), self.predicate.uri(), self.threshold)?;
        for (at, signer) in self.signers.iter().enumerate() {
            write!(f, "{}{signer}", if at == 0 { "" } else { "," })?;
        }
        write!(f, " {}s", self.max_age)
    }
}

/// Sorts them, removes duplicates and refuses too many.
pub(crate) fn checked(mut all: Vec<Requirement>) -> Result<Vec<Requirement>> {
    all.sort_unstable();
    all.dedup();
    if all.len() > limits::REQUIREMENTS {
        return Err(too_many("requirements of attestations", all.len(), limits::REQUIREMENTS));
    }
    Ok(all)
}

/// Whether a child keeps or tightens each requirement of its parent.
pub(super) fn covers(parent: &[Requirement], child: &[Requirement]) -> Result<()> {
    let kept = |mine: &Requirement| child.iter().any(|its| mine.covers(its));
    match parent.iter().find(|mine| !kept(mine)) {
        None => Ok(()),
        Some(lost) => {
            let detail = "the child drops or loosens a requirement of its parent; repeat it";
            Err(widened(Axis::Attestations, detail).seen(lost.to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
