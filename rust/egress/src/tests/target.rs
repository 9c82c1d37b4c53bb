#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::path::Path;

use moat_core::pattern::Pattern;
use serde_json::Value;

use super::{Host, Target, URL_BYTES};
use crate::refusal::Reason;

fn target(url: &str) -> Target {
    Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn refused(url: &str) {
    match Target::parse(url) {
        Ok(target) => panic!("{url:?} was read as {target:?}"),
        Err(refusal) => assert_eq!(refusal.reason, Reason::UrlRefused, "{url:?}"),
    }
}

#[test]
fn a_url_is_taken_apart() {
    let cases = [
        ("https://api.test", "https://api.test", "api.test", 443, "/"),
        ("https://api.test/", "https://api.test", "api.test", 443, "/"),
        (
            "http://api.test:8080/a/b?c=/d",
            "http://api.test:8080/a/b",
            "api.test:8080",
            8080,
            "/a/b?c=/d",
        ),
        ("https://api.test/a/?", "https://api.test/a", "api.test", 443, "/a/?"),
        (
            "https://[2606:4700::1111]:8443/a",
            "https://[2606:4700::1111]:8443/a",
            "[2606:4700::1111]:8443",
            8443,
            "/a",
        ),
        (
            "https://api.test/caf%C3%A9/%20",
            "https://api.test/café/%20",
            "api.test",
            443,
            "/caf%C3%A9/%20",
        ),
    ];
    for (url, resource, authority, port, path) in cases {
        let target = target(url);
        assert_eq!(target.resource().as_str(), resource);
        assert_eq!(target.authority(), authority);
        assert_eq!(target.port(), port);
        assert_eq!(target.path_and_query(), path);
        assert_eq!(target.is_tls(), url.starts_with("https"));
        assert!(resource.starts_with(target.origin().as_str()));
    }
    assert_eq!(*target("https://1.2.3.4/").host(), Host::Address([1, 2, 3, 4].into()));
    assert_eq!(*target("https://a.test/").host(), Host::Name("a.test".into()));
}

#[test]
fn what_parsers_disagree_on_is_refused() {
    let urls = [
        // Where the host ends.
        "http://allowed.test\\@evil.test/",
        "http://allowed.test\\.evil.test/",
        "http:\\\\evil.test/",
        "http:/\\evil.test/",
        "http:///evil.test/",
        "http:evil.test/",
        "http://allowed.test@evil.test/",
        "http://evil.test:80@allowed.test/",
        "http://allowed.test:@evil.test/",
        "http://@evil.test/",
        "http://a:b@evil.test/",
        "http://allowed.test#@evil.test/",
        "http://allowed.test?@evil.test/",
        "http://allowed.test?.evil.test/",
        "http://allowed.test;evil.test/",
        "http://allowed.test,evil.test/",
        "http://allowed.test&evil.test/",
        "http://allowed.test%2Fevil.test/",
        "http://allowed.test%00.evil.test/",
        "http://allowed.test%23@evil.test/",
        "//evil.test/",
        "/evil",
        "evil.test/",
        "",
        // White space and controls.
        " https://api.test/",
        "https://api.test/ ",
        "https://api.test/a b",
        "ht\ttps://api.test/",
        "https://api\t.test/",
        "https://api.test\r\n/",
        "https://api.test/\r\nHost: evil",
        "https://api.test/\0",
        "https://api.test/\x7f",
        "\u{FEFF}https://api.test/",
        // Scheme and port.
        "HTTPS://api.test/",
        "Https://api.test/",
        "ftp://api.test/",
        "ws://api.test/",
        "file:///etc/passwd",
        "data:,a",
        "javascript:alert(1)",
        "blob:https://api.test/a",
        "https://api.test:443/",
        "http://api.test:80/",
        "https://api.test:/",
        "https://api.test:0/",
        "https://api.test:065/",
        "https://api.test:65536/",
        "https://api.test:4 43/",
        "https://api.test:-1/",
        "https://api.test:+8443/",
        "https://api.test:8443:443/",
        // Names.
        "https://API.test/",
        "https://api.test./",
        "https://.api.test/",
        "https://api..test/",
        "https://-api.test/",
        "https://api_.test/",
        "https://*.test/",
        "https://*/",
        "https://ap%69.test/",
        "https://аpi.test/",
        "https://api。test/",
        "https://ⓐpi.test/",
        "https://faß.test/",
        "https://xn--a/",
        "https://xn--api.test/",
        "https://XN--pple-43d.test/",
        "https://ａpi.test/",
        "https://api\u{200D}.test/",
        "https://api\u{AD}.test/",
        // Paths.
        "https://api.test/.",
        "https://api.test/..",
        "https://api.test/a/../b",
        "https://api.test/a/./b",
        "https://api.test//a",
        "https://api.test/a//b",
        "https://api.test/a//",
        "https://api.test/%2e%2e/b",
        "https://api.test/%2E%2E/b",
        "https://api.test/.%2E/b",
        "https://api.test/%2e/b",
        "https://api.test/a%2Fb",
        "https://api.test/a%2fb",
        "https://api.test/a%5Cb",
        "https://api.test/a\\b",
        "https://api.test/%252e%252e/b",
        "https://api.test/a%00",
        "https://api.test/%0d%0aa",
        "https://api.test/..;/b",
        "https://api.test/a;b",
        "https://api.test/%61",
        "https://api.test/%c3%a9",
        "https://api.test/%C3",
        "https://api.test/%C0%AE%C0%AE/b",
        "https://api.test/%E2%80%AE",
        "https://api.test/e%CC%81",
        "https://api.test/%",
        "https://api.test/%4",
        "https://api.test/%zz",
        "https://api.test/é",
        "https://api.test/*",
        "https://api.test/%EF%BC%8F",
        "https://api.test/%EF%BC%8E%EF%BC%8E",
        // Query and fragment.
        "https://api.test/#",
        "https://api.test/a#b",
        "https://api.test?a",
        "https://api.test/?a b",
        "https://api.test/?a#b",
        "https://api.test/?\"",
        "https://api.test/?<a>",
        "https://api.test/?%",
        "https://api.test/?%z0",
        "https://api.test/?\\",
        "https://api.test/?'",
        "https://api.test/?é",
    ];
    urls.into_iter().for_each(refused);
    refused(&format!("https://api.test/?{}", "a".repeat(URL_BYTES)));
    refused(&format!("https://api.test/{}", "a".repeat(512)));
}

#[test]
fn every_other_spelling_of_an_address_is_refused() {
    let hosts = "2130706433 017700000001 0x7f000001 0x7f.1 127.1 127.0.1 0177.0.0.1 127.0.0.01 \
        127.0.0.1. 0x7f.0.0.1 127.0.0.0x1 127.0.0.1.2 256.0.0.1 127.0.0.256 1 0 00 0x \
        ①②⑦.0.0.1 127。0。0。1 １２７.0.0.1 %31%32%37.0.0.1 127.0.0.1%00 ::1 [::1 ::1] [0:0:0:0:0:0:0:1] \
        [::0001] [0::1] [::FFFF:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [fe80::1%eth0] \
        [fe80::1%25eth0] [::1%25] [::1.2.3.4] [v1.a] [] [::] [1::2::3] [::1].test test.[::1] \
        localhost. LOCALHOST locaLhost 169.254.169.254. 2852039166 0xa9fea9fe 0251.0376.0251.0376";
    for host in hosts.split_whitespace().filter(|host| *host != "[::]") {
        refused(&format!("http://{host}/"));
        refused(&format!("https://{host}:8443/a"));
    }
    // These are spelled as they should be; the address test refuses them.
    for (host, address) in
        [("127.0.0.1", "127.0.0.1"), ("[::]", "::"), ("[64:ff9b::7f00:1]", "64:ff9b::7f00:1")]
    {
        let parsed = target(&format!("http://{host}/"));
        assert_eq!(*parsed.host(), Host::Address(address.parse().unwrap()));
    }
}

#[test]
fn a_final_slash_needs_a_rule_for_all_below() {
    let cases = [
        ("https://api.test/**", "https://api.test/a/", true),
        ("https://api.test/a/**", "https://api.test/a/", true),
        ("https://api.test/*/**", "https://api.test/a/", true),
        ("https://api.test/a", "https://api.test/a/", false),
        ("https://api.test/a/*", "https://api.test/a/", false),
        ("https://api.test/a/b/**", "https://api.test/a/", false),
        ("https://api.test/a", "https://api.test/a", true),
        ("https://api.test/a", "https://api.test/a?b", true),
        ("https://api.test", "https://api.test/", true),
        ("https://api.test", "https://api.test/a", false),
        ("https://*.test/a", "https://api.test/a", true),
        ("https://api.test:8443/**", "https://api.test/a", false),
        ("http://api.test/**", "https://api.test/a", false),
    ];
    for (pattern, url, held) in cases {
        assert_eq!(target(url).is_in(&Pattern::parse(pattern).unwrap()), held, "{pattern} {url}");
    }
}

/// All of the URL tests of the web platform: refused, or the host, port and path that they expect.
#[test]
fn every_url_is_refused_or_read_as_a_browser_reads_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/vectors/whatwg-url/urltestdata.json");
    let Ok(text) = fs::read(&path) else {
        eprintln!("skipped: the external vectors `whatwg-url` are absent");
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&String::from_utf8_lossy(&text)).unwrap();
    let cases: Vec<&Value> = cases.iter().filter(|case| case.is_object()).collect();
    let (mut inputs, mut results) = (0, 0);
    for case in &cases {
        for key in ["input", "href"] {
            let Some(url) = case[key].as_str() else { continue };
            let Ok(target) = Target::parse(url) else { continue };
            assert!(case["failure"].is_null(), "{url}");
            let host = case["host"].as_str().unwrap();
            assert_eq!(target.authority(), host, "{url}");
            let default = if target.is_tls() { "443" } else { "80" };
            let port = case["port"].as_str().filter(|port| !port.is_empty()).unwrap_or(default);
            assert_eq!(target.port().to_string(), port, "{url}");
            let said = format!(
                "{}{}",
                case["pathname"].as_str().unwrap(),
                case["search"].as_str().unwrap()
            );
            assert_eq!(target.path_and_query().trim_end_matches('?'), said, "{url}");
            assert_eq!(case["username"], "", "{url}");
            assert_eq!(case["hash"], "", "{url}");
            if key == "input" { inputs += 1 } else { results += 1 }
        }
    }
    eprintln!("{} cases: {inputs} inputs and {results} results taken", cases.len());
    assert!(cases.len() > 800 && inputs > 20 && results > 80, "{inputs} {results}");
}
