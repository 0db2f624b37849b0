//! `Disk`: the few file operations that a store needs, as a trait.
//!
//! Does not know digests' places, trees, records, or which folder is whose.
//!
//! Three disks implement it: [`RealDisk`] asks the kernel; [`FailingDisk`] wraps another and makes chosen calls fail;
//! [`ForgetfulDisk`] lives in memory and knows every state that a power cut could leave behind. What the rest of the
//! crate does with a disk is in `operations`, `hashing` and `temp`.
//!
//! Invariants: everything that the crate reads from or writes to a disk goes through the trait, one system call a
//! method, so that stopping before each call stops everywhere; a failure is an error that names operation and path; a
//! call that was interrupted is repeated a bounded number of times, except a sync, whose failure is final, and a
//! rename, which may have happened; no lock decides anything by existing as a file; a file is never opened in a way
//! that can block on a fifo or follow a swapped-in link unasked; nothing is reported done before it is synced.

mod failing;
mod forgetful;
mod hashing;
mod operations;
mod real;
mod syncs;
mod temp;

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub use failing::{Call, FailingDisk, Fault};
pub use forgetful::ForgetfulDisk;
pub(crate) use hashing::{HANDED_ON, hash, hash_into};
#[cfg(test)]
pub(crate) use operations::tests;
pub(crate) use operations::{
    Opened, all_names, asked_twice, create_dir, create_dirs, failed, fill, lock, look, look_at, names, new_mode, open,
    open_regular, open_seen, parent, read, remove, set_aside, set_len, sync_dir, sync_name_of, try_lock, with_bytes,
    write,
};
pub use operations::{copy_file, hash_file};
pub use real::RealDisk;
pub(crate) use syncs::Syncs;
pub use temp::is_temp;
pub(crate) use temp::{Temp, is_accident, random_name, sweep};

/// A file system, as far as the store needs one. Paths mean what they mean to the operating system.
///
/// Errors are the operating system's own, with their error numbers. No method repeats, hides or explains one.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file, or a folder to sync it.
    ///
    /// # Errors
    /// As `open(2)`.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Handle>>;

    /// What lies at a path.
    ///
    /// # Errors
    /// As `stat(2)` or `lstat(2)`.
    fn look(&self, path: &Path, links: Links) -> io::Result<Meta>;

    /// The names in a folder, in no order.
    ///
    /// # Errors
    /// As `opendir(3)` and `readdir(3)`.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Makes one folder. Its name is durable once the folder above it is synced.
    ///
    /// # Errors
    /// As `mkdir(2)`.
    fn create_dir(&self, folder: &Path, mode: u32) -> io::Result<()>;

    /// Gives a file a second name; what has that name already is never replaced. Durable once the folder is synced.
    ///
    /// # Errors
    /// As `link(2)`.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves a name, atomically; a file that has the new name is replaced. Durable once a folder of the two is synced.
    ///
    /// # Errors
    /// As `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// [`Disk::rename`] of a file to where nothing is.
    ///
    /// # Errors
    /// As `renameat2(2)` with `RENAME_NOREPLACE`; where the file system does not know that, as `link(2)` and `unlink(2)`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name of a file, not of a folder. Durable once the folder is synced.
    ///
    /// # Errors
    /// As `unlink(2)`.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// An open file or folder. Dropping it closes it and lets go of its lock.
pub trait Handle: Debug + Send + Sync {
    /// What is open.
    ///
    /// # Errors
    /// As `fstat(2)`.
    fn look(&self) -> io::Result<Meta>;

    /// Reads into `buffer` from an offset; less than was asked for is no error, nothing means the end.
    ///
    /// # Errors
    /// As `pread(2)`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset; less than was asked for is no error.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts the file off, or fills it up with zeros.
    ///
    /// # Errors
    /// As `ftruncate(2)`.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Sets the permissions.
    ///
    /// # Errors
    /// As `fchmod(2)`.
    fn set_mode(&self, mode: u32) -> io::Result<()>;

    /// Makes the content of a file, or the names in a folder, durable. The name of a file is not part of it.
    ///
    /// # Errors
    /// As `fsync(2)`. What was to become durable may be lost then, and a second sync proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// Takes the kernel's lock on the file, which belongs to this handle. It goes when the handle is dropped, at the
    /// latest when the process dies.
    ///
    /// # Errors
    /// As `flock(2)`.
    fn lock(&self, lock: Lock) -> io::Result<()>;

    /// Makes everything on the file system durable that this lies on; `false` if it is one of which that cannot be asked.
    ///
    /// # Errors
    /// As `syncfs(2)`.
    fn sync_file_system(&self) -> io::Result<bool>;

    /// Lets this file, which is empty, share the bytes of another instead of copying them; whoever writes to either then
    /// gets bytes of its own. A failure may leave some of the bytes, and nothing that is wrong.
    ///
    /// # Errors
    /// As `FICLONE` of `ioctl(2)`: many file systems cannot.
    fn share(&self, from: &dyn Handle) -> io::Result<()>;

    /// The operating system's own file, which another of its own can share bytes with; a disk that is none of its has none.
    fn file(&self) -> Option<&File> {
        None
    }

    /// The operating system's own file, for those who need one; a disk that is none of its has none.
    fn into_file(self: Box<Self>) -> Option<File> {
        None
    }
}

/// How a file is opened. Nothing that is opened blocks, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading; a folder for syncing.
    Read(Links),
    /// For writing, as a new file of this mode; what is there already is an error.
    Create(u32),
    /// For reading and writing, made with this mode if it is missing; a symbolic link is an error.
    Edit(u32),
    /// For reading and writing what is there; a symbolic link is an error.
    Write,
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It is: the path is the user's.
    Follow,
    /// It is not: the path is the store's, and has no links.
    Refuse,
}

/// A lock on an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Waits until nobody holds it exclusively.
    Shared,
    /// Waits until nobody else holds it.
    Exclusive,
    /// Fails with [`io::ErrorKind::WouldBlock`] if anybody else holds it.
    TryExclusive,
}

/// What a disk says of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What kind of file it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub bytes: u64,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// The device that it is on.
    pub device: u64,
    /// Its number on that device.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// When its content was changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
    /// When anything of it was changed.
    pub changed: (i64, i64),
}

impl Meta {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Something else, by the name that people know it by.
    Other(&'static str),
}

impl FileKind {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::File => "regular file",
            FileKind::Folder => "directory",
            FileKind::Other(name) => name,
        }
    }
}

/// A file operation that failed.
///
/// The text is complete: it includes the text of `source`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}", path = path.display())]
pub struct DiskError {
    /// What was tried, as a verb: `open`, `sync`, `rename` …
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

impl DiskError {
    /// Whether there was no room to write.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the medium, not the way to it, is what failed: the bytes cannot be had any more.
    pub(crate) fn is_of_the_medium(&self) -> bool {
        is_of_the_medium(&self.source)
    }
}

/// [`DiskError::is_of_the_medium`].
pub(crate) fn is_of_the_medium(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG))
}
