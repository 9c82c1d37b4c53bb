//! What opening costs as a log grows: writes a log of many segments, then opens it.
//!
//! `cargo run --release -p moat-log --example startup -- [ENTRIES [FOLDER]]` prints one JSON
//! object for each tenth of the entries. Left out: 10,000,000 entries, and memory where there is
//! `/dev/shm` (they take about 5 GB).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement stops at the first surprise and prints"
)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use moat_core::Result;
use moat_core::key::Identity;
use moat_log::{Entry, Fold, Options, SEGMENT_BYTES, Store};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;
/// Entries of one commit.
const TOGETHER: u64 = 1000;

/// The newest ten thousand entries of each kind, as a gate keeps streams and links.
#[derive(Default)]
struct Newest(std::collections::BTreeMap<u64, String>);

impl Fold for Newest {
    fn apply(&mut self, index: u64, _: u64, _: &str, body: &[u8]) -> Result<()> {
        let body: Value = serde_json::from_slice(body).unwrap();
        self.0.insert(index, body["digest"].as_str().unwrap_or_default().to_owned());
        if self.0.len() > 10_000 {
            self.0.pop_first();
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<Vec<u8>>> {
        let item = |(index, digest): (&u64, &String)| json!({ "i": index, "digest": digest });
        Ok(self.0.iter().map(|entry| item(entry).to_string().into_bytes()).collect())
    }

    fn restore(&mut self, item: &[u8]) -> Result<()> {
        let item: Value = serde_json::from_slice(item).unwrap();
        let digest = item["digest"].as_str().unwrap().to_owned();
        self.0.insert(item["i"].as_u64().unwrap(), digest);
        Ok(())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let entries: u64 = arguments.next().map_or(10_000_000, |text| text.parse().unwrap());
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let base = arguments.next().map_or(base, PathBuf::from);
    let folder = tempfile::tempdir_in(base).unwrap();
    let options = || Options {
        folder: folder.path().join("log"),
        gate: Identity::from_seed("gate", &[7; 32]).unwrap(),
        anchor: Some(folder.path().join("anchor")),
        now: NOW,
        accept_restored: false,
        segment_bytes: SEGMENT_BYTES,
    };
    for tenth in 1..=10 {
        let start = Instant::now();
        let store = Store::open(options(), Newest::default()).unwrap();
        let (opened, before) = (start.elapsed(), store.position().unwrap().0);
        while store.position().unwrap().0 < entries / 10 * tenth {
            store.commit(NOW, |_, out| out.extend((0..TOGETHER).map(entry))).unwrap();
        }
        store.close().unwrap();
        let (size, segments) = measure(&folder.path().join("log/seg"));
        let start = Instant::now();
        let store = Store::open(options(), Newest::default()).unwrap();
        let again = start.elapsed();
        println!(
            "{}",
            json!({
                "entries": store.position().unwrap().0,
                "segments": segments,
                "bytes": size,
                "open_seconds": again.as_secs_f64(),
                "before": { "entries": before, "open_seconds": opened.as_secs_f64() },
            })
        );
    }
}

/// About as long as the shorter of a gate's entries.
fn entry(n: u64) -> Entry {
    let digest = format!("{n:064x}");
    let body = json!({ "allow": true, "stage": "chain", "digest": digest, "number": n });
    Entry { kind: "decision", body: body.to_string().into_bytes() }
}

fn measure(folder: &Path) -> (u64, usize) {
    let sizes = std::fs::read_dir(folder).unwrap();
    let sizes: Vec<_> = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    (sizes.iter().sum(), sizes.len())
}
