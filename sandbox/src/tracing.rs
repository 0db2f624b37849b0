//! Which files a program uses: it is run under ptrace, and stops at the calls that name a file.
//!
//! A seccomp filter lets the kernel stop it there only. The traced program is this program first, which asks to be traced,
//! sets the filter and becomes the other. It does not know which files are of interest. Invariants: what the program starts
//! is traced too, and ends with the tracer (`PTRACE_O_EXITKILL`), as does the program before it is traced; nothing is changed in what it does.
//!
//! On x86-64 alone: elsewhere there is no tracing, which is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{getppid, set_parent_process_death_signal};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::bounds;
use crate::calls;
#[cfg(target_arch = "x86_64")]
use crate::calls::Does;
use crate::order::{Ending, Order};

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

impl Use {
    /// Whether a folder with which this was done may have been listed: one can be opened as a file is, too.
    pub fn may_list(self) -> bool {
        self != Self::Looked
    }
}

/// What a traced program did.
#[derive(Debug)]
pub struct Traced {
    pub ending: Ending,
    /// Absolute paths as they were named, and what was done with each; whether they were there is not known.
    pub uses: BTreeMap<PathBuf, BTreeSet<Use>>,
}

/// Becomes a traced program: the arguments are the number of the tracer, the program, and its own arguments.
pub fn become_traced(arguments: &[OsString]) -> io::Error {
    let [tracer, program, rest @ ..] = arguments else { return io::Error::other("no program to trace") };
    let prepared = filter().and_then(|filter| {
        end_with(tracer)?;
        ptrace::traceme()?;
        raise(Signal::SIGSTOP)?;
        seccompiler::apply_filter(&filter).map_err(|error| io::Error::other(error.to_string()))
    });
    prepared.map_or_else(|error| error, |()| Command::new(program).args(rest).exec())
}

/// Has this process end with its tracer, which may be killed before it traces anything: whoever gets this process then
/// would never wake it.
fn end_with(tracer: &OsStr) -> io::Result<()> {
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.is_some_and(|parent| tracer == parent.as_str()) {
        return Ok(());
    }
    Err(io::Error::other("whoever was to trace it is gone"))
}

fn filter() -> io::Result<BpfProgram> {
    let rules = calls::all().map(|kind| (kind.number, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into();
    let made = architecture.and_then(|architecture| {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), architecture)?.try_into()
    });
    made.map_err(|error: seccompiler::BackendError| io::Error::other(error.to_string()))
}

/// Runs an order under ptrace, within its bounds, without limits of time; what it leaves behind is killed. `stub` is a
/// program and its first arguments that calls [`become_traced`] with the rest.
///
/// # Errors
/// If it cannot be traced.
pub fn trace(order: &Order, stub: &[OsString]) -> io::Result<Traced> {
    // Tracees end with the thread that traces them.
    let traced = thread::scope(|scope| scope.spawn(|| start(order, stub)).join());
    traced.expect("tracing does not panic")
}

fn start(order: &Order, stub: &[OsString]) -> io::Result<Traced> {
    if !cfg!(target_arch = "x86_64") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "tracing works on x86-64 alone"));
    }
    let Some((program, first)) = stub.split_first() else { return Err(io::Error::other("no program to trace with")) };
    let log = File::create(&order.log)?;
    let mut command = Command::new(program);
    command.args(first).arg(process::id().to_string()).arg(&order.program).args(&order.arguments);
    command.current_dir(&order.folder).env_clear();
    command.envs(order.environment.iter().map(|(name, value)| (name, value)));
    if let Some(bounds) = &order.bounds {
        // This thread's, which may look at what has the same ones.
        bounds::enter(bounds)?;
    }
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
    let kind = calls::of(registers.orig_rax.cast_signed())?;
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    let path = kind.path(task, &arguments)?;
    Some((kind.absolute(task, &arguments, &path), what(kind, &arguments)?))
}

#[cfg(not(target_arch = "x86_64"))]
fn named(_task: Pid) -> Option<(PathBuf, Use)> {
    None
}

/// `None` if it is made anew: nothing of it is read. One whose flags stand in memory is taken for read.
#[cfg(target_arch = "x86_64")]
fn what(kind: &calls::Kind, arguments: &[u64; 6]) -> Option<Use> {
    match (kind.does, kind.flags(arguments)) {
        (Does::Looks, _) => Some(Use::Looked),
        (_, None) => Some(Use::Read),
        // What is open like that can be neither read nor listed.
        (_, Some(flags)) if flags & libc::O_PATH != 0 => Some(Use::Looked),
        (_, Some(flags)) if flags & libc::O_DIRECTORY != 0 => Some(Use::Listed),
        (_, Some(flags)) if flags & libc::O_TRUNC != 0 && flags & libc::O_ACCMODE == libc::O_WRONLY => None,
        (_, Some(_)) => Some(Use::Read),
    }
}
