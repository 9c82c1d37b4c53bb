#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod laws;

use super::{HostName, Pattern, Resource, canonicalize};
use crate::error::Reason;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn resource(text: &str) -> Resource {
    Resource::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Checks the answer and, for a no, that the witness proves it.
fn covers(parent: &Pattern, child: &Pattern) -> bool {
    let answer = parent.covers(child);
    match parent.witness(child) {
        None => assert!(answer, "no witness though {parent} does not cover {child}"),
        Some(witness) => {
            assert!(!answer, "a witness {witness} though {parent} covers {child}");
            assert!(child.matches(&witness), "{child} does not match {witness}");
            assert!(!parent.matches(&witness), "{parent} matches {witness}");
            let length = witness.as_str().len();
            assert!(length > 512 || Resource::parse(witness.as_str()).as_ref() == Ok(&witness));
        }
    }
    answer
}

#[test]
fn a_final_double_star_is_zero_or_more_segments() {
    let tree = pattern("tool://git/**");
    for text in ["tool://git", "tool://git/log", "tool://git/log/all"] {
        assert!(tree.matches(&resource(text)), "{text}");
    }
    for text in ["tool://gitx", "tool://git.x/log", "tool://git:1/log", "tools://git", "tool://"] {
        assert!(!tree.matches(&resource(text)), "{text}");
    }
    assert!(pattern("file:///**").matches(&resource("file://")));
}

#[test]
fn a_star_stays_inside_its_segment() {
    assert!(pattern("file:///data/*.txt").matches(&resource("file:///data/.txt")));
    assert!(pattern("file:///data/*.txt").matches(&resource("file:///data/a.b.txt")));
    assert!(!pattern("file:///data/*.txt").matches(&resource("file:///data/a/b.txt")));
    assert!(!pattern("file:///data/*").matches(&resource("file:///data")));
    assert!(!pattern("file:///data/*").matches(&resource("file:///data/a/b")));
    assert!(pattern("x://a/*b*c*").matches(&resource("x://a/abxbcbc")));
}

#[test]
fn an_escape_is_one_character() {
    assert!(pattern("x://a/*0").matches(&resource("x://a/10")));
    assert!(!pattern("x://a/*0").matches(&resource("x://a/1%20")));
    assert!(pattern("x://a/a*%20").matches(&resource("x://a/a%22%20")));
    assert!(pattern("x://a/*").matches(&resource("x://a/%20")));
}

#[test]
fn a_host_wildcard_is_one_or_more_labels_of_a_name() {
    let below = pattern("https://*.example.com/**");
    assert!(below.matches(&resource("https://a.example.com")));
    assert!(below.matches(&resource("https://b.a.example.com/x")));
    assert!(!below.matches(&resource("https://example.com")));
    assert!(!below.matches(&resource("https://aexample.com")));
    assert!(!below.matches(&resource("https://a.example.com:8443")));
    let any = pattern("https://*");
    for text in ["https://a", "https://127.0.0.1", "https://[::1]:8443"] {
        assert!(any.matches(&resource(text)), "{text}");
    }
    assert!(pattern("x://*/a").matches(&resource("x:///a")));
}

#[test]
fn covers_answers_by_hand() {
    let yes = [
        ("tool://git/**", "tool://git"),
        ("tool://git/**", "tool://git/*/**"),
        ("tool://git/**", "tool://git/a*/b"),
        ("tool://*/**", "tool://*.a/**"),
        ("tool://*/**", "tool:///x"),
        ("x://a/a*", "x://a/a*b*"),
        ("x://a/*a*", "x://a/*a*a*"),
        ("x://a/*", "x://a/*b*"),
        ("https://*.com/**", "https://*.example.com/**"),
        ("https://*.example.com", "https://*.example.com"),
        ("https://*", "https://1.2.3.4:8443"),
    ];
    let no = [
        ("tool://git", "tool://git/**"),
        ("tool://git/*/**", "tool://git/**"),
        ("tool://git/a/**", "tool://git/*"),
        ("tool://git/*", "tool://git/**"),
        ("x://a/*ab*", "x://a/a*b"),
        ("x://a/a*", "x://a/*"),
        ("x://a/*a", "x://a/*"),
        ("x://a/*x*y*z*", "x://a/*"),
        ("tool://*.a", "tool://a"),
        ("tool://*.a/**", "tool://*/**"),
        ("tool://x", "tool://*"),
        ("tool://x.a", "tool://*.a"),
        ("https://*.example.com", "https://*.com"),
        ("https://*.example.com", "https://*.example.com:8443"),
        ("http://a/**", "https://a/**"),
        ("x://a/x", "x://a/*\u{0301}"),
    ];
    for (parent, child) in yes {
        assert!(covers(&pattern(parent), &pattern(child)), "{parent} {child}");
    }
    for (parent, child) in no {
        assert!(!covers(&pattern(parent), &pattern(child)), "{parent} {child}");
    }
}

#[test]
fn a_witness_is_found_where_the_parent_uses_every_letter_and_digit() {
    let every: String = ('a'..='z').chain('0'..='9').flat_map(|c| ['*', c]).collect();
    assert!(!covers(&pattern(&format!("x://a/{every}*")), &pattern("x://a/*")));
    let each = ('a'..='z').chain('0'..='9').map(|c| format!("*{c}*")).collect::<Vec<_>>();
    let child = each.iter().map(|_| "*").collect::<Vec<_>>().join("/");
    assert!(!covers(
        &pattern(&format!("x://a/{}", each.join("/"))),
        &pattern(&format!("x://a/{child}"))
    ));
    let wide = "*é".repeat(160);
    assert!(!covers(
        &pattern(&format!("x://a/{wide}")),
        &pattern(&format!("x://a/{}", "é*".repeat(160)))
    ));
}

#[test]
fn hosts_at_their_longest_keep_covers_exact() {
    let label = "a".repeat(63);
    let most = format!("{label}.{label}.{label}.{}", "a".repeat(59));
    assert_eq!(most.len(), 251);
    let (exact, below) =
        (pattern(&format!("https://b.{most}")), pattern(&format!("https://*.{most}")));
    assert!(!covers(&exact, &below));
    assert!(covers(&below, &exact));
    assert!(Pattern::parse(&format!("https://*.{most}a")).is_err());
}

/// One rule each.
const NOT_CANONICAL: &[&str] = &[
    "",
    "tool",
    "tool:/a",
    "Tool://a",
    "1x://a",
    "://a",
    "tool://a/",
    "tool://a//b",
    "tool://a/.",
    "tool://a/../b",
    "tool://a/%2F",
    "tool://a/%2f",
    "tool://a/%5C",
    "tool://a/%00",
    "tool://a/%2E",
    "tool://a/%25",
    "tool://a/%2A",
    "tool://a/%41",
    "tool://a/%3b",
    "tool://a/%C3%A9",
    "tool://a/%7c",
    "tool://a/%",
    "tool://a/%2",
    "tool://a/\\b",
    "tool://a/b\n",
    "tool://a/\u{7f}",
    "tool://a/\u{85}",
    "tool://a/\u{202e}b",
    "tool://a/\u{200b}",
    "tool://a/e\u{0301}",
    "tool://a/\u{fffe}",
    "tool://a/\u{e000}",
    "tool://a/\u{ff0f}",
    "tool://a/\u{2025}",
    "tool://a/\u{2215}",
    "tool://a/%3E\u{0338}",
    "tool://a/%5E\u{0301}",
    "tool://a/b c",
    "tool://a/b?c",
    "tool://a/b#c",
    "tool://a?b",
    "tool://a#b",
    "tool://a/b;c",
    "tool://a/*",
    "tool://*",
    "tool://*.a",
    "tool://u@a",
    "tool://a:0",
    "tool://a:080",
    "tool://a:65536",
    "tool://a:+1",
    "tool://a:",
    "tool://:1",
    "tool://a..b",
    "tool://.",
    "tool://a.",
    "tool://é",
    "tool://[::1]",
    "tool://a%20",
    "file://a/b",
    "file://localhost/a",
    "https://",
    "https:///a",
    "https://A.com",
    "https://a_b.com",
    "https://a.com.",
    "https://-a.com",
    "https://a-.com",
    "https://a..com",
    "https://a.com:443",
    "http://a.com:80",
    "ws://a.com:80",
    "wss://a.com:443",
    "ftp://a.com:21",
    "https://u:p@a.com",
    "https://1.2.3",
    "https://1.2.3.04",
    "https://1.2.3.256",
    "https://0x7f.1",
    "https://a.0x",
    "https://a.1",
    "https://2130706433",
    "https://[::0]",
    "https://[0:0::1]",
    "https://[::FF]",
    "https://[::ffff:1.2.3.4]",
    "https://[::ffff:102:304]",
    "https://[fe80::1%251]",
    "https://[::1",
    "https://::1",
    "https://[::1]x",
    "https://xn--a",
    "https://xn--a-ecp.ru",
    "https://é.com",
];

#[test]
fn what_is_not_canonical_is_refused() {
    for text in NOT_CANONICAL {
        let error = Resource::parse(text).expect_err(text);
        assert_eq!(error.reason, Reason::Malformed, "{text}");
        if !text.contains('*') {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
    for text in [
        "tool://a*",
        "tool://a.*",
        "tool://*a",
        "tool://*.",
        "tool://*:1",
        "tool://*.a.*",
        "*://a",
        "file://*/a",
        "file://*.a/b",
        "tool://a/**/b",
        "tool://a/b**",
        "tool://a/***",
        "https://*.1.2.3.4",
        "https://*.[::1]",
        "https://*.A.com",
        "https://*.a.com:443",
    ] {
        assert!(Pattern::parse(text).is_err(), "{text}");
    }
    let long = format!("tool://a/{}", "b".repeat(503));
    assert!(Resource::parse(&long[..512]).is_ok());
    assert_eq!(Resource::parse(&(long + "b")).unwrap_err().reason, Reason::TooLarge);
}

#[test]
fn what_is_canonical_is_kept() {
    for text in [
        "tool://git",
        "tool://",
        "tool:///a",
        "tool://read_file",
        "mcp://github/create_issue",
        "tool://A-b.C_d:80/x",
        "file:///data/a%20b",
        "file:///é/日本/(1),~x=@:y",
        "file://",
        "https://xn--mnchen-3ya.de/a",
        "https://1.2.3.4:8443",
        "https://[2001:db8::1]:8443/a",
        "https://r3---sn-a.x.com",
        "x+y.z-1://a",
        "tool://a/...",
        "tool://a/.b",
        "https://a:80",
        "tool://1.2.3.04/a",
        "x://a/1\u{0307}",
    ] {
        assert_eq!(resource(text).as_str(), text);
        assert!(pattern(text).matches(&resource(text)));
        assert_eq!(canonicalize(text).as_deref(), Ok(text));
    }
}

#[test]
fn trees_and_hosts_are_read_off_a_pattern() {
    assert_eq!(pattern("file:///a/b/**").tree(), Some("/a/b"));
    assert_eq!(pattern("file:///a%20b/**").tree(), Some("/a b"));
    assert_eq!(pattern("file:///**").tree(), Some("/"));
    for text in ["file:///a", "file:///a/*/**", "file:///a/*", "tool:///a/**"] {
        assert_eq!(pattern(text).tree(), None, "{text}");
    }
    let host = |text| pattern(text).host().map(|host| (format!("{:?}", host.host), host.port));
    let name = |name: HostName<'_>, port| Some((format!("{name:?}"), port));
    assert_eq!(host("https://a.com/x"), name(HostName::Is("a.com"), Some(443)));
    assert_eq!(host("ws://*.a.com:8080"), name(HostName::Under("a.com"), Some(8080)));
    assert_eq!(host("http://[::1]/x"), name(HostName::Is("[::1]"), Some(80)));
    assert_eq!(host("http://*/**"), name(HostName::Any, None));
    assert_eq!(host("tool://a"), None);
}

#[test]
fn canonicalize_repairs_what_is_plain() {
    let repaired = [
        (" HTTPS://Example.COM:443/ ", "https://example.com"),
        ("https://example.com/a/../b/%7Ec", "https://example.com/b/~c"),
        ("https://bücher.example/%c3%a9", "https://xn--bcher-kva.example/é"),
        ("http://0x7f.1/a", "http://127.0.0.1/a"),
        ("https://[2001:DB8:0::1]/a", "https://[2001:db8::1]/a"),
        ("File:///data//a/./b/%2e%2e/c%20d/", "file:///data/a/c%20d"),
        ("file://localhost/a b", "file:///a%20b"),
        ("file:///e\u{0301}%5b", "file:///é%5B"),
        ("TOOL://Search/we%62", "tool://Search/web"),
        ("tool://git/", "tool://git"),
        ("file:///", "file://"),
    ];
    for (text, wanted) in repaired {
        assert_eq!(canonicalize(text).as_deref(), Ok(wanted), "{text}");
        assert_eq!(canonicalize(wanted).as_deref(), Ok(wanted));
    }
    for text in [
        "",
        "/data",
        "https:a",
        "https:/a",
        "https:////a",
        "https://a/?b",
        "https://a/#b",
        "https://u@a/",
        "https://a\\b",
        "https://a/b\n/c",
        "https://a/%2F",
        "https://a/b/",
        "https://a/b//c",
        "https://a/%25",
        "https://a/%ff",
        "https://a/%zz",
        "https://[::ffff:1.2.3.4]",
        "file:///../a",
        "file:///a/%2e%2e/%2e%2e/b",
        "file:///%00",
        "file:///a%2Fb",
        "file:///%2520",
        "file://host/a",
        "tool://a//b",
        "tool://a//",
        "tool://a/*",
        "tool://a/;b",
        "tool://a/\u{202e}",
    ] {
        assert!(canonicalize(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_repaired_has_at_most_four_times_the_bytes_of_a_resource() {
    let longest = format!("file:///{}", "a/../".repeat(408));
    assert_eq!(longest.len(), 2048);
    assert_eq!(canonicalize(&longest).as_deref(), Ok("file://"));
    assert_eq!(canonicalize(&(longest + "b")).unwrap_err().reason, Reason::TooLarge);
}

#[test]
fn an_error_shows_no_raw_control_or_bidi_character() {
    let error = Resource::parse("tool://a/\u{202e}\n\u{1b}[2J").unwrap_err();
    assert!(error.detail.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{}", error.detail);
    assert!(Resource::parse(&"\u{10ffff}".repeat(128)).unwrap_err().detail.chars().count() < 300);
}

#[test]
fn an_error_shows_the_text_and_of_a_long_one_its_first_120_characters() {
    let told = |text: &str| Resource::parse(text).unwrap_err().detail;
    assert!(told("Tool://a").starts_with("`Tool://a` is not"), "{}", told("Tool://a"));
    for (size, shown) in [(120, "x".repeat(120)), (121, "x".repeat(120) + "…")] {
        assert!(told(&"x".repeat(size)).starts_with(&format!("`{shown}` is not")));
    }
}
