//! Requests of host-side tools, through the same engine as those of guests.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use moat_core::pattern::Resource;
use moat_egress::{
    Answer, Bounds, Egress as Engine, Link, Refusal, Request, Resolver, Secret, System, Target,
    Trust,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::fault::{Fault, Result, exception, internal, note};
use crate::ledger::Lines;
use crate::permit::Permit;

/// How long an interrupt from the keyboard may wait.
const ATTENTIVE: Duration = Duration::from_millis(100);

/// Scheme, host, port and path with query of a URL that every parser reads alike.
#[pyfunction]
pub(crate) fn read_url(py: Python<'_>, url: &str) -> Result<(String, String, u16, String)> {
    let target = Target::parse(url).map_err(|refusal| raise(py, url, &refusal))?;
    let authority = target.authority();
    let host = match authority.strip_suffix(&format!(":{}", target.port())) {
        Some(host) => host.to_owned(),
        None => authority.to_owned(),
    };
    let scheme = target.origin().scheme().to_owned();
    Ok((scheme, host, target.port(), target.path_and_query().to_owned()))
}

/// Sends the requests that the token of an open permit names, and no others (spec/egress.md).
#[pyclass(frozen, module = "moat._native")]
pub(crate) struct Egress {
    trust: Trust,
    bounds: Bounds,
    resolver: Arc<dyn Resolver>,
}

type Sent<'py> = (u16, Vec<(String, Bound<'py, PyBytes>)>, Bound<'py, PyBytes>);

#[pymethods]
impl Egress {
    #[new]
    #[pyo3(signature = (
        *, anchors=None, resolver=None, timeout=None, request_bytes=None, response_bytes=None
    ))]
    fn new(
        py: Python<'_>,
        anchors: Option<Vec<Vec<u8>>>,
        resolver: Option<Py<PyAny>>,
        timeout: Option<Duration>,
        request_bytes: Option<u64>,
        response_bytes: Option<u64>,
    ) -> Result<Self> {
        let trust = Trust::new(anchors.iter().flatten().map(Vec::as_slice));
        let trust = trust.map_err(|refusal| Fault::Py(exception(py, "MalformedInput", refusal)))?;
        let most = Bounds::default();
        let bounds = Bounds {
            time: timeout.unwrap_or(most.time),
            request_bytes: request_bytes.unwrap_or(most.request_bytes),
            response_bytes: response_bytes.unwrap_or(most.response_bytes),
            ..most
        };
        let resolver: Arc<dyn Resolver> = match resolver {
            Some(ask) => Arc::new(Asked(Arc::new(ask))),
            None => Arc::new(System),
        };
        Ok(Self { trust, bounds, resolver })
    }

    #[expect(clippy::too_many_arguments, reason = "one for each part of a request")]
    #[pyo3(signature = (permit, method, url, *, headers, body, secrets))]
    fn send<'py>(
        &self,
        py: Python<'py>,
        permit: &Bound<'_, Permit>,
        method: String,
        url: String,
        headers: Vec<(String, Vec<u8>)>,
        body: Vec<u8>,
        secrets: Vec<(String, String)>,
    ) -> Result<Sent<'py>> {
        let named = url.clone();
        let engine = self.engine(permit, secrets)?;
        let permit = permit.get();
        permit.check_open(py)?;
        let request = Request { method, url, headers, body: Full::new(Bytes::from(body)) };
        let withdrawn = Arc::new(Notify::new());
        let stop = Arc::clone(&withdrawn);
        let watch = permit.watch(move || stop.notify_one());
        let ended = py.detach(|| run(exchange(&engine, request, &withdrawn)));
        drop(watch);
        let (status, headers, body) = match ended? {
            Ended::Answered(answer) => answer,
            Ended::Refused(refusal) => return Err(raise(py, &named, &refusal)),
            Ended::Withdrawn => {
                permit.check_open(py)?;
                let detail = "trust in the agent was withdrawn while the request was on its way";
                return Err(Fault::Py(exception(py, "EgressDenied", detail)));
            }
        };
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), PyBytes::new(py, value.as_bytes())));
        Ok((status, headers.collect(), PyBytes::new(py, &body)))
    }
}

impl Egress {
    /// An engine for what the token of a permit names, with these values behind its handles.
    pub(crate) fn engine(
        &self,
        permit: &Bound<'_, Permit>,
        secrets: Vec<(String, String)>,
    ) -> Result<Engine> {
        let secrets = secrets.into_iter().map(|(handle, value)| {
            let value = Zeroizing::new(value.into_bytes());
            let made = Secret::new(Resource::parse(&handle)?, value);
            made.map_err(|refusal| raise(permit.py(), "", &refusal))
        });
        let secrets = secrets.collect::<Result<Vec<_>>>()?;
        let (trust, resolver) = (self.trust.clone(), Arc::clone(&self.resolver));
        let (links, ledger) = (permit.get().links(), Lines(Arc::new(permit.clone().unbind())));
        Ok(Engine::new(links, secrets, self.bounds, resolver, trust, Arc::new(ledger)))
    }
}

/// How a request ended, with the interpreter's lock not held.
enum Ended {
    Answered((u16, http::HeaderMap, Bytes)),
    Refused(Refusal),
    Withdrawn,
}

async fn exchange(
    engine: &Engine,
    request: Request<Full<Bytes>>,
    withdrawn: &Notify,
) -> PyResult<Ended> {
    let whole = async {
        let (head, body) = engine.send(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status.as_u16(), head.headers, body))
    };
    let mut whole = std::pin::pin!(whole);
    let mut stopped = std::pin::pin!(withdrawn.notified());
    loop {
        let either = std::future::poll_fn(|context| {
            if stopped.as_mut().poll(context).is_ready() {
                return std::task::Poll::Ready(Ended::Withdrawn);
            }
            whole.as_mut().poll(context).map(|ended: std::result::Result<_, Refusal>| {
                ended.map_or_else(Ended::Refused, Ended::Answered)
            })
        });
        match timeout(ATTENTIVE, either).await {
            Ok(ended) => return Ok(ended),
            Err(_) => Python::attach(|py| py.check_signals())?,
        }
    }
}

/// Runs on a runtime of its own: nothing of it is left for the next request or a forked child.
fn run<T>(future: impl Future<Output = PyResult<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| internal("the system gives no more sockets or threads"))?;
    let ended = runtime.block_on(future);
    // A look-up that the system still works on is not waited for.
    runtime.shutdown_background();
    Ok(ended?)
}

/// A resolver in Python: called with a name, gives its addresses as texts. It is asked on a
/// thread of its own: whoever waits for the interpreter's lock must not hold up other requests.
struct Asked(Arc<Py<PyAny>>);

impl Resolver for Asked {
    fn resolve<'a>(&'a self, name: &'a str) -> Answer<'a> {
        let (ask, name) = (Arc::clone(&self.0), name.to_owned());
        // What it raised may say anything; that the name has no address is all that counts.
        let none = || io::Error::other("no address");
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || {
                Python::attach(|py| {
                    let found = ask.call1(py, (name,))?;
                    let found = found.bind(py).try_iter()?;
                    found.map(|one| one?.extract::<IpAddr>()).collect::<PyResult<Vec<_>>>()
                })
            });
            found.await.map_err(|_| none())?.map_err(|_| none())
        })
    }
}

/// A refusal as `EgressDenied`, with its code and the host where one can be read.
fn raise(py: Python<'_>, url: &str, refusal: &Refusal) -> Fault {
    let host = Target::parse(url).map(|target| target.authority().to_owned()).ok();
    let raised = exception(py, "EgressDenied", refusal);
    let raised = note(py, raised, "reason", refusal.reason.code());
    Fault::Py(note(py, raised, "host", host))
}

impl Permit {
    /// What each link says about requests.
    fn links(&self) -> Vec<Link> {
        let links = self.verified().chain().token().links();
        links.iter().map(|link| Link::from(&link.claims().caveats.limits)).collect()
    }
}
