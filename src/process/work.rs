//! `WorkFolder`: a folder in which one command at a time runs.
//!
//! It does not know what runs in it. Invariants: a kernel lock on a file beside the folder tells that its process lives;
//! what a killed process left is removed by the next one that needs a folder; what cannot be removed is no failure. The
//! next command finds only folders that it would have been given anyway, and these as they were made.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use walkdir::WalkDir;

const LOCK: &str = "lock";
/// A folder with more folders in it is removed.
const FOLDERS_KEPT: usize = 64;

static RUNS: AtomicU64 = AtomicU64::new(0);
static SWEPT: Once = Once::new();

/// How much of removed files stays until the end.
const BIN_BYTES: u64 = 64 * 1024 * 1024;
/// A file of more bytes is removed at once.
const BIN_FILE_BYTES: u64 = 64 * 1024;

/// Folders that commands have left, for the next ones, and small files that are removed when no command is left: ext4
/// looks at each inode that was freed in the last half minute before it gives out one, so that to make and remove by the
/// thousand, turn by turn, costs more than commands do.
#[derive(Default)]
pub struct WorkFolders {
    idle: Mutex<Vec<WorkFolder>>,
    bin: Mutex<Bin>,
}

/// Where small files wait for their removal, beside all that a command can reach.
#[derive(Default)]
struct Bin {
    folder: Option<WorkFolder>,
    taken: u64,
    bytes: u64,
}

impl WorkFolders {
    /// A folder below `all` that holds these folders, and nothing else. A folder comes after the one that it lies in.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn take(&self, all: &Path, folders: &BTreeSet<PathBuf>) -> io::Result<WorkFolder> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut folder = idle.map_or_else(|| WorkFolder::new(all), Ok)?;
        folder.furnish(folders)?;
        Ok(folder)
    }

    /// Takes back a folder to which nothing has access any more. One that cannot be cleaned is removed.
    pub fn give_back(&self, mut folder: WorkFolder) {
        let remove = |file: &Path| self.bin.lock().unwrap_or_else(PoisonError::into_inner).take(&folder.all, file);
        if let Some(inside) = folder.clean(remove) {
            folder.inside = inside;
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        }
    }

    /// Removes a folder that no other command may get.
    pub fn remove(&self, folder: WorkFolder) {
        // One that cannot be moved is removed where it stands.
        let _ = self.bin.lock().unwrap_or_else(PoisonError::into_inner).take_all(&folder);
    }
}

impl Bin {
    /// Removes a file, now or in the end.
    fn take(&mut self, all: &Path, file: &Path) -> io::Result<()> {
        let bytes = fs::symlink_metadata(file)?.len();
        match bytes <= BIN_FILE_BYTES && self.bytes + bytes <= BIN_BYTES {
            true => self.put(all, file, bytes),
            false => fs::remove_file(file),
        }
    }

    /// Takes all that is in a folder, if it is small.
    fn take_all(&mut self, folder: &WorkFolder) -> io::Result<()> {
        let mut bytes = 0;
        for entry in WalkDir::new(&folder.path).into_iter().filter_map(Result::ok).filter(|e| !e.file_type().is_dir()) {
            bytes += entry.metadata()?.len();
            if bytes > BIN_FILE_BYTES || self.bytes + bytes > BIN_BYTES {
                return Ok(());
            }
        }
        self.put(&folder.all, &folder.path, bytes)
    }

    fn put(&mut self, all: &Path, what: &Path, bytes: u64) -> io::Result<()> {
        let folder = match &mut self.folder {
            Some(folder) => folder,
            none => none.insert(WorkFolder::new(all)?),
        };
        fs::rename(what, folder.path.join(self.taken.to_string()))?;
        (self.taken, self.bytes) = (self.taken + 1, self.bytes + bytes);
        Ok(())
    }
}

/// A folder of this process alone; dropping it removes it.
pub struct WorkFolder {
    pub path: PathBuf,
    /// The folder that it lies in.
    all: PathBuf,
    lock: PathBuf,
    /// Locked while the folder is in use.
    _held: File,
    made: Marks,
    /// The folders in it.
    inside: BTreeSet<PathBuf>,
}

/// By which a folder is known to be as it was made.
#[derive(PartialEq, Eq)]
struct Marks {
    device: u64,
    inode: u64,
    rights: Rights,
}

#[derive(PartialEq, Eq)]
struct Rights {
    mode: u32,
    owner: (u32, u32),
    /// The length of the names of its extended attributes, some of which change what is made in it.
    attributes: usize,
}

impl WorkFolder {
    /// A new folder below `all`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(all: &Path) -> io::Result<Self> {
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
                let made = Marks::of(&path)?;
                return Ok(Self { path, all: all.to_owned(), lock, _held: held, made, inside: BTreeSet::new() });
            }
        }
    }

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

    /// Makes the folders that are missing, and removes the others.
    fn furnish(&mut self, folders: &BTreeSet<PathBuf>) -> io::Result<()> {
        for other in self.inside.iter().rev().filter(|other| !folders.contains(*other)) {
            fs::remove_dir(self.path.join(other))?;
        }
        for missing in folders.difference(&self.inside) {
            fs::create_dir(self.path.join(missing))?;
        }
        self.inside.clone_from(folders);
        Ok(())
    }

    /// Removes all but folders, and gives those; `None` if one is not as it was made.
    fn clean(&self, remove: impl Fn(&Path) -> io::Result<()>) -> Option<BTreeSet<PathBuf>> {
        if Marks::of(&self.path).ok()? != self.made {
            return None;
        }
        let mut folders = BTreeSet::new();
        for entry in WalkDir::new(&self.path).min_depth(1) {
            let entry = entry.ok()?;
            if !entry.file_type().is_dir() {
                remove(entry.path()).ok()?;
                continue;
            }
            if folders.len() == FOLDERS_KEPT || Marks::of(entry.path()).ok()?.rights != self.made.rights {
                return None;
            }
            folders.insert(entry.path().strip_prefix(&self.path).ok()?.to_owned());
        }
        Some(folders)
    }
}

impl Marks {
    fn of(folder: &Path) -> io::Result<Self> {
        let about = fs::symlink_metadata(folder)?;
        let rights = Rights::of(folder, &about)?;
        Ok(Self { device: about.dev(), inode: about.ino(), rights })
    }
}

impl Rights {
    fn of(folder: &Path, about: &Metadata) -> io::Result<Self> {
        let attributes = match rustix::fs::llistxattr(folder, &mut [0u8; 0]) {
            Err(Errno::NOTSUP) => 0,
            length => length?,
        };
        Ok(Self { mode: about.mode(), owner: (about.uid(), about.gid()), attributes })
    }
}

impl Drop for WorkFolder {
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
        let living = WorkFolder::new(all.path()).expect("a folder");
        sweep(all.path());
        assert!(!dead.exists() && !lock_of(&dead).exists());
        assert!(living.path.exists());
        drop(living);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
    }

    fn named<const N: usize>(names: [&str; N]) -> BTreeSet<PathBuf> {
        names.into_iter().map(PathBuf::from).collect()
    }

    /// What the next command finds in the folder that one has left.
    fn after(left: impl FnOnce(&Path)) -> (bool, Vec<String>) {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let first = folders.take(all.path(), &named(["home", "project", "project/out"])).expect("a folder");
        let path = first.path.clone();
        left(&path);
        folders.give_back(first);
        let next = folders.take(all.path(), &named(["home", "project", "project/data"])).expect("a folder");
        let found = WalkDir::new(&next.path).min_depth(1).sort_by_file_name().into_iter();
        let found =
            found.map(|entry| entry.expect("an entry").path().strip_prefix(&next.path).expect("in it").to_owned());
        let found = found.map(|path| path.display().to_string()).collect();
        (next.path == path, found)
    }

    const EMPTY: [&str; 3] = ["home", "project", "project/data"];

    #[test]
    fn the_next_command_finds_nothing_of_the_one_before() {
        let (same, found) = after(|folder| {
            for file in ["top", "home/.cache", "project/out/made"] {
                fs::write(folder.join(file), "left").expect("a file");
            }
            std::os::unix::fs::symlink("/etc", folder.join("project/link")).expect("a link");
            fs::create_dir_all(folder.join("project/a/b/c")).expect("folders");
        });
        assert!(same);
        assert_eq!(found, EMPTY);
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_removed() {
        let (same, found) = after(|folder| {
            fs::remove_dir(folder.join("home")).expect("removed");
            std::os::unix::fs::symlink("/", folder.join("home")).expect("a link");
        });
        assert!(same);
        assert_eq!(found, EMPTY);
    }

    #[test]
    fn a_folder_that_no_other_command_gets_goes_at_once_if_it_is_large_and_else_in_the_end() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        for bytes in [10, 100_000] {
            let folder = folders.take(all.path(), &named(["home"])).expect("a folder");
            let path = folder.path.clone();
            fs::write(path.join("home/file"), vec![0; bytes]).expect("a file");
            folders.remove(folder);
            assert!(!path.exists() && !lock_of(&path).exists());
        }
        let left =
            WalkDir::new(all.path()).into_iter().filter_map(Result::ok).filter(|entry| entry.file_name() == "file");
        assert_eq!(left.count(), 1);
        drop(folders);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn folders_whose_rights_a_command_has_changed_are_not_used_again() {
        let seal = |folder: &Path| fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("permissions");
        for changed in ["", "home", "project/out"] {
            let (same, found) = after(|folder| seal(&folder.join(changed)));
            assert!(!same, "{changed}");
            assert_eq!(found, EMPTY);
        }
    }

    #[test]
    fn a_folder_of_very_many_folders_is_not_used_again() {
        let (same, found) = after(|folder| {
            (0..100).for_each(|number| fs::create_dir(folder.join(format!("tmp-{number}"))).expect("a folder"));
        });
        assert!(!same);
        assert_eq!(found, EMPTY);
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
