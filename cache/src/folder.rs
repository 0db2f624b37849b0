//! A folder as the files in it: every file below it, by its path within, and what it contains.
//!
//! Does not know why it is looked at, nor what kinds of files there are to people. Links are followed.
//!
//! One pass: folders are listed level by level, so that depth costs no stack, and the files of a level are looked at,
//! and hashed if need be, by all threads that this crate has.
//!
//! Invariants: the names in a folder are those of one moment, as far as its times tell: a folder that changed while it
//! was listed, or that a name vanished from before it was looked at, is looked at again; nothing but regular files is
//! opened; files come in the order of their names, and of several errors the same comes out, whatever the threads did.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::disk::{self, DiskError, FileKind, Links, Meta};
use crate::files::{FileError, FileIndex, RETRIES};
use crate::fingerprint::{FileState, Fingerprint};
use crate::store::Store;
use crate::threads::{aside, aside_with_waits};

/// A file in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderFile {
    /// Its path within the folder.
    pub name: String,
    /// What it contains.
    pub state: FileState,
}

/// Why the files of a folder cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// A link leads to a folder that holds it.
    #[error("{path} is a link to a folder that holds it", path = path.display())]
    Loop {
        /// The link.
        path: PathBuf,
    },
    /// A link leads nowhere.
    #[error("{path} is a link to nothing", path = path.display())]
    LinkToNothing {
        /// The link.
        path: PathBuf,
    },
    /// The path of a file within the folder is not UTF-8.
    #[error("{path} is not UTF-8", path = path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A folder cannot be listed, or what is in it cannot be looked at.
    #[error(transparent)]
    Disk(DiskError),
    /// A file in it has no digest.
    #[error(transparent)]
    File(FileError),
}

impl FolderError {
    /// What it is about.
    fn path(&self) -> &Path {
        match self {
            FolderError::Loop { path } | FolderError::LinkToNothing { path } | FolderError::NotUtf8 { path } => path,
            FolderError::Disk(error) | FolderError::File(FileError::Disk(error)) => &error.path,
            FolderError::File(
                FileError::Missing { path }
                | FileError::NotRegular { path, .. }
                | FileError::ChangedWhileRead { path }
                | FileError::NotKept { path, .. },
            ) => path,
        }
    }
}

/// Why one look at a folder came to nothing.
enum Trouble {
    /// This was there and is not any more, or is another folder than before.
    Changed(PathBuf),
    Error(FolderError),
}

impl Trouble {
    fn path(&self) -> &Path {
        match self {
            Trouble::Changed(path) => path,
            Trouble::Error(error) => error.path(),
        }
    }
}

impl From<FolderError> for Trouble {
    fn from(error: FolderError) -> Trouble {
        Trouble::Error(error)
    }
}

impl From<DiskError> for Trouble {
    fn from(error: DiskError) -> Trouble {
        FolderError::Disk(error).into()
    }
}

/// A folder on the way.
struct Folder {
    path: PathBuf,
    seen: Meta,
    /// Device and inode of each folder that holds it, and its own.
    places: Vec<(u64, u64)>,
}

impl Folder {
    fn new(path: PathBuf, seen: Meta, above: &[(u64, u64)]) -> Folder {
        let places = above.iter().copied().chain([(seen.device, seen.inode)]).collect();
        Folder { path, seen, places }
    }
}

enum Found {
    File(FolderFile),
    Folder(Box<Folder>),
}

/// A look at a folder.
struct Look<'l> {
    index: &'l FileIndex,
    root: &'l Path,
    /// Where small files are put that have to be read.
    store: Option<&'l Store>,
    is_left_out: &'l (dyn Fn(&Path) -> bool + Sync),
}

impl FileIndex {
    /// The files in the folder at `path`, links followed, but for those paths that are left out, with all that is
    /// below them. They come in the order of their names.
    ///
    /// # Errors
    /// If something in it cannot be read, is neither file nor folder, or the folder changed each time it was looked at.
    pub fn folder(
        &self,
        path: &Path,
        is_left_out: &(dyn Fn(&Path) -> bool + Sync),
    ) -> Result<Vec<FolderFile>, FolderError> {
        self.look(path, None, is_left_out)
    }

    /// [`FileIndex::folder`], which puts what it reads of small files into `store`: whoever wants to keep them need not have
    /// them read again. Files that were not read are not put.
    ///
    /// # Errors
    /// As [`FileIndex::folder`], or if a file cannot be put.
    pub fn folder_into(
        &self,
        store: &Store,
        path: &Path,
        is_left_out: &(dyn Fn(&Path) -> bool + Sync),
    ) -> Result<Vec<FolderFile>, FolderError> {
        self.look(path, Some(store), is_left_out)
    }

    fn look(
        &self,
        path: &Path,
        store: Option<&Store>,
        is_left_out: &(dyn Fn(&Path) -> bool + Sync),
    ) -> Result<Vec<FolderFile>, FolderError> {
        let root = std::path::absolute(path).map_err(disk::failed("resolve", path)).map_err(FolderError::Disk)?;
        let look = Look { index: self, root: &root, store, is_left_out };
        let mut attempts = 0;
        loop {
            attempts += 1;
            // To put is to wait for the drive now and then.
            let found = if store.is_some() { aside_with_waits(|| look.files()) } else { aside(|| look.files()) };
            match found {
                Ok(files) => return Ok(files),
                Err(Trouble::Error(error)) => return Err(error),
                Err(Trouble::Changed(_)) if attempts <= RETRIES => {}
                Err(Trouble::Changed(path)) => return Err(FolderError::File(FileError::ChangedWhileRead { path })),
            }
        }
    }
}

impl Look<'_> {
    fn files(&self) -> Result<Vec<FolderFile>, Trouble> {
        let mut files = Vec::new();
        let mut level = if (self.is_left_out)(self.root) { Vec::new() } else { vec![Box::new(self.root()?)] };
        while !level.is_empty() {
            let found: Vec<Result<Found, Trouble>> = level.par_iter().flat_map(|folder| self.list(folder)).collect();
            level.clear();
            let mut first: Option<Trouble> = None;
            for found in found {
                match found {
                    Ok(Found::File(file)) => files.push(file),
                    Ok(Found::Folder(folder)) => level.push(folder),
                    Err(trouble) if first.as_ref().is_some_and(|first| first.path() <= trouble.path()) => {}
                    Err(trouble) => first = Some(trouble),
                }
            }
            first.map_or(Ok(()), Err)?;
        }
        files.par_sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn root(&self) -> Result<Folder, FolderError> {
        let path = self.root.to_owned();
        match disk::look(&*self.index.disk, &path, Links::Follow).map_err(FolderError::Disk)? {
            None => Err(FolderError::File(FileError::Missing { path })),
            Some(seen) if seen.kind == FileKind::Folder => Ok(Folder::new(path, seen, &[])),
            Some(_) => Err(FolderError::Disk(disk::failed("list", &path)(ErrorKind::NotADirectory.into()))),
        }
    }

    /// What is in a folder, in no order.
    fn list(&self, folder: &Folder) -> Vec<Result<Found, Trouble>> {
        let names = match self.names(folder) {
            Ok(names) => names,
            Err(trouble) => return vec![Err(trouble)],
        };
        let paths = names.into_par_iter().map(|name| folder.path.join(name));
        let wanted = paths.filter(|path| !(self.is_left_out)(path));
        wanted.map(|path| self.look_at(&path, folder)).collect()
    }

    fn names(&self, folder: &Folder) -> Result<Vec<OsString>, Trouble> {
        let disk = &*self.index.disk;
        let names = disk::all_names(disk, &folder.path)?;
        let after = disk::look(disk, &folder.path, Links::Follow)?;
        match after.is_some_and(|after| Fingerprint::of(&after) == Fingerprint::of(&folder.seen)) {
            true => Ok(names),
            false => Err(Trouble::Changed(folder.path.clone())),
        }
    }

    fn look_at(&self, path: &Path, above: &Folder) -> Result<Found, Trouble> {
        let Some(found) = disk::look(&*self.index.disk, path, Links::Follow)? else {
            return Err(self.missing(path)?);
        };
        match found.kind {
            FileKind::Folder if above.places.contains(&(found.device, found.inode)) => {
                Err(FolderError::Loop { path: path.to_owned() }.into())
            }
            FileKind::Folder => Ok(Found::Folder(Box::new(Folder::new(path.to_owned(), found, &above.places)))),
            FileKind::File => self.file(path, &found).map(Found::File),
            FileKind::Other(kind) => {
                let path = path.to_owned();
                Err(FolderError::File(FileError::NotRegular { path, kind }).into())
            }
        }
    }

    fn file(&self, path: &Path, found: &Meta) -> Result<FolderFile, Trouble> {
        let name = path.strip_prefix(self.root).ok().and_then(Path::to_str);
        let Some(name) = name.map(str::to_owned) else {
            return Err(FolderError::NotUtf8 { path: path.to_owned() }.into());
        };
        match self.index.digest_of(path, found, self.store) {
            Ok(state) => Ok(FolderFile { name, state }),
            Err(FileError::Missing { path }) => Err(Trouble::Changed(path)),
            Err(error) => Err(FolderError::File(error).into()),
        }
    }

    /// Why nothing is at a path whose name is there, or was.
    fn missing(&self, path: &Path) -> Result<Trouble, Trouble> {
        let path = path.to_owned();
        Ok(match disk::look(&*self.index.disk, &path, Links::Refuse)? {
            Some(_) => FolderError::LinkToNothing { path }.into(),
            None => Trouble::Changed(path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::disk::tests::make_fifo;
    use crate::disk::{Access, Call, Disk, FailingDisk, Fault, ForgetfulDisk, RealDisk};
    use crate::fingerprint::Moment;
    use std::fs::{self, File, FileTimes};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, SystemTime};

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new(files: &[&str]) -> Bench {
            let bench = Bench(tempfile::tempdir().unwrap());
            fs::create_dir(bench.path("data")).unwrap();
            files.iter().for_each(|name| bench.write(name));
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str) {
            let path = self.path("data").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }

        fn index(&self) -> FileIndex {
            FileIndex::open(&self.path("files"))
        }

        fn look(&self) -> Result<Vec<FolderFile>, FolderError> {
            self.index().folder(&self.path("data"), &|_| false)
        }

        fn names(&self) -> Vec<String> {
            names(self.look())
        }

        fn error(&self) -> String {
            let text = self.look().unwrap_err().to_string();
            text.replace(&self.path("data").display().to_string(), "data")
        }

        /// Looks on a disk on which `change` happens before the calls of `operation` on the folder, at most so often.
        fn look_while(
            &self,
            operation: &'static str,
            times: usize,
            change: impl Fn(usize) + Send + Sync + 'static,
        ) -> (usize, Result<Vec<FolderFile>, FolderError>) {
            // Times of long ago: a change shows even within one tick of the clock.
            let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(100));
            File::open(self.path("data")).unwrap().set_times(old).unwrap();
            let (folder, listed) = (self.path("data"), Arc::new(Mutex::new(0)));
            let count = listed.clone();
            let disk = FailingDisk::new(Arc::new(RealDisk), move |call: &Call| {
                let mut listed = count.lock().unwrap();
                *listed += usize::from(call.operation == "names" && call.path == folder);
                if call.operation == operation && call.path == folder && (1..=times).contains(&*listed) {
                    change(*listed);
                }
                None
            });
            let index = FileIndex::open_on(Arc::new(disk), &self.path("files"));
            let found = index.folder(&self.path("data"), &|_| false);
            let listed = *listed.lock().unwrap();
            (listed, found)
        }
    }

    fn names(found: Result<Vec<FolderFile>, FolderError>) -> Vec<String> {
        found.unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn the_files_below_a_folder_come_in_the_order_of_their_names_with_their_digests() {
        let bench = Bench::new(&["b", "a/z", "a/b/c", "a.x", "ü"]);
        fs::create_dir(bench.path("data/empty")).unwrap();
        let found = bench.look().unwrap();
        for file in &found {
            let (digest, bytes) = (Digest::of(file.name.as_bytes()), file.name.len() as u64);
            assert_eq!(file.state, FileState { digest, bytes, executable: false });
        }
        assert_eq!(names(Ok(found)), ["a.x", "a/b/c", "a/z", "b", "ü"]);
    }

    #[test]
    fn what_is_left_out_is_not_looked_at() {
        let bench = Bench::new(&["a/x", "b/y", "c"]);
        symlink("nowhere", bench.path("data/b/link")).unwrap();
        let data = bench.path("data");
        let look =
            |left_out: &[PathBuf]| names(bench.index().folder(&data, &|path| left_out.iter().any(|out| out == path)));
        assert_eq!(look(&[data.join("b")]), ["a/x", "c"]);
        assert_eq!(look(&[data.join("b"), data.join("c")]), ["a/x"]);
        assert!(look(std::slice::from_ref(&data)).is_empty());
    }

    #[test]
    fn links_are_followed() {
        let bench = Bench::new(&["a/x"]);
        fs::write(bench.path("outside"), "a/x").unwrap();
        symlink("../outside", bench.path("data/file")).unwrap();
        symlink("a", bench.path("data/folder")).unwrap();
        let found = bench.look().unwrap();
        assert!(found.iter().all(|file| file.state.digest == Digest::of(b"a/x")));
        assert_eq!(names(Ok(found)), ["a/x", "file", "folder/x"]);
    }

    #[test]
    fn what_is_no_file_is_named() {
        let made = |make: &dyn Fn(&Bench)| {
            let bench = Bench::new(&["a/x"]);
            make(&bench);
            bench.error()
        };
        let link = |to: &'static str| made(&|bench| symlink(to, bench.path("data/a/link")).unwrap());
        assert_eq!(link("nowhere"), "data/a/link is a link to nothing");
        assert_eq!(link("../../data"), "data/a/link is a link to a folder that holds it");
        assert_eq!(link("."), "data/a/link is a link to a folder that holds it");
        assert_eq!(link("link"), "cannot stat data/a/link: Too many levels of symbolic links (os error 40)");
        let fifo = made(&|bench| {
            make_fifo(&bench.path("data/a/pipe"));
        });
        assert_eq!(fifo, "data/a/pipe is a fifo, not a regular file");
        let odd = made(&|bench| {
            fs::write(bench.path("data").join(std::ffi::OsString::from_vec(b"\xff".to_vec())), "").unwrap();
        });
        assert_eq!(odd, "data/\u{fffd} is not UTF-8");
        let missing = Bench::new(&[]);
        fs::remove_dir(missing.path("data")).unwrap();
        assert_eq!(missing.error(), "data does not exist");
        fs::write(missing.path("data"), "").unwrap();
        assert_eq!(missing.error(), "cannot list data: not a directory");
    }

    #[test]
    fn of_several_errors_the_first_by_name_is_told() {
        let bench = Bench::new(&["x"]);
        for name in ["c", "b", "d/deeper"] {
            fs::create_dir_all(bench.path("data/d")).unwrap();
            symlink("nowhere", bench.path("data").join(name)).unwrap();
        }
        for _ in 0..20 {
            assert_eq!(bench.error(), "data/b is a link to nothing");
        }
    }

    #[test]
    fn a_deep_folder_costs_no_stack() {
        let bench = Bench::new(&[]);
        let deep = "d/".repeat(1500);
        bench.write(&format!("{deep}x"));
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let found = std::thread::scope(|scope| small.spawn_scoped(scope, || bench.names()).unwrap().join().unwrap());
        assert_eq!(found, [format!("{deep}x")]);
    }

    #[test]
    fn the_files_of_an_unchanged_folder_are_not_opened_again() {
        let disk = ForgetfulDisk::at(Moment::now().seconds - 1000);
        disk.create_dir(Path::new("/data"), 0o755).unwrap();
        for number in 0..50 {
            disk.open(Path::new(&format!("/data/{number}")), Access::Create(0o644)).unwrap();
        }
        let look = |expected: bool| {
            let opened = Arc::new(Mutex::new(0));
            let count = opened.clone();
            let failing = FailingDisk::new(Arc::new(disk.clone()), move |call: &Call| {
                *count.lock().unwrap() += usize::from(call.operation == "open" && call.path.starts_with("/data"));
                None
            });
            let index = FileIndex::open_on(Arc::new(failing), Path::new("/files"));
            assert_eq!(index.folder(Path::new("/data"), &|_| false).unwrap().len(), 50);
            index.save().unwrap();
            assert_eq!(*opened.lock().unwrap() > 0, expected);
        };
        look(true);
        look(false);
    }

    #[test]
    fn files_that_are_looked_at_to_be_kept_are_read_once_and_can_be_had() {
        let bench = Bench::new(&["a", "sub/b"]);
        let reads = Arc::new(Mutex::new(Vec::new()));
        let (seen, data) = (reads.clone(), bench.path("data"));
        let disk = FailingDisk::new(Arc::new(RealDisk), move |call: &Call| {
            let below = call.path.strip_prefix(&data).ok().filter(|_| call.operation == "open");
            seen.lock().unwrap().extend(below.map(|path| path.to_string_lossy().into_owned()));
            None
        });
        let index = FileIndex::open_on(Arc::new(disk), &bench.path("files"));
        let store = Store::open(&bench.path("store")).unwrap();
        let files = index.folder_into(&store, &bench.path("data"), &|_| false).unwrap();
        let mut reads = reads.lock().unwrap().clone();
        reads.sort();
        assert_eq!(reads, ["a", "sub/b"]);
        for file in &files {
            assert_eq!(store.get(&file.state.digest).unwrap(), file.name.as_bytes());
        }
        assert_eq!(files, bench.look().unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_kept_is_named_with_the_reason() {
        let bench = Bench::new(&[]);
        drop(Store::open(&bench.path("store")).unwrap());
        // More than may wait for a commit.
        for number in 0..300_u64 {
            fs::write(bench.path(&format!("data/{number}")), number.to_le_bytes().repeat(8000)).unwrap();
        }
        let disk = FailingDisk::new(Arc::new(RealDisk), |call: &Call| {
            (call.operation == "write_at").then_some(Fault::Error(libc::ENOSPC))
        });
        let store = Store::open_on(Arc::new(disk), &bench.path("store")).unwrap();
        let error = bench.index().folder_into(&store, &bench.path("data"), &|_| false).unwrap_err();
        let (file, why) = (error.path().display().to_string(), error.to_string());
        let begins = format!("{file} cannot be kept in the store: cannot write {}", bench.path("store/").display());
        assert!(file.starts_with(&bench.path("data").display().to_string()), "{file}");
        assert!(why.starts_with(&begins) && why.ends_with(": No space left on device (os error 28)"), "{why}");
    }

    #[test]
    fn a_file_that_comes_while_the_folder_is_listed_is_seen() {
        let bench = Bench::new(&["a"]);
        let new = bench.path("data/b");
        let (listed, found) = bench.look_while("look", 1, move |_| fs::write(&new, "b").unwrap());
        assert_eq!((listed, names(found)), (2, vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_folder_that_changes_each_time_it_is_listed_is_an_error_that_names_it() {
        let bench = Bench::new(&["a"]);
        let data = bench.path("data");
        let change = move |time| {
            fs::write(data.join(format!("{time}")), "").unwrap();
            // Twice within one tick of the clock would not show.
            let hour = Duration::from_secs(3600 * time as u64);
            File::open(&data).unwrap().set_times(FileTimes::new().set_modified(SystemTime::now() - hour)).unwrap();
        };
        let (listed, found) = bench.look_while("look", usize::MAX, change);
        assert_eq!(listed, 1 + RETRIES);
        assert_eq!(
            found.unwrap_err().to_string(),
            format!("{} changed while it was read", bench.path("data").display())
        );
    }

    #[test]
    fn a_file_that_goes_before_it_is_looked_at_is_no_part_of_the_folder() {
        let bench = Bench::new(&["a", "b"]);
        let gone = bench.path("data/b");
        let vanishing = gone.clone();
        let listed = Arc::new(Mutex::new(0));
        let count = listed.clone();
        let disk = FailingDisk::new(Arc::new(RealDisk), move |call: &Call| {
            *count.lock().unwrap() += usize::from(call.operation == "names");
            if call.path == vanishing {
                let _ = fs::remove_file(&vanishing);
            }
            None
        });
        let index = FileIndex::open_on(Arc::new(disk), &bench.path("files"));
        assert_eq!(names(index.folder(&bench.path("data"), &|_| false)), ["a"]);
        assert_eq!((*listed.lock().unwrap(), gone.exists()), (2, false));
    }

    #[test]
    fn a_file_that_changes_each_time_it_is_read_is_named() {
        let bench = Bench::new(&["a", "b"]);
        let changing = bench.path("data/b");
        let disk = FailingDisk::new(Arc::new(RealDisk), move |call: &Call| {
            if call.operation == "read_at" && call.path == changing {
                let mut bytes = fs::read(&changing).unwrap();
                bytes.push(b'x');
                fs::write(&changing, bytes).unwrap();
            }
            None
        });
        let index = FileIndex::open_on(Arc::new(disk), &bench.path("files"));
        let error = index.folder(&bench.path("data"), &|_| false).unwrap_err();
        assert_eq!(error.to_string(), format!("{} changed while it was read", bench.path("data/b").display()));
    }
}
