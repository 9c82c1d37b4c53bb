//! The sandbox beside the engine below it: running a guest that does nothing, finding compiled code
//! on the disk, and what metering costs. `cargo bench -p moat-sandbox --bench sandbox` prints one
//! JSON object a line; `benches/table.py` reads them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench stops at the first surprise and prints"
)]

use std::time::{Duration, Instant};

use moat_sandbox::{Bounds, CodeCache, Engine, Input, Source, Status};
use wasmtime::{
    Config, InstancePre, Linker, Module, PoolingAllocationConfig, Store, UpdateDeadline,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};

mod harness;

use harness::{batch, pair, rounds};

const EMPTY: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
/// Calls, branches and little else: what metering costs most.
const BUSY: &str = r#"(module
    (memory (export "memory") 1)
    (func $fib (param i32) (result i32)
        (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
            (then (local.get 0))
            (else (i32.add
                (call $fib (i32.sub (local.get 0) (i32.const 1)))
                (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
    (func (export "_start") (drop (call $fib (i32.const 24)))))"#;
/// About this many bytes.
const LARGE: usize = 500_000;

fn main() {
    running();
    compiled();
    metering();
}

fn bytes(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn bounds() -> Bounds {
    Bounds {
        fuel: 1_000_000_000,
        memory: 64 << 20,
        time: Duration::from_secs(10),
        output: 1 << 20,
        dirs: Vec::new(),
    }
}

/// What meters a guest, in the engine's own terms.
#[derive(Clone, Copy)]
struct Meter {
    fuel: bool,
    epoch: bool,
}

/// The engine as one would use it without Moat: a pool, imports resolved before.
fn raw(wasm: &[u8], meter: Meter) -> InstancePre<WasiP1Ctx> {
    let mut config = Config::new();
    config
        .consume_fuel(meter.fuel)
        .epoch_interruption(meter.epoch)
        .allocation_strategy(PoolingAllocationConfig::new());
    let engine = wasmtime::Engine::new(&config).unwrap();
    let mut linker = Linker::new(&engine);
    add_to_linker_sync(&mut linker, |state: &mut WasiP1Ctx| state).unwrap();
    linker.instantiate_pre(&Module::new(&engine, wasm).unwrap()).unwrap()
}

/// One run of it, with a store and a WASI context of its own.
fn once(pre: &InstancePre<WasiP1Ctx>, meter: Meter) {
    let mut store = Store::new(pre.module().engine(), WasiCtxBuilder::new().build_p1());
    if meter.fuel {
        store.set_fuel(1_000_000_000).unwrap();
    }
    if meter.epoch {
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
    }
    let instance = pre.instantiate(&mut store).unwrap();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
    start.call(&mut store, ()).unwrap();
}

/// A guest that does nothing, all metered.
fn running() {
    let (wasm, meter) = (bytes(EMPTY), Meter { fuel: true, epoch: true });
    let engine = Engine::new().unwrap();
    let module = engine.load(&wasm, None).unwrap();
    let (bounds, input, pre) = (bounds(), Input::default(), raw(&wasm, meter));
    let ours = || {
        let outcome = engine.run(&module, &bounds, &input, None).unwrap();
        assert_eq!(outcome.status, Status::Ok);
    };
    pair(ours, || once(&pre, meter)).print("sandbox_run");
}

/// A module of about half a megabyte: from the disk, as a process does that has just started,
/// beside compiling it.
fn compiled() {
    let body = "(local.set 0 (i32.xor (i32.mul (local.get 0) (i32.const 99)) (local.get 1)))
        (if (i32.gt_s (local.get 0) (local.get 1)) (then (local.set 1 (local.get 0))))
        (i32.store (local.get 1) (local.get 0))";
    let function = format!("(func (param i32 i32) {})", body.repeat(20));
    let one = bytes(&format!("(module (memory 1) {function})")).len();
    let rest = function.repeat(LARGE / one);
    let text = format!("{} {rest})", EMPTY.strip_suffix(')').unwrap());
    let wasm = bytes(&text);
    let folder = tempfile::tempdir().unwrap();
    let cache = CodeCache::open(&folder.path().join("code"), &[1; 32]).unwrap();
    let load = |cache: Option<&CodeCache>| {
        let engine = Engine::new().unwrap();
        let source = Source { cache, ..Source::default() };
        let began = Instant::now();
        engine.load_from(&wasm, None, source).unwrap();
        began.elapsed().as_secs_f64() * 1e9
    };
    load(Some(&cache));
    let (mut found, mut made) = (|| load(Some(&cache)), || load(None));
    rounds(9, &mut found, &mut made).print("sandbox_cached");
    assert_eq!(cache.counts().found, 9);
}

/// A guest that computes: with fuel, and with the clock alone, both against neither.
fn metering() {
    let wasm = bytes(BUSY);
    let with = |fuel, epoch| {
        let meter = Meter { fuel, epoch };
        let pre = raw(&wasm, meter);
        move || batch(1, || once(&pre, meter))
    };
    for (name, fuel, epoch) in [
        ("metering_fuel", true, false),
        ("metering_epoch", false, true),
        ("metering_both", true, true),
    ] {
        rounds(51, &mut with(fuel, epoch), &mut with(false, false)).print(name);
    }
}
