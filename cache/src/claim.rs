//! `Claims`: which keys a process computes now, so that several processes compute each key once.
//!
//! Does not know what computing a key means, nor whether a record of it exists: whoever has claimed a key looks into
//! the ledger again before it begins.
//!
//! A claim is the kernel's exclusive lock on the file `locks/<first 4 digits of the key>` below a store. The files are
//! made when first needed and stay for good; that one is there means nothing.
//!
//! Invariants: a claim goes when it is dropped, at the latest when its process dies, and never otherwise; of two
//! processes one at a time has claims on the keys of a file; the keys of one file never wait for each other within one
//! `Claims` value, which holds each file open once, however many claims share it; nothing waits while the table of files
//! is held.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;
use crate::disk::{self, Disk, DiskError, Handle, Lock, RealDisk, failed};
use crate::store::open_lock;

const FOLDER: &str = "locks";

/// The first 16 bits of a key.
type Prefix = u16;

/// What a process has claimed. A clone is the same; two values made by [`Claims::new`] are as two processes.
#[derive(Debug, Clone)]
pub struct Claims(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    slots: Mutex<HashMap<Prefix, Slot>>,
    /// A slot no longer waits.
    settled: Condvar,
}

/// A lock file that this process has open.
#[derive(Debug)]
enum Slot {
    /// A thread waits for its lock; others that want it wait for that thread.
    Waiting,
    /// It is locked, for so many claims.
    Held {
        claims: usize,
        /// Closing it is what lets go of the lock.
        _file: Box<dyn Handle>,
    },
}

/// A key that no other process computes until this is dropped.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
    prefix: Prefix,
}

impl Claims {
    /// Nothing claimed yet, below `root`, the folder of a store. Nothing is touched.
    pub fn new(root: &Path) -> Claims {
        Claims::on(Arc::new(RealDisk), root)
    }

    /// [`Claims::new`] on another disk than that of the operating system.
    pub fn on(disk: Arc<dyn Disk>, root: &Path) -> Claims {
        let (slots, settled) = (Mutex::default(), Condvar::new());
        Claims(Arc::new(Shared { disk, folder: root.join(FOLDER), slots, settled }))
    }

    /// Claims a key, unless another process has claimed it or one that shares its file; does not wait.
    ///
    /// # Errors
    /// If the file cannot be made, opened or locked.
    pub fn try_claim(&self, key: &Digest) -> Result<Option<Claim>, DiskError> {
        let prefix = prefix(key);
        let mut slots = self.0.slots();
        let claimed = match slots.entry(prefix) {
            Entry::Occupied(mut slot) => slot.get_mut().share(),
            Entry::Vacant(vacant) => match self.0.try_lock(prefix)? {
                Some(file) => {
                    vacant.insert(Slot::Held { claims: 1, _file: file });
                    true
                }
                None => false,
            },
        };
        Ok(claimed.then(|| self.claim(prefix)))
    }

    /// Claims a key, as soon as no other process has claimed it or one that shares its file. The death of a process
    /// ends its claims.
    ///
    /// # Errors
    /// If the file cannot be made, opened or locked.
    pub fn wait(&self, key: &Digest) -> Result<Claim, DiskError> {
        let prefix = prefix(key);
        if !self.0.begin_to_wait(prefix) {
            return Ok(self.claim(prefix));
        }
        let locked = self.0.lock(prefix);
        let mut slots = self.0.slots();
        let result = match locked {
            Ok(file) => {
                slots.insert(prefix, Slot::Held { claims: 1, _file: file });
                Ok(self.claim(prefix))
            }
            Err(error) => {
                slots.remove(&prefix);
                Err(error)
            }
        };
        drop(slots);
        self.0.settled.notify_all();
        result
    }

    fn claim(&self, prefix: Prefix) -> Claim {
        Claim { shared: self.0.clone(), prefix }
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, HashMap<Prefix, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the calling thread is to wait for the lock, as nobody else of this process does; else the lock was
    /// there, and is shared now.
    fn begin_to_wait(&self, prefix: Prefix) -> bool {
        let mut slots = self.slots();
        loop {
            let Some(slot) = slots.get_mut(&prefix) else {
                slots.insert(prefix, Slot::Waiting);
                return true;
            };
            if slot.share() {
                return false;
            }
            slots = self.settled.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn try_lock(&self, prefix: Prefix) -> Result<Option<Box<dyn Handle>>, DiskError> {
        let path = self.path(prefix);
        let file = self.open(&path)?;
        match uninterrupted(&*file, &path, Lock::TryExclusive) {
            Err(error) if error.source.kind() == ErrorKind::WouldBlock => Ok(None),
            locked => locked.map(|()| Some(file)),
        }
    }

    fn lock(&self, prefix: Prefix) -> Result<Box<dyn Handle>, DiskError> {
        let path = self.path(prefix);
        let file = self.open(&path)?;
        uninterrupted(&*file, &path, Lock::Exclusive)?;
        Ok(file)
    }

    fn path(&self, prefix: Prefix) -> PathBuf {
        self.folder.join(format!("{prefix:04x}"))
    }

    /// Nothing is synced: a lock file that is gone after a crash is made again, and nobody has claims then.
    fn open(&self, path: &Path) -> Result<Box<dyn Handle>, DiskError> {
        let open = || open_lock(&*self.disk, disk::parent(&self.folder), path);
        match open() {
            Err(error) if error.source.kind() == ErrorKind::NotFound => {
                disk::create_dir(&*self.disk, &self.folder, 0o700)?;
                open()
            }
            opened => opened,
        }
    }
}

impl Slot {
    /// Counts one claim more, if the lock is held.
    fn share(&mut self) -> bool {
        match self {
            Slot::Waiting => false,
            Slot::Held { claims, .. } => {
                *claims += 1;
                true
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut slots = self.shared.slots();
        if let Entry::Occupied(mut slot) = slots.entry(self.prefix)
            && let Slot::Held { claims, .. } = slot.get_mut()
        {
            *claims -= 1;
            if *claims == 0 {
                // Closed while the table is held: whoever looks next finds the file free.
                slot.remove();
            }
        }
    }
}

fn prefix(key: &Digest) -> Prefix {
    let bytes = key.as_bytes();
    Prefix::from_be_bytes([bytes[0], bytes[1]])
}

/// Takes a lock however many signals come meanwhile: others may compute for hours.
fn uninterrupted(file: &dyn Handle, path: &Path, lock: Lock) -> Result<(), DiskError> {
    loop {
        match file.lock(lock) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            locked => return locked.map_err(failed("lock", path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    const STORE: &str = "/store";

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// A key by its first 16 bits and one that tells it from others.
    fn key(prefix: u16, other: u8) -> Digest {
        let mut bytes = [other; 32];
        bytes[..2].copy_from_slice(&prefix.to_be_bytes());
        Digest::from_bytes(bytes)
    }

    fn in_memory() -> ForgetfulDisk {
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new(STORE), 0o700).unwrap();
        disk
    }

    fn on(disk: &(impl Disk + Clone + 'static)) -> Claims {
        Claims::on(Arc::new(disk.clone()), Path::new(STORE))
    }

    #[test]
    fn what_is_no_file_in_the_place_of_a_lock_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let (folder, key) = (root.path().join("locks"), Digest::of(b"key"));
        let lock = folder.join(&key.to_string()[..4]);
        std::fs::create_dir(&folder).unwrap();
        let made: [&dyn Fn(); 3] = [
            &|| std::fs::create_dir_all(lock.join("inside")).unwrap(),
            &|| std::os::unix::fs::symlink("/etc/passwd", &lock).unwrap(),
            &|| std::os::unix::fs::symlink("nowhere", &lock).unwrap(),
        ];
        for (number, make) in made.iter().enumerate() {
            make();
            let [one, two] = [(), ()].map(|()| Claims::new(root.path()));
            let claim = one.try_claim(&key).unwrap().expect("nobody has it");
            assert!(two.try_claim(&key).unwrap().is_none());
            assert!(std::fs::symlink_metadata(&lock).unwrap().is_file());
            assert_eq!(std::fs::read_dir(root.path().join("quarantine")).unwrap().count(), number + 1);
            drop(claim);
            std::fs::remove_file(&lock).unwrap();
        }
    }

    #[test]
    fn a_key_is_claimed_by_one_until_it_lets_go() {
        let root = folder();
        let (one, two) = (Claims::new(root.path()), Claims::new(root.path()));
        let claim = one.try_claim(&key(7, 0)).unwrap().expect("it is free");
        assert!(two.try_claim(&key(7, 0)).unwrap().is_none());
        drop(claim);
        assert!(two.try_claim(&key(7, 0)).unwrap().is_some());
    }

    #[test]
    fn keys_of_different_files_are_claimed_apart() {
        let root = folder();
        let (one, two) = (Claims::new(root.path()), Claims::new(root.path()));
        let _claim = one.try_claim(&key(7, 0)).unwrap().expect("it is free");
        assert!(two.try_claim(&key(8, 0)).unwrap().is_some());
    }

    #[test]
    fn keys_of_one_file_share_its_lock_until_the_last_lets_go() {
        let root = folder();
        let (one, two) = (Claims::new(root.path()), Claims::new(root.path()));
        let first = one.try_claim(&key(7, 1)).unwrap().expect("it is free");
        let second = one.clone().try_claim(&key(7, 2)).unwrap().expect("it is ours");
        let third = one.wait(&key(7, 3)).unwrap();
        for claim in [first, second, third] {
            assert!(two.try_claim(&key(7, 4)).unwrap().is_none());
            drop(claim);
        }
        assert!(two.try_claim(&key(7, 4)).unwrap().is_some());
    }

    #[test]
    fn lock_files_stay_and_mean_nothing() {
        let root = folder();
        let claims = Claims::new(root.path());
        assert!(!root.path().join("locks").exists());
        drop(claims.try_claim(&key(0xab12, 0)).unwrap());
        let file = root.path().join("locks/ab12");
        std::fs::write(&file, "left by somebody").unwrap();
        assert!(claims.try_claim(&key(0xab12, 0)).unwrap().is_some());
        assert_eq!(std::fs::read(&file).unwrap(), b"left by somebody");
    }

    #[test]
    fn who_waits_has_the_claim_after_the_holder_let_go_and_not_before() {
        let root = folder();
        let (one, two) = (Claims::new(root.path()), Claims::new(root.path()));
        let (claim, let_go) = (one.wait(&key(7, 0)).unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            // The second thread of a process waits for the first one, and both share what that gets.
            let waiters = [1, 2].map(|other| {
                let (two, let_go) = (two.clone(), &let_go);
                scope.spawn(move || {
                    let claim = two.wait(&key(7, other)).unwrap();
                    assert!(let_go.load(Ordering::SeqCst));
                    claim
                })
            });
            while !matches!(two.0.slots().get(&7), Some(Slot::Waiting)) {
                thread::yield_now();
            }
            assert!(two.try_claim(&key(7, 3)).unwrap().is_none());
            let_go.store(true, Ordering::SeqCst);
            drop(claim);
            let claims = waiters.map(|waiter| waiter.join().unwrap());
            assert!(one.try_claim(&key(7, 0)).unwrap().is_none());
            drop(claims);
            assert!(one.try_claim(&key(7, 0)).unwrap().is_some());
        });
    }

    #[test]
    fn errors_name_operation_and_path() {
        let root = folder();
        std::fs::write(root.path().join("locks"), "").unwrap();
        let claims = Claims::new(root.path());
        let text = format!("cannot open {}/locks/0007: Not a directory (os error 20)", root.path().display());
        assert_eq!(claims.try_claim(&key(7, 0)).unwrap_err().to_string(), text);
        assert_eq!(claims.wait(&key(7, 0)).unwrap_err().to_string(), text);
    }

    type Way = fn(&Claims) -> Result<Option<Claim>, DiskError>;

    /// Both ways to claim a key.
    const WAYS: [Way; 2] = [|claims| claims.try_claim(&key(7, 0)), |claims| claims.wait(&key(7, 0)).map(Some)];

    #[test]
    fn a_call_that_fails_leaves_the_key_free() {
        for way in WAYS {
            for number in 0.. {
                let memory = in_memory();
                let disk = FailingDisk::failing_at(Arc::new(memory.clone()), number, Fault::Error(libc::EIO));
                let claims = on(&disk);
                let other = on(&memory);
                let claimed = way(&claims);
                let Some(failed) = disk.first_failure() else {
                    assert!(claimed.unwrap().is_some());
                    // Opened in vain, folder, opened, locked.
                    assert_eq!(number, 4);
                    break;
                };
                let error = claimed.unwrap_err();
                assert_eq!((error.path.as_path(), error.source.raw_os_error()), (&*failed.path, Some(libc::EIO)));
                drop(other.try_claim(&key(7, 1)).unwrap().expect("it is free"));
                assert!(way(&claims).unwrap().is_some());
            }
        }
    }

    #[test]
    fn interrupted_calls_are_repeated() {
        for way in WAYS {
            let memory = in_memory();
            let interrupted = |call: &Call| (!call.number.is_multiple_of(9)).then_some(Fault::Error(libc::EINTR));
            let disk = FailingDisk::new(Arc::new(memory.clone()), interrupted);
            let claims = on(&disk);
            assert!(way(&claims).unwrap().is_some());
            assert!(disk.calls() > 9);
        }
    }

    #[test]
    fn a_process_killed_at_any_call_leaves_no_claim() {
        for way in WAYS {
            for number in 0..4 {
                let memory = in_memory();
                let disk = FailingDisk::failing_at(Arc::new(memory.clone()), number, Fault::Killed);
                assert!(way(&on(&disk)).is_err());
                let other = on(&memory);
                assert!(other.try_claim(&key(7, 0)).unwrap().is_some());
            }
        }
    }
}
