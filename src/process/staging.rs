//! The staging folder of a command, and the run of the command in it.
//!
//! Each dep stands at its path relative to the project's root; `HOME` and `TMPDIR` lie beside. The folder goes when the
//! command succeeds and is kept when it fails, so that a person can step in. It does not know keys or the graph.
//!
//! Invariant: deps are copies, so that a command can write what it likes without touching project or store.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_cache::{Artifact, Shape};
use headwater_engine::{Bound, Failure, Job};

use crate::catalog;
use crate::process::command::{Command, CommandLine};
use crate::process::outs;
use crate::project::Project;

/// How much of a failed command's output its error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

static RUNS: AtomicU64 = AtomicU64::new(0);

/// Why a command gave no outs.
#[derive(Debug, thiserror::Error)]
pub enum CommandFailure {
    #[error("the command cannot be started: {source}\n  command: {line}")]
    Start { line: String, source: io::Error },
    #[error("the command ended with {status}\n  command: {line}\n{tail}  to step in: {step_in}")]
    Ended { status: String, line: String, tail: String, step_in: String },
    #[error("the command did not make its out `{out}`\n  command: {line}\n{tail}  to step in: {step_in}")]
    NoOut { out: String, line: String, tail: String, step_in: String },
    #[error("{path}: {source}")]
    Files { path: String, source: io::Error },
    #[error("dep `{path}`: {detail}")]
    Mount { path: String, detail: String },
}

/// Runs a command in a staging folder of its own, and stores its outs.
///
/// # Errors
/// If a dep cannot be put in place, the command fails, or an out is missing.
pub fn run(command: &Command, job: &Job<'_>, project: &Project) -> Result<Vec<Artifact>, Failure> {
    let staging = Staging::new(job.node, project).map_err(Failure::new)?;
    for input in job.inputs {
        staging.mount(input, job, project)?;
    }
    staging.make_parents(command).map_err(Failure::new)?;
    let log_path = project.log_path(job.node);
    let status = staging.spawn(command, &log_path).map_err(Failure::new)?;
    if !status.success() {
        let step_in = staging.keep(command, job.node, project).map_err(Failure::new)?;
        let (line, tail) = (command.line.text(), tail(&log_path));
        return Err(Failure::new(CommandFailure::Ended { status: describe(status), line, tail, step_in }));
    }
    let mut stored = Vec::new();
    for (out, _) in &command.outs {
        let made = staging.project.join(out);
        if !made.exists() {
            let step_in = staging.keep(command, job.node, project).map_err(Failure::new)?;
            let (line, tail, out) = (command.line.text(), tail(&log_path), out.display().to_string());
            return Err(Failure::new(CommandFailure::NoOut { out, line, tail, step_in }));
        }
        stored.push(outs::store(job.store, &made)?);
    }
    staging.remove().map_err(Failure::new)?;
    Ok(stored)
}

/// "exit code 3", "signal 9".
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

struct Staging {
    folder: PathBuf,
    project: PathBuf,
}

impl Staging {
    fn new(node: &str, project: &Project) -> Result<Self, CommandFailure> {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", Project::file_name(node), process::id());
        let folder = project.state.join("work").join(name);
        if folder.exists() {
            // Left by a dead process whose id has come round again.
            files(&folder, fs::remove_dir_all(&folder))?;
        }
        for part in ["project", "home", "tmp"] {
            let path = folder.join(part);
            files(&path, fs::create_dir_all(&path))?;
        }
        Ok(Self { project: folder.join("project"), folder })
    }

    /// Puts an input where the command looks for it.
    fn mount(&self, input: &Bound, job: &Job<'_>, project: &Project) -> Result<(), Failure> {
        let target = self.project.join(&input.port);
        let parent = target.parent().unwrap_or(&self.project);
        files(parent, fs::create_dir_all(parent)).map_err(Failure::new)?;
        match (&input.path, &input.tree) {
            (Some(path), None) => copy(&project.root.join(path), &target).map_err(Failure::new),
            (Some(path), Some(tree)) => {
                for entry in &tree.entries {
                    let from = project.root.join(path).join(&entry.name);
                    copy(&from, &target.join(&entry.name)).map_err(Failure::new)?;
                }
                Ok(())
            }
            (None, _) => mount_artifact(&input.artifact, &target, job),
        }
    }

    fn make_parents(&self, command: &Command) -> Result<(), CommandFailure> {
        for (out, _) in &command.outs {
            let parent = self.project.join(out);
            let parent = parent.parent().unwrap_or(&self.project);
            files(parent, fs::create_dir_all(parent))?;
        }
        Ok(())
    }

    fn spawn(&self, command: &Command, log_path: &Path) -> Result<ExitStatus, CommandFailure> {
        let folder = log_path.parent().unwrap_or(log_path);
        files(folder, fs::create_dir_all(folder))?;
        let log = files(log_path, File::create(log_path))?;
        let errors = files(log_path, log.try_clone())?;
        let mut child = self.prepare(command);
        let status = child.stdin(Stdio::null()).stdout(log).stderr(errors).status();
        status.map_err(|source| CommandFailure::Start { line: command.line.text(), source })
    }

    fn prepare(&self, command: &Command) -> process::Command {
        let mut child = match &command.line {
            CommandLine::Shell(line) => {
                let mut shell = process::Command::new("sh");
                shell.arg("-c").arg(line);
                shell
            }
            CommandLine::Program(words) => {
                let program = words.first().map(String::as_str).unwrap_or_default();
                // A relative program means the staged one, whatever the current folder of this process is.
                let path = if program.contains('/') { self.project.join(program) } else { PathBuf::from(program) };
                let mut child = process::Command::new(path);
                child.args(words.iter().skip(1));
                child
            }
        };
        child.current_dir(&self.project).env_clear();
        child.env("HOME", self.folder.join("home")).env("TMPDIR", self.folder.join("tmp"));
        child.env("LANG", "C.UTF-8").env("TZ", "UTC");
        for name in command.env.iter().map(String::as_str).chain(["PATH"]) {
            if let Some(value) = std::env::var_os(name) {
                child.env(name, value);
            }
        }
        child
    }

    /// Moves the folder of a failed command to where a person finds it; gives the command to step in.
    fn keep(&self, command: &Command, node: &str, project: &Project) -> Result<String, CommandFailure> {
        let kept = project.state.join("failed").join(Project::file_name(node));
        if kept.exists() {
            files(&kept, fs::remove_dir_all(&kept))?;
        }
        let parent = kept.parent().unwrap_or(&kept);
        files(parent, fs::create_dir_all(parent))?;
        files(&kept, fs::rename(&self.folder, &kept))?;
        let inside = kept.join("project");
        let quoted = crate::pipeline::interpolate::shell_argument(&inside.to_string_lossy());
        Ok(format!("cd {quoted} && {}", command.line.text()))
    }

    fn remove(&self) -> Result<(), CommandFailure> {
        files(&self.folder, fs::remove_dir_all(&self.folder))
    }
}

/// An output of another stage, as a file or folder.
fn mount_artifact(artifact: &Artifact, target: &Path, job: &Job<'_>) -> Result<(), Failure> {
    match (artifact.type_name.as_str(), artifact.shape) {
        ("frame", _) => {
            let stored = catalog::open(job.store, artifact)?;
            let frame = headwater_stages::frame::decode(&*stored).map_err(Failure::new)?;
            let bytes = headwater_stages::collect::write::write_frame(&frame, &target.to_string_lossy());
            let bytes = bytes.map_err(|error| {
                let path = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Failure::new(CommandFailure::Mount { path, detail: error.to_string() })
            })?;
            files(target, fs::write(target, bytes)).map_err(Failure::new)
        }
        (type_name, Shape::Blob) => Ok(job.store.restore(&artifact.digest, target, type_name == "executable")?),
        (_, Shape::Tree) => outs::write_tree(job.store, artifact, target),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), CommandFailure> {
    let parent = to.parent().unwrap_or(to);
    files(parent, fs::create_dir_all(parent))?;
    files(from, fs::copy(from, to)).map(|_| ())
}

fn files<T>(path: &Path, result: io::Result<T>) -> Result<T, CommandFailure> {
    result.map_err(|source| CommandFailure::Files { path: path.display().to_string(), source })
}

/// The last lines of a log, indented, control characters escaped.
fn tail(log: &Path) -> String {
    let Ok(text) = read_tail(log) else { return String::new() };
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("  | {}\n", printable(line))).collect()
}

fn read_tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of a program's output as it can be shown on a terminal: no control character reaches it.
pub fn printable(line: &str) -> String {
    let show = |c: char| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() };
    line.chars().map(show).collect()
}
