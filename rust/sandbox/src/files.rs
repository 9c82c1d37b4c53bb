//! `wasi:filesystem` for components, and what Preview 1 writes: only regular files and directories
//! open, no symbolic link is made or written through, nothing that runs by itself is written, and
//! through a write-only directory nothing can be read.
//!
//! Every function of the interface is written out: a version that adds one does not compile until
//! somebody has decided about it.

use std::collections::BTreeMap;

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode,
    Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags,
    PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult, ReaddirIterator};
use wasmtime_wasi::runtime::spawn_blocking;

use crate::place::{self, Place, Trees};
use crate::way::Way;

/// Descriptors that one guest may hold, those of its preopened directories included.
const OPEN: usize = 128;
/// Directories that it may be reading at once: all names of each are held for it.
const LISTED: usize = 32;

/// The interface, as a linker knows it.
pub(crate) struct FileSystem;

impl HasData for FileSystem {
    type Data<'a> = Files<'a>;
}

/// One call of a guest.
pub(crate) struct Files<'a> {
    pub(crate) all: WasiFilesystemCtxView<'a>,
    pub(crate) held: &'a mut Held,
}

/// What a run has open.
pub(crate) struct Held {
    /// The trees that may be written.
    pub(crate) trees: Trees,
    /// Whether each preopened directory may be read, in order.
    preopened: Vec<bool>,
    /// Whether each descriptor may be read, by its number in the table.
    open: BTreeMap<u32, bool>,
    listed: usize,
}

impl Held {
    pub(crate) fn new(dirs: &[crate::Dir]) -> Self {
        let written = dirs.iter().filter(|dir| dir.write);
        Self {
            trees: written.map(|dir| dir.path.clone()).collect(),
            preopened: dirs.iter().map(|dir| dir.read).collect(),
            open: BTreeMap::new(),
            listed: 0,
        }
    }

    /// Whether each preopened directory may be read, in order.
    pub(crate) fn preopened(&self) -> &[bool] {
        &self.preopened
    }

    pub(crate) fn opened(&mut self, number: u32, reads: bool) {
        self.open.insert(number, reads);
    }

    pub(crate) fn closed(&mut self, number: u32) {
        self.open.remove(&number);
    }

    pub(crate) fn knows(&self, number: u32) -> bool {
        self.open.contains_key(&number)
    }

    /// Refuses what looks through a write-only directory, or at what is not known at all.
    pub(crate) fn sighted(&self, fd: &Resource<Descriptor>) -> FsResult<()> {
        if self.open.get(&fd.rep()).copied().unwrap_or(false) {
            Ok(())
        } else {
            Err(ErrorCode::Access.into())
        }
    }

    fn room(&self, more: usize) -> bool {
        self.open.len().saturating_add(more) <= OPEN
    }
}

pub(crate) type Fd = Resource<Descriptor>;
type Entries = Resource<ReaddirIterator>;

impl Files<'_> {
    /// Whether the path names something that is neither a regular file nor a directory. Opening a
    /// pipe could wait for ever; a device or socket is not a file of the tree.
    pub(crate) async fn special(
        &mut self,
        fd: &Fd,
        follow: PathFlags,
        path: &str,
    ) -> FsResult<bool> {
        let fd = Resource::new_borrow(fd.rep());
        match self.all.stat_at(fd, follow, path.to_owned()).await {
            // A link that is not to be followed is refused by `open_at`, which knows why.
            Ok(stat) => Ok(!matches!(
                stat.type_,
                DescriptorType::RegularFile
                    | DescriptorType::Directory
                    | DescriptorType::SymbolicLink
            )),
            // A code, such as "no such file", is repeated by `open_at`; a fault is not.
            Err(error) if error.downcast_ref().is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl preopens::Host for Files<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        if !self.held.room(self.held.preopened.len()) {
            wasmtime::bail!("too many open directories; close some");
        }
        let found = preopens::Host::get_directories(&mut self.all)?;
        for ((fd, _), read) in found.iter().zip(self.held.preopened.clone()) {
            self.held.opened(fd.rep(), read);
        }
        Ok(found)
    }
}

impl types::Host for Files<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.all, error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        types::Host::filesystem_error_code(&mut self.all, error)
    }
}

/// Whether opening may change something, or lets it be changed afterwards.
pub(crate) fn writes(how: OpenFlags, flags: DescriptorFlags) -> bool {
    how.contains(OpenFlags::CREATE)
        || how.contains(OpenFlags::TRUNCATE)
        || flags.contains(DescriptorFlags::WRITE)
}

/// Whether what is opened can be written or walked through, but not read.
fn writes_only(how: OpenFlags, flags: DescriptorFlags) -> bool {
    let walks = how.contains(OpenFlags::DIRECTORY);
    !flags.contains(DescriptorFlags::READ) && (flags.contains(DescriptorFlags::WRITE) || walks)
}

impl HostDescriptor for Files<'_> {
    async fn open_at(
        &mut self,
        fd: Fd,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let reads = self.held.sighted(&fd).is_ok();
        if !reads && !writes_only(how, flags) {
            return Err(ErrorCode::Access.into());
        }
        if !self.held.room(1) {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let opened = if writes(how, flags) {
            self.open_to_write(&fd, path, how, flags).await?
        } else if self.special(&fd, follow, &path).await? {
            return Err(ErrorCode::Access.into());
        } else {
            self.all.open_at(fd, follow, path, how, flags).await?
        };
        self.held.opened(opened.rep(), reads);
        Ok(opened)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        let number = fd.rep();
        HostDescriptor::drop(&mut self.all, fd)?;
        self.held.closed(number);
        Ok(())
    }

    async fn read(&mut self, fd: Fd, len: Filesize, at: Filesize) -> FsResult<(Vec<u8>, bool)> {
        self.held.sighted(&fd)?;
        self.all.read(fd, len, at).await
    }

    fn read_via_stream(&mut self, fd: Fd, at: Filesize) -> FsResult<Resource<DynInputStream>> {
        self.held.sighted(&fd)?;
        self.all.read_via_stream(fd, at)
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Entries> {
        self.held.sighted(&fd)?;
        if self.held.listed >= LISTED {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let entries = self.all.read_directory(fd).await?;
        self.held.listed += 1;
        Ok(entries)
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        self.held.sighted(&fd)?;
        self.all.readlink_at(fd, path).await
    }

    async fn rename_at(&mut self, fd: Fd, path: String, to: Fd, new: String) -> FsResult<()> {
        self.held.sighted(&fd)?;
        let (from, to) = self.ways(&fd, path, &to, new).await?;
        let fits = match (&from, &to) {
            (Way::Found(_, old), Way::Found(_, new)) => old.moves_to(new).map_err(FsError::from),
            _ => Ok(()),
        };
        let done = match fits {
            Ok(()) => self.all.rename_at(from.fd(), from.name(), to.fd(), to.name()).await,
            refused => refused,
        };
        self.leave(from)?;
        self.leave(to)?;
        done
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        follow: PathFlags,
        path: String,
        to: Fd,
        new: String,
    ) -> FsResult<()> {
        self.held.sighted(&fd)?;
        let (from, to) = self.ways(&fd, path, &to, new).await?;
        let done = match from.is(Place::is_linked) {
            Ok(()) => self.all.link_at(from.fd(), follow, from.name(), to.fd(), to.name()).await,
            refused => refused,
        };
        self.leave(from)?;
        self.leave(to)?;
        done
    }

    /// Symbolic links are not made at all: others might follow them.
    async fn symlink_at(&mut self, _: Fd, _: String, _: String) -> FsResult<()> {
        Err(ErrorCode::NotPermitted.into())
    }

    async fn advise(
        &mut self,
        fd: Fd,
        offset: Filesize,
        len: Filesize,
        advice: Advice,
    ) -> FsResult<()> {
        self.all.advise(fd, offset, len, advice).await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.all.sync_data(fd).await
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.all.sync(fd).await
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        self.all.get_flags(fd).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<DescriptorType> {
        self.all.get_type(fd).await
    }

    async fn set_size(&mut self, fd: Fd, size: Filesize) -> FsResult<()> {
        self.all.set_size(fd, size).await
    }

    async fn set_times(
        &mut self,
        fd: Fd,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let (file, perms) = match self.all.table.get(&fd)? {
            Descriptor::File(file) => (file.file.clone(), file.perms),
            Descriptor::Dir(dir) => (dir.dir.clone(), dir.perms),
        };
        if !perms.write_not_permitted() {
            let trees = self.held.trees.clone();
            spawn_blocking(move || place::changes(&file, &trees)).await?;
        }
        self.all.set_times(fd, accessed, modified).await
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        _: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let way = self.way(&fd, path).await?;
        let stay = PathFlags::empty();
        let done = match way.is(Place::is_changed) {
            Ok(()) => self.all.set_times_at(way.fd(), stay, way.name(), accessed, modified).await,
            refused => refused,
        };
        self.leave(way)?;
        done
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, at: Filesize) -> FsResult<Filesize> {
        self.all.write(fd, bytes, at).await
    }

    fn write_via_stream(&mut self, fd: Fd, at: Filesize) -> FsResult<Resource<DynOutputStream>> {
        self.all.write_via_stream(fd, at)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        self.all.append_via_stream(fd)
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let way = self.way(&fd, path).await?;
        let done = self.all.create_directory_at(way.fd(), way.name()).await;
        self.leave(way)?;
        done
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let way = self.way(&fd, path).await?;
        let done = self.all.remove_directory_at(way.fd(), way.name()).await;
        self.leave(way)?;
        done
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let way = self.way(&fd, path).await?;
        let done = self.all.unlink_file_at(way.fd(), way.name()).await;
        self.leave(way)?;
        done
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<DescriptorStat> {
        self.all.stat(fd).await
    }

    async fn stat_at(
        &mut self,
        fd: Fd,
        follow: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        self.all.stat_at(fd, follow, path).await
    }

    async fn is_same_object(&mut self, one: Fd, other: Fd) -> wasmtime::Result<bool> {
        self.all.is_same_object(one, other).await
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        self.all.metadata_hash(fd).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        follow: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        self.all.metadata_hash_at(fd, follow, path).await
    }
}

impl HostDirectoryEntryStream for Files<'_> {
    async fn read_directory_entry(&mut self, entries: Entries) -> FsResult<Option<DirectoryEntry>> {
        self.all.read_directory_entry(entries).await
    }

    fn drop(&mut self, entries: Entries) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.all, entries)?;
        self.held.listed = self.held.listed.saturating_sub(1);
        Ok(())
    }
}
