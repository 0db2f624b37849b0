//! Graph, keys, plan and scheduler: what must run, in which order, and what is known already.
//!
//! | file | |
//! |---|---|
//! | [`stage`] | what a node does, as data and one function |
//! | [`graph`] | nodes and edges; every wiring error found at once |
//! | [`manifest`] | the labelled lines whose hash is a node's key |
//! | [`plan`] | which nodes wait, are ready, run or are done; pure |
//! | [`room`] | what nodes take up while they run, and whose turn it is; pure |
//! | [`run`] | what a run is asked to do, and all that it works with |
//! | `coordinator`, `known` | the loop in which plan, store and workers meet, and what it knows |
//! | `lookup`, `recent` | what a node reads, the key that makes, and what there is for it |
//! | `ending`, `loss` | what follows from the end of a node, and from bytes that are lost |
//! | [`crew`], `pace` | the threads that run stages; which kinds of stages end within a moment |
//! | `worker` | what a worker does: the stage's function, the checks, the record |
//! | `committer` | makes what workers stored durable and writes their records, many with one sync |
//! | `misses` | nodes that are not cached, and whose turn to begin has not come |
//! | `queue` | nodes whose keys another process computes; why nothing deadlocks |
//! | `compose` | passed entries and what a stage gave, as one output |
//! | [`cancel`] | by which a run, and what runs in it, is told to end |
//! | [`clock`] | how time comes in; nodes that are tried again later |
//! | [`event`] | all that the outside may know of a run |
//!
//! The engine does not know tables, models, the pipeline file, the file system, processes or the clock: files reach it
//! through [`run::Sources`], time through [`clock::Clock`], work as a closure in a [`stage::Stage`].
//!
//! Invariants: a node's key covers all that its function selects of its inputs, and it must read nothing else. A record
//! is written only after its outputs are durable, and success is told only after that. A failure is never recorded. Of
//! all processes that share a store, one at a time computes a key.
#![forbid(unsafe_code)]

pub mod cancel;
pub mod clock;
mod committer;
mod compose;
mod coordinator;
pub mod crew;
mod ending;
pub mod event;
pub mod graph;
mod known;
mod lookup;
mod loss;
pub mod manifest;
mod misses;
mod pace;
pub mod plan;
mod queue;
mod recent;
pub mod room;
pub mod run;
pub mod stage;
mod worker;

pub use cancel::{Cancel, Level};
pub use clock::Clock;
pub use event::{Event, Finish, Outcome, Preview, Reason};
pub use graph::{Graph, Node, NodeId, Wire, WireFrom, WiringError};
pub use manifest::{Change, Key, Manifest};
pub use room::{Capacities, Excess, Request};
pub use run::{Options, RunError, Session, SourceError, Sources, Summary, TooMuch, too_much};
pub use stage::{Bound, Failure, InputPort, InputPorts, Job, OutputPort, Outs, Presence, Selection, Stage};
