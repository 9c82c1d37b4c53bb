//! What a rule says, as it stands in a rule file and in the log: integers only, fields in this
//! order, what is left out not written. So the JSON of a [`Rule`] is its only spelling.

use serde::{Deserialize, Serialize};

/// One rule: which decisions it looks at, one condition, and what follows when it is met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `[a-z0-9][a-z0-9._-]{0,62}`, unlike any other rule's.
    pub name: String,
    /// Which decisions it looks at; left out: every allowed one.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_default")]
    pub scope: Match,
    /// So many in so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// So much in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// One after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// Only in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What follows.
    pub then: Then,
}

/// What follows when a rule's condition is met. Each of them writes an alert at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The request goes on.
    Alert,
    /// The request is denied.
    Throttle,
    /// The request is denied and the agent suspended.
    Suspend,
}

impl Then {
    /// The word in rules and in the log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Throttle => "throttle",
            Self::Suspend => "suspend",
        }
    }
}

/// Which decisions: all that is stated has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// One of these actions; left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// A pattern of resources; left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How it was decided; left out: `allowed`.
    #[serde(default, skip_serializing_if = "On::is_default")]
    pub verdict: On,
}

impl Match {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a decision ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// With a permit.
    #[default]
    Allowed,
    /// With a refusal, this monitor's among them.
    Denied,
    /// Either way.
    Any,
}

impl On {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) const fn allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::Any)
    }

    pub(super) const fn denied(self) -> bool {
        matches!(self, Self::Denied | Self::Any)
    }
}

/// At most `limit` decisions in any `window` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many are fine.
    pub limit: u64,
    /// Seconds.
    pub window: u64,
}

/// At most a cost of `limit`, in any `window` seconds or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// How much is fine.
    pub limit: u64,
    /// What one decision costs; left out: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub each: u64,
    /// What costs; left out: `calls`.
    #[serde(default, skip_serializing_if = "Of::is_default")]
    pub of: Of,
    /// Seconds; left out: ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
}

/// What a cost is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Decisions.
    #[default]
    Calls,
    /// The fuel that outcomes report.
    Fuel,
}

impl Of {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// These steps in this order, the last at most `within` seconds after the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// Two to eight of them; anything may come between.
    pub steps: Vec<Match>,
    /// Seconds.
    pub within: u64,
}

/// States of an agent, and which allowed requests lead from one to another. No others are fine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Where every agent starts.
    pub initial: String,
    /// The first that fits is taken.
    pub transitions: Vec<Transition>,
}

/// One way from a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// The state it leaves.
    pub from: String,
    /// The state it reaches.
    pub to: String,
    /// The requests that take it; left out: any.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_default")]
    pub on: Match,
}

const fn one() -> u64 {
    1
}

const fn is_one(number: &u64) -> bool {
    *number == 1
}
