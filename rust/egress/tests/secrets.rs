//! A value goes to the one place it is bound to, and does not come back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use moat_egress::{Egress, Link};
use support::{Authority, Server, Setup, VALUE, ask, code, get, github, link, text, value};

/// An engine that may ask anything of anyone, and knows a secret for this server.
fn knowing(authority: &Authority, server: &Server) -> (Egress, String) {
    let base = format!("https://api.test:{}", server.port);
    let hosts = link(&["* https://*/** 127.0.0.0/8", "* http://*/** 127.0.0.0/8"]).hosts;
    let setup = Setup::new(vec![Link { hosts, secrets: vec![github(&base)] }]);
    (Setup { authority: Some(authority), secrets: vec![value()], ..setup }.build(), base)
}

const ASK: &[(&str, &str)] = &[("authorization", "Bearer secret://github")];

#[tokio::test]
async fn a_value_that_is_echoed_in_pieces_comes_back_as_its_handle() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.serves(&["api.test"], 2100)), |wire, seen| {
        let echo = seen.header("authorization")[0].to_owned();
        let value = echo.strip_prefix("Bearer ").unwrap();
        write!(wire, "HTTP/1.1 200 {echo}\r\nx-echo: <{echo}>{echo}\r\nx-{value}: 1\r\n")?;
        write!(wire, "location: /?token={value}\r\nset-cookie: token={value}\r\n")?;
        write!(wire, "transfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n")?;
        for byte in format!("you said {echo}, {echo}{value}").bytes() {
            write!(wire, "1;x={value}\r\n{}\r\n", char::from(byte))?;
            wire.flush()?;
        }
        write!(wire, "0\r\nx-late: {echo}\r\n\r\n")
    });
    let (egress, url) = knowing(&authority, &server);
    let answer = egress.send(ask("GET", &url, ASK)).await.unwrap();
    assert_eq!(server.seen()[0].header("authorization"), [format!("Bearer {VALUE}")]);
    let said = "Bearer secret://github";
    assert_eq!(answer.headers()["x-echo"], format!("<{said}>{said}"));
    assert_eq!(answer.headers()["location"], "/?token=secret://github");
    let head = format!("{answer:?}");
    assert!(!head.contains(VALUE) && !head.contains("set-cookie"), "{head}");
    assert_eq!(text(answer).await.unwrap(), format!("you said {said}, {said}secret://github"));
}

/// A server that keeps what it was told can say it later, when no secret is sent.
#[tokio::test]
async fn a_value_that_comes_back_later_or_from_another_host_is_replaced_too() {
    let authority = Authority::new();
    let config = authority.serves(&["api.test", "other.test"], 2100);
    let server = Server::start(Some(config), |wire, _| {
        let answer = format!("kept: {VALUE}");
        write!(wire, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())
    });
    let (egress, url) = knowing(&authority, &server);
    for url in [&url, &url.replace("api.test", "other.test")] {
        let answer = egress.send(get(url)).await.unwrap();
        assert!(!answer.headers().contains_key("content-length"), "it would not hold");
        assert_eq!(text(answer).await.unwrap(), "kept: secret://github");
    }
}

#[tokio::test]
async fn a_start_of_a_value_that_ends_the_body_is_passed_on() {
    let authority = Authority::new();
    let server = Server::says(
        Some(authority.serves(&["api.test"], 2100)),
        "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nghp_0123",
    );
    let (egress, url) = knowing(&authority, &server);
    let answer = egress.send(get(&url)).await.unwrap();
    assert_eq!(text(answer).await.unwrap(), "ghp_0123");
}

#[tokio::test]
async fn an_answer_in_an_encoding_is_refused_where_a_secret_goes() {
    let authority = Authority::new();
    let config = authority.serves(&["api.test", "other.test"], 2100);
    let server = Server::says(
        Some(config),
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
    );
    let (egress, url) = knowing(&authority, &server);
    let gzip = &[("accept-encoding", "gzip")];
    assert_eq!(code(egress.send(ask("GET", &url, gzip)).await), "response_encoded");
    assert_eq!(server.seen()[0].header("accept-encoding"), ["identity"]);
    // A host that no secret goes to may encode as it likes.
    let other = url.replace("api.test", "other.test");
    assert_eq!(egress.send(ask("GET", &other, gzip)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_placeholder_reaches_no_other_host_header_or_url() {
    let authority = Authority::new();
    let config = authority.serves(&["api.test", "evil.test"], 2100);
    let server = Server::says(Some(config), "HTTP/1.1 200 OK\r\n\r\n");
    let clear = Server::says(None, "HTTP/1.1 200 OK\r\n\r\n");
    let (egress, url) = knowing(&authority, &server);
    let elsewhere = [
        url.replace("api.test", "evil.test"),
        url.replace("api.test", "a.api.test"),
        format!("http://api.test:{}", clear.port),
        format!("https://api.test:{}", clear.port),
    ];
    for url in elsewhere {
        assert_eq!(code(egress.send(ask("GET", &url, ASK)).await), "secret_not_bound", "{url}");
    }
    for name in ["x-api-key", "cookie", "user-agent", "referer", "x-a"] {
        let request = ask("GET", &url, &[(name, "secret://github")]);
        assert_eq!(code(egress.send(request).await), "secret_not_bound", "{name}");
    }
    for url in [
        format!("{url}/?token=secret://github"),
        format!("{url}/?token=secret%3A%2F%2Fgithub"),
        format!("{url}/?token=SECRET%3a//github"),
        format!("{url}/secret:/a?b=secret%3a"),
    ] {
        assert_eq!(code(egress.send(ask("GET", &url, ASK)).await), "secret_not_bound", "{url}");
    }
    for name in ["authorization", "Authorization", "cookie", "proxy-authorization"] {
        let request = ask("GET", &url, &[(name, "Bearer of-the-guest")]);
        assert_eq!(code(egress.send(request).await), "header_refused", "{name}");
    }
    assert_eq!((server.taken(), clear.taken()), (0, 0));
}

#[tokio::test]
async fn no_refusal_holds_a_value() {
    let authority = Authority::new();
    let server =
        Server::says(Some(authority.serves(&["api.test"], 2100)), "HTTP/1.1 200 OK\r\n\r\n");
    let (egress, base) = knowing(&authority, &server);
    let url = format!("{base}/{VALUE}/..");
    let header = format!("x-{VALUE}\n");
    for request in [
        get(&url),
        get(&format!("ftp://a.test/{VALUE}")),
        ask("GET", &base, &[(&header, "1")]),
        ask("GET", &base, &[("authorization", VALUE)]),
        ask("GET", &base, &[("x-a", &format!("{VALUE}\n"))]),
    ] {
        let refusal = egress.send(request).await.unwrap_err();
        assert!(!format!("{refusal} {refusal:?}").contains(VALUE), "{refusal}");
    }
    let refusal = egress.send(get(&url)).await.unwrap_err();
    assert!(refusal.detail.contains("secret://github"), "{refusal}");
}
