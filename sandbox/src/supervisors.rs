//! `Supervisors`: the processes that run programs, as their parent sees them.
//!
//! As many are started as programs run at once; one that is idle is used again. It does not know what is run. Invariants:
//! when a program is reported, nothing of it is left, also if its supervisor was killed; dropping ends all supervisors; a
//! limit of time holds, also if the supervisor does nothing.
//!
//! What a killed supervisor leaves becomes this process's children. Others may, too: what whoever started this process had
//! started before. They are told apart by their sessions: a supervisor begins a new one before it starts anything, and no
//! process can enter one that is there. A stranger that begins a session later, and loses its parent then, is taken for
//! something that the supervisor left.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

use crate::descendants;
use crate::order::{Ending, Message, Order, Report, receive, send};
use crate::supervisor::{GRACE, NAME};

/// How long after the last moment of a program its supervisor has to report: longer than it takes to end much.
const PATIENCE: Duration = Duration::from_secs(5);

/// How firmly all that runs is to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Go,
    /// Nothing new starts; what runs has some seconds to clean up.
    Stop,
    /// What runs is killed.
    Kill,
}

/// Why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorsError {
    #[error("the supervisor of commands cannot be started: {0}")]
    NotStarted(#[source] io::Error),
    #[error("the supervisor of the command was killed")]
    Lost,
    #[error("interrupted")]
    Interrupted,
}

/// The living supervisors of this process. Held while one is started, which would not be known yet.
static ALIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// The sessions in which nothing is ours, as of before the first supervisor.
static SPARED: OnceLock<BTreeSet<i32>> = OnceLock::new();

/// Runs programs, each below a supervisor.
pub struct Supervisors {
    program: PathBuf,
    arguments: Vec<OsString>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    level: Level,
    idle: Vec<Supervisor>,
    /// Those that run something, by process.
    busy: BTreeMap<u32, Arc<Mutex<UnixStream>>>,
}

struct Supervisor {
    process: Child,
    /// For reading, and for writing by whoever holds the lock.
    socket: UnixStream,
    orders: Arc<Mutex<UnixStream>>,
    /// Whether it has run something, and was idle since.
    idled: bool,
}

impl Supervisors {
    /// Supervisors are started as this program with these arguments, which must call [`crate::supervisor::serve`].
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments, state: Mutex::default() }
    }

    /// Runs a program and waits for its end.
    ///
    /// # Errors
    /// If it cannot be supervised, or all was told to end before.
    pub fn run(&self, order: &Order) -> Result<Report, SupervisorsError> {
        let (mut supervisor, told) = loop {
            let supervisor = self.take()?;
            match self.tell(&supervisor, order) {
                // It was killed while it was idle: nothing has begun.
                Err(_) if supervisor.idled => self.bury(supervisor),
                told => break (supervisor, told),
            }
        };
        let told = told.map_err(|_| None);
        match told.and_then(|told| if told { supervisor.report(order).map(Some) } else { Ok(None) }) {
            Ok(report) => {
                let mut state = lock(&self.state);
                state.busy.remove(&supervisor.process.id());
                supervisor.idled = true;
                state.idle.push(supervisor);
                report.ok_or(SupervisorsError::Interrupted)
            }
            Err(late) => {
                self.bury(supervisor);
                late.map(Report::of).ok_or(SupervisorsError::Lost)
            }
        }
    }

    /// Sends an order, unless all was told to end: an order that followed the message to stop would not hear of it.
    fn tell(&self, supervisor: &Supervisor, order: &Order) -> io::Result<bool> {
        let orders = lock(&supervisor.orders);
        if self.level() > Level::Go {
            return Ok(false);
        }
        // It may have been stopped while it was idle.
        wake(supervisor.process.id());
        send(&*orders, &Message::Run(Box::new(order.clone()))).map(|()| true)
    }

    /// Tells all that runs to end, now and from now on.
    pub fn interrupt(&self, level: Level) {
        let busy: Vec<_> = {
            let mut state = lock(&self.state);
            state.level = state.level.max(level);
            state.busy.iter().map(|(process, orders)| (*process, orders.clone())).collect()
        };
        let message = match level {
            Level::Go => return,
            Level::Stop => Message::Stop,
            Level::Kill => Message::Kill,
        };
        for (process, orders) in busy {
            // One that is gone has nothing left to end.
            let _ = send(&*lock(&orders), &message);
            wake(process);
        }
    }

    /// How firmly all was told to end.
    pub fn level(&self) -> Level {
        lock(&self.state).level
    }

    /// An idle supervisor, or a new one, which counts as busy from then on.
    fn take(&self) -> Result<Supervisor, SupervisorsError> {
        let mut state = lock(&self.state);
        if state.level > Level::Go {
            return Err(SupervisorsError::Interrupted);
        }
        let supervisor = match state.idle.pop() {
            Some(supervisor) => supervisor,
            None => self.start().map_err(SupervisorsError::NotStarted)?,
        };
        state.busy.insert(supervisor.process.id(), supervisor.orders.clone());
        Ok(supervisor)
    }

    fn start(&self) -> io::Result<Supervisor> {
        SPARED.get_or_init(descendants::sessions);
        // So that what a killed supervisor leaves comes here.
        set_child_subreaper(Some(getpid()))?;
        let (socket, theirs) = UnixStream::pair()?;
        let orders = Arc::new(Mutex::new(socket.try_clone()?));
        let mut command = Command::new(&self.program);
        // A program may read its parent's environment (`/proc`), and finds nothing in it.
        command.arg0(NAME).args(&self.arguments).env_clear();
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let mut alive = lock(&ALIVE);
        let process = command.spawn()?;
        alive.insert(process.id());
        Ok(Supervisor { process, socket, orders, idled: false })
    }

    /// Ends what a killed supervisor has left.
    fn bury(&self, supervisor: Supervisor) {
        let Supervisor { mut process, socket, orders, .. } = supervisor;
        lock(&self.state).busy.remove(&process.id());
        // There may be no other descriptors to look for its children with.
        drop((socket, orders));
        let mut alive = lock(&ALIVE);
        // It is most likely dead already.
        let _ = process.kill();
        let _ = process.wait();
        alive.remove(&process.id());
        descendants::end_all_but(&alive, SPARED.get().unwrap_or(&BTreeSet::new()));
    }
}

impl Supervisor {
    /// What became of its order. One that was stopped, by a signal, enforces no limits.
    ///
    /// # Errors
    /// What it should have done long ago, as a limit has passed; `None` if it is gone.
    fn report(&self, order: &Order) -> Result<Report, Option<Ending>> {
        let begun = Instant::now();
        let late = |limit: Option<Duration>| limit.and_then(|limit| limit.checked_add(GRACE + PATIENCE));
        let (whole, silent) = (late(order.timeout), late(order.idle_timeout));
        loop {
            let left = whole.map(|whole| whole.saturating_sub(begun.elapsed()));
            let wait = [left, silent].into_iter().flatten().min().and_then(|wait| Timespec::try_from(wait).ok());
            let mut awaited = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut awaited, wait.as_ref()) {
                Err(_) => {}
                Ok(0) => {
                    if whole.is_some_and(|whole| whole <= begun.elapsed()) {
                        return Err(Some(Ending::TimedOut));
                    }
                    // How long the program has been silent is known to the supervisor alone.
                    if descendants::is_stopped(self.process.id()) {
                        return Err(Some(Ending::Silent));
                    }
                }
                Ok(_) => return receive(&self.socket).map_err(|_| None),
            }
        }
    }
}

/// A supervisor that was stopped, by a signal, hears of nothing.
fn wake(process: u32) {
    if let Some(process) = Pid::from_raw(process.cast_signed()) {
        // It may be gone; to one that runs, this does nothing.
        let _ = kill_process(process, Signal::CONT);
    }
}

impl Drop for Supervisors {
    fn drop(&mut self) {
        for Supervisor { mut process, socket, orders, .. } in std::mem::take(&mut lock(&self.state).idle) {
            drop((socket, orders));
            wake(process.id());
            let _ = process.wait();
            lock(&ALIVE).remove(&process.id());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
