//! Effects under way: what is remembered while their outcome is not known.

use super::*;

const RATE: &str = r#"{"name":"rate","rate":{"limit":9,"window":10},"then":"throttle"}"#;
const FUEL: &str = r#"{"name":"fuel","cost":{"limit":100,"of":"fuel"},"then":"throttle"}"#;
const MORE: &str = r#"{"name":"more","rate":{"limit":8,"window":10},"then":"throttle"}"#;

fn knows(monitor: &Monitor, n: u32) -> bool {
    monitor.table.get(&agent(n)).is_some()
}

#[test]
fn what_the_monitor_refused_is_told_from_what_was_denied() {
    assert_eq!(Verdict::of(None), Verdict::Allowed);
    for reason in [Reason::Throttled, Reason::OutOfOrder, Reason::MonitorFull] {
        assert_eq!(Verdict::of(Some(reason.code())), Verdict::Refused);
    }
    assert_eq!(Verdict::of(Some(Reason::Revoked.code())), Verdict::Denied);
}

#[test]
fn an_agent_is_remembered_until_its_last_effect_has_ended() {
    let mut world = World::new(&format!("[{FUEL}]"));
    assert!(world.call(NOW, &[1, 2]) && world.call(NOW, &[1, 2]));
    world.monitor.advance(NOW + 100_000);
    assert!(knows(&world.monitor, 2));
    world.monitor.spent(1, None, NOW + 100_000);
    assert!(knows(&world.monitor, 2), "the other one is under way");
    world.monitor.spent(2, None, NOW + 100_000);
    assert!(!knows(&world.monitor, 2) && !knows(&world.monitor, 1));
}

#[test]
fn fuel_of_one_that_was_forgotten_counts_where_it_lasts() {
    let mut world = World::new(&format!("[{FUEL}]"));
    assert!(world.call(NOW, &[1, 2]));
    world.monitor.reset(&agent(1));
    world.monitor.reset(&agent(2));
    world.monitor.spent(1, Some(100), NOW);
    assert!(knows(&world.monitor, 1) && !knows(&world.monitor, 2));
    assert!(!world.call(NOW, &[1]));
}

#[test]
fn an_effect_goes_on_under_the_rules_that_stay_and_ends_with_those_that_go() {
    let mut world = World::new(&format!("[{RATE},{FUEL}]"));
    assert!(world.call(NOW, &[1, 2]));
    let mut gone = world.monitor.clone();
    world.monitor.set_rules(rules(&format!("[{MORE},{RATE},{FUEL}]")));
    world.monitor.advance(NOW + 100);
    assert!(knows(&world.monitor, 2), "under way, by the rule that stays");
    world.monitor.spent(1, Some(100), NOW + 100);
    assert!(!world.call(NOW + 100, &[1]));
    gone.set_rules(rules(&format!("[{RATE}]")));
    assert!(knows(&gone, 2), "its rate still counts");
    gone.advance(NOW + 100);
    assert!(!knows(&gone, 2), "and nothing is under way by rules that are gone");
}

#[test]
fn an_effect_ends_with_its_rule_whatever_rule_takes_the_place() {
    // A rule of the old name with another limit is another rule, and so is one beside it.
    let other = FUEL.replace("100", "99");
    for changed in [format!("[{RATE},{other}]"), format!("[{RATE},{MORE}]")] {
        let mut world = World::new(&format!("[{RATE},{FUEL}]"));
        assert!(world.call(NOW, &[1]));
        world.monitor.set_rules(rules(&changed));
        let open = |item: &Item| matches!(item, Item::Open(_));
        assert!(!world.monitor.snapshot().iter().any(open), "{changed}");
        world.monitor.advance(NOW + 100);
        assert_eq!(world.monitor.snapshot(), [], "{changed}");
    }
}

#[test]
fn an_agent_that_is_back_in_the_first_state_is_forgotten() {
    let json = r#"[{"name":"m","machine":{"initial":"a","transitions":[
        {"from":"a","to":"b","match":{"resource":"tool://b"}},
        {"from":"b","to":"a","match":{"resource":"tool://a"}}]},"then":"throttle"}]"#;
    let mut world = World::new(json);
    for (resource, remembered) in [("tool://b", true), ("tool://a", false)] {
        assert_eq!(world.asks(NOW, &[1], resource).0, None);
        assert_eq!(knows(&world.monitor, 1), remembered, "{resource}");
    }
}

#[test]
fn a_sequence_looks_at_what_fits_one_of_its_steps() {
    let step = |verdict| format!(r#"{{"resource":"file:///**","verdict":"{verdict}"}}"#);
    let steps = [step("any"), step("allowed")].join(",");
    let sequence =
        format!(r#"{{"name":"s","sequence":{{"steps":[{steps}],"within":9}},"then":"throttle"}}"#);
    let nobody = RATE.replace(r#","rate""#, r#","match":{"actions":["other"]},"rate""#);
    let monitor = monitor(&format!("[{nobody},{sequence}]"));
    for (resource, bits) in [("file:///a", 0b10), ("tool://a", 0)] {
        let matched = monitor.matching("call", &Resource::parse(resource).unwrap());
        assert_eq!((matched.looking(true), matched.looking(false)), (bits, bits), "{resource}");
        assert_eq!(matched.is_empty(), bits == 0);
    }
}

#[test]
fn a_place_that_becomes_free_is_one_place() {
    let mut world = World::new(&format!("[{FUEL}]"));
    let most = u32::try_from(SUBJECTS_PER_PRINCIPAL).unwrap();
    for n in (2..).take(SUBJECTS_PER_PRINCIPAL - 1) {
        assert!(world.call(NOW, &[1, n]));
    }
    assert!(!world.monitor.table.has_room(&agent(1), 1));
    world.monitor.reset(&agent(most));
    assert!(world.monitor.table.has_room(&agent(1), 1));
    assert!(!world.monitor.table.has_room(&agent(1), 2));
}

#[test]
fn a_rule_file_has_so_many_bytes_and_a_sequence_so_many_steps() {
    let padded = |size: usize| format!("{:size$}", format!("[{FUEL}]"));
    assert!(Rules::from_json(padded(32_768).as_bytes()).is_ok());
    let over = Rules::from_json(padded(32_769).as_bytes()).unwrap_err();
    assert_eq!(over.reason, Reason::TooLarge);
    let sequence = |steps: usize| {
        let steps = vec![r#"{"actions":["call"]}"#; steps].join(",");
        format!(r#"[{{"name":"s","sequence":{{"within":9,"steps":[{steps}]}},"then":"throttle"}}]"#)
    };
    assert!(Rules::from_json(sequence(8).as_bytes()).is_ok());
    assert!(Rules::from_json(sequence(9).as_bytes()).is_err());
}

#[test]
fn an_alert_says_how_much_fuel_was_used() {
    let mut world = World::new(&format!("[{}]", FUEL.replace("throttle", "alert")));
    assert!(world.call(NOW, &[1]));
    world.monitor.spent(1, Some(100), NOW);
    let (answer, alerts) = world.decide(NOW, &[1], "tool://mail/send", true);
    assert_eq!((answer, alerts[0].count), (Ok(()), 100));
}

#[test]
fn a_step_in_the_middle_may_be_one_that_was_denied() {
    let json = r#"[{"name":"s","sequence":{"steps":[{"resource":"file:///**"},
        {"resource":"tool://*/**","verdict":"denied"},{"resource":"https://*/**"}],"within":60},
        "then":"throttle"}]"#;
    for (allowed, reason) in [(true, None), (false, Some(Reason::OutOfOrder))] {
        let mut world = World::new(json);
        assert_eq!(world.asks(NOW, &[1], "file:///a").0, None);
        drop(world.decide(NOW, &[1], "tool://a/x", allowed));
        assert_eq!(world.asks(NOW, &[1], "https://example.com").0, reason);
    }
}
