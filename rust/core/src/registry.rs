//! Who is registered: names, their keys, and the names that look alike (spec/registry.md).
//!
//! A name is given once and never again; a key belongs to one name for ever, former keys too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, check_name};
use crate::limits;
use crate::registration::{Registration, Role};

/// The fold of the registrations in a log.
// INVARIANT: `keys` and `skeletons` are what `agents` say and nothing else; no two agents have
// the same skeleton, no two the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    agents: BTreeMap<Arc<str>, Agent>,
    keys: HashMap<AgentId, Owner>,
    skeletons: HashMap<String, Arc<str>>,
}

/// A name and its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    role: Role,
    name: Arc<str>,
    first: AgentId,
    keys: Vec<(AgentId, u64)>,
}

/// Whose a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    name: Arc<str>,
    first: AgentId,
}

/// One agent in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its keys and the seconds since which they count, newest last.
    pub keys: Vec<(String, u64)>,
    /// Its name.
    pub name: String,
    /// `agent`, `root` or `gate`.
    pub role: String,
}

impl Registry {
    /// Refuses a name that is taken or looks like one that is, a key that was ever registered,
    /// and a rotation that the holder of the name has not signed.
    pub fn check(&self, registration: &Registration) -> Result<()> {
        let name = registration.name.as_str();
        match &registration.previous {
            None => self.check_new(name)?,
            Some(previous) => self.check_rotation(registration, previous)?,
        }
        match self.keys.get(&registration.key) {
            Some(owner) => taken(format!(
                "the key is or was the key of `{}`, and counts for one name once; generate a new \
                 one",
                owner.name
            )),
            None => Ok(()),
        }
    }

    /// Takes in a registration that is in the log. One that contradicts those before it is an
    /// error and changes nothing.
    pub fn apply(&mut self, registration: &Registration, time: u64) -> Result<()> {
        self.check(registration)?;
        let key = registration.key;
        match self.agents.get_mut(registration.name.as_str()) {
            Some(agent) => {
                agent.keys.push((key, time));
                let owner = Owner { name: agent.name.clone(), first: agent.first };
                self.keys.insert(key, owner);
            }
            None => {
                let name: Arc<str> = registration.name.as_str().into();
                let keys = vec![(key, time)];
                self.insert(Agent { role: registration.role, name, first: key, keys });
            }
        }
        Ok(())
    }

    /// Whom a key stands for: the first key of the agent whose key it is or was, or the key
    /// itself where it is nobody's. Counters and suspensions are kept by it, so that a rotation
    /// escapes none. What stands against a key from before its registration is found under the
    /// key alone: ask for both.
    #[must_use]
    pub fn subject(&self, key: &AgentId) -> AgentId {
        self.keys.get(key).map_or(*key, |owner| owner.first)
    }

    /// The agent of that name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.agents.get(name)
    }

    /// The agent whose key it is or was.
    #[must_use]
    pub fn agent_of(&self, key: &AgentId) -> Option<&Agent> {
        self.agents.get(&self.keys.get(key)?.name)
    }

    /// The newest key of that name.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<AgentId> {
        self.agents.get(name).map(Agent::current)
    }

    /// The roots that are trusted where these are: they, and the keys that have come after them.
    #[must_use]
    pub fn roots(&self, trusted: &[AgentId]) -> Vec<AgentId> {
        let mut roots = trusted.to_vec();
        for agent in self.list().filter(|agent| agent.role == Role::Root) {
            let keys = agent.keys.iter().map(|(key, _)| key);
            roots.extend(keys.skip_while(|key| !trusted.contains(key)));
        }
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Every agent, by name.
    pub fn list(&self) -> impl ExactSizeIterator<Item = &Agent> {
        self.agents.values()
    }

    /// All of it, by name, whatever way it came about.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Item> {
        let text = |(key, since): &(AgentId, u64)| (key.to_string(), *since);
        let item = |agent: &Agent| Item {
            keys: agent.keys.iter().map(text).collect(),
            name: agent.name.to_string(),
            role: agent.role.code().to_owned(),
        };
        self.list().map(item).collect()
    }

    /// Takes back one item of a snapshot; refuses what no log could have led to.
    pub fn restore(&mut self, item: &Item) -> Result<()> {
        self.check_new(&item.name)?;
        let mut keys = Vec::with_capacity(item.keys.len());
        for (text, since) in &item.keys {
            let key = AgentId::parse_text(text)?;
            let repeated = keys.iter().any(|(other, _)| *other == key);
            if repeated || self.keys.contains_key(&key) {
                return taken("a key stands twice in the snapshot".to_owned());
            }
            if keys.last().is_some_and(|(_, before)| before > since) {
                return Err(Error::malformed("the keys of an agent are not in order of time"));
            }
            keys.push((key, *since));
        }
        let Some((first, _)) = keys.first().copied() else {
            return Err(Error::malformed("an agent in the snapshot has no key"));
        };
        if keys.len() > limits::AGENT_KEYS {
            return Err(Error::malformed("an agent in the snapshot has too many keys"));
        }
        let (role, name) = (Role::parse(&item.role)?, item.name.as_str().into());
        self.insert(Agent { role, name, first, keys });
        Ok(())
    }

    fn check_new(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if self.agents.contains_key(name) {
            return taken(format!(
                "the name `{name}` is taken; choose another, or rotate its key with its present one"
            ));
        }
        if let Some(other) = self.skeletons.get(&skeleton(name)) {
            return taken(format!("the name `{name}` looks like `{other}`; choose another"));
        }
        if self.agents.len() >= limits::AGENTS {
            let detail = format!("the registry holds {} names and takes no more", limits::AGENTS);
            return Err(Error::new(Reason::TooLarge, detail));
        }
        Ok(())
    }

    fn check_rotation(&self, registration: &Registration, previous: &AgentId) -> Result<()> {
        let name = &registration.name;
        let Some(agent) = self.agents.get(name.as_str()) else {
            let detail = format!("`{name}` is not registered; register it without a previous key");
            return Err(Error::new(Reason::NotRegistered, detail));
        };
        if agent.role != registration.role {
            let role = agent.role.code();
            let detail = format!("`{name}` is registered as `{role}`, and a role does not change");
            return Err(Error::new(Reason::NoStanding, detail));
        }
        if agent.current() != *previous {
            let detail = format!("only the present key of `{name}` hands the name to a new one");
            return Err(Error::new(Reason::NoStanding, detail));
        }
        if agent.keys.len() >= limits::AGENT_KEYS {
            let most = limits::AGENT_KEYS;
            let detail = format!("`{name}` has had {most} keys; register a new name");
            return Err(Error::new(Reason::TooLarge, detail));
        }
        Ok(())
    }

    fn insert(&mut self, agent: Agent) {
        for (key, _) in &agent.keys {
            let owner = Owner { name: agent.name.clone(), first: agent.first };
            self.keys.insert(*key, owner);
        }
        self.skeletons.insert(skeleton(&agent.name), agent.name.clone());
        self.agents.insert(agent.name.clone(), agent);
    }
}

impl Agent {
    /// What its keys are for.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every key it has had and the second since which it counts, newest last.
    #[must_use]
    pub fn keys(&self) -> &[(AgentId, u64)] {
        &self.keys
    }

    /// Its newest key.
    #[must_use]
    pub fn current(&self) -> AgentId {
        self.keys.last().map_or(self.first, |(key, _)| *key)
    }
}

/// What is left of a name when everything that looks alike is written alike: the skeleton of
/// UTS #39 §4 for the alphabet of names. `0`, `1` and `m` are as in its `confusables.txt` (in
/// lower case); `d` and `w` are taken apart the same way; `.`, `_` and `-` are left out.
#[must_use]
pub fn skeleton(name: &str) -> String {
    let mut out = String::with_capacity(2 * name.len());
    for letter in name.chars() {
        match letter {
            '.' | '_' | '-' => {}
            '0' => out.push('o'),
            '1' => out.push('l'),
            'd' => out.push_str("cl"),
            'm' => out.push_str("rn"),
            'w' => out.push_str("vv"),
            other => out.push(other),
        }
    }
    out
}

fn taken(detail: String) -> Result<()> {
    Err(Error::new(Reason::NameTaken, detail))
}

#[cfg(test)]
mod tests;
