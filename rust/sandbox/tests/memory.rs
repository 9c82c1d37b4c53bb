//! A thousand guests take no more memory than one. In a process of its own: it is all that counts.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use moat_sandbox::{Engine, Status};
use support::{go, plenty};

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_thousand_guests_in_a_row_take_no_more_memory_than_one() {
    let engine = Engine::new().unwrap();
    // One that ends, one that grows its memory until it is refused, one that is a component.
    let guests = ["empty", "grow", "command"].map(|name| support::wat(&engine, name));
    let run = |times| {
        for _ in 0..times {
            for guest in &guests {
                let status = go(&engine, guest, &plenty()).status;
                assert!(matches!(status, Status::Ok | Status::OutOfMemory), "{status:?}");
            }
        }
    };
    run(20);
    let before = resident();
    run(1000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}
