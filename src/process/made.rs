//! `MadeOuts`: files that commands have made, which wait to be moved to their places in the project: a file of gigabytes need
//! not be copied back from the store.
//!
//! It does not know commands. Invariants: a file that waits is in the store, and nobody has it open; it is what any new file
//! of the user's would be in that place, or it does not get there; one that is not moved is removed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use headwater_cache::{Artifact, Store, StoreError};

use crate::process::work::attributes;

const SET_GROUP_ID: u32 = 0o2000;

/// Files that wait, by their paths in the project.
#[derive(Default)]
pub struct MadeOuts(Mutex<HashMap<PathBuf, MadeOut>>);

impl MadeOuts {
    /// Takes a file that is to become an out of the project.
    pub fn keep(&self, out: &Path, made: MadeOut) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(out.to_owned(), made);
    }

    /// The file that waits for a path, if it has these bytes.
    pub fn take(&self, out: &Path, artifact: &Artifact) -> Option<MadeOut> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(out);
        made.filter(|made| made.artifact == *artifact)
    }
}

/// A file that a command has made; dropping it removes it.
pub struct MadeOut {
    file: PathBuf,
    artifact: Artifact,
    inherited: Inherited,
}

impl MadeOut {
    /// The file that was made in a folder which gave it this.
    pub fn new(file: PathBuf, artifact: Artifact, inherited: Inherited) -> Self {
        Self { file, artifact, inherited }
    }

    /// Moves it to where nothing is, if it would be the same there had it been made there; gives whether it is there.
    ///
    /// # Errors
    /// If the folder of that place cannot be made.
    pub fn move_to(self, place: &Path, store: &Store) -> Result<bool, StoreError> {
        let folder = place.parent().unwrap_or(place);
        let alike = Inherited::of(folder).is_ok_and(|inherited| inherited == self.inherited);
        if alike { store.move_restored(&self.file, place) } else { Ok(false) }
    }
}

impl Drop for MadeOut {
    fn drop(&mut self) {
        // It has been moved, or goes with the folder that it lies in.
        let _ = fs::remove_file(&self.file);
    }
}

/// What a folder gives to files that are made in it.
#[derive(PartialEq, Eq)]
pub struct Inherited {
    /// The length of the names of its extended attributes: access control lists are among them.
    attributes: usize,
    group: Option<u32>,
}

impl Inherited {
    /// What the folder at this path gives.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let about = fs::metadata(folder)?;
        Ok(Self::new(about.mode(), about.gid(), attributes(folder)?))
    }

    /// What a folder of this mode and group gives.
    pub fn new(mode: u32, group: u32, attributes: usize) -> Self {
        Self { attributes, group: (mode & SET_GROUP_ID != 0).then_some(group) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use headwater_cache::{Digest, Shape};

    use super::*;

    /// Whether a file that was made in a folder is moved to `place/out`, a folder of this mode.
    fn moved(mode: u32) -> bool {
        let all = tempfile::tempdir().expect("a folder");
        let store = Store::open(&all.path().join("store")).expect("a store");
        let [made, place] = ["made", "place"].map(|name| all.path().join(name));
        [&made, &place].into_iter().for_each(|folder| fs::create_dir(folder).expect("a folder"));
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("permissions");
        let (file, digest) = (made.join("file"), Digest::of(b"content"));
        fs::write(&file, "content").expect("a file");
        let artifact = Artifact { type_name: "file".into(), shape: Shape::Blob, digest, bytes: 7 };
        let waiting = MadeOuts::default();
        let made = MadeOut::new(file.clone(), artifact.clone(), Inherited::of(&made).expect("a folder"));
        waiting.keep(Path::new("out"), made);
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
        let (file, digest) = (folder.path().join("file"), Digest::of(b"content"));
        fs::write(&file, "content").expect("a file");
        let artifact = Artifact { type_name: "file".into(), shape: Shape::Blob, digest, bytes: 7 };
        let waiting = MadeOuts::default();
        let inherited = Inherited::of(folder.path()).expect("a folder");
        waiting.keep(Path::new("out"), MadeOut::new(file.clone(), artifact.clone(), inherited));
        let other = Artifact { digest: Digest::of(b"other"), ..artifact };
        assert!(waiting.take(Path::new("out"), &other).is_none());
        assert!(!file.exists());
    }
}
