//! Runs untrusted WebAssembly under limits: a WASI Preview 1 command (a core module), or a
//! component for WASI 0.2, as a command (`wasi:cli/run`) or one typed call at a time.
//!
//! Nothing is inherited: no environment, no arguments, no files, no network, no standard
//! streams. What a guest gets is written out in [`Bounds`] and [`Input`]; zero and empty mean
//! nothing. Clocks may be read and random bytes (seeded by the operating system) drawn freely.
//! With [`Input::seed`] neither is real, and the same code does the same with the same input.
//!
//! How each limit holds, for both kinds:
//! - **fuel** counts executed WebAssembly operators, except in code that is compiled without a
//!   meter ([`Meter::Time`]), which runs only where the bounds name no number of fuel;
//! - **memory** bounds linear memory and tables together, over all of a component's instances;
//!   what the host holds for one call of the guest is bounded by the same number;
//! - **time** is wall clock. Running code is stopped by an epoch tick ([`TICK`] apart), a guest
//!   that sleeps, polls or waits for a file or a response by dropping its call. A write that was
//!   under way in the operating system at that moment may still finish;
//! - **output** bounds standard output and error together, and the result of a call beside them;
//!   the first byte over it ends the run;
//! - **directories** are opened without following a symbolic link in any component, and the
//!   guest cannot leave them (`openat2` with `RESOLVE_BENEATH` on Linux). Only regular files and
//!   directories open: no pipes, sockets or devices. Guests make no symbolic links, write
//!   through none, and write nothing that runs by itself (spec/files.md);
//! - **the network** is closed: no socket is made and no name looked up. `wasi:http` requests go
//!   to the [`Outgoing`] that the run was given, else each is refused. They end with the run;
//! - **tools** are called through the [`Host`] that the run was given, else each call is refused;
//! - what the host keeps for a component (descriptors, streams, headers, pollables, handles) is
//!   bounded by fixed numbers; over them a call fails or the guest traps.
//!
//! A module is bounded before it is compiled, in its size ([`MODULE_BYTES`], [`CODE_BYTES`]) and in
//! what it instantiates. A [`Compiler`] compiles it in a process with limits of its own; without
//! one, [`Engine::load`] takes the time and memory that the bytes make it take.
//!
//! What is not bounded here: the bytes a guest writes into a directory it may write.
//!
//! Instances live in slots that are mapped once and cleared between guests, where the system has
//! the addresses and they fit; a run that finds no slot waits on its own time.
//!
//! Compiled modules are kept in memory and found again by the SHA-256 of their bytes alone. A
//! [`CodeCache`] keeps them in a folder, where each entry is authenticated before it is believed.
//!
//! On Unix, memory faults of a guest arrive as signals. A program that replaces the handlers of
//! `SIGSEGV`, `SIGILL` or `SIGFPE` must do so before the first [`Engine`] is made.

mod artifact;
mod bounds;
mod cache;
mod call;
mod compiler;
mod dirs;
mod disk;
mod early;
mod engine;
mod error;
mod files;
mod host;
mod limiter;
mod module;
mod outgoing;
mod output;
mod p2;
mod place;
mod pool;
mod replay;
mod run;
mod shape;
mod value;
mod wasi;
mod way;
mod writing;

pub use artifact::ARTIFACT_BYTES;
pub use bounds::{Bounds, Dir, Input};
pub use call::Call;
pub use compiler::{Compiler, serve};
pub use disk::{CACHE_BYTES, CacheCounts, CodeCache};
pub use engine::{Engine, Meter, Source, TICK};
pub use error::SandboxError;
pub use host::{ANSWER_BYTES, ARGS_BYTES, Calling, Host, NAME_BYTES};
pub use module::Module;
pub use outgoing::{
    BODY_BYTES, Body, HEADER_BYTES, HEADERS, Outgoing, PATH_BYTES, REQUESTS, Refusal, Request,
    Response, Sending,
};
pub use run::{Interrupt, Outcome, Status};
pub use shape::{CODE_BYTES, MODULE_BYTES};
pub use value::Value;
