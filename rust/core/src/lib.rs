//! The heart of Moat: what a token allows, what a message asks, what a log line means.
//!
//! No I/O, no clock, no randomness, no async, no unsafe: bytes, keys and times come in as
//! arguments, values go out.
#![forbid(unsafe_code)]

pub mod args;
pub mod attest;
pub mod audit;
pub mod autorun;
pub mod caveat;
pub mod control;
pub mod entry;
pub mod error;
pub mod guard;
pub mod key;
pub mod limits;
pub mod message;
pub mod monitor;
pub mod pattern;
pub mod policy;
pub mod registration;
pub mod registry;
pub mod state;
pub mod token;
pub mod wire;

pub use error::{Axis, Error, Reason, Result, Stage};
