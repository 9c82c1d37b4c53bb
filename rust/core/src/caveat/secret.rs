//! Which secrets are filled in for code: by handle, at a host, in a header.

use std::fmt;

use crate::error::{Error, Result};
use crate::limits;
use crate::pattern::{HostName, Pattern, Resource};

/// Headers that say where a request ends and goes, which nothing but the sender sets.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A secret behind a handle, for one header of requests to the hosts of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRule {
    handle: Resource,
    host: Pattern,
    header: String,
}

impl SecretRule {
    /// Takes a handle as `secret://name`, a host as `https://name` without a path, where
    /// `*.name` may stand and `*` may not, and a header's name in lower case.
    pub fn new(handle: Resource, host: Pattern, header: String) -> Result<Self> {
        let name = handle.as_str().strip_prefix("secret://").unwrap_or_default();
        if name.is_empty() || name.starts_with('/') || !name.is_ascii() {
            return Err(Error::malformed(format!(
                "`{handle}` is not a handle; write one as `secret://github`, in ASCII"
            )));
        }
        let web = matches!(host.scheme(), "http" | "https");
        let any = host.host().is_none_or(|host| host.host == HostName::Any);
        if !web || any || host.as_str().split('/').nth(3).is_some() {
            return Err(Error::malformed(format!(
                "`{host}` is not a host for a secret; write `https://name` or `https://*.name`"
            )));
        }
        check_header(&header)?;
        Ok(Self { handle, host, header })
    }

    /// What code writes in the place of the value.
    #[must_use]
    pub const fn handle(&self) -> &Resource {
        &self.handle
    }

    /// Where the value may go: a pattern without a path.
    #[must_use]
    pub const fn host(&self) -> &Pattern {
        &self.host
    }

    /// The header that may hold the value, in lower case.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether the secret of this handle may stand in this header, of a request to this host:
    /// a resource without a path, such as `https://api.github.com`.
    #[must_use]
    pub fn permits(&self, handle: &Resource, host: &Resource, header: &str) -> bool {
        self.handle == *handle && self.header == header && self.host.matches(host)
    }

    /// Whether this one rule allows all that the other does.
    #[must_use]
    pub fn covers(&self, child: &Self) -> bool {
        self.is_like(child) && self.host.covers(&child.host)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.handle == other.handle && self.header == other.header
    }
}

impl fmt::Display for SecretRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.handle, self.host, self.header)
    }
}

/// Refuses what is no header's name, or a header that is not for secrets (RFC 9110 §5.1, §7.6.1).
fn check_header(name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
    let sized = (1..=limits::HEADER_BYTES).contains(&name.len());
    if !sized || !name.bytes().all(fine) {
        return Err(Error::malformed(format!(
            "the header `{}` is not 1 to 64 of a-z, 0-9, `-`, `_`; write one as `authorization`",
            name.escape_debug()
        )));
    }
    if OURS.contains(&name) || name.starts_with("proxy-") {
        return Err(Error::malformed(format!("no secret is put into the header `{name}`")));
    }
    Ok(())
}

/// The rule at one host where none of the others fills it in.
pub(super) fn witness(rules: &[SecretRule], wide: &SecretRule) -> Option<String> {
    let like: Vec<_> = rules.iter().filter(|rule| rule.is_like(wide)).collect();
    let apart = like.iter().filter_map(|rule| rule.host.witness(&wide.host));
    let outside = |host: &Resource| !like.iter().any(|rule| rule.host.matches(host));
    let host = wide.host.example().into_iter().chain(apart).find(outside)?;
    Some(format!("{} {host} {}", wide.handle, wide.header))
}
