//! Runs an untrusted WASI Preview 1 command (a core module) under limits.
//!
//! Nothing is inherited: no environment, no arguments, no files, no network, no standard
//! streams. What a guest gets is written out in [`Bounds`] and [`Input`]; zero and empty mean
//! nothing. Clocks may be read and random bytes (seeded by the operating system) drawn freely.
//!
//! How each limit holds:
//! - **fuel** counts executed WebAssembly operators;
//! - **memory** bounds linear memory and tables together; what the host holds for one call of
//!   the guest is bounded by the same number;
//! - **time** is wall clock. Running code is stopped by an epoch tick ([`TICK`] apart), a guest
//!   that sleeps or waits for a file by dropping its call. A write that was under way in the
//!   operating system at that moment may still finish;
//! - **output** bounds standard output and error together; the first byte over it ends the run;
//! - **directories** are opened without following a symbolic link in any component, and the
//!   guest cannot leave them (`openat2` with `RESOLVE_BENEATH` on Linux). Only regular files and
//!   directories open: no pipes, sockets or devices. Guests make no symbolic links.
//!
//! What is not bounded here: the time to compile a module (only its size, [`MODULE_BYTES`] and
//! [`CODE_BYTES`]), and the bytes a guest writes into a directory it may write.
//!
//! Compiled modules are kept in memory and found again by the SHA-256 of their bytes alone. They
//! are never written to a disk: what is loaded from one would be machine code that nobody checks.
//!
//! On Unix, memory faults of a guest arrive as signals. A program that replaces the handlers of
//! `SIGSEGV`, `SIGILL` or `SIGFPE` must do so before the first [`Engine`] is made.

mod bounds;
mod cache;
mod dirs;
mod engine;
mod error;
mod limiter;
mod output;
mod run;
mod wasi;

pub use bounds::{Bounds, Dir, Input};
pub use engine::{CODE_BYTES, Engine, MODULE_BYTES, Module, TICK};
pub use error::SandboxError;
pub use run::{Interrupt, Outcome, Status};
