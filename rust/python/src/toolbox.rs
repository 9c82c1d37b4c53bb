//! Tools that a guest may call: each call is a message through the gate, decided here. Only the
//! tool's own function is Python's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use moat_core::args;
use moat_core::key::sha256;
use moat_log::End;
use moat_sandbox::{Calling, Host, Interrupt};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::convert::hash;
use crate::fault::{Fault, Result, exception};
use crate::gate::Gate;
use crate::message::{Draft, Sender};
use crate::permit::Permit;

/// Characters of an exception's text that a guest is told.
const TOLD: usize = 1024;
/// Calls under way in this process. One whose run has ended counts until its function returns.
const UNDERWAY: usize = 256;
/// Calls of one run, as many as requests of one permit.
const CALLS: u64 = 10_000;

/// Tools that one run of code may call: each call is a message of ``sender``, decided by the
/// gate. Make it with ``session.toolbox``; a second run with it, or one of another session, is
/// ``MalformedInput``.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Toolbox(Arc<Tools>);

/// Name, action, resource, digest of the description, parameters with their defaults as JSON, and
/// the function: it starts the tool on arguments in JSON, and answers by a [`Reply`].
type Described =
    (String, String, String, Option<Vec<u8>>, Vec<(String, Option<String>)>, Py<PyAny>);

#[pymethods]
impl Toolbox {
    #[new]
    fn new(gate: Py<Gate>, sender: Py<Sender>, tools: Vec<Described>) -> Result<Self> {
        let tools = tools.into_iter().map(|(name, action, resource, code, params, function)| {
            let code = code.map(|code| hash(&code, "the description's digest")).transpose()?;
            let params = params.into_iter().map(|(name, default)| {
                let default = default.map(|text| serde_json::from_str(&text)).transpose();
                let bad = |_| moat_core::Error::malformed("a default is not JSON");
                Ok((name, default.map_err(bad)?))
            });
            let params = params.collect::<Result<_>>()?;
            Ok((name, Tool { action, resource, code, params, function }))
        });
        let tools = tools.collect::<Result<_>>()?;
        let (stage, calls) = (Mutex::new(Stage::Fresh), AtomicU64::new(0));
        Ok(Self(Arc::new(Tools { gate, sender, tools, stage, calls })))
    }

    fn stop(&self) {
        let mut stage = self.0.stage();
        if let Stage::Serving(_, interrupt) = &*stage {
            interrupt.interrupt();
        }
        *stage = Stage::Over;
    }
}

impl Toolbox {
    /// Serves the run of this permit, until what is given back is dropped. It does so once, and
    /// for its own session: a second run has tools, and a key, of its own.
    pub(crate) fn serve(
        &self,
        py: Python<'_>,
        permit: &Permit,
        interrupt: &Interrupt,
    ) -> Result<Serving> {
        let refuse = |detail: &str| Err(Fault::Py(exception(py, "MalformedInput", detail)));
        let mut stage = self.0.stage();
        if !matches!(*stage, Stage::Fresh) {
            return refuse("a toolbox serves one run; make another from the session");
        }
        if !self.0.sender.get().sent(permit.verified()) {
            return refuse("the toolbox is of another session than the permit; use its own");
        }
        *stage = Stage::Serving(permit.verified().message().id(), interrupt.clone());
        Ok(Serving(Arc::clone(&self.0)))
    }
}

/// The tools of a run that goes on.
pub(crate) struct Serving(Arc<Tools>);

impl Serving {
    pub(crate) fn host(&self) -> Arc<dyn Host> {
        Arc::new(Asked(Arc::clone(&self.0)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        *self.0.stage() = Stage::Over;
    }
}

/// What the guest holds of them.
struct Asked(Arc<Tools>);

impl Host for Asked {
    /// The decision waits for the log and the tool for itself, so both are on a thread of their
    /// own, and on none that other guests need. A guest that ends meanwhile is not waited for; the
    /// function goes on, and its outcome is logged when it has ended.
    fn tool(&self, name: String, args: String) -> Calling {
        let tools = Arc::clone(&self.0);
        Box::pin(async move {
            let place = Place::take().ok_or("too many calls are under way; try again later")?;
            let (answer, told) = oneshot::channel();
            let call = move || {
                let _place = place;
                let _ended = answer.send(tools.call(&name, &args));
            };
            let thread = thread::Builder::new().name("moat-tool".to_owned()).spawn(call);
            thread.map_err(|_| "the system gives no more threads")?;
            told.await.unwrap_or_else(|_| Err("the call failed inside the host".to_owned()))
        })
    }
}

/// A place among the calls of this process.
struct Place;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let more = |taken| (taken < UNDERWAY).then_some(taken + 1);
        TAKEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Tools {
    gate: Py<Gate>,
    sender: Py<Sender>,
    tools: BTreeMap<String, Tool>,
    stage: Mutex<Stage>,
    calls: AtomicU64,
}

enum Stage {
    Fresh,
    /// The message that asked for the run, and what stops it.
    Serving([u8; 32], Interrupt),
    Over,
}

struct Tool {
    action: String,
    resource: String,
    code: Option<[u8; 32]>,
    params: Vec<(String, Option<Value>)>,
    function: Py<PyAny>,
}

impl Tools {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call, from the guest's words to the tool's. What went wrong is told in a sentence.
    fn call(&self, name: &str, text: &str) -> std::result::Result<String, String> {
        let over = || Err("the run is over".to_owned());
        let Stage::Serving(cause, _) = *self.stage() else {
            return over();
        };
        if self.calls.fetch_add(1, Ordering::SeqCst) >= CALLS {
            return Err(format!("a run makes at most {CALLS} calls"));
        }
        let tool = self.tools.get(name).ok_or_else(|| {
            let names: Vec<_> = self.tools.keys().map(String::as_str).collect();
            format!("there is no tool `{}`; there are: {}", brief(name), names.join(", "))
        })?;
        let args = tool.bind(text)?;
        let gate = self.gate.get();
        let fault = |fault: Fault| PyErr::from(fault).to_string();
        let now = gate.now().map_err(fault)?;
        let draft = Draft {
            action: &tool.action,
            resource: &tool.resource,
            args: args.clone(),
            payload: &[],
            recipient: None,
            code: tool.code,
            causes: vec![cause],
            labels: Vec::new(),
            expires_in: None,
            now: Some(now),
        };
        let wire = self.sender.get().next(draft).map_err(fault)?;
        let permit = gate.ask(&wire, now).map_err(|error| format!("denied: {error}"))?;
        {
            // INVARIANT: a run does not end between this look and the opening; what was not begun
            // then never is.
            let stage = self.stage();
            if !matches!(*stage, Stage::Serving(..)) {
                return over();
            }
            permit.open(now).map_err(|error| format!("denied: {error}"))?;
        }
        let ran = tool.run(&args);
        let end = match &ran {
            Ok(result) => end("ok", Some(sha256(result.as_bytes())), None),
            Err(raised) => end("raised", None, Some(raised.class.clone())),
        };
        let closed = gate.now().and_then(|now| Ok(permit.close(end, now)?));
        closed.map_err(fault)?;
        ran.map_err(|raised| raised.told)
    }
}

impl Tool {
    /// The arguments as the gate is asked about them: each is named, and defaults are filled in.
    fn bind(&self, text: &str) -> std::result::Result<Vec<u8>, String> {
        let given: Map<String, Value> = serde_json::from_str(text)
            .map_err(|_| "the arguments are not a JSON object".to_owned())?;
        let takes = |name: &String| self.params.iter().any(|(param, _)| param == name);
        if let Some(name) = given.keys().find(|name| !takes(name)) {
            let params: Vec<_> = self.params.iter().map(|(name, _)| name.as_str()).collect();
            let params = params.join(", ");
            return Err(format!("there is no argument `{}`; there are: {params}", brief(name)));
        }
        let mut args = given;
        for (name, default) in &self.params {
            match (args.contains_key(name), default) {
                (true, _) => {}
                (false, Some(default)) => drop(args.insert(name.clone(), default.clone())),
                (false, None) => return Err(format!("the argument `{name}` is missing")),
            }
        }
        args::encode(&Value::Object(args)).map_err(|error| error.to_string())
    }

    /// Starts the function and waits for its reply, without the interpreter's lock: at the end of
    /// the process Python ends its own threads, and none of ours.
    fn run(&self, args: &[u8]) -> Ran {
        let (reply, answer) = mpsc::channel();
        Python::attach(|py| {
            let started = self.function.call1(py, (PyBytes::new(py, args), Reply(reply)));
            started.map(drop).map_err(|error| Raised::read(py, &error))
        })?;
        answer.recv().unwrap_or_else(|_| Err(Raised::lost()))
    }
}

type Ran = std::result::Result<String, Raised>;

/// Where a tool's thread says how its function ended, once.
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Reply(mpsc::Sender<Ran>);

#[pymethods]
impl Reply {
    fn done(&self, result: String) {
        let _nobody = self.0.send(Ok(result));
    }

    fn failed(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        let raised = Raised::read(py, &PyErr::from_value(error));
        let _nobody = self.0.send(Err(raised));
    }
}

/// An exception of a tool: its class for the log, and what the guest is told.
struct Raised {
    class: String,
    told: String,
}

impl Raised {
    fn lost() -> Self {
        let told = "the tool ended without an answer".to_owned();
        Self { class: "unnamed".to_owned(), told }
    }

    fn read(py: Python<'_>, error: &PyErr) -> Self {
        // An exception whose class or text cannot be read is still one.
        let class = error.get_type(py).name().and_then(|name| name.extract::<String>());
        let class = class.unwrap_or_else(|_| "unnamed".to_owned());
        let text = error.value(py).str().and_then(|text| text.extract::<String>());
        let told = match text.as_deref() {
            Ok("") | Err(_) => class.clone(),
            Ok(text) => format!("{class}: {}", text.chars().take(TOLD).collect::<String>()),
        };
        Self { class, told }
    }
}

fn end(status: &str, result: Option<[u8; 32]>, detail: Option<String>) -> End {
    End { status: status.to_owned(), result, fuel: None, detail, deterministic: false }
}

/// A guest's word, short enough for a sentence.
fn brief(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
