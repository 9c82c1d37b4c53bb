//! Secrets: a value, the handle that guests know it by, and the placeholder it replaces.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use moat_core::caveat::SecretRule;
use moat_core::pattern::Resource;
use zeroize::Zeroizing;

use crate::refusal::{Reason, Refusal};
use crate::rule::{Link, binds};
use crate::target::Target;

/// How a placeholder starts.
const SCHEME: &str = "secret://";
/// Bytes in a value: shorter ones are guessed, and found in answers by chance.
const VALUE_BYTES: std::ops::RangeInclusive<usize> = 8..=4096;

/// The value behind a handle, `secret://name`. Where it may go is for the links of a token to
/// say. The memory of the value is wiped.
pub struct Secret {
    handle: Resource,
    value: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Takes 8 to 4,096 bytes of visible ASCII, with spaces only inside.
    ///
    /// # Errors
    /// `secret_unusable` for any other value.
    pub fn new(handle: Resource, value: Zeroizing<Vec<u8>>) -> Result<Self, Refusal> {
        let visible = |byte: &u8| *byte == b' ' || byte.is_ascii_graphic();
        let edges = [value.first(), value.last()];
        if !VALUE_BYTES.contains(&value.len())
            || !value.iter().all(visible)
            || edges.contains(&Some(&b' '))
        {
            let detail =
                format!("the value of `{handle}` is not 8 to 4,096 visible ASCII characters");
            return Err(Refusal::new(Reason::SecretUnusable, detail));
        }
        Ok(Self { handle, value })
    }

    pub(crate) fn handle(&self) -> &str {
        self.handle.as_str()
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.handle)
    }
}

/// The secrets of a run, and what each link says about them.
#[derive(Clone, Copy)]
pub(crate) struct Vault<'a> {
    pub(crate) links: &'a [Link],
    pub(crate) secrets: &'a [Secret],
}

impl Vault<'_> {
    /// Whether the header is one that a link binds a secret to; `_` and `-` are the same to some
    /// servers.
    pub(crate) fn knows(&self, header: &str) -> bool {
        let same = |rule: &SecretRule| rule.header().replace('_', "-") == header.replace('_', "-");
        self.links.iter().flat_map(|link| &link.secrets).any(same)
    }

    /// Whether some secret may be sent to the target.
    pub(crate) fn reaches(&self, target: &Target) -> bool {
        let binds = |secret: &Secret| {
            let to = |rule: &SecretRule| binds(self.links, &secret.handle, target, rule.header());
            self.links.iter().flat_map(|link| &link.secrets).any(to)
        };
        self.secrets.iter().any(binds)
    }
}

/// A header value that the guest wrote as `secret://name` or `Word secret://name`.
pub(crate) struct Placeholder<'a> {
    word: Option<Box<str>>,
    secret: &'a Secret,
}

impl<'a> Placeholder<'a> {
    /// Reads a header's value; `None` where it holds no placeholder at all.
    ///
    /// # Errors
    /// `secret_not_bound` when a placeholder stands in another form, header or request than the
    /// one its secret is bound to.
    pub(crate) fn read(
        vault: Vault<'a>,
        name: &HeaderName,
        value: &[u8],
        target: &Target,
    ) -> Result<Option<Self>, Refusal> {
        let text = String::from_utf8_lossy(value);
        if !holds_placeholder(&text) {
            return Ok(None);
        }
        let (word, handle) = match text.split_once(' ') {
            Some((word, handle)) => (Some(word), handle),
            None => (None, &*text),
        };
        let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shaped = word.is_none_or(|word| !word.is_empty() && word.len() <= 32 && plain(word));
        let bound = vault.secrets.iter().find(|secret| {
            secret.handle() == handle && binds(vault.links, &secret.handle, target, name.as_str())
        });
        match bound.filter(|_| shaped) {
            Some(secret) => Ok(Some(Self { word: word.map(Into::into), secret })),
            // Not which of them it is: who could tell could list the handles there are.
            None => Err(Refusal::new(
                Reason::SecretNotBound,
                format!(
                    "header `{name}` to `{}` holds a placeholder that is bound to no such place; \
                     write `secret://name` or `Word secret://name` in the header and to the host \
                     that the token binds it to",
                    target.authority()
                ),
            )),
        }
    }

    /// The value that is sent.
    ///
    /// # Errors
    /// None that a [`Secret`] can cause.
    pub(crate) fn fill(&self) -> Result<HeaderValue, Refusal> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.secret.value.len() + 33));
        if let Some(word) = &self.word {
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&self.secret.value);
        // The header's own memory is this, wiped when the request is gone.
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes))
            .map_err(|_| Refusal::new(Reason::SecretUnusable, "a secret is no header value"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Whether a text holds a placeholder, plainly or percent-encoded.
pub(crate) fn holds_placeholder(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains(SCHEME) || text.contains("secret%3a")
}
