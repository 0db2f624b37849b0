//! `WorkFolder`: a folder in which one command runs, in a folder of this process.
//!
//! It does not know what runs in it. Invariants: no folder is used twice: whoever a command has asked for work, over a socket
//! that is a file, may have it open still, as a container has that was given it; a kernel lock on a file beside the folder
//! of a process tells that it lives; what a killed one left is removed by the next one that needs a folder; what cannot be
//! removed is no failure.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use walkdir::WalkDir;

const LOCK: &str = "lock";

/// How much of what commands have left stays until the end.
const LEFT_BYTES: u64 = 256 * 1024 * 1024;
/// A folder of more bytes is removed at once.
const LEFT_FOLDER_BYTES: u64 = 1024 * 1024;
/// No file and no folder takes less of a disk, or counts as less.
const BLOCK: u64 = 4096;

static RUNS: AtomicU64 = AtomicU64::new(0);
static SWEPT: Once = Once::new();

/// Folders for commands. Small ones are removed when no command is left: ext4 looks at each inode that was freed in the last
/// half minute before it gives out one, so that to make and remove by the thousand, turn by turn, costs more than commands do.
#[derive(Default)]
pub struct WorkFolders {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    own: Option<OwnFolder>,
    taken: u64,
    left: u64,
}

impl WorkFolders {
    /// A folder below `all` that holds these folders, and nothing else. A folder comes after the one that it lies in.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn take(&self, all: &Path, folders: &BTreeSet<PathBuf>) -> io::Result<WorkFolder> {
        let folder = WorkFolder { path: self.next(all)? };
        // A command that is not held may have removed what this lies in.
        fs::create_dir_all(&folder.path)?;
        folders.iter().try_for_each(|inside| fs::create_dir(folder.path.join(inside)))?;
        Ok(folder)
    }

    fn next(&self, all: &Path) -> io::Result<PathBuf> {
        let mut state = self.state();
        state.taken += 1;
        let name = state.taken.to_string();
        let own = match &mut state.own {
            Some(own) => own,
            none => none.insert(OwnFolder::new(all)?),
        };
        Ok(own.path.join(name))
    }

    /// Removes a folder, in the end if it is small.
    pub fn leave(&self, folder: WorkFolder) {
        let Some(bytes) = bytes_of_small(&folder.path) else { return };
        let mut state = self.state();
        if state.left + bytes <= LEFT_BYTES {
            state.left += bytes;
            folder.stays();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a folder takes of a disk; `None` if it is not small, or not all of it can be looked at.
fn bytes_of_small(folder: &Path) -> Option<u64> {
    let mut bytes = 0;
    for entry in WalkDir::new(folder) {
        bytes += entry.ok()?.metadata().ok()?.len().max(BLOCK);
        if bytes > LEFT_FOLDER_BYTES {
            return None;
        }
    }
    Some(bytes)
}

/// The folder of one command; dropping it removes it.
pub struct WorkFolder {
    pub path: PathBuf,
}

impl WorkFolder {
    /// Moves the folder to another place, where it stays.
    ///
    /// # Errors
    /// If it cannot be moved, or what stands there cannot be removed.
    pub fn keep(self, target: &Path) -> io::Result<()> {
        if fs::symlink_metadata(target).is_ok() {
            remove_all(target)?;
        }
        fs::create_dir_all(target.parent().unwrap_or(target))?;
        fs::rename(&self.path, target)
    }

    /// Leaves it to the end of the folder that it lies in.
    fn stays(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // It may have been moved; else it goes with the folder that it lies in.
            let _ = remove_all(&self.path);
        }
    }
}

/// A folder of this process alone; dropping it removes it.
struct OwnFolder {
    path: PathBuf,
    lock: PathBuf,
    /// Locked while the folder is in use.
    _held: File,
}

impl OwnFolder {
    fn new(all: &Path) -> io::Result<Self> {
        fs::create_dir_all(all)?;
        SWEPT.call_once(|| sweep(all));
        loop {
            let number = RUNS.fetch_add(1, Ordering::Relaxed);
            let path = all.join(format!("{}-{number}", process::id()));
            let lock = lock_of(&path);
            let held = match File::create_new(&lock) {
                // Left by a dead process whose id has come round again, or being swept at this moment.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            if held.try_lock().is_ok() {
                fs::create_dir(&path)?;
                return Ok(Self { path, lock, _held: held });
            }
        }
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        remove(&self.path, &self.lock);
    }
}

fn lock_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(format!(".{LOCK}"));
    PathBuf::from(name)
}

/// The lock goes last, so that a folder which could not be removed is found by the next sweep.
fn remove(folder: &Path, lock: &Path) {
    if remove_all(folder).is_ok() || !folder.exists() {
        let _ = fs::remove_file(lock);
    }
}

/// Removes the folders of dead processes.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().filter_map(Result::ok) {
        let lock = entry.path();
        if lock.extension().is_some_and(|extension| extension == LOCK)
            && let Ok(file) = File::open(&lock)
            && file.try_lock().is_ok()
        {
            remove(&lock.with_extension(""), &lock);
        }
    }
}

/// Removes a file, or a folder with all in it, also where a program took away the right to write, as Go does in its
/// cache of modules.
///
/// # Errors
/// If something cannot be removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            for entry in WalkDir::new(path).into_iter().filter_map(Result::ok).filter(|e| e.file_type().is_dir()) {
                let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700));
            }
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_a_living_one_uses_stays() {
        let all = tempfile::tempdir().expect("a folder");
        let dead = all.path().join("train-1-0");
        fs::create_dir_all(dead.join("project")).expect("a folder");
        fs::write(lock_of(&dead), "").expect("a lock");
        let living = OwnFolder::new(all.path()).expect("a folder");
        sweep(all.path());
        assert!(!dead.exists() && !lock_of(&dead).exists());
        assert!(living.path.exists());
        drop(living);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
    }

    fn named<const N: usize>(names: [&str; N]) -> BTreeSet<PathBuf> {
        names.into_iter().map(PathBuf::from).collect()
    }

    #[test]
    fn each_command_gets_a_new_folder_with_what_it_asks_for_alone() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let folder = folders.take(all.path(), &named(["home", "project", "project/data"])).expect("a folder");
            let found = WalkDir::new(&folder.path).min_depth(1).sort_by_file_name().into_iter();
            let found = found.map(|entry| entry.expect("an entry").file_name().to_owned());
            assert_eq!(found.collect::<Vec<_>>(), ["home", "project", "data"]);
            assert!(seen.insert(folder.path.clone()));
            fs::write(folder.path.join("home/file"), "left").expect("a file");
            folders.leave(folder);
        }
        drop(folders);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
    }

    /// Whether a folder that a command has left is there until the end.
    fn stays(fill: impl Fn(&Path)) -> bool {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let folder = folders.take(all.path(), &named(["home"])).expect("a folder");
        let path = folder.path.clone();
        fill(&path);
        folders.leave(folder);
        let stays = path.exists();
        drop(folders);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
        stays
    }

    #[test]
    fn a_folder_that_was_left_goes_at_once_if_it_is_large_and_else_in_the_end() {
        let write = |folder: &Path, bytes: usize| fs::write(folder.join("home/file"), vec![0; bytes]).expect("a file");
        assert!(stays(|folder| write(folder, 100_000)));
        assert!(!stays(|folder| write(folder, 2_000_000)));
    }

    #[test]
    fn very_many_empty_files_or_folders_are_large() {
        let names = |folder: &Path| (0..300).map(|number| folder.join(format!("home/{number}"))).collect::<Vec<_>>();
        assert!(!stays(|folder| names(folder).iter().for_each(|path| fs::write(path, "").expect("a file"))));
        assert!(!stays(|folder| names(folder).iter().for_each(|path| fs::create_dir(path).expect("a folder"))));
    }

    #[test]
    fn what_is_left_has_a_limit_in_all() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        folders.state().left = LEFT_BYTES - 3 * BLOCK;
        let mut left = Vec::new();
        for _ in 0..2 {
            let folder = folders.take(all.path(), &named(["home"])).expect("a folder");
            left.push(folder.path.clone());
            folders.leave(folder);
        }
        assert_eq!(left.iter().map(|path| path.exists()).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn read_only_folders_are_removed() {
        let all = tempfile::tempdir().expect("a folder");
        let sealed = all.path().join("a/b");
        fs::create_dir_all(&sealed).expect("folders");
        fs::write(sealed.join("file"), "").expect("a file");
        for folder in [&sealed, &all.path().join("a")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).expect("permissions");
        }
        remove_all(&all.path().join("a")).expect("removed");
        assert!(!all.path().join("a").exists());
    }
}
