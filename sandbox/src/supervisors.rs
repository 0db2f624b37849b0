//! `Supervisors`: the processes that run programs, as their parent sees them.
//!
//! As many are started as programs run at once; one that is idle is used again. It does not know what is run. Invariants:
//! when a program is reported, nothing of it is left, also if its supervisor was killed; dropping ends all supervisors.
//!
//! What a killed supervisor leaves becomes this process's children. They are known by not being anybody else: a process
//! that runs programs through this has no other children meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{getpid, set_child_subreaper};

use crate::descendants;
use crate::order::{Message, Order, Report, receive, send};
use crate::supervisor::NAME;

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
        let supervisor = self.take()?;
        let told = self.tell(&supervisor, order);
        match told.and_then(|told| if told { receive(&supervisor.socket).map(Some) } else { Ok(None) }) {
            Ok(report) => {
                let mut state = lock(&self.state);
                state.busy.remove(&supervisor.process.id());
                state.idle.push(supervisor);
                report.ok_or(SupervisorsError::Interrupted)
            }
            Err(_) => {
                self.bury(supervisor);
                Err(SupervisorsError::Lost)
            }
        }
    }

    /// Sends an order, unless all was told to end: an order that followed the message to stop would not hear of it.
    fn tell(&self, supervisor: &Supervisor, order: &Order) -> io::Result<bool> {
        let orders = lock(&supervisor.orders);
        if self.level() > Level::Go {
            return Ok(false);
        }
        send(&*orders, &Message::Run(Box::new(order.clone()))).map(|()| true)
    }

    /// Tells all that runs to end, now and from now on.
    pub fn interrupt(&self, level: Level) {
        let busy: Vec<_> = {
            let mut state = lock(&self.state);
            state.level = state.level.max(level);
            state.busy.values().cloned().collect()
        };
        let message = match level {
            Level::Go => return,
            Level::Stop => Message::Stop,
            Level::Kill => Message::Kill,
        };
        for orders in busy {
            // One that is gone has nothing left to end.
            let _ = send(&*lock(&orders), &message);
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
        Ok(Supervisor { process, socket, orders })
    }

    /// Ends what a killed supervisor has left.
    fn bury(&self, mut supervisor: Supervisor) {
        lock(&self.state).busy.remove(&supervisor.process.id());
        let mut alive = lock(&ALIVE);
        // It is most likely dead already.
        let _ = supervisor.process.kill();
        let _ = supervisor.process.wait();
        alive.remove(&supervisor.process.id());
        descendants::end_all_but(&alive);
    }
}

impl Drop for Supervisors {
    fn drop(&mut self) {
        for Supervisor { mut process, socket, orders } in std::mem::take(&mut lock(&self.state).idle) {
            drop((socket, orders));
            let _ = process.wait();
            lock(&ALIVE).remove(&process.id());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
