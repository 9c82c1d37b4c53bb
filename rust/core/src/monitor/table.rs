//! Every agent that is counted: bounded, and an agent of whom nothing is remembered has no row.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::Subject;
use super::cell::Cell;
use super::ready::Ready;
use super::rules::Rules;
use crate::key::AgentId;
use crate::limits::{SUBJECTS, SUBJECTS_PER_PRINCIPAL};

/// What all rules remember of one agent.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Holder of the first link below which the agent was first counted.
    pub(super) principal: AgentId,
    /// Whether it stays when the agent's links have expired.
    pub(super) lasting: bool,
    /// Effects of which the fuel is not known yet.
    pub(super) open: u32,
    /// Which rules have a cell, and which of the cells do not go blank by themselves.
    present: u64,
    kept: u64,
    cells: Vec<Cell>,
    /// When the queue looks at it again.
    queued: Option<u64>,
}

impl Row {
    pub(super) const fn new(principal: AgentId, lasting: bool) -> Self {
        let (present, kept, open) = (0, 0, 0);
        Self { principal, lasting, open, present, kept, cells: Vec::new(), queued: None }
    }

    pub(super) fn cell(&self, rule: u32) -> Option<&Cell> {
        if self.present >> rule & 1 == 0 {
            return None;
        }
        self.cells.get(self.place(rule))
    }

    /// The rules that have a cell, with their cells.
    pub(super) fn cells(&self) -> impl Iterator<Item = (u32, &Cell)> {
        ones(self.present).zip(&self.cells)
    }

    /// Changes a rule's cell, a blank one where there was none.
    pub(super) fn change(&mut self, rule: u32, ready: &Ready, change: impl FnOnce(&mut Cell)) {
        let place = self.place(rule);
        if self.present >> rule & 1 == 0 {
            self.cells.insert(place, ready.cell());
            self.present |= 1 << rule;
        }
        if let Some(cell) = self.cells.get_mut(place) {
            change(cell);
            self.kept = self.kept & !(1 << rule) | u64::from(cell.is_kept()) << rule;
        }
    }

    /// The first second in which nothing is remembered.
    pub(super) fn blank_at(&self, rules: &Rules) -> u64 {
        if self.stays() {
            return u64::MAX;
        }
        let each = |(at, cell): (u32, &Cell)| Some(cell.blank_at(rules.get(at)?.1));
        self.cells().filter_map(each).max().unwrap_or(0)
    }

    const fn stays(&self) -> bool {
        self.kept != 0 || self.open > 0
    }

    /// INVARIANT: cells lie in the order of their rules, so a cell's place is the number of
    /// cells before it.
    const fn place(&self, rule: u32) -> usize {
        (self.present & ((1 << rule) - 1)).count_ones() as usize
    }

    /// The cells of the rules that other rules have too.
    fn moved(&self, old: &Rules, new: &Rules) -> Self {
        let mut row = Self::new(self.principal, self.lasting);
        row.open = self.open;
        for (at, cell) in self.cells() {
            if let Some(to) = old.same_in(new, at)
                && let Some((_, ready)) = new.get(to)
            {
                row.change(to, ready, |fresh| *fresh = cell.clone());
            }
        }
        row
    }
}

/// Every row, by agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    rows: HashMap<AgentId, Row>,
    below: HashMap<AgentId, usize>,
    /// When to look at a row again: never after it goes blank.
    queue: BTreeSet<(u64, AgentId)>,
}

impl Table {
    pub(super) fn get(&self, agent: &AgentId) -> Option<&Row> {
        self.rows.get(agent)
    }

    /// Rows with their agents, in the order of the agents.
    pub(super) fn sorted(&self) -> Vec<(&AgentId, &Row)> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(agent, _)| **agent);
        rows
    }

    /// Whether so many more agents can be counted below a principal.
    pub(super) fn has_room(&self, principal: &AgentId, more: usize) -> bool {
        let below = self.below.get(principal).copied().unwrap_or(0);
        below + more <= SUBJECTS_PER_PRINCIPAL && self.rows.len() + more <= SUBJECTS
    }

    /// Changes the row of an agent, a new one where there is room for it.
    pub(super) fn change(
        &mut self,
        subject: &Subject,
        principal: &AgentId,
        at: (&Rules, u64),
        change: impl FnOnce(&mut Row),
    ) {
        let unsettled = match self.rows.get_mut(&subject.agent) {
            Some(row) => {
                row.lasting |= subject.lasting;
                change(row);
                row.queued.is_none() && !row.stays()
            }
            None => {
                let mut row = Row::new(*principal, subject.lasting);
                change(&mut row);
                self.insert(subject.agent, row)
            }
        };
        if unsettled {
            self.settle(&subject.agent, at);
        }
    }

    /// Adds a row where there is room and none.
    pub(super) fn insert(&mut self, agent: AgentId, row: Row) -> bool {
        if !self.has_room(&row.principal, 1) {
            return false;
        }
        let Entry::Vacant(place) = self.rows.entry(agent) else { return false };
        *self.below.entry(row.principal).or_insert(0) += 1;
        place.insert(row);
        true
    }

    pub(super) fn remove(&mut self, agent: &AgentId) {
        let Some(row) = self.rows.remove(agent) else { return };
        if let Some(queued) = row.queued {
            self.queue.remove(&(queued, *agent));
        }
        if let Some(below) = self.below.get_mut(&row.principal) {
            *below = below.saturating_sub(1);
            if *below == 0 {
                self.below.remove(&row.principal);
            }
        }
    }

    /// Ends an effect of an agent; `set_rules` follows.
    pub(super) fn close(&mut self, agent: &AgentId) {
        if let Some(row) = self.rows.get_mut(agent) {
            row.open = row.open.saturating_sub(1);
        }
    }

    /// Drops what is blank by now.
    pub(super) fn forget(&mut self, at: (&Rules, u64)) {
        while let Some((due, agent)) = self.queue.first().copied() {
            if due > at.1 {
                break;
            }
            self.settle(&agent, at);
        }
    }

    /// Drops a row that is blank, and queues it for the second in which it will be.
    pub(super) fn settle(&mut self, agent: &AgentId, (rules, time): (&Rules, u64)) {
        let Some(row) = self.rows.get_mut(agent) else { return };
        if let Some(queued) = row.queued.take() {
            self.queue.remove(&(queued, *agent));
        }
        let due = row.blank_at(rules);
        if due <= time {
            self.remove(agent);
        } else if due < u64::MAX {
            row.queued = Some(due);
            self.queue.insert((due, *agent));
        }
    }

    /// Goes over to other rules.
    pub(super) fn set_rules(&mut self, old: &Rules, new: &Rules, time: u64) {
        self.queue.clear();
        for row in self.rows.values_mut() {
            *row = row.moved(old, new);
        }
        let agents: Vec<_> = self.rows.keys().copied().collect();
        agents.iter().for_each(|agent| self.settle(agent, (new, time)));
    }
}

/// The places of the bits that are set, lowest first.
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (at < u64::BITS).then_some(at)
    })
}
