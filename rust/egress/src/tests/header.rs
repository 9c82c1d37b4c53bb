#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use http::HeaderMap;
use moat_core::caveat::SecretRule;
use moat_core::pattern::{Pattern, Resource};
use zeroize::Zeroizing;

use super::{Headers, strip};
use crate::egress::Bounds;
use crate::refusal::{Reason, Refusal};
use crate::rule::Link;
use crate::secret::{Secret, Vault};
use crate::target::Target;

const VALUE: &str = "ghp_0123456789abcdef";

fn secret(handle: &str, value: &str) -> Result<Secret, Refusal> {
    Secret::new(Resource::parse(handle).unwrap(), Zeroizing::new(value.as_bytes().to_vec()))
}

fn secrets() -> Vec<Secret> {
    vec![secret("secret://github", VALUE).unwrap(), secret("secret://key", VALUE).unwrap()]
}

fn link(rules: &[(&str, &str, &str)]) -> Link {
    let rule = |(handle, host, header): &(&str, &str, &str)| {
        let host = Pattern::parse(host).unwrap();
        SecretRule::new(Resource::parse(handle).unwrap(), host, (*header).to_owned()).unwrap()
    };
    Link { secrets: rules.iter().map(rule).collect(), ..Link::default() }
}

fn links() -> Vec<Link> {
    let key = ("secret://key", "https://*.other.test:8443", "x-api-key");
    vec![link(&[("secret://github", "https://api.test", "authorization"), key])]
}

fn sent_by(links: &[Link], url: &str, headers: &[(&str, &[u8])]) -> Result<HeaderMap, Refusal> {
    let target = Target::parse(url).unwrap();
    let secrets = secrets();
    let given: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    let vault = Vault { links, secrets: &secrets };
    Headers::check(&given, &target, vault, &Bounds::default())?.fill(&target)
}

fn sent(url: &str, headers: &[(&str, &[u8])]) -> Result<HeaderMap, Refusal> {
    sent_by(&links(), url, headers)
}

fn refused(headers: &[(&str, &[u8])]) -> Refusal {
    match sent("https://api.test/a", headers) {
        Ok(map) => panic!("{headers:?} gave {map:?}"),
        Err(refusal) => refusal,
    }
}

#[test]
fn a_guests_headers_are_sent_beside_ours() {
    let given: &[(&str, &[u8])] =
        &[("Accept", b"a/b"), ("X-A", b"1"), ("x-a", b"2"), ("accept-encoding", b"gzip, br")];
    let map = sent("https://api.test:8443/a", given).unwrap();
    let mut all: Vec<_> =
        map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    all.sort();
    let want = [
        "accept-encoding: identity",
        "accept: a/b",
        "connection: close",
        "host: api.test:8443",
        "x-a: 1",
        "x-a: 2",
    ];
    assert_eq!(all, want);
}

#[test]
fn headers_that_route_or_frame_are_refused_in_every_spelling() {
    let names = "host connection keep-alive proxy-authorization proxy-connection proxy \
        proxy-anything transfer-encoding te trailer upgrade expect http2-settings forwarded via \
        x-forwarded-for x-forwarded-host x-http-method-override x-http-method x-method-override \
        x-original-url x-rewrite-url sec-websocket-key x-real-ip";
    for name in names.split_whitespace() {
        let folded = name.replace('-', "_");
        for name in [name.to_owned(), name.to_ascii_uppercase(), folded] {
            let refusal = refused(&[(&name, b"1")]);
            assert_eq!(refusal.reason, Reason::HeaderRefused, "{name}");
        }
    }
    for name in ["Content_Length", "accept_encoding", "AUTHORIZATION", "Cookie", "x_api_key"] {
        assert_eq!(refused(&[(name, b"1")]).reason, Reason::HeaderRefused, "{name}");
    }
}

#[test]
fn nothing_is_smuggled_through_a_name_or_a_value() {
    let names = ["", " ", "a b", "a:", "a\r\nhost", "a\0", "é", ":authority", "host ", "\thost"];
    for name in names {
        assert_eq!(refused(&[(name, b"1")]).reason, Reason::HeaderRefused, "{name:?}");
    }
    let values: [&[u8]; 8] =
        [b"a\r\nhost: evil", b"a\nb", b"a\rb", b"a\0b", b"\x7f", b" a", b"a\t", b"a\x0bb"];
    for value in values {
        let refusal = refused(&[("x-a", value)]);
        assert_eq!(refusal.reason, Reason::HeaderRefused, "{value:?}");
        assert!(!refusal.detail.contains("evil"), "{}", refusal.detail);
    }
}

#[test]
fn a_length_is_one_decimal_number() {
    let lengths: [&[u8]; 9] =
        [b"", b"+1", b"-1", b"0x1", b"01", b"1, 1", b"1 1", b"99999999999999999999", b"1\xc2\xb2"];
    for length in lengths {
        assert_eq!(refused(&[("content-length", length)]).reason, Reason::HeaderRefused);
    }
    let twice: &[(&str, &[u8])] = &[("content-length", b"1"), ("Content-Length", b"1")];
    assert_eq!(refused(twice).reason, Reason::HeaderRefused);
}

#[test]
fn too_many_headers_are_refused() {
    let many = vec![("x-a", b"1".as_slice()); 65];
    assert_eq!(refused(&many).reason, Reason::RequestTooLarge);
    assert_eq!(refused(&[("x-a", &[b'a'; 16 << 10])]).reason, Reason::RequestTooLarge);
}

#[test]
fn a_placeholder_becomes_the_value_where_it_is_bound() {
    let plain = sent("https://api.test/a", &[("Authorization", b"secret://github")]).unwrap();
    assert_eq!(plain["authorization"], VALUE);
    let word = sent("https://api.test/", &[("authorization", b"Bearer secret://github")]).unwrap();
    assert_eq!(word["authorization"], format!("Bearer {VALUE}"));
    assert!(word["authorization"].is_sensitive());
    let other = sent("https://a.other.test:8443/", &[("x-api-key", b"secret://key")]).unwrap();
    assert_eq!(other["x-api-key"], VALUE);
}

#[test]
fn a_placeholder_anywhere_else_is_refused() {
    let elsewhere: [(&str, &str, &[u8]); 13] = [
        ("https://evil.test/", "authorization", b"Bearer secret://github"),
        ("https://sub.api.test/", "authorization", b"secret://github"),
        ("https://api.test:8443/", "authorization", b"secret://github"),
        ("http://api.test/", "authorization", b"secret://github"),
        ("https://other.test:8443/", "x-api-key", b"secret://key"),
        ("https://api.test/", "x-api-key", b"secret://key"),
        ("https://api.test/", "x-a", b"secret://github"),
        ("https://api.test/", "user-agent", b"Secret://github"),
        ("https://api.test/", "referer", b"https://a/?secret%3A%2F%2Fgithub"),
        ("https://api.test/", "authorization", b"secret://unknown"),
        ("https://api.test/", "authorization", b"Bearer  secret://github"),
        ("https://api.test/", "authorization", b"Bearer secret://github, x"),
        ("https://api.test/", "authorization", b"a=b secret://github"),
    ];
    for (url, name, value) in elsewhere {
        let refusal = sent(url, &[(name, value)]).unwrap_err();
        assert_eq!(refusal.reason, Reason::SecretNotBound, "{url} {name}");
    }
    let twice: &[(&str, &[u8])] =
        &[("authorization", b"secret://github"), ("authorization", b"Bearer secret://github")];
    assert_eq!(refused(twice).reason, Reason::HeaderRefused);
}

#[test]
fn a_guest_brings_no_credential_of_its_own() {
    for name in ["authorization", "cookie", "x-api-key"] {
        assert_eq!(refused(&[(name, b"Bearer mine")]).reason, Reason::HeaderRefused, "{name}");
    }
}

#[test]
fn every_link_must_bind_the_secret_to_the_place() {
    let bound = ("secret://github", "https://api.test", "authorization");
    let given: &[(&str, &[u8])] = &[("authorization", b"secret://github")];
    let wide = link(&[("secret://github", "https://*.test", "authorization")]);
    let asked = |links: &[Link]| sent_by(links, "https://api.test/", given);
    assert!(asked(&[wide.clone(), link(&[bound])]).is_ok());
    assert!(asked(&[link(&[bound]), wide.clone()]).is_ok());
    for other in [
        Link::default(),
        link(&[("secret://github", "https://api.test", "x-api-key")]),
        link(&[("secret://github", "https://other.test", "authorization")]),
        link(&[("secret://key", "https://api.test", "authorization")]),
    ] {
        for links in [[wide.clone(), other.clone()], [other.clone(), wide.clone()]] {
            assert_eq!(asked(&links).unwrap_err().reason, Reason::SecretNotBound, "{links:?}");
        }
    }
    assert_eq!(asked(&[]).unwrap_err().reason, Reason::SecretNotBound);
}

#[test]
fn a_value_fits_into_a_header_and_is_not_shown() {
    for value in ["short", "two\r\nlines: here", " leading-space", "trailing-space ", "näin-ei-käy"]
    {
        let refusal = secret("secret://a", value).unwrap_err();
        assert_eq!(refusal.reason, Reason::SecretUnusable, "{value}");
        assert!(!refusal.detail.contains(value), "{}", refusal.detail);
    }
    let shown = format!("{:?}", secrets());
    assert!(shown.contains("secret://github") && !shown.contains(VALUE), "{shown}");
}

#[test]
fn an_answer_loses_its_hop_by_hop_headers_and_cookies() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("keep-alive", "a"),
        ("upgrade", "b"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "Basic"),
        ("trailer", "x-a"),
        ("set-cookie", "session=1"),
        ("x-kept", "2"),
        ("location", "http://127.0.0.1/"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    strip(&mut headers);
    let mut left: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    left.sort_unstable();
    assert_eq!(left, ["location", "x-kept"]);
}
