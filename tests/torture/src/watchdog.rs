//! Deadlines of processes: what hangs is killed, and it is told.
//!
//! It does not know what the processes do. Invariant: a process that is no longer watched is never killed.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::score::Trouble;

/// Longer than this nothing that the harness starts takes, but what hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Process to its deadline, and whether it was killed at it.
static WATCHED: LazyLock<Mutex<BTreeMap<i32, (Instant, bool)>>> = LazyLock::new(|| {
    thread::spawn(look_after);
    Mutex::default()
});

/// A process with a deadline, until this is dropped.
pub struct Watch(i32);

impl Watch {
    /// Watches a process that has just been started.
    pub fn over(process: u32, patience: Duration) -> Self {
        let process = process as i32;
        watched().insert(process, (Instant::now() + patience, false));
        Self(process)
    }

    /// Whether it was killed as it did not end in time.
    pub fn was_late(&self) -> bool {
        watched().get(&self.0).is_some_and(|(_, killed)| *killed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watched().remove(&self.0);
    }
}

fn watched() -> std::sync::MutexGuard<'static, BTreeMap<i32, (Instant, bool)>> {
    WATCHED.lock().expect("nothing panics with it")
}

fn look_after() {
    loop {
        thread::sleep(PAUSE);
        for (process, (deadline, killed)) in watched().iter_mut() {
            if !*killed && Instant::now() > *deadline {
                *killed = kill(Pid::from_raw(*process), Signal::SIGKILL).is_ok();
            }
        }
    }
}

/// Runs a program to its end; a program that hangs is a violation.
pub fn output(command: &mut Command) -> Result<Output, Trouble> {
    let (stdin, piped) = (std::process::Stdio::null(), std::process::Stdio::piped);
    let child = command.stdin(stdin).stdout(piped()).stderr(piped()).spawn();
    let child = child.map_err(|error| Trouble::harness(format!("cannot start {command:?}: {error}")))?;
    let watch = Watch::over(child.id(), PATIENCE);
    let output = child.wait_with_output()?;
    if watch.was_late() {
        return Err(Trouble::violation(format!("{command:?} hung for {} s", PATIENCE.as_secs())));
    }
    Ok(output)
}
