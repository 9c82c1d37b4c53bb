//! One engine per process: the compiler's settings, and the clock that stops runs.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moat_core::key::sha256;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use wasmtime::{Config, EngineWeak, WasmFeatures};

use crate::artifact::Artifact;
use crate::cache::{Cache, Most};
use crate::disk::{Name, hex};
use crate::pool::Places;
use crate::shape::{self, FEATURES};
use crate::{CodeCache, Compiler, Module, SandboxError};

/// Compiled modules that are kept for the next load of the same bytes, and the bytes of machine
/// code and data in them.
const KEPT: Most = Most { entries: 64, bytes: 256 << 20 };

/// How often running guests are asked whether their time is over.
pub const TICK: Duration = Duration::from_millis(10);

/// Compiles and runs modules. Cheap to clone; meant to be made once per process and shared by
/// its threads. The first run with each [`Meter`] starts one background thread; the last clone
/// stops it. A process that was forked makes its own.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    metered: Places,
    /// Made when it is first asked for.
    unmetered: OnceLock<Places>,
    modules: Cache<Module>,
    compiled: AtomicU64,
    process: u32,
}

/// What bounds the work of code; another meter is other machine code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Meter {
    /// Fuel, and time.
    #[default]
    Fuel,
    /// Time alone. Such code runs where the bounds say [`UNMETERED`](moat_core::caveat::UNMETERED),
    /// and nowhere else.
    Time,
}

/// Where machine code comes from that is not in memory. The default is to compile it here, which is
/// for bytes that are trusted not to take the compiler for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// Asked first, and given what was compiled.
    pub cache: Option<&'a CodeCache>,
    /// Compiles in a process of its own.
    pub compiler: Option<&'a Compiler>,
    /// What the code is to be metered by.
    pub meter: Meter,
}

impl Engine {
    /// An engine with nothing loaded.
    ///
    /// # Errors
    /// [`SandboxError::Internal`] when the machine cannot run compiled WebAssembly;
    /// [`SandboxError::Forked`] in a child that was forked while its parent was compiling.
    pub fn new() -> Result<Self, SandboxError> {
        Loading::settle()?;
        Ok(Self(Arc::new(Inner {
            metered: Places::new(Meter::Fuel)?,
            unmetered: OnceLock::new(),
            modules: Cache::new(KEPT),
            compiled: AtomicU64::new(0),
            process: std::process::id(),
        })))
    }

    /// Compiles a core module or a component in binary form, whichever the bytes are. A core
    /// module is a command: it exports `_start` and `memory` and imports nothing but
    /// `wasi_snapshot_preview1`. A component imports nothing but WASI 0.2, `wasi:http` and
    /// `hyperlight:sandbox/tools`; it is a command when it exports `wasi:cli/run`.
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
        self.load_from(bytes, expect_sha256, Source::default())
    }

    /// As [`Engine::load`], from this source where the code is not in memory.
    ///
    /// # Errors
    /// As there; [`SandboxError::Compiling`] where the process that compiles cannot be started or
    /// is given too little.
    pub fn load_from(
        &self,
        bytes: &[u8],
        expect_sha256: Option<[u8; 32]>,
        source: Source<'_>,
    ) -> Result<Module, SandboxError> {
        self.0.here()?;
        let _loading = Loading::begin();
        shape::fits(bytes)?;
        let found = sha256(bytes);
        if let Some(expected) = expect_sha256.filter(|expected| *expected != found) {
            let (expected, found) = (hex(&expected), hex(&found));
            return Err(SandboxError::Digest { expected, found });
        }
        let key = (source.meter, found);
        self.0.modules.get_or_make(key, || guarded(|| self.make(bytes, found, source)))
    }

    /// How many modules were compiled; what was found again is not counted.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.0.compiled.load(Ordering::Relaxed)
    }

    fn make(
        &self,
        bytes: &[u8],
        sha256: [u8; 32],
        source: Source<'_>,
    ) -> Result<(Module, usize), SandboxError> {
        let kind = shape::check(bytes)?;
        let places = self.0.places(source.meter)?;
        let name = Name { environment: places.environment, sha256, meter: source.meter };
        let link = |artifact: &Artifact| places.link(artifact, kind, &name);
        if let Some(kept) = source.cache.and_then(|cache| cache.get(&name)) {
            return link(&kept);
        }
        self.0.compiled.fetch_add(1, Ordering::Relaxed);
        let artifact = match source.compiler {
            Some(compiler) => compiler.compile(bytes, source.meter),
            None => Artifact::compile(&places.plain.wasm, bytes, kind),
        }?;
        let made = link(&artifact)?;
        if let Some(cache) = source.cache {
            cache.put(&name, &artifact);
        }
        Ok(made)
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

    /// Where code of this meter lives.
    pub(crate) fn places(&self, meter: Meter) -> Result<&Places, SandboxError> {
        match (meter, self.unmetered.get()) {
            (Meter::Fuel, _) => Ok(&self.metered),
            (Meter::Time, Some(places)) => Ok(places),
            (Meter::Time, None) => {
                let places = Places::new(meter)?;
                Ok(self.unmetered.get_or_init(|| places))
            }
        }
    }
}

/// The background thread: timers for guests that wait, and a tick for guests that run.
pub(crate) struct Clock {
    runtime: Option<Runtime>,
    pub(crate) handle: Handle,
    running: Arc<Running>,
    process: u32,
}

/// The guests that run now, and how the thread hears of the first.
#[derive(Default)]
struct Running {
    guests: AtomicUsize,
    first: Notify,
}

impl Clock {
    pub(crate) fn start(engines: Vec<EngineWeak>) -> Result<Self, SandboxError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("moat-sandbox")
            .enable_all()
            .build()
            .map_err(|error| SandboxError::internal(error.into()))?;
        let handle = runtime.handle().clone();
        let running = Arc::new(Running::default());
        let seen = Arc::clone(&running);
        handle.spawn(async move {
            loop {
                while seen.guests.load(Ordering::SeqCst) == 0 {
                    seen.first.notified().await;
                }
                tokio::time::sleep(TICK).await;
                for engine in &engines {
                    let Some(wasm) = engine.upgrade() else { return };
                    wasm.increment_epoch();
                }
            }
        });
        Ok(Self { runtime: Some(runtime), handle, running, process: std::process::id() })
    }

    /// Ticks for as long as the guard lives.
    pub(crate) fn ticking(&self) -> Ticking<'_> {
        if self.running.guests.fetch_add(1, Ordering::SeqCst) == 0 {
            // Kept for it where it is not waiting yet.
            self.running.first.notify_one();
        }
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
        self.0.running.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Nobody unwinds through a guest, and registering its frames takes a lock of the whole process.
///
/// Memories beside one another in a module are for what the engine makes itself to join two
/// components; [`shape::check`] lets no guest have them.
pub(crate) fn config(meter: Meter) -> Config {
    let on = FEATURES.union(WasmFeatures::MULTI_MEMORY);
    let mut config = Config::new();
    config
        .wasm_features(on.complement(), false)
        .wasm_features(on, true)
        .concurrency_support(false)
        .consume_fuel(meter == Meter::Fuel)
        .epoch_interruption(true)
        // Its threads would not be there after a fork, and who compiles then would wait for them.
        .parallel_compilation(false)
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
