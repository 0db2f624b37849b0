//! The loop: the one place where plan, store and workers meet.
//!
//! One coordinator owns the plan and all that is known of the nodes. It takes ready nodes, makes their keys and looks
//! their records up; what is not cached goes to a pool of rayon workers, each of which sends one message back. A run
//! that starts nothing is the same loop told so. It does not know what a stage does, and calls no clock of its own.
//!
//! Invariants: a record is written after its outputs are stored and before its node is reported; a node whose source
//! changed while it ran is run again once from the new content and then fails; no more jobs are handed out than the
//! pool has threads, so that a worker which waits for a library's own pool finds little to steal.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use headwater_cache::{Artifact, Digest, Entry, Ledger, Record, Shape, Store, Tree};
use rayon::prelude::*;

use crate::event::{Event, Finish, Outcome, Preview, Reason};
use crate::graph::{Graph, Input, NodeId, Source};
use crate::manifest::{Key, Manifest};
use crate::plan::{Plan, State, remaining_paths};
use crate::stage::{Bound, Failure, Job, Selection, Stage};

/// How often a node may find its inputs lost before that is a failure.
const REWINDS: u32 = 3;

/// How files of the project reach the engine.
pub trait Sources: Sync {
    /// The present content of a file or folder of the project, without the paths inside it that nodes write.
    ///
    /// # Errors
    /// If it does not exist or cannot be read; the text names it.
    fn look(&self, path: &Path, without: &[PathBuf]) -> Result<SourceState, SourceError>;
}

/// The content of a source. A folder's tree is in no store.
#[derive(Debug, Clone)]
pub struct SourceState {
    pub artifact: Artifact,
    pub tree: Option<Arc<Tree>>,
}

/// Why a source cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// What a run is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The nodes to bring up to date, with all that they need.
    pub targets: Vec<NodeId>,
    /// Nodes that run whatever their records say.
    pub forced: Vec<NodeId>,
    /// How many nodes run at once; at least one.
    pub jobs: usize,
    /// After a failure, go on with what does not need it.
    pub keep_going: bool,
    /// Say what would happen, and start nothing.
    pub preview: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    pub ran: usize,
    pub cached: usize,
    pub failed: usize,
    pub skipped: usize,
    pub cancelled: usize,
    /// Seconds that cached nodes once took.
    pub saved: f64,
}

/// All that a run works with.
pub struct Session<'a> {
    pub graph: &'a Graph,
    pub store: &'a Arc<Store>,
    pub ledger: &'a Ledger,
    pub sources: &'a dyn Sources,
    /// The key of each node's last finish, by the node's name.
    pub last_keys: &'a BTreeMap<String, Key>,
    /// Seconds since some fixed moment.
    pub clock: &'a (dyn Fn() -> f64 + Sync),
}

impl Session<'_> {
    /// Brings the targets up to date, or says what that would take.
    ///
    /// # Errors
    /// Only if no worker threads can be had: all that befalls a node is an event.
    pub fn run(&self, options: &Options, emit: &mut dyn FnMut(Event)) -> Result<Summary, rayon::ThreadPoolBuildError> {
        let jobs = options.jobs.max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build()?;
        let wanted = self.graph.closure(&options.targets);
        let looked = pool.install(|| self.look_at_sources(&wanted));
        emit(Event::Planned { nodes: wanted.iter().filter(|wanted| **wanted).count() });
        let plan = self.plan(&wanted);
        let (sender, messages) = channel();
        Ok(pool.in_place_scope(|scope| {
            let mut run = Run::new(self, options, plan, looked, sender, emit);
            run.drive(scope, &messages, jobs);
            run.summary()
        }))
    }

    fn look_at_sources(&self, wanted: &[bool]) -> BTreeMap<PathBuf, Result<SourceState, SourceError>> {
        let within = self.graph.ids().filter(|id| wanted[id.0]);
        let files = within.flat_map(|id| self.graph.inputs(id)).filter_map(|input| match &input.source {
            Source::File { path, without } => Some((path, without)),
            Source::Output { .. } => None,
        });
        let distinct: BTreeSet<_> = files.collect();
        distinct.into_par_iter().map(|(path, without)| (path.clone(), self.sources.look(path, without))).collect()
    }

    fn plan(&self, wanted: &[bool]) -> Plan {
        let producers: Vec<Vec<usize>> =
            self.graph.ids().map(|id| self.graph.producers(id).into_iter().map(|id| id.0).collect()).collect();
        let order: Vec<usize> = self.graph.order().iter().map(|id| id.0).collect();
        let costs: Vec<u64> = self.graph.ids().map(|id| self.last_cost(id)).collect();
        let priorities = remaining_paths(&order, &producers, &costs);
        Plan::new(&producers, wanted, priorities)
    }

    /// Microseconds that the node took when it last ran; a second if that is not known.
    fn last_cost(&self, id: NodeId) -> u64 {
        let key = self.last_keys.get(&self.graph.node(id).name);
        let record = key.and_then(|key| self.ledger.get(&key.0));
        record.map_or(1_000_000, |record| (record.seconds * 1e6) as u64)
    }
}

/// What a worker sends back.
struct Message {
    node: usize,
    seconds: f64,
    result: Result<Vec<Artifact>, Ending>,
    restored: bool,
}

/// Why a worker has no outputs.
enum Ending {
    Failure(Failure),
    /// This source is not what the key was made from.
    SourceChanged(PathBuf),
}

/// What is known of a node while a run goes on.
#[derive(Default, Clone)]
struct Known {
    /// What consumers see; set when it is done.
    outputs: Vec<Artifact>,
    key: Option<Key>,
    reason: Option<Reason>,
    saved: f64,
    rewinds: u32,
    /// It has been run again because a source changed.
    rerun: bool,
    /// In a preview: it would run, or may.
    stale: bool,
}

/// A run under way; owned by the coordinator.
struct Run<'s, 'e> {
    session: &'s Session<'s>,
    options: &'s Options,
    plan: Plan,
    looked: BTreeMap<PathBuf, Result<SourceState, SourceError>>,
    known: Vec<Known>,
    /// Keys being computed, with the nodes that wait for the same key.
    in_flight: BTreeMap<Key, Vec<usize>>,
    /// Trees composed here that a preview does not store.
    composed: BTreeMap<Digest, Arc<Tree>>,
    running: usize,
    stopping: bool,
    sender: Sender<Message>,
    emit: &'e mut dyn FnMut(Event),
}

impl<'s, 'e> Run<'s, 'e> {
    fn new(
        session: &'s Session<'s>,
        options: &'s Options,
        plan: Plan,
        looked: BTreeMap<PathBuf, Result<SourceState, SourceError>>,
        sender: Sender<Message>,
        emit: &'e mut dyn FnMut(Event),
    ) -> Self {
        let known = vec![Known::default(); session.graph.len()];
        let (in_flight, composed) = (BTreeMap::new(), BTreeMap::new());
        Self { session, options, plan, looked, known, in_flight, composed, running: 0, stopping: false, sender, emit }
    }

    fn drive(&mut self, scope: &rayon::Scope<'s>, messages: &Receiver<Message>, jobs: usize) {
        loop {
            while self.running < jobs && !self.stopping {
                let Some(node) = self.plan.next() else { break };
                self.visit(node, scope);
            }
            if self.stopping {
                self.cancel();
            }
            if self.plan.is_done() {
                return;
            }
            let message = messages.recv().expect("the coordinator holds a sender, and a job is running");
            self.running -= 1;
            self.receive(message);
        }
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (node, known) in self.known.iter().enumerate() {
            match self.plan.state(node) {
                State::Done(Outcome::Ran) => summary.ran += 1,
                State::Done(Outcome::Cached) => {
                    summary.cached += 1;
                    summary.saved += known.saved;
                }
                State::Done(Outcome::Failed) => summary.failed += 1,
                State::Done(Outcome::Skipped) => summary.skipped += 1,
                State::Done(Outcome::Cancelled) => summary.cancelled += 1,
                State::Unwanted | State::Waiting(_) | State::Ready | State::Running => {}
            }
        }
        summary
    }

    /// Decides about a ready node: cached, started, parked behind an equal key, or failed.
    fn visit(&mut self, node: usize, scope: &rayon::Scope<'s>) {
        if self.options.preview && self.preview_below_stale(node) {
            return;
        }
        let (bound, manifest) = match self.bind(node) {
            Ok(bound) => bound,
            Err(error) => return self.fail(node, 0.0, error),
        };
        let key = manifest.key();
        self.known[node].key = Some(key);
        if let Some(parked) = self.in_flight.get_mut(&key) {
            parked.push(node);
            return;
        }
        let forced = self.options.forced.contains(&NodeId(node)) && self.known[node].reason.is_none();
        let reason = if forced {
            Reason::Forced
        } else {
            match self.look_up(node, key, &bound) {
                Ok(found) => return self.hit(node, key, found, scope),
                Err(lost) => self.reason(node, key, &manifest, lost),
            }
        };
        self.known[node].reason = Some(reason.clone());
        if self.options.preview {
            return self.preview(node, Preview::Stale(reason));
        }
        self.in_flight.insert(key, Vec::new());
        (self.emit)(Event::Started { node: NodeId(node), reason });
        self.start(node, bound, manifest, scope);
    }

    fn stage(&self, node: usize) -> &'s Stage {
        &self.session.graph.node(NodeId(node)).stage
    }

    /// The node's inputs as they are now, and the manifest they make.
    fn bind(&mut self, node: usize) -> Result<(Vec<Bound>, Manifest), Failure> {
        let graph = self.session.graph;
        let mut bound = Vec::new();
        for input in graph.inputs(NodeId(node)) {
            bound.push(self.bind_one(input)?);
        }
        let stage = self.stage(node);
        let selections = (stage.reads)(&bound)?;
        for (input, selection) in bound.iter_mut().zip(selections) {
            input.selection = selection;
        }
        let manifest = Manifest::of(stage, &bound);
        Ok((bound, manifest))
    }

    fn bind_one(&mut self, input: &Input) -> Result<Bound, Failure> {
        let (port, label, selection) = (input.port.clone(), input.label.clone(), Selection::All);
        match &input.source {
            Source::File { path, .. } => {
                let state = match self.looked.get(path) {
                    Some(Ok(state)) => state.clone(),
                    Some(Err(error)) => return Err(Failure::new(error.clone())),
                    None => return Err(Failure::new(SourceError(format!("{} was not looked at", path.display())))),
                };
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
                let tree = self.tree(&artifact)?;
                Ok(Bound { port, label, artifact, tree, path: None, selection })
            }
        }
    }

    /// A file or folder inside a directory artifact, whose entries are named by their paths.
    fn entry_of(&mut self, directory: &Artifact, name: &str) -> Result<Artifact, Failure> {
        let missing = || Failure::new(SourceError(format!("the folder has no file `{name}`")));
        let tree = self.tree(directory)?.ok_or_else(missing)?;
        if let Some(entry) = tree.entry(name) {
            let (type_name, shape, digest, bytes) = (entry.type_name.clone(), entry.shape, entry.digest, entry.bytes);
            return Ok(Artifact { type_name, shape, digest, bytes });
        }
        let below = |entry: &Entry| entry.name.strip_prefix(name)?.strip_prefix('/').map(str::to_owned);
        let renamed = |entry: &Entry| Some(Entry { name: below(entry)?, ..entry.clone() });
        let entries: Vec<Entry> = tree.entries.iter().filter_map(renamed).collect();
        if entries.is_empty() {
            return Err(missing());
        }
        self.keep_tree(Tree { header: tree.header.clone(), entries }, &directory.type_name)
    }

    /// A tree made here, as an artifact; a preview stores nothing.
    fn keep_tree(&mut self, tree: Tree, type_name: &str) -> Result<Artifact, Failure> {
        let digest = if self.options.preview {
            Digest::of(&tree.encode().map_err(Failure::new)?)
        } else {
            self.session.store.put_tree(&tree)?
        };
        let bytes = tree.bytes();
        self.composed.insert(digest, Arc::new(tree));
        Ok(Artifact { type_name: type_name.into(), shape: Shape::Tree, digest, bytes })
    }

    fn tree(&self, artifact: &Artifact) -> Result<Option<Arc<Tree>>, Failure> {
        if artifact.shape == Shape::Blob {
            return Ok(None);
        }
        match self.composed.get(&artifact.digest) {
            Some(tree) => Ok(Some(tree.clone())),
            None => Ok(Some(self.session.store.get_tree(&artifact.digest)?)),
        }
    }

    /// The outputs that the ledger has for a key, composed over the present inputs; else what of them is lost, if any.
    fn look_up(&mut self, node: usize, key: Key, bound: &[Bound]) -> Result<(Vec<Artifact>, f64), Option<Digest>> {
        let record = self.session.ledger.get(&key.0).ok_or(None)?;
        let mut outputs = Vec::new();
        for port in &self.stage(node).outputs {
            let found = record.outputs.iter().find(|(name, _)| *name == port.name).ok_or(None)?;
            if !self.session.store.holds(&found.1) {
                return Err(Some(found.1.digest));
            }
            outputs.push(found.1.clone());
        }
        match self.compose(node, bound, outputs) {
            Ok(outputs) => Ok((outputs, record.seconds)),
            Err(Failure::Lost(digest)) => Err(Some(digest)),
            Err(Failure::Error(_)) => Err(None),
        }
    }

    /// Lays what a stage gave for a passing output over the entries of the input that it passes on.
    fn compose(&mut self, node: usize, bound: &[Bound], outputs: Vec<Artifact>) -> Result<Vec<Artifact>, Failure> {
        let ports = &self.stage(node).outputs;
        let mut composed = Vec::with_capacity(outputs.len());
        for (port, artifact) in ports.iter().zip(outputs) {
            let passed = port.passes.as_ref().and_then(|passed| bound.iter().find(|input| input.port == *passed));
            composed.push(match passed.and_then(|input| input.tree.clone()) {
                Some(base) => self.compose_one(&base, &artifact)?,
                None => artifact,
            });
        }
        Ok(composed)
    }

    fn compose_one(&mut self, base: &Tree, patch: &Artifact) -> Result<Artifact, Failure> {
        let Some(over) = self.tree(patch)? else { return Ok(patch.clone()) };
        let mut entries: Vec<Entry> =
            base.entries.iter().map(|entry| over.entry(&entry.name).unwrap_or(entry).clone()).collect();
        entries.extend(over.entries.iter().filter(|entry| base.entry(&entry.name).is_none()).cloned());
        self.keep_tree(Tree { header: over.header.clone(), entries }, &patch.type_name)
    }

    fn reason(&self, node: usize, key: Key, manifest: &Manifest, lost: Option<Digest>) -> Reason {
        if let Some(digest) = lost {
            return Reason::Lost(digest);
        }
        match self.session.last_keys.get(&self.session.graph.node(NodeId(node)).name) {
            None => Reason::New,
            Some(last) if *last == key => Reason::Forgotten,
            Some(last) => {
                let record = self.session.ledger.get(&last.0);
                let changes = record.map(|record| manifest.changes_since(&Manifest::parse(&record.manifest)));
                Reason::Changed(changes.unwrap_or_default())
            }
        }
    }

    fn hit(&mut self, node: usize, key: Key, found: (Vec<Artifact>, f64), scope: &rayon::Scope<'s>) {
        let (outputs, saved) = found;
        self.known[node].saved = saved;
        let in_place = match &self.stage(node).outs {
            Some(outs) => outs.in_place(&outputs),
            None => Ok(true),
        };
        match in_place {
            Err(failure) => self.fail(node, 0.0, failure),
            Ok(true) if self.options.preview => {
                self.known[node].outputs = outputs;
                self.preview(node, Preview::Cached);
            }
            Ok(true) => self.succeed(node, Outcome::Cached, 0.0, outputs, false),
            Ok(false) if self.options.preview => {
                self.known[node].outputs = outputs;
                self.preview(node, Preview::Restore);
            }
            Ok(false) => {
                self.in_flight.insert(key, Vec::new());
                self.start_restore(node, outputs, scope);
            }
        }
    }

    fn start_restore(&mut self, node: usize, outputs: Vec<Artifact>, scope: &rayon::Scope<'s>) {
        let (session, stage, sender) = (self.session, self.stage(node), self.sender.clone());
        self.running += 1;
        scope.spawn(move |_| {
            let outs = stage.outs.as_ref().expect("only a stage with outs is restored");
            let begun = (session.clock)();
            let restored = outs.restore(session.store, &outputs);
            let result = restored.map(|()| outputs).map_err(Ending::Failure);
            let seconds = (session.clock)() - begun;
            // The coordinator outlives the scope, so its receiver is there.
            let _ = sender.send(Message { node, seconds, result, restored: true });
        });
    }

    fn start(&mut self, node: usize, bound: Vec<Bound>, manifest: Manifest, scope: &rayon::Scope<'s>) {
        let (session, sender) = (self.session, self.sender.clone());
        self.running += 1;
        scope.spawn(move |_| {
            let begun = (session.clock)();
            let result = session.execute(NodeId(node), &bound, &manifest, begun);
            let seconds = (session.clock)() - begun;
            let _ = sender.send(Message { node, seconds, result, restored: false });
        });
    }

    fn receive(&mut self, message: Message) {
        let Message { node, seconds, result, restored } = message;
        let outcome = if restored { Outcome::Cached } else { Outcome::Ran };
        let key = self.known[node].key;
        match result {
            Ok(outputs) if restored => self.succeed(node, outcome, seconds, outputs, true),
            Ok(outputs) => {
                let composed = self.bind(node).and_then(|(bound, _)| self.compose(node, &bound, outputs));
                match composed {
                    Ok(outputs) => self.succeed(node, outcome, seconds, outputs, false),
                    Err(failure) => self.fail(node, seconds, failure),
                }
            }
            Err(Ending::SourceChanged(path)) => self.source_changed(node, seconds, &path),
            // Damage is found by reading and moves the bytes away, so that the record is a miss by now.
            Err(Ending::Failure(Failure::Lost(_))) if restored && self.known[node].rewinds < REWINDS => {
                self.known[node].rewinds += 1;
                self.plan.put_back(node);
            }
            Err(Ending::Failure(Failure::Lost(digest))) => self.lost(node, seconds, digest),
            Err(Ending::Failure(failure)) => self.fail(node, seconds, failure),
        }
        for parked in key.and_then(|key| self.in_flight.remove(&key)).unwrap_or_default() {
            self.plan.put_back(parked);
        }
    }

    fn source_changed(&mut self, node: usize, seconds: f64, path: &Path) {
        if std::mem::replace(&mut self.known[node].rerun, true) {
            let text =
                format!("{} changed while it was read, twice; let it come to rest and run again", path.display());
            return self.fail(node, seconds, Failure::new(SourceError(text)));
        }
        let inputs = self.session.graph.inputs(NodeId(node)).iter();
        let without = inputs.filter_map(|input| match &input.source {
            Source::File { path: at, without } if at == path => Some(without.clone()),
            _ => None,
        });
        let without = without.last().unwrap_or_default();
        self.looked.insert(path.to_owned(), self.session.sources.look(path, &without));
        self.plan.put_back(node);
    }

    /// An input's bytes are gone: the node that made them runs again first.
    fn lost(&mut self, node: usize, seconds: f64, digest: Digest) {
        self.known[node].rewinds += 1;
        let chain = self.makers(node, digest);
        if chain.is_empty() || self.known[node].rewinds > REWINDS {
            let text = format!("the bytes {digest} are missing or damaged, and no stage makes them");
            return self.fail(node, seconds, Failure::new(SourceError(text)));
        }
        for (consumer, producer) in chain.into_iter().rev() {
            self.plan.rewind(consumer, producer);
        }
    }

    /// The edges from a node up to the one that made these bytes, through nodes that only pass them on.
    fn makers(&self, node: usize, digest: Digest) -> Vec<(usize, usize)> {
        let mut chain = Vec::new();
        let mut consumer = node;
        while let Some(producer) = self.source_of(consumer, digest) {
            chain.push((consumer, producer));
            consumer = producer;
        }
        chain
    }

    fn source_of(&self, node: usize, digest: Digest) -> Option<usize> {
        let inputs = self.session.graph.inputs(NodeId(node)).iter();
        inputs
            .filter_map(|input| match input.source {
                Source::Output { node, output, .. } => Some((node.0, output)),
                Source::File { .. } => None,
            })
            .find(|(producer, output)| {
                let artifact = self.known[*producer].outputs.get(*output);
                artifact.is_some_and(|artifact| self.contains(artifact, digest))
            })
            .map(|(producer, _)| producer)
    }

    fn contains(&self, artifact: &Artifact, digest: Digest) -> bool {
        artifact.digest == digest
            || self.tree(artifact).ok().flatten().is_some_and(|tree| tree.entries.iter().any(|e| e.digest == digest))
    }

    fn succeed(&mut self, node: usize, outcome: Outcome, seconds: f64, outputs: Vec<Artifact>, restored: bool) {
        self.known[node].outputs = outputs;
        self.finish(node, outcome, seconds, restored, None);
    }

    fn fail(&mut self, node: usize, seconds: f64, failure: Failure) {
        let error = match failure {
            Failure::Error(error) => error.to_string(),
            Failure::Lost(digest) => format!("the bytes {digest} are missing or damaged"),
        };
        if self.options.preview {
            return self.preview(node, Preview::Failed(error));
        }
        self.finish(node, Outcome::Failed, seconds, false, Some(error));
        self.stopping |= !self.options.keep_going;
    }

    /// Ends what has not begun; called again after each message, as nodes may be put back meanwhile.
    fn cancel(&mut self) {
        for node in self.plan.cancel() {
            self.report(node, Outcome::Cancelled, 0.0, false, None);
        }
    }

    fn finish(&mut self, node: usize, outcome: Outcome, seconds: f64, restored: bool, error: Option<String>) {
        let skipped = self.plan.finish(node, outcome);
        self.report(node, outcome, seconds, restored, error);
        let name = &self.session.graph.node(NodeId(node)).name;
        for below in skipped {
            self.report(below, Outcome::Skipped, 0.0, false, Some(format!("`{name}` failed")));
        }
    }

    fn report(&mut self, node: usize, outcome: Outcome, seconds: f64, restored: bool, error: Option<String>) {
        let known = &self.known[node];
        let finish = Finish {
            node: NodeId(node),
            outcome,
            reason: known.reason.clone().filter(|_| outcome != Outcome::Cached),
            key: known.key,
            seconds,
            saved: if outcome == Outcome::Cached { known.saved } else { 0.0 },
            outputs: known.outputs.clone(),
            restored,
            error,
        };
        (self.emit)(Event::Finished(finish));
    }

    /// In a preview, a node below one that would run cannot be told.
    fn preview_below_stale(&mut self, node: usize) -> bool {
        let producers = self.session.graph.producers(NodeId(node));
        let stale: Vec<NodeId> = producers.into_iter().filter(|id| self.known[id.0].stale).collect();
        if stale.is_empty() {
            return false;
        }
        let forced = self.options.forced.contains(&NodeId(node));
        let preview = if forced { Preview::Stale(Reason::Forced) } else { Preview::Maybe(Reason::Unknown(stale)) };
        self.preview(node, preview);
        true
    }

    fn preview(&mut self, node: usize, preview: Preview) {
        self.known[node].stale = !matches!(preview, Preview::Cached | Preview::Restore);
        let key = self.known[node].key;
        (self.emit)(Event::Previewed { node: NodeId(node), preview, key });
        self.plan.finish(node, Outcome::Cached);
    }
}

impl Session<'_> {
    /// Runs on a worker: the stage's function, then the checks, then the record.
    fn execute(&self, id: NodeId, bound: &[Bound], manifest: &Manifest, begun: f64) -> Result<Vec<Artifact>, Ending> {
        let node = self.graph.node(id);
        let job = Job { node: &node.name, store: self.store, inputs: bound };
        let result = catch_unwind(AssertUnwindSafe(|| (node.stage.run)(&job)));
        let outputs = result.unwrap_or_else(|panic| Err(Failure::new(SourceError(panic_text(&*panic)))));
        // A torn read may have been the cause of a failure as well as of a result.
        self.check_sources(id, bound)?;
        let outputs = outputs.map_err(Ending::Failure)?;
        if let Some(outs) = &node.stage.outs {
            outs.restore(self.store, &outputs).map_err(Ending::Failure)?;
        }
        let names = node.stage.outputs.iter().map(|port| port.name.clone());
        let record = Record {
            outputs: names.zip(outputs.iter().cloned()).collect(),
            manifest: manifest.text(),
            seconds: (self.clock)() - begun,
        };
        self.ledger.append(&manifest.key().0, &record).map_err(|error| Ending::Failure(Failure::new(error)))?;
        Ok(outputs)
    }

    fn check_sources(&self, id: NodeId, bound: &[Bound]) -> Result<(), Ending> {
        for (input, bound) in self.graph.inputs(id).iter().zip(bound) {
            let Source::File { path, without } = &input.source else { continue };
            let now = self.sources.look(path, without);
            if now.map(|state| state.artifact.digest).ok() != Some(bound.artifact.digest) {
                return Err(Ending::SourceChanged(path.clone()));
            }
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the stage panicked: {}", text.unwrap_or("without a message"))
}
