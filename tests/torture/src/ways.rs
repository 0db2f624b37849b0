//! `Way`: how a file gets a new text without it showing in what is looked at first: size, times, name, inode.
//!
//! It does not know what the file is for.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::crew::remove;
use crate::score::Trouble;
use crate::world::copy;

/// How a file is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Written over, as an editor does.
    Plain,
    /// The times are set back to what they were.
    SameTimes,
    /// The times are long ago, or to come.
    Back,
    Ahead,
    /// Another file is renamed over it, with the times of the old one.
    Renamed,
    /// An older file is moved in its place.
    Older,
    /// It is made a hard link to a file elsewhere.
    Linked,
    /// It is written by its other name, outside of the project, and the times are set back.
    ByOtherName,
    /// Removed and made anew at once, which may give it the same inode.
    Anew,
    /// The folder is renamed and another one put in its place.
    FolderSwapped,
}

/// All of them.
pub const WAYS: [Way; 10] = [
    Way::Plain,
    Way::SameTimes,
    Way::Back,
    Way::Ahead,
    Way::Renamed,
    Way::Older,
    Way::Linked,
    Way::ByOtherName,
    Way::Anew,
    Way::FolderSwapped,
];

/// Gives a file a new text by this way. `aside` is a folder outside of the project.
///
/// # Errors
/// If it cannot be written.
pub fn rewrite(path: &Path, text: &str, way: Way, aside: &Path) -> Result<(), Trouble> {
    let (times, mode) = (times(path)?, fs::metadata(path)?.permissions());
    let far = Duration::from_secs(400 * 24 * 3600);
    let new = aside.join("new");
    match way {
        Way::Renamed | Way::Older => {
            fs::write(&new, text)?;
            let times = if way == Way::Older { at(SystemTime::now() - far) } else { times };
            set_times(&new, times)?;
            fs::rename(&new, path)?;
        }
        Way::Linked | Way::ByOtherName => {
            let _ = fs::remove_file(&new);
            if way == Way::Linked {
                fs::write(&new, text)?;
                fs::remove_file(path)?;
                fs::hard_link(&new, path)?;
            } else {
                fs::hard_link(path, &new)?;
                fs::write(&new, text)?;
            }
            set_times(&new, times)?;
            fs::remove_file(&new)?;
        }
        Way::Anew => {
            fs::remove_file(path)?;
            fs::write(path, text)?;
            set_times(path, times)?;
        }
        Way::FolderSwapped => swap_folder(path, text, aside)?,
        _ => fs::write(path, text)?,
    }
    if fs::metadata(path)?.permissions() != mode {
        fs::set_permissions(path, mode)?;
    }
    match way {
        Way::SameTimes => set_times(path, times),
        Way::Back => set_times(path, at(SystemTime::now() - far)),
        Way::Ahead => set_times(path, at(SystemTime::now() + far)),
        _ => Ok(()),
    }
}

/// Puts a copy of the file's folder, with the new text in it, in the folder's place.
fn swap_folder(path: &Path, text: &str, aside: &Path) -> Result<(), Trouble> {
    let (folder, copied, old) = (path.parent().unwrap_or(path), aside.join("folder"), aside.join("old"));
    copy(folder, &copied)?;
    let twin: PathBuf = copied.join(path.file_name().unwrap_or_default());
    fs::write(&twin, text)?;
    set_times(&twin, times(path)?)?;
    fs::rename(folder, &old)?;
    fs::rename(&copied, folder)?;
    remove(&old)
}

/// Changes one bit of a file's first byte, and keeps its times.
///
/// # Errors
/// If it cannot be written.
pub fn spoil(path: &Path) -> Result<(), Trouble> {
    let mut bytes = fs::read(path)?;
    let kept = times(path)?;
    if let Some(byte) = bytes.first_mut() {
        *byte ^= 1;
    }
    fs::write(path, bytes)?;
    set_times(path, kept)
}

fn at(time: SystemTime) -> FileTimes {
    FileTimes::new().set_modified(time).set_accessed(time)
}

/// When a file was changed and read.
///
/// # Errors
/// If it is not there.
pub fn times(path: &Path) -> Result<FileTimes, Trouble> {
    let about = fs::metadata(path)?;
    Ok(FileTimes::new().set_modified(about.modified()?).set_accessed(about.accessed()?))
}

/// Sets them.
///
/// # Errors
/// If it is not there.
pub fn set_times(path: &Path, times: FileTimes) -> Result<(), Trouble> {
    Ok(File::options().write(true).open(path)?.set_times(times)?)
}
