//! All that a monitor remembers, as items of JSON: what cannot matter any more is left out, so
//! the same memory has the same items, whatever way it came about.

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Held, Starts};
use super::ready::{Kind, Ready};
use super::table::{Row, ones};
use super::window::Window;
use super::{Monitor, Open, Subject};
use crate::error::{Error, Result};
use crate::key::AgentId;
use crate::limits::TIME_MAX;

/// One item of a snapshot: rows in the order of their agents' keys, then open effects in the
/// order of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    /// What is remembered of one agent.
    Row(RowItem),
    /// An effect of which the fuel is not known yet.
    Open(OpenItem),
}

/// What is remembered of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowItem {
    /// Who, as a `did:key`.
    pub agent: String,
    /// Holder of the first link below which it was first counted.
    pub principal: String,
    /// Whether it stays when its links have expired.
    pub lasting: bool,
    /// Effects of which the fuel is not known yet.
    pub open: u32,
    /// In the order of the rules.
    pub cells: Vec<CellItem>,
}

/// What one rule remembers of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellItem {
    /// The rule's name.
    pub rule: String,
    /// First second in which a trigger is an edge again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mute: u64,
    /// Numbers of buckets and what is in them, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(u64, u64)>,
    /// A cost without a window.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total: u64,
    /// Number of a step and the latest start of a run that has come so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<(usize, u64)>,
    /// The state of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// An effect of which the fuel is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenItem {
    /// Index of its decision.
    pub decision: u64,
    /// Names of the rules that count it.
    pub rules: Vec<String>,
    /// Its holders and whether they last, the first link's first.
    pub subjects: Vec<(String, bool)>,
}

impl Monitor {
    /// All that is remembered now. The rules are not part of it.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Item> {
        let rows = self.table.sorted().into_iter().map(|(agent, row)| self.row_item(agent, row));
        let open = self.open.iter().map(|(decision, open)| self.open_item(*decision, open));
        rows.map(Item::Row).chain(open.map(Item::Open)).collect()
    }

    /// Takes back one item of a snapshot. The rules and the second of the snapshot
    /// ([`Monitor::set_rules`], [`Monitor::advance`]) come first.
    ///
    /// # Errors
    /// `malformed` for what no snapshot under these rules says.
    pub fn restore(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Row(row) => self.restore_row(row),
            Item::Open(open) => self.restore_open(open),
        }
    }

    fn row_item(&self, agent: &AgentId, row: &Row) -> RowItem {
        let cells = row.cells().filter_map(|(at, cell)| self.cell_item(at, cell));
        RowItem {
            agent: agent.to_string(),
            principal: row.principal.to_string(),
            lasting: row.lasting,
            open: row.open,
            cells: cells.collect(),
        }
    }

    /// None where the cell is blank.
    fn cell_item(&self, at: u32, cell: &Cell) -> Option<CellItem> {
        let (rule, ready) = self.rules.get(at)?;
        if cell.blank_at(ready) <= self.time {
            return None;
        }
        let mute = if cell.mute > self.time { cell.mute } else { 0 };
        let mut item = CellItem::blank(rule.name.clone(), mute);
        match (&cell.held, &ready.kind) {
            (Held::Window(window), _) => {
                item.buckets = window.filled(ready.span()?.at(self.time));
            }
            (Held::Total(total), _) => item.total = *total,
            (Held::Starts(starts), Kind::Steps(steps)) => {
                let live = |start: &u64| start.saturating_add(steps.within) >= self.time;
                let all = starts.iter().enumerate();
                let all = all.filter_map(|(at, start)| Some((at, start.filter(live)?)));
                item.starts = all.collect();
            }
            (Held::State(state), Kind::Machine(states)) if *state > 0 => {
                item.state = Some(states.name_of(*state).to_owned());
            }
            _ => (),
        }
        Some(item)
    }

    fn open_item(&self, decision: u64, open: &Open) -> OpenItem {
        let name = |at| Some(self.rules.get(at)?.0.name.clone());
        let holder = |subject: &Subject| (subject.agent.to_string(), subject.lasting);
        OpenItem {
            decision,
            rules: ones(open.rules).filter_map(name).collect(),
            subjects: open.subjects.iter().map(holder).collect(),
        }
    }

    fn restore_row(&mut self, item: &RowItem) -> Result<()> {
        let agent = AgentId::parse_text(&item.agent)?;
        let mut row = Row::new(AgentId::parse_text(&item.principal)?, item.lasting);
        row.open = item.open;
        let mut next = 0;
        for cell in &item.cells {
            let at = self.rules.named(&cell.rule).filter(|at| *at >= next).ok_or_else(strange)?;
            let (_, ready) = self.rules.get(at).ok_or_else(strange)?;
            let taken = cell.to_cell(ready).ok_or_else(strange)?;
            row.change(at, ready, |fresh| *fresh = taken);
            next = at + 1;
        }
        if row.blank_at(&self.rules) <= self.time || !self.table.insert(agent, row) {
            return Err(strange());
        }
        self.table.settle(&agent, (&self.rules, self.time));
        Ok(())
    }

    fn restore_open(&mut self, item: &OpenItem) -> Result<()> {
        let mut rules = 0;
        for name in &item.rules {
            let at = self.rules.named(name).ok_or_else(strange)?;
            rules |= 1_u64 << at;
        }
        let holder = |(agent, lasting): &(String, bool)| {
            Ok(Subject { agent: AgentId::parse_text(agent)?, lasting: *lasting })
        };
        let subjects: Vec<_> = item.subjects.iter().map(holder).collect::<Result<_>>()?;
        let counted = rules != 0 && rules & !self.rules.fuel() == 0 && !subjects.is_empty();
        let open = Open { rules, subjects };
        if !counted || self.open.insert(item.decision, open).is_some() {
            return Err(strange());
        }
        Ok(())
    }
}

impl CellItem {
    const fn blank(rule: String, mute: u64) -> Self {
        Self { rule, mute, buckets: Vec::new(), total: 0, starts: Vec::new(), state: None }
    }

    /// The cell that this was written from; none where a rule of this kind has no such cell.
    fn to_cell(&self, ready: &Ready) -> Option<Cell> {
        let mut cell = ready.cell();
        cell.mute = self.mute;
        let mut used = Self::blank(self.rule.clone(), self.mute);
        match (&mut cell.held, &ready.kind) {
            (Held::Window(window), _) => {
                used.buckets.clone_from(&self.buckets);
                if !self.buckets.is_empty() {
                    *window = Window::from_filled(&self.buckets)?;
                }
            }
            (Held::Total(total), _) => {
                used.total = self.total;
                *total = self.total;
            }
            (Held::Starts(starts), Kind::Steps(steps)) => {
                used.starts.clone_from(&self.starts);
                *starts = to_starts(&self.starts, steps.len())?;
            }
            (Held::State(state), Kind::Machine(states)) => {
                used.state.clone_from(&self.state);
                if let Some(name) = &self.state {
                    *state = states.named(name).filter(|state| *state > 0)?;
                }
            }
            _ => (),
        }
        // What this kind of rule does not have must not be there.
        (used == *self).then_some(cell)
    }
}

fn to_starts(items: &[(usize, u64)], steps: usize) -> Option<Starts> {
    let mut starts = Starts::default();
    let mut next = 0;
    for &(at, start) in items {
        if at < next || at >= steps.saturating_sub(1) || start > TIME_MAX {
            return None;
        }
        *starts.get_mut(at)? = Some(start);
        next = at + 1;
    }
    Some(starts)
}

fn strange() -> Error {
    Error::malformed("an item of a snapshot that the monitor's rules cannot have written")
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}
