//! What a gate's log takes over from that of the key before it, as bodies of its first lines.

use super::is_hex;
use super::line::number;
use super::snapshot::{Draft, after, fill, item, list};
use crate::error::{Error, Result};
use crate::key::{AgentId, Hash256};
use crate::limits::ARGS_INTEGER;

/// The kind of the lines after the first of a log that goes on after another.
pub const INHERITED: &str = "inherited";

/// The log that another one goes on after, at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// The gate whose log it is.
    pub gate: AgentId,
    /// How many entries it has.
    pub entries: u64,
    /// The root of its Merkle tree over all of them.
    pub root: Hash256,
}

/// One part of what was inherited, borrowed from the body of its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedPart<'a> {
    /// Its number, from 0; the part's line is this many lines after the log's second.
    pub part: u64,
    /// How many parts there are.
    pub of: u64,
    /// Whose state it is, and when.
    pub former: Former,
    /// Items of the state, each one canonical JSON object.
    pub items: Vec<&'a [u8]>,
}

impl<'a> InheritedPart<'a> {
    /// Reads the body of a line; its JSON was checked when the line was read.
    ///
    /// Errors: `malformed` for another spelling than that of [`inherited_parts`].
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let (part, rest) = number(after(body, b"{\"part\":")?, ARGS_INTEGER, "part")?;
        let (of, rest) = number(after(rest, b",\"of\":")?, ARGS_INTEGER, "of")?;
        let (gate, rest) = text(after(rest, b",\"gate\":\"")?)?;
        let (entries, rest) = number(after(rest, b",\"entries\":")?, ARGS_INTEGER, "entries")?;
        let (digits, rest) = text(after(rest, b",\"root\":\"")?)?;
        let (items, rest) = list(after(rest, b",\"items\":[")?, item)?;
        let mut root = [0; 32];
        if !is_hex(digits.as_bytes()) || hex::decode_to_slice(digits, &mut root).is_err() {
            return Err(wrong());
        }
        if part >= of || entries == 0 || rest != b"}" {
            return Err(wrong());
        }
        let gate = AgentId::parse_text(gate)?;
        Ok(Self { part, of, former: Former { gate, entries, root }, items })
    }
}

/// The bodies of the lines that say what was inherited, at least one.
///
/// Errors: as [`snapshot_parts`](super::snapshot_parts).
pub fn inherited_parts(former: &Former, items: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut drafts = vec![Draft::default()];
    fill(&mut drafts, items)?;
    let Former { gate, entries, root } = former;
    let (of, root) = (drafts.len(), hex::encode(root));
    let body = |(part, draft): (u64, &Draft)| {
        let head = format!(
            "{{\"part\":{part},\"of\":{of},\"gate\":\"{gate}\",\"entries\":{entries},\
             \"root\":\"{root}\",\"items\":["
        );
        [head.as_bytes(), &draft.items, b"]}"].concat()
    };
    Ok((0..).zip(&drafts).map(body).collect())
}

/// Text without escapes whose quote has been opened, and what follows its end.
fn text(rest: &[u8]) -> Result<(&str, &[u8])> {
    let end = rest.iter().position(|b| *b == b'"').ok_or_else(wrong)?;
    let (text, rest) = rest.split_at(end);
    Ok((std::str::from_utf8(text).map_err(|_| wrong())?, after(rest, b"\"")?))
}

fn wrong() -> Error {
    Error::malformed("the body is not a part of what was inherited")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::audit::json;
    use crate::key::Identity;
    use crate::limits::{LINE_BYTES, SNAPSHOT_ITEM_BYTES};

    fn former() -> Former {
        let gate = Identity::from_seed("gate", &[7; 32]).unwrap().id();
        Former { gate, entries: 3, root: [0xab; 32] }
    }

    fn item_of(bytes: usize) -> Vec<u8> {
        format!("{{\"a\":\"{}\"}}", "x".repeat(bytes.saturating_sub(8))).into_bytes()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            sizes in prop::collection::vec(8..SNAPSHOT_ITEM_BYTES, 0..12),
        ) {
            let items: Vec<_> = sizes.into_iter().map(item_of).collect();
            let bodies = inherited_parts(&former(), &items).unwrap();
            let parts: Vec<_> = bodies.iter().map(|b| InheritedPart::parse(b).unwrap()).collect();
            for (n, (part, body)) in parts.iter().zip(&bodies).enumerate() {
                prop_assert_eq!((part.part, part.of), (n as u64, bodies.len() as u64));
                prop_assert_eq!(part.former, former());
                prop_assert!(body.len() < LINE_BYTES - 400);
                prop_assert_eq!(json::object(body), Ok(body.len()));
            }
            let read = parts.iter().flat_map(|part| part.items.iter().map(|item| item.to_vec()));
            prop_assert_eq!(read.collect::<Vec<_>>(), items);
        }
    }

    #[test]
    fn other_spellings_of_the_former_log_are_refused() {
        let bodies = inherited_parts(&former(), &[b"{}".to_vec(), b"{}".to_vec()]).unwrap();
        let good = String::from_utf8(bodies.concat()).unwrap();
        assert_eq!(InheritedPart::parse(good.as_bytes()).unwrap().items, [b"{}", b"{}"]);
        for (from, to) in [
            ("did:key:z", "did:key:y"),
            ("did:key:z", "did:key:\\u007a"),
            ("\"entries\":3", "\"entries\":0"),
            ("\"entries\":3", "\"entries\":9007199254740993"),
            ("\"entries\":3,", ""),
            ("\"abab", "\"ABab"),
            ("\"abab", "\"ab"),
            ("\"abab", "\"ababab"),
            ("{}]", "{}],\"pruned\":0"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(InheritedPart::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
