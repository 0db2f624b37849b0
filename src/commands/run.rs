//! `headwater run`: brings targets up to date.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use headwater_cache::Artifact;
use headwater_engine::{Event, Finish, Key, NodeId, Options, Outcome, Summary};

use crate::commands::{Globals, status, verify};
use crate::error::CommandError;
use crate::interrupt;
use crate::journal::{EndLine, History, Journal, Line, SameLine};
use crate::junit::Junit;
use crate::pipeline::{Pipeline, resources};
use crate::project::Project;
use crate::report::{Reporter, final_line, tell};
use crate::trace::Trace;
use crate::unchanged::{self, Unchanged};
use crate::workspace::Workspace;

/// Bring targets up to date
#[derive(Debug, Args)]
pub struct Run {
    /// Stages or nodes, such as train or train[model=forest]; all if none is named
    targets: Vec<String>,
    /// Set a param for this run
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// How many nodes run at once [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    jobs: Option<NonZeroUsize>,
    /// After a failure, go on with what does not need it
    #[arg(long)]
    keep_going: bool,
    /// Run this stage or node whatever its record says
    #[arg(long, value_name = "TARGET")]
    force: Vec<String>,
    /// What there is of a resource that stages ask for: memory=16G, gpus=1, or a tag of the project; may be repeated.
    /// Default: [resources] of the pipeline file, and the memory that the machine has
    #[arg(long = "resource", value_name = "NAME=AMOUNT")]
    resources: Vec<String>,
    /// Write when each node ran, for Perfetto or Chrome's about:tracing
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    trace: Option<PathBuf>,
    /// Write what became of each node as JUnit XML, which build servers show
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    junit: Option<PathBuf>,
    /// Say what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Then run each target once more, and say where the two differ
    #[arg(long, conflicts_with_all = ["dry_run", "trace", "junit"])]
    verify: bool,
}

impl Run {
    /// # Errors
    /// If the pipeline is wrong, or a node fails.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        if self.asks_for_what_is_new() && !globals.json() && globals.verbose == 0 {
            let begun = Instant::now();
            if let Some(unchanged) = Unchanged::of(&globals.pipeline, &self.targets) {
                return tell_unchanged(&unchanged, globals, begun);
            }
        }
        self.check_places()?;
        let workspace = Workspace::open(&globals.pipeline, &self.settings)?;
        let options = self.options(&workspace)?;
        if self.dry_run {
            return status::preview(&workspace, &options, globals);
        }
        workspace.pipeline.check_resources(&options)?;
        unchanged::forget(&globals.pipeline);
        let pipeline = &workspace.pipeline;
        interrupt::listen(&pipeline.project, options.cancel.clone()).map_err(CommandError::failed)?;
        let pass = self.pass(&workspace, &options, globals)?;
        let Summary { ran, failed, skipped, cancelled, .. } = pass.summary;
        let is_newest = History::of(&pipeline.project.state).newest().is_some_and(|newest| newest == pass.run);
        let is_same = ran + failed + skipped + cancelled == 0 && !pass.restored;
        if is_same && is_newest && self.asks_for_what_is_new() {
            workspace.keep_unchanged(&self.targets, &pass.outs, &pass.run, &pass.summary);
        } else {
            // Another run may have kept what it found before this one.
            unchanged::forget(&globals.pipeline);
        }
        match failed > 0 {
            true => Err(CommandError::RunFailed),
            false if self.verify => self.verify(&workspace, options, globals, &pass),
            false => Ok(()),
        }
    }

    /// One run with its journal.
    fn pass(&self, workspace: &Workspace, options: &Options, globals: &Globals) -> Result<Pass, CommandError> {
        let pipeline = &workspace.pipeline;
        let journal = Journal::begin(&pipeline.project.state, &pipeline.file.name, arguments());
        let journal = journal.map_err(CommandError::failed)?;
        let run = journal.run.clone();
        let mut listener = Listener::new(workspace, Reporter::new(workspace, globals, journal));
        listener.trace = self.trace.as_ref().map(|_| Trace::default());
        listener.junit = self.junit.as_ref().map(|_| Junit::default());
        let summary = workspace.drive(options, &mut |event| listener.take(event))?;
        // What a run that was told to end leaves is made durable by the next.
        let settled = if options.cancel.is_raised() { Ok(()) } else { workspace.settle_outs(&listener.finished) };
        let Listener { reporter, trace, junit, finished, outputs, outs, restored, .. } = listener;
        workspace.remember_use(&finished)?;
        reporter.end(&summary, options.cancel.is_raised())?;
        if let Some((trace, path)) = trace.zip(self.trace.as_ref()) {
            trace.write(path)?;
        }
        if let Some((junit, path)) = junit.zip(self.junit.as_ref()) {
            junit.write(path, &pipeline.file.name, &pipeline.graph)?;
        }
        if options.cancel.is_raised() {
            return Err(CommandError::Interrupted);
        }
        settled?;
        Ok(Pass { run, summary, finished, outputs, outs, restored })
    }

    /// Runs each target again, and compares what it gave.
    fn verify(
        &self,
        workspace: &Workspace,
        options: Options,
        globals: &Globals,
        first: &Pass,
    ) -> Result<(), CommandError> {
        let targets = workspace.pipeline.targets(&self.targets)?;
        let again = Options { forced: targets.clone(), targets: targets.clone(), ..options };
        let second = self.pass(workspace, &again, globals)?;
        if second.summary.failed > 0 {
            return Err(CommandError::RunFailed);
        }
        verify::compare(workspace, &targets, (first, &second), globals)
    }

    fn options(&self, workspace: &Workspace) -> Result<Options, CommandError> {
        let pipeline = &workspace.pipeline;
        let forced = if self.force.is_empty() { Vec::new() } else { pipeline.targets(&self.force)? };
        let mut targets = pipeline.targets(&self.targets)?;
        targets.extend(&forced);
        let capacities = resources::overlaid(&pipeline.file.resources, &self.resources).map_err(CommandError::usage)?;
        let (jobs, keep_going, preview) = (self.jobs(), self.keep_going, self.dry_run);
        Ok(Options { targets, forced, jobs, keep_going, preview, capacities, ..Options::default() })
    }

    /// Whether only what has changed could make this run do something.
    fn asks_for_what_is_new(&self) -> bool {
        let asked = [&self.settings, &self.force, &self.resources];
        asked.iter().all(|words| words.is_empty()) && !self.dry_run && !self.verify && !self.is_told_elsewhere()
    }

    /// What is told in files is written when the run has ended: that it can be is looked at before.
    fn check_places(&self) -> Result<(), CommandError> {
        for file in [&self.trace, &self.junit].into_iter().flatten() {
            let there = file.ancestors().skip(1).find(|folder| folder.exists());
            if let Some(other) = there.filter(|folder| !folder.is_dir()) {
                let text = format!("{} cannot be written: {} is no folder", file.display(), other.display());
                return Err(CommandError::usage(text));
            }
        }
        Ok(())
    }

    /// Whether each node is told in a file.
    fn is_told_elsewhere(&self) -> bool {
        self.trace.is_some() || self.junit.is_some()
    }

    fn jobs(&self) -> usize {
        self.jobs.map_or_else(default_jobs, Into::into)
    }
}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a whole number of at least 1".to_owned())
}

/// As many nodes run at once as there are cores, if nothing else is said.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// A run that came to its end.
pub struct Pass {
    run: String,
    summary: Summary,
    /// The keys of the nodes that finished.
    pub finished: BTreeMap<NodeId, Key>,
    /// What they gave, in the order of their ports.
    pub outputs: BTreeMap<NodeId, Vec<Artifact>>,
    /// Each out in the project.
    outs: Vec<(PathBuf, Artifact)>,
    /// Whether an out was put back in place.
    restored: bool,
}

/// What is gathered from a run's events.
struct Listener<'a> {
    workspace: &'a Workspace,
    reporter: Reporter<'a>,
    trace: Option<Trace>,
    junit: Option<Junit>,
    finished: BTreeMap<NodeId, Key>,
    outputs: BTreeMap<NodeId, Vec<Artifact>>,
    outs: Vec<(PathBuf, Artifact)>,
    restored: bool,
}

impl<'a> Listener<'a> {
    fn new(workspace: &'a Workspace, reporter: Reporter<'a>) -> Self {
        let (finished, outputs, outs) = Default::default();
        Self { workspace, reporter, trace: None, junit: None, finished, outputs, outs, restored: false }
    }

    fn take(&mut self, event: Event) {
        let pipeline = &self.workspace.pipeline;
        if let Some(trace) = &mut self.trace {
            trace.take(&event, &pipeline.graph, self.workspace.elapsed());
        }
        if let Some(junit) = &mut self.junit {
            junit.take(&event);
        }
        if let Event::Finished(finish) = &event {
            let made = matches!(finish.outcome, Outcome::Ran | Outcome::Cached);
            self.finished.extend(finish.key.filter(|_| made).map(|key| (finish.node, key)));
            self.outputs.insert(finish.node, finish.outputs.clone());
            self.outs.extend(placed(pipeline, finish));
            self.restored |= finish.restored;
        }
        self.reporter.take(event);
    }
}

fn arguments() -> Vec<String> {
    std::env::args().skip(1).collect()
}

/// The outs of a node with the artifacts that stand there.
fn placed(pipeline: &Pipeline, finish: &Finish) -> Vec<(PathBuf, Artifact)> {
    let stage = &pipeline.graph.node(finish.node).stage;
    let ports = stage.outputs.iter().filter(|_| stage.outs.is_some());
    ports.zip(&finish.outputs).map(|(port, artifact)| (PathBuf::from(&port.name), artifact.clone())).collect()
}

/// Tells a run that found nothing changed, and writes its journal.
fn tell_unchanged(unchanged: &Unchanged, globals: &Globals, begun: Instant) -> Result<(), CommandError> {
    let project = Project::of(&globals.pipeline).map_err(CommandError::failed)?;
    let (cached, saved) = (unchanged.cached, unchanged.saved);
    let summary = Summary { cached, saved, ..Summary::default() };
    let mut journal = Journal::begin(&project.state, &unchanged.pipeline, arguments()).map_err(CommandError::failed)?;
    let seconds = begun.elapsed().as_secs_f64();
    let end = EndLine::new(&summary, seconds, false);
    let lines = [Line::Same(SameLine { run: unchanged.run.clone() }), Line::End(end)];
    lines.iter().try_for_each(|line| journal.write(line, true)).map_err(CommandError::failed)?;
    if !globals.quiet {
        tell(&final_line(&summary, seconds));
    }
    Ok(())
}
