//! The gate's two questions: is this message authentic ([`Guard::verify`], pure and parallel),
//! and what is the answer ([`Guard::rule`], in the order of the log).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::audit::hex_text;
use crate::caveat::{Limits, Request, Requirement};
use crate::control::{Control, Target};
use crate::entry::{Alerted, ControlSeen, Decision, Record, Rules};
use crate::error::{Error, Reason, Result, Stage};
use crate::key::{AgentId, Hash256, Verifier, sha256};
use crate::limits;
use crate::message::Message;
use crate::monitor::{self, Alert};
use crate::policy::{Judge, Policy};
use crate::registration::{self, Proof};
use crate::state::{Slot, State};
use crate::token::Token;

mod attested;
mod cache;

use cache::Cache;

/// What a gate is told to enforce. Empty roots mean that nothing is allowed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The gate's own key.
    pub gate: AgentId,
    /// Keys from which a chain may start.
    pub roots: Vec<AgentId>,
    /// Keys that may revoke anything.
    pub operators: Vec<AgentId>,
    /// What is enforced beyond the chain.
    pub policy: Policy,
    /// What is watched.
    pub monitor: monitor::Rules,
}

impl Setup {
    /// The line that says so.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let texts = |keys: &[AgentId]| {
            let mut texts: Vec<_> = keys.iter().map(ToString::to_string).collect();
            texts.sort_unstable();
            texts.dedup();
            texts
        };
        Rules {
            policy: self.policy.text().to_owned(),
            roots: texts(&self.roots),
            operators: texts(&self.operators),
            monitor: self.monitor.as_slice().to_vec(),
        }
    }
}

/// A token whose signatures have been walked to a root. How its links compare is kept with it;
/// times, revocation and permission are asked anew for every message.
#[derive(Debug)]
pub struct Chain {
    token: Token,
    holder: AgentId,
    holder_text: String,
    key: Verifier,
    /// Every link's holder, the first link's first.
    holders: Vec<AgentId>,
    principal: AgentId,
    narrowing: Result<()>,
    limits: Limits,
}

impl Chain {
    /// The token.
    #[must_use]
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// The holder of the last link.
    #[must_use]
    pub const fn holder(&self) -> &AgentId {
        &self.holder
    }

    /// The meet of all links' limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// A message that is authentic, and what its chain says to it.
#[derive(Clone, Debug)]
pub struct Verified {
    message: Arc<Message>,
    chain: Arc<Chain>,
    capability: Result<()>,
    /// What the gate's own policy requires.
    required: Arc<[Requirement]>,
}

impl Verified {
    /// The message.
    #[must_use]
    pub const fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// Its chain.
    #[must_use]
    pub const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }
}

/// A control statement whose signature was checked.
#[derive(Debug)]
pub struct Genuine(Control);

/// What the gate says.
#[derive(Debug)]
pub enum Ruling {
    /// A refusal that leaves no line of its own.
    Counted(Error),
    /// An answer, the lines that must be durable before it is given, and what the monitor has
    /// to tell about it, which is among the lines.
    Logged(Vec<Record>, Result<()>, Vec<Alert>),
}

/// Verification and judgement under one setup.
#[derive(Debug)]
pub struct Guard {
    setup: Setup,
    policy_hash: Hash256,
    required: Arc<[Requirement]>,
    cache: Cache,
    narrowing: fn(&Token) -> Result<()>,
}

impl Guard {
    /// A guard with an empty cache.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let policy_hash = setup.policy.hash();
        let required = setup.policy.required().into();
        let (cache, narrowing) = (Cache::default(), Token::narrowing);
        Self { setup, policy_hash, required, cache, narrowing }
    }

    /// What is enforced.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Stage 1: shape, gate, times, root, then signatures. Touches no state; what fails here
    /// is a stranger's word.
    pub fn verify(&self, wire: &[u8], now: u64) -> Result<Verified> {
        let message = Message::decode(wire)?;
        message.check_gate(&self.setup.gate)?;
        message.check_times(now)?;
        let chain = match self.cache.get(&message.body().token) {
            Some(chain) => {
                chain.token.check_times(now)?;
                message.verify(&chain.holder, &chain.key)?;
                chain
            }
            None => self.walk(&message, now)?,
        };
        let capability = self.capability(&message, &chain);
        let required = Arc::clone(&self.required);
        Ok(Verified { message: Arc::new(message), chain, capability, required })
    }

    /// Walks a chain that was never seen, and remembers it only when all of it is good.
    fn walk(&self, message: &Message, now: u64) -> Result<Arc<Chain>> {
        let token = Token::decode(message.token_bytes())?;
        token.check_root(&self.setup.roots)?;
        token.check_times(now)?;
        token.check_audience(&self.setup.gate)?;
        let holder = token.leaf()?.claims().holder;
        let key = holder.verifier()?;
        message.verify(&holder, &key)?;
        token.authenticate(&self.setup.roots)?;
        let holders: Vec<_> = token.links().iter().map(|link| link.claims().holder).collect();
        let principal = holders.first().copied().unwrap_or(holder);
        let chain = Arc::new(Chain {
            holder,
            holder_text: holder.to_string(),
            key,
            holders,
            principal,
            narrowing: (self.narrowing)(&token),
            limits: token.limits(),
            token,
        });
        self.cache.put(message.body().token, Arc::clone(&chain), message.token_bytes().len());
        Ok(chain)
    }

    /// Stage 3, as far as it needs no state: every link covered by its parent, every link
    /// permits the request, the policy permits it too.
    fn capability(&self, message: &Message, chain: &Chain) -> Result<()> {
        chain.narrowing.clone()?;
        let body = message.body();
        let request = Request::new(&body.action, &body.resource, body.args == crate::args::NONE);
        chain.token.permits(&request)?;
        self.setup.policy.judge(&request)
    }

    /// Stages 2 and 3, where nothing can land in between. `now` may be behind the log by the
    /// allowed skew; then the log's time counts, so that nothing stale comes alive again.
    #[must_use]
    pub fn rule(&self, verified: &Verified, state: &State, now: u64) -> Ruling {
        match self.fresh(verified, state, now) {
            Ok(now) => self.answer(verified, state, now),
            Err(error) => Ruling::Counted(error),
        }
    }

    /// The second that counts for a message that is not stale and was not used before.
    fn fresh(&self, verified: &Verified, state: &State, now: u64) -> Result<u64> {
        state.check_succeeded()?;
        let now = effective(state, now)?;
        let (message, chain) = (&verified.message, &verified.chain);
        message.check_times(now)?;
        chain.token.check_times(now)?;
        let body = message.body();
        state.check_lost(body.issued)?;
        let slot = Slot {
            holder: &chain.holder_text,
            principal: &chain.principal,
            stream: body.stream,
            number: body.number,
            expires: body.expires,
        };
        state.check_fresh(&slot)?;
        state.check_room(&chain.token)?;
        Ok(now)
    }

    fn answer(&self, verified: &Verified, state: &State, now: u64) -> Ruling {
        let (chain, body) = (&verified.chain, verified.message.body());
        let verdict = state
            .check_withdrawn(&chain.token)
            .and_then(|()| self.check_policy(&verified.message))
            .and_then(|()| verified.capability.clone())
            .and_then(|()| verified.check_attested(state, now));
        let request = (body.action.as_str(), &body.resource);
        let (watched, alerts) = state.check_monitor(&chain.holders, request, verdict.is_ok());
        let verdict = verdict.and_then(|statements| watched.map(|()| statements));
        match lines(verified, state, &self.setup.gate, &verdict, &alerts) {
            Ok(lines) => Ruling::Logged(lines, verdict.map(drop), alerts),
            Err(error) => Ruling::Counted(error),
        }
    }

    fn check_policy(&self, message: &Message) -> Result<()> {
        if message.body().policy == self.policy_hash {
            return Ok(());
        }
        let detail = format!(
            "the message counts on the policy {}, this gate enforces {}",
            hex::encode(message.body().policy),
            hex::encode(self.policy_hash)
        );
        Err(Error::new(Reason::PolicyMismatch, detail))
    }

    /// Reads a control statement and checks gate, times and signature; touches no state.
    pub fn verify_control(&self, bytes: &[u8], now: u64) -> Result<Genuine> {
        let control = Control::decode(bytes)?;
        control.verify(&self.setup.gate, now)?;
        Ok(Genuine(control))
    }

    /// Judges a control statement; the line to append where it counts.
    pub fn rule_control(
        &self,
        Genuine(control): &Genuine,
        state: &State,
        now: u64,
    ) -> Result<Record> {
        state.check_succeeded()?;
        let now = effective(state, now)?;
        control.check_times(now)?;
        let statement = control.statement();
        state.check_lost(statement.issued)?;
        let scope = state.standing(statement, &self.setup.roots, &self.setup.operators, now)?;
        let (target, id) = match &statement.target {
            Target::Agent(agent) => ("agent", agent.to_string()),
            Target::Link(link) => ("link", hex::encode(link)),
        };
        let entry = ControlSeen {
            verb: statement.verb.code().to_owned(),
            target: target.to_owned(),
            id,
            signer: statement.signer.to_string(),
            scope: scope.code().to_owned(),
            nonce: hex::encode(statement.nonce),
            expires: statement.expires,
            statement: URL_SAFE_NO_PAD.encode(control.as_bytes()),
        };
        Record::of(&entry)
    }

    /// Reads a registration and checks gate, times and signatures; touches no state.
    pub fn verify_registration(&self, bytes: &[u8], now: u64) -> Result<registration::Genuine> {
        Proof::decode(bytes)?.verify(&self.setup.gate, now)
    }

    /// Judges a registration; the line to append where it counts.
    pub fn rule_registration(
        &self,
        genuine: &registration::Genuine,
        state: &State,
        now: u64,
    ) -> Result<Record> {
        state.check_succeeded()?;
        let now = effective(state, now)?;
        let registration = genuine.registration();
        registration.check_times(now)?;
        state.check_lost(registration.issued)?;
        registration.check_role(&self.setup.roots)?;
        state.check_registration(registration)?;
        Record::of(&genuine.entry())
    }
}

/// The second that counts: never behind the log's, and a clock too far behind denies.
pub fn effective(state: &State, now: u64) -> Result<u64> {
    if now.saturating_add(limits::SKEW_SECONDS) < state.time() {
        let detail =
            format!("the clock says {now}, the log already {}; set the clock", state.time());
        return Err(Error::new(Reason::ClockBehind, detail));
    }
    Ok(now.max(state.time()))
}

/// The links that the log does not have yet, root's first, the decision, and what is to be told.
fn lines(
    verified: &Verified,
    state: &State,
    gate: &AgentId,
    verdict: &Result<Vec<Hash256>>,
    alerts: &[Alert],
) -> Result<Vec<Record>> {
    let chain = &verified.chain;
    let mut lines = Vec::with_capacity(1);
    for link in chain.token.links() {
        if !state.has_seen(&link.id()) {
            lines.push(Record::link(link));
        }
    }
    lines.push(Record::decision(
        decision(verified, gate, verdict)?,
        &verified.message.body().resource,
    )?);
    for alert in alerts {
        let entry = Alerted {
            rule: alert.rule.clone(),
            agent: alert.agent.to_string(),
            then: alert.then,
            count: alert.count,
            detail: alert.detail.clone(),
            message: hex::encode(verified.message.id()),
        };
        lines.push(Record::of(&entry)?);
    }
    Ok(lines)
}

fn decision(
    verified: &Verified,
    gate: &AgentId,
    verdict: &Result<Vec<Hash256>>,
) -> Result<Decision> {
    let (chain, message) = (&verified.chain, &verified.message);
    let body = message.body();
    let error = verdict.as_ref().err();
    Ok(Decision {
        allow: error.is_none(),
        stage: error.map_or(Stage::Capability, |error| error.reason.stage()).code().to_owned(),
        reason: error.map(|error| error.reason.code().to_owned()),
        detail: error.map(|error| error.detail.clone()),
        link: error.and_then(|error| error.link),
        caveat: error.and_then(|error| error.axis).map(|axis| axis.code().to_owned()),
        witness: error.and_then(|error| error.witness.clone()),
        holder: chain.holder_text.clone(),
        token: hex_text(&chain.token.leaf()?.id()),
        message: hex_text(&message.id()),
        recipient: if body.recipient == *gate {
            "gate".to_owned()
        } else {
            body.recipient.to_string()
        },
        action: body.action.clone(),
        resource: body.resource.to_string(),
        args: hex_text(&sha256(&body.args)),
        payload: hex_text(&body.payload_digest),
        code: body.code.map(|code| hex_text(&code)),
        attested: verdict.iter().flatten().map(|one| hex_text(one)).collect(),
        policy: hex_text(&body.policy),
        stream: hex_text(&body.stream),
        number: body.number,
        expires: body.expires,
        causes: body.causes.iter().map(|cause| hex_text(cause)).collect(),
        labels: body.labels.clone(),
    })
}

#[cfg(test)]
mod tests;
