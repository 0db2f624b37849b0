//! `RealDisk`: the file operations of the operating system.
//!
//! Does not know who asks, nor what an error means to them.
//!
//! Invariants: nothing is opened in a way that can block, and nothing through a link unasked.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Access, Disk, FileKind, Handle, Links, Lock, Meta};

/// The type of file systems that are programs: few of these hear of a sync of all.
const FUSE: rustix::fs::FsWord = 0x6573_5546;

/// The disk that the operating system shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Handle>> {
        let mut options = OpenOptions::new();
        match access {
            Access::Read(Links::Follow) => options.read(true).custom_flags(libc::O_NONBLOCK),
            Access::Read(Links::Refuse) => options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW),
            Access::Create(mode) => options.write(true).create_new(true).mode(mode),
            Access::Edit(mode) => options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(mode)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW),
            Access::Write => options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn look(&self, path: &Path, links: Links) -> io::Result<Meta> {
        let found = match links {
            Links::Follow => fs::metadata(path),
            Links::Refuse => fs::symlink_metadata(path),
        };
        Ok(meta(&found?))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn create_dir(&self, folder: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(folder)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
            }
            renamed => Ok(renamed?),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

impl Handle for File {
    fn look(&self) -> io::Result<Meta> {
        Ok(meta(&self.metadata()?))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.set_permissions(Permissions::from_mode(mode))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_file_system(&self) -> io::Result<bool> {
        if rustix::fs::fstatfs(self)?.f_type == FUSE {
            return Ok(false);
        }
        rustix::fs::syncfs(self)?;
        Ok(true)
    }

    fn lock(&self, lock: Lock) -> io::Result<()> {
        match lock {
            Lock::Shared => self.lock_shared(),
            Lock::Exclusive => File::lock(self),
            Lock::TryExclusive => self.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
                TryLockError::Error(error) => error,
            }),
        }
    }

    fn share(&self, from: &dyn Handle) -> io::Result<()> {
        let from = from.file().ok_or(Errno::XDEV)?;
        Ok(rustix::fs::ioctl_ficlone(self, from)?)
    }

    fn file(&self) -> Option<&File> {
        Some(self)
    }

    fn into_file(self: Box<Self>) -> Option<File> {
        Some(*self)
    }
}

fn meta(found: &Metadata) -> Meta {
    Meta {
        kind: kind(found),
        bytes: found.len(),
        mode: found.mode(),
        device: found.dev(),
        inode: found.ino(),
        links: found.nlink(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    }
}

fn kind(found: &Metadata) -> FileKind {
    let kind = found.file_type();
    match () {
        () if kind.is_file() => FileKind::File,
        () if kind.is_dir() => FileKind::Folder,
        () if kind.is_symlink() => FileKind::Other("symbolic link"),
        () if kind.is_fifo() => FileKind::Other("fifo"),
        () if kind.is_socket() => FileKind::Other("socket"),
        () if kind.is_block_device() => FileKind::Other("block device"),
        () if kind.is_char_device() => FileKind::Other("character device"),
        () => FileKind::Other("special file"),
    }
}
