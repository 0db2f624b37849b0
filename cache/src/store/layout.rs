//! The folders of a store, its format file, and the lock by which it is held.
//!
//! Invariant: a folder of another format is not touched.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Lock, Opened, Temp, failed};

/// The file by which a store is held.
const LOCK: &str = "lock";
/// The file by which lists of uses are.
const USES_LOCK: &str = "uses.lock";
/// The version of the layout that this program reads and writes.
const FORMAT: u32 = 2;
/// What the format file says before the version.
const FORMAT_NAME: &str = "headwater-store ";
/// More than a format file ever has.
const MAX_FORMAT_BYTES: u64 = 64;
/// The folder of a store where what was damaged, or in the place of something else, is kept for a person to look at.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The folder of a store of what is to be removed.
pub(super) const GRAVES: &str = "removed";

/// A folder of files that are to be removed, which no process needs. Whoever removes some removes all.
pub(crate) struct Graves {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
}

impl Graves {
    /// Moves files here; one that is gone need not be.
    pub(super) fn take(&self, paths: &[PathBuf]) -> Result<(), DiskError> {
        if !paths.is_empty() {
            disk::create_dir(&*self.disk, &self.folder, 0o700)?;
        }
        paths.iter().try_for_each(|path| match self.disk.rename(path, &self.folder.join(disk::random_name())) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(failed("remove", path)),
        })
    }

    /// Removes all that is here, also what a killed process has left.
    pub(crate) fn empty(&self) -> Result<(), StoreError> {
        let names = disk::names(&*self.disk, &self.folder)?;
        Ok(names.iter().try_for_each(|name| disk::remove(&*self.disk, &self.folder.join(name)))?)
    }
}

/// Makes the folders and the format file of a store, unless they are there; returns its absolute path.
pub(super) fn prepare(disk: &Arc<dyn Disk>, root: &Path) -> Result<PathBuf, StoreError> {
    let root = std::path::absolute(root).map_err(failed("resolve", root))?;
    let fresh = !check_format(&**disk, &root)?;
    for folder in ["tmp", "blobs", "segments", QUARANTINE] {
        disk::create_dirs(&**disk, &root.join(folder), 0o700)?;
    }
    if fresh {
        write_format(disk, &root)?;
    }
    Ok(root)
}

/// A store that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) _lock: Box<dyn Handle>,
    /// Whether nothing can be written to it.
    pub(super) is_read_only: bool,
}

/// Takes the shared lock that keeps a store from being collected. That needs no right to write: what others have kept can be
/// used.
pub(super) fn hold(disk: &dyn Disk, root: &Path) -> Result<Held, StoreError> {
    let path = root.join(LOCK);
    let (lock, is_read_only) = match disk::open(disk, &path, Access::Edit(0o600)) {
        Err(error) if is_write_protected(&error) => (disk::open(disk, &path, Access::Read(Links::Refuse))?, true),
        opened => (opened?, false),
    };
    disk::lock(&*lock, &path, Lock::Shared)?;
    if !is_read_only {
        check_locks(disk, &path)?;
    }
    Ok(Held { _lock: lock, is_read_only })
}

fn is_write_protected(error: &DiskError) -> bool {
    matches!(error.source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

/// Refuses locks that keep nobody out, not even from a file that is locked here. A question that fails says nothing.
fn check_locks(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    // To write, as NFS wants it of who locks alone.
    let had_twice = disk::open(disk, path, Access::Write).and_then(|other| disk::try_lock(&*other, path));
    if had_twice.unwrap_or(false) { Err(StoreError::NoLocks { path: path.to_owned() }) } else { Ok(()) }
}

/// Takes the lock of those who read a list of uses and write the next one.
pub(super) fn hold_uses(disk: &dyn Disk, root: &Path) -> Result<Box<dyn Handle>, DiskError> {
    let path = root.join(USES_LOCK);
    let file = open_lock(disk, root, &path)?;
    disk::lock(&*file, &path, Lock::Exclusive)?;
    Ok(file)
}

/// Opens a file that is there to be locked, or makes it. What is no file in its place is moved to quarantine: nobody has
/// locked anything by it.
pub(crate) fn open_lock(disk: &dyn Disk, root: &Path, path: &Path) -> Result<Box<dyn Handle>, DiskError> {
    let open = || disk::open(disk, path, Access::Edit(0o600));
    match open() {
        Err(error) if error.source.kind() == ErrorKind::NotFound => Err(error),
        // What cannot be set aside cannot be opened either, and that is the error.
        Err(_) if set_strange_aside(disk, root, path).unwrap_or(false) => open(),
        opened => opened,
    }
}

/// Whether there was something that is no file, and is in quarantine now.
fn set_strange_aside(disk: &dyn Disk, root: &Path, path: &Path) -> Result<bool, DiskError> {
    let found = disk::look(disk, path, Links::Refuse)?;
    if found.is_none_or(|found| found.is_file()) {
        return Ok(false);
    }
    let quarantine = root.join(QUARANTINE);
    disk::create_dir(disk, &quarantine, 0o700)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    disk::set_aside(disk, path, &quarantine, &name)?;
    Ok(true)
}

/// Takes the lock alone; `None` if anybody has the store open.
pub(super) fn hold_alone(disk: &dyn Disk, root: &Path) -> Result<Option<Held>, StoreError> {
    let path = root.join(LOCK);
    let lock = disk::open(disk, &path, Access::Edit(0o600))?;
    if !disk::try_lock(&*lock, &path)? {
        return Ok(None);
    }
    check_locks(disk, &path)?;
    Ok(Some(Held { _lock: lock, is_read_only: false }))
}

/// Whether `root` has a format file; an error if it is not the one that this program writes.
fn check_format(disk: &dyn Disk, root: &Path) -> Result<bool, StoreError> {
    let path = root.join("format");
    let file = match disk::open_regular(disk, &path, Links::Refuse)? {
        Opened::Regular(file, _) => file,
        Opened::Missing => return Ok(false),
        Opened::Other(_) => return Err(StoreError::NotAStore { path }),
    };
    // One byte more than there may be: what lies behind must not be passed over.
    let bytes = disk::read(&*file, &path, MAX_FORMAT_BYTES + 1)?;
    match parse_format(&bytes).filter(|_| bytes.len() as u64 <= MAX_FORMAT_BYTES) {
        Some(FORMAT) => Ok(true),
        Some(found) => Err(StoreError::Format { root: root.to_owned(), found, supported: FORMAT }),
        None => Err(StoreError::NotAStore { path }),
    }
}

fn parse_format(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = text.strip_prefix(FORMAT_NAME)?.strip_suffix('\n')?;
    version.parse().ok().filter(|version| *version > 0)
}

/// Writes the format file; if another process was quicker, it must have written the same.
fn write_format(disk: &Arc<dyn Disk>, root: &Path) -> Result<(), StoreError> {
    let path = root.join("format");
    let mut temp = Temp::create(disk, &root.join("tmp"), 0o600)?;
    temp.write(format!("{FORMAT_NAME}{FORMAT}\n").as_bytes())?;
    temp.set_mode(0o444)?;
    temp.sync()?;
    if !temp.publish(&path)? {
        check_format(&**disk, root)?;
    }
    Ok(())
}
