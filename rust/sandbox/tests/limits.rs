//! A guest that loops, sleeps, recurses, grows, floods or spins in host calls is stopped.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::thread;
use std::time::Duration;

use moat_sandbox::{Bounds, Engine, Input, SandboxError, Status};
use support::{c, go, plenty, wat};

/// What a stopped guest may take on a loaded machine; each would run for an hour or for ever.
const SOON: Duration = Duration::from_secs(20);

fn stopped_by_time(name: &str) {
    let engine = Engine::new().unwrap();
    let bounds = Bounds { time: Duration::from_millis(50), ..plenty() };
    let outcome = go(&engine, &wat(&engine, name), &bounds);
    assert_eq!(outcome.status, Status::TimedOut, "{name}");
    assert!(outcome.elapsed >= bounds.time && outcome.elapsed < SOON, "{name}: {outcome:?}");
}

#[test]
fn time_stops_a_loop() {
    stopped_by_time("spin");
}

#[test]
fn time_stops_a_loop_before_start() {
    stopped_by_time("start_spin");
}

#[test]
fn time_stops_a_sleep_of_an_hour() {
    stopped_by_time("sleep");
}

#[test]
fn time_stops_a_sleep_until_the_end_of_time() {
    stopped_by_time("sleep_until");
}

#[test]
fn time_stops_many_short_sleeps() {
    stopped_by_time("naps");
}

#[test]
fn time_stops_spinning_in_host_calls() {
    stopped_by_time("host_spin");
}

#[test]
fn fuel_stops_a_loop_and_is_counted() {
    let engine = Engine::new().unwrap();
    for name in ["spin", "start_spin", "host_spin"] {
        let bounds = Bounds { fuel: 10_000, ..plenty() };
        let outcome = go(&engine, &wat(&engine, name), &bounds);
        assert_eq!(outcome.status, Status::OutOfFuel, "{name}");
        assert!(outcome.fuel_used > 9_000 && outcome.fuel_used <= 10_000, "{outcome:?}");
    }
}

#[test]
fn fuel_used_is_the_same_each_time() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "grow_polite");
    let first = go(&engine, &module, &plenty()).fuel_used;
    assert!(first > 0);
    assert_eq!(go(&engine, &module, &plenty()).fuel_used, first);
}

#[test]
fn endless_recursion_is_a_trap() {
    let engine = Engine::new().unwrap();
    let outcome = go(&engine, &wat(&engine, "recurse"), &plenty());
    let Status::Trap(text) = outcome.status else { panic!("{outcome:?}") };
    assert!(text.contains("stack"), "{text}");
}

#[test]
fn faults_are_traps() {
    let engine = Engine::new().unwrap();
    for name in ["fault", "divide", "bad_pointer", "greedy_host", "grow_own"] {
        let outcome = go(&engine, &wat(&engine, name), &plenty());
        assert!(matches!(outcome.status, Status::Trap(_)), "{name}: {outcome:?}");
    }
}

#[test]
fn memory_growth_is_refused_and_graded() {
    let engine = Engine::new().unwrap();
    let bounds = Bounds { memory: 8 << 20, ..plenty() };
    for name in ["grow", "grow_table", "big_memory", "big_table"] {
        let outcome = go(&engine, &wat(&engine, name), &bounds);
        assert_eq!(outcome.status, Status::OutOfMemory, "{name}");
        assert!(outcome.memory_peak <= bounds.memory, "{name}: {outcome:?}");
    }
    let polite = go(&engine, &wat(&engine, "grow_polite"), &bounds);
    assert_eq!(polite.status, Status::Exit(7));
    assert!(polite.memory_peak > 7 << 20 && polite.memory_peak <= bounds.memory, "{polite:?}");
}

#[test]
fn a_module_at_its_memory_bound_runs() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "empty");
    let exact = Bounds { memory: 65_536, ..plenty() };
    assert_eq!(go(&engine, &module, &exact).status, Status::Ok);
    let less = Bounds { memory: 65_535, ..plenty() };
    assert_eq!(go(&engine, &module, &less).status, Status::OutOfMemory);
}

#[test]
fn zero_means_nothing() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "empty");
    let run = |bounds| go(&engine, &module, &bounds).status;
    assert_eq!(run(Bounds { fuel: 0, ..plenty() }), Status::OutOfFuel);
    assert_eq!(run(Bounds { time: Duration::ZERO, ..plenty() }), Status::TimedOut);
    assert_eq!(run(Bounds { memory: 0, ..plenty() }), Status::OutOfMemory);
    assert_eq!(run(Bounds { output: 0, ..plenty() }), Status::Ok);
    assert_eq!(run(Bounds::default()), Status::OutOfFuel);
    assert_eq!(run(Bounds { time: Duration::MAX, ..plenty() }), Status::Ok);
}

#[test]
fn output_is_cut_at_the_shared_cap() {
    let engine = Engine::new().unwrap();
    let flood = wat(&engine, "flood");
    for cap in [0, 1, 1_000, 2_500, 1 << 20] {
        let outcome = go(&engine, &flood, &Bounds { output: cap, ..plenty() });
        assert_eq!(outcome.status, Status::OutputFull);
        assert!(outcome.truncated);
        assert_eq!((outcome.stdout.len() + outcome.stderr.len()) as u64, cap);
        assert!(outcome.stdout.iter().all(|b| *b == b'a'));
        assert!(outcome.stderr.iter().all(|b| *b == b'b'));
    }
}

#[test]
fn output_of_exactly_the_cap_is_whole() {
    let engine = Engine::new().unwrap();
    let echo = wat(&engine, "echo");
    let stdin: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let input = Input { stdin: stdin.clone(), ..Input::default() };
    let run = |output| engine.run(&echo, &Bounds { output, ..plenty() }, &input, None).unwrap();
    let whole = run(100_000);
    assert_eq!((whole.status, whole.truncated), (Status::Ok, false));
    assert_eq!(whole.stdout, stdin);
    let cut = run(99_999);
    assert_eq!((cut.status, cut.truncated), (Status::OutputFull, true));
    assert_eq!(cut.stdout, stdin[..99_999]);
}

#[test]
fn runs_share_no_state() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "remember");
    for _ in 0..3 {
        assert_eq!(go(&engine, &module, &plenty()).status, Status::Ok);
    }
}

#[test]
fn eight_threads_run_at_once_and_keep_their_own_bounds() {
    let engine = Engine::new().unwrap();
    let (echo, spin) = (wat(&engine, "echo"), wat(&engine, "spin"));
    let engine = &engine;
    thread::scope(|scope| {
        for n in 0..8_u8 {
            let module = if n % 2 == 0 { &echo } else { &spin };
            scope.spawn(move || {
                for _ in 0..20 {
                    let input = Input { stdin: vec![n; 5_000], ..Input::default() };
                    let bounds = Bounds { time: Duration::from_secs(60), ..plenty() };
                    let short = Bounds { time: Duration::from_millis(30), ..plenty() };
                    if n % 2 == 0 {
                        let outcome = engine.run(module, &bounds, &input, None).unwrap();
                        assert_eq!(outcome.status, Status::Ok);
                        assert_eq!(outcome.stdout, vec![n; 5_000]);
                    } else {
                        let outcome = engine.run(module, &short, &input, None).unwrap();
                        assert_eq!(outcome.status, Status::TimedOut);
                    }
                }
            });
        }
    });
}

#[test]
fn exit_codes_are_whole_and_sockets_closed() {
    let engine = Engine::new().unwrap();
    assert_eq!(go(&engine, &wat(&engine, "exit"), &plenty()).status, Status::Exit(300));
    assert_eq!(go(&engine, &wat(&engine, "sockets"), &plenty()).status, Status::Ok);
}

#[test]
fn a_guest_finds_only_what_it_is_given() {
    let engine = Engine::new().unwrap();
    let Some(inspect) = c(&engine, "inspect") else {
        return;
    };
    let run = |input: &Input| engine.run(&inspect, &plenty(), input, None).unwrap();
    assert_eq!(run(&Input::default()).stdout, b"");
    let given = Input {
        args: vec!["inspect".into(), "a b".into()],
        env: vec![("NAME".into(), "value".into())],
        ..Input::default()
    };
    assert_eq!(run(&given).stdout, b"arg inspect\narg a b\nenv NAME=value\n");
}

#[test]
fn input_that_cannot_be_passed_is_refused() {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "empty");
    let arg = |text: &str| Input { args: vec![text.into()], ..Input::default() };
    let env = |name: &str, value: &str| Input {
        env: vec![(name.into(), value.into())],
        ..Input::default()
    };
    for input in [arg("a\0b"), env("", "x"), env("A=B", "x"), env("A", "x\0")] {
        let error = engine.run(&module, &plenty(), &input, None).unwrap_err();
        assert!(matches!(error, SandboxError::Input(_)), "{error}");
    }
}
