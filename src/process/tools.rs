//! The versions of programs outside the project.
//!
//! A program is known by the first line that `PROGRAM --version` prints; one that has no such option, by the digest of
//! its file. Both are asked once a process.

use std::collections::BTreeMap;
use std::path::PathBuf;
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

/// The version of a program, as it enters keys.
pub fn version(program: &str) -> String {
    let mut known = VERSIONS.lock().expect("no panic happens while it is held");
    known.entry(program.to_owned()).or_insert_with(|| find_version(program)).clone()
}

fn find_version(program: &str) -> String {
    let Some(path) = find(program) else { return "not found".into() };
    if let Some(line) = ask(&path) {
        return line;
    }
    match std::fs::read(&path) {
        Ok(bytes) => format!("file {}", Digest::of(&bytes)),
        Err(error) => format!("unreadable: {}", error.kind()),
    }
}

/// Where `PATH` has a program.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn ask(path: &PathBuf) -> Option<String> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
