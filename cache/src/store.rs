//! `Store`: bytes kept under their digest, and trees of them.
//!
//! Does not know stages, keys or records, nor what any bytes mean.
//!
//! Invariants: nothing has a name below `blobs/` before its content is durable, and nothing is reported as put
//! before its name is; no byte leaves the store without being hashed on the way (a file that is handed out, before
//! that), and a restored file appears only after its hash was found right; blobs are never written again, never replaced, and share no inode with a
//! file outside; what is damaged is moved to `quarantine/`, so that it can be made again, and never deleted. The move
//! and the check before it hold a kernel lock, so a good blob that has just taken the place of a damaged one stays.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::codec::CodecError;
use crate::digest::{self, Digest};
use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Lock, Meta, Opened, RealDisk, Temp, failed};
use crate::open::Seen;
use crate::tree::{Artifact, MAX_TREE_BYTES, Shape, Tree, TreeError};

/// The version of the layout that this program reads and writes.
const FORMAT: u32 = 1;
/// What the format file says before the version.
const FORMAT_NAME: &str = "headwater-store ";
/// More than a format file ever has.
const MAX_FORMAT_BYTES: u64 = 64;
/// Trees within trees, at most.
const MAX_DEPTH: usize = 64;
/// How often a blob that another process exchanges meanwhile is looked at again.
const ATTEMPTS: usize = 8;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No blob has this digest.
    #[error("blob {digest} is not in the store")]
    Missing {
        /// The digest that was asked for.
        digest: Digest,
    },
    /// The bytes kept under this digest have another. They were moved away: from now on the blob is missing.
    #[error("blob {digest} is damaged; it was moved to {path}", path = path.display())]
    Damaged {
        /// The digest that was asked for.
        digest: Digest,
        /// Where the damaged bytes are now.
        path: PathBuf,
    },
    /// The bytes are intact and are no tree that this program can read.
    #[error("blob {digest} is not a readable tree: {source}")]
    NotATree {
        /// The digest that was asked for.
        digest: Digest,
        /// What is wrong with it.
        source: TreeError,
    },
    /// The tree breaks a rule of trees.
    #[error(transparent)]
    InvalidTree(#[from] TreeError),
    /// Only regular files can be put.
    #[error("{path} is a {kind}, not a regular file", path = path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The store is of a format that this program does not know.
    #[error(
        "the store {root} has format version {found}, this program reads version {supported}",
        root = root.display()
    )]
    Format {
        /// The folder of the store.
        root: PathBuf,
        /// The version in its format file.
        found: u32,
        /// The one version that this program reads.
        supported: u32,
    },
    /// The format file does not say that this is a store.
    #[error("{path} is not the format file of a store", path = path.display())]
    NotAStore {
        /// The format file.
        path: PathBuf,
    },
    /// An earlier sync of a directory failed: which names are durable is not known any more.
    #[error("the store {root} takes nothing more: an earlier sync failed", root = root.display())]
    SyncFailed {
        /// The folder of the store.
        root: PathBuf,
    },
}

/// A folder of blobs under their digests. Used from many threads, and from many processes, at once.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Trees that were read and verified; they cannot change.
    trees: RwLock<HashMap<Digest, Arc<Tree>>>,
    /// Which of the 256 folders of `blobs/` this process knows to be durable.
    folders: [AtomicBool; 256],
    /// Folders outside of the store where leftovers of restores were looked for.
    swept: Mutex<HashSet<PathBuf>>,
    /// The files that were verified to be handed out.
    pub(crate) seen: Seen,
    sync_failed: AtomicBool,
}

impl Store {
    /// Opens the store in the folder `root`, which is made if it is missing, and removes temps of dead processes.
    ///
    /// # Errors
    /// If the folder cannot be made or read, or has another format; nothing is touched then.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        Store::open_on(Arc::new(RealDisk), root)
    }

    /// [`Store::open`] on another disk than that of the operating system.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Store, StoreError> {
        let root = std::path::absolute(root).map_err(failed("resolve", root))?;
        let fresh = !check_format(&*disk, &root)?;
        for folder in ["tmp", "blobs", "quarantine"] {
            disk::create_dirs(&*disk, &root.join(folder), 0o700)?;
        }
        if fresh {
            write_format(&disk, &root)?;
        }
        // Another process may have made these names and died before it could sync them.
        disk::sync_dir(&*disk, &root)?;
        disk::sweep(&*disk, &root.join("tmp"));
        Ok(Store {
            disk,
            root,
            trees: RwLock::default(),
            folders: [const { AtomicBool::new(false) }; 256],
            swept: Mutex::default(),
            seen: Seen::default(),
            sync_failed: AtomicBool::new(false),
        })
    }

    /// The folder of the store, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps `bytes`; when this returns they are durable. A blob of this digest and length that is there already is
    /// taken for good, as every read verifies it.
    ///
    /// # Errors
    /// If they cannot be written and synced.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.check_can_put()?;
        let digest = Digest::of(bytes);
        if self.is_intact(&digest, bytes.len() as u64)? {
            self.make_name_durable(&digest)?;
            return Ok(digest);
        }
        let mut temp = self.temp()?;
        temp.write(bytes)?;
        self.publish(&temp, &digest, bytes.len() as u64)?;
        Ok(digest)
    }

    /// Keeps a copy of the file at `path`, links followed, without holding it in memory; returns digest and length of
    /// what was read.
    ///
    /// # Errors
    /// If it is no regular file, cannot be read, or its copy cannot be written and synced.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        self.check_can_put()?;
        let file = open_source(&*self.disk, path)?;
        let mut temp = self.temp()?;
        let (digest, bytes) = disk::hash_into(&*file, path, u64::MAX, |chunk| temp.write(chunk))?;
        self.publish(&temp, &digest, bytes)?;
        Ok((digest, bytes))
    }

    /// Keeps the encoding of `tree`, not its entries: put them first.
    ///
    /// # Errors
    /// If the tree breaks a rule of [`Tree::encode`], or cannot be written and synced.
    pub fn put_tree(&self, tree: &Tree) -> Result<Digest, StoreError> {
        self.put(&tree.encode()?)
    }

    /// The bytes of a blob, verified.
    ///
    /// A medium that cannot give back the bytes, asked twice, is damage as much as one that gives back others.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Damaged`], which also moves the blob to `quarantine/`; or a failed
    /// file operation.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.read_verified(digest, |file, path, length| {
            let bytes = disk::read(file, path, length)?;
            Ok((Digest::of(&bytes), bytes))
        })
    }

    /// A tree, verified; read once in the life of the store value.
    ///
    /// # Errors
    /// As [`Store::get`]; and [`StoreError::NotATree`] if the bytes are intact but no tree.
    pub fn get_tree(&self, digest: &Digest) -> Result<Arc<Tree>, StoreError> {
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(digest) {
            return Ok(tree.clone());
        }
        drop(trees);
        let tree = Arc::new(self.read_tree(digest)?);
        let mut trees = self.trees.write().unwrap_or_else(PoisonError::into_inner);
        Ok(trees.entry(*digest).or_insert(tree).clone())
    }

    /// Whether there is a blob of this digest. Its bytes are not looked at.
    pub fn contains(&self, digest: &Digest) -> bool {
        matches!(self.look(digest), Ok(Some(found)) if found.is_file())
    }

    /// Whether an artifact can be produced as far as names and lengths tell: every blob is there with its length,
    /// and every tree can be read, down to a depth of 64.
    pub fn holds(&self, artifact: &Artifact) -> bool {
        let mut visited = HashSet::new();
        let mut open = vec![(artifact.shape, artifact.digest, artifact.bytes, 0)];
        while let Some((shape, digest, bytes, depth)) = open.pop() {
            match shape {
                Shape::Blob if self.is_present(&digest, bytes).unwrap_or(false) => {}
                Shape::Tree if depth < MAX_DEPTH && self.contains(&digest) => {
                    // Shared subtrees are walked once: twice at each level would never end.
                    if !visited.insert(digest) {
                        continue;
                    }
                    let Ok(tree) = self.get_tree(&digest) else {
                        return false;
                    };
                    let parts = tree.entries.iter();
                    open.extend(parts.map(|e| (e.shape, e.digest, e.bytes, depth + 1)));
                }
                _ => return false,
            }
        }
        true
    }

    /// Copies a blob to `dest`, verified before it appears there, atomically and durably. Missing folders are
    /// made; what is at `dest` is replaced, so the caller first moves away what must not be lost. The file gets the
    /// permissions of any new file of the user's, and never shares an inode with the store.
    ///
    /// # Errors
    /// As [`Store::get`]; `dest` is untouched then.
    pub fn restore(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        let folder = disk::parent(dest);
        let mode = if executable { 0o777 } else { 0o666 };
        let temp = self.read_verified(digest, |file, path, length| {
            self.prepare_folder(folder)?;
            let mut temp = Temp::create(&self.disk, folder, mode)?;
            let (found, _) = disk::hash_into(file, path, length, |chunk| temp.write(chunk))?;
            Ok((found, temp))
        })?;
        temp.sync()?;
        Ok(temp.replace(dest)?)
    }

    /// The digests of all blobs whose text begins with `hex`, in order. None if `hex` is no lower-case hexadecimal
    /// text.
    ///
    /// # Errors
    /// If a folder of the store cannot be listed.
    pub fn with_prefix(&self, hex: &str) -> Result<Vec<Digest>, StoreError> {
        let mut found = Vec::new();
        if hex.bytes().any(|character| digest::digit(character).is_none()) {
            return Ok(found);
        }
        let blobs = self.root.join("blobs");
        let first = &hex[..hex.len().min(2)];
        for folder in disk::names(&*self.disk, &blobs)? {
            if folder.len() != 2 || !folder.starts_with(first) {
                continue;
            }
            for rest in disk::names(&*self.disk, &blobs.join(&folder))? {
                let text = format!("{folder}{rest}");
                found.extend(text.parse::<Digest>().ok().filter(|_| text.starts_with(hex)));
            }
        }
        Ok(found)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (folder, rest) = text.split_at(2);
        self.root.join("blobs").join(folder).join(rest)
    }

    fn temp(&self) -> Result<Temp, StoreError> {
        Ok(Temp::create(&self.disk, &self.root.join("tmp"), 0o600)?)
    }

    fn check_can_put(&self) -> Result<(), StoreError> {
        if self.sync_failed.load(Ordering::Acquire) {
            let root = self.root.clone();
            return Err(StoreError::SyncFailed { root });
        }
        Ok(())
    }

    /// Whether a regular file of this length lies in the place of the blob.
    fn is_present(&self, digest: &Digest, bytes: u64) -> Result<bool, StoreError> {
        Ok(self.look(digest)?.is_some_and(|found| is_blob(&found, bytes)))
    }

    /// Whether the blob is there with the right bytes. A put that trusted a damaged one would leave its maker running
    /// again and again; what is damaged is moved to `quarantine/`.
    fn is_intact(&self, digest: &Digest, bytes: u64) -> Result<bool, StoreError> {
        if !self.is_present(digest, bytes)? {
            return Ok(false);
        }
        match self.read_verified(digest, |file, path, length| disk::hash_into(file, path, length, |_| Ok(()))) {
            Ok(_) => Ok(true),
            Err(StoreError::Missing { .. } | StoreError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What lies in the place of a blob.
    fn look(&self, digest: &Digest) -> Result<Option<Meta>, StoreError> {
        Ok(disk::look(&*self.disk, &self.blob_path(digest), Links::Refuse)?)
    }

    /// Gives a written temp its place among the blobs, unless the blob is there already.
    fn publish(&self, temp: &Temp, digest: &Digest, bytes: u64) -> Result<(), StoreError> {
        temp.set_mode(0o444)?;
        temp.sync()?;
        let path = self.blob_path(digest);
        if disk::create_dir(&*self.disk, disk::parent(&path), 0o700)? {
            self.name_of_folder(digest).store(false, Ordering::Release);
        }
        for _ in 0..ATTEMPTS {
            if temp.publish(&path)? || self.is_intact(digest, bytes)? {
                return self.make_name_durable(digest);
            }
            self.set_aside(digest, |found| !is_blob(found, bytes))?;
        }
        let taken = io::ErrorKind::AlreadyExists.into();
        Err(failed("publish", &path)(taken).into())
    }

    /// Syncs the folder of a blob, and once in a process the name of that folder: whoever made either may have
    /// died before syncing it.
    fn make_name_durable(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        self.sync_dir(disk::parent(&path))?;
        let known = self.name_of_folder(digest);
        if !known.load(Ordering::Acquire) {
            self.sync_dir(&self.root.join("blobs"))?;
            known.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Syncs a folder of the store. No descriptor left is no failed sync: it may be tried again.
    fn sync_dir(&self, folder: &Path) -> Result<(), StoreError> {
        let handle = disk::open(&*self.disk, folder, Access::Read(Links::Follow))?;
        handle.sync().map_err(|error| {
            // The kernel reports a lost write once: a second sync would succeed and mean nothing.
            self.sync_failed.store(true, Ordering::Release);
            failed("sync directory", folder)(error).into()
        })
    }

    /// Whether the name of the folder that holds the blob is known to be durable.
    fn name_of_folder(&self, digest: &Digest) -> &AtomicBool {
        &self.folders[usize::from(digest.as_bytes()[0])]
    }

    /// Opens a blob for reading; what is no regular file is damage.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<(Box<dyn Handle>, Meta), StoreError> {
        for _ in 0..ATTEMPTS {
            match disk::open_regular(&*self.disk, &self.blob_path(digest), Links::Refuse)? {
                Opened::Regular(file, metadata) => return Ok((file, metadata)),
                Opened::Missing => break,
                Opened::Other(_) => {
                    if let Some(path) = self.set_aside(digest, |found| !found.is_file())? {
                        let digest = *digest;
                        return Err(StoreError::Damaged { digest, path });
                    }
                }
            }
        }
        Err(StoreError::Missing { digest: *digest })
    }

    /// What `read` makes of a blob's bytes, once it has found them to have the right digest.
    pub(crate) fn read_verified<T>(
        &self,
        digest: &Digest,
        read: impl Fn(&dyn Handle, &Path, u64) -> Result<(Digest, T), DiskError>,
    ) -> Result<T, StoreError> {
        let path = self.blob_path(digest);
        for attempt in 0..ATTEMPTS {
            let (file, seen) = self.open_blob(digest)?;
            match read(&*file, &path, seen.bytes) {
                Ok((found, value)) if found == *digest => return Ok(value),
                Err(error) if !is_unreadable(&error, &path) => return Err(error.into()),
                // A fault that passes is no damage.
                Err(_) if attempt == 0 => {}
                Ok(_) | Err(_) => self.condemn(digest, &seen)?,
            }
        }
        Err(StoreError::Missing { digest: *digest })
    }

    fn read_tree(&self, digest: &Digest) -> Result<Tree, StoreError> {
        self.check_tree_length(digest)?;
        let bytes = self.get(digest)?;
        Tree::decode(&bytes).map_err(|source| StoreError::NotATree { digest: *digest, source })
    }

    /// A blob too long to be a tree is hashed without being held in memory: it is either damaged or no tree.
    fn check_tree_length(&self, digest: &Digest) -> Result<(), StoreError> {
        let limit = MAX_TREE_BYTES as u64;
        let bytes = self.open_blob(digest)?.1.bytes;
        if bytes <= limit {
            return Ok(());
        }
        let bytes = self.read_verified(digest, |file, path, length| disk::hash_into(file, path, length, |_| Ok(())))?;
        match bytes > limit {
            true => Err(StoreError::NotATree { digest: *digest, source: CodecError::TooLarge { bytes, limit }.into() }),
            false => Ok(()),
        }
    }

    /// Moves the file that was `seen` to hold wrong bytes away and reports it; `Ok` if another lies in its place by
    /// now, which deserves a look of its own.
    fn condemn(&self, digest: &Digest, seen: &Meta) -> Result<(), StoreError> {
        let same = |found: &Meta| (found.device, found.inode) == (seen.device, seen.inode);
        match self.set_aside(digest, same)? {
            Some(path) => Err(StoreError::Damaged { digest: *digest, path }),
            None => Ok(()),
        }
    }

    /// Moves what lies in the place of a blob to `quarantine/` if it `is_bad`; returns where it is then.
    fn set_aside(&self, digest: &Digest, is_bad: impl Fn(&Meta) -> bool) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.root.join("quarantine");
        let _lock = lock(&*self.disk, &folder.join("lock"))?;
        let path = self.blob_path(digest);
        if !self.look(digest)?.is_some_and(|found| is_bad(&found)) {
            return Ok(None);
        }
        let place = folder.join(format!("{digest}-{}", disk::random_name()));
        self.disk.rename(&path, &place).map_err(failed("quarantine", &path))?;
        Ok(Some(place))
    }

    /// Makes a folder outside of the store and, once in a process, clears it of what a killed restore left.
    fn prepare_folder(&self, folder: &Path) -> Result<(), DiskError> {
        disk::create_dirs(&*self.disk, folder, 0o777)?;
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if !swept.contains(folder) {
            disk::sync_name_of(&*self.disk, folder)?;
            disk::sweep(&*self.disk, folder);
            swept.insert(folder.to_owned());
        }
        Ok(())
    }
}

/// Whether the medium, not the way to it, is what failed: the bytes of the file at `blob` cannot be had any more.
fn is_unreadable(error: &DiskError, blob: &Path) -> bool {
    let errno = error.source.raw_os_error();
    error.path == blob && matches!(errno, Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG))
}

/// Whether this is a regular file of the length that a blob must have.
fn is_blob(found: &Meta, bytes: u64) -> bool {
    found.is_file() && found.bytes == bytes
}

/// Opens a file of the user's to be put.
fn open_source(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Handle>, StoreError> {
    match disk::open_regular(disk, path, Links::Follow)? {
        Opened::Regular(file, _) => Ok(file),
        Opened::Other(kind) => Err(StoreError::NotRegular { path: path.to_owned(), kind }),
        Opened::Missing => Err(failed("open", path)(io::Error::from_raw_os_error(libc::ENOENT)).into()),
    }
}

/// Holds the kernel's lock on the file at `path` for as long as the returned file is open.
fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Handle>, DiskError> {
    let file = disk::open(disk, path, Access::Edit(0o600))?;
    disk::lock(&*file, path, Lock::Exclusive)?;
    Ok(file)
}

/// Whether `root` has a format file; an error if it is not the one that this program writes.
fn check_format(disk: &dyn Disk, root: &Path) -> Result<bool, StoreError> {
    let path = root.join("format");
    let file = match disk::open_regular(disk, &path, Links::Refuse)? {
        Opened::Regular(file, _) => file,
        Opened::Missing => return Ok(false),
        Opened::Other(_) => return Err(StoreError::NotAStore { path }),
    };
    let bytes = disk::read(&*file, &path, MAX_FORMAT_BYTES)?;
    match parse_format(&bytes) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk};
    use crate::tree::Entry;
    use crate::tree::tests::{entry, tree};
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::AtomicUsize;

    struct Bench {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            Bench { folder, store }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Puts `content` and then exchanges the blob's bytes for `damaged`.
        fn damaged(&self, content: &[u8], damaged: &[u8]) -> Digest {
            let digest = self.store.put(content).unwrap();
            let path = self.store.blob_path(&digest);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, damaged).unwrap();
            digest
        }

        fn quarantined(&self) -> Vec<String> {
            let mut names = disk::names(&RealDisk, &self.store.root.join("quarantine")).unwrap();
            names.retain(|name| name != "lock");
            names
        }

        /// Asserts that `digest` is reported as damaged, then as missing, and that a put makes it whole.
        fn is_damage(&self, digest: Digest, content: &[u8]) {
            let error = self.store.get(&digest).unwrap_err();
            let StoreError::Damaged { digest: named, path } = error else {
                panic!("{error}");
            };
            assert_eq!(named, digest);
            assert!(path.symlink_metadata().is_ok());
            let error = self.store.get(&digest).unwrap_err();
            assert!(matches!(error, StoreError::Missing { digest: named } if named == digest));
            self.store.put(content).unwrap();
            assert_eq!(self.store.get(&digest).unwrap(), content);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn artifact(shape: Shape, digest: Digest, bytes: u64) -> Artifact {
        let type_name = "file".to_owned();
        Artifact { type_name, shape, digest, bytes }
    }

    #[test]
    fn a_put_replaces_a_damaged_blob_of_the_same_length() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = store.put(b"right").unwrap();
        let path = store.blob_path(&digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"wrong").unwrap();
        assert_eq!(store.put(b"right").unwrap(), digest);
        assert_eq!(store.get(&digest).unwrap(), b"right");
    }

    #[test]
    fn bytes_come_back() {
        let bench = Bench::new();
        for content in [&b""[..], b"x", &[7; 3 << 20]] {
            let digest = bench.store.put(content).unwrap();
            assert_eq!(digest, Digest::of(content));
            assert!(bench.store.contains(&digest));
            assert_eq!(bench.store.get(&digest).unwrap(), content);
        }
    }

    #[test]
    fn the_layout_and_the_modes_are_as_documented() {
        let bench = Bench::new();
        let root = bench.store.root();
        assert_eq!(mode(root), 0o700);
        assert_eq!(fs::read(root.join("format")).unwrap(), b"headwater-store 1\n");
        let text = bench.store.put(b"content").unwrap().to_string();
        let blob = root.join("blobs").join(&text[..2]).join(&text[2..]);
        assert_eq!(mode(&blob), 0o444);
        assert_eq!(fs::metadata(&blob).unwrap().nlink(), 1);
        assert!(disk::names(&RealDisk, &root.join("tmp")).unwrap().is_empty());
    }

    #[test]
    fn a_missing_blob_is_named() {
        let bench = Bench::new();
        let digest = Digest::of(b"never put");
        let text = format!("blob {digest} is not in the store");
        assert_eq!(bench.store.get(&digest).unwrap_err().to_string(), text);
        assert_eq!(bench.store.get_tree(&digest).unwrap_err().to_string(), text);
        let dest = bench.path("new/dest");
        let error = bench.store.restore(&digest, &dest, false).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(!bench.path("new").exists());
        assert!(!bench.store.contains(&digest));
    }

    #[test]
    fn a_flipped_bit_is_damage_not_data() {
        let bench = Bench::new();
        for bit in 0..24 {
            let mut bytes = *b"abc";
            bytes[bit / 8] ^= 1 << (bit % 8);
            bench.is_damage(bench.damaged(b"abc", &bytes), b"abc");
        }
        assert_eq!(bench.quarantined().len(), 24);
    }

    #[test]
    fn damage_is_reported_with_the_place_it_was_moved_to() {
        let bench = Bench::new();
        let digest = bench.damaged(b"content", b"CONTENT");
        let text = bench.store.get(&digest).unwrap_err().to_string();
        let place = bench.store.root.join("quarantine").join(&bench.quarantined()[0]);
        assert_eq!(fs::read(&place).unwrap(), b"CONTENT");
        assert_eq!(text, format!("blob {digest} is damaged; it was moved to {}", place.display()));
    }

    #[test]
    fn every_truncation_and_a_growth_is_damage() {
        let bench = Bench::new();
        for other in [&b""[..], b"a", b"ab", b"abc\0"] {
            bench.is_damage(bench.damaged(b"abc", other), b"abc");
        }
    }

    #[test]
    fn a_folder_a_link_or_a_fifo_in_the_place_of_a_blob_is_damage() {
        let bench = Bench::new();
        let digest = bench.store.put(b"abc").unwrap();
        let path = bench.store.blob_path(&digest);
        let outside = bench.path("outside");
        fs::write(&outside, b"abc").unwrap();
        let replace: [&dyn Fn(); 3] =
            [&|| fs::create_dir(&path).unwrap(), &|| std::os::unix::fs::symlink(&outside, &path).unwrap(), &|| {
                let made = std::process::Command::new("mkfifo").arg(&path).status();
                assert!(made.unwrap().success());
            }];
        for replace in replace {
            fs::remove_file(&path).unwrap();
            replace();
            assert!(!bench.store.contains(&digest));
            bench.is_damage(digest, b"abc");
        }
    }

    #[test]
    fn a_blob_of_the_wrong_size_is_replaced_by_a_put() {
        let bench = Bench::new();
        let digest = bench.damaged(b"content", b"cont");
        bench.store.put(b"content").unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
        assert_eq!(bench.quarantined().len(), 1);
    }

    #[test]
    fn a_good_blob_that_took_the_place_of_a_damaged_one_is_not_set_aside() {
        let bench = Bench::new();
        let digest = bench.damaged(b"content", b"CONTENT");
        let (_held_open, seen) = bench.store.open_blob(&digest).unwrap();
        fs::remove_file(bench.store.blob_path(&digest)).unwrap();
        bench.store.put(b"content").unwrap();
        bench.store.condemn(&digest, &seen).unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_file_is_put_as_its_bytes() {
        let bench = Bench::new();
        let path = bench.path("file");
        for content in [&b""[..], b"some content", &[3; (2 << 20) + 5]] {
            fs::write(&path, content).unwrap();
            let expected = (Digest::of(content), content.len() as u64);
            assert_eq!(bench.store.put_file(&path).unwrap(), expected);
            assert_eq!(bench.store.get(&expected.0).unwrap(), content);
        }
    }

    #[test]
    fn only_a_regular_file_is_put() {
        let bench = Bench::new();
        let folder = bench.folder.path();
        assert_eq!(
            bench.store.put_file(folder).unwrap_err().to_string(),
            format!("{} is a directory, not a regular file", folder.display())
        );
        let error = bench.store.put_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /no/such/file: No such file or directory (os error 2)");
    }

    #[test]
    fn a_put_file_shares_no_inode_with_the_store() {
        let bench = Bench::new();
        let path = bench.path("file");
        fs::write(&path, b"content").unwrap();
        let (digest, _) = bench.store.put_file(&path).unwrap();
        fs::write(&path, b"written to afterwards").unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_tree_comes_back_and_is_read_once() {
        let bench = Bench::new();
        let tree = tree(&["a", "b"]);
        let digest = bench.store.put_tree(&tree).unwrap();
        let first = bench.store.get_tree(&digest).unwrap();
        assert_eq!(*first, tree);
        fs::remove_file(bench.store.blob_path(&digest)).unwrap();
        assert!(Arc::ptr_eq(&first, &bench.store.get_tree(&digest).unwrap()));
    }

    #[test]
    fn bytes_that_are_no_tree_are_named_and_stay() {
        let bench = Bench::new();
        let digest = bench.store.put(b"no tree at all").unwrap();
        assert_eq!(
            bench.store.get_tree(&digest).unwrap_err().to_string(),
            format!(
                "blob {digest} is not a readable tree: \
                 the data is of another kind: it does not begin with \"HWTR\""
            )
        );
        assert!(bench.store.contains(&digest));
    }

    #[test]
    fn a_tree_grown_beyond_the_limit_is_damage_and_not_read_into_memory() {
        let bench = Bench::new();
        let digest = bench.store.put_tree(&tree(&["a"])).unwrap();
        let path = bench.store.blob_path(&digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(MAX_TREE_BYTES as u64 + 1).unwrap();
        let error = bench.store.get_tree(&digest).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn an_invalid_tree_is_refused_before_it_is_written() {
        let bench = Bench::new();
        assert_eq!(
            bench.store.put_tree(&tree(&["a", "a"])).unwrap_err().to_string(),
            "two entries of the tree are named \"a\""
        );
        assert!(bench.store.with_prefix("").unwrap().is_empty());
    }

    #[test]
    fn an_artifact_is_held_only_if_every_part_is_there() {
        let bench = Bench::new();
        let store = &bench.store;
        let inner = tree(&["a", "b"]);
        let sub = Entry { shape: Shape::Tree, digest: store.put_tree(&inner).unwrap(), ..entry("sub", b"") };
        let outer = Tree { header: String::new(), entries: vec![sub, entry("c", b"c")] };
        let whole = artifact(Shape::Tree, store.put_tree(&outer).unwrap(), 3);
        assert!(!store.holds(&whole));
        let digests = [b"a", b"b", b"c"].map(|content| store.put(content).unwrap());
        assert!(store.holds(&whole));
        let parts = digests.iter().chain([&whole.digest, &outer.entries[0].digest]);
        for digest in parts {
            let (path, away) = (store.blob_path(digest), bench.path("away"));
            fs::rename(&path, &away).unwrap();
            assert!(!store.holds(&whole), "without {digest}");
            fs::rename(&away, &path).unwrap();
        }
        assert!(store.holds(&whole));
    }

    #[test]
    fn a_blob_of_another_length_is_not_held() {
        let bench = Bench::new();
        let digest = bench.store.put(b"abc").unwrap();
        assert!(bench.store.holds(&artifact(Shape::Blob, digest, 3)));
        assert!(!bench.store.holds(&artifact(Shape::Blob, digest, 4)));
    }

    /// A chain of trees, each with the one before it twice.
    fn chain(store: &Store, length: usize) -> Artifact {
        let mut last = Digest::of(b"");
        let mut shape = Shape::Blob;
        store.put(b"").unwrap();
        for _ in 0..length {
            let part = |name| Entry { digest: last, shape, ..entry(name, b"") };
            let entries = vec![part("left"), part("right")];
            last = store.put_tree(&Tree { header: String::new(), entries }).unwrap();
            shape = Shape::Tree;
        }
        artifact(shape, last, 0)
    }

    #[test]
    fn shared_subtrees_are_walked_once_and_depth_is_limited() {
        let bench = Bench::new();
        assert!(bench.store.holds(&chain(&bench.store, MAX_DEPTH)));
        assert!(!bench.store.holds(&chain(&bench.store, MAX_DEPTH + 1)));
    }

    #[test]
    fn a_restored_file_is_a_copy_with_ordinary_permissions() {
        let bench = Bench::new();
        let digest = bench.store.put(b"content").unwrap();
        let (plain, program) = (bench.path("new/folder/plain"), bench.path("program"));
        bench.store.restore(&digest, &plain, false).unwrap();
        bench.store.restore(&digest, &program, true).unwrap();
        assert_eq!(fs::read(&plain).unwrap(), b"content");
        assert_eq!(mode(&plain) & 0o111, 0);
        assert_eq!(mode(&plain) & 0o600, 0o600);
        assert_eq!(mode(&program) & 0o100, 0o100);
        fs::write(&plain, b"written to").unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_restore_replaces_a_link_and_not_what_it_leads_to() {
        let bench = Bench::new();
        let digest = bench.store.put(b"content").unwrap();
        let (target, link) = (bench.path("target"), bench.path("link"));
        fs::write(&target, b"mine").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        bench.store.restore(&digest, &link, false).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn a_damaged_blob_is_never_restored() {
        let bench = Bench::new();
        let digest = bench.damaged(b"content", b"CONTENT");
        let dest = bench.path("dest/file");
        fs::create_dir(bench.path("dest")).unwrap();
        fs::write(&dest, b"before").unwrap();
        let error = bench.store.restore(&digest, &dest, false).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&dest).unwrap(), b"before");
        assert_eq!(disk::names(&RealDisk, &bench.path("dest")).unwrap(), ["file"]);
    }

    #[test]
    fn a_restore_clears_what_a_killed_one_left() {
        let bench = Bench::new();
        let digest = bench.store.put(b"content").unwrap();
        let left = bench.path(&format!(".headwater-{}.tmp", disk::random_name()));
        fs::write(&left, b"half of the cont").unwrap();
        bench.store.restore(&digest, &bench.path("dest"), false).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn digests_are_found_by_any_prefix_in_order() {
        let bench = Bench::new();
        let mut all: Vec<_> = (0..40u8).map(|i| bench.store.put(&[i]).unwrap()).collect();
        all.sort();
        assert_eq!(bench.store.with_prefix("").unwrap(), all);
        for digest in &all {
            let text = digest.to_string();
            for length in [1, 2, 3, 12, 64] {
                let prefix = &text[..length];
                let mut expected = all.clone();
                expected.retain(|digest| digest.to_string().starts_with(prefix));
                assert_eq!(bench.store.with_prefix(prefix).unwrap(), expected);
            }
        }
        for none in ["zz", "é", "..", "AF", &"0".repeat(65)] {
            assert!(bench.store.with_prefix(none).unwrap().is_empty());
        }
    }

    #[test]
    fn strange_names_among_the_blobs_are_no_digests() {
        let bench = Bench::new();
        let digest = bench.store.put(b"content").unwrap();
        let folder = bench.store.blob_path(&digest);
        fs::write(folder.with_file_name("notes"), b"").unwrap();
        fs::write(bench.store.root.join("blobs/README"), b"").unwrap();
        assert_eq!(bench.store.with_prefix("").unwrap(), [digest]);
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), b"headwater-store 2\n").unwrap();
        assert_eq!(
            Store::open(folder.path()).unwrap_err().to_string(),
            format!("the store {} has format version 2, this program reads version 1", folder.path().display())
        );
        assert_eq!(disk::names(&RealDisk, folder.path()).unwrap(), ["format"]);
    }

    #[test]
    fn a_format_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("format");
        let texts = ["", "headwater-store 1", "headwater-store 0\n", "headwater-store x\n", "other"];
        for text in texts {
            fs::write(&path, text).unwrap();
            assert_eq!(
                Store::open(folder.path()).unwrap_err().to_string(),
                format!("{} is not the format file of a store", path.display())
            );
        }
    }

    #[test]
    fn a_store_whose_making_was_cut_short_is_completed() {
        let bench = Bench::new();
        let root = bench.store.root();
        let digest = bench.store.put(b"content").unwrap();
        fs::remove_file(root.join("format")).unwrap();
        fs::remove_dir_all(root.join("quarantine")).unwrap();
        let again = Store::open(root).unwrap();
        assert!(root.join("format").exists() && root.join("quarantine").exists());
        assert_eq!(again.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn opening_sweeps_the_temps_of_the_dead_and_not_those_of_the_living() {
        let bench = Bench::new();
        let mut living = bench.store.temp().unwrap();
        let tmp = bench.store.root.join("tmp");
        let dead = tmp.join(format!(".headwater-{}.tmp", disk::random_name()));
        fs::write(&dead, b"half").unwrap();
        let _again = Store::open(bench.store.root()).unwrap();
        assert!(!dead.exists());
        living.write(b"content").unwrap();
        bench.store.publish(&living, &Digest::of(b"content"), 7).unwrap();
        assert!(bench.store.contains(&Digest::of(b"content")));
    }

    #[test]
    fn after_a_failed_sync_nothing_is_put() {
        let bench = Bench::new();
        let digest = bench.store.put(b"before").unwrap();
        bench.store.sync_failed.store(true, Ordering::Release);
        let text = format!("the store {} takes nothing more: an earlier sync failed", bench.store.root().display());
        assert_eq!(bench.store.put(b"before").unwrap_err().to_string(), text);
        let error = bench.store.put_file(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(bench.store.get(&digest).unwrap(), b"before");
    }

    /// A store in memory, made before anything fails, on a disk where those calls fail that `decide` chooses.
    fn failing(decide: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> (ForgetfulDisk, Store) {
        let memory = ForgetfulDisk::new();
        Store::open_on(Arc::new(memory.clone()), Path::new("/store")).unwrap();
        let disk = FailingDisk::new(Arc::new(memory.clone()), decide);
        (memory, Store::open_on(Arc::new(disk), Path::new("/store")).unwrap())
    }

    /// Chooses the first `times` calls of this operation on a path that contains `part`.
    fn first(times: usize, operation: &'static str, part: &'static str, errno: i32) -> impl Fn(&Call) -> Option<Fault> {
        let seen = AtomicUsize::new(0);
        move |call| {
            let chosen = call.operation == operation && call.path.to_string_lossy().contains(part);
            (chosen && seen.fetch_add(1, Ordering::SeqCst) < times).then_some(Fault::Error(errno))
        }
    }

    #[test]
    fn a_failed_sync_of_a_folder_is_final() {
        let (memory, store) = failing(first(1, "sync", "/blobs/", libc::EIO));
        let error = store.put(b"content").unwrap_err().to_string();
        let folder = format!("/store/blobs/{}", &Digest::of(b"content").to_string()[..2]);
        assert_eq!(error, format!("cannot sync directory {folder}: Input/output error (os error 5)"));
        for content in [&b"content"[..], b"other"] {
            let error = store.put(content).unwrap_err();
            assert!(matches!(error, StoreError::SyncFailed { .. }), "{error}");
        }
        let again = Store::open_on(Arc::new(memory), Path::new("/store")).unwrap();
        again.put(b"content").unwrap();
    }

    #[test]
    fn a_failed_sync_of_a_blob_costs_that_put_and_no_other() {
        let (memory, store) = failing(first(1, "sync", ".tmp", libc::ENOSPC));
        assert!(store.put(b"content").is_err());
        assert!(!store.contains(&Digest::of(b"content")));
        assert!(disk::names(&memory, Path::new("/store/tmp")).unwrap().is_empty());
        let digest = store.put(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn no_descriptor_left_to_sync_a_folder_with_is_no_failed_sync() {
        let (_, store) = failing(first(1, "open", "/blobs/", libc::EMFILE));
        assert!(store.put(b"content").is_err());
        let digest = store.put(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_blob_that_the_medium_cannot_give_back_is_damage() {
        for errno in [libc::EIO, libc::EUCLEAN, libc::EBADMSG] {
            let (memory, store) = failing(first(4, "read_at", "/blobs/", errno));
            let digest = store.put(b"content").unwrap();
            let error = store.get(&digest).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { digest: named, .. } if named == digest), "{error}");
            store.put(b"content").unwrap();
            let error = store.restore(&digest, Path::new("/out/file"), false).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(disk::names(&memory, Path::new("/out")).unwrap().is_empty());
            store.put(b"content").unwrap();
            assert_eq!(store.get(&digest).unwrap(), b"content");
        }
    }

    #[test]
    fn a_read_that_fails_once_is_no_damage() {
        let (memory, store) = failing(first(1, "read_at", "/blobs/", libc::EIO));
        let digest = store.put(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
        assert!(disk::names(&memory, Path::new("/store/quarantine")).unwrap().is_empty());
    }

    #[test]
    fn a_read_that_fails_for_another_reason_is_an_error_and_no_damage() {
        let (memory, store) = failing(first(usize::MAX, "read_at", "/blobs/", libc::ENOMEM));
        let digest = store.put(b"content").unwrap();
        let text = store.get(&digest).unwrap_err().to_string();
        assert_eq!(
            text,
            format!("cannot read {}: Cannot allocate memory (os error 12)", store.blob_path(&digest).display())
        );
        assert!(memory.look(&store.blob_path(&digest), Links::Refuse).is_ok());
    }

    #[test]
    fn a_target_that_cannot_be_written_is_no_damage_of_the_blob() {
        let (_, store) = failing(first(1, "write_at", "/out/", libc::EIO));
        let digest = store.put(b"content").unwrap();
        let error = store.restore(&digest, Path::new("/out/file"), false).unwrap_err();
        assert!(matches!(error, StoreError::Disk(_)), "{error}");
        assert_eq!(store.get(&digest).unwrap(), b"content");
    }

    /// The folders that a killed process made, whose names it did not sync.
    fn left_by_the_dead(folders: &[&str]) -> ForgetfulDisk {
        let disk = ForgetfulDisk::new();
        folders.iter().for_each(|folder| disk.create_dir(Path::new(folder), 0o700).unwrap());
        disk
    }

    #[test]
    fn a_store_whose_folder_was_made_by_a_killed_process_survives_a_crash() {
        for folders in [&["/a"][..], &["/a", "/a/store"], &["/a", "/a/store", "/a/store/tmp"]] {
            let disk = left_by_the_dead(&folders[..1]);
            // Whoever makes anything in a folder has made that folder's name durable: so must the dead have done.
            for folder in &folders[1..] {
                disk::sync_name_of(&disk, disk::parent(Path::new(folder))).unwrap();
                disk.create_dir(Path::new(folder), 0o700).unwrap();
            }
            let store = Store::open_on(Arc::new(disk.clone()), Path::new("/a/store")).unwrap();
            let digest = store.put(b"content").unwrap();
            for crashed in disk.crashes(64, 0) {
                let store = Store::open_on(Arc::new(crashed), Path::new("/a/store")).unwrap();
                assert_eq!(store.get(&digest).unwrap(), b"content");
            }
        }
    }

    #[test]
    fn a_file_restored_into_a_folder_that_a_killed_process_made_survives_a_crash() {
        let disk = left_by_the_dead(&["/out"]);
        let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
        let digest = store.put(b"content").unwrap();
        // What opening the store synced is not what counts.
        disk.create_dir(Path::new("/out/deep"), 0o700).unwrap();
        store.restore(&digest, Path::new("/out/deep/file"), false).unwrap();
        for crashed in disk.crashes(64, 0) {
            assert!(crashed.look(Path::new("/out/deep/file"), Links::Refuse).is_ok());
        }
    }

    #[test]
    fn a_file_restored_into_a_folder_that_was_made_again_survives_a_crash() {
        let disk = ForgetfulDisk::new();
        let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
        let digest = store.put(b"content").unwrap();
        store.restore(&digest, Path::new("/out/file"), false).unwrap();
        disk.rename(Path::new("/out"), Path::new("/away")).unwrap();
        store.restore(&digest, Path::new("/out/file"), false).unwrap();
        for crashed in disk.crashes(64, 0) {
            assert!(crashed.look(Path::new("/out/file"), Links::Refuse).is_ok());
        }
    }

    #[test]
    fn a_store_that_was_opened_says_what_it_is_after_any_crash() {
        for number in 0.. {
            let disk = ForgetfulDisk::new();
            // A first process dies somewhere while it makes the store.
            let dying = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Killed);
            let lived = Store::open_on(Arc::new(dying.clone()), Path::new("/store")).is_ok();
            Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
            for crashed in disk.crashes(64, number) {
                for name in ["format", "quarantine", "blobs", "tmp"] {
                    let found = crashed.look(&Path::new("/store").join(name), Links::Refuse);
                    assert!(found.is_ok(), "{name} is gone, killed before call {number}");
                }
            }
            if lived && dying.first_failure().is_none() {
                break;
            }
        }
    }

    #[test]
    fn a_folder_above_that_may_not_be_read_does_not_keep_a_store_from_being_made() {
        let deny = |call: &Call| {
            (call.operation == "open" && call.path == Path::new("/")).then_some(Fault::Error(libc::EACCES))
        };
        let disk = FailingDisk::new(Arc::new(left_by_the_dead(&["/home"])), deny);
        Store::open_on(Arc::new(disk), Path::new("/home/store")).unwrap();
    }

    #[test]
    fn many_threads_and_stores_put_the_same_and_get_it() {
        let bench = Bench::new();
        let other = Store::open(bench.store.root()).unwrap();
        std::thread::scope(|scope| {
            for store in [&bench.store, &other, &bench.store, &other] {
                scope.spawn(move || {
                    for i in 0..20u8 {
                        let content = [i; 100];
                        let digest = store.put(&content).unwrap();
                        assert_eq!(store.get(&digest).unwrap(), content);
                    }
                });
            }
        });
        assert_eq!(bench.store.with_prefix("").unwrap().len(), 20);
        assert!(bench.quarantined().is_empty());
    }

    #[test]
    fn many_threads_that_find_one_damaged_blob_never_see_its_bytes() {
        let bench = Bench::new();
        let digest = bench.damaged(b"content", b"CONTENT");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match bench.store.get(&digest) {
                    Ok(bytes) => assert_eq!(bytes, b"content"),
                    Err(StoreError::Damaged { .. } | StoreError::Missing { .. }) => {
                        bench.store.put(b"content").unwrap();
                    }
                    Err(error) => panic!("{error}"),
                });
            }
        });
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
        assert_eq!(bench.quarantined().len(), 1);
    }

    #[test]
    fn a_store_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Store>();
    }
}
