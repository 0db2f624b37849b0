//! `WorkFolder`: a folder that lives as long as one run of a command.
//!
//! It does not know what runs in it. Invariants: a kernel lock on a file beside the folder tells that its process lives;
//! what a killed process left is removed by the next one that needs a folder; what cannot be removed is no failure.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use walkdir::WalkDir;

const LOCK: &str = "lock";

static RUNS: AtomicU64 = AtomicU64::new(0);
static SWEPT: Once = Once::new();

/// A folder of this process alone; dropping it removes it.
pub struct WorkFolder {
    pub path: PathBuf,
    lock: PathBuf,
    /// Locked while the folder is in use.
    _held: File,
}

impl WorkFolder {
    /// A new folder below `all`, whose name begins with `name`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(all: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(all)?;
        SWEPT.call_once(|| sweep(all));
        loop {
            let number = RUNS.fetch_add(1, Ordering::Relaxed);
            let path = all.join(format!("{name}-{}-{number}", process::id()));
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
        let living = WorkFolder::new(all.path(), "train").expect("a folder");
        sweep(all.path());
        assert!(!dead.exists() && !lock_of(&dead).exists());
        assert!(living.path.exists());
        drop(living);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
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
