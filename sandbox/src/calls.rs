//! The calls by which a program names a file: their numbers, and where among their arguments the file stands.
//!
//! It does not know by what means a program is stopped at such a call, nor why. Invariant: nothing of the program is
//! changed; its memory is read alone.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::IoSliceMut;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// A path is no longer.
const PATH_BYTES: usize = 4096;
/// Most paths are shorter.
const CHUNK: usize = 256;
/// No page of memory is smaller.
const PAGE: usize = 4096;

/// A call that names a file, and where among its arguments stand the folder, the path and the flags.
pub(crate) struct Kind {
    pub number: i64,
    pub folder: Option<usize>,
    pub path: usize,
    pub flags: Option<usize>,
    pub does: Does,
}

/// What a call does with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Opens,
    Executes,
    Looks,
}

const fn kind(does: Does, number: i64, folder: Option<usize>, path: usize) -> Kind {
    Kind { number, folder, path, flags: None, does }
}

/// Those that processors have which are older than the calls below.
#[cfg(target_arch = "x86_64")]
const OLD: &[Kind] = &[
    Kind { flags: Some(1), ..kind(Does::Opens, libc::SYS_open, None, 0) },
    kind(Does::Looks, libc::SYS_stat, None, 0),
    kind(Does::Looks, libc::SYS_lstat, None, 0),
    kind(Does::Looks, libc::SYS_access, None, 0),
    kind(Does::Looks, libc::SYS_readlink, None, 0),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Kind] = &[];

const NEW: [Kind; 9] = [
    Kind { flags: Some(2), ..kind(Does::Opens, libc::SYS_openat, Some(0), 1) },
    // Its flags stand in memory.
    kind(Does::Opens, libc::SYS_openat2, Some(0), 1),
    kind(Does::Executes, libc::SYS_execve, None, 0),
    kind(Does::Executes, libc::SYS_execveat, Some(0), 1),
    kind(Does::Looks, libc::SYS_newfstatat, Some(0), 1),
    kind(Does::Looks, libc::SYS_statx, Some(0), 1),
    kind(Does::Looks, libc::SYS_faccessat, Some(0), 1),
    kind(Does::Looks, libc::SYS_faccessat2, Some(0), 1),
    kind(Does::Looks, libc::SYS_readlinkat, Some(0), 1),
];

/// All that there are here.
pub(crate) fn all() -> impl Iterator<Item = &'static Kind> {
    OLD.iter().chain(&NEW)
}

/// The kind of a call.
pub(crate) fn of(number: i64) -> Option<&'static Kind> {
    all().find(|kind| kind.number == number)
}

impl Kind {
    /// The path that a stopped task names, as it is written. None is named by `fstat`, which is a call of this kind.
    pub fn path(&self, task: Pid, arguments: &[u64; 6]) -> Option<OsString> {
        text(task, usize::try_from(arguments[self.path]).ok()?).filter(|path| !path.is_empty())
    }

    /// A path that a stopped task has named, from the folder that it is relative to.
    pub fn absolute(&self, task: Pid, arguments: &[u64; 6], path: &OsStr) -> PathBuf {
        let path = Path::new(path);
        if path.is_absolute() {
            return path.to_owned();
        }
        let folder = match self.folder.map_or(libc::AT_FDCWD, |at| arguments[at] as i32) {
            libc::AT_FDCWD => format!("/proc/{task}/cwd"),
            folder => format!("/proc/{task}/fd/{folder}"),
        };
        fs::read_link(folder).unwrap_or_default().join(path)
    }

    /// What it is told to do with the file, if that stands in its arguments.
    pub fn flags(&self, arguments: &[u64; 6]) -> Option<i32> {
        self.flags.map(|at| arguments[at] as i32)
    }
}

/// A text in the memory of a task. What lies behind it may be no memory: a page is read only when it begins in it.
fn text(task: Pid, address: usize) -> Option<OsString> {
    let mut bytes = Vec::new();
    let mut chunk = [0; CHUNK];
    while bytes.len() < PATH_BYTES {
        let base = address.checked_add(bytes.len())?;
        let length = CHUNK.min(PAGE - base % PAGE);
        let mut local = [IoSliceMut::new(&mut chunk[..length])];
        let read = process_vm_readv(task, &mut local, &[RemoteIoVec { base, len: length }]).ok()?;
        if let Some(end) = chunk[..read].iter().position(|byte| *byte == 0) {
            bytes.extend(&chunk[..end]);
            return Some(OsString::from_vec(bytes));
        }
        bytes.extend(&chunk[..read]);
        if read < length {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_to_its_end_and_one_without_an_end_is_none() {
        let own = Pid::this();
        let mut memory = vec![b'a'; 3 * PATH_BYTES];
        let address = memory.as_ptr() as usize;
        assert_eq!(text(own, address), None);
        for end in [0, 1, CHUNK, PAGE - 1, PATH_BYTES - 1] {
            memory[end] = 0;
            assert_eq!(text(own, address), Some(OsString::from_vec(vec![b'a'; end])), "{end}");
            memory[end] = b'a';
        }
        assert_eq!(text(own, 8), None);
        assert_eq!(text(own, usize::MAX - 1), None);
    }
}
