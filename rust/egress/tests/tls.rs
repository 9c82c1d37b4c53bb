//! The certificate is for the host that the token names, from an issuer that is trusted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::Read;
use std::net::TcpListener;
use std::thread;

use moat_egress::{Bounds, Link};
use support::{Authority, Names, Server, Setup, ask, code, get, github, link, text, value};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn host_sni_and_certificate_name_the_same() {
    let authority = Authority::new();
    let server = Server::says(Some(authority.serves(&["api.test"], 2100)), OK);
    let base = format!("https://api.test:{}", server.port);
    let rules = format!("GET {base}/** 127.0.0.0/8");
    let setup = Setup::new(vec![link(&[&rules])]);
    let egress = Setup { authority: Some(&authority), ..setup }.build();
    let answer = egress.send(get(&format!("{base}/a"))).await.unwrap();
    assert_eq!(text(answer).await.unwrap(), "hi");
    let seen = &server.seen()[0];
    assert_eq!(seen.sni.as_deref(), Some("api.test"));
    assert_eq!(seen.header("host"), [format!("api.test:{}", server.port)]);
    // A guest that asks for another virtual host on the same connection is not heard.
    for name in ["host", "Host", "HOST", ":authority", "x-forwarded-host"] {
        let refused = egress.send(ask("GET", &base, &[(name, "evil.test")])).await;
        assert_eq!(code(refused), "header_refused", "{name}");
    }
    assert_eq!(server.taken(), 1);
}

#[tokio::test]
async fn an_address_in_a_url_is_what_its_certificate_must_name() {
    let authority = Authority::new();
    let server = Server::says(Some(authority.serves(&["127.0.0.1"], 2100)), OK);
    let rules = "GET https://*/** 127.0.0.0/8";
    let setup = Setup::new(vec![link(&[rules])]);
    let egress = Setup { authority: Some(&authority), ..setup }.build();
    let port = server.port;
    let answer = egress.send(get(&format!("https://127.0.0.1:{port}/"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(server.seen()[0].sni, None);
    let refused = egress.send(get(&format!("https://api.test:{port}/"))).await;
    assert_eq!(code(refused), "certificate_refused");
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_ends_it_before_a_secret_is_sent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let cases = [
        (authority.serves(&["other.test"], 2100), "is for another host"),
        (authority.serves(&["*.api.test"], 2100), "is for another host"),
        (authority.serves(&["127.0.0.1"], 2100), "is for another host"),
        (authority.serves(&["api.test"], 2002), "has expired"),
        (stranger.serves(&["api.test"], 2100), "is from an issuer that is not trusted"),
    ];
    for (config, why) in cases {
        let server = Server::says(Some(config), OK);
        let base = format!("https://api.test:{}", server.port);
        let rules = format!("GET {base}/** 127.0.0.0/8");
        let hosts = link(&[&rules]).hosts;
        let setup = Setup::new(vec![Link { hosts, secrets: vec![github(&base)] }]);
        let secrets = vec![value()];
        let egress = Setup { authority: Some(&authority), secrets, ..setup }.build();
        let request = ask("GET", &base, &[("authorization", "Bearer secret://github")]);
        let refusal = egress.send(request).await.unwrap_err();
        assert_eq!(refusal.reason.code(), "certificate_refused");
        assert!(refusal.detail.ends_with(why), "{}", refusal.detail);
        assert!(server.seen().is_empty(), "nothing was sent");
    }
}

/// The environment is the process's, so this asks a child: itself, with another environment.
#[test]
fn proxies_and_trust_in_the_environment_are_ignored() {
    if std::env::var_os("MOAT_EGRESS_CHILD").is_some() {
        return;
    }
    let proxy = Server::says(None, OK);
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let anchors = std::env::temp_dir().join(format!("moat-egress-{}.pem", std::process::id()));
    std::fs::write(&anchors, "junk").unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.env("MOAT_EGRESS_CHILD", "1").args(["--exact", "--test-threads=1"]);
    child.args(["host_sni_and_certificate_name_the_same"]);
    child.arg("a_certificate_that_does_not_hold_ends_it_before_a_secret_is_sent");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        child.env(name, &url);
    }
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        child.env(name, &anchors);
    }
    let keys = anchors.with_extension("keys");
    child.env("SSLKEYLOGFILE", &keys);
    let output = child.output().unwrap();
    std::fs::remove_file(&anchors).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("2 passed"), "{said}");
    assert_eq!(proxy.taken(), 0);
    assert!(!keys.exists(), "the keys of a connection are written nowhere");
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_ends_with_the_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://api.test:{}", listener.local_addr().unwrap().port());
    let (hello, said) = tokio::sync::oneshot::channel();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        hello.send(()).unwrap();
        // Reads until the client hangs up.
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let rules = format!("GET {base}/** 127.0.0.0/8");
    let egress = Setup::new(vec![link(&[&rules])]).build();
    let asked = tokio::spawn(async move { code(egress.send(get(&base)).await) });
    said.await.unwrap();
    // Nothing is ready any more, so the clock goes on to what is due next: the deadline.
    tokio::time::pause();
    assert_eq!(asked.await.unwrap(), "deadline_passed");
    let _ = server.join().unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_refused() {
    let server = Server::start(None, |_, _| Ok(()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, OK.as_bytes())
    });
    let rules = "GET https://*/** 127.0.0.0/8";
    let egress = Setup::new(vec![link(&[rules])]).build();
    let refused = egress.send(get(&format!("https://api.test:{port}/"))).await;
    assert_eq!(code(refused), "tls_failed");
    drop(server);
}

#[tokio::test]
async fn a_name_that_never_resolves_ends_with_the_time() {
    struct Never;
    impl moat_egress::Resolver for Never {
        fn resolve<'a>(&'a self, _: &'a str) -> moat_egress::Answer<'a> {
            Box::pin(std::future::pending())
        }
    }
    tokio::time::pause();
    let setup = Setup::new(vec![link(&["GET https://*/**"])]);
    let bounds = Bounds { time: std::time::Duration::from_secs(3), ..Bounds::default() };
    let egress = Setup { names: std::sync::Arc::new(Never), bounds, ..setup }.build();
    let before = tokio::time::Instant::now();
    assert_eq!(code(egress.send(get("https://api.test/")).await), "deadline_passed");
    assert_eq!(before.elapsed().as_secs(), 3);
    let _ = Names::new(&[]);
}
