//! What is loaded is exactly what was named, and only the WebAssembly that is allowed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use moat_core::key::sha256;
use moat_sandbox::{Bounds, Engine, Input, MODULE_BYTES, SandboxError, Status};
use support::{go, plenty, wat};

fn load(text: &str) -> Result<(), SandboxError> {
    Engine::new().unwrap().load(&wat::parse_str(text).unwrap(), None).map(drop)
}

/// A module that runs, around something of interest.
fn around(body: &str) -> String {
    format!(r#"(module (memory (export "memory") 1) (func (export "_start")) {body})"#)
}

/// What the refusal says, and a module that only this proposal makes valid.
const OFF: &[(&str, &str)] = &[
    ("threads", "(func (drop (i32.atomic.load (i32.const 0))))"),
    ("tail calls", "(func $f (return_call $f))"),
    ("exceptions", "(tag $e) (func (throw $e))"),
    (
        "relaxed SIMD",
        "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
    ),
    ("wide arithmetic", "(func (drop (i64.mul_wide_u (i64.const 0) (i64.const 0))) drop)"),
    ("multiple memories", "(memory 1)"),
    ("gc", "(type (struct (field i32)))"),
    ("gc", "(func (drop (ref.i31 (i32.const 0))))"),
    ("function references", "(type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0)))"),
    ("stack switching", "(type $f (func)) (type (cont $f))"),
    ("constant expression", "(global i32 (i32.add (i32.const 1) (i32.const 2)))"),
    ("memory64", "(table i64 1 funcref)"),
];

#[test]
fn proposals_that_are_off_are_refused() {
    let memory = |kind: &str| {
        format!(r#"(module (memory (export "memory") {kind}) (func (export "_start")))"#)
    };
    let mut cases: Vec<_> = OFF.iter().map(|(said, body)| (*said, around(body))).collect();
    cases.push(("memory64", memory("i64 1")));
    cases.push(("threads", memory("1 1 shared")));
    cases.push(("custom page sizes", memory("1 (pagesize 1)")));
    for (said, text) in cases {
        match load(&text) {
            Err(SandboxError::Module(why)) => assert!(why.contains(said), "{said}: {why}"),
            other => panic!("{said}: {other:?}"),
        }
    }
}

#[test]
fn what_compilers_emit_is_understood() {
    for body in [
        "(global (mut i32) (i32.const 0))",
        "(func (result i32) (i32.extend8_s (i32.const 200)))",
        "(func (result i32) (i32.trunc_sat_f32_s (f32.const 1e9)))",
        "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(table 1 funcref) (func (result funcref) (table.get (i32.const 0)))",
        "(func (result v128) (v128.const i64x2 0 0))",
    ] {
        load(&around(body)).unwrap_or_else(|error| panic!("{body}: {error}"));
    }
}

#[test]
fn only_a_core_command_in_binary_form_loads() {
    let engine = Engine::new().unwrap();
    let component = wat::parse_str("(component)").unwrap();
    let compiled = engine_native();
    let texts: [&[u8]; 6] =
        [b"", b"\0asm", b"(module)", &component, &compiled, b"\0asm\x01\0\0\0\xff\xff"];
    for bytes in texts {
        let error = engine.load(bytes, None).err().unwrap();
        assert!(matches!(error, SandboxError::Module(_)), "{error}");
    }
    let library = r#"(module (memory (export "memory") 1) (func (export "other")))"#;
    let odd = r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#;
    let value = r#"(module (global (export "_start") i32 (i32.const 0)))"#;
    for text in [library, odd, value] {
        assert!(matches!(load(text), Err(SandboxError::Module(_))), "{text}");
    }
}

/// Starts like an executable, as precompiled modules do.
fn engine_native() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\x00".to_vec();
    bytes.resize(4096, 0);
    bytes
}

#[test]
fn what_a_module_calls_things_reaches_an_error_in_printable_form_only() {
    for text in [
        r#"(module (import "e" "\1b[2J\e2\80\ae\0a" (func)))"#,
        r#"(module (import "wasi_snapshot_preview1" "\1b[2J\e2\80\ae\0a" (func)) (func (export "_start")))"#,
        r#"(module (func (export "\1b\0a")) (func (export "\1b\0a")))"#,
    ] {
        let said = load(text).unwrap_err().to_string();
        assert!(said.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{said:?}");
        assert!(said.contains("u{1b}"), "{said:?}");
    }
}

#[test]
fn imports_other_than_wasi_are_refused() {
    for import in [
        r#"(import "env" "memory" (memory 1))"#,
        r#"(import "env" "f" (func))"#,
        r#"(import "wasi_unstable" "sched_yield" (func (result i32)))"#,
        r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#,
        r#"(import "wasi_snapshot_preview1" "shell" (func))"#,
        r#"(import "wasi_snapshot_preview1" "memory" (memory 1))"#,
        r#"(import "wasi" "thread-spawn" (func (param i32) (result i32)))"#,
    ] {
        let text = format!(r#"(module {import} (func (export "_start")))"#);
        assert!(matches!(load(&text), Err(SandboxError::Import(_))), "{import}");
    }
}

#[test]
fn the_digest_is_of_the_bytes_compiled() {
    let engine = Engine::new().unwrap();
    let bytes = wat::parse_file(support::guests().join("echo.wat")).unwrap();
    let digest = sha256(&bytes);
    assert_eq!(engine.load(&bytes, Some(digest)).unwrap().sha256(), digest);
    assert_eq!(engine.load(&bytes, None).unwrap().sha256(), digest);
    // One byte more in a custom section: the same program, other bytes.
    let other = [&bytes[..], &[0, 2, 1, b'x']].concat();
    let error = engine.load(&other, Some(digest)).err().unwrap();
    assert!(matches!(error, SandboxError::Digest { .. }), "{error}");
    assert_ne!(engine.load(&other, None).unwrap().sha256(), digest);
}

#[test]
fn the_digest_is_compared_before_anything_is_compiled() {
    let engine = Engine::new().unwrap();
    let error = engine.load(b"not a module", Some([0; 32])).err().unwrap();
    assert!(matches!(error, SandboxError::Digest { .. }), "{error}");
}

#[test]
fn an_oversized_module_is_refused() {
    let engine = Engine::new().unwrap();
    let error = engine.load(&vec![0; MODULE_BYTES + 1], None).err().unwrap();
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[test]
fn a_module_runs_only_in_its_own_engine() {
    let (one, two) = (Engine::new().unwrap(), Engine::new().unwrap());
    let module = wat(&one, "empty");
    assert_eq!(go(&one, &module, &plenty()).status, Status::Ok);
    let error = two.run(&module, &Bounds::default(), &Input::default(), None).unwrap_err();
    assert!(matches!(error, SandboxError::Input(_)), "{error}");
}

#[test]
fn an_engine_may_be_dropped_while_its_modules_live() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "empty");
    let clone = engine.clone();
    drop(engine);
    assert_eq!(go(&clone, &module, &plenty()).status, Status::Ok);
}
