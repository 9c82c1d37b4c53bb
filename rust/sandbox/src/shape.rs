//! What bytes would cost to compile and to instantiate, found out before either is done.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Instance, Parser, Payload, Validator, WasmFeatures,
};

use crate::SandboxError;
use crate::error::printable;

/// Most bytes of a module.
pub const MODULE_BYTES: usize = 32 << 20;

/// Most bytes of a module without its data and its custom sections (names, debugging): what there
/// is to compile. In a component, all its modules together. Compiling is bounded by this alone.
pub const CODE_BYTES: usize = 16 << 20;

/// Modules and components that one component instantiates, over all that it nests.
pub(crate) const INSTANCES: usize = 256;
/// Bytes of code of all these instances, each counted: what the host holds for an instance grows
/// with its module, and the same module can be instantiated again and again.
const INSTANCE_BYTES: usize = 2 * CODE_BYTES;
/// Components within components.
const NESTING: usize = 16;

/// The WebAssembly that is understood: what compilers emit by default for `wasm32-wasi`, sums in
/// constant expressions as linkers of libraries write them (no more work than the bytes of the
/// module), and the component model as WASI 0.2 uses it. Everything else is off, and so is whatever
/// a later version adds.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// `\0asm`, version 1, as a core module.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// `\0asm`, version 13, as a component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What the bytes say that they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Module,
    Component,
}

/// Refuses what is over [`MODULE_BYTES`].
///
/// # Errors
/// [`SandboxError::Module`].
pub(crate) fn fits(bytes: &[u8]) -> Result<(), SandboxError> {
    if bytes.len() > MODULE_BYTES {
        return Err(too_big("bytes", bytes.len(), MODULE_BYTES));
    }
    Ok(())
}

/// Checks everything that can be checked without compiling: the size of what there is to compile,
/// the features in use, and how much would be instantiated.
///
/// # Errors
/// [`SandboxError::Module`].
pub(crate) fn check(bytes: &[u8]) -> Result<Kind, SandboxError> {
    let kind = kind(bytes)?;
    let code = code_bytes(bytes, 0);
    if code > CODE_BYTES {
        return Err(too_big("bytes of code", code, CODE_BYTES));
    }
    // Before the validator, whose work grows with what components make of one another.
    if kind == Kind::Component {
        let cost = weigh(bytes)?;
        if cost.instances > INSTANCES {
            return Err(too_big("instances", cost.instances, INSTANCES));
        }
        if cost.code > INSTANCE_BYTES {
            return Err(too_big("bytes of code over all instances", cost.code, INSTANCE_BYTES));
        }
    }
    // The engine itself allows more: what joins two components is a module with two memories.
    Validator::new_with_features(FEATURES).validate_all(bytes).map_err(malformed)?;
    Ok(kind)
}

fn too_big(what: &str, found: usize, most: usize) -> SandboxError {
    let text = format!("{found} {what}, at most {most} are allowed; make it smaller");
    SandboxError::Module(text)
}

/// Tells a component from a core module.
///
/// # Errors
/// [`SandboxError::Module`] for anything else.
pub(crate) fn kind(bytes: &[u8]) -> Result<Kind, SandboxError> {
    if bytes.starts_with(CORE_MODULE) {
        Ok(Kind::Module)
    } else if bytes.starts_with(COMPONENT) {
        Ok(Kind::Component)
    } else {
        let text = "give the binary form of a core module or a component, not text";
        Err(SandboxError::Module(text.into()))
    }
}

fn malformed(error: wasmparser::BinaryReaderError) -> SandboxError {
    SandboxError::Module(printable(&error.to_string()))
}

/// Bytes of all sections but data and custom ones, in a component those of its modules and
/// components. What has no form of a section, or is nested too deep, counts in full.
fn code_bytes(bytes: &[u8], depth: usize) -> usize {
    const CUSTOM: u8 = 0;
    const DATA: u8 = 11;
    const NESTED_MODULE: u8 = 1;
    const NESTED_COMPONENT: u8 = 4;
    let component = bytes.starts_with(COMPONENT);
    let mut rest = bytes.get(CORE_MODULE.len()..).unwrap_or_default();
    let mut code = 0_usize;
    while let Some((&id, body)) = rest.split_first() {
        let section = leb128(body).and_then(|(size, body)| body.split_at_checked(size));
        let Some((section, after)) = section else {
            return code.saturating_add(rest.len());
        };
        let counted = match id {
            CUSTOM => 0,
            DATA if !component => 0,
            NESTED_MODULE | NESTED_COMPONENT if component && depth < NESTING => {
                code_bytes(section, depth + 1)
            }
            _ => section.len(),
        };
        code = code.saturating_add(counted);
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

/// What it takes to instantiate something once.
#[derive(Clone, Copy, Default)]
struct Cost {
    instances: usize,
    code: usize,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.instances = self.instances.saturating_add(other.instances);
        self.code = self.code.saturating_add(other.code);
    }

    fn most(self, other: Self) -> Self {
        let instances = self.instances.max(other.instances);
        Self { instances, code: self.code.max(other.code) }
    }
}

/// One module or component that is being read.
#[derive(Default)]
struct Scope {
    cost: Cost,
    /// By index; `None` where another scope knows what it is.
    modules: Vec<Option<Cost>>,
    components: Vec<Option<Cost>>,
    component: bool,
}

impl Scope {
    /// An alias or export makes a new index for something that is there.
    fn name(&mut self, kind: ComponentExternalKind, cost: Option<Cost>) {
        match kind {
            ComponentExternalKind::Module => self.modules.push(cost),
            ComponentExternalKind::Component => self.components.push(cost),
            _ => {}
        }
    }
}

/// What instantiating a component costs, or more than that.
///
/// INVARIANT: whatever is instantiated was read before, for neither modules nor components can be
/// imported here. So where an index leads elsewhere, the most costly one so far is an upper bound.
fn weigh(bytes: &[u8]) -> Result<Cost, SandboxError> {
    let (mut scopes, mut worst) = (Vec::<Scope>::new(), Cost::default());
    let mut top = Scope { component: true, ..Scope::default() };
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { unchecked_range, .. } => {
                let code = bytes.get(unchecked_range).map_or(0, |module| code_bytes(module, 0));
                let cost = Cost { instances: 1, code };
                scopes.push(std::mem::replace(&mut top, Scope { cost, ..Scope::default() }));
            }
            Payload::ComponentSection { .. } => {
                let cost = Cost { instances: 1, code: 0 };
                let inner = Scope { cost, component: true, ..Scope::default() };
                scopes.push(std::mem::replace(&mut top, inner));
                if scopes.len() > NESTING {
                    return Err(too_big("levels of components", scopes.len(), NESTING));
                }
            }
            Payload::End(_) => {
                let Some(outer) = scopes.pop() else { continue };
                let done = std::mem::replace(&mut top, outer);
                worst = worst.most(done.cost);
                let list = if done.component { &mut top.components } else { &mut top.modules };
                list.push(Some(done.cost));
            }
            other => count(&mut top, worst, other)?,
        }
    }
    Ok(top.cost)
}

/// One section of a component.
fn count(scope: &mut Scope, worst: Cost, payload: Payload<'_>) -> Result<(), SandboxError> {
    let known = |list: &[Option<Cost>], index: u32| {
        usize::try_from(index).ok().and_then(|index| list.get(index).copied()).flatten()
    };
    match payload {
        Payload::InstanceSection(section) => {
            for instance in section {
                if let Instance::Instantiate { module_index, .. } = instance.map_err(malformed)? {
                    scope.cost.add(known(&scope.modules, module_index).unwrap_or(worst));
                }
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section {
                let instance = instance.map_err(malformed)?;
                if let ComponentInstance::Instantiate { component_index, .. } = instance {
                    scope.cost.add(known(&scope.components, component_index).unwrap_or(worst));
                }
            }
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section {
                match alias.map_err(malformed)? {
                    ComponentAlias::InstanceExport { kind, .. } => scope.name(kind, None),
                    ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => {
                        scope.name(ComponentExternalKind::Module, None);
                    }
                    ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, .. } => {
                        scope.name(ComponentExternalKind::Component, None);
                    }
                    _ => {}
                }
            }
        }
        Payload::ComponentImportSection(section) => {
            for import in section {
                let ty = import.map_err(malformed)?.ty;
                if matches!(ty, ComponentTypeRef::Module(_) | ComponentTypeRef::Component(_)) {
                    let text = "it imports a module or component; link it before";
                    return Err(SandboxError::Module(text.into()));
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section {
                let export = export.map_err(malformed)?;
                let cost = match export.kind {
                    ComponentExternalKind::Module => known(&scope.modules, export.index),
                    ComponentExternalKind::Component => known(&scope.components, export.index),
                    _ => None,
                };
                scope.name(export.kind, cost);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Every feature that this version of the engine knows, and whether it is on. An upgrade that
    /// adds one, or renames one, fails here until somebody has decided.
    const DECIDED: &[(&str, bool)] = &[
        ("MUTABLE_GLOBAL", true),
        ("SATURATING_FLOAT_TO_INT", true),
        ("SIGN_EXTENSION", true),
        ("REFERENCE_TYPES", true),
        ("MULTI_VALUE", true),
        ("BULK_MEMORY", true),
        ("SIMD", true),
        ("RELAXED_SIMD", false),
        ("THREADS", false),
        ("SHARED_EVERYTHING_THREADS", false),
        ("TAIL_CALL", false),
        ("FLOATS", true),
        ("MULTI_MEMORY", false),
        ("EXCEPTIONS", false),
        ("MEMORY64", false),
        ("EXTENDED_CONST", true),
        ("COMPONENT_MODEL", true),
        ("FUNCTION_REFERENCES", false),
        ("MEMORY_CONTROL", false),
        ("GC", false),
        ("CUSTOM_PAGE_SIZES", false),
        ("LEGACY_EXCEPTIONS", false),
        ("GC_TYPES", false),
        ("STACK_SWITCHING", false),
        ("WIDE_ARITHMETIC", false),
        ("CM_VALUES", false),
        ("CM_NESTED_NAMES", false),
        ("CM_ASYNC", false),
        ("CM_ASYNC_STACKFUL", false),
        ("CM_MORE_ASYNC_BUILTINS", false),
        ("CM_THREADING", false),
        ("CM_ERROR_CONTEXT", false),
        ("CM_FIXED_LENGTH_LISTS", false),
        ("CM_GC", false),
        ("CUSTOM_DESCRIPTORS", false),
        ("COMPACT_IMPORTS", false),
        ("CM_MAP", false),
        ("CM64", false),
        ("CM_IMPLEMENTS", false),
        ("CM_CANON_NAMES", false),
    ];

    /// A section with a size of five bytes.
    fn section(id: u8, body: &[u8]) -> Vec<u8> {
        let more = |at: usize| if at < 4 { 0x80 } else { 0 };
        let leb = (0..5).map(|at| u8::try_from(body.len() >> (7 * at) & 0x7f).unwrap() | more(at));
        std::iter::once(id).chain(leb).chain(body.iter().copied()).collect()
    }

    /// A module of functions that do nothing, of about a mebibyte each.
    fn filler(functions: u8) -> Vec<u8> {
        let one = [&[0][..], &vec![1; 1 << 20], &[0x0b]].concat();
        let one = section(0, &one).split_off(1);
        let code = [&[functions][..], &one.repeat(functions.into())].concat();
        let declared = [&[functions][..], &vec![0; functions.into()]].concat();
        [CORE_MODULE, &section(1, &[1, 0x60, 0, 0]), &section(3, &declared), &section(10, &code)]
            .concat()
    }

    fn component(sections: &[Vec<u8>]) -> Vec<u8> {
        [COMPONENT, &sections.concat()].concat()
    }

    fn said(bytes: &[u8]) -> String {
        check(bytes).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn code_within_components_is_code_however_deep() {
        for modules in [vec![15], vec![7, 8]] {
            let fits: Vec<_> = modules.iter().map(|n| section(1, &filler(*n))).collect();
            assert_eq!(said(&component(&fits)), "");
            let over = [fits, vec![section(1, &filler(1))]].concat();
            assert!(said(&component(&over)).contains("bytes of code"));
            let nested = component(&[section(4, &component(&over))]);
            assert!(said(&nested).contains("bytes of code"));
        }
        let lost = component(&[section(1, &filler(1)), vec![1, 0xff, 0xff, 0xff, 0xff, 0x0f]]);
        assert!(!said(&lost).is_empty());
    }

    #[test]
    fn the_same_code_again_and_again_is_counted_each_time() {
        let times = |count: u8| {
            let instances = [&[count][..], &[0, 0, 0].repeat(count.into())].concat();
            component(&[section(1, &filler(4)), section(2, &instances)])
        };
        assert_eq!(said(&times(7)), "");
        assert!(said(&times(9)).contains("over all instances"));
    }

    #[test]
    fn every_feature_is_decided_and_what_is_not_metered_is_off() {
        let mut found: Vec<_> = WasmFeatures::all()
            .iter_names()
            .map(|(name, flag)| (name, FEATURES.contains(flag)))
            .collect();
        let mut decided = DECIDED.to_vec();
        found.sort_unstable();
        decided.sort_unstable();
        assert_eq!(found, decided);
    }
}
