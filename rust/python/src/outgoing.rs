//! Requests of guests, through the engine that those of host-side tools go through.

use std::sync::Arc;

use http_body_util::BodyExt;
use moat_egress::{Egress as Engine, Reason, Refusal, Request};
use moat_sandbox::{Outgoing, Refusal as Told, Request as Asked, Response, Sending};

/// Sends what every link of a permit's token names.
pub(crate) struct Way(pub(crate) Arc<Engine>);

impl Outgoing for Way {
    fn send(&self, request: Asked) -> Sending {
        let engine = Arc::clone(&self.0);
        let Asked { method, scheme, authority, path_and_query, headers, body, .. } = request;
        // An empty path is a slash; the engine reads the whole URL anew.
        let url = format!("{scheme}://{authority}{path_and_query}");
        let name_and_value = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        let headers = headers.iter().map(name_and_value).collect();
        Box::pin(async move {
            let request = Request { method: method.as_str().to_owned(), url, headers, body };
            let answer = engine.send(request).await.map_err(|refusal| told(&refusal))?;
            let (head, body) = answer.into_parts();
            let body = body.map_err(|refusal| told(&refusal)).boxed_unsync();
            Ok(Response { status: head.status, headers: head.headers, body })
        })
    }
}

/// What a guest is told: what it asked that it may not, without what the network looks like.
fn told(refusal: &Refusal) -> Told {
    match refusal.reason {
        Reason::UrlRefused => Told::Address,
        Reason::MethodRefused => Told::Method,
        Reason::RequestTooLarge | Reason::BodyLength | Reason::BodyFailed => Told::RequestBody,
        Reason::NameUnresolved => Told::Name,
        Reason::AddressRefused => Told::Prohibited,
        Reason::ConnectFailed => Told::Refused,
        Reason::CertificateRefused => Told::Certificate,
        Reason::TlsFailed => Told::Encryption,
        Reason::ResponseBroken | Reason::ResponseEncoded => Told::Protocol,
        Reason::ResponseTooLarge => Told::ResponseBody,
        Reason::DeadlinePassed => Told::ResponseTimeout,
        Reason::AnchorMalformed
        | Reason::SecretUnusable
        | Reason::HostNotAllowed
        | Reason::HeaderRefused
        | Reason::SecretNotBound
        | Reason::NotLogged => Told::Denied,
    }
}
