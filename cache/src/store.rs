//! `Store`: bytes kept under their digest, and trees of them.
//!
//! Does not know stages or keys, nor what any bytes mean. Small blobs are entries of [`Segments`], large ones files of
//! their own in [`Blobs`]; this file decides which is which, and when they become durable.
//!
//! Invariants: what is put or restored is visible to this process at once, and durable when a commit has returned; no
//! other process sees a blob before it is durable; no byte leaves the store without being hashed on the way (a file
//! that is handed out, before that), and a restored file appears only after its hash was found right. A store that is open is held with the kernel's shared
//! lock, so that nothing is collected meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::blobs::Blobs;
use crate::codec::CodecError;
use crate::digest::{self, Digest};
use crate::disk::{self, Access, Disk, DiskError, FileKind, Handle, Links, Lock, Opened, RealDisk, Temp, failed};
use crate::open::Seen;
use crate::pending::{Large, Pending};
use crate::segment::Kind;
use crate::segments::{Found, NewEntry, SegmentError, Segments};
use crate::tree::{Artifact, MAX_TREE_BYTES, Shape, Tree, TreeError};

/// The version of the layout that this program reads and writes.
const FORMAT: u32 = 2;
/// What the format file says before the version.
const FORMAT_NAME: &str = "headwater-store ";
/// More than a format file ever has.
const MAX_FORMAT_BYTES: u64 = 64;
/// Trees within trees, at most.
const MAX_DEPTH: usize = 64;
/// Blobs of more bytes than this are files of their own.
const SMALL: u64 = 64 << 10;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A segment cannot be read or appended to.
    #[error(transparent)]
    Segment(#[from] SegmentError),
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
    /// The entry of a segment that is this blob is not any more what it was: from now on the blob is missing.
    #[error("blob {digest} is damaged in {path}", path = path.display())]
    DamagedEntry {
        /// The digest that was asked for.
        digest: Digest,
        /// The segment.
        path: PathBuf,
    },
    /// The list of what a project uses is not any more what it was.
    #[error("the list of what a project uses is damaged in {path}", path = path.display())]
    DamagedUses {
        /// The segment.
        path: PathBuf,
    },
    /// What a project uses cannot be written or read.
    #[error("the list of what a project uses: {0}")]
    Uses(#[from] CodecError),
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

impl StoreError {
    /// The digest of a blob that is missing or damaged: whoever made it can make it again.
    pub fn lost(&self) -> Option<Digest> {
        match self {
            StoreError::Missing { digest }
            | StoreError::Damaged { digest, .. }
            | StoreError::DamagedEntry { digest, .. } => Some(*digest),
            _ => None,
        }
    }
}

/// A folder of blobs under their digests. Used from many threads, and from many processes, at once.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    blobs: Blobs,
    segments: Segments,
    /// Blobs of at most this many bytes are entries of segments.
    small: u64,
    pending: Mutex<Pending>,
    /// Held by the one commit that is under way.
    committing: Mutex<()>,
    /// Trees that were read and verified; they cannot change.
    trees: RwLock<HashMap<Digest, Arc<Tree>>>,
    /// Folders outside of the store where leftovers of restores were looked for.
    swept: Mutex<HashSet<PathBuf>>,
    /// The files that were verified to be handed out.
    pub(crate) seen: Seen,
    /// Keeps the store from being collected.
    _held: Box<dyn Handle>,
}

impl Store {
    /// Opens the store in the folder `root`, which is made if it is missing, and removes temps of dead processes. Waits
    /// while another process collects it.
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
        let root = prepare(&disk, root)?;
        let held = hold(&*disk, &root)?;
        Store::held(disk, root, held)
    }

    /// Opens the store for nobody else; `None` if somebody has it open.
    pub(crate) fn open_alone(disk: Arc<dyn Disk>, root: &Path) -> Result<Option<Store>, StoreError> {
        let root = prepare(&disk, root)?;
        let path = root.join("lock");
        let file = disk::open(&*disk, &path, Access::Edit(0o600))?;
        match disk::try_lock(&*file, &path)? {
            true => Ok(Some(Store::held(disk, root, file)?)),
            false => Ok(None),
        }
    }

    /// What lies in a folder is read only once the folder is held.
    fn held(disk: Arc<dyn Disk>, root: PathBuf, held: Box<dyn Handle>) -> Result<Store, StoreError> {
        // Another process may have made these names and died before it could sync them.
        disk::sync_dir(&*disk, &root)?;
        disk::sweep(&*disk, &root.join("tmp"));
        Ok(Store {
            blobs: Blobs::new(disk.clone(), root.clone()),
            segments: Segments::open(disk.clone(), root.join("segments"), root.join("tmp"))?,
            disk,
            root,
            small: SMALL,
            pending: Mutex::default(),
            committing: Mutex::default(),
            trees: RwLock::default(),
            swept: Mutex::default(),
            seen: Seen::default(),
            _held: held,
        })
    }

    /// The same store, which keeps blobs of more than `small` bytes in files of their own; 64 KiB unless it is told.
    #[must_use]
    pub fn with_small(self, small: u64) -> Store {
        Store { small, ..self }
    }

    /// The folder of the store, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps `bytes`: they can be had from this value at once, and are durable after the next [`Store::commit`].
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.blobs.check_synced()?;
        let digest = Digest::of(bytes);
        match bytes.len() as u64 <= self.small {
            true => self.put_small(&digest, bytes)?,
            false => self.put_large(&digest, bytes)?,
        }
        self.relieve()?;
        Ok(digest)
    }

    /// Keeps a copy of the file at `path`, links followed, without holding a large one in memory; returns digest and
    /// length of what was read. Durable after the next [`Store::commit`].
    ///
    /// # Errors
    /// If it is no regular file, cannot be read, or its copy cannot be written.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        self.blobs.check_synced()?;
        let (file, length) = open_source(&*self.disk, path)?;
        if length <= self.small {
            // One byte more, as it may have grown.
            let bytes = disk::read(&*file, path, self.small + 1)?;
            if bytes.len() as u64 <= self.small {
                return Ok((self.put(&bytes)?, bytes.len() as u64));
            }
        }
        let mut temp = self.temp()?;
        let (digest, bytes) = match temp.share(&*file)? {
            Some(shared) => shared,
            None => disk::hash_into(&*file, path, u64::MAX, |chunk| temp.write(chunk))?,
        };
        self.keep_large(&digest, temp, bytes)?;
        self.relieve()?;
        Ok((digest, bytes))
    }

    /// Keeps the encoding of `tree`, not its entries: put them first.
    ///
    /// # Errors
    /// If the tree breaks a rule of [`Tree::encode`], or cannot be written.
    pub fn put_tree(&self, tree: &Tree) -> Result<Digest, StoreError> {
        self.put(&tree.encode()?)
    }

    /// Makes durable what was put and restored before this call: large blobs, then small ones with one sync for all of
    /// them, then restored files.
    ///
    /// # Errors
    /// If anything of it cannot be written or synced. What a sync failed for is not kept, what else failed waits for the
    /// next commit; after a failed sync of a folder or a segment nothing is taken any more.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.commit_with(&[])
    }

    /// [`Store::commit`], and then appends records, with the same sync as the small blobs.
    pub(crate) fn commit_with(&self, records: &[NewEntry]) -> Result<(), StoreError> {
        let _one = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        self.blobs.check_synced()?;
        let pending = self.lock_pending().clone();
        self.commit_large(&pending)?;
        self.commit_small(&pending, records)?;
        self.commit_restored()
    }

    /// The bytes of a blob, verified.
    ///
    /// A medium that cannot give back the bytes, asked twice, is damage as much as one that gives back others.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Damaged`] or [`StoreError::DamagedEntry`], after which the blob is missing;
    /// or a failed file operation.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        match self.packed(digest)? {
            Some(bytes) => Ok(bytes),
            None => self.read_file(digest, |file, path, length| {
                let bytes = disk::read(file, path, length)?;
                Ok((Digest::of(&bytes), bytes))
            }),
        }
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
        matches!(self.length(digest), Ok(Some(_)))
    }

    /// Whether an artifact can be produced as far as names and lengths tell: every blob is there with its length,
    /// and every tree can be read, down to a depth of 64.
    pub fn holds(&self, artifact: &Artifact) -> bool {
        let mut visited = HashSet::new();
        let mut open = vec![(artifact.shape, artifact.digest, artifact.bytes, 0)];
        while let Some((shape, digest, bytes, depth)) = open.pop() {
            match shape {
                Shape::Blob if matches!(self.length(&digest), Ok(Some(length)) if length == bytes) => {}
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

    /// Bytes of those blobs of an artifact that are new, as `is_new` says of each when it is first met. A tree that is not
    /// new is not looked into; what cannot be read of one is not counted: it is not there.
    pub(crate) fn bytes_of_new(&self, artifact: &Artifact, mut is_new: impl FnMut(&Digest) -> bool) -> u64 {
        let mut open = vec![(artifact.shape, artifact.digest, artifact.bytes)];
        let mut total = 0;
        while let Some((shape, digest, bytes)) = open.pop() {
            match shape {
                _ if !is_new(&digest) => {}
                Shape::Blob => total += bytes,
                Shape::Tree => {
                    let tree = self.get_tree(&digest).ok();
                    open.extend(tree.iter().flat_map(|tree| &tree.entries).map(|e| (e.shape, e.digest, e.bytes)));
                }
            }
        }
        total
    }

    /// Copies a blob to `dest`, verified before it appears there, atomically; durable after the next [`Store::commit`].
    /// Missing folders are made; what is at `dest` is replaced, so the caller first moves away what must not be lost.
    /// The file gets the permissions of any new file of the user's, and never shares an inode with the store; where the
    /// file system can share bytes between files until one of them is written to, a large blob is not copied.
    ///
    /// # Errors
    /// As [`Store::get`]; `dest` is untouched then.
    pub fn restore(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        let dest = std::path::absolute(dest).map_err(failed("resolve", dest))?;
        self.lend(digest, &dest, executable)?;
        self.lock_pending().restored.insert(dest);
        Ok(())
    }

    /// [`Store::restore`] of a file that need not survive the power going: one that is removed soon.
    ///
    /// # Errors
    /// As [`Store::restore`].
    pub fn lend(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        let folder = disk::parent(dest);
        let mode = if executable { 0o777 } else { 0o666 };
        let create = || {
            self.prepare_folder(folder)?;
            Temp::create(&self.disk, folder, mode)
        };
        let temp = match self.packed(digest)? {
            Some(bytes) => {
                let mut temp = create()?;
                temp.write(&bytes)?;
                temp
            }
            None => self.read_file(digest, |file, path, length| {
                let mut temp = create()?;
                let (found, _) = match temp.share(file)? {
                    Some(shared) => shared,
                    None => disk::hash_into(file, path, length, |chunk| temp.write(chunk))?,
                };
                Ok((found, temp))
            })?,
        };
        Ok(temp.place(dest)?)
    }

    /// The digests of all blobs whose text begins with `hex`, in order. None if `hex` is no lower-case hexadecimal
    /// text.
    ///
    /// # Errors
    /// If a folder of the store cannot be listed.
    pub fn with_prefix(&self, hex: &str) -> Result<Vec<Digest>, StoreError> {
        if hex.bytes().any(|character| digest::digit(character).is_none()) {
            return Ok(Vec::new());
        }
        let mut found = self.blobs.with_prefix(hex)?;
        let pending = self.lock_pending();
        let packed = self.segments.names(Kind::Blob);
        let others = packed.iter().chain(pending.small().keys()).chain(pending.large.keys());
        found.extend(others.filter(|digest| digest.to_string().starts_with(hex)));
        Ok(found.into_iter().collect())
    }

    /// Digest and length of every blob that is a file of its own.
    pub(crate) fn large_blobs(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let digests = self.blobs.with_prefix("")?;
        let length = |digest: Digest| Ok(self.blobs.length(&digest)?.map(|length| (digest, length)));
        digests.into_iter().filter_map(|digest| length(digest).transpose()).collect()
    }

    /// Removes blobs that are files of their own. Nobody else may have the store open.
    pub(crate) fn remove_blobs(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = digests.iter().map(|digest| self.blobs.path(digest)).collect();
        self.remove_files(&paths)
    }

    /// Removes files of the store.
    pub(crate) fn remove_files(&self, paths: &[PathBuf]) -> Result<(), StoreError> {
        paths.iter().try_for_each(|path| disk::remove(&*self.disk, path)).map_err(StoreError::from)
    }

    /// The damaged files that were set aside.
    pub(crate) fn quarantined(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.root.join("quarantine");
        let names = disk::names(&*self.disk, &folder)?;
        let paths = names.into_iter().filter(|name| name != "lock").map(|name| folder.join(name));
        // A folder that lay in the place of a blob is not ours to empty.
        let is_file = |path: &PathBuf| -> Result<bool, DiskError> {
            let found = disk::look(&*self.disk, path, Links::Refuse)?;
            Ok(found.is_some_and(|found| found.kind != FileKind::Folder))
        };
        let paths = paths.map(|path| Ok(is_file(&path)?.then_some(path)));
        Ok(paths.collect::<Result<Vec<_>, DiskError>>()?.into_iter().flatten().collect())
    }

    /// The blobs that are files of their own.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The segments, which hold the records too.
    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    fn put_small(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.lock_pending().length(digest).is_some() {
            return Ok(());
        }
        // What is there and damaged must not be taken for the blob: it is written again.
        if self.segments.read(Kind::Blob, digest)? == Found::Payload(bytes.to_vec()) {
            return Ok(());
        }
        self.lock_pending().put_small(*digest, bytes);
        Ok(())
    }

    fn put_large(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.lock_pending().length(digest).is_some() {
            return Ok(());
        }
        if self.blobs.is_intact(digest, bytes.len() as u64)? {
            self.lock_pending().named.insert(*digest);
            return Ok(());
        }
        let mut temp = self.temp()?;
        temp.write(bytes)?;
        self.keep_large(digest, temp, bytes.len() as u64)
    }

    fn keep_large(&self, digest: &Digest, temp: Temp, bytes: u64) -> Result<(), StoreError> {
        temp.set_mode(0o444)?;
        self.lock_pending().large.entry(*digest).or_insert_with(|| Arc::new(Large { temp, bytes }));
        Ok(())
    }

    /// Commits when so much is pending that it should not wait.
    fn relieve(&self) -> Result<(), StoreError> {
        if self.lock_pending().is_much() { self.commit() } else { Ok(()) }
    }

    fn commit_large(&self, pending: &Pending) -> Result<(), StoreError> {
        for (digest, large) in &pending.large {
            if let Err(error) = large.temp.sync() {
                // The kernel may have dropped its pages: it is of no use any more.
                self.lock_pending().large.remove(digest);
                return Err(error.into());
            }
            self.blobs.publish(&large.temp, digest, large.bytes)?;
        }
        let mut named: BTreeSet<Digest> = std::mem::take(&mut self.lock_pending().named);
        named.extend(pending.large.keys());
        if let Err(error) = self.blobs.make_names_durable(&named) {
            self.lock_pending().named.append(&mut named);
            return Err(error);
        }
        let mut settled = self.lock_pending();
        pending.large.keys().for_each(|digest| drop(settled.large.remove(digest)));
        Ok(())
    }

    fn commit_small(&self, pending: &Pending, records: &[NewEntry]) -> Result<(), StoreError> {
        let small = pending.small().iter();
        let blobs = small.map(|(digest, bytes)| NewEntry::new(Kind::Blob, *digest, bytes));
        let entries: Vec<NewEntry> = blobs.chain(records.iter().copied()).collect();
        self.segments.append(&entries)?;
        self.lock_pending().settle_small(pending.small());
        Ok(())
    }

    fn commit_restored(&self) -> Result<(), StoreError> {
        let mut restored = std::mem::take(&mut self.lock_pending().restored);
        let synced = self.sync_restored(&mut restored);
        self.lock_pending().restored.append(&mut restored);
        synced
    }

    /// Syncs files and then their folders. What remains in `restored` has not been synced, and may be.
    fn sync_restored(&self, restored: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let mut folders = BTreeSet::new();
        for path in restored.iter() {
            folders.insert(disk::parent(path).to_owned());
            // What is not there any more, or is no file, was moved away by somebody: it is not ours to keep.
            if let Opened::Regular(file, _) = disk::open_regular(&*self.disk, path, Links::Refuse)?
                && let Err(error) = file.sync()
            {
                let path = path.clone();
                restored.remove(&path);
                return Err(failed("sync", &path)(error).into());
            }
        }
        for folder in folders {
            match disk::sync_dir(&*self.disk, &folder) {
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                synced => synced?,
            }
        }
        restored.clear();
        Ok(())
    }

    fn temp(&self) -> Result<Temp, StoreError> {
        Ok(Temp::create(&self.disk, &self.root.join("tmp"), 0o600)?)
    }

    /// The length of a blob that is pending or there.
    fn length(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let pending = self.lock_pending().length(digest);
        match pending.or_else(|| self.segments.length(Kind::Blob, digest)) {
            Some(length) => Ok(Some(length)),
            None => self.blobs.length(digest),
        }
    }

    /// The bytes of a blob that is an entry of a segment or will be one.
    fn packed(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.lock_pending().small().get(digest) {
            return Ok(Some(bytes.to_vec()));
        }
        match self.segments.read(Kind::Blob, digest)? {
            Found::Payload(bytes) => Ok(Some(bytes)),
            Found::Nothing => Ok(None),
            Found::Damaged(path) => Err(StoreError::DamagedEntry { digest: *digest, path }),
        }
    }

    /// What `read` makes of the bytes of a blob that is a file or will be one, once it has found them to have the right
    /// digest.
    fn read_file<T>(
        &self,
        digest: &Digest,
        read: impl Fn(&dyn Handle, &Path, u64) -> Result<(Digest, T), DiskError>,
    ) -> Result<T, StoreError> {
        let pending = self.lock_pending().large.get(digest).cloned();
        let Some(large) = pending else {
            return self.blobs.read(digest, read);
        };
        let path = large.temp.path();
        let file = disk::open(&*self.disk, path, Access::Read(Links::Refuse))?;
        match read(&*file, path, large.bytes)? {
            (found, value) if found == *digest => Ok(value),
            _ => {
                self.lock_pending().large.remove(digest);
                Err(StoreError::Missing { digest: *digest })
            }
        }
    }

    fn read_tree(&self, digest: &Digest) -> Result<Tree, StoreError> {
        self.check_tree_length(digest)?;
        let bytes = self.get(digest)?;
        Tree::decode(&bytes).map_err(|source| StoreError::NotATree { digest: *digest, source })
    }

    /// A blob too long to be a tree is hashed without being held in memory: it is either damaged or no tree.
    fn check_tree_length(&self, digest: &Digest) -> Result<(), StoreError> {
        let limit = MAX_TREE_BYTES as u64;
        if self.length(digest)?.is_none_or(|bytes| bytes <= limit) {
            return Ok(());
        }
        let bytes = self.read_file(digest, disk::hash)?;
        match bytes > limit {
            true => Err(StoreError::NotATree { digest: *digest, source: CodecError::TooLarge { bytes, limit }.into() }),
            false => Ok(()),
        }
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

    fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a file of the user's to be put; its length is what it was a moment ago.
fn open_source(disk: &dyn Disk, path: &Path) -> Result<(Box<dyn Handle>, u64), StoreError> {
    match disk::open_regular(disk, path, Links::Follow)? {
        Opened::Regular(file, found) => Ok((file, found.bytes)),
        Opened::Other(kind) => Err(StoreError::NotRegular { path: path.to_owned(), kind }),
        Opened::Missing => Err(failed("open", path)(io::Error::from_raw_os_error(libc::ENOENT)).into()),
    }
}

/// Makes the folders and the format file of a store, unless they are there; returns its absolute path.
fn prepare(disk: &Arc<dyn Disk>, root: &Path) -> Result<PathBuf, StoreError> {
    let root = std::path::absolute(root).map_err(failed("resolve", root))?;
    let fresh = !check_format(&**disk, &root)?;
    for folder in ["tmp", "blobs", "segments", "quarantine"] {
        disk::create_dirs(&**disk, &root.join(folder), 0o700)?;
    }
    if fresh {
        write_format(disk, &root)?;
    }
    Ok(root)
}

/// Takes the shared lock that keeps a store from being collected.
fn hold(disk: &dyn Disk, root: &Path) -> Result<Box<dyn Handle>, DiskError> {
    let path = root.join("lock");
    let file = disk::open(disk, &path, Access::Edit(0o600))?;
    disk::lock(&*file, &path, Lock::Shared)?;
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Bench {
        folder: tempfile::TempDir,
        store: Store,
    }

    /// Calls with their commit.
    trait Committed {
        fn keep(&self, bytes: &[u8]) -> Result<Digest, StoreError>;
        fn keep_file(&self, path: &Path) -> Result<(Digest, u64), StoreError>;
        fn keep_tree(&self, tree: &Tree) -> Result<Digest, StoreError>;
        fn restore_kept(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError>;
    }

    impl Committed for Store {
        fn keep(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
            self.put(bytes).and_then(|digest| self.commit().map(|()| digest))
        }

        fn keep_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
            self.put_file(path).and_then(|put| self.commit().map(|()| put))
        }

        fn keep_tree(&self, tree: &Tree) -> Result<Digest, StoreError> {
            self.put_tree(tree).and_then(|digest| self.commit().map(|()| digest))
        }

        fn restore_kept(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
            self.restore(digest, dest, executable).and_then(|()| self.commit())
        }
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            // Every blob that has bytes is a file of its own.
            let store = Store::open(&folder.path().join("store")).unwrap().with_small(0);
            Bench { folder, store }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Puts `content` and then exchanges the blob's bytes for `damaged`.
        fn damaged(&self, content: &[u8], damaged: &[u8]) -> Digest {
            let digest = self.store.keep(content).unwrap();
            let path = self.store.blobs.path(&digest);
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
            self.store.keep(content).unwrap();
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
        let store = Store::open(folder.path()).unwrap().with_small(0);
        let digest = store.keep(b"right").unwrap();
        let path = store.blobs.path(&digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"wrong").unwrap();
        assert_eq!(store.keep(b"right").unwrap(), digest);
        assert_eq!(store.get(&digest).unwrap(), b"right");
    }

    #[test]
    fn bytes_come_back() {
        let bench = Bench::new();
        for content in [&b""[..], b"x", &[7; 3 << 20]] {
            let digest = bench.store.keep(content).unwrap();
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
        assert_eq!(fs::read(root.join("format")).unwrap(), b"headwater-store 2\n");
        let text = bench.store.keep(b"content").unwrap().to_string();
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
        let error = bench.store.restore_kept(&digest, &dest, false).unwrap_err();
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
        let digest = bench.store.keep(b"abc").unwrap();
        let path = bench.store.blobs.path(&digest);
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
        bench.store.keep(b"content").unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
        assert_eq!(bench.quarantined().len(), 1);
    }

    #[test]
    fn a_good_blob_that_took_the_place_of_a_damaged_one_is_not_set_aside() {
        let bench = Bench::new();
        let digest = bench.damaged(b"content", b"CONTENT");
        let (_held_open, seen) = bench.store.blobs.open(&digest).unwrap();
        fs::remove_file(bench.store.blobs.path(&digest)).unwrap();
        bench.store.keep(b"content").unwrap();
        bench.store.blobs.condemn(&digest, &seen).unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_file_is_put_as_its_bytes() {
        let bench = Bench::new();
        let path = bench.path("file");
        for content in [&b""[..], b"some content", &[3; (2 << 20) + 5]] {
            fs::write(&path, content).unwrap();
            let expected = (Digest::of(content), content.len() as u64);
            assert_eq!(bench.store.keep_file(&path).unwrap(), expected);
            assert_eq!(bench.store.get(&expected.0).unwrap(), content);
        }
    }

    #[test]
    fn only_a_regular_file_is_put() {
        let bench = Bench::new();
        let folder = bench.folder.path();
        assert_eq!(
            bench.store.keep_file(folder).unwrap_err().to_string(),
            format!("{} is a directory, not a regular file", folder.display())
        );
        let error = bench.store.keep_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /no/such/file: No such file or directory (os error 2)");
    }

    #[test]
    fn a_put_file_shares_no_inode_with_the_store() {
        let bench = Bench::new();
        let path = bench.path("file");
        fs::write(&path, b"content").unwrap();
        let (digest, _) = bench.store.keep_file(&path).unwrap();
        fs::write(&path, b"written to afterwards").unwrap();
        assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_tree_comes_back_and_is_read_once() {
        let bench = Bench::new();
        let tree = tree(&["a", "b"]);
        let digest = bench.store.keep_tree(&tree).unwrap();
        let first = bench.store.get_tree(&digest).unwrap();
        assert_eq!(*first, tree);
        fs::remove_file(bench.store.blobs.path(&digest)).unwrap();
        assert!(Arc::ptr_eq(&first, &bench.store.get_tree(&digest).unwrap()));
    }

    #[test]
    fn bytes_that_are_no_tree_are_named_and_stay() {
        let bench = Bench::new();
        let digest = bench.store.keep(b"no tree at all").unwrap();
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
        let digest = bench.store.keep_tree(&tree(&["a"])).unwrap();
        let path = bench.store.blobs.path(&digest);
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
            bench.store.keep_tree(&tree(&["a", "a"])).unwrap_err().to_string(),
            "two entries of the tree are named \"a\""
        );
        assert!(bench.store.with_prefix("").unwrap().is_empty());
    }

    #[test]
    fn an_artifact_is_held_only_if_every_part_is_there() {
        let bench = Bench::new();
        let store = &bench.store;
        let inner = tree(&["a", "b"]);
        let sub = Entry { shape: Shape::Tree, digest: store.keep_tree(&inner).unwrap(), ..entry("sub", b"") };
        let outer = Tree { header: String::new(), entries: vec![sub, entry("c", b"c")] };
        let whole = artifact(Shape::Tree, store.keep_tree(&outer).unwrap(), 3);
        assert!(!store.holds(&whole));
        let digests = [b"a", b"b", b"c"].map(|content| store.keep(content).unwrap());
        assert!(store.holds(&whole));
        let parts = digests.iter().chain([&whole.digest, &outer.entries[0].digest]);
        for digest in parts {
            let (path, away) = (store.blobs.path(digest), bench.path("away"));
            fs::rename(&path, &away).unwrap();
            assert!(!store.holds(&whole), "without {digest}");
            fs::rename(&away, &path).unwrap();
        }
        assert!(store.holds(&whole));
    }

    #[test]
    fn a_blob_of_another_length_is_not_held() {
        let bench = Bench::new();
        let digest = bench.store.keep(b"abc").unwrap();
        assert!(bench.store.holds(&artifact(Shape::Blob, digest, 3)));
        assert!(!bench.store.holds(&artifact(Shape::Blob, digest, 4)));
    }

    /// A chain of trees, each with the one before it twice.
    fn chain(store: &Store, length: usize) -> Artifact {
        let mut last = Digest::of(b"");
        let mut shape = Shape::Blob;
        store.keep(b"").unwrap();
        for _ in 0..length {
            let part = |name| Entry { digest: last, shape, ..entry(name, b"") };
            let entries = vec![part("left"), part("right")];
            last = store.keep_tree(&Tree { header: String::new(), entries }).unwrap();
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
        let digest = bench.store.keep(b"content").unwrap();
        let (plain, program) = (bench.path("new/folder/plain"), bench.path("program"));
        bench.store.restore_kept(&digest, &plain, false).unwrap();
        bench.store.restore_kept(&digest, &program, true).unwrap();
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
        let digest = bench.store.keep(b"content").unwrap();
        let (target, link) = (bench.path("target"), bench.path("link"));
        fs::write(&target, b"mine").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        bench.store.restore_kept(&digest, &link, false).unwrap();
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
        let error = bench.store.restore_kept(&digest, &dest, false).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&dest).unwrap(), b"before");
        assert_eq!(disk::names(&RealDisk, &bench.path("dest")).unwrap(), ["file"]);
    }

    #[test]
    fn a_restore_clears_what_a_killed_one_left() {
        let bench = Bench::new();
        let digest = bench.store.keep(b"content").unwrap();
        let left = bench.path(&format!(".headwater-{}.tmp", disk::random_name()));
        fs::write(&left, b"half of the cont").unwrap();
        bench.store.restore_kept(&digest, &bench.path("dest"), false).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn digests_are_found_by_any_prefix_in_order() {
        let bench = Bench::new();
        let mut all: Vec<_> = (0..40u8).map(|i| bench.store.keep(&[i]).unwrap()).collect();
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
        let digest = bench.store.keep(b"content").unwrap();
        let folder = bench.store.blobs.path(&digest);
        fs::write(folder.with_file_name("notes"), b"").unwrap();
        fs::write(bench.store.root.join("blobs/README"), b"").unwrap();
        assert_eq!(bench.store.with_prefix("").unwrap(), [digest]);
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), b"headwater-store 3\n").unwrap();
        assert_eq!(
            Store::open(folder.path()).unwrap_err().to_string(),
            format!("the store {} has format version 3, this program reads version 2", folder.path().display())
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
        let digest = bench.store.keep(b"content").unwrap();
        fs::remove_file(root.join("format")).unwrap();
        fs::remove_dir_all(root.join("quarantine")).unwrap();
        let again = Store::open(root).unwrap();
        assert!(root.join("format").exists() && root.join("quarantine").exists());
        assert_eq!(again.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn opening_sweeps_the_temps_of_the_dead_and_not_those_of_the_living() {
        let bench = Bench::new();
        let digest = bench.store.put(b"content").unwrap();
        let tmp = bench.store.root.join("tmp");
        let dead = tmp.join(format!(".headwater-{}.tmp", disk::random_name()));
        fs::write(&dead, b"half").unwrap();
        let _again = Store::open(bench.store.root()).unwrap();
        assert!(!dead.exists());
        bench.store.commit().unwrap();
        assert!(bench.store.contains(&digest));
    }

    #[test]
    fn after_a_failed_sync_nothing_is_put() {
        let bench = Bench::new();
        let digest = bench.store.keep(b"before").unwrap();
        bench.store.blobs.fail_sync();
        let text = format!("the store {} takes nothing more: an earlier sync failed", bench.store.root().display());
        assert_eq!(bench.store.keep(b"before").unwrap_err().to_string(), text);
        let error = bench.store.keep_file(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(bench.store.get(&digest).unwrap(), b"before");
    }

    /// A store in memory, made before anything fails, on a disk where those calls fail that `decide` chooses.
    fn failing(decide: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> (ForgetfulDisk, Store) {
        let memory = ForgetfulDisk::new();
        Store::open_on(Arc::new(memory.clone()), Path::new("/store")).unwrap();
        let disk = FailingDisk::new(Arc::new(memory.clone()), decide);
        (memory, Store::open_on(Arc::new(disk), Path::new("/store")).unwrap().with_small(0))
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
        let error = store.keep(b"content").unwrap_err().to_string();
        let folder = format!("/store/blobs/{}", &Digest::of(b"content").to_string()[..2]);
        assert_eq!(error, format!("cannot sync directory {folder}: Input/output error (os error 5)"));
        for content in [&b"content"[..], b"other"] {
            let error = store.keep(content).unwrap_err();
            assert!(matches!(error, StoreError::SyncFailed { .. }), "{error}");
        }
        let again = Store::open_on(Arc::new(memory), Path::new("/store")).unwrap();
        again.keep(b"content").unwrap();
    }

    #[test]
    fn a_failed_sync_of_a_blob_costs_that_put_and_no_other() {
        let (memory, store) = failing(first(1, "sync", ".tmp", libc::ENOSPC));
        assert!(store.keep(b"content").is_err());
        assert!(!store.contains(&Digest::of(b"content")));
        assert!(disk::names(&memory, Path::new("/store/tmp")).unwrap().is_empty());
        let digest = store.keep(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn no_descriptor_left_to_sync_a_folder_with_is_no_failed_sync() {
        let (_, store) = failing(first(1, "open", "/blobs/", libc::EMFILE));
        assert!(store.keep(b"content").is_err());
        let digest = store.keep(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
    }

    #[test]
    fn a_blob_that_the_medium_cannot_give_back_is_damage() {
        for errno in [libc::EIO, libc::EUCLEAN, libc::EBADMSG] {
            let (memory, store) = failing(first(4, "read_at", "/blobs/", errno));
            let digest = store.keep(b"content").unwrap();
            let error = store.get(&digest).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { digest: named, .. } if named == digest), "{error}");
            store.keep(b"content").unwrap();
            let error = store.restore_kept(&digest, Path::new("/out/file"), false).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(disk::names(&memory, Path::new("/out")).unwrap().is_empty());
            store.keep(b"content").unwrap();
            assert_eq!(store.get(&digest).unwrap(), b"content");
        }
    }

    #[test]
    fn a_read_that_fails_once_is_no_damage() {
        let (memory, store) = failing(first(1, "read_at", "/blobs/", libc::EIO));
        let digest = store.keep(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
        assert!(disk::names(&memory, Path::new("/store/quarantine")).unwrap().is_empty());
    }

    #[test]
    fn a_read_that_fails_for_another_reason_is_an_error_and_no_damage() {
        let (memory, store) = failing(first(usize::MAX, "read_at", "/blobs/", libc::ENOMEM));
        let digest = store.keep(b"content").unwrap();
        let text = store.get(&digest).unwrap_err().to_string();
        assert_eq!(
            text,
            format!("cannot read {}: Cannot allocate memory (os error 12)", store.blobs.path(&digest).display())
        );
        assert!(memory.look(&store.blobs.path(&digest), Links::Refuse).is_ok());
    }

    #[test]
    fn a_target_that_cannot_be_written_is_no_damage_of_the_blob() {
        let (_, store) = failing(first(1, "write_at", "/out/", libc::EIO));
        let digest = store.keep(b"content").unwrap();
        let error = store.restore_kept(&digest, Path::new("/out/file"), false).unwrap_err();
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
            let store = Store::open_on(Arc::new(disk.clone()), Path::new("/a/store")).unwrap().with_small(0);
            let digest = store.keep(b"content").unwrap();
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
        let digest = store.keep(b"content").unwrap();
        // What opening the store synced is not what counts.
        disk.create_dir(Path::new("/out/deep"), 0o700).unwrap();
        store.restore_kept(&digest, Path::new("/out/deep/file"), false).unwrap();
        for crashed in disk.crashes(64, 0) {
            assert!(crashed.look(Path::new("/out/deep/file"), Links::Refuse).is_ok());
        }
    }

    #[test]
    fn a_file_restored_into_a_folder_that_was_made_again_survives_a_crash() {
        let disk = ForgetfulDisk::new();
        let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
        let digest = store.keep(b"content").unwrap();
        store.restore_kept(&digest, Path::new("/out/file"), false).unwrap();
        disk.rename(Path::new("/out"), Path::new("/away")).unwrap();
        store.restore_kept(&digest, Path::new("/out/file"), false).unwrap();
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
                for name in ["format", "lock", "quarantine", "blobs", "segments", "tmp"] {
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
        let other = Store::open(bench.store.root()).unwrap().with_small(0);
        std::thread::scope(|scope| {
            for store in [&bench.store, &other, &bench.store, &other] {
                scope.spawn(move || {
                    for i in 0..20u8 {
                        let content = [i; 100];
                        let digest = store.keep(&content).unwrap();
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
                        bench.store.keep(b"content").unwrap();
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
