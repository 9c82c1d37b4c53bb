//! URLs: what is taken has one spelling, and goes where a browser would go with it.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use moat_core::pattern::{Pattern, Resource};
use moat_egress::{Host, Target, URL_BYTES};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        text.lines().for_each(read);
    }
});

fn read(text: &str) {
    let Ok(target) = Target::parse(text) else { return };
    assert!(text.len() <= URL_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic()));
    let scheme = if target.is_tls() { "https" } else { "http" };
    let whole = format!("{scheme}://{}{}", target.authority(), target.path_and_query());
    assert!(whole == text || whole == slashed(text), "{text} becomes {whole}");

    let browser = url::Url::parse(text).expect("a browser reads what is sent");
    assert_eq!(browser.scheme(), scheme);
    assert_eq!((browser.username(), browser.password(), browser.fragment()), ("", None, None));
    assert_eq!(browser.port_or_known_default(), Some(target.port()));
    match (target.host(), browser.host().expect("it has a host")) {
        (Host::Name(name), url::Host::Domain(other)) => assert_eq!(&**name, other),
        (Host::Address(IpAddr::V4(one)), url::Host::Ipv4(other)) => assert_eq!(*one, other),
        (Host::Address(IpAddr::V6(one)), url::Host::Ipv6(other)) => assert_eq!(*one, other),
        (one, other) => panic!("{one:?} is {other:?} to a browser"),
    }
    let query = browser.query().map(|query| format!("?{query}")).unwrap_or_default();
    assert_eq!(target.path_and_query(), format!("{}{query}", browser.path()));

    // What rules are asked about reads as itself, and lies in its own origin.
    let asked = target.resource().to_string();
    assert_eq!(Resource::parse(&asked).map(|read| read.to_string()), Ok(asked));
    let origin = Pattern::parse(&format!("{}/**", target.origin())).expect("an origin is a rule");
    assert!(target.is_in(&origin), "{text} is not in {origin}");
}

/// Without a path it is asked for `/`.
fn slashed(text: &str) -> String {
    match text.split_once('?') {
        Some((place, query)) => format!("{place}/?{query}"),
        None => format!("{text}/"),
    }
}
