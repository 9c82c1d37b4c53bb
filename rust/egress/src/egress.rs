//! One request, from a URL as a guest wrote it to an answer it may see.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::body::{Answered, Connection, Fault, Sent, broken, too_large};
use crate::header::{Headers, strip};
use crate::ledger::{Ledger, Noted};
use crate::refusal::{Reason, Refusal};
use crate::resolve::Resolver;
use crate::rule::{Link, Permitted};
use crate::scrub::{Scrubber, Stream};
use crate::secret::{Secret, Vault, holds_placeholder};
use crate::target::{Host, Target};
use crate::tls::Trust;

/// Addresses that one name may have.
const ADDRESSES: usize = 64;
/// No request takes longer, whatever its bounds say.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the call to the last byte of the answer.
    pub time: Duration,
    /// Bytes in the body of a request.
    pub request_bytes: u64,
    /// Bytes in the body of an answer.
    pub response_bytes: u64,
    /// Bytes in the names and values of all headers, each way; at least 8 KiB come back.
    pub header_bytes: usize,
    /// Headers, each way.
    pub headers: usize,
    /// Requests at the same time; further ones wait, and their time runs.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            request_bytes: 1 << 20,
            response_bytes: 16 << 20,
            header_bytes: 16 << 10,
            headers: 64,
            connections: 8,
        }
    }
}

/// A request as a guest made it; nothing in it is trusted.
#[derive(Clone, Debug)]
pub struct Request<B> {
    /// In upper case, such as `GET`.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Names and values in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body; what its errors say is not passed on.
    pub body: B,
}

/// Sends what the rules of every link allow, and nothing else.
pub struct Egress {
    links: Vec<Link>,
    secrets: Vec<Secret>,
    bounds: Bounds,
    resolver: Arc<dyn Resolver>,
    trust: Trust,
    scrubber: Arc<Scrubber>,
    places: Arc<Semaphore>,
    ledger: Arc<dyn Ledger>,
}

impl Egress {
    /// An engine for one chain: `links` holds what each of its links says, root first. Where
    /// there is no link, nothing is allowed. The ledger is told of each request once: when it is
    /// refused, or before the connection is made.
    #[must_use]
    pub fn new(
        links: Vec<Link>,
        secrets: Vec<Secret>,
        bounds: Bounds,
        resolver: Arc<dyn Resolver>,
        trust: Trust,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        let words = secrets.iter().map(|secret| (secret.value(), secret.handle()));
        let scrubber = Arc::new(Scrubber::new(words));
        let places = Arc::new(Semaphore::new(bounds.connections.min(Semaphore::MAX_PERMITS)));
        Self { links, secrets, bounds, resolver, trust, scrubber, places, ledger }
    }

    /// Sends a request and returns the answer's head; the body follows. A redirect is an answer
    /// like any other. Runs on tokio, with its clock and its network.
    ///
    /// # Errors
    /// A [`Refusal`]; the first thing that is wrong, in the order of `spec/egress.md`.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Answered>, Refusal>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let deadline = Instant::now() + self.bounds.time.min(LONGEST);
        let mut line = Line::new(&request, &self.scrubber);
        let exchange = timeout_at(deadline, self.exchange(request, deadline, &mut line));
        let mut answer = exchange.await.unwrap_or_else(|_| Err(Refusal::deadline()));
        if let Err(refusal) = &answer
            && !line.is_written
            && let Err(unlogged) = line.write(&*self.ledger, Some(refusal.reason)).await
        {
            answer = Err(unlogged);
        }
        answer.map_err(|mut refusal| {
            // A URL may hold what a header should have held.
            let clean = self.scrubber.clean(refusal.detail.as_bytes());
            refusal.detail = String::from_utf8_lossy(&clean).into_owned();
            refusal
        })
    }

    async fn exchange<B>(
        &self,
        request: Request<B>,
        deadline: Instant,
        line: &mut Line,
    ) -> Result<Response<Answered>, Refusal>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let method = check_method(&request.method)?;
        let target = Target::parse(&request.url)?;
        let permitted = Permitted::by(&self.links, &request.method, &target)?;
        if holds_placeholder(target.path_and_query()) {
            let detail = "a placeholder in a URL is not filled; send it in its header";
            return Err(Refusal::new(Reason::SecretNotBound, detail));
        }
        let headers = Headers::check(&request.headers, &target, self.vault(), &self.bounds)?;
        let body = Sent::new(request.body, headers.length, self.bounds.request_bytes)?;

        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| broken())?;
        let addresses = self.addresses(&target).await?;
        permitted.check(&target, &addresses)?;
        line.write(&*self.ledger, None).await?;
        let stream = connect(&target, &addresses, deadline).await?;
        // From here on the server is known to be the one that the token names.
        let ask = |headers| ask(&method, &target, headers, body);
        if target.is_tls() {
            let stream = self.trust.wrap(stream, &target).await?;
            self.talk(stream, ask(headers.fill(&target)?)?, &target, deadline, place).await
        } else {
            self.talk(stream, ask(headers.fill(&target)?)?, &target, deadline, place).await
        }
    }

    fn vault(&self) -> Vault<'_> {
        Vault { links: &self.links, secrets: &self.secrets }
    }

    /// The addresses of the host, from the URL itself or from one question to the resolver.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, Refusal> {
        let name = match target.host() {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let found = self.resolver.resolve(name).await.unwrap_or_default();
        if found.is_empty() || found.len() > ADDRESSES {
            let detail = format!("`{name}` has no address, or more than {ADDRESSES}");
            return Err(Refusal::new(Reason::NameUnresolved, detail));
        }
        Ok(found)
    }

    async fn talk<B>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: http::Request<Sent<B>>,
        target: &Target,
        deadline: Instant,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Answered>, Refusal>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let fault = request.body().fault();
        let mut http = http1::Builder::new();
        http.max_headers(self.bounds.headers).max_buf_size(self.bounds.header_bytes.max(8 << 10));
        let (mut sender, driver) =
            http.handshake(TokioIo::new(stream)).await.map_err(|_| broken())?;
        // The time ends the connection even where nobody reads the answer.
        let driver = tokio::spawn(async move {
            let _ = timeout_at(deadline, driver).await;
        });
        let connection = Connection { task: driver.abort_handle(), _place: place };
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            // The connection only says that something went wrong; the body may know what.
            Err(_) => return Err(fault.get().cloned().unwrap_or_else(broken)),
        };
        self.receive(answer, target, deadline, fault, connection)
    }

    fn receive(
        &self,
        answer: Response<Incoming>,
        target: &Target,
        deadline: Instant,
        fault: Fault,
        connection: Connection,
    ) -> Result<Response<Answered>, Refusal> {
        let (mut head, body) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken());
        }
        let bytes = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        if bytes.sum::<usize>() > self.bounds.header_bytes {
            return Err(too_large(Reason::ResponseTooLarge, "the head of an answer"));
        }
        strip(&mut head.headers);
        if !self.scrubber.is_idle() {
            if self.vault().reaches(target) && !is_identity(&head.headers) {
                let detail = "the server compressed an answer that may hold a secret, though it \
                              was asked not to";
                return Err(Refusal::new(Reason::ResponseEncoded, detail));
            }
            head.headers = self.scrubbed(&head.headers);
        }
        let stream = Stream::new(Arc::clone(&self.scrubber));
        let most = self.bounds.response_bytes;
        let body = Answered::new(body, stream, most, deadline, fault, connection);
        // Not the head itself: its extensions hold the reason phrase as it was received.
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// Without the values of secrets, and without a length that may no longer hold.
    fn scrubbed(&self, headers: &HeaderMap) -> HeaderMap {
        let mut clean = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            if *name == CONTENT_LENGTH || self.scrubber.finds(name.as_str().as_bytes()) {
                continue;
            }
            if let Ok(value) = HeaderValue::from_bytes(&self.scrubber.clean(value.as_bytes())) {
                clean.append(name, value);
            }
        }
        clean
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Egress({} links, {:?})", self.links.len(), self.secrets)
    }
}

/// The one line that a request has in the ledger.
struct Line {
    noted: Noted,
    is_written: bool,
}

impl Line {
    fn new<B>(request: &Request<B>, scrubber: &Scrubber) -> Self {
        let method = check_method(&request.method).map(|method| method.to_string());
        let target = Target::parse(&request.url).ok();
        let (url, query) = target.map(|target| parts(&target, scrubber)).unzip();
        let method = method.unwrap_or_default();
        let noted = Noted { refused: None, method, url, query: query.flatten() };
        Self { noted, is_written: false }
    }

    /// Writes it, or says why the request is not sent. It is not tried again.
    async fn write(&mut self, ledger: &dyn Ledger, refused: Option<Reason>) -> Result<(), Refusal> {
        self.is_written = true;
        let noted = ledger.note(Noted { refused, ..self.noted.clone() }).await;
        noted.map_err(|detail| Refusal::new(Reason::NotLogged, detail))
    }
}

/// A URL up to its query, and the query.
fn parts(target: &Target, scrubber: &Scrubber) -> (String, Option<String>) {
    let whole = target.path_and_query();
    let (path, query) = whole.split_once('?').map_or((whole, None), |(p, q)| (p, Some(q)));
    let url = format!("{}://{}{path}", target.origin().scheme(), target.authority());
    let url = String::from_utf8_lossy(&scrubber.clean(url.as_bytes())).into_owned();
    (url, query.map(ToOwned::to_owned))
}

fn check_method(method: &str) -> Result<Method, Refusal> {
    let shaped = (1..=16).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
    let sent = shaped && !matches!(method, "CONNECT" | "TRACE");
    Method::from_bytes(method.as_bytes()).ok().filter(|_| sent).ok_or_else(|| {
        let detail = "a method is 1 to 16 of `A-Z`, and neither `CONNECT` nor `TRACE`";
        Refusal::new(Reason::MethodRefused, detail)
    })
}

fn ask<B: Body<Data = Bytes>>(
    method: &Method,
    target: &Target,
    headers: HeaderMap,
    body: Sent<B>,
) -> Result<http::Request<Sent<B>>, Refusal> {
    // A path alone, as an origin server is asked; a client of a proxy would send the whole URL.
    let uri: Uri = target
        .path_and_query()
        .parse()
        .map_err(|_| Refusal::new(Reason::UrlRefused, "the path cannot be sent; shorten it"))?;
    let mut request = http::Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Connects to the first address that takes it; each gets its share of the time.
async fn connect(
    target: &Target,
    addresses: &[IpAddr],
    deadline: Instant,
) -> Result<TcpStream, Refusal> {
    for (left, &address) in (1u32..=addresses.len() as u32).rev().zip(addresses) {
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        let place = SocketAddr::new(address, target.port());
        if let Ok(Ok(stream)) = timeout(share, TcpStream::connect(place)).await {
            return Ok(stream);
        }
    }
    let detail = format!("no address of `{}` takes a connection", target.authority());
    Err(Refusal::new(Reason::ConnectFailed, detail))
}

fn is_identity(headers: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().all(plain)
}
