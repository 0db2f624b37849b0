//! `Project`: the folder of a pipeline file, and the state beside it.
//!
//! | in `.headwater/` | |
//! |---|---|
//! | `store/` | artifacts and ledger, unless `HEADWATER_STORE` or `[store] path` moves them |
//! | `files`, `files.new` | the file index |
//! | `runs/` | the journal, a file a run |
//! | `logs/` | the captured output of commands, a file a node |
//! | `work/`, `failed/` | folders of commands that run or failed |
//! | `locks/` | held while outs are put in place |
//! | `unsynced` | there while outs are in place that may not be durable |
//! | `trash/` | files of the project that outs replaced |
//!
//! It does not know what a pipeline is. Invariant: no path of this file ever enters a key.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use headwater_cache::{
    Artifact, Digest, Entry, FileError, FileIndex, FolderError, FolderFile, Shape, Store, Tree, is_temp,
};
use headwater_engine::{SourceError, Sources, run::SourceState};

use crate::error::nearest;
use crate::process::unsynced::Unsynced;
use crate::process::workshop::Workshop;

/// The name of the state folder.
pub const STATE: &str = ".headwater";

/// The name of a pipeline file, unless another is given.
pub const PIPELINE: &str = "pipeline.toml";

/// What programs keep for themselves beside a project's content: no part of a folder, unless a path names it.
const BY_PRODUCTS: [&str; 4] = [".git", "__pycache__", ".ipynb_checkpoints", ".DS_Store"];

/// How much of a node's name a file's name holds; with what is added it stays below the 255 bytes that there are.
const NAME_BYTES: usize = 160;

/// A project's folders and its file index.
pub struct Project {
    pub root: PathBuf,
    /// The name of the pipeline file in it.
    pub file: PathBuf,
    pub state: PathBuf,
    pub index: FileIndex,
    pub workshop: Workshop,
    pub unsynced: Unsynced,
    /// What outs have replaced in this run and is nowhere else: where it stood, and where it lies now, in the project.
    pub replaced: Mutex<Vec<(PathBuf, PathBuf)>>,
}

impl Project {
    /// The project of a pipeline file.
    ///
    /// # Errors
    /// If its folder cannot be found.
    pub fn of(pipeline: &Path) -> io::Result<Self> {
        let folder = match pipeline.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let root = folder.canonicalize()?;
        let state = root.join(STATE);
        let index = FileIndex::open(&state.join("files"));
        let file = pipeline.file_name().map(PathBuf::from).unwrap_or_default();
        let (workshop, unsynced) = (Workshop::new(), Unsynced::new(&state));
        Ok(Self { root, file, state, index, workshop, unsynced, replaced: Mutex::default() })
    }

    /// Where the store is: the environment, then the pipeline file, then the state folder decide.
    pub fn store_path(&self, declared: Option<&str>) -> PathBuf {
        match (std::env::var_os("HEADWATER_STORE"), declared) {
            (Some(path), _) if !path.is_empty() => PathBuf::from(path),
            (_, Some(path)) => match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
                (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
                _ => self.root.join(path),
            },
            _ => self.state.join("store"),
        }
    }

    /// A node's name as the name of a file: readable, and distinct for distinct nodes.
    pub fn file_name(node: &str) -> String {
        let plain = |c: char| if c.is_alphanumeric() || "_-=,[].".contains(c) { c } else { '_' };
        let mut readable: String = node.chars().map(plain).collect();
        readable.truncate(readable.floor_char_boundary(NAME_BYTES));
        if readable == node { readable } else { format!("{readable}-{}", &Digest::of(node.as_bytes()).short()) }
    }

    /// Where commands run.
    pub fn work(&self) -> PathBuf {
        self.state.join("work")
    }

    /// Where a node's captured output is kept.
    pub fn log_path(&self, node: &str) -> PathBuf {
        self.state.join("logs").join(format!("{}.log", Self::file_name(node)))
    }

    /// A file or folder of the project as an artifact, and its tree if it is a folder; small files of a folder that have to be
    /// read are put into `store`.
    ///
    /// # Errors
    /// If it is missing, or cannot be read or put.
    pub fn look_at(&self, path: &Path, without: &[PathBuf], store: Option<&Store>) -> Result<SourceState, SourceError> {
        let full = self.root.join(path);
        let about = match fs::metadata(&full) {
            // A folder of nothing but outs is made by the nodes that write them.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !without.is_empty() => None,
            other => Some(other.map_err(|error| self.missing(path, &error))?),
        };
        if about.as_ref().is_some_and(|about| !about.is_dir()) {
            let artifact = self.file(&full).map_err(|error| SourceError(error.to_string()))?;
            return Ok(SourceState { artifact, tree: None });
        }
        let tree = match about {
            None => Tree::default(),
            Some(_) => self.folder(&full, without, store).map_err(SourceError)?,
        };
        let encoded = tree.encode().map_err(|error| SourceError(format!("{}: {error}", path.display())))?;
        let digest = Digest::of(&encoded);
        let artifact = Artifact { type_name: "directory".into(), shape: Shape::Tree, digest, bytes: tree.bytes() };
        Ok(SourceState { artifact, tree: Some(Arc::new(tree)) })
    }

    fn file(&self, path: &Path) -> Result<Artifact, FileError> {
        let state = self.index.digest(path)?;
        let type_name = file_type(state.executable).into();
        Ok(Artifact { type_name, shape: Shape::Blob, digest: state.digest, bytes: state.bytes })
    }

    /// A folder as a tree of files, named by their paths within it, in the order of these.
    fn folder(&self, full: &Path, without: &[PathBuf], store: Option<&Store>) -> Result<Tree, String> {
        let is_left_out = |path: &Path| {
            let relative = path.strip_prefix(&self.root).unwrap_or(path);
            let is_by_product = path != full && path.file_name().is_some_and(is_by_product);
            is_by_product || relative == Path::new(STATE) || without.iter().any(|out| out == relative)
        };
        let files = match store {
            Some(store) => self.index.folder_into(store, full, &is_left_out),
            None => self.index.folder(full, &is_left_out),
        };
        let files = files.map_err(|error| self.unreadable(&error))?;
        let entry = |FolderFile { name, state }| {
            let (type_name, shape) = (file_type(state.executable).into(), Shape::Blob);
            Entry { name, type_name, shape, digest: state.digest, bytes: state.bytes }
        };
        Ok(Tree { header: String::new(), entries: files.into_iter().map(entry).collect() })
    }

    fn missing(&self, path: &Path, error: &io::Error) -> SourceError {
        let shown = path.display();
        match (error.kind(), self.neighbour(path)) {
            (io::ErrorKind::NotFound, Some(near)) => {
                SourceError(format!("there is no file {shown}; did you mean {}?", near.display()))
            }
            (io::ErrorKind::NotFound, None) => SourceError(format!("there is no file {shown}")),
            _ => SourceError(format!("{shown} cannot be read: {error}")),
        }
    }

    /// The path in the same folder that is most like one that is not there.
    fn neighbour(&self, path: &Path) -> Option<PathBuf> {
        let folder = fs::read_dir(self.root.join(path).parent()?).ok()?;
        let mut names: Vec<String> = folder
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name != STATE)
            .collect();
        // Of equally like ones always the same, whatever order the folder has.
        names.sort();
        let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
        Some(path.with_file_name(near))
    }

    fn unreadable(&self, error: &FolderError) -> String {
        let shown = |path: &Path| path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        match error {
            FolderError::Loop { path } => {
                let hint = "remove it, or name its neighbours one by one";
                format!("{} is a link to a folder that holds it; {hint}", shown(path))
            }
            FolderError::LinkToNothing { path } => format!("{} is a link to nothing; remove it", shown(path)),
            FolderError::Disk(error) => format!("{} cannot be read: {}", shown(&error.path), error.source),
            other => other.to_string(),
        }
    }
}

/// The pipeline file of the project that a folder lies in, relative to that folder.
///
/// One that stands above and is another user's is none: what it says is run, and anyone may write one in a folder that is
/// everyone's. What runs in a state folder is in no project that is around it.
pub fn around(folder: &Path) -> Option<PathBuf> {
    let (path, is_own) = nearest_pipeline(folder)?;
    is_own.then_some(path)
}

/// The pipeline file that [`around`] has passed over, as it is another user's.
pub fn passed_over(folder: &Path) -> Option<PathBuf> {
    let (path, is_own) = nearest_pipeline(folder)?;
    (!is_own).then_some(path)
}

/// The nearest one, and whether it counts.
fn nearest_pipeline(folder: &Path) -> Option<(PathBuf, bool)> {
    let inside = |folder: &&Path| folder.file_name().is_none_or(|name| name != STATE);
    let files = folder.ancestors().take_while(inside).map(|folder| fs::metadata(folder.join(PIPELINE)));
    let (above, file) = files.enumerate().find_map(|(above, file)| Some((above, file.ok()?)))?;
    let counts = above == 0 || file.uid() == rustix::process::geteuid().as_raw();
    Some(((0..above).map(|_| "..").chain([PIPELINE]).collect(), counts))
}

/// Whether a file or folder of this name is no part of what it lies in: by-products, and files that are being put in place.
pub fn is_by_product(name: &OsStr) -> bool {
    BY_PRODUCTS.iter().any(|own| name == *own) || is_temp(name)
}

/// The type of a file's artifact; whether it can be executed is part of what it is.
pub fn file_type(executable: bool) -> &'static str {
    if executable { "executable" } else { "file" }
}

impl Sources for Project {
    fn look(&self, path: &Path, without: &[PathBuf]) -> Result<SourceState, SourceError> {
        self.look_at(path, without, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_names_the_nearest_of_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("data")).expect("a folder");
        for name in ["flights.csv", "weather.csv"] {
            fs::write(folder.path().join("data").join(name), "").expect("a file");
        }
        let project = Project::of(&folder.path().join("pipeline.toml")).expect("a project");
        let error = |path: &str| project.look(Path::new(path), &[]).expect_err("it is missing").to_string();
        assert_eq!(error("data/flihgts.csv"), "there is no file data/flihgts.csv; did you mean data/flights.csv?");
        assert_eq!(error("data/zzz"), "there is no file data/zzz");
        assert_eq!(error("none/flights.csv"), "there is no file none/flights.csv");
    }

    #[test]
    fn a_folder_lies_in_the_nearest_project() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |relative: &str| folder.path().join(relative);
        for inside in ["a/b/c", "a/d", "a/.headwater/work/1-0/project"] {
            fs::create_dir_all(path(inside)).expect("a folder");
        }
        for file in ["pipeline.toml", "a/b/pipeline.toml"] {
            fs::write(path(file), "").expect("a file");
        }
        let found = |relative: &str| around(&path(relative));
        assert_eq!(found(""), Some("pipeline.toml".into()));
        assert_eq!(found("a/d"), Some("../../pipeline.toml".into()));
        assert_eq!(found("a/b/c"), Some("../pipeline.toml".into()));
        assert_eq!(found("a/.headwater/work/1-0/project"), None);
        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path("a/b/pipeline.toml"), Some(12_345), None).expect("given away");
            assert_eq!((found("a/b/c"), passed_over(&path("a/b/c"))), (None, Some("../pipeline.toml".into())));
            assert_eq!((found("a/b"), passed_over(&path("a/b"))), (Some("pipeline.toml".into()), None));
        }
    }

    #[test]
    fn names_of_files_stay_distinct() {
        assert_eq!(Project::file_name("train[model=forest,fold=2]"), "train[model=forest,fold=2]");
        let (a, b) = (Project::file_name("read[day=a/b]"), Project::file_name("read[day=a_b]"));
        assert_eq!(b, "read[day=a_b]");
        assert_ne!(a, b);
        let long = |end: &str| Project::file_name(&format!("read[day={}{end}]", "日".repeat(200)));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").len() < 200);
    }
}
