//! Leave to act: made after the sync of a yes, opened once, closed with an outcome.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use moat_core::entry::{Outcome, Record, Requested};
use moat_core::guard::Verified;
use moat_core::key::{AgentId, sha256};
use moat_core::limits::{PERMIT_REQUESTS, PERMIT_SECONDS};
use moat_core::{Error, Reason, Result};

use crate::LogError;
use crate::gate::{Inner, unavailable};

const FRESH: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;
const REFUSED: u8 = 3;

/// Proof of a logged yes. It has no constructor outside the gate and is not cloned.
pub struct Permit {
    gate: Arc<Inner>,
    verified: Verified,
    entry: u64,
    made: u64,
    process: u32,
    stage: AtomicU8,
    requests: AtomicU64,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.verified.message().body();
        write!(f, "Permit({}, {} {})", self.entry, body.action, body.resource)
    }
}

/// What an effect is about to do; what is left out is not compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effect<'a> {
    /// The action.
    pub action: Option<&'a str>,
    /// The resource.
    pub resource: Option<&'a str>,
    /// Who is to get it.
    pub recipient: Option<&'a AgentId>,
    /// The payload's bytes.
    pub payload: Option<&'a [u8]>,
    /// SHA-256 of the code.
    pub code: Option<&'a [u8; 32]>,
    /// Digest of a skill or of a tool's description (spec/attest.md).
    pub manifest: Option<&'a [u8; 32]>,
}

impl Permit {
    pub(crate) fn new(gate: Arc<Inner>, verified: Verified, entry: u64, made: u64) -> Self {
        let (process, stage) = (std::process::id(), AtomicU8::new(FRESH));
        Self { gate, verified, entry, made, process, stage, requests: AtomicU64::new(0) }
    }

    /// The message and chain that were allowed.
    #[must_use]
    pub const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// The decision's index in the log.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// First second in which it is dead: the message's or the chain's, whichever is first.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.verified.chain().token().expires().min(self.verified.message().body().expires)
    }

    /// Opens it, once: in its own process, in its time, while its chain is trusted.
    pub fn open(&self, now: u64) -> Result<()> {
        self.check_here()?;
        let spent = |detail: &str| Err(Error::new(Reason::PermitSpent, detail));
        // INVARIANT: whoever wins this exchange is the only one to act, and a permit that was
        // refused here stays refused.
        if self.stage.compare_exchange(FRESH, OPEN, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return spent("the permit was opened before; ask for another");
        }
        self.check_alive(now).inspect_err(|_| self.stage.store(REFUSED, Ordering::SeqCst))
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    fn check_here(&self) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let detail = "the permit was made in another process; ask again in this one";
        Err(Error::new(Reason::PermitSpent, detail))
    }

    fn check_alive(&self, now: u64) -> Result<()> {
        let alive = self.gate.check_alive(&self.verified, now);
        let now = alive.map_err(|error| unavailable(&error))??;
        if now >= self.made.saturating_add(PERMIT_SECONDS) {
            let detail = "the permit waited 30 s unopened; ask for another";
            return Err(Error::new(Reason::PermitSpent, detail));
        }
        Ok(())
    }

    /// Whether it is open now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_here() && self.stage.load(Ordering::SeqCst) == OPEN
    }

    /// Compares an effect with what was permitted, before it is opened or while it is open.
    pub fn check(&self, effect: &Effect<'_>) -> Result<()> {
        self.check_here()?;
        if self.stage.load(Ordering::SeqCst) >= CLOSED {
            let detail = "the permit is closed; ask for another";
            return Err(Error::new(Reason::PermitSpent, detail));
        }
        let body = self.verified.message().body();
        let differs = |what: &str| {
            let detail = format!("the {what} is not the one that was permitted");
            Err(Error::new(Reason::PermitMismatch, detail))
        };
        if effect.action.is_some_and(|action| action != body.action) {
            return differs("action");
        }
        if effect.resource.is_some_and(|resource| resource != body.resource.as_str()) {
            return differs("resource");
        }
        if effect.recipient.is_some_and(|recipient| *recipient != body.recipient) {
            return differs("recipient");
        }
        if effect.payload.is_some_and(|payload| sha256(payload) != body.payload_digest) {
            return differs("payload");
        }
        if effect.code.is_some_and(|code| body.code.is_some_and(|named| named != *code)) {
            return differs("code");
        }
        if effect.code.is_some() {
            self.verified.check_code_named()?;
        }
        if effect.manifest.is_some_and(|manifest| body.code != Some(*manifest)) {
            return differs("manifest");
        }
        Ok(())
    }

    /// Has `stop` called once trust in the chain is withdrawn or paused, now or until the watch
    /// is dropped. It may be called more than once, and must not wait.
    pub fn watch(&self, stop: impl Fn() + Send + Sync + 'static) -> Watch<'_> {
        let stop: Stop = Arc::new(stop);
        let number = self.gate.next_watch();
        self.gate.running().insert(number, (self.verified.clone(), Arc::clone(&stop)));
        // INVARIANT: first registered, then asked; a withdrawal in between stops it twice.
        if !matches!(self.gate.check_trusted(&self.verified), Ok(Ok(()))) {
            stop();
        }
        Watch { permit: self, number }
    }

    /// Appends that a request is about to be sent, or was refused. Nothing is sent before this
    /// returns, and nothing once the permit is closed or trust in its chain is withdrawn.
    pub fn note(&self, request: Asked, now: u64) -> std::result::Result<Result<()>, LogError> {
        if !self.is_open() {
            return Ok(Err(Error::new(Reason::PermitSpent, "the permit is not open")));
        }
        if self.requests.fetch_add(1, Ordering::SeqCst) >= PERMIT_REQUESTS {
            let detail = format!("a permit is for {PERMIT_REQUESTS} requests; ask for another");
            return Ok(Err(Error::new(Reason::PermitSpent, detail)));
        }
        let Asked { refused, method, url, query } = request;
        let request = Requested {
            decision: self.entry,
            allow: refused.is_none(),
            reason: refused.map(ToOwned::to_owned),
            method,
            url,
            query: query.map(|query| hex::encode(sha256(query.as_bytes()))),
        };
        let record = Record::of(&request).map_err(LogError::Entry)?;
        let done = self.gate.store.commit(now, |state, out| {
            state.check_succeeded()?;
            state.check_pending(self.entry)?;
            state.check_withdrawn(self.verified.chain().token())?;
            out.push(record);
            Ok(())
        })?;
        Ok(done.value)
    }

    /// Appends how the effect ended; the line's index. A permit that is not open has no end.
    pub fn close(&self, outcome: End, now: u64) -> std::result::Result<u64, LogError> {
        if self.stage.compare_exchange(OPEN, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            let why = Error::new(Reason::PermitSpent, "the permit is not open");
            return Err(LogError::Entry(why));
        }
        let outcome = Outcome {
            decision: self.entry,
            status: brief(outcome.status),
            result: outcome.result.map(hex::encode),
            fuel: outcome.fuel,
            detail: outcome.detail.map(brief),
            deterministic: outcome.deterministic,
        };
        self.gate.append(now, Record::of(&outcome).map_err(LogError::Entry)?)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_here() && matches!(*self.stage.get_mut(), FRESH | REFUSED) {
            self.gate.never_used(self.entry);
        }
    }
}

/// What stops a running effect.
pub(crate) type Stop = Arc<dyn Fn() + Send + Sync>;

/// An effect that is told when it must stop.
#[must_use = "the watch ends when this is dropped"]
pub struct Watch<'p> {
    permit: &'p Permit,
    number: u64,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.permit.gate.running().remove(&self.number);
    }
}

/// A text that an effect chose, short enough for any line.
fn brief(text: String) -> String {
    text.chars().take(256).collect()
}

/// A request over the network, for its line.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The code of what speaks against it; none for one that is let go.
    pub refused: Option<&'static str>,
    /// The method; empty for what is none.
    pub method: String,
    /// The URL up to its query, where there is one way to read it.
    pub url: Option<String>,
    /// The query.
    pub query: Option<String>,
}

/// How an effect ended.
#[derive(Clone, Debug)]
pub struct End {
    /// `ok`, `raised`, or how a sandbox graded its run.
    pub status: String,
    /// SHA-256 of the result.
    pub result: Option<[u8; 32]>,
    /// Fuel used.
    pub fuel: Option<u64>,
    /// A sentence.
    pub detail: Option<String>,
    /// It was a deterministic run.
    pub deterministic: bool,
}
