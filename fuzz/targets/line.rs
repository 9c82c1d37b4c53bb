//! Lines of the log: one spelling, by another reader's account too; what is written is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_core::audit::{Chain, Line, MacKey};
use moat_core::limits::{LINE_BYTES, LINE_NESTING};
use moat_core::state::State;
use moat_fuzz::{NOW, world};

fuzz_target!(|data: &[u8]| {
    body(data);
    received(data);
    drafted(data);
});

/// The scanner takes exactly what serde_json reads and writes again byte for byte: an object
/// without floating point, nested no deeper than the limit.
fn body(bytes: &[u8]) {
    if bytes.len() > LINE_BYTES / 2 {
        return;
    }
    let mut chain = opened();
    let taken = chain.append(&mut Vec::new(), &key(), (NOW, "kind", bytes), |_, _| ()).is_ok();
    let depth = nesting(bytes);
    let canonical = bytes.first() == Some(&b'{') && rewritten(bytes).as_deref() == Some(bytes);
    assert_eq!(taken, canonical && depth <= LINE_NESTING as usize, "nested {depth}");
}

fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut from = serde_json::Deserializer::from_slice(bytes);
    serde_transcode::transcode(&mut from, &mut serde_json::Serializer::new(&mut out)).ok()?;
    from.end().ok()?;
    // Of the numbers, only a floating one has a point or an exponent outside of strings.
    let floating = outside_strings(bytes).any(|byte| matches!(byte, b'.' | b'E'))
        || outside_strings(bytes)
            .collect::<Vec<_>>()
            .windows(2)
            .any(|two| two[0].is_ascii_digit() && two[1] == b'e');
    (!floating).then_some(out)
}

fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in outside_strings(bytes) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => (),
        }
        most = most.max(depth);
    }
    most
}

fn outside_strings(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let (mut quoted, mut escaped) = (false, false);
    bytes.iter().copied().filter(move |byte| {
        let within = quoted || *byte == b'"';
        (quoted, escaped) = match (quoted, escaped, byte) {
            (true, true, _) => (true, false),
            (true, false, b'\\') => (true, true),
            (_, false, b'"') => (!quoted, false),
            (quoted, _, _) => (quoted, false),
        };
        !within
    })
}

/// Received lines, one after the other. Without the key the same lines come next as with it,
/// and those with the key among them.
fn received(bytes: &[u8]) {
    let (mut free, mut keyed) = (Chain::new(&world().log.id()), Chain::new(&world().log.id()));
    let mut state = State::default();
    for bytes in bytes.split(|byte| *byte == b'\n').take(16) {
        if let Ok(line) = Line::parse(bytes) {
            assert_eq!(line.bytes, bytes);
            // A body that does not read is refused, and does nothing worse.
            let _ = state.clone().apply(line.index, line.time, line.kind, line.body);
        }
        let before = keyed.root();
        match keyed.push(bytes, Some(&key()), |_, _| ()) {
            Ok(line) => {
                assert!(free.push(bytes, None, |_, _| ()).is_ok());
                assert_eq!(free.root(), keyed.root());
                let _ = state.apply(line.index, line.time, line.kind, line.body);
            }
            Err(_) => assert_eq!(keyed.root(), before, "a refused line changes the chain"),
        }
    }
}

/// Lines of `kind body`, which are written and then read.
fn drafted(bytes: &[u8]) {
    let (mut chain, mut out) = (opened(), Vec::new());
    let mut copy = chain.clone();
    let mut state = State::default();
    for (at, draft) in bytes.split(|byte| *byte == b'\n').take(16).enumerate() {
        let Some(space) = draft.iter().position(|byte| *byte == b' ') else { continue };
        let Ok(kind) = std::str::from_utf8(&draft[..space]) else { continue };
        let body = &draft[space + 1..];
        let start = out.len();
        let time = NOW + at as u64;
        match chain.append(&mut out, &key(), (time, kind, body), |_, _| ()) {
            Ok(written) => {
                let line = &out[start..out.len() - 1];
                let line = copy.push(line, Some(&key()), |_, _| ()).expect("a written line reads");
                assert_eq!((line.time, line.kind, line.body), (written, kind, body));
                assert_eq!(copy.root(), chain.root());
                let _ = state.apply(line.index, line.time, kind, body);
            }
            Err(_) => assert_eq!(out.len(), start, "a refused line leaves bytes behind"),
        }
    }
}

fn key() -> MacKey {
    static KEY: std::sync::OnceLock<MacKey> = std::sync::OnceLock::new();
    KEY.get_or_init(|| MacKey::derive(&world().log).expect("a key derives")).clone()
}

/// A log with its first line.
fn opened() -> Chain {
    let mut chain = Chain::new(&world().log.id());
    let body = chain.open_body();
    let line = (NOW, "open", body.as_bytes());
    chain.append(&mut Vec::new(), &key(), line, |_, _| ()).expect("a log opens");
    chain
}
