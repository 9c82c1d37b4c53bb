//! Every byte of a log of a mebibyte is changed, one at a time, and each is found at its line.
//!
//! The lines before the changed one are as they were, so each reading starts at the line before
//! it, from the chain's state there; it is the reading that opening and `verify` do. It may use
//! two lines after the changed one and no more, so none after those can matter.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use moat_core::audit::{Chain, MacKey, OPEN};
use moat_core::key::Identity;

use crate::LogError;
use crate::folder::Folder;
use crate::scan::Replay;
use crate::segments::{Segments, Span, name};

/// A mebibyte takes minutes where nothing is optimized.
const SIZE: usize = if cfg!(debug_assertions) { 1 << 14 } else { 1 << 20 };
const NOW: u64 = 1_700_000_000;
/// Lines read at most: the changed one and two after it.
const WINDOW: usize = 3;

#[test]
fn every_changed_byte_is_found_at_its_line_with_the_key_and_without() {
    let log = Log::of(SIZE);
    assert!(log.bytes.len() >= SIZE && log.lines() > SIZE / 2048);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8));
    let flipped: usize = std::thread::scope(|scope| {
        let part = |from| {
            let log = &log;
            scope.spawn(move || {
                let desk = Desk::new();
                (from..log.lines()).step_by(threads).map(|n| desk.flip_all(log, n)).sum::<usize>()
            })
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    });
    assert_eq!(flipped, log.bytes.len(), "every byte, newlines too");
}

/// A log: its bytes, where each line starts (and the last one ends), and the chain before each.
struct Log {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    chains: Vec<Chain>,
    whole: Chain,
    key: MacKey,
}

impl Log {
    /// Lines of many lengths, the last of which reaches the size.
    fn of(size: usize) -> Self {
        let gate = Identity::from_seed("gate", &[7; 32]).unwrap();
        let key = MacKey::derive(&gate).unwrap();
        let mut whole = Chain::new(&gate.id());
        let (mut bytes, mut starts, mut chains) = (Vec::new(), Vec::new(), Vec::new());
        while bytes.len() < size {
            starts.push(bytes.len());
            chains.push(whole.clone());
            let n = whole.size();
            let text = "J*z\u{e9}\\n".repeat(usize::try_from(n * 7 % 60).unwrap());
            let body = match n {
                0 => whole.open_body(),
                _ => format!("{{\"n\":{n},\"at\":-{n},\"text\":\"{text}\",\"all\":[true,null]}}"),
            };
            let entry = (NOW + n / 9, if n == 0 { OPEN } else { "note" }, body.as_bytes());
            whole.append(&mut bytes, &key, entry, |_, _| ()).unwrap();
        }
        starts.push(bytes.len());
        Self { bytes, starts, chains, whole, key }
    }

    fn lines(&self) -> usize {
        self.chains.len()
    }
}

/// A folder with one file, which holds a few lines of the log.
struct Desk {
    place: tempfile::TempDir,
    folder: Folder,
}

impl Desk {
    /// In memory where the system has a place for that.
    fn new() -> Self {
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        Self { place, folder }
    }

    /// Changes every byte of one line, and counts them.
    fn flip_all(&self, log: &Log, n: usize) -> usize {
        let (first, end) = (log.starts[n], log.starts[(n + WINDOW).min(log.lines())]);
        let bytes = &log.bytes[first..end];
        let name = name(n as u64);
        std::fs::write(self.place.path().join(&name), bytes).unwrap();
        let file = OpenOptions::new().write(true).open(self.place.path().join(&name)).unwrap();
        let span = Span { first: n as u64, end: bytes.len() as u64 };
        let segments = Segments { folder: &self.folder, spans: vec![span] };
        let read = |key| read_all(Replay::new(log.chains[n].clone(), &segments, 0, key).unwrap());
        assert!(read(Some(&log.key)).is_ok() && read(None).is_ok(), "line {n} as it was");

        let line = log.starts[n + 1] - first;
        for (at, byte) in bytes[..line].iter().enumerate() {
            file.write_all_at(&[byte ^ 1 << (at % 8)], at as u64).unwrap();
            found(log, (n, at), true, &read(Some(&log.key)));
            found(log, (n, at), false, &read(None));
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
        std::fs::remove_file(self.place.path().join(name)).unwrap();
        line
    }
}

/// Reads to the end or to the first fault.
fn read_all(mut replay: Replay<'_>) -> Result<Chain, LogError> {
    while replay.step(|_, _| (), |_, _| Ok(()))? {}
    Ok(replay.chain)
}

/// The fault is at the line with the changed byte. Without the key the last two lines cannot be
/// told apart, and a changed last line shows in the signed root alone, or as an unfinished write.
fn found(log: &Log, (n, at): (usize, usize), keyed: bool, read: &Result<Chain, LogError>) {
    let last = log.lines() - 1;
    match read {
        Err(error) => {
            let index = usize::try_from(error.index().unwrap()).unwrap();
            let near = !keyed && n + 1 >= last && index == n + 1;
            assert!(index == n || near, "byte {at} of line {n}: {error}");
        }
        Ok(chain) => {
            let newline = at + 1 == log.starts[n + 1] - log.starts[n];
            assert!(n == last && (!keyed || newline), "byte {at} of line {n} is not found");
            let known = (chain.size(), chain.root());
            assert_ne!(known, (log.whole.size(), log.whole.root()), "byte {at} of line {n}");
        }
    }
}
