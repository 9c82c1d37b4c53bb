//! The monitor by example; its laws are in `laws`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod laws;
mod open;
mod reading;

use super::*;
use crate::caveat::UNMETERED;
use crate::error::Error;
use crate::key::Identity;
use crate::limits::{SUBJECTS, SUBJECTS_PER_PRINCIPAL};

const NOW: u64 = 1_800_000_000;

/// Keys that need not be on the curve: nothing here verifies.
pub(super) fn agent(n: u32) -> AgentId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    AgentId::from_bytes(bytes).unwrap()
}

/// A chain: its first holder lasts, and so do those above 1000.
pub(super) fn chain(agents: &[u32]) -> Vec<Subject> {
    let subject =
        |(at, n): (usize, &u32)| Subject { agent: agent(*n), lasting: at == 0 || *n > 1000 };
    agents.iter().enumerate().map(subject).collect()
}

pub(super) fn rules(json: &str) -> Rules {
    Rules::from_json(json.as_bytes()).unwrap()
}

pub(super) fn monitor(json: &str) -> Monitor {
    let mut monitor = Monitor::default();
    monitor.set_rules(rules(json));
    monitor
}

/// A monitor with a gate around it: each request is one decision.
pub(super) struct World {
    pub(super) monitor: Monitor,
    pub(super) index: u64,
}

impl World {
    pub(super) fn new(json: &str) -> Self {
        Self { monitor: monitor(json), index: 0 }
    }

    pub(super) fn decide(
        &mut self,
        time: u64,
        agents: &[u32],
        resource: &str,
        allowed: bool,
    ) -> (Result<()>, Vec<Alert>) {
        let subjects = chain(agents);
        let matched = self.monitor.matching("call", &Resource::parse(resource).unwrap());
        let event = Event { subjects: &subjects, matched: &matched, time };
        self.monitor.advance(time);
        let (answer, alerts) = self.monitor.check(&event, allowed);
        let verdict = match (&answer, allowed) {
            (_, false) => Verdict::Denied,
            (Ok(()), true) => Verdict::Allowed,
            (Err(error), true) => Verdict::of(Some(error.reason.code())),
        };
        self.index += 1;
        self.monitor.count(&event, verdict, self.index);
        (answer, alerts)
    }

    /// Whether a call is let through.
    pub(super) fn call(&mut self, time: u64, agents: &[u32]) -> bool {
        self.decide(time, agents, "tool://mail/send", true).0.is_ok()
    }

    /// The reason of a call's refusal, and whom alerts are about.
    fn asks(
        &mut self,
        time: u64,
        agents: &[u32],
        resource: &str,
    ) -> (Option<Reason>, Vec<AgentId>) {
        let (answer, alerts) = self.decide(time, agents, resource, true);
        let reason = answer.err().map(|error: Error| error.reason);
        (reason, alerts.into_iter().map(|alert| alert.agent).collect())
    }
}

fn rate(limit: u64, window: u64, then: &str) -> String {
    format!(r#"[{{"name":"r","rate":{{"limit":{limit},"window":{window}}},"then":"{then}"}}]"#)
}

#[test]
fn the_request_over_a_rate_is_throttled_and_not_counted() {
    let mut world = World::new(&rate(2, 10, "throttle"));
    assert!(world.call(NOW, &[1]));
    assert!(world.call(NOW + 1, &[1]));
    for time in NOW + 1..NOW + 10 {
        let (answer, _) = world.decide(time, &[1], "tool://mail/send", true);
        assert_eq!(answer.unwrap_err().reason, Reason::Throttled);
    }
    assert!(world.call(NOW + 10, &[1]), "the first call is ten seconds old");
    assert!(!world.call(NOW + 10, &[1]));
    assert!(world.call(NOW + 11, &[1]));
}

#[test]
fn an_alert_lets_the_request_go_on_and_is_written_at_the_edge_only() {
    let mut world = World::new(&rate(2, 10, "alert"));
    let mut alerts = Vec::new();
    for time in NOW..NOW + 30 {
        let (answer, new) = world.decide(time, &[1], "tool://mail/send", true);
        assert!(answer.is_ok());
        alerts.extend(new.into_iter().map(|alert| (time, alert.count, alert.detail)));
    }
    let detail = "rule `r` allows 2 in 10 s".to_owned();
    assert_eq!(alerts, [(NOW + 2, 3, detail)]);
    assert!(world.call(NOW + 60, &[1]) && world.call(NOW + 60, &[1]));
    let (_, again) = world.decide(NOW + 60, &[1], "tool://mail/send", true);
    assert_eq!(again.len(), 1, "after a quiet window it is an edge again");
}

#[test]
fn suspension_denies_the_request_and_names_the_last_holder_that_lasts() {
    let mut world = World::new(&rate(1, 60, "suspend"));
    assert!(world.call(NOW, &[1, 1002, 3]));
    let (answer, alerts) = world.decide(NOW, &[1, 1002, 3], "tool://mail/send", true);
    assert_eq!(answer.unwrap_err().reason, Reason::Throttled);
    assert_eq!(alerts[0].agent, agent(1002), "not the fresh key 3, not the principal 1");
    assert_eq!(alerts[0].then, Then::Suspend);
    // Of another agent below the same principal: only the principal is over.
    let (reason, blamed) = world.asks(NOW, &[1, 1003], "tool://mail/send");
    assert_eq!((reason, blamed), (Some(Reason::Throttled), vec![agent(1)]));
}

#[test]
fn denied_requests_can_be_counted_and_stay_denied_as_they_were() {
    let mut world = World::new(
        r#"[{"name":"noise","match":{"verdict":"denied"},"rate":{"limit":2,"window":60},"then":"suspend"}]"#,
    );
    for at in 0..4 {
        let (answer, alerts) = world.decide(NOW, &[1], "tool://x", false);
        assert!(answer.is_ok(), "the monitor adds nothing to a refusal");
        assert_eq!(alerts.len(), usize::from(at == 2), "{at}");
    }
    assert!(world.call(NOW, &[1]), "it looks at denied requests only");
}

#[test]
fn what_one_rule_refuses_is_a_denied_request_for_the_others() {
    let mut world = World::new(
        r#"[{"name":"few","rate":{"limit":1,"window":60},"then":"throttle"},
            {"name":"seen","rate":{"limit":1,"window":60},"then":"alert"},
            {"name":"noise","match":{"verdict":"denied"},"rate":{"limit":1,"window":60},"then":"suspend"}]"#,
    );
    assert!(world.call(NOW, &[1]));
    let (_, first) = world.decide(NOW, &[1], "tool://x", true);
    assert_eq!(first.iter().map(|alert| &*alert.rule).collect::<Vec<_>>(), ["few"]);
    let (answer, second) = world.decide(NOW, &[1], "tool://x", true);
    assert_eq!(answer.unwrap_err().reason, Reason::Throttled);
    assert_eq!(second.iter().map(|alert| &*alert.rule).collect::<Vec<_>>(), ["noise"]);
}

#[test]
fn a_cost_adds_up_for_ever_or_in_a_window() {
    let mut world =
        World::new(r#"[{"name":"budget","cost":{"limit":10,"each":3},"then":"throttle"}]"#);
    for n in 0..5 {
        assert_eq!(world.call(NOW + n * 100_000, &[1]), n < 3);
    }
    world.monitor.reset(&agent(1));
    assert!(world.call(NOW + 600_000, &[1]));
    let mut world = World::new(
        r#"[{"name":"budget","cost":{"limit":10,"each":3,"window":60},"then":"throttle"}]"#,
    );
    assert!((0..4).map(|_| world.call(NOW, &[1])).eq([true, true, true, false]));
    assert!(world.call(NOW + 64, &[1]));
}

#[test]
fn fuel_counts_when_the_outcome_comes() {
    let mut world =
        World::new(r#"[{"name":"fuel","cost":{"limit":100,"of":"fuel"},"then":"throttle"}]"#);
    assert!(world.call(NOW, &[1, 2]));
    assert!(world.call(NOW, &[1, 3]));
    world.monitor.spent(1, Some(99), NOW);
    assert!(world.call(NOW, &[1, 2]), "99 of 100 are used");
    world.monitor.spent(2, None, NOW);
    world.monitor.spent(3, Some(1), NOW);
    world.monitor.spent(3, Some(1_000), NOW);
    assert!(!world.call(NOW, &[1, 2]), "both have used it all");
    assert!(!world.call(NOW, &[1, 3]), "its principal has");
    assert!(world.call(NOW, &[3]), "it has used nothing itself");
}

/// Nobody has counted it, so it may have been all there is.
#[test]
fn unmetered_fuel_uses_up_every_rule() {
    let most = crate::limits::RULE_LIMIT;
    for window in ["", r#","window":60"#] {
        let rule = format!(r#"{{"limit":{most},"of":"fuel"{window}}}"#);
        let mut world =
            World::new(&format!(r#"[{{"name":"fuel","cost":{rule},"then":"throttle"}}]"#));
        assert!((0..3).all(|_| world.call(NOW, &[1, 2])));
        (1..=3).for_each(|index| world.monitor.spent(index, Some(UNMETERED), NOW));
        assert!(!world.call(NOW, &[1, 2]) && !world.call(NOW, &[1]), "{window}");
        assert_eq!(world.call(NOW + 200, &[1]), !window.is_empty(), "{window}");
    }
}

#[test]
fn the_last_step_of_a_sequence_is_refused() {
    let json = r#"[{"name":"leak","sequence":{"steps":[{"resource":"file:///**"},{"resource":"https://*/**"}],"within":60},"then":"throttle"}]"#;
    let mut world = World::new(json);
    let (file, web) = ("file:///a", "https://example.com/x");
    assert_eq!(world.asks(NOW, &[1], web), (None, vec![]));
    assert_eq!(world.asks(NOW, &[1], file), (None, vec![]));
    assert_eq!(world.asks(NOW + 61, &[1], web), (None, vec![]), "too late to be one");
    assert_eq!(world.asks(NOW + 70, &[1], file), (None, vec![]));
    assert_eq!(world.asks(NOW + 71, &[1], "tool://between"), (None, vec![]));
    let blamed = (Some(Reason::OutOfOrder), vec![agent(1)]);
    assert_eq!(world.asks(NOW + 130, &[1, 2], web), blamed);
    assert_eq!(world.asks(NOW + 130, &[2], web), (None, vec![]));
}

#[test]
fn a_machine_denies_what_its_state_does_not_allow() {
    let json = r#"[{"name":"flow","match":{"resource":"tool://**"},"machine":{"initial":"idle","transitions":[
        {"from":"idle","to":"read","match":{"resource":"tool://read"}},
        {"from":"read","to":"idle","match":{"resource":"tool://write"}}]},"then":"throttle"}]"#
        .replace("tool://**", "tool://*/**");
    let mut world = World::new(&json);
    let blamed = (Some(Reason::OutOfOrder), vec![agent(1)]);
    assert_eq!(world.asks(NOW, &[1], "tool://write"), blamed);
    assert_eq!(world.asks(NOW, &[1], "tool://write"), (Some(Reason::OutOfOrder), vec![]));
    assert_eq!(world.asks(NOW, &[1], "https://other.com/x"), (None, vec![]), "out of scope");
    assert!(world.decide(NOW, &[1], "tool://read", false).0.is_ok(), "denied: does not move");
    assert_eq!(world.asks(NOW, &[1], "tool://write").0, Some(Reason::OutOfOrder));
    assert_eq!(world.asks(NOW, &[1], "tool://read"), (None, vec![]));
    assert_eq!(world.asks(NOW, &[1], "tool://read"), blamed, "an edge again");
    assert_eq!(world.asks(NOW, &[1], "tool://write"), (None, vec![]));
}

#[test]
fn a_full_table_refuses_new_agents_and_goes_on_with_known_ones() {
    let mut world = World::new(&rate(1_000_000, 60, "throttle"));
    for n in 0..SUBJECTS_PER_PRINCIPAL as u32 - 1 {
        assert!(world.call(NOW, &[1, 2_000 + n]));
    }
    let (answer, _) = world.decide(NOW, &[1, 1_500], "tool://x", true);
    assert_eq!(answer.unwrap_err().reason, Reason::MonitorFull);
    assert!(world.call(NOW, &[1, 2_000]), "known");
    assert!(world.call(NOW, &[1_500]), "below another principal");
    assert!(world.decide(NOW, &[1, 1_501], "tool://x", false).0.is_ok(), "denied anyway");
    assert!(world.call(NOW + 64, &[1, 1_501]), "the others are forgotten");
    assert_eq!(world.monitor.snapshot().len(), 2);
}

#[test]
fn the_whole_table_is_bounded() {
    let mut world = World::new(&rate(1_000_000, 60, "alert"));
    for n in 0..SUBJECTS as u32 {
        assert!(world.call(NOW, &[n]));
    }
    assert!(!world.call(NOW, &[u32::MAX]));
    assert_eq!(world.monitor.snapshot().len(), SUBJECTS);
    assert!(world.call(NOW + 64, &[u32::MAX]));
    assert_eq!(world.monitor.snapshot().len(), 1);
}

#[test]
fn an_expired_agent_is_dropped_unless_it_lasts() {
    let mut world = World::new(r#"[{"name":"b","cost":{"limit":1},"then":"throttle"}]"#);
    assert!(world.call(NOW, &[1, 2]));
    world.monitor.forget(&agent(1));
    world.monitor.forget(&agent(2));
    assert!(world.call(NOW, &[2]));
    assert!(!world.call(NOW, &[1]));
}

#[test]
fn a_rule_that_stays_the_same_goes_on_counting() {
    let one = r#"{"name":"a","rate":{"limit":1,"window":60},"then":"throttle"}"#;
    let two =
        r#"{"name":"b","match":{"resource":"tool://b"},"cost":{"limit":1},"then":"throttle"}"#;
    let mut world = World::new(&format!("[{one},{two}]"));
    assert!(world.call(NOW, &[1]));
    assert!(world.asks(NOW, &[2], "tool://b").0.is_none());
    world.monitor.set_rules(rules(&format!("[{two},{one}]")));
    assert!(!world.call(NOW, &[1]));
    assert_eq!(world.asks(NOW + 100, &[2], "tool://b").0, Some(Reason::Throttled));
    world.monitor.set_rules(rules(&format!("[{two}]").replace("\"limit\":1", "\"limit\":2")));
    assert!(world.asks(NOW, &[2], "tool://b").0.is_none(), "another rule of that name");
    assert_eq!(world.monitor.snapshot().len(), 1);
    world.monitor.set_rules(Rules::default());
    assert_eq!(world.monitor.snapshot(), []);
}

#[test]
fn without_rules_nothing_is_counted() {
    let mut world = World::new("[]");
    for n in 0..100 {
        assert!(world.call(NOW, &[n]));
    }
    assert_eq!(world.monitor.snapshot(), []);
}

#[test]
fn no_holder_and_too_many_are_refused() {
    let mut world = World::new(&rate(5, 60, "alert"));
    assert!(!world.call(NOW, &[]));
    let many: Vec<u32> = (0..17).collect();
    assert!(!world.call(NOW, &many));
    assert!(world.call(NOW, &many[..16]));
}

#[test]
fn a_clock_that_goes_back_gives_nothing_back() {
    let mut world = World::new(&rate(1, 60, "throttle"));
    assert!(world.call(NOW, &[1]));
    for back in [1, 59, 60, 1000, NOW] {
        assert!(!world.call(NOW - back, &[1]));
    }
    assert!(world.call(NOW + 1_000_000, &[1]));
    assert!(!world.call(NOW, &[1]));
}

#[test]
fn keys_of_agents_are_real_ones_too() {
    let id = Identity::from_seed("a", &[1; 32]).unwrap().id();
    let mut monitor = monitor(&rate(1, 60, "throttle"));
    let matched = monitor.matching("call", &Resource::parse("tool://x").unwrap());
    let subjects = [Subject { agent: id, lasting: true }];
    let event = Event { subjects: &subjects, matched: &matched, time: NOW };
    monitor.count(&event, Verdict::Allowed, 0);
    assert!(monitor.check(&event, true).0.unwrap_err().detail.contains(&id.to_string()));
}
