//! Why a module was not run at all. What happens *in* a run is a [`crate::Status`].

use std::path::PathBuf;

use thiserror::Error;

/// The run did not start, or the sandbox itself failed; nothing of the guest can be trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Not a WebAssembly command or component, or one that uses a refused proposal.
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
    /// The module asks for something other than WASI.
    #[error("import refused: {0}; build for WASI preview 1 or 0.2 without other imports")]
    Import(String),
    /// A directory cannot be given to the guest.
    #[error("directory `{path}` refused: {why}")]
    Directory {
        /// As asked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A directory holds a folder that no guest is to reach, or lies in one.
    #[error(
        "directory `{path}` and `{folder}`, which holds keys or a log, are not apart; name another"
    )]
    Exposed {
        /// As asked for.
        path: PathBuf,
        /// What it would give away.
        folder: PathBuf,
    },
    /// Compiling took too much, or there is no process to compile in.
    #[error("{0}")]
    Compiling(String),
    /// A folder is not fit to keep compiled code in.
    #[error("cache folder `{path}` refused: {why}")]
    Cache {
        /// As it was named.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An argument or environment variable that cannot be passed, or a limit of the wrong shape.
    #[error("{0}")]
    Input(String),
    /// The engine was made in another process (before a fork), or in the middle of a load there.
    #[error(
        "compiled code belongs to the process that was forked; load it again, or start a new \
         process where that one was compiling"
    )]
    Forked,
    /// A fault of the sandbox.
    #[error("the sandbox failed: {0}")]
    Internal(String),
}

impl SandboxError {
    pub(crate) fn internal(error: wasmtime::Error) -> Self {
        Self::Internal(plain(&error))
    }
}

/// Characters of a fault's description.
const TEXT: usize = 256;

/// What went wrong in one printable line: parts of it may come from the guest.
pub(crate) fn plain(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"))
}

/// One line of what may come from the guest.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| {
        let shown = c == ' ' || c.is_ascii_graphic();
        let (kept, escaped) = (shown.then_some(c), (!shown).then(|| c.escape_default()));
        kept.into_iter().chain(escaped.into_iter().flatten())
    };
    text.chars().flat_map(escape).take(TEXT).collect()
}
