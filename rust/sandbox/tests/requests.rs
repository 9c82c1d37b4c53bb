//! `wasi:http`: a guest's request goes to whoever the run was given to send it, and to nobody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use moat_sandbox::{
    BODY_BYTES, Bounds, Engine, HEADERS, Input, Interrupt, Module, Outcome, Outgoing, REQUESTS,
    Refusal, Request, Response, Sending, Status, Value,
};
use support::{plenty, text, wat};

// Places in `error-code`.
const DENIED: u8 = 15;
const METHOD: u8 = 18;
const PROHIBITED: u8 = 4;
const TOO_LONG: u8 = 20;
const RESPONSE_HEADERS: u8 = 26;
/// Where the guest was refused the header itself.
const HEADER: u8 = 99;

type Answer = Box<dyn Fn(Request) -> Sending + Send + Sync>;

/// Answers as it is told, and keeps what it was asked.
struct Peer {
    answer: Answer,
    asked: Mutex<Vec<String>>,
}

impl Outgoing for Peer {
    fn send(&self, request: Request) -> Sending {
        let Request { method, scheme, authority, path_and_query, headers, .. } = &request;
        let headers: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let line = format!("{method} {scheme}://{authority}{path_and_query} {}", headers.join(","));
        self.asked.lock().unwrap().push(line.trim().to_owned());
        (self.answer)(request)
    }
}

fn peer(answer: impl Fn(Request) -> Sending + Send + Sync + 'static) -> Arc<Peer> {
    Arc::new(Peer { answer: Box::new(answer), asked: Mutex::default() })
}

fn body(bytes: impl Into<Bytes>) -> moat_sandbox::Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn response(headers: HeaderMap, bytes: &'static str) -> Response {
    Response { status: StatusCode::IM_A_TEAPOT, headers, body: body(bytes) }
}

fn says(bytes: &'static str) -> Arc<Peer> {
    peer(move |_| Box::pin(async move { Ok(response(HeaderMap::new(), bytes)) }))
}

fn refuses(refusal: Refusal) -> Arc<Peer> {
    peer(move |_| {
        let refusal = refusal.clone();
        Box::pin(async move { Err(refusal) })
    })
}

struct Desk {
    engine: Engine,
    module: Module,
}

impl Desk {
    fn new() -> Self {
        let engine = Engine::new().unwrap();
        let module = wat(&engine, "http");
        Self { engine, module }
    }

    fn call(&self, peer: Option<Arc<Peer>>, name: &str, args: &[Value]) -> Outcome {
        self.within(&plenty(), peer, name, args, None)
    }

    fn within(
        &self,
        bounds: &Bounds,
        peer: Option<Arc<Peer>>,
        name: &str,
        args: &[Value],
        stop: Option<&Interrupt>,
    ) -> Outcome {
        let call = self.module.call(name, &Value::List(args.to_vec())).unwrap();
        let outgoing = peer.map(|peer| peer as Arc<dyn Outgoing>);
        let input = Input { outgoing, ..Input::default() };
        self.engine.call(&call, bounds, &input, stop).unwrap()
    }

    fn fetch(&self, peer: Option<Arc<Peer>>, method: u8, authority: &str, path: &str) -> Outcome {
        self.call(peer, "fetch", &[Value::Int(method.into()), text(authority), text(path)])
    }

    fn speak(&self, peer: &Arc<Peer>, name: &str, value: &str) -> Outcome {
        let value = Value::Bytes(value.as_bytes().to_vec());
        self.call(Some(Arc::clone(peer)), "speak", &[text(name), value, text("a.test")])
    }
}

fn failed(code: u8) -> Option<Value> {
    Some(Value::Fields(vec![("err".to_owned(), Value::Int(code.into()))]))
}

/// Whether some code of an error came back.
fn errs(outcome: &Outcome) -> bool {
    let Some(Value::Fields(fields)) = &outcome.result else { return false };
    fields.iter().any(|(name, _)| name == "err")
}

fn came(status: u16, bytes: &str) -> Option<Value> {
    let body = Value::Bytes(bytes.as_bytes().to_vec());
    let pair = Value::Tuple(vec![Value::Int(status.into()), body]);
    Some(Value::Fields(vec![("ok".to_owned(), pair)]))
}

#[test]
fn without_anyone_to_send_it_every_request_is_refused() {
    let desk = Desk::new();
    for (authority, path) in [("a.test", "/"), ("127.0.0.1", "/"), ("[::1]:80", "/x"), ("", "/")] {
        let outcome = desk.fetch(None, 0, authority, path);
        assert_eq!(outcome.status, Status::Ok, "{authority}");
        assert!(errs(&outcome), "{authority}: {outcome:?}");
    }
    assert_eq!(desk.fetch(None, 0, "a.test", "/").result, failed(DENIED));
}

#[test]
fn a_request_arrives_as_it_was_written_and_the_answer_comes_back() {
    let (desk, peer) = (Desk::new(), says("short and stout"));
    let outcome = desk.fetch(Some(peer.clone()), 0, "a.test:8443", "/pot?of=tea");
    assert_eq!(outcome.result, came(418, "short and stout"));
    assert_eq!(*peer.asked.lock().unwrap(), ["GET https://a.test:8443/pot?of=tea"]);
}

#[test]
fn a_refusal_is_a_code_for_the_guest() {
    let desk = Desk::new();
    for (refusal, code) in [(Refusal::Denied, DENIED), (Refusal::Prohibited, PROHIBITED)] {
        assert_eq!(desk.fetch(Some(refuses(refusal)), 0, "a.test", "/").result, failed(code));
    }
}

#[test]
fn tunnels_and_traces_are_not_sent() {
    let (desk, peer) = (Desk::new(), says(""));
    for method in [5, 7] {
        let outcome = desk.fetch(Some(peer.clone()), method, "a.test", "/");
        assert_eq!(outcome.result, failed(METHOD));
    }
    let far = format!("/{}", "a".repeat(9_000));
    assert_eq!(desk.fetch(Some(peer.clone()), 0, "a.test", &far).result, failed(TOO_LONG));
    for authority in ["user@a.test", "user:word@a.test", "a.test\\@b.test", "a.test/b", "a b", ""] {
        let outcome = desk.fetch(Some(peer.clone()), 0, authority, "/");
        assert!(errs(&outcome), "{authority}");
    }
    assert!(peer.asked.lock().unwrap().is_empty());
}

#[test]
fn headers_that_are_not_the_guests_to_set_are_refused() {
    let (desk, peer) = (Desk::new(), says(""));
    for name in [
        "Host",
        "connection",
        "TE",
        "Trailer",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "expect",
        "http2-settings",
        "proxy-authorization",
        "Proxy-Connection",
        "proxy-x",
    ] {
        assert_eq!(desk.speak(&peer, name, "x").result, failed(HEADER), "{name}");
    }
    for value in ["a\r\nhost: b", "a\nb", "a\0b"] {
        assert_eq!(desk.speak(&peer, "x-note", value).result, failed(HEADER), "{value:?}");
    }
    for value in ["5", "0x1", "-1"] {
        let outcome = desk.speak(&peer, "content-length", value);
        assert!(errs(&outcome), "{value}");
    }
    assert!(peer.asked.lock().unwrap().is_empty());
    assert_eq!(desk.speak(&peer, "x-note", "fine").result, came(418, ""));
    assert_eq!(*peer.asked.lock().unwrap(), ["GET https://a.test/ x-note"]);
}

#[test]
fn a_guest_speaks_for_nobody_but_by_the_handle_of_a_secret() {
    let (desk, peer) = (Desk::new(), says(""));
    for name in ["authorization", "Cookie"] {
        for value in [
            "Bearer abc",
            "abc",
            "",
            "Bearer  secret://a",
            "Bearer secret://a b",
            "secret://a x",
            "Bearer x secret://a",
            "xsecret://a",
            "Bea;rer secret://a",
        ] {
            assert_eq!(desk.speak(&peer, name, value).result, failed(DENIED), "{name}: {value}");
        }
        assert!(peer.asked.lock().unwrap().is_empty());
        for value in ["secret://github", "Bearer secret://github"] {
            assert_eq!(desk.speak(&peer, name, value).result, came(418, ""), "{value}");
        }
        peer.asked.lock().unwrap().clear();
    }
}

#[test]
fn headers_are_few_and_short_both_ways() {
    let desk = Desk::new();
    let add = |name: &str, size: usize, count: u32| {
        let value = Value::Bytes(vec![b'a'; size]);
        desk.call(None, "header", &[text(name), value, Value::Int(count.into())])
    };
    assert_eq!(add("x-a", 100, 100).result, Some(Value::Int(255)));
    assert!(matches!(add("x-a", 70_000, 1).status, Status::Trap(_)));
    assert!(matches!(add("x-a", 1_000, 100).status, Status::Trap(_)));
    assert!(matches!(add("x-a", 0, 100_000).status, Status::Trap(_)));
    let answers = |count: usize, size: usize| {
        peer(move |_| {
            let mut headers = HeaderMap::new();
            for at in 0..count {
                let name = HeaderName::try_from(format!("x-{at}")).unwrap();
                headers.insert(name, HeaderValue::try_from("a".repeat(size)).unwrap());
            }
            Box::pin(async move { Ok(response(headers, "")) })
        })
    };
    let fetch = |peer| desk.fetch(Some(peer), 0, "a.test", "/").result;
    assert_eq!(fetch(answers(HEADERS, 8)), came(418, ""));
    assert_eq!(fetch(answers(HEADERS + 1, 8)), failed(RESPONSE_HEADERS));
    assert_eq!(fetch(answers(2, 40_000)), failed(RESPONSE_HEADERS));
}

#[test]
fn bodies_end_where_they_are_too_long() {
    let desk = Desk::new();
    // The peer counts what arrives, and says what ended it.
    let counting = peer(|request| {
        Box::pin(async move {
            let mut body = request.body;
            let mut total = 0_u64;
            let ended = loop {
                match body.frame().await {
                    Some(Ok(frame)) => total += frame.into_data().map_or(0, |d| d.len() as u64),
                    Some(Err(refusal)) => break Err(refusal),
                    None => break Ok(()),
                }
            };
            assert!(total <= BODY_BYTES);
            ended?;
            Ok(response(HeaderMap::new(), if total == 8 * 4096 { "all" } else { "some" }))
        })
    });
    let post = |pieces: u64| {
        let args = [text("a.test"), text("/"), Value::Int(pieces.into())];
        desk.call(Some(counting.clone()), "post", &args).result
    };
    assert_eq!(post(8), came(418, "all"));
    const REQUEST_BODY: u8 = 17;
    assert_eq!(post(BODY_BYTES / 4096 + 1), failed(REQUEST_BODY));
    // A response without end: the guest reads as much as it likes, piece by piece.
    let endless = peer(|_| {
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        Box::pin(async move { Ok(Response { status, headers, body: Endless.boxed_unsync() }) })
    });
    let outcome = desk.fetch(Some(endless), 0, "a.test", "/");
    assert_eq!(outcome.result, came(200, &"\u{7}".repeat(4096)));
}

struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Refusal;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 65_536])))))
    }
}

/// Counts up when it is made and down when it is dropped.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Never answers; counts the requests that wait.
fn silent() -> (Arc<Peer>, Arc<AtomicUsize>) {
    let waiting = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&waiting);
    let peer = peer(move |_| {
        let alive = Alive::new(&counted);
        Box::pin(async move {
            let _alive = alive;
            pending().await
        })
    });
    (peer, waiting)
}

#[test]
fn waiting_for_an_answer_counts_as_time_and_the_request_ends_with_the_run() {
    let (desk, (peer, waiting)) = (Desk::new(), silent());
    let short = Bounds { time: Duration::from_millis(50), ..plenty() };
    let args = [Value::Int(0), text("a.test"), text("/")];
    let began = Instant::now();
    let outcome = desk.within(&short, Some(peer.clone()), "fetch", &args, None);
    assert_eq!(outcome.status, Status::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(peer.asked.lock().unwrap().len(), 1);
    assert_eq!(waiting.load(Ordering::SeqCst), 0, "it goes on after the run");
}

#[test]
fn an_interrupt_drops_the_request() {
    let desk = Desk::new();
    let stop = Interrupt::new();
    let (inner, waiting) = silent();
    let other = stop.clone();
    let peer = peer(move |request| {
        other.interrupt();
        inner.send(request)
    });
    let args = [Value::Int(0), text("a.test"), text("/")];
    let outcome = desk.within(&plenty(), Some(peer), "fetch", &args, Some(&stop));
    assert_eq!(outcome.status, Status::Interrupted);
    assert_eq!(waiting.load(Ordering::SeqCst), 0);
}

#[test]
fn few_requests_are_under_way_at_once_and_none_outlives_its_guest() {
    let (desk, (peer, waiting)) = (Desk::new(), silent());
    let begin = |count: usize| {
        let args = [text("a.test"), Value::Int(i128::try_from(count).unwrap())];
        desk.call(Some(peer.clone()), "begin", &args).result
    };
    assert_eq!(begin(REQUESTS), Some(Value::Int(255)));
    assert_eq!(waiting.load(Ordering::SeqCst), 0);
    assert_eq!(peer.asked.lock().unwrap().len(), REQUESTS);
    // The one too many is not even asked for; its future says so.
    assert_eq!(begin(REQUESTS + 4), Some(Value::Int(255)));
    assert_eq!(peer.asked.lock().unwrap().len(), 2 * REQUESTS);
    assert_eq!(waiting.load(Ordering::SeqCst), 0);
}
