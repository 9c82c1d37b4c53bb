//! What is taken over from the maker of a line is what the line says.

use super::*;
use crate::monitor::Rules as Monitored;

/// The first line: what is counted, so that a decision reaches every part of the state.
fn rules() -> Record {
    let rules = r#"[
        {"name":"rate","match":{"actions":["*"],"resource":"tool://*/**"},
         "rate":{"limit":3,"window":10},"then":"throttle"},
        {"name":"cost","match":{"actions":["call"],"resource":"tool://a/*"},
         "cost":{"limit":9,"window":60},"then":"suspend"}
    ]"#;
    let monitor = Monitored::from_json(rules.as_bytes()).unwrap().as_slice().to_vec();
    let (roots, operators) = (vec![who(0).id().to_string()], Vec::new());
    Record::of(&Rules { policy: "chain_only".to_owned(), roots, operators, monitor }).unwrap()
}

fn read(record: &Record) -> Told {
    match record.kind() {
        LinkSeen::KIND => {
            let entry = LinkSeen::from_body(record.body()).unwrap();
            assert_eq!(entry.to_body().as_deref(), Ok(record.body()), "its only spelling");
            let link = Link::decode(&unbase64(&entry.link).unwrap()).unwrap();
            assert_eq!(hex::encode(link.id()), entry.id);
            Told::Link(Given::of(&link))
        }
        Decision::KIND => {
            let decision = Decision::from_body(record.body()).unwrap();
            let resource = Resource::parse(&decision.resource).unwrap();
            Told::Decision(Box::new((decision, resource)))
        }
        _ => Told::Unread,
    }
}

proptest! {
    /// A state that is told while lines are written and one that reads them afterwards take and
    /// refuse the same, for the same reasons, and are the same after every line.
    #[test]
    fn a_state_that_is_told_is_the_one_that_reads(
        steps in prop::collection::vec((0_u8..12, 0_u8..6, 0_u64..4, 0_u64..40), 1..40),
    ) {
        let (mut told, mut now) = (State::default(), NOW);
        told.take(0, now, &rules()).unwrap();
        let mut reads = told.clone();
        for (index, (what, which, number, wait)) in (1..).zip(steps) {
            now += wait;
            let record = record((what, which, number), now, index);
            prop_assert_eq!(record.told(), &read(&record));
            let took = told.take(index, now, &record);
            prop_assert_eq!(took, reads.apply(index, now, record.kind(), record.body()));
            prop_assert_eq!(told.snapshot().unwrap(), reads.snapshot().unwrap());
        }
    }

    #[test]
    fn a_decision_is_told_as_it_reads_whatever_its_words(
        detail in any::<Option<String>>(),
        witness in any::<Option<String>>(),
        words in prop::collection::vec(any::<String>(), 0..4),
        numbers in any::<(Option<usize>, u64, u64)>(),
    ) {
        let (link, number, expires) = numbers;
        let decision = Decision {
            detail,
            witness,
            link,
            causes: words.clone(),
            labels: words,
            ..decision(&super::link(0, 1, None, 100), false, (0, number), expires)
        };
        let record = answer(decision).unwrap();
        prop_assert_eq!(record.told(), &read(&record));
    }
}

#[test]
fn a_decision_about_another_resource_than_it_says_is_read() {
    let decision = decision(&link(0, 1, None, 100), true, (0, 0), NOW + 60);
    let other = Resource::parse("tool://a/y").unwrap();
    assert_eq!(Record::decision(decision, &other).unwrap().told(), &Told::Unread);
}

#[test]
fn a_link_is_told_with_all_that_the_state_keeps_of_it() {
    let root = link(0, 1, None, 100);
    let child = link(1, 2, Some(&root), 50);
    let (mut told, mut reads) = (State::default(), State::default());
    let orphan = Record::link(&child);
    assert!(told.take(0, NOW, &orphan).is_err(), "its parent was not seen");
    for (index, link) in (0..).zip([&root, &child]) {
        let record = Record::link(link);
        told.take(index, NOW, &record).unwrap();
        reads.apply(index, NOW, record.kind(), record.body()).unwrap();
        assert_eq!(told.links.get(&link.id()), reads.links.get(&link.id()));
        assert!(told.has_seen(&link.id()));
    }
}
