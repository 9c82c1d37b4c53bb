//! What holds for all rules and all histories.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::window::{Span, Window};
use super::super::*;
use super::{NOW, World, agent, chain, monitor};

/// Every time of the last `window` seconds: what a window should be.
#[derive(Default)]
struct Exact(VecDeque<u64>);

impl Exact {
    fn count(&self, now: u64, window: u64) -> u64 {
        self.0.iter().filter(|time| now - **time < window).count() as u64
    }
}

proptest! {
    #[test]
    fn a_window_never_allows_too_much_and_refuses_at_most_a_bucket_early(
        window in prop_oneof![1_u64..=15, 1_u64..200, 1_u64..=604_800],
        limit in 0_u64..12,
        start in 0_u64..NOW,
        steps in prop::collection::vec((0_u64..3, 0_u64..=100), 1..200),
    ) {
        let (span, mut ours, mut exact) = (Span::new(window), Window::default(), Exact::default());
        let width = window.div_ceil(15);
        let mut now = start;
        for (kind, part) in steps {
            now += match kind { 0 => 0, 1 => part % 4, _ => window * part / 50 };
            let (sum, true_count) = (ours.sum(span.at(now)), exact.count(now, window));
            prop_assert!(sum >= true_count, "{sum} of {true_count} are seen");
            prop_assert!(sum <= exact.count(now, window + width - 1), "more than a bucket early");
            if window <= 15 {
                prop_assert_eq!(sum, true_count);
            }
            if sum < limit {
                ours.add(span.at(now), 1);
                exact.0.push_back(now);
            }
            let filled = ours.filled(span.at(now));
            prop_assert!(filled.len() <= 16);
            let blank = ours.blank_at(span);
            prop_assert_eq!(ours.sum(span.at(blank.max(now))) == 0, blank >= now || filled.is_empty());
            if blank > 0 {
                prop_assert!(ours.sum(span.at(blank - 1)) > 0);
            }
        }
    }

    #[test]
    fn large_amounts_stay_over(amounts in prop::collection::vec(any::<u64>(), 1..40)) {
        let (span, mut window) = (Span::new(60), Window::default());
        for (time, amount) in (NOW..).zip(amounts) {
            window.add(span.at(time), amount);
            let seen = window.sum(span.at(time));
            prop_assert!(seen >= amount.min(crate::limits::RULE_LIMIT + 1), "{seen} after {amount}");
        }
    }
}

/// One thing that happens to a monitor.
#[derive(Clone, Debug)]
enum Step {
    Ask { after: u64, agents: Vec<u32>, resource: &'static str, allowed: bool },
    Spend { back: u64, fuel: Option<u64> },
    Forget(u32),
    Reset(u32),
}

const RESOURCES: [&str; 4] = ["tool://a", "tool://b", "file:///c", "file:///d/e"];

fn step() -> impl Strategy<Value = Step> {
    let agents = prop::collection::btree_set(prop_oneof![0_u32..6, 1001_u32..1003], 1..5);
    let agents = agents.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle();
    let after = prop_oneof![4 => Just(0_u64), 4 => 1_u64..8, 1 => 0_u64..400];
    let resource = prop::sample::select(RESOURCES.to_vec());
    let ask = (after, agents, resource, prop::bool::weighted(0.8)).prop_map(
        |(after, agents, resource, allowed)| Step::Ask { after, agents, resource, allowed },
    );
    let fuel = prop::option::of(0_u64..40);
    prop_oneof![
        12 => ask,
        2 => (0_u64..6, fuel).prop_map(|(back, fuel)| Step::Spend { back, fuel }),
        1 => (0_u32..6).prop_map(Step::Forget),
        1 => (0_u32..6).prop_map(Step::Reset),
    ]
}

fn scope() -> impl Strategy<Value = Match> {
    let resource =
        prop::sample::select(vec![None, Some("tool://*/**"), Some("tool://a"), Some("file:///**")]);
    let verdict = prop_oneof![3 => Just(On::Allowed), 1 => Just(On::Denied), 1 => Just(On::Any)];
    (resource, verdict).prop_map(|(resource, verdict)| Match {
        actions: None,
        resource: resource.map(ToOwned::to_owned),
        verdict,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let then = prop::sample::select(vec![Then::Alert, Then::Throttle, Then::Suspend]);
    let window = prop_oneof![1_u64..15, 1_u64..300];
    (0..5_u8, scope(), prop::collection::vec(scope(), 2..5), 0_u64..6, 1_u64..4, window, then)
        .prop_map(|(kind, scope, steps, limit, each, window, then)| {
            let plain = Match { verdict: On::Allowed, ..scope.clone() };
            let none = Rule {
                name: "r".into(),
                scope: scope.clone(),
                rate: None,
                cost: None,
                sequence: None,
                machine: None,
                then,
            };
            match kind {
                0 => Rule { rate: Some(Rate { limit, window }), ..none },
                1 => Rule {
                    cost: Some(Cost {
                        limit,
                        each,
                        of: Of::Calls,
                        window: (limit % 2 == 0).then_some(window),
                    }),
                    ..none
                },
                2 => Rule {
                    scope: plain,
                    cost: Some(Cost {
                        limit: limit * 9,
                        each: 1,
                        of: Of::Fuel,
                        window: (limit % 2 == 0).then_some(window),
                    }),
                    ..none
                },
                3 => Rule {
                    scope: Match::default(),
                    sequence: Some(Sequence { steps, within: window }),
                    ..none
                },
                _ => {
                    let names = ["a", "b", "c"];
                    let transition = |(at, on): (usize, Match)| Transition {
                        from: names[at % 2].into(),
                        to: names[(at * 2 + 1) % 3].into(),
                        on: Match { verdict: On::Allowed, ..on },
                    };
                    let transitions = steps.into_iter().enumerate().map(transition).collect();
                    Rule {
                        scope: plain,
                        machine: Some(Machine { initial: "a".into(), transitions }),
                        ..none
                    }
                }
            }
        })
}

/// Rules that are fine, by different names.
fn some_rules() -> impl Strategy<Value = Rules> {
    prop::collection::vec(rule(), 1..6).prop_map(|rules| {
        let mut good = Vec::new();
        for (n, mut rule) in rules.into_iter().enumerate() {
            rule.name = format!("r{n}");
            if Rules::new(vec![rule.clone()]).is_err() {
                rule.then = Then::Alert;
            }
            if Rules::new(vec![rule.clone()]).is_ok() {
                good.push(rule);
            }
        }
        Rules::new(good).unwrap()
    })
}

impl World {
    fn with(rules: Rules) -> Self {
        let mut monitor = Monitor::default();
        monitor.set_rules(rules);
        Self { monitor, index: 0 }
    }

    fn take(&mut self, now: &mut u64, step: &Step) -> Option<(Result<()>, Vec<Alert>)> {
        match step {
            Step::Ask { after, agents, resource, allowed } => {
                *now += after;
                return Some(self.decide(*now, agents, resource, *allowed));
            }
            Step::Spend { back, fuel } => {
                self.monitor.spent(self.index.saturating_sub(*back), *fuel, *now)
            }
            Step::Forget(n) => self.monitor.forget(&agent(*n)),
            Step::Reset(n) => self.monitor.reset(&agent(*n)),
        }
        None
    }
}

fn copy(monitor: &Monitor, now: u64) -> Monitor {
    let mut copy = Monitor::default();
    copy.set_rules(monitor.rules().clone());
    copy.advance(now);
    for item in monitor.snapshot() {
        let json = serde_json::to_vec(&item).unwrap();
        assert!(json.len() < 48 * 1024);
        let read: Item = serde_json::from_slice(&json).unwrap();
        assert_eq!(read, item);
        copy.restore(&read).unwrap();
    }
    copy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_monitor_is_the_same_in_all_that_follows(
        rules in some_rules(),
        steps in prop::collection::vec(step(), 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut world = World::with(rules);
        let (mut now, cut) = (NOW, cut.index(steps.len() + 1));
        for step in &steps[..cut] {
            world.take(&mut now, step);
        }
        let mut other = World { monitor: copy(&world.monitor, now), index: world.index };
        prop_assert_eq!(world.monitor.snapshot(), other.monitor.snapshot());
        let mut then = now;
        for step in &steps[cut..] {
            prop_assert_eq!(world.take(&mut now, step), other.take(&mut then, step));
            prop_assert_eq!(world.monitor.snapshot(), other.monitor.snapshot());
        }
    }

    #[test]
    fn what_is_asked_without_being_decided_changes_nothing(
        rules in some_rules(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let (mut quiet, mut asked) = (World::with(rules.clone()), World::with(rules));
        let (mut now, mut then) = (NOW, NOW);
        for step in &steps {
            if let Step::Ask { agents, resource, .. } = step {
                let (subjects, resource) = (chain(agents), Resource::parse(resource).unwrap());
                let matched = asked.monitor.matching("call", &resource);
                let event = Event { subjects: &subjects, matched: &matched, time: now + 1000 };
                let _ = (asked.monitor.check(&event, true), asked.monitor.check(&event, false));
            }
            prop_assert_eq!(quiet.take(&mut now, step), asked.take(&mut then, step));
        }
        prop_assert_eq!(quiet.monitor.snapshot(), asked.monitor.snapshot());
    }

    #[test]
    fn an_alert_is_followed_by_silence_about_the_same_rule_and_agent(
        rules in some_rules(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::with(rules);
        let mut last = std::collections::HashMap::new();
        let mut now = NOW;
        for step in &steps {
            if matches!(step, Step::Forget(_) | Step::Reset(_)) {
                continue;
            }
            for alert in world.take(&mut now, step).map(|it| it.1).unwrap_or_default() {
                let rules = world.monitor.rules().as_slice();
                let rule = rules.iter().find(|rule| rule.name == alert.rule).unwrap();
                let window = match (&rule.rate, &rule.cost, &rule.sequence) {
                    (Some(rate), ..) => rate.window,
                    (_, Some(cost), _) => cost.window.unwrap_or(u64::MAX),
                    (.., Some(sequence)) => sequence.within,
                    _ => 0,
                };
                if let Some(before) = last.insert((alert.rule, alert.agent), now) {
                    prop_assert!(now - before >= window, "{} after {before}", now);
                }
            }
        }
    }

    /// Whoever delegates to whomever: below an agent, no more gets through than it may itself.
    #[test]
    fn fresh_keys_do_not_help(
        limit in 0_u64..8,
        window in 1_u64..40,
        parents in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        calls in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..4), 1..150),
        then in prop::sample::select(vec!["throttle", "suspend"]),
    ) {
        // Chain n goes on from an earlier one, and its holder is a fresh key.
        let mut chains: Vec<Vec<u32>> = vec![vec![0]];
        for (n, parent) in (1..).zip(&parents) {
            let above = parent.get(&chains).clone();
            chains.push(if above.len() < 16 { [above, vec![n]].concat() } else { vec![0, n] });
        }
        let json = format!(r#"[{{"name":"r","rate":{{"limit":{limit},"window":{window}}},"then":"{then}"}}]"#);
        let mut world = World::new(&json);
        let mut let_through: Vec<(u64, Vec<u32>)> = Vec::new();
        let mut now = NOW;
        for (who, after) in &calls {
            now += after;
            let agents = who.get(&chains);
            if world.call(now, agents) {
                let_through.push((now, agents.clone()));
            }
            for n in 0..chains.len() as u32 {
                let below = let_through.iter().filter(|(time, agents)| now - time < window && agents.contains(&n));
                prop_assert!(below.count() as u64 <= limit, "agent {n}");
            }
        }
    }

    /// Where all chains pass through an agent, it has had at least what any below it has.
    #[test]
    fn an_ancestor_has_at_least_what_its_descendants_have(
        calls in prop::collection::vec((1_u32..9, 0_u64..30, any::<bool>()), 1..80),
    ) {
        let mut world = World::new(r#"[{"name":"r","match":{"verdict":"any"},"rate":{"limit":1000,"window":60},"then":"alert"}]"#);
        let mut now = NOW;
        for (n, after, allowed) in calls {
            now += after;
            world.decide(now, &[0, n], "tool://x", allowed).0.unwrap();
            let sums: Vec<(String, u64)> = world.monitor.snapshot().into_iter().map(|item| match item {
                Item::Row(row) => (row.agent, row.cells[0].buckets.iter().map(|(_, n)| n).sum()),
                Item::Open(_) => unreachable!(),
            }).collect();
            let first = sums.iter().find(|(who, _)| *who == agent(0).to_string()).unwrap().1;
            prop_assert!(sums.iter().all(|(_, sum)| *sum <= first));
        }
    }

    #[test]
    fn the_order_within_a_second_does_not_matter_for_what_is_counted(
        mut calls in prop::collection::vec((0_u32..9, 0_u64..30), 1..80),
        seed in any::<prop::sample::Index>(),
    ) {
        let fold = |calls: &[(u32, u64)]| {
            let mut world = World::new(r#"[{"name":"r","rate":{"limit":1000,"window":60},"then":"alert"}]"#);
            calls.iter().for_each(|(n, after)| assert!(world.call(NOW + after, &[*n])));
            world.monitor.snapshot()
        };
        calls.sort_by_key(|(_, after)| *after);
        let one = fold(&calls);
        let turn = seed.index(calls.len());
        calls.rotate_left(turn);
        calls.sort_by_key(|(_, after)| *after);
        prop_assert_eq!(one, fold(&calls));
    }
}

#[test]
fn a_day_of_many_agents_takes_no_more_memory_than_a_minute() {
    let mut world =
        World::new(r#"[{"name":"r","rate":{"limit":9,"window":60},"then":"throttle"}]"#);
    let mut most = 0;
    for n in 0..200_000_u32 {
        world.call(NOW + u64::from(n) / 100, &[n % 7, 10_000 + n]);
        if n % 10_000 == 0 {
            most = most.max(world.monitor.snapshot().len());
        }
    }
    assert!(most < 64 * 100 + 100, "{most} rows for 64 seconds of 100 agents");
}

#[test]
fn the_largest_item_fits_into_a_line() {
    let name = |n| format!("{n:02}{}", "x".repeat(61));
    let rule = |n| {
        format!(
            r#"{{"name":"{}","cost":{{"limit":1,"each":9007199254740992,"window":604800}},"then":"alert"}}"#,
            name(n)
        )
    };
    let rules: Vec<_> = (0..64).map(rule).collect();
    let mut monitor = monitor(&format!("[{}]", rules.join(",")));
    let subjects = chain(&[1]);
    let matched = monitor.matching("call", &Resource::parse("tool://x").unwrap());
    for n in 0..16_u64 {
        let time = crate::limits::TIME_MAX - (15 - n) * 40_320;
        let event = Event { subjects: &subjects, matched: &matched, time };
        (0..64).for_each(|_| monitor.count(&event, Verdict::Allowed, 0));
    }
    let items = monitor.snapshot();
    let size = serde_json::to_vec(&items[0]).unwrap().len();
    assert!((30_000..48 * 1024).contains(&size), "{size}");
}
