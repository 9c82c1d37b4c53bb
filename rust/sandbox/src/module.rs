//! A compiled module or component, linked to what it may import.

use std::sync::Arc;

use moat_core::caveat::UNMETERED;
use wasmtime::component::{self, Component, ComponentExportIndex, types};
use wasmtime::{ExternType, InstancePre};

use crate::artifact::Artifact;
use crate::disk::Name;
use crate::error::{plain, printable};
use crate::shape::Kind;
use crate::wasi::{State, WASI};
use crate::{Bounds, Meter, SandboxError, pool};

/// A compiled module or component. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    pub(crate) ready: Ready,
    /// Slots that an instance takes where it has slots.
    pub(crate) slots: u32,
    sha256: [u8; 32],
    meter: Meter,
}

/// What was compiled, with every import resolved.
#[derive(Clone)]
pub(crate) enum Ready {
    Module(InstancePre<State>),
    Component(Arc<Linked>),
}

/// A component, and where its command starts if it is one.
pub(crate) struct Linked {
    pub(crate) pre: component::InstancePre<State>,
    pub(crate) run: Option<ComponentExportIndex>,
}

/// The functions that guests may import, for either kind.
pub(crate) struct Linkers {
    pub(crate) module: wasmtime::Linker<State>,
    pub(crate) component: component::Linker<State>,
}

/// The interface of a command, in the oldest version that stands for every later one of 0.2.
const RUN: &str = "wasi:cli/run@0.2.0";

impl Module {
    /// SHA-256 of the bytes that were compiled.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether it is a component, and not a core module.
    #[must_use]
    pub fn is_component(&self) -> bool {
        matches!(self.ready, Ready::Component(_))
    }

    /// Refuses a component that is no command: [`crate::Engine::run`] would.
    ///
    /// # Errors
    /// [`SandboxError::Module`].
    pub fn command(&self) -> Result<(), SandboxError> {
        match &self.ready {
            Ready::Component(linked) if linked.run.is_none() => {
                let text = "it exports no `wasi:cli/run`; call one of its functions instead";
                Err(SandboxError::Module(text.into()))
            }
            _ => Ok(()),
        }
    }

    /// What bounds its work.
    #[must_use]
    pub const fn meter(&self) -> Meter {
        self.meter
    }

    /// Refuses bounds that this code would not keep: a fuel, where it counts none. For a run with
    /// [`crate::Input::seed`] also what could differ the next time.
    ///
    /// # Errors
    /// [`SandboxError::Input`].
    pub fn keeps(&self, bounds: &Bounds, deterministic: bool) -> Result<(), SandboxError> {
        let refused = |text: &str| Err(SandboxError::Input(text.to_owned()));
        if deterministic {
            bounds.repeatable()?;
        }
        match self.meter {
            Meter::Fuel => Ok(()),
            // INVARIANT: no code without a meter runs under a number of fuel.
            Meter::Time if bounds.fuel != UNMETERED => refused(
                "the code was compiled without a meter and the permit bounds its fuel; compile it \
                 with one, or give a token with unmetered fuel",
            ),
            Meter::Time if deterministic => {
                refused("a deterministic run counts its fuel; compile the code with a meter")
            }
            Meter::Time => Ok(()),
        }
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        match &self.ready {
            Ready::Module(pre) => pre.module().engine(),
            Ready::Component(linked) => linked.pre.engine(),
        }
    }
}

/// Takes machine code into this process: the module, and the bytes of memory that it is.
pub(crate) fn link(
    engine: &wasmtime::Engine,
    linkers: &Linkers,
    artifact: &Artifact,
    kind: Kind,
    name: &Name,
) -> Result<(Module, usize), SandboxError> {
    let (ready, image) = match kind {
        Kind::Module => core(engine, linkers, artifact)?,
        Kind::Component => component(engine, linkers, artifact)?,
    };
    let slots = match &ready {
        Ready::Module(pre) => pool::slots(Some(&pre.module().resources_required())),
        Ready::Component(it) => pool::slots(it.pre.component().resources_required().as_ref()),
    };
    Ok((Module { ready, slots, sha256: name.sha256, meter: name.meter }, image))
}

fn core(
    engine: &wasmtime::Engine,
    linkers: &Linkers,
    artifact: &Artifact,
) -> Result<(Ready, usize), SandboxError> {
    let module = artifact.module(engine).map_err(SandboxError::internal)?;
    for import in module.imports() {
        if import.module() != WASI {
            let name = format!("`{}::{}`", import.module(), import.name());
            return Err(SandboxError::Import(printable(&name)));
        }
    }
    match module.get_export("_start") {
        Some(ExternType::Func(f)) if f.params().len() == 0 && f.results().len() == 0 => {}
        _ => {
            let text = "it exports no function `_start`; build a command, not a library";
            return Err(SandboxError::Module(text.into()));
        }
    }
    let ready = linkers.module.instantiate_pre(&module);
    let ready = ready.map_err(|error| SandboxError::Import(plain(&error)))?;
    let image = module.image_range();
    Ok((Ready::Module(ready), image.end.addr().saturating_sub(image.start.addr())))
}

fn component(
    engine: &wasmtime::Engine,
    linkers: &Linkers,
    artifact: &Artifact,
) -> Result<(Ready, usize), SandboxError> {
    let component = artifact.component(engine).map_err(SandboxError::internal)?;
    let pre = linkers.component.instantiate_pre(&component);
    let pre = pre.map_err(|error| SandboxError::Import(plain(&error)))?;
    let image = component.image_range();
    let size = image.end.addr().saturating_sub(image.start.addr());
    let run = command(&component);
    Ok((Ready::Component(Arc::new(Linked { pre, run })), size))
}

/// The function `run: func() -> result` of `wasi:cli/run`.
fn command(component: &Component) -> Option<ComponentExportIndex> {
    let run = component.get_export_index(None, RUN)?;
    let (item, index) = component.get_export(Some(&run), "run")?;
    let types::ComponentItem::ComponentFunc(function) = item else { return None };
    let mut results = function.results();
    let plain = match (results.next(), results.next()) {
        (Some(types::Type::Result(result)), None) => {
            result.ok().is_none() && result.err().is_none()
        }
        _ => false,
    };
    (plain && function.params().len() == 0).then_some(index)
}
