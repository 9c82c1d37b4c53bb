//! Code that was compiled before is found in a folder, and is what was compiled there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use moat_core::key::sha256;
use moat_sandbox::{CodeCache, Engine, Module, Source, Status};
use support::{go, guests, plenty};

const KEY: [u8; 32] = [3; 32];

fn bytes(name: &str) -> Vec<u8> {
    wat::parse_file(guests().join(format!("{name}.wat"))).unwrap()
}

struct Place {
    _folder: tempfile::TempDir,
    cache: CodeCache,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(&folder.path().join("code"), &KEY).unwrap();
        Self { _folder: folder, cache }
    }

    /// Loads as a process that has just been started; whether it had to compile.
    fn load(&self, wasm: &[u8]) -> (Engine, Module, bool) {
        let engine = Engine::new().unwrap();
        let source = Source { cache: Some(&self.cache), ..Source::default() };
        let module = engine.load_from(wasm, None, source).unwrap();
        let compiled = engine.compiled() > 0;
        (engine, module, compiled)
    }

    fn entry(&self, wasm: &[u8]) -> PathBuf {
        let name: String = sha256(wasm).iter().map(|byte| format!("{byte:02x}")).collect();
        self.cache.path().join(name)
    }
}

fn status((engine, module, _): &(Engine, Module, bool)) -> Status {
    go(engine, module, &plenty()).status
}

#[test]
fn a_module_and_a_component_are_compiled_once_for_all_processes() {
    let place = Place::new();
    for (name, end) in [("exit", Status::Exit(300)), ("command", Status::Ok)] {
        let wasm = bytes(name);
        let first = place.load(&wasm);
        let later = place.load(&wasm);
        assert_eq!((first.2, later.2), (true, false), "{name}");
        assert_eq!((status(&first), status(&later)), (end.clone(), end));
        assert_eq!(later.1.sha256(), sha256(&wasm));
    }
}

#[test]
fn a_refused_entry_is_compiled_anew_and_replaced() {
    let place = Place::new();
    let (wasm, other) = (bytes("exit"), bytes("command"));
    place.load(&wasm);
    place.load(&other);
    // The entry of a component in the place of that of a module.
    fs::copy(place.entry(&other), place.entry(&wasm)).unwrap();
    let again = place.load(&wasm);
    assert!(again.2);
    assert_eq!(status(&again), Status::Exit(300));
    assert!(!place.load(&wasm).2);
    assert_eq!(place.cache.counts().refused, 1);
}

#[test]
fn what_is_no_module_is_refused_though_an_entry_bears_its_name() {
    let place = Place::new();
    let wasm = bytes("exit");
    place.load(&wasm);
    let wrong = b"\0asm\x01\0\0\0\xff";
    fs::copy(place.entry(&wasm), place.entry(wrong)).unwrap();
    let source = Source { cache: Some(&place.cache), ..Source::default() };
    assert!(Engine::new().unwrap().load_from(wrong, None, source).is_err());
}

/// A cached compilation swapped on disk between check and load: whenever that happens, what runs is
/// the code of the module that was asked for.
#[test]
fn an_entry_that_is_swapped_all_the_time_is_never_run() {
    let place = Place::new();
    let (wasm, other) = (bytes("exit"), bytes("echo"));
    place.load(&wasm);
    place.load(&other);
    let (good, evil) = (place.entry(&wasm), place.entry(&other));
    let (good, evil) = (fs::read(good).unwrap(), fs::read(evil).unwrap());
    let done = AtomicBool::new(false);
    let target = place.entry(&wasm);
    thread::scope(|scope| {
        scope.spawn(|| {
            let draft = target.with_extension("swap");
            while !done.load(Ordering::Relaxed) {
                for code in [&evil, &good] {
                    // Another file in its place, and other bytes in the same file.
                    fs::write(&draft, code).unwrap();
                    private(&draft);
                    fs::rename(&draft, &target).unwrap();
                    fs::write(&target, code).unwrap();
                }
            }
        });
        for _ in 0..300 {
            assert_eq!(status(&place.load(&wasm)), Status::Exit(300));
        }
        done.store(true, Ordering::Relaxed);
    });
    let counts = place.cache.counts();
    assert!(counts.found > 0 && counts.refused > 0, "{counts:?}");
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}
