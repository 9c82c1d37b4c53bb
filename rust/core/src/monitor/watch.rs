//! The question of every decision: which rules does it meet, for whom, and what follows.

use super::cell::{is_over, reached, sentence};
use super::ready::{Kind, Now};
use super::rule::Then;
use super::rules::Rules;
use super::table::{Row, Table, ones};
use super::{Alert, Event, Verdict};
use crate::error::{Error, Reason, Result};
use crate::limits::CHAIN_LINKS;

/// All that one decision depends on.
pub(super) struct Watch<'a> {
    rules: &'a Rules,
    table: &'a Table,
    event: &'a Event<'a>,
    rows: [Option<&'a Row>; CHAIN_LINKS],
    nows: &'a [Now<'a>],
    time: u64,
}

/// What follows: the answer, and the rules whose condition is met.
pub(super) struct Ruling {
    pub(super) answer: Result<()>,
    pub(super) triggers: Vec<Trigger>,
}

/// A rule whose condition is met, and the holder it is about.
pub(super) struct Trigger {
    pub(super) rule: u32,
    pub(super) place: usize,
}

/// Which rules' conditions are met: for each holder, and for any.
struct Overs {
    of: [u64; CHAIN_LINKS],
    any: u64,
}

impl<'a> Watch<'a> {
    /// `nows` are the matched rules at the second that counts.
    pub(super) fn new(
        (rules, table): (&'a Rules, &'a Table),
        event: &'a Event<'a>,
        nows: &'a [Now<'a>],
        time: u64,
    ) -> Self {
        let mut rows = [None; CHAIN_LINKS];
        for (row, subject) in rows.iter_mut().zip(event.subjects) {
            *row = table.get(&subject.agent);
        }
        Self { rules, table, event, rows, nows, time }
    }

    /// The rules whose condition is met by a decision that has ended so.
    pub(super) fn met(&self, verdict: Verdict) -> Vec<Trigger> {
        match verdict {
            // A rule that refuses is not met by what was not refused.
            Verdict::Allowed => {
                let alerting = !self.rules.refusing();
                self.triggers(&self.over(true, alerting), alerting)
            }
            Verdict::Denied => self.judge(false).triggers,
            Verdict::Refused => self.judge(true).triggers,
        }
    }

    /// What follows where the verdict without the monitor is `allowed`, or is not.
    pub(super) fn judge(&self, allowed: bool) -> Ruling {
        if !(1..=CHAIN_LINKS).contains(&self.event.subjects.len()) {
            let detail = "the monitor was asked about no holder, or about too many";
            return Ruling { answer: Err(Error::new(Reason::Internal, detail)), triggers: vec![] };
        }
        if !allowed {
            return Ruling {
                answer: Ok(()),
                triggers: self.triggers(&self.over(false, u64::MAX), u64::MAX),
            };
        }
        if !self.has_room() {
            let triggers = self.triggers(&self.over(false, u64::MAX), u64::MAX);
            return Ruling { answer: Err(full()), triggers };
        }
        let over = self.over(true, u64::MAX);
        let refusing = over.any & self.rules.refusing();
        if refusing == 0 {
            return Ruling { answer: Ok(()), triggers: self.triggers(&over, u64::MAX) };
        }
        // Refused, so that rules which look at allowed decisions only do not see it.
        let mut triggers = self.triggers(&over, refusing);
        let answer = triggers.first().map_or(Ok(()), |first| Err(self.refusal(first)));
        triggers.extend(self.triggers(&self.over(false, u64::MAX), !refusing));
        Ruling { answer, triggers }
    }

    /// What to log of a trigger: nothing while the condition has not cleared since the last one,
    /// or where there is no room to remember that it was logged.
    pub(super) fn alert(&self, trigger: &Trigger) -> Option<Alert> {
        let (now, row) = self.at(trigger)?;
        let cell = row.and_then(|row| row.cell(now.at));
        let known = row.is_some() || self.has_room_for(self.unknown());
        if !known || cell.is_some_and(|cell| cell.mute > self.time) {
            return None;
        }
        Some(Alert {
            rule: now.rule.name.clone(),
            agent: self.event.subjects.get(trigger.place)?.agent,
            then: now.rule.then,
            count: reached(now, cell),
            detail: sentence(now, cell),
        })
    }

    /// Holders that are not counted yet have to fit in, where the decision is to be counted.
    fn has_room(&self) -> bool {
        if self.event.matched.looking(true) == 0 {
            return true;
        }
        self.has_room_for(self.unknown())
    }

    fn unknown(&self) -> usize {
        self.event.subjects.len() - self.rows.iter().flatten().count()
    }

    fn has_room_for(&self, more: usize) -> bool {
        let principal = self.event.subjects.first();
        more == 0 || principal.is_some_and(|first| self.table.has_room(&first.agent, more))
    }

    /// Those of the rules whose condition is met by this decision if it ends so.
    fn over(&self, allowed: bool, rules: u64) -> Overs {
        let looking = self.event.matched.looking(allowed) & rules;
        let mut over = Overs { of: [0; CHAIN_LINKS], any: 0 };
        for now in self.nows.iter().filter(|now| looking >> now.at & 1 == 1) {
            let holders = self.event.subjects.iter().zip(&self.rows).zip(&mut over.of);
            for ((_, row), bits) in holders {
                let met = is_over(now, row.and_then(|row| row.cell(now.at)), allowed);
                *bits |= u64::from(met) << now.at;
                over.any |= *bits;
            }
        }
        over
    }

    fn triggers(&self, over: &Overs, rules: u64) -> Vec<Trigger> {
        ones(over.any & rules)
            .map(|rule| Trigger { rule, place: self.blamed(over, rule) })
            .collect()
    }

    /// The last holder that is over and whose key is not free, so that nobody gets off by a fresh
    /// key and no more agents than need be are blamed; where there is none, the last that is over.
    fn blamed(&self, over: &Overs, rule: u32) -> usize {
        let holders = || {
            let all = self.event.subjects.iter().zip(over.of).enumerate();
            all.filter(move |(_, (_, bits))| bits >> rule & 1 == 1)
        };
        let lasting = holders().rfind(|(_, (subject, _))| subject.lasting);
        lasting.or_else(|| holders().next_back()).map_or(0, |(place, _)| place)
    }

    fn refusal(&self, trigger: &Trigger) -> Error {
        let Some((now, row)) = self.at(trigger) else {
            return Error::new(Reason::Internal, "a rule is not there");
        };
        let agent = self.event.subjects.get(trigger.place).map(|subject| subject.agent);
        let agent = agent.map(|agent| agent.to_string()).unwrap_or_default();
        let reason = match now.ready.kind {
            Kind::Tally(_) => Reason::Throttled,
            Kind::Steps(_) | Kind::Machine(_) => Reason::OutOfOrder,
        };
        let next = match (now.rule.then, reason, now.live) {
            (Then::Suspend, ..) => "it is suspended; an operator can resume it",
            (_, Reason::OutOfOrder, _) => "do first what has to come before",
            (_, _, Some(_)) => "wait",
            _ => "an operator can give it more",
        };
        let sentence = sentence(now, row.and_then(|row| row.cell(now.at)));
        Error::new(reason, format!("{sentence}, for `{agent}` and all below it; {next}"))
    }

    fn at(&self, trigger: &Trigger) -> Option<(&Now<'a>, Option<&'a Row>)> {
        let now = self.nows.iter().find(|now| now.at == trigger.rule)?;
        Some((now, self.rows.get(trigger.place).copied().flatten()))
    }
}

fn full() -> Error {
    let detail = "no room to count another agent; go on as one that is counted, or wait until \
                  others are forgotten";
    Error::new(Reason::MonitorFull, detail)
}
