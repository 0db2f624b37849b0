//! Ending all that a process has started, also what has left its group and its session.
//!
//! The calling process must be one that gets orphans (`PR_SET_CHILD_SUBREAPER`), so that every process below it becomes
//! its child when those between have ended. It kills its children, and the process groups of these at one blow, until it
//! has no child. Invariants: only a child that has not been waited for is signalled, or its group: their numbers cannot
//! have been given to others; the caller's own group is spared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::process::{getpid, kill_process, kill_process_group, wait, waitpid};

/// How long to wait for an orphan to arrive.
const PAUSE: Duration = Duration::from_micros(200);
/// How often: what has not come then cannot be found.
const PAUSES: u32 = 10_000;

/// How those children ended that have ended.
pub type Ended = BTreeMap<i32, WaitStatus>;

/// Waits for children that have ended already; `None` if there are no more children.
pub fn reap(ended: &mut Ended) -> Option<()> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => drop(ended.insert(pid.as_raw_nonzero().get(), status)),
            Ok(None) => return Some(()),
            Err(Errno::INTR) => {}
            // There is no other error to this call.
            Err(_) => return None,
        }
    }
}

/// The calling process's children; none if they cannot be found.
pub fn children() -> Vec<Pid> {
    children_of(getpid()).unwrap_or_default()
}

/// `None` if they cannot be found, as without a descriptor that is left.
fn children_of(process: Pid) -> Option<Vec<Pid>> {
    of_threads(process).or_else(|| of_all_processes(process))
}

/// The sessions of the calling process and of all below it. A process can leave its session for a new one alone.
pub fn sessions() -> BTreeSet<i32> {
    let (mut found, mut left) = (BTreeSet::new(), vec![getpid()]);
    while let Some(process) = left.pop() {
        found.extend(session(process));
        left.extend(children_of(process).unwrap_or_default());
    }
    found
}

/// `None` if the kernel does not tell, or a thread has ended meanwhile.
fn of_threads(process: Pid) -> Option<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        found.extend(text.split_ascii_whitespace().filter_map(pid));
    }
    Some(found)
}

fn of_all_processes(wanted: Pid) -> Option<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").ok()? {
        let Some(process) = entry.ok()?.file_name().to_str().and_then(pid) else { continue };
        if look(process).ok()?.is_some_and(|standing| standing.parent == wanted.as_raw_nonzero().get()) {
            found.push(process);
        }
    }
    Some(found)
}

/// Where a process stands among others. A number of 0 is that of a process outside of this PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    state: char,
    parent: i32,
    group: i32,
    session: i32,
}

/// `getpgid` and `getsid` of the library do not allow for 0, which a program of a container may well be told. `None` for a
/// process that is gone, or hidden.
///
/// # Errors
/// If there is no descriptor or memory left to look with.
fn look(process: Pid) -> io::Result<Option<Standing>> {
    let lack = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
    match fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())) {
        Ok(stat) => Ok(standing_in(&stat)),
        Err(error) if lack(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn standing(process: Pid) -> Option<Standing> {
    look(process).ok().flatten()
}

/// The fields behind the name in brackets: it may hold brackets itself.
fn standing_in(stat: &str) -> Option<Standing> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.parse().ok()?;
    let mut next = || fields.next()?.parse().ok();
    Some(Standing { state, parent: next()?, group: next()?, session: next()? })
}

fn pid(text: &str) -> Option<Pid> {
    Pid::from_raw(i32::from_str(text).ok()?)
}

fn session(process: Pid) -> Option<i32> {
    standing(process).map(|standing| standing.session)
}

/// The group of a process, if it has one of this namespace.
fn group(process: Pid) -> Option<Pid> {
    standing(process).and_then(|standing| Pid::from_raw(standing.group))
}

/// Signals the children, and their process groups.
pub fn signal_all(signal: Signal) {
    signal_each(&children(), signal);
}

/// What has ended meanwhile is no failure. Who cannot tell its own group signals none.
fn signal_each(children: &[Pid], signal: Signal) {
    let own = standing(getpid());
    for child in children {
        let is_other = |group: &Pid| own.is_some_and(|own| own.group != group.as_raw_nonzero().get());
        let group = group(*child).filter(is_other);
        if group.is_none_or(|group| kill_process_group(group, signal).is_err()) {
            let _ = kill_process(*child, signal);
        }
    }
}

/// Kills all that is below the calling process; how many children there were that had not ended by themselves. `None` if
/// there are some that cannot be found, as when a program has taken from its supervisor the right to open files.
pub fn end_all(ended: &mut Ended) -> Option<u32> {
    let Some(()) = reap(ended) else { return Some(0) };
    let (by_themselves, mut pauses) = (ended.len(), 0);
    while reap(ended).is_some() {
        let children = children();
        signal_each(&children, Signal::KILL);
        if children.is_empty() && pauses == PAUSES {
            return None;
        } else if children.is_empty() {
            // An orphan is on its way.
            pauses += 1;
            std::thread::sleep(PAUSE);
        } else if let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
            ended.insert(pid.as_raw_nonzero().get(), status);
        }
    }
    Some((ended.len() - by_themselves) as u32)
}

/// Kills the children that are not known and in none of the sessions that are spared, and all that is below them. It gives
/// up where they cannot be found for long.
pub fn end_all_but(known: &BTreeSet<u32>, spared: &BTreeSet<i32>) {
    let mut pauses = 0;
    while pauses < PAUSES {
        let Some(strays) = strays(known, spared) else {
            pauses += 1;
            std::thread::sleep(PAUSE);
            continue;
        };
        if strays.is_empty() {
            return;
        }
        signal_each(&strays, Signal::KILL);
        for child in strays {
            let _ = waitpid(Some(child), WaitOptions::empty());
        }
    }
}

/// `None` if they cannot be found: that nothing was found means nothing then.
fn strays(known: &BTreeSet<u32>, spared: &BTreeSet<i32>) -> Option<Vec<Pid>> {
    let mut found = Vec::new();
    for child in children_of(getpid())? {
        let is_known = known.contains(&child.as_raw_nonzero().get().unsigned_abs());
        // What is hidden is no child of ours that could be ended.
        if !is_known && look(child).ok()?.is_some_and(|standing| !spared.contains(&standing.session)) {
            found.push(child);
        }
    }
    Some(found)
}

/// Whether a process has been stopped by a signal.
pub fn is_stopped(process: u32) -> bool {
    let process = Pid::from_raw(process.cast_signed());
    process.and_then(standing).is_some_and(|standing| standing.state == 'T')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_end_of_a_name() {
        let found = standing_in("17 (a) R 1 (b) S 4 17 12 0 -1");
        assert_eq!(found, Some(Standing { state: 'S', parent: 4, group: 17, session: 12 }));
    }

    #[test]
    fn what_lies_outside_of_the_namespace_has_no_number() {
        assert_eq!(standing_in("2 (sh) S 0 0 0 0 -1"), Some(Standing { state: 'S', parent: 0, group: 0, session: 0 }));
        assert_eq!(standing_in("2 (sh) S 0"), None);
    }

    #[test]
    fn the_own_standing_is_known() {
        let own = standing(getpid()).expect("it lives");
        assert_eq!(own.parent, std::os::unix::process::parent_id().cast_signed());
        assert!(sessions().contains(&own.session));
    }
}
