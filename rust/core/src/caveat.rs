//! What narrows: grants, denials, limits, attestations, times and depth, as one partial order,
//! one question.
//!
//! [`Caveats::covers`] says whether a child asks for no more than its parent has, and
//! [`Caveats::permits`] whether one link allows one request. Neither knows of signatures.

use std::fmt;

use crate::error::{Axis, Error, Reason, Result};
use crate::key::AgentId;
use crate::limits;
use crate::pattern::{Index, Pattern, Resource};

mod codec;
mod host;
mod limit;
mod range;
mod requirement;
mod secret;
mod tree;

pub use host::{HostRule, Methods, reach};
pub use limit::{Limits, UNMETERED};
pub use range::Range;
pub use requirement::Requirement;
pub(crate) use requirement::checked as sorted_requirements;
pub use secret::SecretRule;

/// Action names, sorted and without duplicates, or `*` alone: any action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actions(Vec<String>);

impl Actions {
    /// Takes 1 to 32 names of 1 to 64 of `a-z 0-9 . _ -`, letter first; or `*` alone.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Err(Error::malformed("a grant or denial names no action; name one, or `*`"));
        }
        if names.len() > limits::ACTIONS {
            return Err(too_many("actions", names.len(), limits::ACTIONS));
        }
        if names.iter().any(|name| name == "*") {
            if names.len() > 1 {
                return Err(Error::malformed("the action `*` stands alone in its list"));
            }
        } else {
            names.iter().try_for_each(|name| check_action(name))?;
        }
        Ok(Self(names))
    }

    /// The names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether this set has the name, or any name.
    #[must_use]
    pub fn contains(&self, action: &str) -> bool {
        self.0.iter().any(|name| name == action || name == "*")
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Refuses what is not one action's name.
pub fn check_action(name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let starts = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase());
    if name.len() <= limits::ACTION_BYTES && starts && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "the action `{}` is not 1 to 64 of a-z, 0-9, `.`, `_`, `-`, letter first",
        name.escape_debug()
    )))
}

/// Which arguments a grant allows. Constraints take further forms in a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Args {
    /// Any arguments.
    Any,
    /// The empty object only.
    Empty,
}

impl Args {
    const fn covers(self, child: Self) -> bool {
        matches!((self, child), (Self::Any, _) | (Self::Empty, Self::Empty))
    }

    const fn permits(self, no_args: bool) -> bool {
        matches!(self, Self::Any) || no_args
    }
}

/// One allowance: actions on the resources of a pattern, with arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// Which resources.
    pub resource: Pattern,
    /// Which actions.
    pub actions: Actions,
    /// Which arguments.
    pub args: Args,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource, self.actions)?;
        if self.args == Args::Empty { f.write_str(" {}") } else { Ok(()) }
    }
}

/// What is refused whatever is granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Denial {
    /// Which resources.
    pub resource: Pattern,
    /// Which actions.
    pub actions: Actions,
}

impl Denial {
    fn covers(&self, other: &Self) -> bool {
        self.resource.covers(&other.resource)
            && other.actions.iter().all(|action| self.actions.contains(action))
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource, self.actions)
    }
}

/// One request, as far as a link judges it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    action: &'a str,
    resource: &'a Resource,
    no_args: bool,
}

impl<'a> Request<'a> {
    /// `no_args` says that the arguments are the empty object.
    #[must_use]
    pub fn new(action: &'a str, resource: &'a Resource, no_args: bool) -> Self {
        Self { action, resource, no_args }
    }
}

/// All that one link states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caveats {
    allow: Vec<Grant>,
    deny: Vec<Denial>,
    /// What code may spend and reach.
    pub limits: Limits,
    /// First second of validity.
    pub not_before: u64,
    /// First second of invalidity.
    pub expires: u64,
    /// Further delegations.
    pub depth: u64,
    /// The one gate this is for, if it is for one.
    pub audience: Option<AgentId>,
    attestations: Vec<Requirement>,
    allow_index: Index,
    deny_index: Index,
}

/// The parts of [`Caveats`] that are free to set.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is allowed.
    pub allow: Vec<Grant>,
    /// What is refused whatever is allowed.
    pub deny: Vec<Denial>,
    /// What code may spend and reach.
    pub limits: Limits,
    /// First second of validity.
    pub not_before: u64,
    /// First second of invalidity.
    pub expires: u64,
    /// Further delegations.
    pub depth: u64,
    /// The one gate this is for, if it is for one.
    pub audience: Option<AgentId>,
    /// Who must have vouched for what runs; none: nobody.
    pub attestations: Vec<Requirement>,
}

impl Caveats {
    /// Sorts, removes duplicates and refuses what the format does not hold.
    pub fn new(terms: Terms) -> Result<Self> {
        let Terms {
            mut allow,
            mut deny,
            limits,
            not_before,
            expires,
            depth,
            audience,
            attestations,
        } = terms;
        let attestations = requirement::checked(attestations)?;
        allow.sort_unstable();
        allow.dedup();
        deny.sort_unstable();
        deny.dedup();
        for (what, count) in [("grants", allow.len()), ("denials", deny.len())] {
            if count > limits::GRANTS {
                return Err(too_many(what, count, limits::GRANTS));
            }
        }
        if expires > limits::TIME_MAX || not_before >= expires {
            return Err(Error::malformed("the expiry is not after the start, or too far away"));
        }
        if depth >= limits::CHAIN_LINKS as u64 {
            return Err(Error::malformed(format!("depth {depth} is more than 15")));
        }
        let allow_index = Index::new(allow.iter().map(|grant| &grant.resource));
        let deny_index = Index::new(deny.iter().map(|denial| &denial.resource));
        Ok(Self {
            allow,
            deny,
            limits,
            not_before,
            expires,
            depth,
            audience,
            attestations,
            allow_index,
            deny_index,
        })
    }

    /// What is allowed, sorted.
    #[must_use]
    pub fn allow(&self) -> &[Grant] {
        &self.allow
    }

    /// What is refused whatever is allowed, sorted.
    #[must_use]
    pub fn deny(&self) -> &[Denial] {
        &self.deny
    }

    /// Who must have vouched for what runs, sorted.
    #[must_use]
    pub fn attestations(&self) -> &[Requirement] {
        &self.attestations
    }

    /// The parts, to make narrower caveats from.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            limits: self.limits.clone(),
            not_before: self.not_before,
            expires: self.expires,
            depth: self.depth,
            audience: self.audience,
            attestations: self.attestations.clone(),
        }
    }

    /// Whether this link allows the request: a grant for it, and no denial of it.
    pub fn permits(&self, request: &Request<'_>) -> Result<()> {
        if let Some(denial) = self.denial(request) {
            let detail = format!("`{denial}` is denied by name");
            return Err(Error::new(Reason::Forbidden, detail).on(Axis::Deny));
        }
        let granted = self.allow_index.find(request.resource, |at| {
            self.allow.get(at).is_some_and(|grant| {
                grant.actions.contains(request.action)
                    && grant.args.permits(request.no_args)
                    && grant.resource.matches(request.resource)
            })
        });
        granted.map_or_else(|| Err(self.not_granted(request)), |_| Ok(()))
    }

    fn denial(&self, request: &Request<'_>) -> Option<&Denial> {
        let named = self.deny_index.find(request.resource, |at| {
            self.deny.get(at).is_some_and(|denial| {
                denial.actions.contains(request.action) && denial.resource.matches(request.resource)
            })
        });
        named.and_then(|at| self.deny.get(at))
    }

    fn not_granted(&self, request: &Request<'_>) -> Error {
        let (action, resource) = (request.action, request.resource);
        let on_resource = || self.allow.iter().filter(|grant| grant.resource.matches(resource));
        let (axis, detail) = if on_resource().any(|grant| grant.actions.contains(action)) {
            (Axis::Args, format!("`{action}` on `{resource}` is granted without arguments only"))
        } else if let Some(grant) = on_resource().next() {
            (Axis::Action, format!("`{resource}` is granted for `{}` only", grant.actions))
        } else {
            (Axis::Resource, format!("no grant reaches `{resource}`{}", self.some_grants()))
        };
        Error::new(Reason::NotGranted, detail).on(axis)
    }

    fn some_grants(&self) -> String {
        let shown: Vec<_> = self.allow.iter().take(3).map(|grant| format!("`{grant}`")).collect();
        match self.allow.len() {
            0 => "; this link grants nothing".to_owned(),
            count if count > shown.len() => {
                format!("; granted are {} and {} more", shown.join(", "), count - shown.len())
            }
            _ => format!("; granted is {}", shown.join(", ")),
        }
    }

    /// Whether a child asks for no more on any axis; the error names the axis and a witness.
    pub fn covers(&self, child: &Self) -> Result<()> {
        child.allow.iter().try_for_each(|grant| self.covers_grant(grant))?;
        if let Some(dropped) =
            self.deny.iter().find(|mine| !child.deny.iter().any(|its| its.covers(mine)))
        {
            let detail = "the child drops a denial of its parent; repeat it";
            return Err(widened(Axis::Deny, detail).seen(dropped.to_string()));
        }
        self.limits.covers(&child.limits)?;
        if child.expires > self.expires {
            return Err(more(Axis::Expiry, child.expires, self.expires));
        }
        if child.not_before < self.not_before {
            let detail = format!("{} is before the parent's {}", child.not_before, self.not_before);
            let witness = format!("valid at {}", child.not_before);
            return Err(widened(Axis::NotBefore, detail).seen(witness));
        }
        if child.depth >= self.depth {
            let left = self.depth.checked_sub(1);
            let detail = left.map_or_else(
                || "the parent allows no further delegation".to_owned(),
                |left| format!("the parent leaves {left} further delegations, not {}", child.depth),
            );
            return Err(widened(Axis::Depth, detail).seen(format!("depth={}", child.depth)));
        }
        if self.audience.is_some() && child.audience != self.audience {
            let detail = "the parent is bound to one gate; keep its audience";
            let witness = child.audience.map_or_else(|| "any gate".to_owned(), |id| id.to_string());
            return Err(widened(Axis::Audience, detail).seen(witness));
        }
        requirement::covers(&self.attestations, &child.attestations)
    }

    /// Each action of a child's grant needs one grant of the parent that covers it.
    fn covers_grant(&self, child: &Grant) -> Result<()> {
        let covered = |mine: &&Grant| mine.resource.covers(&child.resource);
        let reach: Vec<_> = self.allow.iter().filter(covered).collect();
        for action in child.actions.iter() {
            let named = || reach.iter().filter(|mine| mine.actions.contains(action));
            if named().any(|mine| mine.args.covers(child.args)) {
                continue;
            }
            if named().next().is_some() {
                let detail = format!("`{}` is granted without arguments only", child.resource);
                return Err(widened(Axis::Args, detail).seen(format!("{action} with arguments")));
            }
            if let Some(mine) = reach.first() {
                let detail = format!("`{}` is granted for `{}` only", child.resource, mine.actions);
                let witness = format!("{action} {}", child.resource);
                return Err(widened(Axis::Action, detail).seen(witness));
            }
            return Err(self.resource_widened(child, action));
        }
        Ok(())
    }

    fn resource_widened(&self, child: &Grant, action: &str) -> Error {
        let mine: Vec<_> = self.allow.iter().filter(|mine| mine.actions.contains(action)).collect();
        let outside = |resource: &Resource| !mine.iter().any(|g| g.resource.matches(resource));
        let witness = if mine.is_empty() {
            child.resource.example()
        } else {
            mine.iter().filter_map(|g| g.resource.witness(&child.resource)).find(|w| outside(w))
        };
        let detail =
            format!("no single grant of the parent covers `{action}` on `{}`", child.resource);
        let error = widened(Axis::Resource, detail);
        match witness {
            Some(resource) => error.seen(format!("{action} {resource}")),
            None => error,
        }
    }
}

fn widened(axis: Axis, detail: impl Into<String>) -> Error {
    Error::new(Reason::Widened, detail).on(axis)
}

/// A number of a child that is larger than its parent's.
fn more(axis: Axis, child: u64, parent: u64) -> Error {
    let name = axis.code();
    widened(axis, format!("{name} {child} is more than the parent's {parent}"))
        .seen(format!("{name}={child}"))
}

fn too_many(what: &str, count: usize, most: usize) -> Error {
    Error::new(Reason::TooLarge, format!("{count} {what}, at most {most}"))
}

#[cfg(test)]
mod host_laws;
#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod tests;
