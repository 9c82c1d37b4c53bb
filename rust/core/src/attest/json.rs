//! JSON that others wrote: any spelling, but no name twice in an object, and bounded nesting.
//!
//! Two readers of one document must see the same, and a name that stands twice is where they
//! differ (RFC 8259 §4).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::limits;

/// Reads one object and nothing after it.
pub(super) fn object(bytes: &[u8], what: &str) -> Result<Map<String, Value>> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict(1).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::malformed(format!("{what} is not a JSON object"))),
        Err(error) => Err(Error::malformed(format!("{what} is not JSON: {error}"))),
    }
}

/// A member that is text.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    object.get(name).and_then(Value::as_str).ok_or_else(|| wrong(name, "text"))
}

/// A member that is an array.
pub(super) fn array<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a [Value]> {
    let found = object.get(name).and_then(Value::as_array);
    found.map(Vec::as_slice).ok_or_else(|| wrong(name, "an array"))
}

/// A member that is an object.
pub(super) fn member<'a>(
    object: &'a Map<String, Value>,
    name: &str,
) -> Result<&'a Map<String, Value>> {
    object.get(name).and_then(Value::as_object).ok_or_else(|| wrong(name, "an object"))
}

pub(super) fn wrong(name: &str, expected: &str) -> Error {
    Error::malformed(format!("`{name}` is missing or not {expected}"))
}

/// Reads a value that lies this deep.
#[derive(Clone, Copy)]
struct Strict(usize);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> std::result::Result<Value, D::Error> {
        if self.0 > limits::ARGS_NESTING {
            return Err(D::Error::custom("it nests deeper than 32"));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(Self(self.0 + 1))? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self(self.0 + 1))?;
            if all.contains_key(&name) {
                let name = name.escape_debug();
                return Err(A::Error::custom(format!("`{name}` stands twice")));
            }
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}
