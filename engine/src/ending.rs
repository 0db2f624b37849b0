//! What follows from the end of a node: its commit, what is told of it, and what it means for the others.
//!
//! A node that has its outputs is done at once for the nodes that read it. It is *settled*, and its end told, only when
//! the outputs and their record are durable. What follows from outputs that are not durable yet waits with its own end,
//! and so do a failure and the cancellations that follow from it: a node is told as done or failed after the ends of what it
//! has read. If a commit fails, every node that is not settled fails, and the run ends.
//!
//! Invariants: each end that counts is told once; a failure is tried again only if it is one of the stage's function.

use std::sync::Arc;

use headwater_cache::{Artifact, Claim, Record};

use crate::clock::pause_after;
use crate::committer::Item;
use crate::coordinator::{Message, Run};
use crate::event::{Event, Finish, Outcome, Preview, Reason};
use crate::graph::NodeId;
use crate::known::{Failed, Uncommitted, Unsettled};
use crate::manifest::Key;
use crate::stage::Failure;
use crate::worker::{Ending, Work};

impl Run<'_, '_> {
    /// A worker is done with a node.
    pub(crate) fn worked(&mut self, node: usize, Work { record, result }: Work, restored: bool) {
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
            Err(Ending::Cancelled) => self.cancelled(node),
            // Until then nobody else of this run tries its key.
            Err(Ending::Function(failure)) if self.may_try_again(node) => return self.pause(node, &failure),
            Err(Ending::Failure(Failure::Lost(digest))) => self.lost(node, digest),
            Err(Ending::Failure(failure) | Ending::Function(failure)) => self.fail(node, failure),
        }
        self.land(key);
    }

    fn may_try_again(&self, node: usize) -> bool {
        self.has_retries(node) && !self.stopping && !self.options.cancel.is_raised()
    }

    pub(crate) fn has_retries(&self, node: usize) -> bool {
        self.known[node].failures < self.session.graph.node(NodeId(node)).retries
    }

    /// Has a node that failed be looked at again after a while.
    fn pause(&mut self, node: usize, failure: &Failure) {
        self.known[node].failures += 1;
        let attempt = self.known[node].failures;
        let (error, seconds) = (failure.to_string(), pause_after(attempt));
        self.known[node].last_failure = Some(error.clone());
        (self.emit)(Event::Retrying { node: NodeId(node), attempt, error, seconds });
        self.pauses.add(node, self.session.clock.now(), seconds);
        self.set_alarm();
    }

    fn set_alarm(&mut self) {
        let Some((moment, seconds)) = self.pauses.alarm(self.session.clock.now()) else { return };
        let sender = self.sender.clone();
        // A run that has ended does not ask any more.
        self.session.clock.after(seconds, Box::new(move || drop(sender.send(Message::Rang { moment }))));
    }

    /// Looks again at the nodes that have paused until this moment.
    pub(crate) fn rang(&mut self, moment: u64) {
        // They end with the run.
        if self.stopping || self.options.cancel.is_raised() {
            return;
        }
        for node in self.pauses.ring(moment) {
            self.end_pause(node);
            self.plan.put_back(node);
        }
        self.set_alarm();
    }

    fn end_pause(&mut self, node: usize) -> Option<String> {
        let key = self.known[node].key.expect("a node that pauses has a key");
        self.land(key);
        self.known[node].last_failure.take()
    }

    /// A node gave up, as the run is to end.
    fn cancelled(&mut self, node: usize) {
        self.stopping = true;
        // Before it ends itself, as what needs it was not skipped.
        self.cancel();
        self.plan.finish(node, Outcome::Cancelled);
        self.report(node, Outcome::Cancelled, false, None);
    }

    /// Hands the committer what a node put, and the record of its key, if it has one; gives the item's number.
    pub(crate) fn commit(&mut self, node: usize, made: Option<(Key, Record, Option<Claim>)>) -> u64 {
        self.items += 1;
        let number = self.items;
        let key = made.as_ref().map(|(key, _, _)| *key);
        let item = match made {
            Some((key, record, claim)) => {
                let record = Arc::new(record);
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
    pub(crate) fn committed(&mut self, count: usize, result: &Result<(), String>) {
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
        for failed in std::mem::take(&mut self.untold) {
            self.tell_in_turn(failed);
        }
    }

    /// Fails a node that had its outputs: the disk did not take them.
    fn revoke(&mut self, node: usize, error: &str) {
        // The run ends; of these, what reads the node is skipped as well.
        self.put_waiting_back();
        let skipped = self.plan.revoke(node);
        let error = format!("its outputs could not be made durable: {error}");
        self.tell(Failed { node, error, skipped });
    }

    fn reads_unsettled(&self, node: usize) -> bool {
        self.plan.producers(node).iter().any(|id| self.known[*id].unsettled.is_some())
    }

    /// Tells a failure, unless it has to wait for the ends of what the node has read.
    fn tell_in_turn(&mut self, failed: Failed) {
        match self.reads_unsettled(failed.node) {
            true => self.untold.push(failed),
            false => self.tell(failed),
        }
    }

    /// Ends a node with outputs. The end is told when its item is durable, if it has one, and all that it reads is
    /// settled.
    pub(crate) fn succeed(&mut self, node: usize, outputs: Vec<Artifact>, restored: bool, item: Option<u64>) {
        let old = std::mem::replace(&mut self.known[node].outputs, outputs);
        let differs = !old.is_empty() && old != self.known[node].outputs;
        // Once it has run, a second look that finds the record does not undo that.
        let outcome = if self.known[node].ran { Outcome::Ran } else { Outcome::Cached };
        self.plan.finish(node, outcome);
        let early = self.reads_unsettled(node);
        // Items are answered in order, so this one is after theirs.
        match item.or_else(|| early.then(|| self.commit(node, None))) {
            Some(number) => self.known[node].unsettled = Some(Unsettled { number, outcome, restored }),
            None => self.report(node, outcome, restored, None),
        }
        if differs {
            self.outdate_consumers(node);
        }
    }

    pub(crate) fn fail(&mut self, node: usize, failure: Failure) {
        self.fail_with(node, failure.to_string());
    }

    pub(crate) fn fail_with(&mut self, node: usize, error: String) {
        if self.options.preview {
            return self.preview(node, Preview::Failed(error));
        }
        let skipped = self.plan.finish(node, Outcome::Failed);
        self.tell_in_turn(Failed { node, error, skipped });
        self.stopping |= !self.options.keep_going;
    }

    /// Ends what has not begun; called again after each message, as nodes may be put back meanwhile.
    pub(crate) fn cancel(&mut self) {
        self.put_waiting_back();
        for (node, key) in self.queue.give_up() {
            self.land(key);
            self.plan.put_back(node);
        }
        for node in self.pauses.give_up() {
            let error = self.end_pause(node).unwrap_or_default();
            self.fail_with(node, error);
        }
        for node in self.plan.cancel() {
            self.report(node, Outcome::Cancelled, false, None);
        }
    }

    pub(crate) fn skip(&mut self, node: usize, failed: &str) {
        let cause = failed_text(failed);
        for below in std::iter::once(node).chain(self.plan.finish(node, Outcome::Skipped)) {
            self.report(below, Outcome::Skipped, false, Some(cause.clone()));
        }
    }

    fn tell(&mut self, Failed { node, error, skipped }: Failed) {
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
    pub(crate) fn preview_below_stale(&mut self, node: usize) -> bool {
        let stale = self.plan.producers(node).iter().filter(|id| self.known[**id].stale);
        let stale: Vec<NodeId> = stale.map(|id| NodeId(*id)).collect();
        if stale.is_empty() {
            return false;
        }
        let forced = self.forced[node];
        let preview = if forced { Preview::Stale(Reason::Forced) } else { Preview::Maybe(Reason::Unknown(stale)) };
        self.preview(node, preview);
        true
    }

    pub(crate) fn preview(&mut self, node: usize, preview: Preview) {
        self.known[node].stale = !matches!(preview, Preview::Cached | Preview::Restore);
        let key = self.known[node].key;
        let outputs = if self.known[node].stale { Vec::new() } else { self.known[node].outputs.clone() };
        (self.emit)(Event::Previewed { node: NodeId(node), preview, key, outputs });
        self.plan.finish(node, Outcome::Cached);
    }
}

fn failed_text(name: &str) -> String {
    format!("`{name}` failed")
}
