//! The few file operations that the rest of the crate needs, each with an error that names operation and path.
//!
//! Does not know digests' places, trees, records, or which folder is whose.
//!
//! Invariants: a [`Temp`] is locked by the kernel for as long as its owner lives and has it open, so what
//! [`sweep`] can lock belongs to nobody; no lock decides anything by existing as a file; a file is never opened in a
//! way that can block on a fifo or follow a swapped-in link unasked; nothing is reported done before it is synced.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::{self, Digest};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
/// After this many bytes of one file, hashing uses all threads of the current rayon pool: below, waking them costs
/// more than it gains.
const PARALLEL_AFTER: u64 = 64 << 20;

const TEMP_PREFIX: &str = ".headwater-";
const TEMP_SUFFIX: &str = ".tmp";
/// Hexadecimal digits of randomness in the name of a temp.
const TEMP_DIGITS: usize = 32;
/// A fresh random name collides with another's or is swept before it is locked only by a rare accident.
const TEMP_ATTEMPTS: usize = 16;

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

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(folder: &Path) -> Result<(), DiskError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(failed("sync directory", folder))
}

/// Makes a folder, whose name is not durable before its parent is synced; `false` if it was there.
pub(crate) fn create_dir(folder: &Path, mode: u32) -> Result<bool, DiskError> {
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(false),
        Err(error) => Err(failed("create directory", folder)(error)),
    }
}

/// Makes a folder and the missing ones above it, each durable in its parent.
pub(crate) fn create_dirs(folder: &Path, mode: u32) -> Result<(), DiskError> {
    let made = match create_dir(folder, mode) {
        Err(error) if error.source.kind() == ErrorKind::NotFound && parent(folder) != folder => {
            create_dirs(parent(folder), mode)?;
            create_dir(folder, mode)?
        }
        made => made?,
    };
    if made { sync_dir(parent(folder)) } else { Ok(()) }
}

/// What lies at `path` itself, links not followed; `None` if nothing does.
pub(crate) fn look(path: &Path) -> Result<Option<Metadata>, DiskError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("stat", path)(error)),
    }
}

/// Names in a folder, sorted; those that are not UTF-8 are nothing of ours. A missing folder holds none.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", folder))?.file_name();
        names.extend(name.into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// What [`open_regular`] found.
pub(crate) enum Opened {
    /// A regular file, open for reading, and what `fstat` says of it.
    Regular(File, Metadata),
    /// Something else, and what it is called.
    Other(&'static str),
    /// Nothing.
    Missing,
}

/// Opens a regular file for reading. Anything else is named and not opened: opening a fifo blocks, and opening a
/// device may act.
pub(crate) fn open_regular(path: &Path, links: Links) -> Result<Opened, DiskError> {
    let looked = match links {
        Links::Follow => fs::metadata(path),
        Links::Refuse => fs::symlink_metadata(path),
    };
    match looked {
        Ok(metadata) if metadata.is_file() => {}
        Ok(metadata) => return Ok(Opened::Other(kind(&metadata))),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Opened::Missing),
        Err(error) => return Err(failed("stat", path)(error)),
    }
    // The path may have been swapped since: the flags keep that from blocking or leading elsewhere.
    let flags = match links {
        Links::Follow => libc::O_NONBLOCK,
        Links::Refuse => libc::O_NONBLOCK | libc::O_NOFOLLOW,
    };
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Opened::Missing),
        file => file.map_err(failed("open", path))?,
    };
    let metadata = file.metadata().map_err(failed("stat", path))?;
    match metadata.is_file() {
        true => Ok(Opened::Regular(file, metadata)),
        false => Ok(Opened::Other(kind(&metadata))),
    }
}

/// What something that is no regular file is called.
fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_block_device() => "block device",
        () if kind.is_char_device() => "character device",
        () => "special file",
    }
}

/// Reads at most `limit` bytes of `file`, hands each chunk to `sink`, and returns digest and count of what it read.
pub(crate) fn hash_into(
    file: &mut File,
    path: &Path,
    limit: u64,
    mut sink: impl FnMut(&[u8]) -> Result<(), DiskError>,
) -> Result<(Digest, u64), DiskError> {
    let size = usize::try_from(limit).unwrap_or(CHUNK).clamp(1, CHUNK);
    let mut buffer = vec![0; size];
    let mut source = file.take(limit);
    let mut hasher = blake3::Hasher::new();
    let mut total = 0;
    loop {
        let filled = fill(&mut source, &mut buffer).map_err(failed("read", path))?;
        if filled == 0 {
            return Ok((Digest::of_stream(&hasher), total));
        }
        match total < PARALLEL_AFTER {
            true => hasher.update(&buffer[..filled]),
            false => hasher.update_rayon(&buffer[..filled]),
        };
        sink(&buffer[..filled])?;
        total += filled as u64;
    }
}

/// Copies the file `from`, links followed, to a new file `to`, and returns the digest of what was copied. The copy has
/// the permissions of any new file of the user's; of the original's, only whether it can be executed may be wanted.
///
/// # Errors
/// If `from` is no regular file or cannot be read, or `to` cannot be written.
pub fn copy_file(from: &Path, to: &Path, executable: bool) -> Result<Digest, DiskError> {
    let no_file = |kind: io::ErrorKind| Err(failed("open", from)(kind.into()));
    let mut source = match open_regular(from, Links::Follow)? {
        Opened::Regular(file, _) => file,
        Opened::Other(_) => return no_file(ErrorKind::InvalidInput),
        Opened::Missing => return no_file(ErrorKind::NotFound),
    };
    let mode = if executable { 0o777 } else { 0o666 };
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(to);
    let mut copy = opened.map_err(failed("create", to))?;
    let (digest, _) =
        hash_into(&mut source, from, u64::MAX, |chunk| copy.write_all(chunk).map_err(failed("write", to)))?;
    Ok(digest)
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// At most `limit` bytes of `file`. The memory is asked for politely: a length on disk is no reason to abort.
pub(crate) fn read(file: &mut File, path: &Path, limit: u64) -> Result<Vec<u8>, DiskError> {
    let mut bytes = Vec::new();
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(size).map_err(|_| failed("read", path)(ErrorKind::OutOfMemory.into()))?;
    file.take(limit).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

/// Waits for the kernel's exclusive lock on an open file. It goes when the file is closed, at the latest when
/// the process dies.
pub(crate) fn lock_exclusive(file: &File, path: &Path) -> Result<(), DiskError> {
    uninterrupted(|| file.lock()).map_err(failed("lock", path))
}

/// Waits for the kernel's shared lock on an open file.
pub(crate) fn lock_shared(file: &File, path: &Path) -> Result<(), DiskError> {
    uninterrupted(|| file.lock_shared()).map_err(failed("lock", path))
}

/// A signal is no reason to go on without the lock, nor to fail.
fn uninterrupted(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// 64 unpredictable bits: the standard library seeds its hash keys from the operating system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// 32 unpredictable hexadecimal digits.
pub(crate) fn random_name() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// A file under a random name that belongs to this process until it is published or dropped; dropping removes the
/// name.
pub(crate) struct Temp {
    path: PathBuf,
    file: File,
}

impl Temp {
    /// A new, empty, locked temp in `folder`.
    pub(crate) fn create(folder: &Path, mode: u32) -> Result<Temp, DiskError> {
        for _ in 0..TEMP_ATTEMPTS {
            let name = format!("{TEMP_PREFIX}{}{TEMP_SUFFIX}", random_name());
            let path = folder.join(name);
            match Temp::try_create(&path, mode) {
                Ok(Some(file)) => return Ok(Temp { path, file }),
                Ok(None) => {}
                Err(error) => return Err(failed("create", &path)(error)),
            }
        }
        Err(failed("create a temporary file in", folder)(ErrorKind::AlreadyExists.into()))
    }

    /// `None` if the name is taken, or if a sweeper saw the file in the instant before it was locked.
    fn try_create(path: &Path, mode: u32) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let file = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                let _ = fs::remove_file(path);
                return Err(error);
            }
        }
        let swept = file.metadata()?.nlink() == 0;
        Ok((!swept).then_some(file))
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))
    }

    /// Sets the final mode, before the sync that makes it durable.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), DiskError> {
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", &self.path))
    }

    /// Makes the content durable. After a failure the temp is of no use: the kernel may have dropped the pages.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(failed("sync", &self.path))
    }

    /// Gives the synced file its name, unless the name is taken: `false`. The name is not durable before its folder
    /// is synced.
    pub(crate) fn publish(&self, dest: &Path) -> Result<bool, DiskError> {
        match fs::hard_link(&self.path, dest) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed("publish", dest)(error)),
        }
    }

    /// Puts the synced file in the place of `dest`, atomically and durably.
    pub(crate) fn replace(self, dest: &Path) -> Result<(), DiskError> {
        fs::rename(&self.path, dest).map_err(failed("replace", dest))?;
        sync_dir(parent(dest))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // After `replace` there is nothing to remove; otherwise what stays is swept later.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes temps that nobody owns. What cannot be removed stays for the next sweep: a leftover is no fault.
pub(crate) fn sweep(folder: &Path) {
    for name in names(folder).unwrap_or_default() {
        let path = folder.join(&name);
        if is_temp(&name)
            && let Ok(Opened::Regular(file, _)) = open_regular(&path, Links::Refuse)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}

fn is_temp(name: &str) -> bool {
    name.strip_prefix(TEMP_PREFIX)
        .and_then(|rest| rest.strip_suffix(TEMP_SUFFIX))
        .is_some_and(|middle| middle.len() == TEMP_DIGITS && middle.bytes().all(|c| digest::digit(c).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn an_error_names_operation_and_path_and_cause() {
        let error = sync_dir(Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.to_string(), "cannot sync directory /no/such/folder: No such file or directory (os error 2)");
    }

    #[test]
    fn a_temp_is_private_and_its_name_is_recognised() {
        let folder = folder();
        let temp = Temp::create(folder.path(), 0o600).unwrap();
        assert_eq!(mode(&temp.path), 0o600);
        assert!(is_temp(temp.path.file_name().unwrap().to_str().unwrap()));
    }

    #[test]
    fn a_dropped_temp_leaves_no_name() {
        let folder = folder();
        drop(Temp::create(folder.path(), 0o600).unwrap());
        assert!(names(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn an_owned_temp_survives_a_sweep_and_an_orphan_does_not() {
        let folder = folder();
        let owned = Temp::create(folder.path(), 0o600).unwrap();
        let orphan = folder.path().join(format!(".headwater-{}.tmp", random_name()));
        fs::write(&orphan, b"left by a dead process").unwrap();
        sweep(folder.path());
        assert!(owned.path.exists());
        assert!(!orphan.exists());
    }

    #[test]
    fn a_sweep_leaves_everything_that_is_no_temp() {
        let folder = folder();
        let others =
            [".headwater-.tmp", ".headwater-0.tmp", "notes.tmp", ".headwater-ABCDEFABCDEFABCDEFABCDEFABCDEFAB.tmp"];
        for name in others {
            fs::write(folder.path().join(name), b"mine").unwrap();
        }
        sweep(folder.path());
        assert_eq!(names(folder.path()).unwrap().len(), others.len());
    }

    #[test]
    fn a_sweep_of_an_orphan_leaves_the_file_that_it_was_published_as() {
        let folder = folder();
        let orphan = folder.path().join(format!(".headwater-{}.tmp", random_name()));
        let published = folder.path().join("published");
        fs::write(&orphan, b"content").unwrap();
        fs::hard_link(&orphan, &published).unwrap();
        sweep(folder.path());
        assert_eq!(names(folder.path()).unwrap(), ["published"]);
        assert_eq!(fs::read(published).unwrap(), b"content");
    }

    #[test]
    fn publishing_never_replaces() {
        let folder = folder();
        let dest = folder.path().join("dest");
        fs::write(&dest, b"first").unwrap();
        let mut temp = Temp::create(folder.path(), 0o600).unwrap();
        temp.write(b"second").unwrap();
        assert!(!temp.publish(&dest).unwrap());
        assert_eq!(fs::read(&dest).unwrap(), b"first");
    }

    #[test]
    fn missing_folders_are_made_with_the_mode() {
        let folder = folder();
        let deep = folder.path().join("a/b/c");
        create_dirs(&deep, 0o700).unwrap();
        create_dirs(&deep, 0o700).unwrap();
        assert_eq!(mode(&folder.path().join("a")), 0o700);
        assert_eq!(mode(&deep), 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let folder = folder();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert_eq!(
            create_dirs(&file, 0o700).unwrap_err().to_string(),
            format!("cannot create directory {}: File exists (os error 17)", file.display())
        );
    }

    #[test]
    fn hashing_in_chunks_and_in_parallel_equals_hashing_at_once() {
        let folder = folder();
        let path = folder.path().join("large");
        let bytes: Vec<u8> = (0..PARALLEL_AFTER + 3 * CHUNK as u64 + 7).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let mut file = File::open(&path).unwrap();
        let mut copied = 0;
        let count = |chunk: &[u8]| {
            copied += chunk.len();
            Ok(())
        };
        let (digest, total) = hash_into(&mut file, &path, u64::MAX, count).unwrap();
        assert_eq!((digest, total), (Digest::of(&bytes), bytes.len() as u64));
        assert_eq!(copied, bytes.len());
    }

    #[test]
    fn a_length_beyond_all_memory_is_an_error() {
        let folder = folder();
        let path = folder.path().join("file");
        fs::write(&path, b"x").unwrap();
        let error = read(&mut File::open(&path).unwrap(), &path, u64::MAX).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}: out of memory", path.display()));
    }

    #[test]
    fn random_names_differ() {
        assert_ne!(random_name(), random_name());
    }
}
