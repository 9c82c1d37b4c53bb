//! Code that counts no fuel is other code: it runs where no fuel is named, and time stops it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use moat_core::caveat::UNMETERED;
use moat_sandbox::{Bounds, CodeCache, Engine, Input, Meter, Module, SandboxError, Source, Status};
use support::{go, guests, plenty};

fn bytes(name: &str) -> Vec<u8> {
    wat::parse_file(guests().join(format!("{name}.wat"))).unwrap()
}

fn load(engine: &Engine, wasm: &[u8], meter: Meter) -> Module {
    engine.load_from(wasm, None, Source { meter, ..Source::default() }).unwrap()
}

#[test]
fn code_without_a_meter_runs_under_no_number_of_fuel() {
    let engine = Engine::new().unwrap();
    let module = load(&engine, &bytes("empty"), Meter::Time);
    for fuel in [0, 1, 1_000_000_000, UNMETERED - 1, UNMETERED + 1, u64::MAX] {
        let bounds = Bounds { fuel, ..plenty() };
        let refused = engine.run(&module, &bounds, &Input::default(), None).unwrap_err();
        assert!(matches!(refused, SandboxError::Input(_)), "{fuel}: {refused}");
        assert!(refused.to_string().contains("without a meter"), "{refused}");
    }
    let outcome = go(&engine, &module, &Bounds { fuel: UNMETERED, ..plenty() });
    assert_eq!((outcome.status, outcome.fuel_used), (Status::Ok, UNMETERED));
}

#[test]
fn a_call_is_refused_as_a_run_is() {
    let engine = Engine::new().unwrap();
    let module = load(&engine, &bytes("typed"), Meter::Time);
    let (name, args) = ("nothing", moat_sandbox::Value::List(Vec::new()));
    let call = module.call(name, &args).unwrap();
    let ask = |fuel| engine.call(&call, &Bounds { fuel, ..plenty() }, &Input::default(), None);
    assert!(matches!(ask(UNMETERED - 1).unwrap_err(), SandboxError::Input(_)));
    let outcome = ask(UNMETERED).unwrap();
    assert_eq!((outcome.status, outcome.fuel_used), (Status::Ok, UNMETERED));
}

#[test]
fn code_with_a_meter_counts_where_it_need_not() {
    let engine = Engine::new().unwrap();
    let module = engine.load(&bytes("empty"), None).unwrap();
    assert_eq!((module.meter(), Meter::default()), (Meter::Fuel, Meter::Fuel));
    let counted = go(&engine, &module, &Bounds { fuel: 1_000, ..plenty() });
    let unmetered = go(&engine, &module, &Bounds { fuel: UNMETERED, ..plenty() });
    assert_eq!(counted.fuel_used, unmetered.fuel_used);
    assert!((1..1_000).contains(&counted.fuel_used));
}

#[test]
fn the_clock_stops_code_without_a_meter() {
    let engine = Engine::new().unwrap();
    // The other code has run before: each has a clock of its own.
    assert_eq!(
        go(&engine, &load(&engine, &bytes("empty"), Meter::Fuel), &plenty()).status,
        Status::Ok
    );
    let module = load(&engine, &bytes("spin"), Meter::Time);
    let bounds = Bounds { time: Duration::from_millis(50), ..plenty() };
    let outcome = go(&engine, &module, &bounds);
    assert_eq!((outcome.status, outcome.fuel_used), (Status::TimedOut, UNMETERED));
    assert!(outcome.elapsed < Duration::from_secs(10), "{:?}", outcome.elapsed);
}

#[test]
fn guests_of_both_kinds_run_side_by_side() {
    let engine = Engine::new().unwrap();
    let spins = [Meter::Fuel, Meter::Time].map(|meter| load(&engine, &bytes("spin"), meter));
    let bounds = Bounds { time: Duration::from_millis(100), ..plenty() };
    thread::scope(|scope| {
        let run = |module| {
            let (engine, bounds) = (&engine, &bounds);
            scope.spawn(move || go(engine, module, bounds).status)
        };
        for running in [0, 1, 0, 1].map(|at| run(spins.get(at).unwrap())) {
            assert_eq!(running.join().unwrap(), Status::TimedOut);
        }
    });
}

#[test]
fn a_run_without_a_meter_is_not_repeatable() {
    let engine = Engine::new().unwrap();
    let module = load(&engine, &bytes("empty"), Meter::Time);
    let input = Input { seed: Some([1; 32]), ..Input::default() };
    let refused = engine.run(&module, &plenty(), &input, None).unwrap_err();
    assert!(refused.to_string().contains("deterministic"), "{refused}");
}

#[test]
fn neither_kind_of_code_is_found_for_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let cache = CodeCache::open(&folder.path().join("code"), &[3; 32]).unwrap();
    let wasm = bytes("empty");
    let ask = |engine: &Engine, meter| {
        let source = Source { cache: Some(&cache), meter, ..Source::default() };
        let module = engine.load_from(&wasm, None, source).unwrap();
        assert_eq!(module.meter(), meter);
        engine.compiled()
    };
    let engine = Engine::new().unwrap();
    for (meter, compiled) in
        [(Meter::Fuel, 1), (Meter::Time, 2), (Meter::Fuel, 2), (Meter::Time, 2)]
    {
        assert_eq!(ask(&engine, meter), compiled, "in memory, {meter:?}");
        // A process that starts later finds its own.
        assert_eq!(ask(&Engine::new().unwrap(), meter), 0, "on the disk, {meter:?}");
    }
    let mut names: Vec<_> =
        fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let [metered, unmetered] = <[_; 2]>::try_from(names).unwrap();
    // Each in the place of the other, as it was written.
    let aside = folder.path().join("aside");
    fs::rename(&metered, &aside).unwrap();
    fs::rename(&unmetered, &metered).unwrap();
    fs::rename(&aside, &unmetered).unwrap();
    for (meter, refused) in [(Meter::Fuel, 1), (Meter::Time, 2)] {
        assert_eq!(ask(&Engine::new().unwrap(), meter), 1, "compiled anew, {meter:?}");
        assert_eq!(cache.counts().refused, refused);
    }
}
