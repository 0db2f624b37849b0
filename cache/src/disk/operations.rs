//! What the rest of the crate asks of a disk: operations that name themselves and their path when they fail.
//!
//! Does not know which disk it is, nor what the files are for.
//!
//! Invariants: what a signal interrupts is repeated, but for a sync and a rename; a name is made only in a folder whose own
//! name is durable; nothing but a regular file is opened to be read.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Access, Disk, DiskError, FileKind, Handle, Links, Lock, Meta, RealDisk, Temp, hash, hash_into, random_name,
};
use crate::digest::Digest;

/// How often an interrupted call is repeated: a profiler's signals pass, a disk that never does its work is an error.
const INTERRUPTIONS: usize = 10_000;

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
pub(super) fn repeated<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
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

/// Asks once more where the medium failed: a fault that passes is no damage. `None` if it stays.
pub(crate) fn asked_twice<T>(ask: impl Fn() -> Result<T, DiskError>) -> Result<Option<T>, DiskError> {
    match ask() {
        Err(error) if error.is_of_the_medium() => {}
        answer => return answer.map(Some),
    }
    match ask() {
        Err(error) if error.is_of_the_medium() => Ok(None),
        answer => answer.map(Some),
    }
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
/// may be wanted. Of a file that grows meanwhile, the digest is not that of what it was.
///
/// # Errors
/// If `from` is no regular file or cannot be read, or `to` cannot be written; nothing is at `to` then.
pub fn copy_file(from: &Path, to: &Path, executable: bool) -> Result<Digest, DiskError> {
    let (source, limit) = open_whole(&RealDisk, from, Links::Follow)?;
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut copy = Temp::create_at(&real, to, new_mode(executable))?;
    let (digest, _) = hash_into(&*source, from, limit, |chunk| copy.write(chunk))?;
    copy.stay();
    Ok(digest)
}

/// The digest of a file, links not followed; of one that grows meanwhile, not that of what it was.
///
/// # Errors
/// If it is no regular file, or cannot be read.
pub fn hash_file(path: &Path) -> Result<Digest, DiskError> {
    hash_file_on(&RealDisk, path)
}

fn hash_file_on(disk: &dyn Disk, path: &Path) -> Result<Digest, DiskError> {
    let (file, limit) = open_whole(disk, path, Links::Refuse)?;
    Ok(hash(&*file, path, limit)?.0)
}

/// A regular file, and its length and one byte more: who reads so much notices that there is more.
fn open_whole(disk: &dyn Disk, path: &Path, links: Links) -> Result<(Box<dyn Handle>, u64), DiskError> {
    let no_file = |kind: ErrorKind| Err(failed("open", path)(kind.into()));
    match open_regular(disk, path, links)? {
        Opened::Regular(file, found) => Ok((file, found.bytes.saturating_add(1))),
        Opened::Other(_) => no_file(ErrorKind::InvalidInput),
        Opened::Missing => no_file(ErrorKind::NotFound),
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
    use crate::disk::{FailingDisk, ForgetfulDisk};
    use std::fs;
    use std::fs::File;
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

    /// A file of no known length is read far behind its end, by all threads.
    #[test]
    fn a_file_is_hashed_in_as_many_calls_as_its_length_asks_for() {
        let disk = FailingDisk::counting(Arc::new(ForgetfulDisk::new()));
        let path = Path::new("/small");
        disk.open(path, Access::Edit(0o600)).unwrap().write_at(b"content", 0).unwrap();
        let before = disk.calls();
        assert_eq!(hash_file_on(&disk, path).unwrap(), Digest::of(b"content"));
        assert!(disk.calls() - before <= 5, "{}", disk.calls() - before);
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
