//! One engine per process: the compiler's settings, the linker and the clock that stops runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moat_core::key::sha256;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use wasmtime::{Config, ExternType, InstancePre, Linker, WasmFeatures};

use crate::SandboxError;
use crate::error::plain;
use crate::wasi::{self, State, WASI};

/// Most bytes of a module. Compiling is bounded by this alone.
pub const MODULE_BYTES: usize = 16 << 20;

/// How often running guests are asked whether their time is over.
pub const TICK: Duration = Duration::from_millis(10);

/// `\0asm`, version 1, as a core module.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// The WebAssembly that is understood: what compilers emit by default for `wasm32-wasi`.
/// Everything else is off, and so is whatever a later version adds.
const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::SIMD);

/// Compiles and runs modules. Cheap to clone; meant to be made once per process and shared by
/// its threads. The first run starts one background thread; the last clone stops it.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) wasm: wasmtime::Engine,
    linker: Linker<State>,
    clock: OnceLock<Clock>,
}

/// A compiled module. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    pub(crate) ready: InstancePre<State>,
    sha256: [u8; 32],
}

impl Engine {
    /// An engine with nothing loaded.
    ///
    /// # Errors
    /// [`SandboxError::Internal`] when the machine cannot run compiled WebAssembly.
    pub fn new() -> Result<Self, SandboxError> {
        let wasm = wasmtime::Engine::new(&config()).map_err(SandboxError::internal)?;
        let linker = wasi::linker(&wasm).map_err(SandboxError::internal)?;
        Ok(Self(Arc::new(Inner { wasm, linker, clock: OnceLock::new() })))
    }

    /// Compiles a command: a core module in binary form that exports `_start` and `memory` and
    /// imports nothing but `wasi_snapshot_preview1`.
    ///
    /// The digest is of exactly the bytes that are compiled, and is compared first.
    ///
    /// # Errors
    /// [`SandboxError::Digest`] when the bytes are not those expected; [`SandboxError::Module`]
    /// when they are not such a module, are over [`MODULE_BYTES`] or use a WebAssembly proposal
    /// that is off; [`SandboxError::Import`] when they import anything else.
    pub fn load(
        &self,
        bytes: &[u8],
        expect_sha256: Option<[u8; 32]>,
    ) -> Result<Module, SandboxError> {
        if bytes.len() > MODULE_BYTES {
            return Err(SandboxError::Module(format!(
                "{} bytes, at most {MODULE_BYTES} are allowed; make it smaller",
                bytes.len()
            )));
        }
        let found = sha256(bytes);
        if let Some(expected) = expect_sha256.filter(|expected| *expected != found) {
            let (expected, found) = (hex(&expected), hex(&found));
            return Err(SandboxError::Digest { expected, found });
        }
        guarded(|| self.compile(bytes, found))
    }

    fn compile(&self, bytes: &[u8], sha256: [u8; 32]) -> Result<Module, SandboxError> {
        if !bytes.starts_with(CORE_MODULE) {
            let text = "give the binary form of a core module, not text or a component";
            return Err(SandboxError::Module(text.into()));
        }
        let module = wasmtime::Module::from_binary(&self.0.wasm, bytes)
            .map_err(|error| SandboxError::Module(plain(&error)))?;
        for import in module.imports() {
            if import.module() != WASI {
                let (from, name) = (import.module(), import.name());
                let name = plain(&wasmtime::format_err!("`{from}::{name}`"));
                return Err(SandboxError::Import(name));
            }
        }
        match module.get_export("_start") {
            Some(ExternType::Func(f)) if f.params().len() == 0 && f.results().len() == 0 => {}
            _ => {
                let text = "it exports no function `_start`; build a command, not a library";
                return Err(SandboxError::Module(text.into()));
            }
        }
        let ready = self.0.linker.instantiate_pre(&module);
        let ready = ready.map_err(|error| SandboxError::Import(plain(&error)))?;
        Ok(Module { ready, sha256 })
    }
}

impl Module {
    /// SHA-256 of the bytes that were compiled.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

impl Inner {
    /// The running clock, started when first needed.
    pub(crate) fn clock(&self) -> Result<&Clock, SandboxError> {
        let clock = match self.clock.get() {
            Some(clock) => clock,
            None => {
                let clock = Clock::start(&self.wasm)?;
                self.clock.get_or_init(|| clock)
            }
        };
        if clock.process == std::process::id() { Ok(clock) } else { Err(SandboxError::Forked) }
    }
}

/// The background thread: timers for guests that wait, and a tick for guests that run.
pub(crate) struct Clock {
    runtime: Option<Runtime>,
    pub(crate) handle: Handle,
    running: watch::Sender<usize>,
    process: u32,
}

impl Clock {
    fn start(wasm: &wasmtime::Engine) -> Result<Self, SandboxError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("moat-sandbox")
            .enable_time()
            .build()
            .map_err(|error| SandboxError::internal(error.into()))?;
        let handle = runtime.handle().clone();
        let (running, mut seen) = watch::channel(0_usize);
        let weak = wasm.weak();
        handle.spawn(async move {
            while seen.wait_for(|guests| *guests > 0).await.is_ok() {
                tokio::time::sleep(TICK).await;
                let Some(wasm) = weak.upgrade() else { return };
                wasm.increment_epoch();
            }
        });
        Ok(Self { runtime: Some(runtime), handle, running, process: std::process::id() })
    }

    /// Ticks for as long as the guard lives.
    pub(crate) fn ticking(&self) -> Ticking<'_> {
        self.running.send_modify(|guests| *guests = guests.saturating_add(1));
        Ticking(self)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        if self.process == std::process::id() {
            runtime.shutdown_background();
        } else {
            // After a fork its threads are not here to be stopped.
            std::mem::forget(runtime);
        }
    }
}

pub(crate) struct Ticking<'a>(&'a Clock);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.running.send_modify(|guests| *guests = guests.saturating_sub(1));
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(FEATURES.complement(), false)
        .wasm_features(FEATURES, true)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(None);
    config
}

/// A panic of the compiler or runtime is a failed call, not a failed process.
pub(crate) fn guarded<T>(
    body: impl FnOnce() -> Result<T, SandboxError>,
) -> Result<T, SandboxError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(SandboxError::Internal("it panicked; please report this".into())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
