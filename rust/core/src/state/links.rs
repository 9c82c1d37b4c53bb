//! The links that a gate has seen, until they expire: who gave what to whom.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits::{CHAIN_LINKS, LINKS, LINKS_PER_PRINCIPAL};
use crate::token::Link;

/// A link that the gate has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) parent: Option<Hash256>,
    pub(super) issuer: AgentId,
    pub(super) holder: AgentId,
    /// Holder of the chain's first link.
    pub(super) principal: AgentId,
    /// First second in which every chain with this link is dead.
    pub(super) expires: u64,
}

/// What a link says of who gave what to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    id: Hash256,
    parent: Option<Hash256>,
    issuer: AgentId,
    holder: AgentId,
    expires: u64,
}

impl Given {
    pub(crate) fn of(link: &Link) -> Self {
        let claims = link.claims();
        let (issuer, holder) = (claims.issuer, claims.holder);
        let expires = claims.caveats.expires;
        Self { id: link.id(), parent: claims.parent, issuer, holder, expires }
    }
}

/// Every live link that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    seen: HashMap<Hash256, Seen>,
    held: HashMap<AgentId, HashSet<Hash256>>,
    /// How many there are below each holder of a first link, that link included.
    below: HashMap<AgentId, usize>,
    expiry: BTreeSet<(u64, Hash256)>,
}

impl Links {
    pub(super) fn get(&self, id: &Hash256) -> Option<&Seen> {
        self.seen.get(id)
    }

    /// Whether it holds any link.
    pub(super) fn knows(&self, agent: &AgentId) -> bool {
        self.held.contains_key(agent)
    }

    /// The links that an agent holds.
    pub(super) fn held(&self, agent: &AgentId) -> impl Iterator<Item = &Hash256> {
        self.held.get(agent).into_iter().flatten()
    }

    /// Refuses so many more below the holder of a first link where no room is left: a fresh key is
    /// free, and a link is remembered for as long as it lives.
    pub(super) fn check(&self, principal: &AgentId, more: usize) -> Result<()> {
        let below = self.below.get(principal).copied().unwrap_or(0);
        let fits = below + more <= LINKS_PER_PRINCIPAL && self.seen.len() + more <= LINKS;
        if more == 0 || fits {
            return Ok(());
        }
        let detail = "no room for a new link; go on with one that the gate has seen, or wait until \
                      some have expired";
        Err(Error::new(Reason::StreamsFull, detail))
    }

    /// Takes in a link, by its id.
    pub(super) fn add(&mut self, link: &Given) -> Result<()> {
        let Given { id, parent, issuer, holder, expires: own } = *link;
        let (principal, expires) = match parent {
            None => (holder, own),
            Some(parent) => match self.seen.get(&parent) {
                Some(seen) => (seen.principal, own.min(seen.expires)),
                None => return Err(Error::malformed("a link whose parent was not seen")),
            },
        };
        self.put(id, Seen { parent, issuer, holder, principal, expires });
        Ok(())
    }

    pub(super) fn put(&mut self, id: Hash256, seen: Seen) {
        if !self.seen.contains_key(&id) {
            self.held.entry(seen.holder).or_default().insert(id);
            self.expiry.insert((seen.expires, id));
            *self.below.entry(seen.principal).or_insert(0) += 1;
            self.seen.insert(id, seen);
        }
    }

    /// Whether the signer issued this link or one above it.
    pub(super) fn issued(&self, signer: &AgentId, link: &Hash256) -> bool {
        self.chain(link).any(|seen| seen.issuer == *signer)
    }

    /// The link and those above it, as far as they were seen.
    pub(super) fn chain(&self, link: &Hash256) -> impl Iterator<Item = &Seen> {
        let up = |seen: &&Seen| seen.parent.and_then(|parent| self.seen.get(&parent));
        std::iter::successors(self.seen.get(link), up).take(CHAIN_LINKS)
    }

    /// Drops the next link that is dead at `time`; its id, and its holder if that was the last.
    pub(super) fn forget(&mut self, time: u64) -> Option<(Hash256, Option<AgentId>)> {
        let (expires, id) = self.expiry.first().copied()?;
        if expires > time {
            return None;
        }
        self.expiry.pop_first();
        let Some(seen) = self.seen.remove(&id) else { return Some((id, None)) };
        if let Some(below) = self.below.get_mut(&seen.principal) {
            *below = below.saturating_sub(1);
            if *below == 0 {
                self.below.remove(&seen.principal);
            }
        }
        let Some(links) = self.held.get_mut(&seen.holder) else { return Some((id, None)) };
        links.remove(&id);
        if !links.is_empty() {
            return Some((id, None));
        }
        self.held.remove(&seen.holder);
        Some((id, Some(seen.holder)))
    }

    /// All of them: by expiry, then by id.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Hash256, &Seen)> {
        self.expiry.iter().filter_map(|(_, id)| self.seen.get(id).map(|seen| (id, seen)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::key::{Identity, sha256};

    fn agent(n: u8) -> AgentId {
        Identity::from_seed("a", &[n; 32]).unwrap().id()
    }

    fn fill(links: &mut Links, principal: AgentId, count: usize) {
        for n in 0..count {
            let id = sha256(format!("{principal} {n}").as_bytes());
            let (issuer, holder, expires) = (principal, principal, 100);
            links.put(id, Seen { parent: None, issuer, holder, principal, expires });
        }
    }

    #[test]
    fn one_holder_of_a_first_link_fills_an_eighth_and_what_expires_is_room() {
        let (mut links, one, other) = (Links::default(), agent(1), agent(2));
        fill(&mut links, one, LINKS_PER_PRINCIPAL - 1);
        links.check(&one, 1).unwrap();
        assert_eq!(links.check(&one, 2).unwrap_err().reason, Reason::StreamsFull);
        fill(&mut links, one, LINKS_PER_PRINCIPAL);
        assert_eq!(links.check(&one, 1).unwrap_err().reason, Reason::StreamsFull);
        links.check(&one, 0).unwrap();
        links.check(&other, 16).unwrap();
        while links.forget(100).is_some() {}
        links.check(&one, 16).unwrap();
        assert!(links.below.is_empty() && links.seen.is_empty() && links.held.is_empty());
    }
}
