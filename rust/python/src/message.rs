//! Messages, streams and policies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moat_core::guard::Verified;
use moat_core::key::sha256;
use moat_core::message::{self, Body};
use moat_core::pattern::Resource;
use moat_core::{Error, policy};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::attest::{read_requirements, requirements};
use crate::convert::{from_json, given, hash, json_args, random, second, seconds};
use crate::fault::Result;
use crate::identity::{AgentId, Identity, hash_of};
use crate::token::Token;

/// Seconds that a message lives unless told otherwise.
const MESSAGE_LIFE: Duration = Duration::from_secs(60);

/// What a gate enforces beyond the chain of links.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Policy(pub(crate) policy::Policy);

#[pymethods]
impl Policy {
    #[classattr]
    #[expect(non_snake_case, reason = "a constant in Python")]
    fn CHAIN_ONLY() -> Self {
        Self(policy::Policy::CHAIN_ONLY)
    }

    #[new]
    fn new(text: &str) -> Result<Self> {
        Ok(Self(policy::Policy::parse(text)?))
    }

    #[staticmethod]
    fn requiring(requirements: &Bound<'_, PyAny>) -> Result<Self> {
        Ok(Self(policy::Policy::requiring(read_requirements(Some(requirements))?)?))
    }

    #[getter]
    fn text(&self) -> &str {
        self.0.text()
    }

    #[getter]
    fn attestations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        requirements(py, self.0.required())
    }

    #[getter]
    fn hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.hash())
    }

    fn __repr__(&self) -> String {
        format!("Policy('{}')", self.0.text().escape_debug())
    }
}

/// What a caller says of one message; the rest is its stream's.
pub(crate) struct Draft<'a> {
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    /// Canonical JSON.
    pub(crate) args: Vec<u8>,
    pub(crate) payload: &'a [u8],
    pub(crate) recipient: Option<AgentId>,
    pub(crate) code: Option<[u8; 32]>,
    /// Sorted, as the labels are.
    pub(crate) causes: Vec<[u8; 32]>,
    pub(crate) labels: Vec<String>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) now: Option<u64>,
}

impl Draft<'_> {
    fn body(self, gate: AgentId, token: &Token, policy: [u8; 32]) -> Result<Body> {
        let issued = second(self.now)?;
        Ok(Body {
            token: sha256(token.0.as_bytes()),
            gate: gate.0,
            recipient: self.recipient.unwrap_or(gate).0,
            action: self.action.to_owned(),
            resource: Resource::parse(self.resource)?,
            args: self.args,
            payload: self.payload.to_vec(),
            payload_digest: sha256(self.payload),
            code: self.code,
            policy,
            stream: [0; 16],
            number: 0,
            issued,
            expires: issued.saturating_add(seconds(self.expires_in.unwrap_or(MESSAGE_LIFE))?),
            causes: self.causes,
            labels: self.labels,
        })
    }
}

/// A code digest, causes and labels as Python gives them.
fn digest(code: Option<&[u8]>) -> Result<Option<[u8; 32]>> {
    code.map(|code| hash(code, "the code digest")).transpose()
}

fn causes(given: Option<&Bound<'_, PyAny>>) -> Result<Vec<[u8; 32]>> {
    sorted(given, |cause| hash(self::given(cause)?, "a cause"))
}

fn labels(given: Option<&Bound<'_, PyAny>>) -> Result<Vec<String>> {
    sorted(given, |label| Ok(label.extract::<String>()?))
}

fn sorted<'py, T: Ord>(
    values: Option<&Bound<'py, PyAny>>,
    read: impl Fn(&Bound<'py, PyAny>) -> Result<T>,
) -> Result<Vec<T>> {
    let Some(values) = values else { return Ok(Vec::new()) };
    let mut all = values.try_iter()?.map(|value| read(&value?)).collect::<Result<Vec<_>>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// One signed request with its token (spec/message.md).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Message {
    message: message::Message,
    wire: Vec<u8>,
}

#[pymethods]
impl Message {
    #[staticmethod]
    #[pyo3(signature = (
        sender, *, gate, token, policy, action, resource, args=None, payload=None,
        recipient=None, code=None, causes=None, labels=None, expires_in=None, now=None, rng=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each field of a message")]
    fn seal<'py>(
        py: Python<'py>,
        sender: &Identity,
        gate: AgentId,
        token: &Token,
        policy: &[u8],
        action: &str,
        resource: &str,
        args: Option<&Bound<'py, PyAny>>,
        payload: Option<&[u8]>,
        recipient: Option<AgentId>,
        code: Option<&[u8]>,
        causes: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        expires_in: Option<Duration>,
        now: Option<u64>,
        rng: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyBytes>> {
        let payload = payload.unwrap_or_default();
        let draft = Draft {
            action,
            resource,
            args: json_args(args)?,
            payload,
            recipient,
            code: digest(code)?,
            causes: self::causes(causes)?,
            labels: self::labels(labels)?,
            expires_in,
            now,
        };
        let mut body = draft.body(gate, token, hash(policy, "the policy hash")?)?;
        body.stream = random(rng)?;
        let wire = py.detach(|| message::Message::seal(&sender.0, token.0.as_bytes(), &body))?;
        Ok(PyBytes::new(py, &wire))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> Result<Self> {
        Ok(Self { message: message::Message::decode(data)?, wire: data.to_vec() })
    }

    #[staticmethod]
    #[pyo3(signature = (data, *, gate, sender, now=None))]
    fn open(
        py: Python<'_>,
        data: &[u8],
        gate: AgentId,
        sender: AgentId,
        now: Option<u64>,
    ) -> Result<Self> {
        let now = second(now)?;
        let message = py.detach(|| {
            let message = message::Message::decode(data)?;
            message.check_gate(&gate.0)?;
            message.check_times(now)?;
            message.verify(&sender.0, &sender.0.verifier()?)?;
            Ok::<_, Error>(message)
        })?;
        Ok(Self { message, wire: data.to_vec() })
    }

    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.id())
    }

    #[getter]
    fn token(&self) -> Result<Token> {
        Ok(Token(moat_core::token::Token::decode(self.message.token_bytes())?))
    }

    #[getter]
    fn gate(&self) -> AgentId {
        AgentId(self.message.body().gate)
    }

    #[getter]
    fn recipient(&self) -> AgentId {
        AgentId(self.message.body().recipient)
    }

    #[getter]
    fn action(&self) -> &str {
        &self.message.body().action
    }

    #[getter]
    fn resource(&self) -> &str {
        self.message.body().resource.as_str()
    }

    #[getter]
    fn args_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.body().args)
    }

    #[getter]
    fn args<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        from_json(py, &self.message.body().args)
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.body().payload)
    }

    #[getter]
    fn code<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.message.body().code.map(|code| PyBytes::new(py, &code))
    }

    #[getter]
    fn policy<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.body().policy)
    }

    #[getter]
    fn stream<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.body().stream)
    }

    #[getter]
    fn number(&self) -> u64 {
        self.message.body().number
    }

    #[getter]
    fn issued(&self) -> u64 {
        self.message.body().issued
    }

    #[getter]
    fn expires(&self) -> u64 {
        self.message.body().expires
    }

    #[getter]
    fn causes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.message.body().causes.iter().map(|cause| PyBytes::new(py, cause)))
    }

    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.message.body().labels)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().wire == self.wire)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.wire)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.wire)
    }

    fn __repr__(&self) -> String {
        let body = self.message.body();
        format!("Message({} {}, number={})", body.action, body.resource, body.number)
    }
}

/// A stream of messages from one agent to one gate under one token; safe across threads.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Sender {
    sender: Py<Identity>,
    gate: AgentId,
    token: Py<Token>,
    policy: [u8; 32],
    stream: [u8; 16],
    number: AtomicU64,
}

#[pymethods]
impl Sender {
    #[new]
    #[pyo3(signature = (sender, *, gate, token, policy, rng=None))]
    fn new(
        sender: Py<Identity>,
        gate: AgentId,
        token: Py<Token>,
        policy: &[u8],
        rng: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let (policy, stream) = (hash(policy, "the policy hash")?, random(rng)?);
        Ok(Self { sender, gate, token, policy, stream, number: AtomicU64::new(0) })
    }

    #[pyo3(signature = (
        *, action, resource, args=None, payload=None, recipient=None, code=None, causes=None,
        labels=None, expires_in=None, now=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each field of a message")]
    fn seal<'py>(
        &self,
        py: Python<'py>,
        action: &str,
        resource: &str,
        args: Option<&Bound<'py, PyAny>>,
        payload: Option<&[u8]>,
        recipient: Option<AgentId>,
        code: Option<&[u8]>,
        causes: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        expires_in: Option<Duration>,
        now: Option<u64>,
    ) -> Result<Bound<'py, PyBytes>> {
        let payload = payload.unwrap_or_default();
        let draft = Draft {
            action,
            resource,
            args: json_args(args)?,
            payload,
            recipient,
            code: digest(code)?,
            causes: self::causes(causes)?,
            labels: self::labels(labels)?,
            expires_in,
            now,
        };
        let wire = py.detach(|| self.next(draft))?;
        Ok(PyBytes::new(py, &wire))
    }

    #[getter]
    fn stream<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.stream)
    }
}

impl Sender {
    /// Whether a message that was allowed is one of this sender, under this token, to this gate.
    pub(crate) fn sent(&self, verified: &Verified) -> bool {
        let body = verified.message().body();
        body.gate == self.gate.0
            && body.token == sha256(self.token.get().0.as_bytes())
            && *verified.chain().holder() == self.sender.get().0.id()
    }

    /// Signs the next message of the stream.
    pub(crate) fn next(&self, draft: Draft<'_>) -> Result<Vec<u8>> {
        let (sender, token) = (self.sender.get(), self.token.get());
        let mut body = draft.body(self.gate, token, self.policy)?;
        body.stream = self.stream;
        body.number = self.number.fetch_add(1, Ordering::Relaxed);
        Ok(message::Message::seal(&sender.0, token.0.as_bytes(), &body)?)
    }
}
