//! What a gate enforces beyond the chain of links.

use std::borrow::Cow;

use crate::attest::{Kind, Predicate};
use crate::caveat::{Request, Requirement, sorted_requirements};
use crate::error::{Error, Result};
use crate::key::{AgentId, Hash256, sha256};

/// Judges a request that the chain permits. An error of any kind is a denial.
pub trait Judge: Send + Sync {
    /// Whether the policy permits the request too.
    fn judge(&self, request: &Request<'_>) -> Result<()>;
}

/// A policy: a text with a hash that messages name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    text: Cow<'static, str>,
    required: Vec<Requirement>,
}

impl Policy {
    /// The chain of links is the whole policy.
    pub const CHAIN_ONLY: Self = Self { text: Cow::Borrowed("chain-only"), required: Vec::new() };

    /// The chain of links, and attestations that this gate requires of every message, beside
    /// those of the links.
    ///
    /// # Errors
    /// `too_large` for more than 16.
    pub fn requiring(required: Vec<Requirement>) -> Result<Self> {
        let required = sorted_requirements(required)?;
        let lines = required.iter().map(|one| format!("\n{REQUIRE}{one}"));
        let text = Self::CHAIN_ONLY.text.into_owned() + &lines.collect::<String>();
        Ok(Self { text: text.into(), required })
    }

    /// Reads a policy's text in its one spelling, so that nothing written is silently not
    /// enforced.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.split('\n');
        let known = lines.next() == Some(&*Self::CHAIN_ONLY.text);
        let read = if known { lines.map(requirement).collect() } else { None };
        read.map_or_else(|| Err(unknown()), Self::requiring)
            .and_then(|read| if read.text == text { Ok(read) } else { Err(unknown()) })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whose word it requires about what, sorted.
    #[must_use]
    pub fn required(&self) -> &[Requirement] {
        &self.required
    }

    /// SHA-256 of `moat-policy-v1`, a newline and the text.
    #[must_use]
    pub fn hash(&self) -> Hash256 {
        sha256(format!("moat-policy-v1\n{}", self.text).as_bytes())
    }
}

/// Attestations are asked about with the state, where those of links are ([`crate::guard`]).
impl Judge for Policy {
    fn judge(&self, _request: &Request<'_>) -> Result<()> {
        Ok(())
    }
}

const REQUIRE: &str = "require ";

/// A line as it is written; what it says in another spelling is found by writing it again.
fn requirement(line: &str) -> Option<Requirement> {
    let words: Vec<_> = line.strip_prefix(REQUIRE)?.split(' ').collect();
    let [kind, predicate, threshold, signers, age] = words[..] else { return None };
    let signers = signers.split(',').map(|did| AgentId::parse(did).ok());
    Requirement::new(
        Kind::parse(kind).ok()?,
        Predicate::parse(predicate).ok()?,
        signers.collect::<Option<_>>()?,
        threshold.parse().ok()?,
        age.strip_suffix('s')?.parse().ok()?,
    )
    .ok()
}

fn unknown() -> Error {
    Error::malformed(
        "this version enforces the policy `chain-only`, and lines `require …` below it as \
         `Policy.requiring` writes them",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::key::Identity;

    fn who(n: u8) -> AgentId {
        Identity::from_seed("agent", &[n; 32]).unwrap().id()
    }

    fn code(threshold: u64) -> Requirement {
        let signers = vec![who(1), who(2)];
        Requirement::new(Kind::Code, Predicate::Manifest, signers, threshold, 60).unwrap()
    }

    #[test]
    fn a_policy_has_one_spelling_and_the_hash_is_of_all_of_it() {
        let policy = Policy::requiring(vec![code(2), code(1), code(2)]).unwrap();
        assert_eq!(policy.required(), [code(1), code(2)]);
        assert_eq!(Policy::parse(policy.text()), Ok(policy.clone()));
        assert_eq!(Policy::parse("chain-only"), Ok(Policy::CHAIN_ONLY));
        assert_eq!(Policy::requiring(Vec::new()), Ok(Policy::CHAIN_ONLY));
        let hashes = [Policy::CHAIN_ONLY, Policy::requiring(vec![code(1)]).unwrap(), policy];
        let mut hashes = hashes.map(|policy| policy.hash()).to_vec();
        hashes.dedup();
        assert_eq!(hashes.len(), 3);
    }

    #[test]
    fn another_text_is_no_policy() {
        let text = Policy::requiring(vec![code(1), code(2)]).unwrap().text().to_owned();
        let (first, rest) = text.split_once('\n').unwrap();
        let (one, two) = rest.split_once('\n').unwrap();
        for other in [
            "",
            "chain_only",
            "chain-only\n",
            &format!("{first}\n{two}\n{one}"),
            &format!("{first}\n{one}\n{one}"),
            &format!("{text}\n"),
            &format!("{text}\nrequire"),
            &text.replace(" 1 ", " 01 "),
            &text.replace(" 1 ", " 3 "),
            &text.replace("60s", "60"),
            &text.replace("require ", "require  "),
            &text.replace("code", "magic"),
            &text.replace(',', ",,"),
            rest,
        ] {
            assert!(Policy::parse(other).is_err(), "{other:?}");
        }
        assert!(Policy::requiring((1..=17).map(aged).collect()).is_err());
    }

    fn aged(age: u64) -> Requirement {
        Requirement::new(Kind::Code, Predicate::Manifest, vec![who(1)], 1, age).unwrap()
    }
}
