//! Why a request was not sent, or its answer not given: a [`Reason`] with a stable code.

use std::fmt;

moat_core::codes! {
    Reason, "Why something was refused. Codes are stable: logs and other languages use them.";
    /// An extra trust anchor that is no certificate.
    AnchorMalformed = "anchor_malformed",
    /// A value that cannot be put into a header.
    SecretUnusable = "secret_unusable",
    /// Not a URL that every parser reads alike.
    UrlRefused = "url_refused",
    /// Not a method that is sent: `CONNECT`, `TRACE`, lower case.
    MethodRefused = "method_refused",
    /// A link of the chain has no rule for this method and URL.
    HostNotAllowed = "host_not_allowed",
    /// A header that is not the guest's to set, or one that is not well formed.
    HeaderRefused = "header_refused",
    /// A placeholder for a secret where none goes: another host, header or form.
    SecretNotBound = "secret_not_bound",
    /// More bytes of headers or of the body than a request may have.
    RequestTooLarge = "request_too_large",
    /// The body is not as long as its `content-length` says.
    BodyLength = "body_length",
    /// The body could not be read from where it comes from.
    BodyFailed = "body_failed",
    /// The name has no address.
    NameUnresolved = "name_unresolved",
    /// One of the addresses is neither global nor in a range of a rule.
    AddressRefused = "address_refused",
    /// None of the addresses took the connection.
    ConnectFailed = "connect_failed",
    /// The server's certificate is not one for this host from a trusted issuer.
    CertificateRefused = "certificate_refused",
    /// TLS failed otherwise.
    TlsFailed = "tls_failed",
    /// The server ended the connection early, or what it sent is not HTTP/1.1.
    ResponseBroken = "response_broken",
    /// The server compressed what could then not be searched for secrets.
    ResponseEncoded = "response_encoded",
    /// More bytes of headers or of the body than an answer may have.
    ResponseTooLarge = "response_too_large",
    /// The time of the request is over.
    DeadlinePassed = "deadline_passed",
    /// The request could not be written down, so it was not sent.
    NotLogged = "not_logged",
}

/// A refusal: the reason and a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// Lower case, no full stop; holds no value of a secret and no value of a header.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    pub(crate) fn deadline() -> Self {
        Self::new(Reason::DeadlinePassed, "the time of the request is over; ask for less at once")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_lists_every_code_in_this_order() {
        let page = include_str!("../../../spec/egress.md");
        let table = page.split_once("## Refusals").map_or("", |(_, rest)| rest);
        let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
        let listed: Vec<&str> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(code, _)| code)
            .collect();
        let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(listed, codes);
    }
}
