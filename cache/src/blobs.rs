//! `Blobs`: large blobs, each a file under its digest.
//!
//! Does not know which blobs are large, nor what waits for a commit.
//!
//! Invariants: nothing has a name here before its content is durable; a blob is never written again, never replaced, and
//! shares no inode with a file outside; no byte leaves without being hashed on the way; what is damaged is moved to
//! `quarantine/`, so that it can be made again, and never deleted. The move and the check before it hold a kernel lock,
//! so a good blob that has just taken the place of a damaged one stays.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::Digest;
use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Lock, Meta, Opened, Syncs, Temp, failed};
use crate::store::{QUARANTINE, StoreError};
use crate::threads::waiting;

/// How often a blob that another process exchanges meanwhile is looked at again.
const ATTEMPTS: usize = 8;

/// Fewer folders than this are not worth the threads.
const SYNCED_BY_ONE: usize = 16;

/// The folder `blobs/` of a store, and its `quarantine/`.
#[derive(Debug)]
pub(crate) struct Blobs {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Which of the 256 folders of `blobs/` this process knows to be durable.
    folders: [AtomicBool; 256],
    syncs: Syncs,
}

impl Blobs {
    /// The blobs of the store in the folder `root`.
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Blobs {
        Blobs { disk, root, folders: [const { AtomicBool::new(false) }; 256], syncs: Syncs::default() }
    }

    /// Where the blob lies, if it is there.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (folder, rest) = text.split_at(2);
        self.root.join("blobs").join(folder).join(rest)
    }

    /// An error if an earlier sync of a folder failed: which names are durable is not known any more.
    pub(crate) fn check_synced(&self) -> Result<(), StoreError> {
        if self.syncs.have_failed() {
            let root = self.root.clone();
            return Err(StoreError::SyncFailed { root });
        }
        Ok(())
    }

    /// The length of the regular file in the place of the blob, if there is one.
    pub(crate) fn length(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.look(digest)?.filter(Meta::is_file).map(|found| found.bytes))
    }

    /// Whether the blob is there with the right bytes. A put that trusted a damaged one would leave its maker running
    /// again and again; what is damaged is moved to `quarantine/`.
    pub(crate) fn is_intact(&self, digest: &Digest, bytes: u64) -> Result<bool, StoreError> {
        if self.length(digest)? != Some(bytes) {
            return Ok(false);
        }
        match self.read(digest, disk::hash) {
            Ok(_) => Ok(true),
            Err(error) if error.lost().is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the first bytes of a blob are these; nothing is verified.
    pub(crate) fn begin_with(&self, digest: &Digest, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        let opened = disk::open_regular(&*self.disk, &self.path(digest), Links::Refuse);
        matches!(opened, Ok(Opened::Regular(file, _)) if disk::fill(&*file, &mut found, 0).is_ok()) && found == bytes
    }

    /// Whether what lies in the place of the blob has its digest. Nothing is moved.
    pub(crate) fn matches(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.path(digest);
        let Opened::Regular(file, found) = disk::open_regular(&*self.disk, &path, Links::Refuse)? else {
            return Ok(false);
        };
        let hashed = disk::asked_twice(|| disk::hash(&*file, &path, found.bytes))?;
        Ok(hashed.is_some_and(|(hashed, _)| hashed == *digest))
    }

    /// Gives a temp whose content is durable its place, unless the blob is there already. The name is durable after
    /// [`Blobs::make_names_durable`].
    pub(crate) fn publish(&self, temp: &Temp, digest: &Digest, bytes: u64) -> Result<(), StoreError> {
        let path = self.path(digest);
        if disk::create_dir(&*self.disk, disk::parent(&path), 0o700)? {
            self.name_of_folder(digest).store(false, Ordering::Release);
        }
        for _ in 0..ATTEMPTS {
            if temp.publish(&path)? || self.is_intact(digest, bytes)? {
                return Ok(());
            }
            self.set_aside(digest, |found| !found.is_file() || found.bytes != bytes)?;
        }
        let taken = io::ErrorKind::AlreadyExists.into();
        Err(failed("publish", &path)(taken).into())
    }

    /// Syncs the folders of blobs, and once in a process the names of these folders: whoever made any of them may have
    /// died before syncing it.
    pub(crate) fn make_names_durable(&self, digests: &BTreeSet<Digest>) -> Result<(), StoreError> {
        let folders: BTreeSet<PathBuf> =
            digests.iter().map(|digest| disk::parent(&self.path(digest)).to_owned()).collect();
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        match folders.len() > SYNCED_BY_ONE {
            true => {
                waiting(&folders, |folder| self.sync_dir(folder)).into_iter().collect::<Result<(), StoreError>>()?
            }
            false => folders.iter().try_for_each(|folder| self.sync_dir(folder))?,
        }
        if digests.iter().any(|digest| !self.name_of_folder(digest).load(Ordering::Acquire)) {
            self.sync_dir(&self.root.join("blobs"))?;
            digests.iter().for_each(|digest| self.name_of_folder(digest).store(true, Ordering::Release));
        }
        Ok(())
    }

    /// What `read` makes of a blob's bytes, once it has found them to have the right digest.
    ///
    /// A medium that cannot give back the bytes, asked twice, is damage as much as one that gives back others.
    pub(crate) fn read<T>(
        &self,
        digest: &Digest,
        read: impl Fn(&dyn Handle, &Path, u64) -> Result<(Digest, T), DiskError>,
    ) -> Result<T, StoreError> {
        let path = self.path(digest);
        for attempt in 0..ATTEMPTS {
            let (file, seen) = self.open(digest)?;
            match read(&*file, &path, seen.bytes) {
                Ok((found, value)) if found == *digest => return Ok(value),
                Err(error) if error.path != path || !error.is_of_the_medium() => return Err(error.into()),
                // A fault that passes is no damage.
                Err(_) if attempt == 0 => {}
                Ok(_) | Err(_) => self.condemn(digest, &seen)?,
            }
        }
        Err(StoreError::Missing { digest: *digest })
    }

    /// The digests of all blobs whose text begins with `hex`, which is hexadecimal.
    pub(crate) fn with_prefix(&self, hex: &str) -> Result<BTreeSet<Digest>, StoreError> {
        let mut found = BTreeSet::new();
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

    /// Opens a blob for reading; what is no regular file is damage.
    pub(crate) fn open(&self, digest: &Digest) -> Result<(Box<dyn Handle>, Meta), StoreError> {
        for _ in 0..ATTEMPTS {
            match disk::open_regular(&*self.disk, &self.path(digest), Links::Refuse)? {
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

    #[cfg(test)]
    pub(crate) fn fail_sync(&self) {
        self.syncs.fail();
    }

    /// Moves the file that was `seen` to hold wrong bytes away and reports it; `Ok` if another lies in its place by
    /// now, which deserves a look of its own.
    pub(crate) fn condemn(&self, digest: &Digest, seen: &Meta) -> Result<(), StoreError> {
        let same = |found: &Meta| (found.device, found.inode) == (seen.device, seen.inode);
        match self.set_aside(digest, same)? {
            Some(path) => Err(StoreError::Damaged { digest: *digest, path }),
            None => Ok(()),
        }
    }

    /// Moves what lies in the place of a blob to `quarantine/` if it `is_bad`; returns where it is then.
    fn set_aside(&self, digest: &Digest, is_bad: impl Fn(&Meta) -> bool) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.root.join(QUARANTINE);
        let _lock = self.lock(&folder.join("lock"))?;
        let path = self.path(digest);
        if !self.look(digest)?.is_some_and(|found| is_bad(&found)) {
            return Ok(None);
        }
        Ok(Some(disk::set_aside(&*self.disk, &path, &folder, &digest.to_string())?))
    }

    /// What lies in the place of a blob.
    pub(crate) fn look(&self, digest: &Digest) -> Result<Option<Meta>, StoreError> {
        Ok(disk::look(&*self.disk, &self.path(digest), Links::Refuse)?)
    }

    /// Holds the kernel's lock on the file at `path` for as long as the returned file is open.
    fn lock(&self, path: &Path) -> Result<Box<dyn Handle>, DiskError> {
        let file = disk::open(&*self.disk, path, Access::Edit(0o600))?;
        disk::lock(&*file, path, Lock::Exclusive)?;
        Ok(file)
    }

    /// Syncs a folder of the store. No descriptor left is no failed sync: it may be tried again.
    fn sync_dir(&self, folder: &Path) -> Result<(), StoreError> {
        self.check_synced()?;
        let handle = disk::open(&*self.disk, folder, Access::Read(Links::Follow))?;
        Ok(self.syncs.sync(&*handle, folder, "sync directory")?)
    }

    /// Whether the name of the folder that holds the blob is known to be durable.
    fn name_of_folder(&self, digest: &Digest) -> &AtomicBool {
        &self.folders[usize::from(digest.as_bytes()[0])]
    }
}
