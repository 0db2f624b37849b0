//! `headwater explain`: why a node would run, or why it ran, up to the root of the change.
//!
//! It compares a node's manifest with that of its last finish. A changed input is followed to the node that made it,
//! between the same two runs, until what differs is no input: the root. The first line names a root, the others how it got
//! to the node.

use std::collections::BTreeSet;

use clap::Args;
use headwater_engine::{Change, Manifest, NodeId, Options, Preview, Reason};
use serde::Serialize;

use crate::commands::Globals;
use crate::error::CommandError;
use crate::journal::{History, NodeLine, PastRun};
use crate::reason::{cause, file_name, params, port, sentence};
use crate::report::{print_json, say};
use crate::workspace::Workspace;

/// Say why a node would run, or why it ran
#[derive(Debug, Args)]
pub struct Explain {
    /// A node, such as train[model=forest]; a stage's name does if it has one node
    node: String,
    /// Set a param
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

/// One line of an explanation; deeper ones are nearer to the root.
#[derive(Debug, Serialize)]
struct Step {
    event: &'static str,
    depth: usize,
    node: String,
    text: String,
}

impl Explain {
    /// # Errors
    /// If there is no such node, or the pipeline is wrong.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &self.settings)?;
        let id = workspace.pipeline.one_node(&self.node)?;
        let steps = explain(&workspace, id)?;
        for step in &steps {
            if globals.json() {
                print_json(step)?;
            } else {
                say(&format!("{}{} {}", "  ".repeat(step.depth), step.node, step.text))?;
            }
        }
        Ok(())
    }
}

fn explain(workspace: &Workspace, id: NodeId) -> Result<Vec<Step>, CommandError> {
    let options = Options { targets: vec![id], jobs: 1, preview: true, ..Options::default() };
    let previews = workspace.previews(&options)?;
    let previews: Vec<(NodeId, Preview)> =
        previews.into_iter().map(|(id, previewed)| (id, previewed.preview)).collect();
    let mut steps = Steps { workspace, steps: Vec::new(), seen: BTreeSet::new(), root: None };
    let own = previews.iter().find(|(node, _)| *node == id).map(|(_, preview)| preview);
    match own {
        Some(Preview::Cached) => steps.past(id),
        Some(Preview::Restore) => steps.say(0, id, "is cached; an out is not in place and will be restored"),
        _ => steps.future(0, id, &previews),
    }
    Ok(steps.told(id))
}

struct Steps<'a> {
    workspace: &'a Workspace,
    steps: Vec<Step>,
    seen: BTreeSet<NodeId>,
    /// The first change that came from no node above, and the node that it is of.
    root: Option<(NodeId, String)>,
}

impl Steps<'_> {
    /// The lines, of which the first names the root.
    fn told(mut self, id: NodeId) -> Vec<Step> {
        if let (Some((of, root)), Some(first)) = (&self.root, self.steps.first_mut()) {
            let place = match *of == id {
                true => String::new(),
                false => format!(", of {}", self.workspace.pipeline.graph.node(*of).name),
            };
            first.text = format!("{}: {root}{place}", first.text);
            if self.steps.len() == 2 && *of == id {
                self.steps.truncate(1);
            }
        }
        self.steps
    }

    /// Says a change; if no node above gave it, it is a root.
    fn say_change(&mut self, depth: usize, id: NodeId, text: String, from_above: bool) {
        if !from_above && self.root.is_none() {
            self.root = Some((id, text.clone()));
        }
        self.say(depth, id, text);
    }

    fn say(&mut self, depth: usize, id: NodeId, text: impl Into<String>) {
        let node = self.workspace.pipeline.graph.node(id).name.clone();
        self.steps.push(Step { event: "explained", depth, node, text: text.into() });
    }

    /// Why a node will or may run.
    fn future(&mut self, depth: usize, id: NodeId, previews: &[(NodeId, Preview)]) {
        if !self.seen.insert(id) {
            return;
        }
        let pipeline = &self.workspace.pipeline;
        let last = self.workspace.last.get(&pipeline.graph.node(id).name);
        match previews.iter().find(|(node, _)| *node == id).map(|(_, preview)| preview) {
            Some(Preview::Maybe(Reason::Unknown(upstream))) => {
                self.say(depth, id, "may run");
                for above in upstream {
                    self.future(depth + 1, *above, previews);
                }
            }
            Some(Preview::Stale(Reason::Changed(changes))) => {
                self.say(depth, id, "will run");
                self.causes(depth + 1, id, changes, last);
            }
            Some(Preview::Stale(reason) | Preview::Maybe(reason)) => {
                self.say(depth, id, "will run");
                self.say_change(depth + 1, id, sentence(reason, id, pipeline, last), false);
            }
            Some(Preview::Failed(error)) => {
                self.say(depth, id, "cannot run");
                self.say_change(depth + 1, id, error.clone(), false);
            }
            Some(Preview::Cached | Preview::Restore) | None => self.say(depth, id, "is cached"),
        }
    }

    fn causes(&mut self, depth: usize, id: NodeId, changes: &[Change], last: Option<&NodeLine>) {
        let pipeline = &self.workspace.pipeline;
        for text in params(id, pipeline, last) {
            self.say_change(depth, id, text, false);
        }
        self.say_changes(depth, id, changes);
    }

    /// What is the node's own first, then what other nodes gave it.
    fn say_changes(&mut self, depth: usize, id: NodeId, changes: &[Change]) {
        let from_above = |change: &&Change| {
            let port = port(&change.label, id, &self.workspace.pipeline);
            port.is_some_and(|port| !self.producers(id, &BTreeSet::from([port])).is_empty())
        };
        let (above, own): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(from_above);
        for (changes, from_above) in [(own, false), (above, true)] {
            for change in changes {
                self.say_change(depth, id, self.with_source(id, change), from_above);
            }
        }
    }

    /// A change of an input that is a file of the project says which.
    fn with_source(&self, id: NodeId, change: &Change) -> String {
        let pipeline = &self.workspace.pipeline;
        let text = cause(change, id, pipeline);
        let inputs = pipeline.graph.inputs(id).iter();
        let file = port(&change.label, id, pipeline).and_then(|port| {
            inputs.filter(|input| input.port == port).find_map(|input| match &input.source {
                headwater_engine::graph::Source::File { path, .. } => Some(path.display().to_string()),
                headwater_engine::graph::Source::Output { .. } => None,
            })
        });
        match file {
            Some(path) => format!("{text} (file {path})"),
            None => text,
        }
    }

    /// Why a cached node last ran.
    fn past(&mut self, id: NodeId) {
        let name = &self.workspace.pipeline.graph.node(id).name;
        let history = History::of(&self.workspace.pipeline.project.state);
        let runs: Vec<PastRun> = history.telling_runs().collect();
        let finish = |run: &PastRun| run.nodes.get(name).filter(|line| line.finished()).and_then(NodeLine::key);
        let now = runs.iter().position(|run| finish(run).is_some());
        let Some(now) = now else { return self.say(0, id, "is cached, from another project that shares the store") };
        let key = finish(&runs[now]);
        let before = (now..runs.len()).find(|at| finish(&runs[*at]).is_some_and(|other| Some(other) != key));
        let Some(before) = before else {
            return self.say(0, id, format!("is cached; it has had one key only, first in run {}", first(&runs, name)));
        };
        let ran = (now..before).rev().find(|at| finish(&runs[*at]) == key).unwrap_or(now);
        self.say(0, id, format!("is cached; its key is new since run {}", runs[ran].head.run));
        self.between(1, id, &runs[ran], &runs[before..]);
    }

    /// What differs for a node between a run and the newest earlier one in which it finished, followed upwards.
    fn between(&mut self, depth: usize, id: NodeId, new: &PastRun, olds: &[PastRun]) {
        if !self.seen.insert(id) {
            return;
        }
        let name = &self.workspace.pipeline.graph.node(id).name;
        let line_of = |run: &'_ PastRun| run.nodes.get(name).filter(|line| line.finished()).cloned();
        let (Some(now), Some(then)) = (line_of(new), olds.iter().find_map(line_of)) else {
            return self.say_change(depth, id, "is new".into(), false);
        };
        let manifest = |line: &NodeLine| {
            let record = self.workspace.ledger.get(&line.key()?.0)?;
            Some(Manifest::parse(&record.manifest))
        };
        let (Some(manifest_now), Some(manifest_then)) = (manifest(&now), manifest(&then)) else {
            return self.say(depth, id, "changed, but its older record is gone");
        };
        let changes = manifest_now.changes_since(&manifest_then);
        for (param, value) in &now.params {
            if let Some(old) = then.params.get(param).filter(|old| *old != value) {
                let line = self.workspace.pipeline.param_line(id, param);
                let place = line.map(|line| format!(" ({}:{line})", file_name(&self.workspace.pipeline)));
                self.say_change(
                    depth,
                    id,
                    format!("param {param} {old} -> {value}{}", place.unwrap_or_default()),
                    false,
                );
            }
        }
        self.say_changes(depth, id, &changes);
        let passed =
            self.workspace.pipeline.graph.node(id).stage.outputs.iter().filter_map(|port| port.passes.as_deref());
        let ports: BTreeSet<&str> = if changes.is_empty() {
            // It only passed on what it does not read.
            passed.collect()
        } else {
            changes.iter().filter_map(|change| port(&change.label, id, &self.workspace.pipeline)).collect()
        };
        for above in self.producers(id, &ports) {
            self.between(depth + 1, above, new, olds);
        }
    }

    fn producers(&self, id: NodeId, ports: &BTreeSet<&str>) -> BTreeSet<NodeId> {
        let inputs = self.workspace.pipeline.graph.inputs(id).iter();
        inputs
            .filter(|input| ports.contains(input.port.as_str()))
            .filter_map(|input| match input.source {
                headwater_engine::graph::Source::Output { node, .. } => Some(node),
                headwater_engine::graph::Source::File { .. } => None,
            })
            .collect()
    }
}

fn first(runs: &[PastRun], name: &str) -> String {
    let with = runs.iter().rev().find(|run| run.nodes.get(name).is_some_and(NodeLine::finished));
    with.map(|run| run.head.run.clone()).unwrap_or_default()
}
