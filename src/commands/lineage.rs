//! `headwater lineage`: an artifact back to the files, params and code that it was made from.

use std::collections::BTreeMap;

use clap::Args;
use headwater_cache::Artifact;
use headwater_engine::graph::Source;
use headwater_engine::{NodeId, Options, Preview};
use serde::Serialize;

use crate::commands::Globals;
use crate::error::CommandError;
use crate::pipeline::interpolate::shell_argument;
use crate::reason::shown;
use crate::report::{print_json, say};
use crate::workspace::{Previewed, Workspace};

/// Trace an artifact back to the files, params and code that it was made from
#[derive(Debug, Args)]
pub struct Lineage {
    /// stage[axis=value,…].output, or the beginning of a digest
    reference: String,
}

/// A node on the way, as JSON.
#[derive(Serialize)]
struct NodeJson<'a> {
    event: &'static str,
    node: &'a str,
    kind: &'a str,
    version: u32,
    key: Option<&'a str>,
    params: BTreeMap<&'a str, &'a str>,
    config: BTreeMap<&'a str, &'a str>,
    inputs: Vec<InputJson>,
    outputs: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct InputJson {
    port: String,
    from: String,
    digest: String,
}

/// A node and all that it is made from.
struct Ancestry<'a> {
    workspace: &'a Workspace,
    made: BTreeMap<NodeId, Vec<Artifact>>,
}

impl Lineage {
    /// # Errors
    /// If there is no such artifact, or it is not what the pipeline would make now.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        // What is not up to date is an error here, and not shown as what it was.
        let node = match workspace.node_named(&self.reference)? {
            None => workspace.artifact(&self.reference)?.node,
            named => named,
        };
        let Some(id) = node else {
            let text = format!("no stage of the pipeline makes `{}` any more", self.reference);
            return Err(CommandError::usage(text));
        };
        let options = Options { targets: vec![id], jobs: 1, preview: true, ..Options::default() };
        let (mut made, mut order) = (BTreeMap::new(), Vec::new());
        for (node, Previewed { preview, outputs, .. }) in workspace.previews(&options)? {
            if !matches!(preview, Preview::Cached | Preview::Restore) {
                let name = &workspace.pipeline.graph.node(node).name;
                let hint = format!("run it first: headwater run {}", shell_argument(name));
                return Err(CommandError::Usage(format!("`{name}` is not up to date"), vec![hint]));
            }
            made.insert(node, outputs);
            order.push(node);
        }
        let found = workspace.artifact(&self.reference)?;
        if !made[&id].iter().any(|now| now.digest == found.artifact.digest) {
            let text = format!("`{}` is `{}` of an earlier run; now it is another", self.reference, found.reference);
            let hint = "the runs and what they were told: headwater log".into();
            return Err(CommandError::Usage(text, vec![hint]));
        }
        // Previews come in the graph's order; here each stands before what it reads.
        order.reverse();
        let ancestry = Ancestry { workspace: &workspace, made };
        if globals.json() {
            return order.iter().try_for_each(|id| ancestry.print_json(*id));
        }
        let artifact = &found.artifact;
        say(&format!("{}  {}  {}", found.reference, artifact.type_name, artifact.digest))?;
        order.iter().try_for_each(|id| ancestry.say(*id))
    }
}

impl Ancestry<'_> {
    fn say(&self, id: NodeId) -> Result<(), CommandError> {
        let (node, info) = (self.workspace.pipeline.graph.node(id), &self.workspace.pipeline.nodes[id.0]);
        say("")?;
        say(&format!("{}  {} (version {})", node.name, node.stage.kind, node.stage.version))?;
        for (name, value) in &info.params {
            say(&format!("    param {name} = {value}"))?;
        }
        for (name, value) in &node.stage.config {
            say(&format!("    {name} = {}", shown(value)))?;
        }
        for InputJson { port, from, digest } in self.inputs(id) {
            say(&format!("    {port} <- {from}  {}", &digest[..12.min(digest.len())]))?;
        }
        Ok(())
    }

    fn print_json(&self, id: NodeId) -> Result<(), CommandError> {
        let (node, info) = (self.workspace.pipeline.graph.node(id), &self.workspace.pipeline.nodes[id.0]);
        let ports = node.stage.outputs.iter().map(|port| port.name.as_str());
        let digests = self.made[&id].iter().map(|artifact| artifact.digest.to_string());
        Ok(print_json(&NodeJson {
            event: "lineage",
            node: &node.name,
            kind: &node.stage.kind,
            version: node.stage.version,
            key: self.workspace.last.get(&node.name).and_then(|line| line.key.as_deref()),
            params: texts(&info.params),
            config: texts(&node.stage.config),
            inputs: self.inputs(id),
            outputs: ports.zip(digests).collect(),
        })?)
    }

    fn inputs(&self, id: NodeId) -> Vec<InputJson> {
        let graph = &self.workspace.pipeline.graph;
        let mut inputs = Vec::new();
        for input in graph.inputs(id) {
            let (from, digest) = match &input.source {
                Source::Output { node, output, entry } => {
                    let (from, port) = (graph.node(*node), &graph.node(*node).stage.outputs[*output].name);
                    let inside = entry.as_ref().map(|entry| format!("/{entry}")).unwrap_or_default();
                    (format!("{}.{port}{inside}", from.name), self.made[node][*output].digest.to_string())
                }
                Source::File { path, without } => {
                    let digest = self.workspace.source(path, without).map(|artifact| artifact.digest.to_string());
                    (path.display().to_string(), digest.unwrap_or_default())
                }
            };
            inputs.push(InputJson { port: input.port.clone(), from, digest });
        }
        inputs
    }
}

fn texts(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
