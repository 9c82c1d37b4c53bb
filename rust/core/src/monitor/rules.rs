//! All rules of a monitor: read, checked, and asked which of them look at a request.

use super::ready::{Kind, Matcher, Now, Ready, check_name};
use super::rule::{Rule, Then};
use super::table::ones;
use crate::error::{Error, Reason, Result};
use crate::limits;
use crate::pattern::Resource;

/// The rules of one monitor, checked.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    ready: Vec<Ready>,
    /// What is asked of a request, and the rules that ask it: often it is the same.
    scopes: Vec<(Matcher, u64)>,
    /// Which rules have steps or transitions.
    stepwise: u64,
    /// Which rules look at allowed decisions, and which at denied ones.
    allowed: u64,
    denied: u64,
    /// Which rules deny when they are met.
    refusing: u64,
    /// Which rules count fuel.
    charging: u64,
    /// Words in a `Matched`.
    words: usize,
}

/// Which rules look at a request: one bit for each, and the steps or transitions that fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Those that look at it if it is allowed, and if it is denied.
    allowed: u64,
    denied: u64,
    words: Vec<u64>,
}

impl Matched {
    /// Whether no rule looks at it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules() == 0
    }

    /// The rules that look at it if it ends so.
    pub(super) const fn looking(&self, allowed: bool) -> u64 {
        if allowed { self.allowed } else { self.denied }
    }

    const fn rules(&self) -> u64 {
        self.allowed | self.denied
    }
}

impl Rules {
    /// Checks rules and makes them ready. Actions are sorted; nothing else is changed.
    ///
    /// # Errors
    /// `malformed` for a rule that says nothing, or two things, or nothing that can happen;
    /// `too_large` beyond the bounds of spec/monitor.md. The text names the rule and the key.
    pub fn new(mut rules: Vec<Rule>) -> Result<Self> {
        if rules.len() > limits::RULES {
            return Err(too_large(format!("{} rules, at most {}", rules.len(), limits::RULES)));
        }
        let mut all = Self::default();
        for (at, rule) in rules.iter_mut().enumerate() {
            let made = Ready::new(rule, &mut all.words);
            let (scope, ready) = made.map_err(|error| within(rule, error))?;
            all.mark(at, &ready, scope, rule.then);
            all.ready.push(ready);
        }
        for (at, rule) in rules.iter().enumerate() {
            if rules.iter().take(at).any(|other| other.name == rule.name) {
                let detail = format!("two rules have the name `{}`; rename one", rule.name);
                return Err(Error::malformed(detail));
            }
        }
        all.rules = rules;
        let size = all.to_json()?.len();
        if size > limits::RULES_BYTES {
            let detail = format!("the rules have {size} bytes, at most {}", limits::RULES_BYTES);
            return Err(too_large(detail));
        }
        Ok(all)
    }

    /// Reads a JSON array of rules, as [`Rules::to_json`] writes it or with spaces and defaults.
    ///
    /// # Errors
    /// As [`Rules::new`], and `malformed` for what is not such an array.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        if json.len() > limits::RULES_BYTES {
            let detail = format!("{} bytes of rules, at most {}", json.len(), limits::RULES_BYTES);
            return Err(too_large(detail));
        }
        let rules = serde_json::from_slice(json).map_err(|error| unread(json, &error))?;
        Self::new(rules)
    }

    /// The only spelling of these rules.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.rules)
            .map_err(|_| Error::new(Reason::Internal, "a rule has no JSON"))
    }

    /// The rules.
    #[must_use]
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there is no rule: then nothing is counted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Which rules look at a request, whoever asks and however it ends: asked once, used by
    /// `check` and `count`.
    #[must_use]
    pub fn matching(&self, action: &str, resource: &Resource) -> Matched {
        let fits = self.scopes.iter().filter(|(scope, _)| scope.takes(action, resource));
        let rules = fits.fold(0, |rules, (_, bits)| rules | bits);
        let (mut allowed, mut denied) = (rules & self.allowed, rules & self.denied);
        let mut words = vec![0; self.words];
        for at in ones(rules & self.stepwise) {
            let Some((_, rule)) = self.get(at) else { continue };
            let word = rule.steps(action, resource);
            if let Some(place) = rule.word.and_then(|word| words.get_mut(word)) {
                *place = word;
            }
            if let Kind::Steps(steps) = &rule.kind {
                allowed &= !(u64::from(steps.ending(word, true) == 0) << at);
                denied &= !(u64::from(steps.ending(word, false) == 0) << at);
            }
        }
        Matched { allowed, denied, words }
    }

    pub(super) const fn refusing(&self) -> u64 {
        self.refusing
    }

    /// Which rules count fuel.
    pub(super) const fn fuel(&self) -> u64 {
        self.charging
    }

    pub(super) const fn charging(&self, matched: &Matched) -> u64 {
        matched.allowed & self.charging
    }

    pub(super) fn get(&self, at: u32) -> Option<(&Rule, &Ready)> {
        self.rules.get(at as usize).zip(self.ready.get(at as usize))
    }

    /// Where the rule of this name stands.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        (0..).zip(&self.rules).find(|(_, rule)| rule.name == name).map(|(at, _)| at)
    }

    /// Where the very same rule stands in other rules.
    pub(super) fn same_in(&self, other: &Self, at: u32) -> Option<u32> {
        let (rule, _) = self.get(at)?;
        let found = other.named(&rule.name)?;
        other.get(found).filter(|(same, _)| *same == rule).map(|_| found)
    }

    /// The matched rules at a second, in their order.
    pub(super) fn nows<'a>(&'a self, matched: &Matched, time: u64) -> Vec<Now<'a>> {
        let mut nows = Vec::with_capacity(matched.rules().count_ones() as usize);
        nows.extend(ones(matched.rules()).filter_map(|at| {
            let word = self.get(at)?.1.word.and_then(|word| matched.words.get(word));
            self.now(at, word.copied().unwrap_or(0), time)
        }));
        nows
    }

    /// One rule at a second, for a request that fits these steps or transitions.
    pub(super) fn now(&self, at: u32, word: u64, time: u64) -> Option<Now<'_>> {
        let (rule, ready) = self.get(at)?;
        let live = ready.span().map(|span| span.at(time));
        Some(Now { at, rule, ready, word, time, live })
    }

    fn mark(&mut self, at: usize, ready: &Ready, scope: Matcher, then: Then) {
        let bit = 1 << at;
        match self.scopes.iter_mut().find(|(other, _)| *other == scope) {
            Some((_, bits)) => *bits |= bit,
            None => self.scopes.push((scope, bit)),
        }
        self.stepwise |= if ready.word.is_some() { bit } else { 0 };
        self.allowed |= if ready.looks(true) { bit } else { 0 };
        self.denied |= if ready.looks(false) { bit } else { 0 };
        self.refusing |= if then == Then::Alert { 0 } else { bit };
        self.charging |= if ready.counts_fuel() { bit } else { 0 };
    }
}

fn too_large(detail: String) -> Error {
    Error::new(Reason::TooLarge, detail)
}

/// The same error, with the rule's name where it has one that can be shown.
fn within(rule: &Rule, error: Error) -> Error {
    if check_name("name", &rule.name).is_err() {
        return error;
    }
    Error::new(error.reason, format!("rule `{}`: {}", rule.name, error.detail))
}

/// Why the JSON does not read; the rule is named where one by itself shows it.
fn unread(json: &[u8], error: &serde_json::Error) -> Error {
    let values: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
    for value in values {
        let name = value.get("name").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
        if let Err(error) = serde_json::from_value::<Rule>(value) {
            let name = name.escape_debug().to_string();
            let name: String = name.chars().take(limits::RULE_NAME_BYTES).collect();
            return Error::malformed(format!("rule `{name}`: {error}"));
        }
    }
    Error::malformed(format!("the rules do not read: {error}"))
}
