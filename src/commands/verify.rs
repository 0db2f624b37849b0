//! `headwater run --verify`: what two runs of a node gave, compared.
//!
//! It starts nothing. A node whose key differs read something else the second time, because a node above it gave
//! something else: that one is told.

use std::collections::{BTreeMap, BTreeSet};

use headwater_cache::{Artifact, Digest, Shape, Store, Tree};
use headwater_engine::NodeId;
use serde::Serialize;

use crate::commands::Globals;
use crate::commands::run::Pass;
use crate::error::CommandError;
use crate::report::{print_json, tell};
use crate::workspace::Workspace;

/// More entries of a tree are not named.
const NAMED: usize = 8;

/// An output that differs.
#[derive(Serialize)]
struct Difference<'a> {
    event: &'static str,
    node: &'a str,
    output: &'a str,
    first: String,
    second: String,
    /// Of a tree, the entries that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<String>,
}

/// Names the outputs that are not the same bytes.
///
/// # Errors
/// If there are any.
pub fn compare(
    workspace: &Workspace,
    nodes: &[NodeId],
    (first, second): (&Pass, &Pass),
    globals: &Globals,
) -> Result<(), CommandError> {
    let graph = &workspace.pipeline.graph;
    let (mut same, mut differing) = (0, 0);
    for id in nodes.iter().filter(|id| first.finished.get(id) == second.finished.get(id)) {
        let node = graph.node(*id);
        let (Some(before), Some(after)) = (first.outputs.get(id), second.outputs.get(id)) else { continue };
        let pairs = node.stage.outputs.iter().zip(before.iter().zip(after));
        let different: Vec<_> = pairs.filter(|(_, (before, after))| before.digest != after.digest).collect();
        if different.is_empty() {
            same += 1
        } else {
            differing += 1
        }
        for (port, (before, after)) in different {
            let difference = Difference {
                event: "output_differs",
                node: &node.name,
                output: &port.name,
                first: before.digest.to_string(),
                second: after.digest.to_string(),
                entries: entries(&workspace.store, before, after)?,
            };
            show(&difference, globals)?;
        }
    }
    if !globals.quiet && !globals.json() {
        tell(&format!("verified: {same} the same, {differing} not"));
    }
    if differing == 0 {
        return Ok(());
    }
    let hint = "look for a clock, a seed that is not set, an order of files or threads, or a file that is no dep";
    Err(CommandError::Failed("not every node gives the same twice".into(), vec![hint.into()]))
}

fn show(difference: &Difference<'_>, globals: &Globals) -> Result<(), CommandError> {
    if globals.json() {
        return Ok(print_json(difference)?);
    }
    let Difference { node, output, first, second, entries, .. } = difference;
    let inside = match entries.len() {
        0 => String::new(),
        1..=NAMED => format!(" ({})", entries.join(", ")),
        more => format!(" ({} and {} more)", entries[..NAMED].join(", "), more - NAMED),
    };
    tell(&format!("  differs {node}.{output}{inside}: {} then {}", &first[..12], &second[..12]));
    Ok(())
}

/// The names of entries that are in one alone, or differ.
fn entries(store: &Store, before: &Artifact, after: &Artifact) -> Result<Vec<String>, CommandError> {
    if (before.shape, after.shape) != (Shape::Tree, Shape::Tree) {
        return Ok(Vec::new());
    }
    let before = store.get_tree(&before.digest).map_err(CommandError::failed)?;
    let after = store.get_tree(&after.digest).map_err(CommandError::failed)?;
    let facts = |tree: &Tree| -> BTreeMap<String, Digest> {
        tree.entries.iter().map(|entry| (entry.name.clone(), entry.digest)).collect()
    };
    let (before, after) = (facts(&before), facts(&after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let names = names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
    Ok(names)
}
