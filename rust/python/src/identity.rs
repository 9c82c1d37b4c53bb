//! Keys.

use moat_core::key;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::random;
use crate::fault::Result;

/// The public key of an agent: a canonical Ed25519 key (RFC 8032), written as a did:key.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AgentId(pub(crate) key::AgentId);

#[pymethods]
impl AgentId {
    #[new]
    fn new(text: &str) -> Result<Self> {
        Ok(Self(key::AgentId::parse(text)?))
    }

    #[staticmethod]
    fn from_bytes(key: &[u8]) -> Result<Self> {
        let id = key::AgentId::from_bytes(crate::convert::hash(key, "a public key")?)?;
        id.verifier()?;
        Ok(Self(id))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn verify(&self, py: Python<'_>, message: &[u8], signature: &[u8]) -> Result<()> {
        let signature: &[u8; 64] = signature.try_into().map_err(|_| {
            moat_core::Error::new(moat_core::Reason::BadSignature, "a signature has 64 bytes")
        })?;
        Ok(py.detach(|| self.0.verify(message, signature))?)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("AgentId('{}')", self.0)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, (String,))> {
        Ok((slf.get_type().into_any(), (slf.get().__str__(),)))
    }
}

/// A secret key with a name of 1 to 63 of a-z, 0-9, ``.``, ``_``, ``-``.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Identity(pub(crate) key::Identity);

#[pymethods]
impl Identity {
    #[staticmethod]
    #[pyo3(signature = (name, *, rng=None))]
    fn generate(name: &str, rng: Option<&Bound<'_, PyAny>>) -> Result<Self> {
        Ok(Self(key::Identity::from_seed(name, &random::<32>(rng)?)?))
    }

    #[staticmethod]
    fn from_pem(name: &str, pem: &str) -> Result<Self> {
        Ok(Self(key::Identity::from_pem(name, pem)?))
    }

    fn to_pem(&self) -> Result<String> {
        Ok(self.0.to_pem()?.to_string())
    }

    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.sign(message))
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn id(&self) -> AgentId {
        AgentId(self.0.id())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0.id() == self.0.id())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.id())
    }

    fn __repr__(&self) -> String {
        format!("Identity('{}', {})", self.0.name(), self.0.id())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a secret key is not pickled; write it with `to_pem`"))
    }
}

/// The hash that Python sees of a value.
pub(crate) fn hash_of(value: impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
