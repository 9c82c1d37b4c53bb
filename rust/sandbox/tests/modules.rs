//! What is loaded is exactly what was named, and only the WebAssembly that is allowed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Barrier;
use std::thread;

use moat_core::key::sha256;
use moat_sandbox::{Bounds, CODE_BYTES, Engine, Input, MODULE_BYTES, SandboxError, Status};
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
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
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
fn only_a_command_or_component_in_binary_form_loads() {
    let engine = Engine::new().unwrap();
    let compiled = engine_native();
    let texts: [&[u8]; 6] = [
        b"",
        b"\0asm",
        b"(module)",
        &compiled,
        b"\0asm\x01\0\0\0\xff\xff",
        b"\0asm\x0d\0\x01\0\xff\xff",
    ];
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

/// A section of zeros.
fn section(id: u8, size: usize) -> Vec<u8> {
    let leb = (0..5).map(|at| {
        let more = if at < 4 { 0x80 } else { 0 };
        u8::try_from(size >> (7 * at) & 0x7f).unwrap() | more
    });
    let head = std::iter::once(id).chain(leb);
    head.chain(std::iter::repeat_n(0, size)).collect()
}

#[test]
fn names_and_data_may_be_long_and_code_less_so() {
    let engine = Engine::new().unwrap();
    let empty = wat::parse_file(support::guests().join("empty.wat")).unwrap();
    let load = |parts: &[&[u8]]| engine.load(&parts.concat(), None).map(drop);
    load(&[&empty, &section(0, CODE_BYTES + 1)]).unwrap();
    let header = b"\0asm\x01\0\0\0";
    let said = |result: Result<(), SandboxError>| result.unwrap_err().to_string();
    // Types, imports, functions, elements, code; and a kind of section that there is not.
    for id in [1, 2, 3, 9, 10, 77] {
        let over = said(load(&[header, &section(id, CODE_BYTES + 1)]));
        assert!(over.contains("bytes of code"), "{id}: {over}");
        let whole = said(load(&[header, &section(id, CODE_BYTES)]));
        assert!(!whole.contains("bytes of code"), "{id}: {whole}");
        let halves =
            said(load(&[header, &section(id, CODE_BYTES), &section(0, 9), &section(id, 1)]));
        assert!(halves.contains("bytes of code"), "{id}: {halves}");
    }
    // A size beyond the end, or of no form: what is left counts in full.
    for head in [&[11, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]]
    {
        let rest = vec![0; CODE_BYTES];
        assert!(said(load(&[header, head, &rest])).contains("bytes of code"));
    }
    assert_eq!(engine.compiled(), 1, "what is too big or malformed is not compiled");
}

#[test]
fn much_data_is_a_command_like_any_other() {
    let data = "a".repeat(CODE_BYTES + 1);
    let engine = Engine::new().unwrap();
    let text = format!(
        r#"(module (memory (export "memory") 300) (data (i32.const 0) "{data}") (func (export "_start")))"#
    );
    let module = engine.load(&wat::parse_str(text).unwrap(), None).unwrap();
    assert_eq!(go(&engine, &module, &plenty()).status, Status::Ok);
}

/// `empty.wat` with a mark that makes other bytes of it.
fn marked(mark: &[u8]) -> Vec<u8> {
    let mut bytes = wat::parse_file(support::guests().join("empty.wat")).unwrap();
    let size = u8::try_from(mark.len() + 2).unwrap();
    bytes.extend([&[0, size, 1, b'x'], mark].concat());
    bytes
}

#[test]
fn the_same_bytes_are_compiled_once() {
    let engine = Engine::new().unwrap();
    let bytes = marked(b"");
    let first = engine.load(&bytes, None).unwrap();
    let again = engine.load(&bytes.clone(), Some(sha256(&bytes))).unwrap();
    assert_eq!(engine.clone().compiled(), 1);
    assert_eq!(first.sha256(), again.sha256());
    drop(first);
    assert_eq!(go(&engine, &again, &plenty()).status, Status::Ok);
    assert_eq!(Engine::new().unwrap().compiled(), 0);
}

#[test]
fn one_byte_more_is_another_module() {
    let engine = Engine::new().unwrap();
    for (count, mark) in [&b""[..], b"a", b"b", b"aa"].into_iter().enumerate() {
        let bytes = marked(mark);
        assert_eq!(engine.load(&bytes, None).unwrap().sha256(), sha256(&bytes));
        assert_eq!(engine.compiled(), count as u64 + 1);
    }
}

#[test]
fn a_digest_that_does_not_fit_is_refused_although_the_module_is_there() {
    let engine = Engine::new().unwrap();
    let (one, other) = (marked(b"one"), marked(b"other"));
    engine.load(&one, None).unwrap();
    engine.load(&other, None).unwrap();
    for (bytes, digest) in [(&one, &other), (&other, &one)] {
        let error = engine.load(bytes, Some(sha256(digest))).err().unwrap();
        assert!(matches!(error, SandboxError::Digest { .. }), "{error}");
    }
}

#[test]
fn eight_threads_compile_one_module_once() {
    let engine = Engine::new().unwrap();
    let bytes = wat::parse_file(support::guests().join("echo.wat")).unwrap();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let module = engine.load(&bytes, None).unwrap();
                assert_eq!(module.sha256(), sha256(&bytes));
                assert_eq!(go(&engine, &module, &plenty()).status, Status::Ok);
            });
        }
    });
    assert_eq!(engine.compiled(), 1);
}

#[test]
fn what_was_refused_is_refused_again() {
    let engine = Engine::new().unwrap();
    let texts = [r#"(module (import "env" "f" (func)) (func (export "_start")))"#, "(module)"];
    for text in texts {
        let bytes = wat::parse_str(text).unwrap();
        let said = |()| engine.load(&bytes, None).err().unwrap().to_string();
        assert_eq!(said(()), said(()), "{text}");
    }
}

#[test]
fn what_is_used_stays_and_what_is_not_makes_room() {
    let engine = Engine::new().unwrap();
    let load = |n: u32| engine.load(&marked(&n.to_le_bytes()), None).unwrap();
    let held = load(1_000);
    for n in 0..64 {
        load(n);
        load(0);
    }
    assert_eq!(engine.compiled(), 65);
    load(0);
    assert_eq!(engine.compiled(), 65, "it was used all along");
    load(1_000);
    assert_eq!(engine.compiled(), 66, "nobody asked for it");
    assert_eq!(go(&engine, &held, &plenty()).status, Status::Ok, "whoever holds it keeps it");
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
