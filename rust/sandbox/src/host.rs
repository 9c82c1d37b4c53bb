//! `hyperlight:sandbox/tools`: what a component may ask the program that runs it to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::wasi::State;

/// Bytes of the answer of one tool call.
pub const ANSWER_BYTES: usize = 1 << 20;
/// Bytes of its arguments: canonical ones have at most 32 KiB, and white space is cheap.
pub const ARGS_BYTES: usize = 256 << 10;
/// Bytes of its name.
pub const NAME_BYTES: usize = 256;

/// The interface and its one function, `dispatch: func(name: string, args-json: string) ->
/// result<string, string>`, as the interpreters of the package `hyperlight-sandbox` import it.
const INTERFACE: &str = "hyperlight:sandbox/tools";
const DISPATCH: &str = "dispatch";

/// Does what guests ask for.
pub trait Host: Send + Sync {
    /// Decides about one call of a tool and makes it. This is called on the guest's thread and
    /// must return at once; what it returns runs where the guest waits, and is dropped when its
    /// time is over or it is stopped. `name` has at most [`NAME_BYTES`] and `args`, a text that
    /// should be JSON, at most [`ARGS_BYTES`]; nothing else is known of them. An `Err` is what the
    /// guest is told went wrong.
    fn tool(&self, name: String, args: String) -> Calling;
}

/// A call under way: the result as JSON text, at most [`ANSWER_BYTES`].
pub type Calling = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap_async(
        DISPATCH,
        |store: StoreContextMut<'_, State>, (name, args): (String, String)| {
            let host = store.data().host.clone();
            Box::new(async move { Ok((dispatch(host, name, args).await,)) })
        },
    )
}

async fn dispatch(
    host: Option<Arc<dyn Host>>,
    name: String,
    args: String,
) -> Result<String, String> {
    let Some(host) = host else {
        return Err("this run was given no tools".to_owned());
    };
    // Before anything is read: a tree of JSON takes a hundred times the bytes of its text.
    if name.len() > NAME_BYTES {
        return Err(format!("the name of a tool has at most {NAME_BYTES} bytes"));
    }
    if args.len() > ARGS_BYTES {
        return Err(format!("the arguments have {} bytes, at most {ARGS_BYTES}", args.len()));
    }
    let answer = host.tool(name, args).await?;
    if answer.len() > ANSWER_BYTES {
        return Err(format!("the answer has {} bytes, at most {ANSWER_BYTES}", answer.len()));
    }
    Ok(answer)
}
