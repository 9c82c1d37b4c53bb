//! Rules that watch what agents do: rates, costs, sequences and machines (spec/monitor.md).
//!
//! A decision is counted against every holder in its chain, because a fresh key is free, and the
//! tightest holder decides. [`Monitor::check`] says what would happen, [`Monitor::count`] takes
//! in what did. Both take time in the number of rules and holders alone, and memory is bounded:
//! a constant number of bytes for each rule and agent, and so many agents.

use std::collections::BTreeMap;

use crate::error::{Reason, Result};
use crate::key::AgentId;
use crate::limits::CHAIN_LINKS;
use crate::pattern::Resource;

mod cell;
mod machine;
mod ready;
mod rule;
mod rules;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod watch;
mod window;

pub use rule::{Cost, Machine, Match, Of, On, Rate, Rule, Sequence, Then, Transition};
pub use rules::{Matched, Rules};
pub use snapshot::{CellItem, Item, OpenItem, RowItem};
use table::{Table, ones};
use watch::Watch;

/// One holder in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Who.
    pub agent: AgentId,
    /// Whether its key is not free: the holder of the first link, or a registered agent.
    pub lasting: bool,
}

/// One decision, as far as it is known before it is made.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Every holder in the chain once, the first link's first; at most 16.
    pub subjects: &'a [Subject],
    /// What [`Monitor::matching`] says of the request.
    pub matched: &'a Matched,
    /// Seconds.
    pub time: u64,
}

/// How a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// With a permit.
    Allowed,
    /// With a refusal that is not the monitor's.
    Denied,
    /// With a refusal by the monitor.
    Refused,
}

impl Verdict {
    /// The verdict of a decision with this reason, or none.
    #[must_use]
    pub fn of(reason: Option<&str>) -> Self {
        let ours = [Reason::Throttled, Reason::OutOfOrder, Reason::MonitorFull];
        match reason {
            None => Self::Allowed,
            Some(code) if ours.iter().any(|reason| reason.code() == code) => Self::Refused,
            Some(_) => Self::Denied,
        }
    }
}

/// What an operator should hear: a rule's condition was met, for the first time since it cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The rule's name.
    pub rule: String,
    /// Whom it is about: whom to suspend, where `then` says so.
    pub agent: AgentId,
    /// What follows.
    pub then: Then,
    /// Decisions or cost with this one; steps of a sequence; 1 for a machine.
    pub count: u64,
    /// The condition, in a sentence.
    pub detail: String,
}

/// The rules, and all that they remember.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    rules: Rules,
    table: Table,
    /// Effects of which the fuel is not known yet, by their decision.
    open: BTreeMap<u64, Open>,
    time: u64,
}

/// An effect that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    rules: u64,
    subjects: Vec<Subject>,
}

impl Monitor {
    /// What is watched.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Goes over to other rules. A rule that is the same in both, name and all, goes on counting;
    /// every other one starts anew.
    pub fn set_rules(&mut self, rules: Rules) {
        if rules.as_slice() == self.rules.as_slice() {
            return;
        }
        let old = std::mem::replace(&mut self.rules, rules);
        let (new, table) = (&self.rules, &mut self.table);
        self.open.retain(|_, open| {
            let moved = ones(open.rules).filter_map(|at| old.same_in(new, at));
            open.rules = moved.fold(0, |bits, at| bits | 1 << at);
            if open.rules == 0 {
                open.subjects.iter().for_each(|subject| table.close(&subject.agent));
            }
            open.rules != 0
        });
        table.set_rules(&old, new, self.time);
    }

    /// Which rules look at a request; good until the rules change.
    #[must_use]
    pub fn matching(&self, action: &str, resource: &Resource) -> Matched {
        self.rules.matching(action, resource)
    }

    /// Moves on to a second and drops what is not remembered any more. A second before one that
    /// was named already changes nothing.
    pub fn advance(&mut self, time: u64) {
        if time > self.time {
            self.time = time;
            self.table.forget((&self.rules, time));
        }
    }

    /// What would happen if the event, which without the monitor is `allowed` or not, were
    /// decided now, and what to log then. Changes nothing; [`Monitor::advance`] comes first, or
    /// there may seem to be less room than there is.
    ///
    /// # Errors
    /// `throttled` and `out_of_order` for what a rule denies, `monitor_full` where a holder that
    /// is not counted yet has no room.
    pub fn check(&self, event: &Event<'_>, allowed: bool) -> (Result<()>, Vec<Alert>) {
        if event.matched.is_empty() {
            return (Ok(()), Vec::new());
        }
        let time = self.time.max(event.time);
        let nows = self.rules.nows(event.matched, time);
        let watch = Watch::new((&self.rules, &self.table), event, &nows, time);
        let ruling = watch.judge(allowed);
        let alerts = ruling.triggers.iter().filter_map(|trigger| watch.alert(trigger)).collect();
        (ruling.answer, alerts)
    }

    /// Takes in a decision: its index in the log, and how it ended.
    pub fn count(&mut self, event: &Event<'_>, verdict: Verdict, index: u64) {
        self.advance(event.time);
        if event.matched.is_empty() {
            return;
        }
        let allowed = verdict == Verdict::Allowed;
        let nows = self.rules.nows(event.matched, self.time);
        let watch = Watch::new((&self.rules, &self.table), event, &nows, self.time);
        let mut silenced = [0_u64; CHAIN_LINKS];
        for trigger in watch.met(verdict) {
            if let Some(bits) = silenced.get_mut(trigger.place) {
                *bits |= 1 << trigger.rule;
            }
        }
        let looking = event.matched.looking(allowed);
        let charging = if allowed { self.rules.charging(event.matched) } else { 0 };
        let Some(principal) = event.subjects.first().map(|first| first.agent) else { return };
        for (subject, silenced) in event.subjects.iter().zip(silenced) {
            if looking | silenced == 0 {
                continue;
            }
            self.table.change(subject, &principal, (&self.rules, self.time), |row| {
                row.open = row.open.saturating_add(u32::from(charging != 0));
                for now in nows.iter().filter(|now| (looking | silenced) >> now.at & 1 == 1) {
                    row.change(now.at, now.ready, |cell| {
                        if looking >> now.at & 1 == 1 {
                            cell.add(now, allowed);
                        }
                        if silenced >> now.at & 1 == 1 {
                            cell.silence(now);
                        }
                    });
                }
            });
        }
        if charging != 0 {
            let open = Open { rules: charging, subjects: event.subjects.to_vec() };
            self.open.insert(index, open);
        }
    }

    /// Takes in the outcome of a decision: the fuel it reports, where it reports any. An effect
    /// whose outcome will never be known is ended so too.
    pub fn spent(&mut self, index: u64, fuel: Option<u64>, time: u64) {
        self.advance(time);
        let Some(open) = self.open.remove(&index) else { return };
        let Some(principal) = open.subjects.first().map(|first| first.agent) else { return };
        let now = |at| self.rules.now(at, 0, self.time);
        let nows: Vec<_> = ones(open.rules).filter_map(now).collect();
        for subject in &open.subjects {
            if !subject.lasting && self.table.get(&subject.agent).is_none() {
                continue; // Forgotten meanwhile, and nobody would do it again.
            }
            self.table.change(subject, &principal, (&self.rules, self.time), |row| {
                row.open = row.open.saturating_sub(1);
                for now in &nows {
                    row.change(now.at, now.ready, |cell| cell.spend(now, fuel.unwrap_or(0)));
                }
            });
        }
    }

    /// Whether anything is remembered of an agent.
    #[must_use]
    pub fn counts(&self, agent: &AgentId) -> bool {
        self.table.get(agent).is_some()
    }

    /// Starts anew for an agent, as one that is resumed does. Its ancestors' counts stand.
    pub fn reset(&mut self, agent: &AgentId) {
        self.table.remove(agent);
    }

    /// Drops an agent whose last link has expired, unless it lasts.
    pub fn forget(&mut self, agent: &AgentId) {
        if self.table.get(agent).is_some_and(|row| !row.lasting) {
            self.table.remove(agent);
        }
    }
}
