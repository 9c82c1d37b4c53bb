//! The headers of a request: what a guest may set, and what only we do.

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use moat_core::pattern::shown;

use crate::egress::Bounds;
use crate::refusal::{Reason, Refusal};
use crate::secret::{Placeholder, Vault};
use crate::target::Target;

/// Headers that say where a request goes, how it is framed or who passes it on, and so are not a
/// guest's. The last group tells a server to read another method, path or host than the token was
/// asked about. Those that start with a name in [`FAMILIES`] are too.
const OURS: &[&str] = &[
    "connection",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-http-path-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Beginnings of names that are ours.
const FAMILIES: &[&str] = &["proxy-", "x-forwarded", "sec-websocket-"];

/// Hop-by-hop headers of an answer (RFC 9110 §7.6.1), and the cookies that a guest cannot send
/// back: they would only hand it a credential.
const DROPPED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header is set by us alone. Servers of old read `_` in a name as `-`.
fn is_ours(name: &str) -> bool {
    let name = name.replace('_', "-");
    OURS.contains(&name.as_str())
        || FAMILIES.iter().any(|family| name.starts_with(family))
        || name == "content-length"
        || name == "accept-encoding"
}

/// The headers of a guest's request, checked; values of secrets not yet among them.
pub(crate) struct Headers<'a> {
    map: HeaderMap,
    placeholders: Vec<(HeaderName, Placeholder<'a>)>,
    /// What `content-length` says.
    pub(crate) length: Option<u64>,
}

impl<'a> Headers<'a> {
    /// Checks names and values as they were given.
    ///
    /// # Errors
    /// `header_refused`, `secret_not_bound`, `request_too_large`.
    pub(crate) fn check(
        given: &[(String, Vec<u8>)],
        target: &Target,
        vault: Vault<'a>,
        bounds: &Bounds,
    ) -> Result<Self, Refusal> {
        let bytes = given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if given.len() > bounds.headers || bytes > bounds.header_bytes {
            return Err(Refusal::new(
                Reason::RequestTooLarge,
                format!(
                    "a request has at most {} headers of {} bytes; send fewer",
                    bounds.headers, bounds.header_bytes
                ),
            ));
        }
        let mut checked = Self { map: HeaderMap::new(), placeholders: Vec::new(), length: None };
        for (name, value) in given {
            checked.take(name, value, target, vault)?;
        }
        Ok(checked)
    }

    fn take(
        &mut self,
        name: &str,
        value: &[u8],
        target: &Target,
        vault: Vault<'a>,
    ) -> Result<(), Refusal> {
        let no = |why: &str| {
            Err(Refusal::new(Reason::HeaderRefused, format!("header `{}`: {why}", shown(name))))
        };
        let Ok(key) = HeaderName::from_bytes(name.as_bytes()) else {
            return no("not a header name; use letters, digits and `-`");
        };
        let fine = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let padded = value.first().into_iter().chain(value.last()).any(u8::is_ascii_whitespace);
        if !value.iter().all(fine) || padded {
            return no("its value holds a control character or outer space; leave it out");
        }
        if key == CONTENT_LENGTH {
            let digits = std::str::from_utf8(value).ok().filter(|text| is_number(text));
            return match digits.and_then(|text| text.parse().ok()) {
                Some(length) if self.length.is_none() => {
                    self.length = Some(length);
                    Ok(())
                }
                _ => no("one decimal number, once"),
            };
        }
        if key == ACCEPT_ENCODING {
            return Ok(());
        }
        if is_ours(key.as_str()) {
            return no("set by the client alone; leave it out");
        }
        if let Some(placeholder) = Placeholder::read(vault, &key, value, target)? {
            if self.map.contains_key(&key) || self.placeholders.iter().any(|(name, _)| *name == key)
            {
                return no("stands twice; a header with a secret stands once");
            }
            self.placeholders.push((key, placeholder));
            return Ok(());
        }
        let spoken = key.as_str().replace('_', "-");
        let credential = [AUTHORIZATION, COOKIE].iter().any(|name| name.as_str() == spoken)
            || vault.knows(&spoken);
        if credential {
            return no("holds a credential, and is set only as a placeholder: `secret://name`");
        }
        let Ok(value) = HeaderValue::from_bytes(value) else {
            return no("its value is not one; leave it out");
        };
        self.map.append(key, value);
        Ok(())
    }

    /// The headers as they are sent: ours, the guest's, and the values of secrets.
    ///
    /// # Errors
    /// `secret_unusable`, which no [`Secret`] can cause.
    pub(crate) fn fill(mut self, target: &Target) -> Result<HeaderMap, Refusal> {
        let host = HeaderValue::from_str(target.authority());
        let host = host.map_err(|_| Refusal::new(Reason::UrlRefused, "a host is ASCII"))?;
        self.map.insert(HOST, host);
        self.map.insert(CONNECTION, HeaderValue::from_static("close"));
        self.map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, placeholder) in &self.placeholders {
            self.map.insert(name, placeholder.fill()?);
        }
        Ok(self.map)
    }
}

/// Takes out of an answer's headers what is not for the guest.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named.iter().map(String::as_str).chain(DROPPED.iter().copied()) {
        headers.remove(name);
    }
}

fn is_number(text: &str) -> bool {
    let canonical = text == "0" || !text.starts_with('0');
    !text.is_empty() && canonical && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[path = "tests/header.rs"]
mod tests;
