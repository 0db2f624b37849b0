//! `headwater explain`: why a node would run, or why it ran, up to the root of the change.
//!
//! It compares a node's manifest with that of its last finish. A changed input is followed to the node that made it,
//! between the same two runs, until what differs is no input: the root. An input that is there or gone since, or comes from
//! another node, is a root too. The first line names a root, the others how it got to the node.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use headwater_engine::{Change, Key, Manifest, NodeId, Options, Preview, Reason};
use serde::Serialize;

use crate::commands::Globals;
use crate::error::CommandError;
use crate::journal::{History, NodeLine, PastRun};
use crate::reason::{cause, file_name, is_entry, params, port, sentence, turn};
use crate::report::{print_json, producers, say};
use crate::workspace::{Previewed, Workspace, split_output};

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
        let workspace = Workspace::open_for(&self.node, &globals.pipeline, &self.settings)?;
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
    let previews: Previews = workspace.previews(&options)?.into_iter().collect();
    let mut steps = Steps { workspace, steps: Vec::new(), seen: BTreeSet::new(), root: None };
    match previews.get(&id).map(|previewed| &previewed.preview) {
        Some(Preview::Cached) => steps.present(id, &previews),
        Some(Preview::Restore) => steps.say(0, id, "is cached; an out is not in place and will be restored"),
        _ => steps.future(0, id, &previews),
    }
    Ok(steps.told(id))
}

/// What would become of each node.
type Previews = BTreeMap<NodeId, Previewed>;

/// What each port of a node read in a run: `node.output`, or the path of a file.
type Wires = BTreeMap<String, String>;

struct Steps<'a> {
    workspace: &'a Workspace,
    steps: Vec<Step>,
    seen: BTreeSet<NodeId>,
    /// The first change that came from no node above, and the node that it is of.
    root: Option<(NodeId, String)>,
}

impl<'a> Steps<'a> {
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
    fn future(&mut self, depth: usize, id: NodeId, previews: &Previews) {
        if !self.seen.insert(id) {
            return;
        }
        let pipeline = &self.workspace.pipeline;
        let last = self.workspace.last.get(&pipeline.graph.node(id).name);
        match previews.get(&id).map(|previewed| &previewed.preview) {
            Some(Preview::Maybe(Reason::Unknown(upstream))) => {
                self.say(depth, id, "may run");
                for above in upstream {
                    self.future(depth + 1, *above, previews);
                }
            }
            Some(Preview::Stale(Reason::Changed(changes))) => {
                self.say(depth, id, "will run");
                self.causes(depth + 1, id, changes, last, previews);
            }
            Some(Preview::Stale(reason) | Preview::Maybe(reason)) => {
                self.say(depth, id, "will run");
                self.say_change(depth + 1, id, sentence(reason, id, pipeline, last), false);
            }
            Some(Preview::Failed(error)) => {
                self.say(depth, id, "cannot run");
                self.say_change(depth + 1, id, error.clone(), false);
            }
            Some(Preview::Cached | Preview::Restore) | None => self.again(depth, id, last, previews),
        }
    }

    /// A cached node is followed if it was another when it last finished: it is now what it had been before. One that is
    /// the same may pass on what it does not read.
    fn again(&mut self, depth: usize, id: NodeId, last: Option<&NodeLine>, previews: &Previews) {
        let keys = (previews.get(&id).and_then(|previewed| previewed.key), last.and_then(NodeLine::key));
        let (Some(now), Some(then)) = keys else { return };
        if now == then {
            let passed = self.passed(id);
            return self.producers(id, &passed).into_iter().for_each(|above| self.future(depth, above, previews));
        }
        if let (Some(now), Some(then)) = (self.manifest(now), self.manifest(then)) {
            self.say(depth, id, "is cached, and was another when it last finished");
            self.causes(depth + 1, id, &now.changes_since(&then), last, previews);
        }
    }

    /// Why a cached node is what it is: what it is not any more that it was when it last finished, or else what it had become
    /// by then.
    fn present(&mut self, id: NodeId, previews: &Previews) {
        let last = self.workspace.last.get(&self.workspace.pipeline.graph.node(id).name);
        if previews.get(&id).and_then(|previewed| previewed.key) != last.and_then(NodeLine::key) {
            self.again(0, id, last, previews);
        }
        if self.steps.is_empty() {
            self.past(id);
        }
    }

    fn manifest(&self, key: Key) -> Option<Manifest> {
        Some(Manifest::parse(&self.workspace.ledger.get(&key.0)?.manifest))
    }

    /// The ports whose entries a node passes on unread.
    fn passed(&self, id: NodeId) -> BTreeSet<&'a str> {
        let outputs = &self.workspace.pipeline.graph.node(id).stage.outputs;
        outputs.iter().filter_map(|port| port.passes.as_deref()).collect()
    }

    fn causes(&mut self, depth: usize, id: NodeId, changes: &[Change], last: Option<&NodeLine>, previews: &Previews) {
        let pipeline = &self.workspace.pipeline;
        for text in params(id, pipeline, last) {
            self.say_change(depth, id, text, false);
        }
        let wires = (producers(&pipeline.graph, id), last.map(|line| line.inputs.clone()).unwrap_or_default());
        let rewired = self.rewired(id, changes, &wires, |node| pipeline.may_have(node));
        self.say_changes(depth, id, changes, &rewired, &wires.1);
        let given = changes.iter().filter(|change| self.is_given(change, id, &rewired));
        let ports = given.filter_map(|change| port(&change.label, id, pipeline)).collect();
        for above in self.producers(id, &ports) {
            self.future(depth + 1, above, previews);
        }
    }

    /// The changed ports that now read another output, or file, and which. That another one has the place of a node that
    /// is not there any more is a new name, and no news.
    fn rewired(
        &self,
        id: NodeId,
        changes: &[Change],
        (now, then): &(Wires, Wires),
        is_there: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, String> {
        let pipeline = &self.workspace.pipeline;
        let ports: BTreeSet<&str> = changes.iter().filter_map(|change| port(&change.label, id, pipeline)).collect();
        let turned = |port: &str| {
            let (now, then) = (now.get(port)?, then.get(port)?);
            let ((_, output_now), (node_then, output_then)) = (split_output(now), split_output(then));
            let is_renamed = || output_now == output_then && !is_there(&node_then);
            (now != then && !is_renamed()).then(|| (port.to_owned(), format!("input {port} {}", turn(then, now))))
        };
        ports.into_iter().filter_map(turned).collect()
    }

    /// Whether it is a change of what another node gave, by a wire that was there before.
    fn is_given(&self, change: &Change, id: NodeId, rewired: &BTreeMap<String, String>) -> bool {
        let pipeline = &self.workspace.pipeline;
        let Some(port) = port(&change.label, id, pipeline) else { return false };
        let was_there = (change.old.is_some() && change.new.is_some()) || is_entry(&change.label, id, pipeline);
        was_there && !rewired.contains_key(port) && !self.producers(id, &BTreeSet::from([port])).is_empty()
    }

    /// What is the node's own first, then what other nodes gave it.
    fn say_changes(
        &mut self,
        depth: usize,
        id: NodeId,
        changes: &[Change],
        rewired: &BTreeMap<String, String>,
        then: &Wires,
    ) {
        for text in rewired.values() {
            self.say_change(depth, id, text.clone(), false);
        }
        let is_of_other = |change: &&Change| {
            port(&change.label, id, &self.workspace.pipeline).is_some_and(|port| rewired.contains_key(port))
        };
        let changes = changes.iter().filter(|change| !is_of_other(change));
        let (given, own): (Vec<&Change>, Vec<&Change>) = changes.partition(|change| self.is_given(change, id, rewired));
        for (changes, is_given) in [(own, false), (given, true)] {
            for change in changes {
                self.say_change(depth, id, self.with_source(id, change, then), is_given);
            }
        }
    }

    /// A change of an input that is a file of the project says which.
    fn with_source(&self, id: NodeId, change: &Change, then: &Wires) -> String {
        let pipeline = &self.workspace.pipeline;
        let text = cause(change, id, pipeline, then);
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
        let graph = &self.workspace.pipeline.graph;
        let known: BTreeSet<&str> = graph.ids().map(|id| graph.node(id).name.as_str()).collect();
        let runs: Vec<PastRun> = history.telling_runs_of(|name| known.contains(name)).collect();
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
        let manifest = |line: &NodeLine| self.manifest(line.key()?);
        let (Some(manifest_now), Some(manifest_then)) = (manifest(&now), manifest(&then)) else {
            return self.say(depth, id, "changed, but its older record is gone");
        };
        let changes = manifest_now.changes_since(&manifest_then);
        for (param, value) in &now.params {
            if let Some(old) = then.params.get(param).filter(|old| *old != value) {
                let line = self.workspace.pipeline.param_line(id, param);
                let place = line.map(|line| format!(" ({}:{line})", file_name(&self.workspace.pipeline)));
                let text = format!("param {param} {}{}", turn(old, value), place.unwrap_or_default());
                self.say_change(depth, id, text, false);
            }
        }
        let wires = (now.inputs, then.inputs);
        let rewired = self.rewired(id, &changes, &wires, |node| self.workspace.pipeline.may_have(node));
        self.say_changes(depth, id, &changes, &rewired, &wires.1);
        let ports: BTreeSet<&str> = match changes.is_empty() {
            true => self.passed(id),
            false => changes.iter().filter_map(|change| port(&change.label, id, &self.workspace.pipeline)).collect(),
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
