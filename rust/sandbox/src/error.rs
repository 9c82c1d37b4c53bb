//! Why a module was not run at all. What happens *in* a run is a [`crate::Status`].

use std::path::PathBuf;

use thiserror::Error;

/// The run did not start, or the sandbox itself failed; nothing of the guest can be trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Not a WebAssembly core module with a `_start`, or one that uses a refused proposal.
    #[error("not a module this sandbox runs: {0}")]
    Module(String),
    /// The bytes are not those that were expected.
    #[error(
        "the module's sha-256 is `{found}`, expected `{expected}`; run the module that was named"
    )]
    Digest {
        /// In hex.
        expected: String,
        /// In hex.
        found: String,
    },
    /// The module asks for something other than WASI Preview 1.
    #[error("import refused: {0}; build for `wasm32-wasi` (preview 1) without other imports")]
    Import(String),
    /// A directory cannot be given to the guest.
    #[error("directory `{path}` refused: {why}")]
    Directory {
        /// As asked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An argument or environment variable that cannot be passed, or a limit of the wrong shape.
    #[error("{0}")]
    Input(String),
    /// The engine was made in another process (before a fork); its threads are not here.
    #[error("this engine belongs to another process; make a new one after a fork")]
    Forked,
    /// A fault of the sandbox.
    #[error("the sandbox failed: {0}")]
    Internal(String),
}

impl SandboxError {
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}
