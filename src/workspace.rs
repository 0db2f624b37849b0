//! `Workspace`: a loaded pipeline with its store, ledger and history open; what most commands begin with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use headwater_cache::{Artifact, Digest, Ledger, Shape, Store};
use headwater_engine::{Event, Key, NodeId, Options, Session, Summary};

use crate::error::CommandError;
use crate::journal::{History, NodeLine, OutputLine};
use crate::pipeline::{Pipeline, parse_node};

/// A project, open.
pub struct Workspace {
    pub pipeline: Pipeline,
    pub store: Arc<Store>,
    pub ledger: Ledger,
    /// The last finish of each node.
    pub last: BTreeMap<String, NodeLine>,
    begun: Instant,
}

impl Workspace {
    /// Opens the project of a pipeline file.
    ///
    /// # Errors
    /// If the file is wrong, or the store cannot be opened.
    pub fn open(path: &Path, settings: &[String]) -> Result<Self, CommandError> {
        let begun = Instant::now();
        let pipeline = Pipeline::load(path, settings)?;
        let store_path = pipeline.project.store_path(pipeline.file.store_path.as_deref());
        let store = Arc::new(Store::open(&store_path).map_err(|error| store_error(&error, &store_path))?);
        let ledger = Ledger::open(store.root()).map_err(CommandError::failed)?;
        if let Some(damage) = ledger.damage() {
            eprintln!("warning: {damage}");
        }
        let history = History::of(&pipeline.project.state);
        let last = history.last_finishes(pipeline.graph.ids().map(|id| pipeline.graph.node(id).name.as_str()));
        Ok(Self { pipeline, store, ledger, last, begun })
    }

    /// Runs the engine's loop, and keeps what it learned of files.
    ///
    /// # Errors
    /// If there are no threads to be had, or the file index cannot be written.
    pub fn drive(&self, options: &Options, emit: &mut dyn FnMut(Event)) -> Result<Summary, CommandError> {
        let last_keys: BTreeMap<String, Key> =
            self.last.iter().filter_map(|(name, line)| Some((name.clone(), line.key()?))).collect();
        let clock = || self.begun.elapsed().as_secs_f64();
        let keyed = self.pipeline.keyed_graph()?;
        let session = Session {
            graph: keyed.as_ref().unwrap_or(&self.pipeline.graph),
            store: &self.store,
            ledger: &self.ledger,
            sources: &*self.pipeline.project,
            last_keys: &last_keys,
            clock: &clock,
        };
        let summary = session.run(options, emit).map_err(CommandError::failed)?;
        self.pipeline.project.index.save().map_err(CommandError::failed)?;
        Ok(summary)
    }

    /// Seconds since the workspace was opened.
    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// The artifact that a `REF` names: `stage[axis=label,…].output`, the output left out where there is one, or a
    /// digest's prefix.
    ///
    /// # Errors
    /// If it names nothing, or several artifacts.
    pub fn artifact(&self, reference: &str) -> Result<Found, CommandError> {
        let hex = reference.chars().all(|c| c.is_ascii_hexdigit()) && reference.len() >= 6;
        if hex && !self.pipeline.file.stages.iter().any(|stage| stage.name.name == reference) {
            return self.by_prefix(reference);
        }
        let (node, output) = split_output(reference);
        let id = self.one_node(&node, output.as_deref())?;
        let name = &self.pipeline.graph.node(id).name;
        let line = self.last.get(name).ok_or_else(|| {
            let hint = format!("run it first: headwater run '{name}'");
            CommandError::Usage(format!("`{name}` has not run yet"), vec![hint])
        })?;
        let artifact = self.output(name, line, output.as_deref())?;
        let reference = format!("{name}.{}", artifact.0);
        Ok(Found { artifact: artifact.1, reference, node: Some(id) })
    }

    fn one_node(&self, word: &str, output: Option<&str>) -> Result<NodeId, CommandError> {
        self.pipeline.one_node(word).map_err(|error| match (error, output) {
            (CommandError::Usage(text, hints), _) if text.contains("choose one") => {
                let (stage, _) = parse_node(word);
                let hint = format!("write: {stage}[AXIS=VALUE]{}", output.map(|o| format!(".{o}")).unwrap_or_default());
                CommandError::Usage(text, hints.into_iter().chain([hint]).collect())
            }
            (other, _) => other,
        })
    }

    fn output(&self, node: &str, line: &NodeLine, output: Option<&str>) -> Result<(String, Artifact), CommandError> {
        let found = match (output, line.outputs.as_slice()) {
            (None, [one]) => Some(one),
            // A model's or table's evaluation is asked for more often than what stands beside it.
            (None, several) => several.iter().find(|output| output.type_name == "metrics"),
            (Some(name), several) => several.iter().find(|output| output.port == name),
        };
        let names: Vec<String> = line.outputs.iter().map(|output| format!("{node}.{}", output.port)).collect();
        let found = found.ok_or_else(|| {
            let text = match output {
                Some(output) => format!("`{node}` has no output `{output}`"),
                None => format!("`{node}` has several outputs; choose one"),
            };
            CommandError::Usage(text, vec![names.join(", ")])
        })?;
        Ok((found.port.clone(), artifact_of(found)?))
    }

    fn by_prefix(&self, prefix: &str) -> Result<Found, CommandError> {
        let lower = prefix.to_ascii_lowercase();
        let outputs = self.last.iter().flat_map(|(name, line)| line.outputs.iter().map(move |output| (name, output)));
        let mut found: Vec<(String, &OutputLine)> = outputs
            .filter(|(_, output)| output.digest.starts_with(&lower))
            .map(|(name, output)| (format!("{name}.{}", output.port), output))
            .collect();
        found.dedup_by(|a, b| a.1.digest == b.1.digest);
        match found.as_slice() {
            [(reference, output)] => {
                Ok(Found { artifact: artifact_of(output)?, reference: reference.clone(), node: None })
            }
            [] => Err(CommandError::usage(format!("no stage and no artifact is named `{prefix}`"))),
            several => {
                let names: Vec<String> =
                    several.iter().map(|(name, output)| format!("{} {name}", output.digest)).collect();
                Err(CommandError::Usage(format!("`{prefix}` is the beginning of several digests"), names))
            }
        }
    }
}

/// An artifact, and what it is called.
pub struct Found {
    pub artifact: Artifact,
    pub reference: String,
    pub node: Option<NodeId>,
}

fn artifact_of(output: &OutputLine) -> Result<Artifact, CommandError> {
    let digest: Digest = output.digest.parse().map_err(CommandError::failed)?;
    let shape = if output.tree { Shape::Tree } else { Shape::Blob };
    Ok(Artifact { type_name: output.type_name.clone(), shape, digest, bytes: output.bytes })
}

/// `stage[axis=a.b].output` -> node and output; a dot inside the brackets belongs to a label.
fn split_output(reference: &str) -> (String, Option<String>) {
    let after = reference.rfind(']').map_or(0, |at| at + 1);
    match reference[after..].split_once('.') {
        Some((head, output)) => (format!("{}{head}", &reference[..after]), Some(output.to_owned())),
        None => (reference.to_owned(), None),
    }
}

fn store_error(error: &headwater_cache::StoreError, path: &Path) -> CommandError {
    let hint = "move the store with HEADWATER_STORE or [store] path, or remove it: it is rebuilt by the next run";
    CommandError::Failed(format!("the store {} cannot be opened: {error}", path.display()), vec![hint.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_inside_the_brackets_belongs_to_a_label() {
        let split = |text: &str| split_output(text);
        assert_eq!(split("train[l2=0.5].model"), ("train[l2=0.5]".into(), Some("model".into())));
        assert_eq!(split("train[l2=0.5]"), ("train[l2=0.5]".into(), None));
        assert_eq!(split("make.out/a.csv"), ("make".into(), Some("out/a.csv".into())));
    }
}
