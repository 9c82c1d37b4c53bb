//! Instances in slots: nothing is left in one for the next guest, many fit, and what does not fit
//! runs all the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use moat_sandbox::{Bounds, Engine, Input, Interrupt, Module, Status};
use support::{go, plenty};

fn load(engine: &Engine, text: &str) -> Module {
    engine.load(&wat::parse_str(text).unwrap(), None).unwrap()
}

/// Fills 20 pages that it starts with, and 80 that it asks for, and a table of 4,000 elements.
const DIRTY: &str = r#"(module
    (memory (export "memory") 20)
    (table $t 1000 funcref)
    (elem declare func $f)
    (func $f)
    (func (export "_start")
        (drop (memory.grow (i32.const 80)))
        (memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 6553600))
        (drop (table.grow $t (ref.func $f) (i32.const 3000)))
        (table.fill $t (i32.const 0) (ref.func $f) (i32.const 4000))))"#;

/// Traps where any byte of 100 pages, or any of 4,000 elements, is not empty.
fn clean(pages: u32, elements: u32) -> String {
    format!(
        r#"(module
        (memory (export "memory") {pages})
        (table $t {elements} funcref)
        (func (export "_start") (local $at i32)
            (drop (memory.grow (i32.const {more_pages})))
            (drop (table.grow $t (ref.null func) (i32.const {more_elements})))
            (loop $bytes
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $bytes (i32.lt_u (local.get $at) (i32.const 6553600))))
            (local.set $at (i32.const 0))
            (loop $elements
                (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $elements (i32.lt_u (local.get $at) (i32.const 4000))))))"#,
        more_pages = 100 - pages,
        more_elements = 4000 - elements,
    )
}

#[test]
fn a_slot_is_empty_for_the_next_guest() {
    let engine = Engine::new().unwrap();
    let dirty = load(&engine, DIRTY);
    let clean = [(1, 0), (20, 1000), (100, 4000)].map(|(a, b)| load(&engine, &clean(a, b)));
    for turn in 0..30 {
        assert_eq!(go(&engine, &dirty, &plenty()).status, Status::Ok);
        for (number, module) in clean.iter().enumerate() {
            assert_eq!(go(&engine, module, &plenty()).status, Status::Ok, "{turn} {number}");
        }
    }
}

/// The initial contents of a module's memory, whoever had the slot before, even the same module.
#[test]
fn a_module_finds_its_own_data_as_it_was_written() {
    let engine = Engine::new().unwrap();
    let own = load(
        &engine,
        r#"(module
            (memory (export "memory") 4)
            (data (i32.const 70000) "data")
            (func (export "_start")
                (if (i32.ne (i32.load (i32.const 70000)) (i32.const 0x61746164))
                    (then unreachable))
                (if (i32.load (i32.const 70004)) (then unreachable))
                (memory.fill (i32.const 0) (i32.const 0xbb) (i32.const 262144))))"#,
    );
    let dirty = load(&engine, DIRTY);
    for _ in 0..30 {
        for module in [&own, &own, &dirty] {
            assert_eq!(go(&engine, module, &plenty()).status, Status::Ok);
        }
    }
}

#[test]
fn what_fits_no_slot_runs_all_the_same() {
    let engine = Engine::new().unwrap();
    let memory = r#"(memory (export "memory") 1) (func (export "_start")"#;
    let tables = |count: usize| "(table 1 funcref)".repeat(count);
    // A table has a slot's bound without one too, so that a run ends the same way in either.
    let large = format!("(module (table 10000001 funcref) {memory}))");
    let bounds = Bounds { memory: 512 << 20, ..plenty() };
    let status = go(&engine, &load(&engine, &large), &bounds).status;
    assert!(matches!(&status, Status::Trap(why) if why.contains("table limits")), "{status:?}");
    let many = format!("(module {} {memory}))", tables(8));
    assert_eq!(go(&engine, &load(&engine, &many), &plenty()).status, Status::Ok);
    // Over what one guest may have anyway.
    let most = format!("(module {} {memory}))", tables(80));
    let status = go(&engine, &load(&engine, &most), &plenty()).status;
    assert!(matches!(&status, Status::Trap(why) if why.contains("table count")), "{status:?}");
    // Memory is the token's, up to what 32 bits reach.
    let big = format!("(module {memory} (drop (memory.grow (i32.const 49152)))))");
    let bounds = Bounds { memory: 4 << 30, ..plenty() };
    let outcome = go(&engine, &load(&engine, &big), &bounds);
    assert_eq!((outcome.status, outcome.memory_peak), (Status::Ok, (3 << 30) + (64 << 10)));
}

/// More guests than there are slots: those that find none wait, on their own time, and start when
/// others have ended. Nobody panics.
#[test]
fn more_guests_than_slots_wait_for_one() {
    const GUESTS: usize = 1100;
    let engine = Engine::new().unwrap();
    let sleeper = support::wat(&engine, "sleep");
    let empty = support::wat(&engine, "empty");
    let stop = Interrupt::new();
    let started = Arc::new(Barrier::new(GUESTS + 1));
    thread::scope(|scope| {
        let mut guests = Vec::new();
        for _ in 0..GUESTS {
            let (engine, sleeper, stop) = (&engine, &sleeper, &stop);
            let started = Arc::clone(&started);
            let work = move || {
                started.wait();
                let bounds = Bounds { time: Duration::from_secs(600), ..plenty() };
                engine.run(sleeper, &bounds, &Input::default(), Some(stop)).unwrap().status
            };
            let thread = thread::Builder::new().stack_size(256 << 10);
            guests.push(thread.spawn_scoped(scope, work).unwrap());
        }
        started.wait();
        // In the end all slots are taken by those who sleep, and nobody else starts.
        let short = Bounds { time: Duration::from_millis(20), ..plenty() };
        let full = (0..100_000).any(|_| go(&engine, &empty, &short).status == Status::TimedOut);
        assert!(full, "there is no end to the slots");
        stop.interrupt();
        for guest in guests {
            assert_eq!(guest.join().unwrap(), Status::Interrupted);
        }
    });
    assert_eq!(go(&engine, &empty, &plenty()).status, Status::Ok);
}
