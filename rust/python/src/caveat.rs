//! Patterns, grants, denials and limits.

use std::time::Duration;

use moat_core::caveat::{self, Args};
use moat_core::pattern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyTuple};

use crate::convert::{actions, milliseconds, no_args};
use crate::fault::Result;
use crate::host::{Host, Secret, host_rules, listed, secret_rules};

/// A resource pattern (spec/pattern.md).
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pattern(pub(crate) pattern::Pattern);

#[pymethods]
impl Pattern {
    #[new]
    fn new(text: &str) -> Result<Self> {
        Ok(Self(pattern::Pattern::parse(text)?))
    }

    fn matches(&self, resource: &str) -> Result<bool> {
        Ok(self.0.matches(&pattern::Resource::parse(resource)?))
    }

    fn covers(&self, child: &Self) -> bool {
        self.0.covers(&child.0)
    }

    fn witness(&self, child: &Self) -> Option<String> {
        self.0.witness(&child.0).map(|resource| resource.to_string())
    }

    fn __str__(&self) -> &str {
        self.0.as_str()
    }

    fn __repr__(&self) -> String {
        format!("Pattern('{}')", self.0)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (String,)) {
        (slf.get_type().into_any(), (slf.get().0.to_string(),))
    }
}

/// Repair a URL or resource into its one canonical spelling, or raise ``MalformedInput``.
#[pyfunction]
pub(crate) fn canonicalize(text: &str) -> Result<String> {
    Ok(pattern::canonicalize(text)?)
}

/// The type of ``ANY``: any arguments, written out.
#[pyclass(frozen, eq, hash, module = "moat._native", name = "Any_")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AnyArgs;

#[pymethods]
impl AnyArgs {
    fn __repr__(&self) -> &'static str {
        "ANY"
    }

    fn __reduce__(&self) -> &'static str {
        "ANY"
    }
}

/// Any arguments where that is written out; else what the mapping allows.
fn args(value: &Bound<'_, PyAny>) -> PyResult<Args> {
    if value.is_instance_of::<AnyArgs>() { Ok(Args::Any) } else { Ok(no_args(value)?) }
}

/// A pattern, or its text.
pub(crate) fn to_pattern(value: &Bound<'_, PyAny>) -> Result<pattern::Pattern> {
    if let Ok(pattern) = value.cast::<Pattern>() {
        return Ok(pattern.get().0.clone());
    }
    Ok(pattern::Pattern::parse(value.extract::<&str>()?)?)
}

/// One allowance: actions on the resources of a pattern, with ``ANY`` arguments or ``{}``.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Grant(pub(crate) caveat::Grant);

#[pymethods]
impl Grant {
    #[new]
    #[pyo3(signature = (resource, actions, args=Args::Any))]
    fn new(
        resource: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = self::actions)] actions: caveat::Actions,
        #[pyo3(from_py_with = self::args)] args: Args,
    ) -> Result<Self> {
        Ok(Self(caveat::Grant { resource: to_pattern(resource)?, actions, args }))
    }

    #[getter]
    fn resource(&self) -> Pattern {
        Pattern(self.0.resource.clone())
    }

    #[getter]
    fn actions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyFrozenSet>> {
        PyFrozenSet::new(py, self.0.actions.iter())
    }

    #[getter]
    fn args<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0.args {
            Args::Any => Ok(Bound::new(py, AnyArgs)?.into_any()),
            Args::Empty => Ok(PyDict::new(py).into_any()),
        }
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        let names: Vec<_> = self.0.actions.iter().map(|name| format!("'{name}'")).collect();
        let args = if self.0.args == Args::Empty { ", {}" } else { "" };
        format!("Grant('{}', {{{}}}{args})", self.0.resource, names.join(", "))
    }
}

/// What is refused whatever is granted: actions on the resources of a pattern.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Denial(pub(crate) caveat::Denial);

#[pymethods]
impl Denial {
    #[new]
    fn new(
        resource: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = self::actions)] actions: caveat::Actions,
    ) -> Result<Self> {
        Ok(Self(caveat::Denial { resource: to_pattern(resource)?, actions }))
    }

    #[getter]
    fn resource(&self) -> Pattern {
        Pattern(self.0.resource.clone())
    }

    #[getter]
    fn actions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyFrozenSet>> {
        PyFrozenSet::new(py, self.0.actions.iter())
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        let names: Vec<_> = self.0.actions.iter().map(|name| format!("'{name}'")).collect();
        format!("Denial('{}', {{{}}})", self.0.resource, names.join(", "))
    }
}

/// What code run under a token may spend and reach; an axis left out is zero or empty.
#[pyclass(frozen, eq, hash, module = "moat._native", from_py_object)]
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Limits(pub(crate) caveat::Limits);

/// Patterns of a list of texts.
fn patterns(values: &Bound<'_, PyAny>) -> Result<Vec<pattern::Pattern>> {
    let values = listed(values, "paths are a list of patterns, not one text")?;
    values.try_iter()?.map(|value| to_pattern(&value?)).collect()
}

fn texts<'py>(py: Python<'py>, set: &[pattern::Pattern]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, set.iter().map(pattern::Pattern::as_str))
}

#[pymethods]
impl Limits {
    #[classattr]
    const UNMETERED: u64 = caveat::UNMETERED;

    #[new]
    #[pyo3(signature = (
        *, fuel=None, memory=None, time=None, output=None, hosts=None, read=None, write=None,
        secrets=None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each axis")]
    fn new(
        fuel: Option<u64>,
        memory: Option<u64>,
        time: Option<Duration>,
        output: Option<u64>,
        hosts: Option<&Bound<'_, PyAny>>,
        read: Option<&Bound<'_, PyAny>>,
        write: Option<&Bound<'_, PyAny>>,
        secrets: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        Self::default().replace(fuel, memory, time, output, hosts, read, write, secrets)
    }

    #[staticmethod]
    fn standard() -> Self {
        Self(caveat::Limits {
            fuel: 1_000_000_000,
            memory: 256 << 20,
            time_ms: 10_000,
            output: 1 << 20,
            ..caveat::Limits::default()
        })
    }

    #[pyo3(signature = (
        *, fuel=None, memory=None, time=None, output=None, hosts=None, read=None, write=None,
        secrets=None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each axis")]
    fn replace(
        &self,
        fuel: Option<u64>,
        memory: Option<u64>,
        time: Option<Duration>,
        output: Option<u64>,
        hosts: Option<&Bound<'_, PyAny>>,
        read: Option<&Bound<'_, PyAny>>,
        write: Option<&Bound<'_, PyAny>>,
        secrets: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let mut limits = self.0.clone();
        limits.fuel = fuel.unwrap_or(limits.fuel);
        limits.memory = memory.unwrap_or(limits.memory);
        limits.output = output.unwrap_or(limits.output);
        if let Some(time) = time {
            limits.time_ms = milliseconds(time)?;
        }
        limits.hosts = hosts.map_or(Ok(limits.hosts), host_rules)?;
        limits.secrets = secrets.map_or(Ok(limits.secrets), secret_rules)?;
        for (set, given) in [(&mut limits.read, read), (&mut limits.write, write)] {
            if let Some(given) = given {
                *set = patterns(given)?;
            }
        }
        Ok(Self(limits.checked()?))
    }

    fn covers(&self, child: &Self) -> bool {
        self.0.covers(&child.0).is_ok()
    }

    #[getter]
    fn fuel(&self) -> u64 {
        self.0.fuel
    }

    #[getter]
    fn memory(&self) -> u64 {
        self.0.memory
    }

    #[getter]
    fn time(&self) -> Duration {
        Duration::from_millis(self.0.time_ms)
    }

    #[getter]
    fn output(&self) -> u64 {
        self.0.output
    }

    #[getter]
    fn hosts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.hosts.iter().cloned().map(Host))
    }

    #[getter]
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.0.read)
    }

    #[getter]
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        texts(py, &self.0.write)
    }

    #[getter]
    fn secrets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.secrets.iter().cloned().map(Secret))
    }

    fn __repr__(&self) -> String {
        let it = &self.0;
        let fuel = match it.fuel {
            caveat::UNMETERED => "Limits.UNMETERED".to_owned(),
            fuel => fuel.to_string(),
        };
        let mut parts = vec![
            format!("fuel={fuel}"),
            format!("memory={}", it.memory),
            format!("time=timedelta(milliseconds={})", it.time_ms),
            format!("output={}", it.output),
        ];
        let quoted = |set: &[pattern::Pattern]| -> Vec<_> {
            set.iter().map(|entry| format!("'{entry}'")).collect()
        };
        for (name, set) in [
            ("hosts", it.hosts.iter().cloned().map(|rule| Host(rule).__repr__()).collect()),
            ("read", quoted(&it.read)),
            ("write", quoted(&it.write)),
            ("secrets", it.secrets.iter().cloned().map(|rule| Secret(rule).__repr__()).collect()),
        ] {
            if !set.is_empty() {
                parts.push(format!("{name}=[{}]", set.join(", ")));
            }
        }
        format!("Limits({})", parts.join(", "))
    }
}
