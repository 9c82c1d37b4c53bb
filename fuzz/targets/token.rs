//! Tokens: what reads has one spelling; what narrows allows no more than any link above it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_core::Axis;
use moat_core::caveat::{Caveats, HostRule, Request, reach};
use moat_core::pattern::Resource;
use moat_core::token::{Link, Token};
use moat_fuzz::{NOW, world};

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Some(signed) = world().sign_token(data) {
        read(&signed);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = Token::parse(text)
    {
        assert_eq!(token.to_text(), text);
    }
});

fn read(bytes: &[u8]) {
    let Ok(token) = Token::decode(bytes) else { return };
    assert_eq!(token.as_bytes(), bytes);
    assert_eq!(Token::parse(&token.to_text()).as_ref(), Ok(&token));
    for link in token.links() {
        assert_eq!(Link::decode(link.as_bytes()).as_ref(), Ok(link));
        let caveats = &link.claims().caveats;
        assert_eq!(Caveats::new(caveats.terms()).as_ref(), Ok(caveats));
    }
    let world = world();
    let (authentic, narrow) = (token.authenticate(&world.roots()), token.narrowing());
    let verified = token.verify(&world.roots(), Some(&world.gate.id()), NOW);
    assert!(verified.is_err() || (authentic.is_ok() && narrow.is_ok() && token.expires() > NOW));
    match narrow {
        Ok(()) => only_narrows(&token),
        Err(refused) => really_widens(&token, refused),
    }
}

/// What the last link allows, every link allows: asked of all that the links name.
fn only_narrows(token: &Token) {
    let all = || token.links().iter().map(|link| &link.claims().caveats);
    let granted = all().flat_map(|one| one.allow()).map(|it| (&it.resource, &it.actions));
    let denied = all().flat_map(|one| one.deny()).map(|it| (&it.resource, &it.actions));
    let named: Vec<_> = denied.take(16).chain(granted.take(16)).collect();
    let mut actions: Vec<_> = named.iter().flat_map(|(_, actions)| actions.iter()).collect();
    actions.sort_unstable();
    actions.dedup();
    let leaf = &token.leaf().expect("a token has links").claims().caveats;
    for resource in named.iter().filter_map(|(resource, _)| resource.example()) {
        for action in actions.iter().take(8).map(|name| if *name == "*" { "any" } else { name }) {
            for no_args in [true, false] {
                let request = Request::new(action, &resource, no_args);
                let above = token.permits(&request);
                assert!(leaf.permits(&request).is_err() || above.is_ok(), "{action} {resource}");
            }
        }
    }
    for url in all().flat_map(|one| &one.limits.hosts).take(16) {
        let Some(url) = url.pattern().example() else { continue };
        for method in ["GET", "POST", "BREW", "CONNECT"] {
            let above = token.reach(method, &url);
            assert!(reach(&leaf.limits.hosts, method, &url).is_err() || above.is_ok(), "{url}");
        }
    }
    assert_eq!(&token.limits(), &leaf.limits, "the last link's limits are the meet of all");
    assert_eq!(token.expires(), leaf.expires);
    for above in all() {
        assert!(above.not_before <= leaf.not_before);
        assert!(above.audience.is_none() || above.audience == leaf.audience);
    }
}

/// The witness is a request that the child allows, its denials aside, and its parent does not.
fn really_widens(token: &Token, refused: moat_core::Error) {
    let at = refused.link.expect("a refusal names a link");
    let [parent, child] = &token.links()[at - 1..=at] else { panic!("link {at} has a parent") };
    let Some(witness) = refused.witness else { return };
    let [above, below] = [parent, child].map(|link| &link.claims().caveats);
    if refused.axis == Some(Axis::Hosts) {
        return really_reaches(&above.limits.hosts, &below.limits.hosts, &witness);
    }
    if refused.axis != Some(Axis::Resource) {
        return;
    }
    let (action, resource) = witness.split_once(' ').expect("an action and a resource");
    // It may be longer than what may come from outside.
    let Ok(resource) = Resource::parse(resource) else { return };
    let action = if action == "*" { "any" } else { action };
    let allows = |caveats: &Caveats| {
        caveats
            .allow()
            .iter()
            .any(|grant| grant.actions.contains(action) && grant.resource.matches(&resource))
    };
    assert!(allows(below), "the child does not allow {action} {resource}");
    assert!(!allows(above), "the parent allows {action} {resource}");
}

/// The witness is a request that the child may send and its parent may not, or not there; or the
/// child's rule, where none was found.
fn really_reaches(parent: &[HostRule], child: &[HostRule], witness: &str) {
    if child.iter().any(|rule| rule.to_string() == witness) {
        return;
    }
    let mut words = witness.split(' ');
    let (Some(method), Some(url)) = (words.next(), words.next()) else { panic!("{witness}") };
    let Ok(url) = Resource::parse(url) else { return };
    let place = words.nth(1).map(|text| text.parse().expect("a witness has an address"));
    let global = witness.contains(" at 8.8.") || witness.contains(" at 2600:");
    let may = |rules: &[HostRule]| {
        reach(rules, method, &url).is_ok_and(|found| {
            place.is_none_or(|place| found.iter().any(|rule| rule.admits(place, global)))
        })
    };
    assert!(may(child), "the child may not send {witness}");
    assert!(!may(parent), "the parent may send {witness}");
}
