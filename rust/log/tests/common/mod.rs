//! A folder, a gate and a state that remembers every entry.
#![allow(clippy::unwrap_used, dead_code, reason = "tests")]

use std::path::{Path, PathBuf};

use moat_core::Error;
use moat_core::key::Identity;
use moat_log::{Entry, Fold, LogError, Options, Report, Store, Trust, verify};

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
}

impl Seen {
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|entry| entry.2.as_str()).collect()
    }

    pub(crate) fn bodies(&self, kind: &str) -> Vec<&str> {
        self.0.iter().filter(|entry| entry.2 == kind).map(|entry| entry.3.as_str()).collect()
    }
}

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
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
        verify(&self.log(), &trust, |_| ())
    }

    pub(crate) fn verify_alone(&self) -> Result<Report, LogError> {
        let trust = Trust { log: gate().id(), anchor: None, key: None };
        verify(&self.log(), &trust, |_| ())
    }

    /// A closed log with the opening line and this many notes.
    pub(crate) fn with_notes(count: u64) -> Self {
        let place = Self::new();
        let store = place.open().unwrap();
        notes(&store, 0..count);
        store.close().unwrap();
        place
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

pub(crate) fn entry(n: u64) -> Entry {
    Entry { kind: "note", body: format!("{{\"n\":{n}}}").into_bytes() }
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
