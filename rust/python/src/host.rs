//! Which requests code may send, and which secrets are filled into them.

use moat_core::caveat::{HostRule, Methods, Range, SecretRule};
use moat_core::pattern::{self, Resource};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyFrozenSet, PyString, PyTuple};

use crate::caveat::{Pattern, to_pattern};
use crate::fault::Result;

/// One allowance to send requests: methods, on the URLs of a pattern, at some addresses.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host(pub(crate) HostRule);

#[pymethods]
impl Host {
    #[new]
    #[pyo3(signature = (pattern, methods, cidr=None))]
    fn new(
        pattern: &Bound<'_, PyAny>,
        methods: &Bound<'_, PyAny>,
        cidr: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let methods = Methods::new(words(methods, "methods are a set; write {\"GET\"}")?)?;
        let cidr = cidr.map(|given| words(given, "cidr is a list of ranges, not one text"));
        let cidr = cidr.transpose()?.unwrap_or_default();
        let ranges = cidr.iter().map(|text| Ok(Range::parse(text)?)).collect::<Result<_>>()?;
        Ok(Self(HostRule::new(to_pattern(pattern)?, methods, ranges)?))
    }

    #[getter]
    fn pattern(&self) -> Pattern {
        Pattern(self.0.pattern().clone())
    }

    #[getter]
    fn methods<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyFrozenSet>> {
        PyFrozenSet::new(py, self.0.methods().iter())
    }

    #[getter]
    fn cidr<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.ranges().iter().map(Range::as_str))
    }

    fn covers(&self, child: &Self) -> bool {
        self.0.covers(&child.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    pub(crate) fn __repr__(&self) -> String {
        let quoted = |texts: Vec<&str>| -> String {
            texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(", ")
        };
        let methods = quoted(self.0.methods().iter().collect());
        let cidr = match quoted(self.0.ranges().iter().map(Range::as_str).collect()) {
            none if none.is_empty() => none,
            some => format!(", cidr=[{some}]"),
        };
        format!("Host('{}', {{{methods}}}{cidr})", self.0.pattern())
    }
}

/// A secret behind a handle, for one header of requests to the hosts of a pattern.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(pub(crate) SecretRule);

#[pymethods]
impl Secret {
    #[new]
    #[pyo3(signature = (handle, *, host, header))]
    fn new(handle: &str, host: &Bound<'_, PyAny>, header: String) -> Result<Self> {
        Ok(Self(SecretRule::new(Resource::parse(handle)?, to_pattern(host)?, header)?))
    }

    #[getter]
    fn handle(&self) -> &str {
        self.0.handle().as_str()
    }

    #[getter]
    fn host(&self) -> Pattern {
        Pattern(self.0.host().clone())
    }

    #[getter]
    fn header(&self) -> &str {
        self.0.header()
    }

    fn covers(&self, child: &Self) -> bool {
        self.0.covers(&child.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    pub(crate) fn __repr__(&self) -> String {
        let (handle, host, header) = (self.0.handle(), self.0.host(), self.0.header());
        format!("Secret('{handle}', host='{host}', header='{header}')")
    }
}

/// Rules of a list of them, where a text stands for any method: of the URLs of its pattern, and
/// of all of a host where it has no path.
pub(crate) fn host_rules(values: &Bound<'_, PyAny>) -> Result<Vec<HostRule>> {
    let one = |value: Bound<'_, PyAny>| -> Result<HostRule> {
        if let Ok(rule) = value.cast::<Host>() {
            return Ok(rule.get().0.clone());
        }
        let given = to_pattern(&value)?;
        let pattern = match given.as_str().split('/').nth(3) {
            Some(_) => given,
            None => pattern::Pattern::parse(&format!("{given}/**"))?,
        };
        Ok(HostRule::new(pattern, Methods::new(["*".to_owned()])?, Vec::new())?)
    };
    listed(values, "hosts are a list of `Host`s and patterns, not one text")?
        .try_iter()?
        .map(|value| one(value?))
        .collect()
}

/// Rules of a list of secrets.
pub(crate) fn secret_rules(values: &Bound<'_, PyAny>) -> Result<Vec<SecretRule>> {
    let rule = |value: Bound<'_, PyAny>| match value.cast::<Secret>() {
        Ok(secret) => Ok(secret.get().0.clone()),
        Err(_) => Err(PyTypeError::new_err("secrets are a list of `Secret`s").into()),
    };
    values.try_iter()?.map(|value| rule(value?)).collect()
}

fn words(values: &Bound<'_, PyAny>, wrong: &'static str) -> Result<Vec<String>> {
    let texts = listed(values, wrong)?.try_iter()?.map(|value| value?.extract::<String>());
    Ok(texts.collect::<PyResult<_>>()?)
}

/// Refuses one text where several are meant: it is a sequence of texts too.
pub(crate) fn listed<'a, 'py>(
    values: &'a Bound<'py, PyAny>,
    wrong: &'static str,
) -> PyResult<&'a Bound<'py, PyAny>> {
    if values.is_instance_of::<PyString>() { Err(PyTypeError::new_err(wrong)) } else { Ok(values) }
}
