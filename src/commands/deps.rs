//! `headwater deps`: what a command reads of its project, beside what it declares.
//!
//! The command runs once, traced, in a copy of the project without its outs; what it makes goes with the copy. It decides
//! nothing: it proposes a line for the pipeline file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};

use clap::Args;
use headwater_engine::Failure;
use headwater_engine::graph::Source;
use headwater_sandbox::Ending;
use headwater_sandbox::tracing::Traced;
use serde::Serialize;
use walkdir::{DirEntry, WalkDir};

use crate::commands::Globals;
use crate::error::CommandError;
use crate::process::command::{Command, Dep};
use crate::process::missing::{deps, line, shown};
use crate::process::staging::{Staging, mount_artifact};
use crate::project::{Project, STATE, is_by_product};
use crate::report::{print_json, say, tell};
use crate::workspace::{Workspace, artifact_of};

/// Run a command stage once, traced, and propose its deps
#[derive(Debug, Args)]
pub struct Deps {
    /// A node of a command stage
    node: String,
}

#[derive(Serialize)]
struct DepsJson<'a> {
    event: &'static str,
    node: &'a str,
    undeclared: &'a [String],
    unused: &'a [String],
    deps: &'a [String],
}

impl Deps {
    /// # Errors
    /// If there is no such node, its inputs have not been made yet, or it cannot be traced.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let pipeline = &workspace.pipeline;
        let id = pipeline.one_node(&self.node)?;
        let name = &pipeline.graph.node(id).name;
        let Some(command) = &pipeline.nodes[id.0].command else {
            return Err(CommandError::usage(format!("`{name}` is a built-in stage, and reads what it is wired to")));
        };
        let project = &*pipeline.project;
        // Where the project has links, folders would be in their way.
        let scratch = Staging::new(iter::empty(), project).map_err(CommandError::failed)?;
        copy(project, command, &scratch.project).map_err(CommandError::failed)?;
        for input in pipeline.graph.inputs(id) {
            let Source::Output { node, output, .. } = &input.source else { continue };
            let target = scratch.project.join(&input.port);
            if !target.exists() {
                fs::create_dir_all(target.parent().unwrap_or(&target)).map_err(CommandError::failed)?;
                let outputs = workspace.outputs(&[*node])?.remove(0);
                mount_artifact(&artifact_of(&outputs[*output])?, &target, &workspace.store).map_err(unmounted)?;
            }
        }
        let traced = scratch.trace(command, &project.workshop).map_err(CommandError::failed)?;
        if traced.ending != Ending::Code(0) {
            tell("warning: the command failed; what it would have read after that is not known");
        }
        show(name, command, &used(&traced, command, &scratch.project, project), globals)
    }
}

fn unmounted(failure: Failure) -> CommandError {
    match failure {
        Failure::Lost(_) => CommandError::failed("an input is lost or damaged: `headwater run` makes it again"),
        cancelled @ Failure::Cancelled => CommandError::failed(cancelled.to_string()),
        Failure::Error(error) => CommandError::failed(error),
    }
}

/// What is no part of a project's content, or so much that it is not copied.
fn passed_over(name: &OsStr) -> bool {
    name == STATE || name == "node_modules" || is_by_product(name)
}

/// The project's files, but for what the command makes.
fn copy(project: &Project, command: &Command, target: &Path) -> io::Result<()> {
    let within = |entry: &DirEntry| entry.path().strip_prefix(&project.root).unwrap_or(entry.path()).to_owned();
    let wanted = |entry: &DirEntry| {
        let passed_over = entry.depth() > 0 && passed_over(entry.file_name());
        !passed_over && !command.makes(&within(entry))
    };
    for entry in WalkDir::new(&project.root).into_iter().filter_entry(wanted) {
        let entry = entry?;
        let to = target.join(within(&entry));
        match entry.file_type() {
            kind if kind.is_dir() => fs::create_dir_all(&to)?,
            kind if kind.is_symlink() && leads_on(command, &within(&entry)) && entry.path().is_dir() => {
                copy_links(command, entry.path(), &within(&entry), &to)?;
            }
            kind if kind.is_symlink() => std::os::unix::fs::symlink(fs::read_link(entry.path())?, &to)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), &to)?),
            // Nobody depends on a pipe.
            _ => {}
        }
    }
    for (out, _) in &command.outs {
        fs::create_dir_all(target.join(out).parent().unwrap_or(target))?;
    }
    Ok(())
}

/// Whether a dep or an out lies below a path.
fn leads_on(command: &Command, path: &Path) -> bool {
    let deps = command.deps.iter().map(|(dep, _)| dep.path());
    let mut all = deps.chain(command.outs.iter().map(|(out, _)| out.as_path()));
    all.any(|one| one != path && one.starts_with(path))
}

/// A folder that stands for a linked one, and links to what is in that: what is put or made in it must not get there.
fn copy_links(command: &Command, from: &Path, path: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from.canonicalize()?)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let (path, to) = (path.join(&name), to.join(&name));
        if command.makes(&path) {
            continue;
        }
        match leads_on(command, &path) && entry.is_dir() {
            true => copy_links(command, &entry, &path, &to)?,
            false => std::os::unix::fs::symlink(&entry, &to)?,
        }
    }
    Ok(())
}

/// The paths within the project that were used and are there.
fn used(traced: &Traced, command: &Command, scratch: &Path, project: &Project) -> BTreeSet<PathBuf> {
    let mut used = BTreeSet::new();
    for (path, uses) in &traced.uses {
        let Some(path) = within(path, scratch, &project.root) else { continue };
        let about = fs::metadata(project.root.join(&path));
        let passed_over = path.iter().any(passed_over);
        let counts = match about {
            Ok(about) if about.is_dir() => uses.iter().any(|what| what.may_list()),
            Ok(_) => true,
            // Given to the command by another stage, it stands nowhere in the project.
            Err(_) => mounted(command).any(|mount| path.starts_with(mount)),
        };
        if counts && !passed_over && !path.as_os_str().is_empty() && path != project.file {
            used.insert(path);
        }
    }
    let named = used.clone();
    used.retain(|folder| !holds_modules(folder, &named));
    let folders = used.clone();
    used.retain(|path| !path.ancestors().skip(1).any(|folder| folders.contains(folder)));
    used
}

/// Whether a Python module in a folder was used: Python lists the folder to find it, and others in it do not matter.
fn holds_modules(folder: &Path, used: &BTreeSet<PathBuf>) -> bool {
    let is_module = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "py");
    used.iter().any(|path| path.parent() == Some(folder) && is_module(path))
}

/// Where a command finds outputs of other stages.
fn mounted(command: &Command) -> impl Iterator<Item = &Path> {
    command.deps.iter().map(|(dep, _)| dep).filter(|dep| matches!(dep, Dep::Mount { .. })).map(Dep::path)
}

/// A path that a command named, as one of the project; `..` is taken at its word.
fn within(path: &Path, scratch: &Path, root: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain.strip_prefix(scratch).or_else(|_| plain.strip_prefix(root)).ok().map(Path::to_owned)
}

fn show(name: &str, command: &Command, used: &BTreeSet<PathBuf>, globals: &Globals) -> Result<(), CommandError> {
    let covers = |dep: &Path, path: &Path| path.starts_with(dep);
    let known = |path: &Path| {
        let programs = command.programs.iter().map(|(program, _)| program.as_path());
        command.deps.iter().map(|(dep, _)| dep.path()).chain(programs).any(|dep| covers(dep, path))
    };
    let undeclared: Vec<&PathBuf> = used.iter().filter(|path| !known(path) && !command.makes(path)).collect();
    let unused = command
        .deps
        .iter()
        .map(|(dep, _)| dep)
        .filter(|dep| !used.iter().any(|path| covers(dep.path(), path) || covers(path, dep.path())));
    let unused: Vec<String> = unused.map(|dep| shown(dep.path())).collect();
    let deps = deps(command, undeclared.iter().copied());
    let undeclared: Vec<String> = undeclared.into_iter().map(|path| shown(path)).collect();
    if globals.json() {
        return Ok(print_json(&DepsJson {
            event: "deps",
            node: name,
            undeclared: &undeclared,
            unused: &unused,
            deps: &deps,
        })?);
    }
    for (what, paths) in [("reads, and does not declare", &undeclared), ("declares, and did not read", &unused)] {
        for path in paths {
            tell(&format!("{what}: {path}"));
        }
    }
    Ok(say(&line(&deps))?)
}
