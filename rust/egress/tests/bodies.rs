//! Bytes, time and framing, both ways.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use moat_egress::{Bounds, Egress, Request};
use support::{Server, Setup, ask, code, get, link, text};

fn plain(server: &Server, bounds: Bounds) -> (Egress, String) {
    let base = format!("http://api.test:{}", server.port);
    let rules = format!("* {base}/** 127.0.0.0/8");
    let setup = Setup::new(vec![link(&[&rules])]);
    (Setup { bounds, ..setup }.build(), base)
}

fn small() -> Bounds {
    Bounds { request_bytes: 100, response_bytes: 1000, ..Bounds::default() }
}

fn post(url: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Full<Bytes>> {
    Request { body: Full::from(body), ..ask("POST", url, headers) }
}

/// A body whose length is not known before.
struct Pieces(std::vec::IntoIter<Result<Frame<Bytes>, &'static str>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.0.next())
    }
}

fn pieces(
    url: &str,
    headers: &[(&str, &str)],
    pieces: Vec<Result<Frame<Bytes>, &'static str>>,
) -> Request<Pieces> {
    let Request { method, url, headers, .. } = ask("POST", url, headers);
    Request { method, url, headers, body: Pieces(pieces.into_iter()) }
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_body_arrives_whole_and_framed_by_us() {
    let server = Server::says(None, OK);
    let (egress, url) = plain(&server, small());
    egress.send(post(&url, &[], "hello")).await.unwrap();
    egress.send(post(&url, &[("Content-Length", "5")], "hello")).await.unwrap();
    egress.send(pieces(&url, &[], vec![data("he"), data("llo")])).await.unwrap();
    let counted = [("content-length", "5")];
    egress.send(pieces(&url, &counted, vec![data("he"), data("llo")])).await.unwrap();
    egress.send(get(&url)).await.unwrap();
    let seen = server.seen();
    for at in [0, 1, 3] {
        assert_eq!(seen[at].body, b"hello");
        assert_eq!(seen[at].header("content-length"), ["5"]);
        assert!(seen[at].header("transfer-encoding").is_empty());
    }
    assert_eq!(seen[2].body, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    assert!(seen[2].header("content-length").is_empty());
    assert!(seen[4].header("content-length").is_empty());
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_refused() {
    let server = Server::start(None, |_, _| Ok(()));
    let (egress, url) = plain(&server, small());
    for length in ["4", "6", "0"] {
        let refused = egress.send(post(&url, &[("content-length", length)], "hello")).await;
        assert_eq!(code(refused), "body_length");
        let refused = egress
            .send(pieces(&url, &[("content-length", length)], vec![data("he"), data("llo")]))
            .await;
        if length != "0" {
            assert_eq!(code(refused), "body_length");
        }
    }
    assert!(server.seen().iter().all(|seen| seen.body.len() <= 5));
}

#[tokio::test]
async fn a_request_has_at_most_so_many_bytes_and_no_trailers() {
    let server = Server::start(None, |_, _| Ok(()));
    let (egress, url) = plain(&server, small());
    let long = "x".repeat(60).leak();
    assert_eq!(
        code(egress.send(post(&url, &[], "x".repeat(101).leak())).await),
        "request_too_large"
    );
    let refused = egress.send(post(&url, &[("content-length", "101")], "hello")).await;
    assert_eq!(code(refused), "body_length");
    let refused = egress.send(pieces(&url, &[("content-length", "101")], vec![])).await;
    assert_eq!(code(refused), "request_too_large");
    let refused = egress.send(pieces(&url, &[], vec![data(long), data(long)])).await;
    assert_eq!(code(refused), "request_too_large");
    let trailers = Ok(Frame::trailers(
        [("host", "evil.test")]
            .iter()
            .map(|(name, value)| {
                (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
            })
            .collect(),
    ));
    let refused = egress.send(pieces(&url, &[], vec![data("a"), trailers])).await;
    assert_eq!(code(refused), "header_refused");
    let refusal =
        egress.send(pieces(&url, &[], vec![data("a"), Err("a secret")])).await.unwrap_err();
    assert_eq!(refusal.reason.code(), "body_failed");
    assert!(!refusal.detail.contains("secret"), "{}", refusal.detail);
}

#[tokio::test]
async fn framing_that_a_guest_sets_is_refused() {
    let server = Server::says(None, OK);
    let (egress, url) = plain(&server, small());
    let cases: [&[(&str, &str)]; 7] = [
        &[("transfer-encoding", "chunked")],
        &[("Transfer-Encoding", "identity"), ("content-length", "5")],
        &[("content-length", "5"), ("content-length", "5")],
        &[("content-length", "5"), ("Content-Length", "6")],
        &[("content-length", "5, 5")],
        &[("x-a", "1\r\ntransfer-encoding: chunked")],
        &[("x-a: 1\r\nhost", "evil.test")],
    ];
    for headers in cases {
        assert_eq!(code(egress.send(post(&url, headers, "hello")).await), "header_refused");
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn an_endless_body_ends_at_its_bound() {
    for head in ["", "content-length: 99999999\r\n", "transfer-encoding: chunked\r\n"] {
        let server = Server::start(None, move |wire, _| {
            write!(wire, "HTTP/1.1 200 OK\r\n{head}\r\n")?;
            loop {
                wire.write_all(b"10\r\n0123456789abcdef\r\n")?;
            }
        });
        let (egress, url) = plain(&server, small());
        let mut body = egress.send(get(&url)).await.unwrap().into_body();
        let mut bytes = 0;
        let refusal = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => bytes += frame.into_data().unwrap().len(),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.reason.code(), "response_too_large");
        assert!(bytes <= 1000, "{bytes}");
        assert!(body.frame().await.is_none(), "an error is the end");
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let floods: [fn(&mut dyn support::Wire) -> std::io::Result<()>; 4] = [
        |wire| loop {
            wire.write_all(b"x-a: 1\r\n")?;
        },
        |wire| loop {
            wire.write_all(b"x-a")?;
        },
        |wire| write!(wire, "x-a: {}\r\n\r\n", "a".repeat(15_000)).and(write!(wire, "hi")),
        |wire| loop {
            wire.write_all(b"a: 1\r\n\r\nHTTP/1.1 100 Continue\r\n")?;
        },
    ];
    for (at, flood) in floods.into_iter().enumerate() {
        let server = Server::start(None, move |wire, _| {
            write!(wire, "HTTP/1.1 {} A\r\n", if at == 3 { 100 } else { 200 })?;
            flood(wire)
        });
        // No number of interim answers is too many, so there the time decides.
        let time = if at == 3 { Duration::from_millis(100) } else { small().time };
        let bounds = Bounds { header_bytes: 10_000, time, ..small() };
        let (egress, url) = plain(&server, bounds);
        let found = code(egress.send(get(&url)).await);
        let want = if at == 3 { "deadline_passed" } else { "response_broken" };
        assert!(found == want || found == "response_too_large", "{at}: {found}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_ends_with_the_time() {
    let (next, due) = mpsc::channel::<()>();
    let due = Mutex::new(due);
    let server = Server::start(None, move |wire, _| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        while due.lock().unwrap().recv().is_ok() {
            wire.write_all(b"x")?;
        }
        Ok(())
    });
    let bounds = Bounds { time: Duration::from_secs(1000), ..small() };
    let (egress, url) = plain(&server, bounds);
    let mut body = egress.send(get(&url)).await.unwrap().into_body();
    for _ in 0..9 {
        next.send(()).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(100)).await;
        tokio::time::resume();
    }
    // Every byte came when it was asked for, and still there is an end.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(200)).await;
    next.send(()).unwrap();
    let refusal = body.frame().await.unwrap().unwrap_err();
    assert_eq!(refusal.reason.code(), "deadline_passed");
}

#[tokio::test]
async fn a_silent_server_ends_with_the_time_and_its_connection_too() {
    let (reached, arrived) = tokio::sync::mpsc::unbounded_channel();
    let (gone, left) = mpsc::channel();
    let server = Server::start(None, move |wire, _| {
        reached.send(()).unwrap();
        // Nothing comes; the client hangs up.
        let end = wire.read(&mut [0]);
        gone.send(matches!(end, Ok(0) | Err(_))).unwrap();
        Ok(())
    });
    let (egress, url) = plain(&server, small());
    let mut arrived = arrived;
    let asked = tokio::spawn(async move { code(egress.send(get(&url)).await) });
    arrived.recv().await.unwrap();
    tokio::time::pause();
    assert_eq!(asked.await.unwrap(), "deadline_passed");
    assert!(left.recv_timeout(Duration::from_secs(20)).unwrap());
}

#[tokio::test]
async fn a_body_that_nobody_reads_holds_its_connection_no_longer_than_its_time() {
    let (gone, left) = mpsc::channel();
    let server = Server::start(None, move |wire, _| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\nx")?;
        let end = wire.read(&mut [0]);
        gone.send(matches!(end, Ok(0) | Err(_))).unwrap();
        Ok(())
    });
    let (egress, url) = plain(&server, small());
    let kept = egress.send(get(&url)).await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(left.recv_timeout(Duration::from_secs(20)).unwrap());
    assert!(text(kept).await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_cut_or_not_http_is_an_error_and_not_a_short_body() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi";
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhi";
    for answer in [cut, chunk] {
        let server = Server::says(None, answer);
        let (egress, url) = plain(&server, small());
        let answer = egress.send(get(&url)).await.unwrap();
        assert_eq!(code(text(answer).await), "response_broken");
    }
    for answer in [
        "",
        "junk",
        "HTTP/0.9 200 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ] {
        let server = Server::says(None, answer);
        let (egress, url) = plain(&server, small());
        assert_eq!(code(egress.send(get(&url)).await), "response_broken", "{answer:?}");
    }
}

#[tokio::test]
async fn only_so_many_requests_are_open_and_each_keeps_to_itself() {
    let open = Arc::new(Mutex::new((0, 0)));
    let counter = Arc::clone(&open);
    let server = Server::start(None, move |wire, seen| {
        {
            let mut open = counter.lock().unwrap();
            open.0 += 1;
            open.1 = open.1.max(open.0);
        }
        let path = seen.head.split(' ').nth(1).unwrap().to_owned();
        counter.lock().unwrap().0 -= 1;
        write!(wire, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())
    });
    let bounds = Bounds { connections: 3, ..small() };
    let (egress, url) = plain(&server, bounds);
    let egress = Arc::new(egress);
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let (egress, url) = (Arc::clone(&egress), format!("{url}/{n}"));
            tokio::spawn(async move { text(egress.send(get(&url)).await.unwrap()).await.unwrap() })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), format!("/{n}"));
    }
    assert_eq!(server.taken(), 50);
    assert!(open.lock().unwrap().1 <= 3, "{:?}", open.lock().unwrap());
}
