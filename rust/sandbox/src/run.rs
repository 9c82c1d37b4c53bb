//! One run: a fresh store, three ways to end it, and a grade.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use moat_core::caveat::UNMETERED;
use thiserror::Error;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::{sleep_until, timeout};
use wasmtime::component::{ComponentExportIndex, Val};
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::call::Call;
use crate::engine::{Clock, Inner, guarded};
use crate::error::plain;
use crate::module::{Linked, Ready};
use crate::output::Capture;
use crate::pool::Place;
use crate::value::{Value, lift};
use crate::wasi::{self, Guest, State};
use crate::{Bounds, Engine, Input, Meter, Module, SandboxError};

/// Longest run, whatever the bounds say: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the end of a run waits for requests that were dropped to be gone.
const SETTLE: Duration = Duration::from_secs(1);
/// Handles that a component may hold in the tables of the component model, its own and the host's.
const HANDLES: usize = 4096;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The guest returned, or exited with 0.
    Ok,
    /// The guest exited with this code, not 0.
    Exit(i32),
    /// The fuel was used up.
    OutOfFuel,
    /// The module needs more memory than it may have, or trapped after it was refused more.
    OutOfMemory,
    /// The time was over, whether the guest was running, sleeping or waiting.
    TimedOut,
    /// The guest wrote more than it may.
    OutputFull,
    /// The guest faulted: what happened, in one line.
    Trap(String),
    /// [`Interrupt::interrupt`] was called.
    Interrupted,
}

impl Status {
    /// A stable name for logs: `ok`, `exit`, `out_of_fuel`, `out_of_memory`, `timed_out`,
    /// `output_full`, `trap` or `interrupted`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Exit(_) => "exit",
            Self::OutOfFuel => "out_of_fuel",
            Self::OutOfMemory => "out_of_memory",
            Self::TimedOut => "timed_out",
            Self::OutputFull => "output_full",
            Self::Trap(_) => "trap",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What a run did and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What was written to standard output, up to the bound.
    pub stdout: Vec<u8>,
    /// What was written to standard error, up to the bound.
    pub stderr: Vec<u8>,
    /// Fuel units, at most `Bounds::fuel`. Exact when the guest ended by itself or ran out of fuel;
    /// when it was stopped or trapped, what it had used at its last call is counted. Code that
    /// counts none ([`Meter::Time`]) is charged for all it had: `UNMETERED`.
    pub fuel_used: u64,
    /// Most bytes of linear memory and tables at once, at most `Bounds::memory`.
    pub memory_peak: u64,
    /// Wall-clock time of the whole call.
    pub elapsed: Duration,
    /// Something written is missing from `stdout` or `stderr`.
    pub truncated: bool,
    /// What a call gave back; `None` for a run, and for a call that did not end well.
    pub result: Option<Value>,
}

/// A handle that stops runs from another thread. Clones are the same handle; it stays set.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<watch::Sender<bool>>);

impl Interrupt {
    /// A handle that has not been used.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Stops every run that was given this handle, within one [`crate::TICK`], and every later one.
    pub fn interrupt(&self) {
        self.0.send_replace(true);
    }
}

impl Default for Interrupt {
    fn default() -> Self {
        Self::new()
    }
}

/// What ends a guest besides itself and wasmtime.
#[derive(Clone, Copy, Debug, Error)]
pub(crate) enum Stop {
    #[error("exit {0}")]
    Exit(i32),
    #[error("out of time")]
    TimedOut,
    #[error("output full")]
    OutputFull,
    #[error("interrupted")]
    Interrupted,
}

impl Engine {
    /// Runs a command once, to its end or to its first bound, on the calling thread.
    ///
    /// Runs share nothing; several threads may run at once. Do not call this from inside an
    /// asynchronous runtime's own thread: it blocks.
    ///
    /// # Errors
    /// [`SandboxError::Module`], [`SandboxError::Directory`] and [`SandboxError::Input`] before
    /// anything runs; [`SandboxError::Forked`] in a child process; [`SandboxError::Internal`] when
    /// the sandbox itself failed. Whatever the guest does is an [`Outcome`].
    pub fn run(
        &self,
        module: &Module,
        bounds: &Bounds,
        input: &Input,
        interrupt: Option<&Interrupt>,
    ) -> Result<Outcome, SandboxError> {
        module.command()?;
        guarded(|| run(&self.0, module, None, bounds, input, interrupt))
    }

    /// Makes one typed call in a fresh instance, under the same bounds as [`Engine::run`]. The
    /// text of the result counts as output.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn call(
        &self,
        call: &Call,
        bounds: &Bounds,
        input: &Input,
        interrupt: Option<&Interrupt>,
    ) -> Result<Outcome, SandboxError> {
        guarded(|| run(&self.0, &call.module, Some(call), bounds, input, interrupt))
    }
}

fn run(
    engine: &Inner,
    module: &Module,
    call: Option<&Call>,
    bounds: &Bounds,
    input: &Input,
    interrupt: Option<&Interrupt>,
) -> Result<Outcome, SandboxError> {
    let end = End::new(bounds.time, interrupt);
    engine.here()?;
    input.check()?;
    module.keeps(bounds, input.seed.is_some())?;
    let places = engine.places(module.meter())?;
    let (place, clock) = (places.of(module)?, places.clock()?);
    // Freed after the store, which has what they count.
    let slots = slots(place, module.slots, &end, clock);
    let capture = Capture::new(bounds.output);
    let guest = if module.is_component() { Guest::Component } else { Guest::Module };
    let mut store = Store::new(&place.wasm, State::new(guest, bounds, input, &capture)?);
    store.set_hostcall_fuel(wasi::call_bytes(bounds.memory));
    store.set_max_component_handles(HANDLES);
    if module.meter() == Meter::Fuel {
        store.set_fuel(bounds.fuel).map_err(SandboxError::internal)?;
    }
    store.limiter(|state| &mut state.limiter);
    store.set_epoch_deadline(1);
    let watch = end.clone();
    store.epoch_deadline_callback(move |_| match watch.reached() {
        Some(stop) => Err(stop.into()),
        None => Ok(UpdateDeadline::Continue(1)),
    });

    let ended = if bounds.fuel == 0 {
        Err(Trap::OutOfFuel.into())
    } else if let Some(stop) = end.reached() {
        Err(stop.into())
    } else if let Err(stop) = slots {
        Err(stop)
    } else {
        let _ticking = clock.ticking();
        let done = clock.handle.block_on(until(&end, start(&mut store, module, call)));
        done.and_then(|value| capture.room_for(value))
    };

    let fuel_used = spent(&store, module.meter(), bounds)?;
    let (refused, memory_peak) = (store.data().limiter.refused(), store.data().limiter.peak());
    // What the guest left under way is dropped with its store, and waited for: nothing of a run
    // goes on after it.
    let settled = store.data().requests.settled();
    drop(store);
    if let Some(settled) = settled {
        let _ = clock.handle.block_on(async { timeout(SETTLE, settled).await });
    }
    let captured = capture.take();
    let (status, result) = grade(ended, refused);
    Ok(Outcome {
        status,
        stdout: captured.stdout,
        stderr: captured.stderr,
        fuel_used,
        memory_peak,
        elapsed: end.started.elapsed(),
        truncated: captured.truncated,
        result,
    })
}

/// What was counted; without a meter that is all there was.
fn spent(store: &Store<State>, meter: Meter, bounds: &Bounds) -> Result<u64, SandboxError> {
    match meter {
        Meter::Fuel => {
            let left = store.get_fuel().map_err(SandboxError::internal)?;
            Ok(bounds.fuel.saturating_sub(left))
        }
        Meter::Time => Ok(UNMETERED),
    }
}

/// Waits for slots, where there are slots, for as long as the run has time.
fn slots<'a>(
    place: &'a Place,
    count: u32,
    end: &End,
    clock: &Clock,
) -> wasmtime::Result<Option<SemaphorePermit<'a>>> {
    let Some(free) = &place.slots else { return Ok(None) };
    if let Ok(held) = free.try_acquire_many(count) {
        return Ok(Some(held));
    }
    let wait = async { free.acquire_many(count).await.map_err(wasmtime::Error::from) };
    clock.handle.block_on(until(end, wait)).map(Some)
}

/// Instantiates the module and does what was asked of it.
async fn start(
    store: &mut Store<State>,
    module: &Module,
    call: Option<&Call>,
) -> wasmtime::Result<Option<Value>> {
    match (&module.ready, call) {
        (Ready::Module(pre), _) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
            start.call_async(store, ()).await?;
            Ok(None)
        }
        (Ready::Component(linked), Some(call)) => invoke(store, linked, call).await.map(Some),
        (Ready::Component(linked), None) => {
            let run = linked.run.as_ref().ok_or_else(|| wasmtime::format_err!("no command"))?;
            command(store, linked, run).await.map(|()| None)
        }
    }
}

async fn command(
    store: &mut Store<State>,
    linked: &Linked,
    run: &ComponentExportIndex,
) -> wasmtime::Result<()> {
    let instance = linked.pre.instantiate_async(&mut *store).await?;
    let run = instance.get_typed_func::<(), (Result<(), ()>,)>(&mut *store, run)?;
    match run.call_async(store, ()).await? {
        (Ok(()),) => Ok(()),
        (Err(()),) => Err(Stop::Exit(1).into()),
    }
}

async fn invoke(store: &mut Store<State>, linked: &Linked, call: &Call) -> wasmtime::Result<Value> {
    let instance = linked.pre.instantiate_async(&mut *store).await?;
    let function = instance.get_func(&mut *store, call.function);
    let function = function.ok_or_else(|| wasmtime::format_err!("no such function"))?;
    let mut results = vec![Val::Bool(false); usize::from(call.result.is_some())];
    function.call_async(store, &call.args, &mut results).await?;
    Ok(match (results.pop(), &call.result) {
        (Some(val), Some(ty)) => lift(val, ty),
        _ => Value::Nothing,
    })
}

/// The guest's own end, or the drop of a guest that waits in a host call.
async fn until<T>(
    end: &End,
    guest: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let mut guest = pin!(guest);
    let mut clock = pin!(sleep_until(end.at.into()));
    let mut interrupt = pin!(end.interrupted());
    poll_fn(|cx| {
        if let Poll::Ready(ended) = guest.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if interrupt.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Stop::Interrupted.into()));
        }
        clock.as_mut().poll(cx).map(|()| Err(Stop::TimedOut.into()))
    })
    .await
}

/// When a run must end, whatever its guest does.
#[derive(Clone)]
struct End {
    started: Instant,
    at: Instant,
    interrupt: Option<watch::Receiver<bool>>,
}

impl End {
    fn new(time: Duration, interrupt: Option<&Interrupt>) -> Self {
        let started = Instant::now();
        let at = started + time.min(LONGEST);
        Self { started, at, interrupt: interrupt.map(|handle| handle.0.subscribe()) }
    }

    fn reached(&self) -> Option<Stop> {
        if self.interrupt.as_ref().is_some_and(|stop| *stop.borrow()) {
            Some(Stop::Interrupted)
        } else {
            (Instant::now() >= self.at).then_some(Stop::TimedOut)
        }
    }

    async fn interrupted(&self) {
        if let Some(mut stop) = self.interrupt.clone()
            && stop.wait_for(|stop| *stop).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// A guest that was refused memory and then faults is out of memory: that is how allocators and
/// language runtimes give up.
fn grade(ended: wasmtime::Result<Option<Value>>, refused: bool) -> (Status, Option<Value>) {
    let error = match ended {
        Ok(result) => return (Status::Ok, result),
        Err(error) => error,
    };
    let exit = |code| if code == 0 { Status::Ok } else { Status::Exit(code) };
    let stopped = error.downcast_ref::<Stop>().map(|stop| match stop {
        Stop::Exit(code) => exit(*code),
        Stop::TimedOut => Status::TimedOut,
        Stop::OutputFull => Status::OutputFull,
        Stop::Interrupted => Status::Interrupted,
    });
    let exited = error.downcast_ref::<I32Exit>().map(|code| exit(code.0));
    let status = stopped.or(exited).unwrap_or_else(|| match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Status::OutOfFuel,
        _ if refused => Status::OutOfMemory,
        Some(trap) => Status::Trap(trap.to_string()),
        None => Status::Trap(plain(&error)),
    });
    (status, None)
}
