//! What a gate answered, as a value and as an exception.

use std::path::PathBuf;
use std::sync::Arc;

use moat_core::{Axis, Error, Stage};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::Clock;
use crate::fault::{Fault, annotate, exception, note};
use crate::identity::AgentId;
use crate::permit::Permit;

/// What a gate answered. It has no truth value: look at ``permit`` or ``reason``.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Decision {
    pub(crate) entry: Option<u64>,
    pub(crate) error: Option<Error>,
    pub(crate) action: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) sender: Option<AgentId>,
    pub(crate) permit: Option<Py<Permit>>,
}

impl Decision {
    pub(crate) fn new(
        py: Python<'_>,
        decision: moat_log::Decision,
        clock: &Clock,
        protected: Arc<[PathBuf]>,
    ) -> PyResult<Self> {
        let body = decision.verified.as_ref().map(|verified| verified.message().body());
        Ok(Self {
            entry: decision.entry,
            error: decision.error,
            action: body.map(|body| body.action.clone()),
            resource: body.map(|body| body.resource.to_string()),
            sender: decision.verified.as_ref().map(|it| AgentId(*it.chain().holder())),
            permit: decision
                .permit
                .map(|permit| Py::new(py, Permit::new(permit, clock.clone(), protected)))
                .transpose()?,
        })
    }

    pub(crate) fn refusal(error: Error) -> Self {
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
pub(crate) fn denied(py: Python<'_>, decision: Decision) -> PyErr {
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
