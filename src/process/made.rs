//! `MadeOuts`: files that commands have made, which wait to be moved to their places in the project: a file of gigabytes need
//! not be copied back from the store.
//!
//! It does not know commands. Invariants: a file that waits is in the store, and nobody has it open; it is what any new file
//! of the user's would be in that place, or it does not get there; one that is not moved is removed, at the latest when the
//! next command of its thread has made something.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use headwater_cache::{Artifact, Store, StoreError};

use crate::process::work::is_plain;

/// Files that wait, by the thread that ran their command and puts them in place, and by their paths in the project.
#[derive(Default)]
pub struct MadeOuts(Mutex<HashMap<ThreadId, HashMap<PathBuf, MadeOut>>>);

impl MadeOuts {
    /// Takes the files that are to become outs of the project.
    pub fn keep(&self, outs: HashMap<PathBuf, MadeOut>) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(thread::current().id(), outs);
        // Files of a node that has failed since.
        drop(before);
    }

    /// The file that waits for a path, if it has these bytes.
    pub fn take(&self, out: &Path, artifact: &Artifact) -> Option<MadeOut> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = waiting.get_mut(&thread::current().id())?.remove(out);
        made.filter(|made| made.artifact == *artifact)
    }
}

/// A file that a command has made; dropping it removes it.
pub struct MadeOut {
    file: PathBuf,
    artifact: Artifact,
}

impl MadeOut {
    /// A file that any program of the user could have made, in a plain folder.
    pub fn new(file: PathBuf, artifact: Artifact) -> Self {
        Self { file, artifact }
    }

    /// Moves it to where nothing is, if it would be the same there had it been made there; gives whether it is there.
    ///
    /// # Errors
    /// If the folder of that place cannot be made.
    pub fn move_to(self, place: &Path, store: &Store) -> Result<bool, StoreError> {
        let plain = is_plain(place.parent().unwrap_or(place)).unwrap_or(false);
        if plain { store.move_restored(&self.file, place) } else { Ok(false) }
    }
}

impl Drop for MadeOut {
    fn drop(&mut self) {
        // It has been moved, or goes with the folder that it lies in.
        let _ = fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use headwater_cache::{Digest, Shape};

    use super::*;

    /// A file in a folder that waits for `out`, and what it is.
    fn kept(folder: &Path) -> (MadeOuts, PathBuf, Artifact) {
        let (file, digest) = (folder.join("file"), Digest::of(b"content"));
        fs::write(&file, "content").expect("a file");
        let artifact = Artifact { type_name: "file".into(), shape: Shape::Blob, digest, bytes: 7 };
        let waiting = MadeOuts::default();
        waiting.keep([("out".into(), MadeOut::new(file.clone(), artifact.clone()))].into());
        (waiting, file, artifact)
    }

    /// Whether a file that was made in a folder is moved to `place/out`, a folder of this mode.
    fn moved(mode: u32) -> bool {
        let all = tempfile::tempdir().expect("a folder");
        let store = Store::open(&all.path().join("store")).expect("a store");
        let [made, place] = ["made", "place"].map(|name| all.path().join(name));
        [&made, &place].into_iter().for_each(|folder| fs::create_dir(folder).expect("a folder"));
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("permissions");
        let (waiting, file, artifact) = kept(&made);
        assert!(waiting.take(Path::new("other"), &artifact).is_none());
        let made = waiting.take(Path::new("out"), &artifact).expect("it waits");
        let moved = made.move_to(&place.join("out"), &store).expect("no error");
        assert!(!file.exists() && moved == place.join("out").exists());
        moved
    }

    #[test]
    fn a_file_is_not_moved_to_a_folder_that_gives_other_things_to_its_files() {
        assert!(moved(0o755) && moved(0o700));
        assert!(!moved(0o2755));
    }

    #[test]
    fn a_file_of_other_bytes_than_are_asked_for_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (waiting, file, artifact) = kept(folder.path());
        let other = Artifact { digest: Digest::of(b"other"), ..artifact };
        assert!(waiting.take(Path::new("out"), &other).is_none());
        assert!(!file.exists());
    }

    #[test]
    fn a_file_that_nobody_took_goes_when_the_next_command_has_made_something() {
        let folder = tempfile::tempdir().expect("a folder");
        let (waiting, file, _) = kept(folder.path());
        thread::scope(|scope| scope.spawn(|| waiting.keep(HashMap::new())).join()).expect("no panic");
        assert!(file.exists());
        waiting.keep(HashMap::new());
        assert!(!file.exists());
    }
}
