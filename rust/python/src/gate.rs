//! The gate over one log directory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use moat_core::monitor::Rules;
use moat_core::{Error, Reason};
use moat_log::{AnchorState, SEGMENT_BYTES};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::audit::{Checkpoint, ConsistencyProof, FormerLog, InclusionProof, former_log};
use crate::convert::Clock;
use crate::decision::{Decision, denied, refuse};
use crate::fault::{Fault, Result};
use crate::identity::{AgentId, Identity};
use crate::message::Policy;
use crate::permit::Permit;
use crate::statement::target;
use crate::token::{Token, read_keys};

impl Gate {
    /// Tells what the monitor has to tell. Whoever listens cannot change the answer.
    fn tell(&self, py: Python<'_>, decision: &moat_log::Decision) {
        let (Some(entry), false) = (decision.entry, decision.alerts.is_empty()) else { return };
        let listener = {
            let listener = self.on_alert.lock().unwrap_or_else(PoisonError::into_inner);
            listener.as_ref().map(|listener| listener.clone_ref(py))
        };
        let Some(listener) = listener else { return };
        for line in (entry + 1..).take(decision.alerts.len()) {
            let told = py
                .detach(|| self.gate.read(line))
                .map_err(Fault::from)
                .and_then(|line| Ok(listener.call1(py, (PyBytes::new(py, &line),))?));
            if let Err(error) = told {
                PyErr::from(error).write_unraisable(py, Some(listener.bind(py)));
            }
        }
    }
}

/// Check monitor rules, a JSON array (spec/monitor.md), and give their one spelling; raises
/// ``MalformedInput`` that names rule and key.
#[pyfunction]
pub(crate) fn check_rules<'py>(py: Python<'py>, rules: &[u8]) -> Result<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &Rules::from_json(rules)?.to_json()?))
}

/// The native gate: verification, judgement, the log and its state. ``moat.Pep`` and
/// ``moat.AuditLog`` are its two faces.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Gate {
    gate: moat_log::Gate,
    clock: Clock,
    /// Who is told what the monitor has to tell.
    on_alert: Mutex<Option<Py<PyAny>>>,
    protected: Mutex<Arc<[PathBuf]>>,
}

/// Role, name, and keys with the seconds since which they count.
type Registered = (&'static str, String, Vec<(AgentId, u64)>);

impl Gate {
    pub(crate) fn now(&self) -> Result<u64> {
        self.clock.now()
    }

    /// Decides for a thread that does not hold the interpreter's lock.
    pub(crate) fn ask(&self, wire: &[u8], now: u64) -> moat_core::Result<moat_log::Permit> {
        let decision = self.gate.decide(wire, now);
        if !decision.alerts.is_empty() {
            Python::attach(|py| self.tell(py, &decision));
        }
        let unknown = || Error::new(Reason::Internal, "the gate gave no reason");
        decision.permit.ok_or_else(|| decision.error.unwrap_or_else(unknown))
    }

    fn answer(&self, py: Python<'_>, decision: moat_log::Decision) -> PyResult<Decision> {
        self.tell(py, &decision);
        let protected = Arc::clone(&self.protected.lock().unwrap_or_else(PoisonError::into_inner));
        Decision::new(py, decision, &self.clock, protected)
    }
}

#[pymethods]
impl Gate {
    #[staticmethod]
    #[pyo3(signature = (
        path, signer, *, anchor, accept_restored=false, segment_bytes=None, clock=None,
        now=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each thing that can be said")]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        signer: &Identity,
        anchor: Option<PathBuf>,
        accept_restored: bool,
        segment_bytes: Option<u64>,
        clock: Option<Py<PyAny>>,
        now: Option<u64>,
    ) -> Result<Self> {
        let clock = Clock::new(clock);
        let now = clock.second(py, now)?;
        let path = std::path::absolute(path).map_err(PyErr::from)?;
        let gate = py.detach(|| {
            let anchor = anchor.as_deref();
            let gate = &signer.0;
            let segment_bytes = segment_bytes.unwrap_or(SEGMENT_BYTES);
            moat_log::Gate::open(&path, gate, anchor, accept_restored, segment_bytes, now)
        })?;
        let protected = Mutex::new(Arc::new([path]) as Arc<[PathBuf]>);
        Ok(Self { gate, clock, on_alert: Mutex::new(None), protected })
    }

    fn protect(&self, folders: Vec<PathBuf>) -> Result<()> {
        let folders = folders.iter().map(std::path::absolute).collect::<std::io::Result<Vec<_>>>();
        let folders = folders.map_err(PyErr::from)?;
        let mut protected = self.protected.lock().unwrap_or_else(PoisonError::into_inner);
        *protected = protected.iter().cloned().chain(folders).collect();
        Ok(())
    }

    #[pyo3(signature = (*, policy, roots, operators, rules=None, on_alert=None))]
    fn arm(
        &self,
        py: Python<'_>,
        policy: Policy,
        roots: &Bound<'_, PyAny>,
        operators: &Bound<'_, PyAny>,
        rules: Option<&[u8]>,
        on_alert: Option<Py<PyAny>>,
    ) -> Result<()> {
        let (roots, operators) = (read_keys(roots)?, read_keys(operators)?);
        let rules = Rules::from_json(rules.unwrap_or(b"[]"))?;
        let now = self.clock.second(py, None)?;
        *self.on_alert.lock().unwrap_or_else(PoisonError::into_inner) = on_alert;
        Ok(py.detach(|| self.gate.arm(policy.0, roots, operators, rules, now))?)
    }

    #[getter]
    fn id(&self) -> AgentId {
        AgentId(self.gate.id())
    }

    #[getter]
    fn policy(&self) -> Policy {
        Policy(self.gate.setup().policy)
    }

    #[getter]
    fn roots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let setup = self.gate.setup();
        let roots = setup.roots.iter().map(|id| Bound::new(py, AgentId(*id)));
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

    #[getter]
    fn former<'py>(&self, py: Python<'py>) -> Result<Option<FormerLog<'py>>> {
        Ok(self.gate.former()?.map(|former| former_log(py, former)))
    }

    #[getter]
    fn successor(&self) -> Result<Option<AgentId>> {
        Ok(self.gate.successor()?.map(AgentId))
    }

    #[pyo3(signature = (wire, *, now=None))]
    fn decide(&self, py: Python<'_>, wire: &[u8], now: Option<u64>) -> Result<Decision> {
        let now = self.clock.second(py, now)?;
        let decision = py.detach(|| self.gate.decide(wire, now));
        Ok(self.answer(py, decision)?)
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
        let made = decisions.into_iter().map(|decision| self.answer(py, decision));
        Ok(made.collect::<PyResult<_>>()?)
    }

    #[pyo3(signature = (statement, *, now=None))]
    fn control(&self, py: Python<'_>, statement: &[u8], now: Option<u64>) -> Result<u64> {
        let now = self.clock.second(py, now)?;
        py.detach(|| self.gate.control(statement, now))?.map_err(|error| refuse(py, error))
    }

    #[pyo3(signature = (proof, *, now=None))]
    fn register(&self, py: Python<'_>, proof: &[u8], now: Option<u64>) -> Result<u64> {
        let now = self.clock.second(py, now)?;
        py.detach(|| self.gate.register(proof, now))?.map_err(|error| refuse(py, error))
    }

    #[pyo3(signature = (envelope, *, signers, now=None))]
    fn attest(
        &self,
        py: Python<'_>,
        envelope: &[u8],
        signers: &Bound<'_, PyAny>,
        now: Option<u64>,
    ) -> Result<u64> {
        let (keys, now) = (read_keys(signers)?, self.clock.second(py, now)?);
        py.detach(|| self.gate.attest(envelope, &keys, now))?.map_err(|error| refuse(py, error))
    }

    fn agents(&self) -> Result<Vec<Registered>> {
        let of = |agent: moat_core::registry::Agent| {
            let keys = agent.keys().iter().map(|(key, since)| (AgentId(*key), *since)).collect();
            (agent.role().code(), agent.name().to_owned(), keys)
        };
        Ok(self.gate.agents()?.into_iter().map(of).collect())
    }

    fn agent(&self, key: AgentId) -> Result<Option<String>> {
        Ok(self.gate.agent(&key.0)?)
    }

    fn named(&self, name: &str) -> Result<Option<AgentId>> {
        Ok(self.gate.named(name)?.map(AgentId))
    }

    fn is_revoked(&self, target: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.gate.is_revoked(&self::target(target)?)?)
    }

    fn is_suspended(&self, target: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.gate.is_suspended(&self::target(target)?)?)
    }

    fn check_withdrawn(&self, token: &Token) -> Result<()> {
        Ok(self.gate.check_withdrawn(&token.0)??)
    }

    fn checkpoint(&self, py: Python<'_>) -> Result<Checkpoint> {
        Ok(Checkpoint(py.detach(|| self.gate.checkpoint())?))
    }

    #[pyo3(signature = (entry, *, size=None))]
    fn prove(&self, py: Python<'_>, entry: u64, size: Option<u64>) -> Result<InclusionProof> {
        Ok(InclusionProof(py.detach(|| self.gate.prove(entry, size))?))
    }

    #[pyo3(signature = (line, *, size=None))]
    fn prove_line(&self, py: Python<'_>, line: &[u8], size: Option<u64>) -> Result<InclusionProof> {
        Ok(InclusionProof(py.detach(|| self.gate.prove_line(line, size))?))
    }

    #[pyo3(signature = (before, *, dry_run=false, now=None))]
    fn prune(
        &self,
        py: Python<'_>,
        before: u64,
        dry_run: bool,
        now: Option<u64>,
    ) -> Result<(u64, u64, u64, Vec<String>)> {
        let now = self.clock.second(py, now)?;
        let gone = py.detach(|| self.gate.prune(before, dry_run, now))?;
        Ok((gone.before, gone.entries, gone.bytes, gone.segments))
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
        let size = self.gate.size()?;
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
