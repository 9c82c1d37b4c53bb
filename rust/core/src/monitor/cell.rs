//! What one rule remembers of one agent: a constant number of bytes, whatever the agent does.

use super::ready::{Kind, Now, Ready};
use super::rule::Of;
use super::window::Window;
use crate::limits::RULE_STEPS;

/// Starts of a sequence: place n has the latest first step after which steps up to n followed.
pub(super) type Starts = [Option<u64>; RULE_STEPS - 1];

/// What one rule remembers of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// First second in which a trigger is an edge again.
    pub(super) mute: u64,
    pub(super) held: Held,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Window(Window),
    Total(u64),
    Starts(Starts),
    State(usize),
}

impl Cell {
    /// A cell that remembers nothing.
    pub(super) fn new(kind: &Kind) -> Self {
        let held = match kind {
            Kind::Tally(tally) if tally.span.is_some() => Held::Window(Window::default()),
            Kind::Tally(_) => Held::Total(0),
            Kind::Steps(_) => Held::Starts(Starts::default()),
            Kind::Machine(_) => Held::State(0),
        };
        Self { mute: 0, held }
    }

    /// Takes in a decision that ended so.
    pub(super) fn add(&mut self, now: &Now<'_>, allowed: bool) {
        match (&mut self.held, &now.ready.kind) {
            (_, Kind::Tally(tally)) if tally.fuel => (),
            (_, Kind::Tally(tally)) => self.spend(now, tally.each),
            (Held::Starts(starts), Kind::Steps(steps)) => {
                // The last step ends a run; there is nothing to remember of it.
                let word = steps.ending(now.word, allowed) & !(1 << (steps.len() - 1));
                advance(starts, word, steps.within, now.time);
            }
            (Held::State(state), Kind::Machine(states)) => {
                if let Some(next) = states.next(*state, now.word) {
                    *state = next;
                    self.mute = 0;
                }
            }
            _ => (),
        }
    }

    /// Takes in a cost.
    pub(super) fn spend(&mut self, now: &Now<'_>, amount: u64) {
        match (&mut self.held, now.live) {
            (Held::Window(window), Some(live)) => window.add(live, amount),
            (Held::Total(total), _) => *total = total.saturating_add(amount),
            _ => (),
        }
    }

    /// Makes further triggers no edge, until the condition has cleared.
    pub(super) fn silence(&mut self, now: &Now<'_>) {
        self.mute = now.ready.quiet().map_or(u64::MAX, |quiet| now.time.saturating_add(quiet));
    }

    /// Whether it is kept until something else happens, however much time passes.
    pub(super) fn is_kept(&self) -> bool {
        self.mute == u64::MAX
            || match &self.held {
                Held::Window(_) | Held::Starts(_) => false,
                Held::Total(total) => *total > 0,
                Held::State(state) => *state > 0,
            }
    }

    /// The first second in which it remembers nothing.
    pub(super) fn blank_at(&self, ready: &Ready) -> u64 {
        if self.is_kept() {
            return u64::MAX;
        }
        let held = match (&self.held, &ready.kind) {
            (Held::Window(window), _) => ready.span().map_or(0, |span| window.blank_at(span)),
            (Held::Starts(starts), Kind::Steps(steps)) => {
                starts.iter().flatten().max().map_or(0, |start| start + steps.within + 1)
            }
            _ => 0,
        };
        held.max(self.mute)
    }
}

/// Whether this decision, ending so, meets the rule's condition for an agent with this cell.
pub(super) fn is_over(now: &Now<'_>, cell: Option<&Cell>, allowed: bool) -> bool {
    match &now.ready.kind {
        Kind::Tally(tally) if tally.fuel => sum(now, cell) >= tally.limit,
        Kind::Tally(tally) => sum(now, cell).saturating_add(tally.each) > tally.limit,
        Kind::Steps(steps) => {
            let last = steps.len() - 1;
            steps.ending(now.word, allowed) >> last & 1 == 1
                && cell.is_some_and(|cell| match &cell.held {
                    Held::Starts(starts) => {
                        live(starts, last - 1, steps.within, now.time).is_some()
                    }
                    _ => false,
                })
        }
        Kind::Machine(states) => states.next(state(cell), now.word).is_none(),
    }
}

/// How many decisions, how much cost or how many steps: what an alert says.
pub(super) fn reached(now: &Now<'_>, cell: Option<&Cell>) -> u64 {
    match &now.ready.kind {
        Kind::Tally(tally) if tally.fuel => sum(now, cell),
        Kind::Tally(tally) => sum(now, cell).saturating_add(tally.each),
        Kind::Steps(steps) => steps.len() as u64,
        Kind::Machine(_) => 1,
    }
}

/// What the condition is, for a person.
pub(super) fn sentence(now: &Now<'_>, cell: Option<&Cell>) -> String {
    let rule = now.rule;
    let name = &rule.name;
    if let Some(rate) = rule.rate {
        return format!("rule `{name}` allows {} in {} s", rate.limit, rate.window);
    }
    if let Some(cost) = rule.cost {
        let of = if cost.of == Of::Fuel { "fuel" } else { "a cost" };
        let window = cost.window.map_or_else(String::new, |window| format!(" in {window} s"));
        return format!("rule `{name}` allows {of} of {}{window}", cost.limit);
    }
    match &now.ready.kind {
        Kind::Machine(states) => {
            format!("rule `{name}` has no way for this from `{}`", states.name_of(state(cell)))
        }
        Kind::Steps(steps) => {
            format!("rule `{name}` has this as the last of {} steps", steps.len())
        }
        Kind::Tally(_) => format!("rule `{name}`"),
    }
}

fn sum(now: &Now<'_>, cell: Option<&Cell>) -> u64 {
    match (cell.map(|cell| &cell.held), now.live) {
        (Some(Held::Window(window)), Some(live)) => window.sum(live),
        (Some(Held::Total(total)), _) => *total,
        _ => 0,
    }
}

fn state(cell: Option<&Cell>) -> usize {
    match cell.map(|cell| &cell.held) {
        Some(Held::State(state)) => *state,
        _ => 0,
    }
}

/// The start, where the last step may still follow.
fn live(starts: &Starts, at: usize, within: u64, time: u64) -> Option<u64> {
    starts.get(at).copied().flatten().filter(|start| time.saturating_sub(*start) <= within)
}

/// Later steps first, so that one decision is one step of each run.
fn advance(starts: &mut Starts, word: u64, within: u64, time: u64) {
    for at in (0..starts.len()).rev().filter(|at| word >> at & 1 == 1) {
        let start = match at.checked_sub(1) {
            None => Some(time),
            Some(before) => live(starts, before, within, time),
        };
        if let Some(place) = starts.get_mut(at) {
            *place = start.max(*place);
        }
    }
}
