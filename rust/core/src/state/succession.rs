//! A gate whose key was rotated, and the one that goes on after it (spec/registry.md).
//!
//! A log belongs to one key. So the rotation is the last thing that a gate writes, and what it
//! knows then are the first lines of the next one's log.

use std::collections::BTreeSet;

use super::State;
use super::snapshot::Item;
use super::streams::Streams;
use crate::audit::{Former, INHERITED, InheritedPart};
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;
use crate::registration::{Registration, Role};

impl State {
    /// Who goes on in the place of this gate, once it has handed over.
    #[must_use]
    pub const fn successor(&self) -> Option<AgentId> {
        self.successor
    }

    /// The log that this one goes on after, if it is not the first of its gate.
    #[must_use]
    pub const fn former(&self) -> Option<&Former> {
        self.former.as_ref()
    }

    /// Refuses everything once the gate has handed over.
    pub fn check_succeeded(&self) -> Result<()> {
        let Some(successor) = self.successor else { return Ok(()) };
        let detail = format!("this gate has handed over to `{successor}`; address that one");
        Err(Error::new(Reason::WrongGate, detail))
    }

    /// Refuses a log that ends before it has said all that it inherited: it would pass for that
    /// of a gate that knows nothing yet.
    pub fn check_whole(&self) -> Result<()> {
        match self.awaited {
            None => Ok(()),
            Some((part, of)) => Err(Error::malformed(format!(
                "what the log inherited ends after {part} of {of} parts; put back the whole log"
            ))),
        }
    }

    /// What the gate that comes after this one has to know at that second: all but what can mean
    /// nothing at another gate. Messages and statements name their gate, so none of those that
    /// were used up here is fresh there; entries of this log are not entries of the next.
    #[must_use]
    pub fn bequest(&self, now: u64) -> Self {
        let mut heir = self.clone();
        heir.advance(now);
        let pending: Vec<_> = heir.pending().collect();
        heir.settle(&pending);
        (heir.streams, heir.nonces) = (Streams::default(), BTreeSet::new());
        (heir.successor, heir.former) = (None, None);
        heir
    }

    /// The registration with which a gate hands over to its next key is its last word.
    pub(super) fn hand_over(&mut self, registration: &Registration) {
        if registration.role == Role::Gate && registration.previous == Some(registration.gate) {
            self.successor = Some(registration.key);
        }
    }

    /// Refuses a line where none of its kind can be: in the middle of what is inherited, and
    /// after the last word of the gate. The log's own lines say nothing of the gate's.
    pub(super) fn check_place(&self, kind: &str) -> Result<()> {
        if kind != INHERITED {
            self.check_whole()?;
        }
        if self.successor.is_some() && !matches!(kind, "torn" | "restored") {
            return Err(Error::malformed("a line after the one in which the gate handed over"));
        }
        Ok(())
    }

    /// Takes in a part of what the former gate knew. The parts are the lines after the first.
    pub(super) fn inherit(&mut self, index: u64, body: &[u8]) -> Result<()> {
        let InheritedPart { part, of, former, items } = InheritedPart::parse(body)?;
        let begun = self.former.is_none_or(|known| known == former);
        if index != part + 1 || !begun || (part > 0) != (self.awaited == Some((part, of))) {
            return Err(Error::malformed("a part of what was inherited that does not belong here"));
        }
        for (at, item) in items.into_iter().enumerate() {
            let item = Item::parse(item)?;
            let first = part == 0 && at == 0;
            let belongs = match &item {
                Item::Time { time, .. } => first && *time == self.time,
                other => !first && other.is_heritable(),
            };
            if !belongs {
                return Err(Error::malformed("an item that is not handed over, or not there"));
            }
            self.take_back(item)?;
        }
        self.former = Some(former);
        self.awaited = (part + 1 < of).then_some((part + 1, of));
        if self.awaited.is_none() && !self.is_heir_of(&former.gate) {
            let detail = "what was inherited names no gate whose former key is the former log's";
            return Err(Error::malformed(detail));
        }
        Ok(())
    }

    /// Whether the newest rotation of some gate's name replaced this key.
    fn is_heir_of(&self, gate: &AgentId) -> bool {
        let keys = self.registry.agent_of(gate).filter(|agent| agent.role() == Role::Gate);
        let keys = keys.map(|agent| agent.keys()).unwrap_or_default();
        matches!(keys, [.., (before, _), _] if before == gate)
    }
}

#[cfg(test)]
mod tests;
