//! One engine per process: the compiler's settings, the linker and the clock that stops runs.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moat_core::key::sha256;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use wasmtime::{Config, ExternType, InstancePre, Linker, WasmFeatures};

use crate::SandboxError;
use crate::cache::{Cache, Most};
use crate::error::plain;
use crate::wasi::{self, State, WASI};

/// Most bytes of a module.
pub const MODULE_BYTES: usize = 32 << 20;

/// Most bytes of a module without its data and its custom sections (names, debugging): what there
/// is to compile. Compiling is bounded by this alone.
pub const CODE_BYTES: usize = 16 << 20;

/// Compiled modules that are kept for the next load of the same bytes, and the bytes of machine
/// code and data in them.
const KEPT: Most = Most { entries: 64, bytes: 256 << 20 };

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
/// its threads. The first run starts one background thread; the last clone stops it. A process
/// that was forked makes its own.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) wasm: wasmtime::Engine,
    linker: Linker<State>,
    clock: OnceLock<Clock>,
    modules: Cache<Module>,
    compiled: AtomicU64,
    process: u32,
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
    /// [`SandboxError::Internal`] when the machine cannot run compiled WebAssembly;
    /// [`SandboxError::Forked`] in a child that was forked while its parent was compiling.
    pub fn new() -> Result<Self, SandboxError> {
        Loading::settle()?;
        let wasm = wasmtime::Engine::new(&config()).map_err(SandboxError::internal)?;
        let linker = wasi::linker(&wasm).map_err(SandboxError::internal)?;
        Ok(Self(Arc::new(Inner {
            wasm,
            linker,
            clock: OnceLock::new(),
            modules: Cache::new(KEPT),
            compiled: AtomicU64::new(0),
            process: std::process::id(),
        })))
    }

    /// Compiles a command: a core module in binary form that exports `_start` and `memory` and
    /// imports nothing but `wasi_snapshot_preview1`.
    ///
    /// The digest is of exactly the bytes that are compiled, and is compared first. Bytes that
    /// were compiled before are found again by their digest, as long as there is room for them;
    /// threads that load the same ones at once compile them once.
    ///
    /// # Errors
    /// [`SandboxError::Digest`] when the bytes are not those expected; [`SandboxError::Module`]
    /// when they are not such a module, are over [`MODULE_BYTES`] or [`CODE_BYTES`] or use a
    /// WebAssembly proposal that is off; [`SandboxError::Import`] when they import anything else;
    /// [`SandboxError::Forked`] in a child process.
    pub fn load(
        &self,
        bytes: &[u8],
        expect_sha256: Option<[u8; 32]>,
    ) -> Result<Module, SandboxError> {
        self.0.here()?;
        let _loading = Loading::begin();
        if bytes.len() > MODULE_BYTES {
            return Err(too_big("bytes", bytes.len(), MODULE_BYTES));
        }
        let found = sha256(bytes);
        if let Some(expected) = expect_sha256.filter(|expected| *expected != found) {
            let (expected, found) = (hex(&expected), hex(&found));
            return Err(SandboxError::Digest { expected, found });
        }
        self.0.modules.get_or_make(found, || guarded(|| self.compile(bytes, found)))
    }

    /// How many modules were compiled; what was found again is not counted.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.0.compiled.load(Ordering::Relaxed)
    }

    /// The module, and the bytes of memory that it is.
    fn compile(&self, bytes: &[u8], sha256: [u8; 32]) -> Result<(Module, usize), SandboxError> {
        if !bytes.starts_with(CORE_MODULE) {
            let text = "give the binary form of a core module, not text or a component";
            return Err(SandboxError::Module(text.into()));
        }
        let code = code_bytes(bytes);
        if code > CODE_BYTES {
            return Err(too_big("bytes of code", code, CODE_BYTES));
        }
        self.0.compiled.fetch_add(1, Ordering::Relaxed);
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
        let image = module.image_range();
        let size = image.end.addr().saturating_sub(image.start.addr());
        Ok((Module { ready, sha256 }, size))
    }
}

/// A load under way in this process. What it has locked at a fork stays locked in the child for
/// ever (wasmtime keeps one list of code for a process), so that child gets no engine.
struct Loading;

static LOADING: AtomicUsize = AtomicUsize::new(0);
static PROCESS: AtomicU32 = AtomicU32::new(0);

impl Loading {
    fn begin() -> Self {
        LOADING.fetch_add(1, Ordering::SeqCst);
        Self
    }

    /// Takes the process for ours, unless it is a child of one that was in the middle of a load.
    fn settle() -> Result<(), SandboxError> {
        let (here, owner) = (std::process::id(), PROCESS.load(Ordering::SeqCst));
        if owner != here && LOADING.load(Ordering::SeqCst) > 0 {
            return Err(SandboxError::Forked);
        }
        PROCESS.store(here, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        LOADING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes of all sections but data and custom ones. What has no form of a section counts in full.
fn code_bytes(module: &[u8]) -> usize {
    const CUSTOM: u8 = 0;
    const DATA: u8 = 11;
    let mut rest = module.get(CORE_MODULE.len()..).unwrap_or_default();
    let mut code = 0_usize;
    while let Some((&id, body)) = rest.split_first() {
        let section = leb128(body).and_then(|(size, body)| body.split_at_checked(size));
        let Some((section, after)) = section else {
            return code.saturating_add(rest.len());
        };
        if !matches!(id, CUSTOM | DATA) {
            code = code.saturating_add(section.len());
        }
        rest = after;
    }
    code
}

/// An unsigned 32-bit LEB128 number, as WebAssembly writes sizes, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}

fn too_big(what: &str, found: usize, most: usize) -> SandboxError {
    let text = format!("{found} {what}, at most {most} are allowed; make it smaller");
    SandboxError::Module(text)
}

impl Module {
    /// SHA-256 of the bytes that were compiled.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

impl Inner {
    /// Refuses a forked child: neither threads nor locks of its parent work here.
    pub(crate) fn here(&self) -> Result<(), SandboxError> {
        if self.process == std::process::id() { Ok(()) } else { Err(SandboxError::Forked) }
    }

    /// The running clock, started when first needed.
    pub(crate) fn clock(&self) -> Result<&Clock, SandboxError> {
        match self.clock.get() {
            Some(clock) => Ok(clock),
            None => {
                let clock = Clock::start(&self.wasm)?;
                Ok(self.clock.get_or_init(|| clock))
            }
        }
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

/// Nobody unwinds through a guest, and registering its frames takes a lock of the whole process.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(FEATURES.complement(), false)
        .wasm_features(FEATURES, true)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .native_unwind_info(false)
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
