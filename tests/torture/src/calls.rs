//! The system calls that touch files: their numbers, what they are about, and the kernel's filter for them.
//!
//! Invariant: a call that can change what is on disk and is not in [`CALLS`] would be a hole; the list is of all calls that
//! `strace -c` saw of Headwater, and their relatives.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::libc::user_regs_struct;
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::score::{Trouble, during};

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The open file in this argument.
    Open(usize),
    /// The path in this argument.
    Path(usize),
    /// The path in the second argument, relative to the open folder in the first.
    At(usize, usize),
}

/// A system call.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub number: libc::c_long,
    pub name: &'static str,
    pub about: About,
    /// What it may do to the disk.
    pub effect: Effect,
}

/// What a call may do to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Reads,
    Changes,
    /// Changes something if this argument has one of these flags.
    Flags(usize, i32),
    /// Changes something if this argument is that.
    Request(usize, u32),
    /// Writes bytes, of which the third argument says how many.
    Writes,
}

/// Which calls are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that change or lock files.
    Changing,
    /// Those that read them, too.
    All,
}

/// `O_TMPFILE` without the `O_DIRECTORY` in it.
const NAMELESS: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
const MAKES: i32 = libc::O_CREAT | libc::O_TRUNC | NAMELESS;
/// `FICLONE` of linux/fs.h.
const CLONE_FILE: u32 = 0x4004_9409;

const fn kind(number: libc::c_long, name: &'static str, about: About, effect: Effect) -> Kind {
    Kind { number, name, about, effect }
}

use About::{At, Open, Path as ByPath};
use Effect::{Changes, Flags, Reads, Request, Writes};

/// All of them.
pub const CALLS: &[Kind] = &[
    kind(libc::SYS_open, "open", ByPath(0), Flags(1, MAKES)),
    kind(libc::SYS_openat, "openat", At(0, 1), Flags(2, MAKES)),
    kind(libc::SYS_openat2, "openat2", At(0, 1), Changes),
    kind(libc::SYS_creat, "creat", ByPath(0), Changes),
    kind(libc::SYS_write, "write", Open(0), Writes),
    kind(libc::SYS_pwrite64, "pwrite64", Open(0), Writes),
    kind(libc::SYS_writev, "writev", Open(0), Changes),
    kind(libc::SYS_pwritev, "pwritev", Open(0), Changes),
    kind(libc::SYS_pwritev2, "pwritev2", Open(0), Changes),
    kind(libc::SYS_copy_file_range, "copy_file_range", Open(2), Changes),
    kind(libc::SYS_sendfile, "sendfile", Open(0), Changes),
    kind(libc::SYS_splice, "splice", Open(2), Changes),
    kind(libc::SYS_ioctl, "ioctl", Open(0), Request(1, CLONE_FILE)),
    kind(libc::SYS_truncate, "truncate", ByPath(0), Changes),
    kind(libc::SYS_ftruncate, "ftruncate", Open(0), Changes),
    kind(libc::SYS_fallocate, "fallocate", Open(0), Changes),
    kind(libc::SYS_fsync, "fsync", Open(0), Changes),
    kind(libc::SYS_fdatasync, "fdatasync", Open(0), Changes),
    kind(libc::SYS_sync_file_range, "sync_file_range", Open(0), Changes),
    kind(libc::SYS_syncfs, "syncfs", Open(0), Changes),
    kind(libc::SYS_flock, "flock", Open(0), Changes),
    kind(libc::SYS_rename, "rename", ByPath(0), Changes),
    kind(libc::SYS_renameat, "renameat", At(0, 1), Changes),
    kind(libc::SYS_renameat2, "renameat2", At(0, 1), Changes),
    kind(libc::SYS_link, "link", ByPath(1), Changes),
    kind(libc::SYS_linkat, "linkat", At(2, 3), Changes),
    kind(libc::SYS_symlink, "symlink", ByPath(1), Changes),
    kind(libc::SYS_symlinkat, "symlinkat", At(1, 2), Changes),
    kind(libc::SYS_unlink, "unlink", ByPath(0), Changes),
    kind(libc::SYS_unlinkat, "unlinkat", At(0, 1), Changes),
    kind(libc::SYS_rmdir, "rmdir", ByPath(0), Changes),
    kind(libc::SYS_mkdir, "mkdir", ByPath(0), Changes),
    kind(libc::SYS_mkdirat, "mkdirat", At(0, 1), Changes),
    kind(libc::SYS_chmod, "chmod", ByPath(0), Changes),
    kind(libc::SYS_fchmod, "fchmod", Open(0), Changes),
    kind(libc::SYS_fchmodat, "fchmodat", At(0, 1), Changes),
    kind(libc::SYS_utimensat, "utimensat", At(0, 1), Changes),
    kind(libc::SYS_read, "read", Open(0), Reads),
    kind(libc::SYS_pread64, "pread64", Open(0), Reads),
    kind(libc::SYS_readv, "readv", Open(0), Reads),
    kind(libc::SYS_preadv, "preadv", Open(0), Reads),
    kind(libc::SYS_lseek, "lseek", Open(0), Reads),
    kind(libc::SYS_getdents64, "getdents64", Open(0), Reads),
    kind(libc::SYS_stat, "stat", ByPath(0), Reads),
    kind(libc::SYS_lstat, "lstat", ByPath(0), Reads),
    kind(libc::SYS_fstat, "fstat", Open(0), Reads),
    kind(libc::SYS_newfstatat, "newfstatat", At(0, 1), Reads),
    kind(libc::SYS_statx, "statx", At(0, 1), Reads),
    kind(libc::SYS_statfs, "statfs", ByPath(0), Reads),
    kind(libc::SYS_fstatfs, "fstatfs", Open(0), Reads),
    kind(libc::SYS_access, "access", ByPath(0), Reads),
    kind(libc::SYS_faccessat, "faccessat", At(0, 1), Reads),
    kind(libc::SYS_faccessat2, "faccessat2", At(0, 1), Reads),
    kind(libc::SYS_readlink, "readlink", ByPath(0), Reads),
    kind(libc::SYS_readlinkat, "readlinkat", At(0, 1), Reads),
];

/// The call with this number, if it is one of ours.
pub fn kind_of(number: u64) -> Option<&'static Kind> {
    CALLS.iter().find(|kind| kind.number as u64 == number)
}

/// An argument of a call.
pub fn argument(registers: &user_regs_struct, at: usize) -> u64 {
    let all = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    all[at]
}

impl Scope {
    /// The name by which the traced process is told.
    pub fn name(self) -> &'static str {
        if self == Self::All { "all" } else { "changing" }
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::All, Self::Changing].into_iter().find(|scope| scope.name() == name)
    }

    /// The kernel's filter: a traced process stops at the calls of this scope, and runs at full speed otherwise.
    pub fn filter(self) -> Result<BpfProgram, Trouble> {
        let mut rules = BTreeMap::new();
        for kind in CALLS {
            let some = match (self, kind.effect) {
                (Self::Changing, Reads) => continue,
                (Self::Changing, Flags(at, flags)) => each_bit(flags).map(|bit| has(at, bit)).collect(),
                (_, Request(at, request)) => Ok(vec![equals(at, request)?]),
                _ => Ok(Vec::new()),
            };
            rules.insert(kind.number, some?);
        }
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), TargetArch::x86_64);
        during("the system call filter", during("the system call filter", filter)?.try_into())
    }
}

fn each_bit(flags: i32) -> impl Iterator<Item = u64> {
    (0..31).map(|bit| 1_u64 << bit).filter(move |bit| flags as u64 & bit != 0)
}

fn has(at: usize, bit: u64) -> Result<SeccompRule, Trouble> {
    rule(SeccompCondition::new(at as u8, Length::Dword, Is::MaskedEq(bit), bit))
}

fn equals(at: usize, value: u32) -> Result<SeccompRule, Trouble> {
    rule(SeccompCondition::new(at as u8, Length::Dword, Is::Eq, u64::from(value)))
}

fn rule<E: std::fmt::Display>(condition: Result<SeccompCondition, E>) -> Result<SeccompRule, Trouble> {
    let condition = during("the system call filter", condition)?;
    during("the system call filter", SeccompRule::new(vec![condition]))
}

/// The file that a stopped task's call is about; none if it cannot be told.
pub fn target(task: Pid, kind: &Kind, registers: &user_regs_struct) -> Option<PathBuf> {
    match kind.about {
        Open(at) => open_file(task, argument(registers, at) as i32),
        ByPath(at) => Some(base(task, libc::AT_FDCWD)?.join(text(task, argument(registers, at))?)),
        At(folder, at) => {
            let (folder, path) = (argument(registers, folder) as i32, text(task, argument(registers, at))?);
            if path.as_os_str().is_empty() { base(task, folder) } else { Some(base(task, folder)?.join(path)) }
        }
    }
}

/// Where a stopped task's call moves a file to, if it does.
pub fn destination(task: Pid, kind: &Kind, registers: &user_regs_struct) -> Option<PathBuf> {
    let about = match kind.name {
        "rename" => ByPath(1),
        "renameat" | "renameat2" => At(2, 3),
        _ => return None,
    };
    target(task, &Kind { about, ..*kind }, registers)
}

fn base(task: Pid, folder: i32) -> Option<PathBuf> {
    match folder {
        libc::AT_FDCWD => std::fs::read_link(format!("/proc/{task}/cwd")).ok(),
        open => open_file(task, open),
    }
}

fn open_file(task: Pid, open: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{task}/fd/{open}")).ok()
}

/// A text that ends with a zero, in the memory of a stopped task.
fn text(task: Pid, address: u64) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    if address == 0 {
        return Some(PathBuf::new());
    }
    let mut bytes = [0; libc::PATH_MAX as usize];
    let read = File::open(format!("/proc/{task}/mem")).ok()?.read_at(&mut bytes, address).ok()?;
    let end = bytes[..read].iter().position(|byte| *byte == 0)?;
    Some(Path::new(std::ffi::OsStr::from_bytes(&bytes[..end])).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_listed_once_and_the_filters_compile() {
        let numbers: std::collections::BTreeSet<_> = CALLS.iter().map(|kind| kind.number).collect();
        assert_eq!(numbers.len(), CALLS.len());
        for scope in [Scope::Changing, Scope::All] {
            assert!(!scope.filter().expect("a filter").is_empty());
            assert_eq!(Scope::named(scope.name()), Some(scope));
        }
    }
}
