//! Files that commands make: into the store, and back into the project.
//!
//! Invariant: no byte of the user is lost. What an out replaces in the project is moved to the trash first, unless the
//! store holds the same bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_cache::{Artifact, Entry, Shape, Store, Tree};
use headwater_engine::{Failure, Outs};
use walkdir::WalkDir;

use crate::project::{Project, file_type};

static REPLACED: AtomicU64 = AtomicU64::new(0);

/// Why an out cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    #[error("{path}: {source}")]
    Files { path: String, source: io::Error },
    #[error("the out {path} is {found}; an out is a file, or a folder of files")]
    NotAFile { path: String, found: &'static str },
    #[error("the name of the out {path} is not UTF-8")]
    Name { path: String },
}

/// Stores a file, or a folder as a tree of files.
///
/// # Errors
/// If it is something else, or cannot be read or stored.
pub fn store(store: &Store, path: &Path) -> Result<Artifact, Failure> {
    let about = at(path, fs::symlink_metadata(path))?;
    if about.is_dir() {
        return store_folder(store, path);
    }
    let (type_name, digest, bytes) = store_file(store, path, &about)?;
    Ok(Artifact { type_name, shape: Shape::Blob, digest, bytes })
}

fn store_file(
    store: &Store,
    path: &Path,
    about: &fs::Metadata,
) -> Result<(String, headwater_cache::Digest, u64), Failure> {
    use std::os::unix::fs::PermissionsExt;
    if !about.is_file() {
        let found = if about.is_symlink() { "a symbolic link" } else { "a device, pipe or socket" };
        return Err(Failure::new(OutError::NotAFile { path: path.display().to_string(), found }));
    }
    let (digest, bytes) = store.put_file(path)?;
    Ok((file_type(about.permissions().mode() & 0o111 != 0).to_owned(), digest, bytes))
}

fn store_folder(store: &Store, folder: &Path) -> Result<Artifact, Failure> {
    let mut entries = Vec::new();
    for found in WalkDir::new(folder).sort_by_file_name() {
        let found = found.map_err(Failure::new)?;
        if found.file_type().is_dir() {
            continue;
        }
        let about = found.metadata().map_err(Failure::new)?;
        let (type_name, digest, bytes) = store_file(store, found.path(), &about)?;
        let name = found.path().strip_prefix(folder).ok().and_then(Path::to_str);
        let name = name.ok_or_else(|| Failure::new(OutError::Name { path: found.path().display().to_string() }))?;
        entries.push(Entry { name: name.into(), type_name, shape: Shape::Blob, digest, bytes });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let tree = Tree { header: String::new(), entries };
    let digest = store.put_tree(&tree)?;
    Ok(Artifact { type_name: "directory".into(), shape: Shape::Tree, digest, bytes: tree.bytes() })
}

/// Writes the entries of a tree as files.
///
/// # Errors
/// If a blob is missing or damaged, or a file cannot be written.
pub fn write_tree(store: &Store, artifact: &Artifact, folder: &Path) -> Result<(), Failure> {
    let tree = store.get_tree(&artifact.digest)?;
    at(folder, fs::create_dir_all(folder))?;
    for entry in &tree.entries {
        let target = folder.join(&entry.name);
        at(&target, fs::create_dir_all(target.parent().unwrap_or(folder)))?;
        store.restore(&entry.digest, &target, entry.type_name == "executable")?;
    }
    Ok(())
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

    fn one_in_place(&self, path: &Path, artifact: &Artifact) -> Result<bool, Failure> {
        let full = self.project.root.join(path);
        let Ok(about) = fs::symlink_metadata(&full) else { return Ok(false) };
        if artifact.shape == Shape::Tree {
            if !about.is_dir() {
                return Ok(false);
            }
            let tree = self.project.folder(&full, &[]).map_err(Failure::new)?;
            let encoded = tree.encode().map_err(Failure::new)?;
            return Ok(headwater_cache::Digest::of(&encoded) == artifact.digest);
        }
        if !about.is_file() {
            return Ok(false);
        }
        let state = self.project.index.digest(&full).map_err(Failure::new)?;
        Ok(state.digest == artifact.digest && file_type(state.executable) == artifact.type_name)
    }

    fn restore_one(&self, store: &Store, path: &Path, artifact: &Artifact) -> Result<(), Failure> {
        if self.one_in_place(path, artifact)? {
            return Ok(());
        }
        let full = self.project.root.join(path);
        if artifact.shape == Shape::Tree {
            self.put_aside(store, &full)?;
            return write_tree(store, artifact, &full);
        }
        self.put_aside(store, &full)?;
        at(&full, fs::create_dir_all(full.parent().unwrap_or(&full)))?;
        Ok(store.restore(&artifact.digest, &full, artifact.type_name == "executable")?)
    }

    /// Moves what stands at a path to the trash, unless the store can bring it back.
    fn put_aside(&self, store: &Store, full: &Path) -> Result<(), Failure> {
        let Ok(about) = fs::symlink_metadata(full) else { return Ok(()) };
        if about.is_file() && self.project.index.digest(full).is_ok_and(|state| store.contains(&state.digest)) {
            return Ok(());
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let number = REPLACED.fetch_add(1, Ordering::Relaxed);
        let relative = full.strip_prefix(&self.project.root).unwrap_or(full);
        let trash = self.project.state.join("trash").join(format!("{seconds}-{}-{number}", std::process::id()));
        let target = trash.join(relative);
        at(&target, fs::create_dir_all(target.parent().unwrap_or(&trash)))?;
        at(full, fs::rename(full, &target))?;
        Ok(())
    }
}

impl Outs for PlacedOuts {
    fn in_place(&self, outputs: &[Artifact]) -> Result<bool, Failure> {
        for (path, artifact) in self.paths.iter().zip(outputs) {
            if !self.one_in_place(path, artifact)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn restore(&self, store: &Store, outputs: &[Artifact]) -> Result<(), Failure> {
        for (path, artifact) in self.paths.iter().zip(outputs) {
            self.restore_one(store, path, artifact)?;
        }
        Ok(())
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|source| Failure::new(OutError::Files { path: path.display().to_string(), source }))
}
