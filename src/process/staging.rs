//! The staging folder of a command, and the run of the command in it.
//!
//! Each dep stands at its path relative to the project's root; `HOME` and `TMPDIR` lie beside. The folder goes when the
//! command succeeds and is kept when it fails, so that a person can step in. It does not know keys or the graph.
//!
//! Invariants: deps are copies, so that a command can write what it likes without touching project or store; a copy has
//! the content that the key was made from.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};

use headwater_cache::{Artifact, Digest, Shape, Store, copy_file};
use headwater_engine::{Bound, Failure, Job};

use crate::catalog;
use crate::pipeline::interpolate::shell_argument;
use crate::process::command::{Command, CommandLine};
use crate::process::outs::{self, OutError};
use crate::process::work::WorkFolder;
use crate::project::{Project, file_type};

/// How much of a failed command's output its error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

/// What every command finds in its environment, and no user sets.
const FIXED: [(&str, &str); 2] = [("LANG", "C.UTF-8"), ("TZ", "UTC")];

/// Why a command gave no outs.
#[derive(Debug, thiserror::Error)]
pub enum CommandFailure {
    #[error("{what}\n  command: {line}\n{tail}  to step in: {step_in}")]
    Command { what: String, line: String, tail: String, step_in: String },
    #[error("cannot {operation} {path}: {source}")]
    Files { operation: &'static str, path: String, source: io::Error },
    #[error("dep `{path}`: {detail}")]
    Mount { path: String, detail: String },
}

/// What a command did wrong, or what befell the store.
enum Trouble {
    Command(String),
    Other(Failure),
}

impl From<CommandFailure> for Trouble {
    fn from(failure: CommandFailure) -> Self {
        Self::Other(Failure::new(failure))
    }
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
    staging.attempt(command, job.store, &log_path).map_err(|trouble| match trouble {
        Trouble::Other(failure) => failure,
        Trouble::Command(what) => {
            let (line, tail) = (command.line.text(), tail(&log_path));
            let step_in = staging.keep(command, job.node, project);
            Failure::new(CommandFailure::Command { what, line, tail, step_in })
        }
    })
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
    folder: WorkFolder,
    project: PathBuf,
}

impl Staging {
    fn new(node: &str, project: &Project) -> Result<Self, CommandFailure> {
        let all = project.state.join("work");
        let folder = files("make a folder in", &all, WorkFolder::new(&all, &Project::file_name(node)))?;
        for part in ["project", "home", "tmp"] {
            make_folder(&folder.path.join(part))?;
        }
        Ok(Self { project: folder.path.join("project"), folder })
    }

    /// Puts an input where the command looks for it.
    fn mount(&self, input: &Bound, job: &Job<'_>, project: &Project) -> Result<(), Failure> {
        let target = self.project.join(&input.port);
        make_parent(&target).map_err(Failure::new)?;
        match (&input.path, &input.tree) {
            (Some(path), None) => {
                let Artifact { type_name, digest, .. } = &input.artifact;
                copy(&project.root, path, &target, type_name, digest).map_err(Failure::new)
            }
            (Some(path), Some(tree)) => {
                make_folder(&target).map_err(Failure::new)?;
                for entry in &tree.entries {
                    let (from, to) = (path.join(&entry.name), target.join(&entry.name));
                    make_parent(&to).map_err(Failure::new)?;
                    copy(&project.root, &from, &to, &entry.type_name, &entry.digest).map_err(Failure::new)?;
                }
                Ok(())
            }
            (None, _) => mount_artifact(&input.artifact, &target, job),
        }
    }

    fn make_parents(&self, command: &Command) -> Result<(), CommandFailure> {
        command.outs.iter().try_for_each(|(out, _)| make_parent(&self.project.join(out)))
    }

    /// Runs the command, and stores what it made.
    fn attempt(&self, command: &Command, store: &Store, log_path: &Path) -> Result<Vec<Artifact>, Trouble> {
        let status = self.spawn(command, log_path)?;
        if !status.success() {
            return Err(Trouble::Command(format!("the command ended with {}", describe(status))));
        }
        let outs = || command.outs.iter().map(|(out, _)| (out, self.project.join(out)));
        if let Some((out, _)) = outs().find(|(_, made)| fs::symlink_metadata(made).is_err()) {
            return Err(Trouble::Command(format!("the command did not make its out `{}`", out.display())));
        }
        outs().map(|(out, made)| outs::store(store, &made, out).map_err(trouble)).collect()
    }

    fn spawn(&self, command: &Command, log_path: &Path) -> Result<ExitStatus, Trouble> {
        make_parent(log_path)?;
        let log = files("create", log_path, File::create(log_path))?;
        let errors = files("open", log_path, log.try_clone())?;
        let mut child = self.prepare(command);
        let status = child.stdin(Stdio::null()).stdout(log).stderr(errors).status();
        status.map_err(|error| Trouble::Command(format!("the command cannot be started: {error}")))
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
        child.current_dir(&self.project).env_clear().envs(FIXED);
        child.env("HOME", self.folder.path.join("home")).env("TMPDIR", self.folder.path.join("tmp"));
        for (name, value) in passed_on(command) {
            child.env(name, value);
        }
        child
    }

    /// Moves the folder of a failed command to where a person finds it; gives the command to step in.
    fn keep(self, command: &Command, node: &str, project: &Project) -> String {
        let kept = project.state.join("failed").join(Project::file_name(node));
        match self.folder.keep(&kept) {
            Ok(()) => step_in(command, &kept.join("project")),
            Err(error) => format!("its folder could not be moved to {}: {error}", kept.display()),
        }
    }
}

/// The variables of this process that reach a command.
fn passed_on(command: &Command) -> impl Iterator<Item = (&str, std::ffi::OsString)> {
    let names = ["PATH"].into_iter().chain(command.env.iter().chain(&command.secrets).map(String::as_str));
    names.filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// A line for a shell that does the same again. Values of variables may be secret: they are left to that shell.
fn step_in(command: &Command, folder: &Path) -> String {
    let mut variables = vec!["HOME=\"$PWD/../home\"".to_owned(), "TMPDIR=\"$PWD/../tmp\"".to_owned()];
    variables.extend(FIXED.iter().map(|(name, value)| format!("{name}={value}")));
    variables.extend(passed_on(command).map(|(name, _)| format!("{name}=\"${name}\"")));
    let line = match &command.line {
        CommandLine::Shell(line) => format!("sh -c {}", shell_argument(line)),
        CommandLine::Program(_) => command.line.text(),
    };
    format!("cd {} && env -i {} {line}", shell_argument(&folder.to_string_lossy()), variables.join(" "))
}

/// What the command made is its own fault; what happens to the store is not.
fn trouble(failure: Failure) -> Trouble {
    match failure {
        Failure::Error(error) if error.is::<OutError>() => Trouble::Command(error.to_string()),
        other => Trouble::Other(other),
    }
}

/// An output of another stage, as a file or folder.
fn mount_artifact(artifact: &Artifact, target: &Path, job: &Job<'_>) -> Result<(), Failure> {
    match (artifact.type_name.as_str(), artifact.shape) {
        ("frame", _) => {
            let frame = catalog::read(job.store, artifact, headwater_stages::frame::decode)?;
            let bytes = headwater_stages::collect::write::write_frame(&frame, &target.to_string_lossy());
            let bytes = bytes.map_err(|error| {
                let path = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Failure::new(CommandFailure::Mount { path, detail: error.to_string() })
            })?;
            files("write", target, fs::write(target, bytes)).map_err(Failure::new)
        }
        (type_name, Shape::Blob) => Ok(job.store.lend(&artifact.digest, target, type_name == "executable")?),
        (_, Shape::Tree) => outs::write_tree(job.store, artifact, target, Store::lend),
    }
}

/// A copy of what the key was made from: a file that has changed since is refused, even if it changes back.
fn copy(root: &Path, path: &Path, to: &Path, type_name: &str, digest: &Digest) -> Result<(), CommandFailure> {
    let wrong = |detail: String| CommandFailure::Mount { path: path.display().to_string(), detail };
    let copied = copy_file(&root.join(path), to, type_name == file_type(true));
    match copied.map_err(|error| wrong(error.to_string()))? == *digest {
        true => Ok(()),
        false => Err(wrong("it changed while it was read; let it come to rest and run again".into())),
    }
}

fn make_folder(path: &Path) -> Result<(), CommandFailure> {
    files("make the folder", path, fs::create_dir_all(path))
}

fn make_parent(path: &Path) -> Result<(), CommandFailure> {
    make_folder(path.parent().unwrap_or(path))
}

fn files<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, CommandFailure> {
    result.map_err(|source| CommandFailure::Files { operation, path: path.display().to_string(), source })
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
