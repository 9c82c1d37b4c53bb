//! An interrupt stops a run wherever it is, within a tick, and no run that has another handle.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use moat_sandbox::{Bounds, Dir, Engine, Input, Interrupt, Module, Outcome, Status, TICK};
use support::{plenty, wat};

/// What a stopped guest may take on a loaded machine; each would run for an hour or for ever.
const SOON: Duration = Duration::from_secs(20);

/// Guests that have begun: they say so by making a file.
struct Field {
    engine: Engine,
    marks: Module,
}

impl Field {
    fn new() -> Self {
        let engine = Engine::new().unwrap();
        let marks = wat(&engine, "marks");
        Self { engine, marks }
    }

    /// Runs a guest that does this, calls `meanwhile` once it has begun, and gives its outcome
    /// and when it ended.
    fn run(&self, does: &str, stop: &Interrupt, meanwhile: impl FnOnce()) -> (Outcome, Instant) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let mark = path.join("begun");
        let dirs = vec![Dir { path, read: false, write: true }];
        let bounds = Bounds { dirs, ..plenty() };
        let input = Input { stdin: does.into(), ..Input::default() };
        thread::scope(|scope| {
            let guest = scope.spawn(|| {
                let ran = self.engine.run(&self.marks, &bounds, &input, Some(stop));
                (ran, Instant::now())
            });
            while !mark.exists() {
                assert!(!guest.is_finished(), "it ended before it began");
                thread::yield_now();
            }
            meanwhile();
            let (ran, ended) = guest.join().unwrap();
            (ran.unwrap(), ended)
        })
    }
}

/// Stops a guest at work; how long it went on.
fn stopped_after(field: &Field, does: &str) -> Duration {
    let stop = Interrupt::new();
    let mut asked = None;
    let (outcome, ended) = field.run(does, &stop, || {
        thread::sleep(TICK / 3);
        asked = Some(Instant::now());
        stop.interrupt();
    });
    assert_eq!(outcome.status, Status::Interrupted, "{does}");
    ended - asked.unwrap()
}

#[test]
fn it_stops_a_guest_at_work_within_a_tick() {
    let field = Field::new();
    for does in ["l", "h", "s"] {
        // One tick, and what it takes to notice: the best of many, as the machine may be loaded.
        let within = TICK + TICK / 2;
        let mut best = SOON;
        for _ in 0..50 {
            best = best.min(stopped_after(&field, does));
            if best <= within {
                break;
            }
        }
        assert!(best <= within, "{does}: {best:?}");
    }
}

#[test]
fn at_any_moment_it_stops_the_run_or_comes_after_its_end() {
    let engine = Engine::new().unwrap();
    for name in ["spin", "sleep", "empty"] {
        let module = wat(&engine, name);
        for pause in 0..40_u32 {
            let stop = Interrupt::new();
            let outcome = thread::scope(|scope| {
                let run = || engine.run(&module, &plenty(), &Input::default(), Some(&stop));
                let guest = scope.spawn(run);
                thread::sleep(Duration::from_micros(u64::from(pause * pause)));
                stop.interrupt();
                guest.join().unwrap().unwrap()
            });
            let ended = name == "empty" && outcome.status == Status::Ok;
            assert!(ended || outcome.status == Status::Interrupted, "{name}: {outcome:?}");
            assert!(outcome.elapsed < SOON, "{name}");
        }
    }
}

#[test]
fn after_the_end_it_changes_nothing() {
    let field = Field::new();
    let stop = Interrupt::new();
    let (outcome, _) = field.run("-", &stop, || ());
    stop.interrupt();
    stop.interrupt();
    assert_eq!(outcome.status, Status::Ok);
    let (next, _) = field.run("-", &Interrupt::new(), || ());
    assert_eq!(next.status, Status::Ok);
}

#[test]
fn a_run_with_a_handle_of_its_own_goes_on() {
    let field = Field::new();
    let (one, other) = (Interrupt::new(), Interrupt::new());
    let (outcome, _) = field.run("l", &one, || {
        // While one loops, another is stopped, and a third is never asked.
        let (sleeper, _) = field.run("s", &other, || other.interrupt());
        assert_eq!(sleeper.status, Status::Interrupted);
        let free = Input { stdin: b"x".to_vec(), ..Input::default() };
        let echo = wat(&field.engine, "echo");
        let ran = field.engine.run(&echo, &plenty(), &free, None).unwrap();
        assert_eq!((ran.status, ran.stdout), (Status::Ok, b"x".to_vec()));
        one.interrupt();
    });
    assert_eq!(outcome.status, Status::Interrupted);
}

#[test]
fn runs_before_and_after_on_the_same_thread_are_not_touched() {
    let engine = Engine::new().unwrap();
    let (spin, empty) = (wat(&engine, "spin"), wat(&engine, "empty"));
    for _ in 0..5 {
        let stop = Interrupt::new();
        stop.interrupt();
        let run = |module, stop| engine.run(module, &plenty(), &Input::default(), stop).unwrap();
        assert_eq!(run(&empty, None).status, Status::Ok);
        assert_eq!(run(&spin, Some(&stop)).status, Status::Interrupted);
        assert_eq!(run(&empty, Some(&Interrupt::new())).status, Status::Ok);
    }
}

#[test]
fn every_run_of_one_handle_is_stopped_and_stays_so() {
    let (engine, stop) = (Engine::new().unwrap(), Interrupt::new());
    let (spin, sleep) = (wat(&engine, "spin"), wat(&engine, "sleep"));
    let run = |module| engine.run(module, &plenty(), &Input::default(), Some(&stop)).unwrap();
    thread::scope(|scope| {
        let guests: Vec<_> =
            [&spin, &sleep, &spin, &sleep].map(|module| scope.spawn(move || run(module))).into();
        stop.clone().interrupt();
        for guest in guests {
            assert_eq!(guest.join().unwrap().status, Status::Interrupted);
        }
    });
    let late = run(&spin);
    assert_eq!((late.status, late.fuel_used), (Status::Interrupted, 0));
}

#[test]
fn a_handle_that_is_dropped_stops_nothing() {
    let engine = Engine::new().unwrap();
    let echo = wat(&engine, "echo");
    let input = Input { stdin: b"words".to_vec(), ..Input::default() };
    let ran = engine.run(&echo, &plenty(), &input, Some(&Interrupt::new())).unwrap();
    assert_eq!((ran.status, ran.stdout), (Status::Ok, b"words".to_vec()));
}

#[test]
fn what_was_written_before_it_is_kept() {
    let engine = Engine::new().unwrap();
    let (flood, stop) = (wat(&engine, "flood"), Interrupt::new());
    let bounds = Bounds { output: 1 << 30, ..plenty() };
    let outcome = thread::scope(|scope| {
        let guest = scope.spawn(|| engine.run(&flood, &bounds, &Input::default(), Some(&stop)));
        thread::sleep(3 * TICK);
        stop.interrupt();
        guest.join().unwrap().unwrap()
    });
    assert!(matches!(outcome.status, Status::Interrupted | Status::OutputFull), "{outcome:?}");
    assert!(outcome.stdout.iter().all(|byte| *byte == b'a'));
}
