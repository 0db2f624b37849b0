//! The staging folder of a command, and the run of the command in it.
//!
//! Each dep stands at its path relative to the project's root, in a folder that is `HOME`; `TMPDIR` lies beside. When the command
//! succeeds, the folder goes, or another command gets it, if this one certainly met nobody who could still work in it; it is
//! kept when the command fails, so that a person can step in. It does not know keys or the graph, nor how a command is held
//! to its folder.
//!
//! A command that fails within ten seconds, for the last time, is run once more, watched, in another folder, to tell what it looked for: watching
//! every command would make each start of python take a fifth longer, and nothing that only helps to explain may do that.
//! One that a signal has ended had no say in it: memory may be short, and more so with another run.
//!
//! Deps are copies that the command may write to and remove: Landlock gives rights to whole folders, so that a file in a
//! folder in which others can be made cannot be kept from being written; and mode bits do not bind root, so that a command
//! would work for one user and fail for another.
//!
//! Invariants: what a command does to its deps touches neither project nor store; a copy has the content that the key was
//! made from.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_cache::{Artifact, Digest, Shape, Store, copy_file};
use headwater_engine::{Bound, Failure, Job};
use headwater_sandbox::tracing::{self, Traced};
use headwater_sandbox::{Ending, Missed, Order, SupervisorsError, Twin};

use crate::catalog;
use crate::pipeline::interpolate::shell_argument;
use crate::process::command::{Command, CommandLine};
use crate::process::missing::Places;
use crate::process::outs::{self, OutError};
use crate::process::tools;
use crate::process::withheld;
use crate::process::work::{NotMade, WorkFolder};
use crate::process::workshop::{Hermetic, TRACE, Workshop};
use crate::project::{Project, file_type};
use crate::report::duration;

/// How much of a failed command's output its error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

/// What fails sooner is run again to see what it looks for.
const QUICK: Duration = Duration::from_secs(10);
/// Unless its deps are larger: they would stand there twice.
const COPIED_AGAIN: u64 = 256 * 1024 * 1024;
/// What a shell makes the exit code of, if a program was ended by a signal.
const SIGNALS: RangeInclusive<i32> = 129..=192;

/// What every command finds in its environment, and no user sets.
///
/// Text is UTF-8, and all else as without a locale: `LANG` would have each program look for 26 files of it.
pub const FIXED: [(&str, &str); 2] = [("LC_CTYPE", "C.UTF-8"), ("TZ", "UTC")];

/// Why a command gave no outs.
#[derive(Debug, thiserror::Error)]
pub enum CommandFailure {
    #[error("{what}\n  command: {line}\n{tail}  to step in: {step_in}")]
    Command { what: String, line: String, tail: String, step_in: String },
    #[error("cannot {operation} {path}: {source}")]
    Files { operation: &'static str, path: String, source: io::Error },
    #[error("dep `{path}`: {detail}")]
    Mount { path: String, detail: String },
    #[error("`tools` names `{program}`, and there is no such program {place}; install it, or correct the name")]
    Tool { program: String, place: &'static str },
}

/// What a command did wrong, or what befell the store.
enum Trouble {
    Command(String),
    /// It ended by itself, with a code that says that it failed.
    Failed(String),
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
    if job.cancel.is_raised() {
        return Err(Failure::Cancelled);
    }
    find_tools(command, project)?;
    let begun = Instant::now();
    let mut staging = Staging::filled(command, job, project)?;
    let log_path = project.log_path(job.node);
    let (what, failed) = match staging.attempt(command, job, &project.workshop, &log_path) {
        Ok(outs) => {
            staging.release(command, &outs, &project.workshop);
            return Ok(outs);
        }
        Err(Trouble::Other(failure)) => return Err(failure),
        Err(Trouble::Command(what)) => (what, false),
        Err(Trouble::Failed(what)) => (what, true),
    };
    let missed =
        if failed && job.is_last && begun.elapsed() < QUICK { look_again(command, job, project) } else { None };
    let text = read_tail(&log_path).unwrap_or_default();
    let places = Places { project: &project.root, staging: &staging.project, modules: command.folders_of_deps() };
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let withheld = if failed { withheld::hints(command, &text, set) } else { String::new() };
    let hints = places.hints(command, job.node, &text, missed.as_deref()) + &withheld;
    let (line, tail) = (command.line.text(), tail(&text) + &hints);
    let step_in = staging.keep(command, job.node, project);
    Err(Failure::new(CommandFailure::Command { what, line, tail, step_in }))
}

/// A tool that is not there is no part of the key, whatever it was that the name was meant for.
fn find_tools(command: &Command, project: &Project) -> Result<(), Failure> {
    let missing = command.tools.iter().find(|tool| tools::find(tool, &project.root).is_none());
    let Some(program) = missing.cloned() else { return Ok(()) };
    let place = if program.contains('/') { "in the project" } else { "in PATH" };
    Err(Failure::new(CommandFailure::Tool { program, place }))
}

/// Runs a failed command once more, in a folder of its own, and watched: what it looks for in vain, if that can be told.
/// What has the network, or is held to nothing, may do something to the world, and does it once.
fn look_again(command: &Command, job: &Job<'_>, project: &Project) -> Option<Vec<Missed>> {
    let bytes: u64 = job.inputs.iter().map(|input| input.artifact.bytes).sum();
    if command.network || command.hermetic() != Hermetic::Enforced || bytes > COPIED_AGAIN {
        return None;
    }
    let staging = Staging::filled(command, job, project).ok()?;
    let twin = Some(Twin { here: staging.project.clone().into(), there: project.root.clone().into() });
    let order = staging.order(command, &project.workshop, Path::new(""));
    let order = Order { twin, timeout: Some(QUICK * 2), idle_timeout: None, ..order };
    project.workshop.supervisors.run(&order).ok()?.missed
}

/// A folder in which a command runs; it goes when this is dropped.
pub struct Staging {
    folder: WorkFolder,
    /// Whether the command has ended, and certainly met nobody else.
    alone: bool,
    /// Where the project's paths stand.
    pub project: PathBuf,
}

impl Staging {
    /// One with nothing but the folders that these paths of the project lie in.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new<'a>(paths: impl Iterator<Item = &'a Path>, project: &Project) -> Result<Self, CommandFailure> {
        let all = project.work();
        let around = |path: &'a Path| path.ancestors().skip(1).map(|folder| Path::new("project").join(folder));
        let mut folders: BTreeSet<PathBuf> = ["project", "tmp"].map(PathBuf::from).into();
        folders.extend(paths.flat_map(around));
        let taken = project.workshop.folders.take(&all, &folders);
        let folder = taken.or_else(|NotMade { path, source }| files("make the folder", &path, Err(source)))?;
        Ok(Self { project: folder.path.join("project"), folder, alone: false })
    }

    /// One with all that a command looks for, and the folders of its outs.
    fn filled(command: &Command, job: &Job<'_>, project: &Project) -> Result<Self, Failure> {
        let deps = job.inputs.iter().map(|input| Path::new(&input.port));
        let outs = command.outs.iter().map(|(out, _)| out.as_path());
        let staging = Self::new(deps.chain(outs), project).map_err(Failure::new)?;
        for input in job.inputs {
            staging.mount(input, job, project)?;
        }
        Ok(staging)
    }

    /// Leaves the files that were made to the project and the folder to another command, if nobody works in it any more.
    fn release(self, command: &Command, made: &[Artifact], workshop: &Workshop) {
        if !self.alone {
            return workshop.folders.leave(self.folder);
        }
        let files = command.outs.iter().zip(made).filter(|(_, artifact)| artifact.shape == Shape::Blob);
        let take = |((out, _), artifact): (&(PathBuf, _), &Artifact)| {
            let executable = artifact.type_name == file_type(true);
            let taken = workshop.folders.take_out(&self.project.join(out), &self.folder, artifact, executable);
            Some((out.clone(), taken?))
        };
        workshop.made.keep(files.filter_map(take).collect());
        workshop.folders.give_back(self.folder);
    }

    /// Puts an input where the command looks for it.
    fn mount(&self, input: &Bound, job: &Job<'_>, project: &Project) -> Result<(), Failure> {
        let target = self.project.join(&input.port);
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
            (None, _) => mount_artifact(&input.artifact, &target, job.store),
        }
    }

    /// Runs the command, and stores what it made.
    fn attempt(
        &mut self,
        command: &Command,
        job: &Job<'_>,
        workshop: &Workshop,
        log: &Path,
    ) -> Result<Vec<Artifact>, Trouble> {
        make_parent(log)?;
        let order = self.order(command, workshop, log);
        let report = workshop.supervisors.run(&order).map_err(|error| match error {
            SupervisorsError::Interrupted => Trouble::Other(Failure::Cancelled),
            SupervisorsError::NotStarted(_) | SupervisorsError::Lost => Trouble::Command(error.to_string()),
        })?;
        self.alone = report.alone;
        self.judge(command, &report.ending)?;
        if fs::symlink_metadata(&self.project).is_ok_and(|about| about.is_symlink()) {
            return Err(Trouble::Command("the command put a link in the place of its folder".into()));
        }
        let outs = || command.outs.iter().map(|(out, _)| (out, self.project.join(out)));
        outs().try_for_each(|(out, _)| outs::refuse_links(&self.project, out)).map_err(trouble)?;
        for (out, made) in outs() {
            match fs::symlink_metadata(&made) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Trouble::Command(format!("the command did not make its out `{}`", out.display())));
                }
                looked => files("look at", &made, looked.map(drop))?,
            }
        }
        outs().map(|(out, made)| outs::store(job.store, &made, out).map_err(trouble)).collect()
    }

    fn judge(&self, command: &Command, ending: &Ending) -> Result<(), Trouble> {
        let limit = |limit: Option<Duration>| duration(limit.unwrap_or_default().as_secs_f64());
        Err(Trouble::Command(match ending {
            Ending::Code(0) => return Ok(()),
            Ending::Stopped => return Err(Trouble::Other(Failure::Cancelled)),
            Ending::Code(code) if !SIGNALS.contains(code) => {
                return Err(Trouble::Failed(format!("the command ended with exit code {code}")));
            }
            Ending::Code(code) => format!("the command ended with exit code {code}"),
            Ending::Signal(signal) => format!("the command ended with signal {signal}"),
            Ending::NotStarted(why) => format!("the command cannot be started: {why}"),
            Ending::TimedOut => {
                format!("the command was ended: it took longer than {} (`timeout`)", limit(command.timeout))
            }
            Ending::Silent => {
                let limit = limit(command.idle_timeout);
                format!("the command was ended: it printed nothing for {limit} (`idle_timeout`)")
            }
        }))
    }

    fn order(&self, command: &Command, workshop: &Workshop, log: &Path) -> Order {
        let (program, arguments) = match &command.line {
            CommandLine::Shell(line) => ("sh".into(), vec!["-c".into(), line.into()]),
            CommandLine::Program(words) => {
                let program = words.first().map(String::as_str).unwrap_or_default();
                // A relative program means the staged one.
                let path = if program.contains('/') { self.project.join(program).into() } else { program.into() };
                (path, words.iter().skip(1).map(OsString::from).collect())
            }
        };
        Order {
            program,
            arguments,
            environment: self.environment(command),
            folder: self.project.clone().into(),
            log: log.into(),
            errors_apart: false,
            bounds: workshop.bounds(command, &self.folder.path),
            timeout: command.timeout,
            idle_timeout: command.idle_timeout,
            twin: None,
        }
    }

    fn environment(&self, command: &Command) -> Vec<(OsString, OsString)> {
        let own = [("HOME", self.folder.path.clone()), ("TMPDIR", self.folder.path.join("tmp"))];
        let mut all: Vec<(OsString, OsString)> =
            FIXED.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        all.extend(own.into_iter().map(|(name, path)| (name.into(), path.into())));
        all.extend(passed_on(command).map(|(name, value)| (name.into(), value)));
        all
    }

    /// Runs the command under ptrace, to see what it reads; it can write in this folder alone, where there are bounds.
    ///
    /// # Errors
    /// If it cannot be traced.
    pub fn trace(&self, command: &Command, workshop: &Workshop) -> io::Result<Traced> {
        let log = self.folder.path.join("log");
        let bounds = Workshop::tracing_bounds(command, &self.folder.path);
        let order = Order { bounds, ..self.order(command, workshop, &log) };
        tracing::trace(&order, &["/proc/self/exe".into(), TRACE.into()])
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
    let mut variables = vec!["HOME=\"$PWD/..\"".to_owned(), "TMPDIR=\"$PWD/../tmp\"".to_owned()];
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
///
/// # Errors
/// If its bytes are missing or damaged, or cannot be written.
pub fn mount_artifact(artifact: &Artifact, target: &Path, store: &Arc<Store>) -> Result<(), Failure> {
    match (artifact.type_name.as_str(), artifact.shape) {
        ("frame", _) => {
            let frame = catalog::read(store, artifact, headwater_stages::frame::decode)?;
            let bytes = headwater_stages::collect::write::write_frame(&frame, &target.to_string_lossy());
            let bytes = bytes.map_err(|error| {
                let path = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Failure::new(CommandFailure::Mount { path, detail: error.to_string() })
            })?;
            files("write", target, fs::write(target, bytes)).map_err(Failure::new)
        }
        (type_name, Shape::Blob) => Ok(store.lend(&artifact.digest, target, type_name == "executable")?),
        (_, Shape::Tree) => outs::write_tree(store, artifact, target, outs::Place::Lend),
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

/// The last lines of a log, indented, made safe to show.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = shown_lines(text).collect();
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

/// The lines of a program's output, as they are shown.
pub fn shown_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(states)
}

/// What a line has been: one that is written over and over, as of a progress bar, is as many lines.
pub fn states(line: &str) -> impl Iterator<Item = &str> {
    line.split('\r').enumerate().filter(|(at, state)| *at == 0 || !state.is_empty()).map(|(_, state)| state)
}

/// A line of a program's output as it can be shown on a terminal: no control character reaches it, nor one that turns the
/// direction of the text or breaks the line.
pub fn printable(line: &str) -> String {
    let hidden = |c: char| {
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || matches!(c, '\u{2028}' | '\u{2029}') || (c.is_control() && c != '\t')
    };
    let show = |c: char| if hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    line.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        let odd = "a\u{1b}[31m\u{7}\u{9b}b\u{202e}c\u{2066}\u{2028}\td";
        let shown = printable(odd);
        assert_eq!(shown, r"a\u{1b}[31m\u{7}\u{9b}b\u{202e}c\u{2066}\u{2028}".to_owned() + "\td");
    }

    #[test]
    fn a_line_that_is_written_over_is_as_many_lines() {
        let lines: Vec<&str> = shown_lines("\r10%\r20%\r\nend\r\n\nlast").collect();
        assert_eq!(lines, ["", "10%", "20%", "end", "", "last"]);
    }
}
