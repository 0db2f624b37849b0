//! The versions of programs outside the project.
//!
//! A program is known by the first line that `PROGRAM --version` prints; one that has no such option, by the digest of
//! its file, and so is one that lies in the project: nobody's script is started to ask for a version. Each is asked once
//! a process. The answers are not kept for the next one: the program that is found may be a shim (rustup, pyenv), whose
//! file stays the same when the version that it chooses changes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use headwater_cache::Digest;

static VERSIONS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Words that the shell itself understands.
const SHELL_WORDS: [&str; 26] = [
    ".", ":", "[", "case", "cd", "command", "echo", "eval", "exec", "exit", "export", "false", "for", "if", "printf",
    "read", "set", "shift", "test", "time", "trap", "true", "umask", "unset", "until", "while",
];

/// Whether `sh` does this itself.
pub fn is_shell_word(word: &str) -> bool {
    SHELL_WORDS.contains(&word)
}

/// The version of a program, as it enters keys; it is asked in the project's root, where shims look for their settings.
pub fn version(program: &str, root: &Path) -> String {
    let mut known = VERSIONS.lock().expect("no panic happens while it is held");
    known.entry(program.to_owned()).or_insert_with(|| find_version(program, root)).clone()
}

fn find_version(program: &str, root: &Path) -> String {
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
    let output = Command::new(path).arg("--version").current_dir(root).stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
