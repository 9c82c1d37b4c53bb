//! Which hosts are reached, at which addresses, and that nothing changes in between.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;

use moat_egress::{System, Trust};
use support::{Authority, Names, Server, Setup, ask, code, get, link, text};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_rule_reaches_its_host_and_nothing_else() {
    let server = Server::says(None, OK);
    let port = server.port;
    let base = format!("http://api.test:{port}");
    let only = format!("GET,HEAD {base}/a/** 127.0.0.0/8");
    let egress = Setup::new(vec![link(&[&only])]).build();
    let answer = egress.send(get(&format!("{base}/a/b?c=d"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await.unwrap(), "hi");
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("host"), [format!("api.test:{port}")]);

    // `/a/b/` may be a folder, and a rule for `/a/b` is none for all that is in it.
    let exact = Setup::new(vec![link(&[&format!("GET {base}/a/b 127.0.0.0/8")])]).build();
    let folder = exact.send(get(&format!("{base}/a/b/"))).await;
    assert_eq!(code(folder), "host_not_allowed");

    for url in [
        format!("{base}/"),
        format!("{base}/b"),
        format!("{base}/ab"),
        format!("https://api.test:{port}/a/b"),
        format!("http://api.test:{}/a/b", port ^ 1),
        "http://api.test/a/b".to_owned(),
        format!("http://a.api.test:{port}/a/b"),
        format!("http://127.0.0.1:{port}/a/b"),
        format!("http://localhost:{port}/a/b"),
    ] {
        assert_eq!(code(egress.send(get(&url)).await), "host_not_allowed", "{url}");
    }
    for (method, want) in [
        ("POST", "host_not_allowed"),
        ("CONNECT", "method_refused"),
        ("TRACE", "method_refused"),
        ("get", "method_refused"),
        ("", "method_refused"),
        ("GET /a HTTP/1.1\r\nx:", "method_refused"),
    ] {
        let request = ask(method, &format!("{base}/a/b"), &[]);
        assert_eq!(code(egress.send(request).await), want, "{method}");
    }
    assert_eq!(server.taken(), 1);
}

#[tokio::test]
async fn nothing_written_allows_nothing() {
    for links in [vec![], vec![link(&[])], vec![link(&["* https://*/**"]), link(&[])]] {
        let egress = Setup::new(links).build();
        assert_eq!(code(egress.send(get("https://api.test/")).await), "host_not_allowed");
    }
}

#[tokio::test]
async fn every_link_must_have_a_rule_for_the_request_and_for_its_addresses() {
    let server = Server::says(None, OK);
    let base = format!("http://api.test:{}", server.port);
    let any = link(&["* http://*/** 127.0.0.0/8"]);
    let cases = [
        (format!("GET {base}/** 127.0.0.1/32"), None),
        ("* http://*/** ::1/128 127.0.0.1/32".to_owned(), None),
        ("POST http://*/** 127.0.0.0/8".to_owned(), Some("host_not_allowed")),
        (format!("GET {base}/other 127.0.0.0/8"), Some("host_not_allowed")),
        (format!("GET {base}/**"), Some("address_refused")),
        (format!("GET {base}/** 10.0.0.0/8 127.0.0.2/32"), Some("address_refused")),
    ];
    for (other, refused) in cases {
        for links in [vec![any.clone(), link(&[&other])], vec![link(&[&other]), any.clone()]] {
            let answer = Setup::new(links).build().send(get(&format!("{base}/a"))).await;
            match refused {
                None => assert_eq!(answer.unwrap().status(), 200, "{other}"),
                Some(want) => assert_eq!(code(answer), want, "{other}"),
            }
        }
    }
}

#[tokio::test]
async fn a_name_is_no_way_to_an_address_that_is_not_global() {
    let forbidden = "127.0.0.1 127.8.9.10 10.0.0.1 172.16.0.1 192.168.0.1 169.254.169.254 \
        100.64.0.1 0.0.0.0 192.0.0.1 198.18.0.1 224.0.0.1 255.255.255.255 240.0.0.1 :: ::1 \
        ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::7f00:1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1::1 \
        2001::1 fe80::1 fc00::1 fd00:ec2::254 ff02::1 2001:db8::1";
    for address in forbidden.split_whitespace() {
        let names = Names::new(&[("api.test", &[address])]);
        let egress = Setup { names: names.clone(), ..Setup::new(vec![link(&["* https://*/**"])]) };
        let refused = egress.build().send(get("https://api.test/")).await;
        assert_eq!(code(refused), "address_refused", "{address}");
        assert_eq!(names.asked(), ["api.test"]);
    }
}

#[tokio::test]
async fn an_address_in_a_url_passes_the_same_test_and_asks_nobody() {
    let names = Names::new(&[]);
    let server = Server::says(None, OK);
    let port = server.port;
    let setup = Setup::new(vec![link(&["* http://*/**", "* https://*/**"])]);
    let egress = Setup { names: names.clone(), ..setup }.build();
    let hosts = "127.0.0.1 10.0.0.1 169.254.169.254 0.0.0.0 100.100.100.200 [::] [::1] \
        [64:ff9b::7f00:1] [2002:7f00:1::1] [fe80::1] [fd00:ec2::254] [ff02::1]";
    for host in hosts.split_whitespace() {
        let refused = egress.send(get(&format!("http://{host}:{port}/"))).await;
        assert_eq!(code(refused), "address_refused", "{host}");
    }
    assert!(names.asked().is_empty());
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn no_range_makes_up_for_an_address_of_no_single_host() {
    for address in "0.0.0.0 0.1.2.3 224.0.0.1 255.255.255.255 :: ff02::1 ::127.0.0.1".split(' ') {
        let names = Names::new(&[("api.test", &[address])]);
        let setup = Setup::new(vec![link(&["* https://*/** 0.0.0.0/0 ::/0"])]);
        let egress = Setup { names, ..setup }.build();
        let refused = egress.send(get("https://api.test/")).await;
        assert_eq!(code(refused), "address_refused", "{address}");
    }
}

#[tokio::test]
async fn mixed_answers_are_refused_as_a_whole() {
    let server = Server::says(None, OK);
    let port = server.port;
    for answers in ["8.8.8.8 127.0.0.1", "127.0.0.1 8.8.8.8", "2606:4700::1111 ::1 1.1.1.1"] {
        // With a range: the global one is refused. Without: the other. With both: either alone.
        for rules in [
            vec!["* http://api.test/** 127.0.0.0/8 ::1/128"],
            vec!["* http://api.test/**"],
            vec!["* http://api.test/** 127.0.0.0/8 ::1/128", "* http://*/**"],
        ] {
            let rules: Vec<String> = rules
                .iter()
                .map(|rule| rule.replace("api.test", &format!("api.test:{port}")))
                .collect();
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let names = Names::new(&[("api.test", &[answers])]);
            let egress = Setup { names, ..Setup::new(vec![link(&rules)]) }.build();
            let refused = egress.send(get(&format!("http://api.test:{port}/"))).await;
            assert_eq!(code(refused), "address_refused", "{answers} {rules:?}");
        }
    }
    assert_eq!(server.taken(), 0);
}

/// The name points to a place where nobody listens when it is checked, and to the server ever
/// after.
#[tokio::test]
async fn a_name_that_changes_its_address_after_the_check_is_connected_to_where_it_was() {
    let server = Server::says(None, OK);
    let base = format!("http://api.test:{}", server.port);
    let names = Names::new(&[("api.test", &["127.0.0.2", "127.0.0.1"])]);
    let rules = format!("GET {base}/** 127.0.0.2/32");
    let setup = Setup::new(vec![link(&[&rules])]);
    let egress = Setup { names: names.clone(), ..setup }.build();
    assert_eq!(code(egress.send(get(&base)).await), "connect_failed");
    assert_eq!((names.asked().len(), server.taken()), (1, 0));
    // The next request asks again, and what it is told is checked again.
    assert_eq!(code(egress.send(get(&base)).await), "address_refused");
    assert_eq!((names.asked().len(), server.taken()), (2, 0));
}

#[tokio::test]
async fn a_range_relaxes_its_own_rule_alone() {
    let server = Server::says(None, OK);
    let port = server.port;
    let inside = format!("GET http://inside.test:{port}/** 127.0.0.0/8");
    let outside = format!("* http://outside.test:{port}/**");
    let egress = Setup::new(vec![link(&[&inside, &outside])]).build();
    let answer = egress.send(get(&format!("http://inside.test:{port}/"))).await;
    assert_eq!(answer.unwrap().status(), 200);
    let refused = egress.send(get(&format!("http://outside.test:{port}/"))).await;
    assert_eq!(code(refused), "address_refused");
    assert_eq!(server.taken(), 1);
}

#[tokio::test]
async fn a_name_without_addresses_or_with_too_many_is_refused() {
    let many = "8.8.8.8 ".repeat(65);
    let names = Names::new(&[("none.test", &[""]), ("many.test", &[many.as_str()])]);
    let egress = Setup { names, ..Setup::new(vec![link(&["* https://*/**"])]) }.build();
    for name in ["none", "many", "unknown"] {
        let refused = egress.send(get(&format!("https://{name}.test/"))).await;
        assert_eq!(code(refused), "name_unresolved", "{name}");
    }
}

#[tokio::test]
async fn the_systems_resolver_knows_localhost_and_the_address_test_refuses_it() {
    let server = Server::says(None, OK);
    let base = format!("http://localhost:{}", server.port);
    let closed = Setup { names: Arc::new(System), ..Setup::new(vec![link(&["* http://*/**"])]) };
    assert_eq!(code(closed.build().send(get(&base)).await), "address_refused");
    let rule = format!("GET {base}/** 127.0.0.0/8 ::1/128");
    let open = Setup { names: Arc::new(System), ..Setup::new(vec![link(&[&rule])]) };
    assert_eq!(open.build().send(get(&base)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_second_address_is_tried_where_the_first_takes_no_connection() {
    let server = Server::says(None, OK);
    let base = format!("http://api.test:{}", server.port);
    let names = Names::new(&[("api.test", &["127.0.0.2 127.0.0.1"])]);
    let rules = format!("GET {base}/** 127.0.0.0/8");
    let egress = Setup { names, ..Setup::new(vec![link(&[&rules])]) }.build();
    assert_eq!(egress.send(get(&base)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_redirect_is_returned_and_leads_nowhere_by_itself() {
    let inner = Server::says(None, OK);
    let port = inner.port;
    let server = Server::start(None, move |wire, _| {
        write!(wire, "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/\r\n\r\n")
    });
    let base = format!("http://api.test:{}", server.port);
    let rules = format!("GET {base}/** 127.0.0.0/8");
    let egress = Setup::new(vec![link(&[&rules])]).build();
    let answer = egress.send(get(&base)).await.unwrap();
    assert_eq!(answer.status(), 302);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("http://127.0.0.1:{port}/"));
    assert_eq!(code(egress.send(get(&location)).await), "host_not_allowed");
    assert_eq!((server.taken(), inner.taken()), (1, 0));
}

#[tokio::test]
async fn an_anchor_that_is_no_certificate_is_refused() {
    assert_eq!(code(Trust::new([b"junk".as_slice()])), "anchor_malformed");
    let authority = Authority::new();
    assert!(Trust::new([authority.der.as_slice()]).is_ok());
}
