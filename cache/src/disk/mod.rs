//! `Disk`: the few file operations that a store needs, as a trait, and what the rest of the crate does with them.
//!
//! Does not know digests' places, trees, records, or which folder is whose.
//!
//! Three disks implement it: [`RealDisk`] asks the kernel; [`FailingDisk`] wraps another and makes chosen calls fail;
//! [`ForgetfulDisk`] lives in memory and knows every state that a power cut could leave behind.
//!
//! Invariants: everything that the crate reads from or writes to a disk goes through the trait, one system call a
//! method, so that stopping before each call stops everywhere; a failure is an error that names operation and path; a
//! call that was interrupted is repeated a bounded number of times, except a sync, whose failure is final, and a
//! rename, which may have happened; no lock decides anything by existing as a file; a file is never opened in a way
//! that can block on a fifo or follow a swapped-in link unasked; nothing is reported done before it is synced.

mod failing;
mod forgetful;
mod hashing;
mod real;
mod syncs;
mod temp;

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;

pub use failing::{Call, FailingDisk, Fault};
pub use forgetful::ForgetfulDisk;
pub(crate) use hashing::{HANDED_ON, hash, hash_into};
pub use real::RealDisk;
pub(crate) use syncs::Syncs;
pub(crate) use temp::{Temp, is_accident, random_name, sweep};

/// How often an interrupted call is repeated: a profiler's signals pass, a disk that never does its work is an error.
const INTERRUPTIONS: usize = 10_000;

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
    /// Fails with [`ErrorKind::WouldBlock`] if anybody else holds it.
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
    /// Whether the medium, not the way to it, is what failed: the bytes cannot be had any more.
    pub(crate) fn is_of_the_medium(&self) -> bool {
        is_of_the_medium(&self.source)
    }
}

/// [`DiskError::is_of_the_medium`].
pub(crate) fn is_of_the_medium(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG))
}

/// Names operation and path of an `io::Error`.
pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError { operation, path: path.to_owned(), source }
}

/// The folder that holds `path`'s name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Repeats what a signal interrupted, or what was busy for the moment. Only for calls that may happen twice.
fn repeated<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..INTERRUPTIONS {
        match call() {
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                std::thread::yield_now();
            }
            done => return done,
        }
    }
    call()
}

/// Opens what is there, or what may be made without harm.
pub(crate) fn open(disk: &dyn Disk, path: &Path, access: Access) -> Result<Box<dyn Handle>, DiskError> {
    repeated(|| disk.open(path, access)).map_err(failed("open", path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(disk: &dyn Disk, folder: &Path) -> Result<(), DiskError> {
    let handle = open(disk, folder, Access::Read(Links::Follow))?;
    handle.sync().map_err(failed("sync directory", folder))
}

/// Makes the name of a folder durable that was there before: whoever made it may have been killed before it could
/// sync the folder above. A folder above that may not be read is not one that we make names in.
pub(crate) fn sync_name_of(disk: &dyn Disk, folder: &Path) -> Result<(), DiskError> {
    match sync_dir(disk, parent(folder)) {
        Err(error) if error.operation == "open" && error.source.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Makes a folder, whose name is not durable before its parent is synced; `false` if it was there.
pub(crate) fn create_dir(disk: &dyn Disk, folder: &Path, mode: u32) -> Result<bool, DiskError> {
    match repeated(|| disk.create_dir(folder, mode)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_folder(disk, folder)? => Ok(false),
        Err(error) => Err(failed("create directory", folder)(error)),
    }
}

/// Makes a folder and the missing ones above it. Nothing is made in a folder before that folder's own name is durable,
/// so what has anything in it cannot vanish, whichever process made it and wherever that was killed.
pub(crate) fn create_dirs(disk: &dyn Disk, folder: &Path, mode: u32) -> Result<(), DiskError> {
    if is_folder(disk, folder)? {
        return Ok(());
    }
    let above = parent(folder);
    if above != folder {
        create_dirs(disk, above, mode)?;
        sync_name_of(disk, above)?;
    }
    create_dir(disk, folder, mode)?;
    sync_dir(disk, above)
}

fn is_folder(disk: &dyn Disk, path: &Path) -> Result<bool, DiskError> {
    let found = look(disk, path, Links::Follow)?;
    Ok(found.is_some_and(|found| found.kind == FileKind::Folder))
}

/// What lies at `path`; `None` if nothing does.
pub(crate) fn look(disk: &dyn Disk, path: &Path, links: Links) -> Result<Option<Meta>, DiskError> {
    match repeated(|| disk.look(path, links)) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("stat", path)(error)),
    }
}

/// All names in a folder that is there, in no order.
pub(crate) fn all_names(disk: &dyn Disk, folder: &Path) -> Result<Vec<OsString>, DiskError> {
    repeated(|| disk.names(folder)).map_err(failed("list", folder))
}

/// Names in a folder, sorted; those that are not UTF-8 are nothing of ours. A missing folder holds none.
pub(crate) fn names(disk: &dyn Disk, folder: &Path) -> Result<Vec<String>, DiskError> {
    let names = match repeated(|| disk.names(folder)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        names => names.map_err(failed("list", folder))?,
    };
    let mut names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// What [`open_regular`] found.
pub(crate) enum Opened {
    /// A regular file, open for reading, and what is said of it.
    Regular(Box<dyn Handle>, Meta),
    /// Something else, and what it is called.
    Other(&'static str),
    /// Nothing.
    Missing,
}

/// Opens a regular file for reading. Anything else is named and not opened: opening a device may act.
pub(crate) fn open_regular(disk: &dyn Disk, path: &Path, links: Links) -> Result<Opened, DiskError> {
    match look(disk, path, links)? {
        Some(found) if found.is_file() => {}
        Some(found) => return Ok(Opened::Other(found.kind.name())),
        None => return Ok(Opened::Missing),
    }
    open_seen(disk, path, links)
}

/// Opens for reading what was just seen to be a regular file. It may have been swapped since: the handle is asked again.
pub(crate) fn open_seen(disk: &dyn Disk, path: &Path, links: Links) -> Result<Opened, DiskError> {
    let file = match open(disk, path, Access::Read(links)) {
        Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(Opened::Missing),
        file => file?,
    };
    let found = look_at(&*file, path)?;
    match found.is_file() {
        true => Ok(Opened::Regular(file, found)),
        false => Ok(Opened::Other(found.kind.name())),
    }
}

/// What is open.
pub(crate) fn look_at(file: &dyn Handle, path: &Path) -> Result<Meta, DiskError> {
    repeated(|| file.look()).map_err(failed("stat", path))
}

/// Copies the file `from`, links followed, to a new file `to` in a folder that nobody else uses, and returns the digest of what
/// was copied. The copy has the permissions of any new file of the user's; of the original's, only whether it can be executed
/// may be wanted.
///
/// # Errors
/// If `from` is no regular file or cannot be read, or `to` cannot be written; nothing is at `to` then.
pub fn copy_file(from: &Path, to: &Path, executable: bool) -> Result<Digest, DiskError> {
    let no_file = |kind: io::ErrorKind| Err(failed("open", from)(kind.into()));
    let source = match open_regular(&RealDisk, from, Links::Follow)? {
        Opened::Regular(file, _) => file,
        Opened::Other(_) => return no_file(io::ErrorKind::InvalidInput),
        Opened::Missing => return no_file(io::ErrorKind::NotFound),
    };
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut copy = Temp::create_at(&real, to, new_mode(executable))?;
    let (digest, _) = hash_into(&*source, from, u64::MAX, |chunk| copy.write(chunk))?;
    copy.stay();
    Ok(digest)
}

/// The digest of a file, links not followed.
///
/// # Errors
/// If it is no regular file, or cannot be read.
pub fn hash_file(path: &Path) -> Result<Digest, DiskError> {
    match open_regular(&RealDisk, path, Links::Refuse)? {
        Opened::Regular(file, _) => Ok(hash(&*file, path, u64::MAX)?.0),
        Opened::Other(_) => Err(failed("open", path)(io::ErrorKind::InvalidInput.into())),
        Opened::Missing => Err(failed("open", path)(io::ErrorKind::NotFound.into())),
    }
}

/// The permissions of any new file of the user's, before the process's mask is applied.
pub(crate) fn new_mode(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn fill(file: &dyn Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    fill_until(file, buffer, offset, buffer.len())
}

/// Reads until there are `enough` bytes in the buffer, or the file ends. There may be more then.
fn fill_until(file: &dyn Handle, buffer: &mut [u8], offset: u64, enough: usize) -> io::Result<usize> {
    let mut filled = 0;
    while filled < enough {
        match repeated(|| file.read_at(&mut buffer[filled..], offset + filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// At most `limit` bytes of `file`. The memory is asked for politely: a length on disk is no reason to abort.
pub(crate) fn read(file: &dyn Handle, path: &Path, limit: u64) -> Result<Vec<u8>, DiskError> {
    let mut bytes = Vec::new();
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(size).map_err(|_| failed("read", path)(ErrorKind::OutOfMemory.into()))?;
    bytes.resize(size, 0);
    let filled = fill(file, &mut bytes, 0).map_err(failed("read", path))?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Gives `take` the bytes of a small file of which `size` bytes are expected, and one more if there are more. They lie in a
/// buffer of the thread: of many files, each would else be read into memory that the kernel has to clear.
pub(crate) fn with_bytes<T>(
    file: &dyn Handle,
    path: &Path,
    size: usize,
    take: impl FnOnce(&[u8]) -> T,
) -> Result<T, DiskError> {
    thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    // Taken out: whatever `take` does may come here again.
    let mut buffer = BUFFER.take();
    if buffer.len() <= size {
        buffer.resize(size + 1, 0);
    }
    // Whoever looks whether the file still has that size need not have its end read by a call of its own.
    let filled = fill_until(file, &mut buffer[..=size], 0, size.max(1)).map_err(failed("read", path))?;
    let taken = take(&buffer[..filled]);
    BUFFER.set(buffer);
    Ok(taken)
}

/// Writes all of `bytes` at an offset, however small the steps in which the disk takes them.
pub(crate) fn write(file: &dyn Handle, path: &Path, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
    let mut written = 0;
    while written < bytes.len() {
        match repeated(|| file.write_at(&bytes[written..], offset + written as u64)) {
            Ok(0) => return Err(failed("write", path)(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) => return Err(failed("write", path)(error)),
        }
    }
    Ok(())
}

/// Moves what lies at `path` into the folder `quarantine`, under this name and an unpredictable one; returns where it is then.
pub(crate) fn set_aside(disk: &dyn Disk, path: &Path, quarantine: &Path, name: &str) -> Result<PathBuf, DiskError> {
    let place = quarantine.join(format!("{name}-{}", random_name()));
    disk.rename(path, &place).map_err(failed("quarantine", path))?;
    Ok(place)
}

/// Removes a name, if it is there.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    match repeated(|| disk.remove(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

/// Sets the length of a file.
pub(crate) fn set_len(file: &dyn Handle, path: &Path, length: u64) -> Result<(), DiskError> {
    repeated(|| file.set_len(length)).map_err(failed("truncate", path))
}

/// Waits for a lock. A signal is no reason to go on without it.
pub(crate) fn lock(file: &dyn Handle, path: &Path, lock: Lock) -> Result<(), DiskError> {
    repeated(|| file.lock(lock)).map_err(failed("lock", path))
}

/// Takes the exclusive lock; `false` if anybody else has it.
pub(crate) fn try_lock(file: &dyn Handle, path: &Path) -> Result<bool, DiskError> {
    for _ in 0..INTERRUPTIONS {
        match file.lock(Lock::TryExclusive) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => std::thread::yield_now(),
            Err(error) => return Err(failed("lock", path)(error)),
        }
    }
    Err(failed("lock", path)(ErrorKind::Interrupted.into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    /// By a call: a program that is started has copies of all locks, those of other tests too, until it has begun.
    pub(crate) fn make_fifo(path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn an_error_names_operation_and_path_and_cause() {
        let error = sync_dir(&RealDisk, Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /no/such/folder: No such file or directory (os error 2)");
    }

    #[test]
    fn missing_folders_are_made_with_the_mode() {
        let folder = folder();
        let deep = folder.path().join("a/b/c");
        create_dirs(&RealDisk, &deep, 0o700).unwrap();
        create_dirs(&RealDisk, &deep, 0o700).unwrap();
        assert_eq!(mode(&folder.path().join("a")), 0o700);
        assert_eq!(mode(&deep), 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let folder = folder();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert_eq!(
            create_dirs(&RealDisk, &file, 0o700).unwrap_err().to_string(),
            format!("cannot create directory {}: File exists (os error 17)", file.display())
        );
    }

    #[test]
    fn of_a_small_file_one_byte_more_than_expected_is_read_if_there_is_one() {
        let folder = folder();
        let path = folder.path().join("small");
        fs::write(&path, b"content").unwrap();
        let file = RealDisk.open(&path, Access::Read(Links::Refuse)).unwrap();
        let read = |size| with_bytes(&*file, &path, size, <[u8]>::to_vec).unwrap();
        assert_eq!([0, 3, 7, 9].map(read), [&b"c"[..], b"cont", b"content", b"content"]);
        let twice = with_bytes(&*file, &path, 7, |bytes| (read(3), bytes.to_vec())).unwrap();
        assert_eq!(twice, (b"cont".to_vec(), b"content".to_vec()));
    }

    #[test]
    fn a_length_beyond_all_memory_is_an_error() {
        let folder = folder();
        let path = folder.path().join("file");
        fs::write(&path, b"x").unwrap();
        let error = read(&File::open(&path).unwrap(), &path, u64::MAX).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}: out of memory", path.display()));
    }
}
