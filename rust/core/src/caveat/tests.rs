//! The order on caveats at its edges: equal is covered, one step more on any axis is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::key::Identity;

fn gate(n: u8) -> AgentId {
    Identity::from_seed("gate", &[n; 32]).unwrap().id()
}

fn actions(names: &[&str]) -> Result<Actions> {
    Actions::new(names.iter().map(ToString::to_string))
}

fn grant(resource: &str, names: &[&str], args: Args) -> Grant {
    let resource = Pattern::parse(resource).unwrap();
    Grant { resource, actions: actions(names).unwrap(), args }
}

fn denial(resource: &str, names: &[&str]) -> Denial {
    Denial { resource: Pattern::parse(resource).unwrap(), actions: actions(names).unwrap() }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

fn hosts(texts: &[&str]) -> Vec<HostRule> {
    texts.iter().map(|text| host_tests::rule(text)).collect()
}

fn secrets(hosts: &[&str]) -> Vec<SecretRule> {
    let handle = || Resource::parse("secret://key").unwrap();
    let rule = |host| SecretRule::new(handle(), Pattern::parse(host).unwrap(), "x-key".to_owned());
    hosts.iter().map(|host| rule(host).unwrap()).collect()
}

fn limits() -> Limits {
    Limits {
        fuel: 10,
        memory: 20,
        time_ms: 30,
        output: 40,
        hosts: hosts(&["https://a.example/** GET"]),
        read: patterns(&["file:///r/**"]),
        write: patterns(&["file:///w/**"]),
        secrets: secrets(&["https://a.example"]),
    }
}

fn terms() -> Terms {
    Terms {
        allow: vec![grant("tool://a/**", &["call", "read"], Args::Any)],
        deny: vec![denial("tool://a/x/**", &["call", "read"])],
        limits: limits(),
        not_before: 100,
        expires: 200,
        depth: 3,
        audience: Some(gate(1)),
        attestations: Vec::new(),
    }
}

/// The terms of a child that is as wide as a child of [`terms`] may be.
fn widest() -> Terms {
    Terms { depth: 2, ..terms() }
}

fn refusal(child: Terms) -> Option<(Reason, Option<Axis>)> {
    let parent = Caveats::new(terms()).unwrap();
    let refused = parent.covers(&Caveats::new(child).unwrap()).err()?;
    Some((refused.reason, refused.axis))
}

fn asked(allow: Vec<Grant>, deny: Vec<Denial>, what: (&str, &str, bool)) -> Result<()> {
    let (action, resource, no_args) = what;
    let caveats = Caveats::new(Terms { allow, deny, ..terms() }).unwrap();
    caveats.permits(&Request::new(action, &Resource::parse(resource).unwrap(), no_args))
}

#[test]
fn an_action_has_the_spelling_of_the_format_or_is_refused() {
    let longest = "a".repeat(64);
    for fine in ["a", "z9", "a.b_c-d", longest.as_str()] {
        assert!(check_action(fine).is_ok(), "{fine}");
    }
    let longer = "a".repeat(65);
    for wrong in ["", "1a", "-a", "A", "aB", "a b", "a/b", "*", "a*", "ä", longer.as_str()] {
        assert_eq!(check_action(wrong).unwrap_err().reason, Reason::Malformed, "{wrong}");
    }
}

#[test]
fn a_list_of_actions_is_bounded_and_a_star_stands_alone() {
    let names: Vec<_> = (0..33).map(|n| format!("a{n}")).collect();
    assert!(Actions::new(names[..32].to_vec()).is_ok());
    assert_eq!(Actions::new(names).unwrap_err().reason, Reason::TooLarge);
    assert!(actions(&["*"]).is_ok());
    assert!(actions(&["*", "call"]).is_err());
    assert!(actions(&["call", "Call"]).is_err());
    assert!(actions(&[]).is_err());
}

#[test]
fn a_set_of_actions_has_its_names_and_a_star_has_all() {
    let two = actions(&["call", "read"]).unwrap();
    assert!(two.contains("call") && two.contains("read"));
    assert!(!two.contains("write") && !two.contains("*"));
    assert!(actions(&["*"]).unwrap().contains("write"));
}

#[test]
fn a_grant_permits_its_resource_its_action_and_its_arguments_together() {
    let allow = || vec![grant("tool://a/*", &["call"], Args::Empty)];
    assert_eq!(asked(allow(), vec![], ("call", "tool://a/x", true)), Ok(()));
    for (what, axis) in [
        (("call", "tool://a/x", false), Axis::Args),
        (("read", "tool://a/x", true), Axis::Action),
        (("call", "tool://b/x", true), Axis::Resource),
    ] {
        let refused = asked(allow(), vec![], what).unwrap_err();
        assert_eq!((refused.reason, refused.axis), (Reason::NotGranted, Some(axis)), "{what:?}");
    }
    let two =
        vec![grant("tool://a/x", &["read"], Args::Any), grant("tool://b/x", &["call"], Args::Any)];
    let mixed = asked(two, vec![], ("call", "tool://a/x", true)).unwrap_err();
    assert_eq!(mixed.axis, Some(Axis::Action), "two grants do not add up to a third");
}

#[test]
fn a_denial_wins_over_a_grant_where_it_names_both() {
    let allow = || vec![grant("tool://*/**", &["*"], Args::Any)];
    let deny = || vec![denial("tool://a/x", &["call"])];
    let refused = asked(allow(), deny(), ("call", "tool://a/x", true)).unwrap_err();
    assert_eq!((refused.reason, refused.axis), (Reason::Forbidden, Some(Axis::Deny)));
    assert_eq!(asked(allow(), deny(), ("read", "tool://a/x", true)), Ok(()));
    assert_eq!(asked(allow(), deny(), ("call", "tool://a/y", true)), Ok(()));
}

#[test]
fn a_child_as_wide_as_its_parent_is_covered() {
    assert_eq!(refusal(widest()), None);
    let nearer = Terms { expires: 199, not_before: 101, depth: 0, ..widest() };
    assert_eq!(refusal(nearer), None);
}

#[test]
fn a_child_wider_on_any_one_axis_is_refused_by_that_axis() {
    let with = |limits| Terms { limits, ..widest() };
    let allow = |grant| Terms { allow: vec![grant], ..widest() };
    let deny = |deny| Terms { deny, ..widest() };
    for (child, axis) in [
        (allow(grant("tool://b", &["call"], Args::Any)), Axis::Resource),
        (allow(grant("tool://a/x", &["call", "write"], Args::Any)), Axis::Action),
        (allow(grant("tool://a/x", &["*"], Args::Any)), Axis::Action),
        (deny(vec![]), Axis::Deny),
        (deny(vec![denial("tool://a/x/**", &["call"])]), Axis::Deny),
        (deny(vec![denial("tool://a/x", &["call", "read"])]), Axis::Deny),
        (with(Limits { fuel: 11, ..limits() }), Axis::Fuel),
        (with(Limits { memory: 21, ..limits() }), Axis::Memory),
        (with(Limits { time_ms: 31, ..limits() }), Axis::Time),
        (with(Limits { output: 41, ..limits() }), Axis::Output),
        (with(Limits { hosts: hosts(&["https://b.example/** GET"]), ..limits() }), Axis::Hosts),
        (with(Limits { read: patterns(&["file:///w/**"]), ..limits() }), Axis::Read),
        (with(Limits { write: patterns(&["file:///r/**"]), ..limits() }), Axis::Write),
        (with(Limits { secrets: secrets(&["https://*.example"]), ..limits() }), Axis::Secrets),
        (Terms { expires: 201, ..widest() }, Axis::Expiry),
        (Terms { not_before: 99, ..widest() }, Axis::NotBefore),
        (Terms { depth: 3, ..widest() }, Axis::Depth),
        (Terms { audience: None, ..widest() }, Axis::Audience),
        (Terms { audience: Some(gate(2)), ..widest() }, Axis::Audience),
    ] {
        assert_eq!(refusal(child), Some((Reason::Widened, Some(axis))), "{axis:?}");
    }
}

#[test]
fn arguments_are_widened_only_from_none_to_any() {
    let parent =
        |args| Caveats::new(Terms { allow: vec![grant("tool://a", &["call"], args)], ..terms() });
    let child = |args| {
        Caveats::new(Terms { allow: vec![grant("tool://a", &["call"], args)], ..widest() }).unwrap()
    };
    let (any, empty) = (parent(Args::Any).unwrap(), parent(Args::Empty).unwrap());
    assert_eq!(any.covers(&child(Args::Any)), Ok(()));
    assert_eq!(any.covers(&child(Args::Empty)), Ok(()));
    assert_eq!(empty.covers(&child(Args::Empty)), Ok(()));
    assert_eq!(empty.covers(&child(Args::Any)).unwrap_err().axis, Some(Axis::Args));
}

#[test]
fn a_parent_without_audience_leaves_the_choice_to_its_child() {
    let parent = Caveats::new(Terms { audience: None, ..terms() }).unwrap();
    for audience in [None, Some(gate(1))] {
        let child = Caveats::new(Terms { audience, ..widest() }).unwrap();
        assert_eq!(parent.covers(&child), Ok(()));
    }
}

#[test]
fn caveats_hold_their_bounds_and_nothing_beyond() {
    let fails = |terms| Caveats::new(terms).unwrap_err().reason;
    assert_eq!(fails(Terms { not_before: 200, ..terms() }), Reason::Malformed);
    assert!(Caveats::new(Terms { not_before: 199, ..terms() }).is_ok());
    assert!(Caveats::new(Terms { expires: limits::TIME_MAX, ..terms() }).is_ok());
    assert_eq!(fails(Terms { expires: limits::TIME_MAX + 1, ..terms() }), Reason::Malformed);
    assert!(Caveats::new(Terms { depth: 15, ..terms() }).is_ok());
    assert_eq!(fails(Terms { depth: 16, ..terms() }), Reason::Malformed);
    let many = |n| (0..n).map(|n| grant(&format!("tool://a/{n}"), &["call"], Args::Any)).collect();
    assert!(Caveats::new(Terms { allow: many(256), ..terms() }).is_ok());
    assert_eq!(fails(Terms { allow: many(257), ..terms() }), Reason::TooLarge);
}

#[test]
fn limits_hold_their_bounds_and_nothing_beyond() {
    let most = u64::try_from(i64::MAX).unwrap();
    assert!(Limits { fuel: most, ..limits() }.checked().is_ok());
    assert!(Limits { output: most + 1, ..limits() }.checked().is_err());
    for tree in ["file:///a", "tool://a/**"] {
        assert!(Limits { read: patterns(&[tree]), ..limits() }.checked().is_err(), "{tree}");
        assert!(Limits { write: patterns(&[tree]), ..limits() }.checked().is_err(), "{tree}");
    }
    let names = |scheme: &'static str, n| (0..n).map(move |n| format!("{scheme}://h{n}"));
    let many = |n| names("https", n).map(|name| host_tests::rule(&format!("{name}/** GET")));
    assert!(Limits { hosts: many(64).collect(), ..limits() }.checked().is_ok());
    let refused = Limits { hosts: many(65).collect(), ..limits() }.checked().unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
    let trees = |n| (0..n).map(|n| Pattern::parse(&format!("file:///{n}/**")).unwrap()).collect();
    assert!(Limits { read: trees(64), ..limits() }.checked().is_ok());
    let refused = Limits { read: trees(65), ..limits() }.checked().unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
    let many = |n| names("https", n).flat_map(|name| secrets(&[&name]));
    assert!(Limits { secrets: many(16).collect(), ..limits() }.checked().is_ok());
    let refused = Limits { secrets: many(17).collect(), ..limits() }.checked().unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
}

#[test]
fn a_meet_is_what_both_sides_allow() {
    let other = Limits {
        fuel: 11,
        memory: 19,
        time_ms: 31,
        output: 39,
        hosts: hosts(&["https://*.example/** *", "https://b.test/** GET"]),
        read: patterns(&["file:///r/sub/**"]),
        write: patterns(&["file:///else/**"]),
        secrets: secrets(&["https://*.example", "https://b.test"]),
    };
    let expected = Limits {
        fuel: 10,
        memory: 19,
        time_ms: 30,
        output: 39,
        hosts: hosts(&["https://a.example/** GET"]),
        read: patterns(&["file:///r/sub/**"]),
        write: vec![],
        secrets: secrets(&["https://a.example"]),
    };
    assert_eq!(limits().meet(&other), expected);
    assert_eq!(other.meet(&limits()), expected);
}

#[test]
fn what_narrows_meets_as_itself_even_where_its_parent_says_a_thing_twice() {
    let parent = Limits {
        hosts: hosts(&["https://*.example/** *", "https://a.example/** GET"]),
        read: patterns(&["file:///**", "file:///r/**"]),
        ..limits()
    };
    let child = Limits {
        hosts: hosts(&["https://*.example/** *"]),
        read: patterns(&["file:///**"]),
        ..limits()
    };
    assert_eq!(parent.covers(&child), Ok(()));
    assert_eq!(parent.meet(&child), child);
}
