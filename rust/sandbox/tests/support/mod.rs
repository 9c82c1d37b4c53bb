//! Guests and bounds shared by the tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use moat_sandbox::{Bounds, Engine, Input, Module, Outcome, SandboxError, Value};

pub fn guests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests")
}

/// A guest of `tests/guests/*.wat`.
pub fn wat(engine: &Engine, name: &str) -> Module {
    let bytes = wat::parse_file(guests().join(format!("{name}.wat"))).unwrap();
    engine.load(&bytes, None).unwrap()
}

/// A guest of `tests/guests/*.c`; `None` where there is no clang for WASI.
pub fn c(engine: &Engine, name: &str) -> Option<Module> {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("guest.wasm");
    let done = Command::new("clang")
        .args(["--target=wasm32-wasi", "-Oz", "-Wl,--strip-all", "-o"])
        .arg(&made)
        .arg(guests().join(format!("{name}.c")))
        .status();
    if !done.is_ok_and(|status| status.success()) {
        let needed = std::env::var("MOAT_REQUIRE_TOOLS").is_ok_and(|v| v == "1");
        assert!(!needed, "clang for wasm32-wasi is required and missing");
        eprintln!("skipped: no clang for wasm32-wasi");
        return None;
    }
    Some(engine.load(&fs::read(made).unwrap(), None).unwrap())
}

/// A folder with a tree to grant (`in/`) and a secret beside it.
pub fn tree() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("in/sub")).unwrap();
    fs::write(root.join("in/note"), "note").unwrap();
    fs::write(root.join("in/sub/deep"), "deep").unwrap();
    fs::write(root.join("secret"), "secret").unwrap();
    (folder, root)
}

pub fn plenty() -> Bounds {
    Bounds {
        fuel: u64::MAX >> 1,
        memory: 64 << 20,
        time: Duration::from_secs(60),
        output: 1 << 20,
        dirs: Vec::new(),
    }
}

pub fn go(engine: &Engine, module: &Module, bounds: &Bounds) -> Outcome {
    engine.run(module, bounds, &Input::default(), None).unwrap()
}

/// One typed call, prepared and made.
pub fn call(
    engine: &Engine,
    module: &Module,
    bounds: &Bounds,
    name: &str,
    args: &[Value],
) -> Result<Outcome, SandboxError> {
    let call = module.call(name, &Value::List(args.to_vec()))?;
    engine.call(&call, bounds, &Input::default(), None)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
