//! `Tracer`: runs a program under ptrace, and decides at each of its calls that touch files what becomes of it.
//!
//! The kernel stops a task at such a call only (a seccomp filter), so that a run takes little longer than by itself. A
//! traced program is this binary first, which asks to be traced, sets the filter and becomes the program.
//!
//! It does not know what the program is for. Invariants: a tracer belongs to one thread, as ptrace does; children of a
//! killed program are held at their next stop until [`Tracer::release`], as if they were slow, but for the supervisors that
//! are to end them; nothing traced outlives the harness (`PTRACE_O_EXITKILL`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{self, Effect, Kind, Scope};
use crate::score::{Trouble, during};
use crate::watchdog::{PATIENCE, Watch};

/// The first argument by which this binary knows that it is to be traced.
pub const STUB: &str = "traced";

/// What supervisors of commands are called.
const SUPERVISOR: &str = "hw-supervisor";
/// How long they have to end what a killed program has started.
const ENDING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// A call at which a task stands.
#[derive(Debug, Clone)]
pub struct Call {
    /// Counted over all tasks of the program and its children, from 0.
    pub number: u64,
    pub kind: &'static Kind,
    /// Whether the program itself makes it, and not a child.
    pub own: bool,
    task: Pid,
    registers: user_regs_struct,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is made.
    Pass,
    /// The program is killed before it.
    Kill,
    /// A write writes the first half, and then the program is killed.
    HalfThenKill,
    /// A write writes the first half, and says so.
    Half,
    /// It is not made, and fails with this error.
    Fail(Errno),
}

/// How a program ended.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    pub code: Option<i32>,
    pub signal: Option<Signal>,
    pub out: String,
    pub err: String,
    /// How many calls it made.
    pub calls: u64,
    /// The call that something was done to.
    pub hit: Option<Hit>,
    /// It hung and was killed.
    pub late: bool,
}

/// A call that something was done to.
#[derive(Debug, Clone)]
pub struct Hit {
    pub number: u64,
    pub name: &'static str,
    pub path: Option<PathBuf>,
    /// Where the file was to be moved to.
    pub destination: Option<PathBuf>,
}

#[derive(Debug)]
struct Task {
    /// The process whose thread it is.
    group: Pid,
    /// Which run of a program it belongs to.
    life: u64,
    /// Whether it is free of the locks of a program that was started here: what that forks has them until it becomes a
    /// program of its own.
    executed: bool,
}

impl Task {
    /// For messages: what the kernel says of it.
    fn told(&self, task: Pid) -> String {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{task}/{name}")).unwrap_or_else(|error| error.to_string());
        let status = read("status");
        let wanted = status.lines().filter(|line| {
            ["Name:", "State:", "Tgid:", "PPid:", "TracerPid:"].iter().any(|name| line.starts_with(name))
        });
        format!("{task} {self:?} {} in {} of {}", wanted.collect::<Vec<_>>().join(" "), read("wchan"), read("syscall"))
    }
}

/// Runs programs and stops at their calls.
#[derive(Debug, Default)]
pub struct Tracer {
    tasks: BTreeMap<Pid, Task>,
    /// Tasks that reported before the call that made them.
    early: BTreeSet<Pid>,
    /// Tasks of killed programs, stopped.
    held: Vec<Pid>,
    life: u64,
    /// The program that runs now, or ran last.
    main: Option<Pid>,
}

enum Stop {
    Call(Pid),
    Returned(Pid),
    Ended(Pid, WaitStatus),
    /// No child is left.
    Nothing,
}

impl Call {
    /// The file it is about.
    pub fn target(&self) -> Option<PathBuf> {
        calls::target(self.task, self.kind, &self.registers)
    }

    /// The bytes it is to write, if it writes.
    pub fn length(&self) -> Option<u64> {
        (self.kind.effect == Effect::Writes).then(|| calls::argument(&self.registers, 2))
    }

    fn hit(&self) -> Hit {
        let destination = calls::destination(self.task, self.kind, &self.registers);
        Hit { number: self.number, name: self.kind.name, path: self.target(), destination }
    }
}

impl std::fmt::Display for Hit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        write!(f, "call {} ({} {path})", self.number, self.name)
    }
}

/// Becomes a traced program: the arguments behind [`STUB`] are the scope, the program and its arguments.
pub fn become_traced(arguments: &[String]) -> Trouble {
    let [scope, program, rest @ ..] = arguments else { return Trouble::harness("a scope and a program") };
    let Some(scope) = Scope::named(scope) else { return Trouble::harness("unknown scope") };
    let prepared = scope.filter().and_then(|filter| {
        ptrace::traceme()?;
        raise(Signal::SIGSTOP)?;
        during("set the filter", seccompiler::apply_filter(&filter))
    });
    match prepared {
        Ok(()) => Trouble::harness(format!("{program}: {}", Command::new(program).args(rest).exec())),
        Err(trouble) => trouble,
    }
}

/// The command that runs `command` traced, its outputs in files of `folder`.
fn stub(command: &Command, scope: Scope, folder: &Path) -> Result<Command, Trouble> {
    let mut stub = Command::new(std::env::current_exe()?);
    stub.arg(STUB).arg(scope.name()).arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            stub.env(name, value);
        }
    }
    if let Some(current) = command.get_current_dir() {
        stub.current_dir(current);
    }
    stub.stdin(Stdio::null()).stdout(File::create(folder.join("out"))?).stderr(File::create(folder.join("err"))?);
    Ok(stub)
}

impl Tracer {
    /// Runs a program to its end; `act` says what becomes of each call. Its outputs go through files in `folder`.
    ///
    /// # Errors
    /// If the harness cannot do it.
    pub fn run(
        &mut self,
        command: &Command,
        scope: Scope,
        folder: &Path,
        mut act: impl FnMut(&Call) -> Act,
    ) -> Result<Ending, Trouble> {
        self.life += 1;
        let main = self.start(command, scope, folder)?;
        let watch = Watch::over(main.as_raw() as u32, PATIENCE);
        let mut ending = Ending::default();
        let mut status = None;
        while status.is_none() || self.unexecuted() {
            match self.next()? {
                Stop::Nothing => break,
                Stop::Ended(task, how) if task == main => status = Some(how),
                Stop::Ended(..) => {}
                Stop::Returned(task) => {
                    kill_group(main)?;
                    if self.tasks[&task].group != main {
                        self.hold(task)?;
                    }
                }
                Stop::Call(task) if status.is_some() || self.tasks[&task].life != self.life => self.hold(task)?,
                Stop::Call(task) => self.decide(task, main, &mut ending, &mut act)?,
            }
        }
        ending.late = watch.was_late();
        match status {
            Some(WaitStatus::Exited(_, code)) => ending.code = Some(code),
            Some(WaitStatus::Signaled(_, signal, _)) => ending.signal = Some(signal),
            _ => return Err(Trouble::harness("the traced program was lost")),
        }
        ending.out = text(&folder.join("out"))?;
        ending.err = text(&folder.join("err"))?;
        Ok(ending)
    }

    /// The tasks of killed programs that are not ended by their supervisors, as their command lines; they go on then, to
    /// their end.
    ///
    /// # Errors
    /// If the harness cannot do it.
    pub fn release(&mut self) -> Result<Vec<String>, Trouble> {
        self.settle()?;
        let line =
            |task: &Pid| fs::read_to_string(format!("/proc/{task}/cmdline")).unwrap_or_default().replace('\0', " ");
        let survivors: Vec<String> = self.tasks.keys().map(line).collect();
        let told: Vec<String> = self.tasks.iter().map(|(task, about)| about.told(*task)).collect();
        let watches: Vec<Watch> =
            self.tasks.values().map(|task| Watch::over(task.group.as_raw() as u32, PATIENCE)).collect();
        for task in std::mem::take(&mut self.held) {
            go_on(task, None)?;
        }
        while !self.tasks.is_empty() {
            match self.next()? {
                Stop::Call(task) | Stop::Returned(task) => go_on(task, None)?,
                Stop::Ended(..) => {}
                Stop::Nothing => self.tasks.clear(),
            }
        }
        if watches.iter().any(Watch::was_late) {
            return Err(Trouble::violation(format!("a child of a killed run hung, of {}", told.join("; "))));
        }
        Ok(survivors)
    }

    /// Waits for the ends of all tasks while supervisors end them: what is held stays so.
    fn settle(&mut self) -> Result<(), Trouble> {
        let begun = Instant::now();
        while !self.tasks.is_empty() && begun.elapsed() < ENDING {
            match self.look()? {
                None => {
                    self.adopt()?;
                    thread::sleep(PAUSE);
                }
                Some(Stop::Call(task)) => self.hold(task)?,
                Some(Stop::Returned(task)) => go_on(task, None)?,
                Some(Stop::Ended(..)) => {}
                Some(Stop::Nothing) => self.tasks.clear(),
            }
        }
        Ok(())
    }

    /// Lets children go on whose parent was killed before it could tell of them. They have what their parent had open: a
    /// supervisor would wait for its end for as long as they are stopped.
    fn adopt(&mut self) -> Result<(), Trouble> {
        for child in std::mem::take(&mut self.early) {
            self.tasks.insert(child, Task { group: child, life: self.life, executed: false });
            go_on(child, None)?;
        }
        Ok(())
    }

    /// Ends the children of killed programs, too: as after a power cut, nothing lives on.
    ///
    /// # Errors
    /// If the harness cannot do it.
    pub fn end_all(&mut self) -> Result<(), Trouble> {
        for task in self.tasks.values() {
            kill_group(task.group)?;
        }
        self.release().map(drop)
    }

    fn start(&mut self, command: &Command, scope: Scope, folder: &Path) -> Result<Pid, Trouble> {
        let child = stub(command, scope, folder)?.spawn()?;
        let main = Pid::from_raw(child.id() as i32);
        match waitpid(main, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            other => return Err(Trouble::harness(format!("a traced program began with {other:?}"))),
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(main, options)?;
        self.tasks.insert(main, Task { group: main, life: self.life, executed: true });
        self.main = Some(main);
        go_on(main, None)?;
        Ok(main)
    }

    fn decide(
        &mut self,
        task: Pid,
        main: Pid,
        ending: &mut Ending,
        act: &mut impl FnMut(&Call) -> Act,
    ) -> Result<(), Trouble> {
        // A task that was killed meanwhile has no registers; its end is reported next.
        let Ok(mut registers) = ptrace::getregs(task) else { return Ok(()) };
        let Some(kind) = calls::kind_of(registers.orig_rax) else { return go_on(task, None) };
        let own = self.tasks[&task].group == main;
        let call = Call { number: ending.calls, kind, own, task, registers };
        ending.calls += 1;
        let chosen = act(&call);
        if chosen != Act::Pass {
            ending.hit = Some(call.hit());
        }
        match chosen {
            Act::Pass => go_on(task, None),
            Act::Kill if own => kill_group(main),
            Act::Kill => kill_group(main).and_then(|()| self.hold(task)),
            Act::Half | Act::HalfThenKill => {
                registers.rdx = registers.rdx.div_ceil(2);
                ignore_dead(ptrace::setregs(task, registers))?;
                if chosen == Act::Half { go_on(task, None) } else { ignore_dead(ptrace::syscall(task, None)) }
            }
            Act::Fail(errno) => {
                registers.orig_rax = u64::MAX;
                registers.rax = (-(errno as i64)) as u64;
                ignore_dead(ptrace::setregs(task, registers))?;
                go_on(task, None)
            }
        }
    }

    /// Keeps a child of a killed program where it is, unless it may have the locks of its parent.
    fn hold(&mut self, task: Pid) -> Result<(), Trouble> {
        if !self.tasks[&task].executed || is_supervisor(self.tasks[&task].group) {
            return go_on(task, None);
        }
        self.held.push(task);
        Ok(())
    }

    /// Whether a child that was forked may still have the locks of its parent.
    fn unexecuted(&self) -> bool {
        self.tasks.values().any(|task| !task.executed)
    }

    /// Waits for the next thing that somebody must decide about.
    fn next(&mut self) -> Result<Stop, Trouble> {
        self.stop(WaitPidFlag::empty()).map(|stop| stop.expect("it waits until there is one"))
    }

    /// The next thing that somebody must decide about, if it is there.
    fn look(&mut self) -> Result<Option<Stop>, Trouble> {
        self.stop(WaitPidFlag::WNOHANG)
    }

    fn stop(&mut self, how: WaitPidFlag) -> Result<Option<Stop>, Trouble> {
        loop {
            let status = match waitpid(None, Some(how | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::ECHILD) => return Ok(Some(Stop::Nothing)),
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            match status {
                WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                    self.tasks.remove(&task);
                    self.early.remove(&task);
                    self.held.retain(|held| *held != task);
                    return Ok(Some(Stop::Ended(task, status)));
                }
                WaitStatus::PtraceEvent(task, _, event) if event == Event::PTRACE_EVENT_SECCOMP as i32 => {
                    return Ok(Some(Stop::Call(task)));
                }
                WaitStatus::PtraceEvent(task, _, event) => self.note(task, event)?,
                WaitStatus::PtraceSyscall(task) => return Ok(Some(Stop::Returned(task))),
                WaitStatus::Stopped(task, Signal::SIGSTOP) if !self.tasks.contains_key(&task) => {
                    self.early.insert(task);
                }
                WaitStatus::Stopped(task, Signal::SIGSTOP) => go_on(task, None)?,
                WaitStatus::Stopped(task, signal) => go_on(task, Some(signal))?,
                WaitStatus::StillAlive => return Ok(None),
                WaitStatus::Continued(_) => {}
            }
        }
    }

    /// A task made another, or became another program.
    fn note(&mut self, task: Pid, event: i32) -> Result<(), Trouble> {
        let made = |known: Event| event == known as i32;
        if made(Event::PTRACE_EVENT_EXEC) {
            if let Some(task) = self.tasks.get_mut(&task) {
                task.executed = true;
            }
        } else if [Event::PTRACE_EVENT_CLONE, Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK]
            .map(made)
            .contains(&true)
            && let Ok(child) = ptrace::getevent(task)
        {
            let child = Pid::from_raw(child as i32);
            let Some(parent) = self.tasks.get(&task) else { return Err(Trouble::harness("a task of nobody")) };
            let thread = made(Event::PTRACE_EVENT_CLONE);
            let (group, executed) =
                if thread { (parent.group, parent.executed) } else { (child, Some(parent.group) != self.main) };
            let life = parent.life;
            self.tasks.insert(child, Task { group, life, executed });
            if self.early.remove(&child) {
                go_on(child, None)?;
            }
        }
        go_on(task, None)
    }
}

/// Supervisors of commands have a name of their own.
fn is_supervisor(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim_end() == SUPERVISOR)
}

fn text(path: &Path) -> Result<String, Trouble> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

fn go_on(task: Pid, signal: Option<Signal>) -> Result<(), Trouble> {
    ignore_dead(ptrace::cont(task, signal))
}

fn kill_group(group: Pid) -> Result<(), Trouble> {
    ignore_dead(kill(group, Signal::SIGKILL))
}

/// A task that was killed meanwhile reports its end by itself.
fn ignore_dead(result: nix::Result<()>) -> Result<(), Trouble> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(Trouble::harness(format!("ptrace: {error}"))),
    }
}

/// What the binary does when it is called as [`STUB`].
pub fn stub_main(arguments: &[String]) -> ! {
    let trouble = become_traced(arguments);
    eprintln!("{trouble:?}");
    process::exit(127)
}
