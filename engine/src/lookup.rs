//! What a node reads now, the key that makes, and what there is for it.
//!
//! It changes nothing of the plan. A key is made when all that a node reads is done with outputs.

use headwater_cache::{Artifact, Digest, Entry, Made, Tree};

use crate::compose::compose;
use crate::coordinator::Run;
use crate::event::Reason;
use crate::graph::{Input, NodeId, Source};
use crate::known::{Found, Hit, Inputs};
use crate::manifest::{Key, Manifest, text_of};
use crate::run::SourceError;
use crate::stage::{Bound, Failure, Selection, Stage};
use crate::worker::guarded;

impl<'s> Run<'s, '_> {
    /// The node's inputs as they are now, and the manifest they make.
    pub(crate) fn bind(&mut self, node: usize) -> Result<Inputs, Failure> {
        let graph = self.session.graph;
        let inputs = graph.inputs(NodeId(node));
        let mut bound = Vec::with_capacity(inputs.len());
        for input in inputs {
            bound.push(self.bind_one(input)?);
        }
        let stage = self.stage(node);
        let selections = guarded(|| (stage.reads)(&bound))?;
        for (input, selection) in bound.iter_mut().zip(selections) {
            input.selection = selection;
        }
        let manifest = text_of(stage, &bound);
        let key = Key(Digest::of(manifest.as_bytes()));
        Ok(Inputs { bound, manifest, key })
    }

    fn bind_one(&mut self, input: &Input) -> Result<Bound, Failure> {
        let (port, label, selection) = (input.port.clone(), input.label.clone(), Selection::All);
        match &input.source {
            Source::File { path, without } => {
                let look = &self.looked[&(path.clone(), without.clone())];
                let state = look.clone().map_err(Failure::new)?;
                Ok(Bound {
                    port,
                    label,
                    artifact: state.artifact,
                    tree: state.tree,
                    path: Some(path.clone()),
                    selection,
                })
            }
            Source::Output { node, output, entry } => {
                let whole = self.known[node.0].outputs[*output].clone();
                let artifact = match entry {
                    None => whole,
                    Some(entry) => self.entry_of(&whole, entry)?,
                };
                let tree = self.trees.of(&artifact)?;
                Ok(Bound { port, label, artifact, tree, path: None, selection })
            }
        }
    }

    /// A file or folder inside a directory artifact, whose entries are named by their paths in it.
    fn entry_of(&mut self, directory: &Artifact, name: &str) -> Result<Artifact, Failure> {
        let Some(tree) = self.trees.of(directory)? else {
            return Err(Failure::new(SourceError(format!("`{name}` is in no folder: the stage made a file"))));
        };
        if let Some(Entry { type_name, shape, digest, bytes, .. }) = tree.entry(name).cloned() {
            return Ok(Artifact { type_name, shape, digest, bytes });
        }
        let within = |entry: &Entry| {
            let rest = entry.name.strip_prefix(name)?.strip_prefix('/')?;
            Some(Entry { name: rest.to_owned(), ..entry.clone() })
        };
        let entries: Vec<Entry> = tree.entries.iter().filter_map(within).collect();
        if entries.is_empty() {
            return Err(Failure::new(SourceError(format!("the folder has no file `{name}`"))));
        }
        self.trees.put(&directory.type_name, Tree { header: tree.header.clone(), entries })
    }

    /// The outputs that there are for a key, composed over the present inputs; else what of them is lost, if any. A
    /// node that is forced does not look.
    pub(crate) fn look_up(&mut self, node: usize, key: Key, bound: &[Bound], forced: bool) -> Result<Found, Failure> {
        let (session, stage) = (self.session, self.stage(node));
        if forced {
            return Ok(Found::Miss(None));
        }
        let unrecorded = self.unrecorded.get(&key).map(|(_, record)| (record.outputs.clone(), record.seconds));
        let durable = unrecorded.is_none() && stage.outputs.iter().all(|port| port.passes.is_none());
        let Some((outputs, seconds)) = unrecorded.or_else(|| self.recorded(node, key)) else {
            return Ok(Found::Miss(None));
        };
        let Some(given) = given(stage, outputs) else { return Ok(Found::Miss(None)) };
        if let Some(lost) = given.iter().find(|artifact| !session.store.holds(artifact)) {
            return Ok(Found::Miss(Some(lost.digest)));
        }
        match compose(&mut self.trees, stage, bound, given) {
            Ok(outputs) => Ok(Found::Hit(Hit { outputs, seconds, durable })),
            Err(Failure::Lost(digest)) => Ok(Found::Miss(Some(digest))),
            Err(failure) => Err(failure),
        }
    }

    /// The outputs and the cost that the last record of a key tells.
    fn recorded(&mut self, node: usize, key: Key) -> Option<(Vec<(String, Artifact)>, f64)> {
        let is_last = self.session.last_keys[node] == Some(key) && !self.computed.contains(&key);
        let recent = if is_last { self.recent.take(node) } else { None };
        recent.or_else(|| self.session.ledger.made(&key.0)).map(|Made { outputs, seconds }| (outputs, seconds))
    }

    pub(crate) fn reason(&self, node: usize, inputs: &Inputs, forced: bool, lost: Option<Digest>) -> Reason {
        if forced {
            return Reason::Forced;
        }
        if let Some(digest) = lost {
            return Reason::Lost(digest);
        }
        match self.session.last_keys[node] {
            None => Reason::New,
            Some(last) if last == inputs.key => Reason::Forgotten,
            Some(last) => {
                let now = Manifest::parse(&inputs.manifest);
                let record = self.session.ledger.get(&last.0);
                let changes = record.map(|record| now.changes_since(&Manifest::parse(&record.manifest)));
                Reason::Changed(changes.unwrap_or_default())
            }
        }
    }
}

/// What a record has for each output of a stage, in the order of the ports.
fn given(stage: &Stage, mut outputs: Vec<(String, Artifact)>) -> Option<Vec<Artifact>> {
    let mut take = |name: &str| {
        let at = outputs.iter().position(|(port, _)| port == name)?;
        Some(outputs.swap_remove(at).1)
    };
    stage.outputs.iter().map(|port| take(&port.name)).collect()
}
