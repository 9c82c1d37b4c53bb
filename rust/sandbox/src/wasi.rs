//! WASI Preview 1 as a guest finds it: wasmtime's own, and stricter where files are concerned.

use std::collections::BTreeSet;

use bytes::Bytes;
use wasmtime::{AsContextMut, Caller, Extern, Linker, bail};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::filesystem::WasiFilesystemView;
use wasmtime_wasi::p1::types::{Errno, Fd, Filetype, Lookupflags};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{ResourceTableError, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};
use wiggle::{GuestMemory, GuestPtr};

use crate::files::{Files, Held};
use crate::limiter::{Limiter, Most};
use crate::outgoing::Requests;
use crate::output::{Capture, Stream};
use crate::replay::{self, Time, Waits};
use crate::run::Stop;
use crate::{Bounds, Input, SandboxError, dirs};

/// The only module a guest may import from.
pub(crate) const WASI: &str = "wasi_snapshot_preview1";
/// Files and directories one guest may hold open, its preopened ones not counted.
const OPEN_FILES: usize = 64;
/// Standard streams, and room for what one `poll_oneoff` needs.
const OPEN_OTHER: usize = 32;
/// Everything that a component may hold of the host's: descriptors, streams, headers, pollables.
const HELD: usize = 512;
/// Bytes of one `random_get`.
const RANDOM_BYTES: u64 = 1 << 20;
/// Most bytes the host copies in one call of the guest, and the least it must be able to.
const CALL_BYTES: (u64, u64) = (64 * 1024, 128 << 20);
/// The descriptor of the first preopened directory.
const FIRST_DIR: i32 = 3;

/// What one run owns.
pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    /// Descriptors of write-only directories, and of all that was opened through them.
    blind: BTreeSet<i32>,
    /// The same for a component.
    held: Held,
    pub(crate) requests: Requests,
    /// Its own clocks, where the run can be repeated.
    pub(crate) time: Option<Time>,
    pub(crate) limiter: Limiter,
}

/// Who will own a state: each kind of guest has its own bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    Module,
    Component,
}

impl State {
    pub(crate) fn new(
        guest: Guest,
        bounds: &Bounds,
        input: &Input,
        capture: &Capture,
    ) -> Result<Self, SandboxError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&input.args)
            .envs(&input.env)
            .stdin(MemoryInputPipe::new(Bytes::copy_from_slice(&input.stdin)))
            .stdout(capture.stream(Stream::Out))
            .stderr(capture.stream(Stream::Err))
            .max_random_size(RANDOM_BYTES);
        let time = input.seed.as_ref().map(|seed| replay::seeded(&mut wasi, seed));
        for dir in &bounds.dirs {
            dirs::preopen(&mut wasi, dir)?;
        }
        let blind = (FIRST_DIR..).zip(&bounds.dirs).filter(|(_, dir)| !dir.read);
        let (most, room) = match guest {
            Guest::Module => (Most::MODULE, OPEN_FILES + OPEN_OTHER + bounds.dirs.len()),
            Guest::Component => (Most::COMPONENT, HELD),
        };
        let mut state = Self {
            blind: blind.map(|(fd, _)| fd).collect(),
            held: Held::new(bounds.dirs.iter().map(|dir| dir.read).collect()),
            wasi: wasi.build_p1(),
            requests: Requests::new(input.outgoing.clone()),
            time,
            limiter: Limiter::new(bounds.memory, most),
        };
        state.wasi.ctx().table.set_max_capacity(room);
        Ok(state)
    }

    pub(crate) fn waits(&mut self) -> Waits<'_> {
        Waits { time: self.time.clone(), clocks: self.wasi.clocks() }
    }

    pub(crate) fn files(&mut self) -> Files<'_> {
        Files { all: self.wasi.filesystem(), held: &mut self.held }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.requests.hooks,
            table: self.wasi.ctx().table,
            ctx: &mut self.requests.context,
        }
    }
}

/// Bytes the host may copy in one call of a guest with this much memory.
pub(crate) fn call_bytes(memory: u64) -> usize {
    let (least, most) = CALL_BYTES;
    usize::try_from(memory.clamp(least, most)).unwrap_or(usize::MAX)
}

/// The functions a guest may import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
    linker.allow_shadowing(true);
    linker.func_wrap(WASI, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(Stop::Exit(code).into())
    })?;
    descriptors(&mut linker)?;
    opening(&mut linker)?;
    names(&mut linker)?;
    replay::polling(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// `fd_close` and `fd_renumber` keep `blind` true to the guest's descriptor numbers.
fn descriptors(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(WASI, "fd_close", |mut guest: Caller<'_, State>, (fd,): (i32,)| {
        Box::new(async move {
            let (mut memory, state) = parts(&mut guest)?;
            let code = p1::fd_close(&mut state.wasi, &mut memory, fd).await?;
            if code == SUCCESS {
                state.blind.remove(&fd);
            }
            Ok(code)
        })
    })?;
    linker.func_wrap_async(
        WASI,
        "fd_renumber",
        |mut guest: Caller<'_, State>, (from, to): (i32, i32)| {
            Box::new(async move {
                let (mut memory, state) = parts(&mut guest)?;
                let code = p1::fd_renumber(&mut state.wasi, &mut memory, from, to).await?;
                if code == SUCCESS && from != to {
                    if state.blind.remove(&from) {
                        state.blind.insert(to);
                    } else {
                        state.blind.remove(&to);
                    }
                }
                Ok(code)
            })
        },
    )?;
    Ok(())
}

type OpenArgs = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// `path_open` opens regular files and directories only, and through a write-only directory only
/// for writing.
fn opening(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(WASI, "path_open", |mut guest: Caller<'_, State>, args: OpenArgs| {
        Box::new(async move {
            let (fd, follow, path, len, oflags, rights, inherit, flags, out) = args;
            let (mut memory, state) = parts(&mut guest)?;
            let blind = state.blind.contains(&fd);
            if blind && !writes_only(oflags, rights) {
                return Ok(ACCES);
            }
            if special(state, &mut memory, fd, follow, path, len).await {
                return Ok(ACCES);
            }
            let (wasi, memory) = (&mut state.wasi, &mut memory);
            let opened = p1::path_open(
                wasi, memory, fd, follow, path, len, oflags, rights, inherit, flags, out,
            )
            .await;
            let code = match opened {
                Err(error) if error.is::<ResourceTableError>() => return Ok(MFILE),
                other => other?,
            };
            if blind && code == SUCCESS {
                let new = memory.read(GuestPtr::<u32>::new(out.cast_unsigned()))?;
                state.blind.insert(new.cast_signed());
            }
            Ok(code)
        })
    })?;
    Ok(())
}

/// Whether what is opened can be written or walked through, but not read.
fn writes_only(oflags: i32, rights: i64) -> bool {
    const DIRECTORY: i32 = 1 << 1;
    const FD_READ: i64 = 1 << 1;
    const FD_WRITE: i64 = 1 << 6;
    rights & FD_READ == 0 && (rights & FD_WRITE != 0 || oflags & DIRECTORY != 0)
}

/// Whether the path names something that is neither a regular file nor a directory. Opening a
/// pipe could wait for ever; a device or socket is not a file of the tree.
async fn special(
    state: &mut State,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    follow: i32,
    path: i32,
    len: i32,
) -> bool {
    let Ok(follow) = Lookupflags::try_from(follow) else {
        return true;
    };
    let path = GuestPtr::<str>::new((path.cast_unsigned(), len.cast_unsigned()));
    let fd = Fd::from(fd.cast_unsigned());
    match state.wasi.path_filestat_get(memory, fd, follow, path).await {
        // A link that is not to be followed is refused by `path_open`, which knows why.
        Ok(stat) => !matches!(
            stat.filetype,
            Filetype::RegularFile | Filetype::Directory | Filetype::SymbolicLink
        ),
        // A code, such as "no such file", is repeated by `path_open`; a fault is not.
        Err(error) => error.downcast().is_err(),
    }
}

/// Through a write-only directory nothing is listed, and nothing is moved to where it could be
/// read. Symbolic links are not made at all: others might follow them.
fn names(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(WASI, "path_symlink", |_: i32, _: i32, _: i32, _: i32, _: i32| PERM)?;
    macro_rules! sighted {
        ($name:ident($fd:ident $(, $arg:ident: $kind:ty)*)) => {
            linker.func_wrap_async(
                WASI,
                stringify!($name),
                |mut guest: Caller<'_, State>, ($fd, $($arg),*): (i32, $($kind),*)| {
                    Box::new(async move {
                        if guest.data().blind.contains(&$fd) {
                            return Ok(ACCES);
                        }
                        let (mut memory, state) = parts(&mut guest)?;
                        p1::$name(&mut state.wasi, &mut memory, $fd, $($arg),*).await
                    })
                },
            )?;
        };
    }
    sighted!(fd_readdir(fd, buf: i32, len: i32, cookie: i64, out: i32));
    sighted!(path_readlink(fd, path: i32, len: i32, buf: i32, room: i32, out: i32));
    sighted!(path_rename(fd, path: i32, len: i32, to: i32, to_path: i32, to_len: i32));
    sighted!(path_link(fd, flags: i32, path: i32, len: i32, to: i32, to_path: i32, to_len: i32));
    Ok(())
}

const SUCCESS: i32 = Errno::Success as i32;
const ACCES: i32 = Errno::Acces as i32;
const MFILE: i32 = Errno::Mfile as i32;
const PERM: i32 = Errno::Perm as i32;

/// The guest's memory and the run's state, as wasmtime's own functions take them.
pub(crate) fn parts<'a>(
    guest: &'a mut Caller<'_, State>,
) -> wasmtime::Result<(GuestMemory<'a>, &'a mut State)> {
    let fuel = guest.as_context_mut().hostcall_fuel();
    let Some(Extern::Memory(memory)) = guest.get_export("memory") else {
        bail!("the module exports no `memory`");
    };
    let (bytes, state) = memory.data_and_store_mut(guest);
    state.wasi.set_hostcall_fuel(fuel);
    Ok((GuestMemory::Unshared(bytes), state))
}
