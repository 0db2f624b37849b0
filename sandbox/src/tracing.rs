//! Which files a program uses: it is run under ptrace, and stops at the calls that name a file.
//!
//! A seccomp filter lets the kernel stop it there only. The traced program is this program first, which asks to be traced,
//! sets the filter and becomes the other. It does not know which files are of interest. Invariants: what the program starts
//! is traced too, and ends with the tracer (`PTRACE_O_EXITKILL`); nothing is changed in what it does.
//!
//! On x86-64 alone: elsewhere there is no tracing, which is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::order::{Ending, Order};

/// A path is no longer.
const PATH_BYTES: u64 = 4096;

/// What a program did with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It asked whether it is there, and what it is.
    Looked,
    /// It opened it, not only to write it anew, or executed it.
    Read,
    /// It opened it as a folder.
    Listed,
}

/// What a traced program did.
#[derive(Debug)]
pub struct Traced {
    pub ending: Ending,
    /// Absolute paths as they were named, and what was done with each; whether they were there is not known.
    pub uses: BTreeMap<PathBuf, BTreeSet<Use>>,
}

/// A call that names a file, and where among its arguments stand the folder, the path and the flags.
struct Kind {
    number: i64,
    folder: Option<usize>,
    path: usize,
    flags: Option<usize>,
    executes: bool,
}

const fn kind(number: i64, folder: Option<usize>, path: usize) -> Kind {
    Kind { number, folder, path, flags: None, executes: false }
}

#[cfg(target_arch = "x86_64")]
const KINDS: [Kind; 12] = [
    Kind { flags: Some(1), ..kind(libc::SYS_open, None, 0) },
    Kind { flags: Some(2), ..kind(libc::SYS_openat, Some(0), 1) },
    // Its flags stand in memory: it is taken for reading.
    kind(libc::SYS_openat2, Some(0), 1),
    Kind { executes: true, ..kind(libc::SYS_execve, None, 0) },
    Kind { executes: true, ..kind(libc::SYS_execveat, Some(0), 1) },
    kind(libc::SYS_stat, None, 0),
    kind(libc::SYS_lstat, None, 0),
    kind(libc::SYS_access, None, 0),
    kind(libc::SYS_newfstatat, Some(0), 1),
    kind(libc::SYS_statx, Some(0), 1),
    kind(libc::SYS_faccessat, Some(0), 1),
    kind(libc::SYS_faccessat2, Some(0), 1),
];
#[cfg(not(target_arch = "x86_64"))]
const KINDS: [Kind; 0] = [];

/// Becomes a traced program: the arguments are the program and its own.
pub fn become_traced(arguments: &[OsString]) -> io::Error {
    let Some((program, rest)) = arguments.split_first() else { return io::Error::other("no program to trace") };
    let prepared = filter().and_then(|filter| {
        ptrace::traceme()?;
        raise(Signal::SIGSTOP)?;
        seccompiler::apply_filter(&filter).map_err(|error| io::Error::other(error.to_string()))
    });
    prepared.map_or_else(|error| error, |()| Command::new(program).args(rest).exec())
}

fn filter() -> io::Result<BpfProgram> {
    let rules = KINDS.iter().map(|kind| (kind.number, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into();
    let made = architecture.and_then(|architecture| {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), architecture)?.try_into()
    });
    made.map_err(|error: seccompiler::BackendError| io::Error::other(error.to_string()))
}

/// Runs an order under ptrace, without bounds or limits; what it leaves behind is killed. `stub` is a program and its first arguments that calls
/// [`become_traced`] with the rest.
///
/// # Errors
/// If it cannot be traced.
pub fn trace(order: &Order, stub: &[OsString]) -> io::Result<Traced> {
    // Tracees end with the thread that traces them.
    let traced = thread::scope(|scope| scope.spawn(|| start(order, stub)).join());
    traced.expect("tracing does not panic")
}

fn start(order: &Order, stub: &[OsString]) -> io::Result<Traced> {
    if KINDS.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "tracing works on x86-64 alone"));
    }
    let Some((program, first)) = stub.split_first() else { return Err(io::Error::other("no program to trace with")) };
    let log = File::create(&order.log)?;
    let mut command = Command::new(program);
    command.args(first).arg(&order.program).args(&order.arguments).current_dir(&order.folder).env_clear();
    command.envs(order.environment.iter().map(|(name, value)| (name, value)));
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let main = Pid::from_raw(child.id().cast_signed());
    begin(main)?;
    follow(main)
}

fn begin(main: Pid) -> io::Result<()> {
    match waitpid(main, Some(WaitPidFlag::__WALL))? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => return Err(io::Error::other(format!("it cannot be traced: {other:?}"))),
    }
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options)?;
    go_on(main, None)
}

/// To the end of all that is traced: what outlives the program belongs to it.
fn follow(main: Pid) -> io::Result<Traced> {
    let mut uses: BTreeMap<PathBuf, BTreeSet<Use>> = BTreeMap::new();
    let mut known = BTreeSet::from([main]);
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        match status {
            WaitStatus::Exited(task, code) if task == main => {
                return Ok(Traced { ending: Ending::Code(code), uses });
            }
            WaitStatus::Signaled(task, signal, _) if task == main => {
                return Ok(Traced { ending: Ending::Signal(signal as i32), uses });
            }
            WaitStatus::PtraceEvent(task, _, event) => {
                if event == Event::PTRACE_EVENT_SECCOMP as i32
                    && let Some((path, what)) = named(task)
                {
                    uses.entry(path).or_default().insert(what);
                }
                go_on(task, None)?;
            }
            // A new task begins with this stop.
            WaitStatus::Stopped(task, Signal::SIGSTOP) if known.insert(task) => go_on(task, None)?,
            WaitStatus::Stopped(task, signal) => go_on(task, Some(signal))?,
            _ => {}
        }
    }
}

/// A task that was killed meanwhile reports its end by itself.
fn go_on(task: Pid, signal: Option<Signal>) -> io::Result<()> {
    match ptrace::cont(task, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The file that a stopped task is about to use.
#[cfg(target_arch = "x86_64")]
fn named(task: Pid) -> Option<(PathBuf, Use)> {
    let registers = ptrace::getregs(task).ok()?;
    let kind = KINDS.iter().find(|kind| kind.number == registers.orig_rax.cast_signed())?;
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    let path = text(task, arguments[kind.path])?;
    if path.is_empty() {
        return None;
    }
    let folder = kind.folder.map_or(libc::AT_FDCWD, |at| arguments[at] as i32);
    let flags = kind.flags.map(|at| arguments[at] as i32);
    Some((absolute(task, folder, &path), what(kind, flags)?))
}

#[cfg(not(target_arch = "x86_64"))]
fn named(_task: Pid) -> Option<(PathBuf, Use)> {
    None
}

/// `None` if it is made anew: nothing of it is read.
#[cfg(target_arch = "x86_64")]
fn what(kind: &Kind, flags: Option<i32>) -> Option<Use> {
    let opens = kind.number == libc::SYS_openat2 || kind.executes;
    match flags {
        None if opens => Some(Use::Read),
        None => Some(Use::Looked),
        Some(flags) if flags & libc::O_DIRECTORY != 0 => Some(Use::Listed),
        Some(flags) if flags & libc::O_TRUNC != 0 && flags & libc::O_ACCMODE == libc::O_WRONLY => None,
        Some(_) => Some(Use::Read),
    }
}

fn text(task: Pid, address: u64) -> Option<OsString> {
    let mut memory = File::open(format!("/proc/{task}/mem")).ok()?;
    memory.seek(SeekFrom::Start(address)).ok()?;
    let mut bytes = Vec::new();
    // The memory behind the path may end before the longest path does.
    let mut chunk = [0; 256];
    while bytes.len() < PATH_BYTES as usize && !bytes.contains(&0) {
        match memory.read(&mut chunk) {
            Ok(length) if length > 0 => bytes.extend(&chunk[..length]),
            _ => break,
        }
    }
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(OsStr::from_bytes(&bytes[..end]).to_owned())
}

fn absolute(task: Pid, folder: i32, path: &OsStr) -> PathBuf {
    let folder = match folder {
        libc::AT_FDCWD => format!("/proc/{task}/cwd"),
        folder => format!("/proc/{task}/fd/{folder}"),
    };
    let path = Path::new(path);
    if path.is_absolute() { path.to_owned() } else { fs::read_link(folder).unwrap_or_default().join(path) }
}
