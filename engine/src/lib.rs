//! Graph, keys, plan and scheduler: what must run, in which order, and what is known already.
//!
//! | file | |
//! |---|---|
//! | [`stage`] | what a node does, as data and one function |
//! | [`graph`] | nodes and edges; every wiring error found at once |
//! | [`manifest`] | the labelled lines whose hash is a node's key |
//! | [`plan`] | which nodes wait, are ready, run or are done; pure |
//! | [`run`] | the loop in which plan, store and workers meet |
//! | `worker` | what a worker does: the stage's function, the checks, the record |
//! | `committer` | makes what workers stored durable and writes their records, many with one sync |
//! | `queue` | nodes whose keys another process computes; why nothing deadlocks |
//! | `compose` | passed entries and what a stage gave, as one output |
//! | [`event`] | all that the outside may know of a run |
//!
//! The engine does not know tables, models, the pipeline file, the file system, processes or the clock: files reach it
//! through [`run::Sources`], time as a function, work as a closure in a [`stage::Stage`].
//!
//! Invariants: a node's key covers all that its function selects of its inputs, and it must read nothing else. A record
//! is written only after its outputs are durable, and success is told only after that. A failure is never recorded. Of
//! all processes that share a store, one at a time computes a key.
#![forbid(unsafe_code)]

mod committer;
mod compose;
pub mod event;
pub mod graph;
pub mod manifest;
pub mod plan;
mod queue;
pub mod run;
pub mod stage;
mod worker;

pub use event::{Event, Finish, Outcome, Preview, Reason};
pub use graph::{Graph, Node, NodeId, Wire, WireFrom, WiringError};
pub use manifest::{Change, Key, Manifest};
pub use run::{Options, RunError, Session, SourceError, Sources, Summary};
pub use stage::{Bound, Failure, InputPort, InputPorts, Job, OutputPort, Outs, Presence, Selection, Stage};
