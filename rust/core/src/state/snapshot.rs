//! A state as items and back: the same items whatever way the state came about.

use serde::{Deserialize, Serialize};

use super::links::Seen;
use super::streams::Stream;
use super::withdrawn::{Author, Scope, Withdrawal};
use super::{State, unhex};
use crate::attest::{Kind, Predicate, Vouched};
use crate::audit::Former;
use crate::control::Target;
use crate::entry::Rules;
use crate::error::{Error, Reason, Result};
use crate::key::AgentId;
use crate::limits::{SNAPSHOT_ITEM_BYTES, TIME_MAX};
use crate::{monitor, registry};

/// Indices in one item.
const PENDING: usize = 2_000;

/// One item of a snapshot (spec/audit.md). Hashes are hex, agents `did:key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Item {
    /// Always the first.
    Time {
        time: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost: Option<u64>,
    },
    /// The log that this one goes on after.
    Inherited {
        gate: String,
        entries: u64,
        root: String,
    },
    /// The gate has handed over.
    Succeeded {
        by: String,
    },
    Rules(Rules),
    Link {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        issuer: String,
        holder: String,
        principal: String,
        expires: u64,
    },
    Agent(registry::Item),
    Withdrawn {
        /// `revoke` or `suspend`.
        verb: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        scope: Scope,
    },
    /// What a signer has said about a digest.
    Word {
        /// The digest.
        of: String,
        kind: String,
        predicate: String,
        signer: String,
        issued: u64,
        statement: String,
    },
    Nonce {
        expires: u64,
        nonce: String,
    },
    Stream {
        holder: String,
        stream: String,
        newest: u64,
        /// Bit k, the lowest of the last byte first, is `newest - k`; no zeros in front.
        used: String,
        expires: u64,
        principal: String,
    },
    /// Decisions whose outcome is not known.
    Pending {
        decisions: Vec<u64>,
    },
    /// What the monitor remembers.
    Monitor {
        of: monitor::Item,
    },
}

/// Refuses rules that no snapshot could hold: a log that says so could never begin a segment.
pub fn check_rules(rules: &Rules) -> Result<()> {
    let size = write(&Item::Rules(rules.clone()))?.len();
    if size <= SNAPSHOT_ITEM_BYTES {
        return Ok(());
    }
    let detail = format!(
        "roots, operators and rules have {size} bytes as a line, at most {SNAPSHOT_ITEM_BYTES}; \
         trust fewer keys or write fewer rules"
    );
    Err(Error::new(Reason::TooLarge, detail))
}

impl State {
    /// All of it as items, in one order whatever way it came about.
    pub fn snapshot(&self) -> Result<Vec<Vec<u8>>> {
        let mut items = vec![Item::Time { time: self.time, lost: self.lost }];
        items.extend(self.former.map(|Former { gate, entries, root }| Item::Inherited {
            gate: gate.to_string(),
            entries,
            root: hex::encode(root),
        }));
        items.extend(self.successor.map(|key| Item::Succeeded { by: key.to_string() }));
        items.extend(self.rules.clone().map(Item::Rules));
        items.extend(self.links.all().map(|(id, seen)| Item::Link {
            id: hex::encode(id),
            parent: seen.parent.map(hex::encode),
            issuer: seen.issuer.to_string(),
            holder: seen.holder.to_string(),
            principal: seen.principal.to_string(),
            expires: seen.expires,
        }));
        items.extend(self.registry.snapshot().into_iter().map(Item::Agent));
        for (verb, all) in [("revoke", &self.revoked), ("suspend", &self.suspended)] {
            items.extend(all.all().map(|(target, one)| withdrawn(verb, target, one)));
        }
        items.extend(self.words.all().map(|word| Item::Word {
            of: hex::encode(word.subject),
            kind: word.kind.code().to_owned(),
            predicate: word.predicate.uri().to_owned(),
            signer: word.signer.to_string(),
            issued: word.issued,
            statement: hex::encode(word.statement),
        }));
        items.extend(
            self.nonces
                .iter()
                .map(|(expires, nonce)| Item::Nonce { expires: *expires, nonce: nonce.clone() }),
        );
        items.extend(self.streams.all().into_iter().map(|(holder, stream, at)| Item::Stream {
            holder: holder.to_owned(),
            stream: hex::encode(stream),
            newest: at.newest,
            used: at.used_text(),
            expires: at.expires,
            principal: at.principal.to_string(),
        }));
        let pending: Vec<_> = self.pending.iter().copied().collect();
        let some = |some: &[u64]| Item::Pending { decisions: some.to_vec() };
        items.extend(pending.chunks(PENDING).map(some));
        items.extend(self.monitor.snapshot().into_iter().map(|of| Item::Monitor { of }));
        items.iter().map(write).collect()
    }

    /// Takes back one item of a snapshot.
    pub fn restore(&mut self, item: &[u8]) -> Result<()> {
        self.take_back(Item::parse(item)?)
    }

    pub(super) fn take_back(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Time { time, .. } if time > TIME_MAX => {
                return Err(Error::malformed("a snapshot is of a second that no line has"));
            }
            Item::Time { time, lost } => {
                (self.time, self.lost) = (time, lost);
                self.monitor.advance(time);
            }
            Item::Inherited { gate, entries, root } => {
                let (gate, root) = (agent_of(&gate)?, unhex(&root)?);
                self.former = Some(Former { gate, entries, root });
            }
            Item::Succeeded { by } => self.successor = Some(agent_of(&by)?),
            Item::Rules(rules) => self.ruled(rules)?,
            Item::Link { id, parent, issuer, holder, principal, expires } => {
                let seen = Seen {
                    parent: parent.as_deref().map(unhex).transpose()?,
                    issuer: agent_of(&issuer)?,
                    holder: agent_of(&holder)?,
                    principal: agent_of(&principal)?,
                    expires,
                };
                self.links.put(unhex(&id)?, seen);
            }
            Item::Agent(agent) => self.registry.restore(&agent)?,
            Item::Withdrawn { verb, agent, link, signer, rule, scope } => {
                let table = match verb.as_str() {
                    "revoke" => &mut self.revoked,
                    "suspend" => &mut self.suspended,
                    _ => return Err(Error::malformed("a snapshot has a verb that is not known")),
                };
                let target = match (agent, link) {
                    (Some(agent), None) => Target::Agent(agent_of(&agent)?),
                    (None, Some(link)) => Target::Link(unhex(&link)?),
                    _ => return Err(Error::malformed("a snapshot has a target that is not one")),
                };
                let by = match (signer, rule) {
                    (Some(signer), None) => Author::Agent(agent_of(&signer)?),
                    (None, Some(rule)) => Author::Rule(rule),
                    _ => return Err(Error::malformed("a snapshot has a signer that is not one")),
                };
                table.add(target, by, scope);
            }
            Item::Word { of, kind, predicate, signer, issued, statement } => {
                let word = Vouched {
                    subject: unhex(&of)?,
                    kind: Kind::parse(&kind)?,
                    predicate: Predicate::parse(&predicate)?,
                    signer: agent_of(&signer)?,
                    issued,
                    statement: unhex(&statement)?,
                };
                self.words.add(std::iter::once(word));
            }
            Item::Nonce { expires, nonce } => drop(self.nonces.insert((expires, nonce))),
            Item::Stream { holder, stream, newest, used, expires, principal } => {
                let at = Stream::restore(newest, &used, expires, agent_of(&principal)?)?;
                self.streams.put(&holder, unhex(&stream)?, at);
            }
            Item::Pending { decisions } => self.pending.extend(decisions),
            Item::Monitor { of } => self.monitor.restore(&of)?,
        }
        Ok(())
    }
}

impl Item {
    /// Reads one item.
    pub(super) fn parse(item: &[u8]) -> Result<Self> {
        serde_json::from_slice(item)
            .map_err(|error| Error::malformed(format!("a snapshot does not read: {error}")))
    }

    /// Whether it can mean something at the gate that comes after this one.
    pub(super) const fn is_heritable(&self) -> bool {
        match self {
            Self::Time { .. }
            | Self::Rules(_)
            | Self::Link { .. }
            | Self::Agent(_)
            | Self::Word { .. }
            | Self::Withdrawn { .. } => true,
            // An effect that was under way has its decision in the former log.
            Self::Monitor { of } => matches!(of, monitor::Item::Row(row) if row.open == 0),
            Self::Inherited { .. }
            | Self::Succeeded { .. }
            | Self::Nonce { .. }
            | Self::Stream { .. }
            | Self::Pending { .. } => false,
        }
    }
}

fn withdrawn(verb: &str, target: &Target, one: &Withdrawal) -> Item {
    let (agent, link) = match target {
        Target::Agent(agent) => (Some(agent.to_string()), None),
        Target::Link(link) => (None, Some(hex::encode(link))),
    };
    let (signer, rule) = match &one.by {
        Author::Agent(signer) => (Some(signer.to_string()), None),
        Author::Rule(rule) => (None, Some(rule.clone())),
    };
    Item::Withdrawn { verb: verb.to_owned(), agent, link, signer, rule, scope: one.scope }
}

fn agent_of(text: &str) -> Result<AgentId> {
    AgentId::parse_text(text)
}

fn write(item: &Item) -> Result<Vec<u8>> {
    serde_json::to_vec(item)
        .map_err(|_| Error::new(Reason::Internal, "an item of a snapshot has no JSON"))
}
