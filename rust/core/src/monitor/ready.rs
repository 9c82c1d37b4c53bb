//! One rule, checked and made ready: patterns parsed, steps and transitions as bits.

use super::cell::Cell;
use super::machine::States;
use super::rule::{Match, Of, Rule, Then};
use super::window::{Live, Span};
use crate::caveat::Actions;
use crate::error::{Error, Result};
use crate::limits;
use crate::pattern::{Pattern, Resource};

/// One rule, made ready.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) kind: Kind,
    /// Its place in the words of a `Matched`.
    pub(super) word: Option<usize>,
}

/// The condition of a rule.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Tally(Tally),
    Steps(Steps),
    Machine(States),
}

/// A rate is a cost of one for each decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) limit: u64,
    pub(super) each: u64,
    pub(super) fuel: bool,
    pub(super) span: Option<Span>,
    allowed: bool,
    denied: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Steps {
    steps: Vec<Matcher>,
    pub(super) within: u64,
    /// Which steps look at allowed decisions, and which at denied ones.
    allowed: u64,
    denied: u64,
}

impl Steps {
    pub(super) const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Those of the steps that look at a decision that ends so.
    pub(super) const fn ending(&self, word: u64, allowed: bool) -> u64 {
        word & if allowed { self.allowed } else { self.denied }
    }
}

/// A rule at one second, for one request.
pub(super) struct Now<'a> {
    pub(super) at: u32,
    pub(super) rule: &'a Rule,
    pub(super) ready: &'a Ready,
    pub(super) word: u64,
    pub(super) time: u64,
    /// Of the rule's window, where it has one.
    pub(super) live: Option<Live>,
}

/// Which actions on which resources.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matcher {
    actions: Option<Actions>,
    resource: Option<Pattern>,
}

impl Matcher {
    /// Reads it, and sorts the actions in place.
    pub(super) fn new(scope: &mut Match, key: &str) -> Result<Self> {
        let at = |part: &str, error: Error| {
            Error::new(error.reason, format!("`{key}.{part}`: {}", error.detail))
        };
        let actions = match scope.actions.take() {
            None => None,
            Some(names) => Some(Actions::new(names).map_err(|error| at("actions", error))?),
        };
        let texts = |actions: &Actions| actions.iter().map(ToOwned::to_owned).collect();
        scope.actions = actions.as_ref().map(texts);
        let resource = scope.resource.as_deref().map(Pattern::parse).transpose();
        Ok(Self { actions, resource: resource.map_err(|error| at("resource", error))? })
    }

    pub(super) fn takes(&self, action: &str, resource: &Resource) -> bool {
        self.actions.as_ref().is_none_or(|actions| actions.contains(action))
            && self.resource.as_ref().is_none_or(|pattern| pattern.matches(resource))
    }
}

impl Ready {
    /// The rule, and what it asks of a request at all.
    pub(super) fn new(rule: &mut Rule, words: &mut usize) -> Result<(Matcher, Self)> {
        check_name("name", &rule.name)?;
        let scope = Matcher::new(&mut rule.scope, "match")?;
        let kind = Kind::new(rule)?;
        let word = if matches!(kind, Kind::Tally(_)) { None } else { Some(*words) };
        *words += usize::from(word.is_some());
        Ok((scope, Self { kind, word }))
    }

    pub(super) fn steps(&self, action: &str, resource: &Resource) -> u64 {
        let bits = |all: &mut dyn Iterator<Item = &Matcher>| {
            let fits = (0..64).zip(all).filter(|(_, one)| one.takes(action, resource));
            fits.fold(0, |word, (at, _)| word | 1_u64 << at)
        };
        match &self.kind {
            Kind::Tally(_) => 0,
            Kind::Steps(steps) => bits(&mut steps.steps.iter()),
            Kind::Machine(states) => bits(&mut states.matchers()),
        }
    }

    /// Whether the rule looks at decisions that end so.
    pub(super) const fn looks(&self, allowed: bool) -> bool {
        match &self.kind {
            Kind::Tally(tally) => {
                if allowed {
                    tally.allowed
                } else {
                    tally.denied
                }
            }
            Kind::Steps(steps) => steps.ending(u64::MAX, allowed) != 0,
            Kind::Machine(_) => allowed,
        }
    }

    pub(super) const fn counts_fuel(&self) -> bool {
        matches!(&self.kind, Kind::Tally(tally) if tally.fuel)
    }

    pub(super) const fn span(&self) -> Option<Span> {
        if let Kind::Tally(tally) = &self.kind { tally.span } else { None }
    }

    /// Seconds without a trigger after which the next one is an edge; none: never by itself.
    pub(super) fn quiet(&self) -> Option<u64> {
        match &self.kind {
            Kind::Tally(tally) => tally.span.map(Span::window),
            Kind::Steps(steps) => Some(steps.within),
            Kind::Machine(_) => None,
        }
    }

    pub(super) fn cell(&self) -> Cell {
        Cell::new(&self.kind)
    }
}

impl Kind {
    fn new(rule: &mut Rule) -> Result<Self> {
        let Rule { scope, rate, cost, sequence, machine, then, .. } = rule;
        let refuses = *then == Then::Throttle;
        match (rate, cost, sequence, machine) {
            (Some(rate), None, None, None) => {
                check_throttle(refuses, scope)?;
                let window = check_seconds("rate.window", rate.window)?;
                tally(scope, ("rate.limit", rate.limit), (1, false), Some(window))
            }
            (None, Some(cost), None, None) => {
                check_throttle(refuses, scope)?;
                let window =
                    cost.window.map(|window| check_seconds("cost.window", window)).transpose()?;
                let each = check_number("cost.each", cost.each)?;
                let fuel = cost.of == Of::Fuel;
                if each == 0 || (fuel && each != 1) {
                    let what = if fuel { "is for calls, not for fuel" } else { "is 0" };
                    return wrong("cost.each", &format!("{what}; leave it out"));
                }
                if fuel && scope.verdict.denied() {
                    return wrong("match.verdict", "a denied request burns no fuel");
                }
                tally(scope, ("cost.limit", cost.limit), (each, fuel), window)
            }
            (None, None, Some(sequence), None) => {
                if !scope.is_default() {
                    return wrong("match", "the steps of a sequence say what they match");
                }
                if let Some(last) = sequence.steps.last() {
                    check_throttle(refuses, last)?;
                }
                Self::steps(&mut sequence.steps, sequence.within)
            }
            (None, None, None, Some(machine)) => {
                if scope.verdict.denied() {
                    return wrong("match.verdict", "a machine moves by what is allowed");
                }
                Ok(Self::Machine(States::new(machine)?))
            }
            _ => Err(Error::malformed(
                "a rule has exactly one of `rate`, `cost`, `sequence` and `machine`",
            )),
        }
    }

    fn steps(steps: &mut [Match], within: u64) -> Result<Self> {
        if steps.len() < 2 || steps.len() > limits::RULE_STEPS {
            let text = format!("it has {} steps, not 2 to {}", steps.len(), limits::RULE_STEPS);
            return wrong("sequence.steps", &text);
        }
        check_seconds("sequence.within", within)?;
        let (mut allowed, mut denied) = (0, 0);
        for (at, step) in steps.iter().enumerate() {
            allowed |= u64::from(step.verdict.allowed()) << at;
            denied |= u64::from(step.verdict.denied()) << at;
        }
        let key = |at| format!("sequence.steps[{at}]");
        let all = steps.iter_mut().enumerate().map(|(at, step)| Matcher::new(step, &key(at)));
        Ok(Self::Steps(Steps { steps: all.collect::<Result<_>>()?, within, allowed, denied }))
    }
}

fn tally(
    scope: &Match,
    (key, limit): (&str, u64),
    (each, fuel): (u64, bool),
    window: Option<u64>,
) -> Result<Kind> {
    let (allowed, denied) = (scope.verdict.allowed(), scope.verdict.denied());
    let (limit, span) = (check_number(key, limit)?, window.map(Span::new));
    Ok(Kind::Tally(Tally { limit, each, fuel, span, allowed, denied }))
}

/// Refuses what is not one name of a rule or a state.
pub(super) fn check_name(key: &str, name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let starts = name.bytes().next().is_some_and(fine);
    let all = name.bytes().all(|c| fine(c) || b"._-".contains(&c));
    if starts && all && name.len() <= limits::RULE_NAME_BYTES {
        return Ok(());
    }
    let name = name.escape_debug().to_string();
    let name: String = name.chars().take(limits::RULE_NAME_BYTES).collect();
    let text = format!("`{name}` is not 1 to 63 of a-z, 0-9, `.`, `_`, `-`, no sign first");
    wrong(key, &text)
}

/// An error about one key of a rule.
pub(super) fn wrong<T>(key: &str, text: &str) -> Result<T> {
    Err(Error::malformed(format!("`{key}`: {text}")))
}

fn check_throttle(refuses: bool, scope: &Match) -> Result<()> {
    if refuses && !scope.verdict.allowed() {
        let text = "what is denied cannot be throttled; say `alert` or `suspend`";
        return wrong("then", text);
    }
    Ok(())
}

fn check_seconds(key: &str, seconds: u64) -> Result<u64> {
    if (1..=limits::RULE_SECONDS).contains(&seconds) {
        return Ok(seconds);
    }
    wrong(key, &format!("{seconds} is not 1 to {} seconds", limits::RULE_SECONDS))
}

fn check_number(key: &str, number: u64) -> Result<u64> {
    if number <= limits::RULE_LIMIT {
        return Ok(number);
    }
    wrong(key, &format!("{number} is more than 2^53"))
}
