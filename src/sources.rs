//! `KeptSources`: the files that stages read, put into the store as they are looked at; and `Kept`, one of them found
//! again.
//!
//! It does not know who reads them. Invariant: a source is told only once the store has the very bytes that its digest
//! names: what changed while it was copied is looked at again.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use headwater_cache::{Artifact, Digest, Entry, Shape, Store, StoreError};
use headwater_engine::{SourceError, Sources, run::SourceState};

use crate::project::{Project, file_type};

/// How often a source that changed while it was copied is looked at again.
const RETRIES: usize = 3;
/// How many files of a folder are copied at once.
const WRITERS: usize = 16;
const FOLDER: &str = "directory";

/// The project's files, kept in a store.
pub struct KeptSources<'a> {
    pub project: &'a Project,
    pub store: &'a Store,
    /// What was kept, blobs and trees.
    pub kept: &'a Mutex<BTreeSet<Digest>>,
}

impl Sources for KeptSources<'_> {
    fn look(&self, path: &Path, without: &[PathBuf]) -> Result<SourceState, SourceError> {
        for _ in 0..=RETRIES {
            let state = self.project.look_at(path, without, Some(self.store))?;
            let failed = |error| SourceError(format!("{} cannot be kept in the store: {error}", path.display()));
            if self.keep(path, &state).map_err(failed)? {
                self.note(&state);
                return Ok(state);
            }
        }
        Err(SourceError(format!("{} changed while it was copied; let it come to rest and run again", path.display())))
    }
}

impl KeptSources<'_> {
    /// Notes what a collection must leave.
    fn note(&self, state: &SourceState) {
        let entries = state.tree.iter().flat_map(|tree| &tree.entries).map(|entry| entry.digest);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(entries.chain([state.artifact.digest]));
    }

    /// Whether the store has all of a source now.
    fn keep(&self, path: &Path, state: &SourceState) -> Result<bool, StoreError> {
        let full = self.project.root.join(path);
        let Some(tree) = &state.tree else { return self.keep_file(&full, &state.artifact.digest) };
        let missing: Vec<&Entry> =
            tree.entries.iter().filter(|entry| !self.store.contains_for_good(&entry.digest)).collect();
        let keep = |entry: &&Entry| self.keep_file(&full.join(&entry.name), &entry.digest);
        if !all(&missing, &keep)? {
            return Ok(false);
        }
        Ok(self.store.contains_for_good(&state.artifact.digest) || self.store.put_tree(tree)? == state.artifact.digest)
    }

    /// A file that is not any more what it was, or is no more, has another digest, and the bytes that were copied have
    /// that.
    fn keep_file(&self, path: &Path, digest: &Digest) -> Result<bool, StoreError> {
        if self.store.contains_for_good(digest) {
            return Ok(true);
        }
        match self.store.put_file(path) {
            Ok((copied, _)) => Ok(copied == *digest),
            Err(StoreError::NotRegular { .. }) => Ok(false),
            Err(StoreError::Disk(error)) if error.path == path && error.source.kind() == ErrorKind::NotFound => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether all of these were kept, several at once: to keep one is mostly to wait for the drive. A job of the engine's
/// pool that waited for others of the pool would take up stages meanwhile, so these are threads of their own.
fn all(entries: &[&Entry], keep: &(impl Fn(&&Entry) -> Result<bool, StoreError> + Sync)) -> Result<bool, StoreError> {
    std::thread::scope(|scope| {
        let parts = entries.chunks(entries.len().div_ceil(WRITERS).max(1));
        let work = |part: &'_ [&Entry]| part.iter().try_fold(true, |all, entry| Ok(keep(entry)? && all));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let done = running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
        // All are waited for, whatever the first of them says.
        let done: Vec<Result<bool, StoreError>> = done.collect();
        done.into_iter().try_fold(true, |all, kept| Ok(kept? && all))
    })
}

/// A source in the store.
pub enum Kept {
    /// Whether it was executable is known to the folder that it was in alone.
    File(Digest),
    Folder(Artifact),
}

impl Kept {
    /// What the bytes of a digest are; `None` if they are a tree of something else than files.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn of(store: &Store, digest: Digest) -> Result<Option<Self>, StoreError> {
        let tree = match store.get_tree(&digest) {
            Ok(tree) => tree,
            Err(StoreError::NotATree { .. }) => return Ok(Some(Self::File(digest))),
            Err(error) => return Err(error),
        };
        let is_file = |entry: &Entry| [file_type(false), file_type(true), FOLDER].contains(&entry.type_name.as_str());
        let artifact = Artifact { type_name: FOLDER.into(), shape: Shape::Tree, digest, bytes: tree.bytes() };
        Ok(tree.entries.iter().all(is_file).then_some(Self::Folder(artifact)))
    }
}
