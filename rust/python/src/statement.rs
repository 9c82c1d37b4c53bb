//! Statements that are no requests: control, and registrations.

use std::time::Duration;

use moat_core::control::{self, Statement, Target, Verb};
use moat_core::registration::{self, Proof, Role};
use moat_core::{Error, Reason};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{given, hash, random, second, seconds};
use crate::fault::Result;
use crate::identity::{AgentId, Identity};

/// Seconds that a statement lives unless told otherwise.
const LIFE: Duration = Duration::from_secs(300);

/// An agent, or a link's id.
pub(crate) fn target(value: &Bound<'_, PyAny>) -> Result<Target> {
    if let Ok(agent) = value.cast::<AgentId>() {
        return Ok(Target::Agent(agent.get().0));
    }
    Ok(Target::Link(hash(given(value)?, "a link's id")?))
}

/// A signed statement that revokes, restores, suspends or resumes an agent or one link
/// (spec/message.md).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Control;

#[pymethods]
impl Control {
    #[staticmethod]
    #[pyo3(signature = (signer, verb, target, *, gate, expires_in=None, now=None, rng=None))]
    #[expect(clippy::too_many_arguments, reason = "one for each field of a statement")]
    fn sign<'py>(
        py: Python<'py>,
        signer: &Identity,
        verb: &str,
        target: &Bound<'py, PyAny>,
        gate: AgentId,
        expires_in: Option<Duration>,
        now: Option<u64>,
        rng: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyBytes>> {
        let issued = second(now)?;
        let life = life(expires_in)?;
        let statement = Statement {
            verb: Verb::parse(verb)?,
            target: self::target(target)?,
            gate: gate.0,
            signer: signer.0.id(),
            nonce: random(rng)?,
            issued,
            expires: issued.saturating_add(life),
        };
        Ok(PyBytes::new(py, &control::Control::sign(&signer.0, &statement)?))
    }
}

/// A key that registers under a name, signed by itself and by the key it replaces
/// (spec/registry.md).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Registration;

#[pymethods]
impl Registration {
    #[staticmethod]
    #[pyo3(signature = (identity, name, *, gate, previous=None, role="agent", expires_in=None,
                        now=None, rng=None))]
    #[expect(clippy::too_many_arguments, reason = "one for each field of a registration")]
    fn sign<'py>(
        py: Python<'py>,
        identity: &Identity,
        name: &str,
        gate: AgentId,
        previous: Option<&Identity>,
        role: &str,
        expires_in: Option<Duration>,
        now: Option<u64>,
        rng: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyBytes>> {
        let issued = second(now)?;
        let registration = registration::Registration {
            role: Role::parse(role)?,
            name: name.to_owned(),
            gate: gate.0,
            key: identity.0.id(),
            previous: previous.map(|previous| previous.0.id()),
            nonce: random(rng)?,
            issued,
            expires: issued.saturating_add(life(expires_in)?),
        };
        let proof = Proof::sign(&registration, &identity.0, previous.map(|previous| &previous.0));
        Ok(PyBytes::new(py, &proof?))
    }
}

/// Seconds that a statement is to live.
fn life(expires_in: Option<Duration>) -> Result<u64> {
    let life = seconds(expires_in.unwrap_or(LIFE))?;
    if life > moat_core::limits::CONTROL_SECONDS {
        return Err(Error::new(Reason::Malformed, "a statement lives at most an hour").into());
    }
    Ok(life)
}
