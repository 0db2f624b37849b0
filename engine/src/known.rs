//! What a coordinator knows of nodes and keys while a run goes on.
//!
//! It decides nothing.

use headwater_cache::{Artifact, Claim, Digest};

use crate::event::{Outcome, Reason};
use crate::manifest::Key;
use crate::room::Seat;
use crate::stage::Bound;

/// What is known of a node.
#[derive(Default)]
pub(crate) struct Known {
    /// What consumers see, from its last success on: also while it is opened again, to tell what it made.
    pub outputs: Vec<Artifact>,
    pub key: Option<Key>,
    pub reason: Option<Reason>,
    /// What workers have spent on it.
    pub seconds: f64,
    pub saved: f64,
    pub rewinds: u32,
    /// How often its stage's function has failed.
    pub failures: u32,
    /// How the last of these failed, while the node pauses.
    pub last_failure: Option<String>,
    /// It has run, with success.
    pub ran: bool,
    /// It has been run again because a source changed.
    pub rerun: bool,
    /// What it reads was made anew while it ran, and differs.
    pub outdated: bool,
    /// In a preview: it would run, or may.
    pub stale: bool,
    /// It is prepared to run, or was handed to a worker.
    pub handed: bool,
    /// What it takes up.
    pub seat: Option<Seat>,
    /// It is done with outputs, which are not known to be durable.
    pub unsettled: Option<Unsettled>,
}

/// The end of a node, to be told when the item with this number is durable.
pub(crate) struct Unsettled {
    pub number: u64,
    pub outcome: Outcome,
    pub restored: bool,
}

/// A failure, to be told when all is settled that the node reads.
pub(crate) struct Failed {
    pub node: usize,
    pub error: String,
    /// What is not tried because of it.
    pub skipped: Vec<usize>,
}

/// What a node reads now, and the manifest that makes.
pub(crate) struct Inputs {
    pub bound: Vec<Bound>,
    pub manifest: String,
    pub key: Key,
}

/// What there is for a key.
pub(crate) enum Found {
    Hit(Hit),
    /// Nothing, or a record with this output lost.
    Miss(Option<Digest>),
}

/// Outputs of a record, as consumers see them.
pub(crate) struct Hit {
    pub outputs: Vec<Artifact>,
    pub seconds: f64,
    /// Neither the record nor anything that was made of it waits for a commit.
    pub durable: bool,
}

/// A key that is being computed, or waited for.
#[derive(Default)]
pub(crate) struct Flight {
    /// Nodes that wait for the same key.
    pub parked: Vec<usize>,
    /// Held while it is computed.
    pub claim: Option<Claim>,
}

/// A node whose key is claimed, and which begins unless another process computed it before.
pub(crate) struct Prepared {
    pub node: usize,
    pub inputs: Inputs,
    pub forced: bool,
    /// Which output of its record was lost, if one was.
    pub lost: Option<Digest>,
}

/// An item that the committer has.
pub(crate) struct Uncommitted {
    pub number: u64,
    pub node: usize,
    /// If it has a record.
    pub key: Option<Key>,
}
