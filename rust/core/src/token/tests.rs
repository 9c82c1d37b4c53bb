//! Chains that are good, and chains that are wrong in one thing, each signed correctly.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::caveat::{Actions, Args, Denial, Grant, Methods, Range, SecretRule, Terms};
use crate::pattern::Pattern;

const NOW: u64 = 1_800_000_000;

fn who(n: u8) -> Identity {
    Identity::from_seed("agent", &[n; 32]).unwrap()
}

fn grant(resource: &str) -> Grant {
    let actions = Actions::new(["call".to_owned()]).unwrap();
    Grant { resource: Pattern::parse(resource).unwrap(), actions, args: Args::Any }
}

fn terms(depth: u64) -> Terms {
    Terms {
        allow: vec![grant("tool://a/**")],
        deny: Vec::new(),
        limits: Limits { fuel: 10, ..Limits::default() },
        not_before: NOW,
        expires: NOW + 100,
        depth,
        audience: None,
        attestations: Vec::new(),
    }
}

/// What the link at a place says when all is well: from `who(at)` to `who(at + 1)`.
fn claims(at: u8, parent: Option<&Link>) -> Claims {
    Claims {
        issuer: who(at).id(),
        holder: who(at + 1).id(),
        issued: NOW,
        nonce: [at; 16],
        parent: parent.map(Link::id),
        index: u64::from(at),
        caveats: Caveats::new(terms(10 - u64::from(at))).unwrap(),
    }
}

/// A chain of three whose second link's claims were changed, and then signed by their issuer.
fn changed(signer: u8, change: impl FnOnce(&mut Claims)) -> Token {
    let first = Link::sign(&who(0), claims(0, None)).unwrap();
    let mut second = claims(1, Some(&first));
    change(&mut second);
    let second = Link::sign(&who(signer), second).unwrap();
    let third = Link::sign(&who(2), claims(2, Some(&second))).unwrap();
    Token::from_links(vec![first, second, third]).unwrap()
}

fn good() -> Token {
    changed(1, |_| {})
}

fn first_only(change: impl FnOnce(&mut Claims)) -> Token {
    let mut first = claims(0, None);
    change(&mut first);
    Token::from_links(vec![Link::sign(&who(0), first).unwrap()]).unwrap()
}

fn refused(result: Result<()>) -> (Reason, Option<usize>) {
    let error = result.unwrap_err();
    (error.reason, error.link)
}

#[test]
fn a_token_reads_back_as_it_was_written() {
    let stamp = |holder: u8| Stamp { holder: who(holder).id(), now: NOW, nonce: [holder; 16] };
    let root = Token::issue(&who(0), stamp(1), Caveats::new(terms(2)).unwrap()).unwrap();
    let token = root.attenuate(&who(1), stamp(2), Caveats::new(terms(1)).unwrap()).unwrap();
    assert_eq!(Token::decode(token.as_bytes()).unwrap(), token);
    assert_eq!(Token::parse(&token.to_text()).unwrap(), token);
    assert_eq!((token.links().len(), token.leaf().unwrap().claims().index), (2, 1));
    assert_eq!(token.links()[1].claims().parent, Some(token.links()[0].id()));
    assert_eq!(token.verify(&[who(0).id()], Some(&who(9).id()), NOW), Ok(()));
    let other = root.attenuate(&who(2), stamp(2), Caveats::new(terms(1)).unwrap());
    assert_eq!(other.unwrap_err().reason, Reason::WrongHolder);
    let wide = root.attenuate(&who(1), stamp(2), Caveats::new(terms(2)).unwrap()).unwrap_err();
    assert_eq!((wide.reason, wide.link), (Reason::Widened, Some(1)));
}

#[test]
fn a_chain_that_does_not_follow_is_refused_at_its_link() {
    let roots = [who(0).id()];
    assert_eq!(good().authenticate(&roots), Ok(()));
    let at = |token: Token| refused(token.authenticate(&roots));
    let broken = (Reason::BrokenChain, Some(1));
    assert_eq!(at(changed(7, |it| it.issuer = who(7).id())), broken);
    assert_eq!(at(changed(1, |it| it.parent = None)), broken);
    assert_eq!(at(changed(1, |it| it.parent = Some([5; 32]))), broken);
    assert_eq!(at(changed(1, |it| it.index = 2)), broken);
    assert_eq!(at(first_only(|it| it.parent = Some([5; 32]))), (Reason::BrokenChain, Some(0)));
    assert_eq!(at(first_only(|it| it.index = 1)), (Reason::BrokenChain, Some(0)));
}

#[test]
fn a_link_that_another_key_signed_is_refused() {
    let forged = changed(7, |_| {});
    let expected = (Reason::BadSignature, Some(1));
    assert_eq!(refused(forged.authenticate(&[who(0).id()])), expected);
    assert_eq!(refused(forged.verify(&[who(0).id()], None, NOW)), expected);
}

#[test]
fn a_chain_starts_at_a_root_or_nowhere() {
    let unknown = (Reason::UnknownRoot, Some(0));
    for roots in [vec![], vec![who(1).id()], vec![who(2).id(), who(3).id()]] {
        assert_eq!(refused(good().check_root(&roots)), unknown);
        assert_eq!(refused(good().authenticate(&roots)), unknown);
        assert_eq!(refused(good().verify(&roots, None, NOW)), unknown);
    }
    assert_eq!(good().check_root(&[who(3).id(), who(0).id()]), Ok(()));
}

#[test]
fn a_link_lives_from_its_start_within_the_skew_to_its_expiry_without() {
    let at = |token: &Token, now| token.check_times(now).err().map(|it| (it.reason, it.link));
    let short = |it: &mut Claims| {
        it.caveats = Caveats::new(Terms { expires: NOW + 50, ..terms(9) }).unwrap();
    };
    let token = changed(1, short);
    assert_eq!(token.expires(), NOW + 50);
    assert_eq!(at(&token, NOW + 49), None);
    assert_eq!(at(&token, NOW + 50), Some((Reason::Expired, Some(1))));
    assert_eq!(at(&token, NOW - 60), None);
    assert_eq!(at(&token, NOW - 61), Some((Reason::NotYetValid, Some(0))));
    let dated = changed(1, |it| it.issued = NOW + 1);
    assert_eq!(at(&dated, NOW - 60), Some((Reason::NotYetValid, Some(1))));
    let starting = |it: &mut Claims| {
        it.caveats = Caveats::new(Terms { not_before: NOW + 1, ..terms(9) }).unwrap();
    };
    assert_eq!(at(&changed(1, starting), NOW - 60), Some((Reason::NotYetValid, Some(1))));
    assert_eq!(refused(token.verify(&[who(0).id()], None, NOW + 50)), (Reason::Expired, Some(1)));
}

#[test]
fn one_bound_link_binds_the_chain_to_its_gate() {
    let bound = changed(1, |it| {
        it.caveats = Caveats::new(Terms { audience: Some(who(9).id()), ..terms(9) }).unwrap();
    });
    assert_eq!(bound.check_audience(&who(9).id()), Ok(()));
    assert_eq!(refused(bound.check_audience(&who(8).id())), (Reason::WrongGate, Some(1)));
    let whole = bound.verify(&[who(0).id()], Some(&who(8).id()), NOW);
    assert_eq!(refused(whole), (Reason::WrongGate, Some(1)));
}

#[test]
fn every_link_is_compared_and_every_link_is_asked() {
    let change = |pattern: &'static str| {
        move |it: &mut Claims| {
            let allow = vec![grant(pattern)];
            let limits = Limits { fuel: 7, ..Limits::default() };
            it.caveats = Caveats::new(Terms { allow, limits, ..terms(9) }).unwrap();
        }
    };
    let wide = changed(1, change("tool://*/**"));
    assert_eq!(refused(wide.narrowing()), (Reason::Widened, Some(1)));
    assert_eq!(refused(wide.verify(&[who(0).id()], None, NOW)), (Reason::Widened, Some(1)));
    // The third link of this one is wider than the second, which still counts.
    let narrow = changed(1, change("tool://a/x"));
    let ask =
        |text: &str| narrow.permits(&Request::new("call", &Resource::parse(text).unwrap(), true));
    assert_eq!(ask("tool://a/x"), Ok(()));
    assert_eq!(refused(ask("tool://a/y")), (Reason::NotGranted, Some(1)));
    assert_eq!(refused(narrow.narrowing()), (Reason::Widened, Some(2)));
    assert_eq!(narrow.limits().fuel, 7);
}

#[test]
fn a_token_is_some_links_and_nothing_after_them() {
    assert!(Token::decode(&[0x80]).is_err(), "no links");
    let mut longer = good().as_bytes().to_vec();
    longer.push(0);
    assert!(Token::decode(&longer).is_err(), "a byte too many");
    for text in ["", "moat1.", "moat2.gA", "gA"] {
        assert!(Token::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_chain_has_at_most_sixteen_links() {
    let link = |_| Link::sign(&who(0), claims(0, None)).unwrap();
    let full = Token::from_links((0..16).map(link).collect()).unwrap();
    assert!(Token::decode(full.as_bytes()).is_ok());
    let refused = Token::from_links((0..17).map(link).collect()).unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
}

/// A link whose size grows by one byte with `last`.
fn long_link(last: usize) -> Result<Link> {
    let long = |n: usize, length: usize| grant(&format!("tool://a/{n:02}{}", "x".repeat(length)));
    let mut allow: Vec<_> = (0..15).map(|n| long(n, 490)).collect();
    allow.push(long(15, last));
    let caveats = Caveats::new(Terms { allow, ..terms(10) }).unwrap();
    Link::sign(&who(0), Claims { caveats, ..claims(0, None) })
}

#[test]
fn the_bytes_of_a_link_are_bounded_when_signed_and_when_read() {
    let mut links = (1..490)
        .map(long_link)
        .skip_while(|link| link.as_ref().is_ok_and(|it| it.as_bytes().len() < limits::LINK_BYTES));
    let largest = links.next().unwrap().unwrap();
    assert_eq!(largest.as_bytes().len(), limits::LINK_BYTES);
    assert_eq!(Link::decode(largest.as_bytes()).unwrap(), largest);
    assert_eq!(links.next().unwrap().unwrap_err().reason, Reason::TooLarge);
    let over = vec![0; limits::LINK_BYTES + 1];
    assert_eq!(Link::decode(&over).unwrap_err().reason, Reason::TooLarge);
}

#[test]
fn the_bytes_of_a_chain_are_bounded_when_built_and_when_read() {
    let of = |size: usize| {
        let mut all = (1..490).map_while(|last| long_link(last).ok());
        all.find(|link| link.as_bytes().len() == size).unwrap()
    };
    // A header of one byte for the chain and of three for each link.
    let rest = limits::CHAIN_BYTES - 1 - 8 * 3 - 7 * limits::LINK_BYTES;
    let chain = |last: Link| {
        let mut links = vec![of(limits::LINK_BYTES); 7];
        links.push(last);
        Token::from_links(links)
    };
    let largest = chain(of(rest)).unwrap();
    assert_eq!(largest.as_bytes().len(), limits::CHAIN_BYTES);
    assert_eq!(Token::decode(largest.as_bytes()).unwrap(), largest);
    for over in [rest + 1, rest + 2] {
        assert_eq!(chain(of(over)).unwrap_err().reason, Reason::TooLarge);
    }
    let over = vec![0; limits::CHAIN_BYTES + 2];
    for over in [&over[1..], &over[..]] {
        assert_eq!(Token::decode(over).unwrap_err().reason, Reason::TooLarge);
    }
}

#[test]
fn every_kind_of_caveat_reads_back_as_it_was_written() {
    let patterns = |text: &str| vec![Pattern::parse(text).unwrap()];
    let Grant { resource, actions, .. } = grant("tool://a/x");
    let terms = Terms {
        allow: vec![Grant { args: Args::Empty, ..grant("tool://a/**") }, grant("tool://b")],
        deny: vec![Denial { resource, actions }],
        limits: Limits {
            fuel: 1,
            memory: 2,
            time_ms: 3,
            output: 4,
            hosts: vec![host("https://a.example/**", &["GET", "POST"], &["10.0.0.0/8"])],
            read: patterns("file:///r/**"),
            write: patterns("file:///w/**"),
            secrets: vec![secret()],
        },
        audience: Some(who(9).id()),
        ..terms(3)
    };
    let token = first_only(|it| it.caveats = Caveats::new(terms).unwrap());
    assert_eq!(Token::decode(token.as_bytes()).unwrap(), token);
}

fn host(pattern: &str, methods: &[&str], ranges: &[&str]) -> HostRule {
    let methods = Methods::new(methods.iter().map(ToString::to_string)).unwrap();
    let ranges = ranges.iter().map(|text| Range::parse(text).unwrap());
    HostRule::new(Pattern::parse(pattern).unwrap(), methods, ranges.collect()).unwrap()
}

fn secret() -> SecretRule {
    let (handle, host) = ("secret://key", "https://a.example");
    let (handle, host) = (Resource::parse(handle).unwrap(), Pattern::parse(host).unwrap());
    SecretRule::new(handle, host, "authorization".to_owned()).unwrap()
}

#[test]
fn a_request_over_the_network_is_asked_of_every_link() {
    let link = |hosts| {
        let limits = Limits { hosts, ..Limits::default() };
        first_only(|it| it.caveats = Caveats::new(Terms { limits, ..terms(3) }).unwrap()).links
    };
    let free = link(vec![host("https://*/**", &["GET"], &[])]);
    let own = link(vec![
        host("https://a.example/x/**", &["*"], &[]),
        host("https://a.example/**", &["GET"], &["10.0.0.0/8"]),
    ]);
    let token = Token::from_links([free, own].concat()).unwrap();
    let reach = |method, text| token.reach(method, &Resource::parse(text).unwrap());
    let found = reach("GET", "https://a.example/x/y").unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(reach("POST", "https://a.example/x").unwrap_err().link, Some(0));
    let refused = reach("GET", "https://b.example").unwrap_err();
    assert_eq!((refused.link, refused.axis), (Some(1), Some(Axis::Hosts)));
    assert_eq!(refused.reason, Reason::NotGranted);
}
