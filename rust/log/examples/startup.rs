//! What opening costs a gate as its log grows: writes a log of many segments, with a thousand
//! agents and twenty rules in the gate's state, and opens it.
//!
//! `cargo run --release -p moat-log --example startup -- [ENTRIES [FOLDER]]` prints one JSON
//! object for each tenth of the entries. Left out: 10,000,000 entries, and the folder for
//! temporary files (they take about 8 GB).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement stops at the first surprise and prints"
)]

use std::path::{Path, PathBuf};

use serde_json::json;

#[path = "../../../benches/history.rs"]
mod history;
#[path = "../../../benches/world.rs"]
mod world;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let entries: u64 = arguments.next().map_or(10_000_000, |text| text.parse().unwrap());
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).unwrap();
    let log = folder.path().join("log");
    let history = history::History::begin(log.clone(), world::identity(99));
    for tenth in 1..=10 {
        history.grow(entries / 10 * tenth);
        let (bytes, segments) = measure(&log.join("seg"));
        let seconds: Vec<_> = (0..3).map(|_| history.open() / 1e9).collect();
        let entries = entries / 10 * tenth;
        let found = json!({
            "entries": entries, "segments": segments, "bytes": bytes, "open_seconds": seconds
        });
        println!("{found}");
    }
}

fn measure(folder: &Path) -> (u64, usize) {
    let sizes = std::fs::read_dir(folder).unwrap();
    let sizes: Vec<_> = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    (sizes.iter().sum(), sizes.len())
}
