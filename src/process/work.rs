//! `WorkFolder`: a folder in which one command at a time runs, in a folder of this process.
//!
//! It does not know what runs in it, nor whom that met. Invariants: a folder is used again only if it is given back: whoever
//! a command has asked for work, over a socket that is a file, may have it open still, as a container has that was given it;
//! the next command finds only folders that it would have been given anyway, and these as they were made; a kernel lock on
//! a file beside the folder of a process tells that it lives; what a killed one left is removed by the next one that needs
//! a folder; what cannot be removed is no failure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use headwater_cache::Artifact;
use rayon::prelude::*;
use rustix::fs::{Dir, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use walkdir::WalkDir;

use crate::process::made::MadeOut;

const LOCK: &str = "lock";
/// A folder with more folders in it is not used again.
const FOLDERS_KEPT: usize = 64;

/// How much of what commands have left stays until the end.
const LEFT_BYTES: u64 = 256 * 1024 * 1024;
/// A file or folder of more bytes is removed at once.
const LEFT_EACH_BYTES: u64 = 1024 * 1024;
/// No file and no folder takes less of a disk, or counts as less.
const BLOCK: u64 = 4096;

const SET_GROUP_ID: u32 = 0o2000;
/// The flags of a file that users can set: `FS_FL_USER_MODIFIABLE` of Linux, and those of no copies on writing, of direct
/// access, and of a project's quota.
const SETTABLE: u32 = 0x0003_80ff | 0x0080_0000 | 0x0200_0000 | 0x2000_0000;
const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

/// Values by names.
type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

static RUNS: AtomicU64 = AtomicU64::new(0);
static SWEPT: Once = Once::new();

/// Folders for commands. Those that were given back are for the next ones; small ones that were not, and small files of those
/// that were, are removed when no command is left: ext4 looks at each inode that was freed in the last minutes before it gives
/// out one, so that to make and remove by the thousand, turn by turn, costs more than commands do.
#[derive(Default)]
pub struct WorkFolders {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    own: Option<OwnFolder>,
    /// Names that were given in it.
    taken: u64,
    left: u64,
    idle: Vec<WorkFolder>,
}

impl WorkFolders {
    /// A folder below `all` that holds these folders, and nothing else. A folder comes after the one that it lies in.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn take(&self, all: &Path, folders: &BTreeSet<PathBuf>) -> Result<WorkFolder, NotMade> {
        let idle = self.state().idle.pop();
        // A command that is not held may have removed it, or what it lies in.
        if let Some(mut folder) = idle
            && folder.furnish(folders).is_ok()
        {
            return Ok(folder);
        }
        let path = self.next(all)?;
        let mut folder = WorkFolder::new(path.clone()).map_err(NotMade::at(&path))?;
        folder.furnish(folders)?;
        Ok(folder)
    }

    /// Removes what killed processes have left below `all`, once in a process.
    pub fn sweep(all: &Path) {
        SWEPT.call_once(|| sweep(all));
    }

    fn next(&self, all: &Path) -> Result<PathBuf, NotMade> {
        let mut state = self.state();
        let name = state.name();
        let own = match &mut state.own {
            Some(own) => own,
            none => none.insert(OwnFolder::new(all)?),
        };
        Ok(own.path.join(name))
    }

    /// Takes back a folder to which nobody has access any more, for another command, if it can be made as it was.
    pub fn give_back(&self, mut folder: WorkFolder) {
        match folder.clean(|file| self.remove(file, &folder.path)) {
            Some(inside) => {
                folder.inside = inside;
                self.state().idle.push(folder);
            }
            None => self.leave(folder),
        }
    }

    /// Takes a file out of a folder to which nobody has access any more, if the file is what any new file would be.
    pub fn take_out(&self, file: &Path, folder: &WorkFolder, artifact: &Artifact, executable: bool) -> Option<MadeOut> {
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = rustix::fs::open(file, how, Mode::empty()).ok()?;
        if !folder.has_made_plain(&open, executable).ok()? {
            return None;
        }
        // As of a copy: a file that is new here and has an old date is passed over by programs that go by it.
        rustix::fs::futimens(&open, &NOW).ok()?;
        let place = folder.path.with_file_name(self.state().name());
        fs::rename(file, &place).ok()?;
        Some(MadeOut::new(place, artifact.clone()))
    }

    /// Removes a folder, in the end if it is small.
    pub fn leave(&self, folder: WorkFolder) {
        if bytes_of_small(&folder.path).is_some_and(|bytes| self.state().leaves(bytes)) {
            folder.stays();
        }
    }

    /// Removes a file of a folder, in the end if it is small: until then it lies beside the folder.
    fn remove(&self, file: &Path, folder: &Path) -> io::Result<()> {
        let bytes = fs::symlink_metadata(file)?.len().max(BLOCK);
        let name = {
            let mut state = self.state();
            (bytes <= LEFT_EACH_BYTES && state.leaves(bytes)).then(|| state.name())
        };
        name.map_or_else(|| fs::remove_file(file), |name| fs::rename(file, folder.with_file_name(name)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn name(&mut self) -> String {
        self.taken += 1;
        self.taken.to_string()
    }

    /// Whether there is room for what would stay; it is taken then.
    fn leaves(&mut self, bytes: u64) -> bool {
        let room = self.left + bytes <= LEFT_BYTES;
        self.left += if room { bytes } else { 0 };
        room
    }
}

/// What a folder takes of a disk; `None` if it is not small, or not all of it can be looked at.
fn bytes_of_small(folder: &Path) -> Option<u64> {
    let mut bytes = 0;
    for entry in WalkDir::new(folder) {
        bytes += entry.ok()?.metadata().ok()?.len().max(BLOCK);
        if bytes > LEFT_EACH_BYTES {
            return None;
        }
    }
    Some(bytes)
}

/// A folder that could not be made, or made as it was; or its lock.
#[derive(Debug)]
pub struct NotMade {
    pub path: PathBuf,
    pub source: io::Error,
}

impl NotMade {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// The folder of one command; dropping it removes it.
pub struct WorkFolder {
    pub path: PathBuf,
    made: Marks,
    /// The folders in it.
    inside: BTreeSet<PathBuf>,
}

/// By which a folder is known to be as it was made.
#[derive(PartialEq, Eq)]
struct Marks {
    mode: u32,
    owner: (u32, u32),
    /// Some of these change what is made in it.
    attributes: Attributes,
    /// Such as that nothing in it can be removed, where the file system has them.
    flags: Option<IFlags>,
}

impl WorkFolder {
    fn new(path: PathBuf) -> io::Result<Self> {
        // A command that is not held may have removed what this lies in.
        fs::create_dir_all(&path)?;
        Ok(Self { made: Marks::of(&open_folder(&path)?)?, path, inside: BTreeSet::new() })
    }

    /// Makes the folders that are missing, and removes the others.
    fn furnish(&mut self, folders: &BTreeSet<PathBuf>) -> Result<(), NotMade> {
        for other in self.inside.iter().rev().filter(|other| !folders.contains(*other)) {
            let other = self.path.join(other);
            fs::remove_dir(&other).map_err(NotMade::at(&other))?;
        }
        for missing in folders.difference(&self.inside) {
            let missing = self.path.join(missing);
            fs::create_dir(&missing).map_err(NotMade::at(&missing))?;
        }
        self.inside.clone_from(folders);
        Ok(())
    }

    /// Removes all but folders, and gives those; `None` if one is not as it was made.
    fn clean(&self, remove: impl Fn(&Path) -> io::Result<()>) -> Option<BTreeSet<PathBuf>> {
        let (mut folders, mut left) = (BTreeSet::new(), vec![PathBuf::new()]);
        while let Some(inside) = left.pop() {
            let folder = self.path.join(&inside);
            let open = open_folder(&folder).ok()?;
            if folders.len() > FOLDERS_KEPT || Marks::of(&open).ok()? != self.made {
                return None;
            }
            for entry in Dir::read_from(&open).ok()? {
                let entry = entry.ok()?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                match entry.file_type() {
                    _ if name == "." || name == ".." => {}
                    FileType::Directory => left.push(inside.join(name)),
                    FileType::Unknown => return None,
                    _ => remove(&folder.join(name)).ok()?,
                }
            }
            folders.insert(inside);
        }
        folders.remove(Path::new(""));
        Some(folders)
    }

    /// Whether a file in the folder is what any program of the user would have made in any plain folder.
    fn has_made_plain(&self, file: &OwnedFd, executable: bool) -> io::Result<bool> {
        let (about, made) = (rustix::fs::fstat(file)?, &self.made);
        let kind = FileType::from_raw_mode(about.st_mode);
        let mode = made.mode & if executable { 0o777 } else { 0o666 };
        let alike = (about.st_mode & 0o7777, about.st_uid, about.st_gid) == (mode, made.owner.0, made.owner.1);
        let plain = kind.is_file() && about.st_nlink == 1 && alike && made.mode & SET_GROUP_ID == 0;
        Ok(plain && made.attributes.is_empty() && gives_nothing(file)?)
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

/// The extended attributes of what is open; none where the file system has none.
fn attributes(of: &OwnedFd) -> io::Result<Attributes> {
    let length = match rustix::fs::flistxattr_query(of) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Attributes::new()),
        length => length?,
    };
    let mut names = vec![0; length];
    let length = rustix::fs::flistxattr(of, &mut names[..])?;
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| -> io::Result<Vec<u8>> {
        let mut value = vec![0; rustix::fs::fgetxattr_query(of, name)?];
        let length = if value.is_empty() { 0 } else { rustix::fs::fgetxattr(of, name, &mut value[..])? };
        value.truncate(length);
        Ok(value)
    };
    names.map(|name| Ok((name.to_owned(), value(name)?))).collect()
}

/// Whether what is open has neither extended attributes, access control lists among them, nor flags that somebody has set.
fn gives_nothing(open: &OwnedFd) -> io::Result<bool> {
    let flags = rustix::fs::ioctl_getflags(open).unwrap_or(IFlags::empty());
    Ok(flags.bits() & SETTABLE == 0 && attributes(open)?.is_empty())
}

/// Whether a file that is made in a folder, links followed, is as in any other.
///
/// # Errors
/// If it cannot be looked at.
pub fn is_plain(folder: &Path) -> io::Result<bool> {
    let open = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fstat(&open)?.st_mode & SET_GROUP_ID == 0 && gives_nothing(&open)?)
}

/// A folder that is not a link.
fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, how, Mode::empty())?)
}

impl Marks {
    fn of(folder: &OwnedFd) -> io::Result<Self> {
        let about = rustix::fs::fstat(folder)?;
        let attributes = attributes(folder)?;
        let flags = rustix::fs::ioctl_getflags(folder).ok();
        Ok(Self { mode: about.st_mode, owner: (about.st_uid, about.st_gid), attributes, flags })
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
    fn new(all: &Path) -> Result<Self, NotMade> {
        fs::create_dir_all(all).map_err(NotMade::at(all))?;
        WorkFolders::sweep(all);
        loop {
            let number = RUNS.fetch_add(1, Ordering::Relaxed);
            let path = all.join(format!("{}-{number}", process::id()));
            let lock = lock_of(&path);
            let held = match File::create_new(&lock) {
                // Left by a dead process whose id has come round again, or being swept at this moment.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(NotMade::at(&lock))?,
            };
            if held.try_lock().is_ok() {
                fs::create_dir(&path).map_err(NotMade::at(&path))?;
                return Ok(Self { path, lock, _held: held });
            }
        }
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // Folders of many commands are many folders to list: one thread would leave the other processor cores idle.
        let inside: Vec<PathBuf> =
            fs::read_dir(&self.path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        inside.par_iter().for_each(|path| drop(remove_all(path)));
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
    use std::time::{Duration, SystemTime};

    use rustix::fs::XattrFlags;

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
    fn a_folder_that_was_left_is_never_used_again() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let folder = folders.take(all.path(), &named(["home", "project", "project/data"])).expect("a folder");
            assert_eq!(found(&folder), EMPTY);
            assert!(seen.insert(folder.path.clone()));
            fs::write(folder.path.join("home/file"), "left").expect("a file");
            folders.leave(folder);
        }
        drop(folders);
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
    }

    const EMPTY: [&str; 3] = ["home", "project", "project/data"];

    fn found(folder: &WorkFolder) -> Vec<String> {
        let all = WalkDir::new(&folder.path).min_depth(1).sort_by_file_name().into_iter();
        let inside = all.map(|entry| entry.expect("an entry").path().strip_prefix(&folder.path).map(Path::to_owned));
        inside.map(|path| path.expect("in it").display().to_string()).collect()
    }

    /// Whether the next command gets the folder that one has given back, in which it finds nothing in any case.
    fn used_again(left: impl FnOnce(&Path)) -> bool {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let first = folders.take(all.path(), &named(["home", "project", "project/out"])).expect("a folder");
        let path = first.path.clone();
        left(&path);
        folders.give_back(first);
        let next = folders.take(all.path(), &named(["home", "project", "project/data"])).expect("a folder");
        assert_eq!(found(&next), EMPTY);
        let same = next.path == path;
        drop((next, folders));
        assert_eq!(fs::read_dir(all.path()).expect("a folder").count(), 0);
        same
    }

    #[test]
    fn the_next_command_finds_nothing_of_the_one_before() {
        assert!(used_again(|folder| {
            for file in ["top", "home/.cache", "project/out/made"] {
                fs::write(folder.join(file), "left").expect("a file");
            }
            fs::write(folder.join("large"), vec![0; 2_000_000]).expect("a file");
            std::os::unix::fs::symlink("/etc", folder.join("project/link")).expect("a link");
            fs::create_dir_all(folder.join("project/a/b/c")).expect("folders");
        }));
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_removed() {
        assert!(used_again(|folder| {
            fs::remove_dir(folder.join("home")).expect("removed");
            std::os::unix::fs::symlink("/", folder.join("home")).expect("a link");
        }));
    }

    #[test]
    fn folders_whose_rights_a_command_has_changed_are_not_used_again() {
        let seal = |folder: &Path| fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("permissions");
        for changed in ["", "home", "project/out"] {
            assert!(!used_again(|folder| seal(&folder.join(changed))), "{changed}");
        }
    }

    #[test]
    fn folders_whose_flags_a_command_has_changed_are_not_used_again() {
        let mut changed = false;
        let same = used_again(|folder| {
            let home = File::open(folder.join("home")).expect("a folder");
            let set = |flags| rustix::fs::ioctl_setflags(&home, flags | IFlags::NOATIME);
            changed = rustix::fs::ioctl_getflags(&home).and_then(set).is_ok();
        });
        // Not every file system has them.
        assert_ne!(same, changed);
    }

    #[test]
    fn folders_whose_attributes_a_command_has_changed_are_not_used_again() {
        for values in [["one", "one"], ["one", "two"]] {
            let mut changed = false;
            let same = used_again(|folder| {
                let set = |inside: &str, value: &str| {
                    rustix::fs::setxattr(folder.join(inside), "user.note", value.as_bytes(), XattrFlags::empty())
                };
                changed = set("home", values[0]).and_then(|()| set("project", values[1])).is_ok();
            });
            // Not every file system has them.
            assert_ne!(same, changed);
        }
    }

    #[test]
    fn a_file_is_taken_out_with_the_date_of_now_and_only_if_it_is_plain() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let folder = folders.take(all.path(), &named(["project"])).expect("a folder");
        let artifact = Artifact {
            type_name: "file".into(),
            shape: headwater_cache::Shape::Blob,
            digest: headwater_cache::Digest::of(b"content"),
            bytes: 7,
        };
        let taken = |change: &dyn Fn(&File, &Path)| {
            let path = folder.path.join("project/out");
            fs::write(&path, "content").expect("a file");
            change(&File::options().write(true).open(&path).expect("a file"), &path);
            let made = folders.take_out(&path, &folder, &artifact, false);
            let store = headwater_cache::Store::open(&all.path().join("store")).expect("a store");
            let place = all.path().join("place");
            let moved = made.is_some_and(|made| made.move_to(&place, &store).expect("no error"));
            assert_eq!(path.exists(), !moved);
            moved.then(|| fs::metadata(&place).expect("a file").modified().expect("a time"))
        };
        let old = SystemTime::now() - Duration::from_secs(1000);
        let date = taken(&|file, _| file.set_modified(old).expect("a date")).expect("it is plain");
        assert!(date > old + Duration::from_secs(900));
        let noted = |path: &Path| rustix::fs::setxattr(path, "user.note", b"x", XattrFlags::empty());
        // Not every file system has them.
        if noted(all.path()).is_ok() {
            rustix::fs::removexattr(all.path(), "user.note").expect("it was there");
            assert!(taken(&|_, path| noted(path).expect("as of the folder")).is_none());
        }
        assert!(taken(&|file, _| file.set_permissions(PermissionsExt::from_mode(0o600)).expect("a mode")).is_none());
        assert!(taken(&|_, path| fs::hard_link(path, folder.path.join("second")).expect("a link")).is_none());
    }

    #[test]
    fn a_folder_of_very_many_folders_is_not_used_again() {
        assert!(!used_again(|folder| {
            (0..100).for_each(|number| fs::create_dir(folder.join(format!("tmp-{number}"))).expect("a folder"));
        }));
    }

    #[test]
    fn a_folder_that_has_gone_meanwhile_is_made_anew() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        let first = folders.take(all.path(), &named(["home"])).expect("a folder");
        let path = first.path.clone();
        folders.give_back(first);
        fs::remove_dir_all(&path).expect("removed");
        let next = folders.take(all.path(), &named(["home", "project", "project/data"])).expect("a folder");
        assert_eq!(found(&next), EMPTY);
    }

    #[test]
    fn files_of_a_folder_that_is_used_again_stay_up_to_a_limit_in_all() {
        let all = tempfile::tempdir().expect("a folder");
        let folders = WorkFolders::default();
        folders.state().left = LEFT_BYTES - 3 * BLOCK;
        let folder = folders.take(all.path(), &named(["home"])).expect("a folder");
        (0..9).for_each(|number| fs::write(folder.path.join(format!("home/{number}")), "").expect("a file"));
        folders.give_back(folder);
        let files = WalkDir::new(all.path()).min_depth(2).into_iter().filter_map(Result::ok);
        assert_eq!(files.filter(|entry| entry.file_type().is_file()).count(), 3);
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
