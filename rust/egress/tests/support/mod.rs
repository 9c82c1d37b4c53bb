//! A certificate authority, a server with a handler for each request, and a stub resolver.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use moat_core::caveat::{HostRule, Methods, Range, SecretRule};
use moat_core::pattern::{Pattern, Resource};
use moat_egress::{
    Answer, Answered, Bounds, Egress, Ledger, Link, Noted, Noting, Refusal, Request, Resolver,
    Secret, Trust,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use zeroize::Zeroizing;

/// What `secret://github` stands for.
pub(crate) const VALUE: &str = "ghp_0123456789abcdef";

/// An authority that signs certificates for servers.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A server's configuration with a certificate for `names`, up to the end of year `until`.
    pub(crate) fn serves(&self, names: &[&str], until: i32) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                key.serialize_der().try_into().unwrap(),
            );
        Arc::new(config.unwrap())
    }
}

/// Both ways of a connection.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// What arrived on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sni: Option<String>,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// A server on loopback, in threads of its own: whatever the test's clock does, it goes on.
pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    taken: Arc<Mutex<usize>>,
    closed: Arc<AtomicBool>,
}

impl Server {
    /// Calls `serve` with every request; the connection ends when it returns.
    pub(crate) fn start<F>(tls: Option<Arc<ServerConfig>>, serve: F) -> Self
    where
        F: Fn(&mut dyn Wire, &Seen) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server =
            Self { port, seen: Arc::default(), taken: Arc::default(), closed: Arc::default() };
        let (seen, taken) = (Arc::clone(&server.seen), Arc::clone(&server.taken));
        let (closed, serve) = (Arc::clone(&server.closed), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                *taken.lock().unwrap() += 1;
                let (tls, seen, serve) = (tls.clone(), Arc::clone(&seen), Arc::clone(&serve));
                thread::spawn(move || converse(stream, tls, &seen, &*serve));
            }
        });
        server
    }

    /// Answers everything with these bytes.
    pub(crate) fn says(tls: Option<Arc<ServerConfig>>, answer: &'static str) -> Self {
        Self::start(tls, move |wire, _| wire.write_all(answer.as_bytes()))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub(crate) fn taken(&self) -> usize {
        *self.taken.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn converse(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    seen: &Mutex<Vec<Seen>>,
    serve: &dyn Fn(&mut dyn Wire, &Seen) -> io::Result<()>,
) {
    let talk = |wire: &mut dyn Wire, sni: Option<String>| -> io::Result<()> {
        let mut request = read_request(wire)?;
        request.sni = sni;
        seen.lock().unwrap().push(request.clone());
        serve(wire, &request)?;
        wire.flush()
    };
    let mut stream = stream;
    let Some(config) = tls else {
        let _ = talk(&mut stream, None);
        return;
    };
    let mut connection = ServerConnection::new(config).unwrap();
    if connection.complete_io(&mut stream).is_err() {
        return;
    }
    let sni = connection.server_name().map(ToOwned::to_owned);
    let mut wire = StreamOwned::new(connection, stream);
    let _ = talk(&mut wire, sni);
    wire.conn.send_close_notify();
    let _ = wire.flush();
}

fn read_request(wire: &mut dyn Wire) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        wire.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    seen.head = String::from_utf8(head).unwrap();
    if let Some(length) = seen.header("content-length").first() {
        seen.body = vec![0; length.parse().unwrap()];
        wire.read_exact(&mut seen.body)?;
    }
    if seen.header("transfer-encoding") == ["chunked"] {
        while !seen.body.ends_with(b"0\r\n\r\n") {
            wire.read_exact(&mut byte)?;
            seen.body.push(byte[0]);
        }
    }
    Ok(seen)
}

/// Names whose addresses change from one question to the next; the last answer stays.
#[derive(Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    pub(crate) fn new(answers: &[(&str, &[&str])]) -> Arc<Self> {
        let list = |text: &&str| text.split_whitespace().map(|at| at.parse().unwrap()).collect();
        let entry = |(name, answers): &(&str, &[&str])| {
            ((*name).to_owned(), answers.iter().map(list).collect())
        };
        let answers = Mutex::new(answers.iter().map(entry).collect());
        Arc::new(Self { answers, asked: Mutex::default() })
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Answer<'a> {
        self.asked.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let found = answers.get_mut(name).map(|list| match list.len() {
            1 => list[0].clone(),
            _ => list.pop_front().unwrap_or_default(),
        });
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// `METHOD,METHOD pattern range range`, the ranges being optional.
pub(crate) fn rule(text: &str) -> HostRule {
    let mut words = text.split_whitespace();
    let methods = words.next().unwrap().split(',').map(ToOwned::to_owned);
    let methods = Methods::new(methods).unwrap();
    let pattern = Pattern::parse(words.next().unwrap()).unwrap();
    let ranges = words.map(|word| Range::parse(word).unwrap()).collect();
    HostRule::new(pattern, methods, ranges).unwrap()
}

/// One link with these rules.
pub(crate) fn link(rules: &[&str]) -> Link {
    Link { hosts: rules.iter().map(|text| rule(text)).collect(), ..Link::default() }
}

/// What binds `secret://github` to the header `authorization` of one host.
pub(crate) fn github(host: &str) -> SecretRule {
    let handle = Resource::parse("secret://github").unwrap();
    SecretRule::new(handle, Pattern::parse(host).unwrap(), "authorization".to_owned()).unwrap()
}

/// The value of `secret://github`.
pub(crate) fn value() -> Secret {
    let handle = Resource::parse("secret://github").unwrap();
    Secret::new(handle, Zeroizing::new(VALUE.as_bytes().to_vec())).unwrap()
}

/// An engine whose names all are the loopback address, unless `names` says otherwise.
pub(crate) struct Setup<'a> {
    pub(crate) links: Vec<Link>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) bounds: Bounds,
    pub(crate) names: Arc<dyn Resolver>,
    pub(crate) authority: Option<&'a Authority>,
    pub(crate) ledger: Arc<dyn Ledger>,
}

impl Setup<'_> {
    pub(crate) fn new(links: Vec<Link>) -> Self {
        let (secrets, bounds) = (Vec::new(), Bounds::default());
        let (names, ledger) = (Arc::new(Loopback), Arc::new(Heard::default()));
        Self { links, secrets, bounds, names, authority: None, ledger }
    }

    pub(crate) fn build(self) -> Egress {
        let anchors = self.authority.iter().map(|authority| authority.der.as_slice());
        let trust = Trust::new(anchors).unwrap();
        Egress::new(self.links, self.secrets, self.bounds, self.names, trust, self.ledger)
    }
}

/// A ledger that keeps what it is told, and fails where it is asked to.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) notes: Mutex<Vec<Noted>>,
    pub(crate) fails: bool,
}

impl Ledger for Heard {
    fn note(&self, noted: Noted) -> Noting {
        self.notes.lock().unwrap().push(noted);
        let told = if self.fails { Err("the disk is full".to_owned()) } else { Ok(()) };
        Box::pin(async move { told })
    }
}

struct Loopback;

impl Resolver for Loopback {
    fn resolve<'a>(&'a self, _: &'a str) -> Answer<'a> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

/// A request with an empty body.
pub(crate) fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    Request {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: headers.iter().map(pair).collect(),
        body: Full::default(),
    }
}

pub(crate) fn get(url: &str) -> Request<Full<Bytes>> {
    ask("GET", url, &[])
}

/// The whole body, or what ended it.
pub(crate) async fn text(response: Response<Answered>) -> Result<String, Refusal> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The code of the refusal that it must be.
pub(crate) fn code<T>(result: Result<T, Refusal>) -> &'static str {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(refusal) => refusal.reason.code(),
    }
}
