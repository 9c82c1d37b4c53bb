//! Machine code as the compiler wrote it down, and the one place where it is believed.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::SandboxError;
use crate::error::plain;
use crate::shape::Kind;

/// Most bytes of one artifact; a module at the limits of [`crate::MODULE_BYTES`] stays far below.
pub const ARTIFACT_BYTES: usize = 512 << 20;

/// What an engine with this digest compiled: a private buffer, whose contents nobody else can
/// change, from `at` on.
///
/// INVARIANT: made in three places, from bytes that came from this very compiler: here, by
/// [`crate::Compiler`] from its own child, and by [`crate::CodeCache`] once the bytes are
/// authenticated.
pub(crate) struct Artifact {
    buffer: Vec<u8>,
    at: usize,
}

impl Artifact {
    /// Compiles, in this process.
    ///
    /// # Errors
    /// [`SandboxError::Module`].
    pub(crate) fn compile(engine: &Engine, bytes: &[u8], kind: Kind) -> Result<Self, SandboxError> {
        let made = match kind {
            Kind::Module => engine.precompile_module(bytes),
            Kind::Component => engine.precompile_component(bytes),
        };
        made.map(|buffer| Self::vouched(buffer, 0))
            .map_err(|error| SandboxError::Module(plain(&error)))
    }

    /// Takes bytes whose origin the caller answers for.
    pub(crate) fn vouched(buffer: Vec<u8>, at: usize) -> Self {
        Self { buffer, at }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    #[allow(unsafe_code, reason = "there is no safe way to take back what was compiled")]
    pub(crate) fn module(&self, engine: &Engine) -> wasmtime::Result<wasmtime::Module> {
        // SAFETY: unchanged bytes of `precompile_module`, by the invariant of the type. What an
        // engine of another version or with other settings wrote is refused with an error.
        unsafe { wasmtime::Module::deserialize(engine, self.bytes()) }
    }

    #[allow(unsafe_code, reason = "there is no safe way to take back what was compiled")]
    pub(crate) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: as above, of `precompile_component`.
        unsafe { Component::deserialize(engine, self.bytes()) }
    }
}

/// A digest of all that decides which machine code comes out: the compiler's version, its target
/// and its settings.
pub(crate) fn environment(engine: &Engine) -> [u8; 32] {
    let mut fold = Fold(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut fold);
    fold.0.finalize().into()
}

/// Feeds what is hashed to SHA-256: 64 bits would not tell all settings apart for certain.
struct Fold(Sha256);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Never asked for.
    fn finish(&self) -> u64 {
        0
    }
}
