//! What a gate enforces beyond the chain of links.

use crate::caveat::Request;
use crate::error::{Error, Result};
use crate::key::{Hash256, sha256};

/// Judges a request that the chain permits. An error of any kind is a denial.
pub trait Judge: Send + Sync {
    /// Whether the policy permits the request too.
    fn judge(&self, request: &Request<'_>) -> Result<()>;
}

/// A policy: a text with a hash that messages name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    text: &'static str,
}

impl Policy {
    /// The chain of links is the whole policy.
    pub const CHAIN_ONLY: Self = Self { text: "chain-only" };

    /// Reads a policy's text; only `chain-only` is known, so that nothing written is silently
    /// not enforced.
    pub fn parse(text: &str) -> Result<Self> {
        if text == Self::CHAIN_ONLY.text {
            return Ok(Self::CHAIN_ONLY);
        }
        Err(Error::malformed("this version enforces the policy `chain-only` alone"))
    }

    /// The text.
    #[must_use]
    pub const fn text(&self) -> &str {
        self.text
    }

    /// SHA-256 of `moat-policy-v1`, a newline and the text.
    #[must_use]
    pub fn hash(&self) -> Hash256 {
        sha256(format!("moat-policy-v1\n{}", self.text).as_bytes())
    }
}

impl Judge for Policy {
    fn judge(&self, _request: &Request<'_>) -> Result<()> {
        Ok(())
    }
}
