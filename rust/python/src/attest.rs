//! Attestations, and what a link requires of them.

use std::collections::BTreeMap;
use std::time::Duration;

use moat_core::attest::{self, Draft, Envelope, Kind, Predicate, Subject, Vouched};
use moat_core::caveat;
use moat_core::key::Hash256;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::convert::{given, hash, second, seconds};
use crate::fault::Result;
use crate::identity::{AgentId, Identity, hash_of};
use crate::token::read_keys;

/// SHA-256 of a skill's listing: every path below its folder with the SHA-256 of its bytes.
#[pyfunction]
pub(crate) fn skill_digest<'py>(
    py: Python<'py>,
    files: &Bound<'py, PyDict>,
) -> Result<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &attest::skill_digest(&hashed(files)?)?))
}

/// SHA-256 of the canonical JSON (RFC 8785) of a tool's description, in any spelling.
#[pyfunction]
pub(crate) fn tool_digest<'py>(py: Python<'py>, description: &[u8]) -> Result<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &attest::tool_digest(description)?))
}

fn hashed(files: &Bound<'_, PyDict>) -> Result<BTreeMap<String, Hash256>> {
    let mut hashes = BTreeMap::new();
    for (path, data) in files {
        let data = data.cast::<PyBytes>().map_err(PyErr::from)?;
        hashes.insert(path.extract()?, moat_core::key::sha256(data.as_bytes()));
    }
    Ok(hashes)
}

/// An in-toto statement in a DSSE envelope, its signatures verified (spec/attest.md).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Attestation(attest::Attestation);

#[pymethods]
impl Attestation {
    #[staticmethod]
    #[pyo3(signature = (signers, kind, subject, *, name="", now=None))]
    fn sign(
        signers: &Bound<'_, PyAny>,
        kind: &str,
        subject: &Bound<'_, PyAny>,
        name: &str,
        now: Option<u64>,
    ) -> Result<Self> {
        let issued = second(now)?;
        let payload = match Kind::parse(kind)? {
            Kind::Skill => {
                let files = hashed(subject.cast::<PyDict>().map_err(PyErr::from)?)?;
                Draft { name, subject: Subject::Skill(&files), issued }.to_payload()
            }
            kind => {
                let digest = hash(given(subject)?, "a digest")?;
                let subject = match kind {
                    Kind::Tool => Subject::Tool(digest),
                    _ => Subject::Code(digest),
                };
                Draft { name, subject, issued }.to_payload()
            }
        }?;
        Self::sign_statement(signers, &payload)
    }

    #[staticmethod]
    fn sign_statement(signers: &Bound<'_, PyAny>, statement: &[u8]) -> Result<Self> {
        let signers = signers.try_iter()?.map(|signer| Ok(signer?.cast_into::<Identity>()?));
        let signers = signers.collect::<PyResult<Vec<_>>>()?;
        let signers: Vec<_> = signers.iter().map(|signer| &signer.get().0).collect();
        Ok(Self(attest::Attestation::sign(statement, &signers)?))
    }

    #[staticmethod]
    fn verify(py: Python<'_>, envelope: &[u8], signers: &Bound<'_, PyAny>) -> Result<Self> {
        let keys = read_keys(signers)?;
        Ok(Self(py.detach(|| Envelope::decode(envelope)?.verify(&keys))?))
    }

    #[getter]
    fn signers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        keys(py, self.0.signers())
    }

    #[getter]
    fn statement<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.statement())
    }

    #[getter]
    fn subjects<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.subjects().iter().map(|digest| PyBytes::new(py, digest)))
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind().code()
    }

    #[getter]
    fn predicate(&self) -> &'static str {
        self.0.predicate().uri()
    }

    #[getter]
    fn issued(&self) -> u64 {
        self.0.issued()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.envelope())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.statement())
    }

    fn __repr__(&self) -> String {
        format!("Attestation({})", self.0)
    }
}

fn keys<'py>(py: Python<'py>, keys: &[moat_core::key::AgentId]) -> PyResult<Bound<'py, PyTuple>> {
    let keys = keys.iter().map(|key| Bound::new(py, AgentId(*key)));
    PyTuple::new(py, keys.collect::<PyResult<Vec<_>>>()?)
}

/// Who must have vouched for what runs: a term of a link (spec/attest.md).
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Requirement(pub(crate) caveat::Requirement);

#[pymethods]
impl Requirement {
    #[new]
    #[pyo3(signature = (
        kind, signers, *, max_age, threshold=1, predicate="urn:moat:manifest:v1"
    ))]
    fn new(
        kind: &str,
        signers: &Bound<'_, PyAny>,
        max_age: Duration,
        threshold: u64,
        predicate: &str,
    ) -> Result<Self> {
        let (kind, predicate) = (Kind::parse(kind)?, Predicate::parse(predicate)?);
        let (signers, max_age) = (read_keys(signers)?, seconds(max_age)?);
        Ok(Self(caveat::Requirement::new(kind, predicate, signers, threshold, max_age)?))
    }

    #[pyo3(signature = (digest, attestations, *, now=None))]
    fn check<'py>(
        &self,
        py: Python<'py>,
        digest: &[u8],
        attestations: &Bound<'py, PyAny>,
        now: Option<u64>,
    ) -> Result<Bound<'py, PyTuple>> {
        let (digest, now) = (hash(digest, "a digest")?, second(now)?);
        let mut words: Vec<Vouched> = Vec::new();
        for attestation in attestations.try_iter()? {
            words
                .extend(attestation?.cast::<Attestation>().map_err(PyErr::from)?.get().0.vouched());
        }
        let newest = |signer: &moat_core::key::AgentId| {
            let about = words.iter().filter(|word| {
                word.signer == *signer
                    && word.subject == digest
                    && word.kind == self.0.kind()
                    && word.predicate == self.0.predicate()
            });
            about.max_by_key(|word| word.issued).copied()
        };
        let met = self.0.check(&digest, now, newest)?;
        Ok(PyTuple::new(py, met.iter().map(|statement| PyBytes::new(py, statement)))?)
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind().code()
    }

    #[getter]
    fn predicate(&self) -> &'static str {
        self.0.predicate().uri()
    }

    #[getter]
    fn signers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        keys(py, self.0.signers())
    }

    #[getter]
    fn threshold(&self) -> u64 {
        self.0.threshold()
    }

    #[getter]
    fn max_age(&self) -> Duration {
        Duration::from_secs(self.0.max_age())
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Requirement({})", self.0)
    }
}

/// Requirements of an iterable; none where it is left out.
pub(crate) fn read_requirements(
    values: Option<&Bound<'_, PyAny>>,
) -> Result<Vec<caveat::Requirement>> {
    let Some(values) = values else { return Ok(Vec::new()) };
    values.try_iter()?.map(|value| Ok(given::<Requirement>(&value?)?.0)).collect()
}

/// Requirements as a tuple.
pub(crate) fn requirements<'py>(
    py: Python<'py>,
    all: &[caveat::Requirement],
) -> PyResult<Bound<'py, PyTuple>> {
    let all = all.iter().map(|one| Bound::new(py, Requirement(one.clone())));
    PyTuple::new(py, all.collect::<PyResult<Vec<_>>>()?)
}
