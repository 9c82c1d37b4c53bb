//! Handles of `wasi:http` that a guest lets go of before what came from them.
//!
//! WASI leaves it to the host whether a response's future may go before its pollable, and a body
//! before its stream. Wasmtime traps; guests with garbage collectors drop in any order, so here
//! the host keeps such a handle until what came from it is gone.

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::{ResourceTable, ResourceTableError, WasiView};
use wasmtime_wasi_http::p2::body::HostIncomingBody;
use wasmtime_wasi_http::p2::types::HostFutureIncomingResponse;

use crate::wasi::State;

/// The version that wasmtime links.
const TYPES: &str = "wasi:http/types@0.2.12";

/// A handle that the guest has dropped.
#[derive(Clone, Copy)]
pub(crate) enum Early {
    Future(u32),
    Body(u32),
}

impl Early {
    /// Deletes it, unless something that came from it is still there.
    fn delete(self, table: &mut ResourceTable) -> Result<(), ResourceTableError> {
        match self {
            Self::Future(rep) => {
                table.delete(Resource::<HostFutureIncomingResponse>::new_own(rep)).map(drop)
            }
            Self::Body(rep) => table.delete(Resource::<HostIncomingBody>::new_own(rep)).map(drop),
        }
    }
}

/// Takes the place of wasmtime's own destructors.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let future = ResourceType::host::<HostFutureIncomingResponse>();
    let body = ResourceType::host::<HostIncomingBody>();
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    types.resource("future-incoming-response", future, |mut store, rep| {
        let_go(store.data_mut(), Early::Future(rep))
    })?;
    types.resource("incoming-body", body, |mut store, rep| {
        let_go(store.data_mut(), Early::Body(rep))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Deletes what was dropped now or before and can go. What stays takes a place in the table, so
/// there is never more of it than the table holds.
fn let_go(state: &mut State, handle: Early) -> wasmtime::Result<()> {
    let waiting = std::mem::take(&mut state.early);
    for handle in waiting.into_iter().chain([handle]) {
        match handle.delete(state.ctx().table) {
            Ok(()) => {}
            Err(ResourceTableError::HasChildren) => state.early.push(handle),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
