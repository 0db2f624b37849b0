//! `Temp`: a file under a random name, on its way to its final one.
//!
//! Does not know what is written, nor where it goes.
//!
//! Invariants: a [`Temp`] is locked by the kernel for as long as its owner lives and has it open, so what [`sweep`] can
//! lock belongs to nobody; a name is never guessed twice; what a temp is called says that it is one. But for one in a folder
//! that nobody else uses: it may have its final name from the beginning.

use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::operations::repeated;
use super::{Access, Disk, DiskError, Handle, Links, Lock, Opened, failed, names, open_regular, parent};
use crate::digest::{self, Digest};

const TEMP_PREFIX: &str = ".headwater-";
const TEMP_SUFFIX: &str = ".tmp";
/// Hexadecimal digits of randomness in the name of a temp.
const TEMP_DIGITS: usize = 32;
/// The drive is told to take in what was written as soon as it is so many bytes.
const SYNCED_AHEAD: usize = 64 << 20;
/// A fresh random name collides with another's or is swept before it is locked only by a rare accident.
const TEMP_ATTEMPTS: usize = 16;

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
#[derive(Debug)]
pub(crate) struct Temp {
    disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    file: Arc<dyn Handle>,
    written: u64,
    /// Whether it has become the file that it was made for.
    placed: bool,
}

impl Temp {
    /// A new, empty, locked temp in `folder`.
    pub(crate) fn create(disk: &Arc<dyn Disk>, folder: &Path, mode: u32) -> Result<Temp, DiskError> {
        for _ in 0..TEMP_ATTEMPTS {
            let name = format!("{TEMP_PREFIX}{}{TEMP_SUFFIX}", random_name());
            let path = folder.join(name);
            match create(&**disk, &path, mode) {
                Ok(Some(file)) => {
                    return Ok(Temp { disk: disk.clone(), path, file: file.into(), written: 0, placed: false });
                }
                Ok(None) => {}
                Err(error) => return Err(failed("create", &path)(error)),
            }
        }
        Err(failed("create a temporary file in", folder)(ErrorKind::AlreadyExists.into()))
    }

    /// A new, empty temp that has its final name already, in a folder that nobody else uses; what is there is replaced.
    pub(crate) fn create_at(disk: &Arc<dyn Disk>, path: &Path, mode: u32) -> Result<Temp, DiskError> {
        let create = || disk.open(path, Access::Create(mode));
        let file = match repeated(create) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                super::remove(&**disk, path)?;
                repeated(create)
            }
            file => file,
        };
        let file = file.map_err(failed("create", path))?;
        Ok(Temp { disk: disk.clone(), path: path.to_owned(), file: file.into(), written: 0, placed: false })
    }

    /// Leaves it where it is: it is the file that it was made for.
    pub(crate) fn stay(mut self) {
        self.placed = true;
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        super::write(&*self.file, &self.path, bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Appends all that `give` hands to its argument. If that is much, the drive takes it in meanwhile, so that there is little
    /// to wait for when it is to be durable.
    pub(crate) fn write_all<T>(
        &mut self,
        give: impl FnOnce(&mut (dyn FnMut(&[u8]) -> Result<(), DiskError> + Send)) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let (file, path) = (self.file.clone(), self.path.clone());
        let (told, pieces) = sync_channel(1);
        let sync = move || pieces.iter().try_for_each(|()| file.sync()).map_err(failed("sync", &path));
        std::thread::scope(|scope| {
            let (mut pending, mut sync, mut syncer) = (0, Some(sync), None);
            let given = give(&mut |bytes: &[u8]| {
                self.write(bytes)?;
                pending += bytes.len();
                if pending >= SYNCED_AHEAD {
                    pending = 0;
                    // Without a thread, all of it is synced in the end.
                    let start = |sync| std::thread::Builder::new().name("syncer".into()).spawn_scoped(scope, sync).ok();
                    syncer = syncer.take().or_else(|| sync.take().and_then(start));
                    // One that is at it syncs this piece with the next.
                    let _ = told.try_send(());
                }
                Ok(())
            });
            drop(told);
            let synced = syncer.map_or(Ok(()), |syncer| syncer.join().expect("syncing does not panic"));
            // The error of a sync is told once: the last one would know nothing of it.
            synced.and(given)
        })
    }

    /// Shares the bytes of a file, if that is possible; the temp must be empty. Returns digest and length of what it has
    /// then, read back from the temp itself. Whatever keeps them from being shared, a copy works or tells why not.
    pub(crate) fn share(&mut self, from: &dyn Handle) -> Result<Option<(Digest, u64)>, DiskError> {
        if self.file.share(from).is_err() {
            // Some of the bytes may be there: more than a copy of a file that has become shorter would write over.
            super::set_len(&*self.file, &self.path, 0)?;
            return Ok(None);
        }
        let file = super::open(&*self.disk, &self.path, Access::Read(Links::Refuse))?;
        self.written = super::look_at(&*file, &self.path)?.bytes;
        super::hash(&*file, &self.path, self.written).map(Some)
    }

    /// Sets the final mode, before the sync that makes it durable.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), DiskError> {
        repeated(|| self.file.set_mode(mode)).map_err(failed("set the mode of", &self.path))
    }

    /// Makes the content durable. After a failure the temp is of no use: the kernel may have dropped the pages.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync().map_err(failed("sync", &self.path))
    }

    /// Gives the synced file its name, unless the name is taken: `false`. The name is not durable before its folder
    /// is synced.
    pub(crate) fn publish(&self, dest: &Path) -> Result<bool, DiskError> {
        match repeated(|| self.disk.link(&self.path, dest)) {
            Ok(()) => Ok(true),
            // If an interrupted call did its work after all, what is there now is the file itself.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed("publish", dest)(error)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file in the place of `dest`, atomically. Neither content nor name need be durable.
    pub(crate) fn place(mut self, dest: &Path) -> Result<(), DiskError> {
        self.disk.rename(&self.path, dest).map_err(failed("replace", dest))?;
        self.placed = true;
        Ok(())
    }

    /// Puts the file where nothing is; `false` if something is there. Neither content nor name need be durable.
    pub(crate) fn place_new(mut self, dest: &Path) -> Result<bool, DiskError> {
        match self.disk.rename_new(&self.path, dest) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            renamed => renamed.map_err(failed("place", dest))?,
        }
        self.placed = true;
        Ok(true)
    }

    /// Puts the synced file in the place of `dest`, atomically and durably.
    pub(crate) fn replace(self, dest: &Path) -> Result<(), DiskError> {
        let disk = self.disk.clone();
        self.place(dest)?;
        super::sync_dir(&*disk, parent(dest))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // What stays is swept later.
        if !self.placed {
            let _ = repeated(|| self.disk.remove(&self.path));
        }
    }
}

/// Makes and locks the file; `None` if another name should be tried.
fn create(disk: &dyn Disk, path: &Path, mode: u32) -> io::Result<Option<Box<dyn Handle>>> {
    let file = match disk.open(path, Access::Create(mode)) {
        // An interrupted call may have made the file: with a new name it does not matter.
        Err(error) if is_accident(&error) => return Ok(None),
        file => file?,
    };
    match take(&*file) {
        Ok(true) => Ok(Some(file)),
        Ok(false) => {
            // If it was no sweeper that had the lock, nobody else removes it.
            let _ = repeated(|| disk.remove(path));
            Ok(None)
        }
        Err(error) => {
            let _ = repeated(|| disk.remove(path));
            Err(error)
        }
    }
}

/// Whether a file could not be made under this name, and may be under another.
pub(crate) fn is_accident(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// Locks a fresh temp; `false` if a sweeper saw the file in the instant before it was locked.
fn take(file: &dyn Handle) -> io::Result<bool> {
    match file.lock(Lock::TryExclusive) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
        locked => locked?,
    }
    Ok(repeated(|| file.look())?.links > 0)
}

/// Removes temps that nobody owns. What cannot be removed stays for the next sweep: a leftover is no fault.
pub(crate) fn sweep(disk: &dyn Disk, folder: &Path) {
    for name in names(disk, folder).unwrap_or_default() {
        let path = folder.join(&name);
        if is_temp(name.as_ref())
            && let Ok(Opened::Regular(file, _)) = open_regular(disk, &path, Links::Refuse)
            && file.lock(Lock::TryExclusive).is_ok()
        {
            let _ = repeated(|| disk.remove(&path));
        }
    }
}

/// Whether a file of this name is one that is being written, or was when its process died.
pub fn is_temp(name: &OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_prefix(TEMP_PREFIX));
    name.and_then(|rest| rest.strip_suffix(TEMP_SUFFIX))
        .is_some_and(|middle| middle.len() == TEMP_DIGITS && middle.bytes().all(|c| digest::digit(c).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk, RealDisk};
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn real() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_temp_is_private_and_its_name_is_recognised() {
        let folder = folder();
        let temp = Temp::create(&real(), folder.path(), 0o600).unwrap();
        assert_eq!(mode(&temp.path), 0o600);
        assert!(is_temp(temp.path.file_name().unwrap()));
    }

    #[test]
    fn a_dropped_temp_leaves_no_name() {
        let folder = folder();
        drop(Temp::create(&real(), folder.path(), 0o600).unwrap());
        assert!(names(&RealDisk, folder.path()).unwrap().is_empty());
    }

    #[test]
    fn an_owned_temp_survives_a_sweep_and_an_orphan_does_not() {
        let folder = folder();
        let owned = Temp::create(&real(), folder.path(), 0o600).unwrap();
        let orphan = folder.path().join(format!(".headwater-{}.tmp", random_name()));
        fs::write(&orphan, b"left by a dead process").unwrap();
        sweep(&RealDisk, folder.path());
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
        sweep(&RealDisk, folder.path());
        assert_eq!(names(&RealDisk, folder.path()).unwrap().len(), others.len());
    }

    #[test]
    fn a_sweep_of_an_orphan_leaves_the_file_that_it_was_published_as() {
        let folder = folder();
        let orphan = folder.path().join(format!(".headwater-{}.tmp", random_name()));
        let published = folder.path().join("published");
        fs::write(&orphan, b"content").unwrap();
        fs::hard_link(&orphan, &published).unwrap();
        sweep(&RealDisk, folder.path());
        assert_eq!(names(&RealDisk, folder.path()).unwrap(), ["published"]);
        assert_eq!(fs::read(published).unwrap(), b"content");
    }

    #[test]
    fn publishing_never_replaces() {
        let folder = folder();
        let dest = folder.path().join("dest");
        fs::write(&dest, b"first").unwrap();
        let mut temp = Temp::create(&real(), folder.path(), 0o600).unwrap();
        temp.write(b"second").unwrap();
        assert!(!temp.publish(&dest).unwrap());
        assert_eq!(fs::read(&dest).unwrap(), b"first");
    }

    #[test]
    fn random_names_differ() {
        assert_ne!(random_name(), random_name());
    }

    #[test]
    fn a_temp_that_cannot_be_looked_at_leaves_no_name() {
        let memory = ForgetfulDisk::new();
        let decide = |call: &Call| (call.operation == "look_at").then_some(Fault::Error(libc::EIO));
        let disk: Arc<dyn Disk> = Arc::new(FailingDisk::new(Arc::new(memory.clone()), decide));
        let error = Temp::create(&disk, Path::new("/"), 0o600).err().unwrap().to_string();
        assert!(error.starts_with("cannot create /.headwater-"), "{error}");
        assert!(names(&memory, Path::new("/")).unwrap().is_empty());
    }

    #[test]
    fn a_temp_that_somebody_else_seems_to_hold_leaves_no_name() {
        let memory = ForgetfulDisk::new();
        let locked = std::sync::atomic::AtomicBool::new(false);
        let decide = move |call: &Call| {
            let first = call.operation == "lock" && !locked.swap(true, std::sync::atomic::Ordering::SeqCst);
            first.then_some(Fault::Error(libc::EAGAIN))
        };
        let disk: Arc<dyn Disk> = Arc::new(FailingDisk::new(Arc::new(memory.clone()), decide));
        drop(Temp::create(&disk, Path::new("/"), 0o600).unwrap());
        assert!(names(&memory, Path::new("/")).unwrap().is_empty());
    }

    #[test]
    fn a_write_in_small_steps_is_whole() {
        let memory = ForgetfulDisk::new();
        let decide = |call: &Call| (call.operation == "write_at").then_some(Fault::Short(libc::EINTR));
        let disk: Arc<dyn Disk> = Arc::new(FailingDisk::new(Arc::new(memory.clone()), decide));
        let mut temp = Temp::create(&disk, Path::new("/"), 0o600).unwrap();
        temp.write(b"in steps, ").unwrap();
        temp.write(b"each interrupted").unwrap();
        temp.publish(Path::new("/file")).unwrap();
        let file = memory.open(Path::new("/file"), Access::Read(Links::Refuse)).unwrap();
        assert_eq!(crate::disk::read(&*file, Path::new("/file"), 100).unwrap(), b"in steps, each interrupted");
    }
}
