//! The loop: the one place where plan, store and workers meet.
//!
//! One coordinator owns the plan and all that is known of the nodes. It takes ready nodes, makes their keys and looks
//! their records up; what is not cached is claimed, so that no other process computes it too, and goes to a pool of rayon
//! workers, each of which sends one message back. What they made goes to the committer. A run that starts nothing is the
//! same loop told so. It does not know what a stage does, and has no clock of its own.
//!
//! A node that has its outputs is done at once for the nodes that read it. It is *settled*, and its end told, only when
//! the outputs and their record are durable. What follows from outputs that are not durable yet waits with its own end,
//! so a node is told as done with outputs after all that it reads. If a commit fails, every node that is not settled
//! fails, and the run ends.
//!
//! Invariants: a node is visited only while all that it reads is done with outputs, and ends as what follows from
//! these; of nodes with one key one runs at a time, in all processes that share the store; a node whose sources changed
//! while it ran is run again once from the new content and then fails; no more jobs are handed out than the pool has
//! threads, so that a worker which waits for a library's own pool finds little to steal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use headwater_cache::{Artifact, Claim, Claims, Digest, DiskError, Entry, Ledger, Record, Shape, Store, Tree};
use rayon::prelude::*;

use crate::committer::{Committer, Item};
use crate::compose::{Trees, compose};
use crate::event::{Event, Finish, Outcome, Preview, Reason};
use crate::graph::{Graph, Input, NodeId, Source};
use crate::manifest::{Key, Manifest};
use crate::plan::{Plan, State, remaining_paths};
use crate::queue::{Claimed, Queue};
use crate::stage::{Bound, Failure, Selection, Stage};
use crate::worker::{Ending, Work, guarded};

/// How often a node may find bytes lost before that is a failure.
const REWINDS: u32 = 3;
/// How many claims are held at once before nothing more begins: each may hold a file open, and a process often may have
/// no more than a thousand.
const CLAIMS: usize = 512;

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

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Workers(#[from] rayon::ThreadPoolBuildError),
    #[error("cannot start the thread that commits: {0}")]
    Committer(#[source] io::Error),
}

/// A file or folder, and the paths inside it that are left out.
pub(crate) type SourceId = (PathBuf, Vec<PathBuf>);
/// What a look at a source gave.
pub(crate) type Look = Result<SourceState, SourceError>;

/// What a run is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The nodes to bring up to date, with all that they need.
    pub targets: Vec<NodeId>,
    /// Nodes that run whatever their records say. Of several with one key, one runs.
    pub forced: Vec<NodeId>,
    /// How many nodes run at once; at least one.
    pub jobs: usize,
    /// After a failure, go on with what does not need it.
    pub keep_going: bool,
    /// Say what would happen, and start nothing.
    pub preview: bool,
}

/// How a run ended: each wanted node counts once, as what it was in the end. All zero for a preview.
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
    /// On the same store as the ledger.
    pub claims: &'a Claims,
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
    /// Only if no threads can be had: all that befalls a node is an event.
    pub fn run(&self, options: &Options, emit: &mut dyn FnMut(Event)) -> Result<Summary, RunError> {
        let jobs = options.jobs.max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build()?;
        let wanted = self.graph.closure(&options.targets);
        let looked = pool.install(|| self.look_at_sources(&wanted));
        emit(Event::Planned { nodes: wanted.iter().filter(|wanted| **wanted).count() });
        let plan = self.plan(&wanted);
        let (sender, messages) = channel();
        std::thread::scope(|threads| {
            let committer = Committer::start(threads, self.store, self.ledger, sender.clone());
            let committer = committer.map_err(RunError::Committer)?;
            Ok(pool.in_place_scope(|scope| {
                let mut run = Run::new(self, options, plan, looked, committer, sender, emit);
                run.drive(scope, &messages, jobs);
                run.summary()
            }))
        })
    }

    fn look_at_sources(&self, wanted: &[bool]) -> BTreeMap<SourceId, Look> {
        let within = self.graph.ids().filter(|id| wanted[id.0]);
        let files = within.flat_map(|id| self.graph.inputs(id)).filter_map(|input| match &input.source {
            Source::File { path, without } => Some((path.clone(), without.clone())),
            Source::Output { .. } => None,
        });
        let distinct: BTreeSet<SourceId> = files.collect();
        let look = |id: SourceId| {
            let look = self.sources.look(&id.0, &id.1);
            (id, look)
        };
        distinct.into_par_iter().map(look).collect()
    }

    fn plan(&self, wanted: &[bool]) -> Plan {
        let producers: Vec<Vec<usize>> =
            self.graph.ids().map(|id| self.graph.producers(id).into_iter().map(|id| id.0).collect()).collect();
        let order: Vec<usize> = self.graph.order().iter().map(|id| id.0).collect();
        // What is not wanted lies below what is, and lengthens no path.
        let costs: Vec<u64> = self.graph.ids().map(|id| if wanted[id.0] { self.last_cost(id) } else { 0 }).collect();
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

/// What reaches the coordinator.
pub(crate) enum Message {
    /// From a worker.
    Worked {
        node: usize,
        seconds: f64,
        work: Work,
        /// It only put outs back in place.
        restored: bool,
    },
    /// From a thread that waited for a claim.
    Claimed { node: usize, key: Key, claim: Result<Claim, DiskError> },
    /// From the committer: what became of the next so many items.
    Committed { count: usize, result: Result<(), String> },
}

/// What there is for a key.
enum Found {
    Hit(Hit),
    /// Nothing, or a record with this output lost.
    Miss(Option<Digest>),
}

/// Outputs of a record, as consumers see them.
struct Hit {
    outputs: Vec<Artifact>,
    seconds: f64,
    /// Neither the record nor anything that was made of it waits for a commit.
    durable: bool,
}

/// A key that is being computed, or waited for.
#[derive(Default)]
struct Flight {
    /// Nodes that wait for the same key.
    parked: Vec<usize>,
    /// Held while it is computed.
    claim: Option<Claim>,
}

/// An item that the committer has.
struct Uncommitted {
    number: u64,
    node: usize,
    /// If it has a record.
    key: Option<Key>,
}

/// The end of a node, to be told when the item with this number is durable.
#[derive(Clone)]
struct Unsettled {
    number: u64,
    outcome: Outcome,
    restored: bool,
}

/// What is known of a node while a run goes on.
#[derive(Default, Clone)]
struct Known {
    /// What consumers see, from its last success on: also while it is opened again, to tell what it made.
    outputs: Vec<Artifact>,
    key: Option<Key>,
    reason: Option<Reason>,
    /// What workers have spent on it.
    seconds: f64,
    saved: f64,
    rewinds: u32,
    /// It has run, with success.
    ran: bool,
    /// It has been run again because a source changed.
    rerun: bool,
    /// What it reads was made anew while it ran, and differs.
    outdated: bool,
    /// In a preview: it would run, or may.
    stale: bool,
    /// It is done with outputs, which are not known to be durable.
    unsettled: Option<Unsettled>,
}

/// A run under way; owned by the coordinator.
struct Run<'s, 'e> {
    session: &'s Session<'s>,
    options: &'s Options,
    plan: Plan,
    looked: BTreeMap<SourceId, Look>,
    known: Vec<Known>,
    in_flight: BTreeMap<Key, Flight>,
    /// Keys that this run has computed.
    computed: BTreeSet<Key>,
    /// Records that the committer has, by the number of their item.
    unrecorded: BTreeMap<Key, (u64, Record)>,
    /// In the order in which they will be answered.
    uncommitted: VecDeque<Uncommitted>,
    committer: Committer,
    /// How many items there were.
    items: u64,
    queue: Queue,
    trees: Trees<'s>,
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
        looked: BTreeMap<SourceId, Look>,
        committer: Committer,
        sender: Sender<Message>,
        emit: &'e mut dyn FnMut(Event),
    ) -> Self {
        let trees = if options.preview { Trees::preview(session.store) } else { Trees::new(session.store) };
        Self {
            session,
            options,
            plan,
            looked,
            known: vec![Known::default(); session.graph.len()],
            in_flight: BTreeMap::new(),
            computed: BTreeSet::new(),
            unrecorded: BTreeMap::new(),
            uncommitted: VecDeque::new(),
            committer,
            items: 0,
            queue: Queue::new(session.claims.clone(), sender.clone()),
            trees,
            running: 0,
            stopping: false,
            sender,
            emit,
        }
    }

    fn drive(&mut self, scope: &rayon::Scope<'s>, messages: &Receiver<Message>, jobs: usize) {
        loop {
            while self.running < jobs && !self.stopping && self.begin_next(scope) {}
            if self.stopping {
                self.cancel();
            }
            if self.plan.is_done() && self.uncommitted.is_empty() {
                return;
            }
            if self.running == 0 {
                self.committer.flush();
            }
            // Else the next line would wait for ever.
            let waits = self.running > 0 || !self.queue.is_empty() || !self.uncommitted.is_empty();
            assert!(waits, "a node is ready or runs until all are done");
            let message = messages.recv().expect("the coordinator holds a sender");
            self.receive(message);
        }
    }

    /// Goes on with a node whose claim has come, else with a ready one.
    fn begin_next(&mut self, scope: &rayon::Scope<'s>) -> bool {
        if let Some(claimed) = self.queue.next() {
            self.resume(claimed, scope);
            return true;
        }
        let claims = self.running + self.unrecorded.len();
        let node = if self.queue.has_room() && claims < CLAIMS { self.plan.take() } else { None };
        if let Some(node) = node {
            self.visit(node, None, scope);
        }
        node.is_some()
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        if self.options.preview {
            return summary;
        }
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

    /// Decides about a ready node: cached, started, parked behind an equal key, skipped or failed.
    fn visit(&mut self, node: usize, claimed: Option<(Key, Claim)>, scope: &rayon::Scope<'s>) {
        self.known[node].outdated = false;
        self.known[node].key = None;
        if let Some(failed) = self.failed_producer(node) {
            return self.skip(node, failed);
        }
        if self.options.preview && self.preview_below_stale(node) {
            return;
        }
        match self.bind(node) {
            Ok((bound, manifest)) => {
                // What it waited for may not be what it needs any more.
                let claim = claimed.filter(|(key, _)| *key == manifest.key()).map(|(_, claim)| claim);
                self.decide(node, bound, manifest, claim, scope);
            }
            Err(Failure::Lost(digest)) if !self.options.preview => self.lost(node, digest),
            Err(failure) => self.fail(node, failure),
        }
    }

    fn decide(
        &mut self,
        node: usize,
        bound: Vec<Bound>,
        manifest: Manifest,
        claim: Option<Claim>,
        scope: &rayon::Scope<'s>,
    ) {
        let key = manifest.key();
        self.known[node].key = Some(key);
        if let Some(flight) = self.in_flight.get_mut(&key) {
            flight.parked.push(node);
            return;
        }
        let forced = self.options.forced.contains(&NodeId(node)) && !self.computed.contains(&key);
        let lost = match self.look_up(node, key, &bound, forced) {
            Ok(Found::Hit(hit)) => return self.hit(node, key, hit, scope),
            Ok(Found::Miss(lost)) => lost,
            Err(failure) => return self.fail(node, failure),
        };
        if self.options.preview {
            let reason = self.reason(node, key, &manifest, forced, lost);
            return self.preview(node, Preview::Stale(reason));
        }
        match claim.map_or_else(|| self.session.claims.try_claim(&key.0), |claim| Ok(Some(claim))) {
            Ok(Some(claim)) => self.begin(node, bound, manifest, forced, claim, scope),
            Ok(None) => self.wait(node, key),
            Err(error) => self.fail(node, Failure::new(error)),
        }
    }

    /// Starts a node whose key is claimed, unless another process computed that before it could be claimed.
    fn begin(
        &mut self,
        node: usize,
        bound: Vec<Bound>,
        manifest: Manifest,
        forced: bool,
        claim: Claim,
        scope: &rayon::Scope<'s>,
    ) {
        let key = manifest.key();
        if let Err(error) = self.session.ledger.refresh() {
            return self.fail(node, Failure::new(error));
        }
        let lost = match self.look_up(node, key, &bound, forced) {
            Ok(Found::Hit(hit)) => return self.hit(node, key, hit, scope),
            Ok(Found::Miss(lost)) => lost,
            Err(failure) => return self.fail(node, failure),
        };
        let reason = self.reason(node, key, &manifest, forced, lost);
        self.known[node].reason = Some(reason.clone());
        (self.emit)(Event::Started { node: NodeId(node), reason });
        self.in_flight.insert(key, Flight { claim: Some(claim), ..Flight::default() });
        self.spawn(node, false, scope, move |session| session.execute(NodeId(node), &bound, &manifest));
    }

    /// Has a node wait for another process that computes its key, or one that shares its lock file.
    fn wait(&mut self, node: usize, key: Key) {
        if let Err(error) = self.queue.wait(node, key) {
            return self.fail(node, Failure::new(error));
        }
        self.in_flight.insert(key, Flight::default());
        (self.emit)(Event::Waiting { node: NodeId(node) });
    }

    /// Looks again at a node that holds the claim it waited for.
    fn resume(&mut self, Claimed { node, key, claim }: Claimed, scope: &rayon::Scope<'s>) {
        self.land(key);
        let producers = self.session.graph.producers(NodeId(node));
        if producers.iter().all(|id| matches!(self.plan.state(id.0), State::Done(_))) {
            return self.visit(node, Some((key, claim)), scope);
        }
        // What it reads was opened again meanwhile, and may need claims itself.
        drop(claim);
        self.plan.put_back(node);
    }

    /// A key is computed or waited for no more: whoever waits for the same looks again. Gives its claim.
    fn land(&mut self, key: Key) -> Option<Claim> {
        let flight = self.in_flight.remove(&key).unwrap_or_default();
        for parked in flight.parked {
            self.plan.put_back(parked);
        }
        flight.claim
    }

    /// A node that was put back may find that what it reads was opened again and has failed.
    fn failed_producer(&self, node: usize) -> Option<&'s str> {
        let failed = |id: &NodeId| {
            matches!(self.plan.state(id.0), State::Done(Outcome::Failed | Outcome::Skipped | Outcome::Cancelled))
        };
        let graph = self.session.graph;
        graph.producers(NodeId(node)).into_iter().find(failed).map(|id| graph.node(id).name.as_str())
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
        let selections = guarded(|| (stage.reads)(&bound))?;
        for (input, selection) in bound.iter_mut().zip(selections) {
            input.selection = selection;
        }
        let manifest = Manifest::of(stage, &bound);
        Ok((bound, manifest))
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
    fn look_up(&mut self, node: usize, key: Key, bound: &[Bound], forced: bool) -> Result<Found, Failure> {
        let (session, stage) = (self.session, self.stage(node));
        let unrecorded = self.unrecorded.get(&key).map(|(_, record)| record);
        let recorded = session.ledger.get(&key.0);
        let Some(record) = unrecorded.or(recorded.as_deref()).filter(|_| !forced) else { return Ok(Found::Miss(None)) };
        let Some(given) = given(stage, record) else { return Ok(Found::Miss(None)) };
        if let Some(lost) = given.iter().find(|artifact| !session.store.holds(artifact)) {
            return Ok(Found::Miss(Some(lost.digest)));
        }
        let seconds = record.seconds;
        let durable = unrecorded.is_none() && stage.outputs.iter().all(|port| port.passes.is_none());
        match compose(&mut self.trees, stage, bound, given) {
            Ok(outputs) => Ok(Found::Hit(Hit { outputs, seconds, durable })),
            Err(Failure::Lost(digest)) => Ok(Found::Miss(Some(digest))),
            Err(failure) => Err(failure),
        }
    }

    fn reason(&self, node: usize, key: Key, manifest: &Manifest, forced: bool, lost: Option<Digest>) -> Reason {
        if forced {
            return Reason::Forced;
        }
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

    fn hit(&mut self, node: usize, key: Key, hit: Hit, scope: &rayon::Scope<'s>) {
        let Hit { outputs, seconds, durable } = hit;
        self.known[node].saved = seconds;
        let stage = self.stage(node);
        let in_place = match &stage.outs {
            Some(outs) => guarded(|| outs.in_place(&outputs)),
            None => Ok(true),
        };
        let in_place = match in_place {
            Ok(in_place) => in_place,
            Err(failure) => return self.fail(node, failure),
        };
        if self.options.preview {
            self.known[node].outputs = outputs;
            return self.preview(node, if in_place { Preview::Cached } else { Preview::Restore });
        }
        if in_place {
            let item = if durable { None } else { Some(self.commit(node, None)) };
            return self.succeed(node, outputs, false, item);
        }
        self.in_flight.insert(key, Flight::default());
        self.spawn(node, true, scope, move |session| session.restore(stage, outputs));
    }

    fn spawn(
        &mut self,
        node: usize,
        restored: bool,
        scope: &rayon::Scope<'s>,
        work: impl FnOnce(&'s Session<'s>) -> Work + Send + 's,
    ) {
        self.running += 1;
        let (session, sender) = (self.session, self.sender.clone());
        scope.spawn(move |_| {
            let begun = (session.clock)();
            let work = work(session);
            let seconds = (session.clock)() - begun;
            // The receiver outlives the scope.
            let _ = sender.send(Message::Worked { node, seconds, work, restored });
        });
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Worked { node, seconds, work, restored } => {
                self.running -= 1;
                self.known[node].seconds += seconds;
                self.worked(node, work, restored);
            }
            Message::Claimed { node, key, claim } => {
                if let Err(error) = self.queue.receive(node, key, claim) {
                    self.fail(node, Failure::new(error));
                    self.land(key);
                }
            }
            Message::Committed { count, result } => self.committed(count, &result),
        }
    }

    fn worked(&mut self, node: usize, Work { record, result }: Work, restored: bool) {
        let key = self.known[node].key.expect("a node that is handed out has a key");
        let claim = self.in_flight.get_mut(&key).and_then(|flight| flight.claim.take());
        if result.is_ok() && !restored {
            self.known[node].ran = true;
            self.computed.insert(key);
        }
        // Whatever becomes of the node, what it made is recorded. Else its claim ends here.
        let item = record.map(|record| self.commit(node, Some((key, record, claim))));
        match result {
            // Whatever it made of inputs that are no more does not count.
            _ if self.known[node].outdated => self.plan.put_back(node),
            Ok(outputs) => {
                let item = item.unwrap_or_else(|| self.commit(node, None));
                self.succeed(node, outputs, restored, Some(item));
            }
            Err(Ending::SourcesChanged(changed)) => self.sources_changed(node, changed),
            // With a record, the next look finds that they are gone.
            Err(Ending::OutputsLost) => self.rewind(node, Vec::new()),
            Err(Ending::Failure(Failure::Lost(digest))) => self.lost(node, digest),
            Err(Ending::Failure(failure)) => self.fail(node, failure),
        }
        self.land(key);
    }

    /// Hands the committer what a node put or restored, and the record of its key, if it has one; gives the item's number.
    fn commit(&mut self, node: usize, made: Option<(Key, Record, Option<Claim>)>) -> u64 {
        self.items += 1;
        let number = self.items;
        let key = made.as_ref().map(|(key, _, _)| *key);
        let item = match made {
            Some((key, record, claim)) => {
                self.unrecorded.insert(key, (number, record.clone()));
                Item { record: Some((key.0, record)), claim }
            }
            None => Item { record: None, claim: None },
        };
        self.uncommitted.push_back(Uncommitted { number, node, key });
        self.committer.take(item);
        number
    }

    /// Tells the ends of nodes whose items are durable, or have failed.
    fn committed(&mut self, count: usize, result: &Result<(), String>) {
        for _ in 0..count {
            let Uncommitted { number, node, key } = self.uncommitted.pop_front().expect("each item is answered once");
            if let Some(key) = key
                && self.unrecorded.get(&key).is_some_and(|(latest, _)| *latest == number)
            {
                self.unrecorded.remove(&key);
            }
            // Of a node that was opened again meanwhile, this is not the end.
            let Some(end) = self.known[node].unsettled.take_if(|end| end.number == number) else { continue };
            match result {
                Ok(()) => self.report(node, end.outcome, end.restored, None),
                Err(error) => self.revoke(node, error),
            }
        }
        self.stopping |= result.is_err();
    }

    /// Fails a node that had its outputs: the disk did not take them.
    fn revoke(&mut self, node: usize, error: &str) {
        let skipped = self.plan.revoke(node);
        let text = format!("its outputs could not be made durable: {error}");
        self.report_failure(node, text, skipped);
    }

    fn sources_changed(&mut self, node: usize, changed: Vec<(SourceId, Look)>) {
        if std::mem::replace(&mut self.known[node].rerun, true) {
            let path = changed.first().map(|((path, _), _)| path.display().to_string()).unwrap_or_default();
            let text = format!("{path} changed while it was read, twice; let it come to rest and run again");
            return self.fail_with(node, text);
        }
        self.looked.extend(changed);
        self.plan.put_back(node);
    }

    /// An input's bytes are gone: the nodes that made them are looked at first, then this one again.
    fn lost(&mut self, node: usize, digest: Digest) {
        let makers = self.makers(node, digest);
        if makers.is_empty() {
            return self.fail_with(node, format!("the bytes {digest} are missing or damaged, and no stage makes them"));
        }
        self.rewind(node, makers);
    }

    /// Puts a node back that found bytes lost, behind the nodes that make them; the nearest comes first.
    fn rewind(&mut self, node: usize, makers: Vec<usize>) {
        self.known[node].rewinds += 1;
        if self.known[node].rewinds > REWINDS {
            return self.fail_with(node, "its bytes were lost again and again; is the disk failing?".into());
        }
        for maker in makers.into_iter().rev() {
            self.reopen(maker);
        }
        self.plan.put_back(node);
    }

    /// Has a node that is done looked at again; if it is not settled, its end is not told any more.
    fn reopen(&mut self, node: usize) {
        self.known[node].unsettled = None;
        self.plan.reopen(node);
    }

    /// The nodes from a node's producer up to the one that made these bytes, through those that only pass them on.
    fn makers(&self, node: usize, digest: Digest) -> Vec<usize> {
        std::iter::successors(self.source_of(node, digest), |maker| self.source_of(*maker, digest)).collect()
    }

    fn source_of(&self, node: usize, digest: Digest) -> Option<usize> {
        let inputs = self.session.graph.inputs(NodeId(node)).iter();
        let outputs = inputs.filter_map(|input| match input.source {
            Source::Output { node, output, .. } => Some((node.0, self.known[node.0].outputs.get(output)?)),
            Source::File { .. } => None,
        });
        let mut outputs = outputs.filter(|(_, artifact)| self.contains(artifact, digest));
        outputs.next().map(|(producer, _)| producer)
    }

    fn contains(&self, artifact: &Artifact, digest: Digest) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![(artifact.shape, artifact.digest)];
        while let Some((shape, at)) = open.pop() {
            if at == digest {
                return true;
            }
            if shape == Shape::Tree && seen.insert(at) {
                // A tree that cannot be read contains nothing that could be asked for.
                let tree = self.session.store.get_tree(&at).ok();
                open.extend(tree.iter().flat_map(|tree| &tree.entries).map(|entry| (entry.shape, entry.digest)));
            }
        }
        false
    }

    /// Ends a node with outputs. The end is told when its item is durable, if it has one, and all that it reads is
    /// settled.
    fn succeed(&mut self, node: usize, outputs: Vec<Artifact>, restored: bool, item: Option<u64>) {
        let old = std::mem::replace(&mut self.known[node].outputs, outputs);
        let differs = !old.is_empty() && old != self.known[node].outputs;
        // Once it has run, a second look that finds the record does not undo that.
        let outcome = if self.known[node].ran { Outcome::Ran } else { Outcome::Cached };
        self.plan.finish(node, outcome);
        let producers = self.session.graph.producers(NodeId(node));
        let early = producers.iter().any(|id| self.known[id.0].unsettled.is_some());
        // Items are answered in order, so this one is after theirs.
        match item.or_else(|| early.then(|| self.commit(node, None))) {
            Some(number) => self.known[node].unsettled = Some(Unsettled { number, outcome, restored }),
            None => self.report(node, outcome, restored, None),
        }
        if differs {
            self.outdate_consumers(node);
        }
    }

    /// A node was opened again and gave something else than before: what was made from that is looked at again.
    fn outdate_consumers(&mut self, node: usize) {
        for NodeId(consumer) in self.session.graph.consumers(NodeId(node)) {
            self.known[consumer].outdated = true;
            self.reopen(consumer);
        }
    }

    fn fail(&mut self, node: usize, failure: Failure) {
        self.fail_with(
            node,
            match failure {
                Failure::Error(error) => error.to_string(),
                Failure::Lost(digest) => format!("the bytes {digest} are missing or damaged"),
            },
        );
    }

    fn fail_with(&mut self, node: usize, error: String) {
        if self.options.preview {
            return self.preview(node, Preview::Failed(error));
        }
        let skipped = self.plan.finish(node, Outcome::Failed);
        self.report_failure(node, error, skipped);
        self.stopping |= !self.options.keep_going;
    }

    /// Ends what has not begun; called again after each message, as nodes may be put back meanwhile.
    fn cancel(&mut self) {
        for (node, key) in self.queue.give_up() {
            self.land(key);
            self.plan.put_back(node);
        }
        for node in self.plan.cancel() {
            self.report(node, Outcome::Cancelled, false, None);
        }
    }

    fn skip(&mut self, node: usize, failed: &str) {
        let cause = failed_text(failed);
        for below in std::iter::once(node).chain(self.plan.finish(node, Outcome::Skipped)) {
            self.report(below, Outcome::Skipped, false, Some(cause.clone()));
        }
    }

    fn report_failure(&mut self, node: usize, error: String, skipped: Vec<usize>) {
        let cause = failed_text(&self.session.graph.node(NodeId(node)).name);
        self.report(node, Outcome::Failed, false, Some(error));
        for below in skipped {
            self.report(below, Outcome::Skipped, false, Some(cause.clone()));
        }
    }

    fn report(&mut self, node: usize, outcome: Outcome, restored: bool, error: Option<String>) {
        let known = &self.known[node];
        let usable = matches!(outcome, Outcome::Ran | Outcome::Cached);
        let finish = Finish {
            node: NodeId(node),
            outcome,
            reason: known.reason.clone().filter(|_| outcome != Outcome::Cached),
            key: known.key,
            seconds: known.seconds,
            saved: if outcome == Outcome::Cached { known.saved } else { 0.0 },
            outputs: if usable { known.outputs.clone() } else { Vec::new() },
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
        let outputs = if self.known[node].stale { Vec::new() } else { self.known[node].outputs.clone() };
        (self.emit)(Event::Previewed { node: NodeId(node), preview, key, outputs });
        self.plan.finish(node, Outcome::Cached);
    }
}

/// What a record has for each output of a stage, in the order of the ports.
fn given(stage: &Stage, record: &Record) -> Option<Vec<Artifact>> {
    let find = |name: &str| record.outputs.iter().find(|(port, _)| port == name);
    stage.outputs.iter().map(|port| find(&port.name).map(|(_, artifact)| artifact.clone())).collect()
}

fn failed_text(name: &str) -> String {
    format!("`{name}` failed")
}
