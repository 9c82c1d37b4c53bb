//! What Preview 1 writes by a path, done as for a component: one rule for both kinds of guests.

use wasmtime::component::Resource;
use wasmtime::{Caller, Linker};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p1::types::{Errno, Error, Fstflags, Timestamp};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, HostDescriptor, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::{ResourceTableError, WasiView};
use wiggle::{GuestMemory, GuestPtr};

use crate::files::writes;
use crate::wasi::{ACCES, MFILE, OpenArgs, SUCCESS, State, WASI, open as open_unchecked, parts};

/// The longest path; the kernel takes no longer one.
const PATH_BYTES: u32 = 4096;

type Done = Result<(), Error>;

/// A directory, and a path below it in the guest's memory.
type At = (i32, i32, i32);

pub(crate) fn functions(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    macro_rules! writes {
        ($name:ident($($arg:ident: $kind:ty),*) => $done:ident($($given:expr),*)) => {
            linker.func_wrap_async(
                WASI,
                stringify!($name),
                |mut guest: Caller<'_, State>, ($($arg),*): ($($kind),*)| {
                    Box::new(async move {
                        let (memory, state) = parts(&mut guest)?;
                        code($done(state, &memory, $($given),*).await)
                    })
                },
            )?;
        };
    }
    writes!(path_create_directory(fd: i32, path: i32, len: i32) => make((fd, path, len)));
    writes!(path_remove_directory(fd: i32, path: i32, len: i32) => remove((fd, path, len)));
    writes!(path_unlink_file(fd: i32, path: i32, len: i32) => unlink((fd, path, len)));
    writes!(path_rename(fd: i32, path: i32, len: i32, to: i32, new: i32, new_len: i32)
        => rename((fd, path, len), (to, new, new_len)));
    writes!(path_link(fd: i32, how: i32, path: i32, len: i32, to: i32, new: i32, new_len: i32)
        => link((fd, path, len), (to, new, new_len), how));
    writes!(path_filestat_set_times(
        fd: i32, _follow: i32, path: i32, len: i32, atim: i64, mtim: i64, how: i32
    ) => set_times_at((fd, path, len), (atim, mtim, how)));
    writes!(fd_filestat_set_times(fd: i32, atim: i64, mtim: i64, how: i32)
        => set_times(fd, (atim, mtim, how)));
    Ok(())
}

/// Whether opening may change something, or lets it be changed afterwards.
pub(crate) fn opens(args: &OpenArgs) -> bool {
    let (how, flags) = asked(args);
    writes(how, flags)
}

/// Opens a file to write it, by the rule for components; then lets wasmtime open it once more,
/// for a descriptor of its own, behind which it puts the file that was found good.
pub(crate) async fn open(
    state: &mut State,
    memory: &mut GuestMemory<'_>,
    args: OpenArgs,
) -> wasmtime::Result<i32> {
    let (fd, _, path, len, _, rights, inherit, fdflags, out) = args;
    let (how, flags) = asked(&args);
    let good = match opened(state, memory, (fd, path, len), how, flags).await {
        Ok(good) => good,
        Err(error) => match code(Err(error)) {
            Err(error) if error.is::<ResourceTableError>() => return Ok(MFILE),
            code => return code,
        },
    };
    let again = (fd, 0, path, len, 0, rights, inherit, fdflags, out);
    let ended = open_unchecked(state, memory, again).await;
    let good_file = take(state, good)?;
    if let Err(code) = ended? {
        return Ok(code);
    }
    let new = memory.read(GuestPtr::<u32>::new(out.cast_unsigned()))?.cast_signed();
    let made = state.descriptor(new).and_then(|fd| state.ctx().table.get_mut(&fd).ok());
    match (made, good_file) {
        (Some(made @ Descriptor::File(_)), good @ Descriptor::File(_)) => *made = good,
        _ => {
            state.close(memory, new).await?;
            return Ok(ACCES);
        }
    }
    Ok(SUCCESS)
}

async fn opened(
    state: &mut State,
    memory: &GuestMemory<'_>,
    at: At,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> Result<Resource<Descriptor>, Error> {
    let (fd, path) = known(state, memory, at)?;
    Ok(state.files().open_at(fd, PathFlags::empty(), path, how, flags).await?)
}

fn take(state: &mut State, opened: Resource<Descriptor>) -> wasmtime::Result<Descriptor> {
    let number = opened.rep();
    let taken = state.ctx().table.delete(opened)?;
    state.forget(number);
    Ok(taken)
}

/// The flags of `path_open`, as a component would give them.
fn asked(args: &OpenArgs) -> (OpenFlags, DescriptorFlags) {
    let (.., oflags, rights, _, fdflags, _) = *args;
    let how = [OpenFlags::CREATE, OpenFlags::DIRECTORY, OpenFlags::EXCLUSIVE, OpenFlags::TRUNCATE];
    let how = how.into_iter().enumerate().filter(|(bit, _)| oflags & 1 << bit != 0);
    let how = how.fold(OpenFlags::empty(), |all, (_, flag)| all | flag);
    let flags = [
        (rights & 1 << 1 != 0, DescriptorFlags::READ),
        (rights & 1 << 6 != 0, DescriptorFlags::WRITE),
        (fdflags & 1 << 1 != 0, DescriptorFlags::DATA_INTEGRITY_SYNC),
        (fdflags & 1 << 3 != 0, DescriptorFlags::REQUESTED_WRITE_SYNC),
        (fdflags & 1 << 4 != 0, DescriptorFlags::FILE_INTEGRITY_SYNC),
    ];
    let flags = flags.into_iter().filter(|(given, _)| *given);
    (how, flags.fold(DescriptorFlags::empty(), |all, (_, flag)| all | flag))
}

async fn make(state: &mut State, memory: &GuestMemory<'_>, at: At) -> Done {
    let (fd, path) = known(state, memory, at)?;
    Ok(state.files().create_directory_at(fd, path).await?)
}

async fn remove(state: &mut State, memory: &GuestMemory<'_>, at: At) -> Done {
    let (fd, path) = known(state, memory, at)?;
    Ok(state.files().remove_directory_at(fd, path).await?)
}

async fn unlink(state: &mut State, memory: &GuestMemory<'_>, at: At) -> Done {
    let (fd, path) = known(state, memory, at)?;
    Ok(state.files().unlink_file_at(fd, path).await?)
}

async fn rename(state: &mut State, memory: &GuestMemory<'_>, at: At, to: At) -> Done {
    let ((fd, path), (to, new)) = (known(state, memory, at)?, known(state, memory, to)?);
    Ok(state.files().rename_at(fd, path, to, new).await?)
}

async fn link(state: &mut State, memory: &GuestMemory<'_>, at: At, to: At, how: i32) -> Done {
    let ((fd, path), (to, new)) = (known(state, memory, at)?, known(state, memory, to)?);
    let follow = if how == 0 { PathFlags::empty() } else { PathFlags::SYMLINK_FOLLOW };
    Ok(state.files().link_at(fd, follow, path, to, new).await?)
}

/// Both times, and which of them are set and how.
type When = (i64, i64, i32);

async fn set_times_at(state: &mut State, memory: &GuestMemory<'_>, at: At, when: When) -> Done {
    let ((fd, path), (accessed, modified)) = (known(state, memory, at)?, times(when)?);
    Ok(state.files().set_times_at(fd, PathFlags::empty(), path, accessed, modified).await?)
}

async fn set_times(state: &mut State, _: &GuestMemory<'_>, fd: i32, when: When) -> Done {
    let (accessed, modified) = times(when)?;
    let fd = state.descriptor(fd).ok_or(Errno::Badf)?;
    Ok(state.files().set_times(fd, accessed, modified).await?)
}

fn known(
    state: &State,
    memory: &GuestMemory<'_>,
    (fd, path, len): At,
) -> Result<(Resource<Descriptor>, String), Error> {
    let fd = state.descriptor(fd).ok_or(Errno::Badf)?;
    let len = len.cast_unsigned();
    if len > PATH_BYTES {
        return Err(Errno::Nametoolong.into());
    }
    let path = GuestPtr::<str>::new((path.cast_unsigned(), len));
    Ok((fd, memory.as_cow_str(path)?.into_owned()))
}

fn times((atim, mtim, how): When) -> Result<(NewTimestamp, NewTimestamp), Error> {
    let how = Fstflags::try_from(how)?;
    let one = |time: i64, set, now| match (how.contains(set), how.contains(now)) {
        (true, true) => Err(Errno::Inval),
        (true, false) => Ok(NewTimestamp::Timestamp(at(time.cast_unsigned()))),
        (false, true) => Ok(NewTimestamp::Now),
        (false, false) => Ok(NewTimestamp::NoChange),
    };
    Ok((
        one(atim, Fstflags::ATIM, Fstflags::ATIM_NOW)?,
        one(mtim, Fstflags::MTIM, Fstflags::MTIM_NOW)?,
    ))
}

fn at(time: Timestamp) -> Datetime {
    const SECOND: u64 = 1_000_000_000;
    let nanoseconds = u32::try_from(time % SECOND).unwrap_or_default();
    Datetime { seconds: time / SECOND, nanoseconds }
}

/// The number that a guest sees; what is no answer to it ends the run.
fn code(done: Done) -> wasmtime::Result<i32> {
    match done {
        Ok(()) => Ok(SUCCESS),
        Err(error) => Ok(error.downcast()? as i32),
    }
}
