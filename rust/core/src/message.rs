//! One signed request with its token (spec/message.md).
//!
//! The sender is not named: it is the holder of the token's last link. Decoding checks form;
//! [`Message::check_times`], [`Message::check_gate`] and [`Message::verify`] check the rest.

use crate::args;
use crate::caveat::check_action;
use crate::error::{Error, Reason, Result};
use crate::key::{AgentId, Hash256, Identity, Verifier, sha256};
use crate::limits;
use crate::pattern::Resource;
use crate::wire::{Kind, Reader, Signed, Writer, once, required, same_bytes};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// SHA-256 of the token's bytes.
    pub token: Hash256,
    /// The gate it is for.
    pub gate: AgentId,
    /// Who is to get it; the gate for a tool call.
    pub recipient: AgentId,
    /// The action.
    pub action: String,
    /// The resource.
    pub resource: Resource,
    /// Canonical JSON, an object.
    pub args: Vec<u8>,
    /// Anything.
    pub payload: Vec<u8>,
    /// SHA-256 of the payload.
    pub payload_digest: Hash256,
    /// SHA-256 of the code that is to run.
    pub code: Option<Hash256>,
    /// Hash of the policy that the sender counts on.
    pub policy: Hash256,
    /// The sender's stream.
    pub stream: [u8; 16],
    /// Its number in the stream.
    pub number: u64,
    /// The second it was sealed in.
    pub issued: u64,
    /// First second in which it is stale.
    pub expires: u64,
    /// Messages that led to this one; sorted, unique.
    pub causes: Vec<Hash256>,
    /// Free words for the log; sorted, unique.
    pub labels: Vec<String>,
}

impl Body {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(512 + self.args.len() + self.payload.len());
        out.map(15 + usize::from(self.code.is_some()));
        out.int(1).bytes(&self.token).int(2).bytes(self.gate.as_bytes());
        out.int(3).bytes(self.recipient.as_bytes());
        out.int(4).text(&self.action).int(5).text(self.resource.as_str());
        out.int(6).bytes(&self.args).int(7).bytes(&self.payload);
        out.int(8).bytes(&self.payload_digest);
        if let Some(code) = &self.code {
            out.int(9).bytes(code);
        }
        out.int(10).bytes(&self.policy).int(11).bytes(&self.stream).int(12).uint(self.number);
        out.int(13).uint(self.issued).int(14).uint(self.expires);
        out.int(15).array(self.causes.len());
        self.causes.iter().for_each(|cause| {
            out.bytes(cause);
        });
        out.int(16).array(self.labels.len());
        self.labels.iter().for_each(|label| {
            out.text(label);
        });
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut draft = Draft::default();
        for _ in 0..reader.map(16, "the request")? {
            draft.read(&mut reader)?;
        }
        reader.end()?;
        let body = draft.finish()?;
        same_bytes(&body.encode(), bytes)?;
        Ok(body)
    }

    /// Refuses what the format does not hold, whoever made it.
    fn check(&self) -> Result<()> {
        if self.payload_digest != sha256(&self.payload) {
            return Err(Error::malformed("the payload is not the one the digest names"));
        }
        check_action(&self.action)?;
        args::check(&self.args)?;
        if self.causes.len() > limits::CAUSES || self.labels.len() > limits::LABELS {
            let detail = "more than 16 causes or 16 labels";
            return Err(Error::new(Reason::TooLarge, detail));
        }
        self.labels.iter().try_for_each(|label| check_label(label))?;
        if !self.causes.is_sorted_by(|a, b| a < b) || !self.labels.is_sorted_by(|a, b| a < b) {
            return Err(Error::malformed("causes and labels are sorted, without duplicates"));
        }
        if self.expires > limits::TIME_MAX {
            return Err(Error::malformed("exp is after the year 9999"));
        }
        Ok(())
    }
}

fn check_label(label: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._:-".contains(&c);
    if (1..=limits::LABEL_BYTES).contains(&label.len()) && label.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "the label `{}` is not 1 to 64 of a-z, 0-9, `.`, `_`, `:`, `-`",
        label.escape_debug()
    )))
}

/// A request as received, with the bytes of the token that it rides on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    token: Vec<u8>,
    signed: Signed,
    body: Body,
}

impl Message {
    /// Signs a request; returns the bytes on the wire.
    pub fn seal(sender: &Identity, token: &[u8], body: &Body) -> Result<Vec<u8>> {
        body.check()?;
        check_lifetime(body.issued, body.expires, limits::MESSAGE_SECONDS)?;
        if body.token != sha256(token) {
            return Err(Error::malformed("the request is for another token"));
        }
        let (_, request) = Signed::seal(Kind::Message, sender, &body.encode());
        let wire = encode(token, &request);
        if wire.len() > limits::MESSAGE_BYTES {
            return Err(too_large(wire.len()));
        }
        Ok(wire)
    }

    /// Reads a message; nothing is verified yet.
    pub fn decode(wire: &[u8]) -> Result<Self> {
        if wire.len() > limits::MESSAGE_BYTES {
            return Err(too_large(wire.len()));
        }
        let mut reader = Reader::new(wire);
        reader.array_of(2, "a message")?;
        let token = reader.bytes("the token")?;
        let request = reader.bytes("the request")?;
        reader.end()?;
        same_bytes(&encode(token, request), wire)?;
        let signed = Signed::decode(Kind::Message, request)?;
        let body = Body::decode(signed.payload())?;
        if body.token != sha256(token) {
            return Err(Error::malformed("the request names another token than it rides on"));
        }
        Ok(Self { token: token.to_vec(), signed, body })
    }

    /// What is asked.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The token's bytes, whose SHA-256 is `body().token`.
    #[must_use]
    pub fn token_bytes(&self) -> &[u8] {
        &self.token
    }

    /// SHA-256 of the request's `Sig_structure`.
    #[must_use]
    pub const fn id(&self) -> Hash256 {
        self.signed.id()
    }

    /// Refuses a message that is too old, too long-lived or from the future.
    pub fn check_times(&self, now: u64) -> Result<()> {
        check_fresh(self.body.issued, self.body.expires, limits::MESSAGE_SECONDS, now)
    }

    /// Refuses a message for another gate.
    pub fn check_gate(&self, gate: &AgentId) -> Result<()> {
        if self.body.gate == *gate {
            return Ok(());
        }
        let detail = format!("the message is for the gate `{}`", self.body.gate);
        Err(Error::new(Reason::WrongGate, detail))
    }

    /// Checks the request's signature with the holder's key.
    pub fn verify(&self, sender: &AgentId, key: &Verifier) -> Result<()> {
        if !self.signed.hints_at(sender) {
            let detail = "the signer is not the holder of the token's last link";
            return Err(Error::new(Reason::WrongHolder, detail));
        }
        self.signed.verify_with(key)
    }
}

/// Refuses a lifetime that is empty, too long or over.
pub(crate) fn check_fresh(issued: u64, expires: u64, longest: u64, now: u64) -> Result<()> {
    check_lifetime(issued, expires, longest)?;
    if now >= expires {
        return Err(Error::new(Reason::Stale, format!("it expired at {expires}; seal a new one")));
    }
    if issued > now.saturating_add(limits::SKEW_SECONDS) {
        let detail = format!("it is dated {issued}, which is in the future; check the clocks");
        return Err(Error::new(Reason::Stale, detail));
    }
    Ok(())
}

fn check_lifetime(issued: u64, expires: u64, longest: u64) -> Result<()> {
    if issued < expires && expires - issued <= longest {
        return Ok(());
    }
    let detail = format!("exp is not within {longest} s after iat; seal it with a shorter life");
    Err(Error::new(Reason::Stale, detail))
}

fn encode(token: &[u8], request: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(token.len() + request.len() + 16);
    out.array(2).bytes(token).bytes(request);
    out.finish()
}

fn too_large(size: usize) -> Error {
    Error::new(Reason::TooLarge, format!("the message has {size} bytes, at most 1 MiB"))
}

#[derive(Default)]
struct Draft {
    token: Option<Hash256>,
    gate: Option<AgentId>,
    recipient: Option<AgentId>,
    action: Option<String>,
    resource: Option<Resource>,
    args: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    payload_digest: Option<Hash256>,
    code: Option<Hash256>,
    policy: Option<Hash256>,
    stream: Option<[u8; 16]>,
    number: Option<u64>,
    issued: Option<u64>,
    expires: Option<u64>,
    causes: Option<Vec<Hash256>>,
    labels: Option<Vec<String>>,
}

impl Draft {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        match reader.int("a request's key")? {
            1 => once(&mut self.token, reader.fixed("token")?, "token"),
            2 => once(&mut self.gate, read_key(reader, "gate")?, "gate"),
            3 => once(&mut self.recipient, read_key(reader, "recipient")?, "recipient"),
            4 => once(&mut self.action, reader.text("action")?.to_owned(), "action"),
            5 => once(&mut self.resource, Resource::parse(reader.text("resource")?)?, "resource"),
            6 => once(&mut self.args, reader.bytes("args")?.to_vec(), "args"),
            7 => once(&mut self.payload, reader.bytes("payload")?.to_vec(), "payload"),
            8 => once(&mut self.payload_digest, reader.fixed("payload digest")?, "payload digest"),
            9 => once(&mut self.code, reader.fixed("code")?, "code"),
            10 => once(&mut self.policy, reader.fixed("policy")?, "policy"),
            11 => once(&mut self.stream, reader.fixed("stream")?, "stream"),
            12 => once(&mut self.number, reader.uint("number")?, "number"),
            13 => once(&mut self.issued, reader.uint("iat")?, "iat"),
            14 => once(&mut self.expires, reader.uint("exp")?, "exp"),
            15 => {
                let size = reader.array(limits::CAUSES, "causes")?;
                let causes = (0..size).map(|_| reader.fixed("a cause")).collect::<Result<_>>()?;
                once(&mut self.causes, causes, "causes")
            }
            16 => {
                let size = reader.array(limits::LABELS, "labels")?;
                let label = |_| reader.text("a label").map(str::to_owned);
                once(&mut self.labels, (0..size).map(label).collect::<Result<_>>()?, "labels")
            }
            other => {
                let detail = format!("key {other} of the request is not known to this version");
                Err(Error::new(Reason::UnknownClaim, detail))
            }
        }
    }

    fn finish(self) -> Result<Body> {
        let body = Body {
            token: required(self.token, "token")?,
            gate: required(self.gate, "gate")?,
            recipient: required(self.recipient, "recipient")?,
            action: required(self.action, "action")?,
            resource: required(self.resource, "resource")?,
            args: required(self.args, "args")?,
            payload: required(self.payload, "payload")?,
            payload_digest: required(self.payload_digest, "payload digest")?,
            code: self.code,
            policy: required(self.policy, "policy")?,
            stream: required(self.stream, "stream")?,
            number: required(self.number, "number")?,
            issued: required(self.issued, "iat")?,
            expires: required(self.expires, "exp")?,
            causes: required(self.causes, "causes")?,
            labels: required(self.labels, "labels")?,
        };
        body.check()?;
        Ok(body)
    }
}

fn read_key(reader: &mut Reader<'_>, what: &str) -> Result<AgentId> {
    AgentId::from_bytes(reader.fixed(what)?)
}
