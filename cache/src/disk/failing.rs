//! `FailingDisk`: a disk on which chosen calls fail, for tests.
//!
//! Does not know why a call fails, nor what ought to happen then.
//!
//! Every call of [`Disk`](super::Disk) and [`Handle`](super::Handle) has a number, counted from 0 over all of them in
//! the order in which they come. Whoever makes a `FailingDisk` decides by number, operation and path which of them fail
//! and how.
//!
//! Invariants: a call that fails touches nothing, except that a short write has written its prefix; after a kill
//! nothing is touched any more, not even by what is dropped later; closing a handle is no call and always lets go of
//! its lock, as the kernel does for a dead process.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Access, Disk, Handle, Links, Lock, Meta};

/// A call, before it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How many calls were before it.
    pub number: u64,
    /// The method: `open`, `write_at`, `rename` …
    pub operation: &'static str,
    /// On what; for a link and a rename, where from.
    pub path: PathBuf,
    /// What part of the file is asked for or written, if any is.
    pub part: Range<u64>,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// With this error number, and nothing is touched.
    Error(i32),
    /// A write takes half of its bytes, and the next call fails with this error number. A file shares half of the bytes of
    /// another, and the call fails. Any other call just fails.
    Short(i32),
    /// The process is dead: this call and all later ones fail and touch nothing.
    Killed,
    /// A lock is said to be had, and keeps nobody out, as on some network file systems. Any other call is as it would be.
    Feigned,
}

type Decide = dyn Fn(&Call) -> Option<Fault> + Send + Sync;

/// A disk that hands calls on to another, except those that fail. A clone is the same disk.
#[derive(Clone)]
pub struct FailingDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Faults>,
}

struct Faults {
    decide: Box<Decide>,
    calls: AtomicU64,
    /// The error number that the next call fails with, after a short write.
    pending: Mutex<Option<i32>>,
    killed: AtomicBool,
    /// The first call that failed.
    first: Mutex<Option<Call>>,
}

impl FailingDisk {
    /// A disk on which those calls fail for which `decide` names a fault.
    pub fn new(inner: Arc<dyn Disk>, decide: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> FailingDisk {
        let faults = Faults {
            decide: Box::new(decide),
            calls: AtomicU64::new(0),
            pending: Mutex::default(),
            killed: AtomicBool::new(false),
            first: Mutex::default(),
        };
        FailingDisk { inner, faults: Arc::new(faults) }
    }

    /// A disk on which nothing fails: it counts.
    pub fn counting(inner: Arc<dyn Disk>) -> FailingDisk {
        FailingDisk::new(inner, |_| None)
    }

    /// A disk on which the call with this number fails, and no other.
    pub fn failing_at(inner: Arc<dyn Disk>, number: u64, fault: Fault) -> FailingDisk {
        FailingDisk::new(inner, move |call| (call.number == number).then_some(fault))
    }

    /// A disk on which every call from this number on fails.
    pub fn failing_from(inner: Arc<dyn Disk>, number: u64, fault: Fault) -> FailingDisk {
        FailingDisk::new(inner, move |call| (call.number >= number).then_some(fault))
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.faults.calls.load(Ordering::SeqCst)
    }

    /// The first call that failed.
    pub fn first_failure(&self) -> Option<Call> {
        self.faults.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for FailingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingDisk").field("inner", &self.inner).field("calls", &self.calls()).finish()
    }
}

/// What a call may do.
enum Verdict {
    Go,
    /// Write or share half, now.
    Half,
    /// Do not lock.
    Feign,
}

impl Faults {
    /// Counts a call and says whether it may go on.
    fn call(&self, operation: &'static str, path: &Path) -> io::Result<Verdict> {
        self.call_on(operation, path, 0..0)
    }

    fn call_on(&self, operation: &'static str, path: &Path, part: Range<u64>) -> io::Result<Verdict> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let call = Call { number, operation, path: path.to_owned(), part };
        if self.killed.load(Ordering::SeqCst) {
            return Err(dead());
        }
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(errno) = pending {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let Some(fault) = (self.decide)(&call) else {
            return Ok(Verdict::Go);
        };
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(call);
        self.fail(fault, operation)
    }

    fn fail(&self, fault: Fault, operation: &'static str) -> io::Result<Verdict> {
        match fault {
            Fault::Short(errno) if ["write_at", "share"].contains(&operation) => {
                *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(errno);
                Ok(Verdict::Half)
            }
            Fault::Error(errno) | Fault::Short(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Feigned => Ok(Verdict::Feign),
            Fault::Killed => {
                self.killed.store(true, Ordering::SeqCst);
                Err(dead())
            }
        }
    }
}

/// What a dead process would get, if it could get anything.
fn dead() -> io::Error {
    io::Error::other("the process was killed")
}

impl Disk for FailingDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Handle>> {
        self.faults.call("open", path)?;
        let inner = self.inner.open(path, access)?;
        Ok(Box::new(FailingHandle { inner, path: path.to_owned(), faults: self.faults.clone() }))
    }

    fn look(&self, path: &Path, links: Links) -> io::Result<Meta> {
        self.faults.call("look", path)?;
        self.inner.look(path, links)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.faults.call("names", folder)?;
        self.inner.names(folder)
    }

    fn create_dir(&self, folder: &Path, mode: u32) -> io::Result<()> {
        self.faults.call("create_dir", folder)?;
        self.inner.create_dir(folder, mode)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.call("link", from)?;
        self.inner.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.call("rename", from)?;
        self.inner.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.call("rename_new", from)?;
        self.inner.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.call("remove", path)?;
        self.inner.remove(path)
    }
}

#[derive(Debug)]
struct FailingHandle {
    inner: Box<dyn Handle>,
    path: PathBuf,
    faults: Arc<Faults>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("calls", &self.calls).field("killed", &self.killed).finish_non_exhaustive()
    }
}

impl Handle for FailingHandle {
    fn look(&self) -> io::Result<Meta> {
        self.faults.call("look_at", &self.path)?;
        self.inner.look()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.call_on("read_at", &self.path, offset..offset + buffer.len() as u64)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.faults.call_on("write_at", &self.path, offset..offset + bytes.len() as u64)? {
            Verdict::Go | Verdict::Feign => self.inner.write_at(bytes, offset),
            Verdict::Half => self.inner.write_at(&bytes[..bytes.len().div_ceil(2)], offset),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.faults.call("set_len", &self.path)?;
        self.inner.set_len(length)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.faults.call("set_mode", &self.path)?;
        self.inner.set_mode(mode)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.call("sync", &self.path)?;
        self.inner.sync()
    }

    fn sync_file_system(&self) -> io::Result<bool> {
        self.faults.call("sync_file_system", &self.path)?;
        self.inner.sync_file_system()
    }

    fn lock(&self, lock: Lock) -> io::Result<()> {
        match self.faults.call("lock", &self.path)? {
            Verdict::Feign => Ok(()),
            Verdict::Go | Verdict::Half => self.inner.lock(lock),
        }
    }

    fn share(&self, from: &dyn Handle) -> io::Result<()> {
        match self.faults.call("share", &self.path)? {
            Verdict::Go | Verdict::Feign => self.inner.share(from),
            Verdict::Half => {
                let shared = self.inner.share(from).and_then(|()| self.inner.set_len(self.inner.look()?.bytes / 2));
                shared.and(self.faults.call("share", &self.path).map(drop))
            }
        }
    }

    fn file(&self) -> Option<&File> {
        self.inner.file()
    }

    fn into_file(self: Box<Self>) -> Option<File> {
        self.inner.into_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ForgetfulDisk;

    fn write(disk: &dyn Disk, bytes: &[u8]) -> io::Result<usize> {
        disk.open(Path::new("/file"), Access::Edit(0o600))?.write_at(bytes, 0)
    }

    #[test]
    fn the_chosen_call_fails_and_touches_nothing() {
        let inner = ForgetfulDisk::new();
        let disk = FailingDisk::failing_at(Arc::new(inner.clone()), 0, Fault::Error(libc::EMFILE));
        assert_eq!(write(&disk, b"x").unwrap_err().raw_os_error(), Some(libc::EMFILE));
        assert!(inner.names(Path::new("/")).unwrap().is_empty());
        assert_eq!(write(&disk, b"x").unwrap(), 1);
        assert_eq!(disk.calls(), 3);
        let first = Call { number: 0, operation: "open", path: "/file".into(), part: 0..0 };
        assert_eq!(disk.first_failure(), Some(first));
    }

    #[test]
    fn a_short_write_takes_half_and_then_fails() {
        let inner = ForgetfulDisk::new();
        let disk = FailingDisk::failing_at(Arc::new(inner.clone()), 1, Fault::Short(libc::ENOSPC));
        assert_eq!(write(&disk, b"12345").unwrap(), 3);
        assert_eq!(write(&disk, b"12345").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(inner.look(Path::new("/file"), Links::Refuse).unwrap().bytes, 3);
    }

    #[test]
    fn after_a_kill_nothing_is_touched_and_locks_are_gone() {
        let inner = ForgetfulDisk::new();
        let disk = FailingDisk::failing_at(Arc::new(inner.clone()), 2, Fault::Killed);
        let handle = disk.open(Path::new("/file"), Access::Edit(0o600)).unwrap();
        handle.lock(Lock::Exclusive).unwrap();
        assert!(handle.write_at(b"x", 0).is_err());
        assert!(disk.remove(Path::new("/file")).is_err());
        let other = inner.open(Path::new("/file"), Access::Edit(0o600)).unwrap();
        assert_eq!(other.lock(Lock::TryExclusive).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(handle);
        other.lock(Lock::TryExclusive).unwrap();
        assert_eq!(other.look().unwrap().bytes, 0);
    }
}
