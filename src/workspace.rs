//! `Workspace`: a loaded pipeline with its store, ledger and history open; what most commands begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use headwater_cache::{Artifact, Claims, Digest, Ledger, Shape, Store, UsedSet};
use headwater_engine::{Event, Key, NodeId, Options, Preview, Session, Summary};

use crate::clock::WallClock;
use crate::error::CommandError;
use crate::journal::{History, NodeLine, OutputLine};
use crate::pipeline::Pipeline;
use crate::pipeline::interpolate::shell_argument;
use crate::process::command::Answers;
use crate::process::work::WorkFolders;
use crate::report::tell;
use crate::sources::{Kept, KeptSources};
use crate::unchanged::{CachedRun, Source, Watched};

/// A project, open.
pub struct Workspace {
    pub pipeline: Pipeline,
    pub store: Arc<Store>,
    pub ledger: Ledger,
    pub claims: Claims,
    /// The last finish of each node.
    pub last: BTreeMap<String, NodeLine>,
    /// Sources that were put into the store.
    kept: Mutex<BTreeSet<Digest>>,
    /// What each source was when it was last looked at.
    sources: Mutex<BTreeMap<Source, Artifact>>,
    /// What the last graph was keyed with.
    answers: Mutex<Option<Answers>>,
    begun: Instant,
}

impl Workspace {
    /// Opens the project of a pipeline file.
    ///
    /// # Errors
    /// If the file is wrong, or the store cannot be opened.
    pub fn open(path: &Path, settings: &[String]) -> Result<Self, CommandError> {
        Self::begin(Instant::now(), Pipeline::load(path, settings)?)
    }

    /// Opens the part of a project that one node needs.
    ///
    /// # Errors
    /// As [`Workspace::open`].
    pub fn open_for(node: &str, path: &Path, settings: &[String]) -> Result<Self, CommandError> {
        Self::begin(Instant::now(), Pipeline::load_for(node, path, settings)?)
    }

    fn begin(begun: Instant, pipeline: Pipeline) -> Result<Self, CommandError> {
        let store_path = pipeline.store_path();
        let store = Arc::new(Store::open(&store_path).map_err(|error| store_error(&error, &store_path))?);
        let ledger = Ledger::of(&store);
        if let Some(damage) = ledger.damage() {
            tell(&format!("warning: {damage}"));
        }
        let claims = Claims::new(store.root());
        let history = History::of(&pipeline.project.state);
        let last = history.last_finishes(pipeline.graph.ids().map(|id| pipeline.graph.node(id).name.as_str()));
        let (kept, sources, answers) = Default::default();
        Ok(Self { pipeline, store, ledger, claims, last, kept, sources, answers, begun })
    }

    /// Runs the engine's loop, and keeps what it learned of files.
    ///
    /// # Errors
    /// If there are no threads to be had, or the file index cannot be written.
    pub fn drive(&self, options: &Options, emit: &mut dyn FnMut(Event)) -> Result<Summary, CommandError> {
        if self.store.is_read_only() && !options.preview {
            let root = self.store.root().display();
            tell(&format!(
                "warning: the store {root} cannot be written to: what is in it is used, and nothing is added"
            ));
        }
        let last_key = |id| self.last.get(&self.pipeline.graph.node(id).name)?.key();
        let last_keys: Vec<Option<Key>> = self.pipeline.graph.ids().map(last_key).collect();
        let answers = self.pipeline.answers()?;
        let keyed = answers.as_ref().map(|answers| self.pipeline.keyed_graph(answers));
        let project = &*self.pipeline.project;
        let kept = KeptSources { project, store: &self.store, kept: &self.kept };
        // A preview changes nothing.
        let keeps = self.pipeline.file.store.keep_sources && !options.preview;
        let watched = Watched { sources: if keeps { &kept } else { project }, seen: &self.sources };
        let session = Session {
            graph: keyed.as_ref().unwrap_or(&self.pipeline.graph),
            store: &self.store,
            ledger: &self.ledger,
            claims: &self.claims,
            sources: &watched,
            last_keys: &last_keys,
            clock: &WallClock(self.begun),
        };
        let summary = session.run(options, emit).map_err(CommandError::failed)?;
        if !options.preview {
            // No command may have run, which does this first.
            WorkFolders::sweep(&self.pipeline.project.work());
        }
        self.pipeline.project.index.save().map_err(CommandError::failed)?;
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        Ok(summary)
    }

    /// Makes the outs in the project durable: those that this run has put there, and, if another run may have left some that
    /// are not, all of them.
    ///
    /// # Errors
    /// If something cannot be synced.
    pub fn settle_outs(&self, finished: &BTreeMap<NodeId, Key>) -> Result<(), CommandError> {
        let (graph, project) = (&self.pipeline.graph, &self.pipeline.project);
        let placing = || graph.ids().filter(|id| graph.node(*id).stage.outs.is_some());
        let sync_all = || {
            let outs = placing().flat_map(|id| &graph.node(id).stage.outputs);
            // The project's too, whatever it has for outs by now.
            let outs = outs.map(|port| project.root.join(&port.name)).chain([project.root.join(&project.file)]);
            self.store.sync_file_systems(&outs.collect()).map_err(io::Error::other)
        };
        // Those of other nodes are not what they may seem to be.
        let some_stay = project.unsynced.is_distrusted && !placing().all(|id| finished.contains_key(&id));
        let settle = || if some_stay { Ok(()) } else { project.unsynced.settle(sync_all) };
        let synced = self.store.commit_restored().map_err(io::Error::other).and_then(|()| settle());
        synced.map_err(|error| {
            let noted = project.unsynced.distrust().err().map(|error| format!("; nor can that be noted: {error}"));
            let hint = "what ran is recorded, and need not run again; the next run puts all outs in place anew";
            let noted = noted.unwrap_or_default();
            CommandError::Failed(format!("outs may not outlast a power cut: {error}{noted}"), vec![hint.into()])
        })
    }

    /// Keeps what a run looked at that found everything cached and put nothing in place, so that the next need not.
    pub fn keep_unchanged(&self, targets: &[String], outs: &[(PathBuf, Artifact)], run: &str, summary: &Summary) {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let (pipeline, store, answers, sources) = (&self.pipeline, &*self.store, answers.as_ref(), &*sources);
        CachedRun { pipeline, store, targets, answers, sources, outs, run, summary }.keep();
    }

    /// Remembers in the store what the pipeline's nodes are now, so that a collection keeps it: those that have
    /// `finished` by their new keys, the others by their last.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn remember_use(&self, finished: &BTreeMap<NodeId, Key>) -> Result<(), CommandError> {
        if self.store.is_read_only() {
            return Ok(());
        }
        let graph = &self.pipeline.graph;
        let last = |id: &NodeId| self.last.get(&graph.node(*id).name).and_then(NodeLine::key);
        let keys = graph.ids().filter_map(|id| finished.get(&id).copied().or_else(|| last(&id)));
        let user = self.pipeline.project.root.to_string_lossy();
        let mut blobs = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The sources of the other nodes, which this run may not have looked at.
        if !graph.ids().all(|id| finished.contains_key(&id)) {
            blobs.extend(self.store.last_used_blobs(&user).map_err(CommandError::failed)?);
        }
        let set = UsedSet { keys: keys.map(|key| key.0).collect(), blobs };
        self.store.use_now(&user, &set).map_err(CommandError::failed)
    }

    /// What a source was when it was last looked at.
    pub fn source(&self, path: &Path, without: &[PathBuf]) -> Option<Artifact> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(&(path.to_owned(), without.to_vec())).cloned()
    }

    /// Seconds since the workspace was opened.
    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// What those nodes of a preview that may run cost when they last ran, in seconds; read together, as there may be many.
    pub fn costs(&self, previews: &[(NodeId, Previewed)]) -> BTreeMap<NodeId, f64> {
        let may_run = |preview: &Preview| matches!(preview, Preview::Stale(_) | Preview::Maybe(_));
        let ids = previews.iter().filter(|(_, previewed)| may_run(&previewed.preview)).map(|(id, _)| *id);
        let last = |id: NodeId| Some((id, self.last.get(&self.pipeline.graph.node(id).name)?.key()?.0));
        let keys: Vec<(NodeId, Digest)> = ids.filter_map(last).collect();
        let wanted: Vec<Option<Digest>> = keys.iter().map(|(_, key)| Some(*key)).collect();
        let made = self.ledger.load(&wanted).into_iter().zip(&keys);
        // Several nodes may have one key.
        let seconds: BTreeMap<Digest, f64> = made.filter_map(|(made, (_, key))| Some((*key, made?.seconds))).collect();
        keys.iter().filter_map(|(id, key)| Some((*id, *seconds.get(key)?))).collect()
    }

    /// What a run with these options would do with each node, in the graph's order.
    ///
    /// # Errors
    /// If there are no threads to be had, or the file index cannot be written.
    pub fn previews(&self, options: &Options) -> Result<Vec<(NodeId, Previewed)>, CommandError> {
        let mut found = vec![None; self.pipeline.graph.len()];
        self.drive(options, &mut |event| {
            if let Event::Previewed { node, preview, key, outputs } = event {
                found[node.0] = Some(Previewed { preview, key, outputs });
            }
        })?;
        let order = self.pipeline.graph.order().iter();
        Ok(order.filter_map(|id| Some((*id, found[id.0].take()?))).collect())
    }

    /// The outputs of nodes as they are now; of one that is not up to date, those of its last finish, which is said.
    ///
    /// # Errors
    /// If a node has never finished.
    pub fn outputs(&self, nodes: &[NodeId]) -> Result<Vec<Vec<OutputLine>>, CommandError> {
        let options = Options { targets: nodes.to_vec(), jobs: 1, preview: true, ..Options::default() };
        let previews: BTreeMap<NodeId, Previewed> = self.previews(&options)?.into_iter().collect();
        nodes.iter().map(|id| self.outputs_of(*id, previews.get(id))).collect()
    }

    fn outputs_of(&self, id: NodeId, previewed: Option<&Previewed>) -> Result<Vec<OutputLine>, CommandError> {
        let node = self.pipeline.graph.node(id);
        if let Some(Previewed { outputs, .. }) = previewed.filter(|previewed| !previewed.outputs.is_empty()) {
            return Ok(node
                .stage
                .outputs
                .iter()
                .zip(outputs)
                .map(|(port, output)| OutputLine::new(port, output))
                .collect());
        }
        let name = &node.name;
        let Some(last) = self.last.get(name) else {
            let hint = format!("run it first: headwater run {}", shell_argument(name));
            return Err(CommandError::Usage(format!("`{name}` has not run yet"), vec![hint]));
        };
        tell(&format!("warning: `{name}` is not up to date; this is what it gave when it last ran"));
        Ok(last.outputs.clone())
    }

    /// The artifact that a `REF` names: `stage[axis=label,…].output`, the output left out where there is one, or a
    /// digest's prefix.
    ///
    /// # Errors
    /// If it names nothing, or several artifacts.
    pub fn artifact(&self, reference: &str) -> Result<Found, CommandError> {
        let Some(id) = self.node_named(reference)? else {
            return self.by_prefix(reference);
        };
        let (_, output) = split_output(reference);
        let name = &self.pipeline.graph.node(id).name;
        let outputs = self.outputs(&[id])?.remove(0);
        let (port, artifact) = choose_output(name, &outputs, output.as_deref())?;
        Ok(Found { artifact, reference: format!("{name}.{port}"), node: Some(id) })
    }

    /// The node of a `REF`; none if that is a digest's prefix.
    ///
    /// # Errors
    /// If it names no node, or several.
    pub fn node_named(&self, reference: &str) -> Result<Option<NodeId>, CommandError> {
        if is_digest(reference) && !self.pipeline.file.stages.iter().any(|stage| stage.name.name == reference) {
            return Ok(None);
        }
        self.pipeline.one_node(&split_output(reference).0).map(Some)
    }

    /// A source that a run has kept, by the beginning of its digest.
    ///
    /// # Errors
    /// If the store cannot be searched, or has several of such a beginning.
    pub fn kept_source(&self, prefix: &str) -> Result<Option<Kept>, CommandError> {
        let found = self.store.with_prefix(&prefix.to_ascii_lowercase()).map_err(CommandError::failed)?;
        match found.as_slice() {
            [] => Ok(None),
            [digest] => Kept::of(&self.store, *digest).map_err(CommandError::failed),
            several => {
                let names = several.iter().map(Digest::to_string).collect();
                Err(CommandError::Usage(format!("`{prefix}` is the beginning of several digests"), names))
            }
        }
    }

    fn by_prefix(&self, prefix: &str) -> Result<Found, CommandError> {
        let found = History::of(&self.pipeline.project.state).outputs_beginning_with(&prefix.to_ascii_lowercase());
        match found.as_slice() {
            [(reference, output)] => {
                let node = self.pipeline.graph.find(&split_output(reference).0);
                Ok(Found { artifact: artifact_of(output)?, reference: reference.clone(), node })
            }
            [] => {
                // A word without a digit is more likely a stage.
                let is_word = prefix.chars().all(|character| character.is_ascii_alphabetic());
                let named = if is_word { self.pipeline.one_node(prefix).map(drop) } else { Ok(()) };
                let text = format!("no stage is named `{prefix}`, and nothing that runs have made has such a digest");
                Err(named.err().unwrap_or_else(|| CommandError::usage(text)))
            }
            several => {
                let names: Vec<String> =
                    several.iter().map(|(name, output)| format!("{} {name}", output.digest)).collect();
                Err(CommandError::Usage(format!("`{prefix}` is the beginning of several digests"), names))
            }
        }
    }
}

/// Whether a word may be the beginning of a digest.
pub fn is_digest(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_hexdigit()) && word.len() >= 4
}

/// What would become of a node.
#[derive(Debug, Clone)]
pub struct Previewed {
    pub preview: Preview,
    /// If it can be told.
    pub key: Option<Key>,
    /// In the order of the stage's output ports; empty unless it is cached.
    pub outputs: Vec<Artifact>,
}

/// An artifact, and what it is called.
pub struct Found {
    pub artifact: Artifact,
    pub reference: String,
    pub node: Option<NodeId>,
}

fn choose_output(node: &str, outputs: &[OutputLine], wanted: Option<&str>) -> Result<(String, Artifact), CommandError> {
    let found = match (wanted, outputs) {
        (None, [one]) => Some(one),
        // A model's or table's evaluation is asked for more often than what stands beside it.
        (None, several) => several.iter().find(|output| output.type_name == "metrics"),
        (Some(name), several) => several.iter().find(|output| output.port == name),
    };
    let found = found.ok_or_else(|| {
        let names: Vec<String> = outputs.iter().map(|output| format!("{node}.{}", output.port)).collect();
        let text = match wanted {
            Some(wanted) => format!("`{node}` has no output `{wanted}`"),
            None => format!("`{node}` has several outputs; choose one"),
        };
        CommandError::Usage(text, vec![names.join(", ")])
    })?;
    Ok((found.port.clone(), artifact_of(found)?))
}

/// The artifact that a journal's line tells of.
///
/// # Errors
/// If the line's digest is none.
pub fn artifact_of(output: &OutputLine) -> Result<Artifact, CommandError> {
    let digest: Digest = output.digest.parse().map_err(CommandError::failed)?;
    let shape = if output.tree { Shape::Tree } else { Shape::Blob };
    Ok(Artifact { type_name: output.type_name.clone(), shape, digest, bytes: output.bytes })
}

/// `stage[axis=a.b].output` -> node and output; a dot inside the brackets belongs to a label.
pub fn split_output(reference: &str) -> (String, Option<String>) {
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
