//! Interrupts: Ctrl-C, `SIGTERM`, and a terminal that is closed.
//!
//! | | |
//! |---|---|
//! | once | no stage starts any more; commands get `SIGTERM`, and `SIGKILL` after some seconds; what has finished is recorded |
//! | twice | commands are killed, and the program ends at once: the store is as after a kill, whole |
//!
//! Invariants: after the first interrupt the program ends
//! within [`PATIENCE`], whatever it waits for; a signal that was ignored when the program began, as by `nohup`, stays so.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use headwater_engine::Cancel;
use headwater_sandbox::Level;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::project::Project;
use crate::report::tell;

/// The exit code of an interrupted program.
pub const EXIT_CODE: u8 = 130;
/// How long after the first interrupt the program ends, also if a stage of its own goes on.
pub const PATIENCE: Duration = Duration::from_secs(9);
/// How long supervisors have to kill what they run.
const KILLING: Duration = Duration::from_millis(500);

/// What signals end: a run, and the commands of a project.
#[derive(Clone)]
struct Heard {
    cancel: Cancel,
    project: Weak<Project>,
}

/// Lets signals end a run, the commands of its project, and then the program.
///
/// # Errors
/// If signals cannot be had.
pub fn listen(project: &Arc<Project>, cancel: Cancel) -> io::Result<()> {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(wanted)?;
    let ended = Heard { cancel, project: Arc::downgrade(project) };
    let hear = move || {
        let mut heard = false;
        for signal in signals.forever() {
            // Who closes a terminal may send this more than once.
            if heard && signal != SIGHUP {
                ended.end_now();
            } else if !std::mem::replace(&mut heard, true) {
                ended.stop();
            }
        }
    };
    thread::Builder::new().name("interrupts".into()).spawn(hear).map(drop)
}

impl Heard {
    /// Other threads wait and tell, as this one goes on hearing: whoever reads what is told may have stopped reading.
    fn stop(&self) {
        let ended = self.clone();
        let end = move || {
            thread::sleep(PATIENCE);
            ended.end_now();
        };
        if thread::Builder::new().spawn(end).is_err() {
            return self.end_now();
        }
        self.raise(Level::Stop);
        // What cannot be told is not.
        let _ = thread::Builder::new().spawn(|| tell("interrupted: what runs is told to end; once more kills it"));
    }

    /// Ends the program also if a supervisor cannot be reached.
    fn end_now(&self) {
        let ended = self.clone();
        let _ = thread::Builder::new().spawn(move || ended.raise(Level::Kill));
        thread::sleep(KILLING);
        std::process::exit(EXIT_CODE.into());
    }

    fn raise(&self, level: Level) {
        self.cancel.raise();
        if let Some(project) = self.project.upgrade() {
            project.workshop.supervisors.interrupt(level);
        }
    }
}

/// The kernel tells it as a mask in hexadecimal digits.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
