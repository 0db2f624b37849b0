//! `Session`: all that a run works with, what it is asked to do, and how it ended.
//!
//! The run itself is the coordinator's. It does not know what a stage does, and has no clock of its own.
//!
//! # Threads
//!
//! Stages run on as many plain threads as there are jobs ([`crate::crew`] says why they are no rayon pool). `jobs` is how many
//! cpus' worth of stages run at once, and not how many threads there are: what a stage does with rayon or polars goes to
//! their own pools, each of which has a thread a cpu, and which all stages share. So at worst `jobs` stages each use a
//! cpu themselves while both pools are busy, and every one of these threads has work to do. Nothing deadlocks: a stage's
//! thread holds nothing that a pool's thread could wait for, and a pool's thread waits for no stage.
//!
//! Beside these a run has the coordinator, on the thread that called it; one that commits; one for each key that another
//! process computes, up to a limit; and as many again as there are jobs, or outs if these are fewer, which put outs back in
//! place: one of these at a time always works, more only as long as no more threads work than there are jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use headwater_cache::{Artifact, Claims, Digest, Ledger, Store, Tree};
use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::committer::Committer;
use crate::coordinator::{Message, Run};
use crate::crew::Crew;
use crate::event::Event;
use crate::graph::{Graph, NodeId, Source};
use crate::manifest::Key;
use crate::plan::{Plan, State, remaining_paths};
use crate::recent::Recent;
use crate::room::{Capacities, Excess, Room};

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
    #[error("cannot start the threads that run stages: {0}")]
    Workers(#[source] io::Error),
    #[error("cannot start the thread that commits: {0}")]
    Committer(#[source] io::Error),
    /// These would wait for ever.
    #[error("{}", lines(.0))]
    TooMuch(Vec<TooMuch>),
}

/// A node that asks for more than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` asks for {requested} {resource}, and there are {capacity}", requested = excess.requested,
    resource = excess.resource, capacity = excess.capacity)]
pub struct TooMuch {
    pub node: NodeId,
    pub name: String,
    pub excess: Excess,
}

/// The nodes for which a run with these options would be refused.
pub fn too_much(graph: &Graph, options: &Options) -> Vec<TooMuch> {
    room(graph, &graph.closure(&options.targets), options).err().unwrap_or_default()
}

/// What the wanted nodes take up, all of it free.
fn room(graph: &Graph, wanted: &[bool], options: &Options) -> Result<Room, Vec<TooMuch>> {
    let nothing = Default::default();
    let requests = graph.ids().map(|id| if wanted[id.0] { &graph.node(id).request } else { &nothing });
    let cpus = u32::try_from(options.jobs.max(1)).unwrap_or(u32::MAX);
    let named = |(node, excess)| TooMuch { node: NodeId(node), name: graph.node(NodeId(node)).name.clone(), excess };
    let room = Room::new(requests, cpus, &options.capacities);
    room.map_err(|nodes| nodes.into_iter().map(named).collect())
}

fn lines(nodes: &[TooMuch]) -> String {
    nodes.iter().map(TooMuch::to_string).collect::<Vec<_>>().join("\n")
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
    /// How many cpus' worth of nodes run at once; at least one.
    pub jobs: usize,
    /// After a failure, go on with what does not need it.
    pub keep_going: bool,
    /// Say what would happen, and start nothing.
    pub preview: bool,
    /// What there is of other things than cpus.
    pub capacities: Capacities,
    /// Seconds that nodes are expected to take. Of one that is not named here the last record tells, and if there is none,
    /// it is a second.
    pub expected: BTreeMap<NodeId, f64>,
    /// By which the run is told to end.
    pub cancel: Cancel,
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
    /// The key of each node's last finish, if it has one.
    pub last_keys: &'a [Option<Key>],
    pub clock: &'a dyn Clock,
}

impl Session<'_> {
    /// Brings the targets up to date, or says what that would take.
    ///
    /// The record of what a node made is durable when the node is told; outs that were put in place are made so by
    /// [`Store::commit_restored`], which is the caller's to call.
    ///
    /// # Errors
    /// If no threads can be had, or a node asks for more than there is. All else that befalls a node is an event.
    pub fn run(&self, options: &Options, emit: &mut dyn FnMut(Event)) -> Result<Summary, RunError> {
        let wanted = self.graph.closure(&options.targets);
        // A run that starts nothing takes up nothing.
        let taking: &[bool] = if options.preview { &vec![false; wanted.len()] } else { &wanted };
        let room = room(self.graph, taking, options).map_err(RunError::TooMuch)?;
        let looked = self.look_at_sources(&wanted, &options.cancel);
        emit(Event::Planned { nodes: wanted.iter().filter(|wanted| **wanted).count() });
        let recent = self.load_records(&wanted);
        let plan = Plan::new(self.graph.all_producers(), &wanted);
        let (sender, messages) = channel();
        let raised = sender.clone();
        // A run that has ended does not ask any more.
        let _watch = options.cancel.watch(move |_| drop(raised.send(Message::Raised)));
        std::thread::scope(|threads| {
            let committer = Committer::start(threads, self.store, self.ledger, sender.clone());
            let committer = committer.map_err(RunError::Committer)?;
            let threads_wanted = if options.preview { 0 } else { options.jobs.max(1) };
            let crew = Crew::start(threads, "stage", threads_wanted).map_err(RunError::Workers)?;
            let restorers = threads_wanted.min(self.placing(&wanted));
            let restorers = Crew::start(threads, "restore", restorers).map_err(RunError::Workers)?;
            let mut run =
                Run::new(self, options, plan, room, looked, recent, committer, [crew, restorers], sender, emit);
            run.drive(&messages);
            Ok(run.summary())
        })
    }

    /// How many nodes have outs that may have to be put back.
    fn placing(&self, wanted: &[bool]) -> usize {
        self.graph.ids().filter(|id| wanted[id.0] && self.graph.node(*id).stage.outs.is_some()).count()
    }

    fn look_at_sources(&self, wanted: &[bool], cancel: &Cancel) -> BTreeMap<SourceId, Look> {
        let within = self.graph.ids().filter(|id| wanted[id.0]);
        let files = within.flat_map(|id| self.graph.inputs(id)).filter_map(|input| match &input.source {
            Source::File { path, without } => Some((path.clone(), without.clone())),
            Source::Output { .. } => None,
        });
        let distinct: BTreeSet<SourceId> = files.collect();
        let look = |id: SourceId| {
            // Of a run that was told to end nothing begins that would ask for it.
            let look = || self.sources.look(&id.0, &id.1);
            let look = if cancel.is_raised() { Err(SourceError("it was not looked at".into())) } else { look() };
            (id, look)
        };
        distinct.into_par_iter().map(look).collect()
    }

    /// What the nodes had last, read together, as most of it will be asked for.
    fn load_records(&self, wanted: &[bool]) -> Recent {
        let keys = wanted.iter().zip(self.last_keys).map(|(wanted, key)| key.filter(|_| *wanted));
        let keys: Vec<Option<Digest>> = keys.map(|key| key.map(|key| key.0)).collect();
        Recent::new(self.ledger.load(&keys))
    }

    /// What comes first: the nodes from which the longest path leads to the end.
    pub(crate) fn priorities(&self, options: &Options, plan: &Plan, recent: &Recent) -> Vec<u64> {
        // What is not wanted lies below what is, and lengthens no path; nor does what is done.
        let counts = |id: NodeId| !matches!(plan.state(id.0), State::Unwanted | State::Done(_));
        let cost = |id| if counts(id) { self.expected_cost(id, options, recent) } else { 0 };
        let costs: Vec<u64> = self.graph.ids().map(cost).collect();
        remaining_paths(self.graph.order().iter().map(|id| id.0), self.graph.all_producers(), &costs)
    }

    /// Microseconds that the node will take.
    fn expected_cost(&self, id: NodeId, options: &Options, recent: &Recent) -> u64 {
        let last = || {
            let read = || self.ledger.made(&self.last_keys[id.0]?.0).map(|made| made.seconds);
            recent.seconds(id.0).or_else(read)
        };
        let seconds = options.expected.get(&id).copied().or_else(last).unwrap_or(1.0);
        (seconds * 1e6) as u64
    }
}
