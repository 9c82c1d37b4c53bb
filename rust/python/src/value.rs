//! Values of typed calls, between Python's and the sandbox's.

use moat_sandbox::Value;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple,
};

use crate::fault::exception;

/// Levels of a value; no type of a component has more.
const DEPTH: usize = 100;

/// Takes exactly the plain types: what merely behaves like one could change while it is read.
pub(crate) fn read(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    below(object, DEPTH)
}

fn below(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(malformed(object.py(), "the value is nested too deep; make it flatter"));
    };
    let all = |items: Vec<Bound<'_, PyAny>>| {
        items.iter().map(|item| below(item, depth)).collect::<PyResult<Vec<_>>>()
    };
    if object.is_none() {
        Ok(Value::Nothing)
    } else if let Ok(bool) = object.cast::<PyBool>() {
        Ok(Value::Bool(bool.is_true()))
    } else if object.is_instance_of::<PyInt>() {
        let wide = "an integer is wider than any type of a component; make it smaller";
        let int = object.extract().map_err(|_| malformed(object.py(), wide))?;
        Ok(Value::Int(int))
    } else if let Ok(float) = object.cast::<PyFloat>() {
        Ok(Value::Float(float.value()))
    } else if let Ok(text) = object.cast::<PyString>() {
        let lone = |_| malformed(object.py(), "a text holds half a character; use valid unicode");
        Ok(Value::Text(text.to_str().map_err(lone)?.to_owned()))
    } else if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
        Ok(Value::Bytes(object.extract()?))
    } else if let Ok(list) = object.cast::<PyList>() {
        Ok(Value::List(all(list.iter().collect())?))
    } else if let Ok(tuple) = object.cast::<PyTuple>() {
        Ok(Value::Tuple(all(tuple.iter().collect())?))
    } else if object.is_instance_of::<PySet>() || object.is_instance_of::<PyFrozenSet>() {
        Ok(Value::List(all(object.try_iter()?.collect::<PyResult<_>>()?)?))
    } else if let Ok(dict) = object.cast::<PyDict>() {
        let one = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let text = "a field's name is no text; use strings";
            let name = name.extract::<String>().map_err(|_| malformed(object.py(), text))?;
            Ok((name, below(&value, depth)?))
        };
        Ok(Value::Fields(dict.iter().map(one).collect::<PyResult<_>>()?))
    } else {
        let class = object.get_type().name()?.to_string();
        let text = format!("a `{class}` cannot be passed; use plain values");
        Err(malformed(object.py(), &text))
    }
}

fn malformed(py: Python<'_>, text: &str) -> PyErr {
    exception(py, "MalformedInput", text)
}

pub(crate) fn write<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    let all =
        |items: &[Value]| items.iter().map(|item| write(py, item)).collect::<PyResult<Vec<_>>>();
    Ok(match value {
        Value::Nothing => py.None().into_bound(py),
        Value::Bool(bool) => PyBool::new(py, *bool).to_owned().into_any(),
        Value::Int(int) => int.into_pyobject(py)?.into_any(),
        Value::Float(float) => PyFloat::new(py, *float).into_any(),
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::List(items) => PyList::new(py, all(items)?)?.into_any(),
        Value::Tuple(items) => PyTuple::new(py, all(items)?)?.into_any(),
        Value::Fields(fields) => {
            let dict = PyDict::new(py);
            for (name, value) in fields {
                dict.set_item(name, write(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
