//! `headwater params diff` and `headwater metrics diff`: two runs, or two nodes, side by side.
//!
//! A run is named by its number, or as `last`, `last~1` and so on; what it had found unchanged, it tells as the run did
//! since which that was. A node is meant as it is now.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use clap::{Args, Subcommand};
use headwater_stages::kind::artifact;
use serde::Serialize;
use serde_json::Value as Json;

use crate::catalog;
use crate::commands::Globals;
use crate::commands::show::table;
use crate::error::CommandError;
use crate::journal::{History, NodeLine, OutputLine, PastRun};
use crate::project::file_type;
use crate::report::{print_json, say};
use crate::workspace::{Workspace, artifact_of};

/// The params of runs or nodes
#[derive(Debug, Args)]
pub struct Params {
    #[command(subcommand)]
    verb: Diff,
}

/// The metrics of runs or nodes
#[derive(Debug, Args)]
pub struct Metrics {
    #[command(subcommand)]
    verb: Diff,
}

#[derive(Debug, Subcommand)]
enum Diff {
    /// Show what differs between two
    Diff(Sides),
}

#[derive(Debug, Args)]
struct Sides {
    /// The older: a run's number, last, last~1 …, or a node such as train[model=forest]
    old: String,
    /// The newer, of the same sort
    new: String,
}

/// A JSON file of more bytes holds data.
const LARGEST_FILE: u64 = 1 << 20;

/// One side: values by node and name. A single node goes by no name, so that it can be compared with another.
type Side<T> = BTreeMap<String, BTreeMap<String, T>>;

#[derive(Serialize)]
struct Line<'a, T> {
    event: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    name: &'a str,
    old: Option<&'a T>,
    new: Option<&'a T>,
}

impl Params {
    /// # Errors
    /// If a side names no run and no node.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let Diff::Diff(sides) = &self.verb;
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let read = |side: &str| match past_run(&workspace, side)? {
            Some(run) => Ok(run.nodes.into_values().map(|line| (line.node, line.params)).collect()),
            None => {
                let id = workspace.pipeline.one_node(side)?;
                let params = workspace.pipeline.nodes[id.0].params.iter().cloned().collect();
                Ok::<_, CommandError>(Side::from([(String::new(), params)]))
            }
        };
        let (old, new) = (read(&sides.old)?, read(&sides.new)?);
        sides.check(&old, &new)?;
        let changes = changes(&old, &new);
        if globals.json() {
            return changes.iter().try_for_each(|change| Ok(print_json(&change.line("param_diff"))?));
        }
        // One edit of a param concerns many nodes.
        let mut rows: BTreeMap<(&str, String, String), Vec<&str>> = BTreeMap::new();
        for Change { node, name, old, new } in &changes {
            let text = |value: &Option<&String>| value.map_or_else(|| "—".to_owned(), Clone::clone);
            rows.entry((name, text(old), text(new))).or_default().push(node);
        }
        let rows = rows
            .into_iter()
            .map(|((name, old, new), nodes)| [name.to_owned(), old, new].into_iter().chain(few(&nodes)).collect());
        let right = if old.contains_key("") { &[][..] } else { &["of"] };
        sides.print(&["param"], right, rows.collect(), "params")
    }
}

/// Some of these nodes; nothing if they go by no name.
fn few(nodes: &[&str]) -> Option<String> {
    let more = if nodes.len() > 3 { " …" } else { "" };
    (nodes != [""]).then(|| nodes[..nodes.len().min(3)].join(" ") + more)
}

impl Metrics {
    /// # Errors
    /// If a side names no run and no node, or metrics cannot be read.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let Diff::Diff(sides) = &self.verb;
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let read = |side: &str| match past_run(&workspace, side)? {
            Some(run) => {
                let finished = run.nodes.into_values().filter(NodeLine::finished);
                finished.map(|line| Ok((line.node, numbers(&workspace, &line.outputs)?))).collect()
            }
            None => {
                let id = workspace.pipeline.one_node(side)?;
                let outputs = workspace.outputs(&[id])?.remove(0);
                Ok::<_, CommandError>(Side::from([(String::new(), numbers(&workspace, &outputs)?)]))
            }
        };
        let (old, new) = (read(&sides.old)?, read(&sides.new)?);
        sides.check(&old, &new)?;
        if old.values().chain(new.values()).all(BTreeMap::is_empty) {
            let text = format!("neither `{}` nor `{}` has metrics", sides.old, sides.new);
            let hint = "metrics are what `evaluate` gives, and the numbers in JSON files that commands make";
            return Err(CommandError::Usage(text, vec![hint.into()]));
        }
        let changes = changes(&old, &new);
        if globals.json() {
            return changes.iter().try_for_each(|change| Ok(print_json(&change.line("metric_diff"))?));
        }
        let rows = changes.iter().map(|Change { node, name, old, new }| {
            let text = |value: &Option<&f64>| value.map_or_else(|| "—".to_owned(), |value| format!("{value:.6}"));
            let by = old.zip(*new).map_or_else(String::new, |(old, new)| format!("{:+.6}", new - old));
            let row = vec![(*node).to_owned(), (*name).to_owned(), text(old), text(new), by];
            row.into_iter().skip(usize::from(node.is_empty())).collect()
        });
        let left = if old.contains_key("") { &["metric"][..] } else { &["node", "metric"] };
        sides.print(left, &["difference"], rows.collect(), "metrics")
    }
}

impl Sides {
    /// A run has nodes that a node has not.
    fn check<T>(&self, old: &Side<T>, new: &Side<T>) -> Result<(), CommandError> {
        if old.contains_key("") == new.contains_key("") {
            return Ok(());
        }
        let text = format!("one of `{}` and `{}` is a run, the other a node", self.old, self.new);
        Err(CommandError::Usage(text, vec!["compare two runs, or two nodes; `headwater log` lists runs".into()]))
    }

    fn print(&self, left: &[&str], right: &[&str], rows: Vec<Vec<String>>, what: &str) -> Result<(), CommandError> {
        if rows.is_empty() {
            return Ok(say(&format!("the {what} of {} and {} are the same", self.old, self.new))?);
        }
        let sides = [self.old.as_str(), self.new.as_str()];
        let names = left.iter().chain(&sides).chain(right).map(|name| (*name).to_owned());
        Ok(writeln!(std::io::stdout(), "{}", table(names.collect(), rows))?)
    }
}

/// A value that differs; one that a side has not is `None` there.
struct Change<'a, T> {
    node: &'a str,
    name: &'a str,
    old: Option<&'a T>,
    new: Option<&'a T>,
}

impl<T: Serialize> Change<'_, T> {
    fn line(&self, event: &'static str) -> Line<'_, T> {
        let Self { node, name, old, new } = *self;
        Line { event, node, name, old, new }
    }
}

/// What differs, by node and name.
fn changes<'a, T: PartialEq>(old: &'a Side<T>, new: &'a Side<T>) -> Vec<Change<'a, T>> {
    let nodes: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for node in nodes {
        let (then, now) = (old.get(node), new.get(node));
        let names: BTreeSet<&String> = then.into_iter().chain(now).flat_map(BTreeMap::keys).collect();
        for name in names {
            let (old, new) = (then.and_then(|side| side.get(name)), now.and_then(|side| side.get(name)));
            if old != new {
                changes.push(Change { node, name, old, new });
            }
        }
    }
    changes
}

/// The run that a word names, as it tells of nodes; `None` if the word is no run's.
fn past_run(workspace: &Workspace, word: &str) -> Result<Option<PastRun>, CommandError> {
    let back = match word.strip_prefix("last") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix('~').and_then(|number| number.parse::<usize>().ok()),
        None => None,
    };
    let number = word.parse::<u64>().ok();
    if back.is_none() && number.is_none() {
        return Ok(None);
    }
    let history = History::of(&workspace.pipeline.project.state);
    let named = |run: &PastRun| number.is_some() && run.head.run.parse::<u64>().ok() == number;
    let found = match back {
        Some(back) => history.runs().nth(back),
        None => history.runs().find(named),
    };
    let told = |run: PastRun| match &run.same {
        Some(same) => history.runs().find(|other| other.head.run == *same),
        None => Some(run),
    };
    let missing =
        || CommandError::Usage(format!("there is no run `{word}`"), vec!["`headwater log` lists runs".into()]);
    found.and_then(told).ok_or_else(missing).map(Some)
}

/// The numbers among a node's metrics, and in JSON files that it has made.
fn numbers(workspace: &Workspace, outputs: &[OutputLine]) -> Result<BTreeMap<String, f64>, CommandError> {
    let files = || outputs.iter().filter(|output| is_json(output));
    let mut found = BTreeMap::new();
    for output in outputs.iter().filter(|output| output.type_name == artifact::METRICS) {
        let value: Json = serde_json::from_slice(&bytes_of(workspace, output)?).map_err(CommandError::failed)?;
        let entries = value.as_object().into_iter().flatten();
        found.extend(entries.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))));
    }
    for output in files() {
        // Names of numbers may be the same in several files.
        let within = if files().count() > 1 { output.port.as_str() } else { "" };
        if let Ok(value) = serde_json::from_slice(&bytes_of(workspace, output)?) {
            add_numbers(within, &value, &mut found);
        }
    }
    Ok(found)
}

fn is_json(output: &OutputLine) -> bool {
    let is_named = Path::new(&output.port).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    is_named && output.type_name == file_type(false) && output.bytes <= LARGEST_FILE
}

fn bytes_of(workspace: &Workspace, output: &OutputLine) -> Result<Vec<u8>, CommandError> {
    let gone = |error: &dyn std::fmt::Display| {
        let hint = "a collection has removed it, or it is damaged; run that state of the pipeline again";
        CommandError::Failed(error.to_string(), vec![hint.into()])
    };
    let stored = catalog::open(&workspace.store, &artifact_of(output)?).map_err(|error| gone(&error))?;
    Ok(stored.blob().map_err(|error| gone(&error))?.to_vec())
}

/// The numbers in tables, and in tables of tables; those in arrays are data.
fn add_numbers(within: &str, value: &Json, found: &mut BTreeMap<String, f64>) {
    match value {
        Json::Object(entries) => entries.iter().for_each(|(name, value)| {
            let name = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
            add_numbers(&name, value, found);
        }),
        value => found.extend(value.as_f64().map(|number| (within.to_owned(), number))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_json_file_are_those_in_its_tables() {
        let value = serde_json::json!({ "rmse": 1.5, "test": { "n": 3, "by": [1, 2] }, "name": "x", "ok": true });
        let mut found = BTreeMap::new();
        add_numbers("", &value, &mut found);
        assert_eq!(found, BTreeMap::from([("rmse".to_owned(), 1.5), ("test.n".to_owned(), 3.0)]));
    }
}
