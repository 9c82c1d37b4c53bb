//! Host rules and secrets: what they permit, what covers what, and a witness for every no.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::IpAddr;

use super::*;
use crate::error::Result;

/// A rule as it is displayed: pattern, methods, ranges.
pub(super) fn rule(text: &str) -> HostRule {
    parsed(text).unwrap()
}

fn parsed(text: &str) -> Result<HostRule> {
    let mut words = text.split(' ');
    let pattern = Pattern::parse(words.next().unwrap())?;
    let mut list = || words.next().into_iter().flat_map(|word| word.split(','));
    let methods = Methods::new(list().map(ToOwned::to_owned))?;
    HostRule::new(pattern, methods, list().map(Range::parse).collect::<Result<_>>()?)
}

fn secret(handle: &str, host: &str, header: &str) -> Result<SecretRule> {
    SecretRule::new(Resource::parse(handle)?, Pattern::parse(host)?, header.to_owned())
}

pub(super) fn url(text: &str) -> Resource {
    Resource::parse(text).unwrap()
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Whether a link with the one list of rules may have a child with the other.
pub(super) fn covers(parent: &[HostRule], child: &[HostRule]) -> Result<()> {
    let [parent, child] =
        [parent, child].map(|hosts| Limits { hosts: hosts.to_vec(), ..Limits::default() });
    parent.covers(&child)
}

#[test]
fn a_range_has_one_spelling() {
    for fine in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "::1/128", "fd00::/8"] {
        assert_eq!(Range::parse(fine).unwrap().to_string(), fine);
    }
    for wrong in [
        "",
        "/",
        "10.0.0.0",
        "10.0.0.0/",
        "/8",
        "10.0.0.1/8",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/8 ",
        " 10.0.0.0/8",
        "10.0.0.0/8/8",
        "10.0/8",
        "010.0.0.0/8",
        "0xa.0.0.0/8",
        "10.0.0.0/0",
        "::1/127",
        "::1/129",
        "FD00::/8",
        "fd00::/08",
        "fd00:0::/8",
        "[fd00::]/8",
        "fe80::%1/64",
        "::ffff:0:0/96",
        "::ffff:10.0.0.0/104",
        "::ffff:a00:0/104",
        "::ffff:127.0.0.1/128",
        "localhost/8",
        "*/0",
        "١0.0.0.0/8",
    ] {
        assert_eq!(Range::parse(wrong).unwrap_err().reason, Reason::Malformed, "{wrong}");
    }
}

#[test]
fn a_range_ends_where_its_bits_say_and_holds_no_mapped_address() {
    let ten = Range::parse("10.0.0.0/8").unwrap();
    for (text, inside) in [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("9.255.255.255", false),
        ("11.0.0.0", false),
        ("::a00:0", false),
        ("::ffff:10.0.0.1", false),
    ] {
        assert_eq!(ten.contains(address(text)), inside, "{text}");
    }
    let all = Range::parse("::/0").unwrap();
    assert!(all.contains(address("::1")) && all.contains(address("ffff::")));
    assert!(!all.contains(address("::ffff:10.0.0.1")) && !all.contains(address("10.0.0.1")));
    let one = Range::parse("10.0.0.1/32").unwrap();
    assert!(one.contains(address("10.0.0.1")) && !one.contains(address("10.0.0.2")));
}

#[test]
fn a_rule_has_a_web_scheme_and_a_path() {
    for fine in ["https://a/**", "http://*/**", "https://*.a.example:8443/b/* GET"] {
        let text = if fine.contains(' ') { fine.to_owned() } else { format!("{fine} *") };
        assert_eq!(parsed(&text).unwrap().to_string(), text);
    }
    for wrong in ["https://a", "https://*", "wss://a/**", "ftp://a/**", "tool://a/**", "file:///**"]
    {
        let refused = parsed(&format!("{wrong} GET")).unwrap_err();
        assert_eq!(refused.reason, Reason::Malformed, "{wrong}");
    }
}

#[test]
fn methods_are_in_capitals_and_neither_tunnel_nor_echo() {
    let longest = "A".repeat(16);
    for fine in ["*", "GET", "GET,POST", "A", longest.as_str()] {
        assert!(parsed(&format!("https://a/** {fine}")).is_ok(), "{fine}");
    }
    let longer = "A".repeat(17);
    for wrong in [
        "",
        "get",
        "Get",
        "GET ",
        "*,GET",
        "GET,*",
        "CONNECT",
        "TRACE",
        "GET,TRACE",
        "M-SEARCH",
        "G\u{c9}T",
        "GET\n",
        longer.as_str(),
    ] {
        let methods = Methods::new(wrong.split(',').map(ToOwned::to_owned));
        assert_eq!(methods.unwrap_err().reason, Reason::Malformed, "{wrong}");
    }
    assert!(Methods::new([]).is_err());
    let many = |n: u8| Methods::new((b'A'..b'A' + n).map(|c| char::from(c).to_string()));
    assert!(many(16).is_ok());
    assert_eq!(many(17).unwrap_err().reason, Reason::TooLarge);
    let any = rule("https://a/** *");
    for (method, fine) in [("GET", true), ("BREW", true), ("get", false), ("CONNECT", false)] {
        assert_eq!(any.permits(method, &url("https://a/x")), fine, "{method}");
    }
    for method in ["TRACE", "", "*", "M-SEARCH", longer.as_str()] {
        assert!(!any.permits(method, &url("https://a/x")), "{method}");
    }
}

#[test]
fn ranges_of_a_rule_are_sorted_bounded_and_not_within_one_another() {
    let text = |given: &str| rule(&format!("https://a/** GET {given}")).to_string();
    let ranges = "10.0.0.0/8,127.0.0.0/8,::1/128";
    assert_eq!(
        text("::1/128,127.0.0.0/8,10.0.0.0/8,10.0.0.0/8,10.1.0.0/16"),
        format!("https://a/** GET {ranges}")
    );
    let many = |n| (0..n).map(|n| format!("10.{n}.0.0/16")).collect::<Vec<_>>().join(",");
    assert!(parsed(&format!("https://a/** GET {}", many(8))).is_ok());
    let refused = parsed(&format!("https://a/** GET {}", many(9))).unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
}

#[test]
fn a_rule_with_ranges_admits_them_alone_and_one_without_admits_global_addresses_alone() {
    let (free, own) = (rule("https://a/** GET"), rule("https://a/** GET 10.0.0.0/8"));
    for (place, global, by_free, by_own) in [
        ("8.8.8.8", true, true, false),
        ("10.0.0.1", false, false, true),
        ("10.0.0.1", true, true, true),
        ("192.168.0.1", false, false, false),
        ("::ffff:8.8.8.8", true, false, false),
        ("::ffff:10.0.0.1", true, false, false),
    ] {
        assert_eq!(free.admits(address(place), global), by_free, "{place}");
        assert_eq!(own.admits(address(place), global), by_own, "{place}");
    }
}

#[test]
fn each_part_of_a_rule_only_narrows() {
    let covers = |parent: &str, child: &str| rule(parent).covers(&rule(child));
    let parent = "https://*.a.example/b/** GET,POST 10.0.0.0/8";
    for child in [
        parent,
        "https://x.a.example/b/c GET 10.1.0.0/16",
        "https://x.a.example/b POST 10.0.0.1/32,10.0.0.2/32",
    ] {
        assert!(covers(parent, child), "{child}");
    }
    for child in [
        "https://*.a.example/** GET 10.0.0.0/8",
        "https://a.example/b/** GET 10.0.0.0/8",
        "http://x.a.example/b/** GET 10.0.0.0/8",
        "https://x.a.example:8443/b/** GET 10.0.0.0/8",
        "https://x.a.example/b/** DELETE 10.0.0.0/8",
        "https://x.a.example/b/** GET,DELETE 10.0.0.0/8",
        "https://x.a.example/b/** * 10.0.0.0/8",
        "https://x.a.example/b/** GET 10.0.0.0/7",
        "https://x.a.example/b/** GET 10.0.0.0/8,127.0.0.0/8",
        "https://x.a.example/b/** GET ::/0",
        "https://x.a.example/b/** GET",
    ] {
        assert!(!covers(parent, child), "{child}");
    }
    assert!(covers("https://a/** *", "https://a/** GET"));
    assert!(!covers("https://a/** *", "https://a/** * 10.0.0.0/8"));
}

#[test]
fn two_rules_do_not_add_up_to_a_third() {
    let parent = [rule("https://a/** GET"), rule("https://b/** POST")];
    assert!(reach(&parent, "GET", &url("https://a/x")).is_ok());
    let refused = reach(&parent, "POST", &url("https://a/x")).unwrap_err();
    assert_eq!((refused.reason, refused.axis), (Reason::NotGranted, Some(Axis::Hosts)));
    assert!(refused.detail.contains("`GET` only"), "{refused}");
    assert!(reach(&parent, "GET", &url("https://c")).unwrap_err().detail.contains("2 host rules"));
    assert!(reach(&[], "GET", &url("https://a")).unwrap_err().detail.contains("name one"));
    let same = [rule("https://a/** GET"), rule("https://a/** POST")];
    let both = [rule("https://a/** GET,POST")];
    let refused = covers(&same, &both).unwrap_err();
    assert_eq!(refused.witness.as_deref(), Some("https://a/** GET,POST"));
}

#[test]
fn every_rule_that_fits_is_found_for_the_address_decides_among_them() {
    let rules = [rule("https://*/** GET"), rule("https://git.corp/** * 10.0.0.0/8")];
    let found = reach(&rules, "GET", &url("https://git.corp/x")).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|rule| rule.admits(address("10.1.1.1"), false)));
}

#[test]
fn a_witness_is_a_request_that_a_person_can_check() {
    for (parent, child, witness) in [
        ("https://a/** GET", "https://b/** GET", "GET https://b"),
        ("https://a/** GET", "https://a/** POST", "POST https://a"),
        ("https://a/** GET", "https://a/** *", "HEAD https://a"),
        ("https://a/** GET", "https://a/** GET 10.0.0.0/8", "GET https://a at 10.0.0.0"),
        ("https://a/** GET 10.0.0.0/8", "https://a/** GET", "GET https://a at 8.8.0.0"),
        (
            "https://a/** GET 10.0.0.0/9",
            "https://a/** GET 10.0.0.0/8",
            "GET https://a at 10.128.0.0",
        ),
    ] {
        let refused = covers(&[rule(parent)], &[rule(child)]).unwrap_err();
        assert_eq!(refused.axis, Some(Axis::Hosts));
        assert_eq!(refused.witness.as_deref(), Some(witness), "{parent} | {child}");
    }
    let refused = covers(&[], &[rule("https://a/** GET ::1/128")]).unwrap_err();
    assert_eq!(refused.witness.as_deref(), Some("GET https://a"));
}

#[test]
fn a_secret_has_a_handle_a_host_and_a_header() {
    for (handle, host, header) in [
        ("secret://github", "https://api.github.com", "authorization"),
        ("secret://team/key", "https://*.example.com:8443", "x-api_key"),
        ("secret://x", "http://127.0.0.1:8080", "cookie"),
    ] {
        let made = secret(handle, host, header).unwrap();
        assert_eq!(made.to_string(), format!("{handle} {host} {header}"));
    }
    let long = "x".repeat(65);
    for (handle, host, header) in [
        ("secret://", "https://a", "x"),
        ("secret:///a", "https://a", "x"),
        ("secret://a/\u{e9}", "https://a", "x"),
        ("tool://a", "https://a", "x"),
        ("secret://a", "https://*", "x"),
        ("secret://a", "https://a/**", "x"),
        ("secret://a", "https://a/b", "x"),
        ("secret://a", "wss://a", "x"),
        ("secret://a", "tool://a", "x"),
        ("secret://a", "https://a", ""),
        ("secret://a", "https://a", "Authorization"),
        ("secret://a", "https://a", "x key"),
        ("secret://a", "https://a", "x:"),
        ("secret://a", "https://a", "x\r\ny"),
        ("secret://a", "https://a", "host"),
        ("secret://a", "https://a", "proxy-authorization"),
        ("secret://a", "https://a", "transfer-encoding"),
        ("secret://a", "https://a", "content-length"),
        ("secret://a", "https://a", long.as_str()),
    ] {
        let refused = secret(handle, host, header).unwrap_err();
        assert_eq!(refused.reason, Reason::Malformed, "{handle} {host} {header}");
    }
    assert!(Resource::parse("secret://*").is_err(), "a handle has no wildcard");
}

#[test]
fn a_secret_keeps_its_handle_and_header_and_narrows_its_host() {
    let parent = [secret("secret://a", "https://*.example", "x").unwrap()];
    let covers = |handle, host, header| {
        let child = vec![secret(handle, host, header).unwrap()];
        let [parent, child] =
            [parent.to_vec(), child].map(|secrets| Limits { secrets, ..Limits::default() });
        parent.covers(&child).map_err(|refused| refused.witness.unwrap())
    };
    assert_eq!(covers("secret://a", "https://*.example", "x"), Ok(()));
    assert_eq!(covers("secret://a", "https://b.example", "x"), Ok(()));
    for (handle, host, header, witness) in [
        ("secret://b", "https://b.example", "x", "secret://b https://b.example x"),
        ("secret://a/b", "https://b.example", "x", "secret://a/b https://b.example x"),
        ("secret://a", "https://example", "x", "secret://a https://example x"),
        ("secret://a", "http://b.example", "x", "secret://a http://b.example x"),
        ("secret://a", "https://b.example:8443", "x", "secret://a https://b.example:8443 x"),
        ("secret://a", "https://b.example", "y", "secret://a https://b.example y"),
    ] {
        assert_eq!(covers(handle, host, header), Err(witness.to_owned()));
    }
    let permits = |handle, host, header| parent[0].permits(&url(handle), &url(host), header);
    assert!(permits("secret://a", "https://b.example", "x"));
    assert!(!permits("secret://b", "https://b.example", "x"));
    assert!(!permits("secret://a", "https://b.example/x", "x"));
    assert!(!permits("secret://a", "https://b.example", "X"));
}
