//! Which rules are read, and how they are written.

use super::super::*;
use super::{chain, monitor, rules};

fn refused(json: &str) -> String {
    Rules::from_json(json.as_bytes()).unwrap_err().detail
}

fn rule(body: &str) -> String {
    format!(r#"[{{"name":"r",{body},"then":"alert"}}]"#)
}

#[test]
fn a_rule_has_one_spelling() {
    let json = r#" [ {"then":"throttle", "name":"mail",
        "cost":{"window":60,"each":1,"of":"calls","limit":5},
        "match":{"verdict":"allowed","actions":["send","call","send"],"resource":"tool://m/**"}} ] "#;
    let canonical = r#"[{"name":"mail","match":{"actions":["call","send"],"resource":"tool://m/**"},"cost":{"limit":5,"window":60},"then":"throttle"}]"#;
    let text = String::from_utf8(rules(json).to_json().unwrap()).unwrap();
    assert_eq!(text, canonical);
    assert_eq!(rules(&text).to_json().unwrap(), text.as_bytes());
}

#[test]
fn every_kind_is_written_as_it_was_read() {
    for body in [
        r#""rate":{"limit":5,"window":60}"#,
        r#""match":{"verdict":"any"},"rate":{"limit":0,"window":604800}"#,
        r#""cost":{"limit":9007199254740992,"each":7}"#,
        r#""cost":{"limit":5,"of":"fuel","window":1}"#,
        r#""sequence":{"steps":[{"verdict":"denied"},{"actions":["call"]}],"within":5}"#,
        r#""machine":{"initial":"a","transitions":[{"from":"a","to":"b"},{"from":"b","to":"a","match":{"resource":"tool://x"}}]}"#,
    ] {
        let json = rule(body);
        assert_eq!(rules(&json).to_json().unwrap(), json.as_bytes());
    }
}

#[test]
fn what_follows_has_the_same_word_in_rules_and_alone() {
    for then in [Then::Alert, Then::Throttle, Then::Suspend] {
        assert_eq!(serde_json::to_value(then).unwrap(), then.code());
    }
}

#[test]
fn only_rules_without_a_rule_are_empty() {
    assert!(rules("[]").is_empty() && Rules::default().is_empty());
    assert!(!rules(&rule(r#""rate":{"limit":5,"window":60}"#)).is_empty());
}

#[test]
fn what_is_wrong_is_named() {
    for (body, text) in [
        (r#""rate":{"limit":5,"window":0}"#, "rule `r`: `rate.window`"),
        (r#""rate":{"limit":5,"window":604801}"#, "rule `r`: `rate.window`"),
        (r#""rate":{"limit":9007199254740993,"window":1}"#, "rule `r`: `rate.limit`"),
        (r#""rate":{"limit":5,"window":60,"x":1}"#, "rule `r`: unknown field `x`"),
        (r#""rate":{"limit":5.5,"window":60}"#, "rule `r`: invalid type"),
        (r#""rate":{"limit":-1,"window":60}"#, "rule `r`: invalid value"),
        (
            r#""rate":{"limit":5,"window":60},"cost":{"limit":1}"#,
            "rule `r`: a rule has exactly one",
        ),
        (r#""match":{}"#, "rule `r`: a rule has exactly one"),
        (r#""cost":{"limit":5,"each":0}"#, "`cost.each`"),
        (r#""cost":{"limit":5,"each":2,"of":"fuel"}"#, "`cost.each`"),
        (r#""match":{"verdict":"any"},"cost":{"limit":5,"of":"fuel"}"#, "`match.verdict`"),
        (r#""match":{"actions":[]},"rate":{"limit":5,"window":60}"#, "`match.actions`"),
        (r#""match":{"actions":["CALL"]},"rate":{"limit":5,"window":60}"#, "`match.actions`"),
        (
            r#""match":{"resource":"tool://a/../b"},"rate":{"limit":5,"window":60}"#,
            "`match.resource`",
        ),
        (r#""sequence":{"steps":[{}],"within":5}"#, "`sequence.steps`"),
        (r#""sequence":{"steps":[{},{},{},{},{},{},{},{},{}],"within":5}"#, "`sequence.steps`"),
        (r#""sequence":{"steps":[{},{}],"within":0}"#, "`sequence.within`"),
        (
            r#""sequence":{"steps":[{},{"resource":"x"}],"within":5}"#,
            "`sequence.steps[1].resource`",
        ),
        (r#""match":{"actions":["call"]},"sequence":{"steps":[{},{}],"within":5}"#, "`match`"),
        (r#""machine":{"initial":"a","transitions":[]}"#, "`machine.transitions`"),
        (r#""machine":{"initial":"A","transitions":[{"from":"a","to":"a"}]}"#, "`machine.initial`"),
        (
            r#""machine":{"initial":"a","transitions":[{"from":"b","to":"a"}]}"#,
            "no transition reaches `b`",
        ),
        (
            r#""machine":{"initial":"a","transitions":[{"from":"a","to":"a","match":{"verdict":"any"}}]}"#,
            "`machine.transitions[0].match.verdict`",
        ),
        (
            r#""match":{"verdict":"denied"},"machine":{"initial":"a","transitions":[{"from":"a","to":"a"}]}"#,
            "`match.verdict`",
        ),
    ] {
        let found = refused(&rule(body));
        assert!(found.contains(text), "{body}: {found}");
    }
    for name in ["", "-a", ".a", "A", "a b", "ä", "a\\n", &"a".repeat(64)] {
        let found = refused(
            &rule(r#""rate":{"limit":5,"window":60}"#).replace("\"r\"", &format!("\"{name}\"")),
        );
        assert!(found.contains("`name`"), "{name}: {found}");
    }
    let one = r#"{"name":"r","rate":{"limit":5,"window":60},"then":"alert"}"#;
    assert!(refused(&format!("[{one},{one}]")).contains("two rules have the name `r`"));
    assert!(refused("{}").contains("the rules do not read"));
    assert!(refused(&one.replace("\"then\"", "\"name\":\"s\",\"then\"")).contains("do not read"));
}

#[test]
fn what_is_denied_cannot_be_throttled() {
    for body in [
        r#""match":{"verdict":"denied"},"rate":{"limit":5,"window":60}"#,
        r#""match":{"verdict":"denied"},"cost":{"limit":5}"#,
        r#""sequence":{"steps":[{},{"verdict":"denied"}],"within":5}"#,
    ] {
        let json = rule(body);
        assert!(Rules::from_json(json.as_bytes()).is_ok());
        assert!(refused(&json.replace("alert", "throttle")).contains("`then`"));
    }
}

#[test]
fn there_are_so_many_rules_and_no_more() {
    let many = |count: usize, pad: usize| {
        let one = |n| {
            format!(
                r#"{{"name":"r{n}{}","rate":{{"limit":5,"window":60}},"then":"alert"}}"#,
                "x".repeat(pad)
            )
        };
        format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","))
    };
    assert_eq!(rules(&many(64, 0)).as_slice().len(), 64);
    assert!(refused(&many(65, 0)).contains("65 rules, at most 64"));
    let machine = |count: usize| {
        let one = r#"{"from":"a","to":"a","match":{"resource":"tool://x"}}"#;
        rule(&format!(
            r#""machine":{{"initial":"a","transitions":[{}]}}"#,
            vec![one; count].join(",")
        ))
    };
    assert!(Rules::from_json(machine(64).as_bytes()).is_ok());
    assert!(refused(&machine(65)).contains("not 1 to 64"));
    let huge = format!("[{}{}]", " ".repeat(40_000), "");
    assert!(refused(&huge).contains("bytes of rules, at most 32768"));
}

#[test]
fn the_last_of_64_transitions_and_rules_is_one_like_the_first() {
    let mut transitions = vec![r#"{"from":"a","to":"a","match":{"resource":"tool://x"}}"#; 63];
    transitions.push(r#"{"from":"a","to":"a","match":{"resource":"tool://y"}}"#);
    let machine =
        format!(r#""machine":{{"initial":"a","transitions":[{}]}}"#, transitions.join(","));
    let mut all: Vec<_> = (0..63)
        .map(|n| format!(r#"{{"name":"r{n}","rate":{{"limit":9,"window":60}},"then":"alert"}}"#))
        .collect();
    all.push(format!(r#"{{"name":"m",{machine},"then":"throttle"}}"#));
    let monitor = monitor(&format!("[{}]", all.join(",")));
    let subjects = chain(&[1]);
    for (resource, fine) in [("tool://x", true), ("tool://y", true), ("tool://z", false)] {
        let matched = monitor.matching("call", &Resource::parse(resource).unwrap());
        let event = Event { subjects: &subjects, matched: &matched, time: 1 };
        assert_eq!(monitor.check(&event, true).0.is_ok(), fine, "{resource}");
    }
}

/// A monitor at second 100 with a rule of every kind.
fn fresh() -> Monitor {
    let mut fresh = monitor(
        r#"[{"name":"w","rate":{"limit":5,"window":60},"then":"alert"},
            {"name":"t","cost":{"limit":5,"of":"fuel"},"then":"alert"},
            {"name":"s","sequence":{"steps":[{},{},{}],"within":9},"then":"alert"},
            {"name":"m","machine":{"initial":"a","transitions":[{"from":"a","to":"b"}]},"then":"alert"}]"#,
    );
    fresh.advance(100);
    fresh
}

fn row(cells: &str) -> String {
    let who = super::agent(1);
    format!(
        r#"{{"row":{{"agent":"{who}","principal":"{who}","lasting":true,"open":0,"cells":[{cells}]}}}}"#
    )
}

#[test]
fn items_are_restored_and_written_again_as_they_were() {
    for cells in [
        r#"{"rule":"w","buckets":[[24,1],[25,2]]}"#,
        r#"{"rule":"w","buckets":[[253402300799,1]]}"#,
        r#"{"rule":"w","mute":101}"#,
        r#"{"rule":"t","total":3}"#,
        r#"{"rule":"s","starts":[[0,99],[1,98]]}"#,
        r#"{"rule":"s","starts":[[1,98]]}"#,
        r#"{"rule":"s","starts":[[0,91]]}"#,
        r#"{"rule":"s","starts":[[0,253402300799]]}"#,
        r#"{"rule":"w","buckets":[[25,288230376151711744]]}"#,
        r#"{"rule":"m","state":"b"}"#,
        r#"{"rule":"w","buckets":[[24,1]]},{"rule":"m","state":"b"}"#,
    ] {
        let mut monitor = fresh();
        monitor.restore(&serde_json::from_str(&row(cells)).unwrap()).unwrap();
        let again = serde_json::to_string(&monitor.snapshot()).unwrap();
        assert_eq!(again, format!("[{}]", row(cells)));
    }
}

#[test]
fn items_that_no_snapshot_has_are_refused() {
    let who = super::agent(1).to_string();
    let restore = |json: &str| fresh().restore(&serde_json::from_str(json).unwrap());
    for cells in [
        "",
        r#"{"rule":"w"}"#,
        r#"{"rule":"w","mute":100}"#,
        r#"{"rule":"w","buckets":[[1,1]]}"#,
        r#"{"rule":"w","buckets":[[25,1],[24,2]]}"#,
        r#"{"rule":"w","buckets":[[24,1],[24,2]]}"#,
        r#"{"rule":"w","buckets":[[9,1],[25,2]]}"#,
        r#"{"rule":"w","buckets":[[25,0]]}"#,
        r#"{"rule":"w","buckets":[[25,288230376151711745]]}"#,
        r#"{"rule":"w","buckets":[[25,18446744073709551615]]}"#,
        r#"{"rule":"w","buckets":[[18446744073709551615,1]]}"#,
        r#"{"rule":"w","buckets":[[253402300800,1]]}"#,
        r#"{"rule":"w","total":3}"#,
        r#"{"rule":"x","total":3}"#,
        r#"{"rule":"t","state":"b"}"#,
        r#"{"rule":"s","starts":[[2,99]]}"#,
        r#"{"rule":"s","starts":[[1,98],[0,99]]}"#,
        r#"{"rule":"s","starts":[[0,98],[0,99]]}"#,
        r#"{"rule":"s","starts":[[1,98],[1,99]]}"#,
        r#"{"rule":"s","starts":[[0,253402300800]]}"#,
        r#"{"rule":"s","starts":[[7,98]]}"#,
        r#"{"rule":"m","state":"a"}"#,
        r#"{"rule":"m","mute":101,"state":"a"}"#,
        r#"{"rule":"m","state":"c"}"#,
        r#"{"rule":"m","state":"b"},{"rule":"w","buckets":[[24,1]]}"#,
        r#"{"rule":"t","total":3},{"rule":"t","total":3}"#,
    ] {
        assert!(restore(&row(cells)).is_err(), "{cells}");
    }
    let mut twice = fresh();
    let item = serde_json::from_str(&row(r#"{"rule":"t","total":3}"#)).unwrap();
    twice.restore(&item).unwrap();
    assert!(twice.restore(&item).is_err());
    let open = |rules: &str, subjects: &str| {
        format!(r#"{{"open":{{"decision":5,"rules":[{rules}],"subjects":[{subjects}]}}}}"#)
    };
    let holder = format!(r#"["{who}",true]"#);
    restore(&open(r#""t""#, &holder)).unwrap();
    for (rules, subjects) in
        [(r#""w""#, &*holder), ("", &holder), (r#""t""#, ""), (r#""x""#, &holder)]
    {
        assert!(restore(&open(rules, subjects)).is_err());
    }
}
