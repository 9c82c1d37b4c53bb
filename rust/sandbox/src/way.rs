//! How a guest's path is written: by the place that it leads to, for the time of one call.

use std::io;

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{Descriptor, Dir};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::runtime::spawn_blocking;

use crate::files::{Fd, Files};
use crate::place::{self, Place};

/// Where a guest's path leads: what was found, or what wasmtime will refuse to write.
pub(crate) enum Way {
    /// A directory of the table's for the time of the call, and the name in it.
    Found(Fd, Place),
    /// Through a descriptor that writes nothing at all.
    Shut(u32, String),
}

impl Way {
    pub(crate) fn fd(&self) -> Fd {
        match self {
            Self::Found(fd, _) => Resource::new_borrow(fd.rep()),
            Self::Shut(number, _) => Resource::new_borrow(*number),
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Found(_, Place { name, .. }) | Self::Shut(_, name) => name.clone(),
        }
    }

    /// Asks what was found.
    pub(crate) fn is(&self, asked: impl FnOnce(&Place) -> io::Result<()>) -> FsResult<()> {
        match self {
            Self::Found(_, place) => Ok(asked(place)?),
            Self::Shut(..) => Ok(()),
        }
    }
}

impl Files<'_> {
    /// Finds where something is to be written; what is done there is done by that handle and name.
    pub(crate) async fn way(&mut self, fd: &Fd, path: String) -> FsResult<Way> {
        let Descriptor::Dir(Dir { dir, perms, open_mode, .. }) = self.all.table.get(fd)? else {
            return Err(ErrorCode::NotDirectory.into());
        };
        if perms.write_not_permitted() {
            return Ok(Way::Shut(fd.rep(), path));
        }
        let (base, trees) = (dir.clone(), self.held.trees.clone());
        let (perms, mode) = (*perms, *open_mode);
        let place = spawn_blocking(move || Place::find(&base, &path, &trees)).await?;
        let dir = Dir::new(place.dir.try_clone()?, perms, mode, false);
        match self.all.table.push(Descriptor::Dir(dir)) {
            Ok(fd) => Ok(Way::Found(fd, place)),
            Err(_) => Err(ErrorCode::InsufficientMemory.into()),
        }
    }

    pub(crate) async fn ways(
        &mut self,
        fd: &Fd,
        path: String,
        to: &Fd,
        new: String,
    ) -> FsResult<(Way, Way)> {
        let from = self.way(fd, path).await?;
        match self.way(to, new).await {
            Ok(to) => Ok((from, to)),
            Err(error) => {
                self.leave(from)?;
                Err(error)
            }
        }
    }

    pub(crate) fn leave(&mut self, way: Way) -> FsResult<()> {
        if let Way::Found(fd, _) = way {
            self.all.table.delete(fd)?;
        }
        Ok(())
    }

    /// Opens a file to write it; it is emptied when it is known what was opened.
    pub(crate) async fn open_to_write(
        &mut self,
        fd: &Fd,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let way = self.way(fd, path).await?;
        let done = self.open_found(&way, how, flags).await;
        self.leave(way)?;
        done
    }

    async fn open_found(
        &mut self,
        way: &Way,
        how: OpenFlags,
        mut flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        if self.special(&way.fd(), PathFlags::empty(), &way.name()).await? {
            return Err(ErrorCode::Access.into());
        }
        let empties = how.contains(OpenFlags::TRUNCATE);
        if empties {
            flags |= DescriptorFlags::WRITE;
        }
        let how = how & !OpenFlags::TRUNCATE;
        let opened = self.all.open_at(way.fd(), PathFlags::empty(), way.name(), how, flags).await?;
        match self.empty(&opened, empties).await {
            Ok(()) => Ok(opened),
            Err(error) => {
                self.all.table.delete(opened)?;
                Err(error)
            }
        }
    }

    async fn empty(&mut self, opened: &Fd, empties: bool) -> FsResult<()> {
        if let Descriptor::File(file) = self.all.table.get(opened)? {
            place::only_name(&file.file)?;
        }
        if empties {
            self.all.set_size(Resource::new_borrow(opened.rep()), 0).await?;
        }
        Ok(())
    }
}
