//! What the lines of a log say: one struct for each kind, as canonical JSON bodies.
//!
//! Hashes are lower-case hex, agents `did:key`, times Unix seconds (spec/audit.md). Reading
//! refuses unknown fields, and every body has one spelling: field order is fixed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};
use crate::monitor::{Rule, Then};

mod record;

pub use record::Record;
pub(crate) use record::Told;

/// Something a line can say.
pub trait Entry: Serialize + DeserializeOwned {
    /// The line's `kind`.
    const KIND: &'static str;

    /// The body's only spelling.
    fn to_body(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| Error::new(Reason::Internal, "an entry has no JSON"))
    }

    /// Reads a body.
    fn from_body(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body).map_err(|error| {
            Error::malformed(format!("a `{}` entry does not read: {error}", Self::KIND))
        })
    }
}

macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident = $kind:literal {
        $($(#[$fdoc:meta])* $field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

            impl Entry for $name {
                const KIND: &'static str = $kind;
            }
        )*
    };
}

entries! {
    /// What the gate enforces from here on.
    Rules = "rules" {
        /// Text of the policy.
        policy: String,
        /// Trusted roots, sorted.
        roots: Vec<String>,
        /// Keys that may revoke anything, sorted.
        operators: Vec<String>,
        /// Rules of the monitor.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        monitor: Vec<Rule>,
    }

    /// A link, the first time the gate sees it.
    LinkSeen = "link" {
        /// Its id.
        id: String,
        /// Its bytes, base64url.
        link: String,
    }

    /// One answer to a fresh, authentic message.
    Decision = "decision" {
        /// Whether it was allowed.
        allow: bool,
        /// Which part of the gate answered.
        stage: String,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Why not, in a sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// The link that refused, counted from the root's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<usize>,
        /// The axis on which it refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caveat: Option<String>,
        /// Something the child would allow and its parent not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        witness: Option<String>,
        /// Who asked.
        holder: String,
        /// Id of the token's last link.
        token: String,
        /// Id of the message.
        message: String,
        /// Who is to get it.
        recipient: String,
        /// The action.
        action: String,
        /// The resource.
        resource: String,
        /// SHA-256 of the arguments.
        args: String,
        /// SHA-256 of the payload.
        payload: String,
        /// SHA-256 of the code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// SHA-256 of the statements that vouch for it as the chain requires.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attested: Vec<String>,
        /// Hash of the policy that the message names.
        policy: String,
        /// The sender's stream.
        stream: String,
        /// Its number in the stream.
        number: u64,
        /// First second in which the message is stale.
        expires: u64,
        /// Ids of messages that led to this one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        causes: Vec<String>,
        /// The sender's words.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
    }

    /// How an allowed effect ended.
    Outcome = "outcome" {
        /// The decision's index.
        decision: u64,
        /// `ok`, `raised`, or how a sandbox graded its run.
        status: String,
        /// SHA-256 of the result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<String>,
        /// Fuel that the code used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fuel: Option<u64>,
        /// A sentence: an exception's type, a trap.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// It can be run again, and ends the same way.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deterministic: bool,
    }

    /// A request over the network that was made under an open permit.
    Requested = "request" {
        /// The decision's index.
        decision: u64,
        /// Whether it was let go.
        allow: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The method; empty for what is none.
        method: String,
        /// The URL up to its query, where there is one way to read it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// SHA-256 of the query, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<String>,
    }

    /// A control statement that counted.
    ControlSeen = "control" {
        /// `revoke`, `restore`, `suspend` or `resume`.
        verb: String,
        /// `agent` or `link`.
        target: String,
        /// The agent or the link's id.
        id: String,
        /// Who said so.
        signer: String,
        /// `gate` where the signer's word reaches every chain, `given` where it reaches what
        /// the signer gave.
        scope: String,
        /// Makes it count once.
        nonce: String,
        /// First second in which the statement is stale.
        expires: u64,
        /// Its bytes, base64url.
        statement: String,
    }

    /// A key that was registered, or has replaced another.
    Registered = "agent" {
        /// `agent`, `root` or `gate`.
        role: String,
        /// The name.
        name: String,
        /// The new key.
        key: String,
        /// The key that it replaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<String>,
        /// The registration's 16 random bytes.
        nonce: String,
        /// First second in which the registration is stale.
        expires: u64,
        /// What the keys have signed, the new one's first, base64url.
        statements: Vec<String>,
    }

    /// A statement that somebody vouches for something, which counts from here on.
    Attested = "attested" {
        /// SHA-256 of the statement.
        statement: String,
        /// What it is about: `code`, `skill` or `tool`.
        subject: String,
        /// The predicate type.
        predicate: String,
        /// The second at which it was said.
        issued: u64,
        /// Who has signed it, as far as the gate was told to look, sorted by key.
        signers: Vec<String>,
        /// The envelope as received, base64url.
        envelope: String,
    }

    /// Refusals that leave no line of their own.
    Summary = "summary" {
        /// The second of the first of them.
        since: u64,
        /// How often, by reason.
        counts: std::collections::BTreeMap<String, u64>,
    }

    /// A rule of the monitor was met by the decision before it.
    Alerted = "alert" {
        /// The rule's name.
        rule: String,
        /// Whom it is about.
        agent: String,
        /// `alert`, `throttle` or `suspend`.
        then: Then,
        /// Decisions or cost with this one, or steps of a sequence.
        count: u64,
        /// The condition, in a sentence.
        detail: String,
        /// Id of the message.
        message: String,
    }

    /// Decisions whose permits died unopened.
    Unused = "unused" {
        /// Their indices.
        decisions: Vec<u64>,
    }

    /// Decisions that had no outcome when the log was opened again.
    Recovered = "recovered" {
        /// Their indices.
        pending: Vec<u64>,
    }
}
