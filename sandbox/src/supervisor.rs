//! The supervisor: a process that runs one program at a time, and ends all that the program has started.
//!
//! Its standard input is a socket: orders and orders to stop come in, a report goes back for each program. It is single
//! but for a thread per bounded program, which binds itself and starts it. It does not know who its parent is.
//!
//! Invariant of files: a program inherits nothing open but its three standard streams.
//!
//! A program gets a process group of its own in the supervisor's session, no standard input, and one pipe for all that it
//! prints. When it is to end, its group and the supervisor's other children get `SIGTERM`, and `SIGKILL` after [`GRACE`].
//!
//! Invariants: a report is sent only when no process of the program is left and what it printed is in the file; the end of
//! the parent ends the program at once.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, getpid, pidfd_open, set_child_subreaper, setsid};

use crate::bounds;
use crate::capture::Capture;
use crate::company::Company;
use crate::descendants::{self, Ended};
use crate::lookups::{self, Binding, Lookups};
use crate::order::{Ending, Message, Order, Report, receive, send};
use crate::search;

/// How long a program has to clean up when it is told to end.
pub const GRACE: Duration = Duration::from_secs(5);
/// What a supervisor is called in lists of processes: whoever kills by the name of its parent spares it, so that it does
/// its last work.
pub const NAME: &str = "hw-supervisor";

/// How often a process is looked at that cannot be waited for.
const GLANCE: Duration = Duration::from_millis(10);
const CHUNK: usize = 64 * 1024;

/// Serves until the parent is gone; only then does it return.
///
/// # Errors
/// If this process cannot be a supervisor.
pub fn serve() -> io::Result<()> {
    close_inherited();
    let _ = rustix::thread::set_name(c"hw-supervisor");
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    loop {
        match receive(&control) {
            Ok(Message::Run(order)) => {
                let report = Run::of(&order, &control);
                if send(&control, &report).is_err() {
                    return Ok(());
                }
            }
            // What they are about has ended by itself.
            Ok(Message::Stop | Message::Kill) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// What the parent was given open by whoever started it, and so this process, is no business of programs. Nothing else is
/// open yet but the standard streams.
fn close_inherited() {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    let open: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // That of the listing is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// A program under way.
struct Run<'a> {
    order: &'a Order,
    control: &'a UnixStream,
    /// The program itself.
    main: Pid,
    output: Option<PipeReader>,
    /// What it prints on standard error, if that is kept apart; read in the end.
    errors: Option<PipeReader>,
    capture: Capture,
    ended: Ended,
    /// Why it was told to end.
    cause: Option<Ending>,
    /// When it is killed.
    last: Option<Instant>,
    begun: Instant,
    heard: Instant,
    lookups: Option<Lookups>,
    company: Company,
}

/// What woke the supervisor.
struct Woken {
    control: bool,
    output: bool,
    company: PollFlags,
}

impl<'a> Run<'a> {
    /// Runs a program to its end.
    fn of(order: &'a Order, control: &'a UnixStream) -> Report {
        match Self::start(order, control) {
            Ok(run) => run.finish(),
            Err(error) => {
                descendants::end_all(&mut Ended::new()).unwrap_or_else(give_up);
                Report::of(Ending::NotStarted(error.to_string()))
            }
        }
    }

    fn start(order: &'a Order, control: &'a UnixStream) -> io::Result<Self> {
        let capture = Capture::new(Some(Path::new(&order.log)).filter(|log| !log.as_os_str().is_empty()))?;
        let (output, writer) = io::pipe()?;
        let (errors, apart) = if order.errors_apart {
            io::pipe().map(|(errors, apart)| (Some(errors), Some(apart)))?
        } else {
            (None, None)
        };
        let lookups = order.twin.as_ref().filter(|_| order.bounds.is_some()).map(Lookups::begin).transpose()?;
        let binding = lookups.as_ref().map(Lookups::binding);
        let (main, company) = match order.bounds {
            // What binds a thread would bind this one.
            Some(_) => thread::scope(|scope| {
                scope.spawn(|| spawn(order, writer, apart, binding)).join().expect("starting does not panic")
            }),
            None => spawn(order, writer, apart, None),
        }?;
        let (ended, now) = (Ended::new(), Instant::now());
        let output = Some(output);
        Ok(Self {
            order,
            control,
            main,
            output,
            errors,
            capture,
            ended,
            cause: None,
            last: None,
            begun: now,
            heard: now,
            lookups,
            company,
        })
    }

    fn finish(mut self) -> Report {
        while let Some(awaited) = self.awaited() {
            self.step(awaited);
        }
        let survivors = descendants::end_all(&mut self.ended).unwrap_or_else(give_up);
        self.drain();
        let errors = self.errors.take().map(rest).unwrap_or_default();
        let ending = match (self.cause, self.ended.get(&self.main.as_raw_nonzero().get())) {
            (Some(cause), _) => cause,
            (None, Some(status)) => ending(*status),
            (None, None) => Ending::NotStarted("its end was lost".into()),
        };
        let missed = self.lookups.take().filter(|_| ending != Ending::Code(0)).and_then(|all| all.missed(self.order));
        let alone = self.company.alone;
        match self.capture.finish() {
            Ok((printed, output)) => Report { ending, survivors, printed, output, errors, missed, alone },
            Err(error) => {
                let text = format!("what it printed cannot be written to {}: {error}", self.order.log.display());
                Report { survivors, ..Report::of(Ending::NotStarted(text)) }
            }
        }
    }

    /// The process whose end is next to wait for: the program itself, or, when it was told to end, any that is left.
    fn awaited(&mut self) -> Option<Pid> {
        descendants::reap(&mut self.ended)?;
        if !self.ended.contains_key(&self.main.as_raw_nonzero().get()) {
            return Some(self.main);
        }
        let killed = self.last.is_none_or(|last| last <= Instant::now());
        if killed { None } else { descendants::children().into_iter().next() }
    }

    /// Waits for something to happen, and deals with it.
    fn step(&mut self, awaited: Pid) {
        let woken = self.wait(pidfd_open(awaited, PidfdFlags::empty()).ok());
        self.company.hear(woken.company);
        if woken.control {
            self.hear();
        }
        if woken.output {
            self.read();
        }
        let now = Instant::now();
        match self.due() {
            Some((at, None)) if at <= now => descendants::signal_all(Signal::KILL),
            Some((at, Some(cause))) if at <= now => self.end(cause),
            _ => {}
        }
    }

    /// When the supervisor must act next, and why the program is told to end then; it has been told if there is no cause.
    fn due(&self) -> Option<(Instant, Option<Ending>)> {
        if let Some(last) = self.last {
            return Some((last, None));
        }
        let limit = |from: Instant, limit: Option<Duration>, cause| Some((from.checked_add(limit?)?, Some(cause)));
        let whole = limit(self.begun, self.order.timeout, Ending::TimedOut);
        let silent = limit(self.heard, self.order.idle_timeout, Ending::Silent);
        [whole, silent].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Waits for the end of a process, a message, output, a call that is told, or the time to act. A process that cannot be waited for like
    /// that, as on Linux before 5.3, is looked at again and again.
    fn wait(&self, process: Option<OwnedFd>) -> Woken {
        let mut descriptors = vec![PollFd::new(self.control, PollFlags::IN)];
        let first_output = descriptors.len();
        descriptors.extend(self.output.as_ref().map(|output| PollFd::new(output, PollFlags::IN)));
        let first_company = descriptors.len();
        descriptors.extend(self.company.listener().map(|listener| PollFd::new(listener, PollFlags::IN)));
        descriptors.extend(process.as_ref().map(|process| PollFd::new(process, PollFlags::IN)));
        let left = self.due().map(|(at, _)| at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let left = if process.is_some() { left } else { Some(left.map_or(GLANCE, |left| left.min(GLANCE))) };
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        // A failed wait is a short one, but where no wait can succeed.
        if poll(&mut descriptors, left.as_ref()) == Err(Errno::INVAL) {
            give_up::<()>();
        }
        let found = |at: usize| descriptors.get(at).map_or(PollFlags::empty(), PollFd::revents);
        Woken {
            control: !found(0).is_empty(),
            output: self.output.is_some() && !found(first_output).is_empty(),
            company: self.company.listener().map_or(PollFlags::empty(), |_| found(first_company)),
        }
    }

    fn hear(&mut self) {
        match receive(self.control) {
            Ok(Message::Stop) if self.cause.is_none() => self.end(Ending::Stopped),
            Ok(Message::Stop) => {}
            Ok(Message::Run(_)) | Ok(Message::Kill) | Err(_) => {
                self.cause.get_or_insert(Ending::Stopped);
                self.last = Some(Instant::now());
                descendants::signal_all(Signal::KILL);
            }
        }
    }

    fn end(&mut self, cause: Ending) {
        self.cause = Some(cause);
        self.last = Some(Instant::now() + GRACE);
        descendants::signal_all(Signal::TERM);
        // What is stopped would not hear.
        descendants::signal_all(Signal::CONT);
    }

    fn read(&mut self) {
        let mut chunk = [0; CHUNK];
        match self.output.as_mut().map(|output| output.read(&mut chunk)) {
            Some(Ok(0)) => self.output = None,
            Some(Ok(length)) => {
                self.capture.take(&chunk[..length]);
                self.heard = Instant::now();
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Some(Err(_)) => self.output = None,
            None => {}
        }
    }

    /// Reads what is left in the pipe. Whoever else may hold it: nobody waits for more.
    fn drain(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while let Some(output) = &self.output
            && poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
        {
            self.read();
        }
    }
}

/// Ends the supervisor, which a program has made unable to do its work (`prlimit`): what is left comes to the parent, which
/// ends it.
fn give_up<T>() -> T {
    std::process::exit(1)
}

/// What is in a pipe, without waiting for more.
fn rest(mut pipe: PipeReader) -> Vec<u8> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let (mut bytes, mut chunk) = (Vec::new(), [0; CHUNK]);
    while poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
        && let Ok(length @ 1..) = pipe.read(&mut chunk)
    {
        bytes.extend(&chunk[..length]);
    }
    bytes
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::NotStarted("it ended in an unknown way".into()),
    }
}

/// Binds the calling thread, if there are bounds, and starts the program from it. A bound thread must end then.
fn spawn(
    order: &Order,
    output: io::PipeWriter,
    errors: Option<io::PipeWriter>,
    binding: Option<Binding>,
) -> io::Result<(Pid, Company)> {
    // Found before the bounds are in force: an error should say that it is not there, not that it may not be looked at.
    let mut command = Command::new(find(order).unwrap_or_else(|| PathBuf::from(&order.program)));
    command.arg0(&order.program).args(&order.arguments).current_dir(&order.folder);
    command.env_clear().envs(order.environment.iter().map(|(name, value)| (name, value)));
    command.process_group(0).stdin(Stdio::null()).stdout(output.try_clone()?);
    command.stderr(errors.unwrap_or(output));
    if let Some(bounds) = &order.bounds {
        bounds::enter(bounds)?;
    }
    if let Some(binding) = &binding {
        lookups::bind(binding);
    }
    // Nobody answers before this thread has ended: starting makes no socket but a closed pair.
    let company = Company::of(order);
    let child = command.spawn()?;
    let main = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("a process without a number"))?;
    Ok((main, company))
}

/// The program in the `PATH` that it will have.
fn find(order: &Order) -> Option<PathBuf> {
    let (_, path) = order.environment.iter().find(|(name, _)| name == "PATH")?;
    if order.program.as_encoded_bytes().contains(&b'/') { None } else { search::find(&order.program, path) }
}
