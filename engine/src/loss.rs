//! Bytes that turn out to be lost, and sources that change: what is looked at again because of it.
//!
//! Invariants: of lost bytes the nodes that made them come first, the nearest to the source before the others, then the
//! node that found it; a node whose sources change twice while it runs fails, as does one that finds bytes lost again and
//! again.

use std::collections::BTreeSet;

use headwater_cache::{Artifact, Digest, Shape};

use crate::coordinator::Run;
use crate::graph::{NodeId, Source};
use crate::run::{Look, SourceId};

/// How often a node may find bytes lost before that is a failure.
const REWINDS: u32 = 3;

impl Run<'_, '_> {
    pub(crate) fn sources_changed(&mut self, node: usize, changed: Vec<(SourceId, Look)>) {
        if std::mem::replace(&mut self.known[node].rerun, true) {
            let path = changed.first().map(|((path, _), _)| path.display().to_string()).unwrap_or_default();
            let text = format!("{path} changed while it was read, twice; let it come to rest and run again");
            return self.fail_with(node, text);
        }
        self.looked.extend(changed);
        self.misses.forget_inputs();
        self.plan.put_back(node);
    }

    /// An input's bytes are gone: the nodes that made them are looked at first, then this one again.
    pub(crate) fn lost(&mut self, node: usize, digest: Digest) {
        let makers = self.makers(node, digest);
        if makers.is_empty() {
            return self.fail_with(node, format!("the bytes {digest} are missing or damaged, and no stage makes them"));
        }
        self.rewind(node, makers);
    }

    /// Puts a node back that found bytes lost, behind the nodes that make them; the nearest comes first.
    pub(crate) fn rewind(&mut self, node: usize, makers: Vec<usize>) {
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
        self.misses.forget_inputs();
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

    /// A node was opened again and gave something else than before: what was made from that is looked at again.
    pub(crate) fn outdate_consumers(&mut self, node: usize) {
        for consumer in self.plan.consumers(node).to_vec() {
            self.known[consumer].outdated = true;
            self.reopen(consumer);
        }
    }
}
