//! A scanner for the body of a line: one JSON object in the spelling of RFC 8785, without
//! floating point. It allocates nothing. Order and repetition of keys are not its concern.

use crate::limits::LINE_NESTING;

/// What is wrong, for a person.
type Wrong = &'static str;

const CUT: Wrong = "the body ends too early";

/// Scans the object that `bytes` start with and gives its length.
///
/// `bytes` are valid UTF-8: the caller has looked.
pub(super) fn object(bytes: &[u8]) -> Result<usize, Wrong> {
    if bytes.first() != Some(&b'{') {
        return Err("the body is not an object");
    }
    // One bit for each open bracket, the innermost lowest: is it an array?
    let (mut arrays, mut depth, mut at) = (0_u64, 0_u32, 0_usize);
    loop {
        // A value starts here.
        let opened = match bytes.get(at).ok_or(CUT)? {
            b'"' => {
                at = string(bytes, at + 1)?;
                false
            }
            open @ (b'{' | b'[') => {
                if depth == LINE_NESTING {
                    return Err("the body is nested too deep");
                }
                depth += 1;
                arrays = arrays << 1 | u64::from(*open == b'[');
                at += 1;
                true
            }
            b'-' | b'0'..=b'9' => {
                at = integer(bytes, at)?;
                false
            }
            _ => {
                at = word(bytes, at)?;
                false
            }
        };
        // After a value, or just inside a bracket: close what closes, then find the next value.
        let mut first = opened;
        loop {
            let array = arrays & 1 == 1;
            match bytes.get(at).ok_or(CUT)? {
                b']' if array => (),
                b'}' if !array => (),
                b',' if !first => {
                    at += 1;
                    break;
                }
                _ if first => break,
                _ => return Err("the body has something else than a comma or a bracket"),
            }
            at += 1;
            depth -= 1;
            arrays >>= 1;
            first = false;
            if depth == 0 {
                return Ok(at);
            }
        }
        if arrays & 1 == 0 {
            at = key(bytes, at)?;
        }
    }
}

/// A key and its colon; gives where the value starts.
fn key(bytes: &[u8], at: usize) -> Result<usize, Wrong> {
    if bytes.get(at) != Some(&b'"') {
        return Err("the body has a key that is not a string");
    }
    let end = string(bytes, at + 1)?;
    match bytes.get(end) {
        Some(b':') => Ok(end + 1),
        _ => Err("the body has a key without a colon"),
    }
}

/// The rest of a string whose first character is at `at`; gives where it has ended.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, Wrong> {
    loop {
        let rest = bytes.get(at..).ok_or(CUT)?;
        at += plain(rest);
        match bytes.get(at).ok_or(CUT)? {
            b'"' => return Ok(at + 1),
            b'\\' => at = escape(bytes, at + 1)?,
            _ => return Err("the body has a control character"),
        }
    }
}

/// How many bytes there are before a quote, a backslash or a control character. Eight at a time:
/// a byte equal to `c` is zero in `word ^ c`, and a byte below `n` borrows when `n` is taken from
/// it. The lowest mark is exact; those above it may come from its borrow.
fn plain(bytes: &[u8]) -> usize {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let below = |word: u64, n: u64| word.wrapping_sub(LOW * n) & !word & HIGH;
    let (words, tail) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hit = below(word ^ (LOW * 0x22), 1) | below(word ^ (LOW * 0x5c), 1) | below(word, 0x20);
        if hit != 0 {
            return n * 8 + hit.trailing_zeros() as usize / 8;
        }
    }
    let found = tail.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
    bytes.len() - tail.len() + found.unwrap_or(tail.len())
}

/// What follows a backslash. RFC 8785 §3.2.2.2 leaves one spelling of each character.
fn escape(bytes: &[u8], at: usize) -> Result<usize, Wrong> {
    let rest = bytes.get(at..).ok_or(CUT)?;
    match rest {
        [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Ok(at + 1),
        // The five controls with a short form are not spelt by number.
        [b'u', b'0', b'0', b'0', b'8' | b'9' | b'a' | b'c' | b'd', ..] => {
            Err("the body has an escape with a shorter spelling")
        }
        [b'u', b'0', b'0', b'0' | b'1', b'0'..=b'9' | b'a'..=b'f', ..] => Ok(at + 5),
        _ => Err("the body has an escape that is not canonical"),
    }
}

/// An integer from -2^63 to 2^64 - 1; gives where it has ended.
fn integer(bytes: &[u8], start: usize) -> Result<usize, Wrong> {
    const LARGE: Wrong = "the body has a number beyond 64 bits";
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let (mut at, mut value) = (first, 0_u64);
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        let more = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
        value = more.ok_or(LARGE)?;
        at += 1;
    }
    let padded = bytes.get(first) == Some(&b'0') && (negative || at > first + 1);
    if at == first || padded || matches!(bytes.get(at), Some(b'.' | b'e' | b'E')) {
        return Err("the body has a number that is not a canonical integer");
    }
    if negative && value > i64::MIN.unsigned_abs() { Err(LARGE) } else { Ok(at) }
}

/// `true`, `false` or `null`; gives where it has ended.
fn word(bytes: &[u8], at: usize) -> Result<usize, Wrong> {
    let rest = bytes.get(at..).ok_or(CUT)?;
    for word in ["true", "false", "null"] {
        if rest.starts_with(word.as_bytes()) {
            return Ok(at + word.len());
        }
    }
    Err("the body has something that is not a value")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;
    use serde_json::Value;

    use super::object;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[\\x00-\\x7f]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 6, |inner| {
            let map = prop::collection::btree_map("[\\x00-\\x7f]{0,6}", inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                map.prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn accepts(text: &str) -> bool {
        object(text.as_bytes()) == Ok(text.len())
    }

    proptest! {
        #[test]
        fn what_a_canonical_writer_makes_is_accepted(value in value()) {
            let text = serde_json::json!({ "v": value }).to_string();
            prop_assert!(accepts(&text), "{text}");
            prop_assert_eq!(object(format!("{text}}}").as_bytes()), Ok(text.len()));
        }

        #[test]
        fn what_is_accepted_is_json_and_is_written_the_same(
            text in "\\{\"a\":[\\[\\]{}\",:0-9a-z\\\\. -]{0,12}\\}"
        ) {
            if accepts(&text) {
                let value: Value = serde_json::from_str(&text).unwrap();
                // A repeated key is the one thing that reading and writing would drop.
                if !text[1..].contains(",\"") {
                    prop_assert_eq!(value.to_string(), text);
                }
            }
        }

        #[test]
        fn any_single_change_of_a_byte_leaves_json_or_is_refused(
            value in value(), at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f
        ) {
            let mut text = serde_json::json!({ "v": value }).to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            let Ok(text) = String::from_utf8(text) else { return Ok(()) };
            if accepts(&text) {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            "",
            "{",
            "[]",
            "1",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1]",
            "{\"a\": 1}",
            "{ }",
            "{\"a\":01}",
            "{\"a\":-0}",
            "{\"a\":-}",
            "{\"a\":1.0}",
            "{\"a\":1e3}",
            "{\"a\":18446744073709551616}",
            "{\"a\":-9223372036854775809}",
            "{\"a\":99999999999999999999999999}",
            "{\"a\":\"\\/\"}",
            "{\"a\":\"\\u0041\"}",
            "{\"a\":\"\\u000a\"}",
            "{\"a\":\"\\u001F\"}",
            "{\"a\":\"\\u001\"}",
            "{\"a\":\"\\\"}",
            "{\"a\":nul}",
            "{\"a\":True}",
            "{\"a\":[1 ,2]}",
            "{\"a\":[1,]}",
            "{a:1}",
            "{\"a\":[}]",
            "{\"a\"1}",
            "{1:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1\"b\":2}",
            "{\"a\":\"",
            "{\"a\":[",
            "{\"a\":\"\n\"}",
            "{\"a\":\"1234567\t\"}",
            "{\"a\":\"12345678901234567\0\"}",
            "{\"a\n\":1}",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        for good in [
            "{}",
            "{\"a\":0}",
            "{\"a\":-1}",
            "{\"a\":18446744073709551615}",
            "{\"a\":[]}",
            "{\"a\":[{},{}],\"b\":{\"c\":null}}",
            "{\"a\":\"\\u001f\\n\\\"\\\\\"}",
            "{\"\":\"ä€\"}",
        ] {
            assert!(accepts(good), "{good}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(accepts(&nested(31)));
        assert!(!accepts(&nested(32)));
        assert!(!accepts(&nested(5000)));
    }
}
