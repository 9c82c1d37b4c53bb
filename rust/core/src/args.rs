//! Arguments of a request: one JSON object in its only spelling (RFC 8785).

use serde_json::Value;

use crate::error::{Error, Reason, Result};
use crate::limits;

/// The canonical bytes of no arguments.
pub const NONE: &[u8] = b"{}";

/// Writes an object canonically, within the bounds of [`check`].
pub fn encode(value: &Value) -> Result<Vec<u8>> {
    // Before writing: RFC 8785 writes numbers as doubles, so 2^53 + 1 would come out as 2^53.
    check_value(value, 1)?;
    let bytes = serde_json_canonicalizer::to_vec(value)
        .map_err(|_| Error::malformed("the arguments have no canonical JSON (RFC 8785)"))?;
    check(&bytes)?;
    Ok(bytes)
}

/// Refuses what is not canonical: an object, at most 32 KiB, nesting 32, integers within ±2^53.
pub fn check(bytes: &[u8]) -> Result<()> {
    if bytes == NONE {
        return Ok(());
    }
    if bytes.len() > limits::ARGS_BYTES {
        let detail = format!("the arguments have {} bytes, at most 32 KiB", bytes.len());
        return Err(Error::new(Reason::TooLarge, detail));
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|_| Error::malformed("the arguments are not JSON"))?;
    if !value.is_object() {
        return Err(Error::malformed("the arguments are not a JSON object"));
    }
    check_value(&value, 1)?;
    match serde_json_canonicalizer::to_vec(&value) {
        Ok(canonical) if canonical == bytes => Ok(()),
        _ => Err(Error::malformed("the arguments are not canonical JSON (RFC 8785)")),
    }
}

fn check_value(value: &Value, nesting: usize) -> Result<()> {
    if nesting > limits::ARGS_NESTING {
        return Err(Error::new(Reason::TooLarge, "the arguments nest deeper than 32"));
    }
    match value {
        Value::Number(number) if is_large_integer(number) => {
            let detail = format!("the integer {number} is outside ±2^53; send it as text");
            Err(Error::malformed(detail))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, nesting + 1)),
        Value::Object(members) => {
            members.values().try_for_each(|member| check_value(member, nesting + 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Whether a number is written as an integer outside ±2^53. RFC 8785 writes doubles below 10^21
/// without an exponent, so those are integers too.
fn is_large_integer(number: &serde_json::Number) -> bool {
    let magnitude = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
    match (magnitude, number.as_f64()) {
        (Some(size), _) => size > limits::ARGS_INTEGER,
        (None, Some(double)) => {
            let size = double.abs();
            size > limits::ARGS_INTEGER as f64 && size < 1e21
        }
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_spelling_is_let_in() {
        for fine in
            ["{}", r#"{"a":1,"b":[true,null,"é"]}"#, r#"{"n":-9007199254740992}"#, r#"{"n":0.1}"#]
        {
            assert_eq!(check(fine.as_bytes()), Ok(()), "{fine}");
        }
        for bad in [
            "",
            "[]",
            "1",
            "{} ",
            "{ }",
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e2}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":9007199254740993}"#,
            r#"{"a":-0}"#,
            r#"{"a":NaN}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":"\ud800"}"#,
            r#"{"a":1}{}"#,
            r#"{"a":100000000000000000000}"#,
            r#"{"a":-9007199254740994}"#,
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn writing_never_changes_a_number() {
        for wide in [9_007_199_254_740_993_i64, -9_007_199_254_740_993, i64::MAX, i64::MIN] {
            assert!(encode(&serde_json::json!({ "n": wide })).is_err(), "{wide}");
        }
        assert!(encode(&serde_json::json!({ "n": 1e20 })).is_err());
        assert_eq!(encode(&serde_json::json!({ "n": 1e21 })).unwrap(), br#"{"n":1e+21}"#);
        let most = encode(&serde_json::json!({ "n": -9_007_199_254_740_992_i64 })).unwrap();
        assert_eq!(most, br#"{"n":-9007199254740992}"#);
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check(deep(31).as_bytes()), Ok(()));
        assert!(check(deep(32).as_bytes()).is_err());
        assert!(check(deep(10_000).as_bytes()).is_err());
        let long = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
        assert_eq!(check(long(limits::ARGS_BYTES).as_bytes()), Ok(()));
        assert!(check(long(limits::ARGS_BYTES + 1).as_bytes()).is_err());
    }
}
