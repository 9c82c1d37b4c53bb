//! Leave to act, as a context manager.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use moat_core::key::sha256;
use moat_core::{Error, Reason};
use moat_log::{Asked, Effect, End};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::caveat::Limits;
use crate::convert::{Clock, from_json, hash};
use crate::decision::{Decision, denied};
use crate::fault::{Fault, Result};
use crate::identity::AgentId;

/// Proof of a logged yes. Only a gate makes one; it opens once and is not copied or pickled.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Permit {
    permit: moat_log::Permit,
    clock: Clock,
    protected: Arc<[PathBuf]>,
    result: Mutex<Option<[u8; 32]>>,
    outcome: OnceLock<u64>,
}

impl Permit {
    pub(crate) fn new(permit: moat_log::Permit, clock: Clock, protected: Arc<[PathBuf]>) -> Self {
        Self { permit, clock, protected, result: Mutex::default(), outcome: OnceLock::new() }
    }

    fn body(&self) -> &moat_core::message::Body {
        self.permit.verified().message().body()
    }

    /// The limits of all links, for a sandbox.
    pub(crate) fn bounds(&self) -> &moat_core::caveat::Limits {
        self.permit.verified().chain().limits()
    }

    /// What code that runs with this permit never reaches.
    pub(crate) fn protected(&self) -> &[PathBuf] {
        &self.protected
    }

    /// The message and chain that were allowed.
    pub(crate) fn verified(&self) -> &moat_core::guard::Verified {
        self.permit.verified()
    }

    /// Refuses a permit that is not open.
    pub(crate) fn check_open(&self, py: Python<'_>) -> Result<()> {
        if self.permit.is_open() {
            return Ok(());
        }
        let detail = "the permit is not open; act inside `with permit:`";
        Err(self.refuse(py, Error::new(Reason::PermitSpent, detail)))
    }

    /// Compares the code that is to run.
    pub(crate) fn check_code(&self, py: Python<'_>, digest: &[u8; 32]) -> Result<()> {
        let effect = Effect { code: Some(digest), ..Effect::default() };
        self.permit.check(&effect).map_err(|error| self.refuse(py, error))
    }

    /// Has `stop` called once trust is withdrawn or paused, until the watch is dropped.
    pub(crate) fn watch(&self, stop: impl Fn() + Send + Sync + 'static) -> moat_log::Watch<'_> {
        self.permit.watch(stop)
    }

    fn refuse(&self, py: Python<'_>, error: Error) -> Fault {
        Fault::Py(denied(
            py,
            Decision {
                entry: Some(self.permit.entry()),
                error: Some(error),
                action: Some(self.body().action.clone()),
                resource: Some(self.body().resource.to_string()),
                sender: Some(self.sender()),
                permit: None,
            },
        ))
    }

    /// Notes a request, for a thread that does not hold the interpreter's lock.
    pub(crate) fn note(&self, asked: Asked) -> std::result::Result<(), String> {
        let now = self.clock.now().map_err(|fault| PyErr::from(fault).to_string())?;
        let noted = self.permit.note(asked, now);
        noted.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
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
        // An exception whose class has no readable name is still an exception.
        let name = || kind.getattr("__name__").and_then(|name| name.extract::<String>());
        let detail = (!kind.is_none()).then(|| name().unwrap_or_else(|_| "unnamed".to_owned()));
        let status = if detail.is_none() { "ok" } else { "raised" }.to_owned();
        self.close(py, End { status, result, fuel: None, detail, deterministic: false })
    }

    fn record(&self, py: Python<'_>, result: &[u8]) -> Result<()> {
        self.check_open(py)?;
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(sha256(result));
        Ok(())
    }

    #[pyo3(signature = (*, action=None, resource=None, recipient=None, payload=None, code=None,
                        manifest=None))]
    #[expect(clippy::too_many_arguments, reason = "one for each thing that can be compared")]
    fn check(
        &self,
        py: Python<'_>,
        action: Option<&str>,
        resource: Option<&str>,
        recipient: Option<AgentId>,
        payload: Option<&[u8]>,
        code: Option<&[u8]>,
        manifest: Option<&[u8]>,
    ) -> Result<()> {
        let code = code.map(sha256);
        let manifest = manifest.map(|digest| hash(digest, "a digest")).transpose()?;
        let manifest = manifest.as_ref();
        let recipient = recipient.as_ref().map(|id| &id.0);
        let code = code.as_ref();
        let effect = Effect { action, resource, recipient, payload, code, manifest };
        self.permit.check(&effect).map_err(|error| self.refuse(py, error))
    }

    #[pyo3(signature = (path, *, read=false, write=false))]
    fn tree(&self, py: Python<'_>, path: &str, read: bool, write: bool) -> Result<&str> {
        if !self.permit.is_open() {
            let detail = "the permit is not open; open files inside `with permit:`";
            return Err(self.refuse(py, Error::new(Reason::PermitSpent, detail)));
        }
        py.detach(|| crate::sandbox::apart(self.bounds(), self.protected()))
            .map_err(|error| crate::sandbox::raise(py, &error))?;
        self.bounds().tree(path, read, write).map_err(|error| self.refuse(py, error))
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.permit.is_open()
    }

    #[getter]
    fn gate(&self) -> AgentId {
        AgentId(self.body().gate)
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
    fn holders(&self) -> Vec<AgentId> {
        let links = self.permit.verified().chain().token().links();
        links.iter().map(|link| AgentId(link.claims().holder)).collect()
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
