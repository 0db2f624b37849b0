//! The versions of programs outside the project.
//!
//! A program is known by the first line that `PROGRAM --version` prints; one that has no such option, or does not end in
//! time, by the digest of its file, and so is one that lies in the project: nobody's script is started to ask for a
//! version. It is asked in the environment that commands have, but for `HOME`, where shims keep their settings. The answers
//! are not kept for the next process: the program that is found may be a shim (rustup, pyenv), whose file stays the same
//! when the version that it chooses changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use headwater_cache::Digest;

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// More text than this is no version.
const TEXT_BYTES: u64 = 64 * 1024;
/// How many programs are asked at once: they mostly wait for the disk.
const AT_ONCE: usize = 16;

/// The versions of programs, as they enter keys; they are asked in the project's root, where shims look for their settings.
pub fn versions(programs: &BTreeSet<&str>, root: &Path) -> BTreeMap<String, String> {
    let programs: Vec<&str> = programs.iter().copied().collect();
    let mut found = BTreeMap::new();
    for some in programs.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|program| (program, scope.spawn(|| version(program, root)))).collect();
            for (program, answer) in asked {
                found.insert((*program).to_owned(), answer.join().expect("asking does not panic"));
            }
        });
    }
    found
}

fn version(program: &str, root: &Path) -> String {
    let Some(path) = find(program, root) else { return "not found".into() };
    if !path.starts_with(root)
        && let Some(line) = ask(&path, root)
    {
        return line;
    }
    match std::fs::read(&path) {
        Ok(bytes) => format!("file {}", Digest::of(&bytes)),
        Err(error) => format!("unreadable: {}", error.kind()),
    }
}

/// Where the project or `PATH` has a program.
fn find(program: &str, root: &Path) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(root.join(program)).filter(|path| path.is_file());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

fn ask(path: &Path, root: &Path) -> Option<String> {
    let mut command = Command::new(path);
    command.arg("--version").current_dir(root).env_clear().env("LANG", "C.UTF-8");
    command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    let deadline = Instant::now() + PATIENCE;
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait(&mut child, deadline)?;
    let (out, err) = (text(&out, deadline)?, text(&err, deadline)?);
    let text = String::from_utf8_lossy(if out.is_empty() { &err } else { &out }).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    line.filter(|_| status.success())
}

/// Reads beside the program, which a full pipe would stop. Who inherited the pipe may keep it open for ever, so nobody
/// waits for this thread.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map(|pipe| pipe.take(TEXT_BYTES).read_to_end(&mut bytes));
        // Who asked may have given up.
        let _ = read.is_some_and(|read| read.is_ok()).then(|| sender.send(bytes));
    });
    receiver
}

fn text(pipe: &Receiver<Vec<u8>>, deadline: Instant) -> Option<Vec<u8>> {
    pipe.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

/// How a program ended; one that did not end in time is killed.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(PAUSE),
            Ok(None) | Err(_) => {
                // Both fail for one that has ended, which is as good.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}
