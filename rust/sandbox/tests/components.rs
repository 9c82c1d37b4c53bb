//! Components run beside core modules, under the same bounds, and gain nothing by being more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use moat_sandbox::{
    Bounds, CODE_BYTES, Engine, Input, Interrupt, MODULE_BYTES, SandboxError, Status, Value,
};
use support::{call, go, plenty, text, wat};

fn load(text: &str) -> Result<moat_sandbox::Module, SandboxError> {
    let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Engine::new().unwrap().load(&bytes, None)
}

/// A command that does what its module's `run` does.
fn command(module: &str) -> String {
    format!(
        r#"(component
             (core module $m {module})
             (core instance $i (instantiate $m))
             (func $run (result (result)) (canon lift (core func $i "run")))
             (instance $run (export "run" (func $run)))
             (export "wasi:cli/run@0.2.0" (instance $run)))"#
    )
}

fn run(text: &str, bounds: &Bounds) -> Status {
    let engine = Engine::new().unwrap();
    let module = engine.load(&wat::parse_str(text).unwrap(), None).unwrap();
    go(&engine, &module, bounds).status
}

#[test]
fn a_command_ends_well_or_with_one() {
    let answer =
        |code: i32| command(&format!(r#"(func (export "run") (result i32) (i32.const {code}))"#));
    assert_eq!(run(&answer(0), &plenty()), Status::Ok);
    assert_eq!(run(&answer(1), &plenty()), Status::Exit(1));
    let later = answer(0).replace("run@0.2.0", "run@0.2.6");
    assert_eq!(run(&later, &plenty()), Status::Ok);
}

#[test]
fn a_component_that_imports_the_whole_command_world_runs() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "world");
    assert!(module.is_component());
    assert_eq!(go(&engine, &module, &plenty()).status, Status::Ok);
}

#[test]
fn what_is_no_command_is_not_run() {
    let odd = r#"(component
        (core module $m (func (export "run") (param i32)))
        (core instance $i (instantiate $m))
        (func $run (param "x" u32) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let later = r#"(component (instance $run) (export "wasi:cli/run@0.3.0" (instance $run)))"#;
    let engine = Engine::new().unwrap();
    for text in ["(component)", odd, later] {
        let module = engine.load(&wat::parse_str(text).unwrap(), None).unwrap();
        let error = engine.run(&module, &plenty(), &Input::default(), None).unwrap_err();
        assert!(matches!(error, SandboxError::Module(_)), "{text}: {error}");
    }
}

#[test]
fn imports_other_than_wasi_are_refused() {
    for import in [
        r#"(import "tool" (func))"#,
        r#"(import "wasi:cli/environment@0.3.0" (instance (export "f" (func))))"#,
        r#"(import "wasi:cli/environment@0.2.0" (instance (export "shell" (func))))"#,
        r#"(import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "status" u8)))))"#,
        r#"(import "wasi:tls/types@0.2.0" (instance (export "f" (func))))"#,
        r#"(import "wasi:http/incoming-handler@0.2.0" (instance (export "handle" (func))))"#,
        r#"(import "hyperlight:sandbox/tools" (instance (export "dispatch" (func))))"#,
    ] {
        let found = load(&format!("(component {import})")).err();
        assert!(matches!(found, Some(SandboxError::Import(_))), "{import}: {found:?}");
    }
    let found = load(r#"(component (import "m" (core module)))"#).err();
    assert!(matches!(found, Some(SandboxError::Module(_))), "{found:?}");
}

/// What a nested module may not use, as in a module of its own.
const NESTED: &[&str] = &[
    "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))",
    "(func $f (return_call $f))",
    "(tag $e) (func (throw $e))",
    "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
    "(memory 1) (memory 1)",
    "(type (struct (field i32)))",
    "(memory i64 1)",
    "(memory 1 1 shared)",
];

/// What a component may not use itself.
const BEYOND: &[&str] = &[
    "(type (future u8))",
    "(type (stream u8))",
    "(type (list u8 4))",
    "(type (map u8 u8))",
    "(core func (canon task.cancel))",
    "(core func (canon backpressure.inc))",
    "(core func (canon waitable-set.new))",
    "(core func (canon error-context.drop))",
    "(core func (canon thread.index))",
    "(type (func async))",
    r#"(import "v" (value string))"#,
];

#[test]
fn proposals_that_are_off_are_off_in_components_too() {
    for body in NESTED {
        let plain = load(&format!("(component (core module {body}))")).err();
        assert!(matches!(plain, Some(SandboxError::Module(_))), "{body}: {plain:?}");
        let deep = load(&format!("(component (component (core module {body})))")).err();
        assert!(matches!(deep, Some(SandboxError::Module(_))), "{body}: {deep:?}");
    }
    for body in BEYOND {
        let found = load(&format!("(component {body})")).err();
        assert!(matches!(found, Some(SandboxError::Module(_))), "{body}: {found:?}");
    }
}

/// Two components that pass a text: what joins them has two memories, and is the engine's own.
#[test]
fn components_within_a_component_pass_values_to_one_another() {
    let store = r#"(core module $s (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
        (core instance $s (instantiate $s))"#;
    let engine = Engine::new().unwrap();
    let joined = format!(
        r#"(component
          (component $length {store}
            (core module $m (func (export "length") (param i32 i32) (result i32) (local.get 1)))
            (core instance $i (instantiate $m))
            (func (export "length") (param "text" string) (result u32)
              (canon lift (core func $i "length") (memory (core memory $s "memory")) (realloc (core func $s "realloc")))))
          (instance $length (instantiate $length))
          (component $ask {store}
            (import "length" (func $length (param "text" string) (result u32)))
            (core func $length (canon lower (func $length) (memory (core memory $s "memory"))))
            (core module $m
              (import "h" "length" (func $length (param i32 i32) (result i32)))
              (func (export "ask") (result i32) (call $length (i32.const 0) (i32.const 7))))
            (core instance $i (instantiate $m (with "h" (instance (export "length" (func $length))))))
            (func (export "ask") (result u32) (canon lift (core func $i "ask"))))
          (instance $ask (instantiate $ask (with "length" (func $length "length"))))
          (export "ask" (func $ask "ask")))"#
    );
    let module = engine.load(&wat::parse_str(joined).unwrap(), None).unwrap();
    let outcome = call(&engine, &module, &plenty(), "ask", &[]).unwrap();
    assert_eq!((outcome.status, outcome.result), (Status::Ok, Some(Value::Int(7))));
}

#[test]
fn fuel_and_time_stop_a_component() {
    for spin in [
        command(r#"(func (export "run") (result i32) (loop (br 0)) (i32.const 0))"#),
        command(
            r#"(func $f (loop (br 0))) (start $f) (func (export "run") (result i32) i32.const 0)"#,
        ),
    ] {
        assert_eq!(run(&spin, &Bounds { fuel: 1_000_000, ..plenty() }), Status::OutOfFuel);
        let short = Bounds { time: Duration::from_millis(50), ..plenty() };
        assert_eq!(run(&spin, &short), Status::TimedOut);
        assert_eq!(run(&spin, &Bounds { fuel: 0, ..plenty() }), Status::OutOfFuel);
        assert_eq!(run(&spin, &Bounds { time: Duration::ZERO, ..plenty() }), Status::TimedOut);
    }
}

#[test]
fn waiting_in_the_host_ends_with_the_time() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "waits");
    let short = Bounds { time: Duration::from_millis(50), ..plenty() };
    let hour = Value::Int(3_600_000_000_000);
    for (name, args) in [
        ("sleep", vec![hour.clone()]),
        ("sleep", vec![Value::Int(u64::MAX.into())]),
        ("naps", vec![]),
        ("poll", vec![Value::Int(100), hour]),
    ] {
        let began = Instant::now();
        let outcome = call(&engine, &module, &short, name, &args).unwrap();
        assert_eq!(outcome.status, Status::TimedOut, "{name}");
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
    }
}

#[test]
fn an_interrupt_ends_a_component_that_waits() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "waits");
    let sleep = module.call("sleep", &Value::List(vec![Value::Int(i64::MAX.into())])).unwrap();
    let stop = Interrupt::new();
    let outcome = thread::scope(|scope| {
        let other = stop.clone();
        scope.spawn(move || other.interrupt());
        engine.call(&sleep, &plenty(), &Input::default(), Some(&stop)).unwrap()
    });
    assert_eq!(outcome.status, Status::Interrupted);
}

/// A command of so many modules with a memory of 16 pages, or a table of this size, each.
fn many(count: usize, body: &str) -> String {
    let mut text = format!(r#"(component (core module $big {body})"#);
    for _ in 0..count {
        text.push_str("(core instance (instantiate $big))");
    }
    let end = command(r#"(func (export "run") (result i32) (i32.const 0))"#);
    text + end.trim_start_matches("(component")
}

#[test]
fn memory_is_counted_over_all_instances() {
    let small = Bounds { memory: 4 << 20, ..plenty() };
    for body in ["(memory 16)", "(table 131072 funcref)"] {
        assert_eq!(run(&many(4, body), &small), Status::Ok, "{body}");
        assert_eq!(run(&many(5, body), &small), Status::OutOfMemory, "{body}");
    }
    let grow = "(memory 0) (func $f (drop (memory.grow (i32.const 16)))) (start $f)";
    let engine = Engine::new().unwrap();
    let module = engine.load(&wat::parse_str(many(9, grow)).unwrap(), None).unwrap();
    assert_eq!(go(&engine, &module, &small).memory_peak, 4 << 20);
}

#[test]
fn instances_memories_and_tables_are_few() {
    let wide = Bounds { memory: 1 << 30, ..plenty() };
    assert_eq!(run(&many(16, "(memory 0)"), &wide), Status::Ok);
    for (count, body) in [(17, "(memory 0)"), (65, "(table 0 funcref)")] {
        let status = run(&many(count, body), &wide);
        assert!(matches!(status, Status::Trap(_)), "{body}: {status:?}");
    }
    let said = load(&many(300, "")).err().unwrap().to_string();
    assert!(said.contains("instances"), "{said}");
}

/// Each level instantiates the one before it twice: 2^24 modules from a kilobyte.
#[test]
fn a_component_that_unfolds_without_end_is_refused_before_it_does() {
    let began = Instant::now();
    let mut text =
        "(component (component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..25 {
        let before = level - 1;
        write!(
            text,
            "(component $c{level} (instance (instantiate $c{before})) (instance (instantiate $c{before})))"
        )
        .unwrap();
    }
    let said = load(&(text + "(instance (instantiate $c24)))")).err().unwrap().to_string();
    assert!(said.contains("instances"), "{said}");
    let deep = "(component ".repeat(40) + &")".repeat(40);
    let said = load(&deep).err().unwrap().to_string();
    assert!(said.contains("levels"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn names_and_data_within_components_may_be_long() {
    let name = format!(r#"(@custom "x" "{}")"#, "a".repeat(CODE_BYTES + 1));
    let data = "a".repeat(CODE_BYTES + 1);
    let data = format!(r#"(memory 300) (data (i32.const 0) "{data}")"#);
    for body in [name, data] {
        load(&format!("(component (component (core module {body})))")).unwrap();
    }
    let engine = Engine::new().unwrap();
    let mut big = b"\0asm\x0d\0\x01\0".to_vec();
    big.resize(MODULE_BYTES + 1, 0);
    assert!(engine.load(&big, None).is_err());
    assert_eq!(engine.compiled(), 0);
}

#[test]
fn what_the_host_keeps_for_a_component_is_bounded() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "waits");
    let status =
        |name: &str, args: &[Value]| call(&engine, &module, &plenty(), name, args).unwrap().status;
    assert_eq!(status("handles", &[Value::Int(4_000)]), Status::Ok);
    assert!(matches!(status("handles", &[Value::Int(5_000)]), Status::Trap(_)));
    assert_eq!(status("pollables", &[Value::Int(200)]), Status::Ok);
    assert!(matches!(status("pollables", &[Value::Int(1_000)]), Status::Trap(_)));
    assert!(matches!(status("poll", &[Value::Int(30_000), Value::Int(0)]), Status::Trap(_)));
    assert!(matches!(status("poll", &[Value::Int(0), Value::Int(0)]), Status::Trap(_)));
    for size in [1 << 30, u64::MAX] {
        let status = status("random", &[Value::Int(size.into())]);
        assert!(matches!(status, Status::Trap(_)), "{size}: {status:?}");
    }
}

#[test]
fn sockets_and_names_are_refused() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "net");
    for (name, arg) in [
        ("tcp", Value::Bool(false)),
        ("tcp", Value::Bool(true)),
        ("udp", Value::Bool(false)),
        ("udp", Value::Bool(true)),
        ("look-up", text("localhost")),
        ("look-up", text("127.0.0.1")),
        ("look-up", text("example.com")),
    ] {
        let outcome = call(&engine, &module, &plenty(), name, &[arg]).unwrap();
        assert_eq!(outcome.result, Some(Value::Int(1)), "{name}: {:?}", outcome.status);
    }
}

#[test]
fn nothing_is_left_over_from_one_call_to_the_next() {
    let engine = Engine::new().unwrap();
    let counter = r#"(component
        (core module $m (global $n (mut i32) (i32.const 0))
          (func (export "next") (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))
        (core instance $i (instantiate $m))
        (func (export "next") (result u32) (canon lift (core func $i "next"))))"#;
    let module = engine.load(&wat::parse_str(counter).unwrap(), None).unwrap();
    let next = module.call("next", &Value::List(vec![])).unwrap();
    for _ in 0..3 {
        let outcome = engine.call(&next, &plenty(), &Input::default(), None).unwrap();
        assert_eq!(outcome.result, Some(Value::Int(1)));
    }
    let other = Engine::new().unwrap().call(&next, &plenty(), &Input::default(), None);
    assert!(matches!(other, Err(SandboxError::Input(_))));
}
