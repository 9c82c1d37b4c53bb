//! Times, randomness and JSON between Python and the heart.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moat_core::caveat::{Actions, Args};
use moat_core::{Error, args};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

use crate::fault::{Fault, Result, internal};

/// The given second, or the system clock's.
pub(crate) fn second(now: Option<u64>) -> Result<u64> {
    if let Some(now) = now {
        return Ok(now);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|age| age.as_secs()).map_err(|_| internal("the system clock is before 1970"))
}

/// Where the time comes from when it is not given: the caller's clock or the system's.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Option<Py<PyAny>>>);

impl Clock {
    pub(crate) fn new(clock: Option<Py<PyAny>>) -> Self {
        Self(Arc::new(clock))
    }

    /// The second, asked from a thread that does not hold the interpreter's lock.
    pub(crate) fn now(&self) -> Result<u64> {
        match self.0.as_ref() {
            None => second(None),
            Some(_) => Python::attach(|py| self.second(py, None)),
        }
    }

    pub(crate) fn second(&self, py: Python<'_>, now: Option<u64>) -> Result<u64> {
        match (now, self.0.as_ref()) {
            (None, Some(clock)) => Ok(clock.call0(py)?.extract(py)?),
            (now, _) => second(now),
        }
    }
}

/// `n` random bytes, from the given source or the operating system's.
pub(crate) fn random<const N: usize>(rng: Option<&Bound<'_, PyAny>>) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match rng {
        None => getrandom::fill(&mut bytes)
            .map_err(|_| internal("the operating system gave no randomness"))?,
        Some(source) => {
            let drawn = source.call1((N,))?;
            let drawn = drawn.cast::<PyBytes>().map_err(PyErr::from)?;
            bytes = drawn
                .as_bytes()
                .try_into()
                .map_err(|_| Error::malformed(format!("rng gave other than {N} bytes")))?;
        }
    }
    Ok(bytes)
}

/// Whole seconds of a `timedelta`; fractions and nothing are refused.
pub(crate) fn seconds(span: Duration) -> Result<u64> {
    if span.subsec_nanos() == 0 && span.as_secs() > 0 {
        return Ok(span.as_secs());
    }
    Err(Error::malformed("a lifetime is a positive number of whole seconds").into())
}

/// Whole milliseconds of a `timedelta`.
pub(crate) fn milliseconds(span: Duration) -> Result<u64> {
    let whole = u64::try_from(span.as_millis()).ok();
    whole
        .filter(|_| span.subsec_nanos().is_multiple_of(1_000_000))
        .ok_or_else(|| Error::malformed("a time limit is in whole milliseconds").into())
}

/// A Unix second from an `int` or an aware `datetime`.
pub(crate) fn moment(value: &Bound<'_, PyAny>) -> Result<u64> {
    if let Ok(second) = value.extract::<u64>() {
        return Ok(second);
    }
    let wrong = || Error::malformed("a time is a Unix second or a datetime with a time zone");
    if value.getattr("tzinfo").map_err(|_| wrong())?.is_none() {
        return Err(wrong().into());
    }
    let stamp: f64 = value.call_method0("timestamp")?.extract()?;
    if !(0.0..=moat_core::limits::TIME_MAX as f64).contains(&stamp) {
        return Err(wrong().into());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    Ok(stamp.floor() as u64)
}

/// A value of a Python type, or its `TypeError`.
pub(crate) fn given<'a, 'py, T: FromPyObject<'a, 'py>>(
    value: &'a Bound<'py, PyAny>,
) -> PyResult<T> {
    value.extract().map_err(Into::into)
}

/// A hash of exactly 32 bytes.
pub(crate) fn hash(bytes: &[u8], what: &str) -> Result<[u8; 32]> {
    let size = bytes.len();
    bytes
        .try_into()
        .map_err(|_| Error::malformed(format!("{what} has {size} bytes, not 32")).into())
}

/// Names of actions.
pub(crate) fn actions(names: &Bound<'_, PyAny>) -> PyResult<Actions> {
    if names.is_instance_of::<PyString>() {
        let detail = "actions are a set of names; write {\"call\"}, not \"call\"";
        return Err(PyTypeError::new_err(detail));
    }
    let names = names.try_iter()?.map(|name| name?.extract::<String>());
    Actions::new(names.collect::<PyResult<Vec<_>>>()?).map_err(|error| Fault::Core(error).into())
}

/// The arguments of a grant: an empty mapping, or any (which the caller has looked for).
pub(crate) fn no_args(value: &Bound<'_, PyAny>) -> Result<Args> {
    if value.len()? == 0 {
        return Ok(Args::Empty);
    }
    Err(Error::malformed("argument constraints are not known to this version; use ANY or {}")
        .into())
}

/// Canonical JSON of a mapping; nothing is no arguments.
pub(crate) fn json_args(value: Option<&Bound<'_, PyAny>>) -> Result<Vec<u8>> {
    let Some(value) = value else { return Ok(args::NONE.to_vec()) };
    if !value.is_instance_of::<PyDict>() {
        return Err(PyTypeError::new_err("args is a dict with text keys").into());
    }
    Ok(args::encode(&to_json(value, 0)?)?)
}

fn to_json(value: &Bound<'_, PyAny>, nesting: usize) -> Result<Value> {
    if nesting > moat_core::limits::ARGS_NESTING {
        return Err(Error::malformed("the arguments nest deeper than 32").into());
    }
    if value.is_none() {
        Ok(Value::Null)
    } else if let Ok(flag) = value.cast::<PyBool>() {
        Ok(Value::Bool(flag.is_true()))
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(Value::String(plain(text)?))
    } else if value.is_instance_of::<PyInt>() {
        let number = value.extract::<i64>();
        let wide = |_| Error::malformed("an integer is outside ±2^53; send it as text");
        Ok(Value::Number(number.map_err(wide)?.into()))
    } else if value.is_instance_of::<PyFloat>() {
        let number = Number::from_f64(value.extract()?);
        number.map(Value::Number).ok_or_else(|| Error::malformed("a number is not finite").into())
    } else if let Ok(items) = value.cast::<PyList>() {
        let items = items.iter().map(|item| to_json(&item, nesting + 1));
        Ok(Value::Array(items.collect::<Result<_>>()?))
    } else if let Ok(items) = value.cast::<PyTuple>() {
        let items = items.iter().map(|item| to_json(&item, nesting + 1));
        Ok(Value::Array(items.collect::<Result<_>>()?))
    } else if let Ok(members) = value.cast::<PyDict>() {
        let mut object = Map::new();
        for (key, member) in members {
            let key = plain(key.cast::<PyString>().map_err(PyErr::from)?)?;
            object.insert(key, to_json(&member, nesting + 1)?);
        }
        Ok(Value::Object(object))
    } else {
        let kind = value.get_type();
        let kind = kind.name()?;
        let detail = format!("args hold JSON values; `{kind}` is none");
        Err(PyTypeError::new_err(detail).into())
    }
}

/// Text without lone surrogates, which no JSON in UTF-8 can carry.
fn plain(text: &Bound<'_, PyString>) -> Result<String> {
    let wrong = |_| Error::malformed("the arguments hold a lone surrogate, which is not text");
    Ok(text.to_str().map_err(wrong)?.to_owned())
}

/// Canonical JSON as Python values.
pub(crate) fn from_json<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>> {
    let text = PyBytes::new(py, bytes);
    Ok(py.import("json")?.call_method1("loads", (text,))?)
}
