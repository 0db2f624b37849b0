//! `headwater status`: what a run would do, node by node. Writes nothing but the file index.

use clap::Args;
use headwater_engine::{NodeId, Options, Preview};
use serde::Serialize;

use crate::commands::Globals;
use crate::commands::run::default_jobs;
use crate::error::CommandError;
use crate::forecast::Forecast;
use crate::pipeline::resources;
use crate::reason::sentence;
use crate::report::{print_json, say};
use crate::workspace::{Previewed, Workspace};

/// Say what a run would do, node by node, and why
#[derive(Debug, Args)]
pub struct Status {
    /// Stages or nodes; all if none is named
    targets: Vec<String>,
    /// Set a param
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// What there is of a resource that stages ask for, as of run
    #[arg(long = "resource", value_name = "NAME=AMOUNT")]
    resources: Vec<String>,
}

#[derive(Serialize)]
struct NodeStatus<'a> {
    event: &'static str,
    node: &'a str,
    state: &'static str,
    reason: &'a str,
    /// What it cost when it last ran, if it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_seconds: Option<f64>,
}

impl Status {
    /// # Errors
    /// If the pipeline is wrong.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &self.settings)?;
        let targets = workspace.pipeline.targets(&self.targets)?;
        let declared = &workspace.pipeline.file.resources;
        let capacities = resources::overlaid(declared, &self.resources).map_err(CommandError::usage)?;
        let options = Options { targets, jobs: default_jobs(), preview: true, capacities, ..Options::default() };
        preview(&workspace, &options, globals)
    }
}

/// Shows what a run with these options would do.
///
/// # Errors
/// If output cannot be written, an input file cannot be read, or the run would be refused for want of resources.
pub fn preview(workspace: &Workspace, options: &Options, globals: &Globals) -> Result<(), CommandError> {
    let previews = workspace.previews(options)?;
    let costs = workspace.costs(&previews);
    let mut counts = [0usize; 5];
    for (id, Previewed { preview, .. }) in &previews {
        let (state, reason) = describe(workspace, *id, preview);
        counts[rank(preview)] += 1;
        let node = &workspace.pipeline.graph.node(*id).name;
        if globals.json() {
            let expected_seconds = costs.get(id).copied();
            print_json(&NodeStatus { event: "node_status", node, state, reason: &reason, expected_seconds })?;
        } else if !globals.quiet && (globals.verbose > 0 || !matches!(preview, Preview::Cached)) {
            say(format!("{state:>9} {node}  {reason}").trim_end())?;
        }
    }
    if !globals.json() {
        let words = ["cached", "to restore", "to run", "may run", "cannot run"];
        let parts: Vec<String> =
            words.iter().zip(counts).filter(|(_, n)| *n > 0).map(|(w, n)| format!("{n} {w}")).collect();
        say(&parts.join(", "))?;
        Forecast::of(&workspace.pipeline.graph, &previews, &costs, options.jobs)
            .line()
            .map_or(Ok(()), |line| say(&line))?;
    }
    workspace.pipeline.check_resources(options)?;
    if counts[4] > 0 { Err(CommandError::RunFailed) } else { Ok(()) }
}

fn rank(preview: &Preview) -> usize {
    match preview {
        Preview::Cached => 0,
        Preview::Restore => 1,
        Preview::Stale(_) => 2,
        Preview::Maybe(_) => 3,
        Preview::Failed(_) => 4,
    }
}

fn describe(workspace: &Workspace, id: NodeId, preview: &Preview) -> (&'static str, String) {
    let pipeline = &workspace.pipeline;
    let last = workspace.last.get(&pipeline.graph.node(id).name);
    match preview {
        Preview::Cached => ("cached", String::new()),
        Preview::Restore => ("restore", "an out is not in place".into()),
        Preview::Stale(reason) => ("stale", sentence(reason, id, pipeline, last)),
        Preview::Maybe(reason) => ("maybe", sentence(reason, id, pipeline, last)),
        Preview::Failed(error) => ("failed", error.clone()),
    }
}
