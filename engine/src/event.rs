//! `Event`, `Reason`, `Outcome`: all that the outside may know of a run.

use headwater_cache::{Artifact, Digest};

use crate::graph::NodeId;
use crate::manifest::{Change, Key};

/// Why a node runs, the first that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was asked for by name.
    Forced,
    /// There is a record, but this output's bytes are gone or damaged.
    Lost(Digest),
    /// It has never finished under this name.
    New,
    /// Its manifest differs from that of its last finish.
    Changed(Vec<Change>),
    /// Its key is as it was at its last finish, but there is no record that serves.
    Forgotten,
    /// It cannot be told yet: these nodes run first and may give what they gave before.
    Unknown(Vec<NodeId>),
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A record exists for the key; nothing ran.
    Cached,
    Ran,
    Failed,
    /// Something that it needs failed.
    Skipped,
    /// The run ended before it began, or it gave up as it was told to.
    Cancelled,
}

/// What a run that starts nothing says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preview {
    Cached,
    /// Cached, but an output in the project is not in place.
    Restore,
    /// Certain to run, or to share the run of another node with its key.
    Stale(Reason),
    /// Runs, unless what is above it gives the same as before.
    Maybe(Reason),
    /// It cannot run, for example because an input file cannot be read. Nodes below it are told as `Maybe`.
    Failed(String),
}

/// One thing that happened. A node may start and finish more than once in a run: if a source changes while it runs, if
/// its bytes turn out to be lost, or if what it reads is made anew and differs. The last finish counts.
#[derive(Debug)]
pub enum Event {
    /// The plan is made: so many nodes are wanted.
    Planned {
        nodes: usize,
    },
    /// Another process computes what it would compute, or seems to. It starts, is cached or is cancelled later.
    Waiting {
        node: NodeId,
    },
    Started {
        node: NodeId,
        reason: Reason,
    },
    /// Its stage's function has failed and will be tried again, after so many seconds in which it takes up nothing. It
    /// starts again then, unless the run ends before: then that was its failure.
    Retrying {
        node: NodeId,
        /// How often it has failed by now.
        attempt: u32,
        error: String,
        seconds: f64,
    },
    /// Success is told once it is durable, and after that of all that the node reads.
    Finished(Finish),
    /// From a run that starts nothing, in place of the two above.
    Previewed {
        node: NodeId,
        preview: Preview,
        key: Option<Key>,
        /// In the order of the stage's output ports; empty unless it is cached. Trees that the engine composes are
        /// stored by a run alone.
        outputs: Vec<Artifact>,
    },
}

/// The end of a node.
#[derive(Debug, Clone)]
pub struct Finish {
    pub node: NodeId,
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    pub key: Option<Key>,
    /// What this run's workers spent on it so far.
    pub seconds: f64,
    /// What its record says it cost, when it was cached.
    pub saved: f64,
    /// What consumers see, in the order of the stage's output ports; empty unless it ran or was cached.
    pub outputs: Vec<Artifact>,
    /// Outs that were put back in place without running anything.
    pub restored: bool,
    /// Why it failed or was skipped.
    pub error: Option<String>,
}
