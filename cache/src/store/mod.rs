//! `Store`: bytes kept under their digest, and trees of them.
//!
//! Does not know stages or keys, nor what any bytes mean. Small blobs are entries of [`Segments`], large ones files of
//! their own in [`Blobs`]; this file decides which is which. Its parts: `layout`, its folder; `commit`, when what was put
//! becomes durable; `restore`, blobs as files elsewhere.
//!
//! Invariants: what is put or restored is visible to this process at once, and durable when a commit of it has returned; no
//! other process sees a blob before it is durable; no byte leaves the store without being hashed on the way (a file
//! that is handed out, before that), and a restored file appears only after its hash was found right. A store that is
//! open is held with the kernel's shared lock, so that nothing is collected meanwhile.

mod commit;
mod layout;
mod restore;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::blobs::Blobs;
use crate::codec::CodecError;
use crate::digest::{self, Digest};
use crate::disk::{self, Access, Disk, DiskError, FileKind, Handle, Links, Meta, Opened, RealDisk, Temp, failed};
use crate::entry::Kind;
use crate::fingerprint::{Fingerprint, Moment, SETTLED_SECONDS};
use crate::open::Seen;
use crate::pending::{Large, Pending};
use crate::segments::{Found, SegmentError, Segments};
use crate::tree::{Artifact, MAX_TREE_BYTES, Shape, Tree, TreeError};

use layout::{GRAVES, Graves, Held};
pub(crate) use layout::{QUARANTINE, open_lock};

/// Trees within trees, at most.
const MAX_DEPTH: usize = 64;
/// Trees are kept in memory until they have more entries than this together.
const MAX_KNOWN_ENTRIES: usize = 1 << 20;
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
    /// What was to be where nothing is would replace something.
    #[error("{path} is there, and was not a moment ago: another program makes it", path = path.display())]
    Taken {
        /// The path.
        path: PathBuf,
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
    /// A file can be locked by two at once.
    #[error(
        "locks keep nobody out on the file system of {path}, so that programs could destroy each other's work; keep the store on another: HEADWATER_STORE, or `path` in [store]",
        path = path.display()
    )]
    NoLocks {
        /// The file that was locked.
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
    trees: RwLock<Trees>,
    /// Folders outside of the store where leftovers of restores were looked for.
    swept: Mutex<HashSet<PathBuf>>,
    /// The files that were verified to be handed out.
    pub(crate) seen: Seen,
    /// Keeps the store from being collected.
    held: Held,
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
        let root = layout::prepare(&disk, root)?;
        let held = layout::hold(&*disk, &root)?;
        Store::held(disk, root, held)
    }

    /// Whether nothing can be written to the store: what is in it can be used.
    pub fn is_read_only(&self) -> bool {
        self.held.is_read_only
    }

    /// Files and folders of the store whose times change whenever anything is recorded, put as a file of its own, or removed:
    /// its segments, the folders of large blobs, and its format.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn landmarks(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.root.join("segments");
        let segments = disk::names(&*self.disk, &folder)?.into_iter().filter(|name| name.ends_with(".seg"));
        let segments = segments.map(|name| folder.join(name));
        let blobs = self.root.join("blobs");
        let folders = disk::names(&*self.disk, &blobs)?.into_iter().map(|name| blobs.join(name));
        Ok(segments.chain(folders).chain([self.root.join("format")]).collect())
    }

    /// Opens the store for nobody else; `None` if somebody has it open.
    pub(crate) fn open_alone(disk: Arc<dyn Disk>, root: &Path) -> Result<Option<Store>, StoreError> {
        let root = layout::prepare(&disk, root)?;
        match layout::hold_alone(&*disk, &root)? {
            Some(held) => Ok(Some(Store::held(disk, root, held)?)),
            None => Ok(None),
        }
    }

    /// What lies in a folder is read only once the folder is held.
    fn held(disk: Arc<dyn Disk>, root: PathBuf, held: Held) -> Result<Store, StoreError> {
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
            held,
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
        match self.is_small(bytes.len() as u64) {
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
        if self.is_small(length) {
            // What has grown meanwhile is taken as what it may become.
            let put = |bytes: &[u8]| (bytes.len() as u64 <= length).then(|| (self.put(bytes), bytes.len() as u64));
            if let Some((digest, bytes)) = disk::with_bytes(&*file, path, length as usize + 1, put)? {
                return Ok((digest?, bytes));
            }
        }
        let mut temp = self.temp()?;
        let (digest, bytes) = match temp.share(&*file)? {
            Some(shared) => shared,
            None => temp.write_all(|sink| disk::hash_into(&*file, path, u64::MAX, sink))?,
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

    /// A tree, verified; it is not read again as long as there is room for it.
    ///
    /// # Errors
    /// As [`Store::get`]; and [`StoreError::NotATree`] if the bytes are intact but no tree.
    pub fn get_tree(&self, digest: &Digest) -> Result<Arc<Tree>, StoreError> {
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.known.get(digest) {
            return Ok(tree.clone());
        }
        drop(trees);
        let tree = Arc::new(self.read_tree(digest)?);
        let mut trees = self.trees.write().unwrap_or_else(PoisonError::into_inner);
        trees.keep(*digest, &tree);
        Ok(tree)
    }

    /// Whether there is a blob of this digest. Its bytes are not looked at.
    pub fn contains(&self, digest: &Digest) -> bool {
        matches!(self.length(digest), Ok(Some(_)))
    }

    /// [`Store::contains`], and after the next [`Store::commit`] it is durable, whoever has put it.
    pub fn contains_for_good(&self, digest: &Digest) -> bool {
        if self.lock_pending().length(digest).is_some() || self.segments.length(Kind::Blob, digest).is_some() {
            return true;
        }
        let Ok(Some(found)) = self.blobs.look(digest) else { return false };
        // Whoever made it may have died before its name was durable, if that is not long ago.
        if Fingerprint::of(&found).changed.plus(SETTLED_SECONDS) > Moment::now() {
            self.lock_pending().named.insert(*digest);
        }
        found.is_file()
    }

    /// Whether the store has the blob, durably: every byte of it is looked at, so that what else has its bytes may go.
    ///
    /// # Errors
    /// If it cannot be read or made durable.
    pub fn keeps(&self, digest: &Digest) -> Result<bool, StoreError> {
        let keeps = match self.packed(digest) {
            Ok(Some(_)) => true,
            Ok(None) => self.keeps_large(digest)?,
            Err(error) if error.lost().is_some() => false,
            Err(error) => return Err(error),
        };
        self.commit()?;
        // Somebody else's commit may have failed to sync it, and given it up.
        Ok(keeps && self.length(digest)?.is_some())
    }

    fn keeps_large(&self, digest: &Digest) -> Result<bool, StoreError> {
        if self.lock_pending().length(digest).is_some() {
            return Ok(true);
        }
        let intact = match self.blobs.length(digest)? {
            Some(bytes) => self.blobs.is_intact(digest, bytes)?,
            None => false,
        };
        if intact {
            // Whoever made it may have died before its name was durable.
            self.lock_pending().named.insert(*digest);
        }
        Ok(intact)
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
    /// new is not looked into; one that is damaged or missing has nothing.
    pub(crate) fn bytes_of_new(
        &self,
        artifact: &Artifact,
        mut is_new: impl FnMut(&Digest) -> bool,
    ) -> Result<u64, StoreError> {
        let mut open = vec![(artifact.shape, artifact.digest, artifact.bytes)];
        let mut total = 0;
        while let Some((shape, digest, bytes)) = open.pop() {
            match shape {
                _ if !is_new(&digest) => {}
                Shape::Blob => total = u64::saturating_add(total, bytes),
                Shape::Tree => match self.read_tree(&digest) {
                    Ok(tree) => open.extend(tree.entries.iter().map(|e| (e.shape, e.digest, e.bytes))),
                    Err(StoreError::NotATree { .. }) => {}
                    Err(error) if error.lost().is_some() => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(total)
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

    /// Buries blobs that are files of their own. Nobody else may have the store open.
    pub(crate) fn bury_blobs(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = digests.iter().map(|digest| self.blobs.path(digest)).collect();
        self.bury(&paths)
    }

    /// Moves files of the store to where they are to be removed: see [`Store::graves`].
    pub(crate) fn bury(&self, paths: &[PathBuf]) -> Result<(), StoreError> {
        Ok(self.graves().take(paths)?)
    }

    /// What is not of the store any more and still takes room.
    pub(crate) fn graves(&self) -> Graves {
        Graves { disk: self.disk.clone(), folder: self.root.join(GRAVES) }
    }

    /// The damaged files that were set aside.
    pub(crate) fn quarantined(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.root.join(QUARANTINE);
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

    /// Nobody else reads a list of uses to write the next one as long as this lives.
    pub(crate) fn lock_uses(&self) -> Result<Box<dyn Handle>, StoreError> {
        Ok(layout::hold_uses(&*self.disk, &self.root)?)
    }

    /// The blobs that are files of their own.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The segments, which hold the records too.
    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Whether a blob of this length is an entry of a segment.
    pub(crate) fn is_small(&self, bytes: u64) -> bool {
        bytes <= self.small
    }

    fn put_small(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.lock_pending().length(digest).is_some() {
            return Ok(());
        }
        // What is there and damaged must not be taken for the blob: it is written again.
        if matches!(self.segments.read(Kind::Blob, digest)?, Found::Payload(found) if found == bytes) {
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
        temp.write_all(|sink| bytes.chunks(disk::HANDED_ON).try_for_each(sink))?;
        self.keep_large(digest, temp, bytes.len() as u64)
    }

    fn keep_large(&self, digest: &Digest, temp: Temp, bytes: u64) -> Result<(), StoreError> {
        temp.set_mode(0o444)?;
        self.lock_pending().large.entry(*digest).or_insert_with(|| Arc::new(Large { temp, bytes }));
        Ok(())
    }

    fn temp(&self) -> Result<Temp, StoreError> {
        Ok(Temp::create(&self.disk, &self.root.join("tmp"), 0o600)?)
    }

    /// The length of a blob that is pending or there.
    pub(crate) fn length(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
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
    pub(crate) fn read_file<T>(
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

    /// Opens a blob that is a file or will be one.
    pub(crate) fn open_file(&self, digest: &Digest) -> Result<(Box<dyn Handle>, Meta), StoreError> {
        let pending = self.lock_pending().large.get(digest).cloned();
        let Some(large) = pending else {
            return self.blobs.open(digest);
        };
        let file = disk::open(&*self.disk, large.temp.path(), Access::Read(Links::Refuse))?;
        let found = disk::look_at(&*file, large.temp.path())?;
        Ok((file, found))
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

    fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Trees in memory.
#[derive(Debug, Default)]
struct Trees {
    known: HashMap<Digest, Arc<Tree>>,
    /// Entries of all of them.
    entries: usize,
}

impl Trees {
    /// Keeps a tree, and forgets all others if they have too many entries.
    fn keep(&mut self, digest: Digest, tree: &Arc<Tree>) {
        if self.known.contains_key(&digest) {
            return;
        }
        if self.entries + tree.entries.len() > MAX_KNOWN_ENTRIES {
            *self = Trees::default();
        }
        self.entries += tree.entries.len();
        self.known.insert(digest, tree.clone());
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

#[cfg(test)]
mod tests;
