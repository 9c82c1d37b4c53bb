//! `wasi:http/outgoing-handler`: what a guest asks for is checked in form and handed to whoever
//! the run was given to send it. Without one, every request is refused.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{
    Error as Code, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks,
};

/// Requests of one run that are under way at once, their responses included.
pub const REQUESTS: usize = 16;
/// Bytes of one body, either way.
pub const BODY_BYTES: u64 = 64 << 20;
/// Header lines of a request or response.
pub const HEADERS: usize = 128;
/// Bytes of all names and values of one set of headers, as the host holds them.
pub const HEADER_BYTES: usize = 64 << 10;
/// Bytes of a path with its query.
pub const PATH_BYTES: usize = 8 << 10;
/// Bytes of a request's body that the host holds, in two pieces.
const CHUNK: usize = 16 << 10;

/// Sends the requests of guests.
pub trait Outgoing: Send + Sync {
    /// Sends one request, or refuses it. This is called on the guest's thread and must return at
    /// once. What it returns runs beside the guest, on the sandbox's own threads, and is dropped
    /// where it waits when the guest gives up the request, its time is over or it is stopped. It
    /// must never block: the clock of all guests ticks on the same thread. Timers and sockets of
    /// tokio work in it.
    fn send(&self, request: Request) -> Sending;
}

/// A request under way.
pub type Sending = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

/// A body on its way, in pieces. It ends with an error where it is too long or breaks off.
pub type Body = UnsyncBoxBody<Bytes, Refusal>;

/// A request as the guest wrote it. Nothing in it is trusted: the authority, path and headers have
/// the form that HTTP asks for and are within bounds, and no more than that is known.
#[derive(Debug)]
pub struct Request {
    /// Never `CONNECT` or `TRACE`.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port. Never empty, without user information.
    pub authority: String,
    /// From the first slash on; not canonical.
    pub path_and_query: String,
    /// At most [`HEADERS`] and [`HEADER_BYTES`]. None that frame a message, name its host or speak
    /// to a proxy; `Authorization` and `Cookie` only with a handle of a secret as their value.
    pub headers: HeaderMap,
    /// At most [`BODY_BYTES`].
    pub body: Body,
    /// What the guest would wait for a connection.
    pub connect_timeout: Option<Duration>,
    /// What it would wait for the response.
    pub first_byte_timeout: Option<Duration>,
    /// What it would wait between two pieces of the response.
    pub between_bytes_timeout: Option<Duration>,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// Also that of a redirect: nothing is followed here.
    pub status: StatusCode,
    /// What a request may not have is left out on the way to the guest.
    pub headers: HeaderMap,
    /// At most [`BODY_BYTES`] reach the guest; trailers do not.
    pub body: Body,
}

/// Why a request failed, as the guest is told: each is a code of `wasi:http`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The guest may not do this.
    #[error("the request is not permitted")]
    Denied,
    /// The method is none that is sent.
    #[error("the method cannot be sent")]
    Method,
    /// The scheme, authority or path is not one that is understood in one way only.
    #[error("the address is not canonical")]
    Address,
    /// The path is over [`PATH_BYTES`].
    #[error("the address is too long")]
    AddressLength,
    /// The name leads nowhere.
    #[error("the name was not found")]
    Name,
    /// The name leads to an address that no guest may reach.
    #[error("the name leads to an address that is out of reach")]
    Prohibited,
    /// Nobody answers there.
    #[error("the connection was refused")]
    Refused,
    /// The connection broke off.
    #[error("the connection broke off")]
    Broken,
    /// Connecting took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The response took too long.
    #[error("the response took too long")]
    ResponseTimeout,
    /// The certificate is not one for this name.
    #[error("the certificate is not trusted")]
    Certificate,
    /// There is no agreement on encryption.
    #[error("the connection could not be encrypted")]
    Encryption,
    /// The request's headers are over a bound.
    #[error("the request's headers are too long")]
    RequestHeaders,
    /// The request's body is over a bound.
    #[error("the request's body is too long")]
    RequestBody,
    /// The response's headers are over a bound.
    #[error("the response's headers are too long")]
    ResponseHeaders,
    /// The response's body is over a bound.
    #[error("the response's body is too long")]
    ResponseBody,
    /// [`REQUESTS`] are under way.
    #[error("too many requests are under way")]
    Busy,
    /// What came back is no HTTP, or the guest broke off its own body.
    #[error("the exchange is not valid http")]
    Protocol,
}

impl From<Refusal> for Code {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied => Self::HttpRequestDenied,
            Refusal::Method => Self::HttpRequestMethodInvalid,
            Refusal::Address => Self::HttpRequestUriInvalid,
            Refusal::AddressLength => Self::HttpRequestUriTooLong,
            Refusal::Name => Self::DnsError { rcode: None, info_code: None },
            Refusal::Prohibited => Self::DestinationIpProhibited,
            Refusal::Refused => Self::ConnectionRefused,
            Refusal::Broken => Self::ConnectionTerminated,
            Refusal::ConnectTimeout => Self::ConnectionTimeout,
            Refusal::ResponseTimeout => Self::HttpResponseTimeout,
            Refusal::Certificate => Self::TlsCertificateError,
            Refusal::Encryption => Self::TlsProtocolError,
            Refusal::RequestHeaders => Self::HttpRequestHeaderSectionSize(None),
            Refusal::RequestBody => Self::HttpRequestBodySize(None),
            Refusal::ResponseHeaders => Self::HttpResponseHeaderSectionSize(None),
            Refusal::ResponseBody => Self::HttpResponseBodySize(None),
            Refusal::Busy => Self::ConnectionLimitReached,
            Refusal::Protocol => Self::HttpProtocolError,
        }
    }
}

/// Headers that no guest sets or sees: they frame a message, name its host, or speak to a proxy.
fn forbidden(name: &HeaderName) -> bool {
    let name = name.as_str();
    let of_hop = matches!(
        name,
        "connection"
            | "expect"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    );
    of_hop || name.starts_with("proxy-")
}

/// What one run has under way.
pub(crate) struct Requests {
    pub(crate) context: WasiHttpCtx,
    pub(crate) hooks: Hooks,
}

pub(crate) struct Hooks {
    way: Option<Arc<dyn Outgoing>>,
    room: Arc<Semaphore>,
}

impl Requests {
    pub(crate) fn new(way: Option<Arc<dyn Outgoing>>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HEADER_BYTES);
        let room = Arc::new(Semaphore::new(REQUESTS));
        Self { context, hooks: Hooks { way, room } }
    }

    /// Resolves when nothing is under way any more; to be asked for before the run's state is
    /// dropped, and waited for after. `None` where nothing can be.
    pub(crate) fn settled(&self) -> Option<impl Future<Output = ()> + use<>> {
        self.hooks.way.as_ref()?;
        let room = Arc::clone(&self.hooks.room);
        Some(async move {
            // A semaphore that nobody closes.
            let _ = room.acquire_many(u32::try_from(REQUESTS).unwrap_or(u32::MAX)).await;
        })
    }
}

type Held = Box<dyn Future<Output = Result<(), Code>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Held), Code>;

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(forbidden)
    }

    /// Whoever sends the request writes the header, from the authority that it checked.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Held,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(respond(self.begin(request, options)))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

impl Hooks {
    fn begin(
        &self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<(Sending, OwnedSemaphorePermit), Refusal> {
        let way = self.way.as_ref().ok_or(Refusal::Denied)?;
        let request = checked(request, options.unwrap_or_default())?;
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        Ok((way.send(request), place))
    }
}

/// Waits for the answer. The place is held as long as the response is: its body is under way.
async fn respond(begun: Result<(Sending, OwnedSemaphorePermit), Refusal>) -> Sent {
    let (sending, place) = begun?;
    let response = admitted(sending.await?)?;
    let held: Held = Box::new(async move {
        let _place = place;
        pending::<Result<(), Code>>().await
    });
    Ok((response, held))
}

fn checked(request: http::Request<WasiBody>, options: RequestOptions) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    if [Method::CONNECT, Method::TRACE].contains(&parts.method) {
        return Err(Refusal::Method);
    }
    let scheme = parts.uri.scheme_str().ok_or(Refusal::Address)?.to_owned();
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
    if authority.is_empty() || authority.contains('@') {
        return Err(Refusal::Address);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if path.len() > PATH_BYTES {
        return Err(Refusal::AddressLength);
    }
    if !within(&parts.headers) {
        return Err(Refusal::RequestHeaders);
    }
    if parts.headers.keys().any(forbidden) || !secrets_only(&parts.headers) {
        return Err(Refusal::Denied);
    }
    let (authority, path_and_query) = (authority.to_owned(), path.to_owned());
    // Trailers would be headers that nobody looked at.
    let body = body.map_err(|_| Refusal::Protocol);
    let body = Bounded { body, left: BODY_BYTES, over: Refusal::RequestBody, trailers: false };
    Ok(Request {
        method: parts.method,
        scheme,
        authority,
        path_and_query,
        headers: parts.headers,
        body: body.boxed_unsync(),
        connect_timeout: options.connect_timeout,
        first_byte_timeout: options.first_byte_timeout,
        between_bytes_timeout: options.between_bytes_timeout,
    })
}

fn admitted(response: Response) -> Result<http::Response<WasiBody>, Refusal> {
    let Response { status, headers, body } = response;
    if !within(&headers) {
        return Err(Refusal::ResponseHeaders);
    }
    let body = Bounded { body, left: BODY_BYTES, over: Refusal::ResponseBody, trailers: true };
    let mut response = http::Response::new(body.map_err(Code::from).boxed_unsync());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn within(headers: &HeaderMap) -> bool {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    headers.len() <= HEADERS && bytes.sum::<usize>() <= HEADER_BYTES
}

/// What speaks for somebody is never the guest's own: it names a secret, `secret://name`, perhaps
/// after one word (`Bearer`), and whoever sends the request puts the value in its place.
fn secrets_only(headers: &HeaderMap) -> bool {
    let speaking = [header::AUTHORIZATION, header::COOKIE];
    let mut values = speaking.iter().flat_map(|name| headers.get_all(name));
    values.all(|value| {
        let handle = |text: &str| text.starts_with("secret://") && !text.contains(' ');
        value.to_str().is_ok_and(|text| match text.split_once(' ') {
            Some((word, rest)) => {
                handle(rest) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            }
            None => handle(text),
        })
    })
}

/// A body that ends with an error when it is too long.
struct Bounded<B> {
    body: B,
    left: u64,
    over: Refusal,
    /// Whether trailers are left out; else they are an error.
    trailers: bool,
}

impl<B> http_body::Body for Bounded<B>
where
    B: http_body::Body<Data = Bytes, Error = Refusal> + Unpin,
{
    type Data = Bytes;
    type Error = Refusal;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(match frame.transpose() {
            Err(error) => Some(Err(error)),
            Ok(None) => None,
            Ok(Some(frame)) => match frame.into_data() {
                Ok(data) => match this.left.checked_sub(data.len() as u64) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(Frame::data(data)))
                    }
                    None => Some(Err(this.over.clone())),
                },
                Err(_) if this.trailers => None,
                Err(_) => Some(Err(Refusal::RequestHeaders)),
            },
        })
    }
}
