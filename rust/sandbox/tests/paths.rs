//! Files through `wasi:filesystem`: as strict as Preview 1, by the same attacks.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use moat_sandbox::{Bounds, Dir, Engine, Module, Outcome, Status, Value};
use support::{call, plenty, text, tree, wat};

// Places in `error-code`, and success.
const ACCESS: i128 = 0;
const LOOP: i128 = 15;
const NO_ENTRY: i128 = 20;
const FULL: i128 = 22;
const NOT_PERMITTED: i128 = 31;
const DONE: i128 = 255;

// Bits of `descriptor-flags` and `open-flags`.
const READ: i128 = 1;
const WRITE: i128 = 2;
const CREATE: i128 = 1;
const DIRECTORY: i128 = 2;
const TRUNCATE: i128 = 8;

/// A folder with a tree to grant (`in/`), a secret beside it, and the guest that does one thing.
struct Yard {
    _folder: tempfile::TempDir,
    root: PathBuf,
    engine: Engine,
    module: Module,
    read: bool,
    write: bool,
}

impl Yard {
    fn new(read: bool, write: bool) -> Self {
        let (folder, root) = tree();
        let engine = Engine::new().unwrap();
        let module = wat(&engine, "paths");
        Self { _folder: folder, root, engine, module, read, write }
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.root.join("in").join(name)).unwrap();
    }

    fn call(&self, name: &str, args: &[Value]) -> Outcome {
        let dir = Dir { path: self.root.join("in"), read: self.read, write: self.write };
        let bounds = Bounds { dirs: vec![dir], ..plenty() };
        call(&self.engine, &self.module, &bounds, name, args).unwrap()
    }

    /// The code of one attempt.
    fn code(&self, name: &str, args: &[Value]) -> i128 {
        match self.call(name, args) {
            Outcome { result: Some(Value::Int(code)), .. } => code,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn open(&self, path: &str, follow: bool, how: i128, flags: i128) -> i128 {
        let args = [text(path), Value::Bool(follow), Value::Int(how), Value::Int(flags)];
        self.code("open", &args)
    }

    /// The bytes that were read, or a code.
    fn read(&self, path: &str, flags: i128) -> Result<Vec<u8>, i128> {
        let args = [text(path), Value::Bool(true), Value::Int(flags)];
        let Some(Value::Fields(fields)) = self.call("read", &args).result else { panic!("{path}") };
        match &fields[..] {
            [(name, Value::Bytes(bytes))] if name == "ok" => Ok(bytes.clone()),
            [(name, Value::Int(code))] if name == "err" => Err(*code),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[test]
fn a_tree_is_read_and_left_as_it_is() {
    let yard = Yard::new(true, false);
    assert_eq!(yard.read("note", READ), Ok(b"note".to_vec()));
    assert_eq!(yard.read("sub/deep", READ), Ok(b"deep".to_vec()));
    assert_eq!(yard.read("lost", READ), Err(NO_ENTRY));
    for (how, flags) in [(CREATE, READ), (0, WRITE), (TRUNCATE, READ), (CREATE, WRITE)] {
        for path in ["new", "note"] {
            assert_eq!(yard.open(path, false, how, flags), NOT_PERMITTED, "{path} {how} {flags}");
        }
    }
    assert!(!yard.root.join("in/new").exists());
    assert_ne!(yard.code("rename", &[text("note"), text("other")]), DONE);
    assert_eq!(fs::read(yard.root.join("in/note")).unwrap(), b"note");
}

#[test]
fn nothing_leads_out_of_a_tree() {
    for write in [false, true] {
        let yard = Yard::new(true, write);
        yard.link("../secret", "relative");
        yard.link(yard.root.join("secret").to_str().unwrap(), "absolute");
        yard.link("..", "up");
        yard.link("/proc/self/root", "magic");
        yard.link("loop", "loop");
        yard.link("sub/deep", "fine");
        let secret = yard.root.join("secret").to_str().unwrap().to_owned();
        for path in [
            "../secret",
            "sub/../../secret",
            "relative",
            "absolute",
            "up/secret",
            "/etc/passwd",
            "magic/etc/passwd",
            "./../secret",
            "..",
            "/",
            "sub/../..",
            &secret,
            &format!("magic{secret}"),
        ] {
            assert!(yard.read(path, READ).is_err(), "{path}");
            assert_ne!(yard.open(path, true, 0, READ), DONE, "{path}");
            if write {
                assert_ne!(yard.open(path, true, CREATE, WRITE), DONE, "{path}");
            }
            if write {
                assert_ne!(yard.code("rename", &[text(path), text("got")]), DONE, "{path}");
            }
            // A link itself may be replaced; what it leads to may not.
            if write && path.contains(['/', '.']) {
                assert_ne!(yard.code("rename", &[text("note"), text(path)]), DONE, "{path}");
            }
        }
        assert_eq!(yard.read("loop", READ), Err(LOOP));
        assert_eq!(yard.open("fine", false, 0, READ), LOOP);
        assert_eq!(yard.read("fine", READ), Ok(b"deep".to_vec()));
        assert_eq!(fs::read(yard.root.join("secret")).unwrap(), b"secret");
    }
}

#[test]
fn no_symbolic_link_is_made() {
    let yard = Yard::new(true, true);
    for target in ["note", "sub", "../secret", "/etc/passwd", ""] {
        assert_eq!(yard.code("symlink", &[text(target), text("made")]), NOT_PERMITTED);
    }
    assert!(yard.root.join("in/made").symlink_metadata().is_err());
}

#[test]
fn only_regular_files_and_directories_open() {
    let yard = Yard::new(true, true);
    let _socket = UnixListener::bind(yard.root.join("in/socket")).unwrap();
    let pipe = yard.root.join("in/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    yard.link("pipe", "to-pipe");
    for path in ["pipe", "socket", "to-pipe"] {
        for flags in [READ, 0] {
            assert_eq!(yard.open(path, true, 0, flags), ACCESS, "{path} {flags}");
        }
        let refused = if path == "to-pipe" { LOOP } else { ACCESS };
        for (how, flags) in [(0, WRITE), (0, READ | WRITE), (CREATE, WRITE)] {
            assert_eq!(yard.open(path, true, how, flags), refused, "{path} {how} {flags}");
        }
    }
    let device = Dir { path: "/dev".into(), read: true, write: false };
    let bounds = Bounds { dirs: vec![device], ..plenty() };
    let args = [text("null"), Value::Bool(true), Value::Int(0), Value::Int(READ)];
    let outcome = call(&yard.engine, &yard.module, &bounds, "open", &args).unwrap();
    assert_eq!(outcome.result, Some(Value::Int(ACCESS)));
}

#[test]
fn through_a_write_only_tree_nothing_is_read() {
    let yard = Yard::new(false, true);
    for flags in [READ, READ | WRITE, 0] {
        assert_eq!(yard.open("note", false, 0, flags), ACCESS, "{flags}");
        assert_eq!(yard.read("note", flags), Err(ACCESS), "{flags}");
        assert_eq!(yard.open("new", false, CREATE, flags), ACCESS, "{flags}");
    }
    // Opened for writing, it still gives nothing to read.
    assert_eq!(yard.open("note", false, 0, WRITE), DONE);
    assert_eq!(yard.read("note", WRITE), Err(ACCESS));
    assert_eq!(yard.open("sub", false, DIRECTORY, 0), DONE);
    assert_eq!(yard.code("list", &[Value::Int(1)]), ACCESS);
    assert_eq!(yard.code("rename", &[text("note"), text("other")]), ACCESS);
    assert_eq!(yard.open("new", false, CREATE, WRITE), DONE);
    assert_eq!(fs::read(yard.root.join("in/note")).unwrap(), b"note");
}

#[test]
fn few_files_and_lists_are_open_at_once() {
    let yard = Yard::new(true, false);
    let count = |count: i128| Value::Int(count);
    assert_eq!(yard.code("hold", &[text("note"), count(100)]), DONE);
    assert_eq!(yard.code("hold", &[text("note"), count(200)]), FULL);
    assert_eq!(yard.code("list", &[count(32)]), DONE);
    assert_eq!(yard.code("list", &[count(33)]), FULL);
    assert_eq!(yard.call("ask", &[count(100)]).status, Status::Ok);
    assert!(matches!(yard.call("ask", &[count(200)]).status, Status::Trap(_)));
}

#[test]
fn without_directories_there_is_nothing_to_open() {
    let yard = Yard::new(true, true);
    let args = [text("/etc/passwd"), Value::Bool(true), Value::Int(0), Value::Int(READ)];
    let outcome = call(&yard.engine, &yard.module, &plenty(), "open", &args).unwrap();
    assert!(matches!(outcome.status, Status::Trap(_)), "{outcome:?}");
}
