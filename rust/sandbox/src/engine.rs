//! One engine per process: the compiler's settings, the linker and the clock that stops runs.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moat_core::key::sha256;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use wasmtime::{Config, WasmFeatures};

use crate::cache::{Cache, Most};
use crate::module::{Linkers, compile};
use crate::shape::{self, FEATURES};
use crate::{Module, SandboxError, p2, wasi};

/// Compiled modules that are kept for the next load of the same bytes, and the bytes of machine
/// code and data in them.
const KEPT: Most = Most { entries: 64, bytes: 256 << 20 };

/// How often running guests are asked whether their time is over.
pub const TICK: Duration = Duration::from_millis(10);

/// Compiles and runs modules. Cheap to clone; meant to be made once per process and shared by
/// its threads. The first run starts one background thread; the last clone stops it. A process
/// that was forked makes its own.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) wasm: wasmtime::Engine,
    linkers: Linkers,
    clock: OnceLock<Clock>,
    modules: Cache<Module>,
    compiled: AtomicU64,
    process: u32,
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
        let linkers = Linkers {
            module: wasi::linker(&wasm).map_err(SandboxError::internal)?,
            component: p2::linker(&wasm).map_err(SandboxError::internal)?,
        };
        Ok(Self(Arc::new(Inner {
            wasm,
            linkers,
            clock: OnceLock::new(),
            modules: Cache::new(KEPT),
            compiled: AtomicU64::new(0),
            process: std::process::id(),
        })))
    }

    /// Compiles a core module or a component in binary form, whichever the bytes are. A core
    /// module is a command: it exports `_start` and `memory` and imports nothing but
    /// `wasi_snapshot_preview1`. A component imports nothing but WASI 0.2 and `wasi:http`; it is
    /// a command when it exports `wasi:cli/run`.
    ///
    /// The digest is of exactly the bytes that are compiled, and is compared first. Bytes that
    /// were compiled before are found again by their digest, as long as there is room for them;
    /// threads that load the same ones at once compile them once.
    ///
    /// # Errors
    /// [`SandboxError::Digest`] when the bytes are not those expected; [`SandboxError::Module`]
    /// when they are neither, are over [`crate::MODULE_BYTES`] or [`crate::CODE_BYTES`],
    /// instantiate too much or use a WebAssembly proposal that is off; [`SandboxError::Import`]
    /// when they import anything else; [`SandboxError::Forked`] in a child process.
    pub fn load(
        &self,
        bytes: &[u8],
        expect_sha256: Option<[u8; 32]>,
    ) -> Result<Module, SandboxError> {
        self.0.here()?;
        let _loading = Loading::begin();
        shape::fits(bytes)?;
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

    fn compile(&self, bytes: &[u8], sha256: [u8; 32]) -> Result<(Module, usize), SandboxError> {
        let kind = shape::check(bytes)?;
        self.0.compiled.fetch_add(1, Ordering::Relaxed);
        compile(&self.0.wasm, &self.0.linkers, bytes, kind, sha256)
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
            .enable_all()
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
///
/// Memories beside one another in a module are for what the engine makes itself to join two
/// components; [`shape::check`] lets no guest have them.
fn config() -> Config {
    let on = FEATURES.union(WasmFeatures::MULTI_MEMORY);
    let mut config = Config::new();
    config
        .wasm_features(on.complement(), false)
        .wasm_features(on, true)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
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
