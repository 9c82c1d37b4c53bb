//! One way from an error of the heart to an exception of `moat.errors`.

use std::fmt::Display;

use moat_core::{Axis, Error, Reason};
use moat_log::LogError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// An error on its way to Python.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The heart refused.
    Core(Error),
    /// The log could not be opened, read, written or believed.
    Log(LogError),
    /// Python raised.
    Py(PyErr),
}

/// What bindings return.
pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::Py(error)
    }
}

impl From<Fault> for PyErr {
    fn from(fault: Fault) -> Self {
        Python::attach(|py| match fault {
            Fault::Core(error) => from_core(py, &error),
            Fault::Log(error) => crate::audit::raise(py, &error),
            Fault::Py(error) => error,
        })
    }
}

/// Makes an exception of `moat.errors` by name.
pub(crate) fn exception(py: Python<'_>, name: &str, message: impl Display) -> PyErr {
    let made = py
        .import("moat.errors")
        .and_then(|module| module.getattr(name))
        .and_then(|class| class.cast_into::<PyType>().map_err(PyErr::from))
        .and_then(|class| class.call1((message.to_string(),)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Sets an attribute on an exception; an exception that takes none is still raised.
pub(crate) fn note<'py>(
    py: Python<'py>,
    error: PyErr,
    name: &str,
    value: impl IntoPyObject<'py>,
) -> PyErr {
    match error.value(py).setattr(name, value) {
        Ok(()) => error,
        Err(fault) => fault,
    }
}

fn class_of(error: &Error) -> &'static str {
    match error.reason {
        Reason::Malformed
        | Reason::TooLarge
        | Reason::WrongType
        | Reason::UnknownAlgorithm
        | Reason::UnknownClaim
        | Reason::BadKey => "MalformedInput",
        Reason::BadSignature => "InvalidSignature",
        Reason::NotAttested => "NotAttested",
        Reason::Widened => "AttenuationViolation",
        Reason::Expired
        | Reason::NotYetValid
        | Reason::Revoked
        | Reason::Suspended
        | Reason::UnknownRoot
        | Reason::BrokenChain => "TokenRefused",
        Reason::WrongGate if error.axis == Some(Axis::Audience) => "TokenRefused",
        Reason::WrongGate | Reason::Stale | Reason::WrongHolder => "MessageRefused",
        Reason::LogUnavailable => "AuditUnavailable",
        _ => "MoatError",
    }
}

fn from_core(py: Python<'_>, error: &Error) -> PyErr {
    annotate(py, exception(py, class_of(error), error), error)
}

/// Puts reason, link, caveat and witness on an exception.
pub(crate) fn annotate(py: Python<'_>, raised: PyErr, error: &Error) -> PyErr {
    let raised = note(py, raised, "reason", error.reason.code());
    let raised = note(py, raised, "link", error.link);
    let raised = note(py, raised, "caveat", error.axis.map(Axis::code));
    note(py, raised, "witness", error.witness.clone())
}

/// A child that asks for what it may not have, whatever the reason.
pub(crate) fn violation(error: Error) -> Fault {
    if error.reason != Reason::WrongHolder {
        return Fault::Core(error);
    }
    Fault::Py(Python::attach(|py| {
        annotate(py, exception(py, "AttenuationViolation", &error), &error)
    }))
}

/// A fault in the binding itself.
pub(crate) fn internal(message: &'static str) -> Fault {
    Fault::Py(PyRuntimeError::new_err(message))
}
