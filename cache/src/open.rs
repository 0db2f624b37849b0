//! `Store::open_verified`: a blob to be used where it lies, instead of being read into memory.
//!
//! Does not know who uses the bytes or how. What has no file of its own, or only a small one, is read. A large blob that
//! waits for its commit has its file already, under the name of a temp.
//!
//! Invariants: a file is handed out only after its bytes were read once in this process and had the right digest; they
//! are read in the ordinary way, so a medium that fails is damage as everywhere in the store. A file of which anything
//! but the content can be seen to have changed since then (another inode, length, mode or time) is read again.
//!
//! What is verified once can still go bad later, as what was read into memory can: verification is at the first use in
//! a process, not at every one.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::disk::{self, Meta};
use crate::store::{Store, StoreError};

/// Blobs up to this length are read: a file of their own would cost more than the copy.
const READ_UP_TO: u64 = 64 << 10;
/// How often a file that changes under our eyes is verified again before it is read instead.
const ATTEMPTS: usize = 4;

/// A verified blob.
#[derive(Debug)]
pub enum Verified {
    /// Its bytes.
    Read(Vec<u8>),
    /// The file that consists of its bytes, open for reading. Nobody has the permission to write to it, and the store
    /// never does; it may lose its name at any time.
    File(File),
}

/// The files that were found to be right, as they looked then.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashMap<Digest, Meta>>);

impl Seen {
    fn knows(&self, digest: &Digest, file: &Meta) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest) == Some(file)
    }

    fn add(&self, digest: &Digest, file: Meta) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, file);
    }
}

impl Store {
    /// A blob, verified the first time that it is opened in the life of the store value.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn open_verified(&self, digest: &Digest) -> Result<Verified, StoreError> {
        for _ in 0..ATTEMPTS {
            let (handle, found) = match self.open_file(digest) {
                Err(StoreError::Missing { .. }) => break,
                opened => opened?,
            };
            if found.bytes <= READ_UP_TO {
                break;
            }
            if self.seen.knows(digest, &found) {
                match handle.into_file() {
                    Some(file) => return Ok(Verified::File(file)),
                    None => break,
                }
            }
            self.seen.add(digest, self.verify_file(digest)?);
        }
        self.get(digest).map(Verified::Read)
    }

    /// How a blob's file looked just before its bytes were found to be right.
    fn verify_file(&self, digest: &Digest) -> Result<Meta, StoreError> {
        self.read_file(digest, |file, path, length| {
            let seen = disk::look_at(file, path)?;
            let (found, _) = disk::hash(file, path, length)?;
            Ok((found, seen))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk, RealDisk};
    use std::fs::{self, Permissions};
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LARGE: usize = READ_UP_TO as usize + 1;

    fn put(store: &Store, bytes: &[u8]) -> Digest {
        let digest = store.put(bytes).unwrap();
        store.commit().unwrap();
        digest
    }

    struct Bench {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            Bench { folder, store }
        }

        fn path(&self, digest: &Digest) -> PathBuf {
            let text = digest.to_string();
            self.folder.path().join("blobs").join(&text[..2]).join(&text[2..])
        }

        fn damage(&self, digest: &Digest, at: usize) {
            let path = self.path(digest);
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }

    fn content(verified: Verified) -> Vec<u8> {
        match verified {
            Verified::Read(bytes) => bytes,
            Verified::File(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            }
        }
    }

    #[test]
    fn a_large_blob_is_opened_and_a_small_one_is_read() {
        let bench = Bench::new();
        for (length, is_file) in [(0, false), (LARGE - 1, false), (LARGE, true), (3 << 20, true)] {
            let bytes = vec![7; length];
            let digest = put(&bench.store, &bytes);
            for _ in 0..2 {
                let opened = bench.store.open_verified(&digest).unwrap();
                assert_eq!(matches!(opened, Verified::File(_)), is_file, "{length}");
                assert_eq!(content(opened), bytes);
            }
        }
    }

    #[test]
    fn a_blob_that_waits_for_its_commit_is_opened_too_and_is_the_same_afterwards() {
        let bench = Bench::new();
        let digest = bench.store.put(&[7; LARGE]).unwrap();
        let before = bench.store.open_verified(&digest).unwrap();
        assert!(matches!(before, Verified::File(_)));
        bench.store.commit().unwrap();
        let after = bench.store.open_verified(&digest).unwrap();
        assert!(matches!(after, Verified::File(_)));
        assert_eq!((content(before), content(after)), (vec![7; LARGE], vec![7; LARGE]));
    }

    #[test]
    fn damage_of_a_blob_that_waits_for_its_commit_is_found() {
        let bench = Bench::new();
        let digest = bench.store.put(&[7; LARGE]).unwrap();
        let tmp = fs::read_dir(bench.folder.path().join("tmp")).unwrap().next().unwrap().unwrap().path();
        fs::set_permissions(&tmp, Permissions::from_mode(0o600)).unwrap();
        fs::write(&tmp, vec![8; LARGE]).unwrap();
        let error = bench.store.open_verified(&digest).unwrap_err();
        assert!(matches!(error, StoreError::Missing { digest: named } if named == digest), "{error}");
        put(&bench.store, &[7; LARGE]);
        assert_eq!(content(bench.store.open_verified(&digest).unwrap()), [7; LARGE]);
    }

    #[test]
    fn damage_is_found_before_the_first_use_and_after_it() {
        for used_before in [false, true] {
            let bench = Bench::new();
            let digest = put(&bench.store, &[7; LARGE]);
            if used_before {
                bench.store.open_verified(&digest).unwrap();
            }
            bench.damage(&digest, LARGE / 2);
            let error = bench.store.open_verified(&digest).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { digest: named, .. } if named == digest), "{error}");
            let error = bench.store.open_verified(&digest).unwrap_err();
            assert!(matches!(error, StoreError::Missing { digest: named } if named == digest), "{error}");
            put(&bench.store, &[7; LARGE]);
            assert_eq!(content(bench.store.open_verified(&digest).unwrap()), [7; LARGE]);
        }
    }

    #[test]
    fn an_open_blob_outlives_its_name() {
        let bench = Bench::new();
        let digest = put(&bench.store, &[7; LARGE]);
        let opened = bench.store.open_verified(&digest).unwrap();
        fs::remove_file(bench.path(&digest)).unwrap();
        assert_eq!(content(opened), [7; LARGE]);
        assert!(matches!(bench.store.open_verified(&digest).unwrap_err(), StoreError::Missing { .. }));
    }

    /// A store on the real disk, on which a read of a blob fails with this error number as long as `fails` says so; the
    /// count is of the reads of blobs.
    fn on_failing(
        folder: &Path,
        errno: i32,
        fails: impl Fn(usize) -> bool + Send + Sync + 'static,
    ) -> (Store, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let seen = reads.clone();
        let decide = move |call: &Call| {
            let is_blob = call.path.components().any(|part| part.as_os_str() == "blobs");
            let fault = call.operation == "read_at" && is_blob && fails(seen.fetch_add(1, Ordering::SeqCst));
            fault.then_some(Fault::Error(errno))
        };
        let disk = FailingDisk::new(Arc::new(RealDisk), decide);
        (Store::open_on(Arc::new(disk), folder).unwrap(), reads)
    }

    #[test]
    fn the_bytes_are_read_once_in_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let (store, reads) = on_failing(folder.path(), libc::EIO, |_| false);
        let digest = put(&store, &[7; LARGE]);
        assert_eq!(reads.load(Ordering::SeqCst), 0);
        assert!(matches!(store.open_verified(&digest).unwrap(), Verified::File(_)));
        let once = reads.load(Ordering::SeqCst);
        assert!(once > 0);
        assert!(matches!(store.open_verified(&digest).unwrap(), Verified::File(_)));
        assert_eq!(reads.load(Ordering::SeqCst), once);
        let (another, reads) = on_failing(folder.path(), libc::EIO, |_| false);
        another.open_verified(&digest).unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), once, "another process verifies for itself");
    }

    #[test]
    fn a_medium_that_fails_is_damage_and_a_passing_fault_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = on_failing(folder.path(), libc::EIO, |_| true);
        let digest = put(&store, &[7; LARGE]);
        assert!(matches!(store.open_verified(&digest).unwrap_err(), StoreError::Damaged { .. }));
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = on_failing(folder.path(), libc::EIO, |read| read == 0);
        let digest = put(&store, &[7; LARGE]);
        assert!(matches!(store.open_verified(&digest).unwrap(), Verified::File(_)));
    }

    #[test]
    fn a_failure_that_is_no_damage_leaves_the_blob_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = on_failing(folder.path(), libc::ENOMEM, |read| read == 0);
        let digest = put(&store, &[7; LARGE]);
        assert!(matches!(store.open_verified(&digest).unwrap_err(), StoreError::Disk(_)));
        assert_eq!(content(store.open_verified(&digest).unwrap()), [7; LARGE]);
    }

    #[test]
    fn a_disk_without_files_of_the_operating_system_is_read() {
        let store = Store::open_on(Arc::new(ForgetfulDisk::default()), Path::new("/store")).unwrap();
        let digest = put(&store, &[7; LARGE]);
        assert!(matches!(store.open_verified(&digest).unwrap(), Verified::Read(bytes) if bytes == [7; LARGE]));
    }
}
