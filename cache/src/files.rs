//! `FileIndex`: the digests of the user's files, remembered so that an unchanged file is not read again.
//!
//! Does not know pipelines, nor what is in a store. It is an index and no truth: losing it costs time only.
//!
//! A file is known by its fingerprint: device, inode, size, modification time and status-change time to the
//! nanosecond, and mode. What may be trusted, and when, is said in `fingerprint.rs`; how it is kept, in `lines.rs`.
//!
//! What is written through a mapping is told by a file's times only after a sync: `settling.rs` sees to that.
//!
//! Invariants: a digest is returned only if the file had one fingerprint, on one open file, before and after it
//! was read; nothing but a regular file is opened; what is damaged, unreadable or unknown in the index is not there;
//! nothing of the index is read before it is asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::digest::Digest;
use crate::disk::{self, Disk, DiskError, Links, Meta, Opened, RealDisk, failed};
use crate::fingerprint::{FileState, Fingerprint, Hashed, Moment};
use crate::lines::{Key, Lines};
use crate::settling::Settling;
use crate::store::{Store, StoreError};

/// Where Linux says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// More than the name of a boot ever has.
const MAX_BOOT_ID: u64 = 64;
/// How often a file that changed while it was read is read again.
pub(crate) const RETRIES: usize = 3;

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no such file.
    #[error("{path} does not exist", path = path.display())]
    Missing {
        /// The path, absolute.
        path: PathBuf,
    },
    /// It is a directory, a fifo, a device …
    #[error("{path} is a {kind}, not a regular file", path = path.display())]
    NotRegular {
        /// The path, absolute.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It changed each time it was read.
    #[error("{path} changed while it was read", path = path.display())]
    ChangedWhileRead {
        /// The path, absolute.
        path: PathBuf,
    },
    /// The store does not take it.
    #[error("{path} cannot be kept in the store: {source}", path = path.display())]
    NotKept {
        /// The path, absolute.
        path: PathBuf,
        /// Why.
        source: Box<StoreError>,
    },
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Digests of files by absolute path. Used from many threads at once.
#[derive(Debug)]
pub struct FileIndex {
    pub(crate) disk: Arc<dyn Disk>,
    path: PathBuf,
    known: OnceLock<RwLock<Lines>>,
    settling: Settling,
}

impl FileIndex {
    /// The index kept at `path` and beside it; an empty one if there is none, or none that can be read.
    pub fn open(path: &Path) -> FileIndex {
        FileIndex::open_on(Arc::new(RealDisk), path)
    }

    /// [`FileIndex::open`] on another disk than that of the operating system.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> FileIndex {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        FileIndex { disk, path, known: OnceLock::new(), settling: Settling::default() }
    }

    /// What the file at `path` contains, links followed. It is read only if the index cannot tell.
    ///
    /// # Errors
    /// If there is no such file, if it is no regular file, if it cannot be read, or if it changed each time it was
    /// read.
    pub fn digest(&self, path: &Path) -> Result<FileState, FileError> {
        let path = std::path::absolute(path).map_err(failed("resolve", path))?;
        let found = self.look_at(&path)?;
        self.digest_of(&path, &found, None)
    }

    fn look_at(&self, path: &Path) -> Result<Meta, FileError> {
        match disk::look(&*self.disk, path, Links::Follow)? {
            Some(found) if found.is_file() => Ok(found),
            Some(found) => Err(FileError::NotRegular { path: path.to_owned(), kind: found.kind.name() }),
            None => Err(FileError::Missing { path: path.to_owned() }),
        }
    }

    /// [`FileIndex::digest`] of a regular file that was just looked at, by its absolute path. A small one that has to be read
    /// is put into `store`, too.
    pub(crate) fn digest_of(&self, path: &Path, found: &Meta, store: Option<&Store>) -> Result<FileState, FileError> {
        let key = Key::of(path);
        let trusted = self.get(&key).and_then(|hashed| trusted(&hashed, found));
        trusted.map_or_else(|| self.read(path, key, store), Ok)
    }

    /// Whether the file at `path` has the content `digest` now: the question after a stage ran. It is read again
    /// unless the index can be trusted. A file that is gone, is no regular file any more or does not hold still
    /// is not still the same.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn still(&self, path: &Path, digest: &Digest) -> Result<bool, FileError> {
        match self.digest(path) {
            Ok(state) => Ok(state.digest == *digest),
            Err(FileError::Missing { .. } | FileError::NotRegular { .. } | FileError::ChangedWhileRead { .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what is new, durably: a part of the index, or now and then all of it. What another process has saved
    /// meanwhile stays.
    ///
    /// # Errors
    /// If it cannot be written; it is still there to be saved then.
    pub fn save(&self) -> Result<(), FileError> {
        match self.known.get() {
            None => Ok(()),
            Some(known) => Ok(known.write().unwrap_or_else(PoisonError::into_inner).save()?),
        }
    }

    fn known(&self) -> &RwLock<Lines> {
        let load = || RwLock::new(Lines::load(self.disk.clone(), &self.path, &boot_id(&*self.disk)));
        self.known.get_or_init(load)
    }

    /// The digest that a file of this absolute path and fingerprint certainly has.
    pub(crate) fn certain(&self, path: &Path, fingerprint: &Fingerprint) -> Option<Digest> {
        let hashed = self.get(&Key::of(path))?;
        hashed.is_trusted(fingerprint, Moment::now()).then_some(hashed.digest)
    }

    fn get(&self, key: &Key) -> Option<Hashed> {
        self.known().read().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    fn remember(&self, key: Key, hashed: Hashed) {
        self.known().write().unwrap_or_else(PoisonError::into_inner).insert(key, hashed);
    }

    /// Reads a file that was just looked at until it holds still, and remembers what it is.
    fn read(&self, path: &Path, key: Key, store: Option<&Store>) -> Result<FileState, FileError> {
        for _ in 0..=RETRIES {
            if let Some((hashed, settled)) = self.hash(path, store)? {
                if settled {
                    self.remember(key, hashed);
                }
                return Ok(hashed.state());
            }
            self.look_at(path)?;
        }
        Err(FileError::ChangedWhileRead { path: path.to_owned() })
    }

    /// Reads and hashes a file, and puts a small one into `store`; `None` if it changed meanwhile. And whether it tells of
    /// changes from then on, by its times.
    fn hash(&self, path: &Path, store: Option<&Store>) -> Result<Option<(Hashed, bool)>, FileError> {
        // Before the file is opened: a change after this moment must look too young.
        let hashed_at = Moment::now();
        let (file, found) = match disk::open_seen(&*self.disk, path, Links::Follow)? {
            Opened::Regular(file, found) => (file, found),
            Opened::Other(kind) => return Err(FileError::NotRegular { path: path.to_owned(), kind }),
            Opened::Missing => return Err(FileError::Missing { path: path.to_owned() }),
        };
        let settled = self.settling.settle(&*file, &found);
        let fingerprint = Fingerprint::of(&found);
        let (digest, bytes) = match store.filter(|store| store.is_small(fingerprint.size)) {
            Some(store) => disk::with_bytes(&*file, path, fingerprint.size as usize, |bytes| put(store, path, bytes))??,
            // One byte more than there should be: a file that grows for ever is not followed.
            None => disk::hash(&*file, path, fingerprint.size.saturating_add(1))?,
        };
        let after = disk::look_at(&*file, path)?;
        let unchanged = Fingerprint::of(&after) == fingerprint && bytes == fingerprint.size;
        Ok(unchanged.then_some((Hashed { fingerprint, hashed_at, digest }, settled)))
    }
}

/// What was hashed, if a file that looks like this certainly still has that content.
fn trusted(hashed: &Hashed, found: &Meta) -> Option<FileState> {
    hashed.is_trusted(&Fingerprint::of(found), Moment::now()).then(|| hashed.state())
}

fn put(store: &Store, path: &Path, bytes: &[u8]) -> Result<(Digest, u64), FileError> {
    let not_kept = |source| FileError::NotKept { path: path.to_owned(), source: Box::new(source) };
    Ok((store.put(bytes).map_err(not_kept)?, bytes.len() as u64))
}

/// What this boot is called; empty if that cannot be told, and then it is never the same boot.
pub(crate) fn boot_id(disk: &dyn Disk) -> Vec<u8> {
    let path = Path::new(BOOT_ID);
    match disk::open_regular(disk, path, Links::Refuse) {
        Ok(Opened::Regular(file, _)) => disk::read(&*file, path, MAX_BOOT_ID).unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::make_fifo;
    use crate::disk::{Access, Call, FailingDisk, ForgetfulDisk};
    use crate::fingerprint::{MARGIN_SECONDS, SETTLED_SECONDS};
    use std::fs::{self, FileTimes, OpenOptions, Permissions};
    use std::io::Write;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { folder: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.path(name);
            fs::write(&path, content).unwrap();
            path
        }

        fn index(&self) -> FileIndex {
            FileIndex::open(&self.path("state/files.idx"))
        }
    }

    fn fingerprint(path: &Path) -> Fingerprint {
        Fingerprint::of(&RealDisk.look(path, Links::Follow).unwrap())
    }

    /// Makes the index believe a wrong digest, hashed `seconds` after the file's last change.
    fn plant(index: &FileIndex, path: &Path, seconds: i64) -> Digest {
        let fingerprint = fingerprint(path);
        let last = fingerprint.modified.max(fingerprint.changed);
        let hashed_at = Moment { seconds: last.seconds + seconds, ..last };
        let digest = Digest::of(b"a planted digest");
        index.remember(Key::of(path), Hashed { fingerprint, hashed_at, digest });
        digest
    }

    fn wait_until_old(path: &Path) {
        let print = fingerprint(path);
        while print.modified.max(print.changed).plus(MARGIN_SECONDS) > Moment::now() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn a_file_has_the_digest_of_its_content() {
        let bench = Bench::new();
        let path = bench.write("a", b"content");
        let expected = FileState { digest: Digest::of(b"content"), bytes: 7, executable: false };
        assert_eq!(bench.index().digest(&path).unwrap(), expected);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let expected = FileState { executable: true, ..expected };
        assert_eq!(bench.index().digest(&path).unwrap(), expected);
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let bench = Bench::new();
        let path = bench.write("a", b"content");
        wait_until_old(&path);
        let index = bench.index();
        let planted = plant(&index, &path, MARGIN_SECONDS);
        assert_eq!(index.digest(&path).unwrap().digest, planted);
    }

    #[test]
    fn a_racily_clean_file_is_hashed_again() {
        let bench = Bench::new();
        let path = bench.write("a", b"content");
        wait_until_old(&path);
        let index = bench.index();
        plant(&index, &path, MARGIN_SECONDS - 1);
        assert_eq!(index.digest(&path).unwrap().digest, Digest::of(b"content"));
    }

    #[test]
    fn same_size_same_mtime_edit_is_seen() {
        let bench = Bench::new();
        let path = bench.write("a", b"before");
        let index = bench.index();
        wait_until_old(&path);
        assert_eq!(index.digest(&path).unwrap().digest, Digest::of(b"before"));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(b"after!").unwrap();
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
        assert_eq!(index.digest(&path).unwrap().digest, Digest::of(b"after!"));
    }

    #[test]
    fn a_file_put_in_the_place_of_another_is_seen() {
        let bench = Bench::new();
        let (path, other) = (bench.write("a", b"before"), bench.write("b", b"after!"));
        let index = bench.index();
        wait_until_old(&other);
        index.digest(&path).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(index.digest(&path).unwrap().digest, Digest::of(b"after!"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Bench::new().index().digest(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/file does not exist");
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_not_opened() {
        let bench = Bench::new();
        let fifo = bench.path("fifo");
        make_fifo(&fifo);
        let socket = bench.path("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let folder = bench.folder.path().to_owned();
        let cases = [
            (fifo, "fifo"),
            (socket, "socket"),
            (folder, "directory"),
            (PathBuf::from("/dev/null"), "character device"),
        ];
        for (path, kind) in cases {
            assert_eq!(
                bench.index().digest(&path).unwrap_err().to_string(),
                format!("{} is a {kind}, not a regular file", path.display())
            );
        }
    }

    #[test]
    fn a_link_is_followed_and_a_loop_is_an_error() {
        let bench = Bench::new();
        bench.write("a", b"content");
        std::os::unix::fs::symlink("a", bench.path("link")).unwrap();
        std::os::unix::fs::symlink("loop", bench.path("loop")).unwrap();
        let index = bench.index();
        let state = index.digest(&bench.path("link")).unwrap();
        assert_eq!(state.digest, Digest::of(b"content"));
        let error = index.digest(&bench.path("loop")).unwrap_err();
        assert!(matches!(error, FileError::Disk(_)), "{error}");
    }

    #[test]
    fn a_file_that_changes_each_time_it_is_read_is_an_error() {
        let bench = Bench::new();
        let path = bench.write("a", &vec![0; 4 << 20]);
        let done = std::sync::atomic::AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    file.write_all(b"x").unwrap();
                }
            });
            // Now and then the writer may sleep through a whole reading.
            let found = (0..10_000).find_map(|_| bench.index().digest(&path).err());
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            found
        });
        assert_eq!(result.unwrap().to_string(), format!("{} changed while it was read", path.display()));
    }

    /// An index on a disk on which `change` happens before each call that reads the file at `path`, told how often it
    /// was opened.
    fn while_reading(bench: &Bench, path: &Path, change: impl Fn(usize) + Send + Sync + 'static) -> FileIndex {
        let (path, opened) = (path.to_owned(), std::sync::atomic::AtomicUsize::new(0));
        let disk = FailingDisk::new(Arc::new(RealDisk), move |call: &Call| {
            let is_open = call.operation == "open" && call.path == path;
            let count = opened.fetch_add(usize::from(is_open), std::sync::atomic::Ordering::SeqCst);
            if call.operation == "read_at" && call.path == path {
                change(count);
            }
            None
        });
        FileIndex::open_on(Arc::new(disk), &bench.path("state/files.idx"))
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again_and_known_by_what_it_is_then() {
        let bench = Bench::new();
        let path = bench.write("a", b"before");
        let changing = path.clone();
        let index = while_reading(&bench, &path, move |opened| {
            if opened == 1 {
                fs::write(&changing, "longer than before").unwrap();
            }
        });
        assert_eq!(index.digest(&path).unwrap().digest, Digest::of(b"longer than before"));
    }

    #[test]
    fn a_file_that_changes_each_time_is_read_three_times_more_and_then_named() {
        let bench = Bench::new();
        let path = bench.write("a", b"");
        let (changing, last) = (path.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let told = last.clone();
        let index = while_reading(&bench, &path, move |opened| {
            told.store(opened, std::sync::atomic::Ordering::SeqCst);
            OpenOptions::new().append(true).open(&changing).unwrap().write_all(b"x").unwrap();
        });
        let error = index.digest(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{} changed while it was read", path.display()));
        assert_eq!(last.load(std::sync::atomic::Ordering::SeqCst), 1 + RETRIES);
    }

    #[test]
    fn an_index_is_read_back_whatever_the_names() {
        let bench = Bench::new();
        let name = std::ffi::OsString::from_vec(b"\xff new\nline".to_vec());
        let odd = bench.folder.path().join(name);
        fs::write(&odd, b"odd").unwrap();
        let index = bench.index();
        index.digest(&odd).unwrap();
        index.digest(&bench.write("a", b"content")).unwrap();
        index.save().unwrap();
        let (again, other) = (bench.index(), bench.path("a"));
        for path in [&odd, &other] {
            let hashed = again.get(&Key::of(path));
            assert!(hashed.is_some());
            assert_eq!(hashed, index.get(&Key::of(path)));
        }
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let bench = Bench::new();
        let path = bench.write("a", b"content");
        wait_until_old(&path);
        let index = bench.index();
        index.save().unwrap();
        assert!(!bench.path("state").exists());
        index.digest(&path).unwrap();
        index.save().unwrap();
        fs::remove_file(bench.path("state/files.idx")).unwrap();
        index.digest(&path).unwrap();
        index.save().unwrap();
        assert!(!bench.path("state/files.idx").exists());
    }

    #[test]
    fn a_failed_save_can_be_repeated() {
        let bench = Bench::new();
        bench.write("state", b"a file in the place of the folder");
        let index = bench.index();
        index.digest(&bench.write("a", b"content")).unwrap();
        assert!(index.save().is_err());
        fs::remove_file(bench.path("state")).unwrap();
        index.save().unwrap();
        assert!(bench.path("state/files.idx").exists());
    }

    #[test]
    fn an_edit_that_a_power_cut_undid_is_seen_though_its_times_survived() {
        let disk = ForgetfulDisk::at(Moment::now().seconds - 60);
        let write = |bytes: &[u8]| {
            let file = disk.open(Path::new("/file"), Access::Edit(0o644)).unwrap();
            file.write_at(bytes, 0).unwrap();
        };
        write(b"before");
        disk.sync_all();
        write(b"after!");
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new("/files.idx"));
        assert_eq!(index.digest(Path::new("/file")).unwrap().digest, Digest::of(b"after!"));
        index.save().unwrap();
        for crashed in disk.crashes(64, 0) {
            let file = disk::open(&crashed, Path::new("/file"), Access::Read(Links::Follow)).unwrap();
            let content = disk::read(&*file, Path::new("/file"), 6).unwrap();
            let index = FileIndex::open_on(Arc::new(crashed), Path::new("/files.idx"));
            assert_eq!(index.digest(Path::new("/file")).unwrap().digest, Digest::of(&content));
        }
    }

    #[test]
    fn a_file_that_had_settled_is_known_after_another_boot() {
        let disk = ForgetfulDisk::at(Moment::now().seconds - SETTLED_SECONDS - 60);
        drop(disk.open(Path::new("/file"), Access::Edit(0o644)).unwrap());
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new("/files.idx"));
        index.digest(Path::new("/file")).unwrap();
        index.save().unwrap();
        let again = FileIndex::open_on(Arc::new(disk), Path::new("/files.idx"));
        assert!(again.get(&Key::of(Path::new("/file"))).is_some());
    }

    #[test]
    fn a_crash_while_the_index_is_saved_leaves_the_old_one_or_the_new_one() {
        let disk = ForgetfulDisk::at(Moment::now().seconds - SETTLED_SECONDS - 60);
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new("/files.idx"));
        for name in ["/one", "/two"] {
            drop(disk.open(Path::new(name), Access::Edit(0o644)).unwrap());
            disk.sync_all();
            index.digest(Path::new(name)).unwrap();
            index.save().unwrap();
            for crashed in disk.crashes(64, 0) {
                let again = FileIndex::open_on(Arc::new(crashed), Path::new("/files.idx"));
                assert!(again.get(&Key::of(Path::new("/one"))).is_some(), "after {name}");
            }
        }
    }

    #[test]
    fn what_is_damaged_in_an_index_is_not_there() {
        let bench = Bench::new();
        let index = bench.index();
        let path = bench.write("a", b"content");
        index.digest(&path).unwrap();
        index.save().unwrap();
        let file = bench.path("state/files.idx");
        let good = fs::read(&file).unwrap();
        let known = || bench.index().get(&Key::of(&path)).is_some();
        assert!(known());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &bytes).unwrap();
            assert!(!known(), "bit {bit}");
        }
        for length in 0..good.len() {
            fs::write(&file, &good[..length]).unwrap();
            assert!(!known(), "cut at {length}");
        }
    }

    #[test]
    fn an_index_of_another_version_is_replaced() {
        let bench = Bench::new();
        fs::create_dir(bench.path("state")).unwrap();
        for name in ["state/files.idx", "state/files.idx.new"] {
            bench.write(name, &[&b"HWFI\x02\0\0\0"[..], &[1; 1000]].concat());
        }
        let index = bench.index();
        index.digest(&bench.write("a", b"content")).unwrap();
        index.save().unwrap();
        assert!(bench.index().get(&Key::of(&bench.path("a"))).is_some());
    }

    #[test]
    fn nothing_of_the_index_is_read_before_it_is_asked_for() {
        let disk = FailingDisk::counting(Arc::new(ForgetfulDisk::new()));
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new("/files.idx"));
        index.save().unwrap();
        assert_eq!(disk.calls(), 0);
    }

    #[test]
    fn still_sees_an_edit_a_removal_and_a_replacement() {
        let bench = Bench::new();
        let path = bench.write("a", b"before");
        let index = bench.index();
        let before = index.digest(&path).unwrap().digest;
        assert!(index.still(&path, &before).unwrap());
        fs::write(&path, b"after!").unwrap();
        assert!(!index.still(&path, &before).unwrap());
        fs::write(&path, b"before").unwrap();
        assert!(index.still(&path, &before).unwrap(), "content counts, not times");
        fs::remove_file(&path).unwrap();
        assert!(!index.still(&path, &before).unwrap());
        fs::create_dir(&path).unwrap();
        assert!(!index.still(&path, &before).unwrap());
    }

    #[test]
    fn many_threads_ask_at_once() {
        let bench = Bench::new();
        let paths: Vec<_> = (0..8u8).map(|i| bench.write(&format!("{i}"), &[i; 1000])).collect();
        let index = bench.index();
        std::thread::scope(|scope| {
            for path in paths.iter().chain(&paths) {
                let index = &index;
                scope.spawn(move || {
                    let state = index.digest(path).unwrap();
                    assert_eq!(state.digest, Digest::of(&fs::read(path).unwrap()));
                });
            }
        });
    }

    #[test]
    fn a_relative_and_an_absolute_path_are_one_file() {
        let index = Bench::new().index();
        index.digest(Path::new("Cargo.toml")).unwrap();
        let absolute = std::path::absolute("Cargo.toml").unwrap();
        index.digest(&absolute).unwrap();
        assert_eq!(index.known().read().unwrap().len(), 1);
    }
}
