//! Snapshots: what all lines before a segment add up to, as bodies of the segment's first lines.

use super::json;
use super::line::number;
use crate::error::{Error, Reason, Result};
use crate::key::Hash256;
use crate::limits::{ARGS_INTEGER, SNAPSHOT_ITEM_BYTES};

/// Bytes of the lists in one part: with what a body and a line add, below a line's limit.
const PART_BYTES: usize = 60_000;

/// One part of a snapshot, borrowed from the body of its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart<'a> {
    /// Its number, from 0; the part's line is this many lines after the segment's first.
    pub part: u64,
    /// How many parts there are.
    pub of: u64,
    /// The entries before this one may be missing: an entry `pruned` said so.
    pub pruned: u64,
    /// For each level of tiles, the hashes of the tile that is not full yet. The levels of all
    /// parts together, in their order, are those of the log.
    pub tree: Vec<Vec<Hash256>>,
    /// Items of the state, each one canonical JSON object.
    pub items: Vec<&'a [u8]>,
}

impl<'a> SnapshotPart<'a> {
    /// Reads the body of a line; its JSON was checked when the line was read.
    ///
    /// Errors: `malformed` for another spelling than that of [`snapshot_parts`].
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let (part, rest) = number(after(body, b"{\"part\":")?, ARGS_INTEGER, "part")?;
        let (of, rest) = number(after(rest, b",\"of\":")?, ARGS_INTEGER, "of")?;
        let (pruned, rest) = number(after(rest, b",\"pruned\":")?, ARGS_INTEGER, "pruned")?;
        let (tree, rest) = list(after(rest, b",\"tree\":[")?, level)?;
        let (items, rest) = list(after(rest, b",\"items\":[")?, item)?;
        if part >= of || rest != b"}" {
            return Err(wrong());
        }
        Ok(Self { part, of, pruned, tree, items })
    }
}

/// The bodies of the lines of a snapshot, at least one. `tree` has the hashes of the growing
/// tile of each level, `items` are those of the state.
///
/// Errors: `malformed` for an item that is not one canonical JSON object, `too_large` for one
/// beyond 48 KiB.
pub fn snapshot_parts(
    pruned: u64,
    tree: &[Vec<Hash256>],
    items: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>> {
    let mut drafts = vec![Draft::default()];
    for hashes in tree {
        let level = format!("\"{}\"", hex::encode(hashes.as_flattened()));
        Draft::with_room(&mut drafts, level.len()).add_level(level.as_bytes());
    }
    fill(&mut drafts, items)?;
    let of = drafts.len();
    Ok((0..).zip(&drafts).map(|(part, draft): (u64, _)| draft.body(part, of, pruned)).collect())
}

/// Puts items into drafts, each after those before it.
///
/// Errors: as [`snapshot_parts`].
pub(super) fn fill(drafts: &mut Vec<Draft>, items: &[Vec<u8>]) -> Result<()> {
    for item in items {
        if item.len() > SNAPSHOT_ITEM_BYTES {
            let detail = format!("an item of a snapshot has {} bytes", item.len());
            return Err(Error::new(Reason::TooLarge, detail));
        }
        if std::str::from_utf8(item).is_err() || json::object(item) != Ok(item.len()) {
            return Err(Error::malformed("an item of a snapshot is not one JSON object"));
        }
        Draft::with_room(drafts, item.len()).add_item(item);
    }
    Ok(())
}

/// A part that is being filled.
#[derive(Default)]
pub(super) struct Draft {
    tree: Vec<u8>,
    pub(super) items: Vec<u8>,
}

impl Draft {
    /// The last draft, or a new one when that has no room for so many bytes more.
    fn with_room(drafts: &mut Vec<Self>, bytes: usize) -> &mut Self {
        let full = |last: &Self| last.tree.len() + last.items.len() + bytes > PART_BYTES;
        let mut last = drafts.pop().unwrap_or_default();
        if full(&last) {
            drafts.push(std::mem::take(&mut last));
        }
        drafts.push_mut(last)
    }

    fn add_level(&mut self, level: &[u8]) {
        extend(&mut self.tree, level);
    }

    fn add_item(&mut self, item: &[u8]) {
        extend(&mut self.items, item);
    }

    fn body(&self, part: u64, of: usize, pruned: u64) -> Vec<u8> {
        let head = format!("{{\"part\":{part},\"of\":{of},\"pruned\":{pruned},\"tree\":[");
        [head.as_bytes(), &self.tree, b"],\"items\":[", &self.items, b"]}"].concat()
    }
}

fn extend(list: &mut Vec<u8>, element: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(element);
}

/// The elements of a list whose bracket has been opened, and what follows its end.
pub(super) fn list<'a, T>(
    mut rest: &'a [u8],
    element: impl Fn(&'a [u8]) -> Result<(T, &'a [u8])>,
) -> Result<(Vec<T>, &'a [u8])> {
    let mut all = Vec::new();
    if let [b']', rest @ ..] = rest {
        return Ok((all, rest));
    }
    loop {
        let (one, after) = element(rest)?;
        all.push(one);
        match after {
            [b',', more @ ..] => rest = more,
            [b']', end @ ..] => return Ok((all, end)),
            _ => return Err(wrong()),
        }
    }
}

/// Hashes in lower-case hexadecimal, one after the other, in quotes.
fn level(rest: &[u8]) -> Result<(Vec<Hash256>, &[u8])> {
    let rest = after(rest, b"\"")?;
    let end = rest.iter().position(|b| *b == b'"').ok_or_else(wrong)?;
    let (digits, rest) = rest.split_at(end);
    let (hashes, more) = digits.as_chunks::<64>();
    if !more.is_empty() || !super::is_hex(digits) {
        return Err(wrong());
    }
    let read = |digits: &[u8; 64]| {
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).map(|()| hash).map_err(|_| wrong())
    };
    Ok((hashes.iter().map(read).collect::<Result<_>>()?, after(rest, b"\"")?))
}

pub(super) fn item(rest: &[u8]) -> Result<(&[u8], &[u8])> {
    let size = json::object(rest).map_err(Error::malformed)?;
    rest.split_at_checked(size).ok_or_else(wrong)
}

pub(super) fn after<'a>(bytes: &'a [u8], prefix: &[u8]) -> Result<&'a [u8]> {
    bytes.strip_prefix(prefix).ok_or_else(wrong)
}

fn wrong() -> Error {
    Error::malformed("the body is not a part of a snapshot, or of what was inherited")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::limits::LINE_BYTES;

    fn item_of(bytes: usize) -> Vec<u8> {
        format!("{{\"a\":\"{}\"}}", "x".repeat(bytes.saturating_sub(8))).into_bytes()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            pruned in 0..1_u64 << 53,
            tree in prop::collection::vec(prop::collection::vec(any::<[u8; 32]>(), 0..256), 0..8),
            sizes in prop::collection::vec(8..SNAPSHOT_ITEM_BYTES, 0..12),
        ) {
            let items: Vec<_> = sizes.into_iter().map(item_of).collect();
            let bodies = snapshot_parts(pruned, &tree, &items).unwrap();
            let parts: Vec<_> = bodies.iter().map(|b| SnapshotPart::parse(b).unwrap()).collect();
            for (n, (part, body)) in parts.iter().zip(&bodies).enumerate() {
                prop_assert_eq!((part.part, part.of), (n as u64, bodies.len() as u64));
                prop_assert_eq!(part.pruned, pruned);
                prop_assert!(body.len() < LINE_BYTES - 400);
                prop_assert_eq!(json::object(body), Ok(body.len()));
            }
            let read = parts.iter().flat_map(|part| part.tree.clone());
            prop_assert_eq!(read.collect::<Vec<_>>(), tree);
            let read = parts.iter().flat_map(|part| part.items.iter().map(|item| item.to_vec()));
            prop_assert_eq!(read.collect::<Vec<_>>(), items);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = "{\"part\":0,\"of\":1,\"pruned\":0,\"tree\":[\"\"],\"items\":[{},{}]}";
        assert_eq!(SnapshotPart::parse(good.as_bytes()).unwrap().items, [b"{}", b"{}"]);
        for (from, to) in [
            ("\"part\":0", "\"part\":1"),
            ("\"part\":0,", ""),
            ("\"of\":1", "\"of\":0"),
            ("\"of\":1", "\"of\":01"),
            ("\"pruned\":0", "\"pruned\":-1"),
            ("\"pruned\":0", "\"pruned\":9007199254740993"),
            ("[\"\"]", "[\"0\"]"),
            ("[\"\"]", "[\"\",]"),
            ("[\"\"]", "[1]"),
            ("{},{}", "{},"),
            ("{},{}", "{}{}"),
            ("{},{}", "[]"),
            ("]}", "],\"more\":1}"),
            ("]}", "]"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(SnapshotPart::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let upper = good.replacen("\"\"", &format!("\"{}\"", "A".repeat(64)), 1);
        assert!(SnapshotPart::parse(upper.as_bytes()).is_err());
    }

    #[test]
    fn an_item_is_one_object_of_bounded_size() {
        for bad in ["", "{", "{},{}", "{} ", "[]", "{\"a\":1.5}", "1"] {
            assert!(snapshot_parts(0, &[], &[bad.into()]).is_err(), "{bad}");
        }
        assert!(snapshot_parts(0, &[], &[b"{\"a\":\"\xff\"}".to_vec()]).is_err());
        snapshot_parts(0, &[], &[item_of(SNAPSHOT_ITEM_BYTES)]).unwrap();
        let large = snapshot_parts(0, &[], &[item_of(SNAPSHOT_ITEM_BYTES + 1)]).unwrap_err();
        assert_eq!(large.reason, Reason::TooLarge);
    }
}
