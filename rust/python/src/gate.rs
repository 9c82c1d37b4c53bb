//! The gate, its decisions and permits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use moat_core::key::sha256;
use moat_core::{Axis, Error, Stage};
use moat_log::{AnchorState, Effect, End};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::audit::{Checkpoint, ConsistencyProof, InclusionProof};
use crate::caveat::Limits;
use crate::convert::{from_json, second};
use crate::fault::{Fault, Result, annotate, exception, note};
use crate::identity::{AgentId, Identity};
use crate::message::{Policy, target};
use crate::token::read_keys;

/// Where the time comes from when it is not given: the caller's clock or the system's.
#[derive(Clone)]
struct Clock(Arc<Option<Py<PyAny>>>);

impl Clock {
    fn second(&self, py: Python<'_>, now: Option<u64>) -> Result<u64> {
        match (now, self.0.as_ref()) {
            (None, Some(clock)) => Ok(clock.call0(py)?.extract(py)?),
            (now, _) => second(now),
        }
    }
}

#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Decision {
    entry: Option<u64>,
    error: Option<Error>,
    action: Option<String>,
    resource: Option<String>,
    sender: Option<AgentId>,
    permit: Option<Py<Permit>>,
}

impl Decision {
    fn new(py: Python<'_>, decision: moat_log::Decision, clock: &Clock) -> PyResult<Self> {
        let body = decision.verified.as_ref().map(|verified| verified.message().body());
        Ok(Self {
            entry: decision.entry,
            error: decision.error,
            action: body.map(|body| body.action.clone()),
            resource: body.map(|body| body.resource.to_string()),
            sender: decision.verified.as_ref().map(|it| AgentId(*it.chain().holder())),
            permit: decision
                .permit
                .map(|permit| Py::new(py, Permit::new(permit, clock.clone())))
                .transpose()?,
        })
    }

    fn refusal(error: Error) -> Self {
        let [action, resource] = [None, None];
        Self { entry: None, error: Some(error), action, resource, sender: None, permit: None }
    }
}

#[pymethods]
impl Decision {
    #[getter]
    fn allowed(&self) -> bool {
        self.error.is_none()
    }

    #[getter]
    fn permit(&self, py: Python<'_>) -> Option<Py<Permit>> {
        self.permit.as_ref().map(|permit| permit.clone_ref(py))
    }

    #[getter]
    fn entry(&self) -> Option<u64> {
        self.entry
    }

    #[getter]
    fn stage(&self) -> &'static str {
        self.error.as_ref().map_or(Stage::Capability, |error| error.reason.stage()).code()
    }

    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.error.as_ref().map(|error| error.reason.code())
    }

    #[getter]
    fn detail(&self) -> Option<&str> {
        self.error.as_ref().map(|error| error.detail.as_str())
    }

    #[getter]
    fn link(&self) -> Option<usize> {
        self.error.as_ref().and_then(|error| error.link)
    }

    #[getter]
    fn caveat(&self) -> Option<&'static str> {
        self.error.as_ref().and_then(|error| error.axis).map(Axis::code)
    }

    #[getter]
    fn witness(&self) -> Option<&str> {
        self.error.as_ref().and_then(|error| error.witness.as_deref())
    }

    #[getter]
    fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    #[getter]
    fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    #[getter]
    fn sender(&self) -> Option<AgentId> {
        self.sender
    }

    fn explain(&self) -> String {
        let asked = match (&self.action, &self.resource) {
            (Some(action), Some(resource)) => format!("`{action}` on `{resource}`"),
            _ => "the message".to_owned(),
        };
        let Some(error) = &self.error else {
            return format!("allowed: {asked}");
        };
        let mut lines = vec![format!("denied: {asked}")];
        lines.push(format!("  reason   {} ({} stage)", error.reason.code(), self.stage()));
        lines.push(format!("  because  {}", error.detail));
        if let Some(link) = error.link {
            lines.push(format!("  link     {link}, counted from the root's"));
        }
        if let Some(axis) = error.axis {
            lines.push(format!("  caveat   {}", axis.code()));
        }
        if let Some(witness) = &error.witness {
            lines.push(format!("  witness  {witness}"));
        }
        if let Some(entry) = self.entry {
            lines.push(format!("  entry    {entry}"));
        }
        lines.join("\n")
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("allowed", self.error.is_none())?;
        dict.set_item("entry", self.entry)?;
        dict.set_item("stage", self.stage())?;
        dict.set_item("reason", self.reason())?;
        dict.set_item("detail", self.detail())?;
        dict.set_item("link", self.link())?;
        dict.set_item("caveat", self.caveat())?;
        dict.set_item("witness", self.witness())?;
        dict.set_item("action", self.action())?;
        dict.set_item("resource", self.resource())?;
        dict.set_item("sender", self.sender.map(|sender| sender.0.to_string()))?;
        Ok(dict)
    }

    fn __bool__(&self) -> PyResult<bool> {
        let detail = "a decision has no truth value; look at `permit` or `reason`";
        Err(PyTypeError::new_err(detail))
    }

    fn __repr__(&self) -> String {
        match &self.error {
            None => "Decision(allowed)".to_owned(),
            Some(error) => format!("Decision(denied, {})", error.reason.code()),
        }
    }
}

/// The exception that carries a decision.
fn denied(py: Python<'_>, decision: Decision) -> PyErr {
    let message = decision.error.as_ref().map_or_else(String::new, ToString::to_string);
    let raised = exception(py, "Denied", message);
    let raised = match &decision.error {
        Some(error) => annotate(py, raised, error),
        None => raised,
    };
    match Py::new(py, decision) {
        Ok(decision) => note(py, raised, "decision", decision),
        Err(fault) => fault,
    }
}

/// A refusal outside of a message's decision, as the same exception.
pub(crate) fn refuse(py: Python<'_>, error: Error) -> Fault {
    Fault::Py(denied(py, Decision::refusal(error)))
}

#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Permit {
    permit: moat_log::Permit,
    clock: Clock,
    result: Mutex<Option<[u8; 32]>>,
    outcome: OnceLock<u64>,
}

impl Permit {
    fn new(permit: moat_log::Permit, clock: Clock) -> Self {
        Self { permit, clock, result: Mutex::default(), outcome: OnceLock::new() }
    }

    fn body(&self) -> &moat_core::message::Body {
        self.permit.verified().message().body()
    }

    /// The limits of all links, for a sandbox.
    pub(crate) fn bounds(&self) -> &moat_core::caveat::Limits {
        self.permit.verified().chain().limits()
    }

    /// Compares the code that is to run.
    pub(crate) fn check_code(&self, py: Python<'_>, digest: &[u8; 32]) -> Result<()> {
        let effect = Effect { code: Some(digest), ..Effect::default() };
        self.permit.check(&effect).map_err(|error| self.refuse(py, error))
    }

    fn refuse(&self, py: Python<'_>, error: Error) -> Fault {
        Fault::Py(denied(py, Decision {
            entry: Some(self.permit.entry()),
            error: Some(error),
            action: Some(self.body().action.clone()),
            resource: Some(self.body().resource.to_string()),
            sender: Some(self.sender()),
            permit: None,
        }))
    }

    pub(crate) fn open(&self, py: Python<'_>) -> Result<()> {
        let now = self.clock.second(py, None)?;
        py.detach(|| self.permit.open(now)).map_err(|error| self.refuse(py, error))
    }

    pub(crate) fn close(&self, py: Python<'_>, end: End) -> Result<()> {
        let now = self.clock.second(py, None)?;
        let entry = py.detach(|| self.permit.close(end, now))?;
        // Only the call that closed it comes here, so nothing was set before.
        let _first = self.outcome.set(entry);
        Ok(())
    }
}

#[pymethods]
impl Permit {
    fn __enter__(slf: Bound<'_, Self>) -> Result<Bound<'_, Self>> {
        slf.get().open(slf.py())?;
        Ok(slf)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> Result<()> {
        let result = *self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let detail = match kind.is_none() {
            true => None,
            false => Some(kind.getattr("__name__")?.extract::<String>()?),
        };
        let status = if detail.is_none() { "ok" } else { "raised" }.to_owned();
        self.close(py, End { status, result, fuel: None, detail })
    }

    fn record(&self, py: Python<'_>, result: &[u8]) -> Result<()> {
        if !self.permit.is_open() {
            let detail = "the permit is not open; record a result inside `with permit:`";
            return Err(self.refuse(py, Error::new(moat_core::Reason::PermitSpent, detail)));
        }
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(sha256(result));
        Ok(())
    }

    #[pyo3(signature = (*, action=None, resource=None, recipient=None, payload=None, code=None))]
    fn check(
        &self,
        py: Python<'_>,
        action: Option<&str>,
        resource: Option<&str>,
        recipient: Option<AgentId>,
        payload: Option<&[u8]>,
        code: Option<&[u8]>,
    ) -> Result<()> {
        let code = code.map(sha256);
        let recipient = recipient.as_ref().map(|id| &id.0);
        let effect = Effect { action, resource, recipient, payload, code: code.as_ref() };
        self.permit.check(&effect).map_err(|error| self.refuse(py, error))
    }

    #[getter]
    fn entry(&self) -> u64 {
        self.permit.entry()
    }

    #[getter]
    fn sender(&self) -> AgentId {
        AgentId(*self.permit.verified().chain().holder())
    }

    #[getter]
    fn recipient(&self) -> AgentId {
        AgentId(self.body().recipient)
    }

    #[getter]
    fn action(&self) -> &str {
        &self.body().action
    }

    #[getter]
    fn resource(&self) -> &str {
        self.body().resource.as_str()
    }

    #[getter]
    fn args_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.body().args)
    }

    #[getter]
    fn args<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        from_json(py, &self.body().args)
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.body().payload)
    }

    #[getter]
    fn code<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.body().code.map(|code| PyBytes::new(py, &code))
    }

    #[getter]
    fn limits(&self) -> Limits {
        Limits(self.bounds().clone())
    }

    #[getter]
    fn expires(&self) -> u64 {
        self.permit.expires()
    }

    #[getter]
    fn message_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.permit.verified().message().id())
    }

    #[getter]
    fn outcome(&self) -> Option<u64> {
        self.outcome.get().copied()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.permit)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a permit is not copied or pickled; ask the gate for another"))
    }

    fn __copy__(&self) -> PyResult<()> {
        self.__reduce__()
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        self.__reduce__()
    }
}

#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Gate {
    gate: moat_log::Gate,
    clock: Clock,
}

#[pymethods]
impl Gate {
    #[staticmethod]
    #[pyo3(signature = (path, signer, *, anchor, accept_restored=false, clock=None, now=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        signer: &Identity,
        anchor: Option<PathBuf>,
        accept_restored: bool,
        clock: Option<Py<PyAny>>,
        now: Option<u64>,
    ) -> Result<Self> {
        let clock = Clock(Arc::new(clock));
        let now = clock.second(py, now)?;
        let gate = py.detach(|| {
            moat_log::Gate::open(&path, &signer.0, anchor.as_deref(), accept_restored, now)
        })?;
        Ok(Self { gate, clock })
    }

    #[pyo3(signature = (*, policy, roots, operators))]
    fn arm(
        &self,
        py: Python<'_>,
        policy: Policy,
        roots: &Bound<'_, PyAny>,
        operators: &Bound<'_, PyAny>,
    ) -> Result<()> {
        let (roots, operators) = (read_keys(roots)?, read_keys(operators)?);
        let now = self.clock.second(py, None)?;
        Ok(py.detach(|| self.gate.arm(policy.0, roots, operators, now))?)
    }

    #[getter]
    fn id(&self) -> AgentId {
        AgentId(self.gate.id())
    }

    #[getter]
    fn policy(&self) -> Policy {
        Policy(self.gate.guard().setup().policy.clone())
    }

    #[getter]
    fn roots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let guard = self.gate.guard();
        let roots = guard.setup().roots.iter().map(|id| Bound::new(py, AgentId(*id)));
        PyTuple::new(py, roots.collect::<PyResult<Vec<_>>>()?)
    }

    #[getter]
    fn pending<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.gate.pending())
    }

    #[getter]
    fn anchor_state(&self) -> &'static str {
        match self.gate.opened().anchor {
            AnchorState::None => "none",
            AnchorState::Missing => "missing",
            AnchorState::Matched => "matched",
            AnchorState::Overruled => "overruled",
        }
    }

    #[pyo3(signature = (wire, *, now=None))]
    fn decide(&self, py: Python<'_>, wire: &[u8], now: Option<u64>) -> Result<Decision> {
        let now = self.clock.second(py, now)?;
        let decision = py.detach(|| self.gate.decide(wire, now));
        Ok(Decision::new(py, decision, &self.clock)?)
    }

    #[pyo3(signature = (wire, *, now=None))]
    fn authorize(&self, py: Python<'_>, wire: &[u8], now: Option<u64>) -> Result<Py<Permit>> {
        let decision = self.decide(py, wire, now)?;
        match &decision.permit {
            Some(permit) => Ok(permit.clone_ref(py)),
            None => Err(Fault::Py(denied(py, decision))),
        }
    }

    #[pyo3(signature = (wires, *, now=None))]
    fn decide_many(
        &self,
        py: Python<'_>,
        wires: &Bound<'_, PyAny>,
        now: Option<u64>,
    ) -> Result<Vec<Decision>> {
        let now = self.clock.second(py, now)?;
        let wires = wires.try_iter()?.map(|wire| Ok(wire?.cast_into::<PyBytes>()?));
        let wires = wires.collect::<PyResult<Vec<_>>>()?;
        let bytes: Vec<_> = wires.iter().map(|wire| wire.as_bytes()).collect();
        let decisions = py.detach(|| self.gate.decide_many(&bytes, now));
        let made = decisions.into_iter().map(|decision| Decision::new(py, decision, &self.clock));
        Ok(made.collect::<PyResult<_>>()?)
    }

    #[pyo3(signature = (statement, *, now=None))]
    fn control(&self, py: Python<'_>, statement: &[u8], now: Option<u64>) -> Result<u64> {
        let now = self.clock.second(py, now)?;
        py.detach(|| self.gate.control(statement, now))?.map_err(|error| refuse(py, error))
    }

    fn is_revoked(&self, target: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.gate.is_revoked(&self::target(target)?)?)
    }

    fn checkpoint(&self, py: Python<'_>) -> Result<Checkpoint> {
        Ok(Checkpoint(py.detach(|| self.gate.checkpoint())?))
    }

    #[pyo3(signature = (entry, *, size=None))]
    fn prove(&self, py: Python<'_>, entry: u64, size: Option<u64>) -> Result<InclusionProof> {
        Ok(InclusionProof(py.detach(|| self.gate.prove(entry, size))?))
    }

    #[pyo3(signature = (old, *, size=None))]
    fn consistency(&self, py: Python<'_>, old: u64, size: Option<u64>) -> Result<ConsistencyProof> {
        Ok(ConsistencyProof(py.detach(|| self.gate.consistency(old, size))?))
    }

    fn read<'py>(&self, py: Python<'py>, entry: u64) -> Result<Bound<'py, PyBytes>> {
        let line = py.detach(|| self.gate.read(entry))?;
        Ok(PyBytes::new(py, &line))
    }

    fn __len__(&self) -> Result<usize> {
        let size = self.gate.len()?;
        usize::try_from(size).map_err(|_| crate::fault::internal("the log is too long to count"))
    }

    #[pyo3(signature = (*, now=None))]
    fn close(&self, py: Python<'_>, now: Option<u64>) -> Result<()> {
        let now = self.clock.second(py, now)?;
        Ok(py.detach(|| self.gate.close(now))?)
    }

    fn __repr__(&self) -> String {
        format!("Gate({})", self.gate.id())
    }
}
