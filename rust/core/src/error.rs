//! What can be wrong, once: a [`Reason`] with a stable code, and an [`Error`] that says where.

use std::fmt;

/// The part of the gate that gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Shape, times and signatures. What fails here leaves no line of its own.
    Authentic,
    /// Replay, revocation and the active policy's hash.
    Policy,
    /// What the chain of links allows.
    Capability,
    /// The gate itself could not answer, so it refused.
    Gate,
}

impl Stage {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Authentic => "authentic",
            Self::Policy => "policy",
            Self::Capability => "capability",
            Self::Gate => "gate",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal in $stage:ident,)*) => {
        /// Why something was refused. Codes are stable: logs, vectors and other languages use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the stages.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The part of the gate that gives this reason.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$name => Stage::$stage,)* }
            }
        }
    };
}

reasons! {
    /// Not the bytes, text or shape that the format asks for.
    Malformed = "malformed" in Authentic,
    /// More bytes, links or entries than the format allows.
    TooLarge = "too_large" in Authentic,
    /// A signed object of another kind.
    WrongType = "wrong_type" in Authentic,
    /// A signature algorithm that is not Ed25519.
    UnknownAlgorithm = "unknown_algorithm" in Authentic,
    /// A claim or header that this version does not know.
    UnknownClaim = "unknown_claim" in Authentic,
    /// A weak or non-canonical public key.
    BadKey = "bad_key" in Authentic,
    /// The message is older than it may be, lives too long or comes from the future.
    Stale = "stale" in Authentic,
    /// Meant for another gate.
    WrongGate = "wrong_gate" in Authentic,
    /// The chain does not start at a trusted root.
    UnknownRoot = "unknown_root" in Authentic,
    /// Links do not follow one another: parent, depth or issuer differ.
    BrokenChain = "broken_chain" in Authentic,
    /// A link is past its expiry.
    Expired = "expired" in Authentic,
    /// A link is not valid yet.
    NotYetValid = "not_yet_valid" in Authentic,
    /// The signer is not the holder of the token's last link.
    WrongHolder = "wrong_holder" in Authentic,
    /// A signature does not verify.
    BadSignature = "bad_signature" in Authentic,
    /// This stream and number were used before, or are too old to tell.
    Replayed = "replayed" in Policy,
    /// No room for a new stream or a new link; live ones go on.
    StreamsFull = "streams_full" in Policy,
    /// An agent or a link in the chain is revoked.
    Revoked = "revoked" in Policy,
    /// An agent or a link in the chain is suspended.
    Suspended = "suspended" in Policy,
    /// A rate or a budget of a monitor rule is used up.
    Throttled = "throttled" in Policy,
    /// A monitor rule does not allow this action at this point.
    OutOfOrder = "out_of_order" in Policy,
    /// No room to count another agent.
    MonitorFull = "monitor_full" in Policy,
    /// The message names another policy than the active one.
    PolicyMismatch = "policy_mismatch" in Policy,
    /// A link asks for more than its parent has.
    Widened = "widened" in Capability,
    /// A link has no grant for this request.
    NotGranted = "not_granted" in Capability,
    /// A link denies this request by name.
    Forbidden = "forbidden" in Capability,
    /// Too few of those who must vouch for what would run have done so.
    NotAttested = "not_attested" in Capability,
    /// The signer of a control statement has no standing for its target.
    NoStanding = "no_standing" in Capability,
    /// The name or the key is registered already, or the name looks like one that is.
    NameTaken = "name_taken" in Capability,
    /// Not a registered agent.
    NotRegistered = "not_registered" in Capability,
    /// An effect differs from what its permit allows.
    PermitMismatch = "permit_mismatch" in Capability,
    /// The permit was opened before, or has died.
    PermitSpent = "permit_spent" in Capability,
    /// The clock went back behind the log.
    ClockBehind = "clock_behind" in Gate,
    /// The log cannot be written.
    LogUnavailable = "log_unavailable" in Gate,
    /// A fault inside the gate.
    Internal = "internal" in Gate,
}

/// Declares an enum of which every value has one stable code, in an order that `ALL` keeps.
#[macro_export]
macro_rules! codes {
    ($kind:ident, $about:literal; $($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        #[doc = $about]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $kind { $($(#[$doc])* $name,)* }

        impl $kind {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

codes! {
    Axis, "One thing a link states and a child may only narrow.";
    /// The resource of a grant.
    Resource = "resource",
    /// The actions of a grant.
    Action = "action",
    /// The arguments of a grant.
    Args = "args",
    /// The denials, which only grow.
    Deny = "deny",
    /// Instructions, in wasmtime fuel units.
    Fuel = "fuel",
    /// Linear memory, in bytes.
    Memory = "memory",
    /// Wall-clock time, in milliseconds.
    Time = "time",
    /// Captured output, in bytes.
    Output = "output",
    /// Requests that code may send, by host, method and address.
    Hosts = "hosts",
    /// Directory trees that code may read.
    Read = "read",
    /// Directory trees that code may write.
    Write = "write",
    /// Secrets that are filled in for code.
    Secrets = "secrets",
    /// The last second of validity.
    Expiry = "expiry",
    /// The first second of validity.
    NotBefore = "not_before",
    /// Further delegations.
    Depth = "depth",
    /// The gate a link is bound to.
    Audience = "audience",
    /// Attestations that code must carry.
    Attestations = "attestations",
}

/// A refusal: the reason, a sentence for a person, and where it lies when that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The stable reason.
    pub reason: Reason,
    /// Lower case, no full stop, says what to do next where there is something to do.
    pub detail: String,
    /// The link, counted from the root's.
    pub link: Option<usize>,
    /// The axis that was too wide or did not permit.
    pub axis: Option<Axis>,
    /// Something the child would allow and its parent would not.
    pub witness: Option<String>,
}

impl Error {
    /// A refusal with a sentence.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), link: None, axis: None, witness: None }
    }

    /// The commonest refusal: bytes or text of the wrong shape.
    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Reason::Malformed, detail)
    }

    /// The same refusal, at a link.
    #[must_use]
    pub fn at(mut self, link: usize) -> Self {
        self.link = Some(link);
        self
    }

    /// The same refusal, on an axis.
    #[must_use]
    pub fn on(mut self, axis: Axis) -> Self {
        self.axis = Some(axis);
        self
    }

    /// The same refusal, with a witness.
    #[must_use]
    pub fn seen(mut self, witness: impl Into<String>) -> Self {
        self.witness = Some(witness.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(link) = self.link {
            write!(f, " (link {link})")?;
        }
        if let Some(witness) = &self.witness {
            write!(f, "; for example `{witness}`")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What every fallible function of the heart returns.
pub type Result<T> = std::result::Result<T, Error>;
