//! Typed calls: one function of a component, with values checked before anything runs.

use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Type, Val};

use crate::error::printable;
use crate::module::Ready;
use crate::value::{self, Value};
use crate::{Module, SandboxError};

/// A call that fits: a function that is there, with arguments of its types.
#[derive(Clone)]
pub struct Call {
    pub(crate) module: Module,
    pub(crate) function: ComponentExportIndex,
    pub(crate) args: Vec<Val>,
    pub(crate) result: Option<Type>,
}

impl Module {
    /// Prepares a call of an exported function, `name`, or `interface#name` for one of an exported
    /// interface. The arguments are a list in order, or fields by the parameters' names.
    ///
    /// # Errors
    /// [`SandboxError::Input`] when this is no component, exports no such function, or the
    /// arguments do not fit its types; also when a type cannot be written as a [`Value`].
    pub fn call(&self, name: &str, args: &Value) -> Result<Call, SandboxError> {
        let Ready::Component(linked) = &self.ready else {
            return refuse("a core module has no typed functions; build a component".to_owned());
        };
        let (function, ty) = find(linked.pre.component(), name)?;
        let shown = printable(name);
        let params: Vec<_> = ty.params().collect();
        let mut results = ty.results();
        let (result, more) = (results.next(), results.next());
        let mut types = params.iter().map(|(_, ty)| ty).chain(&result).chain(&more);
        if ty.async_() || more.is_some() || !types.all(value::plain) {
            return refuse(format!(
                "function `{shown}` takes or gives what cannot be written down (a resource, a \
                 stream, a future); call one that does not"
            ));
        }
        let args = match args {
            Value::Fields(_) => value::by_name(args, &params),
            _ => value::tupled(args, params.into_iter().map(|(_, ty)| ty)),
        };
        let args = args.map_err(|misfit| SandboxError::Input(misfit.text("args")))?;
        Ok(Call { module: self.clone(), function, args, result })
    }
}

fn find(
    component: &Component,
    name: &str,
) -> Result<(ComponentExportIndex, ComponentFunc), SandboxError> {
    let found = match name.split_once('#') {
        Some((interface, name)) => component
            .get_export_index(None, interface)
            .and_then(|interface| component.get_export(Some(&interface), name)),
        None => component.get_export(None, name),
    };
    match found {
        Some((ComponentItem::ComponentFunc(function), index)) => Ok((index, function)),
        _ => {
            let known = functions(component);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            refuse(format!("no function `{}`; it exports {known}", printable(name)))
        }
    }
}

/// The first names that a caller could have meant.
fn functions(component: &Component) -> Vec<String> {
    const SHOWN: usize = 16;
    let (ty, engine) = (component.component_type(), component.engine());
    let mut names = Vec::new();
    for (name, export) in ty.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(_) => names.push(name.to_owned()),
            ComponentItem::ComponentInstance(instance) => {
                let inner = instance.exports(engine);
                let inner = inner.filter(|(_, e)| matches!(e.ty, ComponentItem::ComponentFunc(_)));
                names.extend(inner.map(|(function, _)| format!("{name}#{function}")));
            }
            _ => {}
        }
    }
    names.iter().take(SHOWN).map(|name| format!("`{}`", printable(name))).collect()
}

fn refuse<T>(text: String) -> Result<T, SandboxError> {
    Err(SandboxError::Input(text))
}
