//! `Stage`: identity as data (kind, version, canonical config, ports), and the functions that do the work.
//!
//! It does not know its name, its node or its neighbours.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use headwater_cache::{Artifact, Digest, Store, StoreError, Tree};

use crate::cancel::Cancel;

/// What a node does.
#[derive(Clone)]
pub struct Stage {
    pub kind: String,
    /// Raised by the kind's author whenever equal inputs give other outputs than before.
    pub version: u32,
    /// The canonical configuration, flattened: a label (`model.l2`) and its value's text, in a fixed order.
    pub config: Vec<(String, String)>,
    pub inputs: InputPorts,
    pub outputs: Vec<OutputPort>,
    /// Which entries of each input are read, from the headers alone: a selection for each input, in their order. An input
    /// without one is read whole.
    pub reads: Arc<ReadsFn>,
    /// Does the work and stores the outputs. It must read nothing of its inputs but what it selected: the rest is not in
    /// the key.
    pub run: Arc<RunFn>,
    /// Keeps the outputs in place in the project, for stages whose outputs are files there.
    pub outs: Option<Arc<dyn Outs>>,
}

/// See [`Stage::reads`]. An error is shown as the node's failure.
pub type ReadsFn = dyn Fn(&[Bound]) -> Result<Vec<Selection>, Failure> + Send + Sync;
/// See [`Stage::run`]. Gives an artifact for each output port, in the order of the ports.
pub type RunFn = dyn Fn(&Job<'_>) -> Result<Vec<Artifact>, Failure> + Send + Sync;

/// The inputs that a stage takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPorts {
    Fixed(Vec<InputPort>),
    /// At least one port of this type, named by the pipeline file.
    Named {
        type_name: String,
    },
}

/// One declared input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPort {
    pub name: String,
    /// `None` takes any type.
    pub type_name: Option<String>,
    pub presence: Presence,
}

/// How many artifacts a port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Required,
    Optional,
    /// Any number, from a gather.
    Gathered,
}

/// One declared output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPort {
    pub name: String,
    pub type_name: String,
    /// The input port whose present entries this output carries on. The stage gives only what it adds or replaces, so
    /// that an entry it does not read is not in its key.
    pub passes: Option<String>,
}

/// The entries of an input that a stage reads, and that its key therefore holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    All,
    Only(Vec<String>),
}

/// An input as it is for one execution.
#[derive(Debug, Clone)]
pub struct Bound {
    pub port: String,
    /// Tells a gathered input from its siblings; empty otherwise.
    pub label: BTreeMap<String, String>,
    pub artifact: Artifact,
    /// The tree, if the artifact is one.
    pub tree: Option<Arc<Tree>>,
    /// Where the bytes are, if they are a file or folder of the project and not in the store.
    pub path: Option<PathBuf>,
    pub selection: Selection,
}

/// One execution of a stage.
pub struct Job<'a> {
    /// The node's name, for messages and folders; it must not reach an output.
    pub node: &'a str,
    pub store: &'a Arc<Store>,
    pub inputs: &'a [Bound],
    /// Whether it is not tried again if it fails.
    pub is_last: bool,
    /// Tells that the run is to end: a function that may take long looks at it, or watches it, and then gives
    /// [`Failure::Cancelled`]. One that does not is waited for.
    pub cancel: &'a Cancel,
}

/// Outputs that stand as files in the project.
pub trait Outs: Send + Sync {
    /// Whether the files in place are these artifacts.
    ///
    /// # Errors
    /// If a file cannot be looked at.
    fn in_place(&self, outputs: &[Artifact]) -> Result<bool, Failure>;
    /// Puts them in place. What stood there is kept aside.
    ///
    /// # Errors
    /// If a file cannot be written, or the store's bytes are missing or damaged.
    fn restore(&self, store: &Store, outputs: &[Artifact]) -> Result<(), Failure>;
}

/// Why a stage gave no outputs.
#[derive(Debug)]
pub enum Failure {
    /// An input's bytes are gone or damaged: its producer is to run again.
    Lost(Digest),
    /// It gave up as the run is to end; of a run that is not, a failure like others.
    Cancelled,
    /// Anything else; shown to the user.
    Error(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(digest) => write!(f, "the bytes {digest} are missing or damaged"),
            Self::Cancelled => f.write_str("it gave up, and nobody had told it to"),
            Self::Error(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// A failure with this cause.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Error(error.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error.lost() {
            Some(digest) => Self::Lost(digest),
            None => Self::new(error),
        }
    }
}
