//! The gate and its log on real files: authorising, shared syncs, verification by a stranger.
//! `cargo bench -p moat-log --bench log` prints one JSON object a line; `benches/table.py` reads
//! them. Memory stands for the disk where there is `/dev/shm`, so that the CPU is what is seen;
//! syncs are measured where cargo builds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench stops at the first surprise and prints"
)]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use moat_core::audit::Line;
use moat_core::key::sha256;
use moat_core::monitor::Rules;
use moat_core::policy::Policy;
use moat_core::state::State;
use moat_core::token::Token;
use moat_log::{End, Fold, Gate, Options, Record, Store, Trust, verify};
use serde_json::json;
use tempfile::TempDir;

mod harness;
mod history;
mod world;

use harness::{batch, rounds};
use history::History;
use world::{NOW, chain, chain_of, heir, identity, request, seal, seal_by, signed};

/// Number of the gate's identity.
const GATE: u8 = 99;
/// Entries of the log of a gate: three segments, the last of them nearly full.
const ENTRIES: u64 = 340_000;
/// Messages decided together, and threads that decide at once.
const TOGETHER: usize = 64;

fn main() {
    authorize();
    first_sight();
    durable();
    verification();
    of_a_gate();
}

/// A folder in memory where the system has one.
fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// A gate and messages for it that were never seen.
struct World {
    gate: Gate,
    token: Token,
    links: u8,
    sealed: u64,
}

impl World {
    fn new(folder: &Path, links: u8) -> Self {
        let gate =
            Gate::open(&folder.join("log"), &identity(GATE), None, false, u64::MAX, NOW).unwrap();
        gate.arm(Policy::CHAIN_ONLY, vec![identity(0).id()], Vec::new(), Rules::default(), NOW)
            .unwrap();
        Self { gate, token: chain(links), links, sealed: 0 }
    }

    fn messages(&mut self, count: usize) -> Vec<Vec<u8>> {
        let numbers = self.sealed..self.sealed + count as u64;
        self.sealed = numbers.end;
        numbers.map(|number| seal(&self.gate.id(), &self.token, self.links, number)).collect()
    }

    fn decide(&self, wire: &[u8]) {
        assert!(self.gate.decide(black_box(wire), NOW).permit.is_some());
    }
}

/// Received bytes to permit, for a chain seen before, beside a raw verification: key from bytes,
/// then `verify_strict`.
fn authorize() {
    for links in [1, 8] {
        let folder = in_memory();
        let mut world = World::new(folder.path(), links);
        let wire = world.messages(1).remove(0);
        world.decide(&wire);
        let (signer, length) = (identity(1), signed(request(&wire, &world.token)));
        let texts = (0..16).map(|n| vec![n; length]);
        let texts: Vec<_> = texts.map(|text| (signer.sign(&text), text)).collect();
        let (id, mut turn) = (signer.id(), texts.iter().cycle());
        let mut ours = || {
            let wires = world.messages(8);
            let mut next = wires.iter();
            batch(8, || world.decide(next.next().unwrap()))
        };
        let mut raw = || {
            batch(8, || {
                let (signature, text) = turn.next().unwrap();
                black_box(&id).verify(text, signature).unwrap();
            })
        };
        rounds(harness::ROUNDS, &mut ours, &mut raw).print(&format!("authorize_depth_{links}"));
    }
}

/// The same for the first message on a chain whose links and holders are all new, beside as many
/// raw verifications as it has signatures.
fn first_sight() {
    for links in [3, 8] {
        let folder = in_memory();
        let world = World::new(folder.path(), 1);
        let mut drawn = 0_u64;
        let mut messages = || {
            let draw = |_| {
                drawn += 1;
                heir(drawn)
            };
            let heirs: Vec<_> = (0..links).map(draw).collect();
            let token = chain_of(&heirs);
            (seal_by(&heirs[links - 1], &world.gate.id(), &token, 0), token)
        };
        let (wire, token) = messages();
        let lengths = token.links().iter().map(|link| link.as_bytes().len());
        let lengths = lengths.chain([request(&wire, &token)]).map(signed);
        let signers = (1..).map(heir);
        let signed: Vec<_> = signers
            .zip(lengths)
            .map(|(signer, length)| (signer.id(), vec![3; length], signer))
            .map(|(id, text, signer)| (id, signer.sign(&text), text))
            .collect();
        let mut ours = || {
            let wires: Vec<_> = (0..4).map(|_| messages().0).collect();
            let mut next = wires.iter();
            batch(4, || world.decide(next.next().unwrap()))
        };
        let mut raw = || {
            batch(4, || {
                signed.iter().for_each(|(id, signature, text)| {
                    black_box(id).verify(text, signature).unwrap();
                });
            })
        };
        rounds(harness::ROUNDS, &mut ours, &mut raw).print(&format!("authorize_new_{links}"));
    }
}

/// What one sync costs one message, and its share where many wait for the same one.
fn durable() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = File::create(folder.path().join("sync")).unwrap();
    let mut sync = || {
        batch(8, || {
            file.write_all(&[b'x'; 1024]).unwrap();
            file.sync_data().unwrap();
        })
    };
    let times = rounds(31, &mut sync, &mut || 1.0);
    times.print("sync");

    let world = std::cell::RefCell::new(World::new(folder.path(), 1));
    let mut one_by_one = || {
        let wires = world.borrow_mut().messages(16);
        let mut next = wires.iter();
        batch(16, || world.borrow().decide(next.next().unwrap()))
    };
    let mut many = || {
        let wires = world.borrow_mut().messages(TOGETHER);
        let wires: Vec<_> = wires.iter().map(Vec::as_slice).collect();
        let answered = || world.borrow().gate.decide_many(&wires, NOW);
        batch(1, || assert!(answered().iter().all(|one| one.permit.is_some()))) / TOGETHER as f64
    };
    rounds(31, &mut many, &mut one_by_one).print("durable_many");
    let mut threads = || {
        let wires = world.borrow_mut().messages(TOGETHER * 8);
        at_once(&world.borrow().gate, &wires)
    };
    rounds(31, &mut threads, &mut one_by_one).print("durable_threads");
}

/// Nanoseconds an entry, with all threads deciding at once.
fn at_once(gate: &Gate, wires: &[Vec<u8>]) -> f64 {
    let ready = Barrier::new(TOGETHER + 1);
    std::thread::scope(|scope| {
        // Message n goes to thread n modulo 64, so no number falls out of the replay window.
        let threads: Vec<_> = (0..TOGETHER)
            .map(|own| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    for wire in wires.iter().skip(own).step_by(TOGETHER) {
                        assert!(gate.decide(wire, NOW).permit.is_some());
                    }
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        start.elapsed().as_secs_f64() * 1e9 / wires.len() as f64
    })
}

/// A state that takes every entry.
struct Anything;

impl Fold for Anything {
    fn apply(&mut self, _: u64, _: u64, _: &str, _: &[u8]) -> moat_core::Result<()> {
        Ok(())
    }

    fn snapshot(&self) -> moat_core::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> moat_core::Result<()> {
        Ok(())
    }
}

/// The bodies of a decision and its outcome, as a gate writes them.
fn bodies() -> [Record; 2] {
    let folder = in_memory();
    let mut world = World::new(folder.path(), 1);
    let wire = world.messages(1).remove(0);
    let permit = world.gate.decide(&wire, NOW).permit.unwrap();
    permit.open(NOW).unwrap();
    let (status, result) = ("ok".to_owned(), Some([7; 32]));
    let (fuel, detail) = (Some(12_345), None);
    let outcome = permit.close(End { status, result, fuel, detail, deterministic: false }, NOW);
    let body = |index| {
        let line = world.gate.read(index).unwrap();
        Line::parse(&line).unwrap().body.to_vec()
    };
    let (decision, outcome) = (body(permit.entry()), body(outcome.unwrap()));
    [Record::new("decision", decision), Record::new("outcome", outcome)]
}

fn log_of(folder: &Path, entries: usize) {
    let options = Options {
        folder: folder.join("log"),
        gate: identity(GATE),
        anchor: None,
        now: NOW,
        accept_restored: false,
        // One segment, whatever its length.
        segment_bytes: u64::MAX,
    };
    let store = Store::open(options, Anything).unwrap();
    let pair = bodies();
    for _ in 0..entries / 1000 {
        let all = (0..500).flat_map(|_| pair.clone());
        store.commit(NOW, |_, out| out.extend(all)).unwrap();
    }
    store.close().unwrap();
}

/// A whole verification beside SHA-256 of each line, and the memory that it needs.
fn verification() {
    let trust = Trust { log: identity(GATE).id(), anchor: None, key: None };
    for entries in [20_000, 200_000] {
        let folder = in_memory();
        // In a thread of its own, whose freed memory is not taken again below.
        std::thread::scope(|scope| scope.spawn(|| log_of(folder.path(), entries)).join().unwrap());
        let log = folder.path().join("log");
        let (before, mut most) = (resident(), 0);
        let report = verify(&log, &trust, || Anything, |_| most = most.max(resident())).unwrap();
        assert!(report.entries as usize > entries);
        let grown = most.saturating_sub(before);
        let name = format!("verify_memory_{entries}");
        println!("{}", json!({ "name": name, "bytes": grown, "log_bytes": report.bytes }));
        if entries < 200_000 {
            continue;
        }
        let bytes = fs::read(log.join("seg/000000000000.jsonl")).unwrap();
        let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
        let mut ours = || batch(1, || verify(&log, &trust, || Anything, |_| ()).unwrap());
        let mut raw = || batch(1, || lines.iter().fold(0, |sum, line| sum ^ sha256(line)[0]));
        rounds(15, &mut ours, &mut raw).print("log_verify");
    }
}

/// The log of a gate with many agents: verified with the gate's own state beside SHA-256 of each
/// line, and opened.
fn of_a_gate() {
    let folder = in_memory();
    let history = History::begin(folder.path().join("log"), identity(GATE));
    history.grow(ENTRIES);
    let trust = Trust { log: identity(GATE).id(), anchor: None, key: None };
    let log = folder.path().join("log");
    let read = |path: fs::DirEntry| fs::read(path.path()).unwrap();
    let segments: Vec<_> =
        fs::read_dir(log.join("seg")).unwrap().map(|it| read(it.unwrap())).collect();
    let lines: Vec<_> = segments.iter().flat_map(|it| it.split(|byte| *byte == b'\n')).collect();
    let report = verify(&log, &trust, State::default, |_| ()).unwrap();
    let (entries, bytes) = (report.entries, report.bytes);
    println!(
        "{}",
        json!({ "name": "history", "entries": entries, "segments": segments.len(), "of": bytes })
    );
    let mut ours = || batch(1, || verify(&log, &trust, State::default, |_| ()).unwrap());
    let mut raw = || batch(1, || lines.iter().fold(0, |sum, line| sum ^ sha256(line)[0]));
    rounds(7, &mut ours, &mut raw).print("verify_gate");
    rounds(7, &mut || history.open(), &mut raw).print("open_gate");
}

/// Resident memory, in bytes (`/proc/self/statm`, pages of 4 KiB); 0 where that is not told.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
