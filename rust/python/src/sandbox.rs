//! Modules and their runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moat_core::key::sha256;
use moat_log::End;
use moat_sandbox::{
    Bounds, CodeCache, Compiler, Engine, Input, Interrupt, Meter, Outcome, Outgoing, SandboxError,
    Source, Status, Value,
};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::caveat::Limits;
use crate::egress::Egress;
use crate::fault::{Fault, Result, exception, note};
use crate::outgoing::Way;
use crate::permit::Permit;
use crate::toolbox::{Serving, Toolbox};
use crate::value;

/// Before the digest of a module, in the seed of its deterministic runs.
const SEED: &[u8] = b"moat-deterministic-v1\n";

/// The engine of this process; a fork gets its own. Python holds its lock for as long as this one
/// is taken, so a fork of Python's never finds it taken.
fn engine(_held: Python<'_>) -> std::result::Result<Engine, SandboxError> {
    static ENGINE: Mutex<Option<(u32, Engine)>> = Mutex::new(None);
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match engine.as_ref() {
        Some((owner, engine)) if *owner == process => Ok(engine.clone()),
        _ => {
            let fresh = Engine::new()?;
            let old = engine.replace((process, fresh.clone()));
            // The parent's, if there is one: its threads are not here to be stopped.
            std::mem::forget(old);
            Ok(fresh)
        }
    }
}

pub(crate) fn raise(py: Python<'_>, error: &SandboxError) -> Fault {
    let class = match error {
        SandboxError::Module(_) | SandboxError::Input(_) => "MalformedInput",
        SandboxError::Exposed { .. } => "KeysExposed",
        _ => "SandboxError",
    };
    Fault::Py(exception(py, class, error))
}

/// The bounds that limits mean, where their directories are apart from these folders.
pub(crate) fn apart(
    limits: &moat_core::caveat::Limits,
    folders: &[PathBuf],
) -> std::result::Result<Bounds, SandboxError> {
    let bounds = Bounds::from_limits(limits)?;
    bounds.keep_apart(folders)?;
    Ok(bounds)
}

/// Refuse limits with a directory that holds one of these folders or lies in one: ``KeysExposed``.
#[pyfunction]
pub(crate) fn keep_apart(py: Python<'_>, limits: &Limits, folders: Vec<PathBuf>) -> Result<()> {
    let found = py.detach(|| apart(&limits.0, &folders));
    found.map(drop).map_err(|error| raise(py, &error))
}

/// A folder of compiled code, each entry authenticated with a secret of 32 bytes.
#[pyclass(frozen, module = "moat._native", from_py_object)]
#[derive(Clone)]
pub(crate) struct CodeFolder {
    cache: CodeCache,
    /// Where the secret lies.
    file: PathBuf,
}

#[pymethods]
impl CodeFolder {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, key: &[u8], file: PathBuf) -> Result<Self> {
        let key: &[u8; 32] = key.try_into().map_err(|_| {
            let shown = file.display();
            let text = format!("`{shown}` does not hold 32 bytes; remove it to have a new secret");
            Fault::Py(exception(py, "MalformedInput", text))
        })?;
        let cache = py.detach(|| CodeCache::open(&folder, key));
        let cache = cache.map_err(|error| raise(py, &error))?;
        Ok(Self { cache, file })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.cache.path().to_owned()
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.cache.counts();
        let dict = PyDict::new(py);
        dict.set_item("found", counts.found)?;
        dict.set_item("missed", counts.missed)?;
        dict.set_item("refused", counts.refused)?;
        dict.set_item("unwritten", counts.unwritten)?;
        Ok(dict)
    }
}

/// Take on limits (bytes of address space, seconds of processors), compile standard input, with a
/// meter or without, and write to standard output what ``Module`` reads. The process is good for
/// nothing else afterwards.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>, memory: u64, seconds: u64, metered: bool) -> PyResult<()> {
    let served = py.detach(|| moat_sandbox::serve(memory, seconds, meter(metered)));
    served.map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

fn meter(metered: bool) -> Meter {
    if metered { Meter::Fuel } else { Meter::Time }
}

/// A compiled WebAssembly module or component and the SHA-256 of its bytes.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Module {
    engine: Engine,
    module: moat_sandbox::Module,
    /// Where its code was looked for; no guest reaches it.
    cache: Option<CodeFolder>,
}

#[pymethods]
impl Module {
    #[new]
    #[pyo3(signature = (wasm, *, cache=None, compiler=None, metered=true))]
    fn new(
        py: Python<'_>,
        wasm: &[u8],
        cache: Option<CodeFolder>,
        compiler: Option<(Vec<OsString>, Duration, u64)>,
        metered: bool,
    ) -> Result<Self> {
        let engine = engine(py).map_err(|error| raise(py, &error))?;
        let compiler = compiler.map(|(program, time, memory)| Compiler { program, memory, time });
        let cached = cache.as_ref().map(|folder| &folder.cache);
        let meter = meter(metered);
        let source = Source { cache: cached, compiler: compiler.as_ref(), meter };
        let module = py.detach(|| engine.load_from(wasm, None, source));
        let module = module.map_err(|error| raise(py, &error))?;
        Ok(Self { engine, module, cache })
    }

    #[getter]
    fn sha256<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.module.sha256())
    }

    #[pyo3(signature = (
        permit, *, stdin=None, args=None, env=None, network=None, tools=None, deterministic=false
    ))]
    #[allow(clippy::too_many_arguments, reason = "what Python passes by name")]
    fn run(
        &self,
        py: Python<'_>,
        permit: &Bound<'_, Permit>,
        stdin: Option<&[u8]>,
        args: Option<Vec<String>>,
        env: Option<&Bound<'_, PyAny>>,
        network: Option<Network<'_>>,
        tools: Option<Py<Toolbox>>,
        deterministic: bool,
    ) -> Result<SandboxOutcome> {
        let input = Input { seed: self.seed(deterministic), ..input(stdin, args, env)? };
        self.module.command().map_err(|error| raise(py, &error))?;
        self.spend(py, permit, (input, network, tools), |bounds, input, stop| {
            self.engine.run(&self.module, bounds, input, Some(stop))
        })
    }

    #[pyo3(signature = (
        permit, name, arguments, *, stdin=None, args=None, env=None, network=None, tools=None,
        deterministic=false
    ))]
    #[allow(clippy::too_many_arguments, reason = "what Python passes by name")]
    fn call(
        &self,
        py: Python<'_>,
        permit: &Bound<'_, Permit>,
        name: &str,
        arguments: &Bound<'_, PyAny>,
        stdin: Option<&[u8]>,
        args: Option<Vec<String>>,
        env: Option<&Bound<'_, PyAny>>,
        network: Option<Network<'_>>,
        tools: Option<Py<Toolbox>>,
        deterministic: bool,
    ) -> Result<SandboxOutcome> {
        let input = Input { seed: self.seed(deterministic), ..input(stdin, args, env)? };
        let arguments = value::read(arguments)?;
        let call = self.module.call(name, &arguments).map_err(|error| raise(py, &error))?;
        self.spend(py, permit, (input, network, tools), |bounds, input, stop| {
            self.engine.call(&call, bounds, input, Some(stop))
        })
    }

    /// Does once more what a deterministic run did. INVARIANT: no effect without a line in the log;
    /// this has none but its cost, which these limits bound, and no permit is needed for it.
    #[pyo3(signature = (limits, *, stdin=None, args=None, env=None))]
    fn replay(
        &self,
        py: Python<'_>,
        limits: &Limits,
        stdin: Option<&[u8]>,
        args: Option<Vec<String>>,
        env: Option<&Bound<'_, PyAny>>,
    ) -> Result<SandboxOutcome> {
        let input = Input { seed: self.seed(true), ..input(stdin, args, env)? };
        let ran = py.detach(|| {
            let bounds = Bounds::from_limits(&limits.0)?;
            self.engine.run(&self.module, &bounds, &input, None)
        });
        ran.map(SandboxOutcome).map_err(|error| raise(py, &error))
    }

    #[getter]
    fn is_component(&self) -> bool {
        self.module.is_component()
    }

    #[getter]
    fn metered(&self) -> bool {
        self.module.meter() == Meter::Fuel
    }

    fn __repr__(&self) -> String {
        let [a, b, c, d, ..] = self.module.sha256();
        format!("Module({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

impl Module {
    /// What a deterministic run of this module draws its random bytes from.
    fn seed(&self, deterministic: bool) -> Option<[u8; 32]> {
        deterministic.then(|| sha256(&[SEED, &self.module.sha256()[..]].concat()))
    }

    /// Opens the permit, does this under its limits and logs how it ended.
    fn spend(
        &self,
        py: Python<'_>,
        given: &Bound<'_, Permit>,
        (mut input, network, tools): (Input, Option<Network<'_>>, Option<Py<Toolbox>>),
        work: impl Fn(&Bounds, &Input, &Interrupt) -> Ran + Send + Sync,
    ) -> Result<SandboxOutcome> {
        let permit = given.get();
        permit.check_code(py, &self.module.sha256())?;
        let mut folders = permit.protected().to_vec();
        folders.extend(self.cache.iter().flat_map(|kept| [kept.path(), kept.file.clone()]));
        let bounds = py.detach(|| apart(permit.bounds(), &folders));
        let bounds = bounds.map_err(|error| raise(py, &error))?;
        let deterministic = input.seed.is_some();
        self.module.keeps(&bounds, deterministic).map_err(|error| raise(py, &error))?;
        let interrupt = Interrupt::new();
        let serving = tools.map(|tools| tools.get().serve(py, permit, &interrupt)).transpose()?;
        input.host = serving.as_ref().map(Serving::host);
        input.check().map_err(|error| raise(py, &error))?;
        // Opened first: a second try with the same permit ends here, and takes no watch away.
        permit.open(py)?;
        if let Some(network) = network {
            // Values are asked for with the permit open, and before the guest starts.
            let way = way(given, &network).inspect_err(|_| {
                // The fault is what the caller hears of; a log that fails as well denies later.
                let _told = permit.close(py, unrun("what the guest may send could not be set up"));
            })?;
            input.outgoing = Some(way);
        }
        let withdrawn = interrupt.clone();
        let watch = permit.watch(move || withdrawn.interrupt());
        let ran = py.detach(|| work(&bounds, &input, &interrupt));
        drop((watch, serving));
        permit.close(py, end(&ran, deterministic))?;
        ran.map(SandboxOutcome).map_err(|error| raise(py, &error))
    }
}

/// The engine's settings, and what gives the values of secrets once the permit is open.
type Network<'py> = (Py<Egress>, Bound<'py, PyAny>);

fn way(permit: &Bound<'_, Permit>, (egress, secrets): &Network<'_>) -> Result<Arc<dyn Outgoing>> {
    let secrets: Vec<(String, String)> = secrets.call0()?.extract()?;
    let engine = egress.get().engine(permit, secrets)?;
    Ok(Arc::new(Way(Arc::new(engine))))
}

type Ran = std::result::Result<Outcome, SandboxError>;

/// What the code is given, as Python says it.
fn input(
    stdin: Option<&[u8]>,
    args: Option<Vec<String>>,
    env: Option<&Bound<'_, PyAny>>,
) -> Result<Input> {
    let env = match env {
        None => Vec::new(),
        Some(env) => {
            let items = env.call_method0("items")?.try_iter()?;
            items.map(|item| item?.extract()).collect::<PyResult<_>>()?
        }
    };
    // One order, whoever gave them: a run is repeated from a log that has them sorted.
    let mut env: Vec<(String, String)> = env;
    env.sort();
    let (stdin, args) = (stdin.unwrap_or_default().to_vec(), args.unwrap_or_default());
    Ok(Input { stdin, args, env, ..Input::default() })
}

/// What the log says of a run: of a call the digest of its result, else that of what was written.
fn end(ran: &Ran, deterministic: bool) -> End {
    match ran {
        Ok(outcome) => End {
            status: outcome.status.code().to_owned(),
            result: Some(match &outcome.result {
                Some(result) => sha256(result.json().as_bytes()),
                None => sha256(&outcome.stdout),
            }),
            fuel: Some(outcome.fuel_used),
            detail: detail(&outcome.status),
            deterministic,
        },
        Err(error) => unrun(error.to_string()),
    }
}

fn detail(status: &Status) -> Option<String> {
    match status {
        Status::Exit(code) => Some(format!("exit code {code}")),
        Status::Trap(text) => Some(text.clone()),
        _ => None,
    }
}

fn unrun(detail: impl Into<String>) -> End {
    End {
        status: "not_run".to_owned(),
        result: None,
        fuel: None,
        detail: Some(detail.into()),
        deterministic: false,
    }
}

/// How a run ended: ``status`` is one of ``ok``, ``exit``, ``out_of_fuel``, ``out_of_memory``,
/// ``timed_out``, ``output_full``, ``trap``, ``interrupted``.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct SandboxOutcome(Outcome);

#[pymethods]
impl SandboxOutcome {
    #[getter]
    fn status(&self) -> &'static str {
        self.0.status.code()
    }

    #[getter]
    fn exit_code(&self) -> Option<i32> {
        match self.0.status {
            Status::Ok => Some(0),
            Status::Exit(code) => Some(code),
            _ => None,
        }
    }

    #[getter]
    fn trap(&self) -> Option<&str> {
        match &self.0.status {
            Status::Trap(text) => Some(text),
            _ => None,
        }
    }

    #[getter]
    fn detail(&self) -> Option<String> {
        detail(&self.0.status)
    }

    #[getter]
    fn stdout<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.stdout)
    }

    #[getter]
    fn stderr<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.stderr)
    }

    #[getter]
    fn fuel_used(&self) -> u64 {
        self.0.fuel_used
    }

    #[getter]
    fn memory_peak(&self) -> u64 {
        self.0.memory_peak
    }

    #[getter]
    fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    #[getter]
    fn truncated(&self) -> bool {
        self.0.truncated
    }

    #[getter]
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        value::write(py, self.0.result.as_ref().unwrap_or(&Value::Nothing))
    }

    #[getter]
    fn result_json(&self) -> Option<String> {
        self.0.result.as_ref().map(Value::json)
    }

    fn check(slf: Bound<'_, Self>) -> Result<Bound<'_, Self>> {
        let (py, outcome) = (slf.py(), &slf.get().0);
        let exceeded = |limit: &str, detail: String| {
            let raised = exception(py, "LimitExceeded", detail);
            Err(Fault::Py(note(py, raised, "limit", limit.to_owned())))
        };
        match &outcome.status {
            Status::Ok => Ok(slf),
            Status::OutOfFuel => {
                exceeded("fuel", format!("the code used up its fuel of {}", outcome.fuel_used))
            }
            Status::OutOfMemory => {
                exceeded("memory", "the code asked for more memory than it may have".to_owned())
            }
            Status::TimedOut => {
                exceeded("time", format!("the code ran out of time after {:?}", outcome.elapsed))
            }
            Status::OutputFull => exceeded("output", "the code wrote more than it may".to_owned()),
            Status::Trap(text) => {
                Err(Fault::Py(exception(py, "GuestTrap", format!("the code trapped: {text}"))))
            }
            Status::Exit(code) => Err(Fault::Py(exception(
                py,
                "SandboxError",
                format!("the code exited with {code}"),
            ))),
            Status::Interrupted => {
                Err(Fault::Py(exception(py, "SandboxError", "the run was interrupted")))
            }
        }
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("status", self.status())?;
        dict.set_item("exit_code", self.exit_code())?;
        dict.set_item("trap", self.trap())?;
        dict.set_item("fuel_used", self.0.fuel_used)?;
        dict.set_item("memory_peak", self.0.memory_peak)?;
        dict.set_item("elapsed", self.0.elapsed.as_secs_f64())?;
        dict.set_item("truncated", self.0.truncated)?;
        dict.set_item("result_json", self.result_json())?;
        dict.set_item("stdout", String::from_utf8_lossy(&self.0.stdout))?;
        dict.set_item("stderr", String::from_utf8_lossy(&self.0.stderr))?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!("SandboxOutcome({}, fuel_used={})", self.status(), self.0.fuel_used)
    }
}
