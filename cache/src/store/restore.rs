//! Blobs as files outside of the store: written, moved or lent to their places, and made durable there.
//!
//! Does not know what the files are for. Invariants: a restored file appears whole and verified, and never shares an inode with
//! the store; it is durable when a [`Store::commit_restored`] has returned.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::{Store, StoreError};
use crate::digest::Digest;
use crate::disk::{self, Access, DiskError, Links, Opened, Temp, failed};

/// Restored files that are synced one by one. What others have written to the file system is no reason to wait for as long
/// as there are few.
pub(super) const SYNCED_ALONE: usize = 32;

impl Store {
    /// Copies a blob to `dest`, verified before it appears there, atomically; durable after the next
    /// [`Store::commit_restored`].
    /// Missing folders are made; what is at `dest` is replaced, so the caller first moves away what must not be lost.
    /// The file gets the permissions of any new file of the user's, and never shares an inode with the store; where the
    /// file system can share bytes between files until one of them is written to, a large blob is not copied.
    ///
    /// # Errors
    /// As [`Store::get`]; `dest` is untouched then.
    pub fn restore(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        let (temp, dest) = self.written_beside(digest, dest, executable)?;
        temp.place(&dest)?;
        self.lock_pending().restored.insert(dest);
        Ok(())
    }

    /// [`Store::restore`] to where nothing is.
    ///
    /// # Errors
    /// As [`Store::restore`]; [`StoreError::Taken`] if something is there by now, which stays.
    pub fn restore_new(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        let (temp, dest) = self.written_beside(digest, dest, executable)?;
        if !temp.place_new(&dest)? {
            return Err(StoreError::Taken { path: dest });
        }
        self.lock_pending().restored.insert(dest);
        Ok(())
    }

    /// A blob as a temp in the folder of its place, and that place.
    fn written_beside(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(Temp, PathBuf), StoreError> {
        let dest = std::path::absolute(dest).map_err(failed("resolve", dest))?;
        let folder = disk::parent(&dest);
        let create = || {
            self.prepare_folder(folder)?;
            Temp::create(&self.disk, folder, disk::new_mode(executable))
        };
        Ok((self.write_out(digest, create)?, dest))
    }

    /// Moves a file to `dest` whose bytes the caller knows to be those of a blob, and which nobody changes any more: what
    /// [`Store::restore_new`] of that blob would do with a copy. `false` if it cannot be moved there.
    ///
    /// # Errors
    /// If the folder of `dest` cannot be made.
    pub fn move_restored(&self, file: &Path, dest: &Path) -> Result<bool, StoreError> {
        let dest = std::path::absolute(dest).map_err(failed("resolve", dest))?;
        self.prepare_folder(disk::parent(&dest))?;
        let moved = self.disk.rename_new(file, &dest).is_ok();
        if moved {
            self.lock_pending().restored.insert(dest);
        }
        Ok(moved)
    }

    /// [`Store::restore`] of a file that need not survive the power going, in a folder that is there and that nobody else
    /// uses yet: it may be seen while it is written.
    ///
    /// # Errors
    /// As [`Store::restore`]; nothing is at `dest` then.
    pub fn lend(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        let temp = self.write_out(digest, || Temp::create_at(&self.disk, dest, disk::new_mode(executable)))?;
        temp.stay();
        Ok(())
    }

    /// Writes a blob to a temp, which is made once the bytes are known to be there.
    fn write_out(&self, digest: &Digest, create: impl Fn() -> Result<Temp, DiskError>) -> Result<Temp, StoreError> {
        match self.packed(digest)? {
            Some(bytes) => {
                let mut temp = create()?;
                temp.write(&bytes)?;
                Ok(temp)
            }
            None => self.read_file(digest, |file, path, length| {
                let mut temp = create()?;
                let (found, _) = match temp.share(file)? {
                    Some(shared) => shared,
                    None => disk::hash_into(file, path, length, |chunk| temp.write(chunk))?,
                };
                Ok((found, temp))
            }),
        }
    }

    /// Makes a folder in which something is restored, and those that it lies in, durably.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let folder = std::path::absolute(folder).map_err(failed("resolve", folder))?;
        Ok(self.prepare_folder(&folder)?)
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

    /// Makes durable what was restored before this call. It can be restored again, so that this need not happen before the
    /// work is done: each file by itself, or, if there are many, everything on their file systems at once.
    ///
    /// # Errors
    /// If something cannot be synced; it is not tried again.
    pub fn commit_restored(&self) -> Result<(), StoreError> {
        let restored = std::mem::take(&mut self.lock_pending().restored);
        match restored.len() > SYNCED_ALONE {
            true => self.sync_file_systems(&restored),
            false => Ok(self.sync_one_by_one(&restored)?),
        }
    }

    /// Syncs files and then their folders, all that can be synced; the first error counts.
    fn sync_one_by_one(&self, files: &BTreeSet<PathBuf>) -> Result<(), DiskError> {
        let sync_file = |path: &PathBuf| match disk::open_regular(&*self.disk, path, Links::Refuse)? {
            Opened::Regular(file, _) => file.sync().map_err(failed("sync", path)),
            // What is not there any more, or is no file, was moved away by somebody: it is not ours to keep.
            _ => Ok(()),
        };
        let sync_folder = |folder: &Path| match disk::sync_dir(&*self.disk, folder) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        };
        let synced: Vec<Result<(), DiskError>> =
            files.iter().map(sync_file).chain(folders_of(files).into_iter().map(sync_folder)).collect();
        synced.into_iter().collect()
    }

    /// Makes all durable that is on the file systems of these files.
    ///
    /// # Errors
    /// If one cannot be synced.
    pub fn sync_file_systems(&self, files: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let mut devices = BTreeSet::new();
        for folder in folders_of(files) {
            let found = disk::look(&*self.disk, folder, Links::Follow)?;
            if found.is_some_and(|found| devices.insert(found.device)) && !self.sync_file_system(folder)? {
                self.sync_one_by_one(files)?;
            }
        }
        Ok(())
    }

    /// `false` if that cannot be asked.
    fn sync_file_system(&self, folder: &Path) -> Result<bool, DiskError> {
        match disk::open(&*self.disk, folder, Access::Read(Links::Follow)) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(true),
            opened => opened?.sync_file_system().map_err(failed("sync the file system of", folder)),
        }
    }
}

fn folders_of(files: &BTreeSet<PathBuf>) -> BTreeSet<&Path> {
    files.iter().map(|path| disk::parent(path)).collect()
}
