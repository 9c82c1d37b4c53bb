//! An entry on its way into the log.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Decision, Entry, LinkSeen};
use crate::audit::hex_text;
use crate::error::Result;
use crate::pattern::Resource;
use crate::state::Given;
use crate::token::Link;

/// An entry that is not written yet: its kind, its body, and what the state takes over of it
/// without reading the body again ([`State::take`](crate::state::State::take)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    kind: &'static str,
    body: Vec<u8>,
    // INVARIANT: what reading `body` gives. Both are made here, from one value, and neither
    // changes afterwards, so no state is told of anything that is not in its log.
    told: Told,
}

/// What a body says, where its maker knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has to be read.
    Unread,
    /// Of a link that was verified.
    Link(Given),
    /// Of an answer, with its resource.
    Decision(Box<(Decision, Resource)>),
}

impl Record {
    /// Takes a kind (1 to 32 of `a-z 0-9 _`, a letter first; not one of the log's own) and a
    /// body (one JSON object in canonical form, `spec/audit.md`) that will be read like any line.
    #[must_use]
    pub const fn new(kind: &'static str, body: Vec<u8>) -> Self {
        Self { kind, body, told: Told::Unread }
    }

    /// Writes an entry that will be read like any line.
    pub fn of<E: Entry>(entry: &E) -> Result<Self> {
        Ok(Self::new(E::KIND, entry.to_body()?))
    }

    /// Writes that a link was seen.
    #[must_use]
    pub fn link(link: &Link) -> Self {
        let (id, bytes) = (hex_text(&link.id()), URL_SAFE_NO_PAD.encode(link.as_bytes()));
        // No digit needs an escape, and looking at each for one takes longer than all the rest.
        let body = format!(r#"{{"id":"{id}","link":"{bytes}"}}"#).into_bytes();
        Self { kind: LinkSeen::KIND, body, told: Told::Link(Given::of(link)) }
    }

    /// Writes an answer about a resource. One about another resource is read like any line.
    pub fn decision(decision: Decision, resource: &Resource) -> Result<Self> {
        let record = Self::of(&decision)?;
        if decision.resource != resource.as_str() {
            return Ok(record);
        }
        Ok(Self { told: Told::Decision(Box::new((decision, resource.clone()))), ..record })
    }

    /// The line's `kind`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// The line's `body`.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) const fn told(&self) -> &Told {
        &self.told
    }
}
