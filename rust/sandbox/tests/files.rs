//! A guest reaches the directories it is given, in the way they are given, and nothing else.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use moat_sandbox::{Bounds, Dir, Engine, Input, Module, Outcome, SandboxError, Status};
use support::{c, go, plenty, tree, wat};

const ACCES: Status = Status::Exit(2);
const BADF: Status = Status::Exit(8);
const LOOP: Status = Status::Exit(32);
const MFILE: Status = Status::Exit(33);
const NOENT: Status = Status::Exit(44);
const PERM: Status = Status::Exit(63);
const NOT_CAPABLE: Status = Status::Exit(76);

/// A folder with a tree to grant (`in/`), a secret beside it, and the guest that does one thing.
struct Yard {
    _folder: tempfile::TempDir,
    root: PathBuf,
    engine: Engine,
    files: Module,
}

impl Yard {
    fn new() -> Option<Self> {
        let (folder, root) = tree();
        let engine = Engine::new().unwrap();
        let files = c(&engine, "files")?;
        Some(Self { _folder: folder, root, engine, files })
    }

    fn path(&self, path: &str) -> String {
        self.root.join(path).to_str().unwrap().to_owned()
    }

    fn dir(&self, path: &str, read: bool, write: bool) -> Dir {
        Dir { path: self.root.join(path), read, write }
    }

    /// Runs `files ARGS...` with these directories.
    fn run(&self, dirs: &[Dir], args: &[&str]) -> Outcome {
        let args = ["files"].iter().chain(args).map(ToString::to_string).collect();
        let bounds = Bounds { dirs: dirs.to_vec(), ..plenty() };
        let input = Input { args, ..Input::default() };
        self.engine.run(&self.files, &bounds, &input, None).unwrap()
    }

    fn preopen(&self, path: &Path) -> Result<Outcome, SandboxError> {
        let dirs = vec![Dir { path: path.into(), read: true, write: false }];
        let empty = wat(&self.engine, "empty");
        self.engine.run(&empty, &Bounds { dirs, ..plenty() }, &Input::default(), None)
    }
}

#[test]
fn without_directories_nothing_opens() {
    let Some(yard) = Yard::new() else { return };
    for path in [yard.path("in/note"), "/etc/passwd".into(), "/".into(), ".".into()] {
        let outcome = yard.run(&[], &["read", &path]);
        assert_eq!((outcome.status, outcome.stdout), (NOT_CAPABLE, vec![]), "{path}");
    }
    assert_eq!(yard.run(&[], &["raw-read", "etc/passwd"]).status, BADF);
}

#[test]
fn a_readable_tree_is_read_and_listed() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, false)];
    let note = yard.run(&dirs, &["read", &yard.path("in/note")]);
    assert_eq!((note.status, note.stdout), (Status::Ok, b"note".to_vec()));
    let deep = yard.run(&dirs, &["read", &yard.path("in/sub/deep")]);
    assert_eq!((deep.status, deep.stdout), (Status::Ok, b"deep".to_vec()));
    let list = yard.run(&dirs, &["list", &yard.path("in")]);
    let text = String::from_utf8(list.stdout).unwrap();
    let mut names: Vec<_> = text.lines().collect();
    names.sort_unstable();
    assert_eq!((list.status, names), (Status::Ok, vec![".", "..", "note", "sub"]));
}

#[test]
fn dots_and_links_do_not_lead_out() {
    let Some(yard) = Yard::new() else { return };
    let inside = |path: &str| yard.root.join("in").join(path);
    symlink("../secret", inside("relative")).unwrap();
    symlink(yard.root.join("secret"), inside("absolute")).unwrap();
    symlink("..", inside("up")).unwrap();
    symlink("/proc/self/root", inside("magic")).unwrap();
    symlink("loop", inside("loop")).unwrap();
    symlink("sub/deep", inside("fine")).unwrap();
    for dirs in [[yard.dir("in", true, false)], [yard.dir("in", true, true)]] {
        let secret = yard.path("secret").trim_start_matches('/').to_owned();
        for path in [
            "../secret",
            "sub/../../secret",
            "relative",
            "absolute",
            "up/secret",
            "magic/etc/passwd",
            &format!("magic/{secret}"),
            "/etc/passwd",
            "/secret",
            "./../secret",
            "sub/../../in/../secret",
        ] {
            for how in ["raw-read", "raw"] {
                let outcome = yard.run(&dirs, &[how, path]);
                assert!(matches!(outcome.status, Status::Exit(_)), "{path}: {outcome:?}");
                assert_eq!(outcome.stdout, b"", "{path}");
            }
        }
        assert_eq!(yard.run(&dirs, &["raw-read", "loop"]).status, LOOP);
        let fine = yard.run(&dirs, &["raw-read", "fine"]);
        assert_eq!((fine.status, fine.stdout), (Status::Ok, b"deep".to_vec()));
        let escape = yard.run(&dirs, &["read", &yard.path("in/../secret")]);
        assert_eq!((escape.status, escape.stdout), (PERM, vec![]));
    }
}

#[test]
fn writing_does_not_lead_out_either() {
    let Some(yard) = Yard::new() else { return };
    symlink("../made", yard.root.join("in/link")).unwrap();
    symlink("..", yard.root.join("in/up")).unwrap();
    let dirs = [yard.dir("in", true, true)];
    for path in ["in/../made", "in/link", "in/up/made"] {
        assert!(matches!(yard.run(&dirs, &["make", &yard.path(path)]).status, Status::Exit(_)));
    }
    for how in ["unlink", "cut", "append"] {
        let outcome = yard.run(&dirs, &[how, &yard.path("in/up/secret")]);
        assert!(matches!(outcome.status, Status::Exit(_)), "{how}");
    }
    for how in ["rename", "link"] {
        let out = yard.run(&dirs, &[how, &yard.path("in/note"), &yard.path("in/up/made")]);
        assert!(matches!(out.status, Status::Exit(_)), "{how}");
        let back = yard.run(&dirs, &[how, &yard.path("in/up/secret"), &yard.path("in/got")]);
        assert!(matches!(back.status, Status::Exit(_)), "{how}");
    }
    assert!(!yard.root.join("made").exists());
    assert!(!yard.root.join("in/got").exists());
    assert_eq!(fs::read(yard.root.join("secret")).unwrap(), b"secret");
}

#[test]
fn a_readable_tree_is_not_written() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, false)];
    let (note, new) = (yard.path("in/note"), yard.path("in/new"));
    for how in ["append", "cut", "touch", "unlink", "make"] {
        assert_ne!(yard.run(&dirs, &[how, &note]).status, Status::Ok, "{how}");
    }
    for how in ["make", "mkdir"] {
        assert_ne!(yard.run(&dirs, &[how, &new]).status, Status::Ok, "{how}");
    }
    assert_eq!(yard.run(&dirs, &["raw-cut", "note"]).status, PERM);
    assert_ne!(yard.run(&dirs, &["rmdir", &yard.path("in/sub")]).status, Status::Ok);
    for how in ["rename", "link", "symlink"] {
        assert_ne!(yard.run(&dirs, &[how, &note, &new]).status, Status::Ok, "{how}");
    }
    assert_eq!(fs::read(&note).unwrap(), b"note");
    assert!(!Path::new(&new).exists());
}

#[test]
fn a_writable_tree_is_written() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, true)];
    let (note, new) = (yard.path("in/note"), yard.path("in/new"));
    assert_eq!(yard.run(&dirs, &["append", &note]).status, Status::Ok);
    assert_eq!(fs::read(&note).unwrap(), b"notenew\n");
    assert_eq!(yard.run(&dirs, &["make", &new]).status, Status::Ok);
    assert_eq!(yard.run(&dirs, &["rename", &new, &yard.path("in/moved")]).status, Status::Ok);
    assert_eq!(fs::read(yard.root.join("in/moved")).unwrap(), b"new\n");
    assert_eq!(yard.run(&dirs, &["unlink", &note]).status, Status::Ok);
    assert!(!Path::new(&note).exists());
}

#[test]
fn guests_make_no_symbolic_links() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, true)];
    for target in ["/etc/passwd", "../secret", "note"] {
        assert_eq!(yard.run(&dirs, &["symlink", target, &yard.path("in/link")]).status, PERM);
    }
    assert!(fs::symlink_metadata(yard.root.join("in/link")).is_err());
}

#[test]
fn a_write_only_tree_is_written_but_never_read() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", false, true)];
    assert_eq!(yard.run(&dirs, &["make", &yard.path("in/new")]).status, Status::Ok);
    assert_eq!(fs::read(yard.root.join("in/new")).unwrap(), b"new\n");
    assert_eq!(yard.run(&dirs, &["make", &yard.path("in/sub/new")]).status, Status::Ok);
    assert_eq!(yard.run(&dirs, &["stat", &yard.path("in/note")]).status, Status::Ok);
    symlink("note", yard.root.join("in/link")).unwrap();
    for args in [
        &["read", &yard.path("in/note")][..],
        &["read", &yard.path("in/link")],
        &["raw", "note"],
        &["raw-read", "note"],
        &["raw-cut", "note"],
        &["sub", "sub", "deep"],
        &["list", &yard.path("in")],
        &["list", &yard.path("in/sub")],
    ] {
        let outcome = yard.run(&dirs, args);
        assert_eq!((outcome.status, outcome.stdout), (ACCES, vec![]), "{args:?}");
    }
}

#[test]
fn nothing_is_moved_from_a_write_only_tree_to_where_it_is_read() {
    let Some(yard) = Yard::new() else { return };
    fs::create_dir_all(yard.root.join("in/public")).unwrap();
    fs::create_dir_all(yard.root.join("open")).unwrap();
    let dirs = [
        yard.dir("in", false, true),
        yard.dir("in/public", true, true),
        yard.dir("open", true, true),
    ];
    for to in ["in/public/got", "open/got", "in/other"] {
        for how in ["rename", "link"] {
            let outcome = yard.run(&dirs, &[how, &yard.path("in/note"), &yard.path(to)]);
            assert_eq!(outcome.status, ACCES, "{how} {to}");
        }
    }
    assert!(yard.root.join("in/note").exists());
}

#[test]
fn renumbering_does_not_shed_write_only() {
    let Some(yard) = Yard::new() else { return };
    fs::create_dir_all(yard.root.join("open")).unwrap();
    fs::write(yard.root.join("open/note"), "open").unwrap();
    // Descriptor 3 is moved to 4, once as the write-only directory and once over it.
    let (blind, open) = (yard.dir("in", false, true), yard.dir("open", true, false));
    let moved = yard.run(&[blind.clone(), open.clone()], &["renumber", "note"]);
    assert_eq!((moved.status, moved.stdout), (ACCES, vec![]));
    let over = yard.run(&[open, blind], &["renumber", "note"]);
    assert_eq!((over.status, over.stdout), (Status::Ok, b"open".to_vec()));
}

#[test]
fn pipes_sockets_and_devices_do_not_open() {
    let Some(yard) = Yard::new() else { return };
    let pipe = yard.root.join("in/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = UnixListener::bind(yard.root.join("in/socket")).unwrap();
    symlink("pipe", yard.root.join("in/link")).unwrap();
    let dirs = [yard.dir("in", true, true)];
    for path in ["in/pipe", "in/socket", "in/link"] {
        assert_eq!(yard.run(&dirs, &["read", &yard.path(path)]).status, ACCES, "{path}");
        let refused = if path == "in/link" { LOOP } else { ACCES };
        assert_eq!(yard.run(&dirs, &["append", &yard.path(path)]).status, refused, "{path}");
    }
    let dev = [Dir { path: "/dev".into(), read: true, write: false }];
    assert_eq!(yard.run(&dev, &["read", "/dev/zero"]).status, ACCES);
}

#[test]
fn open_files_are_bounded() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, false)];
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    assert_eq!(yard.run(&dirs, &["many", &yard.path("in/note")]).status, MFILE);
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() <= before + 300);
}

#[test]
fn a_directory_that_is_not_plainly_there_is_refused() {
    let Some(yard) = Yard::new() else { return };
    symlink("in", yard.root.join("link")).unwrap();
    assert_eq!(yard.preopen(&yard.root.join("in")).unwrap().status, Status::Ok);
    let refused = [
        yard.root.join("absent"),
        yard.root.join("secret"),
        yard.root.join("link"),
        yard.root.join("link/sub"),
        yard.root.join("in/../in"),
        PathBuf::from(format!("{}/./in", yard.root.display())),
        PathBuf::from(format!("{}//in", yard.root.display())),
        PathBuf::from(format!("{}/in/", yard.root.display())),
        PathBuf::from("in"),
        PathBuf::from(""),
        PathBuf::from("/proc/self/cwd"),
        PathBuf::from("/a\0b"),
    ];
    for path in refused {
        let error = yard.preopen(&path).expect_err(&format!("{path:?}"));
        assert!(matches!(error, SandboxError::Directory { .. }), "{path:?}: {error}");
    }
    let none = Bounds { dirs: vec![yard.dir("in", false, false)], ..plenty() };
    let run = yard.engine.run(&yard.files, &none, &Input::default(), None);
    assert!(matches!(run, Err(SandboxError::Directory { .. })));
}

#[test]
fn the_root_directory_can_be_given() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [Dir { path: "/".into(), read: true, write: false }];
    let outcome = yard.run(&dirs, &["read", &yard.path("in/note")]);
    assert_eq!((outcome.status, outcome.stdout), (Status::Ok, b"note".to_vec()));
}

#[test]
fn a_missing_file_says_so() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, false)];
    assert_eq!(yard.run(&dirs, &["read", &yard.path("in/absent")]).status, NOENT);
}

#[test]
fn no_descriptor_outlives_a_run() {
    let Some(yard) = Yard::new() else { return };
    let dirs = [yard.dir("in", true, false)];
    let engine = Engine::new().unwrap();
    go(&engine, &wat(&engine, "empty"), &Bounds { time: Duration::from_secs(9), ..plenty() });
    let open = || {
        let held = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
        let paths = fs::read_dir("/proc/self/fd").unwrap().filter_map(|e| held(e.unwrap()));
        paths.filter(|path| path.starts_with(&yard.root)).count()
    };
    yard.run(&dirs, &["many", &yard.path("in/note")]);
    assert_eq!(open(), 0);
}
