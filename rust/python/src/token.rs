//! Links and tokens.

use std::time::Duration;

use moat_core::args::NONE;
use moat_core::caveat::{self, Caveats, Request, Terms};
use moat_core::pattern::Resource;
use moat_core::token::{self, Stamp};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::attest::{read_requirements, requirements};
use crate::caveat::{Denial, Grant, Limits};
use crate::convert::{given, json_args, moment, random, second, seconds};
use crate::fault::{Result, violation};
use crate::identity::{AgentId, Identity, hash_of};

/// One signed link of a token.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Link(token::Link);

#[pymethods]
impl Link {
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.id())
    }

    #[getter]
    fn issuer(&self) -> AgentId {
        AgentId(self.0.claims().issuer)
    }

    #[getter]
    fn holder(&self) -> AgentId {
        AgentId(self.0.claims().holder)
    }

    #[getter]
    fn allow<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        grants(py, self.0.claims().caveats.allow())
    }

    #[getter]
    fn deny<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        denials(py, self.0.claims().caveats.deny())
    }

    #[getter]
    fn limits(&self) -> Limits {
        Limits(self.0.claims().caveats.limits.clone())
    }

    #[getter]
    fn expires(&self) -> u64 {
        self.0.claims().caveats.expires
    }

    #[getter]
    fn not_before(&self) -> u64 {
        self.0.claims().caveats.not_before
    }

    #[getter]
    fn issued(&self) -> u64 {
        self.0.claims().issued
    }

    #[getter]
    fn depth(&self) -> u64 {
        self.0.claims().caveats.depth
    }

    #[getter]
    fn index(&self) -> u64 {
        self.0.claims().index
    }

    #[getter]
    fn audience(&self) -> Option<AgentId> {
        self.0.claims().caveats.audience.map(AgentId)
    }

    #[getter]
    fn attestations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        requirements(py, self.0.claims().caveats.attestations())
    }

    #[getter]
    fn parent<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.claims().parent.map(|parent| PyBytes::new(py, &parent))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0.as_bytes() == self.0.as_bytes())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.as_bytes())
    }

    fn __repr__(&self) -> String {
        let claims = self.0.claims();
        format!(
            "Link({} -> {}, {} grants)",
            claims.index,
            claims.holder,
            claims.caveats.allow().len()
        )
    }
}

fn grants<'py>(py: Python<'py>, grants: &[caveat::Grant]) -> PyResult<Bound<'py, PyTuple>> {
    let grants = grants.iter().map(|grant| Bound::new(py, Grant(grant.clone())));
    PyTuple::new(py, grants.collect::<PyResult<Vec<_>>>()?)
}

fn denials<'py>(py: Python<'py>, denials: &[caveat::Denial]) -> PyResult<Bound<'py, PyTuple>> {
    let denials = denials.iter().map(|denial| Bound::new(py, Denial(denial.clone())));
    PyTuple::new(py, denials.collect::<PyResult<Vec<_>>>()?)
}

fn read_grants(values: &Bound<'_, PyAny>) -> Result<Vec<caveat::Grant>> {
    values.try_iter()?.map(|value| Ok(given::<Grant>(&value?)?.0)).collect()
}

fn read_denials(values: Option<&Bound<'_, PyAny>>) -> Result<Vec<caveat::Denial>> {
    let Some(values) = values else { return Ok(Vec::new()) };
    values.try_iter()?.map(|value| Ok(given::<Denial>(&value?)?.0)).collect()
}

/// Keys of an iterable.
pub(crate) fn read_keys(values: &Bound<'_, PyAny>) -> Result<Vec<moat_core::key::AgentId>> {
    values.try_iter()?.map(|value| Ok(given::<AgentId>(&value?)?.0)).collect()
}

/// A chain of signed links, root first (spec/token.md).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Token(pub(crate) token::Token);

#[pymethods]
impl Token {
    #[staticmethod]
    #[pyo3(signature = (
        root, *, holder, allow, expires_in, limits=None, deny=None, not_before=None, depth=0,
        audience=None, attestations=None, now=None, rng=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each axis of a link")]
    fn issue(
        root: &Identity,
        holder: AgentId,
        allow: &Bound<'_, PyAny>,
        expires_in: Duration,
        limits: Option<Limits>,
        deny: Option<&Bound<'_, PyAny>>,
        not_before: Option<&Bound<'_, PyAny>>,
        depth: u64,
        audience: Option<AgentId>,
        attestations: Option<&Bound<'_, PyAny>>,
        now: Option<u64>,
        rng: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let now = second(now)?;
        let caveats = Caveats::new(Terms {
            allow: read_grants(allow)?,
            deny: read_denials(deny)?,
            limits: limits.unwrap_or_default().0,
            not_before: not_before.map_or(Ok(now), moment)?,
            expires: now.saturating_add(seconds(expires_in)?),
            depth,
            audience: audience.map(|id| id.0),
            attestations: read_requirements(attestations)?,
        })?;
        let stamp = Stamp { holder: holder.0, now, nonce: random(rng)? };
        Ok(Self(token::Token::issue(&root.0, stamp, caveats)?))
    }

    #[pyo3(signature = (
        issuer, *, holder, allow=None, deny=None, limits=None, expires_in=None, not_before=None,
        depth=None, audience=None, attestations=None, now=None, rng=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one for each axis of a link")]
    fn attenuate(
        &self,
        issuer: &Identity,
        holder: AgentId,
        allow: Option<&Bound<'_, PyAny>>,
        deny: Option<&Bound<'_, PyAny>>,
        limits: Option<Limits>,
        expires_in: Option<Duration>,
        not_before: Option<&Bound<'_, PyAny>>,
        depth: Option<u64>,
        audience: Option<AgentId>,
        attestations: Option<&Bound<'_, PyAny>>,
        now: Option<u64>,
        rng: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let now = second(now)?;
        let mut terms = self.0.leaf()?.claims().caveats.terms();
        if let Some(allow) = allow {
            terms.allow = read_grants(allow)?;
        }
        terms.deny.extend(read_denials(deny)?);
        if let Some(limits) = limits {
            terms.limits = limits.0;
        }
        if let Some(span) = expires_in {
            terms.expires = now.saturating_add(seconds(span)?);
        }
        if let Some(start) = not_before {
            terms.not_before = moment(start)?;
        }
        // One less is what stays as it is; none left is refused by the comparison below.
        terms.depth = depth.unwrap_or(terms.depth.saturating_sub(1));
        terms.audience = audience.map(|id| id.0).or(terms.audience);
        terms.attestations.extend(read_requirements(attestations)?);
        let stamp = Stamp { holder: holder.0, now, nonce: random(rng)? };
        let child = self.0.attenuate(&issuer.0, stamp, Caveats::new(terms)?);
        Ok(Self(child.map_err(violation)?))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> Result<Self> {
        Ok(Self(token::Token::decode(data)?))
    }

    #[staticmethod]
    fn parse(text: &str) -> Result<Self> {
        Ok(Self(token::Token::parse(text)?))
    }

    #[pyo3(signature = (roots, *, gate=None, now=None))]
    fn verify(
        &self,
        py: Python<'_>,
        roots: &Bound<'_, PyAny>,
        gate: Option<AgentId>,
        now: Option<u64>,
    ) -> Result<()> {
        let (roots, now) = (read_keys(roots)?, second(now)?);
        Ok(py.detach(|| self.0.verify(&roots, gate.as_ref().map(|id| &id.0), now))?)
    }

    #[pyo3(signature = (action, resource, args=None))]
    fn permits(
        &self,
        action: &str,
        resource: &str,
        args: Option<&Bound<'_, PyAny>>,
    ) -> Result<bool> {
        let resource = Resource::parse(resource)?;
        Ok(self.ask(action, &resource, args)?.is_ok())
    }

    #[pyo3(signature = (action, resource, args=None))]
    fn explain(
        &self,
        action: &str,
        resource: &str,
        args: Option<&Bound<'_, PyAny>>,
    ) -> Result<Option<String>> {
        let resource = Resource::parse(resource)?;
        Ok(self.ask(action, &resource, args)?.err().map(|error| error.to_string()))
    }

    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.leaf()?.id()))
    }

    #[getter]
    fn links<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let links = self.0.links().iter().map(|link| Bound::new(py, Link(link.clone())));
        PyTuple::new(py, links.collect::<PyResult<Vec<_>>>()?)
    }

    #[getter]
    fn root(&self) -> Result<AgentId> {
        let first = self.0.links().first();
        Ok(AgentId(first.map_or(self.0.leaf()?.claims().issuer, |link| link.claims().issuer)))
    }

    #[getter]
    fn holder(&self) -> Result<AgentId> {
        Ok(AgentId(self.0.leaf()?.claims().holder))
    }

    #[getter]
    fn limits(&self) -> Limits {
        Limits(self.0.limits())
    }

    #[getter]
    fn allow<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyTuple>> {
        Ok(grants(py, self.0.leaf()?.claims().caveats.allow())?)
    }

    #[getter]
    fn deny<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyTuple>> {
        Ok(denials(py, self.0.leaf()?.claims().caveats.deny())?)
    }

    #[getter]
    fn attestations<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyTuple>> {
        Ok(requirements(py, self.0.leaf()?.claims().caveats.attestations())?)
    }

    #[getter]
    fn expires(&self) -> u64 {
        self.0.expires()
    }

    #[getter]
    fn depth(&self) -> Result<u64> {
        Ok(self.0.leaf()?.claims().caveats.depth)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __str__(&self) -> String {
        self.0.to_text()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0.as_bytes() == self.0.as_bytes())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.as_bytes())
    }

    fn __repr__(&self) -> Result<String> {
        let leaf = self.0.leaf()?.claims();
        let links = self.0.links().len();
        Ok(format!("Token({links} links, holder={}, expires={})", leaf.holder, self.0.expires()))
    }
}

impl Token {
    fn ask(
        &self,
        action: &str,
        resource: &Resource,
        args: Option<&Bound<'_, PyAny>>,
    ) -> Result<moat_core::Result<()>> {
        let no_args = match args {
            None => true,
            some => json_args(some)? == NONE,
        };
        Ok(self.0.permits(&Request::new(action, resource, no_args)))
    }
}
