//! `Snapshot`: files whose contents were certain at one moment, so that one look at each tells whether all still are what
//! they were.
//!
//! Does not know what the contents are, nor what follows from them. It is an index and no truth: what is wrong with its
//! bytes makes it one that cannot be used.
//!
//! Invariants: a file is in it only if the file index was sure of its content by the rules of `fingerprint.rs`; it holds
//! only under the boot in which it was made, and while the clock has not gone back behind that moment.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::disk::{self, Disk, Links};
use crate::files::{FileIndex, boot_id};
use crate::fingerprint::{Fingerprint, Moment};

const MAGIC: [u8; 4] = *b"HWSS";
const VERSION: u32 = 1;
/// About a million files with long paths.
const MAX_BYTES: usize = 512 << 20;
/// Fewer looks than these are not worth a thread.
const FEW: usize = 512;

/// Files that were certainly what they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    boot: Vec<u8>,
    at: Moment,
    files: Vec<SnapshotFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SnapshotFile {
    path: PathBuf,
    follow: bool,
    fingerprint: Fingerprint,
}

impl FileIndex {
    /// These files, if each certainly has the digest that is expected of it now. `None` if one has another, or was
    /// changed so lately that its times do not tell, or the system does not say which boot this is.
    pub fn snapshot(&self, expected: &[(PathBuf, Links, Digest)]) -> Option<Snapshot> {
        let boot = boot_id(&*self.disk);
        let certain = |(path, links, digest): &(PathBuf, Links, Digest)| {
            let path = std::path::absolute(path).ok()?;
            let fingerprint = Fingerprint::of(&disk::look(&*self.disk, &path, *links).ok()??);
            let certain = self.certain(&path, &fingerprint)? == *digest;
            certain.then(|| SnapshotFile { path, follow: *links == Links::Follow, fingerprint })
        };
        let files: Option<Vec<SnapshotFile>> = expected.iter().map(certain).collect();
        let files = files.filter(|_| !boot.is_empty())?;
        Some(Snapshot { boot, at: Moment::now(), files })
    }
}

impl Snapshot {
    /// Whether every file certainly still is what it was.
    pub fn holds(&self, disk: &dyn Disk) -> bool {
        let same = |file: &SnapshotFile| {
            let links = if file.follow { Links::Follow } else { Links::Refuse };
            disk::look(disk, &file.path, links)
                .is_ok_and(|found| found.is_some_and(|found| Fingerprint::of(&found) == file.fingerprint))
        };
        let all = || match self.files.len() {
            ..FEW => self.files.iter().all(same),
            FEW.. => self.files.par_iter().with_min_len(FEW / 2).all(same),
        };
        !self.boot.is_empty() && self.boot == boot_id(disk) && self.at <= Moment::now() && all()
    }

    /// As bytes.
    ///
    /// # Errors
    /// If a path is no text, or these are more than half a gigabyte.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode::<MAX_BYTES>(MAGIC, VERSION, self)
    }

    /// Out of bytes.
    ///
    /// # Errors
    /// If they are no such thing.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode::<MAX_BYTES, Self>(MAGIC, VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    struct Bench {
        folder: tempfile::TempDir,
        index: FileIndex,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let index = FileIndex::open(&folder.path().join("index"));
            Bench { folder, index }
        }

        /// A file; its status changed now, so the index is sure of it after the margin alone.
        fn write(&self, name: &str, content: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        }

        fn snapshot(&self, path: &Path, content: &str) -> Option<Snapshot> {
            self.index.snapshot(&[(path.to_owned(), Links::Refuse, Digest::of(content.as_bytes()))])
        }

        /// Hashes a file until the index is sure of it.
        fn settled(&self, path: &Path, content: &str) -> Snapshot {
            for _ in 0..200 {
                self.index.digest(path).unwrap();
                if let Some(snapshot) = self.snapshot(path, content) {
                    return snapshot;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            panic!("the index is never sure of {}", path.display());
        }
    }

    #[test]
    fn what_was_certain_holds_until_the_file_changes() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        let snapshot = bench.settled(&path, "old");
        assert!(snapshot.holds(&RealDisk));
        assert!(Snapshot::decode(&snapshot.encode().unwrap()).unwrap().holds(&RealDisk));
        let times = fs::metadata(&path).unwrap();
        fs::write(&path, "new").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(times.modified().unwrap()).unwrap();
        assert!(!snapshot.holds(&RealDisk), "the same size and the same time");
        fs::remove_file(&path).unwrap();
        assert!(!snapshot.holds(&RealDisk));
    }

    #[test]
    fn a_file_that_was_just_written_is_not_certain() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        bench.index.digest(&path).unwrap();
        assert_eq!(bench.snapshot(&path, "old"), None);
    }

    #[test]
    fn what_has_another_digest_than_expected_is_not_certain() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        bench.settled(&path, "old");
        assert_eq!(bench.snapshot(&path, "new"), None);
        assert_eq!(bench.snapshot(&bench.folder.path().join("b"), "old"), None);
    }

    #[test]
    fn a_link_is_another_thing_than_the_file_it_leads_to() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        let snapshot = bench.settled(&path, "old");
        let link = bench.folder.path().join("b");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let linked =
            Snapshot { files: vec![SnapshotFile { path: link, ..snapshot.files[0].clone() }], ..snapshot.clone() };
        assert!(!linked.holds(&RealDisk));
    }

    #[test]
    fn nothing_holds_under_another_boot_or_a_clock_that_went_back() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        let snapshot = bench.settled(&path, "old");
        let boot = b"another".to_vec();
        assert!(!Snapshot { boot, ..snapshot.clone() }.holds(&RealDisk));
        assert!(!Snapshot { boot: Vec::new(), ..snapshot.clone() }.holds(&RealDisk));
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        let seconds = tomorrow.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!(!Snapshot { at: Moment { seconds, nanos: 0 }, ..snapshot }.holds(&RealDisk));
    }

    #[test]
    fn more_files_than_a_thread_looks_at_hold_and_cease_to_hold() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        let mut snapshot = bench.settled(&path, "old");
        snapshot.files = vec![snapshot.files[0].clone(); FEW * 3];
        assert!(snapshot.holds(&RealDisk));
        snapshot.files[FEW * 2].fingerprint.size += 1;
        assert!(!snapshot.holds(&RealDisk));
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bench = Bench::new();
        let path = bench.write("a", "old");
        let bytes = bench.settled(&path, "old").encode().unwrap();
        for cut in 0..bytes.len() {
            assert!(Snapshot::decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
