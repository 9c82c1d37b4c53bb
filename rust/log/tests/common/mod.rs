//! A folder, a gate and a state that remembers every entry.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, reason = "tests")]

use std::path::{Path, PathBuf};

use moat_core::Error;
use moat_core::key::{Identity, sha256};
use moat_log::{Fold, LogError, Options, Record, Report, SEGMENT_BYTES, Store, Trust, verify};
use serde_json::{Value, json};

pub(crate) const NOW: u64 = 1_700_000_000;

/// Every entry that was applied: index, time, kind, body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen(pub(crate) Vec<(u64, u64, String, String)>);

impl Fold for Seen {
    fn apply(&mut self, index: u64, time: u64, kind: &str, body: &[u8]) -> Result<(), Error> {
        if kind == "bad" {
            return Err(Error::malformed("a state does not like this kind"));
        }
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.0.push((index, time, kind.to_owned(), body));
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<Vec<u8>>, Error> {
        let item = |(index, time, kind, body): &(u64, u64, String, String)| {
            let item = json!({"index": index, "time": time, "kind": kind, "body": body});
            item.to_string().into_bytes()
        };
        Ok(self.0.iter().map(item).collect())
    }

    fn restore(&mut self, item: &[u8]) -> Result<(), Error> {
        let wrong = |_| Error::malformed("not an item of this state");
        let item: Value = serde_json::from_slice(item).map_err(wrong)?;
        let text = |key: &str| item[key].as_str().unwrap().to_owned();
        let number = |key: &str| item[key].as_u64().unwrap();
        self.0.push((number("index"), number("time"), text("kind"), text("body")));
        Ok(())
    }
}

impl Seen {
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|entry| entry.2.as_str()).collect()
    }

    pub(crate) fn bodies(&self, kind: &str) -> Vec<&str> {
        self.0.iter().filter(|entry| entry.2 == kind).map(|entry| entry.3.as_str()).collect()
    }
}

/// A state of a size that notes do not change: a count and a hash of all entries, and an item
/// of 40 KiB for every entry `ballast`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) entries: u64,
    pub(crate) time: u64,
    digest: [u8; 32],
    ballast: usize,
}

impl Fold for Tally {
    fn apply(&mut self, index: u64, time: u64, kind: &str, body: &[u8]) -> Result<(), Error> {
        self.advance(time);
        let head = format!("{index} {time} {kind} ");
        self.digest = sha256(&[&self.digest, head.as_bytes(), body].concat());
        self.ballast += usize::from(kind == "ballast");
        self.entries += 1;
        Ok(())
    }

    fn advance(&mut self, now: u64) -> u64 {
        self.time = self.time.max(now);
        self.time
    }

    fn snapshot(&self) -> Result<Vec<Vec<u8>>, Error> {
        let digest = self.digest.to_vec();
        let mut items = vec![json!({"entries": self.entries, "time": self.time, "d": digest})];
        items.extend((0..self.ballast).map(|n| json!({"ballast": n, "x": "x".repeat(40_000)})));
        Ok(items.iter().map(|item| item.to_string().into_bytes()).collect())
    }

    fn restore(&mut self, item: &[u8]) -> Result<(), Error> {
        let wrong = || Error::malformed("not an item of this state");
        let item: Value = serde_json::from_slice(item).map_err(|_| wrong())?;
        if item.get("ballast").is_some() {
            self.ballast += 1;
            return Ok(());
        }
        let number = |key: &str| item[key].as_u64().ok_or_else(wrong);
        (self.entries, self.time) = (number("entries")?, number("time")?);
        let bytes = item["d"].as_array().ok_or_else(wrong)?.iter();
        let bytes = bytes.map(|b| b.as_u64().and_then(|b| u8::try_from(b).ok()));
        let bytes: Option<Vec<u8>> = bytes.collect();
        self.digest = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
        Ok(())
    }
}

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// In memory where the system has a place for that.
    pub(crate) fn in_memory() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { folder: folder.unwrap() }
    }

    /// A copy of everything, the anchor included.
    pub(crate) fn copied(&self) -> Self {
        let copied = Self::in_memory();
        copy(self.folder.path(), copied.folder.path());
        copied
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn anchor(&self) -> PathBuf {
        self.folder.path().join("away/anchor")
    }

    pub(crate) fn segment(&self) -> PathBuf {
        self.log().join("seg/000000000000.jsonl")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.log().join("checkpoint")
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            folder: self.log(),
            gate: gate(),
            anchor: Some(self.anchor()),
            now: NOW,
            accept_restored: false,
            segment_bytes: SEGMENT_BYTES,
        }
    }

    pub(crate) fn open(&self) -> Result<Store<Seen>, LogError> {
        Store::open(self.options(), Seen::default())
    }

    pub(crate) fn open_alone(&self) -> Result<Store<Seen>, LogError> {
        Store::open(Options { anchor: None, ..self.options() }, Seen::default())
    }

    pub(crate) fn verify(&self) -> Result<Report, LogError> {
        let trust = Trust { log: gate().id(), anchor: Some(self.anchor()), key: None };
        verify(&self.log(), &trust, Seen::default, |_| ())
    }

    pub(crate) fn verify_alone(&self) -> Result<Report, LogError> {
        let trust = Trust { log: gate().id(), anchor: None, key: None };
        verify(&self.log(), &trust, Seen::default, |_| ())
    }

    /// A closed log with the opening line and this many notes.
    pub(crate) fn with_notes(count: u64) -> Self {
        let place = Self::new();
        let store = place.open().unwrap();
        notes(&store, 0..count);
        store.close().unwrap();
        place
    }

    /// The indices of the segments' first lines.
    pub(crate) fn firsts(&self) -> Vec<u64> {
        let names = std::fs::read_dir(self.log().join("seg")).unwrap();
        let first = |name: String| name.strip_suffix(".jsonl").unwrap().parse().unwrap();
        let mut firsts: Vec<u64> =
            names.map(|entry| first(entry.unwrap().file_name().into_string().unwrap())).collect();
        firsts.sort_unstable();
        firsts
    }

    pub(crate) fn segment_at(&self, first: u64) -> PathBuf {
        self.log().join(format!("seg/{first:012}.jsonl"))
    }

    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(self.segment()).unwrap();
        bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
    }

    pub(crate) fn set_lines(&self, lines: &[Vec<u8>]) {
        std::fs::write(self.segment(), lines.concat()).unwrap();
    }
}

pub(crate) fn gate() -> Identity {
    Identity::from_seed("gate", &[7; 32]).unwrap()
}

pub(crate) fn entry(n: u64) -> Record {
    Record::new("note", format!("{{\"n\":{n}}}").into_bytes())
}

pub(crate) fn note<F: Fold>(store: &Store<F>, n: u64) -> Result<u64, LogError> {
    store.commit(NOW, |_, out| out.push(entry(n))).map(|committed| committed.first)
}

pub(crate) fn notes<F: Fold>(store: &Store<F>, numbers: std::ops::Range<u64>) {
    for n in numbers {
        note(store, n).unwrap();
    }
}

/// Copies a folder with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
