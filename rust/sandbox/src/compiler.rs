//! Compiling in a process of its own, which is given little time and memory and can be stopped.
//!
//! The WebAssembly goes in by a pipe, and what was compiled comes back by another: one byte that
//! says which of [`MADE`] and [`REFUSED`] follows. That process gets no environment of ours, no
//! files and nothing but the bytes; it limits what is for no doubt of its code (it is this very
//! library) but of the bytes, which may be made to take the compiler for ever.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::artifact::{ARTIFACT_BYTES, Artifact};
use crate::engine::{config, guarded};
use crate::error::printable;
use crate::shape;
use crate::{MODULE_BYTES, Meter, SandboxError};

/// Threads that compile one module.
const THREADS: u64 = 4;
/// Bytes of a reason.
const REASON: usize = 4096;
/// A child of a child would be an interpreter that starts itself again and again.
const MARK: &str = "MOAT_COMPILES";

const LIBRARIES: &str = "LD_LIBRARY_PATH";

const MADE: u8 = 1;
const REFUSED: u8 = 2;

/// Starts a process for each module that is compiled. That process has to call [`serve`].
#[derive(Clone, Debug)]
pub struct Compiler {
    /// A program and its arguments; `memory` and `time` follow, in bytes and in seconds, and the
    /// meter: `fuel` or `time`.
    pub program: Vec<OsString>,
    /// Address space of the process, its own code in it.
    pub memory: u64,
    /// For one module: of the clock, and of all processors together.
    pub time: Duration,
}

impl Compiler {
    /// Compiles in a new process.
    ///
    /// # Errors
    /// [`SandboxError::Module`] where the compiler refuses the bytes; [`SandboxError::Compiling`]
    /// where it is given too little, or no such process starts.
    pub(crate) fn compile(&self, bytes: &[u8], meter: Meter) -> Result<Artifact, SandboxError> {
        let mut child = self.start(meter)?;
        let (into, from) = (child.stdin.take(), child.stdout.take());
        let child = Mutex::new(child);
        let kill = || {
            // Not waited for yet, so the number is still that of the child.
            let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
        };
        let (done, ended) = channel::<()>();
        let (answer, late) = thread::scope(|scope| {
            let watch = thread::Builder::new().spawn_scoped(scope, move || {
                let late = ended.recv_timeout(self.time) == Err(RecvTimeoutError::Timeout);
                kill();
                late
            });
            let Ok(watch) = watch else {
                kill();
                return (None, false);
            };
            // It reads all before it writes. Where it is gone, its answer says why.
            let _ = into.map(|mut into| into.write_all(bytes));
            let mut answer = Vec::new();
            let most = u64::try_from(ARTIFACT_BYTES).unwrap_or(u64::MAX).saturating_add(2);
            let read = from.map(|from| from.take(most).read_to_end(&mut answer));
            drop(done);
            let late = watch.join().unwrap_or(true);
            (matches!(read, Some(Ok(_))).then_some(answer), late)
        });
        let status = child.into_inner().unwrap_or_else(PoisonError::into_inner).wait();
        match answer.as_deref().and_then(<[u8]>::split_first) {
            _ if late => Err(self.too_slow()),
            Some((&MADE, made)) if (1..=ARTIFACT_BYTES).contains(&made.len()) => {
                Ok(Artifact::vouched(answer.unwrap_or_default(), 1))
            }
            Some((&REFUSED, why)) => {
                let why = why.get(..REASON).unwrap_or(why);
                Err(SandboxError::Module(printable(&String::from_utf8_lossy(why))))
            }
            _ => Err(self.lost(status.ok())),
        }
    }

    fn start(&self, meter: Meter) -> Result<Child, SandboxError> {
        let failed = |why: String| {
            let next = "set `sys.executable` to a Python interpreter";
            let text = format!("no process to compile in can be started: {why}; {next}");
            SandboxError::Compiling(text)
        };
        if std::env::var_os(MARK).is_some() {
            return Err(failed("this is one already".into()));
        }
        let Some((program, arguments)) = self.program.split_first() else {
            return Err(failed("no program is named".into()));
        };
        // Where this process finds its libraries, that one has to as well.
        let libraries = std::env::var_os(LIBRARIES).map(|path| (LIBRARIES, path));
        Command::new(program)
            .args(arguments)
            .args([self.memory.to_string(), self.seconds().to_string()])
            .arg(match meter {
                Meter::Fuel => "fuel",
                Meter::Time => "time",
            })
            .env_clear()
            .envs(libraries)
            .env(MARK, "1")
            .env("RAYON_NUM_THREADS", THREADS.to_string())
            // Each pool of the allocator takes address space that counts as memory here.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.kind().to_string()))
    }
    fn seconds(&self) -> u64 {
        self.time.as_secs().saturating_add(u64::from(self.time.subsec_nanos() > 0))
    }

    fn too_slow(&self) -> SandboxError {
        let text = "allow more time if the module is to be trusted";
        SandboxError::Compiling(format!("compiling took longer than {:?}; {text}", self.time))
    }

    /// Why there is no answer.
    fn lost(&self, status: Option<ExitStatus>) -> SandboxError {
        const OVER_TIME: i32 = Signal::XCPU.as_raw();
        const ABORTED: i32 = Signal::ABORT.as_raw();
        const KILLED: i32 = Signal::KILL.as_raw();
        match status.and_then(|status| status.signal()) {
            Some(OVER_TIME) => self.too_slow(),
            Some(ABORTED | KILLED) => {
                let memory = self.memory >> 20;
                let text = "allow more memory if the module is to be trusted";
                let text = format!("compiling took more than {memory} MiB of memory; {text}");
                SandboxError::Compiling(text)
            }
            _ => {
                let text = "the process to compile in gave no answer; set `sys.executable` to a \
                            Python interpreter";
                SandboxError::Compiling(text.into())
            }
        }
    }
}

/// The other side: takes limits on, compiles what standard input has, and writes to standard output
/// what [`Compiler`] reads. The process is good for nothing else afterwards.
///
/// # Errors
/// [`SandboxError::Internal`]; nothing was answered then.
pub fn serve(memory: u64, seconds: u64, meter: Meter) -> Result<(), SandboxError> {
    confine(memory, seconds).map_err(|error| SandboxError::Internal(error.to_string()))?;
    let failed = |error: std::io::Error| SandboxError::Internal(error.kind().to_string());
    let mut bytes = Vec::new();
    let most = u64::try_from(MODULE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(failed)?;
    let made = guarded(|| {
        shape::fits(&bytes)?;
        let mut config = config(meter);
        config.parallel_compilation(true);
        let engine = wasmtime::Engine::new(&config).map_err(SandboxError::internal)?;
        Artifact::compile(&engine, &bytes, shape::kind(&bytes)?)
    });
    let (kind, answer) = match &made {
        Ok(artifact) => (MADE, artifact.bytes()),
        Err(SandboxError::Module(why)) => (REFUSED, why.as_bytes()),
        Err(_) => return made.map(drop),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&[kind]).and_then(|()| out.write_all(answer)).map_err(failed)?;
    out.flush().map_err(failed)
}

/// Where a limit is lower already, it stays.
fn confine(memory: u64, seconds: u64) -> rustix::io::Result<()> {
    let limits = [(Resource::As, memory), (Resource::Cpu, seconds), (Resource::Core, 0)];
    for (resource, most) in limits {
        let hard = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })?;
    }
    // Whoever asked is gone: nobody will read the answer.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
