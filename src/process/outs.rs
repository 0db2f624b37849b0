//! Files that commands make: into the store, and back into the project.
//!
//! A folder is a tree of its files, each named by its path, and of its empty folders. It does not know commands.
//!
//! Outs are put in place before the record of what made them is durable. If the power goes in between, the stage runs
//! again, and what stands there then is treated as any file of the user: it stays if it is what the stage gives, else it
//! is put aside. Its content is looked at, never taken for right.
//!
//! Invariants: no byte of the user is lost: what an out replaces in the project is moved to the trash, and goes from there
//! only if the store has the same bytes, durably; an out is put where nothing is, never over what was saved meanwhile.
//! Nothing is written outside of an out's own path, whatever the names in a tree. Of several processes one at a time changes
//! the outs of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_cache::{Artifact, Digest, Entry, Shape, Store, StoreError, Tree, hash_file, is_temp};
use headwater_engine::{Failure, Outs};
use walkdir::{DirEntry, WalkDir};

use crate::process::made::MadeOut;
use crate::process::work::remove_all;
use crate::project::{Project, file_type};

/// A file of this length, most of which are holes, is refused: it would be stored with zeros in their place.
const HOLLOW_LENGTH: u64 = 16 * 1024 * 1024 * 1024;
const HOLLOW_SHARE: u64 = 64;

static REPLACED: AtomicU64 = AtomicU64::new(0);

/// How often what another program saves in the place of an out is put aside.
const TAKEN_AGAIN: usize = 8;

const FOLDER: &str = "directory";

/// Why an out cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    #[error("cannot {operation} {path}: {source}")]
    Files { operation: &'static str, path: String, source: io::Error },
    #[error("the out `{path}` is {found}; an out is a file, or a folder of files")]
    NotAFile { path: String, found: &'static str },
    #[error(
        "the out `{path}` is {length} bytes long, of which {written} were written: holes are not kept, so that it would fill the store"
    )]
    Holes { path: String, length: u64, written: u64 },
    #[error("the out `{path}` lies behind a link, `{link}`; an out is a file, or a folder of files")]
    BehindLink { path: String, link: String },
    #[error("the name of the out {path:?} is not UTF-8")]
    Name { path: PathBuf },
    #[error("{path} is no lock file; remove it", path = path.display())]
    NoLockFile { path: PathBuf },
    #[error("a stored folder has an entry {name:?}, which is no path inside it")]
    Escapes { name: String },
}

/// Something found in a folder that is, or is to be, an out.
enum Found {
    File { executable: bool },
    EmptyFolder,
    Other(&'static str),
}

impl Found {
    fn of(about: &fs::Metadata) -> Self {
        match about.file_type() {
            kind if kind.is_file() => Self::File { executable: about.permissions().mode() & 0o100 != 0 },
            kind if kind.is_symlink() => Self::Other("a symbolic link"),
            _ => Self::Other("a device, pipe or socket"),
        }
    }
}

/// What a folder holds, by path within it; links are not followed.
fn scan(folder: &Path) -> Result<BTreeMap<PathBuf, Found>, Failure> {
    let mut found = BTreeMap::new();
    // What a killed restore left is nobody's, and is swept when something is put there again.
    let is_somebodys = |entry: &DirEntry| !is_temp(entry.file_name());
    for entry in WalkDir::new(folder).min_depth(1).into_iter().filter_entry(is_somebodys) {
        let entry = entry.map_err(|error| unlisted(folder, error))?;
        let path = entry.path().strip_prefix(folder).expect("a walk stays below its root").to_owned();
        if entry.file_type().is_dir() {
            let mut inside = at("list", entry.path(), fs::read_dir(entry.path()))?;
            if inside.next().is_none() {
                found.insert(path, Found::EmptyFolder);
            }
        } else {
            found.insert(path, Found::of(&entry.metadata().map_err(|error| unlisted(folder, error))?));
        }
    }
    Ok(found)
}

/// Refuses an out that a link above it leads to: it lies elsewhere, where the command may not even read.
///
/// # Errors
/// If there is such a link.
pub fn refuse_links(folder: &Path, out: &Path) -> Result<(), Failure> {
    let is_link = |above: &&Path| {
        let named = !above.as_os_str().is_empty();
        named && fs::symlink_metadata(folder.join(above)).is_ok_and(|about| about.file_type().is_symlink())
    };
    match out.ancestors().skip(1).find(is_link) {
        None => Ok(()),
        Some(link) => {
            let (path, link) = (out.display().to_string(), link.display().to_string());
            Err(Failure::new(OutError::BehindLink { path, link }))
        }
    }
}

/// Stores a file, or a folder as a tree. `shown` is what the user calls it.
///
/// # Errors
/// If it is something else, or cannot be read or stored.
pub fn store(store: &Store, path: &Path, shown: &Path) -> Result<Artifact, Failure> {
    let about = at("read", path, fs::symlink_metadata(path))?;
    if !about.is_dir() {
        let (type_name, digest, bytes) = store_file(store, path, &Found::of(&about), shown)?;
        return Ok(Artifact { type_name: type_name.into(), shape: Shape::Blob, digest, bytes });
    }
    let mut entries = Vec::new();
    for (name, found) in scan(path)? {
        let (full, shown) = (path.join(&name), shown.join(&name));
        let Some(name) = name.to_str() else { return Err(Failure::new(OutError::Name { path: shown })) };
        entries.push(match found {
            Found::EmptyFolder => empty_folder(name, store.put_tree(&Tree::default())?),
            found => {
                let (type_name, digest, bytes) = store_file(store, &full, &found, &shown)?;
                Entry { name: name.into(), type_name: type_name.into(), shape: Shape::Blob, digest, bytes }
            }
        });
    }
    let tree = tree_of(entries);
    let digest = store.put_tree(&tree)?;
    Ok(Artifact { type_name: FOLDER.into(), shape: Shape::Tree, digest, bytes: tree.bytes() })
}

fn store_file(store: &Store, path: &Path, found: &Found, shown: &Path) -> Result<(&'static str, Digest, u64), Failure> {
    let found = match found {
        Found::File { executable } => {
            refuse_holes(path, shown)?;
            let (digest, bytes) = store.put_file(path)?;
            return Ok((file_type(*executable), digest, bytes));
        }
        Found::EmptyFolder => "a folder",
        Found::Other(found) => found,
    };
    Err(Failure::new(OutError::NotAFile { path: shown.display().to_string(), found }))
}

/// File systems that compress write less than a file is long, but not so much less.
fn refuse_holes(path: &Path, shown: &Path) -> Result<(), Failure> {
    let about = at("read", path, fs::symlink_metadata(path))?;
    let (length, written) = (about.len(), about.blocks() * 512);
    if length < HOLLOW_LENGTH || written > length / HOLLOW_SHARE {
        return Ok(());
    }
    Err(Failure::new(OutError::Holes { path: shown.display().to_string(), length, written }))
}

fn empty_folder(name: &str, digest: Digest) -> Entry {
    Entry { name: name.into(), type_name: FOLDER.into(), shape: Shape::Tree, digest, bytes: 0 }
}

fn tree_of(mut entries: Vec<Entry>) -> Tree {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Tree { header: String::new(), entries }
}

/// How blobs become files.
#[derive(Clone, Copy)]
pub enum Place {
    /// To stay, where nothing is.
    Stay,
    /// In a folder that is removed soon.
    Lend,
}

impl Place {
    fn file(self, store: &Store, digest: &Digest, target: &Path, executable: bool) -> Result<(), StoreError> {
        match self {
            Self::Stay => store.restore_new(digest, target, executable),
            Self::Lend => store.lend(digest, target, executable),
        }
    }

    fn folder(self, store: &Store, path: &Path) -> Result<(), Failure> {
        match self {
            Self::Stay => Ok(store.make_folder(path)?),
            Self::Lend => at("make the folder", path, fs::create_dir_all(path)),
        }
    }
}

/// Writes the entries of a tree as files.
///
/// # Errors
/// If a blob is missing or damaged, a name leads out of the folder, or a file cannot be written.
pub fn write_tree(store: &Store, artifact: &Artifact, folder: &Path, place: Place) -> Result<(), Failure> {
    let tree = store.get_tree(&artifact.digest)?;
    place.folder(store, folder)?;
    tree.entries.iter().try_for_each(|entry| write_entry(store, entry, folder, place))
}

fn write_entry(store: &Store, entry: &Entry, folder: &Path, place: Place) -> Result<(), Failure> {
    let target = folder.join(inside(&entry.name)?);
    if entry.shape == Shape::Tree {
        // The only trees within folders are empty ones.
        return place.folder(store, &target);
    }
    place.folder(store, target.parent().unwrap_or(folder))?;
    Ok(place.file(store, &entry.digest, &target, entry.type_name == file_type(true))?)
}

/// The name of an entry as a path. A store may be shared, so a name is not trusted to stay inside its folder.
fn inside(name: &str) -> Result<&Path, Failure> {
    let path = Path::new(name);
    let plain = !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain { Ok(path) } else { Err(Failure::new(OutError::Escapes { name: name.into() })) }
}

/// The outs of one node, in the project.
pub struct PlacedOuts {
    paths: Vec<PathBuf>,
    project: Arc<Project>,
}

impl PlacedOuts {
    /// Outs at these paths, relative to the project's root.
    pub fn new(paths: Vec<PathBuf>, project: Arc<Project>) -> Self {
        Self { paths, project }
    }

    /// Held while outs are put in place: another process would take half-written files for the user's.
    fn lock(&self) -> Result<File, Failure> {
        let first = self.paths.first().map(|path| path.to_string_lossy()).unwrap_or_default();
        let name = format!("outs-{}", &Digest::of(first.as_bytes()).short()[..2]);
        let path = self.project.state.join("locks").join(name);
        make_parent(&path)?;
        // A link could lead to a lock that this process holds itself, and waits for then.
        if fs::symlink_metadata(&path).is_ok_and(|about| !about.is_file()) {
            return Err(Failure::new(OutError::NoLockFile { path }));
        }
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = at("open", &path, file)?;
        at("lock", &path, file.lock())?;
        Ok(file)
    }

    /// Whether an out is what stands there. What cannot be looked at is not.
    fn one_in_place(&self, path: &Path, artifact: &Artifact) -> bool {
        if self.project.unsynced.is_distrusted {
            return false;
        }
        let full = self.project.root.join(path);
        let Ok(about) = fs::symlink_metadata(&full) else { return false };
        match artifact.shape {
            Shape::Blob => about.is_file() && self.is_file(&full, &artifact.type_name, &artifact.digest),
            Shape::Tree => about.is_dir() && self.folder_digest(&full) == Some(artifact.digest),
        }
    }

    fn is_file(&self, full: &Path, type_name: &str, digest: &Digest) -> bool {
        let state = self.project.index.digest(full);
        state.is_ok_and(|state| state.digest == *digest && file_type(state.executable) == type_name)
    }

    /// The digest that a folder would have as an out.
    fn folder_digest(&self, full: &Path) -> Option<Digest> {
        let empty = Digest::of(&Tree::default().encode().ok()?);
        let mut entries = Vec::new();
        for (name, found) in scan(full).ok()? {
            let (path, name) = (full.join(&name), name.to_str()?);
            entries.push(match found {
                Found::EmptyFolder => empty_folder(name, empty),
                Found::Other(_) => return None,
                Found::File { .. } => {
                    let state = self.project.index.digest(&path).ok()?;
                    let (type_name, digest, bytes) = (file_type(state.executable).into(), state.digest, state.bytes);
                    Entry { name: name.into(), type_name, shape: Shape::Blob, digest, bytes }
                }
            });
        }
        Some(Digest::of(&tree_of(entries).encode().ok()?))
    }

    fn restore_one(&self, store: &Store, path: &Path, artifact: &Artifact) -> Result<(), Failure> {
        let mut made = self.project.workshop.made.take(path, artifact);
        if self.one_in_place(path, artifact) {
            return Ok(());
        }
        let full = self.project.root.join(path);
        store.make_folder(full.parent().unwrap_or(&full))?;
        let mut restore = || match artifact.shape {
            Shape::Tree => self.restore_folder(store, &full, artifact),
            Shape::Blob => self.restore_file(store, &full, artifact, made.take()),
        };
        let mut restored = restore();
        // What was saved there since the last time is put aside, too.
        for _ in 0..TAKEN_AGAIN {
            if !restored.as_ref().is_err_and(is_taken) {
                break;
            }
            restored = restore();
        }
        restored
    }

    fn restore_file(
        &self,
        store: &Store,
        full: &Path,
        artifact: &Artifact,
        made: Option<MadeOut>,
    ) -> Result<(), Failure> {
        self.put_aside(store, full)?.settle(store)?;
        let moved = made.map_or(Ok(false), |made| made.move_to(full, store))?;
        if moved {
            return Ok(());
        }
        Ok(store.restore_new(&artifact.digest, full, artifact.type_name == file_type(true))?)
    }

    /// Touches only what differs: a folder may be large, and a change in it small.
    fn restore_folder(&self, store: &Store, full: &Path, artifact: &Artifact) -> Result<(), Failure> {
        let tree = store.get_tree(&artifact.digest)?;
        let mut wanted = BTreeMap::new();
        for entry in &tree.entries {
            wanted.insert(inside(&entry.name)?, entry);
        }
        let mut aside = Aside::default();
        if fs::symlink_metadata(full).is_ok_and(|about| !about.is_dir()) {
            aside = self.put_aside(store, full)?;
        }
        store.make_folder(full)?;
        let distrusted = self.project.unsynced.is_distrusted;
        for (name, found) in scan(full)? {
            let path = full.join(&name);
            let right = |entry: &&Entry| !distrusted && self.is_file(&path, &entry.type_name, &entry.digest);
            match (found, wanted.get(name.as_path()).filter(|entry| right(entry))) {
                (Found::EmptyFolder, _) => {}
                (Found::File { .. }, Some(_)) => drop(wanted.remove(name.as_path())),
                _ => aside.0.extend(self.put_aside(store, &path)?.0),
            }
        }
        remove_empty_folders(full);
        aside.settle(store)?;
        wanted.values().try_for_each(|entry| write_entry(store, entry, full, Place::Stay))
    }

    /// Moves what stands at a path to the trash, and removes it there if the store can bring it back. In its place it might
    /// be something else by the time that it is removed. It lies in the trash under its path from the beginning: a run that is
    /// killed while it looks at it leaves it so.
    fn put_aside(&self, store: &Store, full: &Path) -> Result<Aside, Failure> {
        if fs::symlink_metadata(full).is_err() {
            return Ok(Aside::default());
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let number = REPLACED.fetch_add(1, Ordering::Relaxed);
        // A folder that is new, whatever the age of what gets in: what is old in the trash is removed some day.
        let trash = self.project.state.join("trash").join(format!("{seconds}-{}-{number}", std::process::id()));
        let root = &self.project.root;
        let relative = full.strip_prefix(root).expect("an out lies in its project").to_owned();
        let target = trash.join(&relative);
        make_parent(&target)?;
        let is_kept = match move_to(full, &target) {
            // It has gone by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            moved => at("move to the trash", full, moved).and_then(|()| is_kept(store, &target)),
        };
        if matches!(is_kept, Ok(true)) {
            // Nothing depends on it: what stays is removed some day, as all of the trash.
            let _ = remove_all(&trash);
            return Ok(Aside::default());
        }
        let told = target.strip_prefix(root).unwrap_or(&target).to_owned();
        self.project.replaced.lock().unwrap_or_else(PoisonError::into_inner).push((relative, told));
        is_kept.map(|_| Aside(BTreeSet::from([target])))
    }
}

/// What lies in the trash for good.
#[derive(Default)]
#[must_use = "it has to be durable before something is put in its place"]
struct Aside(BTreeSet<PathBuf>);

impl Aside {
    /// Makes it durable: that its name is gone could else outlast a power cut, and its new one not.
    fn settle(self, store: &Store) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Ok(store.sync_file_systems(&self.0)?) }
    }
}

/// Whether the store has every file of what stands at a path, durably.
fn is_kept(store: &Store, path: &Path) -> Result<bool, Failure> {
    let about = at("read", path, fs::symlink_metadata(path))?;
    if !about.is_dir() {
        return is_kept_file(store, path, &Found::of(&about));
    }
    for (name, found) in scan(path)? {
        if !is_kept_file(store, &path.join(name), &found)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_kept_file(store: &Store, path: &Path, found: &Found) -> Result<bool, Failure> {
    match found {
        Found::EmptyFolder => Ok(true),
        Found::Other(_) => Ok(false),
        // One that cannot be read is kept.
        Found::File { .. } => hash_file(path).map_or(Ok(false), |digest| Ok(store.keeps(&digest)?)),
    }
}

fn is_taken(failure: &Failure) -> bool {
    matches!(failure, Failure::Error(error)
        if matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Taken { .. })))
}

impl Outs for PlacedOuts {
    fn in_place(&self, outputs: &[Artifact]) -> Result<bool, Failure> {
        Ok(self.paths.iter().zip(outputs).all(|(path, artifact)| self.one_in_place(path, artifact)))
    }

    fn restore(&self, store: &Store, outputs: &[Artifact]) -> Result<(), Failure> {
        let _held = self.lock()?;
        let unsynced = &self.project.unsynced;
        at("make", &unsynced.path, unsynced.note())?;
        self.paths.iter().zip(outputs).try_for_each(|(path, artifact)| self.restore_one(store, path, artifact))
    }
}

/// Below a folder, deepest first; one that holds something cannot be removed, and stays.
fn remove_empty_folders(folder: &Path) {
    let folders = WalkDir::new(folder).min_depth(1).contents_first(true).into_iter().filter_map(Result::ok);
    for entry in folders.filter(|entry| entry.file_type().is_dir()) {
        let _ = fs::remove_dir(entry.path());
    }
}

/// Also from a linked folder on another file system. What is saved at its place while it is copied stays there.
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => move_across(from, to),
        moved => moved,
    }
}

fn move_across(from: &Path, to: &Path) -> io::Result<()> {
    let number = REPLACED.fetch_add(1, Ordering::Relaxed);
    let beside = from.with_file_name(format!("headwater-replaced-{}-{number}", std::process::id()));
    fs::rename(from, &beside)?;
    let copied = copy_all(&beside, to).and_then(|()| Ok(rustix::fs::syncfs(File::open(to.parent().unwrap_or(to))?)?));
    match copied {
        // What cannot be removed is there twice, which is no loss.
        Ok(()) => drop(remove_all(&beside)),
        Err(error) => {
            // Back to where it was, unless something is there again.
            let (here, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
            let back = rustix::fs::renameat_with(here, &beside, here, from, flags);
            let told = |_| io::Error::other(format!("{error}; what was there is {} now", beside.display()));
            return Err(back.err().map_or_else(|| io::Error::new(error.kind(), error.to_string()), told));
        }
    }
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry?;
        let target = match entry.path().strip_prefix(from) {
            Ok(inside) if !inside.as_os_str().is_empty() => to.join(inside),
            _ => to.to_owned(),
        };
        match entry.file_type() {
            kind if kind.is_dir() => fs::create_dir_all(&target)?,
            kind if kind.is_symlink() => std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), &target)?),
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is a device, pipe or socket")),
        }
    }
    Ok(())
}

fn make_parent(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(path);
    at("make the folder", parent, fs::create_dir_all(parent))
}

/// A walk's failure; one in the middle of a folder does not say which folder.
fn unlisted(folder: &Path, error: walkdir::Error) -> Failure {
    let path = error.path().unwrap_or(folder).display().to_string();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("it holds itself"));
    Failure::new(OutError::Files { operation: "list", path, source })
}

fn at<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|source| Failure::new(OutError::Files { operation, path: path.display().to_string(), source }))
}

#[cfg(test)]
mod tests {
    use headwater_cache::disk::{Call, FailingDisk, Fault, RealDisk};

    use super::*;

    #[test]
    fn an_entry_whose_name_leads_out_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Store::open(&folder.path().join("store")).expect("a store");
        for name in ["../escaped", "a/../../escaped", "/tmp/escaped", "..", "./a"] {
            let digest = kept.put(b"content").expect("put");
            let (type_name, shape) = ("file".into(), Shape::Blob);
            let tree = tree_of(vec![Entry { name: name.into(), type_name, shape, digest, bytes: 7 }]);
            let digest = kept.put_tree(&tree).expect("put");
            let artifact = Artifact { type_name: FOLDER.into(), shape: Shape::Tree, digest, bytes: 7 };
            let target = folder.path().join("out");
            let failure = write_tree(&kept, &artifact, &target, Place::Stay).expect_err("refused");
            let Failure::Error(error) = failure else { panic!("an error") };
            assert!(error.to_string().contains("no path inside it"), "{error}");
            assert!(!folder.path().join("escaped").exists() && scan(&target).expect("a folder").is_empty());
        }
    }

    /// A project in a folder, with a store whose calls fail as `decide` says, and an out of this content.
    fn placed(
        folder: &Path,
        decide: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static,
    ) -> (PlacedOuts, Store, Artifact) {
        let project = Arc::new(Project::of(&folder.join("pipeline.toml")).expect("a project"));
        let failing = FailingDisk::new(Arc::new(RealDisk), decide);
        let store = Store::open_on(Arc::new(failing), &project.state.join("store")).expect("a store");
        let digest = store.put(b"content").expect("put");
        store.commit().expect("committed");
        let artifact = Artifact { type_name: "file".into(), shape: Shape::Blob, digest, bytes: 7 };
        (PlacedOuts::new(vec!["a/b/out".into()], project), store, artifact)
    }

    fn put_aside(outs: &PlacedOuts, store: &Store, out: &Path) {
        let settled = outs.put_aside(store, out).and_then(|aside| aside.settle(store));
        settled.map_err(|failure| failure.to_string()).expect("put aside");
    }

    /// What the files in the trash hold.
    fn trash(outs: &PlacedOuts) -> Vec<String> {
        let entries = WalkDir::new(outs.project.state.join("trash")).into_iter().filter_map(Result::ok);
        let files = entries.filter(|entry| entry.file_type().is_file());
        files.map(|entry| fs::read_to_string(entry.path()).expect("text")).collect()
    }

    #[test]
    fn what_was_put_aside_before_the_store_failed_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let (out, full) = (folder.path().join("a/b/out"), Arc::new(AtomicU64::new(0)));
        let is_full = Arc::clone(&full);
        let (outs, store, artifact) = placed(folder.path(), move |call| {
            let fails = is_full.load(Ordering::SeqCst) > 0 && call.operation.contains("write");
            fails.then(|| Fault::Error(rustix::io::Errno::NOSPC.raw_os_error()))
        });
        fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        fs::write(&out, "mine").expect("a file");
        store.put(b"of another node").expect("put");
        full.store(1, Ordering::SeqCst);
        outs.restore(&store, &[artifact]).expect_err("the disk is full");
        assert_eq!(trash(&outs), ["mine"]);
        let replaced = outs.project.replaced.lock().expect("no panic").clone();
        let [(stood, lies)] = replaced.as_slice() else { panic!("{replaced:?}") };
        assert_eq!(stood, Path::new("a/b/out"));
        assert_eq!(fs::read_to_string(outs.project.root.join(lies)).expect("a file"), "mine");
    }

    #[test]
    fn what_is_moved_to_another_file_system_is_there_whole_or_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("from/sub")).expect("a folder");
        fs::write(path("from/sub/file"), "mine").expect("a file");
        std::os::unix::fs::symlink("sub/file", path("from/link")).expect("a link");
        move_across(&path("from"), &path("to")).expect("moved");
        assert_eq!(fs::read_to_string(path("to/link")).expect("a file"), "mine");
        let _socket = std::os::unix::net::UnixListener::bind(path("to/socket")).expect("a socket");
        let error = move_across(&path("to"), &path("never")).expect_err("a socket").to_string();
        assert_eq!(error, "it is a device, pipe or socket");
        assert_eq!(fs::read_to_string(path("to/sub/file")).expect("a file"), "mine");
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).expect("a list").map(|e| e.expect("one").file_name()).collect();
        names.sort();
        assert_eq!(names, ["never", "to"]);
    }

    #[test]
    fn what_is_saved_while_an_out_is_put_in_its_place_goes_to_the_trash() {
        let folder = tempfile::tempdir().expect("a folder");
        let (out, saves) = (folder.path().join("a/b/out"), AtomicU64::new(0));
        let saved = out.clone();
        let save = move |call: &Call| {
            if call.operation == "rename_new" && saves.fetch_add(1, Ordering::SeqCst) < 2 {
                fs::write(&saved, "mine").expect("saved");
            }
            None
        };
        let (outs, store, artifact) = placed(folder.path(), save);
        fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        fs::write(&out, "before").expect("a file");
        outs.restore(&store, &[artifact]).map_err(|failure| failure.to_string()).expect("restored");
        assert_eq!(fs::read_to_string(&out).expect("the out"), "content");
        let mut kept = trash(&outs);
        kept.sort();
        assert_eq!(kept, ["before", "mine", "mine"]);
    }

    #[test]
    fn what_the_store_has_is_not_kept_in_the_trash_and_what_it_has_damaged_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outs, store, artifact) = placed(folder.path(), |_| None);
        let out = folder.path().join("a/b/out");
        outs.restore(&store, &[artifact]).map_err(|failure| failure.to_string()).expect("restored");
        put_aside(&outs, &store, &out);
        assert!(!out.exists() && trash(&outs).is_empty());
        fs::write(&out, "content").expect("a file");
        let segments = fs::read_dir(outs.project.state.join("store/segments")).expect("a folder");
        let segment = segments
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.extension().is_some_and(|end| end == "seg"));
        let segment = segment.expect("a segment");
        let mut bytes = fs::read(&segment).expect("bytes");
        let at = bytes.windows(7).position(|part| part == b"content").expect("the blob");
        bytes[at] ^= 1;
        fs::write(&segment, bytes).expect("damaged");
        put_aside(&outs, &store, &out);
        assert_eq!(trash(&outs), ["content"]);
    }

    #[test]
    fn outs_whose_sync_has_failed_are_put_in_place_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outs, store, artifact) = placed(folder.path(), |_| None);
        let restore = |outs: &PlacedOuts| {
            outs.restore(&store, std::slice::from_ref(&artifact))
                .map_err(|failure| failure.to_string())
                .expect("restored");
            fs::metadata(folder.path().join("a/b/out")).expect("the out").modified().expect("a time")
        };
        let first = restore(&outs);
        assert_eq!(restore(&outs), first);
        outs.project.unsynced.distrust().expect("noted");
        let project = Arc::new(Project::of(&folder.path().join("pipeline.toml")).expect("a project"));
        let next = PlacedOuts::new(outs.paths.clone(), project);
        assert!(
            !next.in_place(std::slice::from_ref(&artifact)).map_err(|failure| failure.to_string()).expect("looked at")
        );
        assert_ne!(restore(&next), first);
    }

    #[test]
    fn a_link_in_the_place_of_a_lock_file_is_refused_and_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let project = Arc::new(Project::of(&folder.path().join("pipeline.toml")).expect("a project"));
        let outs = PlacedOuts::new(vec!["a.txt".into()], project.clone());
        drop(outs.lock().map_err(|failure| failure.to_string()).expect("a lock"));
        let locks = project.state.join("locks");
        let path = fs::read_dir(&locks).expect("a folder").next().expect("a lock file").expect("an entry").path();
        let held = File::create(locks.join("held")).expect("a file");
        held.lock().expect("a lock");
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("held", &path).expect("a link");
        let failure = outs.lock().expect_err("refused");
        assert_eq!(failure.to_string(), format!("{} is no lock file; remove it", path.display()));
    }

    #[test]
    fn a_folder_can_be_copied_where_it_cannot_be_renamed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("sub/empty")).expect("folders");
        fs::write(from.join("sub/file"), "content").expect("a file");
        std::os::unix::fs::symlink("file", from.join("sub/link")).expect("a link");
        copy_all(&from, &to).expect("a copy");
        assert_eq!(fs::read(to.join("sub/link")).expect("a link to a file"), b"content");
        assert!(to.join("sub/empty").is_dir());
    }
}
