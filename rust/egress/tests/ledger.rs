//! Every request has one line, and what has none is not sent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;

use moat_egress::{Link, Noted, Reason};
use support::{Heard, Server, Setup, VALUE, ask, code, get, github, link, text, value};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn allowed() -> Vec<Link> {
    vec![link(&["GET http://api.test/** 127.0.0.0/8"])]
}

fn heard(fails: bool) -> Arc<Heard> {
    Arc::new(Heard { fails, ..Heard::default() })
}

#[tokio::test]
async fn a_request_is_noted_before_it_goes() {
    let server = Server::says(None, ANSWER);
    let base = format!("http://api.test:{}", server.port);
    let ledger = heard(false);
    let rule = link(&[&format!("GET {base}/** 127.0.0.0/8")]);
    let egress = Setup { ledger: ledger.clone(), ..Setup::new(vec![rule]) }.build();
    let answer = egress.send(get(&format!("{base}/a/b?q=1"))).await.unwrap();
    assert_eq!(text(answer).await.unwrap(), "ok");
    let (url, query) = (Some(format!("{base}/a/b")), Some("q=1".to_owned()));
    let noted = Noted { refused: None, method: "GET".to_owned(), url, query };
    assert_eq!(*ledger.notes.lock().unwrap(), [noted]);
}

#[tokio::test]
async fn a_refusal_is_noted_once_with_its_reason() {
    for (method, url, reason, method_noted, is_read) in [
        ("GET", "http://evil.test/", Reason::HostNotAllowed, "GET", true),
        ("POST", "http://api.test/", Reason::HostNotAllowed, "POST", true),
        ("GET", "http://api.test\\@evil.test/", Reason::UrlRefused, "GET", false),
        ("TRACE", "http://api.test/", Reason::MethodRefused, "", true),
        ("no method", "http://api.test/", Reason::MethodRefused, "", true),
    ] {
        let ledger = heard(false);
        let egress = Setup { ledger: ledger.clone(), ..Setup::new(allowed()) }.build();
        assert_eq!(code(egress.send(ask(method, url, &[])).await), reason.code());
        let notes = ledger.notes.lock().unwrap();
        assert_eq!(notes.len(), 1, "{url}");
        assert_eq!((notes[0].refused, &*notes[0].method), (Some(reason), method_noted));
        assert_eq!(notes[0].url.as_deref(), is_read.then_some(url));
    }
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_sent() {
    let server = Server::says(None, ANSWER);
    let base = format!("http://api.test:{}", server.port);
    let rule = link(&[&format!("GET {base}/** 127.0.0.0/8")]);
    let ledger = heard(true);
    let egress = Setup { ledger: ledger.clone(), ..Setup::new(vec![rule]) }.build();
    let refusal = egress.send(get(&base)).await.unwrap_err();
    assert_eq!((refusal.reason, &*refusal.detail), (Reason::NotLogged, "the disk is full"));
    assert_eq!(server.taken(), 0, "not even a connection");
    assert_eq!(ledger.notes.lock().unwrap().len(), 1, "it is not tried twice");
}

#[tokio::test]
async fn a_value_that_somebody_put_into_a_path_is_not_noted() {
    let ledger = heard(false);
    let Link { hosts, .. } = link(&["GET http://api.test/** 127.0.0.0/8"]);
    let links = vec![Link { hosts, secrets: vec![github("https://api.test")] }];
    let setup = Setup { ledger: ledger.clone(), secrets: vec![value()], ..Setup::new(links) };
    let refused = setup.build().send(get(&format!("http://evil.test/{VALUE}"))).await;
    assert_eq!(code(refused), "host_not_allowed");
    let url = ledger.notes.lock().unwrap()[0].url.clone().unwrap();
    assert_eq!(url, "http://evil.test/secret://github");
}
