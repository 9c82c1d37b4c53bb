//! All that a log implies: which messages were used, what is revoked, which links were seen,
//! which effects are open. It changes by [`State::apply`], one line at a time, so that reading
//! the log again gives the same state; [`State::advance`] only drops what is stale.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::attest::{Attestation, Kind, Predicate, Vouched};
use crate::audit::{Former, INHERITED};
use crate::control::{Control, Statement, Target, Verb};
use crate::entry::{
    Alerted, Attested, ControlSeen, Decision, Entry, LinkSeen, Outcome, Record, Recovered,
    Registered, Requested, Rules, Summary, Told, Unused,
};
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256};
use crate::limits;
use crate::monitor::{Alert, Event, Monitor, Rules as MonitorRules, Subject, Then, Verdict};
use crate::pattern::Resource;
use crate::registration::Registration;
use crate::registry::Registry;
use crate::token::{Link, Token};

mod links;
mod snapshot;
mod standing;
mod streams;
mod succession;
mod withdrawn;
mod words;

pub(crate) use links::Given;
use links::Links;
pub use snapshot::check_rules;
use streams::Streams;
pub use withdrawn::Scope;
use withdrawn::{Author, Withdrawals};
use words::Words;

/// The fold of a log.
#[derive(Clone, Debug)]
pub struct State {
    time: u64,
    streams: Streams,
    revoked: Withdrawals,
    suspended: Withdrawals,
    links: Links,
    registry: Registry,
    words: Words,
    nonces: BTreeSet<(u64, String)>,
    /// Decisions without an outcome.
    pending: BTreeSet<u64>,
    monitor: Monitor,
    rules: Option<Rules>,
    /// After a restored copy was accepted: what was signed up to here may be in the lost lines.
    lost: Option<u64>,
    /// Who goes on in the place of this gate.
    successor: Option<AgentId>,
    /// The log that this one goes on after.
    former: Option<Former>,
    /// The part of what was inherited that has to come next, and of how many.
    awaited: Option<(u64, u64)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            time: 0,
            streams: Streams::default(),
            revoked: Withdrawals::new(Reason::Revoked),
            suspended: Withdrawals::new(Reason::Suspended),
            links: Links::default(),
            registry: Registry::default(),
            words: Words::default(),
            nonces: BTreeSet::new(),
            pending: BTreeSet::new(),
            monitor: Monitor::default(),
            rules: None,
            lost: None,
            successor: None,
            former: None,
            awaited: None,
        }
    }
}

impl State {
    /// The latest second that a line names, or at which something was decided.
    #[must_use]
    pub const fn time(&self) -> u64 {
        self.time
    }

    /// Decisions that allowed an effect whose outcome is not known.
    pub fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().copied()
    }

    /// What the last `rules` line says is enforced.
    #[must_use]
    pub const fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// Whether the link was seen before.
    #[must_use]
    pub fn has_seen(&self, link: &Hash256) -> bool {
        self.links.get(link).is_some()
    }

    /// Whether any standing revocation names the target.
    #[must_use]
    pub fn is_revoked(&self, target: &Target) -> bool {
        self.revoked.names(target)
    }

    /// Whether any standing suspension names the target, or another key of the same agent.
    #[must_use]
    pub fn is_suspended(&self, target: &Target) -> bool {
        self.suspended.names(target) || self.suspended.names(&self.person(target))
    }

    /// Who is registered.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Refuses a registration that takes a name or a key that is not free, or that would hand
    /// on what was withdrawn from the key it replaces or gives.
    pub fn check_registration(&self, registration: &Registration) -> Result<()> {
        for key in std::iter::once(registration.key).chain(registration.previous) {
            let target = Target::Agent(key);
            if self.is_revoked(&target) || self.is_suspended(&target) {
                let detail = "one of its keys is revoked or suspended; have that lifted first";
                return Err(Error::new(Reason::NoStanding, detail));
            }
        }
        self.registry.check(registration)?;
        // It would be counted anew, as whoever the name stands for.
        if registration.previous.is_some() && self.monitor.counts(&registration.key) {
            let detail = "the monitor counts the new key by itself; generate another one";
            return Err(Error::new(Reason::NoStanding, detail));
        }
        Ok(())
    }

    /// What a signer has said about a digest, unless the signer is revoked or suspended here.
    #[must_use]
    pub fn vouched(
        &self,
        digest: &Hash256,
        kind: Kind,
        predicate: Predicate,
        signer: &AgentId,
    ) -> Option<Vouched> {
        let subject = self.registry.subject(signer);
        let barred = self.revoked.bars(signer)
            || self.suspended.bars(signer)
            || self.suspended.bars(&subject);
        self.words.get(digest, kind, predicate, signer).filter(|_| !barred)
    }

    /// Refuses a statement that says nothing new.
    pub fn check_attestation(&self, attestation: &Attestation) -> Result<()> {
        self.words.check(attestation.vouched())
    }

    /// The target under which an agent is suspended, whichever of its keys is named.
    fn person(&self, target: &Target) -> Target {
        match target {
            Target::Agent(agent) => Target::Agent(self.registry.subject(agent)),
            Target::Link(_) => *target,
        }
    }

    /// Refuses a chain with a revoked or suspended agent or link.
    pub fn check_withdrawn(&self, token: &Token) -> Result<()> {
        self.revoked.check(token, |agent| *agent)?;
        self.suspended.check(token, |agent| self.registry.subject(agent))
    }

    /// Refuses what was signed before a restored copy was accepted, or may have been: what the
    /// lost lines used up is not known, and must not be fresh again.
    pub fn check_lost(&self, issued: u64) -> Result<()> {
        match self.lost {
            Some(lost) if issued <= lost => {
                let detail = format!(
                    "it is dated {issued}, and lines up to {lost} were lost when the log was \
                     restored; sign a new one after that"
                );
                Err(Error::new(Reason::Stale, detail))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a number that was used, or a stream for which there is no room.
    pub fn check_fresh(&self, at: &Slot<'_>) -> Result<()> {
        self.streams.check(at)
    }

    /// Refuses a chain with links that were not seen before, where there is no room for them.
    pub fn check_room(&self, token: &Token) -> Result<()> {
        let links = token.links();
        let Some(first) = links.first() else { return Ok(()) };
        let principal = &first.claims().holder;
        // Nearly always there is room for all of them, seen or not.
        self.links.check(principal, links.len()).or_else(|_| {
            let new = links.iter().filter(|link| !self.has_seen(&link.id())).count();
            self.links.check(principal, new)
        })
    }

    /// What the monitor says to a request that is otherwise allowed or not, and what to log then.
    /// `holders` are those of its chain, the first link's first.
    pub fn check_monitor(
        &self,
        holders: &[AgentId],
        (action, resource): (&str, &Resource),
        allowed: bool,
    ) -> (Result<()>, Vec<Alert>) {
        if self.monitor.rules().is_empty() {
            return (Ok(()), Vec::new());
        }
        let matched = self.monitor.matching(action, resource);
        let subjects = self.subjects(holders.iter());
        let event = Event { subjects: &subjects, matched: &matched, time: self.time };
        self.monitor.check(&event, allowed)
    }

    /// On whose account a decision counts: every holder once, under the key that it is known by.
    fn subjects<'a>(&self, holders: impl Iterator<Item = &'a AgentId>) -> Vec<Subject> {
        let mut subjects: Vec<Subject> = Vec::with_capacity(limits::CHAIN_LINKS);
        for holder in holders {
            let agent = self.registry.subject(holder);
            if subjects.iter().all(|subject| subject.agent != agent) {
                let registered = self.registry.agent_of(holder).is_some();
                subjects.push(Subject { agent, lasting: registered || subjects.is_empty() });
            }
        }
        subjects
    }

    /// Takes in an entry that is being written, as [`State::apply`] takes in its line.
    pub fn take(&mut self, index: u64, time: u64, record: &Record) -> Result<()> {
        self.check_place(record.kind())?;
        self.advance(time);
        match record.told() {
            Told::Unread => self.apply(index, time, record.kind(), record.body()),
            Told::Link(given) => self.links.add(given),
            Told::Decision(told) => self.decided(index, &told.0, Some(&told.1)),
        }
    }

    /// Takes in one line. A body that does not read, or that contradicts the lines before it,
    /// is an error: such a log is not folded.
    pub fn apply(&mut self, index: u64, time: u64, kind: &str, body: &[u8]) -> Result<()> {
        // That times only grow is the log's to check; a line may be older than the second at
        // which something else was decided.
        self.check_place(kind)?;
        self.advance(time);
        match kind {
            INHERITED => self.inherit(index, body),
            Decision::KIND => self.decided(index, &Decision::from_body(body)?, None),
            LinkSeen::KIND => self.saw(&LinkSeen::from_body(body)?),
            Outcome::KIND => self.ended(&Outcome::from_body(body)?),
            Requested::KIND => self.check_pending(Requested::from_body(body)?.decision),
            Alerted::KIND => self.alerted(&Alerted::from_body(body)?),
            ControlSeen::KIND => self.controlled(&ControlSeen::from_body(body)?),
            Rules::KIND => self.ruled(Rules::from_body(body)?),
            Registered::KIND => {
                let registration = Registered::from_body(body)?.registration()?;
                self.registry.apply(&registration, time)?;
                self.hand_over(&registration);
                Ok(())
            }
            Attested::KIND => {
                let attestation = Attested::from_body(body)?.attestation()?;
                self.words.add(attestation.vouched());
                Ok(())
            }
            Recovered::KIND => {
                self.settle(&Recovered::from_body(body)?.pending);
                Ok(())
            }
            Unused::KIND => {
                self.settle(&Unused::from_body(body)?.decisions);
                Ok(())
            }
            Summary::KIND => Summary::from_body(body).map(drop),
            // Written by the log about itself; they change nothing here.
            "open" | "torn" => Ok(()),
            "restored" => {
                // A lost message may have been dated ahead of the gate by the skew.
                self.lost = Some(time.saturating_add(limits::SKEW_SECONDS));
                Ok(())
            }
            other => Err(Error::malformed(format!("`{other}` is no kind of line"))),
        }
    }

    /// Moves on to a second at which something is about to be decided, and drops what can no
    /// longer matter then; a clock behind the log changes nothing. Reading the log again does
    /// the same, for lines are dated with what this returns: the second that counts.
    pub fn advance(&mut self, now: u64) -> u64 {
        if now > self.time {
            self.forget(now);
        }
        self.time
    }

    /// Drops what can no longer matter at `time`.
    fn forget(&mut self, time: u64) {
        self.time = time;
        self.streams.forget(time);
        while self.nonces.first().is_some_and(|(expires, _)| *expires <= time) {
            self.nonces.pop_first();
        }
        self.monitor.advance(time);
        while let Some((link, last_of)) = self.links.forget(time) {
            // A chain with this link is dead, whatever was said about it.
            let dead = Target::Link(link);
            self.revoked.forget(&dead);
            self.suspended.forget(&dead);
            if let Some(holder) = last_of.filter(|it| self.registry.agent_of(it).is_none()) {
                self.monitor.forget(&holder);
            }
        }
    }

    /// Takes in a decision; its resource is read where it is not known.
    fn decided(
        &mut self,
        index: u64,
        decision: &Decision,
        resource: Option<&Resource>,
    ) -> Result<()> {
        let token = unhex(&decision.token)?;
        let principal = match self.links.get(&token) {
            Some(seen) => seen.principal,
            None => return Err(Error::malformed("a decision about a link that was not seen")),
        };
        let slot = Slot {
            holder: &decision.holder,
            principal: &principal,
            stream: unhex(&decision.stream)?,
            number: decision.number,
            expires: decision.expires,
        };
        self.streams.take(&slot)?;
        if decision.allow {
            self.pending.insert(index);
        }
        if self.monitor.rules().is_empty() {
            return Ok(());
        }
        match resource {
            Some(resource) => self.counted(index, decision, (&token, resource)),
            None => {
                let resource = Resource::parse(&decision.resource)?;
                self.counted(index, decision, (&token, &resource))
            }
        }
        Ok(())
    }

    fn saw(&mut self, entry: &LinkSeen) -> Result<()> {
        let bytes = unbase64(&entry.link)?;
        let link = Link::decode(&bytes)?;
        if link.id() != unhex(&entry.id)? {
            return Err(Error::malformed("a link is not the one its id names"));
        }
        self.links.add(&Given::of(&link))
    }

    fn counted(
        &mut self,
        index: u64,
        decision: &Decision,
        (token, resource): (&Hash256, &Resource),
    ) {
        let matched = self.monitor.matching(&decision.action, resource);
        let mut holders: Vec<_> = self.links.chain(token).map(|seen| &seen.holder).collect();
        holders.reverse();
        let subjects = self.subjects(holders.into_iter());
        let event = Event { subjects: &subjects, matched: &matched, time: self.time };
        self.monitor.count(&event, Verdict::of(decision.reason.as_deref()), index);
    }

    fn alerted(&mut self, alert: &Alerted) -> Result<()> {
        if alert.then == Then::Suspend {
            let agent = AgentId::parse_text(&alert.agent)?;
            let by = Author::Rule(alert.rule.clone());
            self.suspended.add(self.person(&Target::Agent(agent)), by, Scope::Gate);
        }
        Ok(())
    }

    fn ruled(&mut self, rules: Rules) -> Result<()> {
        self.monitor.set_rules(MonitorRules::new(rules.monitor.clone())?);
        self.rules = Some(rules);
        Ok(())
    }

    /// Refuses a decision that has ended, or was none.
    pub fn check_pending(&self, decision: u64) -> Result<()> {
        if self.pending.contains(&decision) {
            return Ok(());
        }
        Err(Error::malformed("a request without an open decision"))
    }

    fn ended(&mut self, outcome: &Outcome) -> Result<()> {
        if !self.pending.remove(&outcome.decision) {
            return Err(Error::malformed("an outcome without an open decision"));
        }
        self.monitor.spent(outcome.decision, outcome.fuel, self.time);
        Ok(())
    }

    fn settle(&mut self, decisions: &[u64]) {
        for decision in decisions {
            self.pending.remove(decision);
            self.monitor.spent(*decision, None, self.time);
        }
    }

    fn controlled(&mut self, entry: &ControlSeen) -> Result<()> {
        let control = Control::decode(&unbase64(&entry.statement)?)?;
        let statement = control.statement();
        self.nonces.insert((statement.expires, nonce_key(statement)));
        let (target, signer) = (statement.target, statement.signer);
        let scope = Scope::parse(&entry.scope)?;
        match statement.verb {
            Verb::Revoke => self.revoked.add(target, Author::Agent(signer), scope),
            Verb::Suspend => {
                self.suspended.add(self.person(&target), Author::Agent(signer), scope);
            }
            Verb::Restore => self.revoked.lift(&target, &signer, scope),
            Verb::Resume => {
                let person = self.person(&target);
                self.suspended.lift(&person, &signer, scope);
                // A delegator takes back its own word and no count: whoever has two keys is one.
                if let (Target::Agent(agent), Scope::Gate) = (person, scope) {
                    self.monitor.reset(&agent);
                }
            }
        }
        Ok(())
    }
}

/// The place that a message takes in its sender's stream.
#[derive(Clone, Debug)]
pub struct Slot<'a> {
    /// The sender, as text.
    pub holder: &'a str,
    /// Holder of the first link of the sender's chain.
    pub principal: &'a AgentId,
    /// The stream.
    pub stream: [u8; 16],
    /// The number in it.
    pub number: u64,
    /// First second in which the message is stale.
    pub expires: u64,
}

fn nonce_key(statement: &Statement) -> String {
    format!("{}{}", hex::encode(statement.nonce), statement.signer)
}

fn unhex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| Error::malformed("a hash in the log is not hex of its length"))?;
    Ok(bytes)
}

fn unbase64(text: &str) -> Result<Vec<u8>> {
    if text.len() > limits::LINE_BYTES {
        return Err(Error::new(Reason::TooLarge, "bytes in the log are too long"));
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::malformed("bytes in the log are not base64url"))
}

#[cfg(test)]
mod tests;
