//! The versions of programs outside the project.
//!
//! A program is known by the first line that `PROGRAM --version` prints; one that has no such option, or does not end in
//! time, by the digest of its file, and so is one that lies in the project: nobody's script is started to ask for a
//! version. It is asked in the environment that commands have, but for `HOME`, where shims keep their settings. That its file
//! is the same says nothing: it may be a shim (rustup, pyenv), whose file stays the same when the version that it chooses
//! changes. What an answer does rest on, [`super::witnesses`] tells.
//!
//! Programs are asked below supervisors, so that nothing of them outlives the answer, but not within bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use headwater_cache::Digest;
use headwater_sandbox::{Ending, Order, Supervisors, search};

use crate::process::staging::FIXED;

/// How long a program may take to tell its version.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may take that has not answered before.
const MORE_PATIENCE: Duration = Duration::from_secs(10);
/// How many programs are asked at once: each takes a supervisor.
const AT_ONCE: usize = 4;

/// The versions of programs, as they enter keys; they are asked in the project's root, where shims look for their settings.
pub fn versions(programs: &BTreeSet<&str>, root: &Path, supervisors: &Supervisors) -> BTreeMap<String, String> {
    let programs: Vec<&str> = programs.iter().copied().collect();
    let mut found = BTreeMap::new();
    for some in programs.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|program| (program, scope.spawn(|| version(program, root, supervisors)))).collect();
            for (program, answer) in asked {
                found.insert((*program).to_owned(), answer.join().expect("asking does not panic"));
            }
        });
    }
    found
}

fn version(program: &str, root: &Path, supervisors: &Supervisors) -> String {
    let Some(path) = find(program, root) else { return "missing".into() };
    if !path.starts_with(root)
        && let Some(line) = ask(&path, root, supervisors)
    {
        return line;
    }
    match std::fs::read(&path) {
        Ok(bytes) => format!("file {}", Digest::of(&bytes)),
        Err(error) => format!("unreadable: {}", error.kind()),
    }
}

/// Where the project or `PATH` has a program.
pub fn find(program: &str, root: &Path) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(root.join(program)).filter(|path| path.is_file());
    }
    search::find(program.as_ref(), &std::env::var_os("PATH")?)
}

/// The first line of what it prints on standard output, else on standard error. One that does not answer, be it that the
/// machine is busy, is asked once more: what is said in its place would be another key.
fn ask(path: &Path, root: &Path, supervisors: &Supervisors) -> Option<String> {
    ask_for(PATIENCE, path, root, supervisors).or_else(|| ask_for(MORE_PATIENCE, path, root, supervisors)).flatten()
}

/// What it answers, if anything; `None` if it did not end by itself.
fn ask_for(patience: Duration, path: &Path, root: &Path, supervisors: &Supervisors) -> Option<Option<String>> {
    let order = Order { errors_apart: true, timeout: Some(patience), ..question(path, root) };
    let report = supervisors.run(&order).ok().filter(|report| !matches!(report.ending, Ending::TimedOut))?;
    let text = if report.output.is_empty() { report.errors } else { report.output };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    Some(line.filter(|_| report.ending == Ending::Code(0)))
}

/// The environment in which programs are asked.
pub fn environment() -> Vec<(OsString, OsString)> {
    let passed_on = ["PATH", "HOME"].into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    FIXED.iter().map(|(name, value)| (name.into(), value.into())).chain(passed_on).collect()
}

/// What a program is asked.
pub fn question(path: &Path, root: &Path) -> Order {
    Order {
        program: path.into(),
        arguments: vec!["--version".into()],
        environment: environment(),
        folder: root.into(),
        ..Order::default()
    }
}
