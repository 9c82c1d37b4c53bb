//! Checkpoints, proofs and verification by anyone.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use moat_core::Reason;
use moat_core::audit;
use moat_core::state::State;
use moat_log::{LogError, Trust};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::convert::second;
use crate::fault::{Fault, Result, annotate, exception, note};
use crate::identity::{AgentId, Identity, hash_of};

/// A signed tree head: a C2SP tlog-checkpoint note.
#[pyclass(frozen, module = "moat._native", from_py_object)]
#[derive(Clone)]
pub(crate) struct Checkpoint(pub(crate) audit::Checkpoint);

#[pymethods]
impl Checkpoint {
    #[staticmethod]
    fn parse(text: &str) -> Result<Self> {
        Ok(Self(audit::Checkpoint::parse(text)?))
    }

    fn verify(&self, py: Python<'_>, log: AgentId) -> Result<()> {
        let verified = py.detach(|| self.0.verify(&log.0));
        Ok(verified.map_err(|error| unsigned(py, error))?)
    }

    #[getter]
    fn origin(&self) -> &str {
        self.0.origin()
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.root())
    }

    fn __str__(&self) -> &str {
        self.0.text()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0.text() == self.0.text())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.text())
    }

    fn __repr__(&self) -> String {
        format!("Checkpoint(size={}, {})", self.0.size(), self.0.origin())
    }
}

/// A path that does not lead to the signed root means that the line or the tree was edited.
fn broken(py: Python<'_>, error: moat_core::Error, index: u64) -> PyErr {
    if !matches!(error.reason, Reason::BrokenChain | Reason::Malformed) {
        return unsigned(py, error);
    }
    let raised = annotate(py, exception(py, "ChainBroken", &error), &error);
    note(py, raised, "index", index)
}

/// A checkpoint of another log was not signed by the key that was asked about.
fn unsigned(py: Python<'_>, error: moat_core::Error) -> PyErr {
    if error.reason != Reason::WrongGate {
        return Fault::Core(error).into();
    }
    annotate(py, exception(py, "InvalidSignature", &error), &error)
}

fn hashes<'py>(py: Python<'py>, hashes: &[[u8; 32]]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, hashes.iter().map(|hash| PyBytes::new(py, hash)))
}

/// That one line is in a log (RFC 6962 §2.1.1), with the line itself.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct InclusionProof(pub(crate) audit::InclusionProof);

#[pymethods]
impl InclusionProof {
    #[staticmethod]
    fn parse(text: &str) -> Result<Self> {
        Ok(Self(audit::InclusionProof::parse(text)?))
    }

    #[pyo3(signature = (checkpoint, *, log))]
    fn verify(&self, py: Python<'_>, checkpoint: &Checkpoint, log: AgentId) -> Result<()> {
        let verified = py.detach(|| self.0.verify(&checkpoint.0, &log.0));
        Ok(verified.map_err(|error| broken(py, error, self.0.index()))?)
    }

    #[getter]
    fn index(&self) -> u64 {
        self.0.index()
    }

    #[getter]
    fn line<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.line())
    }

    #[getter]
    fn hashes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        hashes(py, self.0.hashes())
    }

    #[getter]
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint(self.0.checkpoint().clone())
    }

    fn __str__(&self) -> String {
        self.0.text()
    }

    fn __repr__(&self) -> String {
        format!("InclusionProof(index={}, size={})", self.0.index(), self.0.checkpoint().size())
    }
}

/// That a smaller tree is a prefix of a larger one (RFC 6962 §2.1.2).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct ConsistencyProof(pub(crate) audit::ConsistencyProof);

#[pymethods]
impl ConsistencyProof {
    #[staticmethod]
    fn parse(text: &str) -> Result<Self> {
        Ok(Self(audit::ConsistencyProof::parse(text)?))
    }

    #[pyo3(signature = (old, new, *, log))]
    fn verify(
        &self,
        py: Python<'_>,
        old: &Checkpoint,
        new: &Checkpoint,
        log: AgentId,
    ) -> Result<()> {
        let verified = py.detach(|| self.0.verify(&old.0, &new.0, &log.0));
        Ok(verified.map_err(|error| broken(py, error, self.0.old_size()))?)
    }

    #[getter(old)]
    fn old_size(&self) -> u64 {
        self.0.old_size()
    }

    #[getter(new)]
    fn new_size(&self) -> u64 {
        self.0.checkpoint().size()
    }

    #[getter]
    fn hashes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        hashes(py, self.0.hashes())
    }

    fn __str__(&self) -> String {
        self.0.text()
    }

    fn __repr__(&self) -> String {
        format!("ConsistencyProof({} -> {})", self.0.old_size(), self.0.checkpoint().size())
    }
}

/// Gate, size and root of the log that another one goes on after.
pub(crate) type FormerLog<'py> = (AgentId, u64, Bound<'py, PyBytes>);

pub(crate) fn former_log(py: Python<'_>, former: audit::Former) -> FormerLog<'_> {
    (AgentId(former.gate), former.entries, PyBytes::new(py, &former.root))
}

/// What ``verify_log`` found, and what it could not check.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Report(moat_log::Report);

#[pymethods]
impl Report {
    #[getter]
    fn entries(&self) -> u64 {
        self.0.entries
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.root)
    }

    #[getter]
    fn time(&self) -> u64 {
        self.0.time
    }

    #[getter]
    fn signed(&self) -> Option<u64> {
        self.0.signed
    }

    #[getter]
    fn anchored(&self) -> Option<u64> {
        self.0.anchored
    }

    #[getter]
    fn segments(&self) -> usize {
        self.0.segments
    }

    #[getter]
    fn torn(&self) -> u64 {
        self.0.torn
    }

    #[getter]
    fn kinds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let kinds = PyDict::new(py);
        for (kind, count) in &self.0.kinds {
            kinds.set_item(kind, count)?;
        }
        Ok(kinds)
    }

    #[getter]
    fn former<'py>(&self, py: Python<'py>) -> Option<FormerLog<'py>> {
        self.0.former.map(|former| former_log(py, former))
    }

    #[getter]
    fn unchecked<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.unchecked.iter().map(ToString::to_string))
    }

    fn __repr__(&self) -> String {
        format!("Report(entries={}, signed={:?})", self.0.entries, self.0.signed)
    }
}

/// Read a whole log as a stranger, in constant memory: form, chain, tree, checkpoint, anchor.
#[pyfunction]
#[pyo3(signature = (path, log, *, anchor=None, former=None, progress=None))]
pub(crate) fn verify_log(
    py: Python<'_>,
    path: PathBuf,
    log: AgentId,
    anchor: Option<PathBuf>,
    former: Option<PathBuf>,
    progress: Option<Py<PyAny>>,
) -> Result<Report> {
    let trust = Trust { log: log.0, anchor, key: None };
    let mut raised = None;
    let report = py.detach(|| {
        let tell = |at: moat_log::Progress| {
            let Some(progress) = progress.as_ref().filter(|_| raised.is_none()) else { return };
            raised = Python::attach(|py| progress.call1(py, (at.bytes, at.total)).err());
        };
        match &former {
            None => moat_log::verify(&path, &trust, State::default, tell),
            Some(former) => moat_log::verify_after(former, &path, &trust, tell),
        }
    });
    match raised {
        Some(error) => Err(error.into()),
        None => Ok(Report(report?)),
    }
}

/// Make the log of the gate that comes after another, in a new folder, with all that the other
/// one knew; how many entries the former log has. ``log`` is the key of the former gate, whose
/// log is read and verified. Raises ``AuditError``'s kin.
#[pyfunction]
#[pyo3(signature = (former, log, path, heir, *, now=None))]
pub(crate) fn hand_on(
    py: Python<'_>,
    former: PathBuf,
    log: AgentId,
    path: PathBuf,
    heir: &Identity,
    now: Option<u64>,
) -> Result<u64> {
    let now = second(now)?;
    let path = std::path::absolute(path).map_err(PyErr::from)?;
    let done = py.detach(|| moat_log::hand_on(&former, &log.0, &path, &heir.0, now));
    Ok(done?.entries)
}

/// Lines of a log, one at a time, without their newlines.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Lines(Mutex<Box<dyn Iterator<Item = std::io::Result<Vec<u8>>> + Send>>);

#[pymethods]
impl Lines {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyBytes>>> {
        let next = py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).next());
        let line = next.transpose().map_err(PyErr::from)?;
        Ok(line.map(|line| PyBytes::new(py, &line)))
    }
}

/// Lines of a log from an index on, without checking them.
#[pyfunction]
#[pyo3(signature = (path, *, start=0))]
pub(crate) fn read_log(path: PathBuf, start: usize) -> Result<Lines> {
    Ok(Lines(Mutex::new(Box::new(moat_log::lines(&path, start)?))))
}

/// One exception for each kind of fault of a log.
pub(crate) fn raise(py: Python<'_>, error: &LogError) -> PyErr {
    let (class, index) = match error {
        LogError::ChainBroken { index, .. }
        | LogError::BadMac { index, .. }
        | LogError::SnapshotDiffers { index, .. }
        | LogError::InheritedDiffers { index, .. }
        | LogError::Rejected { index, .. } => ("ChainBroken", Some(*index)),
        LogError::RolledBack { .. } => ("RolledBack", error.index()),
        LogError::Unavailable { .. } | LogError::Forked => ("AuditUnavailable", None),
        LogError::Locked { .. } => ("GateBusy", None),
        _ => ("AuditError", None),
    };
    let raised = exception(py, class, error);
    match index {
        Some(index) => note(py, raised, "index", index),
        None => raised,
    }
}
