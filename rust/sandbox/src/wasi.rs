//! WASI Preview 1 as a guest finds it: wasmtime's own, and stricter where files are concerned.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime::{AsContextMut, Caller, Extern, Linker, bail};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p1::types::{Errno, Fd, Filetype, Lookupflags};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{ResourceTableError, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};
use wiggle::{GuestMemory, GuestPtr};

use crate::early::Early;
use crate::files::{Files, Held};
use crate::limiter::{Limiter, Most};
use crate::outgoing::Requests;
use crate::output::{Capture, Stream};
use crate::replay::{self, Time, Waits};
use crate::run::Stop;
use crate::{Bounds, Host, Input, SandboxError, dirs, writing};

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
    /// The numbers in the table of what a module holds by its own: directories and files.
    numbers: BTreeMap<i32, u32>,
    held: Held,
    pub(crate) requests: Requests,
    /// What the guest let go of too early.
    pub(crate) early: Vec<Early>,
    pub(crate) host: Option<Arc<dyn Host>>,
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
        let (most, room) = match guest {
            Guest::Module => (Most::MODULE, OPEN_FILES + OPEN_OTHER + bounds.dirs.len()),
            Guest::Component => (Most::COMPONENT, HELD),
        };
        let mut state = Self {
            numbers: BTreeMap::new(),
            held: Held::new(&bounds.dirs),
            wasi: wasi.build_p1(),
            requests: Requests::new(input.outgoing.clone()),
            early: Vec::new(),
            host: input.host.clone(),
            time,
            limiter: Limiter::new(bounds.memory, most),
        };
        state.wasi.ctx().table.set_max_capacity(room);
        if guest == Guest::Module && !bounds.dirs.is_empty() {
            state.preopened()?;
        }
        Ok(state)
    }

    /// Makes wasmtime take the preopened directories into its table, and reads their numbers.
    fn preopened(&mut self) -> Result<(), SandboxError> {
        let first = Fd::from(FIRST_DIR.cast_unsigned());
        let asked = self.wasi.fd_prestat_get(&mut GuestMemory::Unshared(&mut []), first);
        let dirs = self.held.preopened().to_vec();
        let found = self.unknown();
        if asked.is_err() || found.len() != dirs.len() {
            let text = wasmtime::format_err!("a directory is not where it was put");
            return Err(SandboxError::internal(text));
        }
        for ((fd, number), reads) in (FIRST_DIR..).zip(found).zip(dirs) {
            self.opened(fd, number, reads);
        }
        Ok(())
    }

    /// Numbers of descriptors in the table that this state was not told of, in order.
    fn unknown(&mut self) -> Vec<u32> {
        let table = self.wasi.ctx().table;
        let all = 0..u32::try_from(table.max_capacity()).unwrap_or(u32::MAX);
        let there = |number: &u32| table.get(&Resource::<Descriptor>::new_borrow(*number)).is_ok();
        all.filter(there).filter(|number| !self.held.knows(*number)).collect()
    }

    fn opened(&mut self, fd: i32, number: u32, reads: bool) {
        self.numbers.insert(fd, number);
        self.held.opened(number, reads);
    }

    pub(crate) fn forget(&mut self, number: u32) {
        self.held.closed(number);
    }

    pub(crate) async fn close(
        &mut self,
        memory: &mut GuestMemory<'_>,
        fd: i32,
    ) -> wasmtime::Result<i32> {
        let code = p1::fd_close(&mut self.wasi, memory, fd).await?;
        if code == SUCCESS
            && let Some(number) = self.numbers.remove(&fd)
        {
            self.held.closed(number);
        }
        Ok(code)
    }

    /// The descriptor of a module in the table.
    pub(crate) fn descriptor(&self, fd: i32) -> Option<Resource<Descriptor>> {
        self.numbers.get(&fd).map(|number| Resource::new_borrow(*number))
    }

    /// Whether it is a write-only directory, or was opened through one.
    fn blind(&self, fd: i32) -> bool {
        self.descriptor(fd).is_some_and(|fd| self.held.sighted(&fd).is_err())
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
    writing::functions(&mut linker)?;
    replay::polling(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// `fd_close` and `fd_renumber` keep `numbers` true to the guest's descriptors.
fn descriptors(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(WASI, "fd_close", |mut guest: Caller<'_, State>, (fd,): (i32,)| {
        Box::new(async move {
            let (mut memory, state) = parts(&mut guest)?;
            state.close(&mut memory, fd).await
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
                    if let Some(number) = state.numbers.remove(&to) {
                        state.held.closed(number);
                    }
                    if let Some(number) = state.numbers.remove(&from) {
                        state.numbers.insert(to, number);
                    }
                }
                Ok(code)
            })
        },
    )?;
    Ok(())
}

pub(crate) type OpenArgs = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// `path_open` opens regular files and directories only, and through a write-only directory only
/// for writing.
fn opening(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(WASI, "path_open", |mut guest: Caller<'_, State>, args: OpenArgs| {
        Box::new(async move {
            let (fd, follow, path, len, oflags, rights, ..) = args;
            let (mut memory, state) = parts(&mut guest)?;
            if state.blind(fd) && !writes_only(oflags, rights) {
                return Ok(ACCES);
            }
            if writing::opens(&args) {
                return writing::open(state, &mut memory, args).await;
            }
            if special(state, &mut memory, fd, follow, path, len).await {
                return Ok(ACCES);
            }
            open(state, &mut memory, args).await.map(|opened| opened.unwrap_or_else(|code| code))
        })
    })?;
    Ok(())
}

/// Opens as wasmtime does; an error code, or success and the number of what was opened.
pub(crate) async fn open(
    state: &mut State,
    memory: &mut GuestMemory<'_>,
    args: OpenArgs,
) -> wasmtime::Result<Result<i32, i32>> {
    let (fd, follow, path, len, oflags, rights, inherit, flags, out) = args;
    let wasi = &mut state.wasi;
    let opened =
        p1::path_open(wasi, memory, fd, follow, path, len, oflags, rights, inherit, flags, out);
    match opened.await {
        Err(error) if error.is::<ResourceTableError>() => return Ok(Err(MFILE)),
        Ok(SUCCESS) => {}
        other => return other.map(Err),
    }
    let new = memory.read(GuestPtr::<u32>::new(out.cast_unsigned()))?.cast_signed();
    let [number] = state.unknown()[..] else {
        bail!("a descriptor is not where it was put");
    };
    let reads = !state.blind(fd);
    state.opened(new, number, reads);
    Ok(Ok(SUCCESS))
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

/// Through a write-only directory nothing is listed. Symbolic links are not made at all: others
/// might follow them.
fn names(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(WASI, "path_symlink", |_: i32, _: i32, _: i32, _: i32, _: i32| PERM)?;
    macro_rules! sighted {
        ($name:ident($fd:ident $(, $arg:ident: $kind:ty)*)) => {
            linker.func_wrap_async(
                WASI,
                stringify!($name),
                |mut guest: Caller<'_, State>, ($fd, $($arg),*): (i32, $($kind),*)| {
                    Box::new(async move {
                        if guest.data().blind($fd) {
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
    Ok(())
}

pub(crate) const SUCCESS: i32 = Errno::Success as i32;
pub(crate) const ACCES: i32 = Errno::Acces as i32;
pub(crate) const MFILE: i32 = Errno::Mfile as i32;
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
