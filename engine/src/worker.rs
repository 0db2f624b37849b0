//! What a worker does: the stage's function, then the checks, then the record, which the committer writes.
//!
//! It does not know the plan. Outs are put in place in the project before their record is durable, as consumers read them
//! there. A crash in between leaves an out without a record: the stage runs again, and what stands in the out's place
//! is treated as any file there: kept if it is what the stage gives again, else put aside. It is never taken for right by
//! being there.
//!
//! Invariants: there is no record of a failure, of a source that changed meanwhile, or of outputs whose bytes are not in
//! the store; a panic is a failure with its text.

use std::any::Any;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use headwater_cache::{Artifact, LedgerError, Record, StoreError};

use crate::cancel::Cancel;
use crate::compose::{Trees, compose};
use crate::graph::{NodeId, Source};
use crate::known::Inputs;
use crate::run::{Look, Session, SourceId};
use crate::stage::{Bound, Failure, Job, Stage};

/// Why a worker has no outputs.
pub(crate) enum Ending {
    Failure(Failure),
    /// The stage's function failed, and neither the store nor its bytes were the reason.
    Function(Failure),
    /// The run is to end: the function did not begin, or gave up.
    Cancelled,
    /// These sources are not what the key was made from; this is how they look now.
    SourcesChanged(Vec<(SourceId, Look)>),
    /// The bytes of the node's own outputs are gone or damaged.
    OutputsLost,
}

/// What a worker made.
pub(crate) struct Work {
    /// If the stage ran to its end: also when its outs could not be put in place.
    pub record: Option<Record>,
    pub result: Result<Vec<Artifact>, Ending>,
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Session<'_> {
    /// Runs a node; gives what consumers see, and a record of what its stage gave.
    pub(crate) fn execute(&self, id: NodeId, inputs: Inputs, is_last: bool, cancel: &Cancel) -> Work {
        match guarded(|| self.compute(id, inputs, is_last, cancel)) {
            // Last: what took hours is not to be done again because a file could not be put in place.
            Ok((record, outputs)) => Work { record: Some(record), ..self.restore(&self.graph.node(id).stage, outputs) },
            Err(ending) => Work { record: None, result: Err(ending) },
        }
    }

    fn compute(
        &self,
        id: NodeId,
        inputs: Inputs,
        is_last: bool,
        cancel: &Cancel,
    ) -> Result<(Record, Vec<Artifact>), Ending> {
        // It may have been handed out before this thread was free.
        if cancel.is_raised() {
            return Err(Ending::Cancelled);
        }
        let (begun, bound) = (self.clock.now(), &*inputs.bound);
        let node = self.graph.node(id);
        let job = Job { node: &node.name, store: self.store, inputs: bound, is_last, cancel };
        let given: Result<Vec<Artifact>, Failure> = guarded(|| (node.stage.run)(&job));
        // A torn read may have been the cause of a failure as well as of a result.
        self.check_sources(id, bound)?;
        let given = given.map_err(|failure| ending_of(failure, cancel))?;
        self.check_outputs(&node.stage, &given)?;
        let outputs = compose(&mut Trees::new(self.store), &node.stage, bound, given.clone())?;
        let names = node.stage.outputs.iter().map(|port| port.name.clone());
        let seconds = self.clock.now() - begun;
        let record = Record { outputs: names.zip(given).collect(), manifest: inputs.manifest, seconds };
        Ok((record, outputs))
    }

    /// Puts outputs where they stand in the project.
    pub(crate) fn restore(&self, stage: &Stage, outputs: Vec<Artifact>) -> Work {
        let placed = guarded(|| stage.outs.as_ref().map_or(Ok(()), |outs| outs.restore(self.store, &outputs)));
        let result = match placed {
            Ok(()) => Ok(outputs),
            Err(Failure::Lost(_)) => Err(Ending::OutputsLost),
            Err(failure) => Err(failure.into()),
        };
        Work { record: None, result }
    }

    fn check_sources(&self, id: NodeId, bound: &[Bound]) -> Result<(), Ending> {
        let mut changed = Vec::new();
        for (input, bound) in self.graph.inputs(id).iter().zip(bound) {
            let Source::File { path, without } = &input.source else { continue };
            let now = self.sources.look(path, without);
            if !now.as_ref().is_ok_and(|now| now.artifact == bound.artifact) {
                changed.push(((path.clone(), without.clone()), now));
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(Ending::SourcesChanged(changed)) }
    }

    fn check_outputs(&self, stage: &Stage, given: &[Artifact]) -> Result<(), Ending> {
        let (expected, found) = (stage.outputs.len(), given.len());
        if found != expected {
            return Err(Failure::new(format!("the stage has {expected} outputs and gave {found}")).into());
        }
        // A put takes a blob that is there for good; a tree is read here, and may turn out to be damaged.
        if given.iter().all(|artifact| self.store.holds(artifact)) { Ok(()) } else { Err(Ending::OutputsLost) }
    }
}

/// What it means that a stage's function failed.
fn ending_of(failure: Failure, cancel: &Cancel) -> Ending {
    match failure {
        Failure::Cancelled if cancel.is_raised() => Ending::Cancelled,
        Failure::Error(error) if !is_of_the_store(&*error) => Ending::Function(Failure::Error(error)),
        other => Ending::Failure(other),
    }
}

/// Whether the store failed, below whatever others made of it. To try again would ask the same of the same disk.
fn is_of_the_store(error: &(dyn Error + 'static)) -> bool {
    error.is::<StoreError>() || error.is::<LedgerError>() || error.source().is_some_and(is_of_the_store)
}

/// Calls code that is not the engine's.
pub(crate) fn guarded<T, E: From<Failure>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::new(panic_text(&*panic)).into()))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the stage panicked: {}", text.unwrap_or("without a message"))
}
